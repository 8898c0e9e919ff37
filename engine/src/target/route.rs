//! How a connection reaches its host: directly, or through a proxy.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::model::network::Network;

/// Connects fast or not at all.
pub fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(2)));
    connector
}

/// Connects directly, or through the proxy for an address.
#[derive(Debug, Clone)]
pub struct Route {
    connector: HttpConnector,
    proxies: Option<Arc<Matcher>>,
}

impl Route {
    /// Connects directly.
    #[must_use]
    pub fn direct() -> Self {
        let mut connector = connector();
        connector.enforce_http(false);
        Self {
            connector,
            proxies: None,
        }
    }

    /// Connects through the proxies of a network.
    #[must_use]
    pub fn through(network: &Network) -> Self {
        let proxy = |url: &Option<String>| url.clone().unwrap_or_default();
        let any = network.https_proxy.is_some() || network.http_proxy.is_some();
        let proxies = any.then(|| {
            Matcher::builder()
                .https(proxy(&network.https_proxy))
                .http(proxy(&network.http_proxy))
                .no(network.direct())
                .build()
        });
        Self {
            proxies: proxies.map(Arc::new),
            ..Self::direct()
        }
    }

    fn proxy(&self, uri: &Uri) -> Option<Intercept> {
        self.proxies.as_ref()?.intercept(uri)
    }

    /// What a request to that address says to the proxy on its way, if it is read by one.
    /// One to an `https://` address passes through a tunnel.
    #[must_use]
    pub fn credentials(&self, url: &str) -> Option<HeaderValue> {
        let uri = url.parse::<Uri>().ok().filter(|uri| !is_secure(uri))?;
        self.proxy(&uri)?.basic_auth().cloned()
    }
}

fn is_secure(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

type Error = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Route {
    type Response = Stream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.connector.poll_ready(context).map_err(Error::from)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut connector = self.connector.clone();
        let proxy = self.proxy(&uri);
        Box::pin(async move {
            let Some(proxy) = proxy else {
                let io = connector.call(uri).await?;
                return Ok(Stream { io, proxied: false });
            };
            let failed = |error: Error| -> Error {
                let mut innermost: &dyn std::error::Error = error.as_ref();
                while let Some(inner) = innermost.source() {
                    innermost = inner;
                }
                format!(
                    "the proxy {} did not let it pass: {innermost}",
                    place(&proxy)
                )
                .into()
            };
            if is_secure(&uri) {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), connector);
                if let Some(credentials) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(credentials.clone());
                }
                let io = tunnel.call(uri).await.map_err(|e| failed(e.into()))?;
                return Ok(Stream { io, proxied: false });
            }
            let io = connector.call(proxy.uri().clone()).await;
            let io = io.map_err(|e| failed(e.into()))?;
            Ok(Stream { io, proxied: true })
        })
    }
}

/// Host and port of a proxy, without its credentials.
fn place(proxy: &Intercept) -> String {
    proxy
        .uri()
        .authority()
        .map_or_else(String::new, ToString::to_string)
}

/// A connection to a host, or to the proxy that passes plain requests on.
pub struct Stream {
    io: TokioIo<TcpStream>,
    /// Whether requests must say the whole address, because a proxy reads them.
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

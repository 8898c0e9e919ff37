//! A small HTTP and HTTPS client: one request, one bounded answer.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;

use crate::clock::{Clock, SystemClock};
use crate::model::network::Network;
use crate::model::query::Probe;
use crate::model::{Millis, ProbeReport};
use crate::target::route::Route;
use crate::target::secret;
use crate::target::tls::{self, Trust};

/// Largest answer that is read.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Largest head of an answer over HTTP/2, bytes; as for the traffic.
const HEAD_BYTES_MAX: u32 = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The request cannot even be built.
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    /// Nobody answers.
    #[error("{}", connection(.0))]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// The answer broke off or is too big.
    #[error("the answer broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

/// The innermost cause says most: "connection refused".
fn connection(error: &hyper_util::client::legacy::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub head: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
    /// The fields after its body, if there are any.
    pub trailers: Option<HeaderMap>,
    /// When it came, Unix ms.
    pub at: Millis,
}

/// Sends requests; keeps connections.
#[derive(Debug, Clone)]
pub struct Client {
    plain: hyper_util::client::legacy::Client<Route, Full<Bytes>>,
    /// Made when it is first needed: reading the machine's certificates takes
    /// longer than many a verb.
    secure: Arc<OnceLock<Secure>>,
    tls: Tls,
    http2: bool,
    route: Route,
}

type Secure = hyper_util::client::legacy::Client<HttpsConnector<Route>, Full<Bytes>>;

/// How it speaks TLS.
#[derive(Debug, Clone)]
enum Tls {
    /// As it has to trust the machine's certificates and those of a file.
    Machine(Option<PathBuf>),
    Ready(Box<ClientConfig>),
}

impl Default for Client {
    fn default() -> Self {
        Self::speaking(false, Route::direct(), Tls::Machine(None))
    }
}

impl Client {
    /// A client for backends, which speaks HTTP/2 from the first byte if they do.
    pub(super) fn to_backends(http2: bool, tls: ClientConfig) -> Self {
        Self::speaking(http2, Route::direct(), Tls::Ready(Box::new(tls)))
    }

    /// A client that goes through proxies and trusts the certificates of a network.
    #[must_use]
    pub fn through(network: &Network) -> Self {
        let tls = Tls::Machine(network.ca_bundle.clone());
        Self::speaking(false, Route::through(network), tls)
    }

    /// A client that goes through the proxies of a network and trusts others than it does.
    ///
    /// # Errors
    /// The file of an authority cannot be used.
    pub fn trusting(network: &Network, trust: &Trust, http2: bool) -> Result<Self, String> {
        let tls = Tls::Ready(Box::new(tls::client(trust)?));
        Ok(Self::speaking(http2, Route::through(network), tls))
    }

    fn speaking(http2: bool, route: Route, tls: Tls) -> Self {
        Self {
            plain: hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .http2_only(http2)
                .http2_max_header_list_size(HEAD_BYTES_MAX)
                .build(route.clone()),
            secure: Arc::default(),
            tls,
            http2,
            route,
        }
    }

    fn secure(&self) -> &Secure {
        self.secure.get_or_init(|| {
            let tls = match &self.tls {
                Tls::Ready(tls) => (**tls).clone(),
                // Only the file of an authority can be wrong, and there is none.
                Tls::Machine(more) => tls::client(&Trust::Machine(more.clone()))
                    .unwrap_or_else(|e| unreachable!("{e}")),
            };
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_only();
            let connector = match self.http2 {
                true => connector.enable_http2().wrap_connector(self.route.clone()),
                false => connector.enable_http1().wrap_connector(self.route.clone()),
            };
            hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .http2_only(self.http2)
                .http2_max_header_list_size(HEAD_BYTES_MAX)
                .build(connector)
        })
    }
}

impl Client {
    /// One request; a body is JSON.
    pub async fn send(
        &self,
        method: &str,
        url: &str,
        body: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Answer, HttpError> {
        self.send_with(method, url, &[], body, timeout).await
    }

    /// One request with headers; a body is JSON if they do not say what it is. The headers may be secrets: no
    /// error shows them.
    pub async fn send_with(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
        body: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Answer, HttpError> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map(|mut value| {
                value.set_sensitive(true);
                value
            });
            request = request.header(*name, value.map_err(hyper::http::Error::from)?);
        }
        if let Some(credentials) = self.route.credentials(url) {
            request = request.header(PROXY_AUTHORIZATION, credentials);
        }
        let has_type = headers.iter().any(|(name, _)| *name == CONTENT_TYPE);
        if body.is_some() && !has_type {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body.unwrap_or_default()))?;
        let exchange = async {
            let answer = if url.starts_with("https://") {
                self.secure().request(request).await?
            } else {
                self.plain.request(request).await?
            };
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX);
            let body = body.collect().await.map_err(HttpError::Body)?;
            Ok(Answer {
                status: head.status,
                head: head.headers,
                trailers: body.trailers().cloned(),
                body: body.to_bytes(),
                at: SystemClock.now(),
            })
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or(Err(HttpError::Timeout(timeout)))
    }
}

/// One try of a probe at `base`, such as `http://10.0.0.7:8000`.
pub(super) async fn probe(
    client: &Client,
    base: &str,
    probe: &Probe,
    timeout: Duration,
) -> ProbeReport {
    let begun = tokio::time::Instant::now();
    let path = match secret::fill(&probe.path, str::to_owned) {
        Ok(path) => path,
        Err(detail) => {
            return ProbeReport {
                ok: false,
                status: 0,
                elapsed_ms: 0.0,
                detail,
            };
        }
    };
    let url = format!("{base}{}", path.text);
    let answer = client.send("GET", &url, None, timeout).await;
    let elapsed_ms = begun.elapsed().as_secs_f64() * 1_000.0;
    let path = &path.shown;
    let (status, detail) = match answer {
        Err(error) => (0, Err(format!("GET {path}: {error}"))),
        Ok(answer) => {
            let status = answer.status.as_u16();
            let body = String::from_utf8_lossy(&answer.body);
            let missing = probe.contains.as_ref().filter(|c| !body.contains(*c));
            let found = match missing {
                _ if status != probe.status => {
                    Err(format!("GET {path}: {status}, not {}", probe.status))
                }
                Some(text) => Err(format!("GET {path}: the body has no {text:?}")),
                None => Ok(format!("GET {path}: {status}")),
            };
            (u32::from(status), found)
        }
    };
    ProbeReport {
        ok: detail.is_ok(),
        status,
        elapsed_ms,
        detail: detail.unwrap_or_else(|e| e),
    }
}

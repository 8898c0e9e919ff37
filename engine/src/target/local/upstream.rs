//! Connections to arms, on which the answer is read even if a write fails.
//!
//! A server that refuses a large body answers and closes, while the rest of the
//! body is still being written. That write fails, and hyper would take the failure
//! for the end: the answer that is already there would be lost, and any client
//! could make a strict arm look broken. So a failed write is reported only when
//! nothing is left to read.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower_service::Service;

use super::Broken;

/// What is known of the use of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Link(Arc<Use>);

#[derive(Debug, Default)]
struct Use {
    /// Whether it has carried an answer.
    answered: AtomicBool,
    /// Whether anything came on it since something was last written to it.
    heard: AtomicBool,
}

impl Link {
    /// Notes that the head of an answer came on it.
    pub(super) fn answered(&self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }

    /// Whether it served an earlier request and has brought nothing for the last one.
    pub(super) fn is_stale(&self) -> bool {
        self.0.answered.load(Ordering::Relaxed) && !self.0.heard.load(Ordering::Relaxed)
    }
}

/// Makes these connections.
#[derive(Debug, Clone)]
pub(super) struct Connector(HttpsConnector<HttpConnector>);

/// A connection, encrypted or not.
type Stream = TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>;

impl Connector {
    pub(super) fn new(http2: bool, tls: ClientConfig) -> Self {
        let builder = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http();
        let mut tcp = crate::target::route::connector();
        tcp.enforce_http(false);
        Self(match http2 {
            true => builder.enable_http2().wrap_connector(tcp),
            false => builder.enable_http1().wrap_connector(tcp),
        })
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Upstream>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            let inner = connecting.await?;
            Ok(TokioIo::new(Upstream {
                inner: TokioIo::new(inner),
                link: Link::default(),
                read_out: false,
                failed: None,
                writer: None,
            }))
        })
    }
}

/// One of these connections.
#[derive(Debug)]
pub(super) struct Upstream {
    inner: Stream,
    link: Link,
    /// Whether everything was read.
    read_out: bool,
    failed: Option<io::ErrorKind>,
    writer: Option<Waker>,
}

impl Connection for Upstream {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.link.clone())
    }
}

impl Upstream {
    fn patiently<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.link.0.heard.store(false, Ordering::Relaxed);
        if self.failed.is_none() {
            match write(Pin::new(&mut self.inner), context) {
                Poll::Ready(Err(error)) => self.failed = Some(error.kind()),
                polled => return polled,
            }
        }
        match self.failed {
            Some(kind) if self.read_out => Poll::Ready(Err(kind.into())),
            _ => {
                self.writer = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncRead for Upstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        let ended = match &polled {
            Poll::Ready(Ok(())) => room > 0 && buffer.filled().len() == before,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if buffer.filled().len() > before {
            self.link.0.heard.store(true, Ordering::Relaxed);
        }
        if ended {
            self.read_out = true;
            if let Some(writer) = self.writer.take() {
                writer.wake();
            }
        }
        polled
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.patiently(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.patiently(context, |stream, context| {
            stream.poll_write_vectored(context, parts)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

//! Stands before a registry, writes down what it is asked, and makes the
//! trouble that it is told to.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

use super::server::Authority;

/// What one request is answered.
pub enum Trouble {
    /// What the registry says.
    None,
    /// This, and the registry hears nothing.
    Says(u16, &'static [(&'static str, &'static str)], String),
    /// Nothing: the connection is reset.
    Reset,
    /// Other bytes than the registry's.
    Other(Vec<u8>),
    /// So many of the registry's bytes, under the headers of all; then the
    /// connection is reset.
    Cut(usize),
    /// The same, then nothing ever.
    Stall(usize),
    /// Zeros without end.
    Endless,
    /// The same under a status and headers of its own; the registry hears nothing.
    Pours(u16, &'static [(&'static str, &'static str)]),
}

/// One request.
pub struct Asked {
    /// `GET /v2/...`
    pub line: String,
    pub authorization: Option<String>,
}

type Plot = Box<dyn FnMut(&Asked) -> Trouble + Send>;

/// Stands before one registry until this is dropped.
pub struct Proxy {
    /// `127.0.0.1:PORT`
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    plot: Mutex<Plot>,
    asked: Mutex<Vec<String>>,
    /// Bytes of endless bodies so far.
    poured: AtomicUsize,
}

impl Proxy {
    pub async fn start(
        upstream: &str,
        plot: impl FnMut(&Asked) -> Trouble + Send + 'static,
    ) -> Self {
        Self::listen(upstream, None, Box::new(plot)).await
    }

    /// As the authority's `localhost`.
    pub async fn start_tls(
        authority: &Authority,
        upstream: &str,
        plot: impl FnMut(&Asked) -> Trouble + Send + 'static,
    ) -> Self {
        let certificate = CertificateDer::from_pem_file(authority.file("server.pem"));
        let key = PrivateKeyDer::from_pem_file(authority.file("server.key"));
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.expect("PEM")], key.expect("PEM"))
            .expect("a certificate");
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        Self::listen(upstream, Some(tls), Box::new(plot)).await
    }

    async fn listen(upstream: &str, tls: Option<tokio_rustls::TlsAcceptor>, plot: Plot) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            plot: Mutex::new(plot),
            asked: Mutex::default(),
            poured: AtomicUsize::new(0),
        });
        let for_all = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (for_all.clone(), tls.clone());
                tokio::spawn(async move {
                    let answer = service_fn(move |request| pass(shared.clone(), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    // An error of the service closes the connection: a reset.
                    let _ = match tls {
                        None => http.serve_connection(TokioIo::new(stream), answer).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => http.serve_connection(TokioIo::new(stream), answer).await,
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        Self { address, shared }
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().expect("no panic").clone()
    }

    /// Bytes of endless bodies that were taken from it.
    pub fn poured(&self) -> usize {
        self.shared.poured.load(Ordering::SeqCst)
    }
}

async fn pass(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
    let authorization = head.headers.get("authorization");
    let asked = Asked {
        line: format!("{} {path}", head.method),
        authorization: authorization
            .and_then(|a| a.to_str().ok())
            .map(ToOwned::to_owned),
    };
    let trouble = (shared.plot.lock().expect("no panic"))(&asked);
    shared.asked.lock().expect("no panic").push(asked.line);
    let trouble = match trouble {
        Trouble::Reset => return Err(std::io::Error::other("trouble")),
        Trouble::Says(status, headers, body) => {
            let mut answer = Response::builder().status(status);
            for (name, value) in headers {
                answer = answer.header(*name, *value);
            }
            let body = Answer::Bytes(body.into(), Then::End);
            return Ok(answer.body(body).expect("an answer"));
        }
        Trouble::Pours(status, headers) => {
            let mut answer = Response::builder().status(status);
            for (name, value) in headers {
                answer = answer.header(*name, *value);
            }
            let body = Answer::Endless(shared);
            return Ok(answer.body(body).expect("an answer"));
        }
        other => other,
    };
    let mut forward = Request::builder()
        .method(head.method)
        .uri(format!("http://{}{path}", shared.upstream));
    for (name, value) in &head.headers {
        if name != "host" && name != "content-length" && name != "connection" {
            forward = forward.header(name, value);
        }
    }
    let forward = forward
        .body(Full::<Bytes>::from(body.to_bytes()))
        .expect("it was one before");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client
        .request(forward)
        .await
        .map_err(std::io::Error::other)?;
    let (mut head, body) = answer.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let body = match trouble {
        Trouble::Other(bytes) => {
            head.headers.insert("content-length", bytes.len().into());
            Answer::Bytes(bytes.into(), Then::End)
        }
        Trouble::Cut(bytes) => Answer::Bytes(body.slice(..bytes), Then::Reset),
        Trouble::Stall(bytes) => Answer::Bytes(body.slice(..bytes), Then::Wait),
        Trouble::Endless => {
            head.headers.remove("content-length");
            Answer::Endless(shared)
        }
        _ => Answer::Bytes(body, Then::End),
    };
    Ok(Response::from_parts(head, body))
}

enum Then {
    End,
    Reset,
    Wait,
}

enum Answer {
    Bytes(Bytes, Then),
    Endless(Arc<Shared>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match &mut *self {
            Self::Bytes(bytes, _) if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Self::Bytes(_, Then::End) => Poll::Ready(None),
            Self::Bytes(_, Then::Reset) => Poll::Ready(Some(Err(std::io::Error::other("trouble")))),
            // Nobody will wake it: that is the point.
            Self::Bytes(_, Then::Wait) => Poll::Pending,
            Self::Endless(shared) => {
                let zeros = Bytes::from_static(&[0; 4096]);
                shared.poured.fetch_add(zeros.len(), Ordering::SeqCst);
                Poll::Ready(Some(Ok(Frame::data(zeros))))
            }
        }
    }
}

/// A port on every address of this machine; gives the number of connections
/// that were made to it.
pub async fn bystander() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

//! A small HTTP and HTTPS client: one request, one bounded answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::clock::{Clock, SystemClock};
use crate::model::query::Probe;
use crate::model::{Millis, ProbeReport};
use crate::target::secret;

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
    plain: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    /// Made when it is first needed: reading the machine's certificates takes
    /// longer than many a verb.
    secure: std::sync::Arc<std::sync::OnceLock<Secure>>,
}

type Secure = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

impl Default for Client {
    fn default() -> Self {
        Self::speaking(false)
    }
}

impl Client {
    /// A client that speaks HTTP/2 from the first byte where a URL begins with http.
    pub(super) fn http2() -> Self {
        Self::speaking(true)
    }

    fn speaking(http2: bool) -> Self {
        Self {
            plain: hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .http2_only(http2)
                .http2_max_header_list_size(HEAD_BYTES_MAX)
                .build(connector()),
            secure: std::sync::Arc::default(),
        }
    }
}

fn secure() -> Secure {
    let mut connector = connector();
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(trust())
        .https_only()
        .enable_http1()
        .wrap_connector(connector);
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector)
}

/// Trusts what this machine trusts.
fn trust() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let ring = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    // ring has every suite of the default protocol versions, so this cannot fail.
    rustls::ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .map(|b| b.with_root_certificates(roots).with_no_client_auth())
        .unwrap_or_else(|e| unreachable!("{e}"))
}

/// Connects fast or not at all.
pub fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(2)));
    connector
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
        let has_type = headers.iter().any(|(name, _)| *name == CONTENT_TYPE);
        if body.is_some() && !has_type {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body.unwrap_or_default()))?;
        let exchange = async {
            let answer = if url.starts_with("https://") {
                self.secure.get_or_init(secure).request(request).await?
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

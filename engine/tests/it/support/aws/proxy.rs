//! A proxy between the engine and the emulator: writes down every call, and
//! makes the trouble that it is told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::http::response::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use super::emulator;

/// What happens to one call.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// It never arrives, and AWS says this instead.
    Refused(u16, &'static str),
    /// It never arrives: the connection is reset.
    Reset,
    /// It arrives and has its effect, but the answer is lost.
    AnswerLost,
    /// The answer takes this long.
    Late(Duration),
}

/// Decides about the n-th call (from 0) of that name.
pub type Plot = Box<dyn FnMut(usize, &str) -> Trouble + Send>;

#[derive(Default)]
struct Seen {
    calls: Vec<String>,
    plot: Option<Plot>,
    /// Calls that are on their way to the emulator.
    under_way: usize,
}

/// Stands before one emulator; every clone is the same proxy.
#[derive(Clone)]
pub struct Proxy {
    pub endpoint: String,
    seen: Arc<Mutex<Seen>>,
}

impl Proxy {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let shared = seen.clone();
        let upstream = emulator::endpoint();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, client, upstream) = (shared.clone(), client.clone(), upstream.clone());
                tokio::spawn(async move {
                    let answer = service_fn(move |request| {
                        pass(seen.clone(), client.clone(), upstream.clone(), request)
                    });
                    // An error of the service closes the connection: a reset.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Self {
            endpoint: format!("http://{address}"),
            seen,
        }
    }

    /// Makes trouble from now on; counts calls from 0 again.
    pub fn plot(&self, plot: impl FnMut(usize, &str) -> Trouble + Send + 'static) {
        let mut seen = self.seen.lock().expect("no panic");
        seen.calls.clear();
        seen.plot = Some(Box::new(plot));
    }

    /// No more trouble.
    pub fn calm(&self) {
        self.seen.lock().expect("no panic").plot = None;
    }

    /// Waits until every call has had its effect, also those whose caller is gone.
    pub async fn settled(&self) {
        for _ in 0..3_000 {
            if self.seen.lock().expect("no panic").under_way == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a call has not come back from the emulator");
    }

    /// The calls so far, and forgets them.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().expect("no panic").calls)
    }
}

/// The name of the API, whatever protocol it is called by.
fn name(path: &str, target: Option<&str>, body: &[u8]) -> String {
    if let Some(target) = target {
        return target.rsplit('.').next().unwrap_or_default().to_owned();
    }
    if let Some((_, operation)) = path.split_once("/operation/") {
        return operation.to_owned();
    }
    let body = String::from_utf8_lossy(body);
    let action = body
        .split('&')
        .find_map(|pair| pair.strip_prefix("Action="));
    action.unwrap_or(path).to_owned()
}

async fn pass(
    seen: Arc<Mutex<Seen>>,
    client: Client<HttpConnector, Full<Bytes>>,
    upstream: String,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let target = head
        .headers
        .get("x-amz-target")
        .and_then(|t| t.to_str().ok());
    let name = name(head.uri.path(), target, &body);
    let trouble = {
        let mut seen = seen.lock().expect("no panic");
        let index = seen.calls.len();
        seen.calls.push(name.clone());
        let trouble = seen
            .plot
            .as_mut()
            .map_or(Trouble::None, |plot| plot(index, &name));
        let leaves = !matches!(trouble, Trouble::Reset | Trouble::Refused(..));
        seen.under_way += usize::from(leaves);
        trouble
    };
    let lost = || Err(std::io::Error::other("trouble"));
    let late = match trouble {
        Trouble::Reset => return lost(),
        Trouble::Refused(status, code) => return Ok(refusal(&head.headers, status, code)),
        Trouble::Late(time) => time,
        Trouble::None | Trouble::AnswerLost => Duration::ZERO,
    };
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
    let mut forward = Request::builder()
        .method(head.method)
        .uri(format!("{upstream}{path}"));
    for (key, value) in &head.headers {
        if key != "host" && key != "content-length" && key != "connection" {
            forward = forward.header(key, value);
        }
    }
    let forward = forward.body(Full::from(body)).expect("it was one before");
    // In a task of its own: what has left a process arrives, whatever becomes of the process.
    let forwarding = tokio::spawn(async move {
        tokio::time::sleep(late).await;
        let answer = forwarded(&client, forward).await;
        seen.lock().expect("no panic").under_way -= 1;
        answer
    });
    let (head, body) = forwarding.await.map_err(std::io::Error::other)??;
    if trouble == Trouble::AnswerLost {
        return lost();
    }
    let mut back = Response::builder().status(head.status);
    for (key, value) in &head.headers {
        if key != "transfer-encoding" && key != "content-length" && key != "connection" {
            back = back.header(key, value);
        }
    }
    Ok(back.body(Full::from(body)).expect("it was one before"))
}

async fn forwarded(
    client: &Client<HttpConnector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(Parts, Bytes), std::io::Error> {
    let answer = client.request(request).await;
    let (head, body) = answer.map_err(std::io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    Ok((head, body.to_bytes()))
}

/// An error as each of the three protocols says it.
fn refusal(headers: &hyper::HeaderMap, status: u16, code: &str) -> Response<Full<Bytes>> {
    let message = "said the test";
    let (kind, body): (&str, Vec<u8>) = if headers.contains_key("x-amz-target") {
        let body = serde_json::json!({"__type": code, "message": message});
        ("application/x-amz-json-1.1", body.to_string().into_bytes())
    } else if headers.contains_key("smithy-protocol") {
        // A CBOR map of two texts.
        let text = |t: &str| {
            let length = u8::try_from(t.len()).expect("a short text");
            [&[0x78, length], t.as_bytes()].concat()
        };
        let pairs = ["__type", code, "message", message].map(text);
        ("application/cbor", [&[0xa2][..], &pairs.concat()].concat())
    } else {
        let body = format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        );
        ("text/xml", body.into_bytes())
    };
    let mut answer = Response::builder()
        .status(status)
        .header("content-type", kind);
    if kind == "application/cbor" {
        answer = answer.header("smithy-protocol", "rpc-v2-cbor");
    }
    answer.body(Full::from(body)).expect("a response")
}

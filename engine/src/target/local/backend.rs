//! Connections to backends: which one carries a request, and when a request is sent
//! once more.
//!
//! A server may close a connection that it has kept alive just as the next request
//! goes out on it. That is nobody's fault: the request is sent again on a new
//! connection if no byte of an answer had come and sending it twice does no harm
//! (RFC 9110, section 9.2.2; RFC 9113, section 8.7).

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::http::request::Parts;
use hyper::http::{Extensions, Uri};
use hyper::{Request, Response};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use tower_service::Service as _;

use super::Broken;
use super::connections::{FIELDS_MAX, IDLE_PER_TARGET};
use super::turn::{Again, ClientBody, Kept, Turn};
use super::upstream::{Connector, Link};

/// How long a connection without a request is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Largest head of an answer, bytes; as behind an AWS load balancer.
const HEAD_BYTES_MAX: u32 = 64 << 10;

/// Sends requests to backends.
#[derive(Debug)]
pub(super) struct Backends {
    kept: Client<Connector, ClientBody>,
    /// Makes a connection for each request.
    fresh: Client<Connector, ClientBody>,
}

/// The HTTP/2 connections to one backend. Requests share them, but as many as one client
/// may leave half done never wait for each other: a connection carries few requests at a
/// time, and what a client does not read holds up its own answer alone.
pub(super) struct Lane {
    connector: Connector,
    shared: tokio::sync::Mutex<Vec<Shared>>,
}

/// One of these connections.
struct Shared {
    sender: http2::SendRequest<ClientBody>,
    /// Most requests at a time that the backend permits on it.
    most: Arc<AtomicUsize>,
    /// Held by each request on it until its answer has ended.
    requests: Arc<()>,
}

/// A place on a shared connection, until the answer has ended.
pub(super) type Stream = Arc<()>;

/// How often a request is sent at most while backends say that they have not begun with it.
const SENT_MAX: u32 = 4;
/// Most requests at a time on one HTTP/2 connection, if the backend permits so many.
const STREAMS_MAX: usize = 50;
/// How much of one answer may be under way before the client takes it, bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same of all answers on a connection: so much that no answer waits for another.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").finish_non_exhaustive()
    }
}

/// A request that can perhaps be sent again.
struct Copy {
    head: Parts,
    kept: Arc<Mutex<Kept>>,
}

impl Copy {
    fn of(request: &mut Request<ClientBody>) -> Self {
        let kept = request.body_mut().keep();
        let mut bare = Request::new(());
        *bare.method_mut() = request.method().clone();
        *bare.uri_mut() = request.uri().clone();
        *bare.version_mut() = request.version();
        *bare.headers_mut() = request.headers().clone();
        let (head, ()) = bare.into_parts();
        Self { head, kept }
    }

    /// The request, if all of its body is still there.
    fn request(&self) -> Option<Request<ClientBody>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let body = ClientBody::again(&kept)?;
        Some(Request::from_parts(self.head.clone(), body))
    }
}

impl Backends {
    pub(super) fn new(connector: &Connector) -> Self {
        let client = |idle| {
            Client::builder(TokioExecutor::new())
                .http1_max_headers(FIELDS_MAX)
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle)
                .build(connector.clone())
        };
        Self {
            kept: client(IDLE_PER_TARGET),
            fresh: client(0),
        }
    }

    /// Sends a request over HTTP/1.1 to the backend that its URI names.
    pub(super) async fn send(
        &self,
        mut request: Request<ClientBody>,
        turn: &Turn,
    ) -> Result<Response<Incoming>, Broken> {
        // Others are never sent twice, and need no copy.
        let harmless = request.method().is_idempotent();
        let copy = harmless.then(|| Copy::of(&mut request));
        match self.kept.request(request).await {
            Ok(answer) => {
                if let Some(link) = answer.extensions().get::<Link>() {
                    link.answered();
                }
                Ok(answer)
            }
            Err(error) => match copy.as_ref().and_then(Copy::request) {
                Some(request) if was_stale(&error) => {
                    turn.send_again(Again::Lost);
                    Ok(self.fresh.request(request).await?)
                }
                _ => Err(error.into()),
            },
        }
    }
}

/// Whether the connection had served a request before, and brought no byte of an
/// answer to this one.
fn was_stale(error: &Error) -> bool {
    let mut extras = Extensions::new();
    if let Some(connection) = error.connect_info() {
        connection.get_extras(&mut extras);
    }
    extras.get::<Link>().is_some_and(Link::is_stale)
}

impl Lane {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            connector,
            shared: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a request over HTTP/2 to that backend. The authority of the request's URI
    /// is the one that the client asked for.
    pub(super) async fn send(
        &self,
        backend: &Uri,
        mut request: Request<ClientBody>,
        turn: &Turn,
    ) -> Result<(Response<Incoming>, Stream), Broken> {
        let harmless = request.method().is_idempotent();
        let copy = Copy::of(&mut request);
        for nth in 1..SENT_MAX {
            let (mut sender, stream, reused) = self.sender(backend, nth > 1).await?;
            let mut failed = match sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, stream)),
                Err(failed) => failed,
            };
            let unsent = failed.take_message();
            let error = failed.into_error();
            // One that never left is not sent again.
            let (once_more, why) = match unsent {
                Some(request) => (Some(request), None),
                None if never_left(&error) => (copy.request(), None),
                None if was_not_processed(&error) => (copy.request(), Some(Again::NotBegun)),
                None if harmless && reused && sender.is_closed() => {
                    (copy.request(), Some(Again::Lost))
                }
                None => (None, None),
            };
            request = once_more.ok_or(error)?;
            if let Some(why) = why {
                turn.send_again(why);
            }
        }
        let (mut sender, stream, _) = self.sender(backend, true).await?;
        Ok((sender.send_request(request).await?, stream))
    }

    /// A sender on a connection to the backend that has room, with its place there, and
    /// whether the connection was there before. A `fresh` one is for one request alone.
    async fn sender(
        &self,
        backend: &Uri,
        fresh: bool,
    ) -> Result<(http2::SendRequest<ClientBody>, Stream, bool), Broken> {
        let mut lane = self.shared.lock().await;
        // One connection without a request is enough to wait for the next one.
        let mut idle = 0;
        lane.retain(|shared| {
            if shared.sender.is_closed() {
                return false;
            }
            let busy = Arc::strong_count(&shared.requests) > 1;
            idle += usize::from(!busy);
            busy || idle == 1
        });
        let has_room = |shared: &&Shared| {
            let most = shared.most.load(Ordering::Relaxed).min(STREAMS_MAX);
            Arc::strong_count(&shared.requests) <= most
        };
        if let Some(shared) = lane.iter().find(has_room).filter(|_| !fresh) {
            return Ok((shared.sender.clone(), shared.requests.clone(), true));
        }
        let stream = self.connector.clone().call(backend.clone()).await?;
        let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(HEAD_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await?;
        // It ends with its last sender.
        let most = Arc::new(AtomicUsize::new(STREAMS_MAX));
        let permitted = most.clone();
        tokio::spawn(std::future::poll_fn(move |context| {
            let ended = Pin::new(&mut connection).poll(context);
            permitted.store(connection.current_max_send_streams(), Ordering::Relaxed);
            ended
        }));
        let requests = Stream::default();
        // Others could use up one that is made for a request that was refused before.
        if !fresh {
            lane.push(Shared {
                sender: sender.clone(),
                most,
                requests: requests.clone(),
            });
        }
        Ok((sender, requests, false))
    }
}

/// Whether the connection ended while the request waited for its turn on it. hyper has
/// no other word for it than this text, and calls it a fault of its user.
pub(super) fn never_left(error: &hyper::Error) -> bool {
    error.is_user() && error.to_string().starts_with("dispatch task is gone")
}

/// Whether the backend says that it has not begun with the request: it shuts down, or
/// refuses the stream.
fn was_not_processed(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<h2::Error>());
    cause.is_some_and(|e| {
        let refused = e.reason() == Some(h2::Reason::REFUSED_STREAM);
        e.is_remote() && (e.is_go_away() || e.is_reset() && refused)
    })
}

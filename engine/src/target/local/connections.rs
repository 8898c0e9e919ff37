//! The connections of one listener: how many there may be, how long one may be
//! idle, and which one is closed to make room.
//!
//! A connection costs a descriptor, and a process without free descriptors can
//! neither serve users nor answer its admin API. So each listener has a limit of
//! its own; at the limit, the connection that has been idle longest is closed.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Sleep};

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;

/// Limits of one listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most connections at once.
    pub(super) connections: usize,
    /// How long a connection may be silent between two requests, within a head, or
    /// while an answer is written to it.
    pub(super) idle: Duration,
    /// Largest head of a request, bytes.
    pub(super) head_bytes: usize,
}

/// One connection, with what decides whether it is idle.
#[derive(Debug)]
pub(super) struct Connection {
    requests: AtomicUsize,
    /// When the last request ended, or the connection was accepted, ms since the
    /// listener began.
    idle_since: AtomicU64,
    begun: Instant,
    quit: Notify,
}

/// A request under way, for which the connection does not count as idle.
#[derive(Debug)]
pub(super) struct Flow(Arc<Connection>);

impl Flow {
    pub(super) fn new(connection: &Arc<Connection>) -> Self {
        connection.requests.fetch_add(1, Ordering::Relaxed);
        Self(connection.clone())
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.0.touch();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    fn touch(&self) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.idle_since.store(ms, Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }
}

#[derive(Debug)]
struct Open {
    begun: Instant,
    most: usize,
    all: Mutex<(u64, HashMap<u64, Arc<Connection>>)>,
}

/// A place among the open connections.
struct Place {
    open: Arc<Open>,
    number: u64,
    connection: Arc<Connection>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.open.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.1.remove(&self.number);
    }
}

impl Open {
    /// A place for a new connection; `None` if all others are busy.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.1.len() >= self.most {
            let idle = all.1.iter().filter(|(_, c)| c.is_idle());
            let oldest = idle.min_by_key(|(_, c)| c.idle_since.load(Ordering::Relaxed));
            let oldest = *oldest?.0;
            if let Some(gone) = all.1.remove(&oldest) {
                gone.quit.notify_one();
            }
        }
        all.0 += 1;
        let number = all.0;
        let connection = Arc::new(Connection {
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            begun: self.begun,
            quit: Notify::new(),
        });
        connection.touch();
        all.1.insert(number, connection.clone());
        Some(Place {
            open: self.clone(),
            number,
            connection,
        })
    }
}

/// Accepts connections until `stopped` says so, then lets their requests finish.
/// `answer` is called for each request.
pub(super) async fn serve<A, F, B>(
    listener: TcpListener,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
    drain: Duration,
    answer: A,
) where
    A: Fn(Request<Incoming>, SocketAddr, Arc<Connection>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, std::convert::Infallible>> + Send + 'static,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(limits.head_bytes)
        .max_headers(FIELDS_MAX)
        .header_read_timeout(limits.idle);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX));
    let open = Arc::new(Open {
        begun: Instant::now(),
        most: limits.connections.max(1),
        all: Mutex::default(),
    });
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        // There is no free descriptor, or the client has gone; the next may succeed.
        let Ok((stream, peer)) = accepted else {
            pause_accepting().await;
            continue;
        };
        // If all connections are busy, the new one is closed.
        let Some(place) = open.place() else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let connection = place.connection.clone();
        let stream = Patient::new(stream, limits.idle, connection.clone());
        let (answer, of) = (answer.clone(), connection.clone());
        let service = hyper::service::service_fn(move |request| answer(request, peer, of.clone()));
        let builder = builder.clone();
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let _place = place;
            let served = async {
                // A client that has sent nothing yet must not keep its place.
                let mut byte = [0];
                let first = stream.inner.peek(&mut byte);
                if !matches!(tokio::time::timeout(limits.idle, first).await, Ok(Ok(1))) {
                    return;
                }
                let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                // A client that breaks off is not an error here.
                let _ = watcher.watch(served.into_owned()).await;
            };
            tokio::select! {
                () = served => {}
                () = connection.quit.notified() => {}
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(drain, graceful.shutdown()).await;
}

/// Waits for other connections to end and to free their descriptors.
#[expect(
    clippy::disallowed_methods,
    reason = "descriptors are freed in real time"
)]
async fn pause_accepting() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// A stream that ends when it has been silent for too long: while no request is
/// under way on it, or while it takes nothing of what is written to it.
#[derive(Debug)]
struct Patient {
    inner: TcpStream,
    idle: Duration,
    last: Instant,
    timer: Pin<Box<Sleep>>,
    connection: Arc<Connection>,
}

impl Patient {
    fn new(inner: TcpStream, idle: Duration, connection: Arc<Connection>) -> Self {
        let last = Instant::now();
        Self {
            inner,
            idle,
            last,
            timer: Box::pin(tokio::time::sleep_until(last + idle)),
            connection,
        }
    }

    /// Ready once it has been silent for too long.
    fn overdue(&mut self, context: &mut Context<'_>, excused: bool) -> Poll<std::io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let now = Instant::now();
            if excused {
                self.last = now;
            } else if now >= self.last + self.idle {
                return Poll::Ready(std::io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(self.last + self.idle);
        }
    }

    fn progress<T>(&mut self, polled: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if polled.is_ready() {
            self.last = Instant::now();
        }
        polled
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if polled.is_ready() {
            return self.progress(polled);
        }
        let busy = !self.connection.is_idle();
        self.overdue(context, busy).map(Err)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        if polled.is_ready() {
            return self.progress(polled);
        }
        self.overdue(context, false).map(Err)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        if polled.is_ready() {
            return self.progress(polled);
        }
        self.overdue(context, false).map(Err)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Most fields of a head: more than the bytes of a head have room for in practice, so
/// that the bytes are the limit, as behind an AWS load balancer.
pub(super) const FIELDS_MAX: usize = 4_096;

/// Unused connections that are kept to each backend.
pub(super) const IDLE_PER_TARGET: usize = 32;

/// How many connections the public listener may have: as many as wanted, but each
/// takes two descriptors with its connection to an arm, and some are reserved for
/// unused connections to `targets` backends, the admin API, the store and health
/// checks.
pub(super) fn affordable(wanted: usize, descriptors: u64, targets: usize) -> usize {
    let all = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let kept = (all / 4).clamp(48, 256) + targets.max(2) * IDLE_PER_TARGET;
    (all.saturating_sub(kept) / 2)
        .clamp(8, wanted.max(1).max(8))
        .min(wanted.max(1))
}

/// Raises this process's limit of descriptors as far as allowed, and returns it.
pub(super) fn descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // No value means no limit.
    now.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(affordable(4_096, u64::MAX, 2), 4_096);
        assert_eq!(affordable(4_096, 1_024, 2), 352);
        assert_eq!(affordable(4_096, 256, 2), 64);
        assert_eq!(affordable(10, 1_024, 2), 10);
        assert_eq!(affordable(4_096, 64, 2), 8);
        assert_eq!(affordable(3, 64, 2), 3);
    }

    #[test]
    fn the_one_that_is_idle_longest_makes_room() {
        let open = Arc::new(Open {
            begun: Instant::now(),
            most: 2,
            all: Mutex::default(),
        });
        let first = open.place().expect("room");
        let busy = open.place().expect("room");
        let flow = Flow::new(&busy.connection);
        let third = open.place().expect("the first makes room");
        let held = |place: &Place| {
            let all = open.all.lock().expect("not poisoned");
            all.1.contains_key(&place.number)
        };
        assert!(!held(&first) && held(&busy) && held(&third));
        let other = Flow::new(&third.connection);
        assert!(open.place().is_none(), "both are busy");
        drop(flow);
        let fourth = open.place().expect("the second has become idle");
        assert!(!held(&busy) && held(&fourth));
        drop((first, other));
    }
}

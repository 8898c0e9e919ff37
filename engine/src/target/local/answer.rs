//! The course of one request, and what it says about its arm.
//!
//! An answer is judged when it has ended: a body that breaks off, or a gRPC status
//! that says failure, is an error of the arm, however good the head looked. What the
//! client broke off is counted apart, as on an AWS load balancer (460), and is no error,
//! because any client can do it as often as it likes. A client that leaves while the arm
//! owes it an answer, or more of one that has begun, is compared with those who leave the
//! other arm.
//!
//! Such a comparison is fair where a lot decided which arm the request came to. Where the
//! client did, by its cookie, what it can have of every version at will says nothing but
//! what the lot behind the cookie still tells (`cookie`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Response, StatusCode};
use tokio::time::{Instant, Sleep};

use super::Broken;
use super::cookie::{ChosenBy, Kind};
use super::samples::{Class, Counts, Ended, Tally};
use super::turn::{Again, Turn, Whose};
use crate::clock::{Clock, SystemClock};

/// What is known of a request before it goes out.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) chosen_by: ChosenBy,
    /// Whether the client said how long the arm may take (gRPC).
    pub(super) has_deadline: bool,
}

impl Origin {
    /// What an answer says about the arm.
    fn class(&self, says: Says) -> Class {
        match says.class() {
            Class::Error if self.is_at_will(says) && !self.chosen_by.tells(Kind::AtWill) => {
                Class::ClientError
            }
            class => class,
        }
    }

    /// Whether a client can have this answer of a good version whenever it likes: by
    /// asking for what no version does, or by leaving it no time.
    fn is_at_will(&self, says: Says) -> bool {
        match says {
            Says::Http(status) => matches!(
                status,
                StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED
            ),
            Says::Grpc(Some(UNIMPLEMENTED)) => true,
            Says::Grpc(Some(DEADLINE_EXCEEDED)) => self.has_deadline,
            Says::Grpc(_) => false,
        }
    }
}

/// One request of an arm. It is counted when this is dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    tally: Arc<Tally>,
    begun: Instant,
    pub(super) turn: Arc<Turn>,
    /// From the request to the head of the answer, without the client's own time.
    head: Option<Duration>,
    /// Time in which the client did not take what was there of the answer.
    withheld: Duration,
    /// Whether the client waits for more of an answer that has begun.
    stalls: bool,
    seen: Option<Class>,
    origin: Origin,
    /// Whether the balancer has answered it itself, by the client's fault.
    excused: bool,
}

impl Exchange {
    pub(super) fn new(tally: Arc<Tally>, turn: Arc<Turn>, begun: Instant, origin: Origin) -> Self {
        Self {
            tally,
            begun,
            turn,
            head: None,
            withheld: Duration::ZERO,
            stalls: false,
            seen: None,
            origin,
            excused: false,
        }
    }

    /// Notes that the balancer answers instead, because of the client.
    pub(super) fn excuse(&mut self) {
        self.excused = true;
    }

    /// Notes that the head of the answer is there.
    pub(super) fn heard(&mut self) {
        let now = Instant::now();
        let took = (now - self.begun).saturating_sub(self.turn.owed(now));
        self.head.get_or_insert(took);
    }

    /// Judges it. Until then it counts as broken off by the client.
    pub(super) fn judge(&mut self, class: Class) {
        self.heard();
        self.seen = Some(class);
    }

    /// What is counted if nothing comes through the tunnel that its answer has opened.
    pub(super) fn silence(&self) -> Silence {
        Silence {
            tally: self.tally.clone(),
            chosen_by: self.origin.chosen_by.clone(),
        }
    }

    /// Takes back the judgement, because the client spoiled it.
    fn spoil(&mut self) {
        self.seen = None;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let tells = |kind| self.origin.chosen_by.tells(kind);
        let again = self.turn.sent_again();
        let mut counts = Counts {
            asked: 0,
            unanswered: 0,
            sent_again: u32::from(again.is_some()),
        };
        match (self.seen, self.head) {
            (Some(_), Some(_)) if !self.tally.has_begun() => {}
            (Some(class), Some(head)) => {
                let now = Instant::now();
                let whole = (now - self.begun)
                    .saturating_sub(self.turn.owed(now))
                    .saturating_sub(self.withheld);
                let lost = again == Some(Again::Lost) && tells(Kind::Unanswered);
                counts.unanswered = u32::from(lost);
                counts.asked = u32::from(lost || tells(Kind::Answered));
                let ended = Ended {
                    head,
                    whole: whole.max(head),
                    class,
                };
                self.tally.count(SystemClock.now(), Some(ended), counts);
            }
            (None, head)
                if (head.is_none() || self.stalls) && !self.excused && self.turn.is_with_arm() =>
            {
                let told = u32::from(tells(Kind::Unanswered));
                (counts.asked, counts.unanswered) = (told, told);
                self.tally.count_spoiled(true);
                self.tally.count(SystemClock.now(), None, counts);
            }
            _ => self.tally.count_spoiled(false),
        }
    }
}

/// A tunnel through which the arm has said nothing. Who waits for what an arm may never
/// have to say leaves both arms alike, so this is compared, and is no error.
#[derive(Debug)]
pub(super) struct Silence {
    tally: Arc<Tally>,
    chosen_by: ChosenBy,
}

impl Silence {
    /// Counts it as a request without an answer.
    pub(super) fn count(self) {
        let told = u32::from(self.chosen_by.tells(Kind::Unanswered));
        let counts = Counts {
            asked: told,
            unanswered: told,
            sent_again: 0,
        };
        self.tally.count_spoiled(true);
        self.tally.count(SystemClock.now(), None, counts);
    }
}

/// What an answer says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Http(StatusCode),
    /// The gRPC status; none if it is missing or not a number.
    Grpc(Option<i32>),
}

/// gRPC status codes.
const DEADLINE_EXCEEDED: i32 = 4;
const UNIMPLEMENTED: i32 = 12;

impl Says {
    fn class(self) -> Class {
        match self {
            Self::Http(s) if s.is_server_error() => Class::Error,
            Self::Http(s) if s.is_client_error() => Class::ClientError,
            Self::Http(_) => Class::Fine,
            Self::Grpc(code) => grpc_class(code),
        }
    }
}

/// Whether the verdict of an answer is in its gRPC status (grpc-web has it in the
/// body, which is not read).
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    let rest = kind.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// What a gRPC status says: the class of the HTTP status that
/// [google.rpc.Code](https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto)
/// gives for it. A status that is missing or unknown is one of the server, as the gRPC
/// specification has it (UNKNOWN).
fn grpc_class(code: Option<i32>) -> Class {
    match code {
        Some(0) => Class::Fine,
        // CANCELLED, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED,
        // RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNAUTHENTICATED.
        Some(1 | 3 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 16) => Class::ClientError,
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
        Some(_) | None => Class::Error,
    }
}

fn grpc_says(headers: &HeaderMap) -> Says {
    let status = headers.get("grpc-status").and_then(|v| v.to_str().ok());
    Says::Grpc(status.and_then(|s| s.parse().ok()))
}

/// The body of an answer on its way to the client, with all that is counted until it
/// has ended.
pub(super) struct Answer<C> {
    inner: Incoming,
    exchange: Exchange,
    /// What the answer counts as if its body comes to its end.
    class: Class,
    /// Whether trailers can still change that.
    grpc: bool,
    /// How long the arm may be silent, and since when it is.
    patience: Duration,
    silent: Option<Pin<Box<Sleep>>>,
    /// When the last part was handed over.
    handed: Option<Instant>,
    _counted: C,
}

impl<C> Answer<C> {
    /// Judges a head that has come, and its body when that has ended. `patience` is how
    /// long the arm may send nothing while its client waits.
    pub(super) fn of(
        response: Response<Incoming>,
        mut exchange: Exchange,
        patience: Duration,
        counted: C,
    ) -> Response<Self> {
        exchange.heard();
        let (head, inner) = response.into_parts();
        let grpc = head.status == StatusCode::OK && is_grpc(&head.headers);
        // Without a body the status is among the headers.
        let in_head = grpc && (inner.is_end_stream() || head.headers.contains_key("grpc-status"));
        let class = exchange.origin.class(match in_head {
            true => grpc_says(&head.headers),
            false => Says::Http(head.status),
        });
        let body = Self {
            inner,
            exchange,
            class,
            grpc: grpc && !in_head,
            patience,
            silent: None,
            handed: None,
            _counted: counted,
        };
        Response::from_parts(head, body)
    }

    /// The arm has sent all that it had to.
    fn end(&mut self) {
        let class = match self.grpc {
            // It ended without the status that the protocol demands.
            true => Class::Error,
            false => self.class,
        };
        self.judge(class);
    }

    fn judge(&mut self, class: Class) {
        self.exchange.judge(class);
        // An arm may answer anything if the client's body never came.
        if self.exchange.turn.is_spoiled(Instant::now()) {
            self.exchange.spoil();
        }
    }

    /// Ready once the arm has been silent for too long. While the client has not sent
    /// its whole request, the silence may be its own.
    fn overdue(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = Instant::now() + self.patience;
        let silent = self
            .silent
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            ready!(silent.as_mut().poll(context));
            if self.exchange.turn.whose().0 != Whose::Client {
                return Poll::Ready(());
            }
            silent.as_mut().reset(deadline);
        }
    }
}

impl<C: Unpin> Body for Answer<C> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(handed) = self.handed.take() {
            self.exchange.withheld += handed.elapsed();
        }
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        self.exchange.stalls = polled.is_pending();
        let polled = match polled {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                ready!(self.overdue(context));
                self.judge(Class::Error);
                return Poll::Ready(Some(Err(
                    "the backend stopped in the middle of its answer".into()
                )));
            }
        };
        self.silent = None;
        Poll::Ready(match polled {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    if self.grpc {
                        let class = self.exchange.origin.class(grpc_says(trailers));
                        (self.class, self.grpc) = (class, false);
                    }
                    // Nothing follows, and who sends them on may not ask for it.
                    self.end();
                }
                self.handed = Some(Instant::now());
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.judge(Class::Error);
                Some(Err(error.into()))
            }
            None => {
                self.end();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<C> Drop for Answer<C> {
    fn drop(&mut self) {
        // A body whose length is known is dropped after its last byte without being
        // asked for its end.
        if self.exchange.seen.is_none() && self.inner.is_end_stream() {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::super::cookie::Cookies;
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            hyper::header::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])
    }

    #[test]
    fn a_grpc_status_counts_as_the_http_status_that_stands_for_it() {
        let of = |status| grpc_says(&headers("grpc-status", status)).class();
        assert_eq!(of("0"), Class::Fine);
        for fault_of_client in ["1", "3", "5", "6", "7", "8", "9", "10", "11", "16"] {
            assert_eq!(of(fault_of_client), Class::ClientError, "{fault_of_client}");
        }
        for fault_of_server in ["2", "4", "12", "13", "14", "15", "17", "-1", "", "ok"] {
            assert_eq!(of(fault_of_server), Class::Error, "{fault_of_server}");
        }
        assert_eq!(grpc_says(&HeaderMap::new()).class(), Class::Error);
    }

    #[test]
    fn what_a_client_can_have_at_will_counts_against_an_arm_that_a_lot_chose() {
        let class = |says: Says, chosen_by, has_deadline| {
            let origin = Origin {
                chosen_by,
                has_deadline,
            };
            origin.class(says)
        };
        let http = |code| Says::Http(StatusCode::from_u16(code).expect("valid"));
        let at_will = [(http(501), false), (http(505), false)];
        let at_will = at_will.into_iter().chain([
            (Says::Grpc(Some(12)), false),
            // The client said how long it waits.
            (Says::Grpc(Some(4)), true),
        ]);
        for (says, deadline) in at_will {
            assert_eq!(
                class(says, ChosenBy::Lot, deadline),
                Class::Error,
                "{says:?}"
            );
            let by_client = class(says, ChosenBy::Client, deadline);
            assert_eq!(by_client, Class::ClientError, "{says:?}");
            // Once, and then no more.
            let cookies = Cookies::new(60);
            let cookie = cookies.give("canary", 0).expect("on");
            let headers = HeaderMap::from_iter([(hyper::header::COOKIE, cookie)]);
            let kept = [1, 2].map(|now| {
                let (_, chosen_by) = cookies.read(&headers, now).expect("an arm");
                class(says, chosen_by, deadline)
            });
            assert_eq!(kept, [Class::Error, Class::ClientError], "{says:?}");
        }
        for says in [
            http(500),
            http(502),
            http(503),
            http(504),
            http(511),
            Says::Grpc(Some(4)),
            Says::Grpc(Some(13)),
            Says::Grpc(None),
        ] {
            let by_client = class(says, ChosenBy::Client, false);
            assert_eq!(by_client, Class::Error, "{says:?}");
        }
        for (says, expected) in [
            (http(200), Class::Fine),
            (http(400), Class::ClientError),
            (http(405), Class::ClientError),
            (http(413), Class::ClientError),
            (http(416), Class::ClientError),
            (http(426), Class::ClientError),
            (http(431), Class::ClientError),
            (Says::Grpc(Some(1)), Class::ClientError),
            (Says::Grpc(Some(3)), Class::ClientError),
        ] {
            for chosen_by in [ChosenBy::Lot, ChosenBy::Client] {
                assert_eq!(class(says, chosen_by, true), expected, "{says:?}");
            }
        }
    }

    #[test]
    fn grpc_is_told_from_what_only_sounds_like_it() {
        for grpc in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x=1",
        ] {
            assert!(is_grpc(&headers("content-type", grpc)), "{grpc}");
        }
        for other in [
            "application/grpc-web",
            "application/json",
            "text/application/grpc",
        ] {
            assert!(!is_grpc(&headers("content-type", other)), "{other}");
        }
    }
}

//! Whose turn it is in a request: the client's, while the rest of its body is
//! awaited, or the arm's, while its answer is awaited.
//!
//! Only what happens in the arm's turn is evidence about the arm. hyper asks for
//! a request's body as fast as the arm takes it. So a body that has no bytes when
//! it is asked waits for the client, and one that is not asked waits for the arm.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Longest time in total that the arm may have waited for the client's body and
/// still be blamed for its answer: servers have read timeouts of their own.
const OWED_MAX: Duration = Duration::from_secs(2);

/// The course of one request.
#[derive(Debug)]
pub(super) struct Turn {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    whose: Whose,
    since: Instant,
    /// Total time of waiting for the client, without the present wait.
    owed: Duration,
    /// Whether the client has sent the whole request.
    whole: bool,
    /// Whether the request went out once more.
    again: Option<Again>,
}

/// Why a request went out once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// The arm said that it had not begun with it.
    NotBegun,
    /// The connection was lost without a word.
    Lost,
}

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The arm has everything that the client has sent.
    Arm,
    /// The arm would take more, and the client sends nothing.
    Client,
    /// The client broke off its request, or sent an invalid body.
    Broken,
}

impl Turn {
    /// A request whose head came at `now`; `whole` if it has no body.
    pub(super) fn new(whole: bool, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                whose: Whose::Arm,
                since: now,
                owed: Duration::ZERO,
                whole,
                again: None,
            }),
            changed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to(&self, whose: Whose, whole: bool, now: Instant) {
        let mut state = self.state();
        state.whole |= whole;
        if state.whose == whose && whose == Whose::Client || state.whose == Whose::Broken {
            return;
        }
        if state.whose == Whose::Client {
            let waited = now - state.since;
            state.owed += waited;
        }
        (state.whose, state.since) = (whose, now);
        drop(state);
        self.changed.notify_one();
    }

    /// Whose turn it is, and since when.
    pub(super) fn whose(&self) -> (Whose, Instant) {
        let state = self.state();
        (state.whose, state.since)
    }

    /// Whether the whole request is with the arm, which has to act.
    pub(super) fn is_with_arm(&self) -> bool {
        let state = self.state();
        state.whose == Whose::Arm && state.whole
    }

    /// Notes that the request goes out once more.
    pub(super) fn send_again(&self, why: Again) {
        let mut state = self.state();
        state.again = state.again.filter(|why| *why == Again::Lost).or(Some(why));
    }

    /// Why the request went out once more, if it did.
    pub(super) fn sent_again(&self) -> Option<Again> {
        self.state().again
    }

    /// Waits until the turn may have changed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Total time in which the arm waited for the client.
    pub(super) fn owed(&self, now: Instant) -> Duration {
        let state = self.state();
        match state.whose {
            Whose::Client => state.owed + (now - state.since),
            _ => state.owed,
        }
    }

    /// Whether an answer now is not evidence about the arm, because the client broke
    /// off its request or kept the arm waiting for the rest of it.
    pub(super) fn is_spoiled(&self, now: Instant) -> bool {
        let (broken, whole) = {
            let state = self.state();
            (state.whose == Whose::Broken, state.whole)
        };
        broken || !whole && self.owed(now) > OWED_MAX
    }
}

/// Largest body that is kept to be sent once more, bytes.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The body of a request, on its way to an arm.
#[derive(Debug)]
pub(super) struct ClientBody {
    /// What went out before and goes out first.
    again: VecDeque<Bytes>,
    inner: Option<Incoming>,
    turn: Arc<Turn>,
    kept: Option<Arc<Mutex<Kept>>>,
}

/// What has gone out of a body.
#[derive(Debug)]
pub(super) struct Kept {
    parts: VecDeque<Bytes>,
    bytes: usize,
    /// Whether that is all of the body.
    whole: bool,
    turn: Arc<Turn>,
}

impl ClientBody {
    pub(super) fn new(inner: Incoming, turn: Arc<Turn>) -> Self {
        Self {
            again: VecDeque::new(),
            inner: Some(inner),
            turn,
            kept: None,
        }
    }

    /// Keeps what goes out from now on.
    pub(super) fn keep(&mut self) -> Arc<Mutex<Kept>> {
        let kept = Kept {
            parts: VecDeque::new(),
            bytes: 0,
            whole: self.is_end_stream(),
            turn: self.turn.clone(),
        };
        let kept = Arc::new(Mutex::new(kept));
        self.kept = Some(kept.clone());
        kept
    }

    /// The body once more, if it was kept as a whole.
    pub(super) fn again(kept: &Kept) -> Option<Self> {
        let whole = kept.whole && kept.bytes <= KEPT_BYTES_MAX;
        whole.then(|| Self {
            again: kept.parts.clone(),
            inner: None,
            turn: kept.turn.clone(),
            kept: None,
        })
    }
}

impl Kept {
    fn note(&mut self, polled: Option<&Frame<Bytes>>, whole: bool) {
        // Trailers are not kept, nor what is too much.
        let part = polled.map(|frame| frame.data_ref());
        match part {
            Some(Some(part)) => {
                self.bytes = self.bytes.saturating_add(part.len());
                self.parts.push_back(part.clone());
            }
            Some(None) => self.bytes = usize::MAX,
            None => {}
        }
        if self.bytes > KEPT_BYTES_MAX {
            self.parts.clear();
        }
        self.whole = whole;
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(part) = self.again.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *inner).poll_frame(context);
        let (whose, whole) = match &polled {
            Poll::Pending => (Whose::Client, false),
            Poll::Ready(None) => (Whose::Arm, true),
            Poll::Ready(Some(Ok(_))) => (Whose::Arm, inner.is_end_stream()),
            Poll::Ready(Some(Err(_))) => (Whose::Broken, false),
        };
        if let (Some(kept), Poll::Ready(ready)) = (&self.kept, &polled) {
            let frame = ready.as_ref().and_then(|frame| frame.as_ref().ok());
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.note(frame, whole);
        }
        self.turn.to(whose, whole, Instant::now());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_empty() && self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(self.again.iter().map(|part| part.len() as u64).sum()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_client_s_own_time_is_owed() {
        let begun = Instant::now();
        let at = |s| begun + Duration::from_secs(s);
        let turn = Turn::new(false, at(0));
        assert!(
            !turn.is_spoiled(at(50)),
            "the arm takes nothing, and that is its own"
        );
        turn.to(Whose::Client, false, at(50));
        turn.to(Whose::Client, false, at(51));
        assert!(!turn.is_spoiled(at(51)));
        turn.to(Whose::Arm, false, at(51));
        assert!(!turn.is_spoiled(at(100)));
        // Short waits add up.
        turn.to(Whose::Client, false, at(100));
        assert!(turn.is_spoiled(at(102)));
        assert_eq!(turn.owed(at(102)), Duration::from_secs(3));
        turn.to(Whose::Arm, true, at(102));
        assert!(!turn.is_spoiled(at(110)), "it came after all");
        assert_eq!(turn.owed(at(110)), Duration::from_secs(3));
    }

    #[test]
    fn what_is_broken_stays_broken() {
        let now = Instant::now();
        let turn = Turn::new(false, now);
        turn.to(Whose::Broken, false, now);
        turn.to(Whose::Arm, true, now);
        assert!(turn.is_spoiled(now));
    }
}

//! Replay: runs a plugin against a recorded journal. It gets the recorded answers as
//! long as it makes the recorded calls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::journal::replay::{Cursor, Mismatch, Step};
use crate::journal::status::Status;
use crate::journal::{Actor, Call, Entry, Event, Header, Pin, Reply, exchanges};
use crate::model::limits::Caps;
use crate::model::{HostError, Millis, Outcome};
use crate::rollout::session::{Calls, Interrupted};
use crate::rollout::{Ran, Run, Strategy};

/// The result of a replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// Number of calls that were as recorded.
    pub calls: usize,
    /// How the plugin compares with the journal.
    pub fit: Fit,
    /// What it returned, if it ended.
    pub returned: Option<String>,
}

/// How a plugin compares with a journal.
#[derive(Debug, Clone, PartialEq)]
pub enum Fit {
    /// It made every recorded call, and returned the recorded verdict.
    Same,
    /// It made every call that is recorded; the journal does not have its verdict.
    SoFar,
    /// It made another call, or returned too early.
    Differs(Box<Mismatch>),
    /// It made every call, and then one more where the recorded plugin returned.
    Beyond(Box<Call>),
    /// It made every call, and then returned another verdict.
    Otherwise {
        /// The verdict in the journal.
        recorded: String,
        /// The verdict now.
        now: String,
    },
}

/// Runs a strategy against a journal.
pub async fn replay(
    strategy: &dyn Strategy,
    header: &Header,
    pin: &Pin,
    entries: &[Entry],
) -> Replayed {
    let tape = Arc::new(Tape {
        caps: header.caps,
        bytes: bytes(entries),
        state: Mutex::new(State {
            cursor: Cursor::new(entries.to_vec()),
            now: header.created,
            calls: 0,
            end: None,
        }),
        probes: header.probes.iter().map(|p| p.name.clone()).collect(),
    });
    let ran = strategy.run(tape.clone(), Run::of(header, pin)).await;
    let mut state = tape.state();
    let left_over = state.cursor.left_over();
    let recorded = recorded(entries);
    let returned = (!matches!(ran, Ran::Interrupted)).then(|| told(&ran));
    let fit = match (state.end.take(), ran) {
        (Some(End::Differs(mismatch)), _) => Fit::Differs(mismatch),
        (Some(End::Open), _) => Fit::SoFar,
        (Some(End::Fresh(call)), _) => match recorded {
            Some(_) => Fit::Beyond(call),
            None => Fit::SoFar,
        },
        (Some(End::UsedUp(why)), _) => ended(left_over, recorded, &Ran::Trapped(why)),
        (None, ran) => ended(left_over, recorded, &ran),
    };
    Replayed {
        calls: state.calls as usize,
        fit,
        returned,
    }
}

/// The bytes that counted towards the journal's limit at the strategy's last call; what
/// the host wrote later does not count.
fn bytes(entries: &[Entry]) -> u64 {
    let last = exchanges(entries)
        .filter(|e| e.answered().is_some_and(|(q, _)| q.by == Actor::Strategy))
        .last()
        .map(|e| e.seq);
    let until = last.map_or(entries, |last| {
        &entries[..entries.partition_point(|e| e.seq <= last)]
    });
    Status::of(until).map_or(0, |status| status.bytes)
}

/// Compares the end of the strategy with that of the journal.
fn ended(left_over: Option<Mismatch>, recorded: Option<String>, ran: &Ran) -> Fit {
    let now = told(ran);
    match (left_over, recorded) {
        (Some(mismatch), _) => Fit::Differs(Box::new(mismatch)),
        (None, Some(recorded)) if recorded == now => Fit::Same,
        (None, Some(recorded)) => Fit::Otherwise { recorded, now },
        // A person, or a guard of the host, ended the recorded rollout first.
        (None, None) => Fit::SoFar,
    }
}

/// What the recorded plugin returned.
fn recorded(entries: &[Entry]) -> Option<String> {
    let returned = exchanges(entries).filter_map(|e| match e.event()? {
        Event::Finished(outcome) => Some(told(&Ran::Returned(Ok(outcome.clone())))),
        Event::Failed { reason } => Some(reason.clone()),
        _ => None,
    });
    returned.last()
}

fn told(ran: &Ran) -> String {
    match ran {
        Ran::Returned(Ok(Outcome { verdict, reason })) => format!("{verdict}: {reason}"),
        Ran::Returned(Err(reason)) | Ran::Trapped(reason) => reason.clone(),
        Ran::Interrupted => "interrupted".to_owned(),
    }
}

enum End {
    Differs(Box<Mismatch>),
    Open,
    Fresh(Box<Call>),
    /// A limit of the host ended it.
    UsedUp(String),
}

struct State {
    cursor: Cursor,
    now: Millis,
    calls: u32,
    end: Option<End>,
}

struct Tape {
    caps: Caps,
    /// Bytes of the journal, when the strategy made its last call.
    bytes: u64,
    state: Mutex<State>,
    probes: Vec<String>,
}

impl Tape {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Calls for Tape {
    async fn perform(&self, call: Call) -> Result<Reply, Interrupted> {
        let mut state = self.state();
        let end = match state.cursor.next(&call) {
            Step::Recorded { reply, at } => {
                state.now = at;
                state.calls += 1;
                return Ok(reply);
            }
            Step::Mismatch(mismatch) => End::Differs(Box::new(mismatch)),
            Step::Open { .. } => End::Open,
            Step::Fresh => match self.caps.used_up(state.calls, self.bytes) {
                Some(why) => End::UsedUp(why),
                None => End::Fresh(Box::new(call)),
            },
        };
        state.end = Some(end);
        Err(Interrupted)
    }

    async fn refuse(&self, call: Call, _: HostError) -> Result<Reply, Interrupted> {
        // A refused call is recorded with its answer.
        self.perform(call).await
    }

    fn now(&self) -> Millis {
        self.state().now
    }

    fn probes(&self) -> Vec<String> {
        self.probes.clone()
    }
}

//! Replay: answers a strategy's calls from the journal as long as it has answers.
//!
//! Pure. The k-th call of the strategy must equal the k-th recorded one;
//! anything else is a [`Mismatch`], and the rollout has diverged.

use std::collections::VecDeque;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Actor, Call, Entry, Event, Reply};
use crate::model::Millis;

/// Where a strategy made another call on replay than its journal has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Mismatch {
    /// Number of the entry that differs.
    pub seq: u32,
    /// What the journal has there.
    pub recorded: Call,
    /// What the strategy asked now; `None` if it returned instead.
    pub asked: Option<Call>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.asked.as_ref().map_or_else(
            || "nothing: it returned a verdict".to_owned(),
            ToString::to_string,
        );
        write!(
            f,
            "the strategy does not repeat itself\n  \
             journal entry {}: {}\n  \
             asked now:        {asked}\n  \
             likely cause: the plugin reads something that is not in the journal \
             (its own clock or randomness), or these are not the bytes it began with\n  \
             the traffic stays where it is; `engine abort` takes it back to stable, \
             `engine promote --full` gives all of it to the new version",
            self.seq, self.recorded
        )
    }
}

/// How a call is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The journal knows the answer.
    Recorded {
        /// The answer.
        reply: Reply,
        /// When it was given, Unix ms.
        at: Millis,
    },
    /// The journal has only the question: the process died here, or parked the rollout.
    Open {
        /// The intent's `seq`.
        seq: u32,
        /// The deadline of the wait, Unix ms.
        deadline: Option<Millis>,
    },
    /// The journal has no further calls; this one is new.
    Fresh,
    /// The journal has another call here.
    Mismatch(Mismatch),
}

#[derive(Debug)]
struct Exchange {
    seq: u32,
    call: Call,
    deadline: Option<Millis>,
    answer: Option<(Reply, Millis)>,
}

/// Walks over the recorded calls of the strategy.
#[derive(Debug, Default)]
pub struct Cursor(VecDeque<Exchange>);

impl Cursor {
    /// A cursor before the strategy's first call in `entries`.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        let by = Actor::Strategy;
        let mut exchanges: VecDeque<Exchange> = VecDeque::new();
        for Entry { seq, at, event, .. } in entries {
            match event {
                Event::Exchanged {
                    by: actor,
                    call,
                    reply,
                } if actor == by => exchanges.push_back(Exchange {
                    seq,
                    call,
                    deadline: None,
                    answer: Some((reply, at)),
                }),
                Event::Asked {
                    by: actor,
                    call,
                    deadline,
                    ..
                } if actor == by => exchanges.push_back(Exchange {
                    seq,
                    call,
                    deadline,
                    answer: None,
                }),
                Event::Answered {
                    by: actor,
                    of,
                    reply,
                    ..
                } if actor == by => {
                    if let Some(open) = exchanges.iter_mut().rev().find(|e| e.seq == of) {
                        open.answer = Some((reply, at));
                    }
                }
                _ => {}
            }
        }
        Self(exchanges)
    }

    /// How the strategy's next call is answered.
    pub fn next(&mut self, asked: &Call) -> Step {
        let Some(recorded) = self.0.front() else {
            return Step::Fresh;
        };
        if recorded.call != *asked {
            return Step::Mismatch(Mismatch {
                seq: recorded.seq,
                recorded: recorded.call.clone(),
                asked: Some(asked.clone()),
            });
        }
        match self.0.pop_front() {
            Some(Exchange {
                answer: Some((reply, at)),
                ..
            }) => Step::Recorded { reply, at },
            Some(Exchange { seq, deadline, .. }) => Step::Open { seq, deadline },
            None => Step::Fresh,
        }
    }

    /// The first recorded call that a returning strategy did not make.
    #[must_use]
    pub fn left_over(&self) -> Option<Mismatch> {
        self.0.front().map(|e| Mismatch {
            seq: e.seq,
            recorded: e.call.clone(),
            asked: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Wake, Weights};

    fn entry(seq: u32, event: Event) -> Entry {
        Entry {
            seq,
            at: 1_000 + u64::from(seq),
            epoch: 1,
            event,
        }
    }

    fn wait() -> Call {
        Call::Wait {
            seconds: 5,
            signals: vec![],
        }
    }

    fn journal() -> Vec<Entry> {
        let by = Actor::Strategy;
        vec![
            entry(
                1,
                Event::Exchanged {
                    by,
                    call: Call::GetWeights,
                    reply: Reply::Weights(Weights::default()),
                },
            ),
            entry(
                2,
                Event::Exchanged {
                    by: Actor::Host,
                    call: Call::GetHealth,
                    reply: Reply::Health(vec![]),
                },
            ),
            entry(
                3,
                Event::Asked {
                    by,
                    call: wait(),
                    before: None,
                    deadline: Some(6_000),
                },
            ),
        ]
    }

    #[test]
    fn recorded_then_open_then_fresh() {
        let mut cursor = Cursor::new(journal());
        assert_eq!(
            cursor.next(&Call::GetWeights),
            Step::Recorded {
                reply: Reply::Weights(Weights::default()),
                at: 1_001
            }
        );
        assert_eq!(
            cursor.next(&wait()),
            Step::Open {
                seq: 3,
                deadline: Some(6_000)
            }
        );
        assert_eq!(cursor.next(&Call::GetHealth), Step::Fresh);
        assert_eq!(cursor.left_over(), None);
    }

    #[test]
    fn an_answer_closes_its_intent() {
        let mut entries = journal();
        entries.push(entry(
            4,
            Event::Answered {
                by: Actor::Strategy,
                of: 3,
                reply: Reply::Woke(Wake::Timer),
                recovered: false,
            },
        ));
        let mut cursor = Cursor::new(entries);
        cursor.next(&Call::GetWeights);
        assert_eq!(
            cursor.next(&wait()),
            Step::Recorded {
                reply: Reply::Woke(Wake::Timer),
                at: 1_004
            }
        );
    }

    #[test]
    fn another_call_or_an_early_return_is_a_mismatch() {
        let mut cursor = Cursor::new(journal());
        let left = cursor.left_over().expect("two calls are left");
        assert_eq!(left.asked, None);
        let Step::Mismatch(mismatch) = cursor.next(&Call::GetHealth) else {
            panic!("a different call must not pass");
        };
        assert_eq!(mismatch.seq, 1);
        assert!(
            mismatch
                .to_string()
                .contains("journal entry 1: get-weights")
        );
        assert!(mismatch.to_string().contains("engine abort"));
    }
}

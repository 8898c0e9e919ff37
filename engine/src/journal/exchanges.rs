//! One reading of a journal: questions with their answers, and what else
//! happened, in the order in which it was known. Pure.

use std::collections::BTreeMap;

use super::{Actor, Call, Entry, Event, Header, Reply};
use crate::model::{Millis, Weights};

/// Something that a journal tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Told<'a> {
    /// A question whose answer comes in a later entry, or never came: a wait has begun, or
    /// a write was sent.
    Asked(Question<'a>),
    /// A question and its answer.
    Answered {
        /// The question.
        question: Question<'a>,
        /// The answer.
        reply: &'a Reply,
        /// Whether the process died in between, so that the answer was found by reading
        /// the target.
        recovered: bool,
    },
    /// Everything that is neither a question nor an answer.
    Other(&'a Event),
}

/// A call in a journal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Question<'a> {
    /// Number of the entry that asks.
    pub seq: u32,
    /// When it was asked (Unix ms).
    pub at: Millis,
    /// Who makes the call.
    pub by: Actor,
    /// The call.
    pub call: &'a Call,
    /// Weights just before a write whose intent was journaled.
    pub before: Option<&'a Weights>,
    /// The deadline of a wait (Unix ms).
    pub deadline: Option<Millis>,
    /// Whether question and answer are two entries, as those of waits and of writes that
    /// were sent. A read or a refused call has its answer in the same entry.
    pub in_two: bool,
}

/// One entry, with the question that it answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exchange<'a> {
    /// Number of the entry.
    pub seq: u32,
    /// When it was appended (Unix ms).
    pub at: Millis,
    /// What it tells.
    pub told: Told<'a>,
}

impl<'a> Exchange<'a> {
    /// The weights that the target has after this, if it was a write that
    /// moved them from `now`.
    #[must_use]
    pub fn weights_after(&self, now: &Weights) -> Option<Weights> {
        match self.told {
            Told::Answered {
                question: Question {
                    call, in_two: true, ..
                },
                reply: Reply::Done,
                ..
            } => call.weights_after(now),
            _ => None,
        }
    }

    /// The call, where it is told for the first time.
    #[must_use]
    pub fn asks(&self) -> Option<&Question<'a>> {
        match &self.told {
            Told::Asked(question) => Some(question),
            Told::Answered { question, .. } => Some(question).filter(|q| !q.in_two),
            Told::Other(_) => None,
        }
    }

    /// A read, a log line or a refused call, with its answer, if this is one: they are in
    /// one entry.
    #[must_use]
    pub fn at_once(&self) -> Option<(&Question<'a>, &'a Reply)> {
        self.answered().filter(|(question, _)| !question.in_two)
    }

    /// What happened, if it is neither a question nor an answer.
    #[must_use]
    pub fn event(&self) -> Option<&'a Event> {
        match self.told {
            Told::Other(event) => Some(event),
            Told::Asked(_) | Told::Answered { .. } => None,
        }
    }

    /// The question and its answer, if this has both.
    #[must_use]
    pub fn answered(&self) -> Option<(&Question<'a>, &'a Reply)> {
        match &self.told {
            Told::Answered {
                question, reply, ..
            } => Some((question, reply)),
            _ => None,
        }
    }
}

/// Reads entries one after the other, for those who follow a journal while it
/// grows. It keeps the questions that are still open.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reader {
    open: BTreeMap<u32, Open>,
}

#[derive(Debug, Clone, PartialEq)]
struct Open {
    at: Millis,
    by: Actor,
    call: Call,
    before: Option<Weights>,
    deadline: Option<Millis>,
}

impl Reader {
    /// Reads the next entry and shows what it tells. An answer whose question is
    /// not in what was read tells nothing.
    pub fn read<T>(&mut self, entry: &Entry, show: impl FnOnce(Exchange<'_>) -> T) -> Option<T> {
        match &entry.event {
            Event::Asked {
                by,
                call,
                before,
                deadline,
            } => {
                self.open.insert(
                    entry.seq,
                    Open {
                        at: entry.at,
                        by: *by,
                        call: call.clone(),
                        before: before.clone(),
                        deadline: *deadline,
                    },
                );
                exchange(entry, None).map(show)
            }
            Event::Answered { of, .. } => {
                let open = self.open.remove(of)?;
                let question = Question {
                    seq: *of,
                    at: open.at,
                    by: open.by,
                    call: &open.call,
                    before: open.before.as_ref(),
                    deadline: open.deadline,
                    in_two: true,
                };
                exchange(entry, Some(question)).map(show)
            }
            _ => exchange(entry, None).map(show),
        }
    }
}

/// The header in a journal's first entry; `None` if that entry is missing.
#[must_use]
pub fn header(entries: &[Entry]) -> Option<&Header> {
    match &entries.first()?.event {
        Event::Started(header) => Some(header),
        _ => None,
    }
}

/// What a journal tells, entry by entry.
pub fn exchanges(entries: &[Entry]) -> impl Iterator<Item = Exchange<'_>> {
    let mut open: BTreeMap<u32, Question<'_>> = BTreeMap::new();
    entries.iter().filter_map(move |entry| {
        let asked = match &entry.event {
            Event::Answered { of, .. } => Some(open.remove(of)?),
            _ => None,
        };
        let exchange = exchange(entry, asked)?;
        if let Told::Asked(question) = exchange.told {
            open.insert(entry.seq, question);
        }
        Some(exchange)
    })
}

/// What one entry tells; `None` if it is an answer and `asked` has not its question.
fn exchange<'a>(entry: &'a Entry, asked: Option<Question<'a>>) -> Option<Exchange<'a>> {
    let question = |by: &Actor, call: &'a Call| Question {
        seq: entry.seq,
        at: entry.at,
        by: *by,
        call,
        before: None,
        deadline: None,
        in_two: false,
    };
    let told = match &entry.event {
        Event::Asked {
            by,
            call,
            before,
            deadline,
        } => Told::Asked(Question {
            before: before.as_ref(),
            deadline: *deadline,
            in_two: true,
            ..question(by, call)
        }),
        Event::Answered {
            reply, recovered, ..
        } => Told::Answered {
            question: asked?,
            reply,
            recovered: *recovered,
        },
        Event::Exchanged { by, call, reply } => Told::Answered {
            question: question(by, call),
            reply,
            recovered: false,
        },
        other => Told::Other(other),
    };
    Some(Exchange {
        seq: entry.seq,
        at: entry.at,
        told,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{End, Goal, Hold, Outcome, Verdict, Wake};

    fn journal() -> Vec<Entry> {
        let by = Actor::Strategy;
        let weights = Weights::of([("stable", 50), ("canary", 50)]);
        let set = Call::SetWeights {
            weights: weights.clone(),
        };
        let wait = Call::Wait {
            seconds: 1,
            signals: vec![],
        };
        let failed = "it failed".to_owned();
        let events = vec![
            Event::Asked {
                by,
                call: set.clone(),
                before: Some(Weights::of([("stable", 100), ("canary", 0)])),
                deadline: None,
            },
            Event::Answered {
                by,
                of: 0,
                reply: Reply::Done,
                recovered: true,
            },
            Event::Exchanged {
                by,
                call: set,
                reply: Reply::Done,
            },
            Event::Asked {
                by,
                call: wait,
                before: None,
                deadline: Some(9),
            },
            Event::Exchanged {
                by: Actor::Host,
                call: Call::GetWeights,
                reply: Reply::Weights(weights),
            },
            Event::Answered {
                by,
                of: 3,
                reply: Reply::Woke(Wake::Timer),
                recovered: false,
            },
            Event::Finished(Outcome {
                verdict: Verdict::Promoted,
                reason: String::new(),
            }),
            Event::Failed {
                reason: failed.clone(),
            },
            Event::Held {
                hold: Hold::Deadline,
                signal: None,
            },
            Event::Continued {
                actor: "ada".to_owned(),
                adopted: None,
                signal: None,
            },
            Event::Decided {
                goal: Goal::Promote,
                by: crate::model::Decider::Strategy,
                reason: String::new(),
                signal: None,
            },
            Event::Ignored {
                signal: String::new(),
                name: String::new(),
            },
            Event::Diverged(super::super::replay::Mismatch {
                seq: 0,
                recorded: Call::GetHealth,
                asked: None,
            }),
            Event::Ended {
                end: End::Promoted,
                reason: failed,
            },
        ];
        let entries = events.into_iter().zip(0..).map(|(event, seq)| Entry {
            seq,
            at: u64::from(seq) * 10,
            epoch: 1,
            event,
        });
        entries.collect()
    }

    /// What one of them says, without its borrows.
    fn told(e: Exchange<'_>) -> String {
        format!("{e:?}")
    }

    #[test]
    fn every_event_is_told_and_answers_have_their_questions() {
        let journal = journal();
        let all: Vec<Exchange<'_>> = exchanges(&journal).collect();
        assert_eq!(all.len(), journal.len());
        let (question, reply) = all[1].answered().expect("a pair");
        assert_eq!((question.seq, question.at, reply), (0, 0, &Reply::Done));
        assert!(question.before.is_some());
        assert!(matches!(
            all[1].told,
            Told::Answered {
                recovered: true,
                ..
            }
        ));
        // A read in between does not part a wait from its end.
        let (question, _) = all[5].answered().expect("a pair");
        assert_eq!((question.seq, question.deadline), (3, Some(9)));
        for (exchange, entry) in all.iter().zip(&journal).skip(6) {
            assert_eq!(exchange.told, Told::Other(&entry.event));
        }
        let now = Weights::of([("stable", 100), ("canary", 0)]);
        let moved = all.iter().filter(|e| e.weights_after(&now).is_some());
        assert_eq!(
            moved.map(|e| e.seq).collect::<Vec<_>>(),
            [1],
            "an intent moves nothing, nor does a call that left everything as it was"
        );
    }

    #[test]
    fn a_prefix_tells_what_the_whole_begins_with() {
        let journal = journal();
        let whole: Vec<String> = exchanges(&journal).map(told).collect();
        for length in 0..=journal.len() {
            let prefix: Vec<String> = exchanges(&journal[..length]).map(told).collect();
            assert_eq!(prefix, whole[..length]);
            let mut reader = Reader::default();
            let read = journal[..length].iter().map(|e| reader.read(e, told));
            let read: Vec<String> = read.flatten().collect();
            assert_eq!(read, whole[..length], "one by one is the same");
        }
    }

    #[test]
    fn an_answer_without_its_question_tells_nothing() {
        let journal = journal();
        assert_eq!(exchanges(&journal[1..2]).count(), 0);
        assert_eq!(Reader::default().read(&journal[1], told), None);
        let open = exchanges(&journal[..1]).next().expect("a question");
        assert!(matches!(open.told, Told::Asked(_)) && open.answered().is_none());
    }
}

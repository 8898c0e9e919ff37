//! Makes the data of a picture from a journal.

use std::collections::BTreeMap;

use super::data::Unit;
use super::{ArmPoint, Decision, Look, Mark, Rollout, Step};
use crate::journal::narrate::{label, retreat};
use crate::journal::{
    Call, Entry, Event, Exchange, Header, Question, Reply, Told, exchanges, header,
};
use crate::model::{self, Goal, Millis, Role, Sample, Verdict, Wake, Weights};

/// Natural logarithm of the evidence at which a rollout goes back, if its journal does not
/// have a finding.
const LIMIT: f64 = 100.0;

/// The data of a journal: every look and step, and each sample as it was last read.
/// `None` if the journal has no first entry.
#[must_use]
pub fn rollout(entries: &[Entry]) -> Option<Rollout> {
    let mut sketch = Sketch::new(header(entries)?);
    for exchange in exchanges(entries) {
        sketch.read(&exchange);
    }
    Some(sketch.finish(entries.last()?.at))
}

/// The data of a picture while its journal is read.
struct Sketch<'a> {
    header: &'a Header,
    picture: Rollout,
    weights: Weights,
    /// Points by arm, the stable one first, and by the start of their samples.
    samples: BTreeMap<(usize, Millis), Sample>,
    /// How the rollout ended, for the title.
    how: &'static str,
}

impl<'a> Sketch<'a> {
    fn new(header: &'a Header) -> Self {
        let names = [Role::Stable, Role::Candidate].map(|role| header.arm(role).to_owned());
        let weights = header.baseline.clone();
        Self {
            header,
            picture: Rollout {
                title: String::new(),
                steps: vec![Step {
                    at_min: 0.0,
                    share: weights.share(&names[1]),
                }],
                stable: vec![],
                candidate: vec![],
                looks: vec![],
                limit: LIMIT.ln(),
                decisions: vec![],
                end_min: 0.0,
                names,
            },
            weights,
            samples: BTreeMap::new(),
            how: "is under way",
        }
    }

    /// Minutes since the rollout began.
    fn minutes(&self, at: Millis) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "some hours in ms")]
        let since = at as f64 - self.header.created as f64;
        since / 60_000.0
    }

    fn read(&mut self, exchange: &Exchange<'_>) {
        if let Some(after) = exchange.weights_after(&self.weights) {
            if let Some(text) = retreat(exchange, &self.weights, self.header) {
                self.picture.decisions.push(Decision {
                    at_min: self.minutes(exchange.at),
                    mark: Mark::Retreat,
                    text,
                });
            }
            self.picture.steps.push(Step {
                at_min: self.minutes(exchange.at),
                share: after.share(&self.picture.names[1]),
            });
            self.weights = after;
        }
        if let Some((question, reply)) = exchange.answered() {
            self.learn(question, reply);
        }
        if let Some((mark, text)) = mark(exchange).zip(label(exchange)) {
            let at_min = self.minutes(exchange.at);
            self.picture.decisions.push(Decision { at_min, mark, text });
        }
        if let Some(event) = exchange.event() {
            self.how = how(event).unwrap_or(self.how);
        }
    }

    fn learn(&mut self, question: &Question<'_>, reply: &Reply) {
        if let Call::Report { finding } = question.call {
            self.picture.limit = finding.log_limit;
            self.picture.looks.push(Look {
                at_min: self.minutes(finding.until),
                log_evidence: finding.log_evidence,
            });
        }
        let Reply::Samples(read) = reply else {
            return;
        };
        for sample in read.iter().filter(|s| s.zone.is_none()) {
            let names = &self.picture.names;
            if let Some(arm) = names.iter().position(|n| *n == sample.arm) {
                self.samples.insert((arm, sample.start), sample.clone());
            }
        }
    }

    fn finish(mut self, end: Millis) -> Rollout {
        for ((arm, start), sample) in std::mem::take(&mut self.samples) {
            // Samples from before the rollout were read for calibration; the picture begins later.
            if start < self.header.created {
                continue;
            }
            let point = ArmPoint {
                at_min: self.minutes(start.saturating_add(sample.period_ms.into())),
                requests: sample.requests,
                errors: sample.errors,
                p95_ms: sample.latency.map(|l| l.p95),
                p99_ms: sample.latency.map(|l| l.p99),
            };
            [&mut self.picture.stable, &mut self.picture.candidate][arm].push(point);
        }
        let header = self.header;
        let mut arms = header.arms.iter();
        let version = arms
            .find(|a| a.role == Role::Candidate)
            .map_or("", |a| a.version.as_str());
        let version = header.candidate.as_ref().map_or(version, |c| &c.version);
        self.picture.end_min = self.minutes(end);
        self.picture.title = format!(
            "{}: {version} {} after {}",
            header.title(),
            self.how,
            Unit::of(self.picture.end_min).say(self.picture.end_min)
        );
        self.picture
    }
}

/// The kind of a decision; `None` for what is not a decision.
fn mark(exchange: &Exchange<'_>) -> Option<Mark> {
    let by_goal = |goal: Goal| match goal {
        Goal::Promote => Mark::Promote,
        Goal::RollBack => Mark::Rollback,
    };
    Some(match exchange.told {
        Told::Answered {
            reply: Reply::Woke(Wake::Signal(_)),
            ..
        } => Mark::Person,
        Told::Answered { question, .. } => match question.call {
            Call::Report { finding } => match finding.decision {
                model::Decision::Advance => Mark::Advance,
                model::Decision::Hold => Mark::Hold,
                model::Decision::Stay | model::Decision::RollBack => return None,
            },
            _ => return None,
        },
        Told::Other(Event::Held { .. }) => Mark::Person,
        Told::Other(Event::Decided { goal, .. }) => by_goal(*goal),
        Told::Other(Event::Finished(outcome)) => outcome.verdict.goal().map_or(Mark::Hold, by_goal),
        Told::Asked(_) | Told::Other(_) => return None,
    })
}

/// How a rollout ends with this decision, in the words of the title.
fn how(event: &Event) -> Option<&'static str> {
    let verdict = match event {
        Event::Decided { goal, .. } => Verdict::from(*goal),
        Event::Finished(outcome) => outcome.verdict,
        _ => return None,
    };
    Some(match verdict {
        Verdict::Promoted => "is promoted",
        Verdict::RolledBack => "is rolled back",
        Verdict::Inconclusive => "is undecided",
    })
}

//! Explain: which metric led to which decision. Pure.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use crate::journal::{Actor, Call, Entry, Event, Exchange, Question, Reply, Told, exchanges};
use crate::model::{Decider, Goal, Millis, Sample, Verdict, Wake};

/// One decision and what was known when it was taken.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// When (Unix ms).
    pub at: Millis,
    /// Number of its journal entry.
    pub seq: u32,
    /// What was done or decided.
    pub did: String,
    /// Who decided.
    pub by: String,
    /// What was learned since the step before, oldest first.
    pub because: Vec<String>,
}

/// The decisions of a journal, in order.
#[must_use]
pub fn explain(entries: &[Entry]) -> Vec<Step> {
    let mut story = Story::default();
    for exchange in exchanges(entries) {
        story.read(&exchange);
    }
    story.steps
}

#[derive(Default)]
struct Story {
    steps: Vec<Step>,
    known: Known,
    /// What was found of other routes at the end.
    elsewhere: Option<String>,
    /// Samples that an earlier step knew already.
    told: BTreeSet<(Millis, String, Option<String>)>,
}

/// What was learned since the last step.
#[derive(Default)]
struct Known {
    /// By arm, as they were first seen.
    samples: Vec<Sample>,
    points: Vec<(String, Vec<crate::model::Point>)>,
    finding: Option<String>,
    lines: Vec<String>,
}

impl Story {
    fn read(&mut self, entry: &Exchange<'_>) {
        match entry.told {
            Told::Asked(_) => {}
            Told::Answered {
                question, reply, ..
            } => self.heard(entry, &question, reply),
            Told::Other(event) => self.happened(entry, event),
        }
    }

    fn heard(&mut self, entry: &Exchange<'_>, question: &Question<'_>, reply: &Reply) {
        let (call, by_strategy) = (question.call, question.by == Actor::Strategy);
        if let Reply::Woke(Wake::Signal(signal)) = reply {
            let line = format!("{} by {}", signal.name, signal.actor);
            self.known.lines.push(line);
        } else if *call == Call::GetElsewhere {
            self.elsewhere = Some(reply.to_string());
        } else if by_strategy && question.in_two && call.is_write() {
            let did = match reply {
                Reply::Done => call.to_string(),
                other => format!("{call}: {other}"),
            };
            self.step(entry, did, "strategy");
        } else if by_strategy && !question.in_two {
            self.learned(entry, call, reply);
        }
    }

    fn happened(&mut self, entry: &Exchange<'_>, event: &Event) {
        match event {
            Event::Finished(outcome) => {
                let verdict = match outcome.verdict {
                    Verdict::Promoted => "promotes",
                    Verdict::RolledBack => "rolls back",
                    Verdict::Inconclusive => "cannot tell",
                };
                self.step(entry, format!("{verdict}: {}", outcome.reason), "strategy");
            }
            Event::Failed { reason } => self.step(entry, format!("failed: {reason}"), "strategy"),
            Event::Held { hold, .. } => self.step(entry, format!("holds: {hold}"), "host"),
            Event::Continued { actor, .. } => self.step(entry, "goes on".to_owned(), actor),
            // What the strategy decided was told a moment ago.
            Event::Decided {
                goal, by, reason, ..
            } if *by != Decider::Strategy => {
                let goal = match goal {
                    Goal::Promote => "promotes",
                    Goal::RollBack => "rolls back",
                };
                self.step(entry, format!("{goal}: {reason}"), &by.to_string());
            }
            Event::Diverged(_) => {
                let did = "the strategy did not repeat itself".to_owned();
                self.step(entry, did, "host");
            }
            Event::Ended { end, .. } => {
                let all = match &self.elsewhere {
                    None => "has all traffic".to_owned(),
                    Some(others) => {
                        format!("has all of the route that was moved; other routes: {others}")
                    }
                };
                let words = match end {
                    crate::model::End::Promoted => format!("the candidate {all}"),
                    crate::model::End::RolledBack => format!("stable {all}"),
                    crate::model::End::RollbackFailed => "the way back failed".to_owned(),
                    crate::model::End::Done => "done".to_owned(),
                    crate::model::End::Refused => "refused".to_owned(),
                };
                self.step(entry, words, "host");
            }
            _ => {}
        }
    }

    fn learned(&mut self, entry: &Exchange<'_>, call: &Call, reply: &Reply) {
        match (call, reply) {
            (call, reply) if call.is_write() => {
                if let Reply::Failed(_) = reply {
                    self.step(entry, format!("{call}: {reply}"), "host");
                }
            }
            (Call::GetMetrics { .. }, Reply::Samples(samples)) => {
                for sample in samples {
                    let key = (sample.start, sample.arm.clone(), sample.zone.clone());
                    if self.told.insert(key) {
                        self.known.samples.push(sample.clone());
                    }
                }
            }
            (Call::Query { name, .. }, Reply::Points(points)) => {
                self.known.points.retain(|(known, _)| known != name);
                self.known.points.push((name.clone(), points.clone()));
            }
            (Call::Report { finding }, _) => self.known.finding = Some(finding.to_string()),
            (Call::Probe { name }, reply) => {
                self.known.lines.push(format!("probe {name}: {reply}"));
            }
            (Call::Log { message, .. }, _) => self.known.lines.push(message.clone()),
            (call, Reply::Failed(error)) => {
                self.known.lines.push(format!("{call} failed: {error}"));
            }
            _ => {}
        }
    }

    fn step(&mut self, entry: &Exchange<'_>, did: String, by: &str) {
        let known = std::mem::take(&mut self.known);
        let mut because = known.lines;
        // A strategy that waits says the same in every look.
        because.dedup();
        because.extend(by_arm(&known.samples));
        for (name, points) in &known.points {
            because.extend(means(name, points));
        }
        // A verdict often says it again.
        because.extend(known.finding.filter(|f| {
            let said = f.split_once(": ").map_or(f.as_str(), |(_, said)| said);
            !did.contains(said)
        }));
        self.steps.push(Step {
            at: entry.at,
            seq: entry.seq,
            did,
            by: by.to_owned(),
            because,
        });
    }
}

/// A line for each arm that had requests.
fn by_arm(samples: &[Sample]) -> Vec<String> {
    let arms: BTreeSet<&str> = samples.iter().map(|s| s.arm.as_str()).collect();
    let lines = arms.into_iter().map(|arm| {
        let of: Vec<&Sample> = samples.iter().filter(|s| s.arm == arm).collect();
        let requests: u64 = of.iter().map(|s| u64::from(s.requests)).sum();
        let errors: u64 = of.iter().map(|s| u64::from(s.errors)).sum();
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let rate = errors as f64 * 100.0 / (requests.max(1)) as f64;
        let slowest = of.iter().filter_map(|s| s.latency.as_ref()).map(|l| l.p99);
        let slowest = slowest.fold(None, |most: Option<f64>, p| {
            Some(most.map_or(p, |m| m.max(p)))
        });
        let slow = slowest.map_or_else(String::new, |p| format!(", p99 up to {p:.0} ms"));
        format!("{arm}: {requests} requests, {errors} errors ({rate:.2} %){slow}")
    });
    lines.collect()
}

/// Mean of a query's newest answer for each arm.
fn means(name: &str, points: &[crate::model::Point]) -> Vec<String> {
    let arms: BTreeSet<&str> = points.iter().map(|p| p.arm.as_str()).collect();
    let lines = arms.into_iter().map(|arm| {
        let values: Vec<f64> = points
            .iter()
            .filter(|p| p.arm == arm)
            .map(|p| p.value)
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        format!("{arm}: {name} {mean:.4} in {} values", values.len())
    });
    lines.collect()
}

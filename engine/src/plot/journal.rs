//! A journal as the data of a picture.

use std::collections::BTreeMap;

use super::{ArmPoint, Decision, Look, Mark, Rollout, Step};
use crate::journal::{Call, Entry, Event, Reply, Told, exchanges};
use crate::model::{self, Goal, Millis, Role, Sample, Wake};

/// Evidence at which a rollout goes back, if its journal has no finding.
const LIMIT: f64 = 100.0;

/// The data of a journal: every look and step, and each sample as it was last read.
/// `None` if the journal has no first entry.
#[must_use]
pub fn rollout(entries: &[Entry]) -> Option<Rollout> {
    let Event::Started(header) = &entries.first()?.event else {
        return None;
    };
    #[expect(clippy::cast_precision_loss, reason = "some hours in ms")]
    let minutes = |at: Millis| (at as f64 - header.created as f64) / 60_000.0;
    let names = [header.arm(Role::Stable), header.arm(Role::Candidate)].map(str::to_owned);
    let mut samples: BTreeMap<(usize, Millis), Sample> = BTreeMap::new();
    let mut weights = header.baseline.clone();
    let mut picture = Rollout {
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
        end_min: minutes(entries.last()?.at),
        names,
    };
    let mut how = "is under way";
    for exchange in exchanges(entries) {
        let at_min = minutes(exchange.at);
        let mut decide = |mark: Mark, text: &str| {
            picture.decisions.push(Decision {
                at_min,
                mark,
                text: text.to_owned(),
            });
        };
        if let Some(after) = exchange.weights_after(&weights) {
            weights = after;
            picture.steps.push(Step {
                at_min,
                share: weights.share(&picture.names[1]),
            });
            continue;
        }
        if let Some((question, reply)) = exchange.answered() {
            if let Reply::Woke(Wake::Signal(signal)) = reply {
                decide(
                    Mark::Person,
                    &format!("{} by {}", signal.name, signal.actor),
                );
            }
            if let Call::Report { finding } = question.call {
                picture.limit = finding.log_limit;
                picture.looks.push(Look {
                    at_min: minutes(finding.until),
                    log_evidence: finding.log_evidence,
                });
                match finding.decision {
                    model::Decision::Advance => decide(Mark::Advance, "goes on"),
                    model::Decision::Hold => decide(Mark::Hold, "holds"),
                    model::Decision::Stay | model::Decision::RollBack => {}
                }
            } else if let Reply::Samples(read) = reply {
                for sample in read.iter().filter(|s| s.zone.is_none()) {
                    if let Some(arm) = picture.names.iter().position(|n| *n == sample.arm) {
                        samples.insert((arm, sample.start), sample.clone());
                    }
                }
            }
            continue;
        }
        let Told::Other(event) = exchange.told else {
            continue;
        };
        match event {
            Event::Held { hold, .. } => decide(Mark::Person, &hold.to_string()),
            Event::Decided {
                goal, reason, by, ..
            } if *by != model::Decider::Strategy => {
                (how, _) = match goal {
                    Goal::Promote => ("is promoted", decide(Mark::Promote, "promoted")),
                    Goal::RollBack => ("is rolled back", decide(Mark::Rollback, reason)),
                };
            }
            Event::Finished(outcome) => {
                (how, _) = match outcome.verdict {
                    model::Verdict::Promoted => ("is promoted", decide(Mark::Promote, "promoted")),
                    model::Verdict::RolledBack => {
                        ("is rolled back", decide(Mark::Rollback, "goes back"))
                    }
                    model::Verdict::Inconclusive => ("is undecided", decide(Mark::Hold, "asks")),
                };
            }
            _ => {}
        }
    }
    for ((arm, start), sample) in &samples {
        let point = ArmPoint {
            at_min: minutes(start.saturating_add(sample.period_ms.into())),
            requests: sample.requests,
            errors: sample.errors,
            p95_ms: sample.latency.map(|l| l.p95),
            p99_ms: sample.latency.map(|l| l.p99),
        };
        // Samples that were read for calibration are from before the rollout.
        if *start >= header.created {
            [&mut picture.stable, &mut picture.candidate][*arm].push(point);
        }
    }
    let version = header
        .arms
        .iter()
        .find(|a| a.role == Role::Candidate)
        .map_or("", |a| a.version.as_str());
    let version = header.candidate.as_ref().map_or(version, |c| &c.version);
    picture.title = format!(
        "{}: {version} {how} after {:.0} minutes",
        header.title(),
        picture.end_min
    );
    Some(picture)
}

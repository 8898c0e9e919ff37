//! A journal as a picture.

use std::collections::BTreeMap;
use std::path::Path;

use crate::journal::{Call, Entry, Event, Reply};
use crate::model::{self, Goal, Millis, Role, Sample, Wake};
use crate::ops::Error;
use crate::plot::{self, ArmPoint, Decision, Format, Look, Mark, Rollout, Step};

/// Evidence at which a rollout goes back, if its journal does not say it.
const LIMIT: f64 = 100.0;

/// Draws a rollout into a file.
pub(super) fn draw_rollout(entries: &[Entry], path: &Path) -> crate::ops::Result<()> {
    let format = format_of(path)?;
    let picture =
        rollout(entries).ok_or_else(|| Error::internal("the journal has no beginning"))?;
    save(path, &plot::rollout(&picture, format)?)
}

/// The format that a file's name asks for.
pub(super) fn format_of(path: &Path) -> crate::ops::Result<Format> {
    Format::of(path).map_err(Error::usage)
}

/// Writes a picture.
pub(super) fn save(path: &Path, bytes: &[u8]) -> crate::ops::Result<()> {
    std::fs::write(path, bytes)
        .map_err(|e| Error::usage(format!("failed to write {}: {e}", path.display())))?;
    eprintln!("drawn into {}", path.display());
    Ok(())
}

/// What the journal tells: every look and step, and each sample as it was last
/// read.
fn rollout(entries: &[Entry]) -> Option<Rollout> {
    let Event::Started(header) = &entries.first()?.event else {
        return None;
    };
    #[expect(clippy::cast_precision_loss, reason = "some hours in ms")]
    let minutes = |at: Millis| (at as f64 - header.created as f64) / 60_000.0;
    let names = [header.arm(Role::Stable), header.arm(Role::Candidate)].map(str::to_owned);
    let mut samples: BTreeMap<(usize, Millis), Sample> = BTreeMap::new();
    let mut writes: BTreeMap<u32, &Call> = BTreeMap::new();
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
    for entry in entries {
        let at_min = minutes(entry.at);
        let mut decide = |mark: Mark, text: &str| {
            picture.decisions.push(Decision {
                at_min,
                mark,
                text: text.to_owned(),
            });
        };
        match &entry.event {
            Event::Asked { call, .. } => {
                writes.insert(entry.seq, call);
            }
            Event::Answered { of, reply, .. } => {
                let call = writes.remove(of);
                if let (Some(call), Reply::Done) = (call, reply)
                    && let Some(after) = call.weights_after(&weights)
                {
                    weights = after;
                    picture.steps.push(Step {
                        at_min,
                        share: weights.share(&picture.names[1]),
                    });
                }
                if let Reply::Woke(Wake::Signal(signal)) = reply {
                    decide(
                        Mark::Person,
                        &format!("{} by {}", signal.name, signal.actor),
                    );
                }
            }
            Event::Exchanged {
                call: Call::Report { finding },
                ..
            } => {
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
            }
            Event::Exchanged {
                reply: Reply::Samples(read),
                ..
            } => {
                for sample in read.iter().filter(|s| s.zone.is_none()) {
                    if let Some(arm) = picture.names.iter().position(|n| *n == sample.arm) {
                        samples.insert((arm, sample.start), sample.clone());
                    }
                }
            }
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
        // What was read for calibration lies before the picture.
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

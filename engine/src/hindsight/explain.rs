//! Explain: which metric led to which decision. Pure.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use crate::journal::narrate::sentence;
use crate::journal::status::Status;
use crate::journal::verdict;
use crate::journal::{
    Actor, Call, Entry, Event, Exchange, Question, Reply, Told, exchanges, header,
};
use crate::model::query::Count;
use crate::model::{Decider, Millis, Sample, Wake, counted};

/// One decision, and what was known when it was made.
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
    let stands = header(entries).zip(Status::of(entries));
    let mut story = Story {
        traffic: stands.and_then(|(header, status)| verdict::traffic(header, &status)),
        ..Story::default()
    };
    for exchange in exchanges(entries) {
        story.read(&exchange);
    }
    story.steps
}

#[derive(Default)]
struct Story {
    steps: Vec<Step>,
    known: Known,
    /// Where the traffic is at the end, if the rollout brought it somewhere.
    traffic: Option<String>,
    /// Start, arm and zone of the samples that an earlier step has told.
    told: BTreeSet<(Millis, String, Option<String>)>,
}

/// What was learned since the last step.
#[derive(Default)]
struct Known {
    /// New samples, each as it was first seen.
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
        if let Reply::Woke(Wake::Signal(_)) = reply {
            self.known.lines.extend(sentence(entry));
        } else if by_strategy && call.is_write() {
            match (reply, sentence(entry)) {
                // The call is the decision; the metrics after it show what it did.
                (Reply::Done, _) if question.in_two => {
                    self.step(entry, call.to_string(), "strategy");
                }
                (Reply::Failed(_), Some(did)) => {
                    let by = if question.in_two { "strategy" } else { "host" };
                    self.step(entry, did, by);
                }
                _ => {}
            }
        } else if by_strategy && !question.in_two {
            self.learned(entry, call, reply);
        }
    }

    fn happened(&mut self, entry: &Exchange<'_>, event: &Event) {
        let Some(did) = sentence(entry) else {
            return;
        };
        match event {
            Event::Finished(_) | Event::Failed { .. } => self.step(entry, did, "strategy"),
            Event::Held { .. } | Event::Diverged(_) => self.step(entry, did, "host"),
            Event::Continued { actor, .. } => self.step(entry, did, actor),
            // The verdict of the strategy was told by the step before.
            Event::Decided { by, .. } if *by != Decider::Strategy => {
                self.step(entry, did, &by.to_string());
            }
            Event::Ended { .. } => {
                let traffic = self.traffic.take();
                let did = traffic.map_or(did, |text| text.trim_end_matches('.').to_owned());
                self.step(entry, did, "host");
            }
            _ => {}
        }
    }
    fn learned(&mut self, entry: &Exchange<'_>, call: &Call, reply: &Reply) {
        match (call, reply) {
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
            (Call::Report { .. }, _) => self.known.finding = sentence(entry),
            // The next step says the same.
            (Call::Progress { .. }, _) => {}
            _ => self.known.lines.extend(sentence(entry)),
        }
    }

    fn step(&mut self, entry: &Exchange<'_>, did: String, by: &str) {
        let known = std::mem::take(&mut self.known);
        let mut because = known.lines;
        // A strategy that waits may report the same at every look, so repeated lines go.
        because.dedup();
        // Three kinds of counts stand below one another: each says what it counts.
        let since = match self.steps.is_empty() {
            true => "in all samples so far",
            false => "in the samples since the step before",
        };
        because.extend(by_arm(&known.samples, since));
        let unanswered = unanswered(&known.points);
        let told = match unanswered.is_empty() {
            true => &[][..],
            false => &[Count::Unanswered.query(), Count::Asked.query()],
        };
        because.extend(unanswered);
        for (name, points) in &known.points {
            if !told.contains(&name.as_str()) {
                because.extend(means(name, points));
            }
        }
        // A verdict often repeats the finding, which then need not be told twice.
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

/// A line for each arm that had requests; `since` says in which samples.
fn by_arm(samples: &[Sample], since: &str) -> Vec<String> {
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
        format!("{arm}: {requests} requests, {errors} errors ({rate:.2} %){slow}, {since}")
    });
    lines.collect()
}

/// A line for each arm whose requests without an answer were asked for: how many of how many,
/// in the samples of the last look.
fn unanswered(points: &[(String, Vec<crate::model::Point>)]) -> Vec<String> {
    let of = |count: Count| {
        let mut known = points.iter().filter(|(name, _)| name == count.query());
        known.next().map_or(&[][..], |(_, points)| points)
    };
    let (without, asked) = (of(Count::Unanswered), of(Count::Asked));
    let arms: BTreeSet<&str> = without.iter().map(|p| p.arm.as_str()).collect();
    let lines = arms.into_iter().map(|arm| {
        let sum = |points: &[crate::model::Point]| -> f64 {
            points
                .iter()
                .filter(|p| p.arm == arm)
                .map(|p| p.value)
                .sum()
        };
        let samples = without.iter().filter(|p| p.arm == arm).count();
        let of_all = match asked.iter().any(|p| p.arm == arm) {
            true => format!(" of {:.0}", sum(asked)),
            false => String::new(),
        };
        format!(
            "{arm}: {:.0}{of_all} requests without an answer{}",
            sum(without),
            looked_at(samples)
        )
    });
    lines.collect()
}

/// Which samples a query's newest answer is about.
fn looked_at(samples: usize) -> String {
    let samples = u32::try_from(samples).unwrap_or(u32::MAX);
    format!(", in the {} of the last look", counted(samples, "sample"))
}

/// What is counted, after a number.
fn in_words(count: Count) -> &'static str {
    match count {
        Count::Unanswered => "requests without an answer",
        Count::Asked => "requests whose answer was awaited",
        Count::SentAgain => "requests sent once more, because a connection was lost",
        Count::ClientErrors => "answers that blame the client (4xx)",
        Count::Restarts => "tasks that stopped by themselves",
        Count::OutOfMemory => "tasks that ran out of memory",
        Count::EndedWith => "tasks ended with exit codes up to",
    }
}

/// A query's newest answer for each arm: the mean, or the sum of what is counted.
fn means(name: &str, points: &[crate::model::Point]) -> Vec<String> {
    let arms: BTreeSet<&str> = points.iter().map(|p| p.arm.as_str()).collect();
    let lines = arms.into_iter().map(|arm| {
        let values: Vec<f64> = points
            .iter()
            .filter(|p| p.arm == arm)
            .map(|p| p.value)
            .collect();
        // What the engine counts by itself has a name for strategies, not for people.
        if let Some(count) = Count::of_query(name) {
            let all: f64 = values.iter().sum();
            let what = in_words(count);
            let when = match count {
                // Only minutes with some have a value.
                Count::Restarts | Count::OutOfMemory => ", as of the last look".to_owned(),
                Count::EndedWith => {
                    let most = values.iter().fold(0.0, |most, code| f64::max(most, *code));
                    return format!("{arm}: {what} {most:.0}, as of the last look");
                }
                _ => looked_at(values.len()),
            };
            return format!("{arm}: {all:.0} {what}{when}");
        }
        #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        format!("{arm}: {name} {mean:.4} in {} values", values.len())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Point;

    #[test]
    fn what_the_engine_counts_is_told_as_a_count_and_in_words() {
        let points: Vec<Point> = [("canary", 3.0), ("stable", 40.0), ("canary", 4.0)]
            .into_iter()
            .enumerate()
            .map(|(at, (arm, value))| Point {
                arm: arm.to_owned(),
                at: at as u64,
                value,
            })
            .collect();
        assert_eq!(
            means(Count::ClientErrors.query(), &points),
            [
                "canary: 7 answers that blame the client (4xx), in the 2 samples of the last look",
                "stable: 40 answers that blame the client (4xx), in the 1 sample of the last look",
            ]
        );
        let mut known = vec![(Count::Unanswered.query().to_owned(), points.clone())];
        assert_eq!(
            unanswered(&known),
            [
                "canary: 7 requests without an answer, in the 2 samples of the last look",
                "stable: 40 requests without an answer, in the 1 sample of the last look",
            ]
        );
        let mut asked = points.clone();
        for point in &mut asked {
            point.value *= 10.0;
        }
        known.push((Count::Asked.query().to_owned(), asked));
        let canary =
            "canary: 7 of 70 requests without an answer, in the 2 samples of the last look";
        assert_eq!(unanswered(&known)[0], canary, "one count, and of how many");
        for count in [
            Count::Asked,
            Count::SentAgain,
            Count::Restarts,
            Count::EndedWith,
        ] {
            for line in means(count.query(), &points) {
                assert!(!line.contains("engine:"), "{line}");
            }
        }
        assert_eq!(
            means("accuracy", &points)[0],
            "canary: accuracy 3.5000 in 2 values",
            "a query of the rollout file has its own name"
        );
    }
}

//! One-second samples of one arm: counts and a latency histogram.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::SAMPLE_PERIOD_MS;
use crate::model::{Latency, MetricsQuery, Millis, Sample};

/// Samples that are kept: an hour.
const KEPT: usize = 3_600;
/// Longer latencies count as this one: ten minutes, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Fine,
    ClientError,
    Error,
}

/// What the requests of one release of an arm have come to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// The samples of the arm, which its releases share one after another.
    recorder: Arc<Mutex<Recorder>>,
    /// Whether the arm has been healthy since the balancer was started. What its backends
    /// answer while they start for the first time says nothing about their version.
    begun: Arc<AtomicBool>,
    /// Whether the arm runs another release by now: what this one still answers says
    /// nothing about that one.
    replaced: AtomicBool,
    /// Requests that clients broke off or gave up, and those of them that were wholly with
    /// the arm.
    spoiled: AtomicU64,
    given_up: AtomicU64,
    sent_again: AtomicU64,
}

/// How a request ended that got an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// Time to the head of the answer.
    pub(super) head: Duration,
    /// Time to its end.
    pub(super) whole: Duration,
    pub(super) class: Class,
}

/// What is counted of requests besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Requests for which a lot chose the arm, with an answer or given up while the arm
    /// owed it.
    pub(super) asked: u32,
    /// Those of them that were given up so, or that a connection lost without a word.
    pub(super) unanswered: u32,
    /// Requests that were sent once more.
    pub(super) sent_again: u32,
}

/// The same of one arm in one second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Second {
    pub(super) arm: String,
    /// Its start, Unix ms.
    pub(super) at: Millis,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

impl Tally {
    /// That of the next release of the same arm.
    pub(super) fn of_the_next(&self) -> Self {
        Self {
            recorder: self.recorder.clone(),
            begun: self.begun.clone(),
            ..Self::default()
        }
    }

    /// Keeps what this release still answers out of the samples of the next one.
    pub(super) fn replace(&self) {
        self.replaced.store(true, Ordering::Relaxed);
    }

    /// Counts a request that has ended at `now`, with how it ended if it got an answer.
    pub(super) fn count(&self, now: Millis, ended: Option<Ended>, counts: Counts) {
        self.sent_again
            .fetch_add(counts.sent_again.into(), Ordering::Relaxed);
        let mut recorder = self.recorder();
        if !self.has_begun() || self.replaced.load(Ordering::Relaxed) {
            return;
        }
        if let Some(Ended { head, whole, class }) = ended {
            recorder.record(now, head, whole, class);
        }
        recorder.add(now, counts);
    }

    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts requests from now on, because the arm is healthy.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Whether the arm has been healthy since the balancer was started.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Counts a request that its client broke off or gave up, perhaps while it was wholly
    /// `with_arm`; it is in no sample.
    pub(super) fn count_spoiled(&self, with_arm: bool) {
        self.spoiled.fetch_add(1, Ordering::Relaxed);
        self.given_up.fetch_add(with_arm.into(), Ordering::Relaxed);
    }

    /// Requests so far that clients gave up while the arm owed them an answer, or the rest
    /// of one, and tunnels in which it said nothing.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Requests that were sent once more so far.
    pub(super) fn sent_again(&self) -> u64 {
        self.sent_again.load(Ordering::Relaxed)
    }

    /// Requests that clients broke off or gave up so far.
    pub(super) fn spoiled(&self) -> u64 {
        self.spoiled.load(Ordering::Relaxed)
    }
}

/// Collects the current second and keeps the complete ones.
#[derive(Debug)]
pub(super) struct Recorder {
    second: Millis,
    counts: [u32; 3],
    besides: Counts,
    /// Times to the head of the answer, us.
    histogram: Histogram<u32>,
    /// Times to its end, us.
    whole: Histogram<u32>,
    closed: VecDeque<Closed>,
}

/// A complete second. The histogram is kept as pairs, because a query brings its
/// own thresholds.
#[derive(Debug)]
struct Closed {
    start: Millis,
    counts: [u32; 3],
    besides: Counts,
    latency: Latency,
    whole: Latency,
    pairs: Vec<(u32, u32)>,
}

impl Default for Recorder {
    fn default() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).expect("constant and valid bounds");
        Self {
            second: 0,
            counts: [0; 3],
            besides: Counts::default(),
            histogram: histogram(),
            whole: histogram(),
            closed: VecDeque::new(),
        }
    }
}

impl Recorder {
    /// Records one request whose answer ended at `now`, with the times to its head and
    /// to its end.
    pub(super) fn record(&mut self, now: Millis, head: Duration, whole: Duration, class: Class) {
        self.close_before(now);
        self.counts[class as usize] += 1;
        let us = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.histogram.saturating_record(us(head));
        self.whole.saturating_record(us(whole));
    }

    /// Adds to the counts of the second of `now`.
    fn add(&mut self, now: Millis, more: Counts) {
        self.close_before(now);
        let besides = &mut self.besides;
        besides.asked = besides.asked.saturating_add(more.asked);
        besides.unanswered = besides.unanswered.saturating_add(more.unanswered);
        besides.sent_again = besides.sent_again.saturating_add(more.sent_again);
    }

    fn close_before(&mut self, now: Millis) {
        let period = Millis::from(SAMPLE_PERIOD_MS);
        // The machine's clock may go back; a complete second is never changed.
        let second = (now / period * period).max(self.second);
        if second == self.second {
            return;
        }
        if !self.histogram.is_empty() || self.besides != Counts::default() {
            if self.closed.len() == KEPT {
                self.closed.pop_front();
            }
            self.closed.push_back(Closed {
                start: self.second,
                counts: self.counts,
                besides: self.besides,
                latency: latency(&self.histogram),
                whole: latency(&self.whole),
                pairs: self
                    .histogram
                    .iter_recorded()
                    .map(|v| {
                        let us = u32::try_from(v.value_iterated_to()).unwrap_or(u32::MAX);
                        (us, v.count_at_value())
                    })
                    .collect(),
            });
            self.histogram.reset();
            self.whole.reset();
            self.counts = [0; 3];
            self.besides = Counts::default();
        }
        self.second = second;
    }

    /// The complete samples that a query asks for.
    pub(super) fn samples(&mut self, now: Millis, arm: &str, query: &MetricsQuery) -> Vec<Sample> {
        self.close_before(now);
        let first = self.closed.partition_point(|c| c.start < query.since);
        self.closed
            .range(first..)
            .filter(|closed| closed.counts != [0; 3])
            .map(|closed| Sample {
                arm: arm.to_owned(),
                zone: None,
                start: closed.start,
                period_ms: SAMPLE_PERIOD_MS,
                requests: closed.counts.iter().sum(),
                errors: closed.counts[Class::Error as usize],
                client_errors: closed.counts[Class::ClientError as usize],
                over: query
                    .over_ms
                    .iter()
                    .map(|limit| {
                        let slower = closed
                            .pairs
                            .iter()
                            .filter(|(us, _)| f64::from(*us) > limit * 1_000.0);
                        slower.map(|(_, count)| count).sum()
                    })
                    .collect(),
                latency: Some(closed.latency),
                whole: Some(closed.whole),
                cpu: None,
                memory: None,
                healthy: None,
            })
            .collect()
    }
}

impl Recorder {
    /// What is counted besides in each complete second with requests that began at `since`
    /// or later.
    pub(super) fn counted(&mut self, now: Millis, arm: &str, since: Millis) -> Vec<Second> {
        self.close_before(now);
        let first = self.closed.partition_point(|c| c.start < since);
        let counted = self.closed.range(first..).map(|closed| Second {
            arm: arm.to_owned(),
            at: closed.start,
            counts: closed.besides,
        });
        counted.collect()
    }
}

fn latency(histogram: &Histogram<u32>) -> Latency {
    let at = |quantile| {
        let us = histogram.value_at_quantile(quantile);
        Duration::from_micros(us).as_secs_f64() * 1_000.0
    };
    Latency {
        mean: histogram.mean() / 1_000.0,
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(recorder: &mut Recorder, now: Millis, since: Millis, over: &[f64]) -> Vec<Sample> {
        let query = MetricsQuery {
            since,
            over_ms: over.to_vec(),
            by_zone: false,
        };
        recorder.samples(now, "canary", &query)
    }

    #[test]
    fn seconds_close_and_empty_ones_have_no_sample() {
        let mut recorder = Recorder::default();
        for ms in 1..=100 {
            let class = match ms % 10 {
                0 => Class::Error,
                1 => Class::ClientError,
                _ => Class::Fine,
            };
            recorder.record(
                10_000 + ms,
                Duration::from_millis(ms),
                Duration::from_millis(2 * ms),
                class,
            );
        }
        let took = Duration::from_millis(7);
        recorder.record(13_500, took, took, Class::Fine);
        assert_eq!(
            ask(&mut recorder, 10_999, 0, &[]).len(),
            1,
            "closed by the later request"
        );
        let samples = ask(&mut recorder, 14_000, 0, &[90.5, 1_000.0]);
        assert_eq!(samples.len(), 2);
        let first = &samples[0];
        assert_eq!(
            (
                first.start,
                first.requests,
                first.errors,
                first.client_errors
            ),
            (10_000, 100, 10, 10)
        );
        assert_eq!(first.over[1], 0);
        // Two significant digits: at 90 ms a bin is about half a ms wide.
        assert!((9..=11).contains(&first.over[0]), "{}", first.over[0]);
        let latency = first.latency.expect("always known here");
        assert!((latency.p50 - 50.0).abs() < 1.0, "{latency:?}");
        assert!((latency.p99 - 99.0).abs() < 1.5, "{latency:?}");
        let whole = first.whole.expect("always known here");
        assert!((whole.p50 - 100.0).abs() < 2.0, "{whole:?}");
        assert_eq!(samples[1].start, 13_000);
        assert_eq!(ask(&mut recorder, 15_000, 10_001, &[]).len(), 1);
    }

    #[test]
    fn a_second_in_which_nobody_got_an_answer_has_counts_and_no_sample() {
        let tally = Tally::default();
        let given_up = Counts {
            asked: 1,
            unanswered: 1,
            sent_again: 0,
        };
        tally.count(9_000, None, given_up);
        tally.begin();
        tally.count(10_100, None, given_up);
        tally.count(10_200, None, given_up);
        let took = Duration::from_millis(7);
        let ended = Ended {
            head: took,
            whole: took,
            class: Class::Fine,
        };
        let answered = Counts {
            asked: 1,
            unanswered: 0,
            sent_again: 1,
        };
        tally.count(12_000, Some(ended), answered);
        let mut recorder = tally.recorder();
        let samples = ask(&mut recorder, 14_000, 0, &[]);
        let starts: Vec<_> = samples.iter().map(|s| (s.start, s.requests)).collect();
        assert_eq!(starts, [(12_000, 1)]);
        let second = |at, counts| Second {
            arm: "canary".to_owned(),
            at,
            counts,
        };
        let twice = Counts {
            asked: 2,
            unanswered: 2,
            sent_again: 0,
        };
        let all = [second(10_000, twice), second(12_000, answered)];
        assert_eq!(recorder.counted(14_000, "canary", 0), all);
        assert_eq!(recorder.counted(14_000, "canary", 10_001), all[1..]);
    }

    #[test]
    fn an_hour_is_kept() {
        let mut recorder = Recorder::default();
        for second in 0..4_000 {
            let took = Duration::from_millis(1);
            recorder.record(second * 1_000, took, took, Class::Fine);
        }
        assert_eq!(ask(&mut recorder, 4_000_000, 0, &[]).len(), KEPT);
    }
}

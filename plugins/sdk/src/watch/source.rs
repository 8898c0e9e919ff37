//! Turns samples into the counts of the streams. No other file knows how a target
//! counts.

mod zones;

use std::collections::BTreeMap;

use analysis::percentiles::{self, Percentiles};
use analysis::{Counts, Interval, Moments, Past, Seen};

use super::settings::Custom;
use crate::gate::Window;
use crate::{Error, ErrorKind, HostError, Level, MetricsQuery, Point, Rollout, Sample};
pub(super) use zones::ByZone;
use zones::Zones;

/// The query by which a target tells how many requests got no answer from an arm, where
/// it counts them. No rollout file has a query of this name.
const UNANSWERED: &str = "engine:unanswered";
/// The same for the requests out of which these are counted, where they are not those of
/// the samples.
const ASKED: &str = "engine:asked";
/// Requests without an answer from which on, and the part (0-1) of all from which on, and
/// how many times stable's part, nothing is raised until it is known what became of them.
const DOUBT: (f64, f64, f64) = (5.0, 0.2, 4.0);
/// Number of samples, and of requests, of the stable arm that its thresholds need.
const LEARN_SAMPLES: usize = 5;
const LEARN_REQUESTS: f64 = 100.0;
/// Errors, slow and very slow requests: the streams of every target.
const BUILT_IN: usize = 3;
/// Attempts to read the past.
const PAST_TRIES: u32 = 3;
/// Samples of a stable arm without a past that tell how many requests there are, and the
/// samples' time to wait for them, which may come late.
const MEET_SAMPLES: usize = 2;
const MEET_WAITS: u32 = 5;
/// A percentile of one sample that is this many times the usual one does not count
/// for the threshold.
const ODD: f64 = 2.0;
/// Fewest expected requests of an arm in a sample for which none is a fault.
const EXPECTED_MIN: f64 = 20.0;
/// How much (0-1) the candidate's thresholds are above the stable arm's p90 and p99:
/// a smaller difference does not count.
const STRETCH: [f64; 2] = [0.05, 0.10];

/// The stable arm's p90 and p99, ms, once they are known.
type Thresholds = Option<[f64; 2]>;

/// Samples of one interval: stable, candidate.
pub(super) type Arms = [Option<Sample>; 2];

/// Reads the metrics, stream by stream.
#[derive(Debug)]
pub(super) struct Source {
    /// Names of the arms: stable, candidate.
    names: [String; 2],
    customs: Vec<Custom>,
    /// Why the last read of a query brought no value, by its name.
    without: BTreeMap<String, String>,
    /// The values that the last read of a query brought, by its name.
    known: BTreeMap<String, Vec<Point>>,
    /// Whether the target counts requests without an answer.
    counts_unanswered: bool,
    /// Whether it says out of which requests it counts them.
    counts_asked: bool,
    /// Those that were read last.
    unanswered: Points,
    /// Length of one sample, ms.
    pub(super) period: f64,
    thresholds: Thresholds,
    /// Whether the target counts slow requests; otherwise percentiles are used.
    counts_slow: bool,
    /// The stable arm's samples until its thresholds are known.
    learned: Vec<Sample>,
    zones: Zones,
}

/// The result of one read.
pub(super) struct Fresh {
    /// By start (Unix ms).
    pub(super) intervals: BTreeMap<u64, Arms>,
    /// The same by zone, if zones are read.
    pub(super) zones: ByZone,
    /// Whether they could not be read now.
    pub(super) zones_late: bool,
    points: Points,
    /// The candidate and the stable arm over all of it.
    pub(super) level: (Window, Window),
}

impl Source {
    pub(super) fn new(rollout: &Rollout, customs: &[Custom]) -> Self {
        #[allow(clippy::cast_precision_loss)]
        let period = rollout.sample_period().as_millis() as f64;
        Self {
            names: [
                rollout.stable().name.clone(),
                rollout.candidate().name.clone(),
            ],
            customs: customs.to_vec(),
            without: BTreeMap::new(),
            known: BTreeMap::new(),
            counts_unanswered: false,
            counts_asked: false,
            unanswered: Points::default(),
            period,
            thresholds: None,
            counts_slow: true,
            learned: vec![],
            zones: Zones::Unasked,
        }
    }

    /// Checks that the rollout file has the queries of the custom streams, before any
    /// traffic moves, and warns of those that cannot be read now.
    pub(super) fn check_queries(&mut self, rollout: &mut Rollout) -> Result<(), Error> {
        let now = rollout.now();
        for custom in &self.customs {
            for query in custom.queries() {
                match rollout.query(query, now) {
                    Err(e) if e.kind == ErrorKind::NotFound => {
                        return Err(Error(format!("stream {:?}: {}", custom.name, e.message)));
                    }
                    // It may be readable later; until then no step is passed.
                    Err(e) => {
                        let stream = &custom.name;
                        let warning =
                            format!("the stream {stream:?} has no data yet: {}", e.message);
                        rollout.log(Level::Warn, &warning);
                    }
                    Ok(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Names of the arms: stable, candidate.
    pub(super) fn names(&self) -> &[String; 2] {
        &self.names
    }

    /// Finds out whether the target counts requests without an answer.
    pub(super) fn find_unanswered(&mut self, rollout: &mut Rollout) -> bool {
        let now = rollout.now();
        // An error other than this may pass.
        let missing = |e: &HostError| e.kind == ErrorKind::NotFound;
        let mut counts = |query| !rollout.query(query, now).is_err_and(|e| missing(&e));
        self.counts_unanswered = counts(UNANSWERED);
        self.counts_asked = self.counts_unanswered && counts(ASKED);
        self.counts_unanswered
    }

    /// Reads the requests without an answer in samples that start at `since` (Unix ms) or
    /// later.
    pub(super) fn read_unanswered(&mut self, rollout: &mut Rollout, since: f64) {
        if !self.counts_unanswered {
            return;
        }
        let asked = self.counts_asked.then(|| rollout.query(ASKED, since));
        let unanswered = rollout.query(UNANSWERED, since);
        if let (Ok(unanswered), Ok(asked)) = (unanswered, asked.transpose()) {
            let all = [(UNANSWERED, Some(unanswered)), (ASKED, asked)];
            let known = all
                .into_iter()
                .filter_map(|(query, values)| Some((query.to_owned(), values?)));
            self.unanswered.0 = known.collect();
        }
    }

    /// Requests without an answer in the interval that began at `at` (Unix ms), out of
    /// those that were `seen` in it: candidate, stable; `None` where they are not known.
    fn without_answer(&self, seen: &[Seen], at: f64) -> Option<[Counts; 2]> {
        let Some(Seen::Counts { candidate, stable }) = seen.first() else {
            return None;
        };
        let counts = |arm: usize, requests: f64| {
            let bad = self
                .unanswered
                .at(UNANSWERED, &self.names[arm], at, self.period);
            let of = match self.counts_asked {
                true => self.asked(arm, at),
                false => Some(requests),
            };
            // An arm without requests has no value, and needs none.
            if requests <= 0.0 && of.unwrap_or(0.0) <= 0.0 {
                return Some(Counts::default());
            }
            let (bad, of) = (bad?, of?);
            Some(Counts::new(bad.min(of), of))
        };
        Some([counts(1, candidate.of)?, counts(0, stable.of)?])
    }

    /// Requests of an arm in the interval that began at `at` (Unix ms) out of which those
    /// without an answer are counted, where the target says so.
    fn asked(&self, arm: usize, at: f64) -> Option<f64> {
        self.unanswered.at(ASKED, &self.names[arm], at, self.period)
    }

    /// Puts the requests without an answer into an interval that began at `at` (Unix ms).
    /// Returns whether they are known.
    pub(super) fn complete(&self, seen: &mut [Seen], at: f64) -> bool {
        let Some([candidate, stable]) = self.without_answer(seen, at) else {
            return false;
        };
        if let Some(stream) = seen.get_mut(BUILT_IN) {
            *stream = Seen::Counts { candidate, stable };
        }
        true
    }

    /// Why it is in doubt whether the candidate answers, in intervals whose answers may
    /// still come.
    pub(super) fn doubt<'a>(
        &self,
        intervals: impl Iterator<Item = (f64, &'a [Seen])>,
    ) -> Option<String> {
        if !self.counts_unanswered {
            return None;
        }
        let mut sums = [Counts::default(); 2];
        for [candidate, stable] in intervals.filter_map(|(at, seen)| self.without_answer(seen, at))
        {
            for (sum, counts) in sums.iter_mut().zip([candidate, stable]) {
                *sum = sum.and(counts);
            }
        }
        let [candidate, stable] = sums;
        let part = |counts: Counts| counts.bad / counts.of.max(1.0);
        let (least, share, times) = DOUBT;
        let doubtful = candidate.bad >= least
            && part(candidate) >= share
            && part(candidate) >= times * part(stable)
            && stable.of > 0.0;
        doubtful.then(|| {
            format!(
                "{:.0} of {:.0} requests of {} have no answer yet, and {:.0} of {:.0} of {}",
                candidate.bad, candidate.of, self.names[1], stable.bad, stable.of, self.names[0]
            )
        })
    }

    /// The stable arm before the rollout, for `streams` streams, and its requests
    /// per sample.
    pub(super) fn past(
        &mut self,
        rollout: &mut Rollout,
        since: f64,
        streams: usize,
    ) -> (Past, f64) {
        let mut pooled = self.recent(rollout, since);
        pooled.retain(|s| s.arm == self.names[0]);
        self.thresholds = thresholds(&pooled);
        (
            self.counted(rollout, since, streams, &pooled),
            mean_requests(&pooled),
        )
    }

    /// Requests per sample of a stable arm without a past: waits for its first samples, and
    /// not for long, because it may have no traffic at all.
    pub(super) fn meet(&self, rollout: &mut Rollout, since: f64) -> f64 {
        for _ in 0..MEET_WAITS {
            let note = format!(
                "waits for two samples of {}, of which no past is known",
                self.names[0]
            );
            rollout.progress(0, &note);
            rollout.wait(rollout.sample_period());
            let mut samples = rollout.samples(since).unwrap_or_default();
            samples.retain(|s| s.arm == self.names[0]);
            if samples.len() >= MEET_SAMPLES {
                return mean_requests(&samples);
            }
        }
        0.0
    }

    /// Samples of the past. After several failed attempts, the past counts as not
    /// known.
    fn recent(&self, rollout: &mut Rollout, since: f64) -> Vec<Sample> {
        for _ in 0..PAST_TRIES {
            match rollout.samples(since) {
                Ok(samples) => return samples,
                Err(error) => {
                    let note =
                        format!("waits for the past of {}; {}", self.names[0], error.message);
                    rollout.progress(0, &note);
                    rollout.wait(rollout.sample_period());
                }
            }
        }
        vec![]
    }

    /// The calibration in words.
    pub(super) fn describe(&self, samples: usize) -> String {
        match self.thresholds {
            None => "nothing is known of the past: usual noise is assumed, and latency is learned from the first samples".to_owned(),
            Some([p90, p99]) => format!(
                "calibrated from {samples} samples of {}: p90 {p90:.0} ms, p99 {p99:.0} ms",
                self.names[0]
            ),
        }
    }

    /// Samples that start at `since` (Unix ms) or later.
    pub(super) fn read(&mut self, rollout: &mut Rollout, since: f64) -> Result<Fresh, HostError> {
        let query = MetricsQuery {
            since,
            over_ms: self.over_ms(),
            by_zone: false,
        };
        let samples = rollout.query_samples(&query)?;
        if !query.over_ms.is_empty() && !samples.is_empty() {
            self.counts_slow = samples.iter().any(|s| !s.over.is_empty());
        }
        let level = (
            Window::of(&samples, rollout.candidate()),
            Window::of(&samples, rollout.stable()),
        );
        let points = self.points(rollout, since);
        let (zones, zones_late) = self.zones_since(rollout, since);
        let mut intervals: BTreeMap<u64, Arms> = BTreeMap::new();
        for sample in samples {
            if let Some(arm) = self.arm_of(&sample, since) {
                let start = key(sample.start);
                intervals.entry(start).or_default()[arm] = Some(sample);
            }
        }
        Ok(Fresh {
            intervals,
            zones,
            zones_late,
            points,
            level,
        })
    }

    /// Which arm a sample is of, if it starts at `since` (Unix ms) or later.
    fn arm_of(&self, sample: &Sample, since: f64) -> Option<usize> {
        let arm = self.names.iter().position(|name| *name == sample.arm);
        arm.filter(|_| sample.start >= since)
    }

    /// Counts of the past, by zone where the source has them.
    fn counted(
        &mut self,
        rollout: &mut Rollout,
        since: f64,
        streams: usize,
        pooled: &[Sample],
    ) -> Past {
        let Some(_) = self.thresholds else {
            return Past::default();
        };
        // Some sources have zones, but no numbers for them.
        let mut samples = vec![];
        for by_zone in [true, false] {
            if samples.is_empty() {
                let query = MetricsQuery {
                    since,
                    over_ms: self.over_ms(),
                    by_zone,
                };
                samples = rollout.query_samples(&query).unwrap_or_default();
                samples.retain(|s| s.arm == self.names[0]);
            }
        }
        self.counts_slow = samples.iter().any(|s| !s.over.is_empty());
        let mut zones: Vec<Option<String>> = samples.iter().map(|s| s.zone.clone()).collect();
        zones.sort();
        zones.dedup();
        let mut by_start: BTreeMap<u64, Vec<&Sample>> = BTreeMap::new();
        for sample in &samples {
            by_start.entry(key(sample.start)).or_default().push(sample);
        }
        let intervals = by_start.into_iter().map(|(start, of_zones)| {
            let whole = pooled.iter().find(|s| key(s.start) == start);
            let zone = |zone: &Option<String>| {
                let found = of_zones.iter().find(|s| s.zone == *zone);
                let mut counts = found.map_or_else(Vec::new, |s| self.past_counts(s, whole));
                // Custom streams have no past: their priors are used.
                counts.resize(streams, Counts::default());
                counts
            };
            zones.iter().map(zone).collect()
        });
        Past {
            intervals: intervals.collect(),
        }
    }

    fn past_counts(&self, sample: &Sample, whole: Option<&Sample>) -> Vec<Counts> {
        let of = f64::from(sample.requests);
        let errors = Counts::new(f64::from(sample.errors), of);
        let slower = match (&sample.over[..], percentiles_of(sample)) {
            ([slow, _, tail, _], _) => [slow, tail].map(|n| Counts::new(f64::from(*n), of)),
            (_, Some(own)) => {
                let reference = whole.and_then(percentiles_of).unwrap_or(own);
                [reference.p95, reference.p99]
                    .map(|ms| Counts::new(percentiles::share_above(&own, ms) * of, of))
            }
            _ => [Counts::default(); 2],
        };
        vec![errors, slower[0], slower[1]]
    }

    fn over_ms(&self) -> Vec<f64> {
        let Some([p90, p99]) = self.thresholds else {
            return vec![];
        };
        vec![p90, p90 * (1.0 + STRETCH[0]), p99, p99 * (1.0 + STRETCH[1])]
    }

    /// Learns the thresholds from the stable arm while they are not known.
    pub(super) fn learn(&mut self, arms: &Arms) {
        if self.thresholds.is_none()
            && let Some(stable) = &arms[0]
        {
            self.learned.push(stable.clone());
            self.thresholds = thresholds(&self.learned);
        }
    }

    /// Why the interval that began at `at` (Unix ms) cannot be used: an arm without requests
    /// that should have had some.
    pub(super) fn is_broken(&self, arms: &Arms, share: f64, at: f64) -> Option<String> {
        let requests = |arm: usize| requests(arms, arm).max(self.asked(arm, at).unwrap_or(0.0));
        let total = requests(0) + requests(1);
        let expected = [total * (1.0 - share), total * share];
        (0..2)
            .find(|arm| requests(*arm) == 0.0 && expected[*arm] >= EXPECTED_MIN)
            .map(|arm| {
                format!(
                    "{} got no request although about {:.0} were due; check the routing",
                    self.names[arm], expected[arm]
                )
            })
    }

    /// What the custom streams have seen, of all streams.
    pub(super) fn customs<'a>(&self, seen: &'a [Seen]) -> &'a [Seen] {
        &seen[seen.len().saturating_sub(self.customs.len())..]
    }

    /// Why the custom stream at that index has no data.
    pub(super) fn describe_unmeasured(&self, at: usize) -> String {
        let Some(custom) = self.customs.get(at) else {
            return String::new();
        };
        let mut failed = custom.queries().filter_map(|query| self.without.get(query));
        let why = failed.next().map_or_else(
            || {
                let queries: Vec<_> = custom.queries().map(|query| format!("{query:?}")).collect();
                format!(
                    "its queries ({}) gave no value of both arms for any sample of this step; each must give a value for every sample, 0 where nothing was counted",
                    queries.join(", ")
                )
            },
            Clone::clone,
        );
        format!("the stream {:?} has no data: {why}", custom.name)
    }

    /// The counts of the streams of every target: errors and latency.
    fn built_in(&self, arms: &Arms) -> Vec<Seen> {
        let of = [0, 1].map(|arm| requests(arms, arm));
        let errors = |arm: usize| arms[arm].as_ref().map_or(0.0, |s| f64::from(s.errors));
        let mut seen = vec![counts([errors(0), errors(1)], of)];
        seen.extend(self.slow(arms, of));
        seen
    }

    /// The interval that began at `start` (Unix ms), with this share (0-1) of the candidate.
    pub(super) fn interval(&self, share: f64, start: u64, arms: &Arms, fresh: &Fresh) -> Interval {
        #[allow(clippy::cast_precision_loss)]
        let at = start as f64;
        Interval {
            share,
            seen: self.seen(arms, at, fresh),
            zones: self.seen_by_zone(start, &fresh.zones),
        }
    }

    /// The counts of the streams in the interval that began at `at` (Unix ms).
    fn seen(&self, arms: &Arms, at: f64, fresh: &Fresh) -> Vec<Seen> {
        let mut seen = self.built_in(arms);
        if self.counts_unanswered {
            // Answers may still come; they are put in once they are complete.
            seen.push(counts([0.0; 2], [0.0; 2]));
        }
        for custom in &self.customs {
            let value = |query: &Option<String>, arm: usize| {
                let query = query.as_ref()?;
                fresh.points.at(query, &self.names[arm], at, self.period)
            };
            let of = |arm: usize| match &custom.of {
                Some(_) => value(&custom.of, arm).unwrap_or(0.0),
                None => requests(arms, arm),
            };
            seen.push(match custom.mean {
                None => {
                    let bad = [value(&custom.bad, 0), value(&custom.bad, 1)];
                    // A counter that has not counted anything often does not exist. If one arm
                    // has a value, a missing one is zero; if neither has, there is no data.
                    if bad.iter().any(Option::is_some) {
                        counts(bad.map(Option::unwrap_or_default), [of(0), of(1)])
                    } else {
                        counts([0.0; 2], [0.0; 2])
                    }
                }
                Some(_) => {
                    let moments = |arm| {
                        let mean = value(&custom.mean, arm)?;
                        let variance = value(&custom.variance, arm)?;
                        Some(Moments {
                            mean,
                            variance,
                            of: of(arm),
                        })
                    };
                    Seen::Moments {
                        stable: moments(0).unwrap_or_default(),
                        candidate: moments(1).unwrap_or_default(),
                    }
                }
            });
        }
        seen
    }

    /// The latency streams: from counts if the target counts, else from percentiles.
    fn slow(&self, arms: &Arms, of: [f64; 2]) -> [Seen; 2] {
        let none = Seen::Counts {
            stable: Counts::default(),
            candidate: Counts::default(),
        };
        if self.counts_slow {
            // An arm without the counts has no answer, which is not zero.
            let whole = |arm: &Option<Sample>| arm.as_ref().is_none_or(|s| s.over.len() == 4);
            if self.thresholds.is_none() || !arms.iter().all(whole) {
                return [none; 2];
            }
            let over = |arm: usize, at: usize| {
                let sample = arms[arm].as_ref();
                sample
                    .and_then(|s| s.over.get(at))
                    .map_or(0.0, |n| f64::from(*n))
            };
            return [0, 2].map(|at| Seen::Counts {
                stable: Counts::new(over(0, at), of[0]),
                candidate: Counts::new(over(1, at + 1), of[1]),
            });
        }
        let percentiles = |arm: usize| arms[arm].as_ref().and_then(percentiles_of);
        match (percentiles(1), percentiles(0)) {
            (Some(candidate), Some(stable)) => {
                percentiles::slower((&candidate, of[1]), (&stable, of[0]), STRETCH)
                    .map(|(candidate, stable)| Seen::Counts { stable, candidate })
            }
            _ => [none; 2],
        }
    }

    /// Values of the custom streams.
    fn points(&mut self, rollout: &mut Rollout, since: f64) -> Points {
        let mut points = Points::default();
        for query in self.customs.iter().flat_map(Custom::queries) {
            if points.0.contains_key(query) {
                continue;
            }
            let values = match rollout.query(query, since) {
                Ok(values) => {
                    self.without.remove(query);
                    self.known.insert(query.clone(), values.clone());
                    values
                }
                Err(error) => {
                    self.without.insert(query.clone(), error.message);
                    // What was seen before has not become unknown.
                    self.known.get(query).cloned().unwrap_or_default()
                }
            };
            points.0.insert(query.clone(), values);
        }
        points
    }
}

/// Values by query.
#[derive(Debug, Default)]
struct Points(BTreeMap<String, Vec<Point>>);

impl Points {
    /// The value for one arm in one interval: a query gives one value per sample.
    fn at(&self, query: &str, arm: &str, start: f64, period: f64) -> Option<f64> {
        let values = self.0.get(query)?.iter();
        let within = |p: &&Point| p.arm == arm && p.at >= start && p.at < start + period;
        values.rev().find(within).map(|p| p.value)
    }
}

/// Requests of an arm (stable, candidate) in an interval.
fn requests(arms: &Arms, arm: usize) -> f64 {
    arms[arm].as_ref().map_or(0.0, |s| f64::from(s.requests))
}

/// What a stream saw: bad events and out of how many, stable first.
fn counts(bad: [f64; 2], of: [f64; 2]) -> Seen {
    Seen::Counts {
        stable: Counts::new(bad[0], of[0]),
        candidate: Counts::new(bad[1], of[1]),
    }
}

fn percentiles_of(sample: &Sample) -> Option<Percentiles> {
    sample.latency.as_ref().map(|l| Percentiles {
        p50: l.p50,
        p95: l.p95,
        p99: l.p99,
    })
}

/// The stable arm's usual p90 and p99 over these samples, weighted by requests;
/// `None` while there are too few.
fn thresholds(samples: &[Sample]) -> Thresholds {
    let known = || {
        let with = samples
            .iter()
            .filter_map(|s| s.latency.as_ref().map(|l| (s, l)));
        with.map(|(s, l)| (f64::from(s.requests), l))
    };
    let requests: f64 = known().map(|(n, _)| n).sum();
    if known().count() < LEARN_SAMPLES || requests < LEARN_REQUESTS {
        return None;
    }
    let typical = |of: fn(&crate::Latency) -> f64| {
        let mut values: Vec<(f64, f64)> = known().map(|(n, l)| (of(l), n)).collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let median = values[values.len() / 2].0;
        // A few bad minutes of the past must not raise the thresholds.
        values.retain(|(value, _)| *value <= ODD * median);
        let weight: f64 = values.iter().map(|(_, n)| n).sum();
        values.iter().map(|(value, n)| value * n).sum::<f64>() / weight
    };
    Some([typical(|l| l.p90), typical(|l| l.p99)])
}

/// Requests per sample, over the newest ones.
#[allow(clippy::cast_precision_loss)]
fn mean_requests(samples: &[Sample]) -> f64 {
    let newest = &samples[samples.len().saturating_sub(10)..];
    let sum: f64 = newest.iter().map(|s| f64::from(s.requests)).sum();
    sum / newest.len().max(1) as f64
}

/// Unix ms as a key.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn key(at: f64) -> u64 {
    at as u64
}

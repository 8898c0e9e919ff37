//! The seeded world of a scenario: what a service with a stable and a candidate
//! arm would have measured.
//!
//! An interval is a pure function of the seed, the replicate, the interval, and
//! the candidate's share and age. Two strategies that are tried on the same
//! scenario therefore get the same traffic, noise and random numbers, whatever
//! weights they choose and in whatever order they ask.
//!
//! Not simulated: retries, autoscaling, and requests in flight when weights change.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, TAU};
use std::ops::Range;

use super::random::{self, Draws, Owner};
use super::scenario::{
    ArmNoise, Canary, Clock, Effect, Event, Noise, Scenario, Stable, TaskNoise, Traffic,
};

const BINS: usize = 96;
/// The logarithm of the lowest latency of a histogram, 2 ms.
const LOWEST: f64 = LN_2;
/// The logarithm of the ratio of 60,000 ms to 2 ms, divided by the number of bins.
const BIN_WIDTH: f64 = 10.308_952_660_644_293 / BINS as f64;

/// Below so many standard deviations no requests are expected (one in 10^12).
const NONE_BELOW: f64 = -7.0;
/// An expected number of requests that counts as 0.
const NEGLIGIBLE: f64 = 1e-9;
/// The 95th percentile of the standard normal distribution.
const P95: f64 = 1.644_853_626_951_472_2;
/// Replaces a factor of 0, which has no logarithm.
const FACTOR_MIN: f64 = 1e-9;

/// The purpose of a random number. A new purpose gets a new number, so that the
/// others do not change.
mod quantity {
    pub(super) const TOTAL: u32 = 0;
    pub(super) const SPLIT: u32 = 1;
    pub(super) const ERROR_NOISE: u32 = 2;
    pub(super) const LATENCY_NOISE: u32 = 3;
    pub(super) const TASK_ERROR: u32 = 4;
    pub(super) const TASK_LATENCY: u32 = 5;
    pub(super) const STALLED: u32 = 6;
    pub(super) const CLUSTERS: u32 = 7;
    pub(super) const CLUSTERED: u32 = 8;
    pub(super) const MORE_ERRORS: u32 = 9;
    pub(super) const GAP: u32 = 10;
    /// The first of one number for each bin.
    pub(super) const BIN: u32 = 100;
    /// The first of one number for each custom query.
    pub(super) const OF_QUERIES: u32 = 10_000;
}

/// Latencies of one arm in one interval: counts in logarithmic bins from 2 ms to
/// 60 s. The first and the last bin also have what is beyond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram([u32; BINS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BINS])
    }
}

impl Histogram {
    /// The number of requests.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    /// The number of requests in each bin.
    pub(super) fn bins(&self) -> &[u32; BINS] {
        &self.0
    }

    /// Adds the requests of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// The latency, ms, that a share `q` of the requests does not exceed, with
    /// logarithmic interpolation in its bin; `None` without requests.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let target = q * f64::from(total);
        let mut below = 0.0;
        for (bin, &count) in self.0.iter().enumerate() {
            let count = f64::from(count);
            if count > 0.0 && below + count >= target {
                let part = (target - below).max(0.0) / count;
                return Some(libm::exp(edge(bin) + part * BIN_WIDTH));
            }
            below += count;
        }
        Some(libm::exp(edge(BINS)))
    }

    /// The number of requests that took longer than `threshold_ms`, with logarithmic
    /// interpolation in its bin.
    #[must_use]
    pub fn exceed(&self, threshold_ms: f64) -> u32 {
        let place = (libm::log(threshold_ms) - LOWEST) / BIN_WIDTH;
        let place = place.max(0.0).min(BINS as f64 - NEGLIGIBLE);
        let bin = place as usize;
        let above: u32 = self.0[bin + 1..].iter().sum();
        let part = 1.0 - (place - bin as f64);
        above + libm::rint(part * f64::from(self.0[bin])) as u32
    }
}

/// The logarithm of the lower edge of a bin.
fn edge(bin: usize) -> f64 {
    LOWEST + bin as f64 * BIN_WIDTH
}

/// What one arm, or one zone of it, measured in one interval.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arm {
    /// Number of requests.
    pub requests: u32,
    /// Number of requests that failed.
    pub errors: u32,
    /// Their latencies.
    pub histogram: Histogram,
}

/// What both arms measured in one interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    /// The stable arm.
    pub stable: Arm,
    /// The candidate arm.
    pub candidate: Arm,
    /// Whether the metrics of this interval never arrive.
    pub missing: bool,
    /// How many requests of the candidate failed, or were slower than the stable
    /// version's nominal p95, because of its effect: the expected number for the
    /// requests that it served.
    pub bad_requests: f64,
}

/// One replicate of a scenario.
#[derive(Debug, Clone)]
pub struct World {
    luck: Luck,
    clock: Clock,
    traffic: Traffic,
    base: Stable,
    canary: Canary,
    noise: Noise,
    events: Vec<Event>,
    /// Noise from the first interval of the history to the horizon.
    shared: Wander,
    /// Noise from the start to the horizon.
    stable: Wander,
    candidate: Wander,
    /// Noise in the history, by zone.
    zones: Vec<Wander>,
    /// Factors of all tasks of the stable arm.
    stable_tasks: Factors,
    zone_tasks: Vec<Factors>,
    /// Factors of the first task of the candidate, of the first two, and so on.
    candidate_tasks: Vec<Factors>,
}

/// The seed of all random numbers of a world.
#[derive(Debug, Clone, Copy)]
struct Luck {
    seed: u64,
    replicate: u32,
}

impl Luck {
    fn draws(self, index: i64, owner: Owner) -> Draws {
        Draws::new(self.seed, self.replicate, index, owner)
    }

    fn wander(self, owner: Owner, noise: ArmNoise, range: Range<i64>) -> Wander {
        let series = |quantity, sd, correlation| {
            let normals = range.clone().map(|t| self.draws(t, owner).normal(quantity));
            Series::new(sd, correlation, normals)
        };
        Wander {
            error: series(quantity::ERROR_NOISE, noise.error_sd, noise.error_ar),
            latency: series(quantity::LATENCY_NOISE, noise.latency_sd, noise.latency_ar),
        }
    }

    fn tasks(self, owner: Owner, noise: TaskNoise, count: u32) -> Vec<Factors> {
        let factors = |task| {
            let draws = self.draws(i64::from(task), owner);
            let error = noise.error_sd * draws.normal(quantity::TASK_ERROR);
            let latency = noise.latency_sd * draws.normal(quantity::TASK_LATENCY);
            Factors {
                // The factor has the mean 1 over the tasks.
                error: libm::exp(error - noise.error_sd * noise.error_sd / 2.0),
                latency: libm::exp(latency),
            }
        };
        (0..count).map(factors).collect()
    }
}

/// Logarithms of noise factors, by interval.
#[derive(Debug, Clone)]
struct Wander {
    error: Series,
    latency: Series,
}

impl Wander {
    fn at(&self, index: usize) -> (f64, f64) {
        (self.error.at(index), self.latency.at(index))
    }
}

/// Stationary AR(1) noise; empty if there is none.
#[derive(Debug, Clone)]
struct Series(Vec<f64>);

impl Series {
    fn new(sd: f64, correlation: f64, normals: impl Iterator<Item = f64>) -> Self {
        if sd <= 0.0 {
            return Self(vec![]);
        }
        let fresh = (1.0 - correlation * correlation).sqrt();
        let mut last = None;
        let values = normals.map(|normal| {
            let value = last.map_or(normal, |last| correlation * last + fresh * normal);
            last = Some(value);
            sd * value
        });
        Self(values.collect())
    }

    fn at(&self, index: usize) -> f64 {
        self.0.get(index).copied().unwrap_or(0.0)
    }
}

/// Mean factors of some tasks.
#[derive(Debug, Clone, Copy)]
struct Factors {
    error: f64,
    latency: f64,
}

impl Factors {
    /// The means over every `step`th task from the `first`.
    fn mean(tasks: &[Self], first: usize, step: usize) -> Self {
        let (mut error, mut latency, mut count) = (0.0, 0.0, 0.0);
        for task in tasks.iter().skip(first).step_by(step) {
            error += task.error;
            latency += task.latency;
            count += 1.0;
        }
        Self {
            error: error / count,
            latency: latency / count,
        }
    }
}

/// What determines the numbers of one arm in one interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions {
    /// Share of the requests that fail in normal operation.
    pub(super) error_rate: f64,
    /// Share of the rest that fails for another reason.
    pub(super) more_errors: f64,
    /// The logarithm of the median latency.
    log_median: f64,
    /// Share of the requests in the slow tail.
    tail: f64,
    /// The logarithm of the factor by which these are slower.
    log_tail_mult: f64,
}

impl Conditions {
    /// The share of requests that take longer, with that standard deviation of their
    /// logarithms.
    fn slower_than(&self, log_latency: f64, sigma: f64) -> f64 {
        let z = (log_latency - self.log_median) / sigma;
        if self.tail > 0.0 {
            let slow = above(z - self.log_tail_mult / sigma);
            (1.0 - self.tail) * above(z) + self.tail * slow
        } else {
            above(z)
        }
    }

    /// The share of requests in each bin of a histogram.
    pub(super) fn bins(&self, sigma: f64) -> [f64; BINS] {
        let mut slower = 1.0;
        std::array::from_fn(|bin| {
            let slower_still = match bin + 1 {
                BINS => 0.0,
                next => self.slower_than(edge(next), sigma),
            };
            let part = (slower - slower_still).max(0.0);
            slower = slower_still;
            part
        })
    }

    /// Whether latencies are as under other conditions.
    pub(super) fn as_fast_as(&self, other: &Self) -> bool {
        let of = |c: &Self| (c.log_median, c.tail, c.log_tail_mult);
        of(self) == of(other)
    }
}

/// How strong the candidate's effect is in one interval, 0-1.
#[derive(Debug, Clone, Copy)]
struct Strength(f64);

impl World {
    /// The world of a replicate (from 0) with the scenario's own seed.
    #[must_use]
    pub fn new(scenario: &Scenario, replicate: u32) -> Self {
        Self::with_seed(scenario, scenario.seed, replicate)
    }

    /// The world of a replicate with another seed.
    #[must_use]
    pub fn with_seed(scenario: &Scenario, seed: u64, replicate: u32) -> Self {
        let Scenario {
            clock,
            stable,
            noise,
            ..
        } = *scenario;
        let history = i64::from(intervals(clock.history, clock.interval));
        let horizon = i64::from(intervals(clock.horizon, clock.interval));
        let luck = Luck { seed, replicate };
        let common = ArmNoise {
            error_sd: noise.common.error_sd,
            error_ar: noise.common.ar,
            latency_sd: noise.common.latency_sd,
            latency_ar: noise.common.ar,
        };
        let zone_wander = |zone| luck.wander(Owner::Zone(zone), noise.arm, -history..0);
        let tasks = luck.tasks(Owner::Stable, noise.task, stable.tasks);
        Self {
            luck,
            clock,
            traffic: scenario.traffic,
            base: stable,
            canary: scenario.canary,
            noise,
            events: scenario.events.clone(),
            shared: luck.wander(Owner::Shared, common, -history..horizon),
            stable: luck.wander(Owner::Stable, noise.arm, 0..horizon),
            candidate: luck.wander(Owner::Candidate, noise.arm, 0..horizon),
            zones: (0..stable.zones).map(zone_wander).collect(),
            stable_tasks: Factors::mean(&tasks, 0, 1),
            zone_tasks: (0..stable.zones as usize)
                .map(|zone| match stable.zones as usize {
                    zones if zones > tasks.len() => Factors::mean(&tasks, 0, 1),
                    zones => Factors::mean(&tasks, zone, zones),
                })
                .collect(),
            candidate_tasks: running_means(luck.tasks(Owner::Candidate, noise.task, stable.tasks)),
        }
    }

    /// The length of an interval, ms.
    #[must_use]
    pub fn interval_ms(&self) -> u64 {
        self.clock.interval
    }

    /// A value of a query for an arm in interval `t`, negative before the start.
    /// `number` tells the queries apart.
    #[must_use]
    pub fn value(&self, t: i64, arm: Owner, number: u32, mean: f64, sigma: f64) -> f64 {
        let draws = self.luck.draws(t, arm);
        mean + sigma * draws.normal(quantity::OF_QUERIES + number)
    }

    /// Number of intervals until the simulation ends, the last one perhaps partial.
    #[must_use]
    pub fn horizon(&self) -> u32 {
        intervals(self.clock.horizon, self.clock.interval)
    }

    /// Number of intervals before the start that are known.
    #[must_use]
    pub fn history(&self) -> u32 {
        intervals(self.clock.history, self.clock.interval)
    }

    /// The stable arm before the rollout, by zone. `back` counts from 1, the interval
    /// just before the start, to [`history`](Self::history); empty beyond that.
    #[must_use]
    pub fn past(&self, back: u32) -> Vec<Arm> {
        let (Some(index), true) = (self.history().checked_sub(back), back > 0) else {
            return vec![];
        };
        let (index, t) = (index as usize, -i64::from(back));
        let mut rest = self.total(t);
        let zone_count = self.base.zones;
        (0..zone_count)
            .zip(self.zones.iter().zip(&self.zone_tasks))
            .map(|(zone, (wander, factors))| {
                let draws = self.luck.draws(t, Owner::Zone(zone));
                let part = 1.0 / f64::from(zone_count - zone);
                let requests = random::binomial(draws.uniform(quantity::SPLIT), rest, part);
                rest -= requests;
                let tasks = (self.base.tasks / zone_count).max(1);
                let usual = self.usual(draws, index, wander.at(index), *factors, tasks);
                self.sample(draws, requests, usual)
            })
            .collect()
    }

    /// One interval of the rollout, `t` from 0 to below
    /// [`horizon`](Self::horizon) (beyond, there is no noise). `share` is the
    /// candidate's, 0-1; `age` counts the intervals since it last rose, 0 in
    /// the first one with the new share.
    #[must_use]
    pub fn interval(&self, t: u32, share: f64, age: u32) -> Interval {
        let total = self.total(i64::from(t));
        let requests = self.candidate_requests(t, total, share);
        let (stable, candidate, missing) = self.conditions(t, share, age, true);
        let draws = |owner| self.luck.draws(i64::from(t), owner);
        Interval {
            stable: self.sample(draws(Owner::Stable), total - requests, stable),
            candidate: self.sample(draws(Owner::Candidate), requests, candidate),
            missing,
            bad_requests: f64::from(requests) * self.bad_part(t, share),
        }
    }

    /// The conditions of stable and of the candidate in interval `t`, with or without what
    /// is wrong with it, and whether the metrics of the interval never arrive.
    pub(super) fn conditions(
        &self,
        t: u32,
        share: f64,
        age: u32,
        faulty: bool,
    ) -> (Conditions, Conditions, bool) {
        let tasks = self.candidate_task_count(share);
        let index = self.history() as usize + t as usize;
        let draws = self.luck.draws(i64::from(t), Owner::Stable);
        let own = self.stable.at(t as usize);
        let mut stable = self.usual(draws, index, own, self.stable_tasks, self.base.tasks);
        let draws = self.luck.draws(i64::from(t), Owner::Candidate);
        let own = self.candidate.at(t as usize);
        let factors = self.candidate_tasks[tasks as usize - 1];
        let mut candidate = self.usual(draws, index, own, factors, tasks);
        if faulty {
            let strength = self.strength(t, share);
            strength.apply(&self.canary.effect, &mut candidate);
        }
        self.warm_up(age, &mut candidate);
        let missing = self.happen(t, &mut stable, &mut candidate);
        (stable, candidate, missing)
    }

    /// The noise that no interval changes: the mean size of a cluster of errors, and the
    /// standard deviation of the logarithm of a latency.
    pub(super) fn fixed_noise(&self) -> (f64, f64) {
        (self.noise.error_cluster_mean, self.base.latency.sigma)
    }

    /// Mean requests in an interval before the start, or in the first so many without a past.
    pub(super) fn usual_requests(&self, without_past: u32) -> f64 {
        let range = match i64::from(self.history()) {
            0 => 0..i64::from(without_past),
            history => -history..0,
        };
        let count = (range.end - range.start) as f64;
        range.map(|t| f64::from(self.total(t))).sum::<f64>() / count
    }

    /// The bad requests of [`interval`](Self::interval) alone, at a fraction of the
    /// cost.
    #[must_use]
    pub fn bad_requests(&self, t: u32, share: f64) -> f64 {
        let total = self.total(i64::from(t));
        let requests = self.candidate_requests(t, total, share);
        f64::from(requests) * self.bad_part(t, share)
    }

    /// Share of the candidate's requests that are bad because of its effect.
    fn bad_part(&self, t: u32, share: f64) -> f64 {
        let factors = self.candidate_tasks[self.candidate_task_count(share) as usize - 1];
        let index = self.history() as usize + t as usize;
        let rate = self.error_rate(index, self.candidate.error.at(t as usize), factors);
        let strength = self.strength(t, share);
        strength.bad(&self.canary.effect, &self.base, rate)
    }

    fn moment(&self, t: u32) -> u64 {
        u64::from(t).saturating_mul(self.clock.interval)
    }

    /// Number of requests to both arms.
    fn total(&self, t: i64) -> u32 {
        let mut rps = self.traffic.rps;
        if let Some(diurnal) = self.traffic.diurnal {
            let periods = t as f64 * self.clock.interval as f64 / diurnal.period as f64;
            rps *= 1.0 + diurnal.amplitude * libm::sin(TAU * (periods + diurnal.phase));
        }
        let mean = rps * (self.clock.interval as f64 / 1_000.0);
        let luck = self.luck.draws(t, Owner::Shared).uniform(quantity::TOTAL);
        random::poisson(luck, mean)
    }

    fn candidate_requests(&self, t: u32, total: u32, share: f64) -> u32 {
        let luck = self.luck.draws(i64::from(t), Owner::Shared);
        random::binomial(luck.uniform(quantity::SPLIT), total, share.clamp(0.0, 1.0))
    }

    /// Number of the candidate's tasks: its share of all, rounded up.
    fn candidate_task_count(&self, share: f64) -> u32 {
        let tasks = self.base.tasks;
        let fewest = self.canary.min_tasks.clamp(1, tasks);
        ((share * f64::from(tasks) - NEGLIGIBLE).ceil() as u32).clamp(fewest, tasks)
    }

    /// The share of requests that fail in normal operation.
    fn error_rate(&self, index: usize, own: f64, tasks: Factors) -> f64 {
        self.base.error_rate * libm::exp(self.shared.error.at(index) + own) * tasks.error
    }

    /// The conditions of an arm with the stable version, without events.
    fn usual(
        &self,
        draws: Draws,
        index: usize,
        (own_error, own_latency): (f64, f64),
        factors: Factors,
        tasks: u32,
    ) -> Conditions {
        let (mut tail, mut log_tail_mult) = (0.0, 0.0);
        if let Some(stall) = self.noise.stall {
            let luck = draws.uniform(quantity::STALLED);
            let stalled = random::binomial(luck, tasks, stall.probability);
            tail = stall.fraction * f64::from(stalled) / f64::from(tasks);
            log_tail_mult = log_factor(stall.mult);
        }
        Conditions {
            error_rate: self.error_rate(index, own_error, factors),
            more_errors: 0.0,
            log_median: libm::log(self.base.latency.median_ms * factors.latency)
                + self.shared.latency.at(index)
                + own_latency,
            tail,
            log_tail_mult,
        }
    }

    fn strength(&self, t: u32, share: f64) -> Strength {
        let effect = self.canary.effect;
        let moment = self.moment(t);
        let mut strength = match moment.checked_sub(effect.onset) {
            None => 0.0,
            Some(_) if effect.ramp == 0 => 1.0,
            Some(since) => (since as f64 / effect.ramp as f64).min(1.0),
        };
        if let Some(load) = effect.load {
            strength *= ((share - load.from) / (load.to - load.from)).clamp(0.0, 1.0);
        }
        Strength(strength)
    }

    fn warm_up(&self, age: u32, candidate: &mut Conditions) {
        if let Some(warmup) = self.canary.warmup
            && self.moment(age) < warmup.duration
        {
            candidate.log_median += log_factor(warmup.latency_mult);
            candidate.more_errors += warmup.error_add;
        }
    }

    /// Applies the events of an interval; returns whether its metrics are missing.
    fn happen(&self, t: u32, stable: &mut Conditions, candidate: &mut Conditions) -> bool {
        let (mut missing, mut present) = (false, 1.0);
        let moment = self.moment(t);
        for event in self.events.iter().filter(|event| event.holds(moment)) {
            match *event {
                Event::SharedOutage {
                    error_add,
                    latency_mult,
                    ..
                } => {
                    for arm in [&mut *stable, &mut *candidate] {
                        arm.more_errors += error_add;
                        arm.log_median += log_factor(latency_mult);
                    }
                }
                Event::CanaryBlip { error_add, .. } => candidate.more_errors += error_add,
                Event::MetricGap { .. } => missing = true,
                Event::RandomGap { probability, .. } => present *= 1.0 - probability,
            }
        }
        let luck = self.luck.draws(i64::from(t), Owner::Shared);
        missing || luck.uniform(quantity::GAP) > present
    }

    fn sample(&self, draws: Draws, requests: u32, conditions: Conditions) -> Arm {
        if requests == 0 {
            return Arm::default();
        }
        let usual = self.usual_errors(draws, requests, conditions.error_rate);
        let more = random::binomial(
            draws.uniform(quantity::MORE_ERRORS),
            requests - usual,
            conditions.more_errors.clamp(0.0, 1.0),
        );
        Arm {
            requests,
            errors: usual + more,
            histogram: histogram(draws, requests, &conditions, self.base.latency.sigma),
        }
    }

    /// Errors in geometric clusters: a compound Poisson number with the Fano factor
    /// 2m - 1 for a mean cluster of m, limited to the number of requests.
    fn usual_errors(&self, draws: Draws, requests: u32, rate: f64) -> u32 {
        let size = self.noise.error_cluster_mean;
        let expected = f64::from(requests) * rate.clamp(0.0, 1.0);
        let clusters = random::poisson(draws.uniform(quantity::CLUSTERS), expected / size);
        let further = random::geometric_sum(draws.uniform(quantity::CLUSTERED), clusters, size);
        clusters.saturating_add(further).min(requests)
    }
}

impl Strength {
    fn apply(self, effect: &Effect, candidate: &mut Conditions) {
        let Self(strength) = self;
        let times = 1.0 + (effect.error_mult - 1.0) * strength;
        candidate.more_errors += strength * effect.error_add;
        // More errors come one by one; fewer errors mean fewer of the usual ones.
        candidate.more_errors += candidate.error_rate * (times - 1.0).max(0.0);
        candidate.error_rate *= times.min(1.0);
        candidate.log_median += strength * log_factor(effect.latency_mult);
        if effect.tail_fraction > 0.0 {
            // In place of the tail of stalled tasks.
            candidate.tail = strength * effect.tail_fraction;
            candidate.log_tail_mult = log_factor(effect.tail_mult);
        }
    }

    /// Share of the candidate's requests that are bad because of the effect: those
    /// that fail and those that are slower than the nominal p95, beyond the usual.
    fn bad(self, effect: &Effect, base: &Stable, error_rate: f64) -> f64 {
        let Self(strength) = self;
        if strength <= 0.0 {
            return 0.0;
        }
        let failing = strength * (effect.error_add + error_rate * (effect.error_mult - 1.0));
        let sigma = base.latency.sigma;
        let z = P95 - strength * log_factor(effect.latency_mult) / sigma;
        let tail = strength * effect.tail_fraction;
        let slow_tail = if tail > 0.0 {
            above(z - log_factor(effect.tail_mult) / sigma)
        } else {
            0.0
        };
        let slow = (1.0 - tail) * above(z) + tail * slow_tail;
        (failing.max(0.0) + (slow - above(P95)).max(0.0)).min(1.0)
    }
}

/// Spreads requests over the bins: a multinomial sample, made of one binomial for
/// each bin, of what the bins before left.
fn histogram(draws: Draws, requests: u32, conditions: &Conditions, sigma: f64) -> Histogram {
    let mut histogram = Histogram::default();
    let (mut rest, mut slower) = (requests, 1.0);
    for (bin, quantity) in (0..BINS).zip(quantity::BIN..) {
        if rest == 0 {
            break;
        }
        if bin + 1 == BINS {
            histogram.0[bin] = rest;
            break;
        }
        let slower_still = conditions.slower_than(edge(bin + 1), sigma);
        let part = if slower > 0.0 {
            ((slower - slower_still) / slower).clamp(0.0, 1.0)
        } else {
            1.0
        };
        if part * f64::from(rest) > NEGLIGIBLE {
            let count = random::binomial(draws.uniform(quantity), rest, part);
            histogram.0[bin] = count;
            rest -= count;
        }
        slower = slower_still;
    }
    histogram
}

/// The probability that a standard normal number is above `z`.
fn above(z: f64) -> f64 {
    if z < NONE_BELOW {
        1.0
    } else {
        0.5 * libm::erfc(z * FRAC_1_SQRT_2)
    }
}

fn log_factor(factor: f64) -> f64 {
    libm::log(factor.max(FACTOR_MIN))
}

fn running_means(tasks: Vec<Factors>) -> Vec<Factors> {
    let (mut error, mut latency) = (0.0, 0.0);
    let mean = |(count, task): (u32, Factors)| {
        error += task.error;
        latency += task.latency;
        Factors {
            error: error / f64::from(count),
            latency: latency / f64::from(count),
        }
    };
    (1..).zip(tasks).map(mean).collect()
}

/// Number of intervals that begin within a duration.
fn intervals(duration: u64, interval: u64) -> u32 {
    u32::try_from(duration.div_ceil(interval)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Corpus;
    use super::*;
    use serde_json::{Value, json};

    /// 20 rps with noise and trouble of every kind, changed by `more`.
    fn scenario(more: &Value) -> Scenario {
        let mut scenario = json!({
            "name": "a", "class": "bad", "seed": 7, "traffic": {"rps": 20},
            "stable": {"errorRate": 0.02},
            "canary": {"effect": {"errorAdd": 0.05, "tailFraction": 0.05, "tailMult": 5}},
            "noise": {
                "errorClusterMean": 3,
                "arm": {"errorSd": 0.2, "latencySd": 0.05},
                "task": {"errorSd": 0.3, "latencySd": 0.05},
                "stall": {"probability": 0.01}
            },
        });
        for (key, value) in more.as_object().expect("an object") {
            scenario[key] = value.clone();
        }
        let file = json!({"apiVersion": "simulate/v1", "scenarios": [scenario]});
        Corpus::parse(&file.to_string())
            .expect("valid")
            .scenarios
            .remove(0)
    }

    fn world(more: &Value) -> World {
        World::new(&scenario(more), 0)
    }

    #[test]
    fn the_same_seed_is_the_same_world_in_any_order() {
        let (one, other) = (world(&json!({})), world(&json!({})));
        let forward: Vec<Interval> = (0..20).map(|t| one.interval(t, 0.25, t)).collect();
        for t in (0..20).rev() {
            assert_eq!(other.interval(t, 0.25, t), forward[t as usize]);
        }
        assert_eq!(one.past(3), other.past(3));
        let scenario = scenario(&json!({}));
        for world in [World::new(&scenario, 1), World::with_seed(&scenario, 8, 0)] {
            assert_ne!(world.interval(0, 0.25, 0), forward[0]);
        }
    }

    #[test]
    fn the_numbers_stay_what_they_are() {
        let interval = world(&json!({})).interval(5, 0.25, 5);
        let numbers = [interval.stable, interval.candidate].map(|arm| {
            let p99 = arm.histogram.quantile(0.99).expect("requests");
            (arm.requests, arm.errors, p99.to_bits())
        });
        assert_eq!(
            numbers,
            [
                (918, 11, 4_641_685_310_504_125_363),
                (281, 18, 4_645_203_814_239_876_696)
            ]
        );
        assert_eq!(interval.bad_requests.to_bits(), 4_627_812_742_304_947_551);
    }

    #[test]
    fn another_share_meets_the_same_luck() {
        let world = world(&json!({}));
        for t in 0..20 {
            let total = world.total(i64::from(t));
            let mut last = 0;
            for share in [0.0, 0.05, 0.5, 1.0] {
                let interval = world.interval(t, share, t);
                assert_eq!(
                    interval.stable.requests + interval.candidate.requests,
                    total
                );
                assert!(interval.candidate.requests >= last);
                last = interval.candidate.requests;
                for arm in [&interval.stable, &interval.candidate] {
                    assert_eq!(arm.histogram.total(), arm.requests);
                    assert!(arm.errors <= arm.requests);
                }
                let bad = world.bad_requests(t, share);
                assert_eq!(bad.to_bits(), interval.bad_requests.to_bits());
            }
            assert_eq!(world.interval(t, 0.0, t).candidate, Arm::default());
            assert_eq!(world.interval(t, 1.0, t).stable, Arm::default());
        }
    }

    #[test]
    fn more_noise_does_not_shift_other_numbers() {
        let with = |more: &Value| world(more).interval(5, 0.3, 5);
        let calm = with(&json!({"noise": {}}));
        let slow = with(&json!({"noise": {"arm": {"latencySd": 0.3}}}));
        assert_eq!(calm.candidate.errors, slow.candidate.errors);
        assert_ne!(calm.candidate.histogram, slow.candidate.histogram);
        let gaps = with(&json!({
            "noise": {}, "events": [{"type": "random-gap", "probability": 1}],
        }));
        assert!(gaps.missing && !calm.missing);
        assert_eq!(gaps.candidate, calm.candidate);
    }

    #[test]
    fn the_history_has_every_zone_and_ends() {
        let world = world(&json!({"stable": {"zones": 4}, "clock": {"history": "90s"}}));
        assert_eq!((world.history(), world.horizon()), (2, 200));
        for back in [1, 2] {
            let zones = world.past(back);
            assert_eq!(zones.len(), 4);
            let total = zones.iter().map(|zone| zone.requests).sum::<u32>();
            assert_eq!(total, world.total(-i64::from(back)));
        }
        assert!(world.past(0).is_empty() && world.past(3).is_empty());
    }

    #[test]
    fn events_hold_in_their_window_only() {
        let events = json!({"noise": {}, "canary": {}, "events": [
            {"type": "shared-outage", "at": "2m", "duration": "1m", "errorAdd": 1},
            {"type": "canary-blip", "at": "3m", "duration": "1m", "errorAdd": 1},
            {"type": "metric-gap", "at": "4m", "duration": "1m"},
        ]});
        let world = world(&events);
        let failed: Vec<(bool, bool, bool)> = (0..6)
            .map(|t| {
                let Interval {
                    stable,
                    candidate,
                    missing,
                    ..
                } = world.interval(t, 0.5, t);
                let all = |arm: &Arm| arm.errors == arm.requests;
                (all(&stable), all(&candidate), missing)
            })
            .collect();
        let (no, yes) = (false, true);
        assert_eq!(
            failed,
            [
                (no, no, no),
                (no, no, no),
                (yes, yes, no),
                (no, yes, no),
                (no, no, yes),
                (no, no, no)
            ]
        );
        let median = |t| world.interval(t, 0.5, t).stable.histogram.quantile(0.5);
        assert!(median(2) > median(1).map(|ms| 2.5 * ms));
    }

    #[test]
    fn the_effect_starts_grows_and_follows_the_share() {
        let effect = |effect: &Value| {
            world(&json!({"canary": {"effect": effect}, "traffic": {"rps": 1000}}))
        };
        let per_request = |world: &World, t, share| {
            let interval = world.interval(t, share, t);
            interval.bad_requests / f64::from(interval.candidate.requests)
        };
        let ramp = effect(&json!({"errorAdd": 0.2, "onset": "5m", "ramp": "10m"}));
        for (t, expected) in [(0, 0.0), (5, 0.0), (10, 0.1), (15, 0.2), (99, 0.2)] {
            assert!((per_request(&ramp, t, 0.5) - expected).abs() < 1e-12, "{t}");
        }
        let load = effect(&json!({"errorAdd": 0.2, "load": {"from": 0.2, "to": 0.6}}));
        for (share, expected) in [(0.1, 0.0), (0.2, 0.0), (0.4, 0.1), (0.9, 0.2)] {
            assert!(
                (per_request(&load, 0, share) - expected).abs() < 1e-12,
                "{share}"
            );
        }
        // All requests 20 % slower: 9.0 % instead of 5 % are above the p95.
        let slow = effect(&json!({"latencyMult": 1.2}));
        assert!((per_request(&slow, 0, 0.5) - 0.0400).abs() < 1e-4);
        // The better version does no harm and fails less.
        let good = effect(&json!({"errorMult": 0, "latencyMult": 0.5}));
        assert_eq!(per_request(&good, 0, 0.5).to_bits(), 0.0_f64.to_bits());
        assert_eq!(good.interval(0, 0.5, 0).candidate.errors, 0);
    }

    #[test]
    fn a_cold_candidate_warms_up() {
        let world = world(&json!({
            "canary": {"warmup": {"duration": "2m", "latencyMult": 3}}, "traffic": {"rps": 500},
        }));
        let median = |age| {
            let candidate = world.interval(9, 0.5, age).candidate;
            candidate.histogram.quantile(0.5).expect("requests")
        };
        assert!((median(0) - median(1)).abs() < 1e-9);
        let ratio = median(1) / median(2);
        assert!((2.9..3.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_histogram_answers_from_its_bins() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        assert_eq!(histogram.exceed(1.0), 0);
        histogram.0[10] = 10;
        let mut more = Histogram::default();
        more.0[20] = 30;
        histogram.merge(&more);
        assert_eq!(histogram.total(), 40);
        let at = |place: f64| libm::exp(LOWEST + place * BIN_WIDTH);
        for (q, place) in [
            (0.125, 10.5),
            (0.25, 11.0),
            (0.5, 20.0 + 1.0 / 3.0),
            (1.0, 21.0),
        ] {
            let ms = histogram.quantile(q).expect("requests");
            assert!((ms / at(place) - 1.0).abs() < 1e-12, "{q} {ms}");
        }
        for (place, count) in [(5.0, 40), (10.5, 35), (15.0, 30), (20.9, 3), (21.1, 0)] {
            assert_eq!(histogram.exceed(at(place)), count, "{place}");
        }
        assert_eq!((histogram.exceed(1.0), histogram.exceed(1e9)), (40, 0));
    }
}

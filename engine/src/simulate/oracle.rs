//! The least that a fault could have cost: a rule that knows everything but the luck of
//! single requests.
//!
//! After each sample that the gate would have had, at the gate's own shares, it asks how much
//! likelier the candidate's errors and latencies are with the fault than without it. It
//! knows the fault, the base rate and the noise of the minute, which nobody can know. This is
//! Wald's sequential probability ratio test of two simple hypotheses (A. Wald, "Sequential
//! Tests of Statistical Hypotheses", Annals of Mathematical Statistics 16, 1945):
//!
//! ```text
//! L = sum over samples of ln P(errors | fault) / P(errors | none)
//!                       + ln P(latencies | fault) / P(latencies | none)
//! it goes back once L >= ln(1 / alpha)
//! ```
//!
//! The likelihood ratio of a good version has the mean 1, so it is taken back in at most
//! `alpha` of its rollouts, however often it is looked at (J. Ville 1939). Of Wald's two
//! limits only the upper one is there, because no gate may promote sooner than its schedule.
//! Where all samples are alike, no test with that `alpha` needs fewer on average (Wald and
//! Wolfowitz 1948).
//!
//! The probabilities are those by which [`super::world`] makes its numbers: usual errors in
//! geometric clusters (a compound Poisson number, by Panjer's recursion), of the other
//! requests some that fail one by one (binomial), and latencies in bins (multinomial).

use super::scenario::Scenario;
use super::world::{Arm, Conditions, World};

/// Likelihoods below this do not occur.
const NEVER: f64 = 1e-300;
/// Numbers of the recursion above this are scaled down.
const LARGE: f64 = 1e150;

/// Samples of stable that tell how many requests there are, where there is no past.
const MEET_SAMPLES: u32 = 2;
/// The probe: requests per sample, the least share, the largest part of the first step, and
/// its samples.
const PROBE: (f64, f64, f64, u32) = (25.0, 0.002, 0.6, 2);
/// Requests per sample from which on the shares are those for many.
const MANY: f64 = 10_000.0;
const SHARES_MANY: [f64; 3] = [0.01, 0.1, 0.5];
const SHARES: [f64; 3] = [0.05, 0.25, 0.5];
/// Most samples at each of them.
const SAMPLES: [u32; 3] = [12, 12, 20];
const HOLDBACK: (f64, u32) = (0.95, 10);
/// Fewest requests of candidate and stable at a step, and at the holdback.
const REQUESTS: [u32; 2] = [5, 5];
const REQUESTS_HOLDBACK: [u32; 2] = [5, 20];

/// How a rollout went that such a rule judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Minutes until the candidate was taken back, if it was.
    pub minutes: Option<f64>,
    /// Expected bad requests until the horizon.
    pub bad_requests: f64,
    /// The candidate's share, 0-1, in each interval until the verdict.
    pub shares: Vec<f64>,
}

/// Plays replicate number `replicate` of a scenario, at the gate's slowest schedule: each
/// step takes as long as it may.
#[must_use]
pub fn play(scenario: &Scenario, replicate: u32, alpha: f64) -> Told {
    let world = World::new(scenario, replicate);
    climb(&world, scenario.clock.metric_delay, alpha)
}

fn climb(world: &World, metric_delay: u64, alpha: f64) -> Told {
    let limit = -libm::log(alpha);
    let late = u32::try_from(metric_delay.div_ceil(world.interval_ms())).unwrap_or(u32::MAX);
    let mut steps = ladder(world.usual_requests(MEET_SAMPLES)).into_iter();
    let mut step = None;
    let met = if world.history() > 0 {
        0
    } else {
        MEET_SAMPLES.saturating_add(late)
    };
    let (mut ratio, mut age) = (0.0, 0);
    let mut told = Told {
        minutes: None,
        bad_requests: 0.0,
        shares: vec![],
    };
    let mut samples: Vec<Option<Sample>> = vec![];
    for t in 0..world.horizon() {
        if t == met {
            step = steps.next();
        }
        let newest = t.checked_sub(late.saturating_add(1));
        if let Some(sample) = newest.and_then(|at| samples.get(at as usize)?.as_ref()) {
            ratio += sample.ratio;
            if ratio >= limit {
                let minutes = (u64::from(t) * world.interval_ms()) as f64 / 60_000.0;
                told.minutes = Some(minutes);
                return told;
            }
            if let Some(now) = step
                .as_mut()
                .filter(|s: &&mut Step| s.share == sample.share)
                && now.is_over(sample)
            {
                step = steps.next();
            }
        }
        // It has been promoted.
        if step.is_none() && t >= met {
            let rest = (t..world.horizon()).map(|t| world.bad_requests(t, 1.0));
            told.bad_requests += rest.sum::<f64>();
            return told;
        }
        let share = step.as_ref().map_or(0.0, |s| s.share);
        let before = told.shares.last().copied().unwrap_or(0.0);
        age = if share > before { 0 } else { age + 1 };
        told.shares.push(share);
        let interval = world.interval(t, share, age);
        told.bad_requests += interval.bad_requests;
        let seen = [interval.candidate.requests, interval.stable.requests];
        let counts = !interval.missing && seen.iter().all(|requests| *requests > 0);
        samples.push(counts.then(|| Sample {
            share,
            requests: seen,
            ratio: log_ratio(world, t, share, age, &interval.candidate),
        }));
    }
    told
}

/// What one interval told.
struct Sample {
    share: f64,
    /// Of candidate and stable.
    requests: [u32; 2],
    ratio: f64,
}

/// One share, and what is left to see at it.
struct Step {
    share: f64,
    samples: u32,
    requests: [u32; 2],
}

impl Step {
    fn is_over(&mut self, sample: &Sample) -> bool {
        self.samples = self.samples.saturating_sub(1);
        for (left, seen) in self.requests.iter_mut().zip(sample.requests) {
            *left = left.saturating_sub(seen);
        }
        self.samples == 0 && self.requests == [0, 0]
    }
}

/// The gate's shares, each for as long as it may take.
fn ladder(requests: f64) -> Vec<Step> {
    let step = |share, samples, requests| Step {
        share,
        samples,
        requests,
    };
    let shares = if requests >= MANY {
        SHARES_MANY
    } else {
        SHARES
    };
    let mut steps = vec![];
    let (wanted, least, part, samples) = PROBE;
    let probe = (wanted / requests.max(NEVER)).max(least);
    if probe < part * shares[0] {
        steps.push(step((probe * 1_000.0).round() / 1_000.0, samples, REQUESTS));
    }
    let ramps = shares.into_iter().zip(SAMPLES);
    steps.extend(ramps.map(|(share, samples)| step(share, samples, REQUESTS)));
    steps.push(step(HOLDBACK.0, HOLDBACK.1, REQUESTS_HOLDBACK));
    steps
}

/// The logarithm of how much likelier that is with the fault than without it.
fn log_ratio(world: &World, t: u32, share: f64, age: u32, seen: &Arm) -> f64 {
    let [with, without] = [true, false].map(|faulty| world.conditions(t, share, age, faulty).1);
    let (cluster, sigma) = world.fixed_noise();
    let errors = |c: &Conditions| log_errors(seen.errors, seen.requests, c, cluster);
    let mut ratio = errors(&with) - errors(&without);
    // Impossible either way.
    if ratio.is_nan() {
        ratio = 0.0;
    }
    if !with.as_fast_as(&without) {
        let counts = seen.histogram.bins().iter();
        let parts = with.bins(sigma).into_iter().zip(without.bins(sigma));
        let seen = counts.zip(parts).filter(|(count, _)| **count > 0);
        ratio += seen
            .map(|(count, (with, without))| {
                f64::from(*count) * libm::log(with.max(NEVER) / without.max(NEVER))
            })
            .sum::<f64>();
    }
    ratio
}

/// The logarithm of the probability of so many errors: `u` usual ones and, of the other
/// requests, as many more as there are.
fn log_errors(errors: u32, requests: u32, conditions: &Conditions, cluster: f64) -> f64 {
    let (n, x) = (f64::from(requests), f64::from(errors));
    let more = conditions.more_errors.clamp(0.0, 1.0 - f64::EPSILON);
    let usual = Clustered::new(n * conditions.error_rate.clamp(0.0, 1.0), cluster);
    if more <= 0.0 {
        return usual.last(errors);
    }
    // ln of the binomial probability of x - u out of n - u.
    let choose = libm::lgamma(n + 1.0) - libm::lgamma(x + 1.0) - libm::lgamma(n - x + 1.0);
    let mut rest = choose + x * libm::log(more) + (n - x) * libm::log1p(-more);
    let (mut largest, mut sum) = (f64::NEG_INFINITY, 0.0);
    for (u, usual) in (0..=errors).map(f64::from).zip(usual) {
        let term = usual + rest;
        if term > largest {
            sum = sum * libm::exp(largest - term) + 1.0;
            largest = term;
        } else if term > f64::NEG_INFINITY {
            sum += libm::exp(term - largest);
        }
        rest += libm::log((x - u).max(NEVER) / (n - u).max(1.0) / more);
    }
    largest + libm::log(sum.max(NEVER))
}

/// Logarithms of the probabilities of 0, 1, 2 … events in geometric clusters (Panjer 1981).
struct Clustered {
    /// Expected number of clusters.
    clusters: f64,
    /// The probability that a cluster ends with an event.
    stop: f64,
    events: f64,
    /// The probability of the next number of events, times e to the `log`th,
    next: f64,
    /// and the sums over sizes j of a cluster of (1 - stop)^(j - 1), and of j times that,
    /// times the probability of j events fewer.
    sums: [f64; 2],
    log: f64,
}

impl Clustered {
    fn new(expected: f64, cluster: f64) -> Self {
        let clusters = expected / cluster.max(1.0);
        Self {
            clusters,
            stop: 1.0 / cluster.max(1.0),
            events: 0.0,
            next: 1.0,
            sums: [0.0; 2],
            log: -clusters,
        }
    }

    fn last(self, events: u32) -> f64 {
        let mut all = self;
        all.nth(events as usize).unwrap_or(f64::NEG_INFINITY)
    }
}

impl Iterator for Clustered {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let now = self.next;
        let log = libm::log(now) + self.log;
        let go = 1.0 - self.stop;
        let [single, weighted] = self.sums;
        self.sums = [now + go * single, now + go * (single + weighted)];
        self.events += 1.0;
        self.next = self.clusters / self.events * self.stop * self.sums[1];
        if self.next > LARGE {
            self.next /= LARGE;
            self.sums = self.sums.map(|sum| sum / LARGE);
            self.log += libm::log(LARGE);
        }
        Some(log)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Corpus;
    use super::*;
    use serde_json::{Value, json};

    fn scenario(more: &Value) -> Scenario {
        let mut scenario = json!({
            "name": "a", "class": "bad", "seed": 7, "traffic": {"rps": 20}, "stable": {},
        });
        for (key, value) in more.as_object().expect("an object") {
            scenario[key] = value.clone();
        }
        let file = json!({"apiVersion": "simulate/v1", "scenarios": [scenario]});
        let corpus = Corpus::parse(&file.to_string()).expect("valid");
        corpus.scenarios.into_iter().next().expect("one")
    }

    #[test]
    fn probabilities_add_up_to_one() {
        for (rate, more, cluster) in [(0.01, 0.0, 1.0), (0.05, 0.1, 4.0), (0.0, 0.5, 1.0)] {
            let world = World::new(
                &scenario(&json!({
                    "stable": {"errorRate": rate},
                    "canary": {"effect": {"errorAdd": more, "latencyMult": 1.5}},
                    "noise": {"common": {"errorSd": 0, "latencySd": 0}},
                })),
                0,
            );
            let (_, with, _) = world.conditions(0, 0.5, 9, true);
            let all = (0..=400).map(|x| libm::exp(log_errors(x, 400, &with, cluster)));
            let (sum, mean) = all.enumerate().fold((0.0, 0.0), |(sum, mean), (x, p)| {
                (sum + p, mean + p * x as f64)
            });
            assert!((sum - 1.0).abs() < 1e-9, "{rate} {more} {cluster}: {sum}");
            let expected = 400.0 * (rate + more - rate * more);
            assert!((mean / expected - 1.0).abs() < 1e-9, "{mean} {expected}");
            let bins: f64 = with.bins(0.6).iter().sum();
            assert!((bins - 1.0).abs() < 1e-12, "{bins}");
        }
    }

    /// The promise of the test: what the world makes without the fault looks at most `alpha`
    /// of the time as if it were there, and with the fault it is found. A wrong density
    /// breaks one of the two.
    #[test]
    fn a_good_version_is_taken_back_in_at_most_alpha() {
        const RUNS: u32 = 250;
        const ALPHA: f64 = 0.05;
        for (fault, noise) in [
            (json!({"errorAdd": 0.003}), json!({})),
            (json!({"errorMult": 1.5}), json!({"errorClusterMean": 5})),
            (
                json!({"latencyMult": 1.05}),
                json!({"arm": {"latencySd": 0.1}}),
            ),
            (
                json!({"tailFraction": 0.02, "tailMult": 4}),
                json!({"stall": {"probability": 0.02, "fraction": 0.3, "mult": 5}}),
            ),
        ] {
            let bad = scenario(&json!({
                "stable": {"errorRate": 0.005}, "canary": {"effect": fault}, "noise": noise,
            }));
            let good = Scenario {
                canary: <_>::default(),
                ..bad.clone()
            };
            let taken_back = |truth: &Scenario| {
                let runs = (0..RUNS).filter(|run| {
                    let (believed, true_world) = (World::new(&bad, *run), World::new(truth, *run));
                    let mut ratio = 0.0;
                    (0..40).any(|t| {
                        let seen = true_world.interval(t, 0.5, t).candidate;
                        ratio += log_ratio(&believed, t, 0.5, t, &seen);
                        ratio >= -libm::log(ALPHA)
                    })
                });
                f64::from(u32::try_from(runs.count()).unwrap_or(u32::MAX)) / f64::from(RUNS)
            };
            let (falsely, found) = (taken_back(&good), taken_back(&bad));
            let error = (ALPHA * (1.0 - ALPHA) / f64::from(RUNS)).sqrt();
            assert!(falsely <= ALPHA + 2.0 * error, "{fault} {noise}: {falsely}");
            assert!(found > 0.9, "{fault} {noise}: {found}");
        }
    }

    #[test]
    fn one_impossible_error_is_enough() {
        let bad = scenario(&json!({
            "stable": {"errorRate": 0}, "canary": {"effect": {"errorAdd": 0.5}},
        }));
        let told = play(&bad, 0, 0.01);
        // Half of the probe's 25 requests fail, and that is known a minute later.
        assert_eq!((told.minutes, told.shares.len()), (Some(2.0), 2));
        assert!((10.0..50.0).contains(&told.bad_requests), "{told:?}");
    }

    #[test]
    fn without_a_fault_the_slowest_schedule_is_played_to_its_end() {
        let good = |more: Value| {
            let told = play(&scenario(&more), 0, 0.01);
            assert_eq!(told.minutes, None);
            let mut runs: Vec<(f64, u32)> = vec![];
            for share in told.shares {
                match runs.last_mut() {
                    Some((last, count)) if last.to_bits() == share.to_bits() => *count += 1,
                    _ => runs.push((share, 1)),
                }
            }
            runs
        };
        let usual = good(json!({}));
        assert_eq!(
            usual,
            [(0.021, 3), (0.05, 13), (0.25, 13), (0.5, 21), (0.95, 11)]
        );
        let many = good(json!({
            "traffic": {"rps": 500}, "clock": {"history": "0m", "metricDelay": "0s"},
        }));
        assert_eq!(
            many,
            [
                (0.0, 2),
                (0.002, 2),
                (0.01, 12),
                (0.1, 12),
                (0.5, 20),
                (0.95, 10)
            ]
        );
    }
}

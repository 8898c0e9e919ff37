//! How noisy the stable arm's metrics are, from its past.

use crate::Counts;
use crate::config::{Config, Noise, Stream};

/// Number of intervals in a block, to compare zones.
const BLOCK: usize = 10;
/// Largest squared, standardised difference of two neighbouring intervals.
const DIFFERENCE_MAX: f64 = 400.0;
/// Sampling error (relative standard deviation) from which on a zone's data
/// weighs less.
const ZONE_ERROR: f64 = 0.15;

/// The stable arm before the rollout, oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Past {
    /// Bad events of each stream, by interval and zone. Every interval has the same
    /// zones and every zone all streams; there is one zone if the source does not
    /// split them.
    pub intervals: Vec<Vec<Vec<Counts>>>,
}

impl Past {
    fn zones(&self) -> usize {
        self.intervals.first().map_or(1, Vec::len).max(1)
    }

    fn total(&self, interval: usize, stream: usize) -> Counts {
        let zones = self.intervals[interval].iter();
        zones
            .map(|zone| zone[stream])
            .fold(<_>::default(), Counts::and)
    }
}

/// How a stream deviates from a binomial one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Dispersion by which all evidence is divided: 1 for a binomial stream.
    pub dispersion: f64,
    /// What that is worth, in pairs of neighbouring intervals.
    pub weight: f64,
    /// Additional relative variance of the split in each interval.
    pub drift: f64,
    /// Dispersion over the whole past, drift and incidents included.
    pub total_dispersion: f64,
    /// Variance of the log ratio between two zones that persists.
    pub between: f64,
    /// Variance of the log ratio that changes within ten intervals.
    pub within: f64,
    /// Bad events and requests of the past, with which incidents are compared.
    pub reference: Counts,
    /// Relative variance of the rate over ten intervals about that of the whole past.
    pub sway: f64,
}

/// What the past tells, before the first interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// The spread of each stream.
    pub spreads: Vec<Spread>,
    /// Number of zones of the stable arm.
    pub zones: usize,
    /// Number of intervals of the past.
    pub intervals: usize,
}

impl Calibration {
    /// Calibrates from the past; an empty past gives the priors.
    #[must_use]
    pub fn of(past: &Past, config: &Config) -> Self {
        let zones = past.zones();
        let tasks_per_zone = (f64::from(config.tasks) / index(zones)).max(1.0);
        let spreads = config
            .streams
            .iter()
            .enumerate()
            .map(|(at, stream)| spread(past, at, stream, tasks_per_zone, config))
            .collect();
        Self {
            spreads,
            zones,
            intervals: past.intervals.len(),
        }
    }

    /// The ratio from which on the candidate counts as worse at that share: the
    /// stream's margin, or two standard deviations of the difference between the `K_c`
    /// tasks of the candidate and the `K` of stable, `exp(2 sqrt(s_p K/Z (1/K_c + 1/K)
    /// + s_v (1 + 1/Z)))`, whichever is larger.
    #[must_use]
    pub fn margin(&self, stream: usize, share: f64, config: &Config) -> f64 {
        let tasks = f64::from(config.tasks);
        let zones = index(self.zones);
        let least = config.candidate_tasks_min.min(config.tasks);
        let serving = (share * tasks - 1e-9)
            .ceil()
            .max(f64::from(least))
            .min(tasks);
        let spread = &self.spreads[stream];
        let variance = spread.between * (tasks / zones) * (1.0 / serving + 1.0 / tasks)
            + spread.within * (1.0 + 1.0 / zones);
        let margin = (config.spread_z * variance.sqrt()).exp();
        margin.max(config.streams[stream].margin)
    }
}

fn spread(past: &Past, at: usize, stream: &Stream, tasks_per_zone: f64, c: &Config) -> Spread {
    let totals: Vec<Counts> = (0..past.intervals.len())
        .map(|i| past.total(i, at))
        .collect();
    let n = index(totals.len()).max(1.0);
    let bad: f64 = totals.iter().map(|t| t.bad).sum();
    let of: f64 = totals.iter().map(|t| t.of).sum();
    let (raw, weight) = dispersion(&totals, c);
    let (dispersion, drift) = match stream.noise {
        Noise::Bursts => (raw, 0.0),
        Noise::Drift(least) => {
            // Without events only the prior tells something about drift.
            let measured = if bad > 0.0 {
                (raw - 1.0) * n / bad
            } else {
                0.0
            };
            (1.0 + (raw - 1.0).min(0.5), measured.max(least * least))
        }
    };
    let rate = bad / of.max(1.0);
    let around_mean = totals
        .iter()
        .map(|t| {
            let expected = t.of * rate;
            (t.bad - expected).powi(2) / expected.max(1e-9)
        })
        .sum::<f64>();
    let (between, within) = heterogeneity(past, at, stream, raw, tasks_per_zone, c);
    Spread {
        dispersion,
        weight,
        drift,
        total_dispersion: (around_mean / n).max(raw).max(1.0),
        between,
        within,
        reference: Counts { bad, of },
        sway: sway(&totals, raw, c.spread_weight),
    }
}

/// Prior of the relative standard deviation of the rate over ten intervals.
const SWAY: f64 = 0.15;

/// Relative variance of the rate from block to block beyond what chance makes, shrunk to
/// the prior, which is worth `prior_weight` blocks.
fn sway(totals: &[Counts], dispersion: f64, prior_weight: f64) -> f64 {
    let prior = SWAY * SWAY;
    let sum = |of: &[Counts]| of.iter().copied().fold(<_>::default(), Counts::and);
    let all = sum(totals);
    let rate = all.bad / all.of.max(1.0);
    let (mut squares, mut error, mut blocks) = (0.0, 0.0, 0.0);
    for block in totals.chunks_exact(BLOCK).map(sum) {
        let expected = block.of * rate;
        if expected > 0.0 {
            squares += ((block.bad - expected) / expected).powi(2);
            error += dispersion / expected;
            blocks += 1.0;
        }
    }
    if blocks < 2.0 {
        return prior;
    }
    let error = error / blocks;
    let estimate = (squares / (blocks - 1.0) - error).max(0.0);
    // Blocks that chance moves by more than the prior say little.
    let weight = (blocks - 1.0) * (prior / error.max(1e-9)).min(1.0);
    (prior_weight * prior + weight * estimate) / (prior_weight + weight)
}

/// Dispersion from successive differences, shrunk to the prior: `(k0 p0 + Σ
/// (r_t - r_{t-1})² / (p (1/n_t + 1/n_{t-1}))) / (k0 + N)`; and what the past is worth, in
/// pairs, those without an event among them. Differences of neighbours leave slow drift out (von Neumann 1941).
fn dispersion(totals: &[Counts], c: &Config) -> (f64, f64) {
    let (mut squares, mut pairs) = (0.0, 0.0);
    for pair in totals.windows(2) {
        if let Some(square) = jump(pair[0], pair[1]) {
            squares += square;
            pairs += 1.0;
        }
    }
    let weight = c.dispersion_weight;
    let dispersion = (weight * c.dispersion_prior + squares) / (weight + pairs);
    let all = index(totals.len().saturating_sub(1));
    (dispersion.max(1.0), weight + all)
}

/// The squared difference of the rates of two neighbouring intervals, 1 on average if
/// the events are binomial; nothing if there was no event.
pub(crate) fn jump(a: Counts, b: Counts) -> Option<f64> {
    if a.bad + b.bad <= 0.0 {
        return None;
    }
    let rate = (a.bad + b.bad) / (a.of + b.of).max(1.0);
    let variance = rate * (1.0 / b.of.max(1.0) + 1.0 / a.of.max(1.0));
    let difference = b.bad / b.of.max(1.0) - a.bad / a.of.max(1.0);
    Some(if variance > 0.0 {
        (difference * difference / variance).min(DIFFERENCE_MAX)
    } else {
        0.0
    })
}

/// Variance between zones, that which persists and that which changes, both shrunk
/// to the priors: a method-of-moments analysis of variance over blocks of ten
/// intervals.
fn heterogeneity(
    past: &Past,
    at: usize,
    stream: &Stream,
    dispersion: f64,
    tasks_per_zone: f64,
    c: &Config,
) -> (f64, f64) {
    let prior_between = stream.task_spread.powi(2) / tasks_per_zone;
    let prior_within = stream.wander.powi(2);
    let (zones, blocks) = (past.zones(), past.intervals.len() / BLOCK);
    if zones < 2 || blocks < 2 {
        return (prior_between, prior_within);
    }
    let sum = |zone: usize, block: usize| {
        let counts = (0..BLOCK).map(|i| past.intervals[block * BLOCK + i][zone][at]);
        counts.fold(Counts::default(), Counts::and)
    };
    let cells: Vec<Vec<Counts>> = (0..zones)
        .map(|zone| (0..blocks).map(|block| sum(zone, block)).collect())
        .collect();
    let column = |block: usize| {
        let zones = cells.iter().map(|zone| zone[block]);
        zones.fold(Counts::default(), Counts::and)
    };
    let all: Vec<Counts> = (0..blocks)
        .map(column)
        .map(|t| Counts {
            of: t.of.max(1.0),
            ..t
        })
        .collect();
    let (z, b) = (index(zones), index(blocks));
    // Expected events of a zone if all zones were alike, and the part of the other
    // zones.
    let expected = |zone: usize, block: usize| {
        (all[block].bad * cells[zone][block].of / all[block].of).max(1e-9)
    };
    let others = |zone: usize, block: usize| 1.0 - cells[zone][block].of / all[block].of;

    let (mut lasting, mut lasting_error) = (vec![0.0; zones], 0.0);
    for zone in 0..zones {
        let sum_expected: f64 = (0..blocks).map(|block| expected(zone, block)).sum();
        let sum_others: f64 = (0..blocks).map(|block| others(zone, block)).sum();
        let sum_bad: f64 = cells[zone].iter().map(|cell| cell.bad).sum();
        lasting[zone] = (sum_bad - sum_expected) / sum_expected;
        lasting_error += dispersion * (sum_others / b) / sum_expected / z;
    }
    let (mut squares, mut error) = (0.0, 0.0);
    for (zone, row) in cells.iter().enumerate() {
        for (block, cell) in row.iter().enumerate() {
            let e = expected(zone, block);
            squares += ((cell.bad - e) / e - lasting[zone]).powi(2);
            error += dispersion * others(zone, block) / e / (z * b);
        }
    }
    let within = ((squares / (z * (b - 1.0)) - error) / (1.0 - 1.0 / z)).max(0.0);
    let squares: f64 = lasting.iter().map(|d| d * d).sum();
    let between = (squares / (z - 1.0) - lasting_error / (1.0 - 1.0 / z) - within / b).max(0.0);
    let trust = |error: f64| (ZONE_ERROR * ZONE_ERROR / error.max(1e-9)).min(1.0);
    let shrink = |prior: f64, estimate: f64, weight: f64| {
        (c.spread_weight * prior + weight * estimate) / (c.spread_weight + weight)
    };
    (
        shrink(prior_between, between, (z - 1.0) * trust(lasting_error)),
        shrink(prior_within, within, (z - 1.0) * (b - 1.0) * trust(error)),
    )
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a small number of intervals or zones"
)]
pub(crate) fn index(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_past_the_priors_hold() {
        let config = Config::default();
        let calibration = Calibration::of(&Past::default(), &config);
        let [errors, slow, tail] = &calibration.spreads[..] else {
            panic!("three streams");
        };
        assert_eq!((errors.dispersion, errors.drift), (1.3, 0.0));
        assert_eq!((slow.drift, tail.drift), (0.03 * 0.03, 0.05 * 0.05));
        assert_eq!(calibration.zones, 1);
        // With one task of twenty, the difference between tasks does not average out.
        assert!((calibration.margin(0, 0.05, &config) - 1.5).abs() < 0.1);
        assert!((calibration.margin(1, 0.5, &config) - 1.1).abs() < 0.02);
    }
}

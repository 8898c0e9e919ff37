//! Counts, for a source that has percentiles only.
//!
//! The stable arm's own percentile of the same interval is the threshold: by
//! definition `1 - q` of its requests were slower. The candidate's share above
//! it is read off a curve through its own percentiles, straight in
//! (normal quantile, ln latency), as if its latency were log-normal piece by
//! piece.

use crate::Counts;
use crate::math::normal_cdf;

/// Standard normal quantiles of 0.5, 0.95 and 0.99.
const Z: [f64; 3] = [0.0, 1.644_853_627, 2.326_347_874];
/// With fewer requests than these, a p95, or a p99, is just one of them.
const REQUESTS_MIN: [f64; 2] = [20.0, 100.0];

/// Response times of one arm in one interval, ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// Half of the requests were slower.
    pub p50: f64,
    /// 5 % were slower.
    pub p95: f64,
    /// 1 % were slower.
    pub p99: f64,
}

/// Share of the requests (0-1) that took longer than `threshold` ms.
#[must_use]
pub fn share_above(p: &Percentiles, threshold: f64) -> f64 {
    // Equal percentiles would give a curve without a slope.
    let mut knots = [p.p50, p.p95, p.p99].map(|ms| ms.max(1e-3).ln());
    for index in 1..3 {
        knots[index] = knots[index].max(knots[index - 1] + 1e-6);
    }
    let x = threshold.max(1e-3).ln();
    let from = usize::from(x > knots[1]);
    let slope = (Z[from + 1] - Z[from]) / (knots[from + 1] - knots[from]);
    1.0 - normal_cdf(Z[from] + (x - knots[from]) * slope)
}

/// Requests of both arms (candidate, stable) that were slower than the stable arm's
/// p95 and p99; the candidate's threshold is higher by `slack` (0.05 for 5 %). An
/// arm with too few requests has none.
#[must_use]
pub fn slower(
    candidate: (&Percentiles, f64),
    stable: (&Percentiles, f64),
    slack: [f64; 2],
) -> [(Counts, Counts); 2] {
    let thresholds = [stable.0.p95, stable.0.p99];
    let shares = [0.05, 0.01];
    std::array::from_fn(|i| {
        if candidate.1.min(stable.1) < REQUESTS_MIN[i] {
            return (Counts::default(), Counts::default());
        }
        let above = share_above(candidate.0, thresholds[i] * (1.0 + slack[i]));
        (
            Counts::new(above * candidate.1, candidate.1),
            Counts::new(shares[i] * stable.1, stable.1),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_normal(median: f64, sigma: f64) -> Percentiles {
        let at = |z: f64| median * (sigma * z).exp();
        Percentiles {
            p50: median,
            p95: at(Z[1]),
            p99: at(Z[2]),
        }
    }

    #[test]
    fn a_log_normal_latency_is_met_exactly() {
        let p = log_normal(60.0, 0.6);
        for (z, share) in [(0.0, 0.5), (Z[1], 0.05), (Z[2], 0.01), (1.0, 0.158_655)] {
            let threshold = 60.0 * (0.6 * z).exp();
            assert!((share_above(&p, threshold) - share).abs() < 1e-5, "{z}");
        }
    }

    #[test]
    fn equal_arms_are_equal_and_slower_ones_are_not() {
        let (same, slow) = (log_normal(60.0, 0.6), log_normal(72.0, 0.6));
        let [(c, s), _] = slower((&same, 1_000.0), (&same, 1_000.0), [0.0, 0.0]);
        assert!((c.bad - s.bad).abs() < 0.01);
        let [(c, s), (c99, s99)] = slower((&slow, 1_000.0), (&same, 1_000.0), [0.05, 0.1]);
        assert!(
            c.bad > 1.4 * s.bad && c99.bad > 1.2 * s99.bad,
            "{c:?} {c99:?}"
        );
        let few = slower((&slow, 50.0), (&same, 1_000.0), [0.05, 0.1]);
        assert!(few[0].0.of > 0.0 && few[1].0.of == 0.0);
    }

    #[test]
    fn flat_percentiles_do_no_harm() {
        let flat = Percentiles {
            p50: 20.0,
            p95: 20.0,
            p99: 20.0,
        };
        assert!(share_above(&flat, 21.0) < 1e-6);
        assert!(share_above(&flat, 19.0) > 0.999);
    }
}

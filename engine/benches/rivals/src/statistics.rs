//! Ranks, the Mann-Whitney U test and the normal distribution.

use std::f64::consts::SQRT_2;

/// Up to so many values in either sample, and without ties, the p-value is
/// exact; beyond that it comes from the normal distribution.
const EXACT_VALUES_MAX: usize = 8;

/// The Mann-Whitney U test of two samples.
///
/// H. B. Mann, D. R. Whitney, "On a test of whether one of two random variables
/// is stochastically larger than the other", 1947; variance with ties as in
/// M. Hollander, D. A. Wolfe, "Nonparametric Statistical Methods", section 4.1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MannWhitney {
    /// Pairs in which the first sample is higher; half for a tie.
    pub u: f64,
    counts: (usize, usize),
    /// Sum of c³ - c over groups of c equal values.
    ties: f64,
}

impl MannWhitney {
    /// Of two samples without NaN.
    pub fn of(x: &[f64], y: &[f64]) -> Self {
        let all: Vec<f64> = x.iter().chain(y).copied().collect();
        let (ranks, ties) = ranks(&all);
        let n = x.len() as f64;
        Self {
            u: ranks[..x.len()].iter().sum::<f64>() - n * (n + 1.0) / 2.0,
            counts: (x.len(), y.len()),
            ties,
        }
    }

    /// How far U is from its mean, and its standard deviation; none if all
    /// values are equal.
    fn distance(&self) -> Option<(f64, f64)> {
        let (n, m) = (self.counts.0 as f64, self.counts.1 as f64);
        let both = n + m;
        let variance = (n * m / 12.0) * ((both + 1.0) - self.ties / (both * (both - 1.0)));
        (variance > 0.0).then(|| (self.u - n * m / 2.0, variance.sqrt()))
    }

    /// The distance in standard deviations, half a pair nearer to 0 for
    /// continuity; none if all values are equal.
    pub fn z(&self) -> Option<f64> {
        let (distance, deviation) = self.distance()?;
        let correction = if distance == 0.0 {
            0.0
        } else {
            0.5 * distance.signum()
        };
        Some((distance - correction) / deviation)
    }

    /// Probability of such a U or a higher one under no difference; `None` if all values
    /// are equal.
    pub fn p_greater(&self) -> Option<f64> {
        let (n, m) = self.counts;
        let (distance, deviation) = self.distance()?;
        if n.min(m) <= EXACT_VALUES_MAX && self.ties == 0.0 {
            return Some(exact_upper_tail(self.u, n, m));
        }
        Some(upper_tail((distance - 0.5) / deviation))
    }
}

/// Ranks from 1, equal values sharing their mean, and the sum of c³ - c over
/// the groups of c equal values.
fn ranks(values: &[f64]) -> (Vec<f64>, f64) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let (mut ties, mut before) = (0.0, 0);
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let count = group.len() as f64;
        for &index in group {
            ranks[index] = before as f64 + (count + 1.0) / 2.0;
        }
        ties += count.powi(3) - count;
        before += group.len();
    }
    (ranks, ties)
}

/// P(U >= u) of samples of n and m values: of all ways to choose n of the
/// n + m ranks, those whose sum is high enough.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn exact_upper_tail(u: f64, n: usize, m: usize) -> f64 {
    // ways[k][s]: ways to choose k of the ranks so far with sum s above the
    // least sum that k ranks can have.
    let mut ways = vec![vec![0.0; n * m + 1]; n + 1];
    ways[0][0] = 1.0;
    for rank in 0..n + m {
        for k in (1..=n.min(rank + 1)).rev() {
            // The k-th chosen rank stands this far above its lowest place.
            let above = rank + 1 - k;
            for sum in (above..=n * m).rev() {
                ways[k][sum] += ways[k - 1][sum - above];
            }
        }
    }
    let all: f64 = ways[n].iter().sum();
    ways[n][u as usize..].iter().sum::<f64>() / all
}

/// Probability that a normal variable is above z. Off by at most 7.5e-8:
/// `erfc` by M. Abramowitz, I. A. Stegun, "Handbook of Mathematical Functions",
/// formula 7.1.26.
pub fn upper_tail(z: f64) -> f64 {
    let x = z.abs() / SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let polynomial = [
        1.061_405_429,
        -1.453_152_027,
        1.421_413_741,
        -0.284_496_736,
        0.254_829_592,
    ]
    .iter()
    .fold(0.0, |sum, a| (sum + a) * t);
    let tail = 0.5 * polynomial * (-x * x).exp();
    if z < 0.0 { 1.0 - tail } else { tail }
}

/// The value that a normal variable stays below with probability p, 0 < p < 1.
/// Off by at most 1.15e-9 of itself: P. J. Acklam's rational approximation
/// ("An algorithm for computing the inverse normal cumulative distribution
/// function", 2003).
pub fn quantile(p: f64) -> f64 {
    const P_LOW: f64 = 0.024_25;
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    if p < P_LOW {
        let q = (-2.0 * p.ln()).sqrt();
        let above = polynomial(
            q,
            &[
                -7.784_894_002_430_293e-3,
                -3.223_964_580_411_365e-1,
                -2.400_758_277_161_838,
                -2.549_732_539_343_734,
                4.374_664_141_464_968,
                2.938_163_982_698_783,
            ],
        );
        let below = polynomial(
            q,
            &[
                7.784_695_709_041_462e-3,
                3.224_671_290_700_398e-1,
                2.445_134_137_142_996,
                3.754_408_661_907_416,
                1.0,
            ],
        );
        return above / below;
    }
    let q = p - 0.5;
    let r = q * q;
    let above = polynomial(
        r,
        &[
            -3.969_683_028_665_376e1,
            2.209_460_984_245_205e2,
            -2.759_285_104_469_687e2,
            1.383_577_518_672_69e2,
            -3.066_479_806_614_716e1,
            2.506_628_277_459_239,
        ],
    );
    let below = polynomial(
        r,
        &[
            -5.447_609_879_822_406e1,
            1.615_858_368_580_409e2,
            -1.556_989_798_598_866e2,
            6.680_131_188_771_972e1,
            -1.328_068_155_288_572e1,
            1.0,
        ],
    );
    above * q / below
}

/// By Horner, the highest power first.
fn polynomial(x: f64, coefficients: &[f64]) -> f64 {
    coefficients.iter().fold(0.0, |sum, c| sum * x + c)
}

/// The arithmetic mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The middle of values in ascending order; NaN of nothing.
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64, error: f64) {
        assert!((left - right).abs() <= error, "{left} is not {right}");
    }

    // The expected values of these tests are those of SciPy 1.17.

    #[test]
    fn few_values_without_ties_are_exact() {
        let (x, y) = ([1.2, 3.4, 5.6, 7.8, 9.1], [0.5, 1.1, 2.2, 3.3, 4.4, 6.6]);
        let test = MannWhitney::of(&x, &y);
        assert_eq!(test.u, 23.0);
        close(test.p_greater().unwrap(), 0.088_744_588_744_588_74, 1e-15);
        let test = MannWhitney::of(&y, &x);
        assert_eq!(test.u, 7.0);
        close(test.p_greater().unwrap(), 0.937_229_437_229_437_2, 1e-15);
    }

    #[test]
    fn ties_share_their_rank() {
        let x = [0.0, 0.0, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.5, 0.6];
        let y = [0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.2, 0.2, 0.3, 0.4];
        let test = MannWhitney::of(&x, &y);
        assert_eq!(test.u, 68.0);
        close(test.p_greater().unwrap(), 0.089_177_136_574_935_03, 7.5e-8);
        close(test.z().unwrap(), 1.345_839_532_296_702_5, 1e-14);
        let test = MannWhitney::of(&y, &x);
        close(test.p_greater().unwrap(), 0.922_594_903_795_060_7, 7.5e-8);
        close(test.z().unwrap(), -1.345_839_532_296_702_5, 1e-14);
        let few = MannWhitney::of(&[1.0, 2.0, 2.0, 3.0], &[2.0, 4.0]);
        close(few.p_greater().unwrap(), 0.890_590_292_088_254_5, 7.5e-8);
        assert_eq!(MannWhitney::of(&[1.0, 1.0], &[1.0]).p_greater(), None);
    }

    #[test]
    fn many_values_are_about_normal() {
        let x = [61.2, 63.1, 60.4, 66.0, 64.4, 62.3, 65.1, 67.8, 61.9, 63.7];
        let y = [60.1, 59.3, 61.0, 62.2, 58.8, 60.9, 61.5, 59.9, 63.0, 60.2];
        let test = MannWhitney::of(&x, &y);
        assert_eq!(test.u, 89.0);
        close(
            test.p_greater().unwrap(),
            0.001_805_257_156_164_801_4,
            7.5e-8,
        );
    }

    #[test]
    fn the_normal_distribution() {
        for (z, tail) in [
            (-3.0, 0.998_650_101_968_369_9),
            (-1.0, 0.841_344_746_068_542_9),
            (0.0, 0.5),
            (0.5, 0.308_537_538_725_986_9),
            (1.644_9, 0.049_995_217_468_346_31),
            (4.0, 3.167_124_183_311_986e-5),
        ] {
            close(upper_tail(z), tail, 7.5e-8);
        }
        for (p, z) in [
            (0.001, -3.090_232_306_167_813),
            (0.01, -2.326_347_874_040_840_8),
            (0.3, -0.524_400_512_708_041),
            (0.5, 0.0),
            (0.95, 1.644_853_626_951_472_2),
        ] {
            close(quantile(p), z, 1.15e-9 * z.abs());
        }
    }
}

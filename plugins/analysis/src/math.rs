//! The few functions that the standard library lacks.

/// Logarithm of zero, near enough: `-inf` would give `inf - inf`.
pub const LOG_ZERO: f64 = -1e300;

/// `ln Σ exp(x)`, without overflow.
#[must_use]
pub fn log_sum_exp(xs: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = xs.clone().fold(LOG_ZERO, f64::max);
    if max <= -1e299 {
        return LOG_ZERO;
    }
    max + xs.map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// `ln(exp(a) + exp(b))`.
#[must_use]
pub fn log_add(a: f64, b: f64) -> f64 {
    log_sum_exp([a, b].into_iter())
}

/// Probability that a standard normal variable is below `z`; absolute error
/// below 7.5e-8 (Abramowitz and Stegun 1964, formula 26.2.17).
#[must_use]
pub fn normal_cdf(z: f64) -> f64 {
    const B: [f64; 5] = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let upper = density * t * B.iter().rev().fold(0.0, |sum, b| sum * t + b);
    if z < 0.0 { upper } else { 1.0 - upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_logarithms() {
        assert!((log_add(2.0_f64.ln(), 3.0_f64.ln()) - 5.0_f64.ln()).abs() < 1e-15);
        assert_eq!(log_add(LOG_ZERO, 1.0), 1.0);
        assert_eq!(log_add(LOG_ZERO, LOG_ZERO), LOG_ZERO);
        assert_eq!(log_add(1_000.0, 0.0), 1_000.0);
    }

    #[test]
    fn the_normal_distribution() {
        for (z, p) in [
            (0.0, 0.5),
            (1.644_853_627, 0.95),
            (-2.326_347_874, 0.01),
            (5.0, 0.999_999_713),
        ] {
            assert!((normal_cdf(z) - p).abs() < 1e-7, "{z}");
        }
    }
}

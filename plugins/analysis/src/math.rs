//! Functions that the standard library lacks.

/// Stands for the logarithm of zero: `-inf` would give `inf - inf`.
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

/// Probability of `least` or more hits in `of` independent tries that hit with
/// probability `p` each: the p-value of an exact binomial test.
#[must_use]
pub fn binomial_tail(least: u32, of: u32, p: f64) -> f64 {
    if least == 0 {
        return 1.0;
    }
    if least > of || p <= 0.0 {
        return 0.0;
    }
    if p >= 1.0 {
        return 1.0;
    }
    let (k, n) = (f64::from(least), f64::from(of));
    // Terms that fall from the first one on cannot underflow, and soon vanish.
    if k <= n * p {
        return 1.0 - binomial_tail(of - least + 1, of, 1.0 - p);
    }
    let choose: f64 = (1..=least).map(|i| ((n - k) / f64::from(i)).ln_1p()).sum();
    let mut term = (choose + k * p.ln() + (n - k) * (-p).ln_1p()).exp();
    let mut sum = 0.0;
    for i in least..=of {
        sum += term;
        if term <= sum * f64::EPSILON {
            break;
        }
        term *= f64::from(of - i) / (f64::from(i) + 1.0) * (p / (1.0 - p));
    }
    sum.min(1.0)
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

    #[test]
    fn the_tail_of_the_binomial_distribution() {
        // Sums of exact terms.
        for (least, of, p, tail) in [
            (0, 10, 0.3, 1.0),
            (11, 10, 0.3, 0.0),
            (10, 10, 1.0, 1.0),
            (1, 1, 0.073, 0.073),
            (3, 3, 0.05, 0.000_125),
            (5, 10, 0.05, 6.368_983_144_531_25e-5),
            (4, 20, 0.011, 6.160_527_363_383_001e-5),
            (40, 1_000, 0.05, 0.940_185_120_948_096_7),
            (60, 1_000, 0.05, 0.086_732_178_384_860_96),
            (900, 20_000, 0.05, 0.9995331158586739),
            (1_200, 20_000, 0.05, 1.5981393278333447e-10),
        ] {
            let got = binomial_tail(least, of, p);
            assert!((got - tail).abs() <= 1e-10 * tail, "{least} of {of}: {got}");
        }
    }
}

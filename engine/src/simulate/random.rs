//! Random numbers without state: every number is a pure function of its purpose, so
//! what one part of the simulation draws cannot change the numbers of another.
//!
//! A [`Draws`] turns a quantity into a uniform number; the functions below turn
//! a uniform number into a sample by inverting the distribution's CDF. With one
//! uniform number for each sample, a sample changes smoothly with its parameters:
//! with the same seed, more traffic gives more requests.
//!
//! All of it is plain IEEE arithmetic and the `libm` crate, so the same seed
//! gives the same bytes on every machine.

/// The variance up to which the discrete distributions are inverted exactly.
const EXACT_VARIANCE: f64 = 60.0;

/// The number of clusters up to which [`geometric_sum`] is inverted exactly. With
/// more it is close enough to a normal distribution.
const EXACT_CLUSTERS: u32 = 100;

/// What a number belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Both arms together.
    Shared,
    /// The stable arm.
    Stable,
    /// The candidate arm.
    Candidate,
    /// One zone of the stable arm before the rollout, from 0.
    Zone(u32),
}

impl Owner {
    fn code(self) -> u64 {
        match self {
            Self::Shared => 0,
            Self::Stable => 1,
            Self::Candidate => 2,
            Self::Zone(zone) => 16 + u64::from(zone),
        }
    }
}

/// The uniform numbers of one owner at one index, which is an interval or a
/// task.
#[derive(Debug, Clone, Copy)]
pub struct Draws(u64);

impl Draws {
    /// The numbers of `owner` at `index` in this replicate.
    #[must_use]
    pub fn new(seed: u64, replicate: u32, index: i64, owner: Owner) -> Self {
        let key = [u64::from(replicate), index.cast_unsigned(), owner.code()]
            .into_iter()
            .fold(mix(seed), absorb);
        Self(key)
    }

    /// A number in the open interval from 0 to 1.
    #[must_use]
    pub fn uniform(self, quantity: u32) -> f64 {
        // 52 bits and a half: never 0 or 1, and each of them exact.
        ((absorb(self.0, u64::from(quantity)) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// A number from the standard normal distribution.
    #[must_use]
    pub fn normal(self, quantity: u32) -> f64 {
        normal(self.uniform(quantity))
    }
}

fn absorb(key: u64, word: u64) -> u64 {
    mix(key ^ mix(word))
}

/// The output step of `SplitMix64` with its increment (Steele, Lea and Flood,
/// "Fast splittable pseudorandom number generators", OOPSLA 2014; constants of
/// Stafford's variant 13). A bijection in which each input bit flips each
/// output bit about half of the time.
fn mix(word: u64) -> u64 {
    let z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The standard normal quantile of `u`, to about 16 digits (Wichura, "Algorithm
/// AS 241: the percentage points of the normal distribution", Applied
/// Statistics 37, 1988; routine PPND16).
#[must_use]
#[expect(clippy::excessive_precision, reason = "the digits as published")]
pub fn normal(u: f64) -> f64 {
    let q = u - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * ratio(
            r,
            [
                3.387_132_872_796_366_608_0,
                1.331_416_678_917_843_774_5e2,
                1.971_590_950_306_551_442_7e3,
                1.373_169_376_550_946_112_5e4,
                4.592_195_393_154_987_145_7e4,
                6.726_577_092_700_870_085_3e4,
                3.343_057_558_358_812_810_5e4,
                2.509_080_928_730_122_672_7e3,
            ],
            [
                1.0,
                4.231_333_070_160_091_125_2e1,
                6.871_870_074_920_579_083_0e2,
                5.394_196_021_424_751_107_7e3,
                2.121_379_430_158_659_586_7e4,
                3.930_789_580_009_271_061_0e4,
                2.872_908_573_572_194_267_4e4,
                5.226_495_278_852_854_561_0e3,
            ],
        );
    }
    let r = libm::sqrt(-libm::log(u.min(1.0 - u)));
    let x = if r <= 5.0 {
        ratio(
            r - 1.6,
            [
                1.423_437_110_749_683_577_34,
                4.630_337_846_156_545_295_90,
                5.769_497_221_460_691_405_50,
                3.647_848_324_763_204_605_04,
                1.270_458_252_452_368_382_58,
                2.417_807_251_774_506_117_70e-1,
                2.272_384_498_926_918_458_33e-2,
                7.745_450_142_783_414_076_40e-4,
            ],
            [
                1.0,
                2.053_191_626_637_758_821_87,
                1.676_384_830_183_803_849_40,
                6.897_673_349_851_000_045_50e-1,
                1.481_039_764_274_800_745_90e-1,
                1.519_866_656_361_645_719_66e-2,
                5.475_938_084_995_344_946_00e-4,
                1.050_750_071_644_416_843_24e-9,
            ],
        )
    } else {
        ratio(
            r - 5.0,
            [
                6.657_904_643_501_103_777_20,
                5.463_784_911_164_114_369_90,
                1.784_826_539_917_291_335_80,
                2.965_605_718_285_048_912_30e-1,
                2.653_218_952_657_612_309_30e-2,
                1.242_660_947_388_078_438_60e-3,
                2.711_555_568_743_487_578_15e-5,
                2.010_334_399_292_288_132_65e-7,
            ],
            [
                1.0,
                5.998_322_065_558_879_376_90e-1,
                1.369_298_809_227_358_053_10e-1,
                1.487_536_129_085_061_485_25e-2,
                7.868_691_311_456_132_591_00e-4,
                1.846_318_317_510_054_681_80e-5,
                1.421_511_758_316_445_888_70e-7,
                2.044_263_103_389_939_785_64e-15,
            ],
        )
    };
    if q < 0.0 { -x } else { x }
}

/// One polynomial over another, coefficients of low powers first.
fn ratio(x: f64, above: [f64; 8], below: [f64; 8]) -> f64 {
    let horner = |c: [f64; 8]| c.iter().rev().fold(0.0, |sum, c| sum * x + c);
    horner(above) / horner(below)
}

/// The number of events when `mean` are expected: exact up to a variance of 60,
/// beyond that at most 1 off, and seldom so.
#[must_use]
pub fn poisson(u: f64, mean: f64) -> u32 {
    // The probability of 0 is at least 1 - mean.
    if u <= 1.0 - mean {
        return 0;
    }
    if mean < EXACT_VARIANCE {
        return invert(u, libm::exp(-mean), u32::MAX, |k| {
            mean / (f64::from(k) + 1.0)
        });
    }
    let sd = mean.sqrt();
    whole(cornish_fisher(u, mean, sd, 1.0 / sd, 1.0 / mean))
}

/// The number of `n` that have a property which each has with probability `p`:
/// exact up to a variance of 60, beyond that at most 1 off, and seldom so.
#[must_use]
pub fn binomial(u: f64, n: u32, p: f64) -> u32 {
    if p > 0.5 {
        return n - binomial(1.0 - u, n, 1.0 - p);
    }
    let (count, q) = (f64::from(n), 1.0 - p);
    let mean = count * p;
    // The probability of 0 is at least 1 - mean.
    if u <= 1.0 - mean {
        return 0;
    }
    let variance = mean * q;
    if variance < EXACT_VARIANCE {
        let odds = p / q;
        let none = libm::exp(count * libm::log1p(-p));
        return invert(u, none, n, |k| {
            let k = f64::from(k);
            odds * (count - k) / (k + 1.0)
        });
    }
    let sd = variance.sqrt();
    let excess = (1.0 - 6.0 * p * q) / variance;
    whole(cornish_fisher(u, mean, sd, (q - p) / sd, excess)).min(n)
}

/// The total size of `clusters` clusters, less one for each, if the size of a
/// cluster is geometric from 1 with the given mean: the negative binomial
/// distribution. Exact up to 100 clusters; beyond that off by at most 1, or 1 % of
/// a standard deviation.
#[must_use]
pub fn geometric_sum(u: f64, clusters: u32, mean: f64) -> u32 {
    if clusters == 0 || mean <= 1.0 {
        return 0;
    }
    let (count, stop) = (f64::from(clusters), 1.0 / mean);
    let go = 1.0 - stop;
    let none = libm::exp(count * libm::log(stop));
    if clusters <= EXACT_CLUSTERS && none > f64::MIN_POSITIVE {
        return invert(u, none, u32::MAX, |k| {
            let k = f64::from(k);
            go * (count + k) / (k + 1.0)
        });
    }
    let spread = count * go;
    let (skew, excess) = (
        (1.0 + go) / spread.sqrt(),
        6.0 / count + stop * stop / spread,
    );
    whole(cornish_fisher(
        u,
        spread * mean,
        spread.sqrt() * mean,
        skew,
        excess,
    ))
}

/// The smallest count whose CDF reaches `u`: the sum of the probabilities, each
/// from the one before.
fn invert(u: f64, none: f64, most: u32, step: impl Fn(u32) -> f64) -> u32 {
    let (mut k, mut probability, mut sum) = (0, none, none);
    while sum < u && k < most {
        let factor = step(k);
        probability *= factor;
        let before = sum;
        sum += probability;
        // Past the mode the terms no longer change the sum, which rounding keeps below u.
        if factor < 1.0 && sum == before {
            break;
        }
        k += 1;
    }
    k
}

/// The quantile of a count from its cumulants: the normal quantile, corrected
/// for skewness and excess kurtosis (Cornish and Fisher 1938, to the third
/// order). The variance is reduced by that of rounding, 1/12 (Sheppard), because
/// the result is rounded.
fn cornish_fisher(u: f64, mean: f64, sd: f64, skew: f64, excess: f64) -> f64 {
    let z = normal(u);
    let z2 = z * z;
    let corrected = z + skew * (z2 - 1.0) / 6.0 + excess * z * (z2 - 3.0) / 24.0
        - skew * skew * z * (2.0 * z2 - 5.0) / 36.0;
    mean + (sd * sd - 1.0 / 12.0).sqrt() * corrected
}

/// The nearest count; the conversion saturates.
fn whole(x: f64) -> u32 {
    (x + 0.5).floor() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LUCK: [f64; 13] = [
        1e-9,
        1e-6,
        1e-4,
        0.003,
        0.05,
        0.21,
        0.4999,
        0.77,
        0.93,
        0.996,
        0.9999,
        0.999_999,
        0.999_999_999,
    ];

    /// How far `k` is from the quantile by the exact CDF; a `u` within rounding
    /// of a step counts as met on both sides.
    fn miss(u: f64, k: u32, log_pmf: impl Fn(f64) -> f64) -> u32 {
        let (mut sum, mut exact) = (0.0, 0);
        loop {
            sum += libm::exp(log_pmf(f64::from(exact)));
            if (sum - u).abs() < 1e-11 && k.abs_diff(exact) <= 1 {
                return 0;
            }
            if sum >= u {
                return k.abs_diff(exact);
            }
            exact += 1;
        }
    }

    fn log_choose(n: f64, k: f64) -> f64 {
        libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0)
    }

    fn log_poisson(mean: f64) -> impl Fn(f64) -> f64 {
        move |k| k * libm::log(mean) - mean - libm::lgamma(k + 1.0)
    }

    fn log_binomial(n: u32, p: f64) -> impl Fn(f64) -> f64 {
        let n = f64::from(n);
        move |k| log_choose(n, k) + k * libm::log(p) + (n - k) * libm::log1p(-p)
    }

    fn log_geometric_sum(clusters: u32, mean: f64) -> impl Fn(f64) -> f64 {
        let m = f64::from(clusters);
        move |k| log_choose(m + k - 1.0, k) + k * libm::log1p(-1.0 / mean) - m * libm::log(mean)
    }

    #[test]
    fn uniform_numbers_are_open_even_and_independent() {
        let numbers: Vec<f64> = (0..100_000)
            .map(|i| Draws::new(7, i / 1000, i64::from(i % 1000) - 500, Owner::Stable).uniform(3))
            .collect();
        assert!(numbers.iter().all(|u| (f64::MIN_POSITIVE..1.0).contains(u)));
        let count = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / count;
        // 4 standard errors.
        assert!(
            (mean - 0.5).abs() < 4.0 * (1.0 / 12.0 / count).sqrt(),
            "{mean}"
        );
        let mut bins = [0.0_f64; 100];
        for u in &numbers {
            bins[whole(u * 100.0 - 0.5) as usize] += 1.0;
        }
        let chi2: f64 = bins
            .iter()
            .map(|n| (n - 1000.0) * (n - 1000.0) / 1000.0)
            .sum();
        assert!((50.0..160.0).contains(&chi2), "{chi2}");
        let pairs: f64 = numbers
            .windows(2)
            .map(|w| (w[0] - 0.5) * (w[1] - 0.5))
            .sum();
        assert!((pairs * 12.0 / count.sqrt()).abs() < 4.0, "{pairs}");
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let base = (1, 2, 3, Owner::Zone(0), 4);
        let of = |(s, r, i, o, q): (u64, u32, i64, Owner, u32)| Draws::new(s, r, i, o).uniform(q);
        assert_eq!(of(base).to_bits(), of(base).to_bits());
        let others = [
            (2, 2, 3, Owner::Zone(0), 4),
            (1, 3, 3, Owner::Zone(0), 4),
            (1, 2, -3, Owner::Zone(0), 4),
            (1, 2, 3, Owner::Zone(1), 4),
            (1, 2, 3, Owner::Shared, 4),
            (1, 2, 3, Owner::Zone(0), 5),
        ];
        for other in others {
            assert_ne!(of(base).to_bits(), of(other).to_bits(), "{other:?}");
        }
    }

    #[test]
    fn the_first_numbers_stay_what_they_are() {
        let draws = Draws::new(101, 0, 0, Owner::Shared);
        let bits: Vec<u64> = (0..3).map(|q| draws.uniform(q).to_bits()).collect();
        assert_eq!(bits, PINNED);
    }

    const PINNED: [u64; 3] = [
        4_603_624_969_654_879_049,
        4_599_881_660_417_501_978,
        4_600_123_342_234_582_210,
    ];

    #[test]
    fn normal_is_the_inverse_of_the_error_function() {
        assert!(normal(0.5).abs() < 1e-16);
        for u in LUCK.into_iter().chain([1e-300, 1e-30, 1e-15]) {
            let back = 0.5 * libm::erfc(-normal(u) / std::f64::consts::SQRT_2);
            assert!((back / u - 1.0).abs() < 1e-12, "{u} {back}");
        }
    }

    #[test]
    fn small_variances_are_exact() {
        for u in LUCK {
            for mean in [0.001, 0.3, 1.0, 7.5, 30.0, 59.9] {
                assert_eq!(
                    miss(u, poisson(u, mean), log_poisson(mean)),
                    0,
                    "{u} {mean}"
                );
            }
            for (n, p) in [
                (1, 0.5),
                (9, 0.02),
                (60, 0.9),
                (239, 0.5),
                (1200, 0.03),
                (30_000, 0.0015),
            ] {
                let k = binomial(u, n, p);
                assert_eq!(miss(u, k, log_binomial(n, p)), 0, "{u} {n} {p}");
            }
            for (clusters, mean) in [(1, 5.0), (1, 500.0), (7, 1.2), (100, 5.0)] {
                let k = geometric_sum(u, clusters, mean);
                assert_eq!(
                    miss(u, k, log_geometric_sum(clusters, mean)),
                    0,
                    "{u} {clusters} {mean}"
                );
            }
        }
    }

    #[test]
    fn large_variances_are_at_most_one_off() {
        for u in LUCK {
            for mean in [60.0, 61.3, 100.7, 1200.0, 30_000.0] {
                assert!(
                    miss(u, poisson(u, mean), log_poisson(mean)) <= 1,
                    "{u} {mean}"
                );
            }
            for (n, p) in [
                (241, 0.5),
                (400, 0.8),
                (1200, 0.06),
                (2000, 0.968),
                (30_000, 0.0021),
                (30_000, 0.3),
            ] {
                let k = binomial(u, n, p);
                assert!(miss(u, k, log_binomial(n, p)) <= 1, "{u} {n} {p}");
            }
            for (clusters, mean) in [(101, 1.5), (101, 5.0), (300, 20.0)] {
                let k = geometric_sum(u, clusters, mean);
                let sd = (f64::from(clusters) * (mean - 1.0) * mean).sqrt();
                let off = miss(u, k, log_geometric_sum(clusters, mean));
                assert!(
                    f64::from(off) <= 1.0 + 0.01 * sd,
                    "{u} {clusters} {mean}: {off}"
                );
            }
        }
    }

    #[test]
    fn the_ends_are_met() {
        assert_eq!(poisson(0.999, 0.0), 0);
        assert_eq!(binomial(0.5, 0, 0.3), 0);
        assert_eq!(binomial(0.999, 5, 0.0), 0);
        assert_eq!(binomial(0.001, 5, 1.0), 5);
        assert_eq!(binomial(0.001, 500_000, 1.0), 500_000);
        assert_eq!(geometric_sum(0.5, 0, 3.0), 0);
        assert_eq!(geometric_sum(0.5, 9, 1.0), 0);
        let last = 1.0 - f64::EPSILON / 2.0;
        assert!(poisson(last, 59.0) < 200 && poisson(last, 1e-9) < 3);
        assert!(binomial(last, 1000, 0.4) < 700);
    }
}

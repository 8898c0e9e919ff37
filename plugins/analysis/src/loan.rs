//! What the stable arm's past lends to it: a few requests are a poor control, and the
//! usual rate is known.

use crate::Counts;
use crate::calibration::Spread;

/// Number of intervals over which the whole past is spread when it is lent.
const LENT_OVER: f64 = 60.0;
/// Number of intervals for which the common rate may stay off its past. What is lent in
/// all of them together knows that rate no better than it sways.
const SWAY_INTERVALS: f64 = 60.0;
/// A control of this many times the candidate's requests needs no more.
const CONTROL_ENOUGH: f64 = 4.0;
/// A level of stable's beyond this many times the usual one, plus so many standard
/// deviations, shows that the past does not hold now.
const USUAL: (f64, f64) = (1.5, 2.0);
/// Fewest expected events for that standard deviation.
const EXPECTED_MIN: f64 = 0.25;

/// Requests, with the usual number of bad ones, that join the stable arm's own in the
/// comparison: a Gamma prior of the rate that both arms have in common. `most` times the
/// stable arm's own requests at most; nothing while the stable arm, in this interval or
/// `lately`, is above its past.
pub(crate) fn lent(
    [candidate, stable]: [Counts; 2],
    lately: Counts,
    spread: &Spread,
    most: f64,
) -> Counts {
    let past = spread.reference;
    if most <= 0.0 || past.of <= 0.0 || candidate.of <= 0.0 || stable.of <= 0.0 {
        return Counts::default();
    }
    let rate = (past.bad + 0.5) / past.of;
    let is_usual = |seen: Counts| {
        let expected = seen.of * rate;
        let (times, deviations) = USUAL;
        let noise = (spread.dispersion * expected.max(EXPECTED_MIN)).sqrt();
        seen.bad <= times * expected + deviations * noise
    };
    if !is_usual(lately.and(stable)) || !is_usual(stable) {
        return Counts::default();
    }
    let of = (CONTROL_ENOUGH * candidate.of - stable.of)
        .min(most * stable.of)
        .min(past.of / LENT_OVER)
        .min(1.0 / (SWAY_INTERVALS * spread.sway * rate))
        .max(0.0);
    Counts::new(of * rate, of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(bad: f64, of: f64) -> Spread {
        Spread {
            dispersion: 1.0,
            weight: 130.0,
            drift: 0.0,
            total_dispersion: 1.0,
            between: 0.0,
            within: 0.0,
            reference: Counts::new(bad, of),
            sway: 0.15 * 0.15,
        }
    }

    #[test]
    fn a_poor_control_gets_more_and_a_good_one_nothing() {
        let arms = |candidate: f64, stable: f64| {
            [
                Counts::new(1.0, candidate),
                Counts::new((stable * 0.001).floor(), stable),
            ]
        };
        let past = spread(72.0, 72_000.0);
        let of = |arms| lent(arms, Counts::default(), &past, 3.0).of;
        // 4 x 60 - 60 is more than three times stable's 60.
        assert!((of(arms(60.0, 60.0)) - 180.0).abs() < 1e-9);
        // Half of 600: three times stable's, 4 x 300 - 300, and a sixtieth of the past.
        assert!((of(arms(300.0, 300.0)) - 1.0 / (60.0 * 0.0225 * 72.5 / 72_000.0)).abs() < 1e-6);
        assert_eq!(of(arms(3.0, 57.0)), 0.0);
    }

    #[test]
    fn nothing_is_lent_without_a_past_or_above_it() {
        let arms = |bad: f64| [Counts::new(1.0, 60.0), Counts::new(bad, 60.0)];
        let lends = |arms, lately, past: &Spread| lent(arms, lately, past, 3.0).of > 0.0;
        let past = spread(72.0, 7_200.0);
        assert!(lends(arms(1.0), Counts::default(), &past));
        assert!(!lends(arms(8.0), Counts::default(), &past), "this interval");
        let high = Counts::new(40.0, 600.0);
        assert!(!lends(arms(1.0), high, &past), "the last ten");
        assert!(!lends(arms(1.0), Counts::default(), &spread(0.0, 0.0)));
        assert_eq!(lent(arms(1.0), Counts::default(), &past, 0.0).of, 0.0);
    }
}

//! Which faults a rollout would show, and after how long: what was not seen may have been
//! too small to be seen.

use crate::calibration::{Calibration, index};
use crate::config::{Config, Stream};
use crate::evidence::Split;
use crate::loan::lent;
use crate::{Counts, Step};

/// The part of the prior that the alternative nearest to a fault has, times what was staked
/// before it began.
const STAKED: f64 = 0.1;
/// A step that is to show a fault lasts this many times as long as it takes on average,
/// because chance is not the average.
const SURE: f64 = 1.3;
/// Longest time, in intervals, for which a step is made longer to show one.
const LONGEST: u32 = 90;

/// Why a fault does not show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unseen {
    /// Nothing is known of the service, so nobody can tell.
    Unknown,
    /// The fault is too small to count, whatever the traffic is: rates that differ by less
    /// than this, or versions that differ by no more than two tasks of one do.
    TooSmall {
        /// The least difference of the rates (0-1) that counts.
        least: f64,
    },
    /// There are too few requests for it within the longest time that a step is made.
    TooFew {
        /// That time, in intervals.
        longest: u32,
    },
}

/// What a service is like, with which faults are weighed.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The noise, and the usual rate of errors.
    pub calibration: &'a Calibration,
    /// The constants.
    pub config: &'a Config,
    /// Requests of both arms per interval.
    pub requests: f64,
}

impl Sight<'_> {
    /// Intervals until a fault decides that adds so much to the rate of errors (0-1), with
    /// this share of the traffic (0-1), on average: `ln(1 / (0.1 alpha w)) / min(cap, D /
    /// noise)` where `w` is the part of the evidence that errors have and `D` what one
    /// interval tells, the expected log likelihood ratio of the fault against the margin.
    /// `None` if it never does: the fault is too small to count, or nothing is known of
    /// the service.
    #[must_use]
    pub fn intervals(&self, more: f64, share: f64) -> Option<f64> {
        let stream = self.config.streams.first()?;
        let spread = self.calibration.spreads.first()?;
        let past = spread.reference;
        let decides = stream.excess_min(past) <= more;
        if !decides || past.of <= 0.0 || self.requests <= 0.0 || share <= 0.0 || share >= 1.0 {
            return None;
        }
        let rate = (past.bad + 0.5) / past.of;
        let arm = |of: f64, rate: f64| Counts::new(of * rate, of);
        let candidate = arm(self.requests * share, rate + more);
        let stable = arm(self.requests * (1.0 - share), rate);
        let lately = arm(stable.of * index(self.config.window), rate);
        let loan = lent([candidate, stable], lately, spread, self.config.borrow);
        let control = Counts::new(stable.bad + loan.bad, stable.of + loan.of);
        let margin = self.calibration.margin(0, share, self.config);
        let split = Split::of(candidate, control, margin)?;
        let told = split.log_ratio((rate + more) / rate);
        let noise = spread.dispersion + split.variance * spread.drift;
        let (needed, cap) = self.limits(stream);
        (told > 0.0).then(|| needed / (told / noise).min(cap))
    }

    /// The log evidence that decides, and the most of it that one interval brings.
    fn limits(&self, stream: &Stream) -> (f64, f64) {
        let alpha = self.config.alpha;
        let needed = (1.0 / (STAKED * alpha * stream.share)).ln();
        (needed, stream.log_cap(alpha))
    }

    /// Intervals until such a fault decides on the way up these steps, each of which takes
    /// as long as it may; `None` if it gets to the end without.
    #[must_use]
    pub fn climb(&self, steps: &[Step], more: f64) -> Option<f64> {
        let (mut seen, mut time) = (0.0, 0.0);
        for step in steps {
            let bake = f64::from(step.bake_max);
            if let Some(needed) = self.intervals(more, step.share) {
                let left = (1.0 - seen) * needed;
                if left <= bake {
                    return Some(time + left);
                }
                seen += bake / needed;
            }
            time += bake;
        }
        None
    }

    /// Makes the step longer at which such a fault shows soonest, so that it does. Where it
    /// takes longer than a step is made, that one is as long as may be.
    ///
    /// # Errors
    /// Why it does not show.
    pub fn lengthen(&self, steps: &mut [Step], more: f64) -> Result<(), Unseen> {
        let needed = steps.iter().enumerate().filter_map(|(at, step)| {
            let needed = SURE * self.intervals(more, step.share)?;
            Some((at, needed))
        });
        let Some((at, needed)) = needed.min_by(|(_, a), (_, b)| a.total_cmp(b)) else {
            return Err(self.unseen());
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let whole = needed.ceil().min(f64::from(LONGEST)) as u32;
        let step = &mut steps[at];
        step.bake_min = step.bake_min.max(whole);
        step.bake_max = step.bake_max.max(step.bake_min);
        match needed <= f64::from(LONGEST) {
            true => Ok(()),
            false => Err(Unseen::TooFew { longest: LONGEST }),
        }
    }

    /// Why a fault shows at no step.
    fn unseen(&self) -> Unseen {
        let spread = self.calibration.spreads.first();
        let past = spread.map_or(Counts::default(), |spread| spread.reference);
        match self.config.streams.first() {
            Some(stream) if past.of > 0.0 && self.requests > 0.0 => Unseen::TooSmall {
                least: stream.excess_min(past),
            },
            _ => Unseen::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Past, StepKind};

    /// A service with that many requests a minute and that rate of errors.
    fn calibration(requests: f64, rate: f64, config: &Config) -> Calibration {
        let minute = vec![vec![Counts::new(requests * rate, requests); 3]];
        Calibration::of(
            &Past {
                intervals: vec![minute; 120],
            },
            config,
        )
    }

    fn step(share: f64, bake_min: u32, bake_max: u32) -> Step {
        Step {
            share,
            kind: StepKind::Ramp,
            bake_min,
            bake_max,
            requests_min: [5.0; 2],
        }
    }

    fn minutes(rps: f64, more: f64, share: f64) -> Option<f64> {
        let config = Config::default().second_edition();
        let requests = rps * 60.0;
        let calibration = calibration(requests, 0.001, &config);
        let sight = Sight {
            calibration: &calibration,
            config: &config,
            requests,
        };
        sight.intervals(more, share)
    }

    /// A point more of errors where a thousandth is usual.
    #[test]
    fn more_traffic_and_a_larger_share_show_a_fault_sooner() {
        let of = |rps: f64, share: f64| minutes(rps, 0.01, share).expect("it shows");
        for rps in [1.0, 5.0, 20.0] {
            assert!(of(rps, 0.05) > of(rps, 0.25) && of(rps, 0.25) > of(rps, 0.5));
        }
        assert!((100.0..300.0).contains(&of(1.0, 0.05)), "{}", of(1.0, 0.05));
        assert!((7.0..17.0).contains(&of(20.0, 0.05)), "{}", of(20.0, 0.05));
        assert!((2.0..4.0).contains(&of(500.0, 0.5)), "capped");
    }

    #[test]
    fn what_is_too_small_to_count_never_shows() {
        assert_eq!(minutes(5_000.0, 0.000_4, 0.5), None);
        assert!(minutes(5_000.0, 0.000_6, 0.5).is_some());
        // All traffic has no control, and none is nothing.
        assert_eq!(minutes(20.0, 0.01, 1.0), None);
        assert_eq!(minutes(0.0, 0.01, 0.5), None);
    }

    #[test]
    fn a_climb_adds_up_and_a_step_is_made_longer() {
        let config = Config::default().second_edition();
        let calibration = calibration(60.0, 0.001, &config);
        let sight = Sight {
            calibration: &calibration,
            config: &config,
            requests: 60.0,
        };
        let mut steps = [step(0.05, 5, 12), step(0.25, 5, 12)];
        assert_eq!(sight.climb(&steps, 0.01), None);
        let much = sight.climb(&steps, 0.2).expect("it shows");
        assert!(much < 12.0, "{much}");
        assert_eq!(sight.lengthen(&mut steps, 0.01), Ok(()));
        assert_eq!((steps[0].bake_min, steps[0].bake_max), (5, 12));
        assert!(steps[1].bake_min > 12 && steps[1].bake_max == steps[1].bake_min);
        assert!(sight.climb(&steps, 0.01).is_some());
        // A fault that no step shows makes one as long as may be, and that is said.
        assert_eq!(
            sight.lengthen(&mut steps, 0.001),
            Err(Unseen::TooFew { longest: 90 })
        );
        assert_eq!(steps[1].bake_min, 90);
    }

    #[test]
    fn why_a_fault_does_not_show_is_told_apart() {
        let config = Config::default().second_edition();
        let known = calibration(60_000.0, 0.001, &config);
        let nothing = Calibration::of(&Past::default(), &config);
        let why = |calibration: &Calibration, requests: f64, more: f64| {
            let mut steps = [step(0.05, 5, 12), step(0.5, 5, 12)];
            let sight = Sight {
                calibration,
                config: &config,
                requests,
            };
            let said = sight.lengthen(&mut steps, more).expect_err("not seen");
            (said, steps.map(|step| step.bake_min))
        };
        let (said, bake) = why(&known, 60_000.0, 0.000_4);
        let Unseen::TooSmall { least } = said else {
            panic!("{said:?}");
        };
        assert!((0.000_4..0.000_6).contains(&least), "{least}");
        assert_eq!(bake, [5, 5]);
        assert_eq!(why(&known, 0.0, 0.01), (Unseen::Unknown, [5, 5]));
        // How many requests there are does not tell how many of them fail.
        assert_eq!(why(&nothing, 60.0, 0.01), (Unseen::Unknown, [5, 5]));
        let few = Unseen::TooFew { longest: 90 };
        assert_eq!(why(&known, 6.0, 0.01), (few, [5, 90]));
    }
}

//! Kayenta's `NetflixACAJudge`: a confidence interval for the shift of a metric.
//!
//! Four metrics: error rate, which is critical and half of the score, and p50,
//! p95 and p99, which share the other half. A metric is *high* if the lower end
//! of the interval of its shift, by Mann and Whitney, is above a quarter of the
//! estimated shift. At the end of every step all minutes since the start are
//! judged: below the marginal score the rollout ends, and the last time it must
//! pass. Minutes without data are left out, and a metric without any is good.
//! The minutes are treated as independent. (Kayenta, `MannWhitney.scala`,
//! `MannWhitneyClassifier.scala`.)

use crate::rule::{ArmMinute, Decision, Metric, Minute, Rule, Schedule};
use crate::statistics::{MannWhitney, mean, median, quantile};

/// Confidence of the interval.
const CONFIDENCE: f64 = 0.98;
/// How far above 0 the interval must begin, as a share of the shift.
const TOLERANCE: f64 = 0.25;
/// Least ratio of the means to be high; 1 is the default and no margin at all.
const RATIO_MIN: f64 = 1.0;
/// Below this score the rollout ends.
const MARGINAL: f64 = 50.0;
/// The last score must reach this.
const PASS: f64 = 75.0;
/// Halvings with which a shift is searched.
const HALVINGS: u32 = 22;

const METRICS: [(&str, Metric); 4] = [
    ("error rate", ArmMinute::error_rate),
    ("p50", |arm| arm.latency.map(|l| l.p50)),
    ("p95", |arm| arm.latency.map(|l| l.p95)),
    ("p99", ArmMinute::p99),
];

/// The state of this rule.
#[derive(Debug, Clone)]
pub struct Kayenta {
    schedule: Schedule,
    minutes: Vec<Minute>,
}

impl Kayenta {
    /// Three hours at 5 %, a look after each.
    pub fn three_hours() -> Self {
        Self::new(&[(5, 60), (5, 60), (5, 60)])
    }

    /// 5, 25 and 50 %, ten minutes each, a look after each.
    pub fn half_an_hour() -> Self {
        Self::new(&[(5, 10), (25, 10), (50, 10)])
    }

    fn new(steps: &[(u32, u32)]) -> Self {
        Self {
            schedule: Schedule::new(steps),
            minutes: vec![],
        }
    }

    /// Why a look ends the rollout, if it does.
    fn judge(&self, last: bool) -> Option<String> {
        let verdicts = METRICS.map(|(_, metric)| {
            let of = |arm: fn(&Minute) -> &ArmMinute| -> Vec<f64> {
                self.minutes.iter().filter_map(|m| metric(arm(m))).collect()
            };
            is_high(of(|m| &m.candidate), of(|m| &m.stable))
        });
        let score = score(verdicts);
        (score < MARGINAL || (last && score < PASS)).then(|| {
            let high: Vec<&str> = METRICS
                .iter()
                .zip(verdicts)
                .filter_map(|((name, _), verdict)| (verdict == Some(true)).then_some(*name))
                .collect();
            format!(
                "score {score:.0} of {} samples: {} higher than stable's (needs {:.0})",
                self.minutes.len(),
                high.join(", "),
                if last { PASS } else { MARGINAL }
            )
        })
    }
}

impl Rule for Kayenta {
    fn schedule(&self) -> Schedule {
        self.schedule.clone()
    }

    fn tick(&mut self, minute: u32, data: Option<&Minute>) -> Decision {
        self.minutes.extend(data);
        let next = self.schedule.share_after(minute + 1);
        if self.schedule.over_after(minute + 1).is_some()
            && let Some(why) = self.judge(next.is_none())
        {
            return Decision::RollBack(why);
        }
        match next {
            Some(share) => Decision::Share(share),
            None => Decision::Promote("the last look passed".to_owned()),
        }
    }
}

/// 0-100, from what each metric is: high, good or without an answer.
fn score([errors, latency @ ..]: [Option<bool>; 4]) -> f64 {
    if errors == Some(true) {
        return 0.0;
    }
    let known: Vec<bool> = latency.into_iter().flatten().collect();
    let good = known.iter().filter(|high| !**high).count();
    let share = if known.is_empty() {
        1.0
    } else {
        good as f64 / known.len() as f64
    };
    50.0 + 50.0 * share
}

/// Whether the candidate's values are high; none if that cannot be said.
fn is_high(mut candidate: Vec<f64>, mut stable: Vec<f64>) -> Option<bool> {
    candidate.sort_by(f64::total_cmp);
    stable.sort_by(f64::total_cmp);
    let (candidate_min, candidate_max) = (*candidate.first()?, *candidate.last()?);
    let (stable_min, stable_max) = (*stable.first()?, *stable.last()?);
    let constant = candidate_min.min(stable_min) == candidate_max.max(stable_max);
    let (here, there) = (mean(&candidate), mean(&stable));
    let lower = median(&candidate) <= median(&stable) && here <= there;
    if candidate == stable || constant || lower {
        return Some(false);
    }
    let range = (candidate_min - stable_max, candidate_max - stable_min);
    let far = TOLERANCE * shift(&candidate, &stable, range)?.abs();
    // The interval begins above `far` if, moved down by `far`, the candidate is
    // still significantly higher.
    let critical = -quantile((1.0 - CONFIDENCE) / 2.0);
    let begins_above = range.0 > far || z_moved(&candidate, &stable, far)? > critical;
    let ratio = (here != 0.0 && there != 0.0).then(|| here / there);
    Some(begins_above && ratio.is_none_or(|r| r >= RATIO_MIN))
}

/// The z of the test with the candidate moved down by `shift`.
fn z_moved(candidate: &[f64], stable: &[f64], shift: f64) -> Option<f64> {
    let moved: Vec<f64> = candidate.iter().map(|value| value - shift).collect();
    MannWhitney::of(&moved, stable).z()
}

/// The shift at which the two do not differ any more (Hodges and Lehmann),
/// searched by halving a range.
fn shift(candidate: &[f64], stable: &[f64], (mut low, mut high): (f64, f64)) -> Option<f64> {
    let at_low = z_moved(candidate, stable, low)?;
    let at_high = z_moved(candidate, stable, high)?;
    if at_low <= 0.0 {
        return Some(low);
    }
    if at_high >= 0.0 {
        return Some(high);
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if z_moved(candidate, stable, middle)? > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
        if high - low < 1e-6 * (high.abs() + 1e-9) {
            break;
        }
    }
    Some(f64::midpoint(low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores() {
        let (bad, good) = (Some(true), Some(false));
        assert!(score([bad, good, good, good]) < MARGINAL);
        assert_eq!(score([good; 4]), 100.0);
        assert_eq!(score([None; 4]), 100.0);
        let one = score([good, good, good, bad]);
        let two = score([good, good, bad, bad]);
        let all = score([good, bad, bad, bad]);
        assert!(one > PASS && two < PASS && two > all && all == MARGINAL);
    }

    #[test]
    fn high_is_above_and_sure() {
        let stable = || (0..10).map(|i| f64::from(60 + i)).collect::<Vec<f64>>();
        let moved = |by: f64| {
            stable()
                .iter()
                .map(|value| value + by)
                .collect::<Vec<f64>>()
        };
        assert_eq!(is_high(moved(20.0), stable()), Some(true));
        assert_eq!(is_high(moved(1.0), stable()), Some(false));
        assert_eq!(is_high(moved(-20.0), stable()), Some(false));
        assert_eq!(is_high(stable(), stable()), Some(false));
        assert_eq!(is_high(vec![], stable()), None);
    }
}

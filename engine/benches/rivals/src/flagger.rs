//! Flagger: two fixed limits at every sample.
//!
//! A good check adds a step of traffic, a failed one keeps the share and is
//! counted; the count never falls. The rollback is looked at before the check,
//! so it comes one sample after the failure that was too many. A candidate
//! without requests has failed the check. Beyond the largest share it is
//! promoted, and nobody looks any more. Nothing is compared with stable.
//! (Flagger, `pkg/controller/scheduler.go`.)

use crate::rule::{ArmMinute, Decision, Minute, Rule, Schedule};

/// The largest share before the promotion, in percent.
pub const SHARE_MAX: u32 = 50;
/// Least share of good answers, 0-1.
const SUCCESS_MIN: f64 = 0.99;
/// Largest p99.
const P99_MS_MAX: f64 = 500.0;

/// The state of this rule.
#[derive(Debug, Clone)]
pub struct Flagger {
    threshold: u32,
    step: u32,
    share: u32,
    failed: u32,
    last_failure: String,
}

impl Flagger {
    /// Rolls back after `threshold` failed checks; goes on by `step` percent.
    pub fn new(threshold: u32, step: u32) -> Self {
        Self {
            threshold,
            step,
            share: step,
            failed: 0,
            last_failure: String::new(),
        }
    }

    fn is_good(arm: &ArmMinute) -> bool {
        arm.error_rate()
            .is_some_and(|rate| 1.0 - rate >= SUCCESS_MIN)
            && arm.p99().is_some_and(|p99| p99 <= P99_MS_MAX)
    }
}

impl Rule for Flagger {
    fn schedule(&self) -> Schedule {
        let shares = (self.step..SHARE_MAX).step_by(self.step.max(1) as usize);
        let steps: Vec<(u32, u32)> = shares.chain([SHARE_MAX]).map(|share| (share, 1)).collect();
        Schedule::new(&steps)
    }

    fn tick(&mut self, _minute: u32, data: Option<&Minute>) -> Decision {
        if self.failed >= self.threshold {
            return Decision::RollBack(format!(
                "{} failed checks, the last one: {} (needs {:.0} % good answers and p99 up to {P99_MS_MAX:.0} ms)",
                self.failed,
                self.last_failure,
                SUCCESS_MIN * 100.0
            ));
        }
        let Some(data) = data else {
            return Decision::Share(self.share);
        };
        if data.missing || !Self::is_good(&data.candidate) {
            self.failed += 1;
            self.last_failure = if data.missing {
                "no metrics".to_owned()
            } else {
                data.candidate.describe()
            };
        } else if self.share >= SHARE_MAX {
            return Decision::Promote(format!(
                "reached {SHARE_MAX} % with {} failed checks",
                self.failed
            ));
        } else {
            self.share = (self.share + self.step).min(SHARE_MAX);
        }
        Decision::Share(self.share)
    }
}

//! A home-grown guard, tuned well: candidate against stable, minute by minute.
//!
//! Three minutes in a row with one point more errors than stable, or three
//! with one and a half times its p99, end the rollout. No tool's own rule.

use crate::rule::{Decision, Minute, Rule, Schedule};

/// The steps of the table: 5, 25 and 50 %, ten minutes each.
const STEPS: [(u32, u32); 3] = [(5, 10), (25, 10), (50, 10)];
/// Share of errors that the candidate may have more than stable.
const ERROR_RATE_MORE: f64 = 0.01;
/// Largest p99 as a multiple of stable's.
const P99_RATIO_MAX: f64 = 1.5;
/// Bad minutes in a row that end it.
const MINUTES: u32 = 3;

/// The state of this rule.
#[derive(Debug, Clone, Default)]
pub struct Relative {
    errors: u32,
    slow: u32,
}

fn has_more_errors(data: &Minute) -> bool {
    matches!(
        (data.candidate.error_rate(), data.stable.error_rate()),
        (Some(candidate), Some(stable)) if candidate > stable + ERROR_RATE_MORE
    )
}

fn is_slower(data: &Minute) -> bool {
    matches!(
        (data.candidate.p99(), data.stable.p99()),
        (Some(candidate), Some(stable)) if candidate > P99_RATIO_MAX * stable
    )
}

impl Rule for Relative {
    fn schedule(&self) -> Schedule {
        Schedule::new(&STEPS)
    }

    fn tick(&mut self, minute: u32, data: Option<&Minute>) -> Decision {
        if let Some(data) = data {
            self.errors = if has_more_errors(data) {
                self.errors + 1
            } else {
                0
            };
            self.slow = if is_slower(data) { self.slow + 1 } else { 0 };
            if self.errors.max(self.slow) >= MINUTES {
                return Decision::RollBack(format!(
                    "worse than stable for {MINUTES} samples in a row; the last one: {}, stable {}",
                    data.candidate.describe(),
                    data.stable.describe()
                ));
            }
        }
        match self.schedule().share_after(minute + 1) {
            Some(share) => Decision::Share(share),
            None => Decision::Promote(format!(
                "never {MINUTES} samples in a row worse than stable"
            )),
        }
    }
}

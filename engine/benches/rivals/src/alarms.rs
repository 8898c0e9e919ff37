//! CodeDeploy and ECS: a fixed bake at each step, and CloudWatch alarms.
//!
//! Two alarms watch the candidate: 5xx rate and p99, each with three of three
//! one-minute datapoints. They are evaluated until the final bake at 100 % is
//! over. A missing datapoint does not breach. An alarm sees a minute one minute
//! after the metric is there.

use crate::rule::{Decision, Minute, Rule, Schedule};

/// Largest share of errors, 0-1.
const ERROR_RATE_MAX: f64 = 0.01;
/// Largest p99.
const P99_MS_MAX: f64 = 500.0;
/// Datapoints in a row that raise an alarm.
const DATAPOINTS: u32 = 3;

/// The state of this rule.
#[derive(Debug, Clone)]
pub struct Alarms {
    schedule: Schedule,
    errors: u32,
    slow: u32,
}

impl Alarms {
    /// CodeDeploy's `Canary10Percent5Minutes`, then an hour in which the old
    /// tasks are kept and the alarms still roll back.
    pub fn codedeploy() -> Self {
        Self::new(&[(10, 5), (100, 60)])
    }

    /// The canary strategy of ECS: its default of 5 % for ten minutes, then a
    /// quarter of an hour of bake.
    pub fn ecs() -> Self {
        Self::new(&[(5, 10), (100, 15)])
    }

    fn new(steps: &[(u32, u32)]) -> Self {
        Self {
            schedule: Schedule::new(steps),
            errors: 0,
            slow: 0,
        }
    }
}

fn count(breached: bool, row: u32) -> u32 {
    if breached { row + 1 } else { 0 }
}

impl Rule for Alarms {
    fn schedule(&self) -> Schedule {
        self.schedule.clone()
    }

    fn extra_delay(&self) -> u32 {
        1
    }

    fn tick(&mut self, minute: u32, data: Option<&Minute>) -> Decision {
        if let Some(data) = data {
            let (rate, p99) = (data.candidate.error_rate(), data.candidate.p99());
            let breaches = |value: Option<f64>, limit| {
                !data.missing && value.is_some_and(|value| value > limit)
            };
            self.errors = count(breaches(rate, ERROR_RATE_MAX), self.errors);
            self.slow = count(breaches(p99, P99_MS_MAX), self.slow);
            if self.errors.max(self.slow) >= DATAPOINTS {
                return Decision::RollBack(format!(
                    "alarm: {DATAPOINTS} samples in a row over {:.0} % errors or p99 of {P99_MS_MAX:.0} ms, the last one: {}",
                    ERROR_RATE_MAX * 100.0,
                    data.candidate.describe()
                ));
            }
        }
        match self.schedule.share_after(minute + 1) {
            Some(share) => Decision::Share(share),
            None => Decision::Promote("no alarm until the end of the final bake".to_owned()),
        }
    }
}

//! PipeCD, automated deployment analysis of canary against primary.
//!
//! At the end of every step a one-sided Mann-Whitney U test compares the
//! step's minutes of both arms, once for the error rate and once for the p95.
//! A p-value up to 5 % is a failure, and so is a metric without points; more
//! failures than the limit, which is 0, end the rollout. Nothing corrects for
//! looking more than once. (PipeCD, `metrics_analyzer.go`.)

use std::collections::VecDeque;

use crate::rule::{ArmMinute, Decision, Metric, Minute, Rule, Schedule, Step};
use crate::statistics::MannWhitney;

/// The steps of the table: 5, 25 and 50 %, ten minutes each.
const STEPS: [(u32, u32); 3] = [(5, 10), (25, 10), (50, 10)];
/// Longest step, in minutes.
const WINDOW: usize = 10;
/// Largest p-value that is a failure.
const P_MAX: f64 = 0.05;

const METRICS: [(&str, Metric); 2] = [
    ("error rate", ArmMinute::error_rate),
    ("p95", |arm| arm.latency.map(|l| l.p95)),
];

/// The state of this rule.
#[derive(Debug, Clone, Default)]
pub struct PipeCd {
    /// The last minutes, at most [`WINDOW`].
    minutes: VecDeque<Minute>,
}

impl PipeCd {
    /// Why the step failed, if it did.
    fn judge(&self, step: Step) -> Option<String> {
        METRICS.iter().find_map(|(name, metric)| {
            let recent = || self.minutes.iter().rev().take(step.minutes as usize);
            let candidate: Vec<f64> = recent().filter_map(|m| metric(&m.candidate)).collect();
            let stable: Vec<f64> = recent().filter_map(|m| metric(&m.stable)).collect();
            if candidate.is_empty() || stable.is_empty() {
                return Some(format!("{name} at {} %: no data", step.share));
            }
            let p = MannWhitney::of(&candidate, &stable).p_greater()?;
            (p <= P_MAX).then(|| {
                format!(
                    "{name} at {} % is higher than stable's: p = {p:.4} of {} and {} samples",
                    step.share,
                    candidate.len(),
                    stable.len()
                )
            })
        })
    }
}

impl Rule for PipeCd {
    fn schedule(&self) -> Schedule {
        Schedule::new(&STEPS)
    }

    fn tick(&mut self, minute: u32, data: Option<&Minute>) -> Decision {
        if let Some(data) = data {
            self.minutes.push_back(*data);
            if self.minutes.len() > WINDOW {
                self.minutes.pop_front();
            }
        }
        let schedule = self.schedule();
        if let Some(step) = schedule.over_after(minute + 1)
            && let Some(why) = self.judge(step)
        {
            return Decision::RollBack(why);
        }
        match schedule.share_after(minute + 1) {
            Some(share) => Decision::Share(share),
            None => Decision::Promote("no metric was higher than stable's".to_owned()),
        }
    }
}

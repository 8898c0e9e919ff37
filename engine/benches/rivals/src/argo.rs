//! Argo Rollouts: steps of fixed length, and an analysis in the background.
//!
//! Every interval the analysis measures the candidate over the last interval.
//! A metric whose failures are *more* than the limit ends the rollout. Without
//! requests the success rate is not a number, which is a failure; without metrics
//! the measurement is an error, which is not a failure. The analysis ends with the last
//! step. (Argo Rollouts, `analysis/analysis.go`; the documented setting is
//! the manual's template.) Not simulated: the limit on errors in a row.

use std::collections::VecDeque;

use crate::rule::{ArmMinute, Decision, Minute, Rule, Schedule};

/// The steps of the table: 5, 25 and 50 %, ten minutes each.
const STEPS: [(u32, u32); 3] = [(5, 10), (25, 10), (50, 10)];
/// Failures that are not yet too many.
const FAILURES_MAX: u32 = 3;
/// Least share of good answers, 0-1.
const SUCCESS_MIN: f64 = 0.95;
/// Largest p99 of the setting that looks at it.
const P99_MS_MAX: f64 = 500.0;

/// The state of this rule.
#[derive(Debug, Clone)]
pub struct Argo {
    interval: u32,
    p99_ms_max: Option<f64>,
    /// The last minutes, at most one interval.
    window: VecDeque<Minute>,
    success_failures: u32,
    p99_failures: u32,
}

impl Argo {
    /// Success rate every five minutes.
    pub fn documented() -> Self {
        Self::new(5, None)
    }

    /// Success rate and p99 every minute.
    pub fn with_p99() -> Self {
        Self::new(1, Some(P99_MS_MAX))
    }

    /// Over more than one minute the p99 is the mean of the minutes' p99,
    /// weighted by their requests: the metrics hold no better one.
    pub fn new(interval: u32, p99_ms_max: Option<f64>) -> Self {
        Self {
            interval: interval.max(1),
            p99_ms_max,
            window: VecDeque::new(),
            success_failures: 0,
            p99_failures: 0,
        }
    }

    /// The whole window as one; none when nothing could be measured.
    fn measure(&self) -> Option<Measured> {
        let mut known = self.window.iter().filter(|m| !m.is_unknown()).peekable();
        known.peek()?;
        let mut measured = Measured::default();
        let (mut weighted, mut weight) = (0.0, 0.0);
        for ArmMinute {
            requests,
            errors,
            latency,
        } in known.map(|m| m.candidate)
        {
            measured.requests += f64::from(requests);
            measured.errors += f64::from(errors);
            if let Some(latency) = latency {
                weighted += latency.p99 * f64::from(requests);
                weight += f64::from(requests);
            }
        }
        measured.p99 = (weight > 0.0).then(|| weighted / weight);
        Some(measured)
    }

    /// Counts what failed; why that was too much, if it was.
    fn count(&mut self, measured: &Measured) -> Option<String> {
        let success = (measured.requests > 0.0).then(|| 1.0 - measured.errors / measured.requests);
        if success.is_none_or(|rate| rate < SUCCESS_MIN) {
            self.success_failures += 1;
        }
        if let Some(limit) = self.p99_ms_max
            && measured.p99.is_none_or(|p99| p99 > limit)
        {
            self.p99_failures += 1;
        }
        if self.success_failures > FAILURES_MAX {
            let last = success.map_or("no requests".to_owned(), |rate| {
                format!("{:.2} % good answers", rate * 100.0)
            });
            return Some(format!(
                "success rate failed {} times, the last one: {last} (needs {:.0} %)",
                self.success_failures,
                SUCCESS_MIN * 100.0
            ));
        }
        (self.p99_failures > FAILURES_MAX).then(|| {
            let last = measured
                .p99
                .map_or("no requests".to_owned(), |p99| format!("{p99:.0} ms"));
            format!(
                "p99 failed {} times, the last one: {last} (may be {P99_MS_MAX:.0} ms)",
                self.p99_failures
            )
        })
    }
}

/// One measurement of the candidate.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    requests: f64,
    errors: f64,
    p99: Option<f64>,
}

impl Rule for Argo {
    fn schedule(&self) -> Schedule {
        Schedule::new(&STEPS)
    }

    fn tick(&mut self, minute: u32, data: Option<&Minute>) -> Decision {
        if let Some(data) = data {
            self.window.push_back(*data);
            if self.window.len() > self.interval as usize {
                self.window.pop_front();
            }
        }
        let elapsed = minute + 1;
        if elapsed.is_multiple_of(self.interval)
            && let Some(measured) = self.measure()
            && let Some(why) = self.count(&measured)
        {
            return Decision::RollBack(why);
        }
        match self.schedule().share_after(elapsed) {
            Some(share) => Decision::Share(share),
            None => Decision::Promote(format!(
                "all steps are over with {} failed measurements",
                self.success_failures + self.p99_failures
            )),
        }
    }
}

//! A plain gate: counts over a window, compared with limits.
//!
//! It has three answers, because "nothing was seen" is neither good nor bad. It does
//! no statistics.

use std::time::Duration;

use crate::{Arm, Sample};

/// How much slower than stable the candidate's p99 must be, besides the ratio,
/// to count: at a few milliseconds a ratio is noise.
const SLOWER_MS_MIN: f64 = 50.0;

/// The counts of one arm over some samples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Window {
    /// Requests.
    pub requests: u32,
    /// 5xx answers and failed connections.
    pub errors: u32,
    /// p99 in ms: the mean of the samples' p99, weighted by their requests.
    pub p99_ms: Option<f64>,
}

impl Window {
    /// Adds up the samples of one arm.
    pub fn of(samples: &[Sample], arm: &Arm) -> Self {
        let mut window = Self::default();
        let (mut weighted, mut weight) = (0.0, 0.0);
        for sample in samples.iter().filter(|s| s.arm == arm.name) {
            window.requests = window.requests.saturating_add(sample.requests);
            window.errors = window.errors.saturating_add(sample.errors);
            if let Some(latency) = &sample.latency {
                weighted += latency.p99 * f64::from(sample.requests);
                weight += f64::from(sample.requests);
            }
        }
        window.p99_ms = (weight > 0.0).then(|| weighted / weight);
        window
    }

    /// Share of errors, 0-1; `None` without requests.
    pub fn error_rate(&self) -> Option<f64> {
        (self.requests > 0).then(|| f64::from(self.errors) / f64::from(self.requests))
    }

    /// `1.2 % errors, p99 34 ms of 120 requests`
    pub fn describe(&self) -> String {
        match (self.error_rate(), self.p99_ms) {
            (None, _) => "no requests".to_owned(),
            (Some(rate), None) => {
                format!("{:.1} % errors of {} requests", rate * 100.0, self.requests)
            }
            (Some(rate), Some(p99)) => format!(
                "{:.1} % errors, p99 {p99:.0} ms of {} requests",
                rate * 100.0,
                self.requests
            ),
        }
    }
}

/// The limits for the candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Largest share of errors, 0-1.
    pub error_rate: f64,
    /// Largest p99.
    pub p99: Option<Duration>,
    /// Largest p99 as a multiple of the stable arm's.
    pub p99_ratio: Option<f64>,
    /// Fewest requests to judge by.
    pub min_requests: u32,
}

/// The result of a comparison with the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Within the limits.
    Good,
    /// Beyond a limit: which one, and by how much.
    Bad(String),
    /// Too few requests: how many there were.
    NotEnough(String),
}

impl Limits {
    /// The limits that are given; `None` if none is. The p99 ratio is a multiple, the
    /// error rate a share (0-1).
    pub fn given(
        error_rate: Option<f64>,
        p99: Option<Duration>,
        p99_ratio: Option<f64>,
        min_requests: u32,
    ) -> Option<Self> {
        let any = error_rate.is_some() || p99.is_some() || p99_ratio.is_some();
        any.then(|| Self {
            error_rate: error_rate.unwrap_or(1.0),
            p99,
            p99_ratio,
            min_requests,
        })
    }

    /// Compares the candidate's window with the limits. `reference` is the
    /// stable arm over the same time, or before it.
    pub fn judge(&self, candidate: &Window, reference: &Window) -> Judgement {
        if candidate.requests < self.min_requests.max(1) {
            return Judgement::NotEnough(format!(
                "{} of {} requests seen",
                candidate.requests,
                self.min_requests.max(1)
            ));
        }
        if let Some(rate) = candidate.error_rate()
            && rate > self.error_rate
        {
            return Judgement::Bad(format!(
                "{:.1} % errors is over the limit of {:.1} % ({} of {} requests; stable: {})",
                rate * 100.0,
                self.error_rate * 100.0,
                candidate.errors,
                candidate.requests,
                reference.describe()
            ));
        }
        let Some(p99) = candidate.p99_ms else {
            return Judgement::Good;
        };
        if let Some(limit) = self.p99
            && p99 > limit.as_secs_f64() * 1_000.0
        {
            return Judgement::Bad(format!(
                "p99 {p99:.0} ms is over the limit of {} ms",
                limit.as_millis()
            ));
        }
        if let (Some(ratio), Some(stable)) = (self.p99_ratio, reference.p99_ms)
            && p99 > stable * ratio
            && p99 > stable + SLOWER_MS_MIN
        {
            return Judgement::Bad(format!(
                "p99 {p99:.0} ms is over {ratio} times the {stable:.0} ms of stable"
            ));
        }
        Judgement::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        error_rate: 0.05,
        p99: None,
        p99_ratio: Some(2.0),
        min_requests: 20,
    };

    fn window(requests: u32, errors: u32, p99: f64) -> Window {
        Window {
            requests,
            errors,
            p99_ms: Some(p99),
        }
    }

    #[test]
    fn no_data_is_neither_good_nor_bad() {
        let none = Window::default();
        assert!(matches!(
            LIMITS.judge(&none, &none),
            Judgement::NotEnough(_)
        ));
        let few = window(19, 19, 10.0);
        assert!(matches!(LIMITS.judge(&few, &none), Judgement::NotEnough(_)));
        let none_needed = Limits {
            min_requests: 0,
            ..LIMITS
        };
        assert!(matches!(
            none_needed.judge(&none, &none),
            Judgement::NotEnough(_)
        ));
    }

    #[test]
    fn limits() {
        let stable = window(100, 0, 30.0);
        let judge = |w: Window| LIMITS.judge(&w, &stable);
        assert_eq!(judge(window(100, 5, 30.0)), Judgement::Good);
        assert!(matches!(judge(window(100, 6, 30.0)), Judgement::Bad(_)));
        assert_eq!(judge(window(100, 0, 79.0)), Judgement::Good);
        assert!(matches!(judge(window(100, 0, 81.0)), Judgement::Bad(_)));
    }
}

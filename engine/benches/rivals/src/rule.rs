//! What every rule sees, and what it may answer.

use rollout_sdk::Sample;

/// What one arm did in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ArmMinute {
    /// Requests.
    pub requests: u32,
    /// 5xx answers and failed connections.
    pub errors: u32,
    /// `None` without requests, or if the source does not know.
    pub latency: Option<Percentiles>,
}

/// Response times in ms.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Percentiles {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

/// One number of an arm's minute, where there is one.
pub type Metric = fn(&ArmMinute) -> Option<f64>;

impl ArmMinute {
    /// Of one sample.
    pub fn of(sample: &Sample) -> Self {
        Self {
            requests: sample.requests,
            errors: sample.errors,
            latency: sample.latency.map(|l| Percentiles {
                p50: l.p50,
                p95: l.p95,
                p99: l.p99,
            }),
        }
    }

    /// Share of errors, 0-1; none without requests.
    pub fn error_rate(&self) -> Option<f64> {
        (self.requests > 0).then(|| f64::from(self.errors) / f64::from(self.requests))
    }

    /// The p99, where there is one.
    pub fn p99(&self) -> Option<f64> {
        self.latency.map(|l| l.p99)
    }

    /// `1.25 % errors of 80 requests, p99 240 ms`
    pub fn describe(&self) -> String {
        let Some(rate) = self.error_rate() else {
            return "no requests".to_owned();
        };
        let (percent, requests) = (rate * 100.0, self.requests);
        match self.p99() {
            Some(p99) => {
                format!("{percent:.2} % errors of {requests} requests, p99 {p99:.0} ms")
            }
            None => format!("{percent:.2} % errors of {requests} requests"),
        }
    }
}

/// What both arms did in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Minute {
    /// The version on trial.
    pub candidate: ArmMinute,
    /// The version that serves today.
    pub stable: ArmMinute,
    /// The source has nothing for this minute, although it should.
    pub missing: bool,
}

impl Minute {
    /// A minute of which nothing is known.
    pub fn unknown() -> Self {
        Self {
            missing: true,
            ..Self::default()
        }
    }

    /// Whether it was missing and says nothing at all.
    pub fn is_unknown(&self) -> bool {
        self.missing && self.candidate.requests == 0 && self.stable.requests == 0
    }
}

/// What a rule decides after a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The candidate's share from the next minute on, in percent.
    Share(u32),
    /// The candidate is bad: why, with the numbers.
    RollBack(String),
    /// The candidate gets everything, and the rule ends.
    Promote(String),
}

/// One step of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The candidate's share, in percent.
    pub share: u32,
    /// How long.
    pub minutes: u32,
}

/// The steps that a rule takes if all goes well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(pub Vec<Step>);

impl Schedule {
    /// Steps as pairs of share and minutes.
    pub fn new(steps: &[(u32, u32)]) -> Self {
        let step = |&(share, minutes)| Step { share, minutes };
        Self(steps.iter().map(step).collect())
    }

    /// The share with which it starts.
    pub fn first(&self) -> u32 {
        self.0.first().map_or(0, |step| step.share)
    }

    /// How long all steps take.
    pub fn minutes(&self) -> u32 {
        self.0.iter().map(|step| step.minutes).sum()
    }

    /// The share after so many minutes; none when all steps are over.
    pub fn share_after(&self, minutes: u32) -> Option<u32> {
        let mut end = 0;
        self.0.iter().find_map(|step| {
            end += step.minutes;
            (minutes < end).then_some(step.share)
        })
    }

    /// The step that is over after exactly so many minutes.
    pub fn over_after(&self, minutes: u32) -> Option<Step> {
        let mut end = 0;
        self.0.iter().copied().find(|step| {
            end += step.minutes;
            minutes == end
        })
    }
}

/// A gating rule: a pure state machine that is told the time.
pub trait Rule {
    /// What it does if all goes well.
    fn schedule(&self) -> Schedule;

    /// Minutes by which it sees the data later than the source has them.
    fn extra_delay(&self) -> u32 {
        0
    }

    /// Called at the end of minute `minute`, which counts from 0. The data are of an
    /// earlier minute; `None` if that was before the start.
    fn tick(&mut self, minute: u32, data: Option<&Minute>) -> Decision;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_knows_where_it_stands() {
        let schedule = Schedule::new(&[(5, 10), (25, 20)]);
        assert_eq!(schedule.first(), 5);
        assert_eq!(schedule.minutes(), 30);
        let shares = [0, 9, 10, 29, 30].map(|m| schedule.share_after(m));
        assert_eq!(shares, [Some(5), Some(5), Some(25), Some(25), None]);
        let over = [9, 10, 30, 31].map(|m| schedule.over_after(m).map(|s| s.share));
        assert_eq!(over, [None, Some(5), Some(25), None]);
    }
}

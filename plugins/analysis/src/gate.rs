//! Calibration, evidence and pace together: a rollout from its first interval
//! to its verdict.

use crate::calibration::{Calibration, Past};
use crate::config::Config;
use crate::evidence::{Evidence, Finding};
use crate::pace::{Pace, Step, StepKind};
use crate::past::PastControl;
use crate::sight::{Sight, Unseen};
use crate::{Interval, Seen};

/// The gate of one rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    config: Config,
    steps: Vec<Step>,
    calibration: Calibration,
    evidence: Evidence,
    /// Used when the candidate has all the traffic.
    alone: PastControl,
    pace: Pace,
}

/// The decision after an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Stay at this share and look again.
    Stay,
    /// Stay although the time is over, because the evidence is suspicious.
    Hold,
    /// Go on to the next step; from the last one, to all traffic.
    Advance,
    /// The candidate is worse.
    RollBack,
    /// Held for too long, and the evidence is still suspicious.
    GiveUp,
    /// So much fails at once that it would decide if one interval could. The candidate
    /// should have little or no traffic until the next interval decides.
    Retreat,
}

impl Gate {
    /// A gate that is calibrated from the past, for these steps.
    #[must_use]
    pub fn new(past: &Past, config: Config, steps: Vec<Step>) -> Self {
        let calibration = Calibration::of(past, &config);
        Self {
            evidence: Evidence::new(&calibration, &config),
            alone: PastControl::new(&config),
            config,
            steps,
            calibration,
            pace: Pace::default(),
        }
    }

    /// The current step; `None` once all are done.
    #[must_use]
    pub fn step(&self) -> Option<&Step> {
        self.steps.get(self.pace.step)
    }

    /// Index of the current step, and the number of all.
    #[must_use]
    pub fn position(&self) -> (usize, usize) {
        (self.pace.step, self.steps.len())
    }

    /// Intervals that counted at the step, and those that were held in a row.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// The calibration.
    #[must_use]
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The constants.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Intervals until a fault decides, on the way up all steps, that adds so much to the
    /// rate of errors (0-1), with so many requests per interval; `None` if it does not show.
    #[must_use]
    pub fn shows(&self, requests: f64, more: f64) -> Option<f64> {
        self.sight(requests).climb(&self.steps, more)
    }

    /// Makes one step longer, so that such a fault shows at it.
    ///
    /// # Errors
    /// Why it does not.
    pub fn show(&mut self, requests: f64, more: f64) -> Result<(), Unseen> {
        let mut steps = std::mem::take(&mut self.steps);
        let shows = self.sight(requests).lengthen(&mut steps, more);
        self.steps = steps;
        shows
    }

    fn sight(&self, requests: f64) -> Sight<'_> {
        Sight {
            calibration: &self.calibration,
            config: &self.config,
            requests,
        }
    }

    /// Adds the next interval. Intervals without data must be left out, and those in
    /// which the candidate had no traffic. If the candidate has all of it, it is compared
    /// with the past ([`PastControl`]).
    pub fn look(&mut self, interval: &Interval) -> (Decision, Finding) {
        let finding = self.weigh(interval, self.pace.step);
        if finding.log_evidence >= finding.log_limit {
            return (Decision::RollBack, finding);
        }
        if finding.alarm {
            return (Decision::Retreat, finding);
        }
        let Some(step) = self.steps.get(self.pace.step).copied() else {
            return (Decision::Stay, finding);
        };
        // An interval from before the last change of the weights is evidence, but does
        // not count as time at this step.
        #[expect(clippy::float_cmp, reason = "the same number or another step")]
        if interval.share != step.share {
            return (Decision::Stay, finding);
        }
        let requests = match interval.seen.first() {
            Some(Seen::Counts { candidate, stable }) => [candidate.of, stable.of],
            _ => [0.0; 2],
        };
        let goes_on = self.pace.goes_on(&finding, requests, &step);
        let decision = if self.pace.held >= self.config.hold_max {
            Decision::GiveUp
        } else if goes_on {
            self.pace.advance();
            Decision::Advance
        } else if finding.suspicious {
            Decision::Hold
        } else {
            Decision::Stay
        };
        (decision, finding)
    }

    /// Returns to an earlier step that was left too soon.
    pub fn return_to(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Goes on to the next step because a person asks for it.
    pub fn skip(&mut self) {
        self.pace.advance();
    }

    /// Rebuilds the evidence from corrected intervals, each with the step at which it
    /// was seen. The current step does not change.
    pub fn rebuild(&mut self, intervals: &[(Interval, usize)]) {
        self.evidence = Evidence::new(&self.calibration, &self.config);
        self.alone = PastControl::new(&self.config);
        for (interval, step) in intervals {
            self.weigh(interval, *step);
        }
    }

    fn weigh(&mut self, interval: &Interval, step: usize) -> Finding {
        if interval.share >= 1.0 {
            return self
                .alone
                .look(&interval.seen, &self.calibration, &self.config);
        }
        let ramps = self.steps.iter().take(step);
        let later = ramps.filter(|s| s.kind != StepKind::Probe).count().min(2);
        self.evidence.look(
            interval,
            &self.calibration,
            &self.config,
            self.steps.len(),
            later,
        )
    }
}

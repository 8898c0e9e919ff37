//! Calibration, evidence and pace together: a rollout from its first interval
//! to its verdict.

use crate::calibration::{Calibration, Past};
use crate::config::Config;
use crate::evidence::{Evidence, Finding};
use crate::pace::{Pace, Step, StepKind};
use crate::past::PastControl;
use crate::{Interval, Seen};

/// The gate of one rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    config: Config,
    steps: Vec<Step>,
    calibration: Calibration,
    evidence: Evidence,
    /// For when the candidate has all the traffic.
    alone: PastControl,
    pace: Pace,
}

/// What the gate says after an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Stay at this share and look again.
    Stay,
    /// Stay although the time is over: the evidence is suspicious.
    Hold,
    /// Go on to the next step; from the last one, to all traffic.
    Advance,
    /// The candidate is worse.
    RollBack,
    /// Held for too long without getting clear of the suspicion.
    GiveUp,
}

impl Gate {
    /// A gate that knows the past and intends these steps.
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

    /// The step it is at; none once all are done.
    #[must_use]
    pub fn step(&self) -> Option<&Step> {
        self.steps.get(self.pace.step)
    }

    /// Index of that step, and how many there are.
    #[must_use]
    pub fn position(&self) -> (usize, usize) {
        (self.pace.step, self.steps.len())
    }

    /// Intervals that counted at the step, and that were held in a row.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// What is known about noise.
    #[must_use]
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Every number.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes in the next interval. Intervals without data must be left out, and
    /// so must those in which the candidate had no traffic. Where it has all of
    /// it, it is compared with the past ([`PastControl`]).
    pub fn look(&mut self, interval: &Interval) -> (Decision, Finding) {
        let finding = self.weigh(interval, self.pace.step);
        if finding.log_evidence >= finding.log_limit {
            return (Decision::RollBack, finding);
        }
        let Some(step) = self.steps.get(self.pace.step).copied() else {
            return (Decision::Stay, finding);
        };
        // Data from before the last change of the weights is evidence, but no
        // time at this step.
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

    /// Takes back steps that were taken too soon.
    pub fn return_to(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Goes on to the next step because a person says so.
    pub fn skip(&mut self) {
        self.pace.advance();
    }

    /// Rebuilds the evidence from corrected intervals, each with the step it was
    /// seen at; where the rollout stands stays as it is.
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

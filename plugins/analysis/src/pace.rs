//! When to take the next step.

use crate::evidence::Finding;

/// One share of the traffic, with the conditions to leave it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The candidate's share, 0-1.
    pub share: f64,
    /// Its purpose.
    pub kind: StepKind,
    /// Fewest intervals that must count.
    pub bake_min: u32,
    /// Intervals after which to go on although the candidate is not proven good. The
    /// harm of that does not depend on the traffic, because fewer requests mean less
    /// evidence and less harm alike.
    pub bake_max: u32,
    /// Fewest requests of candidate and stable at the step: without both there is no
    /// comparison, however long it takes.
    pub requests_min: [f64; 2],
}

/// The purpose of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// A few requests at first.
    Probe,
    /// A rising share.
    Ramp,
    /// Nearly all traffic: the rest stays with the stable arm, so that there is
    /// something to compare with.
    Holdback,
    /// All traffic: there is only the past to compare with.
    Alone,
}

/// What the pace of a rollout depends on, besides the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    /// Index of the step.
    pub step: usize,
    /// Number of intervals that counted at it.
    pub counted: u32,
    /// Number of intervals in a row that were held.
    pub held: u32,
    /// Requests of candidate and stable in the intervals that counted.
    pub requests: [f64; 2],
}

impl Pace {
    /// Counts a finding at the current step with the requests of candidate and stable;
    /// returns whether to go on.
    pub fn goes_on(&mut self, finding: &Finding, requests: [f64; 2], step: &Step) -> bool {
        if !finding.incident {
            self.counted += 1;
            self.requests[0] += requests[0];
            self.requests[1] += requests[1];
        }
        self.held = if finding.suspicious { self.held + 1 } else { 0 };
        let calm = !finding.incident && !finding.suspicious;
        let proven = finding.streams.iter().all(|s| s.non_inferior);
        // The last steps compare with little traffic, so only their time counts.
        let timed = matches!(step.kind, StepKind::Holdback | StepKind::Alone);
        let enough = proven || timed || self.counted >= step.bake_max;
        let compared = (0..2).all(|arm| self.requests[arm] >= step.requests_min[arm]);
        calm && self.counted >= step.bake_min && enough && compared
    }

    /// Goes to the next step.
    pub fn advance(&mut self) {
        *self = Self {
            step: self.step + 1,
            ..Self::default()
        };
    }
}

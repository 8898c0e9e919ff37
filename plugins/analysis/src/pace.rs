//! When to go on, and when to stand still.

use crate::evidence::Finding;

/// One share of the traffic and how long to look at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The candidate's share, 0-1.
    pub share: f64,
    /// What it is for.
    pub kind: StepKind,
    /// Fewest intervals that must count.
    pub bake_min: u32,
    /// Intervals after which to go on although the candidate is not proven good:
    /// what that can cost does not depend on the traffic, because fewer requests
    /// mean less evidence and less harm alike.
    pub bake_max: u32,
    /// Fewest requests at it of candidate and stable: without both there is no
    /// comparison, however long it takes.
    pub requests_min: [f64; 2],
}

/// What a step is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// A handful of requests first.
    Probe,
    /// A rising share.
    Ramp,
    /// Nearly everything: the rest of the traffic stays with the stable arm, so
    /// that there is still something to compare with.
    Holdback,
    /// All of it: there is only the past to compare with.
    Alone,
}

/// What the pace of a rollout depends on, besides the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    /// Index of the step.
    pub step: usize,
    /// Intervals that counted at it.
    pub counted: u32,
    /// Intervals in a row that were held.
    pub held: u32,
    /// Requests of candidate and stable in the intervals that counted.
    pub requests: [f64; 2],
}

impl Pace {
    /// Takes note of a finding at the current step, and of the requests of
    /// candidate and stable; whether to go on.
    pub fn goes_on(&mut self, finding: &Finding, requests: [f64; 2], step: &Step) -> bool {
        if !finding.incident {
            self.counted += 1;
            self.requests[0] += requests[0];
            self.requests[1] += requests[1];
        }
        self.held = if finding.suspicious { self.held + 1 } else { 0 };
        let calm = !finding.incident && !finding.suspicious;
        let proven = finding.streams.iter().all(|s| s.non_inferior);
        // The last step compares with little traffic: time has to do.
        let timed = matches!(step.kind, StepKind::Holdback | StepKind::Alone);
        let enough = proven || timed || self.counted >= step.bake_max;
        let compared = (0..2).all(|arm| self.requests[arm] >= step.requests_min[arm]);
        calm && self.counted >= step.bake_min && enough && compared
    }

    /// To the next step.
    pub fn advance(&mut self) {
        *self = Self {
            step: self.step + 1,
            ..Self::default()
        };
    }
}

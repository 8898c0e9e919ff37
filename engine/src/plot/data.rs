//! What a picture of one rollout shows.

/// The unit in which a span of time is read most easily.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unit {
    /// Its name in the plural.
    pub name: &'static str,
    /// How many of it are a minute.
    pub per_minute: f64,
}

impl Unit {
    /// That of a span of so many minutes.
    pub fn of(minutes: f64) -> Self {
        let (name, per_minute) = match minutes {
            m if m < 3.0 => ("seconds", 60.0),
            m if m >= 600.0 => ("hours", 1.0 / 60.0),
            _ => ("minutes", 1.0),
        };
        Self { name, per_minute }
    }

    /// So many minutes in words.
    pub fn say(self, minutes: f64) -> String {
        let rounded = (minutes * self.per_minute).round();
        match rounded {
            1.0 => format!("1 {}", self.name.trim_end_matches('s')),
            _ => format!("{rounded:.0} {}", self.name),
        }
    }
}

/// What was measured on one arm in one interval.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmPoint {
    /// End of the interval, minutes since the rollout began.
    pub at_min: f64,
    /// Requests answered.
    pub requests: u32,
    /// How many of them failed.
    pub errors: u32,
    /// 95th percentile of the latency, ms, from which the interval of the 99th is computed.
    pub p95_ms: Option<f64>,
    /// 99th percentile of the latency, ms; `None` without requests.
    pub p99_ms: Option<f64>,
}

/// One look of the gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Minutes since the rollout began.
    pub at_min: f64,
    /// Natural logarithm of the evidence that the candidate is worse.
    pub log_evidence: f64,
}

/// A change of the traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Minutes since the rollout began.
    pub at_min: f64,
    /// Percent of the traffic that the candidate gets from then on.
    pub share: f64,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The candidate gets more traffic.
    Advance,
    /// The rollout waits.
    Hold,
    /// The candidate loses its share until the next look decides.
    Retreat,
    /// The candidate loses its traffic.
    Rollback,
    /// The candidate gets all traffic for good.
    Promote,
    /// A person gave a command.
    Person,
}

/// A decision with a few words.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Minutes since the rollout began.
    pub at_min: f64,
    /// Its kind.
    pub mark: Mark,
    /// What to write beside it; about thirty letters are shown.
    pub text: String,
}

/// All that the picture of one rollout shows. Values that are not numbers are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// Heading.
    pub title: String,
    /// Names of the stable arm and of the candidate.
    pub names: [String; 2],
    /// Changes of the candidate's share.
    pub steps: Vec<Step>,
    /// The stable arm, in order of time.
    pub stable: Vec<ArmPoint>,
    /// The candidate, in order of time.
    pub candidate: Vec<ArmPoint>,
    /// The looks of the gate, in order of time.
    pub looks: Vec<Look>,
    /// Natural logarithm of the evidence at which the gate rolls back.
    pub limit: f64,
    /// Decisions.
    pub decisions: Vec<Decision>,
    /// Minutes from begin to end.
    pub end_min: f64,
}

impl Rollout {
    /// How many minutes the picture spans.
    pub(super) fn minutes(&self) -> f64 {
        let arms = self.stable.iter().chain(&self.candidate);
        let times = (arms.map(|p| p.at_min))
            .chain(self.looks.iter().map(|l| l.at_min))
            .chain(self.steps.iter().map(|s| s.at_min))
            .chain(self.decisions.iter().map(|d| d.at_min))
            .chain([self.end_min]);
        let last = times.filter(|t| t.is_finite()).fold(0.0, f64::max);
        if last > 0.0 { last } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_said_in_the_unit_that_suits_it() {
        let said = |minutes: f64| Unit::of(minutes).say(minutes);
        assert_eq!(said(0.2), "12 seconds");
        assert_eq!(said(1.0 / 60.0), "1 second");
        assert_eq!(said(2.9), "174 seconds");
        assert_eq!(said(3.0), "3 minutes");
        assert_eq!(said(19.4), "19 minutes");
        assert_eq!(said(600.0), "10 hours");
        assert_eq!(said(f64::NAN), "NaN minutes");
    }
}

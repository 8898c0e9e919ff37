//! The answers of `engine simulate`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::journal::Entry;
use crate::ops::simulate::Simulated;
use crate::simulate::replicate::{Fate, Played};
use crate::simulate::report::{Row, Summary};

/// Many rollouts, counted.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Each scenario.
    pub scenarios: Vec<Row>,
    /// The summary of all scenarios.
    pub summary: Summary,
}

impl From<&Simulated> for Report {
    fn from(simulated: &Simulated) -> Self {
        Self {
            scenarios: simulated.rows(),
            summary: simulated.summary(),
        }
    }
}

/// One rollout and its whole story.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Replicate {
    /// The scenario's name.
    pub scenario: String,
    /// Its number, from 0.
    pub replicate: u32,
    /// How it ended.
    pub fate: Fate,
    /// Minutes until the traffic was where it stayed; null if it paused.
    pub minutes: Option<f64>,
    /// Expected number of bad requests that users would not have seen without the candidate.
    pub bad_requests: f64,
    /// Why it ended like this.
    pub reason: String,
    /// The rules of the host that were broken; empty in a correct engine.
    pub violations: Vec<String>,
    /// Its journal.
    pub journal: Vec<Entry>,
}

impl Replicate {
    /// The answer for one rollout of a scenario.
    #[must_use]
    pub fn of(scenario: &str, replicate: u32, played: &Played) -> Self {
        Self {
            scenario: scenario.to_owned(),
            replicate,
            fate: played.fate,
            minutes: played.minutes,
            bad_requests: played.bad_requests,
            reason: played.reason.clone(),
            violations: played.violations.clone(),
            journal: played.journal.clone(),
        }
    }
}

//! The answers of `explain`, `replay`, `what-if`, `export` and `import`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::hindsight::explain::Step;
use crate::hindsight::replay::Fit;
use crate::hindsight::what_if;
use crate::model::{Decider, Millis, Verdict, Weights};
use crate::ops::past;

/// Which metric led to which decision.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    /// The rollout's id.
    pub rollout: String,
    /// When it began (Unix ms).
    pub created: Millis,
    /// Its decisions, in order.
    pub steps: Vec<Step>,
}

impl From<past::Explained> for Explanation {
    fn from(explained: past::Explained) -> Self {
        Self {
            rollout: explained.header.rollout,
            created: explained.header.created,
            steps: explained.steps,
        }
    }
}

/// Whether a plugin does what a journal says.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Replay {
    /// The rollout's id.
    pub rollout: String,
    /// Whether every call and the verdict are as recorded.
    pub fits: bool,
    /// Calls that were as recorded.
    pub calls: usize,
    /// Digest of the plugin that ran, hexadecimal.
    pub sha256: String,
    /// Whether that is the plugin of the rollout.
    pub same_bytes: bool,
    /// Number of the journal entry at which it differs; null if it does not differ.
    pub entry: Option<u32>,
    /// When that entry was made (Unix ms).
    pub at: Option<Millis>,
    /// The result in words.
    pub message: String,
}

impl Replay {
    /// The answer for a replay, with its result in words.
    #[must_use]
    pub fn of(replayed: &past::Replayed, message: String) -> Self {
        Self {
            rollout: replayed.journal.header.rollout.clone(),
            fits: matches!(replayed.fit, Fit::Same | Fit::SoFar),
            calls: replayed.calls,
            sha256: replayed.sha256.clone(),
            same_bytes: replayed.same_bytes,
            entry: match &replayed.fit {
                Fit::Differs(mismatch) => Some(mismatch.seq),
                _ => None,
            },
            at: replayed.differs_at,
            message,
        }
    }
}

/// How another plugin or other parameters would have decided.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct WhatIf {
    /// Each rollout that was asked about.
    pub rollouts: Vec<Compared>,
}

/// One rollout, as it was and as it would have been.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Compared {
    /// The rollout's id.
    pub rollout: String,
    /// What was decided.
    pub recorded: Recorded,
    /// What would have been decided.
    pub what_if: Answer,
    /// Whether the two ended differently; never where a person ended it.
    pub differs: bool,
    /// Since when the weights would have differed from the recorded ones (Unix ms). From
    /// then on the metrics are still those of the recorded share. Null if the weights
    /// would not have differed.
    pub other_weights_from: Option<Millis>,
    /// What was asked and is not in the journal.
    pub missing: Vec<String>,
}

/// What was decided.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Recorded {
    /// The verdict; null if there is none.
    pub verdict: Option<Verdict>,
    /// Who decided it: the strategy, a part of the engine, or a person; null if nobody did.
    pub by: Option<Decider>,
    /// Why it was decided.
    pub reason: String,
    /// When it was decided (Unix ms).
    pub at: Millis,
}

/// What would have been decided.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Answer {
    /// How it would have ended.
    pub end: Ending,
    /// Why, if it comes to a verdict.
    pub reason: Option<String>,
    /// Why the strategy would have failed; null if it would not.
    pub failed: Option<String>,
    /// When it would have ended (Unix ms).
    pub at: Millis,
    /// The weights that it would have set, in order.
    pub weights: Vec<Moment>,
}

/// Weights, and when they would have been set.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Moment {
    /// When they would have been set (Unix ms).
    pub at: Millis,
    /// The weights.
    pub weights: Weights,
}

/// How a rollout would have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The candidate would have all traffic.
    Promoted,
    /// The candidate would have no traffic.
    RolledBack,
    /// The strategy could not tell.
    Inconclusive,
    /// The recorded metrics end before it decides.
    Undecided,
    /// The strategy would have failed.
    Failed,
}

impl From<Verdict> for Ending {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Promoted => Self::Promoted,
            Verdict::RolledBack => Self::RolledBack,
            Verdict::Inconclusive => Self::Inconclusive,
        }
    }
}

impl From<&past::Compared> for Compared {
    fn from(compared: &past::Compared) -> Self {
        let past::Compared {
            journal,
            recorded,
            answer,
        } = compared;
        let (end, reason, failed) = match &answer.end {
            what_if::Ending::Verdict(outcome) => {
                (outcome.verdict.into(), Some(outcome.reason.clone()), None)
            }
            what_if::Ending::Undecided => (Ending::Undecided, None, None),
            what_if::Ending::Failed(reason) => (Ending::Failed, None, Some(reason.clone())),
        };
        let moment = |(at, weights): &(Millis, Weights)| Moment {
            at: *at,
            weights: weights.clone(),
        };
        Self {
            rollout: journal.header.rollout.clone(),
            differs: compared.differs(),
            recorded: Recorded {
                verdict: recorded.verdict,
                by: recorded.by.clone(),
                reason: recorded.reason.clone(),
                at: recorded.at,
            },
            what_if: Answer {
                end,
                reason,
                failed,
                at: answer.at,
                weights: answer.weights.iter().map(moment).collect(),
            },
            other_weights_from: answer.parted,
            missing: answer.missing.clone(),
        }
    }
}

/// A journal that was written into a file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Export {
    /// The rollout's id.
    pub rollout: String,
    /// The file.
    pub file: String,
    /// Number of its entries.
    pub entries: usize,
}

impl From<&past::Exported> for Export {
    fn from(exported: &past::Exported) -> Self {
        Self {
            rollout: exported.rollout.clone(),
            file: exported.file.display().to_string(),
            entries: exported.entries,
        }
    }
}

/// A journal that was taken from a file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Import {
    /// The rollout's id.
    pub rollout: String,
    /// Number of its entries.
    pub entries: usize,
    /// Whether it was not in the store before.
    pub new: bool,
}

impl From<&past::Imported> for Import {
    fn from(imported: &past::Imported) -> Self {
        let (past::Imported::Known { rollout, entries } | past::Imported::New { rollout, entries }) =
            imported;
        Self {
            rollout: rollout.clone(),
            entries: *entries,
            new: matches!(imported, past::Imported::New { .. }),
        }
    }
}

//! Rollouts: where they stand, and what their journals say.

use schemars::JsonSchema;
use serde::Serialize;

use crate::journal::replay::Mismatch;
use crate::journal::{Entry, Header, status};
use crate::model::{
    Arm, Decider, Elsewhere, End, Finding, Goal, Hold, Millis, Phase, Running, Weights,
};
use crate::ops::history::Listed;

/// Where a rollout stands.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// The rollout's id.
    pub rollout: String,
    /// The strategy's name, or the verb of a person.
    pub title: String,
    /// Which part of it is under way.
    pub phase: Phase,
    /// Weights that this rollout last wrote or took over.
    pub weights: Weights,
    /// Progress in percent, as the strategy last said.
    pub percent: u32,
    /// Where it stands and why, in the strategy's words.
    pub note: String,
    /// What the strategy last found in the metrics; null if it does not say.
    pub finding: Option<Finding>,
    /// The wait that is open; null if there is none.
    pub waiting: Option<Waiting>,
    /// Why it is paused; null if it is not.
    pub hold: Option<Hold>,
    /// What is decided; null until it is.
    pub decision: Option<Decision>,
    /// How it ended; null until it has.
    pub end: Option<Ended>,
    /// Where the strategy made another call on replay than its journal has; null if it did
    /// not diverge.
    pub mismatch: Option<Mismatch>,
    /// When it began (Unix ms).
    pub created: Millis,
    /// When the last entry of its journal was made (Unix ms).
    pub updated: Millis,
    /// Since when the candidate has had traffic without a break (Unix ms); null if it
    /// has none.
    pub exposed_since: Option<Millis>,
    /// What other listeners and rules sent to the arms at the end; absent if that is
    /// nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Elsewhere>,
    /// Why that could not be read; absent if it could.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere_unread: Option<String>,
    /// What the arms were last seen to run, with the digests of their images; absent where
    /// the target has no images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<Running>,
    /// The digest of the image that is on trial; absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged: Option<String>,
    /// Number of entries in its journal.
    pub entries: u32,
}

/// A wait of a strategy.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Waiting {
    /// When it is over (Unix ms).
    pub until: Millis,
    /// Signals that end it early.
    pub signals: Vec<String>,
}

/// The decision about the end.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Decision {
    /// Where the traffic goes.
    pub goal: Goal,
    /// Who decided it.
    pub by: Decider,
    /// Why it was decided.
    pub reason: String,
}

/// How a rollout ended.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Ended {
    /// Whether it was promoted, rolled back, or ended otherwise.
    pub how: End,
    /// Why it ended like this.
    pub reason: String,
}

impl From<&status::Status> for Status {
    fn from(status: &status::Status) -> Self {
        Self {
            rollout: status.rollout.clone(),
            title: status.title.clone(),
            phase: status.phase,
            weights: status.weights.clone(),
            percent: status.percent,
            note: status.note.clone(),
            finding: status.finding.clone(),
            waiting: status.waiting.as_ref().map(|waiting| Waiting {
                until: waiting.until,
                signals: waiting.signals.clone(),
            }),
            hold: status.hold.clone(),
            decision: status.decision.as_ref().map(|decision| Decision {
                goal: decision.goal,
                by: decision.by.clone(),
                reason: decision.reason.clone(),
            }),
            end: status.end.as_ref().map(|(how, reason)| Ended {
                how: *how,
                reason: reason.clone(),
            }),
            mismatch: status.mismatch.clone(),
            created: status.created,
            updated: status.updated,
            exposed_since: status.exposed_since,
            elsewhere: status.elsewhere.clone(),
            elsewhere_unread: status.elsewhere_unread.clone(),
            running: status.running.clone(),
            judged: status.judged.clone(),
            entries: status.entries,
        }
    }
}

/// A rollout that was driven or followed, and does not move any more.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Driven {
    /// Where it stands.
    #[serde(flatten)]
    pub status: Status,
    /// The exit code of the verb.
    pub exit: u8,
    /// Whether the traffic was moved since it ended, by a verb or by somebody else; absent if
    /// it was not, or if that was not looked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub moved_since: bool,
    /// What the built-in client saw; absent if it sent nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
}

/// Requests of the built-in client.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Requests {
    /// How many it sent.
    pub sent: u64,
    /// How many of them failed.
    pub failed: u64,
}

/// Everything about one rollout.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Rollout {
    /// What it was pinned to when it began, without credentials.
    pub header: Header,
    /// Where it stands.
    pub status: Status,
}

impl Rollout {
    /// The answer for a rollout, without credentials that an older engine has accepted in a
    /// rollout file.
    #[must_use]
    pub fn of(header: &Header, status: &status::Status) -> Self {
        Self {
            header: header.without_secrets(),
            status: status.into(),
        }
    }
}

/// Rollouts, newest first.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct List(pub Vec<Row>);

/// One rollout of a list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// The rollout's id.
    pub rollout: String,
    /// Identity of its target.
    pub target: String,
    /// The state.
    pub phase: Phase,
    /// Whether a process drives it; null once it has ended.
    pub driven: Option<bool>,
    /// When it began (Unix ms).
    pub created: Millis,
    /// When the last entry of its journal was made (Unix ms).
    pub updated: Millis,
    /// How it ended; null until it has.
    pub end: Option<Ended>,
    /// Its arms, with the versions that its strategy first saw; absent where they were not
    /// read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arms: Vec<Arm>,
}

impl List {
    /// The answer for rows of the store.
    #[must_use]
    pub fn of(rows: &[Listed]) -> Self {
        let row = |Listed { row, arms, driven }: &Listed| Row {
            rollout: row.rollout.clone(),
            target: row.target.clone(),
            phase: row.phase,
            driven: *driven,
            created: row.created,
            updated: row.updated,
            end: row.end.map(|how| Ended {
                how,
                reason: row.note.clone(),
            }),
            arms: arms.clone(),
        };
        Self(rows.iter().map(row).collect())
    }
}

/// The journal of a rollout: every question and every answer, in order.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct History(pub Vec<Entry>);

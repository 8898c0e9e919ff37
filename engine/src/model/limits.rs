//! What a rollout may do and for how long, whatever its strategy asks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Goal, Millis};

/// Most calls that a strategy may make in one rollout. A strategy that makes so many
/// polls too often or loops.
pub const CALLS_MAX: u32 = 50_000;
/// Largest journal of one rollout, about, in MiB.
pub const JOURNAL_MIB_MAX: u32 = 64;

/// Most memory that a policy may grant a guest, in MiB: as much as the host reserves.
pub const MEMORY_MIB_MAX: u32 = 64;

/// What to do when a rollout cannot go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnTrouble {
    /// All traffic back to stable.
    Rollback,
    /// Leave the traffic and wait for a person.
    Pause,
}

/// Limits that the host enforces whatever the strategy asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Guardrails {
    /// Most percentage points by which one write may raise the candidate's share.
    pub largest_step: f64,
    /// Largest share of the candidate before it has had traffic for a while.
    pub before_bake: Option<BeforeBake>,
    /// The rollout must have a verdict this long after it began, ms.
    pub deadline_ms: Millis,
    /// What happens when the deadline has passed.
    pub on_deadline: OnTrouble,
    /// What happens when the plugin traps, hangs or returns an error.
    pub on_plugin_error: OnTrouble,
    /// How long to wait for a healthy backend before a write is refused, ms.
    pub healthy_timeout_ms: Millis,
    /// How long the old version keeps its tasks once the new one has all traffic, and
    /// the alarms can still take it back, ms.
    #[serde(default)]
    pub final_bake_ms: Millis,
    /// Names of CloudWatch alarms; one in the state ALARM takes the rollout back.
    #[serde(default)]
    pub alarms: Vec<String>,
}

/// Longest duration that anybody may ask for, ms: a hundred years. Added to a time of
/// today it does not overflow.
pub const DURATION_MAX: Millis = 36_525 * 24 * 3_600_000;

/// Most alarms that one rollout watches, so that one call reads them all.
pub const ALARMS_MAX: usize = 10;

/// Largest share of the candidate before it has had traffic for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BeforeBake {
    /// That share, in percent.
    pub share: f64,
    /// How long the candidate must have had traffic before it may get more, ms.
    pub bake_ms: Millis,
}

impl Default for Guardrails {
    fn default() -> Self {
        Self {
            largest_step: 100.0,
            before_bake: None,
            deadline_ms: 24 * 3_600_000,
            on_deadline: OnTrouble::Rollback,
            on_plugin_error: OnTrouble::Rollback,
            healthy_timeout_ms: 60_000,
            final_bake_ms: 0,
            alarms: vec![],
        }
    }
}

impl Guardrails {
    /// The defaults for AWS, where tasks need longer to become healthy.
    #[must_use]
    pub fn on_aws() -> Self {
        Self {
            healthy_timeout_ms: 15 * 60_000,
            ..Self::default()
        }
    }
}

impl OnTrouble {
    /// The goal that it stands for; `None` for a pause.
    #[must_use]
    pub fn goal(self) -> Option<Goal> {
        match self {
            Self::Rollback => Some(Goal::RollBack),
            Self::Pause => None,
        }
    }
}

/// Limits of one run, stricter than the host's own. A rollout is pinned to
/// those that it began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Caps {
    /// Linear memory of the plugin, MiB.
    pub memory_mib: Option<u32>,
    /// Instructions (wasmtime's fuel) between two calls.
    pub fuel: Option<u64>,
    /// Calls of the strategy in the whole rollout.
    pub calls: Option<u32>,
    /// Size of the journal, about, in MiB.
    pub journal_mib: Option<u32>,
    /// Whether all of the journal counts towards its limit. Earlier engines counted only
    /// answers; a rollout that began with one of them keeps to that, because the new
    /// count might end it.
    #[serde(default = "no")]
    pub all_entries: bool,
}

fn no() -> bool {
    false
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            memory_mib: None,
            fuel: None,
            calls: None,
            journal_mib: None,
            all_entries: true,
        }
    }
}

impl Caps {
    /// The limits of a rollout of an earlier engine, whose journal does not have them.
    #[must_use]
    pub fn of_old() -> Self {
        Self {
            all_entries: false,
            ..Self::default()
        }
    }

    /// Why the strategy may not make another call after `calls` calls and with `bytes`
    /// bytes in the journal; `None` if it may.
    #[must_use]
    pub fn used_up(&self, calls: u32, bytes: u64) -> Option<String> {
        let most = self.calls.unwrap_or(CALLS_MAX);
        if calls >= most {
            return Some(format!(
                "it has made {most} calls, and no more are allowed in one rollout"
            ));
        }
        let mib = self.journal_mib.unwrap_or(JOURNAL_MIB_MAX);
        let what = if self.all_entries {
            "its calls and their answers fill"
        } else {
            "its metrics fill"
        };
        (bytes >= u64::from(mib) << 20).then(|| {
            format!("{what} {mib} MiB of the journal, and no more are allowed in one rollout")
        })
    }

    /// The limits within which both of them are kept.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        Self {
            memory_mib: least(self.memory_mib, other.memory_mib),
            fuel: least(self.fuel, other.fuel),
            calls: least(self.calls, other.calls),
            journal_mib: least(self.journal_mib, other.journal_mib),
            all_entries: self.all_entries || other.all_entries,
        }
    }
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

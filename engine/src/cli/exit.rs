//! Exit codes, documented in docs/reference/exit-codes.md and relied upon by CI.

use std::process::ExitCode;

use crate::model::End;
use crate::ops::Kind;
use crate::rollout::Standing;

/// What the process tells its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Promoted, or done.
    Done = 0,
    /// Unexpected error.
    Unexpected = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Rolled back.
    RolledBack = 3,
    /// The way back failed: page someone.
    RollbackFailed = 4,
    /// Paused, a person must act.
    Paused = 5,
    /// The plugin was rejected.
    Rejected = 6,
    /// The target is busy, or somebody else changed it.
    Busy = 7,
    /// On replay the strategy made another call than its journal has.
    Diverged = 8,
    /// A simulated scenario is not as expected.
    Unmet = 9,
    /// There was nothing to take back or to undo.
    Unchanged = 10,
    /// A look has found something that is wrong.
    Problems = 11,
}

impl Exit {
    /// All of them, by number.
    pub const ALL: [Self; 12] = [
        Self::Done,
        Self::Unexpected,
        Self::Usage,
        Self::RolledBack,
        Self::RollbackFailed,
        Self::Paused,
        Self::Rejected,
        Self::Busy,
        Self::Diverged,
        Self::Unmet,
        Self::Unchanged,
        Self::Problems,
    ];

    /// What it means, in the words of the documents, whose table is made from this.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "promoted, or done",
            Self::Unexpected => "unexpected error",
            Self::Usage => "usage or configuration",
            Self::RolledBack => "rolled back",
            Self::RollbackFailed => "rollback failed: page someone",
            Self::Paused => "paused, a person must act",
            Self::Rejected => "plugin rejected (digest, signature, permission, contract, policy)",
            Self::Busy => "target busy, or changed by somebody else",
            Self::Diverged => "the strategy diverged from its journal; `replay` found a difference",
            Self::Unmet => {
                "a simulated scenario is not as expected; `plugin test` found other decisions"
            }
            Self::Unchanged => {
                "nothing to take back: what `rollback` or `undo` asks for is so already"
            }
            Self::Problems => "`check` or `doctor` has found a problem",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&Standing> for Exit {
    fn from(standing: &Standing) -> Self {
        match standing {
            Standing::Over(End::Promoted | End::Done, _) => Self::Done,
            Standing::Over(End::RolledBack, _) => Self::RolledBack,
            Standing::Over(End::RollbackFailed, _) => Self::RollbackFailed,
            Standing::Over(End::Refused, _)
            | Standing::Held(crate::model::Hold::ForeignChange { .. }) => Self::Busy,
            Standing::Held(_) | Standing::Parked(_) => Self::Paused,
            Standing::Diverged(_) => Self::Diverged,
        }
    }
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Usage | Kind::NotFound | Kind::Denied => Self::Usage,
            Kind::Busy => Self::Busy,
            Kind::Rejected => Self::Rejected,
            Kind::RollbackFailed => Self::RollbackFailed,
            Kind::Unreachable | Kind::Internal => Self::Unexpected,
        }
    }
}

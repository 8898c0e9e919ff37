//! Exit codes, documented in docs/reference/exit-codes.md and relied upon by CI.

use std::process::ExitCode;

use crate::model::{End, ErrorKind, HostError};
use crate::rollout::{RolloutError, Standing};
use crate::spec::SpecError;
use crate::store::StoreError;
use crate::strategy::contract::Rejected;
use crate::supply::SupplyError;

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
    /// The strategy did not repeat itself.
    Diverged = 8,
    /// A simulated scenario is not as expected.
    Unmet = 9,
}

impl Exit {
    /// All of them, by number.
    pub const ALL: [Self; 10] = [
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
    ];

    /// What it means, as the documents list it.
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

/// An expected failure with its exit code. Anything else is a 1.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Its code.
    pub exit: Exit,
    /// What was wrong and what to do.
    pub message: String,
}

impl Failure {
    /// Wrong usage or configuration.
    pub fn usage(message: impl Into<String>) -> anyhow::Error {
        Self {
            exit: Exit::Usage,
            message: message.into(),
        }
        .into()
    }

    /// The traffic could not be taken back.
    pub fn rollback(message: impl Into<String>) -> anyhow::Error {
        Self {
            exit: Exit::RollbackFailed,
            message: message.into(),
        }
        .into()
    }

    /// The target is busy, or not as expected.
    pub fn busy(message: impl Into<String>) -> anyhow::Error {
        Self {
            exit: Exit::Busy,
            message: message.into(),
        }
        .into()
    }
}

/// The exit code of an error, by what caused it.
#[must_use]
pub fn code(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.exit;
        }
        if cause.is::<Rejected>() {
            return Exit::Rejected;
        }
        if let Some(supply) = cause.downcast_ref::<SupplyError>() {
            return match supply {
                e if e.is_rejection() => Exit::Rejected,
                e if e.is_usage() => Exit::Usage,
                _ => Exit::Unexpected,
            };
        }
        if cause.is::<SpecError>() {
            return Exit::Usage;
        }
        if let Some(RolloutError::Overtaken { landed, .. }) = cause.downcast_ref::<RolloutError>() {
            return if *landed {
                Exit::RollbackFailed
            } else {
                Exit::Busy
            };
        }
        let target = cause.downcast_ref::<HostError>().or_else(|| {
            match cause.downcast_ref::<RolloutError>() {
                Some(RolloutError::Target(error)) => Some(error),
                _ => None,
            }
        });
        if let Some(error) = target {
            return match error.kind {
                ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Denied => Exit::Usage,
                ErrorKind::Conflict => Exit::Busy,
                _ => Exit::Unexpected,
            };
        }
        let store = cause.downcast_ref::<StoreError>().or_else(|| {
            match cause.downcast_ref::<RolloutError>() {
                Some(RolloutError::Store(store)) => Some(store),
                _ => None,
            }
        });
        match store {
            Some(StoreError::Busy(_) | StoreError::Fenced { .. }) => return Exit::Busy,
            Some(StoreError::NotFound(_)) => return Exit::Usage,
            _ => {}
        }
    }
    Exit::Unexpected
}

//! An answer that there is none: what was wrong.

use schemars::JsonSchema;
use serde::Serialize;

use crate::ops;

/// A verb that failed before it answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// What was wrong.
    pub error: Wrong,
}

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Wrong {
    /// Its class.
    pub kind: Kind,
    /// What was wrong, in a sentence.
    pub message: String,
    /// What a person can do about it; null if nothing is known.
    pub advice: Option<String>,
    /// The exit code of the process.
    pub exit_code: u8,
}

/// The class of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The request or the configuration is wrong, or does not apply now.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// Another rollout or process has the target, or it is not as expected.
    Busy,
    /// The plugin may not run here.
    Rejected,
    /// AWS, or the local balancer, does not permit it.
    Denied,
    /// The target or the registry does not answer, or cannot do it now.
    Unreachable,
    /// The traffic could not be taken back.
    RollbackFailed,
    /// Anything else: a failure of this machine, or a bug.
    Internal,
}

impl From<ops::Kind> for Kind {
    fn from(kind: ops::Kind) -> Self {
        match kind {
            ops::Kind::Usage => Self::Usage,
            ops::Kind::NotFound => Self::NotFound,
            ops::Kind::Busy => Self::Busy,
            ops::Kind::Rejected => Self::Rejected,
            ops::Kind::Denied => Self::Denied,
            ops::Kind::Unreachable => Self::Unreachable,
            ops::Kind::RollbackFailed => Self::RollbackFailed,
            ops::Kind::Internal => Self::Internal,
        }
    }
}

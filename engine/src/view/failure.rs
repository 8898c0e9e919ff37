//! An answer that there is none: what was wrong.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::problem::Located;
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
    /// What is wrong with a file or with parameters, each for itself; absent if the error is
    /// another one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// The exit code of the process.
    pub exit_code: u8,
}

/// One thing that is wrong with a file or a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Problem {
    /// The file; null if it is not in a file.
    pub file: Option<String>,
    /// The line of the key, from 1, or of the table in which it is missing; null if there is
    /// none.
    pub line: Option<usize>,
    /// The column at which the key begins, in characters from 1; null as with the line.
    pub column: Option<usize>,
    /// The key, such as `guardrails.deadline`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what to write instead, to be read after the key.
    pub message: String,
}

impl From<&Located> for Problem {
    fn from(located: &Located) -> Self {
        let Located { file, problem } = located;
        Self {
            file: file.clone(),
            line: problem.line,
            column: problem.column,
            key: problem.path.clone(),
            message: problem.message.clone(),
        }
    }
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

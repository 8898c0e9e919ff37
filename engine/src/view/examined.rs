//! What a look at a file, a target or this machine has found.

use schemars::JsonSchema;
use serde::Serialize;

use super::failure::Problem;

/// Whether a rollout could begin.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Check {
    /// The rollout file; null if there is none.
    pub file: Option<String>,
    /// All that was looked at, in order.
    pub examined: Vec<Examined>,
    /// The exit code of the process.
    pub exit_code: u8,
}

/// Whether this machine and its access to AWS are as a rollout needs them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Doctor {
    /// All that was looked at, in order.
    pub examined: Vec<Examined>,
    /// The exit code of the process.
    pub exit_code: u8,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Examined {
    /// What it is, such as `parameters`.
    pub about: String,
    /// How it is.
    pub state: State,
    /// What was found, in a sentence.
    pub message: String,
    /// What a person can do about it; null if nothing is known or needed.
    pub advice: Option<String>,
    /// What is wrong with a file or with parameters, each for itself; absent if nothing is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// It was not looked at, or nothing needs it.
    Skipped,
    /// It may be as intended, and a person should know of it.
    Warning,
    /// Something is wrong with it.
    Problem,
}

//! Views: what the outcomes of operations look like as JSON.
//!
//! Every front end that answers in JSON takes its types from here, and writes them
//! with [`text`]. All keys are in kebab-case, as in the rollout file; values that are
//! one of a few words are too. A time is in milliseconds since 1970 (Unix ms) and a
//! duration has its unit in its name, unless the field says otherwise. Keys of AWS
//! and of plugins (an IAM policy, parameters, the names of arms) stay as they are.
//!
//! [`catalogue`] has a JSON Schema for each of them, and for the files that people
//! write. The tests hold every real answer against its schema.

pub mod catalogue;
pub mod examined;
pub mod failure;
pub mod init;
mod kebab;
pub mod past;
pub mod plan;
pub mod plugin;
pub mod rollout;
pub mod simulation;
pub mod stack;
pub mod traffic;
pub mod version;

use schemars::JsonSchema;
use serde::Serialize;

use kebab::Kebab;

/// One answer in JSON. Each of them is in the catalogue of [`catalogue`].
pub trait View: Serialize + JsonSchema {
    /// The name under which `engine schema` shows its schema.
    const NAME: &'static str;
    /// Which verbs answer with it.
    const ABOUT: &'static str;
}

/// The JSON of an answer, in one line.
#[must_use]
pub fn text(view: &impl View) -> String {
    // Keys are texts and every value here has a form in JSON, so this cannot fail.
    serde_json::to_string(&Kebab(view)).unwrap_or_else(|e| unreachable!("{e}"))
}

//! A rollout file that was written.

use schemars::JsonSchema;
use serde::Serialize;

use crate::ops::init::Written;

/// A rollout file that was written.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Init {
    /// The file.
    pub file: String,
    /// The strategy that it names; null if none is on this machine, and the file leaves it
    /// open.
    pub plugin: Option<String>,
    /// The names of its arms.
    pub arms: Vec<String>,
}

impl From<&Written> for Init {
    fn from(written: &Written) -> Self {
        Self {
            file: written.file.display().to_string(),
            plugin: written.plugin.clone(),
            arms: written.arms.clone(),
        }
    }
}

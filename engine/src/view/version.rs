//! Which engine this is.

use schemars::JsonSchema;
use serde::Serialize;

/// What a build can be told apart by, and what it gets along with.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Version {
    /// Version of the engine.
    pub engine: &'static str,
    /// The worlds of the contract that plugins may export.
    pub contracts: Vec<&'static str>,
    /// Version of the journals that it writes.
    pub journal_format: u32,
    /// Operating system and processor that it was built for.
    pub platform: String,
}

impl Version {
    /// That of this process.
    #[must_use]
    pub fn of_this(contracts: Vec<&'static str>) -> Self {
        Self {
            engine: env!("CARGO_PKG_VERSION"),
            contracts,
            journal_format: crate::journal::FORMAT,
            platform: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        }
    }
}

//! The answers of `engine plugin inspect | check | verify | push`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::ops::pin;
use crate::ops::plugin::registry;
use crate::ops::plugin::{check, inspect};

/// What a plugin is and what it can do.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Inspection {
    /// Its name, as it says itself.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
    /// What it does in one sentence, as it says itself.
    pub summary: String,
    /// Where its bytes come from.
    pub source: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// Size, bytes.
    pub size: usize,
    /// The world of the contract that it exports, with its version.
    pub world: String,
    /// The functions that it may call.
    pub permissions: Vec<String>,
    /// Interfaces of its standard library that stubs stand for.
    pub stubbed: Vec<String>,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// The JSON Schema of its parameters; null if it cannot be read.
    pub schema: Value,
    /// What the file says of its own origin, by label.
    pub annotations: BTreeMap<String, String>,
}

/// One parameter of a plugin, in words.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Which values it may have.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is if nobody sets it; empty if it must be set.
    pub default: String,
    /// What it does.
    pub description: String,
}

impl From<&inspect::Inspected> for Inspection {
    fn from(found: &inspect::Inspected) -> Self {
        let parameter = |parameter: &inspect::Parameter| Parameter {
            name: parameter.name.clone(),
            kind: parameter.kind.clone(),
            default: parameter.default.clone(),
            description: parameter.about.clone(),
        };
        let annotations = found.annotations.iter();
        let (plugin, description) = (&found.plugin, &found.description);
        Self {
            name: description.name.clone(),
            version: description.version.clone(),
            summary: description.summary.clone(),
            source: found.source.clone(),
            sha256: plugin.sha256.clone(),
            size: plugin.size,
            world: plugin.world.clone(),
            permissions: plugin.permissions.clone(),
            stubbed: plugin.stubbed.clone(),
            parameters: found.parameters.iter().map(parameter).collect(),
            schema: found.schema.clone(),
            annotations: annotations
                .map(|a| (a.label.to_owned(), a.text.clone()))
                .collect(),
        }
    }
}

/// Whether a plugin fits the contract and repeats itself.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Check {
    /// The file or name that was checked.
    pub plugin: String,
    /// Its name, as it says itself.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
    /// The world of the contract that it exports, with its version.
    pub world: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// Size, bytes.
    pub size: usize,
    /// The functions that it may call.
    pub permissions: Vec<String>,
    /// Interfaces of its standard library that stubs stand for.
    pub stubbed: Vec<String>,
    /// Whether one of its permissions changes weights.
    pub moves_traffic: bool,
    /// What it did in each small world.
    pub runs: Vec<Run>,
    /// Whether it repeated itself, also after crashes.
    pub deterministic: bool,
    /// Where it did not repeat itself; null if it did.
    pub difference: Option<String>,
    /// Why it failed in a world; null if it did not.
    pub failed: Option<String>,
}

/// What a plugin did in one small world.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Run {
    /// The name of the world.
    pub world: String,
    /// Calls that it made.
    pub calls: usize,
    /// Instructions that it used in all (wasmtime's fuel).
    pub fuel: u64,
    /// How it ended, in words.
    pub reason: String,
}

impl From<&check::Checked> for Check {
    fn from(checked: &check::Checked) -> Self {
        let run = |world: &check::World| Run {
            world: world.name.clone(),
            calls: world.fuel.len(),
            fuel: world.fuel.iter().sum(),
            reason: world.reason.clone(),
        };
        let (plugin, description) = (&checked.plugin, &checked.description);
        Self {
            plugin: checked.shown.clone(),
            name: description.name.clone(),
            version: description.version.clone(),
            world: plugin.world.clone(),
            sha256: plugin.sha256.clone(),
            size: plugin.size,
            permissions: plugin.permissions.clone(),
            stubbed: plugin.stubbed.clone(),
            moves_traffic: inspect::moves_traffic(plugin),
            runs: checked.worlds.iter().map(run).collect(),
            deterministic: checked.difference.is_none(),
            difference: checked.difference.clone(),
            failed: checked.failed().map(|world| world.reason.clone()),
        }
    }
}

/// Whether plugins are as they are pinned.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Verification {
    /// Each plugin that was verified.
    pub plugins: Vec<Verified>,
}

/// One plugin that was verified.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Verified {
    /// Its name in `plugins.toml`.
    pub name: String,
    /// Whether it is as it is pinned.
    pub ok: bool,
    /// `ok`, or what is wrong.
    pub message: String,
}

impl From<&[pin::Verified]> for Verification {
    fn from(all: &[pin::Verified]) -> Self {
        let plugins = all.iter().map(|verified| Verified {
            name: verified.name.clone(),
            ok: verified.result.is_ok(),
            message: match &verified.result {
                Ok(_) => "ok".to_owned(),
                Err(error) => error.message.clone(),
            },
        });
        Self {
            plugins: plugins.collect(),
        }
    }
}

/// A plugin that was put into a registry.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Push {
    /// Where it was put.
    pub reference: String,
    /// Digest of its manifest, with `sha256:` before it.
    pub manifest: String,
    /// Digest of its bytes, with `sha256:` before it.
    pub wasm: String,
    /// The key that signed it; null if it was not signed.
    pub signed_by: Option<String>,
}

impl From<&registry::Pushed> for Push {
    fn from(pushed: &registry::Pushed) -> Self {
        Self {
            reference: pushed.reference.clone(),
            manifest: pushed.manifest.clone(),
            wasm: format!("sha256:{}", pushed.sha256),
            signed_by: pushed.signed_by.clone(),
        }
    }
}

//! The answers of `engine plugin` and its verbs.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::ops::pin;
use crate::ops::plugin::{check, inspect, project, registry, sign, test};

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

/// A project for a strategy that was made.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct New {
    /// Its name.
    pub name: String,
    /// Its language: `rust`, `python` or `js`.
    pub language: String,
    /// Its folder.
    pub folder: String,
}

impl From<&project::Made> for New {
    fn from(made: &project::Made) -> Self {
        Self {
            name: made.name.clone(),
            language: made.language.folder().to_owned(),
            folder: made.folder.display().to_string(),
        }
    }
}

/// How the decisions of a plugin compare with accepted ones.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Test {
    /// Each file of scenarios.
    pub files: Vec<Tested>,
}

/// The decisions in one file of scenarios.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Tested {
    /// The file of scenarios.
    pub scenarios: String,
    /// The file of the accepted decisions.
    pub decisions: String,
    /// Whether they are as accepted, and no rule of the host was broken.
    pub passed: bool,
    /// How they compare.
    pub compared: Compared,
    /// The decisions, in the form of that file.
    pub now: String,
    /// The accepted ones; null if they are the same, or if there are none.
    pub accepted: Option<String>,
    /// Rules of the host that were broken.
    pub violations: Vec<String>,
}

/// How decisions compare with the accepted ones.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// They were accepted now.
    Accepted,
    /// They are the same.
    Same,
    /// They differ.
    Different,
    /// None were accepted before.
    New,
}

impl From<&[test::Tested]> for Test {
    fn from(all: &[test::Tested]) -> Self {
        let files = all.iter().map(|tested| {
            let (compared, accepted) = match &tested.compared {
                test::Compared::Accepted => (Compared::Accepted, None),
                test::Compared::Same => (Compared::Same, None),
                test::Compared::Different { accepted } => (Compared::Different, Some(accepted)),
                test::Compared::New => (Compared::New, None),
            };
            Tested {
                scenarios: tested.scenarios.display().to_string(),
                decisions: tested.decisions.display().to_string(),
                passed: tested.passed(),
                compared,
                now: tested.now.clone(),
                accepted: accepted.cloned(),
                violations: tested.violations.clone(),
            }
        });
        Self {
            files: files.collect(),
        }
    }
}

/// The lock of plugins, and what has changed in it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Lock {
    /// The lock.
    pub file: String,
    /// Whether it was written, which is so if something has changed.
    pub written: bool,
    /// What has changed.
    pub changes: Vec<Change>,
}

/// A pin that has changed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// The name of the plugin.
    pub name: String,
    /// Digest of its bytes before, with `sha256:` before it; null if it is new.
    pub before: Option<String>,
    /// Digest of its bytes now, with `sha256:` before it; null if it is gone.
    pub now: Option<String>,
}

impl From<&pin::LockFile> for Lock {
    fn from(lock: &pin::LockFile) -> Self {
        let changes = lock.changes.iter().map(|change| Change {
            name: change.name.clone(),
            before: change.before.clone(),
            now: change.now.clone(),
        });
        Self {
            file: lock.file.display().to_string(),
            written: lock.written,
            changes: changes.collect(),
        }
    }
}

/// Plugins that were copied beside their names.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Vendor {
    /// The folder; null if no plugin comes from a registry.
    pub folder: Option<String>,
}

impl From<Option<&Path>> for Vendor {
    fn from(folder: Option<&Path>) -> Self {
        Self {
            folder: folder.map(|folder| folder.display().to_string()),
        }
    }
}

/// Plugins that were fetched.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Pull {
    /// Each of them.
    pub plugins: Vec<Pulled>,
}

/// A plugin that was fetched.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Pulled {
    /// Its name in `plugins.toml`; null if it was fetched by a reference.
    pub name: Option<String>,
    /// The file that it was written to; null if it was fetched by its name.
    pub file: Option<String>,
    /// Digest of its manifest, with `sha256:` before it; null if it was fetched by its name.
    pub manifest: Option<String>,
    /// Digest of its bytes, with `sha256:` before it.
    pub wasm: String,
}

impl From<&[registry::Pulled]> for Pull {
    fn from(all: &[registry::Pulled]) -> Self {
        let plugins = all.iter().map(|pulled| match pulled {
            registry::Pulled::Name { name, sha256 } => Pulled {
                name: Some(name.clone()),
                file: None,
                manifest: None,
                wasm: format!("sha256:{sha256}"),
            },
            registry::Pulled::Reference {
                file,
                manifest,
                sha256,
            } => Pulled {
                name: None,
                file: Some(file.display().to_string()),
                manifest: Some(manifest.clone()),
                wasm: format!("sha256:{sha256}"),
            },
        });
        Self {
            plugins: plugins.collect(),
        }
    }
}

/// A pair of keys that was made.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Keys {
    /// The file of the private key, which is secret.
    pub secret: String,
    /// The file of the public key.
    pub public: String,
    /// The id of the public key.
    pub id: String,
}

impl From<&sign::Keys> for Keys {
    fn from(keys: &sign::Keys) -> Self {
        Self {
            secret: keys.secret.display().to_string(),
            public: keys.public.display().to_string(),
            id: keys.id.clone(),
        }
    }
}

/// A signature that was made.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Sign {
    /// The exact reference that it signs in a registry, or the file that has it.
    pub place: String,
    /// The id of the key that has signed.
    pub signed_by: String,
}

impl From<&sign::Signature> for Sign {
    fn from(signature: &sign::Signature) -> Self {
        Self {
            place: signature.place.clone(),
            signed_by: signature.by.clone(),
        }
    }
}

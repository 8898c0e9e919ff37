//! The catalogue: every answer in JSON and every file that people write, each with
//! its JSON Schema (draft 2020-12).
//!
//! The schemas are made from the types, so they cannot say anything else than the
//! types do. None of their objects allows a key that it does not describe.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value};

use super::kebab::kebab;
use super::{
    View, examined, failure, init, past, plan, plugin, rollout, simulation, stack, traffic, version,
};
use crate::schema::{of_file, tidy};
use crate::simulate::scenario;
use crate::spec::nearest;
use crate::spec::schema::{PluginsFile, PolicyTable, RolloutFile};

/// Whether people write something or the engine answers with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file that people write.
    File,
    /// An answer of the engine.
    Answer,
}

/// One entry of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Document {
    /// The name under which `engine schema` shows it.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Whether it is a file or an answer.
    pub kind: Kind,
    schema: fn() -> Value,
}

impl Document {
    /// Its JSON Schema.
    #[must_use]
    pub fn schema(&self) -> Value {
        let mut schema = (self.schema)();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("title".to_owned(), self.name.into());
        }
        schema
    }
}

macro_rules! answers {
    ($($view:ty: $name:literal, $about:literal;)*) => {
        $(impl View for $view {
            const NAME: &'static str = $name;
            const ABOUT: &'static str = $about;
        })*

        /// Every answer, in the order of its verb in the help.
        const ANSWERS: &[Document] = &[$(Document {
            name: $name,
            about: $about,
            kind: Kind::Answer,
            schema: answer::<$view>,
        }),*];
    };
}

answers! {
    rollout::Driven: "run", "run, demo, resume, undo, wait, status --watch: a rollout that was driven or followed";
    plan::Plan: "plan", "plan: what a rollout on AWS would do";
    init::Init: "init", "init: a rollout file that was written";
    examined::Check: "check", "check: whether a rollout could begin";
    simulation::Report: "simulate", "simulate: many rollouts, counted";
    simulation::Replicate: "replicate", "simulate --replicate: one rollout and its whole story";
    traffic::Standing: "status", "status: where the traffic goes, and the rollout that moves it";
    rollout::Rollout: "get", "get: everything about one rollout";
    rollout::List: "list", "list: rollouts, newest first";
    rollout::History: "history", "history: the journal of a rollout";
    past::Explanation: "explain", "explain: which metric led to which decision";
    past::Replay: "replay", "replay: whether a plugin does what a journal says";
    past::WhatIf: "what-if", "what-if: how another plugin or other parameters would have decided";
    past::Export: "export", "export: a journal that was written into a file";
    past::Import: "import", "import: a journal that was taken from a file";
    traffic::Change: "traffic", "set-weights, switch, rollback: traffic that was moved by hand; undo where there is nothing to undo";
    rollout::Status: "rollout", "pause, abort, promote, approve, and rollback where it aborts a rollout: where a rollout stands";
    stack::Deployed: "deploy", "deploy: a stack that was created or updated";
    stack::Deleted: "delete", "delete: a stack that was deleted";
    traffic::Local: "local", "local: the addresses of a local balancer";
    plugin::New: "plugin-new", "plugin new: a project for a strategy";
    plugin::Check: "plugin-check", "plugin check: whether a plugin fits the contract and repeats itself";
    plugin::Inspection: "plugin-inspect", "plugin inspect: what a plugin is and what it can do";
    plugin::Test: "plugin-test", "plugin test: how a plugin's decisions compare with accepted ones";
    plugin::Lock: "plugin-lock", "plugin lock, plugin update: what is pinned, and what has changed";
    plugin::Verification: "plugin-verify", "plugin verify: whether plugins are as they are pinned";
    plugin::Vendor: "plugin-vendor", "plugin vendor: where copies of plugins are";
    plugin::Pull: "plugin-pull", "plugin pull: plugins that were fetched";
    plugin::Push: "plugin-push", "plugin push: a plugin that was put into a registry";
    plugin::Keys: "plugin-keys", "plugin keys: a pair of keys";
    plugin::Sign: "plugin-sign", "plugin sign: a signature that was made";
    examined::Doctor: "doctor", "doctor: whether this machine and its access to AWS are as a rollout needs them";
    version::Version: "version", "version: which engine this is";
    Catalogue: "schema", "schema: the list of all schemas";
    failure::Failure: "error", "every verb that fails before it has answered: what was wrong";
}

/// Every file that people write.
const FILES: &[Document] = &[
    Document {
        name: "rollout.toml",
        about: "the rollout file",
        kind: Kind::File,
        schema: of_file::<RolloutFile>,
    },
    Document {
        name: "plugins.toml",
        about: "where plugins come from, and whose signature they need",
        kind: Kind::File,
        schema: of_file::<PluginsFile>,
    },
    Document {
        name: "policy.toml",
        about: "what the operator of a host allows a plugin",
        kind: Kind::File,
        schema: of_file::<PolicyTable>,
    },
    Document {
        name: "scenario",
        about: "scenarios for simulate and plugin test, format simulate/v1",
        kind: Kind::File,
        schema: scenario::schema,
    },
];

/// The whole catalogue: the files, then the answers.
pub fn documents() -> impl Iterator<Item = &'static Document> {
    FILES.iter().chain(ANSWERS)
}

/// The entry of that name.
#[must_use]
pub fn document(name: &str) -> Option<&'static Document> {
    documents().find(|document| document.name == name)
}

/// The names that a person may have meant by a name that does not exist.
#[must_use]
pub fn like(name: &str) -> Vec<&'static str> {
    let names = || documents().map(|document| document.name);
    if let Some(near) = nearest(name, names()) {
        return vec![near];
    }
    let parts = |known: &&str| known.contains(name) || name.contains(known);
    names().filter(parts).collect()
}

/// The list of all schemas.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Catalogue(Vec<Entry>);

/// One entry of it.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    /// Under which `engine schema` shows it.
    name: &'static str,
    /// Whether it is read or written.
    kind: Kind,
    /// What it is, in one line.
    about: &'static str,
}

impl Catalogue {
    /// All of it.
    #[must_use]
    pub fn new() -> Self {
        let entry = |document: &Document| Entry {
            name: document.name,
            kind: document.kind,
            about: document.about,
        };
        Self(documents().map(entry).collect())
    }
}

impl Default for Catalogue {
    fn default() -> Self {
        Self::new()
    }
}

fn answer<T: JsonSchema>() -> Value {
    let generator = SchemaGenerator::new(SchemaSettings::draft2020_12().for_serialize());
    let mut schema = Value::from(generator.into_root_schema_for::<T>());
    spell(&mut schema);
    tidy(&mut schema);
    schema
}

/// Spells the keys of objects as [`super::text`] does.
fn spell(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                let old = std::mem::take(properties);
                let spelt = old
                    .into_iter()
                    .map(|(key, of)| (kebab(&key).into_owned(), of));
                *properties = spelt.collect::<Map<_, _>>();
            }
            if let Some(Value::Array(required)) = object.get_mut("required") {
                for key in required {
                    if let Value::String(key) = key {
                        *key = kebab(key).into_owned();
                    }
                }
            }
            object.values_mut().for_each(spell);
        }
        Value::Array(items) => items.iter_mut().for_each(spell),
        _ => {}
    }
}

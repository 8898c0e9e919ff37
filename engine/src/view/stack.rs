//! The answers of `engine deploy` and `engine delete`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::Weights;
use crate::ops::deploy;
use crate::target::aws::stack;

/// A stack that was created or updated.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Deployed {
    /// Its name.
    pub stack: String,
    /// Its status, in the words of CloudFormation; null if there is none.
    pub status: Option<String>,
    /// What was done.
    pub result: Deployment,
    /// The changes of the change set.
    pub changes: Vec<Change>,
    /// The outputs of the stack, by name; null if there is no stack.
    pub outputs: Option<BTreeMap<String, String>>,
    /// The weights after it; null if they were not read.
    pub weights: Option<Weights>,
}

/// What was done to a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Deployment {
    /// Nothing had to change.
    NoChanges,
    /// The changes were shown and nothing was changed.
    DryRun,
    /// It was created or updated.
    Done,
    /// A person stopped it before anything was changed.
    Stopped,
    /// A person stopped the process that watched it; CloudFormation goes on.
    Left,
}

/// One line of a change set. The values are those of CloudFormation.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// `Add`, `Modify` or `Remove`.
    pub action: String,
    /// The name of the resource in the template.
    pub logical_id: String,
    /// The type of the resource, such as `AWS::ECS::Service`.
    pub kind: String,
    /// Whether the resource is replaced: `True`, `False` or `Conditional`; empty for a
    /// resource that is added or removed.
    pub replacement: String,
}

impl From<&stack::Change> for Change {
    fn from(change: &stack::Change) -> Self {
        Self {
            action: change.action.clone(),
            logical_id: change.logical_id.clone(),
            kind: change.kind.clone(),
            replacement: change.replacement.clone(),
        }
    }
}

impl From<&deploy::Deployed> for Deployed {
    fn from(done: &deploy::Deployed) -> Self {
        let stack = done.stack.as_ref();
        Self {
            stack: done.name.clone(),
            status: stack.map(|stack| stack.status.clone()),
            result: match done.result {
                deploy::Deployment::NoChanges => Deployment::NoChanges,
                deploy::Deployment::DryRun => Deployment::DryRun,
                deploy::Deployment::Done => Deployment::Done,
                deploy::Deployment::Stopped => Deployment::Stopped,
                deploy::Deployment::Left => Deployment::Left,
            },
            changes: done.changes.iter().map(Change::from).collect(),
            outputs: stack.map(|stack| stack.outputs.clone()),
            weights: done.weights.clone(),
        }
    }
}

/// A stack that was deleted.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Deleted {
    /// Its name.
    pub stack: String,
    /// Its last status, in the words of CloudFormation.
    pub status: String,
}

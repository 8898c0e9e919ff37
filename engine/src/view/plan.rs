//! The answer of `engine plan`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::model::aws::{Difference, Found};
use crate::model::{End, Millis};
use crate::ops::plan;
use crate::simulate::rehearsal::Rehearsal;
use crate::target::aws;

/// What a rollout on AWS would do.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The target, with every name resolved.
    pub target: Found,
    /// What changes in the task definitions of the arms, if the new version never fails.
    pub task_definitions: Vec<TaskChange>,
    /// The strategy's name.
    pub strategy: String,
    /// What the strategy says of a rollout with the traffic of the last quarter of an hour
    /// before its first step, such as which faults would show; empty without traffic, or
    /// where it cannot be told.
    pub said: Vec<String>,
    /// The rehearsal with a new version that never fails.
    pub good: Good,
    /// The rehearsal with a new version that always fails.
    pub bad: Bad,
    /// The writes, if the new version never fails, in order.
    pub writes: Vec<Write>,
    /// The writes, if the new version always fails, in order.
    pub writes_if_bad: Vec<Write>,
    /// How often each reading API is called, if the new version never fails.
    pub reads: BTreeMap<String, usize>,
    /// Most API calls in one minute, if the new version never fails.
    pub busiest_minute: usize,
    /// The IAM policy document that the rollout needs, as AWS reads it.
    pub policy: Value,
}

/// What changes in what an arm runs.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TaskChange {
    /// The arm.
    pub arm: String,
    /// The container that gets the new image; null where a task definition is named.
    pub container: Option<String>,
    /// What runs now, `FAMILY:REVISION`.
    pub before: String,
    /// What runs then, `FAMILY:REVISION`; `FAMILY` alone if the revision is still to be
    /// registered.
    pub after: String,
    /// What differs between the two, sorted by path.
    pub differences: Vec<Difference>,
}

impl From<&aws::TaskChange> for TaskChange {
    fn from(change: &aws::TaskChange) -> Self {
        Self {
            arm: change.arm.clone(),
            container: change.container.clone(),
            before: change.before.clone(),
            after: change.after.clone(),
            differences: change.differences.clone(),
        }
    }
}

/// How the rehearsal with a version that never fails ended.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Good {
    /// How it ended; null if it waits for a person.
    pub end: Option<End>,
    /// How long it took, ms.
    pub took_ms: Millis,
    /// Whether an approval was given on the way.
    pub approved: bool,
}

/// How the rehearsal with a version that always fails ended.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Bad {
    /// How it ended; null if it waits for a person.
    pub end: Option<End>,
    /// How long the bad version had traffic, ms.
    pub exposed_ms: Millis,
}

/// One write.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Write {
    /// Since the beginning of the rollout, ms.
    pub at_ms: Millis,
    /// The API that is called.
    pub api: String,
    /// What it changes, in words.
    pub what: String,
}

impl From<&plan::Plan> for Plan {
    fn from(plan: &plan::Plan) -> Self {
        let writes = |rehearsal: &Rehearsal| {
            let writes = plan.writes(rehearsal).into_iter();
            let write = writes.map(|write| Write {
                at_ms: write.at_ms,
                api: write.api.name().to_owned(),
                what: write.what,
            });
            write.collect()
        };
        let reads = plan.reads().into_iter();
        Self {
            target: plan.found.clone(),
            task_definitions: plan.changes.iter().map(TaskChange::from).collect(),
            strategy: plan.header.title().to_owned(),
            said: plan
                .sight
                .as_ref()
                .map_or_else(Vec::new, |sight| sight.said.clone().unwrap_or_default()),
            good: Good {
                end: plan.good.end,
                took_ms: plan.good.took_ms,
                approved: plan.good.approved,
            },
            bad: Bad {
                end: plan.bad.end,
                exposed_ms: plan.bad.exposed_ms,
            },
            writes: writes(&plan.good),
            writes_if_bad: writes(&plan.bad),
            reads: reads.map(|(api, count)| (api.to_owned(), count)).collect(),
            busiest_minute: plan.busiest_minute(),
            policy: plan.policy.clone(),
        }
    }
}

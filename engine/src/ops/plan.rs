//! What a rollout on AWS would do: its calls, the permissions that it needs, and the
//! times, from two rehearsals. It only reads from AWS.

use std::collections::{BTreeMap, BTreeSet};

use super::advice::Input;
use super::app::App;
use super::begin::Ready;
use super::error::{Error, Result};
use super::sight::{self, Sight};
use crate::journal::Header;
use crate::model::Millis;
use crate::model::aws::Found;
use crate::model::target::TargetSpec;
use crate::simulate::rehearsal::{Candidate, Rehearsal, Users};
use crate::target::aws::TaskChange;
use crate::target::aws::calls::{self, Api, BESIDES, Scope};

/// Requests per second in the rehearsal, if the target's are not known.
const RPS: f64 = 100.0;

/// What a rollout would do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The rollout.
    pub header: Header,
    /// Its target.
    pub found: Found,
    /// What changes in the task definitions of the arms.
    pub changes: Vec<TaskChange>,
    /// Which faults would show with the traffic of the last quarter of an hour, if there was
    /// any, and somebody wants to know.
    pub sight: Option<Sight>,
    /// The rehearsal with a new version that never fails.
    pub good: Rehearsal,
    /// The rehearsal with a new version that always fails.
    pub bad: Rehearsal,
    /// The IAM policy document for both rehearsals.
    pub policy: serde_json::Value,
}

/// One write of a plan.
#[derive(Debug, Clone)]
pub struct Write {
    /// Time since the beginning of the rollout, ms.
    pub at_ms: Millis,
    /// The API that is called.
    pub api: Api,
    /// What it changes, in words.
    pub what: String,
}

/// What is wanted of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    All,
    /// What a rollout calls, without which faults would show.
    Calls,
}

/// Plans a rollout that could begin on the target as it is now.
///
/// # Errors
///
/// The target is not on AWS or cannot be read, or the strategy does not come to an end.
pub async fn plan(app: &App, ready: Ready, wanted: Wanted) -> Result<Plan> {
    let Ready {
        header,
        live,
        plugin: strategy,
        changes,
        ..
    } = ready;
    let TargetSpec::Aws(spec) = header.target.clone() else {
        return Err(Error::usage(
            "a plan is for a target on AWS, and neither the request nor a rollout file names one",
        )
        .name_it(Input::LoadBalancer));
    };
    let target = app.ports.on_aws(&spec).await?;
    let found = target.found().clone();
    let scaled = !header.scaling.is_empty();
    let (now, late) = (app.clock.now(), spec.metrics_delay_ms);
    let users = sight::users(target.as_ref(), &header, now, late).await;
    let users = users.unwrap_or_default();
    let candidate = Candidate {
        users: users.unwrap_or(Users {
            rps: RPS,
            error_rate: 0.0,
            latency: None,
        }),
        metrics_delay_ms: late,
        // It is read once, and a copy of the target has none.
        header: Header {
            scaling: vec![],
            ..header
        },
        live,
        strategy,
    };
    let good = candidate.rehearse(0.0).await?;
    let bad = candidate.rehearse(1.0).await?;
    let sight = match users.filter(|_| wanted == Wanted::All) {
        Some(_) => Some(Sight::of(&candidate).await),
        None => None,
    };
    let mut apis: BTreeSet<Api> = BESIDES.into_iter().collect();
    let verbs = [&good, &bad].into_iter().flat_map(|r| &r.verbs);
    apis.extend(verbs.flat_map(|(_, v)| v.apis(&found)));
    if scaled {
        apis.insert(Api::RegisterScalableTarget);
    }
    let (families, roles) = target.families_and_roles().await?;
    let scope = Scope {
        found: &found,
        stack: spec.find.stack.as_deref(),
        families: &families,
        roles: &roles,
    };
    let policy = calls::policy(scope, &apis);
    Ok(Plan {
        header: candidate.header,
        found,
        changes,
        sight,
        good,
        bad,
        policy,
    })
}

impl Plan {
    /// The writes of a rehearsal, in order.
    #[must_use]
    pub fn writes(&self, rehearsal: &Rehearsal) -> Vec<Write> {
        let begun = rehearsal.begun;
        let mut writes = vec![];
        for (at, verb) in &rehearsal.verbs {
            let what = match verb {
                calls::Verb::SetWeights(weights) => weights.to_string(),
                calls::Verb::SetVersion { arm, release } => {
                    format!("{arm} gets {}", release.version)
                }
                calls::Verb::SetTasks { arm, tasks, .. } => format!("{arm} has {tasks} tasks"),
                _ => continue,
            };
            for api in verb.apis(&self.found).into_iter().filter(|a| a.writes()) {
                writes.push(Write {
                    at_ms: at - begun,
                    api,
                    what: what.clone(),
                });
            }
        }
        writes
    }

    /// Number of calls of each reading API, if the new version is good.
    #[must_use]
    pub fn reads(&self) -> BTreeMap<&'static str, usize> {
        let mut reads = BTreeMap::new();
        for api in self
            .good
            .verbs
            .iter()
            .flat_map(|(_, v)| v.apis(&self.found))
        {
            if !api.writes() {
                *reads.entry(api.name()).or_insert(0) += 1;
            }
        }
        reads
    }

    /// Most calls in one minute, if the new version is good.
    #[must_use]
    pub fn busiest_minute(&self) -> usize {
        let mut minutes: BTreeMap<Millis, usize> = BTreeMap::new();
        for (at, verb) in &self.good.verbs {
            *minutes.entry(at / 60_000).or_default() += verb.apis(&self.found).len();
        }
        minutes.into_values().max().unwrap_or(0)
    }
}

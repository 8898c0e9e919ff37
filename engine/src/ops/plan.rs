//! What a rollout on AWS would do: its calls, the permissions that it needs, and the
//! times, from two rehearsals. It only reads from AWS.

use std::collections::{BTreeMap, BTreeSet};

use super::advice::Input;
use super::app::App;
use super::begin::Ready;
use super::error::{Error, Result};
use crate::journal::Header;
use crate::model::aws::Found;
use crate::model::target::TargetSpec;
use crate::model::{MetricsQuery, Millis, Role};
use crate::simulate::rehearsal::{Candidate, Rehearsal, Users};
use crate::target::aws::calls::{self, Api, BESIDES, Scope};
use crate::target::{Target, aws::TaskChange};

/// Requests per second in the rehearsal, if the target's are not known.
const RPS: f64 = 100.0;
/// How far back the real traffic is read, ms.
const TRAFFIC_MS: Millis = 15 * 60_000;

/// What a rollout would do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The rollout.
    pub header: Header,
    /// Its target.
    pub found: Found,
    /// What changes in the task definitions of the arms.
    pub changes: Vec<TaskChange>,
    /// The traffic of the last quarter of an hour, if there was any.
    pub users: Option<Users>,
    /// What the strategy says of a rollout with that traffic before its first step.
    pub said: Vec<String>,
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

/// Plans a rollout that could begin on the target as it is now.
///
/// # Errors
///
/// The target is not on AWS or cannot be read, or the strategy does not come to an end.
pub async fn plan(app: &App, ready: Ready) -> Result<Plan> {
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
    let stable = header.arm(Role::Stable);
    let users = users(target.as_ref(), stable, app.clock.now()).await;
    let candidate = Candidate {
        users: users.unwrap_or(Users {
            rps: RPS,
            error_rate: 0.0,
        }),
        metrics_delay_ms: spec.metrics_delay_ms,
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
    let said = match users {
        Some(_) => candidate.said().await?,
        None => vec![],
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
        users,
        said,
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

/// The present traffic, on which the size of a probe and what would show depend.
async fn users(target: &dyn Target, stable: &str, now: Millis) -> Option<Users> {
    let query = MetricsQuery {
        since: now.saturating_sub(TRAFFIC_MS),
        ..MetricsQuery::default()
    };
    let samples = target.samples(&query).await.unwrap_or_default();
    let starts: BTreeSet<Millis> = samples.iter().map(|s| s.start).collect();
    let requests: f64 = samples.iter().map(|s| f64::from(s.requests)).sum();
    let minutes = u32::try_from(starts.len()).map_or(0.0, f64::from);
    let rps = requests / minutes / (f64::from(target.sample_period_ms()) / 1_000.0);
    let served = samples.iter().filter(|sample| sample.arm == stable);
    let (errors, of) = served.fold((0.0, 0.0), |(errors, of), sample| {
        (
            errors + f64::from(sample.errors),
            of + f64::from(sample.requests),
        )
    });
    (rps.is_finite() && rps > 0.0).then(|| Users {
        rps,
        error_rate: if of > 0.0 { errors / of } else { 0.0 },
    })
}

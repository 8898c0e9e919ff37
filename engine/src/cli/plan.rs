//! `engine plan`: what a rollout on AWS would do, rehearsed. The plugin runs
//! for real, on a copy of the target under a virtual clock; what it asks for is
//! written down as the calls that AWS would get.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use clap::Args;
use serde_json::json;

use super::Global;
use super::exit::Exit;
use super::run::{self, Ready, RunArgs};
use crate::clock::{Clock, VirtualClock};
use crate::journal::Header;
use crate::journal::status::Status;
use crate::model::{
    ArmHealth, Command, Deployment, Elsewhere, End, HostError, MetricsQuery, Millis, Observed,
    Point, ProbeReport, Release, Role, Sample, Signal, Source, Traffic, Weights,
};
use crate::ops::Error;
use crate::ops::app::App;
use crate::rollout::{Driver, Options, Resolve, Standing, Strategy};
use crate::simulate::{Behaviour, SimulatedTarget};
use crate::spec::aws::Found;
use crate::spec::{Probe, Query, QuerySource, TargetSpec};
use crate::store::memory::MemoryStore;
use crate::store::{Owner, Store};
use crate::target::Target;
use crate::target::aws::calls::{self, Api, BESIDES, Scope};
use crate::target::aws::client::Patience;

/// Requests per second of the rehearsed users, if the target tells nothing.
const RPS: f64 = 100.0;
/// How far back the real traffic is looked at, ms.
const TRAFFIC_MS: Millis = 15 * 60_000;
/// Turns of the driver before a rehearsal counts as endless.
const TURNS_MAX: u32 = 100_000;

/// Show what `engine run` would do on AWS: calls, permissions, times
///
/// Rehearses the rollout with the real plugin on a copy of the target as it is
/// now. AWS is only read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plan plugins/canary.wasm --stack shop --image REPO:TAG
  engine plan -f rollout.toml --policy > policy.json
  engine plan -f rollout.toml --json | jq .writes")]
pub struct PlanArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Print only the IAM policy that the rollout needs
    #[arg(long)]
    policy: bool,
}

pub(super) async fn plan(app: &App, global: &Global, args: PlanArgs) -> crate::ops::Result<Exit> {
    let ready = run::make_ready(app, global, &args.run).await?;
    let TargetSpec::Aws(spec) = ready.header.target.clone() else {
        return Err(Error::usage(
            "a plan is for a target on AWS: name one with --stack, --listener, --rule or a rollout file",
        ));
    };
    let target = app.ports.on_aws(&spec).await?;
    let found = target.found().clone();
    let rps = requests_per_second(target.as_ref(), app.clock.now()).await;
    let good = rehearse(&ready, spec.metrics_delay_ms, rps, 0.0).await?;
    let bad = rehearse(&ready, spec.metrics_delay_ms, rps, 1.0).await?;
    let mut apis: BTreeSet<Api> = BESIDES.into_iter().collect();
    let lists = [&good, &bad];
    apis.extend(
        lists
            .iter()
            .flat_map(|r| &r.verbs)
            .flat_map(|(_, v)| v.apis(&found)),
    );
    let (families, roles) = target.families_and_roles().await?;
    let scope = Scope {
        found: &found,
        stack: spec.find.stack.as_deref(),
        families: &families,
        roles: &roles,
    };
    let policy = calls::policy(scope, &apis);
    if args.policy {
        out!("{}", serde_json::to_string_pretty(&policy)?);
        return Ok(Exit::Done);
    }
    let plan = Plan {
        header: &ready.header,
        found: &found,
        good,
        bad,
        policy,
    };
    if global.json {
        out!("{}", plan.json());
    } else {
        plan.print();
    }
    Ok(Exit::Done)
}

/// A finished rehearsal.
struct Rehearsal {
    verbs: Vec<(Millis, calls::Verb)>,
    end: Option<End>,
    begun: Millis,
    took_ms: Millis,
    /// From the candidate's first traffic to its last.
    exposed_ms: Millis,
    approved: bool,
}

impl Rehearsal {
    /// How often a service gets another version.
    fn deployments(&self) -> usize {
        let is_one = |v: &calls::Verb| matches!(v, calls::Verb::SetVersion { .. });
        self.verbs.iter().filter(|(_, v)| is_one(v)).count()
    }
}

/// What its users do today: how small a probe is depends on it.
async fn requests_per_second(target: &dyn Target, now: Millis) -> f64 {
    let query = MetricsQuery {
        since: now.saturating_sub(TRAFFIC_MS),
        ..MetricsQuery::default()
    };
    let samples = target.samples(&query).await.unwrap_or_default();
    let starts: BTreeSet<Millis> = samples.iter().map(|s| s.start).collect();
    let requests: f64 = samples.iter().map(|s| f64::from(s.requests)).sum();
    let minutes = u32::try_from(starts.len()).map_or(0.0, f64::from);
    let rps = requests / minutes / (f64::from(target.sample_period_ms()) / 1_000.0);
    if rps.is_finite() && rps > 0.0 {
        rps
    } else {
        RPS
    }
}

/// Runs the rollout on a copy of its target whose new version fails that share
/// of its requests.
async fn rehearse(
    ready: &Ready,
    delay_ms: Millis,
    rps: f64,
    errors: f64,
) -> crate::ops::Result<Rehearsal> {
    let mut header = ready.header.clone();
    // At the beginning of a minute, so that the same plan reads the same always.
    header.created -= header.created % Millis::from(header.sample_period_ms);
    let clock = Arc::new(VirtualClock::new(header.created));
    let behaviour = Behaviour {
        rps,
        error_rate: [0.0, errors],
        ..Behaviour::default()
    };
    let mut live = ready.live.clone();
    // What ECS is still busy with now will be over by then.
    for arm in &mut live.arms {
        arm.deployment = Deployment::Steady;
    }
    // The stable arm's version is the one that behaves.
    if header.arm(Role::Stable) != live.arms[0].name {
        live.arms.reverse();
    }
    let period = header.sample_period_ms;
    let copy = SimulatedTarget::like(live, clock.clone(), behaviour, period);
    let recorder = Arc::new(Recorder {
        copy,
        clock: clock.clone(),
        identity: header.identity.clone(),
        names: header.names(),
        delay_ms,
        verbs: Mutex::default(),
        revisions: Mutex::default(),
    });
    let store = Arc::new(MemoryStore::default());
    let driver = Driver {
        store: store.clone(),
        clock: clock.clone(),
        resolve: Arc::new(Stage {
            target: recorder.clone(),
            strategy: ready.plugin.clone(),
        }),
        owner: Owner {
            host: "rehearsal".to_owned(),
            pid: 0,
            started: String::new(),
        },
        options: Options {
            signal_poll_ms: 60_000,
            ..Options::default()
        },
    };
    let (id, begun) = (header.rollout.clone(), header.created);
    driver.begin(header).await?;
    let mut approved = false;
    for _ in 0..TURNS_MAX {
        match driver.drive(&id).await? {
            Standing::Parked(until) => {
                let entries = store.load(&id, 0).await?;
                let waits = Status::of(&entries).and_then(|s| s.waiting);
                if waits.is_some_and(|w| w.wants(Command::APPROVE)) {
                    approved = true;
                    store.signal(&id, &approval(until)).await?;
                } else {
                    clock.sleep_until(until).await;
                }
            }
            standing => {
                let entries = store.load(&id, 0).await?;
                let verbs = std::mem::take(&mut *recorder.verbs());
                return Ok(Rehearsal {
                    end: match standing {
                        Standing::Over(end, _) => Some(end),
                        _ => None,
                    },
                    begun,
                    took_ms: entries.last().map_or(0, |e| e.at - begun),
                    exposed_ms: exposed(&verbs, recorder.candidate(&ready.header)),
                    verbs,
                    approved,
                });
            }
        }
    }
    Err(Error::internal(format!(
        "the rehearsal found no end within {TURNS_MAX} turns; see `engine simulate`"
    )))
}

fn approval(until: Millis) -> Signal {
    let approve = Command::Approve {
        comment: String::new(),
    };
    approve.signal(format!("rehearsal-{until}"), "rehearsal")
}

/// How long the candidate had traffic.
fn exposed(verbs: &[(Millis, calls::Verb)], candidate: &str) -> Millis {
    let share = |v: &calls::Verb| match v {
        calls::Verb::SetWeights(w) => Some(w.share(candidate)),
        _ => None,
    };
    let first = verbs
        .iter()
        .find(|(_, v)| share(v).is_some_and(|s| s > 0.0));
    let last = verbs.iter().rev().find(|(_, v)| share(v) == Some(0.0));
    match (first, last) {
        (Some((from, _)), Some((to, _))) => to.saturating_sub(*from),
        _ => 0,
    }
}

struct Stage {
    target: Arc<Recorder>,
    strategy: Arc<dyn Strategy>,
}

#[async_trait]
impl Resolve for Stage {
    async fn target(&self, _: &TargetSpec) -> Result<Arc<dyn Target>, HostError> {
        Ok(self.target.clone())
    }

    async fn strategy(&self, _: &str) -> Result<Arc<dyn Strategy>, String> {
        Ok(self.strategy.clone())
    }

    fn is_dead(&self, _: &Owner) -> bool {
        false
    }
}

/// The copy of the target; writes down what is asked of it.
struct Recorder {
    copy: SimulatedTarget,
    clock: Arc<VirtualClock>,
    identity: String,
    names: Vec<String>,
    delay_ms: Millis,
    verbs: Mutex<Vec<(Millis, calls::Verb)>>,
    /// Versions whose task definition is known.
    revisions: Mutex<BTreeSet<String>>,
}

impl Recorder {
    fn verbs(&self) -> std::sync::MutexGuard<'_, Vec<(Millis, calls::Verb)>> {
        self.verbs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, verb: calls::Verb) {
        self.verbs().push((self.clock.now(), verb));
    }

    fn candidate<'a>(&self, header: &'a Header) -> &'a str {
        header.arm(Role::Candidate)
    }

    /// In the order of the real target.
    fn in_order(&self, weights: &Weights) -> Weights {
        weights
            .ordered_as(&self.names)
            .unwrap_or_else(|_| weights.clone())
    }
}

#[async_trait]
impl Target for Recorder {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn sample_period_ms(&self) -> u32 {
        self.copy.sample_period_ms()
    }

    async fn observe(&self) -> Result<Observed, HostError> {
        let mut live = self.copy.observe().await?;
        if live.arms[0].name != self.names[0] {
            live.arms.reverse();
        }
        let new_revisions = {
            let mut known = self
                .revisions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let new = |a: &&crate::model::ObservedArm| known.insert(a.release.version.clone());
            live.arms.iter().filter(new).count()
        };
        self.note(calls::Verb::Observe { new_revisions });
        Ok(live)
    }

    async fn traffic(&self) -> Result<Traffic, HostError> {
        self.note(calls::Verb::Traffic);
        let mut traffic = self.copy.observe().await?.traffic();
        traffic.weights = self.in_order(&traffic.weights);
        Ok(traffic)
    }

    async fn health(&self) -> Result<Vec<ArmHealth>, HostError> {
        self.note(calls::Verb::Health);
        Ok(self.copy.observe().await?.health())
    }

    async fn elsewhere(&self) -> Result<Vec<Elsewhere>, HostError> {
        self.note(calls::Verb::Elsewhere);
        Ok(vec![])
    }

    async fn fit(&self) -> Result<(), HostError> {
        self.note(calls::Verb::Fit);
        Ok(())
    }

    async fn tripped(
        &self,
        alarms: &[String],
        arm: Option<&str>,
    ) -> Result<Option<String>, HostError> {
        self.note(calls::Verb::Tripped {
            alarms: !alarms.is_empty(),
            deployment: arm.is_some(),
        });
        Ok(None)
    }

    async fn set_weights(&self, weights: &Weights) -> Result<(), HostError> {
        self.note(calls::Verb::SetWeights(self.in_order(weights)));
        self.copy.set_weights(weights).await
    }

    async fn set_version(&self, arm: &str, release: &Release) -> Result<(), HostError> {
        self.note(calls::Verb::SetVersion {
            arm: arm.to_owned(),
            release: release.clone(),
        });
        // On AWS an image becomes a task definition.
        let mut revision = release.clone();
        if let Source::Image(image) = &release.source {
            revision.source = Source::TaskDefinition(format!("with {image}"));
        }
        self.copy.set_version(arm, &revision).await
    }

    async fn set_tasks(&self, arm: &str, tasks: u32) -> Result<(), HostError> {
        let has = self.copy.observe().await?.arm(arm).and_then(|a| a.tasks);
        self.note(calls::Verb::SetTasks {
            arm: arm.to_owned(),
            tasks,
            takes: has.is_some_and(|has| tasks < has),
        });
        self.copy.set_tasks(arm, tasks).await
    }

    async fn samples(&self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError> {
        self.note(calls::Verb::Samples);
        let closed = self.clock.now().saturating_sub(self.delay_ms);
        let mut samples = self.copy.samples(query).await?;
        samples.retain(|s| s.start.saturating_add(s.period_ms.into()) <= closed);
        Ok(samples)
    }

    async fn query(&self, query: &Query, _: Millis) -> Result<Vec<Point>, HostError> {
        let cloudwatch = matches!(query.source, QuerySource::CloudWatch(_));
        self.note(calls::Verb::Query { cloudwatch });
        Ok(vec![])
    }

    async fn probe(&self, arm: &str, probe: &Probe) -> Result<ProbeReport, HostError> {
        self.note(calls::Verb::Probe);
        self.copy.probe(arm, probe).await
    }
}

/// What is shown.
struct Plan<'a> {
    header: &'a Header,
    found: &'a Found,
    good: Rehearsal,
    bad: Rehearsal,
    policy: serde_json::Value,
}

/// One write of the plan.
struct Write {
    at_ms: Millis,
    api: Api,
    what: String,
}

impl Plan<'_> {
    fn writes(&self, rehearsal: &Rehearsal) -> Vec<Write> {
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
            for api in verb.apis(self.found).into_iter().filter(|a| a.writes()) {
                writes.push(Write {
                    at_ms: at - begun,
                    api,
                    what: what.clone(),
                });
            }
        }
        writes
    }

    /// How often each reading API is called.
    fn reads(&self) -> BTreeMap<&'static str, usize> {
        let mut reads = BTreeMap::new();
        for api in self.good.verbs.iter().flat_map(|(_, v)| v.apis(self.found)) {
            if !api.writes() {
                *reads.entry(api.name()).or_insert(0) += 1;
            }
        }
        reads
    }

    /// Most calls in any minute.
    fn busiest_minute(&self) -> usize {
        let mut minutes: BTreeMap<Millis, usize> = BTreeMap::new();
        for (at, verb) in &self.good.verbs {
            *minutes.entry(at / 60_000).or_default() += verb.apis(self.found).len();
        }
        minutes.into_values().max().unwrap_or(0)
    }

    fn json(&self) -> serde_json::Value {
        let writes = |r: &Rehearsal| -> Vec<serde_json::Value> {
            self.writes(r)
                .iter()
                .map(|w| json!({"atMs": w.at_ms, "api": w.api.name(), "what": w.what}))
                .collect()
        };
        json!({
            "target": self.found, "strategy": self.header.title(),
            "good": {"end": self.good.end, "tookMs": self.good.took_ms, "approved": self.good.approved},
            "bad": {"end": self.bad.end, "exposedMs": self.bad.exposed_ms},
            "writes": writes(&self.good), "writesIfBad": writes(&self.bad),
            "reads": self.reads(), "busiestMinute": self.busiest_minute(),
            "policy": self.policy,
        })
    }

    fn print(&self) {
        out!(
            "{} on {} ({})",
            self.header.title(),
            self.found.address,
            self.found.route
        );
        out!("\nwrites, if the new version is good:");
        for write in self.writes(&self.good) {
            out!(
                "  {:>8}  {:<24} {}",
                minutes(write.at_ms),
                write.api.name(),
                write.what
            );
        }
        let reads = self.reads();
        let all: usize = reads.values().sum();
        out!(
            "\nreads, {all} in all, at most {} calls in a minute:",
            self.busiest_minute()
        );
        for (name, count) in reads {
            out!("  {count:>8}  {name}");
        }
        let ending = |r: &Rehearsal| match r.end {
            Some(End::Promoted) => "promoted".to_owned(),
            Some(End::RolledBack) => "rolled back".to_owned(),
            _ => "waits for a person".to_owned(),
        };
        out!("\ntimes, as rehearsed:");
        out!(
            "  good version       {} after {}, and the time that ECS needs for {} deployments",
            ending(&self.good),
            span(self.good.took_ms),
            self.good.deployments()
        );
        if self.good.deployments() > 0 || self.header.arms[0].version != self.header.arms[1].version
        {
            out!(
                "  version that fails  {}, its traffic taken back after {}",
                ending(&self.bad),
                span(self.bad.exposed_ms)
            );
        } else {
            out!("  both arms run the same version, so there is nothing to judge");
        }
        if !self.header.guardrails.alarms.is_empty() {
            out!(
                "  an alarm           seen within {}",
                span(Options::default().guard_poll_ms)
            );
        }
        out!(
            "  the way back       1 write and 4 reads; at most {} for the write with all retries",
            span(u64::try_from(Patience::default().operation.as_millis()).unwrap_or(0))
        );
        if self.good.approved {
            out!("  approvals are given at once here; add the time that people need");
        }
        let actions = self.policy["Statement"].as_array().map_or(0, |statements| {
            let count = |s: &serde_json::Value| s["Action"].as_array().map_or(0, Vec::len);
            statements.iter().map(count).sum()
        });
        out!("\nneeds {actions} IAM actions; --policy prints them as a policy document");
    }
}

fn minutes(ms: Millis) -> String {
    format!("{}:{:02}", ms / 60_000, ms / 1_000 % 60)
}

fn span(ms: Millis) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms / 1_000 * 1_000)).to_string()
}

//! One rollout in one world: the real driver from its first entry to the
//! horizon.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::fault::{Kind, OutsideFault};
use super::scenario::{Scenario, Values};
use super::stage::{Setting, Stage, StageClock, candidate_lease};
use super::world::World;
use crate::clock::Clock;
use crate::journal::narrate::sentence;
use crate::journal::{Entry, Event, FORMAT, Header, Pin, Work, exchanges};
use crate::model::limits::{Caps, Guardrails};
use crate::model::query::{Query, QuerySource};
use crate::model::target::TargetSpec;
use crate::model::{
    Arm, Command, DemoFault, End, Goal, HostError, Millis, Promotion, Release, Role, Signal,
    Source, Verdict, Weights,
};
use crate::rollout::{Driver, Options, Resolve, RolloutError, Standing, Strategy};
use crate::store::memory::MemoryStore;
use crate::store::{Journals as _, Owner, Schedule as _};
use crate::target::Target;

/// When every simulated rollout begins, Unix ms: a whole hour.
pub const START: Millis = 1_800_000_000_000;
/// The id of every simulated rollout.
pub const ROLLOUT: &str = "simulated";
/// Approvals that are given in advance if the scenario has no number: a simulation
/// does not wait for people.
const APPROVALS: u32 = 16;
/// The candidate's share (0-1) that counts as full weight: a holdback keeps a few
/// users on the old version to compare with, not to protect them.
const FULL_WEIGHT: f64 = 0.95;
/// Most times that a driver may stop and go on with a rollout.
const TURNS_MAX: u32 = 10_000;

/// What is rolled out.
#[derive(Clone)]
pub struct Subject {
    /// The strategy.
    pub strategy: Arc<dyn Strategy>,
    /// Its name in the journal.
    pub name: String,
    /// Its parameters, a JSON object.
    pub parameters: Value,
    /// Limits that the host enforces.
    pub guardrails: Guardrails,
    /// Limits that an operator has set for the strategy.
    pub caps: Caps,
    /// Custom queries of the rollout file.
    pub queries: Vec<Query>,
    /// Values of the queries in this world, by name.
    pub values: BTreeMap<String, Values>,
    /// Approvals that are given in advance.
    pub approvals: u32,
    /// Names of the arms, stable first.
    pub names: [String; 2],
    /// Faults in every scenario.
    pub faults: Vec<OutsideFault>,
    /// Changes the seed of every scenario; 0 does not change it.
    pub seed: u64,
}

impl Subject {
    /// A strategy with these parameters, without guardrails and faults of its own.
    pub fn new(strategy: Arc<dyn Strategy>, name: &str, parameters: Value) -> Self {
        Self {
            strategy,
            name: name.to_owned(),
            parameters,
            guardrails: Guardrails::default(),
            caps: Caps::default(),
            queries: vec![],
            values: BTreeMap::new(),
            approvals: APPROVALS,
            names: ["stable".to_owned(), "canary".to_owned()],
            faults: vec![],
            seed: 0,
        }
    }
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// The candidate has all traffic.
    Promoted,
    /// The stable version has all traffic again.
    RolledBack,
    /// It waits for a person, or was still under way at the horizon.
    Paused,
    /// The strategy could not do its work, which says nothing about the version; the
    /// host took the traffic back, or paused.
    Failed,
}

/// One played rollout.
#[derive(Debug, Clone)]
pub struct Played {
    /// How it ended.
    pub fate: Fate,
    /// Why, in the strategy's or the host's words.
    pub reason: String,
    /// Minutes from the start until the traffic reached its final place: all of it on
    /// stable, or 95 % and more on the candidate. `None` if the rollout paused.
    pub minutes: Option<f64>,
    /// Expected (not sampled) number of bad requests until the horizon that users
    /// would not have seen without the candidate.
    pub bad_requests: f64,
    /// Rules of the host that were broken, a sentence each.
    pub violations: Vec<String>,
    /// The whole journal.
    pub journal: Vec<Entry>,
}

/// Plays replicate number `replicate` of a scenario.
///
/// # Errors
/// The driver could not do its work, which is a bug.
pub async fn play(
    subject: &Subject,
    scenario: &Scenario,
    replicate: u32,
) -> Result<Played, RolloutError> {
    let world = World::with_seed(scenario, seed(scenario, subject), replicate);
    let interval = world.interval_ms();
    let horizon = START + u64::from(world.horizon()) * interval;
    let killed = subject
        .faults
        .iter()
        .filter(|f| f.kind == Kind::EngineKilled);
    let mut deaths: Vec<Millis> = killed.map(|f| START + f.at).collect();
    deaths.push(horizon);
    let clock = Arc::new(StageClock::new(START, deaths));
    let store = Arc::new(MemoryStore::default());
    let header = header(subject, u32::try_from(interval).unwrap_or(u32::MAX));
    let stage = Arc::new(Stage::new(
        Setting {
            world,
            start: START,
            metric_delay_ms: scenario.clock.metric_delay,
            tasks: scenario.stable.tasks,
            candidate_tasks_min: scenario.canary.min_tasks,
            faults: subject.faults.clone(),
            values: subject.values.clone(),
            guardrails: subject.guardrails.clone(),
            names: subject.names.clone(),
            rollout: ROLLOUT.to_owned(),
        },
        clock.clone(),
        store.clone(),
    ));
    for number in 0..subject.approvals {
        store.signal(ROLLOUT, &approval(number)).await?;
    }
    let resolve = Arc::new(Cast {
        stage: stage.clone(),
        strategy: subject.strategy.clone(),
    });
    let mut life = 0;
    driver(&store, &clock, &resolve, life).begin(header).await?;
    for _ in 0..TURNS_MAX {
        let driver = driver(&store, &clock, &resolve, life);
        // A process that dies is dropped at any point; only the journal is left.
        let standing = tokio::select! {
            biased;
            standing = driver.drive(ROLLOUT) => Some(standing?),
            () = clock.death() => None,
        };
        match standing {
            None if clock.now() >= horizon => break,
            None => {
                store.bury(owner(life));
                life += 1;
            }
            Some(Standing::Parked(until)) => tokio::select! {
                biased;
                () = clock.sleep_until(until) => {}
                () = clock.death() => if clock.now() >= horizon { break } else {
                    store.bury(owner(life));
                    life += 1;
                },
            },
            Some(_) => break,
        }
    }
    let journal = store.load(ROLLOUT, 0).await?;
    Ok(told(&stage, journal, subject))
}

/// The scenario's seed, or an unrelated one if the subject changes it.
#[must_use]
pub fn seed(scenario: &Scenario, subject: &Subject) -> u64 {
    // An odd constant, the golden ratio of 2^64, spreads small numbers.
    scenario.seed ^ subject.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The result, from the journal and the stage.
fn told(stage: &Stage, journal: Vec<Entry>, subject: &Subject) -> Played {
    if let Some(text) = traffic_after_verdict(stage, &journal, subject) {
        stage.violated(text);
    }
    let ending = stage.end();
    let (fate, reason) = fate(&journal);
    // Since when the traffic has been where it is.
    let arrived = |share: f64| match fate {
        Fate::Promoted => share >= FULL_WEIGHT,
        _ => share <= 0.0,
    };
    let shares = ending.shares.iter().rev();
    let there = shares
        .take_while(|(_, share)| arrived(*share))
        .last()
        .map(|(at, _)| *at);
    #[expect(clippy::cast_precision_loss, reason = "a few hours in ms")]
    let minutes = there.map(|at| at.saturating_sub(START) as f64 / 60_000.0);
    Played {
        fate,
        reason,
        minutes: minutes.filter(|_| fate != Fate::Paused),
        bad_requests: ending.bad_requests,
        violations: ending.violations,
        journal,
    }
}

/// How the rollout of a journal ended, and why.
fn fate(journal: &[Entry]) -> (Fate, String) {
    let mut failed = false;
    let (mut fate, mut why) = (Fate::Paused, None);
    for exchange in exchanges(journal) {
        failed |= matches!(exchange.event(), Some(Event::Failed { .. }));
        (fate, why) = match exchange.event() {
            Some(Event::Ended { end, reason }) => {
                let fate = match end {
                    End::Promoted => Fate::Promoted,
                    End::RolledBack => Fate::RolledBack,
                    End::RollbackFailed | End::Done | End::Refused => Fate::Paused,
                };
                (fate, Some(reason.clone()))
            }
            Some(Event::Held { hold, .. }) => (Fate::Paused, Some(hold.to_string())),
            Some(Event::Failed { .. } | Event::Diverged(_)) => (Fate::Paused, sentence(&exchange)),
            _ => (Fate::Paused, None),
        };
    }
    let why = why.unwrap_or_else(|| "still under way at the horizon".to_owned());
    (if failed { Fate::Failed } else { fate }, why)
}

/// After a verdict against it, the candidate must have no traffic as soon as
/// the load balancer takes calls.
fn traffic_after_verdict(stage: &Stage, journal: &[Entry], subject: &Subject) -> Option<String> {
    let verdict = exchanges(journal).find_map(|e| match e.event()? {
        Event::Finished(outcome) if outcome.verdict == Verdict::RolledBack => Some(e.at),
        Event::Decided { goal, .. } if *goal == Goal::RollBack => Some(e.at),
        _ => None,
    })?;
    let throttled = |at: Millis| {
        let since = at.saturating_sub(START);
        subject
            .faults
            .iter()
            .any(|f| f.covers(Kind::AwsThrottled, since))
    };
    let killed = |at: Millis| {
        let mut deaths = subject
            .faults
            .iter()
            .filter(|f| f.kind == Kind::EngineKilled);
        deaths.any(|f| START + f.at == at)
    };
    let exposed = stage.exposed_after(verdict);
    let at = exposed
        .into_iter()
        .find(|at| !throttled(*at) && !killed(*at))?;
    let minute = |at: Millis| at.saturating_sub(START) / 60_000;
    Some(format!(
        "minute {}: the candidate still had traffic, after the verdict of minute {}",
        minute(at),
        minute(verdict)
    ))
}

fn approval(number: u32) -> Signal {
    let approve = Command::Approve {
        comment: String::new(),
    };
    approve.signal(format!("approval-{number}"), "simulation")
}

fn owner(life: u32) -> Owner {
    Owner {
        host: "simulation".to_owned(),
        pid: life,
        started: life.to_string(),
    }
}

fn driver(
    store: &Arc<MemoryStore>,
    clock: &Arc<StageClock>,
    resolve: &Arc<Cast>,
    life: u32,
) -> Driver {
    Driver {
        store: store.clone(),
        clock: clock.clone(),
        resolve: resolve.clone(),
        owner: owner(life),
        options: Options {
            // No other process writes, so a wait need not poll often and a lease can be
            // long.
            signal_poll_ms: 3_600_000,
            park_after_ms: Millis::MAX,
            lease_ttl_ms: 24 * 3_600_000,
            // Nobody can send a command here.
            watches_computing: false,
            ..Options::default()
        },
    }
}

/// One target, one strategy.
struct Cast {
    stage: Arc<Stage>,
    strategy: Arc<dyn Strategy>,
}

#[async_trait]
impl Resolve for Cast {
    async fn target(&self, _: &TargetSpec) -> Result<Arc<dyn Target>, HostError> {
        Ok(self.stage.clone())
    }

    async fn strategy(&self, _: &str) -> Result<Arc<dyn Strategy>, String> {
        Ok(self.strategy.clone())
    }
}

/// The queries of the rollout file, and those that only the world has values for.
fn queries(subject: &Subject) -> Vec<Query> {
    let mut queries = subject.queries.clone();
    for name in subject.values.keys() {
        if queries.iter().all(|q| q.name != *name) {
            let source = QuerySource::Json {
                url: "http://simulated.invalid".to_owned(),
                pointer: String::new(),
            };
            queries.push(Query::new(name, source));
        }
    }
    queries
}

fn header(subject: &Subject, sample_period_ms: u32) -> Header {
    let [stable, candidate] = &subject.names;
    let arm = |name: &String, role, version: &str| Arm {
        name: name.clone(),
        role,
        version: version.to_owned(),
    };
    Header {
        format: FORMAT,
        rollout: ROLLOUT.to_owned(),
        created: START,
        engine: env!("CARGO_PKG_VERSION").to_owned(),
        file: None,
        target: TargetSpec::Simulated {
            name: candidate_lease().to_owned(),
        },
        identity: candidate_lease().to_owned(),
        sample_period_ms,
        arms: vec![
            arm(stable, Role::Stable, "v1"),
            arm(candidate, Role::Candidate, "v2"),
        ],
        baseline: Weights::of([(stable.as_str(), 100), (candidate.as_str(), 0)]),
        stable: Some(Release {
            version: "v1".to_owned(),
            source: Source::Demo(DemoFault::default()),
        }),
        running: vec![],
        candidate: None,
        digest: None,
        repeats: vec![],
        promotion: Promotion::Swap,
        capacity: None,
        scaling: vec![],
        guardrails: subject.guardrails.clone(),
        probes: vec![],
        queries: queries(subject),
        caps: subject.caps,
        work: Work::Strategy(Pin {
            sha256: subject.name.clone(),
            name: subject.name.clone(),
            version: String::new(),
            source: "simulation".to_owned(),
            world: String::new(),
            parameters: subject.parameters.clone(),
            seed: "00".to_owned(),
            steps: vec![],
        }),
    }
}

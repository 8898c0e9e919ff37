//! The rehearsal of a rollout on AWS. The real strategy runs on a copy of the
//! target under a virtual clock, and what it asks for is recorded as the calls
//! that a target on AWS would get.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Behaviour, SimulatedTarget};
use crate::clock::{Clock, VirtualClock};
use crate::journal::status::Status;
use crate::journal::{Call, Entry, Event, Header};
use crate::model::query::{Count, Probe, Query, QuerySource};
use crate::model::target::TargetSpec;
use crate::model::{
    ArmHealth, Command, Deployment, Elsewhere, End, HostError, Images, Latency, MetricsQuery,
    Millis, Observed, Point, ProbeReport, Release, Role, Sample, Signal, Source, Traffic, Weights,
};
use crate::rollout::{Driver, Options, Resolve, RolloutError, Standing, Strategy};
use crate::store::memory::MemoryStore;
use crate::store::{Journals as _, Owner, Store, StoreError};
use crate::target::Target;
use crate::target::aws::calls;

/// Most turns of the driver before a rehearsal counts as endless.
const TURNS_MAX: u32 = 100_000;

/// Why there is no rehearsal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver could not do its work.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// The store of the rehearsal refused something.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The strategy does not come to an end.
    #[error(
        "the rehearsal did not end within {TURNS_MAX} turns\n\nhint: `engine simulate` shows what the strategy does"
    )]
    Endless,
}

/// A rollout that could begin, and the traffic of its users.
pub struct Candidate {
    /// The rollout.
    pub header: Header,
    /// The target as it is now.
    pub live: Observed,
    /// The strategy of the rollout.
    pub strategy: Arc<dyn Strategy>,
    /// How long metrics take until they can be read, ms.
    pub metrics_delay_ms: Millis,
    /// The traffic of the users.
    pub users: Users,
}

/// The traffic of a target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Users {
    /// Requests per second.
    pub rps: f64,
    /// The part of them, from 0 to 1, that fails as it is.
    pub error_rate: f64,
    /// How long they take as it is, if that is known.
    pub latency: Option<Latency>,
}

/// A finished rehearsal.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// The calls of the target, and when (Unix ms).
    pub verbs: Vec<(Millis, calls::Verb)>,
    /// How the rollout ended; `None` if it waits for a person.
    pub end: Option<End>,
    /// When it began (Unix ms).
    pub begun: Millis,
    /// From its beginning to the last entry of its journal, ms.
    pub took_ms: Millis,
    /// From the candidate's first traffic to its last, ms.
    pub exposed_ms: Millis,
    /// Whether it waited for an approval, which it got at once.
    pub approved: bool,
    /// What the strategy wrote into the history before it first moved the traffic.
    pub said: Vec<String>,
}

impl Rehearsal {
    /// How often a service gets another version.
    #[must_use]
    pub fn deployments(&self) -> usize {
        let is_one = |v: &calls::Verb| matches!(v, calls::Verb::SetVersion { .. });
        self.verbs.iter().filter(|(_, v)| is_one(v)).count()
    }
}

impl Candidate {
    /// Runs the rollout on a copy of its target whose new version fails the given
    /// share of its requests, from 0 to 1.
    pub async fn rehearse(&self, error_rate: f64) -> Result<Rehearsal, Error> {
        self.rehearse_until([0.0, error_rate], |_| false).await
    }

    /// What the strategy writes into the history before its first step, of a new version
    /// that is as good as the old one: what it has learned of the traffic. The rehearsal ends
    /// there.
    pub async fn said(&self) -> Result<Vec<String>, Error> {
        let rate = self.users.error_rate;
        let rehearsed = self.rehearse_until([rate, rate], moves).await?;
        Ok(rehearsed.said)
    }

    /// Runs the rollout until it is over, or has an entry of that kind.
    async fn rehearse_until(
        &self,
        error_rates: [f64; 2],
        enough: impl Fn(&Event) -> bool,
    ) -> Result<Rehearsal, Error> {
        let mut header = self.header.clone();
        // At the beginning of a minute, so that the same plan always gives the same text.
        header.created -= header.created % Millis::from(header.sample_period_ms);
        // The copy has images of its own.
        header.running.clear();
        let (id, begun) = (header.rollout.clone(), header.created);
        let clock = Arc::new(VirtualClock::new(begun));
        let recorder = Arc::new(self.copy(clock.clone(), error_rates));
        let store = Arc::new(MemoryStore::default());
        let driver = driver(
            store.clone(),
            clock,
            Stage {
                target: recorder.clone(),
                strategy: self.strategy.clone(),
            },
        );
        driver.begin(header).await?;
        let (end, approved) = drive(&driver, &id, enough).await?;
        let entries = store.load(&id, 0).await?;
        let verbs = std::mem::take(&mut *recorder.verbs());
        Ok(Rehearsal {
            end,
            begun,
            took_ms: entries.last().map_or(0, |e| e.at - begun),
            exposed_ms: exposed(&verbs, self.header.arm(Role::Candidate)),
            verbs,
            approved,
            said: said(&entries),
        })
    }

    /// The target as it is now, with users and these parts of failing requests of stable
    /// and candidate.
    fn copy(&self, clock: Arc<VirtualClock>, error_rate: [f64; 2]) -> Recorder {
        let header = &self.header;
        let behaviour = Behaviour {
            rps: self.users.rps,
            error_rate,
            latency_ms: match self.users.latency {
                Some(latency) => [latency.mean; 2],
                None => Behaviour::default().latency_ms,
            },
        };
        let mut live = self.live.clone();
        // The deployments that ECS still has under way will be over by then.
        for arm in &mut live.arms {
            arm.deployment = Deployment::Steady;
        }
        // The stable arm's version is the one that does not fail.
        if header.arm(Role::Stable) != live.arms[0].name {
            live.arms.reverse();
        }
        let period = header.sample_period_ms;
        Recorder {
            copy: SimulatedTarget::like(live, clock.clone(), behaviour, period),
            clock,
            identity: header.identity.clone(),
            names: header.names(),
            delay_ms: self.metrics_delay_ms,
            latency: self.users.latency,
            verbs: Mutex::default(),
            revisions: Mutex::default(),
        }
    }
}

fn driver(store: Arc<dyn Store>, clock: Arc<dyn Clock>, stage: Stage) -> Driver {
    Driver {
        store,
        clock,
        resolve: Arc::new(stage),
        owner: Owner {
            host: "rehearsal".to_owned(),
            pid: 0,
            started: String::new(),
        },
        options: Options {
            signal_poll_ms: 60_000,
            ..Options::default()
        },
    }
}

/// Drives a rollout until it ends, has an entry that is enough, or waits for something that
/// a rehearsal cannot give. Returns its end, and whether it waited for an approval, which it
/// gets at once.
async fn drive(
    driver: &Driver,
    id: &str,
    enough: impl Fn(&Event) -> bool,
) -> Result<(Option<End>, bool), Error> {
    let mut approved = false;
    for _ in 0..TURNS_MAX {
        let until = match driver.drive(id).await? {
            Standing::Parked(until) => until,
            Standing::Over(end, _) => return Ok((Some(end), approved)),
            _ => return Ok((None, approved)),
        };
        let entries = driver.store.load(id, 0).await?;
        if entries.iter().any(|entry| enough(&entry.event)) {
            return Ok((None, approved));
        }
        let waits = Status::of(&entries).and_then(|s| s.waiting);
        if waits.is_some_and(|w| w.wants(Command::APPROVE)) {
            approved = true;
            driver.store.signal(id, &approval(until)).await?;
        } else {
            driver.clock.sleep_until(until).await;
        }
    }
    Err(Error::Endless)
}

/// Whether the strategy moves the traffic there.
fn moves(event: &Event) -> bool {
    matches!(
        event,
        Event::Asked {
            call: Call::SetWeights { .. } | Call::SwitchColor { .. },
            ..
        }
    )
}

fn said(entries: &[Entry]) -> Vec<String> {
    let mut said = vec![];
    for entry in entries {
        match &entry.event {
            event if moves(event) => break,
            Event::Exchanged {
                call: Call::Log { message, .. },
                ..
            } => said.push(message.clone()),
            _ => {}
        }
    }
    said
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

/// Resolves every target and every strategy to the copy and the given strategy.
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
}

/// The copy of the target, which records its calls.
struct Recorder {
    copy: SimulatedTarget,
    clock: Arc<VirtualClock>,
    identity: String,
    names: Vec<String>,
    delay_ms: Millis,
    latency: Option<Latency>,
    verbs: Mutex<Vec<(Millis, calls::Verb)>>,
    /// Task definitions that are known.
    revisions: Mutex<BTreeSet<String>>,
}

impl Recorder {
    fn verbs(&self) -> std::sync::MutexGuard<'_, Vec<(Millis, calls::Verb)>> {
        self.verbs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, verb: calls::Verb) {
        self.verbs().push((self.clock.now(), verb));
    }

    /// The weights in the order of the real target's arms.
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
            let new = |a: &&crate::model::ObservedArm| match &a.release.source {
                Source::TaskDefinition(arn) => known.insert(arn.clone()),
                _ => known.insert(a.release.version.clone()),
            };
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

    async fn digests(&self, _: &str) -> Result<Images, HostError> {
        self.note(calls::Verb::Digests);
        // The real ones are known once the tasks run; that they stay the same is the plan.
        Ok(Images {
            digests: vec!["sha256:rehearsed".to_owned()],
            silent: 0,
        })
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
        // On AWS an image, and what changed, becomes a task definition of the arm.
        let mut revision = release.clone();
        if let Source::Image(_) | Source::Changes(_) = &release.source {
            revision.source = Source::TaskDefinition(format!("{arm} with {}", release.version));
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
        for sample in &mut samples {
            sample.latency = self.latency.or(sample.latency);
        }
        Ok(samples)
    }

    async fn query(&self, query: &Query, _: Millis) -> Result<Vec<Point>, HostError> {
        let cloudwatch = matches!(query.source, QuerySource::CloudWatch(_));
        self.note(calls::Verb::Query { cloudwatch });
        Ok(vec![])
    }

    async fn counted(&self, count: Count, _: Millis) -> Result<Option<Vec<Point>>, HostError> {
        self.note(match count {
            Count::Unanswered => calls::Verb::Query { cloudwatch: true },
            Count::Restarts | Count::OutOfMemory | Count::EndedWith => calls::Verb::Restarts,
            Count::Asked | Count::SentAgain | Count::ClientErrors => return Ok(None),
        });
        Ok(Some(vec![]))
    }

    async fn probe(&self, arm: &str, probe: &Probe) -> Result<ProbeReport, HostError> {
        self.note(calls::Verb::Probe);
        self.copy.probe(arm, probe).await
    }
}

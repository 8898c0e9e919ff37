//! A rollout in a bottle: memory store, simulated target, virtual clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use engine::clock::{Clock, VirtualClock};
use engine::journal::narrate::Narrator;
use engine::journal::status::Status;
use engine::journal::{Entry, Event, Header};
use engine::model::query::Probe;
use engine::model::target::TargetSpec;
use engine::model::{Arm, HostError, Role, Signal};
use engine::rollout::fleet::{Fleet, News};
use engine::rollout::session::Calls;
use engine::rollout::{Driver, Options, Ran, Resolve, RolloutError, Run, Standing, Strategy};
use engine::simulate::{Behaviour, SimulatedTarget};
use engine::store::memory::MemoryStore;
use engine::store::{Journals as _, Owner, Schedule as _};
use engine::target::Target;
use serde_json::{Value, json};

use super::fixture;

/// When every test rollout begins, Unix ms.
pub const START: u64 = 1_800_000_000_000;
/// The id of every test rollout.
pub const ID: &str = "test-1";

/// A whole set-up.
pub struct Lab {
    pub clock: Arc<VirtualClock>,
    pub store: Arc<MemoryStore>,
    pub target: Arc<SimulatedTarget>,
    pub strategy: Arc<dyn Strategy>,
    pub header: Header,
    pub options: Options,
}

/// One target and one strategy, whatever a header names.
pub struct Resolver {
    pub target: Arc<dyn Target>,
    pub strategy: Arc<dyn Strategy>,
}

#[async_trait]
impl Resolve for Resolver {
    async fn target(&self, _: &TargetSpec) -> Result<Arc<dyn Target>, HostError> {
        Ok(self.target.clone())
    }

    async fn strategy(&self, _: &str) -> Result<Arc<dyn Strategy>, String> {
        Ok(self.strategy.clone())
    }
}

/// This test, as an owner.
pub fn owner() -> Owner {
    Owner {
        host: "here".to_owned(),
        pid: 1,
        started: "alive".to_owned(),
    }
}

impl Lab {
    /// Canary arms, a behaviour, a strategy and its parameters.
    pub fn new(strategy: Arc<dyn Strategy>, behaviour: Behaviour, parameters: Value) -> Self {
        Self::named(["stable", "canary"], strategy, behaviour, parameters)
    }

    pub fn named(
        names: [&str; 2],
        strategy: Arc<dyn Strategy>,
        behaviour: Behaviour,
        parameters: Value,
    ) -> Self {
        let clock = Arc::new(VirtualClock::new(START));
        let target = SimulatedTarget::new("sim", names, clock.clone(), behaviour, 1_000);
        let target = Arc::new(target);
        Self {
            store: Arc::new(MemoryStore::default()),
            header: header(names, &target, parameters),
            clock,
            target,
            strategy,
            options: Options {
                // Signals come at known times here, so a wait need not look often.
                signal_poll_ms: 1_000_000_000,
                park_after_ms: 60_000,
                ..Options::default()
            },
        }
    }

    pub fn driver(&self) -> Driver {
        Driver {
            store: self.store.clone(),
            clock: self.clock.clone(),
            resolve: Arc::new(Resolver {
                target: self.target.clone(),
                strategy: self.strategy.clone(),
            }),
            owner: owner(),
            options: self.options,
        }
    }

    /// Begins the rollout and drives it until it ends or holds.
    pub async fn run(&self) -> Standing {
        self.driver()
            .begin(self.header.clone())
            .await
            .expect("it begins");
        self.go_on().await
    }

    /// Drives on from what the store has.
    pub async fn go_on(&self) -> Standing {
        let mut fleet = Fleet::new(self.driver());
        fleet.add(ID.to_owned(), self.clock.now());
        stopped(fleet.next().await).expect("the driver works")
    }

    pub async fn journal(&self) -> Vec<Entry> {
        self.store.load(ID, 0).await.expect("memory")
    }

    pub async fn status(&self) -> Status {
        Status::of(&self.journal().await).expect("it has begun")
    }

    /// Sends a signal as another process would.
    pub async fn signal(&self, name: &str, payload: &str) {
        let signal = Signal {
            id: format!("{name}-{}", next_number()),
            name: name.to_owned(),
            actor: "ada".to_owned(),
            payload: payload.to_owned(),
            until: None,
        };
        self.store.signal(ID, &signal).await.expect("memory");
    }
}

/// Another number each time.
fn next_number() -> u64 {
    use std::sync::atomic::AtomicU64;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn header(names: [&str; 2], target: &SimulatedTarget, parameters: Value) -> Header {
    let arm = |index: usize, role| Arm {
        name: names[index].to_owned(),
        role,
        version: target.peek().arms[index].release.version.clone(),
    };
    Header {
        rollout: ID.to_owned(),
        created: START,
        arms: vec![arm(0, Role::Stable), arm(1, Role::Candidate)],
        baseline: target.peek().weights(),
        stable: Some(target.peek().arms[0].release.clone()),
        probes: vec![Probe {
            name: "smoke".to_owned(),
            path: "/healthz".to_owned(),
            status: 200,
            contains: None,
            attempts: 1,
            timeout_ms: 1_000,
        }],
        work: fixture::strategy(parameters),
        ..fixture::header()
    }
}

/// What a journal tells, line by line.
pub fn story(journal: &[Entry], rollout: &str) -> String {
    let mut narrator = Narrator::new(rollout);
    let lines = journal.iter().filter_map(|entry| narrator.line(entry));
    lines.collect::<Vec<String>>().join("\n")
}

/// Where the one rollout of a fleet stands.
pub fn stopped(news: Option<News>) -> Result<Standing, RolloutError> {
    match news.expect("one rollout") {
        News::Stopped { result, .. } => result,
        News::StoreFailed(error) => Err(error.into()),
    }
}

/// Works until it is done, or until the process that does it is dead.
pub async fn until_dead(work: impl Future, dead: &AtomicBool) {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            _ = &mut work => break,
            () = std::future::ready(()), if dead.load(Ordering::SeqCst) => break,
            () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {}
        }
    }
}

/// A strategy written here, for what no honest plugin does.
pub struct Scripted<F>(pub F);

#[async_trait]
impl<F, R> Strategy for Scripted<F>
where
    F: Fn(Arc<dyn Calls>) -> R + Send + Sync,
    R: Future<Output = Ran> + Send,
{
    async fn run(&self, calls: Arc<dyn Calls>, _: Run) -> Ran {
        (self.0)(calls).await
    }
}

/// The writes that a journal has, as people read them.
pub fn writes(journal: &[Entry]) -> Vec<String> {
    let asked = journal.iter().filter_map(|e| match &e.event {
        Event::Asked { call, .. } if call.is_write() => Some(call.to_string()),
        _ => None,
    });
    asked.collect()
}

/// Good on both arms.
pub fn good() -> Behaviour {
    Behaviour::default()
}

/// The new version fails one request in five.
pub fn bad() -> Behaviour {
    Behaviour {
        error_rate: [0.0, 0.2],
        ..Behaviour::default()
    }
}

/// Parameters of a quick canary.
pub fn quick() -> Value {
    json!({"gate": "limits", "steps": [10, 50, 100], "bake": "3s"})
}

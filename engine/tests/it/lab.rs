//! A rollout in a bottle: memory store, simulated target, virtual clock.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use engine::clock::{Clock, VirtualClock};
use engine::journal::status::Status;
use engine::journal::{Entry, FORMAT, Header, Pin, Work};
use engine::model::limits::Guardrails;
use engine::model::query::Probe;
use engine::model::target::TargetSpec;
use engine::model::{Arm, HostError, Promotion, Role};
use engine::rollout::fleet::{Fleet, News};
use engine::rollout::session::Calls;
use engine::rollout::{Driver, Options, Ran, Resolve, RolloutError, Run, Standing, Strategy};
use engine::simulate::{Behaviour, SimulatedTarget};
use engine::store::memory::MemoryStore;
use engine::store::{Journals as _, Owner};
use engine::strategy::limits::Limits;
use engine::strategy::{Host, Plugin};
use engine::target::Target;
use serde_json::{Value, json};

/// When every test rollout begins, Unix ms.
pub const START: u64 = 1_800_000_000_000;
/// The id of every test rollout.
pub const ID: &str = "test-1";

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Bytes of a guest; says how to build it if it is not there.
pub fn guest(name: &str) -> Vec<u8> {
    let place = guest_path(name);
    std::fs::read(&place).unwrap_or_else(|e| {
        panic!(
            "{}: {e}; `make plugins test-guests language-guests` builds it",
            place.display()
        )
    })
}

/// Where a guest is.
pub fn guest_path(name: &str) -> PathBuf {
    match name {
        "canary" | "blue-green" => root().join(format!("plugins/{name}.wasm")),
        name => target_folder().join(format!("guests/{name}.wasm")),
    }
}

/// Where cargo builds.
pub fn target_folder() -> PathBuf {
    // target/debug/engine
    let binary = Path::new(env!("CARGO_BIN_EXE_engine"));
    binary
        .parent()
        .and_then(Path::parent)
        .expect("two levels up")
        .to_owned()
}

/// One host for all tests, with a compile cache.
pub fn host() -> Arc<Host> {
    static HOST: OnceLock<Arc<Host>> = OnceLock::new();
    HOST.get_or_init(|| {
        let cache = target_folder().join("test-compiled");
        Arc::new(Host::new(Some(&cache), Limits::default()).expect("the host starts"))
    })
    .clone()
}

/// A guest, ready to run.
pub async fn plugin(name: &str) -> Arc<Plugin> {
    host().load(&guest(name)).await.expect("the guest loads")
}

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
}

fn header(names: [&str; 2], target: &SimulatedTarget, parameters: Value) -> Header {
    let arm = |index: usize, role| Arm {
        name: names[index].to_owned(),
        role,
        version: target.peek().arms[index].release.version.clone(),
    };
    Header {
        format: FORMAT,
        rollout: ID.to_owned(),
        created: START,
        engine: "test".to_owned(),
        target: TargetSpec::Simulated {
            name: "sim".to_owned(),
        },
        identity: "sim".to_owned(),
        sample_period_ms: 1_000,
        arms: vec![arm(0, Role::Stable), arm(1, Role::Candidate)],
        baseline: target.peek().weights(),
        stable: Some(target.peek().arms[0].release.clone()),
        candidate: None,
        promotion: Promotion::Swap,
        capacity: None,
        guardrails: Guardrails::default(),
        probes: vec![Probe {
            name: "smoke".to_owned(),
            path: "/healthz".to_owned(),
            status: 200,
            contains: None,
            attempts: 1,
            timeout_ms: 1_000,
        }],
        queries: vec![],
        caps: <_>::default(),
        work: Work::Strategy(Pin {
            sha256: "test".to_owned(),
            name: "test".to_owned(),
            version: "0".to_owned(),
            source: "test".to_owned(),
            world: "test".to_owned(),
            parameters,
            seed: "2a".to_owned(),
        }),
    }
}

/// Where the one rollout of a fleet stands.
pub fn stopped(news: Option<News>) -> Result<Standing, RolloutError> {
    match news.expect("one rollout") {
        News::Stopped { result, .. } => result,
        News::StoreFailed(error) => Err(error.into()),
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

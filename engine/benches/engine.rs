//! Figures and ratios, side by side in one run: `make bench`.
//!
//! Each block says what it measures, our figure, and what it is compared with. It
//! asserts nothing; the budgets are in docs/design/architecture.md. Words after `--`
//! choose the parts whose titles have one of them.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use engine::clock::{Clock, SystemClock, VirtualClock};
use engine::journal::status::Status;
use engine::journal::summary::Summary;
use engine::journal::{Call, Entry, Event, Header, Reply};
use engine::model::target::{HealthCheck, LocalArm, LocalSpec, TargetSpec};
use engine::model::{
    Arm, ArmHealth, DemoFault, End, HostError, Millis, Release, Role, Source, Weights,
};
use engine::rollout::fleet::{Fleet, News};
use engine::rollout::session::{Calls, Interrupted};
use engine::rollout::{Driver, Options, Ran, Resolve, Run, Standing, Strategy};
use engine::simulate::{Behaviour, SimulatedTarget};
use engine::store::memory::MemoryStore;
use engine::store::sqlite::SqliteStore;
use engine::store::{Durability, Journals as _, Owner, Store};
use engine::strategy::limits::Limits;
use engine::strategy::{Host, Plugin};
use engine::target::Target;
use engine::target::local::balancer::Balancer;
use http_body_util::{BodyExt, Empty, Full};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

#[path = "../src/rollout/fixture.rs"]
mod fixture;
mod measure;

use measure::{median, resident_mb, us};

mod raw {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "rollout:strategy/strategy",
        imports: { default: async | trappable },
        exports: { default: async },
    });
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn guest(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_BIN_EXE_engine")).ancestors().nth(2);
    let place = match name {
        "hostile" => folder.expect("target/release").join("guests/hostile.wasm"),
        name => root().join(format!("plugins/{name}.wasm")),
    };
    std::fs::read(&place).unwrap_or_else(|e| panic!("{}: {e}; run `make bench`", place.display()))
}

fn row(what: &str, figure: String) {
    println!("  {what:<58} {figure}");
}

/// The same beside its budget, and what it was before there was one.
fn budget(what: &str, figure: String, budget: &str, before: &str) {
    row(
        what,
        format!("{figure}  (budget {budget}; {before} before)"),
    );
}

/// Prints the title of a part if it is to run: all do, unless words of titles are given.
fn wanted(title: &str) -> bool {
    // Cargo itself passes `--bench`.
    let mut words = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .peekable();
    let wanted = words.peek().is_none() || words.any(|word| title.contains(&word));
    if wanted {
        println!("{title}");
    }
    wanted
}

#[tokio::main]
async fn main() {
    if wanted("strategy host") {
        strategy().await;
    }
    if wanted("10,000 parked rollouts in one process (SQLite store)") {
        parked(10_000).await;
    }
    if wanted("store") {
        store().await;
    }
    if wanted("10,000 rollouts in one store, whole processes (`list` was 3.7 s, unoptimised)") {
        crowd(9_900, 100).await;
    }
    if wanted("100,000 finished and 1,000 open rollouts in one store, whole processes") {
        crowd(100_000, 1_000).await;
    }
    if wanted("proxy, closed loop on loopback, client and servers on the same cores") {
        proxy().await;
    }
    if wanted("whole processes") {
        processes().await;
    }
}

// === Strategy host ===

/// A host that answers at once with constants.
struct Canned;

#[async_trait]
impl Calls for Canned {
    async fn perform(&self, _: Call) -> Result<Reply, Interrupted> {
        Ok(health())
    }

    async fn refuse(&self, _: Call, why: HostError) -> Result<Reply, Interrupted> {
        Ok(Reply::Failed(why))
    }

    fn now(&self) -> Millis {
        0
    }

    fn probes(&self) -> Vec<String> {
        vec![]
    }
}

fn health() -> Reply {
    Reply::Health(vec![ArmHealth {
        arm: "stable".to_owned(),
        healthy: 1,
        total: 1,
        health_reason: None,
    }])
}

fn run_of(parameters: serde_json::Value) -> Run {
    Run {
        rollout: "bench".to_owned(),
        arms: arms(),
        weights: Weights::of([("stable", 100), ("canary", 0)]),
        sample_period_ms: 1_000,
        parameters: parameters.to_string(),
        seed: "2a".to_owned(),
        caps: <_>::default(),
    }
}

fn arms() -> Vec<Arm> {
    let arm = |name: &str, role| Arm {
        name: name.to_owned(),
        role,
        version: "v".to_owned(),
    };
    vec![arm("stable", Role::Stable), arm("canary", Role::Candidate)]
}

async fn strategy() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("compiled");
    let bytes = guest("canary");
    let begun = Instant::now();
    let host = Host::new(Some(&cache), Limits::default()).expect("starts");
    host.load(&bytes).await.expect("loads");
    row(
        "load canary.wasm, compiled for the first time",
        format!("{:.0} ms", us(begun.elapsed()) / 1e3),
    );
    // A thread writes the cache.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let bare = median(20, async || {
        Host::new(Some(&cache), Limits::default()).expect("starts");
    })
    .await;
    row(
        "start the host: engine, stubs, contract",
        format!("{:.2} ms", us(bare) / 1e3),
    );
    let hit = median(20, async || {
        let host = Host::new(Some(&cache), Limits::default()).expect("starts");
        host.load(&bytes).await.expect("loads");
    })
    .await
    .saturating_sub(bare);
    budget(
        "load canary.wasm, compiled before",
        format!("{:.2} ms", us(hit) / 1e3),
        "2 ms",
        "6.3 ms",
    );
    python(&cache).await;
    let hostile = host.load(&guest("hostile")).await.expect("loads");
    let promote = run_of(json!({"act": "promote"}));
    let start = median(2_000, async || {
        let ran = hostile.run(Arc::new(Canned), promote.clone()).await;
        assert!(matches!(ran, Ran::Returned(Ok(_))));
    })
    .await;
    row(
        "instantiate and run to a verdict, no call",
        format!("{:.1} us", us(start)),
    );

    let calls = 10_000_u32;
    let flood = json!({"act": "calls", "amount": calls});
    let per_call =
        |whole: Duration, empty: Duration| us(whole.saturating_sub(empty)) / f64::from(calls);
    let plain = raw_calls(&guest("hostile"), &flood).await;
    let ours = median(5, async || {
        hostile.run(Arc::new(Canned), run_of(flood.clone())).await;
    })
    .await;
    let (plain, ours) = (per_call(plain, start), per_call(ours, start));
    row(
        "one call, raw wasmtime (no fuel, no epoch, no limits)",
        format!("{plain:.2} us"),
    );
    row(
        "one call, our sandbox",
        format!(
            "{ours:.2} us  (+{:.2} us, {:.1}x)",
            ours - plain,
            ours / plain
        ),
    );
    let (fresh, replay) = journaled(&hostile, &flood).await;
    let (fresh, replay) = (per_call(fresh, start), per_call(replay, start));
    row(
        "one call, checked and journaled in memory",
        format!("{fresh:.2} us"),
    );
    row("one entry, replayed", format!("{replay:.2} us"));
}

/// A plugin with a whole interpreter in it, if there is one: its toolchain is fetched for
/// `make language-guests`.
async fn python(cache: &Path) {
    let what = "load a plugin in Python, compiled before";
    let folder = Path::new(env!("CARGO_BIN_EXE_engine")).ancestors().nth(2);
    let place = folder.map(|folder| folder.join("guests/doubling-python.wasm"));
    let Some(Ok(bytes)) = place.map(std::fs::read) else {
        return row(what, "not built; see `make language-guests`".to_owned());
    };
    let host = || Host::new(Some(cache), Limits::default()).expect("starts");
    host().load(&bytes).await.expect("loads");
    // A thread writes the cache.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let bare = median(10, async || drop(host())).await;
    let hit = median(10, async || {
        host().load(&bytes).await.expect("loads");
    })
    .await
    .saturating_sub(bare);
    let figure = format!("{:.0} ms", us(hit) / 1e3);
    budget(what, figure, "60 ms", "195 ms");
}

/// The same component on wasmtime without our sandbox.
async fn raw_calls(bytes: &[u8], parameters: &serde_json::Value) -> Duration {
    use raw::rollout::{control::control, metrics::metrics, traffic::traffic, types::types};
    struct State(wasmtime_wasi::WasiCtx, wasmtime::component::ResourceTable);
    impl wasmtime_wasi::WasiView for State {
        fn ctx(&mut self) -> wasmtime_wasi::WasiCtxView<'_> {
            wasmtime_wasi::WasiCtxView {
                ctx: &mut self.0,
                table: &mut self.1,
            }
        }
    }
    type Answer<T> = wasmtime::Result<Result<T, types::HostError>>;
    fn never<T>() -> wasmtime::Result<T> {
        Err(wasmtime::Error::msg("the bench only asks for health"))
    }
    impl types::Host for State {}
    impl traffic::Host for State {
        async fn get_weights(&mut self) -> Answer<Vec<types::Weight>> {
            never()
        }
        async fn set_weights(&mut self, _: Vec<types::Weight>) -> Answer<()> {
            never()
        }
        async fn switch_color(&mut self, _: String) -> Answer<()> {
            never()
        }
    }
    impl metrics::Host for State {
        async fn get_metrics(&mut self, _: metrics::MetricsQuery) -> Answer<Vec<metrics::Sample>> {
            never()
        }
        async fn query(&mut self, _: String, _: f64) -> Answer<Vec<metrics::Point>> {
            never()
        }
        async fn get_health(&mut self) -> Answer<Vec<metrics::ArmHealth>> {
            Ok(Ok(vec![metrics::ArmHealth {
                arm: "stable".to_owned(),
                healthy: 1,
                total: 1,
            }]))
        }
    }
    impl control::Host for State {
        async fn now(&mut self) -> wasmtime::Result<f64> {
            never()
        }
        async fn wait(&mut self, _: u32, _: Vec<String>) -> wasmtime::Result<control::Wake> {
            never()
        }
        async fn probe(&mut self, _: String) -> Answer<control::ProbeReport> {
            never()
        }
        async fn probes(&mut self) -> wasmtime::Result<Vec<String>> {
            never()
        }
        async fn log(&mut self, _: control::Level, _: String) -> wasmtime::Result<()> {
            never()
        }
        async fn progress(&mut self, _: u32, _: String) -> wasmtime::Result<()> {
            never()
        }
        async fn report(&mut self, _: control::Finding) -> wasmtime::Result<()> {
            never()
        }
    }
    let engine = wasmtime::Engine::default();
    let mut linker = wasmtime::component::Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("links");
    raw::Strategy::add_to_linker::<_, wasmtime::component::HasSelf<_>>(&mut linker, |s| s)
        .expect("links");
    let component = wasmtime::component::Component::new(&engine, bytes).expect("compiles");
    let pre = raw::StrategyPre::new(linker.instantiate_pre(&component).expect("fits"));
    let pre = pre.expect("fits");
    let context = raw::exports::rollout::strategy::strategy_api::Context {
        rollout: "bench".to_owned(),
        arms: ["stable", "canary"]
            .map(|name| types::Arm {
                name: name.to_owned(),
                role: if name == "stable" {
                    types::Role::Stable
                } else {
                    types::Role::Candidate
                },
                version: "v".to_owned(),
            })
            .to_vec(),
        weights: vec![],
        sample_period_ms: 1_000,
    };
    let parameters = parameters.to_string();
    median(5, async || {
        let state = State(
            wasmtime_wasi::WasiCtx::builder().build(),
            wasmtime::component::ResourceTable::new(),
        );
        let mut store = wasmtime::Store::new(&engine, state);
        let guest = pre.instantiate_async(&mut store).await.expect("fits");
        guest
            .rollout_strategy_strategy_api()
            .call_run(&mut store, &context, &parameters)
            .await
            .expect("runs")
            .expect("promotes");
    })
    .await
}

/// The time per call of a rollout of many calls, first fresh and then replayed.
async fn journaled(plugin: &Arc<Plugin>, parameters: &serde_json::Value) -> (Duration, Duration) {
    let bench = Bench {
        plugin: plugin.clone(),
        clock: Arc::new(VirtualClock::new(1_000_000)),
    };
    let store = Arc::new(MemoryStore::default());
    let driver = bench.driver(store.clone());
    let header = header("r", parameters.clone(), 1_000_000);
    driver.begin(header).await.expect("begins");
    let begun = Instant::now();
    let standing = driver.drive("r").await.expect("works");
    let fresh = begun.elapsed();
    assert!(matches!(standing, Standing::Over(..)), "{standing:?}");
    let journal: Vec<Entry> = store.load("r", 0).await.expect("memory");
    let end = journal
        .iter()
        .position(|e| matches!(e.event, Event::Finished(_)))
        .expect("it finished");
    let store = Arc::new(MemoryStore::default());
    store.plant("r", journal[..end].to_vec());
    let driver = bench.driver(store);
    let begun = Instant::now();
    driver.drive("r").await.expect("works");
    (fresh, begun.elapsed())
}

// === Rollouts ===

#[derive(Clone)]
struct Bench {
    plugin: Arc<Plugin>,
    clock: Arc<dyn Clock>,
}

impl Bench {
    fn driver(&self, store: Arc<dyn Store>) -> Driver {
        Driver {
            store,
            clock: self.clock.clone(),
            resolve: Arc::new(self.clone()),
            owner: Owner {
                host: "here".to_owned(),
                pid: 1,
                started: "now".to_owned(),
            },
            options: Options::default(),
        }
    }
}

#[async_trait]
impl Resolve for Bench {
    async fn target(&self, spec: &TargetSpec) -> Result<Arc<dyn Target>, HostError> {
        let TargetSpec::Simulated { name } = spec else {
            unreachable!("the bench simulates");
        };
        let arms = ["stable", "canary"];
        let clock = self.clock.clone();
        Ok(Arc::new(SimulatedTarget::new(
            name,
            arms,
            clock,
            Behaviour::default(),
            1_000,
        )))
    }

    async fn strategy(&self, _: &str) -> Result<Arc<dyn Strategy>, String> {
        Ok(self.plugin.clone())
    }
}

fn header(id: &str, parameters: serde_json::Value, created: Millis) -> Header {
    Header {
        rollout: id.to_owned(),
        created,
        target: TargetSpec::Simulated {
            name: id.to_owned(),
        },
        identity: id.to_owned(),
        work: fixture::strategy(parameters),
        ..fixture::header()
    }
}

async fn parked(count: u32) {
    let host = Host::new(None, Limits::default()).expect("starts");
    let plugin = host.load(&guest("hostile")).await.expect("loads");
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("engine.db")).expect("opens");
    let store: Arc<dyn Store> = Arc::new(store);
    let bench = Bench {
        plugin,
        clock: Arc::new(SystemClock),
    };
    let driver = bench.driver(store.clone());
    let before = resident_mb("self", "VmRSS");
    let mut fleet = Fleet::new(driver.clone());
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    // They wake one after the other, 250 a second, once all are parked.
    let first = 60_u32;
    for n in 0..count {
        let id = format!("r{n}");
        let seconds = first + n / 250;
        let header = header(
            &id,
            json!({"act": "wait", "amount": seconds}),
            SystemClock.now(),
        );
        let driver = driver.clone();
        tasks.spawn(async move {
            driver.begin(header).await.expect("begins");
            let standing = driver.drive(&id).await.expect("works");
            let Standing::Parked(until) = standing else {
                panic!("{standing:?}");
            };
            (id, until)
        });
        if tasks.len() >= 256
            && let Some(Ok((id, until))) = tasks.join_next().await
        {
            fleet.add(id, until);
        }
    }
    while let Some(done) = tasks.join_next().await {
        let (id, until) = done.expect("no panic");
        fleet.add(id, until);
    }
    let took = begun.elapsed();
    row(
        "begin and park all",
        format!(
            "{:.1} s  ({:.0} a second)",
            took.as_secs_f64(),
            f64::from(count) / took.as_secs_f64()
        ),
    );
    let memory = resident_mb("self", "VmRSS") - before;
    row(
        "memory while all are parked",
        format!(
            "{memory:.0} MB  ({:.1} KB each)",
            memory * 1_024.0 / f64::from(count)
        ),
    );
    assert_eq!(fleet.parked(), count as usize);
    while let Some(news) = fleet.next().await {
        let News::Stopped {
            rollout: id,
            result,
        } = news
        else {
            panic!("{news:?}");
        };
        let standing = result.unwrap_or_else(|e| panic!("{id}: {e}"));
        assert!(matches!(standing, Standing::Over(..)), "{standing:?}");
    }
    // Each journal says when the wait was over and when it was answered.
    let mut late = Vec::with_capacity(count as usize);
    for n in 0..count {
        let journal = store.load(&format!("r{n}"), 0).await.expect("there");
        let mut due = HashMap::new();
        for entry in journal {
            match entry.event {
                Event::Asked {
                    deadline: Some(at), ..
                } => {
                    due.insert(entry.seq, at);
                }
                Event::Answered { of, .. } => {
                    if let Some(at) = due.remove(&of) {
                        late.push(entry.at.saturating_sub(at));
                    }
                }
                _ => {}
            }
        }
    }
    late.sort_unstable();
    let at = |part: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = (part * (late.len() - 1) as f64) as usize;
        late[index]
    };
    row(
        "from due to awake",
        format!(
            "p50 {} ms, p99 {} ms, most {} ms",
            at(0.5),
            at(0.99),
            at(1.0)
        ),
    );
}

async fn store() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("engine.db")).expect("opens");
    let owner = Owner {
        host: "here".to_owned(),
        pid: 1,
        started: "now".to_owned(),
    };
    let claim = engine::store::Claim {
        target: "t",
        also: &[],
        rollout: "r",
        owner: &owner,
        now: 0,
        ttl_ms: 1_000_000,
        dead_epoch: None,
    };
    let lease = store.claim(claim).await.expect("free");
    let first = header("r", json!({}), 0);
    let summary = Summary::of(&first, &Status::new(&first));
    let mut seq = 0;
    for (what, durability) in [
        ("append, safe from a dead process", Durability::Process),
        ("append, safe from a power cut", Durability::Power),
    ] {
        let time = median(300, async || {
            seq += 1;
            let entry = Entry {
                seq,
                at: 0,
                epoch: lease.epoch,
                event: Event::Exchanged {
                    by: engine::journal::Actor::Strategy,
                    call: Call::GetHealth,
                    reply: health(),
                },
            };
            store
                .append(&lease, vec![entry], &summary, durability)
                .await
                .expect("ours");
        })
        .await;
        row(what, format!("{:.0} us", us(time)));
    }
}

// === A store with much history ===

/// Entries of a finished rollout, and of an open one.
const CROWD_ENTRIES: u32 = 20;

/// Rollouts at a time: SQLite commits what waits together.
const CROWD_TASKS: usize = 256;

/// Puts a rollout into the store that has ended, or waits for somebody who drives it on.
async fn member(store: Arc<dyn Store>, n: u32, finished: bool) {
    // An open rollout occupies its target alone; finished ones share a hundred.
    let (id, target) = match finished {
        true => (format!("done-{n}"), format!("service-{}", n % 100)),
        false => (format!("open-{n}"), format!("busy-{n}")),
    };
    let mut first = header(&id, json!({}), u64::from(n) * 1_000);
    first.identity = target;
    let owner = Owner {
        host: "here".to_owned(),
        pid: 1,
        started: "now".to_owned(),
    };
    // One of the finished has a lease of its own while it is written, so that no two
    // of a target wait for each other.
    let claim = engine::store::Claim {
        target: if finished { &id } else { &first.identity },
        also: &[],
        rollout: &id,
        owner: &owner,
        now: first.created,
        ttl_ms: 60_000,
        dead_epoch: None,
    };
    let lease = store.claim(claim).await.expect("free");
    let mut events = vec![Event::Started(Box::new(first.clone()))];
    let read = || Event::Exchanged {
        by: engine::journal::Actor::Strategy,
        call: Call::GetHealth,
        reply: health(),
    };
    events.extend((1..CROWD_ENTRIES - 1).map(|_| read()));
    events.push(match finished {
        true => Event::Ended {
            end: End::Promoted,
            reason: "canary is as good as stable".to_owned(),
        },
        false => read(),
    });
    let entries: Vec<Entry> = (0..)
        .zip(events)
        .map(|(seq, event)| Entry {
            seq,
            at: first.created + u64::from(seq),
            epoch: lease.epoch,
            event,
        })
        .collect();
    let summary = Summary::of_journal(&entries).expect("begins with its header");
    store
        .append(&lease, entries, &summary, Durability::Process)
        .await
        .expect("ours");
    match finished {
        true => store.release(&lease).await.expect("ours"),
        false => store.park(&lease, None).await.expect("ours"),
    }
}

async fn crowd(finished: u32, open: u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("engine.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&place).expect("opens"));
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    // The open ones among the older ones, where a list finds them last.
    for n in 0..finished + open {
        tasks.spawn(member(store.clone(), n, n >= open));
        if tasks.len() >= CROWD_TASKS {
            tasks.join_next().await.expect("one").expect("no panic");
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    drop(store);
    let size = std::fs::metadata(&place).expect("is there").len();
    row(
        "write them",
        format!("{:.0} s, {} MiB", begun.elapsed().as_secs_f64(), size >> 20),
    );
    let last = format!("done-{}", finished + open - 1);
    for arguments in [
        &["list"] as &[&str],
        &["list", "--json"],
        &["get", &last],
        &["history"],
        &["status"],
        &["status", "open-0"],
    ] {
        let time = median(30, async || {
            let output = Command::new(env!("CARGO_BIN_EXE_engine"))
                .current_dir(folder.path())
                .arg("--state-dir")
                .arg(folder.path())
                .args(arguments)
                .output()
                .expect("runs");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        })
        .await;
        row(
            &format!("`engine {}`", arguments.join(" ")),
            format!("{:.1} ms  (budget 50 ms)", us(time) / 1e3),
        );
    }
}

// === Proxy ===

async fn upstream() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("free");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let service = hyper::service::service_fn(|_: Request<hyper::body::Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok\n")))
            });
            tokio::spawn(async move {
                let builder = hyper::server::conn::http1::Builder::new();
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

/// Requests per second, and latencies, over some connections for a while.
async fn hammer(address: SocketAddr, connections: usize) -> (f64, Duration, Duration) {
    let mut tasks = tokio::task::JoinSet::new();
    let begun = Instant::now();
    let span = Duration::from_secs(3);
    for _ in 0..connections {
        tasks.spawn(async move {
            let client =
                hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
            let mut took = vec![];
            while begun.elapsed() < span {
                let request =
                    Request::get(format!("http://{address}/")).body(Empty::<Bytes>::new());
                let sent = Instant::now();
                let response: Response<hyper::body::Incoming> = client
                    .request(request.expect("valid"))
                    .await
                    .expect("answered");
                assert_eq!(response.status(), 200);
                response.into_body().collect().await.expect("whole");
                took.push(sent.elapsed());
            }
            took
        });
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    took.sort();
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let rate = took.len() as f64 / span.as_secs_f64();
    (rate, took[took.len() / 2], took[took.len() * 99 / 100])
}

async fn proxy() {
    let address = upstream().await;
    let arm = |name: &str, weight| LocalArm {
        name: name.to_owned(),
        weight,
        release: Release {
            version: name.to_owned(),
            source: Source::Urls(vec![format!("http://{address}")]),
        },
    };
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let spec = LocalSpec {
        listen: free,
        admin: free,
        arms: vec![arm("stable", 90), arm("canary", 10)],
        health: HealthCheck {
            path: "/".to_owned(),
            ..HealthCheck::default()
        },
        ..LocalSpec::demo(DemoFault::default())
    };
    let balancer = Balancer::start(&spec, None, None).await.expect("starts");
    for connections in [1, 32] {
        let (bare_rate, bare_p50, bare_p99) = hammer(address, connections).await;
        let (rate, p50, p99) = hammer(balancer.listen, connections).await;
        row(
            &format!("{connections} connections, bare upstream"),
            format!(
                "{bare_rate:.0} req/s, p50 {:.0} us, p99 {:.0} us",
                us(bare_p50),
                us(bare_p99)
            ),
        );
        row(
            &format!("{connections} connections, through the balancer at 90/10"),
            format!(
                "{rate:.0} req/s, p50 {:.0} us, p99 {:.0} us  ({:.2}x the rate, +{:.0} us p50)",
                us(p50),
                us(p99),
                rate / bare_rate,
                us(p50.saturating_sub(bare_p50))
            ),
        );
    }
    drop(balancer);
}

// === Whole processes ===

async fn processes() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_engine"));
        command
            .current_dir(folder.path())
            .arg("--state-dir")
            .arg("state");
        command
    };
    let plugin = root().join("plugins/canary.wasm");
    let mut rollout = engine()
        .arg("run")
        .arg(&plugin)
        .args(["--set", "bake=20s", "--set", "steps=50,100"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    tokio::time::sleep(Duration::from_secs(6)).await;
    let most = resident_mb(&rollout.id().to_string(), "VmHWM");
    row(
        "memory of `engine run` with balancer, demo and load",
        format!("{most:.0} MB at most"),
    );
    for verb in ["status", "list"] {
        let time = median(30, async || {
            let output = engine().arg(verb).output().expect("runs");
            assert!(output.status.success());
        })
        .await;
        row(
            &format!("`engine {verb}`, whole process"),
            format!("{:.1} ms", us(time) / 1e3),
        );
    }
    let begun = Instant::now();
    let abort = engine().arg("abort").output().expect("runs");
    row(
        "`engine abort`: command to all traffic back, read back",
        format!("{:.0} ms", us(begun.elapsed()) / 1e3),
    );
    assert_eq!(abort.status.code(), Some(0));
    let _ = rollout.wait();
}

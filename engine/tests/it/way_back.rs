//! The way back ends, with few writes, from any state of the world and whatever
//! others do meanwhile: with the traffic on a healthy arm that is not the
//! candidate, or standing still with everything said.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use engine::clock::{Clock, VirtualClock};
use engine::journal::{Actor, Call, Entry, Event, Reply, StackVerb, Work};
use engine::model::query::{Probe, Query};
use engine::model::target::TargetSpec;
use engine::model::{
    ArmHealth, DemoFault, Deployment, End, Goal, HostError, MetricsQuery, Observed, Point,
    ProbeReport, Promotion, Release, Sample, Source, Traffic, Weights,
};
use engine::rollout::{Driver, Ran, Resolve, RolloutError, Standing, WRITES_MAX};
use engine::simulate::SimulatedTarget;
use engine::store::{Blobs, Journals, Owner, Schedule};
use engine::target::Target;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

use crate::support::lab::{self, ID, Lab, Scripted};

/// What somebody else does to one arm.
#[derive(Debug, Clone)]
enum Change {
    Weights(u32, u32),
    Release(usize, &'static str),
    Healthy(usize, u32),
    Deployment(usize, u8),
}

impl Change {
    fn make(&self, observed: &mut Observed) {
        match self {
            Self::Weights(stable, canary) => {
                (observed.arms[0].weight, observed.arms[1].weight) = (*stable, *canary);
            }
            Self::Release(arm, version) => {
                observed.arms[*arm].release.version = (*version).to_owned();
            }
            Self::Healthy(arm, healthy) => observed.arms[*arm].healthy = *healthy,
            Self::Deployment(arm, kind) => {
                observed.arms[*arm].deployment = match kind {
                    0 => Deployment::Steady,
                    1 => Deployment::Moving("1 of 2 tasks run".to_owned()),
                    _ => Deployment::Failed("no such image".to_owned()),
                };
            }
        }
    }
}

fn change() -> impl proptest::strategy::Strategy<Value = Change> {
    let version = prop_oneof![Just("v1"), Just("v2"), Just("v3")];
    prop_oneof![
        (0..=100_u32, 0..=100_u32).prop_map(|(a, b)| Change::Weights(a, b)),
        (0..2_usize, version).prop_map(|(arm, version)| Change::Release(arm, version)),
        (0..2_usize, 0..=2_u32).prop_map(|(arm, healthy)| Change::Healthy(arm, healthy)),
        (0..2_usize, 0..3_u8).prop_map(|(arm, kind)| Change::Deployment(arm, kind)),
    ]
}

/// A target that somebody else works on too: some calls find it changed.
struct Shared {
    inner: Arc<SimulatedTarget>,
    calls: AtomicU32,
    changes: Mutex<BTreeMap<u32, Vec<Change>>>,
    /// Afterwards changes come with every call, for ever.
    endless: Option<Change>,
    late_ms: u64,
    /// Weights at the last read.
    last_read: Mutex<Option<Observed>>,
    /// Writes that are on the wire: they land at that time.
    on_the_wire: Mutex<Vec<(u64, Weights)>>,
    /// How long the next write stays on the wire, ms.
    delay: Mutex<Option<u64>>,
    clock: Arc<VirtualClock>,
}

impl Shared {
    fn new(lab: &Lab, changes: impl IntoIterator<Item = (u32, Change)>) -> Self {
        let mut by_call: BTreeMap<u32, Vec<Change>> = BTreeMap::new();
        for (at, change) in changes {
            by_call.entry(at).or_default().push(change);
        }
        Self {
            inner: lab.target.clone(),
            calls: AtomicU32::new(0),
            changes: Mutex::new(by_call),
            endless: None,
            late_ms: 0,
            last_read: Mutex::default(),
            on_the_wire: Mutex::default(),
            delay: Mutex::default(),
            clock: lab.clock.clone(),
        }
    }

    fn called(&self) {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let due = self.changes.lock().expect("whole").remove(&number);
        for change in due.into_iter().flatten().chain(self.endless.clone()) {
            self.inner.meddle(|o| change.make(o));
        }
        let now = self.clock.now();
        let mut wire = self.on_the_wire.lock().expect("whole");
        for (_, weights) in wire.extract_if(.., |(at, _)| *at <= now) {
            self.inner.meddle(|o| {
                for arm in &mut o.arms {
                    arm.weight = weights.weight(&arm.name);
                }
            });
        }
    }

    fn read(&self) {
        self.called();
        *self.last_read.lock().expect("whole") = Some(self.inner.peek());
    }
}

#[async_trait]
impl Target for Shared {
    fn identity(&self) -> &str {
        self.inner.identity()
    }
    fn sample_period_ms(&self) -> u32 {
        self.inner.sample_period_ms()
    }
    fn late_write_ms(&self) -> u64 {
        self.late_ms
    }
    async fn observe(&self) -> Result<Observed, HostError> {
        self.read();
        self.inner.observe().await
    }
    async fn traffic(&self) -> Result<Traffic, HostError> {
        self.read();
        self.inner.traffic().await
    }
    async fn health(&self) -> Result<Vec<ArmHealth>, HostError> {
        self.called();
        self.inner.health().await
    }
    async fn set_weights(&self, weights: &Weights) -> Result<(), HostError> {
        self.called();
        if let Some(delay) = self.delay.lock().expect("whole").take() {
            let at = self.clock.now() + delay;
            let mut wire = self.on_the_wire.lock().expect("whole");
            wire.push((at, weights.clone()));
            return Err(HostError::new(
                engine::model::ErrorKind::Unavailable,
                "no-answer",
                "no answer in time",
            )
            .retryable());
        }
        self.inner.set_weights(weights).await
    }
    async fn set_version(&self, arm: &str, release: &Release) -> Result<(), HostError> {
        self.called();
        self.inner.set_version(arm, release).await
    }
    async fn set_tasks(&self, arm: &str, tasks: u32) -> Result<(), HostError> {
        self.called();
        self.inner.set_tasks(arm, tasks).await
    }
    async fn samples(&self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError> {
        self.inner.samples(query).await
    }
    async fn query(&self, query: &Query, since: u64) -> Result<Vec<Point>, HostError> {
        self.inner.query(query, since).await
    }
    async fn probe(&self, arm: &str, probe: &Probe) -> Result<ProbeReport, HostError> {
        self.inner.probe(arm, probe).await
    }
}

struct On(Arc<Shared>);

#[async_trait]
impl Resolve for On {
    async fn target(&self, _: &TargetSpec) -> Result<Arc<dyn Target>, HostError> {
        Ok(self.0.clone())
    }
    async fn strategy(&self, _: &str) -> Result<Arc<dyn engine::rollout::Strategy>, String> {
        Err("no strategy is needed on the way back".to_owned())
    }
}

fn lab(promotion: Promotion) -> Lab {
    let never = Scripted(|_| async { Ran::Interrupted });
    let mut lab = Lab::new(Arc::new(never), lab::good(), json!({}));
    lab.header.promotion = promotion;
    lab
}

fn driver(lab: &Lab, target: &Arc<Shared>, pid: u32) -> Driver {
    Driver {
        resolve: Arc::new(On(target.clone())),
        owner: Owner {
            pid,
            ..lab::owner()
        },
        ..lab.driver()
    }
}

fn release(version: &str) -> Release {
    Release {
        version: version.to_owned(),
        source: Source::Demo(DemoFault::default()),
    }
}

fn entry(lab: &Lab, seq: u32, event: Event) -> Entry {
    Entry {
        seq,
        at: lab.clock.now(),
        epoch: 1,
        event,
    }
}

/// A journal that got as far as `stage` before the person gave up: nothing done,
/// the stable arm asked to run the new version, given it, or asked to go back.
fn journal(lab: &Lab, stage: u8) -> Vec<Entry> {
    let mut entries = vec![entry(lab, 0, Event::Started(Box::new(lab.header.clone())))];
    let mut push = |event| {
        let seq = u32::try_from(entries.len()).expect("short");
        entries.push(entry(lab, seq, event));
        seq
    };
    for (wanted, version) in [(1, "v2"), (3, "v1")] {
        if stage < wanted {
            break;
        }
        let of = push(Event::Asked {
            by: Actor::Host,
            call: Call::SetVersion {
                arm: "stable".to_owned(),
                release: release(version),
            },
            before: Some(Weights::of([("stable", 0), ("canary", 100)])),
            deadline: None,
        });
        if stage > wanted {
            push(Event::Answered {
                by: Actor::Host,
                of,
                reply: Reply::Done,
                recovered: false,
            });
        }
    }
    entries
}

/// Writes to the target that the driver has made.
fn writes(lab: &Lab) -> usize {
    lab.target.verbs().len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn converges_from_any_state(world in world()) {
        converges(&world);
    }
}

/// Where a way back begins, and what happens on it.
#[derive(Debug, Clone)]
struct World {
    copy: bool,
    stage: u8,
    before: Vec<Change>,
    meanwhile: Vec<(u32, Change)>,
    endless: Option<Change>,
}

fn world() -> impl Strategy<Value = World> {
    let before = proptest::collection::vec(change(), 0..8);
    let meanwhile = proptest::collection::vec((0..40_u32, change()), 0..10);
    let endless = proptest::option::weighted(0.2, change());
    let parts = (any::<bool>(), 0..5_u8, before, meanwhile, endless);
    parts.prop_map(|(copy, stage, before, meanwhile, endless)| World {
        copy,
        stage,
        before,
        meanwhile,
        endless,
    })
}

/// One world of that seed.
pub fn by_seed(seed: u64) {
    let bytes: Vec<u8> = seed.to_le_bytes().repeat(4);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    converges(&world().new_tree(&mut runner).expect("a world").current());
}

fn converges(world: &World) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let promotion = if world.copy {
            Promotion::Copy
        } else {
            Promotion::Swap
        };
        let lab = lab(promotion);
        let stage = if world.copy { world.stage } else { 0 };
        lab.store.plant(ID, journal(&lab, stage));
        for change in &world.before {
            lab.target.meddle(|o| change.make(o));
        }
        let mut target = Shared::new(&lab, world.meanwhile.clone());
        target.endless = world.endless.clone();
        let target = Arc::new(target);
        lab.signal("abort", "").await;
        let standing = driver(&lab, &target, 1).drive(ID).await.expect("it works");
        // Each is tried once more where the target says yes and shows no change.
        let most = 2 * usize::try_from(WRITES_MAX).expect("small");
        assert!(writes(&lab) <= most, "{:?}", lab.target.verbs());
        let Standing::Over(end, reason) = &standing else {
            panic!("{standing:?} is no end");
        };
        let read = target
            .last_read
            .lock()
            .expect("whole")
            .clone()
            .expect("it looked");
        match end {
            End::RolledBack => {
                assert!(
                    read.weights().share("stable") >= 100.0,
                    "{}",
                    read.weights()
                );
            }
            End::RollbackFailed => {
                assert!(
                    reason.contains("stable") && reason.contains("the traffic was at"),
                    "{reason}"
                );
            }
            other => panic!("{other:?}"),
        }
        // When others have stopped and the stable arm is well, nothing is in the way.
        if world.endless.is_none()
            && world.meanwhile.is_empty()
            && stage == 0
            && read.arms[0].healthy > 0
        {
            assert_eq!(*end, End::RolledBack, "{reason}");
            let most_here = if world.copy { 1 } else { 2 };
            assert!(writes(&lab) <= most_here, "{:?}", lab.target.verbs());
        }
    });
}

/// The report: somebody deployed to the stable service, then the rollout was
/// aborted. It must not go to and fro.
#[tokio::test]
async fn a_deployment_to_the_stable_arm_does_not_make_the_traffic_flap() {
    for (version, moving) in [("v3", false), ("v3", true), ("v1", true), ("v2", false)] {
        let lab = lab(Promotion::Copy);
        lab.store.plant(ID, journal(&lab, 0));
        lab.target.meddle(|o| {
            (o.arms[0].weight, o.arms[1].weight) = (75, 25);
            o.arms[0].release.version = version.to_owned();
            if moving {
                o.arms[0].deployment = Deployment::Moving("1 of 2 tasks run".to_owned());
            }
        });
        let target = Arc::new(Shared::new(&lab, []));
        lab.signal("abort", "").await;
        let standing = driver(&lab, &target, 1).drive(ID).await.expect("it works");
        assert!(
            matches!(standing, Standing::Over(End::RolledBack, _)),
            "{standing:?}"
        );
        assert_eq!(lab.target.verbs(), ["set-weights stable=100 canary=0"]);
    }
}

/// Somebody who sets the weights back again and again is not fought for ever.
#[tokio::test]
async fn a_driver_that_writes_too_often_stops_and_says_so() {
    let lab = lab(Promotion::Swap);
    lab.store.plant(ID, journal(&lab, 0));
    let mut target = Shared::new(&lab, []);
    target.endless = Some(Change::Weights(50, 50));
    let target = Arc::new(target);
    lab.signal("abort", "").await;
    let standing = driver(&lab, &target, 1).drive(ID).await.expect("it works");
    let Standing::Over(End::RollbackFailed, reason) = standing else {
        panic!("{standing:?}");
    };
    assert!(
        reason.contains("something else writes to this target"),
        "{reason}"
    );
    assert!(reason.contains("stable 50 %, canary 50 %"), "{reason}");
}

/// A change of a stack whose process died ends by reading, and a write in doubt
/// is settled first; if the stack moved the traffic, that is said.
#[tokio::test]
async fn an_interrupted_change_of_a_stack_ends_where_the_traffic_was_left() {
    let wanted = Weights::of([("stable", 70), ("canary", 30)]);
    for happened in [None, Some(false), Some(true)] {
        for moved in [false, true] {
            let mut lab = lab(Promotion::Swap);
            lab.header.work = Work::StackChange {
                stack: "shop".to_owned(),
                change: StackVerb::Deploy,
                actor: "ada".to_owned(),
                accepts: false,
            };
            let mut left = lab.header.baseline.clone();
            let mut entries = vec![entry(&lab, 0, Event::Started(Box::new(lab.header.clone())))];
            if happened.is_some() {
                let before = Some(left.clone());
                left = wanted.clone();
                let call = Call::SetWeights {
                    weights: left.clone(),
                };
                entries.push(entry(
                    &lab,
                    1,
                    Event::Asked {
                        by: Actor::Host,
                        call,
                        before,
                        deadline: None,
                    },
                ));
            }
            if happened == Some(true) {
                lab.target.set_weights(&wanted).await.expect("simulated");
            }
            if moved {
                let odd = Weights::of([("stable", 11), ("canary", 89)]);
                lab.target.set_weights(&odd).await.expect("simulated");
            }
            lab.store.plant(ID, entries);
            let target = Arc::new(Shared::new(&lab, []));
            let standing = driver(&lab, &target, 1).drive(ID).await.expect("it works");
            if moved {
                // It is said and not undone, and the target is free for people.
                let Standing::Over(End::Refused, reason) = &standing else {
                    panic!("{happened:?}: {standing:?}");
                };
                for says in ["stable 11 %, canary 89 %", "somebody else moved it"] {
                    assert!(reason.contains(says), "{reason}");
                }
                assert_eq!(lab.target.peek().weights().weight("canary"), 89);
                continue;
            }
            let Standing::Over(End::Done, reason) = &standing else {
                panic!("{happened:?}: {standing:?}");
            };
            assert!(reason.contains("the deploy of the stack shop was interrupted"));
            assert_eq!(lab.target.peek().weights(), left, "{happened:?}");
        }
    }
}

/// Nobody has judged what somebody else deployed to the candidate meanwhile.
#[tokio::test]
async fn a_version_that_nobody_judged_is_not_promoted() {
    for promotion in [Promotion::Swap, Promotion::Copy] {
        for arm in [0, 1] {
            if promotion == Promotion::Swap && arm == 0 {
                continue;
            }
            let lab = lab(promotion);
            let mut entries = journal(&lab, 0);
            entries.push(entry(
                &lab,
                1,
                Event::Decided {
                    goal: Goal::Promote,
                    by: engine::model::Decider::Strategy,
                    reason: "it is good".to_owned(),
                    signal: None,
                },
            ));
            lab.store.plant(ID, entries);
            lab.target
                .meddle(|o| o.arms[arm].release.version = "v3".to_owned());
            let target = Arc::new(Shared::new(&lab, []));
            let standing = driver(&lab, &target, 1).drive(ID).await.expect("it works");
            let Standing::Held(hold) = standing else {
                panic!("{standing:?}");
            };
            assert!(
                hold.to_string().contains("somebody else deployed"),
                "{hold}"
            );
            assert_eq!(writes(&lab), 0);
            // Who says it again means it.
            lab.signal("promote-full", "").await;
            let standing = driver(&lab, &target, 1).drive(ID).await.expect("it works");
            assert!(
                matches!(standing, Standing::Over(End::Promoted, _)),
                "{standing:?}"
            );
        }
    }
}

/// A process is frozen with a write on the wire, another one takes over and
/// rolls back, and then the write lands.
#[tokio::test]
async fn a_write_that_lands_late_is_seen_and_taken_back() {
    for late_by in [1_000, 5_000, 12_000] {
        let lab = lab(Promotion::Swap);
        let before = Weights::of([("stable", 100), ("canary", 0)]);
        let wanted = Weights::of([("stable", 50), ("canary", 50)]);
        let mut entries = journal(&lab, 0);
        entries.push(entry(
            &lab,
            1,
            Event::Asked {
                by: Actor::Strategy,
                call: Call::SetWeights {
                    weights: wanted.clone(),
                },
                before: Some(before),
                deadline: None,
            },
        ));
        lab.store.plant(ID, entries);
        let mut target = Shared::new(&lab, []);
        target.late_ms = 13_000;
        let at = lab.clock.now() + late_by;
        target.on_the_wire = Mutex::new(vec![(at, wanted)]);
        let target = Arc::new(target);
        lab.signal("abort", "").await;
        let standing = driver(&lab, &target, 2).drive(ID).await.expect("it works");
        assert!(
            matches!(standing, Standing::Over(End::RolledBack, _)),
            "{standing:?}"
        );
        assert!(target.on_the_wire.lock().expect("whole").is_empty());
        assert_eq!(lab.target.peek().weights().share("stable"), 100.0);
        assert_eq!(lab.target.verbs(), ["set-weights stable=100 canary=0"]);
    }
}

/// With a write in doubt, a target that does not answer for minutes is waited for.
#[tokio::test]
async fn a_write_in_doubt_does_not_cut_the_patience_short() {
    let lab = lab(Promotion::Swap);
    let mut entries = journal(&lab, 0);
    entries.push(entry(
        &lab,
        1,
        Event::Asked {
            by: Actor::Strategy,
            call: Call::SetWeights {
                weights: Weights::of([("stable", 50), ("canary", 50)]),
            },
            before: Some(Weights::of([("stable", 100), ("canary", 0)])),
            deadline: None,
        },
    ));
    lab.store.plant(ID, entries);
    lab.target
        .meddle(|o| (o.arms[0].weight, o.arms[1].weight) = (50, 50));
    let throttled = HostError::new(
        engine::model::ErrorKind::Throttled,
        "throttled",
        "too many calls",
    );
    let outage = engine::simulate::Fault::ObserveFails(throttled.retryable());
    lab.target.inject(vec![outage; 20]);
    let target = Arc::new(Shared::new(&lab, []));
    lab.signal("abort", "").await;
    let begun = lab.clock.now();
    let standing = driver(&lab, &target, 2).drive(ID).await.expect("it works");
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    assert!(lab.clock.now() - begun > 60_000, "it waited for it");
    assert_eq!(lab.target.verbs(), ["set-weights stable=100 canary=0"]);
}

/// The frozen process wakes, finds that it was fenced, and says what its write
/// has done.
#[tokio::test]
async fn who_was_fenced_says_what_its_write_has_done() {
    for (delay, landed) in [(1_000, true), (10_000, true), (60_000, false)] {
        let calls_once = Scripted(
            |calls: Arc<dyn engine::rollout::session::Calls>| async move {
                let weights = Weights::of([("stable", 50), ("canary", 50)]);
                match calls.perform(Call::SetWeights { weights }).await {
                    Err(_) => Ran::Interrupted,
                    Ok(_) => Ran::Trapped("it must not get an answer".to_owned()),
                }
            },
        );
        let mut lab = Lab::new(Arc::new(calls_once), lab::good(), json!({}));
        lab.header.probes = vec![];
        lab.options.attempts = 1;
        struct Both(Arc<Shared>, Arc<dyn engine::rollout::Strategy>);
        #[async_trait]
        impl Resolve for Both {
            async fn target(&self, _: &TargetSpec) -> Result<Arc<dyn Target>, HostError> {
                Ok(self.0.clone())
            }
            async fn strategy(
                &self,
                _: &str,
            ) -> Result<Arc<dyn engine::rollout::Strategy>, String> {
                Ok(self.1.clone())
            }
        }
        let mut target = Shared::new(&lab, []);
        target.late_ms = 13_000;
        target.delay = Mutex::new(Some(delay));
        let target = Arc::new(target);
        let first = Driver {
            resolve: Arc::new(Both(target.clone(), lab.strategy.clone())),
            // While it waits for the answer, somebody takes its lease.
            store: Arc::new(Fencing {
                under: lab.store.clone(),
                wanted: "Answered",
            }),
            ..driver(&lab, &target, 1)
        };
        first.begin(lab.header.clone()).await.expect("begins");
        let error = first.drive(ID).await.expect_err("it was fenced");
        let RolloutError::Overtaken {
            report,
            landed: says,
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(says, landed, "{report}");
        let expected = if landed {
            "had its effect"
        } else {
            "no lasting effect"
        };
        assert!(report.contains(expected), "{report}");
    }
}

/// A store that is taken over by another process at a certain entry.
struct Fencing {
    under: Arc<engine::store::memory::MemoryStore>,
    wanted: &'static str,
}

type Kept<T> = Result<T, engine::store::StoreError>;

#[async_trait]
impl Journals for Fencing {
    async fn claim(&self, claim: engine::store::Claim<'_>) -> Kept<engine::store::Lease> {
        self.under.claim(claim).await
    }
    async fn renew(&self, lease: &engine::store::Lease, expires: u64) -> Kept<()> {
        self.under.renew(lease, expires).await
    }
    async fn park(&self, lease: &engine::store::Lease, until: Option<u64>) -> Kept<()> {
        self.under.park(lease, until).await
    }
    async fn release(&self, lease: &engine::store::Lease) -> Kept<()> {
        self.under.release(lease).await
    }
    async fn append(
        &self,
        lease: &engine::store::Lease,
        entries: Vec<Entry>,
        summary: &engine::journal::summary::Summary,
        durability: engine::store::Durability,
    ) -> Kept<()> {
        if entries
            .iter()
            .any(|e| format!("{:?}", e.event).starts_with(self.wanted))
        {
            return Err(engine::store::StoreError::Fenced {
                rollout: lease.rollout.clone(),
            });
        }
        self.under.append(lease, entries, summary, durability).await
    }
    async fn load(&self, rollout: &str, from: u32) -> Kept<Vec<Entry>> {
        self.under.load(rollout, from).await
    }
    async fn header(&self, rollout: &str) -> Kept<Option<engine::journal::Header>> {
        self.under.header(rollout).await
    }
    fn is_dead(&self, owner: &Owner) -> bool {
        self.under.is_dead(owner)
    }
}

#[async_trait]
impl Schedule for Fencing {
    async fn occupant(&self, target: &str) -> Kept<Option<engine::store::Busy>> {
        self.under.occupant(target).await
    }
    async fn open(&self, on: Option<&str>) -> Kept<Vec<engine::store::Open>> {
        self.under.open(on).await
    }
    async fn due(&self, now: u64, limit: u32) -> Kept<Vec<(String, u64)>> {
        self.under.due(now, limit).await
    }
    async fn history(
        &self,
        page: &engine::store::Page,
    ) -> Kept<Vec<engine::journal::summary::Summary>> {
        self.under.history(page).await
    }
    async fn signal(&self, rollout: &str, signal: &engine::model::Signal) -> Kept<bool> {
        self.under.signal(rollout, signal).await
    }
    async fn signals(
        &self,
        rollout: Option<&str>,
        after: u64,
    ) -> Kept<Vec<(u64, String, engine::model::Signal)>> {
        self.under.signals(rollout, after).await
    }
}

#[async_trait]
impl Blobs for Fencing {
    async fn put(&self, sha256: &str, bytes: &[u8], now: u64) -> Kept<()> {
        self.under.put(sha256, bytes, now).await
    }
    async fn get(&self, sha256: &str) -> Kept<Option<Vec<u8>>> {
        self.under.get(sha256).await
    }
    async fn sweep(&self, now: u64) -> Kept<()> {
        self.under.sweep(now).await
    }
    async fn remember(&self, key: &str, text: &str) -> Kept<()> {
        self.under.remember(key, text).await
    }
    async fn recall(&self, key: &str) -> Kept<Option<String>> {
        self.under.recall(key).await
    }
}

//! These calls in this order, and nothing else: on a simulated target.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use engine::clock::{Clock, VirtualClock};
use engine::journal::{Actor, Call, Event, Reply, StackVerb, Work};
use engine::model::limits::{BeforeBake, OnTrouble};
use engine::model::query::{Probe, Query};
use engine::model::{
    DemoFault, Elsewhere, End, ErrorKind, Hold, HostError, MetricsQuery, Observed, Outcome, Point,
    ProbeReport, Promotion, Release, Sample, Source, Verdict, Weights,
};
use engine::rollout::change::Heard;
use engine::rollout::session::Calls;
use engine::rollout::{Ran, Standing};
use engine::simulate::{Behaviour, Fault, SimulatedTarget};
use engine::store::Schedule as _;
use engine::target::Target;
use serde_json::json;

use crate::support::guests;
use crate::support::lab::{self, Lab, Scripted};

async fn canary(behaviour: Behaviour) -> Lab {
    Lab::new(guests::plugin("canary").await, behaviour, lab::quick())
}

async fn blue_green(behaviour: Behaviour) -> Lab {
    let plugin = guests::plugin("blue-green").await;
    Lab::named(["blue", "green"], plugin, behaviour, json!({"bake": "3s"}))
}

fn error(kind: ErrorKind) -> HostError {
    HostError::new(kind, "test", "the test says no")
}

#[tokio::test]
async fn a_good_canary() {
    let lab = canary(lab::good()).await;
    let standing = lab.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    assert_eq!(
        lab.target.verbs(),
        [
            "set-weights stable=90 canary=10",
            "set-weights stable=50 canary=50",
            "set-weights stable=0 canary=100",
        ]
    );
}

#[tokio::test]
async fn a_good_canary_by_copy() {
    let mut lab = canary(lab::good()).await;
    lab.header.promotion = Promotion::Copy;
    lab.run().await;
    assert_eq!(
        lab.target.verbs()[3..],
        ["set-version stable v2", "set-weights stable=100 canary=0"]
    );
}

#[tokio::test]
async fn a_bad_canary() {
    let lab = canary(lab::bad()).await;
    let Standing::Over(End::RolledBack, reason) = lab.run().await else {
        panic!("it is bad");
    };
    assert!(reason.contains("20.0 % errors"), "{reason}");
    assert_eq!(
        lab.target.verbs(),
        [
            "set-weights stable=90 canary=10",
            "set-weights stable=100 canary=0"
        ]
    );
}

#[tokio::test]
async fn a_good_and_a_bad_colour() {
    let lab = blue_green(lab::good()).await;
    assert!(matches!(lab.run().await, Standing::Over(End::Promoted, _)));
    assert_eq!(lab.target.verbs(), ["set-weights blue=0 green=100"]);
    let lab = blue_green(lab::bad()).await;
    assert!(matches!(
        lab.run().await,
        Standing::Over(End::RolledBack, _)
    ));
    assert_eq!(
        lab.target.verbs(),
        [
            "set-weights blue=0 green=100",
            "set-weights blue=100 green=0"
        ]
    );
}

#[tokio::test]
async fn every_write_has_a_durable_intent_first() {
    let lab = canary(lab::good()).await;
    lab.run().await;
    let journal = lab.journal().await;
    let mut writes = 0;
    for (index, entry) in journal.iter().enumerate() {
        assert_eq!(entry.seq as usize, index);
        if let Event::Asked { call, .. } = &entry.event
            && call.is_write()
        {
            writes += 1;
            let Event::Answered { of, reply, .. } = &journal[index + 1].event else {
                panic!("{entry:?} has no answer");
            };
            assert_eq!((*of, reply), (entry.seq, &Reply::Done));
        }
    }
    assert_eq!(writes, lab.target.verbs().len());
}

#[tokio::test]
async fn a_candidate_release_is_deployed_first() {
    let mut lab = canary(lab::good()).await;
    lab.header.candidate = Some(Release {
        version: "v3".to_owned(),
        source: Source::Demo(DemoFault::default()),
    });
    lab.run().await;
    assert_eq!(lab.target.verbs()[0], "set-version canary v3");
    assert_eq!(lab.target.peek().arms[1].release.version, "v3");
}

#[tokio::test]
async fn a_release_is_not_replaced_under_traffic() {
    let mut lab = canary(lab::good()).await;
    lab.target.meddle(|o| o.arms[1].weight = 100);
    lab.header.baseline = lab.target.peek().weights();
    lab.header.candidate = Some(Release {
        version: "v3".to_owned(),
        source: Source::Demo(DemoFault::default()),
    });
    let Standing::Held(hold) = lab.run().await else {
        panic!("it must hold");
    };
    assert!(hold.to_string().contains("already has traffic"), "{hold}");
    assert!(lab.target.verbs().is_empty());
}

#[tokio::test]
async fn a_sick_candidate_gets_no_traffic() {
    let lab = canary(lab::good()).await;
    lab.target.meddle(|o| o.arms[1].healthy = 0);
    let Standing::Over(End::RolledBack, reason) = lab.run().await else {
        panic!("it cannot be tried");
    };
    assert!(
        reason.contains("none of its 2 backends is healthy"),
        "{reason}"
    );
    assert!(lab.target.verbs().is_empty());
}

/// Nobody has to come back from a candidate that had no traffic, so nobody is paged because
/// no server answers.
#[tokio::test]
async fn a_rollout_that_never_moved_ends_without_a_healthy_arm() {
    let lab = canary(lab::good()).await;
    lab.target
        .meddle(|o| (o.arms[0].healthy, o.arms[1].healthy) = (0, 0));
    let begun = lab.clock.now();
    let standing = lab.run().await;
    let Standing::Over(End::RolledBack, reason) = standing else {
        panic!("{standing:?}");
    };
    assert!(reason.contains("canary got no traffic"), "{reason}");
    let limit = lab.header.guardrails.healthy_timeout_ms;
    let took = lab.clock.now() - begun;
    assert!(
        took < 2 * limit,
        "it waits for the candidate alone: {took} ms"
    );
    assert!(lab.target.verbs().is_empty());
}

#[tokio::test]
async fn the_way_back_needs_a_healthy_stable_arm() {
    let lab = canary(lab::bad()).await;
    // The stable arm falls ill before the rollout wants to go back to it.
    lab.target.meddle(|o| o.arms[0].healthy = 0);
    let standing = lab.run().await;
    let Standing::Over(End::RollbackFailed, reason) = standing else {
        panic!("{standing:?}");
    };
    assert!(reason.contains("needs stable"), "{reason}");
}

#[tokio::test]
async fn a_foreign_change_is_refused_and_can_be_adopted() {
    let lab = canary(lab::good()).await;
    lab.driver()
        .begin(lab.header.clone())
        .await
        .expect("begins");
    lab.target
        .meddle(|o| (o.arms[0].weight, o.arms[1].weight) = (80, 20));
    let Standing::Held(Hold::ForeignChange {
        expected, found, ..
    }) = lab.go_on().await
    else {
        panic!("it must hold");
    };
    assert_eq!(expected, Weights::of([("stable", 100), ("canary", 0)]));
    assert_eq!(found, Weights::of([("stable", 80), ("canary", 20)]));
    assert!(lab.target.verbs().is_empty());
    // Without --adopt it holds again; with it, it goes on from there.
    lab.signal("resume", "").await;
    assert!(matches!(lab.go_on().await, Standing::Held(_)));
    lab.signal("resume", "adopt").await;
    let standing = lab.go_on().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
}

/// What a hold has told is taken over, and nothing that came after it.
#[tokio::test]
async fn only_what_was_told_is_adopted() {
    let lab = canary(lab::good()).await;
    let set = |stable, canary| {
        lab.target
            .meddle(|o| (o.arms[0].weight, o.arms[1].weight) = (stable, canary));
    };
    lab.driver()
        .begin(lab.header.clone())
        .await
        .expect("begins");
    set(80, 20);
    assert!(matches!(lab.go_on().await, Standing::Held(_)));
    set(0, 100);
    lab.signal("resume", "adopt").await;
    let Standing::Held(Hold::ForeignChange { found, .. }) = lab.go_on().await else {
        panic!("nobody was told of that");
    };
    assert_eq!(found, Weights::of([("stable", 0), ("canary", 100)]));
    assert_eq!(lab.status().await.weights.share("canary"), 0.0);
    lab.signal("resume", "adopt").await;
    lab.go_on().await;
    let journal = lab.journal().await;
    let adopted = journal.iter().find_map(|entry| match &entry.event {
        Event::Continued { adopted, .. } => adopted.clone(),
        _ => None,
    });
    assert_eq!(adopted, Some(found));
}

/// A clock on which something happens while somebody waits.
struct Meanwhile {
    clock: Arc<VirtualClock>,
    armed: Arc<AtomicBool>,
    happens: Box<dyn Fn() + Send + Sync>,
}

#[async_trait]
impl Clock for Meanwhile {
    fn now(&self) -> u64 {
        self.clock.now()
    }

    async fn sleep_until(&self, until: u64) {
        if self.armed.swap(false, Ordering::SeqCst) {
            (self.happens)();
            // Tasks need a minute to start.
            self.clock.sleep_until(until + 60_000).await;
        }
        self.clock.sleep_until(until).await;
    }
}

/// Who takes users back while a raise waits for its tasks is not overruled: by a strategy's
/// raise, a person's promotion, or a verb by hand.
#[tokio::test]
async fn what_somebody_does_while_a_raise_waits_for_its_arm_stays() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Who {
        Strategy,
        Promotion,
        Verb,
    }
    for who in [Who::Strategy, Who::Promotion, Who::Verb] {
        let armed = Arc::new(AtomicBool::new(false));
        let (arm, sick) = (
            armed.clone(),
            Arc::new(Mutex::new(None::<Arc<SimulatedTarget>>)),
        );
        let target = sick.clone();
        let strategy = Scripted(move |calls: Arc<dyn Calls>| {
            let (arm, target) = (arm.clone(), target.clone());
            async move {
                let to = |share| Call::SetWeights {
                    weights: Weights::of([("stable", 100 - share), ("canary", share)]),
                };
                if calls.perform(to(10)).await.is_err() {
                    return Ran::Interrupted;
                }
                let target = target.lock().expect("no panic").clone().expect("set");
                target.meddle(|o| o.arms[1].healthy = 0);
                arm.store(true, Ordering::SeqCst);
                if who == Who::Promotion {
                    return Ran::Returned(Ok(Outcome {
                        verdict: Verdict::Promoted,
                        reason: "as the test wants".to_owned(),
                    }));
                }
                match calls.perform(to(50)).await {
                    Ok(reply) => Ran::Trapped(reply.to_string()),
                    Err(_) => Ran::Interrupted,
                }
            }
        });
        let mut lab = Lab::new(Arc::new(strategy), lab::good(), json!({}));
        *sick.lock().expect("no panic") = Some(lab.target.clone());
        let target = lab.target.clone();
        let away = match who {
            Who::Verb => {
                lab.header.work = Work::Verb {
                    verb: "set-weights".to_owned(),
                    weights: Weights::of([("stable", 40), ("canary", 60)]),
                    actor: "ada".to_owned(),
                };
                target.meddle(|o| o.arms[1].healthy = 0);
                armed.store(true, Ordering::SeqCst);
                (70, 30)
            }
            _ => (100, 0),
        };
        let happens = move || {
            target.meddle(|o| {
                o.arms[1].healthy = o.arms[1].total;
                (o.arms[0].weight, o.arms[1].weight) = away;
            });
        };
        let mut driver = lab.driver();
        driver.clock = Arc::new(Meanwhile {
            clock: lab.clock.clone(),
            armed: armed.clone(),
            happens: Box::new(happens),
        });
        driver.begin(lab.header.clone()).await.expect("begins");
        let mut fleet = engine::rollout::fleet::Fleet::new(driver);
        fleet.add(lab::ID.to_owned(), lab.clock.now());
        let standing = lab::stopped(fleet.next().await).expect("it works");
        match (who, &standing) {
            (Who::Verb, Standing::Over(End::Refused, why)) => {
                assert!(why.contains("stable=70 canary=30"), "{why}");
            }
            (Who::Strategy | Who::Promotion, Standing::Held(Hold::ForeignChange { found, .. })) => {
                assert_eq!(*found, Weights::of([("stable", 100), ("canary", 0)]));
            }
            _ => panic!("{who:?}: {standing:?}"),
        }
        assert_eq!(lab.target.peek().weights().0[1].weight, away.1, "{who:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_is_found_by_reading() {
    let lab = canary(lab::good()).await;
    lab.target.inject([Fault::AnswerLost]);
    assert!(matches!(lab.run().await, Standing::Over(End::Promoted, _)));
    assert_eq!(lab.target.verbs().len(), 3, "nothing was written twice");
}

#[tokio::test]
async fn a_write_that_has_no_effect_is_tried_again_and_then_refused() {
    let lab = canary(lab::good()).await;
    lab.target.inject([
        Fault::WriteIgnored,
        Fault::WriteRefused(error(ErrorKind::Throttled).retryable()),
    ]);
    assert!(matches!(lab.run().await, Standing::Over(End::Promoted, _)));

    let lab = canary(lab::good()).await;
    lab.target
        .inject(vec![Fault::WriteRefused(error(ErrorKind::Denied)); 100]);
    let Standing::Over(End::RolledBack, reason) = lab.run().await else {
        panic!("the target says no");
    };
    assert!(reason.contains("the test says no"), "{reason}");
}

#[tokio::test]
async fn a_target_that_cannot_be_read_holds() {
    let lab = canary(lab::good()).await;
    lab.target.inject(vec![
        Fault::ObserveFails(
            error(ErrorKind::Unavailable).retryable()
        );
        4
    ]);
    let Standing::Held(hold) = lab.run().await else {
        panic!("nothing is known");
    };
    assert!(hold.to_string().contains("could not be read"), "{hold}");
}

#[tokio::test]
async fn metrics_that_cannot_be_read_are_an_error_and_no_verdict() {
    let lab = canary(lab::good()).await;
    lab.target
        .inject(vec![Fault::MetricsFail(error(ErrorKind::Unavailable)); 3]);
    assert!(matches!(lab.run().await, Standing::Over(End::Promoted, _)));
    let mut lab = canary(lab::good()).await;
    lab.header.guardrails.on_plugin_error = OnTrouble::Pause;
    lab.target
        .inject(vec![Fault::MetricsFail(error(ErrorKind::Unavailable)); 10]);
    let Standing::Held(Hold::StrategyError { reason }) = lab.run().await else {
        panic!("it could not measure");
    };
    assert!(reason.contains("could not read the metrics"), "{reason}");
}

#[tokio::test]
async fn guardrails_hold_against_the_plugin() {
    let mut lab = Lab::new(
        guests::plugin("hostile").await,
        lab::good(),
        json!({"act": "jump"}),
    );
    lab.header.guardrails.largest_step = 50.0;
    lab.run().await;
    assert!(lab.target.verbs().is_empty());
    let journal = lab.journal().await;
    let refused = journal.iter().any(|e| {
        matches!(&e.event, Event::Exchanged { by: Actor::Strategy, call: Call::SetWeights { .. },
            reply: Reply::Failed(error) } if error.code == "largest-step")
    });
    assert!(refused);
    // "Promoted" at once is a jump too.
    let mut lab = Lab::new(
        guests::plugin("hostile").await,
        lab::good(),
        json!({"act": "promote"}),
    );
    lab.header.guardrails.largest_step = 50.0;
    let Standing::Held(hold) = lab.run().await else {
        panic!("it must hold");
    };
    assert!(hold.to_string().contains("largest-step"), "{hold}");
    assert!(lab.target.verbs().is_empty());
}

#[tokio::test]
async fn a_bake_that_a_guardrail_wants_is_waited_for() {
    let mut lab = canary(lab::good()).await;
    lab.header.guardrails.before_bake = Some(BeforeBake {
        share: 10.0,
        bake_ms: 20_000,
    });
    let standing = lab.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let journal = lab.journal().await;
    let write = |share: u32| {
        let canary = |call: &Call| matches!(call, Call::SetWeights { weights } if weights.weight("canary") == share);
        let at = journal
            .iter()
            .find(|e| matches!(&e.event, Event::Asked { call, .. } if canary(call)));
        at.expect("written").at
    };
    assert!(write(50) - write(10) >= 20_000);
}

#[tokio::test]
async fn the_deadline_ends_what_holds_without_traffic() {
    let nobody = Behaviour {
        rps: 0.0,
        ..Behaviour::default()
    };
    let mut lab = canary(nobody).await;
    lab.header.guardrails.deadline_ms = 60_000;
    let Standing::Over(End::RolledBack, reason) = lab.run().await else {
        panic!("nobody asked");
    };
    assert!(reason.contains("no verdict within 1m"), "{reason}");
    assert!(reason.contains("0 of 20 requests seen"), "{reason}");
    let mut lab = canary(nobody).await;
    lab.header.guardrails.deadline_ms = 60_000;
    lab.header.guardrails.on_deadline = OnTrouble::Pause;
    assert_eq!(lab.run().await, Standing::Held(Hold::Deadline));
    assert_eq!(lab.target.verbs().len(), 1, "the traffic stays");
}

#[tokio::test]
async fn a_guest_gets_no_second_target() {
    // One rollout per target, whoever asks.
    let lab = canary(lab::good()).await;
    lab.driver()
        .begin(lab.header.clone())
        .await
        .expect("begins");
    let mut other = lab.header.clone();
    other.rollout = "test-2".to_owned();
    let error = lab.driver().begin(other).await.expect_err("busy");
    assert!(
        error.to_string().contains("busy with rollout test-1"),
        "{error}"
    );
}

fn change_of_a_stack(lab: &mut Lab) {
    lab.header.guardrails.healthy_timeout_ms = 0;
    lab.header.work = Work::StackChange {
        stack: "shop".to_owned(),
        change: StackVerb::Deploy,
        actor: "ada".to_owned(),
        accepts: false,
    };
}

#[tokio::test]
async fn a_change_of_a_stack_writes_its_intents_first() {
    let mut lab = canary(lab::good()).await;
    change_of_a_stack(&mut lab);
    let driver = lab.driver();
    let begun = driver.begin_change(lab.header.clone(), lab.target.clone());
    let mut changing = begun.await.expect("it begins");
    lab.signal("rollback", "canary").await;
    changing.attend().await.expect("the store works");
    lab.target
        .meddle(|o| (o.arms[0].weight, o.arms[1].weight) = (50, 50));
    changing.give_back(None).await.expect("readable");
    changing
        .end(End::Done, "done".to_owned())
        .await
        .expect("ends");
    assert_eq!(
        lab.target.verbs(),
        [
            "set-weights stable=0 canary=100",
            "set-weights stable=0 canary=100"
        ]
    );
    let journal = lab.journal().await;
    let mut writes = 0;
    for (index, entry) in journal.iter().enumerate() {
        if let Event::Asked { call, .. } = &entry.event
            && call.is_write()
        {
            writes += 1;
            let Event::Answered { of, reply, .. } = &journal[index + 1].event else {
                panic!("{entry:?} has no answer");
            };
            assert_eq!((*of, reply), (entry.seq, &Reply::Done));
        }
    }
    assert_eq!(writes, 2);
}

#[tokio::test]
async fn a_change_of_a_stack_gives_no_traffic_to_a_sick_arm() {
    let mut lab = canary(lab::good()).await;
    change_of_a_stack(&mut lab);
    let driver = lab.driver();
    let begun = driver.begin_change(lab.header.clone(), lab.target.clone());
    let mut changing = begun.await.expect("it begins");
    lab.target.meddle(|o| o.arms[1].healthy = 0);
    lab.signal("rollback", "canary").await;
    let heard = changing.attend().await.expect("the store works");
    let [Heard::Refused { why, .. }] = &heard[..] else {
        panic!("{heard:?}");
    };
    assert!(why.contains("none is healthy"), "{why}");
    // A command that such a change does not know is ignored, once and for all.
    lab.signal("pause", "").await;
    assert_eq!(changing.attend().await.expect("the store works"), []);
    assert!(lab.target.verbs().is_empty());
}

/// A target on which a person gives the rollout up, at the last moment: when what other
/// routes send is read, or when the candidate is first seen to have all traffic.
struct GivenUp {
    inner: Arc<SimulatedTarget>,
    store: Arc<engine::store::memory::MemoryStore>,
    at_the_end: bool,
    once: AtomicBool,
}

impl GivenUp {
    async fn give_up(&self) {
        let promoted = self.inner.peek().weights().share("canary") >= 100.0;
        if promoted && self.once.swap(false, Ordering::SeqCst) {
            let command = engine::model::Command::Abort {
                reason: "rollback".to_owned(),
            };
            let signal = command.signal("abort-1".to_owned(), "ada");
            self.store.signal(lab::ID, &signal).await.expect("memory");
        }
    }
}

#[async_trait]
impl Target for GivenUp {
    fn identity(&self) -> &str {
        self.inner.identity()
    }
    fn sample_period_ms(&self) -> u32 {
        self.inner.sample_period_ms()
    }
    async fn observe(&self) -> Result<Observed, HostError> {
        let seen = self.inner.observe().await;
        if !self.at_the_end {
            self.give_up().await;
        }
        seen
    }
    async fn elsewhere(&self) -> Result<Vec<Elsewhere>, HostError> {
        self.give_up().await;
        Ok(vec![])
    }
    async fn set_weights(&self, weights: &Weights) -> Result<(), HostError> {
        self.inner.set_weights(weights).await
    }
    async fn set_version(&self, arm: &str, release: &Release) -> Result<(), HostError> {
        self.inner.set_version(arm, release).await
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

/// Who takes users back in the seconds before a promotion ends is obeyed, and not told that
/// it was promoted.
#[tokio::test]
async fn a_rollback_just_before_the_end_of_a_promotion_counts() {
    for promotion in [Promotion::Swap, Promotion::Copy] {
        for at_the_end in [true, false] {
            let at = format!("{promotion:?} {at_the_end}");
            let mut lab = canary(lab::good()).await;
            lab.header.promotion = promotion;
            let target = Arc::new(GivenUp {
                inner: lab.target.clone(),
                store: lab.store.clone(),
                at_the_end,
                once: AtomicBool::new(true),
            });
            let mut driver = lab.driver();
            driver.resolve = Arc::new(lab::Resolver {
                target: target.clone(),
                strategy: lab.strategy.clone(),
            });
            driver.begin(lab.header.clone()).await.expect("begins");
            let mut fleet = engine::rollout::fleet::Fleet::new(driver);
            fleet.add(lab::ID.to_owned(), lab.clock.now());
            let standing = lab::stopped(fleet.next().await).expect("it works");
            let Standing::Over(End::RolledBack, reason) = &standing else {
                panic!("{at}: {standing:?}");
            };
            assert!(reason.contains("by ada"), "{at}: {reason}");
            let live = lab.target.peek();
            assert_eq!(live.weights().share("stable"), 100.0, "{at}");
            assert_eq!(live.arms[0].release.version, "v1", "{at}");
        }
    }
}

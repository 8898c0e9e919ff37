//! Trouble between the engine and AWS: throttles, failures, resets, answers
//! that are lost after the write took effect, answers that come late. Every run
//! ends right, or stops safely; each has a seed.

use std::sync::Arc;
use std::time::Duration;

use engine::journal::status::Status;
use engine::journal::{Call, Reply};
use engine::model::{End, Hold, Outcome, Verdict, Weights};
use engine::rollout::session::Calls;
use engine::rollout::{Ran, Standing};
use engine::target::Target as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::support::aws::bottle::{self, Bottle, Wish, verb};
use crate::support::aws::emulator;
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::lab::{self, Scripted};

/// Runs of one verb, and of a whole rollout.
const VERBS: u64 = 160;
const ROLLOUTS: u64 = 60;
/// How many of a hundred calls are in trouble.
const TROUBLED: u32 = 25;

/// Trouble as the seed has it.
fn trouble(proxy: &Proxy, seed: u64) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    proxy.plot(move |_, _| {
        if rng.random_range(0..100) >= TROUBLED {
            return Trouble::None;
        }
        match rng.random_range(0..20) {
            0..5 => Trouble::Refused(400, "ThrottlingException"),
            5..9 => Trouble::Refused(500, "InternalFailure"),
            9..14 => Trouble::Reset,
            14..19 => Trouble::AnswerLost,
            // Longer than one attempt may take.
            _ => Trouble::Late(Duration::from_millis(1_700)),
        }
    });
}

/// Three steps and a verdict, without a look at metrics.
fn steps(verdict: Verdict) -> Scripted<impl Fn(Arc<dyn Calls>) -> Run + Send + Sync> {
    Scripted(move |calls: Arc<dyn Calls>| -> Run {
        Box::pin(async move {
            for canary in [10, 50, 100] {
                let weights = Weights::of([("stable", 100 - canary), ("canary", canary)]);
                let wait = Call::Wait {
                    seconds: 300,
                    signals: vec![],
                };
                for call in [Call::SetWeights { weights }, wait] {
                    match calls.perform(call).await {
                        Err(_) => return Ran::Interrupted,
                        Ok(Reply::Failed(e)) => return Ran::Returned(Err(e.to_string())),
                        Ok(_) => {}
                    }
                }
            }
            Ran::Returned(Ok(Outcome {
                verdict,
                reason: "said the test".to_owned(),
            }))
        })
    })
}

type Run = std::pin::Pin<Box<dyn Future<Output = Ran> + Send>>;

/// Runs of these seeds, so many at a time.
async fn lanes<F, R>(seeds: std::ops::Range<u64>, width: u64, run: F)
where
    F: Fn(u64) -> R + Send + Sync + Clone + 'static,
    R: Future<Output = ()> + Send,
{
    let lanes = (0..width).map(|lane| {
        let (seeds, run) = (seeds.clone(), run.clone());
        tokio::spawn(async move {
            for seed in seeds.filter(|seed| seed % width == lane) {
                run(seed).await;
            }
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.expect("no panic in a lane");
    }
}

/// One verb: done and live, or refused and as before, or held in doubt.
async fn one_verb(seed: u64) {
    let wish = Wish {
        weights: [90, 10],
        ..Wish::default()
    };
    let bottle = Bottle::new(wish, Arc::new(steps(Verdict::Promoted)), json!({})).await;
    let before = bottle.header.baseline.clone();
    let wanted = match seed % 3 {
        0 => Weights::of([("stable", 75), ("canary", 25)]),
        1 => Weights::of([("stable", 100), ("canary", 0)]),
        _ => Weights::of([("stable", 0), ("canary", 100)]),
    };
    bottle
        .driver()
        .begin(verb(&bottle, wanted.clone()))
        .await
        .expect("it begins");
    trouble(&bottle.proxy, seed);
    let standing = bottle.go_on().await.expect("the driver works");
    let live = bottle.live().await.weights();
    match &standing {
        Standing::Over(End::Done, _) => assert_eq!(live, wanted, "seed {seed}"),
        Standing::Over(End::Refused, why) => {
            let possible = live == before || why.contains("could not be read back");
            assert!(possible, "seed {seed}: {live} after {why}");
        }
        other => panic!("seed {seed}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_ends_right_or_refuses() {
    lanes(0..VERBS, 4, one_verb).await;
}

/// A whole rollout: at its end, or paused with a reason that the trouble made;
/// without the trouble a resume or an abort brings it to the end.
async fn one_rollout(seed: u64) {
    let verdict = if seed.is_multiple_of(2) {
        Verdict::Promoted
    } else {
        Verdict::RolledBack
    };
    let bottle = Bottle::new(Wish::default(), Arc::new(steps(verdict)), json!({})).await;
    let bottle = bottle.image("app:v2");
    bottle
        .driver()
        .begin(bottle.header.clone())
        .await
        .expect("it begins");
    trouble(&bottle.proxy, 10_000 + seed);
    let mut standing = bottle.go_on().await.expect("the driver works");
    let mut resumed = 0;
    while let Standing::Held(hold) = &standing {
        assert!(matches!(hold, Hold::Stuck { .. }), "seed {seed}: {hold:?}");
        resumed += 1;
        assert!(resumed < 50, "seed {seed}: {hold:?}");
        if resumed > 3 {
            bottle.proxy.calm();
        }
        signal(&bottle, "resume", resumed).await;
        standing = bottle.go_on().await.expect("the driver works");
    }
    let live = bottle.live().await;
    let weights = live.weights();
    match &standing {
        Standing::Over(End::Promoted, _) => {
            assert_eq!(verdict, Verdict::Promoted, "seed {seed}");
            assert_eq!(weights.share("stable"), 100.0, "seed {seed}");
            // By its digest, where not all of its tasks could be asked what they run.
            let status = Status::of(&bottle.journal().await).expect("it began");
            let by_digest = status.judged.map(|judged| format!("app@{judged}"));
            let runs = &live.arms[0].release.version;
            let is_new = runs == "app:v2" || Some(runs) == by_digest.as_ref();
            assert!(is_new, "seed {seed}: {runs}");
        }
        // A write that was refused for good ends the strategy, and that goes back.
        Standing::Over(End::RolledBack, _) => {
            assert_eq!(weights.share("stable"), 100.0, "seed {seed}");
            assert_eq!(live.arms[0].release.version, "app:v1", "seed {seed}");
        }
        other => panic!("seed {seed}: {other:?}"),
    }
}

async fn signal(bottle: &Bottle, name: &str, number: u32) {
    use engine::store::Schedule as _;
    let signal = engine::model::Signal {
        id: format!("{name}-{number}"),
        name: name.to_owned(),
        actor: "test".to_owned(),
        payload: String::new(),
        until: None,
    };
    bottle.store.signal(lab::ID, &signal).await.expect("sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rollout_ends_right_or_stops_safely() {
    lanes(0..ROLLOUTS, 4, one_rollout).await;
}

/// AWS is gone in the middle of a rollout: the way back waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_outlasts_an_outage() {
    let strategy = Arc::new(steps(Verdict::RolledBack));
    let bottle = Bottle::new(Wish::default(), strategy, json!({})).await;
    let mut outage = 40;
    // Once all is on the canary, nothing works for a while.
    let mut moved = 0;
    bottle.proxy.plot(move |_, name| {
        moved += u32::from(name == "ModifyListener");
        if moved >= 4 && outage > 0 {
            outage -= 1;
            return Trouble::Refused(503, "ServiceUnavailable");
        }
        Trouble::None
    });
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    assert_eq!(bottle.live().await.weights().share("stable"), 100.0);
}

/// ECS is down: that must not stand in the way of taking the traffic back.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_needs_the_load_balancer_alone() {
    let strategy = Arc::new(steps(Verdict::RolledBack));
    let mut bottle = Bottle::new(Wish::default(), strategy, json!({})).await;
    let name = emulator::unique("alarm");
    bottle::alarm(&name, "OK").await;
    bottle.header.guardrails.alarms = vec![name];
    let mut moved = 0;
    bottle.proxy.plot(move |_, name| {
        moved += u32::from(name == "ModifyListener");
        if moved >= 2 && (name.contains("Service") || name.contains("Alarm")) {
            return Trouble::Refused(400, "AccessDeniedException");
        }
        Trouble::None
    });
    let standing = bottle.run().await;
    // Nobody can watch over the deployment any more, so a person is asked.
    assert!(
        matches!(standing, Standing::Held(Hold::Stuck { .. })),
        "{standing:?}"
    );
    let traffic = bottle
        .target
        .traffic()
        .await
        .expect("the load balancer answers");
    assert!(traffic.weights.share("canary") > 0.0, "it is not back yet");
    signal(&bottle, "abort", 1).await;
    let standing = bottle.go_on().await.expect("the driver works");
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    let live = bottle.live().await;
    assert_eq!(live.weights().share("stable"), 100.0, "{standing:?}");
}

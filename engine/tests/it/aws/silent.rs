//! Reads that hang, are refused or throttled while users have to come back: the way back goes
//! without all that it does not need, and says so. A raise does not.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use engine::journal::{Call, Event, Reply};
use engine::model::{Command, End, Outcome, Verdict, Weights};
use engine::ops::Kind;
use engine::ops::traffic::{set_weights, switch};
use engine::ops::way_back::{TakenBack, rollback};
use engine::rollout::session::Calls;
use engine::rollout::{Ran, Standing};
use engine::store::Schedule as _;
use serde_json::json;

use super::routes::{listener, rule, weights};
use crate::support::app::{TestApp, on, on_aws, refused, texts};
use crate::support::aws::bottle::{Bottle, Made, Wish, alarm, direct, forward, make};
use crate::support::aws::emulator;
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::lab::{self, Scripted};

/// Longer than anybody waits.
const HANGS: Trouble = Trouble::Late(Duration::from_secs(40));
/// How long users wait for their way back at most: the health is waited for ten seconds.
const SOON: Duration = Duration::from_secs(16);

const HEALTH: &str = "DescribeTargetHealth";

fn health_is(trouble: Trouble) -> impl FnMut(usize, &str) -> Trouble + Send + 'static {
    move |_, name| match name {
        HEALTH => trouble.clone(),
        _ => Trouble::None,
    }
}

async fn half() -> Made {
    make(&Wish {
        weights: [50, 50],
        ..Wish::default()
    })
    .await
}

/// How long it takes from now until a listener has these weights.
async fn until(route: &str, wanted: [i32; 2]) -> Duration {
    let elb = direct().await.elb;
    let begun = Instant::now();
    loop {
        let read = elb.describe_listeners().listener_arns(route).send().await;
        let read = read.expect("it answers");
        let action = &read.listeners()[0].default_actions()[0];
        let groups = action.forward_config().expect("forwards").target_groups();
        let weights = groups
            .iter()
            .map(|group| group.weight().unwrap_or_default());
        if weights.eq(wanted) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "it never is");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Why a rollout goes back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Why {
    Strategy,
    Person,
    Guard,
}

/// A rollout that is to go back once half of its users are on the candidate, and nobody says
/// how the arms are by then.
async fn going_back(why: Why, trouble: Trouble) -> (Bottle, String) {
    let name = emulator::unique("alarm");
    alarm(&name, "OK").await;
    let rings = name.clone();
    let proxy: Arc<OnceLock<Proxy>> = Arc::default();
    let plots = proxy.clone();
    let strategy = Scripted(move |calls: Arc<dyn Calls>| {
        let (proxy, name, trouble) = (plots.clone(), rings.clone(), trouble.clone());
        async move {
            let weights = Weights::of([("stable", 50), ("canary", 50)]);
            let wait = Call::Wait {
                seconds: 300,
                signals: vec![],
            };
            if calls.perform(Call::SetWeights { weights }).await.is_err() {
                return Ran::Interrupted;
            }
            let proxy: &Proxy = proxy.get().expect("set");
            proxy.plot(health_is(trouble));
            match why {
                Why::Guard => alarm(&name, "ALARM").await,
                Why::Strategy => {
                    return Ran::Returned(Ok(Outcome {
                        verdict: Verdict::RolledBack,
                        reason: "as the test wants".to_owned(),
                    }));
                }
                Why::Person => {}
            }
            while calls.perform(wait.clone()).await.is_ok() {}
            Ran::Interrupted
        }
    });
    let mut bottle =
        Bottle::around(make(&Wish::default()).await, Arc::new(strategy), json!({})).await;
    assert!(proxy.set(bottle.proxy.clone()).is_ok());
    bottle.header.guardrails.alarms = vec![name];
    if why == Why::Person {
        let command = Command::Abort {
            reason: "it hurts".to_owned(),
        };
        let signal = command.signal("abort-1".to_owned(), "ada");
        let store = bottle.store.clone();
        let route = bottle.made.listener.clone();
        tokio::spawn(async move {
            until(&route, [50, 50]).await;
            store.signal(lab::ID, &signal).await.expect("sent");
        });
    }
    let route = bottle.made.listener.clone();
    (bottle, route)
}

/// Whoever wants it: users are back after ten seconds, and the end says without what.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_goes_back_although_nobody_says_how_the_arms_are() {
    let one = |why, trouble: Trouble, says: &'static str| async move {
        let (bottle, route) = going_back(why, trouble).await;
        let watched = tokio::spawn(async move {
            until(&route, [50, 50]).await;
            until(&route, [100, 0]).await
        });
        let standing = bottle.run().await;
        let Standing::Over(End::RolledBack, reason) = &standing else {
            panic!("{why:?}: {standing:?}");
        };
        let took = watched.await.expect("it is home");
        assert!(took < SOON, "{why:?}: {took:?}");
        for says in ["nobody could read whether the arm is healthy", says] {
            assert!(reason.contains(says), "{why:?}: {reason}");
        }
        let journal = bottle.journal().await;
        let written = journal.iter().any(|entry| {
            matches!(
                &entry.event,
                Event::Exchanged {
                    call: Call::GetHealth,
                    reply: Reply::Failed(_),
                    ..
                }
            )
        });
        assert!(written, "{why:?}");
        let story = lab::story(&journal, lab::ID);
        assert!(story.contains("without the health of the arms"), "{story}");
    };
    let throttled = Trouble::Refused(400, "ThrottlingException");
    let denied = Trouble::Refused(403, "AccessDenied");
    tokio::join!(
        one(Why::Strategy, HANGS, "no answer in time"),
        one(Why::Person, HANGS, "no answer in time"),
        one(Why::Guard, HANGS, "no answer in time"),
        one(Why::Person, throttled, "throttled"),
        one(
            Why::Person,
            denied,
            "elasticloadbalancing:DescribeTargetHealth"
        ),
    );
}

/// By hand it is the same, also for who sets the weights of the way back himself.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_by_hand_does_not_wait_for_health() {
    let one = |by: &'static str| async move {
        let made = half().await;
        let proxy = Proxy::start().await;
        let test = TestApp::through(&proxy.endpoint);
        let at = on_aws(on(&made));
        test.app.target(&at).await.expect("found");
        proxy.plot(health_is(HANGS));
        test.heard();
        let begun = Instant::now();
        match by {
            "rollback" => {
                let back = rollback(&test.app, &at, None).await.expect("done");
                assert!(matches!(back, TakenBack::Moved(moved) if moved.changed()));
            }
            "switch" => drop(switch(&test.app, &at, "stable").await.expect("done")),
            _ => {
                let set = set_weights(&test.app, &at, &texts(&["100", "0"])).await;
                set.expect("done");
            }
        }
        let took = begun.elapsed();
        assert!(took < SOON, "{by}: {took:?}");
        assert_eq!(weights(&made.listener), [100, 0], "{by}");
        let heard = test.heard();
        assert!(heard.contains("do not wait for that"), "{by}: {heard}");
        // Nobody is sent to an arm of which nobody knows anything.
        let raised = set_weights(&test.app, &at, &texts(&["50", "50"])).await;
        refused(raised, Kind::Busy, &[HEALTH]);
        assert_eq!(weights(&made.listener), [100, 0], "{by}");
    };
    tokio::join!(one("rollback"), one("switch"), one("set-weights"));
}

/// What is known to be ill gets nobody, however long the next look takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_stable_arm_that_is_ill_is_still_waited_for() {
    let made = half().await;
    emulator::script(
        "ecs/kill",
        json!({"cluster": made.cluster, "service": format!("{}-stable", made.name), "tasks": 2}),
    )
    .await;
    let test = TestApp::new().hurried();
    let back = rollback(&test.app, &on_aws(on(&made)), None).await;
    refused(back, Kind::RollbackFailed, &["needs stable"]);
    assert_eq!(weights(&made.listener), [50, 50]);
}

/// ECS has nothing to do with where users are.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_does_not_wait_for_ecs() {
    let made = half().await;
    let proxy = Proxy::start().await;
    let test = TestApp::through(&proxy.endpoint);
    let at = on_aws(on(&made));
    test.app.target(&at).await.expect("found");
    proxy.plot(|_, name| match name {
        "DescribeServices" | "DescribeTasks" | "ListTasks" | "DescribeTaskDefinition" => HANGS,
        _ => Trouble::None,
    });
    let route = made.listener.clone();
    let back = tokio::spawn(async move { rollback(&test.app, &at, None).await });
    let took = until(&route, [100, 0]).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    back.abort();
}

/// Rules that nobody can read keep the users of the listener nowhere, whether this folder has
/// seen the target before or not.
#[tokio::test(flavor = "multi_thread")]
async fn routes_that_do_not_answer_keep_the_others_nowhere() {
    let one = |known: bool| async move {
        let made = half().await;
        let both = || forward(&[(&made.groups[0], 50), (&made.groups[1], 50)]);
        let second = listener(&made.balancer, 443, both()).await;
        rule(&second, 3, both()).await;
        let proxy = Proxy::start().await;
        let test = TestApp::through(&proxy.endpoint);
        let at = on_aws(on(&made));
        if known {
            test.app.target(&at).await.expect("found");
        }
        proxy.plot(|_, name| match name {
            "DescribeRules" => HANGS,
            _ => Trouble::None,
        });
        let route = made.listener.clone();
        let app = test.app.clone();
        let back = tokio::spawn(async move { rollback(&app, &at, None).await });
        let took = until(&route, [100, 0]).await;
        assert!(took < Duration::from_secs(20), "{known}: {took:?}");
        if known {
            let took = until(&second, [100, 0]).await;
            assert!(took < Duration::from_secs(10), "{known}: {took:?}");
        }
        back.abort();
    };
    tokio::join!(one(true), one(false));
}

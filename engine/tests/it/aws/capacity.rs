//! The number of tasks follows the service: auto scaling and people change it while a
//! rollout is under way, and no arm may get traffic that it has no tasks for.

use std::sync::Arc;

use engine::journal::{Call, Event, Reply};
use engine::model::{End, Outcome, Promotion, Verdict, Weights};
use engine::rollout::session::Calls;
use engine::rollout::{Ran, Standing};
use serde_json::json;

use crate::support::aws::bottle::{Bottle, Made, Wish, direct};
use crate::support::lab;

/// What somebody else does to the services between two writes of the strategy.
#[derive(Clone, Copy)]
struct Scaled {
    /// After this many writes.
    after: usize,
    /// The arm, by its place.
    arm: usize,
    tasks: i32,
}

async fn scale(made: &Made, arm: usize, tasks: i32) {
    direct()
        .await
        .ecs
        .update_service()
        .cluster(&made.cluster)
        .service(format!("{}-{}", made.name, made.arms[arm]))
        .desired_count(tasks)
        .send()
        .await
        .expect("scaled");
}

/// A rollout of `app:v2` that gives the candidate these shares; who scales meanwhile.
async fn rollout(wish: Wish, shares: &[u32], scaled: &[Scaled], verdict: Verdict) -> Bottle {
    let (shares, scaled) = (shares.to_vec(), scaled.to_vec());
    let made: Arc<std::sync::Mutex<Option<Made>>> = Arc::default();
    let known = made.clone();
    let arms = wish.arms;
    let strategy = lab::Scripted(move |calls: Arc<dyn Calls>| {
        let (shares, scaled) = (shares.clone(), scaled.clone());
        let made = known.lock().expect("no panic").clone().expect("made");
        async move {
            for (done, share) in shares.iter().enumerate() {
                for one in scaled.iter().filter(|s| s.after == done) {
                    scale(&made, one.arm, one.tasks).await;
                }
                let weights = Weights::of([(arms[0], 100 - share), (arms[1], *share)]);
                match calls.perform(Call::SetWeights { weights }).await {
                    Ok(Reply::Done) => {}
                    Ok(other) => return Ran::Trapped(other.to_string()),
                    Err(_) => return Ran::Interrupted,
                }
            }
            for one in scaled.iter().filter(|s| s.after == shares.len()) {
                scale(&made, one.arm, one.tasks).await;
            }
            Ran::Returned(Ok(Outcome {
                verdict,
                reason: "as the test wants".to_owned(),
            }))
        }
    });
    let bottle = Bottle::new(wish, Arc::new(strategy), json!({})).await;
    *made.lock().expect("no panic") = Some(bottle.made.clone());
    bottle.image("app:v2")
}

/// The writes that the journal has, as people read them.
async fn writes(bottle: &Bottle) -> Vec<String> {
    let journal = bottle.journal().await;
    let asked = journal.iter().filter_map(|e| match &e.event {
        Event::Asked { call, .. } if call.is_write() => Some(call.to_string()),
        _ => None,
    });
    asked.collect()
}

async fn ends(bottle: &Bottle, end: End) {
    let standing = bottle.run().await;
    assert!(
        matches!(&standing, Standing::Over(how, _) if *how == end),
        "{standing:?}"
    );
}

async fn tasks(bottle: &Bottle) -> [u32; 2] {
    let live = bottle.live().await;
    [0, 1].map(|arm| live.arms[arm].tasks.expect("a service"))
}

fn four_and_one() -> Wish {
    Wish {
        tasks: [4, 1],
        ..Wish::default()
    }
}

/// What carries the traffic grows at half of it: the candidate gets as much before all.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_grows_meanwhile_is_followed() {
    let grows = Scaled {
        after: 1,
        arm: 0,
        tasks: 12,
    };
    let bottle = rollout(four_and_one(), &[50, 100], &[grows], Verdict::Promoted).await;
    ends(&bottle, End::Promoted).await;
    assert_eq!(
        writes(&bottle).await,
        [
            "set-version canary app:v2",
            "set-tasks canary 2",
            "set-weights stable=50 canary=50",
            "set-tasks canary 12",
            "set-weights stable=0 canary=100",
            "set-version stable app:v2",
            "set-weights stable=100 canary=0",
            "set-tasks canary 1",
        ]
    );
    assert_eq!(tasks(&bottle).await, [12, 1]);
}

/// Before the first raise the share of the new number is what counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_grew_before_the_first_raise_is_followed() {
    let grows = Scaled {
        after: 0,
        arm: 0,
        tasks: 10,
    };
    let bottle = rollout(four_and_one(), &[50], &[grows], Verdict::RolledBack).await;
    ends(&bottle, End::RolledBack).await;
    assert_eq!(
        writes(&bottle).await,
        [
            "set-version canary app:v2",
            "set-tasks canary 5",
            "set-weights stable=50 canary=50",
            "set-weights stable=100 canary=0",
            "set-tasks canary 1",
        ]
    );
    assert_eq!(
        tasks(&bottle).await,
        [10, 1],
        "nothing is taken from stable"
    );
}

/// The candidate's own auto scaling found that it needs more: so will stable.
#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_grows_says_what_stable_needs() {
    let grows = Scaled {
        after: 2,
        arm: 1,
        tasks: 7,
    };
    let bottle = rollout(four_and_one(), &[50, 100], &[grows], Verdict::Promoted).await;
    ends(&bottle, End::Promoted).await;
    let writes = writes(&bottle).await;
    assert_eq!(
        writes[writes.len() - 4..],
        [
            "set-version stable app:v2",
            "set-tasks stable 7",
            "set-weights stable=100 canary=0",
            "set-tasks canary 1",
        ]
    );
    assert_eq!(tasks(&bottle).await, [7, 1]);
}

/// Without traffic stable was scaled in; it gets all of it with the tasks for it only.
#[tokio::test(flavor = "multi_thread")]
async fn a_stable_arm_that_was_scaled_in_gets_its_tasks_first() {
    let shrinks = Scaled {
        after: 2,
        arm: 0,
        tasks: 1,
    };
    let bottle = rollout(four_and_one(), &[50, 100], &[shrinks], Verdict::Promoted).await;
    ends(&bottle, End::Promoted).await;
    let writes = writes(&bottle).await;
    assert_eq!(
        writes[writes.len() - 3..],
        [
            "set-tasks stable 4",
            "set-weights stable=100 canary=0",
            "set-tasks canary 1",
        ]
    );
    assert_eq!(tasks(&bottle).await, [4, 1]);
}

/// The way back waits for no task: users first, and then the tasks for them.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_gives_stable_its_tasks_after_the_traffic() {
    let shrinks = Scaled {
        after: 1,
        arm: 0,
        tasks: 1,
    };
    let bottle = rollout(four_and_one(), &[50], &[shrinks], Verdict::RolledBack).await;
    ends(&bottle, End::RolledBack).await;
    let writes = writes(&bottle).await;
    assert_eq!(
        writes[writes.len() - 3..],
        [
            "set-weights stable=100 canary=0",
            "set-tasks stable 4",
            "set-tasks canary 1",
        ]
    );
    assert_eq!(tasks(&bottle).await, [4, 1]);
}

/// Colours change roles: what is scaled after the switch counts too.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_ends_with_the_tasks_of_the_grown_service() {
    for after in [0, 1] {
        let wish = Wish {
            arms: ["blue", "green"],
            tasks: [3, 1],
            ..Wish::default()
        };
        let grows = Scaled {
            after,
            arm: 0,
            tasks: 9,
        };
        let mut bottle = rollout(wish, &[100], &[grows], Verdict::Promoted).await;
        bottle.header.promotion = Promotion::Swap;
        ends(&bottle, End::Promoted).await;
        assert_eq!(tasks(&bottle).await, [1, 9], "grown after {after} writes");
    }
}

/// Tasks that an arm had without any traffic are no sign that the traffic needs them.
#[tokio::test(flavor = "multi_thread")]
async fn idle_tasks_of_the_candidate_do_not_count() {
    let wish = Wish {
        tasks: [2, 6],
        ..Wish::default()
    };
    let bottle = rollout(wish, &[50, 100], &[], Verdict::Promoted).await;
    ends(&bottle, End::Promoted).await;
    assert!(
        writes(&bottle)
            .await
            .iter()
            .all(|w| !w.contains("set-tasks")),
        "{:?}",
        writes(&bottle).await
    );
    assert_eq!(tasks(&bottle).await, [2, 6]);
}

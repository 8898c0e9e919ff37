//! The number of tasks follows the service: auto scaling and people change it while a
//! rollout is under way, and no arm may get traffic that it has no tasks for.

use std::path::Path;
use std::sync::Arc;

use engine::journal::{Call, Event, Reply};
use engine::model::{End, Outcome, Promotion, Scaling, Signal, Verdict, Weights};
use engine::ops::begin::make_ready;
use engine::ops::request::TargetRequest;
use engine::rollout::session::Calls;
use engine::rollout::{Driver, Options, Ran, Standing};
use engine::store::Schedule as _;
use engine::store::sqlite::SqliteStore;
use engine::target::Target;
use serde_json::{Value, json};

use crate::support::app::{TestApp, on, on_aws};
use crate::support::aws::bottle::{Bottle, Made, REGION, Wish, direct, make};
use crate::support::aws::emulator::{aws, script};
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::aws::run;
use crate::support::binary::stderr;
use crate::support::{folder, lab};

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

async fn writes(bottle: &Bottle) -> Vec<String> {
    lab::writes(&bottle.journal().await)
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

/// Puts the services of both arms under auto scaling: their fewest and most tasks.
async fn scalable(made: &Made, limits: [[i32; 2]; 2]) {
    for (arm, [min, max]) in made.arms.iter().zip(limits) {
        let resource = format!("service/{}/{}-{arm}", made.cluster, made.name);
        let (min, max) = (min.to_string(), max.to_string());
        let arguments = [
            &["application-autoscaling", "register-scalable-target"][..],
            &["--service-namespace", "ecs", "--resource-id", &resource],
            &["--scalable-dimension", "ecs:service:DesiredCount"],
            &["--min-capacity", &min, "--max-capacity", &max],
        ]
        .concat();
        tokio::task::block_in_place(|| aws(REGION, &arguments));
    }
}

/// What the AWS CLI shows of the scalable targets, by arm.
fn shown(made: &Made) -> [Value; 2] {
    let answer = tokio::task::block_in_place(|| {
        aws(
            REGION,
            &[
                "application-autoscaling",
                "describe-scalable-targets",
                "--service-namespace",
                "ecs",
            ],
        )
    });
    let all = answer["ScalableTargets"].as_array().expect("a list");
    [0, 1].map(|arm| {
        let name = format!("service/{}/{}-{}", made.cluster, made.name, made.arms[arm]);
        let mut found = all.iter().filter(|t| t["ResourceId"] == *name);
        found.next().expect("registered").clone()
    })
}

/// A policy wants so many tasks, or operations are forbidden.
async fn policy(made: &Made, arm: usize, what: Value) {
    let mut body = what;
    body["cluster"] = json!(made.cluster);
    body["service"] = json!(format!("{}-{}", made.name, made.arms[arm]));
    script("autoscaling", body).await;
}

/// When a rollout learns of auto scaling.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Learns {
    /// Before it begins.
    First,
    /// At its first raise: it could not be read before.
    Late,
    /// At its second raise, because it was set up after the first.
    Meanwhile,
    /// After its last raise, when nothing raises any more.
    Afterwards,
}

/// A rollout under auto scaling whose policies want one task in each arm all the time.
async fn scaled_rollout(
    limits: [[i32; 2]; 2],
    verdict: Verdict,
    learns: Learns,
) -> (Bottle, [Value; 2]) {
    let made: Arc<std::sync::Mutex<Option<Made>>> = Arc::default();
    let known = made.clone();
    let strategy = lab::Scripted(move |calls: Arc<dyn Calls>| {
        let made = known.lock().expect("no panic").clone().expect("made");
        async move {
            for share in [50, 100] {
                let weights = Weights::of([("stable", 100 - share), ("canary", share)]);
                match calls.perform(Call::SetWeights { weights }).await {
                    Ok(Reply::Done) => {}
                    Ok(other) => return Ran::Trapped(other.to_string()),
                    Err(_) => return Ran::Interrupted,
                }
                if learns == Learns::Meanwhile && share == 50
                    || learns == Learns::Afterwards && share == 100
                {
                    scalable(&made, limits).await;
                }
                // A policy of the others wants nothing before somebody has looked.
                for arm in [0, 1].into_iter().filter(|_| learns != Learns::Afterwards) {
                    policy(&made, arm, json!({"tasks": 1})).await;
                }
            }
            if learns == Learns::Afterwards && verdict == Verdict::RolledBack {
                let wait = Call::Wait {
                    seconds: 600,
                    signals: vec![],
                };
                if calls.perform(wait).await.is_err() {
                    return Ran::Interrupted;
                }
            }
            Ran::Returned(Ok(Outcome {
                verdict,
                reason: "as the test wants".to_owned(),
            }))
        }
    });
    let mut bottle = Bottle::new(four_and_one(), Arc::new(strategy), json!({})).await;
    *made.lock().expect("no panic") = Some(bottle.made.clone());
    scalable(&bottle.made, limits).await;
    let before = shown(&bottle.made);
    match learns {
        Learns::First => {
            bottle.header.scaling = bottle.target.scaling().await.expect("readable");
        }
        Learns::Late => {}
        Learns::Meanwhile | Learns::Afterwards => not_scalable(&bottle.made),
    }
    bottle.header.guardrails.final_bake_ms = match learns {
        Learns::Afterwards => 600_000,
        _ => bottle.header.guardrails.final_bake_ms,
    };
    (bottle.image("app:v2"), before)
}

/// Takes the services of both arms out of auto scaling again.
fn not_scalable(made: &Made) {
    for arm in &made.arms {
        let resource = format!("service/{}/{}-{arm}", made.cluster, made.name);
        let arguments = [
            &["application-autoscaling", "deregister-scalable-target"][..],
            &["--service-namespace", "ecs", "--resource-id", &resource],
            &["--scalable-dimension", "ecs:service:DesiredCount"],
        ]
        .concat();
        tokio::task::block_in_place(|| aws(REGION, &arguments));
    }
}

/// What users need is kept also where auto scaling is met late; it is put back to what it
/// was then.
#[tokio::test(flavor = "multi_thread")]
async fn auto_scaling_that_is_met_during_a_rollout_is_held_and_put_back() {
    for learns in [Learns::Late, Learns::Meanwhile, Learns::Afterwards] {
        for end in [End::Promoted, End::RolledBack] {
            let verdict = match end {
                End::Promoted => Verdict::Promoted,
                _ => Verdict::RolledBack,
            };
            let limits = [[1, 20], [1, 5]];
            let (bottle, before) = scaled_rollout(limits, verdict, learns).await;
            ends(&bottle, end).await;
            let writes = writes(&bottle).await;
            let at = |write: &str| writes.iter().position(|w| w.starts_with(write));
            let held = at("set-scaling stable 1 to 20 tasks, scale-in suspended");
            // While users are on the candidate, and before its next raise if there is one.
            let next = match learns {
                Learns::First | Learns::Late => at("set-weights stable=50"),
                Learns::Meanwhile => at("set-weights stable=0"),
                Learns::Afterwards => at("set-weights stable=100"),
            };
            assert!(held.is_some() && held < next, "{learns:?}: {writes:?}");
            assert_eq!(tasks(&bottle).await, [4, 1], "{learns:?} {end:?}");
            let now = shown(&bottle.made);
            for (arm, was) in now.iter().zip(&before) {
                for key in ["MinCapacity", "MaxCapacity", "SuspendedState"] {
                    assert_eq!(arm[key], was[key], "{learns:?} {end:?} {key}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_scaling_takes_nothing_that_the_rollout_needs_and_is_put_back() {
    for (verdict, end) in [
        (Verdict::Promoted, End::Promoted),
        (Verdict::RolledBack, End::RolledBack),
    ] {
        let (bottle, before) = scaled_rollout([[1, 20], [1, 3]], verdict, Learns::First).await;
        ends(&bottle, end).await;
        let writes = writes(&bottle).await;
        assert_eq!(
            writes[..7],
            [
                "set-version canary app:v2",
                "set-scaling stable 1 to 20 tasks, scale-in suspended",
                "set-scaling canary 2 to 3 tasks",
                "set-tasks canary 2",
                "set-weights stable=50 canary=50",
                "set-scaling canary 4 to 4 tasks",
                "set-tasks canary 4",
            ]
        );
        // Stable has kept its tasks, so the way back needed none.
        assert!(
            writes
                .iter()
                .all(|write| !write.starts_with("set-tasks stable")),
            "{writes:?}"
        );
        assert_eq!(
            writes[writes.len() - 3..],
            [
                "set-scaling stable 1 to 20 tasks",
                "set-scaling canary 1 to 3 tasks",
                "set-tasks canary 1",
            ]
        );
        assert_eq!(tasks(&bottle).await, [4, 1]);
        assert_eq!(shown(&bottle.made), before, "all is as it was");
    }
}

/// Who serves after a swap may scale as who served before: its old limits would take
/// tasks from under the users.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_swap_auto_scaling_leaves_the_new_arm_what_the_users_need() {
    let (mut bottle, before) =
        scaled_rollout([[4, 20], [1, 2]], Verdict::Promoted, Learns::First).await;
    bottle.header.promotion = Promotion::Swap;
    ends(&bottle, End::Promoted).await;
    let [stable, canary] = shown(&bottle.made);
    assert_eq!(stable, before[0], "the arm without users is as it was");
    assert_eq!(
        (&canary["MinCapacity"], &canary["MaxCapacity"]),
        (&json!(4), &json!(20))
    );
    policy(&bottle.made, 1, json!({"tasks": 1})).await;
    assert_eq!(tasks(&bottle).await[1], 4, "the users keep their tasks");
}

/// Auto scaling of both arms, 4 to 8 and 1 to 3 tasks, as a rollout that was killed has left
/// it at half of the traffic, and a journal that cannot be read behind its first entry.
async fn held_and_unreadable(folder: &Path) -> (Made, String) {
    let made = make(&four_and_one()).await;
    scalable(&made, [[4, 8], [1, 3]]).await;
    let test = TestApp::new();
    let mut request = crate::support::app::rollout("canary", on_aws(on(&made)), &[]);
    request.image = Some("app:v2".to_owned());
    let ready = make_ready(&test.app, &request).await.expect("ready");
    assert_eq!(ready.header.scaling.len(), 2);
    let id = ready.header.rollout.clone();
    let state = folder.join("state");
    std::fs::create_dir_all(&state).expect("writable");
    let place = state.join("engine.db");
    let store = SqliteStore::open(&place).expect("made");
    let driver = Driver {
        store: Arc::new(store),
        ..test.app.driver(Options::default())
    };
    driver.begin(ready.header).await.expect("begun");
    drop(driver);
    let other = rusqlite::Connection::open(&place).expect("there");
    let damage =
        "INSERT INTO journal SELECT rollout, 1, at, epoch, '{}' FROM journal WHERE seq = 0";
    assert_eq!(other.execute(damage, []).expect("SQL"), 1);
    // Whoever drove it is dead.
    let died = "UPDATE lease SET owner = NULL, expires = 0";
    assert_eq!(other.execute(died, []).expect("SQL"), 1);
    drop(other);
    let (_, target) = test.app.target(&request.target).await.expect("there");
    let half = Weights::of([("stable", 50), ("canary", 50)]);
    target.set_weights(&half).await.expect("set");
    let all = target.scaling().await.expect("readable");
    for one in all {
        let told = match one.arm.as_str() {
            "stable" => Scaling {
                in_suspended: true,
                ..one.scaling
            },
            _ => Scaling {
                min: 2,
                ..one.scaling
            },
        };
        target.set_scaling(&one.arm, &told).await.expect("told");
    }
    (made, id)
}

fn limits(target: &Value) -> (i64, i64, bool) {
    let suspended = &target["SuspendedState"]["DynamicScalingInSuspended"];
    (
        target["MinCapacity"].as_i64().expect("a number"),
        target["MaxCapacity"].as_i64().expect("a number"),
        suspended.as_bool().unwrap_or(false),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_scaling_is_put_back_past_a_journal_that_cannot_be_read() {
    for verb in ["abort", "rollback"] {
        let folder = folder();
        let (made, id) = held_and_unreadable(folder.path()).await;
        let before = shown(&made);
        assert_eq!(limits(&before[0]), (4, 8, true), "held");
        let arguments = match verb {
            "abort" => vec!["abort", &id],
            _ => vec!["rollback", "--listener", &made.listener],
        };
        let output = tokio::task::block_in_place(|| run(folder.path(), REGION, &arguments));
        let said = stderr(&output);
        let [stable, canary] = shown(&made);
        assert_eq!(limits(&stable), (4, 8, false), "{verb}: {said}");
        assert_eq!(limits(&canary), (1, 3, false), "{verb}: {said}");
        assert!(
            said.contains("auto scaling of stable: 4 to 8 tasks"),
            "{said}"
        );
    }
}

/// Siblings: what somebody else has set meanwhile stays, with a word; and without any
/// journal nobody knows, so only the command is said.
#[tokio::test(flavor = "multi_thread")]
async fn auto_scaling_that_no_rollout_can_have_told_is_left_and_said() {
    let folder = folder();
    let (made, id) = held_and_unreadable(folder.path()).await;
    // Far above what all traffic needs.
    scalable(&made, [[6, 30], [9, 30]]).await;
    let output = tokio::task::block_in_place(|| run(folder.path(), REGION, &["abort", &id]));
    let said = stderr(&output);
    let [stable, canary] = shown(&made);
    assert_eq!(limits(&stable), (6, 30, false), "{said}");
    assert_eq!(limits(&canary), (9, 30, false), "{said}");
    let command = format!(
        "--resource-id service/{0}/{0}-canary --min-capacity 1 --max-capacity 3",
        made.name
    );
    assert!(said.contains(&command), "{said}");

    let (made, _) = held_and_unreadable(folder.path().join("other").as_path()).await;
    let empty = folder.path().join("empty");
    std::fs::create_dir_all(&empty).expect("writable");
    std::fs::write(empty.join("state"), "").expect("writable");
    let back = ["rollback", "--listener", &made.listener];
    let output = tokio::task::block_in_place(|| run(&empty, REGION, &back));
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(limits(&shown(&made)[0]), (4, 8, true));
    let command = format!(
        "--resource-id service/{0}/{0}-stable --suspended-state DynamicScalingInSuspended=false",
        made.name
    );
    assert!(said.contains("scale-in of stable is suspended"), "{said}");
    assert!(said.contains(&command), "{said}");
}

/// Siblings: a folder that knows no rollout of the target, as where another machine began it
/// or the folder is lost, and one that knows another rollout than the one that died. What was
/// suspended before the last rollout is nobody's business.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_says_what_a_rollout_of_another_folder_has_left_suspended() {
    let held = |suspended| Scaling {
        min: 4,
        max: 8,
        in_suspended: suspended,
        out_suspended: false,
        scheduled_suspended: false,
    };
    for (name, before) in [
        ("no rollout", None),
        ("another one", Some(false)),
        ("as before", Some(true)),
    ] {
        let made = make(&four_and_one()).await;
        scalable(&made, [[4, 8], [1, 3]]).await;
        let test = TestApp::new().hurried();
        let at = on_aws(on(&made));
        let (_, target) = test.app.target(&at).await.expect("there");
        if let Some(suspended) = before {
            let told = target.set_scaling("stable", &held(suspended)).await;
            told.expect("told");
            let mut request = crate::support::app::rollout("canary", at.clone(), &[]);
            request.image = Some("app:v2".to_owned());
            let id = test.begin_and_leave(&request).await;
            let ended = engine::ops::way_back::abort(&test.app, &at, Some(&id), "no").await;
            ended.expect("given up");
        }
        let told = target.set_scaling("stable", &held(true)).await;
        told.expect("told");
        let said = taken_back(&test, &at, target.as_ref()).await;
        assert_eq!(limits(&shown(&made)[0]), (4, 8, true), "{name}");
        let command = format!(
            "--resource-id service/{0}/{0}-stable --suspended-state DynamicScalingInSuspended=false",
            made.name
        );
        let says = said.contains("scale-in of stable is suspended") && said.contains(&command);
        assert_eq!(says, before != Some(true), "{name}: {said}");
    }
}

/// What is said when half of the traffic is taken back.
async fn taken_back(test: &TestApp, at: &TargetRequest, target: &dyn Target) -> String {
    let half = Weights::of([("stable", 50), ("canary", 50)]);
    target.set_weights(&half).await.expect("set");
    test.heard();
    let back = engine::ops::way_back::rollback(&test.app, at, None).await;
    back.expect("taken back");
    test.heard()
}

/// Siblings: the last rollout that the folder knows is from before there was auto scaling, of
/// both arms or of this one. That nothing was suspended then says nothing about today.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_goes_by_the_auto_scaling_of_today() {
    for known in [None, Some("canary")] {
        let made = make(&four_and_one()).await;
        let test = TestApp::new().hurried();
        let at = on_aws(on(&made));
        let other = Made {
            arms: [made.arms[1].clone(), made.arms[1].clone()],
            ..made.clone()
        };
        if known.is_some() {
            scalable(&other, [[1, 3], [1, 3]]).await;
        }
        let request = crate::support::app::rollout("canary", at.clone(), &[]);
        let id = test.begin_and_leave(&request).await;
        let (header, ..) = test.app.journal(&id).await.expect("readable");
        let scaled: Vec<&str> = header.scaling.iter().map(|one| one.arm.as_str()).collect();
        assert_eq!(scaled, known.as_slice());
        let ended = engine::ops::way_back::abort(&test.app, &at, Some(&id), "no").await;
        ended.expect("given up");
        scalable(&made, [[4, 8], [1, 3]]).await;
        let (_, target) = test.app.target(&at).await.expect("there");
        let held = Scaling {
            min: 4,
            max: 8,
            in_suspended: true,
            out_suspended: false,
            scheduled_suspended: false,
        };
        target.set_scaling("stable", &held).await.expect("told");
        let said = taken_back(&test, &at, target.as_ref()).await;
        assert!(
            said.contains("scale-in of stable is suspended"),
            "{known:?}: {said}"
        );
    }
}

/// What somebody suspended before stays so, and an arm without auto scaling needs none.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_suspended_before_stays_suspended() {
    let (mut bottle, _) = scaled_rollout([[4, 8], [4, 8]], Verdict::Promoted, Learns::First).await;
    let suspended = Scaling {
        out_suspended: true,
        scheduled_suspended: true,
        ..bottle.header.scaling[0].scaling
    };
    let set = bottle.target.set_scaling("stable", &suspended).await;
    set.expect("permitted");
    bottle.header.scaling = bottle.target.scaling().await.expect("readable");
    bottle.header.scaling.retain(|one| one.arm == "stable");
    let before = shown(&bottle.made);
    ends(&bottle, End::Promoted).await;
    assert_eq!(shown(&bottle.made), before);
    let writes = writes(&bottle).await;
    let told: Vec<&String> = writes.iter().filter(|w| w.contains("scaling")).collect();
    assert_eq!(
        told,
        [
            "set-scaling stable 4 to 8 tasks, scale-in suspended, scale-out suspended, schedules suspended",
            "set-scaling stable 4 to 8 tasks, scale-out suspended, schedules suspended",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_permission_the_rollout_goes_on_and_counts() {
    let (bottle, before) =
        scaled_rollout([[1, 20], [1, 20]], Verdict::Promoted, Learns::First).await;
    policy(&bottle.made, 0, json!({"deny": ["RegisterScalableTarget"]})).await;
    ends(&bottle, End::Promoted).await;
    // The policies took all tasks but one, and no arm got traffic without the tasks for it.
    let writes = writes(&bottle).await;
    assert_eq!(
        writes[writes.len() - 4..],
        [
            "set-weights stable=0 canary=100",
            "set-version stable app:v2",
            "set-tasks stable 4",
            "set-weights stable=100 canary=0",
        ]
    );
    assert_eq!(
        writes.iter().filter(|w| w.contains("scaling")).count(),
        2,
        "once for each arm: {writes:?}"
    );
    let journal = bottle.journal().await;
    let said = journal.iter().any(|e| {
        matches!(&e.event, Event::Answered { reply: Reply::Failed(error), .. }
            if error.message.contains("application-autoscaling:RegisterScalableTarget"))
    });
    assert!(said, "the journal names the permission");
    assert_eq!(shown(&bottle.made), before);
    policy(
        &bottle.made,
        0,
        json!({"deny": ["DescribeScalableTargets"]}),
    )
    .await;
    let error = bottle.target.scaling().await.expect_err("not permitted");
    assert_eq!(error.code, "no-permission");
}

/// The process dies after any entry: whoever goes on puts all back.
#[tokio::test(flavor = "multi_thread")]
async fn auto_scaling_is_put_back_after_a_crash_and_an_abort() {
    for crash in [
        "set-scaling stable",
        "set-scaling canary 2",
        "set-tasks canary 2",
    ] {
        for happened in [false, true] {
            let (bottle, before) =
                scaled_rollout([[1, 20], [1, 20]], Verdict::Promoted, Learns::First).await;
            let driver = bottle.driver();
            driver
                .begin(bottle.header.clone())
                .await
                .expect("it begins");
            let (twin, _) =
                scaled_rollout([[1, 20], [1, 20]], Verdict::Promoted, Learns::First).await;
            ends(&twin, End::Promoted).await;
            let journal = twin.journal().await;
            let asked = journal.iter().position(|e| {
                matches!(&e.event, Event::Asked { call, .. } if call.to_string().starts_with(crash))
            });
            let length = asked.expect("asked") + 1;
            // The journal of the twin, as far as it came, is what this one has done.
            let mut planted = journal[..length].to_vec();
            let Event::Started(header) = &mut planted[0].event else {
                panic!("it begins so");
            };
            **header = bottle.header.clone();
            for (nth, entry) in planted.iter().enumerate() {
                let Event::Asked { call, .. } = &entry.event else {
                    continue;
                };
                if nth + 1 == length && !happened {
                    continue;
                }
                match call {
                    Call::SetScaling { arm, scaling } => {
                        bottle.target.set_scaling(arm, scaling).await.expect("done");
                    }
                    Call::SetTasks { arm, tasks } => {
                        bottle.target.set_tasks(arm, *tasks).await.expect("done");
                    }
                    _ => {}
                }
            }
            bottle.store.plant(lab::ID, planted);
            let abort = Signal {
                id: "abort-1".to_owned(),
                name: "abort".to_owned(),
                actor: "ada".to_owned(),
                payload: String::new(),
                until: None,
            };
            bottle.store.signal(lab::ID, &abort).await.expect("memory");
            let standing = bottle.go_on().await.expect("the driver works");
            assert!(
                matches!(standing, Standing::Over(End::RolledBack, _)),
                "{crash}: {standing:?}"
            );
            assert_eq!(shown(&bottle.made), before, "{crash}, happened: {happened}");
            assert_eq!(tasks(&bottle).await[0], 4);
        }
    }
}

/// The traffic is home, and how many tasks there are cannot be read just then: it is read again,
/// and where that does not help the end says that the candidate keeps what it was given.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_cannot_be_read_on_the_way_back_are_not_left_silently() {
    let never = usize::MAX;
    for (case, times) in [
        ("denied", 1),
        // The SDK itself asks three times.
        ("throttled", 5),
        ("reset", never),
        ("denied", never),
    ] {
        let trouble = move || match case {
            "denied" => Trouble::Refused(403, "AccessDeniedException"),
            "throttled" => Trouble::Refused(400, "ThrottlingException"),
            _ => Trouble::Reset,
        };
        let made = make(&four_and_one()).await;
        let proxy = Proxy::start().await;
        let test = TestApp::through(&proxy.endpoint).hurried();
        let at = on_aws(on(&made));
        let mut request = crate::support::app::rollout("canary", at.clone(), &[]);
        request.image = Some("app:v2".to_owned());
        let id = test.begin_and_leave(&request).await;
        scale(&made, 1, 6).await;
        let (_, target) = test.app.target(&at).await.expect("there");
        let half = Weights::of([("stable", 50), ("canary", 50)]);
        target.set_weights(&half).await.expect("set");
        let (mut written, mut asked) = (false, 0);
        proxy.plot(move |_, name| {
            written |= name == "ModifyListener";
            match written && name == "DescribeServices" && asked < times {
                true => {
                    asked += 1;
                    trouble()
                }
                false => Trouble::None,
            }
        });
        let back = engine::ops::way_back::abort(&test.app, &at, Some(&id), "no").await;
        back.unwrap_or_else(|e| panic!("{case}: {e}"));
        proxy.calm();
        let (_, status, _) = test.app.journal(&id).await.expect("readable");
        let (end, reason) = status.end.expect("over");
        assert_eq!(end, End::RolledBack, "{case}");
        let live = target.observe().await.expect("readable");
        assert_eq!(live.weights().share("stable"), 100.0, "{case}");
        let has = live.arm("canary").and_then(|arm| arm.tasks);
        let noted = "how many tasks canary has could not be read";
        assert_eq!(reason.contains(noted), times == never, "{case}: {reason}");
        assert_eq!(
            has,
            Some(if times == never { 6 } else { 1 }),
            "{case}: {reason}"
        );
    }
}

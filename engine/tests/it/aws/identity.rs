//! Which image it is: a name that is pushed again during a rollout means another image, and
//! what was judged is what is promoted and what is taken back.

use std::sync::Arc;

use engine::journal::status::Status;
use engine::journal::{Call, Event, Reply};
use engine::model::{Command, End, Hold, Outcome, Release, Source, Verdict, Weights};

use engine::rollout::session::Calls;
use engine::rollout::{Ran, Standing};
use engine::store::Schedule as _;
use serde_json::{Value, json};

use crate::support::app::{TestApp, on, on_aws};
use crate::support::aws::bottle::{Bottle, Made, REGION, Wish, direct, make};
use crate::support::aws::emulator::{self, script};
use crate::support::lab;

/// What happens after so many raises.
#[derive(Clone, Copy)]
enum Then {
    /// The name of the new version means another image.
    Pushed,
    /// The canary gets so many tasks.
    Scaled(i32),
}

async fn happens(made: &Made, image: &str, then: Then) {
    match then {
        Then::Pushed => {
            script("ecs/push", json!({"image": image})).await;
        }
        Then::Scaled(tasks) => {
            let update = direct().await.ecs.update_service().cluster(&made.cluster);
            let update = update.service(format!("{}-canary", made.name));
            update.desired_count(tasks).send().await.expect("scaled");
        }
    }
}

/// A rollout of `NAME:v2` by copy that gives the canary 50 and 100 percent.
async fn rollout(name: &'static str, wish: Wish, then: &'static [(usize, Then)]) -> Bottle {
    let made: Arc<std::sync::Mutex<Option<Made>>> = Arc::default();
    let known = made.clone();
    let image = format!("{name}:v2");
    let pushed = image.clone();
    let strategy = lab::Scripted(move |calls: Arc<dyn Calls>| {
        let made = known.lock().expect("no panic").clone().expect("made");
        let image = pushed.clone();
        async move {
            for (done, share) in [50, 100].into_iter().enumerate() {
                for (_, then) in then.iter().filter(|(after, _)| *after == done) {
                    happens(&made, &image, *then).await;
                }
                let weights = Weights::of([("stable", 100 - share), ("canary", share)]);
                match calls.perform(Call::SetWeights { weights }).await {
                    Ok(Reply::Done) => {}
                    Ok(other) => return Ran::Trapped(other.to_string()),
                    Err(_) => return Ran::Interrupted,
                }
            }
            for (_, then) in then.iter().filter(|(after, _)| *after == 2) {
                happens(&made, &image, *then).await;
            }
            Ran::Returned(Ok(Outcome {
                verdict: Verdict::Promoted,
                reason: "as the test wants".to_owned(),
            }))
        }
    });
    let mut bottle = Bottle::new(wish, Arc::new(strategy), json!({})).await;
    *made.lock().expect("no panic") = Some(bottle.made.clone());
    // As `run` writes it down.
    let live = bottle.live().await;
    for arm in &live.arms {
        let seen = engine::target::running(bottle.target.as_ref(), arm).await;
        bottle.header.running.push(seen);
    }
    bottle.image(&image)
}

fn named(image: &'static str) -> Wish {
    Wish {
        images: [image, image],
        ..Wish::default()
    }
}

/// The digests of the images that the tasks of an arm run.
async fn digests(bottle: &Bottle, arm: &str) -> Vec<String> {
    use engine::target::Target as _;
    let images = bottle.target.digests(arm).await.expect("readable");
    images.digests
}

async fn status(bottle: &Bottle) -> Status {
    Status::of(&bottle.journal().await).expect("it began")
}

/// The image of the container in what the service of an arm runs, as the AWS CLI shows it.
fn image(made: &Made, arm: &str) -> Value {
    let service = format!("{}-{arm}", made.name);
    let describe = ["ecs", "describe-services", "--cluster", &made.cluster];
    let describe = [&describe[..], &["--services", &service]].concat();
    let service = emulator::aws(REGION, &describe)["services"][0].clone();
    let arn = service["taskDefinition"].as_str().expect("an ARN");
    let describe = ["ecs", "describe-task-definition", "--task-definition", arn];
    emulator::aws(REGION, &describe)["taskDefinition"]["containerDefinitions"][0]["image"].clone()
}

fn says(standing: &Standing, parts: &[&str]) {
    let Standing::Held(Hold::Stuck { reason }) = standing else {
        panic!("{standing:?}");
    };
    for part in parts {
        assert!(reason.contains(part), "{part:?} is not in: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_judged_is_promoted_although_its_name_was_pushed_again() {
    let bottle = rollout("late", named("late:v1"), &[(2, Then::Pushed)]).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let judged = digests(&bottle, "canary").await;
    assert_eq!(judged.len(), 1, "{judged:?}");
    assert_eq!(digests(&bottle, "stable").await, judged);
    let status = status(&bottle).await;
    assert_eq!(status.judged.as_deref(), Some(judged[0].as_str()));
    let left = status.running("stable").expect("read");
    assert_eq!(left.digests, judged);
    assert_eq!(image(&bottle.made, "stable"), format!("late@{}", judged[0]));
    // It got no traffic as the other image.
    let writes = lab::writes(&bottle.journal().await);
    let named = writes
        .iter()
        .position(|w| w == "set-version stable late:v2");
    let pinned = format!("set-version stable late@{}", judged[0]);
    let pinned = writes.iter().position(|w| *w == pinned).expect("pinned");
    let moved = &writes[named.expect("given")..pinned];
    assert!(
        !moved.iter().any(|w| w.starts_with("set-weights")),
        "{writes:?}"
    );
}

/// Sibling: tasks of the candidate that start later run another image. It is not raised.
#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_with_tasks_of_another_image_gets_no_more_traffic() {
    let then = &[(1, Then::Pushed), (1, Then::Scaled(4))];
    let bottle = rollout("scaled", named("scaled:v1"), then).await;
    let standing = bottle.run().await;
    says(
        &standing,
        &[
            "tasks of canary run sha256:",
            "is what was judged",
            "scaled:v2",
        ],
    );
    let seen = bottle.live().await;
    assert_eq!(seen.weights().share("canary"), 50.0);
    assert_eq!(digests(&bottle, "canary").await.len(), 2);
    // It goes back like every rollout that holds.
    let abort = Command::Abort {
        reason: "no".to_owned(),
    };
    let signal = abort.signal("abort-1".to_owned(), "ada");
    bottle.store.signal(lab::ID, &signal).await.expect("sent");
    let standing = bottle.go_on().await.expect("driven");
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    assert_eq!(bottle.live().await.weights().share("stable"), 100.0);
}

/// Sibling: they start between the verdict and the promotion. Only a person who insists
/// has it promoted, and then the image that was judged.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_judged_is_promoted_for_nobody_but_who_insists() {
    let then = &[(2, Then::Pushed), (2, Then::Scaled(5))];
    let bottle = rollout("verdict", named("verdict:v1"), then).await;
    let standing = bottle.run().await;
    says(
        &standing,
        &["tasks of canary run sha256:", "is not promoted"],
    );
    let judged = status(&bottle).await.judged.expect("known");
    let insist = Command::PromoteFull {
        reason: "known".to_owned(),
    };
    let signal = insist.signal("full-1".to_owned(), "ada");
    bottle.store.signal(lab::ID, &signal).await.expect("sent");
    let standing = bottle.go_on().await.expect("driven");
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    assert_eq!(digests(&bottle, "stable").await, [judged]);
}

/// Sibling: the same name again, and ECS can place neither the new image in the stable arm
/// nor the former one: nobody can go home, and that is not called a way back.
#[tokio::test(flavor = "multi_thread")]
async fn a_stable_arm_that_cannot_be_placed_again_is_a_failed_way_back() {
    script("ecs/push", json!({"image": "placed:v2"})).await;
    let mut bottle = rollout("placed", named("placed:v2"), &[]).await;
    let served = digests(&bottle, "stable").await;
    bottle.header.repeats = vec!["stable".to_owned(), "canary".to_owned()];
    let pinned = format!("placed@{}", served[0]);
    bottle.header.stable = Some(Release {
        version: pinned.clone(),
        source: Source::Image(pinned),
    });
    script("ecs/push", json!({"image": "placed:v2"})).await;
    let body = json!({
        "cluster": bottle.made.cluster,
        "service": format!("{}-stable", bottle.made.name),
        "fail": "no room",
    });
    script("ecs", body).await;
    let standing = bottle.run().await;
    let Standing::Over(End::RollbackFailed, why) = &standing else {
        panic!("{standing:?}");
    };
    assert!(why.contains("no arm runs another release"), "{why}");
    assert_eq!(bottle.live().await.weights().share("canary"), 100.0);
}

/// Sibling: where no task tells its digest, the journal says that nobody would notice.
#[tokio::test(flavor = "multi_thread")]
async fn where_no_task_tells_its_digest_that_is_said() {
    script("ecs/push", json!({"image": "mute:v2", "untold": true})).await;
    let bottle = rollout("mute", named("mute:v1"), &[]).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let journal = bottle.journal().await;
    let told = journal.iter().any(|entry| {
        matches!(&entry.event, Event::Exchanged { call: Call::Log { message, .. }, .. }
            if message.contains("would not be noticed"))
    });
    assert!(told);
    assert_eq!(status(&bottle).await.judged, None);
}

/// Sibling: a task definition that runs already starts nothing, also if its image's name
/// means another one by now, and that is said with what starts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_definition_that_runs_already_starts_nothing_and_that_is_said() {
    let made = make(&named("again:v1")).await;
    script("ecs/push", json!({"image": "again:v1"})).await;
    let test = TestApp::new();
    let mut request = crate::support::app::rollout("canary", on_aws(on(&made)), &[]);
    request.task_definition = Some(format!("{}-canary:1", made.name));
    test.begin_and_leave(&request).await;
    let heard = test.heard();
    let said = format!(
        "canary runs the task definition {}-canary:1 already, so nothing new is started there",
        made.name
    );
    assert!(heard.contains(&said), "{heard}");
    assert!(heard.contains("--image"), "{heard}");
}

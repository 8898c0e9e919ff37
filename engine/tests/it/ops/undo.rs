//! `undo`, and what `rollback` says about it: after a promotion by copy both arms run the
//! new version.

use engine::journal::Work;
use engine::model::{End, Observed, Release, Source};
use engine::ops::Kind;
use engine::ops::command::promote_fully;
use engine::ops::request::TargetRequest;
use engine::ops::traffic::{set_weights, switch};
use engine::ops::undo::{Undoing, undo};
use engine::ops::way_back::{TakenBack, abort, rollback};
use engine::rollout::Standing;
use serde_json::json;

use crate::support::app::{TestApp, on, on_aws, refused, rollout, texts};
use crate::support::aws::bottle::{Made, Wish, make};
use crate::support::aws::emulator::script;
use crate::support::lab;

fn colours() -> Wish {
    Wish {
        arms: ["blue", "green"],
        tasks: [3, 1],
        ..Wish::default()
    }
}

/// A target on which `app:v2` was promoted; the request for it, and the rollout.
async fn promoted(test: &TestApp, wish: &Wish) -> (Made, TargetRequest, String) {
    let made = make(wish).await;
    let at = on_aws(on(&made));
    let id = promote(test, &at, "app:v2").await;
    test.heard();
    (made, at, id)
}

fn version(image: &str) -> Release {
    Release {
        version: image.to_owned(),
        source: Source::Image(image.to_owned()),
    }
}

async fn promote(test: &TestApp, at: &TargetRequest, image: &str) -> String {
    // A promotion in full skips the preparation, so the candidate gets its version before.
    let (_, target) = test.app.target(at).await.expect("it is there");
    let seen = target.observe().await.expect("readable");
    let idle = seen.arms.iter().find(|arm| arm.weight == 0);
    let idle = &idle.expect("one is without traffic").name;
    target
        .set_version(idle, &version(image))
        .await
        .expect("done");
    for _ in 0..6 {
        target.observe().await.expect("readable");
    }
    let request = rollout("canary", at.clone(), &["gate=limits"]);
    let id = test.begin_and_leave(&request).await;
    promote_fully(&test.app, at, Some(&id))
        .await
        .expect("decided");
    let standing = test.drive(&id).await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    id
}

async fn writes(test: &TestApp, id: &str) -> Vec<String> {
    let (_, _, journal) = test.app.journal(id).await.expect("it is there");
    lab::writes(&journal)
}

async fn live(test: &TestApp, at: &TargetRequest) -> Observed {
    let (_, target) = test.app.target(at).await.expect("it is there");
    target.observe().await.expect("readable")
}

/// Begins to undo; the id of the rollout that does it.
async fn begun(test: &TestApp, at: &TargetRequest, id: Option<&str>) -> String {
    match undo(&test.app, at, id).await.expect("it begins") {
        Undoing::Begun(header) => header.rollout,
        other @ Undoing::Already { .. } => panic!("{other:?}"),
    }
}

/// No two verbs of a person begin at the same moment.
async fn a_second_passes(test: &TestApp) {
    let clock = &test.app.clock;
    clock.sleep_until(clock.now() + 1_000).await;
}

async fn switched(test: &TestApp, at: &TargetRequest, arm: &str) {
    a_second_passes(test).await;
    switch(&test.app, at, arm).await.expect("done");
}

/// Takes the traffic back; whether that changed anything, and what was said.
async fn back(test: &TestApp, at: &TargetRequest) -> (bool, String) {
    test.heard();
    a_second_passes(test).await;
    match rollback(&test.app, at, None).await.expect("done") {
        TakenBack::Moved(moved) => (moved.before != moved.now, test.heard()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_by_copy_is_undone() {
    let test = TestApp::new().hurried();
    let wish = Wish {
        tasks: [4, 1],
        ..Wish::default()
    };
    let (_, at, id) = promoted(&test, &wish).await;
    let (changed, said) = back(&test, &at).await;
    assert!(!changed, "{said}");
    for part in [
        "nothing was taken back",
        "both arms",
        "neither has app:v1",
        &format!("`engine undo {id}` brings app:v1 back"),
    ] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    let undoing = begun(&test, &at, None).await;
    let (header, ..) = test.app.journal(&undoing).await.expect("it is there");
    assert!(matches!(&header.work, Work::Undo { of, .. } if *of == id));
    let standing = test.drive(&undoing).await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    assert_eq!(
        writes(&test, &undoing).await,
        [
            "set-version canary app:v1",
            "set-tasks canary 4",
            "set-weights stable=0 canary=100",
            "set-version stable app:v1",
            "set-weights stable=100 canary=0",
            "set-tasks canary 1",
        ]
    );
    let seen = live(&test, &at).await;
    let old = test.app.journal(&id).await.expect("there").0.stable;
    assert!(old.expect("known").is(&seen.arms[0].release), "{seen:?}");
    assert_eq!(seen.arms[0].tasks, Some(4));

    // What was undone is not offered again, and not undone by accident.
    let (changed, said) = back(&test, &at).await;
    assert!(!changed && !said.contains("engine undo"), "{said}");
    let again = format!("`engine undo {undoing}` brings the newer version back");
    refused(
        undo(&test.app, &at, None).await,
        Kind::Usage,
        &["has undone", &again],
    );
    let already = undo(&test.app, &at, Some(&id)).await.expect("said");
    assert!(
        matches!(&already, Undoing::Already { version, .. } if version == "app:v1"),
        "{already:?}"
    );
    let forward = begun(&test, &at, Some(&undoing)).await;
    test.drive(&forward).await;
    assert_eq!(live(&test, &at).await.arms[0].release.version, "app:v2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_is_undone_by_one_shift() {
    let test = TestApp::new().hurried();
    let (_, at, id) = promoted(&test, &colours()).await;
    let undoing = begun(&test, &at, None).await;
    test.drive(&undoing).await;
    assert_eq!(
        writes(&test, &undoing).await,
        [
            "set-tasks blue 3",
            "set-weights blue=100 green=0",
            "set-tasks green 1"
        ]
    );
    // It is home, and nobody is sent back to what was undone.
    let (changed, said) = back(&test, &at).await;
    assert!(!changed, "{said}");
    assert!(
        said.contains(&format!("{undoing} has undone {id}")),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_says_where_it_goes_and_why_after_a_switch_by_hand_too() {
    let test = TestApp::new().hurried();
    let (_, at, id) = promoted(&test, &colours()).await;
    // The quick way back by hand is no reason to go forward again.
    switched(&test, &at, "blue").await;
    let (changed, said) = back(&test, &at).await;
    assert!(!changed, "{said}");
    let why = format!("it had all traffic before rollout {id} was promoted");
    assert!(said.contains(&why), "{said}");
    assert!(said.contains("engine rollback --to green"), "{said}");
    switched(&test, &at, "green").await;
    let (changed, said) = back(&test, &at).await;
    assert!(changed, "{said}");
    assert!(
        said.contains(
            "takes all traffic to blue: it had all traffic before the switch of tester at"
        ),
        "{said}"
    );
    // Without any rollout the last switch is taken back, and that is said first.
    let made = make(&colours()).await;
    let at = on_aws(on(&made));
    switched(&test, &at, "green").await;
    switched(&test, &at, "blue").await;
    let (changed, said) = back(&test, &at).await;
    assert!(changed, "{said}");
    assert!(
        said.contains("takes all traffic to green: it had all traffic before the switch"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_undone_is_refused_and_changes_nothing() {
    let test = TestApp::new().hurried();
    let made = make(&Wish::default()).await;
    let at = on_aws(on(&made));
    refused(
        undo(&test.app, &at, None).await,
        Kind::Usage,
        &[
            "no rollout in this history was promoted",
            "--task-definition",
        ],
    );
    let id = promote(&test, &at, "app:v2").await;
    let half = set_weights(&test.app, &at, &texts(&["50", "50"])).await;
    half.expect("done");
    refused(
        undo(&test.app, &at, None).await,
        Kind::Busy,
        &["both arms have traffic", "engine rollback"],
    );
    let (changed, said) = back(&test, &at).await;
    assert!(
        changed && said.contains(&format!("engine undo {id}")),
        "{said}"
    );
    // Somebody has put a third version there meanwhile.
    let (_, target) = test.app.target(&at).await.expect("there");
    let third = version("app:v3");
    target.set_version("stable", &third).await.expect("done");
    refused(
        undo(&test.app, &at, None).await,
        Kind::Busy,
        &["serves app:v3 now", &format!("engine undo {id}")],
    );
    let undoing = begun(&test, &at, Some(&id)).await;
    refused(
        undo(&test.app, &at, Some(&id)).await,
        Kind::Busy,
        &[&undoing],
    );
    abort(&test.app, &at, Some(&undoing), "no")
        .await
        .expect("done");
    let seen = live(&test, &at).await;
    assert_eq!(seen.arms[0].release.version, "app:v3");
    assert_eq!(seen.weights().share("stable"), 100.0);
    refused(
        undo(&test.app, &at, Some(&undoing)).await,
        Kind::Usage,
        &["was not promoted"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_release_that_does_not_start_gets_no_traffic() {
    let test = TestApp::new().hurried();
    let (made, at, _) = promoted(&test, &Wish::default()).await;
    let service = format!("{}-canary", made.name);
    let body = json!({"cluster": made.cluster, "service": service, "fail": "its image is gone"});
    script("ecs", body).await;
    let undoing = begun(&test, &at, None).await;
    let standing = test.drive(&undoing).await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    assert!(
        writes(&test, &undoing)
            .await
            .iter()
            .all(|write| !write.starts_with("set-weights")),
    );
    let seen = live(&test, &at).await;
    assert_eq!(seen.weights().share("stable"), 100.0);
    assert_eq!(seen.arms[0].release.version, "app:v2");
}

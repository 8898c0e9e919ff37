//! `undo`, and what `rollback` says about it: after a promotion by copy both arms run the
//! new version.

use aws_sdk_elasticloadbalancingv2::types::{Action, ProtocolEnum};
use engine::journal::Work;
use engine::model::{End, Observed, Release, Role, Source};
use engine::ops::Kind;
use engine::ops::command::promote_fully;
use engine::ops::request::{AwsRequest, TargetRequest};
use engine::ops::traffic::{set_weights, switch};
use engine::ops::undo::{Undoing, undo};
use engine::ops::way_back::{TakenBack, abort, rollback};
use engine::rollout::Standing;
use serde_json::json;

use crate::support::app::{TestApp, on, on_aws, refused, rollout, texts};
use crate::support::aws::bottle::{Made, REGION, Wish, direct, forward, make, redirect};
use crate::support::aws::emulator::{self, script};
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
    let twice = undo(&test.app, &at, None).await.expect("said");
    assert!(
        matches!(&twice, Undoing::Already { of, .. } if *of == id),
        "{twice:?}"
    );
    let said = test.heard();
    assert!(
        said.contains("has undone") && said.contains(&again),
        "{said}"
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

/// The same name means another image from now on.
async fn pushed_again(image: &str) {
    script("ecs/push", json!({"image": image})).await;
}

async fn digest(test: &TestApp, at: &TargetRequest, arm: &str) -> String {
    let (_, target) = test.app.target(at).await.expect("it is there");
    let all = target.digests(arm).await.expect("readable").digests;
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_brings_back_the_image_that_served_and_not_what_its_name_means_now() {
    let test = TestApp::new().hurried();
    let wish = Wish {
        images: ["undo-moved:v1", "undo-moved:v1"],
        ..Wish::default()
    };
    let made = make(&wish).await;
    let at = on_aws(on(&made));
    let served = digest(&test, &at, "stable").await;
    let id = promote(&test, &at, "undo-moved:v2").await;
    let (header, status, _) = test.app.journal(&id).await.expect("there");
    assert_eq!(header.digest_of(Role::Stable), Some(served.as_str()));
    let newer = digest(&test, &at, "stable").await;
    let left = status.running("stable").expect("read at the end");
    assert_eq!(left.digest(), Some(newer.as_str()));

    pushed_again("undo-moved:v1").await;
    let undoing = begun(&test, &at, None).await;
    let standing = test.drive(&undoing).await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let pinned = format!("undo-moved@{served}");
    let writes = writes(&test, &undoing).await;
    let given = format!("set-version canary {pinned}");
    let at_given = writes.iter().position(|write| *write == given);
    let first_move = writes.iter().position(|w| w.starts_with("set-weights"));
    assert!(
        at_given.expect("given") < first_move.expect("moved"),
        "{writes:?}"
    );
    for arm in ["stable", "canary"] {
        assert_eq!(digest(&test, &at, arm).await, served, "{arm}");
    }
    let seen = live(&test, &at).await;
    assert_eq!(seen.arms[0].release.version, pinned);
    let already = undo(&test.app, &at, Some(&id)).await.expect("said");
    assert!(matches!(already, Undoing::Already { .. }), "{already:?}");
}

/// Sibling: by a swap, where the former arm still has the former definition.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_arm_that_was_deployed_anew_meanwhile_gets_its_image_back() {
    let test = TestApp::new().hurried();
    let wish = Wish {
        images: ["undo-swap:v1", "undo-swap:v1"],
        ..colours()
    };
    let made = make(&wish).await;
    let at = on_aws(on(&made));
    let served = digest(&test, &at, "blue").await;
    promote(&test, &at, "undo-swap:v2").await;
    pushed_again("undo-swap:v1").await;
    let (_, target) = test.app.target(&at).await.expect("there");
    let again = version("undo-swap:v1");
    target.set_version("blue", &again).await.expect("done");
    for _ in 0..6 {
        target.observe().await.expect("readable");
    }
    assert_ne!(digest(&test, &at, "blue").await, served);
    let undoing = begun(&test, &at, None).await;
    test.drive(&undoing).await;
    assert_eq!(digest(&test, &at, "blue").await, served);
    assert_eq!(live(&test, &at).await.weights().share("blue"), 100.0);
}

/// Sibling: the image that served was deleted, so its digest cannot be started.
#[tokio::test(flavor = "multi_thread")]
async fn another_image_of_the_name_gets_no_traffic_where_the_former_one_is_gone() {
    let test = TestApp::new().hurried();
    let wish = Wish {
        images: ["undo-gone:v1", "undo-gone:v1"],
        ..Wish::default()
    };
    let made = make(&wish).await;
    let at = on_aws(on(&made));
    let served = digest(&test, &at, "stable").await;
    promote(&test, &at, "undo-gone:v2").await;
    let newer = digest(&test, &at, "stable").await;
    pushed_again("undo-gone:v1").await;
    let undoing = begun(&test, &at, None).await;
    let gone = json!({"image": format!("undo-gone@{served}"), "gone": true});
    script("ecs/push", gone).await;
    let standing = test.drive(&undoing).await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    let moved = |write: &String| write.starts_with("set-weights");
    assert!(!writes(&test, &undoing).await.iter().any(moved));
    assert_eq!(digest(&test, &at, "stable").await, newer);
}

/// Sibling: nobody knows which image it was, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_by_its_name_alone_is_said_so() {
    let test = TestApp::new().hurried();
    let untold = json!({"image": "undo-untold:v1", "untold": true});
    script("ecs/push", untold).await;
    let wish = Wish {
        images: ["undo-untold:v1", "undo-untold:v1"],
        ..Wish::default()
    };
    let made = make(&wish).await;
    let at = on_aws(on(&made));
    promote(&test, &at, "undo-untold:v2").await;
    test.heard();
    let undoing = begun(&test, &at, None).await;
    let said = test.heard();
    assert!(said.contains("does not say which digest"), "{said}");
    // It keeps what was put there, and where its own settings are is said.
    let own = format!(
        "canary keeps {0}-stable:1 when this is done, the task definition of stable, and not its own settings of {0}-canary:2",
        made.name
    );
    assert!(said.contains(&own), "{said}");
    let standing = test.drive(&undoing).await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_of_the_same_name_since_is_noticed() {
    let test = TestApp::new().hurried();
    let wish = Wish {
        images: ["undo-hand:v1", "undo-hand:v1"],
        ..Wish::default()
    };
    let made = make(&wish).await;
    let at = on_aws(on(&made));
    let id = promote(&test, &at, "undo-hand:v2").await;
    let (_, target) = test.app.target(&at).await.expect("there");
    let service = format!("{}-stable", made.name);
    let settled = || async {
        for _ in 0..6 {
            target.observe().await.expect("readable");
        }
    };
    // The same definition again, by somebody who pushed the tag again.
    pushed_again("undo-hand:v2").await;
    let again = version("undo-hand:v2");
    target.set_version("stable", &again).await.expect("done");
    settled().await;
    let anyway = format!("engine undo {id}");
    refused(
        undo(&test.app, &at, None).await,
        Kind::Busy,
        &[
            "another image of that name now (sha256:",
            "somebody has deployed since",
            &anyway,
        ],
    );
    // Another definition with the same image: a fix of its size.
    let bigger = bigger(&made, "stable");
    let update = ["ecs", "update-service", "--cluster", &made.cluster];
    let update = [
        &update[..],
        &["--service", &service, "--task-definition", &bigger],
    ]
    .concat();
    emulator::aws(REGION, &update);
    settled().await;
    refused(
        undo(&test.app, &at, None).await,
        Kind::Busy,
        &[
            "another task definition of",
            "somebody has deployed since",
            &anyway,
        ],
    );
    let undoing = begun(&test, &at, Some(&id)).await;
    // Who asks again after a crash wants it to go on.
    let go_on = format!("`engine resume {undoing}` goes on with it");
    refused(undo(&test.app, &at, Some(&id)).await, Kind::Busy, &[&go_on]);
}

/// A new revision of what an arm runs, with more CPU.
fn bigger(made: &Made, arm: &str) -> String {
    let family = format!("{}-{arm}", made.name);
    let describe = [
        "ecs",
        "describe-task-definition",
        "--task-definition",
        &family,
    ];
    let old = emulator::aws(REGION, &describe)["taskDefinition"].clone();
    let mut new = serde_json::Map::new();
    for key in [
        "family",
        "containerDefinitions",
        "networkMode",
        "requiresCompatibilities",
        "memory",
    ] {
        new.insert(key.to_owned(), old[key].clone());
    }
    new.insert("cpu".to_owned(), json!("1024"));
    let text = serde_json::Value::Object(new).to_string();
    let register = ["ecs", "register-task-definition", "--cli-input-json", &text];
    let made = emulator::aws(REGION, &register);
    let arn = made["taskDefinition"]["taskDefinitionArn"].as_str();
    arn.expect("an ARN").to_owned()
}

/// A listener on port 443; its ARN.
async fn listener(balancer: &str, action: Action) -> String {
    let create = direct().await.elb.create_listener();
    let create = create.load_balancer_arn(balancer).default_actions(action);
    let create = create.protocol(ProtocolEnum::Http).port(443);
    let made = create.send().await.expect("a listener");
    made.listeners()[0].listener_arn().expect("ARN").to_owned()
}

/// What happens to the other route of a target after its promotion.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Since {
    /// It comes only then.
    Came,
    /// It is deleted.
    Went,
    /// It redirects.
    Redirects,
    /// The route that the rollout was named by is deleted.
    OwnWent,
}

/// What is undone is undone on the routes of today: what came since has the bad version
/// too, and what went has nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_is_undone_on_the_routes_of_today() {
    for since in [Since::Came, Since::Went, Since::Redirects, Since::OwnWent] {
        let test = TestApp::new().hurried();
        let made = make(&Wish {
            tasks: [2, 1],
            ..Wish::default()
        })
        .await;
        let at = on_aws(on(&made));
        let both = || forward(&[(&made.groups[0], 100), (&made.groups[1], 0)]);
        let (mut second, mut id) = (String::new(), String::new());
        if since != Since::Came {
            second = listener(&made.balancer, both()).await;
        }
        id.push_str(&promote(&test, &at, "app:v2").await);
        let elb = direct().await.elb;
        match since {
            Since::Came => second = listener(&made.balancer, both()).await,
            Since::Went => {
                let gone = elb.delete_listener().listener_arn(&second).send().await;
                gone.expect("gone");
            }
            Since::Redirects => {
                let turned = elb.modify_listener().listener_arn(&second);
                turned
                    .default_actions(redirect())
                    .send()
                    .await
                    .expect("turned");
            }
            Since::OwnWent => {
                let gone = elb
                    .delete_listener()
                    .listener_arn(&made.listener)
                    .send()
                    .await;
                gone.expect("gone");
            }
        }
        a_second_passes(&test).await;
        let undoing = begun(&test, &at, Some(&id)).await;
        let (header, ..) = test.app.journal(&undoing).await.expect("it is there");
        let moves = match since {
            Since::Came => 2,
            _ => 1,
        };
        assert_eq!(1 + header.target.also().len(), moves, "{since:?}");
        let standing = test.drive(&undoing).await;
        assert!(
            matches!(standing, Standing::Over(End::Promoted, _)),
            "{since:?}: {standing:?}"
        );
        let own = match since {
            Since::OwnWent => &second,
            _ => &made.listener,
        };
        let named = AwsRequest {
            listener: Some(own.clone()),
            ..on(&made)
        };
        let seen = live(&test, &on_aws(named)).await;
        assert!(seen.traffic().all_on("stable"), "{since:?}: {seen:?}");
        let versions: Vec<&str> = seen
            .arms
            .iter()
            .map(|a| a.release.version.as_str())
            .collect();
        assert_eq!(versions, ["app:v1", "app:v1"], "{since:?}");
    }
}

/// A route that is deleted while the promotion is undone has nobody either.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_goes_while_a_promotion_is_undone_stops_nothing() {
    let test = TestApp::new().hurried();
    let made = make(&Wish::default()).await;
    let at = on_aws(on(&made));
    let both = forward(&[(&made.groups[0], 100), (&made.groups[1], 0)]);
    let second = listener(&made.balancer, both).await;
    promote(&test, &at, "app:v2").await;
    a_second_passes(&test).await;
    let undoing = begun(&test, &at, None).await;
    let gone = direct().await.elb.delete_listener().listener_arn(&second);
    gone.send().await.expect("gone");
    let standing = test.drive(&undoing).await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    assert_eq!(live(&test, &at).await.arms[0].release.version, "app:v1");
}

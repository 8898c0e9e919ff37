//! `set-weights` and `switch`: a small rollout each, read back.

use engine::model::{End, Weights};
use engine::ops::Kind;
use engine::ops::traffic::{set_weights, switch, switch_if_it_carries};
use engine::rollout::Standing;
use engine::store::{Page, Schedule as _};
use engine::target::Target as _;

use crate::support::app::{TestApp, local, on, on_aws, on_stack, refused, rollout, texts};
use crate::support::aws::bottle::{self, Wish};
use crate::support::aws::emulator::unique;
use crate::support::aws::stack;
use crate::support::balancer::{demo, healthy, spec, start};
use crate::support::root;

#[tokio::test(flavor = "multi_thread")]
async fn weights_go_by_order_or_by_name_and_are_written_down() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    let moved = set_weights(&test.app, &at, &texts(&["75", "25"])).await;
    let moved = moved.expect("done");
    assert_eq!(moved.before, Weights::of([("stable", 100), ("canary", 0)]));
    assert_eq!(moved.now, Weights::of([("stable", 75), ("canary", 25)]));
    assert!(matches!(moved.standing, Standing::Over(End::Done, _)));
    assert_eq!(moved.elsewhere, None, "nobody has everything");
    let moved = set_weights(&test.app, &at, &texts(&["canary=1", "stable=9"])).await;
    assert_eq!(
        moved.expect("done").now,
        Weights::of([("stable", 9), ("canary", 1)])
    );
    let moved = switch(&test.app, &at, "canary").await.expect("done");
    assert_eq!(moved.now.share("canary"), 100.0);
    let (arm, routes) = moved.elsewhere.expect("one has everything");
    assert_eq!((&*arm, routes.map(|r| r.len())), ("canary", Ok(0)));
    let history = test.store.history(&Page::newest(None, 10)).await;
    let newest: Vec<String> = history
        .expect("memory")
        .into_iter()
        .map(|row| row.rollout)
        .collect();
    assert_eq!(newest.len(), 3, "each is a rollout: {newest:?}");
    assert!(newest[0].starts_with("switch-"), "{newest:?}");
}

/// More than all of its servers cannot be had of a local arm, so nobody is told to worry.
#[tokio::test(flavor = "multi_thread")]
async fn an_arm_with_all_its_servers_is_not_called_too_small() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "stable", 1).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    for weights in [["50", "50"], ["10", "90"], ["90", "10"]] {
        let moved = set_weights(&test.app, &at, &texts(&weights)).await;
        moved.expect("done");
    }
    let said = test.heard();
    assert!(!said.contains("backend"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_make_no_sense_move_nothing() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    for (weights, says) in [
        (&["75", "26"][..], "sum to 101"),
        (&["1000", "0"], "sum to 1000"),
        (&["1", "2", "97"], "3 weights for 2 arms"),
        (&["a", "b"], "is not a weight"),
        (&["purple=1", "stable=1"], "the arms are stable, canary"),
    ] {
        let moved = set_weights(&test.app, &at, &texts(weights)).await;
        let error = refused(moved, Kind::Usage, &[says]);
        assert_eq!(error.target, None, "the target was not asked");
    }
    refused(
        switch(&test.app, &at, "purple").await,
        Kind::Usage,
        &["no arm \"purple\"; there are stable and canary"],
    );
    let live = target.observe().await.expect("reachable");
    assert_eq!(live.weights().share("stable"), 100.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_moves_the_traffic_of_a_rollout() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    let id = test.begin(&rollout("canary", at.clone(), &[])).await;
    let id = id.expect("it begins");
    let all = texts(&["0", "100"]);
    let full = || set_weights(&test.app, &at, &all);
    let error = refused(full().await, Kind::Busy, &["busy with rollout", &id]);
    assert!(!error.to_string().contains("no process"), "{error}");
    test.app.let_go(&id).await.expect("it was ours");
    refused(
        full().await,
        Kind::Busy,
        &[
            "busy with rollout",
            &id,
            "which no process drives",
            "`engine resume",
        ],
    );
    let said = test.heard();
    assert!(!said.contains("sets "), "nothing was set: {said}");
}

/// A colour that cannot carry the users does not get them by accident.
#[tokio::test(flavor = "multi_thread")]
async fn a_colour_with_too_few_tasks_gets_the_traffic_only_if_that_is_accepted() {
    let region = "eu-west-1";
    let name = unique("small");
    let template = root().join("examples/cloudformation/blue-green.yaml");
    let parameters = [
        "ImageURIBlue=app:v1",
        "ImageURIGreen=app:v1",
        "DesiredCountBlue=3",
        "DesiredCountGreen=1",
    ];
    stack(region, &name, &template, &parameters);
    let test = TestApp::new();
    let at = on_aws(on_stack(region, &name));
    let says = &[
        "green has 1 healthy backend, and its share needs 3",
        "no traffic was moved",
        "`engine rollback --to green` goes there all the same",
        "`engine run` adds tasks first",
        "--accept",
    ];
    let careful = |arm: &'static str| switch_if_it_carries(&test.app, &at, arm);
    refused(careful("green").await, Kind::Busy, says);
    let moved = switch(&test.app, &at, "green").await.expect("accepted");
    assert_eq!(moved.before.share("blue"), 100.0, "nothing had moved");
    assert_eq!(moved.now.share("green"), 100.0);
    // Back to the one that has the tasks nothing stands in the way.
    let back = careful("blue").await.expect("done");
    assert_eq!(back.now.share("blue"), 100.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arm_without_a_healthy_target_gets_no_traffic() {
    let region = "eu-west-1";
    let name = unique("sick");
    let template = root().join("examples/cloudformation/blue-green.yaml");
    let parameters = [
        "ImageURIBlue=app:v1",
        "ImageURIGreen=app:v1",
        "DesiredCountGreen=0",
    ];
    stack(region, &name, &template, &parameters);
    let test = TestApp::new();
    let at = on_aws(on_stack(region, &name));
    refused(
        switch(&test.app, &at, "green").await,
        Kind::Busy,
        &["green has 0 backends"],
    );
    let moved = switch(&test.app, &at, "blue").await.expect("done");
    assert_eq!(moved.before.share("blue"), 100.0, "nothing had moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn stickiness_is_kept_and_told() {
    let wish = Wish {
        sticky: true,
        ..Wish::default()
    };
    let made = bottle::make(&wish).await;
    let test = TestApp::new();
    let at = on_aws(on(&made));
    let moved = set_weights(&test.app, &at, &texts(&["90", "10"])).await;
    assert!(moved.expect("done").sticky);
    let (_, target) = test.app.target(&at).await.expect("found");
    assert!(target.observe().await.expect("reachable").sticky);
}

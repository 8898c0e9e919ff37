//! `deploy` and `delete`: what a stack may do to the traffic.

use engine::ops::Kind;
use engine::ops::deploy::{DeployRequest, Deployment, Template, doomed};
use engine::ops::request::TargetRequest;

use crate::support::app::{refused, rollout};
use crate::support::shop::{IMAGES, Shop};

/// A region of these tests alone.
const REGION: &str = "sa-east-1";

#[tokio::test(flavor = "multi_thread")]
async fn a_change_elsewhere_keeps_the_weights() {
    let shop = Shop::open(REGION).await;
    shop.set(["70", "30"]).await;
    // What the stack believes of shares stays as it is: what it is told it writes, and
    // somebody may take users back before it does.
    let same = shop.deploy(shop.request(&[])).await.expect("as it is");
    assert_eq!(same.result, Deployment::NoChanges);
    assert_eq!(same.weights.expect("a target").share("canary"), 30.0);
    assert_eq!(shop.share().await, 30.0);
    assert_eq!(shop.parameter("StableWeight"), "95");
    // A change elsewhere keeps the weights.
    let changed = shop.deploy(shop.request(&["TaskCpu=512"])).await;
    assert_eq!(changed.expect("changed").result, Deployment::Done);
    assert_eq!(shop.share().await, 30.0);
    assert_eq!(shop.parameter("TaskCpu"), "512");
    assert_eq!(shop.parameter("TaskMemory"), "512", "kept its value");
    // At home it is brought up to date, no more.
    shop.set(["100", "0"]).await;
    let told = shop.deploy(shop.request(&[])).await.expect("told");
    assert_eq!(told.result, Deployment::Done);
    assert_eq!(shop.share().await, 0.0);
    assert_eq!(shop.parameter("StableWeight"), "100");
    let again = shop.deploy(shop.request(&[])).await.expect("as it is");
    assert_eq!(again.result, Deployment::NoChanges);
    assert_eq!(again.changes, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn live_traffic_moves_only_if_that_is_accepted() {
    let shop = Shop::open(REGION).await;
    shop.set(["70", "30"]).await;
    let half = || shop.request(&["CanaryWeight=50", "StableWeight=50"]);
    refused(
        shop.deploy(half()).await,
        Kind::Busy,
        &["would move live traffic", "--accept-weights"],
    );
    assert_eq!(shop.share().await, 30.0);
    let accepted = DeployRequest {
        accept_weights: true,
        ..half()
    };
    shop.deploy(accepted).await.expect("accepted");
    assert_eq!(shop.share().await, 50.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let shop = Shop::open(REGION).await;
    let dry = DeployRequest {
        dry_run: true,
        ..shop.request(&["TaskMemory=1024"])
    };
    let seen = shop.deploy(dry.clone()).await.expect("looked at");
    assert_eq!(seen.result, Deployment::DryRun);
    assert!(!seen.changes.is_empty());
    let again = shop.deploy(dry).await.expect("looked at");
    assert_eq!(again.changes, seen.changes, "it was not done");
    assert_eq!(shop.parameter("TaskMemory"), "512");
}

/// A stack is not made another kind of by accident, whoever named it: the arms of the former
/// would go.
#[tokio::test(flavor = "multi_thread")]
async fn a_stack_of_another_kind_is_left_alone_whoever_named_it() {
    let shop = Shop::open(REGION).await;
    let name = shop.name();
    let text = format!(
        "[target]\nkind = \"aws\"\n[target.aws]\nstack = \"{name}\"\nregion = \"{REGION}\"\n[strategy]\nplugin = \"canary\"\n"
    );
    let file = shop.test.write("of-a-canary.toml", &text);
    let by_file = TargetRequest {
        file: Some(file.clone()),
        ..TargetRequest::default()
    };
    let colours = |target: &TargetRequest| DeployRequest {
        target: target.clone(),
        kind: Template::BlueGreen,
        ..shop.request(&["ImageURIBlue=app:v1", "ImageURIGreen=app:v1"])
    };
    let is = "is a canary stack (arms stable and canary)".to_owned();
    let by = format!("{name}, which {} names,", file.display());
    let other = "--stack ecs-blue-green-demo-stack";
    let says = [is.as_str(), by.as_str(), other, "--accept-replacement"];
    refused(shop.deploy(colours(&by_file)).await, Kind::Usage, &says);
    let says = [is.as_str(), name, other];
    refused(shop.deploy(colours(&shop.target)).await, Kind::Usage, &says);
    // Its own kind goes on working by the same file.
    let same = DeployRequest {
        target: by_file,
        ..shop.request(&[])
    };
    let same = shop.deploy(same).await.expect("as it is");
    assert_eq!(same.name, name);
    assert_eq!(shop.parameter("StableWeight"), "95", "nothing was changed");
    // The other way round.
    let blue = Shop::new(REGION);
    blue.deploy(colours(&blue.target)).await.expect("made");
    let says = [
        "is a blue/green stack (arms blue and green)",
        "--stack ecs-canary-demo-stack",
    ];
    refused(blue.deploy(blue.request(&IMAGES)).await, Kind::Usage, &says);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_goes_unless_a_rollout_has_its_target() {
    let shop = Shop::open(REGION).await;
    let id = shop
        .test
        .begin(&rollout("canary", shop.target.clone(), &[]))
        .await
        .expect("it begins");
    refused(shop.delete().await, Kind::Busy, &["busy with rollout", &id]);
    refused(
        shop.deploy(shop.request(&["TaskCpu=512"])).await,
        Kind::Busy,
        &["busy with rollout", &id],
    );
    let back = engine::ops::way_back::abort(&shop.test.app, &shop.target, Some(&id), "").await;
    back.expect("it obeys");
    shop.delete().await.expect("deleted");
    refused(
        doomed(&shop.test.app, &shop.target).await,
        Kind::Usage,
        &["there is no stack"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_says_its_first_reason_and_what_clears_it_away() {
    let shop = Shop::new(REGION);
    let broken = ["ImageURIStable=app:v1", "ImageURICanary=app:broken"];
    refused(
        shop.deploy(shop.request(&broken)).await,
        Kind::Internal,
        &["ROLLBACK_COMPLETE", "CanaryService", "Circuit Breaker"],
    );
    refused(
        shop.deploy(shop.request(&IMAGES)).await,
        Kind::Busy,
        &["engine delete"],
    );
    shop.delete().await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_input_is_said() {
    let shop = Shop::new(REGION);
    let bad = shop.test.write("bad.toml", "TaskCpu = [1]\n");
    let big = shop.test.write("big.yml", "#".repeat(60_000));
    let with = |change: &dyn Fn(&mut DeployRequest)| {
        let mut request = shop.request(&[]);
        change(&mut request);
        request
    };
    for (request, says) in [
        (shop.request(&["Colour=red"]), "has no parameter Colour"),
        (shop.request(&["TaskCpu"]), "is not NAME=VALUE"),
        (
            with(&|r| r.file_of_parameters = Some(bad.clone())),
            "TaskCpu is [1]",
        ),
        (
            with(&|r| r.template = Some(shop.test.at("none.yml"))),
            "failed to read the template",
        ),
        (with(&|r| r.template = Some(big.clone())), "60000 bytes"),
        (
            shop.request(&[]),
            "the template needs ImageURICanary, ImageURIStable",
        ),
    ] {
        refused(shop.deploy(request).await, Kind::Usage, &[says]);
    }
    refused(
        doomed(&shop.test.app, &TargetRequest::default()).await,
        Kind::Usage,
        &["no stack is named"],
    );
}

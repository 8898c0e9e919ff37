//! Which rollout and which target are meant.

use engine::model::target::TargetSpec;
use engine::ops::Kind;
use engine::ops::history::get;
use engine::ops::request::{AwsRequest, TargetRequest};
use engine::rollout::{Options, Ran};
use serde_json::json;

use crate::support::app::{TestApp, code_of, local, on_aws, on_stack, refused};
use crate::support::balancer::{demo, spec, start};
use crate::support::lab::{Lab, Scripted, good};

/// A rollout of that id begins on a target of that name.
async fn begin(test: &TestApp, id: &str, target: &str) {
    let never = Scripted(|_| async { Ran::Interrupted });
    let mut header = Lab::new(std::sync::Arc::new(never), good(), json!({})).header;
    header.rollout = id.to_owned();
    header.identity = target.to_owned();
    let driver = test.app.driver(Options::default());
    driver.begin(header).await.expect("it begins");
}

#[tokio::test]
async fn a_rollout_is_named_or_the_only_one() {
    let test = TestApp::surrounded(<_>::default());
    let anywhere = TargetRequest::default();
    refused(
        test.app.meant(&anywhere, None).await,
        Kind::Usage,
        &["no rollout is under way"],
    );
    begin(&test, "first", "a").await;
    let (header, status) = test.app.meant(&anywhere, None).await.expect("one");
    assert_eq!((&*header.rollout, &*status.rollout), ("first", "first"));
    begin(&test, "second", "b").await;
    refused(
        test.app.meant(&anywhere, None).await,
        Kind::Usage,
        &["several rollouts", "first on a", "second on b"],
    );
    let (header, _) = test.app.meant(&anywhere, Some("second")).await.expect("it");
    assert_eq!(header.rollout, "second");
    refused(
        test.app.meant(&anywhere, Some("nobody")).await,
        Kind::Usage,
        &["no rollout \"nobody\""],
    );
}

#[tokio::test]
async fn a_target_that_is_named_has_its_own_rollout() {
    let test = TestApp::surrounded(<_>::default());
    let at = |port: u16| local(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let identity = at(7001).identity(&test.app).await.expect("an address");
    begin(&test, "first", &identity.expect("named")).await;
    begin(&test, "second", "b").await;
    let (header, _) = test.app.meant(&at(7001), None).await.expect("on it");
    assert_eq!(header.rollout, "first");
    refused(
        test.app.meant(&at(7002), None).await,
        Kind::Usage,
        &["no rollout is under way on"],
    );
    let (newest, _) = get(&test.app, &at(7001), None).await.expect("one");
    assert_eq!(newest.rollout, "first");
    let newest = get(&test.app, &at(7002), None).await;
    refused(newest, Kind::Usage, &["there are no rollouts on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_is_the_one_that_is_named() {
    let (balancer, _) = start(&spec([demo(), demo()])).await;
    let test = TestApp::surrounded(<_>::default());
    let (spec, target) = test.app.target(&local(balancer.admin)).await.expect("it");
    assert!(matches!(spec, TargetSpec::Local { admin } if admin == balancer.admin));
    assert_eq!(target.observe().await.expect("reachable").arms.len(), 2);
    let nobody = local("127.0.0.1:1".parse().expect("an address"));
    let error = refused(
        test.app.target(&nobody).await.map(|_| ()),
        Kind::Unreachable,
        &["start one with `engine local`"],
    );
    assert_eq!(code_of(&error), Some("admin-unreachable"));
}

#[tokio::test]
async fn flags_that_name_no_target_are_told() {
    let some = |text: &str| Some(text.to_owned());
    let one = |text: &str| vec![text.to_owned()];
    let named = AwsRequest {
        stack: some("x"),
        ..AwsRequest::default()
    };
    for (aws, says) in [
        (
            AwsRequest {
                rule: some("foo"),
                ..AwsRequest::default()
            },
            "--rule foo is not the ARN of a listener-rule",
        ),
        (
            AwsRequest {
                cluster: some("prod"),
                ..AwsRequest::default()
            },
            "--stack, --listener or --rule",
        ),
        (
            AwsRequest {
                services: one("canary"),
                ..named.clone()
            },
            "is not ARM=CLUSTER/SERVICE",
        ),
        (
            AwsRequest {
                arms: one("canary"),
                ..named.clone()
            },
            "is not ARM=TARGET-GROUP",
        ),
        (
            AwsRequest {
                test_listeners: one("8080"),
                ..named
            },
            "--test-listener 8080 is not the ARN",
        ),
    ] {
        refused(on_aws(aws).named(), Kind::Usage, &[says]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_on_aws_is_not_found() {
    let test = TestApp::new();
    let region = "eu-west-1";
    let stack = on_stack(region, "nothing-here");
    refused(
        test.app.target(&on_aws(stack.clone())).await.map(|_| ()),
        Kind::NotFound,
        &["there is no stack nothing-here in eu-west-1"],
    );
    refused(
        test.app.meant(&on_aws(stack), None).await,
        Kind::NotFound,
        &["there is no stack nothing-here"],
    );
    let arn = "arn:aws:elasticloadbalancing:eu-west-1:1:listener/app/a/b/c";
    let listener = AwsRequest {
        listener: Some(arn.to_owned()),
        region: Some(region.to_owned()),
        ..AwsRequest::default()
    };
    let error = test.app.target(&on_aws(listener)).await.map(|_| ());
    let error = refused(error, Kind::NotFound, &["ListenerNotFound"]);
    assert!(error.target.is_some_and(|target| !target.retryable));
}

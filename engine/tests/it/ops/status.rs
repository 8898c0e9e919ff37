//! `status`: the target, what moves it, and what is known when it does not answer.

use engine::clock::{Clock as _, SystemClock};
use engine::model::End;
use engine::ops::Kind;
use engine::ops::command::promote_fully;
use engine::ops::request::TargetRequest;
use engine::ops::status::{overview, subject};
use engine::ops::traffic::switch;

use crate::support::app::{TestApp, local, on, on_aws, refused, rollout};
use crate::support::aws::bottle::{Wish, direct, make};
use crate::support::balancer::{demo, healthy, named, spec, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_seen_with_and_without_a_rollout() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    let seen = overview(&test.app, &at, None).await.expect("seen");
    assert!(seen.rollout.is_none());
    let live = seen.live.expect("it answers");
    assert_eq!(live.seen.observed.weights().share("stable"), 100.0);
    assert_eq!(live.fit, Ok(()));
    assert_eq!(live.elsewhere, Ok(vec![]));

    let id = test.begin(&rollout("canary", at.clone(), &[])).await;
    let id = id.expect("it begins");
    let found = subject(&test.app, &at, None).await;
    assert_eq!(found, Ok(Some(id.clone())));
    let seen = overview(&test.app, &at, None).await.expect("seen");
    let known = seen.rollout.expect("it has begun");
    assert_eq!(known.header.rollout, id);
    assert!(known.driven.is_some(), "it has not ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_change_by_hand_is_no_rollout_of_a_strategy() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    switch(&test.app, &at, "canary").await.expect("done");
    let seen = overview(&test.app, &at, None).await.expect("seen");
    assert!(seen.rollout.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_answer_is_told_or_what_was_last_known() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    let id = test.begin(&rollout("canary", at.clone(), &[])).await;
    let id = id.expect("it begins");
    balancer.stop().await;
    // What a journal knows is better than an error alone, and the error is told all the same.
    let seen = overview(&test.app, &at, None).await;
    let seen = seen.expect("its journal is here");
    assert!(seen.live.is_none() && !seen.has_ended_with_its_process());
    let silent = seen.silent.expect("it does not answer");
    refused::<()>(Err(silent), Kind::Unreachable, &["`engine local`"]);
    assert_eq!(seen.rollout.expect("known").header.rollout, id);
    refused(
        overview(&TestApp::new().app, &at, None).await,
        Kind::Unreachable,
        &["`engine local`"],
    );
    let seen = overview(&test.app, &TargetRequest::default(), Some(&id)).await;
    let seen = seen.expect("its journal is here");
    assert!(seen.live.is_none() && seen.silent.is_some());
    assert_eq!(seen.rollout.expect("known").header.rollout, id);
}

/// A promotion after which somebody took the traffic away is not how things are.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_was_taken_back_is_undone() {
    let (balancer, target) = start(&named(spec([demo(), demo()]), ["blue", "green"])).await;
    healthy(&target, "green", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    let id = test.begin(&rollout("canary", at.clone(), &[])).await;
    let id = id.expect("it begins");
    let promoted = promote_fully(&test.app, &at, Some(&id)).await;
    let (end, _) = promoted.expect("done").1.end.expect("it is over");
    assert_eq!(end, End::Promoted);
    let seen = overview(&test.app, &at, None).await.expect("seen");
    assert!(!seen.has_moved_on() && !seen.is_undone(), "{seen:?}");
    switch(&test.app, &at, "blue").await.expect("done");
    let seen = overview(&test.app, &at, None).await.expect("seen");
    assert!(seen.has_moved_on() && seen.is_undone(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_moves_by_itself_can_be_looked_at() {
    use aws_sdk_ecs::types::{DeploymentConfiguration, DeploymentStrategy};
    let made = make(&Wish::default()).await;
    let config = DeploymentConfiguration::builder().strategy(DeploymentStrategy::Linear);
    let update = direct().await.ecs.update_service().cluster(&made.cluster);
    let update = update.service(format!("{}-canary", made.name));
    let update = update.deployment_configuration(config.build());
    update.send().await.expect("it takes any strategy");
    let test = TestApp::new();
    let seen = overview(&test.app, &on_aws(on(&made)), None).await;
    let live = seen.expect("seen").live.expect("it answers");
    let error = live.fit.expect_err("two at the wheel");
    assert_eq!(error.code, "shifts-by-itself");
}

/// What could not be read of a target that has gone is nobody's business any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_deleted_is_told_in_one_sentence() {
    let made = make(&Wish::default()).await;
    let test = TestApp::new();
    let at = on_aws(on(&made));
    overview(&test.app, &at, None).await.expect("it is there");
    test.heard();
    let aws = direct().await;
    let listener = aws.elb.delete_listener().listener_arn(&made.listener);
    listener.send().await.expect("gone");
    for group in &made.groups {
        let group = aws.elb.delete_target_group().target_group_arn(group);
        group.send().await.expect("gone");
    }
    refused(
        overview(&test.app, &at, None).await,
        Kind::NotFound,
        &[&made.listener],
    );
    let said = test.heard();
    assert!(!said.contains("could not be read"), "{said}");
}

/// CloudWatch keeps what an earlier version did under the same target group.
#[tokio::test(flavor = "multi_thread")]
async fn an_arm_on_aws_says_since_when_it_has_its_version() {
    let begun = SystemClock.now();
    let made = make(&Wish::default()).await;
    let test = TestApp::new();
    let at = on_aws(on(&made));
    let seen = overview(&test.app, &at, None).await.expect("it is there");
    let seen = seen.live.expect("it answers").seen;
    for arm in &seen.observed.arms {
        let since = arm.since.expect("ECS says when it was deployed");
        // ECS has whole milliseconds at best.
        let made = begun.saturating_sub(1_000)..SystemClock.now() + 1_000;
        assert!(made.contains(&since), "{since} is not in {made:?}");
    }
}

//! `rollback` and `abort`: all traffic back, by whichever way there is.

use engine::model::{End, Weights};
use engine::ops::Kind;
use engine::ops::request::TargetRequest;
use engine::ops::traffic::{set_weights, switch};
use engine::ops::way_back::{TakenBack, abort, rollback};

use crate::support::app::{TestApp, code_of, local, on, on_aws, refused, rollout, texts};
use crate::support::aws::bottle::{Wish, make};
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::balancer::{demo, healthy, named, spec, start};

#[tokio::test(flavor = "multi_thread")]
async fn all_traffic_goes_to_the_stable_arm_or_to_the_one_that_is_named() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    let half = set_weights(&test.app, &at, &texts(&["50", "50"])).await;
    half.expect("done");
    let back = rollback(&test.app, &at, None).await.expect("done");
    let TakenBack::Moved(moved) = back else {
        panic!("{back:?}");
    };
    assert_eq!(moved.before, Weights::of([("stable", 50), ("canary", 50)]));
    assert_eq!(moved.now.share("stable"), 100.0);
    let back = rollback(&test.app, &at, Some("canary")).await;
    let TakenBack::Moved(moved) = back.expect("done") else {
        panic!("nothing else had the target");
    };
    assert_eq!(moved.now.share("canary"), 100.0);
    refused(
        rollback(&test.app, &at, Some("red")).await,
        Kind::Usage,
        &["no arm \"red\"; there are stable and canary"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_known_from_their_history_or_asked_for() {
    let colours = named(spec([demo(), demo()]), ["blue", "green"]);
    let (balancer, target) = start(&colours).await;
    healthy(&target, "green", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    refused(
        rollback(&test.app, &at, None).await,
        Kind::Usage,
        &["no earlier rollout says", "engine rollback --to blue"],
    );
    switch(&test.app, &at, "green").await.expect("done");
    // And a second time it stays there.
    for _ in 0..2 {
        let back = rollback(&test.app, &at, None).await.expect("done");
        let TakenBack::Moved(moved) = back else {
            panic!("{back:?}");
        };
        assert_eq!(moved.now.share("blue"), 100.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_aborted_by_both() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    let anywhere = TargetRequest::default();
    refused(
        abort(&test.app, &anywhere, None, "").await,
        Kind::Usage,
        &["no rollout is under way"],
    );
    for by_abort in [true, false] {
        let id = test
            .begin_and_leave(&rollout("canary", at.clone(), &[]))
            .await;
        refused(
            rollback(&test.app, &at, Some("canary")).await,
            Kind::Usage,
            &[&id, "its stable arm is stable"],
        );
        let back = match by_abort {
            true => abort(&test.app, &anywhere, None, "smells bad").await,
            false => rollback(&test.app, &at, None).await,
        };
        let TakenBack::Aborted(aborted) = back.expect("done") else {
            panic!("the rollout had the target");
        };
        let (header, status) = *aborted;
        assert_eq!(header.rollout, id);
        let (end, reason) = status.end.expect("it is over");
        assert_eq!(end, End::RolledBack);
        let why = if by_abort { "smells bad" } else { "rollback" };
        assert!(reason.contains(why), "{reason}");
        refused(
            abort(&test.app, &anywhere, Some(&id), "").await,
            Kind::Usage,
            &[&id, "has ended"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_does_not_answer_is_told_at_once() {
    let test = TestApp::surrounded(<_>::default());
    let nobody = local("127.0.0.1:1".parse().expect("an address"));
    let error = refused(
        rollback(&test.app, &nobody, None).await,
        Kind::Unreachable,
        &["start one with `engine local`"],
    );
    assert_eq!(code_of(&error), Some("admin-unreachable"));
}

/// Throttled at everything, it waits and says so, and does its work in the end; not
/// permitted, it says that nothing was taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_rollback_waits_and_a_forbidden_one_has_failed() {
    let made = make(&Wish {
        weights: [50, 50],
        ..Wish::default()
    })
    .await;
    let proxy = Proxy::start().await;
    let mut throttled = 10;
    proxy.plot(move |_, _| {
        if throttled > 0 {
            throttled -= 1;
            return Trouble::Refused(400, "ThrottlingException");
        }
        Trouble::None
    });
    let test = TestApp::through(&proxy.endpoint).hurried();
    let mut at = on(&made);
    at.cluster = None;
    let back = rollback(&test.app, &on_aws(at.clone()), None).await;
    let TakenBack::Moved(moved) = back.expect("done") else {
        panic!("nothing else had the target");
    };
    assert_eq!(moved.now.share("stable"), 100.0);
    assert!(test.heard().contains("tries again in"));

    proxy.plot(|_, _| Trouble::Refused(403, "AccessDenied"));
    refused(
        rollback(&test.app, &on_aws(at), None).await,
        Kind::RollbackFailed,
        &["nothing was taken back", "could not be read"],
    );
}

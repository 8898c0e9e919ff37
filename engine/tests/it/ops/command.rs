//! `resume`, `pause`, `promote`, `approve`: what a rollout is told, and what is told
//! to who asks for what makes no sense.

use engine::journal::{Entry, Event};
use engine::model::{Decider, End, Goal, Hold};
use engine::ops::Kind;
use engine::ops::command::{WentOn, approve, pause, promote, promote_fully, resume};
use engine::ops::request::TargetRequest;
use engine::rollout::Standing;
use engine::target::local::balancer::Balancer;

use crate::support::app::{TestApp, local, refused, rollout};
use crate::support::balancer::{demo, healthy, spec, start};

/// A canary that nobody drives.
async fn left(set: &[&str]) -> (TestApp, Balancer, String) {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let request = rollout("canary", local(balancer.admin), set);
    let id = test.begin_and_leave(&request).await;
    (test, balancer, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_told_where_nothing_runs() {
    let test = TestApp::surrounded(<_>::default());
    let any = TargetRequest::default();
    let says = &["no rollout is under way"];
    let app = &test.app;
    refused(resume(app, &any, None, false).await, Kind::Usage, says);
    refused(pause(app, &any, None).await, Kind::Usage, says);
    refused(promote(app, &any, None).await, Kind::Usage, says);
    refused(promote_fully(app, &any, None).await, Kind::Usage, says);
    refused(approve(app, &any, None, "").await, Kind::Usage, says);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_and_resume_hands_the_rollout_on() {
    let (test, _balancer, id) = left(&["bake=1h"]).await;
    let any = TargetRequest::default();
    refused(
        resume(&test.app, &any, None, true).await,
        Kind::Usage,
        &[&id, "is not paused"],
    );
    let (header, status) = pause(&test.app, &any, None).await.expect("it obeys");
    assert_eq!(header.rollout, id);
    assert!(
        matches!(status.hold, Some(Hold::Asked { .. })),
        "{status:?}"
    );
    // Once more makes no difference.
    pause(&test.app, &any, None).await.expect("it is paused");
    refused(
        promote(&test.app, &any, None).await,
        Kind::Usage,
        &["is paused", "engine resume"],
    );
    let (resumed, driven) = resume(&test.app, &any, None, false).await.expect("told");
    assert_eq!((resumed, driven), (id, false), "the caller drives it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_for_a_rollout_that_waits_for_one() {
    let set = ["gate=limits", "steps=50,100", "approve-before=50"];
    let (test, _balancer, id) = left(&set).await;
    let any = TargetRequest::default();
    let standing = test.drive(&id).await;
    assert!(matches!(standing, Standing::Parked(_)), "{standing:?}");
    test.app.let_go(&id).await.expect("it may go");
    let went_on = approve(&test.app, &any, None, "fine").await.expect("told");
    let WentOn::WhenResumed((header, _)) = went_on else {
        panic!("{went_on:?}");
    };
    assert_eq!(header.rollout, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_in_full_ends_a_rollout_and_nothing_is_told_after_the_end() {
    let (test, _balancer, id) = left(&["bake=1h"]).await;
    let any = TargetRequest::default();
    let (_, status) = promote_fully(&test.app, &any, None).await.expect("done");
    let (end, reason) = status.end.expect("it is over");
    assert_eq!(end, End::Promoted);
    assert!(reason.contains("promoted in full by tester"), "{reason}");
    let says = &[&*id, "has ended"];
    let named = Some(id.as_str());
    let app = &test.app;
    refused(resume(app, &any, named, false).await, Kind::Usage, says);
    refused(pause(app, &any, named).await, Kind::Usage, says);
    refused(promote(app, &any, named).await, Kind::Usage, says);
    refused(promote_fully(app, &any, named).await, Kind::Usage, says);
    refused(approve(app, &any, named, "").await, Kind::Usage, says);
}

/// Once it is decided, no wait is left that somebody could end.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_cannot_be_promoted_step_by_step() {
    let (test, _balancer, id) = left(&["bake=1h"]).await;
    let (.., mut entries) = test.app.journal(&id).await.expect("known");
    let last = entries.last().expect("it has begun").clone();
    entries.push(Entry {
        seq: last.seq + 1,
        event: Event::Decided {
            goal: Goal::RollBack,
            by: Decider::Strategy,
            reason: "it is worse".to_owned(),
            signal: None,
        },
        ..last
    });
    test.store.plant(&id, entries);
    let error = refused(
        promote(&test.app, &TargetRequest::default(), Some(&id)).await,
        Kind::Usage,
        &["rolling-back", "it is worse", "engine status"],
    );
    assert!(!error.to_string().contains("try again"), "{error}");
}

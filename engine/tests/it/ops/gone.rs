//! A rollout whose local balancer died with its process ends by itself, once nobody can
//! have a use for it any more.

use std::sync::Arc;

use engine::clock::{Clock as _, SystemClock, VirtualClock};
use engine::journal::verdict::verdict;
use engine::model::End;
use engine::ops::Kind;
use engine::ops::app::App;
use engine::ops::begin::BeginRequest;
use engine::ops::history::{ListRequest, list};
use engine::ops::status::overview;
use engine::ops::way_back::{TakenBack, abort, rollback};

use crate::support::app::{TestApp, in_file, refused, rollout, suspended};
use crate::support::balancer::{demo, demo_target, healthy, spec, start};
use crate::support::binary::plugin;

const HOUR: u64 = 3_600_000;

fn request(test: &TestApp, on_deadline: &str) -> BeginRequest {
    let text = format!(
        "{}[guardrails]\ndeadline = \"1h\"\non-deadline = \"{on_deadline}\"\n[strategy]\nplugin = {:?}\n",
        demo_target(0),
        plugin("canary")
    );
    BeginRequest {
        target: in_file(&test.write("rollout.toml", text)),
        ..BeginRequest::default()
    }
}

/// A process that begins so much later, and has no balancer.
fn later(test: &TestApp, ms: u64) -> App {
    let mut app = test.restarted();
    app.clock = Arc::new(VirtualClock::new(SystemClock.now() + ms));
    app
}

async fn ends(app: &App) -> Vec<Option<End>> {
    let request = ListRequest {
        limit: 20,
        ..ListRequest::default()
    };
    let listed = list(app, &request).await.expect("memory");
    listed.iter().map(|listed| listed.row.end).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_without_its_balancer_ends_once_its_deadline_has_passed() {
    let test = TestApp::new();
    let id = test.begin_and_leave(&request(&test, "rollback")).await;
    // While the balancer answers, users may be there.
    assert_eq!(ends(&later(&test, 2 * HOUR)).await, [None]);
    test.app.ports.stop().await;
    // Before the deadline a person may go on with it.
    assert_eq!(ends(&later(&test, HOUR / 2)).await, [None]);
    assert_eq!(ends(&later(&test, 2 * HOUR)).await, [Some(End::Refused)]);
    let app = later(&test, 2 * HOUR);
    let (_, status, _) = app.journal(&id).await.expect("it is there");
    let (_, why) = status.end.expect("it has ended");
    assert!(why.contains("deadline of 1h"), "{why}");
    assert!(!why.contains("read back"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_for_a_person_at_its_deadline_does_not_end() {
    let test = TestApp::new();
    let id = test.begin_and_leave(&request(&test, "pause")).await;
    test.app.ports.stop().await;
    let app = later(&test, 2 * HOUR);
    assert_eq!(ends(&app).await, [None]);
    let nobody = crate::support::app::local("127.0.0.1:1".parse().expect("an address"));
    let shown = overview(&app, &nobody, Some(&id)).await.expect("known");
    assert!(
        shown
            .rollout
            .is_some_and(|known| known.status.end.is_none())
    );
}

/// A balancer that was killed with its process leaves a rollout behind that can go on.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_balancer_leaves_behind_is_named() {
    let test = TestApp::new();
    let id = test.begin_and_leave(&request(&test, "rollback")).await;
    let (header, ..) = test.app.journal(&id).await.expect("it is there");
    let at = crate::support::app::local(header.target.admin().expect("local"));
    let live = overview(&test.app, &at, None).await.expect("it answers");
    assert!(live.live.is_some());
    let request = ListRequest {
        limit: 20,
        ..ListRequest::default()
    };
    let listed = list(&test.app, &request).await.expect("memory");
    assert_eq!(listed[0].driven, Some(false), "nobody drives it");
    test.app.ports.stop().await;

    let app = test.restarted();
    let shown = overview(&app, &at, None).await.expect("known");
    assert!(shown.live.is_none());
    let known = shown.rollout.expect("it is under way");
    assert_eq!(
        (known.header.rollout, known.driven),
        (id.clone(), Some(false))
    );
    let (resume, abort_it) = (format!("engine resume {id}"), format!("engine abort {id}"));
    let said = refused(
        rollback(&app, &at, None).await,
        Kind::Unreachable,
        &["nobody listens at", &id, &resume, &abort_it],
    );
    assert!(!said.to_string().contains("read back"), "{said}");
    // What it was asked for is done, and nothing was started or said for it.
    let ended = abort(&app, &at, None, "enough").await.expect("it ends");
    let TakenBack::Ended(ended) = ended else {
        panic!("{ended:?}");
    };
    assert!(!app.ports.balances().await, "nothing was started for it");
    let said = verdict(&ended.0, &ended.1);
    assert!(said.contains("aborted by tester: enough"), "{said}");
    assert!(said.contains("nobody was served"), "{said}");
    assert!(!said.contains("read back"), "{said}");
    assert_eq!(ends(&app).await, [Some(End::Refused)]);
}

/// Where the balancer was another process's, a rollout waits for one that answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_whose_balancer_others_start_is_named_beside_the_way_to_start_it() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let at = crate::support::app::local(balancer.admin);
    let id = test.begin(&rollout("canary", at.clone(), &[])).await;
    let id = id.expect("it begins");
    test.app.let_go(&id).await.expect("it was ours");
    balancer.stop().await;
    let resume = format!("engine resume {id}");
    let seen = overview(&test.app, &at, None).await.expect("as last known");
    for error in [
        seen.silent.map_or(Ok(()), Err),
        rollback(&test.app, &at, None).await.map(drop),
    ] {
        refused(error, Kind::Unreachable, &["`engine local`", &resume]);
    }
}

/// A balancer of another process may come back with the weights that it had: nothing is said
/// to be over before that.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_not_given_up_while_somebody_else_s_balancer_is_down() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let admin = format!("admin = \"{}\"", balancer.admin);
    let text = demo_target(0).replace("admin = \"127.0.0.1:0\"", &admin);
    let request = BeginRequest {
        target: in_file(&test.write("rollout.toml", text)),
        ..rollout("canary", <_>::default(), &["bake=1h"])
    };
    let id = suspended(&test.app, &request, ("canary", 5.0)).await;
    balancer.stop().await;
    let app = test.restarted();
    refused(
        abort(&app, &request.target, Some(&id), "").await,
        Kind::RollbackFailed,
        &["nothing was taken back", "another process", "canary 5 %"],
    );
    assert_eq!(ends(&app).await, [None], "it is not over");
}

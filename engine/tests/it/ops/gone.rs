//! A rollout whose local balancer died with its process ends by itself, once nobody can
//! have a use for it any more.

use std::sync::Arc;

use engine::clock::{Clock as _, SystemClock, VirtualClock};
use engine::model::End;
use engine::ops::app::App;
use engine::ops::begin::BeginRequest;
use engine::ops::history::{ListRequest, list};
use engine::ops::status::overview;

use crate::support::app::{TestApp, in_file};
use crate::support::balancer::demo_target;
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

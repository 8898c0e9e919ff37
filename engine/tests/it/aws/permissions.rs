//! What the guide says a verb may call is what it calls.

use std::collections::BTreeSet;

use engine::model::End;
use engine::ops::begin::BeginRequest;
use engine::ops::deploy::{DeployRequest, Template};
use engine::ops::status::overview;
use engine::ops::traffic::{set_weights, switch};
use engine::ops::way_back::rollback;
use engine::rollout::Standing;

use crate::support::app::{TestApp, rollout, texts};
use crate::support::aws::emulator::unique;
use crate::support::aws::proxy::Proxy;
use crate::support::root;
use crate::support::shop::Shop;

/// The APIs in the guide's rows that begin so.
fn documented(rows: &[&str]) -> BTreeSet<String> {
    let guide =
        std::fs::read_to_string(root().join("engine/docs/guide/aws.md")).expect("the guide");
    let mut names = BTreeSet::new();
    for row in rows {
        let line = guide.lines().find(|l| l.starts_with(&format!("| {row}")));
        let line = line.unwrap_or_else(|| panic!("no row {row}"));
        let words = line.split([' ', ',', '|']);
        let is_api = |w: &&str| w.chars().skip(1).any(char::is_uppercase);
        names.extend(words.filter(is_api).map(ToOwned::to_owned));
    }
    names
}

/// What a verb called, from a cold cache, must be what the rows say.
fn check(proxy: &Proxy, verb: &str, rows: &[&str]) {
    let called: BTreeSet<String> = proxy.take().into_iter().collect();
    let allowed = documented(rows);
    for api in &called {
        assert!(
            allowed.contains(api),
            "{verb} called {api}, the guide has {allowed:?}"
        );
    }
    let own = documented(&rows[rows.len() - 1..]);
    let writes = |name: &&String| {
        ["Modify", "Update", "Create", "Delete"]
            .iter()
            .any(|w| name.starts_with(w))
    };
    // Of a listener and a rule only one is written.
    let missing: Vec<&String> = own
        .iter()
        .filter(writes)
        .filter(|n| !called.contains(*n) && *n != "ModifyRule" && *n != "DeleteChangeSet")
        .collect();
    assert!(missing.is_empty(), "{verb} never called {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_calls_what_the_guide_says() {
    let proxy = Proxy::start().await;
    let name = unique("allowed");
    // Nobody remembers anything.
    let cold = || {
        proxy.take();
        Shop::of(TestApp::through(&proxy.endpoint), "ca-central-1", &name)
    };
    let finding = "finding a target by its stack";

    let shop = cold();
    let colours = DeployRequest {
        kind: Template::BlueGreen,
        ..shop.request(&["ImageURIBlue=a:1", "ImageURIGreen=a:1"])
    };
    shop.deploy(colours).await.expect("made");
    check(&proxy, "deploy", &[finding, "status", "deploy"]);

    let Shop { test, target, .. } = cold();
    overview(&test.app, &target, None).await.expect("seen");
    check(&proxy, "status", &[finding, "status"]);

    let Shop { test, target, .. } = cold();
    let moved = set_weights(&test.app, &target, &texts(&["90", "10"])).await;
    moved.expect("done");
    check(&proxy, "set-weights", &[finding, "set-weights"]);

    let Shop { test, target, .. } = cold();
    let back = rollback(&test.app, &target, Some("blue")).await;
    back.expect("done");
    check(&proxy, "rollback", &[finding, "set-weights"]);

    for arm in ["green", "blue"] {
        let Shop { test, target, .. } = cold();
        switch(&test.app, &target, arm).await.expect("done");
        check(&proxy, "switch", &[finding, "set-weights"]);
    }

    let Shop { test, target, .. } = cold();
    let broken = BeginRequest {
        image: Some("a:broken".to_owned()),
        ..rollout("blue-green", target, &[])
    };
    let id = test.begin(&broken).await.expect("it begins");
    let standing = test.drive_on(&id).await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    check(&proxy, "run", &[finding, "status", "set-weights", "run"]);

    cold().delete().await.expect("deleted");
    check(&proxy, "delete", &[finding, "delete"]);
}

//! Plugins that may run, and those that may not: `load`, `check`, `inspect`.

use engine::cli::advice;
use engine::ops::Kind;
use engine::ops::app::Surroundings;
use engine::ops::pin::{PinRequest, lock};
use engine::ops::plugin::check::{CheckRequest, check};
use engine::ops::plugin::inspect::{inspect, moves_traffic};
use engine::ops::plugin::{Purpose, load, look_at};
use engine::spec::Spec;

use crate::support::app::{TestApp, refused, texts};
use crate::support::components::{binary, component};
use crate::support::guests::{guest, guest_path};

#[tokio::test(flavor = "multi_thread")]
async fn a_strategy_says_what_it_may_do() {
    let test = TestApp::surrounded(<_>::default());
    let pins = PinRequest::default();
    let seen = inspect(&test.app, &pins, &guest_path("canary")).await;
    let seen = seen.expect("it may run");
    assert!(moves_traffic(&seen.plugin));
    let digest = engine::model::sha256_hex(&guest("canary"));
    assert_eq!(seen.plugin.sha256, digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_strategy_is_rejected() {
    let test = TestApp::surrounded(<_>::default());
    let pins = PinRequest::default();
    let cases = [
        (&b"#!/bin/sh\n"[..], "evil.wasm"),
        (b"", "the file is empty"),
    ];
    for (bytes, says) in cases {
        let place = test.write("evil.wasm", bytes);
        let looked = look_at(&test.app, &pins, &place).await;
        refused(looked.map(|_| ()), Kind::Rejected, &[says]);
    }
    let missing = look_at(&test.app, &pins, &test.at("nothing.wasm")).await;
    refused(missing.map(|_| ()), Kind::Usage, &["nothing.wasm"]);
    let device = look_at(&test.app, &pins, "/dev/zero".as_ref()).await;
    refused(device.map(|_| ()), Kind::Usage, &["only files are read"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_needs_a_file_that_knows_it() {
    let test = TestApp::surrounded(<_>::default());
    let named = look_at(&test.app, &PinRequest::default(), "gate".as_ref()).await;
    refused(
        named.map(|_| ()),
        Kind::Usage,
        &["gate is a name", "write ./gate"],
    );
    let elsewhere = "oci://r.example/canary:1";
    let far = look_at(&test.app, &PinRequest::default(), elsewhere.as_ref()).await;
    refused(
        far.map(|_| ()),
        Kind::Usage,
        &["is not run from a registry directly"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_pinned_does_not_get_traffic_in_ci() {
    let surroundings = Surroundings {
        ci: true,
        ..Surroundings::default()
    };
    let test = TestApp::surrounded(surroundings);
    let other = test.write("other.wasm", guest("canary"));
    let names = test.write("plugins.toml", "[plugins]\n");
    let pins = PinRequest {
        plugins: Some(names),
        ..PinRequest::default()
    };
    lock(&test.app, &pins)
        .await
        .expect("there is nothing to pin");
    let spec = Spec::bare();
    let loaded = load(&test.app, &pins, Some(&other), &spec, Purpose::Rollout).await;
    refused(
        loaded.map(|_| ()),
        Kind::Rejected,
        &["other.wasm has no name"],
    );
    // Who is just writing one may look at it.
    let loaded = load(&test.app, &pins, Some(&other), &spec, Purpose::Look).await;
    assert!(loaded.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_cannot_do_its_work_does_not_pass() {
    let test = TestApp::surrounded(<_>::default());
    let request = |plugin: &str, set: &[&str]| CheckRequest {
        plugin: guest_path(plugin),
        set: texts(set),
        queries: vec![],
        pins: PinRequest::default(),
    };
    let good = check(&test.app, request("hostile", &["act=promote"])).await;
    assert_eq!(good.expect("it runs").verdict(), Ok(()));
    let bad = check(&test.app, request("hostile", &["act=error"])).await;
    refused(
        bad.expect("it runs").verdict(),
        Kind::Rejected,
        &["fails in the good world", "the model registry is empty"],
    );
    let queries = CheckRequest {
        queries: texts(&["x"]),
        ..request("canary", &[])
    };
    refused(
        check(&test.app, queries).await.map(|_| ()),
        Kind::Usage,
        &["--query x is not NAME=NUMBER"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_the_host_is_kept() {
    let test = TestApp::surrounded(<_>::default());
    let policy = test.write("policy.toml", "calls = 5\n");
    let strict = TestApp::surrounded(Surroundings {
        policy: Some(policy),
        ..Surroundings::default()
    });
    let request = CheckRequest {
        plugin: guest_path("canary"),
        set: vec![],
        queries: vec![],
        pins: PinRequest::default(),
    };
    let checked = check(&strict.app, request).await.expect("it runs");
    refused(checked.verdict(), Kind::Rejected, &["it has made 5 calls"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_fails_before_it_runs_is_rejected() {
    let test = TestApp::surrounded(<_>::default());
    let text = component("(func $describe (result i32) unreachable)");
    let place = test.write("evil.wasm", binary(&text));
    let request = CheckRequest {
        plugin: place,
        set: vec![],
        queries: vec![],
        pins: PinRequest::default(),
    };
    refused(
        check(&test.app, request).await.map(|_| ()),
        Kind::Rejected,
        &["its own code failed in describe"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_a_file_that_is_not_there_is_told_what_to_do() {
    let test = TestApp::surrounded(<_>::default());
    let pins = PinRequest::default();
    let look = async |name: &str| {
        let looked = look_at(&test.app, &pins, &test.at(name)).await;
        let error = refused(looked.map(|_| ()), Kind::Usage, &[name]);
        advice::text(&error)
    };
    // Our own are built, and somebody may not have what they are built from.
    let said = look("canary.wasm").await;
    for part in [
        "`make plugins` in the sources of engine",
        "`engine plugin pull oci://",
        "`engine plugin new`",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let said = look("of-ours.wasm").await;
    assert!(!said.contains("make plugins"), "{said}");
    assert!(said.contains("`engine plugin new`"), "{said}");
    test.write("canary.wasm", guest("canary"));
    for near in ["canray.wasm", "canary.wsm"] {
        let said = look(near).await;
        let there = test.at("canary.wasm");
        let guess = format!("did you mean {}?", there.display());
        assert!(said.contains(&guess), "{said}");
    }
    assert!(!look("blue-green.wasm").await.contains("did you mean"));
}

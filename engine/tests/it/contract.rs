//! Files that are no strategies are refused with an explanation.

use engine::model::sha256_hex;
use engine::strategy::contract::Rejected;
use engine::strategy::limits::Limits;
use engine::strategy::{Host, Plugin};

use crate::support::{folder, guests};

async fn load(text: &str) -> Result<std::sync::Arc<Plugin>, Rejected> {
    let bytes = wat::parse_str(text).expect("the test's own text is right");
    guests::host().load(&bytes).await
}

async fn refusal(text: &str) -> String {
    load(text).await.expect_err("no strategy").to_string()
}

#[tokio::test]
async fn the_shipped_plugins_are_strategies() {
    for name in ["canary", "blue-green"] {
        let plugin = guests::plugin(name).await;
        let description = plugin.describe().await.expect("it describes itself");
        assert_eq!(description.name, name);
        let schema: serde_json::Value =
            serde_json::from_str(&description.parameters_schema).expect("JSON");
        assert!(schema["properties"]["bake"].is_object(), "{schema}");
        assert_eq!(plugin.world, "rollout:strategy/strategy-api@0.1.0");
        let steps = plugin
            .validate("{}")
            .await
            .expect("runs")
            .expect("defaults are valid");
        assert_eq!(steps.last().map(|s| s.share), Some(100));
        let issues = plugin
            .validate(r#"{"max-error-rate": 7}"#)
            .await
            .expect("runs")
            .expect_err("no share");
        assert_eq!(issues[0].path, "/max-error-rate");
    }
}

#[tokio::test]
async fn a_component_that_is_no_strategy() {
    let says = refusal("(component)").await;
    assert!(
        says.contains("not a strategy: it exports nothing"),
        "{says}"
    );
    assert!(
        says.contains("rollout:strategy/strategy-api@0.1.0"),
        "{says}"
    );
}

#[tokio::test]
async fn an_import_from_nowhere() {
    let says = refusal(r#"(component (import "acme:db/query@1.0.0" (instance)))"#).await;
    assert!(
        says.contains("does not offer:\n  acme:db/query@1.0.0"),
        "{says}"
    );
}

#[tokio::test]
async fn a_contract_of_another_version() {
    let says = refusal(r#"(component (import "rollout:traffic/traffic@0.2.0" (instance)))"#).await;
    assert!(
        says.contains(
            "rollout:traffic/traffic@0.2.0 (this engine has rollout:traffic/traffic@0.1.0)"
        ),
        "{says}"
    );
    let says = refusal(
        r#"(component (instance $i) (export "rollout:strategy/strategy-api@0.9.0" (instance $i)))"#,
    )
    .await;
    assert!(
        says.contains("exports rollout:strategy/strategy-api@0.9.0"),
        "{says}"
    );
    assert!(says.contains("upgrade engine"), "{says}");
}

#[tokio::test]
async fn the_right_names_with_other_types() {
    let says = refusal(
        r#"(component
            (import "rollout:control/control@0.1.0" (instance (export "now" (func (result u32)))))
            (instance $i)
            (export "rollout:strategy/strategy-api@0.1.0" (instance $i)))"#,
    )
    .await;
    assert!(says.contains("another form of the contract"), "{says}");
    let says = refusal(
        r#"(component (instance $i) (export "rollout:strategy/strategy-api@0.1.0" (instance $i)))"#,
    )
    .await;
    assert!(says.contains("another form of the contract"), "{says}");
}

#[tokio::test]
async fn modules_text_scripts_and_machine_code() {
    let host = guests::host();
    let module = wat::parse_str("(module)").expect("right");
    let cut = &guests::guest("canary")[..1_000];
    let artefact = {
        let engine = wasmtime::Engine::default();
        let component = wat::parse_str("(component)").expect("right");
        engine.precompile_component(&component).expect("compiles")
    };
    for (bytes, says) in [
        (&module[..], "core WebAssembly module"),
        (b"(component)", "WebAssembly text"),
        (b"#!/bin/sh\n", "does not begin as WebAssembly does"),
        (cut, "cannot be compiled"),
        (&artefact, "precompiled artefact"),
    ] {
        let error = host.load(bytes).await.expect_err("no strategy").to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn describe_cannot_loop_for_ever() {
    // A start function is guest code too, and runs before anything is asked.
    let text = r#"(component
        (core module $m
            (func $spin (loop $l br $l))
            (start $spin))
        (core instance (instantiate $m))
        (instance $i)
        (export "rollout:strategy/strategy-api@0.1.0" (instance $i)))"#;
    assert!(load(text).await.is_err());
}

#[tokio::test]
async fn compiled_code_is_kept_in_a_folder_of_ours() {
    let folder = folder();
    let cache = folder.path().join("compiled");
    let bytes = guests::guest("canary");
    let host = Host::new(Some(&cache), Limits::default()).expect("starts");
    let first = host.load(&bytes).await.expect("loads");
    assert!(std::ptr::eq(
        &*first,
        &*host.load(&bytes).await.expect("loads")
    ));
    let files = || walk(&cache);
    // The cache is written by a thread of its own.
    for _ in 0..100 {
        if files() > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(files() > 0, "nothing in {}", cache.display());
    let again = Host::new(Some(&cache), Limits::default()).expect("starts");
    again.load(&bytes).await.expect("loads from the cache");
}

#[tokio::test]
async fn what_has_passed_the_checks_is_not_checked_again() {
    let folder = folder();
    let cache = folder.path().join("compiled");
    let host = || Host::new(Some(&cache), Limits::default()).expect("starts");
    let why = async |bytes: &[u8]| host().load(bytes).await.expect_err("no strategy");
    let small = wat::parse_str("(component)").expect("right");
    let globals = "(global i32 (i32.const 0))".repeat(100_001);
    let globals = wat::parse_str(format!("(component (core module {globals}))")).expect("right");

    assert!(matches!(why(&small).await, Rejected::Exports { .. }));
    let list = |sha256: &str| {
        let versions = std::fs::read_dir(cache.join("checked")).expect("there");
        let versions: Vec<_> = versions.map(|v| v.expect("readable").path()).collect();
        assert_eq!(versions.len(), 1, "{versions:?}");
        versions[0].join(sha256)
    };
    assert!(list(&sha256_hex(&small)).is_file());
    // What does not pass is checked each time.
    for _ in 0..2 {
        let why = why(&globals).await.to_string();
        assert!(why.contains("100001 globals"), "{why}");
        assert!(!list(&sha256_hex(&globals)).exists());
    }
    // The list is believed, as the code beside it is.
    std::fs::write(list(&sha256_hex(&globals)), []).expect("ours");
    assert!(matches!(why(&globals).await, Rejected::Exports { .. }));
    // Another version of the checks does not know it.
    let version = list("").parent().expect("a folder").to_owned();
    std::fs::rename(&version, version.with_file_name("0-0-0")).expect("ours");
    let why = why(&globals).await.to_string();
    assert!(why.contains("100001 globals"), "{why}");
}

fn walk(folder: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|e| {
            if e.path().is_dir() {
                walk(&e.path())
            } else {
                1
            }
        })
        .sum()
}

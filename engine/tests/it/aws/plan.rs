//! What a plan says must be what a rollout does.

use std::collections::BTreeSet;
use std::process::Output;

use serde_json::Value;

use super::bottle::{self, GOOD, REGION, Wish, make, three_steps};
use super::emulator;
use crate::cli::{engine, stderr, stdout};
use crate::end_to_end::plugin;
use crate::lab;

fn plan(folder: &std::path::Path, made: &bottle::Made, more: &[&str]) -> Output {
    let canary = plugin("canary");
    let arguments = [
        &[
            "plan",
            &canary,
            "--listener",
            &made.listener,
            "--cluster",
            &made.cluster,
            "--set",
            "steps=10,50,100",
            "--set",
            "gate=limits",
            "--set",
            "bake=5m",
            "--image",
            "app:v2",
        ],
        more,
    ]
    .concat();
    let mut command = engine(folder, &arguments);
    emulator::environment(&mut command, &emulator::endpoint(), REGION);
    let output = command.output().expect("the binary runs");
    crate::schemas::hold(&arguments, &output);
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_a_plan_are_the_calls_of_its_rollout() {
    let wish = Wish {
        tasks: [4, 1],
        ..Wish::default()
    };
    let bottle = bottle::Bottle::new(wish, lab::plugin("canary").await, three_steps()).await;
    let bottle = bottle.image("app:v2");
    let folder = tempfile::tempdir().expect("a folder");
    let output = plan(folder.path(), &bottle.made, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let plan: Value = serde_json::from_str(&stdout(&output)).expect("JSON");

    for arm in 0..2 {
        bottle.traffic(arm, -10..120, GOOD).await;
    }
    bottle.run().await;
    let done = bottle.proxy.take();
    let writes = |name: &&String| {
        let name = name.as_str();
        name.starts_with("Modify") || name.starts_with("Update") || name.starts_with("Register")
    };
    let done_writes: Vec<&str> = done.iter().filter(writes).map(String::as_str).collect();
    let planned: Vec<&str> = plan["writes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|w| w["api"].as_str())
        .collect();
    assert_eq!(planned, done_writes, "the same writes in the same order");

    // Every call that was made is allowed by the policy.
    let actions: BTreeSet<String> = plan["policy"]["Statement"]
        .as_array()
        .expect("statements")
        .iter()
        .flat_map(|s| s["Action"].as_array().expect("actions").clone())
        .filter_map(|a| Some(a.as_str()?.split_once(':')?.1.to_owned()))
        .collect();
    for call in &done {
        assert!(actions.contains(call), "{call} is not in {actions:?}");
    }
    let took = |path: &str| plan.pointer(path).and_then(Value::as_u64).expect("a time");
    assert!(took("/good/took-ms") >= 15 * 60_000);
    assert!(
        took("/bad/exposed-ms") <= 5 * 60_000,
        "seen within five minutes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_gate_can_be_planned() {
    let made = make(&Wish::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let output = plan(folder.path(), &made, &["--set", "gate=evidence", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let plan: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let weights = plan["writes"].as_array().expect("a list").iter();
    let weights = weights.filter(|w| w["api"] == "ModifyListener").count();
    // Probe, 10, 50 and 95 %, all, and back to stable after the copy.
    assert_eq!(weights, 6, "{plan:#}");
    let exposed = plan["bad"]["exposed-ms"].as_u64().expect("a time");
    assert!(exposed <= 6 * 60_000, "{exposed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_nothing_and_reads_well() {
    let made = make(&Wish::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let service = format!("{}-canary", made.name);
    let arguments = [
        "ecs",
        "describe-services",
        "--cluster",
        &made.cluster,
        "--services",
        &service,
    ];
    let before = emulator::aws(REGION, &arguments)["services"][0]["taskDefinition"].clone();
    let output = plan(folder.path(), &made, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shown = stdout(&output)
        .replace(&made.listener, "LISTENER")
        .replace(&made.name, "NAME");
    insta::assert_snapshot!(shown);
    let after = emulator::aws(REGION, &arguments)["services"][0]["taskDefinition"].clone();
    assert_eq!(before, after);

    let output = plan(folder.path(), &made, &["--policy"]);
    let shown = stdout(&output).replace(&made.name, "NAME");
    let generated = made
        .listener
        .rsplit("/app/")
        .next()
        .expect("an ARN")
        .to_owned();
    let generated = generated.replace(&made.name, "NAME");
    insta::assert_snapshot!(shown.replace(&generated, "LISTENER"));
}

#[test]
fn a_plan_is_for_aws() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = crate::cli::run(folder.path(), &["plan", &plugin("canary")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("a target on AWS"),
        "{}",
        stderr(&output)
    );
}

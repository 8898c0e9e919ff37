//! What a plan says must be what a rollout does.

use std::process::Output;

use engine::clock::{Clock as _, SystemClock};

use crate::support::aws::bottle::{self, REGION, Wish, make};
use crate::support::aws::emulator;
use crate::support::binary::{engine, plugin, stderr, stdout};
use crate::support::folder;
use crate::support::lab::START;

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
async fn a_plan_changes_nothing_and_reads_well() {
    let made = make(&Wish::default()).await;
    let folder = folder();
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
    // Its schema is held against it.
    let output = plan(folder.path(), &made, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
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

/// What a rollout would show depends on the traffic that there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_which_faults_would_show() {
    let made = make(&Wish::default()).await;
    let now = i64::try_from(SystemClock.now()).expect("small");
    let minute = (now - i64::try_from(START).expect("small")) / 60_000;
    // CloudWatch is read until three minutes ago.
    bottle::traffic(&made, 0, minute - 14..minute - 2, bottle::GOOD).await;
    let folder = folder();
    let canary = plugin("canary");
    let arguments = [
        "plan",
        &canary,
        "--listener",
        &made.listener,
        "--cluster",
        &made.cluster,
        "--image",
        "app:v2",
    ];
    let mut command = engine(folder.path(), &arguments);
    emulator::environment(&mut command, &emulator::endpoint(), REGION);
    let shown = stdout(&command.output().expect("the binary runs"));
    let (_, said) = shown
        .split_once("\nwith the traffic of the last 15m, 10.0 requests a second of which 0 % fail, the strategy says:\n")
        .unwrap_or_else(|| panic!("{shown}"));
    let (said, _) = said.split_once("\n\n").expect("a paragraph");
    assert!(said.contains("of errors would show in about"), "{said}");
}

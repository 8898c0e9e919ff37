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

/// What a verb says of a rollout on that target, as JSON if asked.
fn of_target(made: &bottle::Made, arguments: &[&str]) -> String {
    let folder = folder();
    let on = ["--listener", &made.listener, "--cluster", &made.cluster];
    let arguments = [arguments, &on, &["--image", "app:v2"]].concat();
    let mut command = engine(folder.path(), &arguments);
    emulator::environment(&mut command, &emulator::endpoint(), REGION);
    let output = command.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    crate::schemas::hold(&arguments, &output);
    stdout(&output)
}

/// The minute that it is, from START on. CloudWatch is read until three minutes ago.
fn this_minute() -> i64 {
    let now = i64::try_from(SystemClock.now()).expect("small");
    (now - i64::try_from(START).expect("small")) / 60_000
}

/// What a rollout would show depends on the traffic that there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_which_faults_would_show() {
    let made = make(&Wish::default()).await;
    let minute = this_minute();
    bottle::traffic(&made, 0, minute - 16..minute + 9, bottle::GOOD).await;
    let shown = of_target(&made, &["plan", &plugin("canary")]);
    let (_, said) = shown
        .split_once("\nwith the traffic of the last 15m, 10.0 requests a second of which 0 % fail, the strategy says:\n")
        .unwrap_or_else(|| panic!("{shown}"));
    let (said, _) = said.split_once("\n\n").expect("a paragraph");
    assert!(said.contains("of errors would show in about"), "{said}");
    // The usual latency is the service's own.
    assert!(said.contains("p90 40 ms, p99 40 ms"), "{said}");
}

/// Minutes without a request are part of the mean, and `check` says the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_it_too_and_quiet_minutes_count() {
    let made = make(&Wish::default()).await;
    let check = ["check", "--plugin", &plugin("canary")];
    let shown = of_target(&made, &check);
    assert!(
        shown.contains("evidence     no traffic was seen in the last 15m"),
        "{shown}"
    );
    let minute = this_minute();
    // One minute of 3,600 requests, of about twelve that can be read.
    let burst = bottle::Minute {
        requests: 3_600,
        ..bottle::GOOD
    };
    bottle::traffic(&made, 0, minute - 8..minute - 7, burst).await;
    let shown = of_target(&made, &check);
    let evidence = shown.lines().find(|line| line.contains(" evidence "));
    let evidence = evidence.unwrap_or_else(|| panic!("{shown}"));
    assert!(evidence.starts_with("ok "), "{evidence}");
    let quiet = |rps: u32| {
        format!("with the traffic of the last 15m, {rps}.0 requests a second of which 0 % fail: ")
    };
    // Once more it may be a minute later.
    assert!(
        (4..=6).any(|rps| evidence.contains(&quiet(rps))),
        "{evidence}"
    );
    assert!(
        evidence.contains("of errors would show in about"),
        "{evidence}"
    );
    let shown = of_target(&made, &["check", "--plugin", &plugin("canary"), "--json"]);
    assert!(shown.contains("of errors would show in about"), "{shown}");
}

//! `status`, `set-weights`, `switch`, `rollback` on stacks as the prototypes
//! made them. What the engine says, the AWS CLI must show.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::bottle::{self, Wish};
use super::emulator::{self, aws, unique};
use crate::cli::{engine, stderr, stdout};
use crate::lab::root;

/// The engine against the emulator.
pub fn run(folder: &Path, region: &str, arguments: &[&str]) -> Output {
    let mut command = engine(folder, arguments);
    emulator::environment(&mut command, &emulator::endpoint(), region);
    let output = command.output().expect("the binary runs");
    crate::schemas::hold(arguments, &output);
    output
}

pub fn ok(folder: &Path, region: &str, arguments: &[&str]) -> String {
    let output = run(folder, region, arguments);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{arguments:?}: {}",
        stderr(&output)
    );
    stdout(&output)
}

/// A stack from a template, made by the AWS CLI as the prototypes' scripts do.
pub fn stack(region: &str, name: &str, template: &Path, parameters: &[&str]) {
    let template = template.display().to_string();
    let mut arguments = vec![
        "cloudformation",
        "deploy",
        "--stack-name",
        name,
        "--template-file",
        &template,
        "--capabilities",
        "CAPABILITY_NAMED_IAM",
        "--parameter-overrides",
    ];
    arguments.extend(parameters);
    let output = emulator::aws_output(region, &arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The weights that the AWS CLI shows, by the word in the group's name.
fn judged(region: &str, listener: &str, words: [&str; 2]) -> [i64; 2] {
    let shown = aws(
        region,
        &["elbv2", "describe-listeners", "--listener-arns", listener],
    );
    let groups = &shown["Listeners"][0]["DefaultActions"][0]["ForwardConfig"]["TargetGroups"];
    let groups = groups.as_array().expect("weighted groups");
    assert_eq!(groups.len(), 2, "both named: {shown}");
    words.map(|word| {
        let mut all = groups.iter();
        let group = all.find(|g| {
            let arn = g["TargetGroupArn"].as_str().expect("ARN").to_lowercase();
            arn.contains(word)
        });
        group.expect("a group of that name")["Weight"]
            .as_i64()
            .expect("a weight")
    })
}

fn listener_of(status: &Value) -> String {
    status["target"]["identity"]
        .as_str()
        .expect("an ARN")
        .to_owned()
}

fn status(folder: &Path, region: &str, name: &str) -> Value {
    let text = ok(folder, region, &["status", "--json", "--stack", name]);
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_canary_prototype() {
    let folder = tempfile::tempdir().expect("a folder");
    let (region, name) = ("eu-central-1", "ecs-canary-demo-stack");
    let template = root().join("engine/tests/fixtures/prototypes/canary.yml");
    stack(
        region,
        name,
        &template,
        &["ImageURIStable=app:v1", "ImageURICanary=app:v2"],
    );

    let shown = ok(folder.path(), region, &["status", "--stack", name]);
    insta::assert_snapshot!(shown.replace("http://localhost", "ADDRESS"));
    let seen = status(folder.path(), region, name);
    let listener = listener_of(&seen);
    let words = ["stable", "canary"];
    assert_eq!(judged(region, &listener, words), [95, 5]);
    assert_eq!(seen["target"]["arms"][0]["weight"], 95);
    assert_eq!(seen["target"]["arms"][1]["release"]["version"], "app:v2");

    let verbs: [(&[&str], [i64; 2]); 4] = [
        (&["set-weights", "75", "25"], [75, 25]),
        (&["set-weights", "stable=9", "canary=1"], [9, 1]),
        (&["set-weights", "0", "100"], [0, 100]),
        (&["rollback"], [100, 0]),
    ];
    for (verb, weights) in verbs {
        let arguments = [verb, &["--stack", name, "--json"]].concat();
        let answer: Value =
            serde_json::from_str(&ok(folder.path(), region, &arguments)).expect("JSON");
        let said = [0, 1].map(|n| answer["weights"][n]["weight"].as_i64().expect("a weight"));
        assert_eq!(said, weights, "{verb:?}");
        assert_eq!(judged(region, &listener, words), weights, "{verb:?}");
    }

    for (wrong, says) in [
        (&["set-weights", "75", "26"][..], "sum to 101"),
        (
            &["switch", "purple"],
            "there is no colour \"purple\"; there are stable and canary",
        ),
        (&["set-weights", "1000", "0"], "sum to 1000"),
    ] {
        let output = run(folder.path(), region, &[wrong, &["--stack", name]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
    assert_eq!(judged(region, &listener, words), [100, 0], "nothing moved");
}

#[test]
fn the_blue_green_prototype() {
    let folder = tempfile::tempdir().expect("a folder");
    let (region, name) = ("eu-central-1", "ecs-blue-green-demo-stack");
    let template = root().join("engine/tests/fixtures/prototypes/blue-green.yml");
    stack(
        region,
        name,
        &template,
        &["ImageURIBlue=app:v1", "ImageURIGreen=app:v2"],
    );
    let words = ["blue", "green"];
    let listener = listener_of(&status(folder.path(), region, name));
    assert_eq!(judged(region, &listener, words), [100, 0]);
    ok(folder.path(), region, &["switch", "green", "--stack", name]);
    assert_eq!(judged(region, &listener, words), [0, 100]);
    ok(folder.path(), region, &["switch", "blue", "--stack", name]);
    assert_eq!(judged(region, &listener, words), [100, 0]);
    ok(folder.path(), region, &["switch", "green", "--stack", name]);
    ok(folder.path(), region, &["rollback", "--stack", name]);
    assert_eq!(judged(region, &listener, words), [100, 0], "back to blue");
    // Gone and back under the same name: what was remembered is found again.
    ok(folder.path(), region, &["delete", "--stack", name, "--yes"]);
    let gone = run(folder.path(), region, &["status", "--stack", name]);
    assert_ne!(gone.status.code(), Some(0));
    assert!(
        stderr(&gone).contains("there is no stack"),
        "{}",
        stderr(&gone)
    );
    stack(
        region,
        name,
        &template,
        &["ImageURIBlue=app:v1", "ImageURIGreen=app:v2"],
    );
    let again = listener_of(&status(folder.path(), region, name));
    assert_ne!(again, listener);
    ok(folder.path(), region, &["switch", "green", "--stack", name]);
    assert_eq!(judged(region, &again, words), [0, 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stickiness_is_kept_and_warned_about() {
    let wish = Wish {
        sticky: true,
        ..Wish::default()
    };
    let made = bottle::make(&wish).await;
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = [
        "set-weights",
        "90",
        "10",
        "--listener",
        &made.listener,
        "--cluster",
        &made.cluster,
    ];
    let output = run(folder.path(), bottle::REGION, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("clients stick to their arm"),
        "{}",
        stderr(&output)
    );
    let arguments = [
        "elbv2",
        "describe-listeners",
        "--listener-arns",
        &made.listener,
    ];
    let shown = aws(bottle::REGION, &arguments);
    let config = &shown["Listeners"][0]["DefaultActions"][0]["ForwardConfig"];
    assert_eq!(
        config["TargetGroupStickinessConfig"],
        json!({"Enabled": true, "DurationSeconds": 600})
    );
    let arguments = ["status", "--listener", &made.listener];
    let shown = ok(folder.path(), bottle::REGION, &arguments);
    assert!(shown.contains("clients stick to their arm"), "{shown}");
}

#[test]
fn a_switch_to_an_arm_without_a_healthy_target_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (region, name) = ("eu-west-1", unique("sick"));
    let template = root().join("examples/cloudformation/blue-green.yaml");
    let parameters = [
        "ImageURIBlue=app:v1",
        "ImageURIGreen=app:v1",
        "DesiredCountGreen=0",
    ];
    stack(region, &name, &template, &parameters);
    let output = run(
        folder.path(),
        region,
        &["switch", "green", "--stack", &name],
    );
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("green has 0 targets"),
        "{}",
        stderr(&output)
    );
    let listener = listener_of(&status(folder.path(), region, &name));
    assert_eq!(judged(region, &listener, ["blue", "green"]), [100, 0]);
}

#[test]
fn what_cannot_be_found_is_said_plainly() {
    let folder = tempfile::tempdir().expect("a folder");
    let region = "eu-west-1";
    let cases: [(&[&str], &str); 7] = [
        (
            &["status", "--rule", "foo"],
            "--rule foo is no ARN of a listener-rule",
        ),
        (
            &["abort", "--stack", "nothing-here"],
            "there is no stack nothing-here",
        ),
        (
            &["status", "--stack", "nothing-here"],
            "there is no stack nothing-here in eu-west-1",
        ),
        (
            &[
                "status",
                "--listener",
                "arn:aws:elasticloadbalancing:eu-west-1:1:listener/app/a/b/c",
            ],
            "ListenerNotFound",
        ),
        (
            &["status", "--cluster", "prod"],
            "--stack, --listener or --rule",
        ),
        (
            &[
                "set-weights",
                "1",
                "99",
                "--stack",
                "x",
                "--service",
                "canary",
            ],
            "is not ARM=CLUSTER/SERVICE",
        ),
        (
            &["status", "--stack", "a", "--listener", "b"],
            "cannot be used with",
        ),
    ];
    for (arguments, says) in cases {
        let output = run(folder.path(), region, arguments);
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        assert!(
            stderr(&output).contains(says),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

//! `status`, `set-weights`, `switch`, `rollback` on stacks as the prototypes
//! made them. What the engine says, the AWS CLI must show.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::aws::bottle::{self, Wish};
use crate::support::aws::emulator::aws;
use crate::support::aws::{ok, run, stack};
use crate::support::binary::stderr;
use crate::support::{folder, root};

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
    let folder = folder();
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
            "there is no arm \"purple\"; there are stable and canary",
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
    let folder = folder();
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
    let folder = folder();
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

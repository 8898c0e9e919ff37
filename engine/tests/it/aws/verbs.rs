//! `status`, `set-weights`, `switch`, `rollback` on stacks as the prototypes
//! made them. What the engine says, the AWS CLI must show.

use engine::model::Weights;
use engine::ops::Kind;
use engine::ops::request::TargetRequest;
use engine::ops::status::overview;
use engine::ops::traffic::{set_weights, switch};
use engine::ops::way_back::{TakenBack, rollback};
use engine::view::traffic as view;
use serde_json::{Value, json};

use crate::schemas;
use crate::support::app::{TestApp, on_aws, on_stack, refused, texts};
use crate::support::aws::bottle::{self, REGION, Wish, forward};
use crate::support::aws::emulator::aws;
use crate::support::aws::{ok, run, stack};
use crate::support::binary::stderr;
use crate::support::shop::Shop;
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

/// What `status` says in JSON.
async fn status(test: &TestApp, at: &TargetRequest) -> Value {
    let seen = overview(&test.app, at, None).await.expect("seen");
    schemas::shown(&view::Standing::from(&seen))
}

fn listener_of(status: &Value) -> String {
    let identity = status["target"]["identity"].as_str();
    identity.expect("an ARN").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_prototype() {
    let test = TestApp::new();
    // The template gives its cluster and its logs names that no other test of the region may
    // have at the same time.
    let (region, name) = ("ap-southeast-2", "ecs-canary-demo-stack");
    let template = root().join("engine/tests/fixtures/prototypes/canary.yml");
    stack(
        region,
        name,
        &template,
        &["ImageURIStable=app:v1", "ImageURICanary=app:v2"],
    );
    let at = on_aws(on_stack(region, name));

    let shown = ok(folder().path(), region, &["status", "--stack", name]);
    insta::assert_snapshot!(shown.replace("http://localhost", "ADDRESS"));
    let seen = status(&test, &at).await;
    let listener = listener_of(&seen);
    let words = ["stable", "canary"];
    assert_eq!(judged(region, &listener, words), [95, 5]);
    assert_eq!(seen["target"]["arms"][0]["weight"], 95);
    assert_eq!(seen["target"]["arms"][1]["release"]["version"], "app:v2");

    let given: [(&[&str], [i64; 2]); 3] = [
        (&["75", "25"], [75, 25]),
        (&["stable=9", "canary=1"], [9, 1]),
        (&["0", "100"], [0, 100]),
    ];
    let check = |now: &Weights, weights: [i64; 2]| {
        let said = words.map(|arm| i64::from(now.weight(arm)));
        assert_eq!(said, weights);
        assert_eq!(judged(region, &listener, words), weights);
    };
    for (given, weights) in given {
        let moved = set_weights(&test.app, &at, &texts(given)).await;
        let moved = moved.expect("done");
        schemas::shown(&view::Change::from(&moved));
        check(&moved.now, weights);
    }
    let back = rollback(&test.app, &at, None).await.expect("done");
    let TakenBack::Moved(moved) = back else {
        panic!("{back:?}");
    };
    check(&moved.now, [100, 0]);

    for (wrong, says) in [
        (&["75", "26"], "sum to 101"),
        (&["1000", "0"], "sum to 1000"),
    ] {
        let set = set_weights(&test.app, &at, &texts(wrong)).await;
        refused(set, Kind::Usage, &[says]);
    }
    refused(
        switch(&test.app, &at, "purple").await,
        Kind::Usage,
        &["there is no arm \"purple\"; there are stable and canary"],
    );
    assert_eq!(judged(region, &listener, words), [100, 0], "nothing moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blue_green_prototype() {
    let (region, name) = ("ap-southeast-2", "ecs-blue-green-demo-stack");
    let template = root().join("engine/tests/fixtures/prototypes/blue-green.yml");
    stack(
        region,
        name,
        &template,
        &["ImageURIBlue=app:v1", "ImageURIGreen=app:v2"],
    );
    let shop = Shop::named(region, name);
    let (test, at) = (&shop.test, shop.target.clone());
    let words = ["blue", "green"];
    let listener = listener_of(&status(test, &at).await);
    assert_eq!(judged(region, &listener, words), [100, 0]);
    for (arm, weights) in [("green", [0, 100]), ("blue", [100, 0]), ("green", [0, 100])] {
        switch(&test.app, &at, arm).await.expect("done");
        assert_eq!(judged(region, &listener, words), weights);
        // The history is in the order of time, which stands still here.
        let clock = &test.app.clock;
        clock.sleep_until(clock.now() + 1_000).await;
    }
    let back = rollback(&test.app, &at, None).await.expect("done");
    let now = judged(region, &listener, words);
    assert_eq!(now, [100, 0], "back to blue: {back:?}");
    // Gone and back under the same name: what was remembered is found again.
    shop.delete().await.expect("deleted");
    refused(
        overview(&test.app, &at, None).await,
        Kind::NotFound,
        &["there is no stack"],
    );
    stack(
        region,
        name,
        &template,
        &["ImageURIBlue=app:v1", "ImageURIGreen=app:v2"],
    );
    let again = listener_of(&status(test, &at).await);
    assert_ne!(again, listener);
    switch(&test.app, &at, "green").await.expect("done");
    assert_eq!(judged(region, &again, words), [0, 100]);
}

/// What a terminal says beside the weights.
#[tokio::test(flavor = "multi_thread")]
async fn stickiness_and_other_routes_are_kept_and_told() {
    let wish = Wish {
        sticky: true,
        ..Wish::default()
    };
    let made = bottle::make(&wish).await;
    let other = forward(&[(&made.groups[0], 1)]);
    super::routes::listener(&made.balancer, 443, other).await;
    let folder = folder();
    let at = ["--listener", &*made.listener, "--cluster", &made.cluster];
    let says = [
        "clients stick to their arm",
        "HTTP:443 sends 100 % to stable",
    ];
    let output = run(
        folder.path(),
        REGION,
        &[&["switch", "canary", "--accept"], &at[..]].concat(),
    );
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let shown = ok(folder.path(), REGION, &[&["status"], &at[..]].concat());
    for says in says {
        assert!(told.contains(says), "{told}");
        assert!(shown.contains(says), "{shown}");
    }
    let back = run(
        folder.path(),
        REGION,
        &[&["switch", "stable"], &at[..]].concat(),
    );
    assert!(!stderr(&back).contains("sends"), "{}", stderr(&back));
    let arguments = [
        "elbv2",
        "describe-listeners",
        "--listener-arns",
        &made.listener,
    ];
    let shown = aws(REGION, &arguments);
    let config = &shown["Listeners"][0]["DefaultActions"][0]["ForwardConfig"];
    assert_eq!(
        config["TargetGroupStickinessConfig"],
        json!({"Enabled": true, "DurationSeconds": 600})
    );
}

/// The way back asks the load balancer alone, whatever became of the state folder.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_on_aws_works_without_a_store() {
    let made = bottle::make(&Wish::default()).await;
    let groups = [&made.groups[0], &made.groups[1]];
    let half = serde_json::json!([{"Type": "forward", "ForwardConfig": {"TargetGroups": [
        {"TargetGroupArn": groups[0], "Weight": 50},
        {"TargetGroupArn": groups[1], "Weight": 50},
    ]}}])
    .to_string();
    let target = ["--listener", &made.listener, "--cluster", &made.cluster];
    for trouble in ["a file", "garbage", "a folder", "read-only"] {
        let folder = folder();
        let state = folder.path().join("state");
        let database = state.join("engine.db");
        if trouble != "a file" {
            std::fs::create_dir(&state).expect("writable");
        }
        match trouble {
            "a file" => std::fs::write(&state, "not a folder").expect("writable"),
            "garbage" => std::fs::write(&database, "not a database").expect("writable"),
            "a folder" => std::fs::create_dir(&database).expect("writable"),
            // A name that no folder can be made under, for root neither.
            _ => std::os::unix::fs::symlink("/proc/nowhere", &database).expect("a link"),
        }
        for verb in ["rollback", "abort"] {
            let modify = ["elbv2", "modify-listener", "--listener-arn", &made.listener];
            aws(
                REGION,
                &[&modify[..], &["--default-actions", &half]].concat(),
            );
            let output = run(folder.path(), REGION, &[&[verb][..], &target].concat());
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(0), "{trouble}, {verb}: {said}");
            assert!(said.contains("written down"), "{trouble}, {verb}: {said}");
            let words = ["stable", "canary"];
            assert_eq!(judged(REGION, &made.listener, words), [100, 0], "{trouble}");
        }
    }
}

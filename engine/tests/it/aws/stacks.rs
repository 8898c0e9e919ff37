//! `engine deploy` and `engine delete`: stacks come, change and go, and the
//! traffic stays where it is.

use std::path::Path;
use std::sync::Arc;

use engine::clock::SystemClock;
use engine::model::End;
use engine::ops::Kind;
use engine::ops::begin::BeginRequest;
use engine::ops::command::promote_fully;
use engine::ops::deploy::{Deleted, DeployRequest, Deployment, Template, delete, doomed};
use engine::ops::history::{ListRequest, list};
use engine::ops::status::overview;
use engine::ops::way_back::{TakenBack, abort, rollback};
use engine::rollout::Standing;
use serde_json::{Value, json};

use crate::support::app::{TestApp, refused, rollout, suspended};
use crate::support::aws::emulator::{self, aws, script, try_aws, unique};
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::aws::{ok, run, stack};
use crate::support::binary::{Running, engine, signal, spawn_with, stderr, stdout};
use crate::support::shop::{IMAGES, Leaving, Meanwhile, Shop};
use crate::support::{folder, root};

fn weights(region: &str, stack: &str) -> Vec<i64> {
    let described = aws(
        region,
        &["cloudformation", "describe-stacks", "--stack-name", stack],
    );
    let outputs = described["Stacks"][0]["Outputs"]
        .as_array()
        .expect("outputs")
        .clone();
    let output = |key: &str| {
        let found = outputs.iter().find(|o| o["OutputKey"] == key);
        found.expect("an output")["OutputValue"]
            .as_str()
            .expect("a text")
            .to_owned()
    };
    let arguments = [
        "elbv2",
        "describe-listeners",
        "--listener-arns",
        &output("ListenerArn"),
    ];
    let shown = aws(region, &arguments);
    let groups = &shown["Listeners"][0]["DefaultActions"][0]["ForwardConfig"]["TargetGroups"];
    let weight = |key: &str| {
        let arn = output(key);
        let mut groups = groups.as_array().expect("groups").iter();
        let group = groups.find(|g| g["TargetGroupArn"] == arn.as_str());
        group.expect("named")["Weight"].as_i64().expect("a weight")
    };
    if outputs
        .iter()
        .any(|o| o["OutputKey"] == "BlueTargetGroupArn")
    {
        vec![weight("BlueTargetGroupArn"), weight("GreenTargetGroupArn")]
    } else {
        vec![
            weight("StableTargetGroupArn"),
            weight("CanaryTargetGroupArn"),
        ]
    }
}

#[test]
fn a_canary_stack_from_nothing_to_nothing() {
    let folder = folder();
    let (folder, region, name) = (folder.path(), "sa-east-1", unique("shop"));
    // As the prototype's users are used to: by the environment.
    let mut command = engine(folder, &["deploy", "canary", "--json"]);
    emulator::environment(&mut command, &emulator::endpoint(), region);
    let output = command
        .env("STACK_NAME", &name)
        .env("IMAGE_URI_STABLE", "app:v1")
        .env("IMAGE_URI_CANARY", "app:v1")
        .env("STABLE_WEIGHT", "90")
        .env("CANARY_WEIGHT", "10")
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let answer: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    crate::schemas::fits("deploy", &answer);
    assert_eq!(answer["status"], "CREATE_COMPLETE");
    assert!(answer["outputs"]["ListenerArn"].is_string(), "{answer}");
    assert!(
        stderr(&output).contains("CREATE_COMPLETE"),
        "its events are shown"
    );
    assert_eq!(weights(region, &name), [90, 10]);

    // What happens between the two is in `ops/deploy.rs`.
    let stack = ["--stack", name.as_str()];
    let again = ok(
        folder,
        region,
        &[&["deploy", "canary"], &stack[..]].concat(),
    );
    assert!(again.contains("no changes"), "{again}");

    let output = run(folder, region, &[&["delete"], &stack[..]].concat());
    assert_eq!(output.status.code(), Some(2), "nobody can be asked here");
    ok(folder, region, &[&["delete", "--yes"], &stack[..]].concat());
    let listed = aws(region, &["cloudformation", "list-stacks"]);
    let summaries = listed["StackSummaries"].as_array().expect("a list").clone();
    let left = summaries.iter().find(|s| s["StackName"] == name.as_str());
    assert!(
        left.is_none_or(|s| s["StackStatus"] == "DELETE_COMPLETE"),
        "{listed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_version_is_not_put_back_by_its_stack() {
    let region = "sa-east-1";
    let shop = Shop::new(region);
    let colours = |parameters: &[&str]| DeployRequest {
        kind: Template::BlueGreen,
        ..shop.request(parameters)
    };
    let images = ["ImageURIBlue=app:v1", "ImageURIGreen=app:v1"];
    shop.deploy(colours(&images)).await.expect("made");
    // A rollout in between: green runs v2 and has the traffic.
    let set = ["gate=limits", "bake=1s", "on-no-data=pause"];
    let request = BeginRequest {
        image: Some("app:v2".to_owned()),
        ..rollout("blue-green", shop.target.clone(), &set)
    };
    let app = &shop.test.app;
    let id = shop.test.begin(&request).await.expect("it begins");
    let standing = shop.test.drive_on(&id).await;
    assert!(matches!(standing, Standing::Held(_)), "{standing:?}");
    let reached = promote_fully(app, &shop.target, Some(&id)).await;
    let (end, _) = reached.expect("it may").1.end.expect("it is over");
    assert_eq!(end, End::Promoted);
    assert_eq!(weights(region, shop.name()), [0, 100]);
    // Any other change of the stack must leave v2 and the colour alone.
    shop.deploy(colours(&["TaskCpu=512"])).await.expect("done");
    assert_eq!(weights(region, shop.name()), [0, 100]);
    let seen = overview(app, &shop.target, None).await.expect("seen");
    let arms = seen.live.expect("it answers").seen.observed.arms;
    assert_eq!(arms[1].release.version, "app:v2", "{arms:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_left_alone_while_a_rollout_runs_and_the_other_way_round() {
    let region = "sa-east-1";
    let shop = Shop::named(region, &unique("busy"));
    let colours = |parameters: &[&str]| DeployRequest {
        kind: Template::BlueGreen,
        ..shop.request(parameters)
    };
    let images = ["ImageURIBlue=app:v1", "ImageURIGreen=app:v1"];
    shop.deploy(colours(&images)).await.expect("made");
    let app = &shop.test.app;
    // It shall not be over before anybody has looked.
    let mut patient = app.clone();
    patient.clock = Arc::new(SystemClock);
    let request = rollout("blue-green", shop.target.clone(), &["bake=1h"]);
    let id = suspended(&patient, &request, ("green", 100.0)).await;
    assert_eq!(weights(region, shop.name()), [0, 100]);
    // Nobody drives the rollout, and it still occupies its target.
    let says = format!("busy with rollout {id}");
    refused(shop.delete().await, Kind::Busy, &[&says]);
    let changed = shop.deploy(colours(&["TaskCpu=512"])).await;
    refused(changed, Kind::Busy, &[&says]);
    // A command for another stack's rollout is not for this one.
    let other = Shop::named(region, &unique("other"));
    let made = DeployRequest {
        target: other.target.clone(),
        ..colours(&images)
    };
    other.deploy(made).await.expect("made");
    let aborted = abort(app, &other.target, None, "").await;
    refused(aborted, Kind::Usage, &["no rollout is under way on"]);
    let there = ListRequest {
        target: other.target.clone(),
        limit: 100,
        all: false,
    };
    assert_eq!(list(app, &there).await, Ok(vec![]));
    let back = abort(app, &shop.target, None, "").await.expect("done");
    let TakenBack::Aborted(aborted) = back else {
        panic!("{back:?}");
    };
    assert_eq!(aborted.1.end.expect("it is over").0, End::RolledBack);
    assert_eq!(weights(region, shop.name()), [100, 0]);
    shop.delete().await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_writes_weights_of_its_own_is_refused() {
    let shop = Shop::new("sa-east-1");
    let name = shop.name();
    let text = std::fs::read_to_string(root().join("engine/tests/fixtures/prototypes/canary.yml"));
    let text = text
        .expect("a fixture")
        .replace("app-", &format!("{name}-"));
    let template = shop.test.write("own.yml", &text);
    let deploy = |parameters: &[&str]| {
        shop.deploy(DeployRequest {
            template: Some(template.clone()),
            ..shop.request(parameters)
        })
    };
    script("cloudformation", json!({"stack": name, "polls": 2})).await;
    deploy(&IMAGES).await.expect("made");
    script("cloudformation", json!({"stack": name, "polls": 0})).await;
    // The next version of the template has its weights written down.
    let fixed = text
        .replace("Weight: !Ref StableWeight", "Weight: 80")
        .replace("Weight: !Ref CanaryWeight", "Weight: 20");
    assert_ne!(fixed, text, "the fixture refers to its parameters");
    let lines = fixed.lines().collect::<Vec<_>>().join("\n");
    let without = remove_parameter(&remove_parameter(&lines, "StableWeight"), "CanaryWeight");
    shop.test.write("own.yml", &without);
    let says = &["takes no weights as parameters"];
    refused(deploy(&[]).await, Kind::Busy, says);
}

/// The template without that parameter's own block.
fn remove_parameter(text: &str, name: &str) -> String {
    let mut inside = false;
    let kept = text.lines().filter(|line| {
        let indent = line.len() - line.trim_start().len();
        if inside && (indent > 2 || line.trim().is_empty()) {
            return false;
        }
        inside = *line == format!("  {name}:");
        !inside
    });
    kept.collect::<Vec<_>>().join("\n")
}

fn on_stack(verb: &[&'static str], name: &str) -> Vec<String> {
    let stack = ["--stack", name];
    verb.iter().chain(&stack).map(|a| (*a).to_owned()).collect()
}

fn ok_on(folder: &Path, region: &str, verb: &[&'static str], name: &str) -> String {
    let arguments = on_stack(verb, name);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    ok(folder, region, &arguments)
}

const CANARY: [&str; 6] = [
    "deploy",
    "canary",
    "-p",
    "ImageURIStable=app:v1",
    "-p",
    "ImageURICanary=app:v1",
];

/// CloudFormation goes back to what it believed before; the traffic does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_update_leaves_the_traffic_where_it_was() {
    let region = "us-west-2";
    let shop = Shop::open(region).await;
    let name = shop.name();
    let back = rollback(&shop.test.app, &shop.target, None).await;
    back.expect("done");
    let fail = json!({"CanaryService": "no room in the zone"});
    script("cloudformation", json!({"stack": name, "fail": fail})).await;
    let failed = shop.deploy(shop.request(&["TaskCpu=512"])).await;
    script("cloudformation", json!({"stack": name, "fail": null})).await;
    refused(failed, Kind::Internal, &["no room in the zone"]);
    let heard = shop.test.heard();
    assert!(heard.contains("it is back at stable 100 %"), "{heard}");
    assert_eq!(weights(region, name), [100, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_of_another_template_is_not_replaced_by_accident() {
    let region = "us-west-1";
    let shop = Shop::new(region);
    let template = root().join("engine/tests/fixtures/prototypes/canary.yml");
    let images = ["ImageURIStable=app:v1", "ImageURICanary=app:v1"];
    stack(region, shop.name(), &template, &images);
    refused(
        shop.deploy(shop.request(&[])).await,
        Kind::Busy,
        &["--accept-replacement"],
    );
    let seen = overview(&shop.test.app, &shop.target, None).await;
    assert!(seen.expect("seen").live.is_some());
}

/// A person's rollback must not wait for a stack operation of hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_goes_through_a_stack_operation() {
    let folder = folder();
    let (folder, region, name) = (folder.path(), "eu-west-2", unique("through"));
    tokio::task::block_in_place(|| {
        ok_on(folder, region, &CANARY, &name);
        ok_on(folder, region, &["set-weights", "60", "40"], &name);
    });
    script("cloudformation", json!({"stack": &name, "polls": 100_000})).await;
    let arguments = ["deploy", "canary", "-p", "TaskCpu=512", "--stack", &name];
    let process = spawn_with(folder, &arguments, |command| {
        emulator::environment(command, &emulator::endpoint(), region);
    });
    tokio::task::block_in_place(|| {
        // Until the deployment has the target, a verb of its own would be done.
        for _ in 0..100 {
            let output = run(
                folder,
                region,
                &["set-weights", "60", "40", "--stack", &name],
            );
            if output.status.code() == Some(7) {
                assert!(
                    stderr(&output).contains("changes its stack"),
                    "{}",
                    stderr(&output)
                );
                break;
            }
        }
        ok_on(folder, region, &["rollback"], &name);
        assert_eq!(weights(region, &name), [100, 0]);
    });
    script("cloudformation", json!({"stack": &name, "polls": 0})).await;
    // Killed or finished, the deployment's lease is in nobody's way.
    drop(process);
    tokio::task::block_in_place(|| {
        ok_on(folder, region, &["set-weights", "90", "10"], &name);
    });
    assert_eq!(weights(region, &name), [90, 10]);
}

/// A deployment that CloudFormation never finishes, with the target in its hands.
async fn deploying(folder: &Path, region: &str, name: &str) -> Running {
    deploying_with(folder, region, name, Value::Null).await
}

/// The same, and these resources fail to change.
async fn deploying_with(folder: &Path, region: &str, name: &str, fail: Value) -> Running {
    deploying_after(folder, (region, name), fail, || ()).await
}

/// The same, and something happens to the traffic before.
async fn deploying_after(
    folder: &Path,
    (region, name): (&str, &str),
    fail: Value,
    before: impl FnOnce(),
) -> Running {
    tokio::task::block_in_place(|| {
        ok_on(folder, region, &CANARY, name);
        ok_on(folder, region, &["set-weights", "60", "40"], name);
        before();
    });
    let slowly = json!({"stack": name, "polls": 100_000, "fail": fail});
    script("cloudformation", slowly).await;
    let arguments = ["deploy", "canary", "-p", "TaskCpu=512", "--stack", name];
    let process = spawn_with(folder, &arguments, |command| {
        emulator::environment(command, &emulator::endpoint(), region);
    });
    // Before CloudFormation is told, a command ends the change at once.
    let told = || change_of(folder, region, name).is_some() && moves(region, name);
    for _ in 0..200 {
        if tokio::task::block_in_place(told) {
            return process;
        }
    }
    panic!("CloudFormation was not told of the change");
}

/// Whether CloudFormation is changing that stack.
fn moves(region: &str, name: &str) -> bool {
    let described = aws(
        region,
        &["cloudformation", "describe-stacks", "--stack-name", name],
    );
    described["Stacks"][0]["StackStatus"] == "UPDATE_IN_PROGRESS"
}

/// The unfinished change of that stack.
fn change_of(folder: &Path, region: &str, name: &str) -> Option<String> {
    let listed = ok(
        folder,
        region,
        &["list", "--all", "--stack", name, "--json"],
    );
    let rows: Value = serde_json::from_str(&listed).expect("JSON");
    let mut rows = rows.as_array().expect("rows").iter();
    let row = rows.find(|r| {
        let id = r["rollout"].as_str().expect("an id");
        id.starts_with("deploy") && r["end"].is_null()
    })?;
    Some(row["rollout"].as_str()?.to_owned())
}

/// Whoever asks, and whether the process that changes the stack lives or not: the
/// traffic goes back, and the answer says so only then.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_stack_is_aborted_alive_and_dead() {
    for (nth, (verb, dead)) in [("abort", false), ("abort", true), ("rollback", true)]
        .into_iter()
        .enumerate()
    {
        let folder = folder();
        let (folder, region, name) = (folder.path(), "eu-north-1", unique(&format!("ab{nth}")));
        let mut process = deploying(folder, region, &name).await;
        if dead {
            process.0.kill().expect("SIGKILL");
            process.0.wait().expect("it ended");
        }
        tokio::task::block_in_place(|| {
            let output = run(folder, region, &[verb, "--stack", &name]);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(0), "{verb}: {said}");
            assert_eq!(weights(region, &name), [100, 0], "{verb}: {said}");
            // CloudFormation is still at it, and that is said where nobody watches.
            assert_eq!(said.contains("no process watches it"), dead, "{said}");
            let change = change_of(folder, region, &name).expect("goes on");
            if dead {
                let output = run(
                    folder,
                    region,
                    &["set-weights", "90", "10", "--stack", &name],
                );
                assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
                assert!(
                    stderr(&output).contains("engine resume"),
                    "{}",
                    stderr(&output)
                );
            } else {
                let output = run(folder, region, &["pause", &change]);
                assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
            }
        });
        script("cloudformation", json!({"stack": &name, "polls": 0})).await;
        if dead {
            tokio::task::block_in_place(|| {
                ok_on(folder, region, &["set-weights", "90", "10"], &name);
            });
        }
    }
}

/// A damaged journal of a change keeps nobody where they are. The process that makes
/// the change has its memory, and is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_journal_is_damaged_is_passed_over() {
    const FIRST: &str = "UPDATE journal SET event = '{}' WHERE rollout = ?1 AND seq = 0";
    const SECOND: &str =
        "INSERT INTO journal SELECT rollout, 1, at, epoch, '{}' FROM journal WHERE rollout = ?1";
    for (dead, damage) in [(true, FIRST), (true, SECOND), (false, FIRST)] {
        let folder = folder();
        let (folder, region, name) = (folder.path(), "eu-north-1", unique("damaged"));
        let mut process = deploying(folder, region, &name).await;
        if dead {
            process.0.kill().expect("SIGKILL");
            process.0.wait().expect("it ended");
        }
        let change = tokio::task::block_in_place(|| change_of(folder, region, &name));
        let store = rusqlite::Connection::open(folder.join("state/engine.db")).expect("there");
        store
            .busy_timeout(std::time::Duration::from_secs(5))
            .expect("a number");
        let damaged = store.execute(damage, [change.expect("a change")]);
        assert_eq!(damaged.expect("SQL"), 1);
        drop(store);
        if !dead {
            script("cloudformation", json!({"stack": &name, "polls": 5})).await;
        }
        tokio::task::block_in_place(|| {
            let output = run(folder, region, &["rollback", "--stack", &name]);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(0), "{said}");
            assert_eq!(said.contains("still drives"), !dead, "{said}");
            assert_eq!(weights(region, &name), [100, 0], "{said}");
        });
        script("cloudformation", json!({"stack": &name, "polls": 0})).await;
        drop(process);
        assert_eq!(weights(region, &name), [100, 0]);
    }
}

/// Ctrl-C leaves a stack that changes only with a word, and `resume` watches it to its
/// end. A failed update that nobody watched is given back then.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_left_is_resumed_and_given_back() {
    let folder = folder();
    let (folder, region, name) = (folder.path(), "eu-north-1", unique("left"));
    let fail = json!({"CanaryService": "no room"});
    let mut process = deploying_with(folder, region, &name, fail).await;
    for _ in 0..2 {
        signal(&process.0, "-INT");
        // Two within a second are one.
        std::thread::sleep(std::time::Duration::from_millis(1_200));
    }
    let left = process.0.wait().expect("it ended");
    assert_eq!(left.code(), Some(5));
    let change = tokio::task::block_in_place(|| {
        let change = change_of(folder, region, &name).expect("it goes on");
        let status = ok(folder, region, &["status", "--stack", &name]);
        assert!(status.contains(&change), "{status}");
        change
    });
    script("cloudformation", json!({"stack": &name, "polls": 0})).await;
    tokio::task::block_in_place(|| {
        // What CloudFormation writes when it goes back to what it believes.
        let shown = ok(folder, region, &["status", "--stack", &name, "--json"]);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        assert!(shown["target"]["arms"].is_array(), "{shown}");
        let output = run(folder, region, &["resume", &change]);
        assert_eq!(weights(region, &name), [60, 40], "{}", stderr(&output));
        assert!(change_of(folder, region, &name).is_none());
    });
    script("cloudformation", json!({"stack": &name, "fail": null})).await;
}

/// What a person does elsewhere while a stack changes is theirs: the end of the change
/// does not undo it.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_does_while_a_stack_changes_stays() {
    let (folder, other) = (folder(), folder());
    let (folder, region, name) = (folder.path(), "eu-north-1", unique("else"));
    let mut process = deploying(folder, region, &name).await;
    tokio::task::block_in_place(|| {
        ok_on(other.path(), region, &["rollback"], &name);
        assert_eq!(weights(region, &name), [100, 0]);
    });
    script("cloudformation", json!({"stack": &name, "polls": 0})).await;
    let ended = process.0.wait().expect("it ended");
    assert_eq!(ended.code(), Some(0));
    assert_eq!(weights(region, &name), [100, 0]);
}

/// A dry run, or a deployment that comes to nothing, takes nothing away that somebody
/// else has made under the same name.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_a_new_stack_leaves_nothing_and_takes_nothing() {
    let region = "eu-north-1";
    let shop = Shop::new(region);
    let dry = DeployRequest {
        dry_run: true,
        ..shop.request(&IMAGES)
    };
    let seen = shop.deploy(dry.clone()).await.expect("looked at");
    assert_eq!(seen.result, Deployment::DryRun);
    let described = try_aws(
        region,
        &[
            "cloudformation",
            "describe-stacks",
            "--stack-name",
            shop.name(),
        ],
    );
    described.expect_err("there is none");
    shop.deploy(shop.request(&IMAGES)).await.expect("made");
    shop.deploy(dry).await.expect("looked at");
    let seen = overview(&shop.test.app, &shop.target, None).await;
    assert!(seen.expect("seen").live.is_some());
}

/// Without the right to read the routes nobody knows whether there are users.
#[tokio::test(flavor = "multi_thread")]
async fn a_stack_under_a_rollout_is_not_deleted_whatever_can_be_read() {
    let region = "eu-north-1";
    let shop = Shop::named(region, &unique("kept"));
    let app = &shop.test.app;
    shop.deploy(shop.request(&IMAGES)).await.expect("made");
    // A new image goes only where no users are.
    rollback(app, &shop.target, None).await.expect("done");
    let request = BeginRequest {
        image: Some("app:v2".to_owned()),
        ..rollout("canary", shop.target.clone(), &["approve-before=5"])
    };
    let id = shop.test.begin_and_leave(&request).await;
    let arguments = ["elbv2", "describe-load-balancers"];
    let all = aws(region, &arguments);
    let balancers = all["LoadBalancers"].as_array().expect("some");
    let ours = balancers
        .iter()
        .find(|b| {
            b["LoadBalancerName"]
                .as_str()
                .is_some_and(|n| n.starts_with("kept"))
        })
        .expect("made")["LoadBalancerArn"]
        .as_str()
        .expect("a text")
        .to_owned();
    // Somebody takes the load balancer away: nothing of the target can be read.
    aws(
        region,
        &[
            "elbv2",
            "delete-load-balancer",
            "--load-balancer-arn",
            &ours,
        ],
    );
    let says = format!("busy with rollout {id}");
    refused(shop.delete().await, Kind::Busy, &[&says]);
}

/// A stack that went with its load balancer leaves a change that only needs its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_load_balancer_is_gone_ends() {
    let folder = folder();
    let (folder, region, name) = (folder.path(), "eu-north-1", unique("gone"));
    let mut process = deploying(folder, region, &name).await;
    process.0.kill().expect("SIGKILL");
    process.0.wait().expect("it ended");
    script("cloudformation", json!({"stack": &name, "polls": 0})).await;
    tokio::task::block_in_place(|| {
        let change = change_of(folder, region, &name).expect("a change");
        for _ in 0..20 {
            aws(
                region,
                &["cloudformation", "describe-stacks", "--stack-name", &name],
            );
        }
        aws(
            region,
            &["cloudformation", "delete-stack", "--stack-name", &name],
        );
        let output = run(folder, region, &["abort", &change]);
        let said = stderr(&output);
        let shown = ok(folder, region, &["status", &change, "--json"]);
        assert!(shown.contains("does not exist any more"), "{shown} {said}");
        assert_eq!(output.status.code(), Some(0), "{said}");
    });
}

/// With the credentials of another account nothing of it exists, and nothing is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_another_account_is_not_ended() {
    let folder = folder();
    let (folder, region, name) = (folder.path(), "eu-north-1", unique("account"));
    let mut process = deploying(folder, region, &name).await;
    process.0.kill().expect("SIGKILL");
    process.0.wait().expect("it ended");
    tokio::task::block_in_place(|| {
        let change = change_of(folder, region, &name).expect("a change");
        let other = emulator::Emulator::start(&[]);
        let mut command = engine(folder, &["resume", &change]);
        emulator::environment(&mut command, &format!("http://{}", other.address), region);
        let output = command.output().expect("the binary runs");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("another account"), "{said}");
        assert_eq!(change_of(folder, region, &name), Some(change), "{said}");
    });
    script("cloudformation", json!({"stack": &name, "polls": 0})).await;
    tokio::task::block_in_place(|| ok_on(folder, region, &["rollback"], &name));
}

/// The change sets of a stack, by their names.
fn change_sets(region: &str, name: &str) -> Vec<String> {
    let list = ["cloudformation", "list-change-sets", "--stack-name", name];
    let all = aws(region, &list)["Summaries"].clone();
    let all = all.as_array().expect("a list").clone();
    // What was executed stays listed.
    let waits = all.iter().filter(|s| s["ExecutionStatus"] == "AVAILABLE");
    let names = waits.map(|set| set["ChangeSetName"].as_str().expect("a name").to_owned());
    names.collect()
}

/// A deployment that is killed before its change set is executed leaves that, and the next
/// one deletes it. Siblings: one of a person stays, also under a name like ours, and a dry
/// run deletes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_set_that_was_left_is_deleted_by_the_next_deployment() {
    let region = "eu-central-1";
    let shop = Shop::open(region).await;
    let create = |name: &str, description: &str| {
        let parameters: Vec<String> = ["ImageURIStable", "ImageURICanary"]
            .map(|key| format!("ParameterKey={key},UsePreviousValue=true"))
            .into();
        let mut create = vec!["cloudformation", "create-change-set", "--stack-name"];
        create.extend([shop.name(), "--change-set-name", name]);
        create.extend(["--use-previous-template", "--description", description]);
        create.extend(["--capabilities", "CAPABILITY_IAM", "--parameters"]);
        create.push("ParameterKey=TaskCpu,ParameterValue=1024");
        create.extend(parameters.iter().map(String::as_str));
        aws(region, &create);
    };
    let ours = "made by engine, which deletes it if it is not executed";
    tokio::task::block_in_place(|| {
        create("engine-abcd2345", ours);
        create("engine-database", "of a person");
        create("review", ours);
    });
    let dry = DeployRequest {
        dry_run: true,
        ..shop.request(&["TaskCpu=512"])
    };
    shop.deploy(dry).await.expect("shown");
    let left = || tokio::task::block_in_place(|| change_sets(region, shop.name()));
    assert!(
        left().contains(&"engine-abcd2345".to_owned()),
        "{:?}",
        left()
    );
    shop.test.heard();
    // One that is executed would take all others with it.
    let deployed = shop
        .deploy(shop.request(&[]))
        .await
        .expect("it is as wanted");
    assert_eq!(deployed.result, Deployment::NoChanges);
    let heard = shop.test.heard();
    assert!(
        heard.contains("deleted the change set engine-abcd2345"),
        "{heard}"
    );
    let left = left();
    assert!(!left.contains(&"engine-abcd2345".to_owned()), "{left:?}");
    for other in ["engine-database", "review"] {
        assert!(left.contains(&other.to_owned()), "{other}: {left:?}");
    }
}

/// The ARN of a stack says its region, also to who changes the stack itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_region_of_a_stack_s_arn_decides_for_deploy_and_delete() {
    let (region, elsewhere) = ("eu-central-1", "ap-northeast-3");
    let shop = Shop::open(region).await;
    let folder = folder();
    tokio::task::block_in_place(|| {
        let describe = ["cloudformation", "describe-stacks", "--stack-name"];
        let describe = [&describe[..], &[shop.name()]].concat();
        let arn = aws(region, &describe)["Stacks"][0]["StackId"].clone();
        let arn = arn.as_str().expect("an ARN");
        let deploy = ["deploy", "canary", "-p", "TaskCpu=512", "--stack", arn];
        let output = run(folder.path(), elsewhere, &deploy);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("the region eu-central-1 is used"), "{said}");
        let delete = ["delete", "--yes", "--stack", arn];
        let output = run(folder.path(), elsewhere, &delete);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        try_aws(region, &describe).expect_err("it is deleted");
    });
}

/// What somebody set by hand on a listener of the stack.
fn set_stickiness(region: &str, listener: &str) {
    let arguments = ["elbv2", "describe-listeners", "--listener-arns", listener];
    let mut actions = aws(region, &arguments)["Listeners"][0]["DefaultActions"].clone();
    actions[0]["ForwardConfig"]["TargetGroupStickinessConfig"] =
        json!({"Enabled": true, "DurationSeconds": 300});
    let actions = actions.to_string();
    let modify = ["elbv2", "modify-listener", "--listener-arn", listener];
    aws(
        region,
        &[&modify[..], &["--default-actions", &actions]].concat(),
    );
}

fn stickiness(region: &str, listener: &str) -> Value {
    let arguments = ["elbv2", "describe-listeners", "--listener-arns", listener];
    let config = aws(region, &arguments)["Listeners"][0]["DefaultActions"][0]["ForwardConfig"]
        ["TargetGroupStickinessConfig"]
        .clone();
    config["Enabled"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_outside_the_template_is_kept_or_accepted() {
    let region = "ap-northeast-2";
    script("cloudformation", json!({"region": region, "polls": 0})).await;
    let shop = Shop::open(region).await;
    let name = shop.name();
    let seen = overview(&shop.test.app, &shop.target, None).await;
    let listener = seen.expect("seen").identity;
    set_stickiness(region, &listener);
    shop.set(["100", "0"]).await;
    let before = weights(region, name);
    // The weights are told, and with them the listener would be rewritten.
    refused(
        shop.deploy(shop.request(&[])).await,
        Kind::Busy,
        &["stickiness is 300 s and would be off", "--accept"],
    );
    assert_eq!(stickiness(region, &listener), true);
    assert_eq!(weights(region, name), before);
    // Fewer tasks for an arm that serves.
    let fewer = || shop.request(&["DesiredCountStable=1"]);
    let accepts_weights = DeployRequest {
        accept_weights: true,
        ..fewer()
    };
    refused(shop.deploy(accepts_weights).await, Kind::Busy, &[]);
    let accepts = DeployRequest {
        accept: true,
        ..shop.request(&[])
    };
    shop.deploy(accepts).await.expect("accepted");
    assert_eq!(stickiness(region, &listener), false, "as was accepted");
    assert_eq!(weights(region, name), before, "weights are not");
    let says = &["would take tasks from"];
    refused(shop.deploy(fewer()).await, Kind::Busy, says);
    script("cloudformation", json!({"region": region, "polls": 2})).await;
}

/// What somebody does at the console to the weights of a listener.
fn move_by_hand(region: &str, listener: &str, shares: [i64; 2]) {
    let arguments = ["elbv2", "describe-listeners", "--listener-arns", listener];
    let mut actions = aws(region, &arguments)["Listeners"][0]["DefaultActions"].clone();
    let groups = actions[0]["ForwardConfig"]["TargetGroups"].as_array_mut();
    for group in groups.expect("groups") {
        let arn = group["TargetGroupArn"].as_str().expect("an ARN").to_owned();
        group["Weight"] = json!(shares[usize::from(arn.contains("anary"))]);
    }
    let actions = actions.to_string();
    let modify = ["elbv2", "modify-listener", "--listener-arn", listener];
    aws(
        region,
        &[&modify[..], &["--default-actions", &actions]].concat(),
    );
}

async fn listener_of(shop: &Shop) -> String {
    let seen = overview(&shop.test.app, &shop.target, None).await;
    seen.expect("seen").identity
}

/// Stickiness stands for all that people put on a route, such as a login.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_puts_on_a_route_while_its_stack_changes_stays() {
    let region = "eu-central-1";
    let shop = Shop::open(region).await;
    shop.set(["60", "40"]).await;
    let listener = listener_of(&shop).await;
    let somebody = Meanwhile::new(|| set_stickiness(region, &listener));
    let request = shop.request(&["TaskCpu=512"]);
    shop.deploy_with(request, &somebody).await.expect("done");
    assert_eq!(stickiness(region, &listener), true);
    assert_eq!(weights(region, shop.name()), [60, 40]);
    let heard = shop.test.heard();
    assert!(heard.contains("somebody changed the action"), "{heard}");
}

/// A stack that was made with 100/0 can have written 100/0, and so can a person who
/// takes the traffic back. Nobody is given the canary again by guessing.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_is_never_undone_by_a_stack_s_end() {
    let region = "eu-central-1";
    let shop = Shop::new(region);
    let all = [&IMAGES[..], &["StableWeight=100", "CanaryWeight=0"]].concat();
    shop.deploy(shop.request(&all)).await.expect("made");
    shop.set(["60", "40"]).await;
    let listener = listener_of(&shop).await;
    let fail = json!({"CanaryService": "no room"});
    script(
        "cloudformation",
        json!({"stack": shop.name(), "fail": fail}),
    )
    .await;
    let on_call = Meanwhile::new(|| move_by_hand(region, &listener, [100, 0]));
    let request = shop.request(&["TaskCpu=512"]);
    let failed = shop.deploy_with(request, &on_call).await;
    script(
        "cloudformation",
        json!({"stack": shop.name(), "fail": null}),
    )
    .await;
    refused(failed, Kind::Internal, &["no room"]);
    assert_eq!(weights(region, shop.name()), [100, 0]);
    let heard = shop.test.heard();
    assert!(heard.contains("it stays there"), "{heard}");
}

/// A person may change their mind, at the console too.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_does_after_a_rollback_stays_too() {
    let folder = folder();
    let (folder, region, name) = (folder.path(), "eu-central-1", unique("mind"));
    let mut process = deploying(folder, region, &name).await;
    tokio::task::block_in_place(|| {
        let back = ok_on(folder, region, &["rollback", "--json"], &name);
        let back: Value = serde_json::from_str(&back).expect("JSON");
        let why = back["why"].as_str().expect("it says why");
        assert!(why.contains("stable arm"), "{why}");
        let shown = ok_on(folder, region, &["status", "--json"], &name);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        let listener = shown["target"]["identity"].as_str().expect("an ARN");
        move_by_hand(region, listener, [0, 100]);
        std::thread::sleep(std::time::Duration::from_secs(5));
        assert_eq!(weights(region, &name), [0, 100]);
    });
    script("cloudformation", json!({"stack": &name, "polls": 0})).await;
    let ended = process.0.wait().expect("it ended");
    assert_eq!(ended.code(), Some(0));
    assert_eq!(weights(region, &name), [0, 100]);
}

/// Whoever asks in time is obeyed before CloudFormation hears anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_stopped_in_time_deletes_nothing() {
    let region = "eu-central-1";
    let shop = Shop::open(region).await;
    let doomed = doomed(&shop.test.app, &shop.target).await.expect("there");
    let deleted = delete(&shop.test.app, &doomed, &Leaving).await;
    assert!(matches!(deleted, Ok(Deleted::Stopped)), "{deleted:?}");
    assert_eq!(weights(region, shop.name()), [95, 5], "it is all there");
    let request = ListRequest {
        limit: 5,
        all: true,
        ..<_>::default()
    };
    let rows = list(&shop.test.app, &request);
    let rows = rows.await.expect("rows");
    assert!(
        rows.iter().all(|listed| listed.row.end.is_some()),
        "{rows:?}"
    );
    shop.delete().await.expect("now it goes");
}

/// CloudFormation may do what it was told although nobody heard that it will.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_leaves_no_stack_unwatched() {
    let region = "eu-central-1";
    let proxy = Proxy::start().await;
    let shop = Shop::of(TestApp::through(&proxy.endpoint), region, &unique("lost"));
    let made = shop.deploy(shop.request(&IMAGES)).await.expect("made");
    assert_eq!(made.result, Deployment::Done);
    for lost in ["ExecuteChangeSet", "DeleteStack"] {
        proxy.plot(move |nth, name| match name == lost && nth == 0 {
            true => Trouble::AnswerLost,
            false => Trouble::None,
        });
        match lost {
            "DeleteStack" => shop.delete().await.expect("it is gone"),
            _ => {
                let done = shop.deploy(shop.request(&["TaskCpu=512"])).await;
                assert_eq!(done.expect("followed").result, Deployment::Done);
                assert_eq!(shop.parameter("TaskCpu"), "512");
            }
        }
    }
}

/// A process that cannot see what CloudFormation does leaves the change to one that
/// can: nothing ends while the stack may move the traffic.
#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_cannot_be_followed_is_left_to_be_resumed() {
    let region = "eu-central-1";
    let proxy = Proxy::start().await;
    let shop = Shop::of(TestApp::through(&proxy.endpoint), region, &unique("unseen"));
    shop.deploy(shop.request(&IMAGES)).await.expect("made");
    shop.set(["60", "40"]).await;
    script(
        "cloudformation",
        json!({"stack": shop.name(), "polls": 100_000}),
    )
    .await;
    let mut told = false;
    proxy.plot(move |_, name| {
        told |= name == "ExecuteChangeSet";
        match told && name == "DescribeStackEvents" {
            true => Trouble::Refused(403, "AccessDenied"),
            false => Trouble::None,
        }
    });
    let failed = shop.deploy(shop.request(&["TaskCpu=512"])).await;
    proxy.calm();
    let error = failed.expect_err("it cannot be followed");
    let said = engine::cli::advice::text(&error);
    assert!(said.contains("engine resume"), "{said}");
    let rows = || async {
        let request = ListRequest {
            limit: 5,
            all: true,
            ..<_>::default()
        };
        list(&shop.test.app, &request).await.expect("rows")
    };
    let open = rows()
        .await
        .into_iter()
        .find(|listed| listed.row.end.is_none());
    let open = open.expect("the change is open").row.rollout;
    script("cloudformation", json!({"stack": shop.name(), "polls": 0})).await;
    let ended = shop.test.drive_on(&open).await;
    assert!(matches!(ended, Standing::Over(End::Done, _)), "{ended:?}");
    assert_eq!(weights(region, shop.name()), [60, 40]);
}

/// Weights that were accepted for a change are not accepted for its failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_change_that_was_left_gives_back_what_was_accepted_for_its_success() {
    let region = "eu-central-1";
    let shop = Shop::open(region).await;
    shop.set(["60", "40"]).await;
    let fail = json!({"CanaryService": "no room"});
    script(
        "cloudformation",
        json!({"stack": shop.name(), "fail": fail, "polls": 4}),
    )
    .await;
    let request = DeployRequest {
        accept_weights: true,
        ..shop.request(&["TaskCpu=512", "StableWeight=50", "CanaryWeight=50"])
    };
    let leaving = Meanwhile::leaving(|| (), 2);
    let left = shop.deploy_with(request, &leaving).await.expect("left");
    assert_eq!(left.result, Deployment::Left);
    script("cloudformation", json!({"stack": shop.name(), "polls": 0})).await;
    let ended = shop.test.drive_on(&left.left.expect("a rollout")).await;
    script(
        "cloudformation",
        json!({"stack": shop.name(), "fail": null}),
    )
    .await;
    assert!(matches!(ended, Standing::Over(End::Done, _)), "{ended:?}");
    assert_eq!(weights(region, shop.name()), [60, 40]);
}

/// A listener on port 443 that does what the one of a stack does; its ARN.
fn second(region: &str, listener: &str) -> String {
    let describe = ["elbv2", "describe-listeners", "--listener-arns", listener];
    let shown = aws(region, &describe)["Listeners"][0].clone();
    let balancer = shown["LoadBalancerArn"].as_str().expect("an ARN");
    let actions = shown["DefaultActions"].to_string();
    let create = ["elbv2", "create-listener", "--load-balancer-arn", balancer];
    let port = ["--protocol", "HTTP", "--port", "443"];
    let create = [&create[..], &port, &["--default-actions", &actions]].concat();
    let made = aws(region, &create)["Listeners"][0]["ListenerArn"].clone();
    made.as_str().expect("an ARN").to_owned()
}

/// What a listener has, by the names of its groups.
fn shares(region: &str, listener: &str) -> [i64; 2] {
    let describe = ["elbv2", "describe-listeners", "--listener-arns", listener];
    let actions = aws(region, &describe)["Listeners"][0]["DefaultActions"].clone();
    let groups = actions[0]["ForwardConfig"]["TargetGroups"].clone();
    let mut all = [0, 0];
    for group in groups.as_array().expect("groups") {
        let arn = group["TargetGroupArn"].as_str().expect("an ARN");
        all[usize::from(arn.contains("anary"))] = group["Weight"].as_i64().expect("a weight");
    }
    all
}

/// Nobody says where the traffic is of what was not read: what somebody does to another
/// route while the stack changes stays, and the change does not end well. Siblings: one
/// that was apart before is not looked after, and that is said; one that is taken back, and
/// one that redirects.
#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_another_route_while_a_stack_changes_is_said() {
    let region = "eu-central-1";
    for moved in [[0, 100], [100, 0]] {
        let shop = Shop::open(region).await;
        let first = listener_of(&shop).await;
        let other = tokio::task::block_in_place(|| second(region, &first));
        shop.set(["60", "40"]).await;
        assert_eq!(shares(region, &other), [60, 40]);
        let somebody = Meanwhile::new(|| move_by_hand(region, &other, moved));
        let request = shop.request(&["TaskCpu=512"]);
        let ended = shop.deploy_with(request, &somebody).await;
        let says = format!("HTTP:443 is at stable {} %", moved[0]);
        refused(ended, Kind::RollbackFailed, &[&says]);
        assert_eq!(shares(region, &first), [60, 40]);
        assert_eq!(shares(region, &other), moved, "nobody guesses");
        // What is apart from the beginning.
        shop.test.heard();
        let again = shop.deploy(shop.request(&["TaskCpu=256"])).await;
        again.expect("the rest is looked after");
        let heard = shop.test.heard();
        assert!(
            heard.contains(&says) && heard.contains("nobody looks after"),
            "{heard}"
        );
        assert_eq!(shares(region, &other), moved);
    }
}

/// A template with both listeners, which goes back to what it believed: both are given
/// back.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_update_leaves_every_listener_of_its_stack_where_it_was() {
    let shop = Shop::new("eu-central-1");
    let region = "eu-central-1";
    let name = shop.name();
    let text = std::fs::read_to_string(root().join("engine/tests/fixtures/prototypes/canary.yml"));
    let text = text
        .expect("a fixture")
        .replace("app-", &format!("{name}-"));
    let text = text.replace("ecs-canary-demo", name);
    let from = text.find("  Listener:").expect("a listener");
    let to = text.find("  Cluster:").expect("a cluster");
    let more = text[from..to]
        .replace("  Listener:", "  Secured:")
        .replace("Port: 80", "Port: 443");
    let text = format!("{}{more}{}", &text[..to], &text[to..]);
    let template = shop.test.write("both.yml", text);
    let with = |parameters: &[&str]| DeployRequest {
        template: Some(template.clone()),
        ..shop.request(parameters)
    };
    shop.deploy(with(&IMAGES)).await.expect("made");
    let (_, target) = shop.test.app.target(&shop.target).await.expect("found");
    let live = target.traffic().await.expect("read");
    let first = target.identity().to_owned();
    let [other] = &live.others[..] else {
        panic!("both: {live:?}");
    };
    shop.set(["100", "0"]).await;
    let fail = json!({"ServiceCanary": "no room"});
    script("cloudformation", json!({"stack": name, "fail": fail})).await;
    let failed = shop.deploy(with(&["TaskCpu=512"])).await;
    script("cloudformation", json!({"stack": name, "fail": null})).await;
    refused(failed, Kind::Internal, &["no room"]);
    let heard = shop.test.heard();
    assert_eq!(shares(region, &first), [100, 0], "{heard}");
    assert_eq!(shares(region, &other.route), [100, 0], "{heard}");
    assert!(heard.contains("back at stable 100 %"), "{heard}");
}

/// A person's way back moves every route, whether the process that changes the stack lives
/// or not, and whether they were together before or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_during_a_change_of_a_stack_takes_every_route_back() {
    for (dead, apart) in [(false, false), (true, false), (false, true)] {
        let folder = folder();
        let (folder, region, name) = (folder.path(), "eu-north-1", unique("every"));
        let mut listeners = vec![];
        let has = [[60, 40], if apart { [90, 10] } else { [60, 40] }];
        let before = || {
            let shown = ok(folder, region, &["status", "--stack", &name, "--json"]);
            let shown: Value = serde_json::from_str(&shown).expect("JSON");
            let first = shown["target"]["identity"].as_str().expect("an ARN");
            listeners = vec![first.to_owned(), second(region, first)];
            if apart {
                move_by_hand(region, &listeners[1], [90, 10]);
            }
        };
        let mut process = deploying_after(folder, (region, &name), Value::Null, before).await;
        tokio::task::block_in_place(|| {
            for (listener, has) in listeners.iter().zip(has) {
                assert_eq!(shares(region, listener), has);
            }
            if dead {
                process.0.kill().expect("SIGKILL");
                process.0.wait().expect("it ended");
            }
            let back = run(folder, region, &["rollback", "--stack", &name]);
            assert_eq!(back.status.code(), Some(0), "{}", stderr(&back));
            for listener in &listeners {
                assert_eq!(shares(region, listener), [100, 0], "{}", stderr(&back));
            }
        });
        script("cloudformation", json!({"stack": &name, "polls": 0})).await;
        if !dead {
            let ended = process.0.wait().expect("it ended");
            assert_eq!(ended.code(), Some(0));
        }
        for listener in &listeners {
            assert_eq!(shares(region, listener), [100, 0]);
        }
    }
}

/// What somebody does at the last moment: as CloudFormation is told, and before it writes.
fn as_it_is_told(proxy: &Proxy, call: &'static str, act: impl FnOnce() + Send + 'static) {
    let mut act = Some(act);
    proxy.plot(move |_, name| {
        if name == call
            && let Some(act) = act.take()
        {
            std::thread::spawn(act).join().expect("done");
        }
        Trouble::None
    });
}

/// Between the last look at the listener and the stack's own write nobody can look: a rollback
/// that another folder makes just then stays, however the change ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_elsewhere_just_before_a_stack_writes_stays() {
    let region = "eu-central-1";
    for fails in [false, true] {
        let proxy = Proxy::start().await;
        let shop = Shop::of(TestApp::through(&proxy.endpoint), region, &unique("told"));
        shop.deploy(shop.request(&IMAGES)).await.expect("made");
        shop.set(["60", "40"]).await;
        let listener = listener_of(&shop).await;
        let fail = |why: Value| {
            let fail = json!({"stack": shop.name(), "fail": why});
            script("cloudformation", fail)
        };
        if fails {
            fail(json!({"CanaryService": "no room"})).await;
        }
        let route = listener.clone();
        as_it_is_told(&proxy, "ExecuteChangeSet", move || {
            move_by_hand(region, &route, [100, 0]);
        });
        shop.test.heard();
        let done = shop.deploy(shop.request(&["TaskCpu=512"])).await;
        fail(Value::Null).await;
        let heard = shop.test.heard();
        match fails {
            true => drop(refused(done, Kind::Internal, &["no room"])),
            false => {
                let deployed = done.expect("done");
                assert_eq!(deployed.weights.expect("a target").share("stable"), 100.0);
                assert_eq!(shop.parameter("TaskCpu"), "512");
            }
        }
        assert_eq!(weights(region, shop.name()), [100, 0], "{heard}");
        assert!(heard.contains("stays there"), "{heard}");
        // Where all of it is at home the stack is told so, and nobody is moved.
        proxy.calm();
        shop.deploy(shop.request(&[])).await.expect("told");
        assert_eq!(shop.parameter("StableWeight"), "100");
        assert_eq!(weights(region, shop.name()), [100, 0]);
    }
}

/// The colour that serves is no home either, once it was switched to: the stack keeps the
/// one that it has, and who goes back meanwhile is not overruled.
#[tokio::test(flavor = "multi_thread")]
async fn a_colour_that_was_switched_to_is_not_written_by_its_stack() {
    let region = "eu-central-1";
    let proxy = Proxy::start().await;
    let shop = Shop::of(TestApp::through(&proxy.endpoint), region, &unique("hue"));
    let colours = |parameters: &[&str]| DeployRequest {
        kind: Template::BlueGreen,
        ..shop.request(parameters)
    };
    let images = ["ImageURIBlue=app:v1", "ImageURIGreen=app:v1"];
    shop.deploy(colours(&images)).await.expect("made");
    let app = &shop.test.app;
    engine::ops::traffic::switch(app, &shop.target, "green")
        .await
        .expect("done");
    assert_eq!(weights(region, shop.name()), [0, 100]);
    let elsewhere = TestApp::new();
    let target = shop.target.clone();
    let handle = tokio::runtime::Handle::current();
    as_it_is_told(&proxy, "ExecuteChangeSet", move || {
        let back = rollback(&elsewhere.app, &target, Some("blue"));
        handle.block_on(back).expect("done");
    });
    shop.deploy(colours(&["TaskCpu=512"])).await.expect("done");
    assert_eq!(weights(region, shop.name()), [100, 0]);
}

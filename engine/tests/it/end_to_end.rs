//! Whole rollouts with the real binary, the real plugins and real requests.

use std::path::Path;
use std::time::{Duration, Instant};

use engine::model::{DemoFault, Weights};
use engine::target::Target;
use serde_json::Value;

use crate::support::balancer::{self, Local};
use crate::support::binary::{code, plugin, run, signal, spawn, stderr, stdout, until, wait};
use crate::support::folder;

/// Goes on with a rollout, and once it is driven again promotes it.
fn finish_in_full(folder: &Path, admin: &str, resume: &[&str]) {
    let process = spawn(folder, resume);
    until(folder, admin, |s| {
        s["driven"] == true && s["rollout"]["hold"].is_null()
    });
    let promote = run(folder, &["promote", "--full"]);
    assert_eq!(code(&promote), Some(0), "{}", stderr(&promote));
    let output = wait(process);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
}

#[test]
fn the_demo_ends_promoted() {
    let folder = folder();
    let output = run(
        folder.path(),
        &["run", &plugin("canary"), "--set", "max-bake=6s"],
    );
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).starts_with("promoted: v2 is not worse: evidence"),
        "{}",
        stdout(&output)
    );
    assert!(
        stdout(&output).contains("; 0 of them failed"),
        "{}",
        stdout(&output)
    );
    let progress = stderr(&output);
    let mut rest = progress.as_str();
    for step in [
        "canary 5 %",
        "canary 25 %",
        "canary 50 %",
        "canary 95 %",
        "canary 100 %",
        "stable gets v2",
        "stable 100 %",
    ] {
        let (_, after) = rest
            .split_once(step)
            .unwrap_or_else(|| panic!("no {step:?} in its place in\n{progress}"));
        rest = after;
    }
    // What it did can be read again.
    let list = stdout(&run(folder.path(), &["list"]));
    assert!(list.contains("succeeded"), "{list}");
    let history = stdout(&run(folder.path(), &["history"]));
    assert!(
        history.contains("strategy set-weights stable=95 canary=5"),
        "{history}"
    );
    assert!(history.contains("ended      promoted"), "{history}");
    assert!(history.contains("goes on: evidence"), "{history}");
    let json = stdout(&run(folder.path(), &["history", "--json"]));
    let entries: Value = serde_json::from_str(&json).expect("JSON");
    let reports = entries.as_array().expect("entries").iter();
    let mut reports = reports.filter(|e| e["event"]["call"]["fn"] == "report");
    let finding = &reports.next().expect("a look")["event"]["call"]["finding"];
    assert!(finding["log-evidence"].is_number(), "{finding}");
    let plot = folder.path().join("rollout.svg").display().to_string();
    let drawn = run(folder.path(), &["history", "--plot", &plot]);
    assert_eq!(code(&drawn), Some(0), "{}", stderr(&drawn));
    let picture = std::fs::read_to_string(&plot).expect("written");
    assert!(picture.contains("rolls back at 100:1"));
}

#[test]
fn blue_green_on_colours() {
    let folder = folder();
    let arguments = [
        "run",
        &plugin("blue-green"),
        "--names",
        "blue,green",
        "--set",
        "bake=2s",
        "--json",
    ];
    let output = run(folder.path(), &arguments);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let status: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(status["phase"], "succeeded");
    assert_eq!(
        status["weights"][1]["weight"], 100,
        "green keeps the traffic"
    );
    assert!(
        stderr(&output).contains("traffic: all to green"),
        "progress is on stderr"
    );
    assert_eq!(status["exit"], 0);
    let mut bad = arguments[..6].to_vec();
    bad.extend(["--demo-fault", "error-rate=0.3"]);
    let output = run(folder.path(), &bad);
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
}

#[test]
fn without_traffic_it_holds_says_why_and_never_promotes() {
    let folder = folder();
    let local = Local::start(folder.path(), &[]);
    let arguments = [
        "run",
        &plugin("canary"),
        "--local",
        &local.admin(),
        "--set",
        "gate=limits",
        "--set",
        "bake=1s",
        "--on-interrupt",
        "rollback",
    ];
    let process = spawn(folder.path(), &arguments);
    let status = until(folder.path(), &local.admin(), |s| {
        s["rollout"]["note"]
            .as_str()
            .is_some_and(|n| n.contains("holds"))
    });
    let note = status["rollout"]["note"].as_str().expect("text");
    assert!(
        note.contains("0 of 20 requests seen; needs traffic to go on"),
        "{note}"
    );
    std::thread::sleep(Duration::from_secs(3));
    let status = until(folder.path(), &local.admin(), |_| true);
    assert_eq!(
        status["rollout"]["weights"][1]["weight"], 5,
        "still at the first step"
    );
    assert_eq!(status["driven"], true);
    // Ctrl-C with --on-interrupt rollback takes the traffic back, also if it
    // comes twice at once, as `timeout` does it.
    signal(&process.0, "-TERM");
    std::thread::sleep(Duration::from_millis(20));
    signal(&process.0, "-TERM");
    let output = wait(process);
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    let status = until(folder.path(), &local.admin(), |_| true);
    assert_eq!(status["target"]["arms"][0]["weight"], 100);
}

#[test]
fn the_prototypes_verbs() {
    let folder = folder();
    let local = Local::start(folder.path(), &["--names", "blue,green"]);
    let admin = local.admin();
    let go = |verb: &[&str]| {
        let mut arguments = verb.to_vec();
        arguments.extend(["--local", &admin]);
        run(folder.path(), &arguments)
    };
    until(folder.path(), &admin, |s| {
        s["target"]["arms"][1]["healthy"] == 1
    });
    let output = go(&["set-weights", "75", "25"]);
    assert_eq!(
        (code(&output), stdout(&output).trim()),
        (Some(0), "blue 75 %, green 25 % (was blue 100 %, green 0 %)")
    );
    let output = go(&["set-weights", "75", "26"]);
    assert_eq!(code(&output), Some(2));
    assert!(
        stderr(&output).contains("must sum to 100"),
        "{}",
        stderr(&output)
    );
    let output = go(&["switch", "purple"]);
    assert_eq!(code(&output), Some(2));
    assert!(
        stderr(&output).contains("no arm \"purple\"; there are blue and green"),
        "{}",
        stderr(&output)
    );
    let output = go(&["switch", "green"]);
    assert_eq!(
        (code(&output), stdout(&output).trim()),
        (Some(0), "blue 0 %, green 100 % (was blue 75 %, green 25 %)")
    );
    // Back to the colour that was stable before.
    let output = go(&["rollback", "--json"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let says: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(says["weights"][0]["weight"], 100);
    assert!(
        stderr(&output).contains("takes all traffic to blue: it had all traffic before"),
        "{}",
        stderr(&output)
    );
    assert!(says["why"].as_str().expect("text").contains("set-weights"));
    // And a second time it stays there, and says what that means.
    let output = go(&["rollback"]);
    assert_eq!(code(&output), Some(10), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("nothing was taken back: blue had all traffic already"),
        "{}",
        stderr(&output)
    );
    assert!(
        stdout(&output).starts_with("blue 100 %"),
        "{}",
        stdout(&output)
    );
    let status = stdout(&go(&["status"]));
    assert!(
        status.contains("blue   v1") && status.contains("100 %"),
        "{status}"
    );
    // A verb is in the history like any other rollout.
    let list = stdout(&go(&["list", "--all"]));
    assert!(
        list.contains("switch-") && list.contains("set-weights-"),
        "{list}"
    );
}

#[test]
fn people_steer_from_other_processes() {
    let folder = folder();
    let local = Local::start(folder.path(), &["--load", "100"]);
    let admin = local.admin();
    let arguments = [
        "run",
        &plugin("canary"),
        "--local",
        &admin,
        "--set",
        "bake=1s",
        "--set",
        "steps=20,50,100",
        "--set",
        "approve-before=50",
    ];
    let process = spawn(folder.path(), &arguments);
    let waits = |s: &Value| {
        let signals = s["rollout"]["waiting"]["signals"].as_array();
        signals.is_some_and(|s| s.iter().any(|s| s == "approve"))
    };
    until(folder.path(), &admin, waits);
    let go = |verb: &[&str]| run(folder.path(), verb);
    // Nobody else moves this traffic now, and the rollout cannot be approved twice.
    let refused = go(&["set-weights", "0", "100", "--local", &admin]);
    assert_eq!(code(&refused), Some(7), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("busy with rollout canary-"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(code(&go(&["pause"])), Some(0));
    let paused = wait(process);
    assert_eq!(code(&paused), Some(5), "{}", stderr(&paused));
    assert!(
        stdout(&paused).starts_with("paused: asked by tester"),
        "{}",
        stdout(&paused)
    );
    let process = spawn(folder.path(), &["resume"]);
    until(folder.path(), &admin, |s| s["driven"] == true && waits(s));
    assert_eq!(code(&go(&["approve", "--comment", "fine"])), Some(0));
    let again = go(&["approve"]);
    assert_eq!(code(&again), Some(2));
    assert!(
        stderr(&again).contains("does not wait for an approval"),
        "{}",
        stderr(&again)
    );
    assert_eq!(code(&go(&["promote", "--full"])), Some(0));
    let output = wait(process);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("promoted in full by tester"),
        "{}",
        stdout(&output)
    );
    let over = go(&["abort"]);
    assert_eq!(code(&over), Some(2), "nothing is under way");
}

#[test]
fn abort_from_another_process_and_on_an_orphan() {
    let folder = folder();
    let local = Local::start(folder.path(), &["--load", "50"]);
    let admin = local.admin();
    let arguments = [
        "run",
        &plugin("canary"),
        "--local",
        &admin,
        "--set",
        "bake=1h",
    ];
    let progressing = |s: &Value| s["rollout"]["weights"][1]["weight"] == 5;
    let process = spawn(folder.path(), &arguments);
    until(folder.path(), &admin, progressing);
    let abort = run(folder.path(), &["abort", "--reason", "smells bad"]);
    assert_eq!(code(&abort), Some(3), "{}", stderr(&abort));
    let output = wait(process);
    assert_eq!(code(&output), Some(3));
    assert!(
        stdout(&output).contains("aborted by tester: smells bad"),
        "{}",
        stdout(&output)
    );
    // Nobody drives this one: the command does it itself.
    let process = spawn(folder.path(), &arguments);
    until(folder.path(), &admin, |s| {
        progressing(s) && s["driven"] == true
    });
    drop(process);
    let status = stdout(&run(folder.path(), &["status", "--local", &admin]));
    assert!(status.contains("no process drives it"), "{status}");
    let rollback = run(folder.path(), &["rollback", "--local", &admin]);
    assert_eq!(code(&rollback), Some(0), "{}", stderr(&rollback));
    let status = until(folder.path(), &admin, |_| true);
    assert_eq!(status["target"]["arms"][0]["weight"], 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_change_stops_it_with_a_7() {
    let folder = folder();
    let local = Local::start(folder.path(), &["--load", "100"]);
    let admin = local.admin();
    let arguments = [
        "run",
        &plugin("canary"),
        "--local",
        &admin,
        "--set",
        "bake=30s",
        "--set",
        "steps=20,100",
    ];
    let process = spawn(folder.path(), &arguments);
    until(folder.path(), &admin, |s| {
        s["rollout"]["weights"][1]["weight"] == 20
    });
    let weights = Weights::of([("stable", 60), ("canary", 40)]);
    local.target().set_weights(&weights).await.expect("valid");
    let output = wait(process);
    assert_eq!(code(&output), Some(7), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("somebody else moved the traffic"), "{text}");
    assert!(
        text.contains("stable=80 canary=20") && text.contains("stable=60 canary=40"),
        "{text}"
    );
    assert_eq!(
        local.target().observe().await.expect("reachable").weights(),
        weights,
        "left alone"
    );
    finish_in_full(folder.path(), &admin, &["resume", "--adopt"]);
}

#[test]
fn ctrl_c_suspends_and_resume_goes_on() {
    let folder = folder();
    let local = Local::start(folder.path(), &["--load", "100"]);
    let admin = local.admin();
    let arguments = [
        "run",
        &plugin("canary"),
        "--local",
        &admin,
        "--set",
        "bake=30s",
        "--set",
        "steps=20,100",
    ];
    let process = spawn(folder.path(), &arguments);
    until(folder.path(), &admin, |s| {
        s["rollout"]["weights"][1]["weight"] == 20
    });
    signal(&process.0, "-INT");
    let output = wait(process);
    assert_eq!(code(&output), Some(5));
    let text = stderr(&output);
    assert!(
        text.contains("suspended: the traffic stays at stable 80 %, canary 20 %"),
        "{text}"
    );
    assert!(text.contains("`engine resume canary-"), "{text}");
    finish_in_full(folder.path(), &admin, &["resume"]);
}

#[test]
fn a_journal_that_does_not_fit_is_an_8() {
    let folder = folder();
    let local = Local::start(folder.path(), &["--load", "100"]);
    let admin = local.admin();
    let arguments = [
        "run",
        &plugin("canary"),
        "--local",
        &admin,
        "--set",
        "bake=30s",
    ];
    let process = spawn(folder.path(), &arguments);
    until(folder.path(), &admin, |s| {
        s["rollout"]["entries"].as_u64() > Some(8)
    });
    signal(&process.0, "-INT");
    assert_eq!(code(&wait(process)), Some(5));
    let journal = rusqlite::Connection::open(folder.path().join("state/engine.db")).expect("opens");
    let changed = journal.execute(
        "UPDATE journal SET event = replace(event, '\"canary\",\"weight\":5', '\"canary\",\"weight\":7')
         WHERE event LIKE '%asked%set-weights%'",
        [],
    );
    assert_eq!(changed.expect("updates"), 1);
    drop(journal);
    let output = run(folder.path(), &["resume"]);
    assert_eq!(code(&output), Some(8), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("journal entry") && text.contains("canary=7") && text.contains("canary=5"),
        "{text}"
    );
    let output = run(folder.path(), &["abort"]);
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_is_blocked_is_a_4() {
    use engine::target::local::balancer::Balancer;
    let folder = folder();
    let arm = |fault| {
        balancer::spec([
            engine::model::Source::Demo(fault),
            engine::model::Source::Demo(fault),
        ])
    };
    let old = Balancer::start(&arm(DemoFault::default()), None, None)
        .await
        .expect("starts");
    let broken = DemoFault {
        error_rate: 0.5,
        latency_ms: 0,
    };
    let new = Balancer::start(&arm(broken), None, None)
        .await
        .expect("starts");
    let text = format!(
        r#"
        [target]
        kind = "local"
        [target.local]
        listen = "127.0.0.1:0"
        admin = "127.0.0.1:0"
        load-rps = 50
        [target.local.health]
        interval = "100ms"
        [target.local.arms.stable]
        version = "v1"
        urls = ["http://{}"]
        [target.local.arms.canary]
        version = "v2"
        urls = ["http://{}"]
        [strategy]
        plugin = {:?}
        [strategy.parameters]
        gate = "limits"
        steps = [50, 100]
        bake = "20s"
        min-requests = 200
        [guardrails]
        healthy-timeout = "2s"
        "#,
        old.listen,
        new.listen,
        plugin("canary")
    );
    std::fs::write(folder.path().join("rollout.toml"), text).expect("writable");
    let process = spawn(folder.path(), &["run"]);
    for _ in 0..200 {
        let list = stdout(&run(folder.path(), &["list"]));
        if list.contains("step 1/2") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(old);
    let output = wait(process);
    assert_eq!(
        code(&output),
        Some(4),
        "{}{}",
        stdout(&output),
        stderr(&output)
    );
    assert!(
        stdout(&output).contains("ROLLBACK FAILED"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn eviction_at_every_call_ends_the_same() {
    let folder = folder();
    let arguments = [
        "run",
        &plugin("canary"),
        "--chaos-evict",
        "--set",
        "bake=1s",
        "--set",
        "steps=50,100",
    ];
    let output = run(folder.path(), &arguments);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
}

#[test]
fn a_parked_rollout_costs_no_instance_and_wakes() {
    let folder = folder();
    let local = Local::start(folder.path(), &["--load", "100"]);
    let admin = local.admin();
    // Every wait is longer than what stays in memory.
    let arguments = [
        "run",
        &plugin("hostile"),
        "--local",
        &admin,
        "--set",
        "act=wait",
        "--set",
        "amount=7",
    ];
    let begun = Instant::now();
    let output = run(folder.path(), &arguments);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(begun.elapsed() >= Duration::from_secs(7));
}

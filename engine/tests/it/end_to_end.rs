//! Whole rollouts with the real binary, the real plugins and real requests.

use std::path::Path;
use std::time::{Duration, Instant};

use engine::cli::exit::Exit;
use engine::journal::verdict::verdict;
use engine::journal::{Call, Event};
use engine::model::{DemoFault, End, Weights};
use engine::ops::begin::{BeginRequest, begin_rollout};
use engine::ops::command::{promote_fully, resume};
use engine::ops::request::TargetRequest;
use engine::ops::way_back::{TakenBack, abort};
use engine::rollout::{Options, Standing};
use engine::spec::parse_fault;
use engine::target::Target;
use engine::target::local::LocalTarget;
use engine::target::local::balancer::Balancer;
use engine::view::rollout as view;
use serde_json::Value;

use crate::schemas;
use crate::support::app::{TestApp, in_file, local, rollout, suspended};
use crate::support::balancer::{self, Local, demo, healthy, spec};
use crate::support::binary::{code, plugin, run, signal, spawn, stderr, stdout, until, wait};
use crate::support::folder;
use crate::support::lab;

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
        stdout(&output).starts_with("promoted: v2 is not worse (suspicion"),
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
    assert!(
        history.contains("goes on: no sign that it is worse (suspicion "),
        "{history}"
    );
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
    assert!(picture.contains("rolls back at 100"));
}

/// Begins a rollout on a demo of its own and drives it to its end.
async fn rolled_out(test: &TestApp, request: &BeginRequest, options: Options) -> (String, End) {
    let begun = begin_rollout(&test.app, request, options).await;
    let id = begun.expect("it begins").header.rollout;
    match test.drive_with(&id, options).await {
        Standing::Over(end, _) => (id, end),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blue_green_on_colours() {
    let test = TestApp::surrounded(<_>::default());
    let good = BeginRequest {
        names: Some(["blue", "green"].map(str::to_owned)),
        ..rollout("blue-green", TargetRequest::default(), &["bake=2s"])
    };
    let (id, end) = rolled_out(&test, &good, Options::default()).await;
    assert_eq!(end, End::Promoted);
    let (header, status) = test.app.reached(&id).await.expect("known");
    let shown = schemas::shown(&view::Rollout::of(&header, &status));
    assert_eq!(shown["status"]["phase"], "succeeded");
    assert_eq!(
        status.weights.share("green"),
        100.0,
        "green keeps the traffic"
    );
    let (.., entries) = test.app.journal(&id).await.expect("known");
    let story = lab::story(&entries, &id);
    assert!(story.contains("traffic: all to green"), "{story}");
    let bad = BeginRequest {
        demo_fault: Some(parse_fault("error-rate=0.3").expect("a fault")),
        ..good
    };
    let test = TestApp::surrounded(<_>::default());
    let (_, end) = rolled_out(&test, &bad, Options::default()).await;
    assert_eq!(end, End::RolledBack);
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

/// Whoever waits hears how things are, and not of a promotion that was taken back since.
#[test]
fn to_wait_after_the_traffic_was_moved_tells_what_is_now() {
    let folder = folder();
    let local = Local::start(folder.path(), &["--load", "50"]);
    let admin = local.admin();
    let go = |verb: &[&str]| run(folder.path(), verb);
    let (canary, hour) = (plugin("canary"), "bake=1h");
    let process = spawn(
        folder.path(),
        &["run", &canary, "--local", &admin, "--set", hour],
    );
    until(folder.path(), &admin, |s| {
        s["rollout"]["weights"][1]["weight"] == 5
    });
    // Nobody sees a terminal here, so what is waited for is said at once.
    let waiter = spawn(folder.path(), &["wait", "--local", &admin]);
    assert_eq!(code(&go(&["promote", "--full"])), Some(0));
    assert_eq!(code(&wait(process)), Some(0));
    let waited = wait(waiter);
    assert_eq!(code(&waited), Some(0), "{}", stderr(&waited));
    assert!(
        stdout(&waited).starts_with("promoted: "),
        "{}",
        stdout(&waited)
    );
    let first = stderr(&waited);
    assert!(first.contains(" % done · "), "{first}");

    let status = until(folder.path(), &admin, |_| true);
    let arms = status["target"]["arms"].as_array().expect("arms");
    let other = arms.iter().find(|arm| arm["weight"] == 0).expect("one");
    let other = other["name"].as_str().expect("a name");
    assert_eq!(code(&go(&["switch", other, "--local", &admin])), Some(0));
    let id = status["rollout"]["rollout"].as_str().expect("an id");
    for (verb, exit) in [
        // Both arms run the version that was promoted.
        (vec!["wait", "--local", &admin], 0),
        (vec!["status", "-w", "--local", &admin], 0),
        (vec!["wait", id, "--local", &admin], 0),
    ] {
        let output = go(&verb);
        assert_eq!(code(&output), Some(exit), "{verb:?}: {}", stderr(&output));
        let said = stdout(&output);
        assert!(said.contains("since then switch ("), "{verb:?}: {said}");
        assert!(said.contains(&format!("{other} ")), "{verb:?}: {said}");
    }
    let json = go(&["wait", "--local", &admin, "--json"]);
    let answer: Value = serde_json::from_str(&stdout(&json)).expect("JSON");
    schemas::fits("run", &answer);
    assert_eq!(
        (&answer["exit"], &answer["moved-since"]),
        (&0.into(), &true.into())
    );

    // How a rollout ended says nothing of where the traffic is now, and nobody else does.
    drop(local);
    for verb in [
        vec!["wait", "--local", &admin],
        vec!["wait", id, "--local", &admin],
        vec!["status", "--local", &admin],
    ] {
        let output = go(&verb);
        assert_eq!(code(&output), Some(1), "{verb:?}: {}", stdout(&output));
    }
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
    assert_eq!(code(&abort), Some(0), "{}", stderr(&abort));
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

/// A balancer whose two arms are healthy.
async fn balanced() -> (Balancer, LocalTarget) {
    let (balancer, target) = balancer::start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    (balancer, target)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_change_stops_it_with_a_7() {
    let (balancer, target) = balanced().await;
    let at = local(balancer.admin);
    let test = TestApp::surrounded(<_>::default());
    let request = rollout("canary", at.clone(), &["bake=30s", "steps=20,100"]);
    let id = suspended(&test.app, &request, ("canary", 20.0)).await;
    let weights = Weights::of([("stable", 60), ("canary", 40)]);
    target.set_weights(&weights).await.expect("valid");
    let standing = test.drive_on(&id).await;
    assert_eq!(Exit::from(&standing), Exit::Busy);
    let (header, status) = test.app.reached(&id).await.expect("known");
    let text = verdict(&header, &status);
    assert!(text.contains("somebody else moved the traffic"), "{text}");
    assert!(
        text.contains("stable=80 canary=20") && text.contains("stable=60 canary=40"),
        "{text}"
    );
    let live = target.observe().await.expect("reachable");
    assert_eq!(live.weights(), weights, "left alone");
    // Whoever adopts that goes on from there.
    let resumed = resume(&test.app, &at, Some(&id), true).await;
    assert_eq!(resumed, Ok((id.clone(), false)));
    promote_in_full(&test, &id).await;
}

/// Promotes a rollout that nobody drives.
async fn promote_in_full(test: &TestApp, id: &str) {
    let promoted = promote_fully(&test.app, &TargetRequest::default(), Some(id)).await;
    let (end, _) = promoted.expect("done").1.end.expect("it is over");
    assert_eq!(end, End::Promoted);
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
    assert!(text.contains("nobody watches"), "{text}");
    let listed = stdout(&run(folder.path(), &["list"]));
    assert!(listed.contains("undriven"), "{listed}");
    let status = stdout(&run(folder.path(), &["status", "--local", &admin]));
    assert!(status.contains("no process drives it"), "{status}");
    assert!(status.contains("the rates are of"), "{status}");
    assert!(text.contains("`engine resume canary-"), "{text}");
    finish_in_full(folder.path(), &admin, &["resume"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_does_not_fit_is_an_8() {
    let (balancer, target) = balanced().await;
    let at = local(balancer.admin);
    let test = TestApp::surrounded(<_>::default());
    let request = rollout("canary", at.clone(), &["bake=30s"]);
    let id = suspended(&test.app, &request, ("canary", 5.0)).await;
    let (.., mut entries) = test.app.journal(&id).await.expect("known");
    let mut changed = 0;
    for entry in &mut entries {
        if let Event::Asked {
            call: Call::SetWeights { weights },
            ..
        } = &mut entry.event
        {
            *weights = Weights::of([("stable", 93), ("canary", 7)]);
            changed += 1;
        }
    }
    assert_eq!(changed, 1, "{entries:#?}");
    test.store.plant(&id, entries);
    let standing = test.drive_on(&id).await;
    assert_eq!(Exit::from(&standing), Exit::Diverged);
    let (header, status) = test.app.reached(&id).await.expect("known");
    let text = verdict(&header, &status);
    assert!(
        text.contains("journal entry") && text.contains("canary=7") && text.contains("canary=5"),
        "{text}"
    );
    let back = abort(&test.app, &at, Some(&id), "").await.expect("done");
    let TakenBack::Aborted(aborted) = back else {
        panic!("{back:?}");
    };
    assert_eq!(aborted.1.end.expect("it is over").0, End::RolledBack);
    let live = target.observe().await.expect("reachable");
    assert_eq!(live.weights().share("stable"), 100.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_is_blocked_is_a_4() {
    let test = TestApp::surrounded(<_>::default());
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
    let file = test.write("rollout.toml", text);
    let request = BeginRequest {
        target: in_file(&file),
        ..BeginRequest::default()
    };
    let id = suspended(&test.app, &request, ("canary", 50.0)).await;
    drop(old);
    let standing = test.drive_on(&id).await;
    assert_eq!(Exit::from(&standing), Exit::RollbackFailed, "{standing:?}");
    let (header, status) = test.app.reached(&id).await.expect("known");
    let text = verdict(&header, &status);
    assert!(text.contains("ROLLBACK FAILED"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_at_every_call_ends_the_same() {
    let test = TestApp::surrounded(<_>::default());
    let set = ["bake=1s", "steps=50,100"];
    let request = rollout("canary", TargetRequest::default(), &set);
    let options = Options {
        chaos_evict: true,
        ..Options::default()
    };
    let (_, end) = rolled_out(&test, &request, options).await;
    assert_eq!(end, End::Promoted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_rollout_costs_no_instance_and_wakes() {
    let (balancer, _target) = balanced().await;
    let test = TestApp::surrounded(<_>::default());
    // Every wait is longer than what stays in memory.
    let set = ["act=wait", "amount=7"];
    let request = rollout("hostile", local(balancer.admin), &set);
    let begun = Instant::now();
    let id = test.begin(&request).await.expect("it begins");
    let standing = test.drive(&id).await;
    assert!(matches!(standing, Standing::Parked(_)), "{standing:?}");
    let standing = test.drive_on(&id).await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    assert!(begun.elapsed() >= Duration::from_secs(7));
}

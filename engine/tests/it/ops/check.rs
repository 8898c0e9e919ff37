//! `check`: all that is wrong is found in one go, and nothing is changed.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};

use engine::ops::begin::{BeginRequest, make_ready};
use engine::ops::check::{Checked, check};
use engine::ops::examined::Found;
use engine::ops::pin::PinRequest;
use engine::ops::{Error, Kind};
use engine::spec::plugins;
use engine::store::{Page, Schedule as _};

use crate::support::app::{TestApp, in_file, local, on, on_aws, refused, rollout};
use crate::support::aws::bottle::{Wish, make};
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::balancer::demo_target;
use crate::support::binary::plugin;
use crate::support::clients::{answer, good, upstream};
use crate::support::project::{GATE, Project};

fn file(test: &TestApp, text: &str) -> BeginRequest {
    BeginRequest {
        target: in_file(&test.write("rollout.toml", text)),
        ..BeginRequest::default()
    }
}

/// The errors of what is wrong, each with what it is about.
fn wrong(checked: &Checked) -> Vec<(&'static str, &Error)> {
    let wrong = checked.examined.iter().filter_map(|one| {
        let Found::Wrong(error) = &one.found else {
            return None;
        };
        Some((one.about, error))
    });
    wrong.collect()
}

/// Line, column and key of each problem of an error.
fn places(error: &Error) -> Vec<(Option<usize>, Option<usize>, &str)> {
    let problems = error.problems.iter().map(|located| &located.problem);
    problems
        .map(|p| (p.line, p.column, p.path.as_str()))
        .collect()
}

/// A file whose keys, values and parameters are wrong.
fn faulty() -> String {
    format!(
        "promotion = \"swop\"\n[strategy]\nplugin = {:?}\n[strategy.parameters]\n  bakee = \"1s\"\nsteps = [5, \"x\"]\n[guardrails]\ndedline = \"1h\"\n",
        plugin("canary")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn all_problems_of_a_file_are_told_at_once_each_with_its_place() {
    let test = TestApp::new();
    let text = faulty();
    let checked = check(&test.app, &file(&test, &text)).await.expect("a file");
    let found = wrong(&checked);
    let [("file", of_file), ("parameters", of_parameters)] = found[..] else {
        panic!("{found:#?}");
    };
    assert_eq!(
        places(of_file),
        [
            (Some(8), Some(1), "guardrails.dedline"),
            (Some(1), Some(1), "promotion")
        ]
    );
    let parameters: BTreeSet<_> = places(of_parameters).into_iter().collect();
    assert_eq!(
        parameters,
        BTreeSet::from([
            (Some(5), Some(3), "strategy.parameters.bakee"),
            (Some(6), Some(13), "strategy.parameters.steps.1"),
        ])
    );
    let said = of_parameters.to_string();
    assert!(said.contains("did you mean bake?"), "{said}");

    // A rollout that would begin says the same, in one error.
    let error = refused(
        make_ready(&test.app, &file(&test, &text)).await,
        Kind::Usage,
        &[
            "rollout.toml has problems:",
            "rollout.toml:8:1: guardrails.dedline: there is no such key; did you mean deadline?",
            "rollout.toml:5:3: strategy.parameters.bakee: there is no such parameter; did you mean bake?",
            "rollout.toml:6:13: strategy.parameters.steps.1",
        ],
    );
    assert_eq!(error.problems.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_the_request_gives_is_in_no_file() {
    let test = TestApp::new();
    let text = faulty().replace("bakee", "bake").replace("\"x\"", "50");
    let text = text.replace("dedline", "deadline").replace("swop", "copy");
    let request = BeginRequest {
        set: vec!["bake=soon".to_owned()],
        ..file(&test, &(text + &demo_target(0)))
    };
    let checked = check(&test.app, &request).await.expect("a file");
    let found = wrong(&checked);
    let [("parameters", error)] = found[..] else {
        panic!("{found:#?}");
    };
    assert_eq!(places(error), [(None, None, "strategy.parameters.bake")]);
    assert_eq!(error.problems[0].file, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strategy_is_not_asked_where_the_file_is_wrong_about_it() {
    let test = TestApp::new();
    let text = format!(
        "[strategy]\nplugin = {:?}\nsha257 = \"0\"\n[strategy.parameters]\nbakee = 1\n",
        plugin("canary")
    );
    let error = make_ready(&test.app, &file(&test, &text)).await.err();
    let error = error.expect("refused");
    assert_eq!(places(&error), [(Some(3), Some(1), "strategy.sha257")]);
    let checked = check(&test.app, &file(&test, &text)).await.expect("a file");
    let skipped = checked.examined.iter().find(|f| f.about == "plugin");
    assert!(
        matches!(skipped.map(|f| &f.found), Some(Found::Skipped(_))),
        "{checked:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_file_has_no_problems_and_nothing_begins() {
    let test = TestApp::new();
    let text = format!(
        "{}[strategy]\nplugin = {:?}\n",
        demo_target(0),
        plugin("canary")
    );
    let request = file(&test, &text);
    let before = std::fs::read_dir(test.at(".")).expect("a folder").count();
    let checked = check(&test.app, &request).await.expect("a file");
    assert_eq!(wrong(&checked), []);
    let about: Vec<_> = checked.examined.iter().map(|f| f.about).collect();
    assert_eq!(about, ["file", "plugin", "parameters", "target"]);
    let all = test.store.history(&Page::newest(None, 10)).await;
    assert_eq!(all.expect("memory").len(), 0);
    assert!(!test.app.ports.balances().await, "no balancer was started");
    let after = std::fs::read_dir(test.at(".")).expect("a folder").count();
    assert_eq!(before, after, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_could_not_start_is_told_by_its_keys() {
    let test = TestApp::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("free");
    let text = format!(
        "[target]\nkind = \"local\"\n[target.local]\nlisten = \"{}\"\nadmin = \"127.0.0.1:0\"\n[target.local.arms.stable]\nversion = \"1\"\ncommand = [\"./nothing\", \"{{port}}\"]\n[target.local.arms.canary]\nversion = \"2\"\ndemo = {{}}\n[queries.a]\nurl = \"http://127.0.0.1:1/${{file:/nothing/here}}\"\npointer = \"/a\"\n",
        taken.local_addr().expect("bound")
    );
    let checked = check(&test.app, &file(&test, &text)).await.expect("a file");
    let found = wrong(&checked);
    let [("credentials", secret), ("target", balancer)] = found[..] else {
        panic!("{found:#?}");
    };
    assert_eq!(places(secret), [(Some(13), Some(1), "queries.a.url")]);
    assert_eq!(
        places(balancer),
        [
            (Some(4), Some(1), "target.local.listen"),
            (Some(8), Some(1), "target.local.arms.stable.command"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_check_is_said() {
    let test = TestApp::new();
    let missing = BeginRequest {
        target: in_file(&test.at("nothing.toml")),
        ..BeginRequest::default()
    };
    refused(
        check(&test.app, &missing).await,
        Kind::Usage,
        &["failed to read", "nothing.toml"],
    );
    let nobody = local("127.0.0.1:1".parse().expect("an address"));
    let checked = check(&test.app, &rollout("canary", nobody, &[])).await;
    let checked = checked.expect("a target");
    assert_eq!(wrong(&checked), [], "a balancer may run later");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pinned() {
    let project = Project::empty();
    let wasm = std::fs::read(plugin("canary")).expect("built");
    std::fs::write(project.at("gate.wasm"), wasm).expect("writable");
    project.write(plugins::FILE, "[plugins]\ngate = \"gate.wasm\"\n");
    let request = BeginRequest {
        plugin: Some(GATE.into()),
        pins: PinRequest {
            plugins: Some(project.at(plugins::FILE)),
            ..PinRequest::default()
        },
        ..file(&project.test, &demo_target(0))
    };
    let checked = check(&project.app, &request).await.expect("a file");
    assert_eq!(wrong(&checked), []);
    assert!(!project.at("plugins.lock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_on_aws_is_read_and_not_written() {
    let made = make(&Wish::default()).await;
    let proxy = Proxy::start().await;
    let test = TestApp::through(&proxy.endpoint);
    let request = BeginRequest {
        image: Some("app:v2".to_owned()),
        ..rollout("canary", on_aws(on(&made)), &[])
    };
    let checked = check(&test.app, &request).await.expect("a target");
    assert_eq!(wrong(&checked), []);
    let about: Vec<_> = checked.examined.iter().map(|f| f.about).collect();
    assert_eq!(
        about,
        [
            "plugin",
            "parameters",
            "target",
            "permissions",
            "beginning",
            "evidence"
        ]
    );
    let writes = ["Modify", "Update", "Register", "Create", "Delete", "Put"];
    let calls = proxy.take();
    assert!(
        calls.iter().any(|call| call == "GetMetricData"),
        "{calls:?}"
    );
    let written = calls
        .iter()
        .find(|c| writes.iter().any(|w| c.starts_with(w)));
    assert_eq!(written, None);

    // Each permission that is missing is told, and not the first one alone.
    proxy.plot(|_, call| match call {
        "GetMetricData" | "ListTasks" | "DescribeScalableTargets" => {
            Trouble::Refused(403, "AccessDenied")
        }
        _ => Trouble::None,
    });
    let checked = check(&test.app, &request).await.expect("a target");
    let denied: BTreeSet<String> = wrong(&checked)
        .into_iter()
        .filter(|(about, _)| *about == "permissions")
        .map(|(_, error)| {
            let (_, action) = error.message.split_once("IAM action ").expect("what to do");
            action.split(';').next().unwrap_or_default().to_owned()
        })
        .collect();
    assert_eq!(
        denied,
        BTreeSet::from([
            "application-autoscaling:DescribeScalableTargets".to_owned(),
            "cloudwatch:GetMetricData".to_owned(),
            "ecs:ListTasks".to_owned(),
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn why_no_rollout_could_begin_on_a_target_is_told() {
    let made = make(&Wish::default()).await;
    let test = TestApp::new();
    let request = BeginRequest {
        stable: Some("purple".to_owned()),
        ..rollout("canary", on_aws(on(&made)), &[])
    };
    let checked = check(&test.app, &request).await.expect("a target");
    let found = wrong(&checked);
    let [("beginning", error)] = found[..] else {
        panic!("{found:#?}");
    };
    assert!(error.to_string().contains("purple"), "{error}");
    let mut nowhere = on(&made);
    nowhere.listener = nowhere.listener.map(|arn| arn + "0");
    let request = rollout("canary", on_aws(nowhere), &[]);
    let checked = check(&test.app, &request).await.expect("a target");
    assert_eq!(wrong(&checked)[0].0, "target");
}

/// A local balancer whose arms are servers at these addresses.
fn with_servers(stable: SocketAddr, canary: SocketAddr) -> String {
    let arms = [stable, canary].into_iter();
    arms.fold(demo_target(0), |text, at| {
        text.replacen("demo = {}", &format!("urls = [\"http://{at}\"]"), 1)
    })
}

fn doubts(checked: &Checked) -> Vec<&str> {
    let doubts = checked.examined.iter().filter_map(|one| match &one.found {
        Found::Doubtful(text) => Some(text.as_str()),
        _ => None,
    });
    doubts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_do_not_answer_are_told_before_a_rollout_waits_for_them() {
    let test = TestApp::new();
    let up = upstream(good).await;
    let free = TcpListener::bind("127.0.0.1:0").expect("free");
    let down = free.local_addr().expect("bound");
    drop(free);
    let look = async |stable, canary| {
        let request = file(&test, &with_servers(stable, canary));
        check(&test.app, &request).await.expect("a file")
    };
    // Nobody serves users: that is wrong. What is to be tried may still be started.
    let checked = look(down, down).await;
    let found = wrong(&checked);
    let [("arms", error)] = found[..] else {
        panic!("{found:#?}");
    };
    let [(Some(12), Some(_), "target.local.arms.stable.urls")] = places(error)[..] else {
        panic!("{error:#?}");
    };
    assert!(error.to_string().contains(&down.to_string()), "{error}");
    let [doubt] = doubts(&checked)[..] else {
        panic!("{checked:#?}");
    };
    assert!(doubt.starts_with("canary: not healthy now"), "{doubt}");

    let checked = look(up, down).await;
    assert_eq!((wrong(&checked).len(), doubts(&checked).len()), (0, 1));
    let checked = look(up, up).await;
    assert_eq!((wrong(&checked).len(), doubts(&checked).len()), (0, 0));
    // It answers, and not as a health check must be answered.
    let text = with_servers(up, up);
    let path = "interval = \"1s\"\npath = \"/elsewhere\"";
    let text = text.replace("interval = \"100ms\"", path);
    let bad = upstream(|mut stream, _| async move {
        answer(&mut stream, "404 Not Found").await;
    });
    let text = text.replace(&up.to_string(), &bad.await.to_string());
    let checked = check(&test.app, &file(&test, &text)).await.expect("a file");
    let found = wrong(&checked);
    let [("arms", error)] = found[..] else {
        panic!("{found:#?}");
    };
    let said = error.to_string();
    assert!(
        said.contains("GET /elsewhere: 404, not 2xx or 3xx"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_looked_for_where_it_would_be_started() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = TestApp::new();
    let server = test.write("serve-it", "#!/bin/sh\n");
    let app = test.within(|surroundings| {
        surroundings.programs = vec![test.at("nowhere"), test.at("")];
    });
    let text = demo_target(0).replacen("demo = {}", "command = [\"serve-it\", \"{port}\"]", 1);
    let request = file(&test, &text);
    let look = async || check(&app, &request).await.expect("a file");
    let says = |checked: &Checked| {
        let found = wrong(checked);
        let [("target", error)] = found[..] else {
            panic!("{found:#?}");
        };
        error.to_string()
    };
    let said = says(&look().await);
    assert!(
        said.contains("there is no program serve-it in the folders of PATH"),
        "it may not be executed: {said}"
    );
    let may = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&server, may).expect("ours");
    assert_eq!(wrong(&look().await), []);
    std::fs::remove_file(&server).expect("ours");
    assert!(says(&look().await).contains("serve-it"));
}

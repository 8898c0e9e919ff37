//! The examples for CI, run as the shell scripts that they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_yaml_ng::Value;

use crate::support::binary::{engine, stderr, stdout};
use crate::support::root;
use crate::support::{folder, guests};

/// A team's repository, with a pinned plugin and accepted decisions.
fn repository() -> tempfile::TempDir {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("plugins")).expect("a folder");
    std::fs::copy(guests::guest_path("canary"), at("plugins/canary.wasm")).expect("a guest");
    std::fs::copy(
        root().join("engine/templates/rust/scenario.json"),
        at("scenario.json"),
    )
    .expect("a scenario");
    std::fs::write(
        at("plugins.toml"),
        "[plugins]\ncanary = \"plugins/canary.wasm\"\n",
    )
    .expect("writable");
    std::fs::write(at("rollout.toml"), ROLLOUT).expect("writable");
    for arguments in [
        &["plugin", "lock"][..],
        &[
            "plugin",
            "test",
            "canary",
            "--scenario",
            "scenario.json",
            "--accept",
        ],
    ] {
        let output = engine(folder.path(), arguments).output();
        let output = output.expect("the binary runs");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    folder
}

/// Something to roll out on this machine.
const ROLLOUT: &str = r#"
[target]
kind = "local"
[target.local]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
load-rps = 100
[target.local.arms.stable]
version = "v1"
demo = {}
[target.local.arms.canary]
version = "v2"
demo = {}
[strategy.parameters]
gate = "limits"
steps = [50, 100]
bake = "2s"
"#;

/// What a runner does with a step.
fn shell(folder: &Path, script: &str) -> Output {
    let engine = format!("file://{}", env!("CARGO_BIN_EXE_engine"));
    let home = folder.join("home");
    let path = std::env::var("PATH").expect("a path");
    std::fs::create_dir_all(&home).expect("a folder");
    // GitHub hands the path on from step to step.
    let more = std::fs::read_to_string(home.join("path")).unwrap_or_default();
    let more = more.trim().replace('\n', ":");
    Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", script])
        .current_dir(folder)
        .env("HOME", &home)
        .env_remove("XDG_STATE_HOME")
        .env("CI", "true")
        .env("ENGINE_URL", engine)
        .env("GITHUB_PATH", home.join("path"))
        .env("PATH", format!("{more}:{path}"))
        .output()
        .expect("bash runs")
}

fn example(name: &str) -> Value {
    let path: PathBuf = root().join("examples/ci").join(name);
    serde_yaml_ng::from_str(&std::fs::read_to_string(path).expect("a file")).expect("YAML")
}

fn texts(value: &Value) -> Vec<String> {
    let all = value.as_sequence().into_iter().flatten();
    all.filter_map(Value::as_str)
        .map(ToOwned::to_owned)
        .collect()
}

/// Names and scripts of the steps, in the order in which a runner runs them.
fn github() -> Vec<String> {
    let steps = example("github-actions.yml")["jobs"]["rollout"]["steps"].clone();
    let steps = steps.as_sequence().expect("steps").clone();
    let scripts: Vec<String> = steps
        .iter()
        .filter_map(|s| s["run"].as_str().map(ToOwned::to_owned))
        .collect();
    assert_eq!(scripts.len(), 5, "one for each thing that it promises");
    scripts
}

fn gitlab() -> Vec<String> {
    let file = example("gitlab-ci.yml");
    let before = texts(&file["default"]["before_script"]);
    let jobs = ["plugins", "rollout"].map(|job| {
        let script = texts(&file[job]["script"]);
        assert!(!script.is_empty(), "{job}");
        [before.clone(), script].concat().join("\n")
    });
    jobs.to_vec()
}

#[test]
fn they_work_as_they_are() {
    for scripts in [github(), gitlab()] {
        let folder = repository();
        for script in scripts {
            let output = shell(folder.path(), &script);
            let (out, err) = (stdout(&output), stderr(&output));
            assert_eq!(output.status.code(), Some(0), "{script}\n{out}{err}");
        }
    }
}

#[test]
fn they_stop_at_a_plugin_that_nobody_reviewed() {
    for (scripts, stops_at) in [(github(), 1), (gitlab(), 0)] {
        let folder = repository();
        let plugin = folder.path().join("plugins/canary.wasm");
        std::fs::copy(guests::guest_path("blue-green"), plugin).expect("a guest");
        for (number, script) in scripts.iter().enumerate().take(stops_at + 1) {
            let output = shell(folder.path(), script);
            let code = if number == stops_at { Some(6) } else { Some(0) };
            assert_eq!(output.status.code(), code, "{script}\n{}", stderr(&output));
        }
    }
}

//! What the binary prints, and its exit codes, without any rollout.

use std::path::Path;
use std::process::{Command, Output};

/// The binary with a state folder of its own, in that folder.
pub fn engine(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engine"));
    command
        .current_dir(folder)
        .env("USER", "tester")
        .env_remove("NO_COLOR")
        // What it changes is for the tests that set it.
        .env_remove("CI")
        .arg("--state-dir")
        .arg("state")
        .args(arguments);
    command
}

pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    let output = engine(folder, arguments).output().expect("the binary runs");
    crate::schemas::hold(arguments, &output);
    output
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn help(verb: &[&str]) -> String {
    let folder = folder();
    let mut arguments = verb.to_vec();
    arguments.push("--help");
    stdout(&run(folder.path(), &arguments))
}

#[test]
fn help_names_every_verb_and_every_exit_code() {
    insta::assert_snapshot!(help(&[]));
}

#[test]
fn help_has_examples() {
    for verb in [
        "run",
        "local",
        "resume",
        "promote",
        "set-weights",
        "switch",
        "status",
    ] {
        assert!(help(&[verb]).contains("Examples:"), "{verb}");
    }
    insta::assert_snapshot!(help(&["run"]));
}

#[test]
fn wrong_usage_is_a_2() {
    let folder = folder();
    let script = folder.path().join("run.sh");
    std::fs::write(&script, "#!/bin/sh\n").expect("writable");
    for (arguments, says) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["run"], "no strategy is named"),
        (
            &["run", "plugins/nothing.wasm"],
            "`make plugins` builds the plugins",
        ),
        (
            &["run", "x.wasm", "--demo-fault", "smell=bad"],
            "there are error-rate and latency",
        ),
        (
            &["get", "nobody"],
            "there is no rollout \"nobody\"; `engine list` shows them",
        ),
        (&["abort"], "no rollout is under way"),
        (&["local", "--names", "blue,blue"], "two different names"),
        (
            &["local", "--admin", "0.0.0.0:0"],
            "must be a loopback address",
        ),
        (
            &["run", "x.wasm", "-f", "missing.toml"],
            "failed to read missing.toml",
        ),
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains(says), "{arguments:?}: {text}");
        assert!(!text.contains('\u{1b}'), "no colours in a file: {text}");
    }
}

#[test]
fn a_rollout_file_with_problems_is_a_2_that_names_them_all() {
    let folder = folder();
    std::fs::write(
        folder.path().join("rollout.toml"),
        "promotion = 1\n[guardrails]\ndedline = \"1h\"\n[target]\nkind = \"local\"\n",
    )
    .expect("writable");
    let output = run(folder.path(), &["run", "x.wasm"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(stderr(&output));
}

#[test]
fn a_plugin_that_is_none_is_a_6() {
    let folder = folder();
    let script = folder.path().join("run.sh");
    std::fs::write(&script, "#!/bin/sh\n").expect("writable");
    let output = run(folder.path(), &["run", "run.sh"]);
    assert_eq!(output.status.code(), Some(6));
    insta::assert_snapshot!(stderr(&output));
}

#[test]
fn a_pinned_digest_is_checked() {
    let folder = folder();
    let plugin = crate::lab::guest_path("canary");
    let text = format!(
        "[target]\nkind = \"local\"\n[strategy]\nplugin = {:?}\nsha256 = {:?}\n",
        plugin.display().to_string(),
        "0".repeat(64)
    );
    std::fs::write(folder.path().join("rollout.toml"), text).expect("writable");
    let output = run(folder.path(), &["run"]);
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("pinned: 0000"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn parameters_are_checked_before_anything_begins() {
    let folder = folder();
    let plugin = crate::lab::guest_path("canary").display().to_string();
    let output = run(
        folder.path(),
        &[
            "run",
            &plugin,
            "--set",
            "steps=5,x",
            "--set",
            "bake=soon",
            "--set",
            "colour=red",
        ],
    );
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    for says in [
        "strategy.parameters.steps.1",
        "strategy.parameters.bake",
        "colour",
    ] {
        assert!(text.contains(says), "{text}");
    }
    let output = run(folder.path(), &["run", &plugin, "--set", "steps=50,25"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("strategy.parameters.steps.1: 25 does not rise above 50"),
        "{text}"
    );
    let list = run(folder.path(), &["list", "--json"]);
    assert_eq!(stdout(&list).trim(), "[]", "no trace of either");
}

#[test]
fn nobody_listens() {
    let folder = folder();
    let output = run(folder.path(), &["status", "--local", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("start one with `engine local`"),
        "{}",
        stderr(&output)
    );
}

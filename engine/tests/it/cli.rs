//! What the binary prints, and its exit codes, without any rollout.

use std::io::{BufRead as _, BufReader};

use crate::support::binary::{engine, plugin, run, spawn_with, stderr, stdout};
use crate::support::folder;

fn help(verb: &[&str]) -> String {
    let folder = folder();
    let mut arguments = verb.to_vec();
    arguments.push("--help");
    stdout(&run(folder.path(), &arguments))
}

#[test]
fn help_names_every_verb_and_every_exit_code_and_has_examples() {
    insta::assert_snapshot!("help_names_every_verb_and_every_exit_code", help(&[]));
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
    insta::assert_snapshot!("help_has_examples", help(&["run"]));
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
            "`make plugins` in the sources of engine builds",
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
            &["status", "--stack", "a", "--listener", "b"],
            "cannot be used with",
        ),
        (
            &["local", "--admin", "0.0.0.0:0"],
            "must be a loopback address",
        ),
        (
            &["plugin", "new", "my-gate", "--lang", "c"],
            "invalid value 'c' for '--lang <LANG>'",
        ),
        (
            &["plugin", "new", "my-gate", "--lang", "c"],
            "rust, python, js",
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
    // The template that there is not has left nothing behind.
    assert!(!folder.path().join("my-gate").exists());
}

/// One failure of each kind that a beginner meets, as it is shown.
#[test]
fn what_is_wrong_is_shown_with_its_exit_code() {
    let folder = folder();
    let script = folder.path().join("run.sh");
    std::fs::write(&script, "#!/bin/sh\n").expect("writable");
    let output = run(folder.path(), &["run", "run.sh"]);
    assert_eq!(output.status.code(), Some(6));
    insta::assert_snapshot!("a_plugin_that_is_none_is_a_6", stderr(&output));

    std::fs::write(
        folder.path().join("rollout.toml"),
        "promotion = 1\n[guardrails]\ndedline = \"1h\"\n[target]\nkind = \"local\"\n",
    )
    .expect("writable");
    let output = run(folder.path(), &["run", "x.wasm"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(
        "a_rollout_file_with_problems_is_a_2_that_names_them_all",
        stderr(&output)
    );
    std::fs::remove_file(folder.path().join("rollout.toml")).expect("removed");

    let output = run(folder.path(), &["status", "--local", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("start one with `engine local`"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_is_wrong_with_arguments_is_said_in_json_too() {
    let folder = folder();
    for (arguments, says) in [
        (&["set-weight", "90", "10", "--json"][..], "'set-weight'"),
        (&["list", "--json", "--limit", "0"], "'0' for '--limit"),
        (&["export", "--json"], "required arguments"),
        (&["--json", "plugin", "tset"], "'tset'"),
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let answer: serde_json::Value =
            serde_json::from_str(&stdout(&output)).unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
        let said = answer["error"]["message"].as_str().expect("a sentence");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    // An argument is not an option, and help is not an error.
    for arguments in [
        &["frobnicate", "--", "--json"][..],
        &["--json", "--version"],
    ] {
        let output = run(folder.path(), arguments);
        assert!(!stdout(&output).contains("\"error\""), "{arguments:?}");
    }
}

#[test]
fn an_unknown_verb_gets_a_good_guess_or_none() {
    let folder = folder();
    for (arguments, says) in [
        (&["deploy-canary"][..], "did you mean `engine deploy`?"),
        (&["ps"], "did you mean `engine list`?"),
        (&["plugin", "chekc"], "did you mean `engine plugin check`?"),
        (
            &["plugin", "ps"],
            "`engine plugin --help` lists all of them",
        ),
        (&["frobnicate"], "`engine --help` lists all of them"),
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = stderr(&output);
        assert!(said.contains(says), "{arguments:?}: {said}");
        assert_eq!(
            said.contains("did you mean"),
            says.contains("did you mean"),
            "{said}"
        );
    }
}

/// The first minute of a new user: a file, a look at it, a look at the machine.
#[test]
fn a_first_rollout_file_is_written_and_checked() {
    let folder = folder();
    let output = run(folder.path(), &["init"]);
    assert_eq!(output.status.code(), Some(2), "nobody can be asked here");
    let said = stderr(&output);
    assert!(said.contains("name it with --stack"), "{said}");
    assert!(!folder.path().join("rollout.toml").exists());

    let canary = plugin("canary");
    let wanted = [
        "init",
        "--local",
        "127.0.0.1:0",
        "--plugin",
        &canary,
        "--json",
    ];
    let output = run(folder.path(), &wanted);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let file = folder.path().join("rollout.toml");
    let text = std::fs::read_to_string(&file).expect("written");
    // Another program may have the usual port.
    std::fs::write(&file, text.replace("127.0.0.1:8080", "127.0.0.1:0")).expect("writable");
    for more in [&["--json"][..], &[]] {
        let output = run(folder.path(), &[&["check"], more].concat());
        let said = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
    }
    let output = run(folder.path(), &wanted);
    assert_eq!(output.status.code(), Some(2), "it is there");
    let doctor = |more: &[&str]| {
        let arguments = [&["doctor"], more].concat();
        let mut command = engine(folder.path(), &arguments);
        // This machine may be an instance on AWS, or ask for one in vain.
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        let output = command.output().expect("the binary runs");
        crate::schemas::hold(&arguments, &output);
        output
    };
    for more in [&["--json"][..], &[]] {
        let output = doctor(more);
        let said = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
    }

    std::fs::write(&file, text.replace("[guardrails]", "[guardrail]")).expect("writable");
    let output = run(folder.path(), &["check", "rollout.toml"]);
    assert_eq!(output.status.code(), Some(11));
    let said = stdout(&output);
    assert!(
        said.contains("guardrail: there is no such key; did you mean guardrails?"),
        "{said}"
    );
    let output = run(folder.path(), &["check", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let problem = &answer["examined"][0]["problems"][0];
    assert_eq!(problem["key"], "guardrail", "{answer:#}");
    assert_eq!(problem["column"], 2, "{answer:#}");
    let output = doctor(&[]);
    assert_eq!(output.status.code(), Some(11), "{}", stdout(&output));
    let output = run(folder.path(), &["run", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(answer["error"]["problems"][0], *problem, "{answer:#}");
}

/// Where AWS does not answer, what is known by then is read at once, through a pipe too.
#[test]
fn doctor_prints_each_line_when_it_is_found() {
    let folder = folder();
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    let mut process = spawn_with(
        folder.path(),
        &["doctor", "--region", "eu-west-1"],
        |command| {
            let endpoint = format!("http://{address}");
            crate::support::aws::emulator::environment(command, &endpoint, "eu-west-1");
        },
    );
    let printed = BufReader::new(process.0.stdout.take().expect("piped"));
    let begun = std::time::Instant::now();
    let lines: Vec<String> = printed.lines().take(3).map(|l| l.expect("text")).collect();
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(6),
        "{lines:?}"
    );
    for (line, about) in lines.iter().zip(["store", "rollouts", "region"]) {
        assert!(line.starts_with("ok ") && line.contains(about), "{lines:?}");
    }
    let ended = process.0.try_wait().expect("ours");
    assert!(ended.is_none(), "it waits for who calls");
}

//! What the guide says of the engine without an account on AWS can be typed, from a clean
//! clone.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::documents::{command_lines, words};
use crate::support::aws::emulator::{Emulator, tool};
use crate::support::binary::{Running, code, engine, plugin, stderr, stdout};
use crate::support::{folder, root};

/// The blocks of commands in that section of the guide.
fn blocks() -> Vec<String> {
    let guide = std::fs::read_to_string(root().join("engine/docs/guide/aws.md"));
    let guide = guide.expect("the guide");
    let (_, section) = guide.split_once("\n## Without an account\n").expect("it");
    let (section, _) = section.split_once("\n## ").expect("the next one");
    let blocks = section.split("```console\n").skip(1);
    let ends = blocks.filter_map(|block| block.split_once("```"));
    ends.map(|(block, _)| block.to_owned()).collect()
}

/// The values of the line that exports variables.
fn exported(block: &str) -> Vec<(String, String)> {
    let line = block
        .lines()
        .find_map(|line| line.strip_prefix("$ export "));
    let pairs = line.expect("variables").split_whitespace();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').expect("a value");
        (name.to_owned(), value.to_owned())
    };
    pairs.map(pair).collect()
}

#[test]
fn the_guide_without_an_account_can_be_typed() {
    let blocks = blocks();
    let [start, verbs, rollouts] = &blocks[..] else {
        panic!("{blocks:#?}");
    };
    // What `make` starts is where the variables lead.
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("there");
    let variables = exported(verbs);
    let (_, endpoint) = &variables[0];
    let port = endpoint.rsplit(':').next().unwrap_or_default();
    assert!(
        makefile.contains(&format!("AWS_PORT ?= {port}\n")),
        "{port}"
    );
    assert!(start.starts_with("$ make aws-here ") && makefile.contains("\naws-here: "));
    assert!(rollouts.starts_with("$ make aws-users ") && makefile.contains("\naws-users: "));

    let emulator = Emulator::start(&["--stack-polls", "0"]);
    let folder = folder();
    let canary = plugin("canary");
    let run = |line: &str| {
        let words = words(line);
        let arguments: Vec<&str> = words[1..]
            .iter()
            .map(|word| match word.as_str() {
                "plugins/canary.wasm" => &canary,
                word => word,
            })
            .collect();
        let mut command = engine(folder.path(), &arguments);
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (name, value) in &variables {
            match name.as_str() {
                "AWS_ENDPOINT_URL" => command.env(name, format!("http://{}", emulator.address)),
                _ => command.env(name, value),
            };
        }
        command.output().expect("the binary runs")
    };
    let lines = command_lines(verbs);
    assert!(lines.len() > 5, "{lines:?}");
    let mut rest = verbs.as_str();
    for line in &lines {
        let output = run(line);
        assert_eq!(code(&output), Some(0), "{line}: {}", stderr(&output));
        // What is shown below it, it says.
        rest = rest.split_once(&format!("$ {line}\n")).expect("there").1;
        for shown in rest.lines().take_while(|line| !line.starts_with("$ ")) {
            assert!(
                stdout(&output).contains(shown),
                "{line}: {}",
                stdout(&output)
            );
        }
    }
    // Users know the stack by its name alone.
    let users = Command::new(tool("python"))
        .arg(root().join("engine/tests/emulator/feed.py"))
        .arg("shop")
        .env("AWS_ENDPOINT_URL", format!("http://{}", emulator.address))
        .envs([
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "any"),
            ("AWS_SECRET_ACCESS_KEY", "any"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut users = Running(users.expect("python starts"));
    std::thread::sleep(std::time::Duration::from_secs(5));
    drop(users.0.stdin.take());
    let mut met = String::new();
    let said = users.0.stdout.take().expect("piped");
    BufReader::new(said)
        .read_line(&mut met)
        .expect("it says it");
    assert!(met.contains("\"requests\": "), "{met:?}");
    // Rollouts take their real time; that they are lines that can be typed is tested with
    // those of all documents.
    let gone = command_lines(rollouts).pop().expect("the last line");
    assert_eq!(code(&run(&gone)), Some(0), "{gone}");
}

//! What others hand over: texts, numbers, names and things that are no files.
//! The binary shows them, counts with them, or refuses them; it does nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use engine::hindsight::file;
use engine::journal::{Entry, Event};
use engine::model::is_hidden;
use engine::ops::Kind;
use engine::ops::begin::BeginRequest;
use engine::ops::history::list;
use engine::ops::plugin::check::{CheckRequest, check};
use serde_json::{Value, json};

use crate::support::app::{TestApp, refused};
use crate::support::binary::{engine, run, stderr, stdout};
use crate::support::components::{binary, component};
use crate::support::lab::{self, Lab};
use crate::support::{folder, guests};

/// Moves the cursor, sets the title, turns the text around, hides in it.
const SLY: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\u{2066}\u{200b}\u{200f}\u{feff}\u{2060}\u{ad}\u{e0041}\u{fe0f}\r\u{8}\u{2028}";

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("\\{b:02x}")).collect()
}

/// A component that describes itself so: name, version, summary and schema.
fn described(texts: [&str; 4], more: &str) -> Vec<u8> {
    let mut at = 70_000;
    let (mut parts, mut stores) = (vec![], vec![]);
    for (index, text) in texts.iter().enumerate() {
        let data = escaped(text.as_bytes());
        parts.push(format!("(data (i32.const {at}) \"{data}\")"));
        for (place, value) in [(64 + index * 8, at), (68 + index * 8, text.len())] {
            stores.push(format!(
                "(i32.store (i32.const {place}) (i32.const {value}))"
            ));
        }
        at += text.len() + 8;
    }
    parts.push(format!(
        "(func $describe (result i32) {} (i32.const 64))\n{more}",
        stores.join(" ")
    ));
    binary(&component(&parts.join("\n")))
}

fn shows_plainly(output: &Output, what: &str) {
    let odd = |text: &str| {
        text.chars()
            .find(|c| is_hidden(*c) && !matches!(c, '\n' | '\t'))
    };
    for text in [stdout(output), stderr(output)] {
        assert_eq!(odd(&text), None, "{what}: {text:?}");
    }
    assert_ne!(
        output.status.code(),
        Some(101),
        "{what}: {}",
        stderr(output)
    );
}

#[test]
fn what_a_plugin_says_is_only_shown() {
    let folder = folder();
    let schema = json!({
        "properties": {
            SLY: {"type": SLY, "default": SLY, "description": SLY},
            "two\nlines": {"enum": [SLY, "a\nb"], "description": "a\nb"},
            "other": {"const": SLY},
        },
        "required": [SLY],
    })
    .to_string();
    let bytes = described(["sly", SLY, SLY, &schema], "");
    std::fs::write(folder.path().join("sly.wasm"), bytes).expect("writable");
    let sly = format!("{SLY}=1");
    for arguments in [
        &["plugin", "inspect", "sly.wasm"][..],
        &["plugin", "inspect", "sly.wasm", "--json"],
        &["plugin", "check", "sly.wasm"],
        &["plugin", "check", "sly.wasm", "--set", &sly],
        &["run", "sly.wasm"],
        &["run", "sly.wasm", "--set", &sly],
        &["plan", "sly.wasm", "--set", &sly],
    ] {
        let output = run(folder.path(), arguments);
        shows_plainly(&output, &format!("{arguments:?}"));
    }
    let shown = run(folder.path(), &["plugin", "inspect", "sly.wasm"]);
    let table = stdout(&shown);
    let rows = table.split("parameters\n").nth(1).expect("a table");
    assert_eq!(rows.lines().count(), 3, "a line each: {rows}");
    let json = stdout(&run(
        folder.path(),
        &["plugin", "inspect", "sly.wasm", "--json"],
    ));
    let read: Value = serde_json::from_str(&json).expect("JSON");
    assert!(
        read["schema"]["properties"][SLY].is_object(),
        "nothing is lost: {json}"
    );
}

/// A rollout that has ended, with something of everything.
async fn journal() -> Vec<Entry> {
    let lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
    lab.run().await;
    lab.journal().await
}

fn leaves(value: &mut Value, each: &mut impl FnMut(&str, &mut Value)) {
    fn walk(key: &str, value: &mut Value, each: &mut impl FnMut(&str, &mut Value)) {
        match value {
            Value::Object(all) => all.iter_mut().for_each(|(k, v)| walk(k, v, each)),
            Value::Array(all) => all.iter_mut().for_each(|v| walk(key, v, each)),
            leaf => each(key, leaf),
        }
    }
    walk("", value, each);
}

/// A journal without anything odd in it.
const AS_IT_IS: &str = "as it is";

/// Forgets all rollouts, and keeps what was compiled.
fn forget(folder: &Path) {
    for file in ["engine.db", "engine.db-wal", "engine.db-shm"] {
        let _ = std::fs::remove_file(folder.join("state").join(file));
    }
}

/// Everything that reads a journal of elsewhere.
fn read_with_all(folder: &Path, entries: &[Entry], what: &str) {
    std::fs::write(folder.join("it.journal"), file::write(entries)).expect("writable");
    let Event::Started(header) = &entries[0].event else {
        panic!("no beginning");
    };
    let id = header.rollout.as_str();
    forget(folder);
    for arguments in [
        &["explain", "it.journal"][..],
        &["explain", "it.journal", "--json"],
        &["import", "it.journal"],
        &["list"],
        &["get", id],
        &["get", id, "--json"],
        &["history", id],
        &["history", id, "--plot", "it.svg"],
        &["what-if", "it.journal", "--plugin", "canary.wasm"],
        &["replay", "it.journal", "canary.wasm"],
    ] {
        let output = run(folder, arguments);
        shows_plainly(&output, &format!("{what}: {arguments:?}"));
        if what == AS_IT_IS {
            let words = stderr(&output);
            assert_eq!(output.status.code(), Some(0), "{arguments:?}: {words}");
        }
    }
}

#[tokio::test]
async fn numbers_of_elsewhere_are_only_numbers() {
    let folder = folder();
    std::fs::write(folder.path().join("canary.wasm"), guests::guest("canary")).expect("writable");
    let journal = journal().await;
    read_with_all(folder.path(), &journal, AS_IT_IS);
    let json = serde_json::to_value(&journal).expect("JSON");
    let mut keys = BTreeSet::new();
    leaves(&mut json.clone(), &mut |key, leaf| {
        if leaf.is_number() && !matches!(key, "seq" | "format" | "of" | "epoch") {
            keys.insert(key.to_owned());
        }
    });
    assert!(
        keys.contains("start") && keys.contains("period_ms"),
        "{keys:?}"
    );
    let mut tried = 0;
    for key in &keys {
        for extreme in [json!(u64::MAX), json!(u32::MAX), json!(1e300)] {
            let mut other = json.clone();
            leaves(&mut other, &mut |at, leaf| {
                if at == key && leaf.is_number() {
                    *leaf = extreme.clone();
                }
            });
            // Some are too large for their type, and end there.
            let Ok(entries) = serde_json::from_value::<Vec<Entry>>(other) else {
                continue;
            };
            read_with_all(folder.path(), &entries, &format!("{key} = {extreme}"));
            tried += 1;
            break;
        }
    }
    assert!(tried >= keys.len() - 1, "{tried} of {keys:?}");
}

#[tokio::test]
async fn texts_of_elsewhere_are_only_texts() {
    let folder = folder();
    std::fs::write(folder.path().join("canary.wasm"), guests::guest("canary")).expect("writable");
    let json = serde_json::to_value(journal().await).expect("JSON");
    let free = [
        "message",
        "note",
        "reason",
        "explanation",
        "version",
        "source",
        "title",
        "actor",
        "detail",
        "identity",
        "world",
        "name",
    ];
    for key in free {
        let mut other = json.clone();
        leaves(&mut other, &mut |at, leaf| {
            if at == key && leaf.is_string() {
                *leaf = json!(SLY);
            }
        });
        if let Ok(entries) = serde_json::from_value::<Vec<Entry>>(other) {
            read_with_all(folder.path(), &entries, key);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_without_a_reason_is_one() {
    // `err`, and a list of no issues.
    let rejects = r#"(func $validate (param i32 i32) (result i32)
        (i32.store8 (i32.const 128) (i32.const 1))
        (i32.store (i32.const 132) (i32.const 0)) (i32.store (i32.const 136) (i32.const 0))
        (i32.const 128))"#;
    // One issue without any words.
    let wordless = r#"(func $validate (param i32 i32) (result i32)
        (i32.store8 (i32.const 128) (i32.const 1))
        (i32.store (i32.const 132) (i32.const 80000)) (i32.store (i32.const 136) (i32.const 1))
        (i32.const 128))"#;
    let test = TestApp::surrounded(<_>::default());
    for (rejects, says) in [
        (rejects, "it rejects them and does not say why"),
        (wordless, "strategy.parameters: "),
    ] {
        let plugin = test.write("mute.wasm", binary(&component(rejects)));
        let says = ["does not accept its parameters", says];
        // `plan` gets a rollout ready too.
        let request = BeginRequest {
            plugin: Some(plugin.clone()),
            ..BeginRequest::default()
        };
        refused(test.begin(&request).await, Kind::Usage, &says);
        let request = CheckRequest {
            plugin,
            set: vec![],
            queries: vec![],
            pins: <_>::default(),
        };
        refused(check(&test.app, request).await, Kind::Usage, &says);
    }
    assert_eq!(list(&test.app, &<_>::default()).await, Ok(vec![]));
}

#[tokio::test]
async fn a_name_is_no_option() {
    let folder = folder();
    for name in ["--help", "-v", "-", "--", "-rf"] {
        let bytes = described([name, "0.1.0", "it", "{}"], "");
        std::fs::write(folder.path().join("dash.wasm"), bytes).expect("writable");
        for verb in [
            &["run", "dash.wasm"][..],
            &["plugin", "inspect", "dash.wasm"],
        ] {
            let output = run(folder.path(), verb);
            let words = stderr(&output);
            assert_eq!(output.status.code(), Some(6), "{name}: {words}");
            assert!(words.contains("does not begin with -"), "{name}: {words}");
        }
        // Nor is it one of plugins.toml.
        let named = format!("[plugins]\n\"{name}\" = \"dash.wasm\"\n");
        std::fs::write(folder.path().join("plugins.toml"), named).expect("writable");
        let output = run(folder.path(), &["plugin", "list"]);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", stderr(&output));
        std::fs::remove_file(folder.path().join("plugins.toml")).expect("removed");
    }
    // What an engine before this one has called so can still be named.
    let mut journal = journal().await;
    for id in ["--help-x7k2m9q4", "-v", "--json"] {
        let Event::Started(header) = &mut journal[0].event else {
            panic!("no beginning");
        };
        header.rollout = id.to_owned();
        std::fs::write(folder.path().join("it.journal"), file::write(&journal)).expect("writable");
        forget(folder.path());
        let imported = run(folder.path(), &["import", "it.journal"]);
        assert_eq!(
            imported.status.code(),
            Some(0),
            "{id}: {}",
            stderr(&imported)
        );
        // One that is an option of ours goes after the dashes that end them.
        let ends: &[&str] = if id == "--json" { &["--"] } else { &[] };
        for verb in ["get", "history", "explain"] {
            let output = run(folder.path(), &[&[verb][..], ends, &[id]].concat());
            assert_eq!(
                output.status.code(),
                Some(0),
                "{verb} {id}: {}",
                stderr(&output)
            );
        }
        for verb in ["abort", "pause", "promote", "approve"] {
            let output = run(folder.path(), &[&[verb][..], ends, &[id]].concat());
            let words = stderr(&output);
            assert!(
                words.contains(id) && !words.contains("Usage:"),
                "{verb} {id}: {words}"
            );
        }
    }
}

/// Ends it when it hangs.
fn in_time(mut command: Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let begun = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if begun.elapsed() > Duration::from_secs(30) {
            child.kill().expect("killed");
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("its output")
}

#[test]
fn only_files_are_read() {
    let folder = folder();
    let place = |name: &str| folder.path().join(name);
    let made = Command::new("mkfifo").arg(place("pipe")).status();
    assert!(made.expect("mkfifo").success());
    std::fs::write(place("good.wasm"), binary(&component(""))).expect("writable");
    std::fs::write(place("toml.wasm"), b"").expect("writable");
    for odd in ["pipe", "/dev/zero", "."] {
        for arguments in [
            &["run", odd][..],
            &["plugin", "inspect", odd],
            &["--file", odd, "run", "good.wasm"],
            &["import", odd],
            &["explain", odd],
            &["replay", odd, "good.wasm"],
            &["simulate", "good.wasm", "--scenarios", odd],
            &["plugin", "lock", "--plugins", odd],
            &["plugin", "inspect", "good.wasm", "--plugins", odd],
        ] {
            let output = in_time(engine(folder.path(), arguments));
            let words = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {words}");
        }
        let mut command = engine(folder.path(), &["run", "good.wasm"]);
        command.env("ENGINE_POLICY", odd);
        let output = in_time(command);
        let words = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "policy {odd}: {words}");
        assert!(
            words.contains("only files are read"),
            "policy {odd}: {words}"
        );
    }
    // A signature and a lock beside what is asked for.
    let pipe = |name: &str| Command::new("mkfifo").arg(place(name)).status();
    assert!(pipe("good.wasm.sig").expect("mkfifo").success());
    let output = in_time(engine(folder.path(), &["plugin", "inspect", "good.wasm"]));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    std::fs::remove_file(place("good.wasm.sig")).expect("removed");
    assert!(pipe("plugins.lock").expect("mkfifo").success());
    std::fs::write(place("plugins.toml"), "[plugins]\nit = \"good.wasm\"\n").expect("writable");
    let output = in_time(engine(folder.path(), &["plugin", "inspect", "it"]));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

//! Answers in JSON and files that people write, held against their schemas. Whatever
//! a test has the real binary answer goes through [`hold`] too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;

use engine::cli::print::plain;
use engine::hindsight::file;
use engine::view::catalogue::{Kind, documents};
use engine::view::stack::Deleted;
use engine::view::{View, rollout, text};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::support::balancer::Local;
use crate::support::binary::{code, plugin, run, spawn, stderr, stdout, until, wait};
use crate::support::{folder, root};

static VALIDATORS: LazyLock<BTreeMap<&str, Validator>> = LazyLock::new(|| {
    let validator = |schema| jsonschema::draft202012::new(&schema).expect("a JSON Schema");
    let all = documents().map(|document| (document.name, validator(document.schema())));
    all.collect()
});

fn problems(name: &str, value: &Value) -> Vec<String> {
    let problems = VALIDATORS[name].iter_errors(value);
    let problems = problems.map(|problem| format!("{}: {problem}", problem.instance_path()));
    problems.collect()
}

/// Panics if a value is not as the schema of that name says.
pub fn fits(name: &str, value: &Value) {
    let problems = problems(name, value);
    assert!(problems.is_empty(), "{name}: {problems:#?}\n{value:#}");
}

/// What an answer looks like as JSON; panics if it is not as its schema says.
pub fn shown<V: View>(view: &V) -> Value {
    let value = serde_json::from_str(&text(view)).expect("JSON");
    fits(V::NAME, &value);
    value
}

/// The schemas of what a verb may answer; none if that is no JSON of ours.
fn answers(arguments: &[&str]) -> Vec<String> {
    // What follows is no option.
    let end = arguments.iter().position(|word| *word == "--");
    let arguments = &arguments[..end.unwrap_or(arguments.len())];
    let has = |words: &[&str]| words.iter().any(|word| arguments.contains(word));
    let verbs = [
        "run",
        "resume",
        "check",
        "doctor",
        "init",
        "plan",
        "simulate",
        "status",
        "get",
        "list",
        "history",
        "explain",
        "replay",
        "what-if",
        "export",
        "import",
        "set-weights",
        "switch",
        "rollback",
        "undo",
        "pause",
        "promote",
        "abort",
        "approve",
        "deploy",
        "delete",
        "local",
        "plugin",
        "schema",
    ];
    let Some(at) = arguments.iter().position(|word| verbs.contains(word)) else {
        return vec![];
    };
    let names: &[&str] = match arguments[at] {
        _ if !has(&["--json"]) || has(&["--policy"]) => &[],
        // Of a store that fails: what `rollback` says.
        "run" | "resume" | "undo" => &["run", "traffic", "rollout"],
        "status" if has(&["--watch", "-w"]) => &["run"],
        "simulate" if has(&["--replicate"]) => &["replicate"],
        "set-weights" | "switch" => &["traffic"],
        "rollback" | "abort" => &["traffic", "rollout"],
        "pause" | "promote" | "approve" => &["rollout"],
        "plugin" if arguments[at + 1] == "update" => &["plugin-lock"],
        "plugin" => return vec![format!("plugin-{}", arguments[at + 1])],
        "schema" if arguments.len() > at + 2 => &[],
        verb => return vec![verb.to_owned()],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Whether a verb says in JSON what was wrong. Panics if that is not as its schema says,
/// or other than what its exit code and stderr say.
fn failed(arguments: &[&str], output: &Output) -> bool {
    let answer = serde_json::from_str::<Value>(&stdout(output)).unwrap_or_default();
    let Some(error) = answer.get("error").and_then(Value::as_object) else {
        return false;
    };
    fits("error", &answer);
    assert_eq!(
        error["exit-code"].as_i64(),
        output.status.code().map(i64::from),
        "{arguments:?}: {answer}"
    );
    let said = stderr(output);
    for part in [&error["message"], &error["advice"]] {
        // Nothing invisible is printed as it is.
        let part = plain(part.as_str().unwrap_or_default(), false);
        assert!(
            said.contains(&*part),
            "{arguments:?}: {part:?} is not in {said:?}"
        );
    }
    true
}

/// Panics if a verb has answered in JSON otherwise than its schema says.
pub fn hold(arguments: &[&str], output: &Output) {
    if failed(arguments, output) {
        return;
    }
    let answer = stdout(output);
    let names = answers(arguments);
    if names.is_empty() || answer.is_empty() {
        return;
    }
    // Verbs whose data is not JSON have no schema.
    let known: Vec<&String> = names
        .iter()
        .filter(|n| VALIDATORS.contains_key(n.as_str()))
        .collect();
    if known.is_empty() {
        return;
    }
    let value: Value =
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {answer}"));
    let tried: Vec<_> = known
        .iter()
        .map(|name| (name, problems(name, &value)))
        .collect();
    assert!(
        tried.iter().any(|(_, problems)| problems.is_empty()),
        "{arguments:?}: {tried:#?}\n{value:#}"
    );
}

/// Every object of a schema.
fn objects<'a>(schema: &'a Value, found: &mut Vec<&'a serde_json::Map<String, Value>>) {
    match schema {
        Value::Object(object) => {
            found.push(object);
            object.values().for_each(|inner| objects(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|item| objects(item, found)),
        _ => {}
    }
}

fn is_kebab(word: &str) -> bool {
    word.chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[test]
fn answers_have_keys_and_words_in_kebab_case() {
    for document in documents().filter(|document| document.kind == Kind::Answer) {
        let schema = document.schema();
        let mut all = vec![];
        objects(&schema, &mut all);
        for object in all {
            let keys = object.get("properties").and_then(Value::as_object);
            for key in keys.into_iter().flat_map(|keys| keys.keys()) {
                assert!(is_kebab(key), "{}: {key}", document.name);
            }
            let words = object.get("enum").and_then(Value::as_array);
            let words = words.into_iter().flatten().chain(object.get("const"));
            for word in words.filter_map(Value::as_str) {
                assert!(is_kebab(word), "{}: {word}", document.name);
            }
        }
    }
}

/// A key that is added to an answer without its schema, or to a file, is refused.
#[test]
fn schemas_refuse_what_they_do_not_describe() {
    for document in documents() {
        let schema = document.schema();
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        jsonschema::meta::validate(&schema).expect("a JSON Schema");
        let mut all = vec![];
        objects(&schema, &mut all);
        let mut open = all.iter().filter(|object| {
            object
                .get("properties")
                .is_some_and(|keys| keys.get("type").is_none_or(Value::is_object))
                && !object.contains_key("additionalProperties")
                && !object.contains_key("unevaluatedProperties")
        });
        if let Some(open) = open.next() {
            // Parts of an object whose keys are described in several places.
            let whole = serde_json::to_string(open).expect("JSON");
            assert!(
                all.iter()
                    .any(|object| object.contains_key("unevaluatedProperties")
                        && serde_json::to_string(object)
                            .expect("JSON")
                            .contains(&whole)),
                "{}: {whole}",
                document.name
            );
        }
        // Words for people, not for whoever reads the source.
        let about = all
            .iter()
            .filter_map(|object| object.get("description")?.as_str());
        for about in about {
            assert!(!about.contains("[`"), "{}: {about}", document.name);
        }
    }
    let deleted = Deleted {
        stack: "shop".to_owned(),
        status: "DELETE_COMPLETE".to_owned(),
    };
    fits(
        "delete",
        &serde_json::from_str(&text(&deleted)).expect("JSON"),
    );
    let mut status = json!({"target": null, "rollout": null, "driven": null});
    fits("status", &status);
    status["elsewhere"] = json!([]);
    assert!(!problems("status", &status).is_empty());
}

/// The files below a folder that end so.
fn files(folder: &Path, end: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !matches!(name.as_str(), "node_modules" | "target") {
            files(&path, end, found);
        } else if name.ends_with(end) {
            found.push(path);
        }
    }
}

fn toml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("readable");
    let table: toml::Table = text.parse().expect("TOML");
    serde_json::to_value(table).expect("JSON")
}

#[test]
fn files_of_the_tree_are_as_their_schemas_say() {
    let mut rollouts = vec![];
    files(&root().join("examples/rollouts"), ".toml", &mut rollouts);
    assert!(rollouts.len() >= 4, "{rollouts:?}");
    for path in &rollouts {
        fits("rollout.toml", &toml(path));
    }
    let fuzzed = root().join("engine/tests/fuzzed/config");
    fits("plugins.toml", &toml(&fuzzed.join("good-plugins.toml")));
    fits("policy.toml", &toml(&fuzzed.join("good-policy.toml")));
    let mut scenarios = vec![];
    for folder in ["examples", "engine/templates"] {
        files(&root().join(folder), ".json", &mut scenarios);
    }
    let mut seen = 0;
    for path in scenarios {
        let text = std::fs::read_to_string(&path).expect("readable");
        // Others are what languages need.
        if text.contains("\"simulate/v1\"") {
            seen += 1;
            fits("scenario", &serde_json::from_str(&text).expect("JSON"));
        }
    }
    assert!(seen >= 8, "{seen} files of scenarios");
}

#[test]
fn schemas_of_files_refuse_what_their_readers_refuse() {
    for (name, wrong, says) in [
        ("rollout.toml", json!({"stategy": {}}), "stategy"),
        (
            "rollout.toml",
            json!({"target": {"kind": "lokal"}}),
            "lokal",
        ),
        (
            "rollout.toml",
            json!({"target": {"kind": "aws", "aws": {"stak": "shop"}}}),
            "aws",
        ),
        (
            "rollout.toml",
            json!({"guardrails": {"largest-step": 400}}),
            "400",
        ),
        (
            "rollout.toml",
            json!({"guardrails": {"deadline": "soon"}}),
            "soon",
        ),
        (
            "rollout.toml",
            json!({"probes": {"smoke": {"status": 200}}}),
            "path",
        ),
        (
            "rollout.toml",
            json!({"queries": {"a": {"url": "ftp://x"}}}),
            "ftp",
        ),
        ("rollout.toml", json!({"candidate": null}), "null"),
        (
            "plugins.toml",
            json!({"plugins": {"a": {"sauce": "b"}}}),
            "sauce",
        ),
        (
            "scenario",
            json!({"apiVersion": "simulate/v2", "scenarios": []}),
            "simulate/v1",
        ),
    ] {
        let found = problems(name, &wrong).join("\n");
        assert!(found.contains(says), "{wrong} is refused by {found:?}");
    }
}

/// Journals of older engines and of every kind of entry, as `history` would show them.
#[test]
fn journals_are_shown_as_the_schema_says() {
    let mut journals = vec![];
    files(
        &root().join("engine/tests/fuzzed/journal"),
        ".jsonl",
        &mut journals,
    );
    assert_eq!(journals.len(), 3);
    for path in journals {
        let journal = std::fs::read_to_string(&path).expect("readable");
        let entries = file::read(&journal).expect("a journal");
        let shown = text(&rollout::History(entries));
        let value: Value = serde_json::from_str(&shown).expect("JSON");
        fits("history", &value);
        assert!(!shown.contains("\"period_ms\""), "{}", path.display());
    }
}

#[test]
fn a_query_is_stored_as_ever_and_shown_in_kebab_case() {
    use engine::model::query::{CloudWatchMetric, Query, QuerySource};
    let metric = CloudWatchMetric {
        namespace: "ML".to_owned(),
        metric: "accuracy".to_owned(),
        statistic: "Average".to_owned(),
        period_s: 60,
        ..CloudWatchMetric::default()
    };
    let query = Query::new("accuracy", QuerySource::CloudWatch(metric));
    let stored = serde_json::to_string(&query).expect("JSON");
    assert_eq!(
        stored,
        r#"{"name":"accuracy","expression":null,"namespace":"ML","metric":"accuracy","statistic":"Average","period_s":60,"dimensions":[]}"#
    );
    assert_eq!(serde_json::from_str::<Query>(&stored).expect("read"), query);
}

#[test]
fn the_verb_prints_schemas_and_lists_them() {
    let folder = folder();
    let go = |arguments: &[&str]| run(folder.path(), arguments);
    let list = stdout(&go(&["schema"]));
    for document in documents() {
        assert!(list.contains(document.name), "{list}");
        let printed = go(&["schema", document.name]);
        assert_eq!(code(&printed), Some(0), "{}", stderr(&printed));
        let printed: Value = serde_json::from_str(&stdout(&printed)).expect("JSON");
        assert_eq!(printed, document.schema());
    }
    let unknown = go(&["schema", "statuz"]);
    assert_eq!(code(&unknown), Some(2));
    assert_eq!(stdout(&unknown), "");
    let says = stderr(&unknown);
    assert!(
        says.contains("there is no schema \"statuz\"; did you mean status?"),
        "{says}"
    );
    let json = go(&["schema", "--json"]);
    assert!(stdout(&json).contains("\"name\":\"rollout.toml\""));
    assert!(!folder.path().join("state").exists(), "it needs no store");
}

/// What was wrong is an answer too, of every verb and once.
#[test]
fn a_verb_that_fails_says_so_in_json() {
    let folder = folder();
    let place = folder.path();
    let refused = |arguments: &[&str], exit: i32| {
        let output = run(place, &[arguments, &["--json"]].concat());
        let said = stderr(&output);
        assert_eq!(code(&output), Some(exit), "{arguments:?}: {said}");
        assert!(said.starts_with("error: "), "{arguments:?}: {said}");
        let answer: Value = serde_json::from_str(&stdout(&output)).expect("one JSON");
        fits("error", &answer);
        answer
    };
    assert_eq!(
        refused(&["get", "nobody"], 2),
        json!({"error": {
            "kind": "usage",
            "message": "there is no rollout \"nobody\"",
            "advice": "`engine list` shows them",
            "exit-code": 2,
        }})
    );
    let nobody = refused(&["status", "--local", "127.0.0.1:1"], 1);
    assert_eq!(nobody["error"]["kind"], "unreachable");
    let advice = nobody["error"]["advice"].as_str().unwrap_or_default();
    assert!(
        advice.starts_with("start one with `engine local`"),
        "{nobody}"
    );
    let wrong = refused(&["status", "--rule", "foo"], 2);
    let message = wrong["error"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("--rule foo is not"), "{wrong}");
    assert_eq!(wrong["error"]["advice"], Value::Null);
    std::fs::write(place.join("run.sh"), "#!/bin/sh\n").expect("writable");
    for verb in [&["run", "run.sh"][..], &["plugin", "inspect", "run.sh"]] {
        let rejected = refused(verb, 6);
        assert_eq!(rejected["error"]["kind"], "rejected", "{rejected}");
    }
    let unknown = refused(&["frobnicate"], 2);
    let message = unknown["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("'frobnicate'"), "{unknown}");
    // Without --json nothing is answered.
    for arguments in [&["get", "nobody"][..], &["frobnicate"]] {
        let output = run(place, arguments);
        assert_eq!((code(&output), &*stdout(&output)), (Some(2), ""));
    }
}

/// A verb that has answered says what is wrong besides on stderr alone.
#[test]
fn there_is_one_answer() {
    let folder = folder();
    let place = folder.path();
    std::fs::write(place.join("gate.wasm"), "no component").expect("writable");
    std::fs::write(
        place.join("plugins.toml"),
        "[plugins]\ngate = \"gate.wasm\"\n",
    )
    .expect("writable");
    let output = run(place, &["plugin", "verify", "--json"]);
    assert_eq!(code(&output), Some(6), "{}", stderr(&output));
    let answer: Value = serde_json::from_str(&stdout(&output)).expect("one JSON");
    assert_eq!(answer["plugins"][0]["ok"], false, "{answer}");
    assert!(stderr(&output).starts_with("error: "));
}

/// One answer of each verb that needs neither AWS nor a registry; [`run`] holds each
/// of them against its schema.
#[test]
fn verbs_answer_as_their_schemas_say() {
    let folder = folder();
    let place = folder.path();
    let local = Local::start(place, &[]);
    let admin = local.admin();
    let answer = |arguments: &[&str], exit: i32| {
        let arguments = [arguments, &["--local", &admin, "--json"]].concat();
        let output = run(place, &arguments);
        assert_eq!(
            code(&output),
            Some(exit),
            "{arguments:?}: {}",
            stderr(&output)
        );
        serde_json::from_str::<Value>(&stdout(&output)).expect("JSON")
    };
    fits(
        "local",
        &json!({"listen": local.listen, "admin": local.admin}),
    );
    until(place, &admin, |status| {
        let arms = status["target"]["arms"].as_array();
        arms.is_some_and(|arms| arms.iter().all(|arm| arm["healthy"] != 0))
    });
    let moved = answer(&["set-weights", "90", "10"], 0);
    assert_eq!(moved["before"][0], json!({"arm": "stable", "weight": 100}));
    answer(&["switch", "canary"], 0);
    answer(&["rollback"], 0);
    let seen = answer(&["status"], 0);
    assert!(
        seen["target"]["rates"]["stable"]["rps"].is_number(),
        "{seen}"
    );

    // Without requests it waits, and so hears people.
    let canary = plugin("canary");
    let process = spawn(place, &["run", &canary, "--local", &admin, "--json"]);
    until(place, &admin, |status| status["driven"] == true);
    answer(&["pause"], 0);
    let output = wait(process);
    hold(&["run", "--json"], &output);
    assert_eq!(code(&output), Some(5), "{}", stderr(&output));
    let paused: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(paused["hold"]["why"], "asked", "{paused}");
    assert_eq!(paused["exit"], 5, "{paused}");
    let aborted = answer(&["abort"], 0);
    assert_eq!(aborted["end"]["how"], "rolled-back", "{aborted}");
    let id = aborted["rollout"].as_str().expect("an id").to_owned();
    assert!(answer(&["get", &id], 0)["header"]["sample-period-ms"].is_number());
    assert_eq!(answer(&["list"], 0)[0]["rollout"], *id);
    assert!(answer(&["history", &id], 0)[0]["event"]["sample-period-ms"].is_number());
    assert!(
        !answer(&["explain", &id], 0)["steps"]
            .as_array()
            .expect("a list")
            .is_empty()
    );
    assert_eq!(answer(&["replay", &id], 0)["same-bytes"], true);
    let asked = answer(&["what-if", &id], 0);
    assert!(
        asked["rollouts"][0]["what-if"]["end"].is_string(),
        "{asked}"
    );

    let scenarios = root().join("examples/scenarios/development.json");
    let scenarios = scenarios.display().to_string();
    let simulate = [
        "simulate",
        &canary,
        "--scenario",
        &scenarios,
        "--pick",
        "bad-medium-plus5",
    ];
    let report = answer(&[&simulate[..], &["--replicates", "2"]].concat(), 0);
    assert!(
        report["summary"]["detected-mean-pct"].is_number(),
        "{report}"
    );
    let one = answer(&[&simulate[..], &["--replicate", "1"]].concat(), 0);
    assert!(one["bad-requests"].is_number());
    assert_eq!(
        answer(&["plugin", "check", &canary], 0)["moves-traffic"],
        true
    );
    assert_eq!(answer(&["plugin", "inspect", &canary], 0)["name"], "canary");

    let exported = answer(&["export", &id, "--output", "x.journal"], 0);
    assert_eq!(exported["rollout"], *id);
    assert_eq!(exported["file"], "x.journal");
    let imported = answer(&["import", "x.journal", "--state-dir", "other"], 0);
    let again = answer(&["import", "x.journal", "--state-dir", "other"], 0);
    for (answer, new) in [(&imported, true), (&again, false)] {
        assert_eq!(answer["new"], new, "{answer}");
        assert_eq!(answer["rollout"], *id);
        assert_eq!(answer["entries"], exported["entries"]);
    }
    let made = answer(&["plugin", "new", "my-gate", "--lang", "js"], 0);
    assert_eq!(
        made,
        json!({"name": "my-gate", "language": "js", "folder": "my-gate"})
    );
    std::fs::copy(&canary, place.join("gate.wasm")).expect("a guest");
    let names = "[plugins]\ngate = \"gate.wasm\"\n";
    std::fs::write(place.join("plugins.toml"), names).expect("writable");
    let locked = answer(&["plugin", "lock"], 0);
    assert_eq!(locked["changes"][0]["name"], "gate", "{locked}");
    assert_eq!(locked["changes"][0]["before"], Value::Null, "{locked}");
    assert_eq!(answer(&["plugin", "update"], 0)["written"], false);
    assert_eq!(answer(&["plugin", "vendor"], 0)["folder"], Value::Null);
    let pulled = answer(&["plugin", "pull"], 0);
    assert_eq!(pulled["plugins"][0]["name"], "gate", "{pulled}");
    let worlds = place.join("worlds.json");
    std::fs::copy(root().join("engine/templates/js/scenario.json"), &worlds).expect("there");
    let test = [
        "plugin",
        "test",
        &canary,
        "--scenario",
        "worlds.json",
        "--replicates",
        "1",
    ];
    let tested = answer(&test, 9);
    assert_eq!(tested["files"][0]["compared"], "new", "{tested}");
    let tested = answer(&[&test[..], &["--accept"]].concat(), 0);
    assert_eq!(tested["files"][0]["passed"], true, "{tested}");
}

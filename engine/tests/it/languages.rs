//! One strategy, written in three languages: the projects that `engine plugin
//! new` makes, built as their READMEs say (`make language-guests`).

use engine::journal::Entry;
use engine::model::End;
use engine::rollout::Standing;
use engine::simulate::replicate::{self, Subject};
use engine::simulate::scenario::Corpus;
use serde_json::{Value, json};

use crate::support::binary::{run, stderr, stdout};
use crate::support::lab::{self, Lab};
use crate::support::root;
use crate::support::{folder, guests};

const LANGUAGES: [&str; 3] = ["doubling-rust", "doubling-python", "doubling-js"];

/// The worlds of the templates.
fn worlds() -> Corpus {
    let path = root().join("engine/templates/rust/scenario.json");
    Corpus::parse(&std::fs::read_to_string(path).expect("a file")).expect("scenarios")
}

async fn journal(guest: &str, scenario: usize, faults: &[&str], parameters: &Value) -> Vec<Entry> {
    let mut subject = Subject::new(guests::plugin(guest).await, "doubling", parameters.clone());
    subject.faults = faults.iter().map(|f| f.parse().expect("a fault")).collect();
    let played = replicate::play(&subject, &worlds().scenarios[scenario], 0).await;
    let played = played.expect("it plays");
    assert!(
        played.violations.is_empty(),
        "{guest}: {:?}",
        played.violations
    );
    played.journal
}

#[tokio::test]
async fn the_journals_are_the_same_to_the_byte() {
    for faults in [
        &[][..],
        &["engine-killed@90s", "engine-killed@7m"],
        &["metrics-missing@2m+6m"],
        &["aws-throttled@5m+2m"],
        &["tasks-die@6m+3m"],
        &["foreign-writer@8m"],
    ] {
        for scenario in [0, 1] {
            for parameters in [json!({}), json!({"first-share": 40, "min-requests": 3_000})] {
                let first = journal(LANGUAGES[0], scenario, faults, &parameters).await;
                assert!(first.len() > 4, "it did something");
                for other in &LANGUAGES[1..] {
                    let second = journal(other, scenario, faults, &parameters).await;
                    assert_eq!(first, second, "{other} with {faults:?} and {parameters}");
                }
            }
        }
    }
}

#[tokio::test]
async fn none_of_them_minds_being_evicted_at_every_call() {
    for guest in LANGUAGES {
        let parameters = json!({"bake-seconds": 10, "min-requests": 1});
        let mut lab = Lab::new(guests::plugin(guest).await, lab::good(), parameters);
        lab.options.chaos_evict = true;
        let standing = lab.run().await;
        assert!(
            matches!(standing, Standing::Over(End::Promoted, _)),
            "{guest}: {standing:?}"
        );
    }
}

/// What is wrong with parameters is said in the same words.
#[tokio::test]
async fn they_describe_themselves_alike() {
    for guest in LANGUAGES {
        let plugin = guests::plugin(guest).await;
        let description = plugin.describe().await.expect("it describes itself");
        assert_eq!(
            (description.name.as_str(), description.version.as_str()),
            ("doubling", "0.1.0")
        );
        let schema: Value = serde_json::from_str(&description.parameters_schema).expect("JSON");
        let properties = schema["properties"].as_object().expect("an object");
        let mut names: Vec<&str> = properties.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "bake-seconds",
                "first-share",
                "max-bad-permille",
                "min-requests",
                "slow-ms"
            ],
            "{guest}"
        );
        for (name, property) in properties {
            assert!(property["default"].is_u64(), "{guest} {name}");
            assert!(property["description"].is_string(), "{guest} {name}");
        }
        let steps = plugin
            .validate("{}")
            .await
            .expect("runs")
            .expect("defaults are valid");
        let shares: Vec<u32> = steps.iter().map(|s| s.share).collect();
        assert_eq!(shares, [5, 10, 20, 40, 80, 100], "{guest}");
        let issues = plugin
            .validate(r#"{"first-share": 0}"#)
            .await
            .expect("runs");
        assert!(issues.is_err(), "{guest}");
    }
}

/// As a user would, with real requests and real time.
#[test]
fn every_template_rolls_out_on_the_demo() {
    std::thread::scope(|scope| {
        for guest in LANGUAGES {
            scope.spawn(move || {
                let folder = folder();
                let plugin = guests::guest_path(guest).display().to_string();
                let parameters = [
                    "--set",
                    "bake-seconds=2",
                    "--set",
                    "first-share=40",
                    "--set",
                    "min-requests=20",
                ];
                let with = |more: &[&str]| {
                    let arguments = [&["run", &plugin][..], &parameters, more].concat();
                    run(folder.path(), &arguments)
                };
                let good = with(&[]);
                assert_eq!(good.status.code(), Some(0), "{guest}: {}", stderr(&good));
                assert!(
                    stdout(&good).contains("promoted"),
                    "{guest}: {}",
                    stdout(&good)
                );
                let bad = with(&["--demo-fault", "error-rate=0.3"]);
                assert_eq!(bad.status.code(), Some(3), "{guest}: {}", stderr(&bad));
            });
        }
    });
}

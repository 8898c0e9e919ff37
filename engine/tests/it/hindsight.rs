//! Journals of the past: replay, what-if, explain, export and import.

use std::sync::Arc;

use engine::hindsight::replay::{Fit, replay};
use engine::hindsight::what_if::{Ending, recorded, what_if};
use engine::hindsight::{explain, file};
use engine::journal::{Entry, Event, Header, Pin, Work};
use engine::model::Verdict;
use engine::simulate::replicate::{self, Subject};
use engine::simulate::scenario::Corpus;
use engine::strategy::Plugin;
use serde_json::{Value, json};

use crate::support::binary::{run, stderr, stdout};
use crate::support::root;
use crate::support::{folder, guests};

fn parts(journal: &[Entry]) -> (&Header, &Pin) {
    let Event::Started(header) = &journal[0].event else {
        panic!("no beginning");
    };
    let Work::Strategy(pin) = &header.work else {
        panic!("no strategy");
    };
    (header, pin)
}

/// One rollout of the development corpus.
async fn played(name: &str, plugin: &Arc<Plugin>, parameters: Value) -> Vec<Entry> {
    played_with(name, plugin, parameters, &[]).await
}

async fn played_with(
    name: &str,
    plugin: &Arc<Plugin>,
    parameters: Value,
    faults: &[&str],
) -> Vec<Entry> {
    let path = root().join("examples/scenarios/development.json");
    let corpus = Corpus::parse(&std::fs::read_to_string(path).expect("a file")).expect("a corpus");
    let scenario = corpus.scenarios.iter().find(|s| s.name == name);
    let mut subject = Subject::new(plugin.clone(), "canary", parameters);
    for fault in faults {
        subject.faults.push(fault.parse().expect("a fault"));
    }
    let played = replicate::play(&subject, scenario.expect("known"), 0).await;
    played.expect("it plays").journal
}

#[tokio::test]
async fn a_plugin_fits_every_part_of_its_own_journal() {
    let canary = guests::plugin("canary").await;
    for name in ["aa-medium-clean", "bad-medium-plus5"] {
        let journal = played(name, &canary, json!({})).await;
        let (header, pin) = parts(&journal);
        let whole = replay(canary.as_ref(), header, pin, &journal).await;
        assert_eq!(whole.fit, Fit::Same, "{name}");
        let mut most = 0;
        for end in 1..journal.len() {
            let part = replay(canary.as_ref(), header, pin, &journal[..end]).await;
            assert!(
                matches!(part.fit, Fit::SoFar | Fit::Same),
                "{name} {end}: {:?}",
                part.fit
            );
            assert!(part.calls >= most, "{name} {end}");
            most = part.calls;
        }
        assert_eq!(most, whole.calls);
    }
}

#[tokio::test]
async fn another_plugin_or_other_parameters_differ_at_a_known_place() {
    let canary = guests::plugin("canary").await;
    let journal = played("aa-medium-clean", &canary, json!({})).await;
    let (header, pin) = parts(&journal);
    let other = Pin {
        parameters: json!({"steps": [7, 100]}),
        ..pin.clone()
    };
    let Fit::Differs(mismatch) = replay(canary.as_ref(), header, &other, &journal).await.fit else {
        panic!("another first step must be seen");
    };
    assert!(journal.iter().any(|e| e.seq == mismatch.seq));
    assert_ne!(Some(&mismatch.recorded), mismatch.asked.as_ref());
    let blue_green = guests::plugin("blue-green").await;
    let fit = replay(blue_green.as_ref(), header, pin, &journal).await.fit;
    assert!(!matches!(fit, Fit::Same | Fit::SoFar), "{fit:?}");
}

#[tokio::test]
async fn the_same_question_has_the_same_answer() {
    let canary = guests::plugin("canary").await;
    for name in ["aa-medium-clean", "bad-medium-plus5"] {
        let journal = played(name, &canary, json!({})).await;
        let (header, pin) = parts(&journal);
        let answer = what_if(canary.as_ref(), header, pin, &journal).await;
        let was = recorded(&journal);
        let Ending::Verdict(outcome) = &answer.end else {
            panic!("{name}: {:?}", answer.end);
        };
        assert_eq!(Some(outcome.verdict), was.verdict, "{name}");
        assert_eq!(outcome.reason, was.reason, "{name}");
        assert_eq!(answer.parted, None, "{name}");
        assert_eq!(answer.missing, [""; 0], "{name}");
        assert!(answer.at.abs_diff(was.at) <= 60_000, "{name}");
    }
}

/// Metrics that came late, or not at all, come so again.
#[tokio::test]
async fn the_same_question_has_the_same_answer_also_in_trouble() {
    for (guest, parameters) in [
        ("canary", json!({})),
        ("blue-green", json!({"bake": "10m"})),
    ] {
        let plugin = guests::plugin(guest).await;
        for name in ["aa-cold-start", "bad-slow-burn", "bad-medium-plus5"] {
            for fault in [
                "metrics-late@2m+30m",
                "metrics-late@10m+15m",
                "aws-throttled@2m+20m",
                "engine-killed@5m",
            ] {
                let journal = played_with(name, &plugin, parameters.clone(), &[fault]).await;
                let (header, pin) = parts(&journal);
                let answer = what_if(plugin.as_ref(), header, pin, &journal).await;
                let (was, case) = (recorded(&journal), format!("{guest} {name} {fault}"));
                assert_eq!(answer.parted, None, "{case}");
                assert_eq!(answer.missing, [""; 0], "{case}");
                match answer.end {
                    Ending::Verdict(outcome) => {
                        assert_eq!(Some(outcome.verdict), was.verdict, "{case}");
                        assert_eq!(outcome.reason, was.reason, "{case}");
                    }
                    // Then it also could not do its work when it was recorded.
                    Ending::Failed(why) => {
                        assert!(was.reason.contains(&why), "{case}: {why}: {}", was.reason);
                    }
                    Ending::Undecided => panic!("{case}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn what_nobody_recorded_is_said_to_be_missing() {
    let ramp = guests::plugin("request_ramp").await;
    let journal = played("aa-medium-clean", &ramp, json!({})).await;
    let (header, pin) = parts(&journal);
    let other = Pin {
        parameters: json!({"share": 5}),
        ..pin.clone()
    };
    let baseline = guests::plugin("baseline").await;
    let answer = what_if(baseline.as_ref(), header, &other, &journal).await;
    let says = answer
        .missing
        .iter()
        .any(|m| m.starts_with("metrics from before"));
    assert!(says, "{:?} {:?}", answer.missing, answer.end);
}

/// An operator's limit is a limit in hindsight too.
#[tokio::test]
async fn a_rollout_that_was_cut_short_is_cut_short_again() {
    let canary = guests::plugin("canary").await;
    let path = root().join("examples/scenarios/development.json");
    let corpus = Corpus::parse(&std::fs::read_to_string(path).expect("a file")).expect("a corpus");
    let scenario = &corpus.scenarios[0];
    let mut subject = Subject::new(canary.clone(), "canary", json!({}));
    subject.caps.calls = Some(21);
    let played = replicate::play(&subject, scenario, 0)
        .await
        .expect("it plays");
    assert!(played.reason.contains("21 calls"), "{}", played.reason);
    let (header, pin) = parts(&played.journal);
    let replayed = replay(canary.as_ref(), header, pin, &played.journal).await;
    assert_eq!((replayed.fit, replayed.calls), (Fit::Same, 21));
    let answer = what_if(canary.as_ref(), header, pin, &played.journal).await;
    let Ending::Failed(why) = answer.end else {
        panic!("{:?}", answer.end);
    };
    assert!(why.contains("21 calls"), "{why}");
}

#[tokio::test]
async fn a_rollout_never_goes_on_with_other_bytes() {
    let bytes = std::fs::read(guests::guest_path("canary")).expect("a guest");
    let pinned = "0".repeat(64);
    let Err(refused) = guests::host().load_exactly(&bytes, &pinned).await else {
        panic!("other bytes");
    };
    let text = refused.to_string();
    let found = engine::model::sha256_hex(&bytes);
    assert!(text.contains(&pinned) && text.contains(&found), "{text}");
}

#[tokio::test]
async fn other_parameters_decide_otherwise() {
    let canary = guests::plugin("canary").await;
    let journal = played("aa-medium-clean", &canary, json!({})).await;
    let (header, pin) = parts(&journal);
    assert_eq!(recorded(&journal).verdict, Some(Verdict::Promoted));
    // An SLO that even the stable version misses.
    let strict = Pin {
        parameters: json!({"max-error-rate": 0.000_01}),
        ..pin.clone()
    };
    let answer = what_if(canary.as_ref(), header, &strict, &journal).await;
    let Ending::Verdict(outcome) = answer.end else {
        panic!("{:?}", answer.end);
    };
    assert_eq!(outcome.verdict, Verdict::RolledBack, "{}", outcome.reason);
    // A slower one runs out of metrics, and does not pretend.
    let slow = Pin {
        parameters: json!({"bake": "90m", "max-bake": "2h"}),
        ..pin.clone()
    };
    let answer = what_if(canary.as_ref(), header, &slow, &journal).await;
    assert_eq!(answer.end, Ending::Undecided);
    assert!(answer.parted.is_some());
}

#[tokio::test]
async fn explain_says_what_was_known_at_each_decision() {
    let canary = guests::plugin("canary").await;
    let journal = played("bad-medium-plus5", &canary, json!({})).await;
    let steps = explain::explain(&journal);
    let text: Vec<String> = steps
        .iter()
        .map(|s| format!("{} {}\n  {}", s.seq, s.did, s.because.join("\n  ")))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
    let writes = journal.iter().filter(|e| {
        matches!(&e.event, Event::Asked { call, by, .. } if call.is_write() && *by == engine::journal::Actor::Strategy)
    });
    let told = steps.iter().filter(|s| s.did.starts_with("set-weights"));
    assert_eq!(told.count(), writes.count(), "no write is left out");
}

#[tokio::test]
async fn a_file_is_the_journal() {
    let canary = guests::plugin("canary").await;
    let journal = played("bad-medium-plus5", &canary, json!({})).await;
    assert_eq!(file::read(&file::write(&journal)), Ok(journal));
}

#[test]
fn a_journal_goes_from_one_store_to_another() {
    let folder = folder();
    let plugin = guests::guest_path("blue-green").display().to_string();
    let place = folder.path();
    let ran = run(
        place,
        &[
            "run",
            &plugin,
            "--names",
            "blue,green",
            "--set",
            "bake=2s",
            "--set",
            "gate=limits",
            "--demo-fault",
            "error-rate=0.5",
        ],
    );
    assert_eq!(ran.status.code(), Some(3), "{}", stderr(&ran));
    let list: Value =
        serde_json::from_str(&stdout(&run(place, &["list", "--json"]))).expect("JSON");
    let id = list[0]["rollout"].as_str().expect("an id").to_owned();
    let exported = run(place, &["export", &id, "--output", "x.journal"]);
    assert_eq!(exported.status.code(), Some(0), "{}", stderr(&exported));
    for source in [id.as_str(), "x.journal"] {
        let replayed = run(place, &["replay", source]);
        assert_eq!(
            replayed.status.code(),
            Some(0),
            "{}{}",
            stdout(&replayed),
            stderr(&replayed)
        );
        let other = run(
            place,
            &[
                "replay",
                source,
                &guests::guest_path("canary").display().to_string(),
            ],
        );
        assert_eq!(other.status.code(), Some(8), "{}", stdout(&other));
        assert!(
            stdout(&other).contains("it differs at journal entry"),
            "{}",
            stdout(&other)
        );
    }
    let own = run(place, &["import", "x.journal"]);
    assert_eq!(own.status.code(), Some(0), "{}", stderr(&own));
    let elsewhere = crate::support::folder();
    std::fs::copy(place.join("x.journal"), elsewhere.path().join("x.journal")).expect("a file");
    let there = |arguments: &[&str]| run(elsewhere.path(), arguments);
    for _ in 0..2 {
        let imported = there(&["import", "x.journal"]);
        assert_eq!(imported.status.code(), Some(0), "{}", stderr(&imported));
    }
    let explained = there(&["explain", &id]);
    assert!(
        stdout(&explained).contains("blue has all traffic, read back"),
        "{}",
        stdout(&explained)
    );
    let list = stdout(&there(&["list", "--json"]));
    assert!(list.contains("\"imported local:"), "{list}");
    let again = there(&["export", &id, "--output", "y.journal"]);
    assert_eq!(again.status.code(), Some(0));
    let read = |name: &str| std::fs::read(elsewhere.path().join(name)).expect("a file");
    assert_eq!(read("x.journal"), read("y.journal"));
    // Half a rollout is nobody's to take.
    let text = String::from_utf8(read("x.journal")).expect("text");
    let entries = file::read(&text).expect("a journal");
    let half = file::write(&entries[..entries.len() - 1]);
    std::fs::write(elsewhere.path().join("half.journal"), half).expect("writable");
    let refused = there(&["import", "half.journal"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("has not ended"),
        "{}",
        stderr(&refused)
    );
    let cut = &text[..text.len() / 2];
    std::fs::write(elsewhere.path().join("cut.journal"), cut).expect("writable");
    assert!(stderr(&there(&["import", "cut.journal"])).contains("cut off"));
}

//! `engine simulate` and what it is made of.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use engine::clock::{Clock, VirtualClock};
use engine::journal::{Call, Event, exchanges};
use engine::model::query::{Probe, Query};
use engine::model::{
    ArmHealth, Decision, End, HostError, MetricsQuery, Millis, Observed, Point, ProbeReport,
    Release, Sample, Weights,
};
use engine::ops::Kind;
use engine::ops::picture::draw_rollout;
use engine::ops::simulate::{self, One, SimulateRequest, Simulated};
use engine::rollout::Standing;
use engine::rollout::fleet::Fleet;
use engine::simulate::fault::OutsideFault;
use engine::simulate::many::{self, Play};
use engine::simulate::oracle;
use engine::simulate::replicate::{self, Fate, START, Subject};
use engine::simulate::report::Row;
use engine::simulate::scenario::Corpus;
use engine::strategy::Plugin;
use engine::target::Target;
use engine::view;
use engine::view::simulation::{Replicate, Report};
use serde_json::{Value, json};

use crate::support::app::{TestApp, refused, texts};
use crate::support::binary::{code, plugin, run, stderr, stdout};
use crate::support::guests;
use crate::support::lab;
use crate::support::{folder, root};

fn scenarios(name: &str) -> PathBuf {
    root().join(format!("examples/scenarios/{name}.json"))
}

fn corpus(name: &str) -> Corpus {
    let text = std::fs::read_to_string(scenarios(name)).expect("a file");
    Corpus::parse(&text).expect("a corpus")
}

fn subject(strategy: Arc<Plugin>, parameters: Value, faults: &[&str]) -> Subject {
    Subject {
        faults: faults.iter().map(|f| f.parse().expect("a fault")).collect(),
        ..Subject::new(strategy, "test", parameters)
    }
}

/// What `make bench-gating` plays.
#[test]
fn every_set_of_scenarios_loads_and_no_two_have_a_name_in_common() {
    let files = std::fs::read_dir(root().join("examples/scenarios")).expect("the sets");
    let mut names = vec![];
    for file in files {
        let path = file.expect("a file").path();
        let set = path.file_stem().expect("a name").to_string_lossy();
        for scenario in corpus(&set).scenarios {
            assert!(!scenario.summary.is_empty(), "{set}: {}", scenario.name);
            // Developers look at these by themselves, with names of their own.
            if set != "development" {
                names.push(scenario.name);
            }
        }
    }
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(all >= 190, "{all}");
}

/// Or a fault would cost less than any rule could have known: the oracle is at the gate's
/// shares, for as long as the gate may stay at them.
#[tokio::test(flavor = "multi_thread")]
async fn the_oracle_climbs_as_the_gate_does_at_its_slowest() {
    let strategy = guests::plugin("canary").await;
    for (name, steps) in [
        ("aa-med-0.1", [5, 25, 50, 100]),
        ("aa-high-0.1", [1, 10, 50, 100]),
        ("aa-med-0.1-nohist", [5, 25, 50, 100]),
    ] {
        let set = if name.ends_with("-nohist") {
            "no-past"
        } else {
            "comparison"
        };
        let corpus = corpus(set);
        let scenario = corpus.scenarios.iter().find(|s| s.name == name);
        let scenario = scenario.expect("it is there");
        let slowest = json!({"steps": steps, "bake": ["12m", "12m", "20m", "20m"]});
        let slowest = subject(strategy.clone(), slowest, &[]);
        let played = replicate::play(&slowest, scenario, 0).await.expect("plays");
        assert_eq!(played.fate, Fate::Promoted, "{}", played.reason);

        let mut weights = Weights::of([("stable", 100), ("canary", 0)]);
        let mut moves = vec![(START, 0.0)];
        for exchange in exchanges(&played.journal) {
            if let Some(after) = exchange.weights_after(&weights) {
                moves.push((exchange.at, after.share("canary") / 100.0));
                weights = after;
            }
        }
        let shares = oracle::play(scenario, 0, 0.01).shares;
        let minutes = (START..).step_by(60_000);
        for (at, share) in minutes.zip(shares.iter().copied().chain([1.0])) {
            let held = moves.iter().rev().find(|(since, _)| *since <= at);
            let held = held.expect("from the start").1;
            let minute = (at - START) / 60_000;
            assert!(
                (held - share).abs() < 1e-9,
                "{name}, minute {minute}: {held} and {share}"
            );
        }
    }
}

/// Limits are those of 400 replicates; a hundred of them are a quicker look.
#[tokio::test(flavor = "multi_thread")]
async fn the_development_corpus_is_as_expected() {
    let subject = subject(guests::plugin("canary").await, json!({}), &[]);
    let corpus = corpus("development");
    let plays: Vec<Play> = corpus
        .scenarios
        .iter()
        .map(|scenario| Play {
            scenario,
            subject: &subject,
            replicates: 100,
        })
        .collect();
    let tallies = tokio::task::block_in_place(|| many::play_all(&plays, many::cores(), &|_, _| {}))
        .expect("it plays");
    assert_eq!(plays.len(), 16);
    for (play, tallies) in plays.iter().zip(&tallies) {
        let row = Row::of(play.scenario, tallies);
        assert!(row.passed(), "{row:#?}");
    }
}

/// So that nobody copies what no longer works.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_are_as_their_own_scenarios_expect() {
    let test = TestApp::surrounded(<_>::default());
    for (example, guest) in [("request-ramp", "request_ramp"), ("baseline", "baseline")] {
        let scenario = format!("examples/strategies/{example}/scenario.json");
        let request = SimulateRequest {
            plugin: Some(guests::guest_path(guest)),
            scenarios: vec![root().join(scenario)],
            ..SimulateRequest::default()
        };
        let rows = simulated(&test, &request).await.rows();
        assert!(rows.iter().all(Row::passed), "{example}: {rows:#?}");
    }
}

/// Whatever goes wrong outside, what must hold holds, and good versions are not
/// taken back for it.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_outside_world_break_no_rule() {
    let strategy = guests::plugin("canary").await;
    let corpus = corpus("development");
    for faults in [
        &["metrics-late@5m+8m"][..],
        &["metrics-missing@3m+12m"],
        &["metrics-revised@0s+60m"],
        &["aws-throttled@4m+6m"],
        &["tasks-die@6m+4m"],
        &["engine-killed@1m", "engine-killed@9m", "engine-killed@10m"],
        &["foreign-writer@7m"],
        &[
            "engine-killed@6m",
            "aws-throttled@5m+3m",
            "metrics-late@8m+4m",
        ],
    ] {
        let subject = subject(strategy.clone(), json!({}), faults);
        for name in ["aa-medium-clean", "bad-medium-plus5", "bad-load-dependent"] {
            let scenario = corpus.scenarios.iter().find(|s| s.name == name);
            let scenario = scenario.expect("it is there");
            for number in 0..8 {
                let played = replicate::play(&subject, scenario, number).await;
                let played = played.expect("it plays");
                assert_eq!(played.violations, Vec::<String>::new(), "{name} {faults:?}");
                let foreign = faults[0].starts_with("foreign");
                let expected = match name {
                    // Found before anybody meddles.
                    "bad-medium-plus5" => played.fate != Fate::Promoted,
                    _ if foreign => played.fate == Fate::Paused,
                    "aa-medium-clean" => played.fate != Fate::RolledBack,
                    _ => played.fate != Fate::Promoted,
                };
                assert!(expected, "{name} {faults:?} {number}: {played:?}");
            }
        }
    }
}

/// A rollout whose engine dies is the same rollout.
#[tokio::test(flavor = "multi_thread")]
async fn dying_changes_nothing() {
    let strategy = guests::plugin("canary").await;
    let corpus = corpus("development");
    let whole = subject(strategy.clone(), json!({}), &[]);
    let dying = subject(
        strategy,
        json!({}),
        &[
            "engine-killed@90s",
            "engine-killed@8m",
            "engine-killed@14m30s",
        ],
    );
    for scenario in &corpus.scenarios {
        let whole = replicate::play(&whole, scenario, 3).await.expect("plays");
        let dying = replicate::play(&dying, scenario, 3).await.expect("plays");
        assert_eq!(
            (whole.fate, whole.minutes, &whole.reason),
            (dying.fate, dying.minutes, &dying.reason),
            "{}",
            scenario.name
        );
        assert!((whole.bad_requests - dying.bad_requests).abs() < 1e-9);
    }
}

/// Plays the canary in some of the scenarios.
fn canary(only: &[&str]) -> SimulateRequest {
    SimulateRequest {
        plugin: Some(guests::guest_path("canary")),
        scenarios: vec![scenarios("development")],
        only: texts(only),
        ..SimulateRequest::default()
    }
}

async fn simulated(test: &TestApp, request: &SimulateRequest) -> Simulated {
    let simulated = simulate::many(&test.app, request, &|_, _| {}).await;
    simulated.expect("it plays")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let test = TestApp::surrounded(<_>::default());
    let play = async |jobs: Option<u32>, seed: u64| {
        let request = SimulateRequest {
            replicates: Some(12),
            jobs,
            seed,
            ..canary(&["bad-medium-plus5", "aa-cold-start"])
        };
        Report::from(&simulated(&test, &request).await)
    };
    let one = play(Some(1), 0).await;
    let bytes = view::text(&one);
    assert_eq!(bytes, view::text(&play(Some(3), 0).await));
    assert_ne!(bytes, view::text(&play(None, 1).await));
    let value = crate::schemas::shown(&one);
    let [cold, bad] = [&value["scenarios"][0], &value["scenarios"][1]];
    assert_eq!(
        (cold["name"].as_str(), bad["name"].as_str()),
        (Some("aa-cold-start"), Some("bad-medium-plus5"))
    );
    assert_eq!(
        (cold["class"].as_str(), cold["replicates"].as_u64()),
        (Some("good"), Some(12))
    );
    assert_eq!(bad["rolled-back-pct"], 100.0);
    assert_eq!(bad["median-minutes-to-promote"], Value::Null);
    for key in [
        "promoted-pct",
        "paused-pct",
        "bad-requests-mean",
        "bad-requests-median",
    ] {
        assert!(bad[key].is_number(), "{key}");
    }
    assert!(bad["median-minutes-to-rollback"].as_f64().expect("minutes") < 12.0);
}

#[test]
fn a_failed_expectation_is_a_9_and_a_failure_in_junit_and_one_tells_its_story() {
    let folder = folder();
    let text = std::fs::read_to_string(scenarios("development")).expect("a file");
    let strict = text.replace(
        "\"maxMedianPromoteMinutes\": 60",
        "\"maxMedianPromoteMinutes\": 1",
    );
    assert_ne!(strict, text);
    let file = folder.path().join("strict.json");
    std::fs::write(&file, strict).expect("writable");
    let file = file.display().to_string();
    let junit = folder.path().join("report.xml").display().to_string();
    let plot = folder.path().join("many.svg").display().to_string();
    let arguments = [
        "simulate",
        &plugin("canary"),
        "--scenario",
        &file,
        "--pick",
        "aa-low-traffic-zero-errors",
        "--pick",
        "bad-low-plus50",
        "--replicates",
        "4",
        "--junit",
        &junit,
        "--plot",
        &plot,
    ];
    let output = run(folder.path(), &arguments);
    assert_eq!(code(&output), Some(9), "{}", stderr(&output));
    let says = stdout(&output);
    assert!(
        says.contains("not as expected: maxMedianPromoteMinutes is"),
        "{says}"
    );
    let report = std::fs::read_to_string(&junit).expect("written");
    assert!(report.contains("tests=\"2\" failures=\"1\""), "{report}");
    assert!(
        report.contains("<failure message=\"maxMedianPromoteMinutes"),
        "{report}"
    );
    let picture = std::fs::read_to_string(&plot).expect("written");
    assert!(picture.contains("<svg") && picture.contains("bad-low-plus50"));
    let story = [
        "simulate",
        &plugin("canary"),
        "--scenario",
        &file,
        "--pick",
        "bad-low-plus50",
        "--replicate",
        "2",
    ];
    let output = run(folder.path(), &story);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let story = stdout(&output);
    assert!(story.contains("rolled back after"), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replicate_tells_its_story() {
    let test = TestApp::surrounded(<_>::default());
    let one = simulate::one(&test.app, &canary(&["bad-medium-plus5"]), 2).await;
    let One { scenario, played } = one.expect("it plays");
    crate::schemas::shown(&Replicate::of(&scenario, 2, &played));
    let story = lab::story(&played.journal, replicate::ROLLOUT);
    assert!(
        story.contains("it is worse (a version as good as "),
        "{story}"
    );
    assert_eq!(played.fate, Fate::RolledBack);
    assert!(played.minutes.is_some());
    let plot = test.at("one.png");
    draw_rollout(&test.app, &played.journal, &plot).expect("drawn");
    let png = std::fs::read(&plot).expect("written");
    assert_eq!(&png[1..4], b"PNG");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_explained() {
    let test = TestApp::surrounded(<_>::default());
    let text = r#"{"apiVersion": "simulate/v1", "scenarios": [{"name": "a", "class": "good", "seed": 1,
        "traffic": {"rps": 1}, "stable": {"errorrate": 2}}]}"#;
    let odd = test.write("odd.json", text);
    let with = |change: &dyn Fn(&mut SimulateRequest)| {
        let mut request = canary(&[]);
        change(&mut request);
        request
    };
    for (request, says) in [
        (
            with(&|r| r.scenarios = vec!["no.json".into()]),
            &["failed to read scenario no.json"][..],
        ),
        (
            with(&|r| r.scenarios = vec![odd.clone()]),
            &["/scenarios/0/stable", "errorrate"],
        ),
        (
            canary(&["nothing"]),
            &["there is no scenario \"nothing\"; there are aa-low"],
        ),
        (
            with(&|r| r.plot = Some("out.pdf".into())),
            &["must end in .svg or .png"],
        ),
        (
            with(&|r| r.set = texts(&["steps=200"])),
            &["strategy.parameters.steps.0"],
        ),
    ] {
        let played = simulate::many(&test.app, &request, &|_, _| {}).await;
        refused(played, Kind::Usage, says);
    }
    let one = simulate::one(&test.app, &canary(&[]), 1).await;
    refused(one, Kind::Usage, &["name it with --pick"]);
    let rain = "rain@5m"
        .parse::<OutsideFault>()
        .expect_err("no such fault");
    assert!(rain.contains("kinds are metrics-late"), "{rain}");
}

/// The recorded runs of the reference, through the compiled plugin: a target
/// that answers what was recorded.
mod golden {
    use super::*;

    const MINUTE: Millis = 60_000;

    pub struct Recorded {
        run: Value,
        clock: Arc<VirtualClock>,
        state: std::sync::Mutex<(Weights, Vec<(Millis, f64)>)>,
    }

    impl Recorded {
        pub fn new(run: Value, clock: Arc<VirtualClock>) -> Self {
            let weights = Weights::of([("stable", 100), ("canary", 0)]);
            Self {
                run,
                clock,
                state: std::sync::Mutex::new((weights, vec![])),
            }
        }

        fn weights(&self) -> Weights {
            self.state.lock().expect("not poisoned").0.clone()
        }

        fn sample(
            arm: &str,
            zone: Option<String>,
            start: Millis,
            counts: &Value,
        ) -> Option<Sample> {
            let of = |key: &str| {
                let number = counts[key].as_f64().expect("a number");
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "counts"
                )]
                let count = number as u32;
                count
            };
            let (slow, tail) = (of("slow"), of("tail"));
            (of("n") > 0).then(|| Sample {
                arm: arm.to_owned(),
                zone,
                start,
                period_ms: 60_000,
                requests: of("n"),
                errors: of("err"),
                client_errors: 0,
                // Recorded with each arm's own thresholds.
                over: vec![slow, slow, tail, tail],
                whole: None,
                latency: Some(engine::model::Latency {
                    mean: 60.0,
                    p50: 60.0,
                    p90: 129.0,
                    p95: 161.0,
                    p99: 242.0,
                }),
                cpu: None,
                memory: None,
                healthy: None,
            })
        }
    }

    #[async_trait]
    impl Target for Recorded {
        fn identity(&self) -> &str {
            "sim"
        }

        fn sample_period_ms(&self) -> u32 {
            60_000
        }

        async fn observe(&self) -> Result<Observed, HostError> {
            let weights = self.weights();
            let tasks =
                |key: &str| u32::try_from(self.run[key].as_u64().unwrap_or(1)).expect("small");
            let arms = [
                ("stable", tasks("tasks")),
                ("canary", tasks("minCanaryTasks")),
            ];
            Ok(Observed {
                arms: arms
                    .map(|(name, total)| engine::model::ObservedArm {
                        name: name.to_owned(),
                        release: Release {
                            version: name.to_owned(),
                            source: engine::model::Source::Urls(vec![]),
                        },
                        weight: weights.weight(name),
                        healthy: total,
                        total,
                        health_reason: None,
                        tasks: None,
                        deployment: engine::model::Deployment::Steady,
                        since: None,
                        spoiled: 0,
                        unanswered: 0,
                        sent_again: 0,
                    })
                    .to_vec(),
                sticky: false,
                address: String::new(),
                others: vec![],
            })
        }

        async fn set_weights(&self, weights: &Weights) -> Result<(), HostError> {
            let mut state = self.state.lock().expect("not poisoned");
            state.0 = weights.clone();
            state
                .1
                .push((self.clock.now(), weights.share("canary") / 100.0));
            Ok(())
        }

        async fn set_version(&self, _: &str, _: &Release) -> Result<(), HostError> {
            Ok(())
        }

        async fn samples(&self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError> {
            let mut samples = vec![];
            let history = self.run["history"].as_array().expect("minutes");
            for (minute, back) in history.iter().zip((1..=history.len() as u64).rev()) {
                let start = lab::START - back * MINUTE;
                let zones = minute["zones"].as_array().expect("zones");
                if start < query.since {
                } else if query.by_zone {
                    for (zone, counts) in zones.iter().enumerate() {
                        samples.extend(Self::sample(
                            "stable",
                            Some(format!("zone-{zone}")),
                            start,
                            counts,
                        ));
                    }
                } else {
                    samples.extend(Self::sample("stable", None, start, &zones[0]));
                }
            }
            for (step, t) in self.run["steps"]
                .as_array()
                .expect("steps")
                .iter()
                .zip(0_u64..)
            {
                let start = lab::START + t * MINUTE;
                // Complete one minute after its end.
                let there = start + 2 * MINUTE <= self.clock.now();
                let interval = &step["interval"];
                if there && start >= query.since && interval["missing"] == false {
                    samples.extend(Self::sample("stable", None, start, &interval["stable"]));
                    samples.extend(Self::sample("canary", None, start, &interval["canary"]));
                }
            }
            Ok(samples)
        }

        async fn health(&self) -> Result<Vec<ArmHealth>, HostError> {
            Ok(self.observe().await?.health())
        }

        async fn query(&self, _: &Query, _: Millis) -> Result<Vec<Point>, HostError> {
            Ok(vec![])
        }

        async fn probe(&self, _: &str, _: &Probe) -> Result<ProbeReport, HostError> {
            Ok(ProbeReport {
                ok: true,
                status: 200,
                elapsed_ms: 1.0,
                detail: String::new(),
            })
        }
    }
}

fn golden_runs() -> &'static Vec<Value> {
    static RUNS: OnceLock<Vec<Value>> = OnceLock::new();
    RUNS.get_or_init(|| {
        let path = root().join("plugins/analysis/tests/fixtures/golden.json");
        let text = std::fs::read_to_string(path).expect("the fixture");
        let golden: Value = serde_json::from_str(&text).expect("JSON");
        golden["runs"].as_array().expect("runs").clone()
    })
}

#[tokio::test]
async fn the_compiled_plugin_decides_as_the_reference() {
    for run in golden_runs() {
        let name = run["name"].as_str().expect("a name");
        // The reference is of the first edition.
        let parameters = json!({"probe": false, "edition": 1});
        let mut bottle = lab::Lab::new(guests::plugin("canary").await, lab::good(), parameters);
        bottle.header.sample_period_ms = 60_000;
        let target = Arc::new(golden::Recorded::new(run.clone(), bottle.clock.clone()));
        let live = target.observe().await.expect("recorded");
        for (arm, live) in bottle.header.arms.iter_mut().zip(&live.arms) {
            arm.version.clone_from(&live.release.version);
        }
        let mut driver = bottle.driver();
        driver.resolve = Arc::new(lab::Resolver {
            target: target.clone(),
            strategy: bottle.strategy.clone(),
        });
        driver.begin(bottle.header.clone()).await.expect("begins");
        let mut fleet = Fleet::new(driver);
        fleet.add(lab::ID.to_owned(), bottle.clock.now());
        let standing = lab::stopped(fleet.next().await);
        let steps = run["steps"].as_array().expect("steps");
        let end = match standing.expect("it is driven") {
            Standing::Over(End::Promoted, _) => "promoted",
            Standing::Over(End::RolledBack, _) => "rolled_back",
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(steps.last().expect("a last one")["state"], end, "{name}");
        let journal = bottle.journal().await;
        let findings: Vec<_> = journal
            .iter()
            .filter_map(|e| match &e.event {
                Event::Exchanged {
                    call: Call::Report { finding },
                    ..
                } => Some(finding),
                _ => None,
            })
            .collect();
        let seen: Vec<_> = steps
            .iter()
            .filter(|s| s["interval"]["missing"] == false)
            .collect();
        assert_eq!(findings.len(), seen.len(), "{name}");
        for (finding, step) in findings.iter().zip(&seen) {
            let expected = step["logE"].as_f64().expect("a number");
            let off = (finding.log_evidence - expected).abs();
            assert!(off <= 1e-9 * expected.abs().max(1.0), "{name}: {off}");
        }
        // Steps are taken in the same minutes.
        let advances = findings
            .iter()
            .filter(|f| f.decision == Decision::Advance)
            .count();
        let mut weights: Vec<f64> = steps
            .iter()
            .map(|s| s["weight"].as_f64().expect("one"))
            .collect();
        weights.retain(|w| *w > 0.0);
        weights.dedup();
        assert_eq!(advances, weights.len() - 1, "{name}");
    }
}

/// An option of all verbs must not choose the scenario.
#[test]
fn without_a_pick_all_scenarios_of_a_file_are_played() {
    let folder = folder();
    let file = scenarios("development").display().to_string();
    let all = [
        "simulate",
        &plugin("canary"),
        "--scenario",
        &file,
        "--replicates",
        "1",
        "--json",
    ];
    let output = run(folder.path(), &all);
    assert!(
        stdout(&output).contains("bad-low-plus50"),
        "{}",
        stderr(&output)
    );
    assert_ne!(code(&output), Some(2), "{}", stderr(&output));
}

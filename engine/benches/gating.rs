//! The gate beside the rules of other tools, in the same worlds with the same
//! luck: `make bench-gating`, `make bench-gating REPLICATES=400`.
//!
//! Prints Markdown: first the summary, then every scenario, the one in which our
//! gate does worst first; then how fast the simulator is. Nothing here passes or
//! fails.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use engine::journal::{Call, Reply};
use engine::model::{Arm, HostError, Latency, Millis, Role, Sample, Wake, Weights};
use engine::rollout::session::{Calls, Interrupted};
use engine::rollout::{Ran, Run, Strategy};
use engine::simulate::many::{self, Play};
use engine::simulate::replicate::{START, Subject};
use engine::simulate::report::{Row, Summary};
use engine::simulate::scenario::{Class, Corpus};
use engine::strategy::limits::Limits;
use engine::strategy::{Host, Plugin};
use serde_json::{Value, json};

/// Replicates of each cell, unless `--replicates N` says otherwise.
const REPLICATES: u32 = 100;
/// Times of Kayenta's judge are quadratic; its cells have this part of the rest.
const COSTLY_PART: u32 = 4;

struct Column {
    name: &'static str,
    plugin: &'static str,
    parameters: Value,
    costly: bool,
}

fn columns() -> Vec<Column> {
    let rival = |name, parameters| Column {
        name,
        plugin: "rivals",
        parameters,
        costly: false,
    };
    let ours = |name, parameters| Column {
        name,
        plugin: "canary",
        parameters,
        costly: false,
    };
    vec![
        ours("engine", json!({})),
        ours("engine, no probe", json!({"probe": false})),
        rival("Flagger thr10", json!({"rule": "flagger"})),
        rival(
            "Flagger thr5",
            json!({"rule": "flagger", "threshold": 5, "step": 10}),
        ),
        rival("Argo 5m", json!({"rule": "argo"})),
        rival("Argo 1m+p99", json!({"rule": "argo-p99"})),
        rival("CodeDeploy", json!({"rule": "codedeploy"})),
        rival("ECS canary", json!({"rule": "ecs-canary"})),
        rival("relative 3of3", json!({"rule": "relative"})),
        rival("PipeCD ADA", json!({"rule": "pipecd"})),
        Column {
            costly: true,
            ..rival("Kayenta 3h", json!({"rule": "kayenta-3h"}))
        },
        Column {
            costly: true,
            ..rival("Kayenta 30m", json!({"rule": "kayenta-30m"}))
        },
    ]
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn plugin_path(name: &str) -> PathBuf {
    match name {
        "rivals" => {
            let target = Path::new(env!("CARGO_BIN_EXE_engine")).ancestors().nth(2);
            target.expect("target/release").join("guests/rivals.wasm")
        }
        name => root().join(format!("plugins/{name}.wasm")),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |flag: &str| {
        let at = arguments.iter().position(|a| a == flag)?;
        arguments.get(at + 1)
    };
    let replicates = value("--replicates").map_or(REPLICATES, |n| n.parse().expect("a number"));
    let path = value("--scenario").map_or_else(
        || root().join("examples/scenarios/comparison.json"),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(&path).expect("a scenario file");
    let corpus = Corpus::parse(&text).expect("valid scenarios");

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let host = Host::new(None, Limits::default()).expect("the host starts");
    let mut results: Vec<(&str, Vec<Row>, f64)> = vec![];
    for column in columns() {
        let place = plugin_path(column.plugin);
        let bytes = std::fs::read(&place)
            .unwrap_or_else(|e| panic!("{}: {e}; run `make bench-gating`", place.display()));
        let plugin = runtime.block_on(host.load(&bytes)).expect("it loads");
        let subject = subject(plugin, column.parameters.clone());
        let replicates = if column.costly {
            (replicates / COSTLY_PART).max(1)
        } else {
            replicates
        };
        let begun = Instant::now();
        let rows = play(&corpus, &subject, replicates, many::cores());
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("{}: {seconds:.0} s", column.name);
        results.push((column.name, rows, seconds));
    }
    println!(
        "{replicates} replicates of each cell, {} of Kayenta's.\n",
        replicates / COSTLY_PART
    );
    summary(&results);
    details(&results, Class::Good);
    details(&results, Class::Bad);
    let plugin = std::fs::read(plugin_path("canary")).expect("a plugin");
    let plugin = runtime.block_on(host.load(&plugin)).expect("it loads");
    look_in_wasm(&runtime, &plugin);
    speed(&corpus, &subject(plugin, json!({})));
}

fn subject(strategy: Arc<Plugin>, parameters: Value) -> Subject {
    Subject::new(strategy, "bench", parameters)
}

fn play(corpus: &Corpus, subject: &Subject, replicates: u32, jobs: usize) -> Vec<Row> {
    let plays: Vec<Play> = corpus
        .scenarios
        .iter()
        .map(|scenario| Play {
            scenario,
            subject,
            replicates,
        })
        .collect();
    let tallies = many::play_all(&plays, jobs, &|_, _| {}).expect("it plays");
    plays
        .iter()
        .zip(&tallies)
        .map(|(play, tallies)| Row::of(play.scenario, tallies))
        .collect()
}

fn summary(results: &[(&str, Vec<Row>, f64)]) {
    println!(
        "| | false rollback, mean % | worst % | bad detected, mean % | bad requests (geometric mean) | minutes to full weight |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, rows, _) in results {
        let s = Summary::of(rows);
        let text =
            |v: Option<f64>, digits: usize| v.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            text(s.false_rollback_mean_pct, 1),
            text(s.false_rollback_worst_pct, 1),
            text(s.detected_mean_pct, 0),
            text(s.bad_requests_geometric_mean, 0),
            text(s.median_minutes_to_promote, 0),
        );
    }
}

/// Scenarios of a class, the one in which the first column does worst on top.
fn details(results: &[(&str, Vec<Row>, f64)], class: Class) {
    let ours = &results[0].1;
    let mut order: Vec<usize> = (0..ours.len())
        .filter(|at| ours[*at].class == class)
        .collect();
    let worst_first = |at: &usize| match class {
        Class::Good => (-ours[*at].rolled_back_pct, 0.0),
        Class::Bad => (ours[*at].rolled_back_pct, -ours[*at].bad_requests_mean),
    };
    order.sort_by(|a, b| {
        let (a, b) = (worst_first(a), worst_first(b));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    println!(
        "\n{}\n",
        match class {
            Class::Good => "Good versions: rolled back, % (median minutes to full weight)",
            Class::Bad =>
                "Bad versions: detected, % · median minutes to rollback · mean bad requests",
        }
    );
    let names: Vec<&str> = results.iter().map(|(name, ..)| *name).collect();
    println!("| scenario | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    for at in order {
        let minutes = |m: Option<f64>| m.map_or("-".to_owned(), |m| format!("{m:.0}"));
        let cells: Vec<String> = results
            .iter()
            .map(|(_, rows, _)| match class {
                Class::Good => format!(
                    "{:.1} ({})",
                    rows[at].rolled_back_pct,
                    minutes(rows[at].median_minutes_to_promote)
                ),
                Class::Bad => format!(
                    "{:.0} % · {} · {}",
                    rows[at].rolled_back_pct,
                    minutes(rows[at].median_minutes_to_rollback),
                    short(rows[at].bad_requests_mean)
                ),
            })
            .collect();
        println!("| {} | {} |", ours[at].name, cells.join(" | "));
    }
}

fn short(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.0}k", v / 1_000.0),
        v if v >= 10.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

/// A target that answers at once, and breaks off after so many waits.
struct Still {
    minute: AtomicU64,
    waits: u64,
}

impl Still {
    fn sample(arm: &str, start: Millis, requests: u32, over: usize) -> Sample {
        Sample {
            arm: arm.to_owned(),
            zone: None,
            start,
            period_ms: 60_000,
            requests,
            errors: requests / 1_000,
            client_errors: 0,
            over: [10, 11, 100, 110][..over]
                .iter()
                .map(|part| requests / part)
                .collect(),
            whole: None,
            latency: Some(Latency {
                mean: 60.0,
                p50: 60.0,
                p90: 129.0,
                p95: 161.0,
                p99: 242.0,
            }),
            cpu: None,
            memory: None,
            healthy: None,
        }
    }
}

#[async_trait]
impl Calls for Still {
    async fn perform(&self, call: Call) -> Result<Reply, Interrupted> {
        let now = self.now();
        Ok(match call {
            Call::Wait { .. } => {
                let waits = self.minute.fetch_add(1, Ordering::Relaxed) + 1;
                if waits >= self.waits {
                    return Err(Interrupted);
                }
                Reply::Woke(Wake::Timer)
            }
            Call::GetMetrics { query } => {
                let first = query.since.max(now - 120 * 60_000) / 60_000 * 60_000;
                let over = query.over_ms.len();
                let starts = (first..now).step_by(60_000);
                let arms = [("stable", 28_500), ("canary", 1_500)];
                let arms = if query.since < START {
                    &arms[..1]
                } else {
                    &arms[..]
                };
                let samples = starts.flat_map(|start| {
                    arms.iter()
                        .map(move |(arm, n)| Self::sample(arm, start, *n, over))
                });
                Reply::Samples(samples.collect())
            }
            Call::GetHealth => Reply::Health(vec![]),
            _ => Reply::Done,
        })
    }

    async fn refuse(&self, _: Call, why: HostError) -> Result<Reply, Interrupted> {
        Ok(Reply::Failed(why))
    }

    fn now(&self) -> Millis {
        START + self.minute.load(Ordering::Relaxed) * 60_000
    }

    fn probes(&self) -> Vec<String> {
        vec![]
    }
}

/// What a look costs in the sandbox, with its calls: the difference between a
/// long and a short rollout.
fn look_in_wasm(runtime: &tokio::runtime::Runtime, plugin: &Plugin) {
    let run = |waits: u64| {
        let calls = Arc::new(Still {
            minute: AtomicU64::new(0),
            waits,
        });
        let arm = |name: &str, role| Arm {
            name: name.to_owned(),
            role,
            version: name.to_owned(),
        };
        let run = Run {
            rollout: "bench".to_owned(),
            arms: vec![arm("stable", Role::Stable), arm("canary", Role::Candidate)],
            weights: Weights::of([("stable", 100), ("canary", 0)]),
            sample_period_ms: 60_000,
            parameters: r#"{"steps": [5], "probe": false, "bake": "9999h"}"#.to_owned(),
            seed: "00".to_owned(),
            caps: <_>::default(),
        };
        let begun = Instant::now();
        let ran = runtime.block_on(plugin.run(calls, run));
        assert_eq!(ran, Ran::Interrupted);
        begun.elapsed()
    };
    run(100);
    let (short, long) = (run(1_000), run(11_000));
    println!(
        "\nGate, WebAssembly: one look {:?}, with its four calls (wait, get-metrics, report, progress)",
        (long - short) / 10_000
    );
}

/// Rollouts per second on one thread and on all, and memory.
fn speed(corpus: &Corpus, subject: &Subject) {
    const EACH: u32 = 10;
    println!("\nSimulator:\n");
    let count = f64::from(EACH) * f64::from(u32::try_from(corpus.scenarios.len()).unwrap_or(0));
    let mut alone = 0.0;
    for jobs in [1, many::cores()] {
        let begun = Instant::now();
        play(corpus, subject, EACH, jobs);
        let rate = count / begun.elapsed().as_secs_f64();
        if jobs == 1 {
            alone = rate;
        }
        println!(
            "- {jobs} thread(s): {rate:.0} rollouts/s, {:.2} ms each ({:.2} times one thread)",
            1_000.0 * f64::from(u32::try_from(jobs).unwrap_or(1)) / rate,
            rate / alone
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = status.lines().find_map(|l| l.strip_prefix("VmHWM:")) {
        println!("- peak memory: {}", peak.trim());
    }
}

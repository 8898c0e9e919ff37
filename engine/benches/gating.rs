//! The gate in every set of `examples/scenarios`, beside its first edition, what a fault could
//! have cost at least, and the rules of other tools: `make bench-gating`,
//! `make bench-gating REPLICATES=400`.
//!
//! Prints Markdown: all sets in one table; every bad version with the oracle, the worst first;
//! the rules of other tools in the same worlds with the same luck, in summary and in every
//! scenario; then how fast the simulator is. Nothing here passes or fails.
//!
//! `--set NAME` plays one set, `--no-rivals` leaves the other tools out, `--csv FOLDER` writes
//! every cell into two files.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use engine::journal::{Call, Reply};
use engine::model::{Arm, HostError, Latency, Millis, Role, Sample, Wake, Weights};
use engine::rollout::session::{Calls, Interrupted};
use engine::rollout::{Ran, Run, Strategy};
use engine::simulate::many::{self, Play};
use engine::simulate::oracle;
use engine::simulate::replicate::{Fate, START, Subject};
use engine::simulate::report::{Row, Summary, Tally};
use engine::simulate::scenario::{Class, Corpus, Scenario};
use engine::strategy::limits::Limits;
use engine::strategy::{Host, Plugin};
use serde_json::{Value, json};

/// Replicates of each cell, unless `--replicates N` says otherwise.
const REPLICATES: u32 = 100;
/// Times of Kayenta's judge are quadratic; its cells have this part of the rest.
const COSTLY_PART: u32 = 4;
/// The set in which the other tools are played.
const COMPARISON: &str = "comparison";
/// What the gate promises, and so the oracle.
const ALPHA: f64 = 0.01;

/// A rule that is compared.
struct Rule {
    name: &'static str,
    plugin: &'static str,
    parameters: Value,
    costly: bool,
}

/// Our gate as it is, as it was, and without a part of it.
fn ours() -> [Rule; 3] {
    let ours = |name, parameters| Rule {
        name,
        plugin: "canary",
        parameters,
        costly: false,
    };
    [
        ours("engine", json!({})),
        ours("engine, edition 1", json!({"edition": 1})),
        ours("engine, no probe", json!({"probe": false})),
    ]
}

fn rivals() -> Vec<Rule> {
    let rival = |name, parameters| Rule {
        name,
        plugin: "rivals",
        parameters,
        costly: false,
    };
    vec![
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
        Rule {
            costly: true,
            ..rival("Kayenta 3h", json!({"rule": "kayenta-3h"}))
        },
        Rule {
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

/// A file of scenarios, by its name.
struct Set {
    name: String,
    corpus: Corpus,
}

/// The sets, that of the comparison first; or that one alone.
fn sets(only: Option<&String>) -> Vec<Set> {
    let folder = std::fs::read_dir(root().join("examples/scenarios")).expect("the sets");
    let files = folder.map(|file| file.expect("a file").path());
    let mut sets: Vec<Set> = files
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a scenario file");
            let name = path.file_stem().expect("a name").to_string_lossy();
            Set {
                corpus: Corpus::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}")),
                name: name.into_owned(),
            }
        })
        .filter(|set| only.is_none_or(|only| *only == set.name))
        .collect();
    sets.sort_by_key(|set| (set.name != COMPARISON, set.name.clone()));
    assert!(!sets.is_empty(), "there is no such set");
    sets
}

/// What came of a rule, in the order of the scenarios.
struct Column {
    name: &'static str,
    rows: Vec<Row>,
}

/// Plays rules.
struct Players {
    runtime: tokio::runtime::Runtime,
    host: Host,
    replicates: u32,
}

impl Players {
    fn plugin(&self, name: &str) -> Arc<Plugin> {
        let place = plugin_path(name);
        let bytes = std::fs::read(&place)
            .unwrap_or_else(|e| panic!("{}: {e}; run `make bench-gating`", place.display()));
        self.runtime
            .block_on(self.host.load(&bytes))
            .expect("it loads")
    }

    fn play(&self, rule: &Rule, scenarios: &[&Scenario]) -> Column {
        let subject = subject(self.plugin(rule.plugin), rule.parameters.clone());
        let replicates = if rule.costly {
            (self.replicates / COSTLY_PART).max(1)
        } else {
            self.replicates
        };
        let begun = Instant::now();
        let rows = play(scenarios, &subject, replicates, many::cores());
        eprintln!("{}: {:.0} s", rule.name, begun.elapsed().as_secs_f64());
        Column {
            name: rule.name,
            rows,
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |flag: &str| {
        let at = arguments.iter().position(|a| a == flag)?;
        arguments.get(at + 1)
    };
    let replicates = value("--replicates").map_or(REPLICATES, |n| n.parse().expect("a number"));
    let sets = sets(value("--set"));
    let scenarios: Vec<&Scenario> = sets.iter().flat_map(|s| &s.corpus.scenarios).collect();
    let compared = sets.iter().find(|set| set.name == COMPARISON);
    let compared = compared.filter(|_| !arguments.iter().any(|a| a == "--no-rivals"));

    let players = Players {
        runtime: tokio::runtime::Runtime::new().expect("a runtime"),
        host: Host::new(None, Limits::default()).expect("the host starts"),
        replicates,
    };
    let [now, before, no_probe] = ours();
    let (now, before) = (
        players.play(&now, &scenarios),
        players.play(&before, &scenarios),
    );
    let oracle = Column {
        name: "oracle",
        rows: foretell(&scenarios, replicates),
    };
    println!("{replicates} replicates of each cell.\n");
    all_sets(&sets, [&now, &before]);
    worst_first(&sets, &now, &oracle);
    let mut columns = vec![now, before];
    if let Some(set) = compared {
        let scenarios: Vec<&Scenario> = set.corpus.scenarios.iter().collect();
        columns.push(players.play(&no_probe, &scenarios));
        columns.extend(rivals().iter().map(|rule| players.play(rule, &scenarios)));
        let alike: Vec<(&str, &[Row])> = columns
            .iter()
            .map(|column| (column.name, &column.rows[..scenarios.len()]))
            .collect();
        println!(
            "\nThe rules of other tools, {replicates} replicates of each cell, {} of Kayenta's.\n",
            replicates / COSTLY_PART
        );
        summary(&alike);
        details(&alike, Class::Good);
        details(&alike, Class::Bad);
    }
    columns.insert(2, oracle);
    if let Some(folder) = value("--csv") {
        cells(Path::new(folder), &sets, &columns);
    }
    let plugin = players.plugin("canary");
    look_in_wasm(&players.runtime, &plugin);
    speed(&sets[0].corpus, &subject(plugin, json!({})));
}

fn subject(strategy: Arc<Plugin>, parameters: Value) -> Subject {
    Subject::new(strategy, "bench", parameters)
}

fn play(scenarios: &[&Scenario], subject: &Subject, replicates: u32, jobs: usize) -> Vec<Row> {
    let plays: Vec<Play> = scenarios
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

/// What the oracle does in every scenario.
fn foretell(scenarios: &[&Scenario], replicates: u32) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let tally = |scenario: &Scenario, replicate| {
        let told = oracle::play(scenario, replicate, ALPHA);
        Tally {
            fate: told.minutes.map_or(Fate::Promoted, |_| Fate::RolledBack),
            minutes: told.minutes,
            bad_requests: told.bad_requests,
            violations: vec![],
        }
    };
    let worker = || {
        let mut rows = vec![];
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(scenario) = scenarios.get(at) else {
                return rows;
            };
            let tallies: Vec<Tally> = (0..replicates).map(|r| tally(scenario, r)).collect();
            rows.push((at, Row::of(scenario, &tallies)));
        }
    };
    let begun = Instant::now();
    let mut rows: Vec<(usize, Row)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..many::cores()).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|w| w.join().expect("it foretells"));
        joined.flatten().collect()
    });
    rows.sort_by_key(|(at, _)| *at);
    eprintln!("oracle: {:.0} s", begun.elapsed().as_secs_f64());
    rows.into_iter().map(|(_, row)| row).collect()
}

fn text(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |v| format!("{v:.digits$}"))
}

/// One line for each set, with both editions.
fn all_sets(sets: &[Set], editions: [&Column; 2]) {
    println!(
        "Both editions of the gate, `second / first`.\n\n\
         | set | good, bad | false rollback, mean % | worst % | detected, mean % | bad requests (geometric mean) | minutes to full weight |"
    );
    println!("|---|---|---|---|---|---|---|");
    let line = |name: &str, range: std::ops::Range<usize>| {
        let rows = editions.map(|edition| &edition.rows[range.clone()]);
        let sums = rows.map(Summary::of);
        let good = rows[0].iter().filter(|r| r.class == Class::Good).count();
        let both = |of: fn(&Summary) -> Option<f64>, digits| {
            let [second, first] = sums.map(|s| text(of(&s), digits));
            format!("{second} / {first}")
        };
        println!(
            "| {name} | {good}, {} | {} | {} | {} | {} | {} |",
            rows[0].len() - good,
            both(|s| s.false_rollback_mean_pct, 2),
            both(|s| s.false_rollback_worst_pct, 1),
            both(|s| s.detected_mean_pct, 1),
            both(|s| s.bad_requests_geometric_mean, 0),
            both(|s| s.median_minutes_to_promote, 0),
        );
    };
    let mut from = 0;
    for set in sets {
        let to = from + set.corpus.scenarios.len();
        line(&set.name, from..to);
        from = to;
    }
    line("**all**", 0..from);
}

/// Every bad version, that on top which costs most beside what it could have cost at least.
fn worst_first(sets: &[Set], gate: &Column, oracle: &Column) {
    println!(
        "\nBad versions, worst first: what the gate lets through beside what the oracle does.\n\n\
         | scenario | set | detected, % | oracle, % | bad requests | oracle | ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
    let names = sets
        .iter()
        .flat_map(|set| set.corpus.scenarios.iter().map(move |_| set.name.as_str()));
    let mut worst: Vec<(f64, &str, &Row, &Row)> = names
        .zip(gate.rows.iter().zip(&oracle.rows))
        .filter(|(_, (gate, _))| gate.class == Class::Bad)
        .map(|(set, (gate, oracle))| {
            // As in the geometric mean, a tenth of a request is none.
            let ratio = gate.bad_requests_mean.max(0.1) / oracle.bad_requests_mean.max(0.1);
            (ratio, set, gate, oracle)
        })
        .collect();
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (ratio, set, gate, oracle) in &worst {
        println!(
            "| {} | {set} | {:.0} | {:.0} | {} | {} | {} |",
            gate.name,
            gate.rolled_back_pct,
            oracle.rolled_back_pct,
            short(gate.bad_requests_mean),
            short(oracle.bad_requests_mean),
            short(*ratio)
        );
    }
    let of = |column: &Column| Summary::of(&column.rows);
    let (gate, oracle) = (of(gate), of(oracle));
    let ratio = gate
        .bad_requests_geometric_mean
        .zip(oracle.bad_requests_geometric_mean);
    println!(
        "| **mean** (of bad requests the geometric one) | | {} | {} | {} | {} | {} |",
        text(gate.detected_mean_pct, 1),
        text(oracle.detected_mean_pct, 1),
        text(gate.bad_requests_geometric_mean, 1),
        text(oracle.bad_requests_geometric_mean, 1),
        text(ratio.map(|(gate, oracle)| gate / oracle), 1)
    );
}

/// Every cell of every rule, as two files.
fn cells(folder: &Path, sets: &[Set], columns: &[Column]) {
    let mut good =
        String::from("set,scenario,rule,rolled-back-percent,median-minutes-to-full-weight\n");
    let mut bad = String::from(
        "set,scenario,rule,detected-percent,median-minutes-to-rollback,mean-bad-requests\n",
    );
    let mut at = 0;
    for set in sets {
        for _ in &set.corpus.scenarios {
            for column in columns {
                let Some(row) = column.rows.get(at) else {
                    continue;
                };
                let rule = if column.name.contains(',') {
                    format!("\"{}\"", column.name)
                } else {
                    column.name.to_owned()
                };
                let start = format!("{},{},{rule}", set.name, row.name);
                let minutes = |m: Option<f64>| m.map_or(String::new(), |m| format!("{m:.0}"));
                let _ = match row.class {
                    Class::Good => writeln!(
                        good,
                        "{start},{:.1},{}",
                        row.rolled_back_pct,
                        minutes(row.median_minutes_to_promote)
                    ),
                    Class::Bad => writeln!(
                        bad,
                        "{start},{:.0},{},{}",
                        row.rolled_back_pct,
                        minutes(row.median_minutes_to_rollback),
                        rounded(row.bad_requests_mean)
                    ),
                };
            }
            at += 1;
        }
    }
    for (name, text) in [("good-versions.csv", good), ("bad-versions.csv", bad)] {
        std::fs::write(folder.join(name), text).expect("a folder that can be written to");
    }
}

fn rounded(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.0}", (v / 1_000.0).round() * 1_000.0),
        v if v >= 10.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

fn summary(results: &[(&str, &[Row])]) {
    println!(
        "| | false rollback, mean % | worst % | bad detected, mean % | bad requests (geometric mean) | minutes to full weight |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, rows) in results {
        let s = Summary::of(rows);
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
fn details(results: &[(&str, &[Row])], class: Class) {
    let ours = results[0].1;
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
    let names: Vec<&str> = results.iter().map(|(name, _)| *name).collect();
    println!("| scenario | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    for at in order {
        let minutes = |m: Option<f64>| m.map_or("-".to_owned(), |m| format!("{m:.0}"));
        let cells: Vec<String> = results
            .iter()
            .map(|(_, rows)| match class {
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
    let scenarios: Vec<&Scenario> = corpus.scenarios.iter().collect();
    for jobs in [1, many::cores()] {
        let begun = Instant::now();
        play(&scenarios, subject, EACH, jobs);
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

//! `engine simulate`: many rollouts in worlds of dice, on all cores.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::ops::Context as _;
use clap::Args;

use super::exit::Exit;
use super::{Global, plugin, render};
use crate::ops::Error;
use crate::ops::app::App;
use crate::ops::picture;
use crate::plot;
use crate::simulate::fault::OutsideFault;
use crate::simulate::many::{self, Play};
use crate::simulate::replicate::{self, Fate, Played, Subject};
use crate::simulate::report::{self, Row, Summary, Tally};
use crate::simulate::scenario::{Class, Scenario};
use crate::spec::Spec;
use crate::view;

/// Fewer replicates than this say little about percentages.
const REPLICATES_FEW: usize = 100;
/// Violations that are shown of each scenario.
const VIOLATIONS_SHOWN: usize = 3;

/// Play a strategy in simulated worlds and count what becomes of it
///
/// The real plugin and the real driver, under a virtual clock, against traffic,
/// noise and faults from a scenario file. The same seed gives the same result.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine simulate plugins/canary.wasm --scenario examples/scenarios/development.json
  engine simulate plugins/canary.wasm --scenario s.json --only bad-slow-burn --replicates 2000
  engine simulate plugins/canary.wasm --scenario s.json --only bad-slow-burn --replicate 7 --plot one.svg
  engine simulate plugins/canary.wasm --scenario s.json --fault engine-killed@12m --fault aws-throttled@5m+3m
  engine simulate plugins/canary.wasm --scenario s.json --junit report.xml --json > report.json")]
pub struct SimulateArgs {
    /// The strategy: a file, or a name of plugins.toml [default: strategy.plugin
    /// of the rollout file]
    plugin: Option<PathBuf>,
    /// File of scenarios, format simulate/v1; several are played one after another
    #[arg(long = "scenario", value_name = "FILE", required = true, num_args = 1..)]
    scenarios: Vec<PathBuf>,
    /// A parameter of the strategy
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Only the scenario of this name; may be given again
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Rollouts per scenario [default: as each scenario says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replicates: Option<u32>,
    /// Only the rollout of this number, from 0, and its whole story
    #[arg(long, value_name = "K", conflicts_with = "replicates")]
    replicate: Option<u32>,
    /// Other luck than that of the scenarios' own seeds
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// What goes wrong around every rollout: metrics-late@5m+5m,
    /// metrics-missing@…, metrics-revised@…, aws-throttled@…, tasks-die@…,
    /// foreign-writer@10m, engine-killed@12m
    #[arg(long = "fault", value_name = "KIND@START[+DURATION]")]
    faults: Vec<OutsideFault>,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Draw one rollout (with --replicate), or the distributions of many
    #[arg(long, value_name = "FILE.svg|png")]
    plot: Option<PathBuf>,
    /// Write a JUnit report for CI
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    pins: plugin::PinArgs,
}

/// One file's scenarios.
struct Loaded {
    path: PathBuf,
    scenario: Scenario,
    subject: Subject,
}

pub(super) async fn simulate(
    app: &App,
    global: &Global,
    args: SimulateArgs,
) -> crate::ops::Result<Exit> {
    if let Some(path) = &args.plot {
        picture::format_of(path)?;
    }
    for path in [&args.plot, &args.junit].into_iter().flatten() {
        // Before the work, not after it.
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
        if folder.is_some_and(|f| !f.is_dir()) {
            return Err(Error::usage(format!(
                "{} cannot be written: there is no such folder",
                path.display()
            )));
        }
    }
    let (subject, shown) = subject(app, global, &args).await?;
    let loaded = load(&args, &subject)?;
    let unknown = loaded.iter().find_map(|l| {
        let Subject {
            queries, values, ..
        } = &l.subject;
        let query = queries.iter().find(|q| !values.contains_key(&q.name))?;
        Some((l.path.display(), &query.name))
    });
    if let Some((file, query)) = unknown {
        eprintln!(
            "note: {file} has no values for the query {query} of the rollout file (see `queries` in the guide), so strategies see none"
        );
    }
    if let Some(number) = args.replicate {
        return one(app, global, &args, &loaded, number).await;
    }
    let jobs = args
        .jobs
        .map_or_else(many::cores, |n| usize::try_from(n).unwrap_or(1));
    let plays: Vec<Play> = loaded
        .iter()
        .map(|l| Play {
            scenario: &l.scenario,
            subject: &l.subject,
            replicates: args.replicates.unwrap_or(l.scenario.replicates),
        })
        .collect();
    let tell = progress();
    let tallies = tokio::task::block_in_place(|| many::play_all(&plays, jobs, &tell))?;
    let rows: Vec<Row> = loaded
        .iter()
        .zip(&tallies)
        .map(|(l, tallies)| Row::of(&l.scenario, tallies))
        .collect();
    let commands: Vec<Vec<String>> = loaded
        .iter()
        .zip(&tallies)
        .map(|(l, tallies)| violations(&shown, global.file.as_deref(), &args, l, tallies))
        .collect();
    if let Some(path) = &args.junit {
        std::fs::write(path, report::junit(&shown, &rows, &commands))
            .map_err(|e| Error::usage(format!("failed to write {}: {e}", path.display())))?;
    }
    if let Some(path) = &args.plot {
        draw(app, path, &shown, &loaded, &tallies)?;
    }
    if global.json {
        json!(view::simulation::Report::of(&rows));
    } else {
        print(&rows);
    }
    for line in commands.iter().flatten() {
        eprintln!("{line}");
    }
    let unmet = rows.iter().any(|r| !r.failed_expectations.is_empty());
    if unmet && rows.iter().any(|r| r.replicates < REPLICATES_FEW) {
        eprintln!("note: with so few replicates an expectation can fail by chance");
    }
    Ok(if rows.iter().all(Row::passed) {
        Exit::Done
    } else {
        Exit::Unmet
    })
}

/// The strategy, its parameters and its guardrails.
async fn subject(
    app: &App,
    global: &Global,
    args: &SimulateArgs,
) -> crate::ops::Result<(Subject, String)> {
    // A plugin by name stands for itself; without one the rollout file counts.
    let file = match &args.plugin {
        Some(_) if global.file.is_none() => None,
        _ => global.target().named()?,
    };
    let spec = file.unwrap_or_else(|| Spec::demo(<_>::default(), 0, None, None));
    let loaded = crate::ops::plugin::load(
        app,
        &args.pins.clone().into(),
        args.plugin.as_deref(),
        &spec,
        crate::ops::plugin::Purpose::Look,
    )
    .await?;
    let plugin = loaded.plugin;
    let description = plugin.describe().await?;
    let parameters =
        crate::ops::plugin::parameters(&args.set, &spec.strategy.parameters, &plugin, &description)
            .await?;
    let subject = Subject {
        guardrails: spec.guardrails,
        caps: loaded.policy.caps,
        queries: spec.queries,
        faults: args.faults.clone(),
        seed: args.seed,
        ..Subject::new(plugin, &description.name, parameters.into())
    };
    Ok((subject, loaded.shown))
}

/// Reads the scenarios that are asked for.
fn load(args: &SimulateArgs, subject: &Subject) -> crate::ops::Result<Vec<Loaded>> {
    let mut loaded = vec![];
    for path in &args.scenarios {
        let mut subject = subject.clone();
        let scenarios = crate::ops::scenarios::read(path, &mut subject)?;
        loaded.extend(scenarios.into_iter().map(|scenario| Loaded {
            path: path.clone(),
            scenario,
            subject: subject.clone(),
        }));
    }
    let names: Vec<String> = loaded.iter().map(|l| l.scenario.name.clone()).collect();
    if let Some(unknown) = args.only.iter().find(|o| !names.contains(o)) {
        return Err(Error::usage(format!(
            "there is no scenario {unknown:?}; there are {}",
            names.join(", ")
        )));
    }
    if loaded.is_empty() {
        return Err(Error::usage("there is no scenario in these files"));
    }
    if !args.only.is_empty() {
        loaded.retain(|l| args.only.contains(&l.scenario.name));
    }
    Ok(loaded)
}

/// One rollout with its story.
async fn one(
    app: &App,
    global: &Global,
    args: &SimulateArgs,
    loaded: &[Loaded],
    number: u32,
) -> crate::ops::Result<Exit> {
    let [l] = loaded else {
        return Err(Error::usage(
            "--replicate is for one scenario: name it with --only",
        ));
    };
    let played = replicate::play(&l.subject, &l.scenario, number)
        .await
        .with_context(|| format!("failed to play {} --replicate {number}", l.scenario.name))?;
    if global.json {
        json!(view::simulation::Replicate::of(
            &l.scenario.name,
            number,
            &played
        ));
    } else {
        tell(&played);
    }
    for violation in &played.violations {
        eprintln!("violation: {violation}");
    }
    if let Some(path) = &args.plot {
        picture::draw_rollout(app, &played.journal, path)?;
    }
    Ok(if played.violations.is_empty() {
        Exit::Done
    } else {
        Exit::Unmet
    })
}

/// The story of one rollout.
fn tell(played: &Played) {
    let mut narrator = render::Narrator::new(replicate::ROLLOUT);
    for entry in &played.journal {
        if let Some(line) = narrator.line(entry) {
            out!("{line}");
        }
    }
    let fate = match played.fate {
        Fate::Promoted => "promoted",
        Fate::RolledBack => "rolled back",
        Fate::Paused => "paused",
        Fate::Failed => "the strategy failed",
    };
    let after = match (played.minutes, played.fate) {
        (Some(m), Fate::Promoted) => format!(", 95 % or more of the traffic after {m:.0} minutes"),
        (Some(m), _) => format!(" after {m:.0} minutes"),
        (None, _) => String::new(),
    };
    out!(
        "{fate}{after}, about {:.0} bad requests: {}",
        played.bad_requests,
        played.reason
    );
}

/// What must never happen and did, each with a command that shows it again.
fn violations(
    shown: &str,
    file: Option<&Path>,
    args: &SimulateArgs,
    l: &Loaded,
    tallies: &[Tally],
) -> Vec<String> {
    let found = (0..).zip(tallies).filter(|(_, t)| !t.violations.is_empty());
    let lines = found.map(|(number, tally): (u32, _)| {
        let mut command = format!(
            "engine simulate '{shown}' --scenario '{}' --only {} --replicate {number}",
            l.path.display(),
            l.scenario.name
        );
        if let Some(file) = file {
            let _ = write!(command, " --file '{}'", file.display());
        }
        if args.seed != 0 {
            let _ = write!(command, " --seed {}", args.seed);
        }
        for fault in &args.faults {
            let _ = write!(command, " --fault {fault}");
        }
        for set in &args.set {
            let _ = write!(command, " --set '{set}'");
        }
        format!(
            "violation in {} (seed {}): {}\n  again: {command}",
            l.scenario.name,
            replicate::seed(&l.scenario, &l.subject),
            tally.violations[0]
        )
    });
    lines.take(VIOLATIONS_SHOWN).collect()
}

fn draw(
    app: &App,
    path: &Path,
    shown: &str,
    loaded: &[Loaded],
    tallies: &[Vec<Tally>],
) -> crate::ops::Result<()> {
    let scenarios: Vec<plot::Replicates> = loaded
        .iter()
        .zip(tallies)
        .map(|(l, tallies)| plot::Replicates {
            name: l.scenario.name.clone(),
            bad_requests: tallies.iter().map(|t| t.bad_requests).collect(),
            minutes_to_rollback: tallies
                .iter()
                .filter(|t| t.fate == Fate::RolledBack)
                .filter_map(|t| t.minutes)
                .collect(),
            replicates: u32::try_from(tallies.len()).unwrap_or(u32::MAX),
        })
        .collect();
    let title = format!("{shown} in {} scenarios", scenarios.len());
    let bytes = plot::distributions(&title, &scenarios, picture::format_of(path)?)?;
    picture::save(app, path, &bytes)
}

/// Shows how far it is, where somebody looks on.
fn progress() -> impl Fn(usize, usize) + Sync {
    let terminal = console::Term::stderr();
    let shown = terminal.is_term();
    move |done, of| {
        if !shown {
            return;
        }
        // Lost output is no reason to stop.
        if done == of {
            let _ = terminal.clear_line();
        } else if done.is_multiple_of(100) {
            let _ = terminal.clear_line();
            let _ = terminal.write_str(&format!("{done} of {of} rollouts"));
        }
    }
}

fn print(rows: &[Row]) {
    let width = rows.iter().map(|r| r.name.len()).max().unwrap_or(0).max(8);
    out!(
        "{:width$}  class      n  rolled back %         bad requests     minutes to       ",
        "scenario"
    );
    out!(
        "{:width$}                 (95 % interval)       mean    median   rollback  full   ",
        ""
    );
    let minutes = |m: Option<f64>| m.map_or_else(|| "-".to_owned(), |m| format!("{m:.1}"));
    for row in rows {
        let [low, high] = row.rolled_back_pct_interval;
        let class = match row.class {
            Class::Good => "good",
            Class::Bad => "bad",
        };
        out!(
            "{:width$}  {class:<5} {:>6}  {:>5.1} ({:>4.1}-{:>5.1})  {:>8} {:>8}   {:>8} {:>5}{}",
            row.name,
            row.replicates,
            row.rolled_back_pct,
            low,
            high,
            number(row.bad_requests_mean),
            number(row.bad_requests_median),
            minutes(row.median_minutes_to_rollback),
            minutes(row.median_minutes_to_promote),
            [(row.paused_pct, "paused"), (row.failed_pct, "failed")]
                .iter()
                .filter(|(percent, _)| *percent > 0.0)
                .fold(String::new(), |text, (percent, what)| {
                    format!("{text}  {percent:.1} % {what}")
                }),
        );
        for unmet in &row.failed_expectations {
            out!("{:width$}  not as expected: {unmet}", "");
        }
        if row.violations > 0 {
            out!(
                "{:width$}  {} violations of what must hold",
                "",
                row.violations
            );
        }
    }
    let summary = Summary::of(rows);
    if let (Some(mean), Some(worst)) = (
        summary.false_rollback_mean_pct,
        summary.false_rollback_worst_pct,
    ) {
        let full = minutes(summary.median_minutes_to_promote);
        out!(
            "good ones: {mean:.2} % rolled back on average, {worst:.1} % at worst, full weight after {full} minutes"
        );
    }
    if let (Some(detected), Some(bad)) = (
        summary.detected_mean_pct,
        summary.bad_requests_geometric_mean,
    ) {
        out!(
            "bad ones:  {detected:.1} % rolled back on average, {} bad requests (geometric mean)",
            number(bad)
        );
    }
}

fn number(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.0}k", v / 1_000.0),
        v if v >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

//! `engine simulate`: plays many rollouts in random worlds, on all cores.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::{Global, plugin};
use crate::journal::narrate::Narrator;
use crate::ops::app::App;
use crate::ops::picture;
use crate::ops::simulate::{self, Counted, One, SimulateRequest};
use crate::simulate::fault::OutsideFault;
use crate::simulate::replicate::{self, Fate, Played};
use crate::simulate::report::{Row, Summary};
use crate::simulate::scenario::Class;
use crate::view;

/// Fewer replicates than this say little about percentages.
const REPLICATES_FEW: usize = 100;

/// Play a strategy in simulated worlds and count what becomes of it
///
/// The real plugin and the real driver, under a virtual clock, against traffic,
/// noise and faults from a scenario file. The same seed gives the same result.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine simulate plugins/canary.wasm --scenario examples/scenarios/development.json
  engine simulate plugins/canary.wasm --scenario s.json --pick bad-slow-burn --replicates 2000
  engine simulate plugins/canary.wasm --scenario s.json --pick bad-slow-burn --replicate 7 --plot one.svg
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
    pick: Vec<String>,
    /// Rollouts per scenario [default: as each scenario says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replicates: Option<u32>,
    /// Only the rollout of this number, from 0, and its whole story
    #[arg(long, value_name = "K", conflicts_with = "replicates")]
    replicate: Option<u32>,
    /// Changes the seeds of all scenarios, for other random numbers; 0 leaves them
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

impl SimulateArgs {
    fn request(&self, global: &Global) -> SimulateRequest {
        SimulateRequest {
            target: global.target(),
            plugin: self.plugin.clone(),
            set: self.set.clone(),
            scenarios: self.scenarios.clone(),
            only: self.pick.clone(),
            replicates: self.replicates,
            seed: self.seed,
            faults: self.faults.clone(),
            jobs: self.jobs,
            plot: self.plot.clone(),
            junit: self.junit.clone(),
            pins: self.pins.clone().into(),
        }
    }
}

pub(super) async fn simulate(
    app: &App,
    global: &Global,
    args: SimulateArgs,
) -> crate::ops::Result<Exit> {
    let request = args.request(global);
    if let Some(number) = args.replicate {
        return one(app, global, &request, number).await;
    }
    let simulated = simulate::many(app, &request, &progress()).await?;
    let violations: Vec<Vec<String>> = simulated
        .scenarios
        .iter()
        .map(|counted| violations(&request, &simulated.shown, counted))
        .collect();
    simulate::write(app, &request, &simulated, &violations)?;
    let rows = simulated.rows();
    if global.json {
        json!(view::simulation::Report::from(&simulated));
    } else {
        print(&rows, &simulated.summary());
    }
    for line in violations.iter().flatten() {
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

/// One rollout with its story.
async fn one(
    app: &App,
    global: &Global,
    request: &SimulateRequest,
    number: u32,
) -> crate::ops::Result<Exit> {
    let One { scenario, played } = simulate::one(app, request, number).await?;
    if global.json {
        json!(view::simulation::Replicate::of(&scenario, number, &played));
    } else {
        tell(&played);
    }
    for violation in &played.violations {
        eprintln!("violation: {violation}");
    }
    if let Some(path) = &request.plot {
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
    let mut narrator = Narrator::new(replicate::ROLLOUT);
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

/// The rules of the host that were broken, each with a command that shows it again.
fn violations(request: &SimulateRequest, shown: &str, counted: &Counted) -> Vec<String> {
    let name = &counted.row.name;
    let again = |number: u32| {
        let mut command = format!(
            "engine simulate '{shown}' --scenario '{}' --pick {name} --replicate {number}",
            counted.file.display(),
        );
        if let Some(file) = &request.target.file {
            let _ = write!(command, " --file '{}'", file.display());
        }
        if request.seed != 0 {
            let _ = write!(command, " --seed {}", request.seed);
        }
        for fault in &request.faults {
            let _ = write!(command, " --fault {fault}");
        }
        for set in &request.set {
            let _ = write!(command, " --set '{set}'");
        }
        command
    };
    let lines = counted.violations().into_iter().map(|violation| {
        format!(
            "violation in {name} (seed {}): {}\n  again: {}",
            counted.seed,
            violation.what,
            again(violation.number)
        )
    });
    lines.collect()
}

/// Shows the progress if stderr is a terminal.
fn progress() -> impl Fn(usize, usize) + Sync {
    let terminal = console::Term::stderr();
    let shown = terminal.is_term();
    move |done, of| {
        if !shown {
            return;
        }
        // A terminal that cannot be written to must not stop the simulation.
        if done == of {
            let _ = terminal.clear_line();
        } else if done.is_multiple_of(100) {
            let _ = terminal.clear_line();
            let _ = terminal.write_str(&format!("{done} of {of} rollouts"));
        }
    }
}

fn print(rows: &[Row], summary: &Summary) {
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
                "{:width$}  {} violations of what must always hold",
                "",
                row.violations
            );
        }
    }
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

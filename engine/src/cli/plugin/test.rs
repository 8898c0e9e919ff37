//! `engine plugin test`: compares what a plugin decides in simulated worlds with the
//! decisions that a person has accepted.

use std::path::PathBuf;

use clap::Args;

use super::pins::PinArgs;
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::ops::app::App;
use crate::ops::plugin::test::{self, Compared, TestRequest, Tested};
use crate::view;

/// Compare a plugin's decisions in simulated worlds with accepted ones
///
/// Every scenario is played with the real engine under a virtual clock. The
/// decisions are kept beside the scenarios, in NAME.decisions; commit them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plugin test my-gate.wasm --scenario scenario.json
  engine plugin test my-gate.wasm --scenario scenario.json --accept
  engine plugin test my-gate.wasm --scenario good.json bad.json --set share=10")]
pub(super) struct TestArgs {
    /// A file, or a name of plugins.toml
    plugin: PathBuf,
    /// Files of scenarios, format simulate/v1
    #[arg(long = "scenario", value_name = "FILE", required = true, num_args = 1..)]
    scenarios: Vec<PathBuf>,
    /// A parameter of the strategy
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Rollouts per scenario
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    replicates: u32,
    /// Accept the present decisions as the right ones
    #[arg(long)]
    accept: bool,
    /// The file of accepted decisions, if there is one file of scenarios [default:
    /// beside that file]
    #[arg(long, value_name = "FILE")]
    decisions: Option<PathBuf>,
    #[command(flatten)]
    pins: PinArgs,
}

pub(super) async fn test(app: &App, global: &Global, args: TestArgs) -> crate::ops::Result<Exit> {
    let request = TestRequest {
        plugin: args.plugin,
        scenarios: args.scenarios,
        set: args.set,
        replicates: args.replicates,
        accept: args.accept,
        decisions: args.decisions,
        pins: args.pins.into(),
    };
    let mut exit = Exit::Done;
    let mut all = vec![];
    let mut each = |tested: Tested| {
        if !tested.passed() {
            exit = Exit::Unmet;
        }
        match global.json {
            true => all.push(tested),
            false => show(&tested),
        }
    };
    test::test(app, &request, &mut each).await?;
    if global.json {
        json!(view::plugin::Test::from(&all[..]));
    }
    Ok(exit)
}

fn show(tested: &Tested) {
    let (file, shown) = (tested.scenarios.display(), tested.decisions.display());
    for violation in &tested.violations {
        eprintln!("violation: {violation}");
    }
    match &tested.compared {
        Compared::Accepted => eprintln!("{shown} is written; read it, and commit it"),
        Compared::Same => out!("{file}: as in {shown}"),
        Compared::Different { accepted } => {
            out!("{file}: not as in {shown} (- accepted, + now)");
            print_difference(accepted, &tested.now);
            eprintln!("if the change is wanted, `--accept` takes it over");
        }
        Compared::New => {
            out!("{}", tested.now);
            eprintln!(
                "there is no {shown} yet; if these decisions are right, `--accept` keeps them"
            );
        }
    }
}

fn print_difference(accepted: &str, now: &str) {
    let difference = similar::TextDiff::from_lines(accepted, now);
    let text = difference.unified_diff().context_radius(2).to_string();
    for line in text.lines() {
        out!("{line}");
    }
}

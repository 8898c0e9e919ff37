//! `engine plugin test`: what a plugin decides in given worlds, against what it
//! decided when somebody last looked.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Loaded, PinArgs, look_at, parameters};
use crate::cli::exit::Exit;
use crate::cli::simulate::read_corpus;
use crate::journal::{Actor, Call, Entry, Event};
use crate::model::{Decider, Level, Millis};
use crate::ops::Error;
use crate::ops::app::App;
use crate::simulate::replicate::{self, Played, START, Subject};
use crate::supply::files;

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
    /// Take today's decisions for the right ones
    #[arg(long)]
    accept: bool,
    /// The file of decisions, for one file of scenarios [default: beside it]
    #[arg(long, value_name = "FILE")]
    decisions: Option<PathBuf>,
    #[command(flatten)]
    pins: PinArgs,
}

pub(super) async fn test(app: &App, args: TestArgs) -> crate::ops::Result<Exit> {
    if args.decisions.is_some() && args.scenarios.len() > 1 {
        return Err(Error::usage(
            "--decisions names one file, and there are several files of scenarios",
        ));
    }
    // As in a rollout: probes, queries and guardrails of the rollout file do not
    // belong to the plugin.
    let Loaded { plugin, .. } = look_at(app, &args.pins, &args.plugin).await?;
    let description = plugin.describe().await?;
    let given = parameters(&args.set, &serde_json::Map::new(), &plugin, &description).await?;
    let subject = Subject::new(plugin, &description.name, given.into());
    let mut exit = Exit::Done;
    for file in &args.scenarios {
        let (text, violations) = decisions(&subject, file, args.replicates).await?;
        let place = args
            .decisions
            .clone()
            .unwrap_or_else(|| file.with_extension("decisions"));
        let shown = place.display();
        for violation in &violations {
            eprintln!("violation: {violation}");
            exit = Exit::Unmet;
        }
        let accepted = files::read_text(&place, files::TEXT_BYTES_MAX);
        match accepted {
            _ if args.accept => {
                crate::supply::cache::write(&place, text.as_bytes())?;
                eprintln!("{shown} is written; read it, and commit it");
            }
            Ok(accepted) if accepted == text => {
                out!("{}: as in {shown}", file.display());
            }
            Ok(accepted) => {
                out!("{}: not as in {shown} (- accepted, + now)", file.display());
                print_difference(&accepted, &text);
                eprintln!("if the change is wanted, `--accept` takes it over");
                exit = Exit::Unmet;
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                out!("{text}");
                eprintln!(
                    "there is no {shown} yet; if these decisions are right, `--accept` keeps them"
                );
                exit = Exit::Unmet;
            }
            Err(e) => return Err(Error::usage(format!("failed to read {shown}: {e}"))),
        }
    }
    Ok(exit)
}

fn print_difference(accepted: &str, now: &str) {
    let difference = similar::TextDiff::from_lines(accepted, now);
    let text = difference.unified_diff().context_radius(2).to_string();
    for line in text.lines() {
        out!("{line}");
    }
}

/// The decisions in all scenarios of a file, as text, and what must never happen
/// and did.
async fn decisions(
    subject: &Subject,
    file: &Path,
    replicates: u32,
) -> crate::ops::Result<(String, Vec<String>)> {
    let mut subject = subject.clone();
    let scenarios = read_corpus(file, &mut subject)?;
    let (mut text, mut violations) = (String::new(), vec![]);
    for scenario in &scenarios {
        for replicate in 0..replicates {
            let played = replicate::play(&subject, scenario, replicate).await?;
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}{} {replicate}", scenario.name);
            tell(&mut text, &played);
            let in_it = played.violations.iter();
            violations.extend(in_it.map(|v| format!("{} {replicate}: {v}", scenario.name)));
        }
    }
    Ok((text, violations))
}

/// What it wrote, what it said, and how it ended.
fn tell(text: &mut String, played: &Played) {
    for Entry { at, event, .. } in &played.journal {
        let line = match event {
            Event::Asked { by, call, .. } if *by == Actor::Strategy && call.is_write() => {
                call.to_string()
            }
            Event::Exchanged { by, call, reply } if *by == Actor::Strategy => match call {
                Call::Log { level, .. } if *level == Level::Debug => continue,
                Call::Log { .. } => call.to_string(),
                call if call.is_write() => format!("{call}: {reply}"),
                _ => continue,
            },
            Event::Finished(outcome) => {
                format!("{}: {}", outcome.verdict, outcome.reason)
            }
            Event::Failed { reason } => format!("failed: {reason}"),
            Event::Diverged(mismatch) => format!("diverged: {mismatch}"),
            Event::Decided {
                goal, by, reason, ..
            } if *by != Decider::Strategy => {
                format!("{goal}, decided by {by}: {reason}")
            }
            _ => continue,
        };
        let _ = writeln!(text, "  {}  {line}", since_start(*at));
    }
}

/// `h:mm:ss` since the beginning.
fn since_start(at: Millis) -> String {
    let s = at.saturating_sub(START) / 1_000;
    format!("{}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

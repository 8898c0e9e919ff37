//! Verbs about rollouts that were: `replay`, `what-if`, `explain`, `export`,
//! `import`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ops::Context as _;
use clap::Args;

use super::exit::Exit;
use super::plugin::PinArgs;
use super::{Global, render};
use crate::hindsight::replay::Fit;
use crate::hindsight::what_if::{Ending, Recorded, WhatIf};
use crate::journal::Pin;
use crate::model::Millis;
use crate::ops::app::App;
use crate::ops::past::{self, Compared, Explained, Exported, Imported, Journal, Replayed};
use crate::ops::pin::PinRequest;
use crate::ops::{Error, plugin};
use crate::strategy::Plugin;
use crate::view;

/// Run a plugin against a recorded journal and say where it first differs
///
/// It gets the recorded answers. A new version that gives the same calls can be
/// swapped in without surprise; keep journals beside a plugin as its tests.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine replay canary-x7k2m9q4                       does its own plugin repeat itself
  engine replay canary-x7k2m9q4 plugins/canary.wasm   does the new version do the same
  engine replay bad-friday.journal canary")]
pub struct ReplayArgs {
    /// A rollout, or a file of `engine export`
    #[arg(allow_hyphen_values = true)]
    rollout: String,
    /// The plugin: a file, or a name of plugins.toml [default: the rollout's own]
    plugin: Option<PathBuf>,
    #[command(flatten)]
    pins: PinArgs,
}

/// Show how another plugin or other parameters would have decided
///
/// Reads are answered from the metrics that finished rollouts have recorded, when
/// they were known then. Where the weights would have been others, the metrics
/// are still those of the recorded share, and that is said.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine what-if --all --set alpha=0.001                     all finished rollouts, once more
  engine what-if canary-x7k2m9q4 --set bake=15m
  engine what-if bad-friday.journal --plugin my-gate.wasm --set slow-ms=300")]
pub struct WhatIfArgs {
    /// Rollouts, or files of `engine export`
    rollouts: Vec<String>,
    /// All finished rollouts
    #[arg(long, conflicts_with = "rollouts")]
    all: bool,
    /// Another plugin: a file, or a name of plugins.toml [default: each rollout's own]
    #[arg(long, value_name = "PLUGIN")]
    plugin: Option<PathBuf>,
    /// A parameter, in place of the recorded one
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    pins: PinArgs,
}

/// Tell, step by step, which metric led to which decision
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine explain canary-x7k2m9q4
  engine explain bad-friday.journal --json | jq '.steps[-1]'")]
pub struct ExplainArgs {
    /// A rollout [default: the newest], or a file of `engine export`
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
}

/// Write a rollout's journal into one file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine export canary-x7k2m9q4                       canary-x7k2m9q4.journal
  engine export canary-x7k2m9q4 --output bad-friday.journal")]
pub struct ExportArgs {
    /// The rollout
    #[arg(allow_hyphen_values = true)]
    rollout: String,
    /// The file [default: ID.journal]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Take the journal of a finished rollout from a file
///
/// `list`, `history`, `explain` and `what-if` then know it.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A file of `engine export`
    file: PathBuf,
}

/// The plugin that is named, or the one that the rollout is pinned to.
async fn its_plugin(
    app: &App,
    pins: &PinRequest,
    named: Option<&Path>,
    pin: &Pin,
) -> crate::ops::Result<Arc<Plugin>> {
    match named {
        Some(named) => Ok(plugin::look_at(app, pins, named).await?.plugin),
        None => past::own_plugin(app, pin, || pins.kept(app, pin)).await,
    }
}

pub(super) async fn replay(
    app: &App,
    global: &Global,
    args: ReplayArgs,
) -> crate::ops::Result<Exit> {
    let journal = Journal::of(app, &args.rollout).await?;
    let pin = journal.pin()?;
    let plugin = its_plugin(app, &args.pins.clone().into(), args.plugin.as_deref(), pin).await?;
    let replayed = past::replay(&journal, &plugin).await?;
    let (fits, text) = fit(&replayed);
    if global.json {
        let rollout = &journal.header.rollout;
        json!(view::past::Replay::of(rollout, &replayed, text));
    } else {
        let which = if replayed.same_bytes {
            "its own plugin"
        } else {
            "another plugin"
        };
        out!(
            "{} with {which} (sha256:{:.12}): {} calls; {text}",
            journal.shown,
            replayed.sha256,
            replayed.calls
        );
    }
    Ok(if fits { Exit::Done } else { Exit::Diverged })
}

/// Whether a plugin does what the journal says, and that in words.
fn fit(replayed: &Replayed) -> (bool, String) {
    match &replayed.fit {
        Fit::Same => (
            true,
            "every call and the verdict are as recorded".to_owned(),
        ),
        Fit::SoFar => (
            true,
            "every call is as recorded, to the end of the journal".to_owned(),
        ),
        Fit::Differs(mismatch) => (
            false,
            format!(
                "it differs at journal entry {}\n  recorded:  {}\n  asked now: {}",
                mismatch.seq,
                mismatch.recorded,
                mismatch.asked.as_ref().map_or_else(
                    || {
                        let returned = replayed.returned.as_deref().unwrap_or_default();
                        format!("nothing: it returned {returned:?}")
                    },
                    ToString::to_string
                )
            ),
        ),
        Fit::Beyond(call) => (
            false,
            format!("it goes on where the recorded one returned\n  asked now: {call}"),
        ),
        Fit::Otherwise { recorded, now } => (
            false,
            format!(
                "its calls are as recorded, and its verdict is not\n  recorded: {recorded}\n  now:      {now}"
            ),
        ),
    }
}

pub(super) async fn what_if(
    app: &App,
    global: &Global,
    args: WhatIfArgs,
) -> crate::ops::Result<Exit> {
    let mut named = args.rollouts.clone();
    if args.all {
        named = past::finished(app).await?;
    }
    if named.is_empty() {
        return Err(Error::usage(
            "no rollout is named: give ids or files, or --all for all finished ones; `engine list` shows them",
        ));
    }
    let mut rows = view::past::WhatIf::default();
    let mut exit = Exit::Done;
    let alone = named.len() == 1;
    for name in &named {
        let asked = async {
            let journal = match args.all {
                true => Journal::stored(app, name).await?,
                false => Journal::of(app, name).await?,
            };
            let compared = ask(app, &args, &journal).await?;
            Ok::<_, Error>((journal, compared))
        };
        let asked = asked.await;
        let (journal, compared) = match asked.with_context(|| format!("failed to ask about {name}"))
        {
            Ok(both) => both,
            Err(error) if alone => return Err(error),
            // The others can be asked all the same.
            Err(error) => {
                eprintln!("error: {error:#}");
                exit = Exit::from(error.kind);
                continue;
            }
        };
        let Compared { recorded, answer } = compared;
        if global.json {
            let rollout = &journal.header.rollout;
            rows.rollouts
                .push(view::past::Compared::of(rollout, &recorded, &answer));
        } else if alone {
            tell(&journal, &recorded, &answer);
        } else {
            out!("{name}: {}", compare(&journal, &recorded, &answer));
        }
    }
    if global.json {
        json!(rows);
    }
    Ok(exit)
}

async fn ask(app: &App, args: &WhatIfArgs, journal: &Journal) -> crate::ops::Result<Compared> {
    let pin = journal.pin()?;
    let plugin = its_plugin(app, &args.pins.clone().into(), args.plugin.as_deref(), pin).await?;
    let description = plugin.describe().await?;
    let before = past::parameters_before(pin, &description.name);
    let parameters = plugin::parameters(&args.set, &before, &plugin, &description).await?;
    past::what_if(journal, &plugin, parameters).await
}

fn ending(answer: &WhatIf) -> String {
    match &answer.end {
        Ending::Verdict(outcome) => outcome.verdict.to_string(),
        Ending::Undecided => "undecided".to_owned(),
        Ending::Failed(_) => "failed".to_owned(),
    }
}

fn verdict(recorded: &Recorded) -> String {
    let verdict = recorded.verdict.map(|v| v.to_string());
    verdict.unwrap_or_else(|| "undecided".to_owned())
}

fn compare(journal: &Journal, recorded: &Recorded, answer: &WhatIf) -> String {
    let after = |at: Millis| render::span(at.saturating_sub(journal.header.created));
    let (was, would) = (verdict(recorded), ending(answer));
    let parted = match answer.parted {
        Some(at) => format!("; other weights from {} on", after(at)),
        None => String::new(),
    };
    format!(
        "{was} after {}, would be {would} after {}{}{parted}",
        after(recorded.at),
        after(answer.at),
        if was == would { "" } else { "  <- differs" },
    )
}

fn tell(journal: &Journal, recorded: &Recorded, answer: &WhatIf) {
    let after = |at: Millis| render::span(at.saturating_sub(journal.header.created));
    out!(
        "recorded: {} after {}",
        verdict(recorded),
        after(recorded.at)
    );
    out!("  {}", recorded.reason);
    out!("what if:  {} after {}", ending(answer), after(answer.at));
    match &answer.end {
        Ending::Verdict(outcome) => out!("  {}", outcome.reason),
        Ending::Undecided => out!(
            "  the recorded metrics end before it decides{}",
            answer
                .findings
                .last()
                .map_or_else(String::new, |f| format!("; last it {f}"))
        ),
        Ending::Failed(reason) => out!("  {reason}"),
    }
    out!("its weights:");
    for (at, weights) in &answer.weights {
        out!("  {:>8}  {weights}", after(*at));
    }
    if let Some(at) = answer.parted {
        out!(
            "from {} on the weights are not the recorded ones, and the metrics are still those of the recorded share",
            after(at)
        );
    }
    for what in &answer.missing {
        out!("not in the journal: {what}");
    }
}

pub(super) async fn explain(
    app: &App,
    global: &Global,
    args: ExplainArgs,
) -> crate::ops::Result<Exit> {
    let explained = past::explain(app, args.rollout.as_deref()).await?;
    if global.json {
        json!(view::past::Explanation::from(explained));
        return Ok(Exit::Done);
    }
    let Explained { header, steps } = explained;
    out!("{} on {}", header.title(), header.identity);
    for step in steps {
        let after = render::span(step.at.saturating_sub(header.created));
        let by = match step.by.as_str() {
            "strategy" | "host" => String::new(),
            other => format!(" (by {other})"),
        };
        out!("\n{after:>8}  {}{by}", step.did);
        for line in step.because {
            out!("          - {line}");
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn export(app: &App, args: ExportArgs) -> crate::ops::Result<Exit> {
    let Exported { file, entries } = past::export(app, &args.rollout, args.output).await?;
    eprintln!("{} has {entries} entries", file.display());
    Ok(Exit::Done)
}

pub(super) async fn import(app: &App, args: ImportArgs) -> crate::ops::Result<Exit> {
    match past::import(app, &args.file).await? {
        Imported::Known { rollout } => eprintln!("{rollout} is here already"),
        Imported::New { rollout, entries } => eprintln!("{rollout} has {entries} entries"),
    }
    Ok(Exit::Done)
}

//! Verbs about past rollouts: `replay`, `what-if`, `explain`, `export`,
//! `import`.

use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::plugin::PinArgs;
use super::{Global, render};
use crate::hindsight::replay::Fit;
use crate::hindsight::what_if::{Ending, Recorded, WhatIf};
use crate::model::{Decider, Millis};
use crate::ops::app::App;
use crate::ops::past::{
    self, Compared, Explained, Exported, Imported, ReplayRequest, Replayed, WhatIfRequest,
};
use crate::view;

/// Run a plugin against a recorded journal and say where it first differs
///
/// The plugin gets the recorded answers. A new version that makes the same calls
/// would have led this rollout in the same way. Journals that are kept beside a
/// plugin are tests of it.
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
/// Reads are answered with the metrics that finished rollouts have recorded, and
/// never with what was not known yet at that time. Where the weights would have
/// been others, the metrics are still those of the recorded share; the output says
/// from when on.
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
    #[arg(id = "journal", value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn replay(
    app: &App,
    global: &Global,
    args: ReplayArgs,
) -> crate::ops::Result<Exit> {
    let request = ReplayRequest {
        rollout: args.rollout,
        plugin: args.plugin,
        pins: args.pins.into(),
    };
    let replayed = past::replay(app, &request).await?;
    let (fits, text) = fit(&replayed);
    if global.json {
        json!(view::past::Replay::of(&replayed, text));
    } else {
        let which = if replayed.same_bytes {
            "its own plugin"
        } else {
            "another plugin"
        };
        out!(
            "{} with {which} (sha256:{:.12}): {} calls; {text}",
            replayed.journal.shown,
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
                "its calls are as recorded, but its verdict is not\n  recorded: {recorded}\n  now:      {now}"
            ),
        ),
    }
}

pub(super) async fn what_if(
    app: &App,
    global: &Global,
    args: WhatIfArgs,
) -> crate::ops::Result<Exit> {
    let request = WhatIfRequest {
        rollouts: args.rollouts,
        all: args.all,
        plugin: args.plugin,
        set: args.set,
        pins: args.pins.into(),
    };
    let mut answer = view::past::WhatIf::default();
    let mut exit = Exit::Done;
    let mut tell = |asked: crate::ops::Result<Compared>, of: usize| match asked {
        Ok(compared) if global.json => answer.rollouts.push((&compared).into()),
        Ok(compared) if of == 1 => show(&compared),
        Ok(compared) => out!("{}: {}", compared.journal.shown, compare(&compared)),
        Err(error) => {
            eprintln!("error: {}", super::advice::text(&error));
            exit = Exit::from(error.kind);
        }
    };
    past::what_if(app, &request, &mut tell).await?;
    if global.json {
        json!(answer);
    }
    Ok(exit)
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

fn compare(compared: &Compared) -> String {
    let Compared {
        journal,
        recorded,
        answer,
    } = compared;
    let after = |at: Millis| render::span(at.saturating_sub(journal.header.created));
    let (was, would) = (verdict(recorded), ending(answer));
    let parted = match answer.parted {
        Some(at) => format!("; other weights from {} on", after(at)),
        None => String::new(),
    };
    let ended = match recorded.is_of_others(&answer.end) {
        true => format!(", {}, so it is not compared;", by_whom(recorded)),
        false => ",".to_owned(),
    };
    format!(
        "{was} after {}{ended} would be {would} after {}{}{parted}",
        after(recorded.at),
        after(answer.at),
        if compared.differs() {
            "  <- differs"
        } else {
            ""
        },
    )
}

/// Who ended it, where that was not the strategy.
fn by_whom(recorded: &Recorded) -> String {
    match &recorded.by {
        Some(Decider::Person(name)) => format!("ended by a person ({name})"),
        Some(Decider::Strategy) | None => String::new(),
        Some(part) => format!("ended by the engine ({part})"),
    }
}

fn show(compared: &Compared) {
    let Compared {
        journal,
        recorded,
        answer,
    } = compared;
    let after = |at: Millis| render::span(at.saturating_sub(journal.header.created));
    let by = match recorded.is_of_others(&answer.end) {
        true => format!(", {}", by_whom(recorded)),
        false => String::new(),
    };
    out!(
        "recorded: {} after {}{by}",
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

pub(super) async fn export(
    app: &App,
    global: &Global,
    args: ExportArgs,
) -> crate::ops::Result<Exit> {
    let exported = past::export(app, &args.rollout, args.output).await?;
    if global.json {
        json!(view::past::Export::from(&exported));
        return Ok(Exit::Done);
    }
    let Exported { file, entries, .. } = exported;
    eprintln!("{} is written; it has {entries} entries", file.display());
    Ok(Exit::Done)
}

pub(super) async fn import(
    app: &App,
    global: &Global,
    args: ImportArgs,
) -> crate::ops::Result<Exit> {
    let imported = past::import(app, &args.file).await?;
    if global.json {
        json!(view::past::Import::from(&imported));
        return Ok(Exit::Done);
    }
    match imported {
        Imported::Known { rollout, .. } => eprintln!("rollout {rollout} is in the store already"),
        Imported::New { rollout, entries } => {
            eprintln!("rollout {rollout} is imported; it has {entries} entries");
        }
    }
    Ok(Exit::Done)
}

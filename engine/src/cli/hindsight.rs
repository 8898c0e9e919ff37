//! Verbs about rollouts that were: `replay`, `what-if`, `explain`, `export`,
//! `import`. None of them touches a target.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ops::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use super::exit::Exit;
use super::plugin::{self, PinArgs};
use super::{Global, render};
use crate::hindsight::replay::{self, Fit};
use crate::hindsight::what_if::{self, Ending, Recorded, WhatIf};
use crate::hindsight::{explain, file};
use crate::journal::status::Status;
use crate::journal::{Entry, Event, Header, Pin, Work};
use crate::model::Millis;
use crate::ops::Error;
use crate::ops::app::App;
use crate::store::{Claim, Durability};
use crate::strategy::Plugin;
use crate::supply::files;

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

/// A journal and what it is about.
struct Told {
    /// How the user called it.
    shown: String,
    header: Header,
    entries: Vec<Entry>,
}

impl Told {
    fn pin(&self) -> crate::ops::Result<&Pin> {
        match &self.header.work {
            Work::Strategy(pin) => Ok(pin),
            Work::Verb { .. } | Work::StackChange { .. } => Err(Error::usage(format!(
                "{} is a single {}, without a strategy",
                self.shown,
                self.header.title()
            ))),
        }
    }
}

/// A rollout of the store, or a file.
async fn told(app: &App, named: &str) -> crate::ops::Result<Told> {
    let path = Path::new(named);
    let looks_like_file = named.contains('/') || path.extension().is_some() || path.is_file();
    if !looks_like_file {
        return stored(app, named).await;
    }
    from_beginning(named, read_journal(path)?)
}

async fn stored(app: &App, id: &str) -> crate::ops::Result<Told> {
    from_beginning(id, app.journal(id).await?.2)
}

fn from_beginning(named: &str, entries: Vec<Entry>) -> crate::ops::Result<Told> {
    match entries.first().map(|e| &e.event) {
        Some(Event::Started(header)) => Ok(Told {
            shown: named.to_owned(),
            header: (**header).clone(),
            entries,
        }),
        _ => Err(Error::usage(format!("{named} has no beginning"))),
    }
}

/// Largest file of a journal: some times what a journal may have in a store.
const JOURNAL_BYTES_MAX: u64 = 512 << 20;

fn read_journal(path: &Path) -> crate::ops::Result<Vec<Entry>> {
    let shown = path.display();
    let text = files::read_text(path, JOURNAL_BYTES_MAX)
        .map_err(|e| Error::usage(format!("failed to read journal {shown}: {e}")))?;
    file::read(&text).map_err(|e| Error::usage(format!("{shown} cannot be used: {e}")))
}

/// The plugin that is named, or the one that the rollout is pinned to.
async fn its_plugin(
    app: &App,
    pins: &PinArgs,
    named: Option<&Path>,
    pin: &Pin,
) -> crate::ops::Result<Arc<Plugin>> {
    if let Some(named) = named {
        return Ok(plugin::look_at(app, pins, named).await?.plugin);
    }
    if let Some(bytes) = app.store.content(&pin.sha256).await? {
        return Ok(app.ports.host()?.load_exactly(&bytes, &pin.sha256).await?);
    }
    // The store keeps bytes for unfinished rollouts only.
    if let Some(bytes) = pins.kept(app, pin) {
        return Ok(app.ports.host()?.load(&bytes).await?);
    }
    Err(Error::usage(format!(
        "the plugin of this rollout ({} {}, sha256:{}) is not here any more; name the plugin to run",
        pin.name, pin.version, pin.sha256
    )))
}

pub(super) async fn replay(
    app: &App,
    global: &Global,
    args: ReplayArgs,
) -> crate::ops::Result<Exit> {
    let told = told(app, &args.rollout).await?;
    let pin = told.pin()?;
    let plugin = its_plugin(app, &args.pins, args.plugin.as_deref(), pin).await?;
    let replayed = replay::replay(plugin.as_ref(), &told.header, pin, &told.entries).await;
    let same_bytes = plugin.sha256 == pin.sha256;
    let (fits, text) = match &replayed.fit {
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
    };
    if global.json {
        let (entry, at) = match &replayed.fit {
            Fit::Differs(mismatch) => {
                let of = told.entries.iter().find(|e| e.seq == mismatch.seq);
                (Some(mismatch.seq), of.map(|e| e.at))
            }
            _ => (None, None),
        };
        let value = json!({
            "rollout": told.header.rollout, "fits": fits, "calls": replayed.calls,
            "sha256": plugin.sha256, "sameBytes": same_bytes,
            "entry": entry, "at": at, "message": text,
        });
        out!("{value}");
    } else {
        let which = if same_bytes {
            "its own plugin"
        } else {
            "another plugin"
        };
        out!(
            "{} with {which} (sha256:{:.12}): {} calls; {text}",
            told.shown,
            plugin.sha256,
            replayed.calls
        );
    }
    Ok(if fits { Exit::Done } else { Exit::Diverged })
}

pub(super) async fn what_if(
    app: &App,
    global: &Global,
    args: WhatIfArgs,
) -> crate::ops::Result<Exit> {
    let mut named = args.rollouts.clone();
    if args.all {
        let listed = app.store.list(None, u32::MAX).await?;
        let finished = listed.into_iter().filter(|l| {
            matches!(l.last.event, Event::Ended { .. })
                && matches!(l.header.work, Work::Strategy(_))
        });
        named = finished.map(|l| l.header.rollout).collect();
    }
    if named.is_empty() {
        return Err(Error::usage(
            "no rollout is named: give ids or files, or --all for all finished ones; `engine list` shows them",
        ));
    }
    let mut rows = vec![];
    let mut exit = Exit::Done;
    let alone = named.len() == 1;
    for name in &named {
        let asked = async {
            let told = match args.all {
                true => stored(app, name).await?,
                false => told(app, name).await?,
            };
            let answer = ask(app, &args, &told).await?;
            Ok::<_, Error>((told, answer))
        };
        let asked = asked.await;
        let (told, answer) = match asked.with_context(|| format!("failed to ask about {name}")) {
            Ok(both) => both,
            Err(error) if alone => return Err(error),
            // The others can be asked all the same.
            Err(error) => {
                eprintln!("error: {error:#}");
                exit = Exit::from(error.kind);
                continue;
            }
        };
        let recorded = what_if::recorded(&told.entries);
        if global.json {
            rows.push(row(&told, &recorded, &answer));
        } else if alone {
            tell(&told, &recorded, &answer);
        } else {
            out!("{name}: {}", compare(&told, &recorded, &answer));
        }
    }
    if global.json {
        out!("{}", json!({"rollouts": rows}));
    }
    Ok(exit)
}

async fn ask(app: &App, args: &WhatIfArgs, told: &Told) -> crate::ops::Result<WhatIf> {
    let pin = told.pin()?;
    let plugin = its_plugin(app, &args.pins, args.plugin.as_deref(), pin).await?;
    let description = plugin.describe().await?;
    // Parameters of one strategy mean nothing to another.
    let before = match &pin.parameters {
        Value::Object(parameters) if description.name == pin.name => parameters.clone(),
        _ => Map::new(),
    };
    let parameters = plugin::parameters(&args.set, &before, &plugin, &description).await?;
    let pin = Pin {
        parameters: parameters.into(),
        ..pin.clone()
    };
    Ok(what_if::what_if(plugin.as_ref(), &told.header, &pin, &told.entries).await)
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

fn compare(told: &Told, recorded: &Recorded, answer: &WhatIf) -> String {
    let after = |at: Millis| render::span(at.saturating_sub(told.header.created));
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

fn tell(told: &Told, recorded: &Recorded, answer: &WhatIf) {
    let after = |at: Millis| render::span(at.saturating_sub(told.header.created));
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

fn row(told: &Told, recorded: &Recorded, answer: &WhatIf) -> Value {
    let (end, reason, failed) = match &answer.end {
        Ending::Verdict(outcome) => (json!(outcome.verdict), Some(&outcome.reason), None),
        Ending::Undecided => (json!("undecided"), None, None),
        Ending::Failed(reason) => (json!("failed"), None, Some(reason)),
    };
    let weights: Vec<Value> = answer
        .weights
        .iter()
        .map(|(at, weights)| json!({"at": at, "weights": weights}))
        .collect();
    json!({
        "rollout": told.header.rollout,
        "recorded": {"verdict": recorded.verdict, "reason": recorded.reason, "at": recorded.at},
        "whatIf": {"end": end, "reason": reason, "failed": failed, "at": answer.at, "weights": weights},
        "differs": verdict(recorded) != ending(answer),
        "otherWeightsFrom": answer.parted, "missing": answer.missing,
    })
}

pub(super) async fn explain(
    app: &App,
    global: &Global,
    args: ExplainArgs,
) -> crate::ops::Result<Exit> {
    let named = match args.rollout {
        Some(named) => named,
        None => match app.store.list(None, 1).await?.into_iter().next() {
            Some(newest) => newest.header.rollout,
            None => return Err(Error::usage("there is no rollout yet")),
        },
    };
    let told = told(app, &named).await?;
    let steps = explain::explain(&told.entries);
    if global.json {
        let value =
            json!({"rollout": told.header.rollout, "created": told.header.created, "steps": steps});
        out!("{value}");
        return Ok(Exit::Done);
    }
    out!("{} on {}", told.header.title(), told.header.identity);
    for step in steps {
        let after = render::span(step.at.saturating_sub(told.header.created));
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
    let (header, status, entries) = app.journal(&args.rollout).await?;
    let place = args
        .output
        .unwrap_or_else(|| PathBuf::from(format!("{}.journal", header.rollout)));
    crate::ops::private::write(&place, file::write(&entries).as_bytes())
        .map_err(|e| Error::usage(format!("failed to write {}: {e}", place.display())))?;
    if !status.is_over() {
        eprintln!("note: the rollout is still under way; this is its journal so far");
    }
    eprintln!("{} has {} entries", place.display(), entries.len());
    Ok(Exit::Done)
}

pub(super) async fn import(app: &App, args: ImportArgs) -> crate::ops::Result<Exit> {
    let entries = file::imported(read_journal(&args.file)?);
    let shown = args.file.display();
    let status = Status::of(&entries);
    let Some(status) = status.filter(Status::is_over) else {
        return Err(Error::usage(format!(
            "{shown} is the journal of a rollout that has not ended; only one engine may drive it, the one that has it. `replay`, `what-if` and `explain` read the file itself"
        )));
    };
    let known = file::imported(app.store.load(&status.rollout, 0).await?);
    if known == entries {
        eprintln!("{} is here already", status.rollout);
        return Ok(Exit::Done);
    }
    if !known.is_empty() {
        return Err(Error::usage(format!(
            "there is another rollout {} here already; nothing is overwritten",
            status.rollout
        )));
    }
    // A place of its own: the target may be busy, and this never touches it.
    let place = format!("imported {}", status.rollout);
    let driver = app.driver(<_>::default());
    let lease = driver
        .claim_as(Claim {
            target: &place,
            rollout: &status.rollout,
            owner: &driver.owner,
            now: driver.clock.now(),
            ttl_ms: driver.options.lease_ttl_ms,
            dead_epoch: None,
        })
        .await?;
    let count = entries.len();
    let appended = app.store.append(&lease, entries, Durability::Power).await;
    app.store.release(&lease, false).await?;
    appended?;
    eprintln!("{} has {count} entries", status.rollout);
    Ok(Exit::Done)
}

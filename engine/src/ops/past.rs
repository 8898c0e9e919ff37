//! Past rollouts: replay, what-if, explain, export and import. None of them touches a
//! target.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::advice::{Ask, Input};
use super::app::App;
use super::error::{Context as _, Error, Result};
use super::pin::PinRequest;
use super::{plugin, private};
use crate::hindsight::explain::{self, Step};
use crate::hindsight::file;
use crate::hindsight::replay::{self, Fit};
use crate::hindsight::what_if::{self, Ending, Recorded, WhatIf};
use crate::journal::status::Status;
use crate::journal::summary::Summary;
use crate::journal::{Entry, Header, Pin, Work, header};
use crate::model::Millis;
use crate::store::{Claim, Durability, Page};
use crate::strategy::Plugin;
use crate::supply::files;

/// Largest file of a journal, bytes: several times what a journal may have in a store.
const JOURNAL_BYTES_MAX: u64 = 512 << 20;

/// A journal, its header and the name by which it was asked for.
#[derive(Debug, Clone)]
pub struct Journal {
    /// The id or the file that the user named.
    pub shown: String,
    /// The header in its first entry.
    pub header: Header,
    /// All entries.
    pub entries: Vec<Entry>,
}

impl Journal {
    /// The rollout of that id in the store, or a file of [`export`].
    pub async fn of(app: &App, named: &str) -> Result<Self> {
        let path = Path::new(named);
        let looks_like_file = named.contains('/') || path.extension().is_some() || path.is_file();
        if !looks_like_file {
            return Self::stored(app, named).await;
        }
        Self::from_beginning(named, read(path)?)
    }

    /// The rollout of that id in the store.
    pub async fn stored(app: &App, id: &str) -> Result<Self> {
        let id = app.id_of(id).await?;
        Self::from_beginning(&id, app.journal(&id).await?.2)
    }

    fn from_beginning(named: &str, entries: Vec<Entry>) -> Result<Self> {
        match header(&entries).cloned() {
            Some(header) => Ok(Self {
                shown: named.to_owned(),
                header,
                entries,
            }),
            None => Err(Error::usage(format!("{named} has no beginning"))),
        }
    }

    /// The strategy that the rollout is pinned to. Fails for a single verb.
    pub fn pin(&self) -> Result<&Pin> {
        match &self.header.work {
            Work::Strategy(pin) => Ok(pin),
            Work::Verb { .. } | Work::Undo { .. } | Work::StackChange { .. } => {
                Err(Error::usage(format!(
                    "{} is a single {}, without a strategy",
                    self.shown,
                    self.header.title()
                )))
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<Entry>> {
    let shown = path.display();
    let text = files::read_text(path, JOURNAL_BYTES_MAX)
        .map_err(|e| Error::usage(format!("failed to read journal {shown}: {e}")))?;
    file::read(&text).map_err(|e| Error::usage(format!("{shown} cannot be used: {e}")))
}

/// The plugin with that name; without a name, the one that the rollout is pinned to.
async fn its_plugin(
    app: &App,
    pins: &PinRequest,
    named: Option<&Path>,
    pin: &Pin,
) -> Result<Arc<Plugin>> {
    if let Some(named) = named {
        return Ok(plugin::look_at(app, pins, named).await?.plugin);
    }
    if let Some(bytes) = app.store.get(&pin.sha256).await? {
        return Ok(app.ports.host()?.load_exactly(&bytes, &pin.sha256).await?);
    }
    // The store keeps the bytes of plugins only as long as unfinished rollouts need them.
    if let Some(bytes) = pins.kept(app, pin) {
        return Ok(app.ports.host()?.load(&bytes).await?);
    }
    Err(Error::usage(format!(
        "the plugin of this rollout ({} {}, sha256:{}) is not here any more; name the plugin to run",
        pin.name, pin.version, pin.sha256
    )))
}

/// A plugin that shall be run against a journal.
#[derive(Debug, Clone, Default)]
pub struct ReplayRequest {
    /// A rollout, or a file of [`export`].
    pub rollout: String,
    /// The plugin: a file, or its name in `plugins.toml`; the rollout's own if none is
    /// named.
    pub plugin: Option<PathBuf>,
    /// What may change about pinned plugins.
    pub pins: PinRequest,
}

/// How a plugin compares with a recorded journal.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// The journal.
    pub journal: Journal,
    /// Calls that were as recorded.
    pub calls: usize,
    /// Whether the rest is as recorded too.
    pub fit: Fit,
    /// What the plugin returned, if it came to an end.
    pub returned: Option<String>,
    /// Digest of the plugin that ran, hexadecimal.
    pub sha256: String,
    /// Whether that is the plugin of the rollout.
    pub same_bytes: bool,
    /// When the entry at which it differs was written, Unix ms.
    pub differs_at: Option<Millis>,
}

/// Runs a plugin against a journal: it gets the recorded answers.
///
/// # Errors
/// Usage, if there is no such journal, if it is one of a single verb, or if the plugin
/// is not here; rejected, if the plugin may not run.
pub async fn replay(app: &App, request: &ReplayRequest) -> Result<Replayed> {
    let journal = Journal::of(app, &request.rollout).await?;
    let pin = journal.pin()?;
    let plugin = its_plugin(app, &request.pins, request.plugin.as_deref(), pin).await?;
    let replayed = replay::replay(plugin.as_ref(), &journal.header, pin, &journal.entries).await;
    let differs_at = match &replayed.fit {
        Fit::Differs(mismatch) => {
            let of = journal.entries.iter().find(|e| e.seq == mismatch.seq);
            of.map(|e| e.at)
        }
        _ => None,
    };
    Ok(Replayed {
        calls: replayed.calls,
        fit: replayed.fit,
        returned: replayed.returned,
        sha256: plugin.sha256.clone(),
        same_bytes: plugin.sha256 == pin.sha256,
        differs_at,
        journal,
    })
}

/// Ids of all rollouts of a strategy that have ended, the newest first.
async fn finished(app: &App) -> Result<Vec<String>> {
    let all = Page::newest(None, u32::MAX).of_strategies();
    let finished = app.store.history(&all).await?.into_iter();
    let finished = finished.filter(|row| row.end.is_some());
    Ok(finished.map(|row| row.rollout).collect())
}

/// Which rollouts shall be decided once more, and by what.
#[derive(Debug, Clone, Default)]
pub struct WhatIfRequest {
    /// Rollouts, or files of [`export`].
    pub rollouts: Vec<String>,
    /// All finished rollouts instead.
    pub all: bool,
    /// The plugin: a file, or its name in `plugins.toml`; each rollout's own if none is
    /// named.
    pub plugin: Option<PathBuf>,
    /// Parameters in place of the recorded ones, `KEY=VALUE`.
    pub set: Vec<String>,
    /// What may change about pinned plugins.
    pub pins: PinRequest,
}

/// What was decided, and what would have been.
#[derive(Debug, Clone)]
pub struct Compared {
    /// The journal.
    pub journal: Journal,
    /// What it says.
    pub recorded: Recorded,
    /// What the plugin would have done.
    pub answer: WhatIf,
}

impl Compared {
    /// Whether the verdict would have been another one, or there would have been none.
    /// Never where it was not the strategy who ended it.
    #[must_use]
    pub fn differs(&self) -> bool {
        if self.recorded.is_of_others(&self.answer.end) {
            return false;
        }
        match &self.answer.end {
            Ending::Verdict(outcome) => self.recorded.verdict != Some(outcome.verdict),
            Ending::Undecided => self.recorded.verdict.is_some(),
            Ending::Failed(_) => true,
        }
    }
}

/// Asks of one rollout after the other what a plugin would have decided, and tells
/// each answer, and how many there will be. If one of several rollouts cannot be asked,
/// its answer is why, and the others are asked all the same.
///
/// # Errors
/// Usage, if no rollout is named; and why the only one that is named cannot be asked.
pub async fn what_if(
    app: &App,
    request: &WhatIfRequest,
    tell: &mut (dyn FnMut(Result<Compared>, usize) + Send),
) -> Result<()> {
    let named = match request.all {
        true => finished(app).await?,
        false => request.rollouts.clone(),
    };
    if named.is_empty() {
        return Err(Error::usage("no rollout is named: give ids or files")
            .give(Input::AllFinished, "stands for all finished ones")
            .ask(Ask::List, "shows them"));
    }
    for name in &named {
        let asked = ask(app, request, name).await;
        let asked = asked.with_context(|| format!("failed to ask about {name}"));
        match named.len() {
            1 => tell(Ok(asked?), 1),
            of => tell(asked, of),
        }
    }
    Ok(())
}

async fn ask(app: &App, request: &WhatIfRequest, name: &str) -> Result<Compared> {
    let journal = match request.all {
        true => Journal::stored(app, name).await?,
        false => Journal::of(app, name).await?,
    };
    let pin = journal.pin()?;
    let plugin = its_plugin(app, &request.pins, request.plugin.as_deref(), pin).await?;
    let description = plugin.describe().await?;
    let before = parameters_before(pin, &description.name);
    let parameters = plugin::parameters(&request.set, &before, &plugin, &description).await?;
    let pin = Pin {
        parameters: parameters.into(),
        ..pin.clone()
    };
    Ok(Compared {
        recorded: what_if::recorded(&journal.entries),
        answer: what_if::what_if(plugin.as_ref(), &journal.header, &pin, &journal.entries).await,
        journal,
    })
}

/// The recorded parameters, if the strategy has the recorded name: another strategy has
/// other parameters.
fn parameters_before(pin: &Pin, name: &str) -> Map<String, Value> {
    match &pin.parameters {
        Value::Object(parameters) if name == pin.name => parameters.clone(),
        _ => Map::new(),
    }
}

/// A rollout, step by step.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The header in the rollout's first entry.
    pub header: Header,
    /// Which metric led to which decision.
    pub steps: Vec<Step>,
}

/// Says which metric led to which decision in that rollout or file, or in the newest
/// rollout.
pub async fn explain(app: &App, named: Option<&str>) -> Result<Explained> {
    let newest;
    let named = match named {
        Some(named) => named,
        None => match app
            .store
            .history(&Page::newest(None, 1))
            .await?
            .into_iter()
            .next()
        {
            Some(row) => {
                newest = row.rollout;
                &newest
            }
            None => return Err(Error::usage("there is no rollout yet")),
        },
    };
    let journal = Journal::of(app, named).await?;
    Ok(Explained {
        steps: explain::explain(&journal.entries),
        header: journal.header,
    })
}

/// A journal in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The rollout.
    pub rollout: String,
    /// The file.
    pub file: PathBuf,
    /// Number of its entries.
    pub entries: usize,
}

/// Writes a rollout's journal into a file, `ID.journal` if none is named.
pub async fn export(app: &App, id: &str, output: Option<PathBuf>) -> Result<Exported> {
    let (header, status, entries) = app.journal(&app.id_of(id).await?).await?;
    let place = output.unwrap_or_else(|| PathBuf::from(format!("{}.journal", header.rollout)));
    private::write(&place, file::write(&entries).as_bytes())
        .map_err(|e| Error::usage(format!("failed to write {}: {e}", place.display())))?;
    if !status.is_over() {
        app.note("the rollout is still under way; this is its journal so far");
    }
    Ok(Exported {
        rollout: header.rollout,
        file: place,
        entries: entries.len(),
    })
}

/// What became of a file that was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// The store has that journal already.
    Known {
        /// The rollout.
        rollout: String,
        /// Number of its entries.
        entries: usize,
    },
    /// The store has it now.
    New {
        /// The rollout.
        rollout: String,
        /// Number of its entries.
        entries: usize,
    },
}

/// Takes the journal of a finished rollout from a file. Nothing is overwritten.
pub async fn import(app: &App, path: &Path) -> Result<Imported> {
    let entries = file::imported(read(path)?);
    let shown = path.display();
    let status = Status::of(&entries);
    let Some(Status { rollout, .. }) = status.filter(Status::is_over) else {
        return Err(Error::usage(format!(
            "{shown} is the journal of a rollout that has not ended; only one engine may drive it, the one that has it. The file itself can be explained, replayed and asked what if"
        )));
    };
    let known = file::imported(app.store.load(&rollout, 0).await?);
    if known == entries {
        return Ok(Imported::Known {
            rollout,
            entries: known.len(),
        });
    }
    if !known.is_empty() {
        return Err(Error::usage(format!(
            "there is another rollout {rollout} here already; nothing is overwritten"
        )));
    }
    // The import claims an identity of its own: the target may be busy, and an import
    // never touches it.
    let place = format!("imported {rollout}");
    let driver = app.driver(<_>::default());
    let lease = driver
        .claim_as(Claim {
            target: &place,
            also: &[],
            rollout: &rollout,
            owner: &driver.owner,
            now: driver.clock.now(),
            ttl_ms: driver.options.lease_ttl_ms,
            dead_epoch: None,
        })
        .await?;
    let count = entries.len();
    let appended = match Summary::of_journal(&entries) {
        Some(summary) => {
            app.store
                .append(&lease, entries, &summary, Durability::Power)
                .await
        }
        None => Ok(()),
    };
    app.store.release(&lease).await?;
    appended?;
    Ok(Imported::New {
        rollout,
        entries: count,
    })
}

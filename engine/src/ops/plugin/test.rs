//! Compares what a plugin decides in given worlds with the decisions that a person has
//! accepted.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Loaded, look_at, parameters};
use crate::journal::narrate::{decided, sentence};
use crate::journal::{Actor, Call, Event, Exchange, exchanges};
use crate::model::{Decider, Level, Millis};
use crate::ops::app::App;
use crate::ops::pin::PinRequest;
use crate::ops::{Error, Input, Result, scenarios};
use crate::simulate::replicate::{self, Played, START, Subject};
use crate::supply::files;

/// The plugin to test, and the worlds.
#[derive(Debug, Clone)]
pub struct TestRequest {
    /// A file, or a name of `plugins.toml`.
    pub plugin: PathBuf,
    /// Files of scenarios.
    pub scenarios: Vec<PathBuf>,
    /// Parameters, `KEY=VALUE`.
    pub set: Vec<String>,
    /// Rollouts per scenario.
    pub replicates: u32,
    /// Whether to accept the present decisions.
    pub accept: bool,
    /// The file of decisions, for one file of scenarios; by default beside that file.
    pub decisions: Option<PathBuf>,
    /// What may change about pinned plugins.
    pub pins: PinRequest,
}

/// The result for one file of scenarios.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// The file.
    pub scenarios: PathBuf,
    /// The file of the accepted decisions.
    pub decisions: PathBuf,
    /// The present decisions, in the form of that file.
    pub now: String,
    /// Rules of the host that were broken.
    pub violations: Vec<String>,
    /// How the decisions compare with the accepted ones.
    pub compared: Compared,
}

/// How decisions compare with the accepted ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// They were accepted now.
    Accepted,
    /// They are the same.
    Same,
    /// They differ.
    Different {
        /// The accepted ones.
        accepted: String,
    },
    /// No decisions were accepted before.
    New,
}

impl Tested {
    /// Whether the decisions are the accepted ones and no rule was broken.
    #[must_use]
    pub fn passed(&self) -> bool {
        let compared = matches!(self.compared, Compared::Accepted | Compared::Same);
        compared && self.violations.is_empty()
    }
}

/// Plays every scenario with the real driver under a virtual clock, compares the
/// decisions with the accepted ones, and calls `tested` for each file.
///
/// # Errors
/// The plugin may not run, a parameter is wrong, or a file cannot be read or written.
pub async fn test(
    app: &App,
    request: &TestRequest,
    tested: &mut (dyn FnMut(Tested) + Send),
) -> Result<()> {
    if request.decisions.is_some() && request.scenarios.len() > 1 {
        return Err(Error::argument(
            Input::DecisionsFile,
            "names one file, and there are several files of scenarios",
        ));
    }
    // Probes, queries and guardrails of the rollout file do not belong to the plugin,
    // so they are left out here.
    let Loaded { plugin, .. } = look_at(app, &request.pins, &request.plugin).await?;
    let description = plugin.describe().await?;
    let given = parameters(&request.set, &serde_json::Map::new(), &plugin, &description).await?;
    let subject = Subject::new(plugin, &description.name, given.into());
    for file in &request.scenarios {
        let (now, violations) = decisions(&subject, file, request.replicates).await?;
        let beside = || file.with_extension("decisions");
        let place = request.decisions.clone().unwrap_or_else(beside);
        let compared = compare(&place, &now, request.accept)?;
        tested(Tested {
            scenarios: file.clone(),
            decisions: place,
            now,
            violations,
            compared,
        });
    }
    Ok(())
}

/// Compares decisions with the accepted ones in a file, or accepts them.
fn compare(place: &Path, now: &str, accept: bool) -> Result<Compared> {
    if accept {
        crate::supply::cache::write(place, now.as_bytes())?;
        return Ok(Compared::Accepted);
    }
    match files::read_text(place, files::TEXT_BYTES_MAX) {
        Ok(accepted) if accepted == now => Ok(Compared::Same),
        Ok(accepted) => Ok(Compared::Different { accepted }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Compared::New),
        Err(e) => Err(Error::usage(format!(
            "failed to read {}: {e}",
            place.display()
        ))),
    }
}

/// The decisions in all scenarios of a file as text, and the rules of the host that
/// were broken.
async fn decisions(
    subject: &Subject,
    file: &Path,
    replicates: u32,
) -> Result<(String, Vec<String>)> {
    let mut subject = subject.clone();
    let scenarios = scenarios::read(file, &mut subject)?;
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

/// Writes the strategy's writes, its log and its end.
fn tell(text: &mut String, played: &Played) {
    for exchange in exchanges(&played.journal) {
        if let Some(line) = decision(&exchange) {
            let _ = writeln!(text, "  {}  {line}", since_start(exchange.at));
        }
    }
}

/// What a strategy wants or says; what becomes of it is the engine's doing.
fn decision(exchange: &Exchange<'_>) -> Option<String> {
    if let Some(question) = exchange.asks().filter(|q| q.by == Actor::Strategy) {
        return match (question.call, exchange.at_once()) {
            (Call::Log { level, .. }, _) if *level == Level::Debug => None,
            (Call::Log { .. }, _) => Some(question.call.to_string()),
            (call, None) if call.is_write() => Some(call.to_string()),
            (call, Some((_, reply))) if call.is_write() => Some(format!("{call}: {reply}")),
            _ => None,
        };
    }
    match exchange.event()? {
        // Accepted decisions have the word that a verdict is stored as.
        Event::Finished(outcome) => Some(format!("{}: {}", outcome.verdict, outcome.reason)),
        Event::Decided { by, .. } if *by == Decider::Strategy => None,
        Event::Decided {
            goal, by, reason, ..
        } => Some(decided(*goal, by, reason)),
        Event::Failed { .. } | Event::Diverged(_) => sentence(exchange),
        _ => None,
    }
}

/// `h:mm:ss` since the beginning.
fn since_start(at: Millis) -> String {
    let s = at.saturating_sub(START) / 1_000;
    format!("{}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

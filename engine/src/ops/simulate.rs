//! Plays a strategy in simulated worlds: many rollouts, on all cores, or one with its
//! whole story.

use std::path::{Path, PathBuf};

use super::advice::Input;
use super::app::App;
use super::error::{Context as _, Error, Result};
use super::pin::PinRequest;
use super::request::TargetRequest;
use super::{picture, plugin, scenarios};
use crate::plot;
use crate::simulate::fault::OutsideFault;
use crate::simulate::many::{self, Play};
use crate::simulate::replicate::{self, Fate, Played, Subject};
use crate::simulate::report::{self, Row, Summary, Tally};
use crate::simulate::scenario::Scenario;
use crate::spec::Spec;

/// Most violations that are told of each scenario.
const VIOLATIONS_TOLD: usize = 3;

/// What shall be simulated, and which files are written.
#[derive(Debug, Clone, Default)]
pub struct SimulateRequest {
    /// Which rollout file.
    pub target: TargetRequest,
    /// The strategy: a file, or its name in `plugins.toml`; that of the rollout file
    /// if none is named.
    pub plugin: Option<PathBuf>,
    /// Parameters of the strategy, `KEY=VALUE`.
    pub set: Vec<String>,
    /// Files of scenarios.
    pub scenarios: Vec<PathBuf>,
    /// Names of the scenarios that are played; all if there are none.
    pub only: Vec<String>,
    /// Rollouts per scenario, instead of what each one says.
    pub replicates: Option<u32>,
    /// Changes the luck of every scenario; 0 keeps it.
    pub seed: u64,
    /// What goes wrong around every rollout.
    pub faults: Vec<OutsideFault>,
    /// Threads; one per core if nothing is said.
    pub jobs: Option<u32>,
    /// Picture of what came of it.
    pub plot: Option<PathBuf>,
    /// `JUnit` report; of many rollouts only.
    pub junit: Option<PathBuf>,
    /// What may change about pinned plugins.
    pub pins: PinRequest,
}

/// What came of many rollouts of one scenario.
#[derive(Debug, Clone)]
pub struct Counted {
    /// The file of the scenario.
    pub file: PathBuf,
    /// Seed of its luck.
    pub seed: u64,
    /// The counts.
    pub row: Row,
    /// Every rollout, by its number.
    pub tallies: Vec<Tally>,
}

/// Something that must never happen and did.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Number of the rollout, from 0.
    pub number: u32,
    /// What happened.
    pub what: String,
}

impl Counted {
    /// The first rollouts in which something happened that must never happen.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let found = (0..).zip(&self.tallies).filter_map(|(number, tally)| {
            let what = tally.violations.first()?.clone();
            Some(Violation { number, what })
        });
        found.take(VIOLATIONS_TOLD).collect()
    }
}

/// What came of many rollouts.
#[derive(Debug, Clone)]
pub struct Simulated {
    /// What people call the strategy.
    pub shown: String,
    /// Each scenario, in the order of the files.
    pub scenarios: Vec<Counted>,
}

impl Simulated {
    /// The counts of each scenario.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.scenarios.iter().map(|s| s.row.clone()).collect()
    }

    /// The counts of all scenarios together.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(&self.rows())
    }
}

/// A rollout with its whole story.
#[derive(Debug, Clone)]
pub struct One {
    /// Name of its scenario.
    pub scenario: String,
    /// What became of it.
    pub played: Played,
}

/// Plays all rollouts. Blocks its thread, of a runtime with several. `tell` is called
/// now and then with how many are done, out of how many.
///
/// # Errors
/// Usage, if the request, the rollout file or a scenario is wrong, or if a file could
/// not be written; rejected, if the plugin may not run.
pub async fn many(
    app: &App,
    request: &SimulateRequest,
    tell: &(dyn Fn(usize, usize) + Sync),
) -> Result<Simulated> {
    let Loaded { shown, scenarios } = load(app, request).await?;
    let jobs = request
        .jobs
        .map_or_else(many::cores, |n| usize::try_from(n).unwrap_or(1));
    let plays: Vec<Play> = scenarios
        .iter()
        .map(|s| Play {
            scenario: &s.scenario,
            subject: &s.subject,
            replicates: request.replicates.unwrap_or(s.scenario.replicates),
        })
        .collect();
    let tallies = tokio::task::block_in_place(|| many::play_all(&plays, jobs, tell))?;
    let scenarios = scenarios.into_iter().zip(tallies);
    let scenarios = scenarios.map(|(s, tallies)| Counted {
        row: Row::of(&s.scenario, &tallies),
        seed: replicate::seed(&s.scenario, &s.subject),
        file: s.file,
        tallies,
    });
    Ok(Simulated {
        shown,
        scenarios: scenarios.collect(),
    })
}

/// Plays one rollout of the only scenario that is asked for; `number` counts from 0.
///
/// # Errors
/// As with [`many`]; and usage, if several scenarios are asked for.
pub async fn one(app: &App, request: &SimulateRequest, number: u32) -> Result<One> {
    let Loaded { scenarios, .. } = load(app, request).await?;
    let [s] = &scenarios[..] else {
        return Err(Error::usage("one replicate is of one scenario").name_it(Input::Scenario));
    };
    let name = s.scenario.name.clone();
    let played = replicate::play(&s.subject, &s.scenario, number)
        .await
        .with_context(|| format!("failed to play replicate {number} of {name}"))?;
    Ok(One {
        scenario: name,
        played,
    })
}

/// Writes the files that are asked for. `violations` is what must never happen and
/// did, in words, of each scenario.
///
/// # Errors
/// Usage, if a file cannot be written.
pub fn write(
    app: &App,
    request: &SimulateRequest,
    simulated: &Simulated,
    violations: &[Vec<String>],
) -> Result<()> {
    if let Some(path) = &request.junit {
        let report = report::junit(&simulated.shown, &simulated.rows(), violations);
        std::fs::write(path, report)
            .map_err(|e| Error::usage(format!("failed to write {}: {e}", path.display())))?;
    }
    if let Some(path) = &request.plot {
        draw(app, path, simulated)?;
    }
    Ok(())
}

fn draw(app: &App, path: &Path, simulated: &Simulated) -> Result<()> {
    let scenarios: Vec<plot::Replicates> = simulated
        .scenarios
        .iter()
        .map(|s| plot::Replicates {
            name: s.row.name.clone(),
            bad_requests: s.tallies.iter().map(|t| t.bad_requests).collect(),
            minutes_to_rollback: s
                .tallies
                .iter()
                .filter(|t| t.fate == Fate::RolledBack)
                .filter_map(|t| t.minutes)
                .collect(),
            replicates: u32::try_from(s.tallies.len()).unwrap_or(u32::MAX),
        })
        .collect();
    let title = format!("{} in {} scenarios", simulated.shown, scenarios.len());
    let bytes = plot::distributions(&title, &scenarios, picture::format_of(path)?)?;
    picture::save(app, path, &bytes)
}

/// Everything that is played.
struct Loaded {
    shown: String,
    scenarios: Vec<Staged>,
}

/// A scenario, and who plays in it.
struct Staged {
    file: PathBuf,
    scenario: Scenario,
    /// The strategy, with what the file says about all its scenarios.
    subject: Subject,
}

/// Reads and checks all that is needed: before the work, not after it.
async fn load(app: &App, request: &SimulateRequest) -> Result<Loaded> {
    can_be_written(request)?;
    let (subject, shown) = subject(app, request).await?;
    let scenarios = stage(request, &subject)?;
    let unknown = scenarios.iter().find_map(|s| {
        let Subject {
            queries, values, ..
        } = &s.subject;
        let query = queries.iter().find(|q| !values.contains_key(&q.name))?;
        Some((s.file.display(), &query.name))
    });
    if let Some((file, query)) = unknown {
        app.note(format!(
            "{file} has no values for the query {query} of the rollout file (see `queries` in the guide), so strategies see none"
        ));
    }
    Ok(Loaded { shown, scenarios })
}

fn can_be_written(request: &SimulateRequest) -> Result<()> {
    if let Some(path) = &request.plot {
        picture::format_of(path)?;
    }
    for path in [&request.plot, &request.junit].into_iter().flatten() {
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
        if folder.is_some_and(|f| !f.is_dir()) {
            return Err(Error::usage(format!(
                "{} cannot be written: there is no such folder",
                path.display()
            )));
        }
    }
    Ok(())
}

/// The strategy with its parameters and guardrails, and what people call it.
async fn subject(app: &App, request: &SimulateRequest) -> Result<(Subject, String)> {
    // A plugin by name stands for itself; without one the rollout file counts.
    let file = match &request.plugin {
        Some(_) if request.target.file.is_none() => None,
        _ => request.target.described()?,
    };
    let spec = file.unwrap_or_else(|| Spec::demo(<_>::default(), 0, None, None));
    let named = request.plugin.as_deref();
    let purpose = plugin::Purpose::Look;
    let loaded = plugin::load(app, &request.pins, named, &spec, purpose).await?;
    let strategy = loaded.plugin;
    let description = strategy.describe().await?;
    let file = &spec.strategy.parameters;
    let parameters = plugin::parameters(&request.set, file, &strategy, &description).await?;
    let subject = Subject {
        guardrails: spec.guardrails,
        caps: loaded.policy.caps,
        queries: spec.queries,
        faults: request.faults.clone(),
        seed: request.seed,
        ..Subject::new(strategy, &description.name, parameters.into())
    };
    Ok((subject, loaded.shown))
}

/// The scenarios that are asked for.
fn stage(request: &SimulateRequest, subject: &Subject) -> Result<Vec<Staged>> {
    let mut staged = vec![];
    for file in &request.scenarios {
        let mut subject = subject.clone();
        let scenarios = scenarios::read(file, &mut subject)?;
        staged.extend(scenarios.into_iter().map(|scenario| Staged {
            file: file.clone(),
            scenario,
            subject: subject.clone(),
        }));
    }
    let names: Vec<&str> = staged.iter().map(|s| s.scenario.name.as_str()).collect();
    if let Some(unknown) = request.only.iter().find(|o| !names.contains(&o.as_str())) {
        return Err(Error::usage(format!(
            "there is no scenario {unknown:?}; there are {}",
            names.join(", ")
        )));
    }
    if staged.is_empty() {
        return Err(Error::usage("there is no scenario in these files"));
    }
    if !request.only.is_empty() {
        staged.retain(|s| request.only.contains(&s.scenario.name));
    }
    Ok(staged)
}

//! Checks of a plugin that need no target. Two runs of it must be the same, call by
//! call and instruction by instruction.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Map;

use super::{Loaded, look_at, parameters};
use crate::journal::{Actor, Call, Entry, exchanges};
use crate::ops::app::App;
use crate::ops::pin::PinRequest;
use crate::ops::{Error, Input, Kind, Result};
use crate::rollout::session::Calls;
use crate::rollout::{Ran, Run, Strategy};
use crate::simulate::replicate::{self, Fate, Played, Subject};
use crate::simulate::scenario::{Corpus, Scenario, Values};
use crate::strategy::{Description, Plugin};

/// A world with a good candidate and one with a bad candidate, half an hour each.
const WORLDS: &str = include_str!("check.json");
/// When the second run is killed, so that a replay has to rebuild it.
const DEATHS: [&str; 4] = [
    "engine-killed@90s",
    "engine-killed@5m",
    "engine-killed@11m",
    "engine-killed@23m",
];

/// The plugin to check, with its parameters.
#[derive(Debug, Clone)]
pub struct CheckRequest {
    /// A file, or a name of `plugins.toml`.
    pub plugin: PathBuf,
    /// Parameters, `KEY=VALUE`.
    pub set: Vec<String>,
    /// Answers of queries for both arms, `NAME=NUMBER`.
    pub queries: Vec<String>,
    /// What may change about pinned plugins.
    pub pins: PinRequest,
}

/// The result of a check.
pub struct Checked {
    /// The plugin.
    pub plugin: Arc<Plugin>,
    /// Its name for people.
    pub shown: String,
    /// What it says of itself.
    pub description: Description,
    /// The first run in each world.
    pub worlds: Vec<World>,
    /// How the second run differed, in words; `None` if it did not.
    pub difference: Option<String>,
}

/// The first run in one world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Name of the world.
    pub name: String,
    /// Instructions before each call and after the last one.
    pub fuel: Vec<u64>,
    /// How it ended, in words.
    pub reason: String,
    /// Whether the strategy failed, so that nothing is known about its decisions.
    pub failed: bool,
}

impl Checked {
    /// The world in which the plugin failed, if there is one.
    #[must_use]
    pub fn failed(&self) -> Option<&World> {
        self.worlds.iter().find(|world| world.failed)
    }

    /// Whether the plugin passed.
    ///
    /// # Errors
    /// It does not repeat itself, or it failed in a world.
    pub fn verdict(&self) -> Result<()> {
        let shown = &self.shown;
        let rejected = |why| Error::new(Kind::Rejected, why);
        match (&self.difference, self.failed()) {
            (None, None) => Ok(()),
            (None, Some(world)) => Err(rejected(format!(
                "{shown} fails in the {} world, so nothing is known about its decisions: {}",
                world.name, world.reason
            ))
            .give(Input::Parameter, "gives it a parameter")
            .give(Input::Query, "gives a query of it an answer")),
            (Some(difference), _) => Err(rejected(format!(
                "{shown} does not repeat itself: {difference}"
            ))
            .hint(
                "everything that it learns must come from its calls: no clock, randomness, threads or state of its own between two runs",
            )),
        }
    }
}

/// Runs a plugin twice in two small simulated worlds, the second time with crashes, and
/// compares all calls and the instructions between them. [`Checked::verdict`] says
/// whether it passed.
///
/// # Errors
/// The plugin may not run, a parameter is wrong, or a world cannot be played.
pub async fn check(app: &App, request: CheckRequest) -> Result<Checked> {
    let values = values(&request.queries)?;
    let Loaded {
        plugin,
        shown,
        policy,
        ..
    } = look_at(app, &request.pins, &request.plugin).await?;
    let description = plugin.describe().await?;
    let given = parameters(&request.set, &Map::new(), &plugin, &description).await?;
    let subject = |strategy: Arc<Meter>| Subject {
        caps: policy.caps,
        values: values.clone(),
        ..Subject::new(strategy, "checked", given.clone().into())
    };
    let mut worlds = vec![];
    let mut differs = None;
    for scenario in worlds_of_our_own()? {
        let first = run(&plugin, &subject, &scenario, &[]).await?;
        let second = run(&plugin, &subject, &scenario, &DEATHS).await?;
        let name = scenario.name;
        differs = differs.or_else(|| {
            let difference = difference(&first, &second)?;
            Some(format!("in the {name} world {difference}"))
        });
        worlds.push(World {
            name,
            fuel: first.fuel,
            failed: first.played.fate == Fate::Failed,
            reason: first.played.reason,
        });
    }
    Ok(Checked {
        plugin,
        shown,
        description,
        worlds,
        difference: differs,
    })
}

/// `accuracy=0.93`, for both arms at all times.
fn values(given: &[String]) -> Result<BTreeMap<String, Values>> {
    let value = |text: &String| {
        let (name, number) = text.split_once('=')?;
        let number: f64 = number.parse().ok()?;
        let value = Values {
            stable: number,
            canary: number,
            sigma: 0.0,
        };
        (!name.is_empty() && number.is_finite()).then(|| (name.to_owned(), value))
    };
    let all = given.iter().map(|text| {
        value(text).ok_or_else(|| {
            Error::argument(
                Input::Query,
                format!("{text} is not NAME=NUMBER, such as accuracy=0.93"),
            )
        })
    });
    all.collect()
}

fn worlds_of_our_own() -> Result<Vec<Scenario>> {
    let corpus = Corpus::parse(WORLDS)
        .map_err(|p| Error::internal(format!("the built-in worlds cannot be read: {p:?}")))?;
    Ok(corpus.scenarios)
}

/// One rollout, and the fuel of each of its segments.
struct Metered {
    played: Played,
    fuel: Vec<u64>,
    /// How a run after a crash differed from the one before it.
    strayed: Option<usize>,
}

async fn run(
    plugin: &Arc<Plugin>,
    subject: &impl Fn(Arc<Meter>) -> Subject,
    scenario: &Scenario,
    faults: &[&str],
) -> Result<Metered> {
    let meter = Arc::new(Meter {
        plugin: plugin.clone(),
        seen: Mutex::default(),
    });
    let mut subject = subject(meter.clone());
    for fault in faults {
        subject.faults.push(
            fault
                .parse()
                .map_err(|e| Error::internal(format!("{fault}: {e}")))?,
        );
    }
    let played = replicate::play(&subject, scenario, 0).await?;
    let seen = std::mem::take(&mut *meter.seen());
    Ok(Metered {
        played,
        fuel: seen.fuel,
        strayed: seen.strayed,
    })
}

/// The first difference between two runs, if there is one.
fn difference(a: &Metered, b: &Metered) -> Option<String> {
    let (calls_a, calls_b) = (calls(&a.played.journal), calls(&b.played.journal));
    let place = calls_a.iter().zip(&calls_b).position(|(x, y)| x != y);
    if let Some(place) = place {
        return Some(format!(
            "call {place} was {:?} the first time and {:?} the second",
            calls_a[place].to_string(),
            calls_b[place].to_string()
        ));
    }
    if calls_a.len() != calls_b.len() {
        return Some(format!(
            "it made {} calls the first time and {} the second; {}",
            calls_a.len(),
            calls_b.len(),
            b.played.reason
        ));
    }
    let place = b
        .strayed
        .or_else(|| a.fuel.iter().zip(&b.fuel).position(|(x, y)| x != y));
    place.map(|place| format!("it took other instructions before call {place}"))
}

fn calls(journal: &[Entry]) -> Vec<&Call> {
    exchanges(journal)
        .filter_map(|exchange| exchange.asks().copied())
        .filter(|question| question.by == Actor::Strategy)
        .map(|question| question.call)
        .collect()
}

/// A plugin whose fuel is recorded.
struct Meter {
    plugin: Arc<Plugin>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    fuel: Vec<u64>,
    strayed: Option<usize>,
}

impl Meter {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Strategy for Meter {
    async fn run(&self, calls: Arc<dyn Calls>, run: Run) -> Ran {
        let (ran, fuel) = self.plugin.run_metered(calls, &run).await;
        let mut seen = self.seen();
        let place = seen.fuel.iter().zip(&fuel).position(|(x, y)| x != y);
        seen.strayed = seen.strayed.or(place);
        if fuel.len() > seen.fuel.len() {
            seen.fuel = fuel;
        }
        ran
    }
}

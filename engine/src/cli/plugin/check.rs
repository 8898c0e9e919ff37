//! `engine plugin check`: everything that can be said of a plugin without a
//! target. Two runs of it must be the same, call by call and instruction by
//! instruction.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use clap::Args;
use serde_json::{Map, json};

use super::inspect::{by_interface, moves_traffic};
use super::{Global, PinArgs};
use crate::cli::exit::Exit;
use crate::journal::{Actor, Call, Entry, Event};
use crate::ops::app::App;
use crate::ops::plugin::{Loaded, look_at, parameters};
use crate::ops::{Error, Kind};
use crate::rollout::session::Calls;
use crate::rollout::{Ran, Run, Strategy};
use crate::simulate::replicate::{self, Fate, Played, Subject};
use crate::simulate::scenario::{Corpus, Scenario, Values};
use crate::strategy::Plugin;

/// One good and one bad candidate, half an hour of each.
const WORLDS: &str = include_str!("check.json");
/// Where the second run loses its memory, so that replay has to rebuild it.
const DEATHS: [&str; 4] = [
    "engine-killed@90s",
    "engine-killed@5m",
    "engine-killed@11m",
    "engine-killed@23m",
];

/// Check that a plugin fits the contract and repeats itself
///
/// Runs it twice in two small simulated worlds, the second time with crashes,
/// and compares all calls and the instructions between them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plugin check my-gate.wasm
  engine plugin check my-gate.wasm --set steps=10,50,100    if it needs parameters
  engine plugin check my-gate.wasm --query accuracy=0.93    if it asks for queries")]
pub(super) struct CheckArgs {
    /// A file, or a name of plugins.toml
    plugin: PathBuf,
    /// A parameter of the strategy
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What a query of the rollout file answers in these worlds, for both arms
    #[arg(long = "query", value_name = "NAME=NUMBER")]
    queries: Vec<String>,
    #[command(flatten)]
    pins: PinArgs,
}

pub(super) async fn check(app: &App, global: &Global, args: CheckArgs) -> crate::ops::Result<Exit> {
    let values = values(&args.queries)?;
    let Loaded {
        plugin,
        shown,
        policy,
        ..
    } = look_at(app, &args.pins.into(), &args.plugin).await?;
    let description = plugin.describe().await?;
    let given = parameters(&args.set, &Map::new(), &plugin, &description).await?;
    let subject = |strategy: Arc<Meter>| Subject {
        caps: policy.caps,
        values: values.clone(),
        ..Subject::new(strategy, "checked", given.clone().into())
    };
    let mut worlds = vec![];
    for scenario in worlds_of_our_own()? {
        let runs = [
            run(&plugin, &subject, &scenario, &[]).await?,
            run(&plugin, &subject, &scenario, &DEATHS).await?,
        ];
        worlds.push((scenario.name, runs));
    }
    let failed = worlds.iter().find_map(|(world, [run, _])| {
        (run.played.fate == Fate::Failed).then(|| (world.clone(), run.played.reason.clone()))
    });
    let difference = worlds
        .iter()
        .find_map(|(world, [a, b])| difference(a, b).map(|d| format!("in the {world} world {d}")));
    if global.json {
        let worlds: Vec<_> = worlds
            .iter()
            .map(|(name, [run, _])| {
                json!({"world": name, "calls": run.fuel.len(), "fuel": run.fuel.iter().sum::<u64>(), "reason": run.played.reason})
            })
            .collect();
        let value = json!({
            "plugin": shown, "name": description.name, "version": description.version,
            "world": plugin.world, "sha256": plugin.sha256, "size": plugin.size,
            "permissions": plugin.permissions, "stubbed": plugin.stubbed,
            "movesTraffic": moves_traffic(&plugin), "runs": worlds,
            "deterministic": difference.is_none(), "difference": difference,
            "failed": failed.as_ref().map(|(_, why)| why),
        });
        out!("{value}");
    } else {
        print(
            &shown,
            &plugin,
            &description.parameters_schema,
            &worlds,
            difference.is_none(),
        );
    }
    match (difference, failed) {
        (None, None) => Ok(Exit::Done),
        (None, Some((world, why))) => Err(Error::new(
            Kind::Rejected,
            format!(
                "{shown} fails in the {world} world, so nothing is known of its judgement: {why}\n\nhint: --set gives it parameters, --query NAME=NUMBER what its queries answer"
            ),
        )),
        (Some(difference), _) => Err(Error::new(
            Kind::Rejected,
            format!(
                "{shown} does not repeat itself: {difference}\n\nhint: everything that it learns must come from its calls: no clock, randomness, threads or state of its own between two runs"
            ),
        )),
    }
}

fn print(
    shown: &str,
    plugin: &Plugin,
    schema: &str,
    worlds: &[(String, [Metered; 2])],
    deterministic: bool,
) {
    out!("{shown}");
    out!("  contract     {}", plugin.world);
    out!("  size         {} bytes", plugin.size);
    out!(
        "  schema       {} bytes of JSON Schema, and it accepts the parameters",
        schema.len()
    );
    for (interface, functions) in by_interface(&plugin.permissions) {
        out!("  may call     {interface}: {}", functions.join(", "));
    }
    if !moves_traffic(plugin) {
        out!("  may call     nothing that moves traffic");
    }
    for name in &plugin.stubbed {
        out!("  stub         {name}");
    }
    for (world, [run, _]) in worlds {
        let fuel: u64 = run.fuel.iter().sum();
        let most = run.fuel.iter().max().copied().unwrap_or(0);
        out!(
            "  {world:<12} {} calls, {fuel} instructions, at most {most} between two calls; {}",
            run.fuel.len(),
            run.played.reason
        );
    }
    if deterministic {
        out!("  repeats      yes: the same calls and instructions, also after crashes");
    }
}

/// `accuracy=0.93`, for both arms at all times.
fn values(given: &[String]) -> crate::ops::Result<BTreeMap<String, Values>> {
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
            Error::usage(format!(
                "--query {text} is not NAME=NUMBER, such as accuracy=0.93"
            ))
        })
    });
    all.collect()
}

fn worlds_of_our_own() -> crate::ops::Result<Vec<Scenario>> {
    let corpus = Corpus::parse(WORLDS)
        .map_err(|p| Error::internal(format!("the built-in worlds: {p:?}")))?;
    Ok(corpus.scenarios)
}

/// One rollout and the fuel of each of its segments.
struct Metered {
    played: Played,
    fuel: Vec<u64>,
    /// A run after a crash that took another way than the one before it.
    strayed: Option<usize>,
}

async fn run(
    plugin: &Arc<Plugin>,
    subject: &impl Fn(Arc<Meter>) -> Subject,
    scenario: &Scenario,
    faults: &[&str],
) -> crate::ops::Result<Metered> {
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
    place.map(|place| format!("it computed otherwise before call {place}"))
}

fn calls(journal: &[Entry]) -> Vec<&Call> {
    let by_strategy = journal.iter().filter_map(|e| match &e.event {
        Event::Asked { by, call, .. } | Event::Exchanged { by, call, .. }
            if *by == Actor::Strategy =>
        {
            Some(call)
        }
        _ => None,
    });
    by_strategy.collect()
}

/// A plugin whose fuel is written down.
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

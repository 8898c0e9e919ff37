//! Scenario files, format `simulate/v1`: a service, its traffic, what is wrong
//! with the candidate, and what else happens.
//!
//! A file is checked in four steps (JSON, schema, types, meaning); each step
//! reports all that it finds before the next one starts. The published schema
//! does not close its inner objects; here unknown keys are refused everywhere.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

/// A duration or a moment, ms.
pub type Millis = u64;

/// The published schema of the format.
const SCHEMA: &str = include_str!("scenario.schema.json");

const TASKS_MAX: u32 = 10_000;
const ZONES_MAX: u32 = 100;
const CLUSTER_MEAN_MAX: f64 = 1_000.0;
/// Of a logarithm.
const SD_MAX: f64 = 10.0;
const INTERVALS_MAX: u64 = 100_000;
/// Low enough to add up the intervals of hours in 32 bits.
const REQUESTS_PER_INTERVAL_MAX: f64 = 2e7;
/// A year.
const DURATION_MAX: Millis = 365 * 24 * 3_600_000;

const SHARE: RangeInclusive<f64> = 0.0..=1.0;
const PERCENT: RangeInclusive<f64> = 0.0..=100.0;
const NOT_NEGATIVE: RangeInclusive<f64> = 0.0..=f64::INFINITY;

/// The scenarios of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Corpus {
    /// In the order of the file.
    pub scenarios: Vec<Scenario>,
    /// Names of faults to inject in every scenario; empty if the file has none.
    pub faults: Vec<String>,
}

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}{}: {message}", .scenario.as_ref().map(|s| format!(" ({s})")).unwrap_or_default())]
pub struct Problem {
    /// A JSON pointer such as `/scenarios/3/canary/effect/errorAdd`; empty for
    /// the file as a whole.
    pub path: String,
    /// The name of the scenario, if it has one.
    pub scenario: Option<String>,
    /// Reads on from the path: "is 2; it must be from 0 to 1".
    pub message: String,
}

/// One service and one rollout.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// Unique in the file.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub summary: String,
    /// Whether the candidate should be promoted.
    pub class: Class,
    /// Decides everything that is random; a negative one wraps around.
    #[serde(deserialize_with = "seed")]
    pub seed: u64,
    /// How often to repeat it, each time with other luck.
    #[serde(default = "replicates")]
    pub replicates: u32,
    /// Times of the simulation.
    #[serde(default)]
    pub clock: Clock,
    /// What the service is asked.
    pub traffic: Traffic,
    /// The version that runs.
    pub stable: Stable,
    /// The version to roll out.
    #[serde(default)]
    pub canary: Canary,
    /// What varies without a cause.
    #[serde(default)]
    pub noise: Noise,
    /// What happens during the rollout. Read apart, each with its own path.
    #[serde(skip)]
    pub events: Vec<Event>,
    /// What the author expects of a strategy.
    #[serde(default)]
    pub expect: Expect,
}

/// Whether a candidate should be promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// It should: a rollback is false.
    Good,
    /// It should not: a promotion is a miss.
    Bad,
}

/// Times of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Clock {
    /// The length of one interval of metrics. All noise is per interval.
    #[serde(deserialize_with = "duration")]
    pub interval: Millis,
    /// How long after its end an interval can be read.
    #[serde(deserialize_with = "duration")]
    pub metric_delay: Millis,
    /// When the simulation gives up.
    #[serde(deserialize_with = "duration")]
    pub horizon: Millis,
    /// How much is known of the stable version before the start.
    #[serde(deserialize_with = "duration")]
    pub history: Millis,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            interval: 60_000,
            metric_delay: 60_000,
            horizon: 200 * 60_000,
            history: 120 * 60_000,
        }
    }
}

/// What the service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traffic {
    /// Requests per second, over the day's mean.
    pub rps: f64,
    /// How they change over the day; not at all if absent.
    pub diurnal: Option<Diurnal>,
}

/// A sine on top of the mean traffic.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Diurnal {
    /// Of the mean, 0-1.
    pub amplitude: f64,
    /// From one top to the next.
    #[serde(deserialize_with = "duration")]
    pub period: Millis,
    /// Where in the period the rollout starts, as a fraction of it; 0 is the
    /// mean before the top.
    pub phase: f64,
}

impl Default for Diurnal {
    fn default() -> Self {
        Self {
            amplitude: 0.0,
            period: 24 * 3_600_000,
            phase: 0.0,
        }
    }
}

/// The version that runs.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Stable {
    /// How many tasks serve it.
    pub tasks: u32,
    /// Over how many zones they are spread.
    pub zones: u32,
    /// Share of requests that fail, 0-1.
    pub error_rate: f64,
    /// How long a request takes.
    pub latency: Latency,
}

impl Default for Stable {
    fn default() -> Self {
        Self {
            tasks: 20,
            zones: 3,
            error_rate: 0.001,
            latency: Latency::default(),
        }
    }
}

/// A log-normal latency.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Latency {
    /// Its median, ms.
    pub median_ms: f64,
    /// The standard deviation of its logarithm.
    pub sigma: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            median_ms: 60.0,
            sigma: 0.6,
        }
    }
}

/// The version to roll out.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Canary {
    /// It has at least so many tasks, however small its share.
    pub min_tasks: u32,
    /// How it differs from the stable version.
    pub effect: Effect,
    /// How it starts; warm if absent.
    pub warmup: Option<Warmup>,
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            min_tasks: 1,
            effect: Effect::default(),
            warmup: None,
        }
    }
}

/// How the candidate differs from the stable version.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Effect {
    /// Share of requests that fail on top, 0-1.
    pub error_add: f64,
    /// Times as many requests fail.
    pub error_mult: f64,
    /// Every request takes so many times as long.
    pub latency_mult: f64,
    /// Share of requests that are slower still, 0-1.
    pub tail_fraction: f64,
    /// Those take so many times as long.
    pub tail_mult: f64,
    /// When it begins, from the start of the rollout.
    #[serde(deserialize_with = "duration")]
    pub onset: Millis,
    /// How long it grows from nothing; 0 is at once.
    #[serde(deserialize_with = "duration")]
    pub ramp: Millis,
    /// How it depends on the candidate's share; not at all if absent.
    pub load: Option<Load>,
}

impl Default for Effect {
    fn default() -> Self {
        Self {
            error_add: 0.0,
            error_mult: 1.0,
            latency_mult: 1.0,
            tail_fraction: 0.0,
            tail_mult: 1.0,
            onset: 0,
            ramp: 0,
            load: None,
        }
    }
}

/// An effect that grows with the candidate's share.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Load {
    /// No effect up to this share, 0-1.
    pub from: f64,
    /// The full effect from this share, 0-1.
    pub to: f64,
}

impl Default for Load {
    fn default() -> Self {
        Self { from: 0.2, to: 0.5 }
    }
}

/// New tasks are worse for a while after each rise of the share.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Warmup {
    /// For how long.
    #[serde(deserialize_with = "duration")]
    pub duration: Millis,
    /// Requests take so many times as long.
    #[serde(default = "one")]
    pub latency_mult: f64,
    /// Share of requests that fail on top, 0-1.
    #[serde(default)]
    pub error_add: f64,
}

/// What varies without a cause.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Noise {
    /// Errors come in clusters of this mean size, 1-1000.
    pub error_cluster_mean: f64,
    /// What both arms share.
    pub common: CommonNoise,
    /// What each arm, and each zone of the history, has for itself.
    pub arm: ArmNoise,
    /// How tasks differ, for as long as they live.
    pub task: TaskNoise,
    /// Tasks that halt for an interval; never if absent.
    pub stall: Option<Stall>,
}

impl Default for Noise {
    fn default() -> Self {
        Self {
            error_cluster_mean: 1.0,
            common: CommonNoise::default(),
            arm: ArmNoise::default(),
            task: TaskNoise::default(),
            stall: None,
        }
    }
}

/// Noise that both arms share.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CommonNoise {
    /// Standard deviation of the logarithm of the error rate.
    pub error_sd: f64,
    /// Standard deviation of the logarithm of the latency.
    pub latency_sd: f64,
    /// Correlation of both from one interval to the next.
    pub ar: f64,
}

impl Default for CommonNoise {
    fn default() -> Self {
        Self {
            error_sd: 0.2,
            latency_sd: 0.05,
            ar: 0.8,
        }
    }
}

/// Noise that each arm has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ArmNoise {
    /// Standard deviation of the logarithm of the error rate.
    pub error_sd: f64,
    /// Correlation of the error rate from one interval to the next.
    pub error_ar: f64,
    /// Standard deviation of the logarithm of the latency.
    pub latency_sd: f64,
    /// Correlation of the latency from one interval to the next.
    pub latency_ar: f64,
}

impl Default for ArmNoise {
    fn default() -> Self {
        Self {
            error_sd: 0.0,
            error_ar: 0.7,
            latency_sd: 0.0,
            latency_ar: 0.7,
        }
    }
}

/// How tasks differ, for as long as they live.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TaskNoise {
    /// Standard deviation of the logarithm of the error rate.
    pub error_sd: f64,
    /// Standard deviation of the logarithm of the latency.
    pub latency_sd: f64,
}

/// Tasks that halt for an interval, as in garbage collection.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stall {
    /// Of each task in each interval, 0-1.
    pub probability: f64,
    /// Share of the task's requests that are slower, 0-1.
    #[serde(default = "one")]
    pub fraction: f64,
    /// Those take so many times as long.
    #[serde(default = "five")]
    pub mult: f64,
}

/// What happens during the rollout. It holds in the intervals that begin in its
/// window.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Event {
    /// Something that both arms need fails.
    SharedOutage {
        /// From the start of the rollout.
        #[serde(deserialize_with = "duration")]
        at: Millis,
        /// For how long.
        #[serde(deserialize_with = "duration")]
        duration: Millis,
        /// Share of requests that fail on top, 0-1.
        #[serde(default = "outage_error_add")]
        error_add: f64,
        /// Requests take so many times as long.
        #[serde(default = "outage_latency_mult")]
        latency_mult: f64,
    },
    /// Something fails that only the candidate met, though not by its fault.
    CanaryBlip {
        /// From the start of the rollout.
        #[serde(deserialize_with = "duration")]
        at: Millis,
        /// For how long.
        #[serde(deserialize_with = "duration")]
        duration: Millis,
        /// Share of requests that fail on top, 0-1.
        #[serde(default = "blip_error_add")]
        error_add: f64,
    },
    /// The metrics of both arms are missing.
    MetricGap {
        /// From the start of the rollout.
        #[serde(deserialize_with = "duration")]
        at: Millis,
        /// For how long.
        #[serde(deserialize_with = "duration")]
        duration: Millis,
    },
    /// The metrics of both arms are missing in some of the intervals.
    RandomGap {
        /// From the start of the rollout, or from 0.
        #[serde(default, deserialize_with = "duration")]
        at: Millis,
        /// For how long; to the end if absent.
        #[serde(default = "forever", deserialize_with = "duration")]
        duration: Millis,
        /// In each interval, 0-1.
        probability: f64,
    },
}

impl Event {
    /// Whether it holds in the interval that begins at `moment`.
    #[must_use]
    pub fn holds(&self, moment: Millis) -> bool {
        let (Self::SharedOutage { at, duration, .. }
        | Self::CanaryBlip { at, duration, .. }
        | Self::MetricGap { at, duration }
        | Self::RandomGap { at, duration, .. }) = *self;
        (at..at.saturating_add(duration)).contains(&moment)
    }
}

/// What the author expects of a strategy over all replicates.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Expect {
    /// Rollbacks of a good candidate, percent of the replicates.
    pub max_false_rollback_pct: Option<f64>,
    /// Median time to full weight, minutes.
    pub max_median_promote_minutes: Option<f64>,
    /// Rollbacks of a bad candidate, percent of the replicates.
    pub min_detect_pct: Option<f64>,
    /// Median of the bad requests served.
    pub max_median_bad_requests: Option<f64>,
    /// Mean of the bad requests served.
    pub max_mean_bad_requests: Option<f64>,
    /// Median time to the rollback of a bad candidate, minutes.
    pub max_median_rollback_minutes: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    scenarios: Vec<Value>,
    #[serde(default)]
    faults: Vec<String>,
}

impl Corpus {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// All problems of the first step that finds any, see the module.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let json: Value = serde_json::from_str(text).map_err(|error| {
            // The library's message ends with the line and the column.
            vec![Problem {
                path: String::new(),
                scenario: None,
                message: format!("is not JSON: {error}"),
            }]
        })?;
        none(against_schema(&json))?;
        let corpus = typed(json)?;
        none(corpus.meaning())?;
        Ok(corpus)
    }

    fn meaning(&self) -> Vec<Problem> {
        let mut problems = vec![];
        let mut names = BTreeSet::new();
        for (index, scenario) in self.scenarios.iter().enumerate() {
            let mut check = Check {
                path: format!("/scenarios/{index}"),
                scenario: &scenario.name,
                problems: &mut problems,
            };
            if !names.insert(&scenario.name) {
                check.add("name", "is the name of an earlier scenario".to_owned());
            }
            scenario.check(&mut check);
        }
        problems
    }
}

fn none(problems: Vec<Problem>) -> Result<(), Vec<Problem>> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

fn against_schema(json: &Value) -> Vec<Problem> {
    let mut schema: Value = serde_json::from_str(SCHEMA).expect("a constant");
    close(&mut schema["$defs"]);
    let validator = jsonschema::validator_for(&schema).expect("a constant");
    validator
        .iter_errors(json)
        .flat_map(|error| explain(&schema, json, &error))
        .collect()
}

/// Has every object of the schema refuse the keys that it does not describe.
fn close(schema: &mut Value) {
    if let Value::Object(object) = schema {
        if object.get("properties").is_some_and(Value::is_object) {
            object.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        object.values_mut().for_each(close);
    }
}

fn explain(schema: &Value, json: &Value, error: &ValidationError<'_>) -> Vec<Problem> {
    let path = error.instance_path().as_str();
    let problem = |key: &str, message: String| Problem {
        path: if key.is_empty() {
            path.to_owned()
        } else {
            format!("{path}/{key}")
        },
        scenario: scenario_at(json, path),
        message,
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let at = error.schema_path().as_str();
            let object = at.strip_suffix("/additionalProperties").unwrap_or(at);
            let mut known: Vec<&str> = schema
                .pointer(&format!("{object}/properties"))
                .and_then(Value::as_object)
                .map(|properties| properties.keys().map(String::as_str).collect())
                .unwrap_or_default();
            known.sort_unstable();
            let message = format!("is unknown; known are {}", known.join(", "));
            unexpected
                .iter()
                .map(|key| problem(key, message.clone()))
                .collect()
        }
        ValidationErrorKind::Required { property } => {
            vec![problem(
                property.as_str().unwrap_or_default(),
                "is missing".to_owned(),
            )]
        }
        ValidationErrorKind::Pattern { pattern } if pattern.ends_with("(s|m|h)$") => {
            let message = format!(
                "is {}; it must be a duration such as \"90s\", \"10m\" or \"2h\"",
                error.instance()
            );
            vec![problem("", message)]
        }
        _ => vec![problem("", error.to_string())],
    }
}

/// The name of the scenario in which `path` is.
fn scenario_at(json: &Value, path: &str) -> Option<String> {
    let index = path.strip_prefix("/scenarios/")?.split('/').next()?;
    let name = json.pointer(&format!("/scenarios/{index}/name"))?;
    name.as_str().map(ToOwned::to_owned)
}

fn typed(json: Value) -> Result<Corpus, Vec<Problem>> {
    let mut problems = vec![];
    let Some(file) = read::<File>(&json, "", json.clone(), &mut problems) else {
        return Err(problems);
    };
    let mut scenarios = vec![];
    for (index, mut value) in file.scenarios.into_iter().enumerate() {
        let path = format!("/scenarios/{index}");
        let events = value
            .as_object_mut()
            .and_then(|object| object.remove("events"));
        let events: Vec<Event> = events
            .as_ref()
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
            .filter_map(|(event, value)| {
                let path = format!("{path}/events/{event}");
                read(&json, &path, value.clone(), &mut problems)
            })
            .collect();
        if let Some(scenario) = read::<Scenario>(&json, &path, value, &mut problems) {
            scenarios.push(Scenario { events, ..scenario });
        }
    }
    none(problems)?;
    Ok(Corpus {
        scenarios,
        faults: file.faults,
    })
}

fn read<T: DeserializeOwned>(
    json: &Value,
    path: &str,
    value: Value,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    match serde_json::from_value(value) {
        Ok(value) => Some(value),
        Err(error) => {
            problems.push(Problem {
                path: path.to_owned(),
                scenario: scenario_at(json, path),
                message: error.to_string(),
            });
            None
        }
    }
}

/// Collects what is wrong with one scenario.
struct Check<'a> {
    path: String,
    scenario: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn add(&mut self, key: &str, message: String) {
        self.problems.push(Problem {
            path: format!("{}/{key}", self.path),
            scenario: Some(self.scenario.to_owned()),
            message,
        });
    }

    fn within(&mut self, key: &str, value: f64, range: RangeInclusive<f64>) {
        if !range.contains(&value) {
            let message = if range.end().is_finite() {
                format!(
                    "is {value}; it must be from {} to {}",
                    range.start(),
                    range.end()
                )
            } else {
                format!("is {value}; it must be at least {}", range.start())
            };
            self.add(key, message);
        }
    }

    fn positive(&mut self, key: &str, value: f64) {
        if value <= 0.0 {
            self.add(key, format!("is {value}; it must be more than 0"));
        }
    }

    fn count(&mut self, key: &str, value: u32, most: u32) {
        if !(1..=most).contains(&value) {
            self.add(key, format!("is {value}; it must be from 1 to {most}"));
        }
    }

    fn correlation(&mut self, key: &str, value: f64) {
        if value <= -1.0 || value >= 1.0 {
            self.add(key, format!("is {value}; it must be between -1 and 1"));
        }
    }

    /// A duration that is not 0.
    fn lasting(&mut self, key: &str, value: Millis) {
        if value == 0 {
            self.add(key, "is 0; it must be more".to_owned());
        }
    }
}

impl Scenario {
    fn check(&self, check: &mut Check<'_>) {
        if self.replicates == 0 {
            check.add("replicates", "is 0; it must be at least 1".to_owned());
        }
        self.clock.check(check);
        self.traffic.check(check, self.clock.interval);
        check.count("stable/tasks", self.stable.tasks, TASKS_MAX);
        check.count("stable/zones", self.stable.zones, ZONES_MAX);
        check.within("stable/errorRate", self.stable.error_rate, SHARE);
        check.positive("stable/latency/medianMs", self.stable.latency.median_ms);
        check.positive("stable/latency/sigma", self.stable.latency.sigma);
        self.canary.check(check);
        self.noise.check(check);
        for (index, event) in self.events.iter().enumerate() {
            event.check(check, &format!("events/{index}"));
        }
        self.expect.check(check);
    }
}

impl Clock {
    fn check(self, check: &mut Check<'_>) {
        check.lasting("clock/interval", self.interval);
        check.lasting("clock/horizon", self.horizon);
        for (key, value) in [
            ("clock/horizon", self.horizon),
            ("clock/history", self.history),
        ] {
            if self.interval > 0 && value / self.interval > INTERVALS_MAX {
                check.add(
                    key,
                    format!("is more than {INTERVALS_MAX} times clock.interval"),
                );
            }
        }
    }
}

impl Traffic {
    fn check(self, check: &mut Check<'_>, interval: Millis) {
        check.positive("traffic/rps", self.rps);
        if self.rps * (interval as f64 / 1_000.0) > REQUESTS_PER_INTERVAL_MAX {
            check.add(
                "traffic/rps",
                format!("is more than {REQUESTS_PER_INTERVAL_MAX:e} requests in one interval"),
            );
        }
        if let Some(diurnal) = self.diurnal {
            check.within("traffic/diurnal/amplitude", diurnal.amplitude, SHARE);
            check.lasting("traffic/diurnal/period", diurnal.period);
        }
    }
}

impl Canary {
    fn check(self, check: &mut Check<'_>) {
        check.count("canary/minTasks", self.min_tasks, TASKS_MAX);
        let effect = self.effect;
        check.within("canary/effect/errorAdd", effect.error_add, SHARE);
        check.within("canary/effect/errorMult", effect.error_mult, NOT_NEGATIVE);
        check.within(
            "canary/effect/latencyMult",
            effect.latency_mult,
            NOT_NEGATIVE,
        );
        check.within("canary/effect/tailFraction", effect.tail_fraction, SHARE);
        check.within("canary/effect/tailMult", effect.tail_mult, NOT_NEGATIVE);
        if let Some(load) = effect.load {
            check.within("canary/effect/load/from", load.from, SHARE);
            check.within("canary/effect/load/to", load.to, SHARE);
            if load.to <= load.from {
                check.add(
                    "canary/effect/load/to",
                    format!("is {}; it must be more than from", load.to),
                );
            }
        }
        if let Some(warmup) = self.warmup {
            check.within(
                "canary/warmup/latencyMult",
                warmup.latency_mult,
                NOT_NEGATIVE,
            );
            check.within("canary/warmup/errorAdd", warmup.error_add, SHARE);
        }
    }
}

impl Noise {
    fn check(&self, check: &mut Check<'_>) {
        check.within(
            "noise/errorClusterMean",
            self.error_cluster_mean,
            1.0..=CLUSTER_MEAN_MAX,
        );
        for (key, sd) in [
            ("noise/common/errorSd", self.common.error_sd),
            ("noise/common/latencySd", self.common.latency_sd),
            ("noise/arm/errorSd", self.arm.error_sd),
            ("noise/arm/latencySd", self.arm.latency_sd),
            ("noise/task/errorSd", self.task.error_sd),
            ("noise/task/latencySd", self.task.latency_sd),
        ] {
            check.within(key, sd, 0.0..=SD_MAX);
        }
        check.correlation("noise/common/ar", self.common.ar);
        check.correlation("noise/arm/errorAr", self.arm.error_ar);
        check.correlation("noise/arm/latencyAr", self.arm.latency_ar);
        if let Some(stall) = self.stall {
            check.within("noise/stall/probability", stall.probability, SHARE);
            check.within("noise/stall/fraction", stall.fraction, SHARE);
            check.within("noise/stall/mult", stall.mult, NOT_NEGATIVE);
        }
    }
}

impl Event {
    fn check(&self, check: &mut Check<'_>, path: &str) {
        match *self {
            Self::SharedOutage {
                error_add,
                latency_mult,
                ..
            } => {
                check.within(&format!("{path}/errorAdd"), error_add, SHARE);
                check.within(&format!("{path}/latencyMult"), latency_mult, NOT_NEGATIVE);
            }
            Self::CanaryBlip { error_add, .. } => {
                check.within(&format!("{path}/errorAdd"), error_add, SHARE);
            }
            Self::MetricGap { .. } => {}
            Self::RandomGap { probability, .. } => {
                check.within(&format!("{path}/probability"), probability, SHARE);
            }
        }
    }
}

impl Expect {
    fn check(self, check: &mut Check<'_>) {
        for (key, limit, range) in [
            ("maxFalseRollbackPct", self.max_false_rollback_pct, PERCENT),
            ("minDetectPct", self.min_detect_pct, PERCENT),
            (
                "maxMedianPromoteMinutes",
                self.max_median_promote_minutes,
                NOT_NEGATIVE,
            ),
            (
                "maxMedianBadRequests",
                self.max_median_bad_requests,
                NOT_NEGATIVE,
            ),
            (
                "maxMeanBadRequests",
                self.max_mean_bad_requests,
                NOT_NEGATIVE,
            ),
            (
                "maxMedianRollbackMinutes",
                self.max_median_rollback_minutes,
                NOT_NEGATIVE,
            ),
        ] {
            if let Some(limit) = limit {
                check.within(&format!("expect/{key}"), limit, range);
            }
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
    let text = String::deserialize(deserializer)?;
    let units = [("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    units
        .into_iter()
        .find_map(|(unit, ms)| {
            let count: Millis = text.strip_suffix(unit)?.parse().ok()?;
            count.checked_mul(ms).filter(|ms| *ms <= DURATION_MAX)
        })
        .ok_or_else(|| D::Error::custom(format!("{text:?} is no duration of up to a year")))
}

fn seed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = Number::deserialize(deserializer)?;
    number
        .as_u64()
        .or_else(|| number.as_i64().map(i64::cast_unsigned))
        .ok_or_else(|| D::Error::custom(format!("seed {number} does not fit in 64 bits")))
}

fn replicates() -> u32 {
    400
}

fn one() -> f64 {
    1.0
}

fn five() -> f64 {
    5.0
}

fn outage_error_add() -> f64 {
    0.3
}

fn outage_latency_mult() -> f64 {
    3.0
}

fn blip_error_add() -> f64 {
    0.5
}

fn forever() -> Millis {
    Millis::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DEVELOPMENT: &str = include_str!("../../../examples/scenarios/development.json");

    /// A file with one scenario, changed by `more`.
    fn file(more: &Value) -> String {
        let mut scenario = json!({
            "name": "a", "class": "good", "seed": 1, "traffic": {"rps": 1}, "stable": {},
        });
        for (key, value) in more.as_object().expect("an object") {
            scenario[key] = value.clone();
        }
        json!({"apiVersion": "simulate/v1", "scenarios": [scenario]}).to_string()
    }

    fn one_scenario(more: &Value) -> Scenario {
        Corpus::parse(&file(more))
            .expect("valid")
            .scenarios
            .remove(0)
    }

    fn problems(text: &str) -> Vec<String> {
        let problems = Corpus::parse(text).expect_err(text);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_development_corpus_is_valid() {
        let corpus = Corpus::parse(DEVELOPMENT).expect("valid");
        assert_eq!(corpus.scenarios.len(), 16);
        assert!(corpus.faults.is_empty());
        let outage = &corpus.scenarios[6];
        assert_eq!(outage.name, "aa-shared-outage");
        assert_eq!(outage.class, Class::Good);
        assert_eq!((outage.seed, outage.replicates), (107, 400));
        assert_eq!(outage.expect.max_false_rollback_pct, Some(2.0));
        assert_eq!(outage.expect.min_detect_pct, None);
        let event = Event::SharedOutage {
            at: 480_000,
            duration: 480_000,
            error_add: 0.3,
            latency_mult: 3.0,
        };
        assert_eq!(outage.events, [event]);
        assert!(!event.holds(479_999) && event.holds(480_000));
        assert!(event.holds(959_999) && !event.holds(960_000));
        let burn = &corpus.scenarios[13].canary.effect;
        assert_eq!((burn.onset, burn.ramp), (300_000, 3_600_000));
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let scenario = one_scenario(&json!({
            "events": [{"type": "random-gap", "probability": 0.1}],
            "canary": {"warmup": {"duration": "90s"}},
            "seed": -1,
        }));
        assert_eq!(scenario.seed, u64::MAX);
        assert_eq!(scenario.replicates, 400);
        assert_eq!(scenario.clock, Clock::default());
        assert_eq!(scenario.stable, Stable::default());
        assert_eq!(scenario.noise, Noise::default());
        assert_eq!(scenario.canary.effect, Effect::default());
        let warmup = scenario.canary.warmup.expect("given");
        assert_eq!((warmup.duration, warmup.latency_mult), (90_000, 1.0));
        assert!(scenario.events[0].holds(Millis::MAX - 1));
    }

    #[test]
    fn faults_are_the_one_other_key_of_the_file() {
        let with = |key: &str| {
            let mut file: Value = serde_json::from_str(&file(&json!({}))).expect("JSON");
            file[key] = json!(["answer-lost"]);
            Corpus::parse(&file.to_string())
        };
        assert_eq!(with("faults").expect("valid").faults, ["answer-lost"]);
        let refused = with("fault").expect_err("unknown");
        assert!(refused[0].message.starts_with("unknown field `fault`"));
    }

    #[test]
    fn problems_name_the_place_and_the_remedy() {
        let duration = "it must be a duration such as \"90s\", \"10m\" or \"2h\"";
        for (more, expected) in [
            (
                json!({"traffic": {"rps": 1, "diurnal": {"amplitud": 1}}}),
                "/scenarios/0/traffic/diurnal/amplitud (a): is unknown; known are amplitude, period, phase".to_owned(),
            ),
            (
                json!({"events": [{"type": "metric-gap", "at": "1m", "until": "2m"}]}),
                "/scenarios/0/events/0/until (a): is unknown; known are at, duration, errorAdd, latencyMult, probability, type".to_owned(),
            ),
            (
                json!({"events": [{"type": "shared-outage", "at": "1m"}]}),
                "/scenarios/0/events/0 (a): missing field `duration`".to_owned(),
            ),
            (
                json!({"events": [{"type": "canary-blip", "at": "1m", "duration": "1m", "latencyMult": 2}]}),
                "/scenarios/0/events/0 (a): unknown field `latencyMult`, expected one of `at`, `duration`, `errorAdd`".to_owned(),
            ),
            (
                json!({"traffic": {}}),
                "/scenarios/0/traffic/rps (a): is missing".to_owned(),
            ),
            (
                json!({"clock": {"interval": "5x"}}),
                format!("/scenarios/0/clock/interval (a): is \"5x\"; {duration}"),
            ),
            (
                json!({"clock": {"interval": "0s"}}),
                "/scenarios/0/clock/interval (a): is 0; it must be more".to_owned(),
            ),
            (
                json!({"clock": {"history": "99999999999999999999h"}}),
                "/scenarios/0 (a): \"99999999999999999999h\" is no duration of up to a year".to_owned(),
            ),
            (
                json!({"canary": {"effect": {"errorAdd": 1.5}}}),
                "/scenarios/0/canary/effect/errorAdd (a): is 1.5; it must be from 0 to 1".to_owned(),
            ),
            (
                json!({"canary": {"effect": {"latencyMult": -1}}}),
                "/scenarios/0/canary/effect/latencyMult (a): is -1; it must be at least 0".to_owned(),
            ),
            (
                json!({"canary": {"effect": {"load": {"from": 0.6}}}}),
                "/scenarios/0/canary/effect/load/to (a): is 0.5; it must be more than from".to_owned(),
            ),
            (
                json!({"stable": {"zones": 0}}),
                "/scenarios/0/stable/zones (a): is 0; it must be from 1 to 100".to_owned(),
            ),
            (
                json!({"noise": {"common": {"ar": 1}}}),
                "/scenarios/0/noise/common/ar (a): is 1; it must be between -1 and 1".to_owned(),
            ),
            (
                json!({"class": "ugly"}),
                "/scenarios/0/class (a): \"ugly\" is not one of \"good\" or \"bad\"".to_owned(),
            ),
            (
                json!({"traffic": {"rps": "many"}}),
                "/scenarios/0/traffic/rps (a): \"many\" is not of type \"number\"".to_owned(),
            ),
        ] {
            assert_eq!(problems(&file(&more)), [expected]);
        }
    }

    #[test]
    fn every_step_reports_all_that_it_finds() {
        assert_eq!(
            problems("{\n  \"apiVersion\": }"),
            [": is not JSON: expected value at line 2 column 17"]
        );
        assert_eq!(
            problems(r#"{"scenarios": {}}"#),
            [
                "/apiVersion: is missing",
                "/scenarios: {} is not of type \"array\""
            ]
        );
        let mut twice: Value =
            serde_json::from_str(&file(&json!({"stable": {"tasks": 0, "errorRate": 2}})))
                .expect("JSON");
        let again = twice["scenarios"][0].clone();
        twice["scenarios"]
            .as_array_mut()
            .expect("a list")
            .push(again);
        let problems = problems(&twice.to_string());
        assert_eq!(problems.len(), 5);
        assert_eq!(
            problems[2],
            "/scenarios/1/name (a): is the name of an earlier scenario"
        );
    }
}

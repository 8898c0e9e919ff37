//! Reads scenarios from a text, or collects all that is wrong with them.
//!
//! A file is checked in four steps (JSON, schema, types, meaning); each step
//! reports all that it finds before the next one starts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Canary, Clock, Corpus, Event, Expect, Millis, Noise, Scenario, Span, Traffic, Values};
use crate::model::problem::{Problem, Problems};
use crate::schema::of_file;

const TASKS_MAX: u32 = 10_000;
const ZONES_MAX: u32 = 100;
const CLUSTER_MEAN_MAX: f64 = 1_000.0;
/// Largest standard deviation of a logarithm.
const SD_MAX: f64 = 10.0;
const INTERVALS_MAX: u64 = 100_000;
/// Low enough that the sum over the intervals of hours fits in 32 bits.
const REQUESTS_PER_INTERVAL_MAX: f64 = 2e7;

const SHARE: RangeInclusive<f64> = 0.0..=1.0;
const PERCENT: RangeInclusive<f64> = 0.0..=100.0;
const NOT_NEGATIVE: RangeInclusive<f64> = 0.0..=f64::INFINITY;

/// Scenarios for `engine simulate` and `engine plugin test`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    /// The version of the format.
    #[serde(rename = "apiVersion")]
    #[schemars(schema_with = "version")]
    _api_version: String,
    /// The scenarios. Each is a service and one rollout, which is played many times.
    #[schemars(with = "Vec<Scenario>")]
    scenarios: Vec<Value>,
    /// Faults around the rollout in all scenarios, spelt as for `--fault`.
    #[serde(default)]
    faults: Vec<String>,
    /// What custom queries answer in all scenarios, by their names.
    #[serde(default)]
    queries: BTreeMap<String, Values>,
    /// How many requests for an approval are approved at once; all of them if absent.
    approvals: Option<u32>,
}

fn version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"const": "simulate/v1"})
}

/// What happens during the rollout. Which keys an event has depends on its type, and
/// is checked when it is read: a schema with a shape for each type would only say that
/// an event fits none of them.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[expect(dead_code, reason = "it only describes")]
pub(super) struct AnyEvent {
    /// What happens.
    r#type: AnyEventType,
    /// When it begins, from the start of the rollout.
    at: Option<Span>,
    /// For how long.
    duration: Option<Span>,
    /// Added to the part of the requests that fail, from 0 to 1.
    error_add: Option<f64>,
    /// Factor of the latency of every request.
    latency_mult: Option<f64>,
    /// The probability in each interval, from 0 to 1.
    probability: Option<f64>,
}

/// What happens.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[expect(dead_code, reason = "it only describes")]
enum AnyEventType {
    /// Something that both arms need fails.
    SharedOutage,
    /// Something fails that only the candidate needs, and not by the candidate's fault.
    CanaryBlip,
    /// The metrics of both arms are missing.
    MetricGap,
    /// The metrics of both arms are missing in some of the intervals.
    RandomGap,
}

/// The JSON Schema of the format.
#[must_use]
pub fn schema() -> Value {
    of_file::<File>()
}

impl Corpus {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// All problems that the first step with problems finds. The steps are JSON, schema,
    /// types and meaning.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let json: Value = serde_json::from_str(text).map_err(|error| {
            Problems(vec![Problem {
                line: Some(error.line()),
                column: Some(error.column()),
                // The library's message ends with the line and the column.
                ..Problem::new("", format!("is not JSON: {error}"))
            }])
        })?;
        Self::read(&json).map_err(|problems| {
            let mut places = HashMap::new();
            if let Ok(file) = serde_json::from_str(text) {
                find_values(text, file, String::new(), &mut places);
            }
            let mut located = Problems(problems).located(text, &places, '/');
            for problem in &mut located.0 {
                if let Some(name) = scenario_at(&json, &problem.path) {
                    problem.path = format!("{} ({name})", problem.path);
                }
            }
            located
        })
    }

    fn read(json: &Value) -> Result<Self, Vec<Problem>> {
        none(against_schema(json))?;
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
    let mut schema = schema();
    // Unknown keys of the file itself are reported when its type is read.
    schema["additionalProperties"] = Value::Bool(true);
    let validator = jsonschema::validator_for(&schema).expect("made from types");
    validator
        .iter_errors(json)
        .flat_map(|error| explain(&schema, &error))
        .collect()
}

fn explain(schema: &Value, error: &ValidationError<'_>) -> Vec<Problem> {
    let path = error.instance_path().as_str();
    let problem = |key: &str, message: String| {
        let path = match key {
            "" => path.to_owned(),
            key => format!("{path}/{key}"),
        };
        Problem::new(path, message)
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
fn scenario_at<'a>(json: &'a Value, path: &str) -> Option<&'a str> {
    let index = path.strip_prefix("/scenarios/")?.split('/').next()?;
    let name = json.pointer(&format!("/scenarios/{index}/name"))?;
    name.as_str()
}

/// Fills `places` with the byte of the text at which a value stands, and each value in it.
fn find_values(text: &str, value: &RawValue, path: String, places: &mut HashMap<String, usize>) {
    let json = value.get();
    if let Ok(object) = serde_json::from_str::<BTreeMap<String, &RawValue>>(json) {
        for (key, inner) in object {
            find_values(text, inner, format!("{path}/{key}"), places);
        }
    } else if let Ok(array) = serde_json::from_str::<Vec<&RawValue>>(json) {
        for (index, inner) in array.into_iter().enumerate() {
            find_values(text, inner, format!("{path}/{index}"), places);
        }
    }
    // A raw value borrows from the text, so the difference is its position.
    places.insert(path, json.as_ptr().addr() - text.as_ptr().addr());
}

fn typed(json: &Value) -> Result<Corpus, Vec<Problem>> {
    let mut problems = vec![];
    let Some(file) = read::<File>("", json.clone(), &mut problems) else {
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
                read(&path, value.clone(), &mut problems)
            })
            .collect();
        if let Some(scenario) = read::<Scenario>(&path, value, &mut problems) {
            scenarios.push(Scenario { events, ..scenario });
        }
    }
    none(problems)?;
    Ok(Corpus {
        scenarios,
        faults: file.faults,
        queries: file.queries,
        approvals: file.approvals,
    })
}

fn read<T: DeserializeOwned>(path: &str, value: Value, problems: &mut Vec<Problem>) -> Option<T> {
    match serde_json::from_value(value) {
        Ok(value) => Some(value),
        Err(error) => {
            problems.push(Problem::new(path, error.to_string()));
            None
        }
    }
}

/// Collects what is wrong with one scenario.
struct Check<'a> {
    path: String,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn add(&mut self, key: &str, message: String) {
        self.problems
            .push(Problem::new(format!("{}/{key}", self.path), message));
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

#[cfg(test)]
mod tests {
    use super::super::{Class, Effect, Stable};
    use super::*;
    use serde_json::json;

    const DEVELOPMENT: &str = include_str!("../../../../examples/scenarios/development.json");

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
        let problems = Corpus::parse(text).expect_err(text).0;
        let shown = problems.iter();
        shown
            .map(|p| format!("{}: {}", p.path, p.message))
            .collect()
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
    fn the_file_has_faults_and_queries_and_no_other_keys() {
        let with = |key: &str, value: Value| {
            let mut file: Value = serde_json::from_str(&file(&json!({}))).expect("JSON");
            file[key] = value;
            Corpus::parse(&file.to_string())
        };
        let faults = json!(["answer-lost"]);
        let corpus = with("faults", faults.clone()).expect("valid");
        assert_eq!(corpus.faults, ["answer-lost"]);
        let values = json!({"accuracy": {"stable": 0.9, "canary": 0.8}});
        let corpus = with("queries", values).expect("valid");
        assert_eq!(corpus.queries["accuracy"].canary, 0.8);
        let refused = with("fault", faults).expect_err("unknown");
        assert!(refused.0[0].message.starts_with("unknown field `fault`"));
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
                "/scenarios/0 (a): \"99999999999999999999h\" is not a duration of up to a year".to_owned(),
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
    fn problems_have_lines() {
        let file = r#"{
  "apiVersion": "simulate/v1",
  "scenarios": [
    {"name": "a", "class": "good", "seed": 1, "traffic": {"rps": 1}, "stable": {}},
    {
      "name": "b", "class": "good", "seed": 2, "traffic": {"rps": 1},
      "stable": {
        "zones": 0
      },
      "canary": {"minTasks": 0}
    }
  ]
}"#;
        let problems = Corpus::parse(file).expect_err("two problems");
        assert_eq!(
            problems.in_file("corpus.json"),
            "  corpus.json:8:18: /scenarios/1/stable/zones (b): is 0; it must be from 1 to 100
  corpus.json:10:30: /scenarios/1/canary/minTasks (b): is 0; it must be from 1 to 10000"
        );
        let missing = file.replace("\"rps\": 1}, \"stable\"", "}, \"stable\"");
        let problems = Corpus::parse(&missing).expect_err("no rps");
        assert_eq!(problems.0[0].line, Some(4));
        let broken = Corpus::parse("{\n\n]").expect_err("no JSON");
        assert_eq!(broken.0[0].line, Some(3));
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

//! Scenario files, format `simulate/v1`: a service, its traffic, what is wrong
//! with the candidate, and what else happens. [`check`] reads and checks them.

mod check;

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::Number;

pub use check::schema;

/// A duration, or a time since the start of the rollout, ms.
pub type Millis = u64;

/// Longest duration in a file, ms: a year.
const DURATION_MAX: Millis = 365 * 24 * 3_600_000;

/// The scenarios of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Corpus {
    /// The scenarios, in the order of the file.
    pub scenarios: Vec<Scenario>,
    /// Names of faults to inject in every scenario; empty if the file has none.
    pub faults: Vec<String>,
    /// Values of custom queries in every scenario, by the query's name.
    pub queries: BTreeMap<String, Values>,
    /// How many requests for an approval are approved at once; all of them if `None`.
    pub approvals: Option<u32>,
}

/// Values of a custom query: one for each arm and interval with traffic.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// Mean of the stable arm.
    pub stable: f64,
    /// Mean of the candidate.
    pub canary: f64,
    /// Standard deviation of one value.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub sigma: f64,
}

/// One service and one rollout.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// Its name, which no other scenario of the file has.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9.-]*$"))]
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub summary: String,
    /// Whether the candidate should be promoted.
    pub class: Class,
    /// The seed of everything that is random. A negative number stands for the unsigned one
    /// with the same 64 bits.
    #[serde(deserialize_with = "seed")]
    #[schemars(schema_with = "whole")]
    pub seed: u64,
    /// Number of replicates: rollouts with other random numbers each.
    #[serde(default = "replicates")]
    #[schemars(range(min = 1))]
    pub replicates: u32,
    /// Times of the simulation.
    #[serde(default)]
    pub clock: Clock,
    /// The requests to the service.
    pub traffic: Traffic,
    /// The version that runs today.
    pub stable: Stable,
    /// The version to roll out.
    #[serde(default)]
    pub canary: Canary,
    /// Random variation.
    #[serde(default)]
    pub noise: Noise,
    /// What happens during the rollout. The reader takes each event by itself, so that a
    /// problem names its path.
    #[serde(default)]
    #[schemars(with = "Vec<check::AnyEvent>")]
    pub events: Vec<Event>,
    /// What the author expects of a strategy.
    #[serde(default)]
    pub expect: Expect,
}

/// Whether a candidate should be promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// It should be promoted; a rollback is false.
    Good,
    /// It should not be promoted; a promotion is a miss.
    Bad,
}

/// Times of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Clock {
    /// The length of one interval of metrics. All noise is per interval.
    #[serde(deserialize_with = "duration", serialize_with = "spelt")]
    #[schemars(with = "Span")]
    pub interval: Millis,
    /// How long after its end the metrics of an interval can be read.
    #[serde(deserialize_with = "duration", serialize_with = "spelt")]
    #[schemars(with = "Span")]
    pub metric_delay: Millis,
    /// How long after its start the simulation of a rollout stops.
    #[serde(deserialize_with = "duration", serialize_with = "spelt")]
    #[schemars(with = "Span")]
    pub horizon: Millis,
    /// For how long before the start the metrics of the stable version are known.
    #[serde(deserialize_with = "duration", serialize_with = "spelt")]
    #[schemars(with = "Span")]
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

/// The requests to a service.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traffic {
    /// Requests per second, the mean over a day.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rps: f64,
    /// How the number of requests changes over the day; not at all if absent.
    pub diurnal: Option<Diurnal>,
}

/// A sine on top of the mean traffic.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Diurnal {
    /// The amplitude as a fraction of the mean, from 0 to 1.
    pub amplitude: f64,
    /// Time from one maximum to the next.
    #[serde(deserialize_with = "duration", serialize_with = "spelt")]
    #[schemars(with = "Span")]
    pub period: Millis,
    /// Where in the period the rollout starts, as a fraction of it; at 0 the traffic is at
    /// its mean and rises.
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

/// The version that runs today.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Stable {
    /// Number of its tasks.
    pub tasks: u32,
    /// Number of availability zones over which its tasks are spread.
    pub zones: u32,
    /// Part of the requests that fail, from 0 to 1.
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
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Canary {
    /// The least number of its tasks, however small its share is.
    pub min_tasks: u32,
    /// How it differs from the stable version.
    pub effect: Effect,
    /// How new tasks warm up; without a warm-up if absent.
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
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Effect {
    /// Added to the part of the requests that fail, from 0 to 1.
    pub error_add: f64,
    /// Factor of the part of the requests that fail.
    pub error_mult: f64,
    /// Factor of the latency of every request.
    pub latency_mult: f64,
    /// Part of the requests that are slower still, from 0 to 1.
    pub tail_fraction: f64,
    /// Factor of the latency of those requests.
    pub tail_mult: f64,
    /// When it begins, from the start of the rollout.
    #[serde(deserialize_with = "duration", serialize_with = "spelt")]
    #[schemars(with = "Span")]
    pub onset: Millis,
    /// How long it takes to grow from nothing to the full effect; 0 is at once.
    #[serde(deserialize_with = "duration", serialize_with = "spelt")]
    #[schemars(with = "Span")]
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
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Load {
    /// There is no effect up to this share, from 0 to 1.
    pub from: f64,
    /// The effect is full from this share on, from 0 to 1.
    pub to: f64,
}

impl Default for Load {
    fn default() -> Self {
        Self { from: 0.2, to: 0.5 }
    }
}

/// New tasks are worse for a while after each rise of the share.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Warmup {
    /// For how long.
    #[serde(deserialize_with = "duration", serialize_with = "spelt")]
    #[schemars(with = "Span")]
    pub duration: Millis,
    /// Factor of the latency of every request.
    #[serde(default = "one")]
    pub latency_mult: f64,
    /// Added to the part of the requests that fail, from 0 to 1.
    #[serde(default)]
    pub error_add: f64,
}

/// Random variation of errors and latencies.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Noise {
    /// Errors come in clusters of this mean size, from 1 to 1000.
    pub error_cluster_mean: f64,
    /// Noise that both arms share.
    pub common: CommonNoise,
    /// Noise that each arm, and each zone of the history, has for itself.
    pub arm: ArmNoise,
    /// How tasks differ from each other as long as they run.
    pub task: TaskNoise,
    /// Tasks that stall for an interval; none do if absent.
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
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
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

/// How tasks differ from each other as long as they run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TaskNoise {
    /// Standard deviation of the logarithm of the error rate.
    pub error_sd: f64,
    /// Standard deviation of the logarithm of the latency.
    pub latency_sd: f64,
}

/// Tasks that stall for an interval, as in garbage collection.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stall {
    /// The probability for each task in each interval, from 0 to 1.
    pub probability: f64,
    /// Part of the task's requests that are slower, from 0 to 1.
    #[serde(default = "one")]
    pub fraction: f64,
    /// Factor of the latency of those requests.
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
        /// Added to the part of the requests that fail, from 0 to 1.
        #[serde(default = "outage_error_add")]
        error_add: f64,
        /// Factor of the latency of every request.
        #[serde(default = "outage_latency_mult")]
        latency_mult: f64,
    },
    /// Something fails that only the candidate needs, and not by the candidate's fault.
    CanaryBlip {
        /// From the start of the rollout.
        #[serde(deserialize_with = "duration")]
        at: Millis,
        /// For how long.
        #[serde(deserialize_with = "duration")]
        duration: Millis,
        /// Added to the part of the requests that fail, from 0 to 1.
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
        #[serde(
            default = "forever",
            deserialize_with = "duration",
            serialize_with = "spelt"
        )]
        duration: Millis,
        /// The probability in each interval, from 0 to 1.
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
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Expect {
    /// Most rollbacks of a good candidate, percent of the replicates.
    pub max_false_rollback_pct: Option<f64>,
    /// Longest median time until the candidate has all traffic, minutes.
    pub max_median_promote_minutes: Option<f64>,
    /// Fewest rollbacks of a bad candidate, percent of the replicates.
    pub min_detect_pct: Option<f64>,
    /// Largest median of the bad requests that users see.
    pub max_median_bad_requests: Option<f64>,
    /// Largest mean of the bad requests that users see.
    pub max_mean_bad_requests: Option<f64>,
    /// Longest median time to the rollback of a bad candidate, minutes.
    pub max_median_rollback_minutes: Option<f64>,
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
        .ok_or_else(|| D::Error::custom(format!("{text:?} is not a duration of up to a year")))
}

/// Writes a duration as a file spells it, in the largest unit that fits.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands it over like this"
)]
fn spelt<S: Serializer>(ms: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
    let seconds = ms / 1_000;
    serializer.serialize_str(&match seconds {
        s if s > 0 && s.is_multiple_of(3_600) => format!("{}h", s / 3_600),
        s if s > 0 && s.is_multiple_of(60) => format!("{}m", s / 60),
        s => format!("{s}s"),
    })
}

/// How a file spells a duration.
struct Span;

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+(s|m|h)$"})
    }
}

/// Any whole number, also a negative one.
fn whole(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer"})
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

//! The settings of a [`super::Watch`].

use analysis::{Config, Measure, Step, StepKind, Stream, probe_share};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::bake::OnNoData;
use crate::gate::Limits;

/// Requests of each arm that a step needs, and of stable at the holdback.
const REQUESTS_MIN: f64 = 5.0;
const CONTROL_MIN: f64 = 20.0;
/// Requests per sample from which on the steps are [`STEPS_MANY`]: a smaller first step
/// shows as much there, and hurts fewer users.
const MANY: f64 = 10_000.0;
const STEPS_MANY: [f64; 4] = [1.0, 10.0, 50.0, 100.0];

/// How a strategy judges: it compares with stable (evidence), or holds against
/// limits alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum GateKind {
    Evidence,
    Limits,
}

/// What to do when the evidence stays suspicious for too long: take the traffic
/// back (rollback), or ask a person (pause).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum OnInconclusive {
    Rollback,
    Pause,
}

/// What to do about a sign that is no evidence by itself: take no step while it lasts (hold),
/// say so in the history and in each decision (warn), or nothing (ignore).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Caution {
    Hold,
    Warn,
    Ignore,
}

/// A stream of your own: bad events of requests, or an average, from queries of
/// the rollout file.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Custom {
    /// As people read it.
    pub name: String,
    /// Part of the evidence that it gets, 0-1; latency gives it up.
    #[serde(default = "a_fifth")]
    pub share: f64,
    /// Query of the number of bad events per sample.
    #[schemars(extend("x-query" = "series"))]
    pub bad: Option<String>,
    /// Query of the average per sample, instead of `bad`.
    #[schemars(extend("x-query" = "series"))]
    pub mean: Option<String>,
    /// Query of the variance of one value, with `mean`.
    #[schemars(extend("x-query" = "series"))]
    pub variance: Option<String>,
    /// Query of the number of events or values per sample; the requests if not
    /// given.
    #[schemars(extend("x-query" = "series"))]
    pub of: Option<String>,
    /// Which average is worse: a higher one unless this is true.
    #[serde(default)]
    pub less_is_worse: bool,
    /// Largest difference of the averages that does not count, as a part (0-1) of
    /// the stable one.
    #[serde(default = "a_fiftieth")]
    pub margin: f64,
}

fn a_fifth() -> f64 {
    0.2
}

fn a_fiftieth() -> f64 {
    0.02
}

impl Custom {
    /// Checks the values.
    ///
    /// # Errors
    /// A sentence that names what is wrong.
    pub fn check(&self) -> Result<(), String> {
        match (&self.bad, &self.mean, &self.variance) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => {}
            (None, Some(_), None) => {
                return Err(format!("{} has a mean but no variance query", self.name));
            }
            _ => {
                return Err(format!(
                    "{} needs a query `bad`, or the queries `mean` and `variance`",
                    self.name
                ));
            }
        }
        if !(self.share > 0.0 && self.share <= 0.4) {
            return Err(format!(
                "{} has a share of {}; it must be above 0 and at most 0.4",
                self.name, self.share
            ));
        }
        if !(self.margin > 0.0 && self.margin < 1.0) {
            return Err(format!("{} has a margin of {}", self.name, self.margin));
        }
        Ok(())
    }

    /// Names of its queries.
    pub(super) fn queries(&self) -> impl Iterator<Item = &String> {
        [&self.bad, &self.mean, &self.variance, &self.of]
            .into_iter()
            .flatten()
    }

    pub(super) fn stream(&self) -> Stream {
        match (&self.mean, self.less_is_worse) {
            (None, _) => Stream::events(&self.name, self.share),
            (_, true) => Stream::mean(&self.name, self.share, self.margin, Measure::LessIsWorse),
            _ => Stream::mean(&self.name, self.share, self.margin, Measure::MoreIsWorse),
        }
    }
}

/// The steps of a watch, and how it decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Shares of the candidate in percent, rising; the last one may be 100.
    pub steps: Vec<f64>,
    /// Whether a service with many requests takes 1, 10 and 50 % instead.
    pub fitted: bool,
    /// Whether to wait for two samples of a stable arm without a past, so that a probe knows
    /// how many requests there are.
    pub meets: bool,
    /// Percent that the stable arm keeps during the last look, so that there is
    /// something to compare with; 0 for none.
    pub holdback: f64,
    /// Give the candidate all traffic at once, and compare this many samples with the
    /// past; 0 to take steps.
    pub alone: u32,
    /// Samples after a change of the weights in which latency does not count, because
    /// tasks are cold.
    pub warm_up: u32,
    /// Whether to begin with a few requests.
    pub probe: bool,
    /// Fewest samples at each step; the last value is used for all further steps.
    pub bake: Vec<u32>,
    /// Samples at the holdback.
    pub bake_holdback: u32,
    /// Samples at a probe.
    pub bake_probe: u32,
    /// Samples after which to go on unproven, at a step, and at one of 45 % or more.
    pub bake_max: [u32; 2],
    /// The constants of the gate.
    pub config: Config,
    /// Fixed limits in addition to the comparison, if there are any.
    pub limits: Option<Limits>,
    /// What to do when the evidence stays suspicious.
    pub on_inconclusive: OnInconclusive,
    /// What to do when no samples come any more.
    pub on_no_data: OnNoData,
    /// The least fault that must show, as a difference of the error rates (0-1): one step is
    /// made longer for it, up to 90 samples.
    pub min_effect: Option<f64>,
    /// What to do when the share that arrives is not the share that was set.
    pub split_check: Caution,
    /// What to do when tasks of the candidate stop by themselves; only where that happens
    /// again and again, and stable's do not, is a step held for it.
    pub task_restarts: Caution,
    /// What to do when memory, CPU or latency only rise at the candidate.
    pub slopes: Caution,
    /// Whether to compare zone by zone, where the target has zones, before evidence decides.
    pub by_zone: bool,
}

impl Settings {
    /// The defaults, with these steps (percent).
    #[must_use]
    pub fn of_steps(steps: &[f64]) -> Self {
        Self {
            steps: steps.to_vec(),
            ..Self::default()
        }
    }

    /// The same with the second edition of the gate: [`Config::second_edition`], a probe
    /// without a past, and zones.
    #[must_use]
    pub fn second_edition(mut self) -> Self {
        self.config = self.config.second_edition();
        (self.meets, self.by_zone) = (true, true);
        self
    }

    /// Chooses the steps that fit so many requests per sample.
    pub(super) fn fit(&mut self, requests: f64) {
        if self.fitted && requests >= MANY {
            self.steps = STEPS_MANY.to_vec();
        }
    }

    /// The steps that were chosen, in words, if they were.
    pub(super) fn describe_fit(&self, requests: f64) -> Option<String> {
        let chosen = self.fitted && self.alone == 0 && requests >= MANY;
        chosen.then(|| {
            format!(
                "takes 1, 10 and 50 % because there are about {} requests a sample",
                analysis::count(requests)
            )
        })
    }

    /// The steps to take, given the requests per sample before the rollout.
    pub(super) fn ladder(&self, requests: f64) -> Vec<Step> {
        let step = |share: f64, kind, bake_min: u32, bake_max: u32| Step {
            share,
            kind,
            bake_min,
            bake_max: bake_max.max(bake_min),
            requests_min: match kind {
                StepKind::Probe | StepKind::Ramp => [REQUESTS_MIN; 2],
                // A few requests of stable are a poor comparison for many of the candidate.
                StepKind::Holdback => [REQUESTS_MIN, CONTROL_MIN],
                StepKind::Alone => [REQUESTS_MIN, 0.0],
            },
        };
        if self.alone > 0 {
            return vec![step(1.0, StepKind::Alone, self.alone, self.alone)];
        }
        let mut ladder = vec![];
        let last = 1.0 - self.holdback / 100.0;
        for (at, percent) in self.steps.iter().enumerate() {
            let share = percent / 100.0;
            if share < last {
                let bake = self.bake.get(at).or(self.bake.last()).copied().unwrap_or(0);
                let bake_max = self.bake_max[usize::from(share >= 0.45)];
                ladder.push(step(share, StepKind::Ramp, bake, bake_max));
            }
        }
        let first = ladder.first().map_or(last, |s| s.share);
        if let Some(share) = probe_share(requests, first).filter(|_| self.probe) {
            // Weights of 1,000 in total are what the load balancer can do.
            let share = ((share * 1_000.0).round() / 1_000.0).max(0.002);
            let bake = self.bake_probe;
            ladder.insert(0, step(share, StepKind::Probe, bake, bake));
        }
        if self.holdback > 0.0 {
            let bake = self.bake_holdback;
            ladder.push(step(last, StepKind::Holdback, bake, bake));
        }
        ladder
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            steps: vec![5.0, 25.0, 50.0, 100.0],
            fitted: false,
            meets: false,
            holdback: 5.0,
            alone: 0,
            warm_up: 2,
            probe: true,
            bake: vec![5],
            bake_holdback: 10,
            bake_probe: 2,
            bake_max: [12, 20],
            config: Config::default(),
            limits: None,
            on_inconclusive: OnInconclusive::Rollback,
            on_no_data: OnNoData::Hold,
            min_effect: None,
            split_check: Caution::Warn,
            task_restarts: Caution::Hold,
            slopes: Caution::Warn,
            by_zone: false,
        }
    }
}

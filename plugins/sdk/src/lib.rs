//! SDK for strategies: straight-line code that the host can replay.
//!
//! ```ignore
//! use rollout_sdk::prelude::*;
//!
//! /// How far and how fast.
//! #[derive(Deserialize, JsonSchema)]
//! struct Parameters { share: u32 }
//!
//! fn run(rollout: &mut Rollout, p: Parameters) -> Result<Outcome, Error> {
//!     rollout.set_share(p.share)?;
//!     rollout.wait(rollout.sample_period() * 10);
//!     let seen = rollout.samples(0.0)?;
//!     match Window::of(&seen, rollout.candidate()).error_rate() {
//!         Some(rate) if rate < 0.01 => Ok(promoted("fewer than 1 % errors")),
//!         Some(_) => Ok(rolled_back("too many errors")),
//!         None => Ok(inconclusive("nobody asked")),
//!     }
//! }
//!
//! rollout_sdk::strategy! { name: "one-step", summary: "One step, one look.", parameters: Parameters, run: run }
//! ```
//!
//! Everything a strategy learns comes from [`Rollout`]. In a native test the
//! same function runs against [`testing::World`].

#[doc(hidden)]
#[allow(missing_docs, unsafe_code, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "strategy",
        pub_export_macro: true,
        generate_all,
        default_bindings_module: "rollout_sdk::bindings",
        additional_derives: [PartialEq],
    });
}

pub mod bake;
pub mod duration;
pub mod gate;
mod host;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod watch;

use std::time::Duration;

pub use bindings::exports::rollout::strategy::strategy_api::{
    Context, Description, Issue, Outcome, Plan, PlannedStep, Verdict,
};
pub use bindings::rollout::control::control::{
    Decision, Finding, Level, ProbeReport, Signal, StreamFinding, Wake,
};
pub use bindings::rollout::metrics::metrics::{ArmHealth, Latency, MetricsQuery, Point, Sample};
pub use bindings::rollout::types::types::{Arm, ErrorKind, HostError, Role, Weight};
pub use host::Host;
pub use {analysis, schemars, serde, serde_json};

/// What most strategies need.
pub mod prelude {
    pub use crate::bake::{Bake, OnNoData};
    pub use crate::duration::Span;
    pub use crate::gate::{Judgement, Limits, Window};
    pub use crate::watch::{Caution, Custom, GateKind, OnInconclusive, Settings, Watch};
    pub use crate::{
        Error, Issue, Outcome, PlannedStep, Rollout, Wake, inconclusive, promoted, rolled_back,
    };
    pub use schemars::JsonSchema;
    pub use serde::Deserialize;
}

/// Why a strategy could not do its work. It says nothing about the candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);

impl From<HostError> for Error {
    fn from(e: HostError) -> Self {
        Self(format!("{} ({})", e.message, e.code))
    }
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// The candidate is good.
pub fn promoted(reason: impl Into<String>) -> Outcome {
    outcome(Verdict::Promoted, reason)
}

/// The candidate is bad.
pub fn rolled_back(reason: impl Into<String>) -> Outcome {
    outcome(Verdict::RolledBack, reason)
}

/// A person must decide.
pub fn inconclusive(reason: impl Into<String>) -> Outcome {
    outcome(Verdict::Inconclusive, reason)
}

fn outcome(verdict: Verdict, reason: impl Into<String>) -> Outcome {
    Outcome {
        verdict,
        reason: reason.into(),
    }
}

/// Any host, for native tests.
#[cfg(not(target_family = "wasm"))]
pub type AnyHost = dyn Host;
/// The engine. It is called directly, because a table of all its functions would
/// make every component import all of them, and imports are permissions.
#[cfg(target_family = "wasm")]
pub type AnyHost = host::Engine;

/// The rollout that a strategy is running.
pub struct Rollout<'h> {
    host: &'h mut AnyHost,
    context: Context,
}

impl<'h> Rollout<'h> {
    /// A rollout on some host: the real one, or a test double.
    pub fn new(host: &'h mut AnyHost, context: Context) -> Self {
        Self { host, context }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.context.rollout
    }

    /// The arm that serves users today.
    pub fn stable(&self) -> &Arm {
        self.arm(Role::Stable)
    }

    /// The arm with the new version.
    pub fn candidate(&self) -> &Arm {
        self.arm(Role::Candidate)
    }

    fn arm(&self, role: Role) -> &Arm {
        self.context
            .arms
            .iter()
            .find(|a| a.role == role)
            .expect("the host names one arm of each role")
    }

    /// Length of one metrics sample: a minute on AWS, a second locally.
    pub fn sample_period(&self) -> Duration {
        Duration::from_millis(u64::from(self.context.sample_period_ms))
    }

    /// Time of the last answer, Unix ms. It stands still between calls.
    pub fn now(&mut self) -> f64 {
        self.host.now()
    }

    /// Gives the candidate `percent` of the traffic, 0-100.
    ///
    /// # Errors
    /// The host refuses a share that breaks a guardrail, that an arm without a healthy
    /// backend would get, or after a foreign change.
    pub fn set_share(&mut self, percent: u32) -> Result<(), HostError> {
        self.set_fraction(f64::from(percent.min(100)) / 100.0)
    }

    /// Gives the candidate this share of the traffic, 0-1, as exactly as whole
    /// weights of up to 999 can: 0.002 is 2 of 1,000.
    ///
    /// # Errors
    /// As [`Rollout::set_share`].
    pub fn set_fraction(&mut self, share: f64) -> Result<(), HostError> {
        let (stable, candidate) = whole_weights(share);
        let weights = [
            (self.stable().name.clone(), stable),
            (self.candidate().name.clone(), candidate),
        ]
        .map(|(arm, weight)| Weight { arm, weight });
        self.host.set_weights(&weights)
    }

    /// Does the same as [`Rollout::reach_fraction`], in percent.
    ///
    /// # Errors
    /// The host refuses for good.
    pub fn reach_share(&mut self, percent: u32, title: &str, done: u32) -> Result<(), HostError> {
        self.reach_fraction(f64::from(percent.min(100)) / 100.0, title, done)
    }

    /// Does the same as [`Rollout::set_fraction`], but tries again at every sample if a
    /// refusal is temporary, with `title` and the reason as progress.
    ///
    /// # Errors
    /// The host refuses for good.
    pub fn reach_fraction(&mut self, share: f64, title: &str, done: u32) -> Result<(), HostError> {
        self.patiently(title, done, |rollout| rollout.set_fraction(share))
    }

    /// Does the same as [`Rollout::switch_color`], but tries again if a refusal is
    /// temporary.
    ///
    /// # Errors
    /// The host refuses for good.
    pub fn reach_color(&mut self, color: &str, title: &str, done: u32) -> Result<(), HostError> {
        self.patiently(title, done, |rollout| rollout.switch_color(color))
    }

    fn patiently(
        &mut self,
        title: &str,
        done: u32,
        mut write: impl FnMut(&mut Self) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        loop {
            match write(self) {
                Err(error) if error.retryable => {
                    let note = format!("{title}: holds before it; {}", error.message);
                    self.progress(done, &note);
                    self.wait(self.sample_period());
                }
                result => return result,
            }
        }
    }

    /// Sets the weights of the arms.
    ///
    /// # Errors
    /// As [`Rollout::set_share`].
    pub fn set_weights(&mut self, weights: &[Weight]) -> Result<(), HostError> {
        self.host.set_weights(weights)
    }

    /// The weights that the load balancer has now.
    ///
    /// # Errors
    /// The target could not be read.
    pub fn weights(&mut self) -> Result<Vec<Weight>, HostError> {
        self.host.get_weights()
    }

    /// Gives all traffic to an arm.
    ///
    /// # Errors
    /// As [`Rollout::set_share`].
    pub fn switch_color(&mut self, color: &str) -> Result<(), HostError> {
        self.host.switch_color(color)
    }

    /// Samples of complete periods of both arms that start at or after `since` (Unix ms).
    ///
    /// # Errors
    /// The metrics could not be read; that says nothing about the candidate.
    pub fn samples(&mut self, since: f64) -> Result<Vec<Sample>, HostError> {
        self.query_samples(&MetricsQuery {
            since,
            over_ms: vec![],
            by_zone: false,
        })
    }

    /// Samples with counts of slow requests, or by zone.
    ///
    /// # Errors
    /// As [`Rollout::samples`].
    pub fn query_samples(&mut self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError> {
        self.host.get_metrics(query)
    }

    /// Values of a query that the rollout file defines.
    ///
    /// # Errors
    /// There is no such query, or it could not be answered.
    pub fn query(&mut self, name: &str, since: f64) -> Result<Vec<Point>, HostError> {
        self.host.query(name, since)
    }

    /// Health of both arms.
    ///
    /// # Errors
    /// The target could not be read.
    pub fn health(&mut self) -> Result<Vec<ArmHealth>, HostError> {
        self.host.get_health()
    }

    /// Lets time pass. Ends early if a person says `promote`.
    pub fn wait(&mut self, time: Duration) -> Wake {
        self.wait_for(time, &[])
    }

    /// Lets time pass until a signal of one of these names arrives.
    pub fn wait_for(&mut self, time: Duration, signals: &[&str]) -> Wake {
        let seconds = u32::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
        self.host.wait(seconds, signals)
    }

    /// Runs a probe of the rollout file against the candidate.
    ///
    /// # Errors
    /// There is no such probe.
    pub fn probe(&mut self, name: &str) -> Result<ProbeReport, HostError> {
        self.host.probe(name)
    }

    /// Names of the probes that the rollout file defines.
    pub fn probes(&mut self) -> Vec<String> {
        self.host.probes()
    }

    /// Reports how far the rollout is, in percent, and why it is there.
    pub fn progress(&mut self, percent: u32, note: &str) {
        self.host.progress(percent, note);
    }

    /// Reports the finding of a look at the metrics, and the decision.
    pub fn report(&mut self, finding: &Finding) {
        self.host.report(finding);
    }

    /// Writes a line to the rollout's history.
    pub fn log(&mut self, level: Level, message: &str) {
        self.host.log(level, message);
    }
}

/// Weights of stable and candidate for a share of the candidate, 0-1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole_weights(share: f64) -> (u32, u32) {
    let percent = share.clamp(0.0, 1.0) * 100.0;
    if (percent - percent.round()).abs() < 1e-9 {
        let percent = percent.round() as u32;
        return (100 - percent, percent);
    }
    let of_1000 = ((percent * 10.0).round() as u32).clamp(1, 999);
    (1_000 - of_1000, of_1000)
}

/// JSON Schema of a parameters type, as `describe` returns it.
pub fn schema<P: schemars::JsonSchema>() -> String {
    serde_json::Value::from(schemars::schema_for!(P)).to_string()
}

/// Reads parameters.
///
/// # Errors
/// What is wrong with them, for `validate`.
pub fn parse<P: serde::de::DeserializeOwned>(parameters: &str) -> Result<P, Vec<Issue>> {
    serde_json::from_str(parameters).map_err(|e| {
        vec![Issue {
            path: String::new(),
            message: e.to_string(),
        }]
    })
}

/// Runs a strategy function on a host.
///
/// # Errors
/// Bad parameters, or the strategy's own error.
pub fn run<P: serde::de::DeserializeOwned>(
    host: &mut AnyHost,
    context: Context,
    parameters: &str,
    strategy: impl FnOnce(&mut Rollout, P) -> Result<Outcome, Error>,
) -> Result<Outcome, String> {
    let parameters = parse(parameters).map_err(|issues| {
        let texts: Vec<String> = issues.into_iter().map(|i| i.message).collect();
        format!("bad parameters: {}", texts.join("; "))
    })?;
    strategy(&mut Rollout::new(host, context), parameters).map_err(|e| e.0)
}

/// Turns a function and its parameters into a strategy component.
///
/// `plan` is optional: a function from `&Parameters` to
/// `Result<Vec<PlannedStep>, Vec<Issue>>` that checks what a schema cannot.
#[macro_export]
macro_rules! strategy {
    (name: $name:expr, summary: $summary:expr, parameters: $parameters:ty, run: $run:path $(,)?) => {
        $crate::strategy! { name: $name, summary: $summary, parameters: $parameters,
            plan: |_: &$parameters| Ok(vec![]), run: $run }
    };
    (name: $name:expr, summary: $summary:expr, parameters: $parameters:ty,
     plan: $plan:expr, run: $run:path $(,)?) => {
        #[cfg(target_family = "wasm")]
        mod __component {
            use super::*;
            use $crate::bindings::exports::rollout::strategy::strategy_api::Guest;

            struct Component;

            impl Guest for Component {
                fn describe() -> $crate::Description {
                    $crate::Description {
                        name: $name.to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        summary: $summary.to_owned(),
                        parameters_schema: $crate::schema::<$parameters>(),
                    }
                }

                fn validate(parameters: String) -> Result<$crate::Plan, Vec<$crate::Issue>> {
                    let parameters: $parameters = $crate::parse(&parameters)?;
                    let steps: Result<Vec<$crate::PlannedStep>, Vec<$crate::Issue>> =
                        ($plan)(&parameters);
                    Ok($crate::Plan { steps: steps? })
                }

                fn run(
                    context: $crate::Context,
                    parameters: String,
                ) -> Result<$crate::Outcome, String> {
                    $crate::run(&mut $crate::engine_host(), context, &parameters, $run)
                }
            }

            $crate::bindings::export!(Component with_types_in $crate::bindings);
        }
    };
}

#[doc(hidden)]
pub fn engine_host() -> host::Engine {
    host::Engine
}

//! Rollouts: what drives them ([`Driver`]), and what it needs of others. What the files
//! of this folder share is here.

mod calls;
pub mod change;
mod doubt;
mod driver;
mod finalize;
#[cfg(test)]
pub(crate) mod fixture;
pub mod fleet;
pub mod guardrails;
mod health;
mod look;
mod prepare;
pub mod recovery;
pub mod roles;
pub mod session;

use std::sync::Arc;

use async_trait::async_trait;

use crate::journal::replay::Mismatch;
use crate::journal::status::Status;
use crate::journal::{Header, Pin};
use crate::model::aws::Also;
use crate::model::limits::Caps;
use crate::model::target::TargetSpec;
use crate::model::{Arm, End, Hold, HostError, Millis, Outcome, Weights};
use crate::store::StoreError;
use crate::target::Target;
use calls::Calls;

pub use driver::Driver;

/// What a strategy gets besides its calls.
#[derive(Debug, Clone)]
pub struct Run {
    /// The rollout's id.
    pub rollout: String,
    /// The arms and their roles.
    pub arms: Vec<Arm>,
    /// Weights when the rollout began.
    pub weights: Weights,
    /// Length of one metrics sample.
    pub sample_period_ms: u32,
    /// JSON object.
    pub parameters: String,
    /// Seed of everything random, hex.
    pub seed: String,
    /// Limits that an operator has set.
    pub caps: Caps,
}

impl Run {
    /// What a rollout's header says.
    #[must_use]
    pub fn of(header: &Header, pin: &Pin) -> Self {
        Self {
            rollout: header.rollout.clone(),
            arms: header.arms.clone(),
            weights: header.baseline.clone(),
            sample_period_ms: header.sample_period_ms,
            parameters: pin.parameters.to_string(),
            seed: pin.seed.clone(),
            caps: header.caps,
        }
    }
}

/// How a strategy's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// It returned a verdict, or its own error.
    Returned(Result<Outcome, String>),
    /// It trapped or broke a limit: the explanation.
    Trapped(String),
    /// The host stopped it at a call.
    Interrupted,
}

/// Something that can run: a component, or a Rust closure in tests.
#[async_trait]
pub trait Strategy: Send + Sync {
    /// Runs from the beginning; the calls answer from the journal first.
    async fn run(&self, calls: Arc<dyn Calls>, run: Run) -> Ran;
}

/// Where the driver gets what a journal's header names.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The target of a rollout.
    async fn target(&self, spec: &TargetSpec) -> Result<Arc<dyn Target>, HostError>;
    /// The routes that share requests between the two arms of a target today, and did not
    /// when it was pinned: somebody has made them since. Only those that send some elsewhere
    /// than to the arm `home`.
    ///
    /// # Errors
    /// The target does not answer.
    async fn newcomers(&self, _pinned: &TargetSpec, _home: &str) -> Result<Vec<Also>, HostError> {
        Ok(vec![])
    }
    /// The strategy with that digest.
    async fn strategy(&self, sha256: &str) -> Result<Arc<dyn Strategy>, String>;
    /// Something that a person who watches wants to know at once, such as why
    /// nothing happens for a while: one sentence.
    fn notice(&self, _rollout: &str, _text: &str) {}
}

/// Times and switches of a driver.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long a lease lasts without a sign of life.
    pub lease_ttl_ms: Millis,
    /// How often a wait looks for signals.
    pub signal_poll_ms: Millis,
    /// Waits longer than this leave memory.
    pub park_after_ms: Millis,
    /// Tries of one write or read before it counts as failed.
    pub attempts: u32,
    /// Pause before the second try; doubles each time.
    pub retry_ms: Millis,
    /// How often alarms and deployments are looked at.
    pub guard_poll_ms: Millis,
    /// How long the way back goes on asking a target that does not answer.
    pub way_back_patience_ms: Millis,
    /// Whether commands and the deadline reach a strategy that computes and makes
    /// no call. Not where only the strategy can make time pass.
    pub watches_computing: bool,
    /// Evict the rollout at every call, to prove that replay rebuilds it.
    pub chaos_evict: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease_ttl_ms: 30_000,
            signal_poll_ms: 100,
            park_after_ms: 5_000,
            attempts: 4,
            retry_ms: 250,
            guard_poll_ms: 15_000,
            way_back_patience_ms: 300_000,
            watches_computing: true,
            chaos_evict: false,
        }
    }
}

impl Options {
    /// Pause before the next try on the way back, after so many that failed, ms: it
    /// doubles each time, up to [`PAUSE_MAX_MS`].
    #[must_use]
    pub fn pause_after(&self, failures: u32) -> Millis {
        let doubled = self.retry_ms << failures.saturating_sub(1).min(10);
        doubled.min(PAUSE_MAX_MS)
    }
}

/// Where a rollout stands when the driver lets go of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It has ended.
    Over(End, String),
    /// A person must act.
    Held(Hold),
    /// The strategy did not repeat itself.
    Diverged(Mismatch),
    /// It waits until then (Unix ms).
    Parked(Millis),
}

impl Standing {
    /// That of a rollout that does not move any more; none if it goes on.
    #[must_use]
    pub fn settled(status: &Status) -> Option<Self> {
        match (&status.end, &status.hold, &status.mismatch) {
            (Some((end, reason)), ..) => Some(Self::Over(*end, reason.clone())),
            (None, Some(hold), _) => Some(Self::Held(hold.clone())),
            (None, None, Some(mismatch)) => Some(Self::Diverged(mismatch.clone())),
            (None, None, None) => None,
        }
    }
}

/// Why the driver could not do its work at all. The rollout is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The store refused, or another process is the driver.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The target cannot be reached.
    #[error("failed to reach the target: {0}")]
    Target(#[from] HostError),
    /// The pinned plugin cannot be loaded.
    #[error("failed to load the strategy: {0}")]
    Strategy(String),
    /// The journal does not begin with a header.
    #[error("the journal of rollout {0} has no beginning")]
    Journal(String),
    /// The task that drove it panicked: a defect of the engine.
    #[error("the engine failed while it drove the rollout: {0}")]
    Panicked(String),
    /// Another process took over while a write of this one was on its way.
    #[error("{report}")]
    Overtaken {
        /// What that write has done.
        report: String,
        /// Whether it had its effect after all.
        landed: bool,
    },
}

/// Longest pause between two tries on the way back, ms.
pub const PAUSE_MAX_MS: Millis = 15_000;

/// Most writes on the way to an end. The longest plan, a way back after a
/// promotion by copy, has four; the rest is for others who write meanwhile.
pub const WRITES_MAX: u32 = 6;

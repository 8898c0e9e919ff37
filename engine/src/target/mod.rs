//! The target port: what a rollout can see of, and do to, a load balancer.
//!
//! Few verbs, all absolute, so that repeating one is safe. Implementations:
//! [`aws`], an application load balancer before two ECS services, [`local`], a
//! balancer of our own over its admin API, and [`crate::simulate`], a scripted
//! one.

pub mod aws;
pub mod http;
pub mod local;
mod query;
pub mod secret;

use async_trait::async_trait;

use crate::model::{
    ArmHealth, ErrorKind, HostError, MetricsQuery, Millis, Observed, Point, ProbeReport, Release,
    Sample, Traffic, Weights,
};
use crate::spec::{Probe, Query};

/// Two arms behind one listener.
#[async_trait]
pub trait Target: Send + Sync {
    /// The same text for the same target, whoever asks: the key of its lease.
    fn identity(&self) -> &str;
    /// Length of one metrics sample, ms.
    fn sample_period_ms(&self) -> u32;

    /// Arms, weights, releases and health, read from the target itself.
    async fn observe(&self) -> Result<Observed, HostError>;
    /// The part of [`Target::observe`] that a traffic change needs.
    async fn traffic(&self) -> Result<Traffic, HostError> {
        Ok(self.observe().await?.traffic())
    }
    /// The part of [`Target::observe`] that a raise needs.
    async fn health(&self) -> Result<Vec<ArmHealth>, HostError> {
        Ok(self.observe().await?.health())
    }
    /// What must take a rollout back whatever its strategy thinks, if anything:
    /// an alarm of these names, or the deployment of that arm, which the platform
    /// gave up.
    async fn tripped(
        &self,
        _alarms: &[String],
        _arm: Option<&str>,
    ) -> Result<Option<String>, HostError> {
        Ok(None)
    }

    /// Writes the whole weights. Not read back here.
    async fn set_weights(&self, weights: &Weights) -> Result<(), HostError>;
    /// Puts a release into an arm; requests under way are finished by the old one.
    async fn set_version(&self, arm: &str, release: &Release) -> Result<(), HostError>;
    /// How many tasks the arm shall have.
    async fn set_tasks(&self, arm: &str, _tasks: u32) -> Result<(), HostError> {
        Err(HostError::new(
            ErrorKind::Invalid,
            "no-tasks",
            format!("{arm} has no number of tasks that could be set"),
        ))
    }
    /// Closed samples of all arms, oldest first.
    async fn samples(&self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError>;
    /// Values of a custom query for all arms.
    async fn query(&self, query: &Query, since: Millis) -> Result<Vec<Point>, HostError>;
    /// One probe against an arm, past the weights.
    async fn probe(&self, arm: &str, probe: &Probe) -> Result<ProbeReport, HostError>;
}

//! The target port: what a rollout can see of, and do to, a load balancer.
//!
//! Few verbs, all absolute, so that repeating one is safe. Implementations:
//! [`local`], a balancer of our own over its admin API, and
//! [`crate::simulate`], a scripted one.

pub mod local;

use async_trait::async_trait;

use crate::model::{
    HostError, MetricsQuery, Millis, Observed, Point, ProbeReport, Release, Sample, Weights,
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
    /// Writes the whole weights. Not read back here.
    async fn set_weights(&self, weights: &Weights) -> Result<(), HostError>;
    /// Puts a release into an arm; requests under way are finished by the old one.
    async fn set_version(&self, arm: &str, release: &Release) -> Result<(), HostError>;
    /// Closed samples of all arms, oldest first.
    async fn samples(&self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError>;
    /// Values of a custom query for all arms.
    async fn query(&self, query: &Query, since: Millis) -> Result<Vec<Point>, HostError>;
    /// One probe against an arm, past the weights.
    async fn probe(&self, arm: &str, probe: &Probe) -> Result<ProbeReport, HostError>;
}

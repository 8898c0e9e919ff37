//! What the admin API does to a balancer that runs, and its state file.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::arm::{Arm, Running};
use super::health::Manners;
use super::program::Logs;
use super::proxy::Proxy;
use super::samples::Second;
use crate::clock::{Clock, SystemClock};
use crate::model::query::Probe;
use crate::model::{
    ErrorKind, HostError, MetricsQuery, Millis, Observed, ProbeReport, Release, Sample, Weights,
};

/// What the admin API reads and changes.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) proxy: Arc<Proxy>,
    pub(super) listen: SocketAddr,
    pub(super) manners: Manners,
    pub(super) drain: Duration,
    pub(super) logs: Option<Logs>,
    pub(super) state: Option<PathBuf>,
    /// Held during a change, so that the file and the memory agree.
    pub(super) changing: Mutex<()>,
}

/// The content of the state file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) weights: Weights,
    pub(super) releases: Vec<(String, Release)>,
}

impl Control {
    pub(super) fn observe(&self) -> Observed {
        let weights = self.proxy.weights();
        Observed {
            arms: self
                .proxy
                .arms
                .iter()
                .map(|arm| arm.observe(weights.weight(&arm.name)))
                .collect(),
            sticky: self.proxy.is_sticky(),
            address: format!("http://{}", self.listen),
            others: vec![],
        }
    }

    pub(super) async fn set_weights(&self, weights: &Weights) -> Result<(), HostError> {
        let _one = self.changing.lock().await;
        let names: Vec<String> = self.proxy.arms.iter().map(|a| a.name.clone()).collect();
        let weights = weights
            .ordered_as(&names)
            .map_err(|m| HostError::new(ErrorKind::Invalid, "invalid-weights", m))?;
        self.remember(&weights)?;
        self.proxy.set_weights(weights);
        Ok(())
    }

    pub(super) async fn set_release(&self, arm: &str, release: Release) -> Result<(), HostError> {
        let _one = self.changing.lock().await;
        let arm = self.arm(arm)?;
        let logs = self.logs.clone();
        let tally = Arc::new(arm.running().tally.of_the_next());
        let running = Running::start(&arm.name, release, &self.manners, logs, tally).await?;
        arm.replace(running, self.drain);
        self.remember(&self.proxy.weights())
    }

    pub(super) fn samples(&self, query: &MetricsQuery) -> Vec<Sample> {
        let now = SystemClock.now();
        let mut samples: Vec<Sample> = self
            .proxy
            .arms
            .iter()
            .flat_map(|arm| {
                arm.running()
                    .tally
                    .recorder()
                    .samples(now, &arm.name, query)
            })
            .collect();
        samples.sort_by_key(|s| s.start);
        samples
    }

    pub(super) fn counted(&self, since: Millis) -> Vec<Second> {
        let now = SystemClock.now();
        let arms = self.proxy.arms.iter();
        let mut counted: Vec<Second> = arms
            .flat_map(|arm| {
                arm.running()
                    .tally
                    .recorder()
                    .counted(now, &arm.name, since)
            })
            .collect();
        counted.sort_by_key(|c| c.at);
        counted
    }

    pub(super) async fn probe(&self, arm: &str, probe: &Probe) -> Result<ProbeReport, HostError> {
        Ok(self.arm(arm)?.probe(probe).await)
    }

    fn arm(&self, name: &str) -> Result<&Arm, HostError> {
        let found = self.proxy.arms.iter().find(|a| a.name == name);
        found.ok_or_else(|| {
            HostError::new(
                ErrorKind::NotFound,
                "no-such-arm",
                format!("there is no arm {name:?}"),
            )
        })
    }

    /// Writes a new file and renames it over the old one, so that a crash leaves
    /// one of the two complete.
    fn remember(&self, weights: &Weights) -> Result<(), HostError> {
        let Some(place) = &self.state else {
            return Ok(());
        };
        let remembered = Remembered {
            weights: weights.clone(),
            releases: self
                .proxy
                .arms
                .iter()
                .map(|arm| (arm.name.clone(), arm.observe(0).release))
                .collect(),
        };
        let failed = |e: &dyn std::fmt::Display| {
            HostError::new(
                ErrorKind::Internal,
                "state-file",
                format!("failed to write {}: {e}", place.display()),
            )
        };
        let bytes = serde_json::to_vec_pretty(&remembered).map_err(|e| failed(&e))?;
        let fresh = place.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&fresh)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            })
            .map_err(|e| failed(&e))?;
        std::fs::rename(&fresh, place).map_err(|e| failed(&e))
    }
}

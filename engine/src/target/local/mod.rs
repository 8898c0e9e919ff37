//! The local target: a weighted load balancer that is part of the engine, used
//! through its loopback admin API. The same client serves a balancer in this
//! process and one that `engine local` runs.

pub mod admin;
mod answer;
mod arm;
mod backend;
pub mod balancer;
mod connections;
mod control;
mod cookie;
mod demo;
pub mod health;
mod key;
pub mod load;
mod program;
mod proxy;
mod samples;
mod tunnel;
mod turn;
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use hyper::StatusCode;
use key::Key;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::{Clock as _, SystemClock};
use crate::model::network::Network;
use crate::model::query::{Count, Probe, Query};
use crate::model::{
    ErrorKind, HostError, MetricsQuery, Millis, Observed, Point, ProbeReport, Release, Sample,
    Weights,
};
use crate::target::Target;
use crate::target::http::{Answer, Client};
use crate::target::query;
use samples::{Counts, Second};

/// Length of one sample, ms.
pub const SAMPLE_PERIOD_MS: u32 = 1_000;
/// Timeout of one admin call.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request or an answer cannot be passed on.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// A balancer, by its admin address.
#[derive(Debug, Clone)]
pub struct LocalTarget {
    admin: SocketAddr,
    identity: String,
    client: Client,
    /// Asks queries, perhaps of other machines.
    asking: Client,
}

impl LocalTarget {
    /// The target whose admin API listens at `admin`.
    #[must_use]
    pub fn new(admin: SocketAddr) -> Self {
        Self {
            admin,
            identity: identity(admin),
            client: Client::default(),
            asking: Client::default(),
        }
    }

    /// The same, with queries that go through proxies where the network has them.
    #[must_use]
    pub fn with_network(self, network: &Network) -> Self {
        Self {
            asking: Client::through(network),
            ..self
        }
    }

    async fn call<B, T>(&self, method: &str, path: &str, body: Option<&B>) -> Result<T, HostError>
    where
        B: Serialize + Sync,
        T: DeserializeOwned,
    {
        self.patient_call(method, path, body, ADMIN_TIMEOUT).await
    }

    async fn patient_call<B, T>(
        &self,
        method: &str,
        path: &str,
        body: Option<&B>,
        timeout: Duration,
    ) -> Result<T, HostError>
    where
        B: Serialize + Sync,
        T: DeserializeOwned,
    {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|e| internal(&e.to_string()))?;
        // A balancer refuses a call before it does anything, and writes its key again
        // if it was lost, so a second attempt is safe and may succeed.
        let mut tried = vec![];
        for _ in 0..2 {
            let fresh = key::keys(self.admin).into_iter().map(Some);
            let mut keys: Vec<_> = fresh.filter(|key| !tried.contains(key)).collect();
            if keys.is_empty() && tried.is_empty() {
                keys.push(None);
            }
            for key in keys {
                let answer = self.send(method, path, body.clone(), key.as_ref(), timeout);
                let answer = answer.await?;
                tried.push(key);
                if answer.status == StatusCode::UNAUTHORIZED {
                    continue;
                }
                if answer.status.is_success() {
                    return serde_json::from_slice(&answer.body)
                        .map_err(|e| internal(&e.to_string()));
                }
                return Err(serde_json::from_slice(&answer.body).unwrap_or_else(|_| {
                    let message = format!("{method} {path}: {}", answer.status);
                    match answer.status {
                        StatusCode::NOT_FOUND => {
                            HostError::new(ErrorKind::NotFound, NO_SUCH_CALL, message)
                        }
                        _ => internal(&message),
                    }
                }));
            }
        }
        Err(HostError::new(
            ErrorKind::Denied,
            admin::UNAUTHORIZED,
            format!(
                "the balancer at {} refuses this process, because its key is not in {}\n\nhint: only the user who started the balancer has its key, on the machine or in the container where it was started; run this as that user",
                self.admin,
                key::places(self.admin)
            ),
        ))
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
        key: Option<&Key>,
        timeout: Duration,
    ) -> Result<Answer, HostError> {
        let url = format!("http://{}{path}", self.admin);
        let headers: Vec<_> = key
            .map(|k| ("authorization", k.header()))
            .into_iter()
            .collect();
        super::may_leave()?;
        let answer = self.client.send_with(method, &url, &headers, body, timeout);
        answer.await.map_err(|e| {
            HostError::new(
                ErrorKind::Unavailable,
                "admin-unreachable",
                format!(
                    "no balancer answers at {}: {e}\n\nhint: start one with `engine local`, or name a target on AWS with --stack",
                    self.admin
                ),
            )
            .retryable()
        })
    }
}

/// The identity of a local target, under which it is leased.
#[must_use]
pub fn identity(admin: SocketAddr) -> String {
    format!("local:{admin}")
}

fn internal(message: &str) -> HostError {
    HostError::new(ErrorKind::Internal, "admin-protocol", message)
}

const NOTHING: Option<&()> = None;

/// Code of the error for a call that a balancer does not know.
const NO_SUCH_CALL: &str = "no-such-call";

#[async_trait]
impl Target for LocalTarget {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn sample_period_ms(&self) -> u32 {
        SAMPLE_PERIOD_MS
    }

    fn late_write_ms(&self) -> Millis {
        let call = Millis::try_from(ADMIN_TIMEOUT.as_millis()).unwrap_or(Millis::MAX);
        call.saturating_add(super::LEAVE_WITHIN_MS)
    }

    async fn observe(&self) -> Result<Observed, HostError> {
        self.call("GET", "/v1/state", NOTHING).await
    }

    async fn set_weights(&self, weights: &Weights) -> Result<(), HostError> {
        self.call("PUT", "/v1/weights", Some(weights)).await
    }

    async fn set_version(&self, arm: &str, release: &Release) -> Result<(), HostError> {
        let path = format!("/v1/arms/{arm}/release");
        self.call("PUT", &path, Some(release)).await
    }

    async fn samples(&self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError> {
        self.call("POST", "/v1/metrics", Some(query)).await
    }

    async fn query(&self, query: &Query, since: Millis) -> Result<Vec<Point>, HostError> {
        let arms = self.observe().await?.arms;
        let arms: Vec<query::Words> = arms
            .into_iter()
            .map(|a| query::Words::new(&a.name, &a.release.version))
            .collect();
        query::ask(&self.asking, query, &arms, since, SystemClock.now()).await
    }

    async fn counted(&self, count: Count, since: Millis) -> Result<Option<Vec<Point>>, HostError> {
        let of: fn(&Counts) -> u32 = match count {
            Count::Unanswered => |counts| counts.unanswered,
            Count::Asked => |counts| counts.asked,
            Count::SentAgain => |counts| counts.sent_again,
            Count::ClientErrors | Count::Restarts | Count::OutOfMemory | Count::EndedWith => {
                return Ok(None);
            }
        };
        let query = admin::CountsQuery { since };
        let seconds: Vec<Second> = match self.call("POST", admin::COUNTS, Some(&query)).await {
            Ok(seconds) => seconds,
            // An older balancer does not count.
            Err(error) if error.code == NO_SUCH_CALL => return Ok(None),
            Err(error) => return Err(error),
        };
        let point = |second: Second| Point {
            arm: second.arm,
            at: second.at,
            value: of(&second.counts).into(),
        };
        Ok(Some(seconds.into_iter().map(point).collect()))
    }

    async fn probe(&self, arm: &str, probe: &Probe) -> Result<ProbeReport, HostError> {
        let path = format!("/v1/arms/{arm}/probe");
        let patience = Duration::from_millis(u64::from(probe.timeout_ms)) + ADMIN_TIMEOUT;
        self.patient_call("POST", &path, Some(probe), patience)
            .await
    }
}

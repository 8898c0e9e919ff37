//! The answers about targets and their traffic.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::rollout::Status;
use crate::model::{Elsewhere, HostError, Millis, ObservedArm, OtherRoute, Weights};
use crate::ops::status::{Live, Overview};
use crate::ops::traffic::Moved;

/// Where the traffic goes, and the rollout that moves it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Standing {
    /// The target now; null if it cannot be reached.
    pub target: Option<Target>,
    /// Why it cannot be reached; absent if it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// The rollout that has the target, or the last one that had it; null if there was
    /// none.
    pub rollout: Option<Status>,
    /// Whether a process drives that rollout; null if it has ended.
    pub driven: Option<bool>,
    /// Whether the traffic was moved since that rollout ended, by a verb or by somebody
    /// else; absent if it was not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub moved_since: bool,
}

/// A target as it is now.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    /// Its identity: an ARN on AWS.
    pub identity: String,
    /// Where users send their requests.
    pub address: String,
    /// Whether clients stick to an arm whatever the weights say.
    pub sticky: bool,
    /// Its arms, in order.
    pub arms: Vec<ObservedArm>,
    /// The other listeners and rules that move with it; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<OtherRoute>,
    /// What each arm did over the last samples, by its name.
    pub rates: BTreeMap<String, Rates>,
    /// What other listeners and rules send to the arms; absent if that cannot be
    /// read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Vec<Elsewhere>>,
    /// Why that cannot be read; absent if it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere_unread: Option<String>,
    /// Why nothing but a way back may write to it; absent if it may be written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
}

/// What an arm did over the last samples.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Rates {
    /// Requests per second.
    pub rps: f64,
    /// Failed requests in percent; null without requests.
    pub error_percent: Option<f64>,
    /// The 99th percentile of the response times, ms, as a mean weighted by requests; null
    /// if it is not known.
    pub p99_ms: Option<f64>,
    /// When that was measured, of the release that the arm runs now; null where nothing
    /// was.
    pub measured: Option<Measured>,
}

/// A time in which something was measured.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Measured {
    /// Its begin (Unix ms).
    pub since: Millis,
    /// Its end (Unix ms).
    pub until: Millis,
}

impl From<&Overview> for Standing {
    fn from(overview: &Overview) -> Self {
        let known = overview.rollout.as_ref();
        let live = overview.live.as_ref();
        Self {
            target: live.map(|live| Target::of(&overview.identity, live)),
            unreachable: overview.silent.as_ref().map(ToString::to_string),
            rollout: known.map(|known| (&known.status).into()),
            driven: known.and_then(|known| known.driven),
            moved_since: overview.has_moved_on(),
        }
    }
}

impl Target {
    fn of(identity: &str, live: &Live) -> Self {
        let observed = &live.seen.observed;
        let (elsewhere, elsewhere_unread) = routes(&live.elsewhere);
        let rates = observed.arms.iter().map(|arm| {
            let rates = live.seen.rates(&arm.name);
            let rates = Rates {
                rps: rates.rps,
                error_percent: rates.error_percent,
                p99_ms: rates.p99_ms,
                measured: rates.measured.map(|time| Measured {
                    since: time.since,
                    until: time.until,
                }),
            };
            (arm.name.clone(), rates)
        });
        Self {
            identity: identity.to_owned(),
            address: observed.address.clone(),
            sticky: observed.sticky,
            arms: observed.arms.clone(),
            routes: observed.others.clone(),
            rates: rates.collect(),
            elsewhere,
            elsewhere_unread,
            unfit: live.fit.as_ref().err().map(|error| error.message.clone()),
        }
    }
}

/// What other routes send to the arms, or why that could not be read.
fn routes(read: &Result<Vec<Elsewhere>, HostError>) -> (Option<Vec<Elsewhere>>, Option<String>) {
    match read {
        Ok(routes) => (Some(routes.clone()), None),
        Err(error) => (None, Some(error.message.clone())),
    }
}

/// Traffic that was moved by hand.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// The small rollout that moved it; absent if the change of a stack did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// Of `rollback` and `undo`: why the traffic belongs to the arm that has it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The weights before.
    pub before: Weights,
    /// The weights as they were read back.
    pub weights: Weights,
    /// The other listeners and rules that moved too, with their weights before; absent if
    /// there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<OtherRoute>,
    /// What other listeners and rules send to the arms, if one arm has all weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Vec<Elsewhere>>,
    /// Why that could not be read; absent if it could.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere_unread: Option<String>,
}

impl Change {
    /// The answer where the change of a stack that had the target moved the traffic.
    #[must_use]
    pub fn through(before: &Weights, now: &Weights) -> Self {
        Self {
            rollout: None,
            why: None,
            before: before.clone(),
            weights: now.clone(),
            routes: vec![],
            elsewhere: None,
            elsewhere_unread: None,
        }
    }
}

impl From<&Moved> for Change {
    fn from(moved: &Moved) -> Self {
        let read = moved.elsewhere.as_ref().map(|(_, read)| routes(read));
        let (elsewhere, elsewhere_unread) = read.unwrap_or_default();
        Self {
            rollout: Some(moved.rollout.clone()),
            why: moved.why.clone(),
            routes: moved.others.clone(),
            elsewhere,
            elsewhere_unread,
            ..Self::through(&moved.before, &moved.now)
        }
    }
}

/// A local balancer that runs.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Local {
    /// Where users send their requests.
    pub listen: SocketAddr,
    /// Where its admin API listens.
    pub admin: SocketAddr,
}

//! The target port: what a rollout can read from, and write to, a load balancer.
//!
//! It has few verbs, all absolute, so that repeating one is safe. Implementations:
//! [`aws`], an application load balancer before two ECS services; [`local`], a
//! balancer that is part of the engine, over its admin API; and [`crate::simulate`],
//! a scripted one.

pub mod aws;
pub mod http;
pub mod local;
mod query;
pub mod route;
pub mod secret;
pub mod tls;

use async_trait::async_trait;

use crate::clock::{Clock as _, SystemClock};

use crate::model::query::{Count, Probe, Query};
use crate::model::{
    ArmHealth, ArmScaling, Elsewhere, ErrorKind, HostError, Images, MetricsQuery, Millis, Observed,
    ObservedArm, Point, ProbeReport, Release, Running, Sample, Scaling, Traffic, Weights,
};

/// How long after the last proof of its lease a process may send a write, ms.
pub const LEAVE_WITHIN_MS: Millis = 5_000;

tokio::task_local! {
    /// Until when a request of this task may be sent: Unix ms, and on the clock that
    /// nobody can set.
    static LEAVE_BY: (Millis, tokio::time::Instant);
}

/// Runs what must be sent within that time or not at all: a process can be frozen at
/// any point, and another one may drive its rollout when it wakes.
pub async fn leaving_within<F: Future>(time: std::time::Duration, send: F) -> F::Output {
    let ms = Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX);
    let wall = SystemClock.now().saturating_add(ms);
    LEAVE_BY
        .scope((wall, tokio::time::Instant::now() + time), send)
        .await
}

/// Whether a request may still be sent. Must be asked at the last moment.
///
/// # Errors
/// It is too late; the call may be repeated once the lease is proven again.
pub fn may_leave() -> Result<(), HostError> {
    let late = LEAVE_BY.try_with(|(wall, steady)| {
        SystemClock.now() > *wall || tokio::time::Instant::now() > *steady
    });
    if late.unwrap_or(false) {
        return Err(HostError::new(
            ErrorKind::Unavailable,
            "left-too-late",
            format!(
                "more than {} s have passed since the lease was proven, so this attempt was not sent",
                LEAVE_WITHIN_MS / 1_000
            ),
        )
        .retryable());
    }
    Ok(())
}

fn no_action(identity: &str) -> HostError {
    HostError::new(
        ErrorKind::Invalid,
        "no-action",
        format!("{identity} has only weights, and no action that could be restored"),
    )
}

/// What an arm runs, with the digests of its images as far as the target says them.
pub async fn running(target: &dyn Target, arm: &ObservedArm) -> Running {
    let images = target.digests(&arm.name).await;
    let unread = images.as_ref().err().map(ToString::to_string);
    let Images { digests, silent } = images.unwrap_or_default();
    Running {
        arm: arm.name.clone(),
        release: arm.release.clone(),
        digests,
        silent,
        unread,
    }
}

/// A stack that a target belongs to, as it is now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StackNow {
    /// What the platform is doing to it, in its own word (`UPDATE_IN_PROGRESS`); none
    /// once it is done.
    pub at_work: Option<String>,
    /// Whether its last operation came to a good end.
    pub well: bool,
    /// The weights that its parameters say: what it writes when it writes any. None
    /// where it has no such parameters.
    pub believes: Option<Weights>,
}

impl StackNow {
    /// Whether these live weights are somebody else's: the stack would have written
    /// others.
    #[must_use]
    pub fn disowns(&self, live: &Weights) -> bool {
        self.believes.as_ref().is_some_and(|own| {
            live.0
                .iter()
                .any(|w| own.share(&w.arm) != live.share(&w.arm))
        })
    }
}

/// The order in which routes move that move together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The target's own route, which most users take, comes last, and the first failure
    /// ends it: wherever it breaks off, the fewest users are on the candidate.
    Raise,
    /// The target's own route comes first, and a route that fails does not keep the others:
    /// wherever it breaks off, most users are back.
    Back,
}

/// Weights for every route of a target.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The weights.
    pub to: &'a Weights,
    /// The order of the routes.
    pub order: Order,
    /// Only routes that have these weights now are written to; all, if none are given.
    pub only_from: Option<&'a Weights>,
}

impl<'a> Step<'a> {
    /// These weights for all routes, in the order of a way back.
    #[must_use]
    pub fn back_to(to: &'a Weights) -> Self {
        Self {
            to,
            order: Order::Back,
            only_from: None,
        }
    }
}

/// Two arms behind one listener.
#[async_trait]
pub trait Target: Send + Sync {
    /// The same text for the same target, in every process: the key of its lease.
    fn identity(&self) -> &str;
    /// Length of one metrics sample, ms.
    fn sample_period_ms(&self) -> u32;
    /// How long after a process lost its lease a write of it can still have an effect,
    /// ms: [`LEAVE_WITHIN_MS`] and the timeout of one attempt. 0 if no write outlives its
    /// call.
    fn late_write_ms(&self) -> Millis {
        0
    }

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
    /// What routes other than the one whose weights move send to the arms. No task is
    /// taken from an arm that they send users to, and then no arm is said to have all
    /// traffic.
    async fn elsewhere(&self) -> Result<Vec<Elsewhere>, HostError> {
        Ok(vec![])
    }
    /// Whether this target may be written to; the error says why not. The way back does
    /// not ask.
    async fn fit(&self) -> Result<(), HostError> {
        Ok(())
    }
    /// Digests of the images from which the running backends of an arm were started, and
    /// how many of them do not say it; nothing where backends are not started from images.
    async fn digests(&self, _arm: &str) -> Result<Images, HostError> {
        Ok(Images::default())
    }
    /// The stack of that name as it is now; none if it is gone, or where there are no
    /// stacks.
    async fn stack(&self, _stack: &str) -> Result<Option<StackNow>, HostError> {
        Ok(None)
    }
    /// Why a rollout must go back whatever its strategy decides, if there is a reason: an
    /// alarm of these names, or the deployment of that arm, which the platform gave up.
    async fn tripped(
        &self,
        _alarms: &[String],
        _arm: Option<&str>,
    ) -> Result<Option<String>, HostError> {
        Ok(None)
    }

    /// The same for the way back: a route that moves with the target's own and cannot be
    /// read must not keep the others where they are, so it is only noted.
    async fn glance(&self) -> Result<Traffic, HostError> {
        self.traffic().await
    }

    /// Writes the weights of all arms, on all routes of the target. It does not read them
    /// back.
    async fn set_weights(&self, weights: &Weights) -> Result<(), HostError>;
    /// The same, with what matters where several routes move together.
    async fn set_all(&self, step: Step<'_>) -> Result<(), HostError> {
        self.set_weights(step.to).await
    }
    /// Replaces the release of an arm; the old one finishes the requests under way.
    async fn set_version(&self, arm: &str, release: &Release) -> Result<(), HostError>;
    /// Writes the whole action of the route as it was written down: weights, stickiness,
    /// login and all else. It does not read it back.
    async fn restore(&self, _action: &serde_json::Value) -> Result<(), HostError> {
        Err(no_action(self.identity()))
    }
    /// Whether the route has exactly that action.
    async fn does(&self, _action: &serde_json::Value) -> Result<bool, HostError> {
        Err(no_action(self.identity()))
    }
    /// Sets the number of tasks of an arm.
    async fn set_tasks(&self, arm: &str, _tasks: u32) -> Result<(), HostError> {
        Err(HostError::new(
            ErrorKind::Invalid,
            "no-tasks",
            format!("the number of tasks of {arm} cannot be set"),
        ))
    }
    /// The arms whose number of tasks auto scaling changes.
    async fn scaling(&self) -> Result<Vec<ArmScaling>, HostError> {
        Ok(vec![])
    }
    /// Sets all that auto scaling may do with an arm that it changes.
    async fn set_scaling(&self, arm: &str, _scaling: &Scaling) -> Result<(), HostError> {
        Err(HostError::new(
            ErrorKind::Invalid,
            "no-scaling",
            format!("auto scaling does not change {arm}"),
        ))
    }
    /// Samples of complete periods of all arms, oldest first.
    async fn samples(&self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError>;
    /// Values of a custom query for all arms.
    async fn query(&self, query: &Query, since: Millis) -> Result<Vec<Point>, HostError>;
    /// A count of each arm, a value for each period with requests, or with such tasks where
    /// tasks are counted; none where the target does not count that.
    async fn counted(
        &self,
        _count: Count,
        _since: Millis,
    ) -> Result<Option<Vec<Point>>, HostError> {
        Ok(None)
    }
    /// Sends one probe to an arm, whatever the weights are.
    async fn probe(&self, arm: &str, probe: &Probe) -> Result<ProbeReport, HostError>;
}

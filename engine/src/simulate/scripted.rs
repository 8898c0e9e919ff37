//! A scripted target under a virtual clock, with expected counts and without
//! randomness. For tests and rehearsals.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::clock::Clock;
use crate::model::query::{Probe, Query};
use crate::model::{
    DemoFault, Deployment, ErrorKind, HostError, Latency, MetricsQuery, Millis, Observed,
    ObservedArm, Point, ProbeReport, Release, Sample, Source, Traffic, Weights,
};
use crate::target::Target;

/// How the two versions behave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behaviour {
    /// Requests per second over both arms.
    pub rps: f64,
    /// Share of errors of the stable and of the candidate version, 0-1.
    pub error_rate: [f64; 2],
    /// Mean latency of the two versions, ms.
    pub latency_ms: [f64; 2],
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            rps: 100.0,
            error_rate: [0.0, 0.0],
            latency_ms: [20.0, 20.0],
        }
    }
}

/// A fault that happens once.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The next write fails before it has an effect.
    WriteRefused(HostError),
    /// The next write has its effect, but its answer is lost.
    AnswerLost,
    /// The next write is answered with success and has no effect.
    WriteIgnored,
    /// The next observation fails.
    ObserveFails(HostError),
    /// The next metrics query fails.
    MetricsFail(HostError),
}

/// A target with two arms. The first arm is the stable one.
pub struct SimulatedTarget {
    name: String,
    clock: Arc<dyn Clock>,
    behaviour: Behaviour,
    sample_period_ms: u32,
    /// The version that behaves like the first of each pair.
    stable: String,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    observed: Observed,
    faults: VecDeque<Fault>,
    verbs: Vec<String>,
    /// The changes of the weights and their times, for the samples.
    weights_since: Vec<(Millis, Weights)>,
}

impl std::fmt::Debug for SimulatedTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedTarget")
            .field("name", &self.name)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl SimulatedTarget {
    /// A target with two healthy arms of these names, all traffic on the first.
    #[must_use]
    pub fn new(
        name: &str,
        arms: [&str; 2],
        clock: Arc<dyn Clock>,
        behaviour: Behaviour,
        sample_period_ms: u32,
    ) -> Self {
        let arm = |name: &str, version: &str, weight| ObservedArm {
            name: name.to_owned(),
            release: Release {
                version: version.to_owned(),
                source: Source::Demo(DemoFault::default()),
            },
            weight,
            healthy: 2,
            total: 2,
            health_reason: None,
            tasks: None,
            deployment: Deployment::Steady,
            since: None,
            spoiled: 0,
            unanswered: 0,
            sent_again: 0,
        };
        let observed = Observed {
            arms: vec![arm(arms[0], "v1", 100), arm(arms[1], "v2", 0)],
            sticky: false,
            address: "http://simulated.invalid".to_owned(),
            others: vec![],
        };
        let weights_since = vec![(0, observed.weights())];
        Self {
            name: name.to_owned(),
            clock,
            behaviour,
            sample_period_ms,
            stable: "v1".to_owned(),
            state: Mutex::new(State {
                observed,
                faults: VecDeque::new(),
                verbs: vec![],
                weights_since,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of another target, as it was observed.
    #[must_use]
    pub fn like(
        live: Observed,
        clock: Arc<dyn Clock>,
        behaviour: Behaviour,
        sample_period_ms: u32,
    ) -> Self {
        let mut target = Self::new("like", ["", ""], clock, behaviour, sample_period_ms);
        let state = State {
            faults: VecDeque::new(),
            verbs: vec![],
            weights_since: vec![(0, live.weights())],
            observed: live,
        };
        target.stable = state.observed.arms[0].release.version.clone();
        target.state = Mutex::new(state);
        target
    }

    /// Adds faults, one for each matching verb, in this order.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// Removes the faults that have not happened.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Changes the target as another writer would.
    pub fn meddle(&self, change: impl FnOnce(&mut Observed)) {
        let now = self.clock.now();
        let mut state = self.state();
        change(&mut state.observed);
        let weights = state.observed.weights();
        state.weights_since.push((now, weights));
    }

    /// The writes so far, in order.
    pub fn verbs(&self) -> Vec<String> {
        self.state().verbs.clone()
    }

    /// The present state of the target, without a call.
    pub fn peek(&self) -> Observed {
        self.state().observed.clone()
    }

    fn next_fault(&self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut state = self.state();
        if state.faults.front().is_some_and(wanted) {
            state.faults.pop_front()
        } else {
            None
        }
    }

    fn write(&self, verb: String, change: impl FnOnce(&mut Observed)) -> Result<(), HostError> {
        let fault = self.next_fault(|f| {
            matches!(
                f,
                Fault::WriteRefused(_) | Fault::AnswerLost | Fault::WriteIgnored
            )
        });
        match fault {
            Some(Fault::WriteRefused(error)) => return Err(error),
            Some(Fault::WriteIgnored) => return Ok(()),
            _ => {}
        }
        self.state().verbs.push(verb);
        self.meddle(change);
        if fault == Some(Fault::AnswerLost) {
            return Err(unavailable(
                "the connection was lost before the answer came",
            ));
        }
        Ok(())
    }

    /// The sample of one arm in one interval, with expected counts.
    fn sample(&self, arm: usize, start: Millis, weights: &Weights, q: &MetricsQuery) -> Sample {
        let observed = &self.state().observed.arms[arm];
        let name = observed.name.clone();
        // Behaviour depends on the version and not on the arm: after a copy the
        // stable arm runs the candidate's version.
        let kind = usize::from(observed.release.version != self.stable);
        let seconds = f64::from(self.sample_period_ms) / 1_000.0;
        let share = weights.share(&name) / 100.0;
        let requests = count(self.behaviour.rps * seconds * share);
        let mean = self.behaviour.latency_ms[kind];
        Sample {
            arm: name,
            zone: None,
            start,
            period_ms: self.sample_period_ms,
            requests,
            errors: count(f64::from(requests) * self.behaviour.error_rate[kind]),
            client_errors: 0,
            over: q
                .over_ms
                .iter()
                .map(|limit| if mean > *limit { requests } else { 0 })
                .collect(),
            whole: None,
            latency: Some(Latency {
                mean,
                p50: mean * 0.9,
                p90: mean * 1.5,
                p95: mean * 2.0,
                p99: mean * 3.0,
            }),
            cpu: None,
            memory: None,
            healthy: None,
        }
    }
}

fn unavailable(message: &str) -> HostError {
    HostError::new(ErrorKind::Unavailable, "unavailable", message).retryable()
}

fn not_ours(error: serde_json::Error) -> HostError {
    HostError::new(
        ErrorKind::Invalid,
        "no-action",
        format!("this action cannot be restored: {error}"),
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rounded, non-negative count; the cast saturates"
)]
fn count(value: f64) -> u32 {
    value.round() as u32
}

/// Gives the arms these weights, on every route.
fn share_out(observed: &mut Observed, weights: &Weights) {
    for arm in &mut observed.arms {
        arm.weight = weights.weight(&arm.name);
    }
    for other in &mut observed.others {
        other.weights = weights.clone();
    }
}

#[async_trait]
impl Target for SimulatedTarget {
    fn identity(&self) -> &str {
        &self.name
    }

    fn sample_period_ms(&self) -> u32 {
        self.sample_period_ms
    }

    async fn observe(&self) -> Result<Observed, HostError> {
        if let Some(Fault::ObserveFails(error)) =
            self.next_fault(|f| matches!(f, Fault::ObserveFails(_)))
        {
            return Err(error);
        }
        Ok(self.state().observed.clone())
    }

    async fn set_weights(&self, weights: &Weights) -> Result<(), HostError> {
        let mut verb = "set-weights".to_owned();
        for w in &weights.0 {
            let _ = write!(verb, " {}={}", w.arm, w.weight);
        }
        self.write(verb, |observed| {
            share_out(observed, weights);
        })
    }

    async fn restore(&self, action: &serde_json::Value) -> Result<(), HostError> {
        let wanted: Traffic = serde_json::from_value(action.clone()).map_err(not_ours)?;
        self.write(format!("restore {}", wanted.weights), |observed| {
            observed.sticky = wanted.sticky;
            share_out(observed, &wanted.weights);
        })
    }

    async fn does(&self, action: &serde_json::Value) -> Result<bool, HostError> {
        let wanted: Traffic = serde_json::from_value(action.clone()).map_err(not_ours)?;
        Ok(self.traffic().await? == wanted)
    }

    async fn set_version(&self, arm: &str, release: &Release) -> Result<(), HostError> {
        self.write(
            format!("set-version {arm} {}", release.version),
            |observed| {
                for a in observed.arms.iter_mut().filter(|a| a.name == arm) {
                    a.release = release.clone();
                }
            },
        )
    }

    async fn set_tasks(&self, arm: &str, tasks: u32) -> Result<(), HostError> {
        self.write(format!("set-tasks {arm} {tasks}"), |observed| {
            for a in observed.arms.iter_mut().filter(|a| a.name == arm) {
                (a.tasks, a.healthy, a.total) = (Some(tasks), tasks, tasks);
            }
        })
    }

    async fn samples(&self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError> {
        if let Some(Fault::MetricsFail(error)) =
            self.next_fault(|f| matches!(f, Fault::MetricsFail(_)))
        {
            return Err(error);
        }
        let period = u64::from(self.sample_period_ms);
        let end = self.clock.now() / period * period;
        let begin = query
            .since
            .max(end.saturating_sub(3 * 3_600_000))
            .div_ceil(period)
            * period;
        let timeline = self.state().weights_since.clone();
        let mut samples = vec![];
        for start in (begin..end).step_by(usize::try_from(period).unwrap_or(usize::MAX)) {
            let Some((_, weights)) = timeline.iter().rev().find(|(at, _)| *at <= start) else {
                continue;
            };
            for arm in 0..2 {
                let sample = self.sample(arm, start, weights, query);
                if sample.requests > 0 {
                    samples.push(sample);
                }
            }
        }
        Ok(samples)
    }

    async fn query(&self, query: &Query, _since: Millis) -> Result<Vec<Point>, HostError> {
        Err(HostError::new(
            ErrorKind::NotFound,
            "no-such-query",
            format!("the simulated target has no query {:?}", query.name),
        ))
    }

    async fn probe(&self, arm: &str, probe: &Probe) -> Result<ProbeReport, HostError> {
        let healthy = self
            .state()
            .observed
            .arm(arm)
            .is_some_and(|a| a.healthy > 0);
        Ok(ProbeReport {
            ok: healthy,
            status: if healthy { u32::from(probe.status) } else { 0 },
            elapsed_ms: 1.0,
            detail: format!("GET {} on {arm}", probe.path),
        })
    }
}

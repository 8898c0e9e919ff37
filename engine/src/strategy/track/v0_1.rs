//! Track 0.1 of the contract: the generated bindings and their translation to the
//! engine's own types. No other file knows both.

use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::component::{HasSelf, InstancePre, Linker};
use wasmtime::{Error, Store};

use super::{Bound, Track};
use crate::journal::{Call, Reply};
use crate::model::{self, ErrorKind, HostError, PlannedStep};
use crate::rollout::Run;
use crate::rollout::session::{Calls, Interrupted};
use crate::strategy::limits::{LIST_MAX, SAMPLES_MAX, cut, one_line};
use crate::strategy::sandbox::{Called, State};
use crate::strategy::{Description, Issue, Returned};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "rollout:strategy/strategy",
        imports: { default: async | trappable },
        exports: { default: async },
    });
}

use bindings::exports::rollout::strategy::strategy_api as api;
use bindings::rollout::control::control;
use bindings::rollout::metrics::metrics;
use bindings::rollout::traffic::traffic;
use bindings::rollout::types::types;

pub(super) const TRACK: Track = Track {
    export: "rollout:strategy/strategy-api@0.1.0",
    imports: &[
        "rollout:types/types@0.1.0",
        "rollout:traffic/traffic@0.1.0",
        "rollout:metrics/metrics@0.1.0",
        "rollout:control/control@0.1.0",
    ],
    link,
    bind,
};

fn link(linker: &mut Linker<State>) -> Result<(), Error> {
    bindings::Strategy::add_to_linker::<_, HasSelf<_>>(linker, State::enter)
}

fn bind(pre: InstancePre<State>) -> Result<Arc<dyn Bound>, Error> {
    Ok(Arc::new(Prepared(bindings::StrategyPre::new(pre)?)))
}

struct Prepared(bindings::StrategyPre<State>);

#[async_trait]
impl Bound for Prepared {
    async fn describe(&self, store: &mut Store<State>) -> Result<Description, Error> {
        let guest = self.0.instantiate_async(&mut *store).await?;
        let d = guest
            .rollout_strategy_strategy_api()
            .call_describe(store)
            .await?;
        Ok(Description {
            name: one_line(d.name),
            version: one_line(d.version),
            summary: one_line(d.summary),
            parameters_schema: d.parameters_schema,
        })
    }

    async fn validate(
        &self,
        store: &mut Store<State>,
        parameters: &str,
    ) -> Result<Result<Vec<PlannedStep>, Vec<Issue>>, Error> {
        let guest = self.0.instantiate_async(&mut *store).await?;
        let result = guest
            .rollout_strategy_strategy_api()
            .call_validate(store, parameters)
            .await?;
        Ok(match result {
            Ok(plan) => Ok(plan
                .steps
                .into_iter()
                .take(LIST_MAX)
                .map(|s| PlannedStep {
                    share: s.share,
                    seconds: s.seconds,
                    needs_approval: s.needs_approval,
                })
                .collect()),
            Err(issues) => Err(issues
                .into_iter()
                .take(LIST_MAX)
                .map(|i| Issue {
                    path: one_line(i.path),
                    message: one_line(i.message),
                })
                .collect()),
        })
    }

    async fn run(&self, store: &mut Store<State>, run: &Run) -> Returned {
        let guest = self.0.instantiate_async(&mut *store).await?;
        let context = api::Context {
            rollout: run.rollout.clone(),
            arms: run.arms.iter().map(to_arm).collect(),
            weights: to_weights(&run.weights),
            sample_period_ms: run.sample_period_ms,
        };
        let result = guest
            .rollout_strategy_strategy_api()
            .call_run(store, &context, &run.parameters)
            .await?;
        Ok(result.map_err(one_line).map(|outcome| model::Outcome {
            verdict: match outcome.verdict {
                api::Verdict::Promoted => model::Verdict::Promoted,
                api::Verdict::RolledBack => model::Verdict::RolledBack,
                api::Verdict::Inconclusive => model::Verdict::Inconclusive,
            },
            reason: one_line(outcome.reason),
        }))
    }
}

type Answer<T> = Result<Result<T, types::HostError>, Error>;

impl State {
    /// Receives the calls; there is nobody while a strategy must not make any.
    fn calls(&self) -> Result<&Arc<dyn Calls>, Error> {
        Ok(self.calls.as_ref().ok_or(Interrupted)?)
    }

    /// Every call of the journal goes through here or through [`Self::refuse`], and
    /// begins a new segment of fuel.
    async fn ask(&mut self, call: Call) -> Result<Reply, Error> {
        let reply = self.calls()?.perform(call).await?;
        self.called = Some(Called::Journaled);
        Ok(reply)
    }

    /// Answers a call whose arguments are refused. The refusal is an answer like others.
    async fn refuse(&mut self, call: Call, why: String) -> Result<Reply, Error> {
        let why = HostError::new(ErrorKind::Invalid, "invalid-request", why);
        let reply = self.calls()?.refuse(call, why).await?;
        self.called = Some(Called::Journaled);
        Ok(reply)
    }
}

impl types::Host for State {}

impl traffic::Host for State {
    async fn get_weights(&mut self) -> Answer<Vec<types::Weight>> {
        answer(self.ask(Call::GetWeights).await?, |reply| match reply {
            Reply::Weights(weights) => Some(to_weights(&weights)),
            _ => None,
        })
    }

    async fn set_weights(&mut self, weights: Vec<types::Weight>) -> Answer<()> {
        let wrong = too_long("weights", weights.len());
        let weights = weights
            .into_iter()
            .take(LIST_MAX)
            .map(|w| model::Weight {
                arm: one_line(w.arm),
                weight: w.weight,
            })
            .collect();
        let weights = model::Weights(weights);
        let call = Call::SetWeights { weights };
        let reply = match wrong {
            Some(why) => self.refuse(call, why).await?,
            None => self.ask(call).await?,
        };
        answer(reply, done)
    }

    async fn switch_color(&mut self, color: String) -> Answer<()> {
        let color = one_line(color);
        answer(self.ask(Call::SwitchColor { color }).await?, done)
    }
}

impl metrics::Host for State {
    async fn get_metrics(&mut self, query: metrics::MetricsQuery) -> Answer<Vec<metrics::Sample>> {
        let odd = query.over_ms.iter().find(|limit| !limit.is_finite());
        let odd = odd.map(|odd| format!("over-ms has {odd}, which is not a latency"));
        let wrong = too_long("over-ms", query.over_ms.len()).or(odd);
        let query = model::MetricsQuery {
            since: to_millis(query.since),
            over_ms: query
                .over_ms
                .into_iter()
                .take(LIST_MAX)
                .map(number)
                .collect(),
            by_zone: query.by_zone,
        };
        let call = Call::GetMetrics { query };
        let reply = match wrong {
            Some(why) => self.refuse(call, why).await?,
            None => self.ask(call).await?,
        };
        answer(reply, |reply| {
            let Reply::Samples(mut samples) = reply else {
                return None;
            };
            // A gate needs the newest ones.
            let excess = samples.len().saturating_sub(SAMPLES_MAX);
            samples.drain(..excess);
            Some(samples.into_iter().map(to_sample).collect())
        })
    }

    async fn query(&mut self, name: String, since: f64) -> Answer<Vec<metrics::Point>> {
        let call = Call::Query {
            name: one_line(name),
            since: to_millis(since),
        };
        answer(self.ask(call).await?, |reply| {
            let Reply::Points(mut points) = reply else {
                return None;
            };
            let excess = points.len().saturating_sub(SAMPLES_MAX);
            points.drain(..excess);
            let points = points.into_iter().map(|p| metrics::Point {
                arm: p.arm,
                at: from_millis(p.at),
                value: p.value,
            });
            Some(points.collect())
        })
    }

    async fn get_health(&mut self) -> Answer<Vec<metrics::ArmHealth>> {
        answer(self.ask(Call::GetHealth).await?, |reply| {
            let Reply::Health(arms) = reply else {
                return None;
            };
            let arms = arms.into_iter().map(|a| metrics::ArmHealth {
                arm: a.arm,
                healthy: a.healthy,
                total: a.total,
            });
            Some(arms.collect())
        })
    }
}

impl control::Host for State {
    async fn now(&mut self) -> Result<f64, Error> {
        Ok(from_millis(self.calls()?.now()))
    }

    async fn wait(&mut self, seconds: u32, signals: Vec<String>) -> Result<control::Wake, Error> {
        let signals = signals.into_iter().take(LIST_MAX).map(one_line).collect();
        match self.ask(Call::Wait { seconds, signals }).await? {
            Reply::Woke(model::Wake::Signal(s)) => Ok(control::Wake::Signal(control::Signal {
                name: s.name,
                actor: s.actor,
                payload: s.payload,
            })),
            _ => Ok(control::Wake::Timer),
        }
    }

    async fn probe(&mut self, name: String) -> Answer<control::ProbeReport> {
        let name = one_line(name);
        answer(self.ask(Call::Probe { name }).await?, |reply| match reply {
            Reply::Probed(p) => Some(control::ProbeReport {
                ok: p.ok,
                status: p.status,
                elapsed_ms: p.elapsed_ms,
                detail: p.detail,
            }),
            _ => None,
        })
    }

    async fn probes(&mut self) -> Result<Vec<String>, Error> {
        Ok(self.calls()?.probes())
    }

    async fn log(&mut self, level: control::Level, message: String) -> Result<(), Error> {
        let level = match level {
            control::Level::Debug => model::Level::Debug,
            control::Level::Info => model::Level::Info,
            control::Level::Warn => model::Level::Warn,
        };
        let message = one_line(message);
        self.ask(Call::Log { level, message }).await?;
        Ok(())
    }

    async fn progress(&mut self, percent: u32, note: String) -> Result<(), Error> {
        let call = Call::Progress {
            percent: percent.min(100),
            note: one_line(note),
        };
        self.ask(call).await?;
        Ok(())
    }

    async fn report(&mut self, finding: control::Finding) -> Result<(), Error> {
        let finding = Box::new(to_finding(finding));
        self.ask(Call::Report { finding }).await?;
        Ok(())
    }
}

/// A finite number, because a journal holds no others: 0 for NaN, the largest one
/// for infinity.
fn number(value: f64) -> f64 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(-1e300, 1e300)
    }
}

fn to_finding(f: control::Finding) -> model::Finding {
    let streams = f.streams.into_iter().take(LIST_MAX);
    model::Finding {
        until: to_millis(f.until),
        log_evidence: number(f.log_evidence),
        log_limit: number(f.log_limit),
        decision: match f.decision {
            control::Decision::Stay => model::Decision::Stay,
            control::Decision::Hold => model::Decision::Hold,
            control::Decision::Advance => model::Decision::Advance,
            control::Decision::RollBack => model::Decision::RollBack,
        },
        excess_requests: number(f.excess_requests),
        streams: streams
            .map(|s| model::StreamFinding {
                name: one_line(s.name),
                candidate_bad: number(s.candidate_bad),
                candidate_of: number(s.candidate_of),
                stable_bad: number(s.stable_bad),
                stable_of: number(s.stable_of),
                log_evidence: number(s.log_evidence),
            })
            .collect(),
        explanation: one_line(f.explanation),
    }
}

/// The answer as the guest expects it; another kind of answer is a bug of the host.
fn answer<T>(reply: Reply, expected: impl FnOnce(Reply) -> Option<T>) -> Answer<T> {
    match reply {
        Reply::Failed(error) => Ok(Err(to_error(error))),
        reply => match expected(reply) {
            Some(value) => Ok(Ok(value)),
            None => Err(Error::msg("the journal has an answer of another kind")),
        },
    }
}

fn done(reply: Reply) -> Option<()> {
    (reply == Reply::Done).then_some(())
}

fn too_long(what: &str, length: usize) -> Option<String> {
    (length > LIST_MAX)
        .then(|| format!("{what} has {length} elements, and the limit is {LIST_MAX}"))
}

fn to_error(e: model::HostError) -> types::HostError {
    use model::ErrorKind as From;
    use types::ErrorKind as To;
    types::HostError {
        kind: match e.kind {
            From::Denied => To::Denied,
            From::Invalid => To::Invalid,
            From::Unhealthy => To::Unhealthy,
            From::Conflict => To::Conflict,
            From::NotFound => To::NotFound,
            From::Throttled => To::Throttled,
            From::Unavailable => To::Unavailable,
            From::Internal => To::Internal,
        },
        code: e.code,
        message: cut(e.message),
        retryable: e.retryable,
    }
}

fn to_arm(arm: &model::Arm) -> types::Arm {
    types::Arm {
        name: arm.name.clone(),
        role: match arm.role {
            model::Role::Stable => types::Role::Stable,
            model::Role::Candidate => types::Role::Candidate,
        },
        version: arm.version.clone(),
    }
}

fn to_weights(weights: &model::Weights) -> Vec<types::Weight> {
    let pairs = weights.0.iter().map(|w| types::Weight {
        arm: w.arm.clone(),
        weight: w.weight,
    });
    pairs.collect()
}

fn to_sample(s: model::Sample) -> metrics::Sample {
    metrics::Sample {
        arm: s.arm,
        zone: s.zone,
        start: from_millis(s.start),
        period_ms: s.period_ms,
        requests: s.requests,
        errors: s.errors,
        client_errors: s.client_errors,
        over: s.over,
        latency: s.latency.map(|l| metrics::Latency {
            mean: l.mean,
            p50: l.p50,
            p90: l.p90,
            p95: l.p95,
            p99: l.p99,
        }),
        cpu: s.cpu,
        memory: s.memory,
        healthy: s.healthy,
    }
}

/// Unix ms are exact in an `f64` for the next 280,000 years.
#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
fn from_millis(at: model::Millis) -> f64 {
    at as f64
}

/// A negative time, or NaN, means the beginning.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and NaN is 0"
)]
fn to_millis(at: f64) -> model::Millis {
    at as model::Millis
}

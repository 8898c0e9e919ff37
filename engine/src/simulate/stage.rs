//! A [`World`] as a target, and the clock of its rollouts.
//!
//! The stage also checks, in every simulated interval and at every write, the
//! rules that hold for every strategy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::fault::{Kind, OutsideFault};
use super::random::Owner;
use super::scenario::Values;
use super::world::{Arm, Interval, World};
use crate::clock::{Clock, VirtualClock};
use crate::model::limits::Guardrails;
use crate::model::query::{Probe, Query};
use crate::model::{
    DemoFault, Deployment, ErrorKind, HostError, Latency, MetricsQuery, Millis, Observed,
    ObservedArm, Point, ProbeReport, Release, Sample, Source, Weights,
};
use crate::store::Store;
use crate::target::Target;

/// Intervals after which revised samples are complete.
const REVISED_AFTER: u64 = 3;
/// Tolerance for shares that are not round numbers, percentage points.
const EPSILON: f64 = 1e-6;

/// The world and how the rollout uses it.
pub(super) struct Setting {
    pub(super) world: World,
    /// Unix ms.
    pub(super) start: Millis,
    pub(super) metric_delay_ms: Millis,
    pub(super) tasks: u32,
    pub(super) candidate_tasks_min: u32,
    pub(super) faults: Vec<OutsideFault>,
    pub(super) values: BTreeMap<String, Values>,
    pub(super) guardrails: Guardrails,
    pub(super) names: [String; 2],
    pub(super) rollout: String,
}

/// A target in a simulated world. The first arm is the stable one.
pub struct Stage {
    setting: Setting,
    clock: Arc<StageClock>,
    store: Arc<dyn Store>,
    state: Mutex<State>,
    /// Zones of the stable arm before the start, newest first; filled when first read.
    past: OnceLock<Vec<Vec<Arm>>>,
}

struct State {
    /// Shares of the candidate, 0-1, each from a time on.
    shares: Vec<(Millis, f64)>,
    weights: Weights,
    /// Intervals that are over, with the candidate's share in them.
    played: Vec<(f64, Interval)>,
    /// Number of intervals since the share last rose, at the newest interval.
    age: u32,
    meddled: bool,
    violations: Vec<String>,
}

impl Stage {
    pub(super) fn new(setting: Setting, clock: Arc<StageClock>, store: Arc<dyn Store>) -> Self {
        let [stable, candidate] = &setting.names;
        let weights = Weights::of([(stable.as_str(), 100), (candidate.as_str(), 0)]);
        Self {
            clock,
            store,
            state: Mutex::new(State {
                shares: vec![(0, 0.0)],
                weights,
                played: vec![],
                age: 0,
                meddled: false,
                violations: vec![],
            }),
            setting,
            past: OnceLock::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since_start(&self) -> Millis {
        self.clock.now().saturating_sub(self.setting.start)
    }

    fn goes_wrong(&self, kind: Kind) -> bool {
        let now = self.since_start();
        self.setting.faults.iter().any(|f| f.covers(kind, now))
    }

    fn throttled(&self) -> Result<(), HostError> {
        if self.goes_wrong(Kind::AwsThrottled) {
            let text = "too many calls at once (simulated)";
            return Err(HostError::new(ErrorKind::Throttled, "throttled", text).retryable());
        }
        Ok(())
    }

    /// The present weights, after a write of another writer if there was one.
    fn weights(&self) -> Weights {
        let now = self.clock.now();
        let since = self.since_start();
        let mut state = self.state();
        let foreign = self.setting.faults.iter();
        let due = foreign
            .filter(|f| f.kind == Kind::ForeignWriter)
            .any(|f| f.at <= since);
        if due && !state.meddled {
            state.meddled = true;
            let [stable, candidate] = &self.setting.names;
            state.weights = Weights::of([(stable.as_str(), 50), (candidate.as_str(), 50)]);
            state.shares.push((now, 0.5));
        }
        state.weights.clone()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of tasks, positive and small"
    )]
    fn candidate_tasks(&self, share: f64) -> u32 {
        let tasks = self.setting.tasks;
        let needed = (share * f64::from(tasks) - 1e-9).ceil().max(0.0) as u32;
        needed.clamp(self.setting.candidate_tasks_min.min(tasks), tasks)
    }

    fn observed(&self) -> Observed {
        let weights = self.weights();
        let share = weights.share(&self.setting.names[1]) / 100.0;
        let tasks = [self.setting.tasks, self.candidate_tasks(share)];
        let arms = (0..2).map(|arm| ObservedArm {
            health_reason: None,
            name: self.setting.names[arm].clone(),
            release: Release {
                version: ["v1", "v2"][arm].to_owned(),
                source: Source::Demo(DemoFault::default()),
            },
            weight: weights.weight(&self.setting.names[arm]),
            healthy: if arm == 1 && self.goes_wrong(Kind::TasksDie) {
                0
            } else {
                tasks[arm]
            },
            total: tasks[arm],
            tasks: None,
            deployment: Deployment::Steady,
            since: None,
            spoiled: 0,
            unanswered: 0,
            sent_again: 0,
        });
        Observed {
            arms: arms.collect(),
            sticky: false,
            address: "http://simulated.invalid".to_owned(),
            others: vec![],
        }
    }

    /// Plays the world up to now.
    fn play(&self) {
        self.weights();
        let period = self.setting.world.interval_ms();
        let over = self.since_start() / period;
        let horizon = u64::from(self.setting.world.horizon());
        let mut state = self.state();
        while (state.played.len() as u64) < over.min(horizon) {
            let t = u32::try_from(state.played.len()).unwrap_or(u32::MAX);
            let start = self.setting.start + u64::from(t) * period;
            let share = share_at(&state.shares, start);
            let before = state.played.last().map_or(0.0, |(share, _)| *share);
            state.age = if share > before { 0 } else { state.age + 1 };
            let interval = self.setting.world.interval(t, share, state.age);
            state.played.push((share, interval));
        }
    }

    /// The whole rollout up to the horizon, for the report: the shares of all
    /// intervals, the intervals that were played, and all bad requests.
    pub(super) fn end(&self) -> Ending {
        self.play();
        let state = self.state();
        let world = &self.setting.world;
        // The sum of nothing is -0.0, which would be printed.
        let played_bad = state.played.iter().map(|(_, i)| i.bad_requests);
        let mut bad_requests = played_bad.fold(0.0, |sum, bad| sum + bad);
        let played = u32::try_from(state.played.len()).unwrap_or(u32::MAX);
        for t in played..world.horizon() {
            let start = self.setting.start + u64::from(t) * world.interval_ms();
            let share = share_at(&state.shares, start);
            if share > 0.0 {
                bad_requests += world.bad_requests(t, share);
            }
        }
        Ending {
            shares: state.shares.clone(),
            bad_requests,
            violations: state.violations.clone(),
        }
    }

    /// Starts (Unix ms) of the intervals from `after` on in which the candidate had
    /// traffic.
    pub(super) fn exposed_after(&self, after: Millis) -> Vec<Millis> {
        self.play();
        let period = self.setting.world.interval_ms();
        let state = self.state();
        let starts = (0_u64..).map(|t| self.setting.start + t * period);
        let played = starts.zip(&state.played);
        played
            .filter(|(at, (share, _))| *at > after && *share > 0.0)
            .map(|(at, _)| at)
            .collect()
    }

    /// Records that a rule was broken.
    pub(super) fn violated(&self, text: String) {
        self.state().violations.push(text);
    }

    /// Checks a write of the engine against the rules, independently of the code that
    /// keeps them.
    async fn check(&self, wanted: &Weights) {
        let now = self.clock.now();
        let candidate = &self.setting.names[1];
        let (from, to) = (self.weights().share(candidate), wanted.share(candidate));
        let minute = self.since_start() / 60_000;
        match self.store.occupant(candidate_lease()).await {
            Ok(Some(lease)) if lease.rollout == self.setting.rollout && lease.expires > now => {}
            _ => self.violated(format!(
                "minute {minute}: {wanted} was written without the lease"
            )),
        }
        if to <= from {
            return;
        }
        if self.goes_wrong(Kind::TasksDie) {
            self.violated(format!(
                "minute {minute}: raised to {to:.1} % while the candidate had no healthy task"
            ));
        }
        // A climb back to a share that the candidate has had is no step.
        let shares = self.state().shares.clone();
        let had = shares.iter().map(|(_, share)| share * 100.0);
        let held = had.fold(from, f64::max);
        if to <= held + EPSILON {
            return;
        }
        let from = held;
        let rails = &self.setting.guardrails;
        if to - from > rails.largest_step + EPSILON {
            self.violated(format!(
                "minute {minute}: a step from {from:.1} to {to:.1} %, above the guardrail of {} points",
                rails.largest_step
            ));
        }
        if let Some(bake) = &rails.before_bake
            && to > bake.share + EPSILON
        {
            let shares = self.state().shares.clone();
            let exposed = shares.iter().find(|(_, share)| *share > 0.0);
            let baked = exposed.map_or(0, |(at, _)| now.saturating_sub(*at));
            if baked < bake.bake_ms {
                self.violated(format!(
                    "minute {minute}: {to:.1} % after {} s of traffic, before the guardrail's bake",
                    baked / 1_000
                ));
            }
        }
    }

    fn arm_sample(
        &self,
        arm: usize,
        start: Millis,
        data: &Arm,
        query: &MetricsQuery,
        part: f64,
    ) -> Option<Sample> {
        let requests = scaled(data.requests, part);
        if requests == 0 {
            return None;
        }
        let histogram = &data.histogram;
        let quantile = |q: f64| histogram.quantile(q).unwrap_or_default();
        let p50 = quantile(0.5);
        Some(Sample {
            arm: self.setting.names[arm].clone(),
            zone: None,
            start,
            period_ms: u32::try_from(self.setting.world.interval_ms()).unwrap_or(u32::MAX),
            requests,
            errors: scaled(data.errors, part),
            client_errors: 0,
            over: query
                .over_ms
                .iter()
                .map(|ms| scaled(histogram.exceed(*ms), part))
                .collect(),
            whole: None,
            latency: Some(Latency {
                mean: p50,
                p50,
                p90: quantile(0.9),
                p95: quantile(0.95),
                p99: quantile(0.99),
            }),
            cpu: None,
            memory: None,
            healthy: None,
        })
    }

    fn past_samples(&self, query: &MetricsQuery, samples: &mut Vec<Sample>) {
        let world = &self.setting.world;
        let period = world.interval_ms();
        let start = self.setting.start;
        if query.since >= start {
            return;
        }
        let past = self
            .past
            .get_or_init(|| (1..=world.history()).map(|back| world.past(back)).collect());
        let wanted = (start - query.since) / period;
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        for (back, zones) in (1_u64..)
            .zip(past)
            .take(wanted)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            let at = start - back * period;
            if query.by_zone {
                for (zone, arm) in zones.iter().enumerate() {
                    samples.extend(self.arm_sample(0, at, arm, query, 1.0).map(|s| Sample {
                        zone: Some(format!("zone-{}", zone + 1)),
                        ..s
                    }));
                }
            } else {
                let whole = whole(zones);
                samples.extend(self.arm_sample(0, at, &whole, query, 1.0));
            }
        }
    }
}

/// How a replicate's world ended.
pub(super) struct Ending {
    pub(super) shares: Vec<(Millis, f64)>,
    pub(super) bad_requests: f64,
    pub(super) violations: Vec<String>,
}

/// The identity of every stage, which is the same because each has its own store.
pub(super) fn candidate_lease() -> &'static str {
    "simulated"
}

/// The sum of all zones.
fn whole(zones: &[Arm]) -> Arm {
    let mut whole = Arm::default();
    for zone in zones {
        whole.requests += zone.requests;
        whole.errors += zone.errors;
        whole.histogram.merge(&zone.histogram);
    }
    whole
}

/// The share at the start of an interval.
fn share_at(shares: &[(Millis, f64)], start: Millis) -> f64 {
    let last = shares.iter().rev().find(|(at, _)| *at <= start);
    last.map_or(0.0, |(_, share)| *share)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a count"
)]
fn scaled(count: u32, part: f64) -> u32 {
    (f64::from(count) * part).round() as u32
}

#[async_trait]
impl Target for Stage {
    fn identity(&self) -> &str {
        candidate_lease()
    }

    fn sample_period_ms(&self) -> u32 {
        u32::try_from(self.setting.world.interval_ms()).unwrap_or(u32::MAX)
    }

    async fn observe(&self) -> Result<Observed, HostError> {
        self.throttled()?;
        Ok(self.observed())
    }

    async fn set_weights(&self, weights: &Weights) -> Result<(), HostError> {
        self.throttled()?;
        self.check(weights).await;
        let now = self.clock.now();
        let share = weights.share(&self.setting.names[1]) / 100.0;
        let mut state = self.state();
        state.weights = weights.clone();
        state.shares.push((now, share));
        Ok(())
    }

    async fn set_version(&self, _arm: &str, _release: &Release) -> Result<(), HostError> {
        self.throttled()
    }

    async fn samples(&self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError> {
        self.throttled()?;
        self.play();
        let period = self.setting.world.interval_ms();
        let now = self.clock.now();
        let start = self.setting.start;
        let mut samples = vec![];
        self.past_samples(query, &mut samples);
        let state = self.state();
        for (t, (_, interval)) in (0_u64..).zip(&state.played) {
            let at = start + t * period;
            let into = at - start;
            let end = at + period + self.setting.metric_delay_ms;
            let is = |kind: Kind| self.setting.faults.iter().any(|f| f.covers(kind, into));
            // Late metrics: what would come during the fault comes at its end.
            let held_back = self.setting.faults.iter().any(|f| {
                f.covers(Kind::MetricsLate, end - start) && now < start + f.at + f.duration
            });
            if at < query.since || end > now || interval.missing || held_back {
                continue;
            }
            if is(Kind::MetricsMissing) {
                continue;
            }
            let young = now < end + REVISED_AFTER * period;
            let part = if is(Kind::MetricsRevised) && young {
                0.5
            } else {
                1.0
            };
            samples.extend(self.arm_sample(0, at, &interval.stable, query, part));
            samples.extend(self.arm_sample(1, at, &interval.candidate, query, part));
        }
        Ok(samples)
    }

    /// The points that the scenario's file has for the query; none without it.
    async fn query(&self, query: &Query, since: Millis) -> Result<Vec<Point>, HostError> {
        self.throttled()?;
        self.play();
        let mut named = (0..).zip(&self.setting.values);
        let Some((number, (_, values))) = named.find(|(_, (name, _))| **name == query.name) else {
            return Ok(vec![]);
        };
        let world = &self.setting.world;
        let [stable, candidate] = &self.setting.names;
        let past = (1..=world.history())
            .rev()
            .map(|back| (-i64::from(back), 0.0));
        let state = self.state();
        let played = (0_i64..)
            .zip(&state.played)
            .map(|(t, (share, _))| (t, *share));
        let mut points = vec![];
        for (t, share) in past.chain(played) {
            let into = t.saturating_mul(world.interval_ms().cast_signed());
            let at = self.setting.start.saturating_add_signed(into);
            if at < since {
                continue;
            }
            for (name, owner, mean, served) in [
                (stable, Owner::Stable, values.stable, share < 1.0),
                (candidate, Owner::Candidate, values.canary, share > 0.0),
            ] {
                if served {
                    points.push(Point {
                        arm: name.clone(),
                        at,
                        value: world.value(t, owner, number, mean, values.sigma),
                    });
                }
            }
        }
        Ok(points)
    }

    async fn probe(&self, arm: &str, probe: &Probe) -> Result<ProbeReport, HostError> {
        self.throttled()?;
        let healthy = self.observed().arm(arm).is_some_and(|a| a.healthy > 0);
        Ok(ProbeReport {
            ok: healthy,
            status: if healthy { u32::from(probe.status) } else { 0 },
            elapsed_ms: 1.0,
            detail: format!("GET {} on {arm}", probe.path),
        })
    }
}

/// A virtual clock on which a process can die: a sleep that passes such a time does
/// not return.
#[derive(Debug)]
pub struct StageClock {
    time: VirtualClock,
    /// Times (Unix ms) at which the running process dies, the next one last.
    deaths: Mutex<Vec<Millis>>,
    died: Notify,
}

impl StageClock {
    /// A clock that shows `start`, on which a process dies at each of these times
    /// (Unix ms).
    #[must_use]
    pub fn new(start: Millis, mut deaths: Vec<Millis>) -> Self {
        deaths.sort_unstable_by(|a, b| b.cmp(a));
        Self {
            time: VirtualClock::new(start),
            deaths: Mutex::new(deaths),
            died: Notify::new(),
        }
    }

    /// Returns when the running process has died.
    pub async fn death(&self) {
        self.died.notified().await;
    }
}

#[async_trait]
impl Clock for StageClock {
    fn now(&self) -> Millis {
        self.time.now()
    }

    async fn sleep_until(&self, until: Millis) {
        let death = {
            let mut deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner);
            match deaths.last() {
                Some(at) if *at <= until => deaths.pop(),
                _ => None,
            }
        };
        let Some(at) = death else {
            return self.time.sleep_until(until).await;
        };
        self.time.sleep_until(at).await;
        self.died.notify_one();
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Corpus;
    use super::*;
    use crate::model::limits::BeforeBake;
    use crate::store::memory::MemoryStore;
    use crate::store::{Claim, Journals as _, Owner};

    const SCENARIO: &str = r#"{"apiVersion": "simulate/v1", "scenarios": [
        {"name": "a", "class": "good", "seed": 1, "traffic": {"rps": 10}, "stable": {}}]}"#;
    const MINUTE: Millis = 60_000;

    async fn stage(faults: &[&str], guardrails: Guardrails, leased: bool) -> Stage {
        let scenario = Corpus::parse(SCENARIO).expect("valid").scenarios.remove(0);
        let store = Arc::new(MemoryStore::default());
        let owner = Owner {
            host: "test".to_owned(),
            pid: 1,
            started: String::new(),
        };
        if leased {
            let claim = Claim {
                target: candidate_lease(),
                also: &[],
                rollout: "r",
                owner: &owner,
                now: 0,
                ttl_ms: 3_600_000,
                dead_epoch: None,
            };
            store.claim(claim).await.expect("free");
        }
        let setting = Setting {
            values: BTreeMap::new(),
            world: World::with_seed(&scenario, 1, 0),
            start: 0,
            metric_delay_ms: MINUTE,
            tasks: 20,
            candidate_tasks_min: 1,
            faults: faults.iter().map(|f| f.parse().expect("a fault")).collect(),
            guardrails,
            names: ["stable".to_owned(), "canary".to_owned()],
            rollout: "r".to_owned(),
        };
        Stage::new(setting, Arc::new(StageClock::new(0, vec![])), store)
    }

    fn weights(canary: u32) -> Weights {
        Weights::of([("stable", 100 - canary), ("canary", canary)])
    }

    #[tokio::test]
    async fn broken_rules_are_seen() {
        let strict = Guardrails {
            largest_step: 30.0,
            before_bake: Some(BeforeBake {
                share: 20.0,
                bake_ms: 5 * MINUTE,
            }),
            ..Guardrails::default()
        };
        for (faults, guardrails, leased, share, says) in [
            (&[][..], Guardrails::default(), true, 50, ""),
            (&[], Guardrails::default(), false, 50, "without the lease"),
            (
                &["tasks-die@0s+5m"],
                Guardrails::default(),
                true,
                50,
                "no healthy task",
            ),
            (&[], strict.clone(), true, 20, ""),
            (&[], strict.clone(), true, 40, "above the guardrail"),
            (&[], strict, true, 25, "before the guardrail's bake"),
        ] {
            let stage = stage(faults, guardrails, leased).await;
            stage.set_weights(&weights(share)).await.expect("written");
            let violations = stage.end().violations;
            let said = violations.iter().any(|v| v.contains(says));
            assert_eq!(said, !says.is_empty(), "{says}: {violations:?}");
        }
    }

    #[tokio::test]
    async fn samples_come_late_whole_and_at_the_share_of_their_interval() {
        let stage = stage(
            &["metrics-missing@2m+1m", "metrics-revised@3m+1m"],
            Guardrails::default(),
            true,
        )
        .await;
        stage.set_weights(&weights(50)).await.expect("written");
        let query = MetricsQuery {
            since: 0,
            over_ms: vec![60.0],
            by_zone: false,
        };
        stage.clock.sleep_until(2 * MINUTE - 1).await;
        assert_eq!(stage.samples(&query).await.expect("read"), vec![]);
        stage.clock.sleep_until(2 * MINUTE).await;
        assert_eq!(stage.samples(&query).await.expect("read").len(), 2);
        stage.set_weights(&weights(0)).await.expect("written");
        stage.clock.sleep_until(5 * MINUTE).await;
        let young = stage.samples(&query).await.expect("read");
        stage.clock.sleep_until(8 * MINUTE).await;
        let old = stage.samples(&query).await.expect("read");
        let of = |samples: &[Sample], arm: &str, minute: u64| {
            let found = samples
                .iter()
                .find(|s| s.arm == arm && s.start == minute * MINUTE);
            found.map(|s| s.requests)
        };
        // Minute 2 never comes; minute 3 comes in halves; from minute 2 on the
        // candidate has nothing.
        assert!(of(&old, "stable", 1).is_some() && of(&old, "canary", 1).is_some());
        assert_eq!((of(&old, "stable", 2), of(&old, "canary", 3)), (None, None));
        let (half, whole) = (of(&young, "stable", 3), of(&old, "stable", 3));
        let (half, whole) = (half.expect("there"), whole.expect("there"));
        assert!(half.abs_diff(whole / 2) <= 1, "{half} {whole}");
        assert!(
            stage.exposed_after(MINUTE / 2) == vec![MINUTE],
            "{:?}",
            stage.exposed_after(0)
        );
    }

    #[tokio::test]
    async fn a_death_leaves_its_sleeper_asleep() {
        let clock = StageClock::new(0, vec![5 * MINUTE]);
        clock.sleep_until(MINUTE).await;
        let died = tokio::select! {
            () = clock.sleep_until(10 * MINUTE) => false,
            () = clock.death() => true,
        };
        assert!(died);
        assert_eq!(clock.now(), 5 * MINUTE);
        clock.sleep_until(10 * MINUTE).await;
        assert_eq!(clock.now(), 10 * MINUTE);
    }
}

//! What if: another plugin, or the same with other parameters, gets the metrics that a
//! rollout has recorded, and never earlier than they could be known.
//!
//! As long as it makes the recorded calls, it gets the recorded answers at the recorded
//! times. From its first other call on, answers are put together from all that was
//! recorded. The recorded traffic does not change with what is decided now: once the
//! weights differ, the metrics are those of another share, and the result says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::journal::replay::{Cursor, Step};
use crate::journal::{
    Actor, Call, Entry, Event, Exchange, Header, Pin, Reply, exchange_size, exchanges, header,
};
use crate::model::limits::Caps;
use crate::model::query::Count;
use crate::model::{
    ArmHealth, Command, Decider, ErrorKind, Finding, HostError, MetricsQuery, Millis, Outcome,
    Point, ProbeReport, Sample, Verdict, Wake, Weights,
};
use crate::rollout::session::{Calls, Interrupted};
use crate::rollout::{Ran, Run, Strategy};

/// For how many periods of a sample the weights may differ before it counts.
const MOMENT: Millis = 2;

/// What a plugin would have done.
#[derive(Debug, Clone, PartialEq)]
pub struct WhatIf {
    /// Weights that it would have set, and when (Unix ms).
    pub weights: Vec<(Millis, Weights)>,
    /// What it would have reported.
    pub findings: Vec<Finding>,
    /// How it would have ended.
    pub end: Ending,
    /// When it ended (Unix ms).
    pub at: Millis,
    /// Since when its weights would have differed from the recorded ones (Unix ms).
    pub parted: Option<Millis>,
    /// What was asked and is not in the journal.
    pub missing: Vec<String>,
}

/// How it would have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With a verdict.
    Verdict(Outcome),
    /// The recorded metrics are used up before it decides.
    Undecided,
    /// It failed.
    Failed(String),
}

/// What really happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The decision; `None` if there was none.
    pub verdict: Option<Verdict>,
    /// Who decided it; `None` if nobody did.
    pub by: Option<Decider>,
    /// Why.
    pub reason: String,
    /// When (Unix ms).
    pub at: Millis,
}

impl Recorded {
    /// Whether it was another one than the strategy who ended it, before the strategy came to
    /// a verdict: with `end` there is none to compare it with. A person has reasons that no
    /// metric tells; what the engine ended has no metrics after that.
    #[must_use]
    pub fn is_of_others(&self, end: &Ending) -> bool {
        match &self.by {
            None | Some(Decider::Strategy) => false,
            Some(Decider::Person(_)) => true,
            Some(_) => *end == Ending::Undecided,
        }
    }
}

/// What was decided according to the journal, by anybody.
#[must_use]
pub fn recorded(entries: &[Entry]) -> Recorded {
    let decided = exchanges(entries).find_map(|e| {
        let (verdict, by, reason) = match e.event()? {
            Event::Finished(outcome) => (outcome.verdict, &Decider::Strategy, &outcome.reason),
            Event::Decided {
                goal, by, reason, ..
            } => (Verdict::from(*goal), by, reason),
            _ => return None,
        };
        Some(Recorded {
            verdict: Some(verdict),
            by: Some(by.clone()),
            reason: reason.clone(),
            at: e.at,
        })
    });
    decided.unwrap_or_else(|| Recorded {
        verdict: None,
        by: None,
        reason: "still under way".to_owned(),
        at: entries.last().map_or(0, |e| e.at),
    })
}

/// Runs a strategy on the recorded metrics.
pub async fn what_if(
    strategy: &dyn Strategy,
    header: &Header,
    pin: &Pin,
    entries: &[Entry],
) -> WhatIf {
    let past = Past::of(entries, header.created);
    let end_of_data = past.end.saturating_add(past.lag);
    let world = Arc::new(World {
        end: end_of_data.saturating_add(Millis::from(header.sample_period_ms)),
        queries: header.queries.iter().map(|q| q.name.clone()).collect(),
        probes: header.probes.iter().map(|p| p.name.clone()).collect(),
        arms: header.names(),
        past,
        state: Mutex::new(State {
            now: header.created,
            tape: Some(Cursor::new(decisive(entries))),
            weights: header.baseline.clone(),
            written: vec![],
            findings: vec![],
            missing: vec![],
            calls: 0,
            bytes: 0,
            stopped: None,
        }),
        period: Millis::from(header.sample_period_ms),
        caps: header.caps,
    });
    let ran = strategy.run(world.clone(), Run::of(header, pin)).await;
    let mut state = world.state();
    let end = match (state.stopped.take(), ran) {
        (Some(ending), _) => ending,
        (None, Ran::Returned(Ok(outcome))) => Ending::Verdict(outcome),
        (None, Ran::Returned(Err(reason)) | Ran::Trapped(reason)) => Ending::Failed(reason),
        (None, Ran::Interrupted) => Ending::Undecided,
    };
    let recorded = weights_of(entries);
    WhatIf {
        parted: parted(
            &recorded,
            &state.written,
            &header.baseline,
            (state.now, MOMENT * Millis::from(header.sample_period_ms)),
        ),
        weights: std::mem::take(&mut state.written),
        findings: std::mem::take(&mut state.findings),
        missing: std::mem::take(&mut state.missing),
        at: state.now,
        end,
    }
}

/// A journal without reports and logs: a plugin with other words does not decide otherwise.
fn decisive(entries: &[Entry]) -> Vec<Entry> {
    let aside = |e: &Exchange<'_>| e.at_once().is_some_and(|(q, _)| q.call.is_aside());
    let asides: BTreeSet<u32> = exchanges(entries).filter(aside).map(|e| e.seq).collect();
    let rest = entries.iter().filter(|e| !asides.contains(&e.seq));
    rest.cloned().collect()
}

/// Weights that the strategy has set, and when.
fn weights_of(entries: &[Entry]) -> Vec<(Millis, Weights)> {
    let mut now = header(entries).map_or_else(Weights::default, |h| h.baseline.clone());
    let mut written = vec![];
    for exchange in exchanges(entries) {
        let by_strategy = exchange
            .answered()
            .is_some_and(|(question, _)| question.by == Actor::Strategy);
        if by_strategy && let Some(weights) = exchange.weights_after(&now) {
            now = weights;
            written.push((exchange.at, now.clone()));
        }
    }
    written
}

/// Since when the two differ for longer than `moment`, ms. A shorter difference does not
/// count, because the recorded rollout also waited for tasks and answers.
fn parted(
    recorded: &[(Millis, Weights)],
    asked: &[(Millis, Weights)],
    baseline: &Weights,
    (end, moment): (Millis, Millis),
) -> Option<Millis> {
    let shares = |list: &[(Millis, Weights)], time: Millis| {
        let before = list.iter().take_while(|(at, _)| *at <= time);
        let weights = before.last().map_or(baseline, |(_, w)| w);
        let names: Vec<&String> = baseline.0.iter().map(|w| &w.arm).collect();
        let shares = names.into_iter().map(|arm| weights.share(arm));
        shares.collect::<Vec<f64>>()
    };
    let mut times: Vec<Millis> = recorded.iter().chain(asked).map(|(at, _)| *at).collect();
    times.push(end);
    times.sort_unstable();
    times.retain(|at| *at <= end);
    let spans = times.windows(2).map(|pair| (pair[0], pair[1]));
    let mut differ: Option<(Millis, Millis)> = None;
    for (from, to) in spans {
        let apart = shares(recorded, from) != shares(asked, from);
        differ = match differ {
            Some((since, _)) if apart => Some((since, to)),
            _ if apart => Some((from, to)),
            _ => None,
        };
        if let Some((since, to)) = differ
            && to - since > moment
        {
            return Some(since);
        }
    }
    None
}

/// One version of a sample, and since when it could be known.
#[derive(Debug, Clone)]
struct Seen {
    known: Millis,
    over_ms: Vec<f64>,
    sample: Sample,
}

/// The metrics in a journal.
#[derive(Debug, Default)]
struct Past {
    /// By start and arm, then by zone; the zone `None` is the whole arm.
    samples: BTreeMap<(Millis, String), BTreeMap<Option<String>, Vec<Seen>>>,
    points: BTreeMap<String, Vec<(Millis, Point)>>,
    health: Vec<(Millis, Vec<ArmHealth>)>,
    probes: BTreeMap<String, ProbeReport>,
    /// How long after its end a sample is known, ms.
    lag: Millis,
    /// End of the newest sample.
    end: Millis,
    /// Start of the oldest interval that was asked for.
    begin: Millis,
    /// When metrics, or a query of that name, could not be read: from, until, why.
    failing: BTreeMap<String, Vec<(Millis, Millis, HostError)>>,
}

impl Past {
    fn of(entries: &[Entry], created: Millis) -> Self {
        let mut reading = Reading {
            past: Self {
                lag: Millis::MAX,
                begin: Millis::MAX,
                ..Self::default()
            },
            created,
            raw: vec![],
            looks: vec![],
        };
        for exchange in exchanges(entries) {
            if let Some((question, reply)) = exchange.at_once() {
                reading.hear(exchange.at, question.call, reply);
            }
        }
        reading.finish()
    }

    fn fails(&mut self, what: &str, from: Millis, why: &HostError) {
        let all = self.failing.entry(what.to_owned()).or_default();
        if all.last().is_none_or(|(_, until, _)| *until != Millis::MAX) {
            all.push((from, Millis::MAX, why.clone()));
        }
    }

    fn recovers(&mut self, what: &str, at: Millis) {
        let last = self.failing.get_mut(what).and_then(|all| all.last_mut());
        if let Some((_, until, _)) = last {
            *until = at.min(*until);
        }
    }

    /// Why it could not be read at that time, if so.
    fn failure(&self, what: &str, now: Millis) -> Option<HostError> {
        let mut all = self.failing.get(what)?.iter();
        let then = all.find(|(from, until, _)| (*from..*until).contains(&now));
        then.map(|(.., why)| why.clone())
    }

    /// Samples as they were known at that time, and the thresholds of the query for which
    /// no requests were counted.
    fn samples(&self, query: &MetricsQuery, now: Millis) -> (Vec<Sample>, Vec<f64>) {
        let mut uncounted = vec![];
        let mut answer: Vec<Sample> = vec![];
        for ((start, _), zones) in &self.samples {
            if *start < query.since {
                continue;
            }
            let known = zones
                .iter()
                .filter_map(|(zone, v)| Some((zone.is_some(), best(v, query, now)?)));
            let known: Vec<(bool, &Seen)> = known.collect();
            // Each arm counts once: as a whole, or by its zones.
            let both = known.iter().any(|(zone, _)| *zone) && known.iter().any(|(zone, _)| !zone);
            let mut whole: Option<Sample> = None;
            for (_, seen) in known
                .iter()
                .filter(|(zone, _)| !both || *zone == query.by_zone)
            {
                let sample = counted(seen, query, &mut uncounted);
                match &mut whole {
                    _ if query.by_zone => answer.push(sample),
                    Some(whole) => add(whole, &sample),
                    None => whole = Some(sample),
                }
            }
            answer.extend(whole.map(|s| Sample { zone: None, ..s }));
        }
        (answer, uncounted)
    }
}

/// The metrics of a journal while it is read.
struct Reading {
    past: Past,
    created: Millis,
    /// Samples in the order of the answers: index in `looks`, thresholds, sample.
    raw: Vec<(usize, Vec<f64>, Sample)>,
    /// When metrics were read, and since when they were asked for.
    looks: Vec<(Millis, Millis)>,
}

impl Reading {
    fn hear(&mut self, at: Millis, call: &Call, reply: &Reply) {
        let past = &mut self.past;
        match (call, reply) {
            (Call::GetMetrics { .. }, Reply::Failed(error)) => past.fails(METRICS, at, error),
            (Call::Query { name, .. }, Reply::Failed(error)) => past.fails(name, at, error),
            (Call::GetMetrics { query }, Reply::Samples(samples)) => self.look(at, query, samples),
            (Call::Query { name, .. }, Reply::Points(points)) => {
                past.recovers(name, at);
                let known = past.points.entry(name.clone()).or_default();
                for point in points {
                    let same = |(_, p): &(Millis, Point)| {
                        let value = p.value.to_bits() == point.value.to_bits();
                        p.arm == point.arm && p.at == point.at && value
                    };
                    if !known.iter().any(same) {
                        known.push((at, point.clone()));
                    }
                }
            }
            (Call::GetHealth, Reply::Health(arms)) => past.health.push((at, arms.clone())),
            (Call::Probe { name }, Reply::Probed(report)) => {
                past.probes.insert(name.clone(), report.clone());
            }
            _ => {}
        }
    }

    fn look(&mut self, at: Millis, query: &MetricsQuery, samples: &[Sample]) {
        let past = &mut self.past;
        past.recovers(METRICS, at);
        past.begin = past.begin.min(query.since);
        for sample in samples {
            let end = end(sample);
            past.end = past.end.max(end);
            // A sample from before the rollout says nothing about how soon samples are known.
            if sample.start >= self.created {
                past.lag = past.lag.min(at.saturating_sub(end));
            }
            let look = self.looks.len();
            self.raw.push((look, query.over_ms.clone(), sample.clone()));
        }
        self.looks.push((at, query.since));
    }

    /// Gives each sample the time since which it could be known. That depends on the
    /// shortest time after which a sample was there.
    fn finish(mut self) -> Past {
        if self.past.lag == Millis::MAX {
            self.past.lag = 0;
        }
        for (look, over_ms, sample) in std::mem::take(&mut self.raw) {
            let first = self.since_when(look, &sample);
            let key = (sample.start, sample.arm.clone());
            let zones = self.past.samples.entry(key).or_default();
            let versions = zones.entry(sample.zone.clone()).or_default();
            let same = |v: &Seen| v.sample == sample && v.over_ms == over_ms;
            if !versions.iter().any(same) {
                let known = if versions.is_empty() {
                    first
                } else {
                    self.looks[look].0
                };
                versions.push(Seen {
                    known,
                    over_ms,
                    sample,
                });
            }
        }
        self.past
    }

    /// Since when the first version of a sample could be known: as early as the fastest
    /// sample, but not while it was asked for and not there.
    fn since_when(&self, look: usize, sample: &Sample) -> Millis {
        let mut before = self.looks[..look].iter().rev();
        let vain = before.find(|(_, since)| *since <= sample.start);
        let vain = vain.map_or(0, |(at, _)| at.saturating_add(1));
        let earliest = end(sample).saturating_add(self.past.lag);
        self.looks[look].0.min(earliest.max(vain))
    }
}

/// When the interval of a sample is over (Unix ms).
fn end(sample: &Sample) -> Millis {
    sample.start.saturating_add(Millis::from(sample.period_ms))
}

/// The version with the most thresholds of the query, and of several the newest.
fn best<'s>(versions: &'s [Seen], query: &MetricsQuery, now: Millis) -> Option<&'s Seen> {
    let known = versions.iter().filter(|v| v.known <= now).enumerate();
    let best = known.max_by_key(|(order, v)| {
        let counted = query.over_ms.iter().filter(|t| place(v, **t).is_some());
        (counted.count(), *order)
    });
    best.map(|(_, seen)| seen)
}

/// A sample with the thresholds of a query: all of them or none.
fn counted(seen: &Seen, query: &MetricsQuery, uncounted: &mut Vec<f64>) -> Sample {
    let places: Vec<Option<usize>> = query.over_ms.iter().map(|t| place(seen, *t)).collect();
    for (threshold, place) in query.over_ms.iter().zip(&places) {
        if place.is_none() && !uncounted.contains(threshold) {
            uncounted.push(*threshold);
        }
    }
    let over: Option<Vec<u32>> = places
        .iter()
        .map(|p| seen.sample.over.get((*p)?).copied())
        .collect();
    Sample {
        over: over.unwrap_or_default(),
        ..seen.sample.clone()
    }
}

/// The position of a threshold among those that were counted.
fn place(seen: &Seen, threshold: f64) -> Option<usize> {
    let same = |t: &f64| (t - threshold).abs() < 1e-9;
    seen.over_ms.iter().position(same)
}

/// Adds a zone to the sum of the others, without latencies: percentiles cannot be added.
fn add(whole: &mut Sample, zone: &Sample) {
    let add = |sum: &mut u32, count: u32| *sum = sum.saturating_add(count);
    add(&mut whole.requests, zone.requests);
    add(&mut whole.errors, zone.errors);
    add(&mut whole.client_errors, zone.client_errors);
    for (sum, count) in whole.over.iter_mut().zip(&zone.over) {
        add(sum, *count);
    }
    whole.latency = None;
}

/// The key of failed reads of metrics, which cannot be the name of a query.
const METRICS: &str = "";

struct State {
    now: Millis,
    /// The recorded calls and answers, until the plugin makes another call.
    tape: Option<Cursor>,
    weights: Weights,
    written: Vec<(Millis, Weights)>,
    findings: Vec<Finding>,
    missing: Vec<String>,
    calls: u32,
    bytes: u64,
    stopped: Option<Ending>,
}

impl State {
    fn lacks(&mut self, what: String) {
        if !self.missing.contains(&what) {
            self.missing.push(what);
        }
    }

    fn write(&mut self, weights: Weights) {
        if weights != self.weights {
            self.written.push((self.now, weights.clone()));
        }
        self.weights = weights;
    }

    /// The recorded answer, if the call is the recorded one.
    fn recorded(&mut self, call: &Call) -> Option<Reply> {
        if call.is_aside() {
            return None;
        }
        let Step::Recorded { reply, at } = self.tape.as_mut()?.next(call) else {
            self.tape = None;
            return None;
        };
        self.now = at;
        if reply == Reply::Done
            && let Some(weights) = call.weights_after(&self.weights)
        {
            self.write(weights);
        }
        Some(reply)
    }
}

struct World {
    past: Past,
    /// End of the known metrics (Unix ms).
    end: Millis,
    queries: Vec<String>,
    probes: Vec<String>,
    arms: Vec<String>,
    period: Millis,
    caps: Caps,
    state: Mutex<State>,
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the world of the recorded answers says to a question that was not asked then.
    fn answer(&self, state: &mut State, call: &Call) -> Reply {
        match call {
            Call::GetWeights => Reply::Weights(state.weights.clone()),
            Call::SetWeights { .. } | Call::SwitchColor { .. } => self.write(state, call),
            Call::GetMetrics { query } => self.metrics(state, query),
            Call::Query { name, since } => self.query(state, name, *since),
            Call::GetHealth => Reply::Health(self.health(state.now)),
            Call::Probe { name } => self.probe(state, name),
            Call::Wait { seconds, .. } => {
                // People are assumed to agree at once.
                if call.asks_for_approval() {
                    let approve = Command::Approve {
                        comment: String::new(),
                    };
                    let id = format!("what-if-{}", state.calls);
                    return Reply::Woke(Wake::Signal(approve.signal(id, "what-if")));
                }
                state.now = state.now.saturating_add(Millis::from(*seconds) * 1_000);
                Reply::Woke(Wake::Timer)
            }
            Call::Report { finding } => {
                state.findings.push((**finding).clone());
                Reply::Done
            }
            _ => Reply::Done,
        }
    }

    fn write(&self, state: &mut State, call: &Call) -> Reply {
        let Some(wanted) = call.weights_after(&state.weights) else {
            return Reply::Done;
        };
        match wanted.ordered_as(&self.arms) {
            Ok(weights) => {
                state.write(weights);
                Reply::Done
            }
            Err(message) => Reply::Failed(HostError::new(
                ErrorKind::Invalid,
                "invalid-weights",
                message,
            )),
        }
    }

    fn metrics(&self, state: &mut State, query: &MetricsQuery) -> Reply {
        if let Some(why) = self.past.failure(METRICS, state.now) {
            return Reply::Failed(why);
        }
        if self.past.begin == Millis::MAX {
            state.lacks("any metrics".to_owned());
        } else if query.since.saturating_add(self.period) <= self.past.begin {
            let begin = crate::journal::time(self.past.begin);
            state.lacks(format!("metrics from before {begin}"));
        }
        let (samples, uncounted) = self.past.samples(query, state.now);
        for threshold in uncounted {
            state.lacks(format!("requests slower than {threshold} ms"));
        }
        Reply::Samples(samples)
    }

    fn query(&self, state: &mut State, name: &String, since: Millis) -> Reply {
        if let Some(why) = self.past.failure(name, state.now) {
            return Reply::Failed(why);
        }
        let Some(points) = self.past.points.get(name) else {
            if Count::of_query(name).is_some() {
                // Many targets do not count them, and an older journal has none.
                return Reply::Failed(HostError::new(
                    ErrorKind::NotFound,
                    "not-found",
                    format!("the journal has no {name}"),
                ));
            }
            state.lacks(format!("the query {name}"));
            return if self.queries.contains(name) {
                Reply::Points(vec![])
            } else {
                Reply::Failed(HostError::new(
                    ErrorKind::NotFound,
                    "not-found",
                    format!("the rollout file had no query {name:?}"),
                ))
            };
        };
        let known = points.iter();
        let known = known.filter(|(seen, p)| *seen <= state.now && p.at >= since);
        Reply::Points(known.map(|(_, p)| p.clone()).collect())
    }

    /// As it was last read before `now`; if it never was, all arms are well.
    fn health(&self, now: Millis) -> Vec<ArmHealth> {
        let mut before = self.past.health.iter().rev().filter(|(at, _)| *at <= now);
        let all_well = || {
            let well = |arm: &String| ArmHealth {
                arm: arm.clone(),
                healthy: 1,
                total: 1,
                health_reason: None,
            };
            self.arms.iter().map(well).collect()
        };
        before
            .next()
            .map_or_else(all_well, |(_, arms)| arms.clone())
    }

    fn probe(&self, state: &mut State, name: &String) -> Reply {
        if let Some(report) = self.past.probes.get(name) {
            return Reply::Probed(report.clone());
        }
        state.lacks(format!("the probe {name}"));
        Reply::Probed(ProbeReport {
            ok: true,
            status: 0,
            elapsed_ms: 0.0,
            detail: "not recorded; counted as passed".to_owned(),
        })
    }
}

impl World {
    fn call(&self, call: &Call, refused: Option<HostError>) -> Result<Reply, Interrupted> {
        let mut state = self.state();
        let reply = match state.recorded(call) {
            Some(reply) => reply,
            None => {
                let looks = matches!(call, Call::Wait { .. } | Call::GetMetrics { .. });
                let over = (looks && state.now >= self.end).then_some(Ending::Undecided);
                let used_up = self.caps.used_up(state.calls, state.bytes);
                // A limit would have ended it, whatever came after.
                if let Some(end) = used_up.map(Ending::Failed).or(over) {
                    state.stopped = Some(end);
                    return Err(Interrupted);
                }
                match refused {
                    Some(why) => Reply::Failed(why),
                    None => self.answer(&mut state, call),
                }
            }
        };
        state.calls += 1;
        state.bytes += exchange_size(call, &reply);
        Ok(reply)
    }
}

#[async_trait]
impl Calls for World {
    async fn perform(&self, call: Call) -> Result<Reply, Interrupted> {
        self.call(&call, None)
    }

    async fn refuse(&self, call: Call, why: HostError) -> Result<Reply, Interrupted> {
        self.call(&call, Some(why))
    }

    fn now(&self) -> Millis {
        self.state().now
    }

    fn probes(&self) -> Vec<String> {
        self.probes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(canary: u32) -> Weights {
        Weights::of([("stable", 100 - canary), ("canary", canary)])
    }

    #[test]
    fn weights_part_when_they_differ_for_longer_than_a_moment() {
        let baseline = weights(0);
        let recorded = [(10, weights(5)), (100, weights(50))];
        let parted = |asked: &[(Millis, Weights)]| parted(&recorded, asked, &baseline, (200, 20));
        assert_eq!(parted(&recorded), None);
        assert_eq!(parted(&[(5, weights(5)), (118, weights(50))]), None);
        assert_eq!(parted(&[(10, weights(5)), (121, weights(50))]), Some(100));
        assert_eq!(parted(&[(10, weights(5)), (60, weights(50))]), Some(60));
        assert_eq!(parted(&[]), Some(10));
    }

    fn sample(start: Millis, zone: Option<&str>, requests: u32, over: u32) -> Sample {
        Sample {
            arm: "canary".to_owned(),
            zone: zone.map(ToOwned::to_owned),
            start,
            period_ms: 60_000,
            requests,
            errors: 1,
            client_errors: 0,
            over: vec![over],
            latency: None,
            whole: None,
            cpu: None,
            memory: None,
            healthy: None,
        }
    }

    fn looked(seq: u32, at: Millis, samples: Vec<Sample>) -> Entry {
        Entry {
            seq,
            at,
            epoch: 1,
            event: Event::Exchanged {
                by: Actor::Strategy,
                call: Call::GetMetrics {
                    query: MetricsQuery {
                        since: 0,
                        over_ms: vec![250.0],
                        by_zone: true,
                    },
                },
                reply: Reply::Samples(samples),
            },
        }
    }

    #[test]
    fn samples_are_given_as_they_were_known_then() {
        let past = Past::of(
            &[
                looked(
                    1,
                    65_000,
                    vec![sample(0, Some("a"), 10, 1), sample(0, Some("b"), 20, 2)],
                ),
                // Revised later, and two new ones.
                looked(
                    2,
                    200_000,
                    vec![
                        sample(0, Some("a"), 12, 1),
                        sample(60_000, Some("a"), 5, 0),
                        sample(120_000, Some("a"), 6, 0),
                    ],
                ),
            ],
            0,
        );
        assert_eq!((past.lag, past.end), (5_000, 180_000));
        let ask = |now: Millis, over_ms: &[f64], by_zone: bool| {
            let query = MetricsQuery {
                since: 0,
                over_ms: over_ms.to_vec(),
                by_zone,
            };
            past.samples(&query, now)
        };
        let requests = |now| -> Vec<u32> {
            let (samples, _) = ask(now, &[250.0], false);
            samples.iter().map(|s| s.requests).collect()
        };
        assert_eq!(requests(64_000), [0_u32; 0]);
        // The second minute was known at 125 s, although nobody read it before 200 s.
        assert_eq!(requests(65_000), [30]);
        assert_eq!(requests(125_000), [30, 5]);
        assert_eq!(requests(200_000), [32, 5, 6]);
        let (zones, missing) = ask(65_000, &[250.0], true);
        assert_eq!((zones.len(), zones[1].over.clone()), (2, vec![2]));
        assert!(missing.is_empty());
        let (samples, missing) = ask(65_000, &[250.0, 300.0], false);
        assert!(samples[0].over.is_empty(), "half an answer is none");
        assert_eq!(missing, [300.0]);
    }
}

//! The gate of `analysis`, fed with a rollout's own metrics.
//!
//! ```ignore
//! let mut watch = Watch::begin(rollout, Settings::of_steps(&[5.0, 25.0, 50.0]), &[])?;
//! let outcome = watch.climb(rollout)?;
//! ```
//!
//! [`Watch::begin`] reads the stable arm's past; [`Watch::climb`] walks all
//! steps. A strategy that wants something in between calls [`Watch::enter`] and
//! [`Watch::bake`] itself, step by step.

use std::collections::BTreeMap;

use analysis::percentiles::{self, Percentiles};
use analysis::{
    Config, Counts, Decision, Finding, Gate, Interval, Measure, Moments, Past, Seen, Step,
    StepKind, Stream, probe_share,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::bake::OnNoData;
use crate::gate::{Judgement, Limits, Window};
use crate::{
    Error, Level, MetricsQuery, Outcome, Point, Rollout, Sample, Wake, inconclusive, rolled_back,
};

/// Samples of the past to calibrate with.
const PAST_SAMPLES: u32 = 120;
/// Samples and requests of the stable arm that its thresholds need.
const LEARN_SAMPLES: usize = 5;
const LEARN_REQUESTS: f64 = 100.0;
/// Samples to read again, because late requests change them.
const REVISED_SAMPLES: u32 = 5;
/// Looks without a new sample after which people are told, and after which
/// `on_no_data` says what to do.
const SILENT_NOTE: u32 = 10;
const SILENT_MAX: u32 = 30;
/// Requests that an arm must expect in a sample before none is a fault.
const EXPECTED_MIN: f64 = 20.0;
/// The candidate's thresholds are this much (0-1) above the stable arm's p90 and
/// p99: what is slower by less is not slower.
const STRETCH: [f64; 2] = [0.05, 0.10];

/// What to do when the evidence stays suspicious for too long: take the traffic
/// back (rollback), or ask a person (pause).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum OnInconclusive {
    Rollback,
    Pause,
}

/// A stream of your own: bad events of requests, or an average, from queries of
/// the rollout file.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Custom {
    /// As people read it.
    pub name: String,
    /// Part of the evidence that it gets, 0-1; latency gives it up.
    #[serde(default = "a_fifth")]
    pub share: f64,
    /// Query of the number of bad events per sample.
    pub bad: Option<String>,
    /// Query of the average per sample, instead of `bad`.
    pub mean: Option<String>,
    /// Query of the variance of one value, with `mean`.
    pub variance: Option<String>,
    /// Query of the number of events or values per sample; the requests if not
    /// given.
    pub of: Option<String>,
    /// Which average is worse: a higher one unless this is true.
    #[serde(default)]
    pub less_is_worse: bool,
    /// Largest difference of the averages that is none, as a part (0-1) of the
    /// stable one.
    #[serde(default = "a_fiftieth")]
    pub margin: f64,
}

fn a_fifth() -> f64 {
    0.2
}

fn a_fiftieth() -> f64 {
    0.02
}

impl Custom {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// One sentence.
    pub fn check(&self) -> Result<(), String> {
        match (&self.bad, &self.mean, &self.variance) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => {}
            (None, Some(_), None) => {
                return Err(format!("{} has a mean but no variance query", self.name));
            }
            _ => {
                return Err(format!(
                    "{} needs a query `bad`, or the queries `mean` and `variance`",
                    self.name
                ));
            }
        }
        if !(self.share > 0.0 && self.share <= 0.4) {
            return Err(format!(
                "{} has a share of {}; it must be above 0 and at most 0.4",
                self.name, self.share
            ));
        }
        if !(self.margin > 0.0 && self.margin < 1.0) {
            return Err(format!("{} has a margin of {}", self.name, self.margin));
        }
        Ok(())
    }

    fn stream(&self) -> Stream {
        match (&self.mean, self.less_is_worse) {
            (None, _) => Stream::events(&self.name, self.share),
            (_, true) => Stream::mean(&self.name, self.share, self.margin, Measure::LessIsWorse),
            _ => Stream::mean(&self.name, self.share, self.margin, Measure::MoreIsWorse),
        }
    }
}

/// How to climb.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Shares of the candidate in percent, rising; the last one may be 100.
    pub steps: Vec<f64>,
    /// Percent that the stable arm keeps during the last look, so that there is
    /// something to compare with; 0 for none.
    pub holdback: f64,
    /// Whether to begin with a handful of requests.
    pub probe: bool,
    /// Fewest samples at each step; the last one holds for all that follow.
    pub bake: Vec<u32>,
    /// Samples at the holdback.
    pub bake_holdback: u32,
    /// Samples at a probe.
    pub bake_probe: u32,
    /// Samples after which to go on unproven, at a step, and at one of 45 % or
    /// more.
    pub bake_max: [u32; 2],
    /// Every number of the gate.
    pub config: Config,
    /// Hard limits on the level, besides the comparison; none if not given.
    pub limits: Option<Limits>,
    /// When the evidence stays suspicious.
    pub on_inconclusive: OnInconclusive,
    /// When no samples come any more.
    pub on_no_data: OnNoData,
}

impl Settings {
    /// The defaults, with these steps (percent).
    #[must_use]
    pub fn of_steps(steps: &[f64]) -> Self {
        Self {
            steps: steps.to_vec(),
            ..Self::default()
        }
    }

    /// The steps to take, given the traffic before (requests per sample).
    fn ladder(&self, requests: f64) -> Vec<Step> {
        let step = |share: f64, kind, bake_min: u32, bake_max: u32| Step {
            share,
            kind,
            bake_min,
            bake_max: bake_max.max(bake_min),
        };
        let mut ladder = vec![];
        let last = 1.0 - self.holdback / 100.0;
        for (at, percent) in self.steps.iter().enumerate() {
            let share = percent / 100.0;
            if share < last {
                let bake = self.bake.get(at).or(self.bake.last()).copied().unwrap_or(0);
                let bake_max = self.bake_max[usize::from(share >= 0.45)];
                ladder.push(step(share, StepKind::Ramp, bake, bake_max));
            }
        }
        let first = ladder.first().map_or(last, |s| s.share);
        if let Some(share) = probe_share(requests, first).filter(|_| self.probe) {
            // As weights of 1,000, which is what the load balancer can do.
            let share = ((share * 1_000.0).round() / 1_000.0).max(0.002);
            let bake = self.bake_probe;
            ladder.insert(0, step(share, StepKind::Probe, bake, bake));
        }
        if self.holdback > 0.0 {
            let bake = self.bake_holdback;
            ladder.push(step(last, StepKind::Holdback, bake, bake));
        }
        ladder
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            steps: vec![5.0, 25.0, 50.0, 100.0],
            holdback: 5.0,
            probe: true,
            bake: vec![5],
            bake_holdback: 10,
            bake_probe: 2,
            bake_max: [12, 20],
            config: Config::default(),
            limits: None,
            on_inconclusive: OnInconclusive::Rollback,
            on_no_data: OnNoData::Hold,
        }
    }
}

/// The stable arm's p90 and p99, ms, once they are known.
type Thresholds = Option<[f64; 2]>;

/// See the module.
#[derive(Debug)]
pub struct Watch {
    gate: Gate,
    settings: Settings,
    customs: Vec<Custom>,
    thresholds: Thresholds,
    /// Whether the source counts slow requests; otherwise percentiles must do.
    counts_slow: bool,
    /// The candidate's share (0-1) and step from a time on (Unix ms).
    shares: Vec<(f64, f64, usize)>,
    /// What was taken in, by start (Unix ms).
    taken: BTreeMap<u64, (Interval, usize)>,
    /// End of the newest interval that was taken in, or left out for good.
    frontier: f64,
    /// The stable arm's samples until its thresholds are known.
    learned: Vec<Sample>,
    /// Length of one sample, ms.
    period: f64,
    silent: u32,
    last: Option<Finding>,
}

/// What came of one look.
struct Looked {
    decision: Option<Decision>,
    /// Why nothing was seen, if so.
    silence: Option<String>,
    /// The candidate and the stable arm over the newest samples.
    level: (Window, Window),
}

impl Watch {
    /// Reads the stable arm's past and prepares the steps. Must be called before
    /// the candidate has traffic.
    ///
    /// # Errors
    /// A stream is not well defined.
    pub fn begin(
        rollout: &mut Rollout,
        mut settings: Settings,
        customs: &[Custom],
    ) -> Result<Self, Error> {
        for custom in customs {
            custom.check()?;
            settings.config.add(custom.stream());
        }
        settings.config.check()?;
        learn_tasks(rollout, &mut settings.config);
        let period = period_ms(rollout);
        let now = rollout.now();
        let since = (now - period * f64::from(PAST_SAMPLES)).max(0.0);
        // A past that cannot be read is one that is not known.
        let recent = rollout.samples(since).unwrap_or_default();
        let stable = rollout.stable().name.clone();
        let recent: Vec<Sample> = recent.into_iter().filter(|s| s.arm == stable).collect();
        let requests = mean_requests(&recent);
        let mut watch = Self {
            gate: Gate::new(&Past::default(), settings.config.clone(), vec![]),
            thresholds: thresholds(&recent),
            counts_slow: true,
            shares: vec![],
            taken: BTreeMap::new(),
            frontier: now,
            learned: vec![],
            period,
            silent: 0,
            last: None,
            customs: customs.to_vec(),
            settings,
        };
        let past = watch.past(rollout, since, &stable, &recent);
        let ladder = watch.settings.ladder(requests);
        watch.gate = Gate::new(&past, watch.settings.config.clone(), ladder);
        Ok(watch)
    }

    /// Counts of the past, by zone where the source has them.
    fn past(&mut self, rollout: &mut Rollout, since: f64, stable: &str, pooled: &[Sample]) -> Past {
        let Some(_) = self.thresholds else {
            return Past::default();
        };
        let query = MetricsQuery {
            since,
            over_ms: self.over_ms(),
            by_zone: true,
        };
        let mut samples = rollout.query_samples(&query).unwrap_or_default();
        samples.retain(|s| s.arm == stable);
        self.counts_slow = samples.iter().any(|s| !s.over.is_empty());
        let mut zones: Vec<Option<String>> = samples.iter().map(|s| s.zone.clone()).collect();
        zones.sort();
        zones.dedup();
        let mut by_start: BTreeMap<u64, Vec<&Sample>> = BTreeMap::new();
        for sample in &samples {
            by_start.entry(key(sample.start)).or_default().push(sample);
        }
        let streams = self.settings.config.streams.len();
        let intervals = by_start.into_iter().map(|(start, of_zones)| {
            let whole = pooled.iter().find(|s| key(s.start) == start);
            let zone = |zone: &Option<String>| {
                let found = of_zones.iter().find(|s| s.zone == *zone);
                let mut counts = found.map_or_else(Vec::new, |s| self.past_counts(s, whole));
                // Streams of one's own have no past: the priors hold for them.
                counts.resize(streams, Counts::default());
                counts
            };
            zones.iter().map(zone).collect()
        });
        Past {
            intervals: intervals.collect(),
        }
    }

    fn past_counts(&self, sample: &Sample, whole: Option<&Sample>) -> Vec<Counts> {
        let of = f64::from(sample.requests);
        let errors = Counts::new(f64::from(sample.errors), of);
        let slower = match (&sample.over[..], percentiles_of(sample)) {
            ([slow, _, tail, _], _) => [slow, tail].map(|n| Counts::new(f64::from(*n), of)),
            (_, Some(own)) => {
                let reference = whole.and_then(percentiles_of).unwrap_or(own);
                [reference.p95, reference.p99]
                    .map(|ms| Counts::new(percentiles::share_above(&own, ms) * of, of))
            }
            _ => [Counts::default(); 2],
        };
        vec![errors, slower[0], slower[1]]
    }

    fn over_ms(&self) -> Vec<f64> {
        let Some([p90, p99]) = self.thresholds else {
            return vec![];
        };
        vec![p90, p90 * (1.0 + STRETCH[0]), p99, p99 * (1.0 + STRETCH[1])]
    }

    /// Share (0-1) of the current step; none when all are done.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        self.gate.step().map(|s| s.share)
    }

    /// What people read before every note, such as `step 2/5 at 25 %`.
    #[must_use]
    pub fn title(&self) -> String {
        let (at, of) = self.gate.position();
        let (share, kind) = self
            .gate
            .step()
            .map_or((1.0, StepKind::Ramp), |s| (s.share, s.kind));
        let name = match kind {
            StepKind::Probe => "probe",
            StepKind::Ramp => "step",
            StepKind::Holdback => "holdback",
        };
        let percent = format!("{:.1}", share * 100.0);
        let percent = percent.trim_end_matches(".0");
        format!("{name} {}/{of} at {percent} %", at + 1)
    }

    /// How far the rollout is, percent.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    pub fn percent(&self) -> u32 {
        let (at, of) = self.gate.position();
        let part = self.gate.step().map_or(0.0, |step| {
            f64::from(self.gate.pace().counted) / f64::from(step.bake_max.max(1))
        });
        ((at as f64 + part.min(0.9)) * 100.0 / of.max(1) as f64) as u32
    }

    /// Sets the weights of the current step.
    ///
    /// # Errors
    /// The host refuses for good.
    pub fn enter(&mut self, rollout: &mut Rollout) -> Result<(), Error> {
        let Some(share) = self.share() else {
            return Ok(());
        };
        rollout.reach_fraction(share, &self.title(), self.percent())?;
        let now = rollout.now();
        if self.shares.is_empty() {
            self.frontier = now;
        }
        self.shares.push((now, share, self.gate.position().0));
        Ok(())
    }

    /// Looks at every sample until the current step is done (none), or the
    /// rollout is over (some outcome). A person's `promote` ends it too.
    ///
    /// # Errors
    /// None of its own: metrics that cannot be read count as none.
    pub fn bake(&mut self, rollout: &mut Rollout) -> Result<Option<Outcome>, Error> {
        let title = self.title();
        loop {
            let hurried = matches!(rollout.wait(rollout.sample_period()), Wake::Signal(_));
            let looked = self.look(rollout);
            if let Some(said @ (Decision::RollBack | Decision::GiveUp)) = looked.decision {
                let line = format!("{title}: {}", self.explain(said));
                let pauses = self.settings.on_inconclusive == OnInconclusive::Pause;
                return Ok(Some(if said == Decision::GiveUp && pauses {
                    inconclusive(line)
                } else {
                    rolled_back(line)
                }));
            }
            if let Some(limits) = &self.settings.limits
                && let Judgement::Bad(why) = limits.judge(&looked.level.0, &looked.level.1)
            {
                return Ok(Some(rolled_back(format!("{title}: {why}"))));
            }
            if hurried {
                rollout.log(Level::Info, &format!("{title}: a person promoted it early"));
                // The look itself may have gone on already.
                if looked.decision != Some(Decision::Advance) {
                    self.gate.skip();
                }
                return Ok(None);
            }
            if looked.decision == Some(Decision::Advance) {
                return Ok(None);
            }
            if let Some(outcome) = self.hear(rollout, &title, &looked) {
                return Ok(Some(outcome));
            }
        }
    }

    /// All steps to the end: none when the candidate got through.
    ///
    /// # Errors
    /// As [`Watch::enter`] and [`Watch::bake`].
    pub fn climb(&mut self, rollout: &mut Rollout) -> Result<Option<Outcome>, Error> {
        while self.share().is_some() {
            self.enter(rollout)?;
            if let Some(outcome) = self.bake(rollout)? {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    /// Tells people where it stands; an outcome when silence is enough.
    fn hear(&mut self, rollout: &mut Rollout, title: &str, looked: &Looked) -> Option<Outcome> {
        let percent = self.percent();
        if let Some(why) = &looked.silence {
            if self.silent >= SILENT_MAX && self.settings.on_no_data != OnNoData::Hold {
                let line = format!("{title}: no data for {} samples; {why}", self.silent);
                return Some(match self.settings.on_no_data {
                    OnNoData::Rollback => rolled_back(line),
                    _ => inconclusive(line),
                });
            }
            let note = if self.silent >= SILENT_NOTE {
                format!("{title}: holds, no data for {} samples; {why}", self.silent)
            } else {
                format!("{title}: waits for samples; {why}")
            };
            rollout.progress(percent, &note);
            return None;
        }
        let (pace, step) = (self.gate.pace(), self.gate.step()?);
        let odds = self.last.as_ref().map_or(0.0, |f| f.log_evidence);
        let note = if pace.held > 0 {
            format!(
                "{title}: holds, evidence {} that it is worse",
                analysis::odds(odds)
            )
        } else {
            format!(
                "{title}: evidence {} that it is worse, {} of {} to {} samples",
                analysis::odds(odds),
                pace.counted,
                step.bake_min,
                step.bake_max
            )
        };
        rollout.progress(percent, &note);
        None
    }

    /// What the last look found, in words.
    fn explain(&self, decision: Decision) -> String {
        let config = self.gate.config();
        #[allow(clippy::cast_precision_loss)]
        let window = window_text(config.window as f64 * self.period);
        self.last.as_ref().map_or_else(String::new, |finding| {
            finding.explain(decision, self.gate.pace(), config, &window)
        })
    }

    /// What the last look found, in words; for the end of a rollout.
    #[must_use]
    pub fn summary(&self) -> String {
        match &self.last {
            Some(_) => self.explain(Decision::Advance),
            None => "nothing was seen of it".to_owned(),
        }
    }

    /// Takes in what is new.
    fn look(&mut self, rollout: &mut Rollout) -> Looked {
        let period = self.period;
        let begun = self.shares.first().map_or(self.frontier, |s| s.0);
        let since = (self.frontier - period * f64::from(REVISED_SAMPLES)).max(begun);
        let query = MetricsQuery {
            since,
            over_ms: self.over_ms(),
            by_zone: false,
        };
        let samples = match rollout.query_samples(&query) {
            Ok(samples) => samples,
            Err(error) => {
                return self.silence(format!("the metrics cannot be read: {}", error.message));
            }
        };
        let points = self.points(rollout, since);
        if !query.over_ms.is_empty() && !samples.is_empty() {
            self.counts_slow = samples.iter().any(|s| !s.over.is_empty());
        }
        let (stable, candidate) = (rollout.stable().clone(), rollout.candidate().clone());
        let level = (
            Window::of(&samples, &candidate),
            Window::of(&samples, &stable),
        );
        let names = [stable.name, candidate.name];
        let mut by_start: BTreeMap<u64, [Option<Sample>; 2]> = BTreeMap::new();
        for sample in samples {
            if let Some(arm) = names.iter().position(|n| *n == sample.arm)
                && sample.start >= begun
            {
                let start = key(sample.start);
                by_start.entry(start).or_default()[arm] = Some(sample);
            }
        }
        let mut decision = None;
        let mut revised = false;
        let mut silence = "none has come yet".to_owned();
        let mut any = false;
        for (start, arms) in by_start {
            #[allow(clippy::cast_precision_loss)]
            let at = start as f64;
            let Some((_, share, step)) = self
                .shares
                .iter()
                .rev()
                .find(|(from, ..)| *from <= at)
                .copied()
            else {
                continue;
            };
            let fresh = at >= self.frontier;
            if fresh {
                self.frontier = at + period;
                self.learn(&arms);
            }
            if let Some(why) = self.is_broken(&arms, share, &names) {
                silence = why;
                continue;
            }
            let interval = Interval {
                share,
                seen: self.seen(&arms, at, period, &names, &points),
            };
            let known = self.taken.insert(start, (interval.clone(), step));
            if !fresh {
                revised |= known.is_none_or(|(before, _)| before != interval);
                continue;
            }
            if std::mem::take(&mut revised) {
                self.rebuild(start);
            }
            any = true;
            let (said, finding) = self.gate.look(&interval);
            self.last = Some(finding);
            rollout.report(&self.report(said, at + period));
            if matches!(said, Decision::RollBack | Decision::GiveUp) {
                decision = Some(said);
                break;
            }
            if decision != Some(Decision::Advance) {
                decision = Some(said);
            }
        }
        if revised && !matches!(decision, Some(Decision::RollBack | Decision::GiveUp)) {
            self.rebuild(u64::MAX);
        }
        if !any {
            return Looked {
                level,
                ..self.silence(silence)
            };
        }
        self.silent = 0;
        Looked {
            decision,
            silence: None,
            level,
        }
    }

    fn silence(&mut self, why: String) -> Looked {
        self.silent += 1;
        Looked {
            decision: None,
            silence: Some(why),
            level: (Window::default(), Window::default()),
        }
    }

    /// Late requests have changed what was taken in: the evidence from the
    /// beginning, up to but without the interval at `before`.
    fn rebuild(&mut self, before: u64) {
        let taken: Vec<(Interval, usize)> =
            self.taken.range(..before).map(|(_, t)| t.clone()).collect();
        self.gate.rebuild(&taken);
    }

    /// Learns the thresholds from the stable arm while they are not known.
    fn learn(&mut self, arms: &[Option<Sample>; 2]) {
        if self.thresholds.is_none()
            && let Some(stable) = &arms[0]
        {
            self.learned.push(stable.clone());
            self.thresholds = thresholds(&self.learned);
        }
    }

    /// Why an interval tells nothing: an arm without a request that should have
    /// had some.
    fn is_broken(
        &self,
        arms: &[Option<Sample>; 2],
        share: f64,
        names: &[String; 2],
    ) -> Option<String> {
        let requests = |arm: usize| arms[arm].as_ref().map_or(0.0, |s| f64::from(s.requests));
        let total = requests(0) + requests(1);
        let expected = [total * (1.0 - share), total * share];
        (0..2)
            .find(|arm| requests(*arm) == 0.0 && expected[*arm] >= EXPECTED_MIN)
            .map(|arm| {
                format!(
                    "{} got no request although about {:.0} were due: is the routing right?",
                    names[arm], expected[arm]
                )
            })
    }

    fn seen(
        &self,
        arms: &[Option<Sample>; 2],
        at: f64,
        period: f64,
        names: &[String; 2],
        points: &Points,
    ) -> Vec<Seen> {
        let requests = |arm: usize| arms[arm].as_ref().map_or(0.0, |s| f64::from(s.requests));
        let errors = |arm: usize| arms[arm].as_ref().map_or(0.0, |s| f64::from(s.errors));
        let counts = |bad: [f64; 2], of: [f64; 2]| Seen::Counts {
            stable: Counts::new(bad[0], of[0]),
            candidate: Counts::new(bad[1], of[1]),
        };
        let of = [requests(0), requests(1)];
        let mut seen = vec![counts([errors(0), errors(1)], of)];
        seen.extend(self.slow(arms, of));
        for custom in &self.customs {
            let value = |query: &Option<String>, arm: usize| {
                let query = query.as_ref()?;
                points.at(query, &names[arm], at, period)
            };
            let of = |arm: usize| match &custom.of {
                Some(_) => value(&custom.of, arm).unwrap_or(0.0),
                None => requests(arm),
            };
            seen.push(match custom.mean {
                None => {
                    let bad = |arm| value(&custom.bad, arm);
                    // No value is no data: not a sample without a bad event.
                    match (bad(0), bad(1)) {
                        (Some(s), Some(c)) => counts([s, c], [of(0), of(1)]),
                        _ => counts([0.0; 2], [0.0; 2]),
                    }
                }
                Some(_) => {
                    let moments = |arm| {
                        let mean = value(&custom.mean, arm)?;
                        let variance = value(&custom.variance, arm)?;
                        Some(Moments {
                            mean,
                            variance,
                            of: of(arm),
                        })
                    };
                    Seen::Moments {
                        stable: moments(0).unwrap_or_default(),
                        candidate: moments(1).unwrap_or_default(),
                    }
                }
            });
        }
        seen
    }

    /// The latency streams: counts where the source counts, else percentiles.
    fn slow(&self, arms: &[Option<Sample>; 2], of: [f64; 2]) -> [Seen; 2] {
        let none = Seen::Counts {
            stable: Counts::default(),
            candidate: Counts::default(),
        };
        if self.counts_slow {
            if self.thresholds.is_none() {
                return [none; 2];
            }
            let over = |arm: usize, at: usize| {
                let sample = arms[arm].as_ref();
                sample
                    .and_then(|s| s.over.get(at))
                    .map_or(0.0, |n| f64::from(*n))
            };
            return [0, 2].map(|at| Seen::Counts {
                stable: Counts::new(over(0, at), of[0]),
                candidate: Counts::new(over(1, at + 1), of[1]),
            });
        }
        let percentiles = |arm: usize| arms[arm].as_ref().and_then(percentiles_of);
        match (percentiles(1), percentiles(0)) {
            (Some(candidate), Some(stable)) => {
                percentiles::slower((&candidate, of[1]), (&stable, of[0]), STRETCH)
                    .map(|(candidate, stable)| Seen::Counts { stable, candidate })
            }
            _ => [none; 2],
        }
    }

    /// Values of the streams of one's own.
    fn points(&self, rollout: &mut Rollout, since: f64) -> Points {
        let mut points = Points::default();
        for custom in &self.customs {
            for query in [&custom.bad, &custom.mean, &custom.variance, &custom.of]
                .into_iter()
                .flatten()
            {
                if !points.0.contains_key(query) {
                    let values = rollout.query(query, since).unwrap_or_default();
                    points.0.insert(query.clone(), values);
                }
            }
        }
        points
    }

    /// The last finding as the host wants it.
    fn report(&self, said: Decision, until: f64) -> crate::Finding {
        let Some(found) = &self.last else {
            unreachable!("a report follows a look");
        };
        crate::Finding {
            until,
            log_evidence: found.log_evidence,
            log_limit: found.log_limit,
            decision: match said {
                Decision::Stay => crate::Decision::Stay,
                Decision::Hold => crate::Decision::Hold,
                Decision::Advance => crate::Decision::Advance,
                Decision::GiveUp if self.settings.on_inconclusive == OnInconclusive::Pause => {
                    crate::Decision::Hold
                }
                Decision::RollBack | Decision::GiveUp => crate::Decision::RollBack,
            },
            excess_requests: found.excess_requests,
            streams: found
                .streams
                .iter()
                .map(|s| crate::StreamFinding {
                    name: s.name.clone(),
                    candidate_bad: s.candidate.bad,
                    candidate_of: s.candidate.of,
                    stable_bad: s.stable.bad,
                    stable_of: s.stable.of,
                    log_evidence: s.log_evidence,
                })
                .collect(),
            explanation: self.explain(said),
        }
    }
}

/// Values by query.
#[derive(Default)]
struct Points(BTreeMap<String, Vec<Point>>);

impl Points {
    /// Of one arm in one interval: a query gives one value per sample.
    fn at(&self, query: &str, arm: &str, start: f64, period: f64) -> Option<f64> {
        let values = self.0.get(query)?.iter();
        let within = |p: &&Point| p.arm == arm && p.at >= start && p.at < start + period;
        values.rev().find(within).map(|p| p.value)
    }
}

fn percentiles_of(sample: &Sample) -> Option<Percentiles> {
    sample.latency.as_ref().map(|l| Percentiles {
        p50: l.p50,
        p95: l.p95,
        p99: l.p99,
    })
}

/// The stable arm's p90 and p99 over these samples, weighted by requests; none
/// while there are too few.
fn thresholds(samples: &[Sample]) -> Thresholds {
    let known = || {
        let with = samples
            .iter()
            .filter_map(|s| s.latency.as_ref().map(|l| (s, l)));
        with.map(|(s, l)| (f64::from(s.requests), l))
    };
    let requests: f64 = known().map(|(n, _)| n).sum();
    if known().count() < LEARN_SAMPLES || requests < LEARN_REQUESTS {
        return None;
    }
    let mean =
        |of: fn(&crate::Latency) -> f64| known().map(|(n, l)| n * of(l)).sum::<f64>() / requests;
    Some([mean(|l| l.p90), mean(|l| l.p99)])
}

/// Requests per sample, over the newest ones.
#[allow(clippy::cast_precision_loss)]
fn mean_requests(samples: &[Sample]) -> f64 {
    let newest = &samples[samples.len().saturating_sub(10)..];
    let sum: f64 = newest.iter().map(|s| f64::from(s.requests)).sum();
    sum / newest.len().max(1) as f64
}

/// How many tasks serve, from the health of the arms.
fn learn_tasks(rollout: &mut Rollout, config: &mut Config) {
    let (stable, candidate) = (
        rollout.stable().name.clone(),
        rollout.candidate().name.clone(),
    );
    let Ok(health) = rollout.health() else {
        return;
    };
    let total = |arm: &str| health.iter().find(|h| h.arm == arm).map_or(0, |h| h.total);
    if total(&stable) > 0 {
        config.tasks = total(&stable);
        config.candidate_tasks_min = total(&candidate).max(1);
    }
}

#[allow(clippy::cast_precision_loss)]
fn period_ms(rollout: &Rollout) -> f64 {
    rollout.sample_period().as_millis() as f64
}

/// Unix ms as a key.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn key(at: f64) -> u64 {
    at as u64
}

/// `10 min`, `10 s`
fn window_text(ms: f64) -> String {
    if ms >= 60_000.0 {
        format!("{:.0} min", ms / 60_000.0)
    } else {
        format!("{:.0} s", ms / 1_000.0)
    }
}

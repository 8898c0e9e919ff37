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

mod restarts;
mod retreat;
mod settings;
mod sight;
mod slopes;
mod source;
mod split;

use std::collections::BTreeMap;
use std::time::Duration;

use analysis::{Config, Decision, Finding, Gate, Interval, Seen, StepKind};

pub use settings::{Caution, Custom, GateKind, OnInconclusive, Settings};

use crate::bake::OnNoData;
use crate::duration::in_words;
use crate::gate::{Judgement, Window};
use crate::{Error, Level, Outcome, Rollout, Wake, inconclusive, rolled_back};
use restarts::Restarts;
use sight::Shown;
use slopes::Slopes;
use source::Source;

/// Samples of the past to calibrate with.
const PAST_SAMPLES: u32 = 120;
/// Samples to read again, because late requests change them.
const REVISED_SAMPLES: u32 = 5;
/// Looks without a new sample after which a note says so, and after which
/// `on_no_data` decides.
const SILENT_NOTE: u32 = 10;
const SILENT_MAX: u32 = 30;
/// Samples that a step is held for a stream without a value, after which it is given up.
const UNMEASURED_MAX: u32 = 10;
/// Samples that a step is held out of caution, after which `on_inconclusive` decides.
const CAUTIOUS_MAX: u32 = 30;
/// Longest time between two looks while a person is asked.
const APPROVAL_LOOK: Duration = Duration::from_secs(60);

/// A gate with its steps and the metrics of a rollout.
#[derive(Debug)]
pub struct Watch {
    gate: Gate,
    /// What the rollout would show, if that is known.
    shown: Option<Shown>,
    settings: Settings,
    source: Source,
    /// The candidate's share (0-1) and step, each from a time on (Unix ms).
    shares: Vec<(f64, f64, usize)>,
    /// The intervals that the gate has seen, by start (Unix ms).
    taken: BTreeMap<u64, (Interval, usize)>,
    /// End of the newest interval that was seen, or left out for good.
    frontier: f64,
    silent: u32,
    /// Whether each of the custom streams has had a value at the current step.
    measured: Vec<bool>,
    /// Samples for which the current step was held because a stream has had none.
    unmeasured: u32,
    /// Samples for which it was held out of caution.
    cautious: u32,
    /// Start of the first interval whose answers may still come.
    complete: f64,
    last: Option<Finding>,
    /// Whether it was said that other shares arrive than were set, at the current step.
    warned: bool,
    restarts: Restarts,
    /// Why the candidate looks worse as a whole alone, and not zone by zone.
    apart: Option<String>,
    slopes: Slopes,
    /// Where the share is while an alarm waits for the next sample.
    retreat: Option<retreat::Retreat>,
}

/// The result of one look.
struct Looked {
    decision: Option<Decision>,
    /// Why nothing was seen, if nothing was.
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
        let mut source = Source::new(rollout, customs);
        if source.find_unanswered(rollout) {
            settings.config.add_unanswered();
        }
        let restarts = Restarts::find(rollout, settings.task_restarts);
        for custom in customs {
            custom.check()?;
            settings.config.add(custom.stream());
        }
        for stream in settings.config.streams.iter_mut().filter(|s| s.warm_up > 0) {
            stream.warm_up = settings.warm_up;
        }
        settings.config.check()?;
        learn_tasks(rollout, &mut settings.config);
        source.check_queries(rollout)?;
        let now = rollout.now();
        let since = (now - source.period * f64::from(PAST_SAMPLES)).max(0.0);
        let streams = settings.config.streams.len();
        let (past, mut requests) = source.past(rollout, since, streams);
        if requests <= 0.0 && settings.meets && settings.probe && settings.alone == 0 {
            requests = source.meet(rollout, now);
        }
        let now = rollout.now();
        settings.fit(requests);
        let known = source.describe(past.intervals.len());
        rollout.log(Level::Info, &known);
        if let Some(fitted) = settings.describe_fit(requests) {
            rollout.log(Level::Info, &fitted);
        }
        let mut gate = Gate::new(&past, settings.config.clone(), settings.ladder(requests));
        if let Some(effect) = settings.min_effect
            && let Err(why) = gate.show(requests, effect)
        {
            rollout.log(Level::Warn, &sight::unseen(effect, why));
        }
        let shown = Shown::of(&gate, requests, source.period);
        if let Some(shown) = &shown {
            rollout.log(Level::Info, &shown.say("would show"));
        }
        Ok(Self {
            gate,
            shown,
            source,
            shares: vec![],
            taken: BTreeMap::new(),
            frontier: now,
            silent: 0,
            measured: vec![false; customs.len()],
            unmeasured: 0,
            cautious: 0,
            complete: now,
            last: None,
            warned: false,
            restarts,
            apart: None,
            slopes: Slopes::default(),
            retreat: None,
            settings,
        })
    }

    /// Share (0-1) of the current step; `None` when all are done.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        self.gate.step().map(|s| s.share)
    }

    /// What precedes every note, such as `step 2/5 at 25 %`.
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
            StepKind::Alone => return "all traffic".to_owned(),
        };
        format!("{name} {}/{of} at {}", at + 1, percent(share))
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
        self.entered(rollout);
        Ok(())
    }

    /// Notes that the current step has begun, for strategies that set its weights by
    /// other means.
    pub fn entered(&mut self, rollout: &mut Rollout) {
        let Some(share) = self.share() else {
            return;
        };
        let now = rollout.now();
        if self.shares.is_empty() {
            self.frontier = now;
        }
        self.shares.push((now, share, self.gate.position().0));
        self.retreat = None;
        self.measured.fill(false);
        (self.unmeasured, self.cautious, self.warned) = (0, 0, false);
        self.restarts.enter(now);
    }

    /// Looks at every sample until the current step is done (`None`), or the rollout is
    /// over (an outcome). A person's `promote` ends the step too.
    ///
    /// # Errors
    /// It does not fail by itself: metrics that cannot be read count as no data.
    pub fn bake(&mut self, rollout: &mut Rollout) -> Result<Option<Outcome>, Error> {
        let title = self.title();
        let mut hurried = false;
        loop {
            hurried |= matches!(rollout.wait(rollout.sample_period()), Wake::Signal(_));
            let looked = self.look(rollout);
            if let Some(outcome) = self.over(&looked, &title) {
                return Ok(Some(outcome));
            }
            self.give_way(rollout, &looked)?;
            self.see_restarts(rollout);
            // An alarm is settled first.
            if hurried && !self.has_retreated() {
                rollout.log(Level::Info, &format!("{title}: a person promoted it early"));
                // What the whole step would have shown is not known.
                self.shown = None;
                // The last look may have gone on already.
                if looked.decision != Some(Decision::Advance) {
                    self.gate.skip();
                }
                return Ok(None);
            }
            if looked.decision == Some(Decision::Advance) {
                return Ok(None);
            }
            if self.unmeasured >= UNMEASURED_MAX
                && let Some(why) = self.unmeasured()
            {
                let line = format!("{title}: {why}");
                return Ok(Some(match self.settings.on_no_data {
                    OnNoData::Rollback => rolled_back(line),
                    OnNoData::Hold | OnNoData::Pause => inconclusive(line),
                }));
            }
            if self.cautious >= CAUTIOUS_MAX
                && let Some(why) = self.caution()
            {
                let line = format!("{title}: {why}");
                return Ok(Some(match self.settings.on_inconclusive {
                    OnInconclusive::Rollback => rolled_back(line),
                    OnInconclusive::Pause => inconclusive(line),
                }));
            }
            if let Some(outcome) = self.hear(rollout, &title, &looked) {
                return Ok(Some(outcome));
            }
        }
    }

    /// The outcome if a look ends the rollout, by evidence or by a limit.
    fn over(&self, looked: &Looked, title: &str) -> Option<Outcome> {
        if let Some(said @ (Decision::RollBack | Decision::GiveUp)) = looked.decision {
            let line = format!("{title}: {}", self.explain(said));
            let pauses = self.settings.on_inconclusive == OnInconclusive::Pause;
            return Some(if said == Decision::GiveUp && pauses {
                inconclusive(line)
            } else {
                rolled_back(line)
            });
        }
        let limits = self.settings.limits.as_ref()?;
        match limits.judge(&looked.level.0, &looked.level.1) {
            Judgement::Bad(why) => Some(rolled_back(format!("{title}: {why}"))),
            _ => None,
        }
    }

    /// Why the step may not be passed: a custom stream has had no value at it, and without
    /// data the candidate cannot be called good.
    fn unmeasured(&self) -> Option<String> {
        let at = self.measured.iter().position(|measured| !measured)?;
        Some(self.source.describe_unmeasured(at))
    }

    /// Takes all steps to the end; `None` if the candidate passed them.
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

    /// Waits until one of `signals` arrives (`None`), or until `time` is over
    /// (inconclusive), and goes on looking, so that a candidate with traffic is judged
    /// while people decide.
    pub fn wait_for(
        &mut self,
        rollout: &mut Rollout,
        time: Duration,
        signals: &[&str],
        title: &str,
    ) -> Option<Outcome> {
        let give_up = rollout.now() + time.as_secs_f64() * 1_000.0;
        let exposed = !self.shares.is_empty();
        let mut heard = false;
        loop {
            let left = (give_up - rollout.now()).max(0.0);
            let note = format!("{title}, for {} more at most", in_words(left));
            rollout.progress(self.percent(), &note);
            let slice = Duration::from_secs_f64(left / 1_000.0);
            let slice = match exposed {
                _ if heard => rollout.sample_period(),
                true => slice.min(rollout.sample_period().max(APPROVAL_LOOK)),
                false => slice,
            };
            heard |= matches!(rollout.wait_for(slice, signals), Wake::Signal(_));
            // An alarm is settled first.
            if heard && !self.has_retreated() {
                return None;
            }
            if exposed {
                let looked = self.look(rollout);
                if let Some(outcome) = self.over(&looked, title) {
                    return Some(outcome);
                }
                if let Err(Error(why)) = self.give_way(rollout, &looked) {
                    return Some(inconclusive(format!("{title}: {why}")));
                }
                self.see_restarts(rollout);
            }
            if !heard && rollout.now() >= give_up {
                return Some(inconclusive(format!("{title} in vain")));
            }
        }
    }

    /// Reports the state of the look; returns an outcome after too long without data.
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
            let note = if self.has_retreated() {
                format!("{title}: {}; {why}", self.retreating())
            } else if self.silent >= SILENT_NOTE {
                format!("{title}: holds, no data for {} samples; {why}", self.silent)
            } else {
                format!("{title}: waits for samples; {why}")
            };
            rollout.progress(percent, &note);
            return None;
        }
        if self.has_retreated() {
            rollout.progress(percent, &format!("{title}: {}", self.retreating()));
            return None;
        }
        if self.unmeasured > 0
            && let Some(why) = self.unmeasured()
        {
            rollout.progress(percent, &format!("{title}: holds, {why}"));
            return None;
        }
        if looked.decision == Some(Decision::Hold)
            && let Some(why) = self.doubt().or_else(|| self.caution())
        {
            rollout.progress(percent, &format!("{title}: holds, {why}"));
            return None;
        }
        let (pace, step) = (self.gate.pace(), self.gate.step()?);
        let known = self.certainty(pace.held > 0);
        let note = if pace.held > 0 {
            format!("{title}: holds, {known}")
        } else {
            let few = (0..2).any(|arm| pace.requests[arm] < step.requests_min[arm]);
            let few = if few && pace.counted >= step.bake_min {
                "; waits for requests to compare"
            } else {
                ""
            };
            format!(
                "{title}: {known}; {}, goes on after {}{few}",
                counted(pace.counted),
                span_of(step.bake_min, step.bake_max)
            )
        };
        rollout.progress(percent, &note);
        None
    }

    /// What is known of the candidate now, and how far it is from being taken back.
    fn certainty(&self, suspicious: bool) -> String {
        let alpha = self.gate.config().alpha;
        let (evidence, limit) = self
            .last
            .as_ref()
            .map_or((0.0, (1.0 / alpha).ln()), |finding| {
                (finding.log_evidence, finding.log_limit)
            });
        analysis::certainty(evidence, limit, suspicious)
    }

    /// The last finding in words.
    fn explain(&self, decision: Decision) -> String {
        let config = self.gate.config();
        let window = self.window();
        self.last.as_ref().map_or_else(String::new, |finding| {
            finding.explain(decision, self.gate.pace(), config, &window)
        })
    }

    /// The same, with what else there is to say of this look.
    fn explanation(&self, said: Decision) -> String {
        let holds = || {
            let unmeasured = self.unmeasured().filter(|_| self.unmeasured > 0);
            unmeasured
                .or_else(|| self.doubt())
                .or_else(|| self.caution())
        };
        if said == Decision::Hold
            && let Some(why) = holds()
        {
            return format!("{}; holds, {why}", self.explain(Decision::Stay));
        }
        let signs = [self.mismatch(), self.restarts_said(), self.slopes_said()];
        let all = std::iter::once(self.explain(said)).chain(signs.into_iter().flatten());
        all.collect::<Vec<_>>().join("; ")
    }

    /// Why no step may be taken although the evidence is for it.
    fn caution(&self) -> Option<String> {
        let skewed = self.skewed();
        skewed
            .or_else(|| self.restarting())
            .or_else(|| self.rising())
            .or_else(|| self.apart.clone())
    }

    /// The time that the rates of a finding are from, in words.
    fn window(&self) -> String {
        let config = self.gate.config();
        #[allow(clippy::cast_precision_loss)]
        match self.shares.last() {
            Some((_, share, _)) if *share >= 1.0 => {
                "since the switch, compared with stable's past, which is a weaker control"
                    .to_owned()
            }
            _ => format!(
                "in the last {}",
                in_words(config.window as f64 * self.source.period)
            ),
        }
    }

    /// The last finding of a version that passed, in brackets, for the end of a rollout, and
    /// what would have shown: `(suspicion 1 of 100; errors: …); +1 point of
    /// errors would have shown in about 4 min`.
    #[must_use]
    pub fn summary(&self) -> String {
        let Some(finding) = &self.last else {
            return "(nothing was seen of it)".to_owned();
        };
        let acquitted = finding.acquit(&self.window());
        let rate = |counts: analysis::Counts| counts.bad / counts.of.max(1.0);
        let errors = finding.streams.first();
        let excess = errors.map_or(0.0, |s| rate(s.candidate) - rate(s.stable));
        let shown = self.shown.as_ref();
        match shown.and_then(|shown| shown.beyond(excess)) {
            Some(shown) => format!("{acquitted}; {}", shown.say("would have shown")),
            None => acquitted,
        }
    }

    /// Reads the new samples and passes them to the gate.
    fn look(&mut self, rollout: &mut Rollout) -> Looked {
        let period = self.source.period;
        let begun = self.shares.first().map_or(self.frontier, |s| s.0);
        let since = (self.frontier - period * f64::from(REVISED_SAMPLES)).max(begun);
        let mut fresh = match self.source.read(rollout, since) {
            Ok(fresh) => fresh,
            Err(e) => return self.silence(format!("the metrics cannot be read: {}", e.message)),
        };
        self.complete(rollout);
        let level = fresh.level;
        let mut decision = None;
        let mut before_advance = None;
        let mut revised = false;
        let mut silence = "none has come yet".to_owned();
        let mut any = false;
        for (start, arms) in &std::mem::take(&mut fresh.intervals) {
            #[allow(clippy::cast_precision_loss)]
            let at = *start as f64;
            // A sample in which the weights changed counts for the new ones, because its
            // tasks are cold too.
            let shares = self.shares.iter().rev();
            let Some((_, share, step)) = shares.copied().find(|(from, ..)| *from < at + period)
            else {
                continue;
            };
            let is_new = at >= self.frontier;
            if is_new {
                self.frontier = at + period;
                self.source.learn(arms);
            }
            // Without traffic there is nothing to see.
            if share <= 0.0 {
                continue;
            }
            if let Some(why) = self.source.is_broken(arms, share, at) {
                silence = why;
                continue;
            }
            let mut interval = self.source.interval(share, *start, arms, &fresh);
            if interval.zones.is_empty()
                && let Some((known, _)) = self.taken.get(start)
            {
                interval.zones.clone_from(&known.zones);
            }
            if step == self.gate.position().0 {
                for (measured, seen) in self
                    .measured
                    .iter_mut()
                    .zip(self.source.customs(&interval.seen))
                {
                    *measured = *measured || is_measured(seen, share);
                }
            }
            if is_new {
                self.see_slopes(rollout, arms, at);
            }
            let known = self.taken.insert(*start, (interval.clone(), step));
            if !is_new {
                revised |= known.is_none_or(|(before, _)| before != interval);
                continue;
            }
            if std::mem::take(&mut revised) {
                self.rebuild(*start);
            }
            any = true;
            let pace = self.gate.pace();
            let (mut said, mut finding) = self.gate.look(&interval);
            if (looks_worse(said, &finding) || finding.incident)
                && let Some(zones) = self.compare_by_zone(rollout)
                && let Some((split, _)) = self.taken.get(start).cloned()
            {
                // The samples that came with this one are compared so too.
                fresh.zones = zones;
                self.gate.return_to(pace);
                self.rebuild(*start);
                (said, finding) = self.gate.look(&split);
            }
            self.see_apart(rollout, *start, &fresh.zones, &finding);
            if said == Decision::RollBack && fresh.zones_late && !self.has_retreated() {
                // A zone that fails for both arms would look like this.
                self.gate.return_to(pace);
                said = Decision::Hold;
            }
            self.cautious += u32::from(self.caution().is_some());
            if said == Decision::Advance && self.unmeasured().is_some() {
                self.gate.return_to(pace);
                self.unmeasured += 1;
                said = Decision::Hold;
            }
            let careful = self.caution().is_some() || self.doubt().is_some();
            if said == Decision::Advance && careful {
                self.gate.return_to(pace);
                said = Decision::Hold;
            }
            let troubled = finding.suspicious || finding.incident || finding.alarm;
            if said == Decision::Advance {
                before_advance = Some(pace);
            } else if let Some(pace) = before_advance.filter(|_| troubled) {
                // A later sample of the same read shows that the step was too early.
                self.gate.return_to(pace);
                before_advance = None;
                decision = None;
                if said != Decision::Retreat {
                    said = Decision::Hold;
                }
            }
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
            self.cautious += u32::from(self.restarting().is_some());
            return Looked {
                level,
                ..self.silence(silence)
            };
        }
        self.silent = 0;
        if !self.warned
            && let Some(mismatch) = self.mismatch()
        {
            rollout.log(Level::Warn, &format!("{}: {mismatch}", self.title()));
            self.warned = true;
        }
        Looked {
            decision,
            silence: None,
            level,
        }
    }

    /// Splits what was seen by zone, from a target that was not asked for that yet. Returns
    /// the zones if it did.
    fn compare_by_zone(&mut self, rollout: &mut Rollout) -> Option<source::ByZone> {
        if !self.settings.by_zone {
            return None;
        }
        let begun = self.shares.first().map_or(self.frontier, |s| s.0);
        let zones = self.source.find_zones(rollout, begun)?;
        for (start, (interval, _)) in &mut self.taken {
            interval.zones = self.source.seen_by_zone(*start, &zones);
        }
        Some(zones)
    }

    /// Notes whether the candidate looks worse as a whole at the interval that began at
    /// `start` (Unix ms), and not zone by zone, as was found. That takes nothing back, but the
    /// candidate may be what a zone suffers from.
    fn see_apart(
        &mut self,
        rollout: &mut Rollout,
        start: u64,
        zones: &source::ByZone,
        found: &Finding,
    ) {
        let before = self.apart.take();
        if zones.is_empty() || worse(found) {
            return;
        }
        let whole = |(interval, step): &(Interval, usize)| {
            (
                Interval::whole(interval.share, interval.seen.clone()),
                *step,
            )
        };
        let Some((newest, _)) = self.taken.get(&start).map(whole) else {
            return;
        };
        let earlier: Vec<(Interval, usize)> =
            self.taken.range(..start).map(|(_, t)| whole(t)).collect();
        let mut gate = self.gate.clone();
        gate.rebuild(&earlier);
        if !worse(&gate.look(&newest).1) {
            return;
        }
        let worst = self.source.worst_zone(zones).unwrap_or_default();
        let why = format!("it looks worse as a whole, and not zone by zone: {worst}");
        if before.is_none() {
            rollout.log(Level::Warn, &format!("{}: {why}", self.title()));
        }
        self.apart = Some(why);
    }

    /// Adds the requests without an answer to intervals that are old enough for their
    /// answers to have been counted.
    fn complete(&mut self, rollout: &mut Rollout) {
        let old = self.frontier - self.source.period * f64::from(REVISED_SAMPLES);
        self.source.read_unanswered(rollout, self.complete.min(old));
        let mut changed = false;
        for (start, (interval, _)) in self.taken.range_mut(source::key(self.complete)..) {
            #[allow(clippy::cast_precision_loss)]
            let at = *start as f64;
            let known = at < old && self.source.complete(&mut interval.seen, at);
            // One that never becomes known must not stand in the way of the others.
            if !known && at + self.source.period * f64::from(REVISED_SAMPLES) >= old {
                break;
            }
            self.complete = at + self.source.period;
            changed = true;
        }
        if changed {
            self.rebuild(u64::MAX);
        }
    }

    /// Why it is in doubt whether the candidate answers, in the newest intervals.
    fn doubt(&self) -> Option<String> {
        #[allow(clippy::cast_precision_loss)]
        let newest = self.taken.range(source::key(self.complete)..);
        #[allow(clippy::cast_precision_loss)]
        self.source
            .doubt(newest.map(|(start, (interval, _))| (*start as f64, &interval.seen[..])))
    }

    fn silence(&mut self, why: String) -> Looked {
        self.silent += 1;
        Looked {
            decision: None,
            silence: Some(why),
            level: (Window::default(), Window::default()),
        }
    }

    /// Rebuilds the evidence after late requests have changed samples, up to but
    /// without the interval at `before`.
    fn rebuild(&mut self, before: u64) {
        let taken: Vec<(Interval, usize)> =
            self.taken.range(..before).map(|(_, t)| t.clone()).collect();
        self.gate.rebuild(&taken);
    }

    /// The last finding in the form of the contract.
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
                // What is done about it is seen in the weights.
                Decision::Hold | Decision::Retreat => crate::Decision::Hold,
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
            explanation: self.explanation(said),
        }
    }
}

/// Whether a look would take traffic back, or take no step, because of what it found.
fn looks_worse(said: Decision, finding: &Finding) -> bool {
    worse(finding) || !matches!(said, Decision::Stay | Decision::Advance)
}

/// Whether what was found speaks against the candidate.
fn worse(finding: &Finding) -> bool {
    finding.suspicious || finding.alarm || finding.log_evidence >= finding.log_limit
}

/// Whether a stream has a value of both arms, or of the candidate if it has all traffic.
fn is_measured(seen: &Seen, share: f64) -> bool {
    let (candidate, stable) = match seen {
        Seen::Counts { candidate, stable } => (candidate.of, stable.of),
        Seen::Moments { candidate, stable } => (candidate.of, stable.of),
    };
    candidate > 0.0 && (stable > 0.0 || share >= 1.0)
}

/// Sets the number of tasks from the health of the arms.
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

/// A share (0-1) as `25 %` or `0.2 %`.
fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{} %", text.trim_end_matches(".0"))
}

/// `1 sample`, or `6 samples`.
fn counted(samples: u32) -> String {
    match samples {
        1 => "1 sample".to_owned(),
        _ => format!("{samples} samples"),
    }
}

/// `5 to 12`, or `10` where both are the same.
fn span_of(min: u32, max: u32) -> String {
    match min == max {
        true => min.to_string(),
        false => format!("{min} to {max}"),
    }
}

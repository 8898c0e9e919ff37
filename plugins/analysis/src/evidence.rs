//! The e-processes: how strong the evidence is that the candidate is worse.

use std::collections::VecDeque;

use crate::calibration::{Calibration, index, jump};
use crate::cold::{Cold, Early};
use crate::config::{Config, Incident, Measure, Noise, Stream};
use crate::loan::lent;
use crate::math::{LOG_ZERO, log_add, log_sum_exp};
use crate::{Counts, Interval, Moments, Seen, Spread, zones};

/// The 99 % quantile of a squared residual under chance alone. In an incident, an
/// interval beyond it tells nothing about noise.
const INCIDENT_RESIDUAL_MAX: f64 = 6.63;
/// The candidate's share of bad events and their number from which on an interval is
/// sudden, and the same for one that follows an alarm.
const SUDDEN: (f64, f64) = (0.2, 5.0);
const SUDDEN_AGAIN: (f64, f64) = (0.1, 3.0);
/// A sudden interval of the candidate has at least this many times stable's share.
const SUDDEN_TIMES: f64 = 4.0;
/// The most that one pair of stable's intervals tells of bursts.
const JUMP_MAX: f64 = 40.0;
/// While tasks may be cold, one stream reaches at most this part of the evidence needed.
const COLD_PART: f64 = 0.25;

/// Everything that accumulates over a rollout's intervals. A function of the
/// calibration and the intervals alone, so it is rebuilt when an interval is
/// revised.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    streams: Vec<Process>,
    /// Number of intervals so far.
    looks: u32,
    /// Intervals since the weights changed.
    age: u32,
    /// Intervals since the candidate's share was raised.
    warm: u32,
    share: Option<f64>,
    /// The largest share so far.
    share_max: f64,
    /// Part of the prior that was assigned so far.
    bet: f64,
    /// Intervals of a shared incident in a row.
    incidents: u32,
}

/// The e-process of one stream.
#[derive(Debug, Clone, PartialEq)]
struct Process {
    /// ln A_k of each alternative.
    log_a: Vec<f64>,
    /// Squared residuals about the split so far, and their number.
    residuals: (f64, f64),
    /// Squared differences of stable's neighbouring intervals so far, and their number.
    jumps: (f64, f64),
    /// Catastrophic intervals in a row.
    catastrophes: u32,
    /// ln A_k as it would be if those had no cap.
    uncapped: Option<Vec<f64>>,
    /// Whether the last interval would have decided without its cap.
    alarmed: bool,
    /// What the intervals since the last raise say of cold tasks.
    cold: Cold,
    /// Whether it is open if the evidence is of cold tasks alone.
    open: bool,
    /// Difference of the rates that counts.
    excess_min: f64,
    /// The last intervals without an incident: candidate, stable.
    window: VecDeque<(Counts, Counts)>,
    /// The last intervals, with incidents.
    latest: VecDeque<(Counts, Counts)>,
    /// Decayed sums: candidate, stable.
    sums: (Counts, Counts),
    /// Decayed sums of an average: weighted difference, weight, stable mean.
    shifts: [f64; 3],
    /// Last values of ln E, which show whether it rises.
    recent: VecDeque<f64>,
    /// The normal level of the stable arm: bad events and requests, decaying.
    reference: Counts,
    /// Number of bad events of the candidate so far beyond the stable rate.
    excess: f64,
}

/// The result of one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Natural logarithm of the combined evidence that the candidate is worse.
    pub log_evidence: f64,
    /// Logarithm of the evidence that rolls back, ln(1/alpha).
    pub log_limit: f64,
    /// Whether the evidence is high enough, and rising, to take no step.
    pub suspicious: bool,
    /// Whether the stable arm has an incident of its own.
    pub incident: bool,
    /// Whether stable's past is all that it was compared with.
    pub past: bool,
    /// Whether so much failed at once that this interval would decide if one could.
    pub alarm: bool,
    /// Index of the stream that contributes most.
    pub top: usize,
    /// The findings of all streams.
    pub streams: Vec<StreamFinding>,
    /// Estimated number of bad requests (errors and slow ones) that users would not
    /// have seen without the candidate.
    pub excess_requests: f64,
}

/// The result of one look for one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamFinding {
    /// The stream's name.
    pub name: String,
    /// Natural logarithm of its own evidence.
    pub log_evidence: f64,
    /// Whether the difference is large enough to matter.
    pub relevant: bool,
    /// The candidate's counts over the window.
    pub candidate: Counts,
    /// The stable arm's counts over the window.
    pub stable: Counts,
    /// The ratio from which on the candidate counts as worse.
    pub margin: f64,
    /// Whether it is shown to be not worse than allowed.
    pub non_inferior: bool,
}

impl Evidence {
    /// The state before the first interval.
    #[must_use]
    pub fn new(calibration: &Calibration, config: &Config) -> Self {
        let streams = config.streams.iter().zip(&calibration.spreads);
        Self {
            streams: streams
                .map(|(stream, spread)| Process {
                    log_a: vec![LOG_ZERO; stream.grid.len()],
                    residuals: (0.0, 0.0),
                    jumps: (0.0, 0.0),
                    catastrophes: 0,
                    uncapped: None,
                    alarmed: false,
                    cold: Cold::default(),
                    open: false,
                    excess_min: stream.excess_min(spread.reference),
                    window: VecDeque::new(),
                    latest: VecDeque::new(),
                    sums: <_>::default(),
                    shifts: [0.0; 3],
                    recent: VecDeque::new(),
                    reference: spread.reference,
                    excess: 0.0,
                })
                .collect(),
            looks: 0,
            age: 0,
            warm: 0,
            share: None,
            share_max: 0.0,
            bet: 0.0,
            incidents: 0,
        }
    }

    /// Adds one interval, in which both arms had a share of the traffic. `steps` is the
    /// number of raises in the rollout, `later` the index of the bound on the slack (0
    /// at the first step, 1 at the second, 2 afterwards).
    pub fn look(
        &mut self,
        interval: &Interval,
        calibration: &Calibration,
        config: &Config,
        steps: usize,
        later: usize,
    ) -> Finding {
        let fresh_share = self.share != Some(interval.share);
        let raised = self.share.is_none_or(|share| interval.share > share);
        self.share = Some(interval.share);
        self.looks += 1;
        self.age = if fresh_share { 0 } else { self.age + 1 };
        self.warm = if raised { 0 } else { self.warm + 1 };
        // A share that was held before is no new chance for a fault to begin.
        let higher = interval.share > self.share_max;
        self.share_max = self.share_max.max(interval.share);
        let bet = self.stake(higher, config, steps);
        let incident = self.incident(interval, calibration, config);
        let mut found = Vec::with_capacity(config.streams.len());
        for (at, stream) in config.streams.iter().enumerate() {
            let margin = calibration.margin(at, interval.share, config);
            let seen = if self.age < stream.warm_up {
                Seen::none(stream.measure)
            } else {
                interval.seen[at]
            };
            let spread = &calibration.spreads[at];
            let process = &mut self.streams[at];
            let zones = zones::of(interval, &seen, at);
            let seen = zones::standardised(seen, &zones);
            process.warm_to(self.warm, &seen, stream);
            process.accumulate(&seen, &zones, stream, spread, margin, bet.ln(), config);
            process.learn(&seen, spread, incident);
            process.remember(&seen, config, incident);
            found.push(process.relevance(stream, margin));
        }
        self.bet = (self.bet + bet).min(1.0 - 1e-9);
        let unspent = (1.0 - self.bet).ln();
        let log_limit = (1.0 / config.alpha).ln();
        let (mut suspicious, mut terms) = (false, Vec::with_capacity(found.len()));
        for ((process, stream), finding) in
            self.streams.iter_mut().zip(&config.streams).zip(&mut found)
        {
            let log_e = process.log_evidence(stream, unspent);
            finding.log_evidence = log_e;
            let part = stream.share.ln();
            // An incident of stable does not show that the candidate is good, but it must
            // not hide evidence that suffices by itself.
            finding.relevant |= log_e + part >= log_limit && process.exceeds_lately(stream);
            let term = part
                + if finding.relevant {
                    log_e
                } else {
                    log_e.min(0.0)
                };
            terms.push(match process.open && !process.is_catastrophic(stream) {
                true => term.min(log_limit + COLD_PART.ln()),
                false => term,
            });
            let rising = process.rises(log_e, config);
            suspicious |=
                finding.relevant && rising && log_e + part >= (config.hold_evidence / 2.0).ln();
        }
        if !incident {
            for (process, seen) in self.streams.iter_mut().zip(&interval.seen) {
                process.refer(seen);
            }
        }
        for (at, stream) in config.streams.iter().enumerate() {
            let dispersion = calibration.spreads[at].dispersion;
            found[at].non_inferior = !stream.proof
                || self.streams[at].is_non_inferior(
                    stream,
                    dispersion,
                    found[at].margin,
                    later,
                    config,
                );
        }
        let top = (0..terms.len()).fold(0, |top, at| if terms[at] > terms[top] { at } else { top });
        Finding {
            log_evidence: log_sum_exp(terms.iter().copied()),
            log_limit,
            suspicious,
            incident,
            past: false,
            alarm: self.streams.iter().any(|process| process.alarmed),
            top,
            streams: found,
            excess_requests: self.streams.iter().take(2).map(|p| p.excess.max(0.0)).sum(),
        }
    }

    /// The part of the prior for a fault that begins now.
    fn stake(&self, higher: bool, config: &Config, steps: usize) -> f64 {
        let later_steps = index(steps.saturating_sub(1)).max(1.0);
        let step = match (higher, self.looks) {
            (false, _) => 0.0,
            (true, 1) => config.bet_first,
            (true, _) => config.bet_step.min(config.bet_steps_max / later_steps),
        };
        // Σ (t + 10)^-1.5 over t >= 1 is 0.617.
        step + config.bet_time / 0.617 * (f64::from(self.looks) + 10.0).powf(-1.5)
    }

    /// Whether the stable arm itself is far above its normal level. After some time that
    /// level becomes the normal one.
    fn incident(
        &mut self,
        interval: &Interval,
        calibration: &Calibration,
        config: &Config,
    ) -> bool {
        let parts = config.streams.iter().zip(&calibration.spreads);
        let mut incident = false;
        for (at, (stream, spread)) in parts.enumerate() {
            let Seen::Counts { stable, .. } = interval.seen[at] else {
                continue;
            };
            let reference = self.streams[at].reference;
            let rate = (reference.bad + 1.0) / (reference.of + 1.0).max(1.0);
            incident |= match stream.incident {
                Incident::Never => false,
                Incident::Surge => {
                    let expected = stable.of * rate;
                    let noise = (spread.dispersion * expected).sqrt();
                    stable.bad >= 5.0 && stable.bad > 3.0 * expected + 3.0 * noise
                }
                Incident::Share => {
                    stable.bad >= 10.0 && stable.bad > (2.5 * rate).min(0.9) * stable.of
                }
            };
        }
        self.incidents = if incident { self.incidents + 1 } else { 0 };
        if self.incidents < config.incident_max {
            return incident;
        }
        for ((process, seen), stream) in self
            .streams
            .iter_mut()
            .zip(&interval.seen)
            .zip(&config.streams)
        {
            if let (Seen::Counts { stable, .. }, true) = (seen, stream.incident != Incident::Never)
            {
                process.reference = Counts::new(stable.bad * 30.0, stable.of * 30.0);
            }
        }
        false
    }
}

impl Seen {
    fn none(measure: Measure) -> Self {
        match measure {
            Measure::Events => Self::Counts {
                candidate: Counts::default(),
                stable: Counts::default(),
            },
            _ => Self::Moments {
                candidate: Moments::default(),
                stable: Moments::default(),
            },
        }
    }
}

impl Process {
    /// `A_k <- e^l_k (A_k + w)`: the mixture with restarts. The log gain `l_k` is the sum of
    /// those of the zones.
    #[expect(clippy::too_many_arguments, reason = "all that one interval brings")]
    fn accumulate(
        &mut self,
        seen: &Seen,
        zones: &[[Counts; 2]],
        stream: &Stream,
        spread: &Spread,
        margin: f64,
        log_bet: f64,
        config: &Config,
    ) {
        let cap = stream.log_cap(config.alpha);
        match *seen {
            Seen::Counts { candidate, stable } => {
                let (_, lately) = sums(&self.latest);
                let loan = lent([candidate, stable], lately, spread, config.borrow);
                let control = stable.and(loan);
                let split = Split::of(candidate, control, margin);
                let parts = zones.iter().map(|[candidate, own]| {
                    // What is lent goes where the requests are.
                    let loan = loan.part(own.of / stable.of.max(1.0));
                    Split::of(*candidate, own.and(loan), margin)
                });
                let parts: Vec<Split> = parts.flatten().collect();
                let (squares, n) = self.residuals;
                let online = ((5.0 + squares) / (5.0 + n)).max(1.0);
                let dispersion = self.dispersion(stable, stream, spread, config);
                let gains = stream.grid.iter().map(|(ratio, _)| match &split {
                    None => 0.0,
                    Some(split) => {
                        let noise = dispersion + split.variance * spread.drift;
                        let ratios = parts.iter().map(|part| part.log_ratio(margin * ratio));
                        ratios.sum::<f64>() / (noise * online)
                    }
                });
                let gains: Vec<f64> = gains.collect();
                self.note_sudden(candidate, stable);
                self.gain(&gains, stream, log_bet, config);
                if stable.of > 0.0 && candidate.of > 0.0 {
                    self.excess += candidate.bad - candidate.of * stable.bad / stable.of;
                }
            }
            Seen::Moments { candidate, stable } => {
                let shift = Shift::of(candidate, stable, stream, spread.dispersion);
                for (log_a, (margins, _)) in self.log_a.iter_mut().zip(&stream.grid) {
                    let gain = shift
                        .as_ref()
                        .map_or(0.0, |s| s.log_ratio(margins * s.margin).min(cap));
                    *log_a = gain + log_add(*log_a, log_bet);
                }
            }
        }
    }

    /// The stream's dispersion. Where the past is too short to tell it, what stable does
    /// in this rollout may raise it: errors in bursts of twenty are no evidence of a fault.
    /// Without a past nothing tells a burst from an outage, so no minute tells much, and
    /// quiet ones make it less.
    fn dispersion(
        &mut self,
        stable: Counts,
        stream: &Stream,
        spread: &Spread,
        config: &Config,
    ) -> f64 {
        let short = spread.weight + self.jumps.1 < config.pairs_min;
        if short
            && stream.noise == Noise::Bursts
            && let Some((_, before)) = self.latest.back()
        {
            self.jumps.0 += jump(*before, stable).unwrap_or(0.0).min(JUMP_MAX);
            self.jumps.1 += 1.0;
        }
        let (squares, pairs) = self.jumps;
        let learned = (spread.dispersion * spread.weight + squares) / (spread.weight + pairs);
        learned.max(spread.dispersion)
    }

    /// Counts an interval in which much fails on the candidate alone, or ends the row.
    /// Without requests of both arms it says neither.
    fn note_sudden(&mut self, candidate: Counts, stable: Counts) {
        if candidate.of <= 0.0 || stable.of <= 0.0 {
            return;
        }
        let (candidate_rate, stable_rate) = (candidate.bad / candidate.of, stable.bad / stable.of);
        let (rate, events) = if self.alarmed { SUDDEN_AGAIN } else { SUDDEN };
        let sudden = candidate_rate >= rate
            && candidate.bad >= events
            && stable_rate <= candidate_rate / SUDDEN_TIMES;
        if sudden {
            self.catastrophes += 1;
        } else {
            (self.catastrophes, self.uncapped) = (0, None);
        }
    }

    /// Whether intervals count without their cap.
    fn is_catastrophic(&self, stream: &Stream) -> bool {
        stream.catastrophe > 0 && self.catastrophes >= stream.catastrophe
    }

    /// Adds the log gains of one interval to every alternative, each within the cap. After
    /// enough catastrophic intervals in a row, what the cap has kept of them comes back:
    /// evidence is never above that without a cap, which is an e-process itself.
    fn gain(&mut self, gains: &[f64], stream: &Stream, log_bet: f64, config: &Config) {
        let cap = stream.log_cap(config.alpha);
        let mut uncapped = self.uncapped.take().unwrap_or_else(|| self.log_a.clone());
        for ((log_a, uncapped), gain) in self.log_a.iter_mut().zip(&mut uncapped).zip(gains) {
            *uncapped = gain + log_add(*uncapped, log_bet);
            *log_a = gain.min(cap) + log_add(*log_a, log_bet);
        }
        self.alarmed = false;
        if self.is_catastrophic(stream) {
            self.log_a.clone_from(&uncapped);
        } else if stream.catastrophe > 0 && self.catastrophes > 0 {
            let priors = uncapped.iter().zip(&stream.grid);
            let log_e = log_sum_exp(priors.map(|(log_a, (_, prior))| log_a + prior.ln()));
            self.alarmed = log_e + stream.share.ln() >= (1.0 / config.alpha).ln();
        }
        if self.catastrophes > 0 {
            self.uncapped = Some(uncapped);
        }
    }

    /// Weighs what the first intervals after a raise said by those that follow.
    fn warm_to(&mut self, age: u32, seen: &Seen, stream: &Stream) {
        self.open = false;
        if stream.cold == 0 {
            return;
        }
        if age == 0 {
            self.cold.raised(&self.log_a);
        }
        let Seen::Counts { candidate, stable } = *seen else {
            return;
        };
        match self.cold.look(age, stream.cold, [candidate, stable]) {
            Early::Counts => {}
            Early::Open => self.open = true,
            Early::Gone => {
                for (log_a, before) in self.log_a.iter_mut().zip(self.cold.before()) {
                    *log_a = log_a.min(*before);
                }
                // It is no difference of today either.
                self.window.clear();
                self.latest.clear();
            }
        }
    }

    /// Estimates the dispersion of this rollout's split around that of the last
    /// intervals.
    fn learn(&mut self, seen: &Seen, spread: &Spread, incident: bool) {
        let Seen::Counts { candidate, stable } = *seen else {
            return;
        };
        let total = candidate.bad + stable.bad;
        let counted = candidate.of > 0.0 && stable.of > 0.0 && total > 0.0;
        if !counted || self.window.len() < 3 {
            return;
        }
        let (c, s) = sums(&self.window);
        let rate = |sum: Counts| (sum.bad + 0.5) / (sum.of + 1.0);
        let ratio = rate(c) / rate(s).max(1e-9);
        let part = ratio * candidate.of / (ratio * candidate.of + stable.of).max(1e-9);
        let variance = total * part * (1.0 - part);
        if variance > 0.5 {
            let noise = spread.dispersion + variance * spread.drift;
            let residual = (candidate.bad - total * part).powi(2) / variance / noise;
            // An incident changes the split of a bad version. If that counted as noise,
            // the gate would miss the version for the rest of the rollout.
            if incident && residual > INCIDENT_RESIDUAL_MAX {
                return;
            }
            self.residuals.0 += residual.min(10.0);
            self.residuals.1 += 1.0;
        }
    }

    /// Adds the interval to the windows and, unless there is an incident, to the
    /// non-inferiority sums.
    fn remember(&mut self, seen: &Seen, config: &Config, incident: bool) {
        let (candidate, stable) = match *seen {
            Seen::Counts { candidate, stable } => (candidate, stable),
            // Written as "bad of requests", so that one window serves both.
            Seen::Moments { candidate, stable } => (
                Counts::new(candidate.mean * candidate.of, candidate.of),
                Counts::new(stable.mean * stable.of, stable.of),
            ),
        };
        push(&mut self.latest, (candidate, stable), config.window);
        if incident {
            return;
        }
        push(&mut self.window, (candidate, stable), config.window);
        let decayed = |sum: Counts, new: Counts| {
            Counts::new(
                sum.bad * config.decay + new.bad,
                sum.of * config.decay + new.of,
            )
        };
        self.sums = (
            decayed(self.sums.0, candidate),
            decayed(self.sums.1, stable),
        );
        if let Seen::Moments { candidate, stable } = *seen {
            let weight = Shift::weight(candidate, stable);
            let new = [
                weight * (candidate.mean - stable.mean),
                weight,
                weight * stable.mean.abs(),
            ];
            for (sum, new) in self.shifts.iter_mut().zip(new) {
                *sum = *sum * config.decay + new;
            }
        }
    }

    /// Whether the difference over the window matters in practice.
    fn relevance(&self, stream: &Stream, margin: f64) -> StreamFinding {
        let (candidate, stable) = sums(&self.window);
        let relevant = exceeds(stream, self.excess_min, candidate, stable);
        StreamFinding {
            name: stream.name.clone(),
            log_evidence: 0.0,
            relevant,
            candidate,
            stable,
            margin,
            non_inferior: false,
        }
    }

    /// The same over the last intervals, with incidents.
    fn exceeds_lately(&self, stream: &Stream) -> bool {
        let (candidate, stable) = sums(&self.latest);
        exceeds(stream, self.excess_min, candidate, stable)
    }

    /// `E = Σ p_k A_k + 1 - Σ w`.
    fn log_evidence(&self, stream: &Stream, log_unspent: f64) -> f64 {
        let terms = self.log_a.iter().zip(&stream.grid);
        log_add(
            log_sum_exp(terms.map(|(log_a, (_, prior))| log_a + prior.ln())),
            log_unspent,
        )
    }

    fn rises(&mut self, log_e: f64, config: &Config) -> bool {
        self.recent.push_back(log_e);
        if self.recent.len() > config.fresh {
            self.recent.pop_front();
        }
        let least = self.recent.iter().copied().fold(f64::INFINITY, f64::min);
        self.recent.len() < config.fresh || log_e - least >= 0.3
    }

    fn refer(&mut self, seen: &Seen) {
        if let Seen::Counts { stable, .. } = seen {
            self.reference = Counts::new(
                self.reference.bad * 0.99 + stable.bad,
                self.reference.of * 0.99 + stable.of,
            );
        }
    }

    /// Whether the upper bound of the candidate's rate is within what is allowed.
    fn is_non_inferior(
        &self,
        stream: &Stream,
        dispersion: f64,
        margin: f64,
        later: usize,
        config: &Config,
    ) -> bool {
        let (c, s) = self.sums;
        if stream.measure != Measure::Events {
            let [weighted, weight, level] = self.shifts;
            if weight <= 0.0 {
                return false;
            }
            let worse = if stream.measure == Measure::MoreIsWorse {
                1.0
            } else {
                -1.0
            };
            let bound = worse * weighted / weight + config.bound_z * (dispersion / weight).sqrt();
            return bound <= (stream.margin + stream.slack[later]) * level / weight;
        }
        // Wilson and Hilferty 1931: an upper bound of a Poisson mean.
        let a = c.bad / dispersion + 1.0;
        let bound = a * (1.0 - 1.0 / (9.0 * a) + config.bound_z / (3.0 * a.sqrt())).powi(3)
            / (c.of / dispersion).max(1e-9);
        let slack = (config.slack_events * dispersion / c.of.max(1.0))
            .max(stream.slack_min)
            .min(stream.slack[later]);
        bound <= stream.ratio.max(margin) * s.bad / s.of.max(1.0) + slack
    }
}

fn push(window: &mut VecDeque<(Counts, Counts)>, counts: (Counts, Counts), length: usize) {
    window.push_back(counts);
    if window.len() > length {
        window.pop_front();
    }
}

fn sums(window: &VecDeque<(Counts, Counts)>) -> (Counts, Counts) {
    window
        .iter()
        .fold(<_>::default(), |(c, s): (Counts, Counts), (x, y)| {
            (c.and(*x), s.and(*y))
        })
}

/// Whether a difference matters in practice.
fn exceeds(stream: &Stream, least: f64, candidate: Counts, stable: Counts) -> bool {
    let (c, s) = (
        candidate.bad / candidate.of.max(1.0),
        stable.bad / stable.of.max(1.0),
    );
    match stream.measure {
        Measure::Events => c - s >= least,
        Measure::MoreIsWorse => c - s >= stream.excess * s.abs(),
        Measure::LessIsWorse => s - c >= stream.excess * s.abs(),
    }
}

/// The candidate's part of the bad events of one interval, given their total:
/// binomial with `r n_c / (r n_c + n_s)` at a ratio `r` of the rates.
pub(crate) struct Split {
    candidate: Counts,
    stable: Counts,
    part: f64,
    /// Variance of the candidate's number of events, at the margin.
    pub(crate) variance: f64,
}

impl Split {
    pub(crate) fn of(candidate: Counts, stable: Counts, margin: f64) -> Option<Self> {
        let total = candidate.bad + stable.bad;
        if candidate.of <= 0.0 || stable.of <= 0.0 || total <= 0.0 {
            return None;
        }
        let part = margin * candidate.of / (margin * candidate.of + stable.of);
        Some(Self {
            candidate,
            stable,
            part,
            variance: total * part * (1.0 - part),
        })
    }

    /// Log likelihood ratio of `ratio` against the margin.
    pub(crate) fn log_ratio(&self, ratio: f64) -> f64 {
        let scaled = ratio * self.candidate.of;
        let part = (scaled / (scaled + self.stable.of)).clamp(1e-12, 1.0 - 1e-12);
        self.candidate.bad * (part / self.part).ln()
            + self.stable.bad * ((-part).ln_1p() - (-self.part).ln_1p())
    }
}

/// The difference of two means in one interval: normal, with the variance of
/// both (Wald 1945: the likelihood ratio of a shift).
struct Shift {
    /// How much worse the candidate is, in the metric's unit.
    worse: f64,
    variance: f64,
    /// By how much it may be worse, in the metric's unit.
    margin: f64,
}

impl Shift {
    fn weight(candidate: Moments, stable: Moments) -> f64 {
        if candidate.of <= 0.0 || stable.of <= 0.0 {
            return 0.0;
        }
        let variance = candidate.variance / candidate.of + stable.variance / stable.of;
        if variance > 0.0 { 1.0 / variance } else { 0.0 }
    }

    fn of(candidate: Moments, stable: Moments, stream: &Stream, dispersion: f64) -> Option<Self> {
        let weight = Self::weight(candidate, stable);
        let sign = if stream.measure == Measure::LessIsWorse {
            -1.0
        } else {
            1.0
        };
        (weight > 0.0).then(|| Self {
            worse: sign * (candidate.mean - stable.mean),
            variance: dispersion / weight,
            margin: stream.margin * stable.mean.abs(),
        })
    }

    /// Log likelihood ratio of being worse by `further` than the margin, against
    /// the margin itself.
    fn log_ratio(&self, further: f64) -> f64 {
        (further * (self.worse - self.margin) - further * further / 2.0) / self.variance
    }
}

//! A gate without a concurrent control, for when the stable arm has no traffic: it
//! compares the candidate with the stable arm's past. It is weaker, and its messages
//! say so: whatever happens to the whole service looks like the candidate's fault.

use crate::calibration::{Calibration, index};
use crate::config::Config;
use crate::evidence::{Finding, StreamFinding};
use crate::math::{LOG_ZERO, log_add, log_sum_exp};
use crate::{Counts, Seen};

/// Alternatives, as multiples of the allowed rate, equally likely.
const GRID: [f64; 5] = [1.5, 3.0, 8.0, 25.0, 100.0];
/// Largest part of the evidence that one interval may bring.
const CAP: f64 = 0.45;
/// Probability of rolling back a version that keeps to the allowed rates; smaller
/// than the concurrent gate's, because the past is a poor control.
const ALPHA: f64 = 0.003;
/// Allowed rate: this many times the past one, plus so much (0-1), for errors,
/// slow and very slow requests. Further streams are treated as errors.
const ALLOWED: [(f64, f64); 3] = [(1.5, 0.001), (1.5, 0.02), (2.0, 0.01)];

/// Poisson likelihood ratios against `r p + d`, with restarts as in
/// [`crate::Evidence`] and the total dispersion of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct PastControl {
    /// ln A_k of each stream.
    log_a: Vec<[f64; GRID.len()]>,
    /// The candidate's counts so far, of each stream.
    sums: Vec<Counts>,
    looks: u32,
    bet: f64,
}

impl PastControl {
    /// The state before the first interval.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            log_a: vec![[LOG_ZERO; GRID.len()]; config.streams.len()],
            sums: vec![Counts::default(); config.streams.len()],
            looks: 0,
            bet: 0.0,
        }
    }

    /// Adds the candidate's counts of one interval.
    pub fn look(&mut self, seen: &[Seen], calibration: &Calibration, config: &Config) -> Finding {
        self.looks += 1;
        let first = if self.looks == 1 {
            config.bet_first
        } else {
            0.0
        };
        let bet = first + config.bet_time / 0.617 * (f64::from(self.looks) + 10.0).powf(-1.5);
        self.bet = (self.bet + bet).min(1.0 - 1e-9);
        let unspent = (1.0 - self.bet).ln();
        let mut streams = Vec::with_capacity(self.log_a.len());
        let mut excess = 0.0;
        for (at, log_a) in self.log_a.iter_mut().enumerate() {
            let spread = &calibration.spreads[at];
            let stream = &config.streams[at];
            let cap = CAP * (1.0 / (ALPHA * stream.share)).ln();
            let counts = match seen[at] {
                Seen::Counts { candidate, .. } if self.looks > stream.warm_up => candidate,
                _ => Counts::default(),
            };
            let (ratio, slack) = ALLOWED.get(at).copied().unwrap_or(ALLOWED[0]);
            // Without a past, one bad event in a hundred counts as normal.
            let past = (spread.reference.bad + 1.0) / (spread.reference.of + 100.0);
            let allowed = (past * ratio + slack).min(0.9);
            for (log_a, factor) in log_a.iter_mut().zip(GRID) {
                let rate = (allowed * factor).min(0.99);
                let gain = (counts.bad * (rate / allowed).ln() - counts.of * (rate - allowed))
                    / spread.total_dispersion;
                *log_a = gain.min(cap) + log_add(*log_a, bet.ln());
            }
            let mixed = log_sum_exp(log_a.iter().copied()) - index(GRID.len()).ln();
            let sum = &mut self.sums[at];
            *sum = sum.and(counts);
            if at < 2 {
                excess += (sum.bad - sum.of * past).max(0.0);
            }
            streams.push(StreamFinding {
                name: stream.name.clone(),
                log_evidence: log_add(mixed, unspent),
                relevant: true,
                candidate: *sum,
                stable: spread.reference,
                margin: allowed / past,
                non_inferior: false,
            });
        }
        let term = |at: usize| streams[at].log_evidence + config.streams[at].share.ln();
        let log_evidence = log_sum_exp((0..streams.len()).map(term));
        Finding {
            log_evidence,
            log_limit: (1.0 / ALPHA).ln(),
            suspicious: log_evidence >= config.hold_evidence.ln(),
            incident: false,
            past: true,
            alarm: false,
            top: (0..streams.len()).fold(0, |top, at| if term(at) > term(top) { at } else { top }),
            streams,
            excess_requests: excess,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Past;

    fn seen(rates: [f64; 3], n: f64) -> Vec<Seen> {
        let counts = |rate: f64| Seen::Counts {
            candidate: Counts::new((rate * n).round(), n),
            stable: Counts::default(),
        };
        rates.map(counts).to_vec()
    }

    fn calibration(config: &Config) -> Calibration {
        let minute = vec![
            [0.001, 0.1, 0.01]
                .map(|rate| Counts::new(rate * 1_000.0, 1_000.0))
                .to_vec(),
        ];
        Calibration::of(
            &Past {
                intervals: vec![minute; 60],
            },
            config,
        )
    }

    #[test]
    fn the_same_rates_are_no_evidence_and_worse_ones_are() {
        let config = Config::default();
        let calibration = calibration(&config);
        let mut good = PastControl::new(&config);
        let mut bad = PastControl::new(&config);
        let (mut last, mut found) = (0.0, None);
        for minute in 0..30 {
            let same = seen([0.001, 0.1, 0.01], 1_000.0);
            last = good.look(&same, &calibration, &config).log_evidence;
            let worse = seen([0.03, 0.1, 0.01], 1_000.0);
            let finding = bad.look(&worse, &calibration, &config);
            if finding.log_evidence >= finding.log_limit {
                found = found.or(Some((minute, finding.top)));
            }
        }
        assert!(last < 0.0, "{last}");
        let (minute, top) = found.expect("3 % errors are found");
        assert!((1..6).contains(&minute) && top == 0, "{minute} {top}");
    }
}

//! Whether something only rises at the candidate: memory, CPU or latency. A version that leaks
//! looks well for as long as a rollout lasts.

use analysis::slope::{Ceiling, Pair, Rise, rise};

use super::source::Arms;
use super::{Caution, Watch};
use crate::duration::in_words;
use crate::{Level, Rollout, Sample};

/// How many series there are.
const COUNT: usize = 3;
/// Samples after which slopes are looked for again.
const EACH: usize = 5;

/// One of the series.
#[derive(Debug)]
struct Series {
    name: &'static str,
    unit: &'static str,
    of: fn(&Sample) -> Option<f64>,
    ceiling: Ceiling,
}

const SERIES: [Series; COUNT] = [
    Series {
        name: "memory",
        unit: "points",
        of: |sample| sample.memory,
        ceiling: Ceiling::Reserved,
    },
    Series {
        name: "CPU",
        unit: "points",
        of: |sample| sample.cpu,
        ceiling: Ceiling::Reserved,
    },
    Series {
        name: "median latency",
        unit: "ms",
        of: |sample| sample.latency.as_ref().map(|l| l.p50),
        ceiling: Ceiling::Double,
    },
];

/// What was seen of the series, and found in them.
#[derive(Debug, Default)]
pub(super) struct Slopes {
    pairs: [Vec<Pair>; COUNT],
    found: [Option<Rise>; COUNT],
    said: [bool; COUNT],
}

impl Slopes {
    /// Takes the values of an interval whose weights are those of the stratum, and looks for
    /// slopes now and then.
    fn take(&mut self, arms: &Arms, (stratum, at): (usize, f64)) {
        let [Some(stable), Some(candidate)] = arms else {
            return;
        };
        for (index, series) in SERIES.iter().enumerate() {
            let pairs = &mut self.pairs[index];
            if let (Some(candidate), Some(stable)) = ((series.of)(candidate), (series.of)(stable)) {
                pairs.push(Pair {
                    stratum,
                    at,
                    candidate,
                    stable,
                });
                if pairs.len().is_multiple_of(EACH) {
                    self.found[index] = rise(pairs, series.ceiling);
                }
            }
        }
    }
}

impl Watch {
    /// Looks at a new interval that began at `at` (Unix ms).
    pub(super) fn see_slopes(&mut self, rollout: &mut Rollout, arms: &Arms, at: f64) {
        let period = self.source.period;
        let stratum = self
            .shares
            .iter()
            .rposition(|(from, ..)| *from < at + period);
        let Some(stratum) = stratum.filter(|_| self.settings.slopes != Caution::Ignore) else {
            return;
        };
        // Tasks are cold, and their number may have changed.
        if at < self.shares[stratum].0 + period * f64::from(self.settings.warm_up) {
            return;
        }
        self.slopes.take(arms, (stratum, at / period));
        for (index, found) in self.slopes.found.iter().enumerate() {
            if let Some(found) = found
                && !std::mem::replace(&mut self.slopes.said[index], true)
            {
                let line = self.describe_slope(&SERIES[index], found);
                rollout.log(Level::Warn, &format!("{}: {line}", self.title()));
            }
        }
    }

    /// `memory of canary rises by 1.2 points a minute since 12:10 UTC and would be at 100 % in
    /// 35 min; stable's does not`.
    fn describe_slope(&self, series: &Series, found: &Rise) -> String {
        let period = self.source.period;
        let [stable, candidate] = self.source.names();
        // By the minute, or by the second where samples are.
        let (unit, length) = match period < 30_000.0 {
            true => ("second", 1_000.0),
            false => ("minute", 60_000.0),
        };
        let each = |slope: f64| short(slope * length / period);
        let reaches = match series.ceiling {
            Ceiling::Reserved => "would be at 100 %",
            Ceiling::Double => "would have doubled",
        };
        let theirs = match found.stable {
            None => format!("that of {stable} does not"),
            Some(slope) => format!("that of {stable} by {}", each(slope)),
        };
        format!(
            "{} of {candidate} rises by {} {} a {unit} since {} and {reaches} in {}; {theirs}",
            series.name,
            each(found.slope),
            series.unit,
            time_of_day(found.since * period),
            in_words(found.left * period),
        )
    }

    /// What rises, in words.
    pub(super) fn slopes_said(&self) -> Option<String> {
        let found = self.slopes.found.iter().zip(&SERIES);
        let lines = found.filter_map(|(f, series)| Some(self.describe_slope(series, f.as_ref()?)));
        let lines: Vec<String> = lines.collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// The same, where no step may be taken because of it.
    pub(super) fn rising(&self) -> Option<String> {
        self.slopes_said()
            .filter(|_| self.settings.slopes == Caution::Hold)
    }
}

/// A slope in two digits or so: `1.2`, `0.35`.
fn short(slope: f64) -> String {
    match slope >= 1.0 {
        true => format!("{slope:.1}"),
        false => format!("{slope:.2}"),
    }
}

/// `12:10 UTC`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn time_of_day(at: f64) -> String {
    let minutes = (at / 60_000.0).max(0.0) as u64 % 1_440;
    format!("{:02}:{:02} UTC", minutes / 60, minutes % 60)
}

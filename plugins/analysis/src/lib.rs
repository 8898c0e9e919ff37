//! The gate: evidence, interval by interval, that the candidate is worse.
//!
//! Every signal becomes a number of bad events out of requests, counted in the
//! same interval on both arms. Given their total, the candidate's part is
//! binomial, so whatever affects both arms cancels. A mixture of likelihood ratios
//! with restarts is an e-process: it may be read after every interval, without a
//! limit on time, and still exceeds `1/alpha` with a probability of at most `alpha`
//! if the candidate is not worse than the margin (Ville 1939; see Ramdas et al.,
//! *Game-theoretic statistics and safe anytime-valid inference*, 2023). Three
//! corrections cover what the model leaves out: the evidence is divided by a measured
//! dispersion, that of one interval is capped, and the margin widens with the
//! differences between the zones of the stable arm.
//!
//! The parts, in the order in which a rollout uses them:
//!
//! * [`Calibration`]: dispersion and heterogeneity from the stable arm's past.
//! * [`probe_share`]: how small the first share may be.
//! * [`Evidence`]: the e-processes of all streams; rolls back.
//! * [`Pace`]: hold or advance.
//! * [`Gate`]: the parts together.
//! * [`slope`]: what only rises at the candidate.
//! * [`Sight`]: which faults a rollout would show, and after how long.
//! * [`PastControl`]: a weaker gate for when the stable arm has no traffic.
//! * [`percentiles`]: counts from percentiles, if a source has nothing else.
//!
//! Pure: without I/O, clock and randomness. The same intervals give the same state,
//! so a state is rebuilt by replaying its intervals. Nothing here depends on the
//! length of an interval; the defaults are meant for minutes.

mod calibration;
mod cold;
mod config;
mod evidence;
mod explain;
mod gate;
mod loan;
pub mod math;
mod pace;
mod past;
pub mod percentiles;
mod probe;
mod sight;
pub mod slope;
mod zones;

pub use calibration::{Calibration, Past, Spread};
pub use config::{Config, Incident, Measure, Noise, Stream};
pub use evidence::{Evidence, Finding, StreamFinding};
pub use explain::{certainty, count, odds, percent, suspicion};
pub use gate::{Decision, Gate};
pub use pace::{Pace, Step, StepKind};
pub use past::PastControl;
pub use probe::probe_share;
pub use sight::{Sight, Unseen};

/// Bad events of one arm in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counts {
    /// Number of bad events; a fraction if it was interpolated.
    pub bad: f64,
    /// Number of requests that could have been bad.
    pub of: f64,
}

impl Counts {
    /// `bad` out of `of`.
    #[must_use]
    pub fn new(bad: f64, of: f64) -> Self {
        Self { bad, of }
    }

    /// These and the others together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new(self.bad + other.bad, self.of + other.of)
    }

    /// A part (0-1) of these.
    #[must_use]
    pub fn part(self, part: f64) -> Self {
        Self::new(self.bad * part, self.of * part)
    }
}

/// A metric of one arm in one interval that is an average, not a count.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moments {
    /// Mean of the values, in the metric's unit.
    pub mean: f64,
    /// Variance of one value, in the square of the unit.
    pub variance: f64,
    /// Number of values.
    pub of: f64,
}

/// What one stream saw on both arms in one interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seen {
    /// Events.
    Counts {
        /// Those of the candidate.
        candidate: Counts,
        /// Those of the stable arm.
        stable: Counts,
    },
    /// Averages.
    Moments {
        /// Those of the candidate.
        candidate: Moments,
        /// Those of the stable arm.
        stable: Moments,
    },
}

/// One complete metrics interval of both arms.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    /// The candidate's share of the traffic in it, 0-1.
    pub share: f64,
    /// What each stream saw, in the order of [`Config::streams`].
    pub seen: Vec<Seen>,
    /// The same by zone, if that is known; the last streams may be left out.
    pub zones: Vec<Vec<Seen>>,
}

impl Interval {
    /// An interval of which no zones are known.
    #[must_use]
    pub fn whole(share: f64, seen: Vec<Seen>) -> Self {
        Self {
            share,
            seen,
            zones: vec![],
        }
    }
}

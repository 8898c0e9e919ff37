//! The constants of the gate, each with its unit and its reason.

use crate::Counts;

/// How the gate decides. The defaults were chosen in simulations (see
/// `engine/docs/guide/gate.md`); most services need no others.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Probability (0-1) of ever rolling back a version that is not worse than the
    /// margins. The evidence that rolls back is `1 / alpha`.
    pub alpha: f64,
    /// What is watched, in order. Their shares sum to at most 1.
    pub streams: Vec<Stream>,
    /// Number of tasks that carry all traffic; 20 if it is not known.
    pub tasks: u32,
    /// Fewest tasks that the candidate has while it gets traffic.
    pub candidate_tasks_min: u32,

    /// Part (0-1) of the prior for a fault from the first interval on.
    pub bet_first: f64,
    /// Part (0-1) of the prior for a fault that begins with a later step.
    pub bet_step: f64,
    /// Part (0-1) of the prior for all later steps together.
    pub bet_steps_max: f64,
    /// Part (0-1) of the prior for a fault that begins at any time, spread over
    /// the intervals as `(t + 10)^-1.5`.
    pub bet_time: f64,

    /// Evidence from which on no step is taken while it rises.
    pub hold_evidence: f64,
    /// Held intervals in a row after which the rollout goes back.
    pub hold_max: u32,
    /// Intervals in which evidence must have risen by a factor of e^0.3 to count
    /// as rising.
    pub fresh: usize,
    /// Intervals over which rates are compared for a practical excess.
    pub window: usize,
    /// Factor by which the sums of the non-inferiority test decay in each interval.
    pub decay: f64,
    /// Quantile of the upper confidence bound of that test: 1.645 for 95 %.
    pub bound_z: f64,
    /// The slack of that test is this many events divided by the requests seen.
    pub slack_events: f64,

    /// Weight of the prior dispersion, in pairs of intervals.
    pub dispersion_weight: f64,
    /// Dispersion of a service without a past; 1 is a Poisson process.
    pub dispersion_prior: f64,
    /// Pairs of intervals, those of the prior among them, below which stable's intervals
    /// of the rollout itself tell the dispersion too; 0 for never.
    pub pairs_min: f64,
    /// Weight of the prior heterogeneity, in zones.
    pub spread_weight: f64,
    /// Standard deviations of the difference between arms that the margin covers.
    pub spread_z: f64,
    /// Intervals of a shared incident in a row after which its level is normal.
    pub incident_max: u32,
    /// The past lends the stable arm at most this many times its own requests; 0 for
    /// nothing.
    pub borrow: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            alpha: 0.01,
            streams: vec![Stream::errors(), Stream::slow(), Stream::tail()],
            tasks: 20,
            candidate_tasks_min: 1,
            bet_first: 0.30,
            bet_step: 0.09,
            bet_steps_max: 0.36,
            bet_time: 0.34,
            hold_evidence: 3.0,
            hold_max: 30,
            fresh: 15,
            window: 10,
            decay: 0.977,
            bound_z: 1.645,
            slack_events: 4.0,
            dispersion_weight: 10.0,
            dispersion_prior: 1.3,
            pairs_min: 0.0,
            spread_weight: 6.0,
            spread_z: 2.0,
            incident_max: 15,
            borrow: 0.0,
        }
    }
}

/// One kind of bad event, or one average.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// Its name for people, such as `errors`.
    pub name: String,
    /// Its part (0-1) of the combined evidence.
    pub share: f64,
    /// What it counts.
    pub measure: Measure,
    /// Ratio of candidate to stable from which on the candidate counts as worse.
    pub margin: f64,
    /// Alternatives, as multiples of the margin, with their prior probabilities.
    pub grid: Vec<(f64, f64)>,
    /// Largest part (0-1) of the evidence needed that one interval may bring, so
    /// that one bad interval alone never decides.
    pub cap: f64,
    /// After so many intervals in a row with at least 5 events, 20 % of the
    /// candidate's requests and four times the stable share, the cap does not apply;
    /// 0 for never. With 2 and more, one that would decide without the cap is an alarm
    /// ([`crate::Decision::Retreat`]), after which 3 events and 10 % are enough.
    pub catastrophe: u32,
    /// Difference of the rates (0-1), or of the means as a part of the stable mean,
    /// below which evidence does not count, however strong.
    pub excess: f64,
    /// The same as a part (0-1) of the usual rate, where that is less; at least a tenth
    /// of `excess`. 0 for always `excess`.
    pub excess_part: f64,
    /// Intervals after a raise of the share whose evidence alone does not decide: those
    /// that follow must bear it out. 0 for none.
    pub cold: u32,
    /// How its deviation from a binomial stream is treated.
    pub noise: Noise,
    /// Prior of the relative standard deviation between tasks.
    pub task_spread: f64,
    /// Prior of the relative standard deviation with which one arm changes over time.
    pub wander: f64,
    /// Non-inferiority: the candidate's upper bound may be this many times the stable
    /// rate,
    pub ratio: f64,
    /// plus a slack (0-1) of at most this at the first, second and later steps,
    pub slack: [f64; 3],
    /// and of at least this, however much was seen.
    pub slack_min: f64,
    /// Intervals after a change of the weights that do not count, because tasks are cold.
    pub warm_up: u32,
    /// What counts as a shared incident in it.
    pub incident: Incident,
    /// Whether a step that goes on early must have shown the candidate to be not worse in
    /// it.
    pub proof: bool,
}

/// What a stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Bad events out of requests.
    Events,
    /// An average of which more is worse.
    MoreIsWorse,
    /// An average of which less is worse.
    LessIsWorse,
}

/// The cause of its dispersion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noise {
    /// Bursts, such as retries: the whole dispersion divides the evidence.
    Bursts,
    /// Common drift of the rate, at least of this relative size per interval:
    /// the dispersion grows with the number of events.
    Drift(f64),
}

/// When the stable arm counts as having an incident of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    /// This stream shows no incidents.
    Never,
    /// At least 5 events, and three times the normal number plus three standard
    /// deviations.
    Surge,
    /// At least 10 events, and 2.5 times the normal share.
    Share,
}

impl Stream {
    /// 5xx answers and failed connections.
    #[must_use]
    pub fn errors() -> Self {
        Self {
            name: "errors".to_owned(),
            share: 0.5,
            measure: Measure::Events,
            margin: 1.25,
            // Ratios up to a thousand, for a stable arm that had no error at all.
            grid: vec![
                (1.3, 0.15),
                (1.8, 0.2),
                (3.0, 0.2),
                (6.0, 0.15),
                (15.0, 0.1),
                (60.0, 0.1),
                (1_000.0, 0.1),
            ],
            cap: 0.6,
            catastrophe: 1,
            excess: 0.000_5,
            excess_part: 0.0,
            cold: 0,
            noise: Noise::Bursts,
            task_spread: 0.20,
            wander: 0.05,
            ratio: 1.5,
            slack: [0.02, 0.01, 0.005],
            slack_min: 0.000_5,
            warm_up: 0,
            incident: Incident::Surge,
            proof: true,
        }
    }

    /// Requests slower than the stable arm's own p90. The candidate's threshold is 5 %
    /// higher, so the margin is in milliseconds and the ratio has none.
    #[must_use]
    pub fn slow() -> Self {
        Self {
            name: "slow requests".to_owned(),
            share: 0.25,
            measure: Measure::Events,
            margin: 1.0,
            grid: vec![(1.2, 0.25), (1.5, 0.25), (2.0, 0.2), (3.0, 0.2), (6.0, 0.1)],
            cap: 0.4,
            catastrophe: 0,
            excess: 0.01,
            excess_part: 0.0,
            cold: 0,
            noise: Noise::Drift(0.03),
            task_spread: 0.08,
            wander: 0.03,
            ratio: 1.3,
            slack: [0.03, 0.03, 0.02],
            slack_min: 0.005,
            warm_up: 2,
            incident: Incident::Share,
            proof: true,
        }
    }

    /// Requests slower than the stable arm's own p99; the candidate's threshold
    /// is 10 % higher.
    #[must_use]
    pub fn tail() -> Self {
        Self {
            name: "very slow requests".to_owned(),
            share: 0.25,
            measure: Measure::Events,
            margin: 1.0,
            grid: vec![
                (1.3, 0.25),
                (1.8, 0.25),
                (3.0, 0.2),
                (6.0, 0.2),
                (15.0, 0.1),
            ],
            cap: 0.4,
            catastrophe: 0,
            excess: 0.003,
            excess_part: 0.0,
            cold: 0,
            noise: Noise::Drift(0.05),
            task_spread: 0.12,
            wander: 0.05,
            ratio: 1.5,
            slack: [0.02, 0.01, 0.01],
            slack_min: 0.002,
            warm_up: 2,
            incident: Incident::Never,
            proof: true,
        }
    }

    /// Requests that got no answer from the arm. Their shares come late and are rough,
    /// because a request is counted in one interval and its answer may be in the next, so
    /// a small difference does not count and no step waits for them.
    #[must_use]
    pub fn unanswered(share: f64) -> Self {
        Self {
            name: "requests without an answer".to_owned(),
            share,
            margin: 1.5,
            excess: 0.01,
            excess_part: 0.0,
            catastrophe: 0,
            incident: Incident::Never,
            proof: false,
            ..Self::errors()
        }
    }

    /// Bad events of a custom stream, treated as errors are, with `share` (0-1) of the
    /// evidence.
    #[must_use]
    pub fn events(name: &str, share: f64) -> Self {
        Self {
            name: name.to_owned(),
            share,
            excess_part: 0.0,
            catastrophe: 0,
            incident: Incident::Never,
            ..Self::errors()
        }
    }

    /// An average of a custom stream, with `share` (0-1) of the evidence. The candidate
    /// is worse if it differs by more than `margin`, a part (0-1) of the stable mean.
    ///
    /// The alternatives are differences of one to eight further margins.
    #[must_use]
    pub fn mean(name: &str, share: f64, margin: f64, measure: Measure) -> Self {
        Self {
            name: name.to_owned(),
            share,
            measure,
            margin,
            grid: vec![(1.0, 0.3), (2.0, 0.3), (4.0, 0.2), (8.0, 0.2)],
            excess: margin,
            noise: Noise::Bursts,
            slack: [3.0 * margin, 2.0 * margin, margin],
            slack_min: margin,
            catastrophe: 0,
            cold: 0,
            incident: Incident::Never,
            ..Self::tail()
        }
    }

    /// Difference of the rates that counts, given what is usual.
    pub(crate) fn excess_min(&self, usual: Counts) -> f64 {
        if self.excess_part <= 0.0 || usual.of <= 0.0 {
            return self.excess;
        }
        let rate = (usual.bad + 1.0) / usual.of;
        (self.excess_part * rate).clamp(self.excess / 10.0, self.excess)
    }

    /// Largest log evidence of one interval.
    pub(crate) fn log_cap(&self, alpha: f64) -> f64 {
        self.cap * (1.0 / (alpha * self.share)).ln()
    }
}

impl Config {
    /// The rules of the second edition: an alarm before a verdict, a stable arm that borrows
    /// from its past and tells how its errors come in bursts where that is short, a least
    /// difference that follows the usual rate, and cold tasks that are told from a
    /// regression by what comes after them.
    #[must_use]
    pub fn second_edition(mut self) -> Self {
        (self.borrow, self.pairs_min) = (3.0, 40.0);
        for stream in &mut self.streams {
            if stream.catastrophe > 0 {
                (stream.catastrophe, stream.excess_part, stream.cold) = (2, 0.5, 3);
            } else if stream.warm_up > 0 && stream.measure == Measure::Events {
                stream.cold = 5;
            }
        }
        self
    }

    /// Adds a stream; the latency streams give up the share that it takes.
    pub fn add(&mut self, stream: Stream) {
        let others: f64 = self.streams.iter().map(|s| s.share).sum();
        let free = (1.0 - others).max(0.0);
        let needed = (stream.share - free).max(0.0);
        let latency: f64 = self.streams.iter().skip(1).map(|s| s.share).sum();
        if latency > 0.0 {
            let left = ((latency - needed) / latency).max(0.0);
            for other in self.streams.iter_mut().skip(1) {
                other.share *= left;
            }
        }
        self.streams.push(stream);
    }

    /// Adds the stream of requests without an answer, to which the errors give a tenth of
    /// their share. It comes before the streams that are added later.
    pub fn add_unanswered(&mut self) {
        let share = self.streams[0].share / 10.0;
        self.streams[0].share -= share;
        self.streams.push(Stream::unanswered(share));
    }

    /// Checks the values.
    ///
    /// # Errors
    /// A sentence that names the wrong parameter.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: f64| {
            (value > 0.0 && value < 1.0)
                .then_some(())
                .ok_or_else(|| format!("{name} is {value}; it must be above 0 and below 1"))
        };
        within("alpha", self.alpha)?;
        let sum: f64 = self.streams.iter().map(|s| s.share).sum();
        if self.streams.is_empty() || sum > 1.0 + 1e-9 {
            return Err(format!(
                "the shares of the streams sum to {sum:.2}; they may sum to 1"
            ));
        }
        for stream in &self.streams {
            within(&format!("the share of {}", stream.name), stream.share)?;
            let prior: f64 = stream.grid.iter().map(|(_, p)| p).sum();
            if (prior - 1.0).abs() > 1e-9 {
                return Err(format!(
                    "the grid of {} has a prior of {prior}",
                    stream.name
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_stream_takes_from_the_latency_half() {
        let mut config = Config::default();
        config.add(Stream::events("wrong answers", 0.2));
        config.check().expect("valid");
        let shares: Vec<f64> = config.streams.iter().map(|s| s.share).collect();
        assert!((shares[0] - 0.5).abs() < 1e-12 && (shares[1] - 0.15).abs() < 1e-12);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut config = Config::default();
        config.streams[0].share = 0.9;
        assert!(config.check().is_err());
        config = Config {
            alpha: 0.0,
            ..Config::default()
        };
        assert!(config.check().expect_err("no alpha").contains("alpha"));
    }
}

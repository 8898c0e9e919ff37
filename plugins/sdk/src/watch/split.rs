//! Whether the share of the traffic that arrives is the share that was set. Sticky sessions,
//! caches and clients that resolve names rarely keep requests where they were: the candidate
//! is then judged by fewer users than its share says, or by other ones (a sample ratio
//! mismatch).

use analysis::{Interval, Seen};

use super::{Caution, Watch, percent};

/// Samples of a step that are compared, and the fewest that are enough.
const SAMPLES: (usize, usize) = (10, 3);
/// Requests that must have been due to the candidate, and to stable.
const DUE_MIN: f64 = 50.0;
/// The part of the smaller share by which the shares may differ.
const TOLERANCE: f64 = 0.2;
/// Standard deviations of a binomial by which they may differ by chance.
const CHANCE: f64 = 5.0;

/// A share of the traffic that was set, and the one that came (0-1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mismatch {
    set: f64,
    came: f64,
}

impl Mismatch {
    /// Compares the requests of candidate and stable in the intervals of one share, newest
    /// first. The oldest is left out: the weights changed within it.
    fn of<'a>(intervals: impl Iterator<Item = &'a Interval>, set: f64) -> Option<Self> {
        let requests = intervals.filter_map(|interval| match interval.seen.first() {
            Some(Seen::Counts { candidate, stable }) => Some([candidate.of, stable.of]),
            _ => None,
        });
        let mut requests: Vec<[f64; 2]> = requests.take(SAMPLES.0 + 1).collect();
        requests.pop();
        if requests.len() < SAMPLES.1 {
            return None;
        }
        let [candidate, stable] = requests
            .iter()
            .fold([0.0; 2], |sum, of| [sum[0] + of[0], sum[1] + of[1]]);
        let all = candidate + stable;
        let least = set.min(1.0 - set);
        if all * least < DUE_MIN {
            return None;
        }
        let difference = (candidate - all * set).abs();
        let chance = CHANCE * (all * set * (1.0 - set)).sqrt();
        (difference > chance && difference > TOLERANCE * all * least).then(|| Self {
            set,
            came: candidate / all,
        })
    }

    fn explain(self) -> String {
        format!(
            "{} of the requests come to the candidate, and its share was set to {}: look for sticky sessions, caches and names that are resolved rarely",
            percent(self.came),
            percent(self.set)
        )
    }
}

impl Watch {
    /// How the traffic that arrives differs from the share that was set, in words, unless
    /// nobody wants to know.
    pub(super) fn mismatch(&self) -> Option<String> {
        if self.settings.split_check == Caution::Ignore {
            return None;
        }
        // The gate may have gone on to the next step already.
        let (_, share, at) = self.shares.last().copied()?;
        let newest = self.taken.values().rev();
        #[allow(clippy::float_cmp)]
        let of_share = newest.take_while(|(interval, step)| *step == at && interval.share == share);
        Mismatch::of(of_share.map(|(interval, _)| interval), share).map(Mismatch::explain)
    }

    /// The same, where no step may be taken because of it.
    pub(super) fn skewed(&self) -> Option<String> {
        self.mismatch()
            .filter(|_| self.settings.split_check == Caution::Hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use analysis::Counts;

    /// What so many intervals say, in each of which so many of 1,000 requests came to the
    /// candidate.
    fn said(of: [f64; 2], intervals: usize, set: f64) -> Option<f64> {
        let seen = Seen::Counts {
            candidate: Counts::new(0.0, of[0]),
            stable: Counts::new(0.0, of[1]),
        };
        let interval = Interval::whole(set, vec![seen]);
        let all = vec![interval; intervals];
        Mismatch::of(all.iter(), set).map(|m| m.came)
    }

    #[test]
    fn a_share_that_arrives_differently_is_seen() {
        assert_eq!(said([120.0, 880.0], 4, 0.25), Some(0.12));
        assert_eq!(said([400.0, 600.0], 4, 0.25), Some(0.4));
        // Of stable's last 5 % nothing is left.
        assert_eq!(said([1_000.0, 0.0], 4, 0.95), Some(1.0));
    }

    #[test]
    fn chance_a_fifth_and_a_change_of_the_weights_are_no_mismatch() {
        assert_eq!(said([250.0, 750.0], 4, 0.25), None);
        assert_eq!(said([210.0, 790.0], 11, 0.25), None);
        // The first interval had the weights of before, and two are too few.
        assert_eq!(said([120.0, 880.0], 3, 0.25), None);
        // Four of ten where five were due.
        assert_eq!(said([4.0, 6.0], 4, 0.5), None);
    }

    #[test]
    fn it_is_said_in_percent() {
        let mismatch = Mismatch {
            set: 0.25,
            came: 0.118,
        };
        assert!(mismatch.explain().starts_with(
            "11.8 % of the requests come to the candidate, and its share was set to 25 %"
        ));
    }
}

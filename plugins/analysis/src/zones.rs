//! What both arms saw zone by zone, so that a zone that is bad for everyone does not
//! look like a version that is bad.
//!
//! The tasks of an arm are not spread over the zones like those of the other: one task of
//! a candidate is in one zone. Given the bad events of each zone, the candidate's part of
//! them is binomial there, whatever else differs between zones; the log likelihood
//! ratios of the zones add up (Turner and Grünwald, *Safe sequential testing and effect
//! estimation in stratified count data*, 2023).

use crate::{Counts, Interval, Seen};

/// Largest part (0-1) of an arm's requests that may be missing in the zones.
const MISSING_MAX: f64 = 0.02;
/// Least part of stable's requests that a zone must have, in parts of the candidate's there,
/// to be compared by itself: a control of next to nothing would hide any fault.
const CONTROL_MIN: f64 = 0.1;

/// Candidate and stable, for the stream at that index of which this was `seen`, in each zone
/// where both have requests, and in the others together; all in one where the zones are not
/// known, or leave the candidate without a control.
pub(crate) fn of(interval: &Interval, seen: &Seen, at: usize) -> Vec<[Counts; 2]> {
    let Seen::Counts { candidate, stable } = *seen else {
        return vec![];
    };
    let whole = [candidate, stable];
    let split = interval.zones.iter().map(|zone| match zone.get(at) {
        Some(Seen::Counts { candidate, stable }) => Some([*candidate, *stable]),
        _ => None,
    });
    let split: Option<Vec<[Counts; 2]>> = split.collect();
    let split = split.filter(|split| is_complete(split, whole));
    split
        .and_then(|split| compared(split, whole))
        .unwrap_or_else(|| vec![whole])
}

/// The stable arm as it would have done with the candidate's requests in each of these zones
/// (direct standardisation): its rate there, weighted by the candidate's requests.
pub(crate) fn standardised(seen: Seen, zones: &[[Counts; 2]]) -> Seen {
    let Seen::Counts { candidate, stable } = seen else {
        return seen;
    };
    if zones.len() < 2 || candidate.of <= 0.0 {
        return seen;
    }
    let with_both = zones.iter().filter(|[c, s]| c.of > 0.0 && s.of > 0.0);
    let (due, of) = with_both.fold((0.0, 0.0), |(due, of), [c, s]| {
        (due + c.of * s.bad / s.of, of + c.of)
    });
    if of <= 0.0 {
        return seen;
    }
    Seen::Counts {
        candidate,
        stable: Counts::new(due / of * stable.of, stable.of),
    }
}

fn is_complete(split: &[[Counts; 2]], whole: [Counts; 2]) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= (MISSING_MAX * b).max(1.0);
    (0..2).all(|arm| {
        let counts = split.iter().map(|zone| zone[arm]);
        let sum = counts.fold(Counts::default(), Counts::and);
        near(sum.of, whole[arm].of) && near(sum.bad, whole[arm].bad)
    })
}

/// The zones with a control of their own, and the rest as one; `None` if that has none.
fn compared(split: Vec<[Counts; 2]>, whole: [Counts; 2]) -> Option<Vec<[Counts; 2]>> {
    let part = |zone: &[Counts; 2], arm: usize| zone[arm].of / whole[arm].of.max(1.0);
    let has_control = |zone: &[Counts; 2]| part(zone, 1) >= CONTROL_MIN * part(zone, 0);
    let by_itself = |zone: &[Counts; 2]| zone[0].of > 0.0 && has_control(zone);
    let (mut zones, others): (Vec<_>, Vec<_>) = split.into_iter().partition(by_itself);
    let rest = others
        .into_iter()
        .fold([Counts::default(); 2], |[c, s], zone| {
            [c.and(zone[0]), s.and(zone[1])]
        });
    if !has_control(&rest) {
        return None;
    }
    zones.push(rest);
    Some(zones)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(candidate: (f64, f64), stable: (f64, f64)) -> Seen {
        Seen::Counts {
            candidate: Counts::new(candidate.0, candidate.1),
            stable: Counts::new(stable.0, stable.1),
        }
    }

    #[test]
    fn zones_count_where_they_are_complete() {
        let whole = counts((30.0, 100.0), (190.0, 1_900.0));
        let a = counts((30.0, 100.0), (190.0, 633.0));
        let b = counts((0.0, 0.0), (0.0, 1_267.0));
        let interval = |zones: &[Seen]| Interval {
            share: 0.05,
            seen: vec![whole],
            zones: zones.iter().map(|zone| vec![*zone]).collect(),
        };
        assert_eq!(of(&interval(&[a, b]), &whole, 0).len(), 2);
        let pooled = vec![[Counts::new(30.0, 100.0), Counts::new(190.0, 1_900.0)]];
        assert_eq!(of(&interval(&[a, b]), &whole, 0)[0][1].of, 633.0);
        assert_eq!(of(&interval(&[a]), &whole, 0), pooled, "a zone is missing");
        assert_eq!(of(&interval(&[]), &whole, 0), pooled, "none is known");
        assert_eq!(of(&interval(&[a, b]), &whole, 1), pooled, "not this stream");
    }

    #[test]
    fn stable_is_taken_where_the_candidate_is() {
        let zones = [
            [Counts::new(20.0, 100.0), Counts::new(60.0, 300.0)],
            [Counts::new(0.0, 0.0), Counts::new(7.0, 700.0)],
        ];
        let whole = counts((20.0, 100.0), (67.0, 1_000.0));
        let there = counts((20.0, 100.0), (200.0, 1_000.0));
        assert_eq!(standardised(whole, &zones), there);
        assert_eq!(standardised(whole, &zones[..1]), whole);
    }

    #[test]
    fn a_candidate_never_lacks_a_control() {
        let spread = |zones: &[[f64; 2]]| {
            let sum = |arm: usize| zones.iter().map(|zone| zone[arm]).sum::<f64>();
            let whole = counts((0.0, sum(0)), (0.0, sum(1)));
            let zones = zones
                .iter()
                .map(|[candidate, stable]| vec![counts((0.0, *candidate), (0.0, *stable))]);
            let interval = Interval {
                share: 0.05,
                seen: vec![whole],
                zones: zones.collect(),
            };
            let found = of(&interval, &whole, 0);
            let requests = found
                .iter()
                .map(|[candidate, stable]| [candidate.of, stable.of]);
            requests.collect::<Vec<_>>()
        };
        // Where stable has no task, the candidate is compared with stable's other zones.
        assert_eq!(
            spread(&[[100.0, 0.0], [0.0, 900.0], [0.0, 1_000.0]]),
            [[100.0, 1_900.0]]
        );
        assert_eq!(
            spread(&[[50.0, 0.0], [50.0, 900.0], [0.0, 1_000.0]]),
            [[50.0, 900.0], [50.0, 1_000.0]]
        );
        // If there are none left, with all.
        assert_eq!(spread(&[[50.0, 0.0], [50.0, 1_900.0]]), [[100.0, 1_900.0]]);
        // A handful of requests is as good as none.
        assert_eq!(spread(&[[50.0, 5.0], [50.0, 1_895.0]]), [[100.0, 1_900.0]]);
    }
}

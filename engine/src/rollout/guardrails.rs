//! Guardrails: what the host refuses whatever the strategy asks. Pure.

use crate::journal::Header;
use crate::journal::status::Status;
use crate::model::{ErrorKind, HostError, Millis, Role, Weights, percent};

/// Tolerance for shares that are not round numbers, percentage points.
const EPSILON: f64 = 1e-6;

/// How long after a retreat the share that was held may be given again as if it still were,
/// ms. A strategy that retreats waits for a sample or a few.
const RETREAT_MS: Millis = 30 * 60_000;

/// The share of the candidate from which a step is counted, percent: a climb back to one that
/// was held a moment ago is none.
fn held(status: &Status, candidate: &str, now: Millis) -> f64 {
    let share = status.weights.share(candidate);
    let lately = status
        .retreat
        .filter(|retreat| now.saturating_sub(retreat.at) <= RETREAT_MS);
    lately.map_or(share, |retreat| retreat.from.max(share))
}

/// Whether the rollout may set the weights `wanted` now.
pub fn check(
    header: &Header,
    status: &Status,
    wanted: &Weights,
    now: Millis,
) -> Result<(), HostError> {
    let candidate = header.arm(Role::Candidate);
    let (from, to) = (held(status, candidate, now), wanted.share(candidate));
    // Less traffic for the candidate is always allowed, and so is what it had a moment ago:
    // what had to come before that has come.
    if to <= from + EPSILON {
        return Ok(());
    }
    let rails = &header.guardrails;
    if to - from > rails.largest_step + EPSILON {
        return Err(HostError::new(
            ErrorKind::Denied,
            "largest-step",
            format!(
                "the step from {} % to {} % is more than guardrails.largest-step = {}",
                percent(from),
                percent(to),
                rails.largest_step
            ),
        ));
    }
    if let Some(bake) = &rails.before_bake
        && to > bake.share + EPSILON
    {
        let baked = status
            .exposed_since
            .map_or(0, |since| now.saturating_sub(since));
        if baked < bake.bake_ms {
            return Err(HostError::new(
                ErrorKind::Denied,
                "before-bake",
                format!(
                    "{} % is more than the {} % of guardrails.before-bake, and the candidate has had traffic for {} s of the {} s that it needs",
                    percent(to),
                    bake.share,
                    baked / 1_000,
                    bake.bake_ms / 1_000
                ),
            )
            .retryable());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::status::Retreat;
    use crate::model::limits::BeforeBake;
    use crate::rollout::fixture::header;

    fn weights(canary: u32) -> Weights {
        Weights::of([("stable", 100 - canary), ("canary", canary)])
    }

    #[test]
    fn steps_up_are_limited_and_steps_down_are_not() {
        let mut header = header();
        header.guardrails.largest_step = 25.0;
        let mut status = Status::new(&header);
        status.weights = weights(25);
        let refused = check(&header, &status, &weights(51), 0).expect_err("26 points");
        assert_eq!(refused.code, "largest-step");
        assert!(!refused.retryable);
        assert_eq!(check(&header, &status, &weights(50), 0), Ok(()));
        status.weights = weights(100);
        assert_eq!(check(&header, &status, &weights(0), 0), Ok(()));
    }

    #[test]
    fn a_climb_back_is_no_step_and_one_beyond_it_is() {
        let mut header = header();
        header.guardrails.largest_step = 25.0;
        header.guardrails.before_bake = Some(BeforeBake {
            share: 10.0,
            bake_ms: 60_000,
        });
        let mut status = Status::new(&header);
        // It had 50 % and lost it a moment ago, and with it the time of its bake.
        status.weights = weights(0);
        status.retreat = Some(Retreat {
            from: 50.0,
            at: 1_000,
        });
        let at = |canary, now| check(&header, &status, &weights(canary), now).map_err(|e| e.code);
        assert_eq!(at(50, 61_000), Ok(()));
        assert_eq!(at(76, 61_000), Err("largest-step".to_owned()));
        // After half an hour it is a step like any other, and its bake begins anew.
        assert_eq!(at(50, 1_000 + RETREAT_MS), Ok(()));
        assert_eq!(at(50, 1_001 + RETREAT_MS), Err("largest-step".to_owned()));
        assert_eq!(at(25, 1_001 + RETREAT_MS), Err("before-bake".to_owned()));
    }

    #[test]
    fn more_than_the_first_share_needs_a_bake() {
        let mut header = header();
        header.guardrails.before_bake = Some(BeforeBake {
            share: 10.0,
            bake_ms: 60_000,
        });
        let mut status = Status::new(&header);
        assert_eq!(check(&header, &status, &weights(10), 0), Ok(()));
        assert!(check(&header, &status, &weights(11), 0).is_err());
        status.exposed_since = Some(1_000);
        let refused = check(&header, &status, &weights(11), 60_999).expect_err("1 ms early");
        assert!(refused.retryable);
        assert_eq!(check(&header, &status, &weights(11), 61_000), Ok(()));
    }
}

//! The plain gate: a fixed time at each step, and fixed limits.

use rollout_sdk::duration::in_words;
use rollout_sdk::prelude::*;

use crate::{Parameters, bake};

/// Samples that a step bakes for, if no time is given.
const BAKE_SAMPLES: u32 = 6;
/// Limits that hold if none are given.
const ERROR_RATE_MAX: f64 = 0.05;
const P99_RATIO_MAX: f64 = 2.0;

pub(crate) fn run(rollout: &mut Rollout, p: &Parameters) -> Result<Outcome, Error> {
    for step in 0..p.steps().len() {
        if let Some(outcome) = one_step(rollout, p, step)? {
            return Ok(outcome);
        }
    }
    let version = rollout.candidate().version.clone();
    Ok(promoted(format!(
        "{version} kept to the limits at every step"
    )))
}

/// One step; returns an outcome if the rollout ends here.
fn one_step(rollout: &mut Rollout, p: &Parameters, step: usize) -> Result<Option<Outcome>, Error> {
    let share = p.steps()[step];
    let title = format!("step {}/{} at {share} %", step + 1, p.steps().len());
    #[allow(clippy::cast_precision_loss)]
    let percent = |steps: usize| steps as f64 * 100.0 / p.steps().len() as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let done = percent(step) as u32;
    if let Some(outcome) = approval(rollout, p, share, &title, done) {
        return Ok(Some(outcome));
    }
    rollout.reach_share(share, &title, done)?;
    let ratio = p.max_p99.is_none().then_some(P99_RATIO_MAX);
    Bake {
        title,
        time: bake(p, step).unwrap_or(rollout.sample_period() * BAKE_SAMPLES),
        limits: Limits {
            error_rate: p.max_error_rate.unwrap_or(ERROR_RATE_MAX),
            p99: p.max_p99.map(|span| span.0),
            p99_ratio: p.max_p99_ratio.or(ratio),
            min_requests: p.min_requests,
        },
        on_no_data: p.on_no_data,
        history: None,
        percent: (percent(step), percent(step + 1)),
    }
    .run(rollout)
}

/// Waits for a person, if one must approve that share. Returns an outcome if nobody
/// did.
fn approval(
    rollout: &mut Rollout,
    p: &Parameters,
    share: u32,
    title: &str,
    done: u32,
) -> Option<Outcome> {
    if !p.approve_before.contains(&share) {
        return None;
    }
    let time = in_words(p.approval_timeout.0.as_secs_f64() * 1_000.0);
    let note = format!("{title}: waits for an approval, for {time} at most");
    rollout.progress(done, &note);
    if rollout.wait_for(p.approval_timeout.0, &["approve"]) == Wake::Timer {
        return Some(inconclusive(format!("nobody approved {title} in time")));
    }
    None
}

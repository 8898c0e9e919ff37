//! The default gate: evidence that the candidate is worse than stable.

use std::time::Duration;

use rollout_sdk::prelude::*;

use crate::{Parameters, bake};

pub(crate) fn run(rollout: &mut Rollout, p: &Parameters) -> Result<Outcome, Error> {
    let settings = settings(p, rollout.sample_period());
    let mut watch = Watch::begin(rollout, settings, &p.streams)?;
    while let Some(share) = watch.share() {
        let title = watch.title();
        let percent = whole_percent(share);
        if let Some(outcome) = approval(&mut watch, rollout, p, percent, &title) {
            return Ok(outcome);
        }
        watch.enter(rollout)?;
        if let Some(outcome) = watch.bake(rollout)? {
            return Ok(outcome);
        }
    }
    if let Some(outcome) = approval(&mut watch, rollout, p, 100, "all traffic") {
        return Ok(outcome);
    }
    let version = rollout.candidate().version.clone();
    Ok(promoted(format!(
        "{version} is not worse {}",
        watch.summary()
    )))
}

/// Waits for a person, if one must approve that share, and goes on looking. Returns
/// an outcome if the rollout ends here.
fn approval(
    watch: &mut Watch,
    rollout: &mut Rollout,
    p: &Parameters,
    share: u32,
    title: &str,
) -> Option<Outcome> {
    if !needs_approval(p, share) {
        return None;
    }
    let title = format!("{title}: waits for an approval");
    watch.wait_for(rollout, p.approval_timeout.0, &["approve"], &title)
}

/// Whether a person must approve that share. With a holdback, all traffic is approved
/// before it, because it leaves nearly all users on the candidate.
pub(crate) fn needs_approval(p: &Parameters, share: u32) -> bool {
    let held = p.holdback > 0;
    let all = p.approve_before.contains(&100);
    match share {
        100 => all && !held,
        share if held && share == 100 - p.holdback => all || p.approve_before.contains(&share),
        share => p.approve_before.contains(&share),
    }
}

/// Shares of the candidate in percent, without a probe.
pub(crate) fn shares(p: &Parameters) -> Vec<u32> {
    let last = 100 - p.holdback;
    let mut shares: Vec<u32> = p.steps().iter().copied().filter(|s| *s < last).collect();
    if p.holdback > 0 {
        shares.push(last);
    }
    shares.push(100);
    shares
}

fn settings(p: &Parameters, period: Duration) -> Settings {
    let samples = |time: Duration| {
        let samples = time.as_millis().div_ceil(period.as_millis().max(1));
        u32::try_from(samples).unwrap_or(u32::MAX)
    };
    let mut settings = Settings {
        steps: p.steps().iter().map(|share| f64::from(*share)).collect(),
        fitted: p.fits(),
        holdback: f64::from(p.holdback),
        probe: p.probe,
        on_inconclusive: p.on_inconclusive,
        on_no_data: p.on_no_data,
        split_check: p.traffic_split_check,
        task_restarts: p.task_restarts,
        slopes: p.slopes,
        min_effect: p.min_effect,
        ..Settings::default()
    };
    if p.edition == 2 {
        settings = settings.second_edition();
    }
    settings.config.alpha = p.alpha;
    if let Some(samples) = p.catastrophe_samples {
        settings.config.streams[0].catastrophe = samples;
    }
    if p.bake.is_some() {
        let bakes = (0..p.steps().len()).filter_map(|step| bake(p, step));
        settings.bake = bakes.map(samples).collect();
    }
    if let Some(time) = p.warm_up {
        settings.warm_up = samples(time.0);
    }
    if let Some(longest) = p.max_bake {
        settings.bake_max = [samples(longest.0); 2];
    }
    settings.limits = Limits::given(
        p.max_error_rate,
        p.max_p99.map(|span| span.0),
        p.max_p99_ratio,
        p.min_requests,
    );
    settings
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole_percent(share: f64) -> u32 {
    (share * 100.0).round() as u32
}

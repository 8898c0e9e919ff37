//! A ramp by requests: the share grows once the candidate has served enough of
//! them, however long that takes.

use std::time::Duration;

use rollout_sdk::analysis::{math, odds, percent};
use rollout_sdk::prelude::*;

/// Most looks at each step; a look must wait for a tenth of the step's requests.
const LOOKS: u32 = 10;

/// How far, after how many requests, and what is tolerated.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Parameters {
    /// Percent of the traffic that each step adds, 1-50.
    pub step: u32,
    /// Requests that the candidate must serve at each step, at least 10.
    pub requests_per_step: u32,
    /// Share of errors (0-1) above the stable version's that is still good.
    pub margin: f64,
    /// Probability of rolling back, at any of the looks, a version that keeps to the margin.
    pub alpha: f64,
    /// Longest time at a step; then a person must decide.
    pub step_timeout: Span,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            step: 20,
            requests_per_step: 200,
            margin: 0.01,
            alpha: 0.01,
            step_timeout: Span(Duration::from_secs(24 * 3_600)),
        }
    }
}

rollout_sdk::strategy! {
    name: "request-ramp",
    summary: "Raises the share of the new version after so many requests, and judges it by its errors.",
    parameters: Parameters,
    plan: plan,
    run: run,
}

/// Checks what the schema cannot express, and returns the intended steps.
pub fn plan(p: &Parameters) -> Result<Vec<PlannedStep>, Vec<Issue>> {
    let mut issues = vec![];
    let mut must = |name: &str, holds: bool, be: &str| {
        if !holds {
            let (path, message) = (format!("/{name}"), format!("must be {be}"));
            issues.push(Issue { path, message });
        }
    };
    must("step", (1..=50).contains(&p.step), "1 to 50");
    let enough = p.requests_per_step >= LOOKS;
    must("requests-per-step", enough, "at least 10");
    let is_rate = (0.0..1.0).contains(&p.margin);
    must("margin", is_rate, "at least 0 and below 1");
    let is_chance = p.alpha > 0.0 && p.alpha < 0.5;
    must("alpha", is_chance, "above 0 and below 0.5");
    must("step-timeout", !p.step_timeout.0.is_zero(), "above 0");
    if !issues.is_empty() {
        return Err(issues);
    }
    Ok(shares(p)
        .map(|share| PlannedStep {
            share,
            // The time depends on the traffic.
            seconds: None,
            needs_approval: false,
        })
        .collect())
}

/// The stable version keeps some traffic to the end, to compare with.
fn shares(p: &Parameters) -> impl Iterator<Item = u32> + use<> {
    (p.step..100).step_by(p.step.max(1) as usize)
}

/// Raises the share step by step, and judges the errors at each step.
pub fn run(rollout: &mut Rollout, p: Parameters) -> Result<Outcome, Error> {
    for share in shares(&p) {
        let title = format!("{share} %");
        rollout.reach_share(share, &title, share)?;
        let since = rollout.now();
        let give_up = since + p.step_timeout.0.as_secs_f64() * 1_000.0;
        let mut looked_at = 0;
        loop {
            // A look reads all samples again, so the pauses between looks grow.
            let pause = Duration::from_secs_f64((rollout.now() - since) / 20_000.0);
            let wake = rollout.wait(pause.max(rollout.sample_period()));
            let hurried = wake != Wake::Timer;
            let samples = match rollout.samples(since) {
                // A failed read may succeed later, and the timeout limits the attempts.
                Err(error) if error.retryable => vec![],
                samples => samples?,
            };
            let seen = Window::of(&samples, rollout.candidate());
            let enough = seen.requests >= p.requests_per_step;
            if enough || hurried || seen.requests >= looked_at + p.requests_per_step.div_ceil(LOOKS)
            {
                looked_at = seen.requests;
                let stable = Window::of(&samples, rollout.stable());
                if let Some(why) = worse(&seen, &stable, &p) {
                    return Ok(rolled_back(format!("{title}: {why}")));
                }
            }
            if enough || hurried {
                break;
            }
            let so_far = format!("{} of {} requests", seen.requests, p.requests_per_step);
            if rollout.now() >= give_up {
                return Ok(inconclusive(format!("{title}: only {so_far} came")));
            }
            rollout.progress(share, &format!("{title}: {so_far}, {} failed", seen.errors));
        }
    }
    Ok(promoted("at every step its errors were within the margin"))
}

/// Why the candidate is worse than the margin allows, if that is certain enough.
#[allow(clippy::cast_precision_loss)]
fn worse(candidate: &Window, stable: &Window, p: &Parameters) -> Option<String> {
    // One more error in two more requests: with few requests the stable arm counts
    // as bad, so that the candidate is not blamed for it.
    let expected = (f64::from(stable.errors) + 1.0) / (f64::from(stable.requests) + 2.0);
    let tolerated = expected + p.margin;
    let chance = math::binomial_tail(candidate.errors, candidate.requests, tolerated);
    // Every look gets an equal part of alpha.
    let looks = LOOKS as usize * shares(p).count();
    (chance < p.alpha / looks as f64).then(|| {
        format!(
            "{} of {} requests failed; if {} of them may, the odds are {} against so many",
            candidate.errors,
            candidate.requests,
            percent(tolerated),
            odds(-chance.ln())
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rollout_sdk::Verdict;
    use rollout_sdk::testing::{World, sample};

    const NAMES: [&str; 2] = ["stable", "canary"];

    fn end(mut world: World, parameters: &str) -> (Outcome, World) {
        let outcome = world.run(parameters, run).expect("a verdict");
        (outcome, world)
    }

    #[test]
    fn a_good_version_climbs_to_the_end() {
        let (outcome, world) = end(World::steady(NAMES, 50.0, 0.0, 30.0), "{}");
        assert_eq!(outcome.verdict, Verdict::Promoted);
        let weights = [(80, 20), (60, 40), (40, 60), (20, 80)];
        let calls =
            weights.map(|(stable, canary)| format!("set-weights stable={stable} canary={canary}"));
        assert_eq!(world.calls, calls);
        // 200 requests at 10, 20, 30 and 40 a second.
        assert!((42_000.0..44_000.0).contains(&(world.now - 1_000_000.0)));
    }

    #[test]
    fn a_bad_version_goes_back_at_once() {
        let (outcome, world) = end(World::steady(NAMES, 50.0, 0.2, 30.0), "{}");
        assert_eq!(outcome.verdict, Verdict::RolledBack);
        let says = "20 %: 8 of 40 requests failed; if 1.6 % of them may, the odds are over";
        assert!(outcome.reason.starts_with(says), "{}", outcome.reason);
        assert_eq!(world.calls.len(), 1);
    }

    #[test]
    fn without_traffic_nobody_can_tell() {
        let timeout = r#"{"step-timeout": "1m"}"#;
        let (outcome, world) = end(World::steady(NAMES, 0.0, 0.0, 30.0), timeout);
        assert_eq!(outcome.verdict, Verdict::Inconclusive);
        assert_eq!(outcome.reason, "20 %: only 0 of 200 requests came");
        assert!((60_000.0..64_000.0).contains(&(world.now - 1_000_000.0)));
    }

    #[test]
    fn bursts_count_as_much_as_a_stream() {
        // 300 requests to each arm, once in five minutes.
        let world = World::new(NAMES, |arm, start, _| {
            (start % 300_000.0 < 1_000.0).then(|| sample(arm, start, 300.0, 0.0, 30.0))
        });
        let (outcome, world) = end(world, "{}");
        assert_eq!(outcome.verdict, Verdict::Promoted);
        assert!(world.now - 1_000_000.0 > 900_000.0);
    }

    #[test]
    fn what_fails_on_both_arms_is_nobodys_fault() {
        let world = World::new(NAMES, |arm, start, share| {
            let requests = (100.0 * share).round();
            Some(sample(arm, start, requests, requests * 0.3, 30.0))
        });
        assert_eq!(end(world, "{}").0.verdict, Verdict::Promoted);
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        let wrong = r#"{"step": 60, "requests-per-step": 9, "margin": 1, "alpha": 0, "step-timeout": "0s"}"#;
        let issues = plan(&rollout_sdk::parse(wrong).expect("it parses")).expect_err("all wrong");
        assert_eq!(issues.len(), 5);
        let steps = plan(&Parameters::default()).expect("good");
        let shares: Vec<u32> = steps.iter().map(|s| s.share).collect();
        assert_eq!(shares, [20, 40, 60, 80]);
    }
}

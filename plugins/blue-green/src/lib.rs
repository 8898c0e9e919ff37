//! Blue/green: all traffic to the other colour at once, and back at once.
//!
//! The idle colour must be healthy and pass every probe before it gets a
//! request. Then one switch, then a bake: at every sample the new colour is
//! compared with the limits and with what the old colour did before.

use std::time::Duration;

use rollout_sdk::Verdict;
use rollout_sdk::prelude::*;

/// Samples that the bake lasts, if no time is given.
const BAKE_SAMPLES: u32 = 15;
/// Samples of the old colour, before the switch, to compare with.
const HISTORY_SAMPLES: u32 = 60;

/// How long to watch, and what is good enough.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Parameters {
    /// Time after the switch. Fifteen samples if not given (fifteen minutes on
    /// AWS, fifteen seconds locally).
    pub bake: Option<Span>,
    /// How long the idle colour may take to become healthy.
    pub healthy_timeout: Span,
    /// Largest share of errors, 0-1.
    pub max_error_rate: f64,
    /// Largest p99 latency.
    pub max_p99: Option<Span>,
    /// Largest p99 as a multiple of the old colour's; at least 50 ms more.
    pub max_p99_ratio: Option<f64>,
    /// Requests that the new colour must have had.
    pub min_requests: u32,
    /// Wait for `engine approve` before the switch.
    pub approve: bool,
    /// How long to wait for the approval.
    pub approval_timeout: Span,
    /// What to do when the bake is over and too few requests came: wait for
    /// more (hold), switch back (rollback), or ask a person (pause).
    pub on_no_data: OnNoData,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            bake: None,
            healthy_timeout: Span(Duration::from_secs(300)),
            max_error_rate: 0.05,
            max_p99: None,
            max_p99_ratio: Some(2.0),
            min_requests: 20,
            approve: false,
            approval_timeout: Span(Duration::from_secs(24 * 3_600)),
            on_no_data: OnNoData::Hold,
        }
    }
}

rollout_sdk::strategy! {
    name: "blue-green",
    summary: "Switches all traffic to the idle colour once it is healthy, watches it, and switches back if it is worse.",
    parameters: Parameters,
    plan: plan,
    run: run,
}

/// Checks what the schema cannot, and says what will happen.
///
/// # Errors
/// One issue per problem.
pub fn plan(p: &Parameters) -> Result<Vec<PlannedStep>, Vec<Issue>> {
    let mut issues = vec![];
    if !(0.0..=1.0).contains(&p.max_error_rate) {
        issues.push(Issue {
            path: "/max-error-rate".into(),
            message: format!("{} is no share; write 0.05 for 5 %", p.max_error_rate),
        });
    }
    if p.max_p99_ratio.is_some_and(|r| r.is_nan() || r < 1.0) {
        issues.push(Issue {
            path: "/max-p99-ratio".into(),
            message: "must be at least 1".into(),
        });
    }
    if !issues.is_empty() {
        return Err(issues);
    }
    Ok(vec![PlannedStep {
        share: 100,
        seconds: p
            .bake
            .map(|span| u32::try_from(span.0.as_secs()).unwrap_or(u32::MAX)),
        needs_approval: p.approve,
    }])
}

/// Runs the switch to its verdict.
///
/// # Errors
/// The host refused the switch, or the metrics could not be read for long.
pub fn run(rollout: &mut Rollout, p: Parameters) -> Result<Outcome, Error> {
    let (old, new) = (
        rollout.stable().name.clone(),
        rollout.candidate().name.clone(),
    );
    if !becomes_healthy(rollout, &p, &new)? {
        return Ok(rolled_back(format!(
            "{new} was not healthy within {} s and got no traffic",
            p.healthy_timeout.0.as_secs()
        )));
    }
    for probe in rollout.probes() {
        let report = rollout.probe(&probe)?;
        if !report.ok {
            return Ok(rolled_back(format!(
                "probe {probe} failed before {new} got any traffic: {}",
                report.detail
            )));
        }
    }
    if p.approve {
        rollout.progress(10, &format!("{new} is ready; waits for an approval"));
        if rollout.wait_for(p.approval_timeout.0, &["approve"]) == Wake::Timer {
            return Ok(inconclusive(format!("nobody approved the switch to {new}")));
        }
    }
    rollout.reach_color(&new, &format!("switch to {new}"), 10)?;
    let period = rollout.sample_period();
    let bake = Bake {
        title: new.clone(),
        time: p.bake.map_or(period * BAKE_SAMPLES, |span| span.0),
        limits: Limits {
            error_rate: p.max_error_rate,
            p99: p.max_p99.map(|span| span.0),
            p99_ratio: p.max_p99_ratio,
            min_requests: p.min_requests,
        },
        on_no_data: p.on_no_data,
        history: Some(period * HISTORY_SAMPLES),
        percent: (10.0, 100.0),
    };
    match bake.run(rollout)? {
        Some(outcome) => {
            if outcome.verdict == Verdict::RolledBack {
                // The quick way back, before the verdict: users wait for this.
                rollout.switch_color(&old)?;
            }
            Ok(outcome)
        }
        None => Ok(promoted(format!(
            "{new} kept to the limits for the whole bake"
        ))),
    }
}

fn becomes_healthy(rollout: &mut Rollout, p: &Parameters, new: &str) -> Result<bool, Error> {
    let period = rollout.sample_period();
    let give_up = rollout.now() + p.healthy_timeout.0.as_secs_f64() * 1_000.0;
    loop {
        let health = rollout.health()?;
        if health.iter().any(|a| a.arm == new && a.healthy > 0) {
            return Ok(true);
        }
        if rollout.now() >= give_up {
            return Ok(false);
        }
        rollout.progress(0, &format!("waits until {new} is healthy"));
        rollout.wait(period);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rollout_sdk::testing::World;

    const ARMS: [&str; 2] = ["blue", "green"];

    fn go(world: &mut World, parameters: &str) -> Outcome {
        world.run(parameters, run).expect("a verdict")
    }

    #[test]
    fn healthy_probed_switched_baked() {
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        world.probes = vec!["smoke".to_owned()];
        assert_eq!(go(&mut world, "{}").verdict, Verdict::Promoted);
        assert_eq!(
            world.calls,
            ["get-health", "probe smoke", "switch-color green"]
        );
    }

    #[test]
    fn a_failed_probe_costs_no_request() {
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        world.probes = vec!["smoke".to_owned()];
        world.probes_pass = false;
        assert_eq!(go(&mut world, "{}").verdict, Verdict::RolledBack);
        assert_eq!(world.calls, ["get-health", "probe smoke"]);
    }

    #[test]
    fn a_sick_colour_gets_nothing() {
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        world.healthy = [1, 0];
        let outcome = go(&mut world, r#"{"healthy-timeout": "5s"}"#);
        assert_eq!(outcome.verdict, Verdict::RolledBack);
        assert!(world.calls.iter().all(|c| c == "get-health"));
    }

    #[test]
    fn errors_and_latency_switch_back_at_once() {
        for mut world in [
            World::steady(ARMS, 100.0, 0.2, 30.0),
            World::steady(ARMS, 100.0, 0.0, 330.0),
        ] {
            // The old colour's history, to compare the latency with.
            rollout_sdk::Host::wait(&mut world, 10, &[]);
            assert_eq!(go(&mut world, "{}").verdict, Verdict::RolledBack);
            assert_eq!(
                world.calls,
                ["get-health", "switch-color green", "switch-color blue"]
            );
        }
    }

    #[test]
    fn nobody_asks() {
        let mut world = World::steady(ARMS, 0.0, 0.0, 30.0);
        let outcome = go(&mut world, r#"{"on-no-data": "pause"}"#);
        assert_eq!(outcome.verdict, Verdict::Inconclusive);
    }

    #[test]
    fn an_approval_comes_before_the_switch() {
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        let outcome = go(
            &mut world,
            r#"{"approve": true, "approval-timeout": "10s"}"#,
        );
        assert_eq!(outcome.verdict, Verdict::Inconclusive);
        assert_eq!(world.calls, ["get-health"]);
    }
}

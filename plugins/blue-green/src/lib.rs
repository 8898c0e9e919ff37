//! Blue/green: all traffic to the other colour at once, and all of it back at once.
//!
//! The idle colour must be healthy and pass every probe before it gets a request.
//! Then comes one switch, then a bake: at every sample the new colour is compared
//! with the old colour's past. That is a weaker control than a canary's: whatever
//! happens to the whole service looks like the new colour's fault. With `holdback`
//! the old colour keeps a little of the traffic during the bake, and the comparison
//! is as good as a canary's.

use std::time::Duration;

use rollout_sdk::Verdict;
use rollout_sdk::duration::in_words;
use rollout_sdk::prelude::*;

/// Samples that the bake lasts, if no time is given.
const BAKE_SAMPLES: u32 = 15;
/// Samples of the old colour, before the switch, to compare with.
const HISTORY_SAMPLES: u32 = 60;
/// The error limit of `gate = "limits"` if no limit is given.
const ERROR_RATE_MAX: f64 = 0.05;
const P99_RATIO_MAX: f64 = 2.0;

/// How long to watch, and what is good enough.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Parameters {
    /// How to judge: compare with the old colour (evidence), or with limits alone.
    pub gate: GateKind,
    /// Percent of the traffic that the old colour keeps during the bake, so that
    /// there is something to compare with; 0 for none.
    pub holdback: u32,
    /// Time after the switch. Fifteen samples if not given (fifteen minutes on
    /// AWS, fifteen seconds locally).
    pub bake: Option<Span>,
    /// How long the idle colour may take to become healthy.
    pub healthy_timeout: Span,
    /// Largest share of errors, 0-1. No limit if not given, or 0.05 with
    /// `gate = "limits"`.
    pub max_error_rate: Option<f64>,
    /// Largest p99 latency.
    pub max_p99: Option<Span>,
    /// Largest p99 as a multiple of the old colour's; at least 50 ms more. No limit
    /// if not given, or 2 with `gate = "limits"` and no `max-p99`.
    pub max_p99_ratio: Option<f64>,
    /// Requests that the new colour must have had.
    pub min_requests: u32,
    /// Wait for `engine approve` before the switch.
    pub approve: bool,
    /// How long to wait for the approval.
    pub approval_timeout: Span,
    /// What to do when the evidence stays suspicious for thirty samples: switch
    /// back (rollback), or ask a person (pause).
    pub on_inconclusive: OnInconclusive,
    /// What to do when no samples come for thirty samples' time, or the bake is
    /// over and too few requests came for a limit: wait for more (hold), switch
    /// back (rollback), or ask a person (pause).
    pub on_no_data: OnNoData,
    /// What to do when tasks of the new colour stop by themselves (they end, run out of
    /// memory, or fail health checks): go on with the bake while they do so again and again and
    /// the old colour's do not (hold), after thirty samples of which `on-inconclusive` decides;
    /// say so (warn); or nothing (ignore). Only ECS tells.
    pub task_restarts: Caution,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            gate: GateKind::Evidence,
            holdback: 0,
            bake: None,
            healthy_timeout: Span(Duration::from_secs(300)),
            max_error_rate: None,
            max_p99: None,
            max_p99_ratio: None,
            min_requests: 20,
            approve: false,
            approval_timeout: Span(Duration::from_secs(24 * 3_600)),
            on_inconclusive: OnInconclusive::Rollback,
            on_no_data: OnNoData::Hold,
            task_restarts: Caution::Hold,
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

/// Checks what the schema cannot express, and returns the intended steps.
///
/// # Errors
/// One issue per problem.
pub fn plan(p: &Parameters) -> Result<Vec<PlannedStep>, Vec<Issue>> {
    let mut issues = vec![];
    if let Some(rate) = p.max_error_rate
        && !(0.0..=1.0).contains(&rate)
    {
        issues.push(Issue {
            path: "/max-error-rate".into(),
            message: format!("{rate} is not a share from 0 to 1; write 0.05 for 5 %"),
        });
    }
    if p.holdback > 50 {
        issues.push(Issue {
            path: "/holdback".into(),
            message: format!(
                "{} is too much; the old colour keeps 0 to 50 percent",
                p.holdback
            ),
        });
    } else if p.holdback > 0 && p.gate == GateKind::Limits {
        issues.push(Issue {
            path: "/holdback".into(),
            message:
                "needs gate = \"evidence\", because gate = \"limits\" does not compare the colours"
                    .into(),
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
    let seconds = p
        .bake
        .map(|span| u32::try_from(span.0.as_secs()).unwrap_or(u32::MAX));
    let step = |share, seconds, needs_approval| PlannedStep {
        share,
        seconds,
        needs_approval,
    };
    Ok(match p.holdback {
        0 => vec![step(100, seconds, p.approve)],
        held => vec![
            step(100 - held, seconds, p.approve),
            step(100, Some(0), false),
        ],
    })
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
        let time = in_words(p.approval_timeout.0.as_secs_f64() * 1_000.0);
        let note = format!("{new} is ready; waits for an approval, for {time} at most");
        rollout.progress(10, &note);
        if rollout.wait_for(p.approval_timeout.0, &["approve"]) == Wake::Timer {
            return Ok(inconclusive(format!("nobody approved the switch to {new}")));
        }
    }
    let outcome = match p.gate {
        GateKind::Evidence => evidence(rollout, &p, &new)?,
        GateKind::Limits => limits(rollout, &p, &new)?,
    };
    if outcome.verdict == Verdict::RolledBack {
        // Switches back before the verdict, because users wait for this.
        rollout.switch_color(&old)?;
    }
    Ok(outcome)
}

/// Switches, and bakes against the old colour: its past, or the traffic that it
/// keeps.
fn evidence(rollout: &mut Rollout, p: &Parameters, new: &str) -> Result<Outcome, Error> {
    let period = rollout.sample_period().as_millis().max(1);
    let samples = p.bake.map_or(BAKE_SAMPLES, |span| {
        u32::try_from(span.0.as_millis().div_ceil(period)).unwrap_or(u32::MAX)
    });
    let settings = Settings {
        steps: vec![],
        holdback: f64::from(p.holdback),
        probe: false,
        alone: if p.holdback == 0 { samples.max(1) } else { 0 },
        bake_holdback: samples,
        limits: Limits::given(
            p.max_error_rate,
            p.max_p99.map(|span| span.0),
            p.max_p99_ratio,
            p.min_requests,
        ),
        on_inconclusive: p.on_inconclusive,
        on_no_data: p.on_no_data,
        task_restarts: p.task_restarts,
        ..Settings::default()
    };
    let mut watch = Watch::begin(rollout, settings, &[])?;
    if p.holdback == 0 {
        rollout.reach_color(new, &format!("switch to {new}"), 10)?;
        watch.entered(rollout);
    } else {
        watch.enter(rollout)?;
    }
    Ok(match watch.bake(rollout)? {
        Some(outcome) => outcome,
        None => promoted(format!("{new} is not worse {}", watch.summary())),
    })
}

/// Switches, and bakes against fixed limits.
fn limits(rollout: &mut Rollout, p: &Parameters, new: &str) -> Result<Outcome, Error> {
    rollout.reach_color(new, &format!("switch to {new}"), 10)?;
    let period = rollout.sample_period();
    let bake = Bake {
        title: new.to_owned(),
        time: p.bake.map_or(period * BAKE_SAMPLES, |span| span.0),
        limits: Limits {
            error_rate: p.max_error_rate.unwrap_or(ERROR_RATE_MAX),
            p99: p.max_p99.map(|span| span.0),
            p99_ratio: p
                .max_p99_ratio
                .or(p.max_p99.is_none().then_some(P99_RATIO_MAX)),
            min_requests: p.min_requests,
        },
        on_no_data: p.on_no_data,
        history: Some(period * HISTORY_SAMPLES),
        percent: (10.0, 100.0),
    };
    let outcome = bake.run(rollout)?;
    Ok(outcome.unwrap_or_else(|| promoted(format!("{new} kept to the limits for the whole bake"))))
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

    /// With fixed limits, unless it says otherwise.
    fn go(world: &mut World, parameters: &str) -> Outcome {
        let limited = parameters
            .replacen('{', r#"{"gate": "limits", "#, 1)
            .replace(", }", "}");
        world.run(&limited, run).expect("a verdict")
    }

    fn judged(world: &mut World, parameters: &str) -> Outcome {
        // The old colour's past, to compare with.
        rollout_sdk::Host::wait(world, 60, &[]);
        world.calls.clear();
        world.run(parameters, run).expect("a verdict")
    }

    #[test]
    fn the_past_is_the_control_and_that_is_said() {
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        let outcome = judged(&mut world, "{}");
        assert_eq!(outcome.verdict, Verdict::Promoted);
        assert!(
            outcome.reason.contains("a weaker control"),
            "{}",
            outcome.reason
        );
        for (errors, p99) in [(0.2, 30.0), (0.0, 330.0)] {
            let mut world = World::steady(ARMS, 100.0, errors, p99);
            let outcome = judged(&mut world, "{}");
            assert_eq!(outcome.verdict, Verdict::RolledBack, "{}", outcome.reason);
            assert_eq!(
                world.calls.last().map(String::as_str),
                Some("switch-color blue")
            );
        }
    }

    #[test]
    fn a_holdback_keeps_a_control() {
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
        assert_eq!(
            judged(&mut world, r#"{"holdback": 5}"#).verdict,
            Verdict::Promoted
        );
        assert!(
            world
                .calls
                .contains(&"set-weights blue=5 green=95".to_owned())
        );
        let mut world = World::steady(ARMS, 1_000.0, 0.05, 30.0);
        let outcome = judged(&mut world, r#"{"holdback": 5}"#);
        assert_eq!(outcome.verdict, Verdict::RolledBack);
        assert!(outcome.reason.contains("errors"), "{}", outcome.reason);
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

//! Replays recorded runs of a reference implementation of every rule in a noisy
//! world: each minute must end with the same decision.

use rivals::rule::{ArmMinute, Decision, Minute, Percentiles};
use rivals::{Parameters, rule};
use rollout_sdk::serde_json::{Value, from_str, from_value};
use serde::Deserialize;

#[derive(Deserialize)]
struct Run {
    scenario: String,
    seed: u32,
    parameters: Value,
    /// Minutes after which the rule sees a minute.
    delay: usize,
    first_share: u32,
    minutes: Vec<Row>,
}

/// One minute: what happened, and what the rule wanted after it.
#[derive(Deserialize)]
struct Row(Arm, Arm, u8, u32, String);

/// Requests, errors, p50, p95 and p99.
#[derive(Deserialize)]
struct Arm(u32, u32, Option<f64>, Option<f64>, Option<f64>);

impl Arm {
    fn minute(&self) -> ArmMinute {
        let latency = match (self.2, self.3, self.4) {
            (Some(p50), Some(p95), Some(p99)) => Some(Percentiles { p50, p95, p99 }),
            _ => None,
        };
        ArmMinute {
            requests: self.0,
            errors: self.1,
            latency,
        }
    }
}

impl Row {
    fn minute(&self) -> Minute {
        Minute {
            candidate: self.0.minute(),
            stable: self.1.minute(),
            missing: self.2 == 1,
        }
    }
}

fn replay(run: &Run) -> usize {
    let parameters: Parameters =
        from_value(run.parameters.clone()).expect("the recorded parameters are valid");
    let mut rule = rule(&parameters);
    let title = format!("{} seed {} {}", run.scenario, run.seed, run.parameters);
    assert_eq!(rule.schedule().first(), run.first_share, "{title}");
    assert_eq!(rule.extra_delay() as usize + 1, run.delay, "{title}");
    for (t, row) in run.minutes.iter().enumerate() {
        let data = t.checked_sub(run.delay).map(|i| run.minutes[i].minute());
        let minute = u32::try_from(t).expect("a short run");
        let (share, status) = match rule.tick(minute, data.as_ref()) {
            Decision::Share(share) => (share, "runs"),
            Decision::RollBack(_) => (0, "rolled back"),
            Decision::Promote(_) => (100, "promoted"),
        };
        assert_eq!(
            (share, status),
            (row.3, row.4.as_str()),
            "{title}, minute {t}"
        );
    }
    run.minutes.len()
}

#[test]
fn every_minute_ends_as_recorded() {
    let runs: Vec<Run> = from_str(include_str!("decisions.json")).expect("the record parses");
    let minutes: usize = runs.iter().map(replay).sum();
    assert!(runs.len() > 100 && minutes > 2_000);
}

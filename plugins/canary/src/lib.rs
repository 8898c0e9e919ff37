//! Canary: a little traffic for the new version, a look, a little more.
//!
//! At each step the candidate gets its share and bakes for a while. At every
//! sample of the bake its error rate and p99 are compared with the limits:
//! beyond one, the rollout ends at once. When the bake is over and nobody has
//! sent enough requests, the step holds.

use std::time::Duration;

use rollout_sdk::prelude::*;

/// Samples that a step bakes for, if no time is given: minutes on AWS, seconds
/// on a local target.
const BAKE_SAMPLES: u32 = 6;

/// How far, how fast, and what is good enough.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Parameters {
    /// Shares of the traffic for the new version, in percent, rising.
    pub steps: Vec<u32>,
    /// Time at each step, such as "90s" or "5m": one for all, or a list with
    /// one for each. Six samples if not given (six minutes on AWS, six seconds
    /// locally).
    pub bake: Option<BakeTime>,
    /// Largest share of errors, 0-1.
    pub max_error_rate: f64,
    /// Largest p99 latency.
    pub max_p99: Option<Span>,
    /// Largest p99 as a multiple of the stable version's; at least 50 ms more.
    pub max_p99_ratio: Option<f64>,
    /// Requests that the new version must have had at a step.
    pub min_requests: u32,
    /// Steps (shares) before which a person must say `engine approve`.
    pub approve_before: Vec<u32>,
    /// How long to wait for the approval.
    pub approval_timeout: Span,
    /// What to do when a step had too few requests: wait for more (hold), take
    /// the traffic back (rollback), or ask a person (pause).
    pub on_no_data: OnNoData,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            steps: vec![5, 25, 50, 100],
            bake: None,
            max_error_rate: 0.05,
            max_p99: None,
            max_p99_ratio: Some(2.0),
            min_requests: 20,
            approve_before: vec![],
            approval_timeout: Span(Duration::from_secs(24 * 3_600)),
            on_no_data: OnNoData::Hold,
        }
    }
}

/// One time for all steps, or one for each.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum BakeTime {
    /// The same everywhere.
    Each(Span),
    /// As many as there are steps.
    List(Vec<Span>),
}

rollout_sdk::strategy! {
    name: "canary",
    summary: "Raises the share of the new version step by step, and takes it back at the first sign of trouble.",
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
    let mut issue = |path: String, message: String| issues.push(Issue { path, message });
    if p.steps.is_empty() {
        issue(
            "/steps".into(),
            "is empty; write steps = [5, 25, 50, 100]".into(),
        );
    }
    for (index, share) in p.steps.iter().enumerate() {
        if !(1..=100).contains(share) {
            issue(
                format!("/steps/{index}"),
                format!("{share} is no share; a step is 1 to 100 percent"),
            );
        } else if index > 0 && p.steps[index - 1] >= *share {
            issue(
                format!("/steps/{index}"),
                format!("{share} does not rise above {}", p.steps[index - 1]),
            );
        }
    }
    if let Some(BakeTime::List(list)) = &p.bake
        && list.len() != p.steps.len()
    {
        issue(
            "/bake".into(),
            format!("has {} times for {} steps", list.len(), p.steps.len()),
        );
    }
    if !(0.0..=1.0).contains(&p.max_error_rate) {
        issue(
            "/max-error-rate".into(),
            format!("{} is no share; write 0.05 for 5 %", p.max_error_rate),
        );
    }
    if p.max_p99_ratio.is_some_and(|r| r.is_nan() || r < 1.0) {
        issue("/max-p99-ratio".into(), "must be at least 1".into());
    }
    for (index, share) in p.approve_before.iter().enumerate() {
        if !p.steps.contains(share) {
            issue(
                format!("/approve-before/{index}"),
                format!("{share} is not one of the steps {:?}", p.steps),
            );
        }
    }
    if !issues.is_empty() {
        return Err(issues);
    }
    Ok(p.steps
        .iter()
        .enumerate()
        .map(|(index, share)| PlannedStep {
            share: *share,
            seconds: bake(p, index).map(|t| u32::try_from(t.as_secs()).unwrap_or(u32::MAX)),
            needs_approval: p.approve_before.contains(share),
        })
        .collect())
}

fn bake(p: &Parameters, step: usize) -> Option<Duration> {
    match &p.bake {
        None => None,
        Some(BakeTime::Each(span)) => Some(span.0),
        Some(BakeTime::List(list)) => list.get(step).map(|span| span.0),
    }
}

/// Runs the canary to its verdict.
///
/// # Errors
/// The host refused a step for good, or the metrics could not be read for long.
pub fn run(rollout: &mut Rollout, p: Parameters) -> Result<Outcome, Error> {
    plan(&p).map_err(|issues| {
        let texts: Vec<String> = issues
            .iter()
            .map(|i| format!("{}: {}", i.path, i.message))
            .collect();
        Error(texts.join("; "))
    })?;
    for step in 0..p.steps.len() {
        if let Some(outcome) = one_step(rollout, &p, step)? {
            return Ok(outcome);
        }
    }
    let version = rollout.candidate().version.clone();
    Ok(promoted(format!(
        "{version} kept to the limits at every step"
    )))
}

/// One step; some outcome if the rollout ends here.
fn one_step(rollout: &mut Rollout, p: &Parameters, step: usize) -> Result<Option<Outcome>, Error> {
    let share = p.steps[step];
    let title = format!("step {}/{} at {share} %", step + 1, p.steps.len());
    #[allow(clippy::cast_precision_loss)]
    let percent = |steps: usize| steps as f64 * 100.0 / p.steps.len() as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let done = percent(step) as u32;
    if p.approve_before.contains(&share) {
        rollout.progress(done, &format!("{title}: waits for an approval"));
        if rollout.wait_for(p.approval_timeout.0, &["approve"]) == Wake::Timer {
            let line = format!("nobody approved {title} in time");
            return Ok(Some(inconclusive(line)));
        }
    }
    rollout.reach_share(share, &title, done)?;
    Bake {
        title,
        time: bake(p, step).unwrap_or(rollout.sample_period() * BAKE_SAMPLES),
        limits: Limits {
            error_rate: p.max_error_rate,
            p99: p.max_p99.map(|span| span.0),
            p99_ratio: p.max_p99_ratio,
            min_requests: p.min_requests,
        },
        on_no_data: p.on_no_data,
        history: None,
        percent: (percent(step), percent(step + 1)),
    }
    .run(rollout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rollout_sdk::testing::World;
    use rollout_sdk::{ErrorKind, HostError, Signal, Verdict};

    const ARMS: [&str; 2] = ["stable", "canary"];

    fn go(world: &mut World, parameters: &str) -> Outcome {
        world.run(parameters, run).expect("a verdict")
    }

    #[test]
    fn a_good_version_climbs_all_steps() {
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        assert_eq!(go(&mut world, "{}").verdict, Verdict::Promoted);
        assert_eq!(
            world.calls,
            [
                "set-weights stable=95 canary=5",
                "set-weights stable=75 canary=25",
                "set-weights stable=50 canary=50",
                "set-weights stable=0 canary=100",
            ]
        );
    }

    #[test]
    fn errors_end_it_at_the_first_step() {
        let mut world = World::steady(ARMS, 1_000.0, 0.2, 30.0);
        let outcome = go(&mut world, "{}");
        assert_eq!(outcome.verdict, Verdict::RolledBack);
        assert!(
            outcome.reason.contains("step 1/4 at 5 %"),
            "{}",
            outcome.reason
        );
        assert!(
            outcome.reason.contains("20.0 % errors"),
            "{}",
            outcome.reason
        );
        assert_eq!(world.calls.len(), 1);
    }

    #[test]
    fn latency_ends_it_too() {
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 330.0);
        assert_eq!(go(&mut world, "{}").verdict, Verdict::RolledBack);
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 330.0);
        let absolute = r#"{"max-p99": "300ms", "max-p99-ratio": null}"#;
        assert_eq!(go(&mut world, absolute).verdict, Verdict::RolledBack);
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 330.0);
        let lenient = r#"{"max-p99": "400ms", "max-p99-ratio": null}"#;
        assert_eq!(go(&mut world, lenient).verdict, Verdict::Promoted);
    }

    #[test]
    fn without_traffic_it_holds_and_says_why() {
        let mut world = World::steady(ARMS, 0.0, 0.0, 30.0);
        // A person ends the hold, or it would go on for ever.
        let at = world.now + 60_000.0;
        world.signals = vec![(at, signal("promote"))];
        world
            .run(r#"{"steps": [5]}"#, run)
            .expect("promoted by hand");
        assert!(
            world.note.contains("holds, 0 of 20 requests"),
            "{}",
            world.note
        );
        assert_eq!(world.now, at);
    }

    #[test]
    fn no_data_can_roll_back_or_pause() {
        for (choice, verdict) in [
            ("rollback", Verdict::RolledBack),
            ("pause", Verdict::Inconclusive),
        ] {
            let mut world = World::steady(ARMS, 0.0, 0.0, 30.0);
            let parameters = format!(r#"{{"on-no-data": "{choice}"}}"#);
            assert_eq!(go(&mut world, &parameters).verdict, verdict);
        }
    }

    #[test]
    fn an_approval_comes_before_its_step() {
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        world.signals = vec![(world.now + 30_000.0, signal("approve"))];
        go(&mut world, r#"{"approve-before": [50]}"#);
        let position = |text: &str| world.calls.iter().position(|c| c == text);
        assert_eq!(position("woken by approve"), Some(2));
        assert_eq!(position("set-weights stable=50 canary=50"), Some(3));
    }

    #[test]
    fn nobody_approves() {
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        let outcome = go(
            &mut world,
            r#"{"approve-before": [5], "approval-timeout": "1m"}"#,
        );
        assert_eq!(outcome.verdict, Verdict::Inconclusive);
        assert_eq!(world.calls, Vec::<String>::new());
    }

    #[test]
    fn a_passing_refusal_is_waited_out_and_a_final_one_is_an_error() {
        let refusal = |retryable| HostError {
            kind: ErrorKind::Denied,
            code: "before-bake".to_owned(),
            message: "too early".to_owned(),
            retryable,
        };
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        world.refuse = vec![refusal(true), refusal(true)];
        assert_eq!(go(&mut world, "{}").verdict, Verdict::Promoted);
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        world.refuse = vec![refusal(false)];
        let error = world.run("{}", run).expect_err("denied");
        assert!(error.contains("before-bake"), "{error}");
    }

    #[test]
    fn a_bake_for_each_step() {
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        let start = world.now;
        go(&mut world, r#"{"steps": [10, 100], "bake": ["3s", "7s"]}"#);
        assert_eq!(world.now - start, 10_000.0);
    }

    #[test]
    fn bad_parameters_are_explained() {
        let p: Parameters = rollout_sdk::parse(
            r#"{"steps": [5, 5, 200], "bake": ["1s"], "max-error-rate": 5, "approve-before": [7], "max-p99-ratio": 0.5}"#,
        )
        .expect("the shape is right");
        let paths: Vec<String> = plan(&p)
            .expect_err("five problems")
            .into_iter()
            .map(|i| i.path)
            .collect();
        assert_eq!(
            paths,
            [
                "/steps/1",
                "/steps/2",
                "/bake",
                "/max-error-rate",
                "/max-p99-ratio",
                "/approve-before/0"
            ]
        );
    }

    fn signal(name: &str) -> Signal {
        Signal {
            name: name.to_owned(),
            actor: "ada".to_owned(),
            payload: String::new(),
        }
    }
}

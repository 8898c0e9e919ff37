//! Canary: a little traffic for the new version, a look, and then more.
//!
//! By default the looks are those of the gate in `analysis`: evidence that the
//! candidate is worse than stable is gathered sample by sample. A step ends when the
//! candidate is shown to be not worse, or after enough time ([`evidence`]). With
//! `gate = "limits"` each step bakes for a fixed time and is compared with fixed
//! limits ([`limits`]).

mod evidence;
mod limits;

use std::time::Duration;

use rollout_sdk::prelude::*;

/// How far, how fast, and what is good enough.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Parameters {
    /// Shares of the traffic for the new version, in percent, rising: 5, 25, 50 and 100 if
    /// not given, or 1, 10, 50 and 100 from 10,000 requests a sample on.
    pub steps: Option<Vec<u32>>,
    /// How to judge: compare with stable (evidence), or with limits alone.
    pub gate: GateKind,
    /// Time at each step, such as "90s" or "5m": one for all, or a list with
    /// one for each. With evidence it is the least time, five samples if not
    /// given; with limits the time, six samples if not given. A sample is a
    /// minute on AWS and a second locally.
    pub bake: Option<BakeTime>,
    /// Longest time at a step while nothing is suspicious but nothing proven
    /// either: twelve samples if not given, and twenty from 45 % on.
    pub max_bake: Option<Span>,
    /// Percent of the traffic that stable keeps for the last look, so that there
    /// is something to compare with; 0 for none.
    pub holdback: u32,
    /// Begin with a handful of requests, if the traffic is known.
    pub probe: bool,
    /// How long after each change of the weights latency does not count, because
    /// new tasks are cold; two samples if not given.
    pub warm_up: Option<Span>,
    /// Chance of taking back a version that is not worse: 0.01 asks for evidence
    /// of 100:1.
    pub alpha: f64,
    /// After so many samples in a row in which at least 20 % of the requests fail, the
    /// traffic goes back for good: 2 if not given, and 1 with `edition = 1`. At the first of
    /// two or more the candidate loses its share until the next sample decides; 0 has no
    /// such rule.
    pub catastrophe_samples: Option<u32>,
    /// Edition of the gate: 2, or 1 for the decisions of before. The second takes the share
    /// back before a verdict, borrows from stable's past, tells cold tasks from a
    /// regression, probes without a past, and takes 1, 10 and 50 % from 10,000 requests a
    /// sample on where nothing is said of single steps.
    pub edition: u32,
    /// The least fault that must show, as a difference of the error rates: 0.01 for one
    /// point. The step at which it shows soonest is made long enough for it, up to 90
    /// samples. Nothing is made longer if not given.
    pub min_effect: Option<f64>,
    /// Streams of your own beside errors and latency, from queries of the rollout
    /// file.
    pub streams: Vec<Custom>,
    /// Largest share of errors, 0-1. No limit if not given, or 0.05 with
    /// `gate = "limits"`.
    pub max_error_rate: Option<f64>,
    /// Largest p99 latency.
    pub max_p99: Option<Span>,
    /// Largest p99 as a multiple of the stable version's; at least 50 ms more. No
    /// limit if not given, or 2 with `gate = "limits"` and no `max-p99`.
    pub max_p99_ratio: Option<f64>,
    /// Requests that the new version must have had before a limit counts.
    pub min_requests: u32,
    /// Steps (shares) before which a person must say `engine approve`. 100 asks
    /// before the holdback, which is nearly everything.
    pub approve_before: Vec<u32>,
    /// How long to wait for the approval.
    pub approval_timeout: Span,
    /// What to do when the evidence stays suspicious for thirty samples: take the
    /// traffic back (rollback), or ask a person (pause).
    pub on_inconclusive: OnInconclusive,
    /// What to do when no samples come for thirty samples' time, or too few
    /// requests for a limit: wait for more (hold), take the traffic back
    /// (rollback), or ask a person (pause).
    pub on_no_data: OnNoData,
    /// What to do when the share of the requests that arrives is not the share that was set,
    /// as with sticky sessions: take no step (hold), after thirty samples of which
    /// `on-inconclusive` decides; say so (warn); or nothing (ignore).
    pub traffic_split_check: Caution,
    /// What to do when tasks of the new version stop by themselves (they end, run out of
    /// memory, or fail health checks): take no step while they do so again and again and
    /// stable's do not (hold), after thirty samples of which `on-inconclusive` decides; say so
    /// (warn); or nothing (ignore). Only ECS tells.
    pub task_restarts: Caution,
    /// What to do when memory, CPU or latency of the new version only rise and stable's do
    /// not: take no step meanwhile (hold), after thirty samples of which `on-inconclusive`
    /// decides; say so (warn); or nothing (ignore).
    pub slopes: Caution,
}

/// The steps if none are given.
const STEPS: [u32; 4] = [5, 25, 50, 100];

impl Parameters {
    /// The steps that are given, or else the usual ones.
    pub(crate) fn steps(&self) -> &[u32] {
        self.steps.as_deref().unwrap_or(&STEPS)
    }

    /// Whether the steps may be chosen by the traffic: nothing is said of them.
    pub(crate) fn fits(&self) -> bool {
        let of_one = matches!(self.bake, Some(BakeTime::List(_)))
            || self.approve_before.iter().any(|share| *share < 100);
        self.edition == 2 && self.steps.is_none() && !of_one
    }
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            steps: None,
            gate: GateKind::Evidence,
            bake: None,
            max_bake: None,
            holdback: 5,
            probe: true,
            warm_up: None,
            alpha: 0.01,
            catastrophe_samples: None,
            edition: 2,
            min_effect: None,
            streams: vec![],
            max_error_rate: None,
            max_p99: None,
            max_p99_ratio: None,
            min_requests: 20,
            approve_before: vec![],
            approval_timeout: Span(Duration::from_secs(24 * 3_600)),
            on_inconclusive: OnInconclusive::Rollback,
            on_no_data: OnNoData::Hold,
            traffic_split_check: Caution::Warn,
            task_restarts: Caution::Hold,
            slopes: Caution::Warn,
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
    summary: "Raises the share of the new version step by step, and takes it back once it is shown to be worse.",
    parameters: Parameters,
    plan: plan,
    run: run,
}

/// Checks what the schema cannot express, and returns the intended steps.
///
/// # Errors
/// One issue per problem.
pub fn plan(p: &Parameters) -> Result<Vec<PlannedStep>, Vec<Issue>> {
    let issues = check(p);
    if !issues.is_empty() {
        return Err(issues);
    }
    let needs_approval = |share: u32| p.approve_before.contains(&share);
    Ok(match p.gate {
        GateKind::Limits => p
            .steps()
            .iter()
            .enumerate()
            .map(|(index, share)| PlannedStep {
                share: *share,
                seconds: bake(p, index).map(|t| u32::try_from(t.as_secs()).unwrap_or(u32::MAX)),
                needs_approval: needs_approval(*share),
            })
            .collect(),
        // The time of a step depends on the evidence.
        GateKind::Evidence => evidence::shares(p)
            .into_iter()
            .map(|share| PlannedStep {
                share,
                seconds: None,
                needs_approval: evidence::needs_approval(p, share),
            })
            .collect(),
    })
}

fn check(p: &Parameters) -> Vec<Issue> {
    let mut issues = vec![];
    let mut issue = |path: String, message: String| issues.push(Issue { path, message });
    if p.steps().is_empty() {
        issue(
            "/steps".into(),
            "is empty; write steps = [5, 25, 50, 100]".into(),
        );
    }
    for (index, share) in p.steps().iter().enumerate() {
        if !(1..=100).contains(share) {
            issue(
                format!("/steps/{index}"),
                format!("{share} is not a share; a step is 1 to 100 percent"),
            );
        } else if index > 0 && p.steps()[index - 1] >= *share {
            issue(
                format!("/steps/{index}"),
                format!("{share} does not rise above {}", p.steps()[index - 1]),
            );
        }
    }
    if let Some(BakeTime::List(list)) = &p.bake
        && list.len() != p.steps().len()
    {
        issue(
            "/bake".into(),
            format!("has {} times for {} steps", list.len(), p.steps().len()),
        );
    }
    if p.holdback > 50 {
        issue(
            "/holdback".into(),
            format!("{} is too much; stable keeps 0 to 50 percent", p.holdback),
        );
    }
    if !(p.alpha > 0.0 && p.alpha <= 0.5) {
        issue(
            "/alpha".into(),
            format!(
                "{} is not above 0 and at most 0.5; write 0.01 for 1 %",
                p.alpha
            ),
        );
    }
    if !(1..=2).contains(&p.edition) {
        issue(
            "/edition".into(),
            format!("there is no edition {}; write 1 or 2", p.edition),
        );
    }
    if p.min_effect
        .is_some_and(|effect| !(effect > 0.0 && effect < 1.0))
    {
        issue(
            "/min-effect".into(),
            "is not above 0 and below 1; write 0.01 for one point of errors".into(),
        );
    }
    if p.gate == GateKind::Limits && !p.streams.is_empty() {
        issue(
            "/streams".into(),
            "would not be looked at: gate = \"limits\" knows errors and latency alone; leave them out, or use gate = \"evidence\""
                .into(),
        );
    }
    for (index, stream) in p.streams.iter().enumerate() {
        if let Err(message) = stream.check() {
            issue(format!("/streams/{index}"), message);
        }
    }
    if let Some(rate) = p.max_error_rate
        && !(0.0..=1.0).contains(&rate)
    {
        issue(
            "/max-error-rate".into(),
            format!("{rate} is not a share from 0 to 1; write 0.05 for 5 %"),
        );
    }
    if p.max_p99_ratio.is_some_and(|r| r.is_nan() || r < 1.0) {
        issue("/max-p99-ratio".into(), "must be at least 1".into());
    }
    for (index, share) in p.approve_before.iter().enumerate() {
        let shares = match p.gate {
            GateKind::Limits => p.steps().to_vec(),
            GateKind::Evidence => evidence::shares(p),
        };
        if !shares.contains(share) {
            issue(
                format!("/approve-before/{index}"),
                format!("{share} is not one of the steps {shares:?}"),
            );
        }
    }
    issues
}

/// The time at a step, if one is given.
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
    match p.gate {
        GateKind::Evidence => evidence::run(rollout, &p),
        GateKind::Limits => limits::run(rollout, &p),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rollout_sdk::testing::{World, sample};
    use rollout_sdk::{ErrorKind, HostError, Signal, Verdict};

    const ARMS: [&str; 2] = ["stable", "canary"];

    /// With fixed limits, unless it says otherwise.
    fn limited(parameters: &str) -> String {
        parameters
            .replacen('{', r#"{"gate": "limits", "#, 1)
            .replace(", }", "}")
    }

    fn go(world: &mut World, parameters: &str) -> Outcome {
        world.run(&limited(parameters), run).expect("a verdict")
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
        // A person ends the hold, which would not end by itself.
        let at = world.now + 60_000.0;
        world.signals = vec![(at, signal("promote"))];
        world
            .run(r#"{"gate": "limits", "steps": [5]}"#, run)
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
        let error = world.run(r#"{"gate": "limits"}"#, run).expect_err("denied");
        assert!(error.contains("before-bake"), "{error}");
    }

    #[test]
    fn a_bake_for_each_step() {
        let mut world = World::steady(ARMS, 100.0, 0.0, 30.0);
        let start = world.now;
        go(&mut world, r#"{"steps": [10, 100], "bake": ["3s", "7s"]}"#);
        assert_eq!(world.now - start, 10_000.0);
    }

    /// With evidence, after a minute of stable's past.
    fn judged(world: &mut World, parameters: &str) -> Outcome {
        rollout_sdk::Host::wait(world, 60, &[]);
        world.calls.clear();
        world.run(parameters, run).expect("a verdict")
    }

    #[test]
    fn evidence_climbs_from_a_probe_to_a_holdback() {
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
        let outcome = judged(&mut world, "{}");
        assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
        assert_eq!(
            world.calls,
            [
                "get-health",
                "set-weights stable=975 canary=25",
                "set-weights stable=95 canary=5",
                "set-weights stable=75 canary=25",
                "set-weights stable=50 canary=50",
                "set-weights stable=5 canary=95",
            ]
        );
        // Two looks at the probe, then five at least, then ten at the holdback.
        let advances: Vec<usize> = (0..world.findings.len())
            .filter(|at| world.findings[*at].decision == rollout_sdk::Decision::Advance)
            .collect();
        assert_eq!(advances[0], 1);
        assert!(advances[1] >= 6 && advances.len() == 5, "{advances:?}");
    }

    #[test]
    fn evidence_finds_errors_and_latency_at_once() {
        for (errors, p99, what) in [(0.05, 30.0, "errors: "), (0.0, 60.0, "slow requests: ")] {
            let mut world = World::steady(ARMS, 1_000.0, errors, p99);
            let outcome = judged(&mut world, "{}");
            assert_eq!(outcome.verdict, Verdict::RolledBack);
            assert!(outcome.reason.contains(what), "{}", outcome.reason);
            assert!(
                outcome
                    .reason
                    .contains("it is worse (a version as good as stable "),
                "{}",
                outcome.reason
            );
            let last = world.findings.last().expect("it has looked");
            assert_eq!(last.decision, rollout_sdk::Decision::RollBack);
            assert!(last.log_evidence >= last.log_limit && last.excess_requests > 0.0);
            assert!(world.findings.len() < 12, "{}", world.findings.len());
        }
    }

    #[test]
    fn a_limit_is_a_guard_of_its_own() {
        // Both arms are equally bad, which is not evidence against either.
        let both = |arm: &str, start: f64, share: f64| {
            let requests = (1_000.0 * share).round();
            (requests > 0.0)
                .then(|| rollout_sdk::testing::sample(arm, start, requests, requests * 0.1, 30.0))
        };
        let mut world = World::new(ARMS, both);
        assert_eq!(judged(&mut world, "{}").verdict, Verdict::Promoted);
        let mut world = World::new(ARMS, both);
        let outcome = judged(&mut world, r#"{"max-error-rate": 0.05}"#);
        assert_eq!(outcome.verdict, Verdict::RolledBack);
        assert!(
            outcome.reason.contains("over the limit"),
            "{}",
            outcome.reason
        );
    }

    #[test]
    fn silence_never_promotes() {
        for (choice, verdict) in [
            ("rollback", Verdict::RolledBack),
            ("pause", Verdict::Inconclusive),
        ] {
            let mut world = World::steady(ARMS, 0.0, 0.0, 30.0);
            let parameters = format!(r#"{{"on-no-data": "{choice}"}}"#);
            let outcome = judged(&mut world, &parameters);
            assert_eq!(outcome.verdict, verdict);
            assert!(
                outcome.reason.contains("no data for 30 samples"),
                "{}",
                outcome.reason
            );
        }
        // A candidate that gets no requests although some are due is not good.
        let deaf = |arm: &str, start: f64, share: f64| {
            let requests = (1_000.0 * share).round();
            (arm == "stable" && requests > 0.0)
                .then(|| rollout_sdk::testing::sample(arm, start, requests, 0.0, 30.0))
        };
        let mut world = World::new(ARMS, deaf);
        let outcome = judged(&mut world, r#"{"on-no-data": "pause"}"#);
        assert_eq!(outcome.verdict, Verdict::Inconclusive);
        assert!(
            outcome.reason.contains("check the routing"),
            "{}",
            outcome.reason
        );
    }

    #[test]
    fn a_person_hurries_one_step_or_approves_the_last() {
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
        rollout_sdk::Host::wait(&mut world, 60, &[]);
        world.signals = vec![
            (world.now + 2_000.0, signal("promote")),
            (world.now + 600_000.0, signal("approve")),
        ];
        let begun = world.now;
        let outcome = world.run(r#"{"holdback": 0, "approve-before": [100]}"#, run);
        let outcome = outcome.expect("a verdict");
        assert_eq!(outcome.verdict, Verdict::Promoted);
        // A step that a person has cut short shows less than was said before.
        assert!(
            !outcome.reason.contains("would have shown"),
            "{}",
            outcome.reason
        );
        let step = |text: &str| world.calls.iter().position(|c| c == text);
        assert!(step("woken by promote") < step("set-weights stable=75 canary=25"));
        assert!(step("woken by approve") > step("set-weights stable=50 canary=50"));
        assert!(world.now >= begun + 600_000.0);
    }

    #[test]
    fn a_good_end_says_what_would_have_shown() {
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
        rollout_sdk::Host::wait(&mut world, 60, &[]);
        let reason = world.run("{}", run).expect("a verdict").reason;
        assert!(
            reason.contains("+1 point of errors would have shown in about"),
            "{reason}"
        );
    }

    #[test]
    fn why_the_least_effect_does_not_show_is_said_and_nothing_gets_longer() {
        let said = |past: u32, rps: f64, effect: &str| {
            let mut world = World::steady(ARMS, rps, 0.0, 30.0);
            rollout_sdk::Host::wait(&mut world, past, &[]);
            let parameters = format!("{{\"min-effect\": {effect}}}");
            let outcome = world.run(&parameters, run).expect("a verdict");
            assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
            let mut lines = world.logs.into_iter().map(|(_, line)| line);
            let line = lines.find(|line| line.starts_with("min-effect"));
            (line.unwrap_or_default(), world.now)
        };
        let (line, unknown) = said(0, 100.0, "0.01");
        assert!(line.contains("nothing is known of stable's past"), "{line}");
        assert_eq!(unknown, said(0, 100.0, "0.3").1, "no step is longer");
        let (line, small) = said(60, 1_000.0, "0.00001");
        assert!(
            line.contains("does not count with stable's usual rate"),
            "{line}"
        );
        let (line, few) = said(60, 20.0, "0.001");
        assert!(line.contains("too few requests for it"), "{line}");
        assert!(few > small + 30_000.0, "one step takes 90 samples");
        assert_eq!(said(60, 1_000.0, "0.05").0, "", "it shows");
    }

    #[test]
    fn a_person_who_hurries_waits_for_an_alarm() {
        let mut world = World::steady(ARMS, 1_000.0, 0.5, 30.0);
        rollout_sdk::Host::wait(&mut world, 60, &[]);
        world.calls.clear();
        world.signals = vec![(world.now + 1_000.0, signal("promote"))];
        let outcome = world.run("{}", run).expect("a verdict");
        assert_eq!(outcome.verdict, Verdict::RolledBack, "{}", outcome.reason);
        let raised = |call: &String| call.starts_with("set-weights stable=95");
        assert!(!world.calls.iter().any(raised), "{:?}", world.calls);
    }

    #[test]
    fn it_is_judged_while_a_person_is_asked() {
        // Good until a minute into the wait.
        let late = |arm: &str, start: f64, share: f64| {
            let requests = (1_000.0 * share).round();
            let bad = arm == "canary" && start > 1_000_000.0 + 180_000.0;
            let errors = requests * if bad { 0.1 } else { 0.0 };
            (requests > 0.0)
                .then(|| rollout_sdk::testing::sample(arm, start, requests, errors, 30.0))
        };
        let mut world = World::new(ARMS, late);
        let outcome = judged(&mut world, r#"{"approve-before": [50]}"#);
        assert_eq!(outcome.verdict, Verdict::RolledBack, "{}", outcome.reason);
        assert!(
            outcome.reason.contains("waits for an approval"),
            "{}",
            outcome.reason
        );
        assert!(world.now < 1_000_000.0 + 400_000.0);
        // Before the first step the candidate has no traffic, so one wait is enough.
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
        let parameters = r#"{"probe": false, "approve-before": [5], "approval-timeout": "10h"}"#;
        let outcome = judged(&mut world, parameters);
        assert_eq!(outcome.verdict, Verdict::Inconclusive);
        assert_eq!(world.calls, ["get-health"]);
    }

    #[test]
    fn percentiles_do_where_nothing_is_counted() {
        for (p99, verdict) in [(30.0, Verdict::Promoted), (60.0, Verdict::RolledBack)] {
            let mut world = World::steady(ARMS, 2_000.0, 0.0, p99);
            world.counts_slow = false;
            let outcome = judged(&mut world, "{}");
            assert_eq!(outcome.verdict, verdict, "{}", outcome.reason);
        }
    }

    #[test]
    fn a_stream_of_ones_own_can_decide() {
        let accuracy = r#"{"streams": [{"name": "accuracy", "mean": "accuracy", "variance": "variance",
            "of": "answers", "less-is-worse": true}]}"#;
        for (candidate, verdict) in [(0.9, Verdict::Promoted), (0.8, Verdict::RolledBack)] {
            let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
            world.queries = vec![
                ("accuracy".to_owned(), [0.9, candidate]),
                ("variance".to_owned(), [0.09, 0.09]),
                ("answers".to_owned(), [200.0, 200.0]),
            ];
            let outcome = judged(&mut world, accuracy);
            assert_eq!(outcome.verdict, verdict, "{}", outcome.reason);
        }
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
        world.queries = ["accuracy", "variance", "answers"]
            .map(|query| (query.to_owned(), [f64::NAN, f64::NAN]))
            .to_vec();
        let outcome = judged(&mut world, accuracy);
        assert_eq!(outcome.verdict, Verdict::Inconclusive);
        assert!(
            outcome.reason.contains("\"accuracy\" has no data"),
            "{}",
            outcome.reason
        );
        let p: Parameters = rollout_sdk::parse(r#"{"streams": [{"name": "x", "mean": "m"}]}"#)
            .expect("the shape is right");
        let issues = plan(&p).expect_err("no variance");
        assert_eq!(issues[0].path, "/streams/0");
    }

    const WRONG: &str = r#"{"streams": [{"name": "wrong", "bad": "wrong", "of": "answers"}]}"#;

    #[test]
    fn no_step_passes_on_a_stream_without_a_value() {
        // Nothing ever, nothing of the candidate, and nothing to count out of.
        for values in [
            [[f64::NAN, f64::NAN], [f64::NAN, f64::NAN]],
            [[2.0, f64::NAN], [200.0, f64::NAN]],
            [[2.0, 2.0], [f64::NAN, f64::NAN]],
        ] {
            let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
            world.queries = vec![
                ("wrong".to_owned(), values[0]),
                ("answers".to_owned(), values[1]),
            ];
            let outcome = judged(&mut world, WRONG);
            assert_eq!(outcome.verdict, Verdict::Inconclusive, "{values:?}");
            assert!(
                outcome
                    .reason
                    .contains("the stream \"wrong\" has no data: its queries"),
                "{}",
                outcome.reason
            );
            // The probe is the only share that the candidate ever had.
            assert_eq!(
                world.calls,
                ["get-health", "set-weights stable=975 canary=25"]
            );
            let last = world.findings.last().expect("it has looked");
            assert_eq!(last.decision, rollout_sdk::Decision::Hold);
            assert!(
                last.explanation.contains("has no data"),
                "{}",
                last.explanation
            );
        }
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
        world.queries = vec![
            ("wrong".to_owned(), [f64::NAN; 2]),
            ("answers".to_owned(), [200.0; 2]),
        ];
        let back = WRONG.replacen('{', r#"{"on-no-data": "rollback", "#, 1);
        assert_eq!(judged(&mut world, &back).verdict, Verdict::RolledBack);
    }

    #[test]
    fn a_stream_that_falls_silent_stops_the_climb_where_it_is() {
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
        world.queries = vec![
            ("wrong".to_owned(), [2.0; 2]),
            ("answers".to_owned(), [200.0; 2]),
        ];
        // Readable for two steps, and refused from then on.
        rollout_sdk::Host::wait(&mut world, 60, &[]);
        world.queries_end = Some((
            world.now + 12_000.0,
            "it refused (401 Unauthorized)".to_owned(),
        ));
        world.calls.clear();
        let outcome = world.run(WRONG, run).expect("a verdict");
        assert_eq!(outcome.verdict, Verdict::Inconclusive, "{}", outcome.reason);
        assert!(outcome.reason.contains("step 4/5"), "{}", outcome.reason);
        assert!(
            outcome
                .reason
                .contains("has no data: it refused (401 Unauthorized)"),
            "{}",
            outcome.reason
        );
    }

    #[test]
    fn a_late_first_value_is_waited_for() {
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
        world.queries = vec![
            ("wrong".to_owned(), [2.0; 2]),
            ("answers".to_owned(), [200.0; 2]),
        ];
        rollout_sdk::Host::wait(&mut world, 60, &[]);
        world.queries_begin = world.now + 8_000.0;
        let outcome = world.run(WRONG, run).expect("a verdict");
        assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
    }

    #[test]
    fn a_version_that_does_not_answer_is_found() {
        unanswered_are_compared(false);
    }

    #[test]
    fn a_version_that_does_not_answer_is_found_where_samples_have_answers_alone() {
        unanswered_are_compared(true);
    }

    fn unanswered_are_compared(answered_alone: bool) {
        let run_with = |parts: [f64; 2]| {
            let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
            world.unanswered = Some(parts);
            world.answered_alone = answered_alone;
            let outcome = judged(&mut world, "{}");
            (outcome, world)
        };
        // All clients of all versions leave now and then, and that cancels out.
        for part in [0.0, 0.02, 0.3] {
            let (outcome, world) = run_with([part, part]);
            assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
            let last = world.findings.last().expect("it has looked");
            assert_eq!(last.streams[3].name, "requests without an answer");
            assert!(last.streams[3].stable_of > 0.0, "it was compared");
        }
        // One that hangs gets no more than the first share, one that hangs at times is
        // taken back before the last step.
        let (outcome, world) = run_with([0.0, 1.0]);
        assert_eq!(outcome.verdict, Verdict::RolledBack, "{}", outcome.reason);
        assert!(
            outcome.reason.contains("requests without an answer: "),
            "{}",
            outcome.reason
        );
        assert_eq!(
            world.calls,
            ["get-health", "set-weights stable=975 canary=25"]
        );
        let held = world
            .findings
            .iter()
            .find(|f| f.decision == rollout_sdk::Decision::Hold);
        let held = &held.expect("no step while it is in doubt").explanation;
        assert!(held.contains("have no answer yet"), "{held}");
        let (outcome, world) = run_with([0.01, 0.05]);
        assert_eq!(outcome.verdict, Verdict::RolledBack, "{}", outcome.reason);
        assert!(
            !world
                .calls
                .iter()
                .any(|c| c == "set-weights stable=5 canary=95"),
            "{:?}",
            world.calls
        );
    }

    #[test]
    fn streams_beside_limits_are_refused() {
        let p: Parameters = rollout_sdk::parse(&limited(WRONG)).expect("the shape is right");
        let issues = plan(&p).expect_err("nobody would look at them");
        assert_eq!(issues[0].path, "/streams");
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

    /// Serves 1,000 requests a second; a part of the candidate's fails from the eighth
    /// sample on, for as many samples as `lasts`.
    fn failing(part: f64, lasts: f64) -> World {
        World::new(ARMS, move |arm, start, share| {
            let requests = (1_000.0 * share).round();
            let since = (start - 1_000_000.0) / 1_000.0 - 8.0;
            let bad = arm == "canary" && since >= 0.0 && since < lasts;
            let errors = if bad { requests * part } else { 0.0 };
            (requests > 0.0).then(|| sample(arm, start, requests, errors, 30.0))
        })
    }

    #[test]
    fn a_bad_second_costs_a_retreat_and_not_the_rollout() {
        let mut world = failing(0.5, 1.0);
        let outcome = world.run("{}", run).expect("a verdict");
        assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
        let writes = world.calls.iter().filter(|c| c.starts_with("set-weights"));
        let writes: Vec<&str> = writes.map(String::as_str).collect();
        // The alarm, a handful of requests, and the same share again.
        let at = writes
            .iter()
            .position(|call| *call == "set-weights stable=99 canary=1")
            .expect("about ten requests");
        assert_eq!(writes[at - 1], writes[at + 1], "{writes:?}");
        let held = world.findings.iter().filter(|f| {
            f.decision == rollout_sdk::Decision::Hold
                && f.explanation
                    .contains("takes the share back until the next sample")
        });
        assert_eq!(held.count(), 1);
    }

    #[test]
    fn the_next_sample_takes_back_what_goes_on_failing() {
        let mut world = failing(0.5, 1e9);
        let outcome = world.run("{}", run).expect("a verdict");
        assert_eq!(outcome.verdict, Verdict::RolledBack);
        let last = world.calls.last().expect("a write");
        assert!(
            last == "set-weights stable=99 canary=1",
            "{:?}",
            world.calls
        );
        // At once, where that is wished for.
        let mut world = failing(0.5, 1.0);
        let outcome = world.run(r#"{"catastrophe-samples": 1}"#, run);
        assert_eq!(outcome.expect("a verdict").verdict, Verdict::RolledBack);
    }

    #[test]
    fn many_requests_take_smaller_first_steps_unless_something_is_said_of_one() {
        let first = |parameters: &str| {
            let mut world = World::steady(ARMS, 20_000.0, 0.0, 30.0);
            world.run(parameters, run).expect("a verdict");
            world.calls.join("; ")
        };
        let fitted = first("{}");
        for share in ["canary=1;", "canary=10;", "canary=50;"] {
            assert!(fitted.contains(share), "{fitted}");
        }
        assert!(!fitted.contains("canary=25;"), "{fitted}");
        let given = first(r#"{"edition": 1}"#);
        assert!(given.contains("canary=25;"), "{given}");
        let named = first(r#"{"steps": [5, 25, 50, 100]}"#);
        assert!(named.contains("canary=25;"), "{named}");
        let timed = first(r#"{"bake": ["5s", "5s", "5s", "5s"]}"#);
        assert!(timed.contains("canary=25;"), "{timed}");
    }

    /// A world with two zones. The candidate's tasks are in the second one, where a fifth of
    /// the requests of both arms fail from second 12 on, for so many seconds, and
    /// `more` (0-1) of the candidate's.
    fn bad_zone(lasts: f64, more: f64) -> World {
        let mut world = World::new(ARMS, move |arm, start, share| {
            let requests = (1_000.0 * share).round();
            let began = (start - 1_012_000.0) / 1_000.0;
            let (bad, more) = match (0.0..lasts).contains(&began) {
                true => (0.2, more),
                false => (0.0, 0.0),
            };
            let failing = match arm {
                "canary" => requests * (bad + more).min(1.0),
                _ => requests / 4.0 * bad,
            };
            (requests > 0.0).then(|| sample(arm, start, requests, failing, 30.0))
        });
        world.zones = Some(Box::new(|whole| {
            let part = |zone: &str, requests, errors| rollout_sdk::Sample {
                zone: Some(zone.to_owned()),
                requests,
                errors,
                ..whole.clone()
            };
            match whole.arm.as_str() {
                "canary" => vec![part("b", whole.requests, whole.errors)],
                _ => {
                    let quarter = whole.requests / 4;
                    let others = whole.requests - quarter;
                    vec![part("a", others, 0), part("b", quarter, whole.errors)]
                }
            }
        }));
        world
    }

    #[test]
    fn a_zone_that_fails_for_both_arms_takes_nothing_back() {
        let verdict = |lasts, more, split: bool| {
            let mut world = bad_zone(lasts, more);
            world.zones = world.zones.filter(|_| split);
            let outcome = world.run("{}", run).expect("a verdict");
            (outcome.verdict, outcome.reason)
        };
        let (good, why) = verdict(20.0, 0.0, true);
        assert_eq!(good, Verdict::Promoted, "{why}");
        let (whole, why) = verdict(20.0, 0.0, false);
        assert_eq!(whole, Verdict::RolledBack, "{why}");
        let (bad, why) = verdict(1e9, 0.5, true);
        assert_eq!(bad, Verdict::RolledBack, "{why}");
        assert!(why.contains("it is worse"), "{why}");
        // The candidate may be what the zone suffers from: nothing is raised meanwhile.
        let (lasting, why) = verdict(1e9, 0.0, true);
        assert_eq!(lasting, Verdict::RolledBack, "{why}");
        assert!(
            why.contains("as a whole, and not zone by zone: in b 20 %"),
            "{why}"
        );
    }

    /// Zones that come late, or in one read with other samples, do not take a good version
    /// back, and those that cannot be read keep no bad one.
    #[test]
    fn zones_that_come_late_are_waited_for() {
        let ended = |dark: std::ops::Range<f64>, more| {
            let mut world = bad_zone(20.0, more);
            let split = world.zones.take().expect("they are split");
            world.zones = Some(Box::new(move |whole| {
                match dark.contains(&((whole.start - 1_000_000.0) / 1_000.0)) {
                    // No zone has it yet.
                    true => vec![],
                    false => split(whole),
                }
            }));
            let outcome = world.run("{}", run).expect("a verdict");
            (outcome.verdict, outcome.reason)
        };
        let (bad, why) = ended(0.0..1e9, 0.5);
        assert_eq!(bad, Verdict::RolledBack, "{why}");
        let (good, why) = ended(0.0..0.0, 0.0);
        assert_eq!(good, Verdict::Promoted, "{why}");
    }

    /// A world in which half of the candidate's requests stay with stable, for so many
    /// seconds.
    fn sticky(lasts: f64) -> World {
        World::new(ARMS, move |arm, start, share| {
            let kept = if start - 1_000_000.0 < lasts * 1_000.0 {
                0.5
            } else {
                0.0
            };
            let part = match arm {
                "canary" => share * (1.0 - kept),
                _ => share + (1.0 - share) * kept,
            };
            let requests = (1_000.0 * part).round();
            (requests > 0.0).then(|| sample(arm, start, requests, 0.0, 30.0))
        })
    }

    #[test]
    fn a_share_that_does_not_arrive_is_said() {
        let said = "of the requests come to the candidate, and its share was set to 25 %";
        let mut world = sticky(1e9);
        let outcome = world.run("{}", run).expect("a verdict");
        assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
        let explained = |world: &World| {
            let findings = world.findings.iter();
            findings.filter(|f| f.explanation.contains(said)).count()
        };
        assert!(explained(&world) > 0);
        world = sticky(1e9);
        world
            .run(r#"{"traffic-split-check": "ignore"}"#, run)
            .expect("a verdict");
        assert_eq!(explained(&world), 0);
        world = sticky(0.0);
        world.run("{}", run).expect("a verdict");
        assert_eq!(explained(&world), 0);
    }

    #[test]
    fn a_share_that_does_not_arrive_stops_the_climb_if_asked() {
        let mut world = sticky(1e9);
        let outcome = world.run(r#"{"traffic-split-check": "hold"}"#, run);
        let outcome = outcome.expect("a verdict");
        assert_eq!(outcome.verdict, Verdict::RolledBack, "{}", outcome.reason);
        assert!(outcome.reason.contains("sticky sessions"));
        world = sticky(25.0);
        let outcome = world.run(r#"{"traffic-split-check": "hold"}"#, run);
        assert_eq!(outcome.expect("a verdict").verdict, Verdict::Promoted);
        let held = world.findings.iter().filter(|f| {
            f.decision == rollout_sdk::Decision::Hold && f.explanation.contains("sticky sessions")
        });
        let held = held.count();
        assert!(held >= 5, "{held} {}", world.now - 1_000_000.0);
        let raised = |world: &World| {
            let of = |f: &&rollout_sdk::Finding| f.decision == rollout_sdk::Decision::Advance;
            world.findings.iter().find(of).map(|f| f.until)
        };
        // Nothing but the probe, which is too small to tell, was passed before.
        let mut calm = sticky(0.0);
        calm.run(r#"{"traffic-split-check": "hold"}"#, run)
            .expect("a verdict");
        assert_eq!(raised(&world), raised(&calm));
        assert!(world.now > calm.now + 5_000.0);
    }

    /// A good version whose tasks stop at these seconds after the rollout began.
    fn restarting(candidate: &[u32], stable: &[u32], parameters: &str) -> (World, Outcome) {
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
        rollout_sdk::Host::wait(&mut world, 60, &[]);
        let begun = world.now;
        let of = |arm: usize, seconds: &[u32]| -> Vec<(f64, usize, u32)> {
            let at = |s: &u32| begun + f64::from(*s) * 1_000.0;
            seconds.iter().map(|s| (at(s), arm, 137)).collect()
        };
        world.restarts = Some([of(1, candidate), of(0, stable)].concat());
        let outcome = world.run(parameters, run).expect("a verdict");
        (world, outcome)
    }

    fn warnings<'a>(world: &'a World, about: &str) -> Vec<&'a str> {
        let lines = world.logs.iter();
        let warns = lines
            .filter(|(level, line)| *level == rollout_sdk::Level::Warn && line.contains(about));
        warns.map(|(_, line)| line.as_str()).collect()
    }

    #[test]
    fn tasks_that_restart_again_and_again_stop_the_climb() {
        let all: Vec<u32> = (0..200).step_by(3).collect();
        let (world, outcome) = restarting(&all, &[], "{}");
        assert_eq!(outcome.verdict, Verdict::RolledBack, "{}", outcome.reason);
        let said = "tasks of canary stopped by themselves in the last 30 s (exit code 137, out of memory), and none of stable";
        assert!(
            outcome.reason.contains("tasks restart again and again: "),
            "{}",
            outcome.reason
        );
        assert!(outcome.reason.contains(said), "{}", outcome.reason);
        let held = world
            .findings
            .iter()
            .filter(|f| f.decision == rollout_sdk::Decision::Hold && f.explanation.contains(said));
        assert!(held.count() >= 29);
        let (_, outcome) = restarting(&all, &[], r#"{"on-inconclusive": "pause"}"#);
        assert_eq!(outcome.verdict, Verdict::Inconclusive, "{}", outcome.reason);
        // Also where a step is shorter than it takes three of them to stop.
        let seldom: Vec<u32> = (0..400).step_by(4).collect();
        let (_, outcome) = restarting(&seldom, &[], "{}");
        assert_eq!(outcome.verdict, Verdict::RolledBack, "{}", outcome.reason);
        // Once they stay up it goes on.
        let some: Vec<u32> = (0..20).step_by(3).collect();
        let (world, outcome) = restarting(&some, &[], "{}");
        assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
        let (calm, _) = restarting(&[], &[], "{}");
        assert!(world.now > calm.now + 8_000.0);
        assert_eq!(warnings(&calm, "stopped by"), [""; 0]);
    }

    #[test]
    fn one_restart_is_said_and_no_more() {
        let (world, outcome) = restarting(&[5, 6], &[], "{}");
        assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
        let said = warnings(&world, "stopped by itself");
        let [line] = said[..] else { panic!("{said:?}") };
        assert!(
            line.ends_with("1 task of canary stopped by itself in the last 30 s (exit code 137, out of memory), and none of stable"),
            "{line}"
        );
        let explained =
            |f: &&rollout_sdk::Finding| f.explanation.contains("2 tasks of canary stopped");
        assert!(world.findings.iter().any(|f| explained(&f)));
        // Stable's do so too, or nobody wants to know.
        let all: Vec<u32> = (0..200).step_by(3).collect();
        for (stable, parameters) in [
            (&all[..], "{}"),
            (&[], r#"{"task-restarts": "warn"}"#),
            (&[], r#"{"task-restarts": "ignore"}"#),
        ] {
            let (world, outcome) = restarting(&all, stable, parameters);
            assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
            let ignored = parameters.contains("ignore");
            assert_eq!(
                warnings(&world, "stopped by").is_empty(),
                ignored,
                "{parameters}"
            );
        }
        // A target that does not tell is asked once.
        let mut world = World::steady(ARMS, 1_000.0, 0.0, 30.0);
        let outcome = world.run("{}", run).expect("a verdict");
        assert_eq!(outcome.verdict, Verdict::Promoted);
        assert_eq!(warnings(&world, "not watched"), [""; 0]);
    }

    /// A good version whose memory grows by so much a second, while stable's wanders.
    fn leaking(slope: f64, parameters: &str) -> (World, Outcome) {
        let mut world = World::new(ARMS, move |arm, start, share| {
            let requests = (1_000.0 * share).round();
            let mut sample = sample(arm, start, requests, 0.0, 30.0);
            let seconds = start / 1_000.0 - 1_000.0;
            let wanders = (seconds * 0.618_033_988_75).fract();
            sample.memory = Some(match arm {
                "stable" => 50.0 + wanders,
                _ => 30.0 + slope * seconds + 1.0 - wanders,
            });
            (requests > 0.0).then_some(sample)
        });
        rollout_sdk::Host::wait(&mut world, 60, &[]);
        let outcome = world.run(parameters, run).expect("a verdict");
        (world, outcome)
    }

    #[test]
    fn memory_that_only_rises_is_said_or_stops_the_climb() {
        let (world, outcome) = leaking(0.2, r#"{"bake": "20s"}"#);
        assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
        let said = warnings(&world, "memory of canary rises by");
        let [line] = said[..] else { panic!("{said:?}") };
        assert!(line.contains("points a second since 00:1"), "{line}");
        assert!(line.contains(" UTC and would be at 100 % in "), "{line}");
        assert!(line.ends_with("; that of stable does not"), "{line}");
        let explained =
            |f: &&rollout_sdk::Finding| f.explanation.contains("memory of canary rises");
        assert!(world.findings.iter().filter(explained).count() > 5);
        let (_, outcome) = leaking(0.2, r#"{"bake": "20s", "slopes": "hold"}"#);
        assert_eq!(outcome.verdict, Verdict::RolledBack, "{}", outcome.reason);
        assert!(
            outcome.reason.contains("memory of canary rises by 0.2"),
            "{}",
            outcome.reason
        );
        for (slope, parameters) in [
            (0.0, r#"{"bake": "20s", "slopes": "hold"}"#),
            (0.2, r#"{"bake": "20s", "slopes": "ignore"}"#),
        ] {
            let (world, outcome) = leaking(slope, parameters);
            assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
            assert_eq!(warnings(&world, "rises"), [""; 0]);
        }
    }
}

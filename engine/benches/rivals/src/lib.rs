//! The gating rules of other tools as strategies, to compare them with ours in
//! the same simulator.
//!
//! A rule is a pure state machine (see [`rule::Rule`]); one loop, [`clock`], runs any
//! of them. Each decides as its tool's code or manual says, with the limits that the
//! tool's documentation shows. The tools' traffic shaping is not simulated. `minute`
//! stands for one sample.

pub mod alarms;
pub mod argo;
pub mod clock;
pub mod flagger;
pub mod kayenta;
pub mod pipecd;
pub mod relative;
pub mod rule;
pub mod statistics;

use rollout_sdk::prelude::*;

use crate::alarms::Alarms;
use crate::argo::Argo;
use crate::flagger::Flagger;
use crate::kayenta::Kayenta;
use crate::pipecd::PipeCd;
use crate::relative::Relative;
use crate::rule::Rule;

/// Failed checks that Flagger takes, if not given.
const THRESHOLD: u32 = 10;
/// Percent by which Flagger goes on, if not given.
const STEP: u32 = 5;

/// Which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// Flagger: fixed limits at every sample, and failures add up.
    Flagger,
    /// Argo Rollouts: success rate every 5 samples, as in its manual.
    Argo,
    /// Argo Rollouts: success rate and p99 at every sample.
    ArgoP99,
    /// AWS CodeDeploy: 10 % for 5 samples, then everything, and alarms.
    Codedeploy,
    /// Amazon ECS: 5 % for 10 samples, then everything, and alarms.
    EcsCanary,
    /// A home-grown guard: three samples in a row worse than stable.
    Relative,
    /// PipeCD: a Mann-Whitney test at the end of every step.
    Pipecd,
    /// Kayenta: three looks, one an hour, at 5 %.
    #[serde(rename = "kayenta-3h")]
    Kayenta3h,
    /// Kayenta: a look every 10 samples, at 5, 25 and 50 %.
    #[serde(rename = "kayenta-30m")]
    Kayenta30m,
}

/// Which rule, and the two numbers that Flagger's users choose.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Parameters {
    /// The rule.
    pub rule: Name,
    /// Flagger only: failed checks until it rolls back; 10 if not given.
    pub threshold: Option<u32>,
    /// Flagger only: percent added by a good check; 5 if not given.
    pub step: Option<u32>,
}

rollout_sdk::strategy! {
    name: "rivals",
    summary: "Decides as another tool would: Flagger, Argo Rollouts, CodeDeploy, ECS, PipeCD, Kayenta.",
    parameters: Parameters,
    plan: plan,
    run: run,
}

/// Checks what the schema cannot express, and returns the intended steps.
///
/// # Errors
/// One issue per problem.
pub fn plan(p: &Parameters) -> Result<Vec<PlannedStep>, Vec<Issue>> {
    let issues: Vec<Issue> = [
        ("threshold", p.threshold, 1..=u32::MAX, "must be at least 1"),
        ("step", p.step, 1..=flagger::SHARE_MAX, "must be 1 to 50"),
    ]
    .into_iter()
    .filter_map(|(name, value, range, problem)| {
        let message = match value? {
            _ if p.rule != Name::Flagger => "only Flagger has it",
            value if !range.contains(&value) => problem,
            _ => return None,
        };
        Some(Issue {
            path: format!("/{name}"),
            message: message.to_owned(),
        })
    })
    .collect();
    if !issues.is_empty() {
        return Err(issues);
    }
    let steps = rule(p).schedule().0;
    Ok(steps
        .into_iter()
        .map(|step| PlannedStep {
            share: step.share,
            seconds: None,
            needs_approval: false,
        })
        .collect())
}

/// The rule that the parameters name, before its first minute.
pub fn rule(p: &Parameters) -> Box<dyn Rule> {
    match p.rule {
        Name::Flagger => Box::new(Flagger::new(
            p.threshold.unwrap_or(THRESHOLD),
            p.step.unwrap_or(STEP),
        )),
        Name::Argo => Box::new(Argo::documented()),
        Name::ArgoP99 => Box::new(Argo::with_p99()),
        Name::Codedeploy => Box::new(Alarms::codedeploy()),
        Name::EcsCanary => Box::new(Alarms::ecs()),
        Name::Relative => Box::new(Relative::default()),
        Name::Pipecd => Box::new(PipeCd::default()),
        Name::Kayenta3h => Box::new(Kayenta::three_hours()),
        Name::Kayenta30m => Box::new(Kayenta::half_an_hour()),
    }
}

/// Runs the rule to its verdict.
///
/// # Errors
/// The host refused a share for good.
pub fn run(rollout: &mut Rollout, p: Parameters) -> Result<Outcome, Error> {
    clock::follow(rollout, rule(&p).as_mut())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issues(parameters: &str) -> Vec<String> {
        let p: Parameters = rollout_sdk::parse(parameters).expect("they parse");
        match plan(&p) {
            Ok(_) => vec![],
            Err(issues) => issues.into_iter().map(|i| i.path).collect(),
        }
    }

    #[test]
    fn every_problem_is_named() {
        assert!(issues(r#"{"rule": "kayenta-30m"}"#).is_empty());
        assert!(issues(r#"{"rule": "flagger", "threshold": 5, "step": 10}"#).is_empty());
        assert_eq!(
            issues(r#"{"rule": "flagger", "threshold": 0, "step": 51}"#),
            ["/threshold", "/step"]
        );
        assert_eq!(issues(r#"{"rule": "argo-p99", "step": 5}"#), ["/step"]);
    }

    #[test]
    fn the_plan_rises() {
        for (name, shares) in [
            ("flagger", vec![5, 10, 15, 20, 25, 30, 35, 40, 45, 50]),
            ("argo", vec![5, 25, 50]),
            ("codedeploy", vec![10, 100]),
            ("ecs-canary", vec![5, 100]),
            ("kayenta-3h", vec![5, 5, 5]),
        ] {
            let parameters = format!(r#"{{"rule": "{name}"}}"#);
            let p: Parameters = rollout_sdk::parse(&parameters).expect("they parse");
            let planned: Vec<u32> = plan(&p).expect("valid").iter().map(|s| s.share).collect();
            assert_eq!(planned, shares, "{name}");
        }
    }
}

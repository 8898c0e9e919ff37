//! Doubles the new version's share while few of its requests are bad.

mod gate;

use std::iter::successors;
use std::time::Duration;

use gate::Seen;
use rollout_sdk::prelude::*;
use rollout_sdk::{HostError, Level, MetricsQuery};

/// Looks at one share before a person must decide.
const LOOKS: u32 = 10;

/// How far, how fast, and what is bad.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Parameters {
    /// Percent of the traffic at the first step.
    #[schemars(range(min = 1, max = 100))]
    first_share: u32,
    /// Seconds between two looks at the metrics.
    #[schemars(range(min = 1, max = 86_400))]
    bake_seconds: u32,
    /// Requests that take longer than so many milliseconds are bad.
    #[schemars(range(min = 1, max = 600_000))]
    slow_ms: u32,
    /// How many of 1,000 requests may be bad.
    #[schemars(range(min = 0, max = 1_000))]
    max_bad_permille: u32,
    /// Requests of the new version that a decision needs.
    #[schemars(range(min = 1, max = 1_000_000))]
    min_requests: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            first_share: 5,
            bake_seconds: 300,
            slow_ms: 500,
            max_bad_permille: 20,
            min_requests: 100,
        }
    }
}

/// The steps, or what is wrong with the parameters.
pub fn plan(p: &Parameters) -> Result<Vec<PlannedStep>, Vec<Issue>> {
    let bounds = [
        ("/first-share", p.first_share, 1, 100),
        ("/bake-seconds", p.bake_seconds, 1, 86_400),
        ("/slow-ms", p.slow_ms, 1, 600_000),
        ("/max-bad-permille", p.max_bad_permille, 0, 1_000),
        ("/min-requests", p.min_requests, 1, 1_000_000),
    ];
    let wrong = bounds.iter().filter(|b| b.1 < b.2 || b.1 > b.3);
    let issues: Vec<Issue> = wrong
        .map(|(path, _, least, most)| Issue {
            path: (*path).to_owned(),
            message: format!("must be an integer from {least} to {most}"),
        })
        .collect();
    if !issues.is_empty() {
        return Err(issues);
    }
    let step = |share| PlannedStep {
        share,
        seconds: Some(p.bake_seconds),
        needs_approval: false,
    };
    Ok(shares(p.first_share).map(step).collect())
}

/// The first share and its doubles, up to 100.
fn shares(first: u32) -> impl Iterator<Item = u32> {
    successors(Some(first), |share| {
        (*share < 100).then(|| (2 * share).min(100))
    })
}

/// The strategy.
pub fn run(rollout: &mut Rollout, p: Parameters) -> Result<Outcome, Error> {
    let mut found = String::new();
    for share in shares(p.first_share) {
        rollout.progress(share, &format!("{share} % of the traffic"));
        reach(rollout, share)?;
        let seen = watch(rollout, &p)?;
        if seen.requests < u64::from(p.min_requests) {
            let requests = seen.requests;
            return Ok(inconclusive(format!(
                "only {requests} requests in {LOOKS} looks at {share} %"
            )));
        }
        found = format!(
            "{} of {} requests were bad at {share} %",
            seen.bad, seen.requests
        );
        if seen.too_bad(p.max_bad_permille) {
            return Ok(rolled_back(found));
        }
        rollout.log(Level::Info, &found);
    }
    Ok(promoted(found))
}

/// Moves the traffic; a refusal that may pass is tried again at every sample.
fn reach(rollout: &mut Rollout, share: u32) -> Result<(), HostError> {
    loop {
        match rollout.set_share(share) {
            Err(error) if error.retryable => rollout.wait(rollout.sample_period()),
            result => return result,
        };
    }
}

/// Looks until there are requests enough, at most so often as is allowed.
fn watch(rollout: &mut Rollout, p: &Parameters) -> Result<Seen, HostError> {
    let query = MetricsQuery {
        since: rollout.now(),
        over_ms: vec![f64::from(p.slow_ms)],
        by_zone: false,
    };
    let mut seen = Seen::default();
    for _ in 0..LOOKS {
        rollout.wait(Duration::from_secs(p.bake_seconds.into()));
        seen = match rollout.query_samples(&query) {
            // Without data there is no judgement; the next look may have some.
            Err(error) if error.retryable => Seen::default(),
            samples => Seen::of(&samples?, &rollout.candidate().name),
        };
        if seen.requests >= u64::from(p.min_requests) {
            break;
        }
    }
    Ok(seen)
}

rollout_sdk::strategy! {
    name: "{{name}}",
    summary: "Doubles the new version's share while few of its requests are bad.",
    parameters: Parameters,
    plan: plan,
    run: run,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rollout_sdk::Verdict;
    use rollout_sdk::testing::World;

    fn play(mut world: World) -> (Outcome, Vec<String>) {
        let outcome = world.run(r#"{"first-share": 40}"#, run);
        (outcome.expect("a verdict"), world.calls)
    }

    #[test]
    fn a_good_version_gets_all_traffic() {
        let (outcome, calls) = play(World::steady(["stable", "canary"], 10.0, 0.0, 30.0));
        assert_eq!(outcome, promoted("0 of 3000 requests were bad at 100 %"));
        assert_eq!(
            calls,
            [
                "set-weights stable=60 canary=40",
                "set-weights stable=20 canary=80",
                "set-weights stable=0 canary=100",
            ]
        );
    }

    #[test]
    fn a_bad_version_stops_at_the_first_share() {
        let (outcome, calls) = play(World::steady(["stable", "canary"], 10.0, 0.5, 30.0));
        assert_eq!(outcome.verdict, Verdict::RolledBack);
        assert_eq!(calls, ["set-weights stable=60 canary=40"]);
    }

    #[test]
    fn silence_is_no_verdict() {
        let (outcome, _) = play(World::new(["stable", "canary"], |_, _, _| None));
        assert_eq!(outcome, inconclusive("only 0 requests in 10 looks at 40 %"));
    }

    #[test]
    fn the_plan_names_every_share_and_every_problem() {
        let shares: Vec<u32> = plan(&Parameters::default())
            .expect("the defaults are valid")
            .iter()
            .map(|step| step.share)
            .collect();
        assert_eq!(shares, [5, 10, 20, 40, 80, 100]);
        let issues = plan(&Parameters {
            first_share: 101,
            ..Parameters::default()
        });
        assert_eq!(issues.expect_err("one is wrong")[0].path, "/first-share");
    }
}

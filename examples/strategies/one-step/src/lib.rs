//! One step, one look, one verdict.

use rollout_sdk::prelude::*;

/// How much traffic, and how many errors are too many.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Percent of the traffic for the new version.
    share: u32,
    /// Largest share of errors, 0-1.
    max_error_rate: f64,
}

/// Gives the new version one share, waits, and judges it once.
pub fn run(rollout: &mut Rollout, p: Parameters) -> Result<Outcome, Error> {
    rollout.set_share(p.share)?;
    let since = rollout.now();
    rollout.wait(rollout.sample_period() * 10);
    let seen = Window::of(&rollout.samples(since)?, rollout.candidate());
    Ok(match seen.error_rate() {
        Some(rate) if rate <= p.max_error_rate => promoted(seen.describe()),
        Some(_) => rolled_back(seen.describe()),
        None => inconclusive("nobody sent a request"),
    })
}

rollout_sdk::strategy! { name: "one-step", summary: "One step, one look.", parameters: Parameters, run: run }

#[cfg(test)]
mod tests {
    use super::*;
    use rollout_sdk::Verdict;
    use rollout_sdk::testing::World;

    #[test]
    fn errors_decide() {
        for (error_rate, verdict) in [(0.0, Verdict::Promoted), (0.2, Verdict::RolledBack)] {
            let mut world = World::steady(["stable", "canary"], 100.0, error_rate, 30.0);
            let outcome = world.run(r#"{"share": 20, "max_error_rate": 0.01}"#, run);
            assert_eq!(outcome.expect("a verdict").verdict, verdict);
        }
    }
}

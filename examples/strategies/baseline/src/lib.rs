//! Compares the candidate with the stable version's own past.

use std::time::Duration;

use rollout_sdk::analysis::{math, odds};
use rollout_sdk::prelude::*;
use rollout_sdk::{Arm, Sample};

/// Probability that an interval like those of the past counts as unusual.
const UNUSUAL: f64 = 0.05;
/// Fewest intervals of the past. With less than 19, none could count as unusual.
const PAST_MIN: usize = 40;
type Metric = fn(&Window) -> Option<f64>;

/// How much past, how much traffic, how long, and how certain.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Parameters {
    /// How much of the stable version's past to compare with.
    pub history: Span,
    /// Percent of the traffic for the new version while it is judged, 1-50.
    pub share: u32,
    /// Intervals of the new version that are judged, 3-100. One lasts until it has
    /// as many requests as a sample of the past has on average.
    pub intervals: u32,
    /// Probability of rolling back a version that is like the past.
    pub alpha: f64,
    /// Longest time for all of it; then a person must decide.
    pub timeout: Span,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            history: Span(Duration::from_secs(2 * 3_600)),
            share: 20,
            intervals: 10,
            alpha: 0.01,
            timeout: Span(Duration::from_secs(6 * 3_600)),
        }
    }
}

rollout_sdk::strategy! {
    name: "baseline", summary: "Gives the new version a fixed share and compares it with the stable version's past.",
    parameters: Parameters, plan: plan, run: run,
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
    must("share", (1..=50).contains(&p.share), "1 to 50");
    must("intervals", (3..=100).contains(&p.intervals), "3 to 100");
    let is_chance = p.alpha > 0.0 && p.alpha < 0.5;
    must("alpha", is_chance, "above 0 and below 0.5");
    if !issues.is_empty() {
        return Err(issues);
    }
    Ok(vec![PlannedStep {
        share: p.share,
        seconds: None,
        needs_approval: false,
    }])
}

/// Samples of an arm, joined until each interval has so many requests: the rates
/// of a few requests vary more than those of many.
fn intervals(samples: &[Sample], arm: &Arm, requests: u32) -> Vec<Window> {
    let (mut full, mut open) = (vec![], vec![]);
    for sample in samples.iter().filter(|s| s.arm == arm.name) {
        open.push(sample.clone());
        let window = Window::of(&open, arm);
        if window.requests >= requests {
            full.push(window);
            open.clear();
        }
    }
    full
}

/// The value that one more value of the same kind exceeds with a probability of at
/// most [`UNUSUAL`]: it is equally likely to fall in any place between the others.
fn limit(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = ((1.0 - UNUSUAL) * (values.len() + 1) as f64).ceil() as usize;
    values.get(rank - 1).copied()
}

/// Why these intervals are not like the past, if that is certain enough.
fn unlike(seen: &[Window], past: &[Window], p: &Parameters) -> Option<String> {
    let p99 = |w: &Window| w.p99_ms;
    let metrics: [(&str, Metric); 2] = [("more errors", Window::error_rate), ("a higher p99", p99)];
    metrics.into_iter().find_map(|(name, metric)| {
        let limit = limit(past.iter().filter_map(metric).collect())?;
        let above = seen.iter().filter_map(metric).filter(|v| *v > limit);
        let (above, of) = (above.count() as u32, seen.len() as u32);
        let chance = math::binomial_tail(above, of, UNUSUAL);
        let odds = odds(-chance.ln());
        // Each look at each metric gets an equal part of alpha.
        (chance < p.alpha / f64::from(p.intervals * 2)).then(|| {
            format!("{above} of {of} intervals had {name} than 95 % of the past; the odds are {odds} against that")
        })
    })
}

/// The strategy.
pub fn run(rollout: &mut Rollout, p: Parameters) -> Result<Outcome, Error> {
    let (stable, candidate) = (rollout.stable().clone(), rollout.candidate().clone());
    let from = (rollout.now() - p.history.0.as_secs_f64() * 1_000.0).max(0.0);
    let before = rollout.samples(from)?;
    let past = intervals(&before, &stable, 1);
    if past.len() < PAST_MIN {
        return Ok(inconclusive("too few samples of the past have requests"));
    }
    let usual = Window::of(&before, &stable).requests / past.len() as u32;
    rollout.reach_share(p.share, "baseline", 0)?;
    let since = rollout.now();
    loop {
        // A look reads all samples again, so the pauses between looks grow.
        let pause = Duration::from_secs_f64((rollout.now() - since) / 20_000.0);
        let wake = rollout.wait(pause.max(rollout.sample_period()));
        let samples = match rollout.samples(since) {
            // A failed read may succeed later, and the timeout limits the attempts.
            Err(error) if error.retryable => vec![],
            samples => samples?,
        };
        let mut seen = intervals(&samples, &candidate, usual);
        seen.truncate(p.intervals as usize);
        if let Some(why) = unlike(&seen, &past, &p) {
            return Ok(rolled_back(why));
        }
        let so_far = format!("{} of {} intervals seen", seen.len(), p.intervals);
        if wake != Wake::Timer || seen.len() >= p.intervals as usize {
            return Ok(promoted(format!("it is like the past, with {so_far}")));
        }
        if rollout.now() - since >= p.timeout.0.as_secs_f64() * 1_000.0 {
            return Ok(inconclusive(format!("only {so_far}")));
        }
        rollout.progress(seen.len() as u32 * 100 / p.intervals, &so_far);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rollout_sdk::Verdict;
    use rollout_sdk::testing::{World, sample};

    const NAMES: [&str; 2] = ["stable", "canary"];

    /// Five minutes of the past, then the strategy.
    fn end(mut world: World) -> (Outcome, World) {
        let outcome = world.run("{}", |rollout: &mut Rollout, p: Parameters| {
            rollout.wait(Duration::from_secs(300));
            run(rollout, p)
        });
        (outcome.expect("a verdict"), world)
    }

    /// Both arms with an error rate and a p99 that vary; the candidate's are multiplied
    /// by a factor.
    fn wavy(error_factor: f64, p99_factor: f64) -> World {
        World::new(NAMES, move |arm, start, share| {
            let wave = (start / 1_000.0 * 0.618_033_988_75).fract();
            let is_new = f64::from(u8::from(arm == NAMES[1]));
            let (errors, p99) = (error_factor.powf(is_new), p99_factor.powf(is_new));
            let requests = 200.0 * share;
            let errors = requests * (0.01 + 0.02 * wave) * errors;
            Some(sample(
                arm,
                start,
                requests,
                errors,
                (50.0 + 20.0 * wave) * p99,
            ))
        })
    }

    #[test]
    fn what_is_like_the_past_is_promoted() {
        let (outcome, world) = end(wavy(1.0, 1.0));
        assert_eq!(outcome.verdict, Verdict::Promoted, "{}", outcome.reason);
        assert_eq!(world.calls, ["set-weights stable=80 canary=20"]);
        // Ten intervals of as many requests as stable had in a second.
        assert!((50_000.0..60_000.0).contains(&(world.now - 1_300_000.0)));
    }

    #[test]
    fn what_is_worse_goes_back() {
        for (world, says) in [
            (
                wavy(3.0, 1.0),
                "3 of 3 intervals had more errors than 95 % of the past",
            ),
            (
                wavy(1.0, 1.5),
                "3 of 3 intervals had a higher p99 than 95 % of the past",
            ),
        ] {
            let (outcome, _) = end(world);
            assert_eq!(outcome.verdict, Verdict::RolledBack);
            assert!(outcome.reason.starts_with(says), "{}", outcome.reason);
        }
    }

    #[test]
    fn without_a_past_or_without_traffic_nobody_can_tell() {
        let (outcome, world) = end(World::new(NAMES, |_, _, _| None));
        assert_eq!(outcome.verdict, Verdict::Inconclusive);
        assert_eq!(outcome.reason, "too few samples of the past have requests");
        assert!(world.calls.is_empty());
        let only_stable = |arm: &str, start: f64, _: f64| {
            (arm == NAMES[0]).then(|| sample(arm, start, 10.0, 0.0, 30.0))
        };
        let (outcome, world) = end(World::new(NAMES, only_stable));
        assert_eq!(outcome.verdict, Verdict::Inconclusive);
        assert_eq!(outcome.reason, "only 0 of 10 intervals seen");
        assert!(world.now - 1_300_000.0 >= 6.0 * 3_600_000.0);
    }

    #[test]
    fn few_requests_are_put_together() {
        let arm = Arm {
            name: "canary".to_owned(),
            role: rollout_sdk::Role::Candidate,
            version: "v2".to_owned(),
        };
        let samples: Vec<Sample> = (0..10)
            .map(|n| sample("canary", f64::from(n), 3.0, 1.0, 30.0))
            .collect();
        let requests: Vec<u32> = intervals(&samples, &arm, 10)
            .iter()
            .map(|w| w.requests)
            .collect();
        assert_eq!(requests, [12, 12]);
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        let wrong = r#"{"share": 51, "intervals": 2, "alpha": 0.5}"#;
        let issues = plan(&rollout_sdk::parse(wrong).expect("it parses")).expect_err("all wrong");
        let paths: Vec<&str> = issues.iter().map(|i| i.path.as_str()).collect();
        assert_eq!(paths, ["/share", "/intervals", "/alpha"]);
        assert_eq!(plan(&Parameters::default()).expect("good")[0].share, 20);
    }
}

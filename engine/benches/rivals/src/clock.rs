//! The loop that runs any rule: wait a sample, read, ask the rule, obey.
//!
//! At the end of minute `t` the rule gets the newest minute that the source
//! has: `t - 1` where metrics arrive a minute late, as in the simulator and as
//! the rules expect. Everything it wants applies from minute `t + 1`. A person
//! who says `promote` ends it all: to skip a step would change the comparison.

use std::collections::BTreeMap;

use rollout_sdk::prelude::*;

use crate::rule::{ArmMinute, Decision, Minute, Rule};

/// How far back a read goes, to see how late the source is.
const LOOK_BACK_SAMPLES: f64 = 12.0;
/// How late the source is, in samples, as long as it has never said anything.
const LAG_SAMPLES: i64 = 1;

/// Runs a rule to its verdict.
///
/// # Errors
/// The host refused a share for good.
pub fn follow(rollout: &mut Rollout, rule: &mut dyn Rule) -> Result<Outcome, Error> {
    let schedule = rule.schedule();
    let mut share = schedule.first();
    rollout.reach_share(share, &format!("{share} %"), 0)?;
    let mut feed = Feed::new(rollout, rule.extra_delay());
    let mut minute = 0;
    loop {
        if let Wake::Signal(signal) = rollout.wait(rollout.sample_period()) {
            return Ok(promoted(format!("{} promoted it early", signal.actor)));
        }
        let data = feed.read(rollout);
        let done = 100 * (minute + 1) / schedule.minutes().max(1);
        match rule.tick(minute, data.as_ref()) {
            Decision::Promote(why) => return Ok(promoted(why)),
            Decision::RollBack(why) => return Ok(rolled_back(why)),
            Decision::Share(wanted) if wanted != share => {
                rollout.reach_share(wanted, &format!("{wanted} %"), done.min(99))?;
                share = wanted;
            }
            Decision::Share(_) => {}
        }
        let seen = data.map_or("nothing to see yet".to_owned(), |m| m.candidate.describe());
        rollout.progress(done.min(99), &format!("at {share} %: {seen}"));
        minute += 1;
    }
}

/// Reads the samples of the rollout as minutes. Minute 0 is the first whole
/// one after the start.
struct Feed {
    start: f64,
    period: f64,
    extra_delay: i64,
    /// The shortest time, in samples, that the source has taken so far. A
    /// minute that takes longer is missing, not late: it has to be said when
    /// the rule asks.
    lag: Option<i64>,
}

impl Feed {
    fn new(rollout: &mut Rollout, extra_delay: u32) -> Self {
        Self {
            start: rollout.now(),
            period: rollout.sample_period().as_secs_f64() * 1_000.0,
            extra_delay: i64::from(extra_delay),
            lag: None,
        }
    }

    /// The minute that the rule sees now; none if that is before the start.
    fn read(&mut self, rollout: &mut Rollout) -> Option<Minute> {
        let (stable, candidate) = (
            rollout.stable().name.clone(),
            rollout.candidate().name.clone(),
        );
        let now = rollout.now();
        let since = (now - LOOK_BACK_SAMPLES * self.period).max(0.0);
        // A source that cannot be read is a minute that is missing.
        let samples = rollout.samples(since).unwrap_or_default();
        let mut minutes: BTreeMap<i64, Minute> = BTreeMap::new();
        for sample in &samples {
            let minute = minutes.entry(self.index(sample.start)).or_default();
            if sample.arm == candidate {
                minute.candidate = ArmMinute::of(sample);
            } else if sample.arm == stable {
                minute.stable = ArmMinute::of(sample);
            }
        }
        // Half a period forgives a clock that is not exact.
        let over = self.index(now + self.period / 2.0) - 1;
        if let Some((newest, _)) = minutes.last_key_value() {
            let lag = (over - newest).max(0);
            self.lag = Some(self.lag.map_or(lag, |l| l.min(lag)));
        }
        let wanted = over - self.lag.unwrap_or(LAG_SAMPLES) - self.extra_delay;
        (wanted >= 0).then(|| {
            minutes
                .get(&wanted)
                .copied()
                .unwrap_or_else(Minute::unknown)
        })
    }

    #[allow(clippy::cast_possible_truncation)]
    fn index(&self, time: f64) -> i64 {
        ((time - self.start) / self.period).floor() as i64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rollout_sdk::testing::{World, sample};
    use rollout_sdk::{Sample, Signal, Verdict};

    use super::*;
    use crate::rule::Schedule;

    const ARMS: [&str; 2] = ["stable", "canary"];
    const START: f64 = 1_000_000.0;

    /// A world whose metrics come one sample late; the samples of `gap`, counted
    /// from the start, never come. The candidate's errors vary a little.
    fn late(error_rate: f64, gap: std::ops::Range<u32>) -> World {
        let mut held: BTreeMap<String, Option<Sample>> = BTreeMap::new();
        World::new(ARMS, move |arm, start, share| {
            let index = ((start - START) / 1_000.0) as u32;
            let varied = error_rate * (1.0 + 0.1 * f64::from(index % 5));
            let rate = if arm == "canary" { varied } else { 0.0 };
            let requests = (1_000.0 * share).round();
            let lost = gap.contains(&index);
            let made = (requests > 0.0 && !lost)
                .then(|| sample(arm, start, requests, requests * rate, 240.0));
            held.insert(arm.to_owned(), made).flatten()
        })
    }

    fn go(world: &mut World, parameters: &str) -> (Verdict, f64) {
        let outcome = world.run(parameters, crate::run).expect("a verdict");
        (outcome.verdict, (world.now - START) / 1_000.0)
    }

    #[test]
    fn a_good_candidate_gets_its_shares_and_everything() {
        for (parameters, minutes, writes) in [
            (r#"{"rule": "flagger"}"#, 11.0, 10),
            (r#"{"rule": "flagger", "threshold": 5, "step": 10}"#, 6.0, 5),
            (r#"{"rule": "argo"}"#, 30.0, 3),
            (r#"{"rule": "argo-p99"}"#, 30.0, 3),
            (r#"{"rule": "codedeploy"}"#, 65.0, 2),
            (r#"{"rule": "ecs-canary"}"#, 25.0, 2),
            (r#"{"rule": "relative"}"#, 30.0, 3),
            (r#"{"rule": "pipecd"}"#, 30.0, 3),
            (r#"{"rule": "kayenta-30m"}"#, 30.0, 3),
            (r#"{"rule": "kayenta-3h"}"#, 180.0, 1),
        ] {
            let mut world = late(0.0, 0..0);
            let end = go(&mut world, parameters);
            assert_eq!(end, (Verdict::Promoted, minutes), "{parameters}");
            assert_eq!(world.calls.len(), writes, "{parameters}");
        }
    }

    #[test]
    fn a_bad_candidate_goes_when_the_rule_says_so() {
        for (rule, minutes) in [
            ("flagger", 12.0),
            ("argo", 20.0),
            ("argo-p99", 5.0),
            ("codedeploy", 5.0),
            ("ecs-canary", 5.0),
            ("relative", 4.0),
            ("pipecd", 10.0),
            ("kayenta-30m", 10.0),
            ("kayenta-3h", 60.0),
        ] {
            let mut world = late(0.5, 0..0);
            let end = go(&mut world, &format!(r#"{{"rule": "{rule}"}}"#));
            assert_eq!(end, (Verdict::RolledBack, minutes), "{rule}");
        }
    }

    #[test]
    fn weights_move_between_minutes() {
        let mut world = late(0.0, 0..0);
        go(&mut world, r#"{"rule": "ecs-canary"}"#);
        assert_eq!(
            world.calls,
            [
                "set-weights stable=95 canary=5",
                "set-weights stable=0 canary=100"
            ]
        );
    }

    #[test]
    fn a_gap_is_seen_when_it_is_due() {
        // Flagger counts it as failed checks; alarms and Argo do not count it.
        let mut world = late(0.0, 3..6);
        assert_eq!(
            go(&mut world, r#"{"rule": "flagger"}"#),
            (Verdict::Promoted, 14.0)
        );
        let mut world = late(0.0, 3..6);
        let few = r#"{"rule": "flagger", "threshold": 3}"#;
        assert_eq!(go(&mut world, few), (Verdict::RolledBack, 8.0));
        let mut world = late(0.0, 3..20);
        let end = go(&mut world, r#"{"rule": "argo-p99"}"#);
        assert_eq!(end, (Verdict::Promoted, 30.0));
    }

    #[test]
    fn a_person_may_end_it() {
        let mut world = late(0.0, 0..0);
        let signal = Signal {
            name: "promote".to_owned(),
            actor: "ann".to_owned(),
            payload: String::new(),
        };
        world.signals = vec![(START + 7_000.0, signal)];
        let end = go(&mut world, r#"{"rule": "kayenta-3h"}"#);
        assert_eq!(end, (Verdict::Promoted, 7.0));
    }

    /// Notes what it is given.
    struct Witness(Vec<Option<u32>>, u32);

    impl Rule for Witness {
        fn schedule(&self) -> Schedule {
            Schedule::new(&[(10, 5)])
        }

        fn extra_delay(&self) -> u32 {
            self.1
        }

        fn tick(&mut self, minute: u32, data: Option<&Minute>) -> Decision {
            self.0.push(data.map(|m| m.candidate.errors));
            match minute {
                4 => Decision::Promote(String::new()),
                _ => Decision::Share(10),
            }
        }
    }

    #[test]
    fn a_rule_sees_the_newest_minute_less_its_delay() {
        for (extra, seen) in [
            (0, [Some(0), Some(1), Some(2), Some(3), Some(4)]),
            (1, [None, Some(0), Some(1), Some(2), Some(3)]),
        ] {
            // This world's metrics come at once, and count the minutes.
            let mut world = World::new(ARMS, |arm, start, _| {
                Some(sample(arm, start, 100.0, (start - START) / 1_000.0, 30.0))
            });
            let mut witness = Witness(vec![], extra);
            let outcome = world.run("{}", |rollout, _: BTreeMap<String, u32>| {
                follow(rollout, &mut witness)
            });
            assert_eq!(outcome.expect("a verdict").verdict, Verdict::Promoted);
            assert_eq!(witness.0, seen);
        }
    }
}

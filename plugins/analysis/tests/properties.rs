//! Properties that hold for any data.

use analysis::{
    Config, Counts, Decision, Gate, Interval, Measure, Moments, Past, Seen, Step, StepKind, Stream,
};
use proptest::prelude::*;

fn endless(share: f64) -> Vec<Step> {
    vec![Step {
        share,
        kind: StepKind::Ramp,
        bake_min: u32::MAX,
        bake_max: u32::MAX,
        requests_min: [0.0; 2],
    }]
}

/// One stream, or three, without the corrections for what the model leaves out.
fn textbook(streams: Vec<Stream>) -> Config {
    let mut config = Config {
        dispersion_prior: 1.0,
        streams,
        ..Config::default()
    };
    for stream in &mut config.streams {
        (stream.task_spread, stream.wander) = (0.0, 0.0);
        stream.noise = analysis::Noise::Bursts;
    }
    config
}

fn interval(share: f64, counts: &[[(f64, f64); 2]]) -> Interval {
    let seen = counts.iter().map(|[candidate, stable]| Seen::Counts {
        candidate: Counts::new(candidate.0, candidate.1),
        stable: Counts::new(stable.0, stable.1),
    });
    Interval::whole(share, seen.collect())
}

/// A generator that every platform agrees on (Steele et al. 2014, SplitMix64).
struct Dice(u64);

impl Dice {
    #[expect(clippy::cast_precision_loss, reason = "53 bits")]
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A standard normal number (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// Knuth's product method: exact, and quick enough for small means.
    fn poisson(&mut self, mean: f64) -> f64 {
        let (limit, mut product, mut count) = ((-mean).exp(), self.uniform(), 0.0);
        while product > limit {
            product *= self.uniform();
            count += 1.0;
        }
        count
    }
}

/// A service in whose every interval both arms have so many requests, one of them the
/// candidate's `share`.
#[derive(Clone, Copy)]
struct Service {
    share: f64,
    requests: f64,
    /// The usual rate of errors.
    rate: f64,
    /// How the logarithm of the rate sways, for both arms alike: its standard deviation, and
    /// what of it stays from one interval to the next.
    sway: (f64, f64),
    /// The swing of the newest interval, in standard deviations.
    swing: f64,
}

impl Service {
    fn steady(share: f64, requests: f64, rate: f64) -> Self {
        Self {
            share,
            requests,
            rate,
            sway: (0.0, 0.0),
            swing: 0.0,
        }
    }

    /// The rate of the next interval.
    fn next_rate(&mut self, dice: &mut Dice) -> f64 {
        let (deviation, stays) = self.sway;
        if deviation > 0.0 {
            self.swing = stays * self.swing + (1.0 - stays * stays).sqrt() * dice.normal();
        }
        self.rate * (deviation * self.swing).exp()
    }

    /// Two hours of stable alone.
    fn past(&mut self, dice: &mut Dice) -> Past {
        let mut minute = || {
            let rate = self.next_rate(dice);
            vec![vec![Counts::new(
                dice.poisson(self.requests * rate),
                self.requests,
            )]]
        };
        Past {
            intervals: (0..120).map(|_| minute()).collect(),
        }
    }
}

/// How often a version just at the margin is rolled back, in so many runs of so many looks.
/// `begin` makes the gate of a run.
fn crossings(
    service: Service,
    (runs, looks): (u32, u32),
    dice: &mut Dice,
    begin: impl Fn(&mut Service, &mut Dice) -> Gate,
) -> u32 {
    let share = service.share;
    let (candidate, stable) = (service.requests * share, service.requests * (1.0 - share));
    let mut crossed = 0;
    for _ in 0..runs {
        let mut service = service;
        let mut gate = begin(&mut service, dice);
        let margin = gate.calibration().margin(0, share, gate.config());
        assert!((margin - 1.25).abs() < 1e-12);
        crossed += u32::from((0..looks).any(|_| {
            let rate = service.next_rate(dice);
            let counts = [
                (dice.poisson(candidate * rate * margin), candidate),
                (dice.poisson(stable * rate), stable),
            ];
            gate.look(&interval(share, &[counts])).0 == Decision::RollBack
        }));
    }
    crossed
}

/// That so many of these runs are at most 1 %, within three standard errors.
fn keeps_to_alpha(crossed: u32, runs: u32, what: &str) {
    let rolled_back = f64::from(crossed) / f64::from(runs);
    let error = (0.01 * 0.99 / f64::from(runs)).sqrt();
    assert!(rolled_back <= 0.01 + 3.0 * error, "{what}: {rolled_back}");
}

/// With a look after each of 240 minutes, a version just at the margin is rolled back
/// in at most `alpha` of all rollouts.
#[test]
fn at_the_margin_false_alarms_keep_to_alpha() {
    const RUNS: u32 = 1_500;
    for (share, requests, rate) in [
        (0.05, 1_200.0, 0.01),
        (0.5, 1_200.0, 0.005),
        (0.05, 60.0, 0.02),
    ] {
        let mut dice = Dice(7);
        let service = Service::steady(share, requests, rate);
        let crossed = crossings(service, (RUNS, 240), &mut dice, |_, _| {
            let mut errors = Stream::errors();
            errors.share = 1.0;
            errors.excess = 0.0;
            Gate::new(&Past::default(), textbook(vec![errors]), endless(share))
        });
        keeps_to_alpha(crossed, RUNS, &format!("{share} {requests}"));
    }
}

/// The same test must be able to fail: a version beyond the margin is found.
#[test]
fn beyond_the_margin_it_is_found() {
    let mut dice = Dice(7);
    let mut found = 0;
    for _ in 0..50 {
        let mut gate = Gate::new(
            &Past::default(),
            textbook(vec![Stream::errors(), Stream::slow(), Stream::tail()]),
            endless(0.05),
        );
        found += u32::from((0..60).any(|_| {
            let n = [60.0, 1_140.0];
            let counts = |rate: [f64; 2], dice: &mut Dice| {
                [
                    (dice.poisson(n[0] * rate[0]), n[0]),
                    (dice.poisson(n[1] * rate[1]), n[1]),
                ]
            };
            let seen = [
                counts([0.05, 0.001], &mut dice),
                counts([0.1, 0.1], &mut dice),
                counts([0.01, 0.01], &mut dice),
            ];
            gate.look(&interval(0.05, &seen)).0 == Decision::RollBack
        }));
    }
    assert_eq!(found, 50);
}

fn rows() -> impl Strategy<Value = Vec<[(u32, u32); 2]>> {
    let arm = || (1_u32..400).prop_flat_map(|of| (0..=of, Just(of)));
    proptest::collection::vec([arm(), arm()], 1..40)
}

fn evidence(rows: &[[(u32, u32); 2]], scale: f64, swap: bool) -> f64 {
    let mut errors = Stream::errors();
    (errors.share, errors.margin, errors.cap) = (1.0, 1.0, 1e9);
    let mut gate = Gate::new(&Past::default(), textbook(vec![errors]), endless(0.5));
    let mut last = 0.0;
    for [a, b] in rows {
        let of = |(bad, of): (u32, u32)| (f64::from(bad) * scale, f64::from(of) * scale);
        let counts = if swap {
            [of(*b), of(*a)]
        } else {
            [of(*a), of(*b)]
        };
        last = gate.look(&interval(0.5, &[counts])).1.log_evidence;
    }
    last
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// More of the same data says the same, more surely.
    #[test]
    fn more_of_the_same_keeps_the_sign(mut counts in rows()) {
        // All rows are alike, so that the online dispersion does not change.
        let first = counts[0];
        counts.iter_mut().for_each(|c| *c = first);
        let (once, thrice) = (evidence(&counts, 1.0, false), evidence(&counts, 3.0, false));
        if once > 1.0 {
            prop_assert!(thrice >= once - 1e-9, "{once} {thrice}");
        }
    }

    /// The better arm is never blamed for what the worse one did.
    #[test]
    fn the_better_arm_is_never_rolled_back(counts in rows()) {
        let limit = 100.0_f64.ln();
        let total = |at: usize| counts.iter().fold((0, 0), |s, c| (s.0 + c[at].0, s.1 + c[at].1));
        let rate = |(bad, of): (u32, u32)| f64::from(bad) / f64::from(of);
        let better = rate(total(0)) <= rate(total(1));
        // The rates are constant: a fault that came and went is another question.
        let even: Vec<[(u32, u32); 2]> = counts.iter().map(|_| [total(0), total(1)]).collect();
        let log_e = evidence(&even, 0.1, !better);
        prop_assert!(log_e < limit, "{log_e}");
    }

    /// The order of the streams makes no difference.
    #[test]
    fn the_order_of_streams_is_irrelevant(counts in rows()) {
        let run = |order: [usize; 3]| {
            let all = [Stream::errors(), Stream::slow(), Stream::tail()];
            let config = Config {
                streams: order.map(|at| all[at].clone()).to_vec(),
                ..Config::default()
            };
            let mut gate = Gate::new(&Past::default(), config, endless(0.5));
            let looks: Vec<(Decision, f64)> = counts.iter().map(|[c, s]| {
                let part = |(bad, of): (u32, u32), by: f64| ((f64::from(bad) * by).floor(), f64::from(of));
                let seen = order.map(|at| [part(*c, [0.1, 1.0, 0.3][at]), part(*s, [0.1, 1.0, 0.3][at])]);
                let (decision, finding) = gate.look(&interval(0.5, &seen));
                (decision, finding.log_evidence)
            }).collect();
            looks
        };
        for (a, b) in run([0, 1, 2]).into_iter().zip(run([2, 0, 1])) {
            prop_assert_eq!(a.0, b.0);
            prop_assert!((a.1 - b.1).abs() < 1e-9, "{} {}", a.1, b.1);
        }
    }

    /// Any data, even nonsense, leaves finite numbers.
    #[test]
    fn nothing_becomes_infinite(counts in rows(), odd in 0.0..1e12_f64) {
        let mut gate = Gate::new(&Past::default(), Config::default(), endless(0.5));
        for [c, s] in &counts {
            let seen = [
                [(f64::from(c.0), f64::from(c.1)), (f64::from(s.0), f64::from(s.1))],
                [(odd, odd), (0.0, f64::from(s.1))],
                [(0.0, 0.0), (odd, 0.0)],
            ];
            let (_, finding) = gate.look(&interval(0.5, &seen));
            prop_assert!(finding.log_evidence.is_finite());
        }
    }
}

/// A metric that is an average: less is worse.
#[test]
fn an_average_of_ones_own() {
    let accuracy = |candidate: f64| {
        let mut config = Config::default();
        config.add(Stream::mean("accuracy", 0.25, 0.02, Measure::LessIsWorse));
        config.check().expect("valid");
        let mut gate = Gate::new(&Past::default(), config, endless(0.5));
        let none = Seen::Counts {
            candidate: Counts::default(),
            stable: Counts::default(),
        };
        let mean = |mean: f64| Moments {
            mean,
            variance: 0.09,
            of: 500.0,
        };
        (0..40)
            .map(|_| {
                let seen = Seen::Moments {
                    candidate: mean(candidate),
                    stable: mean(0.9),
                };
                gate.look(&Interval::whole(0.5, vec![none, none, none, seen]))
            })
            .find(|(decision, _)| *decision == Decision::RollBack)
            .map(|(_, finding)| finding.streams[finding.top].name.clone())
    };
    assert_eq!(accuracy(0.84), Some("accuracy".to_owned()));
    assert_eq!(accuracy(0.9), None);
    // Worse by less than the margin of 2 %.
    assert_eq!(accuracy(0.885), None);
    assert_eq!(accuracy(0.95), None);
}

/// A past of two hours with that error rate.
fn past(dice: &mut Dice, requests: f64, rate: f64) -> Past {
    Service::steady(0.0, requests, rate).past(dice)
}

/// What the past lends, the smaller excess and the alarm leave the promise whole: a version
/// just at the margin is rolled back in at most `alpha` of all rollouts with 195 looks, at
/// every share, also where the rate that both arms have in common sways. A past that lends
/// more than such a rate can be known by breaks it at 95 %.
#[test]
fn at_the_margin_the_second_edition_keeps_to_alpha() {
    const RUNS: u32 = 400;
    const STEADY: (f64, f64) = (0.0, 0.0);
    const USUAL: (f64, f64) = (0.2, 0.8);
    const SLOW: (f64, f64) = (0.5, 0.95);
    for (share, requests, rate, sway) in [
        (0.25, 300.0, 0.01, USUAL),
        (0.25, 1_200.0, 0.01, SLOW),
        (0.5, 60.0, 0.02, STEADY),
        (0.5, 1_200.0, 0.01, SLOW),
        (0.95, 300.0, 0.01, USUAL),
        (0.95, 1_200.0, 0.01, SLOW),
    ] {
        let mut dice = Dice(11);
        let service = Service {
            sway,
            ..Service::steady(share, requests, rate)
        };
        let crossed = crossings(service, (RUNS, 195), &mut dice, |service, dice| {
            let known = service.past(dice);
            let mut errors = Stream::errors();
            errors.share = 1.0;
            let mut config = textbook(vec![errors]).second_edition();
            config.tasks = 400;
            Gate::new(&known, config, endless(share))
        });
        assert!(
            crossed <= RUNS / 100,
            "{share} {requests} {sway:?}: {crossed} of {RUNS}"
        );
    }
}

/// One catastrophic interval is an alarm; a second one decides, and a calm one ends it.
#[test]
fn an_alarm_is_decided_by_the_next_interval() {
    let after = |next: [(f64, f64); 2]| {
        let mut errors = Stream::errors();
        errors.share = 1.0;
        let mut gate = Gate::new(
            &Past::default(),
            textbook(vec![errors]).second_edition(),
            endless(0.05),
        );
        let calm = [(0.0, 60.0), (1.0, 1_140.0)];
        gate.look(&interval(0.05, &[calm]));
        let (alarm, finding) = gate.look(&interval(0.05, &[[(30.0, 60.0), (1.0, 1_140.0)]]));
        assert_eq!(alarm, Decision::Retreat, "{finding:?}");
        assert!(finding.log_evidence < finding.log_limit);
        gate.look(&interval(0.008, &[next])).0
    };
    let stable = (1.0, 1_190.0);
    assert_eq!(after([(4.0, 10.0), stable]), Decision::RollBack);
    assert_eq!(after([(0.0, 10.0), stable]), Decision::Stay);
    // Without a request of the candidate nothing is decided.
    assert_eq!(after([(0.0, 0.0), (0.0, 1_200.0)]), Decision::Retreat);
}

/// Errors of the first three intervals after a raise do not decide by themselves; errors
/// that last decide at the fourth.
#[test]
fn what_only_cold_tasks_do_decides_nothing() {
    let decided = |lasts: usize| {
        let mut dice = Dice(5);
        let known = past(&mut dice, 3_000.0, 0.001);
        let mut errors = Stream::errors();
        errors.share = 1.0;
        let mut gate = Gate::new(
            &known,
            textbook(vec![errors]).second_edition(),
            endless(0.05),
        );
        (0..20).find(|minute| {
            let bad = if *minute < lasts { 5.0 } else { 0.0 };
            let counts = [(bad, 150.0), (3.0, 2_850.0)];
            gate.look(&interval(0.05, &[counts])).0 == Decision::RollBack
        })
    };
    assert_eq!(decided(3), None);
    assert_eq!(decided(20), Some(3));
}

/// Without a past stable's own minutes tell that errors come in bursts; where they do not
/// count, a good version is taken back for the first bursts that it meets.
#[test]
fn bursts_without_a_past_are_no_fault() {
    let taken_back = |pairs_min: f64| {
        let mut dice = Dice(11);
        (0..400)
            .filter(|_| {
                let mut errors = Stream::errors();
                errors.share = 1.0;
                let config = Config {
                    pairs_min,
                    dispersion_prior: 1.3,
                    ..textbook(vec![errors]).second_edition()
                };
                let mut gate = Gate::new(&Past::default(), config, endless(0.25));
                (0..60).any(|_| {
                    // Each burst of twenty meets one arm alone.
                    let burst = |dice: &mut Dice, share| 20.0 * dice.poisson(0.6 * share);
                    let counts = [
                        (burst(&mut dice, 0.25), 300.0),
                        (burst(&mut dice, 0.75), 900.0),
                    ];
                    gate.look(&interval(0.25, &[counts])).0 == Decision::RollBack
                })
            })
            .count()
    };
    let (without, with) = (taken_back(0.0), taken_back(40.0));
    assert!(with <= 8 && without >= 4 * with, "{without} {with}");
}

/// One bad minute of both arms does not hide a fault that begins after it, whether there is a
/// past or not; without one it takes longer, because the minute may have been a burst.
#[test]
fn a_bad_minute_of_both_arms_hides_no_later_fault() {
    let found = |past: bool, rate: f64| {
        let mut dice = Dice(23);
        let known = match past {
            true => self::past(&mut dice, 1_200.0, 0.0),
            false => Past::default(),
        };
        let mut errors = Stream::errors();
        errors.share = 0.5;
        let config = Config {
            dispersion_prior: 1.3,
            ..textbook(vec![errors]).second_edition()
        };
        let mut gate = Gate::new(&known, config, endless(0.25));
        (0..90).position(|minute| {
            let bad = match minute {
                6 => [rate * 300.0, rate * 900.0],
                10.. => [dice.poisson(0.01 * 300.0), 0.0],
                _ => [0.0, 0.0],
            };
            let counts = [(bad[0], 300.0), (bad[1], 900.0)];
            gate.look(&interval(0.25, &[counts])).0 == Decision::RollBack
        })
    };
    for rate in [0.0, 0.02, 0.3, 1.0] {
        for past in [true, false] {
            let minute = found(past, rate).unwrap_or(usize::MAX);
            let latest = if past { 20 } else { 30 };
            assert!(
                (10..latest).contains(&minute),
                "{past} {rate}: minute {minute}"
            );
        }
    }
}

/// How many of a hundred rollouts go back within an hour, with the candidate's only task in
/// one of three zones, which fails a fifth of the requests of both arms from minute 10 on; the
/// candidate fails so many more (0-1). `control`: whether stable has tasks in that zone.
fn taken_back_in_a_bad_zone(split: bool, more: f64, control: bool) -> usize {
    let mut dice = Dice(31);
    let known = past(&mut dice, 1_900.0, 0.001);
    let mut taken_back = || {
        let mut errors = Stream::errors();
        errors.share = 1.0;
        let config = textbook(vec![errors]).second_edition();
        let mut gate = Gate::new(&known, config, endless(0.05));
        (0..60).any(|minute| {
            let bad = if minute < 10 { 0.001 } else { 0.2 };
            let stable = if control { 600.0 } else { 0.0 };
            let zones = [
                [
                    (dice.poisson(100.0 * (bad + more)), 100.0),
                    (dice.poisson(stable * bad), stable),
                ],
                [(0.0, 0.0), (dice.poisson(0.6), 600.0)],
                [(0.0, 0.0), (dice.poisson(0.6), 600.0)],
            ];
            let sum = |arm: usize| {
                let counts = zones.map(|zone| zone[arm]);
                counts
                    .into_iter()
                    .fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
            };
            let mut whole = interval(0.05, &[[sum(0), sum(1)]]);
            if split {
                whole.zones = zones.map(|zone| interval(0.05, &[zone]).seen).to_vec();
            }
            gate.look(&whole).0 == Decision::RollBack
        })
    };
    (0..100).filter(|_| taken_back()).count()
}

/// A zone that fails for both arms is not the fault of the one that has all of its tasks
/// there, and hides no fault of its own; without a control in that zone, the candidate is
/// compared with the others.
#[test]
fn a_zone_that_is_bad_for_both_arms_is_no_fault() {
    assert_eq!(
        taken_back_in_a_bad_zone(false, 0.0, true),
        100,
        "as a whole"
    );
    let good = taken_back_in_a_bad_zone(true, 0.0, true);
    assert!(good <= 2, "zone by zone: {good}");
    for (more, control) in [(0.1, true), (0.0, false)] {
        let found = taken_back_in_a_bad_zone(true, more, control);
        assert_eq!(found, 100, "{more} {control}");
    }
}

/// The memory, CPU and latency of 120 samples up some steps: values that hang together by this
/// much, in a day that raises both arms by up to half; the candidate's rise by `leak` a sample.
/// Which sample found a slope, looked for after each fifth.
fn slope_found(dice: &mut Dice, together: f64, leak: f64) -> Option<u32> {
    use analysis::slope::{Ceiling, Pair, rise};
    const DAY: f64 = std::f64::consts::TAU / 1_440.0;
    let (noon, peak) = (dice.uniform() * 1_440.0, 0.5 * dice.uniform());
    let kinds = [Ceiling::Reserved, Ceiling::Reserved, Ceiling::Double];
    let mut series = kinds.map(|ceiling| {
        let level = [20.0 + 50.0 * dice.uniform(), 20.0 + 50.0 * dice.uniform()];
        (ceiling, level, [dice.normal(), dice.normal()], vec![])
    });
    let ends = [12.0, 24.0, 44.0, 54.0];
    for minute in 0..120_u32 {
        let at = f64::from(minute);
        let stratum = ends.iter().filter(|end| at >= **end).count();
        let day = 1.0 + peak * ((at + noon) * DAY).sin();
        for (ceiling, level, noise, pairs) in &mut series {
            for one in &mut *noise {
                *one = together * *one + (1.0 - together * together).sqrt() * dice.normal();
            }
            #[expect(clippy::cast_precision_loss, reason = "a few steps")]
            let raised = 1.0 + 0.2 * stratum as f64;
            pairs.push(Pair {
                stratum,
                at,
                candidate: level[0] * day * raised + noise[0] + leak * at,
                stable: level[1] * day + noise[1],
            });
            if minute % 5 == 4 && rise(pairs, *ceiling).is_some() {
                return Some(minute);
            }
        }
    }
    None
}

/// What wanders is taken for a slope in about one of a hundred rollouts at most, and a leak is
/// found.
#[test]
fn a_leak_is_found_and_a_day_is_none() {
    const RUNS: u32 = 600;
    for together in [0.0, 0.5, 0.8] {
        let mut dice = Dice(19);
        let mut found = |runs: u32, leak: f64| {
            let hit = (0..runs).filter(|_| slope_found(&mut dice, together, leak).is_some());
            u32::try_from(hit.count()).expect("few")
        };
        keeps_to_alpha(found(RUNS, 0.0), RUNS, &format!("correlation {together}"));
        assert!(found(40, 0.5) >= 20, "correlation {together}");
    }
}

/// An outage of stable in a zone where the candidate has no tasks hides no fault of the
/// candidate elsewhere, though it looks better than stable as a whole.
#[test]
fn an_outage_in_another_zone_hides_no_fault() {
    let found = |split: bool| {
        let mut dice = Dice(41);
        let known = past(&mut dice, 9_500.0, 0.001);
        let mut errors = Stream::errors();
        errors.share = 1.0;
        let config = textbook(vec![errors]).second_edition();
        let mut gate = Gate::new(&known, config, endless(0.05));
        (0..60).any(|_| {
            let zones = [
                [(0.0, 0.0), (dice.poisson(700.0), 7_000.0)],
                [(dice.poisson(10.0), 500.0), (0.0, 2_500.0)],
            ];
            let sum = |arm: usize| {
                let [a, b] = zones.map(|zone| zone[arm]);
                (a.0 + b.0, a.1 + b.1)
            };
            let mut whole = interval(0.05, &[[sum(0), sum(1)]]);
            if split {
                whole.zones = zones.map(|zone| interval(0.05, &[zone]).seen).to_vec();
            }
            gate.look(&whole).0 == Decision::RollBack
        })
    };
    assert!(!found(false), "as a whole");
    assert!(found(true), "zone by zone");
}

//! The recorded runs of the reference implementation give the same decisions, and
//! the same evidence to 1e-9.

use analysis::{Calibration, Config, Counts, Decision, Gate, Interval, Past, Seen, Step, StepKind};
use serde::Deserialize;

const GOLDEN: &str = include_str!("fixtures/golden.json");

#[derive(Deserialize)]
struct Golden {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    name: String,
    tasks: u32,
    min_canary_tasks: u32,
    phi: Three,
    nu2: Three,
    phit: Three,
    sp: Three,
    sv: Three,
    history: Vec<Minute>,
    steps: Vec<Recorded>,
}

#[derive(Deserialize)]
struct Three {
    err: f64,
    slow: f64,
    tail: f64,
}

#[derive(Deserialize)]
struct Minute {
    zones: Vec<Arm>,
}

#[derive(Deserialize)]
struct Arm {
    n: f64,
    err: f64,
    slow: f64,
    tail: f64,
}

impl Arm {
    fn counts(&self) -> [Counts; 3] {
        [self.err, self.slow, self.tail].map(|bad| Counts::new(bad, self.n))
    }
}

#[derive(Deserialize)]
struct Recorded {
    interval: Recording,
    #[serde(rename = "logE")]
    log_e: f64,
    state: String,
    weight: f64,
    reason: String,
}

#[derive(Deserialize)]
struct Recording {
    weight: f64,
    missing: bool,
    stable: Arm,
    canary: Arm,
}

fn steps() -> Vec<Step> {
    let step = |share, kind, bake_min, bake_max| Step {
        share,
        kind,
        bake_min,
        bake_max,
        requests_min: [0.0; 2],
    };
    vec![
        step(0.05, StepKind::Ramp, 5, 12),
        step(0.25, StepKind::Ramp, 5, 12),
        step(0.50, StepKind::Ramp, 5, 20),
        step(0.95, StepKind::Holdback, 10, 12),
    ]
}

impl Run {
    fn past(&self) -> Past {
        let zones = |m: &Minute| m.zones.iter().map(|z| z.counts().to_vec()).collect();
        Past {
            intervals: self.history.iter().map(zones).collect(),
        }
    }
}

impl Recording {
    fn seen(&self) -> Interval {
        let (canary, stable) = (self.canary.counts(), self.stable.counts());
        let seen = (0..3).map(|i| Seen::Counts {
            candidate: canary[i],
            stable: stable[i],
        });
        Interval::whole(self.weight, seen.collect())
    }
}

fn close(what: &str, a: f64, b: f64) {
    assert!(
        (a - b).abs() <= 1e-9 * b.abs().max(1.0),
        "{what}: {a} is not {b}"
    );
}

#[test]
fn the_reference_is_reproduced() {
    let golden: Golden = serde_json::from_str(GOLDEN).expect("the fixture");
    assert_eq!(golden.runs.len(), 8);
    for run in golden.runs {
        let past = run.past();
        let config = Config {
            tasks: run.tasks,
            candidate_tasks_min: run.min_canary_tasks,
            ..Config::default()
        };
        let calibration = Calibration::of(&past, &config);
        let of = |t: &Three| [t.err, t.slow, t.tail];
        for (at, spread) in calibration.spreads.iter().enumerate() {
            let name = &run.name;
            close(
                &format!("{name} phi {at}"),
                spread.dispersion,
                of(&run.phi)[at],
            );
            close(&format!("{name} nu2 {at}"), spread.drift, of(&run.nu2)[at]);
            close(
                &format!("{name} phit {at}"),
                spread.total_dispersion,
                of(&run.phit)[at],
            );
            close(&format!("{name} sp {at}"), spread.between, of(&run.sp)[at]);
            close(&format!("{name} sv {at}"), spread.within, of(&run.sv)[at]);
        }
        let mut gate = Gate::new(&past, config, steps());
        let (mut state, mut reason, mut log_e) = ("running", String::new(), 0.0);
        for (minute, recorded) in run.steps.iter().enumerate() {
            let here = format!("{} minute {minute}", run.name);
            if !recorded.interval.missing {
                let (decision, finding) = gate.look(&recorded.interval.seen());
                log_e = finding.log_evidence;
                match decision {
                    Decision::RollBack => {
                        state = "rolled_back";
                        reason = ["err", "slow", "tail"][finding.top].to_owned();
                    }
                    Decision::GiveUp => (state, reason) = ("rolled_back", "hold".to_owned()),
                    Decision::Advance if gate.step().is_none() => state = "promoted",
                    _ => {}
                }
            }
            close(&here, log_e, recorded.log_e);
            assert_eq!(
                (state, &reason),
                (recorded.state.as_str(), &recorded.reason),
                "{here}"
            );
            let share = match state {
                "rolled_back" => 0.0,
                "promoted" => 1.0,
                _ => gate.step().expect("a step").share,
            };
            close(&here, share, recorded.weight);
        }
        assert_ne!(state, "running", "{} ends", run.name);
    }
}

/// The runs in which the second edition decides in another minute than the first, both
/// minutes, and why. A recording ends with the first edition's decision; what follows is like
/// its last minute.
const SECOND: [(&str, usize, usize, &str); 2] = [
    (
        "bad-med+5",
        2,
        3,
        "errors of the first three minutes after a raise may be those of cold tasks",
    ),
    (
        "bad-low+50",
        5,
        6,
        "a catastrophic minute takes the share back, and the next one decides",
    ),
];

#[test]
fn the_second_edition_differs_where_it_says_why() {
    let golden: Golden = serde_json::from_str(GOLDEN).expect("the fixture");
    let taken_back = |run: &Run, config: Config| {
        let past = run.past();
        let mut gate = Gate::new(&past, config, steps());
        let last = run.steps.last().into_iter().cycle().take(5);
        run.steps.iter().chain(last).position(|recorded| {
            if recorded.interval.missing {
                return false;
            }
            gate.look(&recorded.interval.seen()).0 == Decision::RollBack
        })
    };
    for run in &golden.runs {
        let config = Config {
            tasks: run.tasks,
            candidate_tasks_min: run.min_canary_tasks,
            ..Config::default()
        };
        let first = taken_back(run, config.clone());
        let second = taken_back(run, config.second_edition());
        match SECOND.iter().find(|(name, ..)| *name == run.name) {
            Some((_, before, now, why)) => {
                assert_eq!((first, second), (Some(*before), Some(*now)), "{why}");
            }
            None => assert_eq!(first, second, "{}", run.name),
        }
    }
}

//! The native cost of one look of the gate: `make bench-gating`.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::hint::black_box;
use std::time::Instant;

use analysis::{Config, Counts, Gate, Interval, Past, Seen, Step, StepKind};

const LOOKS: u32 = 20_000;

fn main() {
    let zone = [1.0, 100.0, 10.0].map(|bad| Counts::new(bad, 1_000.0));
    let past = Past {
        intervals: vec![vec![zone.to_vec(); 3]; 120],
    };
    let step = Step {
        share: 0.05,
        kind: StepKind::Ramp,
        bake_min: u32::MAX,
        bake_max: u32::MAX,
        requests_min: [0.0; 2],
    };
    let begun = Instant::now();
    let mut gate = Gate::new(black_box(&past), Config::default(), vec![step]);
    let calibration = begun.elapsed();
    let seen = [1.0, 100.0, 10.0].map(|bad| Seen::Counts {
        candidate: Counts::new((bad / 20.0_f64).round(), 60.0),
        stable: Counts::new(bad, 1_140.0),
    });
    let interval = Interval::whole(0.05, seen.to_vec());
    let begun = Instant::now();
    for _ in 0..LOOKS {
        black_box(gate.look(black_box(&interval)));
    }
    let look = begun.elapsed() / LOOKS;
    println!(
        "gate, native: one look {look:?}, calibration from 120 intervals of 3 zones {calibration:?}"
    );
}

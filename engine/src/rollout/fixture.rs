//! The first entry of a rollout, for tests and benches alike: they include this file
//! (`tests/it/support`, `benches/engine.rs`), and change what matters to them.

use engine::journal::{FORMAT, Header, Pin, Work};
use engine::model::limits::Guardrails;
use engine::model::target::TargetSpec;
use engine::model::{Arm, Promotion, Role, Weights};
use serde_json::{Value, json};

/// A rollout on a simulated target whose stable arm has all traffic.
pub fn header() -> Header {
    let arm = |name: &str, role, version: &str| Arm {
        name: name.to_owned(),
        role,
        version: version.to_owned(),
    };
    Header {
        format: FORMAT,
        rollout: "test-1".to_owned(),
        created: 1_000_000,
        engine: "test".to_owned(),
        file: None,
        target: TargetSpec::Simulated {
            name: "sim".to_owned(),
        },
        identity: "sim".to_owned(),
        sample_period_ms: 1_000,
        arms: vec![
            arm("stable", Role::Stable, "v1"),
            arm("canary", Role::Candidate, "v2"),
        ],
        baseline: Weights::of([("stable", 100), ("canary", 0)]),
        stable: None,
        running: vec![],
        candidate: None,
        digest: None,
        repeats: vec![],
        promotion: Promotion::Swap,
        capacity: None,
        scaling: vec![],
        guardrails: Guardrails::default(),
        probes: vec![],
        queries: vec![],
        caps: <_>::default(),
        work: strategy(json!({})),
    }
}

/// A strategy with these parameters.
pub fn strategy(parameters: Value) -> Work {
    Work::Strategy(Pin {
        sha256: "test".to_owned(),
        name: "test".to_owned(),
        version: "0".to_owned(),
        source: "test".to_owned(),
        world: "test".to_owned(),
        parameters,
        seed: "2a".to_owned(),
        steps: vec![],
    })
}

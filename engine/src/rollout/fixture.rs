//! A header for unit tests.

use serde_json::json;

use crate::journal::{FORMAT, Header, Pin, Work};
use crate::model::limits::Guardrails;
use crate::model::target::TargetSpec;
use crate::model::{Arm, Promotion, Role, Weights};

pub(crate) fn header() -> Header {
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
        candidate: None,
        promotion: Promotion::Swap,
        capacity: None,
        guardrails: Guardrails::default(),
        probes: vec![],
        queries: vec![],
        caps: <_>::default(),
        work: Work::Strategy(Pin {
            sha256: "00".to_owned(),
            name: "test".to_owned(),
            version: "0".to_owned(),
            source: "test".to_owned(),
            world: "test".to_owned(),
            parameters: json!({}),
            seed: "00".to_owned(),
        }),
    }
}

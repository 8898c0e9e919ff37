//! Whatever the target replies, weights stay valid and the end is a verdict or
//! a pause.

use engine::model::{End, ErrorKind, HostError};
use engine::rollout::Standing;
use engine::simulate::{Behaviour, Fault};
use proptest::prelude::*;
use serde_json::json;

use crate::support::guests;
use crate::support::lab::Lab;

fn fault() -> impl Strategy<Value = Fault> {
    let error = (any::<bool>(), 0..3_u8).prop_map(|(retryable, kind)| {
        let kind = match kind {
            0 => ErrorKind::Throttled,
            1 => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        };
        HostError {
            retryable,
            ..HostError::new(kind, "chance", "by chance")
        }
    });
    prop_oneof![
        error.clone().prop_map(Fault::WriteRefused),
        Just(Fault::AnswerLost),
        Just(Fault::WriteIgnored),
        error.clone().prop_map(Fault::ObserveFails),
        error.prop_map(Fault::MetricsFail),
    ]
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    (0.0..200.0_f64, 0.0..0.3_f64, 0.0..0.3_f64, 5.0..500.0_f64).prop_map(|(rps, a, b, ms)| {
        Behaviour {
            rps,
            error_rate: [a, b],
            latency_ms: [20.0, ms],
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ends_well(
        faults in proptest::collection::vec(fault(), 0..12),
        behaviour in behaviour(),
        sick in any::<bool>(),
        colours in any::<bool>(),
        chaos in any::<bool>(),
        foreign in proptest::option::of((0_u32..100, 1_u32..100)),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let name = if colours { "blue-green" } else { "canary" };
            let mut lab = Lab::new(guests::plugin(name).await, behaviour, json!({"bake": "4s"}));
            lab.header.guardrails.deadline_ms = 40_000;
            lab.options.chaos_evict = chaos;
            lab.target.inject(faults.clone());
            if sick {
                lab.target.meddle(|o| o.arms[1].healthy = 0);
            }
            lab.driver().begin(lab.header.clone()).await.expect("begins");
            if let Some((a, b)) = foreign {
                lab.target.meddle(|o| (o.arms[0].weight, o.arms[1].weight) = (a, b));
            }
            let standing = lab.go_on().await;
            let live = lab.target.peek();
            let weights = live.weights();
            assert!(weights.ordered_as(&live.names()).is_ok(), "{weights}");
            match &standing {
                Standing::Over(End::Promoted, _) => assert_eq!(weights.share("canary"), 100.0),
                Standing::Over(End::RolledBack, _) => assert_eq!(weights.share("stable"), 100.0),
                Standing::Over(End::RollbackFailed, reason) => assert!(!reason.is_empty()),
                Standing::Held(hold) => assert!(!hold.to_string().is_empty()),
                other => panic!("{other:?} is no end"),
            }
            // A person can always take it back once the target answers again.
            if !matches!(standing, Standing::Over(..)) {
                lab.target.clear_faults();
                lab.signal("abort", "").await;
                let standing = lab.go_on().await;
                assert!(matches!(standing, Standing::Over(End::RolledBack, _)), "{standing:?}");
                assert_eq!(lab.target.peek().weights().share("stable"), 100.0);
            }
        });
    }
}

//! Commands of people: obeyed in every phase, consumed once.

use std::sync::Arc;

use engine::clock::Clock;
use engine::journal::{Call, Event, Reply};
use engine::model::{End, Hold, Outcome, Phase, Signal, Verdict, Wake};
use engine::rollout::{Ran, Standing};
use engine::store::Schedule as _;
use serde_json::json;

use crate::support::guests;
use crate::support::lab::{self, ID, Lab, Scripted};

/// A canary that waits an hour before each step, so that the driver parks.
async fn slow() -> Lab {
    let parameters = json!({"gate": "limits", "steps": [50, 100], "approve-before": [50, 100], "bake": "3s", "approval-timeout": "1h"});
    let lab = Lab::new(guests::plugin("canary").await, lab::good(), parameters);
    lab.driver()
        .begin(lab.header.clone())
        .await
        .expect("begins");
    lab
}

#[tokio::test]
async fn an_approval_wakes_and_a_missing_one_pauses() {
    let lab = slow().await;
    let parked = lab.driver().drive(ID).await.expect("works");
    assert_eq!(parked, Standing::Parked(lab::START + 3_600_000));
    assert_eq!(lab.status().await.phase, Phase::Progressing);
    assert!(lab.status().await.waiting.is_some());
    lab.signal("approve", "").await;
    assert!(matches!(
        lab.driver().drive(ID).await.expect("works"),
        Standing::Parked(_)
    ));
    assert_eq!(lab.target.verbs(), ["set-weights stable=50 canary=50"]);
    // Nobody approves the second step.
    let Standing::Held(Hold::Inconclusive { reason }) = lab.go_on().await else {
        panic!("it must ask a person");
    };
    assert!(reason.contains("nobody approved step 2/2"), "{reason}");
}

#[tokio::test]
async fn abort_wins_while_parked_paused_or_diverged() {
    for before in ["", "pause"] {
        let lab = slow().await;
        lab.signal("approve", "").await;
        lab.driver().drive(ID).await.expect("works");
        if !before.is_empty() {
            lab.signal(before, "").await;
            lab.driver().drive(ID).await.expect("works");
        }
        lab.signal("abort", "smells bad").await;
        let standing = lab.go_on().await;
        assert_eq!(
            standing,
            Standing::Over(End::RolledBack, "aborted by ada: smells bad".to_owned())
        );
        assert_eq!(lab.target.peek().weights().share("stable"), 100.0);
    }
}

#[tokio::test]
async fn pause_holds_and_resume_goes_on() {
    let lab = slow().await;
    lab.signal("pause", "").await;
    assert_eq!(
        lab.go_on().await,
        Standing::Held(Hold::Asked {
            actor: "ada".to_owned()
        })
    );
    // Time passes, approvals come; nothing moves.
    lab.signal("approve", "").await;
    assert!(matches!(lab.go_on().await, Standing::Held(_)));
    assert!(lab.target.verbs().is_empty());
    lab.signal("resume", "").await;
    lab.driver().drive(ID).await.expect("works");
    assert_eq!(lab.target.verbs().len(), 1);
}

#[tokio::test]
async fn promote_ends_a_wait_and_full_ends_everything() {
    let lab = slow().await;
    lab.driver().drive(ID).await.expect("works");
    lab.signal("promote", "").await;
    lab.driver().drive(ID).await.expect("works");
    assert_eq!(lab.target.verbs(), ["set-weights stable=50 canary=50"]);
    lab.signal("promote-full", "").await;
    let standing = lab.go_on().await;
    assert_eq!(
        standing,
        Standing::Over(End::Promoted, "promoted in full by ada".to_owned())
    );
    assert_eq!(lab.target.peek().weights().share("canary"), 100.0);
}

#[tokio::test]
async fn a_command_that_makes_no_sense_cannot_surprise_later() {
    let lab = slow().await;
    lab.signal("resume", "").await;
    lab.driver().drive(ID).await.expect("works");
    lab.signal("pause", "").await;
    // The early resume was ignored; it does not undo this pause.
    assert!(matches!(lab.go_on().await, Standing::Held(_)));
    let ignored = lab
        .journal()
        .await
        .iter()
        .any(|e| matches!(&e.event, Event::Ignored { name, .. } if name == "resume"));
    assert!(ignored);
}

#[tokio::test]
async fn a_signal_counts_once() {
    let lab = slow().await;
    let signal = Signal {
        id: "same".to_owned(),
        name: "approve".to_owned(),
        actor: "ada".to_owned(),
        payload: String::new(),
        until: None,
    };
    assert!(lab.store.signal(ID, &signal).await.expect("memory"));
    assert!(!lab.store.signal(ID, &signal).await.expect("memory"));
    lab.driver().drive(ID).await.expect("works");
    // The second step still waits.
    assert_eq!(lab.target.verbs().len(), 1);
    assert!(lab.status().await.waiting.is_some());
}

#[tokio::test]
async fn a_strategy_that_does_not_repeat_itself_is_held_and_explained() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let fickle = Scripted(
        |calls: Arc<dyn engine::rollout::session::Calls>| async move {
            let first = RUNS.fetch_add(1, Ordering::SeqCst) == 0;
            let call = if first {
                Call::GetHealth
            } else {
                Call::GetWeights
            };
            if calls.perform(call).await.is_err() {
                return Ran::Interrupted;
            }
            let wait = Call::Wait {
                seconds: 3_600,
                signals: vec![],
            };
            match calls.perform(wait).await {
                Ok(_) => Ran::Returned(Ok(Outcome {
                    verdict: Verdict::Promoted,
                    reason: "done".to_owned(),
                })),
                Err(_) => Ran::Interrupted,
            }
        },
    );
    let lab = Lab::new(Arc::new(fickle), lab::good(), json!({}));
    let Standing::Diverged(mismatch) = lab.run().await else {
        panic!("it asked something else");
    };
    let text = mismatch.to_string();
    assert!(
        text.contains("get-health") && text.contains("get-weights"),
        "{text}"
    );
    assert_eq!(lab.status().await.phase, Phase::Diverged);
    assert!(lab.target.verbs().is_empty());
    lab.signal("abort", "").await;
    assert!(matches!(
        lab.go_on().await,
        Standing::Over(End::RolledBack, _)
    ));
}

#[tokio::test]
async fn a_strategy_that_returns_early_diverges_too() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let early = Scripted(
        |calls: Arc<dyn engine::rollout::session::Calls>| async move {
            if RUNS.fetch_add(1, Ordering::SeqCst) == 0 {
                let wait = Call::Wait {
                    seconds: 3_600,
                    signals: vec![],
                };
                if calls.perform(wait).await.is_err() {
                    return Ran::Interrupted;
                }
            }
            Ran::Returned(Ok(Outcome {
                verdict: Verdict::Promoted,
                reason: "too soon".to_owned(),
            }))
        },
    );
    let lab = Lab::new(Arc::new(early), lab::good(), json!({}));
    let Standing::Diverged(mismatch) = lab.run().await else {
        panic!("it left a call over");
    };
    assert_eq!(mismatch.asked, None);
    assert!(lab.target.verbs().is_empty());
}

#[tokio::test]
async fn an_overdue_wait_fires_at_once() {
    let lab = slow().await;
    lab.driver().drive(ID).await.expect("works");
    lab.clock.sleep_until(lab::START + 10 * 3_600_000).await;
    let before = lab.clock.now();
    lab.driver().drive(ID).await.expect("works");
    assert_eq!(lab.clock.now(), before, "no further wait");
    let woke = lab.journal().await.iter().any(|e| {
        matches!(
            &e.event,
            Event::Answered {
                reply: Reply::Woke(Wake::Timer),
                ..
            }
        )
    });
    assert!(woke);
}

#[tokio::test]
async fn a_command_for_an_earlier_wait_does_not_end_the_next_one() {
    let lab = slow().await;
    lab.driver().drive(ID).await.expect("works");
    let until = lab.status().await.waiting.expect("it waits").until;
    let late = Signal {
        id: "late".to_owned(),
        name: "approve".to_owned(),
        actor: "ada".to_owned(),
        payload: String::new(),
        until: Some(until - 1),
    };
    lab.store.signal(ID, &late).await.expect("memory");
    lab.driver().drive(ID).await.expect("works");
    assert!(lab.target.verbs().is_empty());
    assert_eq!(
        lab.status().await.waiting.expect("it still waits").until,
        until
    );
}

/// A strategy may name the arms in any order.
#[tokio::test]
async fn the_order_of_names_is_no_foreign_change() {
    let backwards = Scripted(
        |calls: Arc<dyn engine::rollout::session::Calls>| async move {
            for share in [10, 50] {
                let pairs = [("canary", share), ("stable", 100 - share)];
                let weights = engine::model::Weights::of(pairs);
                if calls.perform(Call::SetWeights { weights }).await.is_err() {
                    return Ran::Interrupted;
                }
            }
            Ran::Returned(Ok(Outcome {
                verdict: Verdict::Promoted,
                reason: "backwards".to_owned(),
            }))
        },
    );
    let lab = Lab::new(Arc::new(backwards), lab::good(), json!({}));
    let standing = lab.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
}

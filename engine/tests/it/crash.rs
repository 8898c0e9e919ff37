//! A crash at any point, then a resume, gives the end of an undisturbed run.

use std::sync::Arc;

use engine::clock::Clock;
use engine::journal::status::Status;
use engine::journal::{Call, Entry, Event, Reply, StackVerb, Work};
use engine::model::limits::BeforeBake;
use engine::model::{End, Outcome, Phase, Promotion, Verdict, Weights};
use engine::rollout::change::{GivenBack, Heard};
use engine::rollout::{Ran, Standing};
use engine::target::Target;
use serde_json::json;

use crate::support::guests;
use crate::support::lab::{self, ID, Lab};

/// What must be equal at the end.
#[derive(Debug, PartialEq)]
struct Ending {
    end: Option<End>,
    weights: Weights,
    versions: Vec<String>,
    /// The writes that happened, in order.
    writes: Vec<Call>,
}

async fn ending(lab: &Lab, standing: &Standing) -> Ending {
    let live = lab.target.peek();
    let journal = lab.journal().await;
    Ending {
        end: match standing {
            Standing::Over(end, _) => Some(*end),
            _ => None,
        },
        weights: live.weights(),
        versions: live
            .arms
            .iter()
            .map(|a| a.release.version.clone())
            .collect(),
        writes: journal
            .iter()
            .filter_map(|e| match &e.event {
                Event::Asked { call, .. } if call.is_write() && done(&journal, e.seq) => {
                    Some(call.clone())
                }
                _ => None,
            })
            .collect(),
    }
}

/// Whether the write of that entry is known to have happened.
fn done(journal: &[Entry], seq: u32) -> bool {
    journal
        .iter()
        .any(|e| matches!(&e.event, Event::Answered { of, reply: Reply::Done, .. } if *of == seq))
}

/// Repeats what a journal's writes did to the target, at their times.
async fn relive(lab: &Lab, entries: &[Entry], open_write_happened: bool) {
    for (index, entry) in entries.iter().enumerate() {
        lab.clock.sleep_until(entry.at).await;
        let Event::Asked { call, .. } = &entry.event else {
            continue;
        };
        if index + 1 == entries.len() && !open_write_happened {
            continue;
        }
        let before = lab.target.peek().weights();
        match call {
            Call::SetVersion { arm, release } => {
                lab.target
                    .set_version(arm, release)
                    .await
                    .expect("simulated");
            }
            Call::Restore { action, .. } => {
                lab.target.restore(action).await.expect("simulated");
            }
            call => {
                if let Some(weights) = call.weights_after(&before) {
                    lab.target.set_weights(&weights).await.expect("simulated");
                }
            }
        }
    }
}

/// For every prefix of a finished journal: plant it, resume, compare.
async fn every_prefix(make: impl AsyncFn() -> Lab) {
    let lab = make().await;
    let standing = lab.run().await;
    let expected = ending(&lab, &standing).await;
    let journal = lab.journal().await;
    assert!(journal.len() > 5, "a real rollout: {}", journal.len());
    for length in 1..=journal.len() {
        let prefix = &journal[..length];
        let open =
            matches!(&prefix[length - 1].event, Event::Asked { call, .. } if call.is_write());
        for happened in if open { vec![false, true] } else { vec![false] } {
            let lab = make().await;
            relive(&lab, prefix, happened).await;
            lab.store.plant(ID, prefix.to_vec());
            let standing = lab.go_on().await;
            let found = ending(&lab, &standing).await;
            assert_eq!(
                found, expected,
                "after entry {length}, open write happened: {happened}"
            );
        }
    }
}

#[tokio::test]
async fn canary_promoted() {
    every_prefix(async || Lab::new(guests::plugin("canary").await, lab::good(), lab::quick()))
        .await;
}

#[tokio::test]
async fn canary_promoted_by_copy() {
    every_prefix(async || {
        let mut lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
        lab.header.promotion = Promotion::Copy;
        lab
    })
    .await;
}

/// A strategy that takes the share back in the middle, looks, and gives it again, under
/// guardrails by which that climb would be too large and too early. What comes after it is
/// baked anew.
fn retreating() -> Lab {
    let strategy = lab::Scripted(
        |calls: Arc<dyn engine::rollout::session::Calls>| async move {
            for (share, seconds) in [(20, 60), (40, 2), (0, 2), (40, 60), (60, 2), (80, 2)] {
                let weights = Weights::of([("stable", 100 - share), ("canary", share)]);
                let wait = Call::Wait {
                    seconds,
                    signals: vec![],
                };
                for call in [Call::SetWeights { weights }, wait] {
                    match calls.perform(call).await {
                        Err(_) => return Ran::Interrupted,
                        Ok(Reply::Failed(error)) => return Ran::Returned(Err(error.to_string())),
                        Ok(_) => {}
                    }
                }
            }
            Ran::Returned(Ok(Outcome {
                verdict: Verdict::Promoted,
                reason: "it was nothing".to_owned(),
            }))
        },
    );
    let mut lab = Lab::new(Arc::new(strategy), lab::good(), json!({}));
    lab.header.guardrails.largest_step = 25.0;
    lab.header.guardrails.before_bake = Some(BeforeBake {
        share: 30.0,
        bake_ms: 60_000,
    });
    lab
}

#[tokio::test]
async fn a_retreat_in_the_middle() {
    every_prefix(async || retreating()).await;
    let lab = retreating();
    let standing = lab.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let journal = lab.journal().await;
    let mut phases = vec![];
    for length in 1..=journal.len() {
        let phase = Status::of(&journal[..length]).expect("a header").phase;
        if phases.last() != Some(&phase) {
            phases.push(phase);
        }
    }
    let at = phases.iter().position(|phase| *phase == Phase::Retreated);
    let at = at.unwrap_or_else(|| panic!("{phases:?}"));
    assert_eq!(phases[at - 1], Phase::Progressing);
    assert_eq!(phases[at + 1], Phase::Progressing);
    let picture = engine::plot::journal::rollout(&journal).expect("a header");
    let retreats = picture
        .decisions
        .iter()
        .filter(|decision| decision.text == "retreats to 0 %");
    assert_eq!(retreats.count(), 1);
}

/// A person undoes a promotion: no strategy runs.
fn undo(names: [&str; 2], promotion: Promotion) -> Lab {
    let nobody = lab::Scripted(|_| async { Ran::Trapped("nobody asked".to_owned()) });
    let mut lab = Lab::named(names, Arc::new(nobody), lab::good(), json!({}));
    lab.header.work = Work::Undo {
        of: "canary-1".to_owned(),
        actor: "ada".to_owned(),
    };
    lab.header.promotion = promotion;
    lab.header.probes.clear();
    lab.header.guardrails.final_bake_ms = 0;
    let old = engine::model::Release {
        version: "v0".to_owned(),
        source: engine::model::Source::Demo(<_>::default()),
    };
    lab.header.arms[1].version.clone_from(&old.version);
    lab.header.candidate = Some(old);
    lab
}

#[tokio::test]
async fn a_promotion_undone_by_copy() {
    every_prefix(async || undo(["stable", "canary"], Promotion::Copy)).await;
}

#[tokio::test]
async fn a_promotion_undone_by_swap() {
    every_prefix(async || undo(["blue", "green"], Promotion::Swap)).await;
}

#[tokio::test]
async fn canary_rolled_back() {
    every_prefix(async || Lab::new(guests::plugin("canary").await, lab::bad(), lab::quick())).await;
}

async fn blue_green(behaviour: engine::simulate::Behaviour) -> Lab {
    let plugin = guests::plugin("blue-green").await;
    Lab::named(["blue", "green"], plugin, behaviour, json!({"bake": "5s"}))
}

#[tokio::test]
async fn blue_green_promoted() {
    every_prefix(async || blue_green(lab::good()).await).await;
}

#[tokio::test]
async fn blue_green_rolled_back() {
    every_prefix(async || blue_green(lab::bad()).await).await;
}

#[tokio::test]
async fn a_trap_with_traffic_out_there() {
    every_prefix(async || {
        let plugin = guests::plugin("hostile").await;
        let mut lab = Lab::new(plugin, lab::good(), json!({"act": "trap-at-half"}));
        lab.header.promotion = Promotion::Copy;
        lab
    })
    .await;
}

/// Evicted at every call, a rollout takes the same calls to the same end.
#[tokio::test]
async fn eviction_at_every_call_makes_no_difference() {
    for (name, behaviour) in [
        ("canary", lab::good()),
        ("canary", lab::bad()),
        ("blue-green", lab::good()),
        ("blue-green", lab::bad()),
    ] {
        let mut endings = vec![];
        for chaos in [false, true] {
            let mut lab = Lab::new(guests::plugin(name).await, behaviour, json!({"bake": "5s"}));
            lab.options.chaos_evict = chaos;
            let standing = lab.run().await;
            let calls: Vec<Event> = lab
                .journal()
                .await
                .into_iter()
                .skip(1)
                .map(|e| e.event)
                .collect();
            endings.push((ending(&lab, &standing).await, calls));
        }
        assert_eq!(endings[0], endings[1], "{name}");
    }
}

/// Where a journal has the intent of its first write.
fn first_write(journal: &[Entry]) -> usize {
    let mut entries = journal.iter();
    entries
        .position(|e| matches!(&e.event, Event::Asked { call, .. } if call.is_write()))
        .expect("there is a write")
}

/// Somebody else writes while a write is in doubt: nobody guesses.
#[tokio::test]
async fn a_conflict_over_an_open_write_holds() {
    let lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
    lab.run().await;
    let journal = lab.journal().await;
    let write = first_write(&journal);
    let lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
    lab.store.plant(ID, journal[..=write].to_vec());
    lab.target
        .meddle(|o| (o.arms[0].weight, o.arms[1].weight) = (33, 66));
    let Standing::Held(hold) = lab.go_on().await else {
        panic!("it must hold");
    };
    assert!(hold.to_string().contains("somebody else"), "{hold}");
    assert!(lab.target.verbs().is_empty());
    // The way back is never blocked.
    lab.signal("abort", "").await;
    assert!(matches!(
        lab.go_on().await,
        Standing::Over(End::RolledBack, _)
    ));
}

/// It may have had its effect, and somebody may have taken that back since.
#[tokio::test]
async fn a_raise_that_was_lost_long_ago_is_not_sent_again_by_itself() {
    let lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
    lab.run().await;
    let journal = lab.journal().await;
    let write = first_write(&journal);
    for (minutes, again) in [(0, true), (5, false)] {
        let lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
        lab.store.plant(ID, journal[..=write].to_vec());
        let then = journal[write].at + minutes * 60_000;
        lab.clock.sleep_until(then).await;
        let standing = lab.go_on().await;
        if again {
            assert!(matches!(standing, Standing::Over(End::Promoted, _)));
            continue;
        }
        let Standing::Held(hold) = standing else {
            panic!("it must hold: {standing:?}");
        };
        assert!(hold.to_string().contains("5m ago"), "{hold}");
        assert!(lab.target.verbs().is_empty());
        lab.signal("resume", "").await;
        let standing = lab.go_on().await;
        assert!(
            matches!(standing, Standing::Over(End::Promoted, _)),
            "{standing:?}"
        );
    }
}

/// A process that lost its lease writes nothing, neither journal nor target.
#[tokio::test]
async fn a_fenced_process_stops_before_its_write() {
    use engine::store::{Claim, Durability, Journals as _, StoreError};
    let lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
    lab.driver()
        .begin(lab.header.clone())
        .await
        .expect("begins");
    let claim = |pid| engine::store::Owner {
        pid,
        ..lab::owner()
    };
    let (a, b) = (claim(10), claim(11));
    let ask = |owner| Claim {
        target: "sim",
        also: &[],
        rollout: ID,
        owner,
        now: lab.clock.now() + 10_000_000,
        ttl_ms: 0,
        dead_epoch: None,
    };
    let old = lab.store.claim(ask(&a)).await.expect("expired");
    let new = lab.store.claim(ask(&b)).await.expect("expired too");
    assert!(new.epoch > old.epoch);
    let journal = lab.journal().await;
    let summary = engine::journal::summary::Summary::of_journal(&journal).expect("it has begun");
    let error = lab
        .store
        .append(&old, vec![], &summary, Durability::Power)
        .await
        .expect_err("fenced");
    assert!(matches!(error, StoreError::Fenced { .. }));
}

/// What died before it left is not sent any more once people want to go back.
#[tokio::test]
async fn an_abort_does_not_send_what_was_in_doubt() {
    let lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
    lab.run().await;
    let journal = lab.journal().await;
    let write = first_write(&journal);
    let lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
    lab.store.plant(ID, journal[..=write].to_vec());
    lab.signal("abort", "").await;
    assert!(matches!(
        lab.go_on().await,
        Standing::Over(End::RolledBack, _)
    ));
    assert!(lab.target.verbs().is_empty(), "{:?}", lab.target.verbs());
}

/// What a stack does to the traffic in these tests.
fn stack_moves_it(lab: &Lab) {
    lab.target.meddle(|o| {
        (o.arms[0].weight, o.arms[1].weight) = (40, 60);
        o.sticky = false;
    });
}

/// A change of a stack on a sticky target: a person may take the traffic back, and
/// the stack moves it.
async fn change(lab: &Lab, rollback: bool) -> Vec<Entry> {
    let driver = lab.driver();
    let begun = driver.begin_change(lab.header.clone(), lab.target.clone());
    let mut changing = begun.await.expect("it begins");
    let whole = json!({"weights": lab.target.peek().weights(), "sticky": true, "address": lab.target.peek().address});
    if rollback {
        lab.signal("rollback", "canary").await;
        let heard = changing.attend().await.expect("the store works");
        assert!(matches!(&heard[..], [Heard::TookBack { to, .. }] if to == "canary"));
    }
    stack_moves_it(lab);
    let given = changing.give_back(Some(&whole)).await.expect("readable");
    assert!(matches!(given, GivenBack::Back { .. }), "{given:?}");
    changing
        .end(End::Done, "deploy: done".to_owned())
        .await
        .expect("it ends");
    lab.journal().await
}

fn change_lab() -> Lab {
    let idle = lab::Scripted(async |_| Ran::Trapped("no strategy runs here".to_owned()));
    let mut lab = Lab::new(Arc::new(idle), lab::good(), json!({}));
    lab.target.meddle(|o| o.sticky = true);
    lab.header.work = Work::StackChange {
        stack: "shop".to_owned(),
        change: StackVerb::Deploy,
        actor: "ada".to_owned(),
        accepts: false,
    };
    lab
}

/// Whoever goes on with a change of a stack whose process died leaves no write in
/// doubt, says where it has read the traffic, and ends.
async fn every_prefix_of_a_change(rollback: bool) {
    let lab = change_lab();
    let journal = change(&lab, rollback).await;
    let expected = lab.target.peek();
    let home = if rollback { "canary" } else { "stable" };
    assert_eq!(expected.weights().share(home), 100.0);
    assert_eq!(
        expected.sticky, !rollback,
        "the whole action, or a person's"
    );
    let writes = journal.iter().filter(|e| is_intent(e)).count();
    assert_eq!(writes, if rollback { 2 } else { 1 });
    let last_intent = journal.iter().rposition(is_intent).expect("a write");
    for length in 1..=journal.len() {
        let prefix = &journal[..length];
        let open = is_intent(&prefix[length - 1]);
        for happened in if open { vec![false, true] } else { vec![false] } {
            let at = format!("after entry {length}, open write happened: {happened}");
            let lab = change_lab();
            relive(&lab, &prefix[..length - 1], true).await;
            // The stack had moved the traffic before it was to be given back.
            if length > last_intent {
                stack_moves_it(&lab);
            }
            relive(&lab, &prefix[length - 1..], happened).await;
            if length > last_intent + 1 {
                relive(&lab, &journal[last_intent..=last_intent], true).await;
            }
            lab.store.plant(ID, prefix.to_vec());
            let heard = prefix
                .iter()
                .any(|e| matches!(e.event, Event::TookBack { .. }));
            if rollback && !heard {
                lab.signal("rollback", "canary").await;
            }
            let Standing::Over(end, reason) = lab.go_on().await else {
                panic!("{at}: it must end");
            };
            let live = lab.target.peek();
            let status = lab.status().await;
            assert_eq!(status.in_doubt, None, "{at}");
            assert!(
                live.weights().share(home) >= 100.0 && end != End::RollbackFailed,
                "{at}: {end} {reason}, {}",
                live.weights()
            );
            if length > last_intent {
                assert_eq!(live.sticky, expected.sticky, "{at}");
            }
            let read = lab
                .journal()
                .await
                .into_iter()
                .rev()
                .find_map(|e| match e.event {
                    Event::Exchanged {
                        reply: Reply::Weights(read),
                        ..
                    } => Some(read),
                    _ => None,
                });
            assert_eq!(read, Some(live.weights()), "{at}: it was read");
            // The target is free.
            let mut next = change_lab().header;
            next.rollout = "next".to_owned();
            lab.driver()
                .begin(next)
                .await
                .expect("nobody is in the way");
        }
    }
}

fn is_intent(entry: &Entry) -> bool {
    matches!(&entry.event, Event::Asked { call, .. } if call.is_write())
}

#[tokio::test]
async fn a_change_of_a_stack_with_a_rollback() {
    every_prefix_of_a_change(true).await;
}

#[tokio::test]
async fn a_change_of_a_stack_that_moves_the_traffic() {
    every_prefix_of_a_change(false).await;
}

/// A dead process that changed a stack is in nobody's way, and what the stack did
/// meanwhile is said and not undone.
#[tokio::test]
async fn a_dead_change_of_a_stack_gives_way() {
    let lab = change_lab();
    let mut dead = lab.driver();
    dead.owner.started = "dead".to_owned();
    lab.store.bury(dead.owner.clone());
    let begun = dead.begin_change(lab.header.clone(), lab.target.clone());
    drop(begun.await.expect("it begins"));
    stack_moves_it(&lab);
    let mut next = lab.header.clone();
    next.rollout = "next".to_owned();
    lab.driver().begin(next).await.expect("it gives way");
    let (end, reason) = lab.status().await.end.expect("it has ended");
    assert_eq!(end, End::Refused);
    for says in ["stable 40 %", "was at stable 100 %", "interrupted"] {
        assert!(reason.contains(says), "{reason}");
    }
    assert!(lab.target.verbs().is_empty());
}

//! Each limit of the sandbox, kept and broken.

use std::sync::atomic::{AtomicU32, Ordering};

use engine::journal::Event;
use engine::model::limits::OnTrouble;
use engine::model::{End, Weights};
use engine::rollout::Standing;
use engine::strategy::Host;
use engine::strategy::contract::Rejected;
use engine::strategy::limits::{LIST_MAX, Limits, TEXT_BYTES_MAX};
use serde_json::json;

use crate::support::guests;
use crate::support::lab::{self, Lab};

/// Runs the hostile guest; its reason for the end, and the lab.
async fn act(act: &str, amount: u32) -> (Standing, Lab) {
    let lab = Lab::new(
        guests::plugin("hostile").await,
        lab::good(),
        json!({"act": act, "amount": amount}),
    );
    (lab.run().await, lab)
}

/// It kept to the limit: the guest's own verdict stands.
async fn kept(name: &str, amount: u32) -> Lab {
    let (standing, lab) = act(name, amount).await;
    assert_eq!(
        standing,
        Standing::Over(End::Promoted, "did as told".to_owned()),
        "{name} {amount}"
    );
    lab
}

/// It broke the limit: contained, explained, traffic on stable.
async fn broken(name: &str, amount: u32, says: &str) -> Lab {
    let (standing, lab) = act(name, amount).await;
    let Standing::Over(End::RolledBack, reason) = &standing else {
        panic!("{name} {amount}: {standing:?}");
    };
    assert!(reason.contains(says), "{name} {amount}: {reason}");
    assert_eq!(lab.target.peek().weights().share("stable"), 100.0);
    lab
}

async fn logged(lab: &Lab) -> Vec<String> {
    let journal = lab.journal().await;
    let logs = journal.iter().filter_map(|e| match &e.event {
        Event::Exchanged {
            call: engine::journal::Call::Log { message, .. },
            ..
        } => Some(message.clone()),
        _ => None,
    });
    logs.collect()
}

#[tokio::test]
async fn fuel_is_for_a_segment_not_for_a_run() {
    // More in sum than one segment may burn.
    kept("segments", 12).await;
    broken("spin", 0, "an endless loop?").await;
}

/// One thread serves many rollouts; none of them may keep it to itself.
#[tokio::test]
async fn a_guest_that_computes_gives_way() {
    // Loading gives way by itself; only the guest's own work counts here.
    guests::plugin("hostile").await;
    let turns = std::sync::Arc::new(AtomicU32::new(0));
    let counted = turns.clone();
    let other = tokio::spawn(std::future::poll_fn(move |context| {
        counted.fetch_add(1, Ordering::Relaxed);
        context.waker().wake_by_ref();
        std::task::Poll::<()>::Pending
    }));
    let (standing, _) = tokio::spawn(act("segments", 60)).await.expect("no panic");
    other.abort();
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    // Without the epoch there are about fifty, before and after the guest.
    let turns = turns.load(Ordering::Relaxed);
    assert!(turns >= 120, "others had {turns} turns meanwhile");
}

#[tokio::test]
async fn wasi_calls_buy_no_fuel() {
    broken("wasi-flood", 0, "an endless loop?").await;
    broken("now-flood", 0, "an endless loop?").await;
}

#[tokio::test]
async fn memory() {
    kept("memory", 32).await;
    broken("memory", 100, "the limit is 64 MiB").await;
}

#[tokio::test]
async fn stack() {
    kept("shallow", 1_000).await;
    broken("recursion", 0, "its stack overflowed").await;
}

#[tokio::test]
async fn texts() {
    let short = u32::try_from(TEXT_BYTES_MAX).expect("small");
    let lab = kept("text", short).await;
    assert_eq!(logged(&lab).await[0].len(), TEXT_BYTES_MAX);
    let lab = kept("text", short + 1).await;
    assert!(logged(&lab).await[0].ends_with('…'));
    // Beyond what one call may make the host allocate.
    broken("text", 4 << 20, "").await;
}

#[tokio::test]
async fn lists() {
    let max = u32::try_from(LIST_MAX).expect("small");
    let lab = kept("list", max).await;
    assert!(logged(&lab).await[0].contains("there is no arm \"arm-0\""));
    let lab = kept("list", max + 1).await;
    assert!(logged(&lab).await[0].contains("65 elements, and the limit is 64"));
}

#[tokio::test]
async fn calls() {
    kept("flood", 100).await;
    broken(
        "flood",
        60_000,
        "it has made 50000 calls, and no more are allowed",
    )
    .await;
}

#[tokio::test]
async fn panics_keep_their_text_and_output_its_end() {
    broken("panic", 0, "the cat sat on the keyboard").await;
    let (standing, _) = act("print", 20_000).await;
    let Standing::Over(End::RolledBack, reason) = standing else {
        panic!("{standing:?}");
    };
    assert!(reason.contains("line 19999"), "{reason}");
    assert!(!reason.contains("line 100\n"), "only the end is kept");
}

#[tokio::test]
async fn time_passes_in_wait_only() {
    broken("sleep", 0, "use control.wait").await;
    let lab = kept("wait", 7_200).await;
    let took = engine::clock::Clock::now(&*lab.clock) - lab::START;
    assert_eq!(took, 7_200_000);
}

#[tokio::test]
async fn the_world_is_empty_and_the_same_every_time() {
    let first = logged(&kept("senses", 0).await).await;
    let again = logged(&kept("senses", 0).await).await;
    assert_eq!(first, again);
    assert!(
        first[0].starts_with(&format!("now {}", lab::START)),
        "{}",
        first[0]
    );
    assert!(
        first[0].ends_with("env 0 file false net false"),
        "{}",
        first[0]
    );
}

#[tokio::test]
async fn a_strategys_own_error_is_no_verdict() {
    broken("error", 0, "the model registry is empty").await;
    let lab = broken("leave", 0, "left the traffic at half").await;
    assert_eq!(
        lab.target.verbs(),
        [
            "set-weights stable=50 canary=50",
            "set-weights stable=100 canary=0"
        ]
    );
}

#[tokio::test]
async fn a_trap_may_pause_instead() {
    let mut lab = Lab::new(
        guests::plugin("hostile").await,
        lab::good(),
        json!({"act": "trap-at-half"}),
    );
    lab.header.guardrails.on_plugin_error = OnTrouble::Pause;
    let Standing::Held(hold) = lab.run().await else {
        panic!("it pauses");
    };
    assert!(hold.to_string().contains("fell over at 50 %"), "{hold}");
    let live = lab.target.peek().weights();
    assert_eq!(live, Weights::of([("stable", 50), ("canary", 50)]));
}

#[tokio::test]
async fn a_smaller_host_has_smaller_limits() {
    let limits = Limits {
        memory_bytes_max: 16 << 20,
        component_bytes_max: 1_000,
        ..Limits::default()
    };
    let host = Host::new(None, limits).expect("starts");
    let error = host
        .load(&guests::guest("hostile"))
        .await
        .expect_err("too large");
    assert!(
        matches!(error, Rejected::TooLarge { max: 1_000, .. }),
        "{error}"
    );
}

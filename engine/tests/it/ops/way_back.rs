//! `rollback` and `abort`: all traffic back, by whichever way there is.

use engine::journal::Event;
use engine::model::{End, Weights};
use engine::ops::Kind;
use engine::ops::request::TargetRequest;
use engine::ops::traffic::{set_weights, switch};
use engine::ops::way_back::{TakenBack, abort, rollback};
use engine::rollout::Standing;
use engine::store::{Claim, Journals as _, Schedule as _};

use crate::aws::routes::{listener, rule, weights as live};
use crate::support::app::{TestApp, code_of, local, on, on_aws, refused, rollout, texts};
use crate::support::aws::bottle::{Made, Wish, forward, make};
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::balancer::{demo, healthy, named, spec, start};

#[tokio::test(flavor = "multi_thread")]
async fn all_traffic_goes_to_the_stable_arm_or_to_the_one_that_is_named() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    let half = set_weights(&test.app, &at, &texts(&["50", "50"])).await;
    half.expect("done");
    let back = rollback(&test.app, &at, None).await.expect("done");
    let TakenBack::Moved(moved) = back else {
        panic!("{back:?}");
    };
    assert_eq!(moved.before, Weights::of([("stable", 50), ("canary", 50)]));
    assert_eq!(moved.now.share("stable"), 100.0);
    let back = rollback(&test.app, &at, Some("canary")).await;
    let TakenBack::Moved(moved) = back.expect("done") else {
        panic!("nothing else had the target");
    };
    assert_eq!(moved.now.share("canary"), 100.0);
    refused(
        rollback(&test.app, &at, Some("red")).await,
        Kind::Usage,
        &["no arm \"red\"; there are stable and canary"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_known_from_their_history_or_asked_for() {
    let colours = named(spec([demo(), demo()]), ["blue", "green"]);
    let (balancer, target) = start(&colours).await;
    healthy(&target, "green", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    refused(
        rollback(&test.app, &at, None).await,
        Kind::Usage,
        &["no earlier rollout says", "engine rollback --to blue"],
    );
    switch(&test.app, &at, "green").await.expect("done");
    // And a second time it stays there.
    for _ in 0..2 {
        let back = rollback(&test.app, &at, None).await.expect("done");
        let TakenBack::Moved(moved) = back else {
            panic!("{back:?}");
        };
        assert_eq!(moved.now.share("blue"), 100.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_aborted_by_both() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let at = local(balancer.admin);
    let anywhere = TargetRequest::default();
    refused(
        abort(&test.app, &anywhere, None, "").await,
        Kind::Usage,
        &["no rollout is under way"],
    );
    for by_abort in [true, false] {
        let id = test
            .begin_and_leave(&rollout("canary", at.clone(), &[]))
            .await;
        refused(
            rollback(&test.app, &at, Some("canary")).await,
            Kind::Usage,
            &[&id, "its stable arm is stable"],
        );
        let back = match by_abort {
            true => abort(&test.app, &anywhere, None, "smells bad").await,
            false => rollback(&test.app, &at, None).await,
        };
        let TakenBack::Aborted(aborted) = back.expect("done") else {
            panic!("the rollout had the target");
        };
        let (header, status) = *aborted;
        assert_eq!(header.rollout, id);
        let (end, reason) = status.end.expect("it is over");
        assert_eq!(end, End::RolledBack);
        let why = if by_abort { "smells bad" } else { "rollback" };
        assert!(reason.contains(why), "{reason}");
        refused(
            abort(&test.app, &anywhere, Some(&id), "").await,
            Kind::Usage,
            &[&id, "has ended"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_does_not_answer_is_told_at_once() {
    let test = TestApp::surrounded(<_>::default());
    let nobody = local("127.0.0.1:1".parse().expect("an address"));
    let error = refused(
        rollback(&test.app, &nobody, None).await,
        Kind::Unreachable,
        &["start one with `engine local`"],
    );
    assert_eq!(code_of(&error), Some("admin-unreachable"));
}

/// Throttled at everything, it waits and says so, and does its work in the end; not
/// permitted, it says that nothing was taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_rollback_waits_and_a_forbidden_one_has_failed() {
    let made = make(&Wish {
        weights: [50, 50],
        ..Wish::default()
    })
    .await;
    let proxy = Proxy::start().await;
    let mut throttled = 10;
    proxy.plot(move |_, _| {
        if throttled > 0 {
            throttled -= 1;
            return Trouble::Refused(400, "ThrottlingException");
        }
        Trouble::None
    });
    let test = TestApp::through(&proxy.endpoint).hurried();
    let mut at = on(&made);
    at.cluster = None;
    let back = rollback(&test.app, &on_aws(at.clone()), None).await;
    let TakenBack::Moved(moved) = back.expect("done") else {
        panic!("nothing else had the target");
    };
    assert_eq!(moved.now.share("stable"), 100.0);
    assert!(test.heard().contains("tries again in"));

    proxy.plot(|_, _| Trouble::Refused(403, "AccessDenied"));
    refused(
        rollback(&test.app, &on_aws(at), None).await,
        Kind::RollbackFailed,
        &["nothing was taken back", "could not be read"],
    );
}

/// Who takes a move by hand back while it is under way.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Rollback,
    Abort,
}

/// Does a move by hand whose look at the arms takes a second, and takes it back meanwhile, in
/// another process.
async fn caught(made: &Made, test: &TestApp, proxy: &Proxy, weights: [&str; 2], by: By) {
    let at = on_aws(on(made));
    let mut first = true;
    proxy.plot(move |_, name| match name {
        "DescribeTargetHealth" if std::mem::take(&mut first) => {
            Trouble::Late(std::time::Duration::from_millis(1_300))
        }
        _ => Trouble::None,
    });
    let (app, to, weights) = (test.app.clone(), at.clone(), texts(&weights));
    let moving = tokio::spawn(async move { set_weights(&app, &to, &weights).await });
    let open = async || test.store.open(None).await.expect("memory").pop();
    while open().await.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let other = test.app.clone();
    let id = open().await.expect("under way").summary.rollout;
    let back = match by {
        By::Rollback => rollback(&other, &at, None).await,
        By::Abort => abort(&other, &at, Some(&id), "no").await,
    };
    let back = back.unwrap_or_else(|error| panic!("{by:?}: {error}"));
    assert!(matches!(back, TakenBack::Aborted(_)), "{by:?}: {back:?}");
    let moved = moving.await.expect("no panic").expect("it obeys");
    assert!(
        matches!(moved.standing, Standing::Over(End::RolledBack, _)),
        "{by:?}: {moved:?}"
    );
    let (_, status, entries) = test.app.journal(&id).await.expect("readable");
    assert!(status.is_over());
    let raised = entries.iter().filter_map(|entry| match &entry.event {
        Event::Asked { call, .. } => call.weights_after(&moved.before),
        _ => None,
    });
    let all: Vec<Weights> = raised.collect();
    assert!(
        all.iter().all(|w| w.0.iter().any(|w| w.weight == 0)),
        "{by:?}: it went through: {all:?}"
    );
}

/// A `set-weights` or `switch` that is taken back while it is under way does not go through,
/// and its users go where a rollback would take them: not to the arm that has most of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_by_hand_that_is_taken_back_goes_to_the_stable_arm() {
    for by in [By::Rollback, By::Abort] {
        let proxy = Proxy::start().await;
        let test = TestApp::through(&proxy.endpoint);
        let made = make(&Wish {
            weights: [20, 80],
            ..Wish::default()
        })
        .await;
        caught(&made, &test, &proxy, ["10", "90"], by).await;
        assert_eq!(live(&made.listener), [100, 0], "{by:?}");
        // Which colour is home is known by what was done before.
        let made = make(&Wish {
            arms: ["blue", "green"],
            ..Wish::default()
        })
        .await;
        let test = TestApp::through(&proxy.endpoint);
        let at = on_aws(on(&made));
        proxy.calm();
        switch(&test.app, &at, "green").await.expect("done");
        assert_eq!(live(&made.listener), [0, 100]);
        caught(&made, &test, &proxy, ["blue=30", "green=70"], by).await;
        assert_eq!(live(&made.listener), [100, 0], "{by:?}");
    }
}

/// A route that something else has does not keep the users of the others where they are, and
/// nobody waits until it is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_something_else_has_is_not_waited_for() {
    let half = Wish {
        weights: [50, 50],
        ..Wish::default()
    };
    let made = make(&half).await;
    let both = || forward(&[(&made.groups[0], 50), (&made.groups[1], 50)]);
    let held = listener(&made.balancer, 443, both()).await;
    let free = rule(&made.listener, 5, both()).await;
    let test = TestApp::new();
    let claim = Claim {
        target: &held,
        also: &[],
        rollout: "another",
        owner: &test.app.owner,
        now: test.app.clock.now(),
        ttl_ms: 600_000,
        dead_epoch: None,
    };
    test.store.claim(claim).await.expect("free");
    let begun = std::time::Instant::now();
    let back = rollback(&test.app, &on_aws(on(&made)), None).await;
    // It is no success, and what is left has a name.
    refused(back, Kind::RollbackFailed, &["HTTP:443", &held]);
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
    assert_eq!(live(&made.listener), [100, 0]);
    assert_eq!(live(&free), [100, 0]);
    assert_eq!(live(&held), [50, 50]);
    let heard = test.heard();
    assert!(heard.contains("HTTP:443 is left to another"), "{heard}");
    assert!(heard.contains("engine abort another"), "{heard}");
}

//! Routes that come, go and change while a rollout is under way, or between two verbs:
//! none of them keeps the users of the others on the candidate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_elasticloadbalancingv2::types::{Action, TargetDescription};
use engine::journal::{Header, Work};
use engine::model::{End, ErrorKind, Hold, Verdict, Weights};
use engine::ops::Kind;
use engine::ops::app::App;
use engine::ops::request::{AwsRequest, TargetRequest};
use engine::ops::status::overview;
use engine::ops::traffic::{set_weights, switch};
use engine::ops::way_back::{TakenBack, abort, rollback};
use engine::rollout::{Options, Standing};
use engine::store::sqlite::SqliteStore;
use engine::store::{Claim, Journals as _, Lease, Page, Schedule as _};
use engine::target::{Order, Step, Target as _};
use serde_json::json;

use super::routes::{listener, rule, weights};
use super::together::{abort as give_up, all, disturbed, modifies, several, steps};
use crate::support::app::{TestApp, on, on_aws, on_stack, refused, rollout, texts};
use crate::support::aws::bottle::{Bottle, Made, REGION, Wish, direct, forward, make, redirect};
use crate::support::aws::emulator;
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::aws::{run, stack};
use crate::support::binary::{stderr, stdout};
use crate::support::{fixture, folder};

/// What somebody makes of a route.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Becomes {
    /// It redirects, as port 80 does once there is a 443.
    Redirect,
    /// It does not exist any more.
    Gone,
    /// A third group gets some of its requests.
    Shared,
    /// A third group gets all of its requests.
    Strange,
}

impl Becomes {
    const ALL: [Self; 4] = [Self::Redirect, Self::Gone, Self::Shared, Self::Strange];
}

async fn write(route: &str, action: Action) {
    let elb = direct().await.elb;
    match route.contains(":listener-rule/") {
        true => drop(
            elb.modify_rule()
                .rule_arn(route)
                .actions(action)
                .send()
                .await
                .expect("ok"),
        ),
        false => {
            let modify = elb.modify_listener().listener_arn(route);
            modify.default_actions(action).send().await.expect("ok");
        }
    }
}

/// Lets a route become that; the arms have 45 each where they share it with a third group.
async fn change(route: &str, groups: &[String; 2], third: &str, becomes: Becomes) {
    let [stable, canary] = groups;
    match becomes {
        Becomes::Redirect => write(route, redirect()).await,
        Becomes::Shared => {
            write(route, forward(&[(stable, 45), (canary, 45), (third, 10)])).await;
        }
        Becomes::Strange => write(route, forward(&[(third, 1)])).await,
        Becomes::Gone => {
            let elb = direct().await.elb;
            match route.contains(":listener-rule/") {
                true => drop(elb.delete_rule().rule_arn(route).send().await.expect("ok")),
                false => drop(
                    elb.delete_listener()
                        .listener_arn(route)
                        .send()
                        .await
                        .expect("ok"),
                ),
            }
        }
    }
}

/// The same from where nobody can wait.
fn changed(route: &str, groups: &[String; 2], third: &str, becomes: Becomes) {
    let (route, groups, third) = (route.to_owned(), groups.clone(), third.to_owned());
    let thread = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        runtime.block_on(change(&route, &groups, &third, becomes));
    });
    thread.join().expect("done");
}

async fn stranger() -> String {
    make(&Wish::default()).await.groups[0].clone()
}

/// Whichever route it is, and the target's own is one of them: the raise stands still and
/// names it, and the way back takes every other one to stable. A third group keeps its
/// share.
#[tokio::test(flavor = "multi_thread")]
async fn no_route_keeps_the_others_from_going_back() {
    let third = stranger().await;
    for (nth, place) in [(0, "HTTP:80:"), (1, "HTTP:443:"), (2, "HTTP:80 rule 5:")] {
        for becomes in Becomes::ALL {
            let at = format!("{place} {becomes:?}");
            let several = several([100, 0]).await;
            let (route, groups) = (several.routes[nth].clone(), several.made.groups.clone());
            let stranger = third.clone();
            let bottle = disturbed(&several, move || {
                changed(&route, &groups, &stranger, becomes);
            });
            let bottle = bottle.await;
            let standing = bottle.run().await;
            let Standing::Held(Hold::Stuck { reason }) = &standing else {
                panic!("{at}: {standing:?}");
            };
            assert!(reason.contains(place), "{at}: {reason}");
            let standing = give_up(&bottle).await;
            assert!(
                matches!(standing, Standing::Over(End::RolledBack, _)),
                "{at}: {standing:?}"
            );
            for (other, route) in several.routes.iter().enumerate() {
                match (other == nth, becomes) {
                    // The rule of the listener that was deleted went with it.
                    _ if nth == 0 && other == 2 && becomes == Becomes::Gone => {}
                    (false, _) => assert_eq!(weights(route), [100, 0], "{at}"),
                    (true, Becomes::Shared) => assert_eq!(weights(route), [90, 0, 10], "{at}"),
                    (true, _) => {}
                }
            }
        }
    }
}

/// The same where there is no other route.
#[tokio::test(flavor = "multi_thread")]
async fn a_third_group_keeps_its_share_on_the_only_route_too() {
    let third = stranger().await;
    let made = make(&Wish::default()).await;
    let (route, groups) = (made.listener.clone(), made.groups.clone());
    let strategy = steps(Verdict::Promoted, move || {
        changed(&route, &groups, &third, Becomes::Shared);
    });
    let mut bottle = Bottle::around(made.clone(), Arc::new(strategy), json!({})).await;
    bottle.header.capacity = None;
    let standing = bottle.run().await;
    // Nobody knows what the samples are about.
    assert!(
        !matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    if !matches!(standing, Standing::Over(..)) {
        let standing = give_up(&bottle).await;
        assert!(
            matches!(standing, Standing::Over(End::RolledBack, _)),
            "{standing:?}"
        );
    }
    assert_eq!(weights(&made.listener), [90, 0, 10]);
}

/// A process that knows nothing but what was found before.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_by_hand_takes_what_is_left_of_a_remembered_target() {
    let third = stranger().await;
    for becomes in Becomes::ALL {
        let several = several([100, 0]).await;
        let test = TestApp::new().hurried();
        let half = texts(&["50", "50"]);
        set_weights(&test.app, &several.at(), &half)
            .await
            .expect("done");
        change(&several.routes[0], &several.made.groups, &third, becomes).await;
        let back = rollback(&test.app, &several.at(), None).await;
        back.unwrap_or_else(|e| panic!("{becomes:?}: {e:?}"));
        assert_eq!(weights(&several.routes[1]), [100, 0], "{becomes:?}");
        if becomes != Becomes::Gone {
            assert_eq!(weights(&several.routes[2]), [100, 0], "{becomes:?}");
        }
        if becomes == Becomes::Shared {
            assert_eq!(weights(&several.routes[0]), [90, 0, 10]);
        }
        // Nothing is raised on half of the routes.
        let set = set_weights(&test.app, &several.at(), &half).await;
        set.expect_err("the route that is named is not what it was");
        assert_eq!(weights(&several.routes[1]), [100, 0], "{becomes:?}");
    }
}

/// Who looks for a fault must not look at the wrong listener.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_route_that_has_it() {
    let third = stranger().await;
    let several = several([100, 0]).await;
    let bottle = several.bottle(Verdict::Promoted).await;
    for (nth, place) in [(1, "HTTP:443"), (2, "HTTP:80 rule 5")] {
        let route = &several.routes[nth];
        change(route, &several.made.groups, &third, Becomes::Shared).await;
        // Time stands still here, so what was read before would be thought new.
        bottle.target.traffic().await.expect("readable");
        let to = Weights::of([("stable", 40), ("canary", 60)]);
        let raise = Step {
            order: Order::Raise,
            ..Step::back_to(&to)
        };
        let error = bottle.target.set_all(raise).await.expect_err("three");
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(
            error.message.contains(place) && error.message.contains(route),
            "{error}"
        );
        assert!(
            !error.message.contains(&format!("{} ", several.routes[0])),
            "{error}"
        );
        assert_eq!(weights(route), [45, 45, 10], "nothing was written");
        write(
            route,
            forward(&[(&several.made.groups[0], 100), (&several.made.groups[1], 0)]),
        )
        .await;
    }
}

/// What was remembered says who the arms are, and not which routes there are today.
#[tokio::test(flavor = "multi_thread")]
async fn routes_that_came_after_the_target_was_found_move_too() {
    let made = make(&Wish::default()).await;
    let test = TestApp::new();
    let at = on_aws(on(&made));
    let set = async |at: &TargetRequest, shares: [&str; 2]| {
        set_weights(&test.app, at, &texts(&shares))
            .await
            .expect("done")
    };
    set(&at, ["90", "10"]).await;
    let both =
        |shares: [i32; 2]| forward(&[(&made.groups[0], shares[0]), (&made.groups[1], shares[1])]);
    let second = listener(&made.balancer, 443, both([40, 60])).await;
    let narrow = rule(&second, 3, both([40, 60])).await;
    // Siblings that take no part.
    listener(&made.balancer, 8081, redirect()).await;
    let preview = listener(&made.balancer, 8082, forward(&[(&made.groups[1], 1)])).await;
    let seen = overview(&test.app, &at, None).await.expect("seen");
    let others = seen.live.expect("it answers").seen.observed.others;
    assert_eq!(others.len(), 2, "{others:?}");
    let routes = [&made.listener, &second, &narrow];
    let shares = || routes.map(|route| weights(route));
    let back = rollback(&test.app, &at, None).await.expect("done");
    assert!(matches!(back, TakenBack::Moved(moved) if moved.changed()));
    assert_eq!(shares(), all([100, 0]));
    set(&at, ["70", "30"]).await;
    assert_eq!(shares(), all([70, 30]));
    assert_eq!(weights(&preview).len(), 1);
    // One that has gone again keeps nobody.
    let delete = direct().await.elb.delete_rule().rule_arn(&narrow);
    delete.send().await.expect("gone");
    set(&at, ["60", "40"]).await;
    assert_eq!(weights(&second), [60, 40]);
    // By one alone.
    let only = on_aws(AwsRequest {
        only: true,
        ..on(&made)
    });
    set(&only, ["50", "50"]).await;
    set(&only, ["100", "0"]).await;
    assert_eq!(weights(&second), [60, 40]);
    let back = rollback(&test.app, &only, None)
        .await
        .expect("as was named");
    assert!(matches!(back, TakenBack::Moved(moved) if !moved.changed()));
    assert_eq!(weights(&second), [60, 40]);
}

/// Where today's routes cannot be read, what was found before moves, and that is said. No
/// way back is well that leaves users of another route where they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_leaves_users_elsewhere_fails_and_names_them() {
    for denied in ["DescribeRules", "DescribeListeners"] {
        let made = make(&Wish::default()).await;
        let proxy = Proxy::start().await;
        let test = TestApp::through(&proxy.endpoint);
        let at = on_aws(on(&made));
        let half = texts(&["50", "50"]);
        set_weights(&test.app, &at, &half).await.expect("done");
        let both = forward(&[(&made.groups[0], 40), (&made.groups[1], 60)]);
        let second = listener(&made.balancer, 443, both).await;
        let (written, first) = (AtomicBool::new(false), AtomicBool::new(true));
        proxy.plot(move |_, name| {
            let writing = written.fetch_or(modifies(name), Ordering::SeqCst) || modifies(name);
            let is_it = !writing && name == denied && first.swap(false, Ordering::SeqCst);
            match is_it {
                true => Trouble::Refused(403, "AccessDenied"),
                false => Trouble::None,
            }
        });
        test.heard();
        let back = rollback(&test.app, &at, None).await;
        refused(
            back,
            Kind::RollbackFailed,
            &["HTTP:443", &second, "60 %", "--only"],
        );
        let heard = test.heard();
        assert!(heard.contains("by now could not be read"), "{heard}");
        assert_eq!(
            weights(&made.listener),
            [100, 0],
            "what was known went back"
        );
        proxy.calm();
        rollback(&test.app, &at, None).await.expect("done");
        assert_eq!(weights(&second), [100, 0]);
    }
}

/// A listener on a port of its own that nobody has named as one for tests may be where a
/// raise broke off: that stable has all traffic already is not true of its users.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_nobody_said_to_be_for_tests_is_not_forgotten_on_the_way_back() {
    let made = make(&Wish::default()).await;
    let both = forward(&[(&made.groups[0], 0), (&made.groups[1], 100)]);
    let second = listener(&made.balancer, 8443, both).await;
    let test = TestApp::new();
    let back = rollback(&test.app, &on_aws(on(&made)), None).await;
    refused(
        back,
        Kind::RollbackFailed,
        &["HTTP:8443", &second, "100 %", "--only", "--test-listener"],
    );
    let named = on_aws(AwsRequest {
        test_listeners: vec![second.clone()],
        ..on(&made)
    });
    let back = rollback(&test.app, &named, None).await.expect("for tests");
    assert!(matches!(back, TakenBack::Moved(moved) if !moved.changed()));
    let alone = on_aws(AwsRequest {
        listener: Some(second.clone()),
        only: true,
        ..on(&made)
    });
    rollback(&test.app, &alone, None).await.expect("moved");
    assert_eq!(weights(&second), [100, 0]);
    rollback(&test.app, &on_aws(on(&made)), None)
        .await
        .expect("nothing is left");
}

/// What was pinned to routes of which one has gone is still shown, by its id and without a
/// name.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_has_gone_does_not_hide_the_target() {
    let several = several([100, 0]).await;
    let test = TestApp::new();
    let shares = texts(&["70", "30"]);
    set_weights(&test.app, &several.at(), &shares)
        .await
        .expect("done");
    let newest = test.app.store.history(&Page::newest(None, 1)).await;
    let id = newest.expect("readable").remove(0).rollout;
    change(&several.routes[1], &several.made.groups, "", Becomes::Gone).await;
    let nowhere = TargetRequest::default();
    for named in [None, Some(id.as_str())] {
        let seen = overview(&test.app, &nowhere, named).await.expect("known");
        let live = seen.live.expect("the others are there");
        let now = live.seen.observed.weights();
        assert!(now.shares_like(&Weights::of([("stable", 70), ("canary", 30)])));
    }
}

/// Which arm is home was said by whichever route a person has named.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_has_one_history_by_whichever_route_it_is_named() {
    let made = make(&Wish {
        arms: ["blue", "green"],
        ..Wish::default()
    })
    .await;
    let both = forward(&[(&made.groups[0], 100), (&made.groups[1], 0)]);
    let second = listener(&made.balancer, 443, both).await;
    let test = TestApp::new();
    let by_second = on_aws(AwsRequest {
        listener: Some(second.clone()),
        ..on(&made)
    });
    let clock = &test.app.clock;
    let moved = async |at: &TargetRequest, arm: &str| {
        switch(&test.app, at, arm).await.expect("done");
        clock.sleep_until(clock.now() + 1_000).await;
    };
    moved(&by_second, "green").await;
    moved(&on_aws(on(&made)), "blue").await;
    assert_eq!(weights(&second), [100, 0]);
    let back = rollback(&test.app, &by_second, None).await.expect("done");
    assert!(matches!(back, TakenBack::Moved(moved) if moved.changed()));
    for route in [&made.listener, &second] {
        assert_eq!(weights(route), [0, 100]);
    }
}

/// A rollout that nobody drives any more, on a target that is reached through a proxy.
struct Left {
    made: Made,
    proxy: Proxy,
    test: TestApp,
    at: TargetRequest,
    id: String,
}

impl Left {
    async fn begin() -> Self {
        let made = make(&Wish::default()).await;
        let proxy = Proxy::start().await;
        let test = TestApp::through(&proxy.endpoint).hurried();
        let at = on_aws(on(&made));
        let id = test
            .begin_and_leave(&rollout("canary", at.clone(), &[]))
            .await;
        Self {
            made,
            proxy,
            test,
            at,
            id,
        }
    }

    /// Somebody gives it up, and whoever drives it next will hear of that.
    async fn give_up(&self) {
        let signal = engine::model::Command::Abort {
            reason: "at night".to_owned(),
        }
        .signal("abort-1".to_owned(), "guard");
        let sent = self.test.store.signal(&self.id, &signal).await;
        sent.expect("sent");
    }

    /// It is driven to its end, and goes back; why.
    async fn goes_back(&self) -> String {
        match self.test.drive_on(&self.id).await {
            Standing::Over(End::RolledBack, reason) => reason,
            standing => panic!("{standing:?}"),
        }
    }
}

/// Who finds the routes that came during a rollout.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Finds {
    /// Whoever drives it, also where nobody asks.
    Driver,
    /// Whoever has asked for the way back, because the driver could not read them.
    Asker,
}

/// Listeners and rules that were made after a rollout had begun, and share users between both
/// arms, were left on the rejected version by every way back, whoever wanted it.
#[tokio::test(flavor = "multi_thread")]
async fn routes_that_came_during_a_rollout_go_back_with_it() {
    let third = stranger().await;
    for finds in [Finds::Driver, Finds::Asker] {
        let left = Left::begin().await;
        let Left {
            made,
            proxy,
            test,
            at,
            ..
        } = &left;
        let [stable, canary] = &made.groups;
        let both = || forward(&[(stable, 40), (canary, 60)]);
        let second = listener(&made.balancer, 443, both()).await;
        let narrow = rule(&second, 3, both()).await;
        let shared = forward(&[(stable, 30), (canary, 60), (&third, 10)]);
        let shared = rule(&made.listener, 4, shared).await;
        write(&made.listener, forward(&[(stable, 50), (canary, 50)])).await;
        // One that sends everything to stable is let alone, and so is one for tests.
        let calm = listener(&made.balancer, 8081, forward(&[(stable, 9), (canary, 0)])).await;
        let preview = listener(&made.balancer, 8082, forward(&[(canary, 1)])).await;
        match finds {
            Finds::Driver => {
                left.give_up().await;
                let reason = left.goes_back().await;
                assert!(
                    reason.contains("HTTP:443 and ") && reason.contains("went back too"),
                    "{reason}"
                );
            }
            Finds::Asker => {
                // The look for what came, after the one that sees it.
                let mut looks = 0;
                let mut written = false;
                proxy.plot(move |_, name| {
                    written |= modifies(name);
                    looks += usize::from(written && name == "DescribeTargetGroups");
                    match name == "DescribeTargetGroups" && looks == 2 {
                        true => Trouble::Refused(400, "InvalidConfigurationRequest"),
                        false => Trouble::None,
                    }
                });
                let back = rollback(&test.app, at, None).await.expect("all is back");
                let TakenBack::Aborted(reached) = back else {
                    panic!("{back:?}");
                };
                let (_, reason) = reached.1.end.expect("over");
                assert!(reason.contains("could not be read"), "{reason}");
            }
        }
        proxy.calm();
        for route in [&made.listener, &second, &narrow] {
            assert_eq!(weights(route), [100, 0], "{finds:?}");
        }
        assert_eq!(weights(&shared), [90, 0, 10], "{finds:?}");
        assert_eq!(weights(&calm), [9, 0], "{finds:?}");
        assert_eq!(weights(&preview).len(), 1, "{finds:?}");
        let back = rollback(&test.app, at, None).await.expect("done");
        assert!(matches!(back, TakenBack::Moved(moved) if !moved.changed()));
    }
}

/// What is elsewhere cannot be read, and what came can: it goes back all the same, and what
/// sends nobody to the candidate is let alone.
#[tokio::test(flavor = "multi_thread")]
async fn routes_that_came_go_back_where_what_is_elsewhere_cannot_be_read() {
    let left = Left::begin().await;
    let Left {
        made, proxy, test, ..
    } = &left;
    let [stable, canary] = &made.groups;
    let came = listener(&made.balancer, 443, forward(&[(stable, 40), (canary, 60)])).await;
    let calm = listener(&made.balancer, 444, forward(&[(stable, 9), (canary, 0)])).await;
    let narrow = rule(&came, 7, forward(&[(stable, 9), (canary, 0)])).await;
    write(&made.listener, forward(&[(stable, 50), (canary, 50)])).await;
    left.give_up().await;
    // The first look after the write is the one at what is elsewhere.
    let (mut written, mut first) = (false, true);
    proxy.plot(move |_, name| {
        written |= modifies(name);
        let is_it = written && name == "DescribeTargetGroups";
        match is_it && std::mem::take(&mut first) {
            true => Trouble::Refused(400, "InvalidConfigurationRequest"),
            false => Trouble::None,
        }
    });
    let reason = left.goes_back().await;
    let (_, status, _) = test.app.journal(&left.id).await.expect("readable");
    assert!(reason.contains("HTTP:443 came"), "{reason}: {status:?}");
    assert!(reason.contains("went back too"), "{reason}");
    assert_eq!(weights(&made.listener), [100, 0]);
    assert_eq!(weights(&came), [100, 0]);
    for alone in [&calm, &narrow] {
        assert_eq!(weights(alone), [9, 0], "it sent nobody there");
    }
}

/// Another rollout that has a route.
async fn held_by_another(store: &dyn engine::store::Store, app: &App, route: &str) -> Lease {
    let claim = Claim {
        target: route,
        also: &[],
        rollout: "another",
        owner: &app.owner,
        now: app.clock.now(),
        ttl_ms: 600_000,
        dead_epoch: None,
    };
    store.claim(claim).await.expect("free")
}

/// Siblings: one that cannot be moved is named and is no success, and keeps nobody else; one
/// that another rollout moves is its business; and with `--only` the others are as the person
/// wants them.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_came_and_cannot_go_back_is_no_success() {
    let made = make(&Wish::default()).await;
    let proxy = Proxy::start().await;
    let test = TestApp::through(&proxy.endpoint).hurried();
    let at = on_aws(on(&made));
    let [stable, canary] = &made.groups;
    let both = || forward(&[(stable, 40), (canary, 60)]);
    let begin = async |at: &TargetRequest| {
        let id = test
            .begin_and_leave(&rollout("canary", at.clone(), &[]))
            .await;
        write(&made.listener, forward(&[(stable, 50), (canary, 50)])).await;
        id
    };
    let id = begin(&at).await;
    let narrow = rule(&made.listener, 5, both()).await;
    proxy.plot(|_, name| match name {
        "ModifyRule" => Trouble::Refused(403, "AccessDenied"),
        _ => Trouble::None,
    });
    let back = abort(&test.app, &at, Some(&id), "no").await;
    let says = ["HTTP:80 rule 5", &narrow, "60 %", "--only"];
    refused(back, Kind::RollbackFailed, &says);
    assert_eq!(weights(&made.listener), [100, 0], "what was known");
    assert_eq!(weights(&narrow), [40, 60]);
    let (_, status, _) = test.app.journal(&id).await.expect("readable");
    let (end, reason) = status.end.expect("over");
    assert_eq!(end, End::RolledBack);
    let left = "HTTP:80 rule 5 came during the rollout and could not be taken back";
    assert!(reason.contains(left), "{reason}");
    assert_eq!(status.elsewhere.len(), 2, "{:?}", status.elsewhere);
    proxy.calm();

    rollback(&test.app, &at, None).await.expect("permitted");
    assert_eq!(weights(&narrow), [100, 0]);
    change(&narrow, &made.groups, "", Becomes::Gone).await;

    let only = on_aws(AwsRequest {
        only: true,
        ..on(&made)
    });
    let id = begin(&only).await;
    let narrow = rule(&made.listener, 6, both()).await;
    let back = abort(&test.app, &only, Some(&id), "no").await;
    back.expect("done");
    assert_eq!(weights(&made.listener), [100, 0]);
    assert_eq!(weights(&narrow), [40, 60], "as the person wants it");
    change(&narrow, &made.groups, "", Becomes::Gone).await;

    let id = begin(&at).await;
    let late = listener(&made.balancer, 443, both()).await;
    let lease = held_by_another(test.store.as_ref(), &test.app, &late).await;
    let back = abort(&test.app, &at, Some(&id), "no").await;
    refused(back, Kind::RollbackFailed, &["HTTP:443", &late]);
    assert_eq!(weights(&late), [40, 60], "another rollout has it");
    let (_, status, _) = test.app.journal(&id).await.expect("readable");
    let (_, reason) = status.end.expect("over");
    assert!(reason.contains("HTTP:443 is moved by another"), "{reason}");
    test.store.release(&lease).await.expect("given up");
    rollback(&test.app, &at, None).await.expect("all of it");
    assert_eq!(weights(&late), [100, 0]);
}

/// A rollback by hand that died before its write, and a listener that came since: whoever goes
/// on with it brings its users back too. One that another rollout has is left and is no
/// success, as with `rollback` itself; with `--only` it is as the person wants it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_is_gone_on_with_takes_along_what_came() {
    for (case, code, shares) in [
        ("free", 3, [100, 0]),
        ("at once", 3, [100, 0]),
        ("another's", 4, [50, 50]),
        ("only", 3, [50, 50]),
    ] {
        let half = Wish {
            weights: [50, 50],
            ..Wish::default()
        };
        let made = make(&half).await;
        let test = TestApp::new();
        let at = on_aws(AwsRequest {
            only: case == "only",
            ..on(&made)
        });
        let (target, found) = test.app.target(&at).await.expect("found");
        let place = folder();
        let state = place.path().join("state");
        std::fs::create_dir(&state).expect("writable");
        let store = Arc::new(SqliteStore::open(&state.join("engine.db")).expect("a store"));
        let mut driver = test.app.driver(Options::default());
        driver.store = store.clone();
        let header = Header {
            rollout: "rollback-1".to_owned(),
            created: match case {
                "at once" => test.app.clock.now(),
                _ => test.app.clock.now() - 3_600_000,
            },
            target,
            identity: found.identity().to_owned(),
            baseline: Weights::of([("stable", 50), ("canary", 50)]),
            work: Work::Verb {
                verb: "rollback".to_owned(),
                actor: "tester".to_owned(),
                weights: Weights::of([("stable", 100), ("canary", 0)]),
            },
            ..fixture::header()
        };
        driver.begin(header).await.expect("it begins");
        let busy = store.occupant(found.identity()).await.expect("readable");
        let busy = busy.expect("occupied");
        let lease = Lease {
            target: found.identity().to_owned(),
            rollout: busy.rollout,
            epoch: busy.epoch,
        };
        store.park(&lease, None).await.expect("nobody drives it");

        let both = forward(&[(&made.groups[0], 50), (&made.groups[1], 50)]);
        let late = listener(&made.balancer, 443, both).await;
        if case == "another's" {
            held_by_another(store.as_ref(), &test.app, &late).await;
        }
        let resume = ["resume", "rollback-1"];
        let output = tokio::task::block_in_place(|| run(place.path(), REGION, &resume));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{case}: {said}");
        assert_eq!(weights(&made.listener), [100, 0], "{case}: {said}");
        assert_eq!(weights(&late), shares, "{case}: {said}");
        if code == 4 {
            assert!(said.contains("error: "), "{said}");
            assert!(said.contains("HTTP:443") && said.contains(&late), "{said}");
        }
    }
}

/// A stack on a port of its own, whose listener redirects to another one that is no resource
/// of it and that shares users between its groups; its name, that listener and the other one.
async fn redirecting(made: &Made, ports: [i32; 2]) -> (String, String, String) {
    let group = |name: &str| {
        json!({
            "Type": "AWS::ElasticLoadBalancingV2::TargetGroup",
            "Properties": {
                "Name": name, "Port": 8000, "Protocol": "HTTP", "TargetType": "ip",
                "VpcId": {"Ref": "Vpc"},
            },
        })
    };
    let name = emulator::unique("apart");
    let template = json!({
        "Parameters": {"Balancer": {"Type": "String"}, "Vpc": {"Type": "String"}},
        "Resources": {
            "Stable": group(&format!("{name}-stable")),
            "Canary": group(&format!("{name}-canary")),
            "Listener": {
                "Type": "AWS::ElasticLoadBalancingV2::Listener",
                "Properties": {
                    "LoadBalancerArn": {"Ref": "Balancer"}, "Port": ports[0], "Protocol": "HTTP",
                    "DefaultActions": [{"Type": "redirect", "RedirectConfig": {
                        "Protocol": "HTTPS", "Port": ports[1].to_string(), "StatusCode": "HTTP_301",
                    }}],
                },
            },
        },
    });
    let place = folder();
    let file = place.path().join("apart.json");
    std::fs::write(&file, template.to_string()).expect("written");
    let described = ["elbv2", "describe-load-balancers", "--load-balancer-arns"];
    let described = [&described[..], &[made.balancer.as_str()]].concat();
    let (of_stack, balancer) = (name.clone(), made.balancer.clone());
    let described: Vec<String> = described.into_iter().map(ToOwned::to_owned).collect();
    let resources = tokio::task::spawn_blocking(move || {
        let described: Vec<&str> = described.iter().map(String::as_str).collect();
        let balancers = emulator::aws(REGION, &described);
        let vpc = balancers["LoadBalancers"][0]["VpcId"]
            .as_str()
            .expect("a network");
        let parameters = [format!("Balancer={balancer}"), format!("Vpc={vpc}")];
        let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
        stack(REGION, &of_stack, &file, &parameters);
        let list = [
            "cloudformation",
            "list-stack-resources",
            "--stack-name",
            &of_stack,
        ];
        emulator::aws(REGION, &list)["StackResourceSummaries"].clone()
    });
    let resources = resources.await.expect("made");
    let of = |id: &str| {
        let mut all = resources.as_array().expect("a list").iter();
        let found = all.find(|r| r["LogicalResourceId"] == id).expect("there");
        found["PhysicalResourceId"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    let (stable, canary) = (of("Stable"), of("Canary"));
    for (group, address) in [(&stable, "10.0.0.11"), (&canary, "10.0.0.12")] {
        let elb = direct().await.elb;
        let register = elb.register_targets().target_group_arn(group);
        let task = TargetDescription::builder().id(address).port(8000).build();
        register.targets(task).send().await.expect("a task");
    }
    let both = forward(&[(&stable, 50), (&canary, 50)]);
    let beside = listener(&made.balancer, ports[1], both).await;
    (name, of("Listener"), beside)
}

/// The stack's own listener redirects to 443, which is no resource of it: a folder that knows
/// nothing finds the users there by the groups of the stack, and says where they are.
#[tokio::test(flavor = "multi_thread")]
async fn users_beside_a_stack_that_redirects_are_found_and_taken_back() {
    let made = make(&Wish::default()).await;
    let (name, own, beside) = redirecting(&made, [81, 443]).await;
    let by_listener = on_aws(AwsRequest {
        listener: Some(own.clone()),
        stack: None,
        ..on_stack(REGION, &name)
    });
    let by_stack = on_aws(on_stack(REGION, &name));
    for (at, named) in [(by_stack, "stack"), (by_listener, "listener")] {
        let test = TestApp::new();
        let seen = overview(&test.app, &at, None).await.expect("seen");
        let live = seen.live.expect("it answers").seen.observed;
        assert_eq!(live.weights().share("canary"), 50.0, "{named}");
        let back = rollback(&test.app, &at, None).await.expect("taken back");
        assert!(
            matches!(back, TakenBack::Moved(moved) if moved.changed()),
            "{named}"
        );
        assert_eq!(weights(&beside), [100, 0], "{named}");
        // What raises traffic asks for a route that is named.
        let set = set_weights(&test.app, &at, &texts(&["50", "50"])).await;
        set.expect_err("it redirects");
        let alone = on_aws(AwsRequest {
            listener: Some(beside.clone()),
            stack: None,
            ..on_stack(REGION, &name)
        });
        let set = set_weights(&test.app, &alone, &texts(&["50", "50"])).await;
        set.expect("named");
    }
    // One route alone is that one.
    let only = on_aws(AwsRequest {
        only: true,
        ..on_stack(REGION, &name)
    });
    let back = rollback(&TestApp::new().app, &only, None).await;
    refused(back, Kind::Usage, &["forwards to two target groups"]);
    assert_eq!(weights(&beside), [50, 50]);
}

/// Siblings: a listener that answers itself means no other one, and a listener that redirects
/// to one whose rules alone share requests does not mean those.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_means_no_other_one_that_it_does_not_redirect_to() {
    let made = make(&Wish {
        weights: [50, 50],
        ..Wish::default()
    })
    .await;
    let [stable, canary] = &made.groups;
    let both = || forward(&[(stable, 50), (canary, 50)]);
    let to = listener(&made.balancer, 443, forward(&[(stable, 1)])).await;
    let narrow = rule(&to, 7, both()).await;
    let from = listener(&made.balancer, 8090, redirect()).await;
    let at = on_aws(AwsRequest {
        listener: Some(from),
        ..on(&made)
    });
    let back = rollback(&TestApp::new().app, &at, None).await;
    refused(back, Kind::Usage, &["forwards to two target groups"]);
    for route in [&made.listener, &narrow] {
        assert_eq!(weights(route), [50, 50]);
    }
}

/// A route that has gone has nobody to move, and is not printed as one that has moved.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_has_moved_is_printed_as_moved() {
    let several = several([50, 50]).await;
    let place = folder();
    let name = several.made.listener.clone();
    let by_binary = async |verb: &[&str]| {
        let arguments = [verb, &["--listener", &name]].concat();
        let arguments: Vec<String> = arguments.into_iter().map(ToOwned::to_owned).collect();
        let folder = place.path().to_owned();
        let ran = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            run(&folder, REGION, &arguments)
        });
        ran.await.expect("it runs")
    };
    let first = by_binary(&["rollback"]).await;
    let said = stdout(&first);
    assert!(
        said.contains("HTTP:443 too (was stable 50 %, canary 50 %)"),
        "{said}"
    );
    // From here on the folder knows the target by the route that is to go.
    let half = by_binary(&["set-weights", "50", "50"]).await;
    assert_eq!(half.status.code(), Some(0), "{}", stderr(&half));
    change(&name, &several.made.groups, "", Becomes::Gone).await;
    let second = by_binary(&["rollback"]).await;
    assert_eq!(second.status.code(), Some(0), "{}", stderr(&second));
    assert_eq!(weights(&several.routes[1]), [100, 0]);
    let (said, noted) = (stdout(&second), stderr(&second));
    assert!(!said.contains("HTTP:80 too"), "{said}");
    assert!(
        noted.contains("HTTP:80: it does not exist any more"),
        "{noted}"
    );
}

/// A verb moves what it has claimed. A listener that comes after that may be another
/// rollout's.
#[tokio::test(flavor = "multi_thread")]
async fn a_verb_moves_no_route_that_it_has_not_claimed() {
    let made = make(&Wish::default()).await;
    let test = TestApp::new();
    let (spec, _) = test.app.target(&on_aws(on(&made))).await.expect("found");
    let both = forward(&[(&made.groups[0], 80), (&made.groups[1], 20)]);
    let second = listener(&made.balancer, 443, both).await;
    let pinned = test.app.ports.reach(&spec).await.expect("there");
    let shares = Weights::of([("stable", 60), ("canary", 40)]);
    pinned.set_weights(&shares).await.expect("done");
    assert_eq!(weights(&made.listener), [60, 40]);
    assert_eq!(weights(&second), [80, 20]);
}

/// One slow answer makes all that was read beside it old: what somebody has put at the
/// listener meanwhile is seen before anything is based on it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_beside_a_slow_answer_is_read_again() {
    let made = make(&Wish::default()).await;
    let proxy = Proxy::start().await;
    let test = TestApp::through(&proxy.endpoint);
    let at = on_aws(on(&made));
    // From now on the target is remembered, and only looked at.
    let half = set_weights(&test.app, &at, &texts(&["50", "50"])).await;
    half.expect("done");
    let slow = AtomicBool::new(true);
    proxy.plot(move |_, name| match name {
        "DescribeRules" if slow.swap(false, Ordering::SeqCst) => {
            Trouble::Late(std::time::Duration::from_millis(1_200))
        }
        _ => Trouble::None,
    });
    let (_, target) = test.app.target(&at).await.expect("there");
    let both = forward(&[(&made.groups[0], 100), (&made.groups[1], 0)]);
    write(&made.listener, both).await;
    let live = target.traffic().await.expect("readable").weights;
    assert!(live.shares_like(&Weights::of([("stable", 100), ("canary", 0)])));
}

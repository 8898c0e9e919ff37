//! Several listeners and rules that share the same two groups: found together, moved
//! together, and brought together again wherever it breaks off.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, AuthenticateOidcActionConfig, RuleCondition,
    TargetGroupStickinessConfig,
};
use engine::journal::{Call, Event, Reply};
use engine::model::aws::Find;
use engine::model::{End, Hold, Outcome, Verdict, Weights};
use engine::ops::Kind;
use engine::ops::begin::{BeginRequest, make_ready};
use engine::ops::find::Purpose;
use engine::ops::plan::{Wanted, plan};
use engine::ops::request::{AwsRequest, TargetRequest};
use engine::ops::status::overview;
use engine::ops::traffic::{set_weights, switch};
use engine::ops::way_back::{TakenBack, rollback};
use engine::rollout::session::Calls;
use engine::rollout::{Ran, Standing};
use engine::store::Schedule as _;
use engine::target::Target as _;
use engine::view::traffic as view;
use serde_json::{Value, json};

use super::routes::{balancer, discover, listener, rule, weights};
use crate::schemas;
use crate::support::app::{TestApp, on, on_aws, on_stack, refused, rollout, texts};
use crate::support::aws::bottle::{
    Bottle, Made, REGION, Wish, direct, find, forward, make, redirect,
};
use crate::support::aws::emulator::{self, aws};
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::aws::stack;
use crate::support::folder;
use crate::support::lab::{self, Scripted};

/// A listener on port 80, one on port 443 and a rule, all to the same two groups.
pub(super) struct Several {
    pub(super) made: Made,
    pub(super) routes: [String; 3],
}

pub(super) async fn several(shares: [i32; 2]) -> Several {
    let made = make(&Wish {
        weights: shares,
        ..Wish::default()
    })
    .await;
    let both = || forward(&[(&made.groups[0], shares[0]), (&made.groups[1], shares[1])]);
    let second = listener(&made.balancer, 443, both()).await;
    let narrow = rule(&made.listener, 5, both()).await;
    let routes = [made.listener.clone(), second, narrow];
    Several { made, routes }
}

impl Several {
    pub(super) fn weights(&self) -> [Vec<i64>; 3] {
        self.routes.clone().map(|route| weights(&route))
    }

    pub(super) fn at(&self) -> TargetRequest {
        on_aws(on(&self.made))
    }

    pub(super) async fn bottle(&self, verdict: Verdict) -> Bottle {
        let made = self.made.clone();
        let mut bottle = Bottle::around(made, Arc::new(steps(verdict, || {})), json!({})).await;
        // What the driver does with tasks and releases is not what these tests are about.
        bottle.header.capacity = None;
        assert_eq!(bottle.header.target.also().len(), 2, "found together");
        bottle
    }
}

/// What every route has.
pub(super) fn all(shares: [i64; 2]) -> [Vec<i64>; 3] {
    [shares.to_vec(), shares.to_vec(), shares.to_vec()]
}

pub(super) type Running = Pin<Box<dyn Future<Output = Ran> + Send>>;

/// Two steps and a verdict. Something happens after the first one.
pub(super) fn steps(
    verdict: Verdict,
    meanwhile: impl Fn() + Send + Sync + Clone + 'static,
) -> Scripted<impl Fn(Arc<dyn Calls>) -> Running + Send + Sync> {
    Scripted(move |calls: Arc<dyn Calls>| -> Running {
        let meanwhile = meanwhile.clone();
        Box::pin(async move {
            for canary in [10, 60] {
                let weights = Weights::of([("stable", 100 - canary), ("canary", canary)]);
                match calls.perform(Call::SetWeights { weights }).await {
                    Err(_) => return Ran::Interrupted,
                    Ok(Reply::Failed(e)) => return Ran::Returned(Err(e.to_string())),
                    Ok(_) => meanwhile(),
                }
            }
            Ran::Returned(Ok(Outcome {
                verdict,
                reason: "said the test".to_owned(),
            }))
        })
    })
}

pub(super) fn modifies(name: &str) -> bool {
    name == "ModifyListener" || name == "ModifyRule"
}

fn login() -> Action {
    let oidc = AuthenticateOidcActionConfig::builder()
        .issuer("https://login.example.org")
        .authorization_endpoint("https://login.example.org/a")
        .token_endpoint("https://login.example.org/t")
        .user_info_endpoint("https://login.example.org/u")
        .client_id("shop")
        .client_secret("s");
    Action::builder()
        .r#type(ActionTypeEnum::AuthenticateOidc)
        .order(1)
        .authenticate_oidc_config(oidc.build())
        .build()
}

/// A rule for a host that wants a login and keeps its clients on their arm.
async fn with_login(made: &Made) -> String {
    let mut shares = forward(&[(&made.groups[0], 100), (&made.groups[1], 0)]);
    shares.order = Some(2);
    let config = shares.forward_config.as_mut().expect("forwards");
    let sticky = TargetGroupStickinessConfig::builder();
    let sticky = sticky.enabled(true).duration_seconds(900).build();
    config.target_group_stickiness_config = Some(sticky);
    let host = RuleCondition::builder().field("host-header");
    let created = direct().await.elb.create_rule();
    let created = created
        .listener_arn(&made.listener)
        .priority(9)
        .conditions(host.values("shop.example.org").build())
        .actions(login())
        .actions(shares);
    let made = created.send().await.expect("a rule");
    made.rules()[0].rule_arn().expect("ARN").to_owned()
}

/// A rule as the AWS CLI shows it, without its weights.
fn without_weights(rule: &str) -> Value {
    let described = ["elbv2", "describe-rules", "--rule-arns", rule];
    let mut shown = emulator::aws(REGION, &described)["Rules"][0].clone();
    for action in shown["Actions"].as_array_mut().expect("actions") {
        let groups = action["ForwardConfig"]["TargetGroups"].as_array_mut();
        for group in groups.into_iter().flatten() {
            group["Weight"] = json!(null);
        }
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_share_the_two_groups_move_and_nothing_else_does() {
    let several = several([100, 0]).await;
    let made = &several.made;
    // None of these takes part.
    listener(&made.balancer, 8081, redirect()).await;
    let alone = listener(&made.balancer, 8082, forward(&[(&made.groups[0], 1)])).await;
    let away = forward(&[(&made.groups[0], 0), (&made.groups[1], 100)]);
    let preview = listener(&made.balancer, 8083, away).await;
    let secured = with_login(made).await;
    let before = without_weights(&secured);
    let found = discover(&find(made)).await.expect("found");
    assert_eq!(found.route, made.listener);
    assert_eq!(found.place, "HTTP:80");
    let mut places: Vec<&str> = found.also.iter().map(|a| a.place.as_str()).collect();
    places.sort_unstable();
    assert_eq!(places, ["HTTP:443", "HTTP:80 rule 5", "HTTP:80 rule 9"]);

    let test = TestApp::new();
    let at = several.at();
    let moved = set_weights(&test.app, &at, &texts(&["90", "10"])).await;
    let moved = moved.expect("done");
    assert!(moved.changed());
    let answer = schemas::shown(&view::Change::from(&moved));
    assert_eq!(answer["routes"].as_array().map(Vec::len), Some(3));
    assert_eq!(several.weights(), all([90, 10]));
    let shown = emulator::aws(
        REGION,
        &["elbv2", "describe-rules", "--rule-arns", &secured],
    );
    let groups = &shown["Rules"][0]["Actions"][1]["ForwardConfig"]["TargetGroups"];
    assert_eq!(
        (&groups[0]["Weight"], &groups[1]["Weight"]),
        (&json!(90), &json!(10))
    );
    assert_eq!(
        without_weights(&secured),
        before,
        "login, cookie, host and priority"
    );
    assert_eq!(weights(&preview), [0, 100], "as listeners for tests do");
    let seen = overview(&test.app, &at, None).await.expect("seen");
    let shown = schemas::shown(&view::Standing::from(&seen));
    let routes = shown["target"]["routes"].as_array().expect("routes");
    assert!(
        routes.iter().all(|r| r["weights"][1]["weight"] == 10),
        "{routes:?}"
    );
    let elsewhere = shown["target"]["elsewhere"].to_string();
    assert!(
        elsewhere.contains(&alone) && !elsewhere.contains(&secured),
        "{elsewhere}"
    );

    // One that was moved by hand is no state in which nothing is to be done.
    let at = on_aws(AwsRequest {
        test_listeners: vec![preview.clone()],
        ..on(&several.made)
    });
    rollback(&test.app, &at, None).await.expect("done");
    assert_eq!(several.weights(), all([100, 0]));
    let stray = forward(&[(&made.groups[0], 30), (&made.groups[1], 70)]);
    let modify = direct()
        .await
        .elb
        .modify_rule()
        .rule_arn(&several.routes[2]);
    modify.actions(stray).send().await.expect("moved");
    let back = rollback(&test.app, &at, None).await.expect("done");
    let TakenBack::Moved(moved) = back else {
        panic!("{back:?}");
    };
    assert!(moved.changed(), "{moved:?}");
    assert_eq!(several.weights(), all([100, 0]));
    let back = rollback(&test.app, &at, None).await.expect("done");
    assert!(matches!(back, TakenBack::Moved(moved) if !moved.changed()));
    switch(&test.app, &at, "canary").await.expect("done");
    assert_eq!(several.weights(), all([0, 100]));

    // And one alone.
    let only = on_aws(AwsRequest {
        only: true,
        ..on(made)
    });
    set_weights(&test.app, &only, &texts(&["50", "50"]))
        .await
        .expect("done");
    assert_eq!(
        several.weights(),
        [vec![50, 50], vec![0, 100], vec![0, 100]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_raised_last_is_taken_back_first() {
    let several = several([100, 0]).await;
    let delete = direct().await.elb.delete_listener();
    let delete = delete.listener_arn(&several.routes[1]);
    delete.send().await.expect("gone");
    let proxy = Proxy::start().await;
    let test = TestApp::through(&proxy.endpoint);
    let wrote = || {
        proxy
            .take()
            .into_iter()
            .filter(|c| modifies(c))
            .collect::<Vec<_>>()
    };
    set_weights(&test.app, &several.at(), &texts(&["90", "10"]))
        .await
        .expect("done");
    assert_eq!(wrote(), ["ModifyRule", "ModifyListener"]);
    rollback(&test.app, &several.at(), None)
        .await
        .expect("done");
    assert_eq!(wrote(), ["ModifyListener", "ModifyRule"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_are_apart_at_the_beginning_are_refused_and_brought_together() {
    let several = several([100, 0]).await;
    let made = &several.made;
    let apart = forward(&[(&made.groups[0], 80), (&made.groups[1], 20)]);
    let modify = direct()
        .await
        .elb
        .modify_listener()
        .listener_arn(&several.routes[1]);
    modify.default_actions(apart).send().await.expect("moved");
    let test = TestApp::new();
    let request = |at: &TargetRequest| rollout("canary", at.clone(), &[]);
    let says = [
        "HTTP:443 is at stable 80 %, canary 20 %",
        "`engine set-weights stable=100 canary=0`",
        "--only",
    ];
    let begun = test.begin(&request(&several.at())).await;
    refused(begun, Kind::Busy, &says);
    // As it says.
    let given = texts(&["stable=100", "canary=0"]);
    set_weights(&test.app, &several.at(), &given)
        .await
        .expect("done");
    assert_eq!(several.weights(), all([100, 0]));
    test.begin(&request(&several.at()))
        .await
        .expect("it begins");
}

/// A rehearsal moves every route of its copy, or it would never come to an end.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_comes_to_an_end_and_has_a_write_for_every_route() {
    let several = several([100, 0]).await;
    for promotion in ["", "-swap"] {
        let test = TestApp::new();
        let request = BeginRequest {
            image: (promotion.is_empty()).then(|| "app:v2".to_owned()),
            ..rollout(
                "canary",
                several.at(),
                &["steps=10", "gate=limits", "bake=1m"],
            )
        };
        let ready = make_ready(&test.app, &request).await.expect("ready");
        let plan = plan(&test.app, ready, Wanted::Calls)
            .await
            .expect("it ends");
        assert_eq!(plan.good.end, Some(End::Promoted));
        assert_eq!(plan.found.also.len(), 2);
        let shown = engine::view::text(&engine::view::plan::Plan::from(&plan));
        schemas::fits("plan", &serde_json::from_str(&shown).expect("JSON"));
        let moves = plan.writes(&plan.good);
        let moves = moves.iter().filter(|w| modifies(w.api.name())).count();
        assert_eq!(moves % 3, 0, "{shown}");
        assert!(moves >= 6, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rules_of_one_app_are_found_by_its_stack() {
    let made = make(&Wish::default()).await;
    let template = json!({
        "Parameters": {
            "Listener": {"Type": "String"},
            "Stable": {"Type": "String"},
            "Canary": {"Type": "String"},
        },
        "Resources": {"Shop": rule_of_a_stack(11, "/shop/*"), "Cart": rule_of_a_stack(12, "/cart/*")},
    });
    let place = folder();
    let file = place.path().join("rules.json");
    std::fs::write(&file, template.to_string()).expect("written");
    // The balancer is shared: its default action is not this app's.
    let modify = direct()
        .await
        .elb
        .modify_listener()
        .listener_arn(&made.listener);
    modify
        .default_actions(redirect())
        .send()
        .await
        .expect("shared");
    let name = emulator::unique("rules");
    let parameters = [
        format!("Listener={}", made.listener),
        format!("Stable={}", made.groups[0]),
        format!("Canary={}", made.groups[1]),
    ];
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    let (of_stack, template) = (name.clone(), file.clone());
    let parameters: Vec<String> = parameters.into_iter().map(ToOwned::to_owned).collect();
    let made_it = tokio::task::spawn_blocking(move || {
        let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
        stack(REGION, &of_stack, &template, &parameters);
    });
    made_it.await.expect("made");
    let by_stack = Find {
        stack: Some(name.clone()),
        listener: None,
        ..find(&made)
    };
    let found = discover(&by_stack).await.expect("found");
    assert_eq!(found.also.len(), 1, "{found:?}");
    let test = TestApp::new();
    let at = on_aws(AwsRequest {
        cluster: Some(made.cluster.clone()),
        ..on_stack(REGION, &name)
    });
    set_weights(&test.app, &at, &texts(&["70", "30"]))
        .await
        .expect("done");
    for route in found.routes() {
        assert_eq!(weights(route), [70, 30]);
    }
    let only = Find {
        only: true,
        ..by_stack
    };
    let error = discover(&only).await.expect_err("which one");
    for route in found.routes() {
        assert!(
            error.message.contains(&format!("--rule {route}")),
            "{error}"
        );
    }
}

fn rule_of_a_stack(priority: u32, path: &str) -> Value {
    let group =
        |name: &str, weight: u32| json!({"TargetGroupArn": {"Ref": name}, "Weight": weight});
    json!({
        "Type": "AWS::ElasticLoadBalancingV2::ListenerRule",
        "Properties": {
            "ListenerArn": {"Ref": "Listener"},
            "Priority": priority,
            "Conditions": [{"Field": "path-pattern", "Values": [path]}],
            "Actions": [{"Type": "forward", "ForwardConfig": {
                "TargetGroups": [group("Stable", 100), group("Canary", 0)],
            }}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_group_keeps_its_zero_or_is_refused_with_hints_that_work() {
    let several = several([100, 0]).await;
    let stranger = make(&Wish::default()).await.groups[0].clone();
    let [stable, canary] = &several.made.groups;
    let third = async |weight: i32| {
        let three = forward(&[(stable, 100), (canary, 0), (&stranger, weight)]);
        let modify = direct()
            .await
            .elb
            .modify_rule()
            .rule_arn(&several.routes[2]);
        modify.actions(three).send().await.expect("three");
    };
    third(20).await;
    let test = TestApp::new();
    let given = texts(&["90", "10"]);
    let says = ["HTTP:80 rule 5", &several.routes[2], "weight 0", "--only"];
    let set = set_weights(&test.app, &several.at(), &given).await;
    refused(set, Kind::Busy, &says);
    let begun = test.begin(&rollout("canary", several.at(), &[])).await;
    refused(begun, Kind::Usage, &says);
    let seen = overview(&test.app, &several.at(), None)
        .await
        .expect("seen");
    assert!(
        seen.live.expect("it answers").fit.is_err(),
        "and it is shown"
    );
    // The first hint.
    let only = on_aws(AwsRequest {
        only: true,
        ..on(&several.made)
    });
    set_weights(&test.app, &only, &given)
        .await
        .expect("as the hint says");
    assert_eq!(several.weights()[1], [100, 0]);
    // The way back does not ask.
    rollback(&test.app, &several.at(), None)
        .await
        .expect("done");
    assert_eq!(several.weights()[2], [100, 0, 20]);
    // The other hint.
    third(0).await;
    let fresh = TestApp::new();
    set_weights(&fresh.app, &several.at(), &given)
        .await
        .expect("as the hint says");
    assert_eq!(
        several.weights(),
        [vec![90, 10], vec![90, 10], vec![90, 10, 0]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_that_name_different_routes_of_a_set_exclude_each_other() {
    let several = several([100, 0]).await;
    let by = |listener: Option<usize>, rule: Option<usize>, only| {
        on_aws(AwsRequest {
            listener: listener.map(|n| several.routes[n].clone()),
            rule: rule.map(|n| several.routes[n].clone()),
            only,
            ..on(&several.made)
        })
    };
    let names = [
        by(Some(0), None, false),
        by(Some(1), None, false),
        by(None, Some(2), false),
    ];
    let alone = by(None, Some(2), true);
    let given = texts(&["90", "10"]);
    for first in names.iter().chain([&alone]) {
        let test = TestApp::new();
        let mut request = rollout("canary", first.clone(), &[]);
        swaps(&test, &mut request, &several.made);
        let id = test.begin_and_leave(&request).await;
        for second in &names {
            let again = rollout("canary", second.clone(), &[]);
            refused(test.begin(&again).await, Kind::Busy, &[&id]);
            let set = set_weights(&test.app, second, &given).await;
            refused(set, Kind::Busy, &[&id]);
        }
        assert_eq!(several.weights(), all([100, 0]));
        let meant = test
            .app
            .meant(first, None, Purpose::GoOn)
            .await
            .expect("found");
        assert_eq!(meant.0.rollout, id);
        let back = rollback(&test.app, first, None).await.expect("given up");
        assert!(matches!(back, TakenBack::Aborted(_)), "{back:?}");
        assert_eq!(test.store.open(None).await.expect("memory").len(), 0);
    }
    // By a route that it was not begun with.
    let test = TestApp::new();
    let id = test
        .begin_and_leave(&rollout("canary", names[0].clone(), &[]))
        .await;
    for name in &names[1..] {
        assert_eq!(
            test.app
                .meant(name, None, Purpose::GoOn)
                .await
                .expect("found")
                .0
                .rollout,
            id
        );
    }
    rollback(&test.app, &names[1], None)
        .await
        .expect("given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raise_that_fails_on_one_route_takes_the_others_back() {
    for broken in [1, 2] {
        let several = several([100, 0]).await;
        let bottle = several.bottle(Verdict::Promoted).await;
        let writes = AtomicUsize::new(0);
        bottle.proxy.plot(move |_, name| {
            let is_it = modifies(name) && writes.fetch_add(1, Ordering::SeqCst) == broken;
            match is_it {
                true => Trouble::Refused(403, "AccessDenied"),
                false => Trouble::None,
            }
        });
        let standing = bottle.run().await;
        assert!(
            matches!(standing, Standing::Over(End::RolledBack, _)),
            "{standing:?}"
        );
        assert_eq!(several.weights(), all([100, 0]));
        let journal = bottle.journal().await;
        let answers: Vec<String> = journal
            .iter()
            .filter_map(|entry| match &entry.event {
                Event::Answered {
                    reply: Reply::Failed(error),
                    ..
                } => Some(error.to_string()),
                _ => None,
            })
            .collect();
        let [answer] = &answers[..] else {
            panic!("one answer: {answers:?}");
        };
        assert!(answer.contains("HTTP:"), "which route: {answer}");
        assert!(answer.contains("were taken back"), "{answer}");
        // All of it is one write of the journal: the way back had nothing left to do.
        assert_eq!(lab::writes(&journal), ["set-weights stable=90 canary=10"]);
        let modified = bottle
            .proxy
            .take()
            .into_iter()
            .filter(|c| modifies(c))
            .count();
        assert_eq!(
            modified,
            2 * broken + 1,
            "what had moved went back, and no more"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_fails_on_one_route_takes_the_rest_back_and_says_which_is_left() {
    let several = several([50, 50]).await;
    let proxy = Proxy::start().await;
    let test = TestApp::through(&proxy.endpoint).hurried();
    for denied in ["ModifyRule", "DescribeRules"] {
        let begun = AtomicBool::new(false);
        let seen = begun;
        proxy.plot(move |_, name| {
            // The set was found before.
            let writing = seen.fetch_or(modifies(name), Ordering::SeqCst) || modifies(name);
            match name == denied && writing {
                true => Trouble::Refused(403, "AccessDenied"),
                false => Trouble::None,
            }
        });
        let back = rollback(&test.app, &several.at(), None).await;
        refused(back, Kind::RollbackFailed, &["HTTP:80 rule 5"]);
        let mut rest = several.weights();
        let left = rest[2].clone();
        rest[2] = vec![100, 0];
        assert_eq!(rest, all([100, 0]), "{denied}");
        if denied == "ModifyRule" {
            assert_eq!(left, [50, 50]);
        }
        proxy.calm();
        rollback(&test.app, &several.at(), None)
            .await
            .expect("done");
        assert_eq!(several.weights(), all([100, 0]));
        switch(&test.app, &several.at(), "canary")
            .await
            .expect("done");
    }
}

/// Dies at the n-th write of a whole rollout, before or after its effect, and goes on.
async fn dies_at(n: usize, after: bool, verdict: Verdict) -> usize {
    let several = several([100, 0]).await;
    let bottle = several.bottle(verdict).await;
    let dead = bottle.doomed();
    dead.begin(bottle.header.clone()).await.expect("it begins");
    let reached = Arc::new(AtomicBool::new(false));
    let (signal, writes) = (reached.clone(), AtomicUsize::new(0));
    bottle.proxy.plot(move |_, name| {
        if signal.load(Ordering::SeqCst) {
            return Trouble::Reset;
        }
        if !modifies(name) || writes.fetch_add(1, Ordering::SeqCst) < n {
            return Trouble::None;
        }
        signal.store(true, Ordering::SeqCst);
        match after {
            true => Trouble::AnswerLost,
            false => Trouble::Reset,
        }
    });
    bottle.store.bury(dead.owner.clone());
    {
        let mut fleet = engine::rollout::fleet::Fleet::new(dead);
        fleet.add(lab::ID.to_owned(), 0);
        lab::until_dead(fleet.next(), &reached).await;
    }
    bottle.proxy.settled().await;
    let wrote = bottle
        .proxy
        .take()
        .into_iter()
        .filter(|c| modifies(c))
        .count();
    bottle.proxy.calm();
    let standing = bottle.go_on().await.expect("the driver works");
    let end = match verdict {
        Verdict::Promoted => End::Promoted,
        _ => End::RolledBack,
    };
    let at = format!("write {n}, after {after}: {standing:?}");
    assert!(
        matches!(&standing, Standing::Over(is, _) if *is == end),
        "{at}"
    );
    assert_eq!(several.weights(), all([100, 0]), "{at}");
    wrote
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_die_before_and_after_every_write_of_a_set() {
    let whole = dies_at(usize::MAX, false, Verdict::RolledBack).await;
    assert_eq!(whole, 9, "two steps and the way back, on three routes");
    let deaths: Vec<(usize, bool)> = (0..whole).flat_map(|n| [(n, false), (n, true)]).collect();
    let lanes = deaths.chunks(deaths.len().div_ceil(3)).map(|some| {
        let some = some.to_vec();
        tokio::spawn(async move {
            for (n, after) in some {
                dies_at(n, after, Verdict::RolledBack).await;
            }
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.expect("no panic in a lane");
    }
}

/// A rollout in whose middle somebody does something to one of the other routes.
pub(super) async fn disturbed(
    several: &Several,
    meanwhile: impl Fn() + Send + Sync + Clone + 'static,
) -> Bottle {
    let mut bottle = several.bottle(Verdict::Promoted).await;
    bottle.strategy = Arc::new(steps(Verdict::Promoted, meanwhile));
    bottle
}

pub(super) async fn abort(bottle: &Bottle) -> Standing {
    let signal = engine::model::Signal {
        id: "abort-1".to_owned(),
        name: "abort".to_owned(),
        actor: "test".to_owned(),
        payload: String::new(),
        until: None,
    };
    bottle.store.signal(lab::ID, &signal).await.expect("sent");
    bottle.go_on().await.expect("the driver works")
}

/// What somebody does with the AWS CLI.
pub(super) fn by_hand(arguments: &[&str]) {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let done = std::thread::spawn(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        aws(REGION, &arguments);
    });
    done.join().expect("it does");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_write_on_any_route_holds_the_rollout() {
    let several = several([100, 0]).await;
    let narrow = several.routes[2].clone();
    let [stable, canary] = several.made.groups.clone();
    let bottle = disturbed(&several, move || {
        let group = |arn: &str, weight: u32| json!({"TargetGroupArn": arn, "Weight": weight});
        let actions = json!([{"Type": "forward", "ForwardConfig": {
            "TargetGroups": [group(&stable, 40), group(&canary, 60)]}}]);
        let actions = actions.to_string();
        by_hand(&[
            "elbv2",
            "modify-rule",
            "--rule-arn",
            &narrow,
            "--actions",
            &actions,
        ]);
    })
    .await;
    let standing = bottle.run().await;
    let Standing::Held(Hold::ForeignChange {
        expected,
        found,
        place,
    }) = &standing
    else {
        panic!("{standing:?}");
    };
    assert_eq!(place.as_deref(), Some("HTTP:80 rule 5"));
    assert_eq!(
        (expected.share("canary"), found.share("canary")),
        (10.0, 60.0)
    );
    assert_eq!(
        several.weights(),
        [vec![90, 10], vec![90, 10], vec![40, 60]]
    );
    let standing = abort(&bottle).await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    assert_eq!(several.weights(), all([100, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_deleted_meanwhile_holds_a_raise_and_no_way_back() {
    let several = several([100, 0]).await;
    let second = several.routes[1].clone();
    let bottle = disturbed(&several, move || {
        by_hand(&["elbv2", "delete-listener", "--listener-arn", &second]);
    })
    .await;
    let standing = bottle.run().await;
    let Standing::Held(Hold::Stuck { reason }) = &standing else {
        panic!("{standing:?}");
    };
    assert!(
        reason.contains("HTTP:443: it does not exist any more"),
        "{reason}"
    );
    let standing = abort(&bottle).await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    assert_eq!(weights(&several.routes[0]), [100, 0]);
    assert_eq!(weights(&several.routes[2]), [100, 0]);
    let live = bottle.target.traffic().await.expect("read");
    assert!(live.all_on("stable"), "{live:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_on_two_balancers_move_by_hand_and_are_not_judged() {
    let made = make(&Wish::default()).await;
    let both = || forward(&[(&made.groups[0], 100), (&made.groups[1], 0)]);
    let name = emulator::unique("other");
    let other = listener(&balancer(&name).await, 80, redirect()).await;
    let far = rule(&other, 3, both()).await;
    let near = rule(&made.listener, 3, both()).await;
    let test = TestApp::new();
    let by = |only| {
        on_aws(AwsRequest {
            listener: None,
            rule: Some(near.clone()),
            only,
            ..on(&made)
        })
    };
    set_weights(&test.app, &by(false), &texts(&["80", "20"]))
        .await
        .expect("done");
    for route in [&near, &far, &made.listener] {
        assert_eq!(weights(route), [80, 20]);
    }
    let seen = overview(&test.app, &by(false), None).await.expect("seen");
    let others = seen.live.expect("it answers").seen.observed.others;
    let place = format!("HTTP:80 of {name} rule 3");
    assert!(others.iter().any(|o| o.place == place), "{others:?}");
    rollback(&test.app, &by(false), None).await.expect("done");
    for route in [&near, &far, &made.listener] {
        assert_eq!(weights(route), [100, 0]);
    }
    let begun = test.begin(&rollout("canary", by(false), &[])).await;
    refused(
        begun,
        Kind::Usage,
        &[&place, "another load balancer", "--only"],
    );
    let mut alone = rollout("canary", by(true), &[]);
    swaps(&test, &mut alone, &made);
    test.begin(&alone).await.expect("as it says");
}

/// Where other routes send their users to an arm, no copy may replace what it runs.
fn swaps(test: &TestApp, request: &mut BeginRequest, made: &Made) {
    let file = format!(
        "promotion = \"swap\"\n[target]\nkind = \"aws\"\n[target.aws]\nlistener = \"{}\"\n",
        made.listener
    );
    request.target.file = Some(test.write("swap.toml", file));
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_set_by_hand_are_taken_back_if_one_route_refuses_them() {
    let several = several([100, 0]).await;
    let proxy = Proxy::start().await;
    let test = TestApp::through(&proxy.endpoint);
    let writes = AtomicUsize::new(0);
    proxy.plot(move |_, name| {
        let is_it = modifies(name) && writes.fetch_add(1, Ordering::SeqCst) == 1;
        match is_it {
            true => Trouble::Refused(403, "AccessDenied"),
            false => Trouble::None,
        }
    });
    let given = texts(&["80", "20"]);
    let set = set_weights(&test.app, &several.at(), &given).await;
    refused(set, Kind::Busy, &["HTTP:", "were taken back"]);
    assert_eq!(several.weights(), all([100, 0]));
    set_weights(&test.app, &several.at(), &given)
        .await
        .expect("done");
    assert_eq!(several.weights(), all([80, 20]));
}

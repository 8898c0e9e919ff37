//! Several ways to the same arms: other listeners, rules, load balancers, and
//! what is not done to an arm that one of them serves. Who is who, and which
//! route is meant.

use std::sync::Arc;

use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, FixedResponseActionConfig, ProtocolEnum, RuleCondition,
};
use engine::clock::SystemClock;
use engine::journal::{Call, Event};
use engine::model::aws::{Access, Find, Found};
use engine::model::{End, ErrorKind, HostError, Promotion, Way};
use engine::ops::begin::BeginRequest;
use engine::ops::request::{AwsRequest, TargetRequest};
use engine::ops::status::overview;
use engine::ops::traffic::{set_weights, switch};
use engine::ops::way_back::{TakenBack, rollback};
use engine::ops::{Kind, Result};
use engine::rollout::Standing;
use engine::target::Target as _;
use engine::target::aws::client::Clients;
use engine::view::traffic as view;
use serde_json::json;

use crate::schemas;
use crate::support::app::{TestApp, on, on_aws, on_stack, refused, rollout, texts};
use crate::support::aws::bottle::{self, Bottle, GOOD, REGION, Wish, direct, find, forward, make};
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::aws::{emulator, stack};
use crate::support::{guests, root};

const COLOURS: Wish = Wish {
    arms: ["blue", "green"],
    weights: [0, 100],
    tasks: [2, 2],
    images: ["app:v1", "app:v1"],
    sticky: false,
    breaker: true,
    port: 8000,
    beside: &[],
    sizes: [["256", "512"]; 2],
};

pub async fn discover(find: &Find) -> Result<Found, HostError> {
    let access = Access {
        region: Some(REGION.to_owned()),
        ..Access::default()
    };
    let clients = Clients::connect(&access, &bottle::impatient(&emulator::endpoint())).await;
    engine::target::aws::discover(&clients, find).await
}

pub async fn listener(balancer: &str, port: i32, action: Action) -> String {
    let create = direct().await.elb.create_listener();
    let made = create
        .load_balancer_arn(balancer)
        .protocol(ProtocolEnum::Http)
        .port(port)
        .default_actions(action);
    let made = made.send().await.expect("a listener");
    made.listeners()[0].listener_arn().expect("ARN").to_owned()
}

pub async fn rule(listener: &str, priority: i32, action: Action) -> String {
    let condition = RuleCondition::builder().field("path-pattern");
    let condition = condition.values(format!("/p{priority}/*")).build();
    let create = direct().await.elb.create_rule();
    let made = create
        .listener_arn(listener)
        .priority(priority)
        .conditions(condition)
        .actions(action);
    let made = made.send().await.expect("a rule");
    made.rules()[0].rule_arn().expect("ARN").to_owned()
}

fn closed() -> Action {
    let page = FixedResponseActionConfig::builder().status_code("503");
    Action::builder()
        .r#type(ActionTypeEnum::FixedResponse)
        .fixed_response_config(page.build())
        .build()
}

/// Another load balancer in the same network.
pub async fn balancer(name: &str) -> String {
    let subnets = tokio::task::spawn_blocking(|| emulator::subnets(REGION));
    let create = direct().await.elb.create_load_balancer().name(name);
    let made = create.set_subnets(Some(subnets.await.expect("CLI")));
    let made = made.send().await.expect("a load balancer");
    let arn = made.load_balancers()[0].load_balancer_arn();
    arn.expect("ARN").to_owned()
}

pub fn weights(route: &str) -> Vec<i64> {
    let shown = if route.contains(":listener-rule/") {
        emulator::aws(REGION, &["elbv2", "describe-rules", "--rule-arns", route])["Rules"][0]
            ["Actions"]
            .clone()
    } else {
        let arguments = ["elbv2", "describe-listeners", "--listener-arns", route];
        emulator::aws(REGION, &arguments)["Listeners"][0]["DefaultActions"].clone()
    };
    let groups = shown[0]["ForwardConfig"]["TargetGroups"].as_array();
    let groups = groups.expect("groups").iter();
    groups
        .map(|g| g["Weight"].as_i64().expect("a weight"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_is_taken_from_an_arm_that_any_route_serves() {
    let made = make(&COLOURS).await;
    let proxy = Proxy::start().await;
    let target = bottle::reach(&proxy, find(&made), Arc::new(SystemClock)).await;
    let blue = || forward(&[(&made.groups[0], 1)]);
    let aws = direct().await;
    let refused = async |place: &str| {
        let error = target.set_tasks("blue", 1).await.expect_err(place);
        assert_eq!(error.code, "still-served");
        assert!(error.message.contains(place), "{place}: {error}");
        assert!(!error.retryable);
        let updated = proxy.take().iter().any(|c| c == "UpdateService");
        assert!(!updated, "{place}");
    };

    // Another listener sends everything there.
    let second = listener(&made.balancer, 443, blue()).await;
    refused("HTTP:443 sends 100 % to blue").await;
    let elsewhere = target.elsewhere().await.expect("read");
    assert_eq!(
        elsewhere.len(),
        1,
        "not the route that moves: {elsewhere:?}"
    );
    assert_eq!(
        (&*elsewhere[0].route, elsewhere[0].way),
        (&*second, Way::Users)
    );
    // A listener nobody has called a test listener counts too, though it may be one.
    let modify = aws.elb.modify_listener().listener_arn(&second);
    modify.port(8080).send().await.expect("another port");
    refused("HTTP:8080").await;
    let delete = aws.elb.delete_listener().listener_arn(&second);
    delete.send().await.expect("gone");

    // A part of a rule, on the second page of rules of another listener.
    let third = listener(&made.balancer, 81, closed()).await;
    for priority in 1..=60 {
        let action = match priority {
            60 => forward(&[(&made.groups[0], 1), (&made.groups[1], 3)]),
            _ => closed(),
        };
        rule(&third, priority, action).await;
    }
    refused("HTTP:81 rule 60 sends 25 % to blue").await;
    let delete = aws.elb.delete_listener().listener_arn(&third);
    delete.send().await.expect("gone");

    // A listener of another load balancer.
    let other = balancer(&format!("{}-b", made.name)).await;
    let fourth = listener(&other, 80, blue()).await;
    refused(&format!("HTTP:80 of {}-b", made.name)).await;
    let delete = aws.elb.delete_listener().listener_arn(&fourth);
    delete.send().await.expect("gone");

    // The route that moves itself.
    let both = forward(&[(&made.groups[0], 1), (&made.groups[1], 99)]);
    let modify = aws.elb.modify_listener().listener_arn(&made.listener);
    modify.default_actions(both).send().await.expect("moved");
    refused("HTTP:80 sends 1 % to blue").await;
    let green = forward(&[(&made.groups[0], 0), (&made.groups[1], 1)]);
    let modify = aws.elb.modify_listener().listener_arn(&made.listener);
    modify.default_actions(green).send().await.expect("moved");

    // Nobody may look, so nobody knows.
    proxy.plot(|_, name| match name {
        "DescribeTargetGroups" => Trouble::Refused(403, "AccessDenied"),
        _ => Trouble::None,
    });
    let error = target.set_tasks("blue", 1).await.expect_err("not known");
    assert!(
        error.message.contains("which routes send requests to it"),
        "{error}"
    );
    assert!(error.message.contains("DescribeTargetGroups"), "{error}");
    // More tasks harm nobody.
    target.set_tasks("blue", 3).await.expect("more");
    proxy.calm();
    target.set_tasks("blue", 1).await.expect("served by nobody");

    // A test listener that somebody has named is no user.
    let test = listener(&made.balancer, 9000, blue()).await;
    let named = Find {
        test_listeners: vec![test],
        ..find(&made)
    };
    let target = bottle::reach(&proxy, named, Arc::new(SystemClock)).await;
    target.set_tasks("blue", 0).await.expect("tests alone");
    let elsewhere = target.elsewhere().await.expect("read");
    assert_eq!(elsewhere[0].way, Way::Tests, "shown all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_says_what_the_other_listener_does_and_leaves_its_arm_alone() {
    let wish = Wish {
        weights: [100, 0],
        tasks: [3, 1],
        ..COLOURS
    };
    let plugin = guests::plugin("blue-green").await;
    let mut bottle = Bottle::new(wish, plugin, json!({"bake": "10m"})).await;
    bottle = bottle.image("app:v2");
    bottle.header.promotion = Promotion::Swap;
    let made = bottle.made.clone();
    listener(&made.balancer, 443, forward(&[(&made.groups[0], 1)])).await;
    for arm in 0..2 {
        bottle.traffic(arm, -10..120, GOOD).await;
    }
    let standing = bottle.run().await;
    let Standing::Over(End::Promoted, reason) = &standing else {
        panic!("{standing:?}");
    };
    assert!(reason.contains("HTTP:443 sends 100 % to blue"), "{reason}");
    let live = bottle.live().await;
    assert_eq!(live.weights().share("green"), 100.0);
    assert_eq!(live.arms[0].tasks, Some(3), "blue keeps its tasks");
    let journal = bottle.journal().await;
    let looked = journal.iter().any(|e| {
        matches!(&e.event, Event::Exchanged { call: Call::GetElsewhere, reply, .. }
            if reply.to_string().contains("HTTP:443"))
    });
    assert!(looked, "the evidence is written down");
    let status = engine::journal::status::Status::of(&journal).expect("begun");
    assert_eq!(status.elsewhere.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_not_replaced_under_the_users_of_another_route() {
    let made = make(&Wish::default()).await;
    let test = TestApp::new();
    for group in [1, 0] {
        let other = listener(&made.balancer, 443, forward(&[(&made.groups[group], 1)])).await;
        let request = BeginRequest {
            image: Some("app:v2".to_owned()),
            ..rollout("canary", on_aws(on(&made)), &[])
        };
        let says = format!("HTTP:443 sends 100 % to {}", made.arms[group]);
        refused(test.begin(&request).await, Kind::Busy, &[&says]);
        let delete = direct().await.elb.delete_listener().listener_arn(&other);
        delete.send().await.expect("gone");
    }
    // It came after the rollout had begun: the driver looks again. Where the route is made
    // for both arms it says how its users come along.
    for both in [false, true] {
        let bottle = Bottle::new(
            Wish::default(),
            guests::plugin("canary").await,
            bottle::three_steps(),
        )
        .await
        .image("app:v2");
        let groups = &bottle.made.groups;
        let action = match both {
            false => forward(&[(&groups[1], 1)]),
            true => forward(&[(&groups[0], 0), (&groups[1], 1)]),
        };
        let late = listener(&bottle.made.balancer, 443, action).await;
        let standing = bottle.run().await;
        let Standing::Over(End::RolledBack, reason) = &standing else {
            panic!("{standing:?}");
        };
        assert!(
            reason.contains("HTTP:443 sends 100 % to canary"),
            "{reason}"
        );
        let along = format!("a rollback of {late} alone, to stable, brings its users along");
        assert_eq!(reason.contains(&along), both, "{reason}");
        assert_eq!(bottle.live().await.arms[1].release.version, "app:v1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_and_status_say_what_else_goes_where() {
    let wish = Wish {
        weights: [100, 0],
        ..COLOURS
    };
    let made = make(&wish).await;
    listener(&made.balancer, 443, forward(&[(&made.groups[0], 1)])).await;
    rule(&made.listener, 7, forward(&[(&made.groups[0], 1)])).await;
    let test = TestApp::new();
    let at = on_aws(on(&made));
    let says = [
        "HTTP:443 sends 100 % to blue",
        "HTTP:80 rule 7 sends 100 % to blue",
    ];
    let moved = switch(&test.app, &at, "green").await.expect("done");
    let (all, routes) = moved.elsewhere.expect("one has everything");
    assert_eq!(all, "green");
    let seen = overview(&test.app, &at, None).await.expect("seen");
    let shown = schemas::shown(&view::Standing::from(&seen));
    for routes in [routes, seen.live.expect("it answers").elsewhere] {
        let routes = routes.expect("read").into_iter();
        // Both are said, because green has everything here.
        assert!(routes.clone().all(|route| route.arm == "blue"));
        let routes: Vec<String> = routes.map(|route| route.to_string()).collect();
        for says in says {
            assert!(routes.iter().any(|r| r.contains(says)), "{routes:?}");
        }
    }
    assert_eq!(
        shown["target"]["elsewhere"].as_array().map(Vec::len),
        Some(2)
    );
    // Where blue has everything there is nothing to say.
    let moved = switch(&test.app, &at, "blue").await.expect("done");
    let (all, routes) = moved.elsewhere.as_ref().expect("one has everything");
    let routes = routes.as_ref().expect("read");
    assert!(routes.iter().all(|route| route.arm == *all), "{routes:?}");
    let answer = schemas::shown(&view::Change::from(&moved));
    assert_eq!(answer["elsewhere"][0]["arm"], "blue");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_route_that_was_named_is_the_route_that_moves() {
    let made = make(&Wish::default()).await;
    let [stable, canary] = [&*made.groups[0], &*made.groups[1]];
    let both = || forward(&[(stable, 100), (canary, 0)]);
    rule(&made.listener, 1, closed()).await;
    let narrow = rule(&made.listener, 2, both()).await;
    let test = TestApp::new();
    let by_listener = on_aws(AwsRequest {
        only: true,
        ..on(&made)
    });
    let by_rule = on_aws(AwsRequest {
        listener: None,
        rule: Some(narrow.clone()),
        only: true,
        ..on(&made)
    });
    let set = async |shares: [&str; 2], at: &TargetRequest| {
        set_weights(&test.app, at, &texts(&shares)).await
    };
    set(["90", "10"], &by_listener).await.expect("done");
    let heard = test.heard();
    assert!(heard.contains("sets stable 90 %, canary 10 %"), "{heard}");
    assert_eq!(weights(&made.listener), [90, 10]);
    assert_eq!(weights(&narrow), [100, 0]);
    set(["70", "30"], &by_rule).await.expect("done");
    assert_eq!(weights(&made.listener), [90, 10]);
    assert_eq!(weights(&narrow), [70, 30]);
    // The default is something else now; the rule is not what was named.
    let modify = direct().await.elb.modify_listener();
    let modify = modify.listener_arn(&made.listener);
    modify
        .default_actions(closed())
        .send()
        .await
        .expect("closed");
    let says = format!("--rule {narrow}");
    let half = set(["50", "50"], &by_listener).await;
    refused(half, Kind::Usage, &[&says]);
    assert_eq!(weights(&narrow), [70, 30]);
    let foreign = Find {
        rule: Some(narrow.replace(&made.name, "other")),
        ..find(&made)
    };
    let error = discover(&foreign).await.expect_err("another listener's");
    assert_eq!(error.code, "two-routes");
}

#[tokio::test(flavor = "multi_thread")]
async fn network_load_balancers_are_refused_in_words() {
    let test = TestApp::new();
    let arn = |rest: &str| Some(format!("arn:aws:elasticloadbalancing:us-east-1:1:{rest}"));
    for (listener, rule) in [
        (arn("listener/net/a/b/c"), None),
        (arn("listener/gwy/a/b/c"), None),
        (None, arn("listener-rule/net/a/b/c/d")),
    ] {
        let at = on_aws(AwsRequest {
            listener,
            rule,
            region: Some(REGION.to_owned()),
            ..AwsRequest::default()
        });
        let says = &["application load balancers"];
        let set = set_weights(&test.app, &at, &texts(&["90", "10"])).await;
        refused(set, Kind::Usage, says);
        let seen = overview(&test.app, &at, None).await;
        refused(seen, Kind::Usage, says);
        refused(rollback(&test.app, &at, None).await, Kind::Usage, says);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_who_is_shown_or_asked() {
    let test = TestApp::new();
    let given = texts(&["75", "25"]);
    // The words are in both names; the canary comes first in the action.
    let made = make(&Wish {
        arms: ["canary-api-canary", "canary-api-stable"],
        weights: [0, 100],
        ..Wish::default()
    })
    .await;
    let at = on_aws(on(&made));
    set_weights(&test.app, &at, &given).await.expect("done");
    let heard = test.heard();
    assert!(heard.contains("sets stable 75 %, canary 25 %"), "{heard}");
    let mut shown = weights(&made.listener);
    shown.sort_unstable();
    assert_eq!(shown, [25, 75]);
    assert_eq!(first_arm(&test, &at).await, ("stable".to_owned(), 75));

    // Nothing tells them apart: weights go by name, and who is stable is asked.
    let made = make(&Wish {
        arms: ["stable-diffusion-a", "stable-diffusion-b"],
        weights: [60, 40],
        ..Wish::default()
    })
    .await;
    let at = on_aws(on(&made));
    let set = set_weights(&test.app, &at, &given).await;
    refused(set, Kind::Usage, &["=WEIGHT"]);
    let back = rollback(&test.app, &at, None).await;
    refused(back, Kind::Usage, &["engine rollback --to"]);
    assert_eq!(weights(&made.listener), [60, 40]);

    // Half a word is a doubt, and flags decide.
    let made = make(&Wish {
        arms: ["prod-canary", "prod"],
        weights: [0, 100],
        ..Wish::default()
    })
    .await;
    let at = on_aws(on(&made));
    let set = set_weights(&test.app, &at, &given).await;
    refused(set, Kind::Usage, &["--arm stable="]);
    assert_eq!(weights(&made.listener), [0, 100]);
    let told = on_aws(AwsRequest {
        arms: vec![format!("stable={}-prod", made.name)],
        ..on(&made)
    });
    set_weights(&test.app, &told, &given).await.expect("done");
    assert_eq!(first_arm(&test, &told).await, ("stable".to_owned(), 75));
    // What was decided once is known on the way back.
    let back = rollback(&test.app, &at, None).await.expect("done");
    let TakenBack::Moved(moved) = back else {
        panic!("{back:?}");
    };
    assert_eq!(moved.now.share("stable"), 100.0);
}

/// Name and weight of the arm that is shown first.
async fn first_arm(test: &TestApp, at: &TargetRequest) -> (String, u32) {
    let seen = overview(&test.app, at, None).await.expect("seen");
    let live = seen.live.expect("it answers").seen.observed;
    (live.arms[0].name.clone(), live.arms[0].weight)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_service_behind_both_arms_is_refused_before_any_write() {
    let made = make(&Wish::default()).await;
    let service = |arm: &str, of: &str| format!("{arm}={}/{}-{of}", made.cluster, made.name);
    let proxy = Proxy::start().await;
    let test = TestApp::through(&proxy.endpoint);
    let cases = [
        // One service for both.
        (
            [service("stable", "stable"), service("canary", "stable")],
            "behind both arms",
        ),
        // Each in the other's group.
        (
            [service("stable", "canary"), service("canary", "stable")],
            "in the group of",
        ),
    ];
    for (services, says) in cases {
        let at = on_aws(AwsRequest {
            services: services.to_vec(),
            ..on(&made)
        });
        for written in write_in_every_way(&test, &at).await {
            let error = written.expect_err("refused");
            assert!(matches!(error.kind, Kind::Denied | Kind::Busy), "{error:?}");
            assert!(error.message.contains(says), "{error}");
        }
    }
    // A service that is in neither group.
    let aws = direct().await;
    let lone = format!("{}-lone", made.name);
    let create = aws.ecs.create_service().cluster(&made.cluster);
    let create = create.service_name(&lone).desired_count(0);
    let create = create.task_definition(format!("{}-canary", made.name));
    create.send().await.expect("a service");
    let at = on_aws(AwsRequest {
        cluster: None,
        services: vec![format!("canary={}/{lone}", made.cluster)],
        ..on(&made)
    });
    let set = set_weights(&test.app, &at, &texts(&["90", "10"])).await;
    let error = set.expect_err("refused");
    assert!(error.message.contains("behind no load balancer"), "{error}");
    let wrote = proxy.take().into_iter().any(|c| {
        ["Modify", "Update", "Register"]
            .iter()
            .any(|w| c.starts_with(w))
    });
    assert!(!wrote, "nothing was written");

    // The way back does not ask.
    let both = forward(&[(&made.groups[0], 50), (&made.groups[1], 50)]);
    let modify = aws.elb.modify_listener().listener_arn(&made.listener);
    modify.default_actions(both).send().await.expect("half");
    rollback(&test.app, &at, None).await.expect("done");
    assert_eq!(weights(&made.listener), [100, 0]);
}

/// What becomes of each verb that writes.
async fn write_in_every_way(test: &TestApp, at: &TargetRequest) -> [Result<()>; 3] {
    let request = BeginRequest {
        image: Some("app:v2".to_owned()),
        ..rollout("canary", at.clone(), &[])
    };
    let set = set_weights(&test.app, at, &texts(&["90", "10"])).await;
    let switched = switch(&test.app, at, "canary").await;
    let begun = test.begin(&request).await;
    [set.map(|_| ()), switched.map(|_| ()), begun.map(|_| ())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_rollback_asks_the_load_balancer_alone() {
    let made = make(&Wish {
        weights: [50, 50],
        ..Wish::default()
    })
    .await;
    let narrow = rule(
        &made.listener,
        3,
        forward(&[(&made.groups[0], 50), (&made.groups[1], 50)]),
    )
    .await;
    let proxy = Proxy::start().await;
    // Nothing but load balancing answers.
    proxy.plot(|_, name| match name {
        "DescribeListeners"
        | "DescribeRules"
        | "DescribeTargetHealth"
        | "ModifyListener"
        | "ModifyRule" => Trouble::None,
        _ => Trouble::Refused(403, "AccessDenied"),
    });
    let bare = AwsRequest {
        region: Some(REGION.to_owned()),
        only: true,
        ..AwsRequest::default()
    };
    let by_listener = AwsRequest {
        listener: Some(made.listener.clone()),
        ..bare.clone()
    };
    let by_rule = AwsRequest {
        rule: Some(narrow.clone()),
        ..bare
    };
    for (at, arn) in [(by_listener, &made.listener), (by_rule, &narrow)] {
        let test = TestApp::through(&proxy.endpoint);
        let back = rollback(&test.app, &on_aws(at), None).await.expect("done");
        assert_eq!(weights(arn), [100, 0]);
        let calls = proxy.take();
        let written = calls.iter().position(|c| c.starts_with("Modify"));
        assert!(written.expect("written") <= 9, "{calls:?}");
        // What could not be asked afterwards is told.
        let TakenBack::Moved(moved) = back else {
            panic!("{back:?}");
        };
        let (_, unread) = moved.elsewhere.expect("one has everything");
        assert_eq!(unread.expect_err("not permitted").kind, ErrorKind::Denied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_shifted_by_ecs_can_be_looked_at_and_not_written() {
    use aws_sdk_ecs::types::{DeploymentConfiguration, DeploymentStrategy};
    let made = make(&Wish::default()).await;
    let aws = direct().await;
    let test = TestApp::new();
    let at = on_aws(on(&made));
    for strategy in [
        DeploymentStrategy::BlueGreen,
        DeploymentStrategy::Linear,
        DeploymentStrategy::Canary,
    ] {
        let update = aws.ecs.update_service().cluster(&made.cluster);
        let update = update.service(format!("{}-canary", made.name));
        let config = DeploymentConfiguration::builder().strategy(strategy);
        let update = update.deployment_configuration(config.build());
        update.send().await.expect("it takes any strategy");
        let seen = overview(&test.app, &at, None).await.expect("seen");
        let unfit = seen.live.expect("it answers").fit.expect_err("two at it");
        assert!(unfit.message.contains("moves traffic by itself"), "{unfit}");
        for written in write_in_every_way(&test, &at).await {
            let error = written.expect_err("refused");
            assert!(error.message.contains("moves traffic by itself"), "{error}");
        }
        assert_eq!(weights(&made.listener), [100, 0]);
    }
    let both = forward(&[(&made.groups[0], 50), (&made.groups[1], 50)]);
    let modify = aws.elb.modify_listener().listener_arn(&made.listener);
    modify.default_actions(both).send().await.expect("half");
    rollback(&test.app, &at, None).await.expect("done");
    assert_eq!(
        weights(&made.listener),
        [100, 0],
        "the way back does not ask"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_without_outputs_has_one_route_or_names_them_all() {
    let region = "eu-south-1";
    let name = "ecs-blue-green-demo-stack";
    let template = root().join("engine/tests/fixtures/prototypes/blue-green.yml");
    stack(
        region,
        name,
        &template,
        &["ImageURIBlue=app:v1", "ImageURIGreen=app:v1"],
    );
    let at = on_aws(on_stack(region, name));
    // Nothing is remembered of the stack.
    let look = async || {
        let test = TestApp::new();
        switch(&test.app, &at, "blue").await.map(|moved| moved.now)
    };
    let seen = overview(&TestApp::new().app, &at, None).await;
    let listener = seen.expect("seen").identity;
    let current = ["elbv2", "describe-listeners", "--listener-arns", &listener];
    let actions = emulator::aws(region, &current)["Listeners"][0]["DefaultActions"].to_string();
    let rule = |priority: &str, actions: &str| {
        let path = format!("Field=path-pattern,Values=/p{priority}/*");
        let create = ["elbv2", "create-rule", "--listener-arn", &listener];
        let more = [
            "--priority",
            priority,
            "--conditions",
            &path,
            "--actions",
            actions,
        ];
        let made = emulator::aws(region, &[&create[..], &more].concat());
        made["Rules"][0]["RuleArn"]
            .as_str()
            .expect("ARN")
            .to_owned()
    };
    // A page for when it is closed hides nothing.
    rule(
        "1",
        "Type=fixed-response,FixedResponseConfig={StatusCode=503}",
    );
    look().await.expect("done");
    // Two that share the same groups move together; where only one shall move, it must be
    // named, and the error names both.
    let second = rule("2", &actions);
    look().await.expect("done");
    let only = on_aws(AwsRequest {
        only: true,
        ..on_stack(region, name)
    });
    let one = switch(&TestApp::new().app, &only, "blue").await;
    let says = [format!("--listener {listener}"), format!("--rule {second}")];
    refused(one.map(|_| ()), Kind::Usage, &[&says[0], &says[1]]);
}

//! What is found, what is preferred, and what is too ambiguous to guess.

use std::sync::Arc;

use aws_sdk_elasticloadbalancingv2::types::RuleCondition;
use engine::clock::SystemClock;
use engine::model::aws::{Access, Find, FindArm, Found};
use engine::model::{ErrorKind, HostError};
use engine::ops::Kind;
use engine::ops::request::AwsRequest;
use engine::ops::status::overview;
use engine::target::Target as _;
use engine::target::aws::client::Clients;

use crate::support::app::{TestApp, in_file, on_aws, refused};
use crate::support::aws::bottle::{
    self, Made, REGION, Wish, direct, find, forward, impatient, make,
};
use crate::support::aws::emulator::{self, unique};
use crate::support::aws::proxy::Proxy;
use crate::support::aws::stack;
use crate::support::root;

async fn discover(find: &Find, region: &str) -> Result<Found, HostError> {
    let access = Access {
        region: Some(region.to_owned()),
        ..Access::default()
    };
    let clients = Clients::connect(&access, &impatient(&emulator::endpoint())).await;
    engine::target::aws::discover(&clients, find).await
}

/// A rule that shares a path between two groups.
async fn rule(made: &Made, path: &str, priority: i32, groups: [&str; 2]) -> String {
    let aws = direct().await;
    let condition = RuleCondition::builder().field("path-pattern").values(path);
    let created = aws
        .elb
        .create_rule()
        .listener_arn(&made.listener)
        .priority(priority)
        .conditions(condition.build())
        .actions(forward(&[(groups[0], 90), (groups[1], 10)]))
        .send()
        .await
        .expect("a rule");
    created.rules()[0].rule_arn().expect("ARN").to_owned()
}

fn groups(made: &Made) -> [&str; 2] {
    [&made.groups[0], &made.groups[1]]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_alone_is_enough() {
    let made = make(&Wish::default()).await;
    let alone = Find {
        listener: Some(made.listener.clone()),
        ..Find::default()
    };
    let found = discover(&alone, REGION).await.expect("found");
    assert_eq!(found.route, made.listener);
    assert_eq!(found.load_balancer, made.balancer);
    assert_eq!(found.address, "http://localhost");
    assert_eq!(found.zones.len(), 2, "{:?}", found.zones);
    for (index, arm) in found.arms.iter().enumerate() {
        assert_eq!(arm.name, made.arms[index]);
        assert_eq!(arm.target_group, made.groups[index]);
        let service = arm.service.as_ref().expect("found by its group");
        assert_eq!(service.cluster, made.cluster);
        assert_eq!(service.name, format!("{}-{}", made.name, arm.name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_rule_moves_and_a_named_listener_moves_its_default() {
    let made = make(&Wish::default()).await;
    let second = rule(&made, "/b/*", 2, groups(&made)).await;
    let found = discover(&find(&made), REGION).await.expect("found");
    assert_eq!(found.route, made.listener, "what was named");
    let by_rule = Find {
        listener: None,
        rule: Some(second.clone()),
        ..find(&made)
    };
    let proxy = Proxy::start().await;
    let target = bottle::reach(&proxy, by_rule, Arc::new(SystemClock)).await;
    assert_eq!(target.found().route, second);
    let weights = engine::model::Weights::of([("stable", 70), ("canary", 30)]);
    target.set_weights(&weights).await.expect("written");
    assert_eq!(target.traffic().await.expect("read").weights, weights);
    assert!(proxy.take().contains(&"ModifyRule".to_owned()));
    let shown = emulator::aws(REGION, &["elbv2", "describe-rules", "--rule-arns", &second]);
    let groups = &shown["Rules"][0]["Actions"][0]["ForwardConfig"]["TargetGroups"];
    assert_eq!(groups[0]["Weight"], 70, "{shown}");
    assert_eq!(
        shown["Rules"][0]["Conditions"][0]["Values"][0], "/b/*",
        "kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_behind_a_group_are_ambiguous() {
    let made = make(&Wish::default()).await;
    let aws = direct().await;
    let twin = format!("{}-twin", made.name);
    let behind = aws_sdk_ecs::types::LoadBalancer::builder()
        .target_group_arn(&made.groups[1])
        .container_name("app")
        .container_port(8000);
    let create = aws
        .ecs
        .create_service()
        .cluster(&made.cluster)
        .service_name(&twin);
    create
        .task_definition(format!("{}-canary", made.name))
        .desired_count(0)
        .load_balancers(behind.build())
        .send()
        .await
        .expect("a twin");
    let error = discover(&find(&made), REGION).await.expect_err("two");
    assert!(error.message.contains(&twin), "{error}");
    assert!(error.message.contains("--service canary="), "{error}");
    let decided = Find {
        arms: vec![FindArm {
            name: "canary".to_owned(),
            target_group: None,
            service: Some(format!("{}/{twin}", made.cluster)),
        }],
        ..find(&made)
    };
    let found = discover(&decided, REGION).await.expect("decided");
    assert_eq!(found.arms[1].service.as_ref().expect("named").name, twin);
}

#[tokio::test(flavor = "multi_thread")]
async fn arms_can_have_any_name() {
    let wish = Wish {
        arms: ["left", "right"],
        ..Wish::default()
    };
    let made = make(&wish).await;
    let arm = |name: &str, index: usize| FindArm {
        name: name.to_owned(),
        target_group: Some(made.groups[index].clone()),
        service: None,
    };
    let named = Find {
        arms: vec![arm("old", 0), arm("new", 1)],
        ..find(&made)
    };
    let found = discover(&named, REGION).await.expect("found");
    assert_eq!(found.arms[0].name, "old");
    assert_eq!(found.arms[1].name, "new");
    let stranger = Find {
        arms: vec![FindArm {
            name: "middle".to_owned(),
            target_group: None,
            service: None,
        }],
        ..find(&made)
    };
    let error = discover(&stranger, REGION).await.expect_err("unknown");
    assert!(error.message.contains("there is no arm middle"), "{error}");
}

/// What a person names, as arms.
fn arms(of: [(&str, &str); 2]) -> Vec<FindArm> {
    of.map(|(name, group)| FindArm {
        name: name.to_owned(),
        target_group: Some(group.to_owned()),
        service: None,
    })
    .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_group_is_idle_and_kept_or_refused_with_a_hint_that_works() {
    let made = make(&Wish::default()).await;
    let stranger = make(&Wish::default()).await.groups[0].clone();
    let by_arn = [&*made.groups[0], &*made.groups[1]];
    let by_name = by_arn.map(|arn| arn.split('/').nth(1).expect("a name"));
    let named = |groups: [&str; 2]| Find {
        arms: arms([("stable", groups[0]), ("canary", groups[1])]),
        ..find(&made)
    };
    let rule = rule(&made, "/three/*", 3, by_arn).await;
    let as_rule = |find: Find| Find {
        listener: None,
        rule: Some(rule.clone()),
        ..find
    };
    for third in [10, 0] {
        let three = || forward(&[(by_arn[0], 100), (&stranger, third), (by_arn[1], 0)]);
        let aws = direct().await;
        let modify = aws.elb.modify_listener().listener_arn(&made.listener);
        modify.default_actions(three()).send().await.expect("three");
        let modify = aws.elb.modify_rule().rule_arn(&rule);
        modify.actions(three()).send().await.expect("three");
        // Nobody knows which of the three are the arms.
        for unnamed in [find(&made), as_rule(find(&made))] {
            let error = discover(&unnamed, REGION).await.expect_err("three");
            assert_eq!(error.code, "not-two-arms");
            assert!(error.message.contains("--arm"), "{error}");
            let weight = format!("(weight {third})");
            assert!(error.message.contains(&weight), "{error}");
        }
        for groups in [by_arn, by_name] {
            for named in [named(groups), as_rule(named(groups))] {
                let found = discover(&named, REGION).await;
                if third > 0 {
                    let error = found.expect_err("a third has requests");
                    assert_eq!(error.code, "not-two-arms");
                    assert!(error.message.contains("set its weight to 0"), "{error}");
                    let name = stranger.split('/').nth(1).expect("a name");
                    assert!(error.message.contains(name), "{error}");
                    continue;
                }
                let found = found.expect("as the hint says");
                assert_eq!(found.arms[1].target_group, made.groups[1]);
                let proxy = Proxy::start().await;
                let target = bottle::reach(&proxy, named, Arc::new(SystemClock)).await;
                let weights = engine::model::Weights::of([("stable", 60), ("canary", 40)]);
                target.set_weights(&weights).await.expect("written");
                assert_eq!(target.traffic().await.expect("read").weights, weights);
            }
        }
    }
    let shown = emulator::aws(REGION, &["elbv2", "describe-rules", "--rule-arns", &rule]);
    let groups = &shown["Rules"][0]["Actions"][0]["ForwardConfig"]["TargetGroups"];
    assert_eq!(groups[2]["TargetGroupArn"], stranger.as_str(), "{shown}");
    assert_eq!(groups[2]["Weight"], 0, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_the_route_does_not_name_is_said_with_its_key() {
    let made = make(&Wish::default()).await;
    let name = made.groups[1].split('/').nth(1).expect("a name").to_owned();
    let half = Find {
        arms: arms([("stable", "shop-other"), ("canary", &name)]),
        ..find(&made)
    };
    let error = discover(&half, REGION).await.expect_err("one is not there");
    assert_eq!(error.code, "no-such-group");
    for part in ["shop-other", "target.aws.arms.stable.target-group", &name] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    let none = Find {
        arms: arms([("stable", "shop-one"), ("canary", "shop-two")]),
        ..find(&made)
    };
    let error = discover(&none, REGION).await.expect_err("none is there");
    assert_eq!(error.code, "no-weighted-action");
    for part in ["shop-one", "shop-two", "target.aws.arms"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
}

/// Siblings: what cannot be a group is refused by its key or flag, before AWS is asked.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_group_is_refused_where_it_is_written() {
    let test = TestApp::through("http://127.0.0.1:1");
    let listener = "arn:aws:elasticloadbalancing:us-east-1:1:listener/app/shop/0a/1b";
    for group in [
        "shop_stable",
        "targetgroup/shop/0a",
        "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/app/shop/0a",
        "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/shop",
        "",
    ] {
        let at = AwsRequest {
            listener: Some(listener.to_owned()),
            arms: vec![format!("stable={group}")],
            ..AwsRequest::default()
        };
        let seen = overview(&test.app, &on_aws(at), None).await;
        refused(seen, Kind::Usage, &["--arm", "target group"]);
        let text = format!(
            "[target]\nkind = \"aws\"\n[target.aws]\nlistener = \"{listener}\"\n[target.aws.arms.stable]\ntarget-group = \"{group}\"\n"
        );
        let file = test.write("rollout.toml", &text);
        let seen = overview(&test.app, &in_file(&file), None).await;
        refused(seen, Kind::Usage, &["target.aws.arms.stable.target-group"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_group_alone_is_no_target() {
    let made = make(&Wish::default()).await;
    let aws = direct().await;
    aws.elb
        .modify_listener()
        .listener_arn(&made.listener)
        .default_actions(forward(&[(&made.groups[0], 1)]))
        .send()
        .await
        .expect("one group");
    let error = discover(&find(&made), REGION).await.expect_err("one arm");
    assert_eq!(error.code, "no-weighted-action");
    assert!(error.message.contains("weight 0"), "{error}");
}

#[test]
fn our_own_stacks_and_the_prototypes_are_found_by_name_alone() {
    let region = "ap-south-1";
    let templates = [
        (
            "examples/cloudformation/canary.yaml",
            ["ImageURIStable=a:1", "ImageURICanary=a:1"],
        ),
        (
            "examples/cloudformation/blue-green.yaml",
            ["ImageURIBlue=a:1", "ImageURIGreen=a:1"],
        ),
        (
            "engine/tests/fixtures/prototypes/canary.yml",
            ["ImageURIStable=a:1", "ImageURICanary=a:1"],
        ),
    ];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for (template, parameters) in templates {
        let name = unique("stack");
        stack(region, &name, &root().join(template), &parameters);
        let by_name = Find {
            stack: Some(name.clone()),
            ..Find::default()
        };
        let found = runtime.block_on(discover(&by_name, region));
        let found = found.unwrap_or_else(|e| panic!("{template}: {e}"));
        let names: Vec<&str> = found.arms.iter().map(|a| a.name.as_str()).collect();
        assert!(
            names == ["stable", "canary"] || names == ["blue", "green"],
            "{names:?}"
        );
        assert!(found.arms.iter().all(|a| a.service.is_some()), "{template}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let nowhere = Find {
        stack: Some("no-such-stack".to_owned()),
        ..Find::default()
    };
    let error = discover(&nowhere, REGION).await.expect_err("nothing");
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains("engine deploy canary"), "{error}");
}

//! `plan`: what it says must be what a rollout does.

use std::collections::BTreeSet;

use engine::ops::Kind;
use engine::ops::begin::{BeginRequest, make_ready};
use engine::ops::plan::{Plan, Wanted, plan};

use crate::support::app::{TestApp, local, on, on_aws, refused, rollout};
use crate::support::aws::bottle::{Bottle, GOOD, Made, Wish, make, three_steps};
use crate::support::aws::proxy::Proxy;
use crate::support::balancer::{demo, spec, start};
use crate::support::guests;

/// Plans a canary with a new image.
async fn planned(test: &TestApp, made: &Made, gate: &str) -> Plan {
    let set = ["steps=10,50,100", "bake=5m", gate];
    let request = BeginRequest {
        image: Some("app:v2".to_owned()),
        ..rollout("canary", on_aws(on(made)), &set)
    };
    let ready = make_ready(&test.app, &request).await.expect("ready");
    let plan = plan(&test.app, ready, Wanted::All).await;
    let plan = plan.expect("it can be planned");
    let shown = engine::view::text(&engine::view::plan::Plan::from(&plan));
    crate::schemas::fits("plan", &serde_json::from_str(&shown).expect("JSON"));
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_a_plan_are_the_calls_of_its_rollout() {
    let wish = Wish {
        tasks: [4, 1],
        ..Wish::default()
    };
    let bottle = Bottle::new(wish, guests::plugin("canary").await, three_steps()).await;
    let bottle = bottle.image("app:v2");
    let plan = planned(&TestApp::new(), &bottle.made, "gate=limits").await;

    for arm in 0..2 {
        bottle.traffic(arm, -10..120, GOOD).await;
    }
    bottle.run().await;
    let done = bottle.proxy.take();
    let writes = |name: &&String| {
        let name = name.as_str();
        name.starts_with("Modify") || name.starts_with("Update") || name.starts_with("Register")
    };
    let done_writes: Vec<&str> = done.iter().filter(writes).map(String::as_str).collect();
    let planned = plan.writes(&plan.good);
    let planned: Vec<&str> = planned.iter().map(|write| write.api.name()).collect();
    assert_eq!(planned, done_writes, "the same writes in the same order");

    // Every call that was made is allowed by the policy.
    let actions: BTreeSet<String> = plan.policy["Statement"]
        .as_array()
        .expect("statements")
        .iter()
        .flat_map(|s| s["Action"].as_array().expect("actions").clone())
        .filter_map(|a| Some(a.as_str()?.split_once(':')?.1.to_owned()))
        .collect();
    for call in &done {
        assert!(actions.contains(call), "{call} is not in {actions:?}");
    }
    assert!(plan.good.took_ms >= 15 * 60_000);
    assert!(
        plan.bad.exposed_ms <= 5 * 60_000,
        "seen within five minutes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_gate_can_be_planned() {
    let made = make(&Wish::default()).await;
    let plan = planned(&TestApp::new(), &made, "gate=evidence").await;
    let writes = plan.writes(&plan.good);
    let weights = writes
        .iter()
        .filter(|write| write.api.name() == "ModifyListener");
    // Probe, 10, 50 and 95 %, all, and back to stable after the copy.
    assert_eq!(weights.count(), 6, "{writes:#?}");
    assert!(plan.bad.exposed_ms <= 6 * 60_000, "{}", plan.bad.exposed_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_writes_nothing() {
    let made = make(&Wish::default()).await;
    let proxy = Proxy::start().await;
    planned(&TestApp::through(&proxy.endpoint), &made, "gate=limits").await;
    let calls = proxy.take();
    let reads = |call: &String| {
        ["Describe", "Get", "List"]
            .iter()
            .any(|w| call.starts_with(w))
    };
    assert!(calls.iter().all(reads), "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_for_aws() {
    let (balancer, _) = start(&spec([demo(), demo()])).await;
    let test = TestApp::new();
    let request = rollout("canary", local(balancer.admin), &[]);
    let ready = make_ready(&test.app, &request).await.expect("ready");
    refused(
        plan(&test.app, ready, Wanted::All).await,
        Kind::Usage,
        &["a target on AWS"],
    );
}

//! `begin`: what a rollout needs is read and checked before anything is written.

use std::time::Duration;

use engine::journal::verdict::verdict;
use engine::journal::{Entry, Event, Work};
use engine::model::target::TargetSpec;
use engine::model::{End, Role, Source};
use engine::ops::Kind;
use engine::ops::begin::{BeginRequest, make_ready};
use engine::ops::request::TargetRequest;
use engine::ops::way_back::abort;
use engine::rollout::Standing;
use engine::spec::parse_fault;
use engine::store::{Claim, Journals as _, Page, Schedule as _};

use engine::target::Target as _;
use engine::target::http::Client;

use crate::support::app::{TestApp, code_of, in_file, local, on, on_aws, refused, rollout};
use crate::support::aws::bottle::{Wish, alarm, direct, forward, make};
use crate::support::aws::emulator::unique;
use crate::support::balancer::{demo, demo_target, healthy, spec, start};
use crate::support::binary::plugin;

/// How many rollouts there are.
async fn count(test: &TestApp) -> usize {
    let all = test.store.history(&Page::newest(None, 100)).await;
    all.expect("memory").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_is_ready_says_who_is_who_and_is_not_written_down() {
    let (balancer, _) = start(&spec([demo(), demo()])).await;
    let test = TestApp::new();
    let request = rollout("canary", local(balancer.admin), &["steps=10,100"]);
    let ready = make_ready(&test.app, &request).await.expect("ready");
    let roles: Vec<_> = ready
        .header
        .arms
        .iter()
        .map(|a| (&*a.name, a.role))
        .collect();
    assert_eq!(
        roles,
        [("stable", Role::Stable), ("canary", Role::Candidate)]
    );
    assert_eq!(ready.header.baseline.share("stable"), 100.0);
    let Work::Strategy(pin) = &ready.header.work else {
        panic!("{:?}", ready.header.work);
    };
    assert_eq!(pin.parameters["steps"], serde_json::json!([10, 100]));
    assert_eq!(count(&test).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_target_has_one_rollout() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let request = rollout("canary", local(balancer.admin), &[]);
    let first = test.begin(&request).await.expect("it begins");
    refused(test.begin(&request).await, Kind::Busy, &[&first]);
    assert_eq!(count(&test).await, 1);
}

/// A claim comes before the first entry: who asks in between waits for what it says, and
/// gets no advice about a rollout that nobody can find.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_just_taken_is_busy_with_what_comes_of_it() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let request = rollout("canary", local(balancer.admin), &[]);
    let ready = make_ready(&test.app, &request).await.expect("ready");
    let id = ready.header.rollout.clone();
    let claim = Claim {
        target: &ready.header.identity,
        also: &[],
        rollout: &id,
        owner: &test.app.owner,
        now: test.app.clock.now(),
        ttl_ms: 60_000,
        dead_epoch: None,
    };
    let lease = test.store.claim(claim).await.expect("free");
    let error = refused(
        test.begin(&request).await,
        Kind::Busy,
        &["just taken it", &id],
    );
    assert!(!error.to_string().contains("busy with rollout"), "{error}");
    let began = Entry {
        seq: 0,
        at: ready.header.created,
        epoch: lease.epoch,
        event: Event::Started(Box::new(ready.header)),
    };
    let (asked, ()) = tokio::join!(test.begin(&request), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        test.store.plant(&id, vec![began]);
    });
    refused(asked, Kind::Busy, &["busy with rollout", &id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_told_before_anything_begins() {
    let (balancer, _) = start(&spec([demo(), demo()])).await;
    let test = TestApp::new();
    let at = || local(balancer.admin);
    let set = |set: &[&str]| rollout("canary", at(), set);
    let cases: [(BeginRequest, Kind, &[&str]); 8] = [
        (
            BeginRequest {
                target: at(),
                ..BeginRequest::default()
            },
            Kind::Usage,
            &["no strategy is named"],
        ),
        (
            set(&["steps=5,x", "bake=soon", "colour=red"]),
            Kind::Usage,
            &[
                "strategy.parameters.steps.1",
                "strategy.parameters.bake",
                "colour",
            ],
        ),
        (
            set(&["steps=50,25"]),
            Kind::Usage,
            &["strategy.parameters.steps.1: 25 does not rise above 50"],
        ),
        (
            BeginRequest {
                rate: Some(5),
                ..set(&[])
            },
            Kind::Usage,
            &["--rate is for the demo"],
        ),
        (
            BeginRequest {
                image: Some("app:v2".to_owned()),
                ..set(&[])
            },
            Kind::Usage,
            &["need a target on AWS"],
        ),
        (
            BeginRequest {
                plugin: Some(test.write("run.sh", "#!/bin/sh\n")),
                ..set(&[])
            },
            Kind::Rejected,
            &["run.sh"],
        ),
        (
            BeginRequest {
                stable: Some("purple".to_owned()),
                ..set(&[])
            },
            Kind::Usage,
            &["purple"],
        ),
        (
            rollout("canary", in_file(&test.at("missing.toml")), &[]),
            Kind::Usage,
            &["failed to read", "missing.toml"],
        ),
    ];
    for (request, kind, says) in cases {
        refused(make_ready(&test.app, &request).await, kind, says);
    }
    assert_eq!(count(&test).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_pins_the_bytes_of_its_strategy() {
    let test = TestApp::new();
    let text = format!(
        "[target]\nkind = \"local\"\n[strategy]\nplugin = {:?}\nsha256 = {:?}\n",
        plugin("canary"),
        "0".repeat(64)
    );
    let request = BeginRequest {
        target: in_file(&test.write("rollout.toml", text)),
        ..BeginRequest::default()
    };
    refused(
        make_ready(&test.app, &request).await,
        Kind::Rejected,
        &["pinned: 0000"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_answer_says_why() {
    let test = TestApp::new();
    let nobody = local("127.0.0.1:1".parse().expect("an address"));
    let request = rollout("canary", nobody, &[]);
    let error = refused(
        make_ready(&test.app, &request).await,
        Kind::Unreachable,
        &["start one with `engine local`"],
    );
    assert_eq!(code_of(&error), Some("admin-unreachable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_candidate_of_the_file_is_deployed_and_promoted() {
    let test = TestApp::new();
    let text = format!(
        r#"
        {}
        [candidate]
        version = "v3"
        demo = {{ error-rate = 0.0 }}
        [strategy]
        plugin = {:?}
        [strategy.parameters]
        steps = [50, 100]
        bake = "1s"
        "#,
        demo_target(100),
        plugin("canary")
    );
    let request = BeginRequest {
        target: in_file(&test.write("rollout.toml", text)),
        ..BeginRequest::default()
    };
    let id = test.begin(&request).await.expect("it begins");
    let standing = test.drive(&id).await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let (header, ..) = test.app.journal(&id).await.expect("it is there");
    let target = test.app.ports.reach(&header.target).await.expect("it runs");
    let live = target.observe().await.expect("reachable");
    assert_eq!(live.arm("stable").expect("known").release.version, "v3");
    // Everybody gets it.
    let TargetSpec::Embedded { local, .. } = header.target else {
        panic!("{:?}", header.target);
    };
    let client = Client::default();
    for _ in 0..50 {
        let url = format!("http://{}/whoami", local.listen);
        let answer = client.send("GET", &url, None, Duration::from_secs(5)).await;
        let answer = answer.expect("answered");
        assert_eq!(answer.body, "{\"version\":\"v3\"}\n");
    }
    test.app.ports.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rollout_begins_while_an_alarm_is_on() {
    let made = make(&Wish::default()).await;
    let name = unique("alarm");
    alarm(&name, "ALARM").await;
    let test = TestApp::new();
    let request = |alarm: &str| {
        let text = format!(
            "[target]\nkind = \"aws\"\n[target.aws]\nlistener = \"{}\"\n[guardrails]\nalarms = [\"{alarm}\"]\n",
            made.listener
        );
        let target = TargetRequest {
            aws: on(&made),
            ..in_file(&test.write("rollout.toml", text))
        };
        rollout("canary", target, &[])
    };
    let on_alarm = make_ready(&test.app, &request(&name)).await;
    refused(on_alarm, Kind::Busy, &["checkout is slow"]);
    let unknown = make_ready(&test.app, &request("no-such-alarm")).await;
    refused(unknown, Kind::NotFound, &["no CloudWatch alarm"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_the_candidates_and_a_name_that_moves_is_noted() {
    let made = make(&Wish::default()).await;
    let test = TestApp::new();
    let request = |image: &str| BeginRequest {
        image: Some(image.to_owned()),
        ..rollout("canary", on_aws(on(&made)), &[])
    };
    let ready = make_ready(&test.app, &request("app:v2")).await;
    let candidate = ready.expect("ready").header.candidate.expect("named");
    assert_eq!(candidate.source, Source::Image("app:v2".to_owned()));
    assert_eq!(test.heard(), "");
    make_ready(&test.app, &request("app")).await.expect("ready");
    assert!(test.heard().contains("may name another image later"));
    refused(
        make_ready(&test.app, &request("app v2")).await,
        Kind::Usage,
        &["is not REPOSITORY:TAG"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arm_with_traffic_is_not_replaced() {
    let made = make(&Wish::default()).await;
    let half = forward(&[(&made.groups[0], 50), (&made.groups[1], 50)]);
    let modify = direct().await.elb.modify_listener();
    let modify = modify.listener_arn(&made.listener).default_actions(half);
    modify.send().await.expect("moved");
    let test = TestApp::new();
    let request = BeginRequest {
        image: Some("app:v2".to_owned()),
        ..rollout("canary", on_aws(on(&made)), &[])
    };
    refused(
        make_ready(&test.app, &request).await,
        Kind::Busy,
        &["canary has traffic"],
    );
}

/// A demo of its own, whose new version is bad.
async fn taken_back(fault: &str, gate: &str) -> String {
    let test = TestApp::new();
    let request = BeginRequest {
        demo_fault: Some(parse_fault(fault).expect("a fault")),
        ..rollout(
            "canary",
            TargetRequest::default(),
            &[&format!("gate={gate}"), "bake=4s", "steps=20,100"],
        )
    };
    let id = test.begin(&request).await.expect("it begins");
    let standing = test.drive(&id).await;
    test.app.ports.stop().await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{fault}, {gate}: {standing:?}"
    );
    let (header, status) = test.app.reached(&id).await.expect("it is there");
    verdict(&header, &status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_is_taken_back() {
    let (errors, slow) = ("error-rate=0.2", "latency=+300ms");
    let told = tokio::join!(
        taken_back(errors, "evidence"),
        taken_back(slow, "evidence"),
        taken_back(errors, "limits"),
        taken_back(slow, "limits"),
    );
    for (text, says) in [
        (told.0, "it is worse (a version as good as "),
        (told.1, "slow requests"),
        (told.2, "% errors is over the limit"),
        (told.3, "ms is over 2 times"),
    ] {
        assert!(text.starts_with("rolled back: step 1/2 at 20 %"), "{text}");
        assert!(text.contains(says), "{text}");
        assert!(text.contains("stable has all traffic, read back"), "{text}");
    }
}

/// A service that is not there is a wrong request, and no rollout that is taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_without_a_service_to_run_it_begins_nothing() {
    let made = make(&Wish::default()).await;
    let service = format!("{}-canary", made.name);
    let image = || BeginRequest {
        image: Some("app:v2".to_owned()),
        ..rollout("canary", on_aws(on(&made)), &[])
    };
    let test = TestApp::new();
    let mut missing = on(&made);
    missing.services = vec![format!("canary={}/nope", made.cluster)];
    let missing = BeginRequest {
        target: on_aws(missing),
        ..image()
    };
    let error = make_ready(&test.app, &missing).await;
    refused(error, Kind::NotFound, &["no ECS service nope"]);
    let delete = direct().await.ecs.delete_service().cluster(&made.cluster);
    let gone = delete.service(&service).force(true).send().await;
    gone.expect("it is deleted");
    let says = ["no ECS service", "canary", "--service canary="];
    refused(make_ready(&test.app, &image()).await, Kind::Usage, &says);
    assert_eq!(count(&test).await, 0);
}

/// A version that serves already is rolled out as it was asked for, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn who_rolls_out_what_serves_already_is_told() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::new();
    let served = target.observe().await.expect("it answers");
    let served = &served.arms[0].release.version;
    for (version, same) in [("another", false), (served.as_str(), true)] {
        let text = format!(
            "[target]\nkind = \"local\"\n[candidate]\nversion = {version:?}\ndemo = {{}}\n[strategy]\nplugin = {:?}\n",
            plugin("canary")
        );
        let mut at = in_file(&test.write("rollout.toml", text));
        at.local = Some(balancer.admin);
        let request = BeginRequest {
            target: at.clone(),
            ..BeginRequest::default()
        };
        test.heard();
        let id = test.begin_and_leave(&request).await;
        let said = test.heard();
        assert_eq!(said.contains("users see no difference"), same, "{said}");
        abort(&test.app, &at, Some(&id), "").await.expect("free");
    }
}

//! Whole rollouts on AWS: the canary plugin, ECS, CloudWatch, and what can go
//! wrong with each of them.

use std::sync::Arc;

use engine::journal::{Call, Event};
use engine::model::query::Probe;
use engine::model::{End, Goal, Hold, Level, Promotion};
use engine::rollout::Standing;
use engine::rollout::session::Calls;
use engine::target::Target as _;
use serde_json::{Value, json};

use crate::support::aws::bottle::{
    self, Bottle, GOOD, Minute, REGION, Wish, alarm, direct, three_steps,
};
use crate::support::aws::emulator::{self, aws, script};
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::aws::{ok, run};
use crate::support::binary::{plugin, stderr};
use crate::support::{folder, guests, lab};

/// Two hours of it on both arms.
async fn good_day(bottle: &Bottle) {
    for arm in 0..2 {
        bottle.traffic(arm, -10..120, GOOD).await;
    }
}

async fn canary(wish: Wish) -> Bottle {
    Bottle::new(wish, guests::plugin("canary").await, three_steps()).await
}

async fn writes(bottle: &Bottle) -> Vec<String> {
    lab::writes(&bottle.journal().await)
}

fn reason(standing: &Standing) -> &str {
    match standing {
        Standing::Over(_, reason) => reason,
        _ => "",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_version_is_promoted_by_copy() {
    let wish = Wish {
        tasks: [4, 1],
        ..Wish::default()
    };
    let bottle = canary(wish).await.image("app:v2");
    good_day(&bottle).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    // Capacity follows the share, before each raise; the idle arm gives it back.
    assert_eq!(
        writes(&bottle).await,
        [
            "set-version canary app:v2",
            "set-weights stable=90 canary=10",
            "set-tasks canary 2",
            "set-weights stable=50 canary=50",
            "set-tasks canary 4",
            "set-weights stable=0 canary=100",
            "set-version stable app:v2",
            "set-weights stable=100 canary=0",
            "set-tasks canary 1",
        ]
    );
    // The CLI sees it too: each service runs its own family with the new image.
    let arguments = |arm: &str| {
        let service = format!("{}-{arm}", bottle.made.name);
        let cluster = bottle.made.cluster.clone();
        [
            "ecs",
            "describe-services",
            "--cluster",
            &cluster,
            "--services",
            &service,
        ]
        .map(ToOwned::to_owned)
    };
    let shown = ["stable", "canary"].map(|arm| {
        let arguments = arguments(arm);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        aws(REGION, &arguments)["services"][0].clone()
    });
    for (service, arm) in shown.iter().zip(["stable", "canary"]) {
        let definition = service["taskDefinition"].as_str().expect("an ARN");
        let own = format!("/{}-{arm}:2", bottle.made.name);
        assert!(definition.ends_with(&own), "{definition}");
        let describe = ["ecs", "describe-task-definition", "--task-definition"];
        let definition = aws(REGION, &[&describe[..], &[definition]].concat());
        let containers = &definition["taskDefinition"]["containerDefinitions"];
        assert_eq!(containers[0]["image"], "app:v2");
    }
    assert_eq!(shown[0]["desiredCount"], 4);
    assert_eq!(shown[1]["desiredCount"], 1);
    let family = format!("{}-canary", bottle.made.name);
    let revisions = aws(
        REGION,
        &["ecs", "list-task-definitions", "--family-prefix", &family],
    );
    let revisions = revisions["taskDefinitionArns"]
        .as_array()
        .expect("a list")
        .len();
    assert_eq!(revisions, 2, "one new revision, and no duplicates");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_with_errors_is_taken_back_by_one_write() {
    let bottle = canary(Wish::default()).await.image("app:v2");
    bottle.traffic(0, -10..120, GOOD).await;
    let bad = Minute { errors: 90, ..GOOD };
    bottle.traffic(1, 0..120, bad).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    assert!(reason(&standing).contains("15.0 % errors"), "{standing:?}");
    let calls = bottle.proxy.take();
    let modified = calls.iter().filter(|c| *c == "ModifyListener").count();
    assert_eq!(modified, 2, "one there, one back: {calls:?}");
    assert_eq!(bottle.live().await.weights().share("stable"), 100.0);
}

/// The default gate, with metrics that are three minutes late.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_promotes_a_good_version() {
    let plugin = guests::plugin("canary").await;
    let bottle = Bottle::new(Wish::default(), plugin, json!({})).await;
    let bottle = bottle.image("app:v2");
    bottle.traffic(0, -130..200, GOOD).await;
    bottle.traffic(1, 0..200, GOOD).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let writes = writes(&bottle).await;
    let weights: Vec<&String> = writes.iter().filter(|w| w.starts_with("set-w")).collect();
    assert_eq!(
        weights,
        [
            "set-weights stable=95 canary=5",
            "set-weights stable=75 canary=25",
            "set-weights stable=50 canary=50",
            "set-weights stable=5 canary=95",
            "set-weights stable=0 canary=100",
            "set-weights stable=100 canary=0",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_takes_back_errors_and_latency() {
    let slow = Minute {
        latency_ms: 90.0,
        ..GOOD
    };
    for (bad, says) in [
        (Minute { errors: 30, ..GOOD }, "errors: "),
        (slow, "slow requests: "),
        // A version that hangs answers nothing, so it has no error and no latency.
        (
            Minute {
                unanswered: 600,
                ..GOOD
            },
            "requests without an answer: ",
        ),
    ] {
        let plugin = guests::plugin("canary").await;
        let bottle = Bottle::new(Wish::default(), plugin, json!({})).await;
        let bottle = bottle.image("app:v2");
        bottle.traffic(0, -130..200, GOOD).await;
        bottle.traffic(1, 0..200, bad).await;
        let standing = bottle.run().await;
        assert!(
            matches!(standing, Standing::Over(End::RolledBack, _)),
            "{standing:?}"
        );
        assert!(
            reason(&standing).contains("it is worse (a version as good as "),
            "{standing:?}"
        );
        assert!(reason(&standing).contains(says), "{standing:?}");
        assert_eq!(bottle.live().await.weights().share("stable"), 100.0);
    }
}

/// The candidate's tasks are all in the zone that fails from minute 15 to 35, stable's are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_fails_for_both_arms_takes_nothing_back() {
    for (by_zone, promoted) in [(true, true), (false, false)] {
        let plugin = guests::plugin("canary").await;
        let bottle = Bottle::new(Wish::default(), plugin, json!({})).await;
        let bottle = bottle.image("app:v2");
        let of = |requests, errors| Minute {
            requests,
            errors,
            ..GOOD
        };
        let [a, b] = ["a", "b"].map(|zone| format!("{REGION}{zone}"));
        bottle.traffic(0, -130..0, GOOD).await;
        for (minutes, stable, candidate) in [(0..15, 0, 0), (15..35, 30, 120), (35..200, 0, 0)] {
            bottle.traffic(0, minutes.clone(), of(600, stable)).await;
            bottle.traffic(1, minutes.clone(), of(600, candidate)).await;
            if by_zone {
                bottle.traffic_in(&a, 0, minutes.clone(), of(450, 0)).await;
                bottle
                    .traffic_in(&b, 0, minutes.clone(), of(150, stable))
                    .await;
                bottle.traffic_in(&b, 1, minutes, of(600, candidate)).await;
            }
        }
        let standing = bottle.run().await;
        let wanted = match promoted {
            true => matches!(standing, Standing::Over(End::Promoted, _)),
            false => matches!(standing, Standing::Over(End::RolledBack, _)),
        };
        assert!(wanted, "{by_zone}: {standing:?}");
    }
}

/// What a rollout wrote into its history as a warning.
async fn warnings(bottle: &Bottle) -> Vec<String> {
    let entries = bottle.journal().await.into_iter();
    let lines = entries.filter_map(|entry| match entry.event {
        Event::Exchanged {
            call:
                Call::Log {
                    level: Level::Warn,
                    message,
                },
            ..
        } => Some(message),
        _ => None,
    });
    lines.collect()
}

/// A version that answers well and does not stay up.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_restart_again_and_again_take_it_back() {
    let plugin = guests::plugin("canary").await;
    let bottle = Bottle::new(Wish::default(), plugin, json!({})).await;
    let bottle = bottle.image("app:v2");
    bottle.traffic(0, -130..200, GOOD).await;
    bottle.traffic(1, 0..200, GOOD).await;
    let times: Vec<u64> = (3..60).map(|n| lab::START / 1_000 + n * 150).collect();
    let service = format!("{}-canary", bottle.made.name);
    let body =
        json!({"cluster": bottle.made.cluster, "service": service, "memory": true, "at": times});
    script("ecs/crash", body).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    let why = "tasks of canary stopped by themselves in the last 30 min (exit code 137, out of memory), and none of stable";
    assert!(reason(&standing).contains(why), "{standing:?}");
    assert!(
        reason(&standing).contains("tasks restart again and again: "),
        "{standing:?}"
    );
    let said = warnings(&bottle).await;
    assert!(
        said.iter()
            .any(|line| line.contains("stopped by itself in the last 30 min")),
        "{said:?}"
    );
    assert_eq!(bottle.live().await.weights().share("stable"), 100.0);
}

/// Nobody needs a permission for it.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_tasks_is_told_once_that_restarts_are_not_watched() {
    let plugin = guests::plugin("canary").await;
    let bottle = Bottle::new(Wish::default(), plugin, json!({})).await;
    let bottle = bottle.image("app:v2");
    bottle.traffic(0, -130..200, GOOD).await;
    bottle.traffic(1, 0..200, GOOD).await;
    bottle.proxy.plot(|_, call| match call {
        "ListTasks" => Trouble::Refused(403, "AccessDenied"),
        _ => Trouble::None,
    });
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let said = warnings(&bottle).await;
    let told = said
        .iter()
        .filter(|line| line.starts_with("restarts of tasks are not watched: "));
    let [line] = told.collect::<Vec<_>>()[..] else {
        panic!("{said:?}");
    };
    assert!(line.contains("ecs:ListTasks"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_both_arms_are_no_evidence_against_one() {
    let left = Minute {
        unanswered: 30,
        ..GOOD
    };
    let plugin = guests::plugin("canary").await;
    let bottle = Bottle::new(Wish::default(), plugin, json!({})).await;
    let bottle = bottle.image("app:v2");
    bottle.traffic(0, -130..200, left).await;
    bottle.traffic(1, 0..200, left).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_swapped_and_the_old_one_keeps_its_tasks_through_the_bake() {
    let wish = Wish {
        arms: ["blue", "green"],
        tasks: [3, 1],
        ..Wish::default()
    };
    let plugin = guests::plugin("blue-green").await;
    let mut bottle = Bottle::new(wish, plugin, json!({"bake": "10m"}))
        .await
        .image("app:v2");
    bottle.header.promotion = Promotion::Swap;
    bottle.header.guardrails.final_bake_ms = 30 * 60_000;
    good_day(&bottle).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    assert_eq!(
        writes(&bottle).await,
        [
            "set-version green app:v2",
            "set-tasks green 3",
            "set-weights blue=0 green=100",
            "set-tasks blue 1"
        ]
        .map(|w| w.replace("set-weights blue=0 green=100", "switch-color green"))
    );
    let journal = bottle.journal().await;
    let at = |wanted: &str| {
        let entry = journal.iter().find(|e| match &e.event {
            Event::Asked { call, .. } => call.to_string() == wanted,
            _ => false,
        });
        entry.expect("asked").at
    };
    let baked = at("set-tasks blue 1") - at("switch-color green");
    assert!(baked >= 30 * 60_000, "{baked} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_never_gets_traffic() {
    let bottle = canary(Wish::default()).await.image("app:broken");
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    let why = reason(&standing);
    assert!(why.contains("circuit breaker"), "{why}");
    assert!(
        why.contains("CannotPullContainerError"),
        "ECS's own reason: {why}"
    );
    assert!(!bottle.proxy.take().contains(&"ModifyListener".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_healthy_targets_never_gets_traffic() {
    for breaker in [true, false] {
        let wish = Wish {
            breaker,
            ..Wish::default()
        };
        let bottle = canary(wish).await.image("app:unhealthy");
        let standing = bottle.run().await;
        assert!(
            matches!(standing, Standing::Over(End::RolledBack, _)),
            "{standing:?}"
        );
        assert!(!bottle.proxy.take().contains(&"ModifyListener".to_owned()));
        if !breaker {
            // Nobody but the engine's own patience ends it.
            assert!(reason(&standing).contains("after 900 s"), "{standing:?}");
            let why = "Target.ResponseCodeMismatch: Health checks failed with these codes: [500]";
            assert!(reason(&standing).contains(why), "ELB's own: {standing:?}");
        }
    }
}

/// Siblings: whatever is wrong with the targets, ELB's own words for it are shown.
#[tokio::test(flavor = "multi_thread")]
async fn the_load_balancer_s_reason_is_in_the_end_of_a_rollout_and_in_status() {
    for (tag, why) in [
        ("hanging", "Target.Timeout: Request timed out"),
        (
            "refusing",
            "Target.FailedHealthChecks: Health checks failed",
        ),
    ] {
        let wish = Wish {
            breaker: false,
            ..Wish::default()
        };
        let bottle = canary(wish).await.image(&format!("app:{tag}"));
        let standing = bottle.run().await;
        assert!(
            matches!(standing, Standing::Over(End::RolledBack, _)),
            "{standing:?}"
        );
        assert!(reason(&standing).contains(why), "{standing:?}");
        assert!(!bottle.proxy.take().contains(&"ModifyListener".to_owned()));
    }
    // A task that fails later, of two.
    let made = bottle::make(&Wish::default()).await;
    let service = format!("{}-stable", made.name);
    let body = json!({"cluster": made.cluster, "service": service, "tasks": 1});
    script("ecs/kill", body).await;
    let target = ["--listener", &made.listener, "--cluster", &made.cluster];
    let folder = folder();
    let text = ok(folder.path(), REGION, &[&["status"], &target[..]].concat());
    let why = "Target.ResponseCodeMismatch: Health checks failed with these codes: [500]";
    assert!(text.contains(why), "{text}");
    let shown = ok(
        folder.path(),
        REGION,
        &[&["status", "--json"], &target[..]].concat(),
    );
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let arms = shown["target"]["arms"].as_array().expect("arms").iter();
    let reasons = arms.map(|arm| arm["health-reason"].as_str());
    assert_eq!(reasons.collect::<Vec<_>>(), [Some(why), None]);
}

/// What does not exist is a mistake in the question: nothing begins, so nothing goes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_exist_is_usage_and_no_rollback() {
    let made = bottle::make(&Wish::default()).await;
    let (folder, canary) = (folder(), plugin("canary"));
    let target = ["--listener", &made.listener, "--cluster", &made.cluster];
    let missing = format!("canary={}/nope", made.cluster);
    let elsewhere = format!("canary=nowhere/{}-canary", made.name);
    for service in [&missing, &elsewhere] {
        for verb in ["run", "plan"] {
            let words = [verb, &canary, "--image", "app:v2", "--service", service];
            let output = run(folder.path(), REGION, &[&words[..], &target].concat());
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{verb} {service}: {said}");
            let name = service.rsplit('/').next().expect("a name");
            let named = said.contains(name) || said.contains("nowhere");
            assert!(named && !said.contains("rolled back"), "{said}");
        }
    }
    // One that was there, and is not behind its group any more.
    let gone = format!("{}-canary", made.name);
    let delete = [
        "ecs",
        "delete-service",
        "--force",
        "--cluster",
        &made.cluster,
    ];
    aws(REGION, &[&delete[..], &["--service", &gone]].concat());
    let words = ["run", &canary, "--image", "app:v2"];
    let output = run(folder.path(), REGION, &[&words[..], &target].concat());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--service canary="), "{said}");
    let listed = ok(folder.path(), REGION, &["list", "--all"]);
    assert!(!listed.contains("canary"), "nothing was begun: {listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_deployment_is_waited_for() {
    let bottle = canary(Wish::default()).await.image("app:slow");
    good_day(&bottle).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_takes_the_rollout_back_in_the_middle_of_a_wait() {
    let name = emulator::unique("alarm");
    alarm(&name, "OK").await;
    let strategy = {
        let name = name.clone();
        lab::Scripted(move |calls: Arc<dyn Calls>| {
            let name = name.clone();
            async move {
                let weights = engine::model::Weights::of([("stable", 50), ("canary", 50)]);
                let set = Call::SetWeights { weights };
                if calls.perform(set).await.is_err() {
                    return engine::rollout::Ran::Interrupted;
                }
                alarm(&name, "ALARM").await;
                // Ten hours, and nobody looks but the host.
                let wait = Call::Wait {
                    seconds: 36_000,
                    signals: vec![],
                };
                match calls.perform(wait).await {
                    Err(_) => engine::rollout::Ran::Interrupted,
                    Ok(_) => engine::rollout::Ran::Trapped("nobody came".to_owned()),
                }
            }
        })
    };
    let mut bottle = Bottle::new(Wish::default(), Arc::new(strategy), json!({})).await;
    bottle.header.guardrails.alarms = vec![name.clone()];
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    let why = reason(&standing);
    assert!(
        why.contains(&name) && why.contains("checkout is slow"),
        "{why}"
    );
    let journal = bottle.journal().await;
    let decided = journal.iter().find_map(|e| match &e.event {
        Event::Decided { by, goal, .. } => Some((by.clone(), *goal, e.at)),
        _ => None,
    });
    let (by, goal, at) = decided.expect("decided");
    assert_eq!((by.to_string().as_str(), goal), ("guard", Goal::RollBack));
    let asked = journal.iter().find(|e| {
        matches!(
            &e.event,
            Event::Asked {
                call: Call::Wait { .. },
                ..
            }
        )
    });
    let waited = at - asked.expect("waited").at;
    assert!(waited <= 16_000, "within one look: {waited} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_ecs_gives_up_goes_back() {
    let bottle = canary(Wish::default()).await.image("app:v2");
    good_day(&bottle).await;
    // The candidate's own service is fine; the stable one cannot take the copy.
    let stable = format!("{}-stable", bottle.made.name);
    let body = json!({"cluster": bottle.made.cluster, "service": stable, "fail": "no capacity in the zone"});
    script("ecs", body).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    assert!(reason(&standing).contains("stable"), "{standing:?}");
    let live = bottle.live().await;
    assert_eq!(live.weights().share("stable"), 100.0);
    assert_eq!(live.arms[0].release.version, "app:v1", "as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_shifted_by_ecs_is_refused() {
    let bottle = canary(Wish::default()).await;
    let aws = direct().await;
    let blue_green = aws_sdk_ecs::types::DeploymentConfiguration::builder()
        .strategy(aws_sdk_ecs::types::DeploymentStrategy::BlueGreen)
        .build();
    aws.ecs
        .update_service()
        .cluster(&bottle.made.cluster)
        .service(format!("{}-canary", bottle.made.name))
        .deployment_configuration(blue_green)
        .send()
        .await
        .expect("it takes any strategy");
    bottle.target.observe().await.expect("it can be looked at");
    let error = bottle.target.fit().await.expect_err("refused");
    assert_eq!(error.code, "shifts-by-itself");
    for written in [
        bottle.target.set_tasks("canary", 2).await,
        bottle
            .target
            .set_version("canary", &bottle.header.stable.clone().expect("known"))
            .await,
    ] {
        assert_eq!(written.expect_err("refused").code, "shifts-by-itself");
    }
}

/// A little server that answers `/ok` with 200 and the rest with 500.
async fn service(address: &str) -> i32 {
    let app = axum::Router::new()
        .route("/ok", axum::routing::get(|| async { "all is well" }))
        .fallback(|| async { hyper::StatusCode::INTERNAL_SERVER_ERROR });
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    i32::from(port)
}

fn probe(path: &str) -> Probe {
    Probe {
        name: "smoke".to_owned(),
        path: path.to_owned(),
        status: 200,
        contains: None,
        attempts: 2,
        timeout_ms: 2_000,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_candidate_is_probed_before_it_gets_traffic() {
    // The emulator's first task is at 127.0.0.1.
    let port = service("127.0.0.1:0").await;
    let wish = Wish {
        port,
        ..Wish::default()
    };
    let mut bottle = canary(wish.clone()).await;
    bottle.header.probes = vec![probe("/broken")];
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    assert!(
        reason(&standing).contains("probe smoke failed"),
        "{standing:?}"
    );
    assert!(!bottle.proxy.take().contains(&"ModifyListener".to_owned()));

    let mut bottle = canary(wish).await;
    bottle.header.probes = vec![probe("/ok")];
    good_day(&bottle).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_listener_is_the_way_to_an_idle_candidate() {
    let port = service("127.0.0.1:0").await;
    let made = bottle::make(&Wish::default()).await;
    let aws = direct().await;
    // The emulator's load balancer is called localhost.
    aws.elb
        .create_listener()
        .load_balancer_arn(&made.balancer)
        .protocol(aws_sdk_elasticloadbalancingv2::types::ProtocolEnum::Http)
        .port(port)
        .default_actions(bottle::forward(&[(&made.groups[1], 1)]))
        .send()
        .await
        .expect("a test listener");
    let proxy = Proxy::start().await;
    let clock = Arc::new(engine::clock::SystemClock);
    let target = bottle::reach(&proxy, bottle::find(&made), clock).await;
    let report = target
        .probe("canary", &probe("/ok"))
        .await
        .expect("reached");
    assert!(report.ok, "{report:?}");
    // It shows the candidate and nobody else.
    let report = target.probe("stable", &probe("/ok")).await.expect("tried");
    assert!(!report.ok, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_does_not_wait_for_more_tasks_than_there_are() {
    // Two tasks carry half of it, so all of it would need four.
    let wish = Wish {
        weights: [50, 50],
        tasks: [2, 2],
        ..Wish::default()
    };
    let bottle = canary(wish).await;
    let bad = Minute { errors: 90, ..GOOD };
    bottle.traffic(0, -10..120, GOOD).await;
    bottle.traffic(1, -10..120, bad).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    assert_eq!(bottle.live().await.weights().share("stable"), 100.0);
    let took = bottle.journal().await.last().expect("entries").at - lab::START;
    assert!(took < 10 * 60_000, "at once: {took} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_write_holds_the_rollout() {
    let bottle = canary(Wish::default()).await.image("app:v2");
    good_day(&bottle).await;
    let made = bottle.made.clone();
    let modified = std::sync::atomic::AtomicBool::new(false);
    // Somebody moves the weights while the strategy waits.
    bottle.proxy.plot(move |_, name| {
        if name == "GetMetricData" && !modified.swap(true, std::sync::atomic::Ordering::SeqCst) {
            let made = made.clone();
            tokio::spawn(async move {
                let action = bottle::forward(&[(&made.groups[0], 60), (&made.groups[1], 40)]);
                let modify = direct().await.elb.modify_listener();
                let modify = modify.listener_arn(&made.listener).default_actions(action);
                modify.send().await.expect("moved");
            });
        }
        Trouble::None
    });
    let standing = bottle.run().await;
    match standing {
        Standing::Held(Hold::ForeignChange { found, .. }) => {
            assert_eq!(found.share("canary"), 40.0);
        }
        other => panic!("{other:?}"),
    }
}

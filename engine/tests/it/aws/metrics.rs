//! CloudWatch and Prometheus: samples, zones, thresholds, late data, and the
//! difference between nothing and zero.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_cloudwatch::types::{Dimension, MetricDatum};
use aws_smithy_types::DateTime;
use engine::clock::{Clock as _, SystemClock, VirtualClock};
use engine::model::query::{BasicAuth, CloudWatchMetric, Count, Query, QuerySource};
use engine::model::{MetricsQuery, Sample};
use engine::target::Target as _;
use engine::target::aws::AwsTarget;
use serde_json::{Value, json};

use crate::support::aws::bottle::{self, GOOD, Made, Minute, Wish, direct, find, make, traffic};
use crate::support::aws::emulator::script;
use crate::support::aws::proxy::Proxy;
use crate::support::lab::START;
use crate::support::{folder, target_folder};

const MINUTE: u64 = 60_000;

async fn target(now: u64) -> (Made, Arc<VirtualClock>, AwsTarget, Proxy) {
    let made = make(&Wish::default()).await;
    let clock = Arc::new(VirtualClock::new(now));
    let proxy = Proxy::start().await;
    let target = bottle::reach(&proxy, find(&made), clock.clone()).await;
    proxy.take();
    (made, clock, target, proxy)
}

async fn samples(target: &AwsTarget, query: MetricsQuery) -> Vec<Sample> {
    target
        .samples(&query)
        .await
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Any metric of a service or a load balancer, one value.
async fn put(namespace: &str, name: &str, dimensions: &[(&str, &str)], at: u64, value: f64) {
    let dimensions = dimensions
        .iter()
        .map(|(n, v)| Dimension::builder().name(*n).value(*v).build());
    let datum = MetricDatum::builder()
        .metric_name(name)
        .timestamp(DateTime::from_millis(i64::try_from(at).expect("small")))
        .set_dimensions(Some(dimensions.collect()))
        .value(value)
        .build();
    direct()
        .await
        .cloudwatch
        .put_metric_data()
        .namespace(namespace)
        .metric_data(datum)
        .send()
        .await
        .expect("put");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_brings_everything_about_both_arms() {
    let (made, _, target, proxy) = target(START + 10 * MINUTE).await;
    traffic(&made, 0, 0..9, GOOD).await;
    let slow = Minute {
        requests: 50,
        errors: 4,
        unanswered: 0,
        latency_ms: 300.0,
    };
    traffic(&made, 1, 2..9, slow).await;
    let service = format!("{}-canary", made.name);
    let dimensions = [
        ("ClusterName", made.cluster.as_str()),
        ("ServiceName", &service),
    ];
    put(
        "AWS/ECS",
        "CPUUtilization",
        &dimensions,
        START + 3 * MINUTE,
        37.5,
    )
    .await;
    let query = MetricsQuery {
        since: START,
        over_ms: vec![100.0, 250.0, 500.0],
        by_zone: false,
    };
    let samples = samples(&target, query).await;
    assert_eq!(proxy.take(), ["GetMetricData"], "one call");
    // The two newest minutes still grow.
    assert!(samples.iter().all(|s| s.start < START + 8 * MINUTE));
    let of = |arm: &str| samples.iter().filter(|s| s.arm == arm).collect::<Vec<_>>();
    assert_eq!((of("stable").len(), of("canary").len()), (8, 6));
    let one = of("canary")[1];
    assert_eq!(one.start, START + 3 * MINUTE);
    assert_eq!((one.requests, one.errors, one.client_errors), (50, 4, 0));
    assert_eq!(one.over, [50, 50, 0], "counted above each threshold");
    assert_eq!(one.cpu, Some(37.5));
    let latency = one.latency.expect("known");
    assert!((latency.p99 - 300.0).abs() < 1.0, "{latency:?}");
    assert_eq!(of("stable")[0].errors, 0, "no count of errors is none");
    assert_eq!(of("stable")[0].over, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_an_answer_are_counted_arm_by_arm() {
    let (made, _, target, proxy) = target(START + 10 * MINUTE).await;
    let left = Minute {
        unanswered: 6,
        errors: 2,
        ..GOOD
    };
    traffic(&made, 0, 0..9, left).await;
    let hangs = Minute {
        requests: 50,
        unanswered: 50,
        ..GOOD
    };
    traffic(&made, 1, 2..9, hangs).await;
    let points = target
        .counted(Count::Unanswered, START)
        .await
        .expect("read");
    assert_eq!(proxy.take(), ["GetMetricData"], "one call");
    let points = points.expect("counted on AWS");
    let of = |arm: &str| -> Vec<f64> {
        let own = points.iter().filter(|p| p.arm == arm);
        own.map(|p| p.value).collect()
    };
    assert_eq!(of("stable"), [6.0; 8]);
    assert_eq!(
        of("canary"),
        [50.0; 6],
        "a minute without requests has no value"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_stopped_by_themselves_are_counted_arm_by_arm() {
    let (made, _, target, proxy) = target(START + 10 * MINUTE).await;
    let of = async |count| {
        let points = target.counted(count, START).await.expect("read");
        let points = points.expect("counted on AWS").into_iter();
        let told = points.map(|p| (p.arm, (p.at - START) / MINUTE, p.value));
        told.collect::<Vec<_>>()
    };
    assert_eq!(of(Count::Restarts).await, []);
    let times = |minutes: &[u64]| -> Vec<u64> {
        minutes
            .iter()
            .map(|m| START / 1_000 + m * 60 + 20)
            .collect()
    };
    let crash = async |arm: &str, minutes: &[u64], how: Value| {
        let mut body = json!({
            "cluster": made.cluster,
            "service": format!("{}-{arm}", made.name),
            "at": times(minutes),
        });
        body.as_object_mut()
            .expect("an object")
            .extend(how.as_object().expect("an object").clone());
        script("ecs/crash", body).await;
    };
    // The last one is still to come, by the clock of the engine.
    crash("canary", &[2, 2, 5, 30], json!({"exit": 3})).await;
    crash("stable", &[4], json!({"memory": true})).await;
    let (canary, stable) = (|| "canary".to_owned(), || "stable".to_owned());
    assert_eq!(
        of(Count::Restarts).await,
        [(canary(), 2, 2.0), (stable(), 4, 1.0), (canary(), 5, 1.0)]
    );
    assert_eq!(of(Count::OutOfMemory).await, [(stable(), 4, 1.0)]);
    assert_eq!(
        of(Count::EndedWith).await,
        [(canary(), 2, 3.0), (stable(), 4, 137.0), (canary(), 5, 3.0)]
    );
    // One that failed health checks got the signal of ECS, and its exit code says nothing.
    target.observe().await.expect("it starts another one");
    crash("canary", &[6], json!({"health": true})).await;
    let codes = of(Count::EndedWith).await;
    assert_eq!(codes.len(), 3, "{codes:?}");
    assert_eq!(of(Count::Restarts).await.len(), 4);
    proxy.take();
    target.counted(Count::Restarts, START).await.expect("read");
    let mut calls = proxy.take();
    calls.sort();
    assert_eq!(
        calls,
        ["DescribeTasks", "DescribeTasks", "ListTasks", "ListTasks"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn late_data_is_seen_when_it_comes_and_nothing_is_not_zero() {
    let (made, clock, target, _proxy) = target(START + 6 * MINUTE).await;
    let query = || MetricsQuery {
        since: START,
        ..MetricsQuery::default()
    };
    assert_eq!(samples(&target, query()).await, [], "nothing is nothing");
    traffic(&made, 1, 0..2, GOOD).await;
    assert_eq!(samples(&target, query()).await.len(), 2);
    // Errors alone, without requests, are no evidence of anything.
    let tail = |arn: &str| {
        arn.rsplit(':')
            .next()
            .expect("ARN")
            .replace("loadbalancer/", "")
    };
    let (group, balancer) = (tail(&made.groups[0]), tail(&made.balancer));
    let dimensions = [("TargetGroup", group.as_str()), ("LoadBalancer", &balancer)];
    let name = "HTTPCode_Target_5XX_Count";
    put("AWS/ApplicationELB", name, &dimensions, START, 9.0).await;
    assert!(
        samples(&target, query())
            .await
            .iter()
            .all(|s| s.arm == "canary")
    );
    // The same question again finds what came late.
    traffic(&made, 1, 2..4, GOOD).await;
    assert_eq!(samples(&target, query()).await.len(), 4);
    clock.sleep_until(START + 60 * MINUTE).await;
    traffic(&made, 1, 4..50, GOOD).await;
    assert_eq!(samples(&target, query()).await.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cloudwatch_has_not_shown_yet_is_no_sample() {
    let (made, _, target, _proxy) = target(START + 400 * MINUTE).await;
    traffic(&made, 0, 300..398, GOOD).await;
    let query = MetricsQuery {
        since: START + 390 * MINUTE,
        ..MetricsQuery::default()
    };
    assert_eq!(samples(&target, query.clone()).await.len(), 8);
    // Three hours at most, however far back the question goes.
    let all = MetricsQuery { since: 0, ..query };
    let all = samples(&target, all).await;
    assert_eq!(all.len(), 98);
}

#[tokio::test(flavor = "multi_thread")]
async fn arms_are_split_by_zone() {
    let (made, _, target, _proxy) = target(START + 5 * MINUTE).await;
    let tail = |arn: &str| {
        arn.rsplit(':')
            .next()
            .expect("ARN")
            .replace("loadbalancer/", "")
    };
    let (group, balancer) = (tail(&made.groups[0]), tail(&made.balancer));
    let zones = target.found().zones.clone();
    for (zone, requests) in zones.iter().zip([30.0, 70.0]) {
        let dimensions = [
            ("TargetGroup", group.as_str()),
            ("LoadBalancer", &balancer),
            ("AvailabilityZone", zone),
        ];
        put(
            "AWS/ApplicationELB",
            "RequestCount",
            &dimensions,
            START,
            requests,
        )
        .await;
    }
    let query = MetricsQuery {
        since: START,
        over_ms: vec![],
        by_zone: true,
    };
    let samples = samples(&target, query).await;
    let seen: Vec<(Option<String>, u32)> = samples
        .iter()
        .map(|s| (s.zone.clone(), s.requests))
        .collect();
    assert_eq!(
        seen,
        [(Some(zones[0].clone()), 30), (Some(zones[1].clone()), 70)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_metrics_come_from_cloudwatch() {
    let (made, _, target, _proxy) = target(START + 5 * MINUTE).await;
    for (arm, accuracy) in [("stable", 0.91), ("canary", 0.87)] {
        let service = format!("{}-{arm}", made.name);
        for n in 0..3 {
            let at = START + n * MINUTE;
            put(
                "ML/Serving",
                "Accuracy",
                &[("Service", &service)],
                at,
                accuracy,
            )
            .await;
        }
    }
    let mut metric = CloudWatchMetric {
        expression: None,
        namespace: "ML/Serving".to_owned(),
        metric: "Accuracy".to_owned(),
        statistic: "Average".to_owned(),
        period_s: 60,
        dimensions: vec![("Service".to_owned(), "{service}".to_owned())],
    };
    let query = |metric: &CloudWatchMetric| Query {
        name: "accuracy".to_owned(),
        source: QuerySource::CloudWatch(metric.clone()),
        headers: vec![],
        basic_auth: None,
    };
    let points = target.query(&query(&metric), START).await.expect("points");
    let of = |arm: &str| -> Vec<f64> {
        points
            .iter()
            .filter(|p| p.arm == arm)
            .map(|p| p.value)
            .collect()
    };
    assert_eq!(of("stable"), [0.91; 3]);
    assert_eq!(of("canary"), [0.87; 3]);
    metric.metric = "Nothing".to_owned();
    let points = target
        .query(&query(&metric), START)
        .await
        .expect("no points");
    assert_eq!(points, [], "no data is no value");
}

/// A Prometheus of the distribution that scrapes one little page.
struct Prometheus {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn prometheus(page: &'static str) -> Prometheus {
    prometheus_with(page, "").await
}

/// With the contents of its own file for who is let in.
async fn prometheus_with(page: &'static str, web: &str) -> Prometheus {
    let app =
        axum::Router::new().route("/metrics", axum::routing::get(move || async move { page }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let scraped = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    let folder = folder();
    let config = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\nscrape_configs:\n- job_name: app\n  static_configs: [{{targets: ['{scraped}']}}]\n"
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).expect("writable");
    std::fs::write(folder.path().join("web.yml"), web).expect("writable");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("bound").to_string();
    drop(free);
    let place = target_folder().join("emulator/prometheus");
    assert!(
        place.exists(),
        "{}: `make emulator` makes it",
        place.display()
    );
    let process = Command::new(place)
        .current_dir(folder.path())
        .arg("--config.file=prometheus.yml")
        .arg("--web.config.file=web.yml")
        .arg("--storage.tsdb.path=data")
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    Prometheus {
        process,
        address: format!("http://{address}"),
        _folder: folder,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_metrics_come_from_prometheus() {
    let page = "tokens_per_second{arm=\"stable\"} 41\ntokens_per_second{arm=\"canary\"} 57\n";
    let server = prometheus(page).await;
    let made = make(&Wish::default()).await;
    let proxy = Proxy::start().await;
    let target = bottle::reach(&proxy, find(&made), Arc::new(SystemClock)).await;
    let query = |text: &str| Query {
        name: "tokens".to_owned(),
        source: QuerySource::Prometheus {
            server: server.address.clone(),
            query: text.to_owned(),
        },
        headers: vec![],
        basic_auth: None,
    };
    let since = SystemClock.now() - 2 * MINUTE;
    let by_arm = query("tokens_per_second{arm=\"{arm}\"}");
    let mut points = vec![];
    for _ in 0..100 {
        points = target.query(&by_arm, since).await.unwrap_or_default();
        if points.len() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let last = |arm: &str| points.iter().rfind(|p| p.arm == arm).map(|p| p.value);
    assert_eq!(
        (last("stable"), last("canary")),
        (Some(41.0), Some(57.0)),
        "{points:?}"
    );

    let nothing = target.query(&query("no_such_metric"), since).await;
    assert_eq!(nothing.expect("an answer"), []);
    let several = target.query(&query("tokens_per_second"), since).await;
    let several = several.expect_err("two series for one arm");
    assert!(several.message.contains("2 series"), "{several}");
    let wrong = target
        .query(&query("sum("), since)
        .await
        .expect_err("no expression");
    assert!(wrong.message.contains("parse error"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_behind_a_password_is_logged_in_to() {
    let page = "tokens_per_second{arm=\"stable\"} 41\ntokens_per_second{arm=\"canary\"} 57\n";
    // canary:opensesame, as bcrypt at its cheapest.
    let web = "basic_auth_users: {canary: '$2b$04$8QB4R95CKf/p5zD8pKBz8.VLKrxwE65LTf64vregOsSNCeESaZGGW'}\n";
    let server = prometheus_with(page, web).await;
    let made = make(&Wish::default()).await;
    let proxy = Proxy::start().await;
    let target = bottle::reach(&proxy, find(&made), Arc::new(SystemClock)).await;
    let folder = folder();
    let password = folder.path().join("password");
    std::fs::write(&password, "opensesame\n").expect("writable");
    let query = |text: &str, user: Option<&str>| Query {
        basic_auth: user.map(|user| BasicAuth {
            user: user.to_owned(),
            password: format!("${{file:{}}}", password.display()),
        }),
        ..Query::new(
            "tokens",
            QuerySource::Prometheus {
                server: server.address.clone(),
                query: text.to_owned(),
            },
        )
    };
    let since = SystemClock.now() - 2 * MINUTE;
    let by_arm = "tokens_per_second{arm=\"{arm}\"}";
    let mut points = vec![];
    for _ in 0..100 {
        let asked = target.query(&query(by_arm, Some("canary")), since).await;
        points = asked.unwrap_or_default();
        if points.len() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(
        points.iter().any(|p| p.arm == "canary" && p.value == 57.0),
        "{points:?}"
    );
    for (user, says) in [
        (None, "it asks for credentials, and this query has none"),
        (
            Some("somebody"),
            "it does not take the credentials of this query",
        ),
    ] {
        let error = target.query(&query(by_arm, user), since).await;
        let error = error.expect_err("refused");
        assert_eq!(error.code, "query-refused", "{error}");
        assert!(
            error.message.contains(says) && error.message.contains("401"),
            "{error}"
        );
    }
    let nan = format!("{by_arm} * NaN");
    let error = target.query(&query(&nan, Some("canary")), since).await;
    let error = error.expect_err("no number");
    assert!(
        error.message.contains("NaN for stable and NaN for canary"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_that_come_later_than_usual_are_waited_for() {
    // In a day of its own, because the script is for the whole region.
    let day = 10_000 * MINUTE;
    let (made, _, target, _proxy) = target(START + day + 8 * MINUTE).await;
    let from = i64::try_from(10_000_u64).expect("small");
    traffic(&made, 0, from..from + 6, GOOD).await;
    script(
        "cloudwatch",
        json!({"hide_newer_than": START + day + 3 * MINUTE}),
    )
    .await;
    let query = MetricsQuery {
        since: START + day,
        ..MetricsQuery::default()
    };
    let early = samples(&target, query.clone()).await.len();
    script("cloudwatch", json!({"hide_newer_than": Value::Null})).await;
    let later = samples(&target, query).await.len();
    assert_eq!((early, later), (4, 6));
}

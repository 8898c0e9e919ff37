//! The local balancer with real connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use engine::clock::{Clock as _, SystemClock};
use engine::model::query::Probe;
use engine::model::target::LocalSpec;
use engine::model::{DemoFault, Deployment, MetricsQuery, Release, Source, Weights};
use engine::target::Target;
use engine::target::http::Client;
use engine::target::local::LocalTarget;
use engine::target::local::balancer::{Balancer, Opened};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Version};
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::balancer::{demo, healthy, spec, start, url};
use crate::support::binary::{code, engine, plugin, stderr, stdout};
use crate::support::clients::{self, answer, say, upstream, users};
use crate::support::{folder, root};

const PATIENCE: Duration = Duration::from_secs(10);

/// Who answers a request.
async fn whoami(client: &Client, address: SocketAddr) -> String {
    let answer = client
        .send("GET", &format!("http://{address}/whoami"), None, PATIENCE)
        .await
        .expect("answered");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    body["version"].as_str().expect("a version").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_agree_with_the_weights() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let weights = Weights::of([("stable", 90), ("canary", 10)]);
    target.set_weights(&weights).await.expect("valid");
    let requests = 3_000_u32;
    let client = Client::default();
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..30 {
        let (client, address) = (client.clone(), balancer.listen);
        tasks.spawn(async move {
            let mut new = 0_u32;
            for _ in 0..requests / 30 {
                new += u32::from(whoami(&client, address).await == "v2");
            }
            let _ = lane;
            new
        });
    }
    let new: u32 = tasks.join_all().await.into_iter().sum();
    // Binomial: five standard deviations leave one false alarm in two million.
    let (n, p) = (f64::from(requests), 0.1);
    let bound = 5.0 * (n * p * (1.0 - p)).sqrt();
    let off = (f64::from(new) - n * p).abs();
    assert!(off < bound, "{new} of {requests} at 10 %");
    // And nothing at all at weight 0.
    let none = Weights::of([("stable", 0), ("canary", 999)]);
    target.set_weights(&none).await.expect("valid");
    for _ in 0..200 {
        assert_eq!(whoami(&client, balancer.listen).await, "v2");
    }
}

#[tokio::test]
async fn samples_count_what_users_saw() {
    let fault = DemoFault {
        error_rate: 1.0,
        latency_ms: 40,
    };
    let (balancer, target) = start(&spec([demo(), Source::Demo(fault)])).await;
    let half = Weights::of([("stable", 1), ("canary", 1)]);
    target.set_weights(&half).await.expect("valid");
    let client = Client::default();
    let mut failed = 0;
    for _ in 0..60 {
        let answer = client
            .send(
                "GET",
                &format!("http://{}/", balancer.listen),
                None,
                PATIENCE,
            )
            .await
            .expect("answered");
        failed += u32::from(answer.status.is_server_error());
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let query = MetricsQuery {
        since: 0,
        over_ms: vec![30.0],
        by_zone: false,
    };
    let samples = target.samples(&query).await.expect("reachable");
    let of = |arm: &'static str| samples.iter().filter(move |s| s.arm == arm);
    assert_eq!(of("stable").map(|s| s.errors).sum::<u32>(), 0);
    assert_eq!(of("canary").map(|s| s.errors).sum::<u32>(), failed);
    assert_eq!(of("canary").map(|s| s.over[0]).sum::<u32>(), failed);
    assert_eq!(samples.iter().map(|s| s.requests).sum::<u32>(), 60);
    assert!(of("canary").all(|s| s.latency.expect("known").p50 >= 40.0));
    assert!(samples.windows(2).all(|w| w[0].start <= w[1].start));
}

#[tokio::test]
async fn a_cookie_keeps_a_client_until_its_arm_is_out_of_service() {
    let mut spec = spec([demo(), demo()]);
    spec.sticky_seconds = 60;
    let (balancer, target) = start(&spec).await;
    let half = Weights::of([("stable", 1), ("canary", 1)]);
    target.set_weights(&half).await.expect("valid");
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let ask = async |cookie: Option<&str>| {
        let mut request = Request::get(format!("http://{}/whoami", balancer.listen));
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("valid");
        let response: hyper::Response<hyper::body::Incoming> =
            client.request(request).await.expect("answered");
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().expect("text").to_owned())
        };
        (
            header("x-engine-arm").expect("always there"),
            header("set-cookie"),
        )
    };
    let (arm, cookie) = ask(None).await;
    let cookie = cookie.expect("told to stay");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("Max-Age=60"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    for _ in 0..20 {
        assert_eq!(ask(Some(&cookie)).await, (arm.clone(), None));
    }
    assert!(target.observe().await.expect("reachable").sticky);
    // After a rollback nobody stays behind.
    let other = if arm == "stable" { "canary" } else { "stable" };
    target
        .set_weights(&half.all_to(other))
        .await
        .expect("valid");
    assert_eq!(ask(Some(&cookie)).await.0, other);
}

#[tokio::test]
async fn a_websocket_goes_through_as_a_tunnel() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = upstream.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = upstream.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let head = head.to_lowercase();
                if !head.contains("upgrade: websocket") {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .await;
                    return;
                }
                assert!(head.contains("sec-websocket-key: abc"), "{head}");
                let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                stream.write_all(answer).await.expect("open");
                let mut buffer = [0; 64];
                loop {
                    let count = stream.read(&mut buffer).await.unwrap_or(0);
                    if count == 0 {
                        return;
                    }
                    stream.write_all(&buffer[..count]).await.expect("open");
                }
            });
        }
    });
    let (balancer, _) = start(&spec([url(address), demo()])).await;
    let mut client = BufReader::new(TcpStream::connect(balancer.listen).await.expect("listens"));
    let ask = "GET /chat HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: abc\r\n\r\n";
    client.write_all(ask.as_bytes()).await.expect("open");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(
            client.read_line(&mut head).await.expect("open") > 0,
            "{head}"
        );
    }
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    for message in ["one", "two"] {
        client.write_all(message.as_bytes()).await.expect("open");
        let mut echo = [0; 3];
        client.read_exact(&mut echo).await.expect("echoed");
        assert_eq!(echo, message.as_bytes());
    }
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = upstream.local_addr().expect("bound");
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let gone = std::sync::Arc::new(tokio::sync::Mutex::new(Some(gone)));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = upstream.accept().await {
            let gone = gone.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 1_024];
                let count = stream.read(&mut buffer).await.unwrap_or(0);
                if !buffer[..count].starts_with(b"GET /slow") {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .await;
                    return;
                }
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
                stream.write_all(head).await.expect("open");
                if let Some(gone) = gone.lock().await.take() {
                    let _ = gone.await;
                }
                stream
                    .write_all(b"4\r\nlast\r\n0\r\n\r\n")
                    .await
                    .expect("open");
            });
        }
    });
    let (balancer, _) = start(&spec([url(address), demo()])).await;
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(format!("http://{}/slow", balancer.listen));
    let request = request.body(Empty::<Bytes>::new()).expect("valid");
    let response: hyper::Response<hyper::body::Incoming> =
        client.request(request).await.expect("answered");
    let mut body = response.into_body();
    let mut next = async || {
        let frame = tokio::time::timeout(PATIENCE, body.frame())
            .await
            .expect("in time");
        frame
            .expect("more")
            .expect("whole")
            .into_data()
            .expect("data")
    };
    // The first part is here while the target still holds back the last one.
    assert_eq!(next().await, "first");
    go.send(()).expect("the target waits");
    assert_eq!(next().await, "last");
}

#[tokio::test]
async fn http_2_from_users_and_to_arms() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = upstream.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = upstream.accept().await {
            let service =
                hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                    let line = format!("{:?} {:?}", request.version(), request.uri().path());
                    let body = http_body_util::Full::<Bytes>::from(line);
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
                });
            tokio::spawn(async move {
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(io, service)
                    .await;
            });
        }
    });
    for (upstream_http2, says) in [(false, "HTTP/1.1 \"/x\""), (true, "HTTP/2.0 \"/x\"")] {
        let mut spec = spec([url(address), url(address)]);
        spec.upstream_http2 = upstream_http2;
        let (balancer, _) = start(&spec).await;
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let request = Request::get(format!("http://{}/x", balancer.listen));
        let request = request.body(Empty::<Bytes>::new()).expect("valid");
        let response: hyper::Response<hyper::body::Incoming> =
            client.request(request).await.expect("answered");
        assert_eq!(response.version(), Version::HTTP_2);
        let body = response
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes();
        assert_eq!(body, says);
    }
}

#[tokio::test]
async fn health_follows_the_target() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let (balancer, target) = start(&spec([demo(), url(address)])).await;
    healthy(&target, "stable", 1).await;
    assert_eq!(
        target.observe().await.expect("reachable").arms[1].healthy,
        0
    );
    // A dead arm answers 502, and that is an error of the arm.
    target
        .set_weights(&Weights::of([("stable", 0), ("canary", 1)]))
        .await
        .expect("valid");
    let answer = Client::default()
        .send(
            "GET",
            &format!("http://{}/", balancer.listen),
            None,
            PATIENCE,
        )
        .await
        .expect("answered");
    assert_eq!(answer.status, 502);
    let alive = Balancer::start(
        &LocalSpec {
            listen: address,
            ..spec([demo(), demo()])
        },
        None,
        None,
    )
    .await
    .expect("starts");
    healthy(&target, "canary", 1).await;
    drop(alive);
    healthy(&target, "canary", 0).await;
}

#[tokio::test]
async fn a_replaced_release_finishes_its_requests() {
    let slow = Source::Demo(DemoFault {
        error_rate: 0.0,
        latency_ms: 700,
    });
    let (balancer, target) = start(&spec([slow, demo()])).await;
    let client = Client::default();
    let old = tokio::spawn({
        let client = client.clone();
        async move { whoami(&client, balancer.listen).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let release = Release {
        version: "v9".to_owned(),
        source: demo(),
    };
    target
        .set_version("stable", &release)
        .await
        .expect("starts");
    assert_eq!(whoami(&client, balancer.listen).await, "v9");
    assert_eq!(old.await.expect("no panic"), "v1", "it was not cut off");
}

#[tokio::test]
async fn stopping_lets_requests_finish() {
    let slow = Source::Demo(DemoFault {
        error_rate: 0.0,
        latency_ms: 500,
    });
    let (balancer, _) = start(&spec([slow, demo()])).await;
    let address = balancer.listen;
    let under_way = tokio::spawn(async move { whoami(&Client::default(), address).await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    balancer.stop().await;
    assert_eq!(under_way.await.expect("no panic"), "v1");
    assert!(TcpStream::connect(address).await.is_err(), "closed");
}

#[tokio::test]
async fn a_program_is_started_logged_and_restarted() {
    let folder = folder();
    let script = root().join("examples/service/serve.py");
    let command = [
        "python3",
        &script.display().to_string(),
        "--version",
        "v7",
        "--port",
        "{port}",
    ];
    let source = Source::Command(command.map(ToOwned::to_owned).to_vec());
    let logs = folder.path().join("logs");
    let spec = spec([source, demo()]);
    let balancer = Balancer::start(&spec, None, Some(&logs))
        .await
        .expect("starts");
    let target = LocalTarget::new(balancer.admin);
    healthy(&target, "stable", 1).await;
    assert_eq!(whoami(&Client::default(), balancer.listen).await, "v7");
    let log = format!("logs/stable-v1-{}.log", balancer.admin.port());
    assert!(folder.path().join(log).exists());
    let wrong = Release {
        version: "v8".to_owned(),
        source: Source::Command(vec!["/no/such/program".to_owned()]),
    };
    let error = target
        .set_version("canary", &wrong)
        .await
        .expect_err("cannot start");
    assert!(error.message.contains("cannot be started"), "{error}");
}

/// What a program said before it ended is shown at once, and an arm whose program never
/// serves is given up.
#[tokio::test]
async fn a_program_that_does_not_start_says_why() {
    let quits = |script: &str| Source::Command(["sh", "-c", script].map(str::to_owned).to_vec());
    for (script, says) in [
        (
            "echo loading; echo no module named torch >&2; exit 3",
            &["ended with exit code 3", "no module named torch"][..],
        ),
        ("exit 0", &["ended with exit code 0", "it wrote nothing to"]),
        ("kill -9 $$", &["was killed by signal 9"]),
        (
            "for n in 1 2 3 4 5 6 7; do echo line $n; done; exit 1",
            &["line 3\n", "line 7"],
        ),
    ] {
        let folder = folder();
        let logs = folder.path().join("logs");
        let spec = spec([demo(), quits(script)]);
        let balancer = Balancer::start(&spec, None, Some(&logs))
            .await
            .expect("starts");
        let target = LocalTarget::new(balancer.admin);
        let mut first = None;
        let mut given_up = None;
        for _ in 0..200 {
            let live = target.observe().await.expect("reachable");
            match &live.arm("canary").expect("there").deployment {
                Deployment::Steady => {}
                Deployment::Moving(why) => first = first.or(Some(why.clone())),
                Deployment::Failed(why) => {
                    given_up = Some(why.clone());
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let first = first.expect("it says it before it gives up");
        let given_up = given_up.expect("it gives up");
        for says in says {
            assert!(first.contains(says), "{first}");
            // The log has all three starts, and the last one says enough.
            assert_eq!(given_up.matches(says).count(), 1, "{given_up}");
        }
        assert!(
            given_up.contains("3 times without having served"),
            "{given_up}"
        );
        assert!(
            given_up.contains("canary-v2-") || script.starts_with("kill"),
            "{given_up}"
        );
        assert!(
            !given_up.contains("line 2\n"),
            "five lines are enough: {given_up}"
        );
    }
}

#[tokio::test]
async fn weights_and_releases_outlive_the_process() {
    let folder = folder();
    let state = folder.path().join("local.json");
    let spec = spec([demo(), demo()]);
    let balancer = Balancer::start(&spec, Some(&state), None)
        .await
        .expect("starts");
    let target = LocalTarget::new(balancer.admin);
    let weights = Weights::of([("stable", 70), ("canary", 30)]);
    target.set_weights(&weights).await.expect("valid");
    let release = Release {
        version: "v3".to_owned(),
        source: demo(),
    };
    target
        .set_version("canary", &release)
        .await
        .expect("starts");
    drop(balancer);
    let again = Balancer::start(&spec, Some(&state), None)
        .await
        .expect("starts");
    let live = LocalTarget::new(again.admin)
        .observe()
        .await
        .expect("reachable");
    assert_eq!(live.weights(), weights);
    assert_eq!(live.arms[1].release.version, "v3");
    drop(again);
    std::fs::write(&state, "{").expect("writable");
    let error = Balancer::start(&spec, Some(&state), None)
        .await
        .expect_err("damaged");
    assert!(error.to_string().contains("remove the file"), "{error}");
}

#[tokio::test]
async fn the_admin_api_refuses_nonsense() {
    let (_balancer, target) = start(&spec([demo(), demo()])).await;
    for (weights, says) in [
        (Weights::of([("stable", 1)]), "is missing"),
        (Weights::of([("stable", 1_000), ("canary", 0)]), "0 to 999"),
        (
            Weights::of([("stable", 0), ("canary", 0)]),
            "all weights are 0",
        ),
    ] {
        let error = target.set_weights(&weights).await.expect_err("nonsense");
        assert!(error.message.contains(says), "{error}");
    }
    let live = target.observe().await.expect("reachable");
    assert_eq!(
        live.weights(),
        Weights::of([("stable", 100), ("canary", 0)])
    );
}

#[tokio::test]
async fn probes_go_past_the_weights() {
    let (_balancer, target) = start(&spec([demo(), demo()])).await;
    let probe = |contains: &str, status| Probe {
        name: "smoke".to_owned(),
        path: "/whoami".to_owned(),
        status,
        contains: Some(contains.to_owned()),
        attempts: 1,
        timeout_ms: 2_000,
    };
    let good = target
        .probe("canary", &probe("v2", 200))
        .await
        .expect("reachable");
    assert!(good.ok && good.status == 200, "{good:?}");
    let other = target
        .probe("canary", &probe("v1", 200))
        .await
        .expect("reachable");
    assert!(!other.ok && other.detail.contains("no \"v1\""), "{other:?}");
    let status = target
        .probe("canary", &probe("v2", 204))
        .await
        .expect("reachable");
    assert!(
        !status.ok && status.detail.contains("200, not 204"),
        "{status:?}"
    );
    assert!(target.probe("purple", &probe("", 200)).await.is_err());
}

#[tokio::test]
async fn custom_queries_read_a_number_from_json() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = upstream.local_addr().expect("bound");
    let app = axum::Router::new().route(
        "/accuracy",
        axum::routing::get(|query: axum::extract::RawQuery| async move {
            let good = query.0.unwrap_or_default().contains("arm=stable");
            axum::Json(serde_json::json!({"data": {"value": if good { 0.97 } else { 0.91 }}}))
        }),
    );
    tokio::spawn(async move { axum::serve(upstream, app).await });
    let (_balancer, target) = start(&spec([demo(), demo()])).await;
    let query = |pointer: &str| engine::model::query::Query {
        name: "accuracy".to_owned(),
        source: engine::model::query::QuerySource::Json {
            url: format!("http://{address}/accuracy?arm={{arm}}"),
            pointer: pointer.to_owned(),
        },
        headers: vec![],
        basic_auth: None,
    };
    let points = target
        .query(&query("/data/value"), 0)
        .await
        .expect("answered");
    let values: Vec<(&str, f64)> = points.iter().map(|p| (p.arm.as_str(), p.value)).collect();
    assert_eq!(values, [("stable", 0.97), ("canary", 0.91)]);
    let error = target
        .query(&query("/nowhere"), 0)
        .await
        .expect_err("no number");
    assert!(
        error.message.contains("no number at \"/nowhere\""),
        "{error}"
    );
}

#[tokio::test]
async fn a_request_that_nobody_answers_in_time_is_an_error() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = upstream.local_addr().expect("bound");
    // It takes connections and says nothing.
    let held = tokio::spawn(async move {
        let mut held = vec![];
        while let Ok((stream, _)) = upstream.accept().await {
            held.push(stream);
        }
    });
    let mut spec = spec([url(address), demo()]);
    spec.response_timeout_ms = 400;
    let (balancer, target) = start(&spec).await;
    let url = format!("http://{}/", balancer.listen);
    let ask = async |patience| Client::default().send("GET", &url, None, patience).await;
    // One client gives up first, which anybody could do at any time; the balancer
    // gives up on the other's behalf.
    assert!(ask(Duration::from_millis(100)).await.is_err());
    assert_eq!(ask(PATIENCE).await.expect("answered").status, 504);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let query = MetricsQuery::default();
    let samples = target.samples(&query).await.expect("reachable");
    let errors: u32 = samples.iter().map(|s| s.errors).sum();
    assert_eq!(errors, 1, "{samples:?}");
    let live = target.observe().await.expect("reachable");
    assert_eq!(live.arms[0].spoiled, 1);
    held.abort();
}

/// Counts and rates of an arm are those of the release that it runs: neither what an earlier
/// one did, nor what that one still does while it drains, is said of the next.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_release_did_is_not_said_of_the_next() {
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let (let_go, gone) = tokio::sync::watch::channel(false);
    let bad = clients::upstream(move |mut stream, head| {
        let (arrived, mut gone) = (arrived.clone(), gone.clone());
        async move {
            if head.starts_with("GET /late") {
                let _ = arrived.send(());
                let _ = gone.wait_for(|gone| *gone).await;
            }
            clients::answer(&mut stream, "500 Oops").await;
        }
    })
    .await;
    let (balancer, target) = clients::start(bad, |_| ()).await;
    let listen = balancer.listen;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let look = async || {
        let now = SystemClock.now();
        let seen = engine::ops::status::look(&target, now).await;
        let seen = seen.expect("reachable");
        (seen.rates("stable"), seen.observed.arms[0].clone())
    };
    // It fails, and a client gives up.
    let heard = clients::say(listen, get("/").as_bytes(), PATIENCE).await;
    assert!(heard.starts_with("HTTP/1.1 500"), "{heard}");
    let short = Duration::from_millis(50);
    clients::say(listen, get("/late").as_bytes(), short).await;
    arrivals.recv().await.expect("it came to the arm");
    clients::seen(&target).await;
    let (rates, arm) = look().await;
    assert_eq!(rates.error_percent, Some(100.0));
    assert_eq!((arm.spoiled, arm.unanswered), (1, 1));
    // One request is still with it when its successor comes, and fails after that.
    let late =
        tokio::spawn(async move { clients::say(listen, get("/late").as_bytes(), PATIENCE).await });
    arrivals.recv().await.expect("it came to the arm");
    let good = Release {
        version: "v2".to_owned(),
        source: url(clients::upstream(clients::good).await),
    };
    target.set_version("stable", &good).await.expect("replaced");
    let (rates, arm) = look().await;
    assert_eq!(rates.error_percent, None, "nothing was measured of v2 yet");
    assert_eq!((arm.spoiled, arm.unanswered), (0, 0));
    let_go.send(true).expect("it waits");
    let heard = late.await.expect("no panic");
    assert!(heard.starts_with("HTTP/1.1 500"), "{heard}");
    for _ in 0..100 {
        let heard = clients::say(listen, get("/").as_bytes(), PATIENCE).await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        let (rates, _) = look().await;
        if let Some(errors) = rates.error_percent {
            assert_eq!(errors, 0.0, "v1 did that, not v2");
            let since = rates.measured.expect("with samples").since;
            assert!(Some(since) >= arm.since, "{since} {:?}", arm.since);
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nothing was measured of v2");
}

#[tokio::test]
async fn the_admin_api_answers_to_its_own_name_only() {
    let (balancer, _) = start(&spec([demo(), demo()])).await;
    let mut client = TcpStream::connect(balancer.admin).await.expect("listens");
    let ask = "GET /v1/state HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    client.write_all(ask.as_bytes()).await.expect("open");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("closed");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

/// A program that begins to listen a second after its start, and answers everything.
const LATE: &str = "import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header('content-length', '0'); self.end_headers()
    def log_message(self, *_): pass
time.sleep(1)
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()";

#[tokio::test(flavor = "multi_thread")]
async fn users_wait_until_the_arm_that_serves_them_is_up() {
    let late = || {
        Source::Command(
            ["python3", "-c", LATE, "{port}"]
                .map(ToOwned::to_owned)
                .to_vec(),
        )
    };
    // The candidate has no weight, so nobody waits for it.
    let free = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let dead = free.local_addr().expect("bound");
    drop(free);
    let (balancer, target) = start(&spec([late(), url(dead)])).await;
    let url = format!("http://{}/", balancer.listen);
    let all = (0..20).map(|_| {
        let (client, url) = (Client::default(), url.clone());
        tokio::spawn(async move { client.send("GET", &url, None, PATIENCE).await })
    });
    for answer in all.collect::<Vec<_>>() {
        let answer = answer.await.expect("not cancelled").expect("answered");
        assert_eq!(answer.status, 200);
    }
    assert_eq!(balancer.opened().await, Some(Opened::Healthy));
    let mut samples = vec![];
    for _ in 0..100 {
        samples = target
            .samples(&MetricsQuery::default())
            .await
            .expect("reachable");
        if samples.iter().map(|s| s.requests).sum::<u32>() == 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        samples
            .iter()
            .map(|s| (s.requests, s.errors))
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
        (20, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_an_arm_that_was_never_healthy_are_no_evidence() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let dead = free.local_addr().expect("bound");
    drop(free);
    let (balancer, target) = start(&spec([demo(), url(dead)])).await;
    healthy(&target, "stable", 1).await;
    // A person sends users to an arm that is not up yet.
    let both = Weights::of([("stable", 0), ("canary", 1)]);
    target.set_weights(&both).await.expect("valid");
    let url = format!("http://{}/", balancer.listen);
    let ask = || async {
        let answer = Client::default().send("GET", &url, None, PATIENCE).await;
        answer.expect("answered").status.as_u16()
    };
    for _ in 0..5 {
        assert_eq!(ask().await, 502);
    }
    let up = LocalSpec {
        listen: dead,
        ..spec([demo(), demo()])
    };
    let _up = Balancer::start(&up, None, None)
        .await
        .expect("the port is free");
    healthy(&target, "canary", 1).await;
    assert_eq!(ask().await, 200);
    let mut samples = vec![];
    for _ in 0..100 {
        samples = target
            .samples(&MetricsQuery::default())
            .await
            .expect("reachable");
        if !samples.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let counts: Vec<_> = samples
        .iter()
        .map(|s| (s.arm.as_str(), s.requests, s.errors))
        .collect();
    assert_eq!(counts, [("canary", 1, 0)]);
}

/// A server that never answers `never` of four requests.
async fn hanging(never: u32) -> SocketAddr {
    stalling(never, b"").await
}

/// A server that says so much to `never` of four requests, and no more.
async fn stalling(never: u32, begun: &'static [u8]) -> SocketAddr {
    let asked = Arc::new(AtomicU32::new(0));
    upstream(move |mut stream: TcpStream, _| {
        let nth = asked.fetch_add(1, Ordering::Relaxed);
        async move {
            if nth % 4 < never {
                let _ = stream.write_all(begun).await;
                std::future::pending::<()>().await;
            } else {
                answer(&mut stream, "200 OK").await;
            }
        }
    })
    .await
}

/// How a rollout ends whose users give up long before the balancer would.
async fn rolled_out(never: [u32; 2]) -> (Option<i32>, String) {
    let arms = [hanging(never[0]).await, hanging(never[1]).await];
    ended(arms, None).await
}

/// How a rollout between those arms ends, perhaps with a parameter more.
async fn ended(arms: [SocketAddr; 2], more: Option<&'static str>) -> (Option<i32>, String) {
    let (balancer, target) = start(&spec(arms.map(url))).await;
    healthy(&target, "canary", 1).await;
    // A good arm answers sooner on a busy machine too.
    let _users = users(balancer.listen, 60, Duration::from_secs(1));
    judged(&balancer, more).await
}

/// How a rollout on that balancer ends, perhaps with a parameter more.
async fn judged(balancer: &Balancer, more: Option<&'static str>) -> (Option<i32>, String) {
    let admin = balancer.admin.to_string();
    let folder = folder();
    let plugin = plugin("canary");
    let mut arguments = vec!["run", &plugin, "--local", &admin];
    let values = ["probe=false", "steps=50,100", "max-bake=15s"];
    for value in values.into_iter().chain(more) {
        arguments.extend(["--set", value]);
    }
    // One that fails must not wait for the others, whose balancers end with it.
    let mut command = tokio::process::Command::from(engine(folder.path(), &arguments));
    let output = command.kill_on_drop(true).output().await;
    let output = output.expect("the binary runs");
    crate::schemas::hold(&arguments, &output);
    (code(&output), stdout(&output) + &stderr(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_hangs_on_users_who_give_up_goes_back() {
    // On half of its requests, on all, and on all where stable hangs on some as well.
    let ends = [[0, 2], [0, 4], [1, 4]].map(|never| tokio::spawn(rolled_out(never)));
    for end in ends {
        let (code, said) = end.await.expect("no panic");
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("requests without an answer"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_who_give_up_at_both_versions_alike_are_no_evidence() {
    let (code, said) = rolled_out([1, 1]).await;
    assert_eq!(code, Some(0), "{said}");
}

/// That an answer begins says nothing, if users give up before it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_answers_stall_goes_back() {
    let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\nten bytes.";
    let ends = [[0, 2], [0, 4], [2, 2]].map(|[stable, canary]| {
        tokio::spawn(async move {
            let arms = [stalling(stable, begun).await, stalling(canary, begun).await];
            (stable == canary, ended(arms, None).await)
        })
    });
    for end in ends {
        let (alike, (code, said)) = end.await.expect("no panic");
        assert_eq!(code, Some(if alike { 0 } else { 3 }), "{said}");
        assert!(
            alike || said.contains("requests without an answer"),
            "{said}"
        );
    }
}

/// What clients are blamed for is no evidence, unless a stream asks for it: then a version
/// that lost a route is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_lost_a_route_is_found_by_a_stream_of_client_errors() {
    let serving = |status: &'static str| async move {
        upstream(move |mut stream: TcpStream, _| async move {
            answer(&mut stream, status).await;
        })
        .await
    };
    let arms = [serving("200 OK").await, serving("404 Not Found").await];
    let stream = r#"streams=[{"name": "refused", "bad": "engine:client-errors"}]"#;
    let (code, said) = ended(arms, Some(stream)).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("refused: "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_answers_break_off_goes_back() {
    let broken: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\nten bytes.",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ngrpc-status: 14\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n",
    ];
    let ends = broken.map(|bytes| {
        tokio::spawn(async move {
            let good = hanging(0).await;
            let bad = upstream(move |mut stream: TcpStream, _| async move {
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
            });
            ended([good, bad.await], None).await
        })
    });
    for end in ends {
        let (code, said) = end.await.expect("no panic");
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("errors: "), "{said}");
    }
}

/// A server that answers `/`, and to whoever wants to buy this, or nothing at all; never
/// to whoever asks for `/slow`.
async fn selling(status: Option<&'static str>) -> SocketAddr {
    upstream(move |mut stream: TcpStream, head: String| async move {
        match (head.contains(" /buy "), status) {
            _ if head.contains(" /slow ") => std::future::pending().await,
            (false, _) => answer(&mut stream, "200 OK").await,
            (true, Some(status)) => answer(&mut stream, status).await,
            (true, None) => std::future::pending().await,
        }
    })
    .await
}

/// Asks for a page with a cookie, if there is one, and leaves after `patience`; the arm that
/// answered, and the cookie that it brought.
async fn visit(
    address: SocketAddr,
    page: &str,
    cookie: Option<&str>,
    patience: Duration,
) -> (Option<String>, Option<String>) {
    let cookie = cookie.map_or_else(String::new, |c| format!("cookie: {c}\r\n"));
    let said = format!("GET {page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{cookie}\r\n");
    let heard = say(address, said.as_bytes(), patience).await;
    let header = |name: &str| {
        let rest = heard.split(&format!("{name}: ")).nth(1)?;
        Some(rest.split(['\r', ';']).next()?.to_owned())
    };
    (header("x-engine-arm"), header("set-cookie"))
}

/// Shoppers, always new ones: each looks at the first page, and then buys three times with
/// the cookie that it got there.
fn shoppers(address: SocketAddr) -> tokio::task::JoinSet<()> {
    let mut shoppers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        shoppers.spawn(async move {
            loop {
                let patience = Duration::from_millis(300);
                let (_, cookie) = visit(address, "/", None, patience).await;
                for _ in 0..3 {
                    visit(address, "/buy", cookie.as_deref(), patience).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        });
    }
    shoppers
}

/// How a rollout ends where a cookie keeps clients on their arms.
async fn sold(arms: [Option<&'static str>; 2], foe: Option<&'static str>) -> (Option<i32>, String) {
    let arms = [selling(arms[0]).await, selling(arms[1]).await];
    let mut spec = spec(arms.map(url));
    spec.sticky_seconds = 600;
    let (balancer, target) = start(&spec).await;
    healthy(&target, "canary", 1).await;
    let mut all = shoppers(balancer.listen);
    if let Some(page) = foe {
        let address = balancer.listen;
        all.spawn(async move {
            // One cookie of the candidate, for as long as it is good.
            let patience = Duration::from_millis(300);
            let mut own: Option<String> = None;
            loop {
                if own.is_none() {
                    let (arm, cookie) = visit(address, "/", None, patience).await;
                    own = cookie.filter(|_| arm.as_deref() == Some("canary"));
                }
                if own.is_some() {
                    visit(address, page, own.as_deref(), Duration::from_millis(10)).await;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
    judged(&balancer, None).await
}

/// With cookies nearly all requests are those of clients that have one.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_behind_a_cookie_goes_back() {
    let good = Some("200 OK");
    let bad = [
        (None, "requests without an answer"),
        (Some("501 Not Implemented"), "errors: "),
        (Some("505 Version"), "errors: "),
        (Some("502 Bad"), "errors: "),
    ];
    let ends = bad.map(|(answers, why)| (tokio::spawn(sold([good, answers], None)), why));
    for (end, why) in ends {
        let (code, said) = end.await.expect("no panic");
        assert_eq!(code, Some(3), "{why}: {said}");
        assert!(said.contains(why), "{said}");
    }
}

/// What both versions do alike is no evidence behind a cookie either.
#[tokio::test(flavor = "multi_thread")]
async fn versions_that_fail_alike_behind_a_cookie_are_alike() {
    let alike = [None, Some("501 Not Implemented")];
    let ends = alike.map(|answers| tokio::spawn(sold([answers; 2], None)));
    for end in ends {
        let (code, said) = end.await.expect("no panic");
        assert_eq!(code, Some(0), "{said}");
    }
}

/// One client with one cookie of the candidate, which leaves a hundred times a second, or
/// asks for what no version serves, decides nothing.
#[tokio::test(flavor = "multi_thread")]
async fn one_client_with_a_cookie_does_not_take_a_version_back() {
    // `/buy` answers 501 on both: the shoppers see that alike, and the foe on one arm.
    let same = [Some("501 Not Implemented"); 2];
    let good = [Some("200 OK"); 2];
    let ends = [(good, "/slow"), (same, "/buy")];
    let ends = ends.map(|(arms, page)| tokio::spawn(sold(arms, Some(page))));
    for end in ends {
        let (code, said) = end.await.expect("no panic");
        assert_eq!(code, Some(0), "{said}");
    }
}

//! Addresses of every kind: IPv6, HTTPS, ports and path prefixes.

use std::time::Duration;

use engine::model::query::{Probe, Query, QuerySource};
use engine::model::target::LocalSpec;
use engine::model::{Source, Weights};
use engine::target::Target as _;
use engine::target::http::Client;
use engine::target::local::LocalTarget;
use engine::target::local::balancer::Balancer;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::registry::server::{Authority, Server};
use crate::support::balancer::{Local, demo, healthy, spec, start};
use crate::support::binary::{code, engine, plugin, run, stderr, stdout};
use crate::support::folder;
use crate::support::guests::guest;
use crate::support::secure::{acceptor, serve};

const PATIENCE: Duration = Duration::from_secs(10);

fn urls(url: &str) -> Source {
    Source::Urls(vec![url.to_owned()])
}

fn probe(path: &str) -> Probe {
    Probe {
        name: "smoke".to_owned(),
        path: path.to_owned(),
        status: 200,
        contains: None,
        attempts: 1,
        timeout_ms: 2_000,
    }
}

/// The last address of `localhost`, which on many machines is `::1`.
async fn last_of_localhost() -> String {
    let all = tokio::net::lookup_host("localhost:0").await;
    let last = all.expect("this machine has a name").last();
    last.expect("and an address").to_string()
}

async fn asked(balancer: &Balancer) -> Value {
    let url = format!("http://{}/seen?a=b", balancer.listen);
    let answer = Client::default().send("GET", &url, None, PATIENCE).await;
    let answer = answer.expect("answered");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Arms at IPv4 and IPv6 addresses and at a name that has both, with TLS and without, over
/// both versions of HTTP: checked, probed and sent to alike.
#[tokio::test(flavor = "multi_thread")]
async fn an_arm_may_be_at_any_address() {
    let authority = Authority::new();
    for http2 in [false, true] {
        let protocols: &[&str] = if http2 { &["h2"] } else { &["http/1.1"] };
        let tls = || Some(acceptor(&authority, protocols));
        let plain = serve("[::1]:0", None).await;
        let secure = serve("[::1]:0", tls()).await;
        let four = serve("127.0.0.1:0", tls()).await;
        let last = serve(&last_of_localhost().await, None).await;
        for address in [
            format!("http://{plain}"),
            format!("https://{secure}"),
            format!("https://{four}/"),
            format!("https://localhost:{}", four.port()),
            // A name may have several addresses, and only the last one answers.
            format!("http://localhost:{}", last.port()),
        ] {
            let set = LocalSpec {
                upstream_http2: http2,
                ..spec([urls(&address), demo()])
            };
            let (balancer, target) = start(&set).await;
            healthy(&target, "stable", 1).await;
            let seen = asked(&balancer).await;
            assert_eq!(seen["version"], if http2 { "HTTP/2.0" } else { "HTTP/1.1" });
            // The host and the path are the client's.
            let host = balancer.listen.to_string();
            match http2 {
                true => assert!(
                    seen["uri"]
                        .as_str()
                        .expect("text")
                        .ends_with(&format!("://{host}/seen?a=b"))
                ),
                false => assert_eq!(
                    (&seen["host"], &seen["uri"]),
                    (&host.into(), &"/seen?a=b".into())
                ),
            }
            let report = target
                .probe("stable", &probe("/healthz"))
                .await
                .expect("sent");
            assert!(report.ok, "{address}: {report:?}");
            let report = target
                .probe("stable", &probe("/broken"))
                .await
                .expect("sent");
            assert!(!report.ok && report.status == 500, "{address}: {report:?}");
            balancer.stop().await;
        }
    }
}

/// Without an authority no certificate of an arm is verified, as on AWS; with one, all are.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_arms_are_verified_when_an_authority_is_named() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let port = serve("127.0.0.1:0", Some(acceptor(&authority, &[])))
        .await
        .port();
    let ca = |of: &Authority| Some(of.file("ca.pem").display().to_string());
    for (url, upstream_ca, why) in [
        (format!("https://localhost:{port}"), ca(&authority), None),
        (format!("https://127.0.0.1:{port}"), None, None),
        (
            format!("https://127.0.0.1:{port}"),
            ca(&authority),
            Some("not valid for name"),
        ),
        (
            format!("https://localhost:{port}"),
            ca(&stranger),
            Some("invalid peer certificate"),
        ),
    ] {
        let set = LocalSpec {
            upstream_ca,
            ..spec([urls(&url), demo()])
        };
        let (_balancer, target) = start(&set).await;
        let report = target.probe("stable", &probe("/ok")).await.expect("sent");
        assert_eq!(report.ok, why.is_none(), "{url}: {report:?}");
        assert!(report.detail.contains(why.unwrap_or("200")), "{report:?}");
        if why.is_none() {
            healthy(&target, "stable", 1).await;
        }
    }
    let missing = LocalSpec {
        upstream_ca: Some("/no/such.pem".to_owned()),
        ..spec([demo(), demo()])
    };
    let error = Balancer::start(&missing, None, None)
        .await
        .expect_err("no file");
    let said = error.to_string();
    assert!(
        said.contains("target.local.upstream-ca: /no/such.pem cannot be read"),
        "{said}"
    );
}

/// A kept connection that ends just as a request goes out on it is nobody's fault, under
/// TLS too: the request is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_under_tls_may_end_without_harm() {
    let authority = Authority::new();
    let tls = acceptor(&authority, &[]);
    let listener = TcpListener::bind("[::1]:0").await.expect("free");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = tls.accept(stream).await else {
                    return;
                };
                let mut head = vec![0; 4_096];
                let _ = stream.read(&mut head).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
                // It takes the next request and ends without a word.
                let _ = stream.read(&mut head).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    let (balancer, target) = start(&spec([urls(&format!("https://{address}")), demo()])).await;
    healthy(&target, "stable", 1).await;
    let client = Client::default();
    for n in 0..6 {
        let url = format!("http://{}/{n}", balancer.listen);
        let answer = client
            .send("GET", &url, None, PATIENCE)
            .await
            .expect("answered");
        assert_eq!(answer.status, 200, "request {n}");
    }
}

/// The balancer's own listeners at IPv6: the key, the verbs and what users' addresses look
/// like behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_listens_at_ipv6_and_is_used_there() {
    let folder = folder();
    let arguments = ["--listen", "[::1]:0", "--admin", "[::1]:0"];
    let local = Local::start_at(folder.path(), &arguments);
    let admin = local.admin();
    assert!(admin.starts_with("[::1]:"), "{admin}");
    let shown = run(folder.path(), &["status", "--local", &admin]);
    assert_eq!(code(&shown), Some(0), "{}", stderr(&shown));
    let users = format!("http://{}", local.listen);
    assert!(stdout(&shown).contains(&users), "{}", stdout(&shown));
    healthy(&local.target(), "canary", 1).await;
    let moved = run(
        folder.path(),
        &["set-weights", "60", "40", "--local", &admin],
    );
    assert_eq!(code(&moved), Some(0), "{}", stderr(&moved));
    let back = run(folder.path(), &["rollback", "--local", &admin]);
    assert_eq!(code(&back), Some(0), "{}", stderr(&back));

    // One socket for both families: a client is shown as it is called outside.
    let arm = serve("127.0.0.1:0", None).await;
    let both = LocalSpec {
        listen: "[::]:0".parse().expect("an address"),
        ..spec([urls(&format!("http://{arm}")), demo()])
    };
    let (balancer, target) = start(&both).await;
    healthy(&target, "stable", 1).await;
    for (host, peer) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let url = format!("http://{host}:{}/", balancer.listen.port());
        let answer = Client::default().send("GET", &url, None, PATIENCE).await;
        let seen: Value = serde_json::from_slice(&answer.expect("answered").body).expect("JSON");
        assert_eq!(seen["for"], peer, "{host}");
    }
}

/// What cannot be an address is refused where it stands, before anything begins.
#[test]
fn addresses_that_are_none_are_refused_by_key_and_flag() {
    let folder = folder();
    let refused = |arguments: &[&str], says: &[&str]| {
        let output = run(folder.path(), arguments);
        let said = stderr(&output);
        assert_eq!(code(&output), Some(2), "{arguments:?}: {said}");
        for word in says {
            assert!(said.contains(word), "{arguments:?}: {said}");
        }
    };
    for (flag, value) in [
        ("--local", "localhost:7900"),
        ("--local", "::1:7900"),
        ("--local", "7900"),
    ] {
        refused(&["status", flag, value], &["--local", "[::1]:7900"]);
    }
    for value in ["localhost:80", "[::1]", "http://[::1]:80"] {
        refused(&["local", "--listen", value], &["--listen", "IP:PORT"]);
        refused(&["local", "--admin", value], &["--admin", "IP:PORT"]);
    }
    let plugin = plugin("canary");
    let file = |arm: &str, more: &str| {
        let text = format!(
            "[target]\nkind = \"local\"\n[target.local]\nadmin = \"127.0.0.1:0\"\n{more}\n\
             [target.local.arms.stable]\nversion = \"v1\"\nurls = [{arm:?}]\n\
             [target.local.arms.canary]\nversion = \"v2\"\ndemo = {{}}\n\
             [strategy]\nplugin = {plugin:?}\n"
        );
        std::fs::write(folder.path().join("rollout.toml"), text).expect("writable");
    };
    for (url, why) in [
        ("http://127.0.0.1:9001/api", "has the path /api"),
        ("https://[::1]:9001/api/v2/", "has the path /api/v2/"),
        ("http://::1:9001", "without brackets"),
        ("https://[::1", "is not an address"),
        ("http://shop:9001?x=1", "a query"),
        ("ftp://shop:9001", "must start with http:// or https://"),
    ] {
        file(url, "");
        refused(&["run"], &["target.local.arms.stable.urls", why]);
        refused(&["plan"], &["target.local.arms.stable.urls", why]);
    }
    for (key, value, why) in [
        ("listen", "localhost:8080", "[::1]:8080"),
        ("listen", "::1:8080", "[::1]:8080"),
        ("upstream-ca", "ca.pem", "absolute path"),
    ] {
        file("http://[::1]:9001", &format!("{key} = {value:?}"));
        refused(&["run"], &[&format!("target.local.{key}"), why]);
    }
    let aws = |more: &str| {
        let text = format!("[target]\nkind = \"aws\"\n[target.aws]\nstack = \"shop\"\n{more}\n");
        std::fs::write(folder.path().join("rollout.toml"), text).expect("writable");
    };
    for (url, why) in [
        ("https://test.example.org/?version=2", "a query"),
        ("test.example.org", "must start with"),
        ("https://me@test.example.org", "names a user"),
        ("http://fd00::7/test", "without brackets"),
    ] {
        aws(&format!("probe-url = {url:?}"));
        refused(&["run", &plugin], &["target.aws.probe-url", why]);
    }
    aws("probe-ca = \"ca.pem\"");
    refused(&["run", &plugin], &["target.aws.probe-ca", "absolute path"]);
    aws("[queries.q]\nprometheus = { server = \"http://p:9090/?tenant=a\", query = \"up\" }");
    refused(
        &["run", &plugin],
        &["queries.q.prometheus.server", "/api/v1/query_range"],
    );
}

/// Sources of metrics at IPv6, with TLS and behind a path.
#[tokio::test(flavor = "multi_thread")]
async fn queries_are_sent_to_any_address() {
    let (balancer, _) = start(&spec([demo(), demo()])).await;
    let authority = Authority::new();
    let network = engine::model::network::Network {
        ca_bundle: Some(authority.file("ca.pem")),
        ..engine::model::network::Network::default()
    };
    let target = LocalTarget::new(balancer.admin).with_network(&network);
    let plain = serve("[::1]:0", None).await;
    let last = serve(&last_of_localhost().await, None).await;
    let secure = serve("127.0.0.1:0", Some(acceptor(&authority, &[]))).await;
    for base in [
        format!("http://{plain}"),
        format!("https://localhost:{}", secure.port()),
        format!("http://localhost:{}", last.port()),
    ] {
        for prefix in ["", "/", "/metrics/", "/select/0/prometheus"] {
            let source = QuerySource::Prometheus {
                server: format!("{base}{prefix}"),
                query: "up".to_owned(),
            };
            // It is no Prometheus, so the message shows where it was asked.
            let error = target.query(&Query::new("q", source), 0).await;
            let said = error.expect_err("no matrix").message;
            let joined = format!("{base}{}/api/v1/query_range?", prefix.trim_end_matches('/'));
            assert!(said.contains(&joined), "{said}");
            assert!(said.contains("no matrix"), "{said}");
        }
    }
    // The address of the server is not in its certificate.
    let source = QuerySource::Json {
        url: format!("https://{secure}/x"),
        pointer: "/v".to_owned(),
    };
    let error = target.query(&Query::new("q", source), 0).await;
    let said = error.expect_err("not verified").message;
    assert!(said.contains("certificate"), "{said}");
}

/// A registry at IPv6, by its address and by a name.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_may_be_at_an_ipv6_address() {
    let server = Server::open();
    let listener = TcpListener::bind("[::1]:0").await.expect("free");
    let port = listener.local_addr().expect("bound").port();
    let to = server.address.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.expect("it listens");
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let folder = folder();
    let bytes = guest("canary");
    for host in [
        format!("[::1]:{port}"),
        format!("[0:0:0:0:0:0:0:1]:{port}"),
        server.address.clone(),
    ] {
        let name = format!("oci://{host}/gates/canary:1");
        let plugin = plugin("canary");
        let push = ["plugin", "push", &plugin, &name];
        let mut command = engine(folder.path(), &push);
        // A proxy that nothing on this machine is reached through.
        command.env("HTTP_PROXY", "http://127.0.0.1:1");
        let output = command.output().expect("it runs");
        assert_eq!(code(&output), Some(0), "{host}: {}", stderr(&output));
        let pull = ["plugin", "pull", &name, "--output", "back.wasm"];
        let output = run(folder.path(), &pull);
        assert_eq!(code(&output), Some(0), "{host}: {}", stderr(&output));
        assert_eq!(
            std::fs::read(folder.path().join("back.wasm")).expect("there"),
            bytes
        );
        std::fs::remove_file(folder.path().join("back.wasm")).expect("tidied up");
    }
}

/// Weights moved by a client of an admin API at IPv6, which checks whom it is asked as.
#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_at_ipv6_answers_loopback_alone() {
    let set = LocalSpec {
        admin: "[::1]:0".parse().expect("an address"),
        ..spec([demo(), demo()])
    };
    let (balancer, target) = start(&set).await;
    healthy(&target, "canary", 1).await;
    let half = Weights::of([("stable", 50), ("canary", 50)]);
    target.set_weights(&half).await.expect("valid");
    let url = format!("http://{}/v1/state", balancer.admin);
    for (host, refused) in [
        ("[::1]", "no-key"),
        ("[::1]:80", "no-key"),
        ("localhost", "no-key"),
        ("[2001:db8::7]", "not-loopback"),
        ("shop.example:80", "not-loopback"),
        ("::1", "not-loopback"),
    ] {
        let headers = [("host", host.to_owned())];
        let answer = Client::default()
            .send_with("GET", &url, &headers, None, PATIENCE)
            .await;
        let body = answer.expect("answered").body;
        let said = String::from_utf8_lossy(&body);
        assert!(said.contains(refused), "{host}: {said}");
    }
}

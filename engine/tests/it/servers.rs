//! Real servers as arms of the local balancer: their answers pass unchanged, and each
//! counts as what it is.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use engine::model::MetricsQuery;
use engine::model::query::Count;
use engine::model::target::HealthProtocol;
use engine::target::Target;
use engine::target::local::LocalTarget;
use engine::target::local::balancer::Balancer;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::balancer::healthy;
use crate::support::clients::{counted, seen, start};
use crate::support::servers::{Server, grpc_calls, nginx, node, python};

/// Fields that differ from hop to hop, or from second to second.
const OWN: [&str; 6] = [
    "connection",
    "keep-alive",
    "transfer-encoding",
    "date",
    "x-engine-arm",
    "trailer",
];

type Web = Client<HttpConnector, Full<Bytes>>;

fn web(http2: bool) -> Web {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

/// One request, without its host.
#[derive(Debug, Clone)]
struct Ask {
    method: &'static str,
    path: &'static str,
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn ask(method: &'static str, path: &'static str) -> Ask {
    Ask {
        method,
        path,
        fields: vec![],
        body: vec![],
    }
}

impl Ask {
    fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn body(mut self, bytes: usize) -> Self {
        self.body = (0..bytes).map(|at| at.to_le_bytes()[0]).collect();
        self
    }

    /// What the server at that address answers; none if it breaks off.
    async fn of(&self, web: &Web, address: SocketAddr) -> Option<Heard> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(format!("http://{address}{}", self.path));
        for (name, value) in &self.fields {
            request = request.header(*name, value);
        }
        let request = request.body(Full::from(self.body.clone())).expect("valid");
        let (head, body): (_, Incoming) = web.request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?;
        let trailers = body.trailers().map(fields).unwrap_or_default();
        Some(Heard {
            status: head.status.as_u16(),
            fields: fields(&head.headers),
            body: body.to_bytes(),
            trailers,
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Heard {
    status: u16,
    fields: Vec<(String, String)>,
    body: Bytes,
    trailers: Vec<(String, String)>,
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let all = headers.iter();
    let all = all.map(|(name, value)| (name.to_string(), format!("{value:?}")));
    let mut fields: Vec<_> = all.filter(|(n, _)| !OWN.contains(&n.as_str())).collect();
    fields.sort();
    fields
}

/// A balancer whose first arm is that server.
async fn before(server: &Server, http2: bool) -> (Balancer, LocalTarget) {
    let (balancer, target) = start(server.address, |spec| spec.upstream_http2 = http2).await;
    healthy(&target, "stable", 1).await;
    (balancer, target)
}

/// Requests, errors, and errors of clients, of the first arm so far.
async fn classes(target: &LocalTarget) -> (u32, u32, u32) {
    let (requests, errors, _) = seen(target).await;
    let samples = target
        .samples(&MetricsQuery::default())
        .await
        .expect("open");
    let by_clients = samples.iter().map(|s| s.client_errors).sum();
    (requests, errors, by_clients)
}

/// Asks a server directly and through a balancer, and compares the answers. Returns their
/// statuses, 0 for one that broke off.
async fn compared(server: &Server, balancer: &Balancer, http2: bool, asks: &[Ask]) -> Vec<u16> {
    let (direct, through) = (web(http2), web(http2));
    let mut statuses = vec![];
    for ask in asks {
        let shown = format!("{} {} {:?}", ask.method, ask.path, http2);
        let expected = ask.of(&direct, server.address).await;
        let found = ask.of(&through, balancer.listen).await;
        assert_eq!(found, expected, "{shown}");
        statuses.push(expected.map_or(0, |heard| heard.status));
    }
    statuses
}

/// What `statuses` count as.
fn counts(statuses: &[u16]) -> (u32, u32, u32) {
    let many = |is: fn(&u16) -> bool| {
        let found = statuses.iter().filter(|status| is(status)).count();
        u32::try_from(found).expect("few")
    };
    (
        many(|_| true),
        many(|s| *s == 0 || *s >= 500),
        many(|s| (400..500).contains(s)),
    )
}

/// Asks for the same in several lanes at once, each so often, with that pause. All must be
/// answered with 200.
async fn load(address: SocketAddr, http2: bool, ask: Ask, lanes: usize, pause: Option<Duration>) {
    let mut all = JoinSet::new();
    let web = web(http2);
    for lane in 0..lanes {
        let (web, ask) = (web.clone(), ask.clone());
        all.spawn(async move {
            for nth in 0..20_u32 {
                let heard = ask.of(&web, address).await;
                assert_eq!(heard.map(|h| h.status), Some(200), "lane {lane}, {nth}");
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.expect("all were answered");
    }
}

// === nginx ===

async fn nginx_passes(http2: bool) {
    let behind = node("http").await;
    let server = nginx(http2, behind.address).await;
    let (balancer, target) = before(&server, http2).await;
    let page = ask("GET", "/page.html");
    let heard = page.of(&web(http2), server.address).await.expect("served");
    let etag = heard.fields.iter().find(|(name, _)| name == "etag");
    let etag = etag.expect("a file has one").1.replace('\\', "");
    let etag = etag.trim_matches('"').to_owned();
    let asks = [
        page.clone(),
        ask("HEAD", "/page.html"),
        ask("HEAD", "/parts.txt"),
        page.clone().field("if-none-match", format!("\"{etag}\"")),
        page.clone().field("range", "bytes=2-5"),
        page.clone().field("range", "bytes=900000-"),
        page.clone().field("accept-encoding", "gzip"),
        ask("GET", "/parts.txt"),
        ask("GET", "/large.bin"),
        ask("GET", "/nothing"),
        ask("GET", "/moved"),
        ask("GET", "/gone"),
        ask("GET", "/missing"),
        ask("GET", "/fails"),
        ask("POST", "/page.html").body(10),
        ask("OPTIONS", "/page.html"),
        ask("POST", "/node/echo").body(200_000),
        page.clone().field("x-large", "y".repeat(40 << 10)),
    ];
    let statuses = compared(&server, &balancer, http2, &asks).await;
    assert_eq!(
        statuses,
        [
            200, 200, 200, 304, 206, 416, 200, 200, 200, 204, 301, 410, 404, 500, 405, 405, 200,
            200
        ]
    );
    assert_eq!(classes(&target).await, counts(&statuses));
    // Its connections are over after three requests each.
    load(balancer.listen, http2, page, 6, None).await;
    let (requests, errors, by_clients) = counts(&statuses);
    assert_eq!(classes(&target).await, (requests + 120, errors, by_clients));
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_over_http_1_1() {
    nginx_passes(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_over_http_2() {
    nginx_passes(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_that_refuses_a_large_body_or_drops_a_request() {
    for http2 in [false, true] {
        let behind = node("http").await;
        let server = nginx(http2, behind.address).await;
        let (balancer, target) = before(&server, http2).await;
        let through = web(http2);
        let large = ask("POST", "/page.html").body(900_000);
        let heard = large.of(&through, balancer.listen).await;
        assert_eq!(heard.map(|h| h.status), Some(413), "{http2}");
        assert_eq!(classes(&target).await, (1, 0, 1), "{http2}");
        // On a connection that has carried an answer it is sent once more, and dropped again.
        for status in [200, 502] {
            let path = if status == 200 {
                "/page.html"
            } else {
                "/drops"
            };
            let heard = ask("GET", path).of(&through, balancer.listen).await;
            assert_eq!(heard.map(|h| h.status), Some(status), "{http2}");
        }
        assert_eq!(classes(&target).await, (3, 1, 1), "{http2}");
    }
}

/// Reads until the end of a head, or so many bytes.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        head.push(stream.read_u8().await.expect("open"));
    }
    String::from_utf8_lossy(&head).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_and_a_patient_client_through_nginx_to_node() {
    let behind = node("http").await;
    let server = nginx(false, behind.address).await;
    let (balancer, target) = before(&server, false).await;
    let mut stream = TcpStream::connect(balancer.listen).await.expect("listens");
    let upgrade = b"GET /node/chat HTTP/1.1\r\nhost: shop.example\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: abc\r\n\r\n";
    stream.write_all(upgrade).await.expect("open");
    let head = read_head(&mut stream).await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(
        head.contains("upgrade: websocket") && head.contains("sec-websocket-accept: abc"),
        "{head}"
    );
    let frame: Vec<u8> = (0..=255).collect();
    for _ in 0..3 {
        stream.write_all(&frame).await.expect("open");
        let mut echo = vec![0; frame.len()];
        stream.read_exact(&mut echo).await.expect("echoed");
        assert_eq!(echo, frame);
    }
    drop(stream);
    let mut stream = TcpStream::connect(balancer.listen).await.expect("listens");
    let head = b"PUT /node/echo HTTP/1.1\r\nhost: shop.example\r\nexpect: 100-continue\r\ncontent-length: 3\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await.expect("open");
    let told = read_head(&mut stream).await;
    assert!(told.starts_with("HTTP/1.1 100 "), "{told}");
    stream.write_all(b"abc").await.expect("open");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("answered");
    assert!(
        rest.starts_with("HTTP/1.1 200 ") && rest.contains("abc"),
        "{rest}"
    );
    let host = b"GET /host HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n";
    let heard = crate::support::clients::say(balancer.listen, host, Duration::from_secs(20)).await;
    assert!(heard.ends_with("shop.example"), "{heard}");
    assert_eq!(classes(&target).await, (3, 0, 0));
}

// === Node ===

async fn node_passes(http2: bool) {
    let server = node(if http2 { "http2" } else { "http" }).await;
    let (balancer, target) = before(&server, http2).await;
    let asks = [
        ask("GET", "/bytes"),
        ask("HEAD", "/bytes"),
        ask("PUT", "/echo").body(300_000),
        ask("POST", "/echo").body(1),
        ask("DELETE", "/echo"),
        ask("GET", "/trailers").field("te", "trailers"),
        ask("GET", "/hints"),
        ask("GET", "/nothing"),
        ask("GET", "/unchanged"),
        ask("GET", "/fails"),
        ask("GET", "/refuses"),
        ask("GET", "/breaks"),
        ask("GET", "/x").field("x-large", "y".repeat(40 << 10)),
    ];
    let statuses = compared(&server, &balancer, http2, &asks).await;
    assert_eq!(
        statuses,
        [
            200, 200, 200, 200, 200, 200, 200, 204, 304, 500, 422, 0, 200
        ]
    );
    assert_eq!(classes(&target).await, counts(&statuses));
    let trailers = asks[5].of(&web(http2), balancer.listen).await;
    let trailers = trailers.expect("whole").trailers;
    assert_eq!(trailers, [("x-sum".to_owned(), "\"42\"".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_over_http_1_1() {
    node_passes(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_over_http_2() {
    node_passes(true).await;
}

/// Node closes a connection that was silent for 50 ms, just when the next request comes.
#[tokio::test(flavor = "multi_thread")]
async fn node_that_closes_kept_connections_loses_no_request() {
    let server = node("http").await;
    let (balancer, target) = before(&server, false).await;
    let mut all = JoinSet::new();
    for ms in [46, 48, 49, 50, 51, 52] {
        let pause = Some(Duration::from_millis(ms));
        all.spawn(load(balancer.listen, false, ask("GET", "/x"), 1, pause));
    }
    while let Some(done) = all.join_next().await {
        done.expect("all were answered");
    }
    assert_eq!(classes(&target).await, (120, 0, 0));
}

/// It takes four streams on a connection, and ends some connections with a GOAWAY.
#[tokio::test(flavor = "multi_thread")]
async fn node_that_limits_and_closes_its_sessions_loses_no_request() {
    let server = node("http2").await;
    let (balancer, target) = before(&server, true).await;
    load(balancer.listen, true, ask("GET", "/bytes"), 20, None).await;
    load(balancer.listen, true, ask("POST", "/leaves"), 6, None).await;
    assert_eq!(classes(&target).await, (520, 0, 0));
    assert_eq!(counted(&target, Count::Unanswered, "stable").await, 0);
}

// === Python's h2 ===

#[tokio::test(flavor = "multi_thread")]
async fn h2_of_python() {
    let server = python("h2_server.py").await;
    let (balancer, target) = before(&server, true).await;
    let asks = [
        ask("PUT", "/echo").body(300_000),
        ask("GET", "/large"),
        ask("GET", "/trailers").field("te", "trailers"),
        ask("GET", "/resets"),
    ];
    let statuses = compared(&server, &balancer, true, &asks[..3]).await;
    assert_eq!(statuses, [200, 200, 200]);
    assert_eq!(asks[3].of(&web(true), balancer.listen).await, None);
    assert_eq!(classes(&target).await, (4, 1, 0));
    // The host is in `:authority` alone.
    let said = b"GET /head HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n";
    let heard = crate::support::clients::say(balancer.listen, said, Duration::from_secs(20)).await;
    assert!(
        heard.contains("[\":authority\", \"shop.example\"]"),
        "{heard}"
    );
    assert!(!heard.contains("[\"host\""), "{heard}");
}

/// A server may say that it has not begun with a request, whatever its method.
#[tokio::test(flavor = "multi_thread")]
async fn what_h2_of_python_has_not_begun_is_sent_again() {
    let server = python("h2_server.py").await;
    let (balancer, target) = before(&server, true).await;
    for (method, path) in [
        // The first request of a connection too.
        ("POST", "/shuts-down-once/a"),
        ("GET", "/refused-once/a"),
        ("POST", "/refused-once/b"),
        ("GET", "/shuts-down-once/b"),
        ("POST", "/shuts-down-once/c"),
    ] {
        let heard = ask(method, path)
            .body(1_000)
            .of(&web(true), balancer.listen)
            .await;
        let heard = heard.expect("answered");
        assert_eq!((heard.status, heard.body.len()), (200, 1_000), "{path}");
    }
    assert_eq!(classes(&target).await, (5, 0, 0));
    assert_eq!(counted(&target, Count::SentAgain, "stable").await, 5);
    // It said so, and no request was lost.
    assert_eq!(counted(&target, Count::Unanswered, "stable").await, 0);
}

// === grpcio ===

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_calls_pass_whole() {
    let server = python("grpc_server.py").await;
    let (balancer, target) = before(&server, true).await;
    let fine = grpc_calls(balancer.listen, &["fine"]).await;
    assert_eq!(fine, grpc_calls(server.address, &["fine"]).await);
    for what in ["unary", "empty", "many", "joins", "echoes"] {
        assert_eq!(fine[what], true, "{what}");
    }
    assert_eq!(fine["trailing metadata"], "1048576");
    assert_eq!(classes(&target).await, (5, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_calls_that_fail_count_as_what_their_status_says() {
    let server = python("grpc_server.py").await;
    let (balancer, target) = before(&server, true).await;
    let failing = grpc_calls(balancer.listen, &["failing"]).await;
    assert_eq!(failing, grpc_calls(server.address, &["failing"]).await);
    assert_eq!(
        failing["UNAVAILABLE"],
        json!(["UNAVAILABLE", "on purpose", 0])
    );
    assert_eq!(failing["late"], json!(["INTERNAL", "on purpose", 1]));
    assert_eq!(failing["no such method"], json!(["UNIMPLEMENTED"]));
    // INTERNAL twice, UNAVAILABLE, DATA_LOSS, and the method that it does not have.
    assert_eq!(classes(&target).await, (8, 5, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_clients_that_leave_had_no_answer() {
    let server = python("grpc_server.py").await;
    let (balancer, target) = before(&server, true).await;
    let leaving = grpc_calls(balancer.listen, &["leaving"]).await;
    assert_eq!(
        leaving,
        json!({"deadline": ["DEADLINE_EXCEEDED"], "cancelled": true})
    );
    // At the deadline the server may be faster than its client.
    let (_, errors, _) = classes(&target).await;
    let unanswered = counted(&target, Count::Unanswered, "stable").await;
    assert_eq!(u64::from(errors) + unanswered, 2);
    assert!(unanswered >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_service_of_grpcio_is_the_health_of_its_arm() {
    let server = python("grpc_server.py").await;
    let service = "shop.Shop".to_owned();
    for protocol in [HealthProtocol::Http, HealthProtocol::Grpc { service }] {
        let (_balancer, target) = start(server.address, |spec| {
            spec.upstream_http2 = true;
            spec.health.protocol = protocol;
        })
        .await;
        for (state, well) in [("SERVING", 1), ("NOT_SERVING", 0), ("SERVING", 1)] {
            grpc_calls(server.address, &["becomes", state]).await;
            healthy(&target, "stable", well).await;
        }
    }
    let unknown = HealthProtocol::Grpc {
        service: "shop.Other".to_owned(),
    };
    let (_balancer, target) = start(server.address, |spec| {
        spec.upstream_http2 = true;
        spec.health.protocol = unknown;
    })
    .await;
    for _ in 0..10 {
        let live = target.observe().await.expect("open");
        assert_eq!(live.arms[0].healthy, 0, "it does not know that service");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! The admin API has a door, and the public side cannot shut it.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use engine::model::target::LocalSpec;
use engine::model::{DemoFault, Source, Weights};
use engine::ops::Kind;
use engine::ops::status::overview;
use engine::target::Target;
use engine::target::http::Client;
use engine::target::local::LocalTarget;
use engine::target::local::balancer::Balancer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::app::{TestApp, local, refused};
use crate::support::balancer::{self, spec};
use crate::support::binary::{Running, run, stderr, until};
use crate::support::folder;

const PATIENCE: Duration = Duration::from_secs(20);

async fn start(change: impl FnOnce(&mut LocalSpec)) -> (Balancer, LocalTarget) {
    let demo = || Source::Demo(DemoFault::default());
    let mut spec = spec([demo(), demo()]);
    change(&mut spec);
    let balancer = Balancer::start(&spec, None, None).await.expect("starts");
    let target = LocalTarget::new(balancer.admin);
    (balancer, target)
}

/// Where the key of an admin API lies.
fn key(admin: SocketAddr) -> PathBuf {
    let me = std::fs::metadata("/proc/self").expect("Linux").uid();
    let name = format!("127.0.0.1-{}.key", admin.port());
    let places = [
        format!("/run/user/{me}/engine"),
        format!("/tmp/engine-{me}"),
    ];
    let mut places = places.iter().map(|p| PathBuf::from(p).join(&name));
    places.find(|p| p.exists()).expect("laid out")
}

/// The status of a raw request.
async fn ask(address: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("listens");
    let length = body.len();
    let said = format!("{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let _ = stream.write_all(said.as_bytes()).await;
    let mut heard = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
    let heard = String::from_utf8_lossy(&heard);
    heard.split(' ').nth(1).unwrap_or_default().to_owned()
}

const EVIL: &str = r#"{"version":"v9","source":{"command":["/bin/sh","-c","sleep 60"]}}"#;
const ALL_NEW: &str = r#"[{"arm":"stable","weight":0},{"arm":"canary","weight":1}]"#;

#[tokio::test]
async fn nobody_enters_without_the_key_by_any_way() {
    let (balancer, target) = start(|_| ()).await;
    balancer::healthy(&target, "stable", 1).await;
    balancer::healthy(&target, "canary", 1).await;
    let before = target.observe().await.expect("we have it");
    let key = std::fs::read_to_string(key(balancer.admin)).expect("ours");
    let probe =
        r#"{"name":"x","path":"/","status":200,"contains":null,"attempts":1,"timeout_ms":1}"#;
    let routes = [
        ("GET /v1/state", ""),
        ("PUT /v1/weights", ALL_NEW),
        ("PUT /v1/arms/canary/release", EVIL),
        (
            "POST /v1/metrics",
            r#"{"since":0,"over_ms":[],"by_zone":false}"#,
        ),
        ("POST /v1/arms/canary/probe", probe),
        ("GET /nothing", ""),
    ];
    let json = "host: 127.0.0.1\r\ncontent-type: application/json\r\n";
    let doors = [
        (String::new(), "401"),
        ("authorization: Bearer \r\n".to_owned(), "401"),
        (
            format!("authorization: Bearer {}\r\n", "0".repeat(64)),
            "401",
        ),
        (format!("authorization: Basic {key}\r\n"), "401"),
        (format!("authorization: {key}\r\n"), "401"),
        (format!("x-authorization: Bearer {key}\r\n"), "401"),
        (format!("cookie: key={key}\r\n"), "401"),
        // A page that had the key would still be a page.
        (
            format!("authorization: Bearer {key}\r\norigin: http://evil.example\r\n"),
            "403",
        ),
        (
            format!("authorization: Bearer {key}\r\norigin: null\r\n"),
            "403",
        ),
    ];
    for (route, body) in routes {
        for (door, status) in &doors {
            let head = format!("{route} HTTP/1.1\r\n{json}{door}");
            assert_eq!(
                ask(balancer.admin, &head, body).await,
                *status,
                "{route} {door}"
            );
        }
        let elsewhere = format!(
            "{route} HTTP/1.1\r\nhost: evil.example\r\ncontent-type: application/json\r\nauthorization: Bearer {key}\r\n"
        );
        assert_eq!(
            ask(balancer.admin, &elsewhere, body).await,
            "403",
            "{route}"
        );
    }
    assert_eq!(target.observe().await.expect("we have it"), before);
    // The key alone opens.
    let head = format!("PUT /v1/weights HTTP/1.1\r\n{json}authorization: Bearer {key}\r\n");
    assert_eq!(ask(balancer.admin, &head, ALL_NEW).await, "200");
    assert_eq!(
        target
            .traffic()
            .await
            .expect("open")
            .weights
            .share("canary"),
        100.0
    );
}

#[tokio::test]
async fn what_is_sent_to_the_admin_api_is_bounded() {
    let (balancer, _target) = start(|_| ()).await;
    let key = std::fs::read_to_string(key(balancer.admin)).expect("ours");
    let head = |route: &str| {
        format!(
            "{route} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nauthorization: Bearer {key}\r\n"
        )
    };
    let args = vec!["x"; 300];
    let long = serde_json::json!({"version": "v", "source": {"command": args}}).to_string();
    let over = serde_json::json!({"since": 0, "over_ms": vec![1.0; 300], "by_zone": false});
    let probe = |path: &str, timeout: u32| {
        serde_json::json!({"name": "x", "path": path, "status": 200, "contains": null,
            "attempts": 1, "timeout_ms": timeout})
        .to_string()
    };
    for (route, body, status) in [
        (
            "PUT /v1/weights",
            format!("[{}", " ".repeat(300 << 10)),
            "413",
        ),
        ("PUT /v1/arms/canary/release", long, "400"),
        ("POST /v1/metrics", over.to_string(), "400"),
        (
            "POST /v1/arms/canary/probe",
            probe("@evil.example/", 100),
            "400",
        ),
        ("POST /v1/arms/canary/probe", probe("/", u32::MAX), "400"),
        (
            &format!("GET /{}", "x".repeat(20 << 10)),
            String::new(),
            "431",
        ),
    ] {
        let found = ask(balancer.admin, &head(route), &body).await;
        // A head that is too long may be cut before it is answered.
        assert!(
            found == status || status == "431" && matches!(&*found, "414" | ""),
            "{found}"
        );
    }
}

#[tokio::test]
async fn a_key_that_was_tidied_away_is_laid_out_again() {
    let (balancer, target) = start(|_| ()).await;
    let place = key(balancer.admin);
    let mode = std::fs::metadata(&place).expect("there").mode() & 0o777;
    let folder = place.parent().expect("a folder");
    let folder_mode = std::fs::metadata(folder).expect("there").mode() & 0o777;
    assert_eq!((mode, folder_mode), (0o600, 0o700));
    std::fs::remove_file(&place).expect("ours");
    target.observe().await.expect("the second try does");
    std::fs::write(&place, "0".repeat(64)).expect("ours");
    target.observe().await.expect("also after a wrong one");
    drop((balancer, target));
    for _ in 0..100 {
        if !place.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the key outlives its balancer");
}

async fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut held = vec![];
    for _ in 0..count {
        held.push(TcpStream::connect(address).await.expect("listens"));
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_neither_users_nor_owners_out() {
    let (balancer, target) = start(|spec| spec.clients.connections = 10).await;
    assert_eq!(balancer.connections, 10);
    let _users = silent(balancer.listen, 60).await;
    let _owners = silent(balancer.admin, 60).await;
    let url = format!("http://{}/whoami", balancer.listen);
    let answer = Client::default().send("GET", &url, None, PATIENCE).await;
    assert_eq!(answer.expect("the idle make room").status, 200);
    let back = Weights::of([("stable", 100), ("canary", 0)]);
    target.set_weights(&back).await.expect("open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_closed() {
    let (balancer, _target) = start(|spec| spec.clients.idle_ms = 300).await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    for said in ["", "GET / HT", request, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(balancer.listen).await.expect("listens");
        stream.write_all(said.as_bytes()).await.expect("open");
        let mut heard = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
        assert!(closed.is_ok(), "{said:?} keeps the line");
        if said == request {
            assert!(heard.starts_with(b"HTTP/1.1 200"), "the request was whole");
        }
    }
}

/// A real process with few descriptors, as many as its hard limit: 300 connections
/// are more than it can have.
#[test]
fn rollback_works_while_the_public_side_is_full() {
    use std::io::BufRead as _;
    let (balancers, ours) = (folder(), folder());
    let mut command = std::process::Command::new("sh");
    let script = "ulimit -n 256; exec \"$0\" --state-dir state local --json --listen 127.0.0.1:0 --admin 127.0.0.1:0";
    command.args(["-c", script, env!("CARGO_BIN_EXE_engine")]);
    command.current_dir(balancers.path());
    let mut child = Running(
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("runs"),
    );
    let mut line = String::new();
    let output = child.0.stdout.take().expect("piped");
    std::io::BufReader::new(output)
        .read_line(&mut line)
        .expect("it says where");
    let says: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let (listen, admin) = (
        says["listen"].as_str().expect("text"),
        says["admin"].as_str().expect("text"),
    );
    until(ours.path(), admin, |s| {
        s["target"]["arms"][1]["healthy"] == 1
    });
    let half = run(ours.path(), &["set-weights", "50", "50", "--local", admin]);
    assert_eq!(half.status.code(), Some(0), "{}", stderr(&half));
    let held: Vec<_> = (0..300)
        .map(|_| std::net::TcpStream::connect(listen).expect("listens"))
        .collect();
    let back = run(ours.path(), &["rollback", "--local", admin]);
    assert_eq!(back.status.code(), Some(0), "{}", stderr(&back));
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_key_is_told_where_it_lies() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("free");
    let admin = listener.local_addr().expect("bound");
    // What a balancer of another user says, to everything.
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming().take(20) {
            let mut stream = stream.expect("open");
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        }
    });
    let test = TestApp::surrounded(<_>::default());
    let seen = overview(&test.app, &local(admin), None).await;
    let name = format!("127.0.0.1-{}.key", admin.port());
    refused(seen, Kind::Denied, &[&name, "as that user"]);
}

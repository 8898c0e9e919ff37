//! Proxies, certificates and credentials on the way to other machines, and what is said
//! of a source that gives no data.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::model::network::Network;
use engine::model::query::{BasicAuth, Query, QuerySource};
use engine::target::Target as _;
use engine::target::http::Client;
use engine::target::local::LocalTarget;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::registry::server::Authority;
use crate::support::balancer::{demo, demo_target, spec, start};
use crate::support::binary::{Running, engine, plugin, stderr, stdout};
use crate::support::folder;

const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy that asks for `me:S3CRET`, and passes everything on to one server, whatever the
/// host is called. It keeps the first line of each request that it was let to read.
async fn proxy(to: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let port = listener.local_addr().expect("bound").port();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let lines = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let lines = lines.clone();
            tokio::spawn(async move {
                let mut head = vec![];
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = client.read_u8().await else {
                        return;
                    };
                    head.push(byte);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let first = head.lines().next().unwrap_or_default().to_owned();
                // me:S3CRET
                let knows = head
                    .to_lowercase()
                    .contains("proxy-authorization: basic bwu6uznduk");
                let line = if knows {
                    first.clone()
                } else {
                    format!("unknown: {first}")
                };
                lines.lock().expect("no panic").push(line);
                let answer = match (knows, first.starts_with("CONNECT ")) {
                    (false, _) => {
                        "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
                    }
                    (true, false) => {
                        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
                    }
                    (true, true) => "HTTP/1.1 200 OK\r\n\r\n",
                };
                let _ = client.write_all(answer.as_bytes()).await;
                if knows && first.starts_with("CONNECT ") {
                    let mut server = TcpStream::connect(("127.0.0.1", to))
                        .await
                        .expect("it listens");
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    (port, seen)
}

/// A server that speaks TLS, answers everything with 404, and writes down what it was
/// asked.
const SECURE: &str = "import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def answer(self):
        self.rfile.read(int(self.headers.get('content-length', 0)))
        with open(sys.argv[2], 'a') as log: log.write(f'{self.command} {self.path}\\n')
        self.send_response(404); self.send_header('content-length', '0'); self.end_headers()
    do_GET = do_POST = do_HEAD = answer
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('server.pem', 'server.key')
server.socket = context.wrap_socket(server.socket, server_side=True)
open(sys.argv[1] + '.new', 'w').write(str(server.server_address[1]))
import os; os.rename(sys.argv[1] + '.new', sys.argv[1])
server.serve_forever()";

async fn secure(authority: &Authority, folder: &Path) -> (Running, u16) {
    let port = folder.join("port");
    let process = Command::new("python3")
        .args(["-c", SECURE])
        .args([&port, &folder.join("log")])
        .current_dir(authority.file(""))
        .stdout(Stdio::null())
        .spawn()
        .expect("python3 runs");
    let process = Running(process);
    for _ in 0..200 {
        if let Ok(text) = std::fs::read_to_string(&port) {
            return (process, text.parse().expect("a port"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server does not start");
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_registries_and_queries_go_through_the_proxy_and_trust_the_bundle() {
    let folder = folder();
    let authority = Authority::new();
    let (_server, port) = secure(&authority, folder.path()).await;
    let (proxy, seen) = proxy(port).await;
    let take = || std::mem::take(&mut *seen.lock().expect("no panic"));
    let asked = || {
        let text = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        let _ = std::fs::remove_file(folder.path().join("log"));
        text
    };
    let url = format!("http://me:S3CRET@127.0.0.1:{proxy}");
    let bundle = authority.file("ca.pem");
    let run = |arguments: &[&str], set: &[(&str, &str)]| {
        let mut command = engine(folder.path(), arguments);
        for name in [
            "HTTPS_PROXY",
            "https_proxy",
            "NO_PROXY",
            "no_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(name);
        }
        command
            .env("AWS_ENDPOINT_URL", "https://service.test")
            .env("AWS_ACCESS_KEY_ID", "x")
            .env("AWS_SECRET_ACCESS_KEY", "x")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_MAX_ATTEMPTS", "1")
            .envs(set.iter().copied());
        let output = command.output().expect("the binary runs");
        let said = stderr(&output) + &stdout(&output);
        assert!(!said.contains("S3CRET"), "{said}");
        said
    };
    let status = ["--stack", "x", "status"];
    let pull = [
        "plugin",
        "pull",
        "oci://service.test/a/b:1",
        "--output",
        "b.wasm",
    ];
    let bundled = bundle.display().to_string();
    let set = [("HTTPS_PROXY", &url[..]), ("AWS_CA_BUNDLE", &bundled)];

    let said = run(&status, &set);
    assert!(asked().contains("POST /"), "{said}");
    assert_eq!(take()[0], "CONNECT service.test:443 HTTP/1.1");
    let said = run(&pull, &set);
    assert!(asked().contains("GET /v2/a/b/manifests/1"), "{said}");
    assert_eq!(take()[0], "CONNECT service.test:443 HTTP/1.1");
    let network = Network {
        https_proxy: Some(url.clone()),
        http_proxy: Some(url.clone()),
        ca_bundle: Some(bundle),
        ..Network::default()
    };
    let client = Client::through(&network);
    let answer = client
        .send("GET", "https://service.test/q", None, PATIENCE)
        .await;
    assert_eq!(answer.expect("answered").status, 404);
    assert_eq!(asked(), "GET /q\n");
    assert_eq!(take(), ["CONNECT service.test:443 HTTP/1.1"]);
    // A plain request says to the proxy where it goes.
    let answer = client
        .send("GET", "http://plain.test:81/q?a=1", None, PATIENCE)
        .await;
    assert_eq!(&answer.expect("answered").body[..], b"ok");
    assert_eq!(take(), ["GET http://plain.test:81/q?a=1 HTTP/1.1"]);
    // This machine is never reached through a proxy.
    let direct = client
        .send(
            "GET",
            &format!("https://localhost:{port}/near"),
            None,
            PATIENCE,
        )
        .await;
    assert_eq!(direct.expect("answered").status, 404);
    assert_eq!(take(), Vec::<String>::new());

    // NO_PROXY, in either case, takes a domain out.
    for verb in [&status[..], &pull[..]] {
        let said = run(verb, &[set[0], set[1], ("no_proxy", "example.org,.test")]);
        assert_eq!(take(), Vec::<String>::new(), "{said}");
    }
    // A proxy that refuses is named, and its password is not.
    let stranger = url.replace("me:S3CRET@", "");
    let strange = Network {
        https_proxy: Some(stranger.clone()),
        ..Network::default()
    };
    let error = Client::through(&strange)
        .send("GET", "https://service.test/q", None, PATIENCE)
        .await;
    let error = error.expect_err("refused").to_string();
    assert!(
        error.contains(&format!(
            "the proxy 127.0.0.1:{proxy} did not let it pass: "
        )),
        "{error}"
    );
    assert_eq!(take(), ["unknown: CONNECT service.test:443 HTTP/1.1"]);
    // What cannot be used is said.
    let said = run(
        &["status"],
        &[("HTTPS_PROXY", "socks5://me:S3CRET@127.0.0.1:1")],
    );
    assert!(
        said.contains("HTTPS_PROXY") && said.contains("socks5://"),
        "{said}"
    );
    let said = run(&["status"], &[("AWS_CA_BUNDLE", "/no/such/file")]);
    assert!(
        said.contains("AWS_CA_BUNDLE") && said.contains("/no/such/file cannot be read"),
        "{said}"
    );
}

/// A source that answers all requests alike.
async fn source(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4_096];
            let count = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..count]).to_lowercase();
            // canary:opensesame
            let knows = head.contains("authorization: basic y2fuyxj5om9wzw5zzxnhbwu=");
            let (status, body) = match knows {
                true => ("200 OK", "{\"v\": 4}"),
                false => (status, body),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

fn json(url: &str) -> Query {
    let source = QuerySource::Json {
        url: url.to_owned(),
        pointer: "/v".to_owned(),
    };
    Query::new("q", source)
}

fn prometheus(server: &str) -> Query {
    let source = QuerySource::Prometheus {
        server: server.to_owned(),
        query: "up".to_owned(),
    };
    Query::new("q", source)
}

const MATRIX: &str =
    "{\"status\": \"success\", \"data\": {\"resultType\": \"matrix\", \"result\": ";
const NAN: &str = "{\"status\": \"success\", \"data\": {\"resultType\": \"matrix\", \"result\": [{\"metric\": {}, \"values\": [[1700000000, \"NaN\"]]}]}}";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_number_is_said_and_told_from_a_refusal() {
    let (balancer, _) = start(&spec([demo(), demo()])).await;
    let target = LocalTarget::new(balancer.admin);
    let said = async |query: Query| {
        let error = target.query(&query, 0).await.expect_err("no value");
        (error.code.clone(), error.message)
    };
    for (body, what) in [
        ("{\"v\": null}", "there is no number at \"/v\" but null"),
        ("{\"v\": \"NaN\"}", "but the text \"NaN\""),
        ("{\"v\": [1]}", "but a list"),
        ("{\"v\": true}", "but true"),
        ("{\"w\": 1}", "but nothing"),
        ("{\"v\": NaN}", "its answer is no JSON"),
    ] {
        let (code, message) = said(json(&source("200 OK", body).await)).await;
        assert_eq!(code, "query-failed");
        assert!(message.contains(what), "{message}");
    }
    let (code, message) = said(prometheus(&source("200 OK", NAN).await)).await;
    assert_eq!(code, "query-not-a-number");
    assert!(
        message.contains("NaN for stable and NaN for canary"),
        "{message}"
    );
    // A source that has nothing has no value, and that is no error.
    let empty: &'static str = Box::leak(format!("{MATRIX}[]}}}}").into_boxed_str());
    let nothing = target
        .query(&prometheus(&source("200 OK", empty).await), 0)
        .await;
    assert_eq!(nothing.expect("an answer"), []);

    let closed = source("401 Unauthorized", "").await;
    let (code, message) = said(prometheus(&closed)).await;
    assert_eq!(code, "query-refused");
    assert!(
        message.contains("401 Unauthorized") && message.contains("`basic-auth`"),
        "{message}"
    );
    let folder = folder();
    let place = folder.path().join("password");
    let login = |query: Query| Query {
        basic_auth: Some(BasicAuth {
            user: "canary".to_owned(),
            password: format!("${{file:{}}}", place.display()),
        }),
        ..query
    };
    std::fs::write(&place, "wrong\n").expect("writable");
    let (code, message) = said(login(json(&closed))).await;
    assert_eq!(code, "query-refused");
    assert!(
        message.contains("does not take the credentials") && !message.contains("wrong"),
        "{message}"
    );
    std::fs::write(&place, "opensesame\n").expect("writable");
    let points = target
        .query(&login(json(&closed)), 0)
        .await
        .expect("let in");
    assert_eq!(points.len(), 2);
    let (_, message) = said(json(&source("403 Forbidden", "").await)).await;
    assert!(message.contains("may not read that"), "{message}");
}

/// A rollout with a stream of its own.
fn write(folder: &Path, query: &str) {
    let text = format!(
        r#"
        {}
        [strategy]
        plugin = {:?}
        [strategy.parameters]
        steps = [20, 50]
        bake = "1s"
        max-bake = "1s"
        probe = false
        [[strategy.parameters.streams]]
        name = "quality"
        bad = "q"
        [queries.q]
        {query}
        "#,
        demo_target(60),
        plugin("canary")
    );
    std::fs::write(folder.join("rollout.toml"), text).expect("writable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_data_passes_no_step_and_a_url_feeds_none() {
    let folder = folder();
    write(
        folder.path(),
        "url = \"http://127.0.0.1:1/\"\npointer = \"/v\"",
    );
    for verb in ["run", "plan"] {
        let output = engine(folder.path(), &[verb]).output().expect("it runs");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{verb}: {said}");
        assert!(
            said.contains(
                "strategy.parameters.streams.0.bad: names the query \"q\", which asks a `url`"
            ),
            "{verb}: {said}"
        );
    }
    for (status, body, why) in [
        ("401 Unauthorized", "", "it refused (401 Unauthorized)"),
        (
            "200 OK",
            NAN,
            "gives no number: NaN for stable and NaN for canary",
        ),
        (
            "200 OK",
            "{\"data\": {\"result\": []}}",
            "gave no value of both arms",
        ),
    ] {
        let server = source(status, body).await;
        write(
            folder.path(),
            &format!("prometheus = {{ server = {server:?}, query = \"up\" }}"),
        );
        let output = engine(folder.path(), &["run"]).output().expect("it runs");
        let said = stderr(&output) + &stdout(&output);
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert!(
            said.contains("the stream \"quality\" has no data: "),
            "{said}"
        );
        assert!(said.contains(why), "{said}");
        assert!(
            said.contains("canary 20 %") && !said.contains("canary 50 %"),
            "{said}"
        );
        let list = engine(folder.path(), &["list"]).output().expect("it runs");
        let id = stdout(&list);
        let id = id
            .split_whitespace()
            .find(|word| word.starts_with("canary-"));
        let _ = engine(folder.path(), &["abort", id.expect("listed")]).output();
    }
}

/// Who goes through the proxy, by each variable that may name it or take hosts out.
#[tokio::test(flavor = "multi_thread")]
async fn each_variable_of_a_proxy_counts_for_each_connection() {
    let folder = folder();
    let (proxy, seen) = proxy(1).await;
    let url = format!("http://me:S3CRET@127.0.0.1:{proxy}");
    let elsewhere = "http://127.0.0.1:1";
    let wasm = plugin("canary");
    let verbs = [
        (&["--stack", "x", "status"][..], "https://service.test"),
        (
            &["plugin", "push", &wasm, "oci://service.test/a/b:1"],
            "https://service.test",
        ),
        (&["--stack", "x", "status"], "https://[fd00::7]"),
        (
            &[
                "plugin",
                "pull",
                "oci://[fd00::7]/a/b:1",
                "--output",
                "b.wasm",
            ],
            "https://[fd00::7]",
        ),
    ];
    for (set, named, literal) in [
        (&[("HTTPS_PROXY", url.as_str())][..], true, true),
        (&[("ALL_PROXY", &url)], true, true),
        (&[("all_proxy", &url), ("HTTPS_PROXY", "")], true, true),
        // The names in lower case count more.
        (
            &[("https_proxy", &url), ("HTTPS_PROXY", elsewhere)],
            true,
            true,
        ),
        // Those are for plain requests, which nothing here sends.
        (&[("HTTP_PROXY", &url)], false, false),
        (&[("HTTPS_PROXY", &url), ("NO_PROXY", "*")], false, false),
        (&[("HTTPS_PROXY", &url), ("NO_PROXY", ".test")], false, true),
        (
            &[("HTTPS_PROXY", &url), ("NO_PROXY", "fd00::/16")],
            true,
            false,
        ),
        (
            &[("HTTPS_PROXY", &url), ("NO_PROXY", "[fd00::7]")],
            true,
            false,
        ),
    ] {
        for (arguments, place) in verbs {
            let mut command = engine(folder.path(), arguments);
            for name in ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY"] {
                command.env_remove(name).env_remove(name.to_lowercase());
            }
            let output = command
                .env("AWS_ENDPOINT_URL", place)
                .env("AWS_ACCESS_KEY_ID", "x")
                .env("AWS_SECRET_ACCESS_KEY", "x")
                .env("AWS_REGION", "us-east-1")
                .env("AWS_MAX_ATTEMPTS", "1")
                .envs(set.iter().copied())
                .output();
            let output = output.expect("it runs");
            let asked = std::mem::take(&mut *seen.lock().expect("no panic"));
            let host = place.trim_start_matches("https://");
            let line = format!("CONNECT {host}:443 HTTP/1.1");
            let through = if host.starts_with('[') {
                literal
            } else {
                named
            };
            let said = stderr(&output);
            assert_ne!(output.status.code(), Some(0), "{said}");
            assert_eq!(!asked.is_empty(), through, "{set:?} {arguments:?}: {said}");
            assert!(asked.iter().all(|a| *a == line), "{asked:?}");
        }
    }
}

/// A Prometheus that lets in whoever sends one of these headers.
async fn guarded(header: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4_096];
            let count = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..count]);
            let knows = head.lines().any(|line| line.eq_ignore_ascii_case(header));
            let body = match knows {
                true => {
                    format!("{MATRIX}[{{\"metric\": {{}}, \"values\": [[1700000000, \"4\"]]}}]}}}}")
                }
                false => String::new(),
            };
            let status = if knows { "200 OK" } else { "401 Unauthorized" };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_is_opened_by_a_password_a_token_or_a_header() {
    let (balancer, _) = start(&spec([demo(), demo()])).await;
    let target = LocalTarget::new(balancer.admin);
    let folder = folder();
    let place = folder.path().join("secret");
    std::fs::write(&place, "opensesame\n").expect("writable");
    let secret = format!("${{file:{}}}", place.display());
    let headers = |name: &str, value: String| Query {
        headers: vec![(name.to_owned(), value)],
        ..prometheus("")
    };
    let login = Query {
        basic_auth: Some(BasicAuth {
            user: "canary".to_owned(),
            password: secret.clone(),
        }),
        ..prometheus("")
    };
    for (header, query) in [
        ("authorization: Basic Y2FuYXJ5Om9wZW5zZXNhbWU=", login),
        (
            "authorization: Bearer opensesame",
            headers("authorization", format!("Bearer {secret}")),
        ),
        (
            "x-scope-orgid: shop",
            headers("x-scope-orgid", "shop".to_owned()),
        ),
        (
            "x-api-key: opensesame",
            headers("x-api-key", secret.clone()),
        ),
    ] {
        let server = guarded(header).await;
        let at = |query: Query| Query {
            source: prometheus(&server).source,
            ..query
        };
        let points = target.query(&at(query), 0).await;
        let points = points.unwrap_or_else(|e| panic!("{header}: {e}"));
        assert_eq!(points.len(), 2, "{header}");
        let error = target.query(&at(prometheus("")), 0).await;
        assert_eq!(error.expect_err("closed").code, "query-refused");
    }
    // A name and a password in the address were taken and never sent.
    for (query, says) in [
        (
            "prometheus = { server = \"http://bob@127.0.0.1:1\", query = \"q\" }",
            "queries.q.prometheus.server: names a user, which is not sent; write basic-auth",
        ),
        (
            "prometheus = { server = \"http://bob:${PW}@127.0.0.1:1\", query = \"q\" }",
            "queries.q.prometheus.server: names a user",
        ),
        (
            "url = \"https://bob@127.0.0.1:1\"\npointer = \"/v\"",
            "queries.q.url: names a user",
        ),
        (
            "prometheus = { server = \"http://p\", query = \"q\", headers = { x = \"1\" } }",
            "belongs one level up, beside `prometheus`",
        ),
    ] {
        write(folder.path(), query);
        let output = engine(folder.path(), &["run"]).output().expect("it runs");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

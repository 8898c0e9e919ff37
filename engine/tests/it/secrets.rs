//! Credentials come by name, and what an engine keeps is its owner's alone.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use engine::model::query::{Query, QuerySource};
use engine::model::{DemoFault, Source};
use engine::ops::Kind;
use engine::ops::begin::BeginRequest;
use engine::ops::history::list;
use engine::ops::status::overview;
use engine::target::Target;
use engine::target::local::LocalTarget;
use engine::target::local::balancer::Balancer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::app::{TestApp, in_file, refused};
use crate::support::balancer::{demo_target, spec};
use crate::support::binary::{engine, plugin, run, stderr, stdout};
use crate::support::folder;

const SECRET: &str = "S3CRET-of-ours";

/// A short rollout with a demo of its own, and more lines.
fn file(folder: &Path, more: &str) {
    let text = format!(
        r#"
        {}
        [strategy]
        plugin = {:?}
        [strategy.parameters]
        gate = "limits"
        bake = "1s"
        steps = [50, 100]
        {more}
        "#,
        demo_target(40),
        plugin("canary")
    );
    std::fs::write(folder.join("rollout.toml"), text).expect("writable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_in_a_rollout_file_is_refused_and_not_shown() {
    let test = TestApp::surrounded(<_>::default());
    let place = test.at("rollout.toml");
    for more in [
        r#"[queries.q]
           url = "http://user:SECRET@127.0.0.1:1/x"
           pointer = "/v""#,
        r#"[queries.q]
           url = "http://127.0.0.1:1/x?a=1&access_token=SECRET"
           pointer = "/v""#,
        r#"[queries.q]
           prometheus = { server = "https://SECRET@h", query = "up" }"#,
        r#"[queries.q]
           url = "http://127.0.0.1:1/"
           headers = { Authorization = "Bearer SECRET" }"#,
        r#"[queries.q]
           url = "http://127.0.0.1:1/"
           headers = { x-scope = "Basic SECRET" }"#,
        r#"[queries.q]
           url = ["http://user:SECRET@127.0.0.1:1/x"]"#,
        r#"[probes.p]
           path = "/x?sig=SECRET""#,
        r#"[candidate]
           version = "v3"
           command = ["./serve", "--token", "SECRET"]"#,
        r#"[candidate]
           version = "v3"
           command = ["env", "API_TOKEN=SECRET", "./serve"]"#,
        r#"[candidate]
           version = "v3"
           urls = ["http://user:SECRET@127.0.0.1:1"]"#,
        // A mistake beside it must not show it either.
        r#"[queries.q]
           url = "http://user:SECRET@127.0.0.1:1/x" oops"#,
        r#"[queries.q]
           password = ["SECRET"]"#,
    ] {
        file(
            place.parent().expect("ours"),
            &more.replace("SECRET", SECRET),
        );
        let request = BeginRequest {
            target: in_file(&place),
            ..BeginRequest::default()
        };
        let begun = test.begin(&request).await;
        let seen = overview(&test.app, &request.target, None).await;
        let error = refused(begun.map(|_| ()), Kind::Usage, &[]);
        assert!(!error.message.contains(SECRET), "{more}: {error}");
        // What needs the target alone goes on without the rest.
        let error = seen.map_or_else(|error| error.to_string(), |_| String::new());
        assert!(!error.contains(SECRET), "{more}: {error}");
        let heard = test.heard();
        assert!(!heard.contains(SECRET), "{more}: {heard}");
        assert_eq!(list(&test.app, &<_>::default()).await, Ok(vec![]));
        assert!(!holds(&test.at("state"), SECRET), "{more}");
    }
}

/// Whether any file below has the text in it.
fn holds(path: &Path, text: &str) -> bool {
    // What is behind a link belongs to all tests.
    if path.is_symlink() {
        return false;
    }
    if path.is_dir() {
        let mut entries = std::fs::read_dir(path).expect("ours").flatten();
        return entries.any(|e| holds(&e.path(), text));
    }
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

#[test]
fn a_credential_by_name_is_needed_at_once_and_kept_nowhere() {
    let folder = folder();
    file(
        folder.path(),
        r#"[queries.q]
           url = "http://127.0.0.1:1/?token=${ENGINE_TEST_TOKEN}"
           pointer = "/v"
           headers = { authorization = "Bearer ${ENGINE_TEST_TOKEN}" }"#,
    );
    let without = run(folder.path(), &["run"]);
    assert_eq!(without.status.code(), Some(2));
    let text = stderr(&without);
    assert!(
        text.contains("queries.q.url") && text.contains("ENGINE_TEST_TOKEN"),
        "{text}"
    );
    assert_eq!(
        stdout(&run(folder.path(), &["list", "--json"])).trim(),
        "[]"
    );

    let mut command = engine(folder.path(), &["run"]);
    command.env("ENGINE_TEST_TOKEN", SECRET);
    let output = command.output().expect("runs");
    let text = stderr(&output) + &stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    let state = folder.path().join("state");
    assert!(holds(&state, "Bearer ${ENGINE_TEST_TOKEN}"), "the name is");
    assert!(!holds(&state, SECRET), "the secret is not");
    let list = stdout(&run(folder.path(), &["list", "--json"]));
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let id = list[0]["rollout"].as_str().expect("an id");
    let exported = run(folder.path(), &["export", id, "-o", "x.journal"]);
    assert_eq!(exported.status.code(), Some(0), "{}", stderr(&exported));

    // All of it is the owner's alone.
    let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
    assert_eq!(mode(&folder.path().join("x.journal")), 0o600);
    let mut all = vec![state.clone()];
    while let Some(path) = all.pop() {
        if path.is_dir() {
            assert_eq!(mode(&path), 0o700, "{}", path.display());
            // Nobody gets past the folder of the compiled plugins.
            if path.file_name().is_none_or(|n| n != "compiled") {
                all.extend(
                    std::fs::read_dir(&path)
                        .expect("ours")
                        .flatten()
                        .map(|e| e.path()),
                );
            }
        } else {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }

    // As an older engine left it.
    let lax = |path: &Path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("ours");
    };
    lax(&state, 0o755);
    lax(&state.join("engine.db"), 0o644);
    lax(&state.join("embedded"), 0o755);
    let first = stderr(&run(folder.path(), &["list"]));
    assert!(first.contains("note: others could read 3"), "{first}");
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("engine.db")), 0o600);
    let second = stderr(&run(folder.path(), &["list"]));
    assert!(!second.contains("note"), "{second}");
}

#[tokio::test]
async fn a_query_sends_its_secrets_and_says_them_to_nobody() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("free");
    let address = listener.local_addr().expect("bound");
    let expected = format!("authorization: bearer {}", SECRET.to_lowercase());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4_096];
            let count = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..count]).to_lowercase();
            let (status, body) = if head.contains("/wrong") {
                // It says back what it was told.
                (
                    "403 Forbidden",
                    format!("{{\"error\": \"no user {SECRET}\"}}"),
                )
            } else if head.contains(&expected) && head.contains("?token=s3cret") {
                ("200 OK", "{\"v\": 4}".to_owned())
            } else {
                ("401 Unauthorized", "{}".to_owned())
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let folder = folder();
    let place = folder.path().join("token");
    std::fs::write(&place, format!("{SECRET}\n")).expect("writable");
    let named = format!("${{file:{}}}", place.display());
    let demo = || Source::Demo(DemoFault::default());
    let balancer = Balancer::start(&spec([demo(), demo()]), None, None)
        .await
        .expect("starts");
    let target = LocalTarget::new(balancer.admin);
    let query = |path: &str| Query {
        headers: vec![("authorization".to_owned(), format!("Bearer {named}"))],
        basic_auth: None,
        ..Query::new(
            "accuracy",
            QuerySource::Json {
                url: format!("http://{address}{path}?token={named}&arm={{arm}}"),
                pointer: "/v".to_owned(),
            },
        )
    };
    let points = target.query(&query("/right"), 0).await.expect("let in");
    assert_eq!(points.len(), 2);
    let error = target
        .query(&query("/wrong"), 0)
        .await
        .expect_err("refused");
    assert!(error.message.contains("no user ${file:"), "{error}");
    assert!(!error.message.contains(SECRET), "{error}");
    let closed = Query::new(
        "gone",
        QuerySource::Prometheus {
            server: format!("http://127.0.0.1:1/{named}"),
            query: "up".to_owned(),
        },
    );
    let error = target.query(&closed, 0).await.expect_err("nobody listens");
    assert!(!error.message.contains(SECRET), "{error}");
    // Another process may not have it: the next look may.
    std::fs::remove_file(&place).expect("ours");
    let error = target
        .query(&query("/right"), 0)
        .await
        .expect_err("missing");
    assert!(
        error.retryable && error.message.contains("token"),
        "{error}"
    );
}

//! Credentials, certificates, and where requests may go.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::clock::VirtualClock;
use engine::supply::registry::error::RegistryError;
use engine::supply::registry::manifest::{Layout, digest};
use engine::supply::registry::{Options, Registry};
use serde_json::{Value, json};

use super::proxy::{self, Proxy, Trouble};
use super::server::{self, Authority, Server};
use super::{artifact, options, place, plain, pull, push, wasm, whenever, with};

use crate::support::folder;

#[tokio::test]
async fn plain_http_stays_on_this_machine() {
    let (port, connections) = proxy::bystander().await;
    let far = format!("0.0.0.0:{port}");
    let error = pull(&far, "canary:1").await.expect_err("refused");
    assert!(
        matches!(error, RegistryError::Reference { .. }),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("plain HTTP is for this machine only"),
        "{error}"
    );
    // Nor does a redirect lead out, from plain HTTP or from TLS.
    let server = Server::open();
    push(&server.address, "canary:1", &wasm(100)).await;
    let away: &'static str = format!("http://{far}/away").leak();
    let redirects: &'static [_] = vec![("location", away)].leak();
    let redirect = move || Trouble::Says(307, redirects, String::new());
    let authority = Authority::new();
    let secure = Options {
        plain_http: false,
        ca_files: vec![authority.file("ca.pem")],
        ..options()
    };
    for part in ["/blobs/", "/manifests/"] {
        let proxy = Proxy::start(&server.address, whenever(part, redirect)).await;
        let error = pull(&proxy.address, "canary:1").await;
        assert!(
            matches!(error, Err(RegistryError::Network { .. })),
            "{error:?}"
        );
        let proxy = Proxy::start_tls(&authority, &server.address, whenever(part, redirect)).await;
        let reference = place(&proxy.address.replace("127.0.0.1", "localhost"), "canary:1");
        let error = with(secure.clone())
            .pull(&reference, None)
            .await
            .expect_err("refused");
        assert!(
            error
                .to_string()
                .contains("redirects to an address with plain HTTP"),
            "{error}"
        );
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn redirects_inside_this_machine_are_followed() {
    let server = Server::open();
    push(&server.address, "canary:1", &wasm(100)).await;
    let away: &'static str = format!(
        "http://{}/v2/canary/blobs/{}",
        server.address,
        digest(&wasm(100))
    )
    .leak();
    let redirects: &'static [_] = vec![("location", away)].leak();
    let proxy = Proxy::start(
        &server.address,
        whenever("/blobs/", move || {
            Trouble::Says(307, redirects, String::new())
        }),
    )
    .await;
    assert_eq!(
        pull(&proxy.address, "canary:1").await.map(|p| p.wasm),
        Ok(wasm(100))
    );
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named() {
    let authority = Authority::new();
    let server = Server::secure(&authority);
    let reference = place(
        &server.address.replace("127.0.0.1", "localhost"),
        "canary:1",
    );
    let without = Options {
        plain_http: false,
        ..options()
    };
    let named = Options {
        ca_files: vec![authority.file("ca.pem")],
        ..without.clone()
    };
    let pushed = with(named.clone())
        .push(&reference, &artifact(wasm(100)), Layout::Cncf)
        .await;
    let pulled = with(named.clone())
        .pull(&reference, None)
        .await
        .expect("pulled");
    assert_eq!(Ok(pulled.manifest_digest), pushed);
    let error = with(without)
        .pull(&reference, None)
        .await
        .expect_err("unknown");
    assert!(matches!(error, RegistryError::Network { .. }), "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");
    // The name must fit, too: the certificate is not for 127.0.0.1.
    let error = with(named)
        .pull(&place(&server.address, "canary:1"), None)
        .await;
    assert!(
        matches!(error, Err(RegistryError::Network { .. })),
        "{error:?}"
    );
}

#[test]
fn files_that_hold_no_certificate() {
    let folder = folder();
    let file = folder.path().join("ca.pem");
    let open = || {
        let options = Options {
            ca_files: vec![file.clone()],
            ..Options::default()
        };
        let error = Registry::new(options, Arc::new(VirtualClock::new(0))).err();
        error.expect("no certificate").to_string()
    };
    assert!(open().contains("No such file"), "{}", open());
    for text in [
        "",
        "hello",
        "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&file, text).expect("written");
        let error = open();
        assert!(
            error.contains("ca.pem") && error.contains("hint: "),
            "{error}"
        );
    }
}

/// A folder with a Docker config.
fn docker(config: &Value) -> tempfile::TempDir {
    let folder = folder();
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
    folder
}

fn logged_in(folder: &Path) -> Registry {
    with(Options {
        docker_config: Some(folder.to_owned()),
        ..options()
    })
}

fn auth(name: &str, password: &str) -> Value {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    json!({"auth": BASE64_STANDARD.encode(format!("{name}:{password}"))})
}

#[tokio::test]
async fn a_locked_registry_opens_to_the_right_password() {
    let server = Server::locked();
    let reference = place(&server.address, "canary:1");
    let right =
        docker(&json!({"auths": {server.address.clone(): auth(server::NAME, server::PASSWORD)}}));
    let pushed = logged_in(right.path())
        .push(&reference, &artifact(wasm(100)), Layout::Cncf)
        .await;
    let pulled = logged_in(right.path())
        .pull(&reference, None)
        .await
        .expect("pulled");
    assert_eq!(Ok(pulled.manifest_digest.clone()), pushed);
    assert_eq!(logged_in(right.path()).resolve(&reference).await, pushed);

    let wrong = docker(&json!({"auths": {server.address.clone(): auth(server::NAME, "wrong")}}));
    let elsewhere =
        docker(&json!({"auths": {"registry.example": auth(server::NAME, server::PASSWORD)}}));
    let empty = folder();
    let file = |folder: &tempfile::TempDir| folder.path().join("config.json").display().to_string();
    for (registry, says) in [
        (
            logged_in(wrong.path()),
            format!("as \"canary\", by {}", file(&wrong)),
        ),
        (
            logged_in(elsewhere.path()),
            format!(
                "{} has no credentials for {}",
                file(&elsewhere),
                server.address
            ),
        ),
        (
            logged_in(empty.path()),
            format!("there is no {}", file(&empty)),
        ),
        (plain(), "no Docker config was given".to_owned()),
    ] {
        for error in [
            registry.pull(&reference, None).await.expect_err("denied"),
            registry.resolve(&reference).await.expect_err("denied"),
            registry
                .push(&reference, &artifact(wasm(9)), Layout::Cncf)
                .await
                .expect_err("denied"),
        ] {
            assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(&says), "{text}");
            assert!(
                text.contains(&format!("hint: docker login {}", server.address)),
                "{text}"
            );
            assert!(!text.contains("wrong"), "no passwords in messages: {text}");
        }
    }
}

#[tokio::test]
async fn docker_configs_that_are_of_no_use() {
    let server = Server::open();
    let proxy = Proxy::start(&server.address, |_| Trouble::None).await;
    let reference = place(&proxy.address, "canary:1");
    for (config, says) in [
        (json!([]), "Unable to read config"),
        (
            json!({"auths": {proxy.address.clone(): {"auth": "%"}}}),
            "Unable to decode",
        ),
        (
            json!({"auths": {proxy.address.clone(): {"identitytoken": "t"}}}),
            "identity token",
        ),
        (
            json!({"credsStore": "of-no-such-name"}),
            "cannot be started",
        ),
    ] {
        let folder = docker(&config);
        let error = logged_in(folder.path())
            .pull(&reference, None)
            .await
            .expect_err("no use");
        let RegistryError::File { file, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(file.ends_with("config.json"), "{file}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

/// Registries in the cloud give tokens for passwords.
#[tokio::test]
async fn a_token_is_asked_for_with_the_password() {
    let server = Server::open();
    let wasm = wasm(100);
    push(&server.address, "canary:1", &wasm).await;
    let right = auth(server::NAME, server::PASSWORD);
    let basic = format!("Basic {}", right["auth"].as_str().expect("text"));
    // The proxy learns its own address when it is asked.
    let address = Arc::new(std::sync::OnceLock::<String>::new());
    let known = address.clone();
    let proxy = Proxy::start(&server.address, move |asked| {
        let authorization = asked.authorization.as_deref();
        if asked.line.starts_with("GET /token") {
            assert!(
                asked.line.contains("scope=repository%3Acanary%3Apull"),
                "{}",
                asked.line
            );
            return match authorization == Some(basic.as_str()) {
                true => Trouble::Says(200, &[], "{\"token\":\"good\"}".to_owned()),
                false => Trouble::Says(401, &[], "who are you?".to_owned()),
            };
        }
        if authorization == Some("Bearer good") {
            return Trouble::None;
        }
        let realm = format!(
            "Bearer realm=\"http://{}/token\",service=\"test\"",
            known.get().expect("known")
        );
        let challenge: &'static [_] = vec![("www-authenticate", &*realm.leak())].leak();
        Trouble::Says(401, challenge, String::new())
    })
    .await;
    address.set(proxy.address.clone()).expect("once");
    let reference = place(&proxy.address, "canary:1");
    let folder = docker(&json!({"auths": {proxy.address.clone(): right}}));
    let pulled = logged_in(folder.path()).pull(&reference, None).await;
    assert_eq!(pulled.map(|p| p.wasm), Ok(wasm));
    let folder = docker(&json!({"auths": {proxy.address.clone(): auth(server::NAME, "wrong")}}));
    let error = logged_in(folder.path())
        .pull(&reference, None)
        .await
        .expect_err("denied");
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    assert!(error.to_string().contains("who are you?"), "{error}");
}

/// Set in a process that runs one test in other surroundings.
const ELSEWHERE: &str = "ENGINE_TEST_ELSEWHERE";

/// A process cannot safely change its own environment, so a test that needs
/// another one runs itself once more. Gives whether this is that run.
fn is_elsewhere(test: &str, environment: &[(&str, &OsStr)]) -> bool {
    if std::env::var_os(ELSEWHERE).is_some() {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", &format!("registry::access::{test}")])
        .envs(environment.iter().copied())
        .env(ELSEWHERE, "1")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{said}");
    false
}

#[test]
fn a_machine_without_certificates() {
    let nowhere = OsStr::new("/nonexistent");
    let environment = [("SSL_CERT_FILE", nowhere), ("SSL_CERT_DIR", nowhere)];
    if !is_elsewhere("a_machine_without_certificates", &environment) {
        return;
    }
    let authority = Authority::new();
    let options = Options {
        ca_files: vec![authority.file("ca.pem")],
        ..Options::default()
    };
    let registry = Registry::new(options, Arc::new(VirtualClock::new(0)));
    let error = registry.err().expect("no certificates").to_string();
    assert!(
        error.contains("hint: install the package ca-certificates"),
        "{error}"
    );
}

#[test]
fn a_credential_helper_is_asked() {
    let folder = folder();
    let script = r#"#!/bin/sh
read -r server
case "$1 $server" in
"get 127.0.0.1:"*) echo '{"ServerURL":"","Username":"NAME","Secret":"PASSWORD"}' ;;
"get 127.0.0.2:"*) echo 'credentials not found in native keychain'; exit 1 ;;
*) echo 'the vault is closed' >&2; exit 1 ;;
esac
"#;
    let script = script
        .replace("NAME", server::NAME)
        .replace("PASSWORD", server::PASSWORD);
    let helper = folder.path().join("docker-credential-test");
    std::fs::write(&helper, script).expect("written");
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).expect("executable");
    let path = [folder.path(), Path::new("/usr/bin"), Path::new("/bin")];
    let path = std::env::join_paths(path).expect("a path");
    if is_elsewhere("a_credential_helper_is_asked", &[("PATH", &path)]) {
        with_a_helper();
    }
}

#[tokio::main]
async fn with_a_helper() {
    let server = Server::locked();
    let reference = place(&server.address, "canary:1");
    for config in [
        json!({"credHelpers": {server.address.clone(): "test"}}),
        json!({"credsStore": "test"}),
    ] {
        let folder = docker(&config);
        let pushed = logged_in(folder.path())
            .push(&reference, &artifact(wasm(100)), Layout::Cncf)
            .await;
        let pulled = logged_in(folder.path())
            .pull(&reference, None)
            .await
            .expect("pulled");
        assert_eq!(Ok(pulled.manifest_digest), pushed);
    }
    let folder = docker(&json!({"credsStore": "test"}));
    let named = server.address.replace("127.0.0.1", "localhost");
    let error = logged_in(folder.path())
        .pull(&place(&named, "canary:1"), None)
        .await
        .expect_err("closed");
    assert!(
        error
            .to_string()
            .contains("docker-credential-test failed: the vault is closed"),
        "{error}"
    );
    let nobody = server.address.replace("127.0.0.1", "127.0.0.2");
    let error = logged_in(folder.path())
        .pull(&place(&nobody, "canary:1"), None)
        .await
        .expect_err("nobody listens");
    assert!(
        error.to_string().contains("refused"),
        "asked without credentials: {error}"
    );
}

//! Plugins in a real registry, and in one that makes trouble.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::clock::VirtualClock;
use engine::supply::registry::error::{RegistryError, Rejected};
use engine::supply::registry::manifest::{Artifact, Layout, digest};
use engine::supply::registry::reference::Reference;
use engine::supply::registry::{Options, Pulled, Registry};
use serde_json::{Value, json};

mod access;
mod pins;
mod proxy;
pub mod server;
mod signatures;
mod trouble;

use proxy::{Asked, Proxy, Trouble};
use server::Server;

const LIMIT: u64 = 100_000;
/// Longer than a socket swallows at once.
const LONG: usize = 60_000;

fn options() -> Options {
    Options {
        plain_http: true,
        limit_bytes: LIMIT,
        connect_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_secs(5),
        ..Options::default()
    }
}

/// Waiting before another try takes no time.
fn with(options: Options) -> Registry {
    let clock = Arc::new(VirtualClock::new(0));
    Registry::new(options, clock).unwrap_or_else(|e| panic!("{e}"))
}

fn plain() -> Registry {
    with(options())
}

fn place(address: &str, rest: &str) -> Reference {
    let text = format!("oci://{address}/{rest}");
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// Begins as a component does; nobody here runs it.
fn wasm(length: usize) -> Vec<u8> {
    let rest = (0..length - 8).map(|i| (i % 251) as u8);
    b"\0asm\x0d\0\x01\0".iter().copied().chain(rest).collect()
}

fn artifact(wasm: Vec<u8>) -> Artifact {
    Artifact {
        wasm,
        exports: vec!["rollout:strategy/strategy-api@0.1.0".to_owned()],
        imports: vec!["rollout:traffic/traffic@0.1.0".to_owned()],
        created: "2026-01-31T12:00:00Z".to_owned(),
        annotations: BTreeMap::from([(
            "org.opencontainers.image.version".to_owned(),
            "1".to_owned(),
        )]),
    }
}

async fn push(address: &str, rest: &str, wasm: &[u8]) -> String {
    let (registry, reference) = (plain(), place(address, rest));
    let artifact = artifact(wasm.to_vec());
    let pushed = registry.push(&reference, &artifact, Layout::Cncf).await;
    pushed.unwrap_or_else(|e| panic!("{e}"))
}

async fn pull(address: &str, rest: &str) -> Result<Pulled, RegistryError> {
    plain().pull(&place(address, rest), None).await
}

fn rejected(result: Result<Pulled, RegistryError>) -> Rejected {
    match result {
        Err(RegistryError::Rejected { content, .. }) => content,
        other => panic!("{other:?}"),
    }
}

/// One trouble whenever a line of a request contains this.
fn whenever(
    part: &'static str,
    trouble: impl Fn() -> Trouble + Send + 'static,
) -> impl FnMut(&Asked) -> Trouble + Send + 'static {
    move |asked| {
        if asked.line.contains(part) {
            trouble()
        } else {
            Trouble::None
        }
    }
}

fn blobs_asked(proxy: &Proxy) -> usize {
    let is_blob = |line: &&String| line.starts_with("GET") && line.contains("/blobs/");
    proxy.asked().iter().filter(is_blob).count()
}

#[tokio::test]
async fn a_plugin_comes_back_as_it_was_pushed() {
    let server = Server::open();
    let wasm = wasm(LONG);
    let pushed = push(&server.address, "team/canary:1", &wasm).await;
    let by_tag = pull(&server.address, "team/canary:1")
        .await
        .expect("pulled");
    assert_eq!(by_tag.manifest_digest, pushed);
    assert_eq!(digest(by_tag.manifest.as_bytes()), pushed);
    assert_eq!(by_tag.wasm, wasm);
    assert_eq!(by_tag.wasm_digest, digest(&wasm));
    assert_eq!(by_tag.annotations["org.opencontainers.image.version"], "1");
    for rest in [
        format!("team/canary@{pushed}"),
        format!("team/canary:gone@{pushed}"),
    ] {
        assert_eq!(pull(&server.address, &rest).await, Ok(by_tag.clone()));
    }
    let reference = place(&server.address, "team/canary:1");
    assert_eq!(plain().resolve(&reference).await, Ok(pushed));
}

#[tokio::test]
async fn what_is_written_is_as_others_write_it() {
    let server = Server::open();
    let artifact = artifact(wasm(100));
    for (layout, tag, is) in [
        (
            Layout::Cncf,
            "cncf",
            "sha256:fe0c6d50c79f00aa0c514c869fbf80ae1cfe9b556fe5e07e3717a6ac44b0b3a3",
        ),
        (
            Layout::Older,
            "older",
            "sha256:b6ae1e3a96827ba2103766cec64a4c5ca782d3d8618526225519508c5a0342f5",
        ),
    ] {
        let reference = place(&server.address, &format!("canary:{tag}"));
        let pushed = plain().push(&reference, &artifact, layout).await;
        // The same input gives the same digest, today and in the next version.
        assert_eq!(pushed, Ok(is.to_owned()));
        let pulled = plain().pull(&reference, None).await.expect("pulled");
        assert_eq!(pulled.wasm, artifact.wasm);
    }
    let read = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).expect("JSON") };
    let manifest = read(&server.get("canary", "manifests/cncf").await);
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    let config = manifest["config"]["digest"].as_str().expect("a digest");
    let config = read(&server.get("canary", &format!("blobs/{config}")).await);
    let expected = json!({
        "created": "2026-01-31T12:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [digest(&artifact.wasm)],
        "component": {
            "exports": ["rollout:strategy/strategy-api@0.1.0"],
            "imports": ["rollout:traffic/traffic@0.1.0"],
        },
    });
    assert_eq!(config, expected);
    let older = read(&server.get("canary", "manifests/older").await);
    assert_eq!(
        older["config"]["mediaType"],
        "application/vnd.wasm.config.v1+json"
    );
    assert_eq!(
        older["layers"][0]["mediaType"],
        "application/vnd.wasm.content.layer.v1+wasm"
    );
}

#[tokio::test]
async fn plugins_that_other_tools_have_pushed() {
    let server = Server::open();
    // `wkg oci push` 0.16 and `oras` 0.2 (Python) made these of eight bytes.
    let wkg = include_bytes!("../registry/wkg-manifest.json");
    let oras = include_bytes!("../registry/oras-manifest.json");
    let wasm = wasm(8);
    server.put_blob("made", &wasm).await;
    server.put_blob("made", b"{}").await;
    server
        .put_blob("made", include_bytes!("../registry/wkg-config.json"))
        .await;
    for (tag, manifest) in [("wkg", &wkg[..]), ("oras", oras)] {
        let put = server.put_manifest("made", tag, manifest).await;
        let pulled = pull(&server.address, &format!("made:{tag}")).await;
        let pulled = pulled.unwrap_or_else(|e| panic!("{tag}: {e}"));
        assert_eq!((pulled.manifest_digest, pulled.wasm), (put, wasm.clone()));
    }
    // As the command line of oras makes them today.
    let manifest = manifest_of(
        "application/vnd.oci.empty.v1+json",
        b"{}",
        &[("application/wasm", &wasm)],
    );
    server.put_manifest("made", "now", &manifest).await;
    let pulled = pull(&server.address, "made:now").await.expect("pulled");
    assert_eq!(pulled.wasm, wasm);
}

fn manifest_of(config_type: &str, config: &[u8], layers: &[(&str, &[u8])]) -> Vec<u8> {
    let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let layers: Vec<_> = layers
        .iter()
        .map(|(kind, bytes)| describe(kind, bytes))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe(config_type, config),
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_its_name() {
    const WASM: &str = "application/wasm";
    const CONFIG: &str = "application/vnd.wasm.config.v0+json";
    const IMAGE: &str = "application/vnd.oci.image.config.v1+json";
    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    let server = Server::open();
    let bytes: &[u8] = &wasm(50);
    server.put_blob("things", b"{}").await;
    server.put_blob("things", bytes).await;
    for (manifest, says) in [
        (
            manifest_of(IMAGE, b"{}", &[(TAR, bytes)]),
            "a container image, not a plugin",
        ),
        (
            manifest_of(IMAGE, b"{}", &[(WASM, bytes)]),
            "a container image, not a plugin",
        ),
        (
            manifest_of(CONFIG, b"{}", &[(TAR, bytes)]),
            "its layer is \"application/vnd.oci.image.layer",
        ),
        (manifest_of(CONFIG, b"{}", &[]), "it has 0 layers"),
        (
            manifest_of(CONFIG, b"{}", &[(WASM, bytes), (WASM, bytes)]),
            "it has 2 layers",
        ),
        (
            manifest_of(
                "application/vnd.cncf.helm.config.v1+json",
                b"{}",
                &[(WASM, bytes)],
            ),
            "its configuration is \"application/vnd.cncf.helm",
        ),
    ] {
        server.put_manifest("things", "1", &manifest).await;
        let content = rejected(pull(&server.address, "things:1").await);
        assert!(matches!(content, Rejected::Kind { .. }), "{content:?}");
        assert!(content.to_string().contains(says), "{content}");
        assert!(content.to_string().contains("\n\nhint: "), "{content}");
    }
    let inner = manifest_of(CONFIG, b"{}", &[(WASM, bytes)]);
    let inner = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": server.put_manifest("things", "inner", &inner).await,
        "size": inner.len(),
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [inner],
    });
    let index = index.to_string().into_bytes();
    server.put_manifest("things", "index", &index).await;
    let content = rejected(pull(&server.address, "things:index").await);
    assert!(
        content.to_string().contains("index of several manifests"),
        "{content}"
    );
}

#[tokio::test]
async fn a_pin_holds_when_the_tag_moves() {
    let server = Server::open();
    let first = push(&server.address, "canary:1", &wasm(100)).await;
    let reference = place(&server.address, "canary:1");
    let pin = plain().resolve(&reference).await.expect("resolved");
    let second = push(&server.address, "canary:1", &wasm(200)).await;
    assert_ne!(first, second);
    let pinned = plain().pull(&reference, Some(&pin)).await.expect("pulled");
    assert_eq!((pinned.manifest_digest, pinned.wasm), (first, wasm(100)));
    let moved = plain().pull(&reference, None).await.expect("pulled");
    assert_eq!((moved.manifest_digest, moved.wasm), (second, wasm(200)));
}

#[tokio::test]
async fn what_is_not_there() {
    let server = Server::open();
    push(&server.address, "canary:1", &wasm(100)).await;
    let none = format!("canary@{}", digest(b"nothing"));
    for rest in ["canary:2", "nobody:1", &none] {
        let reference = place(&server.address, rest);
        let error = plain().pull(&reference, None).await.expect_err(rest);
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
        assert!(
            error.to_string().contains(&reference.to_string()),
            "{error}"
        );
        let error = plain().resolve(&place(&server.address, "canary:2")).await;
        assert!(
            matches!(error, Err(RegistryError::NotFound { .. })),
            "{error:?}"
        );
    }
    // A manifest whose layer is gone.
    let proxy = Proxy::start(
        &server.address,
        whenever("/blobs/", || Trouble::Says(404, &[], String::new())),
    )
    .await;
    let error = pull(&proxy.address, "canary:1").await;
    assert!(
        matches!(error, Err(RegistryError::NotFound { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn requests_that_make_no_sense_are_not_sent() {
    let server = Server::open();
    let proxy = Proxy::start(&server.address, |_| Trouble::None).await;
    let (one, other) = (digest(b"1"), digest(b"2"));
    let both = place(&proxy.address, &format!("canary:1@{one}"));
    for pin in [other.as_str(), "1", ""] {
        let error = plain().pull(&both, Some(pin)).await;
        assert!(
            matches!(error, Err(RegistryError::Reference { .. })),
            "{error:?}"
        );
    }
    for rest in [format!("canary@{one}"), format!("canary:1@{one}")] {
        let reference = place(&proxy.address, &rest);
        let error = plain()
            .push(&reference, &artifact(wasm(9)), Layout::Cncf)
            .await;
        assert!(
            matches!(error, Err(RegistryError::Reference { .. })),
            "{error:?}"
        );
    }
    for digest in ["", "sha256:1", "../../other/manifests/1"] {
        let error = plain().signatures(&both, digest).await;
        assert!(matches!(error, Err(RegistryError::Reference { .. })));
        let error = plain().attach(&both, digest, b"", "").await;
        assert!(matches!(error, Err(RegistryError::Reference { .. })));
    }
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

#[test]
fn a_pull_can_be_spawned() {
    fn is_send<T: Send>(_: T) {}
    let (registry, reference) = (plain(), place("127.0.0.1:1", "canary:1"));
    is_send(registry.pull(&reference, None));
    is_send(registry.attach(&reference, "", b"", ""));
}

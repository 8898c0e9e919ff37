//! Registries, and things before them, that are broken or hostile.

use std::time::Duration;

use engine::supply::registry::Options;
use engine::supply::registry::error::{RegistryError, Rejected};
use engine::supply::registry::manifest::{Layout, digest};
use serde_json::{Value, json};

use super::proxy::{Proxy, Trouble};
use super::server::Server;
use super::{
    LIMIT, LONG, artifact, blobs_asked, manifest_of, options, place, plain, pull, push, rejected,
    wasm, whenever, with,
};

#[tokio::test]
async fn another_manifest_under_a_digest_is_refused() {
    let server = Server::open();
    let pin = push(&server.address, "canary:1", &wasm(100)).await;
    let other = push(&server.address, "canary:2", &wasm(200)).await;
    let swapped = server.get("canary", "manifests/2").await.to_vec();
    let proxy = Proxy::start(
        &server.address,
        whenever("GET /v2/canary/manifests", move || {
            Trouble::Other(swapped.clone())
        }),
    )
    .await;
    for (rest, pinned) in [
        ("canary:1".to_owned(), Some(pin.as_str())),
        (format!("canary@{pin}"), None),
    ] {
        let reference = place(&proxy.address, &rest);
        let content = rejected(plain().pull(&reference, pinned).await);
        let expected = Rejected::Digest {
            what: "manifest",
            expected: pin.clone(),
            found: other.clone(),
        };
        assert_eq!(content, expected);
        assert!(content.to_string().contains(&pin) && content.to_string().contains(&other));
    }
    assert_eq!(blobs_asked(&proxy), 0);
}

#[tokio::test]
async fn a_changed_byte_is_noticed_and_not_tried_again() {
    let server = Server::open();
    let wasm = wasm(LONG);
    push(&server.address, "canary:1", &wasm).await;
    let mut changed = wasm.clone();
    changed[LONG / 2] ^= 1;
    let found = digest(&changed);
    let proxy = Proxy::start(
        &server.address,
        whenever("/blobs/", move || Trouble::Other(changed.clone())),
    )
    .await;
    let content = rejected(pull(&proxy.address, "canary:1").await);
    let expected = Rejected::Digest {
        what: "layer",
        expected: digest(&wasm),
        found,
    };
    assert_eq!(content, expected);
    assert_eq!(blobs_asked(&proxy), 1);
}

#[tokio::test]
async fn a_plugin_over_the_limit_is_not_even_asked_for() {
    let server = Server::open();
    let limit = usize::try_from(LIMIT).expect("small");
    push(&server.address, "canary:fits", &wasm(limit)).await;
    push(&server.address, "canary:large", &wasm(limit + 1)).await;
    let proxy = Proxy::start(&server.address, |_| Trouble::None).await;
    let content = rejected(pull(&proxy.address, "canary:large").await);
    let expected = Rejected::TooLarge {
        what: "layer",
        bytes: LIMIT + 1,
        max: LIMIT,
    };
    assert_eq!(content, expected);
    assert_eq!(blobs_asked(&proxy), 0);
    let fits = pull(&proxy.address, "canary:fits").await.expect("pulled");
    assert_eq!(fits.wasm.len(), limit);
    assert_eq!(blobs_asked(&proxy), 1);
}

/// A manifest that lies about the size of its layer.
async fn lie(server: &Server, layer: &[u8], size: usize) {
    server.put_blob("liar", b"{}").await;
    server.put_blob("liar", layer).await;
    let manifest = manifest_of(
        "application/vnd.wasm.config.v0+json",
        b"{}",
        &[("application/wasm", layer)],
    );
    let mut manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    manifest["layers"][0]["size"] = json!(size);
    let manifest = manifest.to_string().into_bytes();
    server.put_manifest("liar", "1", &manifest).await;
}

#[tokio::test]
async fn more_or_fewer_bytes_than_declared_are_refused() {
    let server = Server::open();
    let layer = wasm(1000);
    lie(&server, &layer, 999).await;
    let content = rejected(pull(&server.address, "liar:1").await);
    assert_eq!(
        content,
        Rejected::Overlong {
            what: "layer",
            expected: 999
        }
    );
    lie(&server, &layer, 1001).await;
    let content = rejected(pull(&server.address, "liar:1").await);
    assert_eq!(
        content,
        Rejected::Truncated {
            what: "layer",
            expected: 1001,
            found: 1000
        }
    );
    // The same from something between: well-formed, but short.
    push(&server.address, "canary:1", &layer).await;
    let proxy = Proxy::start(
        &server.address,
        whenever("/blobs/", || Trouble::Other(wasm(400))),
    )
    .await;
    let content = rejected(pull(&proxy.address, "canary:1").await);
    assert_eq!(
        content,
        Rejected::Truncated {
            what: "layer",
            expected: 1000,
            found: 400
        }
    );
    assert_eq!(blobs_asked(&proxy), 1);
}

#[tokio::test]
async fn an_endless_layer_is_cut_off_at_once() {
    let server = Server::open();
    push(&server.address, "canary:1", &wasm(1000)).await;
    let proxy = Proxy::start(&server.address, whenever("/blobs/", || Trouble::Endless)).await;
    let content = rejected(pull(&proxy.address, "canary:1").await);
    assert_eq!(
        content,
        Rejected::Overlong {
            what: "layer",
            expected: 1000
        }
    );
    assert_eq!(blobs_asked(&proxy), 1);
    // Sockets have buffers; ours keeps nothing beyond the declared bytes.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let poured = proxy.poured();
    assert!(poured < 8 << 20, "{poured} bytes");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(proxy.poured(), poured);
}

#[tokio::test]
async fn an_endless_manifest_is_not_read_to_its_end() {
    let server = Server::open();
    push(&server.address, "canary:1", &wasm(100)).await;
    let endless = whenever("/manifests/", || Trouble::Endless);
    let proxy = Proxy::start(&server.address, endless).await;
    let reference = place(&proxy.address, "canary:1");
    let refused = rejected(with(options()).pull(&reference, None).await);
    assert!(matches!(refused, Rejected::Endless { .. }), "{refused:?}");
}

/// Whatever it answers, and whether that is a yes or a no.
#[tokio::test]
async fn no_answer_is_read_without_a_limit() {
    const MOST: usize = 24 << 20;
    let server = Server::open();
    push(&server.address, "canary:1", &wasm(100)).await;
    for (part, status, says) in [
        ("/token", 200, "the token has more than 262144 bytes"),
        ("/token", 401, "no token"),
        ("/token", 500, "no token"),
        ("/v2/?", 401, "not authorized"),
        (
            "/manifests/",
            200,
            "the manifest has more than 4194304 bytes",
        ),
        ("/manifests/", 403, "403"),
        ("/manifests/", 404, "404"),
        ("/manifests/", 418, "418"),
        ("/manifests/", 500, "500"),
        ("/blobs/", 200, "goes on after the"),
        ("/blobs/", 400, "400"),
        ("/blobs/", 503, "503"),
        ("/blobs/uploads/", 202, "did not return a location"),
        ("/blobs/uploads/", 429, "429"),
    ] {
        // The proxy learns its own address when it is asked.
        let address = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
        let known = address.clone();
        let proxy = Proxy::start(&server.address, move |asked| {
            let line = asked.line.as_str();
            let door = line.ends_with("/v2/");
            if line.contains(part) || door && part == "/v2/?" {
                return Trouble::Pours(status, &[]);
            }
            if door && part == "/token" {
                let realm = format!(
                    "Bearer realm=\"http://{}/token\"",
                    known.get().expect("known")
                );
                let challenge: &'static [_] = vec![("www-authenticate", &*realm.leak())].leak();
                return Trouble::Pours(401, challenge);
            }
            if part == "/v2/?" {
                return Trouble::Pours(401, &[]);
            }
            Trouble::None
        })
        .await;
        address.set(proxy.address.clone()).expect("once");
        let reference = place(&proxy.address, "canary:1");
        let registry = with(options());
        let error = if part == "/blobs/uploads/" {
            let artifact = artifact(wasm(100));
            let pushed = registry.push(&reference, &artifact, Layout::Cncf);
            pushed.await.expect_err("refused")
        } else {
            let pulled = registry.pull(&reference, None);
            pulled.await.expect_err("refused")
        };
        let error = error.to_string();
        assert!(error.contains(says), "{part} {status}: {error}");
        assert!(error.len() < 1_000, "{part} {status}: {error}");
        let poured = proxy.poured();
        assert!(poured < MOST, "{part} {status}: {poured} bytes");
    }
}

#[tokio::test]
async fn a_server_that_stops_in_the_middle_does_not_hang_us() {
    let server = Server::open();
    push(&server.address, "canary:1", &wasm(LONG)).await;
    let registry = with(Options {
        stall_timeout: Duration::from_millis(150),
        ..options()
    });
    for (part, bytes) in [
        ("/blobs/", LONG / 2),
        ("/blobs/", 0),
        ("/manifests/", 10),
        ("/manifests/", 0),
    ] {
        let proxy = Proxy::start(
            &server.address,
            whenever(part, move || Trouble::Stall(bytes)),
        )
        .await;
        let reference = place(&proxy.address, "canary:1");
        let pulled = tokio::time::timeout(Duration::from_secs(3), registry.pull(&reference, None));
        let error = pulled
            .await
            .unwrap_or_else(|_| panic!("{part} {bytes}: it hangs"));
        let Err(RegistryError::Network { found, .. }) = error else {
            panic!("{error:?}");
        };
        // A layer may take long as a whole, but not in silence.
        assert!(
            part != "/blobs/" || found.contains("stopped answering"),
            "{found}"
        );
        let asked = proxy.asked();
        let times = asked.iter().filter(|line| line.contains(part)).count();
        assert_eq!(times, 1, "a stall is not tried again: {asked:?}");
    }
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let server = Server::open();
    push(&server.address, "canary:1", &wasm(LONG)).await;
    type Makes = fn() -> Trouble;
    let troubles: [(&str, Makes); 5] = [
        ("GET /v2/canary/manifests/", || {
            Trouble::Says(503, &[], "busy".to_owned())
        }),
        ("GET /v2/canary/blobs/", || {
            Trouble::Says(503, &[], String::new())
        }),
        ("GET /v2/canary/manifests/", || {
            Trouble::Says(
                429,
                &[],
                "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"slow\"}]}".to_owned(),
            )
        }),
        ("GET /v2/canary/manifests/", || Trouble::Reset),
        ("GET /v2/canary/blobs/", || Trouble::Cut(LONG / 2)),
    ];
    for (part, trouble) in troubles {
        for times in [2, usize::MAX] {
            let mut left = times;
            let proxy = Proxy::start(&server.address, move |asked| {
                if left == 0 || !asked.line.starts_with(part) {
                    return Trouble::None;
                }
                left -= 1;
                trouble()
            })
            .await;
            let pulled = pull(&proxy.address, "canary:1").await;
            let asked = proxy.asked();
            let tries = asked.iter().filter(|line| line.starts_with(part)).count();
            if times == 2 {
                assert_eq!(pulled.map(|p| p.wasm), Ok(wasm(LONG)));
                assert_eq!(tries, 3, "{asked:?}");
            } else {
                assert!(
                    matches!(pulled, Err(RegistryError::Network { .. })),
                    "{pulled:?}"
                );
                assert_eq!(tries, 4, "{asked:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_push_survives_passing_failures() {
    let server = Server::open();
    for part in [
        "POST ",
        "PATCH ",
        "PUT /v2/canary/blobs",
        "PUT /v2/canary/manifests",
    ] {
        let mut left = 2;
        let proxy = Proxy::start(&server.address, move |asked| {
            if left == 0 || !asked.line.starts_with(part) {
                return Trouble::None;
            }
            left -= 1;
            if left == 1 {
                Trouble::Reset
            } else {
                Trouble::Says(502, &[], String::new())
            }
        })
        .await;
        let pushed = push(&proxy.address, "canary:1", &wasm(LONG)).await;
        let pulled = pull(&server.address, "canary:1").await.expect("pulled");
        assert_eq!(pulled.manifest_digest, pushed, "{part}");
    }
}

#[tokio::test]
async fn what_a_registry_says_stays_short_and_on_one_line() {
    let server = Server::open();
    let loud = || {
        Trouble::Says(
            418,
            &[],
            format!("\x1b[31mred\nhint: pay\n{}", "!".repeat(10_000)),
        )
    };
    let proxy = Proxy::start(&server.address, whenever("/manifests/", loud)).await;
    let error = pull(&proxy.address, "canary:1").await;
    let Err(RegistryError::Network { found, .. }) = error else {
        panic!("{error:?}");
    };
    assert!(found.starts_with("418:  [31mred hint: pay !!!"), "{found}");
    assert_eq!(found.chars().count(), 200);
}

#[tokio::test]
async fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let error = pull(&address, "canary:1").await.expect_err("nobody");
    assert!(matches!(error, RegistryError::Network { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
}

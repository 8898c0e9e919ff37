//! Signatures beside a plugin, where cosign keeps them.

use engine::supply::registry::SignatureFound;
use engine::supply::registry::error::{RegistryError, Rejected};
use engine::supply::registry::manifest::digest;
use engine::supply::signature::{Claim, PrivateKey};
use serde_json::{Value, json};

use super::proxy::{Proxy, Trouble};
use super::server::Server;
use super::{place, plain, push, wasm, whenever};

fn claim(address: &str, manifest_digest: &str) -> Vec<u8> {
    let claim = Claim {
        repository: format!("{address}/canary"),
        manifest_digest: manifest_digest.to_owned(),
    };
    claim.payload()
}

/// What a caller does: a key, a claim, and the digest that is about to run.
fn is_signed(found: &[SignatureFound], key: &PrivateKey, manifest_digest: &str) -> bool {
    found.iter().any(|s| {
        key.public().verify(&s.payload, &s.signature)
            && Claim::read(&s.payload).is_ok_and(|c| c.manifest_digest == manifest_digest)
    })
}

#[tokio::test]
async fn signatures_are_added_found_and_verified() {
    let server = Server::open();
    let pushed = push(&server.address, "canary:1", &wasm(100)).await;
    let reference = place(&server.address, "canary:1");
    assert_eq!(plain().signatures(&reference, &pushed).await, Ok(vec![]));
    let (one, two, three) = (key(), key(), key());
    let payload = claim(&server.address, &pushed);
    let mut expected = vec![];
    for signer in [&one, &two] {
        let signature = signer.sign(&payload).expect("signed");
        let added = plain()
            .attach(&reference, &pushed, &payload, &signature)
            .await;
        assert_eq!(added, Ok(()));
        // Once more changes nothing.
        let added = plain()
            .attach(&reference, &pushed, &payload, &signature)
            .await;
        assert_eq!(added, Ok(()));
        expected.push(SignatureFound {
            payload: payload.clone(),
            signature,
        });
    }
    let found = plain()
        .signatures(&reference, &pushed)
        .await
        .expect("found");
    assert_eq!(found, expected);
    assert!(is_signed(&found, &one, &pushed) && is_signed(&found, &two, &pushed));
    assert!(!is_signed(&found, &three, &pushed));
}

fn key() -> PrivateKey {
    PrivateKey::generate().expect("a key")
}

#[tokio::test]
async fn a_signature_of_something_else_is_none() {
    let server = Server::open();
    let first = push(&server.address, "canary:1", &wasm(100)).await;
    let second = push(&server.address, "canary:2", &wasm(200)).await;
    let key = key();
    let payload = claim(&server.address, &first);
    let signature = key.sign(&payload).expect("signed");
    let reference = place(&server.address, "canary:2");
    let added = plain()
        .attach(&reference, &second, &payload, &signature)
        .await;
    assert_eq!(added, Ok(()));
    let found = plain()
        .signatures(&reference, &second)
        .await
        .expect("found");
    assert_eq!(found.len(), 1);
    assert!(key.public().verify(&found[0].payload, &found[0].signature));
    assert!(!is_signed(&found, &key, &second));
}

#[tokio::test]
async fn they_lie_where_and_as_cosign_writes_them() {
    let server = Server::open();
    let pushed = push(&server.address, "canary:1", &wasm(100)).await;
    let reference = place(&server.address, "canary:1");
    let payload = claim(&server.address, &pushed);
    let added = plain()
        .attach(&reference, &pushed, &payload, "c2lnbmF0dXJl")
        .await;
    assert_eq!(added, Ok(()));
    let read = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).expect("JSON") };
    let tag = pushed.replace(':', "-") + ".sig";
    let manifest = read(&server.get("canary", &format!("manifests/{tag}")).await);
    let config = manifest["config"]["digest"].as_str().expect("a digest");
    let config = server.get("canary", &format!("blobs/{config}")).await;
    let expected = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(&config),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": digest(&payload),
            "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": "c2lnbmF0dXJl"},
        }],
    });
    assert_eq!(manifest, expected);
    let config = read(&config);
    assert_eq!(
        config["rootfs"],
        json!({"type": "layers", "diff_ids": [digest(&payload)]})
    );
}

#[tokio::test]
async fn what_others_have_attached_is_kept() {
    let server = Server::open();
    let pushed = push(&server.address, "canary:1", &wasm(100)).await;
    let payload = claim(&server.address, &pushed);
    server.put_blob("canary", b"{}").await;
    server.put_blob("canary", &payload).await;
    server.put_blob("canary", b"something").await;
    let theirs = json!({
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": digest(&payload),
        "size": payload.len(),
        "annotations": {
            "dev.cosignproject.cosign/signature": "dGhlaXJz",
            "dev.sigstore.cosign/bundle": "{\"SignedEntryTimestamp\":\"\"}",
        },
    });
    let unknown = json!({"mediaType": "text/plain", "digest": digest(b"something"), "size": 9});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2},
        "layers": [theirs, unknown],
    });
    let tag = pushed.replace(':', "-") + ".sig";
    server
        .put_manifest("canary", &tag, manifest.to_string().as_bytes())
        .await;
    let reference = place(&server.address, "canary:1");
    let added = plain()
        .attach(&reference, &pushed, &payload, "b3Vycw==")
        .await;
    assert_eq!(added, Ok(()));
    let after = server.get("canary", &format!("manifests/{tag}")).await;
    let after: Value = serde_json::from_slice(&after).expect("JSON");
    assert_eq!(after["layers"][0], theirs);
    assert_eq!(after["layers"][1], unknown);
    let found = plain()
        .signatures(&reference, &pushed)
        .await
        .expect("found");
    let signatures: Vec<&str> = found.iter().map(|s| s.signature.as_str()).collect();
    assert_eq!(signatures, ["dGhlaXJz", "b3Vycw=="]);
}

#[tokio::test]
async fn signatures_have_limits_too() {
    let server = Server::open();
    let pushed = push(&server.address, "canary:1", &wasm(100)).await;
    let reference = place(&server.address, "canary:1");
    let attach = async |payload: &[u8], signature: &str| {
        let added = plain()
            .attach(&reference, &pushed, payload, signature)
            .await;
        assert_eq!(added, Ok(()));
    };
    let payload = claim(&server.address, &pushed);
    attach(&payload, "c2ln").await;
    let proxy = Proxy::start(
        &server.address,
        whenever("/blobs/", || Trouble::Other(vec![b' '; 10])),
    )
    .await;
    let through = place(&proxy.address, "canary:1");
    let error = plain().signatures(&through, &pushed).await;
    let Err(RegistryError::Rejected { content, .. }) = error else {
        panic!("{error:?}");
    };
    assert!(
        matches!(
            content,
            Rejected::Truncated {
                what: "signature",
                ..
            }
        ),
        "{content:?}"
    );
    let changed = [b' '].repeat(payload.len());
    let proxy = Proxy::start(
        &server.address,
        whenever("/blobs/", move || Trouble::Other(changed.clone())),
    )
    .await;
    let through = place(&proxy.address, "canary:1");
    let error = plain().signatures(&through, &pushed).await;
    let Err(RegistryError::Rejected { content, .. }) = error else {
        panic!("{error:?}");
    };
    assert!(
        matches!(
            content,
            Rejected::Digest {
                what: "signature",
                ..
            }
        ),
        "{content:?}"
    );

    attach(&[b' '; (64 << 10) + 1], "c2ln").await;
    let error = plain().signatures(&reference, &pushed).await;
    let Err(RegistryError::Rejected { content, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        content,
        Rejected::TooLarge {
            what: "signature",
            bytes: 65_537,
            max: 65_536
        }
    );
}

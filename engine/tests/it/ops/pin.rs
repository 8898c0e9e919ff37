//! `lock`, `update`, `verify`, `vendor`: what names mean, and what may change; the rest
//! is in `pins.rs`.

use engine::ops::Kind;
use engine::ops::pin::{PinRequest, lock, update, vendor, verify};

use crate::support::app::{TestApp, refused, texts};
use crate::support::guests::guest;

/// One plugin, `gate`, with the bytes of a guest.
fn with(guest_name: &str) -> (TestApp, PinRequest) {
    let test = TestApp::surrounded(<_>::default());
    test.write("gate.wasm", guest(guest_name));
    let names = test.write("plugins.toml", "[plugins]\ngate = \"gate.wasm\"\n");
    let request = PinRequest {
        plugins: Some(names),
        ..PinRequest::default()
    };
    (test, request)
}

fn digest(name: &str) -> String {
    format!("sha256:{}", engine::model::sha256_hex(&guest(name)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_written_once_and_holds() {
    let (test, request) = with("canary");
    let made = lock(&test.app, &request).await.expect("locked");
    assert!(made.written);
    assert_eq!(made.file, test.at("plugins.lock"));
    let again = lock(&test.app, &request).await.expect("locked");
    assert!(!again.written, "nothing has changed");
    let verified = verify(&test.app, &request, &[]).await.expect("compared");
    assert_eq!(verified.len(), 1);
    let pinned = verified[0].result.as_ref().expect("as pinned");
    assert_eq!((&*pinned.name, &pinned.wasm), ("gate", &digest("canary")));
    assert_eq!(vendor(&test.app, &request).await, Ok(None), "all are files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_permission_has_to_be_accepted() {
    // The hostile guest imports less than the canary.
    let (test, request) = with("hostile");
    lock(&test.app, &request).await.expect("locked");
    let before = std::fs::read(test.at("plugins.lock")).expect("written");
    test.write("gate.wasm", guest("canary"));
    refused(
        update(&test.app, &request, &[], false).await,
        Kind::Rejected,
        &[
            "+ may call rollout:metrics/metrics@0.1.0#query",
            "--accept-imports",
        ],
    );
    let after = std::fs::read(test.at("plugins.lock")).expect("written");
    assert_eq!(before, after);
    let updated = update(&test.app, &request, &[], true).await;
    assert!(updated.expect("accepted").written);
    let lock = std::fs::read_to_string(test.at("plugins.lock")).expect("written");
    assert!(lock.contains("#query"), "{lock}");
    // Fewer permissions need nobody's consent.
    test.heard();
    test.write("gate.wasm", guest("hostile"));
    let updated = update(&test.app, &request, &[], false).await;
    assert!(updated.expect("fewer").written);
    assert!(test.heard().contains("- no longer calls"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_or_a_file_that_is_not_there_is_told() {
    let (test, request) = with("canary");
    let unknown = texts(&["gatte"]);
    refused(
        verify(&test.app, &request, &unknown).await,
        Kind::Usage,
        &["gatte"],
    );
    let gone = PinRequest {
        plugins: Some(test.at("gone.toml")),
        ..request
    };
    refused(
        lock(&test.app, &gone).await,
        Kind::Usage,
        &["there is no", "gone.toml"],
    );
}

//! Keys and signatures, judged by openssl and by files that others have made.

use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use engine::supply::signature::{Claim, KeyError, PrivateKey, PublicKey};

use crate::support::folder;

/// Made by Python: `cryptography` for the key, `hashlib.scrypt` and PyNaCl for
/// the encryption.
const SIGSTORE_KEY: &str = include_str!("../keys/sigstore.key");
const COSIGN_KEY: &str = include_str!("../keys/cosign.key");
const COSIGN_PUB: &str = include_str!("../keys/cosign.pub");
const COSIGN_ID: &str = include_str!("../keys/cosign.id");
const CLAIM: &[u8] = include_bytes!("../keys/claim.json");
const CLAIM_SIG: &str = include_str!("../keys/claim.sig");
const PASSWORD: &str = "correct horse";

fn public() -> PublicKey {
    PublicKey::from_pem(COSIGN_PUB).expect("a key")
}

#[test]
fn keys_and_signatures_of_others() {
    assert_eq!(public().to_pem(), COSIGN_PUB);
    assert_eq!(public().id(), COSIGN_ID.trim());
    assert!(public().verify(CLAIM, CLAIM_SIG));
    for text in [SIGSTORE_KEY, COSIGN_KEY] {
        let key = PrivateKey::from_pem(text, PASSWORD).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(key.public(), public());
        let signature = key.sign(CLAIM).expect("signed");
        assert!(public().verify(CLAIM, &signature));
    }
    for password in ["", "correct horse ", "Correct horse"] {
        let error = PrivateKey::from_pem(SIGSTORE_KEY, password).err();
        assert_eq!(error, Some(KeyError::Password));
    }
}

#[test]
fn a_key_of_our_own_comes_back() {
    let key = PrivateKey::generate().expect("a key");
    for password in ["", "p\u{e4}ssword"] {
        let text = key.to_encrypted_pem(password).expect("sealed");
        assert!(text.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"));
        assert!(text.lines().all(|line| line.len() <= 64));
        let again = PrivateKey::from_pem(&text, password).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(again.public(), key.public());
        assert_eq!(
            PrivateKey::from_pem(&text, "wrong").err(),
            Some(KeyError::Password)
        );
        // Another salt and nonce every time.
        assert_ne!(text, key.to_encrypted_pem(password).expect("sealed"));
    }
    let public = PublicKey::from_pem(&key.public().to_pem()).expect("a key");
    assert_eq!(public, key.public());
}

#[test]
fn what_is_no_signature() {
    let key = PrivateKey::generate().expect("a key");
    let signature = key.sign(CLAIM).expect("signed");
    assert!(key.public().verify(CLAIM, &signature));
    assert!(!public().verify(CLAIM, &signature), "another key");
    assert!(
        !key.public().verify(&CLAIM[1..], &signature),
        "another text"
    );
    assert!(!key.public().verify(CLAIM, ""));
    assert!(!key.public().verify(CLAIM, "%%%"));
    assert!(!key.public().verify(CLAIM, &format!("A{signature}")));
    let der = BASE64_STANDARD.decode(&signature).expect("base64");
    for index in 0..der.len() {
        let mut changed = der.clone();
        changed[index] ^= 1;
        assert!(
            !key.public().verify(CLAIM, &BASE64_STANDARD.encode(changed)),
            "byte {index}"
        );
    }
    assert!(
        !key.public()
            .verify(CLAIM, &BASE64_STANDARD.encode([&der[..], &[0]].concat()))
    );
}

/// Runs openssl in a folder; gives whether it was content.
fn openssl(folder: &tempfile::TempDir, arguments: &str) -> bool {
    let output = Command::new("openssl")
        .current_dir(folder.path())
        .args(arguments.split(' '))
        .output()
        .expect("openssl runs");
    output.status.success()
}

#[test]
fn openssl_and_we_agree() {
    let folder = folder();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("text"), CLAIM).expect("written");

    let ours = PrivateKey::generate().expect("a key");
    let signature = ours.sign(CLAIM).expect("signed");
    let signature = BASE64_STANDARD.decode(signature).expect("base64");
    std::fs::write(file("ours.sig"), signature).expect("written");
    std::fs::write(file("ours.pub"), ours.public().to_pem()).expect("written");
    std::fs::write(file("other.pub"), COSIGN_PUB).expect("written");
    assert!(openssl(
        &folder,
        "dgst -sha256 -verify ours.pub -signature ours.sig text"
    ));
    assert!(!openssl(
        &folder,
        "dgst -sha256 -verify other.pub -signature ours.sig text"
    ));

    assert!(openssl(
        &folder,
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out their.key"
    ));
    assert!(openssl(
        &folder,
        "pkey -in their.key -pubout -out their.pub"
    ));
    assert!(openssl(
        &folder,
        "dgst -sha256 -sign their.key -out their.sig text"
    ));
    let read = |name: &str| std::fs::read_to_string(file(name)).expect("read");
    let signature = BASE64_STANDARD.encode(std::fs::read(file("their.sig")).expect("read"));
    let their = PublicKey::from_pem(&read("their.pub")).expect("a key");
    assert!(their.verify(CLAIM, &signature));
    let private = PrivateKey::from_pem(&read("their.key"), "").expect("plain PKCS#8");
    assert_eq!(private.public(), their);
}

#[test]
fn keys_of_other_kinds_are_named() {
    let folder = folder();
    let make = |arguments: &str| {
        assert!(
            openssl(&folder, &format!("{arguments} -out file")),
            "{arguments}"
        );
        std::fs::read_to_string(folder.path().join("file")).expect("read")
    };
    let private = |text: &str| {
        PrivateKey::from_pem(text, "")
            .expect_err("no key")
            .to_string()
    };
    let public = |text: &str| PublicKey::from_pem(text).expect_err("no key").to_string();
    let p384 = make("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384");
    let ed25519 = make("genpkey -algorithm ED25519");
    let sec1 = make("ecparam -name prime256v1 -genkey");
    let encrypted =
        make("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:x");
    std::fs::write(folder.path().join("p384"), &p384).expect("written");
    std::fs::write(folder.path().join("ed25519"), &ed25519).expect("written");
    let p384_public = make("pkey -in p384 -pubout");
    let ed25519_public = make("pkey -in ed25519 -pubout");
    for (error, says) in [
        (private(&p384), "not a private key on P-256"),
        (private(&ed25519), "not a private key on P-256"),
        (private(&sec1), "SEC 1"),
        (private(&encrypted), "not as cosign does it"),
        (
            private(COSIGN_PUB),
            "this is a public key, and a private one is wanted",
        ),
        (public(&p384_public), "not on the curve P-256"),
        (public(&ed25519_public), "not on the curve P-256"),
        (
            public(SIGSTORE_KEY),
            "this is a private key, and a public one is wanted",
        ),
        (
            public(&sec1),
            "this is not a public key but \"EC PARAMETERS\"",
        ),
        (
            public(&p384),
            "this is a private key, and a public one is wanted",
        ),
    ] {
        assert!(error.contains(says), "{error}");
        assert!(error.contains("\n\nhint: "), "{error}");
    }
}

/// A key file with some of its JSON replaced.
fn forged(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let body: String = SIGSTORE_KEY
        .lines()
        .filter(|l| !l.starts_with("---"))
        .collect();
    let json = BASE64_STANDARD.decode(body).expect("base64");
    let mut json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    change(&mut json);
    enclosed(json.to_string().as_bytes())
}

fn enclosed(bytes: &[u8]) -> String {
    let label = "ENCRYPTED SIGSTORE PRIVATE KEY";
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        BASE64_STANDARD.encode(bytes)
    )
}

#[test]
fn hostile_key_files() {
    let begun = std::time::Instant::now();
    for (n, r, p) in [
        (1_u64 << 40, 8, 1),
        (u64::MAX, 8, 1),
        (1 << 16, u64::from(u32::MAX), 1),
        (1 << 19, 8, 1),
        (1 << 16, 8, 5),
        (2, 1, u64::from(u32::MAX)),
    ] {
        let text = forged(|j| j["kdf"]["params"] = serde_json::json!({"N": n, "r": r, "p": p}));
        let error = PrivateKey::from_pem(&text, PASSWORD).expect_err("costly");
        assert!(matches!(error, KeyError::Costly { .. }), "{error:?}");
    }
    for (n, r, p) in [
        (0_u64, 8, 1),
        (3, 8, 1),
        (1 << 16, 0, 1),
        (1 << 16, 8, 0),
        (1 << 63, 0, 1),
    ] {
        let text = forged(|j| j["kdf"]["params"] = serde_json::json!({"N": n, "r": r, "p": p}));
        let error = PrivateKey::from_pem(&text, PASSWORD).expect_err("senseless");
        assert!(
            error.to_string().contains("are not valid"),
            "{n} {r} {p}: {error}"
        );
    }
    for (text, says) in [
        (String::new(), "not a key in PEM form"),
        ("hello".to_owned(), "not a key in PEM form"),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA".to_owned(),
            "not a key in PEM form",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PUBLIC KEY-----".to_owned(),
            "not a key in PEM form",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\n%\n-----END PRIVATE KEY-----".to_owned(),
            "damaged",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----".to_owned(),
            "not a private key on P-256",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----".to_owned(),
            "not a private key but \"CERTIFICATE\"",
        ),
        ("a".repeat(20_000), "at most 16384 bytes"),
        (enclosed(b"{"), "damaged"),
        (enclosed(b"{}"), "damaged"),
        (enclosed(&b"[".repeat(9_000)), "damaged"),
        (
            forged(|j| j["kdf"]["name"] = "argon2id".into()),
            "uses \"argon2id\", and only scrypt",
        ),
        (
            forged(|j| j["cipher"]["name"] = "aes".into()),
            "uses \"aes\", and only nacl/secretbox",
        ),
        (
            forged(|j| j["kdf"]["salt"] = "%".into()),
            "its salt is not base64",
        ),
        (
            forged(|j| j["cipher"]["nonce"] = "AAAA".into()),
            "its nonce does not have 24 bytes",
        ),
        (
            forged(|j| j["ciphertext"] = "AAAA".into()),
            "the password does not open",
        ),
        (forged(|j| j["kdf"]["params"]["N"] = (-1).into()), "damaged"),
    ] {
        let error = PrivateKey::from_pem(&text, PASSWORD)
            .expect_err(says)
            .to_string();
        assert!(error.contains(says), "{error}");
    }
    let elapsed = begun.elapsed();
    assert!(elapsed.as_secs() < 20, "{elapsed:?}");
}

#[test]
fn secrets_are_not_printed() {
    let key = PrivateKey::from_pem(SIGSTORE_KEY, PASSWORD).expect("a key");
    assert_eq!(
        format!("{key:?}"),
        format!("PrivateKey({})", COSIGN_ID.trim())
    );
}

#[test]
fn a_claim_is_written_as_cosign_writes_it() {
    let claim = Claim {
        repository: "registry.example/team/canary".to_owned(),
        manifest_digest: format!("sha256:{}", "0a".repeat(32)),
    };
    assert_eq!(claim.payload(), CLAIM);
    assert_eq!(Claim::read(CLAIM), Ok(claim));
}

#[test]
fn what_is_read_as_a_claim() {
    let text = String::from_utf8(CLAIM.to_vec()).expect("text");
    let others = [
        text.replace("null", "{\"creator\":\"someone\",\"timestamp\":1}"),
        text.replace(",\"optional\":null", ""),
        text.replace("\"type\"", "\"more\":[1],\"type\""),
        text.replace("{\"docker-reference\"", "{\"x\":null,\"docker-reference\""),
        text.replace(':', ": ").replace("sha256: ", "sha256:"),
    ];
    for other in others {
        assert_ne!(other, text);
        assert_eq!(Claim::read(other.as_bytes()), Claim::read(CLAIM), "{other}");
    }
    for (from, to, says) in [
        (
            "cosign container image signature",
            "atomic container signature",
            "its type is",
        ),
        ("sha256:0a", "sha512:0a", "not a sha256 digest"),
        ("sha256:0a", "sha256:0A", "not a sha256 digest"),
        ("sha256:0a", "sha256:", "not a sha256 digest"),
        ("\"docker-manifest-digest\"", "\"digest\"", "missing field"),
        ("\"type\"", "\"kind\"", "missing field"),
        (
            "{\"docker-manifest-digest\"",
            "{\"docker-manifest-digest\":\"sha256:00\",\"docker-manifest-digest\"",
            "duplicate field",
        ),
        ("null}", "null}x", "trailing characters"),
    ] {
        let other = text.replace(from, to);
        assert_ne!(other, text);
        let error = Claim::read(other.as_bytes()).expect_err(to).to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(Claim::read(&CLAIM[..CLAIM.len() - 1]).is_err());
    assert!(Claim::read(b"").is_err());
}

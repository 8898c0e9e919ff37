//! Signatures with a pair of keys, as cosign makes and reads them: ECDSA on P-256 with
//! SHA-256 over a short JSON text that names a manifest digest.
//!
//! Transparency logs and certificates are not used: whoever has the public key can verify
//! offline. Files of keys are those of `cosign generate-key-pair`.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use rustls::pki_types::alg_id::ECDSA_P256;
use rustls::sign::public_key_to_spki;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::registry::manifest::digest;
use super::registry::reference::is_digest;

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not a key, or not a key of the wanted kind.
    #[error("{found}\n\nhint: {hint}")]
    Kind {
        /// What was found instead.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// The password does not open the key, or the key was changed.
    #[error(
        "the password does not open this private key\n\nhint: use the password that the key was made with"
    )]
    Password,
    /// Opening the key would take too much memory or time.
    #[error(
        "opening this private key would take {found}, and the limit is {max}\n\nhint: cosign never asks for so much; make a new pair with `cosign generate-key-pair`"
    )]
    Costly {
        /// What the file asks for.
        found: String,
        /// What is allowed.
        max: String,
    },
    /// The operating system does not give random numbers.
    #[error(
        "the operating system does not give random numbers\n\nhint: check /dev/urandom on this machine"
    )]
    Random,
}

fn kind(found: impl Into<String>, hint: &'static str) -> KeyError {
    KeyError::Kind {
        found: found.into(),
        hint,
    }
}

const PUBLIC: &str = "PUBLIC KEY";
const PLAIN: &str = "PRIVATE KEY";
const SEC1: &str = "EC PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
/// The name before cosign 2.
const OLDER_ENCRYPTED: &str = "ENCRYPTED COSIGN PRIVATE KEY";
/// PKCS#8's own encryption, which cosign does not use.
const PKCS8_ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

const MAKE: &str = "make a pair with `cosign generate-key-pair`";
/// Largest key file; usual ones have about 700 bytes.
const KEY_BYTES_MAX: usize = 16 << 10;

/// Length of an uncompressed point of the curve.
const POINT_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;

/// A public key on P-256, which verifies signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    point: [u8; POINT_BYTES],
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl PublicKey {
    /// Reads the text of a `cosign.pub`.
    ///
    /// # Errors
    /// Why it is not a public key on P-256.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        const HINT: &str = "give the cosign.pub of a pair made with `cosign generate-key-pair`";
        let (label, der) = pem(text, HINT)?;
        match label {
            PUBLIC => {}
            PLAIN | SEC1 | ENCRYPTED | OLDER_ENCRYPTED | PKCS8_ENCRYPTED => {
                return Err(kind(
                    "this is a private key, and a public one is wanted",
                    HINT,
                ));
            }
            other => {
                return Err(kind(
                    format!("this is not a public key but {other:?}"),
                    HINT,
                ));
            }
        }
        // The point stands at the end. A key has only one DER form, so any other is refused.
        let key = der.last_chunk().map(|point| Self { point: *point });
        key.filter(|key| key.point[0] == UNCOMPRESSED && key.der() == der)
            .ok_or_else(|| {
                kind(
                    "this key is not on the curve P-256, or not in its usual form",
                    HINT,
                )
            })
    }

    /// The key as the text of a `cosign.pub`.
    #[must_use]
    pub fn to_pem(&self) -> String {
        to_pem(PUBLIC, &self.der())
    }

    /// `sha256:` and the digest of the key's DER form: a name for it.
    #[must_use]
    pub fn id(&self) -> String {
        digest(&self.der())
    }

    /// Whether the signature (base64 of DER) is of this key over these bytes.
    #[must_use]
    pub fn verify(&self, payload: &[u8], signature: &str) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.point);
        let signature = BASE64.decode(signature.trim());
        signature.is_ok_and(|signature| key.verify(payload, &signature).is_ok())
    }

    fn der(&self) -> Vec<u8> {
        public_key_to_spki(&ECDSA_P256, self.point).to_vec()
    }
}

/// A private key on P-256, which signs. Its memory is overwritten when it is dropped, and
/// it is never printed.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public().id())
    }
}

impl PrivateKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// If the operating system does not give random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|_| KeyError::Random)?;
        Self::from_pkcs8(Zeroizing::new(pkcs8.as_ref().to_vec()))
    }

    /// Reads the text of a `cosign.key`, or of a key in plain PKCS#8, which needs no
    /// password.
    ///
    /// # Errors
    /// Why it is not a private key on P-256, or that the password does not open it.
    pub fn from_pem(text: &str, password: &str) -> Result<Self, KeyError> {
        let (label, bytes) = pem(text, MAKE)?;
        let bytes = Zeroizing::new(bytes);
        match label {
            ENCRYPTED | OLDER_ENCRYPTED => Self::from_pkcs8(open(&bytes, password)?),
            PLAIN => Self::from_pkcs8(bytes),
            SEC1 | "EC PARAMETERS" => Err(kind(
                "this private key is in its older form, SEC 1",
                "turn it into PKCS#8 with `openssl pkcs8 -topk8 -nocrypt`",
            )),
            PKCS8_ENCRYPTED => Err(kind(
                "this private key is encrypted, but not as cosign does it",
                "decrypt it with `openssl pkcs8`, and import it with `cosign import-key-pair`",
            )),
            PUBLIC => Err(kind(
                "this is a public key, and a private one is wanted",
                "give the cosign.key of the pair",
            )),
            other => Err(kind(
                format!("this is not a private key but {other:?}"),
                MAKE,
            )),
        }
    }

    /// The key as the text of a `cosign.key`, encrypted with the password.
    ///
    /// # Errors
    /// If the operating system does not give random numbers.
    pub fn to_encrypted_pem(&self, password: &str) -> Result<String, KeyError> {
        Ok(to_pem(ENCRYPTED, &seal(&self.pkcs8, password)?))
    }

    /// The public key of the pair.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut point = [0; POINT_BYTES];
        point.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey { point }
    }

    /// A signature over these bytes, base64 of DER.
    ///
    /// # Errors
    /// If the operating system does not give random numbers.
    pub fn sign(&self, payload: &[u8]) -> Result<String, KeyError> {
        let signature = self.pair.sign(&SystemRandom::new(), payload);
        Ok(BASE64.encode(signature.map_err(|_| KeyError::Random)?))
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let (curve, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
        let pair = EcdsaKeyPair::from_pkcs8(curve, &pkcs8, &random).map_err(|why| {
            kind(
                format!("this is not a private key on P-256 together with its public key ({why})"),
                MAKE,
            )
        })?;
        Ok(Self { pkcs8, pair })
    }
}

/// What cosign keeps in a key file: the private key in a NaCl secretbox, whose key scrypt
/// makes from the password.
#[derive(Serialize, Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Cost,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Cost {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// The cost of scrypt that cosign uses.
const COST: Cost = Cost {
    n: 1 << 16,
    r: 8,
    p: 1,
};
/// Four times as much as the keys of cosign need.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
const PASSES_MAX: u32 = 4;
const KEY_BYTES: usize = 32;
const SCRYPT: &str = "scrypt";
const SECRETBOX: &str = "nacl/secretbox";

fn box_of(password: &str, salt: &[u8], cost: &Cost) -> Result<XSalsa20Poly1305, KeyError> {
    let memory = cost.n.saturating_mul(u64::from(cost.r)).saturating_mul(128);
    if memory > MEMORY_BYTES_MAX || cost.p > PASSES_MAX {
        return Err(KeyError::Costly {
            found: format!("{memory} bytes of memory, {} times", cost.p),
            max: format!("{MEMORY_BYTES_MAX} bytes, {PASSES_MAX} times"),
        });
    }
    let refused = || kind("its scrypt parameters are not valid", MAKE);
    if !cost.n.is_power_of_two() {
        return Err(refused());
    }
    // At most 21 after the check above.
    let log_n = u8::try_from(cost.n.trailing_zeros()).map_err(|_| refused())?;
    let parameters =
        scrypt::Params::new(log_n, cost.r, cost.p, KEY_BYTES).map_err(|_| refused())?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    scrypt::scrypt(password.as_bytes(), salt, &parameters, key.as_mut()).map_err(|_| refused())?;
    Ok(XSalsa20Poly1305::new(key.as_ref().into()))
}

fn open(sealed: &[u8], password: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let sealed: Sealed = serde_json::from_slice(sealed)
        .map_err(|e| kind(format!("this private key is damaged: {e}"), MAKE))?;
    for (name, known) in [(&sealed.kdf.name, SCRYPT), (&sealed.cipher.name, SECRETBOX)] {
        if name != known {
            return Err(kind(
                format!("this private key uses {name:?}, and only {known} is known here"),
                MAKE,
            ));
        }
    }
    let bytes = |text: &str, what: &str| {
        BASE64
            .decode(text)
            .map_err(|_| kind(format!("its {what} is not base64"), MAKE))
    };
    let salt = bytes(&sealed.kdf.salt, "salt")?;
    let nonce = bytes(&sealed.cipher.nonce, "nonce")?;
    let ciphertext = bytes(&sealed.ciphertext, "ciphertext")?;
    let nonce =
        <[u8; 24]>::try_from(nonce).map_err(|_| kind("its nonce does not have 24 bytes", MAKE))?;
    let opened = box_of(password, &salt, &sealed.kdf.params)?
        .decrypt(Nonce::from_slice(&nonce), ciphertext.as_slice());
    opened.map(Zeroizing::new).map_err(|_| KeyError::Password)
}

fn seal(secret: &[u8], password: &str) -> Result<Vec<u8>, KeyError> {
    let (mut salt, mut nonce) = ([0; 32], [0; 24]);
    let random = SystemRandom::new();
    random
        .fill(&mut salt)
        .and_then(|()| random.fill(&mut nonce))
        .map_err(|_| KeyError::Random)?;
    let ciphertext = box_of(password, &salt, &COST)?
        .encrypt(Nonce::from_slice(&nonce), secret)
        .map_err(|_| KeyError::Random)?;
    let sealed = Sealed {
        kdf: Kdf {
            name: SCRYPT.to_owned(),
            params: COST,
            salt: BASE64.encode(salt),
        },
        cipher: Cipher {
            name: SECRETBOX.to_owned(),
            nonce: BASE64.encode(nonce),
        },
        ciphertext: BASE64.encode(ciphertext),
    };
    // Texts and numbers always become JSON.
    Ok(serde_json::to_vec(&sealed).unwrap_or_else(|e| unreachable!("{e}")))
}

/// The label and the bytes of the first PEM block.
fn pem<'a>(text: &'a str, hint: &'static str) -> Result<(&'a str, Vec<u8>), KeyError> {
    if text.len() > KEY_BYTES_MAX {
        return Err(kind(
            format!(
                "a key has at most {KEY_BYTES_MAX} bytes, and this has {}",
                text.len()
            ),
            hint,
        ));
    }
    let block = || {
        let (_, rest) = text.split_once("-----BEGIN ")?;
        let (label, rest) = rest.split_once("-----")?;
        let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
        Some((label, body))
    };
    let (label, body) = block().ok_or_else(|| {
        kind(
            "this is not a key in PEM form, which begins with -----BEGIN",
            hint,
        )
    })?;
    let body: String = body.split_ascii_whitespace().collect();
    let bytes = BASE64
        .decode(body)
        .map_err(|e| kind(format!("this key is damaged: {e}"), hint))?;
    Ok((label, bytes))
}

fn to_pem(label: &str, bytes: &[u8]) -> String {
    let body = BASE64.encode(bytes);
    let mut text = format!("-----BEGIN {label}-----\n");
    for (index, c) in body.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text + &format!("\n-----END {label}-----\n")
}

/// What a signature says: that a manifest belongs to a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The repository, as `registry.example/team/canary`. Cosign does not check it when it
    /// verifies.
    pub repository: String,
    /// The manifest that was signed.
    pub manifest_digest: String,
}

/// Why a signed text is not a claim about a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the signed text is not a claim about a manifest: {0}\n\nhint: sign the manifest again, with `cosign sign --key` or `engine plugin sign`"
)]
pub struct ClaimError(String);

#[derive(Serialize, Deserialize)]
struct SimpleSigning {
    critical: Critical,
    /// Other tools may write anything here, and it is ignored.
    #[serde(default, skip_deserializing)]
    optional: (),
}

#[derive(Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

const CLAIM: &str = "cosign container image signature";

impl Claim {
    /// The text to sign, byte for byte as cosign writes it.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let claim = SimpleSigning {
            critical: Critical {
                identity: Identity {
                    docker_reference: self.repository.clone(),
                },
                image: Image {
                    docker_manifest_digest: self.manifest_digest.clone(),
                },
                r#type: CLAIM.to_owned(),
            },
            optional: (),
        };
        // Texts always become JSON.
        serde_json::to_vec(&claim).unwrap_or_else(|e| unreachable!("{e}"))
    }

    /// Reads what was signed. Verify the signature first.
    ///
    /// # Errors
    /// Why the text is not a claim about a manifest.
    pub fn read(payload: &[u8]) -> Result<Self, ClaimError> {
        let read: SimpleSigning =
            serde_json::from_slice(payload).map_err(|e| ClaimError(e.to_string()))?;
        let Critical {
            identity,
            image,
            r#type,
        } = read.critical;
        if r#type != CLAIM {
            return Err(ClaimError(format!(
                "its type is {:?}, not {CLAIM:?}",
                r#type
            )));
        }
        let digest = image.docker_manifest_digest;
        if !is_digest(&digest) {
            return Err(ClaimError(format!("{digest:?} is not a sha256 digest")));
        }
        Ok(Self {
            repository: identity.docker_reference,
            manifest_digest: digest,
        })
    }
}

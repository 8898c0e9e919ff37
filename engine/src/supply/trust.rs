//! Who signed a plugin: the chain from a key to the bytes that run. Pure.

use serde::{Deserialize, Serialize};

use super::registry::manifest::digest;
use super::signature::{Claim, PublicKey};

/// The proof of who signed some bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Proof {
    /// The registry's manifest, byte for byte; `None` for a file, whose signatures
    /// are of its own bytes.
    pub manifest: Option<String>,
    /// The signatures that were found.
    pub signatures: Vec<Signed>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The text that was signed; empty for the bytes of a file.
    pub payload: String,
    /// The signature: ECDSA over P-256 with SHA-256, DER, Base64.
    pub signature: String,
}

impl Proof {
    /// The first of these keys that has signed the bytes.
    ///
    /// key → payload → digest of the manifest → the manifest → digest of the
    /// bytes → the bytes; every arrow is checked here, so that the place where the
    /// proof was kept need not be trusted.
    ///
    /// # Errors
    /// Says why none of them has.
    pub fn signer<'k>(&self, bytes: &[u8], keys: &'k [PublicKey]) -> Result<&'k PublicKey, String> {
        if self.signatures.is_empty() {
            return Err("it is not signed".to_owned());
        }
        let signed_for = match &self.manifest {
            Some(manifest) => {
                let layer = digest(bytes);
                if !layers(manifest).contains(&layer) {
                    return Err(format!("its manifest is not about {layer}"));
                }
                Some(digest(manifest.as_bytes()))
            }
            None => None,
        };
        let mut why = "none of the keys that may sign it has signed it".to_owned();
        for signed in &self.signatures {
            let payload = match &signed_for {
                Some(_) => signed.payload.as_bytes(),
                None => bytes,
            };
            let Some(key) = keys.iter().find(|k| k.verify(payload, &signed.signature)) else {
                continue;
            };
            let Some(manifest) = &signed_for else {
                return Ok(key);
            };
            match Claim::read(payload) {
                Ok(claim) if claim.manifest_digest == *manifest => return Ok(key),
                Ok(claim) => {
                    why = format!(
                        "what is signed is {}, and this is {manifest}",
                        claim.manifest_digest
                    );
                }
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }
}

/// Digests of the layers in a manifest.
fn layers(manifest: &str) -> Vec<String> {
    let manifest: serde_json::Value = serde_json::from_str(manifest).unwrap_or_default();
    let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
    let digests = layers.iter().filter_map(|l| l["digest"].as_str());
    digests.map(ToOwned::to_owned).collect()
}

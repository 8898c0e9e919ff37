//! Plugins in OCI registries, where container images are too, with the same
//! credentials.
//!
//! What is pulled is checked against digests and limits before it is returned. The
//! caller says which digest to expect (from a lock file or a signature). Nothing
//! is cached here.

use crate::supply::{TEXT_BYTES_MAX, files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::clock::Clock;
use crate::model::network::Network;
use session::{Means, Purpose, Session};

mod credentials;
pub mod error;
pub mod manifest;
pub mod reference;
mod session;

use error::RegistryError;
use manifest::{Artifact, Layout};
use reference::Reference;

/// How to reach registries.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of `config.json` with the credentials, usually `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Certificates (PEM) of authorities that are trusted in addition to those of
    /// this machine.
    pub ca_files: Vec<PathBuf>,
    /// The proxy, if registries are reached through one.
    pub network: Network,
    /// Do without TLS. Only for registries on this machine; all others are refused.
    pub plain_http: bool,
    /// Largest plugin that is pulled, bytes.
    pub limit_bytes: u64,
    /// Timeout of the connection.
    pub connect_timeout: Duration,
    /// Longest time without a byte. A whole answer may take as long, and one second
    /// more for each 32 KiB.
    pub stall_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            docker_config: None,
            ca_files: vec![],
            network: Network::default(),
            plain_http: false,
            limit_bytes: 16 << 20,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// A plugin from a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The digest to pin.
    pub manifest_digest: String,
    /// The bytes of the manifest.
    pub manifest: String,
    /// The component.
    pub wasm: Vec<u8>,
    /// Digest of the component.
    pub wasm_digest: String,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A signature that was found, and is not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureFound {
    /// What was signed.
    pub payload: Vec<u8>,
    /// The signature, base64 of DER.
    pub signature: String,
}

/// Pulls and pushes plugins.
pub struct Registry {
    means: Means,
    limit_bytes: u64,
}

impl Registry {
    /// Reads the certificates; makes no connection.
    pub fn new(options: Options, clock: Arc<dyn Clock>) -> Result<Self, RegistryError> {
        // The client uses the process's default cryptography. An error means that it
        // is set already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut certificates = vec![];
        for file in &options.ca_files {
            certificates.append(&mut read_certificates(file)?);
        }
        let distrusts = |found: String| RegistryError::File {
            file: "the certificates that this machine trusts".to_owned(),
            found,
            hint: "install the package ca-certificates".to_owned(),
        };
        // The client would panic without a certificate.
        if rustls_native_certs::load_native_certs().certs.is_empty() {
            return Err(distrusts("there are none".to_owned()));
        }
        let client = session::client(&options, &certificates)
            .map_err(|e| distrusts(session::innermost(&e)))?;
        Ok(Self {
            limit_bytes: options.limit_bytes,
            means: Means {
                client,
                docker_config: options.docker_config,
                plain_http: options.plain_http,
                stall_timeout: options.stall_timeout,
                clock,
            },
        })
    }

    /// The digest of the manifest that the reference means now.
    pub async fn resolve(&self, reference: &Reference) -> Result<String, RegistryError> {
        let session = self.open(reference, Purpose::Pull).await?;
        session.resolve(wanted(reference, None)?).await
    }

    /// Fetches a plugin. With `pinned`, the digest of a manifest, fetches that one,
    /// wherever the tag points now.
    pub async fn pull(
        &self,
        reference: &Reference,
        pinned: Option<&str>,
    ) -> Result<Pulled, RegistryError> {
        let wanted = wanted(reference, pinned)?;
        let session = self.open(reference, Purpose::Pull).await?;
        let bytes = session.manifest(wanted).await?;
        let found = manifest::plugin(&bytes, self.limit_bytes).map_err(|c| session.rejected(c))?;
        let wasm = session.blob(&found.layer, "layer").await?;
        Ok(Pulled {
            manifest_digest: manifest::digest(&bytes),
            // It was parsed as JSON before.
            manifest: String::from_utf8_lossy(&bytes).into_owned(),
            wasm,
            wasm_digest: found.layer.digest,
            annotations: found.annotations,
        })
    }

    /// Pushes a plugin under the reference's tag, and returns the digest of its manifest.
    pub async fn push(
        &self,
        reference: &Reference,
        artifact: &Artifact,
        layout: Layout,
    ) -> Result<String, RegistryError> {
        let (Some(tag), None) = (reference.tag(), reference.digest()) else {
            return Err(RegistryError::Reference {
                reference: reference.to_string(),
                found: "a plugin is pushed to a tag, not to a digest".to_owned(),
                hint: "write it as oci://registry/repository:tag",
            });
        };
        let session = self.open(reference, Purpose::Push).await?;
        let written = manifest::write(artifact, layout);
        session.put_blob(&artifact.wasm).await?;
        session.put_blob(&written.config).await?;
        session.put_manifest(&written.manifest, tag).await?;
        Ok(manifest::digest(&written.manifest))
    }

    /// The signatures of a manifest in the reference's repository, where cosign keeps
    /// them.
    pub async fn signatures(
        &self,
        reference: &Reference,
        manifest_digest: &str,
    ) -> Result<Vec<SignatureFound>, RegistryError> {
        let tag = signature_tag(reference, manifest_digest)?;
        let session = self.open(reference, Purpose::Pull).await?;
        let Some(manifest) = signed(&session, &tag).await? else {
            return Ok(vec![]);
        };
        let layers = manifest::signatures(&manifest).map_err(|c| session.rejected(c))?;
        let mut found = vec![];
        for (layer, signature) in layers {
            found.push(SignatureFound {
                payload: session.blob(&layer, "signature").await?,
                signature,
            });
        }
        Ok(found)
    }

    /// Adds a signature to those of a manifest. If two processes do this at the same
    /// time, one signature may be lost; registries have no operation that prevents it.
    pub async fn attach(
        &self,
        reference: &Reference,
        manifest_digest: &str,
        payload: &[u8],
        signature: &str,
    ) -> Result<(), RegistryError> {
        let tag = signature_tag(reference, manifest_digest)?;
        let session = self.open(reference, Purpose::Push).await?;
        let before = signed(&session, &tag).await?;
        let written = manifest::with_signature(before.as_deref(), payload, signature)
            .map_err(|c| session.rejected(c))?;
        let Some(written) = written else {
            return Ok(());
        };
        session.put_blob(payload).await?;
        session.put_blob(&written.config).await?;
        session.put_manifest(&written.manifest, &tag).await
    }

    async fn open<'a>(
        &'a self,
        reference: &'a Reference,
        purpose: Purpose,
    ) -> Result<Session<'a>, RegistryError> {
        Session::open(&self.means, reference, purpose).await
    }
}

/// The manifest of the signatures under that tag; `None` if there is none.
async fn signed(session: &Session<'_>, tag: &str) -> Result<Option<Vec<u8>>, RegistryError> {
    match session.manifest(tag).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(RegistryError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The tag under which cosign keeps the signatures of a manifest.
fn signature_tag(reference: &Reference, manifest_digest: &str) -> Result<String, RegistryError> {
    if reference::is_digest(manifest_digest) {
        return Ok(format!("{}.sig", manifest_digest.replace(':', "-")));
    }
    Err(RegistryError::Reference {
        reference: reference.to_string(),
        found: format!("{manifest_digest:?} is not the digest of a manifest"),
        hint: "a digest is sha256: and 64 lower-case hexadecimal digits",
    })
}

/// What to ask for: the pin, else the digest, else the tag.
fn wanted<'a>(reference: &'a Reference, pinned: Option<&'a str>) -> Result<&'a str, RegistryError> {
    let complain = |found| RegistryError::Reference {
        reference: reference.to_string(),
        found,
        hint: "pin the digest that the reference means, or remove one of the two",
    };
    match (pinned, reference.digest(), reference.tag()) {
        (Some(pin), _, _) if !reference::is_digest(pin) => Err(complain(format!(
            "it is pinned to {pin:?}, which is not a sha256 digest"
        ))),
        (Some(pin), Some(digest), _) if pin != digest => {
            Err(complain(format!("it is pinned to another digest, {pin}")))
        }
        (Some(found), _, _) | (None, Some(found), _) | (None, None, Some(found)) => Ok(found),
        (None, None, None) => Err(complain("it has neither a tag nor a digest".to_owned())),
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let fail = |found: String| RegistryError::File {
        file: file.display().to_string(),
        found,
        hint: "give a file with certificates in PEM form (-----BEGIN CERTIFICATE-----)".to_owned(),
    };
    let pem = files::read(file, TEXT_BYTES_MAX).map_err(|e| fail(e.to_string()))?;
    let mut certificates = vec![];
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| fail(e.to_string()))?;
        // Here the file can still be named.
        let mut roots = rustls::RootCertStore::empty();
        let checked = roots.add(certificate.clone());
        checked.map_err(|e| fail(e.to_string()))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(fail("there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}

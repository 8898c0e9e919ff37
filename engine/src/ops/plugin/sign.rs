//! Makes pairs of keys, and signs plugins.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::is_name;
use crate::ops::app::App;
use crate::ops::compile::compile;
use crate::ops::pin::{PinRequest, access};
use crate::ops::{Error, Result};
use crate::spec::plugins::OCI;
use crate::supply::files;
use crate::supply::registry::Registry;
use crate::supply::registry::reference::Reference;
use crate::supply::signature::{Claim, PrivateKey};
use crate::supply::{self, Fetched, SupplyError, cache};

/// Asks a person a question and hides the answer; `None` if nobody can be asked.
pub type Ask<'a> = &'a (dyn Fn(&str) -> std::io::Result<Option<String>> + Sync);

/// A new pair of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// File of the private key.
    pub secret: PathBuf,
    /// File of the public key.
    pub public: PathBuf,
    /// Id of the public key.
    pub id: String,
}

/// Makes `PREFIX.key` and `PREFIX.pub`, in the formats of cosign.
///
/// # Errors
/// One of them exists already or cannot be written, or there is no password.
pub fn keys(app: &App, prefix: &str, ask: Ask<'_>) -> Result<Keys> {
    let (secret, public) = (
        PathBuf::from(format!("{prefix}.key")),
        PathBuf::from(format!("{prefix}.pub")),
    );
    for file in [&secret, &public] {
        if file.exists() {
            return Err(Error::usage(format!(
                "{} exists already, and a key is never overwritten; choose another name",
                file.display()
            )));
        }
    }
    let password = password(app, ask, "password for the new private key: ")?;
    let key = PrivateKey::generate()?;
    write_secret(&secret, key.to_encrypted_pem(&password)?.as_bytes())
        .map_err(|e| Error::usage(format!("failed to write {}: {e}", secret.display())))?;
    cache::write(&public, key.public().to_pem().as_bytes())?;
    Ok(Keys {
        secret,
        public,
        id: key.public().id(),
    })
}

fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)?.write_all(bytes)
}

/// What to sign, and with which key.
#[derive(Debug, Clone)]
pub struct SignRequest {
    /// A name of `plugins.toml`, an `oci://` reference, or a file.
    pub plugin: String,
    /// File of the private key.
    pub key: PathBuf,
    /// Certificates (PEM) of authorities that this machine does not trust otherwise.
    pub ca_files: Vec<PathBuf>,
    /// What may change about pinned plugins.
    pub pins: PinRequest,
}

/// A signature that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The exact reference that it signs in a registry, or the file that has it.
    pub place: String,
    /// Id of the key that has signed.
    pub by: String,
}

/// Signs a plugin. In a registry the signature is kept beside the plugin, and beside
/// a file as `FILE.sig`.
///
/// The key or the plugin does not exist, the plugin is not the pinned one or not a
/// plugin, or the signature cannot be written.
pub async fn sign(app: &App, request: SignRequest, ask: Ask<'_>) -> Result<Signature> {
    let SignRequest {
        plugin,
        key,
        ca_files,
        pins,
    } = request;
    let key = private_key(app, &key, ask)?;
    let supply = match is_name(&plugin) {
        true => Some(pins.supply(app)?),
        false => None,
    };
    let (source, pinned) = match &supply {
        Some(supply) => {
            let source = supply.wanted(&plugin)?.source.clone();
            (source, supply.pinned(&plugin).cloned())
        }
        None => (plugin, None),
    };
    let as_pinned = |fetched: &Fetched| match &pinned {
        Some(pinned) => pinned.check(&source, &fetched.sha256),
        None => Ok(()),
    };
    let place = if source.starts_with(OCI) {
        pins.must_reach(&source)?;
        let reference: Reference = source.parse().map_err(SupplyError::from)?;
        let registry = match &supply {
            Some(supply) => supply.registry(&reference),
            None => supply::registry(&access(app), ca_files, &reference),
        };
        let registry = Arc::new(registry.map_err(SupplyError::from)?);
        let manifest = pinned.as_ref().and_then(|p| p.manifest.clone());
        let fetched = supply::pull(registry.clone(), reference.clone(), manifest).await?;
        as_pinned(&fetched)?;
        // Only a real plugin is signed.
        compile(app, &source, &fetched.wasm).await?;
        let manifest = fetched.manifest.unwrap_or_default();
        attach(&registry, &reference, &manifest, &key).await?;
        format!("{OCI}{}@{manifest}", reference.name())
    } else {
        let path = match &supply {
            Some(supply) => supply.at(&source),
            None => PathBuf::from(&source),
        };
        let file = supply::read_file(&path)?;
        as_pinned(&file)?;
        compile(app, &source, &file.wasm).await?;
        let place = supply::signature_of(&path);
        cache::write(&place, key.sign(&file.wasm)?.as_bytes())?;
        place.display().to_string()
    };
    Ok(Signature {
        place,
        by: key.public().id(),
    })
}

/// Signs a manifest and keeps the signature beside it.
pub(super) async fn attach(
    registry: &Registry,
    reference: &Reference,
    manifest: &str,
    key: &PrivateKey,
) -> Result<()> {
    let claim = Claim {
        repository: reference.name(),
        manifest_digest: manifest.to_owned(),
    };
    let payload = claim.payload();
    let signature = key.sign(&payload)?;
    let attached = registry.attach(reference, manifest, &payload, &signature);
    Ok(attached.await.map_err(SupplyError::from)?)
}

/// Reads a private key, with its password.
pub(super) fn private_key(app: &App, file: &Path, ask: Ask<'_>) -> Result<PrivateKey> {
    let wrong = |message: String| SupplyError::Key {
        file: file.display().to_string(),
        message,
    };
    let text = files::read_text(file, files::TEXT_BYTES_MAX).map_err(|e| wrong(e.to_string()))?;
    // A key without encryption needs no password.
    let password = if text.contains("ENCRYPTED") {
        password(app, ask, "password of the private key: ")?
    } else {
        String::new()
    };
    Ok(PrivateKey::from_pem(&text, &password).map_err(|e| wrong(e.to_string()))?)
}

/// The password of a private key: from the environment, or asked for.
fn password(app: &App, ask: Ask<'_>, question: &str) -> Result<String> {
    if let Some(password) = &app.surroundings.cosign_password {
        return Ok(password.clone());
    }
    ask(question)?.ok_or_else(|| {
        Error::usage(
            "the private key has a password, and nobody can be asked for it here\n\nhint: set COSIGN_PASSWORD",
        )
    })
}

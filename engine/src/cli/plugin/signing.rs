//! `engine plugin keys | sign`: who vouches for a plugin.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::PinArgs;
use super::registry::RegistryArgs;
use crate::cli::exit::Exit;
use crate::ops::Error;
use crate::ops::app::App;
use crate::ops::compile::compile;
use crate::ops::pin::PinRequest;
use crate::spec::plugins::{OCI, is_name};
use crate::supply::files;
use crate::supply::registry::Registry;
use crate::supply::registry::reference::Reference;
use crate::supply::signature::{Claim, PrivateKey};
use crate::supply::{self, Fetched, SupplyError, cache};

/// Make a pair of keys to sign plugins with, in the files that cosign uses
///
/// The password comes from COSIGN_PASSWORD, or is asked for.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plugin keys                  cosign.key (keep it secret) and cosign.pub
  engine plugin keys keys/platform")]
pub(super) struct KeysArgs {
    /// Files are called PREFIX.key and PREFIX.pub
    #[arg(default_value = "cosign")]
    prefix: String,
}

pub(super) fn keys(app: &App, args: KeysArgs) -> crate::ops::Result<Exit> {
    let (secret, public) = (
        PathBuf::from(format!("{}.key", args.prefix)),
        PathBuf::from(format!("{}.pub", args.prefix)),
    );
    for file in [&secret, &public] {
        if file.exists() {
            return Err(Error::usage(format!(
                "{} is there already; a key is never overwritten. Choose another name",
                file.display()
            )));
        }
    }
    let password = password(app, "password for the new private key: ")?;
    let key = PrivateKey::generate()?;
    write_secret(&secret, key.to_encrypted_pem(&password)?.as_bytes())
        .map_err(|e| Error::usage(format!("failed to write {}: {e}", secret.display())))?;
    cache::write(&public, key.public().to_pem().as_bytes())?;
    eprintln!(
        "{} is secret; {} is for everybody who verifies",
        secret.display(),
        public.display()
    );
    out!("{}", key.public().id());
    Ok(Exit::Done)
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

/// Sign a plugin, so that others can see who vouches for it
///
/// In a registry the signature is kept beside the plugin, as cosign does it. A
/// file gets it as FILE.sig, as `cosign sign-blob` writes it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plugin sign canary --key cosign.key                 the pinned one of plugins.toml
  engine plugin sign oci://registry.example/rollouts/canary:1.0.0 --key cosign.key
  engine plugin sign my-gate.wasm --key cosign.key           writes my-gate.wasm.sig")]
pub(super) struct SignArgs {
    /// A name of plugins.toml, an oci:// reference, or a file
    plugin: String,
    /// The private key, as `engine plugin keys` or cosign makes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    pins: PinArgs,
}

pub(super) async fn sign(app: &App, args: SignArgs) -> crate::ops::Result<Exit> {
    let pins = PinRequest::from(args.pins);
    let key = private_key(app, &args.key)?;
    let supply = match is_name(&args.plugin) {
        true => Some(pins.supply(app)?),
        false => None,
    };
    let (source, pinned) = match &supply {
        Some(supply) => {
            let source = supply.wanted(&args.plugin)?.source.clone();
            (source, supply.pinned(&args.plugin).cloned())
        }
        None => (args.plugin.clone(), None),
    };
    let as_pinned = |fetched: &Fetched| match &pinned {
        Some(pinned) => pinned.check(&source, &fetched.sha256),
        None => Ok(()),
    };
    if source.starts_with(OCI) {
        pins.must_reach(&source)?;
        let reference: Reference = source.parse().map_err(SupplyError::from)?;
        let registry = match &supply {
            Some(supply) => supply.registry(&reference),
            None => args.registry.client(app, &reference),
        };
        let registry = Arc::new(registry.map_err(SupplyError::from)?);
        let manifest = pinned.as_ref().and_then(|p| p.manifest.clone());
        let fetched = supply::pull(registry.clone(), reference.clone(), manifest).await?;
        as_pinned(&fetched)?;
        // Nobody should vouch for what is no plugin.
        compile(app, &source, &fetched.wasm).await?;
        let manifest = fetched.manifest.unwrap_or_default();
        attach(&registry, &reference, &manifest, &key).await?;
        out!("{OCI}{}@{manifest}", reference.name());
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
        out!("{}", place.display());
    }
    eprintln!("signed by {}", key.public().id());
    Ok(Exit::Done)
}

/// Signs a manifest and keeps the signature beside it.
pub(super) async fn attach(
    registry: &Registry,
    reference: &Reference,
    manifest: &str,
    key: &PrivateKey,
) -> crate::ops::Result<()> {
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
pub(super) fn private_key(app: &App, file: &Path) -> crate::ops::Result<PrivateKey> {
    let wrong = |message: String| SupplyError::Key {
        file: file.display().to_string(),
        message,
    };
    let text = files::read_text(file, files::TEXT_BYTES_MAX).map_err(|e| wrong(e.to_string()))?;
    // A key without encryption needs no password.
    let password = if text.contains("ENCRYPTED") {
        password(app, "password of the private key: ")?
    } else {
        String::new()
    };
    Ok(PrivateKey::from_pem(&text, &password).map_err(|e| wrong(e.to_string()))?)
}

fn password(app: &App, question: &str) -> crate::ops::Result<String> {
    if let Some(password) = &app.surroundings.cosign_password {
        return Ok(password.clone());
    }
    let terminal = console::Term::stderr();
    if !terminal.is_term() {
        return Err(Error::usage(
            "the private key has a password, and nobody can be asked for it here\n\nhint: put it into COSIGN_PASSWORD",
        ));
    }
    terminal.write_str(question)?;
    Ok(terminal.read_secure_line()?)
}

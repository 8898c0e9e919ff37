//! `engine plugin pull | push`: plugins in OCI registries.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::inspect::annotations;
use super::{Global, PinArgs, signing};
use crate::cli::exit::Exit;
use crate::ops::Error;
use crate::ops::app::App;
use crate::ops::compile::compile;
use crate::ops::pin::{PinRequest, access, by_name};
use crate::spec::plugins::OCI;
use crate::supply::registry::error::RegistryError;
use crate::supply::registry::manifest::{Artifact, Layout};
use crate::supply::registry::reference::Reference;
use crate::supply::{self, SupplyError, cache};

/// When every artefact was made, as far as registries are told: the same plugin
/// pushed twice has the same digest.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// How a registry is reached.
#[derive(Debug, Args)]
pub(super) struct RegistryArgs {
    /// Certificates (PEM) of an authority that this machine does not know
    #[arg(long = "ca", value_name = "FILE")]
    ca_files: Vec<PathBuf>,
}

impl RegistryArgs {
    /// A client and the reference it is for.
    pub(super) fn open(
        &self,
        app: &App,
        reference: &str,
    ) -> Result<(supply::registry::Registry, Reference), SupplyError> {
        let reference: Reference = reference.parse()?;
        Ok((self.client(app, &reference)?, reference))
    }

    /// A client.
    pub(super) fn client(
        &self,
        app: &App,
        reference: &Reference,
    ) -> Result<supply::registry::Registry, RegistryError> {
        supply::registry(&access(app), self.ca_files.clone(), reference)
    }
}

/// Fetch a plugin from a registry
///
/// A name of plugins.toml, or none for all of them, fetches what is pinned into
/// the cache. An oci:// reference is written to a file; it is checked against
/// its own digests and not run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plugin pull                                             fill the cache, as `cargo fetch` does
  engine plugin pull canary --output canary.wasm
  engine plugin pull oci://registry.example/rollouts/canary:1.0.0 --output canary.wasm")]
pub(super) struct PullArgs {
    /// A name of plugins.toml, or oci://REGISTRY/REPOSITORY:TAG
    plugin: Option<String>,
    /// Where to write it
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    pins: PinArgs,
}

pub(super) async fn pull(app: &App, args: PullArgs) -> crate::ops::Result<Exit> {
    let pins = PinRequest::from(args.pins);
    let named = match &args.plugin {
        Some(plugin) if plugin.starts_with(OCI) => {
            let (registry, reference) = args.registry.open(app, plugin)?;
            pins.must_reach(plugin)?;
            let fetched = supply::pull(Arc::new(registry), reference, None).await?;
            let Some(place) = args.output else {
                return Err(Error::usage(format!(
                    "{plugin} is there (sha256:{}); say where to write it with --output",
                    fetched.sha256
                )));
            };
            cache::write(&place, &fetched.wasm)?;
            eprintln!("{} is written", place.display());
            out!("{}", fetched.manifest.unwrap_or_default());
            out!("sha256:{}", fetched.sha256);
            return Ok(Exit::Done);
        }
        named => named,
    };
    let supply = pins.supply(app)?;
    let names = match named {
        Some(name) => vec![name.clone()],
        None if args.output.is_some() => {
            return Err(Error::usage("--output is for one plugin; name it"));
        }
        None => supply.plugins.plugins.keys().cloned().collect(),
    };
    for name in names {
        let fetched = by_name(&supply, &name).await?;
        if let Some(place) = &args.output {
            cache::write(place, &fetched.wasm)?;
        }
        out!("{name} sha256:{}", fetched.sha256);
    }
    Ok(Exit::Done)
}

/// Put a plugin into a registry
///
/// It is checked first. What it says of itself becomes annotations; the same
/// bytes always get the same digest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plugin push my-gate.wasm oci://registry.example/rollouts/my-gate:1.0.0
  engine plugin push my-gate.wasm oci://registry.example/rollouts/my-gate:1.0.0 --key cosign.key
  engine plugin push my-gate.wasm oci://127.0.0.1:5000/my-gate:dev --annotate org.opencontainers.image.revision=3f2a1")]
pub(super) struct PushArgs {
    /// The component
    file: PathBuf,
    /// oci://REGISTRY/REPOSITORY:TAG
    reference: String,
    /// An annotation beside those from the plugin itself
    #[arg(long = "annotate", value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// Sign it with this private key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Write the media types that Spin and Kubewarden write, for registries that
    /// refuse the newer ones
    #[arg(long)]
    compat_media_types: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) async fn push(app: &App, global: &Global, args: PushArgs) -> crate::ops::Result<Exit> {
    let (registry, reference) = args.registry.open(app, &args.reference)?;
    let key = args
        .key
        .as_deref()
        .map(|file| signing::private_key(app, file));
    let key = key.transpose()?;
    let file = supply::read_file(&args.file)?;
    let plugin = compile(app, &args.file.display().to_string(), &file.wasm).await?;
    let description = plugin.describe().await?;
    let mut about = BTreeMap::new();
    for (name, text) in [
        ("title", &description.name),
        ("version", &description.version),
        ("description", &description.summary),
    ] {
        about.insert(format!("org.opencontainers.image.{name}"), text.clone());
    }
    for annotation in annotations(&file.wasm) {
        if let Some(name) = annotation.oci {
            about.insert(format!("org.opencontainers.image.{name}"), annotation.text);
        }
    }
    for annotation in &args.annotations {
        let (name, text) = annotation
            .split_once('=')
            .ok_or_else(|| Error::usage(format!("--annotate {annotation} is not KEY=VALUE")))?;
        about.insert(name.to_owned(), text.to_owned());
    }
    let mut imports: Vec<String> = plugin.stubbed.clone();
    for permission in &plugin.permissions {
        let interface = permission.split('#').next().unwrap_or_default().to_owned();
        if !imports.contains(&interface) {
            imports.push(interface);
        }
    }
    imports.sort();
    let artifact = Artifact {
        wasm: file.wasm,
        exports: vec![plugin.world.clone()],
        imports,
        created: CREATED.to_owned(),
        annotations: about,
    };
    let layout = if args.compat_media_types {
        Layout::Older
    } else {
        Layout::Cncf
    };
    let pushed = registry.push(&reference, &artifact, layout).await;
    let manifest = pushed.map_err(SupplyError::from)?;
    let signed_by = match &key {
        Some(key) => {
            signing::attach(&registry, &reference, &manifest, key).await?;
            Some(key.public().id())
        }
        None => None,
    };
    let exact = format!("{OCI}{}@{manifest}", reference.name());
    if global.json {
        let value = json!({
            "reference": reference.to_string(), "manifest": manifest,
            "wasm": format!("sha256:{}", plugin.sha256), "signedBy": signed_by,
        });
        out!("{value}");
    } else {
        if let Some(key) = signed_by {
            eprintln!("signed by {key}");
        }
        out!("{exact}");
    }
    Ok(Exit::Done)
}

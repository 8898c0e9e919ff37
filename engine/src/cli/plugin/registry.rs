//! `engine plugin pull | push`: plugins in OCI registries.

use std::path::PathBuf;

use clap::Args;

use super::password;
use super::pins::PinArgs;
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::ops::app::App;
use crate::ops::plugin::registry::{self, PullRequest, Pulled, PushRequest};
use crate::supply::registry::manifest::Layout;
use crate::view;

/// How a registry is reached.
#[derive(Debug, Args)]
pub(super) struct RegistryArgs {
    /// Certificates (PEM) of an authority that this machine does not know
    #[arg(long = "ca", value_name = "FILE")]
    pub(super) ca_files: Vec<PathBuf>,
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

pub(super) async fn pull(app: &App, global: &Global, args: PullArgs) -> crate::ops::Result<Exit> {
    let request = PullRequest {
        plugin: args.plugin,
        output: args.output,
        ca_files: args.registry.ca_files,
        pins: args.pins.into(),
    };
    let mut all = vec![];
    let mut each = |pulled| match global.json {
        true => all.push(pulled),
        false => show(pulled),
    };
    registry::pull(app, request, &mut each).await?;
    if global.json {
        json!(view::plugin::Pull::from(&all[..]));
    }
    Ok(Exit::Done)
}

fn show(pulled: Pulled) {
    match pulled {
        Pulled::Name { name, sha256 } => out!("{name} sha256:{sha256}"),
        Pulled::Reference {
            file,
            manifest,
            sha256,
        } => {
            eprintln!("{} is written", file.display());
            out!("{manifest}");
            out!("sha256:{sha256}");
        }
    }
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
    #[arg(id = "component", value_name = "FILE")]
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
    let request = PushRequest {
        file: args.file,
        reference: args.reference,
        annotations: args.annotations,
        key: args.key,
        layout: match args.compat_media_types {
            true => Layout::Older,
            false => Layout::Cncf,
        },
        ca_files: args.registry.ca_files,
    };
    let pushed = registry::push(app, request, &password::ask).await?;
    if global.json {
        json!(view::plugin::Push::from(&pushed));
    } else {
        if let Some(key) = pushed.signed_by {
            eprintln!("signed by {key}");
        }
        out!("{}", pushed.exact);
    }
    Ok(Exit::Done)
}

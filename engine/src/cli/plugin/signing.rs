//! `engine plugin keys | sign`: who vouches for a plugin.

use std::path::PathBuf;

use clap::Args;

use super::password;
use super::pins::PinArgs;
use super::registry::RegistryArgs;
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::ops::app::App;
use crate::ops::plugin::sign::{self, SignRequest};
use crate::view;

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

pub(super) fn keys(app: &App, global: &Global, args: KeysArgs) -> crate::ops::Result<Exit> {
    let keys = sign::keys(app, &args.prefix, &password::ask)?;
    if global.json {
        json!(view::plugin::Keys::from(&keys));
        return Ok(Exit::Done);
    }
    eprintln!(
        "{} is secret; {} is for everybody who verifies",
        keys.secret.display(),
        keys.public.display()
    );
    out!("{}", keys.id);
    Ok(Exit::Done)
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

pub(super) async fn sign(app: &App, global: &Global, args: SignArgs) -> crate::ops::Result<Exit> {
    let request = SignRequest {
        plugin: args.plugin,
        key: args.key,
        ca_files: args.registry.ca_files,
        pins: args.pins.into(),
    };
    let signature = sign::sign(app, request, &password::ask).await?;
    if global.json {
        json!(view::plugin::Sign::from(&signature));
        return Ok(Exit::Done);
    }
    out!("{}", signature.place);
    eprintln!("signed by {}", signature.by);
    Ok(Exit::Done)
}

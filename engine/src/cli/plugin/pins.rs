//! `engine plugin lock | update | verify | vendor`: which bytes the names in
//! plugins.toml stand for.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::ops::Kind;
use crate::ops::app::App;
use crate::ops::pin::{self, LockFile, PinRequest, Verified};
use crate::view;

/// What may change about pinned plugins, as with cargo.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Plugins")]
pub(in crate::cli) struct PinArgs {
    /// Fail if plugins.lock would have to change [default where CI=true]
    #[arg(long)]
    locked: bool,
    /// Fetch nothing: use the cache and plugins.vendor
    #[arg(long)]
    offline: bool,
    /// Both --locked and --offline
    #[arg(long)]
    frozen: bool,
    /// Where plugins get their names, with plugins.lock beside it [default:
    /// plugins.toml, here or in a folder above]
    #[arg(long, value_name = "FILE")]
    plugins: Option<PathBuf>,
}

impl From<PinArgs> for PinRequest {
    fn from(args: PinArgs) -> Self {
        Self {
            locked: args.locked || args.frozen,
            offline: args.offline || args.frozen,
            plugins: args.plugins,
        }
    }
}

/// Pin what plugins.toml names and plugins.lock does not have yet
///
/// What is pinned stays as it is; what plugins.toml no longer names is removed. A file that
/// is not what was pinned is an error with both digests: `engine plugin update` takes it over.
#[derive(Debug, Args)]
pub(super) struct LockArgs {
    #[command(flatten)]
    pins: PinArgs,
}

/// Pin what the sources of plugins have now
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plugin update                       all of them
  engine plugin update canary
  engine plugin update canary --accept-imports   also if it may do more than before")]
pub(super) struct UpdateArgs {
    /// Only these plugins
    names: Vec<String>,
    /// Pin them also if they may do more than what was pinned
    #[arg(long)]
    accept_imports: bool,
    #[command(flatten)]
    pins: PinArgs,
}

/// Check that sources, digests, signatures and permissions are as pinned
///
/// Changes nothing. With a network it also sees tags that were moved.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Only these plugins
    names: Vec<String>,
    #[command(flatten)]
    pins: PinArgs,
}

/// Copy pinned plugins of registries into plugins.vendor, to commit or carry along
///
/// With that folder in place `--offline` needs no registry and no cache.
#[derive(Debug, Args)]
pub(super) struct VendorArgs {
    #[command(flatten)]
    pins: PinArgs,
}

pub(super) async fn lock(app: &App, global: &Global, args: LockArgs) -> crate::ops::Result<Exit> {
    let lock = pin::lock(app, &args.pins.into()).await?;
    Ok(tell(global, &lock))
}

pub(super) async fn update(
    app: &App,
    global: &Global,
    args: UpdateArgs,
) -> crate::ops::Result<Exit> {
    let pins = args.pins.into();
    let lock = pin::update(app, &pins, &args.names, args.accept_imports).await?;
    Ok(tell(global, &lock))
}

fn tell(global: &Global, lock: &LockFile) -> Exit {
    if global.json {
        json!(view::plugin::Lock::from(lock));
        return Exit::Done;
    }
    let file = lock.file.display();
    if lock.written {
        eprintln!("{file} is written; commit it");
    } else {
        eprintln!("{file} is up to date");
    }
    Exit::Done
}

pub(super) async fn verify(
    app: &App,
    global: &Global,
    args: VerifyArgs,
) -> crate::ops::Result<Exit> {
    let all = pin::verify(app, &args.pins.into(), &args.names).await?;
    if global.json {
        json!(view::plugin::Verification::from(&all[..]));
    } else {
        for Verified { name, result } in &all {
            match result {
                Ok(pinned) => out!("{name}: ok, {}", pinned.wasm),
                Err(error) if error.kind == Kind::Rejected => out!("{name}: not as pinned"),
                Err(_) => out!("{name}: not verified"),
            }
        }
    }
    // The first error decides the exit code, and `main` shows it after the others.
    let mut errors = all.into_iter().filter_map(|v| v.result.err());
    let first = errors.next();
    for error in errors {
        eprintln!("error: {}", crate::cli::advice::text(&error));
    }
    first.map_or(Ok(Exit::Done), Err)
}

pub(super) async fn vendor(
    app: &App,
    global: &Global,
    args: VendorArgs,
) -> crate::ops::Result<Exit> {
    let folder = pin::vendor(app, &args.pins.into()).await?;
    if global.json {
        json!(view::plugin::Vendor::from(folder.as_deref()));
        return Ok(Exit::Done);
    }
    match folder {
        Some(folder) => eprintln!("{} has all that --offline needs", folder.display()),
        None => eprintln!("no plugin comes from a registry, so there is nothing to vendor"),
    }
    Ok(Exit::Done)
}

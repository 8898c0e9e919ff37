//! `engine plugin lock | update | verify | vendor`: what names mean.

use clap::Args;
use serde_json::json;

use super::load::{by_name, compile, contradiction, pin};
use super::{Global, PinArgs};
use crate::cli::exit::Exit;
use crate::ops::app::App;
use crate::ops::{Error, Kind};
use crate::supply::lock::Locked;
use crate::supply::{Supply, SupplyError};

/// Pin what plugins.toml names and plugins.lock does not have yet
///
/// What is pinned stays as it is; what plugins.toml no longer names goes.
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

pub(super) async fn lock(app: &App, args: LockArgs) -> crate::ops::Result<Exit> {
    let mut supply = args.pins.supply(app)?;
    let names: Vec<String> = supply.plugins.plugins.keys().cloned().collect();
    let mut changed = false;
    for name in &names {
        if supply.pinned(name).is_some() {
            continue;
        }
        let fetched = by_name(&supply, name).await?;
        let plugin = compile(app, name, &fetched.wasm).await?;
        changed |= pin(&mut supply, name, &fetched, &plugin, false)?;
    }
    let gone: Vec<String> = supply.lock.iter().map(|l| l.name.clone()).collect();
    for name in gone.into_iter().filter(|n| !names.contains(n)) {
        if supply.mode.locked {
            return Err(Error::usage(format!(
                "plugins.lock has {name}, which plugins.toml does not name any more, and --locked changes nothing\n\nhint: run `engine plugin lock` and commit plugins.lock"
            )));
        }
        eprintln!("{name}: gone");
        supply.forget(&name);
        changed = true;
    }
    save(&mut supply, changed)
}

pub(super) async fn update(app: &App, args: UpdateArgs) -> crate::ops::Result<Exit> {
    let mut supply = args.pins.supply(app)?;
    if supply.mode.locked {
        return Err(Error::usage(
            "--locked, the default where CI=true, and an update contradict each other",
        ));
    }
    let mut changed = false;
    for name in chosen(&supply, &args.names)? {
        let fetched = supply.fetch_new(&name).await?;
        let plugin = compile(app, &name, &fetched.wasm).await?;
        changed |= pin(&mut supply, &name, &fetched, &plugin, args.accept_imports)?;
    }
    save(&mut supply, changed)
}

fn save(supply: &mut Supply, changed: bool) -> crate::ops::Result<Exit> {
    let file = supply.lock_file();
    if changed {
        supply.save()?;
        eprintln!("{} is written; commit it", file.display());
    } else {
        eprintln!("{} is up to date", file.display());
    }
    Ok(Exit::Done)
}

pub(super) async fn verify(
    app: &App,
    global: &Global,
    args: VerifyArgs,
) -> crate::ops::Result<Exit> {
    let supply = args.pins.supply(app)?;
    let names = chosen(&supply, &args.names)?;
    let mut rows = vec![];
    let mut first: Option<Error> = None;
    for name in &names {
        let result = verify_one(app, &supply, name).await;
        let text = match &result {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if !global.json {
            match &result {
                Ok(pinned) => out!("{name}: ok, {}", pinned.wasm),
                Err(error) if error.kind == Kind::Rejected => out!("{name}: not as pinned"),
                Err(_) => out!("{name}: not verified"),
            }
        }
        rows.push(json!({"name": name, "ok": result.is_ok(), "message": text}));
        if let Err(error) = result {
            // All of them are looked at; the last line is about the first.
            match first {
                None => first = Some(error),
                Some(_) => eprintln!("error: {error:#}"),
            }
        }
    }
    if global.json {
        out!("{}", json!({"plugins": rows}));
    }
    match first {
        Some(error) => Err(error),
        None => Ok(Exit::Done),
    }
}

async fn verify_one(app: &App, supply: &Supply, name: &str) -> crate::ops::Result<Locked> {
    let wanted = supply.wanted(name)?;
    let Some(pinned) = supply.pinned(name).cloned() else {
        return Err(supply.unpinned(name)?.into());
    };
    if wanted.is_oci() && !supply.mode.offline {
        let now = supply.resolve(&wanted.source).await?;
        let then = pinned.manifest.clone().unwrap_or_default();
        if now != then {
            return Err(SupplyError::Digest {
                name: format!("{name} ({})", wanted.source),
                pinned: then,
                found: now,
                hint: format!(
                    "somebody has moved the tag; what is pinned still runs. If the change is wanted, `engine plugin update {name}`"
                ),
            }
            .into());
        }
    }
    let fetched = supply.fetch_pinned(&pinned).await?;
    let plugin = compile(app, name, &fetched.wasm).await?;
    contradiction(supply, &pinned, &fetched, &plugin)?;
    Ok(pinned)
}

pub(super) async fn vendor(app: &App, args: VendorArgs) -> crate::ops::Result<Exit> {
    let supply = args.pins.supply(app)?;
    let mut folder = None;
    for name in supply.plugins.plugins.keys() {
        let Some(pinned) = supply.pinned(name) else {
            return Err(supply.unpinned(name)?.into());
        };
        let fetched = supply.fetch_anew(pinned).await?;
        if let Some(place) = supply.vendor(&fetched)? {
            eprintln!("{name}: {}", pinned.wasm);
            folder = Some(place);
        }
    }
    match folder {
        Some(folder) => eprintln!("{} has all that --offline needs", folder.display()),
        None => eprintln!("no plugin comes from a registry, so there is nothing to vendor"),
    }
    Ok(Exit::Done)
}

/// The names that are given, or all.
fn chosen(supply: &Supply, names: &[String]) -> Result<Vec<String>, SupplyError> {
    for name in names {
        supply.wanted(name)?;
    }
    Ok(if names.is_empty() {
        supply.plugins.plugins.keys().cloned().collect()
    } else {
        names.to_vec()
    })
}

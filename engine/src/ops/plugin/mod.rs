//! The only way from a name or a path to a plugin that may run: it is found, and all
//! rules are checked before it is compiled.

pub mod check;
pub mod inspect;
pub mod own;
mod parameters;
pub mod project;
pub mod queries;
pub mod registry;
pub mod sign;
pub mod test;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::advice::{Advice, Ask};
use super::app::App;
use super::compile::compile;
use super::pin::{PinRequest, by_name, settle};
use super::{Error, Result};
use crate::spec::plugins;
use crate::spec::policy::Policy;
use crate::spec::{Spec, StrategySpec, nearest};
use crate::strategy::Plugin;
use crate::supply::{self, Fetched, Supply, SupplyError};

pub use parameters::{Accepted, KEY as PARAMETERS, judged, not_accepted, parameters};

/// A plugin that may run.
pub struct Loaded {
    /// The plugin.
    pub plugin: Arc<Plugin>,
    /// Its name for people: the path or the name that was given.
    pub shown: String,
    /// Where its bytes came from.
    pub source: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What operators allow.
    pub policy: Policy,
}

/// The purpose for which a plugin is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To decide about traffic.
    Rollout,
    /// To see whether it could decide about traffic: by the same rules, and nothing is
    /// pinned.
    Check,
    /// To be inspected, perhaps while it is being written.
    Look,
}

/// Finds the strategy that is given, or else that of the rollout file, checks it and
/// compiles it. A name that is not pinned yet is pinned, if that is allowed.
///
/// # Errors
/// No plugin is named, it cannot be found or read, or it may not run here.
pub async fn load(
    app: &App,
    pins: &PinRequest,
    given: Option<&Path>,
    spec: &Spec,
    purpose: Purpose,
) -> Result<Loaded> {
    let named = spec.strategy.plugin.as_ref().map(PathBuf::from);
    let path = given.map(Path::to_owned).or(named).ok_or_else(|| {
        Error::usage(format!(
            "no strategy is named: give a plugin, such as {}, or strategy.plugin in the rollout file",
            own::usual(app).display()
        ))
    })?;
    let host = app.surroundings.policy.as_deref();
    let policy = spec.policy.clone().stricter(supply::policy::host(host)?);
    let supply = pins.open(app, &policy)?;
    let in_ci = app.surroundings.ci && purpose != Purpose::Look;
    if supply.is_none() && in_ci && spec.strategy.sha256.is_none() {
        app.note(format!(
            "nothing pins {}, and CI=true asks for plugins that are pinned: there is no {}",
            path.display(),
            plugins::FILE
        ));
    }
    // If nothing may be pinned, a file without a name is refused. `CI=true` has this
    // effect only on plugins that get traffic.
    let names_only = pins.locked || purpose != Purpose::Look;
    let Found {
        supply,
        name,
        shown,
        source,
        fetched,
    } = find(app, supply, &path, names_only).await?;
    // The pin is that of the file's own plugin, not of one that was given instead.
    let own = spec.strategy.plugin.as_ref().map(Path::new);
    if given.is_none_or(|given| own.is_some_and(|own| supply::same_file(own, given))) {
        check_pin(&shown, &spec.strategy, &fetched)?;
    }
    // With names it was checked when it was fetched.
    if supply.is_none() {
        supply::policy::demands(&policy, host).check(&shown, &fetched)?;
    }
    let plugin = compile(app, &shown, &fetched.wasm).await?;
    let mut all = plugin.permissions.clone();
    all.extend(plugin.stubbed.iter().cloned());
    if let Some((import, rule)) = policy.denied(&all) {
        return Err(SupplyError::Denied {
            name: shown,
            why: format!("it imports {import}, and deny-imports has {rule:?}"),
        }
        .into());
    }
    if let (Some(mut supply), Some(name)) = (supply, name)
        && (purpose != Purpose::Check || supply.pinned(&name).is_some())
    {
        settle(app, &mut supply, &name, &fetched, &plugin)?;
    }
    Ok(Loaded {
        plugin,
        shown,
        source,
        bytes: fetched.wasm,
        policy,
    })
}

/// The same for a plugin that is only inspected, without the rollout file.
///
/// # Errors
/// As with [`load`].
pub async fn look_at(app: &App, pins: &PinRequest, plugin: &Path) -> Result<Loaded> {
    load(app, pins, Some(plugin), &Spec::bare(), Purpose::Look).await
}

/// Where a plugin was found.
struct Found {
    supply: Option<Supply>,
    /// Its name in `plugins.toml`, if it has one.
    name: Option<String>,
    shown: String,
    source: String,
    fetched: Fetched,
}

/// Finds the bytes of a plugin by name, or in a file.
async fn find(app: &App, supply: Option<Supply>, path: &Path, names_only: bool) -> Result<Found> {
    let shown = path.display().to_string();
    let name = match &supply {
        _ if shown.starts_with(plugins::OCI) => {
            return Err(Error::usage(format!(
                "a plugin is not run from a registry directly; give it a name in plugins.toml, so that it is pinned:\n\n  [plugins]\n  canary = \"{shown}\""
            )));
        }
        Some(supply) if crate::model::is_name(&shown) => {
            supply.wanted(&shown)?;
            Some(shown.clone())
        }
        None if crate::model::is_name(&shown) => {
            return Err(Error::usage(format!(
                "{shown} is a name, and no plugins.toml here has it; for a file write ./{shown}"
            )));
        }
        Some(supply) => match supply.names_of(path)[..] {
            [] => None,
            [name] => Some(name.to_owned()),
            // Each name may have rules of its own.
            ref names => {
                return Err(Error::usage(format!(
                    "{shown} has several names in {}: give one of {}",
                    supply.file.display(),
                    names.join(", ")
                )));
            }
        },
        None => None,
    };
    let (source, fetched) = match (&supply, &name) {
        (Some(supply), Some(name)) => {
            let source = supply.wanted(name)?.source.clone();
            let fetched = by_name(supply, name).await?;
            (source, fetched)
        }
        (Some(supply), None) if supply.mode.locked && names_only => {
            return Err(SupplyError::Unnamed {
                file: supply.file.display().to_string(),
                path: shown,
            }
            .into());
        }
        (Some(supply), None) => (shown.clone(), read(app, path, supply.read_unnamed(path))?),
        _ => (shown.clone(), read(app, path, supply::read_file(path))?),
    };
    Ok(Found {
        supply,
        name,
        shown,
        source,
        fetched,
    })
}

/// Adds what to do if a file could not be read.
fn read(app: &App, path: &Path, read: Result<Fetched, SupplyError>) -> Result<Fetched> {
    read.map_err(|e| match e {
        SupplyError::Io { message, .. } => {
            let shown = path.display();
            let error = Error::usage(format!("failed to read plugin {shown}: {message}"));
            match path.exists() {
                true => error,
                false => instead(app, path).into_iter().fold(error, Error::advise),
            }
        }
        other => other.into(),
    })
}

/// What a person can do who has named a plugin that is not there.
pub(super) fn instead(app: &App, path: &Path) -> Vec<Advice> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let there = std::fs::read_dir(beside).into_iter().flatten().flatten();
    let there = there.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let there: Vec<String> = there.filter(|name| name.ends_with(".wasm")).collect();
    if let Some(near) = nearest(&name, there.iter().map(String::as_str)) {
        let near = path.with_file_name(near);
        return vec![Advice::words(format!("did you mean {}?", near.display()))];
    }
    let ours = own::NAMES.contains(&&*name);
    if ours && let Some(there) = own::find(app, &name) {
        let found = format!("{} is the engine's own", there.display());
        return vec![Advice::words(found)];
    }
    match ours || path.starts_with("plugins") {
        true => where_from().to_vec(),
        false => vec![begin_one()],
    }
}

/// Where a person gets a strategy who has none.
#[must_use]
pub fn where_from() -> [Advice; 3] {
    [
        Advice::words(
            "`make plugins` in the sources of engine builds canary.wasm and blue-green.wasm, and `make install` puts them where engine finds them",
        ),
        Advice::ask(Ask::PullPlugin, "fetches one from a registry"),
        begin_one(),
    ]
}

fn begin_one() -> Advice {
    Advice::ask(Ask::NewPlugin, "begins a strategy of your own")
}

/// Checks `strategy.sha256` of the rollout file.
fn check_pin(shown: &str, strategy: &StrategySpec, fetched: &Fetched) -> Result<(), SupplyError> {
    match &strategy.sha256 {
        Some(pin) if !pin.eq_ignore_ascii_case(&fetched.sha256) => Err(SupplyError::Digest {
            name: shown.to_owned(),
            pinned: pin.clone(),
            found: fetched.sha256.clone(),
            hint: "if the change is wanted, write the new digest into strategy.sha256".to_owned(),
        }),
        _ => Ok(()),
    }
}

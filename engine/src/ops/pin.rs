//! The names of plugins: `plugins.toml`, pinned in `plugins.lock`. Opens both for the
//! verbs that run a plugin, and locks, updates, verifies and vendors.

use std::path::{Path, PathBuf};

use super::app::App;
use super::compile::compile;
use super::{Advice, Ask, Error, Input, Result};
use crate::journal::Pin;
use crate::model::sha256_hex;
use crate::spec::plugins;
use crate::spec::policy::Policy;
use crate::strategy::Plugin;
use crate::supply::lock::Locked;
use crate::supply::{self, Access, Cache, Fetched, Mode, Supply, SupplyError, cache};

/// What may be changed or fetched, as in cargo.
#[derive(Debug, Clone, Default)]
pub struct PinRequest {
    /// `plugins.lock` must be complete and is not changed. With `CI=true` that is so in
    /// any case.
    pub locked: bool,
    /// Nothing is fetched: plugins come from the cache and `plugins.vendor`.
    pub offline: bool,
    /// The file that gives plugins their names, with `plugins.lock` beside it; the
    /// nearest `plugins.toml`, here or in a folder above, if none is named.
    pub plugins: Option<PathBuf>,
}

impl PinRequest {
    /// The plugins file and its lock, for plugins that a policy allows; `None` if there is
    /// no plugins file.
    pub(super) fn open(&self, app: &App, policy: &Policy) -> Result<Option<Supply>> {
        let mode = Mode {
            locked: self.locked || app.surroundings.ci,
            offline: self.offline,
        };
        let file = self.file();
        if self.plugins.is_none() && is_of_another(&file) {
            return Err(Error::usage(format!(
                "{} belongs to another user than this folder, so it is not trusted to say what runs here",
                file.display()
            ))
            .give(Input::PluginsFile, "names it, if you trust it"));
        }
        let supply = Supply::open(&file, cache_folder(app), access(app), mode)?;
        let Some(mut supply) = supply else {
            // Without the file nothing can be pinned, and `locked` asks for pins.
            return match &self.plugins {
                Some(file) => Err(Error::usage(format!(
                    "there is no {}, which is named as the plugins file",
                    file.display()
                ))),
                None if self.locked => Err(Error::usage(format!(
                    "there is no {} here or in a folder above",
                    plugins::FILE
                ))
                .advise(Advice::PinPlugins)),
                None => Ok(None),
            };
        };
        supply.demands = supply::policy::demands(policy, app.surroundings.policy.as_deref());
        Ok(Some(supply))
    }

    /// The plugins file and its lock, for plugins that this host allows. The file
    /// must be there.
    pub(super) fn supply(&self, app: &App) -> Result<Supply> {
        let policy = supply::policy::host(app.surroundings.policy.as_deref())?;
        self.open(app, &policy)?.ok_or_else(|| {
            Error::usage(format!(
                "there is no {} here or in a folder above; write one, such as\n\n  [plugins]\n  canary = \"oci://registry.example/rollouts/canary:1.0.0\"\n  own = \"plugins/own.wasm\"",
                plugins::FILE
            ))
        })
    }

    /// Fails if the source is in a registry and nothing may be fetched.
    pub(super) fn must_reach(&self, source: &str) -> Result<()> {
        if !self.offline {
            return Ok(());
        }
        let offline = Input::Offline(source.to_owned());
        Err(Error::argument(offline, "fetches nothing"))
    }

    /// The file that is named, or the nearest one; if there is none, the place where it
    /// would be.
    fn file(&self) -> PathBuf {
        if let Some(file) = &self.plugins {
            return file.clone();
        }
        let here = std::env::current_dir().unwrap_or_default();
        let mut file = PathBuf::from(plugins::FILE);
        for _ in here.ancestors() {
            if supply::files::is_there(&file) {
                return file;
            }
            file = Path::new("..").join(file);
        }
        plugins::FILE.into()
    }

    /// The bytes of a rollout's plugin, if they are still at their source or in the
    /// cache.
    pub fn kept(&self, app: &App, pin: &Pin) -> Option<Vec<u8>> {
        let vendor = Cache::new(self.file().with_file_name(supply::VENDOR));
        let kept = [vendor, Cache::new(cache_folder(app))];
        let kept = kept.iter().find_map(|folder| folder.bytes(&pin.sha256));
        // A journal may come from anywhere, so its source is not trusted.
        let source = || {
            let source = Path::new(&pin.source);
            let bytes = source.is_file().then(|| cache::read(source).ok())??;
            (sha256_hex(&bytes) == pin.sha256).then_some(bytes)
        };
        kept.or_else(source)
    }
}

/// Whether a file that was found in a folder above belongs to another user than this
/// folder: in a shared folder anybody could have put it there.
#[cfg(unix)]
fn is_of_another(file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let owner = |path: &Path| path.metadata().map(|m| m.uid()).ok();
    let (here, there) = (owner(Path::new(".")), owner(file));
    there.is_some_and(|there| there != 0 && Some(there) != here)
}

#[cfg(not(unix))]
fn is_of_another(_: &Path) -> bool {
    false
}

/// The folder of fetched plugins.
fn cache_folder(app: &App) -> PathBuf {
    app.state_dir.join("plugins")
}

/// The settings for registries.
pub(super) fn access(app: &App) -> Access {
    let home = app.surroundings.home.as_ref();
    let docker = app.surroundings.docker_config.clone();
    Access {
        docker_config: docker.or_else(|| home.map(|h| h.join(".docker"))),
        network: app.surroundings.network.clone(),
        clock: app.clock.clone(),
    }
}

/// The bytes of a name: the pinned ones, or new ones if that is allowed.
pub(super) async fn by_name(supply: &Supply, name: &str) -> Result<Fetched, SupplyError> {
    match supply.pinned(name) {
        Some(pinned) => supply.fetch_pinned(pinned).await,
        None if supply.mode.locked => Err(supply.unpinned(name)?),
        None => supply.fetch_new(name).await,
    }
}

/// Compares a plugin with its pin. If it has none, it is pinned and the lock is
/// written.
pub(super) fn settle(
    app: &App,
    supply: &mut Supply,
    name: &str,
    fetched: &Fetched,
    plugin: &Plugin,
) -> Result<()> {
    if let Some(pinned) = supply.pinned(name) {
        // The bytes are the pinned ones, so the lock does not change.
        return Ok(contradiction(supply, pinned, fetched, plugin)?);
    }
    if pin(app, supply, name, fetched, plugin, false)?.is_some() {
        supply.save()?;
        app.note(format!(
            "{} is new; commit it",
            supply.lock_file().display()
        ));
    }
    Ok(())
}

/// Fails if the lock is wrong about the pinned bytes, because somebody may have edited
/// it.
fn contradiction(
    supply: &Supply,
    pinned: &Locked,
    fetched: &Fetched,
    plugin: &Plugin,
) -> Result<(), SupplyError> {
    let now = Locked {
        // Rules for signatures may change without a change of the plugin.
        signed_by: pinned.signed_by.clone(),
        ..as_locked(supply, &pinned.name, fetched, plugin)?
    };
    if now == *pinned {
        return Ok(());
    }
    Err(SupplyError::Contradiction {
        name: pinned.name.clone(),
        changes: now.changes(Some(pinned)),
    })
}

/// Pins a plugin in memory, and reports and returns what that changes, if it does.
fn pin(
    app: &App,
    supply: &mut Supply,
    name: &str,
    fetched: &Fetched,
    plugin: &Plugin,
    accept_imports: bool,
) -> Result<Option<Change>, SupplyError> {
    let new = as_locked(supply, name, fetched, plugin)?;
    let old = supply.lock.get(name);
    let changes = new.changes(old);
    let more = old.is_some_and(|old| !new.new_imports(old).is_empty());
    if more && !accept_imports {
        return Err(SupplyError::NewImports {
            name: name.to_owned(),
            changes,
        });
    }
    let change = Change {
        name: name.to_owned(),
        before: old.map(|old| old.wasm.clone()),
        now: Some(new.wasm.clone()),
    };
    supply.pin(new);
    if changes.is_empty() {
        return Ok(None);
    }
    app.progress(changes.trim_end());
    Ok(Some(change))
}

/// The entry of a plugin in the lock.
fn as_locked(
    supply: &Supply,
    name: &str,
    fetched: &Fetched,
    plugin: &Plugin,
) -> Result<Locked, SupplyError> {
    Ok(Locked {
        name: name.to_owned(),
        source: supply.wanted(name)?.source.clone(),
        manifest: fetched.manifest.clone(),
        wasm: format!("sha256:{}", fetched.sha256),
        size: fetched.wasm.len() as u64,
        world: plugin.world.clone(),
        signed_by: fetched.signed_by.clone(),
        imports: plugin.permissions.clone(),
    })
}

/// The lock after [`lock`] or [`update`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockFile {
    /// Path of the lock.
    pub file: PathBuf,
    /// Whether it was written, which is so if something has changed.
    pub written: bool,
    /// What has changed.
    pub changes: Vec<Change>,
}

/// A pin that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The name of the plugin.
    pub name: String,
    /// Its bytes before, `sha256:…`; none if it is new.
    pub before: Option<String>,
    /// Its bytes now, `sha256:…`; none if it is gone.
    pub now: Option<String>,
}

/// Pins the names of `plugins.toml` that the lock does not have yet, and removes those
/// that `plugins.toml` does not name any more. Other pins do not change.
///
/// # Errors
/// A plugin cannot be fetched or may not run, or the lock must not change and would
/// have to, or the file of a pinned plugin has other bytes: what is pinned never changes by
/// itself, and is not said to be up to date where it is not. Then nothing is written.
pub async fn lock(app: &App, request: &PinRequest) -> Result<LockFile> {
    let mut supply = request.supply(app)?;
    let names: Vec<String> = supply.plugins.plugins.keys().cloned().collect();
    let mut changes = vec![];
    for name in &names {
        if let Some(pinned) = supply.pinned(name) {
            still_pinned(app, &supply, pinned)?;
            continue;
        }
        let fetched = by_name(&supply, name).await?;
        let plugin = compile(app, name, &fetched.wasm).await?;
        changes.extend(pin(app, &mut supply, name, &fetched, &plugin, false)?);
    }
    let gone: Vec<String> = supply.lock.iter().map(|l| l.name.clone()).collect();
    for name in gone.into_iter().filter(|n| !names.contains(n)) {
        if supply.mode.locked {
            let why = format!(
                "changes nothing, and plugins.lock has {name}, which plugins.toml does not name any more"
            );
            return Err(Error::argument(Input::Locked, why)
                .ask(Ask::LockPlugins, "removes it; commit plugins.lock"));
        }
        app.progress(format!("{name}: gone"));
        changes.push(Change {
            before: supply.lock.get(&name).map(|locked| locked.wasm.clone()),
            now: None,
            name: name.clone(),
        });
        supply.forget(&name);
    }
    save(&mut supply, changes)
}

/// Fails if the file of a pinned plugin has other bytes than those. What is pinned in a
/// registry is there by its digest, whatever became of its tag.
fn still_pinned(app: &App, supply: &Supply, pinned: &Locked) -> Result<()> {
    if pinned.manifest.is_some() {
        return Ok(());
    }
    let file = supply.at(&pinned.source);
    match supply::read_file(&file) {
        Ok(fetched) => Ok(pinned.check(&pinned.source, &fetched.sha256)?),
        // It may not have been built yet; its pin says what it must be.
        Err(error) => {
            app.note(format!(
                "whether {} is what is pinned was not looked at: {error}",
                pinned.name
            ));
            Ok(())
        }
    }
}

/// Pins the present bytes of these plugins' sources; of all, if none is named. With
/// `accept_imports` also those with more permissions.
///
/// # Errors
/// As with [`lock`], or a plugin has more permissions than what was pinned. Then
/// nothing is written.
pub async fn update(
    app: &App,
    request: &PinRequest,
    names: &[String],
    accept_imports: bool,
) -> Result<LockFile> {
    let mut supply = request.supply(app)?;
    if supply.mode.locked {
        return Err(Error::argument(
            Input::Locked,
            "(the default where CI=true) and an update contradict each other",
        ));
    }
    let mut changes = vec![];
    for name in chosen(&supply, names)? {
        let fetched = supply.fetch_new(&name).await?;
        let plugin = compile(app, &name, &fetched.wasm).await?;
        changes.extend(pin(
            app,
            &mut supply,
            &name,
            &fetched,
            &plugin,
            accept_imports,
        )?);
    }
    save(&mut supply, changes)
}

fn save(supply: &mut Supply, changes: Vec<Change>) -> Result<LockFile> {
    let written = !changes.is_empty();
    if written {
        supply.save()?;
    }
    Ok(LockFile {
        file: supply.lock_file(),
        written,
        changes,
    })
}

/// The result for one plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Its name.
    pub name: String,
    /// Its pin, which is right; or what is wrong.
    pub result: Result<Locked>,
}

/// Compares these plugins, or all if none is named, with what is pinned: source,
/// digest, signature, permissions. With a network a tag that was moved is found too.
/// All of them are compared, even if some are wrong.
///
/// # Errors
/// There is nothing to compare with: a file is wrong, or a name does not exist.
pub async fn verify(app: &App, request: &PinRequest, names: &[String]) -> Result<Vec<Verified>> {
    let supply = request.supply(app)?;
    let mut all = vec![];
    for name in chosen(&supply, names)? {
        let result = verify_one(app, &supply, &name).await;
        all.push(Verified { name, result });
    }
    Ok(all)
}

async fn verify_one(app: &App, supply: &Supply, name: &str) -> Result<Locked> {
    let wanted = supply.wanted(name)?;
    let Some(pinned) = supply.pinned(name).cloned() else {
        return Err(supply.unpinned(name)?.into());
    };
    if wanted.is_oci() && !supply.mode.offline {
        let now = supply.resolve(&wanted.source).await?;
        let then = pinned.manifest.clone().unwrap_or_default();
        if now != then {
            let moved = Error::from(SupplyError::Digest {
                name: format!("{name} ({})", wanted.source),
                pinned: then,
                found: now,
                hint: "somebody has moved the tag; the pinned plugin still runs".to_owned(),
            });
            return Err(moved.ask(
                Ask::UpdatePlugin(name.to_owned()),
                "takes the change over, if it is wanted",
            ));
        }
    }
    let fetched = supply.fetch_pinned(&pinned).await?;
    let plugin = compile(app, name, &fetched.wasm).await?;
    contradiction(supply, &pinned, &fetched, &plugin)?;
    Ok(pinned)
}

/// Copies the pinned plugins of registries into `plugins.vendor`, and returns that
/// folder; `None` if no plugin comes from a registry.
///
/// # Errors
/// A plugin is not pinned, cannot be fetched, or cannot be written.
pub async fn vendor(app: &App, request: &PinRequest) -> Result<Option<PathBuf>> {
    let supply = request.supply(app)?;
    let mut folder = None;
    for name in supply.plugins.plugins.keys() {
        let Some(pinned) = supply.pinned(name) else {
            return Err(supply.unpinned(name)?.into());
        };
        let fetched = supply.fetch_anew(pinned).await?;
        if let Some(place) = supply.vendor(&fetched)? {
            app.progress(format!("{name}: {}", pinned.wasm));
            folder = Some(place);
        }
    }
    Ok(folder)
}

/// The given names, or all.
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

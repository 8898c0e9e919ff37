//! A strategy as the command line gives it: a file, or a name of `plugins.toml`;
//! checked against everything that is said about it before it may run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::journal::Pin;
use crate::model::{Millis, sha256_hex};
use crate::ops::Error;
use crate::ops::app::App;
use crate::spec::plugins;
use crate::spec::policy::Policy;
use crate::spec::{Spec, StrategySpec};
use crate::strategy::Plugin;
use crate::strategy::contract::Rejected;
use crate::supply::files;
use crate::supply::lock::Locked;
use crate::supply::{
    self, Access, Cache, Demands, Fetched, Mode, Rule, Supply, SupplyError, cache,
};

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

impl PinArgs {
    /// The plugins file and its lock, for plugins that a policy allows; none if
    /// there is no file.
    fn open(&self, app: &App, policy: &Policy) -> crate::ops::Result<Option<Supply>> {
        let mode = Mode {
            locked: self.locked || self.frozen || app.surroundings.ci,
            offline: self.offline(),
        };
        let file = self.file();
        if self.plugins.is_none() && is_of_another(&file) {
            return Err(Error::usage(format!(
                "{} belongs to somebody else than this folder, so it may not say what runs here\n\nhint: if it is to be trusted, name it with --plugins",
                file.display()
            )));
        }
        let supply = Supply::open(&file, cache(app), access(app), mode)?;
        let Some(mut supply) = supply else {
            // Without names nothing is pinned, and that was asked for.
            return match &self.plugins {
                Some(file) => Err(Error::usage(format!(
                    "there is no {}, which --plugins names",
                    file.display()
                ))),
                None if self.locked || self.frozen => Err(Error::usage(format!(
                    "there is no {} here or in a folder above, so there is nothing that --locked could keep to",
                    plugins::FILE
                ))),
                None => Ok(None),
            };
        };
        supply.demands = demands(app, policy);
        Ok(Some(supply))
    }

    /// Whether a file without a name is refused where nothing new is pinned. That
    /// `CI=true` is meant for what gets traffic.
    fn wants_names(&self, purpose: Purpose) -> bool {
        self.locked || self.frozen || purpose == Purpose::Rollout
    }

    /// Whether nothing may be fetched.
    pub(super) fn offline(&self) -> bool {
        self.offline || self.frozen
    }

    /// Fails where nothing may be fetched and something has to be.
    pub(super) fn must_reach(&self, source: &str) -> crate::ops::Result<()> {
        if !self.offline() {
            return Ok(());
        }
        Err(Error::usage(format!(
            "{source} is in a registry, and --offline (or --frozen) reaches none"
        )))
    }

    /// The file that is named, or the nearest one; where it would be, if there is
    /// none.
    fn file(&self) -> PathBuf {
        if let Some(file) = &self.plugins {
            return file.clone();
        }
        let here = std::env::current_dir().unwrap_or_default();
        let mut file = PathBuf::from(plugins::FILE);
        for _ in here.ancestors() {
            if file.exists() {
                return file;
            }
            file = Path::new("..").join(file);
        }
        plugins::FILE.into()
    }

    /// The bytes of a rollout's plugin, if they are still where they came from or
    /// where they were kept.
    pub(in crate::cli) fn kept(&self, app: &App, pin: &Pin) -> Option<Vec<u8>> {
        let vendor = Cache::new(self.file().with_file_name(supply::VENDOR));
        let kept = [vendor, Cache::new(cache(app))];
        let kept = kept.iter().find_map(|folder| folder.bytes(&pin.sha256));
        // A journal may come from anywhere, and so may what it calls its source.
        let source = || {
            let source = Path::new(&pin.source);
            let bytes = source.is_file().then(|| cache::read(source).ok())??;
            (sha256_hex(&bytes) == pin.sha256).then_some(bytes)
        };
        kept.or_else(source)
    }

    /// The plugins file, which must be there.
    pub(super) fn supply(&self, app: &App) -> crate::ops::Result<Supply> {
        self.open(app, &host_policy(app)?)?.ok_or_else(|| {
            Error::usage(format!(
                "there is no {} here or in a folder above; write one, such as\n\n  [plugins]\n  canary = \"oci://registry.example/rollouts/canary:1.0.0\"\n  own = \"plugins/own.wasm\"",
                plugins::FILE
            ))
        })
    }
}

/// Whether a file that was found above belongs to another user than the folder
/// that it was looked for in: in a shared folder anybody can leave one.
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

/// Where fetched plugins are kept.
fn cache(app: &App) -> PathBuf {
    app.state_dir.join("plugins")
}

/// How registries are reached.
pub(super) fn access(app: &App) -> Access {
    let home = app.surroundings.home.as_ref();
    let docker = app.surroundings.docker_config.clone();
    Access {
        docker_config: docker.or_else(|| home.map(|h| h.join(".docker"))),
        clock: app.clock.clone(),
    }
}

/// A plugin that may run.
pub(in crate::cli) struct Loaded {
    /// The plugin.
    pub(in crate::cli) plugin: Arc<Plugin>,
    /// What people call it: the path or the name that was given.
    pub(in crate::cli) shown: String,
    /// Where its bytes came from.
    pub(in crate::cli) source: String,
    /// They themselves.
    pub(in crate::cli) bytes: Vec<u8>,
    /// What operators allow.
    pub(in crate::cli) policy: Policy,
}

/// What a plugin is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Purpose {
    /// It shall decide about traffic.
    Rollout,
    /// It is only looked at, perhaps by who is just writing it.
    Look,
}

/// Finds the strategy that is given, or else the one of the rollout file, and
/// compiles it once nothing speaks against that.
pub(in crate::cli) async fn load(
    app: &App,
    pins: &PinArgs,
    given: Option<&Path>,
    spec: &Spec,
    purpose: Purpose,
) -> crate::ops::Result<Loaded> {
    let named = spec.strategy.plugin.as_ref().map(PathBuf::from);
    let path = given.map(Path::to_owned).or(named).ok_or_else(|| {
        Error::usage(
            "no strategy is named: give a plugin, such as `engine run plugins/canary.wasm`, or strategy.plugin in the rollout file",
        )
    })?;
    let policy = spec.policy.clone().stricter(host_policy(app)?);
    let supply = pins.open(app, &policy)?;
    let in_ci = app.surroundings.ci && purpose == Purpose::Rollout;
    if supply.is_none() && in_ci && spec.strategy.sha256.is_none() {
        eprintln!(
            "note: nothing pins {}: CI=true asks for --locked, and there is no {}",
            path.display(),
            plugins::FILE
        );
    }
    let Found {
        supply,
        name,
        shown,
        source,
        fetched,
    } = find(supply, &path, pins.wants_names(purpose)).await?;
    // The pin belongs to the file's own plugin, not to another one given by hand.
    let own = spec.strategy.plugin.as_ref().map(Path::new);
    if given.is_none_or(|given| own.is_some_and(|own| supply::same_file(own, given))) {
        check_pin(&shown, &spec.strategy, &fetched)?;
    }
    // With names it has been asked where the plugin was fetched.
    if supply.is_none() {
        demands(app, &policy).check(&shown, &fetched)?;
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
    if let (Some(mut supply), Some(name)) = (supply, name) {
        settle(&mut supply, &name, &fetched, &plugin)?;
    }
    Ok(Loaded {
        plugin,
        shown,
        source,
        bytes: fetched.wasm,
        policy,
    })
}

/// The same for who only looks at a plugin, whatever rollout file there is.
pub(in crate::cli) async fn look_at(
    app: &App,
    pins: &PinArgs,
    plugin: &Path,
) -> crate::ops::Result<Loaded> {
    load(app, pins, Some(plugin), &Spec::bare(), Purpose::Look).await
}

/// Where a plugin was found.
struct Found {
    supply: Option<Supply>,
    /// Its name in `plugins.toml`, if that has it.
    name: Option<String>,
    shown: String,
    source: String,
    fetched: Fetched,
}

async fn find(supply: Option<Supply>, path: &Path, names_only: bool) -> crate::ops::Result<Found> {
    let shown = path.display().to_string();
    let name = match &supply {
        _ if shown.starts_with(plugins::OCI) => {
            return Err(Error::usage(format!(
                "{shown} is not run from a registry directly; give it a name in plugins.toml, so that it is pinned:\n\n  [plugins]\n  canary = \"{shown}\""
            )));
        }
        Some(supply) if plugins::is_name(&shown) => {
            supply.wanted(&shown)?;
            Some(shown.clone())
        }
        None if plugins::is_name(&shown) => {
            return Err(Error::usage(format!(
                "{shown} is a name, and there is no plugins.toml here that knows it; for a file write ./{shown}"
            )));
        }
        Some(supply) => match supply.names_of(path)[..] {
            [] => None,
            [name] => Some(name.to_owned()),
            // Each may have rules of its own.
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
        (Some(supply), None) => (
            shown.clone(),
            read(path, &shown, supply.read_unnamed(path))?,
        ),
        _ => (shown.clone(), read(path, &shown, supply::read_file(path))?),
    };
    Ok(Found {
        supply,
        name,
        shown,
        source,
        fetched,
    })
}

/// The bytes of a name: the pinned ones, or new ones where that is allowed.
pub(super) async fn by_name(supply: &Supply, name: &str) -> Result<Fetched, SupplyError> {
    match supply.pinned(name) {
        Some(pinned) => supply.fetch_pinned(pinned).await,
        None if supply.mode.locked => Err(supply.unpinned(name)?),
        None => supply.fetch_new(name).await,
    }
}

fn read(
    path: &Path,
    shown: &str,
    read: Result<Fetched, SupplyError>,
) -> crate::ops::Result<Fetched> {
    read.map_err(|e| {
        let hint = if !path.exists() && path.starts_with("plugins") {
            "\n\nhint: `make plugins` builds the plugins of this repository"
        } else {
            ""
        };
        match e {
            SupplyError::Io { message, .. } => {
                Error::usage(format!("failed to read plugin {shown}: {message}{hint}"))
            }
            other => other.into(),
        }
    })
}

/// `strategy.sha256` of the rollout file.
fn check_pin(shown: &str, strategy: &StrategySpec, fetched: &Fetched) -> Result<(), SupplyError> {
    match &strategy.sha256 {
        Some(pin) if !pin.eq_ignore_ascii_case(&fetched.sha256) => Err(SupplyError::Digest {
            name: shown.to_owned(),
            pinned: pin.clone(),
            found: fetched.sha256.clone(),
            hint: "if the change is wanted, put the new digest into strategy.sha256".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// What operators ask of bytes that nobody has looked into yet.
fn demands(app: &App, policy: &Policy) -> Demands {
    let groups = policy.signers.iter();
    let rules = groups.map(|group| Rule {
        keys: group.iter().map(PathBuf::from).collect(),
        said_in: format!(
            "the policy of the rollout file or of the host ({})",
            policy_files(app).join(", ")
        ),
    });
    Demands {
        digests: policy.digests.clone(),
        rules: rules.collect(),
    }
}

/// Components of other languages take their time.
const PATIENCE_MS: Millis = 1_500;

/// Compiles a plugin, and says so if that takes long.
pub(super) async fn compile(
    app: &App,
    shown: &str,
    bytes: &[u8],
) -> crate::ops::Result<Arc<Plugin>> {
    let host = app.ports.host()?;
    let loading = host.load(bytes);
    tokio::pin!(loading);
    let late = app.clock.now() + PATIENCE_MS;
    let loaded = tokio::select! {
        loaded = &mut loading => loaded,
        () = app.clock.sleep_until(late) => {
            eprintln!(
                "compiling {shown} ({} MiB); once is enough, the result is kept",
                bytes.len().div_ceil(1 << 20)
            );
            loading.await
        }
    };
    loaded.map_err(|e: Rejected| Error::from(e).context(format!("plugin {shown} is rejected")))
}

/// Compares a plugin with its pin, or pins it.
fn settle(
    supply: &mut Supply,
    name: &str,
    fetched: &Fetched,
    plugin: &Plugin,
) -> Result<(), SupplyError> {
    if let Some(pinned) = supply.pinned(name) {
        // The bytes are the pinned ones, so nothing changes.
        return contradiction(supply, pinned, fetched, plugin);
    }
    if pin(supply, name, fetched, plugin, false)? {
        supply.save()?;
        eprintln!("note: {} is new; commit it", supply.lock_file().display());
    }
    Ok(())
}

/// What the lock says of the pinned bytes may have been changed by hand.
pub(super) fn contradiction(
    supply: &Supply,
    pinned: &Locked,
    fetched: &Fetched,
    plugin: &Plugin,
) -> Result<(), SupplyError> {
    let now = Locked {
        // Rules for signatures come and go without a change of the plugin.
        signed_by: pinned.signed_by.clone(),
        ..locked(supply, &pinned.name, fetched, plugin)?
    };
    if now == *pinned {
        return Ok(());
    }
    Err(SupplyError::Contradiction {
        name: pinned.name.clone(),
        changes: now.changes(Some(pinned)),
    })
}

/// Pins a plugin in memory, and tells what that changes; whether it does.
pub(super) fn pin(
    supply: &mut Supply,
    name: &str,
    fetched: &Fetched,
    plugin: &Plugin,
    accept_imports: bool,
) -> Result<bool, SupplyError> {
    let new = locked(supply, name, fetched, plugin)?;
    let old = supply.lock.get(name);
    let changes = new.changes(old);
    let more = old.is_some_and(|old| !new.new_imports(old).is_empty());
    if more && !accept_imports {
        return Err(SupplyError::NewImports {
            name: name.to_owned(),
            changes,
        });
    }
    eprint!("{changes}");
    supply.pin(new);
    Ok(!changes.is_empty())
}

/// What the lock would say of a plugin.
pub(super) fn locked(
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

/// Where the policy of this host is.
const HOST_POLICY: &str = "/etc/engine/policy.toml";

/// The policies of this host; what the environment names comes on top of what
/// the host has, or whoever sets it could take rules away.
fn policy_files(app: &App) -> Vec<String> {
    let named = app.surroundings.policy.as_ref();
    let named = named.map(|file| file.display().to_string());
    [HOST_POLICY.to_owned()].into_iter().chain(named).collect()
}

/// What all policies of this host allow. A file that is named must be there, or
/// its absence would allow everything.
pub(super) fn host_policy(app: &App) -> crate::ops::Result<Policy> {
    let mut all = Policy::default();
    for file in policy_files(app).iter().map(Path::new) {
        let wrong = |message: String| {
            Error::usage(format!(
                "the policy of this host, {}, cannot be used: {message}",
                file.display()
            ))
        };
        // A link that leads nowhere, or a folder that may not be read, is not the
        // same as no policy.
        let absent = |e: std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
        if file == Path::new(HOST_POLICY) && file.symlink_metadata().is_err_and(absent) {
            continue;
        }
        let text =
            files::read_text(file, files::TEXT_BYTES_MAX).map_err(|e| wrong(e.to_string()))?;
        let mut policy = Policy::parse(&text).map_err(|e| wrong(format!("\n{e}")))?;
        for key in policy.signers.iter_mut().flatten() {
            *key = file.with_file_name("").join(&*key).display().to_string();
        }
        all = all.stricter(policy);
    }
    Ok(all)
}

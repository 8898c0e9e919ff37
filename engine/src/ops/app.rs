//! What every operation works with: which store, which targets, who asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Context as _, Result};
use super::news::{Listener, News};
use super::ports::Ports;
use super::private;
use crate::clock::{Clock, SystemClock};
use crate::journal::Entry;
use crate::rollout::{Driver, Options};
use crate::store::lifeboat::Lifeboat;
use crate::store::memory::MemoryStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Owner, Store, process};

/// See the module.
pub struct App {
    /// Folder of the store, the compile cache and the logs.
    pub state_dir: PathBuf,
    /// Where rollouts live.
    pub store: Arc<dyn Store>,
    /// The same store, of a verb that takes traffic back.
    lifeboat: Option<Arc<Lifeboat>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Targets and strategies.
    pub ports: Arc<Ports>,
    /// This process.
    pub owner: Owner,
    /// Who hears what happens.
    pub listener: Listener,
    /// Who asks.
    pub actor: String,
    /// What the environment says.
    pub surroundings: Surroundings,
}

/// What a verb needs of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It writes down what it does, or does nothing.
    Write,
    /// It only reads: without a lock, and also where nothing can be written.
    Read,
    /// It takes traffic back, whatever can be written down.
    WayBack,
}

/// How long the way back waits for another process's lock.
const WAY_BACK_LOCK: std::time::Duration = std::time::Duration::from_secs(2);

/// Opens or makes the store in a folder, which is made if it is not there.
fn make_store(
    state_dir: &Path,
    listener: &Listener,
    patience: Option<std::time::Duration>,
) -> Result<SqliteStore> {
    make_private(state_dir, listener)?;
    let place = state_dir.join("engine.db");
    Ok(match patience {
        Some(patience) => SqliteStore::open_within(&place, patience)?,
        None => SqliteStore::open(&place)?,
    })
}

/// A store, which is a lifeboat where the verb needs one.
type Opened = (Arc<dyn Store>, Option<Arc<Lifeboat>>);

/// Opens the store for that.
fn open_store(state_dir: &Path, access: Access, listener: &Listener) -> Result<Opened> {
    let place = state_dir.join("engine.db");
    match access {
        Access::Write => {
            let store = make_store(state_dir, listener, None).map_err(|e| {
                e.context("hint: `engine rollback` and `engine abort` work without the store; --state-dir names another one")
            })?;
            Ok((Arc::new(store), None))
        }
        // One that was only just begun is empty.
        Access::Read if std::fs::metadata(&place).is_ok_and(|m| m.len() > 0 || !m.is_file()) => {
            // Where that cannot be done, reading goes on all the same.
            if let Ok(mended) = private::state_folder(state_dir) {
                say_mended(state_dir, mended, listener);
            }
            Ok((Arc::new(SqliteStore::look(&place)?), None))
        }
        Access::Read => Ok(match make_store(state_dir, listener, None) {
            Ok(store) => (Arc::new(store), None),
            // There is nothing to read, and no need to make something.
            Err(_) => (Arc::new(MemoryStore::default()), None),
        }),
        Access::WayBack => {
            let lifeboat = match make_store(state_dir, listener, Some(WAY_BACK_LOCK)) {
                Ok(store) => Lifeboat::over(Arc::new(store)),
                Err(error) => {
                    let readable = SqliteStore::look(&place).ok();
                    let readable = readable.map(|store| Arc::new(store) as Arc<dyn Store>);
                    Lifeboat::adrift(readable, format!("{error:#}"))
                }
            };
            let lifeboat = Arc::new(lifeboat);
            Ok((lifeboat.clone(), Some(lifeboat)))
        }
    }
}

impl App {
    /// Opens the store in `state_dir`, as a verb needs it.
    pub fn open(
        state_dir: &Path,
        surroundings: Surroundings,
        access: Access,
        listener: Listener,
    ) -> Result<Self> {
        let (store, lifeboat) = open_store(state_dir, access, &listener)?;
        let ports = Ports::new(state_dir, store.clone(), listener.clone());
        Ok(Self {
            lifeboat,
            ..Self::over(state_dir, surroundings, (store, ports), listener)
        })
    }

    /// Over a store that is open already, and the ports that were made for it.
    #[must_use]
    pub fn over(
        state_dir: &Path,
        surroundings: Surroundings,
        (store, ports): (Arc<dyn Store>, Ports),
        listener: Listener,
    ) -> Self {
        let user = surroundings.user.clone();
        Self {
            state_dir: state_dir.to_owned(),
            store,
            lifeboat: None,
            clock: Arc::new(SystemClock),
            ports: Arc::new(ports),
            owner: process::this(),
            listener,
            actor: user.unwrap_or_else(|| "somebody".to_owned()),
            surroundings,
        }
    }

    /// Tells something worth knowing.
    pub fn note(&self, text: impl Into<String>) {
        (self.listener)(News::Note(text.into()));
    }

    /// Tells what is being done or waited for.
    pub fn progress(&self, text: impl Into<String>) {
        (self.listener)(News::Progress(text.into()));
    }

    /// Why nothing can be written down, on the way back; none if it can.
    #[must_use]
    pub fn unwritten(&self) -> Option<String> {
        self.lifeboat.as_ref().and_then(|l| l.failed())
    }

    /// Tells what the way back has left out of the journal.
    pub fn say_unwritten(&self) {
        if let Some(why) = self.unwritten() {
            self.note(format!(
                "this could not be written down, so `engine history` and `engine status` do not know of it: {why}"
            ));
        }
    }

    /// The store that could not be written to, on the way back.
    #[must_use]
    pub fn below(&self) -> Option<Arc<dyn Store>> {
        self.lifeboat.as_ref().and_then(|l| l.below())
    }

    /// The same app, over what is left of a store that has just failed.
    #[must_use]
    pub fn in_lifeboat(&self, why: String, rollout: &str, entries: Vec<Entry>) -> Self {
        let lifeboat = Arc::new(Lifeboat::adrift(Some(self.store.clone()), why));
        lifeboat.take_along(rollout, entries);
        Self {
            state_dir: self.state_dir.clone(),
            store: lifeboat.clone(),
            lifeboat: Some(lifeboat),
            clock: self.clock.clone(),
            ports: self.ports.clone(),
            owner: self.owner.clone(),
            listener: self.listener.clone(),
            actor: self.actor.clone(),
            surroundings: self.surroundings.clone(),
        }
    }

    /// A driver for rollouts.
    #[must_use]
    pub fn driver(&self, options: Options) -> Driver {
        Driver {
            store: self.store.clone(),
            clock: self.clock.clone(),
            resolve: self.ports.clone(),
            owner: self.owner.clone(),
            options,
        }
    }
}

/// What the environment of the process says, as the front end has read it.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `XDG_STATE_HOME`
    pub state_home: Option<PathBuf>,
    /// `HOME`
    pub home: Option<PathBuf>,
    /// `USER`
    pub user: Option<String>,
    /// `CI` is set, and not to `false` or `0`.
    pub ci: bool,
    /// `DOCKER_CONFIG`
    pub docker_config: Option<PathBuf>,
    /// `COSIGN_PASSWORD`, also an empty one.
    pub cosign_password: Option<String>,
    /// `ENGINE_POLICY`
    pub policy: Option<PathBuf>,
    /// Variables that fill in parameters of a stack, by name.
    pub stack: BTreeMap<String, String>,
}

impl Surroundings {
    /// Where the state is kept if nothing else is said.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        let base = self
            .state_home
            .clone()
            .or_else(|| self.home.as_ref().map(|h| h.join(".local/state")));
        base.unwrap_or_else(|| PathBuf::from(".")).join("engine")
    }
}

/// Makes or mends the state folder: its owner's alone.
pub fn make_private(state_dir: &Path, listener: &Listener) -> Result<()> {
    let shown = state_dir.display();
    match private::state_folder(state_dir) {
        Ok(mended) => say_mended(state_dir, mended, listener),
        // Somebody else's folder: the verbs work in it all the same.
        Err(error) if state_dir.is_dir() => {
            listener(News::Note(format!(
                "{shown} cannot be made a folder of yours alone: {error}"
            )));
        }
        Err(error) => {
            return Err(error).with_context(|| format!("failed to make the state folder {shown}"));
        }
    }
    Ok(())
}

fn say_mended(state_dir: &Path, mended: usize, listener: &Listener) {
    if mended > 0 {
        listener(News::Note(format!(
            "others could read {mended} files and folders of {}, where journals and logs are; now only you can",
            state_dir.display()
        )));
    }
}

//! What every operation works with: the store, the targets, the person who asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::advice::{Ask, Input};
use super::error::{Context as _, Error, Result};
use super::news::{Listener, News, Note};
use super::ports::Ports;
use super::private;
use crate::clock::{Clock, SystemClock};
use crate::journal::Entry;
use crate::model::network::Network;
use crate::rollout::{Driver, Options};
use crate::store::lifeboat::Lifeboat;
use crate::store::memory::MemoryStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Owner, Store, process};
use crate::target::tls::certificates;

/// The store, the ports and the process that an operation works with. Clones share
/// them.
#[derive(Clone)]
pub struct App {
    /// Folder of the store, the compile cache and the logs.
    pub state_dir: PathBuf,
    /// The rollouts.
    pub store: Arc<dyn Store>,
    /// The same store, for a verb that takes traffic back.
    lifeboat: Option<Arc<Lifeboat>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Targets and strategies.
    pub ports: Arc<Ports>,
    /// This process.
    pub owner: Owner,
    /// Receives the news.
    pub listener: Listener,
    /// Name of the person who asks.
    pub actor: String,
    /// The environment of the process.
    pub surroundings: Surroundings,
}

/// How a verb uses the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It must be able to write.
    Write,
    /// It only reads: without a lock, and without the permission to write.
    Read,
    /// It only reads, and says more of a store that cannot be read than that.
    Look,
    /// It takes traffic back, even if nothing can be written down.
    WayBack,
}

/// How long the way back waits for another process's lock.
const WAY_BACK_LOCK: std::time::Duration = std::time::Duration::from_secs(2);

/// Opens the store in a folder; makes both if they do not exist.
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

/// A store, and the lifeboat that it is if the verb takes traffic back.
type Opened = (Arc<dyn Store>, Option<Arc<Lifeboat>>);

/// Opens the store.
fn open_store(state_dir: &Path, access: Access, listener: &Listener) -> Result<Opened> {
    let place = state_dir.join("engine.db");
    match access {
        Access::Write => {
            let store = make_store(state_dir, listener, None).map_err(|e| {
                e.ask(Ask::TakeBack, "works without the store")
                    .give(Input::StateFolder, "names another one")
            })?;
            Ok((Arc::new(store), None))
        }
        // An empty file is a store that was only just begun.
        Access::Read if std::fs::metadata(&place).is_ok_and(|m| m.len() > 0 || !m.is_file()) => {
            // If the folder's mode cannot be corrected, it is read all the same.
            if let Ok(mended) = private::state_folder(state_dir) {
                say_mended(state_dir, mended, listener);
            }
            Ok((Arc::new(SqliteStore::look(&place)?), None))
        }
        Access::Read => Ok(match make_store(state_dir, listener, None) {
            Ok(store) => (Arc::new(store), None),
            // There is nothing to read, and no reason to make a store.
            Err(_) => (Arc::new(MemoryStore::default()), None),
        }),
        Access::Look => Ok(open_store(state_dir, Access::Read, listener)
            .unwrap_or_else(|_| (Arc::new(MemoryStore::default()), None))),
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

/// The key of what [`try_store`] writes.
const TRIED: &str = "tried";

/// Opens the store in a folder as a verb that writes does, writes into it, and reads what
/// it wrote.
///
/// # Errors
/// Internal, with what a person can do: one of these failed.
pub async fn try_store(state_dir: &Path, listener: &Listener) -> Result<()> {
    let (store, _) = open_store(state_dir, Access::Write, listener)?;
    let now = SystemClock.now().to_string();
    let tried = async {
        store.remember(TRIED, &now).await?;
        store.recall(TRIED).await
    };
    let read = tried.await.map_err(|error| {
        Error::from(error)
            .context(format!("the store in {} fails", state_dir.display()))
            .hint("see whether its disk is full or read-only")
            .give(Input::StateFolder, "names another one")
    })?;
    match read.as_ref() == Some(&now) {
        true => Ok(()),
        // Another process has tried it at the same time.
        false if read.is_some() => Ok(()),
        false => Err(Error::internal(format!(
            "the store in {} does not keep what is written into it",
            state_dir.display()
        ))),
    }
}

impl App {
    /// Opens the store in `state_dir`, as a verb needs it.
    pub fn open(
        state_dir: &Path,
        mut surroundings: Surroundings,
        access: Access,
        listener: Listener,
    ) -> Result<Self> {
        let (store, lifeboat) = open_store(state_dir, access, &listener)?;
        settle(&mut surroundings.network, &listener);
        let ports = Ports::new(state_dir, store.clone(), listener.clone())
            .with_network(surroundings.network.clone());
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

    /// Reports something worth knowing.
    pub fn note(&self, note: impl Into<Note>) {
        (self.listener)(News::Note(note.into()));
    }

    /// Reports what is being done or waited for.
    pub fn progress(&self, text: impl Into<String>) {
        (self.listener)(News::Progress(text.into()));
    }

    /// Why nothing can be written down, on the way back; `None` if it can.
    #[must_use]
    pub fn unwritten(&self) -> Option<String> {
        self.lifeboat.as_ref().and_then(|l| l.failed())
    }

    /// Notes what the way back could not write down.
    pub fn say_unwritten(&self) {
        if let Some(why) = self.unwritten() {
            self.note(format!(
                "this could not be written down, so neither the history nor the status of a rollout knows of it: {why}"
            ));
        }
    }

    /// On the way back, the store that could not be written to.
    #[must_use]
    pub fn below(&self) -> Option<Arc<dyn Store>> {
        self.lifeboat.as_ref().and_then(|l| l.below())
    }

    /// The same app, with what is left of a store that has just failed.
    #[must_use]
    pub fn in_lifeboat(&self, why: String, rollout: &str, entries: Vec<Entry>) -> Self {
        let lifeboat = Arc::new(Lifeboat::adrift(Some(self.store.clone()), why));
        lifeboat.take_along(rollout, entries);
        Self {
            store: lifeboat.clone(),
            lifeboat: Some(lifeboat),
            ..self.clone()
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

/// Leaves out proxies and certificates that cannot be used, and notes it. It is no error,
/// because not every verb needs them, and the way back may do without.
fn settle(network: &mut Network, listener: &Listener) {
    let mut troubles = network.settle();
    if let Some(Err(trouble)) = network.ca_bundle.as_deref().map(certificates) {
        network.ca_bundle = None;
        troubles.push(format!(
            "the certificates that AWS_CA_BUNDLE names are not trusted: {trouble}"
        ));
    }
    for trouble in troubles {
        listener(News::Note(trouble.into()));
    }
}

/// The environment of the process, as the front end has read it.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `ENGINE_STATE_DIR`
    pub state_dir: Option<PathBuf>,
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
    /// The folders of `PATH`.
    pub programs: Vec<PathBuf>,
    /// The folders where the engine's own strategies may be that came with this binary.
    pub plugins: Vec<PathBuf>,
    /// Proxies and certificates: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`
    /// and `AWS_CA_BUNDLE`.
    pub network: Network,
    /// Variables that give parameters of a stack, by name.
    pub stack: BTreeMap<String, String>,
}

/// The variable that names the stack of `deploy` and `delete` where neither a flag nor a
/// file does.
pub const STACK_VARIABLE: &str = "STACK_NAME";

impl Surroundings {
    /// The state folder if none is named.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        if let Some(named) = &self.state_dir {
            return named.clone();
        }
        let base = self
            .state_home
            .clone()
            .or_else(|| self.home.as_ref().map(|h| h.join(".local/state")));
        base.unwrap_or_else(|| PathBuf::from(".")).join("engine")
    }
}

/// Makes the state folder, or corrects its mode: it is for its owner alone.
pub fn make_private(state_dir: &Path, listener: &Listener) -> Result<()> {
    let shown = state_dir.display();
    match private::state_folder(state_dir) {
        Ok(mended) => say_mended(state_dir, mended, listener),
        // The folder of another user can be used all the same.
        Err(error) if state_dir.is_dir() => {
            let note = format!("{shown} cannot be made readable for you alone: {error}");
            listener(News::Note(note.into()));
        }
        Err(error) => {
            return Err(error).with_context(|| format!("failed to make the state folder {shown}"));
        }
    }
    Ok(())
}

fn say_mended(state_dir: &Path, mended: usize, listener: &Listener) {
    if mended > 0 {
        let note = format!(
            "others could read {mended} files and folders of {}, where journals and logs are; now only you can",
            state_dir.display()
        );
        listener(News::Note(note.into()));
    }
}

//! The composition root: which store, which target, which strategy host.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::Mutex;

use super::exit::Failure;
use crate::clock::{Clock, SystemClock};
use crate::journal::status::Status;
use crate::journal::{Entry, Event, Header};
use crate::model::HostError;
use crate::rollout::{Driver, Options, Resolve, Strategy};
use crate::spec::{Spec, TargetSpec};
use crate::store::sqlite::SqliteStore;
use crate::store::{Busy, Owner, Store};
use crate::strategy::Host;
use crate::strategy::limits::Limits;
use crate::target::Target;
use crate::target::local::balancer::Balancer;
use crate::target::local::load::Load;
use crate::target::local::{self, LocalTarget};

/// Everything that a verb works with.
pub struct App {
    /// Folder of the store, the compile cache and the logs.
    pub state_dir: PathBuf,
    /// Where rollouts live.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Targets and strategies.
    pub ports: Arc<Ports>,
    /// This process.
    pub owner: Owner,
    /// Who types.
    pub actor: String,
}

impl App {
    /// Opens the store in `state_dir`, which is made if it is not there.
    pub fn open(state_dir: &Path, actor: String) -> anyhow::Result<Self> {
        std::fs::create_dir_all(state_dir)
            .with_context(|| format!("failed to make the state folder {}", state_dir.display()))?;
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&state_dir.join("engine.db"))?);
        let ports = Ports {
            state_dir: state_dir.to_owned(),
            store: store.clone(),
            host: std::sync::OnceLock::new(),
            embedded: Mutex::default(),
        };
        Ok(Self {
            state_dir: state_dir.to_owned(),
            store,
            clock: Arc::new(SystemClock),
            ports: Arc::new(ports),
            owner: this_process(),
            actor,
        })
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

    /// A rollout's journal and what it adds up to.
    pub async fn journal(&self, id: &str) -> anyhow::Result<(Header, Status, Vec<Entry>)> {
        let entries = self.store.load(id, 0).await?;
        match (entries.first().map(|e| &e.event), Status::of(&entries)) {
            (Some(Event::Started(header)), Some(status)) => {
                Ok(((**header).clone(), status, entries))
            }
            _ => Err(Failure::usage(format!(
                "there is no rollout {id:?}; `engine list` shows them"
            ))),
        }
    }

    /// The rollout that is meant: the one named, or the newest unfinished one.
    pub async fn unfinished(&self, id: Option<&str>) -> anyhow::Result<String> {
        if let Some(id) = id {
            self.journal(id).await?;
            return Ok(id.to_owned());
        }
        self.newest_open().await?.ok_or_else(|| {
            Failure::usage("no rollout is under way; name one, or see `engine list`")
        })
    }

    /// The newest rollout that has not ended.
    pub async fn newest_open(&self) -> anyhow::Result<Option<String>> {
        let listed = self.store.list(1_000).await?;
        let open = listed
            .into_iter()
            .find(|l| !matches!(l.last.event, Event::Ended { .. }));
        Ok(open.map(|l| l.header.rollout))
    }

    /// Who drives a rollout right now, if a living process does.
    pub async fn living_owner(&self, header: &Header) -> anyhow::Result<Option<Busy>> {
        let busy = self.store.occupant(&header.identity).await?;
        Ok(busy.filter(|b| {
            b.rollout == header.rollout
                && b.expires > self.clock.now()
                && b.owner.as_ref().is_some_and(|o| !self.ports.is_dead(o))
        }))
    }
}

/// Reads the rollout file that a flag names, or `rollout.toml` if it is there.
pub fn read_spec(file: Option<&Path>) -> anyhow::Result<Option<Spec>> {
    let default = Path::new("rollout.toml");
    let path = match file {
        Some(path) => path,
        None if default.exists() => default,
        None => return Ok(None),
    };
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::usage(format!("failed to read {}: {e}", path.display())))?;
    Spec::parse(&text).map(Some).map_err(|e| {
        Failure::usage(format!(
            "{} has {}:\n{e}",
            path.display(),
            if e.0.len() == 1 {
                "a problem"
            } else {
                "problems"
            }
        ))
    })
}

/// Gets what a journal's header names, once per process.
pub struct Ports {
    state_dir: PathBuf,
    store: Arc<dyn Store>,
    host: std::sync::OnceLock<Arc<Host>>,
    embedded: Mutex<HashMap<SocketAddr, Embedded>>,
}

/// A balancer in this process, with its load.
pub struct Embedded {
    /// The balancer.
    pub balancer: Balancer,
    /// Requests of our own, if there are any.
    pub load: Option<Load>,
}

impl Ports {
    /// The strategy host; made when it is first needed.
    pub fn host(&self) -> anyhow::Result<Arc<Host>> {
        if let Some(host) = self.host.get() {
            return Ok(host.clone());
        }
        let cache = self.state_dir.join("compiled");
        let host = Host::new(Some(&cache), Limits::default())
            .map_err(|e| anyhow::anyhow!("failed to start the strategy host: {e:#}"))?;
        Ok(self.host.get_or_init(|| Arc::new(host)).clone())
    }

    /// Where a target is now, without starting anything.
    pub async fn reach(&self, spec: &TargetSpec) -> Result<LocalTarget, HostError> {
        let admin = match spec {
            TargetSpec::Local { admin } => *admin,
            TargetSpec::Embedded { local, .. } => local.admin,
            TargetSpec::Simulated { name } => {
                return Err(HostError::new(
                    crate::model::ErrorKind::Invalid,
                    "simulated",
                    format!("the target {name:?} is simulated; it cannot be reached"),
                ));
            }
        };
        let target = LocalTarget::new(admin);
        target.observe().await?;
        Ok(target)
    }

    /// The target of a new rollout, started in this process if it must be, and
    /// the set-up to write down so that any process finds it again.
    pub async fn start(
        &self,
        spec: &TargetSpec,
    ) -> anyhow::Result<(Arc<dyn Target>, TargetSpec, bool)> {
        if !matches!(spec, TargetSpec::Embedded { local, .. } if local.admin.port() == 0)
            && let Ok(target) = self.reach(spec).await
        {
            return Ok((Arc::new(target), spec.clone(), false));
        }
        let TargetSpec::Embedded {
            local,
            state,
            load_rps,
        } = spec
        else {
            return Ok((Arc::new(self.reach(spec).await?), spec.clone(), false));
        };
        let place = state.as_ref().map(PathBuf::from);
        let mut embedded = self.embedded.lock().await;
        let balancer = match Balancer::start(local, place.as_deref()).await {
            Ok(balancer) => balancer,
            Err(error) => {
                // Another engine may have started it a moment ago.
                return match self.reach(spec).await {
                    Ok(target) => Ok((Arc::new(target), spec.clone(), false)),
                    Err(_) => Err(Failure::usage(error.to_string())),
                };
            }
        };
        let load = (*load_rps > 0).then(|| local::load::start(balancer.listen, *load_rps));
        let mut fixed = local.clone();
        (fixed.listen, fixed.admin) = (balancer.listen, balancer.admin);
        let target = Arc::new(LocalTarget::new(balancer.admin));
        embedded.insert(balancer.admin, Embedded { balancer, load });
        let spec = TargetSpec::Embedded {
            local: fixed,
            state: state.clone(),
            load_rps: *load_rps,
        };
        Ok((target, spec, true))
    }

    /// Requests that the built-in load has sent, and how many failed.
    pub async fn load_seen(&self) -> Option<(u64, u64)> {
        use std::sync::atomic::Ordering;
        let embedded = self.embedded.lock().await;
        let load = embedded.values().find_map(|e| e.load.as_ref())?;
        Some((
            load.seen.sent.load(Ordering::Relaxed),
            load.seen.failed.load(Ordering::Relaxed),
        ))
    }

    /// Whether a balancer runs in this process.
    pub async fn balances(&self) -> bool {
        !self.embedded.lock().await.is_empty()
    }

    /// Lets the balancers of this process finish their requests.
    pub async fn stop(&self) {
        for (_, embedded) in self.embedded.lock().await.drain() {
            drop(embedded.load);
            embedded.balancer.stop().await;
        }
    }
}

#[async_trait]
impl Resolve for Ports {
    async fn target(&self, spec: &TargetSpec) -> Result<Arc<dyn Target>, HostError> {
        let unavailable = |e: &anyhow::Error| {
            HostError::new(
                crate::model::ErrorKind::Unavailable,
                "target-unreachable",
                e.to_string(),
            )
        };
        let (target, _, _) = self.start(spec).await.map_err(|e| unavailable(&e))?;
        Ok(target)
    }

    async fn strategy(&self, sha256: &str) -> Result<Arc<dyn Strategy>, String> {
        let host = self.host().map_err(|e| e.to_string())?;
        if let Some(plugin) = host.get(sha256) {
            return Ok(plugin);
        }
        let bytes = self
            .store
            .content(sha256)
            .await
            .map_err(|e| e.to_string())?;
        let bytes = bytes.ok_or_else(|| {
            format!("the store has no plugin with digest {sha256}; was its folder copied in part?")
        })?;
        let plugin = host.load(&bytes).await.map_err(|e| e.to_string())?;
        Ok(plugin)
    }

    fn is_dead(&self, owner: &Owner) -> bool {
        owner.host == this_host() && process_started(owner.pid).as_ref() != Some(&owner.started)
    }
}

/// One boot of one machine. Without it nobody is ever taken for dead, and a
/// lease must expire.
fn this_host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

/// When a process of this machine started, in the kernel's ticks.
fn process_started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; fields count from its end.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // A zombie has ended: it holds nothing any more.
    if fields.first() == Some(&"Z") {
        return None;
    }
    fields.get(19).map(|start| (*start).to_owned())
}

fn this_process() -> Owner {
    let pid = std::process::id();
    let host = this_host();
    Owner {
        // On a machine without these files two processes must differ too.
        host: if host.is_empty() {
            format!("unknown-{pid}")
        } else {
            host
        },
        pid,
        started: process_started(pid).unwrap_or_default(),
    }
}

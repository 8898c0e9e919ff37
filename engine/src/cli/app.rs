//! The composition root: which store, which target, which strategy host.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::Mutex;

use super::Surroundings;
use super::exit::Failure;
use super::private;
use crate::clock::{Clock, SystemClock};
use crate::journal::status::Status;
use crate::journal::{Entry, Event, Header};
use crate::model::HostError;
use crate::rollout::{Driver, Options, Resolve, Strategy};
use crate::spec::aws::{Access as AwsAccess, AwsSpec, Found};
use crate::spec::{LocalSpec, Spec, TargetSpec};
use crate::store::lifeboat::Lifeboat;
use crate::store::memory::MemoryStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Busy, Lease, Open, Owner, Store, process};
use crate::strategy::Host;
use crate::strategy::limits::Limits;
use crate::supply::files;
use crate::target::Target;
use crate::target::aws::client::{Clients, Patience};
use crate::target::aws::{self, AwsTarget};
use crate::target::local::balancer::Balancer;
use crate::target::local::load::Load;
use crate::target::local::{self, LocalTarget};

/// Everything that a verb works with.
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
    /// Who types.
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

/// Most unfinished rollouts that nobody drives whose targets are asked whether they
/// answer, to find the one that is meant.
const IN_SIGHT_MAX: usize = 20;

/// How long the way back waits for another process's lock.
const WAY_BACK_LOCK: std::time::Duration = std::time::Duration::from_secs(2);

/// Opens or makes the store in a folder, which is made if it is not there.
fn make_store(
    state_dir: &Path,
    patience: Option<std::time::Duration>,
) -> anyhow::Result<SqliteStore> {
    make_private(state_dir)?;
    let place = state_dir.join("engine.db");
    Ok(match patience {
        Some(patience) => SqliteStore::open_within(&place, patience)?,
        None => SqliteStore::open(&place)?,
    })
}

/// A store, which is a lifeboat where the verb needs one.
type Opened = (Arc<dyn Store>, Option<Arc<Lifeboat>>);

/// Opens the store for that.
fn open_store(state_dir: &Path, access: Access) -> anyhow::Result<Opened> {
    let place = state_dir.join("engine.db");
    match access {
        Access::Write => {
            let store = make_store(state_dir, None).map_err(|e| {
                e.context("hint: `engine rollback` and `engine abort` work without the store; --state-dir names another one")
            })?;
            Ok((Arc::new(store), None))
        }
        // One that was only just begun is empty.
        Access::Read if std::fs::metadata(&place).is_ok_and(|m| m.len() > 0 || !m.is_file()) => {
            // Where that cannot be done, reading goes on all the same.
            if let Ok(mended) = private::state_folder(state_dir) {
                say_mended(state_dir, mended);
            }
            Ok((Arc::new(SqliteStore::look(&place)?), None))
        }
        Access::Read => Ok(match make_store(state_dir, None) {
            Ok(store) => (Arc::new(store), None),
            // There is nothing to read, and no need to make something.
            Err(_) => (Arc::new(MemoryStore::default()), None),
        }),
        Access::WayBack => {
            let lifeboat = match make_store(state_dir, Some(WAY_BACK_LOCK)) {
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
    ) -> anyhow::Result<Self> {
        let (store, lifeboat) = open_store(state_dir, access)?;
        let ports = Ports {
            notices: std::sync::Mutex::default(),
            state_dir: state_dir.to_owned(),
            store: store.clone(),
            host: std::sync::OnceLock::new(),
            embedded: Mutex::default(),
            clients: Mutex::default(),
            on_aws: Mutex::default(),
        };
        Ok(Self {
            state_dir: state_dir.to_owned(),
            store,
            lifeboat,
            clock: Arc::new(SystemClock),
            ports: Arc::new(ports),
            owner: process::this(),
            actor: surroundings
                .user
                .clone()
                .unwrap_or_else(|| "somebody".to_owned()),
            surroundings,
        })
    }

    /// Why nothing can be written down, on the way back; none if it can.
    #[must_use]
    pub fn unwritten(&self) -> Option<String> {
        self.lifeboat.as_ref().and_then(|l| l.failed())
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

    /// The unfinished rollout on a target.
    pub async fn on_target(&self, identity: &str) -> anyhow::Result<String> {
        match self.store.open(Some(identity)).await?.into_iter().next() {
            Some(open) => Ok(open.summary.rollout),
            None => Err(Failure::usage(format!(
                "no rollout is under way on {identity}; see `engine list`"
            ))),
        }
    }

    /// The rollout that is meant: the one named, or the newest unfinished one.
    pub async fn unfinished(&self, id: Option<&str>) -> anyhow::Result<String> {
        if let Some(id) = id {
            self.journal(id).await?;
            return Ok(id.to_owned());
        }
        let open = self.open_rollouts().await?;
        let driven: Vec<&Open> = open.iter().filter(|o| self.lives(&o.busy)).collect();
        match (&open[..], &driven[..]) {
            ([], _) => Err(Failure::usage(
                "no rollout is under way; name one, or see `engine list`",
            )),
            ([one], _) => Ok(one.summary.rollout.clone()),
            (_, [one]) => Ok(one.summary.rollout.clone()),
            (several, _) => {
                let ids: Vec<String> = several
                    .iter()
                    .map(|o| format!("  {} on {}", o.summary.rollout, o.summary.target))
                    .collect();
                Err(Failure::usage(format!(
                    "several rollouts are under way; name one of them:\n{}",
                    ids.join("\n")
                )))
            }
        }
    }

    /// The rollouts that have not ended, newest first.
    pub async fn open_rollouts(&self) -> anyhow::Result<Vec<Open>> {
        Ok(self.store.open(None).await?)
    }

    /// The newest unfinished rollout whose target answers; else the newest one
    /// that at least has a living driver.
    pub async fn rollout_in_sight(&self) -> anyhow::Result<Option<Header>> {
        for (nth, open) in self.open_rollouts().await?.iter().enumerate() {
            let driven = self.lives(&open.busy);
            if !driven && nth >= IN_SIGHT_MAX {
                continue;
            }
            let Some(header) = self.store.header(&open.summary.rollout).await? else {
                continue;
            };
            if driven || self.ports.reach(&header.target).await.is_ok() {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Gives up the driver's seat of a suspended rollout, so that any process
    /// may take it; the rollout goes on occupying its target.
    pub async fn let_go(&self, rollout: &str) -> anyhow::Result<()> {
        let (header, ..) = self.journal(rollout).await?;
        match self.store.occupant(&header.identity).await? {
            Some(busy) if busy.driver() == Some(&self.owner) => {
                let lease = Lease {
                    target: header.identity,
                    rollout: busy.rollout,
                    epoch: busy.epoch,
                };
                Ok(self.store.park(&lease, None).await?)
            }
            _ => Ok(()),
        }
    }

    /// Who drives a rollout right now, if a living process does.
    pub async fn living_owner(&self, header: &Header) -> anyhow::Result<Option<Busy>> {
        let busy = self.store.occupant(&header.identity).await?;
        Ok(busy.filter(|busy| self.is_driven(header, busy)))
    }

    /// Whether that is a living process that drives the rollout.
    pub fn is_driven(&self, header: &Header, busy: &Busy) -> bool {
        busy.rollout == header.rollout && self.lives(busy)
    }

    /// Whether a living process drives what occupies a target, or means to wake it.
    fn lives(&self, busy: &Busy) -> bool {
        let alive = busy.driver().is_some_and(|o| !self.store.is_dead(o));
        busy.expires > self.clock.now() && alive
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
    let text = files::read_text(path, files::TEXT_BYTES_MAX)
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
    /// What is to be shown by who draws on the screen; none while nobody does.
    notices: std::sync::Mutex<Option<Vec<String>>>,
    state_dir: PathBuf,
    store: Arc<dyn Store>,
    host: std::sync::OnceLock<Arc<Host>>,
    embedded: Mutex<HashMap<SocketAddr, Embedded>>,
    clients: Mutex<HashMap<AwsAccess, Clients>>,
    /// Targets on AWS, by the ARN of their listener or rule.
    on_aws: Mutex<HashMap<String, Arc<AwsTarget>>>,
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
        let kept = match private::folder(&cache) {
            Ok(()) => Some(cache.as_path()),
            Err(error) => {
                eprintln!(
                    "note: compiled plugins are not kept, because {} cannot be made a folder of yours alone: {error}",
                    cache.display()
                );
                None
            }
        };
        let host = Host::new(kept, Limits::default())
            .map_err(|e| anyhow::anyhow!("failed to start the strategy host: {e:#}"))?;
        Ok(self.host.get_or_init(|| Arc::new(host)).clone())
    }

    /// Clients for AWS, one set for each account and region.
    pub async fn clients(&self, access: &AwsAccess) -> Clients {
        let mut all = self.clients.lock().await;
        if let Some(clients) = all.get(access) {
            return clients.clone();
        }
        let clients = Clients::connect(access, &Patience::default()).await;
        all.insert(access.clone(), clients.clone());
        clients
    }

    /// A target on AWS: as a rollout has pinned it, as it was found before if it
    /// is still there, or found now.
    pub async fn on_aws(&self, spec: &AwsSpec) -> Result<Arc<AwsTarget>, HostError> {
        match self.known_on_aws(spec).await {
            Some(target) => Ok(target),
            None => self.find_on_aws(spec).await,
        }
    }

    /// As much of a target on AWS as the way back needs: it is looked for at the
    /// load balancer alone.
    pub async fn way_back_on_aws(&self, spec: &AwsSpec) -> Result<Arc<AwsTarget>, HostError> {
        if let Some(target) = self.known_on_aws(spec).await {
            return Ok(target);
        }
        let clients = self.clients(&spec.access).await;
        let found = aws::find_route(&clients, &spec.find).await?;
        Ok(self.keep(clients, spec, found).await)
    }

    async fn known_on_aws(&self, spec: &AwsSpec) -> Option<Arc<AwsTarget>> {
        let clients = self.clients(&spec.access).await;
        if let Some(found) = &spec.found {
            return Some(self.keep(clients, spec, found.clone()).await);
        }
        let key = key(&clients.region, spec);
        let remembered = self.store.recall(&key).await.unwrap_or_default();
        let found = remembered.and_then(|text| serde_json::from_str(&text).ok())?;
        let target = self.keep(clients, spec, found).await;
        match target.verify().await {
            Err(error) if !error.retryable => None,
            _ => Some(target),
        }
    }

    /// A target on AWS as it is now, whatever was found before.
    pub async fn find_on_aws(&self, spec: &AwsSpec) -> Result<Arc<AwsTarget>, HostError> {
        let clients = self.clients(&spec.access).await;
        let key = key(&clients.region, spec);
        let found = aws::discover(&clients, &spec.find).await?;
        if let Ok(text) = serde_json::to_string(&found) {
            // Only a shortcut: without it the next verb looks again.
            let _ = self.store.remember(&key, &text).await;
        }
        Ok(self.keep(clients, spec, found).await)
    }

    async fn keep(&self, clients: Clients, spec: &AwsSpec, found: Found) -> Arc<AwsTarget> {
        let mut all = self.on_aws.lock().await;
        if let Some(target) = all.get(&found.route).filter(|t| *t.found() == found) {
            return target.clone();
        }
        let target = AwsTarget::new(clients, spec.clone(), found, Arc::new(SystemClock));
        let target = Arc::new(target);
        all.insert(target.identity().to_owned(), target.clone());
        target
    }

    /// Where a target is now, without starting anything.
    pub async fn reach(&self, spec: &TargetSpec) -> Result<Arc<dyn Target>, HostError> {
        Ok(match spec {
            TargetSpec::Aws(spec) => self.on_aws(spec).await?,
            local => Arc::new(self.reach_local(local).await?),
        })
    }

    async fn reach_local(&self, spec: &TargetSpec) -> Result<LocalTarget, HostError> {
        let admin = match spec {
            TargetSpec::Local { admin } => *admin,
            TargetSpec::Embedded { local, .. } => local.admin,
            TargetSpec::Aws(_) => {
                return Err(HostError::new(
                    crate::model::ErrorKind::Internal,
                    "not-local",
                    "a target on AWS is not local",
                ));
            }
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
        if let TargetSpec::Aws(aws) = spec {
            // A rollout pins what it finds, so it looks again.
            let target = match aws.found {
                Some(_) => self.on_aws(aws).await?,
                None => self.find_on_aws(aws).await?,
            };
            let pinned = AwsSpec {
                found: Some(target.found().clone()),
                ..(**aws).clone()
            };
            return Ok((target, TargetSpec::Aws(Box::new(pinned)), false));
        }
        if !matches!(spec, TargetSpec::Embedded { local, .. } if local.admin.port() == 0)
            && let Ok(target) = self.reach_local(spec).await
        {
            if let TargetSpec::Embedded { local, .. } = spec {
                same_arms(local, &target).await?;
            }
            return Ok((Arc::new(target), spec.clone(), false));
        }
        let TargetSpec::Embedded {
            local,
            state,
            load_rps,
        } = spec
        else {
            return Ok((self.reach(spec).await?, spec.clone(), false));
        };
        let place = state.as_ref().map(PathBuf::from);
        let logs = self.state_dir.join("logs");
        let mut embedded = self.embedded.lock().await;
        let balancer = match Balancer::start(local, place.as_deref(), Some(&logs)).await {
            Ok(balancer) => balancer,
            Err(error) => {
                // Another engine may have started it a moment ago.
                return match self.reach(spec).await {
                    Ok(target) => Ok((target, spec.clone(), false)),
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

    /// The notices that came since the last time. From the first time on they are
    /// kept for who asks.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.replace(vec![]).unwrap_or_default()
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
        if let TargetSpec::Aws(spec) = spec {
            return Ok(self.on_aws(spec).await?);
        }
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
        let bytes = self.store.get(sha256).await.map_err(|e| e.to_string())?;
        let bytes = bytes.ok_or_else(|| {
            format!("the store has no plugin with digest {sha256}; was its folder copied in part?")
        })?;
        let plugin = host.load_exactly(&bytes, sha256).await;
        let plugin = plugin.map_err(|e| e.to_string())?;
        Ok(plugin)
    }

    fn notice(&self, rollout: &str, text: &str) {
        let line = format!("rollout {rollout}: {text}");
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *notices {
            Some(kept) => kept.push(line),
            None => eprintln!("{line}"),
        }
    }
}

/// Makes or mends the state folder: its owner's alone.
pub(super) fn make_private(state_dir: &Path) -> anyhow::Result<()> {
    let shown = state_dir.display();
    match private::state_folder(state_dir) {
        Ok(mended) => say_mended(state_dir, mended),
        // Somebody else's folder: the verbs work in it all the same.
        Err(error) if state_dir.is_dir() => {
            eprintln!("note: {shown} cannot be made a folder of yours alone: {error}");
        }
        Err(error) => {
            return Err(error).with_context(|| format!("failed to make the state folder {shown}"));
        }
    }
    Ok(())
}

fn say_mended(state_dir: &Path, mended: usize) {
    if mended > 0 {
        eprintln!(
            "note: others could read {mended} files and folders of {}, where journals and logs are; now only you can",
            state_dir.display()
        );
    }
}

/// Under what a found target is remembered.
fn key(region: &str, spec: &AwsSpec) -> String {
    let wanted = serde_json::to_string(&(&spec.access, &spec.find)).unwrap_or_default();
    format!("target:{region}:{wanted}")
}

/// A balancer that somebody else started must be the one that the file means.
async fn same_arms(local: &LocalSpec, target: &LocalTarget) -> anyhow::Result<()> {
    let mut found = target.observe().await?.names();
    let mut wanted: Vec<String> = local.arms.iter().map(|a| a.name.clone()).collect();
    found.sort();
    wanted.sort();
    if found == wanted {
        return Ok(());
    }
    Err(Failure::busy(format!(
        "the balancer that runs at {} has the arms {}, and the rollout file has {}\n\nhint: stop that balancer, or give target.local.admin and listen other ports",
        local.admin,
        found.join(" and "),
        wanted.join(" and ")
    )))
}

//! The targets and plugins that journals name, found or started once in a process.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::error::{Error, Result};
use super::news::{Listener, News};
use super::private;
use crate::clock::SystemClock;
use crate::model::aws::{Access as AwsAccess, Also, AwsSpec, Found};
use crate::model::network::Network;
use crate::model::target::{LocalSpec, TargetSpec};
use crate::model::{ErrorKind, HostError};
use crate::rollout::{Resolve, Strategy};
use crate::store::Store;
use crate::strategy::Host;
use crate::strategy::limits::Limits;
use crate::target::Target;
use crate::target::aws::client::{Clients, Patience, configured_region};
use crate::target::aws::{self, AwsTarget, Routes};
use crate::target::local::balancer::{Balancer, Opened};
use crate::target::local::load::Load;
use crate::target::local::{self, LocalTarget};

/// How long a way back waits to hear which routes move together today.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// Finds or starts what a journal's header names, once in a process.
pub struct Ports {
    /// Notices for the front end that draws on the screen; `None` while none does.
    notices: std::sync::Mutex<Option<Vec<String>>>,
    listener: Listener,
    state_dir: PathBuf,
    store: Arc<dyn Store>,
    host: std::sync::OnceLock<Arc<Host>>,
    embedded: Mutex<HashMap<SocketAddr, Embedded>>,
    patience: Patience,
    clients: Mutex<HashMap<AwsAccess, Clients>>,
    /// Regions of ARNs that were compared with the configured one.
    compared: Mutex<HashSet<(AwsAccess, String)>>,
    /// Targets on AWS, by the ARN of their listener or rule.
    on_aws: Mutex<HashMap<String, Arc<AwsTarget>>>,
}

/// A balancer in this process, with its load.
pub struct Embedded {
    /// The balancer.
    pub balancer: Balancer,
    /// The built-in load, if there is one.
    pub load: Option<Load>,
}

impl Ports {
    /// Ports that have not found or started anything.
    #[must_use]
    pub fn new(state_dir: &Path, store: Arc<dyn Store>, listener: Listener) -> Self {
        Self {
            notices: std::sync::Mutex::default(),
            listener,
            state_dir: state_dir.to_owned(),
            store,
            host: std::sync::OnceLock::new(),
            embedded: Mutex::default(),
            patience: Patience::default(),
            clients: Mutex::default(),
            compared: Mutex::default(),
            on_aws: Mutex::default(),
        }
    }

    /// The same, with other times for AWS, or another address of it.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The same, through proxies and with certificates of the environment.
    #[must_use]
    pub fn with_network(mut self, network: Network) -> Self {
        self.patience.network = network;
        self
    }

    /// A local target, whose queries may ask other machines.
    fn local(&self, admin: SocketAddr) -> LocalTarget {
        LocalTarget::new(admin).with_network(&self.patience.network)
    }

    /// The strategy host, which is made when it is first needed.
    pub fn host(&self) -> Result<Arc<Host>> {
        if let Some(host) = self.host.get() {
            return Ok(host.clone());
        }
        let cache = self.state_dir.join("compiled");
        let kept = match private::folder(&cache) {
            Ok(()) => Some(cache.as_path()),
            Err(error) => {
                let note = format!(
                    "compiled plugins are not kept, because {} cannot be made readable for you alone: {error}",
                    cache.display()
                );
                (self.listener)(News::Note(note.into()));
                None
            }
        };
        let host = Host::new(kept, Limits::default())
            .map_err(|e| Error::internal(format!("failed to start the strategy host: {e:#}")))?;
        Ok(self.host.get_or_init(|| Arc::new(host)).clone())
    }

    /// Clients for AWS, one set for each account and region.
    pub async fn clients(&self, access: &AwsAccess) -> Clients {
        let mut all = self.clients.lock().await;
        if let Some(clients) = all.get(access) {
            return clients.clone();
        }
        // On the heap, because the SDK's futures are deep.
        let clients = Box::pin(Clients::connect(access, &self.patience)).await;
        all.insert(access.clone(), clients.clone());
        clients
    }

    /// Clients for the region of a target. An ARN says its region itself; a configured
    /// one that differs is passed over, and that is said once.
    ///
    /// # Errors
    /// ARNs of several regions were given.
    pub async fn clients_of(&self, spec: &AwsSpec) -> Result<Clients, HostError> {
        Ok(self.clients(&self.access_of(spec).await?).await)
    }

    /// The account and the region of a target: as with [`Self::clients_of`].
    ///
    /// # Errors
    /// ARNs of several regions were given.
    pub async fn access_of(&self, spec: &AwsSpec) -> Result<AwsAccess, HostError> {
        let Some((region, arn)) = spec.region_of_arns()? else {
            return Ok(spec.access.clone());
        };
        let compared = (spec.access.clone(), region.to_owned());
        if self.compared.lock().await.insert(compared)
            && let Some(configured) =
                configured_region(&spec.access, &self.patience.network.aws).await
            && configured != region
        {
            (self.listener)(News::Note(format!(
                "the region {region} is used, because {arn} lies there, and not the configured {configured}"
            ).into()));
        }
        Ok(AwsAccess {
            region: Some(region.to_owned()),
            ..spec.access.clone()
        })
    }

    /// A target on AWS: as a rollout has pinned it, as it was found before if that is still
    /// valid, or found now.
    pub async fn on_aws(&self, spec: &AwsSpec) -> Result<Arc<AwsTarget>, HostError> {
        let clients = self.clients_of(spec).await?;
        if let Some(found) = &spec.found {
            return Ok(self.keep(clients, spec, found.clone()).await);
        }
        if let Some((found, read)) = self.remembered(&clients, spec, Duration::MAX).await {
            let target = self.keep(clients, spec, found).await;
            let (read, unread) = read.into_parts();
            let verified = target.verify(read).await;
            if verified.map_or_else(|error| error.retryable, |()| true) {
                self.note_unread(unread);
                return Ok(target);
            }
        }
        self.find_on_aws(spec).await
    }

    /// A target on AWS for the way back, which is found through the load balancer
    /// alone. What it is remembered by is better than nothing: its own route may have gone
    /// while others still send users to the candidate.
    pub async fn way_back_on_aws(&self, spec: &AwsSpec) -> Result<Arc<AwsTarget>, HostError> {
        let clients = self.clients_of(spec).await?;
        if let Some(found) = &spec.found {
            return Ok(self.keep(clients, spec, found.clone()).await);
        }
        let mut known = None;
        if let Some((found, read)) = self.remembered(&clients, spec, LOOK_WITHIN).await {
            let target = self.keep(clients.clone(), spec, with_all(found)).await;
            let (read, unread) = read.into_parts();
            let seen = match unread {
                // Users wait, so the others are not asked for a second time.
                Some(_) => target.glance().await.map(drop),
                None => target.verify(read).await,
            };
            match seen {
                Err(error) if !error.retryable => known = Some((target, unread)),
                _ => {
                    self.note_unread(unread);
                    return Ok(target);
                }
            }
        }
        match (aws::find_route(&clients, &spec.find).await, known) {
            (Ok(found), _) => Ok(self.keep(clients, spec, with_all(found)).await),
            (Err(_), Some((known, unread))) if known.glance().await.is_ok() => {
                self.note_unread(unread);
                Ok(known)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The target that a rollout of the past was pinned to, with the routes that move
    /// together today: what came since moves too, and what went does not. How the pinned one
    /// is used stays.
    pub async fn anew(&self, pinned: &AwsSpec) -> Result<(Arc<AwsTarget>, AwsSpec), HostError> {
        let clients = self.clients_of(pinned).await?;
        let Some(found) = &pinned.found else {
            return Ok((self.on_aws(pinned).await?, pinned.clone()));
        };
        let (mut now, read) = todays_routes(&clients, pinned, found).await;
        match read {
            Today::Read(read) if !read.serves(&now) => now = now.led_by_another(),
            read => self.note_unread(read.into_parts().1),
        }
        let pinned = AwsSpec {
            found: Some(now.clone()),
            ..pinned.clone()
        };
        Ok((self.keep(clients, &pinned, now).await, pinned))
    }

    /// The routes that share requests between the two arms of a rollout's target today, and
    /// did not when it was pinned, as far as they send any elsewhere than `home`; none where
    /// one route moves alone.
    ///
    /// # Errors
    /// The load balancers do not answer.
    pub async fn newcomers(&self, pinned: &TargetSpec, home: &str) -> Result<Vec<Also>, HostError> {
        let TargetSpec::Aws(spec) = pinned else {
            return Ok(vec![]);
        };
        let Some(found) = spec.found.as_ref().filter(|_| !spec.find.only) else {
            return Ok(vec![]);
        };
        let clients = self.clients_of(spec).await?;
        let (now, read) = aws::routes_anew(&clients, found).await?;
        let mut came = with_all(now).also;
        came.retain(|also| {
            let is_new = found.routes().all(|known| known != also.route);
            is_new && read.strays(found, &also.route, home)
        });
        Ok(came)
    }

    /// What was found before, with the routes that move together today and what was read of
    /// them: listeners and rules come and go.
    async fn remembered(
        &self,
        clients: &Clients,
        spec: &AwsSpec,
        within: Duration,
    ) -> Option<(Found, Today)> {
        let key = key(&clients.region, spec);
        let remembered = self.store.recall(&key).await.unwrap_or_default();
        let found = remembered.and_then(|text| serde_json::from_str::<Found>(&text).ok())?;
        let today = tokio::time::timeout(within, todays_routes(clients, spec, &found)).await;
        let (now, read) = today.unwrap_or_else(|_| {
            let why = "the load balancers did not say it in time";
            let error = HostError::new(ErrorKind::Unavailable, "silent-routes", why);
            (found.clone(), Today::Unread(error.retryable()))
        });
        if now != found {
            self.remember(&key, &now).await;
        }
        Some((now, read))
    }

    /// Notes that a target is used as it was last found. Not of one that has gone: then what
    /// could not be read does not matter.
    fn note_unread(&self, unread: Option<HostError>) {
        if let Some(error) = unread {
            (self.listener)(News::Note(format!(
                "whether other listeners or rules share requests between the same two target groups by now could not be read, so only those move that did when the target was last found: {error}"
            ).into()));
        }
    }

    /// This only saves work: without it the next verb finds the target again.
    async fn remember(&self, key: &str, found: &Found) {
        if let Ok(text) = serde_json::to_string(found) {
            let _ = self.store.remember(key, &text).await;
        }
    }

    /// A target on AWS, found now.
    pub async fn find_on_aws(&self, spec: &AwsSpec) -> Result<Arc<AwsTarget>, HostError> {
        let clients = self.clients_of(spec).await?;
        let key = key(&clients.region, spec);
        let found = aws::discover(&clients, &spec.find).await?;
        self.remember(&key, &found).await;
        Ok(self.keep(clients, spec, found).await)
    }

    async fn keep(&self, clients: Clients, spec: &AwsSpec, found: Found) -> Arc<AwsTarget> {
        let mut all = self.on_aws.lock().await;
        if let Some(target) = all.get(&found.route).filter(|t| t.is(spec, &found)) {
            return target.clone();
        }
        let target = AwsTarget::new(clients, spec.clone(), found, Arc::new(SystemClock));
        let target = Arc::new(target);
        all.insert(target.identity().to_owned(), target.clone());
        target
    }

    /// The target, without starting anything.
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
                    ErrorKind::Internal,
                    "not-local",
                    "a target on AWS is not local",
                ));
            }
            TargetSpec::Simulated { name } => {
                return Err(HostError::new(
                    ErrorKind::Invalid,
                    "simulated",
                    format!("the target {name:?} is simulated, so no other process can use it"),
                ));
            }
        };
        let target = self.local(admin);
        target.observe().await?;
        Ok(target)
    }

    /// The target of a new rollout, started in this process if needed, and the set-up for
    /// the journal, with which any process finds it again.
    pub async fn start(&self, spec: &TargetSpec) -> Result<(Arc<dyn Target>, TargetSpec, bool)> {
        if let TargetSpec::Aws(aws) = spec {
            // A rollout pins its target, so it is found anew.
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
                // Another engine may have started it just before.
                return match self.reach(spec).await {
                    Ok(target) => Ok((target, spec.clone(), false)),
                    Err(_) => Err(Error::usage(error.to_string())),
                };
            }
        };
        tell_when_late(&balancer, &self.listener);
        let load = (*load_rps > 0).then(|| local::load::start(&balancer, *load_rps));
        let mut fixed = local.clone();
        (fixed.listen, fixed.admin) = (balancer.listen, balancer.admin);
        let target = Arc::new(self.local(balancer.admin));
        embedded.insert(balancer.admin, Embedded { balancer, load });
        let spec = TargetSpec::Embedded {
            local: fixed,
            state: state.clone(),
            load_rps: *load_rps,
        };
        Ok((target, spec, true))
    }

    /// The notices since the last call. From the first call on they are kept for the
    /// caller.
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
        let unavailable =
            |e: &Error| HostError::new(ErrorKind::Unavailable, "target-unreachable", e.to_string());
        let (target, _, _) = self.start(spec).await.map_err(|e| unavailable(&e))?;
        Ok(target)
    }

    async fn newcomers(&self, pinned: &TargetSpec, home: &str) -> Result<Vec<Also>, HostError> {
        Self::newcomers(self, pinned, home).await
    }

    async fn strategy(&self, sha256: &str) -> Result<Arc<dyn Strategy>, String> {
        let host = self.host().map_err(|e| e.to_string())?;
        if let Some(plugin) = host.get(sha256) {
            return Ok(plugin);
        }
        let bytes = self.store.get(sha256).await.map_err(|e| e.to_string())?;
        let bytes = bytes.ok_or_else(|| {
            format!("the store has no plugin with digest {sha256}\n\nhint: the state folder may be incomplete; take it from a backup")
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
            None => (self.listener)(News::Progress(line)),
        }
    }
}

/// Notes it if users are served although an arm of theirs is not healthy.
pub(super) fn tell_when_late(balancer: &Balancer, listener: &Listener) {
    let (opened, listener) = (balancer.opened(), listener.clone());
    tokio::spawn(async move {
        let Some(Opened::Late(arms)) = opened.await else {
            return;
        };
        listener(News::Note(format!(
            "{} did not become healthy in time, and users are served all the same from now on; see [target.local.health], and the log of what it runs",
            arms.join(" and ")
        ).into()));
    });
}

/// What is known of the routes that move together today.
enum Today {
    /// They were read.
    Read(Routes),
    /// One route moves alone, so nobody asks.
    Unasked,
    /// They could not be read.
    Unread(HostError),
}

impl Today {
    /// What was read, and why nothing was.
    fn into_parts(self) -> (Routes, Option<HostError>) {
        match self {
            Self::Read(read) => (read, None),
            Self::Unasked => (Routes::default(), None),
            Self::Unread(error) => (Routes::default(), Some(error)),
        }
    }
}

/// What was found with the routes that move together today; as it was found if those cannot
/// be read, or if one route moves alone.
async fn todays_routes(clients: &Clients, spec: &AwsSpec, found: &Found) -> (Found, Today) {
    if spec.find.only {
        return (found.clone(), Today::Unasked);
    }
    match aws::routes_anew(clients, found).await {
        Ok((now, read)) => (now, Today::Read(read)),
        Err(error) => (found.clone(), Today::Unread(error)),
    }
}

/// The same for the way back: a route that a third group shares moves too, which keeps its
/// own.
fn with_all(mut found: Found) -> Found {
    let unmoved = std::mem::take(&mut found.unmoved);
    found.also.extend(unmoved);
    found
}

/// The key under which a found target is remembered. What an earlier engine has found does
/// not say which routes move together.
fn key(region: &str, spec: &AwsSpec) -> String {
    let wanted = serde_json::to_string(&(&spec.access, &spec.find)).unwrap_or_default();
    format!("routes:{region}:{wanted}")
}

/// Checks that a balancer which another process started has the arms of the file.
async fn same_arms(local: &LocalSpec, target: &LocalTarget) -> Result<()> {
    let mut found = target.observe().await?.names();
    let mut wanted: Vec<String> = local.arms.iter().map(|a| a.name.clone()).collect();
    found.sort();
    wanted.sort();
    if found == wanted {
        return Ok(());
    }
    Err(Error::busy(format!(
        "the balancer that runs at {} has the arms {}, and the rollout file has {}\n\nhint: stop that balancer, or give target.local.admin and listen other ports",
        local.admin,
        found.join(" and "),
        wanted.join(" and ")
    )))
}

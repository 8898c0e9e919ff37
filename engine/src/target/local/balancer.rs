//! The balancer as a whole: starts arms, proxy and admin API with the weights and
//! releases of the state file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::admin;
use super::arm::Arm;
use super::connections::{self, Flow, Limits};
use super::control::{Control, Remembered};
use super::health::Manners;
use super::key::Laid;
use super::program::Logs;
use super::proxy::Proxy;
use crate::model::target::LocalSpec;
use crate::model::{HostError, Weights};

/// Largest head of a request, bytes; as behind an AWS load balancer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long the connections of users wait, after the start, for the arms that serve them:
/// until their backends listen, and, if they listen, until they are healthy.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);
const HEALTHY_WITHIN: Duration = Duration::from_secs(5);
/// Time between two looks whether they are.
const OPEN_POLL: Duration = Duration::from_millis(10);

/// A balancer that runs in this process. Dropping it stops it at once;
/// [`Balancer::stop`] lets requests finish.
#[derive(Debug)]
pub struct Balancer {
    /// Address for users' requests.
    pub listen: SocketAddr,
    /// Address of the admin API.
    pub admin: SocketAddr,
    /// Most connections of users at once: the configured number, or less if the
    /// descriptors of this process do not suffice.
    pub connections: usize,
    opened: watch::Receiver<Option<Opened>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    drain: Duration,
}

/// Why a balancer has begun to serve users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// Each arm with a weight has a healthy backend.
    Healthy,
    /// These arms have a weight, and did not become healthy in time.
    Late(Vec<String>),
}

/// Why a balancer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken or not allowed.
    #[error("failed to listen at {address} ({what}): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// `target.local.listen` or `target.local.admin`.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// A release does not start.
    #[error("failed to start arm {arm}: {source}")]
    Arm {
        /// Name of the arm.
        arm: String,
        /// Why its release did not start.
        source: HostError,
    },
    /// The file of certificates cannot be used.
    #[error("target.local.upstream-ca: {0}")]
    Authority(String),
    /// The key of the admin API cannot be written for its owner alone.
    #[error(
        "failed to write the key of the admin API: {0}\n\nhint: it needs a folder that only you may read; remove that folder or change its permissions to 0700"
    )]
    Key(std::io::Error),
    /// The state file is damaged.
    #[error("failed to read the balancer's state {}: {message}\n\nhint: remove the file to start with the weights of the rollout file", place.display())]
    State {
        /// The file.
        place: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl Balancer {
    /// Starts arms, proxy and admin API. `state` is the file that keeps weights and
    /// releases; `logs` is a folder for the output of the arms' programs.
    pub async fn start(
        spec: &LocalSpec,
        state: Option<&Path>,
        logs: Option<&Path>,
    ) -> Result<Self, StartError> {
        let remembered = state.map(remembered).transpose()?.flatten();
        let listener = bind(spec.listen, "target.local.listen").await?;
        let admin_listener = bind(spec.admin, "target.local.admin").await?;
        let admin = local(&admin_listener, spec.admin);
        let logs = logs.map(|folder| Logs::new(folder, admin));
        let names: Vec<String> = spec.arms.iter().map(|a| a.name.clone()).collect();
        let configured = Weights::of(spec.arms.iter().map(|a| (a.name.as_str(), a.weight)));
        let weights = remembered
            .as_ref()
            .and_then(|r| r.weights.ordered_as(&names).ok())
            .unwrap_or(configured);
        let manners = Manners::of(spec).map_err(StartError::Authority)?;
        let mut arms = vec![];
        for arm in &spec.arms {
            let release = remembered
                .as_ref()
                .and_then(|r| r.releases.iter().find(|(name, _)| *name == arm.name))
                .map_or_else(|| arm.release.clone(), |(_, release)| release.clone());
            let started = Arm::start(&arm.name, release, &manners, logs.clone()).await;
            arms.push(started.map_err(|source| StartError::Arm {
                arm: arm.name.clone(),
                source,
            })?);
        }
        let wanted = usize::try_from(spec.clients.connections).unwrap_or(usize::MAX);
        let targets = arms.iter().map(|arm| arm.running().targets()).sum();
        let connections = connections::affordable(wanted, connections::descriptors(), targets);
        let proxy = Proxy::new(arms, weights, spec, connections, &manners.connector());
        let proxy = Arc::new(proxy);
        let (stop, stopped) = watch::channel(false);
        let drain = Duration::from_millis(u64::from(spec.drain_ms));
        let listen = local(&listener, spec.listen);
        let key = Arc::new(Laid::new(admin).map_err(StartError::Key)?);
        let control = Arc::new(Control {
            proxy: proxy.clone(),
            listen,
            manners,
            drain,
            logs,
            state: state.map(Path::to_owned),
            changing: Mutex::default(),
        });
        let limits = Limits {
            connections,
            idle: Duration::from_millis(u64::from(spec.clients.idle_ms)),
            head_bytes: HEAD_BYTES_MAX,
        };
        let (opening, opened) = watch::channel(None);
        let halt = stopped.clone();
        let users = async move {
            let _ = opening.send(open(&proxy, halt.clone()).await);
            serve(listener, limits, proxy, halt, drain).await;
        };
        let tasks = vec![
            tokio::spawn(users),
            tokio::spawn(admin::serve(admin_listener, control, key, stopped)),
        ];
        Ok(Self {
            listen,
            admin,
            connections,
            opened,
            stop,
            tasks,
            drain,
        })
    }

    /// Waits until it serves users, and says why it does; `None` if it was stopped before.
    /// Until then their connections wait.
    pub fn opened(&self) -> impl Future<Output = Option<Opened>> + use<> {
        let mut opened = self.opened.clone();
        async move {
            let opened = opened.wait_for(Option::is_some).await.ok()?;
            opened.clone()
        }
    }

    /// Refuses new requests, lets the others finish, and stops.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let grace = self.drain + Duration::from_secs(1);
        for task in self.tasks.drain(..) {
            let _ = tokio::time::timeout(grace, task).await;
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn bind(address: SocketAddr, what: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen {
            address,
            what,
            source,
        })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// Largest state file, bytes.
const STATE_BYTES_MAX: u64 = 1 << 20;

fn remembered(place: &Path) -> Result<Option<Remembered>, StartError> {
    let failed = |message: String| StartError::State {
        place: place.to_owned(),
        message,
    };
    // Reading a pipe or a device might never end.
    if std::fs::metadata(place).is_ok_and(|meta| !meta.is_file() || meta.len() > STATE_BYTES_MAX) {
        return Err(failed("it is not a file that a balancer wrote".to_owned()));
    }
    match std::fs::read(place) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| failed(e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(e.to_string())),
    }
}

/// Waits until each arm that has a weight now has a healthy backend: a program that is
/// still starting would answer its first users with errors. If it takes too long, users
/// are served all the same, and from then on every arm's answers are evidence. `None` if
/// it was stopped before.
#[expect(clippy::disallowed_methods, reason = "programs start in real time")]
async fn open(proxy: &Proxy, mut stopped: watch::Receiver<bool>) -> Option<Opened> {
    let weights = proxy.weights();
    let serve = proxy.arms.iter().filter(|a| weights.weight(&a.name) > 0);
    let mut late: Vec<&Arm> = serve.collect();
    let polls = |time: Duration| time.as_millis() / OPEN_POLL.as_millis();
    for poll in 0..polls(LISTENS_WITHIN) {
        late.retain(|arm| !arm.is_healthy());
        if late.is_empty() {
            return Some(Opened::Healthy);
        }
        let patient = poll < polls(HEALTHY_WITHIN);
        if !patient && all_listen(&late).await {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(OPEN_POLL) => {}
            _ = stopped.wait_for(|stop| *stop) => return None,
        }
    }
    for arm in &proxy.arms {
        arm.running().tally.begin();
    }
    let late = late.iter().map(|arm| arm.name.clone());
    Some(Opened::Late(late.collect()))
}

/// Whether each of the arms has a backend that takes connections.
async fn all_listen(arms: &[&Arm]) -> bool {
    for arm in arms {
        if !arm.listens().await {
            return false;
        }
    }
    true
}

/// Serves users until `stopped` says so, then lets their requests finish.
async fn serve(
    listener: TcpListener,
    limits: Limits,
    proxy: Arc<Proxy>,
    stopped: watch::Receiver<bool>,
    drain: Duration,
) {
    let answer = move |request, peer, connection| {
        let proxy = proxy.clone();
        async move { proxy.handle(request, peer, Flow::new(&connection)).await }
    };
    connections::serve(listener, limits, stopped, drain, answer).await;
}

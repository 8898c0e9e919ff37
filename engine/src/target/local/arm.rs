//! One arm: its release, its health and its samples.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use hyper::Uri;
use tokio::task::AbortHandle;

use super::backend::Lane;
use super::health::Manners;
use super::program::{self, Logs, Program};
use super::samples::Tally;
use super::{demo, health};
use crate::clock::{Clock as _, SystemClock};
use crate::model::address::{port_of, server};
use crate::model::query::Probe;
use crate::model::secret::redacted;
use crate::model::{
    Deployment, ErrorKind, HostError, Millis, ObservedArm, ProbeReport, Release, Source,
};
use crate::target::http;

/// How long it may take to connect to a backend.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Interval of the checks whether a replaced release has no requests left.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// An arm of the balancer.
#[derive(Debug)]
pub(super) struct Arm {
    pub(super) name: String,
    running: RwLock<Arc<Running>>,
}

/// The release of an arm. Its programs and checks stop when the last reference
/// is dropped.
#[derive(Debug)]
pub(super) struct Running {
    release: Release,
    /// What its requests have come to.
    pub(super) tally: Arc<Tally>,
    /// When it replaced another release, Unix ms: what was measured before is not its own.
    since: OnceLock<Millis>,
    manners: Manners,
    upstreams: Vec<Arc<Upstream>>,
    next: AtomicUsize,
    in_flight: AtomicUsize,
    tasks: Vec<AbortHandle>,
    /// The program that the balancer runs for it.
    program: Option<Arc<Program>>,
}

#[derive(Debug)]
pub(super) struct Upstream {
    /// Scheme, host and port.
    pub(super) address: Uri,
    /// Its HTTP/2 connection.
    pub(super) lane: Lane,
    healthy: AtomicBool,
    /// What its last health check met, if that failed.
    ailment: Mutex<Option<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Counts a request until its body has ended.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Running>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Arm {
    pub(super) async fn start(
        name: &str,
        release: Release,
        manners: &Manners,
        logs: Option<Logs>,
    ) -> Result<Self, HostError> {
        let running = Running::start(name, release, manners, logs, Arc::default()).await?;
        Ok(Self {
            name: name.to_owned(),
            running: RwLock::new(running),
        })
    }

    pub(super) fn running(&self) -> Arc<Running> {
        self.running
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the release; the old one finishes its requests.
    #[expect(clippy::disallowed_methods, reason = "draining is real time")]
    pub(super) fn replace(&self, new: Arc<Running>, drain: Duration) {
        let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
        running.tally.replace();
        new.succeed();
        let old = std::mem::replace(&mut *running, new);
        tokio::spawn(async move {
            let polls = drain.as_millis() / DRAIN_POLL.as_millis();
            for _ in 0..polls {
                if old.in_flight.load(Ordering::Relaxed) == 0 {
                    break;
                }
                tokio::time::sleep(DRAIN_POLL).await;
            }
            for task in &old.tasks {
                task.abort();
            }
        });
    }

    pub(super) fn observe(&self, weight: u32) -> ObservedArm {
        let running = self.running();
        let healthy = running.upstreams.iter().filter(|u| u.is_healthy()).count();
        ObservedArm {
            name: self.name.clone(),
            release: running.release.clone(),
            weight,
            healthy: u32::try_from(healthy).unwrap_or(u32::MAX),
            total: u32::try_from(running.upstreams.len()).unwrap_or(u32::MAX),
            health_reason: running.ailment(),
            tasks: None,
            deployment: match &running.program {
                Some(program) => program.deployment(),
                None => Deployment::Steady,
            },
            since: running.since.get().copied(),
            spoiled: running.tally.spoiled(),
            unanswered: running.tally.given_up(),
            sent_again: running.tally.sent_again(),
        }
    }

    /// Whether it has a healthy backend.
    pub(super) fn is_healthy(&self) -> bool {
        self.running().upstreams.iter().any(|u| u.is_healthy())
    }

    /// Whether a backend takes connections, healthy or not.
    pub(super) async fn listens(&self) -> bool {
        for upstream in &self.running().upstreams {
            let host = upstream.address.host().unwrap_or_default();
            let place = format!("{host}:{}", port_of(&upstream.address));
            let connecting = tokio::net::TcpStream::connect(place);
            let connected = tokio::time::timeout(CONNECT_WITHIN, connecting).await;
            if connected.is_ok_and(|connected| connected.is_ok()) {
                return true;
            }
        }
        false
    }

    /// Sends one probe, whatever the weights are.
    pub(super) async fn probe(&self, probe: &Probe) -> ProbeReport {
        let running = self.running();
        let Some((_, upstream)) = running.clone().pick() else {
            return ProbeReport {
                ok: false,
                status: 0,
                elapsed_ms: 0.0,
                detail: format!("{} has no backend", self.name),
            };
        };
        let timeout = Duration::from_millis(u64::from(probe.timeout_ms));
        let base = upstream.base();
        http::probe(&running.manners.client(), &base, probe, timeout).await
    }
}

impl Upstream {
    /// Its address without the slash at the end.
    fn base(&self) -> String {
        self.address.to_string().trim_end_matches('/').to_owned()
    }

    fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    fn checked(&self, met: Result<(), String>) {
        *self.ailment.lock().unwrap_or_else(PoisonError::into_inner) = met.err();
    }
}

impl Running {
    /// Starts or connects to a release, and begins to check its health.
    pub(super) async fn start(
        arm: &str,
        release: Release,
        manners: &Manners,
        logs: Option<Logs>,
        tally: Arc<Tally>,
    ) -> Result<Arc<Self>, HostError> {
        let invalid = |m: String| HostError::new(ErrorKind::Invalid, "invalid-release", m);
        let mut tasks = vec![];
        let mut program = None;
        let addresses = match &release.source {
            Source::Urls(urls) => urls
                .iter()
                .map(|url| {
                    let wrong = |why| invalid(format!("{:?} {why}", redacted(url)));
                    server(url).map_err(wrong)
                })
                .collect::<Result<Vec<_>, _>>()?,
            Source::Command(command) => {
                let port =
                    free_port().map_err(|e| invalid(format!("there is no free port: {e}")))?;
                let log = logs.map(|logs| logs.of(arm, &release.version));
                let (started, task) =
                    program::start(command.clone(), port, log).map_err(&invalid)?;
                tasks.push(task);
                program = Some(started);
                vec![local(port)]
            }
            Source::Demo(fault) => {
                let (address, task) = demo::start(&release.version, *fault)
                    .await
                    .map_err(|e| invalid(format!("the demo service cannot be started: {e}")))?;
                tasks.push(task.abort_handle());
                vec![local(address.port())]
            }
            Source::Image(_) | Source::TaskDefinition(_) | Source::Changes(_) => {
                return Err(invalid(
                    "a local target cannot run an image; give a command, URLs or a demo version"
                        .to_owned(),
                ));
            }
        };
        let upstreams = addresses.into_iter().map(|address| {
            Arc::new(Upstream {
                address,
                lane: Lane::new(manners.connector()),
                healthy: AtomicBool::new(false),
                ailment: Mutex::new(None),
            })
        });
        let upstreams: Vec<Arc<Upstream>> = upstreams.collect();
        let running = Arc::new_cyclic(|weak: &std::sync::Weak<Self>| {
            for index in 0..upstreams.len() {
                let checking = check(weak.clone(), index, manners.clone(), tally.clone());
                let task = tokio::spawn(checking);
                tasks.push(task.abort_handle());
            }
            Self {
                release,
                tally,
                since: OnceLock::new(),
                manners: manners.clone(),
                upstreams,
                next: AtomicUsize::new(0),
                in_flight: AtomicUsize::new(0),
                tasks,
                program,
            }
        });
        Ok(running)
    }

    /// Notes that it replaces another release now.
    fn succeed(&self) {
        let _ = self.since.set(SystemClock.now());
    }

    /// Why a backend is not healthy; with its address where there are several.
    fn ailment(&self) -> Option<String> {
        let mut ill = self.upstreams.iter().filter(|u| !u.is_healthy());
        ill.find_map(|upstream| {
            let ailment = upstream.ailment.lock();
            let why = ailment.unwrap_or_else(PoisonError::into_inner).clone()?;
            Some(match self.upstreams.len() {
                1 => why,
                _ => format!("{}: {why}", upstream.base()),
            })
        })
    }

    /// How many backends it has.
    pub(super) fn targets(&self) -> usize {
        self.upstreams.len()
    }

    /// The next healthy backend, round robin. As on an AWS load balancer, an arm
    /// without a healthy backend sends to all of them rather than to none.
    pub(super) fn pick(self: Arc<Self>) -> Option<(InFlight, Arc<Upstream>)> {
        let count = self.upstreams.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = (0..count).map(|n| &self.upstreams[(first.wrapping_add(n)) % count]);
        let upstream = turn
            .clone()
            .find(|u| u.is_healthy())
            .or_else(|| turn.clone().next())?
            .clone();
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Some((InFlight(self), upstream))
    }
}

fn local(port: u16) -> Uri {
    Uri::try_from(format!("http://127.0.0.1:{port}/")).expect("an address")
}

fn free_port() -> Result<u16, std::io::Error> {
    let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok(listener.local_addr()?.port())
}

/// Checks one backend for as long as its release runs.
async fn check(
    running: std::sync::Weak<Running>,
    index: usize,
    manners: Manners,
    tally: Arc<Tally>,
) {
    let client = manners.client();
    let health = &manners.health;
    let timeout = Duration::from_millis(u64::from(health.timeout_ms));
    let mut ticks = tokio::time::interval(Duration::from_millis(u64::from(health.interval_ms)));
    let (mut passed, mut failed) = (0, 0);
    loop {
        ticks.tick().await;
        let Some(base) = running.upgrade().map(|r| r.upstreams[index].base()) else {
            // The first tick may come before the release is complete.
            if running.strong_count() == 0 && passed + failed > 0 {
                return;
            }
            continue;
        };
        let met = health::ask(&client, &base, &manners, timeout).await;
        (passed, failed) = match met {
            Ok(()) => (passed + 1, 0),
            Err(_) => (0, failed + 1),
        };
        let Some(running) = running.upgrade() else {
            return;
        };
        let upstream = &running.upstreams[index];
        upstream.checked(met);
        if passed >= health.healthy_after {
            upstream.healthy.store(true, Ordering::Relaxed);
            if let Some(program) = &running.program {
                program.serves();
            }
            tally.begin();
        } else if failed >= health.unhealthy_after {
            upstream.healthy.store(false, Ordering::Relaxed);
        }
    }
}

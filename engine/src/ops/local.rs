//! A local balancer without a rollout, in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::advice::Input;
use super::app::make_private;
use super::error::{Error, Result};
use super::news::{Listener, News};
use super::private;
use super::request::read_spec;
use crate::model::DemoFault;
use crate::model::target::{LocalArm, LocalSpec, TargetSpec};
use crate::target::local::balancer::Balancer;
use crate::target::local::load::{self, Load};

/// What to balance, and at which addresses.
#[derive(Debug, Clone)]
pub struct LocalRequest {
    /// The rollout file; `rollout.toml`, if that is there, when none is named. If
    /// there is none, two versions of the demo service are balanced.
    pub file: Option<PathBuf>,
    /// Address for users' requests, instead of the file's.
    pub listen: Option<SocketAddr>,
    /// Address of the admin API, instead of the file's: a loopback address.
    pub admin: Option<SocketAddr>,
    /// Fault of the second version of the demo service.
    pub demo_fault: DemoFault,
    /// Names of the two arms of the demo.
    pub names: [String; 2],
    /// Requests per second of the built-in load; 0 for none.
    pub load: u32,
    /// File that keeps weights and releases across restarts.
    pub state: Option<PathBuf>,
}

/// A balancer that runs.
pub struct Running {
    balancer: Balancer,
    load: Option<Load>,
    /// The arms.
    pub arms: Vec<LocalArm>,
}

impl Running {
    /// Address for users' requests.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.balancer.listen
    }

    /// Address of the admin API.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.balancer.admin
    }

    /// Stops the built-in load, finishes the requests under way, and stops.
    pub async fn stop(self) {
        drop(self.load);
        self.balancer.stop().await;
    }
}

/// Starts a balancer, with its logs in the state folder.
///
/// # Errors
///
/// The rollout file has no arms to balance, the admin address is not a loopback
/// address, or an address cannot be listened on.
pub async fn start(
    state_dir: &Path,
    request: LocalRequest,
    listener: &Listener,
) -> Result<Running> {
    let mut spec = match read_spec(request.file.as_deref())? {
        Some(spec) => match spec.target {
            TargetSpec::Embedded { local, .. } => *local,
            _ => {
                return Err(Error::usage(
                    "the rollout file has no [target.local.arms.NAME], so there is nothing to balance",
                ));
            }
        },
        None => LocalSpec::demo(request.demo_fault).with_names(request.names),
    };
    spec.listen = request.listen.unwrap_or(spec.listen);
    spec.admin = request.admin.unwrap_or(spec.admin);
    if !spec.admin.ip().is_loopback() {
        return Err(Error::argument(
            Input::Admin,
            "must be a loopback address: whoever can use it can start programs and move the traffic",
        ));
    }
    make_private(state_dir, listener)?;
    let logs = state_dir.join("logs");
    private::folder(&logs)?;
    let balancer = Balancer::start(&spec, request.state.as_deref(), Some(&logs))
        .await
        .map_err(|e| Error::usage(e.to_string()))?;
    let wanted = usize::try_from(spec.clients.connections).unwrap_or(usize::MAX);
    if balancer.connections < wanted {
        let note = format!(
            "users can have only {} connections at once, not {wanted}, because this process may open too few file descriptors (see ulimit -n)",
            balancer.connections
        );
        listener(News::Note(note.into()));
    }
    super::ports::tell_when_late(&balancer, listener);
    let load = (request.load > 0).then(|| load::start(&balancer, request.load));
    Ok(Running {
        balancer,
        load,
        arms: spec.arms,
    })
}

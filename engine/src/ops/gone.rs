//! Rollouts whose local balancer is gone. Those whose deadline has passed end, and are not
//! under way for ever; of the others a person is told how to go on.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::advice::Ask;
use super::app::App;
use super::error::Error;
use crate::journal::Header;
use crate::journal::status::Status;
use crate::model::target::TargetSpec;
use crate::rollout::recovery::is_gone;
use crate::rollout::{Options, RolloutError};
use crate::store::sqlite::SqliteStore;
use crate::store::{Open, Store};
use crate::target::local::identity;

/// Most rollouts that one verb looks at for this.
const LOOKED_AT_MAX: usize = 20;
/// How long a verb that only reads waits for another process's lock.
const LOCK: Duration = Duration::from_millis(200);

/// Ends those of the open rollouts that are gone for good, and returns whether there were
/// some. Nothing hangs on it: where it does not succeed, they stay as they are.
pub(super) async fn end_gone(app: &App, open: &[Open]) -> bool {
    let nobodys = open.iter().filter(|open| {
        open.summary.target.starts_with("local:")
            && !app.is_driven(&open.summary.rollout, &open.busy)
    });
    let mut ended = false;
    for open in nobodys.take(LOOKED_AT_MAX) {
        ended |= end(app, &open.summary.rollout).await == Some(());
    }
    ended
}

async fn end(app: &App, rollout: &str) -> Option<()> {
    let header = app.store.header(rollout).await.ok()??;
    // Most are told apart without their journal.
    let deadline = header.created.saturating_add(header.guardrails.deadline_ms);
    let TargetSpec::Embedded { local, .. } = &header.target else {
        return None;
    };
    if app.clock.now() < deadline || !nobody_listens(local.admin).await {
        return None;
    }
    let entries = app.store.load(rollout, 0).await.ok()?;
    let status = Status::of(&entries)?;
    if !is_gone(&header, &status, app.clock.now()) {
        return None;
    }
    match end_in(app, app.store.clone(), &header, &entries).await {
        Ok(()) => Some(()),
        // The verb may have opened the store to read alone.
        Err(_) => {
            let place = app.state_dir.join("engine.db");
            if !place.exists() {
                return None;
            }
            let store = SqliteStore::open_within(&place, LOCK).ok()?;
            end_in(app, Arc::new(store), &header, &entries).await.ok()
        }
    }
}

/// The unfinished rollout of a local balancer that ended with the process that drove it.
pub(super) async fn left_behind(app: &App, target: &TargetSpec) -> Option<(Header, Status)> {
    let admin = target.admin().filter(|admin| admin.port() != 0)?;
    let open = app.store.open(Some(&identity(admin))).await.ok()?;
    let open = open.first()?;
    if app.is_driven(&open.summary.rollout, &open.busy) || !nobody_listens(admin).await {
        return None;
    }
    app.reached(&open.summary.rollout).await.ok()
}

/// The error that no balancer answers, with what is known of the rollout that was under way
/// there.
pub(super) async fn with_what_is_left(app: &App, target: &TargetSpec, error: Error) -> Error {
    let Some((header, status)) = left_behind(app, target).await else {
        return error;
    };
    let id = header.rollout.clone();
    if !had_its_own(&header, &status) {
        let does = format!("goes on with {id}, which was under way there, once a balancer answers");
        return error.ask(Ask::Resume(id), does);
    }
    let message = format!(
        "nobody listens at {}: the balancer there ended with the process that drove rollout {id}, which last set {}",
        address(&header),
        status.weights.shares()
    );
    Error { message, ..error }
        .ask(
            Ask::Resume(id.clone()),
            "starts the balancer again and goes on",
        )
        .ask(Ask::Abort(id), "ends the rollout")
}

/// Where the admin API of its balancer listened.
fn address(header: &Header) -> &str {
    header.identity.trim_start_matches("local:")
}

/// Whether the process that drove it had started the balancer: then nobody else starts it
/// again, with weights that another file remembers. Of one that was never written to this
/// does not matter.
fn had_its_own(header: &Header, status: &Status) -> bool {
    let exists = |state: &String| Path::new(state).exists();
    match &header.target {
        TargetSpec::Embedded { state, .. } => !status.raised || state.as_ref().is_some_and(exists),
        _ => false,
    }
}

/// Ends a rollout that a person gives up, if it is one of those: where nobody listens, no
/// traffic can be taken back, and a balancer that is started for that would end with the
/// command.
pub(super) async fn give_up(app: &App, header: &Header, reason: &str) -> Result<bool, Error> {
    let left = match &header.target {
        TargetSpec::Embedded { .. } => left_behind(app, &header.target).await,
        _ => None,
    };
    let Some((_, status)) = left.filter(|(left, _)| left.rollout == header.rollout) else {
        return Ok(false);
    };
    if !had_its_own(header, &status) {
        return Err(Error::rollback(format!(
            "nothing was taken back: nobody listens at {}, where another process had the balancer of rollout {}, which last set {}; once that is started again it may send users where it did",
            address(header),
            header.rollout,
            status.weights.shares()
        ))
        .ask(
            Ask::Abort(header.rollout.clone()),
            "takes the traffic back as soon as it answers",
        ));
    }
    let mut asked = format!("aborted by {}", app.actor);
    if !reason.is_empty() {
        asked = format!("{asked}: {reason}");
    }
    let entries = app.store.load(&header.rollout, 0).await?;
    let driver = app.driver(Options::default());
    driver.end_unserved(header, &entries, &asked).await?;
    Ok(true)
}

/// Whether this machine says so: a balancer that is slow to answer is not gone.
async fn nobody_listens(admin: SocketAddr) -> bool {
    let connected = tokio::net::TcpStream::connect(admin).await;
    connected.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}

async fn end_in(
    app: &App,
    store: Arc<dyn Store>,
    header: &Header,
    entries: &[crate::journal::Entry],
) -> Result<(), RolloutError> {
    let mut driver = app.driver(Options::default());
    driver.store = store;
    driver.end_gone(header, entries).await.map(|_| ())
}

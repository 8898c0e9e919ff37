//! Rollouts whose local balancer is gone for good: they end, and are not under way for ever.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::app::App;
use crate::journal::Header;
use crate::journal::status::Status;
use crate::model::target::TargetSpec;
use crate::rollout::recovery::is_gone;
use crate::rollout::{Options, RolloutError};
use crate::store::sqlite::SqliteStore;
use crate::store::{Open, Store};

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

//! The built-in load: a steady stream of requests, such as users would send.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use super::balancer::Balancer;
use crate::target::http::Client;

/// Counts of the load so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests sent, with or without an answer.
    pub sent: AtomicU64,
    /// 5xx answers and broken connections.
    pub failed: AtomicU64,
}

/// A running load; stops when dropped.
#[derive(Debug)]
pub struct Load {
    /// The counts.
    pub seen: Arc<Seen>,
    task: AbortHandle,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends `rps` requests per second to the users' side of a balancer, once it is open.
#[must_use]
pub fn start(balancer: &Balancer, rps: u32) -> Load {
    let seen = Arc::new(Seen::default());
    let counts = seen.clone();
    let client = Client::default();
    let url = format!("http://{}/", balancer.listen);
    let opened = balancer.opened();
    let task = tokio::spawn(async move {
        opened.await;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rps.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let (client, url, counts) = (client.clone(), url.clone(), counts.clone());
            tokio::spawn(async move {
                let answer = client
                    .send("GET", &url, None, Duration::from_secs(10))
                    .await;
                let served = answer.is_ok_and(|a| !a.status.is_server_error());
                counts.sent.fetch_add(1, Ordering::Relaxed);
                if !served {
                    counts.failed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    Load {
        seen,
        task: task.abort_handle(),
    }
}

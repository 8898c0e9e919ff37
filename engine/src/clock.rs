//! The only place that reads the time.
//!
//! Everything else takes a [`Clock`], so that a rollout of two hours can be
//! simulated in milliseconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::model::Millis;

/// Reads the time and waits.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Unix time in ms.
    fn now(&self) -> Millis;
    /// Returns at `until` (Unix ms), at once if that is past.
    async fn sleep_until(&self, until: Millis);
}

/// The wall clock of this machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Millis {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    async fn sleep_until(&self, until: Millis) {
        tokio::time::sleep(Duration::from_millis(until.saturating_sub(self.now()))).await;
    }
}

/// A clock that jumps: sleeping takes no time and advances it.
#[derive(Debug)]
pub struct VirtualClock(AtomicU64);

impl VirtualClock {
    /// A clock that shows `start` (Unix ms).
    #[must_use]
    pub fn new(start: Millis) -> Self {
        Self(AtomicU64::new(start))
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::SeqCst)
    }

    async fn sleep_until(&self, until: Millis) {
        self.0.fetch_max(until, Ordering::SeqCst);
    }
}

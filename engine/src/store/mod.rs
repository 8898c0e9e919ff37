//! The store port: journals, leases, signals, plugin bytes and what was found.
//!
//! Two implementations pass the same conformance suite (`tests/it/store.rs`):
//! [`sqlite`] for one machine and several processes, [`memory`] for tests and
//! simulations. [`lifeboat`] stands in where a store fails on the way back.

pub mod lifeboat;
pub mod memory;
pub mod sqlite;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::journal::{Entry, Header};
use crate::model::{Millis, Signal};

/// A process that holds, or held, a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The machine, as one boot of its kernel.
    pub host: String,
    /// Process id there.
    pub pid: u32,
    /// Start time of that process, so that a reused pid is another owner.
    pub started: String,
}

/// The right to write one rollout's journal and to move its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Identity of the target.
    pub target: String,
    /// The rollout that occupies it.
    pub rollout: String,
    /// Grows with every claim; older epochs cannot write.
    pub epoch: u32,
}

/// A request for a lease.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Identity of the target.
    pub target: &'a str,
    /// The rollout that wants it.
    pub rollout: &'a str,
    /// Who would own it.
    pub owner: &'a Owner,
    /// Now.
    pub now: Millis,
    /// How long it lasts without a renewal.
    pub ttl_ms: Millis,
    /// Take it although this epoch has not expired: its owner is known to be dead.
    pub dead_epoch: Option<u32>,
}

/// Who stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// The rollout that occupies the target.
    pub rollout: String,
    /// Its epoch.
    pub epoch: u32,
    /// Its owner; none when it is parked or paused with no process behind it.
    pub owner: Option<Owner>,
    /// When the lease expires without a renewal.
    pub expires: Millis,
}

/// How safe an append must be when the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives the process. A power cut may take it, with all that follows it.
    Process,
    /// This entry and all before it survive a power cut.
    Power,
}

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The target belongs to another rollout or another process.
    #[error("the target is busy with rollout {}", .0.rollout)]
    Busy(Busy),
    /// The lease is not ours any more; nothing was written.
    #[error("the lease on rollout {rollout} was lost to another process")]
    Fenced {
        /// The rollout.
        rollout: String,
    },
    /// There is no such rollout.
    #[error("there is no rollout {0:?}")]
    NotFound(String),
    /// The database failed.
    #[error("failed to use the store {place}: {message}")]
    Database {
        /// File name.
        place: String,
        /// What the database says.
        message: String,
    },
    /// An entry cannot be read.
    #[error(
        "entry {seq} of rollout {rollout} cannot be read: {message}\n\nhint: it was written by another version of engine"
    )]
    Format {
        /// The rollout.
        rollout: String,
        /// The entry.
        seq: u32,
        /// What the decoder says.
        message: String,
    },
}

/// One line of the list of rollouts.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The first entry's content.
    pub header: Header,
    /// The last entry.
    pub last: Entry,
}

/// Where rollouts live.
#[async_trait]
pub trait Store: Send + Sync {
    /// Claims the target for a rollout. Fails with [`StoreError::Busy`] while
    /// another rollout occupies it, or another living process drives this one.
    async fn claim(&self, claim: Claim<'_>) -> Result<Lease, StoreError>;
    /// Prolongs a lease to `expires`.
    async fn renew(&self, lease: &Lease, expires: Millis) -> Result<(), StoreError>;
    /// Gives the lease back. With `keep`, the rollout goes on occupying the
    /// target and any process may continue it.
    async fn release(&self, lease: &Lease, keep: bool) -> Result<(), StoreError>;

    /// Appends entries if the lease is still ours, all or none.
    async fn append(
        &self,
        lease: &Lease,
        entries: Vec<Entry>,
        durability: Durability,
    ) -> Result<(), StoreError>;
    /// Entries of a rollout from `from` on; empty if there is none.
    async fn load(&self, rollout: &str, from: u32) -> Result<Vec<Entry>, StoreError>;
    /// Rollouts, newest first: all, or those on a target.
    async fn list(&self, on: Option<&str>, limit: u32) -> Result<Vec<Listed>, StoreError>;
    /// The rollouts that have not ended, newest first, however many came after
    /// them.
    async fn unfinished(&self) -> Result<Vec<Header>, StoreError>;

    /// Who occupies the target.
    async fn occupant(&self, target: &str) -> Result<Option<Busy>, StoreError>;
    /// Sends a signal; false if that id was sent before.
    async fn signal(&self, rollout: &str, signal: &Signal) -> Result<bool, StoreError>;
    /// Signals of all rollouts after `after`, in order, each with its number.
    async fn signals(
        &self,
        rollout: Option<&str>,
        after: u64,
    ) -> Result<Vec<(u64, String, Signal)>, StoreError>;

    /// Keeps a text under a key, in place of what was there.
    async fn remember(&self, key: &str, text: &str) -> Result<(), StoreError>;
    /// The text of that key.
    async fn recall(&self, key: &str) -> Result<Option<String>, StoreError>;

    /// Keeps bytes under their digest.
    async fn put_content(&self, sha256: &str, bytes: &[u8]) -> Result<(), StoreError>;
    /// The bytes of that digest.
    async fn content(&self, sha256: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Drops bytes that are not in `needed`.
    async fn sweep_content(&self, needed: &[String]) -> Result<(), StoreError>;
}

//! The store, in three ports: [`Journals`] with their leases, the [`Schedule`]
//! (what is under way, what is due, what has been), and [`Blobs`].
//!
//! Each port has a conformance suite that any implementation runs
//! (`tests/it/store.rs`). There are two implementations: [`sqlite`] for several
//! processes of one machine, [`memory`] for tests and simulations. On the way
//! back, [`lifeboat`] replaces a store that fails.

pub mod claim;
pub mod following;
pub mod lifeboat;
pub mod memory;
pub mod process;
pub mod sqlite;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::journal::summary::Summary;
use crate::journal::{Entry, Header};
use crate::model::{Millis, Signal};

/// Largest entry of a journal, as [`crate::journal::Event::size`] counts: 16 MiB. The
/// largest answer that the engine asks for, 10,000 samples, stays below it.
pub const ENTRY_BYTES_MAX: u64 = 16 << 20;

/// How long bytes that no rollout needs are kept after they were last put, ms. A
/// plugin's bytes are put before the rollout that needs them is in the store.
pub const BLOB_GRACE_MS: Millis = 3_600_000;

/// How long after its wake time a parked rollout still counts as kept by the
/// process that parked it, ms.
pub const KEPT_AFTER_WAKE_MS: Millis = 30_000;

/// A process that holds, or held, a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The machine, as one boot of its kernel.
    pub host: String,
    /// Process id there.
    pub pid: u32,
    /// Start time of that process, so that a reused pid is another owner.
    pub started: String,
}

/// The right to write one rollout's journal and to change its target.
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
    /// Identities under which others may know the target: it is occupied under these too.
    pub also: &'a [String],
    /// The rollout that wants it.
    pub rollout: &'a str,
    /// The process that would own it.
    pub owner: &'a Owner,
    /// The present time (Unix ms).
    pub now: Millis,
    /// How long the lease lasts without a renewal, ms.
    pub ttl_ms: Millis,
    /// The epoch of an owner that is known to be dead: it need not expire.
    pub dead_epoch: Option<u32>,
}

impl<'a> Claim<'a> {
    /// All identities of the target.
    pub fn identities(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        std::iter::once(self.target).chain(self.also.iter().map(String::as_str))
    }
}

/// Why a claim is refused: who has the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// The rollout that occupies the target.
    pub rollout: String,
    /// Its epoch.
    pub epoch: u32,
    /// The process that has the lease; `None` while the rollout is parked or paused.
    pub owner: Option<Owner>,
    /// The process that parked it and will wake it. It has no precedence: any process
    /// may claim the lease first.
    pub keeper: Option<Owner>,
    /// When a parked rollout is to be woken (Unix ms).
    pub due: Option<Millis>,
    /// When the lease expires without a renewal (Unix ms); of a parked rollout, when
    /// its keeper is no longer relied on.
    pub expires: Millis,
}

impl Busy {
    /// The process that drives the rollout, or will wake it.
    #[must_use]
    pub fn driver(&self) -> Option<&Owner> {
        self.owner.as_ref().or(self.keeper.as_ref())
    }
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
    Busy(Box<Busy>),
    /// The lease is not ours any more; nothing was written.
    #[error("the lease on rollout {rollout} was lost to another process")]
    Fenced {
        /// The rollout.
        rollout: String,
    },
    /// There is no such rollout.
    #[error("there is no rollout {0:?}")]
    NotFound(String),
    /// An entry is larger than a journal accepts; nothing was written.
    #[error(
        "entry {seq} of rollout {rollout} has {bytes} bytes, and a journal accepts at most {limit}",
        limit = ENTRY_BYTES_MAX
    )]
    TooLarge {
        /// The rollout.
        rollout: String,
        /// The entry.
        seq: u32,
        /// Its size.
        bytes: u64,
    },
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
        "entry {seq} of rollout {rollout} cannot be read: {message}\n\nhint: another version of engine wrote it; use that version"
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

/// A rollout that has not ended, with its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its row.
    pub summary: Summary,
    /// Its lease.
    pub busy: Busy,
}

/// A place in the history: what comes after it is older.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// When the rollout there began (Unix ms).
    pub created: Millis,
    /// Its id.
    pub rollout: String,
}

impl Cursor {
    /// The place of that row.
    #[must_use]
    pub fn at(row: &Summary) -> Self {
        Self {
            created: row.created,
            rollout: row.rollout.clone(),
        }
    }
}

/// Which part of the history to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Only rollouts on the target with that identity, whether it is known by that one or
    /// by another of its routes; `None` for all.
    pub on: Option<String>,
    /// Only rollouts of a strategy, without those of single verbs.
    pub strategies: bool,
    /// Only rollouts whose id, or a part of it after a `-`, begins so, or which ends so, by the
    /// letter.
    pub part: Option<String>,
    /// Only what comes after that place.
    pub after: Option<Cursor>,
    /// At most so many rows.
    pub limit: u32,
}

impl Page {
    /// The newest rollouts, on a target or on all.
    #[must_use]
    pub fn newest(on: Option<&str>, limit: u32) -> Self {
        Self {
            on: on.map(ToOwned::to_owned),
            strategies: false,
            part: None,
            after: None,
            limit,
        }
    }

    /// The same of the rollouts alone whose id begins or ends so.
    #[must_use]
    pub fn of_part(self, part: &str) -> Self {
        Self {
            part: Some(part.to_owned()),
            ..self
        }
    }

    /// The same without single verbs.
    #[must_use]
    pub fn of_strategies(self) -> Self {
        Self {
            strategies: true,
            ..self
        }
    }
}

/// Whether an id, or a part of it after a `-`, begins so, or it ends so.
#[must_use]
pub fn is_part(part: &str, id: &str) -> bool {
    id.starts_with(part) || id.ends_with(part) || id.contains(&format!("-{part}"))
}

/// Journals, and the leases under which they are written.
#[async_trait]
pub trait Journals: Send + Sync {
    /// Claims the target for a rollout, by the rule in [`claim::decide`].
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another rollout occupies it under any of its identities,
    /// or another living process drives this one.
    async fn claim(&self, claim: Claim<'_>) -> Result<Lease, StoreError>;
    /// Prolongs a lease to `expires` (Unix ms).
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if it is not ours any more.
    async fn renew(&self, lease: &Lease, expires: Millis) -> Result<(), StoreError>;
    /// Gives the lease up until `until` (Unix ms), or until a person acts. The rollout
    /// goes on occupying its target, has no owner, and any process may claim it at
    /// once. With a time, the owner becomes its keeper.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if somebody claimed it since.
    async fn park(&self, lease: &Lease, until: Option<Millis>) -> Result<(), StoreError>;
    /// Gives the lease back for good: the target is free.
    ///
    /// # Errors
    /// As for [`Journals::park`].
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;
    /// Appends entries if the lease is still ours, all or none, and with them the row
    /// that the rollout has in lists from now on.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], or [`StoreError::TooLarge`] above [`ENTRY_BYTES_MAX`].
    async fn append(
        &self,
        lease: &Lease,
        entries: Vec<Entry>,
        summary: &Summary,
        durability: Durability,
    ) -> Result<(), StoreError>;
    /// Entries of a rollout from `from` on; empty if there are none.
    async fn load(&self, rollout: &str, from: u32) -> Result<Vec<Entry>, StoreError>;
    /// What a rollout is pinned to; none if there is no such journal.
    async fn header(&self, rollout: &str) -> Result<Option<Header>, StoreError>;
    /// Whether that owner has certainly ended. A store that several machines share
    /// cannot know it and returns `false`: there a lease must expire.
    fn is_dead(&self, owner: &Owner) -> bool;
}

/// What is under way, what is due and what has been, from the rows; and the signals
/// that wake rollouts. It loads no journal for an answer.
#[async_trait]
pub trait Schedule: Send + Sync {
    /// Who occupies the target.
    async fn occupant(&self, target: &str) -> Result<Option<Busy>, StoreError>;
    /// The rollouts that have not ended, newest first: all, or the one on a target.
    async fn open(&self, on: Option<&str>) -> Result<Vec<Open>, StoreError>;
    /// Rollouts to drive on that no process is expected to wake: the time of their
    /// owner or keeper was over at `now` (Unix ms). The longest overdue first, each
    /// with that time.
    async fn due(&self, now: Millis, limit: u32) -> Result<Vec<(String, Millis)>, StoreError>;
    /// One page of all rollouts, newest first.
    async fn history(&self, page: &Page) -> Result<Vec<Summary>, StoreError>;
    /// Sends a signal; returns false if that id was sent before.
    async fn signal(&self, rollout: &str, signal: &Signal) -> Result<bool, StoreError>;
    /// Signals of one or all rollouts after `after`, in order, each with its number.
    async fn signals(
        &self,
        rollout: Option<&str>,
        after: u64,
    ) -> Result<Vec<(u64, String, Signal)>, StoreError>;
}

/// Bytes by digest, and small texts by key.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Keeps bytes under their digest. The grace time begins anew at `now` (Unix ms).
    async fn put(&self, sha256: &str, bytes: &[u8], now: Millis) -> Result<(), StoreError>;
    /// The bytes of that digest.
    async fn get(&self, sha256: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Deletes bytes that no unfinished rollout needs and that were last put more than
    /// [`BLOB_GRACE_MS`] before `now` (Unix ms).
    async fn sweep(&self, now: Millis) -> Result<(), StoreError>;
    /// Keeps a text under a key and replaces the earlier one. It is a cache, no more.
    async fn remember(&self, key: &str, text: &str) -> Result<(), StoreError>;
    /// The text of that key.
    async fn recall(&self, key: &str) -> Result<Option<String>, StoreError>;
}

/// A store of rollouts: all three ports in one.
pub trait Store: Journals + Schedule + Blobs {}

impl<T: Journals + Schedule + Blobs> Store for T {}

/// Whether a living process drives the rollout that occupies a target, or will
/// wake it.
#[must_use]
pub fn is_driven(store: &dyn Store, busy: &Busy, now: Millis) -> bool {
    is_driven_unless(busy, now, |owner| store.is_dead(owner))
}

/// The same, where somebody else knows which processes are dead.
pub fn is_driven_unless<'a>(
    busy: &'a Busy,
    now: Millis,
    mut is_dead: impl FnMut(&'a Owner) -> bool,
) -> bool {
    busy.expires > now && busy.driver().is_some_and(|owner| !is_dead(owner))
}

/// Refuses an entry that is larger than a journal takes.
pub(crate) fn check_sizes(rollout: &str, entries: &[Entry]) -> Result<(), StoreError> {
    for entry in entries {
        let bytes = entry.event.size();
        if bytes > ENTRY_BYTES_MAX {
            return Err(StoreError::TooLarge {
                rollout: rollout.to_owned(),
                seq: entry.seq,
                bytes,
            });
        }
    }
    Ok(())
}

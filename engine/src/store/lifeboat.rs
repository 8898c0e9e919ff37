//! A store for the way back, over another one that may fail.
//!
//! Traffic is taken back even if nothing can be written down: the disk is full,
//! the folder is gone or read-only, the database is damaged, or a frozen process
//! holds its lock. From the first failure on, everything is kept in memory, on top
//! of what can still be read. Leases no longer count, because a person asked for
//! the way back and each of its writes is absolute. The caller says at the end
//! what was not written down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Blobs, Busy, Claim, Durability, Journals, Lease, Open, Owner, Page, Schedule, Store, StoreError,
};
use crate::journal::summary::Summary;
use crate::journal::{Entry, Event, Header};
use crate::model::{Millis, Signal};

/// A store that goes on in memory where the one below it fails.
pub struct Lifeboat {
    under: Option<Arc<dyn Store>>,
    aboard: Mutex<Aboard>,
}

#[derive(Debug, Default)]
struct Aboard {
    /// Why the store below is not written to any more; `None` while it is.
    failed: Option<String>,
    journals: HashMap<String, Vec<Entry>>,
    signals: Vec<(String, Signal)>,
}

/// Numbers of the signals that only this store has begin here.
const SIGNALS_FROM: u64 = 1 << 62;

impl Lifeboat {
    /// Over a store that has not failed.
    #[must_use]
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self {
            under: Some(store),
            aboard: Mutex::default(),
        }
    }

    /// In place of a store that cannot be written to, and perhaps not even read.
    #[must_use]
    pub fn adrift(store: Option<Arc<dyn Store>>, why: String) -> Self {
        Self {
            under: store,
            aboard: Mutex::new(Aboard {
                failed: Some(why),
                ..Aboard::default()
            }),
        }
    }

    /// Why nothing is written down any more; `None` while everything is.
    #[must_use]
    pub fn failed(&self) -> Option<String> {
        self.aboard().failed.clone()
    }

    /// Keeps a journal that the store below cannot be read for any more.
    pub fn take_along(&self, rollout: &str, entries: Vec<Entry>) {
        self.aboard()
            .journals
            .entry(rollout.to_owned())
            .or_insert(entries);
    }

    /// The store below, which may still be readable.
    #[must_use]
    pub fn below(&self) -> Option<Arc<dyn Store>> {
        self.under.clone()
    }

    fn aboard(&self) -> MutexGuard<'_, Aboard> {
        self.aboard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store below, while it can be written to.
    fn afloat(&self) -> Option<&Arc<dyn Store>> {
        self.under.as_ref().filter(|_| self.failed().is_none())
    }

    /// What the store below answered; `None` if it failed, now or before.
    fn kept<T>(&self, result: Result<T, StoreError>) -> Option<Result<T, StoreError>> {
        match result {
            Err(error @ (StoreError::Database { .. } | StoreError::Format { .. })) => {
                self.aboard().failed.get_or_insert(error.to_string());
                None
            }
            result => Some(result),
        }
    }

    /// The journal, as far as it is known.
    async fn whole(&self, rollout: &str) -> Vec<Entry> {
        if let Some(entries) = self.aboard().journals.get(rollout) {
            return entries.clone();
        }
        let entries = match &self.under {
            Some(store) => store.load(rollout, 0).await.unwrap_or_default(),
            None => vec![],
        };
        self.take_along(rollout, entries.clone());
        entries
    }
}

#[async_trait]
impl Journals for Lifeboat {
    async fn claim(&self, claim: Claim<'_>) -> Result<Lease, StoreError> {
        if let Some(store) = self.afloat()
            && let Some(result) = self.kept(store.claim(claim.clone()).await)
        {
            return result;
        }
        let last = self.whole(claim.rollout).await.last().map(|e| e.epoch);
        Ok(Lease {
            target: claim.target.to_owned(),
            rollout: claim.rollout.to_owned(),
            epoch: last.map_or(1, |epoch| epoch.saturating_add(1)),
        })
    }

    async fn renew(&self, lease: &Lease, expires: Millis) -> Result<(), StoreError> {
        if let Some(store) = self.afloat()
            && let Some(result) = self.kept(store.renew(lease, expires).await)
        {
            return result;
        }
        Ok(())
    }

    async fn park(&self, lease: &Lease, until: Option<Millis>) -> Result<(), StoreError> {
        if let Some(store) = self.afloat()
            && let Some(result) = self.kept(store.park(lease, until).await)
        {
            return result;
        }
        Ok(())
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        if let Some(store) = self.afloat()
            && let Some(result) = self.kept(store.release(lease).await)
        {
            return result;
        }
        Ok(())
    }

    async fn append(
        &self,
        lease: &Lease,
        entries: Vec<Entry>,
        summary: &Summary,
        durability: Durability,
    ) -> Result<(), StoreError> {
        if let Some(store) = self.afloat() {
            let appended = store.append(lease, entries.clone(), summary, durability);
            if let Some(result) = self.kept(appended.await) {
                return result;
            }
        }
        self.whole(&lease.rollout).await;
        let mut aboard = self.aboard();
        let journal = aboard.journals.entry(lease.rollout.clone()).or_default();
        journal.extend(entries);
        Ok(())
    }

    async fn load(&self, rollout: &str, from: u32) -> Result<Vec<Entry>, StoreError> {
        if let Some(store) = self.afloat()
            && let Some(result) = self.kept(store.load(rollout, from).await)
        {
            return result;
        }
        let mut entries = self.whole(rollout).await;
        entries.retain(|e| e.seq >= from);
        Ok(entries)
    }

    async fn header(&self, rollout: &str) -> Result<Option<Header>, StoreError> {
        if let Some(store) = self.afloat()
            && let Some(result) = self.kept(store.header(rollout).await)
        {
            return result;
        }
        let first = self.whole(rollout).await.into_iter().next();
        Ok(first.and_then(|entry| match entry.event {
            Event::Started(header) => Some(*header),
            _ => None,
        }))
    }

    fn is_dead(&self, owner: &Owner) -> bool {
        self.under
            .as_ref()
            .is_some_and(|store| store.is_dead(owner))
    }
}

#[async_trait]
impl Schedule for Lifeboat {
    async fn occupant(&self, target: &str) -> Result<Option<Busy>, StoreError> {
        let known = match &self.under {
            Some(store) => self.kept(store.occupant(target).await).transpose()?,
            None => None,
        };
        // Another process that cannot be told of the way back is not waited for.
        let told = self.failed().is_none();
        Ok(known.flatten().map(|busy| Busy {
            owner: busy.owner.filter(|_| told),
            keeper: busy.keeper.filter(|_| told),
            ..busy
        }))
    }

    async fn open(&self, on: Option<&str>) -> Result<Vec<Open>, StoreError> {
        Ok(match &self.under {
            Some(store) => self
                .kept(store.open(on).await)
                .transpose()?
                .unwrap_or_default(),
            None => vec![],
        })
    }

    async fn due(&self, now: Millis, limit: u32) -> Result<Vec<(String, Millis)>, StoreError> {
        Ok(match &self.under {
            Some(store) => self
                .kept(store.due(now, limit).await)
                .transpose()?
                .unwrap_or_default(),
            None => vec![],
        })
    }

    async fn history(&self, page: &Page) -> Result<Vec<Summary>, StoreError> {
        Ok(match &self.under {
            Some(store) => self
                .kept(store.history(page).await)
                .transpose()?
                .unwrap_or_default(),
            None => vec![],
        })
    }

    async fn signal(&self, rollout: &str, signal: &Signal) -> Result<bool, StoreError> {
        if let Some(store) = self.afloat()
            && let Some(result) = self.kept(store.signal(rollout, signal).await)
        {
            return result;
        }
        let mut aboard = self.aboard();
        aboard.signals.push((rollout.to_owned(), signal.clone()));
        Ok(true)
    }

    async fn signals(
        &self,
        rollout: Option<&str>,
        after: u64,
    ) -> Result<Vec<(u64, String, Signal)>, StoreError> {
        let mut all = match &self.under {
            Some(store) => {
                let known = store.signals(rollout, after).await;
                self.kept(known).transpose()?.unwrap_or_default()
            }
            None => vec![],
        };
        let aboard = self.aboard();
        let own = (SIGNALS_FROM..).zip(&aboard.signals);
        let wanted = own
            .filter(|(number, (r, _))| *number > after && rollout.is_none_or(|wanted| wanted == r));
        all.extend(wanted.map(|(number, (r, s))| (number, r.clone(), s.clone())));
        Ok(all)
    }
}

#[async_trait]
impl Blobs for Lifeboat {
    async fn put(&self, sha256: &str, bytes: &[u8], now: Millis) -> Result<(), StoreError> {
        match self.afloat() {
            Some(store) => store.put(sha256, bytes, now).await,
            None => Ok(()),
        }
    }

    async fn get(&self, sha256: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.under {
            Some(store) => store.get(sha256).await,
            None => Ok(None),
        }
    }

    async fn sweep(&self, now: Millis) -> Result<(), StoreError> {
        match self.afloat() {
            Some(store) => store.sweep(now).await,
            None => Ok(()),
        }
    }

    async fn remember(&self, key: &str, text: &str) -> Result<(), StoreError> {
        // This only saves work, so a failure here does not count.
        match self.afloat() {
            Some(store) => store.remember(key, text).await,
            None => Ok(()),
        }
    }

    async fn recall(&self, key: &str) -> Result<Option<String>, StoreError> {
        match &self.under {
            Some(store) => Ok(store.recall(key).await.unwrap_or_default()),
            None => Ok(None),
        }
    }
}

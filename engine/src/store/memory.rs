//! A store in the memory of one process, for tests and simulations.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::claim::{Known, decide};
use super::{
    BLOB_GRACE_MS, Blobs, Busy, Claim, Cursor, Durability, Journals, KEPT_AFTER_WAKE_MS, Lease,
    Open, Owner, Page, Schedule, StoreError, check_sizes, is_part,
};
use crate::journal::summary::Summary;
use crate::journal::{self, Entry, Event, Header};
use crate::model::{Millis, Signal};

/// A store in the memory of one process.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    journals: BTreeMap<String, Vec<Entry>>,
    rows: BTreeMap<String, Summary>,
    /// By identity of the target.
    leases: HashMap<String, Busy>,
    signals: Vec<(String, Signal)>,
    /// Bytes, and when they were last put.
    blobs: HashMap<String, (Vec<u8>, Millis)>,
    remembered: HashMap<String, String>,
    dead: Vec<Owner>,
}

impl Inner {
    /// A lease, unless its rollout has ended.
    fn occupant(&self, target: &str) -> Option<&Busy> {
        let busy = self.leases.get(target)?;
        let last = self.journals.get(&busy.rollout).and_then(|j| j.last());
        let ended = last.is_some_and(|e| matches!(e.event, Event::Ended { .. }));
        (!ended).then_some(busy)
    }

    /// All rows, newest first.
    fn newest_first(&self) -> Vec<&Summary> {
        let mut rows: Vec<&Summary> = self.rows.values().collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.created, &row.rollout)));
        rows
    }

    /// Whether a target is that of a rollout, by whichever of its identities.
    fn is_on(&self, target: &str, row: &Summary) -> bool {
        let journal = self.journals.get(&row.rollout);
        let header = journal.and_then(|journal| journal::header(journal));
        let mut also = header.into_iter().flat_map(|header| header.target.also());
        row.target == target || also.any(|also| also.route == target)
    }

    /// The lease as it is now, if nobody has claimed it since.
    fn claimed(&mut self, lease: &Lease) -> Result<&mut Busy, StoreError> {
        self.leases
            .get_mut(&lease.target)
            .filter(|busy| busy.rollout == lease.rollout && busy.epoch == lease.epoch)
            .ok_or_else(|| StoreError::Fenced {
                rollout: lease.rollout.clone(),
            })
    }

    /// Changes a lease under every identity that its target has.
    fn each(&mut self, lease: &Lease, change: impl Fn(&mut Busy)) {
        let leases = self.leases.values_mut();
        leases
            .filter(|busy| busy.rollout == lease.rollout && busy.epoch == lease.epoch)
            .for_each(change);
    }

    /// The same, if it was not given up either.
    fn owned(&mut self, lease: &Lease) -> Result<&mut Busy, StoreError> {
        let busy = self.claimed(lease)?;
        if busy.owner.is_none() {
            return Err(StoreError::Fenced {
                rollout: lease.rollout.clone(),
            });
        }
        Ok(busy)
    }
}

impl MemoryStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a journal as if a process had written it and died: for tests.
    pub fn plant(&self, rollout: &str, entries: Vec<Entry>) {
        let mut inner = self.inner();
        if let Some(row) = Summary::of_journal(&entries) {
            inner.rows.insert(rollout.to_owned(), row);
        }
        inner.journals.insert(rollout.to_owned(), entries);
    }

    /// Takes an owner for dead from now on: for tests of several processes.
    pub fn bury(&self, owner: Owner) {
        self.inner().dead.push(owner);
    }
}

#[async_trait]
impl Journals for MemoryStore {
    async fn claim(&self, claim: Claim<'_>) -> Result<Lease, StoreError> {
        let mut inner = self.inner();
        let began = |busy: &Busy| inner.journals.contains_key(&busy.rollout);
        let last = inner.journals.get(claim.rollout).and_then(|j| j.last());
        let mut epoch = 0;
        let mut abandoned = vec![];
        for identity in claim.identities() {
            let occupant = inner.occupant(identity).cloned();
            abandoned.extend(occupant.iter().map(|busy| busy.rollout.clone()));
            let known = Known {
                began: occupant.as_ref().is_some_and(began),
                last_epoch: last.map(|entry| entry.epoch),
                occupant,
            };
            epoch = epoch.max(decide(&claim, known).map_err(StoreError::Busy)?);
        }
        inner
            .leases
            .retain(|_, busy| !abandoned.contains(&busy.rollout));
        for identity in claim.identities() {
            let busy = Busy {
                rollout: claim.rollout.to_owned(),
                epoch,
                owner: Some(claim.owner.clone()),
                keeper: None,
                due: None,
                expires: claim.now + claim.ttl_ms,
            };
            inner.leases.insert(identity.to_owned(), busy);
        }
        Ok(Lease {
            target: claim.target.to_owned(),
            rollout: claim.rollout.to_owned(),
            epoch,
        })
    }

    async fn renew(&self, lease: &Lease, expires: Millis) -> Result<(), StoreError> {
        let mut inner = self.inner();
        inner.owned(lease)?;
        inner.each(lease, |busy| busy.expires = expires);
        Ok(())
    }

    async fn park(&self, lease: &Lease, until: Option<Millis>) -> Result<(), StoreError> {
        let mut inner = self.inner();
        inner.claimed(lease)?;
        inner.each(lease, |busy| {
            let last = busy.owner.take().or(busy.keeper.take());
            busy.keeper = last.filter(|_| until.is_some());
            busy.due = until;
            if let Some(until) = until {
                busy.expires = until.saturating_add(KEPT_AFTER_WAKE_MS);
            }
        });
        Ok(())
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let mut inner = self.inner();
        inner.claimed(lease)?;
        inner.leases.retain(|_, busy| busy.rollout != lease.rollout);
        Ok(())
    }

    async fn append(
        &self,
        lease: &Lease,
        entries: Vec<Entry>,
        summary: &Summary,
        _durability: Durability,
    ) -> Result<(), StoreError> {
        check_sizes(&lease.rollout, &entries)?;
        let mut inner = self.inner();
        inner.owned(lease)?;
        inner.rows.insert(lease.rollout.clone(), summary.clone());
        let journal = inner.journals.entry(lease.rollout.clone()).or_default();
        journal.extend(entries);
        Ok(())
    }

    async fn load(&self, rollout: &str, from: u32) -> Result<Vec<Entry>, StoreError> {
        Ok(self
            .inner()
            .journals
            .get(rollout)
            .map(|j| j.iter().filter(|e| e.seq >= from).cloned().collect())
            .unwrap_or_default())
    }

    async fn header(&self, rollout: &str) -> Result<Option<Header>, StoreError> {
        let inner = self.inner();
        let first = inner.journals.get(rollout).and_then(|j| j.first());
        Ok(first.and_then(|entry| match &entry.event {
            Event::Started(header) => Some((**header).clone()),
            _ => None,
        }))
    }

    /// All users of this store live in its process.
    fn is_dead(&self, owner: &Owner) -> bool {
        self.inner().dead.contains(owner)
    }
}

#[async_trait]
impl Schedule for MemoryStore {
    async fn occupant(&self, target: &str) -> Result<Option<Busy>, StoreError> {
        Ok(self.inner().occupant(target).cloned())
    }

    async fn open(&self, on: Option<&str>) -> Result<Vec<Open>, StoreError> {
        let inner = self.inner();
        let rows = inner.newest_first().into_iter();
        Ok(rows
            .filter(|row| row.end.is_none() && on.is_none_or(|target| inner.is_on(target, row)))
            .filter_map(|row| {
                let busy = inner.leases.get(&row.target)?;
                (busy.rollout == row.rollout).then(|| Open {
                    summary: row.clone(),
                    busy: busy.clone(),
                })
            })
            .collect())
    }

    async fn due(&self, now: Millis, limit: u32) -> Result<Vec<(String, Millis)>, StoreError> {
        let open = self.open(None).await?.into_iter();
        let mut due: Vec<(String, Millis)> = open
            .filter(|open| open.busy.driver().is_some() && open.busy.expires <= now)
            .map(|open| (open.summary.rollout, open.busy.expires))
            .collect();
        due.sort_by_key(|(_, at)| *at);
        due.truncate(limit as usize);
        Ok(due)
    }

    async fn history(&self, page: &Page) -> Result<Vec<Summary>, StoreError> {
        let older = |row: &Summary, than: &Cursor| {
            (row.created, &row.rollout) < (than.created, &than.rollout)
        };
        let inner = self.inner();
        let rows = inner.newest_first().into_iter();
        Ok(rows
            .filter(|row| {
                page.on
                    .as_ref()
                    .is_none_or(|target| inner.is_on(target, row))
            })
            .filter(|row| !page.strategies || row.plugin.is_some())
            .filter(|row| {
                let part = page.part.as_ref();
                part.is_none_or(|part| is_part(part, &row.rollout))
            })
            .filter(|row| page.after.as_ref().is_none_or(|after| older(row, after)))
            .take(page.limit as usize)
            .cloned()
            .collect())
    }

    async fn signal(&self, rollout: &str, signal: &Signal) -> Result<bool, StoreError> {
        let mut inner = self.inner();
        let known = inner
            .signals
            .iter()
            .any(|(r, s)| r == rollout && s.id == signal.id);
        if !known {
            inner.signals.push((rollout.to_owned(), signal.clone()));
        }
        Ok(!known)
    }

    async fn signals(
        &self,
        rollout: Option<&str>,
        after: u64,
    ) -> Result<Vec<(u64, String, Signal)>, StoreError> {
        Ok(self
            .inner()
            .signals
            .iter()
            .zip(1..)
            .filter(|((r, _), number)| *number > after && rollout.is_none_or(|wanted| wanted == r))
            .map(|((r, s), number)| (number, r.clone(), s.clone()))
            .collect())
    }
}

#[async_trait]
impl Blobs for MemoryStore {
    async fn put(&self, sha256: &str, bytes: &[u8], now: Millis) -> Result<(), StoreError> {
        let kept = (bytes.to_vec(), now);
        self.inner().blobs.insert(sha256.to_owned(), kept);
        Ok(())
    }

    async fn get(&self, sha256: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let inner = self.inner();
        Ok(inner.blobs.get(sha256).map(|(bytes, _)| bytes.clone()))
    }

    async fn sweep(&self, now: Millis) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let open = inner.rows.values().filter(|row| row.end.is_none());
        let needed: Vec<String> = open.filter_map(|row| row.plugin.clone()).collect();
        inner.blobs.retain(|sha256, (_, put)| {
            needed.contains(sha256) || put.saturating_add(BLOB_GRACE_MS) >= now
        });
        Ok(())
    }

    async fn remember(&self, key: &str, text: &str) -> Result<(), StoreError> {
        self.inner()
            .remembered
            .insert(key.to_owned(), text.to_owned());
        Ok(())
    }

    async fn recall(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.inner().remembered.get(key).cloned())
    }
}

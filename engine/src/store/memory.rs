//! A store that dies with its process: for tests and simulations.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Busy, Claim, Durability, Lease, Listed, Owner, Store, StoreError};
use crate::journal::{Entry, Event, Header};
use crate::model::{Millis, Signal};

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    journals: BTreeMap<String, Vec<Entry>>,
    leases: HashMap<String, Held>,
    signals: Vec<(String, Signal)>,
    content: HashMap<String, Vec<u8>>,
    remembered: HashMap<String, String>,
}

#[derive(Debug)]
struct Held {
    rollout: String,
    epoch: u32,
    owner: Option<Owner>,
    expires: Millis,
}

impl Held {
    fn busy(&self) -> Busy {
        Busy {
            rollout: self.rollout.clone(),
            epoch: self.epoch,
            owner: self.owner.clone(),
            expires: self.expires,
        }
    }
}

impl Inner {
    /// All rollouts, newest first.
    fn listed(&self) -> Vec<Listed> {
        let mut listed: Vec<Listed> = self
            .journals
            .values()
            .filter_map(|j| match &j.first()?.event {
                Event::Started(header) => Some(Listed {
                    header: (**header).clone(),
                    last: j.last()?.clone(),
                }),
                _ => None,
            })
            .collect();
        listed.sort_by_key(|l| std::cmp::Reverse(l.header.created));
        listed
    }

    /// A lease, unless its rollout has ended.
    fn occupant(&self, target: &str) -> Option<&Held> {
        let held = self.leases.get(target)?;
        let last = self.journals.get(&held.rollout).and_then(|j| j.last());
        let ended = last.is_some_and(|e| matches!(e.event, Event::Ended { .. }));
        (!ended).then_some(held)
    }
}

impl MemoryStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a journal there as if a process had written it and died: for tests.
    pub fn plant(&self, rollout: &str, entries: Vec<Entry>) {
        self.inner().journals.insert(rollout.to_owned(), entries);
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn claim(&self, claim: Claim<'_>) -> Result<Lease, StoreError> {
        let mut inner = self.inner();
        let mut epoch = 1;
        if let Some(held) = inner.occupant(claim.target) {
            let gone = held.owner.is_none()
                || held.expires <= claim.now
                || claim.dead_epoch == Some(held.epoch);
            let free = gone || held.owner.as_ref() == Some(claim.owner);
            // A process that died before its first entry leaves nothing to resume.
            let abandoned = gone && !inner.journals.contains_key(&held.rollout);
            if held.rollout != claim.rollout && !abandoned || !free {
                return Err(StoreError::Busy(held.busy()));
            }
            epoch = held.epoch + 1;
        }
        if let Some(last) = inner.journals.get(claim.rollout).and_then(|j| j.last()) {
            epoch = epoch.max(last.epoch + 1);
        }
        inner.leases.insert(
            claim.target.to_owned(),
            Held {
                rollout: claim.rollout.to_owned(),
                epoch,
                owner: Some(claim.owner.clone()),
                expires: claim.now + claim.ttl_ms,
            },
        );
        Ok(Lease {
            target: claim.target.to_owned(),
            rollout: claim.rollout.to_owned(),
            epoch,
        })
    }

    async fn renew(&self, lease: &Lease, expires: Millis) -> Result<(), StoreError> {
        let mut inner = self.inner();
        held(&mut inner, lease)?.expires = expires;
        Ok(())
    }

    async fn release(&self, lease: &Lease, keep: bool) -> Result<(), StoreError> {
        let mut inner = self.inner();
        held(&mut inner, lease)?.owner = None;
        if !keep {
            inner.leases.remove(&lease.target);
        }
        Ok(())
    }

    async fn append(
        &self,
        lease: &Lease,
        entries: Vec<Entry>,
        _durability: Durability,
    ) -> Result<(), StoreError> {
        let mut inner = self.inner();
        held(&mut inner, lease)?;
        inner
            .journals
            .entry(lease.rollout.clone())
            .or_default()
            .extend(entries);
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

    async fn list(&self, on: Option<&str>, limit: u32) -> Result<Vec<Listed>, StoreError> {
        let mut listed = self.inner().listed();
        listed.retain(|l| on.is_none_or(|target| target == l.header.identity));
        listed.truncate(limit as usize);
        Ok(listed)
    }

    async fn unfinished(&self) -> Result<Vec<Header>, StoreError> {
        let inner = self.inner();
        let mut listed = inner.listed();
        listed.retain(|l| {
            let held = inner.occupant(&l.header.identity);
            held.is_some_and(|held| held.rollout == l.header.rollout)
        });
        Ok(listed.into_iter().map(|l| l.header).collect())
    }

    async fn occupant(&self, target: &str) -> Result<Option<Busy>, StoreError> {
        Ok(self.inner().occupant(target).map(Held::busy))
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

    async fn remember(&self, key: &str, text: &str) -> Result<(), StoreError> {
        self.inner()
            .remembered
            .insert(key.to_owned(), text.to_owned());
        Ok(())
    }

    async fn recall(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.inner().remembered.get(key).cloned())
    }

    async fn put_content(&self, sha256: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner()
            .content
            .insert(sha256.to_owned(), bytes.to_vec());
        Ok(())
    }

    async fn content(&self, sha256: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.inner().content.get(sha256).cloned())
    }

    async fn sweep_content(&self, needed: &[String]) -> Result<(), StoreError> {
        self.inner().content.retain(|sha, _| needed.contains(sha));
        Ok(())
    }
}

fn held<'a>(inner: &'a mut Inner, lease: &Lease) -> Result<&'a mut Held, StoreError> {
    inner
        .leases
        .get_mut(&lease.target)
        .filter(|h| h.rollout == lease.rollout && h.epoch == lease.epoch)
        .ok_or_else(|| StoreError::Fenced {
            rollout: lease.rollout.clone(),
        })
}

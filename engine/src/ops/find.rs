//! Which rollout is meant: by its name, by its target, or the one under way.

use super::app::App;
use super::error::{Error, Result};
use crate::journal::status::Status;
use crate::journal::{Entry, Event, Header};
use crate::rollout::Resolve as _;
use crate::store::{Busy, Lease};

impl App {
    /// A rollout's journal and what it adds up to.
    pub async fn journal(&self, id: &str) -> Result<(Header, Status, Vec<Entry>)> {
        let entries = self.store.load(id, 0).await?;
        match (entries.first().map(|e| &e.event), Status::of(&entries)) {
            (Some(Event::Started(header)), Some(status)) => {
                Ok(((**header).clone(), status, entries))
            }
            _ => Err(Error::usage(format!(
                "there is no rollout {id:?}; `engine list` shows them"
            ))),
        }
    }

    /// The unfinished rollout on a target.
    pub async fn on_target(&self, identity: &str) -> Result<String> {
        let mut open = self.open_rollouts().await?.into_iter();
        match open.find(|header| header.identity == identity) {
            Some(header) => Ok(header.rollout),
            None => Err(Error::usage(format!(
                "no rollout is under way on {identity}; see `engine list`"
            ))),
        }
    }

    /// The rollout that is meant: the one named, or the newest unfinished one.
    pub async fn unfinished(&self, id: Option<&str>) -> Result<String> {
        if let Some(id) = id {
            self.journal(id).await?;
            return Ok(id.to_owned());
        }
        let open = self.open_rollouts().await?;
        let mut driven = vec![];
        for header in &open {
            if self.living_owner(header).await?.is_some() {
                driven.push(header);
            }
        }
        match (&open[..], &driven[..]) {
            ([], _) => Err(Error::usage(
                "no rollout is under way; name one, or see `engine list`",
            )),
            ([one], _) => Ok(one.rollout.clone()),
            (_, [one]) => Ok(one.rollout.clone()),
            (several, _) => {
                let ids: Vec<String> = several
                    .iter()
                    .map(|h| format!("  {} on {}", h.rollout, h.identity))
                    .collect();
                Err(Error::usage(format!(
                    "several rollouts are under way; name one of them:\n{}",
                    ids.join("\n")
                )))
            }
        }
    }

    /// The rollouts that have not ended, newest first.
    pub async fn open_rollouts(&self) -> Result<Vec<Header>> {
        Ok(self.store.unfinished().await?)
    }

    /// The newest unfinished rollout whose target answers; else the newest one
    /// that at least has a living driver.
    pub async fn rollout_in_sight(&self) -> Result<Option<Header>> {
        for header in self.open_rollouts().await? {
            if self.ports.reach(&header.target).await.is_ok()
                || self.living_owner(&header).await?.is_some()
            {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Gives up the driver's seat of a suspended rollout, so that any process
    /// may take it; the rollout goes on occupying its target.
    pub async fn let_go(&self, rollout: &str) -> Result<()> {
        let (header, ..) = self.journal(rollout).await?;
        match self.store.occupant(&header.identity).await? {
            Some(busy) if busy.owner.as_ref() == Some(&self.owner) => {
                let lease = Lease {
                    target: header.identity,
                    rollout: busy.rollout,
                    epoch: busy.epoch,
                };
                Ok(self.store.release(&lease, true).await?)
            }
            _ => Ok(()),
        }
    }

    /// Who drives a rollout right now, if a living process does.
    pub async fn living_owner(&self, header: &Header) -> Result<Option<Busy>> {
        let busy = self.store.occupant(&header.identity).await?;
        Ok(busy.filter(|busy| self.is_driven(header, busy)))
    }

    /// Whether that is a living process that drives the rollout.
    pub fn is_driven(&self, header: &Header, busy: &Busy) -> bool {
        let alive = busy.owner.as_ref().is_some_and(|o| !self.ports.is_dead(o));
        busy.rollout == header.rollout && busy.expires > self.clock.now() && alive
    }
}

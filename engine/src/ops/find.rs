//! Which rollout is meant: by its name, by its target, or the one under way.

use std::sync::Arc;

use super::app::App;
use super::error::{Error, Result};
use super::request::TargetRequest;
use crate::journal::status::Status;
use crate::journal::{Entry, Event, Header, Work};
use crate::rollout::Resolve as _;
use crate::spec::{ADMIN_DEFAULT, TargetSpec};
use crate::store::{Busy, Lease};
use crate::target::Target;

/// How the occupant of a target is called while its stack changes.
pub const STACK_WORK: &str = "stack-";

impl App {
    /// The rollout that is named, or the one on the target that the request names,
    /// or the one that is under way.
    pub async fn meant(
        &self,
        request: &TargetRequest,
        id: Option<&str>,
    ) -> Result<(Header, Status)> {
        let by_target = match id {
            None => request.identity(self).await?,
            Some(_) => None,
        };
        let id = match by_target {
            Some(identity) => self.on_target(&identity).await?,
            None => self.unfinished(id).await?,
        };
        self.reached(&id).await
    }

    /// How a rollout stands.
    pub async fn reached(&self, id: &str) -> Result<(Header, Status)> {
        let (header, status, _) = self.journal(id).await?;
        Ok((header, status))
    }

    /// The target that the request, the rollout file, a live rollout or the default
    /// names.
    pub async fn target(&self, request: &TargetRequest) -> Result<(TargetSpec, Arc<dyn Target>)> {
        let spec = match request.named()? {
            Some(spec) => spec.target,
            None => self.rollout_in_sight().await?.map_or(
                TargetSpec::Local {
                    admin: ADMIN_DEFAULT,
                },
                |header| header.target,
            ),
        };
        let target = self.ports.reach(&spec).await?;
        Ok((spec, target))
    }

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

/// The rollout that is named, or the newest one, of the target that a flag names.
pub async fn newest_unless(
    app: &App,
    request: &TargetRequest,
    named: Option<String>,
) -> Result<String> {
    if named.is_none()
        && let Some(identity) = request.identity(app).await?
    {
        let listed = app.store.list(Some(&identity), 1).await?;
        return listed
            .into_iter()
            .next()
            .map(|l| l.header.rollout)
            .ok_or_else(|| Error::usage(format!("there are no rollouts on {identity} yet")));
    }
    match (named, app.store.list(None, 1).await?.first()) {
        (Some(id), _) => Ok(id),
        (None, Some(newest)) => Ok(newest.header.rollout.clone()),
        (None, None) => Err(Error::usage("there are no rollouts yet")),
    }
}

/// The rollout that occupies a target, or the last one that did.
pub(super) async fn last_rollout(app: &App, identity: &str) -> Result<Option<String>> {
    if let Some(busy) = app.store.occupant(identity).await?
        && !busy.rollout.starts_with(STACK_WORK)
        && app.journal(&busy.rollout).await.is_ok()
    {
        return Ok(Some(busy.rollout));
    }
    let listed = app.store.list(Some(identity), u32::MAX).await?;
    let last = listed
        .into_iter()
        .find(|l| matches!(l.header.work, Work::Strategy(_)));
    Ok(last.map(|l| l.header.rollout))
}

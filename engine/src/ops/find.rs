//! Which rollout is meant: by its name, by its target, or the one under way.

use std::sync::Arc;

use super::advice::{Advice, Ask, Input};
use super::app::{App, STACK_VARIABLE};
use super::error::{Error, Result};
use super::news::Note;
use super::request::TargetRequest;
use crate::journal::status::Status;
use crate::journal::{Entry, Header, header};
use crate::model::aws::AwsSpec;
use crate::model::target::{ADMIN_DEFAULT, TargetSpec};
use crate::store::{self, Busy, Lease, Open, Page};
use crate::target::Target;

/// Most unfinished rollouts without a driver whose targets are read to find the one
/// that is meant.
const IN_SIGHT_MAX: usize = 20;

impl App {
    /// The rollout that is named, or the one on the target that the request names,
    /// or the one that is under way.
    pub async fn meant(
        &self,
        request: &TargetRequest,
        id: Option<&str>,
    ) -> Result<(Header, Status)> {
        let id = self.meant_id(request, id).await?;
        self.reached(&id).await
    }

    /// The id of it: no journal is read for it.
    pub(super) async fn meant_id(
        &self,
        request: &TargetRequest,
        id: Option<&str>,
    ) -> Result<String> {
        if let Some(id) = id {
            return Ok(id.to_owned());
        }
        match request.identity(self).await? {
            Some(identity) => self.on_target(&identity).await,
            None => self.unfinished(None).await,
        }
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
            None => {
                if let Some(stack) = self.surroundings.stack.get(STACK_VARIABLE) {
                    let note = Note::from(format!(
                        "{STACK_VARIABLE}={stack} of the environment names a stack for what makes, changes or deletes one only"
                    ));
                    let input = Input::StackNamed(stack.clone());
                    self.note(note.advise(Advice::give(input, "names it here")));
                }
                self.rollout_in_sight().await?.map_or(
                    TargetSpec::Local {
                        admin: ADMIN_DEFAULT,
                    },
                    |header| header.target,
                )
            }
        };
        if let TargetSpec::Aws(aws) = &spec {
            let target = self.ports.on_aws(aws).await?;
            let found = target.found();
            // Who moves several routes occupies all of them, by what is pinned.
            let pinned = match found.also.is_empty() {
                true => spec,
                false => TargetSpec::Aws(Box::new(AwsSpec {
                    found: Some(found.clone()),
                    ..(**aws).clone()
                })),
            };
            return Ok((pinned, target));
        }
        let target = self.ports.reach(&spec).await?;
        Ok((spec, target))
    }

    /// A rollout with its status and its journal.
    pub async fn journal(&self, id: &str) -> Result<(Header, Status, Vec<Entry>)> {
        let entries = self.store.load(id, 0).await?;
        match (header(&entries).cloned(), Status::of(&entries)) {
            (Some(header), Some(status)) => Ok((header, status, entries)),
            _ => {
                Err(Error::usage(format!("there is no rollout {id:?}"))
                    .ask(Ask::List, "shows them"))
            }
        }
    }

    /// The unfinished rollout on a target.
    pub async fn on_target(&self, identity: &str) -> Result<String> {
        match self.store.open(Some(identity)).await?.into_iter().next() {
            Some(open) => Ok(open.summary.rollout),
            None => Err(
                Error::usage(format!("no rollout is under way on {identity}"))
                    .ask(Ask::List, "shows all of them"),
            ),
        }
    }

    /// The rollout that is meant: the one named, or the newest unfinished one.
    pub async fn unfinished(&self, id: Option<&str>) -> Result<String> {
        if let Some(id) = id {
            self.journal(id).await?;
            return Ok(id.to_owned());
        }
        let open = self.open_rollouts().await?;
        let driven: Vec<&Open> = open.iter().filter(|o| self.lives(&o.busy)).collect();
        match (&open[..], &driven[..]) {
            ([], _) => {
                Err(Error::usage("no rollout is under way; name one").ask(Ask::List, "shows them"))
            }
            ([one], _) => Ok(one.summary.rollout.clone()),
            (_, [one]) => Ok(one.summary.rollout.clone()),
            (several, _) => {
                let ids: Vec<String> = several
                    .iter()
                    .map(|o| format!("  {} on {}", o.summary.rollout, o.summary.target))
                    .collect();
                Err(Error::usage(format!(
                    "several rollouts are under way; name one of them:\n{}",
                    ids.join("\n")
                )))
            }
        }
    }

    /// The rollouts that have not ended, newest first.
    pub async fn open_rollouts(&self) -> Result<Vec<Open>> {
        Ok(self.store.open(None).await?)
    }

    /// The newest unfinished rollout whose target answers; else the newest one
    /// that at least has a living driver.
    pub async fn rollout_in_sight(&self) -> Result<Option<Header>> {
        for (nth, open) in self.open_rollouts().await?.iter().enumerate() {
            let driven = self.lives(&open.busy);
            if !driven && nth >= IN_SIGHT_MAX {
                continue;
            }
            let Some(header) = self.store.header(&open.summary.rollout).await? else {
                continue;
            };
            if driven || self.ports.reach(&header.target).await.is_ok() {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Gives up the lease of a suspended rollout, so that any process may drive it;
    /// the rollout goes on occupying its target.
    pub async fn let_go(&self, rollout: &str) -> Result<()> {
        let (header, ..) = self.journal(rollout).await?;
        match self.store.occupant(&header.identity).await? {
            Some(busy) if busy.driver() == Some(&self.owner) => {
                let lease = Lease {
                    target: header.identity,
                    rollout: busy.rollout,
                    epoch: busy.epoch,
                };
                Ok(self.store.park(&lease, None).await?)
            }
            _ => Ok(()),
        }
    }

    /// The lease of a rollout, if a living process drives it.
    pub async fn living_owner(&self, header: &Header) -> Result<Option<Busy>> {
        let busy = self.store.occupant(&header.identity).await?;
        Ok(busy.filter(|busy| self.is_driven(&header.rollout, busy)))
    }

    /// Whether that is a living process that drives the rollout.
    pub fn is_driven(&self, rollout: &str, busy: &Busy) -> bool {
        busy.rollout == rollout && self.lives(busy)
    }

    /// Whether a living process drives the rollout that occupies a target, or will wake it.
    fn lives(&self, busy: &Busy) -> bool {
        store::is_driven(self.store.as_ref(), busy, self.clock.now())
    }
}

/// The rollout that occupies a target, or the last one that did.
pub(super) async fn last_rollout(app: &App, identity: &str) -> Result<Option<String>> {
    if let Some(busy) = app.store.occupant(identity).await?
        && app.journal(&busy.rollout).await.is_ok()
    {
        return Ok(Some(busy.rollout));
    }
    let page = Page::newest(Some(identity), 20).of_strategies();
    for row in app.store.history(&page).await? {
        // A journal that cannot be read is skipped.
        if let Ok(Some(_)) = app.store.header(&row.rollout).await {
            return Ok(Some(row.rollout));
        }
    }
    Ok(None)
}

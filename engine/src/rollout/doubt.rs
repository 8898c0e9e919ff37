//! Writes of which nobody knows what they did: what became of them is found out by
//! reading the target.

use super::RolloutError;
use super::driver::Driver;
use super::recovery::{self, Settled};
use super::session::{Interrupt, Leave, Session};
use crate::journal::status::InDoubt;
use crate::journal::{Call, Event, FOREIGN_CHANGE, Reply};
use crate::model::{ErrorKind, Goal, Hold, HostError, Traffic, Weights};
use crate::store::{Durability, StoreError};

impl Driver {
    pub(super) async fn settle(
        &self,
        session: &mut Session,
        write: &InDoubt,
    ) -> Result<(), Interrupt> {
        let going_back = session
            .status
            .decision
            .as_ref()
            .is_some_and(|d| d.goal == Goal::RollBack);
        if going_back && session.status.given.is_none() && !write.call.moves_traffic() {
            // What became of it is no matter there, and needs another service to tell.
            let event = Event::Answered {
                by: write.by,
                of: write.seq,
                reply: Reply::Failed(abandoned()),
                recovered: true,
            };
            return Ok(session.append(event, Durability::Power).await?);
        }
        let looked = self.clock.now();
        let live = match going_back {
            true if write.call.moves_traffic() => {
                self.glance(session, self.patience(session)).await?
            }
            true => self.observe(session, self.patience(session)).await?,
            false => self.observe(session, 0).await?,
        };
        let due = recovery::deadline_is_due(&session.header, &session.status, self.clock.now());
        // Of a release whose name was there before nobody can see whether it was given, and
        // a second time does no harm.
        let settled = match &write.call {
            Call::SetVersion { arm, .. } if session.header.repeats(arm) => Settled::Reissue,
            _ => recovery::settle(write, &live),
        };
        let (reply, conflict) = match settled {
            // It never happened, and is not wanted any more. Of several routes some may have
            // moved.
            Settled::Reissue if going_back || due => {
                let error = Box::pin(session.brought_together(write, abandoned())).await?;
                (Reply::Failed(error), None)
            }
            Settled::Reissue
                if let Some(reason) =
                    recovery::maybe_taken_back(&session.header, write, self.clock.now()) =>
            {
                let error =
                    HostError::new(ErrorKind::Conflict, "abandoned", reason.clone()).retryable();
                let error = Box::pin(session.brought_together(write, error)).await?;
                (Reply::Failed(error), Some(Hold::Stuck { reason }))
            }
            Settled::Reissue => match session.still_healthy(write).await? {
                // What somebody did meanwhile is not written over.
                Leave::Granted if write.call.moves_traffic() => {
                    match session.is_still(&live.traffic(), looked).await? {
                        Ok(()) => return session.issue(write).await.map(|_| ()),
                        Err(error) => {
                            let error = Box::pin(session.brought_together(write, error)).await?;
                            (Reply::Failed(error), None)
                        }
                    }
                }
                Leave::Granted => return session.issue(write).await.map(|_| ()),
                Leave::Refused(error) => {
                    let error = Box::pin(session.brought_together(write, error)).await?;
                    (Reply::Failed(error), None)
                }
            },
            Settled::Happened => (Reply::Done, None),
            Settled::Conflict => {
                let hold = foreign(write, &live.traffic());
                let error = HostError::new(ErrorKind::Conflict, FOREIGN_CHANGE, hold.to_string());
                let error = Box::pin(session.brought_together(write, error)).await?;
                (Reply::Failed(error), Some(hold))
            }
        };
        let event = Event::Answered {
            by: write.by,
            of: write.seq,
            reply,
            recovered: true,
        };
        session.append(event, Durability::Power).await?;
        // The way back to stable is not blocked by what somebody else did.
        match conflict {
            Some(hold) if !going_back => Err(Interrupt::Held(hold)),
            _ => Ok(()),
        }
    }

    /// Lets the time pass in which a write of the process that was here before
    /// could still land. True if it had to: then look once more. A command ends it, but for
    /// the way back.
    pub(super) async fn outwait(&self, session: &mut Session) -> Result<bool, Interrupt> {
        let late = session.target.late_write_ms();
        let until = session
            .status
            .recovered
            .map_or(0, |at| at.saturating_add(late));
        let now = self.clock.now();
        if late == 0 || now >= until {
            return Ok(false);
        }
        let going_back = session.goes_back();
        let seconds = (until - now).div_ceil(1_000);
        self.say(
            session,
            &format!(
                "the traffic is where it belongs; looks once more in {seconds} s, because a write of the process that drove this rollout before could still arrive"
            ),
        );
        while self.clock.now() < until {
            if !going_back && session.is_commanded().await? {
                break;
            }
            let look_again = self.clock.now() + session.poll_ms();
            self.clock.sleep_until(until.min(look_again)).await;
            session.keep_lease().await?;
        }
        Ok(true)
    }

    /// What a lost lease means for a write that was on its way just then: nobody
    /// else knows of it, so this process looks what became of it, and says so.
    pub(super) async fn overtaken(
        &self,
        session: &mut Session,
        error: RolloutError,
    ) -> RolloutError {
        let RolloutError::Store(StoreError::Fenced { rollout }) = &error else {
            return error;
        };
        let Some(write) = session.sent.take() else {
            return error;
        };
        let mut found = session.look_at(&write).await;
        if !matches!(found, Ok((Settled::Happened, _))) {
            let late = self.clock.now() + session.target.late_write_ms();
            self.clock.sleep_until(late).await;
            found = session.look_at(&write).await;
        }
        let call = &write.call;
        let (landed, fate) = match found {
            Ok((Settled::Happened, live)) => (
                true,
                format!(
                    "the target has {live} now, so that write had its effect: see where the traffic belongs with `engine status`, and take it back with `engine rollback`"
                ),
            ),
            Ok((_, live)) => (
                false,
                format!("the target has {live} now, so that write had no lasting effect"),
            ),
            Err(error) => (
                true,
                format!(
                    "what became of that write could not be read ({error}): look with `engine status`"
                ),
            ),
        };
        RolloutError::Overtaken {
            report: format!(
                "another process has taken over rollout {rollout} while this one had sent {call} and waited for the answer; {fate}"
            ),
            landed,
        }
    }
}

/// What somebody else has written while a write was in doubt.
fn foreign(write: &InDoubt, live: &Traffic) -> Hold {
    let wanted = write.call.weights_after(&write.before).unwrap_or_default();
    let known = |weights: &Weights| weights.shares_like(&wanted) || *weights == write.before;
    let strange = live
        .others
        .iter()
        .find(|other| !other.has(&wanted) && !other.has(&write.before));
    match strange.filter(|_| known(&live.weights)) {
        Some(other) => Hold::ForeignChange {
            expected: write.before.clone(),
            found: other.weights.clone(),
            place: Some(other.place.clone()),
        },
        None => Hold::ForeignChange {
            expected: write.before.clone(),
            found: live.weights.clone(),
            place: None,
        },
    }
}

/// The answer of a write that never left and is not wanted any more.
pub(super) fn abandoned() -> HostError {
    HostError::new(
        ErrorKind::Conflict,
        "abandoned",
        "the process died before this write left, and the rollout goes elsewhere now",
    )
    .retryable()
}

//! Commands to a rollout: `resume`, `pause`, `promote`, `approve`. A command is a
//! signal in the store, and the process that drives the rollout obeys it. If none
//! does, this one drives.

use std::time::Duration;

use super::advice::Ask;
use super::app::App;
use super::begin::new_id_part;
use super::error::{Error, Result};
use super::find::Purpose;
use super::request::TargetRequest;
use crate::journal::status::Status;
use crate::journal::verdict::verdict;
use crate::journal::{Entry, Event, Header, Work};
use crate::model::{Command, Hold, Millis, Signal};
use crate::rollout::{Options, RolloutError};
use crate::store::StoreError;
use crate::store::following::Following;

/// How long a command waits for the driving process to obey: longer than the lease of
/// one that froze just after it renewed it.
const OBEY: Duration = Duration::from_secs(35);
/// How long to look for a wait for an approval, ms.
const LOOK_MS: Millis = 5_000;
/// How long a command waits for a process that only means to wake a rollout, ms. Any
/// other may claim that rollout at once.
const KEEPER_HEARS_MS: Millis = 5_000;
/// How often to repeat an approval that a strategy did not wait for just then.
const APPROVALS: u32 = 3;

/// A rollout that has obeyed a command, and its status.
pub type Reached = (Header, Status);

/// A person's command, with an id of its own.
#[must_use]
pub fn signal(app: &App, command: &Command) -> Signal {
    let id = format!("{}-{}", command.name(), new_id_part());
    command.signal(id, &app.actor)
}

/// Refuses what a change of a stack cannot do: CloudFormation goes its own way.
fn refuse_a_change(header: &Header) -> Result<()> {
    let id = &header.rollout;
    match header.work {
        Work::StackChange { .. } => Err(Error::usage(format!(
            "rollout {id} is a change of a stack, which CloudFormation makes at its own pace: it can neither be paused nor promoted"
        ))
        .ask(Ask::Abort(id.clone()), "takes the traffic back")),
        Work::Verb { ref verb, .. } => Err(Error::usage(format!(
            "rollout {id} is a {verb} by hand: one write, which can neither be paused nor promoted"
        ))
        .ask(Ask::Resume(id.clone()), "goes on with it")
        .ask(Ask::Abort(id.clone()), "takes the traffic back")),
        _ => Ok(()),
    }
}

/// Lets a paused, suspended or crashed rollout go on. `adopt` takes over weights
/// that somebody else set. The answer is the rollout and whether another process
/// drives it; if none does, the caller drives.
pub async fn resume(
    app: &App,
    request: &TargetRequest,
    id: Option<&str>,
    adopt: bool,
) -> Result<(String, bool)> {
    let (header, status) = app.meant(request, id, Purpose::GoOn).await?;
    let id = header.rollout.clone();
    if status.is_over() {
        return Err(over(&header, &status));
    }
    if let Some(Hold::Inconclusive { reason }) = &status.hold {
        return Err(Error::usage(format!(
            "the strategy of rollout {id} has ended without a decision: {reason}"
        ))
        .ask(
            Ask::PromoteFully(id.clone()),
            "gives all traffic to the new version",
        )
        .ask(Ask::Abort(id), "takes it back"));
    }
    if status.hold.is_some() || status.mismatch.is_some() {
        let signal = signal(app, &Command::Resume { adopt });
        app.store.signal(&id, &signal).await?;
    } else if adopt {
        return Err(Error::usage(format!(
            "rollout {id} is not paused, so there is nothing to adopt"
        )));
    }
    if app.living_owner(&header).await?.is_none() {
        return Ok((id, false));
    }
    app.progress(format!("another process drives rollout {id}; following it"));
    wait_until(app, &id, |s| s.hold.is_none() && s.mismatch.is_none()).await?;
    Ok((id, true))
}

/// Pauses a rollout until it is resumed.
pub async fn pause(app: &App, request: &TargetRequest, id: Option<&str>) -> Result<Reached> {
    let (header, status) = app.meant(request, id, Purpose::Standstill).await?;
    let id = &header.rollout;
    if status.is_over() {
        return Err(over(&header, &status));
    }
    refuse_a_change(&header)?;
    if let Some(decision) = &status.decision {
        return Err(Error::usage(format!(
            "rollout {id} is decided ({}), and cannot be paused any more",
            decision.reason
        ))
        .ask(Ask::Abort(id.clone()), "takes the traffic back"));
    }
    if status.hold.is_none() {
        command(app, id, &Command::Pause, |s| s.hold.is_some()).await?;
    }
    app.reached(id).await
}

/// The result of a command that ends a wait.
#[derive(Debug, Clone)]
pub enum WentOn {
    /// It goes on.
    Now(Reached),
    /// The command is in the store, and no process drives the rollout.
    WhenResumed(Reached),
}

/// Sends all traffic to the new version, and skips all that the strategy has left.
pub async fn promote_fully(
    app: &App,
    request: &TargetRequest,
    id: Option<&str>,
) -> Result<Reached> {
    let (header, status) = app.meant(request, id, Purpose::GoOn).await?;
    if status.is_over() {
        return Err(over(&header, &status));
    }
    refuse_a_change(&header)?;
    let id = &header.rollout;
    let promote = Command::PromoteFull {
        reason: String::new(),
    };
    command(app, id, &promote, |s| s.is_over() || s.hold.is_some()).await?;
    app.reached(id).await
}

/// Ends the present wait of a rollout.
pub async fn promote(app: &App, request: &TargetRequest, id: Option<&str>) -> Result<WentOn> {
    let (header, status) = app.meant(request, id, Purpose::GoOn).await?;
    if status.is_over() {
        return Err(over(&header, &status));
    }
    refuse_a_change(&header)?;
    let id = header.rollout.clone();
    if status.hold.is_some() || status.mismatch.is_some() {
        return Err(Error::usage(format!("rollout {id} is paused"))
            .ask(Ask::Resume(id.clone()), "lets it go on")
            .ask(Ask::PromoteFully(id), "finishes it"));
    }
    if let Some(decision) = &status.decision {
        return Err(Error::usage(format!(
            "rollout {id} is decided and {} ({}), so no wait is left to end",
            status.phase, decision.reason
        ))
        .ask(Ask::Watch(id), "shows what happens"));
    }
    let Some(waiting) = &status.waiting else {
        return Err(Error::usage(format!(
            "rollout {id} is {} and does not wait for anything just now; try again",
            status.phase
        )));
    };
    let until = waiting.until;
    let mut signal = signal(app, &Command::Promote);
    signal.until = Some(until);
    app.store.signal(&id, &signal).await?;
    if app.living_owner(&header).await?.is_none() {
        return Ok(WentOn::WhenResumed((header, status)));
    }
    wait_until(app, &id, |s| {
        s.consumed.contains(&signal.id) || s.waiting.as_ref().is_none_or(|w| w.until != until)
    })
    .await?;
    Ok(WentOn::Now(app.reached(&id).await?))
}

/// Approves the step that a rollout waits before.
pub async fn approve(
    app: &App,
    request: &TargetRequest,
    id: Option<&str>,
    comment: &str,
) -> Result<WentOn> {
    let (header, status) = app.meant(request, id, Purpose::GoOn).await?;
    if status.is_over() {
        return Err(over(&header, &status));
    }
    refuse_a_change(&header)?;
    let id = header.rollout.clone();
    for _ in 0..APPROVALS {
        let until = approvable(app, &id).await?;
        let approve = Command::Approve {
            comment: comment.to_owned(),
        };
        let mut signal = signal(app, &approve);
        signal.until = Some(until);
        app.store.signal(&id, &signal).await?;
        if app.living_owner(&header).await?.is_none() {
            return Ok(WentOn::WhenResumed((header, status)));
        }
        wait_until(app, &id, |s| s.consumed.contains(&signal.id)).await?;
        let (.., entries) = app.journal(&id).await?;
        let missed =
            |e: &Entry| matches!(&e.event, Event::Ignored { signal: id, .. } if *id == signal.id);
        // It read the metrics just then, and will ask again.
        if !entries.iter().any(missed) {
            break;
        }
    }
    Ok(WentOn::Now(app.reached(&id).await?))
}

/// End (Unix ms) of the wait for an approval. A strategy that looks at the metrics
/// while it asks does not wait at every instant.
async fn approvable(app: &App, id: &str) -> Result<Millis> {
    let give_up = app.clock.now() + LOOK_MS;
    loop {
        let (_, status, _) = app.journal(id).await?;
        if let Some(waiting) = status
            .waiting
            .as_ref()
            .filter(|w| w.wants(Command::APPROVE))
        {
            return Ok(waiting.until);
        }
        // Between two waits a strategy may be about to ask, for the first time or again.
        let may_ask =
            status.waiting.is_none() && status.hold.is_none() && status.decision.is_none();
        if status.is_over() || !may_ask || app.clock.now() >= give_up {
            return Err(Error::usage(format!(
                "rollout {id} does not wait for an approval; it is {}",
                status.phase
            )));
        }
        app.clock.sleep_until(app.clock.now() + 100).await;
    }
}

/// Sends a command and waits until the driving process, or this one, has obeyed it.
pub(super) async fn command(
    app: &App,
    id: &str,
    command: &Command,
    obeyed: impl Fn(&Status) -> bool,
) -> Result<()> {
    let signal = signal(app, command);
    app.store.signal(id, &signal).await?;
    let reached = |s: &Status| {
        // The status from before the command does not show its effect.
        let heard = s.consumed.contains(&signal.id);
        s.is_over() || heard && (obeyed(s) || *command == Command::Pause)
    };
    let keeper_until = app.clock.now() + KEEPER_HEARS_MS;
    wait_or_drive(app, id, keeper_until, reached).await
}

async fn wait_until(app: &App, id: &str, reached: impl Fn(&Status) -> bool) -> Result<()> {
    wait_or_drive(app, id, Millis::MAX, reached).await
}

/// Waits until the rollout is as it should be, or drives it where nobody does: no
/// living process, or after `keeper_until` (Unix ms) one that parked it and does not
/// wake it.
async fn wait_or_drive(
    app: &App,
    id: &str,
    keeper_until: Millis,
    reached: impl Fn(&Status) -> bool,
) -> Result<()> {
    let give_up = app.clock.now() + u64::try_from(OBEY.as_millis()).unwrap_or(u64::MAX);
    let Some(mut rollout) = Following::begin(app.store.as_ref(), id).await? else {
        app.journal(id).await?;
        return Ok(());
    };
    loop {
        rollout.catch_up(app.store.as_ref()).await?;
        let Following { header, status } = &rollout;
        if reached(status) {
            return Ok(());
        }
        let now = app.clock.now();
        let busy = app.living_owner(header).await?;
        let driven = busy.is_some_and(|busy| busy.owner.is_some() || now < keeper_until);
        if !driven {
            match app.driver(Options::default()).drive(id).await {
                // Another process was faster, and obeys.
                Err(RolloutError::Store(StoreError::Busy(_) | StoreError::Fenced { .. }))
                    if now <= give_up => {}
                driven => return Ok(driven.map(drop)?),
            }
        }
        // Once it is decided, the target determines how long it takes.
        if now > give_up && status.decision.is_none() {
            return Err(Error::busy(format!(
                "the process that drives rollout {id} has not obeyed within {} s; the command stays in its queue",
                OBEY.as_secs()
            ))
            .ask(Ask::Watch(id.to_owned()), "shows what happens"));
        }
        app.clock.sleep_until(now + 100).await;
    }
}

/// The error of a command that comes too late.
pub(super) fn over(header: &Header, status: &Status) -> Error {
    Error::usage(format!(
        "rollout {} has ended: {}",
        status.rollout,
        verdict(header, status)
    ))
}

//! Verbs that speak to a rollout: `resume`, `pause`, `abort`, `promote`,
//! `approve`. A command is a signal in the store; whichever process drives the
//! rollout obeys it. If none does, this one drives.

use std::time::Duration;

use clap::Args;

use super::Global;
use super::exit::Exit;
use super::run::OnInterrupt;
use super::{render, traffic, watch};
use crate::journal::status::Status;
use crate::journal::{Entry, Event, Header};
use crate::model::{Command, Hold, Millis};
use crate::ops::Error;
use crate::ops::app::App;
use crate::rollout::Options;

/// How long a command waits for the driving process to obey.
const OBEY: Duration = Duration::from_secs(30);

/// How long to look for a wait for an approval, ms.
const LOOK_MS: Millis = 5_000;
/// How often to say it again to a strategy that looked away just then.
const APPROVALS: u32 = 3;

/// Go on with a paused, suspended or crashed rollout
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine resume                       the newest unfinished rollout
  engine resume canary-x7k2m9qa
  engine resume canary-x7k2m9qa --adopt     take over weights that somebody else set")]
pub struct ResumeArgs {
    /// The rollout [default: the newest unfinished one]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// Go on from the weights that the target has now, whoever set them
    #[arg(long)]
    adopt: bool,
    /// What the first Ctrl-C (or SIGTERM) does
    #[arg(long, value_enum, default_value_t = OnInterrupt::Suspend)]
    on_interrupt: OnInterrupt,
    /// Drop the rollout from memory at every call
    #[arg(long)]
    chaos_evict: bool,
}

/// Hold a rollout where it is, until `engine resume`
///
/// The process that drives it ends, with exit code 5; `engine resume` drives on.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// The rollout [default: the newest unfinished one]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
}

/// Give up a rollout: all traffic back to the stable arm
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 3 when all traffic is back (this is what was asked for),
4 when it could not be taken back."
)]
pub struct AbortArgs {
    /// The rollout [default: the newest unfinished one]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// Why, for the history
    #[arg(long, default_value = "")]
    reason: String,
}

/// End the present wait of a rollout, or with --full the whole rollout
///
/// The present wait may be a bake or an approval.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine promote               go on to the next step now
  engine promote --full        all traffic to the new version now, past every step")]
pub struct PromoteArgs {
    /// The rollout [default: the newest unfinished one]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// Skip everything that is left
    #[arg(long)]
    full: bool,
}

/// Approve the step that a rollout waits before
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The rollout [default: the newest unfinished one]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// A word for the history
    #[arg(long, default_value = "")]
    comment: String,
}

pub(super) async fn resume(
    app: &App,
    global: &Global,
    args: ResumeArgs,
) -> crate::ops::Result<Exit> {
    let (id, header, status) = find(app, global, args.rollout.as_deref()).await?;
    if status.is_over() {
        return over(&header, &status);
    }
    if let Some(Hold::Inconclusive { reason }) = &status.hold {
        return Err(Error::usage(format!(
            "the strategy of rollout {id} is done and could not tell: {reason}\n\nhint: `engine promote {id} --full` or `engine abort {id}` decides"
        )));
    }
    if status.hold.is_some() || status.mismatch.is_some() {
        let signal = watch::signal(app, &Command::Resume { adopt: args.adopt });
        app.store.signal(&id, &signal).await?;
    } else if args.adopt {
        return Err(Error::usage(format!(
            "rollout {id} is not paused, so there is nothing to adopt"
        )));
    }
    if app.living_owner(&header).await?.is_some() {
        eprintln!("another process drives rollout {id}; following it");
        wait_until(app, &id, |s| s.hold.is_none() && s.mismatch.is_none()).await?;
        match watch::follow(app, global, &id).await? {
            watch::Followed::Left(exit) => return Ok(exit),
            watch::Followed::Abandoned => eprintln!(
                "the process that drove rollout {id} does not answer any more; this one takes over"
            ),
        }
    }
    let options = Options {
        chaos_evict: args.chaos_evict,
        ..Options::default()
    };
    watch::drive(app, global, &id, options, args.on_interrupt).await
}

pub(super) async fn pause(app: &App, global: &Global, args: PauseArgs) -> crate::ops::Result<Exit> {
    let (id, header, status) = find(app, global, args.rollout.as_deref()).await?;
    if status.is_over() {
        return over(&header, &status);
    }
    if let Some(decision) = &status.decision {
        return Err(Error::usage(format!(
            "rollout {id} is decided ({}), and is not paused on the way; `engine abort {id}` takes the traffic back",
            decision.reason
        )));
    }
    if status.hold.is_none() {
        command(app, &id, &Command::Pause, |s| s.hold.is_some()).await?;
    }
    tell(app, global, &id).await?;
    Ok(Exit::Done)
}

pub(super) async fn abort(app: &App, global: &Global, args: AbortArgs) -> crate::ops::Result<Exit> {
    let (id, header, status) = match find(app, global, args.rollout.as_deref()).await {
        Err(error) if knows_nothing(app).await => {
            let named = global.target().named()?.is_some();
            if args.rollout.is_some() || !named {
                return Err(error.context(
                    "no journal can be read that says what to take back; name the load balancer with --listener, --rule, --stack or --local and no rollout",
                ));
            }
            // What the flags or the file name is what is meant.
            let exit = traffic::rollback(app, global, traffic::RollbackArgs::default()).await?;
            return Ok(match exit {
                Exit::Done => Exit::RolledBack,
                exit => exit,
            });
        }
        found => found?,
    };
    if status.is_over() {
        return over(&header, &status);
    }
    abort_rollout(app, global, &id, &args.reason).await
}

/// Whether the store has no journal at all, or none that can be read.
async fn knows_nothing(app: &App) -> bool {
    match app.below() {
        Some(store) => store.list(None, 1).await.map_or(true, |all| all.is_empty()),
        None => true,
    }
}

/// How long the way back tries to reach a process that drives a rollout, ms: longer
/// than that one tries to write.
const REACH_MS: Millis = 45_000;

/// A process that drives the rollout and could not be told of the way back goes on
/// with it, as soon as it can. So it is told, or has lost the rollout, or a person
/// must stop it.
async fn reach_the_driver(app: &App, id: &str, reason: &str) -> crate::ops::Result<()> {
    let (Some(_), Some(store)) = (app.unwritten(), app.below()) else {
        return Ok(());
    };
    let (header, ..) = app.journal(id).await?;
    let give_up = app.clock.now() + REACH_MS;
    let signal = watch::signal(
        app,
        &Command::Abort {
            reason: reason.to_owned(),
        },
    );
    let mut told = false;
    let mut said = false;
    loop {
        let busy = store.occupant(&header.identity).await.unwrap_or_default();
        let Some(busy) = busy.filter(|busy| app.is_driven(&header, busy)) else {
            return Ok(());
        };
        told = told || store.signal(id, &signal).await.is_ok();
        let pid = busy.owner.map_or(0, |owner| owner.pid);
        if app.clock.now() >= give_up {
            return Err(Error::rollback(format!(
                "the traffic was taken back, but process {pid} still drives rollout {id} and may move it again\n\nhint: stop that process (`kill {pid}`), then `engine rollback` once more"
            )));
        }
        if !said {
            eprintln!("process {pid} still drives rollout {id}: waits until it knows");
            said = true;
        }
        app.clock.sleep_until(app.clock.now() + 500).await;
    }
}

/// Aborts a rollout and reports its end.
pub(super) async fn abort_rollout(
    app: &App,
    global: &Global,
    id: &str,
    reason: &str,
) -> crate::ops::Result<Exit> {
    let abort = Command::Abort {
        reason: reason.to_owned(),
    };
    command(app, id, &abort, |s| {
        // A stack goes its own way, also after the traffic was taken back.
        s.is_over() || s.taken_back.is_some()
    })
    .await?;
    say_unwritten(app);
    reach_the_driver(app, id, reason).await?;
    let exit = tell(app, global, id).await?;
    Ok(exit)
}

/// Says what the way back has left out of the journal.
pub(super) fn say_unwritten(app: &App) {
    if let Some(why) = app.unwritten() {
        eprintln!(
            "note: this could not be written down, so `engine history` and `engine status` do not know of it: {why}"
        );
    }
}

pub(super) async fn promote(
    app: &App,
    global: &Global,
    args: PromoteArgs,
) -> crate::ops::Result<Exit> {
    let (id, header, status) = find(app, global, args.rollout.as_deref()).await?;
    if status.is_over() {
        return over(&header, &status);
    }
    if args.full {
        let promote = Command::PromoteFull {
            reason: String::new(),
        };
        command(app, &id, &promote, |s| s.is_over() || s.hold.is_some()).await?;
        return tell(app, global, &id).await;
    }
    if status.hold.is_some() || status.mismatch.is_some() {
        return Err(Error::usage(format!(
            "rollout {id} is paused; `engine resume {id}` goes on, `engine promote {id} --full` finishes it"
        )));
    }
    let Some(waiting) = &status.waiting else {
        return Err(Error::usage(format!(
            "rollout {id} does not wait for anything just now; try again"
        )));
    };
    let until = waiting.until;
    let mut signal = watch::signal(app, &Command::Promote);
    signal.until = Some(until);
    app.store.signal(&id, &signal).await?;
    if app.living_owner(&header).await?.is_none() {
        eprintln!("no process drives rollout {id}; `engine resume {id}` goes on with it");
        return Ok(Exit::Done);
    }
    wait_until(app, &id, |s| {
        s.consumed.contains(&signal.id) || s.waiting.as_ref().is_none_or(|w| w.until != until)
    })
    .await?;
    if global.json {
        tell(app, global, &id).await?;
    } else {
        out!("rollout {id} goes on at once");
    }
    Ok(Exit::Done)
}

pub(super) async fn approve(
    app: &App,
    global: &Global,
    args: ApproveArgs,
) -> crate::ops::Result<Exit> {
    let (id, header, status) = find(app, global, args.rollout.as_deref()).await?;
    if status.is_over() {
        return over(&header, &status);
    }
    for _ in 0..APPROVALS {
        let until = approvable(app, &id).await?;
        let mut signal = watch::signal(
            app,
            &Command::Approve {
                comment: args.comment.clone(),
            },
        );
        signal.until = Some(until);
        app.store.signal(&id, &signal).await?;
        if app.living_owner(&header).await?.is_none() {
            eprintln!(
                "approved; no process drives rollout {id}, so `engine resume {id}` goes on with it"
            );
            return Ok(Exit::Done);
        }
        wait_until(app, &id, |s| s.consumed.contains(&signal.id)).await?;
        let (.., entries) = app.journal(&id).await?;
        let missed =
            |e: &Entry| matches!(&e.event, Event::Ignored { signal: id, .. } if *id == signal.id);
        // It looked at the metrics just then, and asks again.
        if !entries.iter().any(missed) {
            break;
        }
    }
    if global.json {
        tell(app, global, &id).await?;
    } else {
        out!("rollout {id} is approved and goes on");
    }
    Ok(Exit::Done)
}

/// End (Unix ms) of the wait for an approval. A strategy that looks at the metrics
/// while it asks does not wait at every instant.
async fn approvable(app: &App, id: &str) -> crate::ops::Result<Millis> {
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
        // Between two waits a strategy may be about to ask, or about to ask again.
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

/// The rollout that is named, or the one on the target that a flag names, or the
/// one that is under way.
async fn find(
    app: &App,
    global: &Global,
    id: Option<&str>,
) -> crate::ops::Result<(String, Header, Status)> {
    let by_target = match id {
        None => global.target().identity(app).await?,
        Some(_) => None,
    };
    let id = match by_target {
        Some(identity) => app.on_target(&identity).await?,
        None => app.unfinished(id).await?,
    };
    let (header, status, _) = app.journal(&id).await?;
    Ok((id, header, status))
}

/// Sends a command and sees it obeyed, by the driving process or by this one.
async fn command(
    app: &App,
    id: &str,
    command: &Command,
    obeyed: impl Fn(&Status) -> bool,
) -> crate::ops::Result<()> {
    let signal = watch::signal(app, command);
    app.store.signal(id, &signal).await?;
    wait_until(app, id, |s| {
        // How it stood before the command is no answer to it.
        let heard = s.consumed.contains(&signal.id);
        s.is_over() || heard && (obeyed(s) || *command == Command::Pause)
    })
    .await
}

async fn wait_until(
    app: &App,
    id: &str,
    reached: impl Fn(&Status) -> bool,
) -> crate::ops::Result<()> {
    let give_up = app.clock.now() + u64::try_from(OBEY.as_millis()).unwrap_or(u64::MAX);
    loop {
        let (header, status, _) = app.journal(id).await?;
        if reached(&status) {
            return Ok(());
        }
        // Nobody drives it, or not any more: this process does.
        if app.living_owner(&header).await?.is_none() {
            app.driver(Options::default()).drive(id).await?;
            return Ok(());
        }
        let now = app.clock.now();
        // A decision is obeyed; how long the way takes is the target's affair.
        if now > give_up && status.decision.is_none() {
            return Err(Error::busy(format!(
                "the process that drives rollout {id} has not obeyed within {} s; the command stays in its queue\n\nhint: `engine status {id} -w` shows what happens",
                OBEY.as_secs()
            )));
        }
        app.clock.sleep_until(now + 100).await;
    }
}

/// Says how a rollout stands, and returns the code for it.
async fn tell(app: &App, global: &Global, id: &str) -> crate::ops::Result<Exit> {
    let (header, status, _) = app.journal(id).await?;
    if global.json {
        out!("{}", serde_json::to_string(&status)?);
    } else {
        out!("{id} {}", render::verdict(&header, &status));
    }
    Ok(watch::settled(&status).unwrap_or(Exit::Done))
}

fn over<T>(header: &Header, status: &Status) -> crate::ops::Result<T> {
    Err(Error::usage(format!(
        "rollout {} has ended: {}",
        status.rollout,
        render::verdict(header, status)
    )))
}

//! Verbs that command a rollout: `resume`, `pause`, `abort`, `promote`,
//! `approve`.

use clap::Args;

use super::exit::Exit;
use super::traffic::tell;
use super::watch::{self, How, OnInterrupt};
use super::{Global, render, traffic};
use crate::ops::Result;
use crate::ops::app::App;
use crate::ops::command::{self, WentOn};
use crate::ops::way_back;
use crate::rollout::Options;

/// Go on with a paused, suspended or crashed rollout
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine resume                       the only unfinished rollout
  engine resume canary-x7k2m9qa
  engine resume canary-x7k2m9qa --adopt     take over weights that somebody else set")]
pub struct ResumeArgs {
    /// The rollout [default: the only unfinished one on the target]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// Go on from the weights that the target has now, whoever set them
    #[arg(long)]
    adopt: bool,
    /// What the first Ctrl-C (or SIGTERM) does
    #[arg(long, value_enum, default_value_t = OnInterrupt::Suspend)]
    on_interrupt: OnInterrupt,
    /// Drop the rollout from memory at every call and rebuild it from its
    /// journal: slower, and must make no difference
    #[arg(long)]
    chaos_evict: bool,
}

/// Hold a rollout where it is, until `engine resume`
///
/// The process that drives it ends, with exit code 5; `engine resume` drives on. Until then
/// nobody watches: the traffic stays where it is, whatever the metrics say.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// The rollout [default: the only unfinished one on the target]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
}

/// Give up a rollout: all traffic back to the stable arm
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 when all traffic is back, which is what was asked for,
4 when it could not be taken back, 7 when the rollout had been promoted before."
)]
pub struct AbortArgs {
    /// The rollout [default: the only unfinished one on the target]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// The reason, for the history
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
    /// The rollout [default: the only unfinished one on the target]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// Skip every step that is left
    #[arg(long)]
    full: bool,
}

/// Approve the step that a rollout waits before
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The rollout [default: the only unfinished one on the target]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// A comment for the history
    #[arg(long, default_value = "")]
    comment: String,
}

pub(super) async fn resume(app: &App, global: &Global, args: ResumeArgs) -> Result<Exit> {
    let target = global.target();
    let (id, driven) = command::resume(app, &target, args.rollout.as_deref(), args.adopt).await?;
    let options = Options {
        chaos_evict: args.chaos_evict,
        ..Options::default()
    };
    let how = match driven {
        true => How::FollowOrDrive(options, args.on_interrupt),
        false => How::Drive(options, args.on_interrupt),
    };
    // The first entry of its own may take minutes.
    let (_, status) = app.reached(&id).await?;
    eprintln!("{}", render::standing(&status, app.clock.now()));
    watch::watch(app, global, &id, how).await
}

pub(super) async fn pause(app: &App, global: &Global, args: PauseArgs) -> Result<Exit> {
    let reached = command::pause(app, &global.target(), args.rollout.as_deref()).await?;
    tell(global, &reached)?;
    let (_, status) = &reached;
    if status.hold.is_some() {
        eprintln!(
            "nobody watches while it is paused: the traffic stays at {}, whatever the metrics say",
            render::shares(&status.weights)
        );
    }
    Ok(Exit::Done)
}

pub(super) async fn abort(app: &App, global: &Global, args: AbortArgs) -> Result<Exit> {
    let id = args.rollout.as_deref();
    let back = way_back::abort(app, &global.target(), id, &args.reason).await?;
    Ok(traffic::as_asked(
        traffic::taken_back(global, &back)?,
        &back,
    ))
}

pub(super) async fn promote(app: &App, global: &Global, args: PromoteArgs) -> Result<Exit> {
    let (target, id) = (global.target(), args.rollout.as_deref());
    if args.full {
        let reached = command::promote_fully(app, &target, id).await?;
        return tell(global, &reached);
    }
    match command::promote(app, &target, id).await? {
        WentOn::WhenResumed((header, _)) => {
            let id = header.rollout;
            eprintln!(
                "noted; no process drives rollout {id}, so it counts as soon as `engine resume {id}` goes on with it"
            );
        }
        WentOn::Now(reached) if global.json => {
            tell(global, &reached)?;
        }
        WentOn::Now((header, _)) => out!("rollout {} goes on at once", header.rollout),
    }
    Ok(Exit::Done)
}

pub(super) async fn approve(app: &App, global: &Global, args: ApproveArgs) -> Result<Exit> {
    let id = args.rollout.as_deref();
    match command::approve(app, &global.target(), id, &args.comment).await? {
        WentOn::WhenResumed((header, _)) => {
            let id = header.rollout;
            eprintln!(
                "approved; no process drives rollout {id}, so `engine resume {id}` goes on with it"
            );
        }
        WentOn::Now(reached) if global.json => {
            tell(global, &reached)?;
        }
        WentOn::Now((header, _)) => {
            out!("rollout {} is approved and goes on", header.rollout);
        }
    }
    Ok(Exit::Done)
}

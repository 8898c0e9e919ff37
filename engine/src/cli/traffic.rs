//! `set-weights`, `switch` and `rollback`.

use clap::Args;

use super::exit::Exit;
use super::{Global, render};
use crate::journal::verdict::verdict;
use crate::model::{End, OtherRoute, Way};
use crate::ops::Result;
use crate::ops::app::App;
use crate::ops::command::Reached;
use crate::ops::traffic::{self, Moved};
use crate::ops::way_back::{self, TakenBack};
use crate::rollout::Standing;
use crate::view;
use crate::view::traffic::Change;

/// Set the weights of the arms
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine set-weights 75 25                     in the order of `engine status`; the sum is 100
  engine set-weights stable=9 canary=1         by name; any weights from 0 to 999")]
pub struct SetWeightsArgs {
    /// One per arm: percentages in order, or NAME=WEIGHT
    #[arg(required = true, num_args = 2.., value_name = "WEIGHT")]
    weights: Vec<String>,
}

/// Give all traffic to one arm
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine switch green
  engine switch blue           also the quick way back")]
pub struct SwitchArgs {
    /// The arm that gets all traffic
    #[arg(value_name = "ARM")]
    arm: String,
    /// Also to an arm with fewer healthy tasks than the traffic needs
    #[arg(long)]
    accept: bool,
}

/// Take all traffic back to the stable arm; aborts a rollout that is under way
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  engine rollback
  engine rollback --to blue       where neither an arm's name nor the history says which arm is stable

It works without the state folder too, and then says what it could not record.
Exit code: 0 when all traffic is back, 10 when it was there already and nothing has changed,
4 when it could not be taken back.")]
pub struct RollbackArgs {
    /// The arm that shall have all traffic [default: the stable one]
    #[arg(long, value_name = "ARM")]
    to: Option<String>,
}

pub(super) async fn set_weights(app: &App, global: &Global, args: SetWeightsArgs) -> Result<Exit> {
    let moved = traffic::set_weights(app, &global.target(), &args.weights).await?;
    Ok(show(global, &moved))
}

pub(super) async fn switch(app: &App, global: &Global, args: SwitchArgs) -> Result<Exit> {
    let (target, arm) = (global.target(), args.arm.as_str());
    let moved = match args.accept {
        true => traffic::switch(app, &target, arm).await?,
        false => traffic::switch_if_it_carries(app, &target, arm).await?,
    };
    Ok(show(global, &moved))
}

pub(super) async fn rollback(app: &App, global: &Global, args: RollbackArgs) -> Result<Exit> {
    let back = way_back::rollback(app, &global.target(), args.to.as_deref()).await?;
    let unchanged = matches!(&back, TakenBack::Moved(moved) if !moved.changed());
    Ok(match taken_back(global, &back)? {
        Exit::RolledBack if unchanged => Exit::Unchanged,
        exit => as_asked(exit, &back),
    })
}

/// The exit code of a verb that asked for the way back: that of a rollout which was rolled
/// back is for whoever wanted it promoted.
pub(super) fn as_asked(exit: Exit, back: &TakenBack) -> Exit {
    match (exit, back) {
        (Exit::RolledBack, _) => Exit::Done,
        // The rollout was promoted before it heard of this.
        (_, TakenBack::Aborted(reached)) if matches!(reached.1.end, Some((End::Promoted, _))) => {
            Exit::Busy
        }
        (exit, _) => exit,
    }
}

/// Shows how the traffic was taken back; returns the exit code for it.
pub(super) fn taken_back(global: &Global, back: &TakenBack) -> Result<Exit> {
    Ok(match back {
        TakenBack::Moved(moved) => match show(global, moved) {
            Exit::Done => Exit::RolledBack,
            exit => exit,
        },
        TakenBack::Aborted(reached) => tell(global, reached)?,
        TakenBack::Ended(reached) => {
            let (header, status) = &**reached;
            match &status.end {
                Some((_, why)) if !global.json => out!("{} ended: {why}", header.rollout),
                _ => {
                    tell(global, reached)?;
                }
            }
            Exit::Done
        }
        TakenBack::Through { before, now, why } => {
            if global.json {
                json!(Change {
                    why: Some(why.clone()),
                    ..Change::through(before, now)
                });
            } else {
                out!("{} (was {})", now.shares(), before.shares());
            }
            Exit::RolledBack
        }
    })
}

/// Shows where the traffic was moved to; returns the exit code for it.
fn show(global: &Global, moved: &Moved) -> Exit {
    if global.json {
        json!(Change::from(moved));
    } else {
        out!(
            "{} (was {})",
            render::shares(&moved.now),
            render::shares(&moved.before)
        );
        for other in &moved.others {
            // One that sends nobody to an arm has not moved.
            match other.amiss.is_none() || other.weights.0.iter().any(|w| w.weight > 0) {
                true => out!("  {} too (was {})", other.place, was(other)),
                false => eprintln!("note: {other}"),
            }
        }
    }
    if moved.sticky {
        eprintln!("note: clients stick to their arm here, so shares move slower than weights");
    }
    match &moved.elsewhere {
        Some((all, Ok(routes))) => {
            for route in routes
                .iter()
                .filter(|e| e.arm != *all && e.way != Way::Tests)
            {
                eprintln!("note: {route}");
            }
        }
        Some((_, Err(error))) => {
            eprintln!(
                "note: what other listeners and rules send to the arms could not be read: {error}"
            );
        }
        None => {}
    }
    match &moved.standing {
        // All traffic on stable is what was asked for.
        Standing::Over(End::RolledBack, _) => Exit::Done,
        standing => Exit::from(standing),
    }
}

fn was(other: &OtherRoute) -> String {
    match &other.amiss {
        None => other.weights.shares(),
        Some(why) => why.clone(),
    }
}

/// Shows how a rollout stands; returns the exit code for it.
pub(super) fn tell(global: &Global, (header, status): &Reached) -> Result<Exit> {
    if global.json {
        json!(view::rollout::Status::from(status));
    } else {
        out!("{} {}", header.rollout, verdict(header, status));
    }
    Ok(Standing::settled(status).map_or(Exit::Done, |standing| Exit::from(&standing)))
}

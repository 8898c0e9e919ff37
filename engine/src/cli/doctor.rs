//! `engine doctor`: whether this machine and its access to AWS are well.

use clap::Args;

use super::Global;
use super::check::{exit, seen, show};
use super::exit::Exit;
use crate::ops::app::App;
use crate::ops::{Result, doctor};
use crate::view::examined as view;

/// Check this machine: store, rollouts, region, credentials, clock, permissions
///
/// Each line is ok, skipped, or a problem with what to do. Of AWS it only reads: who calls,
/// and with a target there whatever a rollout reads.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine doctor
  engine doctor --stack my-stack --region eu-west-1
  engine doctor --json | jq '.examined[] | select(.state == \"problem\")'

Exit code: 0 if nothing is wrong, 11 if something is.")]
pub struct DoctorArgs {}

pub(super) async fn doctor(app: &App, global: &Global) -> Result<Exit> {
    let examined = Box::pin(doctor::examine(app, &global.target())).await;
    let exit = exit(&examined);
    if global.json {
        json!(view::Doctor {
            examined: examined.iter().map(seen).collect(),
            exit_code: exit as u8,
        });
    } else {
        show(&examined);
    }
    Ok(exit)
}

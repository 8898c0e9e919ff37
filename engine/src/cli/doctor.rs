//! `engine doctor`: whether this machine and its access to AWS are well.

use clap::Args;

use super::Global;
use super::check::{count, exit, seen, show_one};
use super::exit::Exit;
use crate::ops::app::App;
use crate::ops::examined::Look;
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

/// Columns of what a line is about: those of the longest word, because each line is printed
/// before the others are known.
const ABOUT: usize = "credentials".len();

pub(super) async fn doctor(app: &App, global: &Global) -> Result<Exit> {
    let shown = console::Term::stderr();
    let lively = shown.is_term() && !global.json;
    let tell = |look: Look<'_>| match look {
        // The next line takes its place.
        Look::Begins(what) if lively => {
            let _ = shown.clear_line();
            let _ = shown.write_str(&format!("looks at {what} ..."));
        }
        Look::Begins(_) => {}
        Look::Ends(one) => {
            if lively {
                let _ = shown.clear_line();
            }
            if !global.json {
                show_one(one, ABOUT);
            }
        }
    };
    let examined = Box::pin(doctor::examine_aloud(app, &global.target(), &tell)).await;
    let exit = exit(&examined);
    if global.json {
        json!(view::Doctor {
            examined: examined.iter().map(seen).collect(),
            exit_code: exit as u8,
        });
    } else {
        count(&examined);
    }
    Ok(exit)
}

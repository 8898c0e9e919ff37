//! `undo`.

use clap::Args;

use super::Global;
use super::exit::Exit;
use super::watch::{self, How, OnInterrupt};
use crate::ops::Result;
use crate::ops::app::App;
use crate::ops::undo::{self, Undoing};
use crate::rollout::Options;
use crate::view::traffic::Change;

/// Bring back the release that served before a promotion
///
/// The release, which the journal knows, goes into the arm without traffic; once it is
/// healthy it gets all traffic at once. Where the promotion was by copy, it then goes into
/// the stable arm too.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine undo                         the last promotion on the target
  engine undo canary-x7k2m9qa         that one
  engine resume undo-b3n8t2wz         goes on after a crash, like any rollout

Exit code: 0 when the release has all traffic, 10 when it had it already, 3 when it did not become
healthy and the traffic stayed where it was.")]
pub struct UndoArgs {
    /// The rollout whose promotion is undone [default: the last one on the target]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// What the first Ctrl-C (or SIGTERM) does
    #[arg(long, value_enum, default_value_t = OnInterrupt::Suspend)]
    on_interrupt: OnInterrupt,
}

pub(super) async fn undo(app: &App, global: &Global, args: UndoArgs) -> Result<Exit> {
    match undo::undo(app, &global.target(), args.rollout.as_deref()).await? {
        Undoing::Begun(header) => {
            let how = How::Drive(Options::default(), args.on_interrupt);
            watch::watch(app, global, &header.rollout, how).await
        }
        Undoing::Already {
            of,
            arm,
            version,
            weights,
        } => {
            let why = format!("{arm} has all traffic and runs {version}, as before rollout {of}");
            if global.json {
                json!(Change {
                    why: Some(why),
                    ..Change::through(&weights, &weights)
                });
            } else {
                out!("nothing to undo: {why}");
            }
            Ok(Exit::Unchanged)
        }
    }
}

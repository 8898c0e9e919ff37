//! How a rollout ended or stands, in a sentence.

use super::status::Status;
use super::{Header, Work};
use crate::model::{End, Hold, Promotion, Role, Way};

/// What traffic an arm has at the end. It says only what was read.
fn has_all(status: &Status, arm: &str) -> String {
    if let Some(why) = &status.elsewhere_unread {
        return format!(
            "has all requests of the target's route, read back; what other listeners and rules send to the arms could not be read: {why}"
        );
    }
    let others: Vec<String> = status
        .elsewhere
        .iter()
        .filter(|e| e.arm != arm && e.way != Way::Tests)
        .map(ToString::to_string)
        .collect();
    if others.is_empty() {
        return "has all traffic, read back.".to_owned();
    }
    format!(
        "has all requests of the target's route, read back, but not everything: {}.",
        others.join(", ")
    )
}

/// Where the traffic is after a rollout that was promoted or rolled back: only what was
/// read. `None` for every other end, and before the end.
#[must_use]
pub fn traffic(header: &Header, status: &Status) -> Option<String> {
    let old = header.arm(Role::Stable);
    let new = header.arm(Role::Candidate);
    let (end, _) = status.end.as_ref()?;
    match (end, header.promotion) {
        (End::Promoted, Promotion::Copy | Promotion::CopyWhole) => Some(format!(
            "{old} runs {} and {}",
            match header.work {
                Work::Undo { .. } => "the former version",
                _ => "the new version",
            },
            has_all(status, old)
        )),
        (End::Promoted, Promotion::Swap) => Some(format!("{new} {}", has_all(status, new))),
        (End::RolledBack, _) => Some(format!("{old} {}", has_all(status, old))),
        (End::RollbackFailed | End::Done | End::Refused, _) => None,
    }
}

/// The end of a rollout for somebody who was told its reason just now. `None` for ends of
/// which there is more to say.
#[must_use]
pub fn in_short(header: &Header, status: &Status) -> Option<String> {
    let (end, _) = status.end.as_ref()?;
    traffic(header, status).map(|traffic| format!("{end}: {traffic}"))
}

/// The end of a rollout, or why it is paused, and what a person can do.
#[must_use]
pub fn verdict(header: &Header, status: &Status) -> String {
    match &status.end {
        Some((End::RollbackFailed, reason)) => {
            format!("ROLLBACK FAILED: {reason}. Look at the traffic yourself, now.")
        }
        Some((end, reason)) => match traffic(header, status) {
            Some(traffic) => format!("{end}: {reason}. {traffic}"),
            None => format!("{end}: {reason}"),
        },
        None => match (&status.hold, &status.mismatch) {
            (Some(hold), _) => {
                let id = &status.rollout;
                let adopt = match hold {
                    Hold::ForeignChange { .. } => " --adopt",
                    _ => "",
                };
                let resume = match hold {
                    Hold::Inconclusive { .. } => String::new(),
                    _ => format!("`engine resume {id}{adopt}` goes on, "),
                };
                format!(
                    "paused: {hold}. This rollout last set {}.\n{resume}`engine promote {id} --full` finishes it, `engine abort {id}` takes it back.",
                    status.weights.shares()
                )
            }
            (None, Some(mismatch)) => format!("diverged: {mismatch}"),
            (None, None) => format!("under way: {}", status.note),
        },
    }
}

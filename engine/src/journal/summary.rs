//! Summary: one row of the list of rollouts.
//!
//! The row is written with each entry, so that a list, a history or a schedule is
//! answered from rows and no journal is loaded for it. A row can be made again from
//! its journal at any time, and the journal counts where they differ.

use super::Header;
use super::status::Status;
use crate::journal::Work;
use crate::model::{End, Millis, Phase};

/// What a list says about one rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The rollout's id.
    pub rollout: String,
    /// Identity of its target.
    pub target: String,
    /// The strategy's name, or the verb of a person.
    pub title: String,
    /// SHA-256 of the plugin that it runs, in hex; `None` if it does not run a strategy.
    pub plugin: Option<String>,
    /// When it began (Unix ms).
    pub created: Millis,
    /// When its last entry was made (Unix ms).
    pub updated: Millis,
    /// Number of entries that this row is made of.
    pub entries: u32,
    /// Its phase.
    pub phase: Phase,
    /// Why it ended or is paused; else where it stands, in the strategy's words.
    pub note: String,
    /// How it ended; `None` while it has not.
    pub end: Option<End>,
}

impl Summary {
    /// The row for a rollout that stands like this.
    #[must_use]
    pub fn of(header: &Header, status: &Status) -> Self {
        let note = match (&status.end, &status.hold) {
            (Some((_, reason)), _) => reason.clone(),
            (None, Some(hold)) => hold.to_string(),
            (None, None) => status.note.clone(),
        };
        Self {
            rollout: header.rollout.clone(),
            target: header.identity.clone(),
            title: header.title().to_owned(),
            plugin: match &header.work {
                Work::Strategy(pin) => Some(pin.sha256.clone()),
                _ => None,
            },
            created: header.created,
            updated: status.updated,
            entries: status.entries,
            phase: status.phase,
            note,
            end: status.end.as_ref().map(|(end, _)| *end),
        }
    }

    /// The row of a journal, from its first entry on; `None` if it does not begin with a
    /// header.
    #[must_use]
    pub fn of_journal(entries: &[super::Entry]) -> Option<Self> {
        Some(Self::of(super::header(entries)?, &Status::of(entries)?))
    }
}

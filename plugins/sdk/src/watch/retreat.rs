//! Takes the share back at an alarm, and gives it again once a sample says otherwise.
//!
//! So much fails at once that it would decide if one sample could. Nobody need be hurt while
//! the next sample is awaited: the candidate keeps no traffic if a sample of the time before
//! is still on its way, and a handful of requests if none is. Either it says the same, and
//! the version goes back, or the share is what it was.

use analysis::{Decision, Seen};

use super::{Looked, Watch, percent};
use crate::{Error, Rollout};

/// Requests per sample that are enough to see whether much fails.
const FEW: f64 = 10.0;
/// The smallest share of the candidate, 0-1, for them.
const SHARE_MIN: f64 = 0.002;
/// The part of a sample's length after which the newest one that was seen has a successor.
const ON_ITS_WAY: f64 = 0.99;
/// Looks without a sample after which no successor is awaited any more.
const SILENT: u32 = 2;

/// Where the share goes back to, and where it is meanwhile (0-1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Retreat {
    from: f64,
    to: f64,
}

impl Watch {
    /// Whether the share was taken back until a sample decides.
    #[must_use]
    pub fn has_retreated(&self) -> bool {
        self.retreat.is_some()
    }

    /// Follows a look: takes the share back at an alarm, and gives it again after one that
    /// is none.
    pub(super) fn give_way(&mut self, rollout: &mut Rollout, looked: &Looked) -> Result<(), Error> {
        let Some((_, share, _)) = self.shares.last().copied() else {
            return Ok(());
        };
        let alarm = looked.decision == Some(Decision::Retreat);
        match self.retreat {
            None if alarm => {
                let coming = rollout.now() - self.frontier >= self.source.period * ON_ITS_WAY;
                let to = if coming { 0.0 } else { self.few(share) };
                // A share of few requests is as small as it need be.
                if to < share {
                    self.retreat = Some(Retreat { from: share, to });
                    self.move_to(rollout, to)?;
                }
            }
            Some(Retreat { from, .. }) if looked.decision.is_some() && !alarm => {
                self.move_to(rollout, from)?;
                self.retreat = None;
            }
            Some(Retreat { from, to }) if to <= 0.0 && (alarm || self.silent >= SILENT) => {
                let to = self.few(from);
                self.retreat = Some(Retreat { from, to });
                self.move_to(rollout, to)?;
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    /// The share of a handful of requests per sample.
    fn few(&self, share: f64) -> f64 {
        let requests = match self.taken.last_key_value() {
            Some((_, (interval, _))) => match interval.seen.first() {
                Some(Seen::Counts { candidate, stable }) => candidate.of + stable.of,
                _ => 0.0,
            },
            None => 0.0,
        };
        (FEW / requests.max(1.0)).max(SHARE_MIN).min(share)
    }

    fn move_to(&mut self, rollout: &mut Rollout, share: f64) -> Result<(), Error> {
        let title = format!("{}: {}", self.title(), self.retreating());
        rollout.reach_fraction(share, &title, self.percent())?;
        let now = rollout.now();
        self.shares.push((now, share, self.gate.position().0));
        Ok(())
    }

    /// What it does meanwhile, in words.
    pub(super) fn retreating(&self) -> String {
        self.retreat.map_or_else(String::new, |r| {
            format!(
                "retreats from {} to {} until the next sample decides",
                percent(r.from),
                percent(r.to)
            )
        })
    }
}

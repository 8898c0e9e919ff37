//! The claim rule: which rollout gets a target. Pure; each store applies it
//! within the transaction that writes the lease.

use super::{Busy, Claim};

/// What a store knows when somebody claims a target.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Who occupies the target; `None` if nobody does or that rollout has ended.
    pub occupant: Option<Busy>,
    /// Whether the occupant's journal has an entry.
    pub began: bool,
    /// Epoch of the last entry of the rollout that claims.
    pub last_epoch: Option<u32>,
}

/// The epoch under which the claim is granted.
///
/// # Errors
/// Another rollout occupies the target, or another living process drives this one.
pub fn decide(claim: &Claim<'_>, known: Known) -> Result<u32, Box<Busy>> {
    let mut epoch = 1;
    if let Some(busy) = known.occupant {
        // Parked, paused, expired, or its owner is known to be dead.
        let gone = busy.owner.is_none()
            || busy.expires <= claim.now
            || claim.dead_epoch == Some(busy.epoch);
        let free = gone || busy.owner.as_ref() == Some(claim.owner);
        // A process that died before its first entry leaves nothing to resume.
        let abandoned = gone && !known.began;
        if busy.rollout != claim.rollout && !abandoned || !free {
            return Err(Box::new(busy));
        }
        epoch = busy.epoch + 1;
    }
    // Epochs of one rollout never repeat, also after its lease was dropped.
    Ok(epoch.max(known.last_epoch.map_or(0, |e| e + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Owner;

    fn owner(pid: u32) -> Owner {
        Owner {
            host: "here".to_owned(),
            pid,
            started: "now".to_owned(),
        }
    }

    /// Rollout `a` has the target, in epoch 4, until 100.
    fn occupied(by: Option<u32>, began: bool) -> Known {
        Known {
            occupant: Some(Busy {
                rollout: "a".to_owned(),
                epoch: 4,
                owner: by.map(owner),
                keeper: None,
                due: None,
                expires: 100,
            }),
            began,
            last_epoch: None,
        }
    }

    fn ask(
        rollout: &str,
        pid: u32,
        now: u64,
        dead_epoch: Option<u32>,
        known: Known,
    ) -> Option<u32> {
        let claim = Claim {
            target: "t",
            also: &[],
            rollout,
            owner: &owner(pid),
            now,
            ttl_ms: 10,
            dead_epoch,
        };
        decide(&claim, known).ok()
    }

    #[test]
    fn a_free_target_goes_to_who_asks() {
        assert_eq!(ask("a", 1, 0, None, Known::default()), Some(1));
        let again = Known {
            last_epoch: Some(7),
            ..Known::default()
        };
        assert_eq!(ask("a", 1, 0, None, again), Some(8));
    }

    #[test]
    fn a_living_owner_keeps_everybody_else_out() {
        assert_eq!(ask("a", 2, 99, None, occupied(Some(1), true)), None);
        assert_eq!(ask("b", 1, 99, None, occupied(Some(1), true)), None);
        // The same process may claim again, which ends its earlier lease.
        assert_eq!(ask("a", 1, 99, None, occupied(Some(1), true)), Some(5));
    }

    #[test]
    fn a_rollout_without_an_owner_goes_to_any_process_and_no_other_rollout_does() {
        for (by, now, dead) in [(None, 0, None), (Some(1), 100, None), (Some(1), 0, Some(4))] {
            assert_eq!(ask("a", 2, now, dead, occupied(by, true)), Some(5));
            assert_eq!(ask("b", 2, now, dead, occupied(by, true)), None);
        }
        // The epoch has changed since the caller read it: another process took over.
        assert_eq!(ask("a", 2, 0, Some(3), occupied(Some(1), true)), None);
    }

    #[test]
    fn what_never_began_and_has_no_owner_any_more_is_abandoned() {
        assert_eq!(ask("b", 2, 99, None, occupied(Some(1), false)), None);
        assert_eq!(ask("b", 2, 100, None, occupied(Some(1), false)), Some(5));
        assert_eq!(ask("b", 2, 0, Some(4), occupied(Some(1), false)), Some(5));
    }
}

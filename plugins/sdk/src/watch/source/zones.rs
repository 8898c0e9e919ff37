//! What both arms saw zone by zone, where a target has zones. A zone that fails for both arms
//! must not count against the one that has more of its tasks there.

use std::collections::BTreeMap;

use analysis::{Counts, Seen, percent};

use super::{Arms, Source, key};
use crate::{HostError, MetricsQuery, Rollout};

/// Reads of zones that fail in a row until the arms are compared without them.
const TRIES: u32 = 3;
/// Newest samples that tell which zone is bad for both arms.
const NEWEST: usize = 10;

/// The samples of each zone, by start (Unix ms).
pub(crate) type ByZone = BTreeMap<u64, BTreeMap<String, Arms>>;

/// Whether a target splits its samples by zone. Zones cost as much to read as the whole, each
/// of them, so nobody asks before something looks worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zones {
    /// It was not asked yet.
    Unasked,
    /// It does, and every read asks for them; that failed so many times in a row.
    Read(u32),
    /// It does not.
    None,
}

impl Source {
    /// The samples from `since` (Unix ms) on by zone, from a target that was not asked for
    /// them yet; they are part of every read from then on. `None` if it was asked before, or
    /// has no zones.
    pub(crate) fn find_zones(&mut self, rollout: &mut Rollout, since: f64) -> Option<ByZone> {
        if self.zones != Zones::Unasked {
            return None;
        }
        // What cannot be read now may be later.
        let zones = self.read_zones(rollout, since).ok()?;
        self.zones = match zones.values().any(|arms| arms.len() > 1) {
            true => Zones::Read(0),
            false => Zones::None,
        };
        (self.zones == Zones::Read(0)).then_some(zones)
    }

    /// The same for every read; nothing unless zones were found. Samples that come without
    /// them are waited for a few times, and are compared as a whole then.
    pub(super) fn zones_since(
        &mut self,
        rollout: &mut Rollout,
        since: f64,
    ) -> Result<ByZone, HostError> {
        let Zones::Read(failed) = self.zones else {
            return Ok(ByZone::new());
        };
        match self.read_zones(rollout, since) {
            Err(error) if failed + 1 < TRIES => {
                self.zones = Zones::Read(failed + 1);
                Err(error)
            }
            Err(_) => Ok(ByZone::new()),
            Ok(zones) => {
                self.zones = Zones::Read(0);
                Ok(zones)
            }
        }
    }

    fn read_zones(&self, rollout: &mut Rollout, since: f64) -> Result<ByZone, HostError> {
        let query = MetricsQuery {
            since,
            over_ms: self.over_ms(),
            by_zone: true,
        };
        let mut zones = ByZone::new();
        for sample in rollout.query_samples(&query)? {
            if let Some(arm) = self.arm_of(&sample, since)
                && let Some(zone) = sample.zone.clone()
            {
                let of_zones = zones.entry(key(sample.start)).or_default();
                of_zones.entry(zone).or_default()[arm] = Some(sample);
            }
        }
        Ok(zones)
    }

    /// What the streams of every target have seen in each zone in the interval that began at
    /// `start` (Unix ms).
    pub(crate) fn seen_by_zone(&self, start: u64, zones: &ByZone) -> Vec<Vec<Seen>> {
        let of_zones = zones.get(&start).into_iter().flat_map(BTreeMap::values);
        of_zones.map(|arms| self.built_in(arms)).collect()
    }

    /// The zone in which most of stable's requests fail lately, in words.
    pub(crate) fn worst_zone(&self, zones: &ByZone) -> Option<String> {
        let mut sums: BTreeMap<&str, [Counts; 2]> = BTreeMap::new();
        for of_zones in zones.values().rev().take(NEWEST) {
            for (zone, arms) in of_zones {
                let sum = sums.entry(zone).or_default();
                for (sum, sample) in sum.iter_mut().zip(arms) {
                    if let Some(sample) = sample {
                        let errors = f64::from(sample.errors);
                        *sum = sum.and(Counts::new(errors, f64::from(sample.requests)));
                    }
                }
            }
        }
        let rate = |counts: Counts| counts.bad / counts.of.max(1.0);
        let worst = sums
            .into_iter()
            .max_by(|(_, a), (_, b)| rate(a[0]).total_cmp(&rate(b[0])))?;
        let (zone, [stable, candidate]) = worst;
        let [stable, candidate] = [stable, candidate].map(|arm| percent(rate(arm)));
        Some(format!(
            "in {zone} {stable} of the requests of {} fail, and {candidate} of {}",
            self.names[0], self.names[1]
        ))
    }
}

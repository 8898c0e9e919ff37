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
        // What cannot be read now, or is not there yet, may be later.
        let (zones, others) = self.read_zones(rollout, since).ok()?;
        let splits = zones.values().any(|arms| arms.len() > 1);
        match (splits, others) {
            (true, _) => self.zones = Zones::Read(0),
            (false, true) => self.zones = Zones::None,
            (false, false) => {}
        }
        splits.then_some(zones)
    }

    /// The same for every read, if zones were found; and whether they are late: they could
    /// not be read now, and are worth a few more tries.
    pub(super) fn zones_since(&mut self, rollout: &mut Rollout, since: f64) -> (ByZone, bool) {
        let Zones::Read(failed) = self.zones else {
            return (ByZone::new(), false);
        };
        let read = self.read_zones(rollout, since);
        let failed = match read {
            Ok(_) => 0,
            Err(_) => (failed + 1).min(TRIES),
        };
        self.zones = Zones::Read(failed);
        (
            read.map_or_else(|_| ByZone::new(), |(zones, _)| zones),
            failed > 0 && failed < TRIES,
        )
    }

    /// The samples that name a zone, and whether there were others.
    fn read_zones(&self, rollout: &mut Rollout, since: f64) -> Result<(ByZone, bool), HostError> {
        let query = MetricsQuery {
            since,
            over_ms: self.over_ms(),
            by_zone: true,
        };
        let (mut zones, mut others) = (ByZone::new(), false);
        for sample in rollout.query_samples(&query)? {
            match (self.arm_of(&sample, since), sample.zone.clone()) {
                (Some(arm), Some(zone)) => {
                    let of_zones = zones.entry(key(sample.start)).or_default();
                    of_zones.entry(zone).or_default()[arm] = Some(sample);
                }
                (Some(_), None) => others = true,
                (None, _) => {}
            }
        }
        Ok((zones, others))
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

//! How little traffic is enough to see that a version is broken.

/// Requests per interval that a probe gives the candidate.
const PROBE_REQUESTS: f64 = 25.0;
/// The smallest share of a probe, 0-1.
const PROBE_SHARE_MIN: f64 = 0.002;
/// A probe of more than this part of the first step saves too little.
const PROBE_PART_MAX: f64 = 0.6;

/// The share (0-1) at which to begin: about 25 requests per interval, at least
/// 0.2 % of the traffic. `None` if that is hardly less than the first step, or if
/// the traffic is not known.
///
/// A version that fails half of its requests costs a dozen of them this way,
/// whatever the traffic.
#[must_use]
pub fn probe_share(requests_per_interval: f64, first_step: f64) -> Option<f64> {
    if requests_per_interval <= 0.0 || !requests_per_interval.is_finite() {
        return None;
    }
    let share = (PROBE_REQUESTS / requests_per_interval).max(PROBE_SHARE_MIN);
    (share < PROBE_PART_MAX * first_step).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::probe_share;

    #[test]
    fn probes_shrink_with_traffic_and_vanish_without() {
        assert_eq!(probe_share(30_000.0, 0.05), Some(0.002));
        let medium = probe_share(1_200.0, 0.05).expect("a probe");
        assert!((medium - 25.0 / 1_200.0).abs() < 1e-12);
        assert_eq!(probe_share(60.0, 0.05), None);
        assert_eq!(probe_share(0.0, 0.05), None);
        assert_eq!(probe_share(f64::NAN, 0.05), None);
    }
}

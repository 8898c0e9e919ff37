//! The gate: what the candidate did to its users, and whether that is too bad.
//! It knows no host, so a test needs none. Change it as you like.

use rollout_sdk::Sample;

/// The candidate's requests so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// All of them.
    pub requests: u64,
    /// Those that failed or were slow.
    pub bad: u64,
}

impl Seen {
    /// Adds up the samples of one arm.
    pub fn of(samples: &[Sample], arm: &str) -> Self {
        let own = samples.iter().filter(|s| s.arm == arm);
        own.fold(Self::default(), |seen, sample| {
            let slow = sample.over.first().copied().unwrap_or(0);
            // A request may be both slow and an error; it is bad only once.
            let bad = u64::from(sample.errors) + u64::from(slow);
            Self {
                requests: seen.requests + u64::from(sample.requests),
                bad: seen.bad + bad.min(u64::from(sample.requests)),
            }
        })
    }

    /// Whether more than `permille` of 1,000 requests were bad.
    pub fn too_bad(self, permille: u32) -> bool {
        self.bad * 1_000 > self.requests * u64::from(permille)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rollout_sdk::testing::sample;

    fn seen(requests: f64, errors: f64, over: &[u32]) -> Seen {
        let mut one = sample("canary", 0.0, requests, errors, 30.0);
        one.over = over.to_vec();
        Seen::of(&[one, sample("stable", 0.0, 900.0, 900.0, 30.0)], "canary")
    }

    #[test]
    fn errors_and_slow_requests_are_bad() {
        let expected = |requests, bad| Seen { requests, bad };
        assert_eq!(seen(100.0, 2.0, &[3]), expected(100, 5));
        assert_eq!(seen(100.0, 60.0, &[70]), expected(100, 100));
        assert_eq!(seen(100.0, 2.0, &[]), expected(100, 2));
        assert_eq!(Seen::of(&[], "canary"), expected(0, 0));
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        assert!(!seen(100.0, 2.0, &[]).too_bad(20));
        assert!(seen(100.0, 3.0, &[]).too_bad(20));
        assert!(!Seen::default().too_bad(0));
    }
}

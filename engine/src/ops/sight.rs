//! Which faults a rollout on AWS would show with the traffic that there is: what its strategy
//! says of a copy of the target before its first step. `plan` and `check` show it. A rollout
//! needs none of it, so nothing fails for it.

use std::collections::BTreeSet;

use crate::journal::Header;
use crate::model::{HostError, Latency, MetricsQuery, Millis, Role, Sample, percent};
use crate::simulate::rehearsal::{Candidate, Users};
use crate::target::Target;

/// How far back the real traffic is read, ms.
pub const TRAFFIC_MS: Millis = 15 * 60_000;

/// What can be said of a rollout with the present traffic.
#[derive(Debug, Clone)]
pub struct Sight {
    /// The traffic.
    pub users: Users,
    /// What the strategy says of it before its first step, or why nobody knows.
    pub said: Result<Vec<String>, String>,
}

impl Sight {
    /// Lets the strategy look at a copy of the target with its traffic.
    pub async fn of(candidate: &Candidate) -> Self {
        Self {
            users: candidate.users,
            said: Box::pin(candidate.said()).await.map_err(|e| e.to_string()),
        }
    }

    /// The traffic in words: `10.0 requests a second of which 0.1 % fail`.
    #[must_use]
    pub fn traffic(&self) -> String {
        let rate = percent(100.0 * self.users.error_rate);
        format!(
            "{:.1} requests a second of which {rate} % fail",
            self.users.rps
        )
    }
}

/// The present traffic, on which the size of a probe and what would show depend; none if
/// nobody came. `late`: after how long metrics can be read, ms.
///
/// # Errors
/// The metrics cannot be read.
pub async fn users(
    target: &dyn Target,
    header: &Header,
    now: Millis,
    late: Millis,
) -> Result<Option<Users>, HostError> {
    let query = MetricsQuery {
        since: now.saturating_sub(TRAFFIC_MS),
        ..MetricsQuery::default()
    };
    let samples = target.samples(&query).await?;
    let stable = header.arm(Role::Stable);
    let period = Millis::from(target.sample_period_ms());
    Ok(mean(
        &samples,
        stable,
        (query.since, now.saturating_sub(late)),
        period,
    ))
}

/// The mean of these samples over the whole of that time, because an interval without a
/// request has no sample.
fn mean(
    samples: &[Sample],
    stable: &str,
    (from, to): (Millis, Millis),
    period: Millis,
) -> Option<Users> {
    let period = period.max(1);
    let intervals = (to / period).saturating_sub(from.div_ceil(period));
    // A source may know more than it says that it does.
    let starts: BTreeSet<Millis> = samples.iter().map(|s| s.start).collect();
    let intervals = intervals.max(u64::try_from(starts.len()).unwrap_or(0));
    #[expect(
        clippy::cast_precision_loss,
        reason = "minutes of a quarter of an hour"
    )]
    let seconds = (intervals * period) as f64 / 1_000.0;
    let requests: f64 = samples.iter().map(|s| f64::from(s.requests)).sum();
    let rps = requests / seconds;
    let served = || samples.iter().filter(|sample| sample.arm == stable);
    let (errors, of) = served().fold((0.0, 0.0), |(errors, of), sample| {
        (
            errors + f64::from(sample.errors),
            of + f64::from(sample.requests),
        )
    });
    (rps.is_finite() && rps > 0.0).then(|| Users {
        rps,
        error_rate: if of > 0.0 { errors / of } else { 0.0 },
        latency: latency(served()),
    })
}

/// The usual latency: the mean of each number over the requests.
fn latency<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<Latency> {
    let known = samples.filter_map(|s| Some((s.latency?, f64::from(s.requests))));
    let known: Vec<(Latency, f64)> = known.filter(|(_, requests)| *requests > 0.0).collect();
    let all: f64 = known.iter().map(|(_, requests)| requests).sum();
    let usual = |of: fn(&Latency) -> f64| {
        let sum: f64 = known.iter().map(|(l, requests)| of(l) * requests).sum();
        sum / all
    };
    (all > 0.0).then(|| Latency {
        mean: usual(|l| l.mean),
        p50: usual(|l| l.p50),
        p90: usual(|l| l.p90),
        p95: usual(|l| l.p95),
        p99: usual(|l| l.p99),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(arm: &str, minute: Millis, requests: u32, errors: u32) -> Sample {
        let p = 10.0 * f64::from(requests);
        Sample {
            arm: arm.to_owned(),
            start: minute * 60_000,
            period_ms: 60_000,
            requests,
            errors,
            latency: Some(Latency {
                mean: p,
                p50: p,
                p90: p,
                p95: p,
                p99: p,
            }),
            zone: None,
            client_errors: 0,
            over: vec![],
            whole: None,
            cpu: None,
            memory: None,
            healthy: None,
        }
    }

    #[test]
    fn a_minute_without_a_request_counts_too() {
        // Sixty requests in one of twelve minutes, the first of which is not whole.
        let asked = (1_000, 13 * 60_000 + 59_000);
        let users = mean(&[sample("blue", 5, 60, 3)], "blue", asked, 60_000).expect("some");
        assert!((users.rps - 60.0 / (12.0 * 60.0)).abs() < 1e-9, "{users:?}");
        assert!((users.error_rate - 0.05).abs() < 1e-9);
        assert_eq!(mean(&[], "blue", asked, 60_000), None);
        // Errors and latency are those of stable alone.
        let both = [sample("blue", 5, 30, 0), sample("green", 5, 30, 30)];
        let users = mean(&both, "blue", asked, 60_000).expect("some");
        assert!((users.rps - 60.0 / (12.0 * 60.0)).abs() < 1e-9, "{users:?}");
        assert!(users.error_rate.abs() < 1e-9);
        assert!((users.latency.expect("known").p99 - 300.0).abs() < 1e-9);
        // Where nothing can have been read yet, what came anyway counts.
        let soon = mean(&[sample("blue", 5, 60, 0)], "blue", (0, 0), 60_000);
        assert!((soon.expect("some").rps - 1.0).abs() < 1e-9);
    }
}

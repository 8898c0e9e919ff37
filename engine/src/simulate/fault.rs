//! Faults around a rollout, besides the candidate's: `aws-throttled@5m+3m`.

use std::fmt;
use std::str::FromStr;

use crate::model::Millis;
use crate::model::limits::DURATION_MAX;

/// One fault, at a time after the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutsideFault {
    /// Its kind.
    pub kind: Kind,
    /// When it begins, ms after the start.
    pub at: Millis,
    /// How long it lasts, ms; 0 for a fault of one moment.
    pub duration: Millis,
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No sample arrives until it is over; then all do.
    MetricsLate,
    /// Samples of this time never arrive.
    MetricsMissing,
    /// Samples first have half of their requests, and are complete three intervals
    /// later.
    MetricsRevised,
    /// Every call is throttled.
    AwsThrottled,
    /// The candidate has no healthy task.
    TasksDie,
    /// Another writer gives both arms half of the traffic.
    ForeignWriter,
    /// The process of the engine dies, and another one goes on from its journal.
    EngineKilled,
}

/// Names, and whether the fault lasts.
const KINDS: [(&str, Kind, bool); 7] = [
    ("metrics-late", Kind::MetricsLate, true),
    ("metrics-missing", Kind::MetricsMissing, true),
    ("metrics-revised", Kind::MetricsRevised, true),
    ("aws-throttled", Kind::AwsThrottled, true),
    ("tasks-die", Kind::TasksDie, true),
    ("foreign-writer", Kind::ForeignWriter, false),
    ("engine-killed", Kind::EngineKilled, false),
];

impl OutsideFault {
    /// Whether the fault is of that kind and under way at that time after the start.
    #[must_use]
    pub fn covers(&self, kind: Kind, at: Millis) -> bool {
        self.kind == kind && (self.at..self.at + self.duration).contains(&at)
    }
}

impl fmt::Display for OutsideFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = KINDS.iter().find(|(_, kind, _)| *kind == self.kind);
        let name = named.map_or("", |(name, ..)| name);
        write!(f, "{name}@{}ms", self.at)?;
        if self.duration > 0 {
            write!(f, "+{}ms", self.duration)?;
        }
        Ok(())
    }
}

impl FromStr for OutsideFault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = KINDS.iter().map(|(name, ..)| *name).collect();
        let usage = || {
            format!(
                "{text:?} is not a fault; write KIND@START, with +DURATION where it lasts, such as aws-throttled@5m+3m or engine-killed@12m; kinds are {}",
                names.join(", ")
            )
        };
        let (name, times) = text.split_once('@').ok_or_else(usage)?;
        let (_, kind, lasts) = KINDS
            .iter()
            .find(|(known, ..)| *known == name)
            .ok_or_else(usage)?;
        let millis = |text: &str| {
            let time = humantime::parse_duration(text).map_err(|e| format!("{}: {e}", usage()))?;
            let ms = u64::try_from(time.as_millis()).ok();
            ms.filter(|ms| *ms <= DURATION_MAX).ok_or_else(usage)
        };
        let (at, duration) = match times.split_once('+') {
            Some((at, duration)) if *lasts => match (millis(at)?, millis(duration)?) {
                (_, 0) => return Err(format!("{text:?} has a duration of 0")),
                times => times,
            },
            None if !*lasts => (millis(times)?, 0),
            Some(_) => return Err(format!("{name} has no duration: write {name}@5m")),
            None => return Err(format!("{name} needs a duration: write {name}@5m+3m")),
        };
        Ok(Self {
            kind: *kind,
            at,
            duration,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_written() {
        let fault: OutsideFault = "aws-throttled@5m+90s".parse().expect("a fault");
        assert_eq!(fault.to_string(), "aws-throttled@300000ms+90000ms");
        assert!(fault.covers(Kind::AwsThrottled, 300_000));
        assert!(!fault.covers(Kind::AwsThrottled, 390_000));
        assert_eq!(fault.to_string().parse(), Ok(fault));
        let killed: OutsideFault = "engine-killed@12m".parse().expect("a fault");
        assert_eq!((killed.at, killed.duration), (720_000, 0));
    }

    #[test]
    fn mistakes_are_explained() {
        for (text, says) in [
            ("rain@5m", "kinds are metrics-late"),
            ("aws-throttled@5m", "needs a duration"),
            ("engine-killed@5m+1m", "has no duration"),
            ("engine-killed", "KIND@START"),
            ("engine-killed@soon", "engine-killed@12m"),
            ("engine-killed@5124095576029h", "KIND@START"),
            ("metrics-late@1m+5124095576029h", "KIND@START"),
            ("metrics-late@101years+1m", "KIND@START"),
        ] {
            let error = text.parse::<OutsideFault>().expect_err(text);
            assert!(error.contains(says), "{error}");
        }
    }
}

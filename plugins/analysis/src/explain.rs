//! Findings in words, for people on call.

use std::fmt::Write as _;

use crate::Counts;
use crate::config::Config;
use crate::evidence::{Finding, StreamFinding};
use crate::gate::Decision;
use crate::pace::Pace;

/// The odds as `240:1`, or `1:8` if they favour the candidate.
#[must_use]
pub fn odds(log_evidence: f64) -> String {
    let e = log_evidence.clamp(-30.0, 30.0).exp();
    match e {
        e if e >= 1e6 => "over 1,000,000:1".to_owned(),
        e if e >= 10.0 => format!("{}:1", count(e)),
        e if e >= 0.995 => format!("{}:1", format!("{e:.1}").trim_end_matches(".0")),
        e if e > 0.001 => format!("1:{}", count(1.0 / e)),
        _ => "1:1,000 or less".to_owned(),
    }
}

/// Evidence from which on it is some sign, if a small one.
const LITTLE: f64 = 1.05;

/// How suspicious the candidate is, from 0 to 100, at which it goes back: the evidence in
/// percent of its limit, both as natural logarithms.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 99; the cast saturates"
)]
pub fn suspicion(log_evidence: f64, log_limit: f64) -> u32 {
    match log_evidence >= log_limit {
        true => 100,
        false => ((log_evidence - log_limit).exp() * 100.0).round().min(99.0) as u32,
    }
}

/// What is known of the candidate, and how far it is from being taken back:
/// `no sign that it is worse (suspicion 1 of 100)`.
///
/// `log_evidence` and `log_limit` are natural logarithms; `suspicious` is whether no step is
/// taken because of the evidence.
#[must_use]
pub fn certainty(log_evidence: f64, log_limit: f64, suspicious: bool) -> String {
    let suspicion = suspicion(log_evidence, log_limit);
    match (log_evidence >= log_limit, suspicious) {
        (true, _) => format!(
            "it is worse (a version as good as stable looks like this in at most 1 of {} rollouts)",
            odds(log_evidence).trim_end_matches(":1")
        ),
        (false, true) => format!("suspicious ({suspicion} of 100, and at 100 it goes back)"),
        (false, false) if log_evidence < LITTLE.ln() => {
            format!("no sign that it is worse (suspicion {suspicion} of 100)")
        }
        (false, false) => format!("little sign that it is worse (suspicion {suspicion} of 100)"),
    }
}

/// `12,345`
#[must_use]
pub fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate (0-1) as `3.5 %`, with the digits that are significant.
#[must_use]
pub fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    match percent {
        0.0 => "0 %".to_owned(),
        p if p >= 10.0 => format!("{p:.0} %"),
        p if p >= 1.0 => format!("{p:.1} %"),
        p if p >= 0.1 => format!("{p:.2} %"),
        p => format!("{p:.3} %"),
    }
}

impl StreamFinding {
    /// `errors: 12 of 340 (3.5 %) against 5 of 6,460 (0.077 %), 46 times as many`
    #[must_use]
    pub fn describe(&self) -> String {
        let rate = |c: &Counts| c.bad / c.of.max(1.0);
        let arm = |c: &Counts| match c.of > 0.0 {
            true => format!("{} of {} ({})", count(c.bad), count(c.of), percent(rate(c))),
            false => "nothing".to_owned(),
        };
        let mut text = format!(
            "{}: {} against {}",
            self.name,
            arm(&self.candidate),
            arm(&self.stable)
        );
        let (candidate, stable) = (rate(&self.candidate), rate(&self.stable));
        if stable > 0.0 && self.candidate.bad > 0.0 {
            let _ = write!(text, ", {:.1} times as many", candidate / stable);
        }
        text
    }
}

impl Finding {
    /// Why the candidate is good enough: `(suspicion 1 of 100; errors: …)`.
    #[must_use]
    pub fn acquit(&self, window: &str) -> String {
        format!(
            "(suspicion {} of 100; {})",
            suspicion(self.log_evidence, self.log_limit),
            self.strongest(window)
        )
    }

    /// The counts of the stream that says most against the candidate.
    fn strongest(&self, window: &str) -> String {
        format!("{} {window}", self.streams[self.top].describe())
    }

    /// One or two sentences: what was seen, how certain that is, and what follows from
    /// it. `window` names the time of the rates, such as `in the last 10 min`.
    #[must_use]
    pub fn explain(&self, decision: Decision, pace: Pace, config: &Config, window: &str) -> String {
        let held = matches!(
            decision,
            Decision::Hold | Decision::GiveUp | Decision::Retreat
        );
        let suspicious = self.suspicious || held;
        let known = match self.past && self.log_evidence >= self.log_limit {
            // What happens to the whole service looks like this too.
            true => "it is worse, by what is known of stable's past alone".to_owned(),
            false => certainty(self.log_evidence, self.log_limit, suspicious),
        };
        let mut text = format!("{known}; {}", self.strongest(window));
        if self.incident {
            text.push_str("; stable is in trouble too, so this time does not count");
        }
        match decision {
            Decision::Hold => {
                let left = config.hold_max.saturating_sub(pace.held);
                let _ = write!(
                    text,
                    "; holds until the suspicion stops rising or falls, for {left} more looks at most"
                );
            }
            Decision::GiveUp => text.push_str("; held for too long without getting clear of it"),
            Decision::Retreat => {
                text.push_str("; takes the share back until the next sample decides");
            }
            Decision::RollBack => {}
            // Nobody is blamed for what may be chance.
            Decision::Advance | Decision::Stay => return text,
        }
        if self.excess_requests >= 0.5 {
            let number = count(self.excess_requests);
            let s = if number == "1" { "" } else { "s" };
            let _ = write!(
                text,
                "; about {number} bad request{s} so far by its fault (an estimate)"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(odds(240.0_f64.ln()), "240:1");
        assert_eq!(odds(0.0), "1:1");
        assert_eq!(odds(2.9_f64.ln()), "2.9:1");
        assert_eq!(odds(-(8.0_f64.ln())), "1:8");
        assert_eq!(odds(100.0), "over 1,000,000:1");
        let limit = 100.0_f64.ln();
        let certain = |odds: f64| certainty(odds.ln(), limit, odds > 3.0);
        for (odds, said) in [
            (0.25, "no sign that it is worse (suspicion 0 of 100)"),
            (2.9, "little sign that it is worse (suspicion 3 of 100)"),
            (12.0, "suspicious (12 of 100, and at 100 it goes back)"),
            (99.9, "suspicious (99 of 100, and at 100 it goes back)"),
            (
                240.0,
                "it is worse (a version as good as stable looks like this in at most 1 of 240 rollouts)",
            ),
        ] {
            assert_eq!(certain(odds), said);
        }
        assert_eq!(count(6_460.0), "6,460");
        assert_eq!(count(1_234_567.4), "1,234,567");
        assert_eq!(percent(0.035), "3.5 %");
        assert_eq!(percent(0.000_77), "0.077 %");
    }
}

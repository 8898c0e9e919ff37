//! Entries, statuses and targets as lines for people.

use std::fmt::Write as _;

use console::Style;

pub use crate::journal::narrate::span;
use crate::journal::status::Status;
use crate::model::{Command, Deployment, Millis, Phase, Weights, percent};
use crate::ops::status::Seen;

/// A target, short enough for a column: of an ARN only the load balancer's name.
pub fn short_identity(identity: &str) -> &str {
    match identity.strip_prefix("arn:") {
        Some(arn) => arn.split('/').nth(2).unwrap_or(identity),
        None => identity,
    }
}

/// Width of the bar that shows an arm's share, in columns.
pub const BAR: usize = 24;

/// `2026-11-21T22:41:03Z`
pub fn date(at: Millis) -> String {
    crate::journal::time(at).to_string()
}

/// The colour of a phase.
pub fn phase_style(phase: Phase) -> Style {
    let style = Style::new();
    match phase {
        Phase::Succeeded => style.green(),
        Phase::RolledBack | Phase::RollingBack | Phase::Paused => style.yellow(),
        Phase::RollbackFailed | Phase::Diverged => style.red().bold(),
        _ => style.cyan(),
    }
}

/// `stable 95 %, canary 5 %`
pub fn shares(weights: &Weights) -> String {
    weights.shares()
}

/// One line per arm: its name, version, share, requests and health.
pub fn arm_lines(seen: &Seen, bar_width: usize) -> Vec<String> {
    let live = &seen.observed;
    let weights = live.weights();
    let width = |f: fn(&crate::model::ObservedArm) -> usize| live.arms.iter().map(f).max();
    let names = width(|a| a.name.len()).unwrap_or(0);
    let versions = width(|a| a.release.version.len()).unwrap_or(0);
    live.arms
        .iter()
        .map(|arm| {
            let share = weights.share(&arm.name);
            let r = seen.rates(&arm.name);
            let mut line = format!(
                "  {:names$}  {:versions$}  {} {:>3} %",
                arm.name,
                arm.release.version,
                bar(share, bar_width),
                percent(share),
            );
            let _ = match (r.error_percent, r.p99_ms) {
                (Some(errors), Some(p99)) => write!(
                    line,
                    "  {:>5.0} req/s  {errors:>5.1} % errors  p99 {p99:>5.0} ms",
                    r.rps
                ),
                _ => write!(line, "  {:41}", "    no requests"),
            };
            let _ = write!(line, "  {}/{} healthy", arm.healthy, arm.total);
            if let Some(why) = &arm.health_reason {
                let _ = write!(line, " ({why})");
            }
            if let Deployment::Moving(what) | Deployment::Failed(what) = &arm.deployment {
                let _ = write!(line, ", {what}");
            }
            if arm.spoiled > 0 {
                let _ = write!(line, ", {} broken off by clients", arm.spoiled);
            }
            if arm.unanswered > 0 {
                let _ = write!(line, " ({} without an answer)", arm.unanswered);
            }
            if arm.sent_again > 0 {
                let _ = write!(line, ", {} sent again", arm.sent_again);
            }
            line
        })
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share is 0 to 100"
)]
fn bar(share: f64, width: usize) -> String {
    let full = (share / 100.0 * width as f64).round() as usize;
    let full = full.min(width);
    format!("{}{}", "█".repeat(full), "░".repeat(width - full))
}

/// The first lines of a live view: which rollout, in which phase, and why.
pub fn head(status: &Status, now: Millis) -> Vec<String> {
    let style = phase_style(status.phase);
    let mut lines = vec![format!(
        "{}  {}",
        status.rollout,
        style.apply_to(status.phase)
    )];
    if let Some(decision) = &status.decision {
        let _ = write!(lines[0], "  {}", decision.reason);
    } else if let Some(hold) = &status.hold {
        let _ = write!(lines[0], "  {hold}");
    } else if !status.note.is_empty() {
        let _ = write!(lines[0], "  {}", status.note);
    }
    if let Some((end, reason)) = &status.end {
        lines[0] = format!("{}  {}  {reason}", status.rollout, style.apply_to(end));
    } else {
        let elapsed = now.saturating_sub(status.created);
        let mut line = format!("  {} % · {} so far", status.percent, span(elapsed));
        if let Some(left) = time_left(status, now) {
            let _ = write!(line, " · about {} left", span(left));
        }
        if let Some(waiting) = status
            .waiting
            .as_ref()
            .filter(|w| w.wants(Command::APPROVE))
        {
            let left = waiting.until.saturating_sub(now);
            let _ = write!(
                line,
                " · `engine approve {}` lets it go on (within {})",
                status.rollout,
                span(left)
            );
        }
        lines.push(line);
    }
    lines
}

/// The time that is left, ms, if the rest goes as fast as the part that is done. None
/// can be told of a hold, of a wait for a person, or if no entry was written for two
/// minutes.
fn time_left(status: &Status, now: Millis) -> Option<Millis> {
    let done = u64::from(status.percent);
    let moves = status.decision.is_none()
        && status.hold.is_none()
        && status.waiting.as_ref().is_none_or(|w| w.signals.is_empty())
        && now.saturating_sub(status.updated) < 120_000;
    let elapsed = now.saturating_sub(status.created);
    (done >= 5 && moves).then(|| elapsed.saturating_mul(100 - done.min(100)) / done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{End, Role, Way};

    #[test]
    fn all_traffic_is_said_only_of_all_traffic() {
        use crate::model::Elsewhere;
        let header = crate::rollout::fixture::header();
        let mut status = Status::new(&header);
        let sends = |arm: Role, way| Elsewhere {
            arm: header.arm(arm).to_owned(),
            route: "arn".to_owned(),
            place: "HTTPS:443".to_owned(),
            share: 100.0,
            way,
        };
        let ends = [
            (End::Promoted, Role::Candidate, Role::Stable),
            (End::RolledBack, Role::Stable, Role::Candidate),
        ];
        let mut header = header.clone();
        header.promotion = crate::model::Promotion::Swap;
        for (end, winner, other) in ends {
            status.end = Some((end, "because".to_owned()));
            let mut said = |elsewhere: Vec<Elsewhere>, unread: Option<&str>| {
                status.elsewhere = elsewhere;
                status.elsewhere_unread = unread.map(ToOwned::to_owned);
                crate::journal::verdict::verdict(&header, &status)
            };
            assert!(said(vec![], None).contains("all traffic, read back"));
            assert!(said(vec![sends(winner, Way::Users)], None).contains("all traffic"));
            assert!(said(vec![sends(other, Way::Tests)], None).contains("all traffic"));
            for way in [Way::Users, Way::Unsaid] {
                let said = said(vec![sends(other, way)], None);
                assert!(!said.contains("all traffic"), "{said}");
                assert!(said.contains("HTTPS:443 sends 100 %"), "{said}");
            }
            let said = said(vec![], Some("no permission"));
            assert!(
                !said.contains("all traffic") && said.contains("no permission"),
                "{said}"
            );
        }
    }

    #[test]
    fn an_arn_is_too_long_for_a_column() {
        let arn = "arn:aws:elasticloadbalancing:eu-west-1:1:listener/app/shop/0a/1b";
        assert_eq!(short_identity(arn), "shop");
        assert_eq!(
            short_identity("local:127.0.0.1:7900"),
            "local:127.0.0.1:7900"
        );
    }
}

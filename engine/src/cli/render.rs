//! Entries, statuses and targets as lines for people.

use console::Style;

pub use crate::journal::narrate::span;
use crate::journal::status::Status;
use crate::journal::{Header, Work};
use crate::model::target::TargetSpec;
use crate::model::{
    Command, Deployment, Millis, ObservedArm, Phase, Role, Weights, percent, suspicion,
};
use crate::ops::status::Seen;

/// A target, short enough for a column: of an ARN only the load balancer's name.
pub fn short_identity(identity: &str) -> &str {
    match identity.strip_prefix("arn:") {
        Some(arn) => arn.split('/').nth(2).unwrap_or(identity),
        None => identity,
    }
}

/// `2026-11-21T22:41:03Z`
pub fn date(at: Millis) -> String {
    crate::journal::time(at).to_string()
}

/// The colour of a phase.
pub fn phase_style(phase: Phase) -> Style {
    let style = Style::new();
    match phase {
        Phase::Succeeded => style.green(),
        Phase::RolledBack | Phase::RollingBack | Phase::Paused | Phase::Retreated => style.yellow(),
        Phase::RollbackFailed | Phase::Diverged => style.red().bold(),
        _ => style.cyan(),
    }
}

/// `stable 95 %, canary 5 %`
pub fn shares(weights: &Weights) -> String {
    weights.shares()
}

/// From how many columns on a line has the long words and a bar.
const WIDE: usize = 100;

/// An image as it fits beside other columns: its name and tag, or the first digits of its
/// digest, without the registry before it. `get` and `status --json` have the whole.
pub fn short_version(version: &str) -> String {
    let one = |image: &str| {
        let name = image.rsplit('/').next().unwrap_or(image);
        match name.split_once('@') {
            Some((name, digest)) => {
                let digits = digest.rsplit(':').next().unwrap_or(digest);
                let digits: String = digits.chars().take(8).collect();
                let name = name.split_once(':').map_or(name, |(name, _)| name);
                format!("{name}@{digits}")
            }
            None => name.to_owned(),
        }
    };
    let images: Vec<String> = version.split(" + ").map(one).collect();
    images.join(" + ")
}

/// A text of at most `room` columns. The end of an image says most, so that is kept.
fn fitted(text: &str, room: usize) -> String {
    let long = console::measure_text_width(text);
    if long <= room {
        return text.to_owned();
    }
    let kept: Vec<char> = text.chars().rev().take(room.saturating_sub(1)).collect();
    let kept: String = kept.into_iter().rev().collect();
    format!("…{kept}")
}

/// A line per arm in `width` columns: its name, version, share, requests, p99 (in colour if
/// it is above that of the arm `stable`) and health; below it, what is wrong with it.
pub fn arm_lines(seen: &Seen, stable: Option<&str>, width: usize) -> Vec<String> {
    let arms = &seen.observed.arms;
    let weights = seen.observed.weights();
    let usual = stable.and_then(|arm| seen.rates(arm).p99_ms);
    let measured: Vec<String> = arms
        .iter()
        .map(|arm| measured(seen, &arm.name, usual, width) + &health(arm))
        .collect();
    let widest = |texts: &[String]| {
        let widths = texts.iter().map(|t| console::measure_text_width(t));
        widths.max().unwrap_or(0)
    };
    let names = arms.iter().map(|a| a.name.len()).max().unwrap_or(0);
    let shares = arms.iter().map(|arm| percent(weights.share(&arm.name)));
    let shares: Vec<String> = shares.collect();
    let digits = widest(&shares).max("100".len());
    let share = "   %".len() + digits;
    let room = width.saturating_sub(2 + names + 2 + share + widest(&measured));
    let mut versions: Vec<String> = arms.iter().map(|a| a.release.version.clone()).collect();
    if widest(&versions) > room {
        let short = |version: &String| fitted(&short_version(version), room.max(8));
        versions = versions.iter().map(short).collect();
    }
    let column = widest(&versions);
    // A bar takes what is left, if it can show anything there.
    let bar_width = match room.saturating_sub(column + 2) {
        0..6 => 0,
        left => left.min(24),
    };
    let mut lines = vec![];
    let cells = versions.iter().zip(&shares).zip(&measured);
    for (arm, ((version, share), measured)) in arms.iter().zip(cells) {
        let bar = match bar_width {
            0 => String::new(),
            columns => format!("  {}", bar(weights.share(&arm.name) / 100.0, columns)),
        };
        lines.push(format!(
            "  {:names$}  {version:column$}{bar}  {share:>digits$} %{measured}",
            arm.name
        ));
        lines.extend(troubles(arm).iter().flat_map(|t| wrapped(t, "    ", width)));
    }
    lines
}

/// What an arm does with its requests, if it gets any.
fn measured(seen: &Seen, arm: &str, usual_p99: Option<f64>, width: usize) -> String {
    let rates = seen.rates(arm);
    match (rates.error_percent, rates.p99_ms) {
        (Some(errors), Some(p99)) if width < WIDE => format!(
            "  {:>4.0}/s  {errors:>4.1} % err  p99 {} ms",
            rates.rps,
            compared(p99, usual_p99)
        ),
        (Some(errors), Some(p99)) => format!(
            "  {:>5.0} req/s  {errors:>5.1} % errors  p99 {} ms",
            rates.rps,
            compared(p99, usual_p99)
        ),
        _ if width < WIDE => format!("  {:32}", "no requests"),
        _ => format!("  {:41}", "    no requests"),
    }
}

/// Over which time the rates of [`arm_lines`] were measured, beside shares that are those
/// of `now`; `moved` is when these last changed.
pub fn measured_when(seen: &Seen, moved: Option<Millis>, now: Millis) -> Vec<String> {
    let Some(time) = seen.measured() else {
        return vec![];
    };
    let ago = |at: Millis| span(now.saturating_sub(at));
    let long = span(time.until.saturating_sub(time.since));
    let period = seen.samples.iter().map(|s| Millis::from(s.period_ms)).max();
    let late = now.saturating_sub(time.until) > 2 * period.unwrap_or(0);
    let rates = match late {
        true => format!("  the rates are of {long} until {} ago", ago(time.until)),
        false => format!("  the rates are of the last {long}"),
    };
    let moved = moved.filter(|moved| *moved > time.since);
    let moved = moved.map(|moved| match now.saturating_sub(moved) {
        ..1_000 => "; the traffic was moved just now".to_owned(),
        _ => format!("; the traffic was moved {} ago", ago(moved)),
    });
    let all = rates + &moved.unwrap_or_default();
    let fresh = seen.observed.arms.iter().filter_map(|arm| {
        let since = arm.since.filter(|since| *since > time.since)?;
        Some(format!(
            "  {} has run {} for {}, and its rates are of that time alone",
            arm.name,
            short_version(&arm.release.version),
            ago(since)
        ))
    });
    std::iter::once(all).chain(fresh).collect()
}

fn health(arm: &ObservedArm) -> String {
    format!("  {}/{} healthy", arm.healthy, arm.total)
}

/// What is wrong with an arm, or not finished.
fn troubles(arm: &ObservedArm) -> Vec<String> {
    let mut troubles = vec![];
    if let Some(why) = &arm.health_reason {
        troubles.push(format!("not healthy: {why}"));
    }
    if let Deployment::Moving(what) | Deployment::Failed(what) = &arm.deployment {
        troubles.push(what.clone());
    }
    if arm.spoiled > 0 {
        let without = match arm.unanswered {
            0 => String::new(),
            count => format!(" ({count} without an answer)"),
        };
        troubles.push(format!("{} broken off by clients{without}", arm.spoiled));
    }
    if arm.sent_again > 0 {
        troubles.push(format!("{} sent again", arm.sent_again));
    }
    troubles
}

/// A p99 (ms) in colour where it is above the stable arm's: by a quarter, or twice as long.
fn compared(p99: f64, usual: Option<f64>) -> String {
    let text = format!("{p99:>5.0}");
    let style = match usual {
        Some(usual) if p99 >= 2.0 * usual && p99 > usual => Style::new().red(),
        Some(usual) if p99 >= 1.25 * usual && p99 > usual => Style::new().yellow(),
        _ => return text,
    };
    style.for_stderr().apply_to(text).to_string()
}

/// What is told, in lines of at most `width` columns, broken between words; what comes
/// after the first line stands below its text, not below the time before it.
pub fn told(text: &str, width: usize) -> String {
    let lines = text.lines().flat_map(|line| {
        if console::measure_text_width(line) <= width {
            return vec![line.to_owned()];
        }
        let (time, said) = match line.split_once("  ") {
            Some((time, said)) if time.len() == "22:41:03".len() => (format!("{time}  "), said),
            _ => (String::new(), line),
        };
        let mut lines = wrapped(said, &" ".repeat(time.len()), width);
        if let Some(first) = lines.first_mut() {
            first.replace_range(..time.len(), &time);
        }
        lines
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A text in lines of at most `width` columns, broken between words; each begins with
/// `indent`.
pub(super) fn wrapped(text: &str, indent: &str, width: usize) -> Vec<String> {
    filled(text.split_whitespace(), " ", indent, width)
}

/// Pieces in lines of at most `width` columns, broken between pieces; each line begins with
/// `indent`.
fn filled<'a>(
    pieces: impl Iterator<Item = &'a str>,
    between: &str,
    indent: &str,
    width: usize,
) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for piece in pieces {
        let long = |text: &str| console::measure_text_width(text);
        match lines.last_mut() {
            Some(line) if long(line) + long(between) + long(piece) <= width => {
                line.push_str(between);
                line.push_str(piece);
            }
            _ => lines.push(format!("{indent}{piece}")),
        }
    }
    lines
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a part is 0 to 1"
)]
fn bar(part: f64, width: usize) -> String {
    let full = (part.clamp(0.0, 1.0) * width as f64).round() as usize;
    let full = full.min(width);
    format!("{}{}", "█".repeat(full), "░".repeat(width - full))
}

/// Where a rollout stands, in one line without what is measured: its phase, how far it is
/// or why it waits, and the traffic.
pub fn standing(status: &Status, now: Millis) -> String {
    let mut parts = vec![format!("{}  {}", status.rollout, status.phase)];
    parts.extend(why(status));
    parts.extend(pace(status, now, true));
    parts.push(format!("traffic: {}", shares(&status.weights)));
    parts.join(" · ")
}

/// The first lines of a live view, in `width` columns: which rollout, in which phase and
/// why; the steps, done and to come; how far the suspicion is from taking it back.
pub fn head(header: &Header, status: &Status, now: Millis, width: usize) -> Vec<String> {
    let style = phase_style(status.phase);
    let phase = match &status.end {
        Some((end, _)) => style.apply_to(end.to_string()),
        None => style.apply_to(status.phase.to_string()),
    };
    let mut lines = vec![format!("{}  {phase}", status.rollout)];
    lines.extend(why(status).iter().flat_map(|why| wrapped(why, "  ", width)));
    if status.end.is_some() {
        return lines;
    }
    let metrics = first_metrics(header, status, now);
    // No look comes to anything before the metrics do: one time is enough.
    let mut parts = pace(status, now, metrics.is_none());
    parts.extend(metrics);
    lines.extend(progress(header, status, parts, width));
    lines
}

/// The same of a rollout that would move on, and that no process drives: nothing of it says
/// what comes when. `is_silent`: its target does not answer.
pub fn undriven(
    header: &Header,
    status: &Status,
    is_silent: bool,
    now: Millis,
    width: usize,
) -> Vec<String> {
    let style = Style::new().yellow().bold();
    let mut lines = vec![format!(
        "{}  {}  {}",
        status.rollout,
        phase_style(status.phase).apply_to(status.phase),
        style.apply_to("no process drives it")
    )];
    let id = &status.rollout;
    let advice = match header.target {
        TargetSpec::Embedded { .. } if is_silent => format!(
            "its balancer does not run, so nobody is served: `engine resume {id}` starts it again and goes on, `engine abort {id}` ends the rollout"
        ),
        _ => format!(
            "`engine resume {id}` goes on, `engine abort {id}` takes it back; until then the traffic stays where it is, whatever the metrics say"
        ),
    };
    lines.extend(wrapped(&advice, "  ", width));
    lines.extend(why(status).iter().flat_map(|why| wrapped(why, "  ", width)));
    let parts = vec![
        done(status),
        format!(
            "nothing has happened for {}",
            span(now.saturating_sub(status.updated))
        ),
    ];
    lines.extend(progress(header, status, parts, width));
    lines
}

/// The shares that come, and these parts; how far the suspicion is from taking it back.
fn progress(header: &Header, status: &Status, mut parts: Vec<String>, width: usize) -> Vec<String> {
    if let Some(shares) = shares_to_come(header, status) {
        parts.insert(0, shares);
    }
    let parts = parts.iter().map(String::as_str);
    let mut lines = filled(parts, " · ", "  ", width);
    if let Some(finding) = status
        .finding
        .as_ref()
        .filter(|_| status.decision.is_none())
    {
        let suspicion = suspicion(finding.log_evidence, finding.log_limit);
        lines.push(format!(
            "  suspicion {} goes back when it is full",
            bar(suspicion / 100.0, 20)
        ));
    }
    lines
}

/// Why a rollout stands where it stands.
fn why(status: &Status) -> Option<String> {
    match (&status.end, &status.decision, &status.hold) {
        (Some((_, reason)), ..) => Some(reason.clone()),
        (_, Some(decision), _) => Some(decision.reason.clone()),
        (_, _, Some(hold)) => Some(hold.to_string()),
        _ => (!status.note.is_empty()).then(|| status.note.clone()),
    }
}

/// The candidate's shares in the order in which they come: `traffic ✓5 ▸25 50 95 100 %`.
/// They are not numbered, because only the strategy knows which of them are steps of its own.
/// Where it takes others than it said (a ladder that fits the traffic), those that it took
/// are shown, and of those to come the last. `None` if it did not say.
fn shares_to_come(header: &Header, status: &Status) -> Option<String> {
    let Work::Strategy(pin) = &header.work else {
        return None;
    };
    if pin.steps.is_empty() || status.decision.is_some() {
        return None;
    }
    let planned: Vec<f64> = pin.steps.iter().map(|s| f64::from(s.share)).collect();
    let share = status.weights.share(header.arm(Role::Candidate));
    let alike = |a: f64, b: f64| (a - b).abs() < 0.5;
    // What lies below the first of them is a probe.
    let climbed = status.climbed.iter().copied().filter(|s| *s >= planned[0]);
    let own = climbed
        .clone()
        .any(|s| !planned.iter().any(|p| alike(*p, s)));
    let mut shares: Vec<String> = vec![];
    let mut show = |mark: &str, share: f64| shares.push(format!("{mark}{}", percent(share)));
    if own {
        for &before in status.climbed.iter().filter(|s| **s < share) {
            show("✓", before);
        }
        show("▸", share);
        let last = planned.iter().copied().fold(0.0, f64::max);
        if last > share {
            shares.extend(["…".to_owned(), percent(last)]);
        }
    } else {
        let begun = status.exposed_since.is_some() && share > 0.0;
        let at = planned.iter().position(|p| *p >= share);
        for (index, &planned) in planned.iter().enumerate() {
            let mark = match at.unwrap_or(pin.steps.len()) {
                at if begun && index < at => "✓",
                at if begun && index == at => "▸",
                _ => "",
            };
            show(mark, planned);
        }
    }
    Some(format!("traffic {} %", shares.join(" ")))
}

/// How far a rollout is, as its strategy says.
fn done(status: &Status) -> String {
    format!("{} % done", status.percent)
}

/// How far a rollout is, how long it has taken and will take, and what it waits for: with
/// `looks`, the next look too.
fn pace(status: &Status, now: Millis, looks: bool) -> Vec<String> {
    if status.end.is_some() {
        return vec![];
    }
    let elapsed = now.saturating_sub(status.created);
    let mut parts = vec![done(status), format!("{} so far", span(elapsed))];
    if let Some(left) = time_left(status, now) {
        parts.push(format!("about {} left", span(left)));
    }
    if let Some(waiting) = &status.waiting {
        if waiting.wants(Command::APPROVE) {
            parts.push(format!("`engine approve {}` lets it go on", status.rollout));
        } else if looks && status.hold.is_none() && status.decision.is_none() {
            let left = waiting.until.saturating_sub(now);
            // A local balancer is looked at every second.
            if left >= 2_000 {
                parts.push(format!("next look in {}", span(left)));
            }
        }
    }
    parts
}

/// When the first metrics of a candidate come that has just got traffic: CloudWatch has
/// them minutes later.
fn first_metrics(header: &Header, status: &Status, now: Millis) -> Option<String> {
    let TargetSpec::Aws(spec) = &header.target else {
        return None;
    };
    let since = status.exposed_since?;
    let sample = Millis::from(header.sample_period_ms);
    let due = since.saturating_add(sample + spec.metrics_delay_ms);
    let seconds_left = due.saturating_sub(now) / 1_000;
    status.finding.is_none().then(|| match seconds_left {
        0 => "CloudWatch has no metrics of it yet".to_owned(),
        left => format!(
            "CloudWatch has its first metrics in about {}",
            span(left * 1_000)
        ),
    })
}

/// The time that is left, ms, if the rest goes as fast as what was done since a person was
/// last waited for: from when that was said on it counts down. None can be told of a hold, of
/// a wait for a person, or if no entry was written for two minutes.
fn time_left(status: &Status, now: Millis) -> Option<Millis> {
    let (began, before) = status.going_since;
    let done = u64::from(status.percent.saturating_sub(before));
    let moves = status.decision.is_none()
        && status.hold.is_none()
        && status.waiting.as_ref().is_none_or(|w| w.signals.is_empty())
        && now.saturating_sub(status.updated) < 120_000;
    let taken = status.percent_at.saturating_sub(began);
    let since = now.saturating_sub(status.percent_at);
    let to_do = u64::from(100_u32.saturating_sub(status.percent));
    let left = |done: u64| (taken.saturating_mul(to_do) / done).checked_sub(since);
    // An estimate that is used up was wrong.
    (done >= 5 && moves)
        .then(|| left(done))?
        .filter(|left| *left >= 1_000)
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
            both: false,
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

    #[test]
    fn what_is_told_is_broken_between_words_and_hangs() {
        assert_eq!(told("22:41:03  short", 20), "22:41:03  short");
        assert_eq!(
            told("22:41:03  the traffic stays where it is", 22),
            "22:41:03  the traffic\n          stays where\n          it is"
        );
        assert_eq!(
            told("rolled back: it is worse", 14),
            "rolled back:\nit is worse"
        );
        assert_eq!(told("one\ntwo three four", 9), "one\ntwo three\nfour");
        assert_eq!(told("no limit  at all", usize::MAX), "no limit  at all");
    }
}

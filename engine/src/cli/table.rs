//! A table of rollouts, as wide as a terminal is: nothing wraps, and what is too long is
//! shortened.

use console::measure_text_width as width_of;

use super::render::{phase_style, short_identity, short_version};
use crate::journal;
use crate::model::{Arm, Phase, Role};
use crate::ops::history::Listed;

/// Columns between two columns of the table.
const GAP: usize = 2;

/// A column: its title, and the least width to which it is shortened.
struct Column {
    title: &'static str,
    least: usize,
}

/// In the order in which they are shown. `usize::MAX`: it is never shortened. All at their
/// least are as wide as the usual terminal, of 80 columns.
const COLUMNS: [Column; 6] = [
    Column {
        title: "BEGAN",
        least: usize::MAX,
    },
    Column {
        title: "ROLLOUT",
        least: 19,
    },
    Column {
        title: "PHASE",
        least: usize::MAX,
    },
    Column {
        title: "VERSIONS",
        least: 10,
    },
    Column {
        title: "TARGET",
        least: 10,
    },
    Column {
        title: "WHY",
        least: 9,
    },
];
/// The column of ids. Their ends tell them apart, and stand for all of an id in other verbs.
const ROLLOUT: usize = 1;
/// The column of phases, which has colours.
const PHASE: usize = 2;
/// The column of versions, each of which is shortened by itself.
const VERSIONS: usize = 3;
/// The column of targets, which a narrow terminal shows only where they differ.
const TARGET: usize = 4;
/// The column that is a sentence, and begins with what says most.
const WHY: usize = 5;
/// From how many columns on times and targets are shown in full.
const FULL: usize = 110;

/// The lines of the table, the first with its titles, each at most `width` columns wide.
#[must_use]
pub fn lines(rows: &[Listed], width: usize) -> Vec<String> {
    let titles = COLUMNS.map(|column| column.title.to_owned());
    let cells: Vec<[String; 6]> = rows.iter().map(|row| cells(row, width)).collect();
    // What all rows have in common says little where the others need the room.
    let one_target = width < FULL
        && rows
            .windows(2)
            .all(|two| two[0].row.target == two[1].row.target);
    let mut widths = [0; 6];
    for row in std::iter::once(&titles).chain(&cells) {
        for (index, (widest, cell)) in widths.iter_mut().zip(row).enumerate() {
            if index != TARGET || !one_target {
                *widest = width_of(cell).max(*widest);
            }
        }
    }
    shrink(&mut widths, width);
    let line = |row: &[String; 6], of: Option<&Listed>| {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            let cell = match index {
                WHY => ended(cell, widths[index]),
                ROLLOUT => begun(cell, widths[index]),
                VERSIONS if of.is_some() => {
                    versions(of.map_or(&[][..], |of| &of.arms), widths[index])
                }
                _ => amid(cell, widths[index]),
            };
            let pad = match index {
                WHY => 0,
                _ if widths[index] == 0 => continue,
                _ => (widths[index] + GAP).saturating_sub(width_of(&cell)),
            };
            match of.filter(|_| index == PHASE) {
                Some(of) => {
                    let style = match is_nobodys(of) {
                        true => console::Style::new().yellow(),
                        false => phase_style(of.row.phase),
                    };
                    line += &style.apply_to(cell).to_string();
                }
                None => line += &cell,
            }
            line += &" ".repeat(pad);
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(&titles, None)];
    lines.extend(
        rows.iter()
            .zip(&cells)
            .map(|(row, cells)| line(cells, Some(row))),
    );
    lines
}

/// Whether a rollout would move on, and no process drives it.
fn is_nobodys(listed: &Listed) -> bool {
    let waits = matches!(listed.row.phase, Phase::Paused | Phase::Diverged);
    listed.driven == Some(false) && !waits
}

fn cells(listed: &Listed, width: usize) -> [String; 6] {
    let row = &listed.row;
    let mut began = journal::time(row.created).to_string();
    let mut target = short_identity(&row.target).to_owned();
    if width < FULL {
        // `11-21 22:41`
        began = began.chars().skip(5).take(11).collect::<String>();
        began = began.replace('T', " ");
        // The port tells balancers of one machine apart.
        if let Some(port) = target.strip_prefix("local:127.0.0.1:") {
            target = format!("local:{port}");
        }
    }
    [
        began,
        row.rollout.clone(),
        match is_nobodys(listed) {
            true => "undriven".to_owned(),
            false => row.phase.to_string(),
        },
        versions(&listed.arms, usize::MAX),
        target,
        row.note.lines().next().unwrap_or_default().to_owned(),
    ]
}

/// `app:v1 to app:v2`, in so many columns: what the stable arm ran, and what was on trial.
fn versions(arms: &[Arm], room: usize) -> String {
    const TO: &str = " to ";
    let of = |role| {
        let arm = arms.iter().find(|arm| arm.role == role)?;
        (!arm.version.is_empty()).then(|| short_version(&arm.version))
    };
    match (of(Role::Stable), of(Role::Candidate)) {
        (Some(stable), Some(candidate)) => {
            let whole = width_of(&stable) + TO.len() + width_of(&candidate);
            let named = |image: &str| {
                let (name, tag) = image.rsplit_once(':')?;
                Some((name.to_owned(), tag.to_owned()))
            };
            // The name of an image need not be there twice.
            let candidate = match (named(&stable), named(&candidate)) {
                (Some((old, _)), Some((new, tag))) if old == new && whole > room => tag,
                _ => candidate,
            };
            let both = room.saturating_sub(TO.len());
            // What one of them does not need is the other's.
            let stable = amid(&stable, both - width_of(&candidate).min(both / 2));
            let candidate = amid(&candidate, both.saturating_sub(width_of(&stable)));
            format!("{stable}{TO}{candidate}")
        }
        (stable, candidate) => {
            let only = stable.or(candidate).unwrap_or_else(|| "-".to_owned());
            amid(&only, room)
        }
    }
}

/// Takes from the widest column that may be shortened until all of them fit.
fn shrink(widths: &mut [usize; 6], width: usize) {
    let all = |widths: &[usize; 6]| {
        let shown = widths.iter().filter(|width| **width > 0).count();
        widths.iter().sum::<usize>() + GAP * shown.saturating_sub(1)
    };
    while all(widths) > width {
        let spare = |index: &usize| widths[*index].saturating_sub(COLUMNS[*index].least);
        let widest = (0..widths.len())
            .filter(|index| spare(index) > 0)
            .max_by_key(|index| (widths[*index], *index));
        match widest {
            Some(index) => widths[index] -= 1,
            // So narrow a terminal shows less of each.
            None => match (0..widths.len()).max_by_key(|index| widths[*index]) {
                Some(index) if widths[index] > 1 => widths[index] -= 1,
                _ => return,
            },
        }
    }
}

/// A name of at most `room` columns, shortened in the middle: both its ends say something.
fn amid(text: &str, room: usize) -> String {
    if width_of(text) <= room {
        return text.to_owned();
    }
    let letters: Vec<char> = text.chars().collect();
    let mut first = String::new();
    let mut last = String::new();
    let (mut from, mut to) = (0, letters.len());
    // By columns and not by characters, because some take two.
    while from < to {
        let left = room.saturating_sub(1 + width_of(&first) + width_of(&last));
        let begins = width_of(&first) <= width_of(&last);
        let letter = if begins {
            letters[from]
        } else {
            letters[to - 1]
        };
        if width_of(&letter.to_string()) > left {
            break;
        }
        match begins {
            true => {
                first.push(letter);
                from += 1;
            }
            false => {
                last.insert(0, letter);
                to -= 1;
            }
        }
    }
    format!("{first}…{last}")
}

/// A sentence of at most `room` columns. What has no room goes in this order: numbers and
/// additions, in brackets or behind a semicolon; the step before a colon; what comes after a
/// colon; and then words from the end, whole ones where one fits.
fn ended(text: &str, room: usize) -> String {
    let mut short = text;
    for form in [whole, without_additions, without_step, before_colon] {
        short = form(short);
        if width_of(short) <= room {
            return short.to_owned();
        }
    }
    let kept = console::truncate_str(short, room.saturating_sub(1), "");
    let rest = short.strip_prefix(&*kept);
    let broken = rest.is_some_and(|rest| !rest.starts_with(' '));
    let words = match kept.rsplit_once(' ').filter(|_| broken) {
        Some((words, _)) => words,
        None => &kept,
    };
    format!("{}…", words.trim_end_matches([' ', ',', ':']))
}

fn whole(text: &str) -> &str {
    text
}

fn without_additions(text: &str) -> &str {
    let end = text.find([';', '(']).unwrap_or(text.len());
    match text[..end].trim_end() {
        "" => text,
        rest => rest,
    }
}

/// `it is worse` of `step 2/4 at 25 %: it is worse`.
fn without_step(text: &str) -> &str {
    let step = |lead: &str| {
        lead.starts_with("step ") || lead.starts_with("holdback ") || lead == "all traffic"
    };
    match text.split_once(": ") {
        Some((lead, rest)) if step(lead) => rest,
        _ => text,
    }
}

/// A name alone before a colon says nothing.
fn before_colon(text: &str) -> &str {
    let lead = text.split_once(": ").map(|(lead, _)| lead);
    lead.filter(|lead| lead.contains(' ')).unwrap_or(text)
}

/// A name of at most `room` columns, without its beginning.
fn begun(text: &str, room: usize) -> String {
    let mut end = text;
    while width_of(end) > room.saturating_sub(usize::from(end.len() < text.len())) {
        let mut letters = end.chars();
        letters.next();
        end = letters.as_str();
    }
    match end.len() < text.len() {
        true => format!("…{end}"),
        false => end.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::summary::Summary;
    use crate::model::End;

    fn row(rollout: &str, target: &str, versions: [&str; 2], note: &str) -> Listed {
        let arm = |name: &str, role, version: &str| Arm {
            name: name.to_owned(),
            role,
            version: version.to_owned(),
        };
        Listed {
            row: Summary {
                rollout: rollout.to_owned(),
                target: target.to_owned(),
                title: "canary".to_owned(),
                plugin: None,
                created: 1_795_772_342_604,
                updated: 1_795_772_342_604,
                entries: 9,
                phase: Phase::RolledBack,
                note: note.to_owned(),
                end: Some(End::RolledBack),
            },
            arms: vec![
                arm("stable", Role::Stable, versions[0]),
                arm("canary", Role::Candidate, versions[1]),
            ],
            driven: None,
        }
    }

    fn rows() -> Vec<Listed> {
        let long = "arn:aws:elasticloadbalancing:eu-central-1:111122223333:listener/app/a-shop-with-a-very-long-name/50dc6c495c0c9188/f2f7dc8efc522ab2";
        let image = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/team/shop-frontend:release-2026-11-20-";
        vec![
            row(
                "canary-x7k2m9q4",
                "local:127.0.0.1:7900",
                ["v1", "v2"],
                "it is worse",
            ),
            row(
                "blue-green-of-everything-x7k2m9q4",
                long,
                [&format!("{image}a1"), &format!("{image}b2")],
                "step 1/5 at 5 %: it is worse (a version as good as stable looks like this in at most 1 of 240 rollouts)\nsecond line",
            ),
            row(
                "名前の長いロールアウト名前の長い",
                "local:[::1]:7900",
                ["", ""],
                "",
            ),
        ]
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        for width in [60, 80, 100, 130, 200] {
            for line in lines(&rows(), width) {
                assert!(width_of(&line) <= width, "{width}: {line}");
                assert!(!line.contains('\n'), "{line}");
            }
        }
        let plain: Vec<String> = lines(&rows(), 80)
            .iter()
            .map(|line| console::strip_ansi_codes(line).into_owned())
            .collect();
        insta::assert_snapshot!("a_list_in_80_columns", plain.join("\n"));
    }

    #[test]
    fn both_versions_share_the_room() {
        let of = |pair: [&str; 2], room| versions(&row("a", "b", pair, "").arms, room);
        for room in 6..30 {
            let shown = of(["app:release-one", "app:release-two"], room);
            assert!(width_of(&shown) <= room, "{room}: {shown}");
        }
        assert_eq!(of(["v1", "app:release-two"], 15), "v1 to app:…-two");
        assert_eq!(of(["app:release-one", "v2"], 15), "app:…-one to v2");
        assert_eq!(of(["v1", "v2"], usize::MAX), "v1 to v2");
        assert_eq!(of(["app:v1", "app:v2"], 16), "app:v1 to app:v2");
        assert_eq!(of(["app:v1", "app:v2"], 13), "app:v1 to v2");
        assert_eq!(of(["app:v1", "api:v2"], 13), "ap…v1 to ap…2");
    }

    /// The room of what all rows have in common is given to what they have not.
    #[test]
    fn one_target_needs_no_column_of_its_own_in_a_narrow_terminal() {
        let local = |note| {
            row(
                "canary-x7k2m9q4",
                "local:127.0.0.1:7900",
                ["v1", "v2"],
                note,
            )
        };
        let shown = |rows: &[Listed], width| {
            let lines = lines(rows, width).join("\n");
            console::strip_ansi_codes(&lines).into_owned()
        };
        let rows = [local("it is worse"), local("it is fine")];
        assert!(!shown(&rows, 80).contains("7900"), "{}", shown(&rows, 80));
        assert!(!shown(&rows, 80).contains("TARGET"), "{}", shown(&rows, 80));
        assert!(shown(&rows, 130).contains("7900"));
        let other = row("canary-a2", "local:127.0.0.1:7901", ["v1", "v2"], "");
        let rows = [local("it is worse"), other];
        assert!(shown(&rows, 80).contains("7901"), "{}", shown(&rows, 80));
    }

    #[test]
    fn without_a_terminal_all_is_there() {
        let all = lines(&rows(), usize::MAX).join("\n");
        for part in [
            "blue-green-of-everything-x7k2m9q4",
            "a-shop-with-a-very-long-name",
            "shop-frontend:release-2026-11-20-a1 to shop-frontend:release-2026-11-20-b2",
            "at most 1 of 240 rollouts)",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(!all.contains('…'), "{all}");
    }

    /// One that nobody drives does not look as if it went on by itself; one that waits for a
    /// person does not look as if its process had died.
    #[test]
    fn what_nobody_drives_is_shown_so() {
        let shown = |phase, driven| {
            let mut row = row("canary-x7k2m9q4", "local:127.0.0.1:7900", ["v1", "v2"], "");
            (row.row.phase, row.driven) = (phase, driven);
            let line = lines(&[row], 130).pop().unwrap_or_default();
            console::strip_ansi_codes(&line).into_owned()
        };
        let phase = Phase::Progressing;
        assert!(shown(phase, Some(false)).contains("  undriven  "));
        assert!(shown(phase, Some(true)).contains("  progressing  "));
        assert!(shown(Phase::Paused, Some(false)).contains("  paused  "));
        assert!(shown(Phase::RolledBack, None).contains("  rolled-back  "));
    }

    #[test]
    fn an_id_keeps_the_end_that_stands_for_it() {
        assert_eq!(begun("canary-x7k2m9q4", 15), "canary-x7k2m9q4");
        assert_eq!(begun("blue-green-x7k2m9q4", 15), "…green-x7k2m9q4");
        assert_eq!(begun("名前x7k2", 6), "…x7k2");
        assert_eq!(begun("canary", 1), "…");
        assert_eq!(begun("canary", 0), "…");
        // In a terminal of the usual width those of the engine's own strategies are whole.
        let rows = [
            row(
                "blue-green-hh24i8wi",
                "local:127.0.0.1:7900",
                ["app:v1", "app:v2"],
                "aborted by uid 0",
            ),
            row(
                "canary-x7k2m9q4",
                "arn:aws:elasticloadbalancing:eu-west-1:1:listener/app/a/50dc6c495c0c9188/f2f7dc8efc522ab2",
                ["v1", "v2"],
                "it is worse",
            ),
        ];
        let shown = lines(&rows, 80).join("\n");
        assert!(shown.contains("blue-green-hh24i8wi"), "{shown}");
    }

    #[test]
    fn a_name_keeps_both_ends() {
        assert_eq!(amid("canary-x7k2m9q4", 15), "canary-x7k2m9q4");
        assert_eq!(amid("canary-x7k2m9q4", 9), "cana…m9q4");
        assert_eq!(amid("日本語日本語", 6), "日…語");
    }

    /// No half words, and what says most stays.
    #[test]
    fn a_reason_is_short_before_it_is_broken_off() {
        let worse = "step 2/4 at 25 %: it is worse (a version as good as stable looks like this in at most 1 of 119 rollouts); errors";
        assert_eq!(ended(worse, 120), worse);
        assert_eq!(ended(worse, 40), "step 2/4 at 25 %: it is worse");
        assert_eq!(ended(worse, 14), "it is worse");
        assert_eq!(ended("it is worse", 6), "it is…");
        assert_eq!(ended("it is worse", 8), "it is…");
        assert_eq!(ended("aborted by uid 0: rollback", 25), "aborted by uid 0");
        assert_eq!(ended("aborted by uid 0: rollback", 14), "aborted by…");
        assert_eq!(
            ended("canary: its program ended with 1", 12),
            "canary: its…"
        );
        assert_eq!(
            ended("v2 is not worse (suspicion 1 of 100)", 11),
            "v2 is not…"
        );
        assert_eq!(ended("Donaudampfschifffahrt", 6), "Donau…");
        assert_eq!(ended("日本語日本語", 6), "日本…");
    }
}

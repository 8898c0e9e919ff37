//! Decisions on a time axis: a line through all panels, and flags that do not overlap above them.

use super::Error;
use super::canvas::{
    self, Align, Area, BLACK, BLUE, Dot, GREEN, ORANGE, PURPLE, SILVER, SMALL, Stroke, VERMILLION,
    dot, thin, units,
};
use super::data::{Decision, Mark};

/// Number of rows of flags above each other.
const LANES: usize = 4;
/// Height of a row of flags, pixels.
const LANE: f64 = 18.0;
/// Decisions of one kind that are nearer to each other than this share a flag, pixels.
const SAME: f64 = 10.0;
/// Distance of a line to its words, pixels.
const OFF: f64 = 10.0;
/// Decisions without room for words share a marker if they are nearer to each other than
/// this, pixels.
const CROWD: f64 = 44.0;
/// Letters that a flag shows.
const LETTERS: usize = 30;

/// One or more decisions at about the same time.
#[derive(Debug)]
struct Flag {
    x: f64,
    /// Their kind; `None` if they have several.
    mark: Option<Mark>,
    text: String,
    /// How many decisions it stands for.
    count: usize,
    /// Its row, and the edges of its words in pixels; `None` if there was no room for them.
    lane: Option<(usize, [f64; 2])>,
}

/// All decisions of a picture, placed.
#[derive(Debug)]
pub struct Flags {
    flags: Vec<Flag>,
}

impl Flags {
    /// Finds room for each decision; `sides` are the edges of the time axis in pixels.
    pub fn place(decisions: &[Decision], minutes: f64, sides: [f64; 2]) -> Self {
        let [left, right] = sides;
        let usable = |d: &&Decision| d.at_min.is_finite();
        let mut sorted: Vec<&Decision> = decisions.iter().filter(usable).collect();
        sorted.sort_by(|a, b| a.at_min.total_cmp(&b.at_min));
        let mut flags: Vec<Flag> = Vec::new();
        for decision in sorted {
            let x = left + (decision.at_min / minutes).clamp(0.0, 1.0) * (right - left);
            let near = |flag: &&mut Flag| flag.mark == Some(decision.mark) && x - flag.x < SAME;
            match flags.iter_mut().rev().take(4).find(near) {
                Some(flag) => flag.count += 1,
                None => flags.push(Flag {
                    x,
                    mark: Some(decision.mark),
                    text: canvas::clean(&decision.text, LETTERS),
                    count: 1,
                    lane: None,
                }),
            }
        }
        for flag in flags.iter_mut().filter(|flag| flag.count > 1) {
            flag.text = format!("{} (+{})", flag.text, flag.count - 1);
        }
        // If room is short, the end and the commands of people come first.
        let mut order: Vec<usize> = (0..flags.len()).collect();
        order.sort_by_key(|i| matches!(flags[*i].mark, Some(Mark::Advance | Mark::Hold)));
        for i in order {
            flags[i].lane = room(&flags, &flags[i], right);
        }
        Self {
            flags: crowded(flags),
        }
    }

    /// Height of the flags, pixels; the last row is for those without words.
    pub fn height(&self) -> f64 {
        let lanes = self.flags.iter().filter_map(|f| f.lane).map(|(l, _)| l + 1);
        let crowded = self.flags.iter().any(|f| f.lane.is_none());
        (lanes.max().unwrap_or(0) + usize::from(crowded)) as f64 * LANE
    }

    /// The lines from the flags through all panels.
    pub fn lines(&self, area: &Area<'_>, from: f64, to: f64) -> Result<(), Error> {
        for flag in &self.flags {
            let ends = [dot(flag.x, from), dot(flag.x, to)];
            canvas::line(area, &ends, thin(SILVER))?;
        }
        Ok(())
    }

    /// The flags, the first lane at `top`.
    pub fn draw(&self, area: &Area<'_>, top: f64) -> Result<(), Error> {
        let bottom = top + self.height();
        for flag in &self.flags {
            let (y, left) = match flag.lane {
                Some((lane, [from, _])) => (top + (lane as f64 + 0.5) * LANE, from < flag.x),
                None => (bottom - 0.5 * LANE, false),
            };
            canvas::line(area, &[dot(flag.x, y), dot(flag.x, bottom)], thin(SILVER))?;
            marker(area, dot(flag.x, y), flag.mark)?;
            let (align, off) = if left {
                (Align::Right, -OFF)
            } else {
                (Align::Left, OFF)
            };
            let at = dot(flag.x + off, y);
            canvas::text(area, at, SMALL, align, BLACK, &flag.text)?;
        }
        Ok(())
    }

    /// The legend of the markers that occur, which ends at `right`.
    pub fn legend(&self, area: &Area<'_>, y: f64, right: f64) -> Result<(), Error> {
        let kinds = [
            (Mark::Person, "person"),
            (Mark::Promote, "promoted"),
            (Mark::Rollback, "rolled back"),
            (Mark::Retreat, "retreats"),
            (Mark::Hold, "holds"),
            (Mark::Advance, "advances"),
        ];
        let mut x = right;
        for (mark, words) in kinds {
            if self.flags.iter().any(|flag| flag.mark == Some(mark)) {
                canvas::text(area, dot(x, y), SMALL, Align::Right, BLACK, words)?;
                x -= canvas::text_width(words, SMALL) + 9.0;
                marker(area, dot(x, y), Some(mark))?;
                x -= 18.0;
            }
        }
        Ok(())
    }
}

/// Takes the words from flags without a row. Those that are near each other become one flag
/// with their number.
fn crowded(flags: Vec<Flag>) -> Vec<Flag> {
    let mut kept: Vec<Flag> = Vec::new();
    for flag in flags {
        let near = |k: &&mut Flag| k.lane.is_none() && flag.x - k.x < CROWD;
        match kept
            .iter_mut()
            .rev()
            .find(|k| k.lane.is_none())
            .filter(near)
        {
            Some(first) if flag.lane.is_none() => {
                first.count += flag.count;
                first.mark = first.mark.filter(|mark| Some(*mark) == flag.mark);
            }
            _ => kept.push(flag),
        }
    }
    for flag in kept.iter_mut().filter(|flag| flag.lane.is_none()) {
        flag.text = match flag.count {
            1 => String::new(),
            count => format!("×{count}"),
        };
    }
    kept
}

/// The uppermost row in which neither words nor lines cross, right of the line or left of it.
fn room(placed: &[Flag], flag: &Flag, right: f64) -> Option<(usize, [f64; 2])> {
    let width = canvas::text_width(&flag.text, SMALL);
    let after = [flag.x + OFF, flag.x + OFF + width];
    let before = [flag.x - OFF - width, flag.x - OFF];
    let sides = if after[1] <= right + 16.0 {
        [after, before]
    } else {
        [before, before]
    };
    let fits = |lane: usize, words: [f64; 2]| {
        let own = [words[0].min(flag.x - OFF), words[1].max(flag.x + OFF)];
        words[0] > 0.0
            && placed
                .iter()
                .filter_map(|p| Some((p.x, p.lane?)))
                .all(|(x, (other, theirs))| {
                    let all = [theirs[0].min(x - OFF), theirs[1].max(x + OFF)];
                    match other.cmp(&lane) {
                        std::cmp::Ordering::Equal => own[1] < all[0] || all[1] < own[0],
                        // One of the two lines would go through the words of the other.
                        std::cmp::Ordering::Less => x < own[0] || own[1] < x,
                        std::cmp::Ordering::Greater => flag.x < all[0] || all[1] < flag.x,
                    }
                })
    };
    let lanes = (0..LANES).flat_map(|lane| sides.map(|words| (lane, words)));
    lanes.into_iter().find(|(lane, words)| fits(*lane, *words))
}

/// A small shape. It is drawn and not written, because a font may not have such a sign.
fn marker(area: &Area<'_>, (x, y): Dot, mark: Option<Mark>) -> Result<(), Error> {
    let around = |dx: f64, dy: f64| (x + units(dx), y + units(dy));
    let thick = |colour| Stroke {
        colour,
        width: 2.4,
        dashed: false,
    };
    // A white ground hides the line behind the shape.
    canvas::disc(area, (x, y), 7.0, plotters::style::WHITE)?;
    let Some(mark) = mark else {
        return canvas::disc(area, (x, y), 3.5, BLACK);
    };
    match mark {
        Mark::Advance => {
            let up = [around(0.0, -5.5), around(5.5, 4.5), around(-5.5, 4.5)];
            canvas::fill(area, &up, GREEN, 1.0)
        }
        Mark::Hold => [-4.0, 1.0].into_iter().try_for_each(|dx| {
            let corners = [around(dx, -5.0), around(dx + 3.0, 5.0)];
            canvas::block(area, corners, ORANGE, 1.0)
        }),
        Mark::Retreat => {
            let down = [around(0.0, 5.5), around(5.5, -4.5), around(-5.5, -4.5)];
            canvas::fill(area, &down, ORANGE, 1.0)
        }
        Mark::Rollback => [-4.5, 4.5].into_iter().try_for_each(|dy| {
            let ends = [around(-4.5, dy), around(4.5, -dy)];
            canvas::line(area, &ends, thick(VERMILLION))
        }),
        Mark::Promote => {
            let hook = [around(-5.0, 0.0), around(-1.5, 4.0), around(5.0, -4.5)];
            canvas::line(area, &hook, thick(BLUE))
        }
        Mark::Person => {
            let shoulders = [
                around(-5.5, 6.0),
                around(-3.5, 1.0),
                around(3.5, 1.0),
                around(5.5, 6.0),
            ];
            canvas::fill(area, &shoulders, PURPLE, 1.0)?;
            canvas::disc(area, around(0.0, -2.5), 3.0, PURPLE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mark::{Advance, Hold, Rollback};

    fn place(decisions: &[(f64, Mark)]) -> Vec<Flag> {
        let decision = |(at_min, mark): &(f64, Mark)| Decision {
            at_min: *at_min,
            mark: *mark,
            text: "some words".to_owned(),
        };
        let all: Vec<Decision> = decisions.iter().map(decision).collect();
        Flags::place(&all, 100.0, [0.0, 1000.0]).flags
    }

    fn lanes(flags: &[Flag]) -> Vec<Option<usize>> {
        flags.iter().map(|f| f.lane.map(|l| l.0)).collect()
    }

    #[test]
    fn near_decisions_are_staggered() {
        let flags = place(&[(10.0, Advance), (12.0, Hold), (14.0, Advance), (50.0, Hold)]);
        assert_eq!(lanes(&flags), [Some(0), Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn the_same_again_is_one_flag() {
        let flags = place(&[(10.0, Hold), (10.1, Hold), (10.2, Hold)]);
        assert_eq!(flags.len(), 1);
        assert_eq!(flags[0].text, "some words (+2)");
    }

    #[test]
    fn words_at_the_end_are_left_of_their_line() {
        let flags = place(&[(100.0, Rollback)]);
        assert!(
            flags[0]
                .lane
                .is_some_and(|(_, words)| words[1] < flags[0].x)
        );
    }

    #[test]
    fn without_room_the_end_keeps_its_words() {
        let mut crowd: Vec<(f64, Mark)> = (0..60u8)
            .map(|i| {
                (
                    40.0 + f64::from(i) / 4.0,
                    [Advance, Hold][usize::from(i % 2)],
                )
            })
            .collect();
        crowd.push((47.0, Rollback));
        let flags = place(&crowd);
        let end = flags.iter().find(|f| f.mark == Some(Rollback));
        assert_eq!(end.and_then(|f| f.lane).map(|l| l.0), Some(0));
        assert_eq!(flags.iter().map(|f| f.count).sum::<usize>(), crowd.len());
        for (i, a) in flags.iter().enumerate() {
            for b in &flags[i + 1..] {
                match (a.lane, b.lane) {
                    (Some((la, wa)), Some((lb, wb))) if la == lb => {
                        assert!(wa[1] < wb[0] || wb[1] < wa[0], "{a:?} {b:?}");
                    }
                    (None, None) => assert!(b.x - a.x >= CROWD, "{a:?} {b:?}"),
                    _ => {}
                }
            }
        }
    }
}

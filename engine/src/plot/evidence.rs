//! The evidence that the gate has found, as odds on a logarithmic axis.

use super::Error;
use super::canvas::{self, Align, Area, Axis, BLACK, Dot, Panel, SMALL, Stroke, units};
use super::data::{Look, Rollout};

/// Decades of evidence that are shown.
const EVIDENCE: [f64; 2] = [-3.0, 4.0];

/// Evidence as odds: `100:1` that the candidate is worse, or `1:100` if it is likely not.
fn odds(log10: f64) -> String {
    let number = |log10: f64| match 10f64.powf(log10) {
        n if n >= 1e6 => format!("{n:.0e}"),
        n if (n - n.round()).abs() < 0.05 => format!("{n:.0}"),
        n => format!("{n:.1}"),
    };
    if log10 >= 0.0 {
        format!("{}:1", number(log10))
    } else {
        format!("1:{}", number(-log10))
    }
}

/// Evidence in decades (powers of ten), from its natural logarithm.
fn decades(log: f64) -> f64 {
    log / std::f64::consts::LN_10
}

/// The axis of decades, with evidence for the candidate at the bottom. The label at an end
/// has `≤` or `≥` if looks lie beyond it.
pub fn axis(looks: &[Look]) -> Axis {
    let [low, high] = EVIDENCE;
    let label = |decade: f64| {
        let beyond = |l: &Look| {
            let at = decades(l.log_evidence);
            (decade == low && at < low) || (decade == high && at > high)
        };
        let sign = match looks.iter().any(beyond) {
            true if decade == low => "≤ ",
            true => "≥ ",
            false => "",
        };
        format!("{sign}{}", odds(decade))
    };
    let all = (low as i32..=high as i32).map(f64::from);
    Axis {
        range: low..high,
        ticks: all.map(|decade| (decade, label(decade))).collect(),
    }
}

/// The looks of the gate, and the evidence at which it rolls back.
pub fn draw(area: &Area<'_>, panel: &Panel, picture: &Rollout) -> Result<(), Error> {
    panel.title(area, 13.0, "evidence that the candidate is worse (odds)")?;
    let usable = |l: &&Look| l.at_min.is_finite() && !l.log_evidence.is_nan();
    let dots: Vec<Dot> = (picture.looks.iter().filter(usable))
        .map(|l| panel.at(l.at_min, decades(l.log_evidence)))
        .collect();
    if dots.is_empty() {
        panel.no_data(area)?;
    }
    if picture.limit.is_finite() {
        let limit = decades(picture.limit);
        let end = picture.minutes();
        let ends = [panel.at(0.0, limit), panel.at(end, limit)];
        let stroke = Stroke {
            colour: BLACK,
            width: 1.4,
            dashed: true,
        };
        canvas::line(area, &ends, stroke)?;
        let words = format!("rolls back at {}", odds(limit));
        // Above the line, unless that is above the panel.
        let off = if limit > EVIDENCE[1] - 0.7 { 9.0 } else { -9.0 };
        let at = (ends[0].0 + units(8.0), ends[0].1 + units(off));
        canvas::text(area, at, SMALL, Align::Left, BLACK, &words)?;
    }
    let stroke = Stroke {
        colour: BLACK,
        width: 1.8,
        dashed: false,
    };
    canvas::line(area, &dots, stroke)?;
    canvas::sparse(&dots).try_for_each(|at| canvas::disc(area, at, 3.0, BLACK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_reads_as_odds() {
        let read: Vec<String> = [-2.0, 0.0, 1.0, 1.301, 9.0].map(odds).into();
        assert_eq!(read, ["1:100", "1:1", "10:1", "20:1", "1e9:1"]);
        let label = |log_evidence| {
            let look = Look {
                at_min: 1.0,
                log_evidence,
            };
            let ticks = axis(&[look]).ticks;
            [ticks[0].1.clone(), ticks[7].1.clone()]
        };
        assert_eq!(label(0.0), ["1:1000", "10000:1"]);
        assert_eq!(label(-9.0), ["≤ 1:1000", "10000:1"]);
        assert_eq!(label(f64::INFINITY), ["1:1000", "≥ 10000:1"]);
    }
}

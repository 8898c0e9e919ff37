//! How suspicious the candidate was, from 0 to 100, where the gate takes traffic back.

use super::Error;
use super::canvas::{self, Align, Area, Axis, BLACK, Dot, Panel, SMALL, Stroke, units};
use super::data::{Look, Rollout};
use crate::model;

/// The top of the axis, a little above the limit.
const TOP: f64 = 108.0;

/// The axis from 0 to the limit.
pub fn axis() -> Axis {
    let ticks = [0.0, 25.0, 50.0, 75.0, 100.0];
    Axis {
        range: 0.0..TOP,
        ticks: ticks.map(|at| (at, format!("{at:.0}"))).to_vec(),
    }
}

/// Where a look is on that axis; `None` if it cannot be drawn.
fn place(look: &Look, limit: f64) -> Option<(f64, f64)> {
    let suspicion = model::suspicion(look.log_evidence, limit);
    (look.at_min.is_finite() && !suspicion.is_nan()).then_some((look.at_min, suspicion))
}

/// The looks of the gate, and where it rolls back.
pub fn draw(area: &Area<'_>, panel: &Panel, picture: &Rollout) -> Result<(), Error> {
    panel.title(area, 13.0, "suspicion that the candidate is worse (0-100)")?;
    let places = picture.looks.iter().filter_map(|l| place(l, picture.limit));
    let dots: Vec<Dot> = places
        .map(|(at, suspicion)| panel.at(at, suspicion))
        .collect();
    if dots.is_empty() {
        panel.no_data(area)?;
    }
    let ends = [panel.at(0.0, 100.0), panel.at(picture.minutes(), 100.0)];
    let dashed = Stroke {
        colour: BLACK,
        width: 1.4,
        dashed: true,
    };
    canvas::line(area, &ends, dashed)?;
    let at = (ends[0].0 + units(8.0), ends[0].1 + units(9.0));
    canvas::text(area, at, SMALL, Align::Left, BLACK, "rolls back at 100")?;
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
    fn suspicion_ends_at_its_limit() {
        let limit = 100.0_f64.ln();
        let at = |odds: f64| {
            let look = Look {
                at_min: 1.0,
                log_evidence: odds.ln(),
            };
            place(&look, limit).map(|(_, suspicion)| suspicion.round())
        };
        assert_eq!(at(0.01), Some(0.0));
        assert_eq!(at(12.0), Some(12.0));
        assert_eq!(at(1_358.0), Some(100.0));
        assert_eq!(at(f64::INFINITY), Some(100.0));
        assert_eq!(at(f64::NAN), None);
    }
}

//! Many replicates of scenarios: how many requests were bad, and how soon the candidate was
//! rolled back.

use super::canvas::{
    self, Align, Area, Axis, BLACK, BLUE, Dot, Frame, GREY, LARGE, Panel, SMALL, Stroke,
    VERMILLION, WIDTH, dot, thin, units,
};
use super::{Error, Format, encode};
use plotters::style::RGBColor;

/// The results of one scenario's replicates. Values that are not numbers are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Replicates {
    /// The scenario.
    pub name: String,
    /// For each replicate, the requests that the candidate failed or made slow.
    pub bad_requests: Vec<f64>,
    /// For each replicate that was rolled back, the minutes until then.
    pub minutes_to_rollback: Vec<f64>,
    /// Number of replicates.
    pub replicates: u32,
}

/// Height of a scenario's row, pixels.
const ROW: f64 = 26.0;
/// Left and right edge of the panel of bad requests, pixels.
const EXPOSURE: [f64; 2] = [214.0, 548.0];
/// Left and right edge of the panel of minutes, pixels.
const MINUTES: [f64; 2] = [578.0, 866.0];
/// Height above the rows, pixels.
const TOP: f64 = 92.0;
/// Up to this many values are drawn one by one, because quartiles of few values say little.
const FEW: usize = 12;

/// Draws the distributions of many scenarios, a row each.
pub fn distributions(
    title: &str,
    scenarios: &[Replicates],
    format: Format,
) -> Result<Vec<u8>, Error> {
    let rows = scenarios.len().max(1) as f64;
    let bottom = TOP + rows * ROW;
    let (svg, size) = canvas::draw(bottom + 62.0, |area| {
        let title = canvas::clean(title, 90);
        canvas::text(area, dot(16.0, 24.0), LARGE, Align::Left, BLACK, &title)?;
        let bad: Vec<f64> = scenarios
            .iter()
            .flat_map(|s| &s.bad_requests)
            .copied()
            .collect();
        let late = scenarios.iter().flat_map(|s| &s.minutes_to_rollback);
        let late: Vec<f64> = late.copied().collect();
        stripes(area, scenarios.len())?;
        let exposure = panel(area, EXPOSURE, rows, symlog_axis(most(&bad)).padded())?;
        let minutes = panel(
            area,
            MINUTES,
            rows,
            Axis::linear(most(&late) * 1.05, 6).padded(),
        )?;
        exposure.title(area, 32.0, "bad requests n (log scale of 1 + n)")?;
        minutes.title(area, 32.0, "minutes to the rollback")?;
        let at = dot(WIDTH - 16.0, TOP - 32.0);
        canvas::text(area, at, canvas::NORMAL, Align::Right, BLACK, "rolled back")?;
        if scenarios.is_empty() {
            exposure.no_data(area)?;
            minutes.no_data(area)?;
        }
        for (i, scenario) in scenarios.iter().enumerate() {
            row(area, &exposure, &minutes, scenario, i)?;
        }
        key(area, bottom + 42.0)
    })?;
    encode(svg, size, format)
}

fn panel(area: &Area<'_>, [left, right]: [f64; 2], rows: f64, x: Axis) -> Result<Panel, Error> {
    let y = Axis {
        range: -rows..0.0,
        ticks: Vec::new(),
    };
    let frame = Frame {
        left,
        right,
        top: TOP,
        bottom: TOP + rows * ROW,
        x,
        y,
    };
    let panel = Panel::new(area, frame)?;
    panel.label_x(area, true)?;
    panel.label_x(area, false)?;
    Ok(panel)
}

/// The largest number, at least 1.
fn most(values: &[f64]) -> f64 {
    let finite = values.iter().copied().filter(|v| v.is_finite());
    finite.fold(1.0, f64::max)
}

/// Shades every second row, so that rows are easy to follow.
fn stripes(area: &Area<'_>, rows: usize) -> Result<(), Error> {
    for i in (1..rows).step_by(2) {
        let top = TOP + i as f64 * ROW;
        let corners = [dot(12.0, top), dot(WIDTH - 12.0, top + ROW)];
        canvas::block(area, corners, GREY, 0.08)?;
    }
    Ok(())
}

/// Where a count is on the axis, which is logarithmic in 1 + n, so that 0 has a place.
fn symlog(count: f64) -> f64 {
    (1.0 + count.max(0.0)).log10()
}

fn symlog_axis(most: f64) -> Axis {
    let top = (symlog(most) * 1.04).clamp(1.1, 300.0);
    let every = (top / 5.0).ceil();
    let mut ticks = vec![(0.0, "0".to_owned())];
    for i in 0..=(top / every) as u32 {
        let count = 10f64.powf(f64::from(i) * every);
        let label = if count < 1e6 {
            format!("{count:.0}")
        } else {
            format!("{count:.0e}")
        };
        ticks.push((symlog(count), label));
    }
    ticks.retain(|(at, _)| *at <= top);
    Axis {
        range: 0.0..top,
        ticks,
    }
}

fn row(
    area: &Area<'_>,
    exposure: &Panel,
    minutes: &Panel,
    scenario: &Replicates,
    index: usize,
) -> Result<(), Error> {
    let middle = -(index as f64) - 0.5;
    let y = TOP - middle * ROW;
    let name = canvas::clean(&scenario.name, 26);
    let at = dot(EXPOSURE[0] - 12.0, y);
    canvas::text(area, at, SMALL, Align::Right, BLACK, &name)?;

    let bad: Vec<f64> = scenario.bad_requests.iter().map(|v| symlog(*v)).collect();
    let place = |panel: &Panel, values: &[f64]| {
        let finite = values.iter().filter(|v| v.is_finite());
        let mut dots: Vec<Dot> = finite.map(|v| panel.at(*v, middle)).collect();
        dots.sort_unstable();
        dots
    };
    spread(area, &place(exposure, &bad), VERMILLION)?;
    let late = place(minutes, &scenario.minutes_to_rollback);
    spread(area, &late, BLUE)?;
    if scenario.replicates > 0 {
        let (of, all) = (scenario.minutes_to_rollback.len(), scenario.replicates);
        let words = format!("{} % of {all}", percent(of, all));
        let at = dot(WIDTH - 16.0, y);
        canvas::text(area, at, SMALL, Align::Right, BLACK, &words)?;
    }
    Ok(())
}

/// A part in whole percent; 0 and 100 are shown only for none and for all.
fn percent(part: usize, all: u32) -> u32 {
    let exact = 100.0 * part as f64 / f64::from(all.max(1));
    match part {
        0 => 0,
        _ if part >= all as usize => 100,
        _ => exact.round().clamp(1.0, 99.0) as u32,
    }
}

/// The value below which a part of the sorted values lies.
fn quantile(sorted: &[Dot], part: f64) -> Option<Dot> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * part).round() as usize).copied()
}

/// A line from 5 to 95 %, a box of the quartiles and a bar at the median; single values if few.
fn spread(area: &Area<'_>, sorted: &[Dot], colour: RGBColor) -> Result<(), Error> {
    if sorted.len() <= FEW {
        let mut dots = sorted.iter();
        return dots.try_for_each(|at| canvas::ring(area, *at, 4.0, colour));
    }
    let at = |part| quantile(sorted, part).unwrap_or_default();
    let (low, high, half) = (at(0.05), at(0.95), units(7.0));
    canvas::line(area, &[low, high], thin(colour))?;
    for (x, y) in [low, high] {
        let cap = units(3.5);
        canvas::line(area, &[(x, y - cap), (x, y + cap)], thin(colour))?;
    }
    let (left, right) = (at(0.25), at(0.75));
    let corners = [(left.0, left.1 - half), (right.0, right.1 + half)];
    canvas::block(area, corners, plotters::style::WHITE, 1.0)?;
    canvas::block(area, corners, colour, 0.35)?;
    let [(x0, y0), (x1, y1)] = corners;
    let edge = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)];
    canvas::line(area, &edge, thin(colour))?;
    let (x, y) = at(0.5);
    let bar = Stroke {
        colour: BLACK,
        width: 2.6,
        dashed: false,
    };
    canvas::line(area, &[(x, y - half), (x, y + half)], bar)
}

/// Explains how to read a row.
fn key(area: &Area<'_>, y: f64) -> Result<(), Error> {
    let sample: Vec<Dot> = (0..=20)
        .map(|i| dot(EXPOSURE[0] + 4.0 * f64::from(i), y))
        .collect();
    spread(area, &sample, GREY)?;
    let words = format!(
        "bar: median; box: half of the replicates; line: 5 to 95 %; rings: each of {FEW} or fewer"
    );
    let at = dot(EXPOSURE[0] + 96.0, y);
    canvas::text(area, at, SMALL, Align::Left, BLACK, &words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(name: &str, bad: Vec<f64>, minutes: Vec<f64>) -> Replicates {
        Replicates {
            name: name.to_owned(),
            bad_requests: bad,
            minutes_to_rollback: minutes,
            replicates: 40,
        }
    }

    fn many(count: u32) -> Vec<Replicates> {
        let values = |i: u32| (0..40).map(|k| f64::from(k * i)).collect::<Vec<_>>();
        let one = |i| scenario(&format!("scenario {i}"), values(i), values(1));
        (0..count).map(one).collect()
    }

    #[test]
    fn the_same_data_give_the_same_bytes() {
        for format in [Format::Svg, Format::Png] {
            let once = distributions("all", &many(30), format).expect("drawn");
            assert_eq!(
                once,
                distributions("all", &many(30), format).expect("drawn")
            );
        }
    }

    #[test]
    fn rows_have_names_and_shares_and_are_escaped() {
        let mut all = many(2);
        all[1].name = "5 < 6 & 7".to_owned();
        all[1].minutes_to_rollback.truncate(35);
        let svg = distributions("<all>", &all, Format::Svg).expect("drawn");
        let svg = String::from_utf8(svg).expect("text");
        for words in [
            "&lt;all&gt;",
            "scenario 0",
            "5 &lt; 6 &amp; 7",
            "88 % of 40",
        ] {
            assert!(svg.contains(words), "{words}");
        }
    }

    #[test]
    fn empty_and_odd_data_are_no_panic() {
        distributions("", &[], Format::Png).expect("drawn");
        let odd = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300];
        let mut all = vec![
            scenario("odd", odd.clone(), odd.repeat(9)),
            scenario("none", vec![], vec![]),
        ];
        all[1].replicates = 0;
        distributions("odd", &all, Format::Png).expect("drawn");
    }

    #[test]
    fn the_height_is_limited_for_pixels_only() {
        let all = many(3_000);
        distributions("all", &all, Format::Svg).expect("drawn");
        let error = distributions("all", &all, Format::Png).expect_err("too large");
        assert!(matches!(error, Error::TooLarge { width: 1000, .. }));
    }

    #[test]
    fn shares_are_whole_only_if_they_are() {
        let shares = [(0, 400), (1, 400), (348, 400), (399, 400), (400, 400)];
        assert_eq!(shares.map(|(n, of)| percent(n, of)), [0, 1, 87, 99, 100]);
    }
}

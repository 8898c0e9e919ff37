//! Draws what both kinds of pictures consist of: colours, text, lines, axes and panels.

use std::ops::Range;

use plotters::coord::types::RangedCoordf64;
use plotters::coord::{CoordTranslate, Shift};
use plotters::element::DashedPathElement;
use plotters::prelude::{
    Cartesian2d, Circle, Color, DrawingArea, IntoDrawingArea, IntoFont, PathElement, Polygon,
    RGBColor, Rectangle, SVGBackend, Text, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Error;
use super::data::Unit;

/// Width of every picture, pixels.
pub const WIDTH: f64 = 1000.0;
/// The SVG's own units per pixel: the library draws on whole units only.
const UNITS: f64 = 4.0;
/// The library divides the size of a font by this for the SVG.
const FONT_FACTOR: f64 = 1.24;
/// Least distance of two markers on a line, pixels.
const MARKER_EVERY: f64 = 16.0;
/// Font size of axes and legends, pixels.
pub const SMALL: f64 = 12.0;
/// Font size of panels' titles, pixels.
pub const NORMAL: f64 = 13.5;
/// Font size of the picture's title, pixels.
pub const LARGE: f64 = 18.0;

// Colours that people with any colour vision tell apart:
// M. Okabe and K. Ito, "Color Universal Design", jfly.uni-koeln.de/color, 2008.
/// Text, and whatever does not belong to one arm.
pub const BLACK: RGBColor = RGBColor(0, 0, 0);
/// The stable arm, and good ends.
pub const BLUE: RGBColor = RGBColor(0, 114, 178);
/// The candidate, and bad ends.
pub const VERMILLION: RGBColor = RGBColor(213, 94, 0);
/// Steps forward.
pub const GREEN: RGBColor = RGBColor(0, 158, 115);
/// Waits.
pub const ORANGE: RGBColor = RGBColor(230, 159, 0);
/// Commands of people.
pub const PURPLE: RGBColor = RGBColor(204, 121, 167);
/// Frames, and text where data are missing.
pub const GREY: RGBColor = RGBColor(110, 110, 110);
/// Lines that guide the eye through all panels.
pub const SILVER: RGBColor = RGBColor(160, 160, 160);
/// Grids.
const LIGHT: RGBColor = RGBColor(222, 222, 222);

/// A point of the picture in the SVG's units.
pub type Dot = (i32, i32);
/// The whole picture.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// How a line looks.
#[derive(Debug, Clone, Copy)]
pub struct Stroke {
    /// Its colour.
    pub colour: RGBColor,
    /// Its width, pixels.
    pub width: f64,
    /// Whether it is drawn in dashes.
    pub dashed: bool,
}

/// Pixels as the SVG's units.
pub fn units(pixels: f64) -> i32 {
    (pixels * UNITS).round() as i32
}

/// A point given in pixels.
pub fn dot(x: f64, y: f64) -> Dot {
    (units(x), units(y))
}

/// Draws a picture of this height as SVG.
pub fn draw(
    height: f64,
    paint: impl FnOnce(&Area<'_>) -> Result<(), Error>,
) -> Result<(String, (u32, u32)), Error> {
    let size = (WIDTH.ceil() as u32, height.ceil() as u32);
    let drawn = (size.0 * UNITS as u32, size.1 * UNITS as u32);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, drawn).into_drawing_area();
        area.fill(&WHITE)?;
        paint(&area)?;
        area.present()?;
    }
    // The picture keeps its size in pixels, and its coordinates get finer units.
    let fine = format!("width=\"{}\" height=\"{}\"", drawn.0, drawn.1);
    let real = format!("width=\"{}\" height=\"{}\"", size.0, size.1);
    Ok((svg.replacen(&fine, &real, 1), size))
}

/// Where a text stands relative to its point; always centred vertically.
pub type Align = HPos;

/// One line of text.
pub fn text(
    area: &Area<'_>,
    at: Dot,
    size: f64,
    align: Align,
    colour: RGBColor,
    words: &str,
) -> Result<(), Error> {
    let font = ("sans-serif", size * UNITS * FONT_FACTOR).into_font();
    let style = font.color(&colour).pos(Pos::new(align, VPos::Center));
    area.draw(&Text::new(words.to_owned(), at, style))?;
    Ok(())
}

/// About the width of a text in a wide font (each machine has its own), pixels.
pub fn text_width(words: &str, size: f64) -> f64 {
    let part = |letter: char| match letter {
        ' ' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | 'i' | 'j' | 'l' => 0.33,
        'f' | 'r' | 't' | '(' | ')' | '[' | ']' | '-' | '/' | 'I' => 0.41,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.95,
        'A'..='Z' | '0'..='9' => 0.66,
        // Scripts with full-width letters.
        '\u{1100}'.. => 1.0,
        _ => 0.61,
    };
    words.chars().map(part).sum::<f64>() * size
}

/// A text from outside as one line of characters that XML allows, cut to a number of
/// letters.
pub fn clean(words: &str, letters: usize) -> String {
    let plain = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let all = words.chars().map(|c| if plain(c) { c } else { ' ' });
    let mut kept: String = all.clone().take(letters).collect();
    if all.count() > letters {
        kept.pop();
        kept.push('…');
    }
    kept
}

/// A line through these points.
pub fn line(area: &Area<'_>, points: &[Dot], stroke: Stroke) -> Result<(), Error> {
    let style = stroke.colour.stroke_width(units(stroke.width) as u32);
    if stroke.dashed {
        let (dash, gap) = (units(6.0), units(4.0));
        let points = points.iter().copied();
        area.draw(&DashedPathElement::new(points, dash, gap, style))?;
    } else {
        area.draw(&PathElement::new(points.to_vec(), style))?;
    }
    Ok(())
}

/// A thin line.
pub fn thin(colour: RGBColor) -> Stroke {
    Stroke {
        colour,
        width: 1.0,
        dashed: false,
    }
}

/// A filled shape, `opacity` from 0 to 1.
pub fn fill(area: &Area<'_>, points: &[Dot], colour: RGBColor, opacity: f64) -> Result<(), Error> {
    area.draw(&Polygon::new(points.to_vec(), colour.mix(opacity)))?;
    Ok(())
}

/// A filled rectangle.
pub fn block(
    area: &Area<'_>,
    corners: [Dot; 2],
    colour: RGBColor,
    opacity: f64,
) -> Result<(), Error> {
    area.draw(&Rectangle::new(corners, colour.mix(opacity).filled()))?;
    Ok(())
}

/// The points of a line that get markers: those that are far enough apart.
pub fn sparse(points: &[Dot]) -> impl Iterator<Item = Dot> {
    let mut next = i32::MIN;
    points.iter().copied().filter(move |at| {
        let far = at.0 >= next;
        if far {
            next = at.0.saturating_add(units(MARKER_EVERY));
        }
        far
    })
}

/// A filled circle.
pub fn disc(area: &Area<'_>, at: Dot, radius: f64, colour: RGBColor) -> Result<(), Error> {
    area.draw(&Circle::new(at, units(radius), colour.filled()))?;
    Ok(())
}

/// A circle that is not filled, so that it does not hide what is below.
pub fn ring(area: &Area<'_>, at: Dot, radius: f64, colour: RGBColor) -> Result<(), Error> {
    let style = colour.stroke_width(units(1.3) as u32);
    area.draw(&Circle::new(at, units(radius), style))?;
    Ok(())
}

/// An axis: which values it spans, and where it has labels.
#[derive(Debug, Clone)]
pub struct Axis {
    /// The values at its two ends.
    pub range: Range<f64>,
    /// Values with a grid line, and their labels.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero to `top`, with about `count` round numbers.
    pub fn linear(top: f64, count: usize) -> Self {
        let top = if top.is_finite() && top > 0.0 {
            top
        } else {
            1.0
        };
        let step = round_step(top / count.max(1) as f64);
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        let label = |value: f64| match value {
            v if v >= 1e6 => format!("{v:.0e}"),
            v => format!("{v:.decimals$}"),
        };
        let ticks = (0..=(top / step * (1.0 + 1e-9)) as u32)
            .map(|i| f64::from(i) * step)
            .map(|value| (value, label(value)))
            .collect();
        Self {
            range: 0.0..top,
            ticks,
        }
    }

    /// An axis from 0 to so many minutes, with its marks in another unit.
    pub fn of_minutes(minutes: f64, unit: Unit, count: usize) -> Self {
        let mut axis = Self::linear(minutes * unit.per_minute, count);
        axis.range.end /= unit.per_minute;
        for (value, _) in &mut axis.ticks {
            *value /= unit.per_minute;
        }
        axis
    }

    /// With some room before its first value.
    pub fn padded(mut self) -> Self {
        self.range.start -= 0.025 * (self.range.end - self.range.start);
        self
    }

    /// The nearest value that is on the axis.
    pub fn clamp(&self, value: f64) -> f64 {
        let Range { start, end } = self.range;
        value.clamp(start.min(end), start.max(end))
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let factors = [1.0, 2.0, 5.0];
    let fits = factors.iter().find(|f| *f * power >= least * (1.0 - 1e-9));
    fits.unwrap_or(&10.0) * power
}

/// Where a panel is and what its axes are.
#[derive(Debug)]
pub struct Frame {
    /// Left edge of the plotted part, pixels.
    pub left: f64,
    /// Right edge of the plotted part, pixels.
    pub right: f64,
    /// Upper edge of the plotted part, pixels.
    pub top: f64,
    /// Lower edge of the plotted part, pixels.
    pub bottom: f64,
    /// The axis from left to right.
    pub x: Axis,
    /// The axis from bottom to top.
    pub y: Axis,
}

/// A panel with a drawn grid.
pub struct Panel {
    frame: Frame,
    places: Cartesian2d<RangedCoordf64, RangedCoordf64>,
}

impl Panel {
    /// Draws the grid, the frame and the labels of the axis from bottom to top.
    pub fn new(area: &Area<'_>, frame: Frame) -> Result<Self, Error> {
        let (left, top) = dot(frame.left, frame.top);
        let (right, bottom) = dot(frame.right, frame.bottom);
        let (x, y) = (frame.x.range.clone(), frame.y.range.clone());
        let places = Cartesian2d::new(x, y, (left..right, bottom..top));
        let panel = Self { frame, places };
        let Frame { x, y, .. } = &panel.frame;
        for (value, _) in &x.ticks {
            let column = [y.range.start, y.range.end].map(|end| panel.at(*value, end));
            line(area, &column, thin(LIGHT))?;
        }
        for (value, label) in &y.ticks {
            let row = [x.range.start, x.range.end].map(|end| panel.at(end, *value));
            line(area, &row, thin(LIGHT))?;
            let at = (row[0].0 - units(7.0), row[0].1);
            text(area, at, SMALL, Align::Right, BLACK, label)?;
        }
        let corners = [
            (left, top),
            (right, top),
            (right, bottom),
            (left, bottom),
            (left, top),
        ];
        line(area, &corners, thin(GREY))?;
        Ok(panel)
    }

    /// Writes the labels of the axis from left to right below the panel, or above it.
    pub fn label_x(&self, area: &Area<'_>, below: bool) -> Result<(), Error> {
        let (edge, off) = if below {
            (self.frame.y.range.start, 12.0)
        } else {
            (self.frame.y.range.end, -11.0)
        };
        for (value, label) in &self.frame.x.ticks {
            let (x, y) = self.at(*value, edge);
            text(
                area,
                (x, y + units(off)),
                SMALL,
                Align::Center,
                BLACK,
                label,
            )?;
        }
        Ok(())
    }

    /// Writes what the panel shows above its upper left corner, over whatever is there.
    pub fn title(&self, area: &Area<'_>, above: f64, words: &str) -> Result<(), Error> {
        let Frame { left, top, .. } = self.frame;
        let at = dot(left, top - above);
        let end = left + text_width(words, NORMAL);
        let corners = [
            dot(left - 2.0, top - above - 9.0),
            dot(end, top - above + 9.0),
        ];
        block(area, corners, WHITE, 1.0)?;
        text(area, at, NORMAL, Align::Left, BLACK, words)
    }

    /// Writes `no data` into the panel.
    pub fn no_data(&self, area: &Area<'_>) -> Result<(), Error> {
        let Frame { left, right, .. } = self.frame;
        let at = dot(
            f64::midpoint(left, right),
            f64::midpoint(self.frame.top, self.frame.bottom),
        );
        text(area, at, NORMAL, Align::Center, GREY, "no data")
    }

    /// Where a pair of values is drawn: at the edge if the axes do not reach it.
    pub fn at(&self, x: f64, y: f64) -> Dot {
        let (x, y) = (self.frame.x.clamp(x), self.frame.y.clamp(y));
        self.places.translate(&(x, y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|t| t.1.as_str()).collect()
    }

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!(labels(&Axis::linear(100.0, 4)), ["0", "50", "100"]);
        let fine = Axis::linear(0.7, 4);
        assert_eq!(labels(&fine), ["0.0", "0.2", "0.4", "0.6"]);
        assert_eq!(labels(&Axis::linear(f64::NAN, 1)), ["0", "1"]);
        for top in [1e-300, 1e-9, 1.0, 7e8, 1e300, f64::INFINITY] {
            let ticks = Axis::linear(top, 5).ticks.len();
            assert!((2..=7).contains(&ticks), "{top}: {ticks}");
        }
    }

    #[test]
    fn texts_from_outside_are_one_short_line() {
        assert_eq!(clean("a\nb\u{0}c", 10), "a b c");
        assert_eq!(clean("twelve letters", 6), "twelv…");
        assert_eq!(clean("six ok", 6), "six ok");
    }
}

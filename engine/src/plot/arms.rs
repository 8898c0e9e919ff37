//! The health of both arms: error rates with intervals, and latencies.

use super::Error;
use super::canvas::{self, Area, BLUE, Dot, Panel, Stroke, VERMILLION, thin, units};
use super::data::{ArmPoint, Rollout};

/// Quantile of the normal distribution for 95 %.
const Z: f64 = 1.959_963_984_540_054;
/// A line has a gap where two points are more than this many times the usual distance
/// apart.
const GAP: f64 = 1.5;

/// How an arm's line looks.
pub fn stroke(candidate: bool) -> Stroke {
    Stroke {
        colour: if candidate { VERMILLION } else { BLUE },
        width: 1.8,
        dashed: !candidate,
    }
}

/// A square for the candidate, a ring for the stable arm.
pub fn marker(area: &Area<'_>, (x, y): Dot, candidate: bool) -> Result<(), Error> {
    if candidate {
        let r = units(3.2);
        let corners = [(x - r, y - r), (x + r, y + r)];
        canvas::block(area, corners, VERMILLION, 1.0)
    } else {
        canvas::ring(area, (x, y), 3.4, BLUE)
    }
}

/// A measured value with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Estimate {
    low: f64,
    value: f64,
    high: f64,
}

/// The error rate of an interval in percent, with E. B. Wilson's score interval ("Probable
/// inference, the law of succession, and statistical inference", JASA 22, 1927, 209-212). It stays
/// within 0 and 100 and has a width without any error too.
fn wilson(point: &ArmPoint) -> Option<Estimate> {
    if point.requests == 0 {
        return None;
    }
    let n = f64::from(point.requests);
    let p = f64::from(point.errors.min(point.requests)) / n;
    let shrink = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / shrink;
    let half = Z / shrink * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some(Estimate {
        low: 100.0 * (centre - half).clamp(0.0, p),
        value: 100.0 * p,
        high: 100.0 * (centre + half).clamp(p, 1.0),
    })
}

/// The top of the error rates' axis.
pub fn rate_top(picture: &Rollout) -> f64 {
    top(picture, wilson).clamp(0.1, 100.0)
}

/// The 99th percentile, if there is a finite one, with an interval as if the tail were log-normal
/// from the 95th on: the standard error of a sample quantile is `sqrt(q (1 - q) / n) / density`
/// (Cramer 1946, section 28.5), on a logarithmic scale 3.73 sigma / sqrt(n) at 99 %, and sigma is
/// `ln(p99 / p95) / (2.326 - 1.645)`.
fn p99(point: &ArmPoint) -> Option<Estimate> {
    let usable = |ms: &f64| ms.is_finite() && *ms >= 0.0;
    let value = point.p99_ms.filter(usable).filter(|_| point.requests > 0)?;
    let below = point
        .p95_ms
        .filter(usable)
        .filter(|p95| *p95 > 0.0 && *p95 <= value);
    let factor = below.map_or(1.0, |p95| {
        let sigma = (value / p95).ln() / (2.326 - 1.645);
        (Z * 3.73 * sigma / f64::from(point.requests).sqrt()).exp()
    });
    Some(Estimate {
        low: value / factor,
        value,
        high: value * factor,
    })
}

/// The top of the percentiles' axis.
pub fn p99_top(picture: &Rollout) -> f64 {
    let top = top(picture, p99);
    if top > 0.0 { top } else { 1.0 }
}

/// The top of an axis: above every value, and above the intervals unless few requests make
/// them very large.
fn top(picture: &Rollout, estimate: fn(&ArmPoint) -> Option<Estimate>) -> f64 {
    let all = picture.stable.iter().chain(&picture.candidate);
    let estimates: Vec<Estimate> = all.filter_map(estimate).collect();
    let mut highs: Vec<f64> = estimates.iter().map(|e| e.high).collect();
    highs.sort_by(f64::total_cmp);
    let usual = highs.get(highs.len() * 3 / 4).copied().unwrap_or(0.0);
    let most = estimates.iter().map(|e| e.value).fold(0.0, f64::max);
    (most * 1.15).max(usual * 1.25)
}

/// The arm's values in runs without a gap. A point without a value ends a run, and so does a
/// long time without points.
fn runs<T>(points: &[ArmPoint], value: impl Fn(&ArmPoint) -> Option<T>) -> Vec<Vec<(f64, T)>> {
    let mut distances: Vec<f64> = points
        .windows(2)
        .map(|pair| pair[1].at_min - pair[0].at_min)
        .filter(|d| *d > 0.0)
        .collect();
    distances.sort_by(f64::total_cmp);
    let usual = distances.get(distances.len() / 2).copied();
    let most = usual.map_or(f64::INFINITY, |d| d * GAP);
    let mut runs = vec![Vec::new()];
    let mut before = f64::INFINITY;
    for point in points.iter().filter(|p| p.at_min.is_finite()) {
        let value = value(point);
        if (value.is_none() || point.at_min - before > most)
            && runs.last().is_some_and(|run: &Vec<_>| !run.is_empty())
        {
            runs.push(Vec::new());
        }
        before = point.at_min;
        if let (Some(value), Some(run)) = (value, runs.last_mut()) {
            run.push((point.at_min, value));
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// A line through a run, with markers as dense as is readable.
fn run_line(area: &Area<'_>, dots: &[Dot], candidate: bool) -> Result<(), Error> {
    canvas::line(area, dots, stroke(candidate))?;
    canvas::sparse(dots).try_for_each(|at| marker(area, at, candidate))
}

/// The error rates of both arms.
pub fn rates(area: &Area<'_>, panel: &Panel, picture: &Rollout) -> Result<(), Error> {
    both(
        area,
        panel,
        picture,
        "failed requests, %",
        rate_top(picture),
        wilson,
    )
}

/// The 99th percentiles of both arms.
pub fn latencies(area: &Area<'_>, panel: &Panel, picture: &Rollout) -> Result<(), Error> {
    let title = "99th percentile of the latency, ms";
    both(area, panel, picture, title, p99_top(picture), p99)
}

/// One panel: bands first, then lines.
fn both(
    area: &Area<'_>,
    panel: &Panel,
    picture: &Rollout,
    title: &str,
    top: f64,
    estimate: fn(&ArmPoint) -> Option<Estimate>,
) -> Result<(), Error> {
    let mut all = picture.stable.iter().chain(&picture.candidate);
    let cut = all.any(|point| estimate(point).is_some_and(|e| e.high > top));
    let more = if cut { ", cut at the top" } else { "" };
    panel.title(
        area,
        13.0,
        &format!("{title} (shaded: 95 % interval{more})"),
    )?;
    // The stable arm is drawn last, because its dashes and rings do not hide the candidate.
    let arms = [
        (runs(&picture.candidate, estimate), true),
        (runs(&picture.stable, estimate), false),
    ];
    if arms.iter().all(|(runs, _)| runs.is_empty()) {
        return panel.no_data(area);
    }
    for (runs, candidate) in &arms {
        for run in runs {
            band(area, panel, run, *candidate)?;
        }
    }
    for (runs, candidate) in &arms {
        for run in runs {
            let dots: Vec<Dot> = run.iter().map(|(t, e)| panel.at(*t, e.value)).collect();
            run_line(area, &dots, *candidate)?;
        }
    }
    Ok(())
}

/// The interval of each point of a run: a band, or a whisker if the run is one point.
fn band(
    area: &Area<'_>,
    panel: &Panel,
    run: &[(f64, Estimate)],
    candidate: bool,
) -> Result<(), Error> {
    let colour = stroke(candidate).colour;
    let low: Vec<Dot> = run.iter().map(|(t, r)| panel.at(*t, r.low)).collect();
    let high: Vec<Dot> = run.iter().map(|(t, r)| panel.at(*t, r.high)).collect();
    if let ([(x, low)], [(_, high)]) = (low.as_slice(), high.as_slice()) {
        let cap = units(4.0);
        for y in [low, high] {
            canvas::line(area, &[(x - cap, *y), (x + cap, *y)], thin(colour))?;
        }
        return canvas::line(area, &[(*x, *low), (*x, *high)], thin(colour));
    }
    let around: Vec<Dot> = high.into_iter().chain(low.into_iter().rev()).collect();
    canvas::fill(area, &around, colour, 0.18)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at_min: f64, requests: u32, errors: u32) -> ArmPoint {
        ArmPoint {
            at_min,
            requests,
            errors,
            p95_ms: None,
            p99_ms: None,
        }
    }

    #[test]
    fn intervals_are_wilsons() {
        let near = |found: f64, wanted: f64| (found - wanted).abs() < 0.005;
        let none = wilson(&point(1.0, 10, 0)).expect("requests");
        assert!(
            none.low == 0.0 && none.value == 0.0 && near(none.high, 27.75),
            "{none:?}"
        );
        let some = wilson(&point(1.0, 100, 5)).expect("requests");
        assert!(near(some.low, 2.15) && near(some.high, 11.18), "{some:?}");
        let all = wilson(&point(1.0, 10, 99)).expect("requests");
        assert!(near(all.low, 72.25) && all.high == 100.0, "{all:?}");
        assert_eq!(wilson(&point(1.0, 0, 0)), None);
    }

    #[test]
    fn a_percentile_has_an_interval_as_wide_as_its_tail() {
        let slow = |requests, p95_ms| ArmPoint {
            p95_ms,
            p99_ms: Some(150.0),
            ..point(1.0, requests, 0)
        };
        let few = p99(&slow(100, Some(100.0))).expect("a percentile");
        assert!(
            (few.high - 231.8).abs() < 0.5 && (few.low - 97.1).abs() < 0.5,
            "{few:?}"
        );
        let many = p99(&slow(10_000, Some(100.0))).expect("a percentile");
        assert!((many.high - 156.7).abs() < 0.5, "{many:?}");
        let alone = p99(&slow(100, None)).expect("a percentile");
        assert_eq!((alone.low, alone.high), (150.0, 150.0));
        assert_eq!(p99(&slow(0, Some(100.0))), None);
    }

    #[test]
    fn silence_is_a_gap() {
        let mut points: Vec<ArmPoint> = (1..=9u8).map(|t| point(t.into(), 10, 0)).collect();
        points[2].requests = 0;
        points.remove(6);
        let runs = runs(&points, wilson);
        let times: Vec<Vec<f64>> = (runs.iter())
            .map(|run| run.iter().map(|(t, _)| *t).collect())
            .collect();
        assert_eq!(times, [vec![1.0, 2.0], vec![4.0, 5.0, 6.0], vec![8.0, 9.0]]);
    }
}

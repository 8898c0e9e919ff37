//! One rollout: the candidate's share, both arms' health and the suspicion over the same minutes.

use super::canvas::{
    self, Align, Area, Axis, BLACK, Frame, LARGE, NORMAL, Panel, SMALL, VERMILLION, WIDTH, dot,
};
use super::data::{Rollout, Step, Unit};
use super::decisions::Flags;
use super::{Error, Format, arms, encode, suspicion};

/// Left and right edge of the panels, pixels.
const SIDES: [f64; 2] = [76.0, WIDTH - 24.0];
/// Upper edge of the decisions, pixels.
const FLAGS: f64 = 70.0;
/// Space above a panel for its title, pixels.
const HEAD: f64 = 34.0;

/// Draws one rollout.
///
/// The error rates and the 99th percentiles have 95 % intervals. Those of the percentiles are an
/// estimate: an exact one needs all response times, and a point has only their summary.
pub fn rollout(picture: &Rollout, format: Format) -> Result<Vec<u8>, Error> {
    let flags = Flags::place(&picture.decisions, picture.minutes(), SIDES);
    let top = FLAGS + flags.height() + HEAD - 8.0;
    let minutes = picture.minutes();
    let unit = Unit::of(minutes);
    let panels = [80.0, 150.0, 120.0, 170.0];
    let height = top + panels.iter().map(|p| p + HEAD).sum::<f64>() + 26.0;
    let (svg, size) = canvas::draw(height, |area| {
        let title = canvas::clean(&picture.title, 90);
        canvas::text(area, dot(16.0, 24.0), LARGE, Align::Left, BLACK, &title)?;
        legend(area, picture, &flags)?;
        let mut bottom = top - HEAD;
        let mut next = |height: f64, y: Axis| {
            let top = bottom + HEAD;
            bottom = top + height;
            let [left, right] = SIDES;
            let x = Axis::of_minutes(minutes, unit, 10);
            let frame = Frame {
                left,
                right,
                top,
                bottom,
                x,
                y,
            };
            Panel::new(area, frame)
        };
        let all = [
            next(panels[0], Axis::linear(105.0, 4))?,
            next(panels[1], Axis::linear(arms::rate_top(picture), 5))?,
            next(panels[2], Axis::linear(arms::p99_top(picture), 4))?,
            next(panels[3], suspicion::axis())?,
        ];
        // Their lines are drawn first, so that none of them hides a value.
        flags.lines(area, FLAGS + flags.height(), bottom)?;
        flags.draw(area, FLAGS)?;
        shares(area, &all[0], picture)?;
        arms::rates(area, &all[1], picture)?;
        arms::latencies(area, &all[2], picture)?;
        suspicion::draw(area, &all[3], picture)?;
        all[3].label_x(area, true)?;
        let middle = f64::midpoint(SIDES[0], SIDES[1]);
        let at = dot(middle, bottom + 31.0);
        let words = format!("{} since the rollout began", unit.name);
        canvas::text(area, at, SMALL, Align::Center, BLACK, &words)
    })?;
    encode(svg, size, format)
}

/// The legend: the names of the arms, and the kinds of decisions that occur.
fn legend(area: &Area<'_>, picture: &Rollout, flags: &Flags) -> Result<(), Error> {
    let mut x = 16.0;
    for (name, candidate) in picture.names.iter().zip([false, true]) {
        let role = ["stable", "candidate"][usize::from(candidate)];
        let mut words = canvas::clean(name, 24);
        if words != role {
            words = format!("{words} ({role})");
        }
        let ends = [dot(x, 52.0), dot(x + 36.0, 52.0)];
        canvas::line(area, &ends, arms::stroke(candidate))?;
        arms::marker(area, dot(x + 18.0, 52.0), candidate)?;
        let at = dot(x + 42.0, 52.0);
        canvas::text(area, at, NORMAL, Align::Left, BLACK, &words)?;
        x += 42.0 + canvas::text_width(&words, NORMAL) + 16.0;
    }
    flags.legend(area, 52.0, WIDTH - 24.0)
}

/// The candidate's share of the traffic.
fn shares(area: &Area<'_>, panel: &Panel, picture: &Rollout) -> Result<(), Error> {
    panel.title(area, 13.0, "traffic of the candidate, %")?;
    let usable = |s: &&Step| s.at_min.is_finite() && s.share.is_finite();
    let mut steps: Vec<&Step> = picture.steps.iter().filter(usable).collect();
    steps.sort_by(|a, b| a.at_min.total_cmp(&b.at_min));
    let Some(first) = steps.first() else {
        return panel.no_data(area);
    };
    let (mut line, mut share) = (vec![panel.at(first.at_min, first.share)], first.share);
    for step in &steps {
        line.push(panel.at(step.at_min, share));
        line.push(panel.at(step.at_min, step.share));
        share = step.share;
    }
    let end = picture.minutes();
    line.push(panel.at(end, share));
    let mut below = line.clone();
    below.extend([panel.at(end, 0.0), panel.at(first.at_min, 0.0)]);
    canvas::fill(area, &below, VERMILLION, 0.15)?;
    canvas::line(area, &line, arms::stroke(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::data::{ArmPoint, Decision, Look, Mark};

    fn point(at_min: f64, requests: u32, errors: u32) -> ArmPoint {
        ArmPoint {
            at_min,
            requests,
            errors,
            p95_ms: Some(80.0 + at_min),
            p99_ms: Some(100.0 + at_min),
        }
    }

    fn empty() -> Rollout {
        Rollout {
            title: "shop".to_owned(),
            names: ["blue".to_owned(), "green".to_owned()],
            steps: Vec::new(),
            stable: Vec::new(),
            candidate: Vec::new(),
            looks: Vec::new(),
            limit: 100f64.ln(),
            decisions: Vec::new(),
            end_min: 0.0,
        }
    }

    fn full() -> Rollout {
        let points = |errors| (1..=9u8).map(|t| point(t.into(), 500, errors)).collect();
        let look = |t: u8| Look {
            at_min: t.into(),
            log_evidence: f64::from(t) - 4.0,
        };
        Rollout {
            steps: vec![Step {
                at_min: 0.0,
                share: 10.0,
            }],
            stable: points(1),
            candidate: points(9),
            looks: (1..=9).map(look).collect(),
            decisions: vec![Decision {
                at_min: 9.0,
                mark: Mark::Rollback,
                text: "evidence".to_owned(),
            }],
            end_min: 10.0,
            ..empty()
        }
    }

    fn svg(picture: &Rollout) -> String {
        let bytes = rollout(picture, Format::Svg).expect("drawn");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn the_same_data_give_the_same_bytes() {
        for format in [Format::Svg, Format::Png] {
            let once = rollout(&full(), format).expect("drawn");
            assert_eq!(once, rollout(&full(), format).expect("drawn"));
        }
        let png = rollout(&full(), Format::Png).expect("drawn");
        assert!(png.starts_with(b"\x89PNG"));
    }

    #[test]
    fn the_picture_names_the_arms_and_the_limit() {
        let svg = svg(&full());
        for words in ["blue (stable)", "green (candidate)", "rolls back at 100"] {
            assert!(svg.contains(words), "{words}");
        }
        assert!(!svg.contains("no data"));
    }

    #[test]
    fn time_is_in_a_unit_that_suits_it() {
        let over = |minutes: f64| {
            let mut picture = empty();
            picture.end_min = minutes;
            svg(&picture)
        };
        let short = over(0.2);
        assert!(short.contains("seconds since the rollout began"), "{short}");
        assert!(short.contains("\n12\n"), "{short}");
        assert!(over(19.0).contains("minutes since the rollout began"));
        let long = over(24.0 * 60.0);
        assert!(long.contains("hours since the rollout began"));
        assert!(long.contains("\n20\n"), "{long}");
    }

    #[test]
    fn panels_without_data_say_so() {
        assert_eq!(svg(&empty()).matches("no data").count(), 4);
        rollout(&empty(), Format::Png).expect("drawn");
    }

    #[test]
    fn texts_are_escaped() {
        let mut picture = full();
        picture.title = "<b>&\u{1}\"</b>".to_owned();
        picture.names[1] = "</svg>".to_owned();
        picture.decisions[0].text = "a < b".to_owned();
        let svg = svg(&picture);
        assert!(svg.contains("&lt;b&gt;&amp; &quot;&lt;/b&gt;"), "{svg}");
        assert!(svg.contains("a &lt; b"));
        assert_eq!(svg.matches("</svg>").count(), 1);
        rollout(&picture, Format::Png).expect("it can be read back");
    }

    #[test]
    fn odd_values_are_no_panic() {
        let odd = [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -1.0,
            0.0,
            1e-300,
            1e300,
            f64::MAX,
        ];
        for at in odd {
            for value in odd {
                let mut picture = full();
                let sick = ArmPoint {
                    at_min: at,
                    requests: 3,
                    errors: u32::MAX,
                    p95_ms: Some(value),
                    p99_ms: Some(value),
                };
                picture.stable.insert(2, sick.clone());
                picture.candidate.push(sick);
                picture.steps.push(Step {
                    at_min: at,
                    share: value,
                });
                picture.looks.push(Look {
                    at_min: at,
                    log_evidence: value,
                });
                picture.decisions[0].at_min = at;
                picture.limit = value;
                picture.end_min = at;
                svg(&picture);
            }
        }
    }

    #[test]
    fn a_thousand_decisions_can_be_drawn() {
        let mut picture = full();
        picture.decisions = (0..1000u16)
            .map(|i| Decision {
                at_min: f64::from(i) / 100.0,
                mark: [Mark::Advance, Mark::Hold, Mark::Person][usize::from(i % 3)],
                text: format!("decision {i}"),
            })
            .collect();
        rollout(&picture, Format::Png).expect("drawn");
    }
}

//! Says which faults the rollout shows with the traffic that there is, before it begins and
//! when it has ended well: nobody should take "no sign that it is worse" for more than it is.

use analysis::{Gate, Unseen};

use crate::duration::in_words;

/// Differences of the error rates (0-1) of which it is said whether they show.
const FAULTS: [f64; 6] = [0.05, 0.01, 0.005, 0.001, 0.000_5, 0.000_1];
/// The one that is always among them if it shows.
const USUAL: f64 = 0.01;

/// The faults that show, each with the time that it takes (ms), and the largest that does not.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shown {
    shows: Vec<(f64, f64)>,
    hidden: Option<f64>,
}

impl Shown {
    /// Weighs the faults for so many requests per sample; `None` if nothing is known of the
    /// service.
    pub(super) fn of(gate: &Gate, requests: f64, period: f64) -> Option<Self> {
        let known = gate.calibration().intervals > 0 && requests > 0.0;
        if !known || gate.step().is_none_or(|step| step.share >= 1.0) {
            return None;
        }
        let time = |fault: f64| Some((fault, gate.shows(requests, fault)? * period));
        let all: Vec<(f64, f64)> = FAULTS.iter().filter_map(|fault| time(*fault)).collect();
        let smallest = all.last().map(|(fault, _)| *fault);
        let hidden = FAULTS.into_iter().find(|fault| time(*fault).is_none());
        let told = |fault: f64| Some(fault) == smallest || (fault - USUAL).abs() < 1e-9;
        Some(Self {
            shows: all.into_iter().filter(|(fault, _)| told(*fault)).collect(),
            hidden,
        })
    }

    /// What is left to say of a version that has this excess of errors (a difference of
    /// rates): nothing of a fault that it may have.
    pub(super) fn beyond(&self, excess: f64) -> Option<Self> {
        let shows = self.shows.iter().filter(|(fault, _)| *fault > excess);
        let shows: Vec<(f64, f64)> = shows.copied().collect();
        (self.shows.is_empty() || !shows.is_empty()).then_some(Self {
            shows,
            hidden: self.hidden,
        })
    }

    /// `+1 point of errors would show in about 4 min, +0.1 points in about 21 min, +0.05
    /// points not at all`; `would` is `would show`, or `would have shown`.
    pub(super) fn say(&self, would: &str) -> String {
        let first = format!(" of errors {would}");
        let said = |(at, (fault, time)): (usize, &(f64, f64))| {
            let said = if at == 0 { &*first } else { "" };
            format!("{}{said} in about {}", points(*fault), in_words(*time))
        };
        let mut parts: Vec<String> = self.shows.iter().enumerate().map(said).collect();
        match self.hidden.map(points) {
            Some(hidden) if parts.is_empty() => {
                return format!("not even {hidden} of errors {would} with this traffic");
            }
            Some(hidden) => parts.push(format!("{hidden} not at all")),
            None => {}
        }
        parts.join(", ")
    }
}

/// Why a fault that must show does not, in words.
pub(super) fn unseen(effect: f64, why: Unseen) -> String {
    let why = match why {
        Unseen::Unknown => {
            "nothing is known of stable's past, so no step is made longer for it".to_owned()
        }
        Unseen::TooSmall { least } if least > effect => format!(
            "less than {} does not count with stable's usual rate, so no step is made longer for it",
            points(least)
        ),
        Unseen::TooSmall { .. } => {
            "tasks of one version differ by as much, so no step is made longer for it".to_owned()
        }
        Unseen::TooFew { longest } => format!(
            "there are too few requests for it; the step at which it would show soonest takes {longest} samples, and it may take more"
        ),
    };
    format!("min-effect, {} of errors: {why}", points(effect))
}

/// A difference of rates (0-1) in points of percent.
fn points(fault: f64) -> String {
    let text = format!("{:.2}", fault * 100.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "1" => "+1 point".to_owned(),
        _ => format!("+{text} points"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_and_what_does_not_in_one_line() {
        let shown = Shown {
            shows: vec![(0.01, 240_000.0), (0.001, 1_260_000.0)],
            hidden: Some(0.000_5),
        };
        assert_eq!(
            shown.say("would show"),
            "+1 point of errors would show in about 4 min, +0.1 points in about 21 min, +0.05 points not at all"
        );
        assert_eq!(shown.beyond(0.0), Some(shown.clone()));
        let less = shown.beyond(0.002).expect("something");
        assert_eq!(less.shows, [(0.01, 240_000.0)]);
        assert_eq!(shown.beyond(0.01), None);
        let nothing = Shown {
            shows: vec![],
            hidden: Some(0.05),
        };
        assert_eq!(
            nothing.say("would have shown"),
            "not even +5 points of errors would have shown with this traffic"
        );
        assert_eq!(points(0.000_1), "+0.01 points");
    }

    #[test]
    fn why_the_least_effect_does_not_show() {
        let small = |least| unseen(0.000_2, Unseen::TooSmall { least });
        assert_eq!(
            small(0.000_5),
            "min-effect, +0.02 points of errors: less than +0.05 points does not count with stable's usual rate, so no step is made longer for it"
        );
        assert!(small(0.000_1).contains("tasks of one version differ by as much"));
        let few = unseen(0.01, Unseen::TooFew { longest: 90 });
        assert!(few.contains(
            "too few requests for it; the step at which it would show soonest takes 90 samples"
        ));
        assert!(unseen(0.01, Unseen::Unknown).contains("nothing is known of stable's past"));
    }
}

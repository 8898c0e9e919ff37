//! Slopes: what only rises at the candidate, such as the memory of a version that leaks, while
//! stable's does not.
//!
//! The test for a trend is that of Mann (1945) and Kendall (1975), which asks only whether
//! later values are above earlier ones. As in its seasonal form (Hirsch, Slack and Smith 1982)
//! values are compared within one stratum alone: with each change of the weights the level
//! jumps, and that is no slope. The slope is the median of the slopes of all such pairs (Theil
//! 1950, Sen 1968). Values that hang together would pass for a trend, so the variance grows by
//! their autocorrelation (Matalas and Langbein 1962; Yue and Wang 2004).

/// Fewest intervals that tell, and the most that are looked at, the newest.
const INTERVALS: (usize, usize) = (20, 120);
/// Fewest intervals of a stratum that tell anything.
const STRATUM_MIN: usize = 4;
/// Standard deviations from which on there is a trend. It is looked for again and again, of
/// several series, and the autocorrelation of a few values is an estimate.
const TREND: f64 = 3.3;
/// Largest autocorrelation that is believed.
const CORRELATION_MAX: f64 = 0.9;
/// The part (0-1) of the whole slope that its newer half must have: what levels off, as caches
/// do when they fill, is no leak.
const GOES_ON: f64 = 0.5;
/// Intervals within which it must come to the ceiling: twelve hours of minutes.
const HORIZON: f64 = 720.0;
/// The part (0-1) of the candidate's slope up to which stable's is none.
const STABLE: f64 = 0.2;

/// What a series is, which says when its slope matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceiling {
    /// Percent of what is reserved: the ceiling is 100, and a rise by two points matters.
    Reserved,
    /// A latency: the ceiling is twice what it was, and a rise by a tenth of that matters.
    Double,
}

/// The values of both arms in one interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Intervals with the same number had the same weights.
    pub stratum: usize,
    /// When, in intervals.
    pub at: f64,
    /// The candidate's value.
    pub candidate: f64,
    /// Stable's.
    pub stable: f64,
}

/// A slope of the candidate that stable does not have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rise {
    /// By how much it rises in each interval.
    pub slope: f64,
    /// By how much stable's does, if that is not next to nothing beside it.
    pub stable: Option<f64>,
    /// Since when, in intervals.
    pub since: f64,
    /// Intervals after which it is at its ceiling, if it goes on like that.
    pub left: f64,
}

/// Looks for a slope of the candidate; the pairs are by time.
#[must_use]
pub fn rise(pairs: &[Pair], ceiling: Ceiling) -> Option<Rise> {
    let newest = &pairs[pairs.len().saturating_sub(INTERVALS.1)..];
    let strata: Vec<&[Pair]> = newest
        .chunk_by(|a, b| a.stratum == b.stratum)
        .filter(|stratum| stratum.len() >= STRATUM_MIN)
        .collect();
    if strata.iter().map(|s| s.len()).sum::<usize>() < INTERVALS.0 {
        return None;
    }
    let own = |p: &Pair| p.candidate;
    // What the day does to both arms in proportion, and what it adds to both, cancels in one
    // of these each.
    let apart = |p: &Pair| p.candidate - p.stable;
    let ratio = |p: &Pair| (p.candidate.max(1e-9) / p.stable.max(1e-9)).ln();
    if !(has_trend(&strata, own) && has_trend(&strata, apart) && has_trend(&strata, ratio)) {
        return None;
    }
    let (first, last) = (strata.first()?.first()?, strata.last()?.last()?);
    let middle = f64::midpoint(first.at, last.at);
    let newer: Vec<&[Pair]> = strata
        .iter()
        .map(|s| &s[s.partition_point(|p| p.at < middle)..])
        .collect();
    if sen(&newer, apart)? < GOES_ON * sen(&strata, apart)? {
        return None;
    }
    let slope = sen(&strata, own)?;
    let level = |some: &[Pair]| {
        let mut values: Vec<f64> = some.iter().map(own).collect();
        median(&mut values)
    };
    let (begin, end) = (strata.first()?, strata.last()?);
    let before = level(&begin[..STRATUM_MIN])?;
    let now = level(&end[end.len() - STRATUM_MIN..])?;
    let (top, least) = match ceiling {
        Ceiling::Reserved => (100.0, 2.0),
        Ceiling::Double => (2.0 * before, 0.1 * before),
    };
    let left = (top - now).max(0.0) / slope;
    let matters = slope > 0.0 && left <= HORIZON && slope * (last.at - first.at) >= least;
    let stable = sen(&strata, |p| p.stable)?;
    matters.then(|| Rise {
        slope,
        stable: Some(stable).filter(|stable| *stable > STABLE * slope),
        since: first.at,
        left,
    })
}

/// Whether later values are above earlier ones by more than chance does.
fn has_trend(strata: &[&[Pair]], value: impl Fn(&Pair) -> f64 + Copy) -> bool {
    let mut sum = 0.0;
    // Of each stratum: the variance of its part of the sum, and its length.
    let mut variances = vec![];
    for stratum in strata {
        let mut values: Vec<f64> = stratum.iter().map(value).collect();
        for (at, earlier) in values.iter().enumerate() {
            for later in &values[at + 1..] {
                sum += f64::from(i8::from(later > earlier) - i8::from(later < earlier));
            }
        }
        values.sort_by(f64::total_cmp);
        #[expect(clippy::float_cmp, reason = "the same value is a tie")]
        let ties = values.chunk_by(|a, b| a == b);
        let tied: f64 = ties.map(|tie| spread(tie.len())).sum();
        variances.push((spread(values.len()) - tied, values.len()));
    }
    let trend = |variance: f64| variance > 0.0 && (sum - 1.0) / variance.sqrt() >= TREND;
    // Nearly every look ends with the first of these.
    trend(variances.iter().map(|(variance, _)| variance).sum()) && {
        let r = correlation(strata, value).clamp(0.0, CORRELATION_MAX);
        let grown = variances
            .iter()
            .map(|(variance, of)| variance * inflation(*of, r));
        trend(grown.sum())
    }
}

/// How many times as large the variance is for so many values that hang together.
#[expect(clippy::cast_precision_loss, reason = "a few intervals")]
fn inflation(of: usize, r: f64) -> f64 {
    let (n, mut power, mut sum) = (of as f64, 1.0, 0.0);
    for apart in 1..of {
        power *= r;
        sum += (1.0 - apart as f64 / n) * power;
    }
    1.0 + 2.0 * sum
}

/// The variance of Kendall's sum for so many values, or what a tie of so many takes from it.
#[expect(clippy::cast_precision_loss, reason = "a few intervals")]
fn spread(of: usize) -> f64 {
    let n = of as f64;
    n * (n - 1.0) * (2.0 * n + 5.0) / 18.0
}

/// The median of the slopes of all pairs within a stratum.
fn sen(strata: &[&[Pair]], value: impl Fn(&Pair) -> f64) -> Option<f64> {
    let mut slopes = vec![];
    for stratum in strata {
        for (at, earlier) in stratum.iter().enumerate() {
            for later in &stratum[at + 1..] {
                let time = later.at - earlier.at;
                if time > 0.0 {
                    slopes.push((value(later) - value(earlier)) / time);
                }
            }
        }
    }
    median(&mut slopes)
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// How much each value hangs together with the one before, once slope and levels are taken
/// away. The estimate of a few values is too low (Marriott and Pope 1954), which is mended.
fn correlation(strata: &[&[Pair]], value: impl Fn(&Pair) -> f64 + Copy) -> f64 {
    let slope = sen(strata, value).unwrap_or(0.0);
    let (mut together, mut alone, mut all) = (0.0, 0.0, 0.0);
    for stratum in strata {
        let mut rest: Vec<f64> = stratum.iter().map(|p| value(p) - slope * p.at).collect();
        #[expect(clippy::cast_precision_loss, reason = "a few intervals")]
        let count = rest.len() as f64;
        let mean = rest.iter().sum::<f64>() / count;
        rest.iter_mut().for_each(|r| *r -= mean);
        together += rest.windows(2).map(|w| w[0] * w[1]).sum::<f64>() * count / (count - 1.0);
        alone += rest.iter().map(|r| r * r).sum::<f64>();
        all += count;
    }
    if alone <= 0.0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a few strata")]
    let each = all / strata.len() as f64;
    let raw = together / alone;
    raw + (1.0 + 4.0 * raw) / each
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step of that many minutes after another one.
    fn pairs(steps: &[usize], of: impl Fn(usize, f64) -> (f64, f64)) -> Vec<Pair> {
        let strata = steps.iter().enumerate();
        let strata = strata.flat_map(|(stratum, len)| std::iter::repeat_n(stratum, *len));
        let pair = |(minute, stratum): (usize, usize)| {
            #[expect(clippy::cast_precision_loss, reason = "a few minutes")]
            let at = minute as f64;
            // A noise that is the same everywhere: the golden ratio spreads it evenly.
            let noise = |n: f64| ((at * 0.618_033_988_75 + n).fract() - 0.5) * 2.0;
            let (candidate, stable) = of(stratum, at);
            Pair {
                stratum,
                at: 1_000.0 + at,
                candidate: candidate + noise(0.0),
                stable: stable + noise(0.4),
            }
        };
        strata.enumerate().map(pair).collect()
    }

    #[test]
    fn a_leak_is_found_and_projected() {
        // Up two steps, each of which takes more memory at once.
        let leak = |stratum: usize, at: f64| {
            let level = [40.0, 44.0, 50.0][stratum];
            (level + 0.4 * at, 60.0)
        };
        let leak = pairs(&[12, 12, 16], leak);
        let found = rise(&leak, Ceiling::Reserved).expect("found");
        assert!((found.slope - 0.4).abs() < 0.05, "{found:?}");
        assert!((70.0..100.0).contains(&found.left), "{found:?}");
        assert_eq!((found.stable, found.since), (None, 1_000.0));
        // Too few tell nothing.
        assert_eq!(rise(&leak[..15], Ceiling::Reserved), None);
        // Nor does what has fewer values than that at one share.
        assert_eq!(
            rise(&pairs(&[3; 10], |_, at| (at, 60.0)), Ceiling::Reserved),
            None
        );
    }

    #[test]
    fn what_stable_does_too_what_a_step_adds_and_what_levels_off_are_none() {
        let of = |steps: &[usize], f: fn(usize, f64) -> (f64, f64)| {
            rise(&pairs(steps, f), Ceiling::Reserved)
        };
        assert_eq!(of(&[60], |_, at| (40.0 + 0.4 * at, 50.0 + 0.4 * at)), None);
        // A day that raises both in proportion.
        let day = |_, at: f64| (20.0 * (1.0 + 0.02 * at), 10.0 * (1.0 + 0.02 * at));
        assert_eq!(of(&[60], day), None);
        let steps = [20, 20, 20];
        #[expect(clippy::cast_precision_loss, reason = "a few steps")]
        let jumps = |stratum: usize, _: f64| (20.0 + 20.0 * stratum as f64, 50.0);
        assert_eq!(of(&steps, jumps), None);
        // A cache that fills.
        let fills = |_, at: f64| (60.0 - 30.0 * (-at / 12.0).exp(), 50.0);
        assert_eq!(of(&[80], fills), None);
        // It will be full the day after tomorrow.
        assert_eq!(of(&[120], |_, at| (20.0 + 0.02 * at, 50.0)), None);
        assert!(of(&[120], |_, at| (20.0 + 0.2 * at, 50.0)).is_some());
        // It rises more than stable's, which does too.
        let both = of(&[60], |_, at| (20.0 + at, 50.0 + 0.4 * at)).expect("found");
        assert!((both.stable.expect("rises") - 0.4).abs() < 0.05, "{both:?}");
    }

    #[test]
    fn latency_that_creeps_is_one_that_would_double() {
        let of = |slope: f64| {
            let creeps = pairs(&[30, 30], |_, at| (50.0 + slope * at, 50.0));
            rise(&creeps, Ceiling::Double)
        };
        let found = of(0.2).expect("found");
        assert!((120.0..250.0).contains(&found.left), "{found:?}");
        assert_eq!(of(0.05), None, "it takes a day");
    }
}

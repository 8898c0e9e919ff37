//! Statistics of many replicates. Pure.

use schemars::JsonSchema;
use serde::Serialize;

use super::replicate::{Fate, Played};
use super::scenario::{Class, Scenario};

/// The numbers of one replicate that a report needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally {
    /// How it ended.
    pub fate: Fate,
    /// Minutes until the traffic reached its final place.
    pub minutes: Option<f64>,
    /// Expected bad requests.
    pub bad_requests: f64,
    /// Rules of the host that were broken.
    pub violations: Vec<String>,
}

impl From<Played> for Tally {
    fn from(played: Played) -> Self {
        Self {
            fate: played.fate,
            minutes: played.minutes,
            bad_requests: played.bad_requests,
            violations: played.violations,
        }
    }
}

/// One scenario's result.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// The scenario's name.
    pub name: String,
    /// Whether the candidate is good or bad.
    pub class: Class,
    /// How many rollouts were played.
    pub replicates: usize,
    /// Rolled back, percent: false ones if the candidate is good.
    pub rolled_back_pct: f64,
    /// Promoted, percent.
    pub promoted_pct: f64,
    /// Waiting for a person, or under way at the horizon, percent.
    pub paused_pct: f64,
    /// The strategy failed, percent: neither a detection nor a promotion.
    pub failed_pct: f64,
    /// Mean of the bad requests that users saw, per rollout.
    pub bad_requests_mean: f64,
    /// Their median.
    pub bad_requests_median: f64,
    /// Median minutes to the rollback, of those that were rolled back.
    pub median_minutes_to_rollback: Option<f64>,
    /// Median minutes to full weight, of those that were promoted.
    pub median_minutes_to_promote: Option<f64>,
    /// 95 % confidence interval of `rolled_back_pct`.
    pub rolled_back_pct_interval: [f64; 2],
    /// 95 % confidence interval of `bad_requests_mean`.
    pub bad_requests_mean_interval: [f64; 2],
    /// Expectations of the scenario that failed.
    pub failed_expectations: Vec<String>,
    /// Replicates in which a rule of the host was broken.
    pub violations: usize,
}

impl Row {
    /// The statistics of a scenario's replicates.
    #[must_use]
    pub fn of(scenario: &Scenario, tallies: &[Tally]) -> Self {
        let n = tallies.len();
        let with = |fate: Fate| tallies.iter().filter(move |t| t.fate == fate);
        let percent = |count: usize| 100.0 * as_f64(count) / as_f64(n.max(1));
        let bad: Vec<f64> = tallies.iter().map(|t| t.bad_requests).collect();
        let minutes = |fate: Fate| median(with(fate).filter_map(|t| t.minutes).collect());
        let (mean, error) = mean_and_error(&bad);
        let rolled_back = with(Fate::RolledBack).count();
        let (low, high) = wilson(rolled_back, n);
        let mut row = Self {
            name: scenario.name.clone(),
            class: scenario.class,
            replicates: n,
            rolled_back_pct: percent(rolled_back),
            promoted_pct: percent(with(Fate::Promoted).count()),
            paused_pct: percent(with(Fate::Paused).count()),
            failed_pct: percent(with(Fate::Failed).count()),
            bad_requests_mean: mean,
            bad_requests_median: median(bad).unwrap_or(0.0),
            median_minutes_to_rollback: minutes(Fate::RolledBack),
            median_minutes_to_promote: minutes(Fate::Promoted),
            rolled_back_pct_interval: [100.0 * low, 100.0 * high],
            bad_requests_mean_interval: [(mean - 1.96 * error).max(0.0), mean + 1.96 * error],
            failed_expectations: vec![],
            violations: tallies.iter().filter(|t| !t.violations.is_empty()).count(),
        };
        row.failed_expectations = row.unmet(scenario);
        row
    }

    fn unmet(&self, scenario: &Scenario) -> Vec<String> {
        let expect = &scenario.expect;
        let mut unmet = vec![];
        let mut at_most = |what: &str, limit: Option<f64>, found: Option<f64>| {
            let Some(limit) = limit else { return };
            match found {
                Some(found) if found <= limit => {}
                Some(found) => unmet.push(format!("{what} is {found:.1}, above {limit}")),
                None => unmet.push(format!("{what} has no value; expected at most {limit}")),
            }
        };
        at_most(
            if self.failed_pct > 0.0 {
                "maxFalseRollbackPct, with the strategy's failures,"
            } else {
                "maxFalseRollbackPct"
            },
            expect.max_false_rollback_pct,
            // A strategy that fails takes a good version from its users, too.
            Some(self.rolled_back_pct + self.failed_pct),
        );
        at_most(
            "maxMedianPromoteMinutes",
            expect.max_median_promote_minutes,
            self.median_minutes_to_promote,
        );
        at_most(
            "maxMedianBadRequests",
            expect.max_median_bad_requests,
            Some(self.bad_requests_median),
        );
        at_most(
            "maxMeanBadRequests",
            expect.max_mean_bad_requests,
            Some(self.bad_requests_mean),
        );
        at_most(
            "maxMedianRollbackMinutes",
            expect.max_median_rollback_minutes,
            self.median_minutes_to_rollback,
        );
        if let Some(limit) = expect.min_detect_pct
            && self.rolled_back_pct < limit
        {
            unmet.push(format!(
                "minDetectPct is {:.1}, below {limit}",
                self.rolled_back_pct
            ));
        }
        unmet
    }

    /// Whether all expectations hold and no rule of the host was broken.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failed_expectations.is_empty() && self.violations == 0
    }
}

/// Statistics over many scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Mean of the false rollbacks over the good scenarios, percent.
    pub false_rollback_mean_pct: Option<f64>,
    /// The same of the worst good scenario, percent.
    pub false_rollback_worst_pct: Option<f64>,
    /// Mean of the detections over the bad scenarios, percent.
    pub detected_mean_pct: Option<f64>,
    /// Geometric mean over the bad scenarios of the mean bad requests.
    pub bad_requests_geometric_mean: Option<f64>,
    /// Median of the good scenarios' medians.
    pub median_minutes_to_promote: Option<f64>,
}

impl Summary {
    /// The statistics of these rows.
    #[must_use]
    pub fn of(rows: &[Row]) -> Self {
        let of = |class: Class| rows.iter().filter(move |r| r.class == class);
        let mean = |values: Vec<f64>| {
            let n = values.len();
            (n > 0).then(|| values.iter().sum::<f64>() / as_f64(n))
        };
        let false_ones: Vec<f64> = of(Class::Good).map(|r| r.rolled_back_pct).collect();
        let logs = of(Class::Bad).map(|r| libm::log(r.bad_requests_mean.max(0.1)));
        Self {
            false_rollback_worst_pct: false_ones.iter().copied().reduce(f64::max),
            false_rollback_mean_pct: mean(false_ones),
            detected_mean_pct: mean(of(Class::Bad).map(|r| r.rolled_back_pct).collect()),
            bad_requests_geometric_mean: mean(logs.collect()).map(libm::exp),
            median_minutes_to_promote: median(
                of(Class::Good)
                    .filter_map(|r| r.median_minutes_to_promote)
                    .collect(),
            ),
        }
    }
}

/// The value in the middle, or the mean of the two in the middle.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => None,
        n if n % 2 == 1 => Some(values[n / 2]),
        n => Some(f64::midpoint(values[n / 2 - 1], values[n / 2])),
    }
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = as_f64(values.len().max(1));
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (mean, (squares / (n - 1.0).max(1.0) / n).sqrt())
}

/// The 95 % score interval of a share (Wilson 1927), 0-1.
fn wilson(count: usize, n: usize) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    const Z: f64 = 1.96;
    let (n, p) = (as_f64(n), as_f64(count) / as_f64(n));
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[expect(clippy::cast_precision_loss, reason = "a number of replicates")]
fn as_f64(n: usize) -> f64 {
    n as f64
}

/// The rows as a JUnit report, for CI.
#[must_use]
pub fn junit(plugin: &str, rows: &[Row], commands: &[Vec<String>]) -> String {
    use std::fmt::Write as _;
    let failures = rows.iter().filter(|r| !r.passed()).count();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        xml,
        "<testsuites><testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\">",
        escaped(plugin),
        rows.len()
    );
    for (row, commands) in rows.iter().zip(commands) {
        let _ = write!(xml, "  <testcase name=\"{}\">", escaped(&row.name));
        if !row.passed() {
            let mut lines = row.failed_expectations.clone();
            lines.extend(commands.iter().cloned());
            let _ = write!(
                xml,
                "<failure message=\"{}\">{}</failure>",
                escaped(lines.first().map_or("", String::as_str)),
                escaped(&lines.join("\n"))
            );
        }
        xml.push_str("</testcase>\n");
    }
    xml.push_str("</testsuite></testsuites>\n");
    xml
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_intervals() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
        let (low, high) = wilson(0, 400);
        assert!(low < 1e-12 && (0.009..0.01).contains(&high), "{high}");
        let (low, high) = wilson(200, 400);
        assert!((low - 0.451).abs() < 0.001 && (high - 0.549).abs() < 0.001);
    }

    #[test]
    fn names_cannot_break_the_xml() {
        let xml = junit("<a & \"b\">", &[], &[]);
        assert!(xml.contains("&lt;a &amp; &quot;b&quot;&gt;"), "{xml}");
    }
}

//! `[target.aws]`: what a rollout file says about a target on AWS.

use super::read::Section;
use crate::model::address::base;
use crate::model::aws::{Access, AwsSpec, Find, FindArm, METRICS_DELAY_MS, looked_for};
use crate::model::is_name;
use crate::model::query::CloudWatchMetric;

pub(super) fn read(mut section: Section<'_>) -> AwsSpec {
    let access = Access {
        region: section.text("region"),
        profile: section.text("profile"),
        role: section.text("role"),
    };
    let find = Find {
        stack: section.text("stack"),
        listener: section.text("listener"),
        rule: section.text("rule"),
        cluster: section.text("cluster"),
        arms: section.named("arms").into_iter().map(arm).collect(),
        test_listeners: section.texts("test-listeners").unwrap_or_default(),
        only: section.boolean("only").unwrap_or_default(),
    };
    if find
        .test_listeners
        .iter()
        .any(|l| !l.contains(":listener/"))
    {
        section.problem("test-listeners", "must be ARNs of listeners");
    }
    for (key, given) in [("listener", &find.listener), ("rule", &find.rule)] {
        let fits = given
            .as_ref()
            .is_none_or(|arn| arn.contains(&format!(":{}/", kind_of(key))));
        if !fits {
            section.problem(key, &format!("must be the ARN of a {key}"));
        }
    }
    if find.stack.is_none() && find.listener.is_none() && find.rule.is_none() {
        section.problem(
            "",
            "needs `stack = \"NAME\"`, or the ARN of a `listener` or of a `rule`",
        );
    }
    if find.arms.len() > 2 {
        section.problem("arms", "a target has two arms, such as stable and canary");
    }
    let spec = AwsSpec {
        probe_url: section.text("probe-url"),
        probe_ca: section.file("probe-ca"),
        container: section.text("container"),
        metrics_delay_ms: section
            .duration("metrics-delay")
            .unwrap_or(METRICS_DELAY_MS),
        ..looked_for(access, find)
    };
    if let Some(why) = spec.probe_url.as_ref().and_then(|url| base(url).err()) {
        section.problem("probe-url", &why);
    }
    section.finish();
    spec
}

fn kind_of(key: &str) -> &'static str {
    if key == "rule" {
        "listener-rule"
    } else {
        "listener"
    }
}

fn arm((name, mut section): (String, Section<'_>)) -> FindArm {
    if !is_name(&name) {
        section.problem("", "an arm's name is made of letters, digits, - and _");
    }
    let target_group = section.text("target-group");
    if target_group
        .as_deref()
        .is_some_and(|group| !is_group(group))
    {
        section.problem(
            "target-group",
            "must be the ARN of a target group, which contains :targetgroup/, or its name, of letters, digits and -",
        );
    }
    let arm = FindArm {
        target_group,
        service: section.text("service"),
        name,
    };
    section.finish();
    arm
}

/// Whether a text can be the ARN or the name of a target group.
#[must_use]
pub fn is_group(text: &str) -> bool {
    let is_name = |name: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (1..=32).contains(&name.len()) && name.chars().all(fits)
    };
    match text.split_once(":targetgroup/") {
        Some((before, path)) => {
            before.starts_with("arn:")
                && path.split('/').count() == 2
                && path.split('/').all(is_name)
        }
        None => is_name(text),
    }
}

pub(super) fn metric(mut section: Section<'_>) -> CloudWatchMetric {
    let expression = section.text("expression");
    let by_name = expression.is_none();
    let mut text = |key: &str| {
        if by_name {
            section.required_text(key)
        } else {
            section.text(key).unwrap_or_default()
        }
    };
    let (namespace, metric) = (text("namespace"), text("metric"));
    let dimensions = section.json("dimensions");
    let metric = CloudWatchMetric {
        expression,
        namespace,
        metric,
        statistic: section
            .text("statistic")
            .unwrap_or_else(|| "Average".to_owned()),
        period_s: section
            .duration("period")
            .map_or(60, |ms| u32::try_from(ms / 1_000).unwrap_or(u32::MAX)),
        dimensions: dimensions
            .into_iter()
            .map(|(name, value)| {
                (
                    name,
                    value.as_str().map_or(value.to_string(), ToOwned::to_owned),
                )
            })
            .collect(),
    };
    if metric.period_s == 0 || !metric.period_s.is_multiple_of(60) {
        section.problem("period", "must be a multiple of one minute");
    }
    section.finish();
    metric
}

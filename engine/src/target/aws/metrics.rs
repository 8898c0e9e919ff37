//! CloudWatch: one `GetMetricData` for all metrics of both arms.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_cloudwatch::types::{
    Dimension, Metric, MetricDataQuery, MetricDataResult, MetricStat, ScanBy, StatusCode,
};
use aws_smithy_types::DateTime;

use super::calls::Api;
use super::client::Clients;
use crate::model::aws::{Found, FoundArm};
use crate::model::query::CloudWatchMetric;
use crate::model::{ErrorKind, HostError, Latency, MetricsQuery, Millis, Point, Sample};
use crate::target::query::Words;

/// Length of one sample, ms: CloudWatch's own for load balancers.
pub const PERIOD_MS: u32 = 60_000;
const PERIOD_S: i32 = 60;
/// Longest time that one query covers, ms.
const HISTORY_MS: Millis = 3 * 3_600_000;
/// Most metrics in one call.
const QUERIES_MAX: usize = 500;

/// What is read of one arm, or of one arm in one zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum What {
    Requests,
    /// Answers 2xx and 3xx; 4xx and 5xx are the two kinds of errors.
    Successes,
    Redirects,
    TargetErrors,
    ConnectionErrors,
    ClientErrors,
    Mean,
    P50,
    P90,
    P95,
    P99,
    Healthy,
    Cpu,
    Memory,
    /// Requests slower than the n-th threshold.
    Over(usize),
}

/// The answers of targets, by class.
const ANSWERS: [What; 4] = [
    What::Successes,
    What::Redirects,
    What::ClientErrors,
    What::TargetErrors,
];

/// One metric to ask for: the arm, the zone and the kind.
#[derive(Debug, Clone, PartialEq)]
struct Ask {
    arm: usize,
    zone: Option<String>,
    what: What,
}

/// The metrics to ask for. Pure.
fn asks(found: &Found, query: &MetricsQuery) -> Vec<Ask> {
    use What::{
        ClientErrors, ConnectionErrors, Cpu, Healthy, Mean, Memory, Over, P50, P90, P95, P99,
        Requests, TargetErrors,
    };
    let balancer = [
        Requests,
        TargetErrors,
        ConnectionErrors,
        ClientErrors,
        Mean,
        P50,
        P90,
        P95,
        P99,
        Healthy,
    ];
    let mut asks = vec![];
    for (arm, found_arm) in found.arms.iter().enumerate() {
        let zones: Vec<Option<String>> = if query.by_zone && found.zones.len() > 1 {
            found.zones.iter().cloned().map(Some).collect()
        } else {
            vec![None]
        };
        for zone in zones {
            let of_service = zone.is_none() && found_arm.service.is_some();
            let over = (0..query.over_ms.len()).map(Over);
            let service = [Cpu, Memory].into_iter().filter(|_| of_service);
            asks.extend(
                balancer
                    .into_iter()
                    .chain(over)
                    .chain(service)
                    .map(|what| Ask {
                        arm,
                        zone: zone.clone(),
                        what,
                    }),
            );
        }
    }
    asks
}

fn dimension(name: &str, value: &str) -> Dimension {
    Dimension::builder().name(name).value(value).build()
}

/// `app/NAME/ID` or `targetgroup/NAME/ID`: CloudWatch names a load balancer or
/// a target group by the end of its ARN.
pub(super) fn tail(arn: &str) -> &str {
    let resource = arn.rsplit(':').next().unwrap_or_default();
    resource.strip_prefix("loadbalancer/").unwrap_or(resource)
}

fn statistic(found: &Found, query: &MetricsQuery, ask: &Ask) -> Option<MetricStat> {
    let arm = found.arms.get(ask.arm)?;
    let (metric, stat) = match ask.what {
        What::Requests => ("RequestCount", "Sum".to_owned()),
        What::Successes => ("HTTPCode_Target_2XX_Count", "Sum".to_owned()),
        What::Redirects => ("HTTPCode_Target_3XX_Count", "Sum".to_owned()),
        What::TargetErrors => ("HTTPCode_Target_5XX_Count", "Sum".to_owned()),
        What::ConnectionErrors => ("TargetConnectionErrorCount", "Sum".to_owned()),
        What::ClientErrors => ("HTTPCode_Target_4XX_Count", "Sum".to_owned()),
        What::Mean => ("TargetResponseTime", "Average".to_owned()),
        What::P50 => ("TargetResponseTime", "p50".to_owned()),
        What::P90 => ("TargetResponseTime", "p90".to_owned()),
        What::P95 => ("TargetResponseTime", "p95".to_owned()),
        What::P99 => ("TargetResponseTime", "p99".to_owned()),
        What::Healthy => ("HealthyHostCount", "Minimum".to_owned()),
        What::Cpu => ("CPUUtilization", "Average".to_owned()),
        What::Memory => ("MemoryUtilization", "Average".to_owned()),
        // Trimmed count: how many values are above so many seconds.
        What::Over(n) => {
            let micros = (query.over_ms.get(n)? * 1_000.0).round();
            (
                "TargetResponseTime",
                format!("TC({}:)", micros / 1_000_000.0),
            )
        }
    };
    let mut built = Metric::builder().metric_name(metric);
    built = if matches!(ask.what, What::Cpu | What::Memory) {
        let service = arm.service.as_ref()?;
        built
            .namespace("AWS/ECS")
            .dimensions(dimension("ClusterName", &service.cluster))
            .dimensions(dimension("ServiceName", &service.name))
    } else {
        built
            .namespace("AWS/ApplicationELB")
            .dimensions(dimension("TargetGroup", tail(&arm.target_group)))
            .dimensions(dimension("LoadBalancer", tail(&found.load_balancer)))
    };
    if let Some(zone) = &ask.zone {
        built = built.dimensions(dimension("AvailabilityZone", zone));
    }
    Some(
        MetricStat::builder()
            .metric(built.build())
            .period(PERIOD_S)
            .stat(stat)
            .build(),
    )
}

/// The complete minutes since `since`. Nothing newer than `delay` ms, because
/// the newest minutes still change, and nothing older than three hours.
fn window(since: Millis, now: Millis, delay: Millis) -> Option<(Millis, Millis)> {
    let period = Millis::from(PERIOD_MS);
    let end = now.saturating_sub(delay) / period * period;
    let start = since.max(end.saturating_sub(HISTORY_MS)).div_ceil(period) * period;
    (start < end).then_some((start, end))
}

fn seconds(ms: Millis) -> DateTime {
    DateTime::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// Samples of the complete periods of all arms, oldest first.
pub(super) async fn samples(
    clients: &Clients,
    found: &Found,
    query: &MetricsQuery,
    now: Millis,
    delay: Millis,
) -> Result<Vec<Sample>, HostError> {
    let Some((start, end)) = window(query.since, now, delay) else {
        return Ok(vec![]);
    };
    let asks = asks(found, query);
    if asks.len() > QUERIES_MAX {
        return Err(HostError::new(
            ErrorKind::Invalid,
            "too-many-thresholds",
            format!(
                "{} thresholds are too many for one call of CloudWatch",
                query.over_ms.len()
            ),
        ));
    }
    let values = read(clients, found, query, &asks, (start, end)).await?;
    Ok(collect(found, query, &values))
}

/// The requests of each minute that got no answer from their arm's targets.
pub(super) async fn unanswered(
    clients: &Clients,
    found: &Found,
    since: Millis,
    now: Millis,
    delay: Millis,
) -> Result<Vec<Point>, HostError> {
    let Some(times) = window(since, now, delay) else {
        return Ok(vec![]);
    };
    let arms = 0..found.arms.len();
    let asks = arms.flat_map(|arm| {
        let one = move |what| Ask {
            arm,
            zone: None,
            what,
        };
        [What::Requests, What::ConnectionErrors]
            .into_iter()
            .chain(ANSWERS)
            .map(one)
    });
    let asks: Vec<Ask> = asks.collect();
    let values = read(clients, found, &MetricsQuery::default(), &asks, times).await?;
    Ok(count_unanswered(found, &values))
}

/// What is left of the requests without those that were answered, and at least the
/// connections that failed. Pure.
fn count_unanswered(found: &Found, values: &Values) -> Vec<Point> {
    let value = |arm: usize, at, what| values.get(&(arm, None, at, what)).copied();
    let mut points: Vec<Point> = values
        .iter()
        .filter(|((.., what), requests)| *what == What::Requests && **requests >= 1.0)
        .filter_map(|((arm, _, at, _), requests)| {
            let count = |what| value(*arm, *at, what).unwrap_or(0.0);
            let answered: f64 = ANSWERS.into_iter().map(count).sum();
            Some(Point {
                arm: found.arms.get(*arm)?.name.clone(),
                at: *at,
                value: (requests - answered)
                    .max(count(What::ConnectionErrors))
                    .max(0.0),
            })
        })
        .collect();
    points.sort_by(|a, b| (a.at, &a.arm).cmp(&(b.at, &b.arm)));
    points
}

/// The values of all metrics that are asked for.
async fn read(
    clients: &Clients,
    found: &Found,
    query: &MetricsQuery,
    asks: &[Ask],
    (start, end): (Millis, Millis),
) -> Result<Values, HostError> {
    let queries = asks.iter().enumerate().filter_map(|(index, ask)| {
        let stat = statistic(found, query, ask)?;
        let query = MetricDataQuery::builder()
            .id(format!("m{index}"))
            .metric_stat(stat);
        Some(query.build())
    });
    let results = get(clients, queries.collect(), start, end).await?;
    let mut values = HashMap::new();
    for result in &results {
        let index = result
            .id()
            .and_then(|id| id.strip_prefix('m')?.parse::<usize>().ok());
        let Some(ask) = index.and_then(|i| asks.get(i)) else {
            continue;
        };
        for (at, value) in result.timestamps().iter().zip(result.values()) {
            let at = Millis::try_from(at.to_millis().unwrap_or(0)).unwrap_or(0);
            values.insert((ask.arm, ask.zone.clone(), at, ask.what), *value);
        }
    }
    Ok(values)
}

type Values = HashMap<(usize, Option<String>, Millis, What), f64>;

/// Makes samples of the values. Pure.
fn collect(found: &Found, query: &MetricsQuery, values: &Values) -> Vec<Sample> {
    // A minute without requests has no sample, whatever else is known of it.
    let mut minutes: BTreeMap<(Millis, usize, Option<String>), f64> = BTreeMap::new();
    for ((arm, zone, at, what), value) in values {
        if *what == What::Requests && *value >= 1.0 {
            minutes.insert((*at, *arm, zone.clone()), *value);
        }
    }
    minutes
        .into_iter()
        .map(|((start, arm, zone), requests)| {
            let value = |what| values.get(&(arm, zone.clone(), start, what)).copied();
            // Where there were requests, a missing count means zero.
            let number = |what| count(value(what).unwrap_or(0.0));
            let ms = |what| value(what).map(|seconds| seconds * 1_000.0);
            let latency = || {
                Some(Latency {
                    mean: ms(What::Mean)?,
                    p50: ms(What::P50)?,
                    p90: ms(What::P90)?,
                    p95: ms(What::P95)?,
                    p99: ms(What::P99)?,
                })
            };
            Sample {
                arm: found
                    .arms
                    .get(arm)
                    .map_or_else(String::new, |a: &FoundArm| a.name.clone()),
                start,
                period_ms: PERIOD_MS,
                requests: count(requests),
                errors: number(What::TargetErrors).saturating_add(number(What::ConnectionErrors)),
                client_errors: number(What::ClientErrors),
                over: if (0..query.over_ms.len()).any(|n| value(What::Over(n)).is_some()) {
                    (0..query.over_ms.len())
                        .map(|n| number(What::Over(n)))
                        .collect()
                } else {
                    // A missing count of slow requests does not mean that none was slow.
                    vec![]
                },
                latency: latency(),
                whole: None,
                cpu: value(What::Cpu),
                memory: value(What::Memory),
                healthy: value(What::Healthy).map(count),
                zone,
            }
        })
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rounded, non-negative count; the cast saturates"
)]
fn count(value: f64) -> u32 {
    value.round() as u32
}

/// Values of a custom metric for all arms.
pub(super) async fn points(
    clients: &Clients,
    metric: &CloudWatchMetric,
    arms: &[Words],
    since: Millis,
    now: Millis,
) -> Result<Vec<Point>, HostError> {
    // Nothing is known about the delay of a custom metric.
    let Some((start, end)) = window(since, now, 0) else {
        return Ok(vec![]);
    };
    let queries = arms
        .iter()
        .enumerate()
        .map(|(index, arm)| custom(metric, index, arm));
    let results = get(clients, queries.collect(), start, end).await?;
    let mut points = vec![];
    for (index, arm) in arms.iter().enumerate() {
        let id = format!("q{index}");
        let ours: Vec<&MetricDataResult> = results.iter().filter(|r| r.id() == Some(&id)).collect();
        for result in ours {
            for (at, value) in result.timestamps().iter().zip(result.values()) {
                points.push(Point {
                    arm: arm.arm.clone(),
                    at: Millis::try_from(at.to_millis().unwrap_or(0)).unwrap_or(0),
                    value: *value,
                });
            }
        }
    }
    points.sort_by_key(|p| p.at);
    Ok(points)
}

fn custom(metric: &CloudWatchMetric, index: usize, arm: &Words) -> MetricDataQuery {
    let query = MetricDataQuery::builder()
        .id(format!("q{index}"))
        .return_data(true);
    let period = i32::try_from(metric.period_s).unwrap_or(i32::MAX);
    if let Some(expression) = &metric.expression {
        return query
            .expression(arm.fill(expression))
            .period(period)
            .build();
    }
    let dimensions = metric
        .dimensions
        .iter()
        .map(|(name, value)| dimension(name, &arm.fill(value)));
    let named = Metric::builder()
        .namespace(arm.fill(&metric.namespace))
        .metric_name(arm.fill(&metric.metric))
        .set_dimensions(Some(dimensions.collect()));
    let stat = MetricStat::builder()
        .metric(named.build())
        .period(period)
        .stat(&metric.statistic);
    query.metric_stat(stat.build()).build()
}

async fn get(
    clients: &Clients,
    queries: Vec<MetricDataQuery>,
    start: Millis,
    end: Millis,
) -> Result<Vec<MetricDataResult>, HostError> {
    let mut results = vec![];
    let mut page = None;
    loop {
        let call = clients
            .cloudwatch
            .get_metric_data()
            .set_metric_data_queries(Some(queries.clone()))
            .start_time(seconds(start))
            .end_time(seconds(end))
            .scan_by(ScanBy::TimestampAscending)
            .set_next_token(page);
        let answer = clients.ask(Api::GetMetricData, "", call.send()).await?;
        for result in answer.metric_data_results.unwrap_or_default() {
            if matches!(
                result.status_code(),
                Some(StatusCode::InternalError | StatusCode::Forbidden)
            ) {
                let said = result
                    .messages()
                    .iter()
                    .filter_map(|m| m.value())
                    .collect::<Vec<_>>();
                return Err(HostError::new(
                    ErrorKind::Unavailable,
                    "metric-failed",
                    format!(
                        "CloudWatch could not read {}: {}",
                        result.label().unwrap_or("a metric"),
                        said.join("; ")
                    ),
                )
                .retryable());
            }
            results.push(result);
        }
        page = answer.next_token;
        if page.is_none() {
            return Ok(results);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::aws::ServiceId;

    fn found() -> Found {
        let arm = |name: &str| FoundArm {
            name: name.to_owned(),
            target_group: format!("arn:aws:elasticloadbalancing:r:1:targetgroup/{name}/0a"),
            service: Some(ServiceId {
                cluster: "c".to_owned(),
                name: format!("app-{name}"),
            }),
        };
        Found {
            route: String::new(),
            load_balancer: "arn:aws:elasticloadbalancing:r:1:loadbalancer/app/main/1b".to_owned(),
            address: String::new(),
            zones: vec!["r-a".to_owned(), "r-b".to_owned()],
            arms: vec![arm("stable"), arm("canary")],
            test_addresses: vec![],
            test_listeners: vec![],
            ..Found::default()
        }
    }

    #[test]
    fn cloudwatch_calls_things_by_the_tails_of_their_arns() {
        let found = found();
        assert_eq!(tail(&found.load_balancer), "app/main/1b");
        assert_eq!(tail(&found.arms[1].target_group), "targetgroup/canary/0a");
        let query = MetricsQuery {
            over_ms: vec![250.0],
            ..MetricsQuery::default()
        };
        let asks = asks(&found, &query);
        assert_eq!(asks.len(), 2 * 13, "one question for all");
        let slow = asks
            .iter()
            .find(|a| a.what == What::Over(0))
            .expect("asked");
        let stat = statistic(&found, &query, slow).expect("known");
        assert_eq!(stat.stat(), Some("TC(0.25:)"));
    }

    #[test]
    fn zones_are_asked_for_one_by_one() {
        let query = MetricsQuery {
            by_zone: true,
            ..MetricsQuery::default()
        };
        let asks = asks(&found(), &query);
        assert_eq!(asks.len(), 2 * 2 * 10, "without what only services know");
        let stat = statistic(&found(), &query, &asks[0]).expect("known");
        let dimensions = stat.metric().map(Metric::dimensions).unwrap_or_default();
        assert!(dimensions.iter().any(|d| d.value() == Some("r-a")));
    }

    #[test]
    fn only_closed_minutes_are_asked_for() {
        let minute = 60_000;
        let now = 1_000 * minute + 30_000;
        assert_eq!(window(998 * minute, now, 120_000), None);
        assert_eq!(
            window(990 * minute + 1, now, 120_000),
            Some((991 * minute, 998 * minute))
        );
        let (start, end) = window(0, now, 0).expect("three hours");
        assert_eq!(end - start, HISTORY_MS);
    }

    #[test]
    fn what_is_left_without_the_answers_got_none() {
        let at = 60_000;
        let value = |arm: usize, what, value: f64| ((arm, None, at, what), value);
        let values: Values = [
            value(0, What::Requests, 100.0),
            value(0, What::Successes, 80.0),
            value(0, What::Redirects, 10.0),
            value(0, What::ClientErrors, 5.0),
            value(0, What::TargetErrors, 3.0),
            // Connections that failed are among them, or are not counted as requests.
            value(1, What::Requests, 10.0),
            value(1, What::Successes, 9.0),
            value(1, What::ConnectionErrors, 4.0),
        ]
        .into();
        let points = count_unanswered(&found(), &values);
        let seen: Vec<_> = points.iter().map(|p| (p.arm.as_str(), p.value)).collect();
        assert_eq!(seen, [("canary", 4.0), ("stable", 2.0)]);
        // An answer may be counted a minute after its request.
        let late: Values = [
            value(0, What::Requests, 3.0),
            value(0, What::Successes, 5.0),
        ]
        .into();
        assert!(count_unanswered(&found(), &late)[0].value.abs() < 1e-9);
        let alone: Values = [value(0, What::Successes, 5.0)].into();
        assert_eq!(count_unanswered(&found(), &alone), []);
    }

    #[test]
    fn no_requests_are_no_sample_and_no_errors_are_zero() {
        let at = 60_000;
        let value = |arm: usize, what, value: f64| ((arm, None, at, what), value);
        let values: Values = [
            value(0, What::Requests, 100.0),
            value(0, What::Mean, 0.02),
            value(0, What::P50, 0.01),
            value(0, What::P90, 0.03),
            value(0, What::P95, 0.04),
            value(0, What::P99, 0.05),
            value(0, What::ConnectionErrors, 2.0),
            value(0, What::TargetErrors, 1.0),
            // Errors without a count of requests are not evidence.
            value(1, What::TargetErrors, 7.0),
        ]
        .into();
        let samples = collect(&found(), &MetricsQuery::default(), &values);
        assert_eq!(samples.len(), 1);
        let one = &samples[0];
        assert_eq!(
            (one.arm.as_str(), one.requests, one.errors),
            ("stable", 100, 3)
        );
        assert_eq!((one.client_errors, one.cpu), (0, None));
        assert!((one.latency.expect("known").p99 - 50.0).abs() < 1e-9);
    }
}

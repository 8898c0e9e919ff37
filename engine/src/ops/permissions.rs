//! Which permissions the caller has on AWS, as far as reading tells: each read that a
//! rollout needs is made once, and nothing is written.

use super::examined::Examined;
use crate::model::{HostError, MetricsQuery, Millis};
use crate::target::Target as _;
use crate::target::aws::AwsTarget;

/// How far back metrics are read, ms.
const METRICS_MS: Millis = 5 * 60_000;
/// The name of these examined.
const ABOUT: &str = "permissions";

/// Makes each read that a rollout on the target needs, those of alarms too if it has some.
pub async fn read_all(target: &AwsTarget, alarms: &[String], now: Millis) -> Vec<Examined> {
    let metrics = MetricsQuery {
        since: now.saturating_sub(METRICS_MS),
        ..MetricsQuery::default()
    };
    let found = target.found();
    let mut reads = vec![
        (
            "weights, tasks and their health",
            unit(target.observe().await),
        ),
        ("other listeners and rules", unit(target.elsewhere().await)),
        ("task definitions", unit(target.families_and_roles().await)),
        ("metrics", unit(target.samples(&metrics).await)),
        ("auto scaling", unit(target.scaling().await)),
    ];
    for arm in found.arms.iter().filter(|arm| arm.service.is_some()) {
        reads.push(("images of tasks", unit(target.digests(&arm.name).await)));
    }
    if !alarms.is_empty() {
        reads.push(("alarms", unit(target.tripped(alarms, None).await)));
    }
    let mut examined = vec![];
    let mut permitted = vec![];
    for (what, read) in reads {
        match read {
            Ok(()) => permitted.push(what),
            Err(error) => {
                let one = Examined::wrong(ABOUT, error);
                // Both arms' tasks are read alike.
                if !examined.contains(&one) {
                    examined.push(one);
                }
            }
        }
    }
    permitted.dedup();
    if examined.is_empty() {
        let text = format!(
            "the caller may read {}; whether it may write was not tried",
            permitted.join(", ")
        );
        examined.push(Examined::fine(ABOUT, text));
    }
    examined
}

fn unit<T>(read: Result<T, HostError>) -> Result<(), HostError> {
    read.map(|_| ())
}

//! Which permissions the caller has on AWS, as far as reading tells: each read that a
//! rollout needs is made once, and nothing is written.

use super::examined::{Examined, Looks};
use crate::model::{HostError, MetricsQuery, Millis};
use crate::target::Target as _;
use crate::target::aws::AwsTarget;

/// How far back metrics are read, ms.
const METRICS_MS: Millis = 5 * 60_000;
/// The name of these examined.
const ABOUT: &str = "permissions";

/// Makes each read that a rollout on the target needs, those of alarms too if it has some.
/// What is not permitted is told at once.
pub async fn read_all(target: &AwsTarget, alarms: &[String], now: Millis, looks: &mut Looks<'_>) {
    let metrics = MetricsQuery {
        since: now.saturating_sub(METRICS_MS),
        ..MetricsQuery::default()
    };
    let mut permitted = vec![];
    let mut all = true;
    let mut each = |looks: &mut Looks<'_>, what, read: Result<(), HostError>| match read {
        Ok(()) => permitted.push(what),
        Err(error) => {
            all = false;
            let one = Examined::wrong(ABOUT, error);
            // Both arms' tasks are read alike.
            if !looks.has(&one) {
                looks.push(one);
            }
        }
    };
    for what in READS {
        looks.begin(what);
        let read = match what {
            WEIGHTS => unit(target.observe().await),
            ROUTES => unit(target.elsewhere().await),
            DEFINITIONS => unit(target.families_and_roles().await),
            METRICS => unit(target.samples(&metrics).await),
            _ => unit(target.scaling().await),
        };
        each(looks, what, read);
    }
    let arms = target.found().arms.iter();
    for arm in arms.filter(|arm| arm.service.is_some()) {
        looks.begin(IMAGES);
        each(looks, IMAGES, unit(target.digests(&arm.name).await));
    }
    if !alarms.is_empty() {
        looks.begin(ALARMS);
        each(looks, ALARMS, unit(target.tripped(alarms, None).await));
    }
    permitted.dedup();
    if all {
        let text = format!(
            "the caller may read {}; whether it may write was not tried",
            permitted.join(", ")
        );
        looks.push(Examined::fine(ABOUT, text));
    }
}

const WEIGHTS: &str = "weights, tasks and their health";
const ROUTES: &str = "other listeners and rules";
const DEFINITIONS: &str = "task definitions";
const METRICS: &str = "metrics";
const SCALING: &str = "auto scaling";
const IMAGES: &str = "images of tasks";
const ALARMS: &str = "alarms";
/// What is read of every target, in this order.
const READS: [&str; 5] = [WEIGHTS, ROUTES, DEFINITIONS, METRICS, SCALING];

fn unit<T>(read: Result<T, HostError>) -> Result<(), HostError> {
    read.map(|_| ())
}

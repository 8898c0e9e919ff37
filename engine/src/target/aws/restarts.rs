//! Tasks that stopped by themselves: they ended, were killed for their memory, or failed
//! health checks. ECS starts another one for each, so without looking nobody sees that they
//! did. ECS forgets a stopped task after about an hour.

use std::collections::BTreeMap;
use std::ops::Range;

use aws_sdk_ecs::types::{Container, DesiredStatus, Task, TaskStopCode};

use super::client::Clients;
use super::metrics::PERIOD_MS;
use super::services;
use crate::model::aws::Found;
use crate::model::query::Count;
use crate::model::{HostError, Millis, Point};

/// How ECS begins its reason for a container that was killed for its memory.
const OUT_OF_MEMORY: &str = "OutOfMemory";
/// Part of its reason for a task that it stopped because of health checks, those of the load
/// balancer or those of a container.
const HEALTH_CHECKS: &str = "health check";

/// One task that stopped by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stop {
    /// When, Unix ms.
    at: Millis,
    /// The code with which its container ended, where one did.
    exit_code: Option<i32>,
    out_of_memory: bool,
}

/// What is counted of such tasks for each arm, in each minute that has some; none if no arm
/// has a service.
pub(super) async fn counted(
    clients: &Clients,
    found: &Found,
    count: Count,
    times: Range<Millis>,
) -> Result<Option<Vec<Point>>, HostError> {
    let mut points = None;
    for arm in &found.arms {
        let Some(id) = &arm.service else {
            continue;
        };
        let tasks = services::all_tasks(clients, id, DesiredStatus::Stopped).await?;
        let stops: Vec<Stop> = tasks.iter().filter_map(stopped_by_itself).collect();
        let of_arm = by_minute(&stops, count, &times);
        let all: &mut Vec<Point> = points.get_or_insert_default();
        all.extend(of_arm.into_iter().map(|(at, value)| Point {
            arm: arm.name.clone(),
            at,
            value,
        }));
    }
    if let Some(points) = &mut points {
        points.sort_by(|a, b| (a.at, &a.arm).cmp(&(b.at, &b.arm)));
    }
    Ok(points)
}

/// The values of the minutes that begin within these times. Pure.
fn by_minute(stops: &[Stop], count: Count, times: &Range<Millis>) -> BTreeMap<Millis, f64> {
    let mut minutes = BTreeMap::new();
    for stop in stops {
        let at = stop.at - stop.at % Millis::from(PERIOD_MS);
        if !times.contains(&at) {
            continue;
        }
        let value = match count {
            Count::EndedWith => stop.exit_code.map(f64::from),
            Count::OutOfMemory => stop.out_of_memory.then_some(1.0),
            _ => Some(1.0),
        };
        let Some(value) = value else {
            continue;
        };
        let known = minutes.entry(at).or_insert(0.0);
        *known = match count {
            Count::EndedWith => f64::max(*known, value),
            _ => *known + value,
        };
    }
    minutes
}

/// A task that stopped by itself: not because a person, a deployment, scaling or the machine
/// beneath it had it stopped, and not before it ran. Pure.
fn stopped_by_itself(task: &Task) -> Option<Stop> {
    let at = u64::try_from(task.stopped_at()?.to_millis().ok()?).ok()?;
    let containers = task.containers();
    let ended = containers.iter().filter(|c| c.exit_code().is_some());
    // A sidecar that ends well with the others is not why.
    let own = ended.max_by_key(|c| c.exit_code().is_some_and(|code| code != 0));
    let killed = |c: &Container| c.reason().is_some_and(|r| r.starts_with(OUT_OF_MEMORY));
    let reason = task.stopped_reason().unwrap_or_default();
    let out_of_memory = containers.iter().any(killed) || reason.starts_with(OUT_OF_MEMORY);
    let ended_by_itself = match task.stop_code() {
        Some(TaskStopCode::EssentialContainerExited) => true,
        Some(TaskStopCode::ServiceSchedulerInitiated) => reason.contains(HEALTH_CHECKS),
        Some(_) => false,
        None => out_of_memory || reason.starts_with("Essential container"),
    };
    ended_by_itself.then(|| Stop {
        at,
        exit_code: match task.stop_code() {
            // It got the signal with which ECS stops every task.
            Some(TaskStopCode::ServiceSchedulerInitiated) => None,
            _ => own.and_then(Container::exit_code),
        },
        out_of_memory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_types::DateTime;

    fn task(code: TaskStopCode, reason: &str, containers: &[(i32, &str)]) -> Task {
        let containers = containers.iter().map(|(code, reason)| {
            let container = Container::builder().exit_code(*code);
            container.reason(*reason).build()
        });
        Task::builder()
            .stop_code(code)
            .stopped_reason(reason)
            .stopped_at(DateTime::from_secs(90))
            .set_containers(Some(containers.collect()))
            .build()
    }

    #[test]
    fn what_stopped_by_itself_is_told_from_what_was_stopped() {
        use TaskStopCode::{
            EssentialContainerExited, ServiceSchedulerInitiated, SpotInterruption,
            TaskFailedToStart, UserInitiated,
        };
        let of = |code, reason: &str, containers: &[(i32, &str)]| {
            let stop = stopped_by_itself(&task(code, reason, containers))?;
            assert_eq!(stop.at, 90_000);
            Some((stop.exit_code, stop.out_of_memory))
        };
        let ended = "Essential container in task exited";
        assert_eq!(
            of(EssentialContainerExited, ended, &[(0, ""), (1, "")]),
            Some((Some(1), false))
        );
        assert_eq!(
            of(EssentialContainerExited, ended, &[(0, "")]),
            Some((Some(0), false))
        );
        let killed = "OutOfMemoryError: Container killed due to memory usage";
        assert_eq!(
            of(EssentialContainerExited, ended, &[(137, killed), (0, "")]),
            Some((Some(137), true))
        );
        let ill = "Task failed ELB health checks in (target-group arn:aws:x)";
        assert_eq!(
            of(ServiceSchedulerInitiated, ill, &[(143, "")]),
            Some((None, false))
        );
        let ill = "Task failed container health checks";
        assert_eq!(of(ServiceSchedulerInitiated, ill, &[]), Some((None, false)));
        for (code, reason) in [
            (
                ServiceSchedulerInitiated,
                "Scaling activity initiated by (deployment ecs-svc/1)",
            ),
            (UserInitiated, "Task stopped by user"),
            (SpotInterruption, "Your Spot Task was interrupted."),
            (TaskFailedToStart, "CannotPullContainerError: not found"),
        ] {
            assert_eq!(of(code, reason, &[(143, "")]), None, "{reason}");
        }
        let stopping = Task::builder().stop_code(EssentialContainerExited).build();
        assert_eq!(stopped_by_itself(&stopping), None);
    }

    #[test]
    fn they_are_counted_by_the_minute() {
        let stop = |at, exit_code, out_of_memory| Stop {
            at,
            exit_code,
            out_of_memory,
        };
        let stops = [
            stop(59_999, Some(1), false),
            stop(60_000, Some(137), true),
            stop(119_000, Some(1), false),
            stop(180_000, None, false),
            stop(240_000, None, false),
        ];
        let of = |count| -> Vec<(Millis, f64)> {
            by_minute(&stops, count, &(60_000..180_001))
                .into_iter()
                .collect()
        };
        assert_eq!(of(Count::Restarts), [(60_000, 2.0), (180_000, 1.0)]);
        assert_eq!(of(Count::OutOfMemory), [(60_000, 1.0)]);
        assert_eq!(of(Count::EndedWith), [(60_000, 137.0)]);
    }
}

//! Which arm is stable and which the candidate, and how the roles end. Pure.

use crate::journal::Header;
use crate::journal::status::Status;
use crate::model::{
    Arm, ArmScaling, Capacity, Observed, Promotion, Release, Role, Scaling, Source, Weights,
};

/// The numbers of tasks, if the target has them: what all traffic needs, going by the
/// arm that has more of it; and what an arm without traffic keeps, which is what the
/// candidate has now.
pub fn capacity(live: &Observed, arms: &[Arm]) -> Option<Capacity> {
    let weights = live.weights();
    let shares = live.arms.iter().map(|a| (a, weights.share(&a.name)));
    let (serving, share) = shares.max_by(|a, b| a.1.total_cmp(&b.1))?;
    let candidate = arms.iter().find(|a| a.role == Role::Candidate)?;
    let idle = live.arm(&candidate.name)?.tasks?;
    Some(Capacity::of(serving.tasks?, share, idle))
}

/// What the traffic needs now: the larger of the number at the start and of what an arm has
/// now, because auto scaling or a person may have added tasks since. A number that became
/// smaller does not count: the stable arm may have lost tasks only because it has lost traffic.
/// Nor do the tasks that the candidate had without any traffic.
pub fn capacity_now(header: &Header, live: &Observed) -> Option<Capacity> {
    let start = header.capacity?;
    let tasks = |role| live.arm(header.arm(role)).and_then(|a| a.tasks);
    let stable = tasks(Role::Stable).unwrap_or(0);
    let candidate = tasks(Role::Candidate).filter(|tasks| *tasks > start.idle);
    Some(Capacity {
        full: start.full.max(stable).max(candidate.unwrap_or(0)),
        idle: start.idle,
    })
}

/// What auto scaling is told before a raise to the weights `wanted`: to take no task from
/// the stable arm, which the way back needs, and to keep the candidate's share. Nothing, if
/// it knows that already, or if it could not be told the last time.
pub fn scaling_for_a_raise(
    header: &Header,
    status: &Status,
    capacity: Capacity,
    wanted: &Weights,
) -> Vec<ArmScaling> {
    if status.unscalable {
        return vec![];
    }
    let all = scaled(header, status).filter_map(|first| {
        let arm = &first.arm;
        let now = told(status, arm).unwrap_or(first).scaling;
        let held = if *arm == header.arm(Role::Stable) {
            Scaling {
                in_suspended: true,
                ..now
            }
        } else {
            let tasks = capacity.for_share(wanted.share(arm));
            Scaling {
                min: now.min.max(tasks),
                max: now.max.max(tasks),
                ..now
            }
        };
        (held != now).then(|| ArmScaling {
            arm: arm.clone(),
            scaling: held,
        })
    });
    all.collect()
}

/// The first arm for which auto scaling was told something else than it shall do after
/// the rollout, and what that is: what it did when the rollout began. An arm that has all
/// traffic now and did not have it then may scale as the one that had it, or its old
/// limits would take tasks from under the users.
pub fn scaling_to_put_back(header: &Header, status: &Status, live: &Weights) -> Option<ArmScaling> {
    let stable = header.arm(Role::Stable);
    scaled(header, status).find_map(|first| {
        let told = told(status, &first.arm)?.scaling;
        let mut wanted = first.scaling;
        if first.arm != stable && live.share(&first.arm) >= 100.0 {
            let served = scaled(header, status).find(|other| other.arm == stable);
            let served = served.map_or(told, |other| other.scaling);
            wanted.min = wanted.min.max(served.min);
            wanted.max = wanted.max.max(served.max);
        }
        (told != wanted).then(|| ArmScaling {
            arm: first.arm.clone(),
            scaling: wanted,
        })
    })
}

/// What auto scaling shall do with an arm after a rollout whose journal cannot be read: as
/// when it began, but only what a rollout can have told it. `first` is what it did then,
/// from the first entry, and `live` what it does now; numbers that no rollout would have
/// asked for are somebody else's, and stay.
#[must_use]
pub fn scaling_without_a_journal(header: &Header, first: &ArmScaling, live: Scaling) -> Scaling {
    if first.arm == header.arm(Role::Stable) {
        return Scaling {
            in_suspended: live.in_suspended && first.scaling.in_suspended,
            ..live
        };
    }
    let most = header.capacity.map_or(0, |capacity| capacity.full);
    let back = |first: u32, live: u32| match live > first && live <= most {
        true => first,
        false => live,
    };
    let min = back(first.scaling.min, live.min);
    Scaling {
        min,
        max: back(first.scaling.max, live.max).max(min),
        ..live
    }
}

/// What auto scaling did with an arm before it is told the last of what it was told.
pub fn scaling_told_before(header: &Header, status: &Status, arm: &str) -> Option<Scaling> {
    let mut told = status.scaling.iter().filter(|told| told.arm == arm).rev();
    told.next();
    let first = scaled(header, status).find(|first| first.arm == arm);
    told.next().or(first).map(|told| told.scaling)
}

/// What auto scaling did with each arm that it scales, before the rollout told it anything.
pub fn scaled<'a>(header: &'a Header, status: &'a Status) -> impl Iterator<Item = &'a ArmScaling> {
    header.scaling.iter().chain(&status.scaled_since)
}

/// What auto scaling was last told about an arm.
fn told<'a>(status: &'a Status, arm: &str) -> Option<&'a ArmScaling> {
    status.scaling.iter().rfind(|told| told.arm == arm)
}

/// Gives the arms their roles: by flag, by traffic, or by name.
pub fn arms(live: &Observed, stable: Option<&str>) -> Result<Vec<Arm>, String> {
    let names = live.names();
    let stable = match stable {
        Some(name) if names.iter().any(|n| n == name) => name.to_owned(),
        Some(name) => {
            return Err(format!(
                "there is no arm {name:?}; there are {}",
                names.join(" and ")
            ));
        }
        None => stable_by_sight(&live.weights()).ok_or_else(|| {
            format!(
                "both arms have the same weight, so it is not clear which one is stable\n\nhint: say it with --stable {}",
                names.first().map_or("NAME", String::as_str)
            )
        })?,
    };
    let mut arms = roles(&names, &stable);
    for (arm, observed) in arms.iter_mut().zip(&live.arms) {
        arm.version.clone_from(&observed.release.version);
    }
    Ok(arms)
}

/// Arms of these names, with versions that nobody asked for.
pub fn roles(names: &[String], stable: &str) -> Vec<Arm> {
    let role = |name: &str| {
        if name == stable {
            Role::Stable
        } else {
            Role::Candidate
        }
    };
    names
        .iter()
        .map(|name| Arm {
            name: name.clone(),
            role: role(name),
            version: String::new(),
        })
        .collect()
}

/// The arm that is stable by name, or else the one with more traffic.
pub fn stable_by_sight(live: &Weights) -> Option<String> {
    if let Some(arm) = live.naming().stable() {
        return Some(arm.to_owned());
    }
    let most = live.0.iter().max_by_key(|w| w.weight)?;
    let alone = live.0.iter().filter(|w| w.weight == most.weight).count() == 1;
    alone.then(|| most.arm.clone())
}

/// Arms whose names are roles keep them: the stable arm gets the new release. Colours
/// change roles, and so do arms whose release cannot be started again.
///
/// # Errors
/// Says why the promotion that is `wanted` cannot be done.
pub fn promotion(
    release: Option<&Release>,
    wanted: Option<Promotion>,
    live: &Observed,
    arms: &[Arm],
) -> Result<Promotion, String> {
    let candidate = arms.iter().find(|a| a.role == Role::Candidate);
    let release = release.or_else(|| {
        let arm = live.arm(&candidate?.name)?;
        Some(&arm.release)
    });
    let copyable = release.is_some_and(|r| !matches!(r.source, Source::Urls(_)));
    let default = if copyable && live.naming().stable().is_some() {
        Promotion::Copy
    } else {
        Promotion::Swap
    };
    match wanted {
        Some(wanted) if wanted.copies() && !copyable => Err("a promotion by copy needs a candidate that can be started in the stable arm, and its source is a list of urls; use promotion = \"swap\"".to_owned()),
        chosen => Ok(chosen.unwrap_or(default)),
    }
}

//! Whether this machine, and its access to AWS, are as rollouts need them. Nothing is
//! changed but one row of the store, which shows that it can be written to.

use super::advice::Ask;
use super::app::{App, try_store};
use super::error::Error;
use super::examined::{Examined, Look, Looks};
use super::permissions;
use super::request::TargetRequest;
use crate::model::Phase;
use crate::model::aws::Access;
use crate::model::target::TargetSpec;
use crate::spec::Spec;
use crate::store::Open;
use crate::target::aws::client::configured_region;

/// From how far apart clocks on AWS refuses signatures, ms; the SDK corrects less.
const AHEAD_MAX_MS: u64 = 5 * 60_000;
/// How far apart clocks may be without a word, ms: metrics and deadlines are by the clock.
const AHEAD_FINE_MS: u64 = 30_000;
/// Most rollouts under way that are told one by one.
const ROLLOUTS_MAX: usize = 20;

/// Looks at the store, at the rollouts under way, and at the access to AWS; at the target
/// too, if the request or the rollout file names one there.
pub async fn examine(app: &App, request: &TargetRequest) -> Vec<Examined> {
    examine_aloud(app, request, &|_| ()).await
}

/// The same for somebody who waits: a call that hangs takes its time, and each thing is told
/// as soon as it was found.
pub async fn examine_aloud(
    app: &App,
    request: &TargetRequest,
    tell: &(dyn Fn(Look<'_>) + Send + Sync),
) -> Vec<Examined> {
    let mut looks = Looks::told_to(tell);
    let place = app.state_dir.display();
    looks.begin("the store");
    looks.push(match try_store(&app.state_dir, &app.listener).await {
        Ok(()) => Examined::fine("store", format!("{place} can be read and written")),
        Err(error) => Examined::wrong("store", error),
    });
    rollouts(app, &mut looks).await;
    let spec = match request.described() {
        Ok(spec) => spec,
        Err(error) => {
            looks.push(Examined::wrong("file", error));
            None
        }
    };
    on_aws(app, request, spec.as_ref(), &mut looks).await;
    looks.into_all()
}

/// Who drives what is under way.
async fn rollouts(app: &App, looks: &mut Looks<'_>) {
    looks.begin("the rollouts under way");
    let open = match app.store.open(None).await {
        Ok(open) => open,
        Err(error) => {
            looks.push(Examined::wrong("rollouts", Error::from(error)));
            return;
        }
    };
    if open.is_empty() {
        looks.push(Examined::fine("rollouts", "none is under way"));
    }
    let more = open.len().saturating_sub(ROLLOUTS_MAX);
    for open in open.iter().take(ROLLOUTS_MAX) {
        let driven = app.is_driven(&open.summary.rollout, &open.busy);
        looks.push(rollout(open, driven));
    }
    if more > 0 {
        let text = format!("{more} more are under way");
        looks.push(Examined::skipped("rollouts", text));
    }
}

/// How a rollout under way stands: pure.
fn rollout(open: &Open, driven: bool) -> Examined {
    let (id, phase) = (&open.summary.rollout, open.summary.phase);
    let driver = open.busy.driver().filter(|_| driven);
    if let Some(driver) = driver {
        let text = format!("{id} is {phase}, driven by process {}", driver.pid);
        return Examined::fine("rollouts", text);
    }
    if phase == Phase::Paused {
        return Examined::skipped(
            "rollouts",
            format!("{id} is paused, and waits for a person"),
        );
    }
    let gone = Error::busy(format!("{id} is {phase}, and no process drives it"))
        .ask(Ask::Resume(id.clone()), "goes on with it")
        .ask(Ask::Abort(id.clone()), "takes its traffic back");
    Examined::wrong("rollouts", gone)
}

/// Looks at the access to AWS. Where nothing names AWS, none is needed.
async fn on_aws(app: &App, request: &TargetRequest, spec: Option<&Spec>, looks: &mut Looks<'_>) {
    let aws = match spec.map(|spec| &spec.target) {
        Some(TargetSpec::Aws(aws)) => Some(&**aws),
        _ => None,
    };
    let flags = request.aws.access(Access::default());
    let wanted = aws.is_some() || flags != Access::default();
    let access = match aws {
        Some(aws) => match app.ports.access_of(aws).await {
            Ok(access) => access,
            Err(error) => {
                looks.push(Examined::wrong("region", error));
                return;
            }
        },
        None => flags,
    };
    let clients = app.ports.clients(&access).await;
    let told = &app.surroundings.network.aws;
    let source = match configured_region(&access, told).await {
        _ if access.region.is_some() => "named by the request, the rollout file or an ARN",
        Some(_) if told.region.is_some() => "named by AWS_REGION or AWS_DEFAULT_REGION",
        Some(_) => "named by the profile",
        None => "because nothing names one",
    };
    looks.push(Examined::fine(
        "region",
        format!("{}, {source}", clients.region),
    ));
    looks.begin("who calls AWS");
    let caller = clients.caller().await;
    // Without credentials AWS was not asked, but perhaps something on this machine.
    let asked = !matches!(&caller, Err(error) if error.code == "no-credentials");
    match caller {
        Ok(caller) => {
            let from = caller.source.map(|source| format!(", by {source}"));
            let text = format!("{}{}", caller.arn, from.unwrap_or_default());
            looks.push(Examined::fine("credentials", text));
        }
        Err(error) if wanted => looks.push(Examined::wrong("credentials", error)),
        Err(error) => {
            let why = error.message.lines().next().unwrap_or_default();
            let text = format!("not needed here, because no target on AWS is named: {why}");
            looks.push(Examined::skipped("credentials", text));
        }
    }
    if let Some(one) = clock(clients.ahead_ms().filter(|_| asked)) {
        looks.push(one);
    }
    let Some((aws, spec)) = aws.zip(spec) else {
        return;
    };
    looks.begin("the target");
    match app.ports.find_on_aws(aws).await {
        Ok(target) => {
            let found = target.found();
            let text = format!("{} ({})", found.address, found.route);
            looks.push(Examined::fine("target", text));
            let alarms = &spec.guardrails.alarms;
            permissions::read_all(&target, alarms, app.clock.now(), looks).await;
        }
        Err(error) => looks.push(Examined::wrong("target", error)),
    }
}

/// What the difference between the clocks means; nothing if AWS did not answer.
fn clock(ahead_ms: Option<i64>) -> Option<Examined> {
    let ahead = ahead_ms?;
    let apart = ahead.unsigned_abs();
    let seconds = apart / 1_000;
    let which = if ahead > 0 { "ahead of" } else { "behind" };
    let text = format!("the clock of this machine is {seconds} s {which} that of AWS");
    Some(match apart {
        0..=1_000 => Examined::fine("clock", "the clock of this machine is that of AWS"),
        apart if apart <= AHEAD_FINE_MS => Examined::fine("clock", text),
        apart => {
            let why = match apart >= AHEAD_MAX_MS {
                true => "AWS refuses requests that are signed so",
                false => "metrics and deadlines are read by it",
            };
            let error = Error::internal(format!("{text}: {why}"));
            Examined::wrong("clock", error.hint("set it, by NTP (chrony or timesyncd)"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::summary::Summary;
    use crate::store::{Busy, Owner};

    #[test]
    fn clocks_that_are_too_far_apart_are_a_problem() {
        assert_eq!(clock(None), None);
        for (ahead, wrong) in [
            (0, false),
            (-1_000, false),
            (30_000, false),
            (30_001, true),
            (-40_000, true),
            (600_000, true),
            (i64::MIN, true),
        ] {
            let one = clock(Some(ahead)).expect("an answer");
            assert_eq!(one.is_wrong(), wrong, "{ahead}: {one:?}");
        }
        let Some(Examined { found, .. }) = clock(Some(-40_000)) else {
            panic!("an answer");
        };
        let said = format!("{found:?}");
        assert!(said.contains("40 s behind that of AWS"), "{said}");
    }

    #[test]
    fn a_rollout_that_nobody_drives_is_a_problem_unless_it_waits_for_a_person() {
        let owner = Owner {
            host: "boot/pid".to_owned(),
            pid: 7,
            started: "1".to_owned(),
        };
        let open = |phase| Open {
            summary: Summary {
                rollout: "canary-a".to_owned(),
                target: "local:127.0.0.1:7900".to_owned(),
                title: "canary".to_owned(),
                plugin: None,
                created: 1,
                updated: 1,
                entries: 1,
                phase,
                note: String::new(),
                end: None,
            },
            busy: Busy {
                rollout: "canary-a".to_owned(),
                epoch: 1,
                owner: Some(owner.clone()),
                keeper: None,
                due: None,
                expires: 1,
            },
        };
        assert!(!rollout(&open(Phase::Progressing), true).is_wrong());
        assert!(rollout(&open(Phase::Progressing), false).is_wrong());
        assert!(!rollout(&open(Phase::Paused), false).is_wrong());
    }
}

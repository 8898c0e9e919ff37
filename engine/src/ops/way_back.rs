//! The way back: `rollback` and `abort`. It works with a store that fails or is not
//! there, and asks the target no more than it needs.

use std::sync::Arc;

use super::advice::{Advice, Ask, Input};
use super::app::App;
use super::command::{command, signal};
use super::error::{Error, Kind, Result};
use super::find::Purpose;
use super::gone;
use super::home::{Home, home, home_of_history};
use super::news::Note;
use super::request::TargetRequest;
use super::traffic::{Moved, Verb, give};
use crate::journal::status::Status;
use crate::journal::summary::Summary;
use crate::journal::{Entry, Event, Header, Work};
use crate::model::aws::AwsSpec;
use crate::model::target::TargetSpec;
use crate::model::{
    ArmScaling, Command, Elsewhere, End, HostError, Millis, Naming, Phase, Promotion, Role,
    Traffic, Way, Weights,
};
use crate::rollout::recovery::target_is_gone;
use crate::rollout::roles::scaling_without_a_journal;
use crate::rollout::{Options, PAUSE_MAX_MS, RolloutError, Standing};
use crate::store::{Busy, Claim, Durability, Page, Store, StoreError};
use crate::target::Target;

/// How long a change of a stack may take to obey a command, ms.
const HEARD_WITHIN_MS: Millis = 35_000;
/// How long the way back tries to tell a process that drives a rollout, ms: longer than
/// that process goes on trying a write.
const REACH_MS: Millis = 45_000;

/// How the traffic was taken back.
#[derive(Debug, Clone)]
pub enum TakenBack {
    /// By a small rollout of its own.
    Moved(Box<Moved>),
    /// By the rollout that had the target, with its status now.
    Aborted(Box<(Header, Status)>),
    /// The rollout ended and nothing was taken back, because the local balancer that it had
    /// is not there any more; with its status now.
    Ended(Box<(Header, Status)>),
    /// By the change of a stack that had the target.
    Through {
        /// The weights before.
        before: Weights,
        /// The weights as they were read back.
        now: Weights,
        /// Why the traffic belongs where it was taken.
        why: String,
    },
}

/// Takes all traffic back to the stable arm, or to the arm `to`; a rollout that is
/// under way is aborted.
pub async fn rollback(app: &App, request: &TargetRequest, to: Option<&str>) -> Result<TakenBack> {
    let driver = app.driver(Options::default());
    if let Some(id) = app.led_elsewhere(request).await? {
        let (header, _) = app.reached(&id).await?;
        return match gone::give_up(app, &header, "rollback").await? {
            true => Ok(TakenBack::Ended(Box::new(app.reached(&id).await?))),
            false => abort_instead(app, &id, to).await,
        };
    }
    // A rollout has pinned what the way back needs, so nothing has to be found on AWS.
    if let Some(TargetSpec::Aws(spec)) = request.named()?.map(|spec| spec.target)
        && let Some(route) = spec.find.route()
        && let Some(busy) = app.store.occupant(route).await?
        && !driver.is_change(&busy.rollout).await
        && has_journal(app, &busy).await
    {
        app.say_what_was_not_read(request);
        return abort_instead(app, &busy.rollout, to).await;
    }
    let (spec, target) = patiently(app, || way_back(app, request)).await?;
    let occupant = app.store.occupant(target.identity()).await?;
    let mut unread = None;
    if let Some(busy) = occupant {
        let change = driver.is_change(&busy.rollout).await;
        match (has_journal(app, &busy).await, change) {
            (true, true) => {
                let on = (&spec, target.as_ref());
                return through_stack_change(app, on, &busy.rollout, to).await;
            }
            (true, false) => return abort_instead(app, &busy.rollout, to).await,
            (false, _) => unread = Some((busy.rollout, change)),
        }
    }
    let (spec, target) = without_occupied(app, (spec, target)).await?;
    let live = patiently(app, || async { Ok(target.glance().await?) }).await?;
    let home = home(app, target.identity(), &live, to).await?;
    let identity = target.identity().to_owned();
    let on = (spec, target);
    let again = on.0.clone();
    let Some((rollout, change)) = unread else {
        let Home { arm: stable, why } = home;
        let weights = live.weights.all_to(&stable);
        if !live.all_on(&stable) {
            app.progress(format!("takes all traffic to {stable}: {why}"));
        }
        let mut moved = give(app, on, &live, Verb::Rollback, weights).await?;
        explain(app, &identity, &moved, &stable, &why).await;
        // A rollout of another folder may have held it back, and cannot be seen.
        let before = scaling_of_the_last(app, &identity).await;
        put_scaling_back(app, &again, (None, &before)).await;
        refuse_what_is_left(&again, &moved, &stable)?;
        moved.why = Some(why);
        return Ok(TakenBack::Moved(Box::new(moved)));
    };
    let command = match change {
        true => Command::TakeBack {
            to: home.arm.clone(),
        },
        false => abort_for("rollback"),
    };
    past_its_journal(app, on, &home, &rollout, &command).await
}

/// After a way back: the error that users of another route are still sent elsewhere. It
/// shares them between the two arms, and could not be found, or not be moved. Where a
/// person has named the only route, the others are as he wants them.
fn refuse_what_is_left(on: &TargetSpec, moved: &Moved, stable: &str) -> Result<()> {
    match &moved.elsewhere {
        Some((_, Ok(elsewhere))) => refuse_others(on, elsewhere, (&moved.now, stable)),
        _ => Ok(()),
    }
}

/// The same by what other routes send to the arms.
fn refuse_others(
    on: &TargetSpec,
    elsewhere: &[Elsewhere],
    (now, stable): (&Weights, &str),
) -> Result<()> {
    let only = matches!(on, TargetSpec::Aws(spec) if spec.find.only);
    let left: Vec<&Elsewhere> = Elsewhere::left_behind(elsewhere, stable).collect();
    if only || left.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = left
        .iter()
        .map(|route| format!("{route} ({})", route.route))
        .collect();
    let error = Error::rollback(format!(
        "{} is what the route of the target sends, but not all traffic was taken to {stable}: {}",
        now.shares(),
        named.join(", ")
    ))
    .give(
        Input::Only,
        "with the listener or rule that is left takes that one back",
    );
    Err(match left.iter().any(|route| route.way == Way::Unsaid) {
        true => error.give(
            Input::TestListener,
            "names a listener that is for tests alone",
        ),
        false => error,
    })
}

/// Gives up a rollout: all traffic back to the stable arm. Where no journal can be
/// read, what the request names as the target is taken back.
pub async fn abort(
    app: &App,
    request: &TargetRequest,
    id: Option<&str>,
    reason: &str,
) -> Result<TakenBack> {
    let (header, status) = match app.meant(request, id, Purpose::WayBack).await {
        Err(_) if let Some(unread) = unread(app, request, id).await? => {
            // Routes that came since go back with the others, if they can be read.
            let stable = unread.arm(Role::Stable);
            let came = app.ports.newcomers(&unread.target, stable).await;
            let pinned = unread.target.with(&came.unwrap_or_default());
            let reach = || async { Ok(app.ports.reach(&pinned).await?) };
            let on = (pinned.clone(), patiently(app, reach).await?);
            let home = Home {
                arm: unread.arm(Role::Stable).to_owned(),
                why: format!(
                    "it is the stable arm of rollout {}, whose journal cannot be read further",
                    unread.rollout
                ),
            };
            return past_its_journal(app, on, &home, &unread.rollout, &abort_for(reason)).await;
        }
        Err(error) if knows_nothing(app).await => {
            let named = request.named()?.is_some();
            if id.is_some() || !named {
                let error = error.context("no journal can be read that says what to take back");
                return Err(error.give(
                    Input::Target,
                    "without a rollout names the load balancer whose traffic is taken back",
                ));
            }
            return rollback(app, request, None).await;
        }
        found => found?,
    };
    if status.is_over() {
        return Err(super::command::over(&header, &status));
    }
    match header.work {
        Work::StackChange { .. } => abort_change(app, &header).await,
        _ if gone::give_up(app, &header, reason).await? => Ok(TakenBack::Ended(Box::new(
            app.reached(&header.rollout).await?,
        ))),
        _ => abort_rollout(app, &header.rollout, reason).await,
    }
}

/// An unfinished rollout whose journal has a first entry, which says where it is and
/// what is stable, and a later one that cannot be read.
async fn unread(app: &App, request: &TargetRequest, id: Option<&str>) -> Result<Option<Header>> {
    let Some(store) = app.below() else {
        return Ok(None);
    };
    let Ok(id) = app.meant_id(request, id, Purpose::WayBack).await else {
        return Ok(None);
    };
    let Ok(Some(header)) = store.header(&id).await else {
        return Ok(None);
    };
    // The header does not say whether the rollout has ended; the lease does.
    let busy = store.occupant(&header.identity).await.unwrap_or_default();
    Ok(busy
        .is_some_and(|busy| busy.rollout == id)
        .then_some(header))
}

/// Takes the traffic of a rollout back whose journal cannot be read. A process that
/// drives it has its status in memory, and is told by `command`.
async fn past_its_journal(
    app: &App,
    on: (TargetSpec, Arc<dyn Target>),
    Home { arm: stable, why }: &Home,
    rollout: &str,
    command: &Command,
) -> Result<TakenBack> {
    let live = patiently(app, || async { Ok(on.1.glance().await?) }).await?;
    match live.all_on(stable) {
        false => app.progress(format!("takes all traffic to {stable}: {why}")),
        true => app.note(format!(
            "nothing is taken back: {stable} has all traffic already ({why})"
        )),
    }
    let weights = live.weights.all_to(stable);
    let moved = give(app, on.clone(), &live, Verb::Rollback, weights).await?;
    let again = see_it_stay(app, on.clone(), stable, rollout, command).await?;
    let store = app.below().unwrap_or_else(|| app.store.clone());
    let header = store.header(rollout).await.unwrap_or_default();
    put_scaling_back(app, &on.0, (header.as_ref(), &[])).await;
    let moved = Moved {
        why: Some(why.clone()),
        ..again.unwrap_or(moved)
    };
    refuse_what_is_left(&on.0, &moved, stable)?;
    Ok(TakenBack::Moved(Box::new(moved)))
}

/// What auto scaling did before the last rollout of a target that is known here; nothing if
/// none is. That nothing scaled the target then says nothing about today.
async fn scaling_of_the_last(app: &App, identity: &str) -> Vec<ArmScaling> {
    if app.unwritten().is_some() {
        return vec![];
    }
    let page = Page::newest(Some(identity), 1).of_strategies();
    let rows = app.store.history(&page).await.unwrap_or_default();
    let Some(row) = rows.first() else {
        return vec![];
    };
    let last = app.store.header(&row.rollout).await.unwrap_or_default();
    last.map_or_else(Vec::new, |last| last.scaling)
}

/// Puts auto scaling back after a rollout whose journal cannot be read: its first entry
/// says what auto scaling did before. What may be left is said, with the command that ends
/// it, but not what was so at the end of the last rollout that is known (`before`). The
/// traffic is back already, so nothing here is an error.
async fn put_scaling_back(
    app: &App,
    spec: &TargetSpec,
    (header, before): (Option<&Header>, &[ArmScaling]),
) {
    let known = header.map_or(&[][..], |header| &header.scaling);
    if header.is_some() && known.is_empty() {
        return;
    }
    let with_services = |spec: &AwsSpec| {
        let found = spec.found.as_ref();
        found.is_some_and(|found| found.arms.iter().all(|arm| arm.service.is_some()))
    };
    let whole = match (header.map(|header| &header.target), spec) {
        (Some(TargetSpec::Aws(pinned)), _) => app.ports.on_aws(pinned).await,
        (None, TargetSpec::Aws(spec)) if with_services(spec) => app.ports.on_aws(spec).await,
        // The way back has looked for no service.
        (None, TargetSpec::Aws(spec)) => {
            let whole = AwsSpec {
                found: None,
                ..(**spec).clone()
            };
            app.ports.find_on_aws(&whole).await
        }
        _ => return,
    };
    let read = async {
        let target = whole?;
        Ok::<_, HostError>((target.scaling().await?, target))
    };
    let (live, target) = match read.await {
        Ok(read) => read,
        Err(error) => {
            if !known.is_empty() {
                app.note(format!(
                    "the rollout held auto scaling back, and whether it still is could not be read: {error}"
                ));
            }
            return;
        }
    };
    for ArmScaling { arm, scaling: now } in live {
        let first = known.iter().find(|first| first.arm == arm);
        let (Some(first), Some(header)) = (first, header) else {
            let known = |was: &ArmScaling| was.arm == arm && was.scaling.in_suspended;
            if now.in_suspended && !before.iter().any(known) {
                app.note(format!(
                    "scale-in of {arm} is suspended, and no journal says whether a rollout did that; if so, end it with `{}`",
                    target.scaling_command(&arm, None)
                ));
            }
            continue;
        };
        let mut now = now;
        let wanted = scaling_without_a_journal(header, first, now);
        if wanted != now {
            match target.set_scaling(&arm, &wanted).await {
                Ok(()) => {
                    app.progress(format!("auto scaling of {arm}: {wanted}"));
                    now = wanted;
                }
                Err(error) => app.note(format!("auto scaling of {arm} could not be told: {error}")),
            }
        }
        if now != first.scaling {
            app.note(format!(
                "auto scaling of {arm} was {} when the rollout began and is {now}; if nobody else wants that, put it back with `{}`",
                first.scaling,
                target.scaling_command(&arm, Some(&first.scaling))
            ));
        }
    }
}

/// Aborts a rollout and waits until it is rolled back.
pub async fn abort_rollout(app: &App, id: &str, reason: &str) -> Result<TakenBack> {
    let abort = abort_for(reason);
    if let Err(error) = command(app, id, &abort, Status::is_over).await {
        return Err(not_aborted(app, id, error).await);
    }
    app.say_unwritten();
    let (header, status) = app.reached(id).await?;
    if matches!(status.end, Some((End::RolledBack, _))) {
        let stable = header.arm(Role::Stable);
        if app.unwritten().is_some() {
            let target = app.ports.reach(&header.target).await?;
            let on = (header.target.clone(), target);
            see_it_stay(app, on, stable, id, &abort).await?;
        }
        take_what_came(app, &header, &status).await?;
    }
    // A move by hand may have ended before it heard of it.
    if matches!(header.work, Work::Verb { .. }) && !matches!(status.end, Some((End::RolledBack, _)))
    {
        let stable = header.arm(Role::Stable);
        let reach = || async { Ok(app.ports.reach(&header.target).await?) };
        let target = patiently(app, reach).await?;
        let live = patiently(app, || async { Ok(target.glance().await?) }).await?;
        let on = (header.target.clone(), target);
        let weights = live.weights.all_to(stable);
        app.progress(format!(
            "{id} had ended before it could be given up; takes all traffic to {stable}"
        ));
        let moved = give(app, on, &live, Verb::Rollback, weights).await?;
        refuse_what_is_left(&header.target, &moved, stable)?;
        return Ok(TakenBack::Moved(Box::new(moved)));
    }
    Ok(TakenBack::Aborted(Box::new((header, status))))
}

/// After the way back of a rollout: takes the routes back that came while it was under way,
/// if whoever drove it has not. Where they cannot be read, its end says so already.
///
/// # Errors
/// Rollback failed, if users are still sent elsewhere by one.
pub(super) async fn take_what_came(app: &App, header: &Header, status: &Status) -> Result<()> {
    let stable = header.arm(Role::Stable);
    let read = async || {
        let target = app.ports.reach(&header.target).await?;
        target.elsewhere().await
    };
    let Ok(mut elsewhere) = read().await else {
        return Ok(());
    };
    if Elsewhere::left_behind(&elsewhere, stable).next().is_none() {
        return Ok(());
    }
    let came = app.ports.newcomers(&header.target, stable).await;
    let mut came = came.unwrap_or_default();
    let left = || Elsewhere::left_behind(&elsewhere, stable);
    came.retain(|also| left().any(|left| left.route == also.route));
    let all = header.target.with(&came);
    let routes = came.iter().map(|also| (&*also.route, &*also.place));
    take_each(app, &all, routes, stable).await;
    if !came.is_empty()
        && let Ok(now) = read().await
    {
        elsewhere = now;
    }
    refuse_others(&all, &elsewhere, (&status.weights, stable))
}

/// The error of an abort that could not reach the target: nothing was taken back yet.
async fn not_aborted(app: &App, id: &str, error: Error) -> Error {
    if error.target.is_none() {
        return error;
    }
    let last = match app.reached(id).await {
        Ok((_, status)) => format!("; the journal has it last at {}", status.weights.shares()),
        Err(_) => String::new(),
    };
    let message = format!(
        "rollout {id} is to be taken back, and nothing was taken back yet, because the target could not be read: {error}{last}"
    );
    let failed = Error {
        advice: error.advice.clone(),
        ..Error::rollback(message)
    };
    failed.ask(Ask::Resume(id.to_owned()), "goes on with the way back")
}

fn abort_for(reason: &str) -> Command {
    Command::Abort {
        reason: reason.to_owned(),
    }
}

/// Takes the traffic back while a stack is being changed. CloudFormation goes on with
/// the stack.
async fn abort_change(app: &App, header: &Header) -> Result<TakenBack> {
    let id = &header.rollout;
    let reach = || async {
        let target = app.ports.reach(&header.target).await?;
        target.traffic().await?;
        Ok(target)
    };
    match patiently(app, reach).await {
        Ok(target) => through_stack_change(app, (&header.target, target.as_ref()), id, None).await,
        // A load balancer that was deleted with its stack has no traffic to take back, so
        // only the end of the rollout is missing in its journal.
        Err(error)
            if error
                .target
                .as_ref()
                .is_some_and(|e| target_is_gone(header, e))
                && app.living_owner(header).await?.is_none() =>
        {
            app.driver(Options::default()).drive(id).await?;
            Ok(TakenBack::Aborted(Box::new(app.reached(id).await?)))
        }
        Err(error) => Err(error),
    }
}

/// Whether the journal of a rollout can be read. A process can die between its claim and
/// its first entry, and a journal can be damaged; users must not stay on the candidate
/// because of either.
async fn has_journal(app: &App, busy: &Busy) -> bool {
    app.journal(&busy.rollout).await.is_ok()
}

/// Aborts the rollout that has the target, so that it takes its traffic back.
async fn abort_instead(app: &App, rollout: &str, to: Option<&str>) -> Result<TakenBack> {
    refuse_another_arm(app, rollout, to).await?;
    if let Some(header) = app.store.header(rollout).await.unwrap_or_default() {
        app.progress(format!(
            "gives up rollout {rollout}, which takes all traffic to {}, its stable arm",
            header.arm(Role::Stable)
        ));
    }
    abort_rollout(app, rollout, "rollback").await
}

fn not_read(error: &Error) -> Error {
    let message =
        format!("nothing was taken back, and where the traffic is could not be read: {error}");
    Error {
        advice: error.advice.clone(),
        ..Error::rollback(message)
    }
}

/// Refuses an arm other than the stable one of a rollout that is under way: its journal
/// says where its way back goes.
async fn refuse_another_arm(app: &App, rollout: &str, to: Option<&str>) -> Result<()> {
    let (header, ..) = app.journal(rollout).await?;
    let stable = header.arm(Role::Stable);
    let Some(to) = to else {
        // In the journal of `rollback`, the arm that it gives all traffic is the stable one.
        let naming = Naming::of(header.arms.iter().map(|arm| arm.name.as_str()));
        let by_hand = matches!(header.work, Work::Verb { .. }) && !header.work.goes_back();
        if by_hand && naming.stable().is_none() {
            return refuse_without_home(app, &header).await;
        }
        return match (&header.work, naming.stable()) {
            (Work::Verb { actor, .. }, Some(named)) if named != stable => Err(Error::busy(
                format!("{actor} takes all traffic to {stable} just now ({rollout})"),
            )
            .ask(
                Ask::RollbackTo(named.to_owned()),
                format!("takes it to {named} once that is done"),
            )),
            _ => Ok(()),
        };
    };
    if stable == to {
        return Ok(());
    }
    Err(Error::usage(format!(
        "rollout {rollout} is under way and its stable arm is {stable}, so the traffic is not taken to {to}"
    ))
    .ask(
        Ask::Rollback,
        format!("without the name of an arm takes it back to {stable}"),
    )
    .ask(
        Ask::Switch(to.to_owned()),
        format!("gives it to {to} after that"),
    ))
}

/// Refuses to give up a move by hand where it would not take users to where a way back goes:
/// nothing said which arm is stable when it began, so it went by the traffic.
async fn refuse_without_home(app: &App, header: &Header) -> Result<()> {
    let stable = header.arm(Role::Stable);
    let why = match home_of_history(app, &header.identity).await? {
        Some(home) if home.arm == stable => return Ok(()),
        Some(home) => format!("a way back goes to {}: {}", home.arm, home.why),
        None => "no arm is called stable and no earlier rollout says which one is".to_owned(),
    };
    let error = Error::busy(format!(
        "{} moves the traffic by hand just now, and {why}",
        header.rollout
    ))
    .ask(
        Ask::Abort(header.rollout.clone()),
        format!("gives it up and takes all traffic to {stable}, which had most of it before"),
    );
    let others = header.arms.iter().filter(|arm| arm.name != stable);
    Err(others.fold(error, |error, arm| {
        let does = format!("takes it to {} after that", arm.name);
        error.ask(Ask::RollbackTo(arm.name.clone()), does)
    }))
}

/// A target without the routes that something else holds: the way back of the others does
/// not wait for it.
async fn without_occupied(
    app: &App,
    (spec, target): (TargetSpec, Arc<dyn Target>),
) -> Result<(TargetSpec, Arc<dyn Target>)> {
    let TargetSpec::Aws(aws) = &spec else {
        return Ok((spec, target));
    };
    let Some(found) = &aws.found else {
        return Ok((spec, target));
    };
    let mut free = vec![];
    for also in &found.also {
        let Ok(Some(busy)) = app.store.occupant(&also.route).await else {
            free.push(also.clone());
            continue;
        };
        let note = Note::from(format!(
            "{} is left to {}, which has it",
            also.place, busy.rollout
        ));
        let does = "takes that one back too";
        app.note(note.advise(Advice::ask(Ask::Abort(busy.rollout), does)));
    }
    if free.len() == found.also.len() {
        return Ok((spec, target));
    }
    let mut alone = (**aws).clone();
    if let Some(found) = &mut alone.found {
        found.also = free;
    }
    let target = app.ports.on_aws(&alone).await?;
    Ok((TargetSpec::Aws(Box::new(alone)), target))
}

/// Does something that the way back begins with, and tries it again for minutes while
/// the target does not answer.
async fn patiently<T, F, R>(app: &App, read: F) -> Result<T>
where
    F: Fn() -> R,
    R: Future<Output = Result<T>>,
{
    let options = Options::default();
    let give_up = app.clock.now() + options.way_back_patience_ms;
    let mut pause = options.retry_ms;
    loop {
        let error = match read().await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        // If nothing listens at a local address, waiting does not help.
        let passes = error
            .target
            .as_ref()
            .is_some_and(|e| e.retryable && e.code != "admin-unreachable");
        if !passes {
            return Err(match error.kind == Kind::Denied {
                true => not_read(&error),
                false => error,
            });
        }
        if app.clock.now() >= give_up {
            return Err(not_read(&error));
        }
        pause = (pause * 2).min(PAUSE_MAX_MS);
        app.progress(format!(
            "{error}; tries again in {} s",
            pause.div_ceil(1_000)
        ));
        app.clock.sleep_until(app.clock.now() + pause).await;
    }
}

/// A change of a stack has the target. The process that makes it takes the traffic
/// back when it hears of it, within seconds; if that process is gone, this one does,
/// by the journal of the change.
async fn through_stack_change(
    app: &App,
    (spec, target): (&TargetSpec, &dyn Target),
    change: &str,
    to: Option<&str>,
) -> Result<TakenBack> {
    let live = patiently(app, || async { Ok(target.traffic().await?) }).await?;
    let Home { arm: stable, why } = home(app, target.identity(), &live, to).await?;
    let belongs = why.clone();
    app.progress(format!("takes all traffic to {stable}: {why}"));
    let (header, ..) = app.journal(change).await?;
    let signal = signal(app, &Command::TakeBack { to: stable.clone() });
    app.store.signal(change, &signal).await?;
    let give_up = app.clock.now() + HEARD_WITHIN_MS;
    let why = loop {
        let (_, status, _) = app.journal(change).await?;
        if status.consumed.contains(&signal.id) {
            break status.taken_back.and_then(|wish| wish.refused);
        }
        if status.is_over() {
            return Err(Error::rollback(format!(
                "the change of the stack ended just before it was told to take the traffic to {stable}"
            ))
            .ask(Ask::Rollback, "once more takes it back"));
        }
        if app.living_owner(&header).await?.is_none() {
            let driven = app.driver(Options::default()).drive(change).await;
            let (_, status, _) = app.journal(change).await?;
            if status.consumed.contains(&signal.id) {
                break status.taken_back.and_then(|wish| wish.refused);
            }
            match driven {
                Ok(Standing::Held(hold)) => break Some(hold.to_string()),
                Ok(_) => break Some("another command came first".to_owned()),
                // Another process has taken the change over, and obeys.
                Err(RolloutError::Store(StoreError::Busy(_) | StoreError::Fenced { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(why) = app.unwritten() {
            return Err(Error::rollback(format!(
                "another process is changing this stack, and cannot be told to take the traffic back, which is {} now: {why}",
                live.weights.shares()
            ))
            .give(
                Input::StateFolder,
                "does it, if it names another folder, which can be written to",
            ));
        }
        if app.clock.now() >= give_up {
            break Some("the process that changes the stack did not answer".to_owned());
        }
        app.clock.sleep_until(app.clock.now() + 500).await;
    };
    let mut traffic = target.glance().await?;
    if traffic.weights.share(&stable) >= 100.0 && !traffic.all_on(&stable) {
        take_the_rest(app, spec, &traffic, &stable).await;
        traffic = target.glance().await?;
    }
    let now = traffic.weights.clone();
    if now.share(&stable) < 100.0 {
        let why = why.unwrap_or_else(|| "something else moved it again".to_owned());
        return Err(Error::rollback(format!(
            "the traffic could not be taken to {stable}: {why}; it is at {}",
            now.shares()
        )));
    }
    if !traffic.all_on(&stable) {
        return Err(Error::rollback(format!(
            "not all traffic was taken to {stable}: the change of the stack looks after those routes alone that had the same weights when it began, and the traffic is at {}",
            traffic.shares()
        ))
        .give(Input::Only, "with the listener or rule that is left takes that one back now"));
    }
    let (header, status) = app.reached(change).await?;
    if !status.is_over() {
        // This process is about to end and must not keep what it took over.
        app.let_go(change).await?;
        if app.living_owner(&header).await?.is_none() {
            let note = Note::from(
                "CloudFormation is still changing the stack and may move the traffic again, and no process watches it",
            );
            app.note(note.advise(Advice::ask(
                Ask::Resume(change.to_owned()),
                format!(
                    "watches it, and takes the traffic to {stable} again if the stack moves it"
                ),
            )));
        }
    }
    app.say_unwritten();
    Ok(TakenBack::Through {
        before: live.weights,
        now,
        why: belongs,
    })
}

/// Takes the routes back that a change of a stack does not look after, each by a small
/// rollout of its own: they were apart when it began, so it does not occupy them. What
/// fails is noted.
async fn take_the_rest(app: &App, spec: &TargetSpec, live: &Traffic, stable: &str) {
    let left = live.others.iter().filter(|o| !o.gives_all_to(stable));
    let left = left.map(|other| (&*other.route, &*other.place));
    take_each(app, spec, left, stable).await;
}

/// Takes these routes of a target back, each by a small rollout of its own; with each, what
/// people call it.
async fn take_each<'a>(
    app: &App,
    spec: &TargetSpec,
    routes: impl Iterator<Item = (&'a str, &'a str)>,
    stable: &str,
) {
    let TargetSpec::Aws(spec) = spec else { return };
    let Some(found) = &spec.found else { return };
    for (route, place) in routes {
        // Another rollout has it, and its users are on its way.
        if let Ok(Some(busy)) = app.store.occupant(route).await {
            app.note(format!("{place} is moved by {}", busy.rollout));
            continue;
        }
        let alone = AwsSpec {
            found: Some(found.alone(route)),
            ..(**spec).clone()
        };
        let taken = async {
            let target = app.ports.on_aws(&alone).await?;
            let seen = target.glance().await?;
            let weights = seen.weights.all_to(stable);
            let on = (TargetSpec::Aws(Box::new(alone)), target as Arc<dyn Target>);
            give(app, on, &seen, Verb::Rollback, weights).await
        };
        if let Err(error) = Box::pin(taken).await {
            app.note(format!("{place}: {error}"));
        }
    }
}

/// Notes what it means that nothing has changed, and that both arms run the same version
/// after a promotion by copy. Whatever cannot be read is left out: the traffic is where it
/// belongs.
async fn explain(app: &App, identity: &str, moved: &Moved, stable: &str, why: &str) {
    let other = moved.now.0.iter().find(|w| w.arm != stable);
    let undo = match newest_promotion(app, identity).await {
        // Where the arms were swapped, the version of before is at home.
        Ok(Some(header))
            if header.promotion == Promotion::Swap && header.arm(Role::Stable) == stable =>
        {
            None
        }
        Ok(Some(header)) if !matches!(header.work, Work::Undo { .. }) => {
            let id = &header.rollout;
            let old = header
                .stable
                .as_ref()
                .map_or("", |old| old.version.as_str());
            let both = match header.promotion {
                Promotion::Copy | Promotion::CopyWhole => {
                    format!("; rollout {id} has put its version into both arms")
                }
                Promotion::Swap => String::new(),
            };
            let undo = Advice::ask(Ask::Undo(id.clone()), format!("brings {old} back"));
            Some((both, undo))
        }
        _ => None,
    };
    let (both, undo) = undo.unzip();
    let both = both.unwrap_or_default();
    if !moved.changed() {
        let page = Page::newest(Some(identity), 20);
        let newest = app.store.history(&page).await.unwrap_or_default();
        let mut before = newest.iter().filter(|row| row.rollout != moved.rollout);
        let newest = before.find_map(|row| row.end);
        // Nobody is sent to what was found bad a moment ago.
        let has_just_gone_back = newest == Some(End::RolledBack);
        let nothing = Note::from(format!(
            "nothing was taken back: {stable} had all traffic already ({why}){both}"
        ));
        app.note(match undo {
            Some(undo) => nothing.advise(undo),
            None => nothing,
        });
        let other = other.filter(|_| !has_just_gone_back);
        if let Some(other) = other {
            let arm = other.arm.clone();
            let does = format!("gives all traffic to {arm}");
            let note = Note::from(format!("{arm} has no traffic"));
            app.note(note.advise(Advice::ask(Ask::RollbackTo(arm), does)));
        }
    } else if let Some(undo) = undo.filter(|_| !both.is_empty()) {
        app.note(Note::from(both.trim_start_matches("; ")).advise(undo));
    }
}

/// The newest promotion on a target; a later undo of one counts as one too.
pub(super) async fn newest_promotion(app: &App, identity: &str) -> Result<Option<Header>> {
    for row in app
        .store
        .history(&Page::newest(Some(identity), 100))
        .await?
    {
        if row.end != Some(End::Promoted) {
            continue;
        }
        if let Some(header) = app.store.header(&row.rollout).await? {
            return Ok(Some(header));
        }
    }
    Ok(None)
}

/// The target, like [`App::target`], but read with no more calls than the way back needs.
pub(super) async fn way_back(
    app: &App,
    request: &TargetRequest,
) -> Result<(TargetSpec, Arc<dyn Target>)> {
    let Some(TargetSpec::Aws(spec)) = request.named()?.map(|spec| spec.target) else {
        return app.target(request).await;
    };
    app.say_what_was_not_read(request);
    let route = spec.find.route();
    let target = match app.ports.way_back_on_aws(&spec).await {
        // An earlier rollout on this route has journaled which arm is which.
        Err(error) if !error.retryable && route.is_some() => {
            let newest = app.store.history(&Page::newest(route, 1)).await?;
            let header = match newest.first() {
                Some(row) => app.store.header(&row.rollout).await?,
                None => None,
            };
            let known = header.and_then(|header| match header.target {
                TargetSpec::Aws(aws) => Some(aws),
                _ => None,
            });
            let known = known.ok_or(error)?;
            let known = AwsSpec {
                access: spec.access.clone(),
                ..*known
            };
            app.ports.way_back_on_aws(&known).await?
        }
        target => target?,
    };
    let found = Some(target.found().clone());
    let pinned = TargetSpec::Aws(Box::new(AwsSpec { found, ..*spec }));
    Ok((pinned, target))
}

/// Whether the store has no journal at all, or none that can be read.
async fn knows_nothing(app: &App) -> bool {
    let store = app.below().unwrap_or_else(|| app.store.clone());
    let newest = store.history(&Page::newest(None, 1)).await;
    newest.map_or(true, |all| all.is_empty())
}

/// A process that drives a rollout and could not be told of the way back may move
/// the traffic again until it is told. If it has, the traffic is taken back once more.
async fn see_it_stay(
    app: &App,
    on: (TargetSpec, Arc<dyn Target>),
    stable: &str,
    rollout: &str,
    command: &Command,
) -> Result<Option<Moved>> {
    let (Some(_), Some(store)) = (app.unwritten(), app.below()) else {
        return Ok(None);
    };
    reach_the_driver(app, store.as_ref(), on.1.identity(), rollout, command).await?;
    let live = patiently(app, || async { Ok(on.1.glance().await?) }).await?;
    let again = match live.all_on(stable) {
        true => None,
        false => {
            let weights = live.weights.all_to(stable);
            Some(give(app, on.clone(), &live, Verb::Rollback, weights).await?)
        }
    };
    if store.load(rollout, 0).await.is_err() {
        close_unreadable(app, store.as_ref(), on.1.identity(), rollout).await;
    }
    Ok(again)
}

/// Ends a rollout whose journal cannot be read, after its traffic was taken back: no
/// process could go on with it, and its target would stay busy. If the end cannot be
/// written either, the rollout stays as it is.
async fn close_unreadable(app: &App, store: &dyn Store, identity: &str, rollout: &str) {
    let now = app.clock.now();
    let claim = Claim {
        target: identity,
        also: &[],
        rollout,
        owner: &app.owner,
        now,
        ttl_ms: Options::default().lease_ttl_ms,
        dead_epoch: None,
    };
    let page = Page::newest(Some(identity), 100);
    let rows = store.history(&page).await.unwrap_or_default();
    let row = rows.into_iter().find(|row| row.rollout == rollout);
    let (Ok(lease), Some(row)) = (store.claim(claim).await, row) else {
        return;
    };
    let reason = "its journal cannot be read; a person took its traffic back".to_owned();
    let entry = Entry {
        seq: row.entries,
        at: now,
        epoch: lease.epoch,
        event: Event::Ended {
            end: End::RolledBack,
            reason: reason.clone(),
        },
    };
    let ended = Summary {
        updated: now,
        entries: row.entries.saturating_add(1),
        phase: Phase::RolledBack,
        note: reason,
        end: Some(End::RolledBack),
        ..row
    };
    let written = store
        .append(&lease, vec![entry], &ended, Durability::Power)
        .await;
    if written.is_ok() {
        let _ = store.release(&lease).await;
    } else {
        let _ = store.park(&lease, None).await;
    }
}

/// Waits until the process that drives a rollout was told of the way back, or has lost
/// the rollout: before that it may move the traffic again.
///
/// # Errors
/// Rollback failed, if it still drives the rollout after [`REACH_MS`]: a person must stop
/// it.
async fn reach_the_driver(
    app: &App,
    store: &dyn Store,
    identity: &str,
    rollout: &str,
    command: &Command,
) -> Result<()> {
    let give_up = app.clock.now() + REACH_MS;
    let signal = signal(app, command);
    let mut told = false;
    let mut said = false;
    loop {
        let busy = store.occupant(identity).await.unwrap_or_default();
        // This process itself may drive it: then it knows.
        let other = |busy: &Busy| busy.driver().is_some_and(|owner| *owner != app.owner);
        let busy = busy.filter(|busy| app.is_driven(rollout, busy) && other(busy));
        let Some(pid) = busy.and_then(|busy| busy.driver().map(|owner| owner.pid)) else {
            return Ok(());
        };
        told = told || store.signal(rollout, &signal).await.is_ok();
        if app.clock.now() >= give_up {
            return Err(Error::rollback(format!(
                "the traffic was taken back, but process {pid} still drives rollout {rollout} and may move it again"
            ))
            .hint(format!("stop that process (`kill {pid}`)"))
            .ask(Ask::Rollback, "after that takes it back once more"));
        }
        if !said {
            app.progress(format!(
                "process {pid} still drives rollout {rollout}: waits until it knows"
            ));
            said = true;
        }
        app.clock.sleep_until(app.clock.now() + 500).await;
    }
}

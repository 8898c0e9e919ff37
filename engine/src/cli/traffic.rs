//! Verbs that speak to a target: `set-weights`, `switch`, `rollback`. Each is
//! a small rollout of its own, so it is leased, checked, journaled, read back.

use std::sync::Arc;

use clap::Args;

use super::exit::Exit;
use super::run::{new_id_part, roles, stable_by_sight};
use super::{Global, command, render, watch};
use crate::journal::{Event, FORMAT, Header, Work};
use crate::model::{Capacity, Command, End, Promotion, Role, Traffic, Way, Weights};
use crate::ops::app::App;
use crate::ops::begin::begin;
use crate::ops::{Error, Kind};
use crate::rollout::{Options, PAUSE_MAX_MS, Standing};
use crate::spec::aws::AwsSpec;
use crate::spec::{ADMIN_DEFAULT, Guardrails, TargetSpec};
use crate::store::Busy;
use crate::target::Target;

/// How long a stack operation may take to hear a person, ms.
const HEARD_WITHIN_MS: u64 = 30_000;

/// Set the weights of the arms
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine set-weights 75 25                     in the order of `engine status`; the sum is 100
  engine set-weights stable=9 canary=1         by name; any weights from 0 to 999")]
pub struct SetWeightsArgs {
    /// One per arm: percentages in order, or NAME=WEIGHT
    #[arg(required = true, num_args = 2.., value_name = "WEIGHT")]
    weights: Vec<String>,
}

/// Give all traffic to one arm
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine switch green
  engine switch blue           also the quick way back")]
pub struct SwitchArgs {
    /// The arm
    color: String,
}

/// Take all traffic back to the stable arm; aborts a rollout that is under way
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  engine rollback
  engine rollback --to blue       where neither a name nor the history says which arm

It works without the state folder too: what cannot be written down is said.
Exit code: 0 when all traffic is back, 4 when it could not be taken back.")]
pub struct RollbackArgs {
    /// The arm that shall have all traffic [default: the stable one]
    #[arg(long, value_name = "ARM")]
    to: Option<String>,
}

pub(super) async fn set_weights(
    app: &App,
    global: &Global,
    args: SetWeightsArgs,
) -> crate::ops::Result<Exit> {
    let (spec, target) = target(app, global).await?;
    let live = target.traffic().await?;
    let weights = parse(&args.weights, &live.names())?;
    if by_order(&args.weights) {
        let names = live.names();
        // On AWS the order is made from names; what they do not say, nobody knows.
        if matches!(spec, TargetSpec::Aws(_)) && !live.weights.naming().has_an_order() {
            return Err(Error::usage(format!(
                "the names {} do not say which arm is meant first\n\nhint: write {}, or name the arms with --arm stable=TARGET-GROUP --arm canary=TARGET-GROUP",
                names.join(" and "),
                names
                    .iter()
                    .map(|n| format!("{n}=WEIGHT"))
                    .collect::<Vec<_>>()
                    .join(" ")
            )));
        }
        eprintln!("sets {}", render::shares(&weights));
    }
    verb(app, global, (spec, target), &live, "set-weights", weights).await
}

pub(super) async fn switch(
    app: &App,
    global: &Global,
    args: SwitchArgs,
) -> crate::ops::Result<Exit> {
    let (spec, target) = target(app, global).await?;
    let live = target.traffic().await?;
    if !live.names().contains(&args.color) {
        return Err(Error::usage(format!(
            "there is no colour {:?}; there are {}",
            args.color,
            live.names().join(" and ")
        )));
    }
    let weights = live.weights.all_to(&args.color);
    verb(app, global, (spec, target), &live, "switch", weights).await
}

pub(super) async fn rollback(
    app: &App,
    global: &Global,
    args: RollbackArgs,
) -> crate::ops::Result<Exit> {
    // A rollout has pinned what the way back needs: nothing is looked for.
    if let Some(TargetSpec::Aws(spec)) = global.target().named()?.map(|spec| spec.target)
        && let Some(route) = spec.find.route()
        && let Some(busy) = app.store.occupant(route).await?
        && !app
            .driver(Options::default())
            .is_change(&busy.rollout)
            .await
        && has_journal(app, &busy).await
    {
        return abort_instead(app, global, &busy, args.to.as_deref()).await;
    }
    let (spec, target) = patiently(app, || way_back(app, global)).await?;
    let occupant = app.store.occupant(target.identity()).await?;
    if let Some(busy) = occupant {
        if app
            .driver(Options::default())
            .is_change(&busy.rollout)
            .await
        {
            let to = args.to.as_deref();
            return through_stack_change(app, global, target.as_ref(), &busy, to).await;
        }
        if has_journal(app, &busy).await {
            return abort_instead(app, global, &busy, args.to.as_deref()).await;
        }
    }
    let live = patiently(app, || async { Ok(target.traffic().await?) }).await?;
    let stable = stable_or(app, target.identity(), &live, args.to.as_deref()).await?;
    let weights = live.weights.all_to(&stable);
    verb(app, global, (spec, target), &live, "rollback", weights).await
}

/// Whether there is a journal to go by: a process can die between its claim and its
/// first entry, and a journal can be damaged. Neither may keep users where they are.
async fn has_journal(app: &App, busy: &Busy) -> bool {
    app.journal(&busy.rollout).await.is_ok()
}

/// The rollout that has the target takes its traffic back.
async fn abort_instead(
    app: &App,
    global: &Global,
    busy: &Busy,
    to: Option<&str>,
) -> crate::ops::Result<Exit> {
    refuse_another_arm(app, &busy.rollout, to).await?;
    let exit = command::abort_rollout(app, global, &busy.rollout, "rollback").await?;
    // Here all traffic on stable is what was asked for.
    Ok(match exit {
        Exit::RolledBack => Exit::Done,
        exit => exit,
    })
}

fn unread(error: &Error) -> Error {
    Error::rollback(format!(
        "nothing was taken back, and where the traffic is could not be read: {error:#}"
    ))
}

/// While a rollout is under way, its own journal says where the traffic goes.
async fn refuse_another_arm(app: &App, rollout: &str, to: Option<&str>) -> crate::ops::Result<()> {
    let Some(to) = to else { return Ok(()) };
    let (header, ..) = app.journal(rollout).await?;
    let stable = header.arm(Role::Stable);
    if stable == to {
        return Ok(());
    }
    Err(Error::usage(format!(
        "rollout {rollout} is under way and its stable arm is {stable}, so the traffic is not taken to {to}\n\nhint: `engine rollback` without --to takes it back to {stable}; `engine switch {to}` gives it to {to} after that"
    )))
}

/// Does something that the way back begins with, again and again for minutes
/// while the target does not answer.
async fn patiently<T, F, R>(app: &App, read: F) -> crate::ops::Result<T>
where
    F: Fn() -> R,
    R: Future<Output = crate::ops::Result<T>>,
{
    let options = Options::default();
    let give_up = app.clock.now() + options.way_back_patience_ms;
    let mut pause = options.retry_ms;
    loop {
        let error = match read().await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        // Nobody listens at a local address: that does not pass by itself.
        let passes = error
            .target
            .as_ref()
            .is_some_and(|e| e.retryable && e.code != "admin-unreachable");
        if !passes {
            return Err(match error.kind == Kind::Denied {
                true => unread(&error),
                false => error,
            });
        }
        if app.clock.now() >= give_up {
            return Err(unread(&error));
        }
        pause = (pause * 2).min(PAUSE_MAX_MS);
        eprintln!("{error:#}; tries again in {} s", pause.div_ceil(1_000));
        app.clock.sleep_until(app.clock.now() + pause).await;
    }
}

/// A change of a stack has the target. The process that makes it takes the traffic
/// back when it hears of it, within seconds; if that process is gone, this one does,
/// by the journal of the change.
async fn through_stack_change(
    app: &App,
    global: &Global,
    target: &dyn Target,
    busy: &Busy,
    to: Option<&str>,
) -> crate::ops::Result<Exit> {
    let change = &busy.rollout;
    let live = patiently(app, || async { Ok(target.traffic().await?) }).await?;
    let stable = stable_or(app, target.identity(), &live, to).await?;
    let (header, ..) = app.journal(change).await?;
    let signal = watch::signal(app, &Command::TakeBack { to: stable.clone() });
    app.store.signal(change, &signal).await?;
    let give_up = app.clock.now() + HEARD_WITHIN_MS;
    let why = loop {
        let (_, status, _) = app.journal(change).await?;
        if status.consumed.contains(&signal.id) {
            break status.taken_back.and_then(|wish| wish.refused);
        }
        if status.is_over() {
            return Err(Error::rollback(format!(
                "the change of the stack ended just before it was told to take the traffic to {stable}\n\nhint: `engine rollback` once more takes it back"
            )));
        }
        if app.living_owner(&header).await?.is_none() {
            let standing = app.driver(Options::default()).drive(change).await?;
            let (_, status, _) = app.journal(change).await?;
            if status.consumed.contains(&signal.id) {
                break status.taken_back.and_then(|wish| wish.refused);
            }
            break match standing {
                Standing::Held(hold) => Some(hold.to_string()),
                _ => Some("another command came first".to_owned()),
            };
        }
        if let Some(why) = app.unwritten() {
            return Err(Error::rollback(format!(
                "`engine deploy` or `engine delete` is changing this stack, and cannot be told to take the traffic back: {why}\n\nhint: `engine rollback --state-dir FOLDER`, with another folder that can be written to, does it; now {}",
                live.weights.shares()
            )));
        }
        if app.clock.now() >= give_up {
            break Some("the process that changes the stack did not answer".to_owned());
        }
        app.clock.sleep_until(app.clock.now() + 500).await;
    };
    let now = target.traffic().await?.weights;
    if now.share(&stable) < 100.0 {
        let why = why.unwrap_or_else(|| "something else moved it again".to_owned());
        return Err(Error::rollback(format!(
            "the traffic could not be taken to {stable}: {why}; it is at {}",
            now.shares()
        )));
    }
    command::say_unwritten(app);
    if global.json {
        out!(
            "{}",
            serde_json::json!({"before": live.weights, "weights": now})
        );
    } else {
        out!(
            "{} (was {})",
            render::shares(&now),
            render::shares(&live.weights)
        );
    }
    Ok(Exit::Done)
}

/// The arm that a person names, if it is there; else the stable one.
async fn stable_or(
    app: &App,
    identity: &str,
    live: &Traffic,
    to: Option<&str>,
) -> crate::ops::Result<String> {
    match to {
        Some(arm) if live.names().iter().any(|name| name == arm) => Ok(arm.to_owned()),
        Some(arm) => Err(Error::usage(format!(
            "there is no arm {arm:?}; there are {}",
            live.names().join(" and ")
        ))),
        None => stable(app, identity, live).await,
    }
}

/// The arm called stable, or the one that was before the last change of this
/// target, or else the one with more traffic.
async fn stable(app: &App, identity: &str, live: &Traffic) -> crate::ops::Result<String> {
    if let Some(arm) = live.weights.naming().stable() {
        return Ok(arm.to_owned());
    }
    if let Some(why) = app.unwritten() {
        return Err(Error::usage(format!(
            "no arm is called stable, and the history that says which one is cannot be read: {why}\n\nhint: `engine rollback --to {}` says it",
            live.names().join("` or `engine rollback --to ")
        )));
    }
    let listed = app.store.list(Some(identity), u32::MAX).await?;
    let last = listed
        .iter()
        .find_map(|l| match (&l.last.event, &l.header.work) {
            // It says nothing about who is stable.
            (_, Work::StackChange { .. }) => None,
            // As an earlier version wrote it down: a rollback is where the traffic
            // belongs, and a second one stays there.
            (Event::Ended { end: End::Done, .. }, Work::Verb { weights, .. })
                if l.header.work.goes_back() =>
            {
                all_on(weights)
            }
            // A person's change began where the users belong, unless it was only the
            // next of several.
            (Event::Ended { end: End::Done, .. }, Work::Verb { .. }) => all_on(&l.header.baseline),
            (
                Event::Ended {
                    end: End::Promoted | End::RolledBack | End::Done,
                    ..
                },
                _,
            ) => Some(l.header.arm(Role::Stable).to_owned()),
            _ => None,
        });
    if let Some(stable) = last {
        return Ok(stable);
    }
    // The arm with more traffic, or all of it, may well be the one that shall lose it.
    Err(Error::usage(format!(
        "no arm is called stable and no earlier rollout says which one is; now {}\n\nhint: `engine rollback --to {}` says it",
        live.weights.shares(),
        live.names().join("` or `engine rollback --to ")
    )))
}

/// The arm that has all traffic, if one has.
fn all_on(weights: &Weights) -> Option<String> {
    let mut all = weights.0.iter().map(|w| &w.arm);
    all.find(|arm| weights.share(arm) >= 100.0).cloned()
}

/// As [`target`], with no more questions than the way back needs.
async fn way_back(app: &App, global: &Global) -> crate::ops::Result<(TargetSpec, Arc<dyn Target>)> {
    let Some(TargetSpec::Aws(spec)) = global.target().named()?.map(|spec| spec.target) else {
        return target(app, global).await;
    };
    let route = spec.find.route();
    let target = match app.ports.way_back_on_aws(&spec).await {
        // Which arm is which was decided by an earlier rollout on this route.
        Err(error) if !error.retryable && route.is_some() => {
            let listed = app.store.list(route, u32::MAX).await?;
            let mut ours = listed.into_iter().map(|l| l.header);
            let known = ours.find_map(|header| match header.target {
                TargetSpec::Aws(aws) if Some(header.identity.as_str()) == route => Some(aws),
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

/// The target that a flag, the rollout file, a live rollout or the default names.
pub(super) async fn target(
    app: &App,
    global: &Global,
) -> crate::ops::Result<(TargetSpec, Arc<dyn Target>)> {
    let spec = match global.target().named()? {
        Some(spec) => spec.target,
        None => app.rollout_in_sight().await?.map_or(
            TargetSpec::Local {
                admin: ADMIN_DEFAULT,
            },
            |header| header.target,
        ),
    };
    let target = app.ports.reach(&spec).await?;
    Ok((spec, target))
}

async fn verb(
    app: &App,
    global: &Global,
    (spec, target): (TargetSpec, Arc<dyn Target>),
    live: &Traffic,
    name: &str,
    weights: Weights,
) -> crate::ops::Result<Exit> {
    let way_back = name == "rollback";
    // Of a way back the destination is the stable arm.
    let by_sight = match way_back {
        true => all_on(&weights),
        false => stable_by_sight(&live.weights),
    };
    let first = live.names().first().cloned();
    let rollout = format!("{name}-{}", new_id_part());
    let header = Header {
        format: FORMAT,
        rollout: rollout.clone(),
        created: app.clock.now(),
        engine: env!("CARGO_PKG_VERSION").to_owned(),
        identity: target.identity().to_owned(),
        target: spec,
        sample_period_ms: target.sample_period_ms(),
        arms: roles(&live.names(), &by_sight.or(first).unwrap_or_default()),
        baseline: live.weights.clone(),
        capacity: None,
        stable: None,
        candidate: None,
        promotion: Promotion::Swap,
        guardrails: Guardrails {
            healthy_timeout_ms: 0,
            ..Guardrails::default()
        },
        probes: vec![],
        queries: vec![],
        caps: <_>::default(),
        work: Work::Verb {
            verb: name.to_owned(),
            actor: app.actor.clone(),
            weights: weights.clone(),
        },
    };
    let before = header.baseline.clone();
    let options = Options::default();
    match begin(app, options, header.clone()).await {
        Err(error) if way_back => begin_after_lease(app, options, header, error).await?,
        begun => begun?,
    }
    let driver = app.driver(options);
    // Users who wait for a way back wait for no advice.
    let few = async {
        match way_back {
            true => None,
            false => too_few(target.as_ref(), &before, &weights).await,
        }
    };
    let (standing, few) = tokio::join!(driver.drive(&rollout), few);
    if let Some(few) = few {
        eprintln!("note: {few}");
    }
    let standing = standing?;
    command::say_unwritten(app);
    match &standing {
        Standing::Over(End::Refused, reason) => Err(Error::busy(reason.clone())),
        Standing::Over(End::RollbackFailed, reason) => Err(Error::rollback(format!(
            "the traffic could not be taken back: {reason}"
        ))),
        _ => {
            // It was read back before it was written down.
            let (_, status, _) = app.journal(&rollout).await?;
            let now = status.weights;
            // Who has everything of this route may still not have everything.
            let elsewhere = match all_on(&now) {
                Some(arm) => Some((arm, target.elsewhere().await)),
                None => None,
            };
            if global.json {
                let mut answer = serde_json::json!({
                    "rollout": rollout, "before": before, "weights": now
                });
                match &elsewhere {
                    Some((_, Ok(routes))) => answer["elsewhere"] = serde_json::json!(routes),
                    Some((_, Err(error))) => {
                        answer["elsewhereUnread"] = error.message.clone().into()
                    }
                    None => {}
                }
                out!("{answer}");
            } else {
                out!("{} (was {})", render::shares(&now), render::shares(&before));
            }
            if live.sticky {
                eprintln!(
                    "note: clients stick to their arm here, so shares move slower than weights"
                );
            }
            match elsewhere {
                Some((all, Ok(routes))) => {
                    for route in routes
                        .iter()
                        .filter(|e| e.arm != all && e.way != Way::Tests)
                    {
                        eprintln!("note: {route}");
                    }
                }
                Some((_, Err(error))) => {
                    eprintln!(
                        "note: what other listeners and rules send to the arms could not be read: {error}"
                    );
                }
                None => {}
            }
            Ok(match &standing {
                // All traffic on stable is what was asked for.
                Standing::Over(End::RolledBack, _) => Exit::Done,
                standing => Exit::from(standing),
            })
        }
    }
}

/// A process that stands still between its claim and its first entry has the target
/// until its lease lapses, and not for longer.
async fn begin_after_lease(
    app: &App,
    options: Options,
    header: Header,
    mut error: Error,
) -> crate::ops::Result<()> {
    let give_up = app.clock.now() + options.lease_ttl_ms + 5_000;
    eprintln!("{error:#}; tries again until that process has lost its claim");
    while app.clock.now() < give_up {
        app.clock.sleep_until(app.clock.now() + 1_000).await;
        match begin(app, options, header.clone()).await {
            Ok(()) => return Ok(()),
            Err(again) => error = again,
        }
    }
    Err(Error::rollback(format!(
        "nothing was taken back; when last read, {}: {error:#}",
        header.baseline.shares()
    )))
}

/// One task cannot carry what two carried. `engine run` makes room first; a
/// single verb does what it is told, and says so.
async fn too_few(target: &dyn Target, now: &Weights, wanted: &Weights) -> Option<String> {
    let most = |w: &Weights| w.0.iter().max_by_key(|a| a.weight).map(|a| a.arm.clone());
    let (from, to) = (most(now)?, most(wanted)?);
    if from == to {
        return None;
    }
    let health = target.health().await.ok()?;
    let healthy = |arm: &str| {
        health
            .iter()
            .find(|h| h.arm == arm)
            .map_or(0, |h| h.healthy)
    };
    let carried = Capacity::of(healthy(&from), now.share(&from), 0);
    let (has, needed) = (healthy(&to), carried.for_share(wanted.share(&to)));
    (has > 0 && has < needed).then(|| {
        format!(
            "{to} has {has} healthy targets and its share needs {needed}, going by {from}; `engine run` makes room first"
        )
    })
}

/// Whether weights are given without names.
fn by_order(given: &[String]) -> bool {
    given.iter().all(|g| !g.contains('='))
}

/// `75 25` in order, summing to 100, or `stable=9 canary=1`.
fn parse(given: &[String], names: &[String]) -> crate::ops::Result<Weights> {
    let number = |text: &str| {
        text.parse::<u32>()
            .map_err(|_| Error::usage(format!("{text:?} is no weight; a weight is 0 to 999")))
    };
    let pairs: Vec<(&str, &str)> = given.iter().filter_map(|g| g.split_once('=')).collect();
    let weights = if pairs.len() == given.len() {
        let weights: crate::ops::Result<Vec<(&str, u32)>> =
            pairs.iter().map(|(n, w)| Ok((*n, number(w)?))).collect();
        Weights::of(weights?)
    } else if pairs.is_empty() {
        if given.len() != names.len() {
            return Err(Error::usage(format!(
                "{} weights for {} arms ({})",
                given.len(),
                names.len(),
                names.join(", ")
            )));
        }
        let numbers: Vec<u32> = given.iter().map(|g| number(g)).collect::<Result<_, _>>()?;
        let sum: u32 = numbers.iter().fold(0, |sum, n| sum.saturating_add(*n));
        if sum != 100 {
            return Err(Error::usage(format!(
                "{} sum to {sum}, and percentages must sum to 100\n\nhint: other weights go by name, such as {}=9 {}=1",
                given.join(" + "),
                names[0],
                names[names.len() - 1]
            )));
        }
        Weights::of(names.iter().map(String::as_str).zip(numbers))
    } else {
        return Err(Error::usage(
            "write all weights as numbers, or all as NAME=WEIGHT",
        ));
    };
    weights.ordered_as(names).map_err(Error::usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_by_order_and_by_name() {
        let names = ["stable".to_owned(), "canary".to_owned()];
        let parse = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
            parse(&texts, &names).map_err(|e| e.to_string())
        };
        assert_eq!(
            parse(&["75", "25"]),
            Ok(Weights::of([("stable", 75), ("canary", 25)]))
        );
        assert_eq!(
            parse(&["canary=1", "stable=9"]),
            Ok(Weights::of([("stable", 9), ("canary", 1)]))
        );
        for (wrong, says) in [
            (&["75", "26"][..], "sum to 101"),
            (&["a", "b"], "is no weight"),
            (&["75", "canary=25"], "all as NAME=WEIGHT"),
            (&["1", "2", "97"], "3 weights for 2 arms"),
            (&["stable=1", "purple=1"], "the arms are stable, canary"),
            (&["4294967295", "1"], "sum to"),
        ] {
            let error = parse(wrong).expect_err("wrong");
            assert!(error.contains(says), "{error}");
        }
    }
}

//! Moves traffic by hand: `set-weights` and `switch`. Each is a small rollout of its
//! own, so it is leased, checked, journaled and read back.

use std::sync::Arc;

use super::advice::{Advice, Ask, Input};
use super::app::App;
use super::begin::{begin, by_hand};
use super::error::{Error, Result};
use super::home::{all_on, home_known};
use super::news::Note;
use super::request::TargetRequest;
use crate::journal::{Header, Work};
use crate::model::target::TargetSpec;
use crate::model::{Capacity, Elsewhere, End, HostError, OtherRoute, Traffic, Weights, counted};
use crate::rollout::roles::{roles, stable_by_sight};
use crate::rollout::{Options, Standing};
use crate::target::Target;

/// The result of a verb that moved traffic.
#[derive(Debug, Clone)]
pub struct Moved {
    /// The small rollout that moved it.
    pub rollout: String,
    /// Of a way back: why the traffic belongs where it was taken.
    pub why: Option<String>,
    /// The weights before.
    pub before: Weights,
    /// The weights as they were read back.
    pub now: Weights,
    /// The standing of that rollout.
    pub standing: Standing,
    /// Whether clients stick to their arm, so that shares change slowly.
    pub sticky: bool,
    /// The other routes that moved too, as they were before.
    pub others: Vec<OtherRoute>,
    /// If one arm has all traffic: its name, and what other routes send.
    pub elsewhere: Option<(String, Result<Vec<Elsewhere>, HostError>)>,
}

/// Sets the weights: one text for each arm, percentages in order or `NAME=WEIGHT`.
///
/// # Errors
/// Usage, if the weights are not valid; busy, if something else has the target.
pub async fn set_weights(app: &App, request: &TargetRequest, given: &[String]) -> Result<Moved> {
    let (spec, target) = app.target(request).await?;
    let live = target.traffic().await?;
    let weights = parse(given, &live.names())?;
    let by_order = by_order(given);
    if by_order {
        let names = live.names();
        // On AWS the order comes from the names, if they have one.
        if matches!(spec, TargetSpec::Aws(_)) && !live.weights.naming().has_an_order() {
            let named: Vec<String> = names.iter().map(|n| format!("{n}=WEIGHT")).collect();
            return Err(Error::usage(format!(
                "the names {} do not say which arm is meant first",
                names.join(" and ")
            ))
            .hint(format!("write {}", named.join(" ")))
            .give(Input::Arms, "names the arms"));
        }
    }
    let verb = Verb::SetWeights { by_order };
    give(app, (spec, target), &live, verb, weights).await
}

/// Gives all traffic to one arm. If it is too small for that, a note says so.
pub async fn switch(app: &App, request: &TargetRequest, arm: &str) -> Result<Moved> {
    switch_to(app, request, arm, false).await
}

/// Gives all traffic to one arm, if it can carry that or is where a way back would go.
///
/// # Errors
/// Busy, if the arm is too small.
pub async fn switch_if_it_carries(app: &App, request: &TargetRequest, arm: &str) -> Result<Moved> {
    switch_to(app, request, arm, true).await
}

async fn switch_to(
    app: &App,
    request: &TargetRequest,
    arm: &str,
    must_carry: bool,
) -> Result<Moved> {
    let (spec, target) = app.target(request).await?;
    let live = target.traffic().await?;
    if !live.names().iter().any(|name| name == arm) {
        return Err(Error::usage(format!(
            "there is no arm {arm:?}; there are {}",
            live.names().join(" and ")
        )));
    }
    let weights = live.weights.all_to(arm);
    let verb = Verb::Switch { must_carry };
    give(app, (spec, target), &live, verb, weights).await
}

/// The verb.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    SetWeights {
        /// Whether the weights were given without names, so that a person wants to see which
        /// arm gets which.
        by_order: bool,
    },
    Switch {
        /// Whether an arm that is too small is refused.
        must_carry: bool,
    },
    /// All traffic back to the stable arm.
    Rollback,
}

impl Verb {
    /// Its name in a journal.
    fn name(self) -> &'static str {
        match self {
            Self::SetWeights { .. } => "set-weights",
            Self::Switch { .. } => "switch",
            Self::Rollback => "rollback",
        }
    }
}

/// Moves the traffic as a rollout of its own.
pub(super) async fn give(
    app: &App,
    (spec, target): (TargetSpec, Arc<dyn Target>),
    live: &Traffic,
    verb: Verb,
    weights: Weights,
) -> Result<Moved> {
    let way_back = matches!(verb, Verb::Rollback);
    // The destination of a way back is the stable arm. Before any other move it is where a
    // rollback would go: who gives the move up wants that, and the arm with more traffic may
    // be the candidate.
    let by_sight = match way_back {
        true => all_on(&weights),
        false => home_known(app, target.identity(), live)
            .await
            .or_else(|| stable_by_sight(&live.weights)),
    };
    if let Verb::Switch { must_carry: true } = verb
        && by_sight
            .as_ref()
            .is_none_or(|home| *home != moved_to(&weights))
        && let Some(note) = too_few(&spec, target.as_ref(), &live.weights, &weights).await
    {
        // Without a history the arm with the traffic may be the bad one.
        let back = Ask::RollbackTo(moved_to(&weights));
        let error = Error::busy(format!("{}, so no traffic was moved", note.text))
            .ask(back, "goes there all the same, if this is a way back");
        let error = match note.advice {
            Some(advice) => error.advise(advice),
            None => error,
        };
        return Err(error.give(Input::AcceptTooFew, "moves it all the same"));
    }
    let first = live.names().first().cloned();
    let header = by_hand(
        app,
        (spec, target.as_ref()),
        verb.name(),
        roles(&live.names(), &by_sight.or(first).unwrap_or_default()),
        live.weights.clone(),
        Work::Verb {
            verb: verb.name().to_owned(),
            actor: app.actor.clone(),
            weights: weights.clone(),
        },
    );
    let (rollout, on) = (header.rollout.clone(), header.target.clone());
    let before = header.baseline.clone();
    let options = Options::default();
    match begin(app, options, header.clone()).await {
        Err(error) if way_back => begin_after_lease(app, options, header, error).await?,
        begun => begun?,
    }
    // Said once it may: a busy target is told of nothing.
    if let Verb::SetWeights { by_order: true, .. } = verb {
        app.progress(format!("sets {} if the arms are healthy", weights.shares()));
    }
    let driver = app.driver(options);
    // A way back does not wait for a note.
    let few = async {
        match way_back {
            true => None,
            false => too_few(&on, target.as_ref(), &before, &weights).await,
        }
    };
    let (standing, few) = tokio::join!(driver.drive(&rollout), few);
    if let Some(few) = few {
        app.note(few);
    }
    let standing = standing?;
    app.say_unwritten();
    match &standing {
        Standing::Over(End::Refused, reason) => return Err(Error::busy(reason.clone())),
        Standing::Over(End::RollbackFailed, reason) => {
            return Err(Error::rollback(format!(
                "the traffic could not be taken back: {reason}"
            )));
        }
        _ => {}
    }
    // It was read back before its end was written.
    let (_, status, _) = app.journal(&rollout).await?;
    let now = status.weights;
    // Other routes may send requests to the other arm.
    let elsewhere = match all_on(&now) {
        Some(arm) => Some((arm, target.elsewhere().await)),
        None => None,
    };
    Ok(Moved {
        rollout,
        why: None,
        before,
        now,
        standing,
        sticky: live.sticky,
        others: live.others.clone(),
        elsewhere,
    })
}

impl Moved {
    /// Whether any route has other weights now.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.before != self.now || self.others.iter().any(|other| !other.has(&self.now))
    }
}

/// Begins a rollout. A process that hangs between its claim and its first entry has the
/// target until its lease expires.
async fn begin_after_lease(
    app: &App,
    options: Options,
    header: Header,
    mut error: Error,
) -> Result<()> {
    let give_up = app.clock.now() + options.lease_ttl_ms + 5_000;
    app.progress(format!(
        "{error}; tries again until that process has lost its claim"
    ));
    while app.clock.now() < give_up {
        app.clock.sleep_until(app.clock.now() + 1_000).await;
        match begin(app, options, header.clone()).await {
            Ok(()) => return Ok(()),
            Err(again) => error = again,
        }
    }
    let failed = Error::rollback(format!(
        "no traffic was taken back; when it was last read, {}: {error}",
        header.baseline.shares()
    ));
    Err(Error {
        advice: error.advice,
        ..failed
    })
}

/// The arm with the most traffic by these weights.
fn moved_to(weights: &Weights) -> String {
    let most = weights.0.iter().max_by_key(|a| a.weight);
    most.map(|a| a.arm.clone()).unwrap_or_default()
}

/// A note if an arm has too few healthy backends for its share. On AWS a rollout adds tasks
/// first, and a single verb does not; elsewhere more than all of them cannot be had.
async fn too_few(
    spec: &TargetSpec,
    target: &dyn Target,
    now: &Weights,
    wanted: &Weights,
) -> Option<Note> {
    let most = |w: &Weights| w.0.iter().max_by_key(|a| a.weight).map(|a| a.arm.clone());
    let (from, to) = (most(now)?, most(wanted)?);
    if from == to {
        return None;
    }
    let health = target.health().await.ok()?;
    let of = |arm: &str| {
        let found = health.iter().find(|h| h.arm == arm);
        found.map_or((0, 0), |h| (h.healthy, h.total))
    };
    let carried = Capacity::of(of(&from).0, now.share(&from), 0);
    let ((has, total), needed) = (of(&to), carried.for_share(wanted.share(&to)));
    let on_aws = matches!(spec, TargetSpec::Aws(_));
    let few = has > 0 && has < needed && (on_aws || has < total);
    few.then(|| {
        let note = Note::from(format!(
            "{to} has {}, and its share needs {needed}, judging by {from}",
            counted(has, "healthy backend")
        ));
        match on_aws {
            true => note.advise(Advice::ask(Ask::Run, "adds tasks first")),
            false => note,
        }
    })
}

/// Whether weights are given without names.
fn by_order(given: &[String]) -> bool {
    given.iter().all(|g| !g.contains('='))
}

/// Parses `75 25` in order, summing to 100, or `stable=9 canary=1`.
fn parse(given: &[String], names: &[String]) -> Result<Weights> {
    let number = |text: &str| {
        text.parse::<u32>()
            .map_err(|_| Error::usage(format!("{text:?} is not a weight; a weight is 0 to 999")))
    };
    let pairs: Vec<(&str, &str)> = given.iter().filter_map(|g| g.split_once('=')).collect();
    let weights = if pairs.len() == given.len() {
        let weights: Result<Vec<(&str, u32)>> =
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
                "{} sum to {sum}, and percentages must sum to 100",
                given.join(" + ")
            ))
            .hint(format!(
                "other weights need names, such as {}=9 {}=1",
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
            (&["a", "b"], "is not a weight"),
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

//! What a change of a stack may do, from what is live and from CloudFormation's
//! change set. Pure.

use std::collections::BTreeMap;

use super::DeployRequest;
use crate::model::Observed;
use crate::ops::{Advice, Ask, Error, Input, Result};
use crate::target::aws::stack::{self, ChangeSet, Stack};

/// Refuses a stack that cannot be updated in its present status.
pub(super) fn refuse_unready(name: &str, stack: Option<&Stack>) -> Result<()> {
    let Some(stack) = stack else {
        return Ok(());
    };
    let status = stack.status.as_str();
    let advice = match status {
        "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED" => Advice::ask(
            Ask::DeleteStack(name.to_owned()),
            "deletes it; it was never complete",
        ),
        "UPDATE_ROLLBACK_FAILED" => Advice::ask(
            Ask::ContinueStackRollback(name.to_owned()),
            "continues its rollback",
        ),
        _ if status.ends_with("_FAILED") => {
            Advice::words("see its events, and repair it in CloudFormation first")
        }
        _ if stack.is_moving() => {
            Advice::words("another operation changes it; wait until it is over")
        }
        _ => return Ok(()),
    };
    let reason = stack.reason.as_ref();
    Err(Error::busy(format!(
        "the stack {name} is {status}{}, and cannot be updated",
        reason.map_or_else(String::new, |r| format!(" ({r})"))
    ))
    .advise(advice))
}

/// Refuses a deployment without a parameter that the template needs.
pub(super) fn missing(
    declared: &BTreeMap<String, bool>,
    passed: &BTreeMap<String, Option<String>>,
) -> Result<()> {
    let missing: Vec<&str> = declared
        .iter()
        .filter(|(name, has_default)| !**has_default && !passed.contains_key(*name))
        .map(|(name, _)| name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let first = Input::StackParameterOf(missing[0].to_owned());
    let error = Error::usage(format!("the template needs {}", missing.join(", ")));
    Err(error.give(first, "gives it a value"))
}

/// Refuses a change set that would write other weights than the live ones.
fn keeps_traffic(
    live: &Observed,
    declared: &BTreeMap<String, bool>,
    given: &BTreeMap<String, String>,
    set: &ChangeSet,
) -> Result<()> {
    let known = stack::beliefs(live);
    let shares = live.weights().shares();
    let moved = given
        .iter()
        .find(|(name, value)| stack::moves_traffic(name) && known.get(*name) != Some(*value));
    if let Some((name, value)) = moved {
        return Err(Error::busy(format!(
            "{name}={value} would move live traffic, which is {shares} now"
        ))
        .ask(Ask::MoveTraffic, "moves traffic safely")
        .give(Input::AcceptWeights, "lets the stack do it"));
    }
    let Some(change) = set.changes.iter().find(|c| c.rewrites_a_route()) else {
        return Ok(());
    };
    let told = declared
        .keys()
        .any(|name| stack::moves_traffic(name) && known.contains_key(name));
    if told {
        return Ok(());
    }
    let why = if declared.contains_key("ActiveColor") {
        "both colours have traffic, and ActiveColor can name only one"
    } else {
        "the template takes no weights as parameters"
    };
    Err(Error::busy(format!(
        "the change of {} would rewrite its weights, which are {shares} now: {why}",
        change.logical_id
    ))
    .hint("bring the traffic to one arm first")
    .give(Input::AcceptWeights, "lets the stack do it"))
}

/// Checks that the change keeps the traffic where it is.
pub(super) fn leaves_the_traffic(
    args: &DeployRequest,
    declared: &BTreeMap<String, bool>,
    given: &BTreeMap<String, String>,
    live: &Observed,
    had: &BTreeMap<String, String>,
    set: &ChangeSet,
) -> Result<()> {
    if !args.accept_weights {
        keeps_traffic(live, declared, given, set)?;
    }
    if args.accept_replacement {
        return Ok(());
    }
    if let Some(change) = set.changes.iter().find(|c| c.takes_away_what_serves()) {
        return Err(Error::busy(format!(
            "the change would {} {} ({}), which serves live traffic",
            if change.action == "Remove" {
                "remove"
            } else {
                "replace"
            },
            change.logical_id,
            change.kind
        ))
        .hint("check that this is the right template for the stack")
        .give(Input::AcceptReplacement, "does it all the same"));
    }
    let port = given.get("ContainerPort");
    if port.is_some_and(|p| had.get("ContainerPort").is_some_and(|had| had != p)) {
        return Err(Error::busy(
            "another ContainerPort would close the old one before the new tasks serve",
        )
        .hint("make a new stack")
        .give(Input::AcceptReplacement, "does it all the same"));
    }
    Ok(())
}

//! What a change of a stack may do, from what is live and from CloudFormation's
//! change set. Pure.

use std::collections::BTreeMap;

use super::{DeployRequest, Template};
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

/// Who named the stack, where the request itself did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NamedBy {
    /// The request.
    Request,
    /// The rollout file of that path.
    File(String),
    /// That variable of the environment.
    Variable(&'static str),
    /// Nobody: it is the name where no other is given.
    Default,
}

/// Refuses to make another kind of stack of one that is there, which would replace its arms.
/// `own`: the template is the engine's, so a stack that has none of its parameters is none
/// of it.
pub(super) fn same_kind(
    args: &DeployRequest,
    (name, named): (&str, &NamedBy),
    (own, declared): (bool, &BTreeMap<String, bool>),
    stack: Option<&Stack>,
) -> Result<()> {
    let Some(stack) = stack.filter(|_| !args.accept_replacement) else {
        return Ok(());
    };
    let wanted = Template::of_parameters(declared.keys().map(String::as_str));
    let is = Template::of_parameters(stack.parameters.keys().map(String::as_str));
    let what = match (is, wanted) {
        (Some(is), Some(wanted)) if is != wanted => is.words(),
        (None, Some(_)) if own => "neither a canary nor a blue/green stack",
        _ => return Ok(()),
    };
    let by = match named {
        NamedBy::File(file) => format!(", which {file} names,"),
        NamedBy::Variable(variable) => format!(", which {variable} of the environment names,"),
        NamedBy::Request | NamedBy::Default => String::new(),
    };
    let wanted = wanted.unwrap_or(args.kind);
    let other = match wanted.stack() {
        default if default == name => Input::Stack,
        default => Input::StackNamed(default.to_owned()),
    };
    Err(Error::usage(format!(
        "the stack {name}{by} is {what}, and this template would make {} of it: nothing was changed",
        wanted.words()
    ))
    .give(other, "is for another stack, which is made if it is not there")
    .give(Input::AcceptReplacement, "replaces what this stack has"))
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

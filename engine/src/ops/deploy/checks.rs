//! What a change of a stack may do, from what is live and from CloudFormation's
//! change set. Pure.

use std::collections::BTreeMap;

use super::DeployRequest;
use crate::model::Observed;
use crate::ops::{Error, Result};
use crate::target::aws::stack::{self, ChangeSet, Stack};

/// Refuses a stack that cannot be updated in its present status.
pub(super) fn refuse_unready(name: &str, stack: Option<&Stack>) -> Result<()> {
    let Some(stack) = stack else {
        return Ok(());
    };
    let status = stack.status.as_str();
    let hint = match status {
        "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED" => {
            format!("`engine delete --stack {name}` deletes it; it was never complete")
        }
        "UPDATE_ROLLBACK_FAILED" => format!(
            "`aws cloudformation continue-update-rollback --stack-name {name}` continues its rollback"
        ),
        _ if status.ends_with("_FAILED") => {
            "see its events, and repair it in CloudFormation first".to_owned()
        }
        _ if stack.is_moving() => "another operation changes it; wait until it is over".to_owned(),
        _ => return Ok(()),
    };
    let reason = stack.reason.as_ref();
    Err(Error::busy(format!(
        "the stack {name} is {status}{}, and cannot be updated\n\nhint: {hint}",
        reason.map_or_else(String::new, |r| format!(" ({r})"))
    )))
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
    Err(Error::usage(format!(
        "the template needs {}\n\nhint: --parameter {}=VALUE",
        missing.join(", "),
        missing[0]
    )))
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
            "{name}={value} would move live traffic, which is {shares} now\n\nhint: `engine set-weights` and `engine switch` move traffic safely; --accept-weights lets the stack do it"
        )));
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
        "the change of {} would rewrite its weights, which are {shares} now: {why}\n\nhint: bring the traffic to one arm first, or use --accept-weights",
        change.logical_id
    )))
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
            "the change would {} {} ({}), which serves live traffic\n\nhint: check that this is the right template for the stack; --accept-replacement does it all the same",
            if change.action == "Remove" {
                "remove"
            } else {
                "replace"
            },
            change.logical_id,
            change.kind
        )));
    }
    let port = given.get("ContainerPort");
    if port.is_some_and(|p| had.get("ContainerPort").is_some_and(|had| had != p)) {
        return Err(Error::busy(
            "another ContainerPort would close the old one before the new tasks serve\n\nhint: make a new stack, or use --accept-replacement",
        ));
    }
    Ok(())
}

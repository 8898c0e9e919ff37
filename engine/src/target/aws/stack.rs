//! CloudFormation: stacks, change sets, events. A stack operation writes what
//! its parameters say, so they are set to what is live first.

use std::collections::BTreeMap;

use aws_sdk_cloudformation::types::{
    Capability, ChangeSetStatus, ChangeSetType, ExecutionStatus, Parameter, ResourceChange,
    StackStatus,
};

use super::calls::Api;
use super::client::{Clients, incomplete};
use crate::model::problem::nearest;
use crate::model::{ErrorKind, HostError, Observed, Weights};

/// Largest template that a request may contain, bytes.
pub const TEMPLATE_BYTES_MAX: usize = 51_200;

/// A stack as CloudFormation describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// Its ARN, which stays valid after it was deleted.
    pub id: String,
    /// Such as `UPDATE_COMPLETE`.
    pub status: String,
    /// The reason for the status, if CloudFormation gives one.
    pub reason: Option<String>,
    /// The parameters of its last operation.
    pub parameters: BTreeMap<String, String>,
    /// Its outputs.
    pub outputs: BTreeMap<String, String>,
}

impl Stack {
    /// Whether an operation is under way.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS") && !self.is_empty()
    }

    /// Whether it consists of a change set that was never executed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.status == StackStatus::ReviewInProgress.as_str()
    }

    /// Whether the last operation succeeded.
    #[must_use]
    pub fn is_well(&self) -> bool {
        [
            StackStatus::CreateComplete,
            StackStatus::UpdateComplete,
            StackStatus::ImportComplete,
            StackStatus::DeleteComplete,
        ]
        .iter()
        .any(|s| s.as_str() == self.status)
    }
}

/// The stack with that name or ARN; `None` if it does not exist.
///
/// # Errors
/// AWS does not answer.
pub async fn look(clients: &Clients, name: &str) -> Result<Option<Stack>, HostError> {
    let call = clients.cloudformation.describe_stacks().stack_name(name);
    let answer = match clients.ask(Api::DescribeStacks, name, call.send()).await {
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
        answer => answer?,
    };
    let Some(stack) = answer.stacks.unwrap_or_default().into_iter().next() else {
        return Ok(None);
    };
    let parameters = stack.parameters.unwrap_or_default().into_iter();
    let outputs = stack.outputs.unwrap_or_default().into_iter();
    Ok(Some(Stack {
        id: stack.stack_id.unwrap_or_else(|| name.to_owned()),
        status: stack
            .stack_status
            .map_or_else(String::new, |s| s.as_str().to_owned()),
        reason: stack.stack_status_reason,
        parameters: parameters
            .filter_map(|p| Some((p.parameter_key?, p.parameter_value?)))
            .collect(),
        outputs: outputs
            .filter_map(|o| Some((o.output_key?, o.output_value?)))
            .collect(),
    }))
}

/// Most pages of stacks that are looked through for names that are like another, each of
/// which has up to a hundred.
const PAGES_MAX: usize = 5;

/// The names of stacks that a person may have meant by one that does not exist, the nearest
/// first. None where AWS does not say which stacks there are, which nobody needs to be
/// permitted.
pub async fn like(clients: &Clients, name: &str) -> Vec<String> {
    if name.starts_with("arn:") {
        return vec![];
    }
    let mut names: Vec<String> = vec![];
    let mut page = None;
    for _ in 0..PAGES_MAX {
        let call = clients
            .cloudformation
            .describe_stacks()
            .set_next_token(page);
        let asked = clients.ask(Api::DescribeStacks, "all stacks", call.send());
        let Ok(answer) = asked.await else {
            break;
        };
        let stacks = answer.stacks.unwrap_or_default().into_iter();
        names.extend(stacks.filter_map(|stack| stack.stack_name));
        page = answer.next_token;
        if page.is_none() {
            break;
        }
    }
    alike(name, names)
}

/// Which of these names somebody may have meant: the nearest one, or some that have the name
/// in them, as where a prefix was forgotten.
fn alike(name: &str, names: Vec<String>) -> Vec<String> {
    if let Some(near) = nearest(name, names.iter().map(String::as_str)) {
        return vec![near.to_owned()];
    }
    let name = name.to_lowercase();
    let has = |known: &String| name.len() > 2 && known.to_lowercase().contains(&name);
    names.into_iter().filter(has).take(3).collect()
}

/// Names of the parameters that a template declares, and whether each has a
/// default.
///
/// # Errors
/// CloudFormation rejects the template, or AWS does not answer.
pub async fn declared(
    clients: &Clients,
    template: &str,
) -> Result<BTreeMap<String, bool>, HostError> {
    let call = clients
        .cloudformation
        .get_template_summary()
        .template_body(template);
    let answer = clients
        .ask(Api::GetTemplateSummary, "the template", call.send())
        .await?;
    let declared = answer.parameters.unwrap_or_default().into_iter();
    Ok(declared
        .filter_map(|p| Some((p.parameter_key?, p.default_value.is_some())))
        .collect())
}

/// The parameters that describe the live target, by the names that the shipped
/// templates use: weights or colour, images, numbers of tasks. Pure.
#[must_use]
pub fn beliefs(live: &Observed) -> BTreeMap<String, String> {
    let mut beliefs = BTreeMap::new();
    let weights = live.weights();
    for arm in &live.arms {
        let name = capitalised(&arm.name);
        beliefs.insert(format!("{name}Weight"), arm.weight.to_string());
        if !arm.release.version.is_empty() {
            beliefs.insert(format!("ImageURI{name}"), arm.release.version.clone());
        }
        if let Some(tasks) = arm.tasks {
            beliefs.insert(format!("DesiredCount{name}"), tasks.to_string());
        }
        if weights.share(&arm.name) >= 100.0 {
            beliefs.insert("ActiveColor".to_owned(), arm.name.clone());
        }
    }
    beliefs
}

/// The other way round: the weights that a stack was last told, by the names that the
/// templates use. None if it has no such parameters. Pure.
#[must_use]
pub fn believed<'a>(
    parameters: &BTreeMap<String, String>,
    arms: impl Iterator<Item = &'a str>,
) -> Option<Weights> {
    let active = parameters.get("ActiveColor");
    let weights: Option<Vec<(&str, u32)>> = arms
        .map(|arm| {
            let told = parameters.get(&format!("{}Weight", capitalised(arm)));
            match (told, active) {
                (Some(weight), _) => Some((arm, weight.parse().ok()?)),
                (None, Some(active)) => Some((arm, if active == arm { 100 } else { 0 })),
                (None, None) => None,
            }
        })
        .collect();
    weights.map(Weights::of)
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// Whether a parameter decides which arm gets requests.
#[must_use]
pub fn moves_traffic(parameter: &str) -> bool {
    parameter == "ActiveColor" || parameter.ends_with("Weight")
}

/// The value of every parameter of a template: the given one, else the live
/// one, else that of the stack (`None`), else its default (left out). Pure.
#[must_use]
pub fn parameters(
    declared: &BTreeMap<String, bool>,
    given: &BTreeMap<String, String>,
    live: &BTreeMap<String, String>,
    before: &BTreeMap<String, String>,
) -> BTreeMap<String, Option<String>> {
    let mut passed = BTreeMap::new();
    for name in declared.keys() {
        // A value that equals the stack's own is passed as "previous value".
        let value = given.get(name).or_else(|| live.get(name));
        match (value, before.get(name)) {
            (Some(value), Some(had)) if value == had => {
                passed.insert(name.clone(), None);
            }
            (Some(value), _) => {
                passed.insert(name.clone(), Some(value.clone()));
            }
            (None, Some(_)) => {
                passed.insert(name.clone(), None);
            }
            (None, None) => {}
        }
    }
    passed
}

/// One change of a change set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `Add`, `Modify`, `Remove`.
    pub action: String,
    /// Name in the template.
    pub logical_id: String,
    /// Such as `AWS::ECS::Service`.
    pub kind: String,
    /// `True`, `False`, `Conditional`; empty where it does not apply.
    pub replacement: String,
    /// ARN or other id of the resource, if it exists.
    pub physical_id: String,
    /// Its properties before the change, if CloudFormation shows them.
    pub before: Option<serde_json::Value>,
    /// Its properties after the change, if CloudFormation shows them.
    pub after: Option<serde_json::Value>,
}

impl Change {
    /// Whether it removes or replaces a resource that carries live traffic.
    #[must_use]
    pub fn takes_away_what_serves(&self) -> bool {
        let serves = [
            "AWS::ElasticLoadBalancingV2::LoadBalancer",
            "AWS::ElasticLoadBalancingV2::Listener",
            "AWS::ElasticLoadBalancingV2::ListenerRule",
            "AWS::ElasticLoadBalancingV2::TargetGroup",
            "AWS::ECS::Service",
            "AWS::ECS::Cluster",
        ];
        let replaced = matches!(self.replacement.as_str(), "True" | "Conditional");
        serves.contains(&self.kind.as_str()) && (self.action == "Remove" || replaced)
    }

    /// The number of tasks after the change, if it is a service and the number is known.
    #[must_use]
    pub fn tasks(&self) -> Option<u64> {
        let service = self.kind == "AWS::ECS::Service" && self.action != "Add";
        let after = self.after.as_ref().filter(|_| service)?;
        super::action::number(&after["DesiredCount"])
    }

    /// Whether it changes the action of a listener or rule.
    #[must_use]
    pub fn rewrites_a_route(&self) -> bool {
        let route = self.kind == "AWS::ElasticLoadBalancingV2::Listener"
            || self.kind == "AWS::ElasticLoadBalancingV2::ListenerRule";
        route && self.action != "Add"
    }
}

/// A change set that is ready to be executed.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeSet {
    /// Its ARN.
    pub id: String,
    /// ARN of the stack.
    pub stack_id: String,
    /// The changes; empty if there are none.
    pub changes: Vec<Change>,
}

/// What to make a change set of.
#[derive(Debug, Clone)]
pub struct Proposal<'a> {
    /// Name of the stack.
    pub stack: &'a str,
    /// The template.
    pub template: &'a str,
    /// Whether the stack is new.
    pub create: bool,
    /// From [`parameters`]: `None` means the previous value.
    pub parameters: &'a BTreeMap<String, Option<String>>,
    /// Name of the change set, which is its idempotency token too.
    pub token: &'a str,
    /// ARN of the role that CloudFormation uses.
    pub role: Option<&'a str>,
}

/// A change set that CloudFormation is computing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// Its ARN.
    pub id: String,
    /// ARN of the stack.
    pub stack_id: String,
}

/// Asks for a change set.
///
/// # Errors
/// CloudFormation refuses, or does not answer.
pub async fn propose(clients: &Clients, proposal: &Proposal<'_>) -> Result<Proposed, HostError> {
    let parameters = proposal.parameters.iter().map(|(name, value)| {
        let parameter = Parameter::builder().parameter_key(name);
        match value {
            Some(value) => parameter.parameter_value(value).build(),
            None => parameter.use_previous_value(true).build(),
        }
    });
    let kind = if proposal.create {
        ChangeSetType::Create
    } else {
        ChangeSetType::Update
    };
    let call = clients
        .cloudformation
        .create_change_set()
        .stack_name(proposal.stack)
        .change_set_name(proposal.token)
        .client_token(proposal.token)
        .description(MADE_BY)
        .change_set_type(kind)
        .template_body(proposal.template)
        .set_parameters(Some(parameters.collect()))
        .set_role_arn(proposal.role.map(ToOwned::to_owned))
        .capabilities(Capability::CapabilityIam)
        .capabilities(Capability::CapabilityNamedIam)
        .capabilities(Capability::CapabilityAutoExpand);
    let made = clients
        .ask(Api::CreateChangeSet, proposal.stack, call.send())
        .await?;
    Ok(Proposed {
        id: made
            .id
            .ok_or_else(|| incomplete(Api::CreateChangeSet, "id"))?,
        stack_id: made.stack_id.unwrap_or_else(|| proposal.stack.to_owned()),
    })
}

/// The change set, once CloudFormation has computed it, which takes seconds to minutes.
/// One without changes is discarded at once.
///
/// # Errors
/// CloudFormation refuses it; the message has its reason.
pub async fn worked_out(
    clients: &Clients,
    proposed: &Proposed,
) -> Result<Option<ChangeSet>, HostError> {
    let (status, reason, changes) = describe(clients, &proposed.id).await?;
    match status {
        Some(ChangeSetStatus::CreateComplete) => Ok(Some(ChangeSet {
            id: proposed.id.clone(),
            stack_id: proposed.stack_id.clone(),
            changes,
        })),
        Some(ChangeSetStatus::Failed) => {
            // A failed change set can only be deleted.
            let discarded = discard(clients, &proposed.id, &proposed.stack_id).await;
            if is_no_change(&reason) {
                discarded?;
                return Ok(Some(ChangeSet {
                    id: proposed.id.clone(),
                    stack_id: proposed.stack_id.clone(),
                    changes: vec![],
                }));
            }
            Err(HostError::new(
                ErrorKind::Invalid,
                "change-set-failed",
                format!(
                    "CloudFormation refuses the change of {}: {reason}",
                    proposed.stack_id
                ),
            ))
        }
        _ => Ok(None),
    }
}

fn is_no_change(reason: &str) -> bool {
    reason.contains("didn't contain changes") || reason.contains("No updates are to be performed")
}

async fn describe(
    clients: &Clients,
    id: &str,
) -> Result<(Option<ChangeSetStatus>, String, Vec<Change>), HostError> {
    let mut changes = vec![];
    let mut page = None;
    loop {
        let call = clients
            .cloudformation
            .describe_change_set()
            .change_set_name(id)
            .include_property_values(true)
            .set_next_token(page);
        let answer = clients.ask(Api::DescribeChangeSet, id, call.send()).await?;
        let some = answer.changes.unwrap_or_default().into_iter();
        changes.extend(some.filter_map(|c| c.resource_change.map(change)));
        page = answer.next_token;
        if page.is_none() {
            let reason = answer.status_reason.unwrap_or_default();
            return Ok((answer.status, reason, changes));
        }
    }
}

fn change(c: ResourceChange) -> Change {
    let properties = |context: Option<String>| {
        let context: serde_json::Value = serde_json::from_str(&context?).ok()?;
        context.get("Properties").cloned()
    };
    Change {
        physical_id: c.physical_resource_id.unwrap_or_default(),
        before: properties(c.before_context),
        after: properties(c.after_context),
        action: c.action.map_or_else(String::new, |a| a.as_str().to_owned()),
        logical_id: c.logical_resource_id.unwrap_or_default(),
        kind: c.resource_type.unwrap_or_default(),
        replacement: c
            .replacement
            .map_or_else(String::new, |r| r.as_str().to_owned()),
    }
}

/// Executes a change set. The operation is under way when this returns.
///
/// # Errors
/// CloudFormation refuses, or AWS does not answer.
pub async fn execute(clients: &Clients, set: &ChangeSet, token: &str) -> Result<(), HostError> {
    let call = clients
        .cloudformation
        .execute_change_set()
        .change_set_name(&set.id)
        .client_request_token(token);
    clients
        .ask(Api::ExecuteChangeSet, &set.stack_id, call.send())
        .await
        .map(drop)
}

/// Finds out whether a change set is executed after [`execute`] came back with an error:
/// its answer may have been lost. If nobody has executed it, it is deleted, so that the
/// request cannot be obeyed later; after that the error is certain.
///
/// # Errors
/// The one that is given, if the change set was not and cannot be executed. Code
/// [`PERHAPS_EXECUTED`], if that is not known.
pub async fn was_executed(
    clients: &Clients,
    set: &ChangeSet,
    error: HostError,
) -> Result<(), HostError> {
    if !error.retryable && !error.message.contains("InvalidChangeSetStatus") {
        return Err(error);
    }
    let unknown = |why: HostError| {
        HostError::new(
            ErrorKind::Unavailable,
            PERHAPS_EXECUTED,
            format!(
                "CloudFormation was asked to change {}, and it is not known whether it does: {error}; {why}",
                set.stack_id
            ),
        )
    };
    match what_became_of(clients, set).await {
        Ok(Became::Executed) => return Ok(()),
        Ok(Became::Obsolete) => return Err(obsolete(set)),
        Ok(Became::Waiting) => {}
        Err(why) => return Err(unknown(why)),
    }
    discard(clients, &set.id, &set.stack_id)
        .await
        .map_err(&unknown)?;
    // It may have been executed just before it was deleted.
    match look(clients, &set.stack_id).await {
        Ok(Some(stack)) if stack.is_moving() => Ok(()),
        Ok(_) => Err(error),
        Err(why) => Err(unknown(why)),
    }
}

/// What became of a change set.
enum Became {
    Executed,
    /// Another operation has changed the stack, so it cannot be executed any more.
    Obsolete,
    /// Nobody has executed it.
    Waiting,
}

async fn what_became_of(clients: &Clients, set: &ChangeSet) -> Result<Became, HostError> {
    let call = clients
        .cloudformation
        .describe_change_set()
        .change_set_name(&set.id);
    let found = clients
        .ask(Api::DescribeChangeSet, &set.id, call.send())
        .await?;
    Ok(match found.execution_status {
        Some(ExecutionStatus::ExecuteInProgress | ExecutionStatus::ExecuteComplete) => {
            Became::Executed
        }
        Some(ExecutionStatus::Obsolete) => Became::Obsolete,
        _ => Became::Waiting,
    })
}

fn obsolete(set: &ChangeSet) -> HostError {
    HostError::new(
        ErrorKind::Conflict,
        "change-set-obsolete",
        format!(
            "another operation changed the stack {} meanwhile, so this change was not made",
            set.stack_id
        ),
    )
}

/// Code of the error after which a stack may or may not be changed.
pub const PERHAPS_EXECUTED: &str = "perhaps-executed";

/// The error for a stack that CloudFormation is changing.
#[must_use]
pub fn at_work(stack: &str, status: &str) -> HostError {
    HostError::new(
        ErrorKind::Conflict,
        "stack-at-work",
        format!(
            "the stack {stack} is {status}, and CloudFormation may move the traffic until it is done"
        ),
    )
}

/// Deletes a change set without executing it.
///
/// # Errors
/// AWS does not answer.
pub async fn discard(clients: &Clients, set: &str, stack: &str) -> Result<(), HostError> {
    let call = clients
        .cloudformation
        .delete_change_set()
        .change_set_name(set);
    clients
        .ask(Api::DeleteChangeSet, stack, call.send())
        .await
        .map(drop)
}

/// What a change set of this engine says of itself.
const MADE_BY: &str = "made by engine, which deletes it if it is not executed";

/// The change sets of a stack that a process of this engine has left behind: by their
/// names and what they say, and executed by nobody.
///
/// # Errors
/// AWS does not answer.
pub async fn left_behind(clients: &Clients, stack: &str) -> Result<Vec<String>, HostError> {
    let mut left = vec![];
    let mut page = None;
    loop {
        let call = clients
            .cloudformation
            .list_change_sets()
            .stack_name(stack)
            .set_next_token(page);
        let answer = clients.ask(Api::ListChangeSets, stack, call.send()).await?;
        let all = answer.summaries.unwrap_or_default().into_iter();
        left.extend(all.filter_map(|set| {
            let named = is_token(set.change_set_name.as_deref()?);
            let ours = named && set.description.as_deref() == Some(MADE_BY);
            let executed = matches!(
                set.execution_status,
                Some(ExecutionStatus::ExecuteInProgress | ExecutionStatus::ExecuteComplete)
            );
            set.change_set_id.filter(|_| ours && !executed)
        }));
        page = answer.next_token;
        if page.is_none() {
            return Ok(left);
        }
    }
}

/// The name of a change set of this engine, which is its token: `engine-` and 8 letters
/// and digits.
fn is_token(name: &str) -> bool {
    let rest = name.strip_prefix("engine-").unwrap_or_default();
    rest.len() == 8
        && rest
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// Begins to delete a stack.
///
/// # Errors
/// CloudFormation refuses, or AWS does not answer.
pub async fn delete(clients: &Clients, stack: &str, token: &str) -> Result<(), HostError> {
    let call = clients
        .cloudformation
        .delete_stack()
        .stack_name(stack)
        .client_request_token(token);
    clients
        .ask(Api::DeleteStack, stack, call.send())
        .await
        .map(drop)
}

/// An event of a stack's resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackEvent {
    id: String,
    /// Name in the template; the stack's own name for the stack.
    pub logical_id: String,
    /// Such as `AWS::ECS::Service`.
    pub kind: String,
    /// Such as `CREATE_FAILED`.
    pub status: String,
    /// The reason, if CloudFormation gives one.
    pub reason: Option<String>,
}

impl StackEvent {
    /// Whether it is about the stack itself.
    #[must_use]
    pub fn is_of_stack(&self) -> bool {
        self.kind == "AWS::CloudFormation::Stack"
    }

    /// Whether an earlier event said the same.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.reason.as_deref() == Some("Resource creation Initiated")
    }

    /// Whether it is the cause of a failure and not a consequence.
    #[must_use]
    pub fn is_cause(&self) -> bool {
        let cancelled = self
            .reason
            .as_deref()
            .is_some_and(|r| r.contains("cancelled"));
        self.status.ends_with("_FAILED") && !cancelled
    }
}

/// Reads the events of one stack operation as they appear.
#[derive(Debug)]
pub struct Events {
    stack_id: String,
    newest: Option<String>,
}

impl Events {
    /// Begins after the newest event of now.
    ///
    /// # Errors
    /// AWS does not answer.
    pub async fn from_now(clients: &Clients, stack_id: &str) -> Result<Self, HostError> {
        let mut events = Self {
            stack_id: stack_id.to_owned(),
            newest: None,
        };
        events.newest = events
            .page(clients, None)
            .await?
            .0
            .first()
            .map(|e| e.id.clone());
        Ok(events)
    }

    async fn page(
        &self,
        clients: &Clients,
        page: Option<String>,
    ) -> Result<(Vec<StackEvent>, Option<String>), HostError> {
        let call = clients
            .cloudformation
            .describe_stack_events()
            .stack_name(&self.stack_id)
            .set_next_token(page);
        let answer = match clients
            .ask(Api::DescribeStackEvents, &self.stack_id, call.send())
            .await
        {
            // A stack that is being created has no events yet.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok((vec![], None)),
            answer => answer?,
        };
        let events = answer.stack_events.unwrap_or_default().into_iter();
        let events = events.map(|e| StackEvent {
            id: e.event_id.unwrap_or_default(),
            logical_id: e.logical_resource_id.unwrap_or_default(),
            kind: e.resource_type.unwrap_or_default(),
            status: e
                .resource_status
                .map_or_else(String::new, |s| s.as_str().to_owned()),
            reason: e.resource_status_reason,
        });
        Ok((events.collect(), answer.next_token))
    }

    /// The new events, oldest first.
    ///
    /// # Errors
    /// AWS does not answer.
    pub async fn news(&mut self, clients: &Clients) -> Result<Vec<StackEvent>, HostError> {
        let mut news = vec![];
        let mut page = None;
        loop {
            let (events, next) = self.page(clients, page).await?;
            let known = events
                .iter()
                .position(|e| Some(&e.id) == self.newest.as_ref());
            news.extend(events.into_iter().take(known.unwrap_or(usize::MAX)));
            page = next;
            if known.is_some() || page.is_none() {
                break;
            }
        }
        if let Some(newest) = news.first() {
            self.newest = Some(newest.id.clone());
        }
        news.reverse();
        Ok(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Deployment, ObservedArm, Release, Source};

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_misspelt_stack_is_known() {
        let names = ["shop-prod", "shop-test", "ecs-canary", "web"].map(ToOwned::to_owned);
        let like = |name| alike(name, names.to_vec());
        assert_eq!(like("ecs-canray"), ["ecs-canary"]);
        assert_eq!(like("Shop"), ["shop-prod", "shop-test"]);
        assert_eq!(like("we"), ["web"]);
        assert_eq!(like("billing"), [""; 0]);
        assert_eq!(like("o-"), [""; 0], "too little to say anything");
    }

    #[test]
    fn a_stack_is_told_what_is_live() {
        let arm = |name: &str, weight, image: &str, tasks| ObservedArm {
            name: name.to_owned(),
            release: Release {
                version: image.to_owned(),
                source: Source::TaskDefinition("arn".to_owned()),
            },
            weight,
            healthy: 1,
            total: 1,
            health_reason: None,
            tasks: Some(tasks),
            deployment: Deployment::Steady,
            since: None,
            spoiled: 0,
            unanswered: 0,
            sent_again: 0,
        };
        let live = |weights: [u32; 2]| Observed {
            arms: vec![
                arm("blue", weights[0], "app:1", 2),
                arm("green", weights[1], "app:2", 3),
            ],
            sticky: false,
            address: String::new(),
            others: vec![],
        };
        let told = beliefs(&live([0, 100]));
        assert_eq!(told["ActiveColor"], "green");
        assert_eq!(told["ImageURIGreen"], "app:2");
        assert_eq!(told["DesiredCountBlue"], "2");
        assert_eq!(beliefs(&live([50, 50])).get("ActiveColor"), None);
    }

    #[test]
    fn what_is_given_wins_over_what_is_live_over_what_was() {
        let declared = ["StableWeight", "CanaryWeight", "TaskCpu", "Extra"]
            .map(|n| (n.to_owned(), true))
            .into();
        let passed = parameters(
            &declared,
            &map(&[("TaskCpu", "512")]),
            &map(&[
                ("StableWeight", "70"),
                ("CanaryWeight", "5"),
                ("ActiveColor", "blue"),
            ]),
            &map(&[
                ("StableWeight", "95"),
                ("CanaryWeight", "5"),
                ("TaskCpu", "256"),
                ("Gone", "1"),
            ]),
        );
        let some = |v: &str| Some(v.to_owned());
        assert_eq!(passed.get("StableWeight"), Some(&some("70")));
        assert_eq!(
            passed.get("CanaryWeight"),
            Some(&None),
            "a value as before is not a change"
        );
        assert_eq!(passed.get("TaskCpu"), Some(&some("512")));
        assert_eq!(passed.get("Extra"), None, "its default");
        assert_eq!(
            passed.get("Gone"),
            None,
            "the template does not declare it any more"
        );
        assert_eq!(passed.get("ActiveColor"), None, "nor this");
    }
}

//! Every AWS API that the engine calls, with the IAM action that it needs.
//! `engine plan` and the error messages use this list.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::aws::{Found, is_rule};
use crate::model::{Release, Source, Weights};

/// One API of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "AWS's own names")]
pub enum Api {
    DescribeStacks,
    ListStackResources,
    DescribeListeners,
    DescribeRules,
    DescribeLoadBalancers,
    DescribeTargetGroups,
    DescribeTargetHealth,
    ModifyListener,
    ModifyRule,
    ListClusters,
    ListServices,
    DescribeServices,
    UpdateService,
    ListTasks,
    DescribeTasks,
    DescribeTaskDefinition,
    ListTaskDefinitions,
    RegisterTaskDefinition,
    DescribeScalableTargets,
    RegisterScalableTarget,
    GetMetricData,
    DescribeAlarms,
    CreateChangeSet,
    DescribeChangeSet,
    ListChangeSets,
    ExecuteChangeSet,
    DeleteChangeSet,
    DescribeStackEvents,
    GetTemplateSummary,
    DeleteStack,
    GetCallerIdentity,
}

impl Api {
    /// All APIs, in the order of their declaration.
    pub const ALL: [Self; 31] = [
        Self::DescribeStacks,
        Self::ListStackResources,
        Self::DescribeListeners,
        Self::DescribeRules,
        Self::DescribeLoadBalancers,
        Self::DescribeTargetGroups,
        Self::DescribeTargetHealth,
        Self::ModifyListener,
        Self::ModifyRule,
        Self::ListClusters,
        Self::ListServices,
        Self::DescribeServices,
        Self::UpdateService,
        Self::ListTasks,
        Self::DescribeTasks,
        Self::DescribeTaskDefinition,
        Self::ListTaskDefinitions,
        Self::RegisterTaskDefinition,
        Self::DescribeScalableTargets,
        Self::RegisterScalableTarget,
        Self::GetMetricData,
        Self::DescribeAlarms,
        Self::CreateChangeSet,
        Self::DescribeChangeSet,
        Self::ListChangeSets,
        Self::ExecuteChangeSet,
        Self::DeleteChangeSet,
        Self::DescribeStackEvents,
        Self::GetTemplateSummary,
        Self::DeleteStack,
        Self::GetCallerIdentity,
    ];

    /// The IAM action, such as `elasticloadbalancing:ModifyListener`.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::DescribeStacks => "cloudformation:DescribeStacks",
            Self::ListStackResources => "cloudformation:ListStackResources",
            Self::DescribeListeners => "elasticloadbalancing:DescribeListeners",
            Self::DescribeRules => "elasticloadbalancing:DescribeRules",
            Self::DescribeLoadBalancers => "elasticloadbalancing:DescribeLoadBalancers",
            Self::DescribeTargetGroups => "elasticloadbalancing:DescribeTargetGroups",
            Self::DescribeTargetHealth => "elasticloadbalancing:DescribeTargetHealth",
            Self::ModifyListener => "elasticloadbalancing:ModifyListener",
            Self::ModifyRule => "elasticloadbalancing:ModifyRule",
            Self::ListClusters => "ecs:ListClusters",
            Self::ListServices => "ecs:ListServices",
            Self::DescribeServices => "ecs:DescribeServices",
            Self::UpdateService => "ecs:UpdateService",
            Self::ListTasks => "ecs:ListTasks",
            Self::DescribeTasks => "ecs:DescribeTasks",
            Self::DescribeTaskDefinition => "ecs:DescribeTaskDefinition",
            Self::ListTaskDefinitions => "ecs:ListTaskDefinitions",
            Self::RegisterTaskDefinition => "ecs:RegisterTaskDefinition",
            Self::DescribeScalableTargets => "application-autoscaling:DescribeScalableTargets",
            Self::RegisterScalableTarget => "application-autoscaling:RegisterScalableTarget",
            Self::GetMetricData => "cloudwatch:GetMetricData",
            Self::DescribeAlarms => "cloudwatch:DescribeAlarms",
            Self::CreateChangeSet => "cloudformation:CreateChangeSet",
            Self::DescribeChangeSet => "cloudformation:DescribeChangeSet",
            Self::ListChangeSets => "cloudformation:ListChangeSets",
            Self::ExecuteChangeSet => "cloudformation:ExecuteChangeSet",
            Self::DeleteChangeSet => "cloudformation:DeleteChangeSet",
            Self::DescribeStackEvents => "cloudformation:DescribeStackEvents",
            Self::GetTemplateSummary => "cloudformation:GetTemplateSummary",
            Self::DeleteStack => "cloudformation:DeleteStack",
            Self::GetCallerIdentity => "sts:GetCallerIdentity",
        }
    }

    /// The name of the API, such as `ModifyListener`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.action().split_once(':').map_or("", |(_, name)| name)
    }

    /// Whether the call changes anything.
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(
            self,
            Self::ModifyListener
                | Self::ModifyRule
                | Self::UpdateService
                | Self::RegisterTaskDefinition
                | Self::RegisterScalableTarget
                | Self::CreateChangeSet
                | Self::ExecuteChangeSet
                | Self::DeleteChangeSet
                | Self::DeleteStack
        )
    }

    /// The narrowest resources to which IAM can limit the call for this target.
    /// The Describe actions of load balancers, CloudWatch and task definitions
    /// accept no resources (Service Authorization Reference).
    fn resources(self, scope: &Scope<'_>) -> Vec<String> {
        let found = scope.found;
        match self {
            Self::DescribeStacks | Self::ListStackResources => {
                let name = scope.stack.unwrap_or("*");
                vec![arn(found, "cloudformation", &format!("stack/{name}/*"))]
            }
            Self::RegisterTaskDefinition if !scope.families.is_empty() => {
                let families = scope.families.iter();
                families
                    .map(|family| arn(found, "ecs", &format!("task-definition/{family}:*")))
                    .collect()
            }
            Self::ModifyListener | Self::ModifyRule => {
                let routes = found.routes().filter(|route| modify(route) == self);
                routes.map(ToOwned::to_owned).collect()
            }
            Self::DescribeServices | Self::UpdateService => {
                let ours = found.arms.iter().filter_map(|a| {
                    let service = a.service.as_ref()?;
                    Some(arn(
                        found,
                        "ecs",
                        &format!("service/{}/{}", service.cluster, service.name),
                    ))
                });
                ours.collect()
            }
            // The ids of scalable targets are AWS's own.
            Self::RegisterScalableTarget => {
                vec![arn(found, "application-autoscaling", "scalable-target/*")]
            }
            Self::ListTasks | Self::DescribeTasks => {
                let clusters = found.arms.iter().filter_map(|a| a.service.as_ref());
                let kind = if self == Self::ListTasks {
                    "container-instance"
                } else {
                    "task"
                };
                let mut all: Vec<String> = clusters
                    .map(|s| arn(found, "ecs", &format!("{kind}/{}/*", s.cluster)))
                    .collect();
                all.dedup();
                all
            }
            _ => vec!["*".to_owned()],
        }
    }
}

/// The API that writes a route.
fn modify(route: &str) -> Api {
    match is_rule(route) {
        true => Api::ModifyRule,
        false => Api::ModifyListener,
    }
}

/// A call of the target port, with what decides which APIs it takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    /// `observe`; the first time it reads task definitions too.
    Observe {
        /// Revisions that were not read before.
        new_revisions: usize,
    },
    /// `traffic`
    Traffic,
    /// `health`
    Health,
    /// `tripped`
    Tripped {
        /// Whether there are alarms to read.
        alarms: bool,
        /// Whether a deployment is read.
        deployment: bool,
    },
    /// `set-weights`
    SetWeights(Weights),
    /// `set-version`
    SetVersion {
        /// Name of the arm.
        arm: String,
        /// The release that it gets.
        release: Release,
    },
    /// `set-tasks`
    SetTasks {
        /// Name of the arm.
        arm: String,
        /// Number of tasks that it gets.
        tasks: u32,
        /// Whether these are fewer than it has; then no route may send it users.
        takes: bool,
    },
    /// `elsewhere`, for one load balancer with one listener.
    Elsewhere,
    /// `fit`
    Fit,
    /// `digests` of an arm.
    Digests,
    /// `samples`
    Samples,
    /// `query`; only queries of CloudWatch call AWS.
    Query {
        /// Whether CloudWatch is asked.
        cloudwatch: bool,
    },
    /// `query` of the tasks that stopped by themselves.
    Restarts,
    /// `probe`
    Probe,
}

impl Verb {
    /// The APIs that the call takes, in order.
    #[must_use]
    pub fn apis(&self, found: &Found) -> Vec<Api> {
        use Api::{
            DescribeAlarms, DescribeListeners, DescribeRules, DescribeServices,
            DescribeTargetGroups, DescribeTargetHealth, DescribeTaskDefinition, DescribeTasks,
            GetMetricData, ListTaskDefinitions, ListTasks, RegisterTaskDefinition, UpdateService,
        };
        let of_kind = |rules| found.routes().any(|route| is_rule(route) == rules);
        let kinds = [(DescribeListeners, false), (DescribeRules, true)];
        let kinds = kinds.into_iter().filter(|(_, rules)| of_kind(*rules));
        let read: Vec<Api> = kinds.map(|(api, _)| api).collect();
        let has_services = found.arms.iter().any(|a| a.service.is_some());
        let if_any = |api, any| if any { vec![api] } else { vec![] };
        match self {
            Self::Observe { new_revisions } => {
                let mut apis = read;
                apis.extend([DescribeTargetHealth; 2]);
                apis.extend(if_any(DescribeServices, has_services));
                apis.extend(vec![DescribeTaskDefinition; *new_revisions]);
                apis
            }
            Self::Traffic => read,
            Self::Health => vec![DescribeTargetHealth, DescribeTargetHealth],
            Self::Tripped { alarms, deployment } => {
                let mut apis = if_any(DescribeAlarms, *alarms);
                apis.extend(if_any(DescribeServices, *deployment && has_services));
                apis
            }
            Self::SetWeights(_) => found.routes().map(modify).collect(),
            Self::SetVersion { release, .. } => match release.source {
                Source::TaskDefinition(_) => vec![DescribeServices, UpdateService],
                // What changed is read from two revisions first.
                Source::Changes(_) => vec![
                    DescribeServices,
                    DescribeTaskDefinition,
                    DescribeTaskDefinition,
                    DescribeTaskDefinition,
                    ListTaskDefinitions,
                    DescribeTaskDefinition,
                    RegisterTaskDefinition,
                    UpdateService,
                ],
                // The newest revision is read in case it has the wanted content already.
                _ => vec![
                    DescribeServices,
                    DescribeTaskDefinition,
                    ListTaskDefinitions,
                    DescribeTaskDefinition,
                    RegisterTaskDefinition,
                    UpdateService,
                ],
            },
            Self::SetTasks { takes, .. } => {
                let mut apis = vec![DescribeServices];
                if *takes {
                    apis.extend(Self::Elsewhere.apis(found));
                }
                apis.push(UpdateService);
                apis
            }
            Self::Elsewhere => vec![DescribeTargetGroups, DescribeListeners, DescribeRules],
            Self::Fit => if_any(DescribeServices, has_services),
            Self::Digests => vec![ListTasks, DescribeTasks],
            Self::Samples => vec![GetMetricData],
            Self::Query { cloudwatch } => {
                let mut apis = if_any(DescribeServices, has_services);
                apis.extend(if_any(GetMetricData, *cloudwatch));
                apis
            }
            Self::Restarts => {
                let services = found.arms.iter().filter(|a| a.service.is_some());
                services.flat_map(|_| [ListTasks, DescribeTasks]).collect()
            }
            Self::Probe => {
                let mut apis = if_any(DescribeListeners, !found.test_addresses.is_empty());
                // A task is asked as its target group says.
                apis.extend([DescribeTargetHealth, DescribeTargetGroups]);
                apis
            }
        }
    }
}

/// APIs that a rollout needs although an undisturbed one does not call them:
/// to find its target, to say why tasks stopped, and to know what auto scaling does.
pub const BESIDES: [Api; 14] = [
    Api::ListClusters,
    Api::ListServices,
    Api::DescribeStacks,
    Api::ListStackResources,
    Api::DescribeListeners,
    Api::DescribeRules,
    Api::DescribeLoadBalancers,
    Api::DescribeTargetGroups,
    Api::DescribeTargetHealth,
    Api::DescribeServices,
    Api::DescribeTaskDefinition,
    Api::ListTasks,
    Api::DescribeTasks,
    Api::DescribeScalableTargets,
];

/// The resources that a policy is limited to.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The target.
    pub found: &'a Found,
    /// The stack by which the target was found, if it was.
    pub stack: Option<&'a str>,
    /// Families of the arms' task definitions.
    pub families: &'a [String],
    /// ARNs of the roles that registered tasks run as.
    pub roles: &'a [String],
}

/// The narrowest IAM policy document that permits these APIs on this target.
#[must_use]
pub fn policy(scope: Scope<'_>, apis: &BTreeSet<Api>) -> serde_json::Value {
    let roles = scope.roles;
    let mut by_resources: BTreeMap<Vec<String>, Vec<&str>> = BTreeMap::new();
    for api in apis {
        let of_stack = matches!(api, Api::DescribeStacks | Api::ListStackResources);
        let by_search = matches!(api, Api::ListClusters | Api::ListServices);
        if of_stack && scope.stack.is_none() || by_search && scope.stack.is_some() {
            continue;
        }
        let actions = by_resources.entry(api.resources(&scope)).or_default();
        actions.push(api.action());
    }
    let mut statements: Vec<serde_json::Value> = by_resources
        .into_iter()
        .map(|(resources, actions)| {
            serde_json::json!({"Effect": "Allow", "Action": actions, "Resource": resources})
        })
        .collect();
    if apis.contains(&Api::RegisterTaskDefinition) {
        // A new revision keeps the tags of the old one.
        statements.push(serde_json::json!({
            "Effect": "Allow",
            "Action": ["ecs:TagResource"],
            "Resource": Api::RegisterTaskDefinition.resources(&scope),
        }));
    }
    if apis.contains(&Api::RegisterTaskDefinition) && !roles.is_empty() {
        statements.push(serde_json::json!({
            "Effect": "Allow",
            "Action": ["iam:PassRole"],
            "Resource": roles,
            "Condition": {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
        }));
    }
    serde_json::json!({"Version": "2012-10-17", "Statement": statements})
}

/// An ARN in the account and region of the load balancer.
fn arn(found: &Found, service: &str, rest: &str) -> String {
    let parts: Vec<&str> = found.route.split(':').collect();
    match parts[..] {
        [_, partition, _, region, account, ..] => {
            format!("arn:{partition}:{service}:{region}:{account}:{rest}")
        }
        _ => "*".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_called_as_its_variant() {
        for api in Api::ALL {
            assert_eq!(api.name(), format!("{api:?}"));
        }
    }
}

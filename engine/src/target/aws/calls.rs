//! Every API of AWS that the engine calls, with the IAM action it needs. What
//! `engine plan` prints and what an error names come from here.

use crate::spec::aws::Found;

/// One API of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "AWS's own names")]
pub enum Api {
    DescribeStacks,
    ListStackResources,
    DescribeListeners,
    DescribeRules,
    DescribeLoadBalancers,
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
    GetMetricData,
    DescribeAlarms,
    CreateChangeSet,
    DescribeChangeSet,
    ExecuteChangeSet,
    DeleteChangeSet,
    DescribeStackEvents,
    GetTemplateSummary,
    DeleteStack,
}

impl Api {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::DescribeStacks,
        Self::ListStackResources,
        Self::DescribeListeners,
        Self::DescribeRules,
        Self::DescribeLoadBalancers,
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
        Self::GetMetricData,
        Self::DescribeAlarms,
        Self::CreateChangeSet,
        Self::DescribeChangeSet,
        Self::ExecuteChangeSet,
        Self::DeleteChangeSet,
        Self::DescribeStackEvents,
        Self::GetTemplateSummary,
        Self::DeleteStack,
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
            Self::GetMetricData => "cloudwatch:GetMetricData",
            Self::DescribeAlarms => "cloudwatch:DescribeAlarms",
            Self::CreateChangeSet => "cloudformation:CreateChangeSet",
            Self::DescribeChangeSet => "cloudformation:DescribeChangeSet",
            Self::ExecuteChangeSet => "cloudformation:ExecuteChangeSet",
            Self::DeleteChangeSet => "cloudformation:DeleteChangeSet",
            Self::DescribeStackEvents => "cloudformation:DescribeStackEvents",
            Self::GetTemplateSummary => "cloudformation:GetTemplateSummary",
            Self::DeleteStack => "cloudformation:DeleteStack",
        }
    }

    /// Its name, such as `ModifyListener`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.action().split_once(':').map_or("", |(_, name)| name)
    }

    /// Whether it changes anything.
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(
            self,
            Self::ModifyListener
                | Self::ModifyRule
                | Self::UpdateService
                | Self::RegisterTaskDefinition
                | Self::CreateChangeSet
                | Self::ExecuteChangeSet
                | Self::DeleteChangeSet
                | Self::DeleteStack
        )
    }

    /// The narrowest resources that IAM lets it be limited to, for this target.
    /// The Describe actions of load balancers, CloudWatch and task definitions
    /// know no resources (Service Authorization Reference).
    #[must_use]
    pub fn resources(self, found: &Found) -> Vec<String> {
        match self {
            Self::ModifyListener | Self::ModifyRule => vec![found.route.clone()],
            Self::DescribeServices | Self::UpdateService => {
                let ours = found.arms.iter().filter_map(|a| {
                    let service = a.service.as_ref()?;
                    Some(arn(found, "ecs", &format!("service/{}/{}", service.cluster, service.name)))
                });
                ours.collect()
            }
            Self::ListTasks | Self::DescribeTasks => {
                let clusters = found.arms.iter().filter_map(|a| a.service.as_ref());
                let kind = if self == Self::ListTasks { "container-instance" } else { "task" };
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

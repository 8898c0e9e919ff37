//! A target on AWS: how to find it, and what was found.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Millis;

/// How long after its end a minute of metrics counts as complete by default, ms.
pub const METRICS_DELAY_MS: Millis = 120_000;

/// A target on AWS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AwsSpec {
    /// The account and region, and who calls.
    pub access: Access,
    /// How to find the target.
    pub find: Find,
    /// Where a candidate without traffic can be reached, such as
    /// `https://test.example.org`; else through its test listener or directly.
    pub probe_url: Option<String>,
    /// Container whose image is the version; `None` if a task has only one.
    pub container: Option<String>,
    /// What the candidate's new task definition changes, for a promotion by copy; pinned
    /// when a rollout begins with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
    /// How long after its end a minute of metrics counts as complete, ms.
    pub metrics_delay_ms: Millis,
    /// What was found; pinned when a rollout begins.
    pub found: Option<Found>,
}

/// What a revision of a task definition changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changes {
    /// ARN of the revision that the candidate ran before.
    pub of: String,
    /// ARN of the new revision.
    pub to: String,
    /// What the new revision is called.
    pub version: String,
}

/// One difference between two task definitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// What differs, such as `cpu` or `app.image`; `app` is the name of a container.
    pub path: String,
    /// What it was; `None` if there was nothing.
    pub before: Option<String>,
    /// What it will be; `None` if there will be nothing.
    pub after: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "{path}: {after} is new"),
            (Some(before), None) => write!(f, "{path}: {before} is gone"),
            (Some(before), Some(after)) if before == after => {
                write!(f, "{path}: changed {after}")
            }
            (before, after) => write!(
                f,
                "{path}: {} -> {}",
                before.as_deref().unwrap_or_default(),
                after.as_deref().unwrap_or_default()
            ),
        }
    }
}

/// Which account and region, and as whom. What is `None` comes from the environment,
/// as for every AWS tool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Access {
    /// Such as `eu-central-1`.
    pub region: Option<String>,
    /// Name of a profile in the shared configuration files.
    pub profile: Option<String>,
    /// ARN of a role to assume.
    pub role: Option<String>,
}

/// What identifies a target. The engine finds out whatever is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Find {
    /// Name of a CloudFormation stack.
    pub stack: Option<String>,
    /// ARN of a listener.
    pub listener: Option<String>,
    /// ARN of a listener rule.
    pub rule: Option<String>,
    /// Name or ARN of the ECS cluster.
    pub cluster: Option<String>,
    /// The arms, where the engine cannot tell them by the names of target groups or does
    /// not find their services.
    pub arms: Vec<FindArm>,
    /// ARNs of test listeners: only tests use them, and no users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test_listeners: Vec<String>,
}

/// What is known of one arm.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct FindArm {
    /// Its name.
    pub name: String,
    /// ARN or name of its target group.
    pub target_group: Option<String>,
    /// Name of its ECS service, or `CLUSTER/SERVICE`.
    pub service: Option<String>,
}

/// A target on AWS with every name resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Found {
    /// ARN of the listener rule, or of the listener whose default action is the route.
    pub route: String,
    /// ARN of the load balancer.
    pub load_balancer: String,
    /// Where users send requests, such as `http://NAME.elb.amazonaws.com`.
    pub address: String,
    /// The availability zones of the load balancer.
    pub zones: Vec<String>,
    /// The two arms.
    pub arms: Vec<FoundArm>,
    /// Address of a listener that sends everything to the candidate, by the
    /// ARN of the target group it sends to.
    pub test_addresses: Vec<(String, String)>,
    /// ARNs of test listeners: only tests use them, because the stack or a person says
    /// so.
    #[serde(default)]
    pub test_listeners: Vec<String>,
}

/// One arm of a target that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FoundArm {
    /// Its name.
    pub name: String,
    /// ARN of its target group.
    pub target_group: String,
    /// Its ECS service; `None` if what is registered are not the tasks of a service.
    pub service: Option<ServiceId>,
}

/// An ECS service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceId {
    /// Name of its cluster.
    pub cluster: String,
    /// Its name.
    pub name: String,
}

impl Find {
    /// The listener or rule that is named by its ARN: the identity of the target,
    /// whatever else is still to be found.
    #[must_use]
    pub fn route(&self) -> Option<&str> {
        self.rule.as_deref().or(self.listener.as_deref())
    }
}

impl Found {
    /// Whether the route is a rule and not a listener.
    #[must_use]
    pub fn is_rule(&self) -> bool {
        self.route.contains(":listener-rule/")
    }

    /// The arm of that name.
    #[must_use]
    pub fn arm(&self, name: &str) -> Option<&FoundArm> {
        self.arms.iter().find(|a| a.name == name)
    }
}

/// A target that is still to be found, with the default delay of its metrics.
#[must_use]
pub fn looked_for(access: Access, find: Find) -> AwsSpec {
    AwsSpec {
        access,
        find,
        probe_url: None,
        container: None,
        changes: None,
        metrics_delay_ms: METRICS_DELAY_MS,
        found: None,
    }
}

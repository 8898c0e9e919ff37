//! A target on AWS: how to find it, and what was found.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ErrorKind, HostError, Millis};

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
    /// A file (PEM) with the authority that signs the certificates that a probe meets. If
    /// `None`, those of tasks and test listeners are not verified, as load balancers verify
    /// none, and that of `probe_url` as every other address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_ca: Option<String>,
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
    /// Only the route that is named moves, and no other one to the same two groups.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only: bool,
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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
    /// What people call the route, such as `HTTPS:443`, if others move with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// The other listeners and rules that share requests between the same two groups: they
    /// move with the route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Also>,
    /// Those that share requests between the same two groups and a third one, so that they
    /// cannot move with the route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmoved: Vec<Also>,
}

/// A listener or rule other than the target's own route, with the same two groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Also {
    /// ARN of the listener rule, or of the listener whose default action it is.
    pub route: String,
    /// What people call it, such as `HTTPS:443 rule 10`.
    pub place: String,
    /// ARN of its load balancer.
    pub load_balancer: String,
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

impl AwsSpec {
    /// The region of the ARNs that were given or found, with the ARN that says it. It
    /// comes before every configured region, because nothing with this ARN lies elsewhere.
    /// `None` if the target is known by names alone.
    ///
    /// # Errors
    /// ARNs of several regions were given: no target lies in two.
    pub fn region_of_arns(&self) -> Result<Option<(&str, &str)>, HostError> {
        if let Some(found) = &self.found {
            return Ok(region_of(&found.route).map(|region| (region, found.route.as_str())));
        }
        let given = self.find.given();
        let mut all = given.filter_map(|arn| Some((region_of(arn)?, arn)));
        let Some((region, arn)) = all.next() else {
            return Ok(None);
        };
        match all.find(|(other, _)| *other != region) {
            None => Ok(Some((region, arn))),
            Some((other, stranger)) => Err(HostError::new(
                ErrorKind::Invalid,
                "two-regions",
                format!(
                    "{arn} is in {region}, and {stranger} is in {other}; everything of a target is in one region"
                ),
            )),
        }
    }
}

impl AwsSpec {
    /// The account that the role or an ARN names that was given; `None` if the target is known
    /// by names alone, so that whoever calls decides about the account.
    #[must_use]
    pub fn account_named(&self) -> Option<&str> {
        let role = self.access.role.as_deref();
        role.into_iter()
            .chain(self.find.given())
            .find_map(account_of)
    }
}

impl Find {
    /// All names and ARNs that were given.
    fn given(&self) -> impl Iterator<Item = &str> {
        let of_arms = self.arms.iter();
        let of_arms = of_arms.flat_map(|arm| arm.target_group.iter().chain(&arm.service));
        let given = self.rule.iter().chain(&self.listener).chain(&self.stack);
        let given = given.chain(of_arms).chain(&self.cluster);
        given.chain(&self.test_listeners).map(String::as_str)
    }

    /// The listener or rule that is named by its ARN: the identity of the target,
    /// whatever else is still to be found.
    #[must_use]
    pub fn route(&self) -> Option<&str> {
        self.rule.as_deref().or(self.listener.as_deref())
    }
}

impl Found {
    /// ARNs of all routes that move together, the target's own first.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        let also = self.also.iter().map(|also| also.route.as_str());
        std::iter::once(self.route.as_str()).chain(also)
    }

    /// What people call a route of it; empty if it is the only one.
    #[must_use]
    pub fn place_of(&self, route: &str) -> &str {
        let also = self.also.iter().find(|also| also.route == route);
        also.map_or(&self.place, |also| &also.place)
    }

    /// A route of it with what people call it; where that is not known, its ARN.
    #[must_use]
    pub fn named(&self, route: &str) -> Also {
        let also = self.also.iter().find(|also| also.route == route);
        also.cloned().unwrap_or_else(|| Also {
            route: route.to_owned(),
            place: match self.place.as_str() {
                "" => route.to_owned(),
                place => place.to_owned(),
            },
            load_balancer: self.load_balancer.clone(),
        })
    }

    /// One of its routes as a target of its own.
    #[must_use]
    pub fn alone(&self, route: &str) -> Self {
        let own = self.named(route);
        Self {
            route: own.route,
            place: String::new(),
            load_balancer: own.load_balancer,
            also: vec![],
            unmoved: vec![],
            ..self.clone()
        }
    }

    /// The same without its own route, which sends no requests to the arms any more: the
    /// next one takes its place. A target with one route stays as it is.
    #[must_use]
    pub fn led_by_another(mut self) -> Self {
        if self.also.is_empty() {
            return self;
        }
        let first = self.also.remove(0);
        Self {
            route: first.route,
            place: first.place,
            load_balancer: first.load_balancer,
            ..self
        }
    }

    /// The arm of that name.
    #[must_use]
    pub fn arm(&self, name: &str) -> Option<&FoundArm> {
        self.arms.iter().find(|a| a.name == name)
    }
}

/// Whether that route is a rule and not the default action of a listener.
#[must_use]
pub fn is_rule(route: &str) -> bool {
    route.contains(":listener-rule/")
}

/// The region in an ARN, such as `eu-central-1`. `None` for a name, for an ARN without a
/// region, and for a text that cannot be a region: it becomes part of a host's name.
#[must_use]
pub fn region_of(arn: &str) -> Option<&str> {
    let mut parts = arn.split(':');
    if parts.next() != Some("arn") {
        return None;
    }
    let region = parts.nth(2)?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (!region.is_empty() && region.len() <= 32 && region.chars().all(fits)).then_some(region)
}

/// The account in an ARN, such as `123456789012`; `None` for a name and for an ARN without one.
#[must_use]
pub fn account_of(arn: &str) -> Option<&str> {
    let mut parts = arn.split(':');
    if parts.next() != Some("arn") {
        return None;
    }
    let account = parts.nth(3)?;
    let is_one = !account.is_empty() && account.bytes().all(|b| b.is_ascii_digit());
    is_one.then_some(account)
}

/// A target that is still to be found, with the default delay of its metrics.
#[must_use]
pub fn looked_for(access: Access, find: Find) -> AwsSpec {
    AwsSpec {
        access,
        find,
        probe_url: None,
        probe_ca: None,
        container: None,
        changes: None,
        metrics_delay_ms: METRICS_DELAY_MS,
        found: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arn(region: &str, rest: &str) -> String {
        format!("arn:aws:elasticloadbalancing:{region}:1:{rest}")
    }

    #[test]
    fn an_arn_says_its_region_and_a_name_does_not() {
        for (text, region) in [
            (
                arn("eu-central-1", "listener/app/a/b/c"),
                Some("eu-central-1"),
            ),
            (
                "arn:aws-cn:ecs:cn-north-1:1:service/a/b".to_owned(),
                Some("cn-north-1"),
            ),
            ("arn:aws:iam::1:role/engine".to_owned(), None),
            ("shop-stable".to_owned(), None),
            ("prod/shop".to_owned(), None),
            ("arn:aws:ecs".to_owned(), None),
            (arn("eu.example.org/", "listener/app/a/b/c"), None),
        ] {
            assert_eq!(region_of(&text), region, "{text}");
        }
    }

    #[test]
    fn an_arn_says_its_account_and_a_role_does_too() {
        for (text, account) in [
            (
                "arn:aws:iam::123456789012:role/engine",
                Some("123456789012"),
            ),
            ("arn:aws-cn:ecs:cn-north-1:1:service/a/b", Some("1")),
            ("arn:aws:s3:::bucket", None),
            ("arn:aws:iam::aws:policy/ReadOnly", None),
            ("shop:1:2:3:4", None),
            ("shop-stable", None),
        ] {
            assert_eq!(account_of(text), account, "{text}");
        }
        let find = Find {
            stack: Some("shop".to_owned()),
            ..Find::default()
        };
        let mut spec = looked_for(Access::default(), find);
        assert_eq!(spec.account_named(), None);
        spec.find.cluster = Some("arn:aws:ecs:eu-west-1:7:cluster/prod".to_owned());
        assert_eq!(spec.account_named(), Some("7"));
        spec.access.role = Some("arn:aws:iam::8:role/engine".to_owned());
        assert_eq!(spec.account_named(), Some("8"));
    }

    #[test]
    fn what_was_found_or_given_says_the_region_and_two_are_refused() {
        let find = Find {
            stack: Some("shop".to_owned()),
            rule: Some(arn("eu-west-1", "listener-rule/app/a/b/c/d")),
            ..Find::default()
        };
        let mut spec = looked_for(Access::default(), find);
        let region = |spec: &AwsSpec| {
            let said = spec.region_of_arns().map_err(|e| e.code);
            said.map(|said| said.map(|(region, _)| region.to_owned()))
        };
        assert_eq!(region(&spec), Ok(Some("eu-west-1".to_owned())));
        spec.find.arms.push(FindArm {
            name: "stable".to_owned(),
            target_group: Some(arn("us-east-1", "targetgroup/stable/1")),
            service: None,
        });
        assert_eq!(region(&spec), Err("two-regions".to_owned()));
        spec.find.rule = None;
        assert_eq!(region(&spec), Ok(Some("us-east-1".to_owned())));
        spec.find.arms.clear();
        assert_eq!(region(&spec), Ok(None));
    }
}

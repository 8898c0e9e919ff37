//! Discovery: from a stack name, a listener or a rule to everything that a
//! rollout needs. Only reads; what is ambiguous is an error that lists what
//! there is and names the flag that decides.

use aws_sdk_cloudformation::types::StackResourceSummary;
use aws_sdk_elasticloadbalancingv2::types::{Action, Listener, ProtocolEnum};

use super::calls::Api;
use super::client::{Clients, incomplete};
use super::{services, traffic};
use crate::model::{ErrorKind, HostError};
use crate::spec::aws::{Find, FindArm, Found, FoundArm, ServiceId};

/// Words in names that say which arm it is, the one that serves first before
/// its counterpart.
const ARM_WORDS: [&str; 4] = ["stable", "canary", "blue", "green"];
/// Services in one `DescribeServices`.
const SERVICES_MAX: usize = 10;

/// Finds the target.
pub(super) async fn discover(clients: &Clients, find: &Find) -> Result<Found, HostError> {
    let stack = match &find.stack {
        Some(name) => Some(Stack::read(clients, name).await?),
        None => None,
    };
    let route = route(clients, find, stack.as_ref()).await?;
    let arms = arms(find, stack.as_ref(), &route)?;
    let arms = with_services(clients, find, stack.as_ref(), arms).await?;
    let balancer = route
        .listener
        .load_balancer_arn()
        .unwrap_or_default()
        .to_owned();
    let describe = clients
        .elb
        .describe_load_balancers()
        .load_balancer_arns(&balancer);
    let balancers = clients
        .ask(Api::DescribeLoadBalancers, &balancer, describe.send())
        .await?;
    let balancers = balancers.load_balancers.unwrap_or_default();
    let described = balancers
        .first()
        .ok_or_else(|| incomplete(Api::DescribeLoadBalancers, "load balancer"))?;
    let name = described.dns_name().unwrap_or_default();
    let test_addresses = neighbours(clients, &balancer)
        .await?
        .iter()
        .filter(|l| l.listener_arn() != route.listener.listener_arn())
        .filter_map(|l| Some((l.listener_arn()?.to_owned(), address(name, l))))
        .collect();
    Ok(Found {
        address: address(name, &route.listener),
        zones: described
            .availability_zones()
            .iter()
            .filter_map(|z| z.zone_name().map(ToOwned::to_owned))
            .collect(),
        route: route.arn,
        load_balancer: balancer,
        arms,
        test_addresses,
    })
}

/// What a stack says of itself.
struct Stack {
    name: String,
    resources: Vec<StackResourceSummary>,
    outputs: Vec<(String, String)>,
    status: String,
}

impl Stack {
    async fn read(clients: &Clients, name: &str) -> Result<Self, HostError> {
        let describe = clients.cloudformation.describe_stacks().stack_name(name);
        let stacks = clients
            .ask(Api::DescribeStacks, name, describe.send())
            .await;
        let stacks = stacks.map_err(|e| no_such_stack(clients, name, e))?;
        let described = stacks.stacks.unwrap_or_default().into_iter().next();
        let status = described.as_ref().and_then(|s| s.stack_status.clone());
        let status = status.map_or_else(String::new, |s| s.as_str().to_owned());
        let outputs = described.and_then(|s| s.outputs).unwrap_or_default();
        let mut resources = vec![];
        let mut page = None;
        loop {
            let list = clients
                .cloudformation
                .list_stack_resources()
                .stack_name(name)
                .set_next_token(page);
            let answer = clients
                .ask(Api::ListStackResources, name, list.send())
                .await?;
            resources.extend(answer.stack_resource_summaries.unwrap_or_default());
            page = answer.next_token;
            if page.is_none() {
                break;
            }
        }
        let pair =
            |o: aws_sdk_cloudformation::types::Output| Some((o.output_key?, o.output_value?));
        Ok(Self {
            name: name.to_owned(),
            resources,
            outputs: outputs.into_iter().filter_map(pair).collect(),
            status,
        })
    }

    /// Physical ids of the resources of a type.
    fn of_type<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        self.resources
            .iter()
            .filter(move |r| r.resource_type() == Some(kind))
            .filter_map(StackResourceSummary::physical_resource_id)
    }

    fn output(&self, key: &str) -> Option<&str> {
        let found = self.outputs.iter().find(|(k, _)| k == key);
        found.map(|(_, value)| value.as_str())
    }

    fn logical_id(&self, physical: &str) -> Option<&str> {
        let mut all = self.resources.iter();
        all.find(|r| r.physical_resource_id() == Some(physical))?
            .logical_resource_id()
    }
}

fn no_such_stack(clients: &Clients, name: &str, error: HostError) -> HostError {
    if error.kind != ErrorKind::NotFound {
        return error;
    }
    HostError::new(
        ErrorKind::NotFound,
        "no-such-stack",
        format!(
            "there is no stack {name} in {}\n\nhint: `engine deploy canary --stack {name}` makes one; --region and --profile look elsewhere",
            clients.region
        ),
    )
}

/// The listener or rule whose weights move, and what it does now.
struct Route {
    arn: String,
    listener: Listener,
    actions: Vec<Action>,
}

async fn route(clients: &Clients, find: &Find, stack: Option<&Stack>) -> Result<Route, HostError> {
    let by_output = |key: &str| stack.and_then(|s| s.output(key));
    if let Some(rule) = find
        .rule
        .as_deref()
        .or_else(|| by_output("ListenerRuleArn"))
    {
        return of_rule(clients, rule).await;
    }
    let named = find
        .listener
        .as_deref()
        .or_else(|| by_output("ListenerArn"));
    let listeners: Vec<String> = match (named, stack) {
        (Some(arn), _) => vec![arn.to_owned()],
        (None, Some(stack)) => {
            let rules: Vec<&str> = stack
                .of_type("AWS::ElasticLoadBalancingV2::ListenerRule")
                .collect();
            if let [rule] = rules[..] {
                return of_rule(clients, rule).await;
            }
            stack
                .of_type("AWS::ElasticLoadBalancingV2::Listener")
                .map(ToOwned::to_owned)
                .collect()
        }
        (None, None) => vec![],
    };
    let place = stack.map_or_else(|| listeners.join(", "), |s| format!("stack {}", s.name));
    if listeners.is_empty() {
        let has = stack.map_or_else(String::new, |s| {
            let kinds: Vec<&str> = s
                .resources
                .iter()
                .filter_map(|r| r.resource_type())
                .collect();
            if kinds.is_empty() {
                format!(": it is {}", s.status)
            } else {
                format!("; it has {}", kinds.join(", "))
            }
        });
        return Err(refused(
            "no-listener",
            &format!("{place} has no listener{has}\n\nhint: name one with --listener ARN"),
        ));
    }
    let describe = clients
        .elb
        .describe_listeners()
        .set_listener_arns(Some(listeners));
    let described = clients
        .ask(Api::DescribeListeners, &place, describe.send())
        .await?;
    let (mut rules, mut defaults) = (vec![], vec![]);
    for listener in described.listeners.unwrap_or_default() {
        let arn = listener.listener_arn().unwrap_or_default().to_owned();
        let list = clients.elb.describe_rules().listener_arn(&arn);
        let answer = clients.ask(Api::DescribeRules, &arn, list.send()).await?;
        for rule in answer.rules.unwrap_or_default() {
            if rule.is_default() == Some(true) || !fits(find, rule.actions()) {
                continue;
            }
            rules.push(Route {
                arn: rule.rule_arn().unwrap_or_default().to_owned(),
                listener: listener.clone(),
                actions: rule.actions().to_vec(),
            });
        }
        if fits(find, listener.default_actions()) {
            defaults.push(Route {
                arn,
                actions: listener.default_actions().to_vec(),
                listener,
            });
        }
    }
    // A rule is narrower than the default action, so it is meant where both are.
    let (mut found, flag) = if rules.is_empty() {
        (defaults, "--listener")
    } else {
        (rules, "--rule")
    };
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(refused(
            "no-weighted-action",
            &format!(
                "no listener or rule of {place} forwards to two target groups\n\nhint: name both groups in its forward action, the idle one with weight 0; where the arms are not the only groups, name them in target.aws.arms"
            ),
        )),
        _ => {
            let arns: Vec<&str> = found.iter().map(|r| r.arn.as_str()).collect();
            Err(refused(
                "ambiguous",
                &format!(
                    "{place} has several places that forward to two target groups:\n  {}\n\nhint: say which one with {flag} ARN",
                    arns.join("\n  ")
                ),
            ))
        }
    }
}

/// Whether an action shares the traffic between two groups, and between the
/// arms' groups where those are given.
fn fits(find: &Find, actions: &[Action]) -> bool {
    let Some(groups) = traffic::forward(actions) else {
        return false;
    };
    let given: Vec<&String> = find
        .arms
        .iter()
        .filter_map(|a| a.target_group.as_ref())
        .collect();
    if given.len() == 2 {
        return groups.iter().all(|(arn, _)| given.contains(&arn));
    }
    groups.len() == 2
}

async fn of_rule(clients: &Clients, arn: &str) -> Result<Route, HostError> {
    let describe = clients.elb.describe_rules().rule_arns(arn);
    let answer = clients
        .ask(Api::DescribeRules, arn, describe.send())
        .await?;
    let rule = answer.rules.unwrap_or_default().into_iter().next();
    let rule = rule.ok_or_else(|| incomplete(Api::DescribeRules, "rule"))?;
    let listener = listener_of(arn);
    let describe = clients.elb.describe_listeners().listener_arns(&listener);
    let answer = clients
        .ask(Api::DescribeListeners, &listener, describe.send())
        .await?;
    let listener = answer.listeners.unwrap_or_default().into_iter().next();
    Ok(Route {
        arn: arn.to_owned(),
        listener: listener.ok_or_else(|| incomplete(Api::DescribeListeners, "listener"))?,
        actions: rule.actions.unwrap_or_default(),
    })
}

/// The listener that a rule belongs to: its ARN without the rule's own id.
fn listener_of(rule: &str) -> String {
    let listener = rule.replace(":listener-rule/", ":listener/");
    listener
        .rsplit_once('/')
        .map_or(listener.clone(), |(listener, _)| listener.to_owned())
}

/// An arm before its service is known.
struct Half {
    arm: FoundArm,
    given: Option<FindArm>,
}

fn arms(find: &Find, stack: Option<&Stack>, route: &Route) -> Result<Vec<Half>, HostError> {
    let groups = traffic::forward(&route.actions).unwrap_or_default();
    let groups: Vec<String> = groups.into_iter().map(|(arn, _)| arn).collect();
    let given_groups: Vec<String> = find
        .arms
        .iter()
        .filter_map(|a| a.target_group.clone())
        .collect();
    let groups = if given_groups.len() == 2 {
        given_groups
    } else {
        groups
    };
    let [first, second] = &groups[..] else {
        return Err(refused(
            "not-two-arms",
            &format!(
                "{} forwards to {} target groups, and a target has two arms: {}\n\nhint: name both arms with their groups in target.aws.arms",
                route.arn,
                groups.len(),
                groups.join(", ")
            ),
        ));
    };
    let mut named = vec![];
    for (group, other) in [(first, second), (second, first)] {
        let given = find
            .arms
            .iter()
            .find(|a| a.target_group.as_deref() == Some(group));
        let name = match given {
            Some(given) => given.name.clone(),
            None => arm_name(group, other, stack),
        };
        // An arm may be known by its name alone.
        let given = given.or_else(|| find.arms.iter().find(|a| a.name == name));
        named.push(Half {
            arm: FoundArm {
                name,
                target_group: group.clone(),
                service: None,
            },
            given: given.cloned(),
        });
    }
    let unknown = find
        .arms
        .iter()
        .find(|a| !named.iter().any(|n| n.arm.name == a.name));
    if let Some(unknown) = unknown {
        let names: Vec<String> = named
            .iter()
            .map(|n| format!("{} ({})", n.arm.name, n.arm.target_group))
            .collect();
        return Err(refused(
            "no-such-arm",
            &format!(
                "there is no arm {}; there are\n  {}\n\nhint: give target.aws.arms.{}.target-group to name it",
                unknown.name,
                names.join("\n  "),
                unknown.name
            ),
        ));
    }
    named.sort_by_key(|n| ARM_WORDS.iter().position(|w| *w == n.arm.name));
    Ok(named)
}

/// What people call the arm behind a target group: the word that its name or
/// its stack has and the other's has not.
fn arm_name(group: &str, other: &str, stack: Option<&Stack>) -> String {
    let own_name = |arn: &str| arn.split('/').nth(1).unwrap_or(arn).to_lowercase();
    let in_stack = |arn: &str| {
        let id = stack.and_then(|s| s.logical_id(arn));
        id.unwrap_or_default().to_lowercase()
    };
    let texts = [
        (own_name(group), own_name(other)),
        (in_stack(group), in_stack(other)),
    ];
    for (ours, theirs) in &texts {
        let only_ours = |w: &&&str| ours.contains(**w) && !theirs.contains(**w);
        if let Some(word) = ARM_WORDS.iter().find(only_ours) {
            return (*word).to_owned();
        }
    }
    group.split('/').nth(1).unwrap_or(group).to_owned()
}

async fn with_services(
    clients: &Clients,
    find: &Find,
    stack: Option<&Stack>,
    mut halves: Vec<Half>,
) -> Result<Vec<FoundArm>, HostError> {
    let in_stack: Vec<ServiceId> = stack.map_or_else(Vec::new, |s| {
        let cluster = s
            .of_type("AWS::ECS::Cluster")
            .next()
            .or(s.output("ClusterName"));
        let cluster = find.cluster.as_deref().or(cluster);
        s.of_type("AWS::ECS::Service")
            .filter_map(|arn| service_id(arn, cluster))
            .collect()
    });
    for half in &mut halves {
        let Some(given) = half.given.as_ref().and_then(|g| g.service.as_deref()) else {
            continue;
        };
        let id = service_id(given, find.cluster.as_deref()).or_else(|| {
            let mut all = in_stack.iter();
            all.find(|id| id.name == given).cloned()
        });
        half.arm.service = Some(id.ok_or_else(|| {
            refused(
                "which-cluster",
                &format!(
                    "which cluster is the service {given} in?\n\nhint: write CLUSTER/{given}, or give --cluster"
                ),
            )
        })?);
    }
    if halves.iter().any(|h| h.arm.service.is_none()) {
        let candidates = match (&in_stack[..], &find.cluster) {
            ([], Some(cluster)) => services_in(clients, cluster).await?,
            ([], None) => all_services(clients).await?,
            (ids, _) => ids.to_vec(),
        };
        attach(clients, &mut halves, &candidates).await?;
    }
    Ok(halves.into_iter().map(|h| h.arm).collect())
}

/// Finds out which of the services put their tasks into which group.
async fn attach(
    clients: &Clients,
    halves: &mut [Half],
    candidates: &[ServiceId],
) -> Result<(), HostError> {
    let mut of_group: Vec<Vec<ServiceId>> = vec![vec![]; halves.len()];
    for some in candidates.chunks(SERVICES_MAX) {
        let ids: Vec<&ServiceId> = some.iter().collect();
        let found = services::present(clients, &ids).await?;
        for (id, service) in some.iter().zip(&found) {
            let Some(service) = service else {
                continue;
            };
            for (half, owners) in halves.iter().zip(&mut of_group) {
                if services::behind(service, &half.arm.target_group).is_some() {
                    owners.push(id.clone());
                }
            }
        }
    }
    for (half, owners) in halves.iter_mut().zip(of_group) {
        match (&half.arm.service, &owners[..]) {
            (Some(_), _) | (None, []) => {}
            (None, [only]) => half.arm.service = Some(only.clone()),
            (None, several) => {
                let names: Vec<String> = several
                    .iter()
                    .map(|s| format!("{}/{}", s.cluster, s.name))
                    .collect();
                return Err(refused(
                    "ambiguous",
                    &format!(
                        "several services are behind the target group of {}: {}\n\nhint: say which one with --service {}={}",
                        half.arm.name,
                        names.join(", "),
                        half.arm.name,
                        names[0]
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// A service from its ARN, from `CLUSTER/NAME`, or from its name and a cluster.
fn service_id(text: &str, cluster: Option<&str>) -> Option<ServiceId> {
    let path = text.split_once(":service/").map_or(text, |(_, path)| path);
    let short = |cluster: &str| cluster.rsplit('/').next().unwrap_or(cluster).to_owned();
    match path.split_once('/') {
        Some((cluster, name)) => Some(ServiceId {
            cluster: cluster.to_owned(),
            name: name.to_owned(),
        }),
        None => Some(ServiceId {
            cluster: short(cluster?),
            name: path.to_owned(),
        }),
    }
}

async fn services_in(clients: &Clients, cluster: &str) -> Result<Vec<ServiceId>, HostError> {
    let mut found = vec![];
    let mut page = None;
    loop {
        let list = clients
            .ecs
            .list_services()
            .cluster(cluster)
            .max_results(100)
            .set_next_token(page);
        let answer = clients.ask(Api::ListServices, cluster, list.send()).await?;
        let arns = answer.service_arns.unwrap_or_default();
        found.extend(arns.iter().filter_map(|arn| service_id(arn, Some(cluster))));
        page = answer.next_token;
        if page.is_none() {
            return Ok(found);
        }
    }
}

async fn all_services(clients: &Clients) -> Result<Vec<ServiceId>, HostError> {
    let mut found = vec![];
    let mut page = None;
    loop {
        let list = clients.ecs.list_clusters().set_next_token(page);
        let answer = clients.ask(Api::ListClusters, "", list.send()).await?;
        for arn in answer.cluster_arns.unwrap_or_default() {
            found.extend(services_in(clients, &arn).await?);
        }
        page = answer.next_token;
        if page.is_none() {
            return Ok(found);
        }
    }
}

/// All listeners of a load balancer: one of them may be for tests.
pub(super) async fn neighbours(
    clients: &Clients,
    balancer: &str,
) -> Result<Vec<Listener>, HostError> {
    let describe = clients.elb.describe_listeners().load_balancer_arn(balancer);
    let answer = clients
        .ask(Api::DescribeListeners, balancer, describe.send())
        .await?;
    Ok(answer.listeners.unwrap_or_default())
}

fn address(name: &str, listener: &Listener) -> String {
    let secure = listener.protocol() == Some(&ProtocolEnum::Https);
    let (scheme, usual) = if secure { ("https", 443) } else { ("http", 80) };
    match listener.port() {
        Some(port) if port != usual => format!("{scheme}://{name}:{port}"),
        _ => format!("{scheme}://{name}"),
    }
}

fn refused(code: &str, message: &str) -> HostError {
    HostError::new(ErrorKind::Invalid, code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_are_named_by_what_tells_them_apart() {
        let group = |name: &str| format!("arn:aws:elasticloadbalancing:r:1:targetgroup/{name}/0a");
        let name = |a: &str, b: &str| arm_name(&group(a), &group(b), None);
        assert_eq!(name("demo-stable-tg", "demo-canary-tg"), "stable");
        // The stack's own name has a word of both.
        assert_eq!(
            name("canary-demo-Canary", "canary-demo-Stable"),
            "canary-demo-Canary"
        );
        assert_eq!(name("tg-GREEN", "tg-BLUE"), "green");
        assert_eq!(name("left", "right"), "left");
    }

    #[test]
    fn services_are_known_by_arn_and_by_path() {
        let id = |text: &str, cluster| service_id(text, cluster).map(|s| (s.cluster, s.name));
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(
            id("arn:aws:ecs:r:1:service/prod/app", None),
            pair("prod", "app")
        );
        assert_eq!(id("prod/app", None), pair("prod", "app"));
        assert_eq!(
            id(
                "arn:aws:ecs:r:1:service/app",
                Some("arn:aws:ecs:r:1:cluster/prod")
            ),
            pair("prod", "app")
        );
        assert_eq!(id("app", None), None);
    }

    #[test]
    fn a_rule_knows_its_listener() {
        assert_eq!(
            listener_of("arn:aws:elasticloadbalancing:r:1:listener-rule/app/main/a/b/c"),
            "arn:aws:elasticloadbalancing:r:1:listener/app/main/a/b"
        );
    }
}

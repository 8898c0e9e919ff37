//! Discovery: from a stack name, a listener or a rule to everything that a
//! rollout needs. It only reads. If several things fit, the error lists them
//! and names the flag that decides.

use std::collections::HashMap;

use aws_sdk_cloudformation::types::StackResourceSummary;
use aws_sdk_elasticloadbalancingv2::types::{Action, Listener, ProtocolEnum, Rule, RuleCondition};
use futures_util::future::try_join_all;

use super::calls::Api;
use super::client::{Clients, incomplete};
use super::names::{self, Told};
use super::traffic::{self, Part, Passage};
use super::{services, stack};
use crate::model::aws::{Also, Find, FindArm, Found, FoundArm, ServiceId, is_rule};
use crate::model::{Elsewhere, ErrorKind, HostError, ROLES, Weights};

/// How long the way back waits to hear what else sends requests to the arms.
const PASSAGES_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Most services in one `DescribeServices`.
const SERVICES_MAX: usize = 10;

/// Finds the target.
pub(super) async fn discover(clients: &Clients, find: &Find) -> Result<Found, HostError> {
    let (stack, route) = find_route(clients, find).await?;
    let arms = arms(find, stack.as_ref(), &route)?;
    let arms = with_services(clients, find, stack.as_ref(), arms).await?;
    let balancer = route.balancer();
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
    let test_addresses = listeners_of(clients, &balancer)
        .await?
        .iter()
        .filter(|l| l.listener_arn() != route.listener.listener_arn())
        .filter_map(|l| Some((l.listener_arn()?.to_owned(), address(name, l))))
        .collect();
    let live = route.weights(&arms);
    let mut found = Found {
        address: route.address(name),
        zones: described
            .availability_zones()
            .iter()
            .filter_map(|z| z.zone_name().map(ToOwned::to_owned))
            .collect(),
        test_listeners: test_listeners(find, stack.as_ref()),
        route: route.arn,
        load_balancer: balancer,
        arms,
        test_addresses,
        ..Found::default()
    };
    if !find.only {
        let passages = passages(clients, &found, Missing::Balancers).await?;
        join(&mut found, &live, &passages);
    }
    Ok(found)
}

/// Notes the other routes that move with the target's own, and those that cannot.
fn join(found: &mut Found, live: &Weights, passages: &[Passage]) {
    let with = |part: Part| {
        let mut all: Vec<&Passage> = passages
            .iter()
            .filter(|p| traffic::part(found, live, p) == part)
            .collect();
        all.sort_by_key(|p| (rank(&p.place, p.is_default), p.arn.clone()));
        let also = all.into_iter().map(|p| Also {
            route: p.arn.clone(),
            place: p.place.clone(),
            load_balancer: p.load_balancer.clone(),
        });
        also.collect::<Vec<Also>>()
    };
    let (also, unmoved) = (with(Part::Moves), with(Part::Unmoved));
    let own = passages.iter().find(|p| p.arn == found.route);
    if let Some(own) = own.filter(|_| !also.is_empty()) {
        found.place.clone_from(&own.place);
    }
    (found.also, found.unmoved) = (also, unmoved);
}

/// The routes that move together today, of a target that was found before, with the
/// actions of every route that was read. It asks the load balancers and nothing else.
///
/// # Errors
/// They do not answer.
pub(super) async fn routes_anew(
    clients: &Clients,
    found: &Found,
) -> Result<(Found, HashMap<String, Vec<Action>>), HostError> {
    let passages = passages(clients, found, Missing::Balancers).await?;
    let live = passages.iter().find(|p| p.arn == found.route);
    let live = live.and_then(|own| traffic::forward(&own.actions));
    let live = traffic::weights(&found.arms, &live.unwrap_or_default());
    let mut now = found.clone();
    join(&mut now, &live, &passages);
    // What moved with the others before does so as long as it sends users to an arm, in
    // whatever shares somebody has left it.
    for also in &found.also {
        let known = now.also.iter().chain(&now.unmoved);
        let known = known.map(|known| &known.route).any(|r| *r == also.route);
        let read = passages.iter().find(|p| p.arn == also.route);
        let stays = match read {
            Some(passage) => traffic::serves(found, &passage.actions),
            None => !passages
                .iter()
                .any(|p| p.load_balancer == also.load_balancer),
        };
        if !known && stays {
            now.also.push(also.clone());
        }
    }
    let actions = passages.into_iter().map(|p| (p.arn, p.actions));
    Ok((now, actions.collect()))
}

/// The order of routes: what most users take comes first.
fn rank(place: &str, is_default: bool) -> u8 {
    match place {
        "HTTPS:443" if is_default => 0,
        "HTTP:80" if is_default => 1,
        _ => 2,
    }
}

/// Finds only what a write of weights needs: the route and the names of its
/// arms. It asks the load balancer and nothing else.
pub(super) async fn route_only(clients: &Clients, find: &Find) -> Result<Found, HostError> {
    let stack = stack_of(clients, find).await?;
    let route = match named_default(clients, find).await {
        Some(default) => Ok(default),
        None => route(clients, find, stack.as_ref()).await,
    };
    let route = match route {
        Err(error) if does_not_share(&error) && !find.only => {
            let beside = beside(clients, find, stack.as_ref()).await;
            beside.ok().flatten().ok_or(error)?
        }
        route => route?,
    };
    let arms = arms(find, stack.as_ref(), &route)?;
    let arms: Vec<FoundArm> = arms.into_iter().map(|half| half.arm).collect();
    let live = route.weights(&arms);
    let mut found = Found {
        test_listeners: test_listeners(find, stack.as_ref()),
        load_balancer: route.balancer(),
        route: route.arn,
        arms,
        ..Found::default()
    };
    // What cannot be read must not keep the route itself from going back; the caller says
    // what else sends requests to the arms, or that nobody knows.
    if !find.only
        && let Ok(Ok(passages)) = tokio::time::timeout(
            PASSAGES_WITHIN,
            passages(clients, &found, Missing::Balancers),
        )
        .await
    {
        join(&mut found, &live, &passages);
    }
    Ok(found)
}

async fn find_route(clients: &Clients, find: &Find) -> Result<(Option<Stack>, Route), HostError> {
    let stack = stack_of(clients, find).await?;
    let route = route(clients, find, stack.as_ref()).await?;
    Ok((stack, route))
}

async fn stack_of(clients: &Clients, find: &Find) -> Result<Option<Stack>, HostError> {
    Ok(match &find.stack {
        Some(name) => Some(Stack::read(clients, name).await?),
        None => None,
    })
}

/// Whether what was named exists and shares no requests between two groups.
fn does_not_share(error: &HostError) -> bool {
    matches!(
        error.code.as_str(),
        NOTHING_FITS | "a-rule-and-not-the-listener" | "no-listener"
    )
}

/// For the way back: where what was named shares no requests between two groups by now,
/// users may still be on the candidate by another route. Of a stack that is any route that
/// shares requests between two of its groups; of a listener, the one that it redirects to.
async fn beside(
    clients: &Clients,
    find: &Find,
    stack: Option<&Stack>,
) -> Result<Option<Route>, HostError> {
    let (balancers, groups, port) = match (&find.rule, &find.listener, stack) {
        (None, Some(named), _) => {
            let describe = clients.elb.describe_listeners().listener_arns(named);
            let described = clients
                .ask(Api::DescribeListeners, named, describe.send())
                .await?;
            let listener = described.listeners.unwrap_or_default().into_iter().next();
            let to = listener.as_ref().and_then(|listener| {
                Some((redirects_to(listener)?, listener.load_balancer_arn()?))
            });
            let Some((port, balancer)) = to else {
                return Ok(None);
            };
            (vec![balancer.to_owned()], vec![], Some(port))
        }
        (None, None, Some(stack)) => {
            let groups: Vec<String> = stack.of_type(GROUP).map(ToOwned::to_owned).collect();
            if groups.is_empty() {
                return Ok(None);
            }
            (balancers_of(clients, &groups).await?, groups, None)
        }
        _ => return Ok(None),
    };
    let tests = test_listeners(find, stack);
    let mut found = vec![];
    for balancer in &balancers {
        let listeners = listeners_of(clients, balancer).await?.into_iter();
        let listeners = listeners.filter(|l| port.is_none() || l.port() == port);
        let arns = listeners.filter_map(|l| l.listener_arn);
        let arns: Vec<String> = arns.filter(|arn| !tests.contains(arn)).collect();
        if !arns.is_empty() {
            found.extend(routes_of(clients, find, &arns, balancer).await?);
        }
    }
    let ours = |route: &Route| {
        let shared = traffic::forward(&route.actions).unwrap_or_default();
        shared.iter().all(|(group, _)| groups.contains(group))
    };
    // Rules of a listener may be other apps'.
    found.retain(|route| match port {
        Some(_) => !is_rule(&route.arn),
        None => ours(route),
    });
    only(find, found, "the load balancer").map(Some)
}

/// The port to which a listener redirects everything.
fn redirects_to(listener: &Listener) -> Option<i32> {
    let mut actions = listener.default_actions().iter();
    actions
        .find_map(|action| action.redirect_config()?.port())?
        .parse()
        .ok()
}

/// Listeners for tests: those that a person names, and those whose name in the
/// stack has the word "test".
fn test_listeners(find: &Find, stack: Option<&Stack>) -> Vec<String> {
    let mut all = find.test_listeners.clone();
    if let Some(stack) = stack {
        let listeners = stack.of_type(LISTENER).filter(|arn| {
            let id = stack.logical_id(arn).unwrap_or_default();
            names::words(id).iter().any(|word| word == "test")
        });
        all.extend(listeners.map(ToOwned::to_owned));
        all.extend(stack.output("TestListenerArn").map(ToOwned::to_owned));
    }
    all.sort();
    all.dedup();
    all
}

/// The code of the error that no route shares requests between two groups.
const NOTHING_FITS: &str = "no-weighted-action";
const LISTENER: &str = "AWS::ElasticLoadBalancingV2::Listener";
const GROUP: &str = "AWS::ElasticLoadBalancingV2::TargetGroup";
const RULE: &str = "AWS::ElasticLoadBalancingV2::ListenerRule";

/// What CloudFormation says of a stack.
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
        let stacks = match stacks {
            Err(error) if error.kind == ErrorKind::NotFound => {
                return Err(no_such_stack(clients, name).await);
            }
            stacks => stacks?,
        };
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

async fn no_such_stack(clients: &Clients, name: &str) -> HostError {
    let like = stack::like(clients, name).await;
    let instead = match like.is_empty() {
        true => format!("`engine deploy canary --stack {name}` makes one;"),
        false => format!("did you mean {}?", like.join(" or ")),
    };
    HostError::new(
        ErrorKind::NotFound,
        "no-such-stack",
        format!(
            "there is no stack {name} in {}\n\nhint: {instead} --region and --profile choose another region or account",
            clients.region
        ),
    )
}

/// The listener or rule whose weights move, with its current actions.
struct Route {
    arn: String,
    listener: Listener,
    actions: Vec<Action>,
    /// What a request must be like; nothing for a default action.
    conditions: Vec<RuleCondition>,
}

impl Route {
    fn of_default(listener: Listener) -> Self {
        Self {
            arn: listener.listener_arn().unwrap_or_default().to_owned(),
            actions: listener.default_actions().to_vec(),
            conditions: vec![],
            listener,
        }
    }

    fn of_rule(rule: Rule, listener: Listener) -> Self {
        Self {
            arn: rule.rule_arn.unwrap_or_default(),
            actions: rule.actions.unwrap_or_default(),
            conditions: rule.conditions.unwrap_or_default(),
            listener,
        }
    }

    fn balancer(&self) -> String {
        let arn = self.listener.load_balancer_arn();
        arn.unwrap_or_default().to_owned()
    }

    /// Where requests reach this route: at the first host and path of its conditions.
    fn address(&self, balancer: &str) -> String {
        let conditions = self.conditions.iter();
        let hosts = conditions
            .clone()
            .filter(|c| c.field() == Some("host-header"));
        let hosts = hosts.flat_map(|c| {
            let config = c.host_header_config().map(|c| c.values());
            c.values().iter().chain(config.unwrap_or_default())
        });
        let paths = conditions.filter(|c| c.field() == Some("path-pattern"));
        let mut paths = paths.flat_map(|c| {
            let config = c.path_pattern_config().map(|c| c.values());
            c.values().iter().chain(config.unwrap_or_default())
        });
        let host = hosts.into_iter().find(|host| !host.contains(['*', '?']));
        let path = paths.next().filter(|path| *path != "*" && *path != "/*");
        let host = host.map_or(balancer, String::as_str);
        let path = path.map_or("", String::as_str);
        format!("{}{path}", address(host, &self.listener))
    }

    /// The weights of the arms.
    fn weights(&self, arms: &[FoundArm]) -> Weights {
        let groups = traffic::forward(&self.actions).unwrap_or_default();
        traffic::weights(arms, &groups)
    }

    fn place(&self) -> String {
        let listener = place_of(&self.listener);
        match is_rule(&self.arn) {
            true => format!("{listener} rule"),
            false => listener,
        }
    }

    /// The flag that names this route.
    fn flag(&self) -> String {
        let flag = if is_rule(&self.arn) {
            "--rule"
        } else {
            "--listener"
        };
        format!("{flag} {}", self.arn)
    }
}

async fn route(clients: &Clients, find: &Find, stack: Option<&Stack>) -> Result<Route, HostError> {
    let (rule, listener) = (find.rule.as_deref(), find.listener.as_deref());
    for arn in rule.iter().chain(&listener) {
        refuse_other_balancers(arn)?;
    }
    if let (Some(rule), Some(listener)) = (rule, listener)
        && listener_of(rule) != listener
    {
        return Err(refused(
            "two-routes",
            &format!("{rule} is not a rule of {listener}\n\nhint: name one of the two"),
        ));
    }
    if let Some(rule) = rule {
        return rule_route(clients, rule).await;
    }
    if let Some(listener) = listener {
        return named_listener(clients, find, listener).await;
    }
    match stack {
        Some(stack) => route_of_stack(clients, find, stack).await,
        None => Err(refused(
            "no-listener",
            "no listener is named\n\nhint: name one with --listener ARN",
        )),
    }
}

/// The route that a stack's outputs name, or the only one of its listeners and rules.
async fn route_of_stack(clients: &Clients, find: &Find, stack: &Stack) -> Result<Route, HostError> {
    if let Some(rule) = stack.output("ListenerRuleArn") {
        refuse_other_balancers(rule)?;
        return rule_route(clients, rule).await;
    }
    let place = format!("stack {}", stack.name);
    if let Some(listener) = stack.output("ListenerArn") {
        refuse_other_balancers(listener)?;
        let mut found = routes_of(clients, find, &[listener.to_owned()], &place).await?;
        // The stack names the listener, so its default action comes first.
        if let Some(default) = found.iter().position(|r| r.arn == listener) {
            return Ok(found.swap_remove(default));
        }
        return only(find, found, &place);
    }
    let tests = test_listeners(find, Some(stack));
    let (own, foreign) = listeners_in(stack, &tests);
    if own.is_empty() && foreign.is_empty() {
        return Err(no_listener(stack, &tests, &place));
    }
    let mut found = routes_of(clients, find, &[own, foreign.clone()].concat(), &place).await?;
    let ours: Vec<&str> = stack.of_type(RULE).collect();
    // Only the stack's own rules count on a listener of another stack.
    found.retain(|r| {
        let of = r.listener.listener_arn().unwrap_or_default();
        !foreign.iter().any(|f| f == of) || ours.contains(&r.arn.as_str())
    });
    only(find, found, &place)
}

/// The listeners of a stack that are not for tests, and those of others that have rules
/// of the stack: a stack may have a rule whose listener is in another stack.
fn listeners_in(stack: &Stack, tests: &[String]) -> (Vec<String>, Vec<String>) {
    let ours = |arn: &&str| refuse_other_balancers(arn).is_ok();
    let own: Vec<String> = stack
        .of_type(LISTENER)
        .filter(|arn| !tests.iter().any(|test| test == arn))
        .filter(ours)
        .map(ToOwned::to_owned)
        .collect();
    let mut foreign = vec![];
    for rule in stack.of_type(RULE).filter(ours) {
        let listener = listener_of(rule);
        if !own.contains(&listener) && !foreign.contains(&listener) {
            foreign.push(listener);
        }
    }
    (own, foreign)
}

/// Why a stack has no listener whose traffic could move.
fn no_listener(stack: &Stack, tests: &[String], place: &str) -> HostError {
    let listeners = stack
        .of_type(LISTENER)
        .filter(|arn| !tests.iter().any(|test| test == arn));
    let mut all = listeners.chain(stack.of_type(RULE));
    if let Some(refusal) = all.find_map(|arn| refuse_other_balancers(arn).err()) {
        return refusal;
    }
    let kinds: Vec<&str> = stack
        .resources
        .iter()
        .filter_map(|r| r.resource_type())
        .collect();
    let has = if kinds.is_empty() {
        format!(": it is {}", stack.status)
    } else {
        format!("; it has {}", kinds.join(", "))
    };
    refused(
        "no-listener",
        &format!("{place} has no listener{has}\n\nhint: name one with --listener ARN"),
    )
}

/// The default action of a listener that a person has named, and nothing else.
async fn named_listener(clients: &Clients, find: &Find, arn: &str) -> Result<Route, HostError> {
    let found = routes_of(clients, find, &[arn.to_owned()], arn).await?;
    let (mut defaults, rules): (Vec<Route>, Vec<Route>) =
        found.into_iter().partition(|r| r.arn == arn);
    if let Some(default) = defaults.pop() {
        return Ok(default);
    }
    if rules.is_empty() {
        return only(find, rules, arn);
    }
    let flags: Vec<String> = rules.iter().map(Route::flag).collect();
    Err(refused(
        "a-rule-and-not-the-listener",
        &format!(
            "the default action of {arn} does not forward to two target groups, and --listener does not mean its rules\n\nhint: name the rule whose weights shall move:\n  {}",
            flags.join("\n  ")
        ),
    ))
}

/// The default action of a listener that a person has named, if it shares requests: its rules
/// need not be read for that.
async fn named_default(clients: &Clients, find: &Find) -> Option<Route> {
    let named = find.listener.as_deref().filter(|_| find.rule.is_none())?;
    refuse_other_balancers(named).ok()?;
    let describe = clients.elb.describe_listeners().listener_arns(named);
    let described = clients.ask(Api::DescribeListeners, named, describe.send());
    let listeners = described.await.ok()?.listeners.unwrap_or_default();
    let default = Route::of_default(listeners.into_iter().next()?);
    let fits = fits(find, &default.arn, &default.actions);
    fits.unwrap_or(false).then_some(default)
}

/// Every default action and every rule of these listeners that fits.
async fn routes_of(
    clients: &Clients,
    find: &Find,
    listeners: &[String],
    place: &str,
) -> Result<Vec<Route>, HostError> {
    let describe = clients
        .elb
        .describe_listeners()
        .set_listener_arns(Some(listeners.to_vec()));
    let described = clients
        .ask(Api::DescribeListeners, place, describe.send())
        .await?;
    let mut found = vec![];
    let mut almost = None;
    for listener in described.listeners.unwrap_or_default() {
        let arn = listener.listener_arn().unwrap_or_default().to_owned();
        let mut routes = vec![];
        for rule in rules_of(clients, &arn).await? {
            if rule.is_default() != Some(true) {
                routes.push(Route::of_rule(rule, listener.clone()));
            }
        }
        routes.push(Route::of_default(listener));
        for route in routes {
            match fits(find, &route.arn, &route.actions) {
                Ok(true) => found.push(route),
                Ok(false) => {}
                // The default action says most about a listener, and comes last.
                Err(why) => almost = Some(why),
            }
        }
    }
    match almost {
        Some(why) if found.is_empty() => Err(why),
        _ => Ok(found),
    }
}

/// The route, if there is exactly one, or if all that there are share the same two groups
/// and may move together.
fn only(find: &Find, mut found: Vec<Route>, place: &str) -> Result<Route, HostError> {
    if found.is_empty() {
        return Err(nothing_fits(find, place));
    }
    found.sort_by_key(|r| (rank(&r.place(), !is_rule(&r.arn)), r.arn.clone()));
    let groups = |route: &Route| {
        let groups = traffic::forward(&route.actions).unwrap_or_default();
        let mut arns: Vec<String> = groups.into_iter().map(|(arn, _)| arn).collect();
        arns.sort();
        arns
    };
    let first = groups(&found[0]);
    // Routes that fit are all about the arms that are given.
    let alike = given_groups(find).len() == 2 || found.iter().all(|r| groups(r) == first);
    if found.len() == 1 || alike && !find.only {
        return Ok(found.remove(0));
    }
    let flags: Vec<String> = found.iter().map(Route::flag).collect();
    Err(refused(
        "ambiguous",
        &format!(
            "{place} has several places that forward to two target groups\n\nhint: say which one with\n  {}",
            flags.join("\n  ")
        ),
    ))
}

fn nothing_fits(find: &Find, place: &str) -> HostError {
    let message = if let [(one, first), (other, second)] = given_groups(find)[..] {
        format!(
            "no listener or rule of {place} forwards to {first} or {second}, the target groups of {one} and {other}\n\nhint: --arm and target.aws.arms.NAME.target-group name a group of its forward action"
        )
    } else {
        format!(
            "no listener or rule of {place} forwards to two target groups\n\nhint: name both groups in its forward action, the idle one with weight 0"
        )
    };
    refused(NOTHING_FITS, &message)
}

/// Only application load balancers have weights.
fn refuse_other_balancers(arn: &str) -> Result<(), HostError> {
    let kind = arn
        .split_once(":listener/")
        .or_else(|| arn.split_once(":listener-rule/"))
        .and_then(|(_, rest)| rest.split_once('/'));
    let kind = match kind {
        Some(("net", _)) => "network",
        Some(("gwy", _)) => "gateway",
        _ => return Ok(()),
    };
    Err(refused(
        "not-an-application-load-balancer",
        &format!(
            "{arn} is of a {kind} load balancer, which passes connections on and has no requests to share or to judge\n\nhint: engine moves traffic on application load balancers; name a listener of one"
        ),
    ))
}

/// All rules of a listener, its default action among them.
pub(super) async fn rules_of(clients: &Clients, listener: &str) -> Result<Vec<Rule>, HostError> {
    let mut rules = vec![];
    let mut page = None;
    loop {
        let list = clients
            .elb
            .describe_rules()
            .listener_arn(listener)
            .set_marker(page);
        let answer = clients
            .ask(Api::DescribeRules, listener, list.send())
            .await?;
        rules.extend(answer.rules.unwrap_or_default());
        page = answer.next_marker.filter(|m| !m.is_empty());
        if page.is_none() {
            return Ok(rules);
        }
    }
}

/// Whether an action shares the requests between two groups, and between the
/// arms' groups if those are given.
///
/// # Errors
/// It is about more groups than two arms can have, or not about the group of one of
/// the arms that are given.
fn fits(find: &Find, route: &str, actions: &[Action]) -> Result<bool, HostError> {
    let Some(groups) = traffic::forward(actions) else {
        return Ok(false);
    };
    let given = given_groups(find);
    if given.len() < 2 {
        return match groups.len() {
            0..=1 => Ok(false),
            2 => Ok(true),
            _ => Err(refused(
                "not-two-arms",
                &format!(
                    "{route} forwards to {} target groups, and a target has two arms: {}\n\nhint: name both arms with their groups, with --arm NAME=GROUP twice or in target.aws.arms; any other group of the action needs weight 0 and keeps it",
                    groups.len(),
                    listed(&groups)
                ),
            )),
        };
    }
    let is_ours = |arn: &str| given.iter().any(|(_, group)| is_group(group, arn));
    if !groups.iter().any(|(arn, _)| is_ours(arn)) {
        return Ok(false);
    }
    let stranger = groups.iter().find(|(arn, w)| *w > 0 && !is_ours(arn));
    let Some((stranger, weight)) = stranger else {
        return Ok(true);
    };
    // A group that is known by its name alone must be in the action.
    let lost = given.iter().find(|(_, group)| {
        !group.contains(":targetgroup/") && !groups.iter().any(|(arn, _)| is_group(group, arn))
    });
    if let Some((arm, group)) = lost {
        return Err(no_such_group(route, arm, group, &groups));
    }
    Err(refused(
        "not-two-arms",
        &format!(
            "{route} also sends requests to the target group {} (weight {weight}), which is neither arm, so weights of the arms would not be shares of all requests\n\nhint: set its weight to 0 in this action, where it then stays, or give it a rule of its own",
            own_name(stranger)
        ),
    ))
}

/// The arms whose target groups are given, with these.
fn given_groups(find: &Find) -> Vec<(&str, &str)> {
    let arms = find.arms.iter();
    arms.filter_map(|a| Some((a.name.as_str(), a.target_group.as_deref()?)))
        .collect()
}

fn no_such_group(route: &str, arm: &str, group: &str, groups: &[(String, u32)]) -> HostError {
    refused(
        "no-such-group",
        &format!(
            "{route} forwards to no target group {group}, which --arm {arm}=... or target.aws.arms.{arm}.target-group names; it forwards to {}\n\nhint: name one of these, or the group of {arm} by its ARN",
            listed(groups)
        ),
    )
}

/// Groups of an action with their weights, in words.
fn listed(groups: &[(String, u32)]) -> String {
    let each = groups
        .iter()
        .map(|(arn, weight)| format!("{} (weight {weight})", own_name(arn)));
    each.collect::<Vec<_>>().join(", ")
}

/// Whether `given` is this ARN or the name in it.
fn is_group(given: &str, arn: &str) -> bool {
    given == arn || given == own_name(arn)
}

fn own_name(group: &str) -> &str {
    group.split('/').nth(1).unwrap_or(group)
}

async fn rule_route(clients: &Clients, arn: &str) -> Result<Route, HostError> {
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
    let listener = listener.ok_or_else(|| incomplete(Api::DescribeListeners, "listener"))?;
    Ok(Route::of_rule(rule, listener))
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

/// Both arms of a route, with their names; pure.
fn arms(find: &Find, stack: Option<&Stack>, route: &Route) -> Result<Vec<Half>, HostError> {
    let groups = groups_of(find, route)?;
    let names = arm_names(find, stack, [&groups[0], &groups[1]])?;
    let mut named: Vec<Half> = groups
        .into_iter()
        .zip(names)
        .map(|(target_group, name)| Half {
            // An arm may be given by its name alone.
            given: find.arms.iter().find(|a| a.name == name).cloned(),
            arm: FoundArm {
                name,
                target_group,
                service: None,
            },
        })
        .collect();
    all_are_there(find, &named)?;
    named.sort_by_key(|n| ROLES.iter().flatten().position(|w| *w == n.arm.name));
    Ok(named)
}

/// The two target groups that the traffic moves between.
fn groups_of(find: &Find, route: &Route) -> Result<[String; 2], HostError> {
    fits(find, &route.arn, &route.actions)?;
    let live = traffic::forward(&route.actions).unwrap_or_default();
    let mut groups: Vec<String> = live.iter().map(|(arn, _)| arn.clone()).collect();
    let given = given_groups(find);
    if given.len() == 2 {
        // The action need not name the group that gets no requests.
        let mut all = vec![];
        for (arm, given) in given {
            let known = groups.iter().find(|arn| is_group(given, arn)).cloned();
            if known.is_none() && !given.contains(":targetgroup/") {
                return Err(no_such_group(&route.arn, arm, given, &live));
            }
            all.push(known.unwrap_or_else(|| given.to_owned()));
        }
        groups = all;
    }
    let groups: [String; 2] = groups.try_into().map_err(|groups: Vec<String>| {
        refused(
            "not-two-arms",
            &format!(
                "{} forwards to {} target groups, and a target has two arms\n\nhint: name both groups in its forward action, the idle one with weight 0",
                route.arn,
                groups.len(),
            ),
        )
    })?;
    if groups[0] == groups[1] {
        return Err(refused(
            "one-group",
            &format!(
                "both arms have the target group {}, and each arm needs its own\n\nhint: see --arm and target.aws.arms",
                groups[0]
            ),
        ));
    }
    Ok(groups)
}

/// Whether every arm that a person speaks of is one of the two.
fn all_are_there(find: &Find, named: &[Half]) -> Result<(), HostError> {
    let is_there = |a: &&FindArm| {
        named.iter().any(|n| {
            let group = &n.arm.target_group;
            n.arm.name == a.name && a.target_group.as_ref().is_none_or(|g| is_group(g, group))
        })
    };
    let Some(FindArm { name, .. }) = find.arms.iter().find(|a| !is_there(a)) else {
        return Ok(());
    };
    let names: Vec<String> = named
        .iter()
        .map(|n| format!("{} ({})", n.arm.name, n.arm.target_group))
        .collect();
    Err(refused(
        "no-such-arm",
        &format!(
            "there is no arm {name}; there are\n  {}\n\nhint: --arm {name}=TARGET-GROUP or target.aws.arms.{name}.target-group names it",
            names.join("\n  ")
        ),
    ))
}

/// The names of the arms behind two target groups: as given, or else by the
/// words in the names of the groups and of the stack's resources, if these are
/// unambiguous. Names without such a word are kept.
fn arm_names(
    find: &Find,
    stack: Option<&Stack>,
    groups: [&String; 2],
) -> Result<[String; 2], HostError> {
    let given = groups.map(|group| {
        let mut arms = find.arms.iter();
        let of_group = |a: &&FindArm| a.target_group.as_ref().is_some_and(|g| is_group(g, group));
        arms.find(of_group).map(|a| a.name.clone())
    });
    let in_stack = |arn: &str| {
        let id = stack.and_then(|s| s.logical_id(arn));
        id.unwrap_or_default().to_owned()
    };
    let own = groups.map(|group| own_name(group).to_owned());
    let ids = groups.map(|group| in_stack(group));
    let sources = [[&*own[0], &*own[1]], [&*ids[0], &*ids[1]]];
    let counterpart = |name: &str| {
        let pair = ROLES.iter().find(|pair| pair.contains(&name))?;
        let other = pair.iter().find(|word| **word != name)?;
        Some((*other).to_owned())
    };
    let names = match (given, names::tell(&sources)) {
        ([Some(one), Some(other)], _) => [one, other],
        ([Some(one), None], _) => {
            let other = counterpart(&one).unwrap_or_else(|| own[1].clone());
            [one, other]
        }
        ([None, Some(other)], _) => {
            let one = counterpart(&other).unwrap_or_else(|| own[0].clone());
            [one, other]
        }
        ([None, None], Told::Pair(pair)) => pair.map(ToOwned::to_owned),
        ([None, None], Told::Nothing) => own.clone(),
        ([None, None], Told::Doubt) => {
            return Err(refused(
                "which-arm",
                &format!(
                    "the names {} and {} do not tell which arm is which\n\nhint: say it with --arm stable=TARGET-GROUP --arm canary=TARGET-GROUP, or with target.aws.arms.NAME.target-group",
                    own[0], own[1]
                ),
            ));
        }
    };
    if names[0] == names[1] {
        return Err(refused(
            "one-name",
            &format!(
                "both arms would be called {}\n\nhint: name them with --arm NAME=TARGET-GROUP or target.aws.arms",
                names[0]
            ),
        ));
    }
    Ok(names)
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
                    "the service {given} is given without its cluster\n\nhint: write CLUSTER/{given}, or give --cluster"
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

/// Finds which of the services registers its tasks in which group.
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
                let mut groups = service.load_balancers().iter();
                let group = Some(half.arm.target_group.as_str());
                if groups.any(|l| l.target_group_arn() == group) {
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

/// All listeners of a load balancer, those for tests among them.
pub(super) async fn listeners_of(
    clients: &Clients,
    balancer: &str,
) -> Result<Vec<Listener>, HostError> {
    let mut listeners = vec![];
    let mut page = None;
    loop {
        let describe = clients
            .elb
            .describe_listeners()
            .load_balancer_arn(balancer)
            .set_marker(page);
        let answer = clients
            .ask(Api::DescribeListeners, balancer, describe.send())
            .await?;
        listeners.extend(answer.listeners.unwrap_or_default());
        page = answer.next_marker.filter(|m| !m.is_empty());
        if page.is_none() {
            return Ok(listeners);
        }
    }
}

/// What the load balancers of the arms' groups send to the arms by routes other than those
/// of the target; with `own`, by those too.
pub(super) async fn elsewhere(
    clients: &Clients,
    found: &Found,
    own: bool,
) -> Result<Vec<Elsewhere>, HostError> {
    let all = passages(clients, found, Missing::Nothing).await?;
    let others = all
        .iter()
        .filter(|p| own || found.routes().all(|route| route != p.arn));
    Ok(others.flat_map(|p| traffic::elsewhere(found, p)).collect())
}

/// What may be missing where routes are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Nothing,
    /// The load balancers of the groups, other than that of the target's route.
    Balancers,
}

/// Every listener and every rule of the load balancers of the arms' groups.
async fn passages(
    clients: &Clients,
    found: &Found,
    missing: Missing,
) -> Result<Vec<Passage>, HostError> {
    let groups: Vec<String> = found.arms.iter().map(|a| a.target_group.clone()).collect();
    // That of the route is known, and nearly always it is the only one.
    let own = passages_of(clients, found, &found.load_balancer);
    let (balancers, own) = tokio::join!(balancers_of(clients, &groups), own);
    let mut balancers = match balancers {
        Err(error) if missing == Missing::Balancers && error.kind == ErrorKind::Denied => vec![],
        read => read?,
    };
    let mut own = Some(own?);
    balancers.push(found.load_balancer.clone());
    balancers.sort();
    balancers.dedup();
    let mut all = vec![];
    for balancer in &balancers {
        all.extend(match own.take_if(|_| *balancer == found.load_balancer) {
            Some(own) => own,
            None => passages_of(clients, found, balancer).await?,
        });
    }
    Ok(all)
}

/// Every listener and every rule of one load balancer.
async fn passages_of(
    clients: &Clients,
    found: &Found,
    balancer: &str,
) -> Result<Vec<Passage>, HostError> {
    let listeners = listeners_of(clients, balancer).await?;
    let arns: Vec<&str> = listeners
        .iter()
        .map(|l| l.listener_arn().unwrap_or_default())
        .collect();
    let rules = try_join_all(arns.iter().map(|arn| rules_of(clients, arn))).await?;
    let mut all = vec![];
    for ((listener, arn), rules) in listeners.iter().zip(&arns).zip(rules) {
        let mut place = place_of(listener);
        if *balancer != found.load_balancer {
            let name = balancer.split('/').nth(2).unwrap_or(balancer);
            place = format!("{place} of {name}");
        }
        let passage = |own: &str, place, is_default, actions: &[Action]| Passage {
            arn: own.to_owned(),
            listener: (*arn).to_owned(),
            load_balancer: balancer.to_owned(),
            port: listener.port().unwrap_or_default(),
            place,
            is_default,
            actions: actions.to_vec(),
        };
        all.push(passage(
            arn,
            place.clone(),
            true,
            listener.default_actions(),
        ));
        let rules = rules.iter().filter(|r| r.is_default() != Some(true));
        all.extend(rules.map(|rule| {
            let priority = rule.priority().unwrap_or("?");
            passage(
                rule.rule_arn().unwrap_or_default(),
                format!("{place} rule {priority}"),
                false,
                rule.actions(),
            )
        }));
    }
    Ok(all)
}

/// ARNs of the load balancers that these target groups are attached to, each once.
async fn balancers_of(clients: &Clients, groups: &[String]) -> Result<Vec<String>, HostError> {
    let mut balancers = vec![];
    let mut page = None;
    loop {
        let describe = clients
            .elb
            .describe_target_groups()
            .set_target_group_arns(Some(groups.to_vec()))
            .set_marker(page);
        let answer = clients
            .ask(
                Api::DescribeTargetGroups,
                &groups.join(", "),
                describe.send(),
            )
            .await?;
        for group in answer.target_groups.unwrap_or_default() {
            balancers.extend(group.load_balancer_arns.unwrap_or_default());
        }
        page = answer.next_marker.filter(|m| !m.is_empty());
        if page.is_none() {
            balancers.sort();
            balancers.dedup();
            return Ok(balancers);
        }
    }
}

/// What people call a listener, such as `HTTPS:443`.
fn place_of(listener: &Listener) -> String {
    let protocol = listener.protocol().map_or("", ProtocolEnum::as_str);
    format!("{protocol}:{}", listener.port().unwrap_or_default())
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
        let groups = ["tg-a", "tg-b", "x-canary", "x-prod"]
            .map(|name| format!("arn:aws:elasticloadbalancing:r:1:targetgroup/{name}/0a"));
        let arm = |name: &str, group: &str| FindArm {
            name: name.to_owned(),
            target_group: Some(group.to_owned()),
            service: None,
        };
        let names = |arms: Vec<FindArm>, [a, b]: [usize; 2]| {
            let find = Find {
                arms,
                ..Find::default()
            };
            arm_names(&find, None, [&groups[a], &groups[b]]).map_err(|e| e.code)
        };
        let two = |a: &str, b: &str| Ok([a.to_owned(), b.to_owned()]);
        assert_eq!(names(vec![], [0, 1]), two("tg-a", "tg-b"));
        assert_eq!(names(vec![], [2, 3]), Err("which-arm".to_owned()));
        // The name of one arm tells the name of the other, by group name and by ARN.
        assert_eq!(
            names(vec![arm("stable", "x-prod")], [2, 3]),
            two("canary", "stable")
        );
        assert_eq!(
            names(vec![arm("blue", &groups[0])], [0, 1]),
            two("blue", "green")
        );
        assert_eq!(names(vec![arm("old", "tg-b")], [0, 1]), two("tg-a", "old"));
        assert_eq!(
            names(vec![arm("tg-a", "tg-b")], [0, 1]),
            Err("one-name".to_owned())
        );
    }

    #[test]
    fn other_load_balancers_are_refused_in_words() {
        let arn = |rest: &str| format!("arn:aws:elasticloadbalancing:r:1:{rest}");
        for (rest, kind) in [
            ("listener/net/a/b/c", "network"),
            ("listener/gwy/a/b/c", "gateway"),
            ("listener-rule/net/a/b/c/d", "network"),
        ] {
            let error = refuse_other_balancers(&arn(rest)).expect_err(rest);
            assert!(error.message.contains(kind), "{error}");
            assert!(
                error.message.contains("application load balancers"),
                "{error}"
            );
        }
        for rest in ["listener/app/net/b/c", "listener-rule/app/net/b/c/d"] {
            assert!(refuse_other_balancers(&arn(rest)).is_ok(), "{rest}");
        }
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

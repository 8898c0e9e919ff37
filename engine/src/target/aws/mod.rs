//! The target on AWS: weighted target groups of an application load balancer,
//! two ECS services behind them, and metrics from CloudWatch.
//!
//! SDK types stay in this folder. Each file has one service: `traffic` and
//! `discover` (load balancing), `services` (ECS), `autoscaling`, `metrics` (CloudWatch),
//! `stack` (CloudFormation); `client` carries the calls and explains their
//! errors, `calls` lists them with the permissions they need. `release` has what the
//! arms run, made of task definitions (`definition`).

mod action;
mod autoscaling;
pub mod calls;
pub mod client;
mod credentials;
mod definition;
mod discover;
mod metrics;
mod names;
mod release;
mod restarts;
mod services;
pub mod stack;
mod traffic;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_cloudwatch::types::{AlarmType, StateValue};
use aws_sdk_ecs::types::Service;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ProtocolEnum, TargetGroup, TargetHealthDescription, TargetHealthStateEnum,
};
use tokio::try_join;

use super::http::Client as HttpClient;
use super::query::{self, Words};
use super::tls::Trust;
use super::{Order, StackNow, Step, Target};
use crate::clock::{Clock, SystemClock};
use crate::model::aws::{Also, AwsSpec, Find, Found, FoundArm, is_rule};
use crate::model::query::{Count, Probe, Query, QuerySource};
use crate::model::{
    ArmHealth, ArmScaling, Deployment, Elsewhere, ErrorKind, HostError, Images, MetricsQuery,
    Millis, Observed, ObservedArm, Point, ProbeReport, Release, Sample, Scaling, Source, Traffic,
    Weights,
};
use calls::Api;
use client::{Clients, incomplete};
use definition::Definition;
use traffic::Strict;

pub use action::LiveAction;
pub use metrics::PERIOD_MS;
pub use release::{TaskChange, Wanted, release_of_task_definition};

/// How old the actions may be on which a write is based, ms: they were read
/// just before, to compare.
const READ_AGE_MAX_MS: Millis = 5_000;

/// Most routes in one call that reads them.
const ROUTES_IN_A_CALL: usize = 20;

/// How long the way back waits for routes of another kind than the target's own.
const OTHERS_WITHIN: Duration = Duration::from_secs(5);

/// How old an unused read of the traffic may be, ms.
const UNUSED_AGE_MAX_MS: Millis = 1_000;

/// Finds everything about a target.
///
/// # Errors
/// The target does not exist, is ambiguous, or AWS does not answer.
pub async fn discover(clients: &Clients, find: &Find) -> Result<Found, HostError> {
    discover::discover(clients, find).await
}

/// Finds what a write of weights needs, from the load balancer alone: the way
/// back must not depend on any other service.
///
/// # Errors
/// The route does not exist, is ambiguous, or AWS does not answer.
pub async fn find_route(clients: &Clients, find: &Find) -> Result<Found, HostError> {
    discover::route_only(clients, find).await
}

/// A target that was found before, with the routes that move together today; it asks the
/// load balancers alone. Also the actions of all routes that were read.
///
/// # Errors
/// They do not answer.
pub async fn routes_anew(clients: &Clients, found: &Found) -> Result<(Found, Routes), HostError> {
    let asked = SystemClock.now();
    let (found, actions) = discover::routes_anew(clients, found).await?;
    Ok((found, Routes { asked, actions }))
}

/// Actions of listeners and rules as they were read, by their ARNs.
#[derive(Debug, Default)]
pub struct Routes {
    /// When the first of them was asked for, Unix ms: none of them is older.
    asked: Millis,
    actions: HashMap<String, Vec<Action>>,
}

impl Routes {
    /// Whether the target's own route is there and sends requests to one of the arms.
    #[must_use]
    pub fn serves(&self, found: &Found) -> bool {
        let own = self.actions.get(&found.route);
        own.is_some_and(|actions| traffic::serves(found, actions))
    }

    /// Whether that route sends requests to another arm than this one.
    #[must_use]
    pub fn strays(&self, found: &Found, route: &str, home: &str) -> bool {
        let actions = self.actions.get(route);
        actions.is_some_and(|actions| {
            let groups = traffic::forward(actions).unwrap_or_default();
            let weights = traffic::weights(&found.arms, &groups);
            weights.0.iter().any(|w| w.arm != home && w.weight > 0)
        })
    }
}

/// A target on AWS, with the clients to reach it.
pub struct AwsTarget {
    clients: Clients,
    spec: AwsSpec,
    found: Found,
    clock: Arc<dyn Clock>,
    http: HttpClient,
    /// The actions of the last read of each route, and when that was.
    last: Mutex<HashMap<String, (Millis, Vec<Action>)>>,
    /// The traffic that a check of the target has read on the way; the next
    /// question about the traffic may use it.
    unused: Mutex<Option<(Millis, Traffic)>>,
    /// Task definitions by their ARNs.
    definitions: Mutex<HashMap<String, Arc<Definition>>>,
    /// The health that was read last, and how often it was read.
    health: tokio::sync::Mutex<Vec<ArmHealth>>,
    health_reads: AtomicU64,
}

impl std::fmt::Debug for AwsTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsTarget")
            .field("route", &self.found.route)
            .finish_non_exhaustive()
    }
}

/// Where a probe goes.
struct Place {
    /// Scheme, host and port, perhaps with a path.
    base: String,
    /// Whether HTTP/2 is spoken there without asking first.
    http2: bool,
    whose: Whose,
}

/// Whose address a probe goes to.
enum Whose {
    /// A person named it, so a certificate is made for it.
    Named,
    /// A task or the load balancer itself.
    Target,
}

/// Why a target may not be written to of which one route shares its requests with a third
/// group.
fn third_group(unmoved: &Also) -> HostError {
    let flag = match is_rule(&unmoved.route) {
        true => "rule",
        false => "listener",
    };
    HostError::new(
        ErrorKind::Invalid,
        "third-group",
        format!(
            "{} ({} {}) forwards to both arms, and to a third target group that gets requests too, so it cannot move with the others\n\nhint: give the third group weight 0 there, where it then stays, or leave that route as it is with --only, which moves the route that is named alone",
            unmoved.place, flag, unmoved.route
        ),
    )
}

/// Rules and listeners among routes.
fn by_kind<'a>(routes: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    routes.iter().partition(|route| is_rule(route))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AwsTarget {
    /// The target that was found.
    #[must_use]
    pub fn new(clients: Clients, spec: AwsSpec, found: Found, clock: Arc<dyn Clock>) -> Self {
        Self {
            http: HttpClient::through(&clients.network),
            clients,
            spec,
            found,
            clock,
            last: Mutex::default(),
            unused: Mutex::default(),
            definitions: Mutex::default(),
            health: tokio::sync::Mutex::default(),
            health_reads: AtomicU64::new(0),
        }
    }

    /// The resources of the target.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Whether it is the target that was found so, and is used as this spec says.
    #[must_use]
    pub fn is(&self, spec: &AwsSpec, found: &Found) -> bool {
        let of = |spec: &AwsSpec| (spec.container.clone(), spec.changes.clone());
        self.found == *found && of(&self.spec) == of(spec)
    }

    /// Whether the resources that were found earlier still fit together. What was `read`
    /// of them just now is not read again.
    ///
    /// # Errors
    /// They do not, or AWS does not answer.
    pub async fn verify(&self, mut read: Routes) -> Result<(), HostError> {
        let unread = |r: &&str| !read.actions.contains_key(*r);
        let unread: Vec<&str> = self.found.routes().filter(unread).collect();
        let now = self.clock.now();
        // The first answer may be as old as the last one took to come.
        let at = match read.actions.is_empty() {
            true => now,
            false => read.asked.min(now),
        };
        let mut others = self.read_all(&unread).await.into_iter();
        let each = self.found.routes().map(|route| {
            let Some(actions) = read.actions.remove(route) else {
                return others.next().unwrap_or_else(|| Err(self.missing(route)));
            };
            locked(&self.last).insert(route.to_owned(), (at, actions.clone()));
            Ok(actions)
        });
        let each: Vec<_> = each.collect();
        let traffic = traffic::of_all(&self.found, &each, Strict::All)?;
        *locked(&self.unused) = Some((at, traffic));
        Ok(())
    }

    /// The whole action of the route.
    ///
    /// # Errors
    /// AWS does not answer.
    pub async fn action(&self) -> Result<LiveAction, HostError> {
        Ok(LiveAction(self.actions().await?))
    }

    /// The whole action of another listener or rule.
    ///
    /// # Errors
    /// It does not exist, or AWS does not answer.
    pub async fn action_of(&self, route: &str) -> Result<LiveAction, HostError> {
        Ok(LiveAction(self.read_actions(route).await?))
    }

    /// The actions of the route itself.
    async fn actions(&self) -> Result<Vec<Action>, HostError> {
        self.read_actions(&self.found.route).await
    }

    async fn read_actions(&self, route: &str) -> Result<Vec<Action>, HostError> {
        let read = self.read_all(&[route]).await.pop();
        read.unwrap_or_else(|| Err(incomplete(Api::DescribeListeners, "listener")))
    }

    /// The actions of these routes, in their order: all listeners in one call, and all
    /// rules in another.
    async fn read_all(&self, routes: &[&str]) -> Vec<Result<Vec<Action>, HostError>> {
        let (rules, listeners) = by_kind(routes);
        let now = self.clock.now();
        let (mut read, rules) = tokio::join!(self.read_some(&listeners), self.read_some(&rules));
        read.extend(rules);
        self.keep_last(routes, &read, now)
    }

    /// The same for the way back: those of the other kind than the target's own are not waited
    /// for, once its own was read, for longer than [`OTHERS_WITHIN`].
    async fn read_own_first(&self, routes: &[&str]) -> Vec<Result<Vec<Action>, HostError>> {
        let (rules, listeners) = by_kind(routes);
        let (own, others) = match is_rule(&self.found.route) {
            true => (rules, listeners),
            false => (listeners, rules),
        };
        let now = self.clock.now();
        let (mut own, mut rest) = (pin!(self.read_some(&own)), pin!(self.read_some(&others)));
        let mut early = None;
        let mut read = loop {
            tokio::select! {
                biased;
                read = &mut own => break read,
                read = &mut rest, if early.is_none() => early = Some(read),
            }
        };
        let rest = match early {
            Some(read) => Ok(read),
            None => tokio::time::timeout(OTHERS_WITHIN, rest).await,
        };
        read.extend(rest.unwrap_or_else(|_| {
            let each = others.iter().map(|route| {
                let message = format!("the load balancer did not say in time what {route} does");
                let error = HostError::new(ErrorKind::Unavailable, "silent-route", message);
                ((*route).to_owned(), Err(error.retryable()))
            });
            each.collect()
        }));
        self.keep_last(routes, &read, now)
    }

    /// What was read of these routes at that time, Unix ms, in their order; remembers it.
    fn keep_last(
        &self,
        routes: &[&str],
        read: &HashMap<String, Result<Vec<Action>, HostError>>,
        now: Millis,
    ) -> Vec<Result<Vec<Action>, HostError>> {
        let mut last = locked(&self.last);
        let each = routes.iter().map(|route| {
            let actions = read
                .get(*route)
                .cloned()
                .unwrap_or_else(|| Err(self.missing(route)));
            match &actions {
                Ok(actions) => last.insert((*route).to_owned(), (now, actions.clone())),
                Err(_) => last.remove(*route),
            };
            actions
        });
        each.collect()
    }

    /// The error of a route that an answer leaves out.
    fn missing(&self, route: &str) -> HostError {
        let alone = route == self.found.route && self.found.also.is_empty();
        match (alone, is_rule(route)) {
            (true, true) => incomplete(Api::DescribeRules, "rule"),
            (true, false) => incomplete(Api::DescribeListeners, "listener"),
            (false, _) => HostError::new(
                ErrorKind::NotFound,
                "no-such-route",
                format!("{route} does not exist"),
            ),
        }
    }

    /// The same for routes of one kind. One that does not exist any more does not hide the
    /// others.
    async fn read_some(&self, routes: &[&str]) -> HashMap<String, Result<Vec<Action>, HostError>> {
        let mut read = HashMap::new();
        for some in routes.chunks(ROUTES_IN_A_CALL) {
            // On the heap, because the SDK's futures are deep.
            match Box::pin(self.describe(some)).await {
                Ok(found) => read.extend(found.into_iter().map(|(arn, a)| (arn, Ok(a)))),
                Err(error) if error.kind == ErrorKind::NotFound && some.len() > 1 => {
                    for route in some {
                        let one = Box::pin(self.describe(&[route])).await;
                        let one = one.and_then(|found| {
                            let one = found.into_iter().next();
                            let one = one.map(|(_, actions)| actions);
                            one.ok_or_else(|| self.missing(route))
                        });
                        read.insert((*route).to_owned(), one);
                    }
                }
                Err(error) => {
                    let each = some.iter();
                    read.extend(each.map(|route| ((*route).to_owned(), Err(error.clone()))));
                }
            }
        }
        read
    }

    /// The actions of listeners, or of rules, by their ARNs; one call.
    async fn describe(&self, routes: &[&str]) -> Result<Vec<(String, Vec<Action>)>, HostError> {
        let named = || Some(routes.iter().map(|route| (*route).to_owned()).collect());
        let what = routes.join(", ");
        if routes.first().is_some_and(|route| is_rule(route)) {
            let call = self.clients.elb.describe_rules().set_rule_arns(named());
            let answer = self
                .clients
                .ask(Api::DescribeRules, &what, call.send())
                .await?;
            let rules = answer.rules.unwrap_or_default().into_iter();
            return Ok(rules
                .filter_map(|r| Some((r.rule_arn?, r.actions?)))
                .collect());
        }
        let call = self.clients.elb.describe_listeners();
        let call = call.set_listener_arns(named());
        let answer = self
            .clients
            .ask(Api::DescribeListeners, &what, call.send())
            .await?;
        let listeners = answer.listeners.unwrap_or_default().into_iter();
        Ok(listeners
            .filter_map(|l| Some((l.listener_arn?, l.default_actions?)))
            .collect())
    }

    /// The traffic of all routes.
    async fn traffic_of(&self, strict: Strict) -> Result<Traffic, HostError> {
        let routes: Vec<&str> = self.found.routes().collect();
        let read = match strict {
            Strict::Lenient => self.read_own_first(&routes).await,
            Strict::All | Strict::Readable => self.read_all(&routes).await,
        };
        traffic::of_all(&self.found, &read, strict)
    }

    /// The traffic that a check of the target has read a moment ago, once.
    fn take_unused(&self) -> Option<Traffic> {
        let unused = locked(&self.unused).take();
        let fresh = |at: Millis| self.clock.now().saturating_sub(at) < UNUSED_AGE_MAX_MS;
        unused
            .filter(|(at, _)| fresh(*at))
            .map(|(_, traffic)| traffic)
    }

    /// The actions on which a write may be based: read a moment ago, or read now.
    async fn actions_for_a_write(&self, route: &str) -> Result<Vec<Action>, HostError> {
        let last = locked(&self.last).remove(route);
        let now = self.clock.now();
        match last {
            Some((at, actions)) if now.saturating_sub(at) <= READ_AGE_MAX_MS => Ok(actions),
            _ => self.read_actions(route).await,
        }
    }

    /// Writes the weights of one route.
    async fn set_weights_of(&self, route: &str, step: &Step<'_>) -> Result<(), HostError> {
        let actions = self.actions_for_a_write(route).await;
        let several = !self.found.also.is_empty();
        let read = actions.as_deref().map_err(Clone::clone);
        let live = traffic::other(&self.found, &self.found.named(route), read);
        let serves = live.weights.0.iter().any(|w| w.weight > 0);
        // Nobody comes this way any more, or nobody from here to another arm.
        if live.amiss.is_some() && live.has(step.to) && (several || serves) {
            return Ok(());
        }
        let actions = actions?;
        let mut to = step.to.clone();
        if let Err(error) = traffic::read(&self.found, route, &actions) {
            // The write must not be based on actions with other groups, unless it takes
            // users from one of the arms and leaves a third group its own.
            let to_one = to.0.iter().any(|w| to.share(&w.arm) >= 100.0);
            if step.order != Order::Back || !to_one || !serves {
                return Err(error);
            }
            to = traffic::beside_a_third(&live.weights, &to);
        }
        // What somebody else has written meanwhile is not written over on the way back from
        // a raise.
        let is_ours = step
            .only_from
            .is_none_or(|from| live.weights.shares_like(from));
        // On the way back a read that says so is no proof: it may be older than a write.
        let is_there = live.weights == to && step.order == Order::Raise;
        if several && (is_there || !is_ours) {
            return Ok(());
        }
        let actions = traffic::rewrite(&self.found, &actions, &to);
        self.write_actions(route, actions).await
    }

    async fn write_actions(&self, route: &str, actions: Vec<Action>) -> Result<(), HostError> {
        if is_rule(route) {
            let call = self.clients.elb.modify_rule().rule_arn(route);
            let call = call.set_actions(Some(actions));
            self.clients
                .ask(Api::ModifyRule, route, call.send())
                .await
                .map(drop)
        } else {
            let call = self.clients.elb.modify_listener().listener_arn(route);
            let call = call.set_default_actions(Some(actions));
            self.clients
                .ask(Api::ModifyListener, route, call.send())
                .await
                .map(drop)
        }
    }

    fn arm(&self, name: &str) -> Result<&FoundArm, HostError> {
        self.found.arm(name).ok_or_else(|| {
            HostError::new(
                ErrorKind::Invalid,
                "no-such-arm",
                format!("there is no arm {name:?}"),
            )
        })
    }

    async fn targets(&self, arm: &FoundArm) -> Result<Vec<TargetHealthDescription>, HostError> {
        let call = self
            .clients
            .elb
            .describe_target_health()
            .target_group_arn(&arm.target_group);
        let answer = self
            .clients
            .ask(Api::DescribeTargetHealth, &arm.target_group, call.send())
            .await?;
        Ok(answer.target_health_descriptions.unwrap_or_default())
    }

    async fn health_of(&self, arm: &FoundArm) -> Result<ArmHealth, HostError> {
        let targets = self.targets(arm).await?;
        // Tasks that drain are about to stop and do not count for the arm.
        let states: Vec<&TargetHealthStateEnum> = targets
            .iter()
            .filter_map(|t| t.target_health()?.state())
            .filter(|s| {
                !matches!(
                    s,
                    TargetHealthStateEnum::Draining | TargetHealthStateEnum::UnhealthyDraining
                )
            })
            .collect();
        // Targets of a group that no action names are not health-checked. A load
        // balancer sends to all of them until their first check.
        let healthy = states
            .iter()
            .filter(|s| {
                matches!(
                    s,
                    TargetHealthStateEnum::Healthy | TargetHealthStateEnum::Unused
                )
            })
            .count();
        let whole = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(ArmHealth {
            arm: arm.name.clone(),
            healthy: whole(healthy),
            total: whole(states.len()),
            health_reason: traffic::why_unhealthy(&targets),
        })
    }

    /// The services of the arms that have one, in the arms' order.
    async fn services(&self) -> Result<Vec<Option<Service>>, HostError> {
        let ids: Vec<_> = self
            .found
            .arms
            .iter()
            .filter_map(|a| a.service.as_ref())
            .collect();
        if ids.is_empty() {
            return Ok(vec![None; self.found.arms.len()]);
        }
        let mut described = services::describe(&self.clients, &ids).await?.into_iter();
        let arms = self.found.arms.iter();
        Ok(arms
            .map(|a| a.service.as_ref().and_then(|_| described.next()))
            .collect())
    }

    /// The service of an arm, if both arms' services may be changed.
    async fn fit_service(&self, arm: &FoundArm) -> Result<Service, HostError> {
        let services = self.services().await?;
        services::fit(&self.found, &services)?;
        let mut all = self.found.arms.iter().zip(services);
        let own = all.find(|(known, _)| known.name == arm.name);
        own.and_then(|(_, service)| service)
            .ok_or_else(|| incomplete(Api::DescribeServices, "service"))
    }

    /// Checks that no route sends users to an arm, so that tasks may be taken
    /// from it.
    ///
    /// # Errors
    /// A route does, or that could not be read.
    pub async fn unserved(&self, arm: &str) -> Result<(), HostError> {
        let all = discover::elsewhere(&self.clients, &self.found, true).await;
        let all = all.map_err(|error| HostError {
            message: format!(
                "tasks of {arm} are kept, because it could not be read which routes send requests to it: {}",
                error.message
            ),
            ..error
        })?;
        let routes: Vec<String> = Elsewhere::serving(&all, arm)
            .map(ToString::to_string)
            .collect();
        if routes.is_empty() {
            return Ok(());
        }
        Err(HostError::new(
            ErrorKind::Conflict,
            "still-served",
            format!(
                "{}, so its tasks are kept; if a listener serves no users, name it with --test-listener or target.aws.test-listeners",
                routes.join(", ")
            ),
        ))
    }

    async fn observe_arm(
        &self,
        arm: &FoundArm,
        service: Option<&Service>,
        traffic: &Traffic,
        health: &ArmHealth,
    ) -> Result<ObservedArm, HostError> {
        let mut observed = ObservedArm {
            name: arm.name.clone(),
            release: Release {
                version: String::new(),
                source: Source::Urls(vec![]),
            },
            weight: traffic.weights.weight(&arm.name),
            healthy: health.healthy,
            total: health.total,
            health_reason: health.health_reason.clone(),
            tasks: None,
            deployment: Deployment::Steady,
            since: None,
            spoiled: 0,
            unanswered: 0,
            sent_again: 0,
        };
        if let (Some(service), Some(id)) = (service, &arm.service) {
            observed.release = self.release(service).await?;
            observed.tasks = u32::try_from(service.desired_count()).ok();
            observed.since = services::deployed_at(service);
            observed.deployment = match services::deployment(service) {
                Deployment::Failed(reason) => {
                    let more = services::why_failed(&self.clients, id, service).await;
                    Deployment::Failed(format!("{reason} {more}").trim().to_owned())
                }
                other => other,
            };
        }
        Ok(observed)
    }

    async fn alarm(&self, names: &[String]) -> Result<Option<String>, HostError> {
        if names.is_empty() {
            return Ok(None);
        }
        let call = self
            .clients
            .cloudwatch
            .describe_alarms()
            .set_alarm_names(Some(names.to_vec()))
            .alarm_types(AlarmType::MetricAlarm)
            .alarm_types(AlarmType::CompositeAlarm);
        let answer = self
            .clients
            .ask(Api::DescribeAlarms, &names.join(", "), call.send())
            .await?;
        let metric = answer.metric_alarms.unwrap_or_default();
        let composite = answer.composite_alarms.unwrap_or_default();
        let all: Vec<(Option<&str>, Option<&StateValue>, Option<&str>)> = metric
            .iter()
            .map(|a| (a.alarm_name(), a.state_value(), a.state_reason()))
            .chain(
                composite
                    .iter()
                    .map(|a| (a.alarm_name(), a.state_value(), a.state_reason())),
            )
            .collect();
        for name in names {
            let Some((_, state, reason)) = all.iter().find(|(n, ..)| *n == Some(name)) else {
                return Err(HostError::new(
                    ErrorKind::NotFound,
                    "no-such-alarm",
                    format!(
                        "there is no CloudWatch alarm {name:?} in {}; see guardrails.alarms",
                        self.clients.region
                    ),
                ));
            };
            if *state == Some(&StateValue::Alarm) {
                let reason = reason.unwrap_or("no reason given");
                return Ok(Some(format!("the alarm {name} is in ALARM: {reason}")));
            }
        }
        Ok(None)
    }

    async fn failed_deployment(&self, arm: Option<&str>) -> Result<Option<String>, HostError> {
        let Some((arm, id)) = arm
            .and_then(|name| self.found.arm(name))
            .and_then(|arm| Some((arm, arm.service.as_ref()?)))
        else {
            return Ok(None);
        };
        let described = services::describe(&self.clients, &[id]).await?;
        let Some(service) = described.first() else {
            return Ok(None);
        };
        Ok(match services::deployment(service) {
            Deployment::Failed(reason) => {
                let more = services::why_failed(&self.clients, id, service).await;
                Some(format!(
                    "the deployment of {} failed: {reason} {more}",
                    arm.name
                ))
            }
            _ => None,
        })
    }

    /// How the candidate is reached whatever the weights are: at the configured address,
    /// by a listener that sends everything to it, or at a healthy task.
    async fn past_the_weights(&self, arm: &FoundArm) -> Result<Place, HostError> {
        if let Some(url) = &self.spec.probe_url {
            return Ok(Place {
                base: url.trim_end_matches('/').to_owned(),
                http2: false,
                whose: Whose::Named,
            });
        }
        if let Some(base) = self.test_listener(arm).await? {
            return Ok(Place {
                base,
                http2: false,
                whose: Whose::Target,
            });
        }
        let targets = self.targets(arm).await?;
        let healthy = targets.iter().find(|t| {
            t.target_health().and_then(|h| h.state()) == Some(&TargetHealthStateEnum::Healthy)
        });
        let target = healthy.and_then(|t| t.target());
        let place = target.and_then(|t| Some((t.id()?, t.port()?)));
        // The id of an instance is not an address.
        let place = place.and_then(|(id, port)| {
            Some(SocketAddr::new(id.parse().ok()?, u16::try_from(port).ok()?))
        });
        let Some(place) = place else {
            return Err(HostError::new(
                ErrorKind::Unhealthy,
                "nothing-to-probe",
                format!(
                    "{} has no healthy target that could be probed\n\nhint: a test listener or target.aws.probe-url makes it reachable",
                    arm.name
                ),
            )
            .retryable());
        };
        let group = self.target_group(arm).await?;
        let secure = group.protocol() == Some(&ProtocolEnum::Https);
        let scheme = if secure { "https" } else { "http" };
        Ok(Place {
            base: format!("{scheme}://{place}"),
            http2: matches!(group.protocol_version(), Some("HTTP2" | "GRPC")),
            whose: Whose::Target,
        })
    }

    /// The address of a listener that sends everything to the arm.
    async fn test_listener(&self, arm: &FoundArm) -> Result<Option<String>, HostError> {
        if self.found.test_addresses.is_empty() {
            return Ok(None);
        }
        let all = discover::listeners_of(&self.clients, &self.found.load_balancer).await?;
        let mut secure = None;
        for (listener, address) in &self.found.test_addresses {
            let listener = all.iter().find(|l| l.listener_arn() == Some(listener));
            let groups = listener.and_then(|l| traffic::forward(l.default_actions()));
            let only = groups.is_some_and(|groups| {
                groups
                    .iter()
                    .all(|(arn, weight)| (*weight > 0) == (*arn == arm.target_group))
            });
            match only {
                true if address.starts_with("http://") => return Ok(Some(address.clone())),
                true => secure = secure.or(Some(address.clone())),
                false => {}
            }
        }
        Ok(secure)
    }

    /// The target group of an arm.
    async fn target_group(&self, arm: &FoundArm) -> Result<TargetGroup, HostError> {
        let describe = self.clients.elb.describe_target_groups();
        let describe = describe.target_group_arns(&arm.target_group);
        let answer = self
            .clients
            .ask(
                Api::DescribeTargetGroups,
                &arm.target_group,
                describe.send(),
            )
            .await?;
        let group = answer.target_groups.unwrap_or_default().into_iter().next();
        group.ok_or_else(|| incomplete(Api::DescribeTargetGroups, "target group"))
    }

    /// A client for what a probe meets there.
    fn prober(&self, place: &Place) -> Result<HttpClient, HostError> {
        let names = matches!(place.whose, Whose::Named);
        let trust = match (&self.spec.probe_ca, names) {
            (None, true) => return Ok(self.http.clone()),
            // So does the load balancer. No certificate fits its own name or the address
            // of a task.
            (None, false) => Trust::Anybody,
            (Some(file), names) => Trust::Authority {
                file: file.into(),
                names,
            },
        };
        HttpClient::trusting(&self.clients.network, &trust, place.http2).map_err(|why| {
            HostError::new(
                ErrorKind::Unavailable,
                "no-authority",
                format!("target.aws.probe-ca: {why}"),
            )
            .retryable()
        })
    }

    fn words(&self, version: &str, arm: &FoundArm) -> Words {
        let service = arm.service.as_ref();
        Words::new(&arm.name, version)
            .with("service", service.map_or("", |s| s.name.as_str()))
            .with("cluster", service.map_or("", |s| s.cluster.as_str()))
            .with("target-group", metrics::tail(&arm.target_group))
            .with("load-balancer", metrics::tail(&self.found.load_balancer))
    }
}

#[async_trait]
impl Target for AwsTarget {
    fn identity(&self) -> &str {
        &self.found.route
    }

    fn sample_period_ms(&self) -> u32 {
        PERIOD_MS
    }

    fn late_write_ms(&self) -> Millis {
        let attempt = Millis::try_from(self.clients.attempt.as_millis()).unwrap_or(Millis::MAX);
        attempt.saturating_add(super::LEAVE_WITHIN_MS)
    }

    async fn observe(&self) -> Result<Observed, HostError> {
        let [first, second] = &self.found.arms[..] else {
            return Err(HostError::new(
                ErrorKind::Internal,
                "not-two-arms",
                "a target has two arms",
            ));
        };
        let (traffic, a, b, services) = try_join!(
            self.traffic(),
            self.health_of(first),
            self.health_of(second),
            self.services()
        )?;
        let service = |n: usize| services.get(n).and_then(Option::as_ref);
        let (first, second) = try_join!(
            self.observe_arm(first, service(0), &traffic, &a),
            self.observe_arm(second, service(1), &traffic, &b)
        )?;
        Ok(Observed {
            arms: vec![first, second],
            sticky: traffic.sticky,
            address: traffic.address,
            others: traffic.others,
        })
    }

    async fn traffic(&self) -> Result<Traffic, HostError> {
        if let Some(traffic) = self.take_unused() {
            return Ok(traffic);
        }
        self.traffic_of(Strict::Readable).await
    }

    async fn glance(&self) -> Result<Traffic, HostError> {
        if let Some(traffic) = self.take_unused() {
            return Ok(traffic);
        }
        self.traffic_of(Strict::Lenient).await
    }

    async fn elsewhere(&self) -> Result<Vec<Elsewhere>, HostError> {
        discover::elsewhere(&self.clients, &self.found, false).await
    }

    async fn fit(&self) -> Result<(), HostError> {
        if let Some(unmoved) = self.found.unmoved.first() {
            return Err(third_group(unmoved));
        }
        let stack = async {
            match &self.spec.find.stack {
                Some(stack) => Ok(self.stack(stack).await?.map(|now| (stack, now))),
                None => Ok(None),
            }
        };
        let (services, stack) = tokio::join!(self.services(), stack);
        services::fit(&self.found, &services?)?;
        match stack?.and_then(|(name, stack)| Some((name, stack.at_work?))) {
            Some((name, status)) => Err(stack::at_work(name, &status)),
            None => Ok(()),
        }
    }

    async fn digests(&self, arm: &str) -> Result<Images, HostError> {
        let arm = self.arm(arm)?;
        let Some(id) = &arm.service else {
            return Ok(Images::default());
        };
        services::digests(&self.clients, id, self.spec.container.as_deref()).await
    }

    async fn stack(&self, stack: &str) -> Result<Option<StackNow>, HostError> {
        let stack = stack::look(&self.clients, stack).await?;
        let names = self.found.arms.iter().map(|arm| arm.name.as_str());
        Ok(stack.map(|stack| StackNow {
            believes: stack::believed(&stack.parameters, names),
            well: stack.is_well(),
            at_work: stack.is_moving().then_some(stack.status),
        }))
    }

    async fn health(&self) -> Result<Vec<ArmHealth>, HostError> {
        let [first, second] = &self.found.arms[..] else {
            return Ok(vec![]);
        };
        // Who asks while somebody else does gets the same answer.
        let before = self.health_reads.load(Ordering::Relaxed);
        let mut last = self.health.lock().await;
        if self.health_reads.load(Ordering::Relaxed) == before {
            let (a, b) = try_join!(self.health_of(first), self.health_of(second))?;
            *last = vec![a, b];
            self.health_reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(last.clone())
    }

    async fn tripped(
        &self,
        alarms: &[String],
        arm: Option<&str>,
    ) -> Result<Option<String>, HostError> {
        let (alarm, failed) = try_join!(self.alarm(alarms), self.failed_deployment(arm))?;
        Ok(alarm.or(failed))
    }

    async fn set_weights(&self, weights: &Weights) -> Result<(), HostError> {
        self.set_all(Step::back_to(weights)).await
    }

    async fn set_all(&self, step: Step<'_>) -> Result<(), HostError> {
        let mut routes: Vec<&str> = self.found.routes().collect();
        if step.order == Order::Raise {
            routes.reverse();
        }
        let mut failed: Option<HostError> = None;
        for route in routes {
            let Err(error) = self.set_weights_of(route, &step).await else {
                continue;
            };
            let error = match self.found.place_of(route) {
                "" => error,
                place if error.message.starts_with(place) => error,
                place => HostError {
                    message: format!("{place}: {}", error.message),
                    ..error
                },
            };
            // The fewer routes a raise has moved when it fails, the fewer are taken back. On
            // the way back every route that can be moved is.
            if step.order == Order::Raise {
                return Err(error);
            }
            failed = Some(match failed {
                None => error,
                Some(first) => HostError {
                    retryable: first.retryable || error.retryable,
                    message: format!("{}; {}", first.message, error.message),
                    ..first
                },
            });
        }
        failed.map_or(Ok(()), Err)
    }

    async fn set_version(&self, arm: &str, release: &Release) -> Result<(), HostError> {
        let arm = self.arm(arm)?;
        let id = services::service_of(arm)?;
        let service = &self.fit_service(arm).await?;
        let runs = service.task_definition().unwrap_or_default();
        let definition = self.definition_for(service, release).await?;
        let update = services::Update {
            // ECS does not try a failed deployment again by itself.
            again: runs == definition,
            task_definition: Some(definition),
            tasks: None,
        };
        services::update(&self.clients, id, update).await
    }

    async fn set_tasks(&self, arm: &str, tasks: u32) -> Result<(), HostError> {
        let arm = self.arm(arm)?;
        let id = services::service_of(arm)?;
        let service = self.fit_service(arm).await?;
        let tasks = i32::try_from(tasks).unwrap_or(i32::MAX);
        if tasks < service.desired_count() {
            self.unserved(&arm.name).await?;
        }
        let update = services::Update {
            tasks: Some(tasks),
            ..services::Update::default()
        };
        services::update(&self.clients, id, update).await
    }

    async fn scaling(&self) -> Result<Vec<ArmScaling>, HostError> {
        autoscaling::read(&self.clients, &self.found.arms).await
    }

    async fn set_scaling(&self, arm: &str, scaling: &Scaling) -> Result<(), HostError> {
        let id = services::service_of(self.arm(arm)?)?;
        autoscaling::write(&self.clients, id, scaling).await
    }

    async fn restore(&self, action: &serde_json::Value) -> Result<(), HostError> {
        let action = LiveAction::of_written(action)?;
        self.write_actions(&self.found.route, traffic::resent(&action.0))
            .await
    }

    async fn does(&self, action: &serde_json::Value) -> Result<bool, HostError> {
        let wanted = LiveAction::of_written(action)?;
        Ok(self.action().await?.does_as(&wanted))
    }

    async fn samples(&self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError> {
        let (now, delay) = (self.clock.now(), self.spec.metrics_delay_ms);
        metrics::samples(&self.clients, &self.found, query, now, delay).await
    }

    async fn counted(&self, count: Count, since: Millis) -> Result<Option<Vec<Point>>, HostError> {
        match count {
            Count::Unanswered => {
                let (now, delay) = (self.clock.now(), self.spec.metrics_delay_ms);
                let (clients, found) = (&self.clients, &self.found);
                let points = metrics::unanswered(clients, found, since, now, delay).await?;
                Ok(Some(points))
            }
            Count::Restarts | Count::OutOfMemory | Count::EndedWith => {
                let times = since..self.clock.now();
                restarts::counted(&self.clients, &self.found, count, times).await
            }
            Count::Asked | Count::SentAgain | Count::ClientErrors => Ok(None),
        }
    }

    async fn query(&self, query: &Query, since: Millis) -> Result<Vec<Point>, HostError> {
        let mut words = vec![];
        let services = self.services().await?;
        for (arm, service) in self.found.arms.iter().zip(&services) {
            let version = match service {
                Some(service) => self.release(service).await?.version,
                None => String::new(),
            };
            words.push(self.words(&version, arm));
        }
        let now = self.clock.now();
        match &query.source {
            QuerySource::CloudWatch(metric) => {
                metrics::points(&self.clients, metric, &words, since, now).await
            }
            _ => query::ask(&self.http, query, &words, since, now).await,
        }
    }

    async fn probe(&self, arm: &str, probe: &Probe) -> Result<ProbeReport, HostError> {
        let place = self.past_the_weights(self.arm(arm)?).await?;
        let client = self.prober(&place)?;
        let timeout = Duration::from_millis(u64::from(probe.timeout_ms));
        Ok(super::http::probe(&client, &place.base, probe, timeout).await)
    }
}

//! Weights in the actions of a listener or rule. Pure: it changes the weights in
//! what AWS returned and keeps everything else.

use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, TargetGroupTuple, TargetHealthDescription,
    TargetHealthStateEnum,
};

use crate::model::aws::{Also, Found, FoundArm};
use crate::model::{
    Elsewhere, ErrorKind, HostError, OtherRoute, Traffic, WEIGHT_MAX, Way, Weights,
};

/// The target groups that an action forwards to, with their weights; `None` if
/// it does not forward.
pub(super) fn groups(action: &Action) -> Option<Vec<(String, u32)>> {
    if action.r#type() != Some(&ActionTypeEnum::Forward) {
        return None;
    }
    let tuples = action
        .forward_config()
        .map(ForwardActionConfig::target_groups);
    let tuples = tuples.unwrap_or_default();
    if tuples.is_empty() {
        let only = action.target_group_arn()?;
        return Some(vec![(only.to_owned(), 100)]);
    }
    let weight = |t: &TargetGroupTuple| u32::try_from(t.weight().unwrap_or(1)).unwrap_or(0);
    let all = tuples
        .iter()
        .filter_map(|t| Some((t.target_group_arn()?.to_owned(), weight(t))));
    Some(all.collect())
}

/// The groups of the forward action among `actions`.
pub(super) fn forward(actions: &[Action]) -> Option<Vec<(String, u32)>> {
    actions.iter().find_map(groups)
}

/// What a list of actions sends to each of its groups, in percent. A group
/// alone gets everything. Where all weights are 0, every group is assumed to get
/// requests.
pub(super) fn served(actions: &[Action]) -> Vec<(String, f64)> {
    actions
        .iter()
        .filter_map(groups)
        .flat_map(by_share)
        .collect()
}

/// Weights as percent, without the groups that get nothing.
pub(super) fn by_share(groups: Vec<(String, u32)>) -> Vec<(String, f64)> {
    let total: f64 = groups.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let all = f64::from(u32::try_from(groups.len()).unwrap_or(u32::MAX));
    let shares = groups.into_iter().map(|(arn, weight)| {
        let share = if total > 0.0 {
            f64::from(weight) * 100.0 / total
        } else {
            100.0 / all
        };
        (arn, share)
    });
    shares.filter(|(_, share)| *share > 0.0).collect()
}

/// Whether the groups of both arms are among those of a forward action.
fn names_both(found: &Found, groups: &[(String, u32)]) -> bool {
    let named = |arm: &FoundArm| groups.iter().any(|(arn, _)| *arn == arm.target_group);
    found.arms.iter().all(named)
}

/// What a route other than the target's own sends to its arms.
pub(super) fn elsewhere(found: &Found, route: &Passage) -> Vec<Elsewhere> {
    let way = |share: f64| {
        if route.is_for_tests(found) {
            Way::Tests
        } else if share >= 100.0 && route.has_a_port_of_tests() {
            Way::Unsaid
        } else {
            Way::Users
        }
    };
    let both = names_both(found, &forward(&route.actions).unwrap_or_default());
    let served = served(&route.actions).into_iter();
    served
        .filter_map(|(group, share)| {
            let arm = found.arms.iter().find(|a| a.target_group == group)?;
            Some(Elsewhere {
                arm: arm.name.clone(),
                route: route.arn.clone(),
                place: route.place.clone(),
                share,
                way: way(share),
                both,
            })
        })
        .collect()
}

/// A listener's default action or a rule.
#[derive(Debug)]
pub(super) struct Passage {
    /// Its ARN.
    pub(super) arn: String,
    /// ARN of its listener.
    pub(super) listener: String,
    /// ARN of its load balancer.
    pub(super) load_balancer: String,
    /// Port of its listener.
    pub(super) port: i32,
    /// Such as `HTTPS:443`, or `HTTPS:443 rule 10`.
    pub(super) place: String,
    /// Whether it is a default action.
    pub(super) is_default: bool,
    /// Its actions.
    pub(super) actions: Vec<Action>,
}

impl Passage {
    fn is_for_tests(&self, found: &Found) -> bool {
        found.test_listeners.contains(&self.listener)
    }

    /// Whether it is a default action on a port that listeners for tests have.
    fn has_a_port_of_tests(&self) -> bool {
        self.is_default && !matches!(self.port, 80 | 443)
    }
}

/// How a passage takes part in what the target's own route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It shares its requests between the same two groups and moves with the route.
    Moves,
    /// The same, but a third group gets requests too.
    Unmoved,
    /// It does something else: it redirects, it has one of the groups alone, or only tests
    /// use it.
    None,
}

/// The part that a passage has. `live` are the weights of the target's own route: a
/// listener on another port than 80 and 443 that sends everything to the other arm looks
/// as listeners for tests do.
pub(super) fn part(found: &Found, live: &Weights, passage: &Passage) -> Part {
    let Some(groups) = forward(&passage.actions) else {
        return Part::None;
    };
    if passage.arn == found.route || passage.is_for_tests(found) || !names_both(found, &groups) {
        return Part::None;
    }
    let own = weights(&found.arms, &groups);
    let is_ours = |arn: &str| found.arms.iter().any(|a| a.target_group == arn);
    if groups.iter().any(|(arn, w)| *w > 0 && !is_ours(arn)) {
        return Part::Unmoved;
    }
    let on_one = own.0.iter().any(|w| own.share(&w.arm) >= 100.0);
    match passage.has_a_port_of_tests() && on_one && !own.shares_like(live) {
        true => Part::None,
        false => Part::Moves,
    }
}

/// The weights of the arms among those of groups.
pub(super) fn weights(arms: &[FoundArm], groups: &[(String, u32)]) -> Weights {
    let weight = |arm: &FoundArm| {
        let named = groups.iter().find(|(arn, _)| *arn == arm.target_group);
        named.map_or(0, |(_, weight)| *weight)
    };
    Weights::of(arms.iter().map(|a| (a.name.as_str(), weight(a))))
}

/// What a route does that moves with the target's own, if it could be read.
pub(super) fn other(found: &Found, also: &Also, read: Result<&[Action], HostError>) -> OtherRoute {
    let (weights, amiss) = match read {
        Ok(actions) => {
            let groups = forward(actions).unwrap_or_default();
            let amiss = astray(found, actions);
            (weights(&found.arms, &groups), amiss)
        }
        // Nobody comes this way any more.
        Err(error) if error.kind == ErrorKind::NotFound => (
            weights(&found.arms, &[]),
            Some("it does not exist any more".to_owned()),
        ),
        Err(error) => (
            Weights::default(),
            Some(format!("it could not be read: {error}")),
        ),
    };
    OtherRoute {
        route: also.route.clone(),
        place: also.place.clone(),
        weights,
        amiss,
    }
}

/// Whether actions send requests to one of the arms.
pub(super) fn serves(found: &Found, actions: &[Action]) -> bool {
    let groups = forward(actions).unwrap_or_default();
    let weights = weights(&found.arms, &groups);
    weights.0.iter().any(|w| w.weight > 0)
}

/// Why actions are not about the two arms alone; none if they are.
fn astray(found: &Found, actions: &[Action]) -> Option<String> {
    let Some(groups) = forward(actions) else {
        return Some("it does not forward any more".to_owned());
    };
    let known = |arn: &str| found.arms.iter().any(|a| a.target_group == arn);
    let stranger = groups.iter().find(|(arn, w)| *w > 0 && !known(arn));
    stranger.map(|(stranger, _)| format!("it forwards to {stranger}"))
}

/// Who gets the traffic of one route, if its actions are still about these two arms.
/// Another group may be named with weight 0: it gets no requests.
///
/// # Errors
/// It does something else by now.
pub(super) fn read(found: &Found, route: &str, actions: &[Action]) -> Result<Traffic, HostError> {
    match astray(found, actions) {
        Some(why) => Err(changed(found, route, &why)),
        None => Ok(led_by(found, actions)),
    }
}

/// The traffic that these actions share out.
fn led_by(found: &Found, actions: &[Action]) -> Traffic {
    let groups = forward(actions).unwrap_or_default();
    let sticky = actions.iter().any(|a| {
        let config = a
            .forward_config()
            .and_then(|f| f.target_group_stickiness_config());
        config.and_then(|s| s.enabled()).unwrap_or(false)
    });
    Traffic {
        weights: weights(&found.arms, &groups),
        sticky,
        address: found.address.clone(),
        others: vec![],
    }
}

/// Whose error matters where several routes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strict {
    /// Every route must be as it was.
    All,
    /// Every route that exists must be readable.
    Readable,
    /// A route that cannot be read is only noted, and one that shares its requests with a
    /// third group may be the only one: for the way back.
    Lenient,
}

/// The traffic of all routes of a target, as they were `read`, in their order. Its own is
/// one of them: where that one does not share its requests between the two arms any more,
/// the first that does says what the weights are, and the own is among the others.
///
/// # Errors
/// No route shares its requests between the arms, or one is not as `strict` wants it.
pub(super) fn of_all(
    found: &Found,
    read: &[Result<Vec<Action>, HostError>],
    strict: Strict,
) -> Result<Traffic, HostError> {
    let leads = |read: &Result<Vec<Action>, HostError>| {
        let actions = read.as_deref();
        actions.is_ok_and(|actions| astray(found, actions).is_none())
    };
    let mut lead = read.iter().position(leads);
    if strict == Strict::Lenient {
        let each = || read.iter().map(|read| read.as_deref());
        lead = lead.or_else(|| each().position(|r| r.is_ok_and(|r| serves(found, r))));
    }
    let (Some(lead), false) = (lead, read.is_empty()) else {
        let own = read.first().cloned().unwrap_or_else(|| Ok(vec![]))?;
        let why = astray(found, &own).unwrap_or_default();
        return Err(changed(found, &found.route, &why));
    };
    let mut traffic = led_by(found, read[lead].as_deref().map_err(Clone::clone)?);
    // A third group keeps its share, so the numbers of the two arms do not sum up to 100.
    if !leads(&read[lead])
        && let Some(all) = traffic
            .weights
            .0
            .iter()
            .find(|w| traffic.weights.share(&w.arm) >= 100.0)
    {
        traffic.weights = traffic.weights.all_to(&all.arm);
    }
    for (n, (route, read)) in found.routes().zip(read).enumerate() {
        if n == lead {
            continue;
        }
        let also = found.named(route);
        match (read, strict) {
            (Err(error), Strict::All | Strict::Readable)
                if error.kind != ErrorKind::NotFound || strict == Strict::All =>
            {
                return Err(HostError {
                    message: format!("{}: {}", also.place, error.message),
                    ..error.clone()
                });
            }
            _ => {}
        }
        let other = other(found, &also, read.as_deref().map_err(Clone::clone));
        if strict == Strict::All
            && let Some(why) = &other.amiss
        {
            return Err(changed(found, route, why));
        }
        traffic.others.push(other);
    }
    Ok(traffic)
}

fn changed(found: &Found, route: &str, what: &str) -> HostError {
    let place = match found.place_of(route) {
        "" => route.to_owned(),
        place => format!("{place} ({route})"),
    };
    HostError::new(
        ErrorKind::Conflict,
        "route-changed",
        format!(
            "{place} does not forward to {} any more: {what}",
            found
                .arms
                .iter()
                .map(|a| a.name.as_str())
                .collect::<Vec<_>>()
                .join(" and ")
        ),
    )
}

/// What is written to a route where one arm shall have all, and a third group gets requests
/// too: the share of the other arm, and none of the third group's.
pub(super) fn beside_a_third(live: &Weights, to: &Weights) -> Weights {
    let both: u32 = live.0.iter().map(|w| w.weight).sum();
    let each = to.0.iter().map(|w| match to.share(&w.arm) >= 100.0 {
        true => (w.arm.as_str(), both.min(WEIGHT_MAX)),
        false => (w.arm.as_str(), 0),
    });
    Weights::of(each)
}

/// The same actions with other weights. A write replaces the whole list, so
/// every other action and field is sent again, stickiness above all. Both
/// groups are named, because AWS does not health-check a group that no action
/// names, and a third keeps its weight.
pub(super) fn rewrite(found: &Found, actions: &[Action], weights: &Weights) -> Vec<Action> {
    let tuples: Vec<TargetGroupTuple> = found
        .arms
        .iter()
        .map(|arm| {
            let weight = i32::try_from(weights.weight(&arm.name)).unwrap_or(i32::MAX);
            TargetGroupTuple::builder()
                .target_group_arn(&arm.target_group)
                .weight(weight)
                .build()
        })
        .collect();
    let rewritten: Vec<Action> = actions
        .iter()
        .map(|action| {
            let mut action = action.clone();
            if groups(&action).is_some() {
                let ours = |tuple: &&TargetGroupTuple| {
                    let mut arms = found.arms.iter();
                    arms.any(|a| Some(a.target_group.as_str()) == tuple.target_group_arn())
                };
                let config = action.forward_config.as_ref();
                let others = config.map(ForwardActionConfig::target_groups);
                let others = others.unwrap_or_default().iter().filter(|t| !ours(t));
                let tuples = tuples.iter().chain(others).cloned().collect();
                let mut config = ForwardActionConfig::builder()
                    .set_target_groups(Some(tuples))
                    .build();
                config.target_group_stickiness_config = action
                    .forward_config
                    .and_then(|f| f.target_group_stickiness_config);
                action.forward_config = Some(config);
                // AWS accepts both fields only if they name the same group.
                action.target_group_arn = None;
            }
            action
        })
        .collect();
    resent(&rewritten)
}

/// Most reasons that are told of one group.
const REASONS_MAX: usize = 3;

/// Why targets do not pass their health checks, in the words of ELB with its code, each
/// reason once. Targets that drain are about to go, and unused ones are not checked.
pub(super) fn why_unhealthy(targets: &[TargetHealthDescription]) -> Option<String> {
    let mut reasons: Vec<(String, u32)> = vec![];
    for health in targets.iter().filter_map(|t| t.target_health()) {
        let counts = matches!(
            health.state(),
            Some(
                TargetHealthStateEnum::Unhealthy
                    | TargetHealthStateEnum::Unavailable
                    | TargetHealthStateEnum::Initial
            )
        );
        let code = health.reason().map_or("", |r| r.as_str());
        let said = health.description().unwrap_or_default();
        let reason = match (code, said) {
            ("", "") => continue,
            ("", one) | (one, "") => one.to_owned(),
            (code, said) => format!("{code}: {said}"),
        };
        if !counts {
            continue;
        }
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
    let several = reasons.len() > 1;
    let each = reasons
        .into_iter()
        .take(REASONS_MAX)
        .map(|(reason, count)| match several {
            true => format!("{count} × {reason}"),
            false => reason,
        });
    let all: Vec<String> = each.collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Actions that were read, in the form in which they can be written.
pub(super) fn resent(actions: &[Action]) -> Vec<Action> {
    actions
        .iter()
        .map(|action| {
            let mut action = action.clone();
            // AWS does not return a client secret, and keeps the one it has if asked to.
            if let Some(oidc) = &mut action.authenticate_oidc_config
                && oidc.client_secret.is_none()
            {
                oidc.use_existing_client_secret = Some(true);
            }
            action
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_elasticloadbalancingv2::types::{
        AuthenticateOidcActionConfig, TargetGroupStickinessConfig,
    };

    fn found() -> Found {
        let arm = |name: &str| FoundArm {
            name: name.to_owned(),
            target_group: format!("arn:{name}"),
            service: None,
        };
        Found {
            route: "arn:listener".to_owned(),
            load_balancer: String::new(),
            address: "http://here".to_owned(),
            zones: vec![],
            arms: vec![arm("stable"), arm("canary")],
            test_addresses: vec![],
            test_listeners: vec![],
            ..Found::default()
        }
    }

    fn forward_to(groups: &[(&str, i32)], sticky: Option<i32>) -> Action {
        let mut config = ForwardActionConfig::builder();
        for (arn, weight) in groups {
            let tuple = TargetGroupTuple::builder()
                .target_group_arn(*arn)
                .weight(*weight);
            config = config.target_groups(tuple.build());
        }
        if let Some(seconds) = sticky {
            let sticky = TargetGroupStickinessConfig::builder()
                .enabled(true)
                .duration_seconds(seconds);
            config = config.target_group_stickiness_config(sticky.build());
        }
        Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .order(2)
            .forward_config(config.build())
            .build()
    }

    #[test]
    fn weights_change_and_everything_else_stays() {
        let login = Action::builder()
            .r#type(ActionTypeEnum::AuthenticateOidc)
            .order(1)
            .authenticate_oidc_config(
                AuthenticateOidcActionConfig::builder()
                    .issuer("https://login")
                    .build(),
            )
            .build();
        let actions = [
            login.clone(),
            forward_to(&[("arn:canary", 5), ("arn:stable", 95)], Some(600)),
        ];
        let traffic = read(&found(), "arn:listener", &actions).expect("two arms");
        assert_eq!(
            traffic.weights,
            Weights::of([("stable", 95), ("canary", 5)])
        );
        assert!(traffic.sticky);

        let wanted = Weights::of([("stable", 100), ("canary", 0)]);
        let written = rewrite(&found(), &actions, &wanted);
        assert_eq!(
            read(&found(), "arn:listener", &written)
                .expect("two arms")
                .weights,
            wanted
        );
        let config = written[1].forward_config().expect("still forwards");
        assert_eq!(config.target_groups().len(), 2, "both named, also at 0");
        let sticky = config.target_group_stickiness_config().expect("kept");
        assert_eq!(sticky.duration_seconds(), Some(600));
        assert_eq!(written[1].order(), Some(2));
        let oidc = written[0].authenticate_oidc_config().expect("kept");
        assert_eq!(oidc.issuer(), Some("https://login"));
        assert_eq!(oidc.use_existing_client_secret(), Some(true));
    }

    #[test]
    fn the_reasons_of_elb_are_told_once_each() {
        use TargetHealthStateEnum as Is;
        use aws_sdk_elasticloadbalancingv2::types::{TargetHealth, TargetHealthReasonEnum as Why};
        let target = |state, why: Option<Why>, said: &str| {
            let health = TargetHealth::builder()
                .state(state)
                .set_reason(why)
                .description(said);
            let health = health.build();
            TargetHealthDescription::builder()
                .target_health(health)
                .build()
        };
        let codes = || {
            let said = "Health checks failed with these codes: [503]";
            target(Is::Unhealthy, Some(Why::ResponseCodeMismatch), said)
        };
        let late = || target(Is::Unhealthy, Some(Why::Timeout), "Request timed out");
        let fine = || target(Is::Healthy, None, "");
        let going = || target(Is::Draining, Some(Why::DeregistrationInProgress), "goes");
        assert_eq!(why_unhealthy(&[fine(), going()]), None);
        assert_eq!(
            why_unhealthy(&[codes(), fine(), codes()]).as_deref(),
            Some("Target.ResponseCodeMismatch: Health checks failed with these codes: [503]")
        );
        let both = why_unhealthy(&[late(), codes(), late()]).expect("two reasons");
        assert!(
            both.starts_with("2 × Target.Timeout: Request timed out; 1 × "),
            "{both}"
        );
    }

    #[test]
    fn a_route_that_does_something_else_leads_no_more() {
        let mut found = found();
        found.also = vec![Also {
            route: "arn:second".to_owned(),
            place: "HTTPS:443".to_owned(),
            load_balancer: String::new(),
        }];
        let half = || {
            Ok(vec![forward_to(
                &[("arn:stable", 50), ("arn:canary", 50)],
                None,
            )])
        };
        let three = [("arn:stable", 45), ("arn:canary", 45), ("arn:third", 10)];
        let shared = || Ok(vec![forward_to(&three, None)]);
        let redirects = || {
            Ok(vec![
                Action::builder().r#type(ActionTypeEnum::Redirect).build(),
            ])
        };
        let gone = || Err(HostError::new(ErrorKind::NotFound, "gone", "gone"));
        for own in [redirects(), gone(), shared()] {
            for strict in [Strict::Readable, Strict::Lenient] {
                let live = of_all(&found, &[own.clone(), half()], strict).expect("one leads");
                assert_eq!(live.weights, Weights::of([("stable", 50), ("canary", 50)]));
                assert_eq!(live.others[0].route, "arn:listener", "as any other");
                assert!(live.others[0].amiss.is_some());
                assert!(!live.all_on("stable"));
            }
            let error = of_all(&found, &[own, half()], Strict::All).expect_err("not as it was");
            assert!(!error.message.contains("HTTPS:443"), "{error}");
        }
        // Where none is about the two arms alone, the way back takes what there is.
        let none = [redirects(), shared()];
        assert!(of_all(&found, &none, Strict::Readable).is_err());
        let live = of_all(&found, &none, Strict::Lenient).expect("it serves");
        assert_eq!(live.weights.share("canary"), 50.0);
        let back = beside_a_third(&live.weights, &live.weights.all_to("stable"));
        assert_eq!(back, Weights::of([("stable", 90), ("canary", 0)]));
        let written = rewrite(&found, &shared().expect("actions"), &back);
        let live = of_all(&found, &[redirects(), Ok(written)], Strict::Lenient);
        let live = live.expect("it serves");
        assert_eq!(live.weights, Weights::of([("stable", 100), ("canary", 0)]));
        assert!(live.all_on("stable"));
        // Nobody is there whom it could take.
        assert!(of_all(&found, &[redirects(), gone()], Strict::Lenient).is_err());
    }

    #[test]
    fn an_action_with_a_single_group_is_all_to_it() {
        let only = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn("arn:stable")
            .build();
        let traffic = read(&found(), "arn:listener", &[only]).expect("one arm has all");
        assert_eq!(
            traffic.weights,
            Weights::of([("stable", 100), ("canary", 0)])
        );
    }

    #[test]
    fn a_stranger_in_the_action_is_a_conflict() {
        let action = forward_to(&[("arn:stable", 50), ("arn:other", 50)], None);
        let error = read(&found(), "arn:listener", &[action]).expect_err("not ours");
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(error.message.contains("arn:other"), "{error}");
        let idle = forward_to(
            &[("arn:stable", 50), ("arn:canary", 0), ("arn:other", 0)],
            None,
        );
        let wanted = Weights::of([("stable", 0), ("canary", 100)]);
        let written = rewrite(&found(), &[idle], &wanted);
        assert_eq!(
            read(&found(), "arn:listener", &written)
                .expect("two arms")
                .weights,
            wanted
        );
        let kept = forward(&written).expect("still forwards");
        assert_eq!(kept.last(), Some(&("arn:other".to_owned(), 0)), "kept");
        let redirect = Action::builder().r#type(ActionTypeEnum::Redirect).build();
        assert!(read(&found(), "arn:listener", &[redirect]).is_err());
    }
}

//! The whole action of a listener or rule, and what a stack operation would
//! change in it. Pure.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, AuthenticateCognitoActionConfig, AuthenticateOidcActionConfig,
    FixedResponseActionConfig, ForwardActionConfig, RedirectActionConfig,
    TargetGroupStickinessConfig, TargetGroupTuple,
};
use serde_json::{Map, Value, json};

use super::traffic;
use crate::model::{ErrorKind, HostError, percent};

/// The actions of a listener or rule as they were read.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveAction(pub(super) Vec<Action>);

/// One action, reduced to what can be compared between AWS and a template.
#[derive(Debug, PartialEq)]
struct Plain {
    kind: String,
    /// Percent by target group, without those that get nothing.
    groups: BTreeMap<String, f64>,
    /// Seconds, if clients stick to their group.
    sticky: Option<u64>,
    /// All other settings, without those that AWS fills in by itself.
    rest: BTreeMap<String, String>,
}

/// Values that AWS shows for settings that nobody has set.
const DEFAULTS: [(&str, &str); 10] = [
    ("SessionCookieName", "AWSELBAuthSessionCookie"),
    ("SessionTimeout", "604800"),
    ("Scope", "openid"),
    ("OnUnauthenticatedRequest", "authenticate"),
    ("Protocol", "#{protocol}"),
    ("Port", "#{port}"),
    ("Host", "#{host}"),
    ("Path", "/#{path}"),
    ("Query", "#{query}"),
    ("ContentType", "text/plain"),
];

/// Settings whose value AWS does not return.
const SECRETS: [&str; 2] = ["ClientSecret", "UseExistingClientSecret"];

impl LiveAction {
    /// Whether both have the same effect. Weights are compared as shares.
    #[must_use]
    pub fn does_as(&self, other: &Self) -> bool {
        plain(&self.0) == plain(&other.0)
    }

    /// The actions as JSON for a journal, with the keys of a template. It holds no
    /// secret, because AWS returns none.
    ///
    /// # Errors
    /// The action has a setting that this version cannot write down.
    pub fn written(&self) -> Result<Value, HostError> {
        let written = Value::Array(self.0.iter().map(write).collect());
        let read = Self::of_written(&written)?;
        if read == *self {
            return Ok(written);
        }
        Err(HostError::new(
            ErrorKind::Invalid,
            "unknown-action",
            "the listener or rule has settings that this version of engine does not know, so its action could not be restored",
        ))
    }

    /// Reads the actions that [`Self::written`] made.
    ///
    /// # Errors
    /// The JSON has another form.
    pub fn of_written(written: &Value) -> Result<Self, HostError> {
        let actions = written.as_array().map(|all| all.iter().map(read).collect());
        let actions: Option<Option<Vec<Action>>> = actions;
        actions.flatten().map(Self).ok_or_else(|| {
            HostError::new(
                ErrorKind::Invalid,
                "unknown-action",
                "the journal holds the action in a form that this version of engine cannot read; use the version that wrote it",
            )
        })
    }

    /// Whether it forwards and does nothing else.
    #[must_use]
    pub fn only_forwards(&self) -> bool {
        matches!(&plain(&self.0)[..], [one] if one.kind == "forward" && one.sticky.is_none())
    }

    /// Describes what would be lost if the resource got these properties; `None`
    /// if nothing would. With `weights` the shares are compared too.
    #[must_use]
    pub fn lost(&self, properties: &Value, weights: bool) -> Option<String> {
        let live = plain(&self.0);
        let told = of_template(properties);
        let kinds = |actions: &[Plain]| {
            let kinds: Vec<&str> = actions.iter().map(|a| a.kind.as_str()).collect();
            kinds.join(", ")
        };
        if kinds(&live) != kinds(&told) {
            return Some(format!(
                "its actions are {} and would be {}",
                kinds(&live),
                kinds(&told)
            ));
        }
        for (live, told) in live.iter().zip(&told) {
            let names = |a: &Plain| a.groups.keys().cloned().collect::<Vec<_>>();
            if live.sticky != told.sticky {
                return Some(format!(
                    "its stickiness is {} and would be {}",
                    seconds(live.sticky),
                    seconds(told.sticky)
                ));
            }
            let differs = if weights {
                live.groups.len() != told.groups.len()
                    || live.groups.iter().any(|(arn, share)| {
                        told.groups
                            .get(arn)
                            .is_none_or(|t| (t - share).abs() > 0.01)
                    })
            } else {
                // A group with weight 0 may get requests again, but no new group may.
                names(told).iter().any(|arn| {
                    !traffic::forward(&self.0)
                        .unwrap_or_default()
                        .iter()
                        .any(|(known, _)| known == arn)
                })
            };
            if differs {
                return Some(format!(
                    "it forwards {} and would forward {}",
                    shares(live),
                    shares(told)
                ));
            }
            let keys: std::collections::BTreeSet<&String> =
                live.rest.keys().chain(told.rest.keys()).collect();
            if let Some(key) = keys
                .into_iter()
                .find(|k| live.rest.get(*k) != told.rest.get(*k))
            {
                let value = |a: &Plain| a.rest.get(key).map_or("unset", String::as_str).to_owned();
                return Some(format!(
                    "{key} of its {} is {} and would be {}",
                    live.kind,
                    value(live),
                    value(told)
                ));
            }
        }
        None
    }
}

fn seconds(sticky: Option<u64>) -> String {
    sticky.map_or_else(|| "off".to_owned(), |s| format!("{s} s"))
}

fn shares(action: &Plain) -> String {
    let name = |arn: &str| arn.split('/').nth(1).unwrap_or(arn).to_owned();
    let shares: Vec<String> = action
        .groups
        .iter()
        .map(|(arn, share)| format!("{} % to {}", percent(*share), name(arn)))
        .collect();
    shares.join(", ")
}

fn plain(actions: &[Action]) -> Vec<Plain> {
    let mut actions: Vec<&Action> = actions.iter().collect();
    actions.sort_by_key(|a| a.order().unwrap_or_default());
    let one = |action: &&Action| {
        let sticky = action
            .forward_config()
            .and_then(|f| f.target_group_stickiness_config())
            .filter(|s| s.enabled() == Some(true));
        Plain {
            kind: action.r#type().map_or("", |t| t.as_str()).to_owned(),
            groups: traffic::served(std::slice::from_ref(*action))
                .into_iter()
                .collect(),
            sticky: sticky.map(|s| u64::try_from(s.duration_seconds().unwrap_or(0)).unwrap_or(0)),
            rest: rest(&details(action)),
        }
    };
    actions.iter().map(one).collect()
}

/// One action, whole.
fn write(action: &Action) -> Value {
    let forward = action.forward_config().map(|f| {
        let groups = f.target_groups.as_ref().map(|groups| {
            let one = |g: &TargetGroupTuple| json!({"TargetGroupArn": g.target_group_arn, "Weight": g.weight});
            groups.iter().map(one).collect::<Vec<_>>()
        });
        let sticky = f.target_group_stickiness_config().map(
            |s| json!({"Enabled": s.enabled, "DurationSeconds": s.duration_seconds}),
        );
        json!({"TargetGroups": groups, "TargetGroupStickinessConfig": sticky})
    });
    let mut written = json!({
        "Type": action.r#type().map(ActionTypeEnum::as_str),
        "Order": action.order(),
        "TargetGroupArn": action.target_group_arn(),
        "ForwardConfig": forward,
    });
    let config = if let Some(c) = action.authenticate_oidc_config() {
        let mut oidc = details(action);
        oidc["UseExistingClientSecret"] = json!(c.use_existing_client_secret);
        Some((OIDC, oidc))
    } else if action.authenticate_cognito_config().is_some() {
        Some((COGNITO, details(action)))
    } else if action.redirect_config().is_some() {
        Some((REDIRECT, details(action)))
    } else if action.fixed_response_config().is_some() {
        Some((FIXED, details(action)))
    } else {
        None
    };
    if let Some((name, config)) = config {
        written[name] = config;
    }
    written
}

/// Reads one action that [`write`] made; `None` if it has another form.
fn read(written: &Value) -> Option<Action> {
    let mut action = Action::builder()
        .r#type(ActionTypeEnum::from(written["Type"].as_str()?))
        .build();
    let part = |name: &str| Some(&written[name]).filter(|part| part.is_object());
    action.order = whole(&written["Order"]);
    action.target_group_arn = text(&written["TargetGroupArn"]);
    action.forward_config = part("ForwardConfig").map(forward_config);
    action.authenticate_oidc_config = part(OIDC).map(oidc_config);
    action.authenticate_cognito_config = part(COGNITO).map(cognito_config);
    action.redirect_config = part(REDIRECT).map(redirect_config);
    action.fixed_response_config = part(FIXED).map(fixed_response_config);
    Some(action)
}

fn forward_config(forward: &Value) -> ForwardActionConfig {
    let groups = forward["TargetGroups"].as_array().map(|groups| {
        let one = |g: &Value| {
            let mut tuple = TargetGroupTuple::builder().build();
            tuple.target_group_arn = text(&g["TargetGroupArn"]);
            tuple.weight = whole(&g["Weight"]);
            tuple
        };
        groups.iter().map(one).collect()
    });
    let mut config = ForwardActionConfig::builder()
        .set_target_groups(groups)
        .build();
    let sticky = &forward["TargetGroupStickinessConfig"];
    if sticky.is_object() {
        let mut read = TargetGroupStickinessConfig::builder().build();
        read.enabled = sticky["Enabled"].as_bool();
        read.duration_seconds = whole(&sticky["DurationSeconds"]);
        config.target_group_stickiness_config = Some(read);
    }
    config
}

fn oidc_config(c: &Value) -> AuthenticateOidcActionConfig {
    AuthenticateOidcActionConfig::builder()
        .set_issuer(text(&c["Issuer"]))
        .set_authorization_endpoint(text(&c["AuthorizationEndpoint"]))
        .set_token_endpoint(text(&c["TokenEndpoint"]))
        .set_user_info_endpoint(text(&c["UserInfoEndpoint"]))
        .set_client_id(text(&c["ClientId"]))
        .set_session_cookie_name(text(&c["SessionCookieName"]))
        .set_scope(text(&c["Scope"]))
        .set_session_timeout(c["SessionTimeout"].as_i64())
        .set_authentication_request_extra_params(pairs(c))
        .set_on_unauthenticated_request(
            text(&c["OnUnauthenticatedRequest"]).map(|t| t.as_str().into()),
        )
        .set_use_existing_client_secret(c["UseExistingClientSecret"].as_bool())
        .build()
}

fn cognito_config(c: &Value) -> AuthenticateCognitoActionConfig {
    let mut config = AuthenticateCognitoActionConfig::builder().build();
    config.user_pool_arn = text(&c["UserPoolArn"]);
    config.user_pool_client_id = text(&c["UserPoolClientId"]);
    config.user_pool_domain = text(&c["UserPoolDomain"]);
    config.session_cookie_name = text(&c["SessionCookieName"]);
    config.scope = text(&c["Scope"]);
    config.session_timeout = c["SessionTimeout"].as_i64();
    config.authentication_request_extra_params = pairs(c);
    config.on_unauthenticated_request =
        text(&c["OnUnauthenticatedRequest"]).map(|t| t.as_str().into());
    config
}

fn redirect_config(c: &Value) -> RedirectActionConfig {
    RedirectActionConfig::builder()
        .set_protocol(text(&c["Protocol"]))
        .set_port(text(&c["Port"]))
        .set_host(text(&c["Host"]))
        .set_path(text(&c["Path"]))
        .set_query(text(&c["Query"]))
        .set_status_code(text(&c["StatusCode"]).map(|t| t.as_str().into()))
        .build()
}

fn fixed_response_config(c: &Value) -> FixedResponseActionConfig {
    FixedResponseActionConfig::builder()
        .set_status_code(text(&c["StatusCode"]))
        .set_content_type(text(&c["ContentType"]))
        .set_message_body(text(&c["MessageBody"]))
        .build()
}

const OIDC: &str = "AuthenticateOidcConfig";
const COGNITO: &str = "AuthenticateCognitoConfig";
const REDIRECT: &str = "RedirectConfig";
const FIXED: &str = "FixedResponseConfig";

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn whole(value: &Value) -> Option<i32> {
    i32::try_from(value.as_i64()?).ok()
}

fn pairs(config: &Value) -> Option<HashMap<String, String>> {
    let map = config["AuthenticationRequestExtraParams"].as_object()?;
    let pairs = map.iter().map(|(k, v)| Some((k.clone(), text(v)?)));
    pairs.collect()
}

/// All settings but those of forwarding, with the keys of a template.
fn details(action: &Action) -> Value {
    if let Some(c) = action.authenticate_oidc_config() {
        return json!({
            "Issuer": c.issuer(), "AuthorizationEndpoint": c.authorization_endpoint(),
            "TokenEndpoint": c.token_endpoint(), "UserInfoEndpoint": c.user_info_endpoint(),
            "ClientId": c.client_id(), "SessionCookieName": c.session_cookie_name(),
            "Scope": c.scope(), "SessionTimeout": c.session_timeout(),
            "AuthenticationRequestExtraParams": c.authentication_request_extra_params(),
            "OnUnauthenticatedRequest": c.on_unauthenticated_request().map(|o| o.as_str()),
        });
    }
    if let Some(c) = action.authenticate_cognito_config() {
        return json!({
            "UserPoolArn": c.user_pool_arn(), "UserPoolClientId": c.user_pool_client_id(),
            "UserPoolDomain": c.user_pool_domain(), "SessionCookieName": c.session_cookie_name(),
            "Scope": c.scope(), "SessionTimeout": c.session_timeout(),
            "AuthenticationRequestExtraParams": c.authentication_request_extra_params(),
            "OnUnauthenticatedRequest": c.on_unauthenticated_request().map(|o| o.as_str()),
        });
    }
    if let Some(c) = action.redirect_config() {
        return json!({
            "Protocol": c.protocol(), "Port": c.port(), "Host": c.host(), "Path": c.path(),
            "Query": c.query(), "StatusCode": c.status_code().map(|s| s.as_str()),
        });
    }
    if let Some(c) = action.fixed_response_config() {
        return json!({
            "StatusCode": c.status_code(), "ContentType": c.content_type(),
            "MessageBody": c.message_body(),
        });
    }
    Value::Null
}

fn rest(details: &Value) -> BTreeMap<String, String> {
    let empty = Map::new();
    let details = details.as_object().unwrap_or(&empty);
    let all = details.iter().filter_map(|(key, value)| {
        let value = match value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            Value::Object(map) if map.is_empty() => return None,
            other => other.to_string(),
        };
        let usual = DEFAULTS.contains(&(key.as_str(), value.as_str()));
        let secret = SECRETS.contains(&key.as_str());
        (!usual && !secret && !value.is_empty()).then(|| (key.clone(), value))
    });
    all.collect()
}

/// The actions that a template gives a listener or a rule.
fn of_template(properties: &Value) -> Vec<Plain> {
    let actions = ["DefaultActions", "Actions"]
        .iter()
        .find_map(|key| properties.get(*key)?.as_array());
    let mut actions: Vec<&Value> = actions.into_iter().flatten().collect();
    actions.sort_by_key(|a| number(&a["Order"]).unwrap_or(0));
    let one = |action: &&Value| {
        let forward = &action["ForwardConfig"];
        let listed: Vec<(String, u64)> = forward["TargetGroups"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|g| {
                let arn = g["TargetGroupArn"].as_str().unwrap_or_default();
                (arn.to_owned(), number(&g["Weight"]).unwrap_or(1))
            })
            .collect();
        let listed = match (&listed[..], action["TargetGroupArn"].as_str()) {
            ([], Some(only)) => vec![(only.to_owned(), 1)],
            _ => listed,
        };
        let sticky = &forward["TargetGroupStickinessConfig"];
        let enabled = sticky["Enabled"] == true || sticky["Enabled"] == "true";
        let config = [
            "AuthenticateOidcConfig",
            "AuthenticateCognitoConfig",
            "RedirectConfig",
            "FixedResponseConfig",
        ]
        .iter()
        .find_map(|key| action.get(*key));
        Plain {
            kind: action["Type"].as_str().unwrap_or_default().to_owned(),
            groups: traffic::by_share(
                listed
                    .into_iter()
                    .map(|(arn, weight)| (arn, u32::try_from(weight).unwrap_or(u32::MAX)))
                    .collect(),
            )
            .into_iter()
            .collect(),
            sticky: enabled.then(|| number(&sticky["DurationSeconds"]).unwrap_or(0)),
            rest: rest(config.unwrap_or(&Value::Null)),
        }
    };
    actions.iter().map(one).collect()
}

/// A number, which CloudFormation may also write as a string.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(weights: &[(&str, i32)], sticky: Option<i32>) -> Action {
        let mut config = ForwardActionConfig::builder();
        for (arn, weight) in weights {
            let tuple = TargetGroupTuple::builder().target_group_arn(*arn);
            config = config.target_groups(tuple.weight(*weight).build());
        }
        if let Some(seconds) = sticky {
            let sticky = TargetGroupStickinessConfig::builder().enabled(true);
            config =
                config.target_group_stickiness_config(sticky.duration_seconds(seconds).build());
        }
        Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .forward_config(config.build())
            .build()
    }

    fn template(sticky: Value) -> Value {
        json!({"DefaultActions": [{"Type": "forward", "ForwardConfig": {
            "TargetGroups": [
                {"TargetGroupArn": "g/a", "Weight": "9"},
                {"TargetGroupArn": "g/b", "Weight": 1},
            ],
            "TargetGroupStickinessConfig": sticky,
        }}]})
    }

    #[test]
    fn what_a_template_does_not_carry_is_named() {
        let live = |action: Action| LiveAction(vec![action]);
        let (off, on) = (
            template(Value::Null),
            template(json!({"Enabled": "true", "DurationSeconds": "600"})),
        );
        let both = [("g/b", 10), ("g/a", 90)];
        assert_eq!(live(forward(&both, None)).lost(&off, true), None);
        assert_eq!(live(forward(&both, Some(600))).lost(&on, true), None);
        let lost = |action, told: &Value, weights| live(action).lost(told, weights).expect("lost");
        assert!(lost(forward(&both, Some(600)), &off, true).contains("600 s and would be off"));
        assert!(lost(forward(&both, Some(60)), &on, true).contains("60 s and would be 600 s"));
        assert!(lost(forward(&both, None), &on, true).contains("off and would be 600 s"));
        let half = forward(&[("g/a", 1), ("g/b", 1)], None);
        assert!(lost(half.clone(), &off, true).contains("50 % to a, 50 % to b"));
        assert_eq!(live(half).lost(&off, false), None, "weights are accepted");
        let others = forward(&[("g/a", 9), ("g/c", 1)], None);
        assert!(lost(others, &off, false).contains("c"));
        let only = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn("g/a")
            .build();
        assert!(lost(only, &off, true).contains("100 % to a"));
    }

    #[test]
    fn an_action_survives_the_journal() {
        let oidc = AuthenticateOidcActionConfig::builder()
            .issuer("https://login")
            .client_id("id")
            .session_timeout(60)
            .authentication_request_extra_params("prompt", "login")
            .on_unauthenticated_request("deny".into());
        let mut login = Action::builder()
            .r#type(ActionTypeEnum::AuthenticateOidc)
            .order(1)
            .authenticate_oidc_config(oidc.build())
            .build();
        let fixed = FixedResponseActionConfig::builder().status_code("503");
        let sorry = Action::builder()
            .r#type(ActionTypeEnum::FixedResponse)
            .fixed_response_config(fixed.build())
            .build();
        let away = RedirectActionConfig::builder();
        let away = away.host("there").status_code("HTTP_302".into()).build();
        let away = Action::builder()
            .r#type(ActionTypeEnum::Redirect)
            .redirect_config(away)
            .build();
        let cognito = AuthenticateCognitoActionConfig::builder().user_pool_arn("pool");
        let cognito = Action::builder()
            .r#type(ActionTypeEnum::AuthenticateCognito)
            .authenticate_cognito_config(cognito.build())
            .build();
        let both = forward(&[("g/a", 9), ("g/b", 1)], Some(600));
        for action in [login.clone(), sorry, away, cognito, both] {
            let live = LiveAction(vec![action]);
            let written = live.written().expect("known");
            let text = written.to_string();
            let again = serde_json::from_str(&text).expect("JSON");
            assert_eq!(
                LiveAction::of_written(&again).expect("read"),
                live,
                "{text}"
            );
        }
        // An action that cannot be written down completely is not written down at all.
        let config = login.authenticate_oidc_config.as_mut().expect("there");
        config.client_secret = Some("a secret".to_owned());
        assert!(LiveAction(vec![login]).written().is_err());
        assert!(LiveAction::of_written(&json!([{"Type": 1}])).is_err());
    }

    #[test]
    fn other_actions_are_part_of_it() {
        let login = |seconds: i64| {
            let config = AuthenticateCognitoActionConfig::builder()
                .user_pool_arn("pool")
                .user_pool_client_id("id")
                .user_pool_domain("d")
                .session_timeout(seconds);
            Action::builder()
                .r#type(ActionTypeEnum::AuthenticateCognito)
                .order(1)
                .authenticate_cognito_config(config.build())
                .build()
        };
        let mut after = forward(&[("g/a", 9), ("g/b", 1)], None);
        after.order = Some(2);
        let live = LiveAction(vec![after.clone(), login(604_800)]);
        let lost = live.lost(&template(Value::Null), true).expect("no login");
        assert!(lost.contains("authenticate-cognito, forward"), "{lost}");
        assert!(!live.only_forwards());
        let mut told = template(Value::Null);
        told["DefaultActions"][0]["Order"] = json!(2);
        let config =
            json!({"UserPoolArn": "pool", "UserPoolClientId": "id", "UserPoolDomain": "d"});
        let login_told = json!({"Type": "authenticate-cognito", "Order": 1, "AuthenticateCognitoConfig": config});
        told["DefaultActions"]
            .as_array_mut()
            .expect("list")
            .push(login_told);
        assert_eq!(
            live.lost(&told, true),
            None,
            "a default is not a difference"
        );
        let shorter = LiveAction(vec![after, login(60)]);
        let lost = shorter.lost(&told, true).expect("another timeout");
        assert!(lost.contains("SessionTimeout"), "{lost}");
        let away = RedirectActionConfig::builder();
        let away = away.status_code("HTTP_301".into()).build();
        let away = Action::builder()
            .r#type(ActionTypeEnum::Redirect)
            .redirect_config(away)
            .build();
        let lost = LiveAction(vec![away])
            .lost(&told, true)
            .expect("a redirect");
        assert!(lost.contains("redirect and would be"), "{lost}");
    }
}

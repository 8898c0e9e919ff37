//! Task definitions as ECS writes them, in JSON: which container is the version, what
//! one revision changed against another, and that change put into a third. Pure.
//!
//! They stay JSON from the answer of ECS to the next registration, so that nothing of
//! them is lost, also what this engine has never heard of.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::aws::Difference;
use crate::model::image::ImageReference;
use crate::model::secret::{is_secret_name, redacted, redacted_arguments};
use crate::model::{ErrorKind, HostError};

/// What ECS adds to a definition when it is registered.
const ADDED: [&str; 9] = [
    "taskDefinitionArn",
    "revision",
    "status",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
    "compatibilities",
    "requiresAttributes",
];

/// The keys by which the elements of a list are told apart, whatever their order.
const KEYS: [&str; 6] = [
    "name",
    "key",
    "containerPath",
    "containerName",
    "sourceContainer",
    "hostname",
];

/// The list of named values that are shown to nobody: credentials are often among them.
const VALUES: &str = ".environment";

/// What is shown instead of a value.
const NOT_SHOWN: &str = "(not shown)";

/// A revision of a task definition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Definition {
    /// What ECS says of it.
    json: Value,
    /// Its tags, as `{"key", "value"}`.
    tags: Vec<Value>,
}

/// One container of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Container<'a> {
    pub(super) name: &'a str,
    pub(super) image: &'a str,
}

impl Definition {
    /// Reads the answer to DescribeTaskDefinition.
    pub(super) fn of_answer(answer: &Value) -> Option<Self> {
        let json = answer.get("taskDefinition")?.clone();
        let tags = answer.get("tags").and_then(Value::as_array);
        json.get("taskDefinitionArn")?.as_str()?;
        Some(Self {
            json,
            tags: tags.cloned().unwrap_or_default(),
        })
    }

    fn text(&self, key: &str) -> &str {
        self.json.get(key).and_then(Value::as_str).unwrap_or("")
    }

    pub(super) fn arn(&self) -> &str {
        self.text("taskDefinitionArn")
    }

    pub(super) fn family(&self) -> &str {
        self.text("family")
    }

    pub(super) fn is_active(&self) -> bool {
        self.text("status") == "ACTIVE"
    }

    /// ARNs of the roles that it names.
    pub(super) fn roles(&self) -> impl Iterator<Item = String> {
        let roles = ["taskRoleArn", "executionRoleArn"].map(|key| self.text(key).to_owned());
        roles.into_iter().filter(|role| !role.is_empty())
    }

    /// `FAMILY:REVISION`; `FAMILY` alone if it is not registered.
    pub(super) fn short(&self) -> &str {
        self.arn().rsplit('/').next().unwrap_or_default()
    }

    pub(super) fn containers(&self) -> Vec<Container<'_>> {
        let all = self.json.get("containerDefinitions");
        let all = all.and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|c| {
            Some(Container {
                name: c.get("name")?.as_str()?,
                image: c.get("image").and_then(Value::as_str).unwrap_or_default(),
            })
        })
        .collect()
    }

    pub(super) fn container(&self, name: &str) -> Option<Container<'_>> {
        self.containers().into_iter().find(|c| c.name == name)
    }

    /// The container that gets a new image: the one that is named, the only one, or the
    /// only one that runs another image of the same repository.
    ///
    /// # Errors
    /// It cannot be told, or there is none of that name; the error names all of them.
    pub(super) fn for_image(
        &self,
        named: Option<&str>,
        image: Option<&str>,
    ) -> Result<&str, HostError> {
        let containers = self.containers();
        if let Some(name) = named {
            let found = containers.iter().find(|c| c.name == name);
            return found
                .map(|c| c.name)
                .ok_or_else(|| self.which(&format!("no container {name}"), "name one of these"));
        }
        if let [only] = containers[..] {
            return Ok(only.name);
        }
        let Some(image) = image else {
            return Err(self.which(
                "several containers, and which one runs the version is not known",
                "name it",
            ));
        };
        let wanted = ImageReference::parse(image).map(|i| i.repository);
        let mut same = containers.iter().filter(|c| {
            let running = ImageReference::parse(c.image).map(|i| i.repository);
            running.is_ok() && running == wanted
        });
        match (same.next(), same.next()) {
            (Some(one), None) => Ok(one.name),
            (None, _) => Err(self.which(
                &format!("several containers, and none of them runs the repository of {image}"),
                "name the one that gets the image",
            )),
            _ => Err(self.which(
                &format!("several containers that run the repository of {image}"),
                "name the one that gets the image",
            )),
        }
    }

    fn which(&self, found: &str, hint: &str) -> HostError {
        let all = self.containers();
        let all = all.iter().map(|c| format!("{} ({})", c.name, c.image));
        HostError::new(
            ErrorKind::Invalid,
            "which-container",
            format!(
                "the task definition {} has {found}: it has {}\n\nhint: {hint} with --container NAME or target.aws.container",
                self.short(),
                all.collect::<Vec<_>>().join(", "),
            ),
        )
    }

    /// What runs, in the words that people know it by: the image of the container that
    /// is the version. Where that is not known, a helper that shows itself as one is
    /// passed over; what is left is shown as it is.
    pub(super) fn version(&self, named: Option<&str>) -> String {
        let all = self.containers();
        if let Some(container) = named.and_then(|name| self.container(name)) {
            return container.image.to_owned();
        }
        let mut own = all.clone();
        own.retain(|c| !self.is_helper(c.name));
        let mut private = own.clone();
        private.retain(|c| !ImageReference::parse(c.image).is_ok_and(|i| i.is_public()));
        match (&all[..], &own[..], &private[..]) {
            ([only], ..) | (_, [only], _) | (_, _, [only]) => only.image.to_owned(),
            _ => {
                let images: Vec<_> = all.iter().map(|c| c.image).collect();
                images.join(" + ")
            }
        }
    }

    /// Whether a container says of itself that it only helps: the task lives on without
    /// it, it carries logs, or it is the proxy of a mesh.
    fn is_helper(&self, name: &str) -> bool {
        let all = self.json.get("containerDefinitions");
        let mut all = all.and_then(Value::as_array).into_iter().flatten();
        let own = all.find(|c| c.get("name").and_then(Value::as_str) == Some(name));
        let own = own.unwrap_or(&Value::Null);
        own.get("essential") == Some(&Value::Bool(false))
            || own
                .get("firelensConfiguration")
                .is_some_and(|v| !v.is_null())
            || self.json.pointer("/proxyConfiguration/containerName")
                == Some(&Value::String(name.to_owned()))
    }

    /// What a registration decides about it, so that two can be compared.
    fn content(&self) -> Value {
        let mut content = self.json.clone();
        if let Some(object) = content.as_object_mut() {
            for key in ADDED {
                object.remove(key);
            }
        }
        content
    }

    /// Whether a registration of either would give the same.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        same(&self.content(), &other.content())
    }

    /// The body of the registration of this content as a new revision of its family.
    pub(super) fn registration(&self) -> Value {
        let mut body = self.content();
        // ECS keeps tags with this prefix for itself.
        let own = |tag: &&Value| {
            let key = tag.get("key").and_then(Value::as_str).unwrap_or_default();
            !key.starts_with("aws:")
        };
        let tags: Vec<Value> = self.tags.iter().filter(own).cloned().collect();
        if let (Some(object), false) = (body.as_object_mut(), tags.is_empty()) {
            object.insert("tags".to_owned(), Value::Array(tags));
        }
        body
    }

    /// The same with another image in one container.
    pub(super) fn with_image(&self, container: &str, image: &str) -> Self {
        let mut new = self.clone();
        let all = new.json.get_mut("containerDefinitions");
        let all = all.and_then(Value::as_array_mut).into_iter().flatten();
        for one in all {
            if one.get("name").and_then(Value::as_str) == Some(container)
                && let Some(object) = one.as_object_mut()
            {
                object.insert("image".to_owned(), Value::String(image.to_owned()));
            }
        }
        new.made_of(self)
    }

    /// A definition that was made of `base` has no revision yet, unless it is the same.
    fn made_of(mut self, base: &Self) -> Self {
        let family = self
            .arn()
            .rsplit_once(':')
            .map(|(family, _)| family.to_owned());
        if !self.says_the_same(base)
            && let (Some(object), Some(family)) = (self.json.as_object_mut(), family)
        {
            object.insert("taskDefinitionArn".to_owned(), Value::String(family));
        }
        self
    }

    /// This definition with what `to` changed against `of`; all else, and its family,
    /// stays as it is.
    pub(super) fn with_changes(&self, of: &Self, to: &Self) -> Self {
        let own = |definition: &Self| {
            let mut content = definition.content();
            if let Some(object) = content.as_object_mut() {
                object.remove("family");
            }
            content
        };
        let changed = put_into(&own(self), &own(of), &own(to));
        let mut new = self.clone();
        if let (Some(json), Value::Object(changed)) = (new.json.as_object_mut(), changed) {
            json.retain(|key, _| ADDED.contains(&key.as_str()) || key == "family");
            json.extend(changed);
        }
        new.made_of(self)
    }

    /// What differs from here to there, sorted by its path.
    pub(super) fn differences(&self, to: &Self) -> Vec<Difference> {
        let mut found = vec![];
        compare("", &self.content(), &to.content(), &mut found);
        found
    }
}

/// Whether there is nothing: ECS leaves out, or writes as empty, what was not given.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
        _ => false,
    }
}

fn same(a: &Value, b: &Value) -> bool {
    let mut found = vec![];
    compare("", a, b, &mut found);
    found.is_empty()
}

/// The elements of two or three lists by the key that tells them apart; `None` if they
/// have none in common.
fn by_key<'a, const N: usize>(lists: [&'a Value; N]) -> Option<[BTreeMap<String, &'a Value>; N]> {
    let is_list = |v: &Value| v.is_null() || v.is_array();
    if !lists.iter().all(|v| is_list(v)) || lists.iter().all(|v| v.is_null()) {
        return None;
    }
    let items = |list: &'a Value| list.as_array().map(Vec::as_slice).unwrap_or_default();
    let key_of = |item: &Value| -> Option<String> {
        // A port is told by its number and protocol.
        if let Some(port) = item.get("containerPort") {
            let protocol = item
                .get("protocol")
                .and_then(Value::as_str)
                .unwrap_or("tcp");
            return Some(format!("{port}/{protocol}"));
        }
        let key = KEYS.iter().find_map(|key| item.get(key)?.as_str());
        key.map(ToOwned::to_owned)
    };
    let mut maps = lists.map(|_| BTreeMap::new());
    for (map, list) in maps.iter_mut().zip(lists) {
        for item in items(list) {
            if map.insert(key_of(item)?, item).is_some() {
                return None;
            }
        }
    }
    Some(maps)
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    if before == after || is_nothing(before) && is_nothing(after) {
        return;
    }
    let below = |key: &str| match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    };
    let hidden = path.ends_with(VALUES);
    let none = Map::new();
    // A container that comes or goes is one difference.
    let map = |value: &'_ Value| value.get("image").is_none() && value.is_object();
    let maps = match (before, after) {
        (Value::Object(a), Value::Object(b)) => Some((a, b)),
        (Value::Object(a), Value::Null) if map(before) => Some((a, &none)),
        (Value::Null, Value::Object(b)) if map(after) => Some((&none, b)),
        _ => None,
    };
    if let Some((a, b)) = maps {
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let of = |map: &'_ Map<String, Value>| map.get(key).cloned().unwrap_or_default();
            compare(&below(key), &of(a), &of(b), found);
        }
        return;
    }
    if let Some([a, b]) = by_key([before, after]) {
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            // A container is called by its name.
            let path = match path {
                "containerDefinitions" => key.clone(),
                _ => below(key),
            };
            let of = |map: &BTreeMap<String, &Value>| map.get(key).copied().cloned();
            match (of(&a), of(&b)) {
                (a, b) if hidden => {
                    if a != b {
                        found.push(Difference {
                            path,
                            before: a.map(|_| NOT_SHOWN.to_owned()),
                            after: b.map(|_| NOT_SHOWN.to_owned()),
                        });
                    }
                }
                (a, b) => compare(&path, &a.unwrap_or_default(), &b.unwrap_or_default(), found),
            }
        }
        return;
    }
    let last = path.rsplit('.').next().unwrap_or_default();
    let shown = |value: &Value| match value {
        _ if is_nothing(value) => None,
        _ if hidden || is_secret_name(last) => Some(NOT_SHOWN.to_owned()),
        Value::String(text) => Some(redacted(text)),
        Value::Object(map) if map.contains_key("image") => {
            let image = map.get("image").and_then(Value::as_str);
            Some(format!("image {}", image.unwrap_or_default()))
        }
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let texts = items.iter().filter_map(Value::as_str);
            let texts: Vec<String> = texts.map(ToOwned::to_owned).collect();
            Some(format!("{:?}", redacted_arguments(&texts)))
        }
        other => Some(other.to_string()),
    };
    found.push(Difference {
        path: path.to_owned(),
        before: shown(before),
        after: shown(after),
    });
}

/// `base` with what `to` changed against `of`.
fn put_into(base: &Value, of: &Value, to: &Value) -> Value {
    if same(of, to) {
        return base.clone();
    }
    let is_map = |v: &Value| v.is_null() || v.is_object();
    if [base, of, to].into_iter().all(is_map) && !base.is_null() && !to.is_null() {
        let part = |map: &Value, key: &str| map.get(key).cloned().unwrap_or_default();
        let mut new = base.as_object().cloned().unwrap_or_default();
        let keys = [of, to].into_iter().filter_map(Value::as_object);
        let keys: Vec<String> = keys.flat_map(|map| map.keys().cloned()).collect();
        for key in keys {
            let value = put_into(&part(base, &key), &part(of, &key), &part(to, &key));
            if value.is_null() {
                new.remove(&key);
            } else {
                new.insert(key, value);
            }
        }
        return Value::Object(new);
    }
    if base.is_null() || to.is_null() {
        return to.clone();
    }
    let Some([bases, ofs, tos]) = by_key([base, of, to]) else {
        return to.clone();
    };
    // In the order of the base, and what is new behind it.
    let order = |list: &Value, map: &BTreeMap<String, &Value>| -> Vec<String> {
        let items = list.as_array().into_iter().flatten();
        let key = |item: &Value| {
            let mut all = map.iter();
            all.find(|(_, known)| **known == item)
                .map(|(key, _)| key.clone())
        };
        items.filter_map(key).collect()
    };
    let mut keys = order(base, &bases);
    for key in order(to, &tos) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let part = |map: &BTreeMap<String, &Value>, key: &str| {
        map.get(key).copied().cloned().unwrap_or_default()
    };
    let merged = keys
        .iter()
        .map(|key| put_into(&part(&bases, key), &part(&ofs, key), &part(&tos, key)));
    Value::Array(merged.filter(|item| !item.is_null()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(content: Value) -> Definition {
        let mut json = json!({
            "taskDefinitionArn": "arn:aws:ecs:us-east-1:1:task-definition/shop:7",
            "family": "shop",
            "revision": 7,
            "status": "ACTIVE",
            "registeredAt": 1.5,
        });
        let own = json.as_object_mut().expect("an object");
        own.extend(content.as_object().expect("an object").clone());
        let answer = json!({"taskDefinition": json, "tags": [
            {"key": "team", "value": "shop"},
            {"key": "aws:cloudformation:stack-name", "value": "shop"},
        ]});
        Definition::of_answer(&answer).expect("a definition")
    }

    fn containers(all: Value) -> Definition {
        definition(json!({"containerDefinitions": all}))
    }

    fn shown(from: &Definition, to: &Definition) -> Vec<String> {
        let all = from.differences(to);
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_new_image_keeps_all_else_even_what_is_not_known_here() {
        let all = json!({
            "cpu": "256",
            "volumes": [{"name": "data", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}],
            "ephemeralStorage": {"sizeInGiB": 50},
            "somethingOfNextYear": {"deep": [1, 2]},
            "containerDefinitions": [
                {"name": "log", "image": "fluent:1", "firelensConfiguration": {"type": "fluentbit"}},
                {"name": "app", "image": "app:v1", "secrets": [{"name": "KEY", "valueFrom": "arn"}], "versionConsistency": "enabled"},
            ],
        });
        let old = definition(all.clone());
        let new = old.with_image("app", "app:v2");
        assert_eq!(shown(&old, &new), ["app.image: app:v1 -> app:v2"]);
        assert_eq!((new.short(), old.short()), ("shop", "shop:7"));
        let mut wanted = all;
        wanted["containerDefinitions"][1]["image"] = json!("app:v2");
        wanted["family"] = json!("shop");
        wanted["tags"] = json!([{"key": "team", "value": "shop"}]);
        assert_eq!(new.registration(), wanted);
        assert_eq!(old.with_image("app", "app:v1"), old, "nothing to register");
    }

    #[test]
    fn only_what_changed_goes_into_another_definition() {
        let app = |image: &str, more: Value| {
            let mut app = json!({"name": "app", "image": image});
            let own = app.as_object_mut().expect("an object");
            own.extend(more.as_object().expect("an object").clone());
            app
        };
        let of = definition(
            json!({"cpu": "256", "memory": "512", "containerDefinitions": [
                app("app:v1", json!({
                    "environment": [{"name": "ROLE", "value": "canary"}, {"name": "OLD", "value": "1"}],
                    "portMappings": [{"containerPort": 80}],
                    "healthCheck": {"command": ["CMD", "a"], "interval": 5},
                })),
            ]}),
        );
        let to = definition(
            json!({"cpu": "256", "memory": "1024", "containerDefinitions": [
                app("app:v2", json!({
                    "environment": [{"name": "NEW", "value": "2"}, {"name": "ROLE", "value": "canary"}],
                    "portMappings": [{"containerPort": 80}, {"containerPort": 9090}],
                    "healthCheck": {"command": ["CMD", "b"], "interval": 5},
                })),
                {"name": "agent", "image": "agent:1"},
            ]}),
        );
        let own = definition(
            json!({"cpu": "1024", "memory": "2048", "taskRoleArn": "r", "containerDefinitions": [
                {"name": "audit", "image": "audit:1"},
                app("app:v1", json!({
                    "environment": [{"name": "OLD", "value": "1"}, {"name": "ROLE", "value": "stable"}],
                    "portMappings": [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}],
                    "healthCheck": {"command": ["CMD", "a"], "interval": 30},
                })),
            ]}),
        );
        let new = own.with_changes(&of, &to);
        let mut wanted = json!({"family": "shop", "cpu": "1024", "memory": "1024", "taskRoleArn": "r", "containerDefinitions": [
            {"name": "audit", "image": "audit:1"},
            app("app:v2", json!({
                "environment": [{"name": "ROLE", "value": "stable"}, {"name": "NEW", "value": "2"}],
                "portMappings": [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}, {"containerPort": 9090}],
                "healthCheck": {"command": ["CMD", "b"], "interval": 30},
            })),
            {"name": "agent", "image": "agent:1"},
        ]});
        wanted["tags"] = json!([{"key": "team", "value": "shop"}]);
        assert_eq!(new.registration(), wanted);
        assert!(
            new.with_changes(&of, &to).says_the_same(&new),
            "once is enough"
        );
        assert!(own.with_changes(&of, &of).says_the_same(&own));
    }

    #[test]
    fn secrets_are_not_shown_among_the_differences() {
        let with = |value: &str| {
            containers(json!([{
                "name": "app",
                "image": "app:v1",
                "environment": [{"name": "DB", "value": format!("postgres://u:{value}@db")}],
                "command": ["serve", format!("--password={value}")],
                "logConfiguration": {"logDriver": "splunk", "options": {"splunk-token": value}},
            }]))
        };
        let all = shown(&with("hunter2"), &with("geheim9"));
        assert_eq!(all.len(), 3, "{all:?}");
        let text = all.join("\n");
        assert!(
            !text.contains("hunter2") && !text.contains("geheim9"),
            "{text}"
        );
        assert!(text.contains("app.environment.DB"), "{text}");
        let none = containers(json!([]));
        let text = shown(&none, &with("geheim9")).join("\n");
        assert_eq!(text, "app: image app:v1 is new");
    }

    #[test]
    fn what_ecs_fills_in_is_no_difference() {
        let plain = containers(json!([{"name": "app", "image": "a"}]));
        let filled = definition(
            json!({"volumes": [], "placementConstraints": null, "containerDefinitions": [
                {"name": "app", "image": "a", "environment": [], "mountPoints": []},
            ]}),
        );
        assert!(plain.says_the_same(&filled));
    }

    #[test]
    fn the_version_is_told_where_nobody_has_said_which_container_it_is() {
        let version = |all: Value| containers(all).version(None);
        let app = json!({"name": "app", "image": "reg.example/shop:v1"});
        assert_eq!(version(json!([app.clone()])), "reg.example/shop:v1");
        for helper in [
            json!({"name": "proxy", "image": "nginx:1.27"}),
            json!({"name": "x", "image": "reg.example/x:1", "essential": false}),
            json!({"name": "x", "image": "reg.example/x:1", "firelensConfiguration": {"type": "fluentbit"}}),
        ] {
            assert_eq!(version(json!([helper, app.clone()])), "reg.example/shop:v1");
        }
        let two = json!([app, {"name": "api", "image": "reg.example/api:v3"}]);
        assert_eq!(
            version(two.clone()),
            "reg.example/shop:v1 + reg.example/api:v3"
        );
        assert_eq!(containers(two).version(Some("api")), "reg.example/api:v3");
        let mesh = definition(json!({
            "proxyConfiguration": {"containerName": "envoy"},
            "containerDefinitions": [
                {"name": "envoy", "image": "reg.example/envoy:1"},
                {"name": "app", "image": "shop:v1"},
            ],
        }));
        assert_eq!(mesh.version(None), "shop:v1");
    }
}

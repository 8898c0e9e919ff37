//! What a plugin is and what it may do.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{Loaded, look_at};
use crate::ops::Result;
use crate::ops::app::App;
use crate::ops::pin::PinRequest;
use crate::spec::imports::Import;
use crate::strategy::{Description, Plugin, limits};

/// What a plugin says of itself, and what was found in its file.
pub struct Inspected {
    /// The plugin.
    pub plugin: Arc<Plugin>,
    /// Where its bytes came from.
    pub source: String,
    /// What it says of itself.
    pub description: Description,
    /// The schema of its parameters; null if it cannot be read.
    pub schema: Value,
    /// The parameters in that schema.
    pub parameters: Vec<Parameter>,
    /// What its file says of its origin.
    pub annotations: Vec<Annotation>,
}

/// Inspects a plugin: a file, or a name of `plugins.toml`.
///
/// # Errors
/// As with [`look_at`], or it cannot describe itself.
pub async fn inspect(app: &App, pins: &PinRequest, plugin: &Path) -> Result<Inspected> {
    let Loaded {
        plugin,
        source,
        bytes,
        ..
    } = look_at(app, pins, plugin).await?;
    let description = plugin.describe().await?;
    let schema: Value = serde_json::from_str(&description.parameters_schema).unwrap_or_default();
    Ok(Inspected {
        parameters: parameters(&schema),
        annotations: annotations(&bytes),
        plugin,
        source,
        description,
        schema,
    })
}

/// Whether it imports a function that changes weights.
pub fn moves_traffic(plugin: &Plugin) -> bool {
    let reads = |p: &Import<'_>| {
        p.interface.package != "rollout:traffic" || p.function == Some("get-weights")
    };
    let mut all = plugin.permissions.iter();
    all.any(|p| !Import::parse(p).is_ok_and(|p| reads(&p)))
}

/// Groups permissions: `rollout:traffic/traffic@0.1.0#set-weights` becomes
/// `traffic: set-weights`.
pub fn by_interface(permissions: &[String]) -> Vec<(String, Vec<&str>)> {
    let mut interfaces: Vec<(String, Vec<&str>)> = vec![];
    for permission in permissions {
        let (short, function) = match Import::parse(permission) {
            Ok(import) => (import.interface.name, import.function.unwrap_or("")),
            Err(_) => (permission.as_str(), ""),
        };
        match interfaces.iter_mut().find(|(name, _)| name == short) {
            Some((_, functions)) => functions.push(function),
            None => interfaces.push((short.to_owned(), vec![function])),
        }
    }
    interfaces
}

/// A parameter that a plugin takes; each text is one line.
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// The types of JSON that it accepts, such as `string or array`.
    pub kind: String,
    /// Its default as JSON; `required` or `-` if it has none.
    pub default: String,
    /// Its description in the schema.
    pub about: String,
}

/// The parameters in a schema.
fn parameters(schema: &Value) -> Vec<Parameter> {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let properties = schema["properties"].as_object();
    let rows = properties.into_iter().flatten().map(|(name, property)| {
        let about = property["description"].as_str().unwrap_or_default();
        let default = match &property["default"] {
            Value::Null if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => "-".to_owned(),
            value => value.to_string(),
        };
        // One line for each parameter, whatever it contains.
        Parameter {
            name: limits::one_line(name.clone()),
            kind: limits::one_line(kinds(schema, property, 0).join(" or ")),
            default: limits::one_line(default),
            about: about.lines().collect::<Vec<_>>().join(" "),
        }
    });
    rows.collect()
}

/// Most levels of a schema that are followed; a schema may refer to itself.
const DEPTH_MAX: u32 = 8;

/// The types of JSON that a property accepts.
fn kinds(schema: &Value, node: &Value, depth: u32) -> Vec<String> {
    if depth > DEPTH_MAX {
        return vec![];
    }
    let named = node["$ref"].as_str().and_then(|r| r.strip_prefix('#'));
    if let Some(inner) = named.and_then(|pointer| schema.pointer(pointer)) {
        return kinds(schema, inner, depth + 1);
    }
    let mut found: Vec<String> = vec![];
    for shape in ["anyOf", "oneOf"] {
        for inner in node[shape].as_array().into_iter().flatten() {
            found.extend(kinds(schema, inner, depth + 1));
        }
    }
    match &node["type"] {
        Value::String(kind) => found.push(kind.clone()),
        Value::Array(all) => found.extend(all.iter().filter_map(Value::as_str).map(str::to_owned)),
        _ => {}
    }
    let values = node["enum"].as_array().into_iter().flatten();
    let values = values.chain(node.get("const"));
    let values: Vec<String> = values.map(ToString::to_string).collect();
    if !values.is_empty() {
        found.retain(|kind| kind != "string");
        found.extend(values);
    }
    found.retain(|kind| kind != "null");
    let mut seen = vec![];
    found.retain(|kind| {
        let new = !seen.contains(kind);
        seen.push(kind.clone());
        new
    });
    found
}

/// A statement of the file about its origin, which nobody has checked.
pub struct Annotation {
    /// Its name for people.
    pub label: &'static str,
    /// Its name in registries, after `org.opencontainers.image.`, if it has one.
    pub oci: Option<&'static str>,
    /// Its text.
    pub text: String,
}

/// What the file says of its origin.
pub fn annotations(bytes: &[u8]) -> Vec<Annotation> {
    let Ok(payload) = wasm_metadata::Payload::from_binary(bytes) else {
        return vec![];
    };
    let about = payload.metadata();
    let texts = [
        ("authors", Some("authors"), text(&about.authors)),
        ("licence", Some("licenses"), text(&about.licenses)),
        ("origin", Some("source"), text(&about.source)),
        ("homepage", Some("url"), text(&about.homepage)),
        ("revision", Some("revision"), text(&about.revision)),
        ("made by", None, about.producers.as_ref().map(made_by)),
    ];
    let given = texts.into_iter().filter_map(|(label, oci, text)| {
        let text = limits::one_line(text.filter(|t| !t.is_empty())?);
        Some(Annotation { label, oci, text })
    });
    given.collect()
}

fn text(given: &Option<impl ToString>) -> Option<String> {
    given.as_ref().map(ToString::to_string)
}

fn made_by(producers: &wasm_metadata::Producers) -> String {
    let mut tools = vec![];
    for (_, values) in producers.iter() {
        let named = values.iter();
        tools.extend(named.map(|(name, version)| format!("{name} {version}").trim().to_owned()));
    }
    tools.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_are_those_that_people_can_write() {
        let schema = json!({
            "required": ["steps"],
            "properties": {
                "steps": {"type": "array", "description": "Shares,\nin order."},
                "bake": {"anyOf": [{"$ref": "#/$defs/Bake"}, {"type": "null"}], "default": "5m"},
                "on": {"oneOf": [{"const": "hold"}, {"const": "rollback"}]},
                "endless": {"$ref": "#/$defs/Endless"},
            },
            "$defs": {
                "Bake": {"anyOf": [{"type": "string"}, {"type": "array"}]},
                "Endless": {"anyOf": [{"$ref": "#/$defs/Endless"}]},
            },
        });
        let rows = parameters(&schema);
        let of = |name: &str| rows.iter().find(|p| p.name == name).expect("a row");
        assert_eq!(of("bake").kind, "string or array");
        assert_eq!(of("bake").default, "\"5m\"");
        assert_eq!(of("on").kind, "\"hold\" or \"rollback\"");
        assert_eq!(
            (of("steps").default.as_str(), of("steps").about.as_str()),
            ("required", "Shares, in order.")
        );
        assert_eq!(of("endless").kind, "");
    }

    #[test]
    fn permissions_are_grouped() {
        let all = [
            "rollout:control/control@0.1.0#now".to_owned(),
            "rollout:control/control@0.1.0#wait".to_owned(),
            "rollout:metrics/metrics@0.1.0#query".to_owned(),
        ];
        assert_eq!(
            by_interface(&all),
            [
                ("control".to_owned(), vec!["now", "wait"]),
                ("metrics".to_owned(), vec!["query"])
            ]
        );
    }
}

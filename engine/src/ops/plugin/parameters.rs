//! The parameters of the request and the rollout file, checked against the plugin's
//! schema.

use std::time::Duration;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value};

use crate::model::PlannedStep;
use crate::model::problem::{Located, Problem};
use crate::ops::{Error, Input, Result};
use crate::spec::nearest;
use crate::strategy::contract::Rejected;
use crate::strategy::limits::{cut, one_line};
use crate::strategy::{Description, Plugin};

/// Longest time that checking parameters against a schema may take.
const SCHEMA_TIME_MAX: Duration = Duration::from_secs(5);
/// Most problems with parameters that are shown at once.
const PROBLEMS_MAX: usize = 50;
/// Where a rollout file has the parameters.
pub const KEY: &str = "strategy.parameters";
/// Most references within a schema that are followed, one after another.
const REFERENCES_MAX: usize = 16;

/// Parameters that a strategy accepts, and the steps that they mean.
pub type Accepted = (Map<String, Value>, Vec<PlannedStep>);

/// The file's parameters, overridden by `--set KEY=VALUE`, checked against the
/// plugin's schema and by the plugin itself; with the steps that they mean. Or all that
/// is wrong with them, by their keys in a rollout file.
///
/// # Errors
/// A value of `--set` is none, or the plugin is at fault.
pub async fn judged(
    sets: &[String],
    file: &Map<String, Value>,
    plugin: &Plugin,
    description: &Description,
) -> Result<Result<Accepted, Vec<Problem>>> {
    let (sets, mut parameters) = (sets.to_vec(), file.clone());
    let schema = description.parameters_schema.clone();
    let (sender, checked) = tokio::sync::oneshot::channel();
    // The schema is the plugin's, and a short one can ask for an endless number of
    // comparisons. Nothing can stop them, but the process can end without waiting.
    std::thread::spawn(move || {
        let problems = check(&schema, &sets, &mut parameters);
        let _ = sender.send(problems.map(|problems| (parameters, problems)));
    });
    let (parameters, mut problems) = tokio::time::timeout(SCHEMA_TIME_MAX, checked)
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| {
            Rejected::Faulty("describe: its parameters schema cannot be checked in time".to_owned())
        })??;
    if problems.is_empty() {
        let value = serde_json::to_string(&parameters)?;
        match plugin.validate(&value).await? {
            Ok(steps) => return Ok(Ok((parameters, steps))),
            Err(issues) => problems.extend(issues.iter().map(|i| problem(&i.path, &i.message))),
        }
        if problems.is_empty() {
            problems.push(problem("", "it rejects them and does not say why"));
        }
    }
    Ok(Err(problems))
}

/// As [`judged`], where no rollout file is at hand, and without the steps.
///
/// # Errors
/// Usage: all that is wrong with the parameters. Rejected: the plugin is at fault.
pub async fn parameters(
    sets: &[String],
    file: &Map<String, Value>,
    plugin: &Plugin,
    description: &Description,
) -> Result<Map<String, Value>> {
    match judged(sets, file, plugin, description).await? {
        Ok((parameters, _)) => Ok(parameters),
        Err(problems) => {
            let problems = problems.into_iter().map(Located::from).collect();
            Err(not_accepted(description, problems))
        }
    }
}

/// The error about parameters that a strategy does not accept.
pub fn not_accepted(description: &Description, problems: Vec<Located>) -> Error {
    let name = &description.name;
    let title = format!("strategy {name} does not accept its parameters:");
    let mut error = Error::problems(title, problems);
    error.message = cut(error.message);
    error
}

/// Puts the values of `--set` into the parameters, and checks them against the schema.
/// Returns all problems.
fn check(
    schema: &str,
    sets: &[String],
    parameters: &mut Map<String, Value>,
) -> Result<Vec<Problem>> {
    let schema: Value = serde_json::from_str(schema).map_err(|e| {
        Rejected::Faulty(format!("describe: its parameters schema is not JSON: {e}"))
    })?;
    for set in sets {
        let (key, value) = set.split_once('=').ok_or_else(|| {
            Error::argument(
                Input::Parameter,
                format!("{set} is not KEY=VALUE, such as bake=5m"),
            )
        })?;
        parameters.insert(key.to_owned(), value_for(&schema, key, value));
    }
    let value = Value::Object(parameters.clone());
    let validator = jsonschema::validator_for(&schema).map_err(|e| {
        let why = cut(e.to_string());
        Rejected::Faulty(format!("describe: its parameters schema is wrong: {why}"))
    })?;
    let problems = validator.iter_errors(&value).take(PROBLEMS_MAX);
    Ok(problems
        .flat_map(|error| explain(&schema, &error))
        .collect())
}

/// What a schema does not allow, in words; each key for itself.
fn explain(schema: &Value, error: &ValidationError<'_>) -> Vec<Problem> {
    let path = error.instance_path().to_string();
    if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
        let at = error.schema_path().as_str();
        let object = at.strip_suffix("/additionalProperties").unwrap_or(at);
        let known = schema.pointer(&format!("{object}/properties"));
        let known: Vec<&str> = known
            .and_then(Value::as_object)
            .map(|known| known.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let unexpected = unexpected.iter().take(PROBLEMS_MAX);
        return unexpected
            .map(|key| problem(&format!("{path}/{key}"), &unknown(key, &known)))
            .collect();
    }
    let key = path.trim_start_matches('/').split('/').next().unwrap_or("");
    let mut message = error.to_string();
    // Several shapes are allowed, so the message describes all of them.
    if message.contains("anyOf")
        && let Some(about) = schema["properties"][key]["description"].as_str()
    {
        let about = about.replace('\n', " ");
        message = format!("{} does not fit. {about}", error.instance());
    }
    vec![problem(&path, &message)]
}

/// That there is no such parameter, and which one may be meant.
fn unknown(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("there is no such parameter; did you mean {near}?"),
        None if known.is_empty() => "there is no such parameter, and no other one here".to_owned(),
        None => format!("there is no such parameter; there are {}", known.join(", ")),
    }
}

/// A problem with the value at that place of the parameters, `/steps/1` or `steps.1`.
fn problem(path: &str, message: &str) -> Problem {
    let path = path.trim_start_matches('/').replace('/', ".");
    let dot = if path.is_empty() { "" } else { "." };
    Problem::new(
        one_line(format!("{KEY}{dot}{path}")),
        one_line(message.to_owned()),
    )
}

/// The text as JSON if it is JSON, as a list if the schema wants one, else as a string.
fn value_for(schema: &Value, key: &str, text: &str) -> Value {
    let one = |text: &str| {
        serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::String(text.trim().to_owned()))
    };
    let property = &schema["properties"][key];
    let wants_list = is_list(property) || text.contains(',') && allows_list(schema, property, 0);
    match one(text) {
        value @ Value::Array(_) => value,
        _ if wants_list && text.trim().is_empty() => Value::Array(vec![]),
        _ if wants_list => Value::Array(text.split(',').map(one).collect()),
        value => value,
    }
}

/// Whether a schema wants a list, if anything.
fn is_list(node: &Value) -> bool {
    let wanted = |kind: &Value| kind == "array";
    match &node["type"] {
        Value::Array(kinds) => {
            kinds.iter().any(wanted) && kinds.iter().all(|k| wanted(k) || k == "null")
        }
        kind => wanted(kind),
    }
}

/// Whether one of the shapes that a schema allows is a list. A schema may refer to
/// itself, so the depth is limited.
fn allows_list(schema: &Value, node: &Value, depth: usize) -> bool {
    if depth > REFERENCES_MAX {
        return false;
    }
    if is_list(node) {
        return true;
    }
    if let Some(named) = node["$ref"].as_str().and_then(|r| r.strip_prefix('#')) {
        return schema
            .pointer(named)
            .is_some_and(|n| allows_list(schema, n, depth + 1));
    }
    let shapes = node["anyOf"].as_array();
    shapes.is_some_and(|shapes| shapes.iter().any(|n| allows_list(schema, n, depth + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_read_as_the_schema_wants_them() {
        let schema = json!({
            "properties": {
                "steps": {"type": "array"},
                "shares": {"type": ["array", "null"]},
                "bake": {"anyOf": [{"$ref": "#/$defs/Bake"}, {"type": "null"}]},
            },
            "$defs": {"Bake": {"anyOf": [{"type": "string"}, {"type": "array"}]}},
        });
        assert_eq!(value_for(&schema, "bake", "5m,6m"), json!(["5m", "6m"]));
        assert_eq!(value_for(&schema, "steps", "5,25"), json!([5, 25]));
        assert_eq!(value_for(&schema, "steps", "100"), json!([100]));
        assert_eq!(value_for(&schema, "shares", "5,25"), json!([5, 25]));
        assert_eq!(value_for(&schema, "shares", "100"), json!([100]));
        assert_eq!(value_for(&schema, "steps", "[1, 2]"), json!([1, 2]));
        assert_eq!(value_for(&schema, "bake", "5m"), json!("5m"));
        assert_eq!(value_for(&schema, "other", "0.5"), json!(0.5));
    }

    #[test]
    fn each_unknown_parameter_is_named_with_the_one_that_was_meant() {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "bake": {"type": "string"},
                "gate": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {"limits": {"type": "string"}},
                },
            },
        });
        let mut parameters = json!({"bakee": 1, "colour": 2, "gate": {"limit": "x"}, "bake": 3});
        let Some(parameters) = parameters.as_object_mut() else {
            panic!("an object");
        };
        let problems = check(&schema.to_string(), &[], parameters).expect("a schema");
        let mut problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        problems.sort();
        assert_eq!(
            problems,
            [
                "strategy.parameters.bake: 3 is not of type \"string\"",
                "strategy.parameters.bakee: there is no such parameter; did you mean bake?",
                "strategy.parameters.colour: there is no such parameter; there are bake, gate",
                "strategy.parameters.gate.limit: there is no such parameter; did you mean limits?",
            ]
        );
    }
}

//! The parameters of the request and the rollout file, checked against the plugin's
//! schema.

use std::time::Duration;

use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value};

use crate::model::PlannedStep;
use crate::ops::{Error, Input, Result};
use crate::strategy::contract::Rejected;
use crate::strategy::limits::{cut, one_line};
use crate::strategy::{Description, Plugin};

/// Longest time that checking parameters against a schema may take.
const SCHEMA_TIME_MAX: Duration = Duration::from_secs(5);
/// Most problems with parameters that are shown at once.
const PROBLEMS_MAX: usize = 50;
/// Most references within a schema that are followed, one after another.
const REFERENCES_MAX: usize = 16;

/// The file's parameters, overridden by `--set KEY=VALUE`, checked against the
/// plugin's schema and by the plugin itself; with the steps that they mean.
pub async fn accepted(
    sets: &[String],
    file: &Map<String, Value>,
    plugin: &Plugin,
    description: &Description,
) -> Result<(Map<String, Value>, Vec<PlannedStep>)> {
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
            Ok(steps) => return Ok((parameters, steps)),
            Err(issues) => {
                problems.extend(issues.iter().map(|i| problem_line(&i.path, &i.message)))
            }
        }
        if problems.is_empty() {
            problems.push("  it rejects them and does not say why".to_owned());
        }
    }
    Err(Error::usage(format!(
        "strategy {} does not accept its parameters:\n{}",
        description.name,
        cut(problems.join("\n"))
    )))
}

/// As [`accepted`], without the steps.
pub async fn parameters(
    sets: &[String],
    file: &Map<String, Value>,
    plugin: &Plugin,
    description: &Description,
) -> Result<Map<String, Value>> {
    let (parameters, _) = accepted(sets, file, plugin, description).await?;
    Ok(parameters)
}

/// Puts the values of `--set` into the parameters, and checks them against the schema.
/// Returns a line for each problem.
fn check(
    schema: &str,
    sets: &[String],
    parameters: &mut Map<String, Value>,
) -> Result<Vec<String>> {
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
    let problems = validator.iter_errors(&value).take(PROBLEMS_MAX).map(|e| {
        let path = e.instance_path().to_string();
        let mut message = e.to_string();
        let key = path.trim_start_matches('/').split('/').next().unwrap_or("");
        // Several shapes are allowed, so the message describes all of them.
        if message.contains("anyOf")
            && let Some(about) = schema["properties"][key]["description"].as_str()
        {
            let about = about.replace('\n', " ");
            message = format!("{} does not fit. {about}", e.instance());
        }
        if let ValidationErrorKind::AdditionalProperties { unexpected } = e.kind()
            && let (true, Some(known)) = (path.is_empty(), schema["properties"].as_object())
        {
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            message = format!(
                "there is no parameter {}; there are {}",
                unexpected.join(", "),
                known.join(", ")
            );
        }
        problem_line(&path, &message)
    });
    Ok(problems.collect())
}

fn problem_line(path: &str, message: &str) -> String {
    let path = path.trim_start_matches('/').replace('/', ".");
    let dot = if path.is_empty() { "" } else { "." };
    format!(
        "  strategy.parameters{dot}{}",
        one_line(format!("{path}: {message}"))
    )
}

/// The text as JSON if it is JSON, as a list if the schema wants one, else as a string.
fn value_for(schema: &Value, key: &str, text: &str) -> Value {
    let one = |text: &str| {
        serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::String(text.trim().to_owned()))
    };
    let property = &schema["properties"][key];
    let wants_list =
        property["type"] == "array" || text.contains(',') && allows_list(schema, property, 0);
    match one(text) {
        value @ Value::Array(_) => value,
        _ if wants_list && text.trim().is_empty() => Value::Array(vec![]),
        _ if wants_list => Value::Array(text.split(',').map(one).collect()),
        value => value,
    }
}

/// Whether one of the shapes that a schema allows is a list. A schema may refer to
/// itself, so the depth is limited.
fn allows_list(schema: &Value, node: &Value, depth: usize) -> bool {
    if depth > REFERENCES_MAX {
        return false;
    }
    if node["type"] == "array" {
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
                "bake": {"anyOf": [{"$ref": "#/$defs/Bake"}, {"type": "null"}]},
            },
            "$defs": {"Bake": {"anyOf": [{"type": "string"}, {"type": "array"}]}},
        });
        assert_eq!(value_for(&schema, "bake", "5m,6m"), json!(["5m", "6m"]));
        assert_eq!(value_for(&schema, "steps", "5,25"), json!([5, 25]));
        assert_eq!(value_for(&schema, "steps", "100"), json!([100]));
        assert_eq!(value_for(&schema, "steps", "[1, 2]"), json!([1, 2]));
        assert_eq!(value_for(&schema, "bake", "5m"), json!("5m"));
        assert_eq!(value_for(&schema, "other", "0.5"), json!(0.5));
    }
}

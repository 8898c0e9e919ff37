//! The template and the parameters of a deployment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::DeployRequest;
use crate::ops::{Error, Input, Result};
use crate::supply::files;
use crate::target::aws::stack::TEMPLATE_BYTES_MAX;

/// Variables of the environment that give parameters to a new stack, as the
/// prototypes called them, each with the parameter of the template.
pub const VARIABLES: [(&str, &str); 14] = [
    ("IMAGE_URI_STABLE", "ImageURIStable"),
    ("IMAGE_URI_CANARY", "ImageURICanary"),
    ("IMAGE_URI_BLUE", "ImageURIBlue"),
    ("IMAGE_URI_GREEN", "ImageURIGreen"),
    ("ACTIVE_COLOR", "ActiveColor"),
    ("CONTAINER_PORT", "ContainerPort"),
    ("DESIRED_COUNT_STABLE", "DesiredCountStable"),
    ("DESIRED_COUNT_CANARY", "DesiredCountCanary"),
    ("DESIRED_COUNT_BLUE", "DesiredCountBlue"),
    ("DESIRED_COUNT_GREEN", "DesiredCountGreen"),
    ("TASK_CPU", "TaskCpu"),
    ("TASK_MEMORY", "TaskMemory"),
    ("STABLE_WEIGHT", "StableWeight"),
    ("CANARY_WEIGHT", "CanaryWeight"),
];
/// The variable that names the stack where neither a flag nor a file does.
pub const STACK_VARIABLE: &str = "STACK_NAME";
/// The variable that names a template where no flag does.
pub const TEMPLATE_VARIABLE: &str = "TEMPLATE_FILE";

/// The names of all variables that a deployment knows.
pub fn variables() -> impl Iterator<Item = &'static str> {
    let of_parameters = VARIABLES.iter().map(|(variable, _)| *variable);
    of_parameters.chain([STACK_VARIABLE, TEMPLATE_VARIABLE])
}

/// The template that the request, or else the environment, names; otherwise the one
/// in the engine.
pub(super) fn template(
    args: &DeployRequest,
    environment: &BTreeMap<String, String>,
) -> Result<String> {
    let file = args
        .template
        .clone()
        .or_else(|| environment.get(TEMPLATE_VARIABLE).map(PathBuf::from));
    let Some(file) = file else {
        return Ok(args.kind.text().to_owned());
    };
    let text = files::read_text(&file, files::TEXT_BYTES_MAX).map_err(|e| {
        Error::usage(format!(
            "failed to read the template {}: {e}",
            file.display()
        ))
    })?;
    if text.len() > TEMPLATE_BYTES_MAX {
        return Err(Error::usage(format!(
            "the template {} has {} bytes, and CloudFormation accepts at most {TEMPLATE_BYTES_MAX} in a request",
            file.display(),
            text.len()
        )));
    }
    Ok(text)
}

/// Parameters from the file, overridden by those of the flags.
pub(super) fn given(args: &DeployRequest) -> Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    if let Some(file) = &args.file_of_parameters {
        let shown = file.display();
        let text = files::read_text(file, files::TEXT_BYTES_MAX)
            .map_err(|e| Error::usage(format!("failed to read {shown}: {e}")))?;
        let is_json = file.extension().is_some_and(|e| e == "json");
        let read: std::result::Result<BTreeMap<String, serde_json::Value>, String> = if is_json {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        } else {
            toml::from_str(&text).map_err(|e| e.to_string())
        };
        let read = read
            .map_err(|e| Error::usage(format!("{shown} is not a table of NAME and value: {e}")))?;
        for (name, value) in read {
            let text = match value {
                serde_json::Value::String(text) => text,
                serde_json::Value::Number(_) | serde_json::Value::Bool(_) => value.to_string(),
                other => {
                    return Err(Error::usage(format!(
                        "{shown}: {name} is {other}, and a parameter must be a string or a number"
                    )));
                }
            };
            given.insert(name, text);
        }
    }
    for one in &args.parameters {
        let (name, value) = one.split_once('=').ok_or_else(|| {
            Error::argument(
                Input::StackParameter,
                format!("{one} is not NAME=VALUE, such as TaskCpu=512"),
            )
        })?;
        given.insert(name.to_owned(), value.to_owned());
    }
    Ok(given)
}

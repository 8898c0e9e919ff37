//! The template and the parameters of a deployment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{DeployRequest, Template};
use crate::ops::advice::{Advice, Ask};
use crate::ops::news::Note;
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
pub use crate::ops::app::STACK_VARIABLE;
/// The variable that names a template where no flag does.
pub const TEMPLATE_VARIABLE: &str = "TEMPLATE_FILE";

/// The names of all variables that a deployment knows.
pub fn variables() -> impl Iterator<Item = &'static str> {
    let of_parameters = VARIABLES.iter().map(|(variable, _)| *variable);
    of_parameters.chain([STACK_VARIABLE, TEMPLATE_VARIABLE])
}

/// What a stack that exists does not take from the environment, with what takes it;
/// nothing if it has all of it already. `told` are the parameters of the update, and
/// `had` those of the stack, which hold where nothing else is told. Pure.
pub(super) fn not_taken(
    (kind, stack): (Template, &str),
    environment: &BTreeMap<String, String>,
    told: &BTreeMap<String, Option<String>>,
    had: &BTreeMap<String, String>,
) -> Vec<Note> {
    let is_told = |parameter: &str| {
        let value = told.get(parameter)?;
        value.as_ref().or_else(|| had.get(parameter))
    };
    let mut notes = vec![];
    for (variable, parameter) in VARIABLES {
        let Some(value) = environment.get(variable) else {
            continue;
        };
        let same = is_told(parameter) == Some(value);
        if same || !told.contains_key(parameter) && !had.contains_key(parameter) {
            continue;
        }
        let stack = stack.to_owned();
        let ask = if parameter.starts_with("ImageURI") {
            Ask::RunImage {
                kind,
                stack,
                image: value.clone(),
            }
        } else if parameter == "ActiveColor" {
            Ask::SwitchOn {
                arm: value.clone(),
                stack,
            }
        } else if parameter.ends_with("Weight") {
            // Both weights move together.
            let weights = ["STABLE_WEIGHT", "CANARY_WEIGHT"].map(|name| environment.get(name));
            Ask::SetWeightsOn {
                weights: match weights {
                    [Some(stable), Some(canary)] => Some([stable.clone(), canary.clone()]),
                    _ => None,
                },
                stack,
            }
        } else {
            Ask::DeployParameter {
                kind,
                stack,
                parameter: format!("{parameter}={value}"),
            }
        };
        let note = Note::from(format!(
            "the stack exists, and {variable}={value} of the environment is for a new one"
        ));
        notes.push(note.advise(Advice::ask(ask, "does that")));
    }
    notes
}

/// The template that the request, or else the environment, names; otherwise the one
/// in the engine, and whether it is that one.
pub(super) fn template(
    args: &DeployRequest,
    environment: &BTreeMap<String, String>,
) -> Result<(String, bool)> {
    let file = args
        .template
        .clone()
        .or_else(|| environment.get(TEMPLATE_VARIABLE).map(PathBuf::from));
    let Some(file) = file else {
        return Ok((args.kind.text().to_owned(), true));
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
    Ok((text, false))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn what_is_not_taken_has_its_command_and_what_is_there_is_not_named() {
        let had = map(&[
            ("ImageURIStable", "app:v1"),
            ("ImageURICanary", "app:v1"),
            ("StableWeight", "95"),
            ("CanaryWeight", "5"),
            ("TaskCpu", "256"),
            ("DesiredCountStable", "2"),
        ]);
        let mut told: BTreeMap<String, Option<String>> =
            had.keys().map(|name| (name.clone(), None)).collect();
        // The live weights, and a parameter of a flag.
        told.insert("StableWeight".to_owned(), Some("60".to_owned()));
        told.insert("TaskCpu".to_owned(), Some("1024".to_owned()));
        let environment = map(&[
            ("IMAGE_URI_STABLE", "app:v1"),
            ("IMAGE_URI_CANARY", "app:v2"),
            ("IMAGE_URI_BLUE", "app:v2"),
            ("STABLE_WEIGHT", "95"),
            ("CANARY_WEIGHT", "5"),
            ("TASK_CPU", "1024"),
            ("DESIRED_COUNT_STABLE", "3"),
        ]);
        let notes = not_taken((Template::Canary, "shop"), &environment, &told, &had);
        let asks: Vec<Ask> = notes.iter().map(ask_of).collect();
        let (kind, stack) = (Template::Canary, "shop".to_owned());
        let image = Ask::RunImage {
            kind,
            stack: stack.clone(),
            image: "app:v2".to_owned(),
        };
        let weights = Ask::SetWeightsOn {
            stack: stack.clone(),
            weights: Some(["95".to_owned(), "5".to_owned()]),
        };
        let tasks = Ask::DeployParameter {
            kind,
            stack: stack.clone(),
            parameter: "DesiredCountStable=3".to_owned(),
        };
        for ask in [image, weights, tasks] {
            assert!(asks.contains(&ask), "{ask:?}: {asks:?}");
        }
        let said: Vec<&str> = notes.iter().map(|note| note.text.as_str()).collect();
        for variable in [
            "IMAGE_URI_STABLE",
            "IMAGE_URI_BLUE",
            "TASK_CPU",
            "CANARY_WEIGHT",
        ] {
            assert!(!said.concat().contains(variable), "{variable}: {said:?}");
        }
        let same = map(&[("IMAGE_URI_STABLE", "app:v1")]);
        assert_eq!(not_taken((kind, "shop"), &same, &told, &had), []);
        let colour = map(&[("ACTIVE_COLOR", "green")]);
        let had = map(&[("ActiveColor", "blue")]);
        let told = BTreeMap::from([("ActiveColor".to_owned(), None)]);
        let notes = not_taken((Template::BlueGreen, "shop"), &colour, &told, &had);
        let switch = Ask::SwitchOn {
            arm: "green".to_owned(),
            stack,
        };
        assert_eq!(notes.iter().map(ask_of).collect::<Vec<_>>(), [switch]);
    }

    fn ask_of(note: &Note) -> Ask {
        match &note.advice {
            Some(Advice::Ask(ask, _)) => ask.clone(),
            other => panic!("{other:?}"),
        }
    }
}

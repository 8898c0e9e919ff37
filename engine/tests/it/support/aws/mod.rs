//! AWS: an emulator that the real AWS CLI judges, and the binary against it.

pub mod bottle;
pub mod emulator;
pub mod proxy;

use std::path::Path;
use std::process::Output;

use self::emulator::aws;
use super::binary::{engine, stderr, stdout};

/// The engine against the emulator.
pub fn run(folder: &Path, region: &str, arguments: &[&str]) -> Output {
    let mut command = engine(folder, arguments);
    emulator::environment(&mut command, &emulator::endpoint(), region);
    let output = command.output().expect("the binary runs");
    crate::schemas::hold(arguments, &output);
    output
}

pub fn ok(folder: &Path, region: &str, arguments: &[&str]) -> String {
    let output = run(folder, region, arguments);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{arguments:?}: {}",
        stderr(&output)
    );
    stdout(&output)
}

/// A stack from a template, made by the AWS CLI as the prototypes' scripts do.
pub fn stack(region: &str, name: &str, template: &Path, parameters: &[&str]) {
    let template = template.display().to_string();
    let mut arguments = vec![
        "cloudformation",
        "deploy",
        "--stack-name",
        name,
        "--template-file",
        &template,
        "--capabilities",
        "CAPABILITY_NAMED_IAM",
        "--parameter-overrides",
    ];
    arguments.extend(parameters);
    aws(region, &arguments);
}

/// What a stack has as a parameter, as the AWS CLI shows it.
pub fn parameter(region: &str, stack: &str, key: &str) -> String {
    let described = aws(
        region,
        &["cloudformation", "describe-stacks", "--stack-name", stack],
    );
    let parameters = described["Stacks"][0]["Parameters"]
        .as_array()
        .expect("parameters")
        .clone();
    let found = parameters.iter().find(|p| p["ParameterKey"] == key);
    found.expect("a parameter")["ParameterValue"]
        .as_str()
        .expect("a text")
        .to_owned()
}

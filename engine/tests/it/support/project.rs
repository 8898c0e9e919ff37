//! A folder in which plugins are named and pinned, and the binary run in it.

use std::path::{Path, PathBuf};
use std::process::Output;

use super::binary::{engine, stderr};

/// A folder of a user: `plugins.toml`, keys, what the engine keeps.
pub(crate) struct Project(tempfile::TempDir);

impl Project {
    pub(crate) fn empty() -> Self {
        Self(super::folder())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).expect("writable");
    }

    pub(crate) fn lock(&self) -> String {
        std::fs::read_to_string(self.at("plugins.lock")).unwrap_or_default()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[])
    }

    pub(crate) fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = engine(self.path(), arguments);
        command.env("COSIGN_PASSWORD", "secret");
        command.env("DOCKER_CONFIG", self.at("docker"));
        command.envs(environment.iter().copied());
        let output = command.output().expect("the binary runs");
        crate::schemas::hold(arguments, &output);
        output
    }

    pub(crate) fn done(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments);
        expect(&output, 0, &[]);
        output
    }

    /// Ends with that code and says all that.
    pub(crate) fn refused(&self, arguments: &[&str], code: i32, says: &[&str]) {
        expect(&self.run(arguments), code, says);
    }
}

pub(crate) fn expect(output: &Output, code: i32, says: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in says {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

//! Which components have passed our own checks before. The checks read the whole file,
//! and every process that drives a rollout loads its strategy.
//!
//! A component is known by its digest, which is made of its bytes on every load. The list
//! is as private as the compiled code beside it: who could add a name to it could as well
//! change that code.

use std::path::{Path, PathBuf};

use super::limits::GLOBALS_MAX;
use super::unfold::STEPS_MAX;

/// The version of the checks ([`super::contract::check_globals`] and
/// [`super::unfold::check`]). Whoever makes them stricter counts on, so that everything is
/// checked again.
const CHECKS: u32 = 1;

/// The list: a folder with an empty file for each component.
#[derive(Debug, Clone)]
pub(super) struct Checked(PathBuf);

impl Checked {
    /// The list within the folder of the compiled code. It lies as deep as code does, so
    /// wasmtime removes files from it that were not used for long.
    pub(super) fn within(cache: &Path) -> Self {
        let checks = format!("{CHECKS}-{GLOBALS_MAX}-{STEPS_MAX}");
        Self(cache.join("checked").join(checks))
    }

    /// Whether the component with that digest has passed.
    pub(super) fn has(&self, sha256: &str) -> bool {
        self.0.join(sha256).is_file()
    }

    /// The component with that digest has passed. If that cannot be written down, it is
    /// checked again the next time.
    pub(super) fn add(&self, sha256: &str) {
        let _ =
            std::fs::create_dir_all(&self.0).and_then(|()| std::fs::write(self.0.join(sha256), []));
    }
}

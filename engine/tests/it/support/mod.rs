//! What tests stand up: one place for each thing that more than one of them needs.
//! Nothing here is a test.

pub mod app;
pub mod aws;
pub mod balancer;
pub mod binary;
pub mod clients;
pub mod components;
#[path = "../../../src/rollout/fixture.rs"]
pub mod fixture;
pub mod guests;
pub mod lab;
pub mod project;
pub mod secure;
pub mod servers;
pub mod shop;

use std::path::{Path, PathBuf};

/// A folder that goes with its test.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where cargo builds.
pub fn target_folder() -> PathBuf {
    // target/debug/engine
    let binary = Path::new(env!("CARGO_BIN_EXE_engine"));
    binary
        .parent()
        .and_then(Path::parent)
        .expect("two levels up")
        .to_owned()
}

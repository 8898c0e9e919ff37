//! Where the engine's own strategies are on this machine: they are no part of the binary.

use std::path::{Path, PathBuf};

use crate::ops::app::App;

/// The files of the engine's own strategies. The first is taken where nothing names one.
pub const NAMES: [&str; 2] = ["canary.wasm", "blue-green.wasm"];

/// The file of the engine's own strategy of that name: in `plugins` of the working folder, as
/// in the engine's sources, or where this engine was built or installed. None if it is in
/// neither.
#[must_use]
pub fn find(app: &App, name: &str) -> Option<PathBuf> {
    let installed = app.surroundings.plugins.iter().map(PathBuf::as_path);
    let folders = std::iter::once(Path::new("plugins")).chain(installed);
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// The strategy where nothing names one: the first of the engine's own that is here. Where
/// none is, its place in the engine's sources, for an error that says how to get one.
#[must_use]
pub fn usual(app: &App) -> PathBuf {
    let usual = NAMES[0];
    find(app, usual).unwrap_or_else(|| Path::new("plugins").join(usual))
}

//! Pictures as files.

use std::path::Path;

use super::app::App;
use super::error::{Error, Result};
use crate::journal::Entry;
use crate::plot::{self, Format};

/// Draws the rollout of a journal into a file, in the format of its extension.
pub fn draw_rollout(app: &App, entries: &[Entry], path: &Path) -> Result<()> {
    let format = format_of(path)?;
    let picture = plot::journal::rollout(entries)
        .ok_or_else(|| Error::internal("the journal has no first entry"))?;
    save(app, path, &plot::rollout(&picture, format)?)
}

/// The format of a file's extension.
pub fn format_of(path: &Path) -> Result<Format> {
    Format::of(path).map_err(Error::usage)
}

/// Writes a picture, and reports where it is.
pub fn save(app: &App, path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes)
        .map_err(|e| Error::usage(format!("failed to write {}: {e}", path.display())))?;
    app.progress(format!("drawn into {}", path.display()));
    Ok(())
}

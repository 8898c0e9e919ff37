//! Makes a new project for a strategy, which builds without changes.

use std::path::{Path, PathBuf};

use include_dir::{Dir, DirEntry, include_dir};

use crate::model::is_name;
use crate::ops::{Error, Input, Result};

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates");
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk/src");
static ANALYSIS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/analysis/src");
/// The versions that are tested here; cargo ignores those that a project does not need.
const VERSIONS: &str = include_str!("../../../../Cargo.lock");
const CONTRACT: &str = include_str!("../../../../wit/strategy.wit");

/// Languages with a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// With our SDK.
    Rust,
    /// With componentize-py.
    Python,
    /// With jco and QuickJS.
    Js,
}

/// A project that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its name.
    pub name: String,
    /// Its language.
    pub language: Language,
    /// Its folder.
    pub folder: PathBuf,
}

impl Language {
    /// The folder of its template, which is its name too.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Js => "js",
        }
    }
}

/// Makes a project of that name in a folder; `./NAME` if none is given.
///
/// # Errors
/// The name is not allowed, or the folder exists already or cannot be written.
pub fn make(name: &str, language: Language, folder: Option<PathBuf>) -> Result<Made> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !is_name(name) || !begins || !name.chars().all(fits) || name.ends_with('-') {
        return Err(Error::usage(format!(
            "{name:?} cannot be the name of a project; write small letters, digits and -, such as my-gate"
        )));
    }
    let folder = folder.unwrap_or_else(|| PathBuf::from(name));
    if folder.exists() {
        return Err(Error::usage(format!(
            "{} exists already and is not overwritten",
            folder.display()
        ))
        .give(Input::Folder, "names another one"));
    }
    let written = write_project(&folder, name, language);
    written.map_err(|e| Error::usage(format!("failed to write {}: {e}", folder.display())))?;
    Ok(Made {
        name: name.to_owned(),
        language,
        folder,
    })
}

fn write_project(folder: &Path, name: &str, language: Language) -> std::io::Result<()> {
    let template = TEMPLATES.get_dir(language.folder());
    for entry in template.map(Dir::entries).unwrap_or_default() {
        write_entry(folder, Path::new(language.folder()), entry, name)?;
    }
    let contract = match language {
        Language::Rust => "vendor/wit",
        _ => "wit",
    };
    write_file(
        &folder.join(contract).join("strategy.wit"),
        CONTRACT.as_bytes(),
    )?;
    if language == Language::Rust {
        write_file(&folder.join("Cargo.lock"), VERSIONS.as_bytes())?;
        for (crate_folder, sources) in [("sdk", &SDK), ("analysis", &ANALYSIS)] {
            let place = folder.join("vendor/plugins").join(crate_folder).join("src");
            std::fs::create_dir_all(&place)?;
            sources.extract(&place)?;
        }
    }
    Ok(())
}

fn write_entry(to: &Path, below: &Path, entry: &DirEntry, name: &str) -> std::io::Result<()> {
    match entry {
        DirEntry::Dir(inner) => {
            for entry in inner.entries() {
                write_entry(to, below, entry, name)?;
            }
            Ok(())
        }
        DirEntry::File(file) => {
            let path = file.path().strip_prefix(below).unwrap_or(file.path());
            let path: PathBuf = path
                .components()
                .map(|part| {
                    let part = part.as_os_str().to_string_lossy();
                    // Names with a leading dot would have an effect in this repository.
                    let part = match part.strip_prefix("dot-") {
                        Some(rest) => format!(".{rest}"),
                        None => part.into_owned(),
                    };
                    fill(&part, name)
                })
                .collect();
            match file.contents_utf8() {
                Some(text) => write_file(&to.join(path), fill(text, name).as_bytes()),
                None => write_file(&to.join(path), file.contents()),
            }
        }
    }
}

fn fill(text: &str, name: &str) -> String {
    text.replace("{{name}}", name)
        .replace("{{snake}}", &name.replace('-', "_"))
}

fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, bytes)
}

//! `engine plugin new`: a small project that builds as it is.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::ops::plugin::project;
use crate::view;

/// Make a project for a strategy of your own
///
/// It has the contract, a strategy with one gate, a test, a build command, a
/// README and an example for CI, and it builds as it is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plugin new my-gate --lang rust
  engine plugin new my-gate --lang python --folder strategies/my-gate")]
pub(super) struct NewArgs {
    /// Its name: small letters, digits and -
    name: String,
    /// The language
    #[arg(long, value_enum)]
    lang: Language,
    /// Where to make it [default: ./NAME]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Languages with a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    /// With our SDK, tested natively without any WebAssembly
    Rust,
    /// With componentize-py
    Python,
    /// With jco and QuickJS
    Js,
}

impl From<Language> for project::Language {
    fn from(language: Language) -> Self {
        match language {
            Language::Rust => Self::Rust,
            Language::Python => Self::Python,
            Language::Js => Self::Js,
        }
    }
}

pub(super) fn new(global: &Global, args: NewArgs) -> crate::ops::Result<Exit> {
    let name = &args.name;
    let made = project::make(name, args.lang.into(), args.folder)?;
    if global.json {
        json!(view::plugin::New::from(&made));
        return Ok(Exit::Done);
    }
    let folder = made.folder;
    eprintln!(
        "{} is made; next:\n\n  cd {}\n  make        builds {name}.wasm\n  make test   tests the gate, and plays the strategy\n\nREADME.md says where to put your own gate",
        folder.display(),
        folder.display()
    );
    Ok(Exit::Done)
}

//! What the binary knows of itself: `completions`, `version`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::exit::Exit;
use super::{Cli, Global, print};
use crate::ops::Result;
use crate::strategy::contracts;
use crate::view::version::Version;

/// Print a script that makes a shell complete verbs and flags
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine completions bash > ~/.local/share/bash-completion/completions/engine
  engine completions zsh > \"${fpath[1]}/_engine\"
  engine completions fish > ~/.config/fish/completions/engine.fish")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Show which engine this is, and which plugins it can run
#[derive(Debug, Args)]
pub struct VersionArgs {}

pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), "engine", &mut script);
    print::data(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}

pub(super) fn version(global: &Global) -> Result<Exit> {
    let version = Version::of_this(contracts());
    if global.json {
        json!(version);
        return Ok(Exit::Done);
    }
    out!("engine {} ({})", version.engine, version.platform);
    out!("plugins of {}", version.contracts.join(", "));
    Ok(Exit::Done)
}

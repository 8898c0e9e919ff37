//! The command line: one file per group of verbs, one place for exit codes.
//!
//! Data goes to stdout, progress and problems to stderr.

/// Prints a line of data to stdout, in which nothing can control the terminal.
macro_rules! out {
    ($($text:tt)*) => {
        $crate::cli::print::data(&(format!($($text)*) + "\n"))
    };
}

/// Prints an answer as JSON to stdout.
macro_rules! json {
    ($view:expr) => {
        out!("{}", $crate::view::text(&$view))
    };
}

/// Prints a line to stderr. The standard macro panics when nobody reads stderr any
/// more, and prints characters that control the terminal.
macro_rules! eprintln {
    ($($text:tt)*) => {
        $crate::cli::print::news(&(format!($($text)*) + "\n"))
    };
}

/// Prints to stderr without ending the line, for the reasons of `eprintln` above.
macro_rules! eprint {
    ($($text:tt)*) => {
        $crate::cli::print::news(&format!($($text)*))
    };
}

mod about;
pub mod advice;
mod check;
mod command;
mod doctor;
pub mod exit;
pub mod guess;
mod hindsight;
mod init;
mod local;
mod plan;
mod plugin;
pub mod print;
pub mod render;
mod run;
mod schema;
mod show;
mod simulate;
mod stack;
pub mod table;
mod target;
mod traffic;
mod undo;
mod watch;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::model::address::socket;
use crate::ops::Error;
use crate::ops::app::{Access, App, Surroundings};
use crate::ops::news::{Listener, News};
use crate::view::failure::{Failure, Wrong};
use exit::Exit;

const EXIT_CODES: &str = "Exit codes:
  0  promoted, or done          5  paused, a person must act
  1  unexpected error           6  plugin rejected
  2  usage or configuration     7  target busy, or changed by somebody else
  3  rolled back                8  strategy diverged from its journal
  4  rollback failed: page someone
  9  a simulated scenario is not as expected
 10  nothing to take back: it is so already
 11  `check` or `doctor` has found a problem";

/// Progressive delivery with strategies as WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "engine", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options that every verb takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Folder of the journals, the compile cache and the logs
    /// [default: $ENGINE_STATE_DIR, else ~/.local/state/engine]
    #[arg(long, global = true, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// Rollout file [default: ./rollout.toml if it is there]
    #[arg(long, short, global = true, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Admin address of a running `engine local`, instead of the file's target
    #[arg(long, global = true, value_name = "ADDRESS", value_parser = socket)]
    local: Option<SocketAddr>,
    /// Print JSON to stdout
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    aws: target::AwsArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::RunArgs),
    Demo(run::DemoArgs),
    Init(init::InitArgs),
    Check(check::CheckArgs),
    Plan(plan::PlanArgs),
    Simulate(simulate::SimulateArgs),
    Resume(command::ResumeArgs),
    Status(show::StatusArgs),
    #[command(visible_alias = "watch")]
    Wait(show::WaitArgs),
    Get(show::GetArgs),
    List(show::ListArgs),
    #[command(visible_alias = "logs")]
    History(show::HistoryArgs),
    Explain(hindsight::ExplainArgs),
    Replay(hindsight::ReplayArgs),
    WhatIf(hindsight::WhatIfArgs),
    Export(hindsight::ExportArgs),
    Import(hindsight::ImportArgs),
    SetWeights(traffic::SetWeightsArgs),
    Switch(traffic::SwitchArgs),
    Rollback(traffic::RollbackArgs),
    Undo(undo::UndoArgs),
    Promote(command::PromoteArgs),
    Pause(command::PauseArgs),
    #[command(visible_alias = "stop")]
    Abort(command::AbortArgs),
    Approve(command::ApproveArgs),
    Deploy(stack::DeployArgs),
    Delete(stack::DeleteArgs),
    Local(local::LocalArgs),
    Schema(schema::SchemaArgs),
    Doctor(doctor::DoctorArgs),
    Completions(about::CompletionsArgs),
    Version(about::VersionArgs),
    Plugin(plugin::PluginArgs),
}

impl Verb {
    /// What the verb needs of the store.
    fn access(&self) -> Access {
        match self {
            Self::Rollback(_) | Self::Abort(_) => Access::WayBack,
            Self::Doctor(_) => Access::Look,
            Self::Status(_)
            | Self::Wait(_)
            | Self::Get(_)
            | Self::List(_)
            | Self::History(_)
            | Self::Explain(_)
            | Self::Replay(_)
            | Self::WhatIf(_)
            | Self::Export(_)
            | Self::Init(_)
            | Self::Check(_)
            | Self::Plan(_) => Access::Read,
            _ => Access::Write,
        }
    }
}

/// Shows on stderr what an operation tells.
fn listener() -> Listener {
    std::sync::Arc::new(|news| match news {
        News::Note(note) => eprintln!("note: {}", advice::note(&note)),
        News::Progress(text) => eprintln!("{text}"),
        News::Trouble(text) => eprintln!("error: {text}"),
    })
}

/// Runs the command line to its exit code.
pub async fn main(cli: Cli, surroundings: Surroundings) -> ExitCode {
    let json = cli.global.json;
    // Boxed, or the futures of all verbs nest too deep for the compiler.
    match Box::pin(dispatch(cli, surroundings)).await {
        Ok(exit) => exit.into(),
        Err(error) => report(&error, json),
    }
}

/// Reads the command line.
///
/// # Errors
/// The exit code: it is wrong, which is said, or asked for help or the version.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    Cli::try_parse_from(&arguments).map_err(|error| {
        // What follows `--` is no option.
        let options = arguments.iter().take_while(|word| *word != "--");
        let json = options.into_iter().any(|word| word == "--json");
        if let Some(error) = unknown_verb(&error) {
            return report(&error, json);
        }
        let _ = error.print();
        if json && error.use_stderr() {
            let text = error.render().to_string();
            let wrong = text.split("\n\nUsage:").next().unwrap_or_default();
            let wrong = wrong.trim().trim_start_matches("error: ");
            answer(&Error::usage(wrong));
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
    })
}

/// The error about a verb that does not exist, with a guess at what was meant.
fn unknown_verb(error: &clap::Error) -> Option<Error> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let engine = Cli::command();
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let within = engine.get_subcommands().find(|verb| {
        let usage = usage.as_deref().unwrap_or_default();
        verb.has_subcommands() && usage.contains(&format!("engine {} ", verb.get_name()))
    });
    let (command, name) = match within {
        Some(verb) => (verb, format!("engine {}", verb.get_name())),
        None => (&engine, "engine".to_owned()),
    };
    let verbs: Vec<&str> = command.get_subcommands().map(|c| c.get_name()).collect();
    let unknown = Error::usage(format!("unrecognized subcommand '{word}'"));
    let all = format!("`{name} --help` lists all of them");
    Some(match guess::meant(word, &verbs) {
        Some(verb) => unknown.hint(format!("did you mean `{name} {verb}`? {all}")),
        None => unknown.hint(all),
    })
}

/// Says what was wrong, and returns the exit code.
fn report(error: &Error, json: bool) -> ExitCode {
    let style = console::Style::new().for_stderr().red().bold();
    eprintln!("{} {}", style.apply_to("error:"), advice::text(error));
    if json && !print::has_answered() {
        answer(error);
    }
    Exit::from(error.kind).into()
}

/// Prints what was wrong as JSON.
fn answer(error: &Error) {
    let (message, advice) = advice::parts(error);
    json!(Failure {
        error: Wrong {
            kind: error.kind.into(),
            message,
            advice,
            problems: error.problems.iter().map(Into::into).collect(),
            exit_code: Exit::from(error.kind) as u8,
        },
    });
}

async fn dispatch(cli: Cli, surroundings: Surroundings) -> crate::ops::Result<Exit> {
    let Cli { global, verb } = cli;
    let state_dir = global
        .state_dir
        .clone()
        .unwrap_or_else(|| surroundings.state_dir());
    // Journals hold paths in this folder, and are read from other working folders too.
    let state_dir = std::path::absolute(&state_dir)?;
    if let Verb::Local(args) = verb {
        return local::run(&global, args, &state_dir).await;
    }
    // What the binary knows of itself needs neither store nor target.
    match &verb {
        Verb::Schema(args) => return schema::schema(&global, args),
        Verb::Completions(args) => return about::completions(args),
        Verb::Version(_) => return about::version(&global),
        _ => {}
    }
    let app = App::open(&state_dir, surroundings, verb.access(), listener())?;
    match verb {
        Verb::Run(args) => Box::pin(run::run(&app, &global, args)).await,
        Verb::Demo(args) => Box::pin(run::demo(&app, &global, args)).await,
        Verb::Init(args) => Box::pin(init::init(&app, &global, args)).await,
        Verb::Check(args) => Box::pin(check::check(&app, &global, args)).await,
        Verb::Plan(args) => Box::pin(plan::plan(&app, &global, args)).await,
        Verb::Simulate(args) => Box::pin(simulate::simulate(&app, &global, args)).await,
        Verb::Resume(args) => Box::pin(command::resume(&app, &global, args)).await,
        Verb::Status(args) => Box::pin(show::status(&app, &global, args)).await,
        Verb::Wait(args) => Box::pin(show::wait(&app, &global, args)).await,
        Verb::Get(args) => Box::pin(show::get(&app, &global, args)).await,
        Verb::List(args) => Box::pin(show::list(&app, &global, args)).await,
        Verb::History(args) => Box::pin(show::history(&app, &global, args)).await,
        Verb::Explain(args) => Box::pin(hindsight::explain(&app, &global, args)).await,
        Verb::Replay(args) => Box::pin(hindsight::replay(&app, &global, args)).await,
        Verb::WhatIf(args) => Box::pin(hindsight::what_if(&app, &global, args)).await,
        Verb::Export(args) => Box::pin(hindsight::export(&app, &global, args)).await,
        Verb::Import(args) => Box::pin(hindsight::import(&app, &global, args)).await,
        Verb::SetWeights(args) => {
            let moved = Box::pin(traffic::set_weights(&app, &global, args));
            watch::to_its_end(&app, Exit::Paused, moved).await
        }
        Verb::Switch(args) => {
            let moved = Box::pin(traffic::switch(&app, &global, args));
            watch::to_its_end(&app, Exit::Paused, moved).await
        }
        Verb::Rollback(args) => {
            let back = Box::pin(traffic::rollback(&app, &global, args));
            watch::to_its_end(&app, Exit::RollbackFailed, back).await
        }
        Verb::Undo(args) => Box::pin(undo::undo(&app, &global, args)).await,
        Verb::Promote(args) => Box::pin(command::promote(&app, &global, args)).await,
        Verb::Pause(args) => Box::pin(command::pause(&app, &global, args)).await,
        Verb::Abort(args) => {
            let back = Box::pin(command::abort(&app, &global, args));
            watch::to_its_end(&app, Exit::RollbackFailed, back).await
        }
        Verb::Approve(args) => Box::pin(command::approve(&app, &global, args)).await,
        Verb::Doctor(_) => doctor::doctor(&app, &global).await,
        Verb::Deploy(args) => Box::pin(stack::deploy(&app, &global, args)).await,
        Verb::Delete(args) => Box::pin(stack::delete(&app, &global, args)).await,
        Verb::Local(_) | Verb::Schema(_) | Verb::Completions(_) | Verb::Version(_) => {
            Ok(Exit::Done)
        }
        Verb::Plugin(args) => Box::pin(plugin::plugin(&app, &global, args)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::catalogue::{Kind, documents};

    /// `--json` is an option of every verb, and so each has an answer in the catalogue.
    #[test]
    fn every_verb_answers_in_json() {
        let answers: Vec<&str> = documents()
            .filter(|document| document.kind == Kind::Answer)
            .filter_map(|document| document.about.split_once(": "))
            .flat_map(|(verbs, _)| verbs.split([',', ';']))
            .map(str::trim)
            .collect();
        let engine = Cli::command();
        let mut verbs: Vec<String> = vec![];
        for verb in engine.get_subcommands() {
            match verb.has_subcommands() {
                true => verbs.extend(
                    verb.get_subcommands()
                        .map(|inner| format!("{} {}", verb.get_name(), inner.get_name())),
                ),
                false => verbs.push(verb.get_name().to_owned()),
            }
        }
        // A script for a shell is nothing else.
        verbs.retain(|verb| verb != "completions");
        // `and rollback where it aborts a rollout`
        let is_of = |answer: &str, verb: &str| {
            let answer = answer.strip_prefix("and ").unwrap_or(answer);
            let rest = answer.strip_prefix(verb);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        let is_silent = |verb: &&String| !answers.iter().any(|answer| is_of(answer, verb));
        let silent: Vec<&String> = verbs.iter().filter(is_silent).collect();
        assert!(silent.is_empty(), "{silent:?}: {answers:?}");
    }
}

//! `engine check`: whether a rollout could begin.

use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::run::WhatArgs;
use super::{Global, advice, plugin};
use crate::ops::app::App;
use crate::ops::begin::BeginRequest;
use crate::ops::examined::{Examined, Found, doubtful, wrong};
use crate::ops::{Result, check};
use crate::view::examined::{self as view, State};

/// Check a rollout file, its plugin, parameters and target, without a rollout
///
/// All problems are shown at once, each of the file with its line and column. A target on
/// AWS is read, with every read that a rollout needs. Nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine check                        rollout.toml
  engine check shop.toml --set steps=10,50,100
  engine check --stack my-stack --plugin plugins/canary.wasm --image REPO:TAG
  engine check --json | jq '.examined[] | select(.state == \"problem\")'

Exit code: 0 if nothing is wrong, 11 if something is, 2 if there is no file to check.")]
pub struct CheckArgs {
    /// The rollout file [default: --file, else ./rollout.toml]
    #[arg(value_name = "FILE", conflicts_with = "file")]
    checked: Option<PathBuf>,
    /// The strategy, where the file does not name it
    #[arg(long)]
    plugin: Option<PathBuf>,
    #[command(flatten)]
    what: WhatArgs,
    /// The arm that serves today, if weights and names do not say it
    #[arg(long, value_name = "ARM")]
    stable: Option<String>,
    #[command(flatten)]
    pins: plugin::PinArgs,
}

pub(super) async fn check(app: &App, global: &Global, args: CheckArgs) -> Result<Exit> {
    let mut target = global.target();
    target.file = args.checked.or(target.file);
    let request = BeginRequest {
        target,
        plugin: args.plugin,
        set: args.what.set,
        image: args.what.image,
        task_definition: args.what.task_definition,
        stable: args.stable,
        pins: args.pins.into(),
        ..BeginRequest::default()
    };
    let checked = check::check(app, &request).await?;
    let exit = exit(&checked.examined);
    if global.json {
        json!(view::Check {
            file: checked.file.map(|file| file.display().to_string()),
            examined: checked.examined.iter().map(seen).collect(),
            exit_code: exit as u8,
        });
    } else {
        show(&checked.examined);
    }
    Ok(exit)
}

/// The exit code of a look.
pub(super) fn exit(examined: &[Examined]) -> Exit {
    match wrong(examined) {
        0 => Exit::Done,
        _ => Exit::Problems,
    }
}

/// One thing that was looked at, as JSON.
pub(super) fn seen(one: &Examined) -> view::Examined {
    let (state, (message, advice), problems) = match &one.found {
        Found::Fine(text) => (State::Ok, (text.clone(), None), &[][..]),
        Found::Skipped(text) => (State::Skipped, (text.clone(), None), &[][..]),
        Found::Doubtful(text) => (State::Warning, (text.clone(), None), &[][..]),
        Found::Wrong(error) => (State::Problem, advice::parts(error), &error.problems[..]),
    };
    view::Examined {
        about: one.about.to_owned(),
        state,
        message,
        advice,
        problems: problems.iter().map(Into::into).collect(),
    }
}

/// A line for each thing that was looked at, and how many are problems.
pub(super) fn show(examined: &[Examined]) {
    let width = examined.iter().map(|f| f.about.len()).max().unwrap_or(0);
    for one in examined {
        show_one(one, width);
    }
    count(examined);
}

/// The line of one thing that was looked at, with what it is about in so many columns.
pub(super) fn show_one(one: &Examined, width: usize) {
    let (state, style, text) = match &one.found {
        Found::Fine(text) => ("ok", console::Style::new().green(), text.clone()),
        Found::Skipped(text) => ("skipped", console::Style::new().dim(), text.clone()),
        Found::Doubtful(text) => ("warning", console::Style::new().yellow(), text.clone()),
        Found::Wrong(error) => (
            "problem",
            console::Style::new().red().bold(),
            advice::text(error),
        ),
    };
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let state = style.apply_to(format!("{state:<7}"));
    out!("{state}  {:<width$}  {first}", one.about);
    for line in lines {
        out!("{:9}{line}", "");
    }
}

/// Says how many problems and warnings there are.
pub(super) fn count(examined: &[Examined]) {
    if let Some(counted) = counted(examined) {
        eprintln!("{counted}");
    }
}

/// How many problems and warnings there are; none if there are neither.
fn counted(examined: &[Examined]) -> Option<String> {
    let of = |count, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        many => Some(format!("{many} {what}s")),
    };
    let problems = of(wrong(examined), "problem");
    let warnings = of(doubtful(examined), "warning");
    let both: Vec<String> = problems.into_iter().chain(warnings).collect();
    (!both.is_empty()).then(|| both.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::problem::{Located, Problem};
    use crate::ops::Error;

    #[test]
    fn each_problem_of_a_file_counts() {
        let located = |paths: &[&str]| {
            let located = |path: &&str| Located {
                file: None,
                problem: Problem::new(*path, "is wrong"),
            };
            paths.iter().map(located).collect()
        };
        let file = |paths: &[&str]| {
            Examined::wrong("file", Error::problems("it is wrong:", located(paths)))
        };
        let warning = Examined::doubtful("arms", "not healthy now");
        let target = Examined::wrong("target", Error::usage("there is none"));
        let fine = Examined::fine("plugin", "canary");
        assert_eq!(counted(std::slice::from_ref(&fine)), None);
        assert_eq!(counted(&[file(&["a"])]).as_deref(), Some("1 problem"));
        let all = [file(&["a", "b", "c"]), target, fine, warning.clone()];
        assert_eq!(counted(&all).as_deref(), Some("4 problems, 1 warning"));
        let both = [warning.clone(), warning];
        assert_eq!(counted(&both).as_deref(), Some("2 warnings"));
        assert_eq!(exit(&both) as u8, Exit::Done as u8);
    }
}

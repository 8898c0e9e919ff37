//! `engine check`: whether a rollout could begin.

use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::run::WhatArgs;
use super::{Global, advice, plugin};
use crate::ops::app::App;
use crate::ops::begin::BeginRequest;
use crate::ops::examined::{Examined, Found, wrong};
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

/// Says how many are problems.
pub(super) fn count(examined: &[Examined]) {
    match wrong(examined) {
        0 => {}
        1 => eprintln!("1 problem"),
        many => eprintln!("{many} problems"),
    }
}

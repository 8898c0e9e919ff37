//! `engine plugin check`: checks everything about a plugin that needs no target.

use std::path::PathBuf;

use clap::Args;

use super::pins::PinArgs;
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::ops::app::App;
use crate::ops::plugin::check::{self, CheckRequest, Checked, World};
use crate::ops::plugin::inspect::{by_interface, moves_traffic};
use crate::view;

/// Check that a plugin fits the contract and repeats itself
///
/// Runs it twice in two small simulated worlds, the second time with crashes,
/// and compares all calls and the instructions between them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plugin check my-gate.wasm
  engine plugin check my-gate.wasm --set steps=10,50,100    if it needs parameters
  engine plugin check my-gate.wasm --query accuracy=0.93    if it asks for queries")]
pub(super) struct CheckArgs {
    /// A file, or a name of plugins.toml
    plugin: PathBuf,
    /// A parameter of the strategy
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What a query of the rollout file answers in these worlds, for both arms
    #[arg(long = "query", value_name = "NAME=NUMBER")]
    queries: Vec<String>,
    #[command(flatten)]
    pins: PinArgs,
}

pub(super) async fn check(app: &App, global: &Global, args: CheckArgs) -> crate::ops::Result<Exit> {
    let request = CheckRequest {
        plugin: args.plugin,
        set: args.set,
        queries: args.queries,
        pins: args.pins.into(),
    };
    let checked = check::check(app, request).await?;
    if global.json {
        json!(view::plugin::Check::from(&checked));
    } else {
        print(&checked);
    }
    checked.verdict()?;
    Ok(Exit::Done)
}

fn print(checked: &Checked) {
    let plugin = checked.plugin.as_ref();
    out!("{}", checked.shown);
    out!("  contract     {}", plugin.world);
    out!("  size         {} bytes", plugin.size);
    out!(
        "  schema       {} bytes of JSON Schema, and it accepts the parameters",
        checked.description.parameters_schema.len()
    );
    for (interface, functions) in by_interface(&plugin.permissions) {
        out!("  may call     {interface}: {}", functions.join(", "));
    }
    if !moves_traffic(plugin) {
        out!("  may call     nothing that moves traffic");
    }
    for name in &plugin.stubbed {
        out!("  stub         {name}");
    }
    for World {
        name, fuel, reason, ..
    } in &checked.worlds
    {
        let all: u64 = fuel.iter().sum();
        let most = fuel.iter().max().copied().unwrap_or(0);
        out!(
            "  {name:<12} {} calls, {all} instructions, at most {most} between two calls; {reason}",
            fuel.len()
        );
    }
    if checked.difference.is_none() {
        out!("  repeats      yes: the same calls and instructions, also after crashes");
    }
}

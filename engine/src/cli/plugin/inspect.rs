//! `engine plugin inspect`: what a plugin is and what it can do.

use std::path::PathBuf;

use clap::Args;

use super::pins::PinArgs;
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::ops::app::App;
use crate::ops::plugin::inspect::{self, Annotation, Inspected, Parameter};
use crate::strategy::limits;
use crate::view;

/// Show what a plugin is: digest, permissions, parameters, where it comes from
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plugin inspect plugins/canary.wasm
  engine plugin inspect canary --json | jq .permissions")]
pub(super) struct InspectArgs {
    /// A file, or a name of plugins.toml
    plugin: PathBuf,
    #[command(flatten)]
    pins: PinArgs,
}

pub(super) async fn inspect(
    app: &App,
    global: &Global,
    args: InspectArgs,
) -> crate::ops::Result<Exit> {
    let found = inspect::inspect(app, &args.pins.into(), &args.plugin).await?;
    if global.json {
        json!(view::plugin::Inspection::from(&found));
    } else {
        print(&found);
    }
    Ok(Exit::Done)
}

fn print(found: &Inspected) {
    let Inspected {
        plugin,
        source,
        description,
        parameters,
        annotations,
        ..
    } = found;
    out!("{} {}", description.name, description.version);
    out!("{}\n", description.summary);
    out!("  source   {source}");
    out!("  digest   sha256:{}", plugin.sha256);
    out!("  size     {} bytes", plugin.size);
    out!("  world    {}", plugin.world);
    for Annotation { label, text, .. } in annotations {
        out!("  {label:<8} {text}");
    }
    out!("\nit may call");
    for (interface, functions) in inspect::by_interface(&plugin.permissions) {
        out!("  {interface:<10} {}", functions.join(", "));
    }
    if !inspect::moves_traffic(plugin) {
        out!("  and so it cannot move traffic");
    }
    if !plugin.stubbed.is_empty() {
        out!(
            "\n{} interfaces of its standard library are met by stubs that can reach nothing; --json lists them",
            plugin.stubbed.len()
        );
    }
    out!("\nparameters");
    let width = |f: fn(&Parameter) -> &str| parameters.iter().map(|p| f(p).len()).max();
    let name = width(|p| &p.name).unwrap_or(0);
    let kind = width(|p| &p.kind).unwrap_or(0);
    let default = width(|p| &p.default).unwrap_or(0);
    for p in parameters {
        out!(
            "  {:name$}  {:kind$}  {:default$}  {}",
            p.name,
            p.kind,
            p.default,
            limits::one_line(first_sentence(&p.about).to_owned())
        );
    }
    if parameters.is_empty() {
        out!("  none");
    }
}

/// The first sentence of a text, which is enough for a table; `--json` has all.
fn first_sentence(text: &str) -> &str {
    text.split_once(". ").map_or(text, |(first, _)| first)
}

//! `engine plugin inspect`: what a plugin is and what it can do.

use std::path::PathBuf;

use clap::Args;
use console::measure_text_width;

use super::pins::PinArgs;
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::cli::print;
use crate::cli::render::wrapped;
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
    for line in table(parameters, print::width()) {
        out!("{line}");
    }
    if parameters.is_empty() {
        out!("  none");
    }
}

/// The least room for what a parameter does beside its name, type and default, columns. Where
/// there is less, it is below them.
const ABOUT_LEAST: usize = 40;

/// The parameters, each with all that it does, in so many columns.
fn table(parameters: &[Parameter], width: usize) -> Vec<String> {
    let widest = |f: fn(&Parameter) -> &str| parameters.iter().map(|p| f(p).len()).max();
    let name = widest(|p| &p.name).unwrap_or(0);
    let kind = widest(|p| &p.kind).unwrap_or(0);
    let default = widest(|p| &p.default).unwrap_or(0);
    let mut lines = vec![];
    for p in parameters {
        let head = format!(
            "  {:name$}  {:kind$}  {:default$}  ",
            p.name, p.kind, p.default
        );
        let about = limits::one_line(p.about.clone());
        let beside = measure_text_width(&head);
        if width.saturating_sub(beside) < ABOUT_LEAST {
            lines.push(head.trim_end().to_owned());
            lines.extend(wrapped(&about, "      ", width));
            continue;
        }
        let mut about = wrapped(&about, &" ".repeat(beside), width).into_iter();
        let first = about.next().unwrap_or_default();
        lines.push(
            format!("{head}{}", first.trim_start())
                .trim_end()
                .to_owned(),
        );
        lines.extend(about);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_a_parameter_does_is_shown_in_any_terminal() {
        let about = "What to do when no samples come. Wait for more, or take the traffic back. The former holds the rollout, and a person must act.";
        let parameters = [
            Parameter {
                name: "on-no-data".to_owned(),
                kind: "\"hold\" or \"rollback\"".to_owned(),
                default: "-".to_owned(),
                about: about.to_owned(),
            },
            Parameter {
                name: "alpha".to_owned(),
                kind: "number".to_owned(),
                default: "0.01".to_owned(),
                about: String::new(),
            },
        ];
        for width in [40, 80, 120, usize::MAX] {
            let lines = table(&parameters, width);
            let widest = lines.iter().map(|line| measure_text_width(line)).max();
            assert!(widest <= Some(width.max(45)), "{width}: {lines:#?}");
            let all: Vec<&str> = lines.iter().flat_map(|l| l.split_whitespace()).collect();
            assert!(all.join(" ").contains(about), "{width}: {lines:#?}");
        }
        // A pipe has a line for each.
        assert_eq!(table(&parameters, usize::MAX).len(), 2);
        assert!(table(&parameters, 80)[0].ends_with("-"));
    }
}

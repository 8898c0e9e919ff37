//! `engine schema`: what files may say and what answers in JSON look like.

use clap::Args;

use super::Global;
use super::exit::Exit;
use crate::ops::{Error, Result};
use crate::view::catalogue::{Catalogue, Kind, document, documents, like};

/// Print the JSON Schema of a file that people write, or of an answer in JSON
///
/// Without a name it lists them. With the schema of a file an editor completes keys,
/// explains them, and marks those that do not exist.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine schema                                        what there is
  engine schema rollout.toml > rollout.schema.json     for an editor; in the first line of the
                                                       rollout file: #:schema ./rollout.schema.json
  engine schema scenario > scenario.schema.json        in VS Code: \"json.schemas\" of the settings
  engine schema status                                 what `engine status --json` prints
  engine schema status | jq '.properties | keys'       its keys
  engine plugin inspect canary.wasm --json | jq .schema    the parameters of a strategy")]
pub struct SchemaArgs {
    /// The name of the schema, such as rollout.toml or status
    name: Option<String>,
}

pub(super) fn schema(global: &Global, args: &SchemaArgs) -> Result<Exit> {
    let Some(name) = &args.name else {
        if global.json {
            json!(Catalogue::new());
        } else {
            list();
        }
        return Ok(Exit::Done);
    };
    let Some(document) = document(name) else {
        let like = like(name);
        let hint = if like.is_empty() {
            String::new()
        } else {
            format!("; did you mean {}?", like.join(" or "))
        };
        return Err(Error::usage(format!(
            "there is no schema {name:?}{hint}\n\nhint: `engine schema` lists all of them"
        )));
    };
    out!("{:#}", document.schema());
    Ok(Exit::Done)
}

fn list() {
    for (kind, title) in [
        (Kind::File, "files that people write"),
        (
            Kind::Answer,
            "\nanswers with --json, by the verbs that give them",
        ),
    ] {
        out!("{title}");
        for document in documents().filter(|document| document.kind == kind) {
            out!("  {:<14}  {}", document.name, document.about);
        }
    }
}

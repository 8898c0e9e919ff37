//! `engine init`: a rollout file to begin with.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::Global;
use super::advice;
use super::exit::Exit;
use crate::model::address::socket;
use crate::model::target::ADMIN_DEFAULT;
use crate::ops::app::App;
use crate::ops::init::{self, InitRequest, Place};
use crate::ops::plugin::where_from;
use crate::ops::request::TargetRequest;
use crate::ops::{Error, Input, Result};
use crate::view::init::Init;

/// Write a commented rollout file to begin with
///
/// Asks on a terminal, or takes what the flags say; a stack, listener or rule on AWS is
/// looked for, and only read. A file that is there stays as it is without --force.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine init                                     asks
  engine init --stack my-stack --region eu-west-1
  engine init --local                             a balancer on this machine, with a demo
  engine init --stack my-stack --plugin canary --image REPO:TAG -f shop.toml
  engine check                                    looks at what was written")]
pub struct InitArgs {
    /// The strategy: a file, or its name in plugins.toml
    /// [default: what plugins.toml names, else canary.wasm of the engine if it is here]
    #[arg(long)]
    plugin: Option<String>,
    /// Image of the new version (AWS only)
    #[arg(long, value_name = "REPOSITORY:TAG")]
    image: Option<String>,
    /// A load balancer on this machine, with that admin address [default: 127.0.0.1:7900]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, value_parser = socket,
        default_missing_value = "127.0.0.1:7900")]
    local: Option<SocketAddr>,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
}

pub(super) async fn init(app: &App, global: &Global, args: InitArgs) -> Result<Exit> {
    let file = global.file.clone();
    let file = file.unwrap_or_else(|| PathBuf::from("rollout.toml"));
    // Nobody answers questions for nothing.
    init::may_write(&file, args.force)?;
    let target = TargetRequest {
        file: None,
        local: None,
        ..global.target()
    };
    let place = match args.local {
        Some(admin) => Some(Place::Local(admin)),
        None if target.aws.names_a_target() => Some(Place::Aws(Box::new(target.clone()))),
        None => None,
    };
    let (place, plugin) = match place {
        Some(place) => (place, args.plugin),
        None if io::stdin().is_terminal() && io::stderr().is_terminal() => {
            let mut answers = io::stdin().lines();
            let mut ask = |question: &str| {
                eprint!("{question} ");
                answers.next().unwrap_or_else(|| Ok(String::new()))
            };
            let usual = init::strategy_here(app);
            asked(target, (args.plugin, usual.as_deref()), &mut ask)?
        }
        None => {
            return Err(
                Error::usage("nothing says where the rollout file shall roll out to")
                    .name_it(Input::Target),
            );
        }
    };
    let request = InitRequest {
        file,
        force: args.force,
        place,
        plugin,
        image: args.image,
    };
    let written = Box::pin(init::init(app, &request)).await?;
    if global.json {
        json!(Init::from(&written));
        return Ok(Exit::Done);
    }
    let by = match &written.plugin {
        Some(plugin) => format!("by {plugin}"),
        None => "with no strategy yet".to_owned(),
    };
    out!(
        "wrote {}: {} and {}, {by}",
        written.file.display(),
        written.arms.first().map_or("", String::as_str),
        written.arms.last().map_or("", String::as_str),
    );
    let named = match global.file {
        Some(_) => format!(" -f {}", written.file.display()),
        None => String::new(),
    };
    match &written.plugin {
        Some(_) => eprintln!("`engine check{named}` looks at it, `engine run{named}` begins"),
        None => {
            eprintln!(
                "no strategy was found here, and a rollout needs one: {}",
                advice::of(&where_from())
            );
            eprintln!(
                "`engine check{named}` looks at the file, `engine run PLUGIN{named}` begins with a strategy, and so does `engine run{named}` once strategy.plugin names it"
            );
        }
    }
    Ok(Exit::Done)
}

/// How often a question is asked that needs an answer.
const ASKED_MAX: usize = 3;

/// What a person answers. An empty answer is the one in brackets.
fn asked(
    mut target: TargetRequest,
    (plugin, usual): (Option<String>, Option<&str>),
    ask: &mut dyn FnMut(&str) -> io::Result<String>,
) -> Result<(Place, Option<String>)> {
    let mut answer = |question: &str| -> Result<Option<String>> {
        let answer = ask(question)?.trim().to_owned();
        Ok((!answer.is_empty()).then_some(answer))
    };
    let place = answer("Where does it run: aws, or local (on this machine)? [aws]")?;
    let place = match place.as_deref() {
        None | Some("aws" | "AWS") => {
            let mut named = None;
            for _ in 0..ASKED_MAX {
                named = answer("CloudFormation stack, or ARN of a listener or a rule?")?;
                if named.is_some() {
                    break;
                }
            }
            let Some(named) = named else {
                return Err(Error::usage("no load balancer is named").name_it(Input::LoadBalancer));
            };
            let aws = &mut target.aws;
            let place = match () {
                () if named.contains(":listener-rule/") => &mut aws.rule,
                () if named.contains(":listener/") => &mut aws.listener,
                () => &mut aws.stack,
            };
            *place = Some(named);
            if aws.region.is_none() {
                aws.region = answer("Region? [as the AWS CLI has it]")?;
            }
            Place::Aws(Box::new(target))
        }
        Some("local") => Place::Local(ADMIN_DEFAULT),
        Some(other) => {
            return Err(Error::usage(format!(
                "{other:?} is neither aws nor local, and nothing was written"
            )));
        }
    };
    let plugin = match plugin {
        Some(plugin) => Some(plugin),
        None => answer(&format!(
            "Strategy: a file, or its name in plugins.toml? [{}]",
            usual.unwrap_or("none yet")
        ))?,
    };
    Ok((place, plugin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(answers: &[&str]) -> (Result<(Place, Option<String>)>, usize) {
        let mut left = answers.iter();
        let mut questions = 0;
        let mut ask = |_: &str| {
            questions += 1;
            Ok(left
                .next()
                .map(|text| format!("{text}\n"))
                .unwrap_or_default())
        };
        let asked = asked(TargetRequest::default(), (None, None), &mut ask);
        (asked, questions)
    }

    #[test]
    fn answers_name_a_target() {
        let rule = "arn:aws:elasticloadbalancing:eu-west-1:1:listener-rule/app/a/1/2/3";
        let (asked, questions) = told(&["", " shop ", "eu-west-1", ""]);
        let Ok((Place::Aws(target), None)) = asked else {
            panic!("{asked:?}");
        };
        assert_eq!(questions, 4);
        assert_eq!(target.aws.stack.as_deref(), Some("shop"));
        assert_eq!(target.aws.region.as_deref(), Some("eu-west-1"));
        // What has no default is asked again.
        let (asked, questions) = told(&["aws", "", "shop", "eu-west-1", ""]);
        assert!(asked.is_ok_and(|(place, _)| matches!(place, Place::Aws(_))));
        assert_eq!(questions, 5);
        let (asked, _) = told(&["aws", rule, "", "canary"]);
        let Ok((Place::Aws(target), plugin)) = asked else {
            panic!("{asked:?}");
        };
        assert_eq!(target.aws.rule.as_deref(), Some(rule));
        assert_eq!((target.aws.stack, target.aws.region), (None, None));
        assert_eq!(plugin.as_deref(), Some("canary"));
        let (asked, questions) = told(&["local", ""]);
        assert!(
            matches!(asked, Ok((Place::Local(ADMIN_DEFAULT), None))),
            "{asked:?}"
        );
        assert_eq!(questions, 2);
        for wrong in [&["cloud"][..], &["aws", ""], &[]] {
            assert!(told(wrong).0.is_err(), "{wrong:?}");
        }
    }
}

//! `engine run`: begin a rollout and see it to its end.

use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::watch::{self, How, OnInterrupt};
use super::{Global, plugin};
use crate::journal::Work;
use crate::model::{DemoFault, is_name};
use crate::ops::Result;
use crate::ops::app::App;
use crate::ops::begin::{self, BeginRequest};
use crate::ops::plugin::own;
use crate::rollout::Options;
use crate::spec::parse_fault;

/// Run a strategy until the new version is promoted or rolled back
///
/// Without a rollout file it sets up a load balancer, two versions of a demo
/// service and a load of its own, in this process.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine run plugins/canary.wasm                                  a demo, one minute
  engine run plugins/canary.wasm --demo-fault error-rate=0.2      the same with a bad version
  engine run plugins/blue-green.wasm --names blue,green --set bake=10s
  engine run canary --locked                                      by its name in plugins.toml
  engine run -f rollout.toml --set steps=10,50,100 --on-interrupt rollback
  engine run plugins/canary.wasm --local 127.0.0.1:7900           on a running `engine local`
  engine run plugins/canary.wasm --stack my-stack --image REPO:TAG  on ECS behind an ALB")]
pub struct RunArgs {
    /// The strategy: a WebAssembly component, or its name in plugins.toml
    /// [default: strategy.plugin of the rollout file]
    plugin: Option<PathBuf>,
    #[command(flatten)]
    what: WhatArgs,
    /// Fault of the new version: error-rate=0.2, latency=+300ms, or both (demo only)
    #[arg(long, value_name = "FAULT", value_parser = parse_fault)]
    demo_fault: Option<DemoFault>,
    /// Requests per second of the built-in load (demo only)
    #[arg(long, value_name = "RPS")]
    rate: Option<u32>,
    /// Names of the two arms (demo only)
    #[arg(long, value_name = "A,B", value_parser = two_names)]
    names: Option<[String; 2]>,
    /// The arm that serves today, if weights and names do not say it
    #[arg(long, value_name = "ARM")]
    stable: Option<String>,
    /// What the first Ctrl-C (or SIGTERM) does
    #[arg(long, value_enum, default_value_t = OnInterrupt::Suspend)]
    pub(super) on_interrupt: OnInterrupt,
    /// Drop the rollout from memory at every call and rebuild it from its
    /// journal: slower, and must make no difference
    #[arg(long)]
    pub(super) chaos_evict: bool,
    #[command(flatten)]
    pins: plugin::PinArgs,
}

/// What a strategy and the candidate are given.
#[derive(Debug, Args)]
pub struct WhatArgs {
    /// A parameter of the strategy; a list may be written 5,25,50
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Image that the candidate shall run (AWS only)
    #[arg(
        long,
        value_name = "REPOSITORY:TAG",
        conflicts_with = "task_definition"
    )]
    pub(super) image: Option<String>,
    /// Task definition that the candidate shall run (AWS only)
    #[arg(long, value_name = "FAMILY:REVISION")]
    pub(super) task_definition: Option<String>,
}

/// Watch a strategy move real requests from one version to the next
///
/// The load balancer, both versions and the users are made up, and live in this
/// process. `engine run` does the same with services of your own.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine demo             the new version is good, and promoted after a minute
  engine demo --bad       one of five requests to it fails, and it is taken back
  engine demo plugins/blue-green.wasm

Exit code: that of the rollout, so 3 with --bad.")]
pub struct DemoArgs {
    /// The strategy: a WebAssembly component, or its name in plugins.toml
    /// [default: canary.wasm of the engine]
    plugin: Option<PathBuf>,
    /// The new version fails one of five requests
    #[arg(long)]
    bad: bool,
    #[command(flatten)]
    pins: plugin::PinArgs,
}

impl RunArgs {
    /// The rollout that the flags want.
    pub(super) fn request(&self, global: &Global) -> BeginRequest {
        BeginRequest {
            target: global.target(),
            demo: false,
            plugin: self.plugin.clone(),
            set: self.what.set.clone(),
            image: self.what.image.clone(),
            task_definition: self.what.task_definition.clone(),
            demo_fault: self.demo_fault,
            rate: self.rate,
            names: self.names.clone(),
            stable: self.stable.clone(),
            pins: self.pins.clone().into(),
        }
    }
}

pub(super) async fn run(app: &App, global: &Global, args: RunArgs) -> Result<Exit> {
    let options = Options {
        chaos_evict: args.chaos_evict,
        ..Options::default()
    };
    see_to_its_end(
        app,
        global,
        &args.request(global),
        options,
        args.on_interrupt,
    )
    .await
}

pub(super) async fn demo(app: &App, global: &Global, args: DemoArgs) -> Result<Exit> {
    let request = BeginRequest {
        demo: true,
        plugin: Some(args.plugin.unwrap_or_else(|| own::usual(app))),
        demo_fault: args.bad.then_some(DemoFault {
            error_rate: 0.2,
            ..DemoFault::default()
        }),
        pins: args.pins.into(),
        ..BeginRequest::default()
    };
    see_to_its_end(
        app,
        global,
        &request,
        Options::default(),
        OnInterrupt::Suspend,
    )
    .await
}

async fn see_to_its_end(
    app: &App,
    global: &Global,
    request: &BeginRequest,
    options: Options,
    on_interrupt: OnInterrupt,
) -> Result<Exit> {
    // A process that a signal kills says nothing of what it leaves.
    let mut interruptions = watch::Interruptions::new(app.clock.clone())?;
    // Boxed, or the futures nest too deep for the compiler.
    let beginning = Box::pin(begin::begin_rollout(app, request, options));
    let ready = tokio::select! {
        ready = beginning => ready?,
        () = interruptions.next() => {
            eprintln!("interrupted before the rollout was under way; `engine list` shows whether it had begun");
            return Ok(Exit::Paused);
        }
    };
    let rollout = &ready.header.rollout;
    let title = match &ready.header.work {
        Work::Strategy(pin) => format!("{} {}", pin.name, pin.version),
        Work::Verb { .. } | Work::Undo { .. } | Work::StackChange { .. } => {
            ready.header.title().to_owned()
        }
    };
    let part = if ready.embedded {
        " (the balancer is part of this process)"
    } else {
        ""
    };
    eprintln!("rollout {rollout}: {title} on {}{part}", ready.live.address);
    watch::watch(app, global, rollout, How::Drive(options, on_interrupt)).await
}

/// Reads `blue,green`.
pub(super) fn two_names(text: &str) -> Result<[String; 2], String> {
    match text.split(',').map(str::trim).collect::<Vec<_>>()[..] {
        [a, b] if a != b && is_name(a) && is_name(b) => Ok([a.to_owned(), b.to_owned()]),
        _ => Err("write two different names of letters and digits, such as blue,green".to_owned()),
    }
}

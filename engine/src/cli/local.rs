//! `engine local`: the balancer by itself.

use std::net::SocketAddr;
use std::path::Path;

use clap::Args;

use super::Global;
use super::exit::Exit;
use crate::clock::SystemClock;
use crate::model::DemoFault;
use crate::model::address::socket;
use crate::ops::local::{self, LocalRequest};
use crate::spec::parse_fault;
use crate::view;

/// Run the local load balancer by itself, until Ctrl-C
///
/// Without a rollout file it balances two versions of the built-in demo
/// service. Other processes use it through its admin address, in the same way as
/// a load balancer on AWS. They must run as the same user: the admin API asks for
/// a key, which lies in a folder that only this user can read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine local                                    two demo versions on 127.0.0.1:8080
  engine local --demo-fault error-rate=0.2        the second one fails one request in five
  engine local --names blue,green --load 50       colours, and 50 requests a second
  engine local -f rollout.toml                    the arms of a rollout file
then, in another terminal:
  engine status
  engine set-weights 75 25
  engine run plugins/canary.wasm --local 127.0.0.1:7900")]
pub struct LocalArgs {
    /// Where users send requests [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", value_parser = socket)]
    listen: Option<SocketAddr>,
    /// Where the admin API listens [default: 127.0.0.1:7900]
    #[arg(long, value_name = "ADDRESS", value_parser = socket)]
    admin: Option<SocketAddr>,
    /// Fault of the second demo version: error-rate=0.2, latency=+300ms, or both
    #[arg(long, value_name = "FAULT", value_parser = parse_fault)]
    demo_fault: Option<DemoFault>,
    /// Names of the two demo arms
    #[arg(long, value_name = "A,B", value_parser = super::run::two_names, default_value = "stable,canary")]
    names: [String; 2],
    /// Requests per second that the balancer sends to itself
    #[arg(long, value_name = "RPS", default_value_t = 0)]
    load: u32,
    /// Keep weights and releases in this file, across restarts; what this file has
    /// counts more than the rollout file
    #[arg(long, value_name = "FILE")]
    state: Option<std::path::PathBuf>,
}

pub(super) async fn run(
    global: &Global,
    args: LocalArgs,
    state_dir: &Path,
) -> crate::ops::Result<Exit> {
    let listener = super::listener();
    let request = LocalRequest {
        file: global.file.clone(),
        listen: args.listen,
        admin: args.admin,
        demo_fault: args.demo_fault.unwrap_or_default(),
        names: args.names,
        load: args.load,
        state: args.state,
    };
    // A process that a signal kills breaks off the requests under way.
    let mut interruptions = super::watch::Interruptions::new(std::sync::Arc::new(SystemClock))?;
    let running = local::start(state_dir, request, &listener).await?;
    let (listen, admin) = (running.listen(), running.admin());
    if global.json {
        json!(view::traffic::Local { listen, admin });
    } else {
        out!(
            "balancing http://{listen} over {}; admin API on {admin}",
            running
                .arms
                .iter()
                .map(|a| format!("{} ({})", a.name, a.release.version))
                .collect::<Vec<_>>()
                .join(" and "),
        );
    }
    interruptions.next().await;
    eprintln!("stopping; requests under way are finished");
    tokio::select! {
        () = running.stop() => {}
        () = interruptions.next() => {}
    }
    Ok(Exit::Done)
}

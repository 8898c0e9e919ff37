//! `engine plugin`: make, check, test, pin, publish and sign strategies.

mod check;
mod inspect;
mod new;
mod password;
mod pins;
mod registry;
mod signing;
mod test;

use clap::{Args, Subcommand};

pub(super) use pins::PinArgs;

use super::Global;
use super::exit::Exit;
use crate::ops::app::App;

/// Make, check, test, pin, publish and sign strategies
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plugin new my-gate --lang python          a project that builds as it is
  engine plugin check my-gate.wasm                 does it fit, and does it repeat itself
  engine plugin test my-gate.wasm --scenario scenario.json
  engine plugin push my-gate.wasm oci://registry.example/rollouts/my-gate:1.0.0
  engine plugin lock                               pin what plugins.toml names")]
pub struct PluginArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    New(new::NewArgs),
    Check(check::CheckArgs),
    Inspect(inspect::InspectArgs),
    Test(test::TestArgs),
    Lock(pins::LockArgs),
    Update(pins::UpdateArgs),
    Verify(pins::VerifyArgs),
    Vendor(pins::VendorArgs),
    Pull(registry::PullArgs),
    Push(registry::PushArgs),
    Keys(signing::KeysArgs),
    Sign(signing::SignArgs),
}

pub(super) async fn plugin(
    app: &App,
    global: &Global,
    args: PluginArgs,
) -> crate::ops::Result<Exit> {
    match args.verb {
        Verb::New(args) => new::new(global, args),
        Verb::Check(args) => check::check(app, global, args).await,
        Verb::Inspect(args) => inspect::inspect(app, global, args).await,
        Verb::Test(args) => test::test(app, global, args).await,
        Verb::Lock(args) => pins::lock(app, global, args).await,
        Verb::Update(args) => pins::update(app, global, args).await,
        Verb::Verify(args) => pins::verify(app, global, args).await,
        Verb::Vendor(args) => pins::vendor(app, global, args).await,
        Verb::Pull(args) => registry::pull(app, global, args).await,
        Verb::Push(args) => registry::push(app, global, args).await,
        Verb::Keys(args) => signing::keys(app, global, args),
        Verb::Sign(args) => signing::sign(app, global, args).await,
    }
}

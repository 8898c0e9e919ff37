//! `engine run`: begin a rollout and see it to its end.

use std::path::PathBuf;
use std::sync::Arc;

use crate::ops::Context as _;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Global;
use super::exit::Exit;
use super::{plugin, watch};
use crate::journal::{FORMAT, Header, Pin, Work};
use crate::model::{Arm, DemoFault, Elsewhere, Observed, Promotion, Release, Role, Source, Way};
use crate::ops::Error;
use crate::ops::app::App;
use crate::ops::begin::{begin, busy_with, new_id_part};
use crate::rollout::Options;
use crate::rollout::roles::{arms, capacity, promotion};
use crate::spec::{Spec, TargetSpec, is_arm_name, parse_fault};
use crate::strategy::Plugin;
use crate::target::Target;
use crate::target::aws::release_of_task_definition;

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
    /// A parameter of the strategy; a list may be written 5,25,50
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Image that the candidate shall run (AWS only)
    #[arg(
        long,
        value_name = "REPOSITORY:TAG",
        conflicts_with = "task_definition"
    )]
    image: Option<String>,
    /// Task definition that the candidate shall run (AWS only)
    #[arg(long, value_name = "FAMILY:REVISION")]
    task_definition: Option<String>,
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

/// What the first Ctrl-C does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnInterrupt {
    /// Leave the traffic where it is; `engine resume` goes on.
    Suspend,
    /// Take all traffic back first.
    Rollback,
}

/// Requests per second of the demo's load.
const DEMO_RPS: u32 = 100;

/// A rollout that could begin.
pub(super) struct Ready {
    pub(super) header: Header,
    pub(super) plugin: Arc<Plugin>,
    /// Bytes of the plugin.
    bytes: Vec<u8>,
    /// The target as it is.
    pub(super) live: Observed,
    /// Whether the balancer is part of this process.
    embedded: bool,
}

pub(super) async fn run(app: &App, global: &Global, args: RunArgs) -> crate::ops::Result<Exit> {
    let ready = make_ready(app, global, &args).await?;
    let Ready { header, live, .. } = &ready;
    if live.sticky {
        eprintln!("note: clients stick to their arm here, so shares move slower than weights");
    }
    let versions: Vec<&str> = live
        .arms
        .iter()
        .map(|a| a.release.version.as_str())
        .collect();
    if header.candidate.is_none() && versions.windows(2).all(|pair| pair[0] == pair[1]) {
        eprintln!(
            "note: both arms run {} already; --image, or a [candidate] in the rollout file, puts a new version in",
            versions[0]
        );
    }
    let sha256 = ready.plugin.sha256.clone();
    app.store
        .put(&sha256, &ready.bytes, app.clock.now())
        .await?;
    let options = Options {
        chaos_evict: args.chaos_evict,
        ..Options::default()
    };
    let rollout = header.rollout.clone();
    let title = match &header.work {
        Work::Strategy(pin) => format!("{} {}", pin.name, pin.version),
        Work::Verb { .. } | Work::StackChange { .. } => header.title().to_owned(),
    };
    begin(app, options, ready.header).await?;
    if let Err(error) = app.store.sweep(app.clock.now()).await {
        eprintln!("note: old plugins could not be swept out of the store: {error}");
    }
    let part = if ready.embedded {
        " (the balancer is part of this process)"
    } else {
        ""
    };
    eprintln!("rollout {rollout}: {title} on {}{part}", ready.live.address);
    watch::drive(app, global, &rollout, options, args.on_interrupt).await
}

/// Reads, resolves and checks everything that a rollout needs; changes nothing.
pub(super) async fn make_ready(
    app: &App,
    global: &Global,
    args: &RunArgs,
) -> crate::ops::Result<Ready> {
    let id_part = new_id_part();
    let file = global.target().named()?;
    if let Some(spec) = &file {
        secrets_are_there(spec)?;
    }
    if file.is_some() {
        for (flag, given) in [
            ("--demo-fault", args.demo_fault.is_some()),
            ("--rate", args.rate.is_some()),
            ("--names", args.names.is_some()),
        ] {
            if given {
                return Err(Error::usage(format!(
                    "{flag} is for the demo that `engine run` sets up by itself; with --local, --stack or a rollout file the target is there already"
                )));
            }
        }
    }
    let folder = app.state_dir.join("embedded");
    crate::ops::private::folder(&folder)
        .with_context(|| format!("failed to make {}", folder.display()))?;
    let remembered = folder.join(format!("{id_part}.json")).display().to_string();
    let mut spec = match file {
        Some(mut spec) => {
            // So that a resumed rollout finds its balancer as it left it.
            if let TargetSpec::Embedded { state, .. } = &mut spec.target {
                *state = Some(remembered);
            }
            spec
        }
        None => Spec::demo(
            args.demo_fault.unwrap_or_default(),
            args.rate.unwrap_or(DEMO_RPS),
            args.names.clone(),
            Some(remembered),
        ),
    };
    let loaded = crate::ops::plugin::load(
        app,
        &args.pins.clone().into(),
        args.plugin.as_deref(),
        &spec,
        crate::ops::plugin::Purpose::Rollout,
    )
    .await?;
    let plugin = loaded.plugin;
    let description = plugin.describe().await?;
    let parameters =
        crate::ops::plugin::parameters(&args.set, &spec.strategy.parameters, &plugin, &description)
            .await?;
    no_credentials(&parameters)?;

    let (target, target_spec, embedded) = app.ports.start(&spec.target).await?;
    if let Some(busy) = app.store.occupant(target.identity()).await?
        && !app.store.load(&busy.rollout, 0).await?.is_empty()
        && !app.driver(Options::default()).end_dead_change(&busy).await
    {
        return Err(busy_with(app, &busy.rollout).await);
    }
    if let Some(candidate) = candidate(app, args, &spec.target).await? {
        spec.candidate = Some(candidate);
    }
    let alarms = &spec.guardrails.alarms;
    if let Some(tripped) = target.tripped(alarms, None).await? {
        return Err(Error::busy(format!(
            "no rollout begins while an alarm is on: {tripped}"
        )));
    }
    let live = target
        .observe()
        .await
        .context("failed to read the target")?;
    target.fit().await?;
    if let TargetSpec::Aws(_) = &spec.target
        && args.stable.is_none()
        && !live.naming().has_an_order()
        && !live
            .arms
            .iter()
            .any(|a| live.weights().share(&a.name) >= 100.0)
    {
        return Err(Error::usage(format!(
            "both arms have traffic and the names {} do not tell which one is stable\n\nhint: say it with --stable NAME",
            live.names().join(" and ")
        )));
    }
    let mut arms = arms(&live, args.stable.as_deref()).map_err(Error::usage)?;
    for arm in arms.iter_mut().filter(|a| a.role == Role::Candidate) {
        let running = live.arm(&arm.name).map(|a| &a.release);
        let new = spec.candidate.as_ref();
        let new = new.filter(|c| running.is_none_or(|r| !c.is(r)));
        if let Some(new) = new
            && live.weights().weight(&arm.name) > 0
        {
            return Err(Error::busy(format!(
                "{} has traffic, so it cannot be replaced by {}\n\nhint: `engine rollback` takes the traffic back first",
                arm.name, new.version
            )));
        }
        // What it will run when the strategy first sees it.
        if let Some(candidate) = &spec.candidate {
            arm.version.clone_from(&candidate.version);
        }
    }
    let promotion = promotion(&spec, &live, &arms).map_err(Error::usage)?;
    seen_by_nobody(target.as_ref(), &spec, &live, &arms, promotion).await?;
    let rollout = format!("{}-{id_part}", description.name);
    let identity = target.identity().to_owned();
    let header = Header {
        format: FORMAT,
        rollout: rollout.clone(),
        created: app.clock.now(),
        engine: env!("CARGO_PKG_VERSION").to_owned(),
        target: target_spec,
        identity,
        sample_period_ms: target.sample_period_ms(),
        baseline: live.weights(),
        stable: arms
            .iter()
            .find(|a| a.role == Role::Stable)
            .and_then(|a| live.arm(&a.name))
            .map(|a| a.release.clone()),
        candidate: spec.candidate.clone(),
        promotion,
        capacity: capacity(&live, &arms),
        arms,
        guardrails: spec.guardrails.clone(),
        probes: spec.probes.clone(),
        queries: spec.queries.clone(),
        caps: loaded.policy.caps,
        work: Work::Strategy(Pin {
            sha256: plugin.sha256.clone(),
            name: description.name.clone(),
            version: description.version.clone(),
            source: loaded.source,
            world: plugin.world.clone(),
            parameters: Value::Object(parameters),
            seed: format!("{:032x}", rand::random::<u128>()),
        }),
    };
    Ok(Ready {
        header,
        plugin,
        bytes: loaded.bytes,
        live,
        embedded,
    })
}

/// Refuses to put a release into an arm to which another route sends users,
/// whatever the route that moves gives it.
async fn seen_by_nobody(
    target: &dyn Target,
    spec: &Spec,
    live: &Observed,
    arms: &[Arm],
    promotion: Promotion,
) -> crate::ops::Result<()> {
    let elsewhere = target
        .elsewhere()
        .await
        .context("failed to read what other listeners and rules send to the arms")?;
    for arm in arms {
        let running = live.arm(&arm.name).map(|a| &a.release);
        let new = spec.candidate.as_ref();
        let replaced = match arm.role {
            Role::Candidate => new.is_some_and(|new| running.is_none_or(|r| !new.is(r))),
            Role::Stable => promotion == Promotion::Copy,
        };
        if !replaced {
            continue;
        }
        if let Some(route) = Elsewhere::seen(&elsewhere, &arm.name).next() {
            let (when, hint) = match arm.role {
                Role::Candidate => (
                    "they would get the new version at once",
                    "--test-listener ARN says that a listener is for tests alone",
                ),
                Role::Stable => (
                    "a promotion by copy would replace what they have under them",
                    "promotion = \"swap\" leaves it",
                ),
            };
            return Err(Error::busy(format!(
                "{route}: {when}\n\nhint: bring that route to the other arm first; {hint} ({})",
                route.route
            )));
        }
        for route in elsewhere
            .iter()
            .filter(|e| e.arm == arm.name && e.way == Way::Unsaid)
        {
            eprintln!(
                "note: {route}; who comes there gets the new version at once (a test listener is named with --test-listener)"
            );
        }
    }
    Ok(())
}

/// The release that a flag names for the candidate.
async fn candidate(
    app: &App,
    args: &RunArgs,
    target: &TargetSpec,
) -> crate::ops::Result<Option<Release>> {
    if args.image.is_none() && args.task_definition.is_none() {
        return Ok(None);
    }
    let TargetSpec::Aws(spec) = target else {
        return Err(Error::usage(
            "--image and --task-definition need a target on AWS, such as --stack NAME",
        ));
    };
    if let Some(image) = &args.image {
        if image.is_empty() || image.contains(char::is_whitespace) {
            return Err(Error::usage(format!(
                "--image {image:?} is no REPOSITORY:TAG"
            )));
        }
        if is_mutable(image) {
            eprintln!(
                "note: {image} can mean another image tomorrow, also between the judgement and the promotion; give a tag of its own, or a digest"
            );
        }
        return Ok(Some(Release {
            version: image.clone(),
            source: Source::Image(image.clone()),
        }));
    }
    let clients = app.ports.clients(&spec.access).await;
    let name = args.task_definition.as_deref().unwrap_or_default();
    let container = spec.container.as_deref();
    Ok(Some(
        release_of_task_definition(&clients, name, container).await?,
    ))
}

/// Whether an image's name is meant to move: no tag, or `latest`.
fn is_mutable(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Parameters go into the journal, also those of `--set`.
fn no_credentials(parameters: &serde_json::Map<String, Value>) -> crate::ops::Result<()> {
    let mut plain = Value::Object(parameters.clone());
    without_nulls(&mut plain);
    let table = toml::Table::try_from(&plain).context("failed to look through the parameters")?;
    match crate::spec::secret::in_table(&table).first() {
        Some(path) => Err(Error::usage(format!(
            "strategy.parameters.{path} has a credential in it, which would go into the journal and exports; a strategy has no use for one"
        ))),
        None => Ok(()),
    }
}

/// TOML has no word for what is not there.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(without_nulls);
        }
        _ => {}
    }
}

/// Every secret that the file names must be there before anything begins.
fn secrets_are_there(spec: &Spec) -> crate::ops::Result<()> {
    for (path, text) in spec.references() {
        crate::target::secret::fill(text, str::to_owned)
            .map_err(|e| Error::usage(format!("{path}: {e}")))?;
    }
    Ok(())
}

/// Reads `blue,green`.
pub(super) fn two_names(text: &str) -> Result<[String; 2], String> {
    match text.split(',').map(str::trim).collect::<Vec<_>>()[..] {
        [a, b] if a != b && is_arm_name(a) && is_arm_name(b) => Ok([a.to_owned(), b.to_owned()]),
        _ => Err("write two different names of letters and digits, such as blue,green".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_move_are_known() {
        for image in [
            "app",
            "app:latest",
            "r.example:5000/app",
            "r.example:5000/a/app:latest",
        ] {
            assert!(is_mutable(image), "{image}");
        }
        for image in ["app:v1", "r.example:5000/app:v1", "app@sha256:00"] {
            assert!(!is_mutable(image), "{image}");
        }
    }
}

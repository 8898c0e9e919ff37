//! `engine deploy` and `engine delete`: stacks, without ever moving traffic.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Global;
use super::app::App;
use super::exit::{Exit, Failure};
use super::run::new_id_part;
use crate::model::{Observed, Weights};
use crate::spec::aws::{Access, Find, looked_for};
use crate::store::{Claim, Lease, StoreError};
use crate::target::Target as _;
use crate::target::aws::client::Clients;
use crate::target::aws::stack::{
    self, ChangeSet, Events, Proposal, Stack, StackEvent, TEMPLATE_BYTES_MAX,
};

/// How often a stack is looked at, ms.
const POLL_MS: u64 = 2_000;
/// How long the target's lease lasts without a sign of life, ms.
const LEASE_TTL_MS: u64 = 30_000;

/// Which template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Arms stable and canary, shared by weights
    Canary,
    /// Arms blue and green, one of them active
    BlueGreen,
}

impl Kind {
    fn template(self) -> &'static str {
        match self {
            Self::Canary => include_str!("../../../examples/cloudformation/canary.yaml"),
            Self::BlueGreen => include_str!("../../../examples/cloudformation/blue-green.yaml"),
        }
    }

    fn stack(self) -> &'static str {
        match self {
            Self::Canary => "ecs-canary-demo-stack",
            Self::BlueGreen => "ecs-blue-green-demo-stack",
        }
    }
}

/// Create or update a stack; never moves live traffic
///
/// Makes a change set, shows it, executes it and follows it. On a stack that is
/// there, live weights, images and numbers of tasks are read first and passed
/// back, and every other parameter keeps its value.
#[derive(Debug, Args)]
#[command(
    after_help = "Parameters come from --parameter, then --parameters, then (new stacks) from the environment:
IMAGE_URI_STABLE, IMAGE_URI_CANARY, IMAGE_URI_BLUE, IMAGE_URI_GREEN, ACTIVE_COLOR, CONTAINER_PORT,
DESIRED_COUNT_STABLE, DESIRED_COUNT_CANARY, DESIRED_COUNT_BLUE, DESIRED_COUNT_GREEN, TASK_CPU,
TASK_MEMORY, STABLE_WEIGHT, CANARY_WEIGHT; STACK_NAME and TEMPLATE_FILE stand for their flags.

Examples:
  engine deploy canary -p ImageURIStable=app:v1 -p ImageURICanary=app:v1
  engine deploy blue-green --stack shop -p TaskCpu=512 --dry-run
  IMAGE_URI_STABLE=app:v1 IMAGE_URI_CANARY=app:v2 engine deploy canary"
)]
pub struct DeployArgs {
    /// Which template
    #[arg(value_enum)]
    kind: Kind,
    /// Template to use instead of the one in the engine
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// A parameter of the template
    #[arg(long = "parameter", short, value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// JSON or TOML file with parameters
    #[arg(long = "parameters", value_name = "FILE")]
    file_of_parameters: Option<PathBuf>,
    /// Role that CloudFormation works as
    #[arg(long, value_name = "ARN")]
    stack_role: Option<String>,
    /// Let the stack write other weights than the live ones
    #[arg(long)]
    accept_weights: bool,
    /// Show the changes and leave everything as it is
    #[arg(long)]
    dry_run: bool,
}

/// Delete a stack and wait until it is gone
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine delete --stack ecs-canary-demo-stack          asks first
  engine delete --stack ecs-canary-demo-stack --yes")]
pub struct DeleteArgs {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn deploy(app: &App, global: &Global, args: DeployArgs) -> anyhow::Result<Exit> {
    let environment = &app.surroundings.stack;
    let name = name(app, global).unwrap_or_else(|| args.kind.stack().to_owned());
    let template = template(&args, environment)?;
    let access = global.aws.access(Access::default());
    let clients = app.ports.clients(&access).await;
    let declared = stack::declared(&clients, &template).await?;
    let mut given = given(&args)?;
    if let Some(unknown) = given.keys().find(|k| !declared.contains_key(*k)) {
        let known: Vec<&str> = declared.keys().map(String::as_str).collect();
        return Err(Failure::usage(format!(
            "the template has no parameter {unknown}; it has {}",
            known.join(", ")
        )));
    }
    let before = stack::look(&clients, &name).await?;
    let before = before.filter(|s| !s.is_empty());
    refuse_unready(&name, before.as_ref())?;
    if before.is_none() {
        for (variable, value) in environment {
            let parameter = parameter_of(variable);
            if let Some(parameter) = parameter.filter(|p| declared.contains_key(*p)) {
                given
                    .entry(parameter.to_owned())
                    .or_insert_with(|| value.clone());
            }
        }
    }
    let live = match &before {
        Some(_) => live(app, &access, &name, args.accept_weights).await?,
        None => None,
    };
    let held = match &live {
        Some((identity, _)) => Some(Held::take(app, identity).await?),
        None => None,
    };
    let known = live
        .as_ref()
        .map(|(_, live)| stack::beliefs(live))
        .unwrap_or_default();
    let had = before
        .as_ref()
        .map(|s| s.parameters.clone())
        .unwrap_or_default();
    let parameters = stack::parameters(&declared, &given, &known, &had);
    missing(&declared, &parameters)?;
    let token = format!("engine-{}", new_id_part());
    let proposal = Proposal {
        stack: &name,
        template: &template,
        create: before.is_none(),
        parameters: &parameters,
        token: &token,
        role: args.stack_role.as_deref(),
    };
    let set = stack::propose(&clients, app.clock.as_ref(), proposal).await?;
    show_changes(&name, &clients, before.is_none(), &set);
    let mut done = Done {
        stack: before.clone(),
        set: &set,
        live: live.as_ref().map(|(_, live)| live.weights()),
    };
    if set.changes.is_empty() {
        done.report(global, &name, "no changes");
        release(app, held).await?;
        return Ok(Exit::Done);
    }
    let checked = match &live {
        Some((_, live)) if !args.accept_weights => keeps_traffic(live, &declared, &given, &set),
        _ => Ok(()),
    };
    if args.dry_run || checked.is_err() {
        stack::discard(&clients, &set).await?;
        if before.is_none() {
            // The change set alone has made an empty stack.
            stack::delete(&clients, &set.stack_id, &token).await?;
        }
        release(app, held).await?;
        checked?;
        done.report(global, &name, "dry run: nothing was changed");
        return Ok(Exit::Done);
    }
    let events = Events::from_now(&clients, &set.stack_id).await?;
    stack::execute(&clients, &set, &token).await?;
    let after = follow(app, &clients, &set.stack_id, events, held.as_ref()).await;
    release(app, held).await?;
    done.stack = Some(after?);
    if let Some((_, before)) = &live {
        still(app, &access, &name, &before.weights(), args.accept_weights).await?;
    }
    done.report(global, &name, "done");
    Ok(Exit::Done)
}

pub(super) async fn delete(app: &App, global: &Global, args: DeleteArgs) -> anyhow::Result<Exit> {
    let name = name(app, global).ok_or_else(|| {
        Failure::usage(
            "which stack?\n\nhint: name it with --stack, as in `engine delete --stack my-stack`",
        )
    })?;
    let access = global.aws.access(Access::default());
    let clients = app.ports.clients(&access).await;
    let Some(stack) = stack::look(&clients, &name).await? else {
        return Err(Failure::usage(format!(
            "there is no stack {name} in {}",
            clients.region
        )));
    };
    // A stack that cannot be understood can still be deleted.
    let spec = looked_for(access, of_stack(&name));
    let held = match app.ports.on_aws(&spec).await {
        Ok(target) => Some(Held::take(app, target.identity()).await?),
        Err(error) if error.retryable => return Err(error.into()),
        Err(_) => None,
    };
    if !args.yes && !asked(&name, &clients.region)? {
        release(app, held).await?;
        return Err(Failure::usage("nothing was deleted"));
    }
    let events = Events::from_now(&clients, &stack.id).await?;
    let token = format!("engine-{}", new_id_part());
    stack::delete(&clients, &name, &token).await?;
    let after = follow(app, &clients, &stack.id, events, held.as_ref()).await;
    release(app, held).await?;
    let after = after?;
    if global.json {
        out!("{}", json!({"stack": name, "status": after.status}));
    } else {
        out!("{name} is deleted");
    }
    Ok(Exit::Done)
}

/// The stack that a flag or the environment names.
fn name(app: &App, global: &Global) -> Option<String> {
    let variable = app.surroundings.stack.get("STACK_NAME");
    global.aws.stack.clone().or_else(|| variable.cloned())
}

fn of_stack(name: &str) -> Find {
    Find {
        stack: Some(name.to_owned()),
        ..Find::default()
    }
}

/// The template's parameter that a variable of the prototypes stands for.
fn parameter_of(variable: &str) -> Option<&'static str> {
    Some(match variable {
        "IMAGE_URI_STABLE" => "ImageURIStable",
        "IMAGE_URI_CANARY" => "ImageURICanary",
        "IMAGE_URI_BLUE" => "ImageURIBlue",
        "IMAGE_URI_GREEN" => "ImageURIGreen",
        "ACTIVE_COLOR" => "ActiveColor",
        "CONTAINER_PORT" => "ContainerPort",
        "DESIRED_COUNT_STABLE" => "DesiredCountStable",
        "DESIRED_COUNT_CANARY" => "DesiredCountCanary",
        "DESIRED_COUNT_BLUE" => "DesiredCountBlue",
        "DESIRED_COUNT_GREEN" => "DesiredCountGreen",
        "TASK_CPU" => "TaskCpu",
        "TASK_MEMORY" => "TaskMemory",
        "STABLE_WEIGHT" => "StableWeight",
        "CANARY_WEIGHT" => "CanaryWeight",
        _ => return None,
    })
}

fn template(args: &DeployArgs, environment: &BTreeMap<String, String>) -> anyhow::Result<String> {
    let file = args
        .template
        .clone()
        .or_else(|| environment.get("TEMPLATE_FILE").map(PathBuf::from));
    let Some(file) = file else {
        return Ok(args.kind.template().to_owned());
    };
    let text = std::fs::read_to_string(&file).map_err(|e| {
        Failure::usage(format!(
            "failed to read the template {}: {e}",
            file.display()
        ))
    })?;
    if text.len() > TEMPLATE_BYTES_MAX {
        return Err(Failure::usage(format!(
            "the template {} has {} bytes, and CloudFormation takes {TEMPLATE_BYTES_MAX} in a request",
            file.display(),
            text.len()
        )));
    }
    Ok(text)
}

/// Parameters from the flags over those from the file.
fn given(args: &DeployArgs) -> anyhow::Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    if let Some(file) = &args.file_of_parameters {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|e| Failure::usage(format!("failed to read {shown}: {e}")))?;
        let is_json = file.extension().is_some_and(|e| e == "json");
        let read: Result<BTreeMap<String, serde_json::Value>, String> = if is_json {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        } else {
            toml::from_str(&text).map_err(|e| e.to_string())
        };
        let read = read
            .map_err(|e| Failure::usage(format!("{shown} is no table of NAME and value: {e}")))?;
        for (name, value) in read {
            let text = match value {
                serde_json::Value::String(text) => text,
                serde_json::Value::Number(_) | serde_json::Value::Bool(_) => value.to_string(),
                other => {
                    return Err(Failure::usage(format!(
                        "{shown}: {name} is {other}; a parameter is a text or a number"
                    )));
                }
            };
            given.insert(name, text);
        }
    }
    for one in &args.parameters {
        let (name, value) = one.split_once('=').ok_or_else(|| {
            Failure::usage(format!(
                "--parameter {one} is not NAME=VALUE, such as --parameter TaskCpu=512"
            ))
        })?;
        given.insert(name.to_owned(), value.to_owned());
    }
    Ok(given)
}

fn refuse_unready(name: &str, stack: Option<&Stack>) -> anyhow::Result<()> {
    match stack {
        Some(stack) if stack.is_moving() => Err(Failure::busy(format!(
            "the stack {name} is {}: somebody else changes it\n\nhint: wait until that is over",
            stack.status
        ))),
        Some(stack) if stack.status == "ROLLBACK_COMPLETE" || stack.status.ends_with("_FAILED") => {
            Err(Failure::busy(format!(
                "the stack {name} is {}{}, and cannot be updated\n\nhint: `engine delete --stack {name}` clears it away",
                stack.status,
                stack
                    .reason
                    .as_ref()
                    .map_or_else(String::new, |r| format!(" ({r})"))
            )))
        }
        _ => Ok(()),
    }
}

fn missing(
    declared: &BTreeMap<String, bool>,
    passed: &BTreeMap<String, Option<String>>,
) -> anyhow::Result<()> {
    let missing: Vec<&str> = declared
        .iter()
        .filter(|(name, has_default)| !**has_default && !passed.contains_key(*name))
        .map(|(name, _)| name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the template needs {}\n\nhint: --parameter {}=VALUE",
        missing.join(", "),
        missing[0]
    )))
}

/// The target that a stack holds, as it is now; none if it holds none.
async fn live(
    app: &App,
    access: &Access,
    name: &str,
    accept: bool,
) -> anyhow::Result<Option<(String, Observed)>> {
    let spec = looked_for(access.clone(), of_stack(name));
    let read = async {
        let target = app.ports.on_aws(&spec).await?;
        Ok::<_, crate::model::HostError>((target.identity().to_owned(), target.observe().await?))
    };
    match read.await {
        Ok(live) => Ok(Some(live)),
        Err(error) if error.code == "no-listener" || accept && !error.retryable => Ok(None),
        Err(error) => Err(anyhow::Error::new(error).context(
            "the live weights cannot be read, so the stack could not be told to keep them (--accept-weights goes on without)",
        )),
    }
}

/// Refuses a change set that would write other weights than the live ones.
fn keeps_traffic(
    live: &Observed,
    declared: &BTreeMap<String, bool>,
    given: &BTreeMap<String, String>,
    set: &ChangeSet,
) -> anyhow::Result<()> {
    let known = stack::beliefs(live);
    let shares = super::render::shares(&live.weights());
    let moved = given
        .iter()
        .find(|(name, value)| stack::moves_traffic(name) && known.get(*name) != Some(*value));
    if let Some((name, value)) = moved {
        return Err(Failure::busy(format!(
            "{name}={value} would move live traffic, which is {shares} now\n\nhint: `engine set-weights` and `engine switch` move traffic safely; --accept-weights lets the stack do it"
        )));
    }
    let Some(change) = set.changes.iter().find(|c| c.rewrites_a_route()) else {
        return Ok(());
    };
    let told = declared
        .keys()
        .any(|name| stack::moves_traffic(name) && known.contains_key(name));
    if told {
        return Ok(());
    }
    let why = if declared.contains_key("ActiveColor") {
        "traffic is split, and ActiveColor can only say one colour"
    } else {
        "the template takes no weights as parameters"
    };
    Err(Failure::busy(format!(
        "the change of {} would rewrite its weights, which are {shares} now: {why}\n\nhint: bring the traffic to one arm first, or use --accept-weights",
        change.logical_id
    )))
}

fn show_changes(name: &str, clients: &Clients, create: bool, set: &ChangeSet) {
    if set.changes.is_empty() {
        return;
    }
    let verb = if create { "creates" } else { "updates" };
    eprintln!("{verb} the stack {name} in {}:", clients.region);
    for change in &set.changes {
        let sign = match change.action.as_str() {
            "Add" => "+",
            "Remove" => "-",
            _ => "~",
        };
        let replaced = match change.replacement.as_str() {
            "True" => "  (replaced)",
            "Conditional" => "  (may be replaced)",
            _ => "",
        };
        eprintln!(
            "  {sign} {:<28} {}{replaced}",
            change.logical_id, change.kind
        );
    }
}

/// Shows what happens until the operation is over.
async fn follow(
    app: &App,
    clients: &Clients,
    stack_id: &str,
    mut events: Events,
    held: Option<&Held>,
) -> anyhow::Result<Stack> {
    let mut causes: Vec<StackEvent> = vec![];
    loop {
        app.clock.sleep_until(app.clock.now() + POLL_MS).await;
        if let Some(held) = held {
            held.renew(app).await?;
        }
        let now = stack::look(clients, stack_id).await?;
        for event in events.news(clients).await? {
            // Said twice: once when it begins, once when it has an id.
            if event.is_repeated() {
                continue;
            }
            let reason = event
                .reason
                .as_ref()
                .map_or_else(String::new, |r| format!("  {r}"));
            eprintln!(
                "  {:<28} {:<44} {}{reason}",
                event.status, event.kind, event.logical_id
            );
            if event.is_cause() {
                causes.push(event);
            }
        }
        match now {
            Some(stack) if stack.is_moving() || stack.is_empty() => {}
            Some(stack) if stack.is_well() => return Ok(stack),
            Some(stack) => {
                let why = causes.first().map_or_else(
                    || stack.reason.clone().unwrap_or_default(),
                    |e| {
                        let reason = e.reason.as_deref().unwrap_or("no reason given");
                        format!("{} ({}): {reason}", e.logical_id, e.kind)
                    },
                );
                anyhow::bail!("the stack is {}: {why}", stack.status);
            }
            None => anyhow::bail!("the stack {stack_id} is gone"),
        }
    }
}

/// Says so if the traffic is elsewhere than before.
async fn still(
    app: &App,
    access: &Access,
    name: &str,
    before: &Weights,
    accepted: bool,
) -> anyhow::Result<()> {
    let spec = looked_for(access.clone(), of_stack(name));
    let now = app.ports.on_aws(&spec).await?.traffic().await?.weights;
    if now == *before || accepted {
        return Ok(());
    }
    Err(Failure::busy(format!(
        "the traffic moved during the update: it was {}, and is {}\n\nhint: `engine set-weights` brings it back",
        super::render::shares(before),
        super::render::shares(&now)
    )))
}

/// The target's lease, so that no rollout begins while its stack changes.
struct Held {
    lease: Lease,
}

impl Held {
    async fn take(app: &App, identity: &str) -> anyhow::Result<Self> {
        let rollout = format!("stack-{}", new_id_part());
        let claim = Claim {
            target: identity,
            rollout: &rollout,
            owner: &app.owner,
            now: app.clock.now(),
            ttl_ms: LEASE_TTL_MS,
            dead_epoch: None,
        };
        match app
            .driver(crate::rollout::Options::default())
            .claim_as(claim)
            .await
        {
            Ok(lease) => Ok(Self { lease }),
            Err(StoreError::Busy(busy)) => Err(Failure::busy(format!(
                "the stack's target is busy with {0}\n\nhint: `engine status {0}` shows it, `engine abort {0}` takes its traffic back",
                busy.rollout
            ))),
            Err(error) => Err(error.into()),
        }
    }

    async fn renew(&self, app: &App) -> anyhow::Result<()> {
        let expires = app.clock.now() + LEASE_TTL_MS;
        Ok(app.store.renew(&self.lease, expires).await?)
    }
}

async fn release(app: &App, held: Option<Held>) -> anyhow::Result<()> {
    if let Some(held) = held {
        app.store.release(&held.lease, false).await?;
    }
    Ok(())
}

/// Asks for the stack's name.
fn asked(name: &str, region: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "deleting a stack asks first, and nobody can answer here\n\nhint: --yes deletes without asking",
        ));
    }
    eprint!("type the stack's name to delete {name} in {region} with all its resources: ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == name)
}

/// What a deployment came to.
struct Done<'a> {
    stack: Option<Stack>,
    set: &'a ChangeSet,
    live: Option<Weights>,
}

impl Done<'_> {
    fn report(&self, global: &Global, name: &str, what: &str) {
        let status = self.stack.as_ref().map(|s| s.status.as_str());
        if global.json {
            let outputs = self.stack.as_ref().map(|s| &s.outputs);
            out!(
                "{}",
                json!({"stack": name, "status": status, "result": what,
                    "changes": self.set.changes, "outputs": outputs, "weights": self.live})
            );
            return;
        }
        out!(
            "{name}: {what}{}",
            status.map_or_else(String::new, |s| format!(" ({s})"))
        );
        if let Some(stack) = &self.stack {
            for (key, value) in &stack.outputs {
                out!("  {key:<24} {value}");
            }
        }
        if let Some(weights) = &self.live {
            out!("  traffic stays at {}", super::render::shares(weights));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_of_the_prototypes_has_a_parameter() {
        let templates = [Kind::Canary.template(), Kind::BlueGreen.template()].concat();
        for variable in crate::cli::STACK_VARIABLES {
            if let Some(parameter) = parameter_of(variable) {
                assert!(
                    templates.contains(&format!("  {parameter}:")),
                    "{parameter}"
                );
            }
        }
        for template in [Kind::Canary.template(), Kind::BlueGreen.template()] {
            assert!(template.len() < TEMPLATE_BYTES_MAX);
        }
    }
}

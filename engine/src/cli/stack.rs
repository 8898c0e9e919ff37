//! `engine deploy` and `engine delete`: stacks, without ever moving traffic.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Global;
use super::exit::Exit;
use super::render::shares;
use super::run::new_id_part;
use crate::model::{Command, HostError, Observed, Weights};
use crate::ops::Error;
use crate::ops::app::App;
use crate::rollout::Options;
use crate::spec::TargetSpec;
use crate::spec::aws::{Access, Find, looked_for};
use crate::store::{Claim, Lease, StoreError};
use crate::supply::files;
use crate::target::Target as _;
use crate::target::aws::client::Clients;
use crate::target::aws::stack::{
    self, Change, ChangeSet, Events, Proposal, Stack, StackEvent, TEMPLATE_BYTES_MAX,
};
use crate::target::aws::{AwsTarget, LiveAction};

/// How often a stack is looked at, ms.
const POLL_MS: u64 = 2_000;
/// How long the target's lease lasts without a sign of life, ms.
const LEASE_TTL_MS: u64 = 30_000;
/// Failed looks at a stack in a row before it is left unwatched.
const FAILURES_MAX: u32 = 30;
/// How the occupant of a target is called while its stack changes.
pub(super) const STACK_WORK: &str = "stack-";

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
    /// Let the stack write another action than the live one, such as one without
    /// its stickiness or its login, and take tasks from arms that serve
    #[arg(long)]
    accept: bool,
    /// Let the stack replace or remove what serves live traffic
    #[arg(long)]
    accept_replacement: bool,
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

pub(super) async fn deploy(
    app: &App,
    global: &Global,
    args: DeployArgs,
) -> crate::ops::Result<Exit> {
    let environment = &app.surroundings.stack;
    let (access, name) = place(app, global)?;
    let name = name.unwrap_or_else(|| args.kind.stack().to_owned());
    let template = template(&args, environment)?;
    let clients = app.ports.clients(&access).await;
    let declared = stack::declared(&clients, &template).await?;
    let mut given = given(&args)?;
    if let Some(unknown) = given.keys().find(|k| !declared.contains_key(*k)) {
        let known: Vec<&str> = declared.keys().map(String::as_str).collect();
        return Err(Error::usage(format!(
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
    let mut held = match &before {
        Some(_) => Held::take(app, &access, &name, args.accept_weights || args.accept).await?,
        None => None,
    };
    let work = Work {
        app,
        clients: &clients,
        args: &args,
        name: &name,
        template: &template,
        declared: &declared,
        given: &given,
        before: before.as_ref(),
    };
    let done = work.update(held.as_mut()).await;
    // Whatever became of the stack: the traffic is where people left it.
    let moved = match &mut held {
        Some(held) if !args.accept_weights => held.mend(!args.accept).await,
        _ => Ok(()),
    };
    if let Some(held) = &held {
        held.release(app).await?;
    }
    let done = done?;
    moved?;
    if let Some(held) = &mut held
        && args.accept_weights
    {
        held.weights = held.target.traffic().await?.weights;
    }
    let traffic = held.as_ref().map(|h| &h.weights);
    done.report(global, &name, traffic);
    Ok(Exit::Done)
}

/// One update of a stack.
struct Work<'a> {
    app: &'a App,
    clients: &'a Clients,
    args: &'a DeployArgs,
    name: &'a str,
    template: &'a str,
    declared: &'a BTreeMap<String, bool>,
    given: &'a BTreeMap<String, String>,
    before: Option<&'a Stack>,
}

impl Work<'_> {
    async fn update(&self, mut held: Option<&mut Held>) -> crate::ops::Result<Done> {
        let live = match &held {
            Some(held) => {
                if !self.args.accept {
                    held.target.fit().await?;
                }
                Some(held.target.observe().await?)
            }
            None => None,
        };
        let known = live.as_ref().map(stack::beliefs).unwrap_or_default();
        let had = self.before.map(|s| s.parameters.clone());
        let had = had.unwrap_or_default();
        let parameters = stack::parameters(self.declared, self.given, &known, &had);
        missing(self.declared, &parameters)?;
        let token = format!("engine-{}", new_id_part());
        let proposal = Proposal {
            stack: self.name,
            template: self.template,
            create: self.before.is_none(),
            parameters: &parameters,
            token: &token,
            role: self.args.stack_role.as_deref(),
        };
        let set = match stack::propose(self.clients, self.app.clock.as_ref(), proposal).await {
            Ok(set) => set,
            Err(error) => {
                if self.before.is_none() {
                    let _ = self.clear_away(self.name, &token).await;
                }
                return Err(error.into());
            }
        };
        show_changes(self.name, self.clients, self.before.is_none(), &set);
        let done = |stack: Option<Stack>, result| Done {
            stack,
            changes: set.changes.clone(),
            result,
        };
        if set.changes.is_empty() {
            return Ok(done(self.before.cloned(), "no changes"));
        }
        let mut checked = match &live {
            Some(live) => self.check(live, &had, &set),
            None => Ok(()),
        };
        if let (Ok(()), Some(held), Some(live)) = (&checked, &held, &live)
            && !self.args.accept
        {
            checked = self.keeps_what_serves(held, live, &set).await;
        }
        let checked = match (&checked, &mut held) {
            (Ok(()), Some(held)) if !self.args.dry_run => held.unmoved().await,
            _ => checked,
        };
        if self.args.dry_run || checked.is_err() {
            stack::discard(self.clients, &set).await?;
            if self.before.is_none() {
                self.clear_away(&set.stack_id, &token).await?;
            }
            checked?;
            return Ok(done(self.before.cloned(), "dry run: nothing was changed"));
        }
        let events = Events::from_now(self.clients, &set.stack_id).await?;
        stack::execute(self.clients, &set, &token).await?;
        let after = follow(self.app, self.clients, &set.stack_id, events, held).await?;
        Ok(done(Some(after), "done"))
    }

    /// Deletes the empty stack that a change set alone has made, and waits, so
    /// that the next command finds nothing of it.
    async fn clear_away(&self, stack: &str, token: &str) -> Result<(), HostError> {
        stack::delete(self.clients, stack, token).await?;
        for _ in 0..FAILURES_MAX {
            match stack::look(self.clients, stack).await? {
                Some(stack) if stack.is_moving() => {}
                _ => return Ok(()),
            }
            let clock = &self.app.clock;
            clock.sleep_until(clock.now() + POLL_MS).await;
        }
        Ok(())
    }

    /// Whether the change leaves the actions of listeners and rules as they are
    /// live, and the tasks to the arms that somebody is sent to.
    async fn keeps_what_serves(
        &self,
        held: &Held,
        live: &Observed,
        set: &ChangeSet,
    ) -> crate::ops::Result<()> {
        let hint = "hint: bring the template and the live action together first, or let the stack have its way with --accept";
        for change in set.changes.iter().filter(|c| c.rewrites_a_route()) {
            let target = &held.target;
            let ours = change.physical_id == target.identity();
            // Of ours the template must say what is live. Of others it may say
            // something new, but must not forget what it never knew.
            let (action, told) = if ours || change.physical_id.is_empty() {
                (target.action().await?, &change.after)
            } else {
                (target.action_of(&change.physical_id).await?, &change.before)
            };
            let weights = !ours || !self.args.accept_weights;
            let lost = match told {
                Some(told) => action.lost(told, weights),
                None if action.only_forwards() => None,
                None => Some("CloudFormation does not say what it would be".to_owned()),
            };
            if let Some(lost) = lost {
                let lost = if ours {
                    lost
                } else {
                    format!("somebody changed it outside the stack: {lost}")
                };
                return Err(Error::busy(format!(
                    "the change would rewrite the action of {}, and the template does not carry all of it: {lost}\n\n{hint}",
                    change.logical_id
                )));
            }
        }
        for (arm, known) in live.arms.iter().zip(&held.target.found().arms) {
            let service = known.service.as_ref();
            let changed = set.changes.iter().find(|c| {
                c.kind == "AWS::ECS::Service"
                    && service.is_some_and(|s| {
                        c.physical_id == s.name || c.physical_id.ends_with(&format!("/{}", s.name))
                    })
            });
            let Some(change) = changed else {
                continue;
            };
            let takes = match (change.tasks(), arm.tasks) {
                (Some(wanted), Some(has)) => wanted < u64::from(has),
                _ => false,
            };
            if takes && let Err(error) = held.target.unserved(&arm.name).await {
                return Err(Error::busy(format!(
                    "the change would take tasks from {}: it has {}, and would have {}; {error}\n\nhint: --accept goes on",
                    change.logical_id,
                    arm.tasks.unwrap_or_default(),
                    change.tasks().unwrap_or_default()
                )));
            }
        }
        Ok(())
    }

    /// Whether the change leaves the traffic alone.
    fn check(
        &self,
        live: &Observed,
        had: &BTreeMap<String, String>,
        set: &ChangeSet,
    ) -> crate::ops::Result<()> {
        if !self.args.accept_weights {
            keeps_traffic(live, self.declared, self.given, set)?;
        }
        if self.args.accept_replacement {
            return Ok(());
        }
        if let Some(change) = set.changes.iter().find(|c| c.takes_away_what_serves()) {
            return Err(Error::busy(format!(
                "the change would {} {} ({}), which serves live traffic\n\nhint: is it the right template for this stack? --accept-replacement goes on",
                if change.action == "Remove" {
                    "remove"
                } else {
                    "replace"
                },
                change.logical_id,
                change.kind
            )));
        }
        let port = self.given.get("ContainerPort");
        if port.is_some_and(|p| had.get("ContainerPort").is_some_and(|had| had != p)) {
            return Err(Error::busy(
                "another ContainerPort closes the old one before the new tasks serve\n\nhint: make a new stack, or use --accept-replacement",
            ));
        }
        Ok(())
    }
}

pub(super) async fn delete(
    app: &App,
    global: &Global,
    args: DeleteArgs,
) -> crate::ops::Result<Exit> {
    let (access, name) = place(app, global)?;
    let name = name.ok_or_else(|| {
        Error::usage(
            "which stack?\n\nhint: name it with --stack, as in `engine delete --stack my-stack`",
        )
    })?;
    let clients = app.ports.clients(&access).await;
    let Some(stack) = stack::look(&clients, &name).await? else {
        return Err(Error::usage(format!(
            "there is no stack {name} in {}",
            clients.region
        )));
    };
    // A stack that cannot be understood can still be deleted.
    let mut held = Held::take(app, &access, &name, true).await?;
    if !args.yes
        && let Err(error) = asked(&name, &clients.region)
    {
        if let Some(held) = &held {
            held.release(app).await?;
        }
        return Err(error);
    }
    let events = Events::from_now(&clients, &stack.id).await?;
    let token = format!("engine-{}", new_id_part());
    stack::delete(&clients, &name, &token).await?;
    let after = follow(app, &clients, &stack.id, events, held.as_mut()).await;
    if let Some(held) = &held {
        held.release(app).await?;
    }
    let after = after?;
    if global.json {
        out!("{}", json!({"stack": name, "status": after.status}));
    } else {
        out!("{name} is deleted");
    }
    Ok(Exit::Done)
}

/// Whose AWS, and which stack: flags, then the rollout file, then the environment.
fn place(app: &App, global: &Global) -> crate::ops::Result<(Access, Option<String>)> {
    let file = match global.target().named()?.map(|spec| spec.target) {
        Some(TargetSpec::Aws(spec)) => Some(spec),
        _ => None,
    };
    let of_file = file.as_ref().map(|f| f.access.clone()).unwrap_or_default();
    let variable = app.surroundings.stack.get("STACK_NAME").cloned();
    let named = global.target().aws.stack;
    let named = named
        .or_else(|| file.and_then(|f| f.find.stack))
        .or(variable);
    Ok((global.target().aws.access(of_file), named))
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

fn template(
    args: &DeployArgs,
    environment: &BTreeMap<String, String>,
) -> crate::ops::Result<String> {
    let file = args
        .template
        .clone()
        .or_else(|| environment.get("TEMPLATE_FILE").map(PathBuf::from));
    let Some(file) = file else {
        return Ok(args.kind.template().to_owned());
    };
    let text = files::read_text(&file, files::TEXT_BYTES_MAX).map_err(|e| {
        Error::usage(format!(
            "failed to read the template {}: {e}",
            file.display()
        ))
    })?;
    if text.len() > TEMPLATE_BYTES_MAX {
        return Err(Error::usage(format!(
            "the template {} has {} bytes, and CloudFormation takes {TEMPLATE_BYTES_MAX} in a request",
            file.display(),
            text.len()
        )));
    }
    Ok(text)
}

/// Parameters from the flags over those from the file.
fn given(args: &DeployArgs) -> crate::ops::Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    if let Some(file) = &args.file_of_parameters {
        let shown = file.display();
        let text = files::read_text(file, files::TEXT_BYTES_MAX)
            .map_err(|e| Error::usage(format!("failed to read {shown}: {e}")))?;
        let is_json = file.extension().is_some_and(|e| e == "json");
        let read: Result<BTreeMap<String, serde_json::Value>, String> = if is_json {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        } else {
            toml::from_str(&text).map_err(|e| e.to_string())
        };
        let read =
            read.map_err(|e| Error::usage(format!("{shown} is no table of NAME and value: {e}")))?;
        for (name, value) in read {
            let text = match value {
                serde_json::Value::String(text) => text,
                serde_json::Value::Number(_) | serde_json::Value::Bool(_) => value.to_string(),
                other => {
                    return Err(Error::usage(format!(
                        "{shown}: {name} is {other}; a parameter is a text or a number"
                    )));
                }
            };
            given.insert(name, text);
        }
    }
    for one in &args.parameters {
        let (name, value) = one.split_once('=').ok_or_else(|| {
            Error::usage(format!(
                "--parameter {one} is not NAME=VALUE, such as --parameter TaskCpu=512"
            ))
        })?;
        given.insert(name.to_owned(), value.to_owned());
    }
    Ok(given)
}

fn refuse_unready(name: &str, stack: Option<&Stack>) -> crate::ops::Result<()> {
    let Some(stack) = stack else {
        return Ok(());
    };
    let status = stack.status.as_str();
    let hint = match status {
        "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED" => {
            format!("`engine delete --stack {name}` clears it away; it never worked")
        }
        "UPDATE_ROLLBACK_FAILED" => format!(
            "`aws cloudformation continue-update-rollback --stack-name {name}` goes on with the way back"
        ),
        _ if status.ends_with("_FAILED") => {
            "see its events, and mend it in CloudFormation first".to_owned()
        }
        _ if stack.is_moving() => "somebody else changes it; wait until that is over".to_owned(),
        _ => return Ok(()),
    };
    let reason = stack.reason.as_ref();
    Err(Error::busy(format!(
        "the stack {name} is {status}{}, and cannot be updated\n\nhint: {hint}",
        reason.map_or_else(String::new, |r| format!(" ({r})"))
    )))
}

fn missing(
    declared: &BTreeMap<String, bool>,
    passed: &BTreeMap<String, Option<String>>,
) -> crate::ops::Result<()> {
    let missing: Vec<&str> = declared
        .iter()
        .filter(|(name, has_default)| !**has_default && !passed.contains_key(*name))
        .map(|(name, _)| name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the template needs {}\n\nhint: --parameter {}=VALUE",
        missing.join(", "),
        missing[0]
    )))
}

/// Refuses a change set that would write other weights than the live ones.
fn keeps_traffic(
    live: &Observed,
    declared: &BTreeMap<String, bool>,
    given: &BTreeMap<String, String>,
    set: &ChangeSet,
) -> crate::ops::Result<()> {
    let known = stack::beliefs(live);
    let shares = shares(&live.weights());
    let moved = given
        .iter()
        .find(|(name, value)| stack::moves_traffic(name) && known.get(*name) != Some(*value));
    if let Some((name, value)) = moved {
        return Err(Error::busy(format!(
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
    Err(Error::busy(format!(
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
    mut held: Option<&mut Held>,
) -> crate::ops::Result<Stack> {
    let mut causes: Vec<StackEvent> = vec![];
    let mut begun = false;
    let mut failures = 0;
    loop {
        app.clock.sleep_until(app.clock.now() + POLL_MS).await;
        if let Some(held) = &mut held {
            held.attend(app).await?;
        }
        let look = async {
            Ok((
                stack::look(clients, stack_id).await?,
                events.news(clients).await?,
            ))
        };
        let (now, news) = match look.await {
            Ok(seen) => seen,
            Err::<_, HostError>(error) if error.retryable && failures < FAILURES_MAX => {
                failures += 1;
                continue;
            }
            Err(error) => {
                return Err(Error::from(error)
                    .context(format!("the operation on {stack_id} goes on unwatched")));
            }
        };
        failures = 0;
        for event in news {
            begun |= event.is_of_stack();
            // Said twice: once when it begins, once when it has an id.
            if event.is_repeated() {
                continue;
            }
            let reason = event
                .reason
                .as_ref()
                .map_or_else(String::new, |r| format!("  {r}"));
            eprintln!(
                "  {:<35} {:<41} {}{reason}",
                event.status, event.kind, event.logical_id
            );
            if event.is_cause() {
                causes.push(event);
            }
        }
        match now {
            // It may still look as it did before the operation.
            Some(_) if !begun => {}
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
                return Err(Error::internal(format!(
                    "the stack is {}: {why}",
                    stack.status
                )));
            }
            None => return Err(Error::internal(format!("the stack {stack_id} is gone"))),
        }
    }
}

/// The stack's target under a lease, so that no rollout begins meanwhile.
struct Held {
    lease: Lease,
    target: Arc<AwsTarget>,
    /// Where the traffic belongs.
    weights: Weights,
    /// The whole action that says so; none once a person has moved the traffic.
    action: Option<LiveAction>,
    /// Number of the last signal.
    heard: u64,
}

impl Held {
    /// None if the stack has no target that could be found, and that is no matter.
    async fn take(
        app: &App,
        access: &Access,
        name: &str,
        accept: bool,
    ) -> crate::ops::Result<Option<Self>> {
        let spec = looked_for(access.clone(), of_stack(name));
        let target = match app.ports.find_on_aws(&spec).await {
            Ok(target) => target,
            Err(error) if error.code == "no-listener" || accept && !error.retryable => {
                return Ok(None);
            }
            Err(error) => {
                return Err(Error::from(error).context(
                    "the live weights cannot be read, so the stack could not be told to keep them (--accept-weights goes on without)",
                ));
            }
        };
        let rollout = format!("{STACK_WORK}{}", new_id_part());
        let claim = Claim {
            target: target.identity(),
            rollout: &rollout,
            owner: &app.owner,
            now: app.clock.now(),
            ttl_ms: LEASE_TTL_MS,
            dead_epoch: None,
        };
        let lease = match app.driver(Options::default()).claim_as(claim).await {
            Ok(lease) => lease,
            Err(StoreError::Busy(busy)) => return Err(super::run::busy_with(&busy.rollout)),
            Err(error) => return Err(error.into()),
        };
        // Under the lease: nobody else moves it from here on.
        let read = async { Ok((target.action().await?, target.traffic().await?)) };
        let (action, weights) = match read.await {
            Ok((action, traffic)) => (Some(action), traffic.weights),
            Err::<_, HostError>(error) => {
                app.store.release(&lease, false).await?;
                return Err(error.into());
            }
        };
        Ok(Some(Self {
            lease,
            target,
            weights,
            action,
            heard: 0,
        }))
    }

    /// Keeps the lease, and takes the traffic back if a person says so: that must
    /// not wait for a stack.
    async fn attend(&mut self, app: &App) -> crate::ops::Result<()> {
        let expires = app.clock.now() + LEASE_TTL_MS;
        app.store.renew(&self.lease, expires).await?;
        let news = app
            .store
            .signals(Some(&self.lease.rollout), self.heard)
            .await?;
        for (number, _, signal) in news {
            self.heard = number;
            if let Some(Command::TakeBack { to }) = Command::of(&signal) {
                let weights = self.weights.all_to(&to);
                self.target.set_weights(&weights).await?;
                eprintln!("  {} took the traffic to {to}", signal.actor);
                self.weights = weights;
                self.action = None;
            }
        }
        Ok(())
    }

    /// Whether the traffic is where it was when the lease was taken.
    async fn unmoved(&self) -> crate::ops::Result<()> {
        let now = self.target.traffic().await?.weights;
        if now == self.weights {
            return Ok(());
        }
        Err(Error::busy(format!(
            "somebody moved the traffic meanwhile: it was {}, and is {}",
            shares(&self.weights),
            shares(&now)
        )))
    }

    /// Brings the traffic back where it was, if the stack has moved it: a failed
    /// update returns to what the stack believed before.
    /// With `whole` also everything else of the action.
    async fn mend(&mut self, whole: bool) -> crate::ops::Result<()> {
        let before = self.action.as_ref().filter(|_| whole);
        let as_before = |now: &LiveAction| before.is_none_or(|before| now.does_as(before));
        let action = self.target.action().await;
        let now = match (action, self.target.traffic().await) {
            (Ok(action), Ok(traffic)) if traffic.weights == self.weights && as_before(&action) => {
                return Ok(());
            }
            (Ok(_), Ok(traffic)) => shares(&traffic.weights),
            (Ok(_), Err(error)) if !error.retryable && before.is_some() => error.to_string(),
            (Err(error), _) | (_, Err(error)) => {
                return Err(Error::from(error).context(format!(
                    "where the traffic is now could not be read; it was {}",
                    shares(&self.weights)
                )));
            }
        };
        match before {
            Some(before) => self.target.restore(before).await?,
            None => self.target.set_weights(&self.weights).await?,
        }
        let action = self.target.action().await?;
        let after = self.target.traffic().await?.weights;
        eprintln!(
            "note: the stack moved the traffic to {now}; it is back at {}\nnote: versions may have gone back too: see `engine status`",
            shares(&after)
        );
        if after == self.weights && as_before(&action) {
            return Ok(());
        }
        Err(Error::busy(format!(
            "the stack moved the traffic to {}, and it could not be brought back\n\nhint: `engine set-weights` does",
            shares(&after)
        )))
    }

    async fn release(&self, app: &App) -> crate::ops::Result<()> {
        Ok(app.store.release(&self.lease, false).await?)
    }
}

/// Asks for the stack's name.
fn asked(name: &str, region: &str) -> crate::ops::Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage(
            "deleting a stack asks first, and nobody can answer here\n\nhint: --yes deletes without asking",
        ));
    }
    eprint!("type the stack's name to delete {name} in {region} with all its resources: ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    if line.trim() == name {
        return Ok(());
    }
    Err(Error::usage("nothing was deleted"))
}

/// What a deployment came to.
struct Done {
    stack: Option<Stack>,
    changes: Vec<Change>,
    result: &'static str,
}

impl Done {
    fn report(&self, global: &Global, name: &str, traffic: Option<&Weights>) {
        let status = self.stack.as_ref().map(|s| s.status.as_str());
        if global.json {
            let outputs = self.stack.as_ref().map(|s| &s.outputs);
            out!(
                "{}",
                json!({"stack": name, "status": status, "result": self.result,
                    "changes": self.changes, "outputs": outputs, "weights": traffic})
            );
            return;
        }
        out!(
            "{name}: {}{}",
            self.result,
            status.map_or_else(String::new, |s| format!(" ({s})"))
        );
        if let Some(stack) = &self.stack {
            for (key, value) in &stack.outputs {
                out!("  {key:<24} {value}");
            }
        }
        if let Some(weights) = traffic {
            out!("  traffic is at {}", shares(weights));
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

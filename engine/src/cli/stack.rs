//! `engine deploy` and `engine delete`: reads their arguments, asks before a stack
//! is deleted, and shows what happens.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::{Args, ValueEnum};

use super::Global;
use super::exit::Exit;
use super::render::shares;
use super::watch::Interruptions;
use crate::ops::Error;
use crate::ops::app::App;
use crate::ops::deploy::{
    self, Deleted, DeployRequest, Deployed, Deployment, Seen, Template, Watcher,
};
use crate::view::stack as view;

/// Which of the engine's own templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Arms stable and canary, shared by weights
    Canary,
    /// Arms blue and green, one of them active
    BlueGreen,
}

impl From<Kind> for Template {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Canary => Self::Canary,
            Kind::BlueGreen => Self::BlueGreen,
        }
    }
}

/// Create or update a stack; never moves live traffic
///
/// Makes a change set, shows it, executes it and follows it. On a stack that is
/// there, live weights, images and numbers of tasks are read first and passed
/// back, and every other parameter keeps its value.
#[derive(Debug, Args)]
#[command(after_help = deploy_help())]
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

fn deploy_help() -> String {
    let variables = deploy::VARIABLES.map(|(variable, _)| variable).join(", ");
    let (stack, template) = (deploy::STACK_VARIABLE, deploy::TEMPLATE_VARIABLE);
    format!(
        "Parameters come from --parameter, then from --parameters, and those of a new stack then from
variables of the environment: {variables}. The variable {stack} stands for --stack, and {template} for --template.

Examples:
  engine deploy canary -p ImageURIStable=app:v1 -p ImageURICanary=app:v1
  engine deploy blue-green --stack shop -p TaskCpu=512 --dry-run
  IMAGE_URI_STABLE=app:v1 IMAGE_URI_CANARY=app:v2 engine deploy canary"
    )
}

impl DeployArgs {
    fn request(self, global: &Global) -> DeployRequest {
        DeployRequest {
            target: global.target(),
            kind: self.kind.into(),
            template: self.template,
            parameters: self.parameters,
            file_of_parameters: self.file_of_parameters,
            stack_role: self.stack_role,
            accept_weights: self.accept_weights,
            accept: self.accept,
            accept_replacement: self.accept_replacement,
            dry_run: self.dry_run,
        }
    }
}

pub(super) async fn deploy(
    app: &App,
    global: &Global,
    args: DeployArgs,
) -> crate::ops::Result<Exit> {
    let screen = Screen::new(app)?;
    let done = deploy::deploy(app, &args.request(global), &screen).await?;
    report(global, &done);
    if done.result == Deployment::Left {
        say_left(done.left.as_deref());
    }
    Ok(match done.result {
        Deployment::Left | Deployment::Stopped => Exit::Paused,
        _ => Exit::Done,
    })
}

/// Says what goes on, and how to follow it, to a person who leaves before
/// CloudFormation is done.
fn say_left(rollout: Option<&str>) {
    match rollout {
        Some(id) => eprintln!(
            "CloudFormation goes on, and no process watches what it does to the traffic; `engine resume {id}` does that"
        ),
        None => eprintln!("CloudFormation goes on; its events say how it ends"),
    }
}

pub(super) async fn delete(
    app: &App,
    global: &Global,
    args: DeleteArgs,
) -> crate::ops::Result<Exit> {
    let doomed = deploy::doomed(app, &global.target()).await?;
    if !args.yes {
        asked(&doomed.name, &doomed.region)?;
    }
    let screen = Screen::new(app)?;
    let after = match deploy::delete(app, &doomed, &screen).await? {
        Deleted::Gone(after) => after,
        Deleted::Stopped => {
            eprintln!(
                "stopped before CloudFormation was told anything: {} is not deleted",
                doomed.name
            );
            return Ok(Exit::Paused);
        }
        Deleted::Left(rollout) => {
            say_left(rollout.as_deref());
            return Ok(Exit::Paused);
        }
    };
    if global.json {
        json!(view::Deleted {
            stack: doomed.name,
            status: after.status,
        });
    } else {
        out!("{} is deleted", doomed.name);
    }
    Ok(Exit::Done)
}

/// The screen and the keyboard of a person who changes a stack.
struct Screen(Arc<AtomicU32>);

impl Screen {
    /// Hears Ctrl-C and SIGTERM from now on.
    fn new(app: &App) -> crate::ops::Result<Self> {
        let stops = Arc::new(AtomicU32::new(0));
        let mut interruptions = Interruptions::new(app.clock.clone())?;
        let count = stops.clone();
        tokio::spawn(async move {
            loop {
                interruptions.next().await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self(stops))
    }
}

impl Watcher for Screen {
    fn see(&self, seen: Seen<'_>) {
        show(seen);
    }

    fn stops(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shows what happens meanwhile.
fn show(seen: Seen<'_>) {
    match seen {
        Seen::Changes {
            stack,
            region,
            create,
            changes,
        } => {
            let verb = if create { "creates" } else { "updates" };
            eprintln!("{verb} the stack {stack} in {region}:");
            for change in changes {
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
        Seen::Event(event) => {
            let reason = event
                .reason
                .as_ref()
                .map_or_else(String::new, |r| format!("  {r}"));
            eprintln!(
                "  {:<35} {:<41} {}{reason}",
                event.status, event.kind, event.logical_id
            );
        }
    }
}

/// Asks for the stack's name, so that nobody deletes another one by mistake.
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
    Err(Error::usage(
        "that is not the name of the stack, so nothing was deleted",
    ))
}

fn report(global: &Global, done: &Deployed) {
    if global.json {
        json!(view::Deployed::from(done));
        return;
    }
    let (name, result) = (&done.name, done.result.words());
    let status = done.stack.as_ref().map(|s| s.status.as_str());
    out!(
        "{name}: {result}{}",
        status.map_or_else(String::new, |s| format!(" ({s})"))
    );
    if let Some(stack) = &done.stack {
        for (key, value) in &stack.outputs {
            out!("  {key:<24} {value}");
        }
    }
    if let Some(weights) = &done.weights {
        out!("  traffic is at {}", shares(weights));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::aws::stack::TEMPLATE_BYTES_MAX;

    #[test]
    fn every_variable_of_the_prototypes_has_a_parameter() {
        let templates = [Template::Canary.text(), Template::BlueGreen.text()].concat();
        for (_, parameter) in deploy::VARIABLES {
            assert!(
                templates.contains(&format!("  {parameter}:")),
                "{parameter}"
            );
        }
        for template in [Template::Canary.text(), Template::BlueGreen.text()] {
            assert!(template.len() < TEMPLATE_BYTES_MAX);
        }
    }
}

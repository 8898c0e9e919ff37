//! Whether a rollout could begin: its file, its strategy and parameters, and its target.
//! Nothing is changed, and no rollout begins.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use futures_util::future::join_all;

use super::advice::{Ask, Input};
use super::app::App;
use super::begin::{self, BeginRequest, Chosen, Prospect};
use super::error::{Error, Result};
use super::examined::{Examined, Looks};
use super::request::{RolloutFile, wrong_file};
use super::sight::{self, Sight};
use super::{permissions, plugin};
use crate::journal::Header;
use crate::model::aws::AwsSpec;
use crate::model::problem::Problem;
use crate::model::secret::redacted;
use crate::model::target::{LocalSpec, TargetSpec};
use crate::model::{Observed, Source};
use crate::simulate::rehearsal::Candidate;
use crate::spec::Spec;
use crate::target::Target as _;
use crate::target::aws::AwsTarget;
use crate::target::local::health;

/// What was found of a rollout that could begin.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The rollout file, if there is one.
    pub file: Option<PathBuf>,
    /// All that was looked at.
    pub examined: Vec<Examined>,
}

/// Checks everything that a rollout needs. What is wrong with one thing keeps nothing else
/// from being looked at, unless that needs it.
///
/// # Errors
/// Usage: the file cannot be read, or nothing names a file or a target.
pub async fn check(app: &App, request: &BeginRequest) -> Result<Checked> {
    let file = RolloutFile::open(request.target.file.as_deref())?;
    let mut examined = vec![];
    if let Some(file) = &file {
        let shown = file.path.display();
        examined.push(match file.problems.is_empty() {
            true => Examined::fine("file", format!("{shown} has no problems")),
            false => Examined::wrong("file", wrong_file(&file.path, file.problems.clone())),
        });
    }
    let path = file.as_ref().map(|file| file.path.clone());
    let problems = file.as_ref().map_or(&[][..], |file| &file.problems);
    let read = file.as_ref().and_then(|file| file.spec.clone());
    let is_file = file.is_some();
    let spec = match request.target.over(read.clone()) {
        Ok(spec) => spec,
        Err(error) => {
            examined.push(Examined::wrong("target", error));
            None
        }
    };
    if spec.is_none() && !is_file && examined.is_empty() {
        return Err(
            Error::usage("there is no rollout.toml here, and nothing else names a target")
                .ask(Ask::Init, "writes one")
                .give(Input::RolloutFile, "names another file")
                .give(Input::LoadBalancer, "names a target without one"),
        );
    }
    let mut chosen = None;
    if let Some(spec) = spec.as_ref().or(read.as_ref()) {
        if begin::may_ask(problems) {
            chosen = strategy(app, request, spec, &mut examined).await;
        } else {
            let why = "not looked at, because the file leaves open which strategy is meant, what it may do, or what its parameters are";
            examined.push(Examined::skipped("plugin", why));
        }
        let missing = begin::missing_secrets(spec);
        if !missing.is_empty() {
            let title = "the rollout file names what cannot be read:";
            let error = Error::problems(title, begin::located(request, missing));
            examined.push(Examined::wrong("credentials", error));
        }
    }
    let wrong_target = problems.iter().any(|one| one.problem.is_within("target"));
    match &spec {
        Some(spec) if !wrong_target => {
            target(app, request, (spec, chosen.as_ref()), &mut examined).await;
        }
        Some(_) => examined.push(Examined::skipped(
            "target",
            "not looked at, because the file is wrong about it",
        )),
        None => {}
    }
    Ok(Checked {
        file: path,
        examined,
    })
}

/// Looks at the strategy and its parameters, and returns it if it could run.
async fn strategy(
    app: &App,
    request: &BeginRequest,
    spec: &Spec,
    examined: &mut Vec<Examined>,
) -> Option<Chosen> {
    if request.plugin.is_none() && spec.strategy.plugin.is_none() {
        let why = "no strategy is named; a rollout names one when it begins, or strategy.plugin in the rollout file does";
        examined.push(Examined::skipped("plugin", why));
        return None;
    }
    let judged = begin::judged(app, request, spec, plugin::Purpose::Check);
    let judged = match Box::pin(judged).await {
        Ok(judged) => judged,
        Err(error) => {
            examined.push(Examined::wrong("plugin", error));
            return None;
        }
    };
    let (loaded, description) = (&judged.loaded, &judged.description);
    examined.push(Examined::fine(
        "plugin",
        format!(
            "{} {} ({}), sha256 {}",
            description.name, description.version, loaded.shown, loaded.plugin.sha256
        ),
    ));
    examined.push(match &judged.accepted {
        Ok((_, steps)) if steps.is_empty() => {
            Examined::fine("parameters", format!("{} accepts them", description.name))
        }
        Ok((_, steps)) => {
            // Shares and no number: which of them are steps, the strategy counts.
            let shares: Vec<String> = steps.iter().map(|step| step.share.to_string()).collect();
            let text = format!(
                "{} accepts them, and intends to give the candidate {} % of the traffic",
                description.name,
                shares.join(", ")
            );
            Examined::fine("parameters", text)
        }
        Err(problems) => {
            let error = plugin::not_accepted(description, problems.clone());
            Examined::wrong("parameters", error)
        }
    });
    judged.chosen().ok()
}

/// Looks at the target.
async fn target(
    app: &App,
    request: &BeginRequest,
    (spec, chosen): (&Spec, Option<&Chosen>),
    examined: &mut Vec<Examined>,
) {
    match &spec.target {
        TargetSpec::Aws(aws) => on_aws(app, request, (spec, aws, chosen), examined).await,
        TargetSpec::Local { admin } => examined.push(match app.ports.reach(&spec.target).await {
            Ok(_) => Examined::fine("target", format!("a local balancer answers at {admin}")),
            Err(_) => Examined::skipped(
                "target",
                format!("no local balancer answers at {admin} now; a rollout needs one that runs"),
            ),
        }),
        TargetSpec::Embedded { local, .. } => {
            let running = match local.admin.port() {
                0 => None,
                _ => app.ports.reach(&spec.target).await.ok(),
            };
            if let Some(running) = running {
                let text = format!("a local balancer answers at {} already", local.admin);
                examined.push(Examined::fine("target", text));
                // What its arms run may be another version than the file's.
                let health = running.health().await.unwrap_or_default();
                let ill = health.iter().filter(|arm| arm.healthy == 0);
                examined.extend(ill.map(|arm| {
                    let why = arm.health_reason.as_deref().unwrap_or("no reason is known");
                    let text = format!("{} is not healthy now: {why}", arm.arm);
                    Examined::doubtful("arms", text)
                }));
                return;
            }
            let problems = of_balancer(local, &app.surroundings.programs);
            examined.push(match problems.is_empty() {
                true => Examined::fine("target", "a local balancer can start here"),
                false => {
                    let title = "the local balancer could not start:";
                    let located = begin::located(request, problems);
                    Examined::wrong("target", Error::problems(title, located))
                }
            });
            servers(request, local, examined).await;
        }
        TargetSpec::Simulated { .. } => {}
    }
}

/// Looks at the servers that a local balancer would send users to. What the stable arm runs
/// serves them from the first moment on; what the candidate runs may still be started.
async fn servers(request: &BeginRequest, local: &LocalSpec, examined: &mut Vec<Examined>) {
    for arm in &local.arms {
        let Source::Urls(urls) = &arm.release.source else {
            continue;
        };
        let asking = urls.iter().map(|url| async move {
            let asked = health::try_out(local, url).await;
            asked.err().map(|why| format!("{}: {why}", redacted(url)))
        });
        let ill: Vec<String> = join_all(asking).await.into_iter().flatten().collect();
        if ill.is_empty() {
            let text = format!("{} answers health checks", arm.name);
            examined.push(Examined::fine("arms", text));
            continue;
        }
        let none = ill.len() == urls.len();
        examined.push(match none && arm.weight > 0 {
            true => {
                let key = format!("target.local.arms.{}.urls", arm.name);
                let problems = ill.into_iter().map(|why| Problem::new(&key, why));
                let located = begin::located(request, problems.collect());
                let title = "no server of the arm that has the traffic is healthy:";
                Examined::wrong("arms", Error::problems(title, located))
            }
            false => Examined::doubtful(
                "arms",
                format!(
                    "{}: not healthy now, and a rollout needs it to be: {}",
                    arm.name,
                    ill.join("; ")
                ),
            ),
        });
    }
}

/// Why a balancer could not start on this machine now. `programs`: the folders in which
/// programs are looked for.
fn of_balancer(local: &LocalSpec, programs: &[PathBuf]) -> Vec<Problem> {
    let mut problems = vec![];
    for (key, address) in [("listen", local.listen), ("admin", local.admin)] {
        if let Err(error) = TcpListener::bind(address) {
            problems.push(Problem::new(
                format!("target.local.{key}"),
                format!("{address} cannot be used: {error}; name another one"),
            ));
        }
    }
    let same = |a: SocketAddr, b: SocketAddr| a.port() != 0 && a == b;
    if same(local.listen, local.admin) {
        problems.push(Problem::new(
            "target.local.admin",
            "is the address of listen; name another one",
        ));
    }
    for arm in &local.arms {
        if let Source::Command(command) = &arm.release.source
            && let Some(program) = command.first()
            && !can_run(program, programs)
        {
            problems.push(Problem::new(
                format!("target.local.arms.{}.command", arm.name),
                match program.contains('/') {
                    true => format!("there is no program {program} that can be run here"),
                    false => format!(
                        "there is no program {program} in the folders of PATH; correct its name, or write its path"
                    ),
                },
            ));
        }
    }
    problems
}

/// Whether there is a program at that path, or of that name in one of the folders; if none
/// are known, a name says nothing.
fn can_run(program: &str, programs: &[PathBuf]) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let runs = |place: &Path| {
        let executable = |m: std::fs::Metadata| m.is_file() && m.permissions().mode() & 0o111 != 0;
        place.metadata().is_ok_and(executable)
    };
    match program.contains('/') {
        true => runs(Path::new(program)),
        false => programs.is_empty() || programs.iter().any(|folder| runs(&folder.join(program))),
    }
}

/// Looks at a target on AWS, by reading alone.
async fn on_aws(
    app: &App,
    request: &BeginRequest,
    (spec, aws, chosen): (&Spec, &AwsSpec, Option<&Chosen>),
    examined: &mut Vec<Examined>,
) {
    let target = match app.ports.find_on_aws(aws).await {
        Ok(target) => target,
        Err(error) => {
            examined.push(Examined::wrong("target", error));
            return;
        }
    };
    let found = target.found();
    let arms: Vec<&str> = found.arms.iter().map(|arm| arm.name.as_str()).collect();
    examined.push(Examined::fine(
        "target",
        format!(
            "{} at {} ({})",
            arms.join(" and "),
            found.address,
            found.route
        ),
    ));
    let alarms = &spec.guardrails.alarms;
    let mut looks = Looks::told_to(&|_| ());
    permissions::read_all(&target, alarms, app.clock.now(), &mut looks).await;
    examined.extend(looks.into_all());
    let occupant = app.store.occupant(target.identity()).await;
    if let Ok(Some(busy)) = occupant {
        let text = format!(
            "rollout {} has the target, so another one cannot begin now",
            busy.rollout
        );
        examined.push(Examined::skipped("beginning", text));
        return;
    }
    let pinned = AwsSpec {
        found: Some(found.clone()),
        ..aws.clone()
    };
    match Box::pin(begin::prospect(app, request, spec, (&pinned, chosen))).await {
        Ok(Prospect { hindrances, begun }) if hindrances.is_empty() => {
            let text = "a rollout could begin on the target as it is now";
            examined.push(Examined::fine("beginning", text));
            if let (Some(begun), Some(chosen)) = (begun, chosen) {
                examined.extend(evidence(app, &target, begun, chosen).await);
            }
        }
        Ok(Prospect { hindrances, .. }) => {
            let wrong = hindrances.into_iter();
            examined.extend(wrong.map(|e| Examined::wrong("beginning", e)));
        }
        // What a permission is missing for was said above.
        Err(_)
            if examined
                .iter()
                .any(|f| f.about == "permissions" && f.is_wrong()) => {}
        Err(error) => examined.push(Examined::wrong("beginning", error)),
    }
}

/// Which faults the rollout would show with the traffic that there is. Nothing is wrong where
/// that is not known.
async fn evidence(
    app: &App,
    target: &AwsTarget,
    (header, live): (Header, Observed),
    chosen: &Chosen,
) -> Option<Examined> {
    const ABOUT: &str = "evidence";
    let late = match &header.target {
        TargetSpec::Aws(spec) => spec.metrics_delay_ms,
        _ => 0,
    };
    let users = sight::users(target, &header, app.clock.now(), late).await;
    // That the metrics cannot be read was said among the permissions.
    let Some(users) = users.ok()? else {
        let text = "no traffic was seen in the last 15m, so what a rollout would show is not known";
        return Some(Examined::skipped(ABOUT, text));
    };
    let candidate = Candidate {
        header,
        live,
        strategy: chosen.loaded.plugin.clone(),
        metrics_delay_ms: late,
        users,
    };
    let sight = Sight::of(&candidate).await;
    let traffic = format!("with the traffic of the last 15m, {}", sight.traffic());
    match sight.said {
        Ok(said) if said.is_empty() => None,
        Ok(said) => {
            let text = format!("{traffic}: {}", said.join("; "));
            Some(Examined::fine(ABOUT, text))
        }
        Err(why) => {
            let text = format!("{traffic}, what a rollout would show is not known: {why}");
            Some(Examined::skipped(ABOUT, text))
        }
    }
}

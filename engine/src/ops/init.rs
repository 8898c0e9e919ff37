//! Writes a rollout file to begin with: commented, with what was found of its target, and
//! without a problem.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::advice::{Ask, Input};
use super::app::App;
use super::error::{Context as _, Error, Result};
use super::request::TargetRequest;
use crate::model::aws::{AwsSpec, Found};
use crate::model::image::ImageReference;
use crate::model::target::{ADMIN_DEFAULT, LISTEN_DEFAULT, TargetSpec};
use crate::spec::{Spec, plugins};

/// The strategy where nothing names one.
pub const STRATEGY: &str = "plugins/canary.wasm";

/// A rollout file that shall be written.
#[derive(Debug, Clone)]
pub struct InitRequest {
    /// Where it is written.
    pub file: PathBuf,
    /// Whether it may replace a file.
    pub force: bool,
    /// What it shall roll out to.
    pub place: Place,
    /// The strategy: a file, or its name in `plugins.toml`.
    pub plugin: Option<String>,
    /// The image of the new version, on AWS.
    pub image: Option<String>,
}

/// Where something shall be rolled out.
#[derive(Debug, Clone)]
pub enum Place {
    /// On AWS; it is found there.
    Aws(Box<TargetRequest>),
    /// Behind a local balancer with that admin address.
    Local(SocketAddr),
}

/// A rollout file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub file: PathBuf,
    /// The strategy that it names.
    pub plugin: String,
    /// The names of its arms.
    pub arms: Vec<String>,
}

/// Fails if the file is there and may not be replaced.
///
/// # Errors
/// Usage: it is there.
pub fn may_write(file: &Path, force: bool) -> Result<()> {
    if force || file.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(there_is_one(file))
}

fn there_is_one(file: &Path) -> Error {
    Error::usage(format!(
        "there is a file {} already, and nothing was written",
        file.display()
    ))
    .give(Input::Replace, "replaces it")
    .ask(Ask::Check, "looks at it")
}

/// Finds the target and writes the file, completely or not at all. A target on AWS is only
/// read.
///
/// # Errors
/// Usage: the file is there, or the request is wrong. Otherwise the target cannot be found,
/// or the file cannot be written.
pub async fn init(app: &App, request: &InitRequest) -> Result<Written> {
    may_write(&request.file, request.force)?;
    if let Some(image) = &request.image {
        let wrong = |why| {
            Error::argument(
                Input::Image,
                format!("{image:?} is not REPOSITORY:TAG: {why}"),
            )
        };
        ImageReference::parse(image).map_err(wrong)?;
    }
    let plugin = match &request.plugin {
        Some(plugin) => plugin.clone(),
        None => strategy_here(Path::new(plugins::FILE)),
    };
    let (text, arms) = match &request.place {
        Place::Local(_) if request.image.is_some() => {
            return Err(Error::argument(Input::Image, "needs a target on AWS"));
        }
        Place::Local(admin) => {
            let arms = vec!["stable".to_owned(), "canary".to_owned()];
            (local(*admin, &plugin), arms)
        }
        Place::Aws(target) => {
            let Some(TargetSpec::Aws(spec)) = target.over(None)?.map(|spec| spec.target) else {
                return Err(Error::usage("no target on AWS is named").name_it(Input::LoadBalancer));
            };
            let found = app.ports.find_on_aws(&spec).await?;
            let found = found.found();
            let arms = found.arms.iter().map(|arm| arm.name.clone()).collect();
            (
                on_aws(&spec, found, &plugin, request.image.as_deref()),
                arms,
            )
        }
    };
    // Whatever was found has names that a file can have, or this is a mistake of ours.
    Spec::parse(&text).context("the file would have had problems, so nothing was written")?;
    write(&request.file, &text, request.force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => there_is_one(&request.file),
        _ => Error::usage(format!(
            "failed to write {}: {error}",
            request.file.display()
        )),
    })?;
    Ok(Written {
        file: request.file.clone(),
        plugin,
        arms,
    })
}

/// Writes a file completely or not at all; one that is there only with `force`.
fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    use io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    // It has no secrets, and others may work on it too.
    let readable = std::fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.as_file().sync_all()?;
    let kept = match force {
        true => file.persist(path),
        false => file.persist_noclobber(path),
    };
    kept.map(|_| ()).map_err(|error| error.error)
}

/// The strategy that the plugins file here names: `canary` if it has one, else its first.
fn strategy_here(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let names = plugins::Plugins::parse(&text).map(|file| file.plugins);
    let names: Vec<String> = names.map(|n| n.into_keys().collect()).unwrap_or_default();
    let canary = names.iter().find(|name| *name == "canary");
    let chosen = canary.or_else(|| names.first());
    chosen.map_or_else(|| STRATEGY.to_owned(), Clone::clone)
}

const HEAD: &str = "\
# What `engine run` rolls out, and where. `engine check` looks at this file, and
# `engine schema rollout.toml` describes every key of it.
";

fn strategy(plugin: &str, bake: &str) -> String {
    let quoted = quoted(plugin);
    format!(
        "\
# The strategy: a file, or its name in plugins.toml.
[strategy]
plugin = {quoted}

# `engine plugin inspect` with the strategy lists its parameters.
[strategy.parameters]
# Shares of the requests in percent, one step after another, and the least time at each.
# steps = [5, 25, 50, 100]
# bake = \"{bake}\"

# What the engine sees to, whatever the strategy does.
[guardrails]
# A rollout that takes longer is taken back.
# deadline = \"24h\"
"
    )
}

/// A text as TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// What a comment may say of a foreign text: one line of it.
fn said(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

/// The file of a target on AWS: pure.
fn on_aws(spec: &AwsSpec, found: &Found, plugin: &str, image: Option<&str>) -> String {
    let mut text = HEAD.to_owned();
    text += "\n[target]\nkind = \"aws\"\n\n[target.aws]\n";
    let find = &spec.find;
    for (key, value, about) in [
        (
            "stack",
            &find.stack,
            "The CloudFormation stack of the load balancer and the services.",
        ),
        (
            "listener",
            &find.listener,
            "The listener whose default action shares out the requests.",
        ),
        (
            "rule",
            &find.rule,
            "The listener rule that shares out the requests.",
        ),
        ("cluster", &find.cluster, "The ECS cluster of the services."),
        ("region", &spec.access.region, "Where that is."),
        (
            "profile",
            &spec.access.profile,
            "The profile of the shared AWS configuration.",
        ),
        ("role", &spec.access.role, "The role that is assumed."),
        (
            "container",
            &spec.container,
            "The container whose image is the version.",
        ),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "# {about}\n{key} = {}", quoted(value));
        }
    }
    if !find.test_listeners.is_empty() {
        let all: Vec<String> = find.test_listeners.iter().map(|arn| quoted(arn)).collect();
        let _ = writeln!(
            text,
            "# Listeners that only tests use.\ntest-listeners = [{}]",
            all.join(", ")
        );
    }
    if find.only {
        text += "# No other route to the same two groups moves.\nonly = true\n";
    }
    let _ = writeln!(text, "#\n# Found there: {}", said(&found.address));
    for arm in &found.arms {
        let service = match &arm.service {
            Some(service) => format!("service {}/{}", service.cluster, service.name),
            None => "no ECS service".to_owned(),
        };
        let group = arm
            .target_group
            .split('/')
            .nth(1)
            .unwrap_or(&arm.target_group);
        let _ = writeln!(
            text,
            "#   {}: target group {}, {}",
            said(&arm.name),
            said(group),
            said(&service)
        );
    }
    for also in &found.also {
        let _ = writeln!(text, "#   {} moves with it", said(&also.place));
    }
    for arm in &find.arms {
        let _ = writeln!(text, "\n[target.aws.arms.{}]", arm.name);
        for (key, value) in [
            ("target-group", &arm.target_group),
            ("service", &arm.service),
        ] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {}", quoted(value));
            }
        }
    }
    text += "\n";
    text += &strategy(plugin, "5m");
    text += "# CloudWatch alarms that take the new version back when they go off.\n# alarms = [\"NAME\"]\n\n";
    text += "# The new version, where `engine run` does not name it with --image.\n";
    match image {
        Some(image) => {
            let _ = writeln!(text, "[candidate]\nimage = {}", quoted(image));
        }
        None => text += "# [candidate]\n# image = \"REPOSITORY:TAG\"\n",
    }
    text
}

/// The file of a local balancer: pure.
fn local(admin: SocketAddr, plugin: &str) -> String {
    let listen = match admin == LISTEN_DEFAULT {
        true => ADMIN_DEFAULT,
        false => LISTEN_DEFAULT,
    };
    format!(
        "{HEAD}
[target]
kind = \"local\"

# A load balancer on this machine: users come in at `listen`, and the engine gives orders at
# `admin`.
[target.local]
listen = \"{listen}\"
admin = \"{admin}\"
# Requests per second that the engine sends by itself. Remove it once there are users.
load-rps = 100

# The version that serves today. `demo` is a small server within the engine, to try this out;
# instead of it,
#   command = [\"./server\", \"--port\", \"{{port}}\"]    starts a program of yours,
#   urls = [\"http://127.0.0.1:9001\"]              is a server that runs already.
[target.local.arms.stable]
version = \"v1\"
demo = {{}}

# The new version.
[target.local.arms.canary]
version = \"v2\"
demo = {{}}

# How the engine sees that an arm is healthy.
[target.local.health]
# path = \"/healthz\"

{}",
        strategy(plugin, "10s")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::aws::{Access, Find, FindArm, FoundArm, ServiceId, looked_for};

    #[test]
    fn what_is_written_has_no_problems_and_says_the_same() {
        let arn = "arn:aws:elasticloadbalancing:eu-west-1:1:listener/app/a/1/2";
        let find = Find {
            listener: Some(arn.to_owned()),
            cluster: Some("we \"quote\"".to_owned()),
            arms: vec![FindArm {
                name: "canary".to_owned(),
                target_group: Some("app-canary-tg".to_owned()),
                service: None,
            }],
            test_listeners: vec![arn.to_owned()],
            only: true,
            ..Find::default()
        };
        let access = Access {
            region: Some("eu-west-1".to_owned()),
            ..Access::default()
        };
        let spec = looked_for(access, find);
        let found = Found {
            route: arn.to_owned(),
            load_balancer: String::new(),
            address: "http://a\nb = 1".to_owned(),
            zones: vec![],
            arms: vec![FoundArm {
                name: "canary".to_owned(),
                target_group: "arn:x:targetgroup/app-canary-tg/1".to_owned(),
                service: Some(ServiceId {
                    cluster: "c".to_owned(),
                    name: "s".to_owned(),
                }),
            }],
            test_addresses: vec![],
            test_listeners: vec![],
            place: String::new(),
            also: vec![],
            unmoved: vec![],
        };
        let text = on_aws(&spec, &found, "canary", Some("app:v2"));
        let read = Spec::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(read.target, TargetSpec::Aws(Box::new(spec.clone())));
        assert_eq!(read.strategy.plugin.as_deref(), Some("canary"));
        assert_eq!(read.candidate.map(|c| c.version).as_deref(), Some("app:v2"));
        let bare = on_aws(&spec, &found, "canary", None);
        assert_eq!(Spec::parse(&bare).expect("no problems").candidate, None);
        for admin in [ADMIN_DEFAULT, LISTEN_DEFAULT] {
            let text = local(admin, STRATEGY);
            let read = Spec::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            let TargetSpec::Embedded { local, .. } = read.target else {
                panic!("{:?}", read.target);
            };
            assert_eq!(local.admin, admin);
            assert_ne!(local.listen, admin);
        }
        insta::assert_snapshot!("a_rollout_file_for_aws", text);
        insta::assert_snapshot!("a_rollout_file_for_here", local(ADMIN_DEFAULT, STRATEGY));
    }
}

//! Writes a rollout file to begin with: commented, with what was found of its target, and
//! without a problem.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::advice::{Ask, Input};
use super::app::App;
use super::error::{Context as _, Error, Result};
use super::news::Note;
use super::plugin::{instead, own};
use super::private;
use super::request::TargetRequest;
use crate::model::image::ImageReference;
use crate::model::is_name;
use crate::model::target::TargetSpec;
use crate::spec::{Spec, draft, plugins};
use crate::supply::files;

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
    /// The strategy that it names; none if there is none here, and the file leaves it open.
    pub plugin: Option<String>,
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
        Some(plugin) if plugin.trim().is_empty() => {
            return Err(Error::usage(
                "the name of the strategy is empty, so nothing was written",
            ));
        }
        Some(plugin) => Some(plugin.clone()),
        None => strategy_here(app),
    };
    let named = plugin.as_deref();
    let (text, arms) = match &request.place {
        Place::Local(_) if request.image.is_some() => {
            return Err(Error::argument(Input::Image, "needs a target on AWS"));
        }
        Place::Local(admin) => {
            let arms = vec!["stable".to_owned(), "canary".to_owned()];
            (draft::local(*admin, named), arms)
        }
        Place::Aws(target) => {
            let Some(TargetSpec::Aws(spec)) = target.over(None)?.map(|spec| spec.target) else {
                return Err(Error::usage("no target on AWS is named").name_it(Input::LoadBalancer));
            };
            let found = app.ports.find_on_aws(&spec).await?;
            let found = found.found();
            let arms = found.arms.iter().map(|arm| arm.name.clone()).collect();
            (
                draft::on_aws(&spec, found, named, request.image.as_deref()),
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
    if let Some(plugin) = named
        && !is_name(plugin)
        && !Path::new(plugin).exists()
    {
        let advice = instead(app, Path::new(plugin)).into_iter().next();
        let note = Note::from(format!(
            "there is no file {plugin} here, and a rollout needs it"
        ));
        app.note(Note { advice, ..note });
    }
    if let Some(plugin) = named
        && request.plugin.is_none()
        && Path::new(plugin).is_absolute()
    {
        app.note(Note::from(format!(
            "the file names {plugin}, which is on this machine alone; before others use it, copy the plugin beside the file, and name the copy there"
        )));
    }
    Ok(Written {
        file: request.file.clone(),
        plugin,
        arms,
    })
}

/// Writes a file completely or not at all; one that is there only with `force`.
fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let file = private::beside(path, text.as_bytes())?;
    // It has no secrets, and others may work on it too.
    let readable = std::fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    let kept = match force {
        true => file.persist(path),
        false => file.persist_noclobber(path),
    };
    kept.map(|_| ()).map_err(|error| error.error)
}

/// The strategy where nothing names one: `canary` if the plugins file here has that name, else
/// its first, else the engine's own if it is on this machine. What is nowhere is not named.
#[must_use]
pub fn strategy_here(app: &App) -> Option<String> {
    let file = Path::new(plugins::FILE);
    let text = files::read_text(file, files::TEXT_BYTES_MAX).unwrap_or_default();
    let names = plugins::Plugins::parse(&text).map(|file| file.plugins);
    let names: Vec<String> = names.map(|n| n.into_keys().collect()).unwrap_or_default();
    let canary = names.iter().find(|name| *name == "canary");
    let chosen = canary.or_else(|| names.first()).cloned();
    chosen.or_else(|| own::find(app, own::NAMES[0]).map(|file| file.display().to_string()))
}

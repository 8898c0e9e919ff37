//! Which target is meant: by the request, else by the rollout file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::advice::Input;
use super::app::App;
use super::error::{Error, Result};
use crate::model::aws::{Access, AwsSpec, Find, FindArm, looked_for};
use crate::model::is_name;
use crate::model::problem::{Located, Problem};
use crate::model::target::TargetSpec;
use crate::spec::aws::is_group;
use crate::spec::{Spec, located};
use crate::supply::files;
use crate::target::Target as _;

/// The rollout file where none is named.
const DEFAULT_FILE: &str = "rollout.toml";

/// Which target is meant.
#[derive(Debug, Clone, Default)]
pub struct TargetRequest {
    /// The rollout file; `rollout.toml`, if that is there, when none is named.
    pub file: Option<PathBuf>,
    /// Admin address of a local balancer, instead of the file's target.
    pub local: Option<SocketAddr>,
    /// A target on AWS; it overrides what the file says.
    pub aws: AwsRequest,
}

/// A target on AWS.
#[derive(Debug, Clone, Default)]
pub struct AwsRequest {
    /// CloudFormation stack with the load balancer and the services.
    pub stack: Option<String>,
    /// ARN of the listener whose default action moves.
    pub listener: Option<String>,
    /// ARN of the listener rule that moves.
    pub rule: Option<String>,
    /// ECS cluster of the services.
    pub cluster: Option<String>,
    /// Target groups of arms, `ARM=TARGET-GROUP`.
    pub arms: Vec<String>,
    /// ARNs of listeners that only tests use.
    pub test_listeners: Vec<String>,
    /// Only the route that is named moves, and no other one to the same two groups.
    pub only: bool,
    /// Services of arms, `ARM=CLUSTER/SERVICE`.
    pub services: Vec<String>,
    /// Container whose image is the version, where a task has several.
    pub container: Option<String>,
    /// AWS region.
    pub region: Option<String>,
    /// Profile of the shared AWS configuration.
    pub profile: Option<String>,
    /// ARN of the role to assume.
    pub role: Option<String>,
}

impl AwsRequest {
    /// The account and region of the flags, over those of a file.
    pub fn access(&self, file: Access) -> Access {
        Access {
            region: self.region.clone().or(file.region),
            profile: self.profile.clone().or(file.profile),
            role: self.role.clone().or(file.role),
        }
    }

    /// Whether it names a load balancer on AWS.
    #[must_use]
    pub fn names_a_target(&self) -> bool {
        self.stack.is_some() || self.listener.is_some() || self.rule.is_some()
    }

    fn refines_a_target(&self) -> bool {
        self.cluster.is_some()
            || !self.services.is_empty()
            || !self.arms.is_empty()
            || !self.test_listeners.is_empty()
            || self.only
            || self.container.is_some()
    }

    /// The target of the flags, over that of a file.
    fn over(&self, mut spec: AwsSpec) -> Result<AwsSpec> {
        spec.access = self.access(spec.access);
        for (input, given, part) in [
            (Input::Listener, &self.listener, ":listener/"),
            (Input::Rule, &self.rule, ":listener-rule/"),
        ] {
            if let Some(arn) = given.as_ref().filter(|arn| !arn.contains(part)) {
                let what = part.trim_matches([':', '/']);
                let why = format!("{arn} is not the ARN of a {what}, which contains {part}");
                return Err(Error::argument(input, why));
            }
        }
        if self.names_a_target() {
            spec.find.stack.clone_from(&self.stack);
            spec.find.listener.clone_from(&self.listener);
            spec.find.rule.clone_from(&self.rule);
        }
        spec.container = self.container.clone().or(spec.container);
        spec.find.cluster = self.cluster.clone().or(spec.find.cluster);
        for given in &self.arms {
            let (arm, group) = given
                .split_once('=')
                .filter(|(arm, group)| is_name(arm) && is_group(group))
                .ok_or_else(|| {
                    Error::argument(
                        Input::Arm,
                        format!("{given} is not ARM=TARGET-GROUP with the name or ARN of a target group, such as canary=app-canary-tg"),
                    )
                })?;
            arm_of(&mut spec.find, arm).target_group = Some(group.to_owned());
        }
        for given in &self.services {
            let (arm, service) = given.split_once('=').ok_or_else(|| {
                Error::argument(
                    Input::Service,
                    format!("{given} is not ARM=CLUSTER/SERVICE, such as canary=prod/app-canary"),
                )
            })?;
            arm_of(&mut spec.find, arm).service = Some(service.to_owned());
        }
        let arms: Vec<&str> = spec.find.arms.iter().map(|a| a.name.as_str()).collect();
        if arms.len() > 2 {
            return Err(Error::usage(format!(
                "a target has two arms, and {} are named: {}",
                arms.len(),
                arms.join(", ")
            ))
            .give(Input::PartOfArm, "names an arm, as target.aws.arms does"));
        }
        if let Some(arn) = self
            .test_listeners
            .iter()
            .find(|l| !l.contains(":listener/"))
        {
            let why = format!("{arn} is not the ARN of a listener, which contains :listener/");
            return Err(Error::argument(Input::TestListener, why));
        }
        spec.find.test_listeners.extend(self.test_listeners.clone());
        spec.find.only |= self.only;
        Ok(spec)
    }
}

impl TargetRequest {
    /// Where the rollout file is, by its whole path; `None` if there is none, or one that is
    /// no path in words.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        let file = self.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        let whole = std::fs::canonicalize(file).ok()?;
        Some(whole.to_str()?.to_owned())
    }

    /// The rollout file as people know it, whether it is there or not.
    pub(super) fn shown_path(&self) -> String {
        let file = self.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        file.display().to_string()
    }

    /// Whether flags name the target themselves, whatever the rollout file says.
    #[must_use]
    pub fn names_a_target(&self) -> bool {
        self.local.is_some() || self.aws.names_a_target()
    }

    /// Identity of the target that a flag names; `None` if no flag does.
    pub async fn identity(&self, app: &App) -> Result<Option<String>> {
        if let Some(admin) = self.local {
            return Ok(Some(crate::target::local::identity(admin)));
        }
        if !self.aws.names_a_target() {
            return Ok(None);
        }
        match self.named()?.map(|spec| spec.target) {
            Some(TargetSpec::Aws(spec)) => {
                if let Some(route) = spec.find.route() {
                    // A rollout of several routes is known by one of them.
                    let busy = app.store.occupant(route).await?;
                    let header = match busy {
                        Some(busy) => app.store.header(&busy.rollout).await.unwrap_or_default(),
                        None => None,
                    };
                    return Ok(Some(header.map_or(route.to_owned(), |h| h.identity)));
                }
                let target = app.ports.way_back_on_aws(&spec).await?;
                Ok(Some(target.identity().to_owned()))
            }
            _ => Ok(None),
        }
    }

    /// The spec of the flags and the rollout file; `None` if neither names a target. A
    /// `rollout.toml` that only happens to lie in the folder is passed over where flags name a
    /// target on AWS and it has a local one, or cannot be read: the way back must not hang on
    /// the folder from which it is called.
    ///
    /// # Errors
    /// Usage, if the file that counts is wrong.
    pub fn named(&self) -> Result<Option<Spec>> {
        let file = self.target_of_file();
        let by_chance = self.file.is_none() && self.aws.names_a_target();
        let is_on_aws = |spec: &Spec| matches!(spec.target, TargetSpec::Aws(_));
        match file {
            // The address is all that counts.
            Err(_) if by_chance || self.local.is_some() => self.over(None),
            Ok(file) if by_chance => self.over(file.filter(is_on_aws)),
            file => self.over(file?),
        }
    }

    /// The rollout file, if it is there and says which target is meant: what else is wrong
    /// with it must not keep the traffic where it is.
    fn target_of_file(&self) -> Result<Option<Spec>> {
        let Some(file) = RolloutFile::open(self.file.as_deref())? else {
            return Ok(None);
        };
        if let Some(spec) = file.spec.clone().filter(|_| file.names_its_target()) {
            return Ok(Some(spec));
        }
        let without = "names the target without a rollout file";
        file.into_spec()
            .map(Some)
            .map_err(|error| error.give(Input::Target, without))
    }

    /// What is wrong with the rollout file besides the target that it names, and so was not
    /// read; none if nothing is, or if the file does not count.
    #[must_use]
    pub fn not_read(&self) -> Option<String> {
        if self.local.is_some() {
            return None;
        }
        let file = RolloutFile::open(self.file.as_deref()).ok()??;
        if file.problems.is_empty() || file.spec.is_none() || !file.names_its_target() {
            return None;
        }
        let wrong: Vec<String> = file.problems.iter().map(|p| format!("  {p}")).collect();
        Some(format!(
            "{} has problems, so only its [target] was read:\n{}",
            file.path.display(),
            wrong.join("\n")
        ))
    }

    /// The same for a rollout that begins, for which all that the file says counts.
    ///
    /// # Errors
    /// Usage, if the file is wrong or is about another target.
    pub fn described(&self) -> Result<Option<Spec>> {
        self.over(read_spec(self.file.as_deref())?)
    }

    /// The spec of the flags over that of a file; `None` if neither names a target.
    pub fn over(&self, file: Option<Spec>) -> Result<Option<Spec>> {
        let aws = &self.aws;
        if let Some(admin) = self.local {
            let mut spec = file.unwrap_or_else(Spec::bare);
            spec.target = TargetSpec::Local { admin };
            return Ok(Some(spec));
        }
        match file {
            Some(mut spec) => {
                if let TargetSpec::Aws(target) = spec.target {
                    spec.target = TargetSpec::Aws(Box::new(aws.over(*target)?));
                    return Ok(Some(spec));
                }
                if aws.names_a_target() || aws.refines_a_target() {
                    return Err(Error::usage(
                        "the rollout file has a local target, and the request names one on AWS",
                    )
                    .give(Input::RolloutFile, "names another rollout file"));
                }
                Ok(Some(spec))
            }
            None if aws.names_a_target() => {
                let target = aws.over(looked_for(Access::default(), Find::default()))?;
                Ok(Some(Spec::on_aws(target)))
            }
            None if aws.refines_a_target() => {
                Err(Error::usage("no load balancer is named").name_it(Input::LoadBalancer))
            }
            None => Ok(None),
        }
    }
}

/// What was said of the arm of that name; added if nothing was.
fn arm_of<'a>(find: &'a mut Find, name: &str) -> &'a mut FindArm {
    let known = find.arms.iter().position(|a| a.name == name);
    let index = known.unwrap_or_else(|| {
        find.arms.push(FindArm {
            name: name.to_owned(),
            ..FindArm::default()
        });
        find.arms.len() - 1
    });
    &mut find.arms[index]
}

/// A rollout file as it stands on the disk, right or wrong.
#[derive(Debug, Clone)]
pub struct RolloutFile {
    /// Its path, as a person has named it.
    pub path: PathBuf,
    text: String,
    /// What could be read of it; `None` if it is not TOML.
    pub spec: Option<Spec>,
    /// All that is wrong with it.
    pub problems: Vec<Located>,
}

impl RolloutFile {
    /// Reads the file that is named, or `rollout.toml` if something has that name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(file: Option<&Path>) -> Result<Option<Self>> {
        let default = Path::new(DEFAULT_FILE);
        let path = match file {
            Some(path) => path,
            None if files::is_there(default) => default,
            None => return Ok(None),
        };
        let text = files::read_text(path, files::TEXT_BYTES_MAX)
            .map_err(|e| Error::usage(format!("failed to read {}: {e}", path.display())))?;
        let (spec, problems) = match Spec::read(&text) {
            Ok((spec, problems)) => (Some(spec), problems),
            Err(problems) => (None, problems),
        };
        Ok(Some(Self {
            problems: problems.located_in(&path.display().to_string()),
            path: path.to_owned(),
            text,
            spec,
        }))
    }

    /// Whether nothing is wrong with what says which target is meant.
    fn names_its_target(&self) -> bool {
        let of_target = |path: &str| {
            let rest = path.strip_prefix("target");
            path.is_empty() || rest.is_some_and(|r| r.is_empty() || r.starts_with('.'))
        };
        !self.problems.iter().any(|p| of_target(&p.problem.path))
    }

    /// What it says.
    ///
    /// # Errors
    /// All its problems.
    pub fn into_spec(self) -> Result<Spec> {
        match self.spec {
            Some(spec) if self.problems.is_empty() => Ok(spec),
            _ => Err(wrong_file(&self.path, self.problems)),
        }
    }

    /// The same problems, each with its place in this file if it is one of a key in it.
    #[must_use]
    pub fn locate(&self, problems: Vec<Problem>) -> Vec<Located> {
        let shown = self.path.display().to_string();
        located(&self.text, problems).located_in(&shown)
    }
}

/// The error of a file with these problems.
pub(super) fn wrong_file(path: &Path, problems: Vec<Located>) -> Error {
    let many = if problems.len() == 1 {
        "a problem"
    } else {
        "problems"
    };
    Error::problems(format!("{} has {many}:", path.display()), problems)
}

/// Reads the rollout file that a flag names, or `rollout.toml` if it exists.
pub fn read_spec(file: Option<&Path>) -> Result<Option<Spec>> {
    let file = RolloutFile::open(file)?;
    file.map(RolloutFile::into_spec).transpose()
}

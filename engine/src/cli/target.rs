//! Which target is meant: flags, then the rollout file.

use clap::Args;

use super::Global;
use super::app::{App, read_spec};
use super::exit::Failure;
use crate::spec::aws::{Access, AwsSpec, Find, FindArm, looked_for};
use crate::spec::{Spec, TargetSpec, is_arm_name};
use crate::target::Target as _;

/// A target on AWS, by flags.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = "Target on AWS (instead of the file's)")]
pub struct AwsArgs {
    /// CloudFormation stack with the load balancer and the services
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["local", "listener", "rule"])]
    pub(super) stack: Option<String>,
    /// Listener whose default action forwards to both arms, and moves
    #[arg(long, global = true, value_name = "ARN", conflicts_with_all = ["local", "rule"])]
    listener: Option<String>,
    /// Listener rule that forwards to both arms, and moves
    #[arg(long, global = true, value_name = "ARN", conflicts_with = "local")]
    rule: Option<String>,
    /// ECS cluster of the services
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
    /// Target group of an arm, if names do not tell which is which
    #[arg(long = "arm", global = true, value_name = "ARM=TARGET-GROUP")]
    arms: Vec<String>,
    /// Listener by which only tests come, no users
    #[arg(long = "test-listener", global = true, value_name = "ARN")]
    test_listeners: Vec<String>,
    /// ECS service of an arm, if it is not found
    #[arg(long = "service", global = true, value_name = "ARM=CLUSTER/SERVICE")]
    services: Vec<String>,
    /// AWS region [default: as for the AWS CLI, else us-east-1]
    #[arg(long, global = true, value_name = "REGION")]
    pub(super) region: Option<String>,
    /// Profile of the shared AWS configuration
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) profile: Option<String>,
    /// Role to assume
    #[arg(long, global = true, value_name = "ARN")]
    pub(super) role: Option<String>,
}

impl AwsArgs {
    /// Whose AWS the flags mean, over what a file says.
    pub(super) fn access(&self, file: Access) -> Access {
        Access {
            region: self.region.clone().or(file.region),
            profile: self.profile.clone().or(file.profile),
            role: self.role.clone().or(file.role),
        }
    }

    fn names_a_target(&self) -> bool {
        self.stack.is_some() || self.listener.is_some() || self.rule.is_some()
    }

    fn refines_a_target(&self) -> bool {
        self.cluster.is_some()
            || !self.services.is_empty()
            || !self.arms.is_empty()
            || !self.test_listeners.is_empty()
    }

    /// The target that the flags mean, over what a file says.
    fn over(&self, mut spec: AwsSpec) -> anyhow::Result<AwsSpec> {
        spec.access = self.access(spec.access);
        for (flag, given, part) in [
            ("--listener", &self.listener, ":listener/"),
            ("--rule", &self.rule, ":listener-rule/"),
        ] {
            if let Some(arn) = given.as_ref().filter(|arn| !arn.contains(part)) {
                return Err(Failure::usage(format!(
                    "{flag} {arn} is no ARN of a {}; it has {part} in it",
                    part.trim_matches([':', '/'])
                )));
            }
        }
        if self.names_a_target() {
            spec.find.stack.clone_from(&self.stack);
            spec.find.listener.clone_from(&self.listener);
            spec.find.rule.clone_from(&self.rule);
        }
        spec.find.cluster = self.cluster.clone().or(spec.find.cluster);
        for given in &self.arms {
            let (arm, group) = given
                .split_once('=')
                .filter(|(arm, group)| is_arm_name(arm) && !group.is_empty())
                .ok_or_else(|| {
                    Failure::usage(format!(
                        "--arm {given} is not ARM=TARGET-GROUP, such as --arm canary=app-canary-tg"
                    ))
                })?;
            arm_of(&mut spec.find, arm).target_group = Some(group.to_owned());
        }
        for given in &self.services {
            let (arm, service) = given.split_once('=').ok_or_else(|| {
                Failure::usage(format!(
                    "--service {given} is not ARM=CLUSTER/SERVICE, such as --service canary=prod/app-canary"
                ))
            })?;
            arm_of(&mut spec.find, arm).service = Some(service.to_owned());
        }
        let arms: Vec<&str> = spec.find.arms.iter().map(|a| a.name.as_str()).collect();
        if arms.len() > 2 {
            return Err(Failure::usage(format!(
                "a target has two arms, and {} are named: {}\n\nhint: see --arm, --service and target.aws.arms",
                arms.len(),
                arms.join(", ")
            )));
        }
        if let Some(arn) = self
            .test_listeners
            .iter()
            .find(|l| !l.contains(":listener/"))
        {
            return Err(Failure::usage(format!(
                "--test-listener {arn} is no ARN of a listener; it has :listener/ in it"
            )));
        }
        spec.find.test_listeners.extend(self.test_listeners.clone());
        Ok(spec)
    }
}

/// What is known of the arm of that name; made if nothing is.
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

/// Identity of the target that a flag names; none if no flag does.
pub(super) async fn identity(app: &App, global: &Global) -> anyhow::Result<Option<String>> {
    if let Some(admin) = global.local {
        return Ok(Some(crate::target::local::identity(admin)));
    }
    if !global.aws.names_a_target() {
        return Ok(None);
    }
    match named(global)?.map(|spec| spec.target) {
        Some(TargetSpec::Aws(spec)) => {
            if let Some(route) = spec.find.route() {
                return Ok(Some(route.to_owned()));
            }
            let target = app.ports.way_back_on_aws(&spec).await?;
            Ok(Some(target.identity().to_owned()))
        }
        _ => Ok(None),
    }
}

/// What the flags and the rollout file say; none if neither names a target.
pub(super) fn named(global: &Global) -> anyhow::Result<Option<Spec>> {
    let file = read_spec(global.file.as_deref())?;
    let aws = &global.aws;
    if let Some(admin) = global.local {
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
                return Err(Failure::usage(
                    "the rollout file has a local target, and the flags name one on AWS\n\nhint: --file names another rollout file",
                ));
            }
            Ok(Some(spec))
        }
        None if aws.names_a_target() => {
            let target = aws.over(looked_for(Access::default(), Find::default()))?;
            Ok(Some(Spec::on_aws(target)))
        }
        None if aws.refines_a_target() => Err(Failure::usage(
            "which load balancer?\n\nhint: name it with --stack, --listener or --rule",
        )),
        None => Ok(None),
    }
}

//! Flags that say which target is meant.

use clap::Args;

use super::Global;
use crate::ops::request::{AwsRequest, TargetRequest};

/// A target on AWS, by flags.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = "Target on AWS (instead of the file's)")]
pub struct AwsArgs {
    /// CloudFormation stack with the load balancer and the services
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["local", "listener", "rule"])]
    stack: Option<String>,
    /// Listener whose default action shares out the requests
    #[arg(long, global = true, value_name = "ARN", conflicts_with_all = ["local", "rule"])]
    listener: Option<String>,
    /// Listener rule that shares out the requests
    #[arg(long, global = true, value_name = "ARN", conflicts_with = "local")]
    rule: Option<String>,
    /// Move the route that is named alone, and no other one to the same two groups
    #[arg(long, global = true)]
    only: bool,
    /// ECS cluster of the services
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
    /// Target group of an arm, if names do not say which it is
    #[arg(long = "arm", global = true, value_name = "ARM=TARGET-GROUP")]
    arms: Vec<String>,
    /// Test listener: only tests use it, and no users
    #[arg(long = "test-listener", global = true, value_name = "ARN")]
    test_listeners: Vec<String>,
    /// ECS service of an arm, if the engine does not find it
    #[arg(long = "service", global = true, value_name = "ARM=CLUSTER/SERVICE")]
    services: Vec<String>,
    /// Container whose image is the version, where a task has several
    #[arg(long, global = true, value_name = "NAME")]
    container: Option<String>,
    /// AWS region [default: as for the AWS CLI, else us-east-1]
    #[arg(long, global = true, value_name = "REGION")]
    region: Option<String>,
    /// Profile of the shared AWS configuration
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// IAM role to assume
    #[arg(long, global = true, value_name = "ARN")]
    role: Option<String>,
}

impl Global {
    /// The target that the flags name.
    pub(super) fn target(&self) -> TargetRequest {
        let aws = self.aws.clone();
        TargetRequest {
            file: self.file.clone(),
            local: self.local,
            aws: AwsRequest {
                stack: aws.stack,
                listener: aws.listener,
                rule: aws.rule,
                cluster: aws.cluster,
                arms: aws.arms,
                test_listeners: aws.test_listeners,
                only: aws.only,
                services: aws.services,
                container: aws.container,
                region: aws.region,
                profile: aws.profile,
                role: aws.role,
            },
        }
    }
}

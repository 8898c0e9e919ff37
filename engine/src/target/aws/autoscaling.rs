//! Application Auto Scaling: what it may do with the numbers of tasks.

use aws_sdk_applicationautoscaling::types::{
    ScalableDimension, ScalableTarget, ServiceNamespace, SuspendedState,
};

use super::AwsTarget;
use super::calls::Api;
use super::client::Clients;
use crate::model::aws::{FoundArm, ServiceId, region_of};
use crate::model::{ArmScaling, HostError, Scaling};

/// The name that auto scaling has for a service.
fn resource(id: &ServiceId) -> String {
    // A cluster may be known by its ARN.
    let cluster = id.cluster.rsplit('/').next().unwrap_or(&id.cluster);
    format!("service/{cluster}/{}", id.name)
}

/// The arms whose services it scales.
pub(super) async fn read(
    clients: &Clients,
    arms: &[FoundArm],
) -> Result<Vec<ArmScaling>, HostError> {
    let named = arms
        .iter()
        .filter_map(|arm| Some((arm, resource(arm.service.as_ref()?))));
    let named: Vec<(&FoundArm, String)> = named.collect();
    if named.is_empty() {
        return Ok(vec![]);
    }
    let names: Vec<String> = named.iter().map(|(_, name)| name.clone()).collect();
    let call = clients
        .autoscaling
        .describe_scalable_targets()
        .service_namespace(ServiceNamespace::Ecs)
        .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
        .set_resource_ids(Some(names.clone()));
    let answer = clients
        .ask(Api::DescribeScalableTargets, &names.join(", "), call.send())
        .await?;
    let targets = answer.scalable_targets.unwrap_or_default();
    let found = named.into_iter().filter_map(|(arm, name)| {
        let target = targets.iter().find(|t| t.resource_id() == name)?;
        Some(ArmScaling {
            arm: arm.name.clone(),
            scaling: scaling(target),
        })
    });
    Ok(found.collect())
}

fn scaling(target: &ScalableTarget) -> Scaling {
    let state = target.suspended_state();
    let is = |part: fn(&SuspendedState) -> Option<bool>| state.and_then(part).unwrap_or(false);
    Scaling {
        min: u32::try_from(target.min_capacity()).unwrap_or(0),
        max: u32::try_from(target.max_capacity()).unwrap_or(0),
        in_suspended: is(SuspendedState::dynamic_scaling_in_suspended),
        out_suspended: is(SuspendedState::dynamic_scaling_out_suspended),
        scheduled_suspended: is(SuspendedState::scheduled_scaling_suspended),
    }
}

/// Sets all that it may do with a service. Its policies, schedules and role stay as they are.
pub(super) async fn write(
    clients: &Clients,
    id: &ServiceId,
    scaling: &Scaling,
) -> Result<(), HostError> {
    let whole = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let suspended = SuspendedState::builder()
        .dynamic_scaling_in_suspended(scaling.in_suspended)
        .dynamic_scaling_out_suspended(scaling.out_suspended)
        .scheduled_scaling_suspended(scaling.scheduled_suspended)
        .build();
    let name = resource(id);
    let call = clients
        .autoscaling
        .register_scalable_target()
        .service_namespace(ServiceNamespace::Ecs)
        .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
        .resource_id(&name)
        .min_capacity(whole(scaling.min))
        .max_capacity(whole(scaling.max))
        .suspended_state(suspended);
    clients
        .ask(Api::RegisterScalableTarget, &name, call.send())
        .await
        .map(drop)
}

impl AwsTarget {
    /// The command of AWS's own command line with which a person tells auto scaling what it
    /// may do with an arm: fewest and most tasks, and whether it takes any away; without
    /// them, only that it may.
    #[must_use]
    pub fn scaling_command(&self, arm: &str, scaling: Option<&Scaling>) -> String {
        let found = self.found();
        let service = found.arm(arm).and_then(|arm| arm.service.as_ref());
        let name = service.map_or_else(|| "service/CLUSTER/SERVICE".to_owned(), resource);
        let region = region_of(&found.route);
        let region = region.map_or_else(String::new, |region| format!(" --region {region}"));
        let limits = scaling.map_or_else(String::new, |s| {
            format!("--min-capacity {} --max-capacity {} ", s.min, s.max)
        });
        let suspended = scaling.is_some_and(|s| s.in_suspended);
        format!(
            "aws application-autoscaling register-scalable-target{region} --service-namespace ecs --scalable-dimension ecs:service:DesiredCount --resource-id {name} {limits}--suspended-state DynamicScalingInSuspended={suspended}"
        )
    }
}

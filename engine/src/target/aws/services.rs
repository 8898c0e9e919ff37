//! ECS: the two services, their deployments, revisions and tasks.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_ecs::types::{
    Deployment as EcsDeployment, DeploymentControllerType, DeploymentRolloutState,
    DeploymentStrategy, DesiredStatus, Service, SortOrder, Task, TaskDefinitionField,
    TaskDefinitionStatus,
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;

use super::calls::Api;
use super::client::{Clients, incomplete};
use super::definition::Definition;
use crate::model::aws::{Found, FoundArm, ServiceId};
use crate::model::{Deployment, ErrorKind, HostError, Images, Millis};

/// How many of the newest revisions are compared with the wanted one.
const REVISIONS_MAX: i32 = 5;
/// How many pages of 100 tasks of a service are read: ECS allows 5,000 tasks.
const TASK_PAGES_MAX: u32 = 50;
/// The same of stopped tasks, which are asked for at every look: the way back shares the pace
/// of calls.
const STOPPED_PAGES_MAX: u32 = 5;

/// A service that belongs to an arm.
pub(super) fn service_of(arm: &FoundArm) -> Result<&ServiceId, HostError> {
    arm.service.as_ref().ok_or_else(|| {
        HostError::new(
            ErrorKind::Invalid,
            "no-service",
            format!(
                "no ECS service is known for {}\n\nhint: name it with --service {}=CLUSTER/SERVICE or target.aws.arms.{}.service",
                arm.name, arm.name, arm.name
            ),
        )
    })
}

/// The services of these ids, in their order.
pub(super) async fn describe(
    clients: &Clients,
    ids: &[&ServiceId],
) -> Result<Vec<Service>, HostError> {
    let found = present(clients, ids).await?;
    let mut services = vec![];
    for (id, service) in ids.iter().zip(found) {
        services.push(service.ok_or_else(|| {
            HostError::new(
                ErrorKind::NotFound,
                "no-such-service",
                format!(
                    "there is no ECS service {} in cluster {}",
                    id.name, id.cluster
                ),
            )
        })?);
    }
    Ok(services)
}

/// Those of the services that exist, in the order of their ids.
pub(super) async fn present(
    clients: &Clients,
    ids: &[&ServiceId],
) -> Result<Vec<Option<Service>>, HostError> {
    let mut found: Vec<(&str, Service)> = vec![];
    let mut clusters: Vec<&str> = ids.iter().map(|id| id.cluster.as_str()).collect();
    clusters.sort_unstable();
    clusters.dedup();
    for cluster in clusters {
        let names: Vec<String> = ids
            .iter()
            .filter(|id| id.cluster == cluster)
            .map(|id| id.name.clone())
            .collect();
        let call = clients
            .ecs
            .describe_services()
            .cluster(cluster)
            .set_services(Some(names.clone()));
        let answer = clients
            .ask(Api::DescribeServices, &names.join(", "), call.send())
            .await?;
        let services = answer.services.unwrap_or_default().into_iter();
        found.extend(services.map(|service| (cluster, service)));
    }
    let of = |id: &&ServiceId| {
        let mut all = found.iter();
        let service = all.find(|(cluster, s)| {
            *cluster == id.cluster
                && s.service_name() == Some(&id.name)
                && s.status() != Some("INACTIVE")
        });
        service.map(|(_, service)| service.clone())
    };
    Ok(ids.iter().map(of).collect())
}

/// Refuses a service whose traffic ECS or CodeDeploy moves by itself.
fn refuse_foreign_strategy(service: &Service) -> Result<(), HostError> {
    let name = service.service_name().unwrap_or_default();
    let strategy = service
        .deployment_configuration()
        .and_then(|c| c.strategy());
    let by = match (
        strategy,
        service.deployment_controller().map(|c| c.r#type()),
    ) {
        (Some(strategy), _) if *strategy != DeploymentStrategy::Rolling => {
            format!("its deployment strategy is {strategy}")
        }
        (_, Some(controller)) if *controller != DeploymentControllerType::Ecs => {
            format!("its deployment controller is {controller}")
        }
        _ => return Ok(()),
    };
    Err(HostError::new(
        ErrorKind::Denied,
        "shifts-by-itself",
        format!(
            "the service {name} moves traffic by itself ({by}), which would conflict with the rollout\n\nhint: set its deployment strategy to ROLLING to roll it out with engine"
        ),
    ))
}

/// Checks that the services of two arms may be changed: they differ, each
/// registers its tasks in the group of its own arm and no other, and nothing
/// else moves their traffic.
pub(super) fn fit(found: &Found, services: &[Option<Service>]) -> Result<(), HostError> {
    let arms = found.arms.iter().zip(services);
    let arms: Vec<(&FoundArm, &ServiceId, &Service)> = arms
        .filter_map(|(arm, service)| Some((arm, arm.service.as_ref()?, service.as_ref()?)))
        .collect();
    // A service that moves traffic by itself may show no group at all.
    for (_, _, service) in &arms {
        refuse_foreign_strategy(service)?;
    }
    let refuse =
        |code: &str, message: String| Err(HostError::new(ErrorKind::Denied, code, message));
    let same = |a: &Service, b: &Service| {
        a.service_arn() == b.service_arn()
            && (a.service_arn().is_some() || a.service_name() == b.service_name())
    };
    if let [(one, id, a), (other, other_id, b)] = arms[..]
        && (id == other_id || same(a, b))
    {
        return refuse(
            "one-service",
            format!(
                "the service {} is behind both arms, {} and {}, so a new version in it would serve all users at once\n\nhint: each arm needs a service of its own; --service ARM=CLUSTER/SERVICE names it",
                id.name, one.name, other.name
            ),
        );
    }
    for (arm, id, service) in &arms {
        let groups: Vec<&str> = service
            .load_balancers()
            .iter()
            .filter_map(|l| l.target_group_arn())
            .collect();
        let mut others = found.arms.iter().filter(|a| a.name != arm.name);
        if let Some(other) = others.find(|a| groups.contains(&a.target_group.as_str())) {
            return refuse(
                "in-the-other-group",
                format!(
                    "the service {} belongs to {}, but registers its tasks in the group of {} ({}), so a new version in it would serve the users of both\n\nhint: each service must register its tasks in the group of its own arm alone; --service ARM=CLUSTER/SERVICE says which is which",
                    id.name, arm.name, other.name, other.target_group
                ),
            );
        }
        if !groups.contains(&arm.target_group.as_str()) {
            return refuse(
                "in-another-group",
                format!(
                    "the service {} belongs to {}, but does not register its tasks in the group of {} ({}); {}\n\nhint: --service ARM=CLUSTER/SERVICE names another one",
                    id.name,
                    arm.name,
                    arm.name,
                    arm.target_group,
                    if groups.is_empty() {
                        "it is behind no load balancer".to_owned()
                    } else {
                        format!("it registers them in {}", groups.join(", "))
                    }
                ),
            );
        }
    }
    Ok(())
}

/// The state of a service's deployment, from one description of the service.
pub(super) fn deployment(service: &Service) -> Deployment {
    let deployments = service.deployments();
    let Some(primary) = deployments.iter().find(|d| d.status() == Some("PRIMARY")) else {
        return Deployment::Steady;
    };
    let reason = primary.rollout_state_reason().unwrap_or_default();
    if primary.rollout_state() == Some(&DeploymentRolloutState::Failed) {
        return Deployment::Failed(reason.to_owned());
    }
    // The circuit breaker is restoring the old revision.
    let under_way = primary.rollout_state() == Some(&DeploymentRolloutState::InProgress);
    if under_way && reason.contains("rolling back") {
        let failed = deployments
            .iter()
            .find(|d| d.rollout_state() == Some(&DeploymentRolloutState::Failed))
            .and_then(EcsDeployment::rollout_state_reason);
        return Deployment::Failed(failed.unwrap_or(reason).to_owned());
    }
    let (running, desired) = (service.running_count(), service.desired_count());
    let done = primary
        .rollout_state()
        .is_none_or(|s| *s == DeploymentRolloutState::Completed);
    if done && deployments.len() == 1 && running == desired {
        return Deployment::Steady;
    }
    let failed = match primary.failed_tasks() {
        0 => String::new(),
        n => format!(", {n} failed to start"),
    };
    Deployment::Moving(format!(
        "{} of {desired} tasks of its deployment run{failed}",
        primary.running_count()
    ))
}

/// Since when a service shall run what it runs: the begin of its present deployment, Unix ms.
pub(super) fn deployed_at(service: &Service) -> Option<Millis> {
    let mut deployments = service.deployments().iter();
    let primary = deployments.find(|d| d.status() == Some("PRIMARY"))?;
    u64::try_from(primary.created_at()?.to_millis().ok()?).ok()
}

/// Why tasks of a service did not stay: the newest event of ECS and the reason
/// of a stopped task.
pub(super) async fn why_failed(clients: &Clients, id: &ServiceId, service: &Service) -> String {
    let mut why = vec![];
    if let Ok(Some(stopped)) = stopped_reason(clients, id).await {
        why.push(stopped);
    }
    let event = service.events().iter().find_map(|e| e.message());
    why.extend(event.map(ToOwned::to_owned));
    why.join("; ")
}

/// A page of the tasks of a service that want that status, at most so many, and where the
/// next one begins.
async fn tasks(
    clients: &Clients,
    id: &ServiceId,
    status: DesiredStatus,
    (most, from): (i32, Option<String>),
) -> Result<(Vec<Task>, Option<String>), HostError> {
    let list = clients
        .ecs
        .list_tasks()
        .cluster(&id.cluster)
        .service_name(&id.name)
        .desired_status(status)
        .max_results(most)
        .set_next_token(from);
    let listed = clients.ask(Api::ListTasks, &id.name, list.send()).await?;
    let arns = listed.task_arns.unwrap_or_default();
    if arns.is_empty() {
        return Ok((vec![], None));
    }
    let describe = clients
        .ecs
        .describe_tasks()
        .cluster(&id.cluster)
        .set_tasks(Some(arns));
    let described = clients.ask(Api::DescribeTasks, &id.name, describe.send());
    let tasks = described.await?.tasks.unwrap_or_default();
    Ok((tasks, listed.next_token))
}

/// All tasks of a service that want that status; of stopped ones some hundreds at most.
pub(super) async fn all_tasks(
    clients: &Clients,
    id: &ServiceId,
    status: DesiredStatus,
) -> Result<Vec<Task>, HostError> {
    let (mut all, mut from) = (vec![], None);
    let pages = match status {
        DesiredStatus::Stopped => STOPPED_PAGES_MAX,
        _ => TASK_PAGES_MAX,
    };
    for _ in 0..pages {
        let (page, next) = tasks(clients, id, status.clone(), (100, from)).await?;
        all.extend(page);
        from = next;
        if from.is_none() {
            break;
        }
    }
    Ok(all)
}

async fn stopped_reason(clients: &Clients, id: &ServiceId) -> Result<Option<String>, HostError> {
    let (tasks, _) = tasks(clients, id, DesiredStatus::Stopped, (10, None)).await?;
    let newest = tasks
        .iter()
        .max_by_key(|t| t.stopped_at().map(|at| at.secs()));
    Ok(newest.and_then(|task| {
        let of_container = task.containers().iter().find_map(|c| c.reason());
        task.stopped_reason()
            .or(of_container)
            .map(|why| format!("a task stopped: {why}"))
    }))
}

/// Digests of the images from which the running tasks of a service were started: those of
/// the container that is the version.
pub(super) async fn digests(
    clients: &Clients,
    id: &ServiceId,
    container: Option<&str>,
) -> Result<Images, HostError> {
    let mut found = Images::default();
    for task in all_tasks(clients, id, DesiredStatus::Running).await? {
        let all = task.containers();
        let own = match all {
            [only] => Some(only),
            _ => all.iter().find(|c| c.name() == container),
        };
        match own.and_then(|c| c.image_digest()) {
            Some(digest) => found.digests.push(digest.to_owned()),
            // One that is still starting serves nobody, and has perhaps no image yet.
            None if task.last_status() == Some("RUNNING") => found.silent += 1,
            None => {}
        }
    }
    found.digests.sort();
    found.digests.dedup();
    Ok(found)
}

/// The body of an answer, for what must be kept as ECS wrote it.
#[derive(Debug, Clone, Default)]
struct Body(Arc<Mutex<Vec<u8>>>);

#[dyn_dispatch_hint]
impl Intercept for Body {
    fn name(&self) -> &'static str {
        "Body"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let bytes = context.response().body().bytes().unwrap_or_default();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
        Ok(())
    }
}

/// A task definition by ARN or `FAMILY:REVISION`.
pub(super) async fn task_definition(
    clients: &Clients,
    name: &str,
) -> Result<Definition, HostError> {
    let body = Body::default();
    let call = clients
        .ecs
        .describe_task_definition()
        .task_definition(name)
        .include(TaskDefinitionField::Tags)
        .customize()
        .interceptor(body.clone());
    clients
        .ask(Api::DescribeTaskDefinition, name, call.send())
        .await?;
    let bytes = body.0.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = serde_json::from_slice(&bytes).ok();
    answer
        .and_then(|answer| Definition::of_answer(&answer))
        .ok_or_else(|| incomplete(Api::DescribeTaskDefinition, "task definition"))
}

/// ARN of a revision with the content of `wanted`: `base` itself, one of the newest of
/// its family, or a new one. `RegisterTaskDefinition` takes no idempotency token, so a
/// second try must find what the first one registered.
pub(super) async fn revision(
    clients: &Clients,
    base: &Definition,
    wanted: &Definition,
) -> Result<String, HostError> {
    if base.is_active() && wanted.says_the_same(base) {
        return Ok(base.arn().to_owned());
    }
    let family = base.family();
    let list = clients
        .ecs
        .list_task_definitions()
        .family_prefix(family)
        .status(TaskDefinitionStatus::Active)
        .sort(SortOrder::Desc)
        .max_results(REVISIONS_MAX);
    let newest = clients
        .ask(Api::ListTaskDefinitions, family, list.send())
        .await?;
    for name in newest.task_definition_arns.unwrap_or_default() {
        let old = task_definition(clients, &name).await?;
        // ECS also lists families that only begin with this name.
        if old.family() == family && old.says_the_same(wanted) {
            return Ok(old.arn().to_owned());
        }
    }
    register(clients, wanted).await
}

async fn register(clients: &Clients, wanted: &Definition) -> Result<String, HostError> {
    let body = wanted.registration().to_string();
    // What is sent is the JSON of ECS itself, because the types of this SDK know only
    // the fields of its day.
    let call = clients
        .ecs
        .register_task_definition()
        .family(wanted.family())
        .set_container_definitions(Some(vec![]))
        .customize()
        .mutate_request(move |request| {
            let length = body.len().to_string();
            request.headers_mut().insert("content-length", length);
            *request.body_mut() = SdkBody::from(body.as_str());
        });
    let answer = clients
        .ask(Api::RegisterTaskDefinition, wanted.family(), call.send())
        .await?;
    let arn = answer.task_definition.and_then(|d| d.task_definition_arn);
    arn.ok_or_else(|| incomplete(Api::RegisterTaskDefinition, "ARN"))
}

/// The changes to make in a service.
#[derive(Debug, Default)]
pub(super) struct Update {
    /// The new task definition.
    pub(super) task_definition: Option<String>,
    /// The new number of tasks.
    pub(super) tasks: Option<i32>,
    /// Whether to deploy although the task definition stays the same.
    pub(super) again: bool,
}

/// Changes a service.
pub(super) async fn update(
    clients: &Clients,
    id: &ServiceId,
    update: Update,
) -> Result<(), HostError> {
    let call = clients
        .ecs
        .update_service()
        .cluster(&id.cluster)
        .service(&id.name)
        .set_task_definition(update.task_definition)
        .set_desired_count(update.tasks)
        .set_force_new_deployment(update.again.then_some(true));
    clients
        .ask(Api::UpdateService, &id.name, call.send())
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ecs::types::{DeploymentConfiguration, DeploymentController};

    fn deploys(
        status: &str,
        state: DeploymentRolloutState,
        reason: &str,
        running: i32,
    ) -> EcsDeployment {
        EcsDeployment::builder()
            .status(status)
            .rollout_state(state)
            .rollout_state_reason(reason)
            .running_count(running)
            .desired_count(2)
            .build()
    }

    fn service(deployments: Vec<EcsDeployment>, running: i32) -> Service {
        Service::builder()
            .service_name("app")
            .desired_count(2)
            .running_count(running)
            .set_deployments(Some(deployments))
            .build()
    }

    #[test]
    fn a_deployment_is_steady_moving_or_failed() {
        use DeploymentRolloutState::{Completed, Failed, InProgress};
        let one = |state, reason, running| {
            deployment(&service(
                vec![deploys("PRIMARY", state, reason, running)],
                running,
            ))
        };
        assert_eq!(one(Completed, "done", 2), Deployment::Steady);
        assert!(matches!(one(Completed, "done", 1), Deployment::Moving(_)));
        assert!(matches!(one(InProgress, "", 2), Deployment::Moving(_)));
        assert_eq!(
            one(Failed, "tasks failed to start", 0),
            Deployment::Failed("tasks failed to start".to_owned())
        );
        let back = service(
            vec![
                deploys(
                    "PRIMARY",
                    InProgress,
                    "circuit breaker: rolling back to x",
                    2,
                ),
                deploys("ACTIVE", Failed, "tasks failed to start", 0),
            ],
            2,
        );
        assert_eq!(
            deployment(&back),
            Deployment::Failed("tasks failed to start".to_owned())
        );
        let draining = service(
            vec![
                deploys("PRIMARY", Completed, "done", 2),
                deploys("ACTIVE", Completed, "old", 1),
            ],
            2,
        );
        assert!(matches!(deployment(&draining), Deployment::Moving(_)));
    }

    #[test]
    fn each_service_belongs_to_its_own_arm() {
        use aws_sdk_ecs::types::LoadBalancer;
        let behind = |name: &str, groups: &[&str]| {
            let mut one = service(vec![], 2);
            one.service_name = Some(name.to_owned());
            let groups = groups
                .iter()
                .map(|g| LoadBalancer::builder().target_group_arn(*g).build());
            one.load_balancers = Some(groups.collect());
            Some(one)
        };
        let arm = |name: &str, service: &str| FoundArm {
            name: name.to_owned(),
            target_group: format!("g/{name}"),
            service: Some(ServiceId {
                cluster: "c".to_owned(),
                name: service.to_owned(),
            }),
        };
        let found = |a: &str, b: &str| Found {
            route: String::new(),
            load_balancer: String::new(),
            address: String::new(),
            zones: vec![],
            arms: vec![arm("stable", a), arm("canary", b)],
            test_addresses: vec![],
            test_listeners: vec![],
            ..Found::default()
        };
        let (a, b) = (
            behind("a", &["g/stable"]),
            behind("b", &["g/canary", "g/x"]),
        );
        let code = |found: &Found, services: [&Option<Service>; 2]| {
            fit(found, &services.map(Clone::clone)).map_err(|e| e.code)
        };
        let two = found("a", "b");
        assert_eq!(code(&two, [&a, &b]), Ok(()));
        assert_eq!(code(&two, [&a, &None]), Ok(()), "an arm without a service");
        let says = |code: &str| Err(code.to_owned());
        assert_eq!(code(&found("a", "a"), [&a, &a]), says("one-service"));
        assert_eq!(code(&two, [&b, &a]), says("in-the-other-group"));
        let both = behind("b", &["g/canary", "g/stable"]);
        assert_eq!(code(&two, [&a, &both]), says("in-the-other-group"));
        let elsewhere = behind("b", &["g/x"]);
        assert_eq!(code(&two, [&a, &elsewhere]), says("in-another-group"));
        let nowhere = behind("b", &[]);
        assert_eq!(code(&two, [&a, &nowhere]), says("in-another-group"));
    }

    #[test]
    fn who_shifts_by_himself_is_refused() {
        let mut one = service(vec![], 2);
        assert!(refuse_foreign_strategy(&one).is_ok());
        let strategy = |s| DeploymentConfiguration::builder().strategy(s).build();
        one.deployment_configuration = Some(strategy(DeploymentStrategy::Rolling));
        assert!(refuse_foreign_strategy(&one).is_ok());
        for other in [
            DeploymentStrategy::BlueGreen,
            DeploymentStrategy::Canary,
            DeploymentStrategy::Linear,
        ] {
            one.deployment_configuration = Some(strategy(other));
            let error = refuse_foreign_strategy(&one).expect_err("refused");
            assert_eq!(error.kind, ErrorKind::Denied);
        }
        one.deployment_configuration = None;
        one.deployment_controller = DeploymentController::builder()
            .r#type(DeploymentControllerType::CodeDeploy)
            .build()
            .ok();
        assert!(refuse_foreign_strategy(&one).is_err());
    }
}

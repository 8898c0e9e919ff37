"""ECS: clusters, task definitions and services over the wire (JSON 1.1). The rollout itself is in rollout.py."""

import time

from . import rollout
from .common import ACCOUNT, ApiError, paginate

# Members that UpdateService takes over as they are. Changing one of the second
# list starts a new deployment, as on AWS.
SETTINGS = (
    "deploymentConfiguration", "healthCheckGracePeriodSeconds", "enableExecuteCommand", "propagateTags", "enableECSManagedTags",
)
REDEPLOYS = (
    "networkConfiguration", "platformVersion", "loadBalancers", "serviceRegistries", "capacityProviderStrategy",
    "serviceConnectConfiguration", "volumeConfigurations", "vpcLatticeConfigurations",
)


class Region:
    """Everything ECS knows in one region."""

    def __init__(self, name):
        self.name = name
        self.clusters = {}
        self.services = {}  # (cluster name, service name) -> rollout.Service
        self.families = {}  # family -> [task definition, ...], revision 1 first

    def arn(self, kind, tail):
        return f"arn:aws:ecs:{self.name}:{ACCOUNT}:{kind}/{tail}"


regions = {}


def region(name):
    if name not in regions:
        regions[name] = Region(name)
    return regions[name]


def reset():
    regions.clear()
    rollout.pushed.clear()


def tail(name_or_arn):
    return name_or_arn.rsplit("/", 1)[-1]


def handle(region_name, operation, request):
    handler = OPERATIONS.get(operation)
    if handler is None:
        raise ApiError("UnsupportedFeatureException", f"The emulator has no ECS operation {operation}")
    return handler(region(region_name), request)


# Clusters


def find_cluster(here, name):
    cluster = here.clusters.get(tail(name or "default"))
    if cluster is None or cluster["status"] != "ACTIVE":
        raise ApiError("ClusterNotFoundException", "Cluster not found.")
    return cluster


def create_cluster(here, request):
    name = request.get("clusterName") or "default"
    cluster = here.clusters.get(name)
    if cluster is None or cluster["status"] != "ACTIVE":
        cluster = here.clusters[name] = {
            "clusterArn": here.arn("cluster", name),
            "clusterName": name,
            "status": "ACTIVE",
            "settings": request.get("settings", []),
            "capacityProviders": request.get("capacityProviders", []),
            "defaultCapacityProviderStrategy": request.get("defaultCapacityProviderStrategy", []),
            "tags": request.get("tags", []),
        }
    return {"cluster": cluster_view(here, cluster)}


def cluster_view(here, cluster):
    services = [service for (name, _), service in here.services.items() if name == cluster["clusterName"]]
    active = [service for service in services if service.status == "ACTIVE"]
    return {
        **cluster,
        "registeredContainerInstancesCount": 0,
        "runningTasksCount": sum(len(service.running()) for service in active),
        "pendingTasksCount": 0,
        "activeServicesCount": len(active),
        "statistics": [],
    }


def describe_clusters(here, request):
    found, failures = [], []
    for name in request.get("clusters") or ["default"]:
        cluster = here.clusters.get(tail(name))
        if cluster:
            found.append(cluster_view(here, cluster))
        else:
            failures.append({"arn": here.arn("cluster", tail(name)), "reason": "MISSING"})
    return {"clusters": found, "failures": failures}


def list_clusters(here, request):
    arns = [c["clusterArn"] for c in here.clusters.values() if c["status"] == "ACTIVE"]
    page, token = paginate(arns, request.get("nextToken"), request.get("maxResults"))
    return {"clusterArns": page, **({"nextToken": token} if token else {})}


def delete_cluster(here, request):
    cluster = find_cluster(here, request["cluster"])
    if cluster_view(here, cluster)["activeServicesCount"]:
        raise ApiError("ClusterContainsServicesException", "The Cluster cannot be deleted while Services are active.")
    cluster["status"] = "INACTIVE"
    return {"cluster": cluster_view(here, cluster)}


# Task definitions


def find_task_definition(here, name):
    """By ARN, `family:revision` or `family` (its newest active revision)."""
    family, _, revision = tail(name).partition(":")
    revisions = here.families.get(family, [])
    if revision:
        found = [d for d in revisions if str(d["revision"]) == revision]
    else:
        found = [d for d in revisions if d["status"] == "ACTIVE"][-1:]
    if not found:
        raise ApiError("ClientException", "Unable to describe task definition.")
    return found[0]


def register_task_definition(here, request):
    family = request.get("family")
    if not family or not request.get("containerDefinitions"):
        raise ApiError("ClientException", "Family and container definitions must be given.")
    revisions = here.families.setdefault(family, [])
    revision = len(revisions) + 1
    containers = [
        {"cpu": 0, "portMappings": [], "essential": True, "environment": [], "mountPoints": [], "volumesFrom": [], **c}
        for c in request["containerDefinitions"]
    ]
    for container in containers:
        container["portMappings"] = [
            {"hostPort": m.get("containerPort"), "protocol": "tcp", **m} for m in container["portMappings"]
        ]
    required = request.get("requiresCompatibilities")
    definition = {
        "volumes": [],
        "placementConstraints": [],
        **request,
        "containerDefinitions": containers,
        "taskDefinitionArn": here.arn("task-definition", f"{family}:{revision}"),
        "revision": revision,
        "status": "ACTIVE",
        "compatibilities": ["EC2", "FARGATE"] if required and "FARGATE" in required else ["EC2"],
        "registeredAt": time.time(),
        "registeredBy": f"arn:aws:iam::{ACCOUNT}:user/emulator",
    }
    revisions.append(definition)
    tags = definition.pop("tags", [])
    definition["_tags"] = tags
    return {"taskDefinition": definition_view(definition), "tags": tags}


def definition_view(definition):
    return {key: value for key, value in definition.items() if not key.startswith("_")}


def describe_task_definition(here, request):
    definition = find_task_definition(here, request["taskDefinition"])
    answer = {"taskDefinition": definition_view(definition)}
    if "TAGS" in request.get("include", []):
        answer["tags"] = definition["_tags"]
    return answer


def list_task_definitions(here, request):
    prefix, status = request.get("familyPrefix"), request.get("status", "ACTIVE")
    arns = [
        definition["taskDefinitionArn"]
        for family in sorted(here.families)
        # familyPrefix is the whole family name in this call, despite its name.
        if prefix in (None, family)
        for definition in here.families[family]
        if definition["status"] == status
    ]
    if request.get("sort") == "DESC":
        arns.reverse()
    page, token = paginate(arns, request.get("nextToken"), request.get("maxResults"))
    return {"taskDefinitionArns": page, **({"nextToken": token} if token else {})}


def list_task_definition_families(here, request):
    names = [f for f in sorted(here.families) if f.startswith(request.get("familyPrefix", ""))]
    return {"families": names}


def deregister_task_definition(here, request):
    definition = find_task_definition(here, request["taskDefinition"])
    definition["status"] = "INACTIVE"
    definition["deregisteredAt"] = time.time()
    return {"taskDefinition": definition_view(definition)}


# Services


def find_service(here, request, name):
    cluster = find_cluster(here, request.get("cluster"))
    return here.services.get((cluster["clusterName"], tail(name)))


def active_service(here, request):
    service = find_service(here, request, request["service"])
    if service is None:
        raise ApiError("ServiceNotFoundException", "Service not found.")
    if service.status != "ACTIVE":
        raise ApiError("ServiceNotActiveException", "Service was not ACTIVE.")
    return service


def usable_definition(here, name):
    definition = find_task_definition(here, name)
    if definition["status"] != "ACTIVE":
        raise ApiError("ClientException", "TaskDefinition is inactive")
    return definition


def create_service(here, request):
    cluster = find_cluster(here, request.get("cluster"))
    key = (cluster["clusterName"], request["serviceName"])
    if key in here.services and here.services[key].status == "ACTIVE":
        raise ApiError("InvalidParameterException", "Creation of service was not idempotent.")
    definition = usable_definition(here, request["taskDefinition"])
    check_capacity(cluster, request)
    service = rollout.Service(here, cluster, request, definition)
    here.services[key] = service
    return {"service": service.view()}


def check_capacity(cluster, request):
    strategy = request.get("capacityProviderStrategy") or []
    if strategy and request.get("launchType"):
        raise ApiError(
            "InvalidParameterException",
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
        )
    if any(entry["capacityProvider"] not in cluster["capacityProviders"] for entry in strategy):
        raise ApiError(
            "InvalidParameterException",
            "The capacity provider strategy cannot contain a capacity provider that is not associated with the cluster.",
        )


def update_service(here, request):
    service = active_service(here, request)
    check_capacity(find_cluster(here, request.get("cluster")), request)
    definition = service.deployments[0].definition
    if request.get("taskDefinition"):
        definition = usable_definition(here, request["taskDefinition"])
    for name in SETTINGS:
        if name in request:
            value = request[name]
            service.settings[name] = {**service.settings.get(name, {}), **value} if isinstance(value, dict) else value
    redeploy = bool(request.get("forceNewDeployment")) or definition is not service.deployments[0].definition
    for name in REDEPLOYS:
        if name in request and service.settings.get(name) != request[name]:
            service.settings[name] = request[name]
            redeploy = True
    if request.get("desiredCount") is not None:
        service.scale(int(request["desiredCount"]))
    if redeploy:
        service.deploy(definition)
    return {"service": service.view()}


def delete_service(here, request):
    service = active_service(here, request)
    if service.desired and not request.get("force"):
        raise ApiError("InvalidParameterException", "The service cannot be stopped while it is scaled above 0.")
    service.stop()
    return {"service": service.view()}


def describe_services(here, request):
    found, failures = [], []
    include_tags = "TAGS" in request.get("include", [])
    for name in request.get("services", []):
        service = find_service(here, request, name)
        if service is None:
            cluster = tail(request.get("cluster") or "default")
            failures.append({"arn": here.arn("service", f"{cluster}/{tail(name)}"), "reason": "MISSING"})
            continue
        # Looking is what makes time pass: see the README.
        service.tick()
        view = service.view()
        if include_tags:
            view["tags"] = service.tags
        found.append(view)
    return {"services": found, "failures": failures}


def list_services(here, request):
    cluster = find_cluster(here, request.get("cluster"))["clusterName"]
    arns = [s.arn for (name, _), s in here.services.items() if name == cluster and s.status == "ACTIVE"]
    page, token = paginate(arns, request.get("nextToken"), request.get("maxResults") or 10)
    return {"serviceArns": page, **({"nextToken": token} if token else {})}


def list_tasks(here, request):
    cluster = find_cluster(here, request.get("cluster"))["clusterName"]
    wanted = request.get("desiredStatus", "RUNNING")
    services = [s for (name, _), s in here.services.items() if name == cluster]
    if request.get("serviceName"):
        services = [s for s in services if s.name == tail(request["serviceName"])]
        if not services:
            raise ApiError("ServiceNotFoundException", "Service not found.")
    tasks = [t for s in services for t in s.tasks if t.desired_status == wanted]
    if request.get("family"):
        tasks = [t for t in tasks if t.definition["family"] == request["family"]]
    page, token = paginate([t.arn for t in tasks], request.get("nextToken"), request.get("maxResults"))
    return {"taskArns": page, **({"nextToken": token} if token else {})}


def describe_tasks(here, request):
    cluster = find_cluster(here, request.get("cluster"))["clusterName"]
    known = {tail(t.arn): t for (name, _), s in here.services.items() if name == cluster for t in s.tasks}
    found = [known[tail(t)].view() for t in request["tasks"] if tail(t) in known]
    missing = [{"arn": t, "reason": "MISSING"} for t in request["tasks"] if tail(t) not in known]
    return {"tasks": found, "failures": missing}


# Tags


def tags_of(here, arn):
    kind = arn.split(":", 5)[-1].split("/", 1)[0]
    if kind == "task-definition":
        return find_task_definition(here, arn)["_tags"]
    if kind == "cluster":
        return find_cluster(here, arn)["tags"]
    for service in here.services.values():
        if service.arn == arn:
            return service.tags
    raise ApiError("InvalidParameterException", "The specified resource was not found.")


def tag_resource(here, request):
    tags = tags_of(here, request["resourceArn"])
    new = {tag["key"] for tag in request["tags"]}
    tags[:] = [tag for tag in tags if tag["key"] not in new] + request["tags"]
    return {}


def untag_resource(here, request):
    tags = tags_of(here, request["resourceArn"])
    tags[:] = [tag for tag in tags if tag["key"] not in request["tagKeys"]]
    return {}


def list_tags_for_resource(here, request):
    return {"tags": tags_of(here, request["resourceArn"])}


OPERATIONS = {
    "CreateCluster": create_cluster,
    "DescribeClusters": describe_clusters,
    "ListClusters": list_clusters,
    "DeleteCluster": delete_cluster,
    "RegisterTaskDefinition": register_task_definition,
    "DescribeTaskDefinition": describe_task_definition,
    "ListTaskDefinitions": list_task_definitions,
    "ListTaskDefinitionFamilies": list_task_definition_families,
    "DeregisterTaskDefinition": deregister_task_definition,
    "CreateService": create_service,
    "UpdateService": update_service,
    "DeleteService": delete_service,
    "DescribeServices": describe_services,
    "ListServices": list_services,
    "ListTasks": list_tasks,
    "DescribeTasks": describe_tasks,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "ListTagsForResource": list_tags_for_resource,
}


# Scripting


def script(region_name, request):
    """POST /shim/ecs"""
    service = active_service(region(region_name), request)
    for name in ("settle", "fail"):
        if name in request:
            setattr(service, name, request[name])
    return {"service": service.name, "settle": service.settle, "fail": service.fail}


def kill(region_name, request):
    """POST /shim/ecs/kill"""
    return {"unhealthy": active_service(region(region_name), request).kill(int(request.get("tasks", 1)))}


def crash(region_name, request):
    """POST /shim/ecs/crash"""
    service = active_service(region(region_name), request)
    times = request.get("at") or [None]
    return {"stopped": service.crash(request.get("exit", 1), request.get("memory"), request.get("health"), times)}


def push(region_name, request):
    """POST /shim/ecs/push"""
    image = request["image"]
    if request.get("gone"):
        rollout.gone.add(image)
        return {"image": image, "gone": True}
    if "hidden" in request:
        # What it means stays; ECS says it late.
        (rollout.hidden.add if request["hidden"] else rollout.hidden.discard)(image)
        return {"image": image, "hidden": request["hidden"]}
    rollout.pushed[image] = None if request.get("untold") else (rollout.pushed.get(image) or 0) + 1
    return {"image": image, "digest": rollout.digest_of(image)}

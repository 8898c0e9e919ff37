"""Application Auto Scaling over the wire (JSON 1.1): scalable targets of ECS services, and a scaling on demand."""

import time

from . import ecs
from .common import ACCOUNT, ApiError, hex_id

DIMENSION = "ecs:service:DesiredCount"
SUSPENDED = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")

targets = {}  # (region, resource id) -> scalable target
denied = set()  # operations that the caller may not use


def reset():
    targets.clear()
    denied.clear()


def handle(region, operation, request):
    handler = OPERATIONS.get(operation)
    if handler is None:
        raise ApiError("UnsupportedFeatureException", f"The emulator has no auto scaling operation {operation}")
    if (region, request_service(request), operation) in denied:
        raise ApiError("AccessDeniedException", f"User is not authorized to perform: application-autoscaling:{operation}")
    if request.get("ServiceNamespace") != "ecs":
        raise ApiError("ValidationException", "The emulator scales services of ECS only")
    return handler(region, request)


def request_service(request):
    names = [request["ResourceId"]] if "ResourceId" in request else request.get("ResourceIds", [])
    return names[0].split("/")[1] if names and "/" in names[0] else ""


def service_of(region, resource):
    parts = resource.split("/")
    if len(parts) != 3 or parts[0] != "service":
        raise ApiError("ValidationException", f"Unsupported service namespace, resource type or scalable dimension: {resource}")
    return ecs.active_service(ecs.region(region), {"cluster": parts[1], "service": parts[2]})


def register(region, request):
    resource = request["ResourceId"]
    if request.get("ScalableDimension") != DIMENSION:
        raise ApiError("ValidationException", "Unsupported service namespace, resource type or scalable dimension")
    try:
        service_of(region, resource)
    except ApiError as error:
        if error.code == "ValidationException":
            raise
        raise ApiError("ValidationException", f"ECS service doesn't exist: {resource}") from error
    known = targets.get((region, resource))
    least = request.get("MinCapacity", known and known["MinCapacity"])
    most = request.get("MaxCapacity", known and known["MaxCapacity"])
    if least is None or most is None:
        raise ApiError("ValidationException", "Minimum and maximum capacity must be specified for a new scalable target")
    if least < 0 or least > most:
        raise ApiError("ValidationException", "Maximum capacity cannot be less than minimum capacity")
    if known is None:
        known = targets[region, resource] = {
            "ServiceNamespace": "ecs",
            "ResourceId": resource,
            "ScalableDimension": DIMENSION,
            "RoleARN": f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/ecs.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_ECSService",
            "CreationTime": time.time(),
            "SuspendedState": dict.fromkeys(SUSPENDED, False),
            "ScalableTargetARN": f"arn:aws:application-autoscaling:{region}:{ACCOUNT}:scalable-target/0ec5{hex_id(28)}",
        }
    known.update(MinCapacity=least, MaxCapacity=most)
    known["SuspendedState"].update(request.get("SuspendedState", {}))
    return {"ScalableTargetARN": known["ScalableTargetARN"]}


def describe(region, request):
    wanted = request.get("ResourceIds")
    if wanted and not request.get("ScalableDimension"):
        raise ApiError("ValidationException", "A scalable dimension must be specified with resource ids")
    found = [t for (where, name), t in targets.items() if where == region and (not wanted or name in wanted)]
    return {"ScalableTargets": found}


def deregister(region, request):
    if targets.pop((region, request["ResourceId"]), None) is None:
        raise ApiError("ObjectNotFoundException", f"No scalable target found for {request['ResourceId']}")
    return {}


OPERATIONS = {
    "RegisterScalableTarget": register,
    "DescribeScalableTargets": describe,
    "DeregisterScalableTarget": deregister,
}


def script(region, request):
    """POST /shim/autoscaling"""
    resource = f"service/{request['cluster']}/{request['service']}"
    if "deny" in request:
        denied.update((region, request["cluster"], operation) for operation in request["deny"])
        denied.difference_update((region, request["cluster"], operation) for operation in set(OPERATIONS) - set(request["deny"]))
    if "tasks" in request:
        scale(region, resource, int(request["tasks"]))
    return {"tasks": service_of(region, resource).desired}


def scale(region, resource, wanted):
    """What a policy does that wants so many tasks."""
    target, service = targets[region, resource], service_of(region, resource)
    tasks = min(max(wanted, target["MinCapacity"]), target["MaxCapacity"])
    direction = "DynamicScalingInSuspended" if tasks < service.desired else "DynamicScalingOutSuspended"
    if not target["SuspendedState"][direction]:
        service.scale(tasks)

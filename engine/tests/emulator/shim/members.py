"""CloudFormation's names and values of ECS's members as the API has them."""

INTEGERS = {
    "containerPort", "hostPort", "desiredCount", "healthCheckGracePeriodSeconds", "maximumPercent",
    "minimumHealthyPercent", "interval", "timeout", "retries", "startPeriod", "stopTimeout", "startTimeout",
    "bakeTimeInMinutes", "sizeInGiB", "softLimit", "hardLimit", "port", "base", "weight", "transitEncryptionPort",
}
BOOLEANS = {
    "enable", "rollback", "essential", "enableExecuteCommand", "readonlyRootFilesystem", "privileged", "enabled",
    "enableECSManagedTags", "readOnly", "initProcessEnabled",
}
# The keys of these are the user's own words, not AWS's.
MAPS = {"options", "dockerLabels", "driverOpts", "labels"}
# All others begin with a small letter and are the same for the rest.
NAMES = {"EFSVolumeConfiguration": "efsVolumeConfiguration", "FilesystemId": "fileSystemId", "IAM": "iam"}


def ecs_members(node, key=None):
    """CloudFormation's `DesiredCount: "2"` is the API's `desiredCount: 2`."""
    if isinstance(node, list):
        return [ecs_members(item, key) for item in node]
    if isinstance(node, dict):
        if key in MAPS:
            return {name: str(value) for name, value in node.items()}
        names = {name: NAMES.get(name, name[0].lower() + name[1:]) for name in node}
        return {names[name]: ecs_members(value, names[name]) for name, value in node.items()}
    if key in INTEGERS:
        return int(node)
    if key in BOOLEANS:
        return str(node).lower() == "true"
    return node

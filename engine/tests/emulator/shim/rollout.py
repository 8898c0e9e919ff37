"""One ECS service and how it rolls out. Time is counted in ticks: DescribeServices calls that name the service."""

import hashlib
import time

from . import elbv2
from .common import digits, hex_id, uuid

SETTLE = 2
SETTLE_SLOW = 12
TICKS_TO_FAIL_START = 3
TICKS_TO_FAIL_HEALTH = 5
TICKS_FAILED_IS_LISTED = 6
TICKS_STOPPED_IS_LISTED = 50
MAX_EVENTS = 100


# Settings of a service that its deployments show.
OF_DEPLOYMENTS = (
    "networkConfiguration", "platformVersion", "capacityProviderStrategy",
    "serviceConnectConfiguration", "volumeConfigurations", "vpcLatticeConfigurations",
)

pushed = {}  # image name -> how often it was pushed again, None where no task tells its digest
hidden = set()  # image names of which no task tells the digest for now
gone = set()  # image names that the registry does not have any more


def digest_of(image):
    """What the name of an image means now, as a registry would say it."""
    if "@" in image:
        return image.partition("@")[2]
    times = pushed.get(image, 0)
    return None if times is None else "sha256:" + hashlib.sha256(f"{image} {times}".encode()).hexdigest()


class Task:
    def __init__(self, service, deployment, address=None):
        self.service = service
        self.deployment_id = deployment.id
        self.definition = deployment.definition
        self.id = hex_id()
        self.arn = service.region.arn("task", f"{service.cluster['clusterName']}/{self.id}")
        self.address = address
        self.desired_status = "RUNNING"
        self.stopped_reason = None
        self.stop_code = None
        self.exit_code = None
        self.container_reason = None
        self.started = time.time()
        self.stopped = None
        self.stopped_at_tick = None
        # A task keeps what its image's name meant when it was started.
        self.digests = {c["image"]: digest_of(c["image"]) for c in self.definition["containerDefinitions"]}

    def stop(self, code, reason):
        self.desired_status, self.stop_code, self.stopped_reason = "STOPPED", code, reason
        self.stopped, self.stopped_at_tick = time.time(), self.service.ticks

    def view(self):
        running = self.desired_status == "RUNNING"
        pulled = self.address is not None
        view = {
            "taskArn": self.arn,
            "clusterArn": self.service.cluster["clusterArn"],
            "taskDefinitionArn": self.definition["taskDefinitionArn"],
            "desiredStatus": self.desired_status,
            "lastStatus": self.desired_status if pulled or not running else "PENDING",
            **self.service.launched,
            "group": f"service:{self.service.name}",
            "startedBy": self.deployment_id,
            "cpu": self.definition.get("cpu"),
            "memory": self.definition.get("memory"),
            "healthStatus": "UNKNOWN",
            "createdAt": self.started,
            "stopCode": self.stop_code,
            "stoppedReason": self.stopped_reason,
            "stoppedAt": self.stopped,
            "containers": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "taskArn": self.arn,
                    "lastStatus": "RUNNING" if running else "STOPPED",
                    "reason": None if running else self.container_reason or self.stopped_reason,
                    **({} if self.exit_code is None else {"exitCode": self.exit_code}),
                    **({"imageDigest": self.digests[container["image"]]} if pulled and self.digests[container["image"]] and container["image"] not in hidden else {}),
                }
                for container in self.definition["containerDefinitions"]
            ],
            "attachments": [],
        }
        if pulled:
            view["startedAt"] = self.started
            view["attachments"] = [
                {
                    "id": self.id,
                    "type": "ElasticNetworkInterface",
                    "status": "ATTACHED" if running else "DELETED",
                    "details": [{"name": "privateIPv4Address", "value": self.address}],
                }
            ]
        return {key: value for key, value in view.items() if value is not None}


class Deployment:
    def __init__(self, definition, desired):
        self.id = f"ecs-svc/{digits()}"
        self.definition = definition
        self.desired = desired
        self.status = "PRIMARY"
        self.state = "IN_PROGRESS"
        self.reason = f"ECS deployment {self.id} in progress."
        self.failed_tasks = 0
        self.ticks = 0
        self.failed_at_tick = None
        self.is_rollback = False
        self.was_completed = False
        self.created = self.updated = time.time()

    def finish(self, state, reason):
        self.state, self.reason, self.updated = state, reason, time.time()

    @property
    def image(self):
        return self.definition["containerDefinitions"][0]["image"]

    @property
    def tag(self):
        """What the image's tag scripts: `broken`, `slow`, a way to be unhealthy, or nothing."""
        return self.image.rsplit("/", 1)[-1].partition(":")[2]

    @property
    def becomes(self):
        """What its targets become."""
        return self.tag if self.tag in elbv2.UNHEALTHY else "healthy"


class Service:
    def __init__(self, region, cluster, request, definition):
        self.region = region
        self.cluster = cluster
        self.name = request["serviceName"]
        self.arn = region.arn("service", f"{cluster['clusterName']}/{self.name}")
        self.tags = request.get("tags", [])
        # With capacity providers there is no launch type.
        self.launched = {} if request.get("capacityProviderStrategy") else {"launchType": request.get("launchType", "EC2")}
        own = ("cluster", "serviceName", "taskDefinition", "desiredCount", "tags", "clientToken")
        self.settings = {key: value for key, value in request.items() if key not in own}
        self.desired = int(request.get("desiredCount") or 0)
        self.status = "ACTIVE"
        self.created = time.time()
        self.deployments = []
        self.tasks = []
        self.events = []
        self.ticks = 0
        self.settle = None
        self.fail = None
        self.deploy(definition)

    # What clients change

    def deploy(self, definition, rollback_to=None):
        # Old deployments that never completed are given up at once: their tasks go with them.
        for old in self.deployments:
            if old.status == "PRIMARY":
                old.status = "ACTIVE"
        new = Deployment(definition, self.desired)
        if rollback_to:
            new.is_rollback = True
            new.reason = f"ECS deployment circuit breaker: rolling back to deploymentId {rollback_to.id}"
        self.deployments.insert(0, new)
        return new

    def scale(self, count):
        self.desired = count
        self.deployments[0].desired = count

    def stop(self):
        self.status = "INACTIVE"
        self.desired = 0
        for task in self.running():
            self._stop(task, "ServiceSchedulerInitiated", "Scaling activity initiated")
        for deployment in self.deployments:
            deployment.desired = 0

    def kill(self, count):
        """Makes that many targets unhealthy, and those of the other tasks healthy again."""
        changed = []
        for index, task in enumerate(self.running()):
            for group, port in self._groups():
                target = elbv2.targets_of(group).get((task.address, port))
                if target is not None:
                    target.state = target.becomes = "unhealthy" if index < count else "healthy"
            if index < count:
                changed.append(task.address)
        return changed

    def crash(self, code, memory, health, times):
        """Its first task ends by itself, or because it fails health checks; another one starts at the next look.

        With several times there was one more task for each other of them.
        """
        for number, at in enumerate(times):
            task = Task(self, self.deployments[0]) if number else self.running()[0]
            if number:
                self.tasks.append(task)
            if health:
                self._stop(task, "ServiceSchedulerInitiated", "Task failed container health checks")
            else:
                self._stop(task, "EssentialContainerExited", "Essential container in task exited")
                task.exit_code = 137 if memory else code
                task.container_reason = "OutOfMemoryError: Container killed due to memory usage" if memory else None
            if at:
                # At a time of the test's own clock, so it is not forgotten by looks.
                task.stopped, task.stopped_at_tick = at, None
        return len(times)

    # What time does

    def tick(self):
        if self.status != "ACTIVE":
            return
        self.ticks += 1
        for group, _ in self._groups():
            elbv2.tick(group)
        primary = self.deployments[0]
        primary.ticks += 1
        if primary.state == "IN_PROGRESS":
            self._progress(primary)
        elif primary.state == "COMPLETED":
            self._keep_count(primary)
        self._forget()

    def settled(self):
        return self.deployments[0].state != "IN_PROGRESS" and len(self.running()) == self.desired

    def _progress(self, deployment):
        if deployment.desired and (self.fail or deployment.tag == "broken" or deployment.image in gone):
            self._fail_to_start(deployment)
        elif deployment.desired and deployment.becomes != "healthy":
            self._stay_unhealthy(deployment)
        else:
            self._settle(deployment)

    def _settle(self, deployment):
        settle = self.settle
        if settle is None:
            settle = SETTLE_SLOW if deployment.tag == "slow" else SETTLE
        if deployment.is_rollback:
            # The tasks of the version that ran before are still there and are taken over.
            for task in self.running():
                if task.definition is deployment.definition:
                    task.deployment_id = deployment.id
        # Tasks start one tick before the end: their targets are `initial` for that long.
        if deployment.ticks >= settle - 1:
            self._start_missing(deployment, becomes="healthy")
        if deployment.ticks >= settle:
            self._complete(deployment)

    def _complete(self, deployment):
        for task in self.running():
            if task.deployment_id != deployment.id:
                self._stop(task, "ServiceSchedulerInitiated", f"Scaling activity initiated by (deployment {deployment.id})")
        self._keep_count(deployment)
        self.deployments = [d for d in self.deployments if d is deployment or d.state == "FAILED"]
        deployment.was_completed = True
        deployment.finish("COMPLETED", f"ECS deployment {deployment.id} completed.")
        self._event(f"(deployment {deployment.id}) deployment completed.")
        self._event("has reached a steady state.")

    def _fail_to_start(self, deployment):
        reason = self.fail or (
            "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
            f"failed to resolve ref {deployment.image}: not found"
        )
        deployment.failed_tasks += 1
        task = Task(self, deployment)
        task.stop("TaskFailedToStart", reason)
        self.tasks.append(task)
        self._event(f"was unable to place a task. Reason: {reason}.")
        if deployment.ticks >= TICKS_TO_FAIL_START:
            self._break(deployment, "tasks failed to start.")

    def _stay_unhealthy(self, deployment):
        self._start_missing(deployment, becomes=deployment.becomes)
        if deployment.ticks > 1:
            deployment.failed_tasks += 1
            for task in self._tasks_of(deployment)[:1]:
                reason = elbv2.UNHEALTHY[deployment.becomes][1]
                for group, port in self._groups():
                    self._event(
                        f"(task {task.id}) (port {port}) is unhealthy in (target-group "
                        f"{group.arn}) due to (reason {reason})."
                    )
        if deployment.ticks >= TICKS_TO_FAIL_HEALTH:
            self._break(deployment, "tasks failed to start.")

    def _break(self, deployment, why):
        """The circuit breaker. Without one, a deployment tries for ever."""
        breaker = self.settings.get("deploymentConfiguration", {}).get("deploymentCircuitBreaker", {})
        if not breaker.get("enable"):
            return
        deployment.finish("FAILED", f"ECS deployment circuit breaker: {why}")
        deployment.failed_at_tick = self.ticks
        self._event(f"(deployment {deployment.id}) deployment failed: {why}")
        for task in self._tasks_of(deployment):
            self._stop(task, "ServiceSchedulerInitiated", f"Task failed ELB health checks in (deployment {deployment.id})")
        before = next((d for d in self.deployments[1:] if d.was_completed), None)
        if breaker.get("rollback") and before is not None and not deployment.is_rollback:
            self._event(f"rolling back to deployment {before.id}.")
            self.deploy(before.definition, rollback_to=before)

    def _keep_count(self, deployment):
        """Scaling: the number of tasks follows the desired count."""
        self._start_missing(deployment, becomes=deployment.becomes)
        for task in self._tasks_of(deployment)[deployment.desired:]:
            self._stop(task, "ServiceSchedulerInitiated", f"Scaling activity initiated by (deployment {deployment.id})")

    def _start_missing(self, deployment, becomes):
        started = []
        while len(self._tasks_of(deployment)) < deployment.desired:
            task = Task(self, deployment, self._free_address())
            self.tasks.append(task)
            started.append(task)
            for group, port in self._groups():
                elbv2.register(group, task.address, port, becomes)
        if started:
            names = " ".join(f"(task {task.id})" for task in started)
            self._event(f"has started {len(started)} tasks: {names}.")
            for group, _ in self._groups():
                self._event(f"registered {len(started)} targets in (target-group {group.arn})")

    def _stop(self, task, code, reason):
        task.stop(code, reason)
        self._event(f"has stopped 1 running tasks: (task {task.id}).")
        for group, port in self._groups():
            target = elbv2.targets_of(group).get((task.address, port))
            if target is not None:
                target.drain()

    def _forget(self):
        self.deployments = self.deployments[:1] + [
            d for d in self.deployments[1:]
            if d.failed_at_tick is None or self.ticks - d.failed_at_tick <= TICKS_FAILED_IS_LISTED
        ]
        self.tasks = [
            t for t in self.tasks
            if t.stopped_at_tick is None or self.ticks - t.stopped_at_tick < TICKS_STOPPED_IS_LISTED
        ]

    def _free_address(self):
        """127.0.0.1 first. An address that still drains is not free: its target is another one."""
        taken = {task.address for task in self.running()}
        for group, port in self._groups():
            taken |= {address for address, used in elbv2.targets_of(group) if used == port}
        number = 1
        while f"127.0.0.{number}" in taken:
            number += 1
        return f"127.0.0.{number}"

    def _groups(self):
        found = []
        for entry in self.settings.get("loadBalancers", []):
            group = elbv2.group(self.region.name, entry.get("targetGroupArn"))
            if group is not None:
                found.append((group, int(entry["containerPort"])))
        return found

    def _tasks_of(self, deployment):
        return [task for task in self.running() if task.deployment_id == deployment.id]

    def running(self):
        return [task for task in self.tasks if task.desired_status == "RUNNING"]

    def _event(self, message):
        text = f"(service {self.name}) {message}"
        self.events.insert(0, {"id": uuid(), "createdAt": time.time(), "message": text})
        del self.events[MAX_EVENTS:]

    # What clients see

    def view(self):
        running = len(self.running())
        configuration = {
            "deploymentCircuitBreaker": {"enable": False, "rollback": False},
            "maximumPercent": 200,
            "minimumHealthyPercent": 100,
            "strategy": "ROLLING",
            **self.settings.get("deploymentConfiguration", {}),
        }
        return {
            "loadBalancers": [],
            "serviceRegistries": [],
            **self.launched,
            "schedulingStrategy": "REPLICA",
            "deploymentController": {"type": "ECS"},
            "enableExecuteCommand": False,
            "propagateTags": "NONE",
            "placementConstraints": [],
            "placementStrategy": [],
            **self.settings,
            "deploymentConfiguration": configuration,
            "serviceArn": self.arn,
            "serviceName": self.name,
            "clusterArn": self.cluster["clusterArn"],
            "status": self.status,
            "taskDefinition": self.deployments[0].definition["taskDefinitionArn"],
            "desiredCount": self.desired,
            "runningCount": running,
            "pendingCount": max(0, self.desired - running) if self.status == "ACTIVE" else 0,
            "createdAt": self.created,
            "events": self.events,
            "deployments": [self._deployment_view(d) for d in self.deployments] if self.status == "ACTIVE" else [],
        }

    def _deployment_view(self, deployment):
        running = len(self._tasks_of(deployment))
        wanted = deployment.desired if deployment.state != "FAILED" else 0
        return {
            "id": deployment.id,
            "status": deployment.status,
            "taskDefinition": deployment.definition["taskDefinitionArn"],
            "desiredCount": wanted,
            "runningCount": running,
            "pendingCount": max(0, wanted - running) if deployment.status == "PRIMARY" else 0,
            "failedTasks": deployment.failed_tasks,
            **self.launched,
            "rolloutState": deployment.state,
            "rolloutStateReason": deployment.reason,
            "createdAt": deployment.created,
            "updatedAt": deployment.updated,
            **{name: self.settings[name] for name in OF_DEPLOYMENTS if name in self.settings},
        }

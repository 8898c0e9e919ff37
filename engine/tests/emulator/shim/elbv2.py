"""Patches for moto's load balancers: what ALB refuses, and targets that take time to become healthy."""

import inspect
from dataclasses import dataclass

from moto.elbv2 import models
from moto.elbv2.exceptions import ActionTargetGroupNotFoundError, ELBClientError, InvalidTargetError

from .common import ACCOUNT, hex_id

MAX_GROUPS_PER_ACTION = 5
MAX_WEIGHT = 999

# How often a target is seen draining before it is gone.
DRAIN_TICKS = 2

# Why targets are unhealthy, by what a script asks for.
UNHEALTHY = {
    "unhealthy": ("Target.ResponseCodeMismatch", "Health checks failed with these codes: [500]"),
    "hanging": ("Target.Timeout", "Request timed out"),
    "refusing": ("Target.FailedHealthChecks", "Health checks failed"),
}
NOTES = {
    "initial": ("Elb.RegistrationInProgress", "Target registration is in progress"),
    **UNHEALTHY,
    "draining": ("Target.DeregistrationInProgress", "Target deregistration is in progress"),
    "unused": ("Target.NotInUse", "Target group is not configured to receive traffic from the load balancer"),
    "healthy": (None, None),
}


@dataclass
class Target:
    id: str
    port: int
    zone: str | None = None
    state: str = "initial"
    becomes: str = "healthy"
    ticks_left: int = 1

    def tick(self):
        """Returns False once the target is gone."""
        if self.state == "initial" and self.ticks_left <= 1:
            self.state = self.becomes
        self.ticks_left -= 1
        return self.state != "draining" or self.ticks_left > 0

    def drain(self):
        if self.state != "draining":
            self.state, self.ticks_left = "draining", DRAIN_TICKS


class Description:
    """One row of DescribeTargetHealth, in the attributes that moto's serializer reads."""

    def __init__(self, target, state):
        reason, text = NOTES[state]
        state = "unhealthy" if state in UNHEALTHY else state
        self.target = {"Id": target.id, "Port": target.port, "AvailabilityZone": target.zone}
        self.health_check_port = str(target.port)
        self.target_health = {"State": state, "Reason": reason, "Description": text}


def backend(region):
    return models.elbv2_backends[ACCOUNT][region]


def group(region, arn):
    return backend(region).target_groups.get(arn)


def targets_of(target_group):
    """Targets by (address, port), kept on moto's object so that its reset forgets them as well."""
    return target_group.__dict__.setdefault("shim_targets", {})


def register(target_group, address, port, becomes="healthy"):
    port = int(port)
    zone = f"{target_group.region_name}{'ab'[hash_of(address) % 2]}"
    known = targets_of(target_group).get((address, port))
    if known is None or known.state == "draining":
        targets_of(target_group)[(address, port)] = Target(address, port, zone, becomes=becomes)


def hash_of(address):
    """Addresses take turns in the two zones."""
    last = address.rsplit(".", 1)[-1]
    return int(last) + 1 if last.isdigit() else 0


def tick(target_group):
    targets = targets_of(target_group)
    for key, target in list(targets.items()):
        if not target.tick():
            del targets[key]


def _register(self, targets):
    for target in targets:
        register(self, target["Id"], target.get("Port") or self.port)


def _deregister(self, targets):
    for wanted in targets:
        found = [
            target
            for target in targets_of(self).values()
            if target.id == wanted["Id"] and int(wanted.get("Port") or target.port) == target.port
        ]
        if not found:
            raise InvalidTargetError()
        for target in found:
            target.drain()


def _describe_target_health(self, target_group_arn, targets):
    target_group = self.target_groups.get(target_group_arn)
    if target_group is None:
        raise models.TargetGroupNotFoundError()
    wanted = {(t["Id"], int(t["Port"]) if t.get("Port") else None) for t in targets or []}
    in_use = self._any_listener_using(target_group_arn)
    rows = []
    for target in list(targets_of(target_group).values()):
        if wanted and not wanted & {(target.id, target.port), (target.id, None)}:
            continue
        state = target.state if in_use or target.state == "draining" else "unused"
        rows.append(Description(target, state))
        # A client that looks only here must see time pass too.
        if not target.tick():
            del targets_of(target_group)[(target.id, target.port)]
    return rows


def check_actions(elbv2, actions):
    """What ALB refuses. AWS's own words for a weight out of range are not known: the code is what counts."""
    for action in actions or []:
        tuples = (action.get("ForwardConfig") or {}).get("TargetGroups") or []
        if len(tuples) > MAX_GROUPS_PER_ACTION:
            raise ELBClientError(
                "TargetGroupAssociationLimit",
                "You've reached the limit on the number of target groups per action",
            )
        for entry in tuples:
            if not 0 <= int(entry.get("Weight", 1)) <= MAX_WEIGHT:
                raise ELBClientError(
                    "ValidationError", f"Target group weight must be between 0 and {MAX_WEIGHT}"
                )
        arns = [entry["TargetGroupArn"] for entry in tuples]
        single = action.get("TargetGroupArn")
        if single and arns and arns != [single]:
            raise ELBClientError(
                "InvalidLoadBalancerAction",
                "You cannot specify both a target group ARN and a different forward config",
            )
        for arn in arns + ([single] if single else []):
            if arn not in elbv2.target_groups:
                raise ActionTargetGroupNotFoundError(arn)


def check_secrets(actions, modifies):
    """A client secret goes in and never comes out: whoever writes an action again gives it or keeps the old one."""
    for action in actions or []:
        config = action.get("AuthenticateOidcConfig") or {}
        keeps = modifies and str(config.get("UseExistingClientSecret", "")).lower() == "true"
        if action.get("Type") == "authenticate-oidc" and not config.get("ClientSecret") and not keeps:
            raise ELBClientError("InvalidLoadBalancerAction", "You must specify a client secret")


def normalised(actions):
    """ALB shows one action in both notations if it has one group, and only the list if it has more."""
    result = []
    for action in actions or []:
        action = dict(action)
        if "AuthenticateOidcConfig" in action:
            hidden = ("ClientSecret", "UseExistingClientSecret")
            config = action["AuthenticateOidcConfig"]
            action["AuthenticateOidcConfig"] = {k: v for k, v in config.items() if k not in hidden}
        if action.get("Type") == "forward":
            tuples = (action.get("ForwardConfig") or {}).get("TargetGroups") or []
            if not tuples and action.get("TargetGroupArn"):
                action["ForwardConfig"] = {
                    "TargetGroups": [{"TargetGroupArn": action["TargetGroupArn"], "Weight": 1}]
                }
            elif len(tuples) == 1:
                action["TargetGroupArn"] = tuples[0]["TargetGroupArn"]
            config = {**action["ForwardConfig"]}
            config["TargetGroups"] = [dict(entry) for entry in config["TargetGroups"]]
            for entry in config["TargetGroups"]:
                entry["Weight"] = int(entry.get("Weight", 1))
            action["ForwardConfig"] = config
        result.append(action)
    return result


def _link(elbv2):
    """A group belongs to the balancer that names it; moto forgets this when actions change."""
    for target_group in elbv2.target_groups.values():
        target_group.load_balancer_arns = []
    for balancer in elbv2.load_balancers.values():
        for listener in balancer.listeners.values():
            for rule in listener.rules.values():
                for action in rule.actions:
                    for arn in elbv2._get_target_group_arns_from(action_data=action.data):
                        linked = elbv2.target_groups[arn].load_balancer_arns if arn in elbv2.target_groups else None
                        if linked is not None and balancer.arn not in linked:
                            linked.append(balancer.arn)


def _with_checks(original):
    """Wraps one of moto's methods: check the actions first, link the groups afterwards."""
    signature = inspect.signature(original)

    def method(self, *args, **kwargs):
        call = signature.bind(self, *args, **kwargs)
        if call.arguments.get("actions"):
            check_actions(self, call.arguments["actions"])
            check_secrets(call.arguments["actions"], original.__name__.startswith("modify"))
            call.arguments["actions"] = normalised(call.arguments["actions"])
        result = original(*call.args, **call.kwargs)
        _link(self)
        return result

    return method


def _group_arns(self, action_data):
    tuples = (action_data.get("ForwardConfig") or {}).get("TargetGroups") or []
    if tuples:
        return [entry["TargetGroupArn"] for entry in tuples]
    return [action_data["TargetGroupArn"]] if "TargetGroupArn" in action_data else []


def install():
    elbv2 = models.ELBv2Backend
    elbv2._get_target_group_arns_from = _group_arns
    elbv2.describe_target_health = _describe_target_health
    for name in ("create_listener", "modify_listener", "create_rule", "modify_rule", "delete_listener", "delete_rule"):
        setattr(elbv2, name, _with_checks(getattr(elbv2, name)))
    models.FakeTargetGroup.register = _register
    models.FakeTargetGroup.deregister = _deregister

    make_rule = models.FakeRule.__init__

    def init_rule(self, listener_arn, *args, **kwargs):
        make_rule(self, listener_arn, *args, **kwargs)
        # moto takes a memory address; ids must be the same in every run.
        self.arn = f"{listener_arn.replace(':listener/', ':listener-rule/')}/{hex_id(16)}"

    models.FakeRule.__init__ = init_rule

    create = elbv2.create_load_balancer

    def create_load_balancer(self, *args, **kwargs):
        balancer = create(self, *args, **kwargs)
        # A name that a test can reach, should it put a real proxy there.
        balancer.dns_name = "localhost"
        balancer.state = "active"
        balancer.scheme = balancer.scheme or "internet-facing"
        # moto calls every kind `app`.
        word = {"network": "net", "gateway": "gwy"}.get(balancer.type, "app")
        arn = balancer.arn.replace(":loadbalancer/app/", f":loadbalancer/{word}/")
        tags = self.tagging_service.get_tag_dict_for_resource(balancer.arn)
        self.load_balancers[arn] = self.load_balancers.pop(balancer.arn)
        balancer.arn = arn
        self.tagging_service.tag_resource(arn, [{"Key": key, "Value": value} for key, value in tags.items()])
        return balancer

    elbv2.create_load_balancer = create_load_balancer

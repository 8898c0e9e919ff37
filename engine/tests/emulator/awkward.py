"""Builds the awkward stacks of `tests/fixtures/awkward`: each by CloudFormation, and once more by boto3's calls.

A line of JSON in: `{"kind": NAME}`. A line out: for both ways the name of the stack and the ids of its resources by
their logical names; or an error.
"""

import json
import pathlib
import re
import sys

import boto3

from shim import template
from shim.members import ecs_members

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "awkward"
elbv2, ecs, ec2, acm, cloudformation = (
    boto3.client(name) for name in ("elbv2", "ecs", "ec2", "acm", "cloudformation")
)


def merged(base, patch):
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def fixture(name):
    return template.parse((FIXTURES / f"{name}.yml").read_text())


def surroundings():
    """What stands already where stacks are made."""
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnets = [s["SubnetId"] for s in ec2.describe_subnets()["Subnets"][:2]]
    names = ("shop.example", "other.example")
    certificates = [acm.request_certificate(DomainName=name)["CertificateArn"] for name in names]
    return {"VpcId": vpc, "Subnets": subnets, "CertificateArn": certificates[0], "OtherCertificateArn": certificates[1]}


def by_cloudformation(name, body, parameters):
    texts = {key: ",".join(value) if isinstance(value, list) else value for key, value in parameters.items()}
    given = [{"ParameterKey": key, "ParameterValue": text} for key, text in texts.items()]
    cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(body), Parameters=given)
    stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    if stack["StackStatus"] != "CREATE_COMPLETE":
        events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
        raise ValueError([e["ResourceStatusReason"] for e in events if e.get("ResourceStatusReason")])
    resources = cloudformation.list_stack_resources(StackName=name)["StackResourceSummaries"]
    return {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in resources}


def make_group(attributes=None, **members):
    arn = elbv2.create_target_group(**members)["TargetGroups"][0]["TargetGroupArn"]
    if attributes:
        elbv2.modify_target_group_attributes(TargetGroupArn=arn, Attributes=attributes)
    return arn


def make_listener_certificate(**members):
    elbv2.add_listener_certificates(**members)
    return "certificates of a listener"


# What boto3 is told for each type; it refuses members that the API does not have.
CALLS = {
    "LoadBalancer": lambda p: elbv2.create_load_balancer(**p)["LoadBalancers"][0]["LoadBalancerArn"],
    "TargetGroup": lambda p: make_group(p.pop("TargetGroupAttributes", None), **p),
    "Listener": lambda p: elbv2.create_listener(**p)["Listeners"][0]["ListenerArn"],
    "ListenerCertificate": lambda p: make_listener_certificate(**p),
    "ListenerRule": lambda p: elbv2.create_rule(**p)["Rules"][0]["RuleArn"],
    "Cluster": lambda p: ecs.create_cluster(**ecs_members(p))["cluster"]["clusterName"],
    "TaskDefinition": lambda p: ecs.register_task_definition(**ecs_members(p))["taskDefinition"]["taskDefinitionArn"],
    "Service": lambda p: ecs.create_service(**ecs_members(p))["service"]["serviceArn"],
}


def by_calls(name, body, parameters):
    known = {**parameters, "AWS::StackName": name, "AWS::Region": ecs.meta.region_name, "AWS::AccountId": "123456789012"}

    def resolved(node):
        if isinstance(node, list):
            return [resolved(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "Ref" in node:
            return known[node["Ref"]]
        if "Fn::Sub" in node:
            return re.sub(r"\$\{([\w:]+)\}", lambda found: known[found[1]], node["Fn::Sub"])
        return {key: resolved(value) for key, value in node.items()}

    made, left = {}, dict(body["Resources"])
    while left:
        before = len(left)
        for logical, resource in list(left.items()):
            if any(needed in left for needed in resource.get("DependsOn", [])):
                continue
            try:
                properties = resolved(resource["Properties"])
            except KeyError as missing:
                if missing.args[0] in left:
                    continue
                raise
            kind = resource["Type"].rsplit("::", 1)[1]
            known[logical] = made[logical] = CALLS[kind](properties)
            del left[logical]
        if len(left) == before:
            raise ValueError(f"{sorted(left)} need each other")
    services = [made[logical] for logical in made if logical.endswith("Service")]
    for _ in range(6):
        ecs.describe_services(cluster=made["Cluster"], services=services)
    return made


def build(kind, parameters):
    body = merged(fixture("base"), fixture(kind))
    ways = {"cloudformation": by_cloudformation, "boto3": by_calls}
    return {way: {"name": f"{kind}-{way[0]}", "made": make(f"{kind}-{way[0]}", body, parameters)} for way, make in ways.items()}


def main():
    parameters = None
    for line in sys.stdin:
        try:
            parameters = parameters or surroundings()
            answer = build(json.loads(line)["kind"], parameters)
        # Whatever it is, the test that asked is told.
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

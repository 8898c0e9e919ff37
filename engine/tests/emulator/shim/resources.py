"""What CloudFormation does for each type of resource that the templates use, by way of moto's back ends and ecs.py.

Each type is a class with `create`, `update`, `delete` and `attribute`; `REPLACES` names the properties that
cannot be changed in place. A resource is known to the outside by its physical id.
"""

import json

from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends
from moto.iam.models import AWSManagedPolicy, iam_backends
from moto.logs.models import logs_backends

from . import ecs
from .common import ACCOUNT, ApiError, hex_id
from .members import ecs_members

# A service that has not settled after that many ticks never will.
MAX_TICKS = 40


class Failed(Exception):
    """The reason why a resource could not be made or changed."""


class Context:
    def __init__(self, region, stack_name):
        self.region = region
        self.stack_name = stack_name
        self.ec2 = ec2_backends[ACCOUNT][region]
        self.elbv2 = elbv2_backends[ACCOUNT][region]
        self.iam = iam_backends[ACCOUNT]["aws"]
        self.logs = logs_backends[ACCOUNT][region]
        self.ecs = ecs.region(region)

    def name(self, logical, limit=64):
        """A name that no other stack has, within the service's limit."""
        suffix = hex_id(12).upper()
        room = limit - len(suffix) - 2
        logical = logical[: room // 2]
        # A name that is cut at a hyphen would have two of them, which load balancers refuse.
        stack = self.stack_name[: room - len(logical)].rstrip("-")
        return f"{stack}-{logical}-{suffix}"

    def call_ecs(self, operation, **request):
        return ecs.OPERATIONS[operation](self.ecs, request)


def tags_of(properties):
    """moto wants EC2 tags as one dictionary."""
    return {tag["Key"]: tag["Value"] for tag in properties.get("Tags", [])}


class Resource:
    REPLACES = frozenset()

    def create(self, context, logical, properties):
        raise NotImplementedError

    def update(self, context, physical, old, new):
        """Types without settings that matter here take any change silently."""

    def delete(self, context, physical, properties):
        pass

    def attribute(self, context, physical, properties, name):
        raise ApiError("ValidationError", f"Template error: the emulator knows no attribute {name} here")


# EC2


class Vpc(Resource):
    REPLACES = frozenset({"CidrBlock"})

    def create(self, context, logical, properties):
        vpc = context.ec2.create_vpc(properties["CidrBlock"])
        vpc.add_tags(tags_of(properties))
        self.update(context, vpc.id, {}, properties)
        return vpc.id

    def update(self, context, physical, old, new):
        for name, key in (("enable_dns_support", "EnableDnsSupport"), ("enable_dns_hostnames", "EnableDnsHostnames")):
            if key in new:
                context.ec2.modify_vpc_attribute(physical, name, new[key])

    def delete(self, context, physical, properties):
        context.ec2.delete_vpc(physical)

    def attribute(self, context, physical, properties, name):
        return {"CidrBlock": properties["CidrBlock"], "VpcId": physical}[name]


class Subnet(Resource):
    REPLACES = frozenset({"CidrBlock", "VpcId", "AvailabilityZone"})

    def create(self, context, logical, properties):
        subnet = context.ec2.create_subnet(
            properties["VpcId"], properties["CidrBlock"], availability_zone=properties.get("AvailabilityZone")
        )
        subnet.add_tags(tags_of(properties))
        if "MapPublicIpOnLaunch" in properties:
            context.ec2.modify_subnet_attribute(subnet.id, "map_public_ip_on_launch", properties["MapPublicIpOnLaunch"])
        return subnet.id

    def delete(self, context, physical, properties):
        context.ec2.delete_subnet(physical)

    def attribute(self, context, physical, properties, name):
        return {"SubnetId": physical, "AvailabilityZone": context.ec2.get_subnet(physical).availability_zone}[name]


class InternetGateway(Resource):
    def create(self, context, logical, properties):
        return context.ec2.create_internet_gateway(tags=properties.get("Tags")).id

    def delete(self, context, physical, properties):
        context.ec2.delete_internet_gateway(physical)

    def attribute(self, context, physical, properties, name):
        return physical


class VpcGatewayAttachment(Resource):
    REPLACES = frozenset({"VpcId", "InternetGatewayId"})

    def create(self, context, logical, properties):
        context.ec2.attach_internet_gateway(properties["InternetGatewayId"], properties["VpcId"])
        return f"IGW|{properties['VpcId']}"

    def delete(self, context, physical, properties):
        context.ec2.detach_internet_gateway(properties["InternetGatewayId"], properties["VpcId"])


class RouteTable(Resource):
    REPLACES = frozenset({"VpcId"})

    def create(self, context, logical, properties):
        table = context.ec2.create_route_table(properties["VpcId"])
        table.add_tags(tags_of(properties))
        return table.id

    def delete(self, context, physical, properties):
        context.ec2.delete_route_table(physical)

    def attribute(self, context, physical, properties, name):
        return physical


class Route(Resource):
    REPLACES = frozenset({"RouteTableId", "DestinationCidrBlock"})

    def create(self, context, logical, properties):
        table, block = properties["RouteTableId"], properties["DestinationCidrBlock"]
        context.ec2.create_route(table, block, gateway_id=properties.get("GatewayId"))
        return f"{table}|{block}"

    def delete(self, context, physical, properties):
        context.ec2.delete_route(properties["RouteTableId"], properties["DestinationCidrBlock"])


class SubnetRouteTableAssociation(Resource):
    REPLACES = frozenset({"SubnetId", "RouteTableId"})

    def create(self, context, logical, properties):
        return context.ec2.associate_route_table(properties["RouteTableId"], subnet_id=properties["SubnetId"])

    def delete(self, context, physical, properties):
        context.ec2.disassociate_route_table(physical)


class SecurityGroup(Resource):
    REPLACES = frozenset({"GroupDescription", "GroupName", "VpcId"})

    def create(self, context, logical, properties):
        group = context.ec2.create_security_group(
            properties.get("GroupName") or context.name(logical, 255),
            properties["GroupDescription"],
            vpc_id=properties.get("VpcId"),
            tags=tags_of(properties),
        )
        self._allow(context, group.id, properties)
        return group.id

    def update(self, context, physical, old, new):
        for rule in old.get("SecurityGroupIngress", []):
            context.ec2.revoke_security_group_ingress(physical, **_rule(rule))
        self._allow(context, physical, new)

    def _allow(self, context, physical, properties):
        for rule in properties.get("SecurityGroupIngress", []):
            context.ec2.authorize_security_group_ingress(physical, **_rule(rule))

    def delete(self, context, physical, properties):
        context.ec2.delete_security_group(group_id=physical)

    def attribute(self, context, physical, properties, name):
        return {"GroupId": physical, "Id": physical, "VpcId": properties.get("VpcId")}[name]


class SecurityGroupIngress(Resource):
    REPLACES = frozenset(
        {"GroupId", "IpProtocol", "FromPort", "ToPort", "CidrIp", "SourceSecurityGroupId"}
    )

    def create(self, context, logical, properties):
        context.ec2.authorize_security_group_ingress(properties["GroupId"], **_rule(properties))
        return f"sgr-{hex_id(17)}"

    def delete(self, context, physical, properties):
        context.ec2.revoke_security_group_ingress(properties["GroupId"], **_rule(properties))


def _rule(rule):
    """The arguments of moto's calls."""
    ranges = [{"CidrIp": rule["CidrIp"]}] if "CidrIp" in rule else []
    groups = [{"GroupId": rule["SourceSecurityGroupId"]}] if "SourceSecurityGroupId" in rule else []
    return {
        "ip_protocol": rule["IpProtocol"],
        "from_port": str(rule.get("FromPort", -1)),
        "to_port": str(rule.get("ToPort", -1)),
        "ip_ranges": ranges,
        "source_groups": groups,
    }


# Load balancing


class LoadBalancer(Resource):
    REPLACES = frozenset({"Name", "Scheme", "Type"})

    def create(self, context, logical, properties):
        balancer = context.elbv2.create_load_balancer(
            name=properties.get("Name") or context.name(logical, 32),
            security_groups=properties.get("SecurityGroups", []),
            subnet_ids=properties.get("Subnets", []),
            scheme=properties.get("Scheme", "internet-facing"),
            loadbalancer_type=properties.get("Type", "application"),
            ip_address_type=properties.get("IpAddressType", "ipv4"),
            tags=properties.get("Tags"),
        )
        self._set_attributes(context, balancer.arn, properties)
        return balancer.arn

    def update(self, context, physical, old, new):
        if old.get("SecurityGroups") != new.get("SecurityGroups"):
            context.elbv2.set_security_groups(physical, new.get("SecurityGroups", []))
        self._set_attributes(context, physical, new)

    def _set_attributes(self, context, physical, properties):
        pairs = properties.get("LoadBalancerAttributes", [])
        context.elbv2.modify_load_balancer_attributes(physical, {p["Key"]: str(p["Value"]) for p in pairs})

    def delete(self, context, physical, properties):
        context.elbv2.delete_load_balancer(physical)

    def attribute(self, context, physical, properties, name):
        balancer = context.elbv2.load_balancers[physical]
        return {
            "DNSName": balancer.dns_name,
            "LoadBalancerArn": physical,
            "LoadBalancerName": balancer.name,
            "LoadBalancerFullName": physical.split(":loadbalancer/", 1)[1],
            "CanonicalHostedZoneID": balancer.canonical_hosted_zone_id,
            "SecurityGroups": balancer.security_groups,
        }[name]


class TargetGroup(Resource):
    REPLACES = frozenset({"Name", "Port", "Protocol", "ProtocolVersion", "TargetType", "VpcId"})

    def create(self, context, logical, properties):
        group = context.elbv2.create_target_group(
            properties.get("Name") or context.name(logical, 32),
            vpc_id=properties.get("VpcId"),
            protocol=properties.get("Protocol"),
            protocol_version=properties.get("ProtocolVersion", "HTTP1"),
            port=int(properties["Port"]),
            healthcheck_protocol=properties.get("HealthCheckProtocol"),
            healthcheck_port=properties.get("HealthCheckPort"),
            healthcheck_path=properties.get("HealthCheckPath", "/"),
            healthcheck_interval_seconds=_int(properties.get("HealthCheckIntervalSeconds")),
            healthcheck_timeout_seconds=_int(properties.get("HealthCheckTimeoutSeconds")),
            healthy_threshold_count=_int(properties.get("HealthyThresholdCount")),
            unhealthy_threshold_count=_int(properties.get("UnhealthyThresholdCount")),
            matcher=properties.get("Matcher"),
            target_type=properties.get("TargetType", "instance"),
            tags=properties.get("Tags"),
        )
        self._set_attributes(context, group.arn, properties)
        return group.arn

    def update(self, context, physical, old, new):
        context.elbv2.modify_target_group(
            physical,
            health_check_path=new.get("HealthCheckPath"),
            health_check_interval=_int(new.get("HealthCheckIntervalSeconds")),
            health_check_timeout=_int(new.get("HealthCheckTimeoutSeconds")),
            healthy_threshold_count=_int(new.get("HealthyThresholdCount")),
            unhealthy_threshold_count=_int(new.get("UnhealthyThresholdCount")),
            http_codes=new.get("Matcher", {}).get("HttpCode"),
        )
        self._set_attributes(context, physical, new)

    def _set_attributes(self, context, physical, properties):
        pairs = properties.get("TargetGroupAttributes", [])
        context.elbv2.modify_target_group_attributes(physical, {p["Key"]: str(p["Value"]) for p in pairs})

    def delete(self, context, physical, properties):
        context.elbv2.delete_target_group(physical)

    def attribute(self, context, physical, properties, name):
        group = context.elbv2.target_groups[physical]
        return {
            "TargetGroupArn": physical,
            "TargetGroupName": group.name,
            "TargetGroupFullName": physical.rsplit(":", 1)[1],
            "LoadBalancerArns": group.load_balancer_arns,
        }[name]


# What a listener with TLS has if nobody says anything.
SSL_POLICY = "ELBSecurityPolicy-2016-08"


class Listener(Resource):
    REPLACES = frozenset({"LoadBalancerArn"})

    def create(self, context, logical, properties):
        return context.elbv2.create_listener(
            load_balancer_arn=properties["LoadBalancerArn"],
            protocol=properties.get("Protocol"),
            port=int(properties["Port"]),
            ssl_policy=properties.get("SslPolicy", SSL_POLICY),
            certificate=properties["Certificates"][0]["CertificateArn"] if properties.get("Certificates") else None,
            actions=actions_of(properties["DefaultActions"]),
        ).arn

    def update(self, context, physical, old, new):
        context.elbv2.modify_listener(
            arn=physical,
            port=int(new["Port"]),
            protocol=new.get("Protocol"),
            ssl_policy=new.get("SslPolicy"),
            # None: it keeps what it has, those of AddListenerCertificates too.
            certificates=new.get("Certificates", []) if new.get("Certificates") != old.get("Certificates") else [],
            actions=actions_of(new["DefaultActions"]),
        )

    def delete(self, context, physical, properties):
        context.elbv2.delete_listener(physical)

    def attribute(self, context, physical, properties, name):
        return {"ListenerArn": physical}[name]


class ListenerCertificate(Resource):
    """Certificates beside the listener's own."""

    REPLACES = frozenset({"ListenerArn"})

    def create(self, context, logical, properties):
        context.elbv2.add_listener_certificates(properties["ListenerArn"], properties["Certificates"])
        return context.name(logical)

    def update(self, context, physical, old, new):
        self.delete(context, physical, old)
        self.create(context, physical, new)

    def delete(self, context, physical, properties):
        context.elbv2.remove_listener_certificates(properties["ListenerArn"], properties["Certificates"])


class ListenerRule(Resource):
    REPLACES = frozenset({"ListenerArn"})

    def create(self, context, logical, properties):
        return context.elbv2.create_rule(
            listener_arn=properties["ListenerArn"],
            conditions=properties["Conditions"],
            priority=int(properties["Priority"]),
            actions=actions_of(properties["Actions"]),
        ).arn

    def update(self, context, physical, old, new):
        context.elbv2.modify_rule(
            rule_arn=physical, conditions=new["Conditions"], actions=actions_of(new["Actions"])
        )

    def delete(self, context, physical, properties):
        context.elbv2.delete_rule(physical)

    def attribute(self, context, physical, properties, name):
        return {"RuleArn": physical, "IsDefault": False}[name]


def actions_of(actions):
    """A copy (moto keeps and changes what it is given) with the numbers that parameters deliver as text."""
    actions = json.loads(json.dumps(actions))
    for action in actions:
        config = action.get("ForwardConfig", {})
        for entry in config.get("TargetGroups", []):
            entry["Weight"] = int(entry.get("Weight", 1))
        stickiness = config.get("TargetGroupStickinessConfig")
        if stickiness:
            stickiness["Enabled"] = str(stickiness.get("Enabled", False)).lower() == "true"
            if "DurationSeconds" in stickiness:
                stickiness["DurationSeconds"] = int(stickiness["DurationSeconds"])
    return actions


# ECS

class Cluster(Resource):
    REPLACES = frozenset({"ClusterName"})

    def create(self, context, logical, properties):
        name = properties.get("ClusterName") or context.name(logical, 255)
        context.call_ecs("CreateCluster", **{**ecs_members(properties), "clusterName": name})
        return name

    def delete(self, context, physical, properties):
        context.call_ecs("DeleteCluster", cluster=physical)

    def attribute(self, context, physical, properties, name):
        return {"Arn": context.ecs.clusters[physical]["clusterArn"]}[name]


class Everything:
    def __contains__(self, _):
        return True


class TaskDefinition(Resource):
    # A revision never changes.
    REPLACES = Everything()

    def create(self, context, logical, properties):
        request = ecs_members(properties)
        request.setdefault("family", context.name(logical, 255))
        for name in ("cpu", "memory"):
            if name in request:
                request[name] = str(request[name])
        for container in request["containerDefinitions"]:
            for name in ("cpu", "memory", "memoryReservation"):
                if name in container:
                    container[name] = int(container[name])
        return context.call_ecs("RegisterTaskDefinition", **request)["taskDefinition"]["taskDefinitionArn"]

    def delete(self, context, physical, properties):
        context.call_ecs("DeregisterTaskDefinition", taskDefinition=physical)

    def attribute(self, context, physical, properties, name):
        return {"TaskDefinitionArn": physical}[name]


class Service(Resource):
    REPLACES = frozenset({"Cluster", "ServiceName", "LaunchType", "SchedulingStrategy"})

    def create(self, context, logical, properties):
        request = self._request(properties)
        request.setdefault("serviceName", context.name(logical, 255))
        request.setdefault("desiredCount", 1)
        return context.call_ecs("CreateService", **request)["service"]["serviceArn"]

    def update(self, context, physical, old, new):
        request = self._request(new)
        changeable = ("taskDefinition", "desiredCount", *ecs.SETTINGS, *ecs.REDEPLOYS)
        request = {name: request[name] for name in changeable if name in request}
        context.call_ecs("UpdateService", cluster=new.get("Cluster"), service=physical, **request)

    def settle(self, context, physical, properties):
        """CloudFormation waits for a steady service, and so time passes here without anybody looking."""
        service = ecs.find_service(context.ecs, {"cluster": properties.get("Cluster")}, physical)
        wanted = service.deployments[0].definition
        for _ in range(MAX_TICKS):
            service.tick()
            if any(d.state == "FAILED" and d.definition is wanted for d in service.deployments):
                raise Failed(handler_message("Error occurred during operation 'ECS Deployment Circuit Breaker was triggered'.", "GeneralServiceException"))
            if service.settled():
                # One more, for the targets of tasks that started last to become healthy.
                service.tick()
                return
        raise Failed(handler_message("Exceeded attempts to wait", "NotStabilized"))

    def _request(self, properties):
        request = ecs_members(properties)
        if "cluster" in request:
            request["cluster"] = ecs.tail(request["cluster"])
        return request

    def delete(self, context, physical, properties):
        cluster = properties.get("Cluster")
        context.call_ecs("DeleteService", cluster=cluster, service=physical, force=True)

    def attribute(self, context, physical, properties, name):
        return {"Name": ecs.tail(physical), "ServiceArn": physical}[name]


def handler_message(text, code):
    token = hex_id(32)
    return f'Resource handler returned message: "{text}" (RequestToken: {token}, HandlerErrorCode: {code})'


# IAM and logs


class Role(Resource):
    REPLACES = frozenset({"RoleName", "Path"})

    def create(self, context, logical, properties):
        name = properties.get("RoleName") or context.name(logical, 64)
        context.iam.create_role(
            role_name=name,
            assume_role_policy_document=json.dumps(properties["AssumeRolePolicyDocument"]),
            path=properties.get("Path", "/"),
            permissions_boundary=None,
            description=properties.get("Description", ""),
            tags=properties.get("Tags", []),
            max_session_duration="3600",
        )
        self._set_policies(context, name, properties)
        return name

    def update(self, context, physical, old, new):
        self._clear(context, physical)
        self._set_policies(context, physical, new)

    def _set_policies(self, context, name, properties):
        for arn in properties.get("ManagedPolicyArns", []):
            self._provide(context, arn)
            context.iam.attach_role_policy(arn, name)
        for policy in properties.get("Policies", []):
            context.iam.put_role_policy(name, policy["PolicyName"], json.dumps(policy["PolicyDocument"]))

    def _provide(self, context, arn):
        """A stand-in for one of AWS's own policies: moto would read all of them, which takes seconds."""
        path, _, name = arn.split(":policy", 1)[1].rpartition("/")
        if ":iam::aws:" in arn and arn not in context.iam.managed_policies:
            context.iam.managed_policies[arn] = AWSManagedPolicy(
                name, account_id=ACCOUNT, region=context.region, path=f"{path}/", document="{}"
            )

    def _clear(self, context, name):
        role = context.iam.get_role(name)
        for arn in list(role.managed_policies):
            context.iam.detach_role_policy(arn, name)
        for policy in list(role.policies):
            context.iam.delete_role_policy(name, policy)

    def delete(self, context, physical, properties):
        self._clear(context, physical)
        context.iam.delete_role(physical)

    def attribute(self, context, physical, properties, name):
        role = context.iam.get_role(physical)
        return {"Arn": role.arn, "RoleId": role.id}[name]


class LogGroup(Resource):
    REPLACES = frozenset({"LogGroupName"})

    def create(self, context, logical, properties):
        name = properties.get("LogGroupName") or context.name(logical, 512)
        context.logs.create_log_group(name, tags_of(properties))
        self.update(context, name, {}, properties)
        return name

    def update(self, context, physical, old, new):
        if "RetentionInDays" in new:
            context.logs.put_retention_policy(physical, int(new["RetentionInDays"]))

    def delete(self, context, physical, properties):
        context.logs.delete_log_group(physical)

    def attribute(self, context, physical, properties, name):
        return {"Arn": f"arn:aws:logs:{context.region}:{ACCOUNT}:log-group:{physical}:*"}[name]


class WaitConditionHandle(Resource):
    """Does nothing; templates use it as a placeholder."""

    def create(self, context, logical, properties):
        return context.name(logical)


def _int(value):
    return None if value is None else int(value)


TYPES = {
    "AWS::CloudFormation::WaitConditionHandle": WaitConditionHandle(),
    "AWS::EC2::InternetGateway": InternetGateway(),
    "AWS::EC2::Route": Route(),
    "AWS::EC2::RouteTable": RouteTable(),
    "AWS::EC2::SecurityGroup": SecurityGroup(),
    "AWS::EC2::SecurityGroupIngress": SecurityGroupIngress(),
    "AWS::EC2::Subnet": Subnet(),
    "AWS::EC2::SubnetRouteTableAssociation": SubnetRouteTableAssociation(),
    "AWS::EC2::VPC": Vpc(),
    "AWS::EC2::VPCGatewayAttachment": VpcGatewayAttachment(),
    "AWS::ECS::Cluster": Cluster(),
    "AWS::ECS::Service": Service(),
    "AWS::ECS::TaskDefinition": TaskDefinition(),
    "AWS::ElasticLoadBalancingV2::Listener": Listener(),
    "AWS::ElasticLoadBalancingV2::ListenerCertificate": ListenerCertificate(),
    "AWS::ElasticLoadBalancingV2::ListenerRule": ListenerRule(),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": LoadBalancer(),
    "AWS::ElasticLoadBalancingV2::TargetGroup": TargetGroup(),
    "AWS::IAM::Role": Role(),
    "AWS::Logs::LogGroup": LogGroup(),
}


def type_of(name):
    if name not in TYPES:
        raise ApiError("ValidationError", f"Template format error: Unrecognized resource types: [{name}]")
    return TYPES[name]

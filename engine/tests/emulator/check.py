"""Asserts by boto3 what the engine's tests rely on: `check.py http://127.0.0.1:PORT`. The emulator is reset first."""

import json
import os
import sys
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

os.environ.update(
    AWS_EC2_METADATA_DISABLED="true",
    AWS_ACCESS_KEY_ID="check",
    AWS_SECRET_ACCESS_KEY="check",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
)

import boto3
from botocore.exceptions import ClientError

ENDPOINT = sys.argv[1]
TESTS = Path(__file__).resolve().parent.parent
TEMPLATES = {
    "prototype canary": TESTS / "fixtures/prototypes/canary.yml",
    "prototype blue/green": TESTS / "fixtures/prototypes/blue-green.yml",
    "canary": TESTS.parent.parent / "examples/cloudformation/canary.yaml",
    "blue/green": TESTS.parent.parent / "examples/cloudformation/blue-green.yaml",
}

cfn, ecs, elbv2, cloudwatch, ec2 = (
    boto3.client(name, endpoint_url=ENDPOINT) for name in ("cloudformation", "ecs", "elbv2", "cloudwatch", "ec2")
)


def post(path, **body):
    request = urllib.request.Request(ENDPOINT + path, json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or b"{}")


def equal(got, wanted):
    assert got == wanted, f"got {got!r}, wanted {wanted!r}"


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        equal(error.response["Error"]["Code"], code)
        return error.response["Error"]["Message"]
    raise AssertionError(f"{code} expected, but the call went through")


# Stacks


def images(template, **tags):
    colours = ("Blue", "Green") if "blue" in template else ("Stable", "Canary")
    return {f"ImageURI{c}": f"app:{tags.get(c.lower(), '1')}" for c in colours}


def parameters(values):
    return [{"ParameterKey": k, "ParameterValue": str(v)} for k, v in values.items()]


def change(name, template, kind, **values):
    """Makes a change set and tells what it says."""
    known = {}
    if kind == "UPDATE":
        known = {p["ParameterKey"]: p["ParameterValue"] for p in stack(name)["Parameters"]}
    arguments = {"TemplateBody": TEMPLATES[template].read_text()} if kind == "CREATE" else {"UsePreviousTemplate": True}
    change_set = cfn.create_change_set(
        StackName=name, ChangeSetName=f"c-{os.urandom(4).hex()}", ChangeSetType=kind,
        Capabilities=["CAPABILITY_NAMED_IAM"], Parameters=parameters({**known, **values}), **arguments,
    )["Id"]
    return cfn.describe_change_set(ChangeSetName=change_set)


def deploy(name, template, kind="CREATE", **values):
    """Deploys and polls to the end; the statuses on the way."""
    described = change(name, template, kind, **values)
    equal(described["Status"], "CREATE_COMPLETE")
    cfn.execute_change_set(ChangeSetName=described["ChangeSetId"])
    return poll(name)


def poll(name):
    statuses = [stack(name)["StackStatus"]]
    while statuses[-1].endswith("IN_PROGRESS"):
        statuses.append(stack(name)["StackStatus"])
    return statuses


def stack(name):
    return cfn.describe_stacks(StackName=name)["Stacks"][0]


def outputs(name):
    return {o["OutputKey"]: o["OutputValue"] for o in stack(name)["Outputs"]}


def resource(name, logical):
    rows = cfn.list_stack_resources(StackName=name)["StackResourceSummaries"]
    return next(r["PhysicalResourceId"] for r in rows if r["LogicalResourceId"] == logical)


def forward(listener):
    return elbv2.describe_listeners(ListenerArns=[listener])["Listeners"][0]["DefaultActions"][0]["ForwardConfig"]


def weights(listener):
    return [t["Weight"] for t in forward(listener)["TargetGroups"]]


def set_weights(listener, *new, stickiness=None):
    groups = [{**t, "Weight": w} for t, w in zip(forward(listener)["TargetGroups"], new)]
    config = {"TargetGroups": groups, **({"TargetGroupStickinessConfig": stickiness} if stickiness else {})}
    elbv2.modify_listener(ListenerArn=listener, DefaultActions=[{"Type": "forward", "ForwardConfig": config}])


def every_template_comes_and_goes_without_a_trace():
    before = len(ec2.describe_vpcs()["Vpcs"])
    for template in TEMPLATES:
        equal(deploy("all", template, **images(template)), ["CREATE_IN_PROGRESS"] * 2 + ["CREATE_COMPLETE"])
        equal(outputs("all")["ALBDNS"], "localhost")
        stack_id = stack("all")["StackId"]
        cfn.delete_stack(StackName="all")
        equal(poll(stack_id), ["DELETE_IN_PROGRESS"] * 2 + ["DELETE_COMPLETE"])
        refused("ValidationError", cfn.describe_stacks, StackName="all")
        equal(cfn.describe_stack_events(StackName=stack_id)["StackEvents"][0]["ResourceStatus"], "DELETE_COMPLETE")
        equal(elbv2.describe_target_groups()["TargetGroups"], [])
        equal(ecs.list_clusters()["clusterArns"], [])
        equal(len(ec2.describe_vpcs()["Vpcs"]), before)


def drift_is_treated_as_cloudformation_treats_it():
    deploy("drift", "prototype canary", **images("canary"))
    listener = outputs("drift")["ListenerArn"]
    equal(weights(listener), [95, 5])
    set_weights(listener, 70, 30)
    same = change("drift", "prototype canary", "UPDATE", StableWeight=95)
    equal((same["Status"], same["ExecutionStatus"]), ("FAILED", "UNAVAILABLE"))
    assert same["StatusReason"].startswith("The submitted information didn't contain changes."), same["StatusReason"]
    deploy("drift", "prototype canary", "UPDATE", DesiredCountStable=3)
    equal(weights(listener), [70, 30])
    planned = change("drift", "prototype canary", "UPDATE", StableWeight=90)["Changes"]
    equal([c["ResourceChange"]["LogicalResourceId"] for c in planned], ["Listener"])
    equal(planned[0]["ResourceChange"]["Details"][0]["Target"]["Name"], "DefaultActions")
    deploy("drift", "prototype canary", "UPDATE", StableWeight=90, CanaryWeight=10)
    equal(weights(listener), [90, 10])


def a_parameter_behind_a_condition_moves_the_listener():
    deploy("colours", "blue/green", **images("blue"))
    listeners = outputs("colours")["ListenerArn"], outputs("colours")["TestListenerArn"]
    equal([weights(a) for a in listeners], [[100, 0], [0, 100]])
    deploy("colours", "blue/green", "UPDATE", ActiveColor="green")
    equal([weights(a) for a in listeners], [[0, 100], [100, 0]])


def a_broken_image_rolls_the_stack_back():
    equal(deploy("bad", "canary", **images("canary", canary="broken"))[-1], "ROLLBACK_COMPLETE")
    events = cfn.describe_stack_events(StackName="bad")["StackEvents"]
    reasons = {e["LogicalResourceId"]: e["ResourceStatusReason"] for e in events if e["ResourceStatus"] == "CREATE_FAILED"}
    assert "Circuit Breaker was triggered" in reasons["CanaryService"], reasons
    cfn.delete_stack(StackName="bad")
    deploy("good", "canary", **images("canary"))
    equal(deploy("good", "canary", "UPDATE", ImageURICanary="app:broken")[-1], "UPDATE_ROLLBACK_COMPLETE")
    values = {p["ParameterKey"]: p["ParameterValue"] for p in stack("good")["Parameters"]}
    equal(values["ImageURICanary"], "app:1")
    now = look("good", "good-canary")
    equal((now["taskDefinition"].rsplit(":", 1)[1], now["runningCount"]), ("1", 1))


def a_stack_fails_where_a_script_says():
    post("/shim/cloudformation", fail={"Cluster": "no such luck"}, polls=0)
    equal(deploy("script", "canary", **images("canary")), ["ROLLBACK_COMPLETE"])
    post("/shim/cloudformation", fail=None)
    cfn.delete_stack(StackName="script")
    equal(deploy("script", "canary", **images("canary")), ["CREATE_COMPLETE"])
    extra = ecs.create_service(cluster="script", serviceName="extra", taskDefinition="script-stable", desiredCount=0)
    stack_id = stack("script")["StackId"]
    cfn.delete_stack(StackName="script")
    equal(poll(stack_id), ["DELETE_FAILED"])
    ecs.delete_service(cluster="script", service=extra["service"]["serviceName"])
    cfn.delete_stack(StackName="script")
    equal(poll(stack_id), ["DELETE_COMPLETE"])


def load_balancing_refuses_what_alb_refuses():
    deploy("refuse", "prototype canary", **images("canary"))
    listener = outputs("refuse")["ListenerArn"]
    refused("ValidationError", set_weights_raw, listener=listener, weight=1000)
    refused("ValidationError", set_weights_raw, listener=listener, weight=-1)
    refused("TargetGroupNotFound", set_weights_raw, listener=listener, weight=1, suffix="x")
    refused("TargetGroupAssociationLimit", set_weights_raw, listener=listener, weight=1, times=6)
    set_weights(listener, 60, 40, stickiness={"Enabled": True, "DurationSeconds": 60})
    equal(forward(listener)["TargetGroupStickinessConfig"], {"Enabled": True, "DurationSeconds": 60})
    set_weights(listener, 50, 50)
    equal(forward(listener)["TargetGroupStickinessConfig"], {"Enabled": False})
    zones = elbv2.describe_load_balancers()["LoadBalancers"][0]["AvailabilityZones"]
    equal([z["ZoneName"] for z in zones], ["us-east-1a", "us-east-1b"])


def a_client_secret_goes_in_and_never_comes_out():
    deploy("shop", "prototype canary", **images("prototype canary"))
    listener = outputs("shop")["ListenerArn"]
    urls = {f"{name}Endpoint": f"https://login.example/{name}" for name in ("Authorization", "Token", "UserInfo")}
    config = {"Issuer": "https://login.example", "ClientId": "shop", **urls}
    after = {"Type": "forward", "Order": 2, "ForwardConfig": forward(listener)}

    def login(**more):
        action = {"Type": "authenticate-oidc", "Order": 1, "AuthenticateOidcConfig": {**config, **more}}
        return {"ListenerArn": listener, "DefaultActions": [action, after]}

    refused("InvalidLoadBalancerAction", elbv2.modify_listener, **login())
    elbv2.modify_listener(**login(ClientSecret="secret"))
    equal(elbv2.describe_listeners(ListenerArns=[listener])["Listeners"][0]["DefaultActions"][0]["AuthenticateOidcConfig"], config)
    elbv2.modify_listener(**login(UseExistingClientSecret=True))


def balancers_are_called_by_their_kind():
    subnets = [s["SubnetId"] for s in ec2.describe_subnets()["Subnets"][:2]]
    for kind, word in (("application", "app"), ("network", "net")):
        made = elbv2.create_load_balancer(Name=word, Subnets=subnets, Type=kind, Tags=[{"Key": "k", "Value": "v"}])
        arn = made["LoadBalancers"][0]["LoadBalancerArn"]
        assert f":loadbalancer/{word}/{word}/" in arn, arn
        equal(elbv2.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"][0]["Scheme"], "internet-facing")
        equal(elbv2.describe_tags(ResourceArns=[arn])["TagDescriptions"][0]["Tags"], [{"Key": "k", "Value": "v"}])


def capacity_providers_stand_in_for_a_launch_type():
    ecs.create_cluster(clusterName="c", capacityProviders=["FARGATE"])
    ecs.register_task_definition(family="f", containerDefinitions=[{"name": "app", "image": "app:1"}])
    strategy = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 1}]}
    other = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
    service = {"cluster": "c", "serviceName": "s", "taskDefinition": "f", "desiredCount": 1}
    refused("InvalidParameterException", ecs.create_service, **service, **strategy, launchType="FARGATE")
    refused("InvalidParameterException", ecs.create_service, **service, **other)
    ecs.create_service(**service, **strategy)
    seen = ecs.describe_services(cluster="c", services=["s"])["services"][0]
    assert "launchType" not in seen, seen
    equal(seen["deployments"][0]["capacityProviderStrategy"][0]["capacityProvider"], "FARGATE")
    refused("InvalidParameterException", ecs.update_service, cluster="c", service="s", **other)


def set_weights_raw(listener, weight, suffix="", times=1):
    arn = forward(listener)["TargetGroups"][0]["TargetGroupArn"] + suffix
    groups = [{"TargetGroupArn": arn, "Weight": weight}] * times
    elbv2.modify_listener(
        ListenerArn=listener, DefaultActions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}]
    )


# Services


def look(cluster, service):
    """One tick."""
    return ecs.describe_services(cluster=cluster, services=[service])["services"][0]


def health(group):
    rows = elbv2.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    return {r["Target"]["Id"]: r["TargetHealth"]["State"] for r in rows}


def rollouts(service):
    return [(d["status"], d["rolloutState"]) for d in service["deployments"]]


def new_version(definition, tag):
    old = ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]
    keep = ("family", "networkMode", "cpu", "memory", "executionRoleArn", "requiresCompatibilities")
    container = {**old["containerDefinitions"][0], "image": f"app:{tag}"}
    new = ecs.register_task_definition(
        **{k: old[k] for k in keep}, containerDefinitions=[container], tags=[{"key": "rollout", "value": tag}],
        runtimePlatform={"cpuArchitecture": "ARM64"},
    )["taskDefinition"]
    return new["taskDefinitionArn"]


def one_service():
    deploy("svc", "canary", **images("canary"))
    return "svc", "svc-stable", outputs("svc")["StableTargetGroupArn"]


def a_rollout_takes_its_ticks():
    cluster, name, group = one_service()
    equal(health(group), {"127.0.0.1": "healthy", "127.0.0.2": "healthy"})
    new = new_version("svc-stable", "2")
    equal(ecs.describe_task_definition(taskDefinition=new, include=["TAGS"])["tags"], [{"key": "rollout", "value": "2"}])
    newest = ecs.list_task_definitions(familyPrefix="svc-stable", sort="DESC", maxResults=1)["taskDefinitionArns"]
    equal(newest, [new])
    started = ecs.update_service(cluster=cluster, service=name, taskDefinition=new)["service"]
    equal(rollouts(started), [("PRIMARY", "IN_PROGRESS"), ("ACTIVE", "COMPLETED")])
    equal(rollouts(look(cluster, name)), [("PRIMARY", "IN_PROGRESS"), ("ACTIVE", "COMPLETED")])
    states = health(group)
    equal((states["127.0.0.1"], states["127.0.0.3"]), ("healthy", "initial"))
    done = look(cluster, name)
    equal((rollouts(done), done["runningCount"]), ([("PRIMARY", "COMPLETED")], 2))
    states = health(group)
    equal((states["127.0.0.1"], states["127.0.0.3"]), ("draining", "healthy"))
    look(cluster, name), look(cluster, name)
    equal(health(group), {"127.0.0.3": "healthy", "127.0.0.4": "healthy"})
    same = ecs.update_service(cluster=cluster, service=name, taskDefinition=new, desiredCount=2)["service"]
    equal(rollouts(same), [("PRIMARY", "COMPLETED")])


def scaling_takes_a_tick():
    cluster, name, group = one_service()
    ecs.update_service(cluster=cluster, service=name, desiredCount=3)
    grown = look(cluster, name)
    equal((grown["runningCount"], grown["deployments"][0]["runningCount"], health(group)["127.0.0.3"]), (3, 3, "initial"))
    look(cluster, name)
    equal(set(health(group).values()), {"healthy"})
    ecs.update_service(cluster=cluster, service=name, desiredCount=1)
    equal(look(cluster, name)["runningCount"], 1)
    equal(sorted(health(group).values()), ["draining", "draining", "healthy"])


def the_circuit_breaker_brings_the_old_version_back():
    cluster, name, group = one_service()
    old = look(cluster, name)["taskDefinition"]
    ecs.update_service(cluster=cluster, service=name, taskDefinition=new_version("svc-stable", "broken"))
    failing = [look(cluster, name)["deployments"][0]["failedTasks"] for _ in range(2)]
    equal(failing, [1, 2])
    back = look(cluster, name)
    equal(rollouts(back), [("PRIMARY", "IN_PROGRESS"), ("ACTIVE", "FAILED"), ("ACTIVE", "COMPLETED")])
    equal((back["taskDefinition"], back["runningCount"]), (old, 2))
    equal(back["deployments"][1]["rolloutStateReason"], "ECS deployment circuit breaker: tasks failed to start.")
    assert "rolling back to deploymentId ecs-svc/" in back["deployments"][0]["rolloutStateReason"]
    tasks = ecs.list_tasks(cluster=cluster, serviceName=name, desiredStatus="STOPPED")["taskArns"]
    reason = ecs.describe_tasks(cluster=cluster, tasks=tasks)["tasks"][0]["stoppedReason"]
    assert reason.startswith("CannotPullContainerError") and "app:broken: not found" in reason, reason
    listed = [len(look(cluster, name)["deployments"]) for _ in range(8)]
    equal(listed, [3, 2, 2, 2, 2, 2, 1, 1])
    equal(health(group), {"127.0.0.1": "healthy", "127.0.0.2": "healthy"})


def unhealthy_and_slow_images_and_scripts():
    cluster, name, group = one_service()
    ecs.update_service(cluster=cluster, service=name, taskDefinition=new_version("svc-stable", "unhealthy"))
    look(cluster, name), look(cluster, name)
    rows = elbv2.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    sick = [r["TargetHealth"] for r in rows if r["TargetHealth"]["State"] == "unhealthy"]
    equal((len(sick), sick[0]["Reason"]), (2, "Target.ResponseCodeMismatch"))
    look(cluster, name), look(cluster, name)
    equal(rollouts(look(cluster, name))[1], ("ACTIVE", "FAILED"))
    ecs.update_service(cluster=cluster, service=name, taskDefinition=new_version("svc-stable", "slow"))
    equal([look(cluster, name)["deployments"][0]["rolloutState"] for _ in range(12)], ["IN_PROGRESS"] * 11 + ["COMPLETED"])
    post("/shim/ecs", cluster=cluster, service=name, settle=1, fail="no capacity")
    ecs.update_service(cluster=cluster, service=name, forceNewDeployment=True)
    equal(look(cluster, name)["deployments"][0]["failedTasks"], 1)
    post("/shim/ecs", cluster=cluster, service=name, fail=None)
    equal(rollouts(look(cluster, name)), [("PRIMARY", "COMPLETED")])
    look(cluster, name), look(cluster, name), look(cluster, name)
    post("/shim/ecs/kill", cluster=cluster, service=name, tasks=1)
    equal(sorted(health(group).values()), ["healthy", "unhealthy"])
    post("/shim/ecs/crash", cluster=cluster, service=name, memory=True, at=[1930000000])
    stopped = ecs.list_tasks(cluster=cluster, serviceName=name, desiredStatus="STOPPED")["taskArns"]
    tasks = ecs.describe_tasks(cluster=cluster, tasks=stopped)["tasks"]
    [task] = [t for t in tasks if t["stopCode"] == "EssentialContainerExited"]
    container = task["containers"][0]
    equal((task["stopCode"], container["exitCode"], task["stoppedAt"].timestamp()), ("EssentialContainerExited", 137, 1930000000.0))
    equal(container["reason"].partition(":")[0], "OutOfMemoryError")
    equal(look(cluster, name)["runningCount"], 2)


# Metrics

START = datetime(2031, 5, 1, 12, 0, tzinfo=timezone.utc)
DIMENSIONS = [{"Name": "TargetGroup", "Value": "targetgroup/a/1"}, {"Name": "LoadBalancer", "Value": "app/a/1"}]


def put(name, values, at, counts=None):
    datum = {"MetricName": name, "Dimensions": DIMENSIONS, "Timestamp": at, "Values": values}
    if counts:
        datum["Counts"] = counts
    cloudwatch.put_metric_data(Namespace="AWS/ApplicationELB", MetricData=[datum])


def query(identifier, name, stat, period=60, hidden=False):
    metric = {"Namespace": "AWS/ApplicationELB", "MetricName": name, "Dimensions": DIMENSIONS[::-1]}
    return {"Id": identifier, "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}, "ReturnData": not hidden}


def read(*queries, minutes=5, start=START):
    answer = cloudwatch.get_metric_data(
        MetricDataQueries=list(queries), StartTime=start, EndTime=start + timedelta(minutes=minutes), ScanBy="TimestampAscending"
    )
    return {r["Id"]: list(zip(r["Timestamps"], r["Values"])) for r in answer["MetricDataResults"]}


def metrics_are_bucketed_and_counted():
    minute = timedelta(minutes=1)
    put("RequestCount", [100.0], START + timedelta(seconds=20))
    put("RequestCount", [50.0], START + timedelta(seconds=59))
    put("RequestCount", [200.0], START + 2 * minute)
    put("HTTPCode_Target_5XX_Count", [3.0], START + 2 * minute)
    put("TargetResponseTime", [0.1, 0.5, 0.9], START, counts=[90.0, 9.0, 1.0])
    got = read(
        query("requests", "RequestCount", "Sum"),
        query("errors", "HTTPCode_Target_5XX_Count", "Sum"),
        query("n", "TargetResponseTime", "SampleCount"),
        query("p50", "TargetResponseTime", "p50"),
        query("p995", "TargetResponseTime", "p99.5"),
        query("slow", "TargetResponseTime", "TC(0.5:)"),
        query("slower", "TargetResponseTime", "TC(0.1:0.5)"),
        query("nothing", "HealthyHostCount", "Minimum"),
        {"Id": "rate", "Expression": "FILL(errors,0)/requests*100"},
        {"Id": "both", "Expression": "SUM([requests,errors])"},
    )
    equal(got["requests"], [(START, 150.0), (START + 2 * minute, 200.0)])
    equal(got["errors"], [(START + 2 * minute, 3.0)])
    equal([got[k][0][1] for k in ("n", "p50", "p995", "slow", "slower")], [100.0, 0.1, 0.9, 1.0, 9.0])
    equal(got["nothing"], [])
    equal([v for _, v in got["rate"]], [0.0, 1.5])
    equal([v for _, v in got["both"]], [150.0, 203.0])
    # Periods are aligned to the clock wherever the question starts.
    later = read(query("requests", "RequestCount", "Sum"), start=START + timedelta(seconds=30))
    equal(later["requests"][0], (START, 150.0))
    post("/shim/cloudwatch", hide_newer_than=int((START + minute).timestamp() * 1000))
    equal(len(read(query("requests", "RequestCount", "Sum"))["requests"]), 1)
    post("/shim/cloudwatch", hide_newer_than=None)
    refused("ValidationError", read_bad)
    equal(len(cloudwatch.list_metrics(Namespace="AWS/ApplicationELB", MetricName="RequestCount")["Metrics"]), 1)


def read_bad():
    read(query("a", "RequestCount", "Median"))


def alarms_ring_when_told():
    cloudwatch.put_metric_alarm(
        AlarmName="guard", Namespace="N", MetricName="M", Period=60, EvaluationPeriods=1, Threshold=1.0,
        Statistic="Sum", ComparisonOperator="GreaterThanThreshold",
    )
    equal(cloudwatch.describe_alarms(AlarmNames=["guard"])["MetricAlarms"][0]["StateValue"], "INSUFFICIENT_DATA")
    cloudwatch.set_alarm_state(AlarmName="guard", StateValue="ALARM", StateReason="test")
    alarm = cloudwatch.describe_alarms(AlarmNames=["guard"])["MetricAlarms"][0]
    equal((alarm["StateValue"], alarm["Threshold"]), ("ALARM", 1.0))
    refused("ResourceNotFound", cloudwatch.set_alarm_state, AlarmName="x", StateValue="OK", StateReason="y")


CHECKS = [
    every_template_comes_and_goes_without_a_trace,
    drift_is_treated_as_cloudformation_treats_it,
    a_parameter_behind_a_condition_moves_the_listener,
    a_broken_image_rolls_the_stack_back,
    a_stack_fails_where_a_script_says,
    load_balancing_refuses_what_alb_refuses,
    a_client_secret_goes_in_and_never_comes_out,
    balancers_are_called_by_their_kind,
    capacity_providers_stand_in_for_a_launch_type,
    a_rollout_takes_its_ticks,
    scaling_takes_a_tick,
    the_circuit_breaker_brings_the_old_version_back,
    unhealthy_and_slow_images_and_scripts,
    metrics_are_bucketed_and_counted,
    alarms_ring_when_told,
]


def main():
    failed = 0
    for check in CHECKS:
        post("/moto-api/reset")
        try:
            check()
        except Exception as error:
            failed += 1
            line = error.__traceback__.tb_next.tb_lineno
            print(f"FAILED {check.__name__}, line {line}: {error}")
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

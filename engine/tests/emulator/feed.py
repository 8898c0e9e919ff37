"""Users of a service behind a weighted listener, at the speed of real clocks.

    feed.py LISTENER BALANCER CLUSTER STABLE-SERVICE CANARY-SERVICE
    feed.py STACK                    a stack of the engine's canary template, whose outputs say the same

They are split by the weights that the listener has every few seconds. What the load balancer would count of a minute comes
to CloudWatch two minutes after the minute has ended. A version whose tag is `bad` answers one request of twenty with an
error, every other one of a thousand. Ends when its standard input is closed, and prints then what the users met, as JSON.
"""

import collections
import json
import random
import signal
import sys
import threading
import time

import boto3

RATE = 50  # requests per second
TICK = 3.0  # seconds
LATE = 120  # seconds
PAST = 20  # minutes of traffic before all this
BAD = 0.05
USUAL = 0.001

elbv2, ecs, cloudwatch, cloudformation = (
    boto3.client(name) for name in ("elbv2", "ecs", "cloudwatch", "cloudformation")
)
users = random.Random(1)


class Minute:
    def __init__(self):
        self.requests = self.errors = 0
        self.times = collections.Counter()  # milliseconds

    def serve(self, requests, failing):
        errors = sum(users.random() < failing for _ in range(requests))
        self.requests += requests
        self.errors += errors
        for _ in range(requests):
            self.times[min(150, int(20 + users.expovariate(1 / 15)))] += 1
        return errors


class Balancer:
    def __init__(self, listener, balancer, cluster, services):
        self.listener, self.name = listener, balancer.split(":loadbalancer/", 1)[1]
        self.cluster, self.services = cluster, services
        described = ecs.describe_services(cluster=cluster, services=services)["services"]
        self.groups = [s["loadBalancers"][0]["targetGroupArn"] for s in described]
        self.minutes = collections.defaultdict(Minute)  # (start of the minute, arm)

    def shares(self):
        action = elbv2.describe_listeners(ListenerArns=[self.listener])["Listeners"][0]["DefaultActions"][-1]
        weights = {g["TargetGroupArn"]: g["Weight"] for g in action["ForwardConfig"]["TargetGroups"]}
        return [weights.get(group, 0) / sum(weights.values()) for group in self.groups]

    def is_bad(self):
        """Whether each arm runs the bad version."""
        running = ecs.describe_services(cluster=self.cluster, services=self.services)["services"]
        definitions = (ecs.describe_task_definition(taskDefinition=s["taskDefinition"]) for s in running)
        containers = (d["taskDefinition"]["containerDefinitions"] for d in definitions)
        return [any(c["image"].endswith(":bad") for c in all_of) for all_of in containers]

    def deliver(self, until):
        """Everything about minutes that began before that moment."""
        for start, arm in sorted(key for key in self.minutes if key[0] < until):
            minute = self.minutes.pop((start, arm))
            group = self.groups[arm].rsplit(":", 1)[1]
            dimensions = [{"Name": "TargetGroup", "Value": group}, {"Name": "LoadBalancer", "Value": self.name}]
            counts = {
                "RequestCount": minute.requests,
                "HTTPCode_Target_2XX_Count": minute.requests - minute.errors,
                "HTTPCode_Target_5XX_Count": minute.errors,
            }
            at = {"Dimensions": dimensions, "Timestamp": start}
            data = [{"MetricName": name, "Value": float(count), **at} for name, count in counts.items() if count]
            values, times = zip(*sorted(minute.times.items()))
            seconds = [value / 1000 for value in values]
            data.append({"MetricName": "TargetResponseTime", "Values": seconds, "Counts": [float(n) for n in times], **at})
            cloudwatch.put_metric_data(Namespace="AWS/ApplicationELB", MetricData=data)


def of_stack(name):
    outputs = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    listener = outputs["ListenerArn"]
    balancer = elbv2.describe_listeners(ListenerArns=[listener])["Listeners"][0]["LoadBalancerArn"]
    return [listener, balancer, *(outputs[key] for key in ("ClusterName", "StableServiceName", "CanaryServiceName"))]


def main():
    arguments = sys.argv[1:]
    listener, balancer, cluster, *services = of_stack(*arguments) if len(arguments) == 1 else arguments
    balancer = Balancer(listener, balancer, cluster, services)
    this_minute = int(time.time()) // 60 * 60
    for start in range(this_minute - 60 * PAST, this_minute, 60):
        balancer.minutes[start, 0].serve(RATE * 60, USUAL)
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    signal.signal(signal.SIGINT, lambda *_: over.set())
    met = {"requests": 0, "errors": 0, "of-the-bad": 0, "hit": 0, "seconds": 0.0}
    last, first_bad = time.time(), None
    while not over.wait(TICK):
        now = time.time()
        requests, last = round(RATE * (now - last)), now
        for arm, (share, bad) in enumerate(zip(balancer.shares(), balancer.is_bad())):
            if not share:
                continue
            served = round(requests * share)
            errors = balancer.minutes[int(now) // 60 * 60, arm].serve(served, BAD if bad else USUAL)
            met["requests"] += served
            met["errors"] += errors
            if bad:
                first_bad = first_bad or now - TICK
                met["seconds"] = round(now - first_bad, 1)
                met["of-the-bad"] += served
                met["hit"] += errors
        balancer.deliver(until=now - 60 - LATE)
    print(json.dumps(met), flush=True)


if __name__ == "__main__":
    main()

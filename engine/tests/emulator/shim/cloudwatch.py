"""CloudWatch's operations. Times in answers are `At`, which each protocol writes in its own way."""

import time

from . import metrics
from .common import ACCOUNT, ApiError, paginate


class At(float):
    """Seconds since 1970."""


class Region:
    def __init__(self):
        self.store = metrics.Store()
        self.alarms = {}


regions = {}


def region(name):
    if name not in regions:
        regions[name] = Region()
    return regions[name]


def reset():
    regions.clear()


def handle(region_name, operation, request):
    handler = OPERATIONS.get(operation)
    if handler is None:
        raise ApiError("UnknownOperationException", f"The emulator has no CloudWatch operation {operation}", 404)
    return handler(region_name, request)


def put_metric_data(region_name, request):
    if not request.get("Namespace"):
        raise ApiError("MissingParameter", "The parameter Namespace is required.")
    store, now = region(region_name).store, round(time.time() * 1000)
    for datum in request.get("MetricData", []):
        store.put(request["Namespace"], datum, now)
    return {}


def get_metric_data(region_name, request):
    queries = request.get("MetricDataQueries", [])
    if len(queries) > 500:
        raise ApiError("ValidationError", "The collection MetricDataQueries must not have a size greater than 500.")
    start, end = metrics.to_ms(request["StartTime"]), metrics.to_ms(request["EndTime"])
    if start >= end:
        raise ApiError("ValidationError", "The parameter StartTime must be less than the parameter EndTime.")
    evaluation = metrics.Evaluation(region(region_name).store, queries, start, end)
    newest_first = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
    results = []
    for query in queries:
        series = evaluation.series(query["Id"])
        if query.get("ReturnData", True) is False:
            continue
        times = sorted(series, reverse=newest_first)
        stat = query.get("MetricStat")
        results.append(
            {
                "Id": query["Id"],
                "Label": query.get("Label") or (stat["Metric"]["MetricName"] if stat else query["Id"]),
                "Timestamps": [At(at / 1000) for at in times],
                "Values": [float(series[at]) for at in times],
                "StatusCode": "Complete",
            }
        )
    return {"MetricDataResults": results, "Messages": []}


def get_metric_statistics(region_name, request):
    key = metrics.series_key(request["Namespace"], request["MetricName"], request.get("Dimensions"))
    start, end = metrics.to_ms(request["StartTime"]), metrics.to_ms(request["EndTime"])
    buckets = region(region_name).store.buckets(key, start, end, int(request["Period"]) * 1000)
    rows = []
    for at, points in sorted(buckets.items()):
        row = {"Timestamp": At(at / 1000), "Unit": "None"}
        for name in request.get("Statistics", []):
            row[name] = metrics.statistic(name, points)
        extended = request.get("ExtendedStatistics", [])
        if extended:
            row["ExtendedStatistics"] = {name: metrics.statistic(name, points) for name in extended}
        rows.append(row)
    return {"Label": request["MetricName"], "Datapoints": rows}


def list_metrics(region_name, request):
    rows = []
    wanted = {(d["Name"], d.get("Value")) for d in request.get("Dimensions", [])}
    for namespace, name, dimensions in region(region_name).store.series:
        if request.get("Namespace") not in (None, namespace) or request.get("MetricName") not in (None, name):
            continue
        if not all((n, v) in dimensions or (v is None and n in dict(dimensions)) for n, v in wanted):
            continue
        rows.append(
            {
                "Namespace": namespace,
                "MetricName": name,
                "Dimensions": [{"Name": n, "Value": v} for n, v in sorted(dimensions)],
            }
        )
    page, token = paginate(rows, request.get("NextToken"), 500)
    return {"Metrics": page, **({"NextToken": token} if token else {})}


# Alarms: kept and shown, never evaluated. SetAlarmState is how a test rings one.


def put_metric_alarm(region_name, request):
    name, now = request["AlarmName"], At(time.time())
    alarms = region(region_name).alarms
    state = alarms.get(name, {"StateValue": "INSUFFICIENT_DATA", "StateReason": "Unchecked: Initial alarm creation"})
    alarms[name] = {
        "ActionsEnabled": True,
        "OKActions": [],
        "AlarmActions": [],
        "InsufficientDataActions": [],
        "Dimensions": [],
        **request,
        "AlarmArn": f"arn:aws:cloudwatch:{region_name}:{ACCOUNT}:alarm:{name}",
        "AlarmConfigurationUpdatedTimestamp": now,
        "StateValue": state["StateValue"],
        "StateReason": state["StateReason"],
        "StateUpdatedTimestamp": state.get("StateUpdatedTimestamp", now),
    }
    alarms[name].pop("Tags", None)
    return {}


def describe_alarms(region_name, request):
    names, prefix = request.get("AlarmNames"), request.get("AlarmNamePrefix", "")
    rows = [
        alarm
        for name, alarm in sorted(region(region_name).alarms.items())
        if (not names or name in names)
        and name.startswith(prefix)
        and request.get("StateValue") in (None, alarm["StateValue"])
    ]
    page, token = paginate(rows, request.get("NextToken"), request.get("MaxRecords"))
    return {"MetricAlarms": page, "CompositeAlarms": [], **({"NextToken": token} if token else {})}


def set_alarm_state(region_name, request):
    alarm = region(region_name).alarms.get(request["AlarmName"])
    if alarm is None:
        raise ApiError("ResourceNotFound", "Alarm does not exist", 404)
    alarm["StateValue"], alarm["StateReason"] = request["StateValue"], request["StateReason"]
    alarm["StateUpdatedTimestamp"] = At(time.time())
    return {}


def delete_alarms(region_name, request):
    for name in request.get("AlarmNames", []):
        region(region_name).alarms.pop(name, None)
    return {}


OPERATIONS = {
    "PutMetricData": put_metric_data,
    "GetMetricData": get_metric_data,
    "GetMetricStatistics": get_metric_statistics,
    "ListMetrics": list_metrics,
    "PutMetricAlarm": put_metric_alarm,
    "DescribeAlarms": describe_alarms,
    "SetAlarmState": set_alarm_state,
    "DeleteAlarms": delete_alarms,
}


def script(region_name, request):
    """POST /shim/cloudwatch"""
    store = region(region_name).store
    if "hide_newer_than" in request:
        store.hide_newer_than = request["hide_newer_than"]
    return {"hide_newer_than": store.hide_newer_than}

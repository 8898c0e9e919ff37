"""Metric data: storage, buckets, statistics and the part of metric math that the engine and its users need."""

import ast
import re
from bisect import bisect_left
from collections import defaultdict

from .common import ApiError


def invalid(message):
    return ApiError("ValidationError", message)


class Store:
    def __init__(self):
        # (namespace, name, dimensions) -> [(unix ms, [(value, count)], statistic set or None)], sorted by time
        self.series = defaultdict(list)
        self.hide_newer_than = None

    def put(self, namespace, datum, now_ms):
        at = to_ms(datum["Timestamp"]) if datum.get("Timestamp") is not None else now_ms
        stats = datum.get("StatisticValues")
        if stats:
            values, summary = [], stats
        elif datum.get("Values"):
            counts = datum.get("Counts") or [1.0] * len(datum["Values"])
            if len(counts) != len(datum["Values"]):
                raise ApiError(
                    "InvalidParameterValue",
                    "The parameters MetricData.member.1.Values and MetricData.member.1.Counts must be of the same size.",
                )
            values, summary = list(zip(map(float, datum["Values"]), map(float, counts))), None
        else:
            values, summary = [(float(datum["Value"]), 1.0)], None
        points = self.series[series_key(namespace, datum["MetricName"], datum.get("Dimensions"))]
        # Mostly appended in order; the rest is inserted where it belongs.
        if points and points[-1][0] > at:
            points.insert(bisect_left(points, at, key=lambda p: p[0]), (at, values, summary))
        else:
            points.append((at, values, summary))

    def buckets(self, key, start, end, period):
        """Points by the start of their period. Periods are aligned to the clock, not to `start`."""
        points = self.series.get(key, [])
        found = defaultdict(list)
        first = start // period * period
        for index in range(bisect_left(points, first, key=lambda p: p[0]), len(points)):
            at = points[index][0]
            bucket = at // period * period
            if bucket >= end:
                break
            if self.hide_newer_than is None or at <= self.hide_newer_than:
                found[bucket].append(points[index])
        return found


def to_ms(time):
    """Timestamps come as datetimes (CBOR) or as seconds (JSON)."""
    if hasattr(time, "timestamp"):
        return round(time.timestamp() * 1000)
    return round(float(time) * 1000)


def series_key(namespace, name, dimensions):
    return namespace, name, frozenset((d["Name"], d["Value"]) for d in dimensions or [])


# Statistics

RANGE = re.compile(r"^(TC|TS|TM|PR)\(\s*([0-9.]*)\s*:\s*([0-9.]*)\s*\)$")
PERCENTILE = re.compile(r"^p(\d{1,2}(?:\.\d{1,10})?|100)$")


def statistic(name, points):
    """One value for one bucket, or None if these points cannot tell."""
    pairs = [pair for _, values, _ in points for pair in values]
    sets = [summary for _, _, summary in points if summary]
    count = sum(c for _, c in pairs) + sum(s["SampleCount"] for s in sets)
    total = sum(v * c for v, c in pairs) + sum(s["Sum"] for s in sets)
    if name == "SampleCount":
        return float(count)
    if name == "Sum":
        return float(total)
    if name == "Average":
        return total / count if count else None
    if name == "Minimum":
        return float(min([v for v, _ in pairs] + [s["Minimum"] for s in sets]))
    if name == "Maximum":
        return float(max([v for v, _ in pairs] + [s["Maximum"] for s in sets]))
    return _of_distribution(name, sorted(pairs))


def _of_distribution(name, pairs):
    # Statistic sets carry no distribution, so they do not count here, as on AWS.
    count = sum(c for _, c in pairs)
    if not count:
        return None
    if match := PERCENTILE.match(name):
        return _percentile(pairs, count, float(match[1]))
    kind, low, high = RANGE.match(name).groups()
    low = float(low) if low else float("-inf")
    high = float(high) if high else float("inf")
    # Strictly above the lower bound, up to and with the upper one.
    inside = [(v, c) for v, c in pairs if low < v <= high]
    inside_count = sum(c for _, c in inside)
    if kind == "TC":
        return float(inside_count)
    if kind == "PR":
        return 100.0 * inside_count / count
    total = sum(v * c for v, c in inside)
    if kind == "TS":
        return float(total)
    return total / inside_count if inside_count else None


def _percentile(pairs, count, percent):
    rank, seen = percent / 100.0 * count, 0.0
    for value, number in pairs:
        seen += number
        if seen >= rank:
            return value
    return pairs[-1][0]


def check_statistic(name):
    known = ("SampleCount", "Sum", "Average", "Minimum", "Maximum")
    if name not in known and not PERCENTILE.match(name) and not RANGE.match(name):
        raise invalid(f"The value {name} for parameter Stat is not supported.")


# GetMetricData


class Evaluation:
    """One GetMetricData call: series by the id of their query, expressions resolved on demand."""

    def __init__(self, store, queries, start, end):
        self.store, self.start, self.end = store, start, end
        self.queries = {query["Id"]: query for query in queries}
        if len(self.queries) != len(queries):
            raise invalid("The values for parameter id in MetricDataQueries are not unique.")
        self.done = {}

    def series(self, query_id):
        """{bucket start in ms: value}"""
        if query_id not in self.done:
            if query_id not in self.queries:
                raise invalid(f"Error in expression: Unknown identifier: {query_id}")
            # A cycle finds itself here instead of recursing for ever.
            self.done[query_id] = None
            query = self.queries[query_id]
            self.done[query_id] = self._metric(query) if "MetricStat" in query else self._expression(query)
        if self.done[query_id] is None:
            raise invalid(f"Error in expression: {query_id} refers to itself")
        return self.done[query_id]

    def period(self, query_id):
        query = self.queries[query_id]
        if "MetricStat" in query:
            return int(query["MetricStat"]["Period"]) * 1000
        if query.get("Period"):
            return int(query["Period"]) * 1000
        names = [n.id for n in ast.walk(self._parse(query)) if isinstance(n, ast.Name) and n.id in self.queries]
        return max([self.period(name) for name in names] or [60_000])

    def _metric(self, query):
        stat = query["MetricStat"]
        check_statistic(stat["Stat"])
        period = int(stat["Period"]) * 1000
        if period not in (1000, 5000, 10000, 20000, 30000) and period % 60000:
            raise invalid(f"The value {period // 1000} for parameter Period is not supported.")
        metric = stat["Metric"]
        key = series_key(metric["Namespace"], metric["MetricName"], metric.get("Dimensions"))
        buckets = self.store.buckets(key, self.start, self.end, period)
        values = {at: statistic(stat["Stat"], points) for at, points in buckets.items()}
        return {at: value for at, value in sorted(values.items()) if value is not None}

    def _parse(self, query):
        try:
            # CloudWatch's arithmetic is Python's but for the power sign.
            return ast.parse(query["Expression"].replace("^", "**"), mode="eval").body
        except SyntaxError:
            raise invalid(f"Error in expression '{query['Id']}': syntax error") from None

    def _expression(self, query):
        value = self._evaluate(self._parse(query), query)
        if isinstance(value, (int, float)):
            period = self.period(query["Id"])
            first = self.start // period * period
            value = {at: float(value) for at in range(first, self.end, period)}
        if not isinstance(value, dict):
            raise invalid(f"Error in expression '{query['Id']}': the result is not one time series")
        return value

    def _evaluate(self, node, query):
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return float(node.value)
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return node.id if node.id in ("REPEAT", "LINEAR") else self.series(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return combine(lambda a, b: a - b, 0.0, self._evaluate(node.operand, query))
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return combine(OPERATORS[type(node.op)], self._evaluate(node.left, query), self._evaluate(node.right, query))
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self._evaluate(item, query) for item in node.elts]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._call(node.func.id, [self._evaluate(a, query) for a in node.args], query)
        raise invalid(f"Error in expression '{query['Id']}': the emulator does not know this")

    def _call(self, name, arguments, query):
        if name == "FILL":
            return self._fill(*arguments, self.period(query["Id"]))
        if name == "METRICS":
            return [self.series(q["Id"]) for q in self.queries.values() if "MetricStat" in q]
        if name in AGGREGATES and len(arguments) == 1:
            return aggregate(AGGREGATES[name], arguments[0])
        raise invalid(f"Error in expression '{query['Id']}': the emulator does not know {name}")

    def _fill(self, series, filler, period):
        filled, last = {}, None
        for at in range(self.start // period * period, self.end, period):
            last = series.get(at, last)
            value = series.get(at, last if filler == "REPEAT" else filler)
            if value is not None:
                filled[at] = value
        return filled


def _divide(a, b):
    return a / b if b else None


OPERATORS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: _divide,
    ast.Pow: lambda a, b: a**b,
}

AGGREGATES = {
    "SUM": sum,
    "AVG": lambda values: sum(values) / len(values),
    "MIN": min,
    "MAX": max,
}


def combine(operator, left, right):
    """Of two series only those times count that both have; dividing by zero leaves a hole."""
    if isinstance(left, dict) and isinstance(right, dict):
        pairs = {at: operator(left[at], right[at]) for at in left if at in right}
    elif isinstance(left, dict):
        pairs = {at: operator(value, right) for at, value in left.items()}
    elif isinstance(right, dict):
        pairs = {at: operator(left, value) for at, value in right.items()}
    else:
        return operator(left, right)
    return {at: value for at, value in pairs.items() if value is not None}


def aggregate(function, argument):
    """SUM(m1) is one number, SUM([m1, m2]) a series of sums."""
    if isinstance(argument, dict):
        return function(list(argument.values())) if argument else 0.0
    columns = defaultdict(list)
    for series in argument:
        for at, value in series.items():
            columns[at].append(value)
    return {at: function(values) for at, values in sorted(columns.items())}

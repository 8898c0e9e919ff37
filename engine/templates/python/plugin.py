"""Doubles the new version's share while few of its requests are bad."""

import json

from componentize_py_types import Err
from wit_world.exports.strategy_api import (
    Description,
    Issue,
    Outcome,
    Plan,
    PlannedStep,
    Verdict,
)
from wit_world.imports import control, metrics, traffic
from wit_world.imports.control import Level
from wit_world.imports.metrics import MetricsQuery
from wit_world.imports.types import Role, Weight

from gate import Seen, seen

# Looks at one share before a person must decide.
LOOKS = 10

# Of each parameter: default, least, most, meaning.
PARAMETERS = {
    "first-share": (5, 1, 100, "Percent of the traffic at the first step."),
    "bake-seconds": (300, 1, 86_400, "Seconds between two looks at the metrics."),
    "slow-ms": (500, 1, 600_000, "Requests that take longer than so many milliseconds are bad."),
    "max-bad-permille": (20, 0, 1_000, "How many of 1,000 requests may be bad."),
    "min-requests": (100, 1, 1_000_000, "Requests of the new version that a decision needs."),
}


# The world exports one interface, and componentize-py looks for a class of its name.
class StrategyApi:
    def describe(self):
        return Description(
            name="{{name}}",
            version="0.1.0",
            summary="Doubles the new version's share while few of its requests are bad.",
            parameters_schema=json.dumps(schema()),
        )

    def validate(self, parameters):
        given = json.loads(parameters)
        issues = problems(given)
        if issues:
            raise Err(issues)
        p = with_defaults(given)
        return Plan([PlannedStep(s, p["bake-seconds"], False) for s in shares(p["first-share"])])

    def run(self, context, parameters):
        return run(context, with_defaults(json.loads(parameters)))


def schema():
    properties = {
        name: {
            "type": "integer",
            "minimum": least,
            "maximum": most,
            "default": default,
            "description": meaning,
        }
        for name, (default, least, most, meaning) in PARAMETERS.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def problems(given):
    issues = []
    for name, value in given.items():
        if name not in PARAMETERS:
            issues.append(Issue(f"/{name}", "there is no such parameter"))
            continue
        _, least, most, _ = PARAMETERS[name]
        # A bool is an int in Python, but not in JSON.
        if type(value) is not int or not least <= value <= most:
            issues.append(Issue(f"/{name}", f"must be an integer from {least} to {most}"))
    return issues


def with_defaults(given):
    return {name: given.get(name, default) for name, (default, *_) in PARAMETERS.items()}


def shares(first):
    """The first share and its doubles, up to 100."""
    share = first
    while share < 100:
        yield share
        share *= 2
    yield 100


def run(context, p):
    found = ""
    for share in shares(p["first-share"]):
        control.progress(share, f"{share} % of the traffic")
        reach(context, share)
        now = watch(context, p)
        if now.requests < p["min-requests"]:
            reason = f"only {now.requests} requests in {LOOKS} looks at {share} %"
            return Outcome(Verdict.INCONCLUSIVE, reason)
        found = f"{now.bad} of {now.requests} requests were bad at {share} %"
        if now.too_bad(p["max-bad-permille"]):
            return Outcome(Verdict.ROLLED_BACK, found)
        control.log(Level.INFO, found)
    return Outcome(Verdict.PROMOTED, found)


def reach(context, share):
    """Moves the traffic; a refusal that may pass is tried again at every sample."""
    weights = [
        Weight(arm.name, share if arm.role == Role.CANDIDATE else 100 - share)
        for arm in context.arms
    ]
    while True:
        try:
            return traffic.set_weights(weights)
        except Err as refusal:
            if not refusal.value.retryable:
                raise failed(refusal)
            control.wait(-(-context.sample_period_ms // 1000), [])


def watch(context, p):
    """Looks until there are requests enough, at most so often as is allowed."""
    candidate = next(arm.name for arm in context.arms if arm.role == Role.CANDIDATE)
    query = MetricsQuery(since=control.now(), over_ms=[float(p["slow-ms"])], by_zone=False)
    total = Seen()
    for _ in range(LOOKS):
        control.wait(p["bake-seconds"], [])
        try:
            total = seen(metrics.get_metrics(query), candidate)
        except Err as refusal:
            if not refusal.value.retryable:
                raise failed(refusal)
            # Without data there is no judgement; the next look may have some.
            total = Seen()
        if total.requests >= p["min-requests"]:
            break
    return total


def failed(refusal):
    """What `run` ends with when the host will not do something."""
    return Err(f"{refusal.value.message} ({refusal.value.code})")

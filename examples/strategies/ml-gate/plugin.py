"""Promotes a model whose quality is not worse, if it is not slower either."""

import json
from math import ceil

from componentize_py_types import Err
from wit_world.exports.strategy_api import Description, Issue, Outcome, Plan, PlannedStep, Verdict
from wit_world.imports import control, metrics, traffic
from wit_world.imports.control import Level, Wake_Signal
from wit_world.imports.metrics import MetricsQuery
from wit_world.imports.types import Role, Weight

from gate import Limits, Next, arm_of, judge

APPROVAL_SECONDS = 24 * 3600


def number(default, least, most, meaning, kind="number"):
    bounds = {"minimum": least, "maximum": most, "default": default}
    return {"type": kind, **bounds, "description": meaning}


PARAMETERS = {
    "steps": {
        "type": "array",
        "items": {"type": "integer", "minimum": 1, "maximum": 95},
        "minItems": 1,
        "default": [10, 50],
        "description": "Rising shares of the traffic, in percent. Stable keeps some for comparison.",
    },
    "quality-query": {
        "type": "string",
        "default": "accuracy",
        "description": "Query of the rollout file with the quality; more is better.",
    },
    "tolerated-drop": number(0.01, 0, 1e9, "Drop of the mean quality that nobody minds."),
    "tolerated-slowdown": number(0.1, 0, 10, "Rise of p95 that nobody minds: 0.1 is a tenth."),
    "tolerated-errors": number(0.005, 0, 1, "Rise of the share of errors that nobody minds."),
    "look-seconds": number(600, 1, 86_400, "Time between two looks.", "integer"),
    "looks": number(6, 1, 100, "Looks at a step before a person must decide.", "integer"),
    "min-requests": number(100, 1, 1_000_000, "Requests that each version needs.", "integer"),
    "min-points": number(5, 2, 1_000, "Values of the quality that each needs.", "integer"),
}


class StrategyApi:
    def describe(self):
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": False,
            "properties": PARAMETERS,
        }
        return Description("ml-gate", "0.1.0", __doc__, json.dumps(schema))

    def validate(self, parameters):
        # The host has checked the schema; this is what a schema cannot say.
        steps = with_defaults(parameters)["steps"]
        if any(a >= b for a, b in zip(steps, steps[1:])):
            raise Err([Issue("/steps", "must rise from step to step")])
        return Plan([PlannedStep(share, None, False) for share in steps])

    def run(self, context, parameters):
        p = with_defaults(parameters)
        try:
            return run(context, p)
        except Err as refusal:
            raise Err(f"{refusal.value.message} ({refusal.value.code})")


def with_defaults(parameters):
    given = json.loads(parameters)
    return {name: given.get(name, schema["default"]) for name, schema in PARAMETERS.items()}


def run(context, p):
    reason = ""
    for share in p["steps"]:
        control.progress(share, f"{share} % of the traffic")
        reach(context, share)
        following, reason = watch(context, p)
        reason = f"at {share} %: {reason}"
        if following == Next.BACK:
            return Outcome(Verdict.ROLLED_BACK, reason)
        if following != Next.GO and not approved(share, reason):
            return Outcome(Verdict.INCONCLUSIVE, f"nobody approved {reason}")
        control.log(Level.INFO, f"goes on {reason}")
    return Outcome(Verdict.PROMOTED, reason)


def approved(share, reason):
    """A person weighs what the gate cannot: is the quality worth the latency?"""
    control.progress(share, f"waits for an approval {reason}")
    return isinstance(control.wait(APPROVAL_SECONDS, ["approve"]), Wake_Signal)


def reach(context, share):
    """Moves the traffic; a refusal that may pass is tried again at every sample."""
    shares = {Role.STABLE: 100 - share, Role.CANDIDATE: share}
    weights = [Weight(arm.name, shares[arm.role]) for arm in context.arms]
    while patiently(lambda: traffic.set_weights(weights) or True) is None:
        control.wait(ceil(context.sample_period_ms / 1000), [])


def watch(context, p):
    """Looks until the gate knows, at most as often as is allowed."""
    arms = {arm.role: arm.name for arm in context.arms}
    limits = Limits(
        p["tolerated-drop"],
        p["tolerated-slowdown"],
        p["tolerated-errors"],
        p["min-requests"],
        p["min-points"],
    )
    since = control.now()
    for _ in range(p["looks"]):
        control.wait(p["look-seconds"], [])
        samples = patiently(lambda: metrics.get_metrics(MetricsQuery(since, [], False)))
        points = patiently(lambda: metrics.query(p["quality-query"], since))
        stable, candidate = (
            arm_of(arms[role], samples or [], points or []) for role in (Role.STABLE, Role.CANDIDATE)
        )
        following, reason = judge(stable, candidate, limits)
        if following != Next.LOOK:
            break
        control.log(Level.INFO, f"looks again: {reason}")
    return following, reason


def patiently(call):
    """What a call returns, or nothing if it may succeed later."""
    try:
        return call()
    except Err as refusal:
        if not refusal.value.retryable:
            raise
        return None

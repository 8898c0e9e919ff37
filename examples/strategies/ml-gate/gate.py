"""The gate of a model: quality first, then errors, then latency.

It knows no host: numbers in, judgement out.
"""

from dataclasses import dataclass, field
from enum import Enum
from math import sqrt
from statistics import fmean, variance

# Differences of less than two standard errors are noise.
NOISE = 2


class Next(Enum):
    GO = "go on"
    BACK = "roll back"
    ASK = "ask a person"
    LOOK = "look again"


@dataclass
class Arm:
    """What was seen of one version since the step began."""

    requests: int = 0
    errors: int = 0
    p95: float = 0.0
    quality: list[float] = field(default_factory=list)


@dataclass
class Limits:
    tolerated_drop: float
    tolerated_slowdown: float
    tolerated_errors: float
    min_requests: int
    min_points: int


def arm_of(name, samples, points):
    """Gathers one arm; its p95 is the mean over the samples, by requests."""
    own = [s for s in samples if s.arm == name]
    timed = [s for s in own if s.latency is not None]
    weight = sum(s.requests for s in timed)
    return Arm(
        requests=sum(s.requests for s in own),
        errors=sum(s.errors for s in own),
        p95=sum(s.latency.p95 * s.requests for s in timed) / weight if weight else 0.0,
        quality=[p.value for p in points if p.arm == name],
    )


def judge(stable, candidate, limits):
    """What comes next, and why."""
    arms = (stable, candidate)
    if any(a.requests < limits.min_requests for a in arms):
        return Next.LOOK, f"{candidate.requests} requests are too few"
    rise, rise_noise = error_rise(stable, candidate)
    if rise - rise_noise > limits.tolerated_errors:
        return Next.BACK, f"errors rose by {rise:.2%} of the requests"
    if any(len(a.quality) < limits.min_points for a in arms):
        return Next.LOOK, f"{len(candidate.quality)} values of the quality are too few"

    change, noise = quality_change(stable, candidate)
    quality = f"quality changed by {change:+.4f} ± {noise:.4f}"
    slowdown = candidate.p95 / stable.p95 - 1 if stable.p95 else 0.0
    latency = f"p95 by {slowdown:+.1%}"
    facts = f"{quality}, {latency}"
    if change + noise < -limits.tolerated_drop:
        return Next.BACK, facts
    if slowdown > limits.tolerated_slowdown:
        return Next.ASK, facts
    if change - noise < -limits.tolerated_drop:
        # It may be as good or too bad: more values will tell.
        return Next.LOOK, facts
    return Next.GO, facts


def quality_change(stable, candidate):
    """Difference of the means, and how far chance alone may move it."""
    squares = sum(variance(a.quality) / len(a.quality) for a in (stable, candidate))
    return fmean(candidate.quality) - fmean(stable.quality), NOISE * sqrt(squares)


def error_rise(stable, candidate):
    """Difference of the shares of errors, and how far chance alone may move it."""
    rates = [a.errors / a.requests for a in (stable, candidate)]
    # As if there had been one error more: none seen does not mean none possible.
    pooled = (stable.errors + candidate.errors + 1) / (stable.requests + candidate.requests + 1)
    spread = pooled * (1 - pooled) * (1 / stable.requests + 1 / candidate.requests)
    return rates[1] - rates[0], NOISE * sqrt(spread)

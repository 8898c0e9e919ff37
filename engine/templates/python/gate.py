"""The gate: what the candidate did to its users, and whether that is too bad.

It knows no host, so a test needs none. Change it as you like.
"""

from dataclasses import dataclass


@dataclass
class Seen:
    """The candidate's requests so far, and those that failed or were slow."""

    requests: int = 0
    bad: int = 0

    def too_bad(self, permille):
        return self.bad * 1000 > self.requests * permille


def seen(samples, arm):
    """Adds up the samples of one arm."""
    total = Seen()
    for sample in samples:
        if sample.arm == arm:
            slow = sample.over[0] if sample.over else 0
            total.requests += sample.requests
            # A request may be both slow and an error; it is bad only once.
            total.bad += min(sample.requests, sample.errors + slow)
    return total

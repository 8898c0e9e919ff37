import unittest
from types import SimpleNamespace

from gate import Arm, Limits, Next, arm_of, judge

LIMITS = Limits(
    tolerated_drop=0.01,
    tolerated_slowdown=0.1,
    tolerated_errors=0.005,
    min_requests=100,
    min_points=5,
)


def arm(quality=0.93, spread=0.001, points=10, p95=100.0, requests=1000, errors=1):
    values = [quality + spread * (-1) ** i for i in range(points)]
    return Arm(requests, errors, p95, values)


class Gate(unittest.TestCase):
    def expect(self, candidate, following):
        found, reason = judge(arm(), candidate, LIMITS)
        self.assertEqual(found, following, reason)

    def test_the_same_or_better_goes_on(self):
        self.expect(arm(), Next.GO)
        self.expect(arm(quality=0.95, p95=80.0), Next.GO)
        self.expect(arm(quality=0.925), Next.GO)

    def test_clearly_worse_goes_back(self):
        self.expect(arm(quality=0.90), Next.BACK)
        self.expect(arm(errors=50), Next.BACK)
        # Errors need no values of the quality.
        self.expect(arm(errors=50, points=0), Next.BACK)

    def test_slower_is_for_a_person(self):
        self.expect(arm(p95=120.0), Next.ASK)
        self.expect(arm(quality=0.95, p95=120.0), Next.ASK)

    def test_noise_needs_more_values(self):
        self.expect(arm(quality=0.92, spread=0.02), Next.LOOK)
        self.expect(arm(points=4), Next.LOOK)
        self.expect(arm(requests=99), Next.LOOK)

    def test_an_arm_is_gathered_by_its_name(self):
        latency = SimpleNamespace(p95=50.0)
        slow = SimpleNamespace(p95=150.0)
        samples = [
            SimpleNamespace(arm="canary", requests=30, errors=1, latency=latency),
            SimpleNamespace(arm="canary", requests=10, errors=0, latency=slow),
            SimpleNamespace(arm="canary", requests=5, errors=0, latency=None),
            SimpleNamespace(arm="stable", requests=7, errors=7, latency=None),
        ]
        points = [SimpleNamespace(arm=name, value=v) for name, v in (("canary", 0.5), ("stable", 0.9))]
        self.assertEqual(arm_of("canary", samples, points), Arm(45, 1, 75.0, [0.5]))
        self.assertEqual(arm_of("stable", samples, points), Arm(7, 7, 0.0, [0.9]))


if __name__ == "__main__":
    unittest.main()

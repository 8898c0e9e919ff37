import unittest
from types import SimpleNamespace

from gate import Seen, seen


def look(requests, errors, over):
    samples = [
        SimpleNamespace(arm="canary", requests=requests, errors=errors, over=over),
        SimpleNamespace(arm="stable", requests=900, errors=900, over=[]),
    ]
    return seen(samples, "canary")


class Gate(unittest.TestCase):
    def test_errors_and_slow_requests_are_bad(self):
        self.assertEqual(look(100, 2, [3]), Seen(100, 5))
        self.assertEqual(look(100, 60, [70]), Seen(100, 100))
        self.assertEqual(look(100, 2, []), Seen(100, 2))
        self.assertEqual(seen([], "canary"), Seen(0, 0))

    def test_the_limit_itself_is_allowed(self):
        self.assertFalse(Seen(100, 2).too_bad(20))
        self.assertTrue(Seen(100, 3).too_bad(20))
        self.assertFalse(Seen().too_bad(0))


if __name__ == "__main__":
    unittest.main()

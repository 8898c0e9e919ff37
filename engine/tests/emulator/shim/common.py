"""What every service of the shim needs: errors, ids and one lock."""

import random
import threading

ACCOUNT = "123456789012"

# Requests are handled one after another. Python would not run two handlers at
# once anyway, and so no handler has to think about races.
LOCK = threading.RLock()

_random = random.Random()


class ApiError(Exception):
    """An answer that AWS would give as an error."""

    def __init__(self, code, message, status=400):
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def reset_ids():
    """Same ids in every run: tests can be compared by what they print."""
    from moto.moto_api._internal import mock_random

    _random.seed(1)
    mock_random.seed(1)


def hex_id(length=32):
    return f"{_random.getrandbits(length * 4):0{length}x}"


def digits(length=19):
    return str(_random.randrange(10 ** (length - 1), 10**length))


def uuid():
    raw = hex_id(32)
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


def paginate(items, token, limit):
    """One page of a list, and the token of the next page (None after the last)."""
    start = int(token or 0)
    end = start + int(limit or 100)
    return items[start:end], (str(end) if end < len(items) else None)

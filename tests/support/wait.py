"""Waiting for what no event tells, with a generous limit: it returns as soon as the condition holds."""

import time
from collections.abc import Callable

LIMIT_S = 60.0


def wait_until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"waited {LIMIT_S:.0f} s until {what}"
        time.sleep(0.02)

"""Waiting for a condition by a deadline. Nothing in these tests sleeps for luck.

Deadlines are those of a machine of today. $TEPUI_TEST_PATIENCE stretches all of them by one factor where tests run on a
slower one, such as an emulated processor; what a test requires is the same.
"""

import os
import time

PATIENCE = float(os.environ.get("TEPUI_TEST_PATIENCE", "1"))


class Timeout(AssertionError):
    """A condition did not come to hold in time."""


def until(condition, timeout=20.0, what=None, interval=0.02):
    """The first truthy value of `condition()`; an error that shows the last value when none comes in time."""
    timeout *= PATIENCE
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise Timeout(f"not within {timeout} s: {what or getattr(condition, '__name__', condition)} (last: {value!r})")
        time.sleep(interval)


def holds(condition, seconds, what):
    """Fails as soon as `condition()` is false within the next `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), f"did not stay so for {seconds} s: {what}"
        time.sleep(0.05)

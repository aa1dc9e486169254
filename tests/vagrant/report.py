"""What a run tells: a line for each check, and counts at the end."""

import contextlib
import json
import time
import traceback


class Skipped(Exception):
    """A check that cannot be made on this machine; the text says why."""


class Report:
    """Checks that passed, failed or were skipped. `on_failure` prints what helps to understand one."""

    def __init__(self, on_failure=lambda: None):
        self.begin = time.monotonic()
        self.passed, self.failed, self.skipped = 0, 0, 0
        self.on_failure = on_failure

    @contextlib.contextmanager
    def check(self, name):
        begin = time.monotonic()
        note = []
        try:
            yield note.append
        except Skipped as reason:
            self.skipped += 1
            self._line("skipped", f"{name}: {reason}", begin)
        except Exception:
            self.failed += 1
            traceback.print_exc()
            self._line("failed", name, begin)
            self.on_failure()
        else:
            self.passed += 1
            self._line("passed", ": ".join([name, *note]), begin)

    def _line(self, how, what, begin):
        now = time.monotonic()
        print(f"{how}: {what} ({now - begin:.1f} s, at {now - self.begin:.0f} s)", flush=True)

    def counts(self):
        return {"passed": self.passed, "failed": self.failed, "skipped": self.skipped}

    def add(self, counts):
        self.passed += counts["passed"]
        self.failed += counts["failed"]
        self.skipped += counts["skipped"]

    def save(self, path):
        with open(path, "w") as file:
            json.dump(self.counts(), file)

    def last_line(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

"""Watches who serves as the leader.

Each coordinator is asked all the time. Who answers 200 to a request was the leader at some moment between the request and
its answer. So it is an error when one answers a request, then another one answers a request that was sent after that, and
then the first one answers a request that was sent after that again, without having been elected anew.
"""

import threading
import time

from fleet import ask_master


class Leaders:
    """See the module."""

    def __init__(self, addresses):
        self.broken = []
        self.changes = 0
        self._answers = []
        """Who answered, its election, when it was asked, when the answer came; the last of each in a row."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(a,), daemon=True) for a in addresses]

    def start(self):
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _ask(self, address):
        while not self._stop.wait(0.1):
            asked = time.monotonic()
            try:
                # Long, so that the late answer of one that was stopped counts as well.
                answer = ask_master(address, timeout=15)
                if answer.status != 200:
                    continue
                master = answer.json()["get_master"]
            except (OSError, ValueError, KeyError):
                continue
            election = (master["master_info"]["id"], master.get("elected_time"))
            self.note(address, election, asked, time.monotonic())

    def note(self, address, election, asked, answered):
        with self._lock:
            who = (address, election)
            if self._answers and self._answers[-1][0] == who:
                self._answers[-1] = (who, self._answers[-1][1], max(asked, self._answers[-1][2]), self._answers[-1][3])
                return
            if len(self._answers) > 1 or self._answers:
                self._check(who, asked)
            if not self._answers or self._answers[-1][0] != who:
                self.changes += 1
                self._answers.append((who, asked, asked, answered))

    def _check(self, who, asked):
        """Whether it answered before, and another one in between."""
        before = [n for n, answer in enumerate(self._answers) if answer[0] == who]
        if not before:
            return
        others = [a for a in self._answers[before[-1] + 1 :] if a[0] != who]
        # `a[3]`: when the other's first answer was there, so it led before that.
        if any(a[1] > self._answers[before[-1]][3] and a[3] < asked for a in others):
            self.broken.append(f"{who} served, then {others[-1][0]}, then {who} again")

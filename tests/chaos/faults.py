"""What is broken, when, and for how long: drawn from a seed, so that the same seed breaks the same things at the same times.

(What the processes do in between is theirs; a seed repeats the faults, not the run.)
"""

import heapq
import random
import signal
import threading
import time

# Which parts a fault may hit, how often relative to the others, and how many seconds it lasts: within the session's
# time-out, around it, and well beyond it.
KINDS = {
    "kill -9": (("coordinator", 4), ("agent", 4), ("zookeeper", 1)),
    "stop": (("coordinator", 3), ("agent", 2), ("zookeeper", 1)),
    "cut off": (("coordinator", 3), ("agent", 3), ("zookeeper", 1)),
    "restart": (("zookeeper", 2),),
    "stop all of": (("zookeeper", 1),),
    "fill the disk": (("coordinator", 1), ("agent", 2)),
}
SECONDS = {"kill -9": (0.1, 6), "restart": (0.1, 3), "stop all of": (0.3, 8), "stop": (0.3, 12), "cut off": (0.3, 15), "fill the disk": (1, 8)}
GAP = (1.5, 6.0)
AT_ONCE = 3


class Faults:
    """Breaks until told to stop, then heals all."""

    def __init__(self, fleet, seed):
        self.fleet = fleet
        self.random = random.Random(seed)
        self.counts = {}
        self.log = []
        """Of each fault: when it began, when it was healed (`None` meanwhile), what, and the process' name."""
        self._lock = threading.Lock()

    def run(self, seconds):
        end = time.monotonic() + seconds
        healing, number = [], 0
        while time.monotonic() < end:
            until = min(end, time.monotonic() + self.random.uniform(*GAP))
            self._heal_until(until, healing)
            if len(healing) >= AT_ONCE or time.monotonic() >= end:
                continue
            what, process = self._draw({entry[3].name for entry in healing})
            duration = self.random.uniform(*SECONDS[what])
            if process is None:
                continue
            number += 1
            heal = self._break(what, process, duration)
            record = [time.monotonic(), None, what, process.name]
            with self._lock:
                self.log.append(record)
            key = f"{what} {process.name.split('-')[0]}"
            self.counts[key] = self.counts.get(key, 0) + 1
            heapq.heappush(healing, (time.monotonic() + duration, number, heal, process, record))
        self._heal_until(None, healing)

    def _heal_until(self, until, healing):
        """Waits, and heals what is due meanwhile; everything at once, without a time."""
        while healing and (until is None or healing[0][0] <= until):
            at, _, heal, _, record = healing[0]
            if until is not None:
                time.sleep(max(0, at - time.monotonic()))
            heal()
            heapq.heappop(healing)
            with self._lock:
                record[1] = time.monotonic()
        if until is not None:
            time.sleep(max(0, until - time.monotonic()))

    def _draw(self, busy):
        what = self.random.choices(list(KINDS), weights=[sum(w for _, w in parts) for parts in KINDS.values()])[0]
        parts, weights = zip(*KINDS[what])
        part = self.random.choices(parts, weights=weights)[0]
        at_leader, index = self.random.random() < 0.6, self.random.random()
        candidates = getattr(self.fleet, f"{part}s")
        if not candidates:
            return what, None
        process = candidates[int(index * len(candidates))]
        if part == "coordinator" and at_leader:
            # The one that matters most. Who that is, the seed cannot know.
            leader = self.fleet.leader()
            process = next((c for c in candidates if leader == f"{c.host.ip}:5050"), process)
        return what, None if process.name in busy else process

    def _break(self, what, process, duration):
        if what == "kill -9":
            process.end(signal.SIGKILL, duration)
        elif what == "restart":
            process.end(signal.SIGTERM, duration)
        elif what in ("stop", "stop all of"):
            stopped = [p.running for p in (self.fleet.zookeepers if what == "stop all of" else [process]) if p.alive()]
            for one in stopped:
                one.send_signal(signal.SIGSTOP)
            return lambda: [one.send_signal(signal.SIGCONT) for one in stopped if one.poll() is None]
        elif what == "cut off":
            process.host.link(up=False)
            return lambda: process.host.link(up=True)
        elif what == "fill the disk":
            process.fill_disk()
            return process.free_disk
        return lambda: None

    def near(self, begin, end, names):
        """Whether a fault of one of these processes may have been felt between two times."""
        with self._lock:
            # After a fault, sessions, links and processes take some time to be as before.
            return any(
                at <= end and (healed or end) + 30 >= begin and any(name in process for name in names)
                for at, healed, _, process in self.log
            )

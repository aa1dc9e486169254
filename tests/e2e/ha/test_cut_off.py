"""A leader that is cut off from ZooKeeper, and from nobody else, steps down before another can act."""

import threading
import time

from harness import wait, web
from harness.framework import Framework
from harness.proxy import Proxy
from harness.zookeeper import Ensemble, Watcher


class Witness:
    """Asks one coordinator again and again, and keeps when it answered as a leader does."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.led = []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ending.is_set():
            try:
                status = web.get(self.daemon.address, "/state-summary", timeout=5).status
            except OSError:
                status = None
            if status == 200:
                # After the answer: the leader acted at this moment at the latest.
                self.led.append(time.monotonic())
            time.sleep(0.005)

    def end(self):
        self.ending.set()
        self.thread.join(10)


def test_a_leader_without_zookeeper_is_none_before_another_is(bare):
    bare.zookeeper = Ensemble(bare.base, 1, tick=500)
    bare._ended.append(bare.zookeeper)
    bare.session_timeout = "4secs"
    bare.url = bare.zookeeper.url()
    bare.watcher = Watcher(bare.zookeeper)
    wire = Proxy(bare.zookeeper.servers[0].port)
    bare._ended.append(wire)
    first = bare.start_one("cut-off", zk=f"zk://127.0.0.1:{wire.port}/tepui")
    bare.wait_leading()
    second = bare.start_one("other")
    bare.wait_candidates(2)
    agent = bare.start_agent()
    framework = Framework(first.address, failover_timeout=600.0)
    framework.subscribe()
    task = framework.run_task("sleep 100000", "running")
    witnesses = [Witness(first), Witness(second)]
    try:
        wait.until(lambda: len(witnesses[0].led) > 5, 10, "the first answers as leader")
        cut = time.monotonic()
        wire.cut()
        assert framework.closed.wait(4), "its streams are closed within the session time-out"
        closed = time.monotonic()
        wait.until(lambda: len(witnesses[1].led) > 5, 20, "the other leads")
        last, begun = witnesses[0].led[-1], witnesses[1].led[0]
        print(f"cut off; streams closed after {closed - cut:.2f} s, led until {last - cut:.2f} s, the other from {begun - cut:.2f} s")
        assert last < begun and closed < begun, "never two at a time"
        wait.until(lambda: bare.is_registered(agent), 20, "the agent has gone over")
        wire.heal()
        follows = lambda: web.get(first.address, "/state").status == 307  # noqa: E731
        wait.until(follows, 20, "the first follows")
        bare.wait_candidates(2)
        assert witnesses[0].led[-1] == last, "and has not led since"
    finally:
        for witness in witnesses:
            witness.end()
    framework.master = second.address
    framework.subscribe()
    framework.call("RECONCILE", {"tasks": [{"task_id": {"value": task}}]})
    wait.until(lambda: framework.statuses(task)[-1].get("reason") == "REASON_RECONCILIATION", 10, "reconciled")
    assert framework.statuses(task)[-1]["state"] == "TASK_RUNNING"
    framework.teardown()
    framework.disconnect()

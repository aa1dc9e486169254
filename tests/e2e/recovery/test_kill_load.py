"""kill -9 of an agent at random moments while it never stops launching: nothing runs twice, is lost, or stays."""

import os
import random
import threading
import time

import pytest

from harness import wait
from harness.framework import TERMINAL, Framework, scalar, task

KILLS = int(os.environ.get("TEPUI_TEST_KILLS", "10"))
IN_FLIGHT = 24


class Launcher(threading.Thread):
    """Launches short tasks without end, each of which leaves a line when it runs."""

    def __init__(self, framework, directory, image, rng):
        super().__init__(daemon=True)
        self.framework, self.directory, self.image, self.rng = framework, directory, image, rng
        self.names, self.enough = [], threading.Event()

    def open_tasks(self):
        ended = {s["task_id"]["value"] for s in self.framework.statuses() if s["state"] in TERMINAL}
        return [name for name in self.names if name not in ended]

    def run(self):
        while not self.enough.is_set():
            room = IN_FLIGHT - len(self.open_tasks())
            try:
                offer = self.framework.offer(0.05, 16, timeout=0.5) if room > 0 else None
            except wait.Timeout:
                offer = None
            if offer is None:
                self.enough.wait(0.02)
                continue
            room = int(min(room, scalar(offer, "cpus") / 0.05 + 1e-6, scalar(offer, "mem") / 16))
            self.framework.launch(offer, [self.one(offer) for _ in range(room)])

    def one(self, offer):
        name = f"t{len(self.names)}"
        # What runs on an image cannot write beside its sandbox.
        on_image = self.rng.random() < 0.3
        line = "echo ran >> $MESOS_SANDBOX/ran" if on_image else f"echo ran >> {self.directory}/{name}"
        command = f"{line}; sleep {self.rng.choice([0, 0, 0.05, 0.3, 2])}"
        more = {"container": self.image} if on_image else {}
        self.names.append(name)
        return task(command, name, cpus=0.05, mem=16, agent_id=offer["agent_id"], **more)


def lines(path):
    try:
        with open(path) as file:
            return len(file.readlines())
    except FileNotFoundError:
        return 0


def runs_of(cluster, directory, name):
    """How often the task's command was begun: lines in its own file or in any of its sandboxes."""
    found = lines(os.path.join(directory, name))
    for folder, _, _ in os.walk(os.path.join(cluster.directory("agent"), "slaves")):
        if f"/executors/{name}/runs/" in folder:
            found += lines(os.path.join(folder, "ran"))
    return found


@pytest.mark.timeout(300)
def test_an_agent_killed_at_random_under_load(bare_cluster, images):
    seed = int(os.environ.get("TEPUI_TEST_SEED", random.randrange(1 << 32)))
    print(f"TEPUI_TEST_SEED={seed}")
    rng = random.Random(seed)
    cluster = bare_cluster
    cluster.start_coordinator()
    cluster.start_agent(resources="cpus:8;mem:4096;disk:4096")
    agent_id = cluster.agent_id()
    framework = Framework(cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    directory = cluster.directory("ran")
    image = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}}
    launcher = Launcher(framework, directory, image, rng)
    launcher.start()
    for _ in range(KILLS):
        time.sleep(rng.random() * 0.8)  # Any moment will do.
        cluster.agents["agent"].kill9()
        # Now and then it dies again in the midst of its recovery.
        cluster.restart_agent(registered=rng.random() < 0.7)
    launcher.enough.set()
    launcher.join(20)
    wait.until(lambda: cluster.is_registered(cluster.agents["agent"]), 20, "the agent is back")
    assert cluster.agent_id() == agent_id

    def all_ended():
        left = launcher.open_tasks()
        if left:  # A launch that never arrived is told by reconciliation.
            framework.call("RECONCILE", {"tasks": [{"task_id": {"value": name}} for name in left]})
        return not left

    wait.until(all_ended, 60, "every task has ended", interval=0.5)
    counts = {}
    for name in launcher.names:
        ends = [s for s in framework.statuses(name) if s["state"] in TERMINAL]
        told = {s["uuid"]: s for s in ends if "uuid" in s}
        assert len(told) <= 1, f"{name} ended more than once: {told}"
        # Who asks after a task whose end was acknowledged hears that it is unknown.
        status = next(iter(told.values()), ends[0])
        runs = runs_of(cluster, directory, name)
        kind = f"{status['state']}, ran {runs}x"
        counts[kind] = counts.get(kind, 0) + 1
        # One that came to run ends as it would have.
        expected = {"TASK_FINISHED": 1, "TASK_LOST": 0, "TASK_FAILED": 0}
        assert runs == expected.get(status["state"]), f"{name} ran {runs} times: {status}"
    print(f"{KILLS} kills, {len(launcher.names)} tasks: {counts}")
    assert counts.get("TASK_FINISHED, ran 1x", 0) > KILLS, counts
    wait.until(lambda: not cluster.task_leftovers(), 20, "no process, mount or cgroup is left")
    wait.until(lambda: cluster.charged() == {}, 10, "nothing stays charged")
    for place in ("agent", "agent-runtime"):
        left = os.listdir(os.path.join(cluster.directory(place), "containers"))
        assert not left, f"directories of containers are left in {place}: {left}"

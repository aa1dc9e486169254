"""Frameworks written for Mesos run unchanged: pymesos over JSON, and a second client over protobuf."""

import base64
import os
import shutil
import sys
import threading
from collections import Counter

import pytest

from harness import codec, wait
from harness.framework import TERMINAL, Framework, scalar, scalars, task

TASKS = 100
# Of each of two executors.
DELEGATED = 200
PROGRAM = os.path.join(os.path.dirname(__file__), "../harness/pymesos_executor.py")


class Hundred:
    """A pymesos scheduler with TASKS command tasks, which counts every update."""

    def __init__(self):
        self.waiting = [f"task-{n}" for n in range(TASKS)]
        self.updates = []
        self.agents = set()
        self.errors = []
        self.lock = threading.Lock()

    def registered(self, driver, framework_id, master_info):
        self.framework_id = framework_id["value"]

    def resourceOffers(self, driver, offers):
        for offer in offers:
            with self.lock:
                fits = int(min(scalar(offer, "cpus") / 0.1, scalar(offer, "mem") / 32, 20))
                taken, self.waiting = self.waiting[:fits], self.waiting[fits:]
            if not taken:
                driver.declineOffer(offer["id"], {"refuse_seconds": 0.1 if self.waiting else 3600})
                continue
            self.agents.add(offer["agent_id"]["value"])
            tasks = [task("exit 0", name, agent_id={"value": offer["agent_id"]["value"]}) for name in taken]
            driver.launchTasks(offer["id"], tasks, {"refuse_seconds": 0.1})

    def statusUpdate(self, driver, update):
        with self.lock:
            self.updates.append((update["task_id"]["value"], update["state"], update.get("uuid")))

    def error(self, driver, message):
        self.errors.append(message)

    def finished(self):
        with self.lock:
            return {name for name, state, _ in self.updates if state == "TASK_FINISHED"}


@pytest.fixture
def two_agents(bare_cluster):
    bare_cluster.start_coordinator()
    for name in ("one", "two"):
        bare_cluster.start_agent(name, resources="cpus:3;mem:2048;disk:4096;ports:[31000-32000]")
    return bare_cluster


def assert_all_finished_and_acknowledged(cluster, framework_id):
    """The coordinator's own view: every task finished, and its last update acknowledged (it is completed)."""

    def completed():
        tasks = cluster.operator("GET_TASKS")["get_tasks"]
        mine = [t for t in tasks.get("completed_tasks", []) if t["framework_id"]["value"] == framework_id]
        return len(mine) == TASKS and all(t["state"] == "TASK_FINISHED" for t in mine)

    wait.until(completed, 10, "every task is completed in the coordinator's state")


def test_pymesos_runs_a_hundred_tasks(two_agents):
    from pymesos import MesosSchedulerDriver

    scheduler = Hundred()
    callbacks = type("Scheduler", (object,), {"__getattr__": lambda self, name: getattr(scheduler, name, lambda *a: None)})()
    info = {"user": "root", "name": "pymesos", "failover_timeout": 60.0}
    driver = MesosSchedulerDriver(callbacks, info, two_agents.master, use_addict=False)
    driver.start()
    try:
        wait.until(lambda: len(scheduler.finished()) == TASKS, 90, "all tasks are finished")
        assert_all_finished_and_acknowledged(two_agents, scheduler.framework_id)
        settled = len(scheduler.updates)
        wait.holds(lambda: len(scheduler.updates) == settled, 12, "no acknowledged update is repeated")
    finally:
        driver.stop()
        driver.join()
    assert not scheduler.errors
    assert len(scheduler.agents) == 2, "both agents ran some"
    repeated = [uuid for uuid, times in Counter(uuid for _, _, uuid in scheduler.updates).items() if times > 1]
    assert not repeated, "an update that was acknowledged came again"
    for name in (f"task-{n}" for n in range(TASKS)):
        states = [state for task_id, state, _ in scheduler.updates if task_id == name]
        assert states == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"], (name, states)


def test_a_protobuf_client_runs_a_hundred_tasks(two_agents):
    framework = Framework(two_agents.master, codec.Protobuf, name="protobuf", failover_timeout=60.0)
    framework.subscribe()
    assert framework.headers["content-type"] == "application/x-protobuf"
    waiting = [f"task-{n}" for n in range(TASKS)]
    while waiting:
        offer = framework.offer(0.1, 32)
        fits = int(min(scalar(offer, "cpus") / 0.1, scalar(offer, "mem") / 32, 20))
        taken, waiting = waiting[:fits], waiting[fits:]
        framework.launch(offer, [task("exit 0", name, agent_id=offer["agent_id"]) for name in taken], {"refuse_seconds": 0.1})
    for n in range(TASKS):
        framework.wait_state(f"task-{n}", "TASK_FINISHED", timeout=60)
    assert_all_finished_and_acknowledged(two_agents, framework.id)
    settled = len(framework.statuses())
    wait.holds(lambda: len(framework.statuses()) == settled, 12, "no acknowledged update is repeated")
    uuids = Counter(status["uuid"] for status in framework.statuses())
    assert len(uuids) == 3 * TASKS and set(uuids.values()) == {1}, "each update came once"
    assert Counter(framework.acknowledged) == uuids, "each update was acknowledged once"
    framework.disconnect()


class TwoExecutors:
    """A pymesos scheduler with an executor on each of two agents, and DELEGATED tasks for each."""

    def __init__(self, program):
        self.program = program
        self.left = {}
        self.updates = []
        self.lock = threading.Lock()

    def registered(self, driver, framework_id, master_info):
        self.framework_id = framework_id["value"]

    def resourceOffers(self, driver, offers):
        for offer in offers:
            agent = offer["agent_id"]["value"]
            with self.lock:
                if agent not in self.left and len(self.left) < 2:
                    self.left[agent] = [f"{agent}-{n}" for n in range(DELEGATED)]
                # An executor takes its own share along with its first tasks.
                fits = int(min((scalar(offer, "cpus") - 0.2) / 0.1, (scalar(offer, "mem") - 64) / 16, 25))
                left = self.left.get(agent, [])
                taken, self.left[agent] = left[: max(fits, 0)], left[max(fits, 0) :]
            if not taken:
                driver.declineOffer(offer["id"], {"refuse_seconds": 0.1 if left else 3600})
                continue
            tasks = [self.task(offer, agent, name) for name in taken]
            driver.launchTasks(offer["id"], tasks, {"refuse_seconds": 0.1})

    def task(self, offer, agent, name):
        executor = {
            "type": "CUSTOM",
            "executor_id": {"value": f"on-{agent}"},
            "framework_id": {"value": self.framework_id},
            "command": {"shell": True, "value": f"exec {sys.executable} {self.program}"},
            "resources": scalars(cpus=0.2, mem=64),
        }
        # Some are short, some are still running when their agent is killed.
        seconds = base64.b64encode(b"0.05" if name.endswith(("1", "4", "7")) else b"1.5").decode()
        return task(None, name, cpus=0.1, mem=16, agent_id=offer["agent_id"], executor=executor, data=seconds)

    def statusUpdate(self, driver, update):
        with self.lock:
            self.updates.append((update["task_id"]["value"], update["state"], update.get("uuid"), update.get("source")))

    def states(self):
        """Every task's states in the order they came, each update once."""
        found, seen = {}, set()
        with self.lock:
            for name, state, uuid, _ in self.updates:
                # The coordinator's own, of an offer that went with the agent, have none.
                update = uuid or (name, state)
                if update not in seen:
                    seen.add(update)
                    found.setdefault(name, []).append(state)
        return found


def test_pymesos_executors_outlive_three_kills_of_their_agent(bare_cluster):
    from pymesos import MesosSchedulerDriver

    bare_cluster.start_coordinator()
    for name in ("one", "two"):
        bare_cluster.start_agent(
            name, resources="cpus:4;mem:1024;disk:4096;ports:[31000-32000]", executor_reregistration_timeout="15secs"
        )
    # Where containers see it, which have a /tmp of their own.
    scheduler = TwoExecutors(shutil.copy(PROGRAM, bare_cluster.directory("program")))
    callbacks = type("Scheduler", (object,), {"__getattr__": lambda self, name: getattr(scheduler, name, lambda *a: None)})()
    info = {"user": "root", "name": "pymesos", "failover_timeout": 600.0, "checkpoint": True}
    driver = MesosSchedulerDriver(callbacks, info, bare_cluster.master, use_addict=False)
    driver.start()
    try:
        over = lambda: sum(states[-1] in TERMINAL for states in scheduler.states().values())  # noqa: E731
        for part in (1, 2, 3):
            wait.until(lambda part=part: over() >= part * DELEGATED // 2, 120, "a part of the tasks is over")
            bare_cluster.agents["one"].kill9()
            bare_cluster.restart_agent("one", registered=False)
        wait.until(lambda: over() == 2 * DELEGATED, 180, "all tasks are over")

        def completed():
            tasks = bare_cluster.operator("GET_TASKS")["get_tasks"]
            mine = [t for t in tasks.get("completed_tasks", []) if t["framework_id"]["value"] == scheduler.framework_id]
            finished = sum(told[-1] == "TASK_FINISHED" for told in scheduler.states().values())
            # Those of an offer that went with the agent were never launched.
            return len(mine) >= finished and all(t["state"] in TERMINAL for t in mine) and not tasks.get("tasks")

        wait.until(completed, 30, "every task is completed: its last update is acknowledged")
        states = scheduler.states()
        assert len(states) == 2 * DELEGATED
        whole = [name for name, told in states.items() if told == ["TASK_RUNNING", "TASK_FINISHED"]]
        # What was on its way to an executor or to the agent when that was killed: the framework is told so, and nothing else.
        lost = [name for name, told in states.items() if told == ["TASK_LOST"]]
        wrong = {name: told for name, told in states.items() if name not in {*whole, *lost}}
        assert not wrong, wrong
        assert len(whole) >= 2 * DELEGATED - 3 * 50 and len({name.rsplit("-", 1)[0] for name in lost}) <= 1, lost
        ends = Counter(name for name, state, uuid, _ in set(scheduler.updates) if state in TERMINAL)
        assert set(ends.values()) == {1}, "one last update each"
        executors = bare_cluster.operator("GET_EXECUTORS")["get_executors"]["executors"]
        assert len(executors) == 2, "both went on"
    finally:
        driver.stop()
        driver.join()

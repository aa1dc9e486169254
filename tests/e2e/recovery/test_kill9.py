"""kill -9 of the agent and of the coordinator: tasks go on, and every update arrives."""

import os
import time

import pytest

from harness import wait
from harness.framework import TERMINAL, Framework, scalar, task

TASKS = 50


@pytest.fixture
def big_cluster(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(resources="cpus:8;mem:4096;disk:4096;ports:[31000-32000]")
    return bare_cluster


def launch_gated(cluster, framework, count):
    """Tasks that run until a file appears, then exit with a code of their own."""
    gate = os.path.join(cluster.directory("gates"), "open")
    script = f"echo $$ > pid; until [ -e {gate} ]; do sleep 0.2; done; exit %d"
    names = [f"gated-{n}" for n in range(count)]
    waiting = list(enumerate(names))
    while waiting:
        offer = framework.offer(0.1, 32)
        fits = int(min(scalar(offer, "cpus") / 0.1 + 1e-6, scalar(offer, "mem") / 32))
        taken, waiting = waiting[:fits], waiting[fits:]
        framework.launch(offer, [task(script % (n % 3), name, agent_id=offer["agent_id"]) for n, name in taken])
    for name in names:
        framework.wait_state(name, "TASK_RUNNING", timeout=60)
    return names, gate


def pids_of(cluster, name="agent"):
    containers = cluster.agent_operator("GET_CONTAINERS", name)["get_containers"]["containers"]
    return {c["executor_id"]["value"]: c["container_status"]["executor_pid"] for c in containers}


def started_at(pid):
    """The kernel's start time of the process: the same pid and time is the same process."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[19]


def identities(pids):
    return {name: (pid, started_at(pid)) for name, pid in pids.items()}


def expected_end(name):
    return "TASK_FINISHED" if int(name.split("-")[1]) % 3 == 0 else "TASK_FAILED"


def assert_each_ends_as_it_should(framework, names, timeout=60):
    for name in names:
        status = framework.wait_terminal(name, timeout=timeout)
        assert status["state"] == expected_end(name), status
        assert f"status {int(name.split('-')[1]) % 3}" in status["message"], status
    for name in names:
        assert framework.states(name) == ["TASK_STARTING", "TASK_RUNNING", expected_end(name)]


def test_agent_killed_under_fifty_tasks(big_cluster):
    framework = Framework(big_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    names, gate = launch_gated(big_cluster, framework, TASKS)
    before = identities(pids_of(big_cluster))
    assert set(before) == set(names)
    big_cluster.agents["agent"].kill9()
    agent_id = None
    assert identities({n: p for n, (p, _) in before.items()}) == before, "tasks run on without their agent"
    started = time.monotonic()
    big_cluster.restart_agent()
    print(f"agent registered again {time.monotonic() - started:.2f} s after its start")
    agent_id = big_cluster.agent_id()
    assert framework.statuses(names[0])[0]["agent_id"]["value"] == agent_id, "the same agent came back"
    assert identities(pids_of(big_cluster)) == before, "the same processes"
    open(gate, "w").close()
    assert_each_ends_as_it_should(framework, names)
    wait.until(lambda: not big_cluster.task_leftovers(), 15, "nothing is left")


def test_tasks_that_end_while_the_agent_is_down_are_reported(big_cluster):
    framework = Framework(big_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    names, gate = launch_gated(big_cluster, framework, 6)
    before = pids_of(big_cluster)
    big_cluster.agents["agent"].kill9()
    open(gate, "w").close()
    wait.until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in before.values()), 15, "all have ended")
    big_cluster.restart_agent()
    assert_each_ends_as_it_should(framework, names)
    wait.until(lambda: not big_cluster.task_leftovers(), 15, "nothing is left")


@pytest.mark.parametrize("root", ["host", "image"])
def test_agent_killed_again_and_again_while_tasks_start(big_cluster, images, root):
    """A kill at any instant: each task ends as it should, or is told as lost; none is forgotten and nothing stays."""
    container = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}}
    more = {"container": container} if root == "image" else {}
    framework = Framework(big_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    names = []
    for turn in range(5):
        offer = framework.offer(1, 320)
        made = [task("sleep 0.3", f"turn{turn}-{n}", agent_id=offer["agent_id"], **more) for n in range(10)]
        framework.launch(offer, made, {"refuse_seconds": 0})
        names += [t["task_id"]["value"] for t in made]
        time.sleep(0.02 + 0.06 * turn)  # Another instant of the launch each turn.
        big_cluster.agents["agent"].kill9()
        big_cluster.restart_agent()
    ends = [framework.wait_terminal(name, timeout=60)["state"] for name in names]
    assert set(ends) <= {"TASK_FINISHED", "TASK_LOST", "TASK_FAILED"}
    print(f"{ends.count('TASK_FINISHED')} finished, {ends.count('TASK_FAILED')} failed, {ends.count('TASK_LOST')} lost")
    framework.run_task("true", wait_until=("TASK_FINISHED",))
    wait.until(lambda: not big_cluster.task_leftovers(), 20, "nothing is left")


def test_coordinator_killed_and_restarted(big_cluster):
    framework = Framework(big_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    names, gate = launch_gated(big_cluster, framework, TASKS)
    before, agent_id, first_id = identities(pids_of(big_cluster)), big_cluster.agent_id(), framework.id
    big_cluster.coordinator.kill9()
    wait.until(framework.closed.is_set, 10, "the framework notices")
    big_cluster.restart_coordinator()
    framework.subscribe()
    assert framework.id == first_id, "the framework has its id"
    wait.until(lambda: big_cluster.is_registered(big_cluster.agents["agent"]), 30, "the agent is back")
    assert big_cluster.agent_id() == agent_id, "the agent has its id"

    def known():
        tasks = big_cluster.operator("GET_TASKS")["get_tasks"].get("tasks", [])
        return {t["task_id"]["value"] for t in tasks if t["state"] == "TASK_RUNNING"}

    wait.until(lambda: known() == set(names), 15, "every task is known again")
    assert identities(pids_of(big_cluster)) == before, "no task was touched"
    framework.call("RECONCILE", {"tasks": []})
    open(gate, "w").close()
    assert_each_ends_as_it_should(framework, names)
    framework.run_task("true", wait_until=("TASK_FINISHED",))


def test_updates_made_while_the_coordinator_is_down_arrive(big_cluster):
    framework = Framework(big_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    names, gate = launch_gated(big_cluster, framework, 6)
    before = pids_of(big_cluster)
    big_cluster.coordinator.kill9()
    open(gate, "w").close()
    wait.until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in before.values()), 15, "all have ended")
    big_cluster.restart_coordinator()
    framework.subscribe()
    assert_each_ends_as_it_should(framework, names)


def test_both_killed_at_once(big_cluster):
    framework = Framework(big_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    names, gate = launch_gated(big_cluster, framework, 10)
    before = identities(pids_of(big_cluster))
    big_cluster.coordinator.kill9()
    big_cluster.agents["agent"].kill9()
    big_cluster.restart_coordinator()
    framework.subscribe()
    big_cluster.restart_agent()
    assert identities(pids_of(big_cluster)) == before
    open(gate, "w").close()
    assert_each_ends_as_it_should(framework, names)


def test_an_update_that_was_not_acknowledged_survives_the_agents_death(big_cluster):
    framework = Framework(big_cluster.master, acknowledge=False, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    task_id = framework.run_task("true", wait_until=("TASK_STARTING",))
    first = framework.statuses(task_id)[0]
    big_cluster.agents["agent"].kill9()
    mark = len(framework.events)
    big_cluster.restart_agent()
    event = framework.wait_event("UPDATE", since=mark, timeout=30)
    assert event["update"]["status"]["uuid"] == first["uuid"], "the very same update"
    framework.acknowledges = True
    framework.acknowledge(event["update"]["status"])
    # Killed in the midst of the launch, so that the task may not have come to run.
    assert framework.wait_terminal(task_id)["state"] in ("TASK_FINISHED", "TASK_FAILED", "TASK_LOST")


def test_an_agent_with_a_coordinator_that_is_away_waits_for_it(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.coordinator.kill9()
    bare_cluster.start_agent(registered=False)
    bare_cluster.restart_coordinator()
    wait.until(lambda: bare_cluster.is_registered(bare_cluster.agents["agent"]), 30, "it registers")


def test_coordinator_killed_again_and_again_while_tasks_start(big_cluster):
    """A launch that never arrived is answered by reconciliation; every other task ends as it should; nothing stays charged."""
    framework = Framework(big_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    names = []
    for turn in range(5):
        offer = framework.offer(1, 320, timeout=40)
        made = [task("sleep 0.3", f"turn{turn}-{n}", agent_id=offer["agent_id"]) for n in range(10)]
        framework.launch(offer, made, {"refuse_seconds": 0})
        names += [t["task_id"]["value"] for t in made]
        time.sleep(0.06 * turn)  # Another instant of the launch each turn.
        big_cluster.coordinator.kill9()
        big_cluster.restart_coordinator()
        framework.subscribe()
    wait.until(lambda: big_cluster.is_registered(big_cluster.agents["agent"]), 30, "the agent is back")

    def open_tasks():
        ended = {s["task_id"]["value"] for s in framework.statuses() if s["state"] in TERMINAL}
        return [name for name in names if name not in ended]

    def all_ended():
        left = open_tasks()
        if left:
            framework.call("RECONCILE", {"tasks": [{"task_id": {"value": name}} for name in left]})
        return not left

    wait.until(all_ended, 60, "every task has a terminal state", interval=0.5)
    ends = [next(s for s in framework.statuses(name) if s["state"] in TERMINAL) for name in names]
    assert {s["state"] for s in ends} <= {"TASK_FINISHED", "TASK_LOST"}, ends
    wait.until(lambda: not big_cluster.task_leftovers(), 20, "nothing is left")
    wait.until(lambda: big_cluster.charged() == {}, 10, "nothing stays charged")

"""Agents that are cut off and come back, as frameworks see it."""

import os
import signal
import time

import pytest

from harness import wait
from harness.framework import Framework


@pytest.fixture
def cluster(bare_cluster):
    bare_cluster.start_coordinator(agent_ping_timeout="1secs", max_agent_ping_timeouts=2)
    bare_cluster.start_agent()
    return bare_cluster


def registered(cluster):
    agents = cluster.operator("GET_AGENTS")["get_agents"].get("agents", [])
    return [agent["agent_info"]["id"]["value"] for agent in agents]


def reconcile(framework, task_id, agent_id=None):
    mark = len(framework.events)
    asked = {"task_id": {"value": task_id}, **({"agent_id": {"value": agent_id}} if agent_id else {})}
    framework.call("RECONCILE", {"tasks": [asked]})
    return framework.wait_event("UPDATE", since=mark)["update"]["status"]


def test_a_task_that_was_unreachable_runs_on(cluster):
    frameworks = {
        "TASK_UNREACHABLE": Framework(cluster.master, capabilities=("MULTI_ROLE", "PARTITION_AWARE"), checkpoint=True),
        "TASK_LOST": Framework(cluster.master, checkpoint=True),
    }
    tasks = {}
    for state, framework in frameworks.items():
        framework.subscribe()
        tasks[state] = framework.run_task("sleep 1000")
    agent_id = cluster.agent_id()
    pid = cluster.agents["agent"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        for state, framework in frameworks.items():
            status = framework.wait_state(tasks[state], state, timeout=20)
            assert status["unreachable_time"]["nanoseconds"] > 0
            assert (status["source"], status["reason"]) == ("SOURCE_MASTER", "REASON_AGENT_REMOVED")
            answer = reconcile(framework, tasks[state], agent_id)
            assert (answer["state"], answer["reason"]) == (state, "REASON_RECONCILIATION")
            assert answer["unreachable_time"] == status["unreachable_time"]
            # Without an agent's name nothing is known of it.
            unknown = {"TASK_UNREACHABLE": "TASK_UNKNOWN", "TASK_LOST": "TASK_LOST"}[state]
            assert reconcile(framework, tasks[state])["state"] == unknown
    finally:
        os.kill(pid, signal.SIGCONT)
    wait.until(lambda: registered(cluster) == [agent_id], 20, "the agent is back")
    for state, framework in frameworks.items():
        # Mesos of before 1.3 killed the tasks of frameworks that know nothing of partitions; this one does not.
        running = [s for s in framework.statuses(tasks[state]) if s.get("reason") == "REASON_AGENT_REREGISTERED"]
        assert running and running[0]["state"] == "TASK_RUNNING"
        assert reconcile(framework, tasks[state])["state"] == "TASK_RUNNING"


def test_the_rate_at_which_agents_are_given_up(bare_cluster):
    bare_cluster.start_coordinator(
        agent_ping_timeout="1secs", max_agent_ping_timeouts=2, agent_removal_rate_limit="1/6secs"
    )
    for name in ("one", "two"):
        bare_cluster.start_agent(name, resources="cpus:1;mem:256")
    pids = [bare_cluster.agents[name].pid for name in ("one", "two")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait.until(lambda: len(registered(bare_cluster)) == 1, 20, "the first is unreachable")
        first = time.monotonic()
        wait.until(lambda: not registered(bare_cluster), 20, "the second is unreachable")
        assert time.monotonic() - first > 3
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    wait.until(lambda: len(registered(bare_cluster)) == 2, 30, "both are back")


def test_a_framework_may_act_before_its_agents_are_back(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent()
    framework = Framework(
        bare_cluster.master, capabilities=("MULTI_ROLE", "PARTITION_AWARE"), checkpoint=True, failover_timeout=600.0
    )
    framework.subscribe()
    task_id = framework.run_task("sleep 1000")
    offer = framework.offer()
    agent_id = bare_cluster.agent_id()
    pid = bare_cluster.agents["agent"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        bare_cluster.coordinator.kill9()
        bare_cluster.restart_coordinator()
        framework.subscribe()
        mark = len(framework.events)
        # What is known of the agent it is asked for when it is back, and not before.
        framework.call("RECONCILE", {"tasks": [{"task_id": {"value": task_id}, "agent_id": {"value": agent_id}}]})
        framework.kill(task_id)
        framework.call("ACKNOWLEDGE", {"agent_id": {"value": agent_id}, "task_id": {"value": task_id}, "uuid": "AAAAAAAAAAAAAAAAAAAAAA=="})
        # An offer of the coordinator before is no offer.
        task = {
            "name": "late", "task_id": {"value": "late"}, "agent_id": {"value": agent_id},
            "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}],
            "command": {"value": "true"},
        }  # fmt: skip
        framework.launch(offer, [task])
        dropped = framework.wait_event("UPDATE", since=mark)["update"]["status"]
        assert (dropped["task_id"]["value"], dropped["state"]) == ("late", "TASK_DROPPED")
        assert dropped["reason"] == "REASON_INVALID_OFFERS"
    finally:
        os.kill(pid, signal.SIGCONT)
    wait.until(lambda: registered(bare_cluster) == [agent_id], 30, "the agent is back")
    assert [s["state"] for s in framework.statuses(task_id)] == ["TASK_STARTING", "TASK_RUNNING"]
    framework.kill(task_id)
    framework.wait_state(task_id, "TASK_KILLED")

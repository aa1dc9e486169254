"""Agents that fall silent and come back, and those that leave for good."""

import os
import signal

import pytest

from harness import wait
from harness.framework import Framework


@pytest.fixture
def cluster(bare_cluster):
    bare_cluster.start_coordinator(agent_ping_timeout="1secs", max_agent_ping_timeouts=2)
    bare_cluster.start_agent()
    return bare_cluster


def stopped(cluster):
    """The agent is frozen: its connections stay, but it answers nothing."""
    os.kill(cluster.agents["agent"].pid, signal.SIGSTOP)


def active_agents(cluster):
    agents = cluster.operator("GET_AGENTS")["get_agents"].get("agents", [])
    return [a["agent_info"]["id"]["value"] for a in agents if a.get("active")]


def test_tasks_of_a_silent_agent_are_unreachable_until_it_is_back(cluster):
    framework = Framework(cluster.master, capabilities=("MULTI_ROLE", "PARTITION_AWARE"))
    framework.subscribe()
    task_id = framework.run_task("sleep 1000")
    agent_id = cluster.agent_id()
    stopped(cluster)
    try:
        status = framework.wait_state(task_id, "TASK_UNREACHABLE", timeout=20)
        assert (status["reason"], status["source"]) == ("REASON_AGENT_REMOVED", "SOURCE_MASTER")
        assert status["unreachable_time"]["nanoseconds"] > 0
        assert framework.wait_event("FAILURE")["failure"]["agent_id"]["value"] == agent_id
        unreachable = cluster.operator("GET_TASKS")["get_tasks"]["unreachable_tasks"]
        assert [t["task_id"]["value"] for t in unreachable] == [task_id]
    finally:
        os.kill(cluster.agents["agent"].pid, signal.SIGCONT)
    wait.until(lambda: active_agents(cluster) == [agent_id], 20, "the agent is back with its id")
    mark = len(framework.events)
    framework.call("RECONCILE", {"tasks": [{"task_id": {"value": task_id}}]})
    back = framework.wait_event("UPDATE", since=mark)["update"]["status"]
    assert back["state"] == "TASK_RUNNING"
    framework.kill(task_id)
    framework.wait_state(task_id, "TASK_KILLED")


def test_a_framework_that_is_not_partition_aware_is_told_lost(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    task_id = framework.run_task("sleep 1000")
    stopped(cluster)
    try:
        status = framework.wait_state(task_id, "TASK_LOST", timeout=20)
        assert status["reason"] == "REASON_AGENT_REMOVED"
    finally:
        os.kill(cluster.agents["agent"].pid, signal.SIGCONT)
    wait.until(lambda: active_agents(cluster), 20, "the agent is back")


def test_no_offers_of_a_silent_agent(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    stopped(cluster)
    try:
        rescind = framework.wait_event("RESCIND", timeout=20)
        assert rescind["rescind"]["offer_id"] == offer["id"]
        assert not active_agents(cluster)
    finally:
        os.kill(cluster.agents["agent"].pid, signal.SIGCONT)
    framework.offer(4, 2048)

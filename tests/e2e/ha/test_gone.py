"""Agents that an operator declares lost for good."""

import os
import signal

from harness import wait, web
from harness.framework import Framework


def mark_gone(cluster, agent_id, expect=200):
    call = {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": agent_id}}}
    answer = web.post_json(cluster.master, "/api/v1", call)
    assert answer.status == expect, f"{answer.status} {answer.text}"


def agents(cluster):
    return cluster.operator("GET_AGENTS")["get_agents"].get("agents", [])


def test_a_gone_agent_ends_and_is_refused_for_good(cluster):
    aware = Framework(cluster.master, capabilities=("MULTI_ROLE", "PARTITION_AWARE"))
    aware.subscribe()
    unaware = Framework(cluster.master)
    unaware.subscribe()
    tasks = {
        framework: framework.run_task("sleep 1000", cpus=0.1, mem=32) for framework in (aware, unaware)
    }
    agent_id, daemon = cluster.agent_id(), cluster.agents["agent"]
    mark_gone(cluster, agent_id)
    status = aware.wait_terminal(tasks[aware])
    assert (status["state"], status["reason"]) == ("TASK_GONE_BY_OPERATOR", "REASON_AGENT_REMOVED_BY_OPERATOR")
    status = unaware.wait_terminal(tasks[unaware])
    assert (status["state"], status["reason"]) == ("TASK_LOST", "REASON_AGENT_REMOVED")
    assert aware.wait_event("FAILURE")["failure"]["agent_id"]["value"] == agent_id
    wait.until(lambda: not daemon.running(), 20, "the agent has ended")
    # Again is fine, also after a restart of the coordinator; nobody is not.
    mark_gone(cluster, agent_id)
    cluster.coordinator.kill9()
    cluster.restart_coordinator()
    mark_gone(cluster, agent_id)
    mark_gone(cluster, "nobody", expect=404)
    aware.subscribe()
    mark = len(aware.events)
    aware.call("RECONCILE", {"tasks": [{"task_id": {"value": "x"}, "agent_id": {"value": agent_id}}]})
    answer = aware.wait_event("UPDATE", since=mark)["update"]["status"]
    assert (answer["state"], answer["reason"]) == ("TASK_GONE_BY_OPERATOR", "REASON_RECONCILIATION")


def test_an_agent_that_was_cut_off_is_told_when_it_is_back(bare_cluster):
    bare_cluster.start_coordinator(agent_ping_timeout="1secs", max_agent_ping_timeouts=2)
    bare_cluster.start_agent()
    framework = Framework(bare_cluster.master, capabilities=("MULTI_ROLE", "PARTITION_AWARE"))
    framework.subscribe()
    task_id = framework.run_task("sleep 1000")
    agent_id, daemon = bare_cluster.agent_id(), bare_cluster.agents["agent"]
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        framework.wait_state(task_id, "TASK_UNREACHABLE", timeout=20)
        mark_gone(bare_cluster, agent_id)
        framework.wait_state(task_id, "TASK_UNREACHABLE", "TASK_GONE_BY_OPERATOR")
        wait.until(lambda: framework.states(task_id)[-1] == "TASK_GONE_BY_OPERATOR", 10, "the task is gone")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    wait.until(lambda: not daemon.running(), 30, "the agent has been told to end")
    assert not agents(bare_cluster)

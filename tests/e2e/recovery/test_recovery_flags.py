"""What an agent that starts anew may change of itself, and what becomes of its containers."""

import os
import signal
import subprocess

import pytest

from harness import wait
from harness.cluster import binary
from harness.daemon import flags_of
from harness.framework import TERMINAL, Framework

RESOURCES = "cpus:4;mem:2048;disk:4096;ports:[31000-32000]"


@pytest.fixture
def running(bare_cluster):
    """A cluster, a framework in it, and a task that runs until its agent or somebody else ends it."""
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(resources=RESOURCES)
    framework = Framework(bare_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    return bare_cluster, framework, framework.run_task("sleep 1000")


def start_with(cluster, **settings):
    """The agent again, with some flags changed."""
    cluster._agent_settings["agent"].update(settings)
    return cluster.restart_agent()


def refused(cluster, **settings):
    """What the agent says when it does not start with these flags."""
    flags = flags_of({**cluster._agent_settings["agent"], "port": cluster.agents["agent"].port, **settings})
    done = subprocess.run([binary(), "agent", *flags], capture_output=True, text=True, timeout=20)
    assert done.returncode != 0
    return done.stderr


def pid_of(cluster, task_id):
    containers = cluster.agent_operator("GET_CONTAINERS")["get_containers"]["containers"]
    return next(c["container_status"]["executor_pid"] for c in containers if c["executor_id"]["value"] == task_id)


def total_cpus(cluster):
    agent = next(a for a in cluster.operator("GET_AGENTS")["get_agents"]["agents"] if a.get("active"))
    return sum(r["scalar"]["value"] for r in agent["total_resources"] if r["name"] == "cpus")


def test_a_changed_agent_says_what_differs_and_what_to_do(running):
    cluster, framework, task_id = running
    agent_id, pid = cluster.agent_id(), pid_of(cluster, task_id)
    cluster.agents["agent"].kill9()
    less, more = RESOURCES.replace("cpus:4", "cpus:2"), RESOURCES.replace("cpus:4", "cpus:6")
    words = refused(cluster, resources=more)
    assert "cpus:6" in words and "--reconfiguration_policy=additive" in words and agent_id in words, words
    words = refused(cluster, resources=less, reconfiguration_policy="additive")
    assert "cpus:4" in words and "--reconfiguration_policy=any" in words, words
    words = refused(cluster, attributes="rack:a")
    assert "rack:a" in words and "--reconfiguration_policy=additive" in words, words

    start_with(cluster, resources=more, attributes="rack:a", reconfiguration_policy="additive")
    wait.until(lambda: total_cpus(cluster) == 6, 10, "the coordinator knows of the change")
    assert (cluster.agent_id(), pid_of(cluster, task_id)) == (agent_id, pid), "the same agent, the same task"
    cluster.agents["agent"].kill9()
    start_with(cluster, resources=less, attributes="", reconfiguration_policy="any")
    wait.until(lambda: total_cpus(cluster) == 2, 10, "the coordinator knows of the change")
    assert (cluster.agent_id(), pid_of(cluster, task_id)) == (agent_id, pid), "the same agent, the same task"
    framework.kill(task_id)
    framework.wait_state(task_id, "TASK_KILLED")
    framework.run_task("true", wait_until=("TASK_FINISHED",))


def test_cleaning_up_ends_the_containers_and_then_the_agent(running):
    cluster, framework, task_id = running
    agent_id = cluster.agent_id()
    cluster.agents["agent"].kill9()
    cluster._agent_settings["agent"]["recover"] = "cleanup"
    cleaner = cluster.restart_agent(registered=False)
    assert cleaner.process.wait(20) == 0
    assert not cluster.task_leftovers()
    start_with(cluster, recover="reconnect")
    assert cluster.agent_id() == agent_id
    assert framework.wait_terminal(task_id)["state"] == "TASK_LOST"
    framework.run_task("true", wait_until=("TASK_FINISHED",))


def test_a_shim_that_does_not_answer_loses_its_task(running):
    cluster, framework, task_id = running
    going_on = framework.run_task("sleep 1000")
    with open(f"/proc/{pid_of(cluster, task_id)}/stat") as stat:
        shim = int(stat.read().rpartition(")")[2].split()[1])
    cluster.agents["agent"].kill9()
    os.kill(shim, signal.SIGSTOP)
    start_with(cluster)
    status = framework.wait_terminal(task_id, timeout=40)
    assert (status["state"], status["reason"]) == ("TASK_LOST", "REASON_EXECUTOR_REREGISTRATION_TIMEOUT")
    assert not [s for s in framework.statuses(going_on) if s["state"] in TERMINAL], "the other goes on"
    wait.until(lambda: cluster.charged().get("cpus") == 0.1, 10, "only the other is charged")

"""Flags of the agent that change what tasks get."""

import json
import os
import time

import pytest

from harness import wait, web
from harness.framework import Framework, scalar


def agent_with(cluster, **flags):
    """A coordinator, an agent with these flags, and a framework."""
    cluster.start_coordinator()
    cluster.start_agent(**flags)
    framework = Framework(cluster.master)
    framework.subscribe()
    return framework


def stdout_of(cluster, framework, task_id):
    path = f"/frameworks/{framework.id}/executors/{task_id}/runs/latest/stdout"
    return web.get(cluster.agents["agent"].address, f"/files/download?path={path}")


def test_sandboxes_are_collected_after_their_delay(bare_cluster):
    framework = agent_with(bare_cluster, gc_delay="1weeks", disk_watch_interval="1secs")
    young, old = (framework.run_task("echo here", wait_until=("TASK_FINISHED",)) for _ in range(2))
    slaves = os.path.join(bare_cluster.directory("agent"), "slaves")

    def sandboxes(task_id):
        return [folder for folder, _, _ in os.walk(slaves) if f"/executors/{task_id}/runs/" in folder]

    assert stdout_of(bare_cluster, framework, old).text == "here\n"
    long_ago = time.time() - 8 * 24 * 3600
    for sandbox in sandboxes(old):
        os.utime(sandbox, (long_ago, long_ago))  # Its age counts from the end of the task.
    wait.until(lambda: stdout_of(bare_cluster, framework, old).status == 404, 20, "the old sandbox is gone")
    assert not sandboxes(old), "from the disk too"
    assert stdout_of(bare_cluster, framework, young).text == "here\n"


def test_sandboxes_of_earlier_runs_and_of_former_agents_are_collected(bare_cluster):
    framework = agent_with(bare_cluster, gc_delay="1weeks", disk_watch_interval="1secs")
    task_id = framework.run_task("echo here", wait_until=("TASK_FINISHED",))
    slaves = os.path.join(bare_cluster.directory("agent"), "slaves")
    former = os.path.join(slaves, "former-S0/frameworks/F/executors/E/runs/R")
    os.makedirs(former)
    tasks = lambda: bare_cluster.agent_operator("GET_TASKS")["get_tasks"]  # noqa: E731
    wait.until(lambda: tasks()["completed_tasks"], 10, "its end is acknowledged: nothing makes it younger")
    bare_cluster.agents["agent"].kill9()
    long_ago = time.time() - 8 * 24 * 3600
    sandboxes = [folder for folder, _, _ in os.walk(slaves) if os.path.basename(os.path.dirname(folder)) == "runs"]
    assert len(sandboxes) == 2, sandboxes
    for sandbox in sandboxes:
        os.utime(sandbox, (long_ago, long_ago))
    bare_cluster.restart_agent()
    gone = [*sandboxes, os.path.join(slaves, "former-S0")]
    wait.until(lambda: not any(os.path.exists(path) for path in gone), 20, "both are gone, and all that led to the former agent's")
    assert stdout_of(bare_cluster, framework, task_id).status == 404
    metrics = web.get(bare_cluster.agents["agent"].address, "/metrics/snapshot").json()
    assert metrics["gc/path_removals_succeeded"] == 2
    assert (metrics["gc/path_removals_failed"], metrics["gc/path_removals_pending"]) == (0, 0)


def test_a_running_tasks_sandbox_is_not_collected(bare_cluster):
    framework = agent_with(bare_cluster, gc_delay="1secs", disk_watch_interval="1secs")
    task_id = framework.run_task("echo here; sleep 1000")
    wait.until(lambda: stdout_of(bare_cluster, framework, task_id).text == "here\n", 5, "it wrote")
    wait.holds(lambda: stdout_of(bare_cluster, framework, task_id).status == 200, 4, "its sandbox stays")


def test_variables_for_all_tasks(bare_cluster):
    variables = json.dumps({"FOR_ALL": "x y", "OWN": "agent"})
    framework = agent_with(bare_cluster, executor_environment_variables=variables)
    command = {"shell": True, "value": "echo $FOR_ALL-$OWN", "environment": {"variables": [{"name": "OWN", "value": "task"}]}}
    task_id = framework.run_task(command, wait_until=("TASK_FINISHED",))
    assert stdout_of(bare_cluster, framework, task_id).text == "x y-task\n", "a task's own come first"


def test_without_switching_users(bare_cluster):
    framework = agent_with(bare_cluster, switch_user=False)
    task_id = framework.run_task({"shell": True, "value": "id -u", "user": "nobody"}, wait_until=("TASK_FINISHED",))
    assert stdout_of(bare_cluster, framework, task_id).text == f"{os.geteuid()}\n"


def test_resources_are_detected(bare_cluster):
    framework = agent_with(bare_cluster, resources="mem:100")
    offer = framework.offer()
    assert scalar(offer, "mem") == 100
    assert scalar(offer, "cpus") == os.cpu_count() and scalar(offer, "disk") > 0
    ports = next(r for r in offer["resources"] if r["name"] == "ports")
    assert ports["ranges"]["range"] == [{"begin": 31000, "end": 32000}]


def test_resources_as_json(bare_cluster):
    resources = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.5}}, {"name": "mem", "type": "SCALAR", "scalar": {"value": 64}}]
    offer = agent_with(bare_cluster, resources=json.dumps(resources)).offer()
    assert scalar(offer, "cpus") == 1.5 and scalar(offer, "mem") == 64


def test_cfs_is_off_unless_asked_for(bare_cluster):
    """As in Mesos: shares only, so that an idle machine's CPUs can be used."""
    framework = agent_with(bare_cluster)
    framework.run_task("sleep 1000", cpus=0.5)
    containers = bare_cluster.agent_operator("GET_CONTAINERS")["get_containers"]["containers"]
    assert "cpus_limit" not in containers[0]["resource_statistics"]
    assert containers[0]["resource_statistics"]["cpus_soft_limit"] == 0.5


def test_a_restart_with_other_resources_is_refused(bare_cluster):
    """--reconfiguration_policy=equal: frameworks count on what they were offered."""
    framework = agent_with(bare_cluster)
    framework.run_task("sleep 1000")
    bare_cluster.agents["agent"].stop()
    bare_cluster._agent_settings["agent"]["resources"] = "cpus:1;mem:64"
    with pytest.raises(AssertionError, match="resources|reconfiguration_policy"):
        bare_cluster.restart_agent()
    bare_cluster._agent_settings["agent"]["resources"] = "cpus:4;mem:2048;disk:4096;ports:[31000-32000]"
    bare_cluster.restart_agent()

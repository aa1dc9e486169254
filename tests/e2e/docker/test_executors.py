"""A framework's own executor in a Docker container: this process is its voice, the container holds a shell."""

import pytest

from harness import executor, wait, web
from harness.docker_engine import IMAGE
from harness.executor import Executor
from harness.framework import Framework, task

from .conftest import settings


@pytest.fixture
def own_cluster(bare_cluster, engine):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(
        **settings(engine), cgroups_enable_cfs="true", executor_reregistration_timeout="15secs",
        resources="cpus:4;mem:2048;disk:1024;ports:[31000-31100]",
    )  # fmt: skip
    return bare_cluster


def launch(framework, info, *names, **more):
    offer = framework.offer(1, 256)
    tasks = [task(None, name, executor=info, agent_id=offer["agent_id"], **more) for name in names]
    framework.launch(offer, tasks)


def test_an_executor_in_a_docker_container(own_cluster, engine):
    framework = Framework(own_cluster.master, checkpoint=True)
    framework.subscribe()
    info = executor.info(command="env > $MESOS_SANDBOX/seen; exec sleep 1000", cpus=0.5, mem=64)
    info["container"] = {"type": "DOCKER", "docker": {"image": IMAGE}}
    launch(framework, info, "a", cpus=0.5, mem=64)
    mine = Executor(own_cluster.agents["agent"].address, framework.id, "e")
    mine.subscribe_when_up()
    name = "mesos-" + mine.events[0]["subscribed"]["container_id"]["value"]
    mine.wait_launch("a")

    said = engine.inspect(name)
    assert said["Config"]["Labels"]["tepui.executor_id"] == "e"
    environment = dict(line.split("=", 1) for line in said["Config"]["Env"])
    assert environment["MESOS_AGENT_ENDPOINT"] == own_cluster.agents["agent"].address
    assert environment["MESOS_FRAMEWORK_ID"] == framework.id and environment["MESOS_EXECUTOR_ID"] == "e"
    assert said["HostConfig"]["Memory"] == 128 << 20 and said["HostConfig"]["CpuQuota"] == 100_000

    # The agent has it from the engine, which may take longer than this executor to subscribe.
    def has_pid():
        told = web.operator(own_cluster.agents["agent"].address, "GET_CONTAINERS")["get_containers"]
        return any("executor_pid" in container.get("container_status", {}) for container in told.get("containers", []))

    wait.until(has_pid, what="its pid is known")
    mine.tell("a", "TASK_RUNNING")
    status = framework.wait_state("a", "TASK_RUNNING")
    assert status["container_status"]["executor_pid"] == said["State"]["Pid"]

    # The engine gives it what a further task needs, before it is given the task, and takes it back.
    launch(framework, info, "b", cpus=1, mem=100)
    mine.wait_launch("b")
    host = engine.inspect(name)["HostConfig"]
    assert host["Memory"] == 228 << 20 and host["CpuQuota"] == 200_000 and host["CpuShares"] == 2048
    mine.tell("b", "TASK_FINISHED")
    framework.wait_state("b", "TASK_FINISHED")
    wait.until(lambda: engine.inspect(name)["HostConfig"]["Memory"] == 128 << 20, 10, "it has as much as before")

    # It outlives its agent.
    own_cluster.agents["agent"].kill9()
    own_cluster.restart_agent()
    mine.subscribe_when_up()
    mine.tell("a", "TASK_FINISHED")
    framework.wait_state("a", "TASK_FINISHED")
    framework.call("SHUTDOWN", {"executor_id": {"value": "e"}, "agent_id": {"value": own_cluster.agent_id()}})
    mine.wait_event("SHUTDOWN")
    failed = framework.wait_event("FAILURE", where=lambda e: "executor_id" in e["failure"])["failure"]
    assert failed["executor_id"]["value"] == "e"
    wait.until(lambda: name not in engine.names(), 20, "its container is removed")
    framework.disconnect()


def test_the_end_of_its_container_is_that_of_its_tasks(own_cluster, engine):
    framework = Framework(own_cluster.master)
    framework.subscribe()
    info = executor.info(command="exec sleep 1000", cpus=0.5, mem=64)
    info["container"] = {"type": "DOCKER", "docker": {"image": IMAGE}}
    launch(framework, info, "t")
    mine = Executor(own_cluster.agents["agent"].address, framework.id, "e")
    mine.subscribe_when_up()
    mine.wait_launch("t")
    engine.docker("kill", "mesos-" + mine.events[0]["subscribed"]["container_id"]["value"])
    status = framework.wait_state("t", "TASK_FAILED")
    assert status["reason"] == "REASON_EXECUTOR_TERMINATED" and status["source"] == "SOURCE_AGENT"
    framework.disconnect()

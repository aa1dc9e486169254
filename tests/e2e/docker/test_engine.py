"""Agents and engines that die, stop, hang and come back, under running Docker tasks."""

import os
import shutil

import pytest

from harness import wait
from harness.docker_engine import IMAGE
from harness.framework import Framework

from .conftest import settings

CONTAINER = {"type": "DOCKER", "docker": {"image": IMAGE}}
COUNTING = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); echo line $i; [ -e /mnt/mesos/sandbox/stop ] && exit 0; sleep 0.01; done"
UNTIL_TOLD = "while [ ! -e /mnt/mesos/sandbox/stop ]; do sleep 0.05; done; exit 5"


@pytest.fixture
def started(bare_cluster):
    """Starts an agent on an engine; gives the cluster and a framework whose tasks survive the agent."""
    frameworks = []

    def start(engine, **more):
        bare_cluster.start_coordinator()
        bare_cluster.start_agent(**{**settings(engine), **more})
        frameworks.append(Framework(bare_cluster.master, checkpoint=True, failover_timeout=600.0))
        frameworks[0].subscribe()
        return bare_cluster, frameworks[0]

    yield start
    for framework in frameworks:
        framework.teardown()


def launch(framework, command, **more):
    return framework.run_task(command, wait_until=("TASK_RUNNING",), **{"container": CONTAINER, **more})


def sandbox(cluster, framework, task_id):
    run = f"frameworks/{framework.id}/executors/{task_id}/runs/latest"
    return os.path.join(cluster.directory("agent"), "slaves", cluster.agent_id(), run)


def tell_to_stop(cluster, framework, task_id):
    open(os.path.join(sandbox(cluster, framework, task_id), "stop"), "w").close()


def name_of(framework, task_id):
    return "mesos-" + framework.statuses(task_id)[-1]["container_status"]["container_id"]["value"]


def ends(framework, task_id):
    return [state for state in framework.states(task_id) if state not in ("TASK_STARTING", "TASK_RUNNING")]


def run_natively(framework):
    """A task of the native containerizer, which must not notice."""
    return framework.run_task("true", wait_until=("TASK_FINISHED",))


def test_an_agent_that_is_killed_finds_its_container_again(started, engine):
    cluster, framework = started(engine)
    task_id = launch(framework, COUNTING)
    output = os.path.join(sandbox(cluster, framework, task_id), "stdout")
    for _ in range(3):
        before = os.path.getsize(output)
        wait.until(lambda: os.path.getsize(output) > before + 100, 20, "the output grows")
        cluster.agents["agent"].kill9()
        cluster.restart_agent()
    assert engine.inspect(name_of(framework, task_id))["RestartCount"] == 0
    tell_to_stop(cluster, framework, task_id)
    assert framework.wait_terminal(task_id)["state"] == "TASK_FINISHED"
    with open(output) as text:
        lines = text.read().splitlines()
    assert lines == [f"line {number + 1}" for number in range(len(lines))], "lines are missing, or there twice"
    assert ends(framework, task_id) == ["TASK_FINISHED"]


def test_an_end_that_came_while_the_agent_was_away_is_told_once(started, engine):
    cluster, framework = started(engine)
    task_id = launch(framework, UNTIL_TOLD)
    name = name_of(framework, task_id)
    cluster.agents["agent"].kill9()
    tell_to_stop(cluster, framework, task_id)
    wait.until(lambda: not engine.inspect(name)["State"]["Running"], 20, "the container ends")
    cluster.restart_agent()
    last = framework.wait_terminal(task_id)
    assert last["state"] == "TASK_FAILED" and "status 5" in last["message"], last
    wait.until(lambda: name not in engine.names(), 20, "the container is removed")
    cluster.agents["agent"].kill9()
    cluster.restart_agent()
    run_natively(framework)
    assert ends(framework, task_id) == ["TASK_FAILED"]


def test_containers_that_nobody_knows_are_removed(started, engine):
    cluster, framework = started(engine)
    name = name_of(framework, launch(framework, "sleep 1000"))
    foreign = engine.docker("run", "--detach", "--network=none", "--entrypoint=/bin/sleep", IMAGE, "1000").strip()
    cluster.agents["agent"].kill9()
    shutil.rmtree(os.path.join(cluster.directory("agent"), "meta"))
    cluster.restart_agent()
    wait.until(lambda: name not in engine.names(), 30, "the orphan is removed")
    # What is not this agent's is left alone.
    assert engine.inspect(foreign)["State"]["Running"]
    engine.docker("rm", "--force", foreign)


def test_an_engine_that_stops_ends_its_tasks_and_no_others(started, own_engine):
    cluster, framework = started(own_engine)
    native = framework.run_task("sleep 1000", wait_until=("TASK_RUNNING",))
    task_id = launch(framework, "sleep 1000")
    own_engine.stop()
    # Without an engine a task has its reason at once.
    refused = framework.run_task("true", wait_until=(), container=CONTAINER)
    last = framework.wait_terminal(refused)
    assert last["reason"] == "REASON_CONTAINER_LAUNCH_FAILED" and "is it running" in last["message"], last
    run_natively(framework)
    own_engine.start()
    last = framework.wait_terminal(task_id)
    assert last["state"] == "TASK_FAILED", last
    assert ends(framework, task_id) == ["TASK_FAILED"]
    assert framework.states(native)[-1] == "TASK_RUNNING"
    framework.kill(native)
    framework.wait_terminal(native)
    framework.run_task("true", wait_until=("TASK_FINISHED",), container=CONTAINER)
    wait.until(lambda: not own_engine.names(), 30, "nothing is left in the engine")


@pytest.mark.parametrize("own_engine", [{"live_restore": True}], indirect=True)
def test_tasks_survive_an_engine_that_restores_them(started, own_engine):
    cluster, framework = started(own_engine)
    task_id = launch(framework, UNTIL_TOLD)
    pid = own_engine.inspect(name_of(framework, task_id))["State"]["Pid"]
    own_engine.kill9()
    own_engine.start()
    assert own_engine.inspect(name_of(framework, task_id))["State"]["Pid"] == pid
    assert framework.states(task_id)[-1] == "TASK_RUNNING"
    tell_to_stop(cluster, framework, task_id)
    last = framework.wait_terminal(task_id)
    assert last["state"] == "TASK_FAILED" and "status 5" in last["message"], last
    assert ends(framework, task_id) == ["TASK_FAILED"]


def test_an_engine_that_hangs_holds_nothing_else_up(started, own_engine):
    cluster, framework = started(own_engine)
    task_id = launch(framework, UNTIL_TOLD)
    own_engine.freeze()
    waiting = framework.run_task("true", wait_until=(), container=CONTAINER)
    for _ in range(3):
        run_natively(framework)
    # An agent that starts meanwhile comes up, too, and takes the container to run.
    cluster.agents["agent"].kill9()
    cluster.restart_agent()
    run_natively(framework)
    own_engine.thaw()
    # Its launch was cut off, and is not made up for.
    assert framework.wait_terminal(waiting)["state"] in ("TASK_FINISHED", "TASK_FAILED")
    tell_to_stop(cluster, framework, task_id)
    assert "status 5" in framework.wait_terminal(task_id)["message"]
    assert ends(framework, task_id) == ["TASK_FAILED"]


def test_an_agent_starts_without_an_engine(bare_cluster, tmp_path):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(containerizers="docker,mesos", docker_socket=str(tmp_path / "nobody"))
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    task_id = framework.run_task("true", wait_until=(), container=CONTAINER)
    assert "is it running" in framework.wait_terminal(task_id)["message"]
    run_natively(framework)
    framework.teardown()


@pytest.mark.parametrize("names,container", [("mesos", CONTAINER), ("docker", None)])
def test_a_container_that_no_containerizer_makes_is_refused(bare_cluster, names, container):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(containerizers=names)
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    more = {"container": container} if container else {}
    last = framework.wait_terminal(framework.run_task("true", wait_until=(), **more))
    assert last["reason"] == "REASON_CONTAINER_LAUNCH_FAILED" and f"--containerizers={names}" in last["message"], last
    framework.teardown()

"""Pods: task groups under the default executor, whose tasks share network, host name, IPC and volumes, and end as one."""

import os
import signal
import socket

import pytest

from harness import wait, web
from harness.framework import Framework, scalars, task

OWN_CGROUPS = {"type": "MESOS", "linux_info": {"share_cgroups": False}}


@pytest.fixture
def framework(shared_cluster):
    made = Framework(shared_cluster.master, checkpoint=True)
    made.subscribe()
    yield made
    made.teardown()


def executor_of(framework, name, **more):
    return {
        "type": "DEFAULT",
        "executor_id": {"value": name},
        "framework_id": {"value": framework.id},
        "resources": scalars(cpus=0.1, mem=32, disk=8),
        **more,
    }


def launch_group(framework, executor, tasks):
    """On the next offer that has room; the tasks' ids."""
    offer = framework.offer(cpus=0.1 * (len(tasks) + 1), mem=512)
    for one in tasks:
        one["agent_id"] = offer["agent_id"]
    group = {"executor": executor, "task_group": {"tasks": tasks}}
    accept = {"offer_ids": [offer["id"]], "operations": [{"type": "LAUNCH_GROUP", "launch_group": group}], "filters": {"refuse_seconds": 0}}
    framework.call("ACCEPT", accept=accept)
    return [one["task_id"]["value"] for one in tasks]


def run_group(framework, name, *tasks, **executor):
    ids = launch_group(framework, executor_of(framework, name, **executor), list(tasks))
    for task_id in ids:
        framework.wait_state(task_id, "TASK_RUNNING")
    return ids


def sandbox(cluster, framework, name):
    runs = os.path.join(
        cluster.directory("agent"), "slaves", cluster.agent_id(), "frameworks", framework.id, "executors", name, "runs",
    )  # fmt: skip
    return os.path.realpath(os.path.join(runs, "latest"))


def output(cluster, framework, name, task_id, file="stdout"):
    """Of a task in a pod, found by the link that Mesos' default executor makes, too."""
    with open(os.path.join(sandbox(cluster, framework, name), "tasks", task_id, file)) as found:
        return found.read()


def container(framework, task_id):
    return framework.statuses(task_id)[-1]["container_status"]["container_id"]


def executors(cluster, framework):
    shown = cluster.agent_operator("GET_EXECUTORS")["get_executors"].get("executors", [])
    shown = [one["executor_info"] for one in shown]
    return [one["executor_id"]["value"] for one in shown if one["framework_id"]["value"] == framework.id]


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


def shared_volume(container_path):
    source = {"type": "SANDBOX_PATH", "sandbox_path": {"type": "PARENT", "path": "shared"}}
    return {"mode": "RW", "container_path": container_path, "source": source}


def on_image(images, **more):
    docker = {"name": images.reference}
    return {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": docker}}, **more}


def test_a_pod_of_three_talks_shares_and_dies_as_one(bare_cluster, images):
    """Three containers, two on images and one on the host's files, each with a memory limit of its own; the agent is killed in the middle."""
    cluster = bare_cluster
    cluster.start_coordinator()
    isolation = "cgroups/cpu,cgroups/mem,disk/du,filesystem/linux,docker/runtime,namespaces/pid,namespaces/ipc,volume/sandbox_path"
    cluster.start_agent(isolation=isolation, image_providers="docker")
    framework = Framework(cluster.master, checkpoint=True)
    framework.subscribe()
    port = free_port()
    own = {"linux_info": {"share_cgroups": False}}
    serve = f"echo answered-by-server > /tmp/page; busybox httpd -f -p 127.0.0.1:{port} -h /tmp"
    ask = f"while ! busybox wget -q -O /seen/new http://127.0.0.1:{port}/page; do sleep 0.1; done; busybox mv /seen/new /seen/answer; cat /seen/answer; sleep 1000"
    look = "while ! grep -q answered seen/answer 2>/dev/null; do sleep 0.1; done; echo found; hostname; while ! test -e seen/fat; do sleep 0.1; done; head -c 200m /dev/zero | tail | sleep 1000"
    tasks = [
        task(serve, "server", mem=32, container=on_image(images, **own)),
        task(ask, "client", mem=40, container=on_image(images, volumes=[shared_volume("/seen")], **own)),
        task(look, "looker", mem=48, container={**OWN_CGROUPS, "volumes": [shared_volume("seen")]}),
    ]
    ids = run_group(framework, "pod", *tasks)
    found = lambda: output(cluster, framework, "pod", "looker").startswith("found")  # noqa: E731
    wait.until(found, 30, "what the server said is seen in the shared volume")
    assert output(cluster, framework, "pod", "client") == "answered-by-server\n"
    ipc = set()
    shown = cluster.agent_operator({"type": "GET_CONTAINERS", "get_containers": {"show_nested": True}})
    for one in shown["get_containers"]["containers"]:
        pid = one["container_status"]["executor_pid"]
        ipc.add((os.readlink(f"/proc/{pid}/ns/ipc"), os.readlink(f"/proc/{pid}/ns/uts")))
    assert len(shown["get_containers"]["containers"]) == 4 and len(ipc) == 1, shown
    limits = {}
    for one in shown["get_containers"]["containers"]:
        limits[one["container_id"]["value"]] = one["resource_statistics"]["mem_limit_bytes"] >> 20
    assert [limits[container(framework, one)["value"]] for one in ids] == [32, 40, 48]

    before = len(framework.statuses())
    cluster.agents["agent"].kill9()
    cluster.restart_agent()
    assert len(framework.statuses()) == before, "nothing happened to them"

    # One goes over its own limit; the others, which have room, are killed with it.
    with open(os.path.join(sandbox(cluster, framework, "pod"), "shared/fat"), "w"):
        pass
    over = framework.wait_terminal("looker")
    assert (over["state"], over["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LIMITATION_MEMORY"), over
    for task_id in ("server", "client"):
        last = framework.wait_terminal(task_id)
        assert last["state"] == "TASK_KILLED" and last["source"] == "SOURCE_EXECUTOR", last
    wait.until(lambda: not executors(cluster, framework), 20, "the executor has ended")
    wait.until(lambda: cluster.charged() == {}, 20, "all is given back")
    framework.teardown()


def test_updates_are_those_of_the_default_executor(shared_cluster, framework):
    one, two = run_group(framework, "updates", task("true", "short"), task("sleep 0.5", "long"))
    for task_id in (one, two):
        framework.wait_terminal(task_id)
        assert framework.states(task_id) == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
    parents, own = set(), set()
    for status in framework.statuses():
        assert status["executor_id"]["value"] == "updates" and status["source"] == "SOURCE_EXECUTOR", status
        here = status["container_status"]["container_id"]
        parents.add(here["parent"]["value"])
        own.add(here["value"])
    assert len(parents) == 1 and len(own) == 2
    wait.until(lambda: not executors(shared_cluster, framework), 20, "the executor ends with its last task")
    ended = framework.wait_event("FAILURE")["failure"]
    assert ended["executor_id"]["value"] == "updates" and ended["status"] == 0


@pytest.mark.parametrize(
    "how,state,reason",
    [("exit 7", "TASK_FAILED", None), ("kill", "TASK_KILLED", None), ("too long", "TASK_FAILED", "REASON_MAX_COMPLETION_TIME_REACHED")],
)
def test_one_that_does_not_finish_takes_its_group_along(shared_cluster, framework, how, state, reason):
    more = {"max_completion_time": {"nanoseconds": 300_000_000}} if how == "too long" else {}
    first = task("while ! test -e ../../go; do sleep 0.05; done; exit 7" if how == "exit 7" else "sleep 1000", "first", **more)
    stubborn = task("trap '' TERM; echo ready; while :; do sleep 0.05; done", "stubborn", kill_policy={"grace_period": {"nanoseconds": 500_000_000}})
    others = [task("sleep 1000", "second"), stubborn]
    executor = executor_of(framework, "group")
    ids = launch_group(framework, executor, [first, *others])
    for task_id in ids[1:]:
        framework.wait_state(task_id, "TASK_RUNNING")
    bystander = launch_group(framework, executor, [task("sleep 1000", "bystander")])[0]
    framework.wait_state(bystander, "TASK_RUNNING")
    if how == "exit 7":
        open(os.path.join(sandbox(shared_cluster, framework, "group"), "go"), "w").close()
    elif how == "kill":
        framework.kill("first")
    last = framework.wait_terminal("first")
    assert last["state"] == state and last.get("reason") == reason, last
    for task_id in ids[1:]:
        other = framework.wait_terminal(task_id)
        assert other["state"] == "TASK_KILLED" and "reason" not in other, other
    assert "Killed" in framework.statuses("stubborn")[-1]["message"]
    assert framework.states("bystander")[-1] == "TASK_RUNNING", "another group goes on"
    assert executors(shared_cluster, framework) == ["group"]


def test_the_executor_is_shut_down(shared_cluster, framework):
    ids = run_group(framework, "asked", task("sleep 1000", "s1"), task("trap '' TERM; while :; do sleep 0.05; done", "s2"))
    shutdown = {"executor_id": {"value": "asked"}, "agent_id": {"value": shared_cluster.agent_id()}}
    framework.call("SHUTDOWN", shutdown=shutdown)
    for task_id in ids:
        assert framework.wait_terminal(task_id)["state"] == "TASK_KILLED"
    wait.until(lambda: not executors(shared_cluster, framework), 20, "it has ended")


def test_a_task_that_cannot_be_launched_takes_its_group_along(shared_cluster, framework):
    wrong = {"type": "MESOS", "volumes": [{"mode": "RW", "container_path": "x", "host_path": "/no/such/path"}]}
    launch_group(framework, executor_of(framework, "wrong"), [task("sleep 1000", "good"), task("true", "bad", container=wrong)])
    bad, good = framework.wait_terminal("bad"), framework.wait_terminal("good")
    assert bad["state"] == "TASK_FAILED" and "/no/such/path" in bad["message"], bad
    assert good["state"] == "TASK_KILLED", good
    wait.until(lambda: not executors(shared_cluster, framework), 20, "it has ended")


def test_resources_of_the_pod_are_those_of_all(shared_cluster, framework):
    run_group(framework, "sum", task("sleep 1000", "r1", cpus=0.2, mem=64), task("sleep 1000", "r2", cpus=0.3, mem=32))
    shown = lambda: next(c for c in shared_cluster.agent_operator("GET_CONTAINERS")["get_containers"]["containers"] if c["executor_id"]["value"] == "sum")  # noqa: E731
    figures = shown()["resource_statistics"]
    assert figures["mem_limit_bytes"] >> 20 == 128 and round(figures["cpus_soft_limit"], 3) == 0.6, figures
    launch_group(framework, executor_of(framework, "sum"), [task("sleep 1000", "r3", cpus=0.4, mem=48)])
    framework.wait_state("r3", "TASK_RUNNING")
    figures = shown()["resource_statistics"]
    assert figures["mem_limit_bytes"] >> 20 == 176 and round(figures["cpus_soft_limit"], 3) == 1.0, figures


def test_a_pod_ends_while_the_agent_is_away(cluster):
    framework = Framework(cluster.master, checkpoint=True)
    framework.subscribe()
    waits = "while ! test -e ../../go; do sleep 0.05; done; exit "
    tasks = [task(waits + "0", "well"), task(waits + "9", "ill"), task("sleep 1000", "goes-on")]
    run_group(framework, "away", *tasks)
    shown = cluster.agent_operator({"type": "GET_CONTAINERS", "get_containers": {"show_nested": True}})
    pids = {one["container_id"]["value"]: one["container_status"]["executor_pid"] for one in shown["get_containers"]["containers"]}
    cluster.agents["agent"].kill9()
    open(os.path.join(sandbox(cluster, framework, "away"), "go"), "w").close()
    for task_id in ("well", "ill"):
        pid = pids[container(framework, task_id)["value"]]
        wait.until(lambda: not os.path.exists(f"/proc/{pid}"), 10, f"{task_id} has ended")
    cluster.restart_agent()
    assert framework.wait_terminal("well")["state"] == "TASK_FINISHED"
    assert framework.wait_terminal("ill")["state"] == "TASK_FAILED"
    assert framework.wait_terminal("goes-on")["state"] == "TASK_KILLED"
    wait.until(lambda: not executors(cluster, framework), 20, "the executor has ended")
    # And one whose holder dies.
    run_group(framework, "holder", task("sleep 1000", "held"))
    shown = cluster.agent_operator("GET_CONTAINERS")["get_containers"]["containers"]
    cluster.agents["agent"].kill9()
    os.kill(shown[0]["container_status"]["executor_pid"], signal.SIGKILL)
    cluster.restart_agent()
    last = framework.wait_terminal("held")
    assert (last["state"], last["reason"]) == ("TASK_FAILED", "REASON_EXECUTOR_TERMINATED"), last
    wait.until(lambda: cluster.charged() == {}, 20, "all is given back")
    framework.teardown()


def test_checks_see_the_pods_network(shared_cluster, framework):
    port = free_port()
    check = {"type": "TCP", "tcp": {"port": port}, "delay_seconds": 0, "interval_seconds": 0.2, "timeout_seconds": 5}
    serve = f"python3 -m http.server -b 127.0.0.1 {port}"
    run_group(framework, "checked", task(serve, "serves", mem=64, check=check))
    open_ = lambda: any(s.get("check_status", {}).get("tcp", {}).get("succeeded") for s in framework.statuses("serves"))  # noqa: E731
    framework.wait_for(open_, what="the port is seen open")


def test_one_can_wait_for_a_task_of_a_pod_after_its_end(bare_cluster):
    """As with Mesos' default executor, how a task's container ended is known until it is removed or its pod is gone."""
    cluster = bare_cluster
    cluster.start_coordinator()
    cluster.start_agent()
    framework = Framework(cluster.master, checkpoint=True)
    framework.subscribe()
    ids = launch_group(framework, executor_of(framework, "pod"), [task("exit 0", "short"), task("sleep 1000", "long"), task("sleep 0.2", "removed")])
    for task_id in (ids[0], ids[2]):
        framework.wait_state(task_id, "TASK_FINISHED")
    short, long, removed = (container(framework, task_id) for task_id in ids)

    def call(kind, of):
        return web.post_json(cluster.agents["agent"].address, "/api/v1", {"type": kind, kind.lower(): {"container_id": of}})

    def waited(of):
        answer = call("WAIT_NESTED_CONTAINER", of)
        assert answer.status == 200, answer.text
        return answer.json()["wait_nested_container"]

    assert waited(short) == {"exit_status": 0}
    assert waited(removed) == {"exit_status": 0}
    assert call("KILL_NESTED_CONTAINER", short).status == 404
    assert call("REMOVE_NESTED_CONTAINER", removed).status == 200
    assert call("WAIT_NESTED_CONTAINER", removed).status == 404
    cluster.agents["agent"].kill9()
    cluster.restart_agent()
    assert waited(short) == {"exit_status": 0}, "it is known after a restart"
    assert call("WAIT_NESTED_CONTAINER", removed).status == 404
    framework.kill(ids[1])
    framework.wait_terminal(ids[1])
    wait.until(lambda: not executors(cluster, framework), 20, "the pod is gone")
    for of in (short, long):
        wait.until(lambda of=of: call("WAIT_NESTED_CONTAINER", of).status == 404, 10, "nothing is known of it with its pod gone")
    framework.teardown()

"""Containers by calls to the agent: nested in a task's container or standing alone, waited for, killed and removed."""

import os
import signal
import threading

import pytest

from harness import wait, web
from harness.framework import Framework, scalars


@pytest.fixture
def framework(shared_cluster):
    made = Framework(shared_cluster.master)
    made.subscribe()
    yield made
    made.teardown()


def nested(*names):
    """The ContainerID of the last of these, nested in the others."""
    made = None
    for name in names:
        made = {"value": name, **({"parent": made} if made else {})}
    return made


def call(cluster, kind, of=None, timeout=30.0, **fields):
    """The answer to a call about a container, whatever it is."""
    member = {**fields, **({"container_id": of} if of else {})}
    message = {"type": kind, kind.lower(): member}
    return web.post_json(cluster.agents["agent"].address, "/api/v1", message, timeout=timeout)


def launch(cluster, of, command, kind="LAUNCH_CONTAINER", **fields):
    return call(cluster, kind, of, command={"shell": True, "value": command}, **fields)


def ended(cluster, container, kind="WAIT_CONTAINER"):
    answer = call(cluster, kind, container)
    assert answer.status == 200, answer.text
    return answer.json()[kind.lower()]


def parent_of(framework, command="sleep 1000", **more):
    task_id = framework.run_task(command, **more)
    return framework.statuses(task_id)[-1]["container_status"]["container_id"]["value"]


def listed(cluster, **show):
    answer = cluster.agent_operator({"type": "GET_CONTAINERS", "get_containers": show})
    containers = answer["get_containers"].get("containers", [])
    return {tuple(path(one["container_id"])): one for one in containers}


def path(container):
    return [*path(container["parent"]), container["value"]] if "parent" in container else [container["value"]]


def sandbox_of(cluster, framework, parent):
    root = os.path.join(cluster.directory("agent"), "slaves", cluster.agent_id(), "frameworks", framework.id, "executors")
    found = [os.path.join(root, name, "runs", parent) for name in os.listdir(root)]
    return next(one for one in found if os.path.isdir(one))


def read(*parts):
    with open(os.path.join(*parts)) as file:
        return file.read()


@pytest.mark.parametrize("which", ["CONTAINER", "NESTED_CONTAINER"])
def test_a_nested_container_runs_to_its_end(shared_cluster, framework, which):
    parent = parent_of(framework)
    child = nested(parent, "child")
    assert launch(shared_cluster, child, "echo $MESOS_SANDBOX; pwd; exit 3", f"LAUNCH_{which}").status == 200
    assert ended(shared_cluster, child, f"WAIT_{which}") == {"exit_status": 3 << 8}
    sandbox = os.path.join(sandbox_of(shared_cluster, framework, parent), "containers", "child")
    assert read(sandbox, "stdout").split() == [sandbox, sandbox]
    # As often as one likes, until it is removed.
    assert ended(shared_cluster, child, f"WAIT_{which}") == {"exit_status": 3 << 8}
    assert call(shared_cluster, f"REMOVE_{which}", child).status == 200
    assert not os.path.exists(sandbox)
    assert call(shared_cluster, f"WAIT_{which}", child).status == 404
    assert call(shared_cluster, f"REMOVE_{which}", child).status == 200, "again is no error, as in Mesos"


def test_what_is_shared_with_the_parent(shared_cluster, framework):
    parent = parent_of(framework)
    kinds = ("ipc", "uts", "net", "pid", "mnt")
    of_parent = listed(shared_cluster)[(parent,)]["container_status"]["executor_pid"]
    child, other = nested(parent, "shares"), nested(parent, "shares-pid")
    shares_pid = {"type": "MESOS", "linux_info": {"share_pid_namespace": True}}
    assert launch(shared_cluster, child, "sleep 1000").status == 200
    assert launch(shared_cluster, other, "sleep 1000", container=shares_pid).status == 200
    shown = listed(shared_cluster, show_nested=True)
    same = {}
    for name in ("shares", "shares-pid"):
        pid = shown[(parent, name)]["container_status"]["executor_pid"]
        link = lambda of, kind: os.readlink(f"/proc/{of}/ns/{kind}")  # noqa: E731
        same[name] = [kind for kind in kinds if link(pid, kind) == link(of_parent, kind)]
        assert parent in read(f"/proc/{pid}/cgroup") and name not in read(f"/proc/{pid}/cgroup")
    assert same == {"shares": ["ipc", "uts", "net"], "shares-pid": ["ipc", "uts", "net", "pid"]}
    for one in (child, other):
        assert call(shared_cluster, "KILL_CONTAINER", one).status == 200
        assert ended(shared_cluster, one) == {"exit_status": signal.SIGKILL}


def test_signals(shared_cluster, framework):
    child = nested(parent_of(framework), "stubborn")
    assert launch(shared_cluster, child, "trap 'echo heard' TERM; echo ready; while :; do sleep 0.05; done").status == 200
    stdout = os.path.join(sandbox_of(shared_cluster, framework, child["parent"]["value"]), "containers/stubborn/stdout")
    wait.until(lambda: "ready" in read(stdout), 10, "it has set its trap")
    assert call(shared_cluster, "KILL_CONTAINER", child, signal=int(signal.SIGTERM)).status == 200
    wait.until(lambda: "heard" in read(stdout), 10, "the signal arrives")
    assert call(shared_cluster, "REMOVE_CONTAINER", child).status == 500, "it runs"
    assert call(shared_cluster, "KILL_NESTED_CONTAINER", child).status == 200
    assert ended(shared_cluster, child) == {"exit_status": signal.SIGKILL}
    assert call(shared_cluster, "KILL_CONTAINER", child).status == 404


def test_nested_to_any_depth_and_all_end_with_the_parent(shared_cluster, framework):
    task_id = framework.run_task("sleep 1000")
    names = [framework.statuses(task_id)[-1]["container_status"]["container_id"]["value"]]
    for depth in range(4):
        names.append(f"level-{depth}")
        assert launch(shared_cluster, nested(*names), "echo alive; sleep 1000").status == 200
    assert tuple(names) in listed(shared_cluster, show_nested=True)
    assert not [one for one in listed(shared_cluster) if len(one) > 1]
    sandbox = sandbox_of(shared_cluster, framework, names[0])
    for name in names[1:]:
        sandbox = os.path.join(sandbox, "containers", name)
    wait.until(lambda: read(sandbox, "stdout") == "alive\n", 10, "the innermost runs")
    waited = []
    waiter = threading.Thread(target=lambda: waited.append(call(shared_cluster, "WAIT_CONTAINER", nested(*names))))
    waiter.start()
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    waiter.join(20)
    assert waited[0].status == 200 and waited[0].json()["wait_container"]["exit_status"] == signal.SIGKILL, waited
    assert not listed(shared_cluster, show_nested=True)
    assert call(shared_cluster, "WAIT_CONTAINER", nested(*names)).status == 404


def test_cgroups_of_its_own_and_its_limit(shared_cluster, framework):
    parent = parent_of(framework, mem=256)
    child = nested(parent, "fat")
    own = {"type": "MESOS", "linux_info": {"share_cgroups": False}}
    command = "head -c 100m /dev/zero | tail | sleep 1000"
    answer = launch(shared_cluster, child, command, container=own, resources=scalars(cpus=0.1, mem=32))
    assert answer.status == 200, answer.text
    over = ended(shared_cluster, child)
    assert (over["state"], over["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LIMITATION_MEMORY"), over
    assert over["limitation"]["resources"][0]["name"] == "mem" and "Memory limit exceeded" in over["message"]
    assert (parent,) in listed(shared_cluster), "its parent goes on"


def test_a_directory_of_the_parents_sandbox(shared_cluster, framework):
    parent = parent_of(framework, "mkdir shared; echo from-parent > shared/file; sleep 1000")
    of_parent = {"type": "SANDBOX_PATH", "sandbox_path": {"type": "PARENT", "path": "shared"}}
    volume = {"mode": "RW", "container_path": "seen", "source": of_parent}
    shared = os.path.join(sandbox_of(shared_cluster, framework, parent), "shared")
    wait.until(lambda: os.path.exists(os.path.join(shared, "file")), 10, "the parent has written")
    container = {"type": "MESOS", "volumes": [volume]}
    child = nested(parent, "reader")
    answer = launch(shared_cluster, child, "cat seen/file; echo from-child > seen/answer", container=container)
    assert answer.status == 200, answer.text
    assert ended(shared_cluster, child) == {"exit_status": 0}
    assert read(shared, "answer") == "from-child\n"
    assert read(shared, "..", "containers/reader/stdout") == "from-parent\n"


def test_what_cannot_be(shared_cluster, framework):
    parent = parent_of(framework)
    own = {"type": "MESOS", "linux_info": {"share_cgroups": False}}
    shared = {"type": "MESOS", "linux_info": {"share_cgroups": True}}
    reserved = [{**scalars(cpus=0.1)[0], "role": "web"}]
    cases = [
        (nested("no-such", "child"), {}, "does not exist"),
        (nested(parent, "a.b"), {}, "invalid characters"),
        (nested(parent, "x" * 243), {}, "maximum length"),
        (nested(parent, "a", "b"), {"container": own}, "second level"),
        (nested(parent, "a", "b"), {"resources": scalars(cpus=1)}, "second level"),
        (nested("alone"), {"container": shared}, "share_cgroups"),
        (nested("alone"), {"resources": reserved}, "unreserved"),
        (nested(parent, "docker"), {"container": {"type": "DOCKER", "docker": {"image": "x"}}}, "DOCKER"),
    ]
    for container, fields, words in cases:
        answer = launch(shared_cluster, container, "true", **fields)
        assert answer.status == 400 and words in answer.text, (container, answer.status, answer.text)
    assert "container_id.parent" in launch(shared_cluster, nested("top"), "true", "LAUNCH_NESTED_CONTAINER").text
    for kind in ("WAIT_CONTAINER", "KILL_CONTAINER", "REMOVE_CONTAINER"):
        assert call(shared_cluster, kind, nested("no-such")).status == 404
        assert call(shared_cluster, kind).status == 400
    assert call(shared_cluster, "LAUNCH_CONTAINER").status == 400
    assert not os.path.exists(os.path.join(sandbox_of(shared_cluster, framework, parent), "containers/docker"))


def test_a_container_that_stands_alone(shared_cluster):
    alone = nested("alone")
    command = "trap 'exit 4' TERM; echo here; while :; do sleep 0.05; done"
    answer = launch(shared_cluster, alone, command, resources=scalars(cpus=0.1, mem=48), limits={"mem": {"value": 64}})
    assert answer.status == 200, answer.text
    assert launch(shared_cluster, alone, command).status == 202, "it is there already"
    assert ("alone",) not in listed(shared_cluster)
    shown = listed(shared_cluster, show_standalone=True)[("alone",)]
    assert shown["resource_statistics"]["mem_limit_bytes"] == 64 << 20 and "executor_id" not in shown
    child = nested("alone", "child")
    assert launch(shared_cluster, child, "sleep 1000").status == 200
    assert ("alone", "child") in listed(shared_cluster, show_nested=True)
    sandbox = os.path.join(shared_cluster.directory("agent"), "standalone/alone")
    wait.until(lambda: read(sandbox, "stdout") == "here\n", 10, "it runs")
    assert call(shared_cluster, "KILL_CONTAINER", alone, signal=int(signal.SIGTERM)).status == 200
    assert ended(shared_cluster, alone) == {"exit_status": 4 << 8}
    assert ended(shared_cluster, child) == {"exit_status": signal.SIGKILL}, "it ends with its parent"
    assert not listed(shared_cluster, show_nested=True, show_standalone=True)
    assert call(shared_cluster, "REMOVE_CONTAINER", alone).status == 200
    assert not os.path.exists(sandbox)
    assert call(shared_cluster, "WAIT_CONTAINER", child).status == 404


def test_they_outlive_the_agent(cluster):
    framework = Framework(cluster.master, checkpoint=True)
    framework.subscribe()
    task_id = framework.run_task("sleep 1000")
    parent = framework.statuses(task_id)[-1]["container_status"]["container_id"]["value"]
    goes_on, ends, over = (nested(parent, name) for name in ("goes-on", "ends", "over"))
    alone, deeper = nested("alone"), nested(parent, "goes-on", "deeper")
    assert launch(cluster, over, "exit 5").status == 200
    assert ended(cluster, over) == {"exit_status": 5 << 8}
    for container in (goes_on, deeper, alone):
        assert launch(cluster, container, "sleep 1000").status == 200
    assert launch(cluster, ends, "while ! test -e /proc/self/root/" + cluster.base.strip("/") + "/go; do sleep 0.05; done; exit 6").status == 200
    cluster.agents["agent"].kill9()
    with open(os.path.join(cluster.base, "go"), "w"):
        pass
    cluster.restart_agent()
    assert ended(cluster, over) == {"exit_status": 5 << 8}, "how it ended is known after a restart"
    assert ended(cluster, ends) == {"exit_status": 6 << 8}, "and of one that ended meanwhile"
    shown = listed(cluster, show_nested=True, show_standalone=True)
    assert {(parent,), (parent, "goes-on"), (parent, "goes-on", "deeper"), ("alone",)} == set(shown)
    late = nested(parent, "late")
    assert launch(cluster, late, "exit 7").status == 200
    assert ended(cluster, late) == {"exit_status": 7 << 8}
    # A task that ends while the agent is away takes with it what was nested in its container.
    cluster.agents["agent"].kill9()
    os.kill(shown[(parent,)]["container_status"]["executor_pid"], signal.SIGKILL)
    cluster.restart_agent()
    framework.wait_terminal(task_id)
    wait.until(lambda: set(listed(cluster, show_nested=True, show_standalone=True)) == {("alone",)}, 20, "all of it is gone")
    assert call(cluster, "WAIT_CONTAINER", goes_on).status == 404
    assert call(cluster, "KILL_CONTAINER", alone).status == 200
    assert ended(cluster, alone) == {"exit_status": signal.SIGKILL}
    assert call(cluster, "REMOVE_CONTAINER", alone).status == 200
    framework.teardown()

"""Command tasks: their states, what they run with, how they are killed, and what is refused."""

import os
import signal
import time

import pytest

from harness import wait, web
from harness.framework import Framework, scalars, task

ENDED_WELL = ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
ENDED_BADLY = ["TASK_STARTING", "TASK_RUNNING", "TASK_FAILED"]


@pytest.fixture
def framework(shared_cluster):
    made = Framework(shared_cluster.master)
    made.subscribe()
    yield made
    made.teardown()


def sandbox_file(cluster, framework, task_id, name):
    """A file of the task's sandbox, by the virtual path that names the latest run."""
    path = f"/frameworks/{framework.id}/executors/{task_id}/runs/latest/{name}"
    answer = web.get(cluster.agents["agent"].address, f"/files/download?path={path}")
    assert answer.status == 200, (path, answer.status, answer.text)
    return answer.body.decode()


def run_and_read(cluster, framework, command, **more):
    task_id = framework.run_task(command, wait_until=("TASK_FINISHED",), **more)
    return sandbox_file(cluster, framework, task_id, "stdout")


@pytest.mark.parametrize(
    "command,states,message",
    [
        ("exit 0", ENDED_WELL, "exited with status 0"),
        ("exit 3", ENDED_BADLY, "exited with status 3"),
        (["true", "ignored"], ENDED_WELL, "exited with status 0"),
        ("kill -TERM $$", ENDED_BADLY, "terminated with signal Terminated"),
    ],
)
def test_states_and_message(framework, command, states, message):
    task_id = framework.run_task(command, wait_until=())
    last = framework.wait_terminal(task_id)
    assert framework.states(task_id) == states
    assert message in last["message"], last
    assert last["source"] == "SOURCE_EXECUTOR" and "reason" not in last


def test_a_command_that_does_not_exist_fails(framework):
    task_id = framework.run_task(["/no/such/program"], wait_until=())
    assert framework.wait_terminal(task_id)["state"] == "TASK_FAILED"


def test_every_update_says_where_the_task_is(shared_cluster, framework):
    task_id = framework.run_task("true", wait_until=("TASK_FINISHED",))
    for status in framework.statuses(task_id):
        assert status["agent_id"]["value"] == shared_cluster.agent_id()
        assert status["container_status"]["container_id"]["value"]
        assert status["executor_id"]["value"] == task_id
        addresses = status["container_status"]["network_infos"][0]["ip_addresses"]
        assert addresses[0]["ip_address"] == "127.0.0.1"


def test_environment(shared_cluster, framework):
    command = {"shell": True, "value": "env", "environment": {"variables": [{"name": "GIVEN", "value": "a b"}]}}
    lines = run_and_read(shared_cluster, framework, command).splitlines()
    env = dict(line.split("=", 1) for line in lines if "=" in line)
    assert env["GIVEN"] == "a b"
    assert env["MESOS_FRAMEWORK_ID"] == framework.id
    assert env["MESOS_SLAVE_ID"] == shared_cluster.agent_id()
    assert env["MESOS_TASK_ID"] == env["MESOS_EXECUTOR_ID"]
    assert env["MESOS_ALLOCATION_ROLE"] == "*"
    assert env["PWD"] == env["MESOS_SANDBOX"]


def test_a_secret_of_the_agents_environment_does_not_reach_the_task(bare_cluster, monkeypatch):
    monkeypatch.setenv("AGENT_SECRET", "xyzzy")
    bare_cluster.start_coordinator()
    bare_cluster.start_agent()
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    assert "xyzzy" not in run_and_read(bare_cluster, framework, "env")


def test_namespaces(shared_cluster, framework):
    command = "readlink /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/ipc /proc/self/ns/uts /proc/self/ns/net; ls /proc | grep -c '^[0-9]'"
    *spaces, processes = run_and_read(shared_cluster, framework, command).split()
    own = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "ipc", "uts", "net")]
    assert all(a != b for a, b in zip(spaces[:4], own[:4])), "mount, pid, ipc and uts are the task's own"
    assert spaces[4] == own[4], "the network is the host's"
    assert int(processes) < 10, "/proc shows the task's processes only"


def test_the_hosts_root_with_a_private_tmp(shared_cluster, framework):
    marker = f"/tmp/{shared_cluster.mark}-host"
    open(marker, "w").close()
    try:
        script = f"test -e {marker} && echo host-tmp; touch /tmp/inside && ls /tmp; ls -d /usr/bin"
        out = run_and_read(shared_cluster, framework, script)
    finally:
        os.unlink(marker)
    assert out == "inside\n/usr/bin\n", out
    assert not os.path.exists("/tmp/inside")


def test_user(shared_cluster, framework):
    out = run_and_read(shared_cluster, framework, {"shell": True, "value": "id -u; stat -c %U .", "user": "nobody"})
    assert out == "65534\nnobody\n", out


def test_a_user_who_does_not_exist(framework):
    task_id = framework.run_task({"shell": True, "value": "true", "user": "no-such-user"}, wait_until=())
    status = framework.wait_terminal(task_id)
    assert status["state"] in ("TASK_LOST", "TASK_FAILED") and status["source"] == "SOURCE_AGENT", status


def test_the_sandbox(shared_cluster, framework):
    task_id = framework.run_task("echo out; echo err >&2; echo kept > file; ls -A", wait_until=("TASK_FINISHED",))
    assert set(sandbox_file(shared_cluster, framework, task_id, "stdout").split()) == {"out", "file", "stderr", "stdout"}
    assert sandbox_file(shared_cluster, framework, task_id, "stderr").rstrip().endswith("err")
    assert sandbox_file(shared_cluster, framework, task_id, "file") == "kept\n"
    container = framework.statuses(task_id)[-1]["container_status"]["container_id"]["value"]
    layout = os.path.join(
        shared_cluster.directory("agent"), "slaves", shared_cluster.agent_id(), "frameworks", framework.id,
        "executors", task_id, "runs",
    )  # fmt: skip
    assert sorted(os.listdir(layout)) == sorted([container, "latest"])
    assert os.path.realpath(os.path.join(layout, "latest")) == os.path.realpath(os.path.join(layout, container))


def test_a_kill_takes_the_whole_tree(shared_cluster, framework):
    script = "trap '' TERM; (trap '' TERM; setsid sleep 7654321 & sleep 7654321) & wait"
    info_kill = {"kill_policy": {"grace_period": {"nanoseconds": 500_000_000}}}
    task_id = framework.run_task(script, **info_kill)
    sleepers = lambda: [p for p in os.listdir("/proc") if p.isdigit() and b"7654321" in _cmdline(p)]  # noqa: E731
    wait.until(lambda: len(sleepers()) >= 2, 5, "its children run")
    framework.kill(task_id)
    framework.wait_state(task_id, "TASK_KILLED", timeout=15)
    wait.until(lambda: not sleepers(), 5, "no process of the tree is left")


def _cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_a_kill_is_gentle_first(shared_cluster, framework):
    script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    task_id = framework.run_task(script)
    wait.until(lambda: "up" in sandbox_file(shared_cluster, framework, task_id, "stdout"), 5, "it runs")
    framework.kill(task_id)
    status = framework.wait_state(task_id, "TASK_KILLED")
    assert "asked" in sandbox_file(shared_cluster, framework, task_id, "stdout"), status


@pytest.mark.parametrize("where", ["task", "call"])
def test_the_grace_period(shared_cluster, framework, where):
    # Longer than the three seconds that are meant when nothing is said.
    policy = {"kill_policy": {"grace_period": {"nanoseconds": 4_500_000_000}}}
    script = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    task_id = framework.run_task(script, **(policy if where == "task" else {}))
    wait.until(lambda: "up" in sandbox_file(shared_cluster, framework, task_id, "stdout"), 5, "it runs")
    asked = time.monotonic()
    framework.kill(task_id, **(policy if where == "call" else {}))
    framework.wait_state(task_id, "TASK_KILLED", timeout=15)
    assert 4.3 < time.monotonic() - asked < 4.5 + 4.5 * wait.PATIENCE


def test_a_task_that_takes_too_long(framework):
    task_id = framework.run_task("sleep 1000", max_completion_time={"nanoseconds": 500_000_000}, wait_until=())
    status = framework.wait_terminal(task_id)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_MAX_COMPLETION_TIME_REACHED"), status


def test_hostname_of_the_container(shared_cluster, framework):
    container = {"type": "MESOS", "hostname": "box-7"}
    assert run_and_read(shared_cluster, framework, "hostname", container=container) == "box-7\n"
    assert os.uname().nodename != "box-7"


CAPABILITY = {"mount": {}, "access_mode": {"mode": "SINGLE_NODE_WRITER"}}
CSI = {
    "type": "CSI_VOLUME",
    "csi_volume": {"plugin_name": "x", "static_provisioning": {"volume_id": "v", "volume_capability": CAPABILITY}},
}
UNSUPPORTED = {
    "csi": {"container": {"type": "MESOS", "volumes": [{"mode": "RW", "container_path": "data", "source": CSI}]}},
    "rlimit": {"container": {"type": "MESOS", "rlimit_info": {"rlimits": [{"type": "RLMT_NOFILE", "soft": 9, "hard": 9}]}}},
    "capabilit": {"container": {"type": "MESOS", "linux_info": {"effective_capabilities": {"capabilities": ["NET_RAW"]}}}},
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_is_not_implemented_is_said_and_never_run_without(shared_cluster, framework, what):
    marker = f"/tmp/{shared_cluster.mark}-ran-{what}"
    more = dict(UNSUPPORTED[what])
    task_id = framework.run_task(more.pop("command", f"touch {marker}"), wait_until=(), **more)
    status = framework.wait_terminal(task_id)
    assert status["state"] in ("TASK_FAILED", "TASK_ERROR"), status
    assert what in status["message"].lower() and "not implemented" in status["message"], status
    assert "TASK_RUNNING" not in framework.states(task_id)


def test_killing_is_told_to_those_who_can_hear_it(shared_cluster):
    framework = Framework(shared_cluster.master, capabilities=("MULTI_ROLE", "TASK_KILLING_STATE"))
    framework.subscribe()
    task_id = framework.run_task("sleep 1000")
    framework.kill(task_id)
    framework.wait_state(task_id, "TASK_KILLED")
    assert framework.states(task_id) == ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]
    framework.teardown()


def test_killing_what_is_unknown(framework):
    framework.kill("never-launched")
    status = framework.wait_terminal("never-launched")
    assert (status["state"], status["reason"], status["source"]) == ("TASK_LOST", "REASON_RECONCILIATION", "SOURCE_MASTER")


def test_explicit_reconciliation(shared_cluster, framework):
    task_id = framework.run_task("sleep 1000")
    agent = {"value": shared_cluster.agent_id()}
    asked = [{"task_id": {"value": task_id}}, {"task_id": {"value": "unknown-1"}}, {"task_id": {"value": "unknown-2"}, "agent_id": agent}]
    mark = len(framework.events)
    framework.call("RECONCILE", {"tasks": asked})

    def answers():
        found = [e["update"]["status"] for e in framework.events[mark:] if e["type"] == "UPDATE"]
        return {s["task_id"]["value"]: s for s in found if s.get("reason") == "REASON_RECONCILIATION"}

    framework.wait_for(lambda: len(answers()) == 3, 10, "three answers")
    assert answers()[task_id]["state"] == "TASK_RUNNING"
    assert answers()["unknown-1"]["state"] == answers()["unknown-2"]["state"] == "TASK_LOST"
    assert all("uuid" not in s and s["source"] == "SOURCE_MASTER" for s in answers().values())


def test_explicit_reconciliation_of_a_partition_aware_framework(shared_cluster):
    framework = Framework(shared_cluster.master, capabilities=("MULTI_ROLE", "PARTITION_AWARE"))
    framework.subscribe()
    agent = {"value": shared_cluster.agent_id()}
    framework.call("RECONCILE", {"tasks": [{"task_id": {"value": "a"}}, {"task_id": {"value": "b"}, "agent_id": agent}]})
    assert framework.wait_for(lambda: framework.statuses("a"))[0]["state"] == "TASK_UNKNOWN"
    assert framework.wait_for(lambda: framework.statuses("b"))[0]["state"] == "TASK_GONE"
    framework.teardown()


def test_implicit_reconciliation(framework):
    running = {framework.run_task("sleep 1000") for _ in range(3)}
    framework.run_task("true", wait_until=("TASK_FINISHED",))
    mark = len(framework.events)
    framework.call("RECONCILE", {"tasks": []})

    def answered():
        found = [e["update"]["status"] for e in framework.events[mark:] if e["type"] == "UPDATE"]
        return {s["task_id"]["value"] for s in found if s.get("reason") == "REASON_RECONCILIATION"} >= running

    framework.wait_for(answered, 10, "an answer for each running task")


INVALID = {
    "duplicate id": dict(task_id="used"),
    "id with a slash": dict(task_id="a/b"),
    "no resources": dict(resources=[]),
    "more than offered": dict(cpus=1000),
    "neither command nor executor": dict(command=None),
    "another agent": dict(agent_id={"value": "not-this-agent"}),
    "negative grace period": dict(kill_policy={"grace_period": {"nanoseconds": -1}}),
    "unknown resource role": dict(resources=[{**r, "role": "other"} for r in scalars(cpus=0.1, mem=32)]),
    "shell without value": dict(command={"shell": True}),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_task_is_a_task_error(framework, case):
    fault = dict(INVALID[case])
    if fault.get("task_id") == "used":
        framework.run_task("sleep 1000", "used")
    offer = framework.offer(0.1, 32)
    command = fault.pop("command", "true")
    made = task(command, **{"agent_id": offer["agent_id"], **fault})
    if case == "no resources":
        made["resources"] = []
    mark = len(framework.events)
    framework.launch(offer, [made])
    event = framework.wait_event("UPDATE", since=mark, where=lambda e: e["update"]["status"]["state"] == "TASK_ERROR")
    status = event["update"]["status"]
    assert status["reason"] == "REASON_TASK_INVALID"
    # What a command is made of is the agent's to judge; Mesos lets its executor fail on it.
    assert status["source"] == ("SOURCE_AGENT" if case == "shell without value" else "SOURCE_MASTER")
    assert status["message"] and status["task_id"] == made["task_id"]


def test_one_invalid_task_does_not_spoil_its_neighbours(framework):
    offer = framework.offer(1, 128)
    good, bad = task("true", agent_id=offer["agent_id"]), task("true", cpus=5000, agent_id=offer["agent_id"])
    framework.launch(offer, [bad, good])
    assert framework.wait_terminal(bad["task_id"]["value"])["state"] == "TASK_ERROR"
    assert framework.wait_terminal(good["task_id"]["value"])["state"] == "TASK_FINISHED"


def test_updates_come_again_until_they_are_acknowledged(shared_cluster):
    framework = Framework(shared_cluster.master, acknowledge=False)
    framework.subscribe()
    task_id = framework.run_task("true", wait_until=("TASK_STARTING",))
    framework.wait_for(lambda: len(framework.statuses(task_id)) >= 2, 25, "the first update comes again")
    first, again = framework.statuses(task_id)[:2]
    assert first["uuid"] == again["uuid"] and again["state"] == "TASK_STARTING", "in order: nothing overtakes it"
    for state in ENDED_WELL:
        status = framework.wait_for(lambda: next((s for s in framework.statuses(task_id) if s["state"] == state), None))
        framework.acknowledge(status)
    framework.teardown()


def test_an_image_named_by_the_task(shared_cluster, framework, images):
    container = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}}
    out = run_and_read(shared_cluster, framework, "cat /etc/from-second-layer; pwd; echo $FROM_IMAGE", container=container)
    assert out == "second\n/home/app\nyes\n", "its files, its working directory, its environment"


def test_an_image_from_a_registry_named_by_the_task(shared_cluster, framework, images):
    container = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.reference}}}}
    assert run_and_read(shared_cluster, framework, "cat /etc/from-first-layer", container=container) == "first\n"


def test_an_image_that_cannot_be_had(framework, images):
    name = f"{images.registry}/no/such/image:latest"
    container = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": name}}}}
    task_id = framework.run_task("true", container=container, wait_until=())
    status = framework.wait_terminal(task_id)
    assert status["state"] == "TASK_FAILED" and status["reason"] == "REASON_CONTAINER_LAUNCH_FAILED", status
    assert "no/such/image" in status["message"], status


def test_files_browse_and_read(shared_cluster, framework):
    task_id = framework.run_task("printf 0123456789 > ten; mkdir folder", wait_until=("TASK_FINISHED",))
    address = shared_cluster.agents["agent"].address
    root = f"/frameworks/{framework.id}/executors/{task_id}/runs/latest"
    listed = web.get(address, f"/files/browse?path={root}").json()
    by_name = {os.path.basename(entry["path"]): entry for entry in listed}
    assert set(by_name) == {"folder", "ten", "stdout", "stderr"}
    assert by_name["ten"]["size"] == 10 and by_name["ten"]["mode"] == "-rw-r--r--"
    assert by_name["folder"]["mode"].startswith("d")
    assert web.get(address, f"/files/read?path={root}/ten&offset=2&length=3").json() == {"data": "234", "offset": 2}
    assert web.get(address, f"/files/read?path={root}/ten&offset=-1").json()["offset"] == 10
    assert web.get(address, f"/files/read?path={root}/none").status == 404
    assert web.get(address, "/files/read").status == 400
    assert web.get(address, f"/files/browse?path={root}/../../../../../../../../etc").status in (400, 403, 404)


def test_files_outside_of_the_sandbox_are_not_shown(shared_cluster, framework):
    task_id = framework.run_task("ln -s /etc/passwd link; ln -s / root", wait_until=("TASK_FINISHED",))
    address = shared_cluster.agents["agent"].address
    root = f"/frameworks/{framework.id}/executors/{task_id}/runs/latest"
    for path in ("link", "root/etc/passwd"):
        assert web.get(address, f"/files/download?path={root}/{path}").status != 200


def test_the_same_by_operator_calls(shared_cluster, framework):
    task_id = framework.run_task("printf 0123456789 > ten", wait_until=("TASK_FINISHED",))
    root = f"/frameworks/{framework.id}/executors/{task_id}/runs/latest"
    listed = shared_cluster.agent_operator({"type": "LIST_FILES", "list_files": {"path": root}})
    names = {os.path.basename(info["path"]) for info in listed["list_files"]["file_infos"]}
    assert names == {"ten", "stdout", "stderr"}
    call = {"type": "READ_FILE", "read_file": {"path": f"{root}/ten", "offset": 2, "length": 3}}
    assert shared_cluster.agent_operator(call)["read_file"] == {"size": 10, "data": "MjM0"}


def test_agent_state_shows_the_task(shared_cluster, framework):
    task_id = framework.run_task("sleep 1000")
    tasks = shared_cluster.agent_operator("GET_TASKS")["get_tasks"]
    assert task_id in [t["task_id"]["value"] for t in tasks["launched_tasks"]]
    containers = shared_cluster.agent_operator("GET_CONTAINERS")["get_containers"]["containers"]
    mine = next(c for c in containers if c["executor_id"]["value"] == task_id)
    assert mine["resource_statistics"]["mem_limit_bytes"] == 32 << 20
    pid = mine["container_status"]["executor_pid"]
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid"), "the container's first process, seen from the host"
    os.kill(pid, signal.SIGKILL)
    assert framework.wait_terminal(task_id)["state"] == "TASK_FAILED"

"""Containers on copies of their images: `--image_provisioner_backend=copy`."""

import os
import re
import shutil
import subprocess

import pytest

from harness import cluster as clusters
from harness import wait
from harness.framework import Framework, scalars, task


def on_image(name, **more):
    return {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": name}}}, **more}


@pytest.fixture
def start(bare_cluster):
    frameworks = []

    def started(**flags):
        bare_cluster.start_coordinator()
        bare_cluster.start_agent(image_provisioner_backend="copy", **flags)
        frameworks.append(Framework(bare_cluster.master, checkpoint=True, failover_timeout=600.0))
        frameworks[0].subscribe()
        return frameworks[0]

    yield started
    for framework in frameworks:
        framework.teardown()


@pytest.fixture(scope="module")
def many_files(images, tmp_path_factory):
    """An image with so many small files that a copy of it can be caught while it is made."""
    base = tmp_path_factory.mktemp("many")
    layout, many = str(base / "layout"), base / "many"
    shutil.copytree(images.layout, layout)
    many.mkdir()
    for number in range(30_000):
        (many / str(number)).write_text("x")
    subprocess.run(["umoci", "insert", "--image", f"{layout}:latest", str(many), "/many"], check=True)
    return layout


def output(cluster, framework, task_id, executor=None):
    """What a task has written; of one in a pod, if its executor is named."""
    runs = os.path.join(
        cluster.directory("agent"), "slaves", cluster.agent_id(), "frameworks", framework.id, "executors", executor or task_id, "runs/latest",
    )  # fmt: skip
    with open(os.path.join(runs, *(("tasks", task_id) if executor else ()), "stdout")) as file:
        return file.read()


def provisioned(cluster):
    return os.path.join(cluster.directory("agent"), "provisioner")


def copies(cluster):
    return [folder for folder, _, _ in os.walk(provisioned(cluster)) if os.path.basename(folder) == "rootfs"]


def nothing_is_left(cluster):
    """Neither copies nor anything else of containers."""
    places = [provisioned(cluster), os.path.join(cluster.directory("agent"), "containers"), os.path.join(cluster.directory("agent-runtime"), "containers")]
    left = lambda: [os.path.join(place, name) for place in places for name in os.listdir(place)]  # noqa: E731
    wait.until(lambda: not left(), 20, f"nothing is left: {left()}")


def run_inside(cluster, task_id, line, *flags):
    words = ["exec", f"--coordinator={cluster.master}", *flags, task_id, "--", "/bin/sh", "-c", line]
    return subprocess.run([clusters.binary(), *words], capture_output=True, text=True, timeout=60 * wait.PATIENCE)


def test_a_task_writes_to_a_copy_of_its_own(start, bare_cluster, images):
    framework = start()
    look = "cat /etc/from-first-layer /etc/from-second-layer; test -e /etc/removed-later && echo hidden; test -e /mine && echo shared"
    line = f"{look}; echo mine > /mine; echo changed > /etc/from-first-layer; cat /mine; id -u; pwd; exec sleep 1000"
    tasks = [framework.run_task(line, container=on_image(images.reference)) for _ in range(2)]
    for task_id in tasks:
        said = lambda: output(bare_cluster, framework, task_id).splitlines()  # noqa: E731, B023
        wait.until(lambda: len(said()) >= 5, 20, "all is said")  # noqa: B023
        assert said() == ["first", "second", "mine", "0", "/home/app"]
        done = run_inside(bare_cluster, task_id, "cat /mine /etc/from-first-layer; echo $FROM_IMAGE")
        assert (done.returncode, done.stdout) == (0, "mine\nchanged\nyes\n"), done
    assert len(copies(bare_cluster)) == 2
    flags = {flag["name"]: flag["value"] for flag in bare_cluster.agent_operator("GET_FLAGS")["get_flags"]["flags"]}
    assert flags["image_provisioner_backend"] == "copy"
    for task_id in tasks:
        framework.kill(task_id)
        framework.wait_terminal(task_id)
    nothing_is_left(bare_cluster)
    # What they have changed was theirs.
    last = framework.run_task("cat /etc/from-first-layer", wait_until=("TASK_FINISHED",), container=on_image(images.reference))
    assert output(bare_cluster, framework, last) == "first\n"
    nothing_is_left(bare_cluster)


def test_users_and_volumes_of_images(start, bare_cluster, images):
    framework = start()
    tools = lambda path, mode: {"mode": mode, "container_path": path, "image": on_image(images.archive)["mesos"]["image"]}  # noqa: E731
    line = "cd $MESOS_SANDBOX; id -u; cat tools/etc/from-second-layer; (echo x > tools/new) 2>/dev/null || echo read-only; echo own > own/new; cat own/new"
    for container in ({"type": "MESOS"}, on_image(images.reference)):
        container["volumes"] = [tools("tools", "RO"), tools("own", "RW")]
        command = {"value": line, "user": "root"}
        task_id = framework.run_task(command, wait_until=("TASK_FINISHED",), container=container)
        assert output(bare_cluster, framework, task_id) == "0\nsecond\nread-only\nown\n"
    command = {"value": "id -u; (echo x > /etc/new) 2>/dev/null || echo not-mine; exec sleep 1000", "user": "nobody"}
    task_id = framework.run_task(command, container=on_image(images.reference))
    wait.until(lambda: output(bare_cluster, framework, task_id) == "65534\nnot-mine\n", 20, "what is root's stays so")
    # A user that only the image knows.
    done = run_inside(bare_cluster, task_id, "id -u; cat /etc/from-first-layer", "--user=app")
    assert (done.returncode, done.stdout) == (0, "1234\nfirst\n"), done
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    nothing_is_left(bare_cluster)


def test_a_pod_of_two_images_outlives_the_agent(start, bare_cluster, images, tmp_path):
    framework = start()
    other = str(tmp_path / "other")
    shutil.copytree(images.layout, other)
    (tmp_path / "only").write_text("of the other\n")
    subprocess.run(["umoci", "insert", "--image", f"{other}:latest", str(tmp_path / "only"), "/only-here"], check=True)
    line = "cat /only-here 2>/dev/null || echo of the first; echo $HOSTNAME > /mine; while ! test -e /stop; do sleep 0.1; done; cat /mine; exit 0"
    tasks = [task(line, "one", container=on_image(images.reference)), task(line, "two", container=on_image(other))]
    executor = {"type": "DEFAULT", "executor_id": {"value": "pod"}, "framework_id": {"value": framework.id}, "resources": scalars(cpus=0.1, mem=32, disk=8)}
    offer = framework.offer(cpus=0.3, mem=512)
    for one in tasks:
        one["agent_id"] = offer["agent_id"]
    group = {"executor": executor, "task_group": {"tasks": tasks}}
    accept = {"offer_ids": [offer["id"]], "operations": [{"type": "LAUNCH_GROUP", "launch_group": group}], "filters": {"refuse_seconds": 0}}
    framework.call("ACCEPT", accept=accept)
    for task_id, said in (("one", "of the first\n"), ("two", "of the other\n")):
        framework.wait_state(task_id, "TASK_RUNNING")
        wait.until(lambda: output(bare_cluster, framework, task_id, "pod") == said, 20, "each is on its image")  # noqa: B023
    assert len(copies(bare_cluster)) == 2
    before = len(framework.statuses())
    bare_cluster.agents["agent"].kill9()
    bare_cluster.restart_agent()
    assert len(framework.statuses()) == before and len(copies(bare_cluster)) == 2
    for task_id in ("one", "two"):
        done = run_inside(bare_cluster, task_id, "echo written later > /mine; echo > /stop")
        assert done.returncode == 0, done
        assert framework.wait_terminal(task_id)["state"] == "TASK_FINISHED"
        assert output(bare_cluster, framework, task_id, "pod").endswith("written later\n")
    nothing_is_left(bare_cluster)


def begun(framework, cluster, name):
    """A task whose image is being copied."""
    task_id = framework.run_task("true", wait_until=(), container=on_image(name))

    def seen():
        return any(os.path.isdir(os.path.join(copy, "many")) and os.listdir(os.path.join(copy, "many")) for copy in copies(cluster))

    wait.until(seen, 60, "the copy has begun")
    return task_id


def test_a_kill_ends_a_copy(start, bare_cluster, many_files):
    framework = start()
    task_id = begun(framework, bare_cluster, many_files)
    framework.kill(task_id)
    assert framework.wait_terminal(task_id)["state"] == "TASK_KILLED"
    assert "TASK_RUNNING" not in framework.states(task_id)
    nothing_is_left(bare_cluster)


def test_an_agent_that_is_killed_while_it_copies_leaves_nothing(start, bare_cluster, many_files):
    framework = start()
    task_id = begun(framework, bare_cluster, many_files)
    bare_cluster.agents["agent"].kill9()
    assert copies(bare_cluster), "it was killed in the middle"
    bare_cluster.restart_agent()
    last = framework.wait_terminal(task_id)
    assert last["state"] not in ("TASK_FINISHED", "TASK_RUNNING"), last
    nothing_is_left(bare_cluster)
    # It may be launched again.
    again = framework.run_task("ls /many/29999", wait_until=("TASK_FINISHED",), container=on_image(many_files))
    assert output(bare_cluster, framework, again) == "/many/29999\n"
    # An agent that is told to end does not wait for a copy either.
    task_id = begun(framework, bare_cluster, many_files)
    bare_cluster.agents["agent"].stop()
    bare_cluster.restart_agent()
    framework.wait_terminal(task_id)
    nothing_is_left(bare_cluster)


@pytest.mark.parametrize("value", ["aufs", "bind", "zfs"])
def test_other_backends_are_refused(value):
    words = [clusters.binary(), "agent", "--master=127.0.0.1:1", "--work_dir=/nonexistent", f"--image_provisioner_backend={value}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode != 0 and re.search("use overlay or copy", done.stderr), done
    if value != "zfs":
        assert "not implemented" in done.stderr

"""Volumes: of the host, of the sandbox, of images and of Docker's volume plugins; read-only ones that the kernel keeps so; and nothing left of them."""

import json
import os
import subprocess
import sys

import pytest

from harness import cluster as clusters
from harness import leaks, wait, web
from harness.framework import Framework, task

ISOLATION = "cgroups/cpu,cgroups/mem,disk/du,filesystem/linux,docker/runtime,namespaces/pid,docker/volume,volume/secret"


@pytest.fixture
def cluster(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(isolation=ISOLATION)
    return bare_cluster


@pytest.fixture
def framework(cluster):
    """One whose tasks are not given up while their agent is away."""
    made = Framework(cluster.master, checkpoint=True)
    made.subscribe()
    yield made
    made.disconnect()


def container(*volumes, image=None):
    made = {"type": "MESOS", "volumes": list(volumes)}
    if image:
        made["mesos"] = {"image": {"type": "DOCKER", "docker": {"name": image}}}
    return made


def volume(kind, container_path, mode="RW", **what):
    """`volume("HOST_PATH", "/data", host_path={"path": …})`"""
    return {"container_path": container_path, "mode": mode, "source": {"type": kind, **what}}


def host_path(path, container_path, mode="RW", **more):
    return volume("HOST_PATH", container_path, mode, host_path={"path": path, **more})


def output(cluster, framework, task_id, name="stdout"):
    path = os.path.join(
        cluster.directory("agent"), "slaves", cluster.agent_id(), "frameworks", framework.id, "executors", task_id, "runs/latest", name
    )
    with open(path, errors="replace") as file:
        return file.read()


def run(cluster, framework, script, *volumes, image=None, state="TASK_FINISHED", cd=True, **more):
    """What the task printed, once it has ended as expected."""
    if image and cd and isinstance(script, str):
        script = f"cd $MESOS_SANDBOX; {script}"  # An image may say that it starts elsewhere.
    task_id = framework.run_task(script, container=container(*volumes, image=image), wait_until=(), **more)
    status = framework.wait_terminal(task_id)
    shown = output(cluster, framework, task_id) if status["state"] in ("TASK_FINISHED", "TASK_FAILED") and "exited" in status["message"] else ""
    assert status["state"] == state, f"{status}\n{shown}"
    return shown if state == "TASK_FINISHED" else status


def nothing_left(cluster):
    wait.until(lambda: not [line for line in cluster.task_leftovers() if "volume_plugin.py" not in line], 10, "nothing is left of the tasks")
    for part in ("agent-runtime", "agent"):
        wait.until(lambda part=part: not os.listdir(os.path.join(cluster.directory(part), "containers")), 10, f"no directory of a container is left in {part}")


def make_files(cluster, name="data", **files):
    folder = cluster.directory(name)
    for file, text in files.items():
        with open(os.path.join(folder, file), "w") as out:
            out.write(text)
    return folder


@pytest.mark.parametrize("with_image", [False, True])
def test_a_host_path_is_seen_both_ways_and_a_read_only_one_is_kept_so(cluster, framework, images, with_image):
    image = images.archive if with_image else None
    folder = make_files(cluster, file="from the host\n")
    os.makedirs(os.path.join(folder, "deep"))
    script = "cat rw/file; echo from the task > rw/new; cat ro/file; echo no > ro/file; echo no > ro/deep/file; echo no >> ro/file; echo done"
    printed = run(cluster, framework, script, host_path(folder, "rw"), host_path(folder, "ro", "RO"), image=image)
    assert printed == "from the host\nfrom the host\ndone\n"
    with open(os.path.join(folder, "new")) as file:
        assert file.read() == "from the task\n"
    assert sorted(os.listdir(folder)) == ["deep", "file", "new"] and not os.listdir(os.path.join(folder, "deep"))
    task_id = framework.statuses()[-1]["task_id"]["value"]
    refused = [line for line in output(cluster, framework, task_id, "stderr").splitlines() if "Read-only file system" in line]
    assert len(refused) == 3, output(cluster, framework, task_id, "stderr")
    nothing_left(cluster)


def test_absolute_container_paths(cluster, framework, images):
    folder = make_files(cluster, file="content\n")
    # With an image, what is missing is made; a file is mounted as a file; devices are no exception.
    printed = run(
        cluster, framework, "cat /new/place/file /one; cat /dev/mine/file; cat /from-second-layer /etc/from-second-layer",
        host_path(folder, "/new/place"), host_path(os.path.join(folder, "file"), "/one"), host_path(folder, "/dev/mine"),
        host_path(os.path.join(folder, "file"), "/from-second-layer"), image=images.archive,
    )  # fmt: skip
    assert printed == "content\n" * 4 + "second\n"
    # On the host's root file system it must exist, and shows something else to the task alone.
    point = cluster.directory("point")
    assert run(cluster, framework, f"cat {point}/file", host_path(folder, point)) == "content\n"
    assert os.listdir(point) == []
    status = run(cluster, framework, "true", host_path(folder, f"{point}/missing"), state="TASK_FAILED")
    assert status["reason"] == "REASON_CONTAINER_LAUNCH_FAILED" and "must exist" in status["message"], status
    assert os.listdir(point) == []
    # /tmp is the task's own.
    assert run(cluster, framework, "cat /tmp/made/file", host_path(folder, "/tmp/made")) == "content\n"
    nothing_left(cluster)


def test_a_missing_host_path_is_refused_or_made_where_that_is_allowed(bare_cluster, framework_of):
    allowed = bare_cluster.directory("allowed")
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(isolation=ISOLATION, host_path_volume_force_creation=f"/nowhere:{allowed}")
    framework = framework_of(bare_cluster)
    run(bare_cluster, framework, "echo kept > data/file", host_path(f"{allowed}/a/b", "data"))
    assert os.listdir(f"{allowed}/a/b") == ["file"]
    other = os.path.join(bare_cluster.base, "other")
    status = run(bare_cluster, framework, "true", host_path(other, "data"), state="TASK_FAILED")
    assert "does not exist" in status["message"] and other in status["message"], status
    os.symlink(bare_cluster.base, f"{allowed}/link")
    status = run(bare_cluster, framework, "true", host_path(f"{allowed}/link/other", "data"), state="TASK_FAILED")
    assert not os.path.exists(other), status


@pytest.fixture
def framework_of():
    """Subscribes to a cluster that the test has started itself."""
    made = []

    def make(cluster):
        made.append(Framework(cluster.master))
        made[-1].subscribe()
        return made[-1]

    yield make
    for framework in made:
        framework.disconnect()


def test_the_older_forms(cluster, framework, images):
    folder = make_files(cluster, file="content\n")
    volumes = [
        {"container_path": "host", "mode": "RO", "host_path": folder},
        {"container_path": "/of/sandbox", "mode": "RW", "host_path": "part"},
        {"container_path": "image", "mode": "RO", "image": {"type": "DOCKER", "docker": {"name": images.archive}}},
    ]
    script = "cat host/file; echo x > /of/sandbox/file; cat part/file; cat image/etc/from-first-layer"
    assert run(cluster, framework, script, *volumes, image=images.archive) == "content\nx\nfirst\n"


def test_a_part_of_the_sandbox(cluster, framework, images):
    def part(path, container_path, whose="SELF", mode="RW"):
        return volume("SANDBOX_PATH", container_path, mode, sandbox_path={"type": whose, "path": path})

    script = "cd $MESOS_SANDBOX; echo one > /data/file; cat part/deep/file; echo two > /frozen/file"
    # As who runs it: what is made belongs to whom the sandbox belongs to.
    volumes = [part("part/deep", "/data"), part("part/deep", "/frozen", mode="RO")]
    command = {"shell": True, "value": script, "user": "nobody"}
    status = run(cluster, framework, command, *volumes, image=images.archive, state="TASK_FAILED")
    task_id = status["task_id"]["value"]
    assert output(cluster, framework, task_id) == "one\n"
    assert "Read-only file system" in output(cluster, framework, task_id, "stderr")
    for refused, words in [(part("x", "/data", "PARENT"), "no parent"), (part("x", "relative"), "must be absolute"), (part("../x", "/data"), "'..'")]:
        status = run(cluster, framework, "true", refused, image=images.archive, state="TASK_FAILED")
        assert words in status["message"], status


@pytest.mark.parametrize("with_image", [False, True])
def test_an_image_as_a_volume(cluster, framework, images, with_image):
    root = images.oci_archive if with_image else None
    of_image = {"type": "DOCKER", "docker": {"name": images.archive}}
    frozen = {"container_path": "ro", "mode": "RO", "image": of_image}
    copy = {"container_path": "rw", "mode": "RW", "image": of_image}
    script = (
        "cat ro/etc/from-first-layer rw/etc/from-second-layer; [ ! -e ro/etc/removed-later ] && echo removed;"
        "echo new > rw/etc/from-first-layer; cat rw/etc/from-first-layer ro/etc/from-first-layer; echo no > ro/etc/x || echo refused"
    )
    expected = "first\nsecond\nremoved\nnew\nfirst\nrefused\n"
    assert run(cluster, framework, script, frozen, copy, image=root) == expected
    # The copy was that container's own.
    assert run(cluster, framework, script, frozen, copy, image=root) == expected
    nothing_left(cluster)


def test_content_of_volumes_is_not_the_sandboxs_disk(bare_cluster, framework_of):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(isolation=ISOLATION, enforce_container_disk_quota=True, container_disk_watch_interval="100ms")
    framework = framework_of(bare_cluster)
    folder = bare_cluster.directory("data")
    script = "dd if=/dev/zero of=data/big bs=1M count=32 2>/dev/null; until [ -e data/seen ]; do sleep 0.1; done; echo written"
    task_id = framework.run_task(script, container=container(host_path(folder, "data")), disk=8)

    def measured():
        containers = bare_cluster.agent_operator("GET_CONTAINERS")["get_containers"]["containers"]
        figures = next(c for c in containers if c["executor_id"]["value"] == task_id).get("resource_statistics", {})
        return figures if os.path.exists(f"{folder}/big") and os.path.getsize(f"{folder}/big") == 32 << 20 and "disk_used_bytes" in figures else None

    figures = wait.until(measured, 10, "the sandbox was measured")
    assert figures["disk_used_bytes"] < 1 << 20, figures
    os.close(os.open(f"{folder}/seen", os.O_CREAT))
    framework.wait_state(task_id, "TASK_FINISHED")
    assert output(bare_cluster, framework, task_id) == "written\n"


def hostile_image(base, name, links):
    """An image with links to the host in the way of mounts, and a working directory that does not exist."""
    layout = os.path.join(base, name)
    root = os.path.join(base, f"{name}-root")
    os.makedirs(os.path.join(root, "bin"))
    busybox = subprocess.run(["which", "busybox"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["cp", "-L", busybox, os.path.join(root, "bin/busybox")], check=True)
    for applet in ("sh", "cat", "echo", "pwd"):
        os.symlink("busybox", os.path.join(root, "bin", applet))
    for link, target in links.items():
        os.makedirs(os.path.dirname(os.path.join(root, link)), exist_ok=True)
        os.symlink(target, os.path.join(root, link))
    tag = f"{layout}:latest"
    for words in (
        ["umoci", "init", "--layout", layout], ["umoci", "new", "--image", tag], ["umoci", "insert", "--image", tag, root, "/"],
        ["umoci", "config", "--image", tag, "--config.workingdir", "/work/not/there"],
    ):  # fmt: skip
        subprocess.run(words, check=True, capture_output=True)
    return layout


def test_links_in_an_image_lead_nowhere_but_into_it(cluster, framework, images):
    victim = make_files(cluster, "victim", file="untouched\n")
    layout = hostile_image(
        cluster.base, "hostile",
        {"volume": victim, "up": "../../../../../../.." + victim, "magic": f"/proc/self/root{victim}", "mnt": cluster.base},
    )  # fmt: skip
    folder = make_files(cluster, file="content\n")
    for target in ("/volume/inside", "/up/inside", "/volume"):
        assert run(cluster, framework, f"cat {target}/file", host_path(folder, target), image=layout) == "content\n"
        assert os.listdir(victim) == ["file"], target
    # Not reached by the kernel's own links either; whether it runs or not.
    task_id = framework.run_task("true", container=container(host_path(folder, "/magic/inside"), image=layout), wait_until=())
    framework.wait_terminal(task_id)
    assert os.listdir(victim) == ["file"] and open(f"{victim}/file").read() == "untouched\n"
    assert not os.path.exists(os.path.join(cluster.base, "mesos")), "the sandbox was not made through the link at /mnt"
    nothing_left(cluster)


def test_a_working_directory_that_is_not_in_the_image_is_made(cluster, framework, images):
    layout = hostile_image(cluster.base, "plain", {})
    assert run(cluster, framework, "pwd", image=layout, cd=False) == "/work/not/there\n"
    folder = make_files(cluster, file="content\n")
    # In a volume, it is the volume's.
    assert run(cluster, framework, "pwd; cat file", host_path(folder, "/work/not/there"), image=layout, cd=False) == "/work/not/there\ncontent\n"
    assert run(cluster, framework, "pwd; echo x > made", host_path(folder, "/work"), image=layout, cd=False) == "/work/not/there\n"
    assert os.listdir(os.path.join(folder, "not/there")) == ["made"]


def test_a_working_directory_among_descriptors_leads_not_to_the_host(cluster, framework, images):
    """What the launcher has open of the host has names like /proc/self/fd/7 in the container, until its program starts."""
    folder = make_files(cluster, file="content\n")
    layout = hostile_image(cluster.base, "descriptors", {})
    marker = os.path.join(cluster.base, "marker").lstrip("/")
    with open(f"/{marker}", "w"):
        pass
    ups = " ".join("../" * depth + marker for depth in range(12))
    script = f"for path in {ups}; do if [ -e $path ]; then echo reached $path; fi; done; echo looked"
    tasks = {}
    for number in range(3, 24):
        tag = f"{layout}:{number}"
        words = ["umoci", "config", "--image", f"{layout}:latest", "--tag", str(number), "--config.workingdir", f"/proc/self/fd/{number}"]
        subprocess.run(words, check=True, capture_output=True)
        for volumes in ([], [host_path(folder, "/volume")]):
            tasks[framework.run_task(script, container=container(*volumes, image=tag), cpus=0.1, mem=32, wait_until=())] = number, bool(volumes)
    ended = 0
    for task_id, case in tasks.items():
        status = framework.wait_terminal(task_id, timeout=60)
        said = output(cluster, framework, task_id) if status["state"] == "TASK_FINISHED" else "looked\n"
        assert said == "looked\n", (case, said)
        ended += status["state"] in ("TASK_FINISHED", "TASK_FAILED")
    assert ended == len(tasks)
    nothing_left(cluster)


def test_what_no_isolator_sees_to_is_refused(bare_cluster, framework_of, images):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(isolation="cgroups/cpu,cgroups/mem,filesystem/linux")
    framework = framework_of(bare_cluster)
    secret = {"type": "VALUE", "value": {"data": "eA=="}}
    for made, isolator in [
        (volume("DOCKER_VOLUME", "v", docker_volume={"driver": "x", "name": "y"}), "docker/volume"),
        (volume("SECRET", "v", secret=secret), "volume/secret"),
    ]:
        status = run(bare_cluster, framework, "true", made, state="TASK_FAILED")
        assert isolator in status["message"] and status["reason"] == "REASON_CONTAINER_LAUNCH_FAILED", status


def test_mount_propagation(bare_cluster, framework_of, monkeypatch):
    """The agent has a mount namespace of its own here, so that nothing of this is seen on the machine."""
    base = bare_cluster.base
    wrapper = os.path.join(base, "tepui-in-namespace")
    with open(wrapper, "w") as file:
        file.write(f'#!/bin/sh\nexec unshare --mount --propagation private -- sh -c \'mount -t tmpfs {bare_cluster.mark} {base}/shared && mount --make-shared {base}/shared && mount -t tmpfs {bare_cluster.mark} {base}/private && exec "$@"\' sh "{clusters.binary()}" "$@"\n')
    os.chmod(wrapper, 0o755)
    bare_cluster.directory("shared"), bare_cluster.directory("private")
    bare_cluster.start_coordinator()
    monkeypatch.setenv("TEPUI_BIN", wrapper)
    agent = bare_cluster.start_agent(isolation=ISOLATION)
    framework = framework_of(bare_cluster)

    def on_host(*words):
        return subprocess.run(["nsenter", "-t", str(agent.pid), "-m", "--", *words], capture_output=True, text=True)

    assert on_host("mountpoint", f"{base}/shared").returncode == 0
    on_host("mkdir", f"{base}/shared/from-host", f"{base}/shared/from-task")
    both = {"mount_propagation": {"mode": "BIDIRECTIONAL"}}
    one = {"mount_propagation": {"mode": "HOST_TO_CONTAINER"}}
    script = "mount -t tmpfs x %s/from-task && echo ready; until mountpoint -q %s/from-host; do sleep 0.1; done; echo seen; until [ -e %s/end ]; do sleep 0.1; done; umount %s/from-task"

    def launch(how):
        name = "both" if how is both else "one"
        task_id = framework.run_task(script.replace("%s", name), container=container(host_path(f"{base}/shared", name, **how)))
        wait.until(lambda: "ready" in output(bare_cluster, framework, task_id), 10, "the task has mounted")
        return task_id

    def finish(task_id):
        on_host("mount", "-t", "tmpfs", "x", f"{base}/shared/from-host")
        wait.until(lambda: "seen" in output(bare_cluster, framework, task_id), 10, "the host's mount is seen in the task")
        on_host("touch", f"{base}/shared/end")
        framework.wait_terminal(task_id)
        on_host("umount", f"{base}/shared/from-host"), on_host("rm", f"{base}/shared/end")

    task_id = launch(one)
    assert on_host("mountpoint", f"{base}/shared/from-task").returncode != 0
    finish(task_id)
    task_id = launch(both)
    assert on_host("mountpoint", f"{base}/shared/from-task").returncode == 0, "the task's mount is seen on the host"
    finish(task_id)
    assert on_host("mountpoint", f"{base}/shared/from-task").returncode != 0
    status = run(bare_cluster, framework, "true", host_path(f"{base}/private", "both", **both), state="TASK_FAILED")
    assert "shared" in status["message"], status
    # A read-only volume is so in all mounts beneath it, too.
    on_host("mount", "-t", "tmpfs", "x", f"{base}/shared/from-host")
    printed = run(bare_cluster, framework, "mountpoint -q ro/from-host && echo there; echo x > ro/from-host/x || echo refused", host_path(f"{base}/shared", "ro", "RO"))
    assert printed == "there\nrefused\n"
    on_host("umount", f"{base}/shared/from-host")


# -- docker/volume


class Plugin:
    """A running plugin, its calls, and the directories behind it."""

    def __init__(self, cluster):
        self.name = cluster.mark
        self.base = cluster.directory("plugin")
        os.makedirs("/run/docker/plugins", exist_ok=True)
        self.socket = f"/run/docker/plugins/{self.name}.sock"
        self.process = None
        self.start()

    def start(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        script = os.path.join(os.path.dirname(clusters.__file__), "volume_plugin.py")
        self.process = subprocess.Popen([sys.executable, script, self.socket, self.base])
        wait.until(lambda: os.path.exists(self.socket), 10, "the plugin listens")

    def stop(self):
        self.process.kill()
        self.process.wait(10)

    def close(self):
        self.stop()
        os.unlink(self.socket)

    def calls(self, kind):
        """`[(name, id), …]` of one kind of call."""
        path = os.path.join(self.base, "calls")
        lines = open(path).read().splitlines() if os.path.exists(path) else []
        calls = [json.loads(line) for line in lines]
        return [(c["Name"], c.get("ID")) for c in calls if c["call"] == f"VolumeDriver.{kind}"]

    def mounted(self):
        return leaks.mounts(f"{self.base}/mounts")

    def fail(self, *calls):
        with open(os.path.join(self.base, "fail"), "w") as file:
            file.write(" ".join(calls))

    def volume(self, name, container_path, mode="RW", **options):
        docker = {"driver": self.name, "name": name}
        if options:
            docker["driver_options"] = {"parameter": [{"key": k, "value": v} for k, v in options.items()]}
        return volume("DOCKER_VOLUME", container_path, mode, docker_volume=docker)


@pytest.fixture
def plugin(cluster):
    made = Plugin(cluster)
    yield made
    for point in [line.split(" ")[4] for line in made.mounted()]:
        subprocess.run(["umount", "-l", point])
    made.close()


def checkpoints(cluster):
    folder = os.path.join(cluster.directory("agent-runtime"), "isolators/docker/volume")
    return os.listdir(folder)


def test_a_docker_volume_keeps_its_content_from_task_to_task(cluster, framework, plugin):
    script = "cat data/options; echo; echo kept > data/file"
    printed = run(cluster, framework, script, plugin.volume("v1", "data", size="1G", kind="fast"))
    assert json.loads(printed) == {"size": "1G", "kind": "fast"}
    wait.until(lambda: not plugin.mounted(), 10, "the volume is unmounted")
    printed = run(cluster, framework, "cat data/file; echo x > data/file || echo refused", plugin.volume("v1", "data", "RO"))
    assert printed == "kept\nrefused\n"
    wait.until(lambda: not plugin.mounted() and not checkpoints(cluster), 10, "nothing is left")
    assert len(plugin.calls("Create")) == 1 and len(plugin.calls("Mount")) == len(plugin.calls("Unmount")) == 2
    assert len(set(plugin.calls("Mount") + plugin.calls("Unmount"))) == 1, "one user for the plugin"


def test_a_docker_volume_is_shared_and_unmounted_when_its_last_user_ends(cluster, framework, plugin):
    shared = container(plugin.volume("v1", "data"))
    one = framework.run_task("echo 1 > data/one; sleep 1000", container=shared)
    two = framework.run_task("until [ -e data/one ]; do sleep 0.1; done; echo seen; sleep 1000", container=shared)
    wait.until(lambda: output(cluster, framework, two) == "seen\n", 10, "one sees what the other wrote")
    assert len(plugin.mounted()) == 1 and len(plugin.calls("Mount")) == 1 and len(checkpoints(cluster)) == 2
    framework.kill(one)
    framework.wait_terminal(one)
    wait.until(lambda: len(checkpoints(cluster)) == 1, 10, "one of them uses it no more")
    assert len(plugin.mounted()) == 1 and not plugin.calls("Unmount")
    # The agent dies and comes back; the volume stays with its user, and goes with it.
    cluster.agents["agent"].kill9()
    cluster.restart_agent()
    assert len(plugin.mounted()) == 1 and not plugin.calls("Unmount")
    framework.kill(two)
    framework.wait_terminal(two)
    wait.until(lambda: not plugin.mounted() and not checkpoints(cluster), 10, "the last user is gone")
    assert len(plugin.calls("Mount")) == len(plugin.calls("Unmount")) == 1


def test_a_docker_volume_of_a_task_that_ended_without_the_agent_is_unmounted(cluster, framework, plugin):
    gate = os.path.join(cluster.directory("gate"), "open")
    task_id = framework.run_task(f"until [ -e {gate} ]; do sleep 0.1; done", container=container(plugin.volume("v1", "data")))
    cluster.agents["agent"].kill9()
    os.close(os.open(gate, os.O_CREAT))
    wait.until(lambda: not [line for line in cluster.task_leftovers() if line.startswith("process") and "sleep" in line], 10, "the task has ended")
    cluster.restart_agent()
    assert framework.wait_terminal(task_id)["state"] == "TASK_FINISHED"
    wait.until(lambda: not plugin.mounted() and not checkpoints(cluster), 10, "the volume is unmounted")


def test_an_agent_killed_while_the_plugin_mounts_leaves_nothing(cluster, framework, plugin):
    with open(os.path.join(plugin.base, "hang"), "w") as file:
        file.write("VolumeDriver.Mount")
    made = task("sleep 1000", container=container(plugin.volume("v1", "data")))
    offer = framework.offer(0.1, 32)
    framework.launch(offer, [{**made, "agent_id": offer["agent_id"]}])
    wait.until(lambda: plugin.calls("Mount"), 10, "the plugin is asked")
    assert len(checkpoints(cluster)) == 1, "it is written down before"
    cluster.agents["agent"].kill9()
    # The mount came about, and nobody heard of it.
    plugin.stop()
    os.unlink(os.path.join(plugin.base, "hang"))
    plugin.start()
    data, point = os.path.join(plugin.base, "data/v1"), os.path.join(plugin.base, "mounts/v1")
    os.makedirs(point)
    subprocess.run(["mount", "--bind", data, point], check=True)
    cluster.restart_agent()
    framework.wait_terminal(made["task_id"]["value"])
    wait.until(lambda: not plugin.mounted() and not checkpoints(cluster), 10, "the volume is unmounted")
    nothing_left(cluster)


def test_a_plugin_that_fails_fails_its_container_with_its_words(cluster, framework, plugin):
    plugin.fail("VolumeDriver.Mount")
    other = framework.run_task("sleep 1000")
    status = run(cluster, framework, "true", plugin.volume("v1", "data"), state="TASK_FAILED")
    assert plugin.name in status["message"] and "told to fail" in status["message"], status
    assert status["reason"] == "REASON_CONTAINER_LAUNCH_FAILED"
    wait.until(lambda: not checkpoints(cluster), 10, "nothing is written down of it")
    plugin.stop()
    status = run(cluster, framework, "true", plugin.volume("v1", "data"), state="TASK_FAILED")
    assert "cannot be asked" in status["message"], status
    unknown = volume("DOCKER_VOLUME", "data", docker_volume={"driver": f"{plugin.name}-none", "name": "v"})
    status = run(cluster, framework, "true", unknown, state="TASK_FAILED")
    assert "no volume plugin" in status["message"], status
    assert framework.states(other)[-1] == "TASK_RUNNING"
    plugin.start()


def test_what_a_killed_agent_leaves_of_volumes_is_removed(cluster, framework, images):
    """kill -9 of the agent while a task with all kinds of volumes runs; the task ends; the agent comes back."""
    folder = make_files(cluster, file="content\n")
    of_image = {"container_path": "image", "mode": "RW", "image": {"type": "DOCKER", "docker": {"name": images.archive}}}
    gate = os.path.join(folder, "open")
    task_id = framework.run_task(
        "cd $MESOS_SANDBOX; echo x > image/x; until [ -e data/open ]; do sleep 0.1; done; cat image/x",
        container=container(host_path(folder, "data"), of_image, image=images.archive),
    )
    cluster.agents["agent"].kill9()
    cluster.restart_agent()
    os.close(os.open(gate, os.O_CREAT))
    assert framework.wait_terminal(task_id)["state"] == "TASK_FINISHED"
    assert output(cluster, framework, task_id) == "x\n"
    nothing_left(cluster)
    assert web.get(cluster.agents["agent"].address, "/health").status == 200

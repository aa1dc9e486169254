"""`disk/xfs`: the kernel refuses what goes over a container's quota, on XFS and on ext4, and quotas go with sandboxes.

Each test has a file system of its own, on a loop device. Where the kernel lacks project quotas, the tests are skipped and say why;
`tests/vm/run` has a kernel that has them.
"""

import glob
import os
import random
import signal
import subprocess
import tempfile
import time

import pytest

from harness import leaks, wait
from harness.framework import TERMINAL, Framework

ISOLATION = "cgroups/cpu,cgroups/mem,filesystem/linux,docker/runtime,namespaces/pid,disk/xfs"
MAKE = {"xfs": ["mkfs.xfs", "-q", "-f"], "ext4": ["mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"]}
MB = 1 << 20
REFUSED = ("No space left on device", "Disk quota exceeded")


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60 * wait.PATIENCE)


def fill(file, megabytes):
    """Shell: what it has to say goes to its output."""
    return f"dd if=/dev/zero of={file} bs=64k count={megabytes * 16} conv=fsync 2>&1"


class Volume:
    """A file system on a loop device, mounted at a directory that does not carry the cluster's mark."""

    def __init__(self, kind, options="prjquota", make=None):
        self.kind = kind
        self.base = tempfile.mkdtemp(prefix="tepui-quota-", dir="/var/tmp")
        os.chmod(self.base, 0o755)
        self.image, self.at = os.path.join(self.base, "image"), os.path.join(self.base, "at")
        os.mkdir(self.at)
        with open(self.image, "wb") as file:
            file.truncate(400 * MB)
        made = run(*(make or MAKE[kind]), self.image)
        assert made.returncode == 0, made.stderr
        self.mounted = run("mount", "-t", kind, "-o", ",".join(filter(None, ["loop", options])), self.image, self.at)

    def close(self):
        if self.mounted.returncode == 0:
            wait.until(lambda: run("umount", self.at).returncode == 0, 20, f"{self.at} is not in use any more")
        os.unlink(self.image)
        os.rmdir(self.at)
        os.rmdir(self.base)

    def quota(self, project):
        """Used and hard limit in bytes, as the kernel tells others than Tepui."""
        told = run("xfs_quota", "-f", "-x", "-c", f"quota -p -N -n -b -v {project}", self.at)
        words = told.stdout.split()
        assert told.returncode == 0, told.stderr
        return (int(words[1]) << 10, int(words[3]) << 10) if words else (0, 0)


class Agent:
    """A cluster whose agent works on such a file system."""

    def __init__(self, cluster, volume):
        self.cluster, self.volume = cluster, volume
        self.framework = None

    def start(self, **settings):
        self.cluster.start_coordinator()
        self.cluster.start_agent(**{
            "isolation": ISOLATION,
            "work_dir": os.path.join(self.volume.at, "work"),
            "enforce_container_disk_quota": True,
            "container_disk_watch_interval": "200ms",
            **settings,
        })  # fmt: skip
        self.framework = Framework(self.cluster.master, checkpoint=True)
        self.framework.subscribe()
        return self

    def sandbox(self, task_id):
        runs = f"{self.volume.at}/work/slaves/*/frameworks/*/executors/{task_id}/runs/latest"
        return os.path.realpath(wait.until(lambda: glob.glob(runs), 20, f"{task_id} has a sandbox")[0])

    def project(self, directory):
        """As lsattr prints it: `5000 -----P---- /dir`."""
        told = run("lsattr", "-p", "-d", directory)
        assert told.returncode == 0, told.stderr
        return int(told.stdout.split()[0])

    def run(self, script, **more):
        """As a user whom the file system's quota binds: on ext4, anybody but root."""
        user = {"user": "nobody"} if self.volume.kind == "ext4" else {}
        return self.framework.run_task({"shell": True, "value": script, **user}, **more)

    def write(self, file, megabytes, result):
        """Shell: writes so much into a file; status and words of that go where there is room."""
        path = os.path.join(self.cluster.directory("results"), result)
        os.chmod(os.path.dirname(path), 0o777)
        return f"words=$({fill(file, megabytes)}); echo $? $words >{path}.new; mv {path}.new {path}; "

    def result(self, result):
        path = os.path.join(self.cluster.directory("results"), result)
        wait.until(lambda: os.path.exists(path), 30, f"the result {result}")
        with open(path) as file:
            return file.read()

    def is_refused(self, result):
        assert any(words in self.result(result) for words in REFUSED), self.result(result)

    def is_written(self, result):
        assert self.result(result).startswith("0 "), self.result(result)

    def statistics(self, task_id):
        containers = self.cluster.agent_operator("GET_CONTAINERS")["get_containers"]["containers"]
        return next(c for c in containers if c["executor_id"]["value"] == task_id)["resource_statistics"]

    def stop(self):
        """Nothing may be in use on the file system when it is unmounted."""
        if self.framework:
            self.framework.disconnect()
        if self.cluster.coordinator and self.cluster.agents:
            self.cluster._end_tasks()
        for agent in self.cluster.agents.values():
            agent.stop()


@pytest.fixture(params=["xfs", "ext4"])
def volume(request):
    made = Volume(request.param)
    if made.mounted.returncode:
        made.close()
        pytest.skip(f"this kernel mounts no {request.param} with project quotas: {made.mounted.stderr.strip()}")
    yield made
    made.close()


@pytest.fixture
def agent(volume, bare_cluster):
    made = Agent(bare_cluster, volume)
    yield made
    made.stop()




def test_a_write_over_the_quota_is_refused(agent):
    """In the sandbox, and beside it in the container's own /tmp, which counts too; the task goes on, and can make room."""
    agent.start()
    script = agent.write("big", 32, "first") + agent.write("/tmp/more", 1, "second")
    script += "rm big /tmp/more; " + agent.write("/tmp/more", 4, "third")
    task_id = agent.run(script + "sleep 1000", disk=16)
    agent.is_refused("first")
    agent.is_refused("second")
    agent.is_written("third")
    statistics = agent.statistics(task_id)
    assert statistics["disk_limit_bytes"] == 16 * MB
    assert 4 * MB <= statistics["disk_used_bytes"] <= 5 * MB, statistics
    used, limit = agent.volume.quota(agent.project(agent.sandbox(task_id)))
    assert limit == 16 * MB and 4 * MB <= used <= 5 * MB
    assert agent.framework.states(task_id)[-1] == "TASK_RUNNING"
    agent.framework.kill(task_id)
    agent.framework.wait_terminal(task_id)
    wait.until(lambda: not agent.cluster.task_leftovers(), 10, "nothing is left of it")
    wait.until(lambda: agent.volume.quota(agent.project(agent.sandbox(task_id)))[0] < MB, 10, "its /tmp counts no more")


def test_the_upper_layer_of_an_image_counts(agent, images):
    agent.start(xfs_kill_containers=True, xfs_quota_headroom="32MB")
    container = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}}
    script = f"busybox {fill('/of-the-root', 20)}; sleep 1000"
    task_id = agent.framework.run_task(script, disk=16, container=container, wait_until=())
    status = agent.framework.wait_terminal(task_id)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LIMITATION_DISK"), status


def test_a_task_over_its_soft_quota_is_ended(agent):
    agent.start(xfs_kill_containers=True, xfs_quota_headroom="32MB")
    modest = agent.framework.run_task(agent.write("some", 4, "modest") + "sleep 1000", disk=16)
    agent.is_written("modest")
    task_id = agent.framework.run_task(agent.write("big", 20, "first") + "sleep 1000", disk=16, wait_until=())
    status = agent.framework.wait_terminal(task_id)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LIMITATION_DISK"), status
    assert status["source"] == "SOURCE_AGENT"
    assert "exceeds quota (16MB)" in status["message"], status
    (resource,) = status["limitation"]["resources"]
    assert resource["name"] == "disk" and 16 <= resource["scalar"]["value"] <= 48, status
    assert agent.framework.states(modest)[-1] == "TASK_RUNNING"


def test_without_disk_or_enforcement_there_is_a_figure_but_no_limit(agent):
    agent.start(enforce_container_disk_quota=False)
    for disk in (8, None):
        task_id = agent.framework.run_task(agent.write("big", 16, f"with-{disk}") + "sleep 1000", disk=disk)
        agent.is_written(f"with-{disk}")
        statistics = agent.statistics(task_id)
        assert statistics["disk_used_bytes"] >= 16 * MB
        assert statistics["disk_limit_bytes"] == (disk or 0) * MB


def test_a_project_is_kept_until_its_sandbox_is_removed(agent):
    """Over the end of the task and a kill of the agent; then its limit goes, and another task can have it."""
    agent.start(xfs_project_range="[7000-7001]", gc_delay="1weeks", disk_watch_interval="1secs")
    ended = agent.framework.run_task("true", disk=8, wait_until=["TASK_FINISHED"])
    running = agent.framework.run_task("sleep 1000", disk=8)
    sandbox = agent.sandbox(ended)
    first, second = agent.project(sandbox), agent.project(agent.sandbox(running))
    assert (first, second) == (7000, 7001)

    agent.cluster.agents["agent"].kill9()
    agent.cluster.restart_agent()
    assert agent.project(agent.sandbox(running)) == second
    assert agent.volume.quota(second)[1] == 8 * MB
    refused = agent.framework.run_task("true", disk=8, wait_until=())
    status = agent.framework.wait_terminal(refused)
    assert status["state"] == "TASK_FAILED", status
    assert "all projects of --xfs_project_range=[7000-7001] are in use" in status["message"], status

    agent.cluster.agents["agent"].kill9()
    agent.cluster._agent_settings["agent"]["gc_delay"] = "1secs"
    agent.cluster.restart_agent()
    wait.until(lambda: not os.path.exists(sandbox), 60, "the sandbox is removed")
    wait.until(lambda: agent.volume.quota(first) == (0, 0), 20, "nothing is left of its quota")
    third = agent.framework.run_task("sleep 1000", disk=4)
    assert agent.project(agent.sandbox(third)) == first
    assert agent.volume.quota(first)[1] == 4 * MB


@pytest.mark.parametrize("volume", ["xfs"], indirect=True)
def test_no_quota_is_left_of_launches_that_are_killed(agent):
    """kill -9 of the shim or the agent at random stages: the sandboxes are removed, and their projects have neither limit nor use."""
    seed = int(os.environ.get("TEPUI_TEST_SEED", random.randrange(1 << 32)))
    print(f"TEPUI_TEST_SEED={seed}")
    rng = random.Random(seed)
    projects = range(7000, 7012)
    agent.start(xfs_project_range=f"[{projects[0]}-{projects[-1]}]", gc_delay="1secs", disk_watch_interval="1secs")
    for victim in ["shim", "agent"] * 4:
        task_id = agent.framework.run_task("echo much > file; sleep 0.2", disk=8, wait_until=())
        time.sleep(rng.random() * 0.2 * wait.PATIENCE)  # Any moment will do.
        if victim == "agent":
            agent.cluster.agents["agent"].kill9()
            agent.cluster.restart_agent()
        for pid in leaks.processes(agent.cluster.mark) if victim == "shim" else ():
            if comm(pid) == "tepui-shim":
                os.kill(pid, signal.SIGKILL)

        def ended():
            agent.framework.call("RECONCILE", {"tasks": [{"task_id": {"value": task_id}}]})
            return any(status["state"] in TERMINAL for status in agent.framework.statuses(task_id))

        wait.until(ended, 30, f"{task_id} has ended", interval=0.5)
    wait.until(lambda: all(agent.volume.quota(project) == (0, 0) for project in projects), 60, "no project has a limit or use")


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return None


def test_a_container_that_was_started_without_quotas_gets_one_when_the_agent_has_them(agent):
    agent.start(isolation=ISOLATION.replace(",disk/xfs", ""))
    gate = os.path.join(agent.cluster.directory("gates"), "open")
    script = agent.write("before", 2, "first") + f"until [ -e {gate} ]; do sleep 0.1; done; " + agent.write("after", 32, "second")
    task_id = agent.run(script + "sleep 1000", disk=8)
    agent.is_written("first")
    agent.cluster.agents["agent"].kill9()
    agent.cluster._agent_settings["agent"]["isolation"] = ISOLATION
    agent.cluster.restart_agent()
    assert 2 * MB <= agent.statistics(task_id)["disk_used_bytes"] < 3 * MB
    open(gate, "w").close()
    agent.is_refused("second")


@pytest.mark.parametrize("kind", ["xfs", "ext4"])
def test_a_file_system_without_project_quotas_is_an_error_at_start_that_says_how_to_get_them(bare_cluster, kind):
    plain = Volume(kind, options="", make=[f"mkfs.{kind}", "-q"])
    try:
        if plain.mounted.returncode:
            pytest.skip(f"this kernel mounts no {kind}: {plain.mounted.stderr.strip()}")
        bare_cluster.start_coordinator()
        with pytest.raises(AssertionError, match="mounted with the option prjquota"):
            bare_cluster.start_agent(isolation=ISOLATION, work_dir=os.path.join(plain.at, "work"))
    finally:
        plain.close()

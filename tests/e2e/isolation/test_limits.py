"""What the isolators promise: limits that are set as the resources say, limits that bite, and nothing left behind."""

import os
import re

import pytest

from harness import leaks, wait
from harness.framework import Framework

V2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")


@pytest.fixture
def cluster(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(cgroups_enable_cfs=True, isolation="cgroups/cpu,cgroups/mem,disk/du,filesystem/linux,docker/runtime,namespaces/pid", enforce_container_disk_quota=True, container_disk_watch_interval="200ms")  # fmt: skip
    return bare_cluster


def task_cgroups(cluster, container_id):
    """The container's cgroup directories, by controller on v1, `unified` on v2."""
    found = {}
    for root in leaks.roots(cluster.mark):
        controller = "unified" if V2 else root.split("/")[4]
        for folder, names, _ in os.walk(root):
            if container_id in os.path.basename(folder):
                found[controller] = folder
                break
    return found


def read(folder, name):
    with open(os.path.join(folder, name)) as file:
        return file.read().strip()


def container_of(framework, task_id):
    return framework.wait_state(task_id, "TASK_RUNNING")["container_status"]["container_id"]["value"]


@pytest.mark.parametrize("cpus,mem", [(0.5, 64), (1.5, 256), (0.01, 32)])
def test_cgroup_values_are_what_the_resources_say(cluster, framework, cpus, mem):
    task_id = framework.run_task("sleep 1000", cpus=cpus, mem=mem)
    cgroups = task_cgroups(cluster, container_of(framework, task_id))
    shares, quota = max(2, int(cpus * 1024)), max(1000, int(cpus * 100_000))
    if V2:
        assert int(read(cgroups["unified"], "cpu.weight")) == max(1, int(cpus * 100))
        assert read(cgroups["unified"], "cpu.max") == f"{quota} 100000"
        assert int(read(cgroups["unified"], "memory.max")) == mem << 20
    else:
        assert int(read(cgroups["cpu"], "cpu.shares")) == shares
        assert int(read(cgroups["cpu"], "cpu.cfs_period_us")) == 100_000
        assert int(read(cgroups["cpu"], "cpu.cfs_quota_us")) == quota
        assert int(read(cgroups["memory"], "memory.limit_in_bytes")) == mem << 20
        assert int(read(cgroups["memory"], "memory.soft_limit_in_bytes")) == mem << 20


def test_limits_above_the_requests(cluster, framework):
    """TaskInfo.limits: what is used for scheduling stays the request, what bites is the limit."""
    limits = {"cpus": {"value": 1.5}, "mem": {"value": 128.0}}
    task_id = framework.run_task("sleep 1000", cpus=0.5, mem=64, limits=limits)
    cgroups = task_cgroups(cluster, container_of(framework, task_id))
    if V2:
        assert int(read(cgroups["unified"], "cpu.weight")) == 50
        assert read(cgroups["unified"], "cpu.max") == "150000 100000"
        assert int(read(cgroups["unified"], "memory.low")) == 64 << 20
        assert int(read(cgroups["unified"], "memory.max")) == 128 << 20
    else:
        assert int(read(cgroups["cpu"], "cpu.shares")) == 512
        assert int(read(cgroups["cpu"], "cpu.cfs_quota_us")) == 150_000
        assert int(read(cgroups["memory"], "memory.soft_limit_in_bytes")) == 64 << 20
        assert int(read(cgroups["memory"], "memory.limit_in_bytes")) == 128 << 20


def test_every_process_of_the_task_is_in_its_cgroup(cluster, framework):
    task_id = framework.run_task("setsid sleep 998 & setsid sleep 998 & sleep 998")
    cgroups = task_cgroups(cluster, container_of(framework, task_id))

    def in_cgroup(folder):
        pids = {p for f, _, _ in os.walk(folder) for p in read(f, "cgroup.procs").split()}
        return sum(b"998" in open(f"/proc/{pid}/cmdline", "rb").read() for pid in pids) >= 3

    for folder in cgroups.values():
        wait.until(lambda folder=folder: in_cgroup(folder), 5, f"all three are in {folder}")


def test_memory_over_the_limit_ends_the_task_with_the_reason(cluster, framework):
    hog = "exec tail /dev/zero"
    task_id = framework.run_task(hog, mem=64, wait_until=())
    status = framework.wait_terminal(task_id)
    assert status["state"] == "TASK_FAILED"
    assert status["reason"] == "REASON_CONTAINER_LIMITATION_MEMORY"
    assert status["source"] == "SOURCE_AGENT"
    figures = re.search(r"Memory limit exceeded: Requested: (\S+) Maximum Used: (\S+)", status["message"])
    assert figures and figures.group(1) == "64MB", status["message"]
    limitation = status.get("limitation", {}).get("resources", [])
    assert [r["name"] for r in limitation] == ["mem"], status
    wait.until(lambda: not cluster.task_leftovers(), 10, "nothing is left of it")


def test_a_child_that_is_out_of_memory_ends_the_task_too(cluster, framework):
    task_id = framework.run_task("tail /dev/zero; sleep 1000", mem=64, wait_until=())
    status = framework.wait_terminal(task_id)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LIMITATION_MEMORY")


def test_disk_over_the_quota_ends_the_task_with_the_reason(cluster, framework):
    script = "dd if=/dev/zero of=big bs=1M count=32 2>/dev/null; sleep 1000"
    task_id = framework.run_task(script, disk=8, wait_until=())
    status = framework.wait_terminal(task_id)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LIMITATION_DISK"), status
    assert re.search(r"Disk usage \(.*\) exceeds quota \(8MB\)", status["message"]), status["message"]


def test_cpu_quota_bites(cluster, framework):
    """A busy loop under 0.2 cpus gets about a fifth of a CPU's time."""
    task_id = framework.run_task("while :; do :; done", cpus=0.2)
    container_of(framework, task_id)

    def cpu_time():
        containers = cluster.agent_operator("GET_CONTAINERS")["get_containers"]["containers"]
        used = next(c for c in containers if c["executor_id"]["value"] == task_id)["resource_statistics"]
        return used["timestamp"], used["cpus_user_time_secs"] + used["cpus_system_time_secs"]

    begin, used_at_begin = cpu_time()
    wait.until(lambda: cpu_time()[0] - begin > 2, 10, "two seconds of statistics")
    end, used_at_end = cpu_time()
    share = (used_at_end - used_at_begin) / (end - begin)
    assert 0.05 < share < 0.3, share


@pytest.mark.parametrize("end", ["exit", "kill", "fail", "image"])
def test_nothing_is_left_of_a_task(cluster, framework, images, end):
    container = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}}
    more = {"container": container} if end == "image" else {}
    before = set(os.listdir(cluster.directory("agent-runtime")))
    task_id = framework.run_task({"exit": "true", "fail": "exit 1"}.get(end, "sleep 1000"), wait_until=(), **more)
    if end in ("kill", "image"):
        framework.wait_state(task_id, "TASK_RUNNING")
        assert leaks.cgroups(cluster.mark), "the check itself sees what there is to see"
        framework.kill(task_id)
    framework.wait_terminal(task_id)
    wait.until(lambda: not cluster.task_leftovers(), 10, "no process, mount or cgroup is left")
    container_id = framework.statuses(task_id)[0]["container_status"]["container_id"]["value"]

    def runtime_files():
        found = [f for f, names, files in os.walk(cluster.directory("agent-runtime")) if container_id in f]
        return found + sorted(set(os.listdir(cluster.directory("agent-runtime"))) - before - {"containers"})

    wait.until(lambda: not runtime_files(), 10, "nothing of it is in the runtime directory")
    provisioned = [f for f, _, _ in os.walk(cluster.directory("agent")) if container_id in f and "/slaves/" not in f and "/meta/" not in f]
    assert not provisioned, "no root file system or overlay of it is left"

"""Every cgroup isolator: the kernel refuses or limits a real program, and nothing is left behind.

The same file runs on hosts with cgroup v1, v2 and both: `harness.cgroups` says where a controller is. What a host lacks is skipped
with the reason; a v1 tree that is mounted nowhere is mounted in a mount namespace of the test.
"""

import contextlib
import os
import re
import subprocess
import sys

import pytest

from harness import cgroups, leaks, wait
from harness.cgroups import V1, V2, labels
from harness.framework import Framework

TREES = cgroups.Trees()
BASE = "filesystem/linux,namespaces/pid"
# Root may read it, and no list of devices for containers has it.
FORBIDDEN = "/dev/kmsg"


@pytest.fixture
def start(bare_cluster):
    """Starts a coordinator, an agent with some isolators and a framework; gives the framework."""
    frameworks = []

    def start(isolation, **settings):
        bare_cluster.start_coordinator()
        bare_cluster.start_agent(isolation=f"{isolation},{BASE}", **settings)
        frameworks.append(Framework(bare_cluster.master, checkpoint=True))
        frameworks[-1].subscribe()
        return frameworks[-1]

    yield start
    for framework in frameworks:
        framework.disconnect()


def need(controller):
    if not TREES.has(controller):
        pytest.skip(f"this host has the cgroup controller {controller} in no tree")


def container_of(framework, task_id):
    return framework.wait_state(task_id, "TASK_RUNNING")["container_status"]["container_id"]["value"]


def cgroup_of(cluster, framework, task_id, controller, trees=TREES):
    return trees.of(controller, f"{cluster.mark}-agent", container_of(framework, task_id))


def container(cluster, task_id):
    """What the agent says of a task's container."""
    containers = cluster.agent_operator("GET_CONTAINERS")["get_containers"].get("containers", [])
    return next(c for c in containers if c["executor_id"]["value"] == task_id)


def output(cluster, framework, script, name="out", **more):
    """What a task writes until it ends well."""
    path = os.path.join(cluster.base, name)
    task_id = framework.run_task(f"({script}) > {path} 2>&1", wait_until=(), **more)
    status = framework.wait_terminal(task_id)
    with open(path) as file:
        text = file.read().strip()
    assert status["state"] == "TASK_FINISHED", (status, text)
    return text


def refusal(framework, **more):
    """The message of a task that cannot be launched."""
    status = framework.wait_terminal(framework.run_task("sleep 1000", wait_until=(), **more))
    assert status["state"] in ("TASK_FAILED", "TASK_ERROR"), status
    return status["message"]


def nothing_left(cluster):
    wait.until(lambda: not cluster.task_leftovers(), 20, "nothing is left of the tasks")


# -- cgroups/cpu


def test_a_cpu_hog_is_held_to_its_quota(bare_cluster, start):
    """Two busy loops under 0.2 CPUs, by the kernel's own count of their time."""
    framework = start("cgroups/cpu", cgroups_enable_cfs=True)
    task_id = framework.run_task("while :; do :; done & while :; do :; done", cpus=0.2)
    of = (TREES, f"{bare_cluster.mark}-agent", container_of(framework, task_id))
    shares = []
    # On a busy machine there may be less to have for a while, and never more.
    while not any(share > 0.18 for share in shares):
        assert len(shares) < 8, f"never as much as the quota: {shares}"
        shares.append(cgroups.share(4, lambda: cgroups.cpu_seconds(*of)))
        assert shares[-1] < 0.22, shares
    print(f"shares of a CPU under a quota of 0.2: {shares}")
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    nothing_left(bare_cluster)


def test_an_infinite_limit_lifts_the_quota(bare_cluster, start):
    framework = start("cgroups/cpu,cgroups/mem", cgroups_enable_cfs=True)
    infinite = {"cpus": {"value": "Infinity"}, "mem": {"value": "Infinity"}}
    task_id = framework.run_task("sleep 1000", cpus=0.2, mem=32, limits=infinite)
    cpu = cgroup_of(bare_cluster, framework, task_id, "cpu")
    memory = cgroup_of(bare_cluster, framework, task_id, "memory")
    if TREES.version("cpu") == V1:
        assert (cpu["cpu.cfs_quota_us"], cpu["cpu.shares"]) == ("-1", "204")
    else:
        assert (cpu["cpu.max"], cpu["cpu.weight"]) == ("max 100000", "20")
    if TREES.version("memory") == V1:
        assert int(memory["memory.limit_in_bytes"]) > 1 << 60
        assert int(memory["memory.soft_limit_in_bytes"]) == 32 << 20
    else:
        assert (memory["memory.max"], int(memory["memory.low"])) == ("max", 32 << 20)


# -- cgroups/mem


def test_an_allocation_may_pass_the_request_and_not_the_limit(bare_cluster, start):
    framework = start("cgroups/mem")
    limits = {"mem": {"value": 128.0}}

    def allocate(megabytes):
        return framework.wait_terminal(framework.run_task([sys.executable, "-c", f"bytearray(b'x') * ({megabytes} << 20)"], mem=32, limits=limits, wait_until=()))

    assert allocate(64)["state"] == "TASK_FINISHED"
    over = allocate(256)
    assert (over["state"], over["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LIMITATION_MEMORY"), over
    assert "Requested: 128MB" in over["message"]
    nothing_left(bare_cluster)


# -- cgroups/cpuset


def test_a_task_stays_on_the_cpus_it_was_given(bare_cluster, start):
    need("cpuset")
    framework = start("cgroups/cpuset")
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("this machine has one CPU")
    first, last = cpus[0], cpus[-1]
    # What it asks for beyond them the kernel refuses.
    script = f"sed -n 's/Cpus_allowed_list:.//p' /proc/self/status; taskset -c {first} true; echo $?; taskset -c {last} true && echo fine"
    told = output(bare_cluster, framework, script, labels=labels(tepui_cpuset_cpus=str(last), tepui_cpuset_mems="0")).splitlines()
    assert (told[0], told[-2:]) == (str(last), ["1", "fine"]), told
    assert "taskset: failed" in told[1], told
    message = refusal(framework, labels=labels(tepui_cpuset_cpus="0-9000"))
    assert "the label tepui.cpuset.cpus cannot be '0-9000': this agent's CPUs are 0" in message
    everywhere = output(bare_cluster, framework, "sed -n 's/Cpus_allowed_list:.//p' /proc/self/status", name="all")
    assert everywhere != str(last)
    nothing_left(bare_cluster)


# -- cgroups/pids


def test_a_fork_bomb_is_held_by_its_limit(bare_cluster, start):
    need("pids")
    framework = start("cgroups/pids")
    bomb = "(while :; do sleep 1000 & done) & exec sleep 1000"
    task_id = framework.run_task(bomb, labels=labels(tepui_pids_max="24"))
    cgroup = cgroup_of(bare_cluster, framework, task_id, "pids")
    refused = lambda: cgroup.keyed("pids.events")["max"]  # noqa: E731
    wait.until(lambda: refused() > 0, 20, "a fork that the kernel refuses")
    assert (int(cgroup["pids.max"]), int(cgroup["pids.current"]) <= 24) == (24, True)
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    assert "between 1 and 4194304" in refusal(framework, labels=labels(tepui_pids_max="0"))
    nothing_left(bare_cluster)


# -- cgroups/devices and linux/devices


@pytest.mark.parametrize("version", [V1, V2])
def test_a_device_that_may_not_be_opened(bare_cluster, start, version):
    """Both forms on a host with both: without the v1 tree in sight, the v2 one has the devices."""
    namespace = None
    if TREES.version("devices") != version:
        if version == V1 or not TREES.v2:
            pytest.skip(f"this host has no devices in cgroup v{version}")
        namespace = cgroups.MountNamespace()
        namespace.run("umount", TREES.v1["devices"])
        bare_cluster.prefix = namespace.prefix
    try:
        with open(FORBIDDEN):
            pass
        framework = start("cgroups/devices")
        log = os.path.join(bare_cluster.base, "log")
        script = (
            f"for f in null zero urandom; do true < /dev/$f || exit 2; done; mknod {log}.node c 1 11 || exit 3;"
            f"while :; do if true < {FORBIDDEN} || true < {log}.node; then echo open; else echo denied; fi; sleep 0.02; done > {log} 2>&1"
        )
        task_id = framework.run_task(script)

        def lines():
            with open(log) as file:
                return [line for line in file.read().splitlines() if line in ("open", "denied")]

        wait.until(lambda: os.path.exists(log) and len(lines()) > 3, 20, "the task tries")
        # The limit is the cgroup's, and stays when the agent is gone.
        bare_cluster.agents["agent"].kill9()
        count = len(lines())
        wait.until(lambda: len(lines()) > count + 3, 20, "the task tries without an agent")
        bare_cluster.restart_agent()
        count = len(lines())
        wait.until(lambda: len(lines()) > count + 3, 20, "the task tries with the next agent")
        assert set(lines()) == {"denied"}
        with open(log) as file:
            assert "Operation not permitted" in file.read()
        framework.kill(task_id)
        framework.wait_terminal(task_id)
        nothing_left(bare_cluster)
    finally:
        if namespace:
            namespace.close()


def test_a_device_that_is_allowed_is_there_in_an_image_too(bare_cluster, start, images):
    allowed = f'{{"allowed_devices": [{{"device": {{"path": "{FORBIDDEN}"}}, "access": {{"read": true}}}}]}}'
    framework = start("cgroups/devices,linux/devices,docker/runtime", allowed_devices=allowed)
    image = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}}
    script = f"stat -c %A.%t.%T {FORBIDDEN} > $MESOS_SANDBOX/told; true < {FORBIDDEN} && echo read >> $MESOS_SANDBOX/told; true > {FORBIDDEN} || echo no write >> $MESOS_SANDBOX/told; sleep 1000"
    task_id = framework.run_task(script, container=image)
    container_id = container_of(framework, task_id)
    told = lambda: next((os.path.join(f, "told") for f, _, files in os.walk(bare_cluster.directory("agent")) if "told" in files and container_id in f), None)  # noqa: E731
    wait.until(lambda: told() and "write" in open(told()).read(), 20, "the task has tried")
    with open(told()) as file:
        assert file.read().split("\n")[:3] == ["crw-r--r--.1.b", "read", "no write"]
    # Without an image too, and no file is made there.
    script = f"true < {FORBIDDEN} && echo read; true > {FORBIDDEN} || echo no write"
    assert output(bare_cluster, framework, script, name="host").splitlines()[0] == "read"
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    nothing_left(bare_cluster)


# -- cgroups/blkio


@pytest.fixture
def disk(bare_cluster):
    if not os.path.exists("/dev/loop-control"):
        subprocess.run(["modprobe", "loop"], capture_output=True)
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("this host has no loop devices")
    made = cgroups.LoopDevice(os.path.join(bare_cluster.base, "disk"), 64)
    yield made
    made.close()


def test_a_disk_is_read_no_faster_than_the_limit(bare_cluster, start, disk):
    need("blkio")
    framework = start("cgroups/blkio")
    limit = 1 << 20
    script = f"while :; do dd if={disk.path} of=/dev/null bs=64k iflag=direct 2> /dev/null; done"
    task_id = framework.run_task(script, labels=labels(tepui_io_max=f"{disk.path} rbps=1MB"))
    container_of(framework, task_id)

    def read_bytes():
        told = container(bare_cluster, task_id)["resource_statistics"]["blkio_statistics"]["throttling"]
        of_disk = [one for one in told if one.get("device") == dict(zip(("major_number", "minor_number"), disk.number))]
        return sum(value["value"] for one in of_disk for value in one["io_service_bytes"] if value["op"] == "READ")

    wait.until(lambda: read_bytes() > 0, 20, "the task reads")
    rates = [cgroups.share(3, read_bytes) / limit]
    while rates[-1] < 0.5:
        assert len(rates) < 6, f"hardly anything is read: {rates}"
        rates.append(cgroups.share(3, read_bytes) / limit)
    print(f"read, as a share of the limit: {rates}")
    assert rates[-1] < 1.25, rates
    told = container(bare_cluster, task_id)["resource_statistics"]["blkio_statistics"]
    assert "device" not in told["throttling"][-1] and len(told["cfq"]) == len(told["cfq_recursive"]) == 1
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    assert "not a block device" in refusal(framework, labels=labels(tepui_io_max="/dev/null rbps=1"))
    nothing_left(bare_cluster)


def test_io_has_a_weight_where_the_kernel_weighs(bare_cluster, start):
    need("blkio")
    framework = start("cgroups/blkio")
    assert "from 1 to 10000" in refusal(framework, labels=labels(tepui_io_weight="10001"))
    probe = framework.run_task("sleep 1000")
    cgroup = cgroup_of(bare_cluster, framework, probe, "blkio")
    files = [name for name in ("io.weight", "io.bfq.weight", "blkio.bfq.weight", "blkio.weight") if cgroup.has(name)]
    if not files:
        assert "weighs no I/O" in refusal(framework, labels=labels(tepui_io_weight="50"))
        return
    weighed = cgroup_of(bare_cluster, framework, framework.run_task("sleep 1000", labels=labels(tepui_io_weight="50")), "blkio")
    assert weighed[files[0]].split("\n")[0].removeprefix("default ") == "50"


# -- cgroups/hugetlb


@pytest.fixture
def huge_pages():
    """Lets the kernel make some of 2 MB when they are asked for."""
    path = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"
    if not os.path.exists(path):
        pytest.skip("this kernel has no huge pages of 2 MB")
    with open(path) as file:
        before = file.read()
    with open(path, "w") as file:
        file.write(str(int(before) + 16))
    yield
    with open(path, "w") as file:
        file.write(before)


def test_huge_pages_end_at_the_limit(bare_cluster, start, huge_pages):
    need("hugetlb")
    framework = start("cgroups/hugetlb")
    # Reserved and touched; 0x40000 is MAP_HUGETLB.
    program = os.path.join(bare_cluster.base, "huge.py")
    with open(program, "w") as file:
        file.write(
            "import mmap, sys\n"
            "size = int(sys.argv[1]) << 20\n"
            "try:\n"
            "    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)\n"
            "    for at in range(0, size, 2 << 20):\n"
            "        memory[at] = 1\n"
            "    print('given')\n"
            "except OSError as error:\n"
            "    print(error)\n"
        )
    script = f"{sys.executable} {program} 4; {sys.executable} {program} 8"
    assert output(bare_cluster, framework, script, mem=64).splitlines() == ["given", "given"], "without a limit"
    limited = output(bare_cluster, framework, script, name="limited", mem=64, labels=labels(tepui_hugetlb_max="2MB=4MB")).splitlines()
    assert limited == ["given", "[Errno 12] Cannot allocate memory"], limited
    assert "no huge pages of 7MB" in refusal(framework, labels=labels(tepui_hugetlb_max="7MB=1MB"))
    nothing_left(bare_cluster)


# -- cgroups/net_cls and cgroups/net_prio


@pytest.fixture
def mounted(bare_cluster):
    """Mounts a v1 tree where the agent alone sees it, unless the host has it; gives the trees that the agent sees."""
    undo = contextlib.ExitStack()

    def mounted(controller):
        if TREES.has(controller):
            return TREES
        namespace = cgroups.MountNamespace()
        undo.callback(namespace.close)
        at = os.path.join(bare_cluster.base, controller)
        try:
            namespace.mount_v1(controller, at)
        except AssertionError as error:
            pytest.skip(f"this kernel cannot mount the v1 tree {controller}: {error}")
        undo.callback(namespace.unmount_v1, controller, at, f"{bare_cluster.mark}-agent")
        bare_cluster.prefix = namespace.prefix
        return cgroups.Trees(namespace.pid)

    yield mounted
    for agent in bare_cluster.agents.values():
        agent.stop()
    undo.close()


def test_packets_of_a_container_have_a_mark_of_its_own(bare_cluster, start, mounted):
    trees = mounted("net_cls")
    flags = {"cgroups_net_cls_primary_handle": "0x0012", "cgroups_net_cls_secondary_handles": "0x0001,0x0002"}
    framework = start("cgroups/net_cls", **flags)
    tasks = [framework.run_task("sleep 1000") for _ in range(2)]

    def marks(task_id):
        """As the kernel has it, and as the agent tells it."""
        told = container(bare_cluster, task_id)["container_status"]["cgroup_info"]["net_cls"]["classid"]
        return int(cgroup_of(bare_cluster, framework, task_id, "net_cls", trees)["net_cls.classid"]), told

    given = [marks(task_id) for task_id in tasks]
    assert given == [(0x120001, 0x120001), (0x120002, 0x120002)]
    assert "all 2 secondary handles of the primary handle 0x0012 are in use" in refusal(framework)
    bare_cluster.agents["agent"].kill9()
    bare_cluster.restart_agent()
    assert [marks(task_id) for task_id in tasks] == given
    assert "are in use" in refusal(framework), "a mark that a container has kept is not given again"
    framework.kill(tasks[0])
    framework.wait_terminal(tasks[0])
    again = framework.run_task("sleep 1000")
    assert marks(again) == (0x120001, 0x120001), "it is free again"
    for task_id in (tasks[1], again):
        framework.kill(task_id)
        framework.wait_terminal(task_id)
    nothing_left(bare_cluster)
    _, mount = trees.find("net_cls")
    seen = trees.of("net_cls", f"{bare_cluster.mark}-agent", "")
    assert [entry for entry in os.listdir(seen.path) if os.path.isdir(os.path.join(seen.path, entry))] == [], mount


def test_packets_have_the_priority_of_their_label(bare_cluster, start, mounted):
    trees = mounted("net_prio")
    framework = start("cgroups/net_prio")
    task_id = framework.run_task("sleep 1000", labels=labels(tepui_net_prio_ifpriomap="lo=5"))
    assert cgroup_of(bare_cluster, framework, task_id, "net_prio", trees).keyed("net_prio.ifpriomap")["lo"] == 5
    message = refusal(framework, labels=labels(tepui_net_prio_ifpriomap="no-such-nic=1"))
    assert "no network interface 'no-such-nic'" in message, message
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    nothing_left(bare_cluster)


@pytest.mark.parametrize("controller", ["net_cls", "net_prio"])
def test_a_controller_that_the_host_lacks_is_said_at_the_start(bare_cluster, controller):
    if TREES.has(controller):
        pytest.skip(f"this host has {controller}")
    bare_cluster.start_coordinator()
    with pytest.raises(AssertionError, match=f"(?s)ended with.*isolator 'cgroups/{controller}' cannot work on this host.*neither mounted"):
        bare_cluster.start_agent(isolation=f"cgroups/{controller}")
    bare_cluster.agents.clear()


# -- cgroups/perf_event


def test_events_are_counted_by_container(bare_cluster, start):
    need("perf_event")
    events = "task-clock,cpu-clock,context-switches,page-faults,cycles"
    framework = start("cgroups/perf_event", perf_events=events, perf_interval="1secs", perf_duration="500ms")
    busy, idle = framework.run_task("while :; do :; done"), framework.run_task("sleep 1000")
    perf = lambda task_id: container(bare_cluster, task_id)["resource_statistics"]["perf"]  # noqa: E731
    wait.until(lambda: perf(busy).get("task_clock", 0) > 1, 20, "the busy one is counted")
    wait.until(lambda: perf(idle)["duration"] > 0, 20, "the idle one too")
    sample = perf(busy)
    print(f"a busy loop: {sample}")
    # Milliseconds of CPU time, on as many CPUs as there are at most.
    assert 0.4 < sample["duration"] and sample["task_clock"] <= sample["duration"] * 1000 * os.cpu_count() * 1.1
    assert {"cpu_clock", "context_switches", "page_faults"} <= sample.keys()
    # Its first sample may have its start in it.
    wait.until(lambda: perf(idle)["task_clock"] < perf(busy)["task_clock"] / 2, 20, "the idle one uses less")
    for task_id in (busy, idle):
        framework.kill(task_id)
        framework.wait_terminal(task_id)
    nothing_left(bare_cluster)


# -- all of them, and none


def test_all_takes_what_the_host_has(bare_cluster, start):
    framework = start("cgroups/all")
    task_id = framework.run_task("sleep 1000")
    container_id = container_of(framework, task_id)
    # cpuacct, perf_event and the like are in every v2 cgroup.
    for controller in ("blkio", "cpu", "cpuset", "devices", "hugetlb", "memory", "net_cls", "net_prio", "perf_event", "pids"):
        if TREES.has(controller):
            cgroup = TREES.of(controller, f"{bare_cluster.mark}-agent", container_id)
            assert cgroup.exists(), f"{controller}: {cgroup.path}"
    statistics = container(bare_cluster, task_id)["resource_statistics"]
    expected = {"cpus_user_time_secs", "mem_total_bytes", "perf", "blkio_statistics"}
    assert expected <= statistics.keys(), statistics.keys()
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    nothing_left(bare_cluster)


@pytest.mark.parametrize("label,value,isolator", [
    ("tepui_pids_max", "8", "cgroups/pids"), ("tepui_cpuset_cpus", "0", "cgroups/cpuset"),
    ("tepui_io_max", "8:0 rbps=1MB", "cgroups/blkio"), ("tepui_hugetlb_max", "2MB=0B", "cgroups/hugetlb"),
])  # fmt: skip
def test_a_label_that_nobody_heeds_is_refused(bare_cluster, start, label, value, isolator):
    framework = start("cgroups/cpu")
    assert f"(isolator {isolator})" in refusal(framework, labels=labels(**{label: value}))
    nothing_left(bare_cluster)


def test_cgroups_of_nobody_are_removed_at_the_start_and_others_left_alone(bare_cluster, start):
    """In every tree that the agent uses: a container's cgroup that no agent knows, with a process in it; one beside the root stays."""
    framework = start("cgroups/all")
    bare_cluster.agents["agent"].stop()
    roots = leaks.roots(f"{bare_cluster.mark}-agent")
    assert roots
    orphans = [os.path.join(root, "11111111-2222-3333-4444-555555555555") for root in roots]
    strangers = [f"{os.path.dirname(root)}/{bare_cluster.mark}-stranger" for root in roots]
    process = subprocess.Popen(["sleep", "1000"])
    try:
        for folder in orphans + strangers:
            os.mkdir(folder)
        for root, folder in zip(roots, orphans):
            if os.path.exists(f"{folder}/cpuset.mems"):
                for name in ("cpuset.cpus", "cpuset.mems"):
                    with open(f"{root}/{name}") as of_root, open(f"{folder}/{name}", "w") as file:
                        file.write(of_root.read())
            with open(f"{folder}/cgroup.procs", "w") as file:
                file.write(str(process.pid))
        bare_cluster.restart_agent()
        wait.until(lambda: process.poll() is not None, 20, "the process of nobody has ended")
        wait.until(lambda: not any(map(os.path.isdir, orphans)), 20, "its cgroups are gone")
        assert all(map(os.path.isdir, strangers))
        framework.run_task("true", wait_until=("TASK_FINISHED",))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        for folder in orphans + strangers:
            if os.path.isdir(folder):
                os.rmdir(folder)
    nothing_left(bare_cluster)


@pytest.mark.parametrize("flags,words", [
    ({"perf_events": "joules"}, "'joules' is not an event"),
    ({"cgroups_net_cls_primary_handle": "0x10000"}, "16 bits"),
    ({"allowed_devices": '{"allowed_devices": [{"device": {"path": "/dev/none"}, "access": {"read": true}}]}'}, "/dev/none"),
    ({"isolation": "cgroups/perf_event", "perf_events": "task-clock", "perf_duration": "2mins"}, "longer than"),
    ({"isolation": "cgroups/perf_event", "perf_events": "task-clock", "perf_duration": "0ns"}, "counts nothing"),
])  # fmt: skip
def test_flags_that_cannot_be_are_said_at_the_start(bare_cluster, flags, words):
    bare_cluster.start_coordinator()
    with pytest.raises(AssertionError, match=f"(?s)ended with.*{re.escape(words)}"):
        bare_cluster.start_agent(**flags)
    bare_cluster.agents.clear()

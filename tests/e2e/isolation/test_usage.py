"""What the agent says a container uses, against what its program really did.

The programs say themselves what they did (CPU time by their own clock, bytes held, bytes written), and wait with it; the agent's figures are
then those of a container in which nothing changes any more.
"""

import json
import os
import threading
import time

import pytest

from harness import cluster as clusters
from harness import leaks, wait, web
from harness.codec import Protobuf
from harness.framework import Framework

V2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
MB = 1 << 20
ISOLATION = "cgroups/cpu,cgroups/mem,disk/du,filesystem/linux,docker/runtime,namespaces/pid"


def has_pressure():
    """Whether the kernel keeps such figures for cgroups: it may be told not to, and v1 has none."""
    try:
        with open("/proc/pressure/cpu") as file:
            file.read()
    except OSError:
        return False
    with open("/proc/self/mountinfo") as mounts:
        return any(" - cgroup2 " in line for line in mounts)


@pytest.fixture(scope="module")
def shared_cluster(request):
    made = clusters.Cluster(request.node.name)
    made.start_coordinator()
    made.start_agent(
        isolation=ISOLATION, cgroups_enable_cfs=True, container_disk_watch_interval="200ms",
        cgroups_cpu_enable_pids_and_tids_count=True,
    )  # fmt: skip
    yield made
    made.close(request.session.testsfailed > 0)


@pytest.fixture
def framework(shared_cluster):
    made = Framework(shared_cluster.master)
    made.subscribe()
    yield made
    made.teardown()
    made.disconnect()


class Program:
    """A task that runs Python, says one line of JSON, and waits."""

    def __init__(self, cluster, framework, code, **amounts):
        self.cluster, self.framework = cluster, framework
        code = f"import json, os, sys, time\ndef say(**what): print(json.dumps(what), flush=True)\n{code}\ntime.sleep(1000)\n"
        self.task_id = framework.run_task(["/usr/bin/python3", "-c", code], **amounts)
        status = framework.wait_state(self.task_id, "TASK_RUNNING")
        self.container_id = status["container_status"]["container_id"]["value"]

    def output(self):
        path = f"/frameworks/{self.framework.id}/executors/{self.task_id}/runs/latest/stdout"
        return web.get(self.cluster.agents["agent"].address, f"/files/download?path={path}").text

    def said(self, timeout=60):
        wait.until(lambda: self.output().endswith("\n"), timeout, "the program has said what it did")
        return json.loads(self.output().splitlines()[-1])

    def statistics(self):
        return self.entry()["statistics"]

    def entry(self, endpoint="/containers"):
        entries = web.get(self.cluster.agents["agent"].address, endpoint).json()
        return next(e for e in entries if e["executor_id"] == self.task_id and e["framework_id"] == self.framework.id)

    def cgroup(self, controller):
        name = "" if V2 else controller
        root = next(root for root in leaks.roots(self.cluster.mark) if V2 or root.split("/")[4] == name)
        return os.path.join(root, self.container_id)


@pytest.fixture
def program(shared_cluster, framework):
    return lambda code, **amounts: Program(shared_cluster, framework, code, **amounts)


def test_cpu_time_is_what_the_program_burnt(program):
    burn = "end = 1.5\nwhile time.process_time() < end:\n  for n in range(300): os.stat('/')\n  sum(range(30000))\nt = os.times()\nsay(user=t.user, system=t.system)"
    task = program(burn, cpus=2)
    own = task.said()
    used = task.statistics()
    total, said = used["cpus_user_time_secs"] + used["cpus_system_time_secs"], own["user"] + own["system"]
    print(f"burnt {said:.2f} s (user {own['user']:.2f}), told {total:.2f} s (user {used['cpus_user_time_secs']:.2f})")
    # The start of the container itself, and the sleep after the report, come on top.
    assert said * 0.98 - 0.02 <= total <= said + 0.5
    assert used["cpus_user_time_secs"] > 0.2 * own["user"] and used["cpus_system_time_secs"] > 0.2 * own["system"]
    assert (used["cpus_limit"], used["cpus_soft_limit"]) == (2.0, 2.0)
    assert abs(used["timestamp"] - time.time()) < 60
    again = task.statistics()
    assert again["timestamp"] > used["timestamp"]
    assert again["cpus_user_time_secs"] - used["cpus_user_time_secs"] < 0.2, "it sleeps"


def test_throttling_is_counted(program):
    """A fifth of a CPU for a program that wants a whole one: held back in nearly every period of 100 ms."""
    task = program("say(begun=True)\nwhile True: pass", cpus=0.2)
    task.said()
    # From here on it wants all it can get.
    first = task.statistics()
    wait.until(lambda: task.statistics()["cpus_nr_periods"] >= first["cpus_nr_periods"] + 10, 60, "ten more periods")
    last = task.statistics()
    periods, throttled = (last[f"cpus_nr_{name}"] - first[f"cpus_nr_{name}"] for name in ("periods", "throttled"))
    held = last["cpus_throttled_time_secs"] - first["cpus_throttled_time_secs"]
    used = sum(last[f"cpus_{name}_time_secs"] - first[f"cpus_{name}_time_secs"] for name in ("user", "system"))
    wall = last["timestamp"] - first["timestamp"]
    print(f"{periods} periods in {wall:.2f} s, {throttled} throttled, {held:.2f} s held back, {used:.2f} s used")
    assert 0.5 * periods <= throttled <= periods
    assert held > 0.02 * throttled, "80 of 100 ms in each, less what others took of the CPU"
    assert used <= 0.2 * wall + 0.1


def test_memory_is_what_the_program_holds(program):
    """48 MB of its own, 24 MB of a file in the cache of which 16 MB are mapped, 8 MB locked."""
    hold = f"""
import ctypes, mmap
held = bytearray(os.urandom(1024) * {48 * 1024})
with open('file', 'wb') as file: file.write(bytes({24 * MB}))
file = open('file', 'r+b')
mapped = mmap.mmap(file.fileno(), {16 * MB})
touched = sum(mapped[at] for at in range(0, {16 * MB}, 4096))
locked = mmap.mmap(-1, {8 * MB})
address = ctypes.addressof(ctypes.c_char.from_buffer(locked))
assert ctypes.CDLL(None, use_errno=True).mlock(ctypes.c_void_p(address), ctypes.c_size_t({8 * MB})) == 0, ctypes.get_errno()
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
say(anon=int(status['RssAnon'].split()[0]) << 10, shared=int(status['RssShmem'].split()[0]) << 10)
"""
    task = program(hold, mem=192)
    own = task.said()

    # The kernel gathers these figures from its CPUs every two seconds.
    def told():
        used = task.statistics()
        return used if used["mem_unevictable_bytes"] >= 8 * MB and used["mem_rss_bytes"] >= own["anon"] - MB else None

    used = wait.until(told, 30, "the figures are as the program says")
    print({name: round(value / MB, 1) for name, value in used.items() if name.startswith("mem_") and "pressure" not in name}, own)
    anon = used["mem_rss_bytes"]
    assert own["anon"] - MB <= anon <= own["anon"] + own["shared"] + 16 * MB
    assert used["mem_anon_bytes"] == anon
    # With the shared memory that is locked.
    assert 24 * MB <= used["mem_cache_bytes"] <= 24 * MB + own["shared"] + 24 * MB
    assert used["mem_file_bytes"] == used["mem_cache_bytes"]
    assert 16 * MB <= used["mem_mapped_file_bytes"] <= used["mem_cache_bytes"]
    assert 8 * MB <= used["mem_unevictable_bytes"] <= 12 * MB
    assert anon + used["mem_cache_bytes"] - 2 * MB <= used["mem_total_bytes"] <= 192 * MB
    assert used["mem_swap_bytes"] == 0 or len(open("/proc/swaps").readlines()) > 1
    assert (used["mem_limit_bytes"], used["mem_soft_limit_bytes"]) == (192 * MB, 192 * MB)
    assert 0 < used["mem_kmem_usage_bytes"] < 64 * MB and used["mem_kmem_tcp_usage_bytes"] == 0
    assert "mem_total_memsw_bytes" not in used, "only with --cgroups_limit_swap"
    pressure = [f"mem_{level}_pressure_counter" for level in ("low", "medium", "critical")]
    assert all(isinstance(used.get(name), int) for name in pressure) != V2, "v2 counts no events; see /tepui/v1/pressure"


def test_memory_pressure_is_counted(program):
    """Much more of a file than fits: the kernel has to take pages away all the time."""
    times = 0 if V2 else 6
    task = program(
        f"with open('file', 'wb') as f:\n  for n in range(96): f.write(bytes(1 << 20))\nfor n in range({times}):\n  with open('file', 'rb') as f:\n    while f.read(1 << 20): pass\nsay(done=True)",
        mem=40,
    )  # fmt: skip
    task.said()
    if V2:
        assert "mem_low_pressure_counter" not in task.statistics()
        return
    # Counted by a worker of the kernel, a moment later.
    wait.until(lambda: task.statistics()["mem_low_pressure_counter"] > 0, 20, "low pressure was noticed")
    used = task.statistics()
    assert used["mem_medium_pressure_counter"] <= used["mem_low_pressure_counter"]


def test_disk_is_what_the_program_wrote(program):
    task = program(f"os.makedirs('a/b')\nopen('a/b/file', 'wb').write(bytes({10 * MB}))\nos.link('a/b/file', 'again')\nsay(done=True)", disk=64)
    task.said()
    wait.until(lambda: task.statistics()["disk_used_bytes"] >= 10 * MB, 30, "the sandbox was looked at")
    used = task.statistics()
    assert 10 * MB <= used["disk_used_bytes"] < 11 * MB, "each file once"
    assert used["disk_limit_bytes"] == 64 * MB
    assert used["disk_statistics"] == [{"limit_bytes": 64 * MB, "used_bytes": used["disk_used_bytes"]}]
    without = program("say(done=True)")
    without.said()
    assert not [name for name in without.statistics() if name.startswith("disk_")], "a task without disk is not measured"


def test_processes_and_threads_are_counted(program):
    code = "import subprocess, threading\nfor n in range(3): subprocess.Popen(['sleep', '1000'])\nfor n in range(4): threading.Thread(target=time.sleep, args=[1000], daemon=True).start()\nsay(done=True)"
    task = program(code)
    task.said()
    used = task.statistics()
    # The program, its three children, and the init above them.
    assert (used["processes"], used["threads"]) == (5, 9)
    folder = task.cgroup("cpuacct")
    listed = {pid for at, _, _ in os.walk(folder) for pid in open(os.path.join(at, "cgroup.procs")).read().split()}
    assert used["processes"] == len(listed)


def test_all_ways_to_ask_agree(shared_cluster, program):
    agent = shared_cluster.agents["agent"].address
    task = program("say(done=True)", disk=32)
    task.said()
    settled = lambda: task.statistics()["disk_used_bytes"] > 0  # noqa: E731
    wait.until(settled, 20, "the disk was measured")
    entry = task.entry()
    status, statistics = entry["status"], entry["statistics"]
    assert status["container_id"]["value"] == entry["container_id"] == task.container_id
    assert os.path.exists(f"/proc/{status['executor_pid']}")
    # The disk is measured again and again, and files grow into further blocks.
    moves = {"timestamp", "disk_used_bytes", "cpus_user_time_secs", "cpus_system_time_secs", "cpus_throttled_time_secs", "mem_total_bytes", "mem_kmem_usage_bytes"}
    still = lambda found: {name: value for name, value in found.items() if name not in moves and "cpus_nr" not in name}  # noqa: E731

    for endpoint in ("/monitor/statistics", "/monitor/statistics.json", "/slave(1)/monitor/statistics"):
        other = task.entry(endpoint)
        assert set(other) == {"executor_id", "executor_name", "framework_id", "source", "statistics"}
        assert set(other["statistics"]) == set(statistics) and still(other["statistics"]) == still(statistics)
    for more in ({}, {"get_containers": {"show_nested": True, "show_standalone": True}}):
        call = {"type": "GET_CONTAINERS", **more}
        as_json = web.operator(agent, call)
        headers = {"Content-Type": Protobuf.media, "Accept": Protobuf.media}
        answer = web.request(agent, "POST", "/api/v1", Protobuf.encode("mesos.v1.agent.Call", call), headers)
        assert (answer.status, answer.media) == (200, Protobuf.media)
        for response in (as_json, Protobuf.decode("mesos.v1.agent.Response", answer.body)):
            mine = [c for c in response["get_containers"]["containers"] if c["container_id"]["value"] == task.container_id]
            (mine,) = mine
            assert int(mine["container_status"]["executor_pid"]) == status["executor_pid"]
            found = mine["resource_statistics"]
            assert set(found) == set(statistics)
            # 64-bit numbers are text in the other implementation's JSON.
            numbers = {name: float(value) for name, value in still(found).items() if not isinstance(value, list)}
            assert numbers == {name: value for name, value in still(statistics).items() if not isinstance(value, list)}
            assert int(found["disk_statistics"][0]["limit_bytes"]) == 32 * MB


def test_what_is_refused(shared_cluster, program):
    agent = shared_cluster.agents["agent"].address
    task, other = program("say(done=True)"), program("say(done=True)")
    framework = task.framework.id
    for query, ids in (
        (f"container_id={task.container_id}", {task.task_id}),
        (f"framework_id={framework}", {task.task_id, other.task_id}),
        (f"framework_id={framework}&executor_id={other.task_id}", {other.task_id}),
        ("container_id=nobody", set()),
    ):
        assert {c["executor_id"] for c in web.get(agent, f"/containers?{query}").json()} == ids, query
    for query in (f"container_id={task.container_id}&framework_id={framework}", f"executor_id={task.task_id}"):
        assert web.get(agent, f"/containers?{query}").status == 400, query
    wrapped = web.get(agent, "/monitor/statistics?jsonp=cb")
    assert wrapped.media == "text/javascript" and wrapped.text.startswith("cb([")
    for path, status in (("/monitor", 404), ("/monitor/statistics/x", 404), ("/containers.json", 404), ("/tepui/v1/pressures", 404)):
        assert web.get(agent, path).status == status, path
    for path in ("/monitor/statistics", "/containers", "/tepui/v1/pressure"):
        assert web.request(agent, "POST", path).status == 405
    assert web.post_json(agent, "/api/v1", {"type": "ADD_RESOURCE_PROVIDER_CONFIG"}).status == 501


def test_whoever_asks_is_told_of_what_runs_by_then(shared_cluster, framework):
    """Askers share their looks at the containers, but none is answered by a look that began before it asked."""
    agent, stop, failed = shared_cluster.agents["agent"].address, threading.Event(), []

    def ask_all_the_time():
        while not stop.is_set():
            answer = web.get(agent, "/monitor/statistics")
            if answer.status != 200:
                failed.append(answer)

    askers = [threading.Thread(target=ask_all_the_time) for _ in range(6)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(8):
            task_id = framework.run_task("sleep 1000", cpus=0.1)
            told = [c["executor_id"]["value"] for c in shared_cluster.agent_operator("GET_CONTAINERS")["get_containers"]["containers"]]
            assert task_id in told
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert not failed


def test_pressure_is_told(shared_cluster, program):
    """More busy processes than CPUs: some of them always wait for one."""
    agent = shared_cluster.agents["agent"].address
    count = 1 + os.cpu_count()
    task = program(f"import subprocess\nfor n in range({count}): subprocess.Popen(['sh', '-c', 'while :; do :; done'])\nsay(done=True)", cpus=2)
    task.said()

    def mine():
        return next((c for c in web.get(agent, "/tepui/v1/pressure").json() if c["container_id"] == task.container_id), None)

    if not has_pressure():
        assert mine() is None
        return
    assert set(mine()) == {"container_id", "executor_id", "framework_id", "pressure"}
    assert set(mine()["pressure"]) == {"cpu", "io", "memory"}
    first, begin = mine()["pressure"]["cpu"]["some"]["total_secs"], time.monotonic()
    wait.until(lambda: mine()["pressure"]["cpu"]["some"]["total_secs"] > first + 0.2, 30, "the processes wait for CPUs")
    waited = mine()["pressure"]["cpu"]["some"]["total_secs"] - first
    assert waited <= time.monotonic() - begin + 0.5, "never longer than time itself"
    share = mine()["pressure"]["memory"]["full"]
    assert set(share) == {"avg10_percent", "avg60_percent", "avg300_percent", "total_secs"}


def test_figures_go_on_after_the_agent_was_killed(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(isolation=ISOLATION)
    framework = Framework(bare_cluster.master, checkpoint=True, failover_timeout=100.0)
    framework.subscribe()
    task = Program(bare_cluster, framework, "while time.process_time() < 0.5: pass\nsay(done=True)", mem=64)
    task.said()
    before = task.entry()
    bare_cluster.agents["agent"].kill9()
    bare_cluster.restart_agent()
    wait.until(lambda: web.get(bare_cluster.agents["agent"].address, "/containers").json(), 20, "the container is found again")
    after = task.entry()
    assert after["status"] == before["status"]
    assert set(after["statistics"]) == set(before["statistics"])
    for name in ("cpus_soft_limit", "mem_limit_bytes", "mem_soft_limit_bytes"):
        assert after["statistics"][name] == before["statistics"][name]
    burnt = lambda entry: sum(entry["statistics"][f"cpus_{name}_time_secs"] for name in ("user", "system"))  # noqa: E731
    assert burnt(after) >= burnt(before) > 0.45
    framework.disconnect()

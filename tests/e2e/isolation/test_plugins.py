"""Isolators of somebody else's making: the two examples at work, and plugins that die, hang, lie and come back."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from harness import leaks, wait
from harness.cluster import REPOSITORY, binary
from harness.framework import TERMINAL, Framework

EXAMPLES = os.path.join(REPOSITORY, "examples/isolators")
OBEDIENT = os.path.join(os.path.dirname(__file__), "plugins/obedient")
# What the default --isolation has, as far as it matters here.
ISOLATION = "cgroups/cpu,cgroups/mem,filesystem/linux,docker/runtime,namespaces/pid"


@pytest.fixture
def environment(modules):
    """That of an agent whose plugins are Python programs."""
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    return {"PYTHONPATH": modules, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


class Plugin:
    """A plugin that does what it is ordered to."""

    def __init__(self, directory):
        self.directory = directory

    def order(self, **orders):
        new = os.path.join(self.directory, "orders.test")
        with open(new, "w") as file:
            json.dump(orders, file)
        os.rename(new, os.path.join(self.directory, "orders"))

    def calls(self, name=None, container=None):
        """What it was told: all, or these calls, of this container."""
        try:
            with open(os.path.join(self.directory, "calls")) as file:
                all_calls = [json.loads(line) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []
        return [c for c in all_calls if name in (None, c["call"]) and (not container or container in json.dumps(c["request"]))]

    def wait_call(self, name, container=None, count=1):
        what = f"{name} is called {count} times{f' for {container}' if container else ''}"
        # Programs in Python take their time to start on a machine that is busy.
        return wait.until(lambda: len(found := self.calls(name, container)) >= count and found, 60, what)[-1]

    def wait_ready(self, count=1):
        """Watch is the last that an agent asks for when it connects."""
        return self.wait_call("Watch", count=count)["pid"]


@pytest.fixture
def plugin(bare_cluster):
    return Plugin(bare_cluster.directory("plugin"))


@pytest.fixture
def cluster(bare_cluster, plugin, environment):
    """An agent with a plugin that obeys."""
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(
        env={**environment, "PLUGIN_DIR": plugin.directory},
        isolation=ISOLATION,
        isolator_plugin=f"obedient={OBEDIENT}",
        isolator_plugin_timeout="recover=2secs,prepare=10secs,isolate=2secs,usage=500ms,status=500ms,exited=500ms,cleanup=500ms",
    )
    plugin.wait_ready()
    return bare_cluster


def container_of(framework, task_id):
    return framework.wait_state(task_id, "TASK_RUNNING")["container_status"]["container_id"]["value"]


def pid_of(cluster, container_id):
    containers = cluster.agent_operator("GET_CONTAINERS")["get_containers"].get("containers", [])
    return next(c["container_status"]["executor_pid"] for c in containers if c["container_id"]["value"] == container_id)


def label(key, value):
    return {"labels": {"labels": [{"key": key, "value": value}]}}


def assert_launch_failed(status, *words):
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED"), status
    assert all(word in status["message"] for word in words), status["message"]


def owed(cluster):
    """The containers that the plugin was told of and has not cleaned up."""
    return os.listdir(os.path.join(cluster.directory("agent"), "isolators/obedient/owed"))


# -- a plugin that dies, at each step


@pytest.mark.parametrize("step", ["Prepare", "Isolate"])
def test_a_plugin_killed_in_a_launch_fails_it_and_nothing_else(cluster, framework, plugin, step):
    other = framework.run_task("sleep 1000")
    pid = pid_of(cluster, container_of(framework, other))
    plugin.order(**{step: "die"})
    status = framework.wait_terminal(framework.run_task("sleep 1000", wait_until=()))
    assert_launch_failed(status, "isolator 'obedient' failed", f"{step.lower()}: the connection to the plugin broke")
    assert os.path.exists(f"/proc/{pid}"), "another container goes on"
    # It comes back, is told of the other, cleans up, and is of use again.
    plugin.wait_ready(2)
    wait.until(lambda: len(owed(cluster)) == 1, 20, "it has cleaned up after the launch that failed")
    framework.run_task("true", wait_until=("TASK_FINISHED",))
    assert os.path.exists(f"/proc/{pid}")
    framework.kill(other)
    assert framework.wait_terminal(other)["state"] == "TASK_KILLED"
    wait.until(lambda: not cluster.task_leftovers() and not owed(cluster), 20, "nothing is left")


def test_a_plugin_killed_while_it_takes_over_comes_again(cluster, framework, plugin):
    task_id = framework.run_task("sleep 1000")
    container = container_of(framework, task_id)
    pid = pid_of(cluster, container)
    plugin.order(Recover="die")
    os.kill(plugin.wait_ready(), signal.SIGKILL)
    plugin.wait_ready(2)
    recovered = plugin.calls("Recover", container)
    assert len({call["pid"] for call in recovered}) == 2, "the one that died, and the one after it"
    assert recovered[-1]["request"]["containers"][0]["pid"] == pid
    assert os.path.exists(f"/proc/{pid}")
    framework.kill(task_id)
    assert framework.wait_terminal(task_id)["state"] == "TASK_KILLED"
    wait.until(lambda: not cluster.task_leftovers() and not owed(cluster), 20, "nothing is left")


@pytest.mark.parametrize("step", ["Usage", "Status"])
def test_a_plugin_killed_while_it_is_asked_harms_nobody(cluster, framework, plugin, step):
    task_id = framework.run_task("sleep 1000")
    container = container_of(framework, task_id)
    plugin.order(**{step: "die"})
    pid = pid_of(cluster, container)
    plugin.wait_ready(2)
    assert plugin.wait_call("Recover", container)["request"]["containers"][0]["pid"] == pid
    assert pid_of(cluster, container) == pid
    framework.kill(task_id)
    assert framework.wait_terminal(task_id)["state"] == "TASK_KILLED"
    wait.until(lambda: not cluster.task_leftovers() and not owed(cluster), 20, "nothing is left")


@pytest.mark.parametrize("step", ["Exited", "Cleanup"])
def test_a_plugin_killed_at_the_end_does_not_hold_it_up(cluster, framework, plugin, step):
    plugin.order(**{step: "die"})
    task_id = framework.run_task("exit 3", wait_until=())
    status = framework.wait_terminal(task_id)
    assert status["state"] == "TASK_FAILED" and "status 3" in status["message"], status
    container = status["container_status"]["container_id"]["value"]
    plugin.wait_ready(2)
    wait.until(lambda: not owed(cluster), 20, "it cleans up once it is back")
    assert plugin.calls("Cleanup", container)
    wait.until(lambda: not cluster.task_leftovers(), 20, "nothing is left")


# -- one that hangs, lies, or is not what it says


@pytest.mark.parametrize("step", ["Prepare", "Isolate"])
def test_a_plugin_that_hangs_fails_the_launch(bare_cluster, plugin, environment, step):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(
        env={**environment, "PLUGIN_DIR": plugin.directory},
        isolation=ISOLATION,
        isolator_plugin=f"obedient={OBEDIENT}",
        isolator_plugin_timeout="1secs,handshake=10secs,recover=10secs",
    )
    plugin.wait_ready()
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    plugin.order(**{step: "hang"})
    status = framework.wait_terminal(framework.run_task("sleep 1000", wait_until=()))
    assert_launch_failed(status, "isolator 'obedient' failed", f"{step.lower()}: the plugin did not answer within 1secs")
    plugin.order()
    framework.run_task("true", wait_until=("TASK_FINISHED",))
    wait.until(lambda: not bare_cluster.task_leftovers() and not owed(bare_cluster), 20, "nothing is left")


@pytest.mark.parametrize(
    "order,words",
    [
        ("refuse", "prepare: the plugin refuses: as ordered"),
        ("garbage", "prepare: the plugin failed, or its answer is not understood"),
        ({"mounts": [{"source": "/usr", "target": "/proc/sys"}]}, "nothing may be mounted on /proc/sys"),
        ({"mounts": [{"source": "/no/such/source", "target": "x"}]}, "/no/such/source"),
        ({"mounts": [{"source": "usr", "target": "x"}]}, "not an absolute path"),
        ({"mounts": [{"source": "/usr", "target": "../../x"}]}, "'..'"),
        ({"environment": {"MESOS_TASK_ID": "another"}}, "MESOS_TASK_ID is the agent's to set"),
        ({"oci_spec": '{"root": {"path": "/"}}'}, "root of oci_spec is not among what a plugin may add"),
        ({"oom_score_adj": 5000}, "not between -1000 and 1000"),
        ({"throttles": [{"device": "0:1", "read_bps": 1}]}, "0:1 is no block device"),
    ],
)
def test_an_answer_that_cannot_be_fails_the_launch(cluster, framework, plugin, order, words):
    plugin.order(Prepare=order)
    status = framework.wait_terminal(framework.run_task("sleep 1000", wait_until=()))
    assert_launch_failed(status, "isolator 'obedient' failed: prepare: ", words)
    plugin.order()
    framework.run_task("true", wait_until=("TASK_FINISHED",))
    wait.until(lambda: not cluster.task_leftovers() and not owed(cluster), 20, "nothing is left")


def test_what_is_no_plugin_at_all_fails_launches(bare_cluster):
    """Somebody listens at the socket, and speaks HTTP/1."""
    path = os.path.join(bare_cluster.directory("socket"), "s")
    server = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent("""
            import socket, sys
            server = socket.socket(socket.AF_UNIX)
            server.bind(sys.argv[1])
            server.listen()
            connections = []
            while True:
                connections.append(server.accept()[0])
                connections[-1].sendall(b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n")
            """), path]
    )  # fmt: skip
    try:
        wait.until(lambda: os.path.exists(path), 10, "it listens")
        bare_cluster.start_coordinator()
        bare_cluster.start_agent(isolation=ISOLATION, isolator_plugin=f"web=unix://{path}", isolator_plugin_timeout="1secs")
        framework = Framework(bare_cluster.master)
        framework.subscribe()
        status = framework.wait_terminal(framework.run_task("sleep 1000", wait_until=()))
        assert_launch_failed(status, "isolator 'web' failed", "prepare: the plugin is away: handshake")
    finally:
        server.kill()
        server.wait()


def test_what_a_plugin_adds_is_there(cluster, framework, plugin):
    spec = {
        "process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 78}], "noNewPrivileges": True},
        "annotations": {"a": "b"},
    }
    plugin.order(
        Prepare={
            "environment": {"GIVEN": "by a plugin"},
            "mounts": [{"source": "/usr/share", "target": "share", "read_only": True}],
            "oom_score_adj": 321,
            "oci_spec": json.dumps(spec),
        },
        Usage={"statistics": {"timestamp": 1, "net_rx_bytes": 4711, "mem_limit_bytes": 1}},
    )
    script = 'test "$GIVEN" = "by a plugin" && test -n "$(ls share)" && ! touch share/x && test $(ulimit -n) = 77 && exec sleep 1000'
    task_id = framework.run_task(script)
    container = container_of(framework, task_id)
    pid = pid_of(cluster, container)
    with open(f"/proc/{pid}/oom_score_adj") as file:
        assert file.read().strip() == "321"
    with open(f"/proc/{pid}/status") as file:
        assert "NoNewPrivs:\t1" in file.read()
    usage = cluster.agent_operator("GET_CONTAINERS")["get_containers"]["containers"][0]["resource_statistics"]
    assert usage["net_rx_bytes"] == 4711
    assert usage["mem_limit_bytes"] == 32 << 20, "what the agent knows is not overwritten"
    isolated = plugin.calls("Isolate", container)[0]["request"]
    assert isolated["pid"] == pid
    assert all(os.path.isdir(folder) for folder in isolated["cgroups"].values()) and "memory" in isolated["cgroups"]
    assert framework.states(task_id)[-1] == "TASK_RUNNING"


def test_a_limitation_ends_the_task(cluster, framework, plugin):
    task_id = framework.run_task("sleep 1000")
    other = framework.run_task("sleep 1000")
    limitation = {
        "container_id": {"value": container_of(framework, task_id)},
        "message": "too many pages printed",
        "reason": "REASON_CONTAINER_LIMITATION_DISK",
    }
    plugin.order(Watch=limitation)
    status = framework.wait_terminal(task_id)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LIMITATION_DISK"), status
    assert "too many pages printed" in status["message"]
    assert framework.states(other)[-1] == "TASK_RUNNING"


# -- the agent goes, and comes back


def test_an_agent_that_is_killed_takes_its_plugin_along_and_tells_the_next(bare_cluster, plugin, environment):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(
        env={**environment, "PLUGIN_DIR": plugin.directory}, isolation=ISOLATION, isolator_plugin=f"obedient={OBEDIENT}"
    )
    first = plugin.wait_ready()
    framework = Framework(bare_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    ends, stays = framework.run_task("sleep 1000"), framework.run_task("sleep 1000")
    ended, staying = container_of(framework, ends), container_of(framework, stays)
    pid = pid_of(bare_cluster, staying)
    # The plugin cannot clean up after the one that ends, and neither can the agent see to it any more.
    plugin.order(Cleanup="refuse")
    framework.kill(ends)
    assert framework.wait_terminal(ends)["state"] == "TASK_KILLED"
    plugin.wait_call("Cleanup", ended)
    bare_cluster.agents["agent"].kill9()
    wait.until(lambda: not os.path.exists(f"/proc/{first}"), 10, "the plugin goes with its agent")
    plugin.order()
    bare_cluster.restart_agent()
    second = plugin.wait_ready(2)
    recovered = plugin.calls("Recover")[-1]["request"]
    assert [(c["container"]["container_id"]["value"], c["pid"]) for c in recovered["containers"]] == [(staying, pid)]
    assert [orphan["value"] for orphan in recovered["orphans"]] == [ended]
    wait.until(lambda: owed(bare_cluster) == [staying], 20, "it has cleaned up what was owed")
    assert os.path.exists(f"/proc/{pid}")
    framework.kill(stays)
    assert framework.wait_terminal(stays)["state"] == "TASK_KILLED"
    wait.until(lambda: not owed(bare_cluster) and not bare_cluster.task_leftovers(), 20, "nothing is left")
    # One that is told to stop ends its plugin, too.
    assert bare_cluster.agents["agent"].stop() == 0
    wait.until(lambda: not os.path.exists(f"/proc/{second}"), 10, "the plugin is ended")


def test_plugins_and_agents_killed_at_any_instant(bare_cluster, plugin, environment):
    """Each task gets a terminal update, and nothing is left, whoever dies when."""
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"SEED={seed}")
    dice = random.Random(seed)
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(
        env={**environment, "PLUGIN_DIR": plugin.directory}, isolation=ISOLATION, isolator_plugin=f"obedient={OBEDIENT}"
    )
    framework = Framework(bare_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    plugin.wait_ready()
    tasks, killed = [], []
    for _ in range(10):
        connected = len(plugin.calls("Watch"))
        tasks += [framework.run_task(dice.choice(["true", "sleep 0.1", "sleep 1000"]), wait_until=()) for _ in range(3)]
        time.sleep(dice.uniform(0, 0.3))  # Another instant of the launches each turn.
        killed.append(dice.choice(["agent", "plugin"]))
        if killed[-1] == "agent":
            bare_cluster.agents["agent"].kill9()
            bare_cluster.restart_agent()
        else:
            os.kill(plugin.calls("Watch")[-1]["pid"], signal.SIGKILL)
        plugin.wait_ready(connected + 1)
    for task_id in tasks:
        if not set(framework.states(task_id)) & TERMINAL:
            framework.kill(task_id)
    ends = [framework.wait_terminal(task_id, timeout=60)["state"] for task_id in tasks]
    print(f"killed {killed}; ends: { {end: ends.count(end) for end in set(ends)} }")
    wait.until(lambda: not owed(bare_cluster) and not bare_cluster.task_leftovers(), 30, "nothing is left")
    framework.run_task("true", wait_until=("TASK_FINISHED",))


def test_what_a_plugin_started_goes_with_it(bare_cluster, plugin, environment):
    """Processes that the plugin's program started, and that survive it, are ended before it is started again."""
    program = os.path.join(bare_cluster.directory("bin"), "plugin")
    with open(program, "w") as file:
        file.write(f"#!/bin/sh\nsetsid sleep 98765 &\nexec {OBEDIENT}\n")
    os.chmod(program, 0o755)
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(
        env={**environment, "PLUGIN_DIR": plugin.directory}, isolation=ISOLATION, isolator_plugin=f"obedient={program}"
    )

    def sleepers():
        return [pid for pid, command in leaks.processes(bare_cluster.mark).items() if "sleep 98765" in command]

    plugin.wait_ready()
    first = wait.until(sleepers, 10, "it has started something")
    bare_cluster.agents["agent"].kill9()
    bare_cluster.restart_agent()
    plugin.wait_ready(2)
    wait.until(lambda: len(sleepers()) == 1 and sleepers() != first, 10, "the first one is gone")
    bare_cluster.agents["agent"].stop()
    wait.until(lambda: not sleepers(), 10, "and the second, too")


def test_a_plugin_that_somebody_else_runs(bare_cluster, plugin, environment):
    path = os.path.join(bare_cluster.directory("socket"), "s")
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(isolation=f"{ISOLATION},obedient", isolator_plugin=f"obedient=unix://{path}")
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    task_id = framework.run_task("sleep 1000", wait_until=())
    own = {**os.environ, **environment, "PLUGIN_DIR": plugin.directory, "TEPUI_ISOLATOR_SOCKET": path}

    def run():
        return subprocess.Popen([OBEDIENT], env=own, stderr=subprocess.DEVNULL)

    process = run()
    try:
        framework.wait_state(task_id, "TASK_RUNNING")
        container = container_of(framework, task_id)
        process.kill()
        process.wait()
        other = framework.run_task("true", wait_until=())
        process = run()
        framework.wait_state(other, "TASK_FINISHED")
        assert plugin.calls("Recover", container), "it is told of the first"
        framework.kill(task_id)
        framework.wait_terminal(task_id)
        wait.until(lambda: not owed(bare_cluster), 20, "all is cleaned up")
    finally:
        process.kill()
        process.wait()


def test_its_words_are_in_the_log(cluster):
    wait.until(lambda: re.search(r"INFO.*a line of the plugin.*plugin=\W*obedient", re.sub(r"\x1b\[[\d;]*m", "", cluster.agents["agent"].log())), 10, "the line is there")  # fmt: skip


@pytest.mark.parametrize(
    "flags,words",
    [
        ({"isolator_plugin": "x=/no/such/program"}, "isolator 'x' cannot be set up: /no/such/program is not a program"),
        ({"isolator_plugin": "cgroups=/bin/true"}, "there is another isolator with the name 'cgroups'"),
        ({"isolator_plugin": "a/b=/bin/true"}, "'a/b' cannot be the name of a custom isolator"),
        ({"isolator_plugin": ["x=unix:///x", "x=unix:///y"]}, "there is another isolator with the name 'x'"),
        ({"isolator_plugin": "x"}, "NAME=/path/to/program"),
        ({"isolator_plugin_timeout": "prpare=1secs"}, "'prpare' is no call of a plugin"),
        ({"isolation": "cgroups/cpu,unheard-of", "isolator_plugin": "x=unix:///x"}, "'unheard-of' in --isolation is unknown"),
    ],
)
def test_flags_that_make_no_sense_are_refused(bare_cluster, flags, words):
    settings = {"master": "127.0.0.1:1", "ip": "127.0.0.1", "port": 0, "work_dir": bare_cluster.directory("w"), "runtime_dir": bare_cluster.directory("r"), "docker_store_dir": bare_cluster.directory("i"), "cgroups_root": bare_cluster.mark, **flags}  # fmt: skip
    words_of = [f"--{name}={one}" for name, value in settings.items() for one in (value if isinstance(value, list) else [value])]
    ended = subprocess.run([binary(), "agent", *words_of], capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0 and words in ended.stderr, ended.stderr


# -- the examples


def cpus_allowed(pid):
    with open(f"/proc/{pid}/status") as file:
        listed = re.search(r"^Cpus_allowed_list:\s*(\S+)", file.read(), re.MULTILINE).group(1)
    cores = set()
    for part in listed.split(","):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    return cores


def pinning_agent():
    """The agent of the example: beside the binary under test, or among what a virtual machine was given."""
    beside = os.path.dirname(binary())
    places = [os.path.join(beside, "tepui-agent-pinning"), os.path.join(beside, "added/tepui-agent-pinning")]
    found = [place for place in places if os.access(place, os.X_OK)]
    assert found, f"no {places[0]}: build it with --bin tepui-agent-pinning"
    return found[0]


@pytest.fixture
def pinning_cluster(bare_cluster):
    program = pinning_agent()
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has one core, and one always stays for tasks without any of their own")
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(program=[program], isolation=f"{ISOLATION},cpu-pinning")
    return bare_cluster


def test_tasks_have_cores_of_their_own(pinning_cluster):
    cluster, all_cores = pinning_cluster, os.sched_getaffinity(0)
    framework = Framework(cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    shared = pid_of(cluster, container_of(framework, framework.run_task("sleep 1000")))
    assert cpus_allowed(shared) == all_cores
    owner = framework.run_task("sleep 1000", **label("tepui.cpuset", "exclusive:1"))
    own = pid_of(cluster, container_of(framework, owner))
    assert len(cpus_allowed(own)) == 1
    assert cpus_allowed(shared) == all_cores - cpus_allowed(own), "the others lose them while they run"
    node = pid_of(cluster, container_of(framework, framework.run_task("sleep 1000", **label("tepui.cpuset", "numa:0"))))
    assert cpus_allowed(node) and not cpus_allowed(node) & cpus_allowed(own)
    print(f"own {cpus_allowed(own)}, shared {cpus_allowed(shared)}, node {cpus_allowed(node)}")

    # A restart of the agent forgets nothing.
    cluster.agents["agent"].kill9()
    cluster.restart_agent()
    count = len(all_cores)
    status = framework.wait_terminal(framework.run_task("true", wait_until=(), **label("tepui.cpuset", f"exclusive:{count}")))
    assert_launch_failed(status, "isolator 'cpu-pinning' failed", f"asks for {count} cores of its own", "1 of this agent's")
    assert cpus_allowed(shared) == all_cores - cpus_allowed(own)

    framework.kill(owner)
    framework.wait_terminal(owner)
    wait.until(lambda: cpus_allowed(shared) == all_cores, 10, "what is given back is everybody's again")
    again = framework.run_task("sleep 1000", **label("tepui.cpuset", "exclusive:1"))
    assert len(cpus_allowed(pid_of(cluster, container_of(framework, again)))) == 1


@pytest.mark.parametrize("value,words", [("exclusive:none", "is not understood"), ("numa:99", "this agent has the nodes")])
def test_cores_that_cannot_be_are_refused(pinning_cluster, value, words):
    framework = Framework(pinning_cluster.master)
    framework.subscribe()
    status = framework.wait_terminal(framework.run_task("true", wait_until=(), **label("tepui.cpuset", value)))
    assert_launch_failed(status, "isolator 'cpu-pinning' failed", words)
    wait.until(lambda: not pinning_cluster.task_leftovers(), 10, "nothing is left")


def test_pinning_is_off_unless_it_is_named(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(program=[pinning_agent()], isolation=ISOLATION)
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    task_id = framework.run_task("sleep 1000", **label("tepui.cpuset", "exclusive:1"))
    assert cpus_allowed(pid_of(bare_cluster, container_of(framework, task_id))) == os.sched_getaffinity(0)


MEGABYTE = 1000 * 1000
READ_BPS = 4 * MEGABYTE
SIZE = 8 * MEGABYTE


@pytest.fixture
def dataset_cluster(bare_cluster, environment):
    """The agent of the example, and a dataset of some megabytes."""
    datasets = bare_cluster.directory("datasets")
    for name in ("birds", "trees"):
        os.mkdir(os.path.join(datasets, name))
    path = os.path.join(datasets, "birds", "songs")
    with open(path, "wb") as file:
        file.write(os.urandom(SIZE))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(
        program=[os.path.join(EXAMPLES, "dataset/agent")],
        env={**environment, "TEPUI": binary(), "DATASETS": datasets, "DATASET_READ_BPS": str(READ_BPS)},
        isolation=ISOLATION,
    )
    return bare_cluster


def limitable(path):
    """Whether the file is on a disk whose reads the kernel can limit."""
    device = os.stat(path).st_dev
    return os.path.exists(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")


@pytest.mark.parametrize("root", ["host", "image"])
def test_a_dataset_is_there_read_only_and_its_reads_are_limited(dataset_cluster, images, root):
    if not limitable(dataset_cluster.base):
        pytest.skip(f"{dataset_cluster.base} is on no block device of this machine, so no limit can be set")
    framework = Framework(dataset_cluster.master)
    framework.subscribe()
    container = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}}
    more = {"container": container} if root == "image" else {}
    # Not through the page cache, and timed by the task itself; a write must fail.
    script = (
        'cd $MESOS_SANDBOX && test "$DATASET" = "$PWD/dataset" && ! touch dataset/x 2>/dev/null && date +%s.%N > begin'
        " && dd if=dataset/songs of=/dev/null bs=64k iflag=direct 2>/dev/null && date +%s.%N > end"
    )
    if root == "image":
        # busybox' date has no fractions.
        script = script.replace("date +%s.%N", "cut -d' ' -f1 /proc/uptime")
    task_id = framework.run_task(script, wait_until=(), **label("dataset", "birds"), **more)
    status = framework.wait_terminal(task_id, timeout=60)
    assert status["state"] == "TASK_FINISHED", status
    sandbox = next(f for f, _, names in os.walk(dataset_cluster.directory("agent")) if "begin" in names and "latest" not in f)
    begin, end = (float(open(os.path.join(sandbox, name)).read()) for name in ("begin", "end"))
    rate = SIZE / (end - begin) / MEGABYTE
    print(f"read {SIZE / MEGABYTE} MB in {end - begin:.2f} s: {rate:.2f} MB/s, limited to {READ_BPS / MEGABYTE} MB/s")
    assert rate < 1.5 * READ_BPS / MEGABYTE, "the kernel lets it read no faster"
    wait.until(lambda: not dataset_cluster.task_leftovers(), 10, "nothing is left")


def test_a_dataset_that_is_not_there_is_refused(dataset_cluster):
    framework = Framework(dataset_cluster.master)
    framework.subscribe()
    for name in ("fish", "..", "birds/songs", ""):
        status = framework.wait_terminal(framework.run_task("true", wait_until=(), **label("dataset", name)))
        words = f"prepare: the plugin refuses: there is no dataset '{name}'; there are: birds, trees"
        assert_launch_failed(status, "isolator 'dataset' failed", words)
    framework.run_task("! test -e dataset", wait_until=("TASK_FINISHED",))
    wait.until(lambda: not dataset_cluster.task_leftovers(), 10, "nothing is left")


# -- the page


def test_every_block_of_the_page_is_from_a_file_that_these_tests_run():
    with open(os.path.join(REPOSITORY, "docs/write-an-isolator.md")) as file:
        page = file.read()
    blocks = re.findall(r"^(?:<!-- from (\S+) -->\n)?```\w*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6 and page.count("```") == 2 * len(blocks)
    for path, block in blocks:
        assert path, f"says not where it is from:\n{block}"
        with open(os.path.join(REPOSITORY, path)) as file:
            assert block in file.read(), f"not in {path}:\n{block}"
    links = re.findall(r"\]\(([^)#:]+)\)", page)
    assert links and all(os.path.exists(os.path.join(REPOSITORY, "docs", link)) for link in links), links

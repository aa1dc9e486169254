"""What a task may do: capabilities, system calls, resource limits, shared memory, and whom it sees. The kernel is asked each
time: as root and as an ordinary user, on the host's root file system and on an image's."""

import ctypes
import json
import os
import shutil
import signal
import subprocess

import pytest

from harness import cluster as clusters
from harness import wait, web
from harness.framework import Framework

ISOLATION = "cgroups/cpu,cgroups/mem,filesystem/linux,docker/runtime,namespaces/pid,namespaces/ipc,posix/rlimits,linux/capabilities,linux/seccomp"
DEFAULT_PROFILE = os.path.join(clusters.REPOSITORY, "docs/seccomp/default.json")
EDQUOT, EPERM = 122, 1
ALL_CAPABILITIES = int(next(line for line in open("/proc/self/status") if line.startswith("CapBnd")).split()[1], 16)
SYS_RESOURCE = 1 << 24
NUMBERS = {"CHOWN": 0, "KILL": 5, "NET_RAW": 13, "SYS_CHROOT": 18, "SYS_ADMIN": 21, "MKNOD": 27}

users = pytest.mark.parametrize("user", ["root", "nobody"])


def errno_profile(*calls, **more):
    """All is allowed but these."""
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": list(calls), "action": "SCMP_ACT_ERRNO", **more}]}


PROFILES = {
    "no-mkdir.json": errno_profile("mkdir", "mkdirat", errnoRet=EDQUOT),
    "kills-mkdir.json": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    },
    "no-mkdir-32.json": {
        **errno_profile("mkdir", "mkdirat", errnoRet=EDQUOT),
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    },
    "no-exec.json": errno_profile("execve", "execveat"),
    "by-capability.json": errno_profile("mkdir", "mkdirat", excludes={"caps": ["CAP_SYS_ADMIN"]}),
    "wrong.json": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NONE"}]},
}


@pytest.fixture(scope="module")
def cluster(request):
    """Two agents: `agent` with all isolators of this file but one, `nnp` with that one."""
    made = clusters.Cluster(request.node.name)
    made.start_coordinator()
    profiles = made.directory("profiles")
    shutil.copy(DEFAULT_PROFILE, os.path.join(profiles, "default.json"))
    for name, profile in PROFILES.items():
        with open(os.path.join(profiles, name), "w") as file:
            json.dump(profile, file)
    more = {"seccomp_config_dir": profiles, "seccomp_profile_name": "default.json"}
    made.start_agent("agent", isolation=ISOLATION, default_container_shm_size="4MB", **more)
    made.start_agent("nnp", isolation=f"{ISOLATION},linux/nnp", **more)
    yield made
    made.close(request.session.testsfailed > 0)


@pytest.fixture
def framework(cluster):
    made = Framework(cluster.master)
    made.subscribe()
    yield made
    made.teardown()
    wait.until(lambda: not cluster.task_leftovers(), 20, "no process, mount or cgroup of a task is left")


class Outcome:
    """How a task ended, and what it wrote."""

    def __init__(self, cluster, framework, task_id, agent):
        self.status = framework.wait_terminal(task_id)
        self.state, self.message = self.status["state"], self.status.get("message", "")
        self._where = (cluster.agents[agent].address, f"/frameworks/{framework.id}/executors/{task_id}/runs/latest")

    def read(self, name):
        address, directory = self._where
        return web.get(address, f"/files/download?path={directory}/{name}").body.decode(errors="replace")

    @property
    def out(self):
        return self.read("stdout")

    @property
    def err(self):
        return self.read("stderr")


@pytest.fixture
def run(cluster, framework, images):
    """Runs a shell line to its end, as a user, on an image or not, with a LinuxInfo."""

    def go(line, user="root", image=False, linux=None, rlimits=None, agent="agent", nothing=False):
        info = {"type": "MESOS"}
        if linux is not None:
            info["linux_info"] = linux
        if image:
            info["mesos"] = {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}
        if rlimits is not None:
            info["rlimit_info"] = {"rlimits": rlimits}
        command = {"shell": True, "value": line, "user": user}
        container = {} if nothing else {"container": info}
        task_id = framework.run_task(command, wait_until=(), agent=cluster.agent_id(agent), **container)
        return Outcome(cluster, framework, task_id, agent)

    return go


def python(program):
    return f"/usr/bin/python3 -c '{program}'"


def in_reach(image):
    """Goes where every user may write: an image's working directory is root's, its shared memory everybody's."""
    return "cd /dev/shm && " if image else ""


def capabilities(*names):
    return {"capabilities": list(names)}


def bits(*names):
    return sum(1 << NUMBERS[name] for name in names)


def sets(outcome):
    """The capability sets in a /proc/<pid>/status."""
    assert outcome.state == "TASK_FINISHED", (outcome.status, outcome.err)
    lines = dict(line.split(":", 1) for line in outcome.out.splitlines() if ":" in line)
    return {name: int(lines[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}


# -- linux/capabilities

RAW_SOCKET = python("import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print(\"open\")")


@users
def test_a_raw_socket_takes_the_capability(run, user):
    without = run(RAW_SOCKET, user, linux={"effective_capabilities": capabilities("CHOWN")})
    assert without.state == "TASK_FAILED" and "PermissionError: [Errno 1]" in without.err, without.err
    with_it = run(RAW_SOCKET, user, linux={"effective_capabilities": capabilities("NET_RAW")})
    assert (with_it.state, with_it.out) == ("TASK_FINISHED", "open\n"), with_it.err


@pytest.mark.parametrize("image", [False, True])
@users
def test_chown_takes_the_capability(run, user, image):
    line = in_reach(image) + "echo > mine && busybox chown 4321 mine && busybox stat -c %u mine"
    without = run(line, user, image, {"effective_capabilities": capabilities()})
    assert without.state == "TASK_FAILED" and "Operation not permitted" in without.err, without.err
    with_it = run(line, user, image, {"effective_capabilities": capabilities("CHOWN", "FOWNER")})
    assert (with_it.state, with_it.out) == ("TASK_FINISHED", "4321\n"), with_it.err


@pytest.mark.parametrize("image", [False, True])
def test_mknod_takes_the_capability(run, image):
    line = in_reach(image) + "busybox mknod here c 1 3 && echo made"
    without = run(line, image=image, linux={"bounding_capabilities": capabilities("CHOWN", "DAC_OVERRIDE")})
    assert without.state == "TASK_FAILED" and "Operation not permitted" in without.err, without.err
    with_it = run(line, image=image, linux={"bounding_capabilities": capabilities("MKNOD", "DAC_OVERRIDE")})
    assert (with_it.state, with_it.out) == ("TASK_FINISHED", "made\n"), with_it.err


@pytest.mark.parametrize("agent", ["agent", "nnp"])
@pytest.mark.parametrize("image", [False, True])
def test_the_sets_are_what_was_asked_for(run, image, agent):
    line, ordinary = "cat /proc/self/status", "nobody"

    def sets_of(user, **linux):
        return sets(run(line, user, image, {name: capabilities(*of) for name, of in linux.items()}, agent=agent))

    raw, both = bits("NET_RAW"), bits("NET_RAW", "CHOWN")
    asked = {"effective_capabilities": ["NET_RAW"], "bounding_capabilities": ["NET_RAW", "CHOWN"]}
    assert sets_of(ordinary, **asked) == {"Inh": both, "Prm": raw, "Eff": raw, "Bnd": both, "Amb": raw}
    # The kernel gives root all of its bounding set at an exec; no_new_privs holds it to what it has.
    root = raw if agent == "nnp" else both
    assert sets_of("root", **asked) == {"Inh": both, "Prm": root, "Eff": root, "Bnd": both, "Amb": raw}
    only = {"bounding_capabilities": ["CHOWN"]}
    one = bits("CHOWN")
    assert sets_of("root", **only) == {"Inh": one, "Prm": one, "Eff": one, "Bnd": one, "Amb": 0}
    assert sets_of(ordinary, **only) == {"Inh": one, "Prm": 0, "Eff": 0, "Bnd": one, "Amb": 0}
    assert sets_of("root", capability_info=["NET_RAW"]) == {"Inh": raw, "Prm": raw, "Eff": raw, "Bnd": raw, "Amb": raw}
    assert sets_of("root", effective_capabilities=[]) == dict.fromkeys(("Inh", "Prm", "Eff", "Bnd", "Amb"), 0)
    every = {"Inh": 0, "Prm": ALL_CAPABILITIES, "Eff": ALL_CAPABILITIES, "Bnd": ALL_CAPABILITIES, "Amb": 0}
    assert sets_of("root") == every
    assert sets_of(ordinary) == {**every, "Prm": 0, "Eff": 0}


def test_a_container_s_init_has_no_more_than_its_program(run):
    """A program that traces its init must not win by it: only to end the program may it have one more."""
    outcome = run("cat /proc/1/status", linux={"effective_capabilities": capabilities("NET_RAW", "SYS_PTRACE")})
    allowed = bits("NET_RAW", "KILL") | 1 << 19
    assert sets(outcome)["Prm"] & ~allowed == 0 and "Seccomp:\t2" in outcome.out, outcome.out


@pytest.mark.parametrize("agent", ["agent", "nnp"])
@users
def test_a_task_with_other_capabilities_ends_with_its_shim(cluster, framework, user, agent):
    """The kernel forgets the wish to end with the parent when an exec gives more than the process had."""
    sets = {"effective_capabilities": capabilities("NET_RAW"), "bounding_capabilities": capabilities("NET_RAW", "CHOWN")}
    info = {"type": "MESOS", "linux_info": {**sets, "share_pid_namespace": True}}
    command = {"shell": True, "value": "exec sleep 1013", "user": user}
    task_id = framework.run_task(command, container=info, agent=cluster.agent_id(agent))
    containers = cluster.agent_operator("GET_CONTAINERS", agent)["get_containers"]["containers"]
    mine = next(one for one in containers if one["executor_id"]["value"] == task_id)
    pid = mine["container_status"]["executor_pid"]
    wait.until(lambda: b"sleep" in open(f"/proc/{pid}/cmdline", "rb").read(), 10, "the program is executed")
    with open(f"/proc/{pid}/stat") as file:
        shim = int(file.read().rsplit(")", 1)[1].split()[1])
    # Nobody but the kernel shall see to it.
    os.kill(cluster.agents[agent].pid, signal.SIGSTOP)
    try:
        os.kill(shim, signal.SIGKILL)
        wait.until(lambda: not os.path.exists(f"/proc/{pid}"), 10, "the program ended with its shim")
    finally:
        os.kill(cluster.agents[agent].pid, signal.SIGCONT)
    assert framework.wait_terminal(task_id)["state"] == "TASK_FAILED"


def test_a_capability_beyond_the_bounds_is_refused(run):
    linux = {"effective_capabilities": capabilities("CHOWN"), "bounding_capabilities": capabilities("KILL")}
    outcome = run("true", linux=linux)
    assert outcome.state == "TASK_FAILED" and "only KILL are allowed" in outcome.message, outcome.status
    both = {"effective_capabilities": capabilities("KILL"), "capability_info": capabilities("KILL")}
    assert "only one of 'capability_info' and" in run("true", linux=both).message


def test_the_operator_decides_for_tasks_that_ask_for_nothing(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(
        isolation="filesystem/linux,linux/capabilities",
        allowed_capabilities=json.dumps(capabilities("CHOWN")),
        bounding_capabilities=json.dumps(capabilities("CHOWN", "NET_RAW")),
    )
    framework = Framework(bare_cluster.master)
    framework.subscribe()

    def ends(linux):
        info = {"type": "MESOS", "linux_info": linux}
        task_id = framework.run_task({"shell": True, "value": "cat /proc/self/status", "user": "nobody"}, wait_until=(), container=info)
        return Outcome(bare_cluster, framework, task_id, "agent")

    default = sets(ends({}))
    assert (default["Eff"], default["Bnd"]) == (bits("CHOWN"), bits("CHOWN", "NET_RAW"))
    assert sets(ends({"effective_capabilities": capabilities("NET_RAW")}))["Eff"] == bits("NET_RAW")
    beyond = ends({"effective_capabilities": capabilities("SYS_ADMIN")})
    assert "effective capabilities SYS_ADMIN, of which only CHOWN, NET_RAW are allowed" in beyond.message, beyond.status
    framework.teardown()


# -- linux/seccomp


def seccomp(name):
    return {"seccomp": {"profile_name": name}}


@pytest.mark.parametrize("image", [False, True])
@users
def test_a_forbidden_call_gets_the_profile_s_errno(run, user, image):
    outcome = run(f"cat /proc/self/status; {in_reach(image)}busybox mkdir there", user, image, seccomp("no-mkdir.json"))
    assert outcome.state == "TASK_FAILED" and "Disk quota exceeded" in outcome.err, outcome.err
    assert "Seccomp:\t2" in outcome.out and "NoNewPrivs:\t0" in outcome.out, outcome.out
    assert run(f"{in_reach(image)}busybox mkdir there", user, image).state == "TASK_FINISHED"


@pytest.mark.parametrize("agent", ["agent", "nnp"])
@pytest.mark.parametrize("image", [False, True])
@users
def test_a_call_that_is_not_survived(run, user, image, agent):
    outcome = run("exec busybox mkdir there", user, image, seccomp("kills-mkdir.json"), agent=agent)
    assert outcome.state == "TASK_FAILED" and "terminated with signal Bad system call" in outcome.message, outcome.status


def test_a_filter_without_the_capability_to_install_it(run):
    """The filter is installed while the privilege is there; the program has none of it."""
    linux = {**seccomp("no-mkdir.json"), "effective_capabilities": capabilities()}
    for user in ("root", "nobody"):
        outcome = run("cat /proc/self/status; busybox mkdir there", user, linux=linux)
        assert "Disk quota exceeded" in outcome.err and "CapEff:\t0000000000000000" in outcome.out, outcome.err


def test_rules_go_by_the_container_s_capabilities(run):
    linux = {**seccomp("by-capability.json"), "bounding_capabilities": capabilities("CHOWN", "DAC_OVERRIDE")}
    outcome = run("busybox mkdir there", linux=linux)
    assert outcome.state == "TASK_FAILED" and "Operation not permitted" in outcome.err, outcome.err
    assert run("busybox mkdir there", linux=seccomp("by-capability.json")).state == "TASK_FINISHED"


# mkdir has the number 39 in the 32-bit ABI, which a 64-bit program reaches so.
THIRTY_TWO = """#include <stdio.h>
int main(void) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(39), "b"("there"), "c"(0755) : "memory");
    printf("%ld\\n", result);
    return 0;
}
"""


def test_the_other_abi_is_no_way_round(cluster, run):
    program = os.path.join(cluster.base, "thirty-two")
    subprocess.run(["cc", "-no-pie", "-static", "-o", program, "-x", "c", "-"], input=THIRTY_TWO, text=True, check=True)
    free = run(program, linux={"seccomp": {"unconfined": True}})
    if free.out != "0\n":
        pytest.skip(f"this kernel takes no 32-bit calls: {free.message}")
    assert run(program, linux=seccomp("no-mkdir-32.json")).out == f"-{EDQUOT}\n"
    not_named = run(f"exec {program}", linux=seccomp("no-mkdir.json"))
    assert "Bad system call" in not_named.message, "an architecture that the profile does not name"


ADD_KEY = python("import ctypes; c = ctypes.CDLL(None, use_errno=True); r = c.syscall(248, b\"user\", b\"tepui\", b\"x\", 1, -2); print(\"key\" if r > 0 else ctypes.get_errno())")  # fmt: skip


@users
def test_the_profile_that_comes_with_tepui(run, user):
    """It lets ordinary programs be, and keeps them from what is the host's; a task may ask to be without."""
    assert os.uname().machine == "x86_64", "the number of add_key is that of x86-64"
    assert run(ADD_KEY, user).out == f"{EPERM}\n"
    assert run(ADD_KEY, user, linux={"seccomp": {"unconfined": True}}).out == "key\n"
    script = "import threading, subprocess, socket, tempfile, select; t = threading.Thread(target=print, args=[1]); t.start(); t.join(); print(subprocess.run([\"id\", \"-u\"], capture_output=True).stdout)"
    assert run(python(script), user).state == "TASK_FINISHED"
    unshare = run("unshare --user true", user, linux={"bounding_capabilities": capabilities("CHOWN")})
    assert unshare.state == "TASK_FAILED" and "Operation not permitted" in unshare.err, unshare.err


def test_what_is_wrong_with_a_profile_is_told(run):
    for linux, words in [
        (seccomp("absent.json"), "absent.json cannot be read"),
        (seccomp("wrong.json"), "syscalls[0].action: unknown variant `SCMP_ACT_NONE`"),
        (seccomp("../../etc/passwd"), "not below --seccomp_config_dir"),
        ({"seccomp": {"profile_name": "no-mkdir.json", "unconfined": True}}, "together with"),
        ({"seccomp": {}}, "needs a 'profile_name'"),
    ]:
        outcome = run("true", linux=linux)
        assert outcome.state == "TASK_FAILED" and words in outcome.message, (linux, outcome.status)
    exec_denied = run("true", linux=seccomp("no-exec.json"))
    assert exec_denied.state == "TASK_FAILED" and "Operation not permitted" in exec_denied.err, exec_denied.err


@pytest.mark.parametrize(
    "flags,words",
    [
        ([], "needs --seccomp_config_dir"),
        (["--seccomp_config_dir={profiles}", "--seccomp_profile_name=wrong.json"], "unknown variant `SCMP_ACT_NONE`"),
        (["--seccomp_config_dir={profiles}/absent"], "is not a directory"),
    ],
)
def test_an_agent_with_a_wrong_profile_does_not_start(cluster, flags, words):
    flags = [flag.format(profiles=cluster.directory("profiles")) for flag in flags]
    base = ["--master=127.0.0.1:1", "--ip=127.0.0.1", "--port=0", f"--work_dir={cluster.directory('unborn')}", f"--runtime_dir={cluster.directory('unborn-runtime')}"]  # fmt: skip
    words_of_agent = [clusters.binary(), "agent", *base, "--isolation=filesystem/linux,linux/seccomp", *flags]
    done = subprocess.run(words_of_agent, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and words in done.stderr, done.stderr[-2000:]


# -- linux/nnp


def test_a_set_user_id_program_gains_nothing(cluster, run):
    program = os.path.join(cluster.base, "whoami")
    shutil.copy("/usr/bin/id", program)
    os.chmod(program, 0o4755)
    assert run(f"{program} -u", "nobody").out == "0\n", "without the isolator it does"
    assert run(f"{program} -u", "nobody", agent="nnp").out == "65534\n"
    for user in ("root", "nobody"):
        assert "NoNewPrivs:\t1" in run("cat /proc/self/status /proc/1/status", user, agent="nnp", nothing=True).out


# -- posix/rlimits


def rlimit(name, soft=None, hard=None):
    return {"type": f"RLMT_{name}", **({} if soft is None else {"soft": soft}), **({} if hard is None else {"hard": hard})}


@users
def test_open_files_are_limited(run, user):
    script = "import itertools, os; n = 0\ntry:\n  while True: os.open(\"/\", 0); n += 1\nexcept OSError as e: print(e.errno, n)"
    outcome = run(python(script), user, rlimits=[rlimit("NOFILE", 40, 50)])
    assert outcome.out, outcome.err
    errno, opened = map(int, outcome.out.split())
    assert errno == 24 and 30 <= opened < 40, (errno, opened)
    assert run("ulimit -Sn; ulimit -Hn", user, rlimits=[rlimit("NOFILE", 40, 50)]).out == "40\n50\n"


@pytest.mark.parametrize("image", [False, True])
def test_a_file_cannot_grow_over_its_limit(run, image):
    line = in_reach(image) + "busybox dd if=/dev/zero of=big bs=1024 count=100 2>/dev/null; busybox stat -c %s big; exec busybox dd if=/dev/zero of=big bs=1024 count=100"
    outcome = run(line, image=image, rlimits=[rlimit("FSIZE", 65536, 65536)])
    assert "65536\n" in outcome.out and "File size limit exceeded" in outcome.message, (outcome.out, outcome.status)


def test_processes_of_a_user_are_limited(run, cluster):
    """The limit counts all processes of the user on the machine, so it is a user of which nobody else has any."""
    script = "import os, time; n = 0\ntry:\n  while n < 200:\n    if os.fork() == 0: time.sleep(100)\n    n += 1\nexcept OSError as e: print(e.errno, n, flush=True)"
    outcome = run(python(script), "games", rlimits=[rlimit("NPROC", 20, 20)])
    assert outcome.out, outcome.err
    errno, forked = map(int, outcome.out.split())
    assert errno == 11 and 10 <= forked <= 20, (errno, forked)
    wait.until(lambda: not cluster.task_leftovers(), 10, "the forked ones are gone")


def test_core_files_are_limited(run):
    with open("/proc/sys/kernel/core_pattern") as file:
        pattern = file.read().strip()
    if "/" in pattern or "|" in pattern:
        pytest.skip(f"core files do not go to the working directory on this machine: core_pattern is {pattern}")
    line = "busybox sh -c 'kill -ABRT $$'; ls"
    assert "core" not in run(line, rlimits=[rlimit("CORE", 0, 0)]).out
    assert "core" in run(line, rlimits=[rlimit("CORE")]).out, "without a limit there is one"


def limits(run, asked):
    """The soft and the hard limits of a task of an ordinary user."""
    outcome = run("cat /proc/self/limits", "nobody", rlimits=asked)
    assert outcome.state == "TASK_FINISHED", (outcome.status, outcome.err)
    return {line[:25].strip(): line[25:].split()[:2] for line in outcome.out.splitlines()}


def test_limits_are_lifted_for_a_user_who_may_not_lift_them(run):
    """Above the agent's own, or without any: the user of the task could not raise them."""
    if not ALL_CAPABILITIES & SYS_RESOURCE:
        pytest.skip("root may not raise limits on this machine: it has no CAP_SYS_RESOURCE")
    got = limits(run, [rlimit("MEMLOCK"), rlimit("MSGQUEUE", 10_000_000, 20_000_000)])
    assert got["Max locked memory"] == ["unlimited", "unlimited"], got
    assert got["Max msgqueue size"] == ["10000000", "20000000"], got


def test_every_type_of_limit_is_set(run):
    """Each below the agent's own, but for one that is lifted by its second, which counts."""
    asked = {
        "CPU": ("cpu time", 900), "FSIZE": ("file size", 1 << 30), "DATA": ("data size", 1 << 32), "STACK": ("stack size", 1 << 22),
        "RSS": ("resident set", 1 << 40), "NPROC": ("processes", 300), "NOFILE": ("open files", 300), "MEMLOCK": ("locked memory", 4096),
        "AS": ("address space", 1 << 35), "LOCKS": ("file locks", 7), "SIGPENDING": ("pending signals", 8), "MSGQUEUE": ("msgqueue size", 9),
        "NICE": ("nice priority", 0), "RTPRIO": ("realtime priority", 0), "RTTIME": ("realtime timeout", 10_000),
    }  # fmt: skip
    core = [rlimit("CORE", 1, 1), rlimit("CORE")]
    got = limits(run, [rlimit(name, value, value) for name, (_, value) in asked.items()] + core)
    assert got["Max core file size"] == ["unlimited", "unlimited"], got
    for name, value in asked.values():
        assert got[f"Max {name}"] == [str(value)] * 2, (name, got)


def test_limits_that_cannot_be_are_refused(run):
    for limit, words in [
        (rlimit("NOFILE", 10), "RLMT_NOFILE: give both 'soft' and 'hard'"),
        (rlimit("CPU", 20, 10), "the soft limit 20 is above the hard limit 10"),
        ({"soft": 1, "hard": 1}, "no type"),
        (rlimit("NOFILE", 1 << 40, 1 << 40), "RLIMIT_NOFILE cannot be raised to"),
    ]:
        outcome = run("true", rlimits=[limit])
        assert outcome.state == "TASK_FAILED" and words in outcome.message, (limit, outcome.status)


# -- namespaces/ipc and namespaces/pid


@pytest.fixture
def queue():
    """A message queue in the host's IPC namespace, and a file in its shared memory; their id and path."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.msgget(0, 0o666 | 0o1000)
    assert made >= 0, ctypes.get_errno()
    path = f"/dev/shm/tepui-test-{os.getpid()}"
    open(path, "w").close()
    os.chmod(path, 0o644)
    yield made, path
    os.unlink(path)
    libc.msgctl(made, 0, None)


SEES = "busybox awk 'NR > 1 {{print $2}}' /proc/sysvipc/msg | busybox grep -qx {queue} && echo queue; test -e {path} && echo file; busybox df -k /dev/shm | busybox awk 'END {{print $2}}'"


@pytest.mark.parametrize("image", [False, True])
@users
def test_who_shares_memory_with_the_host(run, queue, user, image):
    line = SEES.format(queue=queue[0], path=queue[1])

    def seen(**linux):
        outcome = run(line, user, image, linux)
        assert outcome.state == "TASK_FINISHED", outcome.err
        *things, size = outcome.out.split()
        return things, int(size)

    host = os.statvfs("/dev/shm")
    host_size = host.f_blocks * host.f_frsize // 1024
    assert seen(ipc_mode="SHARE_PARENT") == (["queue", "file"], host_size)
    assert seen(ipc_mode="PRIVATE", shm_size=8) == ([], 8 * 1024)
    assert seen(ipc_mode="PRIVATE") == ([], 4 * 1024), "--default_container_shm_size"
    assert seen() == (([], 4 * 1024) if image else (["file"], host_size))


@pytest.mark.parametrize("image", [False, True])
def test_shared_memory_has_the_size_that_was_asked_for(run, image):
    line = "busybox dd if=/dev/zero of=/dev/shm/big bs=1024k count=3 && busybox dd if=/dev/zero of=/dev/shm/big bs=1024k count=9"
    outcome = run(line, "nobody", image, {"ipc_mode": "PRIVATE", "shm_size": 6})
    assert outcome.state == "TASK_FAILED" and "No space left on device" in outcome.err, outcome.err
    assert "3+0 records out" in outcome.err and not os.path.exists("/dev/shm/big")


def test_sizes_without_memory_of_one_s_own_are_refused(run):
    assert "only be set when ipc_mode is PRIVATE" in run("true", linux={"shm_size": 1}).message
    assert "only be set" in run("true", linux={"shm_size": 1, "ipc_mode": "SHARE_PARENT"}).message


@pytest.mark.parametrize("image", [False, True])
@users
def test_whom_a_task_sees(run, cluster, user, image):
    line = f"test -d /proc/{os.getpid()} && echo the test; ls -d /proc/[0-9]* | busybox wc -l"
    own = run(line, user, image).out.splitlines()
    assert len(own) == 1 and int(own[0]) < 10, own
    shared = run(line, user, image, {"share_pid_namespace": True}).out.splitlines()
    assert shared[0] == "the test" and int(shared[1]) > 10, shared


def test_what_a_task_leaves_in_the_host_s_namespace_is_ended(run, cluster):
    outcome = run("setsid sleep 1007 & setsid sleep 1007 & sleep 0.1", linux={"share_pid_namespace": True})
    assert outcome.state == "TASK_FINISHED"
    wait.until(lambda: not cluster.task_leftovers(), 10, "nothing is left of it")


def test_the_operator_may_forbid_to_share(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(
        isolation="filesystem/linux,namespaces/pid,namespaces/ipc",
        disallow_sharing_agent_pid_namespace=True,
        disallow_sharing_agent_ipc_namespace=True,
    )
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    for linux, word in [({"share_pid_namespace": True}, "pid"), ({"ipc_mode": "SHARE_PARENT"}, "ipc")]:
        task_id = framework.run_task("true", wait_until=(), container={"type": "MESOS", "linux_info": linux})
        status = framework.wait_terminal(task_id)
        assert status["state"] == "TASK_FAILED" and f"--disallow_sharing_agent_{word}_namespace forbids" in status["message"], status
    framework.teardown()


def test_what_no_isolator_sees_to_is_refused(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(isolation="filesystem/linux")
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    for info, name in [
        ({"rlimit_info": {"rlimits": [rlimit("CORE", 0, 0)]}}, "posix/rlimits"),
        ({"linux_info": {"effective_capabilities": capabilities()}}, "linux/capabilities"),
        ({"linux_info": seccomp("x.json")}, "linux/seccomp"),
        ({"linux_info": {"ipc_mode": "PRIVATE"}}, "namespaces/ipc"),
        ({"linux_info": {"share_pid_namespace": True}}, "namespaces/pid"),
    ]:
        task_id = framework.run_task("true", wait_until=(), container={"type": "MESOS", **info})
        status = framework.wait_terminal(task_id)
        assert status["state"] != "TASK_FINISHED" and name in status["message"], status
    framework.teardown()


# -- gpu/nvidia


def test_an_agent_without_a_gpu_says_so(bare_cluster):
    if os.path.exists("/proc/driver/nvidia/gpus"):
        pytest.skip("this machine has a GPU")
    words = [
        clusters.binary(), "agent", "--master=127.0.0.1:1", "--ip=127.0.0.1", "--port=0", f"--work_dir={bare_cluster.directory('w')}",
        f"--runtime_dir={bare_cluster.directory('r')}", f"--cgroups_root={bare_cluster.mark}-x",
        "--isolation=filesystem/linux,cgroups/devices,gpu/nvidia",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "gpu/nvidia" in done.stderr and "NVIDIA GPU" in done.stderr, done.stderr[-2000:]
    done = subprocess.run([*words[:-1], "--nvidia_gpu_devices=0"], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "add it to --isolation" in done.stderr, done.stderr[-2000:]

"""Flags: Mesos' names and forms, the environment, a TOML file; and what is said of those that are not known."""

import os
import subprocess

import pytest

from harness import web
from harness.cluster import binary
from harness.daemon import Daemon

PARTS = ["coordinator", "agent"]


def refused(part, *words, env=None):
    done = subprocess.run([binary(), part, *words], capture_output=True, text=True, timeout=20, env={**os.environ, **(env or {})})
    assert done.returncode != 0, done
    return done.stderr


@pytest.mark.parametrize("part", PARTS)
def test_an_unknown_flag(part):
    assert "no_such_flag" in refused(part, "--work_dir=/nonexistent", "--no_such_flag=1").replace("-", "_")
    assert "--work_dir" in refused(part, "--work_dri=/nonexistent"), "a near name is proposed"


@pytest.mark.parametrize("part,flag", [("coordinator", "webui_dir"), ("agent", "qos_controller")])
def test_a_flag_of_mesos_that_is_not_there(part, flag):
    message = refused(part, f"--{flag}=x")
    assert flag in message and "not implement" in message.lower(), message


@pytest.mark.parametrize("part", PARTS)
def test_the_work_dir_is_needed(part):
    assert "work_dir" in refused(part, *(["--master=127.0.0.1:1"] if part == "agent" else []))


def test_the_agent_needs_its_master(bare_cluster):
    assert "master" in refused("agent", f"--work_dir={bare_cluster.directory('agent')}")


def flags_of(address):
    flags = web.operator(address, "GET_FLAGS")["get_flags"]["flags"]
    return {flag["name"]: flag.get("value") for flag in flags}


def start(cluster, words, env=None):
    """A coordinator with these very words."""
    daemon = RawDaemon(cluster, words, env)
    cluster._ended.append(daemon)
    return daemon.wait_listening()


class RawDaemon(Daemon):
    """Started with words as they are, rather than from settings."""

    def __init__(self, cluster, words, env):
        log = os.path.join(cluster.base, f"raw-{len(cluster._ended)}.log")
        self._words = words
        super().__init__(binary(), "coordinator", {}, log, env)

    @property
    def args(self):
        return [binary(), "coordinator", *self._words]

    @args.setter
    def args(self, _):
        pass


@pytest.mark.parametrize("form", ["--cluster=here", "--cluster here", "--clus-ter"])
def test_forms_of_a_flag(bare_cluster, form):
    words = form.split(" ") if form != "--clus-ter" else ["--cluster=here", "--agent-ping-timeout=20secs"]
    base = [f"--work-dir={bare_cluster.directory('c')}", "--ip", "127.0.0.1", "--port=0"]
    flags = flags_of(start(bare_cluster, base + words).address)
    assert flags["cluster"] == "here" and flags["work_dir"] == bare_cluster.directory("c")


def test_the_environment_and_the_file_and_which_wins(bare_cluster):
    config = os.path.join(bare_cluster.base, "coordinator.toml")
    with open(config, "w") as file:
        file.write(f'work_dir = "{bare_cluster.directory("c")}"\ncluster = "file"\nport = 0\nmax-completed-frameworks = 7\n')
    words = [f"--config={config}", "--ip=127.0.0.1"]
    assert flags_of(start(bare_cluster, words).address)["cluster"] == "file"
    bare_cluster._ended[-1].stop()
    from_env = flags_of(start(bare_cluster, words, {"TEPUI_CLUSTER": "env"}).address)
    assert from_env["cluster"] == "env" and from_env["max_completed_frameworks"] == "7"
    bare_cluster._ended[-1].stop()
    assert flags_of(start(bare_cluster, [*words, "--cluster=line"], {"TEPUI_CLUSTER": "env"}).address)["cluster"] == "line"


def test_a_mistake_in_the_file_is_named(bare_cluster):
    config = os.path.join(bare_cluster.base, "bad.toml")
    with open(config, "w") as file:
        file.write('no_such_flag = "x"\n')
    assert "no_such_flag" in refused("coordinator", f"--config={config}").replace("-", "_")


@pytest.mark.parametrize("part,flag,value", [("coordinator", "port", "many"), ("agent", "resources", "cpus:many"), ("agent", "isolation", "no/such/isolator"), ("coordinator", "allocation_interval", "5parsecs")])  # fmt: skip
def test_a_value_that_cannot_be(bare_cluster, part, flag, value):
    words = [f"--work_dir={bare_cluster.directory('x')}", f"--{flag}={value}"]
    words += ["--master=127.0.0.1:1", f"--runtime_dir={bare_cluster.directory('r')}"] if part == "agent" else []
    assert flag in refused(part, *words)


def test_both_names_of_the_master(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent()
    other = {
        "coordinator": bare_cluster.master, "ip": "127.0.0.1", "port": 0, "work_dir": bare_cluster.directory("second"),
        "runtime_dir": bare_cluster.directory("second-runtime"), "cgroups_root": f"{bare_cluster.mark}-second",
    }  # fmt: skip
    daemon = Daemon(binary(), "agent", other, os.path.join(bare_cluster.base, "second.log"))
    bare_cluster.agents["second"] = daemon
    bare_cluster._ended.append(daemon)
    daemon.wait_listening()
    from harness import wait

    wait.until(lambda: bare_cluster.is_registered(daemon), 15, "it registered")


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["coordinator", "--help"], ["agent", "--help"], ["--version"]])
def test_help(words):
    done = subprocess.run([binary(), *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and done.stdout.strip(), done


def test_without_root_it_says_what_it_needs(bare_cluster):
    """A stranger's first try is often without sudo."""
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    home = bare_cluster.directory("home")
    os.chmod(home, 0o777)
    copy = os.path.join(bare_cluster.base, "tepui")  # The target directory is root's own.
    subprocess.run(["cp", binary(), copy], check=True)
    env = {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home}
    done = subprocess.run([*drop, copy, "run", "--", "true"], capture_output=True, text=True, timeout=20, env=env)
    assert done.returncode != 0 and "root" in done.stderr, done


def test_a_port_that_is_taken(bare_cluster):
    coordinator = bare_cluster.start_coordinator()
    words = [f"--work_dir={bare_cluster.directory('other')}", "--ip=127.0.0.1", f"--port={coordinator.port}"]
    assert str(coordinator.port) in refused("coordinator", *words)


def test_a_work_dir_is_one_daemons(bare_cluster):
    """Two coordinators on one registry would lose each other's writes."""
    bare_cluster.start_coordinator()
    words = [f"--work_dir={bare_cluster.directory('coordinator')}", "--ip=127.0.0.1", "--port=0"]
    assert refused("coordinator", *words)

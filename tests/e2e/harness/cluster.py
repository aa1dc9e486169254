"""A coordinator and agents of one test, each with its own directories, and the end of them."""

import os
import shutil
import subprocess
import sys
import tempfile
import uuid

from . import leaks, trees, wait, web
from .daemon import Daemon

REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))


def binary():
    """The binary under test: $TEPUI_BIN, or what `tests/run` has built."""
    path = os.environ.get("TEPUI_BIN")
    if not path:
        target = os.environ.get("CARGO_TARGET_DIR", os.path.join(REPOSITORY, "target"))
        path = os.path.join(target, "checked", "tepui")
    assert os.access(path, os.X_OK), f"no binary at {path}: run tests/run, or set TEPUI_BIN"
    return path


class Cluster:
    """Starts daemons and forgets none of them. `mark` is in every path and cgroup name it gives out."""

    def __init__(self, label):
        self.mark = f"tepui-test-{uuid.uuid4().hex[:10]}"
        # Not below /tmp: a task has a /tmp of its own, and these tests share files with tasks.
        self.base = tempfile.mkdtemp(prefix=f"{self.mark}-", dir="/var/tmp")
        os.chmod(self.base, 0o755)
        self.label = label
        self.coordinator = None
        self.agents = {}
        self._ended = []
        self._coordinator_settings = None
        self._agent_settings = {}
        self._agent_programs = {}
        self.run_marks = []
        # Words before those of an agent, that run it in namespaces of a test's own. They must not fork.
        self.prefix = []

    # -- daemons

    def start_coordinator(self, **settings):
        """A coordinator on a free port; its own settings are kept for `restart_coordinator`."""
        work_dir = self.directory("coordinator")
        self._coordinator_settings = {"ip": "127.0.0.1", "port": 0, "work_dir": work_dir, **settings}
        self.coordinator = self._start("coordinator", "coordinator", self._coordinator_settings)
        return self.coordinator

    def restart_coordinator(self):
        """The same coordinator again: same directory, same port. The old one must have ended."""
        settings = {**self._coordinator_settings, "port": self.coordinator.port}
        self._ended.append(self.coordinator)
        self.coordinator = self._start("coordinator", "coordinator", settings)
        return self.coordinator

    def start_agent(self, name="agent", registered=True, program=None, env=None, **settings):
        """An agent of this cluster; waits until the coordinator knows it. `program`: words to use instead of `tepui agent`."""
        self._agent_programs[name] = {"program": program, "env": env}
        self._agent_settings[name] = {
            "master": self.coordinator.address,
            "ip": "127.0.0.1",
            "port": 0,
            "hostname": "localhost",
            "work_dir": self.directory(name),
            "runtime_dir": self.directory(f"{name}-runtime"),
            "docker_store_dir": self.directory(f"{name}-images"),
            "cgroups_root": f"{self.mark}-{name}",
            "resources": "cpus:4;mem:2048;disk:4096;ports:[31000-32000]",
            **settings,
        }
        return self._start_agent(name, registered)

    def restart_agent(self, name="agent", registered=True):
        """The same agent again; the old one must have ended."""
        self._ended.append(self.agents[name])
        self._agent_settings[name]["port"] = self.agents[name].port
        return self._start_agent(name, registered)

    def _start_agent(self, name, registered):
        agent = self._start(name, "agent", self._agent_settings[name], **self._agent_programs.get(name, {}))
        self.agents[name] = agent
        if registered:
            wait.until(lambda: self.is_registered(agent), 20, f"{name} is registered\n{agent.log()[-3000:]}")
        return agent

    def _start(self, name, part, settings, **how):
        log_path = os.path.join(self.base, f"{name}.log")
        prefix = self.prefix if part == "agent" else ()
        daemon = Daemon(binary(), part, settings, log_path, prefix=prefix, **how)
        self._ended.append(daemon)
        return daemon.wait_listening()

    def is_registered(self, agent):
        agents = self.operator("GET_AGENTS")["get_agents"].get("agents", [])
        return any(a.get("active") and a["agent_info"].get("port") == agent.port for a in agents)

    def is_known(self, agent):
        """Whether it is registered, be it active or not."""
        agents = self.operator("GET_AGENTS")["get_agents"].get("agents", [])
        return any(a["agent_info"].get("port") == agent.port for a in agents)

    def agent_id(self, name="agent"):
        """The id the coordinator gave this agent."""
        port = self.agents[name].port
        agents = self.operator("GET_AGENTS")["get_agents"].get("agents", [])
        return next(a["agent_info"]["id"]["value"] for a in agents if a["agent_info"].get("port") == port)

    # -- reading

    @property
    def master(self):
        return self.coordinator.address

    def operator(self, call, **kwargs):
        return web.operator(self.master, call, **kwargs)

    def charged(self):
        """What tasks and executors are charged for, on all agents: `{"cpus": 0.5, …}`, without what is 0."""
        total = {}
        for agent in self.operator("GET_AGENTS")["get_agents"].get("agents", []):
            for resource in agent.get("allocated_resources", []):
                amount = resource.get("scalar", {}).get("value", 0)
                total[resource["name"]] = round(total.get(resource["name"], 0) + amount, 3)
        return {name: amount for name, amount in total.items() if amount}

    def agent_operator(self, call, name="agent", **kwargs):
        return web.operator(self.agents[name].address, call, **kwargs)

    def directory(self, name):
        path = os.path.join(self.base, name)
        os.makedirs(path, exist_ok=True)
        return path

    def daemons(self):
        return [d for d in [self.coordinator, *self.agents.values()] if d]

    def task_leftovers(self):
        """What is left of tasks: everything with the mark but the daemons themselves, their helpers and log files."""
        but = {d.pid for d in self.daemons() if d.running()}
        return leaks.all_left(self.mark, but | self._helpers(but))

    @staticmethod
    def _helpers(pids):
        """Processes that a daemon keeps for itself: its direct children that hold no container (the zygote)."""
        found = set()
        for pid in pids:
            children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
            for child in map(int, children.split()):
                below = subprocess.run(["ps", "-o", "pid=", "--ppid", str(child)], capture_output=True, text=True).stdout
                if not below.split():
                    found.add(child)
        return found

    def run(self, *words, timeout=60, env=None, **settings):
        """`tepui run SETTINGS -- WORDS` to its end."""
        run = self.start_run(self.run_command(*words, **settings), env)
        try:
            out, err = run.communicate(timeout=timeout * wait.PATIENCE)
        except subprocess.TimeoutExpired:
            run.terminate()
            out, err = run.communicate(timeout=20 * wait.PATIENCE)
            raise AssertionError(f"did not end within {timeout} s: {run.args}\n{out[-2000:]}\n{err[-4000:]}") from None
        return subprocess.CompletedProcess(run.args, run.returncode, out, err)

    def start_run(self, words, env=None):
        """`tepui run` in the background; its processes, directories and cgroups are looked for at the end."""
        run = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.run_env(env), start_new_session=True,
        )  # fmt: skip
        self.run_marks.append(f"tepui-run-{run.pid}")
        return run

    def run_leftovers(self):
        """What embedded coordinators and agents of `tepui run` left: their cgroups, runtime and work directories."""
        left = []
        for mark in self.run_marks:
            left += leaks.all_left(mark) + [f"cgroup: {path}" for path in leaks.roots(mark)]
            left += [f"directory: /run/{mark}"] * os.path.exists(f"/run/{mark}")
        scratch = os.path.join(self.base, "tmp")
        return left + [f"directory: {name}" for name in (os.listdir(scratch) if os.path.isdir(scratch) else [])]

    def run_command(self, *words, **settings):
        """The words of `tepui run`; a setting that is True is a flag without a value."""
        settings = {"image_store": os.path.join(self.base, "images"), **settings}
        flags = [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in settings.items()]
        return [binary(), "run", *flags, *(["--", *words] if words else [])]

    def run_env(self, env=None):
        """Marks the processes of `tepui run`, and puts its directories below this cluster's."""
        return {**os.environ, "TMPDIR": self.directory("tmp"), "TEPUI_TEST_MARK": self.mark, **(env or {})}

    # -- the end

    def close(self, failed):
        """Tears everything down; fails when something of it stays, unless the test has failed already."""
        left = []
        try:
            left = self._end_tasks()
        finally:
            for daemon in reversed(self._ended):
                daemon.stop()
            try:
                wait.until(lambda: not self._all_left(), 5, "nothing is left")
            except wait.Timeout:
                left = left or self._all_left()
            if failed or left:
                self.print_logs()
            self.sweep()
        if left and not failed:
            raise AssertionError("left behind:\n" + "\n".join(left))

    def forgive_runs(self):
        """Removes what `tepui run` left after SIGKILL, when nothing of it was there to do so."""
        for mark in self.run_marks:
            leaks.sweep(mark)
            if os.path.exists(f"/run/{mark}"):
                trees.remove(f"/run/{mark}")
        self.run_marks.clear()
        if os.path.exists(os.path.join(self.base, "tmp")):
            trees.remove(os.path.join(self.base, "tmp"))

    def sweep(self):
        """Ends and removes everything with this cluster's marks, its own directory last."""
        leaks.sweep(self.mark)
        self.forgive_runs()
        trees.remove(self.base)

    def _all_left(self):
        return leaks.all_left(self.mark) + self.run_leftovers()

    def _end_tasks(self):
        """Removes every framework and waits until no task of theirs is left; what is left after that."""
        if not (self.coordinator and self.coordinator.running()):
            return []
        for framework in self.operator("GET_FRAMEWORKS")["get_frameworks"].get("frameworks", []):
            call = {"type": "TEARDOWN", "teardown": {"framework_id": framework["framework_info"]["id"]}}
            # 400: it was just removed for having been away longer than its time-out.
            assert web.post_json(self.master, "/api/v1", call).status in (200, 400)
        if not all(agent.running() for agent in self.agents.values()):
            return []
        try:
            wait.until(lambda: not self.task_leftovers() and not self.charged(), 20, "no task is left")
        except wait.Timeout:
            return [*self.task_leftovers(), f"charged: {self.charged()}"]
        return []

    def print_logs(self):
        for name in sorted(os.listdir(self.base)):
            if name.endswith(".log"):
                with open(os.path.join(self.base, name), errors="replace") as log:
                    text = log.read()
                sys.stdout.write(f"\n----- {self.label}: {name} (last of {len(text)} characters)\n{text[-6000:]}")


def which(program):
    """Whether the machine has this program."""
    return shutil.which(program) is not None

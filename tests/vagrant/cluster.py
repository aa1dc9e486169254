"""The cluster of the Vagrantfile, as its host has it: vagrant and virsh from outside, SSH from inside, HTTP to its coordinators."""

import http.client
import json
import os
import pathlib
import re
import shutil
import subprocess

ADDRESSES = {"coordinator": 10, "agent": 20}
# With processors that are emulated, several at a time on a core.
UP_SECONDS = 900


# Of the box on its way to libvirt, a thousand times.
PROGRESS = re.compile(r"\s*\x1b\[KProgress: \d+%")
# The figures of a task that had too much memory are fifty lines.
LOG_LINES = "grep -E ' systemd|T[0-9:.]+Z ' | tail -n 40 | cut -c1-300"


class Failed(AssertionError):
    """A command did not succeed; with what it printed."""


class Cluster:
    """`coordinators` and `agents` are the names of the machines."""

    def __init__(self, order, coordinators, agents):
        self.project, self.work = pathlib.Path(order["project"]), pathlib.Path(order["work"])
        self.coordinators = [f"coordinator{n}" for n in range(1, coordinators + 1)]
        self.agents = [f"agent{n}" for n in range(1, agents + 1)]
        self.tepui, self.newer = order["tepui"], pathlib.Path(order["newer_packages"])
        home = self.work / "home"
        home.mkdir(exist_ok=True)
        self.environment = {
            **os.environ,
            "HOME": str(home),
            "VAGRANT_HOME": str(home / "vagrant"),
            "VAGRANT_DOTFILE_PATH": str(self.work / "dot"),
            "VAGRANT_DEFAULT_PROVIDER": "libvirt",
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "TEPUI_BOX": "tepui-test",
            "TEPUI_MEMORY": "384",
            "COORDINATORS": str(coordinators),
            "AGENTS": str(agents),
        }
        self._key()

    def _key(self):
        """The private key that every box has until it is given another; ssh takes none that others could read."""
        listed = subprocess.run(["dpkg", "-L", "vagrant"], check=True, capture_output=True, text=True).stdout
        public = next(line for line in listed.splitlines() if line.endswith("/keys/vagrant"))
        self.key = self.work / "key"
        shutil.copyfile(public, self.key)
        self.key.chmod(0o600)

    @property
    def machines(self):
        return self.coordinators + self.agents

    @staticmethod
    def address(name):
        kind, number = re.fullmatch(r"(\D+)(\d+)", name).groups()
        return f"192.168.56.{ADDRESSES[kind] + int(number)}"

    @property
    def zk(self):
        return "zk://" + ",".join(f"{self.address(name)}:2181" for name in self.coordinators) + "/tepui"

    # --- machines ---

    def vagrant(self, *words, timeout=UP_SECONDS):
        return run("vagrant", *words, cwd=self.project, env=self.environment, timeout=timeout)

    def virsh(self, *words):
        return run("virsh", "-c", "qemu:///system", *words, timeout=60)

    def domains(self):
        return self.virsh("list", "--all", "--name").split()

    def cut_off(self, name):
        """By power, as far as the machine can tell."""
        self.virsh("destroy", f"project_{name}")

    def _ssh(self):
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=20", "IdentitiesOnly=yes"]
        return ["ssh", "-i", str(self.key), *(word for option in options for word in ("-o", option))]

    def ssh(self, name, command, timeout=120):
        """The output of a line of shell, run by root."""
        return run(*self._ssh(), f"vagrant@{self.address(name)}", "sudo", "-n", "bash", stdin=command, timeout=timeout)

    def put(self, name, files, folder, timeout=300):
        """Copies files into a folder of a machine."""
        run("rsync", "-e", " ".join(self._ssh()), "--mkpath", *files, f"vagrant@{self.address(name)}:{folder}/", timeout=timeout)

    def journals(self):
        """Prints the end of what the units have said, on each machine that answers."""
        for name in self.machines:
            try:
                text = self.ssh(name, f"journalctl --no-pager -o short-precise -u 'tepui*' | {LOG_LINES}; free -m; uptime", timeout=60)
            except (Failed, subprocess.TimeoutExpired) as error:
                text = f"no answer: {str(error)[-300:]}"
            print(f"--- {name}\n{text}", flush=True)

    # --- coordinators ---

    def get(self, name, path, port=5050, timeout=30, **headers):
        """Status and body."""
        connection = http.client.HTTPConnection(self.address(name), port, timeout=timeout)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def state(self):
        """The leader's, who alone answers; None when none does."""
        return self._leading()[1]

    def leader(self):
        """The name of the coordinator that leads."""
        return self._leading()[0]

    def _leading(self):
        for name in self.coordinators:
            try:
                status, body = self.get(name, "/state", timeout=10)
            except (OSError, http.client.HTTPException):
                continue
            if status == 200:
                return name, json.loads(body)
        return None, None

    def active_agents(self):
        """The addresses of agents that are connected."""
        state = self.state()
        return {agent["hostname"] for agent in state["slaves"] if agent["active"]} if state else set()

    def run_task(self, *words, before=(), timeout=300):
        """`tepui run` as a user of the host types it."""
        return run(self.tepui, f"--zk={self.zk}", "run", *before, "--", *words, timeout=timeout)


def run(*command, stdin=None, timeout=120, **more):
    """The output of a command that succeeds in time."""
    words = [str(word) for word in command]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
    )
    try:
        output, _ = process.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        output = PROGRESS.sub("", output)
        raise Failed(f"{' '.join(words)} took longer than {timeout} s:\n{output}") from None
    if process.returncode != 0:
        raise Failed(f"{' '.join(words)} ended with {process.returncode}:\n{PROGRESS.sub('', output)}")
    return output

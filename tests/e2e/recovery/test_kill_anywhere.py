"""kill -9 of a shim, an agent or a plugin at any stage of a launch: every task is accounted for, and nothing stays.

Several agents are launched upon at once, each with a network namespace of its own, whose tasks have what could leave most
behind: a bridge network with mapped ports, a root file system of layers, volumes, secrets, all cgroups, a plugin.
"""

import glob
import json
import os
import random
import signal
import sys
import threading
import time

import pytest

from harness import leaks, wait
from harness.cluster import Cluster, binary
from harness.framework import TERMINAL, Framework, scalars, task
from harness.netns import UPLINK, Hub

LAUNCHES = int(os.environ.get("TEPUI_TEST_LAUNCHES", "200"))
HOSTS = ("a", "b", "c", "d")
PLUGIN = os.path.join(os.path.dirname(__file__), "../isolation/plugins/obedient")
ISOLATION = ",".join([
    "cgroups/all", "disk/du", "filesystem/linux", "docker/runtime", "namespaces/pid", "namespaces/ipc",
    "volume/host_path", "volume/secret", "environment_secret", "linux/capabilities", "linux/nnp", "posix/rlimits", "network/cni",
])  # fmt: skip
VICTIMS = ["shim", "agent", "plugin"]
# The latest that anything is killed: a launch takes less.
LATEST = 0.6


def network(directory):
    """The configuration of a bridge network with mapped ports."""
    ipam = {"type": "host-local", "dataDir": f"{directory}/leases", "ranges": [[{"subnet": "10.88.0.0/24"}]]}
    plugins = [
        {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    with open(f"{directory}/net.conflist", "w") as file:
        json.dump({"cniVersion": "1.0.0", "name": "net", "plugins": plugins}, file)


class Lane(threading.Thread):
    """Launches one task after the other on its agent, and kills something in the midst of each."""

    def __init__(self, host, hub, cluster, framework, image, launches, seed, environment):
        super().__init__(daemon=True)
        self.host, self.hub, self.cluster, self.framework, self.image, self.launches = host, hub, cluster, framework, image, launches
        self.rng = random.Random(seed)
        self.directory = cluster.directory(f"lane-{host}")
        self.ends, self.killed, self.failed = {}, dict.fromkeys(VICTIMS, 0), None
        network(self.directory)
        os.makedirs(f"{self.directory}/data")
        cluster.start_agent(
            host, program=["nsenter", f"--net=/run/netns/{hub.netns(host)}", binary(), "agent"], env={**environment, "PLUGIN_DIR": cluster.directory(f"plugin-{host}")},
            ip=hub.address_of(host), isolation=ISOLATION, network_cni_config_dir=self.directory, network_cni_plugins_dir="/usr/lib/cni",
            isolator_plugin=f"obedient={PLUGIN}",
        )  # fmt: skip
        self.agent_id = cluster.agent_id(host)

    def run(self):
        try:
            for n in range(self.launches):
                self.one(f"{self.host}{n}")
        except BaseException as error:  # noqa: BLE001 (told by the test)
            self.failed = error

    def one(self, name):
        victim = self.rng.choice(VICTIMS)
        offer = self.framework.offer(0.1, 32, agent=self.agent_id, timeout=60, where=lambda offer: ports(offer))
        made = self.task(name, self.rng.choice(ports(offer)))
        made["agent_id"] = offer["agent_id"]
        self.framework.launch(offer, [made])
        self.kill(name, victim, self.rng.random() * LATEST)
        self.ends[name] = self.end_of(name)
        print(name, victim, *(self.ends[name].get(key) for key in ("state", "reason", "message")))

    def task(self, name, port):
        """Any of the forms that a task can have; it runs for a moment."""
        container = {"type": "MESOS", "mesos": {}}
        if self.rng.random() < 0.5:
            container["mesos"] = {"image": {"type": "DOCKER", "docker": {"name": self.image}}}
        resources = scalars(cpus=0.1, mem=32)
        if self.rng.random() < 0.7:
            mapping = {"host_port": port, "container_port": 80, "protocol": "tcp"}
            container["network_infos"] = [{"name": "net", "port_mappings": [mapping]}]
            resources.append({"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": port, "end": port}]}})
        secret = {"type": "VALUE", "value": {"data": "czNjcmV0"}}
        container["volumes"] = [
            {"mode": "RO", "container_path": "data", "source": {"type": "HOST_PATH", "host_path": {"path": f"{self.directory}/data"}}},
            {"mode": "RO", "container_path": "secret", "source": {"type": "SECRET", "secret": secret}},
        ]  # fmt: skip
        variables = [{"name": "TOKEN", "type": "SECRET", "secret": secret}]
        command = {"shell": True, "value": f"sleep {self.rng.choice([0, 0.1, 0.5])}", "environment": {"variables": variables}}
        return task(command, name, resources=resources, container=container)

    # -- killing

    def kill(self, name, victim, delay):
        if victim == "shim":
            # It lives for a part of the launch only.
            try:
                wait.until(lambda: self.shims() or self.ended(name), 20, "there is a shim", interval=0.005)
            except wait.Timeout:
                pass
            delay /= 4
        time.sleep(delay)  # Any moment will do.
        if victim == "agent":
            self.cluster.agents[self.host].kill9()
            self.killed[victim] += 1
            # Now and then it dies again in the midst of its recovery.
            self.cluster.restart_agent(self.host, registered=self.rng.random() < 0.8)
            return
        for pid in self.shims() if victim == "shim" else self.plugins():
            try:
                os.kill(pid, signal.SIGKILL)
                self.killed[victim] += 1
            except ProcessLookupError:
                pass

    def shims(self):
        found = []
        for path in glob.glob("/proc/[0-9]*/comm"):
            place = os.path.dirname(path)
            try:
                with open(path) as file:
                    if file.read().strip() == "tepui-shim" and os.readlink(f"{place}/cwd").startswith(self.cluster.directory(f"{self.host}-runtime")):
                        found.append(int(os.path.basename(place)))
            except OSError:
                pass
        return found

    def plugins(self):
        """The program of this agent's plugin: it, and not the agent, was told of the socket."""
        mark = self.cluster.directory(f"plugin-{self.host}").encode()
        return [pid for pid in leaks.processes(self.cluster.mark) if all(word in environ(pid) for word in (mark, b"TEPUI_ISOLATOR_SOCKET="))]

    # -- ends

    def ended(self, name):
        return next((s for s in self.framework.statuses(name) if s["state"] in TERMINAL), None)

    def end_of(self, name):
        """The terminal status, asked for again and again: a launch that never arrived is told by reconciliation."""

        def ended():
            told = self.ended(name)
            if not told:
                self.framework.call("RECONCILE", {"tasks": [{"task_id": {"value": name}, "agent_id": {"value": self.agent_id}}]})
            return told

        return wait.until(ended, 90, f"{name} has ended", interval=0.25)

    def left(self):
        """What is left of tasks on this host beyond processes, mounts and cgroups."""
        found = leaks.networks(self.hub.netns(self.host), {UPLINK}, f"{self.directory}/leases")
        agent, runtime = self.cluster.directory(self.host), self.cluster.directory(f"{self.host}-runtime")
        for place in (f"{agent}/containers", f"{runtime}/containers", f"{agent}/isolators/obedient/owed"):
            found += [f"{place}/{name}" for name in (os.listdir(place) if os.path.isdir(place) else [])]
        ids = self.container_ids()
        for folder, folders, names in os.walk(runtime):
            found += [os.path.join(folder, name) for name in [*folders, *names] if name in ids]
        return found

    def container_ids(self):
        statuses = self.framework.statuses()
        return {s["container_status"]["container_id"]["value"] for s in statuses if "container_id" in s.get("container_status", {})}


@pytest.mark.timeout(900)
def test_whatever_is_killed_in_a_launch(images, modules):
    seed = int(os.environ.get("TEPUI_TEST_SEED", random.randrange(1 << 32)))
    print(f"TEPUI_TEST_SEED={seed}")
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    environment = {"PYTHONPATH": modules, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    failed = True
    with Hub(HOSTS) as hub:
        cluster = Cluster("kill-anywhere")
        try:
            cluster.start_coordinator(ip=hub.address)
            drive(hub, cluster, images.archive, random.Random(seed), environment)
            failed = False
        finally:
            cluster.close(failed)


def ports(offer):
    """The offer's ports, each the begin of a range: enough to choose from."""
    return [r["begin"] for resource in offer["resources"] if resource["name"] == "ports" for r in resource["ranges"]["range"]]


def environ(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def drive(hub, cluster, image, rng, environment):
    framework = Framework(cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    lanes = [Lane(host, hub, cluster, framework, image, LAUNCHES // len(HOSTS), rng.random(), environment) for host in HOSTS]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    for lane in lanes:
        if lane.failed:
            raise lane.failed
    for lane in lanes:
        wait.until(lambda lane=lane: cluster.is_registered(cluster.agents[lane.host]), 30, f"{lane.host} is back")
        assert cluster.agent_id(lane.host) == lane.agent_id
    ends, killed = {}, dict.fromkeys(VICTIMS, 0)
    for lane in lanes:
        for state in (status["state"] for status in lane.ends.values()):
            ends[state] = ends.get(state, 0) + 1
        for victim, count in lane.killed.items():
            killed[victim] += count
    print(f"{sum(ends.values())} launches, ends: {ends}, killed: {killed}")

    def left():
        daemons = {daemon.pid for daemon in cluster.daemons() if daemon.running()}
        plugins = {pid for lane in lanes for pid in lane.plugins()}
        everything = leaks.all_left(cluster.mark, daemons | cluster._helpers(daemons) | plugins)
        return everything + [line for lane in lanes for line in lane.left()]

    try:
        wait.until(lambda: not left(), 60, "nothing is left")
    except wait.Timeout:
        raise AssertionError("left behind:\n" + "\n".join(left())) from None
    wait.until(lambda: cluster.charged() == {}, 10, "nothing stays charged")
    assert set(ends) <= {"TASK_FINISHED", "TASK_FAILED", "TASK_LOST"}, ends
    assert sum(ends.values()) == LAUNCHES // len(HOSTS) * len(HOSTS)
    assert ends.get("TASK_FINISHED", 0) > LAUNCHES // 10, ends
    assert all(count > LAUNCHES // 20 for count in killed.values()), killed

"""The processes under test, each on a host of its own, and a supervisor that starts again what has ended.

Work directories of coordinators and agents are small file systems in memory, so that they can be filled. They outlive the
processes, as a disk does.
"""

import os
import signal
import subprocess
import threading
import time

import network
from harness import cluster, leaks, wait, web
from harness.daemon import flags_of

ZOOKEEPER_JARS = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-nop.jar"
SESSION_TIMEOUT = 4
DISK = "64m"
CPUS = 4


class Process:
    """One process at a time, with the same command each time it starts."""

    def __init__(self, name, host, words, log_path, directory=None):
        self.name, self.host, self.log_path, self.directory = name, host, log_path, directory
        self.words = host.within(words)
        self.running = None
        self.starts = 0
        self.own_ends = []
        """How it ended when nobody made it: the last line of its log, each time."""
        self.expected_to_end = False
        self.start_again_at = None

    def start(self):
        with open(self.log_path, "ab") as log:
            environment = {**os.environ, "RUST_BACKTRACE": "1"}
            environment.setdefault("RUST_LOG", "info")
            self.running = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        self.starts += 1
        self.expected_to_end = False
        self.start_again_at = None

    def alive(self):
        return self.running is not None and self.running.poll() is None

    def signal(self, number):
        if self.alive():
            self.running.send_signal(number)

    def end(self, number, start_again_after):
        """Ends it by a signal; the supervisor starts it again after that many seconds."""
        self.expected_to_end = True
        self.start_again_at = time.monotonic() + start_again_after
        self.signal(number)

    def last_words(self):
        with open(self.log_path, "rb") as log:
            log.seek(max(0, os.path.getsize(self.log_path) - 4000))
            lines = log.read().decode(errors="replace").strip().splitlines()
        said = [line for line in lines if "ERROR" in line or line.startswith("tepui: ") or "error:" in line]
        return (said or lines or [""])[-1][:300]

    # -- its disk

    def fill_disk(self):
        """Leaves not one byte."""
        path = os.path.join(self.directory, "filler")
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
        block = b"\0" * 65536
        try:
            while block:
                try:
                    os.write(descriptor, block)
                except OSError:
                    block = block[: len(block) // 2]
        finally:
            os.close(descriptor)

    def free_disk(self):
        path = os.path.join(self.directory, "filler")
        if os.path.exists(path):
            os.unlink(path)


class Fleet:
    """All of them. `zookeepers` is 0 for one coordinator that keeps its registry in a file."""

    def __init__(self, mark, base, zookeepers=3, coordinators=3, agents=4):
        self.mark, self.base = mark, base
        self.mounts = []
        self.hosts = []
        self.zookeepers = [self._host(11 + n) for n in range(zookeepers)]
        self.coordinators = [self._host(21 + n) for n in range(coordinators)]
        self.agents = [self._host(31 + n) for n in range(agents)]
        self.zk = f"zk://{','.join(f'{h.ip}:2181' for h in self.zookeepers)}/tepui" if zookeepers else None
        self.zookeepers = [self._zookeeper(n, host) for n, host in enumerate(self.zookeepers)]
        self.coordinators = [self._coordinator(n, host) for n, host in enumerate(self.coordinators)]
        self.agents = [self._agent(n, host) for n, host in enumerate(self.agents)]
        self.processes = [*self.zookeepers, *self.coordinators, *self.agents]
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._stop = threading.Event()

    def _host(self, number):
        host = network.Host(number)
        self.hosts.append(host)
        return host

    def directory(self, name, disk=False):
        path = os.path.join(self.base, name)
        os.makedirs(path)
        if disk:
            network.sh("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", self.mark, path)
            self.mounts.append(path)
        return path

    def _log(self, name):
        return os.path.join(self.base, f"{name}.log")

    def _zookeeper(self, number, host):
        name = f"zookeeper-{number}"
        directory = self.directory(name)
        settings = {
            "dataDir": directory,
            "clientPort": 2181,
            "tickTime": 500,
            "initLimit": 20,
            "syncLimit": 6,
            "maxClientCnxns": 0,
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "srvr",
            **{f"server.{n}": f"{h.ip}:2888:3888" for n, h in enumerate(self.zookeepers) if isinstance(h, network.Host)},
        }
        with open(os.path.join(directory, "zoo.cfg"), "w") as file:
            file.writelines(f"{key}={value}\n" for key, value in settings.items())
        with open(os.path.join(directory, "myid"), "w") as file:
            file.write(f"{number}\n")
        java = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", ZOOKEEPER_JARS]
        words = [*java, "org.apache.zookeeper.server.quorum.QuorumPeerMain", os.path.join(directory, "zoo.cfg")]
        return Process(name, host, words, self._log(name))

    def _coordinator(self, number, host):
        name = f"coordinator-{number}"
        directory = self.directory(name, disk=True)
        settings = {
            "ip": host.ip,
            "port": 5050,
            "hostname": host.ip,
            "work_dir": directory,
            "agent_ping_timeout": "2secs",
            "max_agent_ping_timeouts": 4,
        }
        if self.zk:
            settings |= {"zk": self.zk, "zk_session_timeout": f"{SESSION_TIMEOUT}secs"}
        return Process(name, host, [cluster.binary(), "coordinator", *flags_of(settings)], self._log(name), directory)

    def _agent(self, number, host):
        name = f"agent-{number}"
        directory = self.directory(name, disk=True)
        settings = {
            "master": self.zk or self.coordinator_addresses()[0],
            "ip": host.ip,
            "port": 5051,
            "hostname": host.ip,
            "work_dir": directory,
            "runtime_dir": self.directory(f"{name}-runtime"),
            "docker_store_dir": self.directory(f"{name}-images"),
            "cgroups_root": f"{self.mark}-{name}",
            "resources": f"cpus:{CPUS};mem:4096;disk:1024;ports:[31000-32000]",
        }
        return Process(name, host, [cluster.binary(), "agent", *flags_of(settings)], self._log(name), directory)

    def coordinator_addresses(self):
        return [f"{c.host.ip}:5050" for c in self.coordinators]

    # -- running

    def start(self):
        for process in self.processes:
            process.start()
        self._supervisor.start()

    def _supervise(self):
        while not self._stop.wait(0.1):
            for process in self.processes:
                if process.alive():
                    continue
                now = time.monotonic()
                if process.start_again_at is None:
                    if not process.expected_to_end:
                        process.own_ends.append(process.last_words())
                    process.start_again_at = now + 1
                if now >= process.start_again_at:
                    process.start()

    def leader(self):
        """The address of the coordinator that leads, if one says so."""
        for address in self.coordinator_addresses():
            try:
                if ask_master(address).status == 200:
                    return address
            except OSError:
                continue
        return None

    def agents_there(self):
        """How many agents the leader has active."""
        leader = self.leader()
        if not leader:
            return 0
        try:
            agents = web.operator(leader, "GET_AGENTS", timeout=3)["get_agents"].get("agents", [])
        except (OSError, AssertionError, ValueError):
            return 0
        return sum(1 for agent in agents if agent.get("active"))

    def wait_whole(self, timeout):
        """Waits until one leads and all agents are there."""
        wait.until(lambda: self.agents_there() == len(self.agents), timeout, "one leads, and all agents are there", 0.2)

    # -- the end

    def stop(self):
        """Ends all processes; what is left of them and their tasks."""
        self._stop.set()
        self._supervisor.join()
        for process in reversed(self.processes):
            process.signal(signal.SIGTERM)
        left = []
        for process in self.processes:
            try:
                if process.running:
                    process.running.wait(20)
            except subprocess.TimeoutExpired:
                left.append(f"{process.name} does not end by SIGTERM")
                process.running.kill()
                process.running.wait()
        for path in self.mounts:
            network.sh("umount", path)
        try:
            wait.until(lambda: not self._left(), 10, "nothing is left")
        except wait.Timeout:
            left += self._left()
        return left

    def _left(self):
        known = {os.getpid(), os.getppid(), *(host.holder for host in self.hosts)}
        left = leaks.all_left(self.mark, known)
        if os.getppid() == 1:
            # `run` has made a process namespace, in which nobody else has any business.
            others = leaks.processes("", known)
            left += [f"process {pid}: {command[:160]}" for pid, command in others.items()]
        return left

    def close(self):
        for host in self.hosts:
            host.close()
        leaks.sweep(self.mark)


def ask_master(address, timeout=1.0):
    return web.post_json(address, "/api/v1", {"type": "GET_MASTER"}, timeout=timeout)

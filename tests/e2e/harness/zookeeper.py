"""A ZooKeeper ensemble of a test's own: one server or three, on free ports, with ticks short enough for short sessions."""

import json
import os
import signal
import socket
import subprocess
import time

from . import wait

# Debian's libzookeeper-java names what it needs in its manifest; no log4j, which writes wherever it wants.
CLASSES = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-nop.jar"
JAVA = ["java", "-Xmx128m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]


def free_ports(count):
    """Ports that are free now; taken together, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Server:
    """One server; `stop`, `kill9`, `freeze` and `thaw` it as you like, and `start` it again with what it has on disk."""

    def __init__(self, base, number, ports, peers, tick):
        self.number, self.port = number, ports[0]
        self.base = os.path.join(base, f"zookeeper-{number}")
        os.makedirs(os.path.join(self.base, "data"))
        self.log_path = f"{self.base}.log"
        lines = [
            f"dataDir={self.base}/data",
            f"clientPort={self.port}",
            "clientPortAddress=127.0.0.1",
            f"tickTime={tick}",
            "initLimit=20",
            "syncLimit=10",
            "maxClientCnxns=0",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            "maxSessionTimeout=60000",
        ]
        if len(peers) > 1:
            lines += [f"server.{at}=127.0.0.1:{p[1]}:{p[2]}" for at, p in enumerate(peers, 1)]
            with open(os.path.join(self.base, "data", "myid"), "w") as file:
                file.write(f"{number}\n")
        self.config = os.path.join(self.base, "zoo.cfg")
        with open(self.config, "w") as file:
            file.write("\n".join(lines) + "\n")
        self.process = None
        self.start()

    def start(self):
        log = open(self.log_path, "ab")
        command = [*JAVA, "-cp", CLASSES, "org.apache.zookeeper.server.quorum.QuorumPeerMain", self.config]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.base)
        log.close()

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def kill9(self):
        self.process.kill()
        self.process.wait(10)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        if self.running():
            self.kill9()

    def mode(self):
        """`leader`, `follower`, `standalone`; None while it does not serve."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(1)
                connection.sendall(b"srvr")
                answer = b""
                while part := connection.recv(4096):
                    answer += part
        except OSError:
            return None
        lines = answer.decode().splitlines()
        return next((line.split(": ")[1] for line in lines if line.startswith("Mode: ")), None)


class Ensemble:
    """Servers that know each other."""

    def __init__(self, base, servers=1, tick=500):
        ports = free_ports(3 * servers)
        peers = [ports[at : at + 3] for at in range(0, len(ports), 3)]
        self.servers = [Server(base, number, own, peers, tick) for number, own in enumerate(peers, 1)]
        self._clients = []
        self.wait_serving()

    @property
    def hosts(self):
        return ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def url(self, path="/tepui", credentials=None):
        return f"zk://{credentials + '@' if credentials else ''}{self.hosts}{path}"

    def wait_serving(self):
        def serving():
            for server in self.servers:
                assert server.running(), f"ZooKeeper ended:\n{open(server.log_path).read()[-3000:]}"
            return all(server.mode() for server in self.servers)

        wait.until(serving, 60, "ZooKeeper serves")

    def client(self, credentials=None):
        """A kazoo client, for tests to look and to meddle."""
        from kazoo.client import KazooClient

        auth = [("digest", credentials)] if credentials else None
        client = KazooClient(self.hosts, timeout=20, auth_data=auth)
        client.start(20)
        self._clients.append(client)
        return client

    def majority(self):
        """Enough servers, its leader among them, that without them there is no quorum."""
        first = sorted(self.servers, key=lambda server: server.mode() != "leader")
        return first[: len(self.servers) // 2 + 1]

    def stop(self):
        for client in self._clients:
            try:
                client.stop()
                client.close()
            except Exception:  # noqa: BLE001 - the ensemble may be down, and the client is not needed any more
                pass
        for server in self.servers:
            server.stop()


class Watcher:
    """Who leads, as an existing detector finds it: the lowest json.info_ node, looked at again and again."""

    def __init__(self, ensemble, path="/tepui", credentials=None):
        self.client, self.path = ensemble.client(credentials), path

    def nodes(self):
        """The coordinators' nodes, lowest first."""
        from kazoo.exceptions import NoNodeError

        try:
            children = self.client.get_children(self.path)
        except NoNodeError:
            return []
        return sorted(name for name in children if name.startswith("json.info_"))

    def data(self, node):
        from kazoo.exceptions import NoNodeError

        try:
            return self.client.get(f"{self.path}/{node}")[0]
        except NoNodeError:
            return None

    def leader(self):
        """The leader's MasterInfo; None when there is none."""
        nodes = self.nodes()
        data = nodes and self.data(nodes[0])
        return json.loads(data) if data else None

    def address(self):
        leader = self.leader()
        return leader and f"{leader['address']['ip']}:{leader['address']['port']}"


def until_seconds(condition, timeout, what):
    """How long it took until the condition held."""
    begun = time.monotonic()
    wait.until(condition, timeout, what, interval=0.005)
    return time.monotonic() - begun

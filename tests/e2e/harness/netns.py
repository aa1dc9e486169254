"""Network namespaces of a test: a hub in which the test and its coordinator are, and hosts for agents that hang on it.

    hub (10.99.0.1, the test) ---- a (10.99.0.11)
                              \\--- b (10.99.0.12)

Nothing of it touches the machine's own network.
"""

import ctypes
import os
import subprocess
import uuid

UPLINK = "up0"
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


class Hub:
    """Makes the namespaces; within `with`, the calling thread, and all that it starts, is in the hub."""

    def __init__(self, hosts=("a", "b")):
        self.mark = f"tt{uuid.uuid4().hex[:8]}"
        self.hub = f"{self.mark}-hub"
        self.address = "10.99.0.1"
        self.hosts = {}
        run("ip", "netns", "add", self.hub)
        run("ip", "-n", self.hub, "link", "set", "lo", "up")
        run("ip", "-n", self.hub, "link", "add", "hub0", "type", "bridge")
        run("ip", "-n", self.hub, "address", "add", f"{self.address}/24", "dev", "hub0")
        run("ip", "-n", self.hub, "link", "set", "hub0", "up")
        for number, host in enumerate(hosts, 11):
            self._add(host, f"10.99.0.{number}")

    def _add(self, host, address):
        name = f"{self.mark}-{host}"
        self.hosts[host] = (name, address)
        run("ip", "netns", "add", name)
        run("ip", "-n", self.hub, "link", "add", f"to-{host}", "type", "veth", "peer", "name", UPLINK, "netns", name)
        run("ip", "-n", self.hub, "link", "set", f"to-{host}", "master", "hub0", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", UPLINK)
        run("ip", "-n", name, "link", "set", UPLINK, "up")
        run("ip", "-n", name, "route", "add", "default", "via", self.address)

    def netns(self, host):
        return self.hosts[host][0]

    def address_of(self, host):
        return self.hosts[host][1]

    def within(self, host, *words):
        """What a command prints that runs on a host, or in the `hub`."""
        return run("ip", "netns", "exec", self.hub if host == "hub" else self.netns(host), *words)

    def __enter__(self):
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(f"/run/netns/{self.hub}", os.O_RDONLY)
        _enter(inside)
        os.close(inside)
        return self

    def __exit__(self, *_):
        _enter(self._outside)
        os.close(self._outside)
        for name in [*(name for name, _ in self.hosts.values()), self.hub]:
            run("ip", "netns", "del", name)


def _enter(namespace):
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")

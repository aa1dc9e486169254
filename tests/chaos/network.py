"""Hosts: network namespaces on one bridge, whose links can be taken down.

The bridge is in this process' own network namespace, which `run` has made for it alone. A host's namespace is held by a
process that sleeps, and vanishes with the last process in it; nothing is ever named in /run/netns.
"""

import os
import subprocess

from harness import wait

NET = "10.77.0"
OWN = f"{NET}.254"


def sh(*words):
    subprocess.run(words, check=True, capture_output=True, text=True)


def make_bridge():
    """This namespace's own end, by which the frameworks talk to everybody."""
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "addr", "add", f"{OWN}/24", "dev", "br0")
    sh("ip", "link", "set", "br0", "up")


def _namespace(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


class Host:
    """One namespace with one address."""

    def __init__(self, number):
        self.ip = f"{NET}.{number}"
        self._link = f"host{number}"
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        pid = self._holder.pid
        wait.until(lambda: _namespace(pid) not in (None, _namespace("self")), 10, "a network namespace")
        sh("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        sh("ip", "link", "set", self._link, "master", "br0", "up")
        for words in (["addr", "add", f"{self.ip}/24", "dev", "eth0"], ["link", "set", "eth0", "up"], ["link", "set", "lo", "up"]):
            sh(*self.within(["ip", *words]))

    @property
    def holder(self):
        return self._holder.pid

    def within(self, words):
        """The same command in this host's network."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--", *words]

    def link(self, up):
        sh("ip", "link", "set", self._link, "up" if up else "down")

    def close(self):
        self._holder.kill()
        # Its end of the link goes with the namespace, and ours with that.
        self._holder.wait()

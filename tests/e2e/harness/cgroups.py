"""Where a container's cgroups are, by controller, whichever version of cgroups the host has it in; and mounts of a test's own.

A host may have each controller in a v1 tree or in the v2 one. Tests ask here and write down what they expect of each.
"""

import os
import re
import subprocess
import time

from . import wait

V1, V2 = 1, 2
# In every v2 cgroup, without being listed there.
IN_EVERY_V2 = {"cpuacct", "perf_event", "devices", "freezer"}
NAMES_IN_V2 = {"blkio": "io"}


class Trees:
    """The trees that a process of this host sees; by default this one."""

    def __init__(self, pid="self"):
        self.v1, self.v2, self.pid = {}, None, pid
        with open(f"/proc/{pid}/mountinfo") as table:
            for line in table:
                place, kind = line.split(" - ")
                mount, (fstype, _, options) = place.split(" ")[4], kind.split()[:3]
                if fstype == "cgroup":
                    for name in options.split(","):
                        self.v1.setdefault(name, mount)
                elif fstype == "cgroup2" and self.v2 is None:
                    self.v2 = mount

    def find(self, controller):
        """Version and mount of a controller; `(None, None)` when the host has it nowhere."""
        if controller in self.v1:
            return V1, self.v1[controller]
        if self.v2 and controller in IN_EVERY_V2:
            return V2, self.v2
        if self.v2 and NAMES_IN_V2.get(controller, controller) in _read(self._seen(f"{self.v2}/cgroup.controllers")).split():
            return V2, self.v2
        return None, None

    def version(self, controller):
        return self.find(controller)[0]

    def has(self, controller):
        return self.version(controller) is not None

    def of(self, controller, root, container_id):
        """The cgroup of a container."""
        _, mount = self.find(controller)
        assert mount, f"this host has no {controller}"
        return Cgroup(self._seen(os.path.join(mount, root, container_id)))

    def _seen(self, path):
        """A path of that process' mount namespace, as seen from here."""
        return path if self.pid == "self" else f"/proc/{self.pid}/root{path}"


class Cgroup:
    """One cgroup's files."""

    def __init__(self, path):
        self.path = path

    def __getitem__(self, name):
        return _read(os.path.join(self.path, name)).strip()

    def keyed(self, name):
        """Lines of a key and a number."""
        return {key: int(value) for key, value in (line.split() for line in self[name].splitlines())}

    def has(self, name):
        return os.path.exists(os.path.join(self.path, name))

    def exists(self):
        return os.path.isdir(self.path)


class MountNamespace:
    """A mount namespace in which a test mounts what the host does not. `prefix` runs a program in it, under its own pid."""

    def __init__(self):
        words = ["unshare", "-m", "--propagation", "private", "sh", "-c", "echo ready; exec sleep infinity"]
        self._holder = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._holder.stdout.readline() == "ready\n"
        self.prefix = ["nsenter", "-t", str(self._holder.pid), "-m", "--"]

    @property
    def pid(self):
        return self._holder.pid

    def run(self, *words):
        done = subprocess.run([*self.prefix, *words], capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def mount_v1(self, controller, at):
        """Mounts a v1 tree of a controller that is mounted nowhere; `unmount_v1` must follow, or it stays in the kernel."""
        os.makedirs(at, exist_ok=True)
        self.run("mount", "-t", "cgroup", "-o", controller, "tepui-test", at)

    def unmount_v1(self, controller, at, root):
        """Removes a root cgroup in which nothing is left, and the tree with it.

        The kernel keeps a tree that had a cgroup a moment ago when it is unmounted; so it is mounted and unmounted again.
        """
        seen = f"/proc/{self.pid}/root{at}/{root}"

        def removed():
            if os.path.isdir(seen):
                os.rmdir(seen)
            return not os.path.isdir(seen)

        def gone():
            with open("/proc/cgroups") as table:
                return any(line.split()[:2] == [controller, "0"] for line in table)

        def unmounted():
            if self._is_mounted(at):
                self.run("umount", at)
            try:
                return wait.until(gone, 2)
            except wait.Timeout:
                self.mount_v1(controller, at)
                return False

        try:
            wait.until(lambda: _quietly(removed), 10, f"{seen} is removed")
        finally:
            wait.until(lambda: _quietly(unmounted), 20, f"the tree of {controller} is gone")

    def _is_mounted(self, at):
        with open(f"/proc/{self.pid}/mountinfo") as table:
            return any(line.split(" ")[4] == at for line in table)

    def close(self):
        self._holder.kill()
        self._holder.wait(10)
        self._holder.stdout.close()


class LoopDevice:
    """A block device of a test, on a file of its own."""

    def __init__(self, path, megabytes):
        with open(path, "wb") as file:
            file.truncate(megabytes << 20)
        self.path = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=True).stdout.strip()

    @property
    def number(self):
        device = os.stat(self.path).st_rdev
        return os.major(device), os.minor(device)

    def close(self):
        wait.until(lambda: subprocess.run(["losetup", "--detach", self.path], capture_output=True).returncode == 0, 10, f"{self.path} is free")


def cpu_seconds(trees, root, container_id):
    """CPU time used, by the cgroup's own counter."""
    cgroup = trees.of("cpuacct", root, container_id)
    if trees.version("cpuacct") == V1:
        return int(cgroup["cpuacct.usage"]) / 1e9
    return cgroup.keyed("cpu.stat")["usage_usec"] / 1e6


def share(seconds, counter):
    """By how much a counter rises a second, over at least so many seconds."""
    begin, first = time.monotonic(), counter()
    wait.until(lambda: time.monotonic() - begin >= seconds, seconds + 20, f"{seconds} seconds have passed", interval=0.05)
    end, last = time.monotonic(), counter()
    return (last - first) / (end - begin)


def labels(**values):
    """`labels(tepui_pids_max="8")` as labels: the first underscore of a name and that before its last word are dots."""
    return {"labels": [{"key": _label(name), "value": value} for name, value in values.items()]}


def _label(name):
    known = re.fullmatch(r"tepui_(cpuset|hugetlb|io|net_prio|pids)_(\w+)", name)
    return f"tepui.{known.group(1)}.{known.group(2)}"


def _quietly(action):
    try:
        return action()
    except (OSError, AssertionError):
        return False


def _read(path):
    with open(path) as file:
        return file.read()

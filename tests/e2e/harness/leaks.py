"""What a test left behind: processes, mounts and cgroups that carry the test's mark.

Each test has a directory and a cgroup name of its own, both with the same unique mark. A process is the test's when the
mark is in its command line, environment, working directory or cgroups; a mount when its point or source has it.
Nothing else on the machine is looked at, so that tests may run beside each other.
"""

import json
import os
import re
import signal
import subprocess

CGROUPS = "/sys/fs/cgroup"


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _link(path):
    try:
        return os.fsencode(os.readlink(path))
    except OSError:
        return b""


def processes(mark, but=()):
    """Pids of living processes with the mark, without this one and those in `but`."""
    mark = mark.encode()
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in but or int(name) == os.getpid():
            continue
        base = f"/proc/{name}"
        command = _read(f"{base}/cmdline")
        seen = (command, _read(f"{base}/environ"), _link(f"{base}/cwd"), _read(f"{base}/cgroup"))
        if any(mark in part for part in seen) and b"\nState:\tZ" not in _read(f"{base}/status"):
            found[int(name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def mounts(mark):
    """Lines of this namespace's mount table with the mark."""
    with open("/proc/self/mountinfo") as table:
        return [line.strip() for line in table if mark in line]


def cgroups(mark):
    """cgroup directories below one that is named by the mark (that one itself may stay)."""
    found = []
    for root in roots(mark):
        for folder, names, _ in os.walk(root):
            found += [os.path.join(folder, name) for name in names]
    return found


def roots(mark):
    """The cgroup directories, one a hierarchy, that are named by the mark."""
    found = []
    tops = [CGROUPS, *(os.path.join(CGROUPS, name) for name in os.listdir(CGROUPS))]
    for top in tops:
        if os.path.isdir(top) and not os.path.islink(top):
            try:
                names = os.listdir(top)
            except FileNotFoundError:
                # In a unified tree these are cgroups of other tests, too, which end when they like.
                continue
            found += [os.path.join(top, name) for name in names if mark in name and os.path.isdir(os.path.join(top, name))]
    return found


def all_left(mark, but=()):
    """Everything left, as lines for people; empty when clean."""
    lines = [f"process {pid}: {command[:160]}" for pid, command in processes(mark, but).items()]
    lines += [f"mount: {line}" for line in mounts(mark)]
    lines += [f"cgroup: {path}" for path in cgroups(mark)]
    return lines


def networks(netns, but=(), leases=None):
    """What containers' networks left in a network namespace: links of theirs, packet filter rules, leases of addresses.

    Links named in `but` are the test's own. `leases` is where host-local keeps them, a directory a network.
    """
    lines = []
    links = json.loads(_run("ip", "-n", netns, "-json", "-details", "link"))
    for link in links:
        if link.get("linkinfo", {}).get("info_kind") in ("veth", "ifb", "macvlan") and link["ifname"] not in but:
            lines.append(f"link in {netns}: {link['ifname']}")
    for rule in _run("ip", "netns", "exec", netns, "iptables-save").splitlines():
        # Chains and jumps that are for all containers stay; those for one have its id or its address.
        if 'id: \\"' in rule or "DNAT --to" in rule or re.search(r"-[sd] [0-9.]+/32 .*-j ACCEPT", rule):
            lines.append(f"rule in {netns}: {rule}")
    for folder, _, files in os.walk(leases or "/nowhere"):
        lines += [f"lease: {os.path.join(folder, name)}" for name in files if name != "lock" and not name.startswith("last_reserved")]
    return lines


def _run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def sweep(mark, but=()):
    """Ends and removes what is left, so that one failed test does not disturb the next. Only what has the mark."""
    from . import wait

    for pid in processes(mark, but):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for root in roots(mark):
        for folder, _, names in os.walk(root, topdown=False):
            for pid in _read(os.path.join(folder, "cgroup.procs")).split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
    try:
        wait.until(lambda: not processes(mark, but), 10, "left processes are gone")
    except wait.Timeout:
        pass
    for line in reversed(mounts(mark)):
        os.system(f"umount -l '{line.split(' ')[4]}' 2>/dev/null")
    for root in roots(mark):
        for folder, _, _ in os.walk(root, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                pass

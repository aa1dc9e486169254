"""What a run could leave on the machine: looked at before and after."""

import pathlib
import re
import subprocess

PROGRAMS = re.compile(r"(qemu-system|libvirtd|virtlogd|dnsmasq|vagrant|ruby|unshare)")


def state(mark):
    """`mark` is in the path of everything that the run makes."""
    mounts = (line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines())
    return {
        "processes": _processes(mark),
        "links": _lines(r"^\d+: ((?:virbr|vnet|tap)[^:@]*)", "ip", "-o", "link"),
        "rules": _lines(r"^((?:-A LIBVIRT|:LIBVIRT|.*192\.168\.(?:56|121)\.).*)$", "iptables-save"),
        "mounts": {mount for mount in mounts if mark in mount or "libvirt" in mount},
        "domains": _below("/etc/libvirt/qemu", "**/*.xml") | _below("/var/lib/libvirt/images", "*"),
        "cgroups": _below("/sys/fs/cgroup", "*machine*") | _below("/sys/fs/cgroup", "*/*machine*"),
    }


def difference(before, after):
    """What is there now and was not before."""
    new = {name: sorted(found - before[name]) for name, found in after.items()}
    return {name: found for name, found in new.items() if found}


def _processes(mark):
    found = set()
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # It has ended.
            continue
        if PROGRAMS.match(pathlib.Path(words[0]).name) and any(mark in word for word in words):
            found.add(f"{path.parent.name} {words[0]}")
    return found


def _lines(pattern, *command):
    done = subprocess.run(command, capture_output=True, text=True)
    return set(re.findall(pattern, done.stdout, re.MULTILINE))


def _below(base, pattern):
    return {str(path) for path in pathlib.Path(base).glob(pattern)}

"""The cluster of network namespaces that docs/laptop.md offers: it runs a task, and leaves nothing."""

import os
import pathlib
import subprocess

from harness.cluster import REPOSITORY, binary

SCRIPT = os.path.join(REPOSITORY, "examples/laptop")


def left():
    """What the script makes, by its names."""
    found = [path for base in ("/run/netns", "/run", "/var/tmp") for path in pathlib.Path(base).glob("tepui-laptop-*")]
    found += [path for name in ("coordinator1", "agent1", "agent2") for path in pathlib.Path("/run/netns").glob(f"tepui-{name}")]
    found += [path for pattern in ("tepui-laptop-*", "*/tepui-laptop-*") for path in pathlib.Path("/sys/fs/cgroup").glob(pattern)]
    return [str(path) for path in [*found, *pathlib.Path("/sys/class/net").glob("tepui0")]]


def test_a_cluster_of_namespaces_runs_tasks_and_leaves_nothing():
    assert not left()
    command = [SCRIPT, binary(), "run", "--instances=2", "--cpus=0.6", "--mem=32", "--quiet", "--", "hostname"]
    done = subprocess.run(command, env={**os.environ, "TEPUI": binary()}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done
    assert {"agent1", "agent2"} <= set(done.stdout.split()), "each of two agents had room for one"
    assert not left()

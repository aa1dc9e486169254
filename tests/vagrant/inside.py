"""Boots a cluster where libvirt is its own, and checks what a user would: run by `namespaces`, with an order of main.py's."""

import json
import os
import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/e2e"))

import full  # noqa: E402
import small  # noqa: E402
from cluster import Cluster, run  # noqa: E402
from harness import wait  # noqa: E402
from report import Report  # noqa: E402

# How many coordinators and agents.
SIZES = {"small": (1, 2), "full": (3, 2)}
CHECKS = {"small": small.checks, "full": full.checks}


def main():
    order = json.loads(sys.argv[1])
    coordinators, agents = SIZES[order["cluster"]]
    cluster = Cluster(order, coordinators, agents)
    report = Report(on_failure=cluster.journals)
    boot(cluster, order, report)
    if order["sh"]:
        subprocess.run(["bash", "-c", order["sh"]], cwd=cluster.project, env=shell_environment(cluster))
    elif not report.failed:
        CHECKS[order["cluster"]](cluster, report, order)
    take_down(cluster, report)
    report.save(order["results"])


def boot(cluster, order, report):
    with report.check(f"vagrant up of {len(cluster.coordinators)} coordinators and {len(cluster.agents)} agents"):
        cluster.vagrant("box", "add", "--name", "tepui-test", order["box"])
        cluster.vagrant("up")
    with report.check("all agents are registered with the leader"):
        wanted = {cluster.address(name) for name in cluster.agents}
        wait.until(lambda: cluster.active_agents() == wanted, 120, "the agents are in the leader's state", interval=0.5)


def take_down(cluster, report):
    with report.check("vagrant destroy -f leaves no machine, network, process or disk"):
        cluster.vagrant("destroy", "-f", timeout=120)
        assert not cluster.domains(), cluster.domains()
        machines = run("sh", "-c", "pgrep -a qemu-system || true").strip()
        assert not machines, machines
        disks = [path for path in pathlib.Path("/var/lib/libvirt/images").iterdir() if "box_image" not in path.name]
        assert not disks, disks
        links = run("ip", "-o", "link")
        assert "vnet" not in links, links
        assert "192.168.56" not in run("ip", "-o", "addr") + run("iptables-save"), "the network of the machines is gone"


def shell_environment(cluster):
    path = f"{os.path.dirname(cluster.tepui)}:{os.environ['PATH']}"
    ssh = f"ssh -i {cluster.key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    return {**cluster.environment, "PATH": path, "SSH": ssh, "TEPUI_COORDINATOR": cluster.zk}


if __name__ == "__main__":
    main()

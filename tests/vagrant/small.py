"""One coordinator and two agents: tasks, their limits under cgroup v2, and an agent that is restarted, upgraded and removed."""

import time

from framework import Framework
from harness import wait

IMAGE = "/vagrant/image.tar"
TASKS = 50
# Seconds on emulated processors.
SHORT, LONG = 60, 300
CGROUPS = "/sys/fs/cgroup/tepui"


def checks(cluster, report, order):
    framework = Framework(cluster.zk, "vagrant")
    try:
        with report.check(f"pymesos runs {TASKS} tasks over both agents, half of them with an image") as note:
            note(fifty_tasks(cluster, framework))
        with report.check("cgroup v2 holds a task that wants all of a CPU to its quota") as note:
            note(hog(cluster, framework))
        with report.check("cgroup v2 ends a task that takes more memory than it has") as note:
            note(memory(cluster, framework))
        with report.check("the page answers from the host"):
            page(cluster)
        with report.check("tepui --zk=URL run on the host runs a task on a machine"):
            said = cluster.run_task("sh", "-c", "echo ran on $(hostname)", before=("--cpus=0.05", "--mem=16", "--quiet"))
            assert "ran on agent" in said, said
        lives = Lives(cluster, framework, "agent1")
        with report.check("20 tasks go on while systemctl restarts their agent"):
            lives.begin()
            lives.over(lambda: cluster.ssh("agent1", "systemctl restart tepui-agent"))
        with report.check("20 tasks go on while their agent is upgraded by dpkg -i"):
            lives.over(lambda: upgrade(cluster, "agent1", order["newer"]))
        with report.check("20 tasks go on while the program alone is upgraded, and its agent is started anew by dpkg"):
            program = "/vagrant/packaging/packages/tepui_*.deb"
            lives.over(lambda: cluster.ssh("agent1", f"dpkg -i {program}", timeout=LONG))
        with report.check("and end when they are told to"):
            lives.end()
        with report.check("removing the agent's package ends its containers; purging it leaves nothing") as note:
            note(remove_agent(cluster, framework, "agent2"))
    finally:
        framework.stop()
    with report.check("purging the coordinator's package leaves nothing"):
        remove_coordinator(cluster, "coordinator1")


def fifty_tasks(cluster, framework):
    begin = time.monotonic()
    plain = [f"plain-{n}" for n in range(TASKS // 2)]
    with_image = [f"image-{n}" for n in range(TASKS // 2)]
    framework.launch(plain, "test -e /etc/debian_version && exit 0", cpus=0.1, mem=16)
    framework.launch(with_image, "test ! -e /etc/debian_version && test -e /etc/from-second-layer && exit 0", image=IMAGE, cpus=0.1, mem=16)
    names = plain + with_image
    framework.wait(lambda: len(framework.ended(names)) == TASKS, LONG, "all tasks have ended")
    for name in names:
        states = framework.states(name)
        assert states == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"], (name, states, framework.last(name))
    hosts = {framework.placed[name] for name in names}
    assert hosts == {cluster.address(name) for name in cluster.agents}, hosts
    return f"{time.monotonic() - begin:.0f} s"


def hog(cluster, framework):
    agent = cluster.agents[0]
    framework.launch(["hog"], "while :; do :; done", host=cluster.address(agent), cpus=0.2, mem=16)
    framework.wait_state(["hog"], "TASK_RUNNING", SHORT)
    container = cgroup_of(framework, "hog")
    look = f"cd {container} && cat cpu.max && grep -E '^(usage_usec|nr_throttled)' cpu.stat && cat /proc/uptime"

    def figures():
        quota, period, _, usage, _, throttled, uptime, _ = cluster.ssh(agent, look).split()
        return int(quota) / int(period), int(usage) / 1e6, int(throttled), float(uptime)

    # Not in a stretch in which the machine stood still. What is not held to its quota has a whole CPU in each of them.
    for _ in range(3):
        limit, used, throttled, begin = figures()
        assert limit == 0.2, limit
        # A deadline of the guest's clock, by which the share is reckoned.
        now = begin
        while now < begin + 8:
            limit, used_now, throttled_now, now = figures()
        share = (used_now - used) / (now - begin)
        if 0.2 * 0.5 <= share <= 0.2 * 1.1:
            break
    assert share <= 0.2 * 1.1, f"it has {share:.3f} of a CPU"
    assert share >= 0.2 * 0.5, f"it has {share:.3f} of a CPU, and would not be held to anything"
    assert throttled_now > throttled
    framework.kill("hog")
    framework.wait_state(["hog"], "TASK_KILLED", SHORT)
    return f"{share:.3f} of a CPU, of 0.2"


def memory(cluster, framework):
    framework.launch(["glutton"], "head -c 200m /dev/zero | tail", cpus=0.1, mem=32)
    framework.wait_state(["glutton"], "TASK_FAILED", SHORT)
    last = framework.last("glutton")
    assert last["reason"] == "REASON_CONTAINER_LIMITATION_MEMORY", last
    return last["message"].splitlines()[0]


def page(cluster):
    status, body = cluster.get("coordinator1", "/", Accept="text/html")
    assert status == 200 and body.lower().startswith(b"<!doctype html>") and b"vagrant" in body, (status, body[:200])


def cgroup_of(framework, name):
    statuses = framework.last(name)["container_status"]
    return f"{CGROUPS}/{statuses['container_id']['value']}"


class Lives:
    """Twenty tasks on one agent, and what happens to them while something happens to the agent."""

    def __init__(self, cluster, framework, agent):
        self.cluster, self.framework, self.agent = cluster, framework, agent
        self.names = [f"life-{n}" for n in range(20)]

    def begin(self):
        self.framework.launch(self.names, "exec sleep 86399", host=self.cluster.address(self.agent), cpus=0.02, mem=7)
        self.framework.wait_state(self.names, "TASK_RUNNING", LONG)
        # The shell that is told of as running is sleep a moment later.
        wait.until(lambda: len(self._processes()) == len(self.names), SHORT, "each task is sleep", interval=0.5)
        self.processes = self._processes()

    def over(self, happening):
        """The agent is another process afterwards; the tasks' are the same, and nothing was told of them."""
        updates, main = len(self.framework.updates), self._main()
        happening()
        wait.until(lambda: self._registered(), LONG, "the agent is registered again", interval=0.5)
        assert self._main() != main, "the agent was not restarted"
        assert self._processes() == self.processes, "the tasks' processes are others"
        # One whose acknowledgement was late comes again.
        known = {update.get("uuid") for update in self.framework.updates[:updates]}
        told = [update for update in self.framework.updates[updates:] if update.get("uuid") not in known]
        assert not told, told
        journal = self.cluster.ssh(self.agent, "journalctl --no-pager -u tepui-agent")
        assert "left-over" not in journal and "remains running" not in journal, journal
        inside = self.cluster.ssh(self.agent, "systemctl show -p TasksCurrent,NRestarts,ActiveState tepui-agent")
        assert "ActiveState=active" in inside and "NRestarts=0" in inside, inside

    def end(self):
        for name in self.names:
            self.framework.kill(name)
        self.framework.wait_state(self.names, "TASK_KILLED", LONG)
        gone = f"! pgrep -f 'sleep 86399' && test $(ls -d {CGROUPS}/*-*-* 2>/dev/null | wc -l) = 0"
        wait.until(lambda: succeeds(self.cluster, self.agent, gone), SHORT, "processes and cgroups are gone", interval=0.5)

    def _processes(self):
        return set(self.cluster.ssh(self.agent, "pgrep -x sleep").split())

    def _main(self):
        return self.cluster.ssh(self.agent, "systemctl show --value -p MainPID tepui-agent").strip()

    def _registered(self):
        status, body = self.cluster.get(self.agent, "/metrics/snapshot", port=5051) if self._listens() else (0, b"")
        return status == 200 and b'"slave/registered":1' in body

    def _listens(self):
        try:
            return self.cluster.get(self.agent, "/health", port=5051)[0] == 200
        except OSError:
            return False


def succeeds(cluster, name, command):
    return cluster.ssh(name, f"if {command}; then echo yes; else echo no; fi").split()[-1] == "yes"


def upgrade(cluster, name, newer):
    # They are too large to be in the synced folder twice for each machine.
    newer_files = [next(cluster.newer.glob(f"{package}_*.deb")) for package in ("tepui", "tepui-agent")]
    cluster.put(name, newer_files, "/var/tmp/newer")
    cluster.ssh(name, "dpkg -i /var/tmp/newer/*.deb && rm -r /var/tmp/newer", timeout=LONG)
    versions = cluster.ssh(name, "dpkg-query -W -f '${Version}\\n' tepui tepui-agent").split()
    assert versions == [newer, newer], versions
    executable = cluster.ssh(name, "readlink /proc/$(systemctl show --value -p MainPID tepui-agent)/exe").strip()
    assert executable == "/usr/bin/tepui", executable


def remove_agent(cluster, framework, name):
    names = ["last-0", "last-1"]
    framework.launch(names, "exec sleep 86398", host=cluster.address(name), cpus=0.02, mem=8)
    framework.wait_state(names, "TASK_RUNNING", LONG)
    before = cluster.ssh(name, "cat /proc/self/mountinfo | wc -l; ls /run").split()
    cluster.ssh(name, "dpkg --remove tepui-agent", timeout=LONG)
    assert succeeds(cluster, name, "! pgrep -f 'sleep 86398' && ! pgrep -x tepui && test -d /var/lib/tepui/agent -a -e /etc/tepui/agent.toml")
    assert succeeds(cluster, name, f"! test -e {CGROUPS}"), cluster.ssh(name, f"find {CGROUPS}; cat {CGROUPS}/*/cgroup.procs")
    cluster.ssh(name, "dpkg --purge tepui-agent tepui", timeout=LONG)
    left = cluster.ssh(name, "find / -xdev -path /vagrant -prune -o -path /proc -prune -o -iname '*tepui*' -print").split()
    assert not left, left
    units = cluster.ssh(name, "systemctl list-units --all --no-legend 'tepui*'; systemctl list-unit-files --no-legend 'tepui*' || true").strip()
    assert not units, units
    mounts = cluster.ssh(name, "cat /proc/self/mountinfo | wc -l").split()
    assert mounts == before[:1], (mounts, before)
    return "containers ended by the agent itself"


def remove_coordinator(cluster, name):
    cluster.ssh(name, "dpkg --purge tepui-coordinator tepui", timeout=LONG)
    # ZooKeeper of the provisioner's, with its own files, stays.
    left = cluster.ssh(name, "find / -xdev -path /vagrant -prune -o -path /proc -prune -o -iname '*tepui*' -print").split()
    left = [path for path in left if "tepui-zookeeper" not in path and path != "/etc/tepui"]
    assert not left, left
    assert succeeds(cluster, name, "! getent passwd tepui && ! pgrep -x tepui")

"""Three coordinators and two agents, of which some are cut off by power and come back."""

import time

from framework import Framework
from harness import wait
from small import LONG, SHORT

# Sessions of ten seconds, elections, and an agent that five pings of fifteen seconds reach in vain.
FAILOVER, UNREACHABLE = 90, 150


def checks(cluster, report, order):
    framework = Framework(cluster.zk, "vagrant-full")
    try:
        with report.check("ZooKeeper has a quorum of three, and one coordinator leads"):
            modes = [cluster.ssh(name, "exec 3<>/dev/tcp/127.0.0.1/2181; echo srvr >&3; grep Mode <&3").split()[-1] for name in cluster.coordinators]
            assert sorted(modes) == ["follower", "follower", "leader"], modes
            assert cluster.leader()
        tasks = Long(cluster, framework)
        with report.check("ten tasks run on both agents"):
            tasks.begin()
        with report.check("the leading coordinator's machine is cut off by power: frameworks are served by another") as note:
            note(leader_cut_off(cluster, framework, tasks))
        with report.check("an agent's machine is cut off by power: its tasks are reported, the others go on") as note:
            note(agent_cut_off(cluster, framework, tasks))
        with report.check("the coordinator's machine comes back by vagrant up and joins"):
            cluster.vagrant("up", tasks.lost_coordinator)
            mode = "exec 3<>/dev/tcp/127.0.0.1/2181 && echo srvr >&3 && grep -q Mode <&3 && echo serves"
            wait.until(lambda: "serves" in cluster.ssh(tasks.lost_coordinator, f"bash -c '{mode}' 2>&1 || true"), LONG, "ZooKeeper serves there", interval=1)
            wait.until(lambda: follows(cluster, tasks.lost_coordinator), LONG, "the coordinator knows who leads", interval=1)
        with report.check("the agent's machine comes back by vagrant up, and runs tasks"):
            cluster.vagrant("up", tasks.lost_agent)
            wanted = {cluster.address(name) for name in cluster.agents}
            wait.until(lambda: cluster.active_agents() == wanted, LONG, "both agents are registered", interval=1)
            framework.launch(["after"], "exit 0", host=cluster.address(tasks.lost_agent))
            framework.wait_state(["after"], "TASK_FINISHED", LONG)
        with report.check("every task is accounted for") as note:
            note(tasks.account())
    finally:
        framework.stop()


class Long:
    """Five tasks on each agent, which run until they are killed."""

    lost_coordinator = lost_agent = None

    def __init__(self, cluster, framework):
        self.cluster, self.framework = cluster, framework
        self.of = {agent: [f"{agent}-{n}" for n in range(5)] for agent in cluster.agents}
        self.names = [name for names in self.of.values() for name in names]

    def begin(self):
        for agent, names in self.of.items():
            self.framework.launch(names, "exec sleep 86399", host=self.cluster.address(agent))
        self.framework.wait_state(self.names, "TASK_RUNNING", LONG)

    def others(self):
        """Those of the agents that were not cut off."""
        return [name for agent, names in self.of.items() if agent != self.lost_agent for name in names]

    def account(self):
        """The leader's view is the framework's: tasks of the machine that was cut off have ended, the others run, and can be ended."""
        ended = self.of[self.lost_agent]
        self.framework.wait(lambda: len(self.framework.ended(ended)) == len(ended), LONG, "tasks of the lost machine have ended")
        told = {self.framework.states(name)[-1] for name in ended}
        for name in self.others():
            assert self.framework.states(name) == ["TASK_STARTING", "TASK_RUNNING"], (name, self.framework.states(name))
            self.framework.kill(name)
        self.framework.wait_state(self.others(), "TASK_KILLED", LONG)
        return f"of the lost machine {', '.join(sorted(told))}"


def leader_cut_off(cluster, framework, tasks):
    tasks.lost_coordinator = cluster.leader()
    registrations, updates = framework.registrations, len(framework.updates)
    begin = time.monotonic()
    cluster.cut_off(tasks.lost_coordinator)
    wait.until(lambda: cluster.leader() not in (None, tasks.lost_coordinator), FAILOVER, "another coordinator leads", interval=0.25)
    led = time.monotonic() - begin
    framework.wait(lambda: framework.registrations > registrations, FAILOVER, "the framework is registered with it")
    served = time.monotonic() - begin
    names = ["between-0", "between-1"]
    framework.launch(names, "exit 0")
    framework.wait_state(names, "TASK_FINISHED", FAILOVER)
    told = [update for update in framework.updates[updates:] if update["task_id"]["value"] in tasks.names]
    assert not told, told
    return f"{tasks.lost_coordinator}; another leads after {led:.0f} s, the framework is served after {served:.0f} s"


def agent_cut_off(cluster, framework, tasks):
    tasks.lost_agent = cluster.agents[0]
    lost, begin = tasks.of[tasks.lost_agent], time.monotonic()
    cluster.cut_off(tasks.lost_agent)
    framework.wait(lambda: all(framework.states(name)[-1] != "TASK_RUNNING" for name in lost), UNREACHABLE, "its tasks are reported")
    reported = time.monotonic() - begin
    told = {framework.states(name)[-1] for name in lost}
    names = ["meanwhile"]
    framework.launch(names, "exit 0")
    framework.wait_state(names, "TASK_FINISHED", SHORT)
    for name in tasks.others():
        assert framework.states(name) == ["TASK_STARTING", "TASK_RUNNING"], (name, framework.states(name))
    return f"{', '.join(sorted(told))} after {reported:.0f} s"


def follows(cluster, name):
    """Whether a coordinator sends those who ask to the leader."""
    try:
        status, _ = cluster.get(name, "/state", timeout=10)
    except OSError:
        return False
    return status == 307 or (status == 200 and cluster.leader() == name)

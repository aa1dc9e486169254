"""`network/ports`: who listens on ports that it was not given is ended, and nobody else is.

That somebody is left alone is shown by a second task that is ended by a look of the isolator that came later.
"""

import os
import re
import socket

import pytest

from harness import wait
from harness.framework import Framework

ISOLATION = "cgroups/cpu,cgroups/mem,filesystem/linux,namespaces/pid,network/ports"
LISTEN = """exec python3 -c '
import os, socket, sys, time
s = socket.socket(socket.{family}, socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", {port}))
s.listen()
with open("{file}.new", "w") as f:
    f.write(str(s.getsockname()[1]))
os.rename("{file}.new", "{file}")
time.sleep(1000)
'"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


class Listeners:
    """A cluster whose agent looks at ports often, and tasks that listen."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.own = free_port()
        self.count = 0

    def start(self, **settings):
        self.cluster.start_coordinator()
        self.cluster.start_agent(**{
            "isolation": ISOLATION,
            "resources": f"cpus:4;mem:2048;disk:4096;ports:[{self.own}-{self.own}]",
            "enforce_container_ports": True,
            "container_ports_watch_interval": "200ms",
            **settings,
        })  # fmt: skip
        self.framework = Framework(self.cluster.master, checkpoint=True)
        self.framework.subscribe()
        return self

    def listen(self, port=0, given=(), family="AF_INET", script="{}"):
        """Runs a task that listens; its id and the port, once it does."""
        self.count += 1
        file = os.path.join(self.cluster.directory("ports"), str(self.count))
        command = script.format(LISTEN.format(port=port, family=family, file=file))
        scalars = [{"name": n, "type": "SCALAR", "scalar": {"value": v}} for n, v in (("cpus", 0.1), ("mem", 32))]
        ports = [{"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": p, "end": p}]}} for p in given]
        task_id = self.framework.run_task(command, resources=scalars + ports)
        wait.until(lambda: os.path.exists(file), 20, f"{task_id} listens")
        with open(file) as text:
            return task_id, int(text.read())

    def is_ended(self, task_id, port):
        status = self.framework.wait_terminal(task_id)
        assert status["state"] == "TASK_FAILED", status
        assert (status["source"], status["reason"]) == ("SOURCE_AGENT", "REASON_CONTAINER_LIMITATION"), status
        resources = [{k: r[k] for k in ("name", "type", "ranges")} for r in status["limitation"]["resources"]]
        ranges = {"range": [{"begin": port, "end": port}]}
        assert resources == [{"name": "ports", "type": "RANGES", "ranges": ranges}], status
        assert re.search(rf"listening on port\(s\) \[{port}-{port}\]", status["message"]), status

    def goes_on(self, task_id):
        assert self.framework.states(task_id)[-1] == "TASK_RUNNING", self.framework.statuses(task_id)


@pytest.fixture
def listeners(bare_cluster):
    made = Listeners(bare_cluster)
    yield made
    if hasattr(made, "framework"):
        made.framework.disconnect()


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_a_listen_on_a_foreign_port_ends_the_task_and_one_on_its_own_does_not(listeners, family):
    listeners.start()
    own, _ = listeners.listen(listeners.own, given=[listeners.own], family=family)
    foreign, port = listeners.listen(family=family)
    listeners.is_ended(foreign, port)
    listeners.goes_on(own)
    listeners.framework.kill(own)
    assert listeners.framework.wait_terminal(own)["state"] == "TASK_KILLED"
    wait.until(lambda: not listeners.cluster.task_leftovers(), 10, "nothing is left of them")


def test_a_listen_of_a_process_that_left_its_parent_is_the_tasks_too(listeners):
    listeners.start()
    child, port = listeners.listen(script="setsid sh -c \"$(cat <<'END'\n{}\nEND\n)\" & sleep 1000")
    listeners.is_ended(child, port)


def test_ports_outside_of_the_isolated_range_are_left_alone(listeners):
    listeners.start(container_ports_isolated_range=f"[{listeners.own}-{listeners.own}]")
    outside, _ = listeners.listen()
    within, port = listeners.listen(listeners.own)
    assert port == listeners.own
    listeners.is_ended(within, port)
    listeners.goes_on(outside)


def test_ports_that_the_agent_does_not_offer_are_left_alone_when_told(listeners):
    listeners.start(check_agent_port_range_only=True)
    outside, _ = listeners.listen()
    within, port = listeners.listen(listeners.own)
    listeners.is_ended(within, port)
    listeners.goes_on(outside)


def test_without_enforcement_it_is_only_told_of_in_the_log(listeners):
    listeners.start(enforce_container_ports=False)
    foreign, port = listeners.listen()

    def told():
        return [line for line in listeners.cluster.agents["agent"].log().splitlines() if f"[{port}-{port}]" in line]

    wait.until(told, 20, "the log tells of it")
    # A look at another task came after that one was told of.
    second, other = listeners.listen()
    wait.until(lambda: f"[{other}-{other}]" in listeners.cluster.agents["agent"].log(), 20, "the log tells of the second")
    assert len(told()) == 1, "told once, not at every look"
    listeners.goes_on(foreign)
    listeners.goes_on(second)


def test_an_agent_that_returns_knows_whose_port_is_whose(listeners):
    listeners.start()
    own, _ = listeners.listen(listeners.own, given=[listeners.own])
    listeners.cluster.agents["agent"].kill9()
    listeners.cluster.restart_agent()
    foreign, port = listeners.listen()
    listeners.is_ended(foreign, port)
    listeners.goes_on(own)


def test_a_listener_that_began_while_no_agent_ran_is_found(listeners):
    listeners.start(container_ports_watch_interval="1secs")
    gate = os.path.join(listeners.cluster.directory("gates"), "open")
    file = os.path.join(listeners.cluster.directory("ports"), "late")
    script = f"until [ -e {gate} ]; do sleep 0.05; done; " + LISTEN.format(port=0, family="AF_INET", file=file)
    task_id = listeners.framework.run_task(script)
    listeners.cluster.agents["agent"].kill9()
    open(gate, "w").close()
    wait.until(lambda: os.path.exists(file), 20, "it listens")
    listeners.cluster.restart_agent()
    with open(file) as text:
        listeners.is_ended(task_id, int(text.read()))


def test_two_ways_to_name_ports_are_an_error_at_start(bare_cluster):
    bare_cluster.start_coordinator()
    with pytest.raises(AssertionError, match="exclude each other: give one of them"):
        bare_cluster.start_agent(
            isolation=ISOLATION, check_agent_port_range_only=True, container_ports_isolated_range="[1-2]"
        )

"""Checks and health checks of Docker containers: by HTTP and TCP in the network that the engine gave them."""

import pytest

from harness import wait
from harness.docker_engine import IMAGE
from harness.framework import Framework

from .conftest import settings

SERVES = "until [ -e /tmp/on ]; do sleep 0.1; done; echo here > /tmp/page; exec busybox httpd -f -p 127.0.0.1:8080 -h /tmp"
HEALTH, CHECK = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED", "REASON_TASK_CHECK_STATUS_UPDATED"


def every(seconds=0.2, **more):
    return {"delay_seconds": 0, "interval_seconds": seconds, "timeout_seconds": 5, **more}


def container(network="BRIDGE"):
    return {"type": "DOCKER", "docker": {"image": IMAGE, "network": network}}


def name_of(framework, task_id):
    return "mesos-" + framework.statuses(task_id)[-1]["container_status"]["container_id"]["value"]


def told(framework, task_id, reason):
    seen = {s["uuid"]: s for s in framework.statuses(task_id) if s.get("reason") == reason}
    return list(seen.values())


@pytest.mark.parametrize("network", ["BRIDGE", "HOST", "NONE"])
def test_http_and_tcp_in_the_containers_network(framework, engine, network):
    by_http = {"type": "HTTP", "http": {"port": 8080, "path": "/page"}, **every(grace_period_seconds=60)}
    by_tcp = {"type": "TCP", "tcp": {"port": 8080}, **every()}
    task_id = framework.run_task(SERVES, container=container(network), health_check={**by_http, "consecutive_failures": 2}, check=by_tcp)
    framework.wait_for(lambda: told(framework, task_id, CHECK), 20, "a result")
    assert told(framework, task_id, CHECK)[0]["check_status"]["tcp"] == {"succeeded": False}
    engine.docker("exec", name_of(framework, task_id), "touch", "/tmp/on")
    framework.wait_for(lambda: told(framework, task_id, HEALTH) and len(told(framework, task_id, CHECK)) == 2, 20, "both")
    assert told(framework, task_id, HEALTH)[0]["healthy"] is True
    assert told(framework, task_id, CHECK)[1]["check_status"]["tcp"] == {"succeeded": True}
    engine.docker("exec", name_of(framework, task_id), "rm", "/tmp/page")
    last = framework.wait_terminal(task_id, timeout=60)
    assert (last["state"], last["healthy"]) == ("TASK_KILLED", False), last
    assert [s["healthy"] for s in told(framework, task_id, HEALTH)] == [True, False, False]


def test_checks_outlive_the_agent(bare_cluster, engine):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(**settings(engine))
    framework = Framework(bare_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    check = {"type": "HTTP", "http": {"port": 8080, "path": "/page"}, **every(grace_period_seconds=60)}
    task_id = framework.run_task(f"touch /tmp/on; {SERVES}", container=container(), health_check={**check, "consecutive_failures": 2})
    framework.wait_for(lambda: told(framework, task_id, HEALTH), 20, "healthy")
    wait.until(lambda: len(framework.acknowledged) >= 3, 20, "all is acknowledged")
    bare_cluster.agents["agent"].kill9()
    bare_cluster.restart_agent()
    wait.holds(lambda: len(told(framework, task_id, HEALTH)) == 1, 1, "nothing new")
    engine.docker("exec", name_of(framework, task_id), "rm", "/tmp/page")
    last = framework.wait_terminal(task_id, timeout=60)
    assert (last["state"], last["healthy"]) == ("TASK_KILLED", False), last


def test_a_command_runs_in_the_container(framework, engine):
    by = {"type": "COMMAND", **every(grace_period_seconds=60)}
    command = {"value": 'echo checked; test -e /tmp/well && test "$OWN" = x', "environment": {"variables": [{"name": "OWN", "value": "x"}]}}
    check = {"type": "COMMAND", "command": {"command": {"value": "exit 7"}}, **every()}
    task_id = framework.run_task("touch /tmp/well; sleep 1000", container=container(), health_check={**by, "command": command, "consecutive_failures": 2}, check=check)
    framework.wait_for(lambda: told(framework, task_id, HEALTH) and told(framework, task_id, CHECK), 20, "both")
    assert told(framework, task_id, CHECK)[0]["check_status"] == {"type": "COMMAND", "command": {"exit_code": 7}}
    engine.docker("exec", name_of(framework, task_id), "rm", "/tmp/well")
    last = framework.wait_terminal(task_id, timeout=60)
    assert (last["state"], last["healthy"]) == ("TASK_KILLED", False), last

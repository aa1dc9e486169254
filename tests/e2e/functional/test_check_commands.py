"""Checks and health checks by command, in native containers."""

import os

import pytest

from harness import wait, web
from harness.framework import Framework

HEALTH, CHECK = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED", "REASON_TASK_CHECK_STATUS_UPDATED"


@pytest.fixture
def framework(shared_cluster):
    made = Framework(shared_cluster.master, capabilities=("MULTI_ROLE", "TASK_KILLING_STATE"))
    made.subscribe()
    yield made
    made.teardown()


def by(command, **more):
    command = {"value": command} if isinstance(command, str) else command
    return {"type": "COMMAND", "delay_seconds": 0, "interval_seconds": 0.2, "timeout_seconds": 10, "command": command, **more}


def check(command, **more):
    made = by(command, **more)
    return {**made, "command": {"command": made["command"]}}


def told(framework, task_id, reason):
    seen = {s["uuid"]: s for s in framework.statuses(task_id) if s.get("reason") == reason}
    return list(seen.values())


def codes(framework, task_id):
    return [s["check_status"]["command"].get("exit_code") for s in told(framework, task_id, CHECK)]


def sandbox(cluster, framework, task_id, name):
    path = f"/frameworks/{framework.id}/executors/{task_id}/runs/latest/{name}"
    return web.get(cluster.agents["agent"].address, f"/files/download?path={path}").text


def directory(cluster, framework, task_id):
    run = f"slaves/{cluster.agent_id()}/frameworks/{framework.id}/executors/{task_id}/runs/latest"
    return os.path.join(cluster.directory("agent"), run)


def test_the_exit_code_is_the_result(shared_cluster, framework):
    task_id = framework.run_task("echo 3 > code; sleep 1000", check=check("test -e code || exit 99; exit $(cat code)"))
    for number, code in enumerate((3, 0, 255), 1):
        with open(os.path.join(directory(shared_cluster, framework, task_id), "code"), "w") as file:
            file.write(str(code))
        framework.wait_for(lambda: codes(framework, task_id)[-1:] == [code] and len(codes(framework, task_id)) >= number, 20, f"{code} is told")
    framework.kill(task_id)
    assert framework.wait_terminal(task_id)["check_status"] == {"type": "COMMAND", "command": {}}


def test_a_task_whose_command_fails_is_killed(shared_cluster, framework):
    health = by({"shell": False, "value": "test", "arguments": ["test", "-e", "well"]}, consecutive_failures=2, grace_period_seconds=30)
    task_id = framework.run_task("touch well; sleep 1000", health_check=health)
    framework.wait_for(lambda: told(framework, task_id, HEALTH), 20, "healthy")
    os.unlink(os.path.join(directory(shared_cluster, framework, task_id), "well"))
    last = framework.wait_terminal(task_id)
    assert (last["state"], last["healthy"]) == ("TASK_KILLED", False), last
    assert [s["healthy"] for s in told(framework, task_id, HEALTH)] == [True, False, False]


def test_it_runs_in_the_container_as_its_task(shared_cluster, framework):
    """Namespaces, environment, user, directory and output."""
    variables = lambda **given: {"variables": [{"name": k, "value": v} for k, v in given.items()]}  # noqa: E731
    script = "echo check $(id -un) $A $B $(readlink /proc/self/ns/mnt) $(pwd) $MESOS_TASK_ID"
    command = {"value": script, "user": "root", "environment": variables(B="own")}
    task = {"value": "echo task $(readlink /proc/self/ns/mnt) $(pwd); sleep 1000", "user": "nobody", "environment": variables(A="of-task", B="of-task")}
    task_id = framework.run_task(task, check=check(command, interval_seconds=1000))
    framework.wait_for(lambda: codes(framework, task_id), 20, "a result")
    out = "".join(sandbox(shared_cluster, framework, task_id, name) for name in ("stdout", "stderr")).splitlines()
    own = next(line.split() for line in out if line.startswith("task "))
    found = next(line.split() for line in out if line.startswith("check "))
    assert found == ["check", "nobody", "of-task", "own", own[1], own[2], task_id], out


def test_one_that_takes_too_long_is_ended_with_its_children(shared_cluster, framework):
    script = "echo begun >> begun; (setsid sleep 7654322 & sleep 7654322) & wait"
    task_id = framework.run_task("sleep 1000", check=check(script, timeout_seconds=1), health_check=by("exit 0"))
    begun = lambda: sandbox(shared_cluster, framework, task_id, "begun").count("begun")  # noqa: E731
    wait.until(lambda: begun() >= 3, 30, "it was begun three times")
    sleepers = [p for p in os.listdir("/proc") if p.isdigit() and b"7654322" in cmdline(p) and b"sh" not in cmdline(p)]
    assert len(sleepers) <= 2, "those of earlier ones have ended"
    assert codes(framework, task_id) == [], "no result is no news"
    assert framework.statuses(task_id)[-1]["state"] == "TASK_RUNNING"


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_in_a_container_with_an_image(shared_cluster, framework, images):
    container = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}}
    task_id = framework.run_task("touch /only-here; sleep 1000", container=container, health_check=by("test -e /only-here", grace_period_seconds=30))
    framework.wait_for(lambda: told(framework, task_id, HEALTH), 20, "healthy")
    assert told(framework, task_id, HEALTH)[0]["healthy"] is True


def test_a_secret_in_its_environment_is_refused(framework):
    secret = {"name": "TOKEN", "type": "SECRET", "secret": {"type": "VALUE", "value": {"data": "eA=="}}}
    task_id = framework.run_task("sleep 1000", wait_until=(), check=check({"value": "true", "environment": {"variables": [secret]}}))
    last = framework.wait_terminal(task_id)
    assert last["state"] == "TASK_ERROR" and "TOKEN" in last["message"], last


def test_checks_by_command_outlive_the_agent(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent()
    framework = Framework(bare_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    task_id = framework.run_task("echo 0 > code; sleep 1000", check=check("exit $(cat code)"), health_check=by("exit $(cat code)", consecutive_failures=2))
    framework.wait_for(lambda: told(framework, task_id, HEALTH) and codes(framework, task_id) == [0], 20, "both")
    wait.until(lambda: len(framework.acknowledged) >= 4, 20, "all is acknowledged")
    bare_cluster.agents["agent"].kill9()
    bare_cluster.restart_agent()
    wait.holds(lambda: codes(framework, task_id) == [0] and len(told(framework, task_id, HEALTH)) == 1, 1.5, "nothing new")
    with open(os.path.join(directory(bare_cluster, framework, task_id), "code"), "w") as file:
        file.write("7")
    last = framework.wait_terminal(task_id, timeout=60)
    assert (last["state"], last["healthy"]) == ("TASK_KILLED", False), last

"""Field by field as a real Mesos answered: `mesos-observed.json` holds the shapes of its answers.

The same situation is made here: one framework that has ended, one with a running task and an open offer. What differs
is in ALLOWED with its reason; anything else fails.
"""

import json
import os

import pytest

from harness import cluster as clusters
from harness import shape, wait, web
from harness.framework import Framework

with open(os.path.join(os.path.dirname(__file__), "mesos-observed.json")) as file:
    OBSERVED = json.load(file)

# Patterns of `where: difference`, each with the reason why that is right or not there yet.
ALLOWED = {
    "*.executor_info.resources: missing": "a command task has no executor process beside it, so none is charged for",
    "*.terminated_tasks: empty list": "no executor lingers after its task, so an ended task is completed once it is acknowledged",
    "*git_branch: missing": "the build does not look at git, so that it can be made from an archive",
    "*git_sha: missing": "the build does not look at git, so that it can be made from an archive",
}

MASTER_CALLS = [
    "GET_AGENTS", "GET_EXECUTORS", "GET_FLAGS", "GET_FRAMEWORKS", "GET_HEALTH", "GET_LOGGING_LEVEL", "GET_MASTER", "GET_ROLES",
    "GET_STATE", "GET_TASKS", "GET_VERSION", "GET_WEIGHTS",
]  # fmt: skip
AGENT_CALLS = [
    "GET_AGENT", "GET_CONTAINERS", "GET_EXECUTORS", "GET_FLAGS", "GET_FRAMEWORKS", "GET_HEALTH", "GET_LOGGING_LEVEL",
    "GET_OPERATIONS", "GET_RESOURCE_PROVIDERS", "GET_STATE", "GET_TASKS", "GET_VERSION",
]  # fmt: skip
ENDPOINTS = [
    "master /", "master /api/v1", "master /flags", "master /frameworks", "master /master/state", "master /redirect", "master /roles",
    "master /slaves", "master /state", "master /state-summary", "master /system/stats.json", "master /tasks", "master /version",
    "master /weights", "agent /containers", "agent /flags", "agent /health", "agent /monitor/statistics", "agent /state", "agent /slave(1)/state", "agent /version",
]  # fmt: skip


@pytest.fixture(scope="module")
def shared_cluster(request):
    """As the one of conftest.py, with a weight, as the observed master had one."""
    made = clusters.Cluster(request.node.name)
    made.start_coordinator(weights="wr=2.5")
    made.start_agent()
    yield made
    made.close(request.session.testsfailed > 0)


@pytest.fixture(scope="module")
def situation(shared_cluster):
    """A completed framework, and one with a finished task, a sleeping task and an offer it holds."""
    ended = Framework(shared_cluster.master, name="ended", failover_timeout=10.0, checkpoint=True)
    ended.subscribe()
    ended.run_task("true", wait_until=("TASK_FINISHED",))
    ended.teardown()
    running = Framework(shared_cluster.master, name="running", failover_timeout=10.0, checkpoint=True)
    running.subscribe()
    running.run_task("true", wait_until=("TASK_FINISHED",))
    running.run_task("sleep 1000")
    running.offer(0.1, 32)
    completed = lambda: shared_cluster.operator("GET_TASKS")["get_tasks"].get("completed_tasks")  # noqa: E731
    wait.until(completed, 10, "a completed task")
    shared_cluster.framework = running
    yield shared_cluster
    running.disconnect()


def check(where, observed, value):
    found = shape.differences(observed, value, where)
    bad = shape.unexplained(found, ALLOWED)
    assert not bad, "\n" + "\n".join(bad)


@pytest.fixture(scope="module")
def idle():
    """Another cluster, with all its resources free."""
    made = clusters.Cluster("conformance-idle")
    made.start_coordinator()
    made.start_agent()
    yield made
    made.close(False)


def pruned(value):
    """Flags are compared by the compatibility page, not here: each implementation lists its own."""
    if isinstance(value, dict):
        return {k: pruned(v) if k != "flags" or not isinstance(v, dict) else {} for k, v in value.items()}
    return value


@pytest.mark.parametrize("call", MASTER_CALLS)
def test_operator_reads(situation, call):
    status, observed = OBSERVED["operator_reads"][call]
    answer = web.post_json(situation.master, "/api/v1", {"type": call})
    assert answer.status == status
    check(call, observed, answer.json())


@pytest.mark.parametrize("call", AGENT_CALLS)
def test_agent_reads(situation, call):
    status, observed = OBSERVED["agent_reads"][call]
    answer = web.post_json(situation.agents["agent"].address, "/api/v1", {"type": call})
    assert answer.status == status
    check(f"agent {call}", observed, answer.json())


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_endpoints(situation, endpoint):
    part, path = endpoint.split(" ")
    status, media, observed = OBSERVED["v0_endpoints"][endpoint]
    answer = web.get(situation.master if part == "master" else situation.agents["agent"].address, path)
    assert answer.status == status, answer.text
    assert answer.media == media or status != 200 or not answer.body
    if isinstance(observed, (dict, list)):
        check(endpoint, pruned(observed), pruned(answer.json()))
    else:
        assert answer.text == observed


def test_redirect_names_the_leader(situation):
    location = web.get(situation.master, "/redirect").headers["location"]
    assert location == f"//{situation.master}" or location.startswith(("//localhost:", "//127.0.0.1:")), location


def test_jsonp(situation):
    status, media, start = OBSERVED["v0_endpoints"]["jsonp"]
    answer = web.get(situation.master, "/state?jsonp=cb")
    assert (answer.status, answer.media) == (status, media) and answer.text.startswith(start)


def test_metrics(situation):
    """GET_METRICS: doubles by name. What is there has Mesos' name; which are there, the compatibility page says."""
    answer = situation.operator({"type": "GET_METRICS", "get_metrics": {}})["get_metrics"]["metrics"]
    assert answer and all(isinstance(m["name"], str) and isinstance(m["value"], float) for m in answer)
    names, known = {m["name"] for m in answer}, set(OBSERVED["operator_reads"]["metric_keys"])
    assert {"master/uptime_secs", "master/elected", "master/tasks_running", "master/slaves_active"} <= names
    strange = {n for n in names - known if n.startswith(("master/", "allocator/")) and "/task_" not in n and "/roles/" not in n}
    assert not strange, f"not names of Mesos: {sorted(strange)}"


def test_offers(situation):
    offers = [e for e in situation.framework.events if e["type"] == "OFFERS"][0]["offers"]["offers"]
    check("offer", OBSERVED["offers"]["offer"], offers[0])
    kinds = [f"{r['name']}:{r['type']}" for r in offers[0]["resources"]]
    assert sorted(kinds) == OBSERVED["offers"]["resources"]


def test_subscribe_stream(situation):
    observed = OBSERVED["subscribe_stream"]
    framework = Framework(situation.master, name="stream")
    first = framework.subscribe()
    check("SUBSCRIBED", observed["first"], {k: v for k, v in first.items() if k != "_at"})
    assert framework.headers["content-type"] == observed["content_type"]
    assert framework.headers["transfer-encoding"] == observed["te"]
    assert first["subscribed"]["heartbeat_interval_seconds"] == observed["interval"]
    framework.wait_event("HEARTBEAT", timeout=5)
    assert framework.teardown().status == observed["teardown"]
    wait.until(framework.closed.is_set, 10, "closed after teardown")


COMMANDS = {
    "argv": {"shell": False, "value": "true", "arguments": ["true"]},
    "bad_user": {"shell": True, "value": "true", "user": "no-such-user"},
    "exit3": {"shell": True, "value": "exit 3"},
    "missing": {"shell": False, "value": "/no/such/program", "arguments": ["/no/such/program"]},
    "signal": {"shell": True, "value": "kill -9 $$"},
    "true": {"shell": True, "value": "true"},
}


@pytest.mark.parametrize("case", OBSERVED["command_tasks"])
def test_command_tasks(idle, case):
    """The updates of six small tasks: states, sources, reasons, and which fields each has."""
    framework = Framework(idle.master, name=case)
    framework.subscribe()
    task_id = framework.run_task(COMMANDS[case], wait_until=())
    framework.wait_terminal(task_id)
    updates = []
    for status in framework.statuses(task_id):
        keys = sorted(k for k in status if k not in ("message", "data"))
        updates.append({"state": status["state"], "source": status["source"], "reason": status.get("reason"), "keys": keys})
    observed = [
        {"state": u["state"], "source": u["source"], "reason": u["reason"], "keys": [k for k in u["keys"] if k not in ("message", "data")]}
        for u in OBSERVED["command_tasks"][case]["updates"]
    ]
    framework.teardown()
    assert updates == observed


def test_environment_and_sandbox(idle):
    observed = OBSERVED["environment_and_sandbox"]
    framework = Framework(idle.master, name="environment")
    framework.subscribe()
    task_id = framework.run_task("env | cut -d= -f1 | sort; echo --; ls -a", wait_until=("TASK_FINISHED",))
    path = f"/frameworks/{framework.id}/executors/{task_id}/runs/latest/stdout"
    answer = web.get(idle.agents["agent"].address, f"/files/download?path={path}")
    framework.teardown()
    assert answer.status == observed["stdout_status"]
    names, listed = (part.split() for part in answer.text.split("--\n"))
    missing = set(observed["env"]) - set(names)
    assert not missing, f"not in the environment: {sorted(missing)}"
    extra = set(names) - set(observed["env"]) - {"MESOS_TASK_ID", "SHLVL", "_", "OLDPWD", "LIBPROCESS_IP", "MESOS_AGENT_ID"}
    assert not extra, f"not in Mesos' environment: {sorted(extra)}"
    assert listed == observed["ls"]

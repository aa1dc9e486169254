"""Checks and health checks of native tasks: by HTTP, HTTPS and TCP, what is told of them, and the end of sick tasks."""

import os
import shutil
import socket
import subprocess

import pytest

from harness import wait, web
from harness.cluster import which
from harness.framework import Framework

HEALTH, CHECK = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED", "REASON_TASK_CHECK_STATUS_UPDATED"

# A server that answers with the status in the file named first; a negative one is how many seconds it does not answer.
SERVER = """
import http.server, socket, ssl, sys, time
status, port, family, cert = sys.argv[1:5]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        code = int(open(status).read())
        print(self.path, self.headers["Host"], self.headers["User-Agent"], flush=True)
        if code < 0:
            time.sleep(-code)
        self.send_response(302 if self.path == "/moved" else max(code, 200))
        if self.path == "/moved":
            self.send_header("Location", "here?now")
        self.send_header("Content-Length", "0")
        self.end_headers()
class Server(http.server.ThreadingHTTPServer):
    address_family = getattr(socket, family)
    daemon_threads = True
server = Server(("::1" if family == "AF_INET6" else "127.0.0.1", int(port)), Handler)
if cert:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert)
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.fixture
def framework(shared_cluster):
    made = Framework(shared_cluster.master, capabilities=("MULTI_ROLE", "TASK_KILLING_STATE"))
    made.subscribe()
    yield made
    made.teardown()


class Service:
    """The server above as a task's command, and the file that rules it."""

    def __init__(self, directory, name, code=200, family="AF_INET", cert=""):
        self.base = os.path.join(directory, name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        with open(f"{self.base}.py", "w") as file:
            file.write(SERVER)
        self.answer(code)
        self.command = f"exec {shutil.which('python3')} {self.base}.py {self.base}.status {self.port} {family} '{cert}'"

    def answer(self, code):
        with open(f"{self.base}.new", "w") as file:
            file.write(str(code))
        os.rename(f"{self.base}.new", f"{self.base}.status")


@pytest.fixture
def service(shared_cluster, request):
    directory = shared_cluster.directory("services")

    def make(**how):
        return Service(directory, f"{request.node.name.replace('/', '-')}-{len(os.listdir(directory))}", **how)

    return make


def every(seconds=0.2, **more):
    return {"delay_seconds": 0, "interval_seconds": seconds, "timeout_seconds": 5, **more}


def by_http(port, **more):
    return {"type": "HTTP", "http": {"port": port, **more}}


def by_tcp(port, **more):
    return {"type": "TCP", "tcp": {"port": port, **more}}


def updates(framework, task_id, reason=None):
    """Those of the task that differ, of one reason if one is named."""
    seen = {status["uuid"]: status for status in framework.statuses(task_id) if status.get("uuid")}
    return [status for status in seen.values() if reason in (None, status.get("reason"))]


def health(framework, task_id):
    return [status["healthy"] for status in updates(framework, task_id, HEALTH)]


def results(framework, task_id):
    """What the check was told to have found, in order."""
    return [status["check_status"] for status in updates(framework, task_id, CHECK)]


def wait_health(framework, task_id, *expected, timeout=20):
    framework.wait_for(lambda: health(framework, task_id)[: len(expected)] == list(expected), timeout, f"{task_id} is {expected}")


def certificate(directory):
    if not which("openssl"):
        pytest.fail("openssl is not installed; tests/run installs it")
    path = os.path.join(directory, "self-signed.pem")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", path, "-out", f"{path}.crt", "-subj", "/CN=nobody", "-days", "1"]
    subprocess.run(words, check=True, capture_output=True)
    with open(path, "a") as file, open(f"{path}.crt") as cert:
        file.write(cert.read())
    return path


@pytest.mark.parametrize("kind", ["http", "https", "tcp", "http6", "tcp6"])
def test_a_healthy_task_says_so_once(shared_cluster, framework, service, kind):
    """`HealthCheck.http`, `tcp`, their `protocol` and `scheme`, `delay_seconds`, `interval_seconds`."""
    six = kind.endswith("6")
    cert = certificate(shared_cluster.directory("services")) if kind == "https" else ""
    served = service(family="AF_INET6" if six else "AF_INET", cert=cert)
    protocol = {"protocol": "IPv6"} if six else {}
    scheme = {"scheme": "https"} if kind == "https" else {}
    check = by_tcp(served.port, **protocol) if kind.startswith("tcp") else by_http(served.port, path="/health", **protocol, **scheme)
    task_id = framework.run_task(served.command, health_check={**check, **every(), "grace_period_seconds": 30})
    wait_health(framework, task_id, True)
    status = updates(framework, task_id, HEALTH)[0]
    assert (status["state"], status["source"]) == ("TASK_RUNNING", "SOURCE_EXECUTOR"), status
    assert status["container_status"]["container_id"]["value"] and "check_status" not in status
    wait.holds(lambda: health(framework, task_id) == [True], 1, "healthy once")
    for call in (shared_cluster.operator, shared_cluster.agent_operator):
        tasks = call("GET_TASKS")["get_tasks"]
        shown = next(t for key in ("tasks", "launched_tasks") for t in tasks.get(key, []) if t["task_id"]["value"] == task_id)
        assert shown["statuses"][-1]["healthy"] is True and shown["health_check"]["type"] == check["type"], shown
    state = web.get(shared_cluster.master, "/state").json()
    shown = next(t for f in state["frameworks"] for t in f["tasks"] if t["id"] == task_id)
    assert shown["statuses"][-1]["healthy"] is True
    framework.call("RECONCILE", {"tasks": [{"task_id": {"value": task_id}}]})
    framework.wait_for(lambda: any(s.get("reason") == "REASON_RECONCILIATION" and s["healthy"] for s in framework.statuses(task_id)), 20, "reconciled with its health")
    framework.kill(task_id)
    last = framework.wait_terminal(task_id)
    assert last["state"] == "TASK_KILLED" and "healthy" not in last, last


def test_the_result_of_a_check_is_told_when_it_changes(shared_cluster, framework, service):
    """`CheckInfo.http`, `timeout_seconds`, `TaskStatus.check_status`."""
    served = service()
    task_id = framework.run_task(served.command, check={**by_http(served.port, path="/moved"), **every(), "timeout_seconds": 1})
    of = lambda code: {"type": "HTTP", "http": {"status_code": code} if code else {}}  # noqa: E731
    expected = [of(200)]
    framework.wait_for(lambda: results(framework, task_id)[:1] == expected, 20, "200 after a redirect")
    for code, told in ((503, 503), (-3, None), (204, 204)):
        served.answer(code)
        expected.append(of(told))
        framework.wait_for(lambda: len(results(framework, task_id)) >= len(expected), 20, f"told of {told}")
        assert results(framework, task_id) == expected
    shown = shared_cluster.agent_operator("GET_STATE")["get_state"]["get_tasks"]["launched_tasks"]
    shown = next(t for t in shown if t["task_id"]["value"] == task_id)
    assert shown["statuses"][-1]["check_status"] == of(204)
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    others = [s for s in updates(framework, task_id) if s.get("reason") != CHECK]
    assert [s["state"] for s in others] == ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]
    assert all(s["check_status"] == of(None) for s in others), "each status names the check's kind"


def test_a_check_by_tcp_tells_whether_there_is_a_connection(framework, service):
    """`CheckInfo.tcp`."""
    served = service()
    script = f"sleep 1; {served.command.removeprefix('exec ')}"
    task_id = framework.run_task(script, check={**by_tcp(served.port), **every()})
    framework.wait_for(lambda: len(results(framework, task_id)) == 2, 20, "two results")
    assert [result["tcp"]["succeeded"] for result in results(framework, task_id)] == [False, True]


def test_a_check_and_a_health_check_say_what_the_other_found(framework, service):
    served = service()
    task_id = framework.run_task(
        served.command, check={**by_tcp(served.port), **every(delay_seconds=1.5)}, health_check={**by_http(served.port), **every(grace_period_seconds=9)}
    )
    framework.wait_for(lambda: results(framework, task_id) and health(framework, task_id), 20, "both")
    assert updates(framework, task_id, HEALTH)[0]["check_status"] == {"type": "TCP", "tcp": {}}
    assert updates(framework, task_id, CHECK)[-1]["healthy"] is True


def test_a_task_that_fails_too_often_in_a_row_is_killed(framework, service):
    """`HealthCheck.consecutive_failures`; flapping does not count."""
    served = service()
    task_id = framework.run_task(served.command, health_check={**by_http(served.port), **every(1), "grace_period_seconds": 20, "consecutive_failures": 3})
    wait_health(framework, task_id, True)
    for turn in range(1, 3):
        served.answer(500)
        framework.wait_for(lambda: not health(framework, task_id)[-1], 20, "sick")
        served.answer(200)
        framework.wait_for(lambda: health(framework, task_id)[-1] and health(framework, task_id).count(True) == turn + 1, 20, "well again")
    served.answer(404)
    last = framework.wait_terminal(task_id)
    assert (last["state"], last["healthy"], last["source"]) == ("TASK_KILLED", False, "SOURCE_EXECUTOR"), last
    assert "reason" not in last and "Terminated" in last["message"], last
    assert health(framework, task_id)[-4:] == [True, False, False, False]
    assert framework.states(task_id)[-3:] == ["TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]
    assert "healthy" not in updates(framework, task_id)[-2], "TASK_KILLING says nothing of it"


def test_a_slow_answer_is_a_failure(framework, service):
    """`HealthCheck.timeout_seconds`."""
    served = service(code=-4)
    task_id = framework.run_task(served.command, health_check={**by_http(served.port), **every(), "timeout_seconds": 0.5, "grace_period_seconds": 0, "consecutive_failures": 1000})
    framework.wait_for(lambda: len(health(framework, task_id)) >= 8, 30, "eight failures")
    assert not any(health(framework, task_id))
    served.answer(200)
    framework.wait_for(lambda: health(framework, task_id)[-1], 20, "well")


def test_failures_before_the_first_success_have_a_grace_period(framework, service):
    """`HealthCheck.grace_period_seconds`: ignored within it, counted after it."""
    late, never = service(), service()
    check = {**every(), "consecutive_failures": 1, "grace_period_seconds": 6}
    slow = framework.run_task(f"sleep 2; {late.command}", health_check={**by_http(late.port), **check}, wait_until=())
    dead = framework.run_task("sleep 1000", health_check={**by_http(never.port), **check}, wait_until=())
    wait_health(framework, slow, True)
    since = framework.wait_state(dead, "TASK_RUNNING")["timestamp"]
    wait_health(framework, dead, False)
    first = updates(framework, dead, HEALTH)[0]
    assert first["timestamp"] - since >= 6
    assert framework.wait_terminal(dead)["state"] == "TASK_KILLED" and health(framework, dead) == [False]
    assert health(framework, slow) == [True]


def test_the_first_probe_waits_for_the_delay(framework, service):
    """`HealthCheck.delay_seconds`."""
    task_id = framework.run_task("sleep 1000", health_check={**by_tcp(service().port), **every(delay_seconds=3), "grace_period_seconds": 0})
    wait_health(framework, task_id, False)
    since = framework.wait_state(task_id, "TASK_RUNNING")["timestamp"]
    assert 3 <= updates(framework, task_id, HEALTH)[0]["timestamp"] - since < 3 + 5 * wait.PATIENCE


def test_nobody_asks_a_task_that_is_being_killed(shared_cluster, framework, service):
    served = service()
    stubborn = f"trap '' TERM; {served.command.removeprefix('exec ')} & wait; wait"
    task_id = framework.run_task(stubborn, health_check={**by_http(served.port), **every(), "grace_period_seconds": 30, "consecutive_failures": 1})
    wait_health(framework, task_id, True)
    framework.kill(task_id, kill_policy={"grace_period": {"nanoseconds": 2_000_000_000}})
    framework.wait_state(task_id, "TASK_KILLING")
    last = framework.wait_terminal(task_id)
    assert last["state"] == "TASK_KILLED" and "healthy" not in last
    assert health(framework, task_id) == [True]


def test_checks_outlive_the_agent(bare_cluster):
    """Killed with -9, the agent goes on where it was: nothing is told twice, and failures in a row go on counting."""
    bare_cluster.start_coordinator()
    bare_cluster.start_agent()
    framework = Framework(bare_cluster.master, failover_timeout=3600.0, checkpoint=True)
    framework.subscribe()
    served = Service(bare_cluster.directory("services"), "s")
    often = {**every(), "consecutive_failures": 12, "grace_period_seconds": 1}
    task_id = framework.run_task(served.command, check={**by_http(served.port), **every()}, health_check={**by_http(served.port), **often})
    wait_health(framework, task_id, True)
    framework.wait_for(lambda: results(framework, task_id), 20, "a result")
    wait.until(lambda: len(framework.acknowledged) >= 4, 20, "all is acknowledged")
    before = updates(framework, task_id)
    for _ in range(2):
        bare_cluster.agents["agent"].kill9()
        bare_cluster.restart_agent()
        wait.holds(lambda: updates(framework, task_id) == before, 1.5, "nothing new")
    served.answer(500)
    framework.wait_for(lambda: health(framework, task_id).count(False) >= 4, 30, "sick")
    bare_cluster.agents["agent"].kill9()
    bare_cluster.restart_agent()
    last = framework.wait_terminal(task_id, timeout=60)
    assert (last["state"], last["healthy"]) == ("TASK_KILLED", False)
    # One that was found but not stored when the agent was killed is found again.
    assert health(framework, task_id) == [True, *[False] * 12]
    assert [result["http"]["status_code"] for result in results(framework, task_id)] == [200, 500]


@pytest.mark.parametrize(
    "field,value,words",
    [
        ("check", {"type": "HTTP", "http": {"port": 1, "path": "x"}}, "must begin with '/'"),
        ("check", {"type": "TCP"}, "'tcp' must be set"),
        ("check", {"type": "TCP", "tcp": {"port": 1}, "interval_seconds": -1}, "must not be negative"),
        ("health_check", {"tcp": {"port": 1}}, "must have a known 'type'"),
        ("health_check", {"type": "HTTP", "http": {"port": 1, "scheme": "ftp"}}, "must be http or https"),
        ("health_check", {"type": "COMMAND", "command": {}}, "must have a 'value'"),
    ],
)
def test_what_is_no_check_is_refused_with_words(framework, field, value, words):
    task_id = framework.run_task("sleep 1000", wait_until=(), **{field: value})
    last = framework.wait_terminal(task_id)
    assert last["state"] == "TASK_ERROR" and last["reason"] == "REASON_TASK_INVALID" and words in last["message"], last

"""Commands beside tasks, and the input and output of containers: the API's sessions and attachments, and `tepui exec`."""

import base64
import http.client
import json
import os
import subprocess
import threading
import uuid

import pytest

from harness import recordio, wait, web
from harness.cluster import binary
from harness.framework import Framework
from harness.screen import Screen

JSON = {"Content-Type": "application/json", "Accept": "application/json"}


@pytest.fixture
def framework(shared_cluster):
    made = Framework(shared_cluster.master)
    made.subscribe()
    yield made
    made.teardown()


@pytest.fixture
def screens():
    made = []

    def start(*args, **kwargs):
        made.append(Screen(*args, **kwargs))
        return made[-1]

    yield start
    for screen in made:
        screen.close()


def container_of(framework, task_id):
    return framework.statuses(task_id)[-1]["container_status"]["container_id"]


def tepui(cluster, *words):
    return [binary(), words[0], f"--coordinator={cluster.master}", *words[1:]]


def run(cluster, *words, **more):
    return subprocess.run(tepui(cluster, *words), capture_output=True, text=True, timeout=60 * wait.PATIENCE, **more)


class Stream:
    """The answer to a call that streams ProcessIO."""

    def __init__(self, agent, call, headers=JSON):
        host, port = agent.address.split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=30 * wait.PATIENCE)
        self.connection.request("POST", "/api/v1", json.dumps(call), headers)
        self._socket = self.connection.sock
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.headers = {k.lower(): v for k, v in self.response.getheaders()}
        self.records, self.over = [], threading.Event()
        if self.status == 200:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        decoder = recordio.Decoder()
        try:
            while data := self.response.read1(65536):
                self.records += [json.loads(record) for record in decoder.feed(data)]
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            pass
        self.over.set()

    def data(self, kind="STDOUT"):
        pieces = [r["data"]["data"] for r in list(self.records) if r["type"] == "DATA" and r["data"]["type"] == kind]
        return b"".join(map(base64.b64decode, pieces)).decode()

    def wait_over(self):
        assert self.over.wait(20 * wait.PATIENCE), self.records
        return self

    def cut(self):
        import socket

        self._socket.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def session_call(parent, command, tty=None):
    session = {"value": f"s{uuid.uuid4().hex}", "parent": parent}
    member = {"container_id": session, "command": {"value": command}}
    if tty:
        member["container"] = {"type": "MESOS", "tty_info": {"window_size": {"rows": tty[0], "columns": tty[1]}}}
    return session, {"type": "LAUNCH_NESTED_CONTAINER_SESSION", "launch_nested_container_session": member}


def ask(agent, type_, **member):
    return web.request(agent.address, "POST", "/api/v1", json.dumps({"type": type_, type_.lower(): member}).encode(), JSON)


def wait_for_end(agent, session):
    answer = ask(agent, "WAIT_NESTED_CONTAINER", container_id=session)
    assert answer.status == 200, answer.text
    return answer.json()["wait_nested_container"].get("exit_status")


def typed(*messages):
    """The body of ATTACH_CONTAINER_INPUT."""
    calls = [{"type": "ATTACH_CONTAINER_INPUT", "attach_container_input": message} for message in messages]
    return b"".join(recordio.encode(json.dumps(call).encode()) for call in calls)


def to(container):
    return {"type": "CONTAINER_ID", "container_id": container}


def keys(text):
    data = base64.b64encode(text.encode()).decode()
    return {"type": "PROCESS_IO", "process_io": {"type": "DATA", "data": {"type": "STDIN", "data": data}}}


def post_input(agent, body):
    headers = {"Content-Type": "application/recordio", "Message-Content-Type": "application/json", "Accept": "application/json"}
    return web.request(agent.address, "POST", "/api/v1", body, headers)


def processes_with(mark):
    return [line for line in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines() if mark in line]


# -- the API


def test_a_session_runs_in_the_tasks_container_and_streams_its_output(shared_cluster, framework):
    task_id = framework.run_task("echo mine > /tmp/mine; export A=1; exec sleep 1000")
    agent = shared_cluster.agents["agent"]
    session, call = session_call(container_of(framework, task_id), "cat /tmp/mine; echo $MESOS_TASK_ID; echo problem >&2; exit 3")
    stream = Stream(agent, call).wait_over()
    assert stream.status == 200 and stream.headers["content-type"] == "application/json"
    assert stream.data() == f"mine\n{task_id}\n" and stream.data("STDERR") == "problem\n"
    beat = stream.records[0]
    assert beat["type"] == "CONTROL" and beat["control"]["type"] == "HEARTBEAT", beat
    assert beat["control"]["heartbeat"]["interval"]["nanoseconds"] == 30_000_000_000
    assert wait_for_end(agent, session) == 3 << 8
    assert ask(agent, "REMOVE_NESTED_CONTAINER", container_id=session).status == 200
    assert ask(agent, "WAIT_NESTED_CONTAINER", container_id=session).status == 404


def test_a_session_takes_input_until_its_end(shared_cluster, framework):
    task_id = framework.run_task("exec sleep 1000")
    agent = shared_cluster.agents["agent"]
    session, call = session_call(container_of(framework, task_id), "cat; echo over")
    stream = Stream(agent, call, {**JSON, "Accept": "application/recordio", "Message-Accept": "application/json"})
    assert stream.headers["content-type"] == "application/recordio"
    assert stream.headers["message-content-type"] == "application/json"
    beat = {"type": "PROCESS_IO", "process_io": {"type": "CONTROL", "control": {"type": "HEARTBEAT", "heartbeat": {}}}}
    answer = post_input(agent, typed(to(session), keys("one\n"), beat, keys("two\n"), keys("")))
    assert answer.status == 200, answer.text
    assert stream.wait_over().data() == "one\ntwo\nover\n"
    assert wait_for_end(agent, session) == 0


def test_a_session_with_a_terminal_is_resized(shared_cluster, framework):
    task_id = framework.run_task("exec sleep 1000")
    agent = shared_cluster.agents["agent"]
    session, call = session_call(container_of(framework, task_id), "stty size; read x; stty size", tty=(33, 99))
    stream = Stream(agent, call)
    wait.until(lambda: "33 99" in stream.data(), 20, "the first size")
    size = {"type": "TTY_INFO", "tty_info": {"window_size": {"rows": 11, "columns": 22}}}
    resize = {"type": "PROCESS_IO", "process_io": {"type": "CONTROL", "control": size}}
    assert post_input(agent, typed(to(session), resize, keys("\r"))).status == 200
    assert "11 22" in stream.wait_over().data()


def test_a_session_ends_with_its_connection_and_all_it_has_left_with_it(shared_cluster, framework):
    task_id = framework.run_task("exec sleep 1000")
    agent = shared_cluster.agents["agent"]
    seconds = str(100_000 + uuid.uuid4().int % 100_000)
    session, call = session_call(container_of(framework, task_id), f"(setsid sleep {seconds} &); echo ready; sleep {seconds}")
    stream = Stream(agent, call)
    wait.until(lambda: "ready" in stream.data(), 20, "it runs")
    assert len(processes_with(f"sleep {seconds}")) >= 2
    # Whoever attaches sees it too.
    other = Stream(agent, {"type": "ATTACH_CONTAINER_OUTPUT", "attach_container_output": {"container_id": session}})
    assert other.status == 200
    stream.cut()
    wait.until(lambda: not processes_with(f"sleep {seconds}"), 20, "all of it has ended")
    assert wait_for_end(agent, session) == 9
    other.wait_over()
    assert framework.states(task_id)[-1] == "TASK_RUNNING"


def test_a_session_is_signalled_and_ends_with_its_task(shared_cluster, framework):
    task_id = framework.run_task("exec sleep 1000")
    agent = shared_cluster.agents["agent"]
    parent = container_of(framework, task_id)
    session, call = session_call(parent, "trap 'echo caught; exit 4' TERM; echo ready; while :; do sleep 0.1; done")
    stream = Stream(agent, call)
    wait.until(lambda: "ready" in stream.data(), 20, "it runs")
    assert Stream(agent, call).status == 202, "it is there already"
    assert ask(agent, "KILL_NESTED_CONTAINER", container_id=session, signal=15).status == 200
    assert "caught" in stream.wait_over().data()
    assert wait_for_end(agent, session) == 4 << 8
    session, call = session_call(parent, "echo ready; sleep 1000")
    stream = Stream(agent, call)
    wait.until(lambda: "ready" in stream.data(), 20, "it runs")
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    stream.wait_over()


def test_what_mesos_refuses_is_refused(shared_cluster, framework):
    task_id = framework.run_task("exec sleep 1000")
    agent = shared_cluster.agents["agent"]
    parent = container_of(framework, task_id)
    unknown = {"value": "unknown"}

    def launch(**member):
        return ask(agent, "LAUNCH_NESTED_CONTAINER_SESSION", **{"command": {"value": "true"}, **member})

    assert launch(container_id=unknown).status == 400
    assert launch(container_id={"value": "a", "parent": unknown}).status == 400
    assert launch(container_id={"value": "a.b", "parent": parent}).status == 400
    assert launch(container_id={"value": "a", "parent": parent}, command={}).status == 400
    shared = {"type": "MESOS", "linux_info": {"share_cgroups": False}}
    assert launch(container_id={"value": "a", "parent": parent}, container=shared).status == 400
    assert ask(agent, "ATTACH_CONTAINER_OUTPUT", container_id=unknown).status == 404
    assert post_input(agent, typed(to(unknown))).status == 404
    without_terminal = post_input(agent, typed(to(parent), keys("x")))
    assert without_terminal.status == 500 and "I/O switchboard server was disabled" in without_terminal.text
    assert ask(agent, "ATTACH_CONTAINER_INPUT", **to(parent)).status == 415
    assert post_input(agent, typed(keys("x"))).status == 400, "the first call names a container"
    assert post_input(agent, b"").status == 400
    health = recordio.encode(b'{"type": "GET_HEALTH"}')
    assert post_input(agent, health).status == 415
    records = {"Content-Type": "application/json", "Accept": "application/recordio"}
    assert web.request(agent.address, "POST", "/api/v1", b'{"type": "GET_HEALTH"}', records).status == 406
    nested = {"value": "unknown", "parent": parent}
    for type_ in ("WAIT_NESTED_CONTAINER", "KILL_NESTED_CONTAINER"):
        assert ask(agent, type_, container_id=nested).status == 404, type_


def test_only_one_may_type(shared_cluster, framework):
    task_id = framework.run_task("exec sleep 1000")
    agent = shared_cluster.agents["agent"]
    session, call = session_call(container_of(framework, task_id), "cat")
    stream = Stream(agent, call)
    host, port = agent.address.split(":")
    first = http.client.HTTPConnection(host, int(port), timeout=30)
    first.putrequest("POST", "/api/v1")
    for name, value in {"Content-Type": "application/recordio", "Message-Content-Type": "application/json"}.items():
        first.putheader(name, value)
    first.putheader("Transfer-Encoding", "chunked")
    first.endheaders()
    body = typed(to(session), keys("typed\n"))
    first.send(b"%x\r\n%s\r\n" % (len(body), body))
    wait.until(lambda: stream.data() == "typed\n", 20, "it is typed")
    assert post_input(agent, typed(to(session))).status == 409
    body = typed(keys(""))
    first.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert first.getresponse().status == 200
    stream.wait_over()


def test_the_output_of_a_plain_task_is_followed(shared_cluster, framework):
    task_id = framework.run_task("echo before; while ! test -e go; do sleep 0.1; done; echo after; echo bad >&2; sleep 1")
    agent = shared_cluster.agents["agent"]
    wait.until(lambda: "before" in run(shared_cluster, "logs", task_id).stdout, 20, "it has begun to write")
    stream = Stream(agent, {"type": "ATTACH_CONTAINER_OUTPUT", "attach_container_output": {"container_id": container_of(framework, task_id)}})
    assert stream.status == 200
    assert run(shared_cluster, "exec", task_id, "--", "touch", "go").returncode == 0
    stream.wait_over()
    assert stream.data() == "after\n" and stream.data("STDERR") == "bad\n"


def test_a_task_with_a_terminal(shared_cluster, framework, screens):
    tty = {"type": "MESOS", "tty_info": {"window_size": {"rows": 40, "columns": 90}}}
    task_id = framework.run_task("tty; stty size; while read line; do echo \"<$line>\"; done", container=tty)
    screen = screens(tepui(shared_cluster, "attach", task_id), rows=17, columns=71)
    screen.type("hello\r")
    screen.see("<hello>")
    logs = run(shared_cluster, "logs", task_id).stdout
    assert logs.startswith("/dev/pts/") and "40 90" in logs and "<hello>" in logs, logs
    # Left by keys, it goes on.
    screen.type("\x10\x11")
    assert screen.end() == 0
    again = screens(tepui(shared_cluster, "attach", task_id))
    again.type("again\r")
    again.see("<again>")
    again.type("\x04")
    again.end()
    assert framework.wait_terminal(task_id)["state"] == "TASK_FINISHED"


def test_who_types_into_a_terminal_is_answered_when_the_task_ends(shared_cluster, framework):
    tty = {"type": "MESOS", "tty_info": {"window_size": {"rows": 40, "columns": 90}}}
    task_id = framework.run_task("read line; touch read; exec sleep 1000", container=tty)
    host, port = shared_cluster.agents["agent"].address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30 * wait.PATIENCE)
    try:
        connection.putrequest("POST", "/api/v1")
        for name, value in {"Content-Type": "application/recordio", "Message-Content-Type": "application/json", "Transfer-Encoding": "chunked"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        body = typed(to(container_of(framework, task_id)), keys("a line\r"))
        connection.send(b"%x\r\n%s\r\n" % (len(body), body))
        run_of_task = f"slaves/{shared_cluster.agent_id()}/frameworks/{framework.id}/executors/{task_id}/runs/latest"
        read = os.path.join(shared_cluster.directory("agent"), run_of_task, "read")
        wait.until(lambda: os.path.exists(read), what="the task has read what was typed")
        framework.kill(task_id)
        framework.wait_terminal(task_id)
        # The client has not ended its stream.
        assert connection.getresponse().status == 200
    finally:
        connection.close()


# -- the command


def test_exec_gives_a_working_shell(shared_cluster, framework, screens):
    task_id = framework.run_task("exec sleep 1000")
    screen = screens(tepui(shared_cluster, "exec", "-it", task_id, "--", "sh"), rows=31, columns=97)
    screen.type("echo mark$((40 + 2))\r")
    screen.see("mark42")
    screen.type("stty size; tty\r")
    assert "31 97" in screen.see("/dev/pts/")
    screen.resize(12, 34)
    screen.type("sleep 1; stty size\r")
    screen.see("12 34")
    screen.type("sleep 76544\r")
    wait.until(lambda: processes_with("sleep 76544"), what="it runs")
    screen.type("\x03")
    screen.type("echo interrupted=$?\r")
    screen.see("interrupted=130")
    assert not processes_with("sleep 76544")
    screen.type("exit 7\r")
    assert screen.end() == 7
    assert framework.states(task_id)[-1] == "TASK_RUNNING"


def test_exec_without_a_terminal(shared_cluster, framework):
    task_id = framework.run_task("exec sleep 1000")
    done = run(shared_cluster, "exec", task_id, "--", "sh", "-c", "cat; echo out; echo err >&2; exit 5")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 5), done
    done = run(shared_cluster, "exec", "-i", "--env=A=b c", task_id, "--", "sh", "-c", 'cat; echo "$A"', input="given\n")
    assert (done.stdout, done.returncode) == ("given\nb c\n", 0), done
    assert run(shared_cluster, "exec", task_id, "--", "sh", "-c", "kill -9 $$").returncode == 137
    done = run(shared_cluster, "exec", "--user=nobody", task_id, "--", "sh", "-c", "id -u; echo again > /dev/stdout")
    assert done.stdout == "65534\nagain\n", done
    missing = run(shared_cluster, "exec", task_id, "--", "/no/such/program")
    assert missing.returncode != 0 and "/no/such/program" in missing.stderr
    large = run(shared_cluster, "exec", "-i", task_id, "--", "wc", "-c", input="x" * 5_000_000)
    assert large.stdout.strip() == "5000000"


def test_exec_into_an_image(shared_cluster, framework, images):
    image = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}}
    task_id = framework.run_task("exec sleep 1000", container=image)
    done = run(shared_cluster, "exec", task_id, "--", "/bin/sh", "-c", "cat /etc/from-first-layer; echo $FROM_IMAGE; pwd")
    assert done.returncode == 0 and done.stdout.startswith("first\nyes\n"), done


def test_sessions_end_with_the_agent_and_tasks_do_not(bare_cluster):
    bare_cluster.start_coordinator()
    agent = bare_cluster.start_agent()
    framework = Framework(bare_cluster.master, checkpoint=True)
    framework.subscribe()
    task_id = framework.run_task("exec sleep 1000")
    seconds = str(100_000 + uuid.uuid4().int % 100_000)
    session, call = session_call(container_of(framework, task_id), f"echo ready; (setsid sleep {seconds} &); sleep {seconds}")
    stream = Stream(agent, call)
    wait.until(lambda: "ready" in stream.data(), 20, "it runs")
    agent.kill9()
    wait.until(lambda: not processes_with(f"sleep {seconds}"), 20, "the session has ended with the agent, as Mesos' debug containers do")
    bare_cluster.restart_agent()
    assert run(bare_cluster, "exec", task_id, "--", "sh", "-c", "exit 6").returncode == 6
    assert framework.states(task_id)[-1] == "TASK_RUNNING"
    framework.teardown()


def test_a_terminal_outlives_the_agent(bare_cluster, screens):
    bare_cluster.start_coordinator()
    agent = bare_cluster.start_agent()
    framework = Framework(bare_cluster.master, checkpoint=True)
    framework.subscribe()
    task_id = framework.run_task("while read line; do echo \"<$line>\"; done", container={"type": "MESOS", "tty_info": {}})
    before = screens(tepui(bare_cluster, "attach", task_id))
    before.type("before\r")
    before.see("<before>")
    agent.kill9()
    before.end()
    bare_cluster.restart_agent()
    after = screens(tepui(bare_cluster, "attach", task_id))
    after.type("after\r")
    after.see("<after>")
    assert "<before>" in run(bare_cluster, "logs", task_id).stdout
    after.type("\x10\x11")
    assert after.end() == 0
    framework.teardown()

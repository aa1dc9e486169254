"""Executors of frameworks' own, over /api/v1/executor: what they are told, how they are heard, and how they end.

The executor's voice is this process; what runs in its container is a shell that does as it is told by files.
"""

import base64
import json
import os

import pytest

from harness import codec, executor, wait, web
from harness.executor import Executor
from harness.framework import Framework, task


def own(task_id, framework_id=None, info=None, **more):
    """A task for an executor of its framework's own."""
    return task(None, task_id, executor=info or executor.info(), **more)


def launch(framework, *tasks):
    offer = framework.offer(0.5, 128)
    for one in tasks:
        one["agent_id"] = offer["agent_id"]
    framework.launch(offer, list(tasks))


def connected(cluster, framework, executor_id="e", wire=codec.Json):
    made = Executor(cluster.agents["agent"].address, framework.id, executor_id, wire)
    made.subscribe_when_up()
    return made


def executor_process(cluster, executor_id="e"):
    """The first process of the executor's container, as GET_CONTAINERS tells it."""
    for container in cluster.agent_operator("GET_CONTAINERS")["get_containers"].get("containers", []):
        if container["executor_id"]["value"] == executor_id:
            return container["container_status"].get("executor_pid")
    return None


def failure(framework, executor_id="e", timeout=20.0):
    is_it = lambda event: event["failure"].get("executor_id", {}).get("value") == executor_id  # noqa: E731
    return framework.wait_event("FAILURE", where=is_it, timeout=timeout)["failure"]


@pytest.mark.parametrize("wire", [codec.Json, codec.Protobuf], ids=["json", "protobuf"])
def test_the_life_of_an_executor(cluster, framework, wire):
    labels = {"labels": [{"key": "k", "value": "v"}]}
    info = executor.info(name="mine", source="from", data=base64.b64encode(b"hello").decode(), labels=labels)
    data = base64.b64encode(b"\x00\xff").decode()
    launch(framework, own("a", info=info, data=data), own("b", info=info))
    mine = Executor(cluster.agents["agent"].address, framework.id, "e", wire)
    headers = mine.subscribe_when_up()
    assert headers["content-type"].split(";")[0] == wire.media
    subscribed = mine.events[0]["subscribed"]
    assert subscribed["executor_info"]["executor_id"]["value"] == "e"
    assert subscribed["executor_info"]["framework_id"]["value"] == framework.id
    assert subscribed["executor_info"]["data"] == info["data"]
    assert subscribed["executor_info"]["labels"] == labels
    assert subscribed["framework_info"]["id"]["value"] == framework.id
    assert subscribed["agent_info"]["id"]["value"] == cluster.agent_id()
    assert subscribed["container_id"]["value"]
    given = mine.wait_launch("a")
    assert given["data"] == data and given["executor"]["executor_id"]["value"] == "e"
    mine.wait_launch("b")
    wait.until(lambda: executor_process(cluster), 20, "the executor runs")

    mine.tell("a", "TASK_RUNNING", message="on its way", labels=labels)
    status = framework.wait_state("a", "TASK_RUNNING")
    assert status["source"] == "SOURCE_EXECUTOR" and status["message"] == "on its way"
    assert status["executor_id"]["value"] == "e" and status["labels"] == labels
    assert status["agent_id"]["value"] == cluster.agent_id()
    container = status["container_status"]
    assert container["container_id"]["value"] == subscribed["container_id"]["value"]
    assert container["executor_pid"] == executor_process(cluster)
    assert container["network_infos"][0]["ip_addresses"][0]["ip_address"] == "127.0.0.1"
    told = mine.wait_event("ACKNOWLEDGED")["acknowledged"]
    assert told["task_id"]["value"] == "a"

    shown = cluster.agent_operator("GET_EXECUTORS")["get_executors"]
    assert [e["executor_info"]["executor_id"]["value"] for e in shown["executors"]] == ["e"]
    assert shown["executors"][0]["executor_info"]["name"] == "mine"
    state = web.get(cluster.agents["agent"].address, "/state").json()["frameworks"][0]["executors"]
    assert [e["id"] for e in state] == ["e"] and state[0]["source"] == "from" and state[0]["type"] == "CUSTOM"
    assert sorted(t["id"] for t in state[0]["tasks"]) == ["a", "b"]
    assert state[0]["resources"]["cpus"] == pytest.approx(0.3) and state[0]["resources"]["mem"] == 96
    of_coordinator = cluster.operator("GET_EXECUTORS")["get_executors"]["executors"]
    assert [e["executor_info"]["executor_id"]["value"] for e in of_coordinator] == ["e"]
    assert cluster.charged() == {"cpus": 0.3, "mem": 96}

    mine.tell("a", "TASK_FINISHED")
    mine.tell("b", "TASK_FAILED", message="no")
    framework.wait_state("a", "TASK_FINISHED")
    assert framework.wait_state("b", "TASK_FAILED")["message"] == "no"
    wait.until(lambda: cluster.charged() == {"cpus": 0.1, "mem": 32}, 10, "only the executor is charged")
    # It stays for further tasks.
    launch(framework, own("c", info=info))
    mine.wait_launch("c")
    mine.tell("c", "TASK_FINISHED")
    framework.wait_state("c", "TASK_FINISHED")
    framework.call("SHUTDOWN", {"executor_id": {"value": "e"}, "agent_id": {"value": cluster.agent_id()}})
    mine.wait_event("SHUTDOWN")
    assert failure(framework)["status"] == 9, "it had its grace period and did not end"
    wait.until(lambda: not cluster.charged(), 10, "nothing is charged")
    over = cluster.agent_operator("GET_EXECUTORS")["get_executors"]
    assert not over.get("executors")
    states = web.get(cluster.agents["agent"].address, "/state").json()
    assert not states["frameworks"], "it has nothing here any more"
    done = states["completed_frameworks"][0]["completed_executors"]
    assert [e["id"] for e in done] == ["e"]
    assert sorted(t["id"] for t in done[0]["completed_tasks"]) == ["a", "b", "c"]


def counted(cluster, *names):
    """These metrics of the agent."""
    metrics = web.get(cluster.agents["agent"].address, "/metrics/snapshot").json()
    return [metrics[f"slave/{name}"] for name in names]


def test_messages_go_both_ways(cluster, framework):
    messages = ("valid_framework_messages", "invalid_framework_messages")
    valid, invalid = counted(cluster, *messages)
    launch(framework, own("t"))
    mine = connected(cluster, framework)
    said = base64.b64encode(b"to the executor \x00\xff").decode()
    framework.call("MESSAGE", {"agent_id": {"value": cluster.agent_id()}, "executor_id": {"value": "e"}, "data": said})
    assert mine.wait_event("MESSAGE")["message"]["data"] == said
    answer = base64.b64encode(b"\xff\x00 to the scheduler").decode()
    assert mine.send("MESSAGE", message={"data": answer}).status == 202
    heard = framework.wait_event("MESSAGE")["message"]
    assert heard["data"] == answer and heard["executor_id"]["value"] == "e"
    assert heard["agent_id"]["value"] == cluster.agent_id()
    assert mine.send("HEARTBEAT").status == 202
    assert counted(cluster, *messages) == [valid + 2, invalid]
    framework.call("MESSAGE", {"agent_id": {"value": cluster.agent_id()}, "executor_id": {"value": "no such"}, "data": said})
    wait.until(lambda: counted(cluster, *messages) == [valid + 2, invalid + 1], what="the message for nobody is counted")


def test_kills_are_the_executors_to_carry_out(cluster, framework):
    launch(framework, own("t"))
    mine = connected(cluster, framework)
    mine.wait_launch("t")
    mine.tell("t", "TASK_RUNNING")
    framework.wait_state("t", "TASK_RUNNING")
    policy = {"grace_period": {"nanoseconds": 7_000_000_000}}
    framework.call("KILL", {"task_id": {"value": "t"}, "kill_policy": policy})
    kill = mine.wait_event("KILL")["kill"]
    assert kill["task_id"]["value"] == "t"
    assert int(kill["kill_policy"]["grace_period"]["nanoseconds"]) == 7_000_000_000
    mine.tell("t", "TASK_KILLED")
    assert framework.wait_state("t", "TASK_KILLED")["source"] == "SOURCE_EXECUTOR"


def test_a_task_killed_before_its_executor_is_there_never_reaches_it(cluster, framework):
    launch(framework, own("t"))
    wait.until(lambda: executor_process(cluster), 20, "the executor runs")
    framework.kill("t")
    status = framework.wait_state("t", "TASK_KILLED")
    assert status["reason"] == "REASON_TASK_KILLED_DURING_LAUNCH" and status["source"] == "SOURCE_AGENT"
    mine = Executor(cluster.agents["agent"].address, framework.id, "e")
    mine.subscribe()
    mine.wait_event("SHUTDOWN")
    assert "LAUNCH" not in mine.types() and "SUBSCRIBED" not in mine.types()
    failure(framework)


def test_a_group_of_tasks_goes_to_a_custom_executor_whole(cluster, framework):
    offer = framework.offer(0.5, 128)
    tasks = [task(None, name, agent_id=offer["agent_id"], disk=1) for name in ("g1", "g2")]
    group = {"executor": {**executor.info(disk=1), "framework_id": {"value": framework.id}}, "task_group": {"tasks": tasks}}
    operation = {"type": "LAUNCH_GROUP", "launch_group": group}
    framework.call("ACCEPT", {"offer_ids": [offer["id"]], "operations": [operation]})
    mine = connected(cluster, framework)
    given = mine.wait_event("LAUNCH_GROUP")["launch_group"]["task_group"]["tasks"]
    assert sorted(t["task_id"]["value"] for t in given) == ["g1", "g2"]
    for name in ("g1", "g2"):
        mine.tell(name, "TASK_FINISHED")
        framework.wait_state(name, "TASK_FINISHED")


def test_the_environment_and_the_sandbox_of_an_executor(cluster):
    framework = Framework(cluster.master, checkpoint=True)
    framework.subscribe()
    info = executor.info(
        command="env > seen; pwd > where; exec sleep 1000",
        shutdown_grace_period={"nanoseconds": 1_500_000_000},
    )
    info["command"]["environment"] = {"variables": [{"name": "OWN", "value": "yes"}]}
    launch(framework, own("t", info=info))
    mine = connected(cluster, framework)
    state = web.get(cluster.agents["agent"].address, "/state").json()["frameworks"][0]["executors"][0]
    sandbox = state["directory"]
    path = os.path.join(sandbox, "where")
    wait.until(lambda: os.path.exists(path) and open(path).read(), 10, "the executor has looked around")
    assert open(path).read().strip() == sandbox
    assert f"/frameworks/{framework.id}/executors/e/runs/{state['container']}" in sandbox
    seen = dict(line.rstrip("\n").split("=", 1) for line in open(os.path.join(sandbox, "seen")) if "=" in line)
    agent = cluster.agents["agent"].address
    expected = {
        "MESOS_FRAMEWORK_ID": framework.id,
        "MESOS_EXECUTOR_ID": "e",
        "MESOS_DIRECTORY": sandbox,
        "MESOS_SANDBOX": sandbox,
        "MESOS_SLAVE_ID": cluster.agent_id(),
        "MESOS_SLAVE_PID": f"slave(1)@{agent}",
        "MESOS_AGENT_ENDPOINT": agent,
        "MESOS_CHECKPOINT": "1",
        "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "1500ms",
        "MESOS_RECOVERY_TIMEOUT": "15mins",
        "MESOS_SUBSCRIPTION_BACKOFF_MAX": "2secs",
        "MESOS_HTTP_COMMAND_EXECUTOR": "0",
        "LIBPROCESS_PORT": "0",
        "OWN": "yes",
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert "MESOS_TASK_ID" not in seen
    # Its own grace period, not the agent's of five seconds.
    framework.call("SHUTDOWN", {"executor_id": {"value": "e"}, "agent_id": {"value": cluster.agent_id()}})
    mine.wait_event("SHUTDOWN")
    failure(framework, timeout=4)
    framework.disconnect()


def test_what_an_executor_may_use_grows_and_shrinks_with_its_tasks(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(isolation="cgroups/cpu,cgroups/mem", cgroups_enable_cfs="true")
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    launch(framework, own("a", mem=64, cpus=0.5))
    mine = connected(bare_cluster, framework)

    def limit():
        found = bare_cluster.agent_operator("GET_CONTAINERS")["get_containers"]["containers"][0]
        figures = found["resource_statistics"]
        return round(figures["cpus_limit"], 2), figures["mem_limit_bytes"] >> 20

    mine.wait_launch("a")
    wait.until(lambda: executor_process(bare_cluster), 10, "the executor runs")
    assert limit() == (0.6, 96)
    launch(framework, own("b", mem=100, cpus=1))
    mine.wait_launch("b")
    assert limit() == (1.6, 196), "it has what the task needs before it is given the task"
    mine.tell("b", "TASK_FINISHED")
    framework.wait_state("b", "TASK_FINISHED")
    wait.until(lambda: limit()[0] == 0.6, 10, "what the task needed is taken back")
    framework.disconnect()


def test_an_executor_that_fails_to_start_fails_its_tasks(cluster, framework):
    info = executor.info(command="ignored")
    info["command"] = {"shell": False, "value": "/no/such/program", "arguments": ["program"]}
    launch(framework, own("t", info=info))
    status = framework.wait_state("t", "TASK_FAILED")
    assert status["source"] == "SOURCE_AGENT"
    failure(framework)
    # A new one may have its name.
    launch(framework, own("u"))
    mine = connected(cluster, framework)
    mine.wait_launch("u")
    mine.tell("u", "TASK_FINISHED")
    framework.wait_state("u", "TASK_FINISHED")


def test_an_executor_on_an_image(cluster, framework, images):
    info = executor.info(command="echo here > /mnt/mesos/sandbox/out; exec sleep 1000")
    info["container"] = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}}
    launch(framework, own("t", info=info))
    mine = connected(cluster, framework)
    mine.wait_launch("t")
    mine.tell("t", "TASK_FINISHED")
    framework.wait_state("t", "TASK_FINISHED")
    sandbox = web.get(cluster.agents["agent"].address, "/state").json()["frameworks"][0]["executors"][0]["directory"]
    wait.until(lambda: os.path.exists(os.path.join(sandbox, "out")), 10, "it wrote into its sandbox")


def test_what_is_answered(cluster, framework):
    agent = cluster.agents["agent"].address
    launch(framework, own("t"))
    wait.until(lambda: executor_process(cluster), 20, "the executor runs")
    mine = Executor(agent, framework.id, "e")
    good = mine.status("t", "TASK_RUNNING")

    def ask(message, headers=None, method="POST"):
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        answer = web.request(agent, method, "/api/v1/executor", body, headers or {"Content-Type": web.JSON})
        return answer.status, answer.text

    ids = {"executor_id": {"value": "e"}, "framework_id": {"value": framework.id}}
    update = {"type": "UPDATE", **ids}
    assert ask(b"", method="GET")[0] == 405
    assert ask(b"{}", headers={"Accept": web.JSON})[0] == 400, "no Content-Type"
    assert ask(b"{}", headers={"Content-Type": "text/plain"})[0] == 415
    for bad, words in [
        (b"{", "JSON"),
        ({"type": "UPDATE", "framework_id": {"value": framework.id}}, "executor_id"),
        (ids, "type"),
        ({"type": "SUBSCRIBE", **ids}, "subscribe"),
        ({"type": "MESSAGE", **ids}, "message"),
        (update, "update"),
        ({**update, "update": {"status": {**good, "uuid": None}}}, "uuid"),
        ({**update, "update": {"status": {**good, "uuid": "AAAA"}}}, "uuid"),
        ({**update, "update": {"status": {**good, "source": "SOURCE_MASTER"}}}, "SOURCE_EXECUTOR"),
        ({**update, "update": {"status": {**good, "state": "TASK_STAGING"}}}, "TASK_STAGING"),
        ({**update, "update": {"status": {**good, "executor_id": {"value": "x"}}}}, "executor"),
    ]:
        status, text = ask(bad)
        assert status == 400 and words in text, (bad, status, text)
    other = {"type": "MESSAGE", "message": {"data": ""}}
    assert ask({**other, **ids, "framework_id": {"value": "no"}}) == (400, "Framework cannot be found")
    assert ask({**other, **ids, "executor_id": {"value": "no"}}) == (400, "Executor cannot be found")
    assert ask({**other, **ids}) == (403, "Executor is not subscribed")
    assert ask({"type": "HEARTBEAT", "executor_id": {"value": "?"}, "framework_id": {"value": "?"}})[0] == 202
    subscribe = {"type": "SUBSCRIBE", "subscribe": {}, **ids}
    assert ask(subscribe, headers={"Content-Type": web.JSON, "Accept": "text/html"})[0] == 406
    mine.subscribe_when_up()
    assert ask({**update, "update": {"status": good}})[0] == 202
    framework.wait_state("t", "TASK_RUNNING")


# -- an agent that is killed


def test_an_executor_outlives_the_agent(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(executor_reregistration_timeout="15secs")
    framework = Framework(bare_cluster.master, checkpoint=True)
    framework.subscribe()
    launch(framework, own("a"), own("b"))
    mine = connected(bare_cluster, framework)
    mine.wait_launch("a")
    mine.wait_launch("b")
    mine.tell("a", "TASK_RUNNING")
    mine.tell("b", "TASK_RUNNING")
    framework.wait_state("b", "TASK_RUNNING")
    process = wait.until(lambda: executor_process(bare_cluster), 20, "the executor runs")
    agent = bare_cluster.agents["agent"]
    agent.kill9()
    assert mine.closed.wait(10)
    # What it wants to say meanwhile waits, and what it said may have been heard or not: it says both.
    heard = mine.status("a", "TASK_FINISHED")
    mine.updates[heard["uuid"]] = heard
    bare_cluster.restart_agent()
    assert mine.send("UPDATE", update={"status": heard}).status == 403, "it has to subscribe first"
    mine.subscribe_when_up()
    framework.wait_state("a", "TASK_FINISHED")
    mine.tell("b", "TASK_FINISHED")
    framework.wait_state("b", "TASK_FINISHED")
    assert executor_process(bare_cluster) == process
    for name in ("a", "b"):
        assert framework.states(name) == ["TASK_RUNNING", "TASK_FINISHED"]
    framework.disconnect()


def test_a_task_that_never_reached_its_executor_is_dropped_after_a_restart(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(executor_reregistration_timeout="15secs")
    framework = Framework(bare_cluster.master, checkpoint=True, capabilities=("MULTI_ROLE", "PARTITION_AWARE"))
    framework.subscribe()
    launch(framework, own("t"))
    wait.until(lambda: executor_process(bare_cluster), 20, "the executor runs")
    bare_cluster.agents["agent"].kill9()
    bare_cluster.restart_agent()
    mine = connected(bare_cluster, framework)
    status = framework.wait_state("t", "TASK_DROPPED")
    assert status["reason"] == "REASON_AGENT_RESTARTED" and status["source"] == "SOURCE_AGENT"
    assert "LAUNCH" not in mine.types()
    framework.disconnect()


def test_an_executor_that_does_not_come_back_is_ended(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent()
    framework = Framework(bare_cluster.master, checkpoint=True, capabilities=("MULTI_ROLE", "PARTITION_AWARE"))
    framework.subscribe()
    launch(framework, own("t"))
    mine = connected(bare_cluster, framework)
    mine.wait_launch("t")
    mine.tell("t", "TASK_RUNNING")
    framework.wait_state("t", "TASK_RUNNING")
    wait.until(lambda: executor_process(bare_cluster), 20, "the executor runs")
    bare_cluster.agents["agent"].kill9()
    bare_cluster.restart_agent()
    status = framework.wait_state("t", "TASK_GONE")
    assert status["reason"] == "REASON_EXECUTOR_REREGISTRATION_TIMEOUT" and "2secs" in status["message"]
    failure(framework)
    framework.disconnect()


def test_an_executor_that_ends_while_the_agent_is_away_is_told(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent()
    framework = Framework(bare_cluster.master, checkpoint=True)
    framework.subscribe()
    gate = os.path.join(bare_cluster.directory("gates"), "open")
    launch(framework, own("t", info=executor.info(command=f"until [ -e {gate} ]; do sleep 0.1; done; exit 7")))
    mine = connected(bare_cluster, framework)
    mine.wait_launch("t")
    mine.tell("t", "TASK_RUNNING")
    framework.wait_state("t", "TASK_RUNNING")
    process = wait.until(lambda: executor_process(bare_cluster), 20, "the executor runs")
    bare_cluster.agents["agent"].kill9()
    open(gate, "w").close()
    wait.until(lambda: not os.path.exists(f"/proc/{process}"), 10, "the executor has ended")
    bare_cluster.restart_agent()
    status = framework.wait_state("t", "TASK_FAILED")
    assert status["reason"] == "REASON_EXECUTOR_TERMINATED"
    assert failure(framework)["status"] == 7 << 8
    framework.disconnect()


# -- executors that do not behave


@pytest.fixture
def impatient(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(executor_registration_timeout="2secs", executor_shutdown_grace_period="1secs")
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    yield bare_cluster, framework
    framework.disconnect()


def test_one_that_never_registers(impatient):
    cluster, framework = impatient
    launch(framework, own("t"))
    status = framework.wait_state("t", "TASK_FAILED")
    assert status["reason"] == "REASON_EXECUTOR_REGISTRATION_TIMEOUT" and "2secs" in status["message"]
    assert status["source"] == "SOURCE_AGENT"
    failure(framework)
    assert not cluster.task_leftovers()


def test_one_that_registers_twice(impatient):
    cluster, framework = impatient
    launch(framework, own("t"))
    first = connected(cluster, framework)
    first.wait_launch("t")
    second = Executor(cluster.agents["agent"].address, framework.id, "e")
    second.tasks = dict(first.tasks)
    second.subscribe_when_up()
    assert first.closed.wait(10), "the older stream is closed"
    assert "LAUNCH" not in second.types(), "it said that it has the task"
    second.tell("t", "TASK_FINISHED")
    framework.wait_state("t", "TASK_FINISHED")
    third = Executor(cluster.agents["agent"].address, framework.id, "e")
    launch(framework, own("u"))
    second.wait_launch("u")
    third.subscribe_when_up()
    assert framework.wait_state("u", "TASK_LOST")["reason"] == "REASON_AGENT_RESTARTED", "it never heard of it"


def test_one_that_floods_its_agent_with_updates(impatient):
    cluster, framework = impatient
    launch(framework, own("t"))
    mine = connected(cluster, framework)
    mine.wait_launch("t")
    import http.client
    import threading

    def flood(count):
        connection = http.client.HTTPConnection(mine.agent, timeout=60)
        for _ in range(count):
            body = mine._call("UPDATE", update={"status": mine.status("t", "TASK_RUNNING")})
            connection.request("POST", "/api/v1/executor", json.dumps(body), {"Content-Type": web.JSON})
            assert connection.getresponse().read() == b""
        connection.close()

    threads = [threading.Thread(target=flood, args=(FLOOD // 20,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    # Others are served meanwhile.
    framework.run_task("true", "meanwhile", wait_until=("TASK_FINISHED",))
    for thread in threads:
        thread.join()
    mine.tell("t", "TASK_FINISHED")
    # Each waits for its acknowledgement: the framework goes before they have all been sent.
    framework.wait_state("t", "TASK_RUNNING")
    framework.teardown()
    wait.until(lambda: not cluster.task_leftovers(), 20, "nothing is left")


FLOOD = int(os.environ.get("FLOOD", "10000"))


def test_one_that_sends_nonsense(impatient):
    cluster, framework = impatient
    launch(framework, own("t"))
    mine = connected(cluster, framework)
    mine.wait_launch("t")
    for body in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"type":"UPDATE"}', b"{" * 100_000):
        answer = web.request(mine.agent, "POST", "/api/v1/executor", body, {"Content-Type": web.JSON})
        assert answer.status == 400, (body[:20], answer)
    answer = web.request(mine.agent, "POST", "/api/v1/executor", b"\xff" * 50, {"Content-Type": web.PROTOBUF})
    assert answer.status == 400
    mine.tell("t", "TASK_FINISHED")
    framework.wait_state("t", "TASK_FINISHED")


def test_one_that_tells_of_tasks_that_are_not_its_own(impatient):
    cluster, framework = impatient
    before = counted(cluster, "invalid_status_updates")[0]
    launch(framework, own("t"), own("other", info=executor.info("f")))
    mine = connected(cluster, framework)
    other = connected(cluster, framework, "f")
    command = framework.run_task("sleep 1000", "command")
    other.wait_launch("other")
    for foreign in ("other", command):
        mine.tell(foreign, "TASK_FINISHED")
    mine.tell("t", "TASK_FAILED", message="the first word counts")
    mine.tell("t", "TASK_FINISHED")
    assert framework.wait_state("t", "TASK_FAILED")["message"] == "the first word counts"
    other.tell("other", "TASK_RUNNING")
    framework.wait_state("other", "TASK_RUNNING")
    assert framework.states("t") == ["TASK_FAILED"]
    assert framework.states(command) == ["TASK_STARTING", "TASK_RUNNING"]
    assert counted(cluster, "invalid_status_updates") == [before + 2], "the foreign ones"


@pytest.mark.parametrize("stage", ["before it registers", "when it has registered", "with a task", "with a running task"])
def test_one_that_dies(impatient, stage):
    cluster, framework = impatient
    gate = os.path.join(cluster.directory("gates"), "open")
    if stage == "before it registers":
        launch(framework, own("t", info=executor.info(command="exit 3")))
    else:
        launch(framework, own("t", info=executor.info(command=f"until [ -e {gate} ]; do sleep 0.05; done; exit 3")))
        mine = connected(cluster, framework)
        if stage != "when it has registered":
            mine.wait_launch("t")
        if stage == "with a running task":
            mine.tell("t", "TASK_RUNNING")
            framework.wait_state("t", "TASK_RUNNING")
        open(gate, "w").close()
    status = framework.wait_state("t", "TASK_FAILED")
    assert status["reason"] == "REASON_EXECUTOR_TERMINATED" and status["source"] == "SOURCE_AGENT"
    assert failure(framework)["status"] == 3 << 8
    wait.until(lambda: not cluster.task_leftovers() and not cluster.charged(), 10, "nothing is left")


def test_one_that_hangs_on_a_kill_and_on_its_shutdown(impatient):
    cluster, framework = impatient
    launch(framework, own("t", info=executor.info(command="trap '' TERM; while :; do sleep 1; done")))
    mine = connected(cluster, framework)
    mine.wait_launch("t")
    mine.tell("t", "TASK_RUNNING")
    framework.wait_state("t", "TASK_RUNNING")
    framework.kill("t")
    mine.wait_event("KILL")
    wait.holds(lambda: framework.states("t") == ["TASK_RUNNING"], 2, "nobody else kills it")
    framework.call("SHUTDOWN", {"executor_id": {"value": "e"}, "agent_id": {"value": cluster.agent_id()}})
    mine.wait_event("SHUTDOWN")
    status = framework.wait_state("t", "TASK_FAILED")
    assert status["reason"] == "REASON_EXECUTOR_TERMINATED"
    assert failure(framework)["status"] == 9


def test_one_that_forks_and_leaves_children(impatient):
    cluster, framework = impatient
    command = "for n in 1 2 3; do (setsid sh -c 'trap \"\" TERM; sleep 1000' &) ; done; sleep 0.3; exit 0"
    launch(framework, own("t", info=executor.info(command=command)))
    status = framework.wait_state("t", "TASK_FAILED")
    assert status["reason"] == "REASON_EXECUTOR_TERMINATED"
    assert failure(framework)["status"] == 0
    wait.until(lambda: not cluster.task_leftovers(), 10, "its children are gone with it")


def test_one_that_takes_more_memory_than_it_has(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(isolation="cgroups/mem")
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    gate = os.path.join(bare_cluster.directory("gates"), "open")
    hog = f"until [ -e {gate} ]; do sleep 0.05; done; exec tail /dev/zero"
    launch(framework, own("t", info=executor.info(command=hog)))
    mine = connected(bare_cluster, framework)
    mine.wait_launch("t")
    open(gate, "w").close()
    status = framework.wait_state("t", "TASK_FAILED")
    assert status["reason"] == "REASON_CONTAINER_LIMITATION_MEMORY" and "limitation" in status
    framework.disconnect()

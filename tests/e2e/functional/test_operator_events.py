"""The operator's SUBSCRIBE: a snapshot first, then agents, frameworks and tasks as they come and go."""

import http.client
import json
import threading

from harness import codec, recordio, wait, web
from harness.framework import Framework

import pytest


class Stream:
    """Events of the operator API, read on a thread."""

    def __init__(self, master, language=codec.Json):
        self.events = []
        host, port = master.split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=60)
        body = language.encode("mesos.v1.master.Call", {"type": "SUBSCRIBE"})
        self.connection.request("POST", "/api/v1", body, {"Content-Type": language.media, "Accept": language.media})
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        self.language = language
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        decoder = recordio.Decoder()
        try:
            while data := self.response.read1(65536):
                self.events += [self.language.decode("mesos.v1.master.Event", r) for r in decoder.feed(data)]
        except (OSError, http.client.HTTPException, AttributeError, ValueError):
            pass

    def types(self):
        return [event["type"] for event in self.events]

    def wait(self, type_, timeout=15):
        return wait.until(lambda: next((e for e in self.events if e["type"] == type_), None), timeout, type_)


@pytest.mark.parametrize("language", [codec.Json, codec.Protobuf])
def test_events(cluster, language):
    stream = Stream(cluster.master, language)
    snapshot = stream.wait("SUBSCRIBED")["subscribed"]
    assert stream.types()[0] == "SUBSCRIBED" and float(snapshot["heartbeat_interval_seconds"]) == 15.0
    agents = snapshot["get_state"]["get_agents"]["agents"]
    assert [a["agent_info"]["id"]["value"] for a in agents] == [cluster.agent_id()]
    stream.wait("HEARTBEAT")
    framework = Framework(cluster.master)
    framework.subscribe()
    added = stream.wait("FRAMEWORK_ADDED")["framework_added"]["framework"]
    assert added["framework_info"]["id"]["value"] == framework.id
    task_id = framework.run_task("true", wait_until=("TASK_FINISHED",))
    assert stream.wait("TASK_ADDED")["task_added"]["task"]["task_id"]["value"] == task_id

    def states():
        # `task_updated.state` is the latest one that the agent knows, and so may be ahead of the update.
        return [e["task_updated"]["status"]["state"] for e in stream.events if e["type"] == "TASK_UPDATED"]

    wait.until(lambda: states() == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"], 10, "every state was told")
    framework.teardown()
    assert stream.wait("FRAMEWORK_REMOVED")["framework_removed"]["framework_info"]["id"]["value"] == framework.id
    cluster.start_agent("late")
    wait.until(lambda: "AGENT_ADDED" in stream.types(), 10, "the second agent was told")


def test_reads_over_protobuf(cluster):
    """Every read that the operator API has over JSON, over protobuf too."""
    calls = "GET_HEALTH GET_VERSION GET_FLAGS GET_STATE GET_AGENTS GET_FRAMEWORKS GET_TASKS GET_ROLES GET_MASTER".split()
    headers = {"Content-Type": web.PROTOBUF, "Accept": web.PROTOBUF}
    for call in calls:
        body = codec.Protobuf.encode("mesos.v1.master.Call", {"type": call})
        answer = web.request(cluster.master, "POST", "/api/v1", body, headers)
        assert (answer.status, answer.media) == (200, web.PROTOBUF), call
        decoded = codec.Protobuf.decode("mesos.v1.master.Response", answer.body)
        assert decoded["type"] == call and (call == "GET_HEALTH" or call.lower() in decoded)
    for call in ("GET_HEALTH", "GET_STATE", "GET_TASKS", "GET_CONTAINERS"):
        body = codec.Protobuf.encode("mesos.v1.agent.Call", {"type": call})
        answer = web.request(cluster.agents["agent"].address, "POST", "/api/v1", body, headers)
        assert (answer.status, answer.media) == (200, web.PROTOBUF), call
        assert codec.Protobuf.decode("mesos.v1.agent.Response", answer.body)["type"] == call


def test_what_get_state_says_is_what_the_parts_say(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    framework.run_task("sleep 1000")
    state = cluster.operator("GET_STATE")["get_state"]
    for part in ("get_agents", "get_frameworks", "get_tasks"):
        alone = cluster.operator(part.upper())[part]
        assert json.dumps(state[part], sort_keys=True) == json.dumps(alone, sort_keys=True)

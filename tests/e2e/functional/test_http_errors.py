"""Requests that are refused: the status codes that Mesos answers, each with a sentence."""

import json

import pytest

from harness import web
from harness.framework import Framework, task

SCHEDULER = "/api/v1/scheduler"
SUBSCRIBE = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root", "name": "errors", "roles": ["*"]}}}
BOTH = [("master", "/api/v1/scheduler"), ("master", "/api/v1"), ("agent", "/api/v1")]


@pytest.fixture
def framework(shared_cluster):
    made = Framework(shared_cluster.master)
    made.subscribe()
    yield made
    made.teardown()


def address_of(cluster, part):
    return cluster.master if part == "master" else cluster.agents["agent"].address


def refused(answer, status):
    assert answer.status == status, (answer.status, answer.text)
    assert answer.media == "text/plain" and answer.body, "a refusal says why"
    return answer.text


@pytest.mark.parametrize("part,path", BOTH)
def test_only_post(shared_cluster, part, path):
    text = refused(web.get(address_of(shared_cluster, part), path), 405)
    assert text == "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'.", text


@pytest.mark.parametrize("part,path", BOTH)
def test_content_type_is_needed(shared_cluster, part, path):
    text = refused(web.request(address_of(shared_cluster, part), "POST", path, b"{}"), 400)
    assert "Content-Type" in text


@pytest.mark.parametrize("part,path", BOTH)
def test_unknown_content_type(shared_cluster, part, path):
    answer = web.request(address_of(shared_cluster, part), "POST", path, b"{}", {"Content-Type": "text/xml"})
    assert "application/json" in refused(answer, 415)


@pytest.mark.parametrize("part,path", BOTH)
@pytest.mark.parametrize("media,body", [(web.JSON, b"{nonsense"), (web.JSON, b"[]"), (web.PROTOBUF, b"\xff\xff\xff")])
def test_a_body_that_cannot_be_read(shared_cluster, part, path, media, body):
    headers = {"Content-Type": media, "Accept": web.JSON}
    refused(web.request(address_of(shared_cluster, part), "POST", path, body, headers), 400)


@pytest.mark.parametrize("part,path,call", [("master", SCHEDULER, SUBSCRIBE), ("master", "/api/v1", {"type": "GET_HEALTH"}), ("agent", "/api/v1", {"type": "GET_HEALTH"})])  # fmt: skip
def test_not_acceptable(shared_cluster, part, path, call):
    answer = web.post_json(address_of(shared_cluster, part), path, call, {"Accept": "image/png"})
    refused(answer, 406)


def test_a_missing_required_field_is_named(shared_cluster):
    call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root"}}}
    text = refused(web.post_json(shared_cluster.master, SCHEDULER, call), 400)
    assert "name" in text, text


@pytest.mark.parametrize("call", [{}, {"type": "SUBSCRIBE"}, {"type": "KILL"}])
def test_an_incomplete_call(shared_cluster, call):
    refused(web.post_json(shared_cluster.master, SCHEDULER, call), 400)


def test_ids_must_agree_in_subscribe(shared_cluster):
    call = json.loads(json.dumps(SUBSCRIBE))
    call["framework_id"] = {"value": "other"}
    text = refused(web.post_json(shared_cluster.master, SCHEDULER, call), 400)
    assert "framework_id" in text


def test_subscribe_takes_no_stream_id(shared_cluster):
    refused(web.post_json(shared_cluster.master, SCHEDULER, SUBSCRIBE, {"Mesos-Stream-Id": "x"}), 400)


def test_an_unknown_framework(shared_cluster):
    call = {"type": "REVIVE", "framework_id": {"value": "nobody"}}
    assert "cannot be found" in refused(web.post_json(shared_cluster.master, SCHEDULER, call, {"Mesos-Stream-Id": "x"}), 400)


def test_the_stream_id_is_needed_and_must_be_the_current_one(framework):
    assert "Mesos-Stream-Id" in refused(framework.send("REVIVE", headers={"Mesos-Stream-Id": None}), 400)
    text = refused(framework.send("REVIVE", headers={"Mesos-Stream-Id": "another"}), 400)
    assert framework.id in text


def test_a_framework_that_is_not_connected_is_forbidden(shared_cluster):
    framework = Framework(shared_cluster.master, failover_timeout=60.0)
    framework.subscribe()
    framework.disconnect()

    def disconnected():
        frameworks = shared_cluster.operator("GET_FRAMEWORKS")["get_frameworks"]["frameworks"]
        return not next(f for f in frameworks if f["framework_info"]["id"]["value"] == framework.id)["connected"]

    from harness import wait

    wait.until(disconnected, 10, "the coordinator has noticed")
    assert "not subscribed" in refused(framework.send("REVIVE"), 403)


@pytest.mark.parametrize("type_", ["ACCEPT", "DECLINE", "KILL", "ACKNOWLEDGE", "RECONCILE", "MESSAGE", "UPDATE_FRAMEWORK"])
def test_the_member_of_the_call_is_needed(framework, type_):
    assert type_.lower() in refused(framework.send(type_), 400)


def test_an_acknowledgement_needs_a_uuid_of_sixteen_bytes(framework):
    member = {"agent_id": {"value": "a"}, "task_id": {"value": "t"}, "uuid": "AAAA"}
    refused(framework.send("ACKNOWLEDGE", member), 400)


def test_an_operator_call_that_is_not_implemented_says_so(shared_cluster):
    answer = web.post_json(shared_cluster.master, "/api/v1", {"type": "PRUNE_IMAGES"})
    assert answer.status in (400, 501), answer
    call = {"type": "UPDATE_WEIGHTS", "update_weights": {"weight_infos": [{"role": "a", "weight": 2.0}]}}
    answer = web.post_json(shared_cluster.master, "/api/v1", call)
    assert answer.status in (200, 202) or (answer.status == 501 and "UPDATE_WEIGHTS" in answer.text), answer


def test_unknown_paths(shared_cluster):
    for part in ("master", "agent"):
        assert web.get(address_of(shared_cluster, part), "/no/such/thing").status == 404


def test_unknown_fields_and_null_are_passed_over(shared_cluster):
    call = {"type": "GET_HEALTH", "unknown_field": {"a": [1]}, "get_metrics": None}
    assert web.post_json(shared_cluster.master, "/api/v1", call).json()["get_health"]["healthy"] is True


def test_numbers_may_come_as_text(framework):
    """64-bit integers are accepted as JSON strings too."""
    offer = framework.offer(0.1, 32)
    info = task("true", agent_id=offer["agent_id"])
    info["kill_policy"] = {"grace_period": {"nanoseconds": "1000000000"}}
    framework.launch(offer, [info])
    assert framework.wait_terminal(info["task_id"]["value"])["state"] == "TASK_FINISHED"

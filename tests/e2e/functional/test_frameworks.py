"""A framework's life: subscribe, come back, be taken over, time out, tear down, and its events on the way."""

import time

import pytest

from harness import wait, web
from harness.framework import Framework, task


def frameworks_of(cluster, which="frameworks"):
    return {f["framework_info"]["id"]["value"]: f for f in cluster.operator("GET_FRAMEWORKS")["get_frameworks"].get(which, [])}


def test_the_first_events(framework):
    heartbeat = framework.wait_event("HEARTBEAT", timeout=5)
    assert [e["type"] for e in framework.events[:2]] == ["SUBSCRIBED", "HEARTBEAT"], heartbeat


def test_heartbeats_come_at_the_promised_interval(framework):
    interval = framework.events[0]["subscribed"]["heartbeat_interval_seconds"]
    assert interval == 15.0
    wait.until(lambda: sum(e["type"] == "HEARTBEAT" for e in framework.events) >= 2, interval + 5, "a second heartbeat")
    first, second = [e["_at"] for e in framework.events if e["type"] == "HEARTBEAT"][:2]
    assert abs(second - first - interval) < 2


def test_teardown_ends_the_stream_and_kills_the_tasks(cluster, framework):
    framework.run_task("sleep 1000")
    framework.teardown()
    wait.until(framework.closed.is_set, 10, "the stream is closed")
    assert framework.id in frameworks_of(cluster, "completed_frameworks")
    wait.until(lambda: not cluster.task_leftovers(), 15, "nothing is left of the task")
    refusal = framework.send("REVIVE")
    assert refusal.status in (400, 403), refusal


def test_a_torn_down_framework_cannot_come_back(cluster, framework):
    framework.teardown()
    wait.until(framework.closed.is_set, 10, "the stream is closed")
    framework.subscribe(wait_subscribed=False)
    error = framework.wait_event("ERROR")
    assert "removed" in error["error"]["message"] or "completed" in error["error"]["message"].lower(), error


def test_operator_teardown(cluster, framework):
    framework.run_task("sleep 1000")
    cluster.operator({"type": "TEARDOWN", "teardown": {"framework_id": {"value": framework.id}}})
    wait.until(framework.closed.is_set, 10, "the stream is closed")
    assert framework.id in frameworks_of(cluster, "completed_frameworks")
    unknown = {"type": "TEARDOWN", "teardown": {"framework_id": {"value": "nobody"}}}
    assert web.post_json(cluster.master, "/api/v1", unknown).status == 400


def test_an_invalid_framework_is_told_so_on_its_stream(cluster):
    framework = Framework(cluster.master, roles=["bad/../role"])
    framework.subscribe(wait_subscribed=False)
    assert framework.wait_event("ERROR")["error"]["message"]
    wait.until(framework.closed.is_set, 10, "the stream is closed")


def test_a_framework_comes_back_with_its_id_and_tasks(cluster):
    framework = Framework(cluster.master, failover_timeout=60.0)
    framework.subscribe()
    task_id = framework.run_task("sleep 1000")
    framework.disconnect()
    wait.until(lambda: not frameworks_of(cluster)[framework.id]["connected"], 10, "it is seen as disconnected")
    first_id = framework.id
    framework.subscribe()
    assert framework.id == first_id
    assert frameworks_of(cluster)[framework.id]["connected"]
    framework.kill(task_id)
    framework.wait_state(task_id, "TASK_KILLED")
    framework.disconnect()


def test_updates_that_came_meanwhile_are_delivered(cluster):
    framework = Framework(cluster.master, failover_timeout=60.0)
    framework.subscribe()
    task_id = framework.run_task("sleep 1; exit 3")
    framework.disconnect()
    time.sleep(2)  # The task ends while nobody listens.
    framework.subscribe()
    assert framework.wait_terminal(task_id)["state"] == "TASK_FAILED"
    framework.disconnect()


def test_a_second_instance_takes_over(cluster):
    first = Framework(cluster.master, failover_timeout=60.0)
    first.subscribe()
    task_id = first.run_task("sleep 1000")
    second = Framework(cluster.master, failover_timeout=60.0)
    second.id = first.id
    second.subscribe()
    assert "failed over" in first.wait_event("ERROR")["error"]["message"]
    wait.until(first.closed.is_set, 10, "the first instance's stream is closed")
    assert first.send("REVIVE").status == 400, "its stream id is no longer the current one"
    second.kill(task_id)
    second.wait_state(task_id, "TASK_KILLED")
    second.disconnect()


def test_a_framework_that_stays_away_is_removed_after_its_timeout(cluster):
    framework = Framework(cluster.master, failover_timeout=1.0)
    framework.subscribe()
    framework.run_task("sleep 1000")
    framework.disconnect()
    wait.until(lambda: framework.id in frameworks_of(cluster, "completed_frameworks"), 15, "it is removed")
    wait.until(lambda: not cluster.task_leftovers(), 15, "its task is gone")


def test_update_framework_changes_name_and_roles(cluster, framework):
    info = {**framework.info, "id": {"value": framework.id}, "name": "renamed", "roles": ["*", "other"]}
    framework.call("UPDATE_FRAMEWORK", {"framework_info": info}, expect=200)
    offer = framework.offer(0.1, 32, where=lambda o: True)
    framework.decline(offer, 0)
    wait.until(lambda: frameworks_of(cluster)[framework.id]["framework_info"]["name"] == "renamed", 5, "renamed")
    assert sorted(frameworks_of(cluster)[framework.id]["framework_info"]["roles"]) == ["*", "other"]


def test_update_framework_refuses_what_cannot_change(framework):
    info = {**framework.info, "id": {"value": framework.id}, "user": "other", "checkpoint": True}
    answer = framework.send("UPDATE_FRAMEWORK", {"framework_info": info})
    assert answer.status in (400, 200), answer
    changed = {**framework.info, "id": {"value": framework.id}, "principal": "somebody"}
    assert framework.send("UPDATE_FRAMEWORK", {"framework_info": changed}).status == 400


def test_a_message_to_an_executor_that_is_none_is_passed_over(cluster, framework):
    """Command tasks have no executor that listens; the call is accepted and nothing breaks."""
    task_id = framework.run_task("sleep 1000")
    status = framework.statuses(task_id)[-1]
    member = {"agent_id": status["agent_id"], "executor_id": {"value": task_id}, "data": "aGVsbG8="}
    framework.call("MESSAGE", member)
    framework.kill(task_id)
    framework.wait_state(task_id, "TASK_KILLED")


@pytest.mark.parametrize("part", ["coordinator", "agent"])
def test_sigterm_ends_a_daemon_orderly(cluster, part):
    daemon = cluster.coordinator if part == "coordinator" else cluster.agents["agent"]
    assert daemon.stop() in (0, -15), daemon.log()[-2000:]

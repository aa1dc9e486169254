"""Draining, deactivation and activation of agents, with real tasks."""

from harness import wait, web
from harness.framework import Framework


def agent(cluster):
    return cluster.operator("GET_AGENTS")["get_agents"]["agents"][0]


def change(cluster, call, expect=200, **members):
    message = {"type": call, call.lower(): {"agent_id": {"value": cluster.agent_id()}, **members}}
    answer = web.post_json(cluster.master, "/api/v1", message)
    assert answer.status == expect, f"{call}: {answer.status} {answer.text}"
    return answer.text


def drain_state(cluster):
    return agent(cluster).get("drain_info", {}).get("state")


def test_a_drained_agent_has_nothing_left_and_can_be_activated(cluster, framework):
    task_id = framework.run_task("sleep 1000")
    offer = framework.offer()
    change(cluster, "DRAIN_AGENT", max_grace_period={"seconds": 5})
    rescind = framework.wait_event("RESCIND")
    assert rescind["rescind"]["offer_id"] == offer["id"]
    status = framework.wait_state(task_id, "TASK_KILLED")
    assert status["reason"] == "REASON_AGENT_DRAINING"
    wait.until(lambda: drain_state(cluster) == "DRAINED", 20, "the agent is drained")
    shown = agent(cluster)
    assert not shown.get("active") and shown["deactivated"]
    assert shown["drain_info"]["config"]["max_grace_period"]["nanoseconds"] == 5_000_000_000
    assert shown["estimated_drain_start_time"]["nanoseconds"] > 0
    older = web.get(cluster.master, "/slaves").json()["slaves"][0]
    assert older["deactivated"] and not older["active"]
    assert older["drain_info"]["state"] == "DRAINED" and older["estimated_drain_start_time_seconds"] > 0
    # What is drained is offered again when the operator says so, and takes tasks.
    mark = len(framework.events)
    wait.holds(lambda: not [e for e in framework.events[mark:] if e["type"] == "OFFERS"], 2.5, "no offers")
    change(cluster, "REACTIVATE_AGENT")
    assert "drain_info" not in agent(cluster) and agent(cluster)["active"]
    framework.run_task("sleep 1000")


def test_a_drain_goes_on_after_the_agent_and_the_coordinator_restart(cluster):
    framework = Framework(cluster.master, failover_timeout=60.0, checkpoint=True)
    framework.subscribe()
    # It will not end before it is killed for good.
    stubborn = "trap '' TERM; while true; do sleep 1; done"
    task_id = framework.run_task(stubborn, kill_policy={"grace_period": {"nanoseconds": 600_000_000_000}})
    change(cluster, "DRAIN_AGENT")
    assert "still in the DRAINING state" in change(cluster, "REACTIVATE_AGENT", expect=400)
    cluster.coordinator.kill9()
    cluster.restart_coordinator()
    wait.until(lambda: cluster.is_known(cluster.agents["agent"]), 30, "the agent is back")
    assert drain_state(cluster) == "DRAINING" and not agent(cluster).get("active")
    framework.subscribe()
    mark = len(framework.events)
    change(cluster, "DRAIN_AGENT", max_grace_period={"seconds": 1})
    framework.wait_state(task_id, "TASK_KILLED")
    wait.until(lambda: drain_state(cluster) == "DRAINED", 20, "the agent is drained")
    assert not [e for e in framework.events[mark:] if e["type"] == "OFFERS"]


def test_mark_gone_ends_the_agent_after_its_tasks(cluster):
    framework = Framework(cluster.master, capabilities=("MULTI_ROLE", "PARTITION_AWARE"))
    framework.subscribe()
    task_id = framework.run_task("sleep 1000")
    daemon = cluster.agents["agent"]
    change(cluster, "DRAIN_AGENT", mark_gone=True)
    status = framework.wait_terminal(task_id)
    assert status["state"] == "TASK_GONE_BY_OPERATOR", status
    wait.until(lambda: not daemon.running(), 20, "the agent's process has ended")
    assert not cluster.operator("GET_AGENTS")["get_agents"].get("agents")


def test_a_deactivated_agent_keeps_its_tasks(cluster, framework):
    task_id = framework.run_task("sleep 1000")
    framework.offer()
    change(cluster, "DEACTIVATE_AGENT")
    framework.wait_event("RESCIND")
    mark = len(framework.events)
    wait.holds(lambda: not [e for e in framework.events[mark:] if e["type"] == "OFFERS"], 2.5, "no offers")
    assert framework.states(task_id)[-1] == "TASK_RUNNING"
    assert agent(cluster)["deactivated"] and "drain_info" not in agent(cluster)
    change(cluster, "REACTIVATE_AGENT")
    framework.offer()


def test_who_is_not_there_is_told_so(cluster):
    for call in ("DRAIN_AGENT", "DEACTIVATE_AGENT", "REACTIVATE_AGENT"):
        message = {"type": call, call.lower(): {"agent_id": {"value": "nobody"}}}
        answer = web.post_json(cluster.master, "/api/v1", message)
        assert answer.status == 400, call
        assert web.post_json(cluster.master, "/api/v1", {"type": call}).status == 400

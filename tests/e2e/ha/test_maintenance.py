"""Maintenance: from the schedule to machines that are down, and up again."""

import time

from harness import wait, web
from harness.framework import Framework


def machine(cluster):
    agent = cluster.operator("GET_AGENTS")["get_agents"]["agents"][0]
    return {"hostname": agent["agent_info"]["hostname"], "ip": "127.0.0.1"}


def schedule(*machines, start=None):
    begin = int((start or time.time() + 3600) * 1e9)
    window = {
        "machine_ids": list(machines),
        "unavailability": {"start": {"nanoseconds": begin}, "duration": {"nanoseconds": 3_600_000_000_000}},
    }
    return {"windows": [window] if machines else []}


def update(cluster, made, expect=200):
    call = {"type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": {"schedule": made}}
    answer = web.post_json(cluster.master, "/api/v1", call)
    assert answer.status == expect, f"{answer.status} {answer.text}"
    return answer.text


def machines(cluster, call, *ids, expect=200):
    answer = web.post_json(cluster.master, "/api/v1", {"type": call, call.lower(): {"machines": list(ids)}})
    assert answer.status == expect, f"{call}: {answer.status} {answer.text}"
    return answer.text


def status(cluster):
    return cluster.operator("GET_MAINTENANCE_STATUS")["get_maintenance_status"]["status"]


def inverse_offer(framework, since=0):
    event = framework.wait_event("INVERSE_OFFERS", since=since)
    return event["inverse_offers"]["inverse_offers"][0]


def answer(framework, call, offer, seconds):
    framework.call(call, {"inverse_offer_ids": [offer["id"]], "filters": {"refuse_seconds": seconds}})


def test_from_schedule_to_up_again(cluster, framework):
    task_id = framework.run_task("sleep 1000")
    offered = framework.offer()
    assert "unavailability" not in offered
    this, made = machine(cluster), schedule(machine(cluster))
    update(cluster, made)
    assert cluster.operator("GET_MAINTENANCE_SCHEDULE")["get_maintenance_schedule"]["schedule"] == made
    # What is offered is offered anew, with the time; what is used is asked back.
    framework.wait_event("RESCIND")
    offered = framework.offer()
    assert offered["unavailability"] == made["windows"][0]["unavailability"]
    inverse = inverse_offer(framework)
    assert inverse["unavailability"] == offered["unavailability"]
    assert inverse["agent_id"]["value"] == cluster.agent_id()
    answer(framework, "ACCEPT_INVERSE_OFFERS", inverse, 1000)
    [draining] = wait.until(lambda: status(cluster).get("draining_machines"), 5)
    assert draining["id"] == this
    assert draining["statuses"][0]["status"] == "ACCEPT"
    assert draining["statuses"][0]["framework_id"]["value"] == framework.id

    daemon = cluster.agents["agent"]
    machines(cluster, "START_MAINTENANCE", this)
    lost = framework.wait_terminal(task_id)
    assert (lost["state"], lost["reason"]) == ("TASK_LOST", "REASON_AGENT_REMOVED")
    wait.until(lambda: not daemon.running(), 20, "the agent has ended")
    assert status(cluster) == {"down_machines": [this]}
    # It is down for whoever starts there, also after a restart of the coordinator.
    cluster.coordinator.kill9()
    cluster.restart_coordinator()
    assert status(cluster) == {"down_machines": [this]}
    again = cluster.start_agent("again", registered=False)
    wait.until(lambda: not again.running(), 20, "an agent on the machine is told to end")
    assert not cluster.operator("GET_AGENTS")["get_agents"].get("agents")

    machines(cluster, "STOP_MAINTENANCE", this)
    assert status(cluster) == {}
    assert cluster.operator("GET_MAINTENANCE_SCHEDULE")["get_maintenance_schedule"]["schedule"] == {}
    cluster.restart_agent("again")
    framework.subscribe()
    assert "unavailability" not in framework.offer()


def test_a_declined_inverse_offer_is_seen_by_operators_and_asked_again(cluster, framework):
    framework.run_task("sleep 1000")
    update(cluster, schedule(machine(cluster)))
    first = inverse_offer(framework)
    mark = len(framework.events)
    answer(framework, "DECLINE_INVERSE_OFFERS", first, 1)
    [draining] = wait.until(lambda: status(cluster).get("draining_machines"), 5)
    assert draining["statuses"][0]["status"] == "DECLINE"
    assert inverse_offer(framework, since=mark)["id"] != first["id"]


def test_a_schedule_that_is_withdrawn_takes_inverse_offers_back(cluster, framework):
    framework.run_task("sleep 1000")
    update(cluster, schedule(machine(cluster)))
    inverse = inverse_offer(framework)
    mark = len(framework.events)
    update(cluster, schedule())
    rescind = framework.wait_event("RESCIND_INVERSE_OFFER")
    assert rescind["rescind_inverse_offer"]["inverse_offer_id"] == inverse["id"]
    assert "unavailability" not in framework.offer(where=lambda offer: "unavailability" not in offer)
    wait.holds(lambda: not [e for e in framework.events[mark:] if e["type"] == "INVERSE_OFFERS"], 2.5, "none asked")


def test_who_uses_nothing_of_a_machine_is_not_asked(cluster, framework):
    framework.run_task("sleep 1000")
    other = Framework(cluster.master)
    other.subscribe(suppressed_roles=["*"])
    update(cluster, schedule(machine(cluster)))
    inverse_offer(framework)
    assert not [e for e in other.events if e["type"] == "INVERSE_OFFERS"]


def test_what_no_schedule_may_say(cluster):
    this = machine(cluster)
    both = {"windows": schedule(this)["windows"] + schedule({**this, "hostname": this["hostname"].upper()})["windows"]}
    negative = schedule(this)
    negative["windows"][0]["unavailability"]["duration"]["nanoseconds"] = -1
    for made, words in [
        (both, "more than once"),
        (negative, "negative"),
        (schedule({}), "are empty"),
        (schedule({"ip": "not an address"}), "not an address"),
        ({"windows": [{**schedule(this)["windows"][0], "machine_ids": []}]}, "is empty"),
    ]:
        assert words in update(cluster, made, expect=400), made
    assert "not part of a maintenance schedule" in machines(cluster, "START_MAINTENANCE", {"hostname": "nobody"}, expect=400)
    assert "is not in DRAINING mode" in machines(cluster, "START_MAINTENANCE", this, expect=400)
    assert "is not in DOWN mode" in machines(cluster, "STOP_MAINTENANCE", this, expect=400)
    assert "List of machines is empty" in machines(cluster, "START_MAINTENANCE", expect=400)
    update(cluster, schedule({"hostname": "elsewhere"}))
    machines(cluster, "START_MAINTENANCE", {"hostname": "elsewhere"})
    assert "deactivated and cannot be removed" in update(cluster, schedule(), expect=400)
    machines(cluster, "STOP_MAINTENANCE", {"hostname": "elsewhere"})


def test_the_endpoints(cluster):
    there, made = {"hostname": "elsewhere", "ip": "10.0.0.9"}, schedule({"hostname": "elsewhere", "ip": "10.0.0.9"})
    assert web.get(cluster.master, "/maintenance/schedule").json() == {}
    assert web.post_json(cluster.master, "/master/maintenance/schedule", made).status == 200
    assert web.get(cluster.master, "/maintenance/schedule").json() == made
    assert web.get(cluster.master, "/maintenance/status").json() == {"draining_machines": [{"id": there}]}
    assert web.post_json(cluster.master, "/machine/down", [there]).status == 200
    assert web.get(cluster.master, "/maintenance/status").json() == {"down_machines": [there]}
    assert web.post_json(cluster.master, "/machine/down", [there]).status == 400
    assert web.post_json(cluster.master, "/machine/up", [there]).status == 200
    assert web.get(cluster.master, "/maintenance/status").json() == {}
    for path, method in [("/machine/up", "GET"), ("/machine/down", "PUT"), ("/maintenance/status", "POST"), ("/maintenance/schedule", "PUT")]:
        assert web.request(cluster.master, method, path).status == 405, path
    for path in ("/machine/up", "/maintenance/schedule"):
        assert web.request(cluster.master, "POST", path, b"nonsense").status == 400

"""Offers: what they hold, declining with a filter, suppress and revive, rescinds, and fair shares."""

import time

import pytest

from harness import wait
from harness.framework import Framework, scalar, task


def count_offers(framework):
    return sum(len(e["offers"]["offers"]) for e in framework.events if e["type"] == "OFFERS")


def test_an_offer_holds_the_agents_resources(cluster, framework):
    offer = framework.offer(4, 2048)
    assert scalar(offer, "cpus") == 4 and scalar(offer, "mem") == 2048 and scalar(offer, "disk") == 4096
    ports = next(r for r in offer["resources"] if r["name"] == "ports")
    assert ports["ranges"]["range"] == [{"begin": 31000, "end": 32000}]
    assert all(r["allocation_info"] == {"role": "*"} for r in offer["resources"])
    assert offer["agent_id"]["value"] == cluster.agent_id() and offer["hostname"] == "localhost"


def test_attributes_are_in_the_offer(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(attributes="rack:r1;level:3;slots:[1-4]")
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    attributes = {a["name"]: a for a in framework.offer()["attributes"]}
    assert attributes["rack"]["text"]["value"] == "r1" and attributes["level"]["scalar"]["value"] == 3.0
    assert attributes["slots"]["ranges"]["range"] == [{"begin": 1, "end": 4}]


def test_a_declined_offer_stays_away_for_its_filter(framework):
    framework.decline(framework.offer(), 3)
    declined, before = time.monotonic(), count_offers(framework)
    framework.offer(timeout=15)
    assert count_offers(framework) == before + 1
    assert time.monotonic() - declined > 2.5, "offered again too early"


def test_revive_clears_filters(framework):
    framework.decline(framework.offer(), 3600)
    before = count_offers(framework)
    wait.holds(lambda: count_offers(framework) == before, 2.5, "declined resources are filtered")
    framework.call("REVIVE")
    framework.offer(4, 2048, timeout=10)


def test_suppress_stops_offers_and_revive_brings_them_back(framework):
    offer = framework.offer()
    framework.call("SUPPRESS")
    framework.decline(offer, 0)
    before = count_offers(framework)
    wait.holds(lambda: count_offers(framework) == before, 2.5, "a suppressed framework gets no offers")
    framework.call("REVIVE")
    framework.offer(4, 2048, timeout=10)


def test_suppress_of_one_role_of_two(cluster):
    framework = Framework(cluster.master, roles=["a", "b"])
    framework.subscribe(suppressed_roles=["a"])
    for _ in range(3):
        offer = framework.offer()
        assert offer["allocation_info"]["role"] == "b"
        framework.decline(offer, 0)
    framework.call("SUPPRESS", {"roles": ["b"]})
    framework.call("REVIVE", {"roles": ["a"]})
    framework.offer(where=lambda o: o["allocation_info"]["role"] == "a", timeout=10)


def test_an_agent_that_goes_takes_its_offers_along(cluster, framework):
    offer = framework.offer()
    cluster.agents["agent"].kill9()
    event = framework.wait_event("RESCIND", timeout=15)
    assert event["rescind"]["offer_id"] == offer["id"]


def test_using_part_of_an_offer_gives_the_rest_back(framework):
    framework.run_task("sleep 1000", cpus=1, mem=512)
    offer = framework.offer(timeout=10)
    assert scalar(offer, "cpus") == 3 and scalar(offer, "mem") == 1536


def test_an_offer_is_used_once(framework):
    offer = framework.offer(1, 64)
    first = task("sleep 1000", agent_id=offer["agent_id"])
    framework.launch(offer, [first])
    framework.wait_state(first["task_id"]["value"], "TASK_RUNNING")
    second = task("true", agent_id=offer["agent_id"])
    framework.launch(offer, [second])
    status = framework.wait_terminal(second["task_id"]["value"])
    assert (status["state"], status["reason"]) == ("TASK_LOST", "REASON_INVALID_OFFERS")
    assert status["source"] == "SOURCE_MASTER"


def test_a_partition_aware_framework_is_told_dropped(cluster):
    framework = Framework(cluster.master, capabilities=("MULTI_ROLE", "PARTITION_AWARE"))
    framework.subscribe()
    made = task("true", agent_id=framework.offer()["agent_id"])
    framework.launch({"id": {"value": "no-such-offer"}}, [made])
    status = framework.wait_terminal(made["task_id"]["value"])
    assert (status["state"], status["reason"]) == ("TASK_DROPPED", "REASON_INVALID_OFFERS")


def test_two_roles_share_an_agent_by_dominant_share(bare_cluster):
    """The role that has less comes first when resources are free again."""
    bare_cluster.start_coordinator()
    bare_cluster.start_agent("one", resources="cpus:2;mem:1024;disk:10;ports:[31000-31010]")
    rich = Framework(bare_cluster.master, roles=["rich"])
    rich.subscribe()
    rich.run_task("sleep 1000", cpus=2, mem=1024, disk=10)  # All of it, so that nothing else weighs.
    poor = Framework(bare_cluster.master, roles=["poor"])
    poor.subscribe()
    rich.call("REVIVE")
    bare_cluster.start_agent("two", resources="cpus:2;mem:1024;disk:10;ports:[31000-31010]")
    offer = poor.offer(2, 1024, timeout=10)
    assert offer["agent_id"]["value"] == bare_cluster.agent_id("two")


def test_reserved_resources_go_to_their_role_only(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(resources="cpus(web):2;cpus:1;mem:512;disk:100;ports:[31000-31010]")
    web, other = (Framework(bare_cluster.master, roles=[role]) for role in ("web", "other"))
    other.subscribe()
    offer = other.offer()
    assert scalar(offer, "cpus") == 1
    other.decline(offer, 3600)
    web.subscribe()
    assert scalar(web.offer(2), "cpus") == 3


def test_default_role(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(default_role="db")
    other, db = Framework(bare_cluster.master, roles=["other"]), Framework(bare_cluster.master, roles=["db"])
    other.subscribe()
    db.subscribe()
    db.offer(4, 2048)
    assert not other.offers()


@pytest.mark.parametrize("seconds", [-1.0, 0.0])
def test_refuse_seconds_that_are_not_positive(framework, seconds):
    """Zero means offer again at once; Mesos takes a negative one as its default of five."""
    framework.decline(framework.offer(), seconds)
    framework.offer(4, 2048, timeout=12)

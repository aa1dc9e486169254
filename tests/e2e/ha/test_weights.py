"""Weights of roles."""

import json

from harness import web
from harness.framework import Framework


def weights(cluster):
    infos = cluster.operator("GET_WEIGHTS")["get_weights"].get("weight_infos", [])
    return {info["role"]: info["weight"] for info in infos}


def update(cluster, made, expect=200):
    infos = [{"role": role, "weight": weight} for role, weight in made.items()]
    call = {"type": "UPDATE_WEIGHTS", "update_weights": {"weight_infos": infos}}
    answer = web.post_json(cluster.master, "/api/v1", call)
    assert answer.status == expect, f"{answer.status} {answer.text}"
    return answer.text


def test_weights_are_set_shown_and_kept(cluster):
    framework = Framework(cluster.master, roles=("eng",))
    framework.subscribe()
    framework.offer()
    update(cluster, {"eng": 2.5, "ops": 3.0})
    framework.wait_event("RESCIND")
    framework.offer()
    assert weights(cluster) == {"eng": 2.5, "ops": 3.0}
    for wrong in ({"eng": 0}, {"eng": -1}, {"a b": 1}):
        update(cluster, {**wrong, "ops": 9.0}, expect=400)
    cluster.coordinator.kill9()
    cluster.restart_coordinator()
    assert weights(cluster) == {"eng": 2.5, "ops": 3.0}


def test_the_endpoint(cluster):
    assert web.get(cluster.master, "/weights").json() == []
    body = json.dumps([{"role": "eng", "weight": 2.0}]).encode()
    assert web.request(cluster.master, "PUT", "/weights", body).status == 200
    assert web.get(cluster.master, "/master/weights").json() == [{"role": "eng", "weight": 2.0}]
    assert web.request(cluster.master, "PUT", "/weights", b"{}").status == 400
    assert web.request(cluster.master, "POST", "/weights", body).status == 405

#!/usr/bin/env python3
"""Runs `echo` five times on a cluster: python3 framework.py HOST:PORT. Needs nothing but Python."""
import http.client, json, sys

master, tasks, done = sys.argv[1], [f"hello-{n}" for n in range(5)], set()
framework = {"user": "root", "name": "hello", "roles": ["*"], "capabilities": [{"type": "MULTI_ROLE"}]}

def post(call, stream_id=None):
    connection = http.client.HTTPConnection(master)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    headers.update({"Mesos-Stream-Id": stream_id} if stream_id else {})
    connection.request("POST", "/api/v1/scheduler", json.dumps(call), headers)
    response = connection.getresponse()
    assert response.status in (200, 202), response.read()
    return response

events = post({"type": "SUBSCRIBE", "subscribe": {"framework_info": framework}})

def call(kind, **body):
    post({"type": kind, "framework_id": framework["id"], kind.lower(): body}, events.headers["Mesos-Stream-Id"])

while len(done) < 5:
    event = json.loads(events.read(int(events.readline())))  # RecordIO: a length, a newline, that many bytes
    if event["type"] == "SUBSCRIBED":
        framework["id"] = event["subscribed"]["framework_id"]
    for offer in event.get("offers", {}).get("offers", []):
        room = {r["name"]: r["scalar"]["value"] for r in offer["resources"] if r["type"] == "SCALAR"}
        fits = int(min(room.get("cpus", 0) / 0.1, room.get("mem", 0) / 32))
        launch, tasks = tasks[:fits], tasks[fits:]
        needs = [{"name": n, "type": "SCALAR", "scalar": {"value": v}} for n, v in (("cpus", 0.1), ("mem", 32))]
        infos = [{"name": t, "task_id": {"value": t}, "agent_id": offer["agent_id"], "resources": needs,
                  "command": {"value": f"echo {t}"}} for t in launch]
        call("ACCEPT", offer_ids=[offer["id"]], operations=[{"type": "LAUNCH", "launch": {"task_infos": infos}}])
    if event["type"] == "UPDATE":
        status = event["update"]["status"]
        print(status["task_id"]["value"], status["state"], status.get("message", ""))
        call("ACKNOWLEDGE", **{key: status[key] for key in ("agent_id", "task_id", "uuid")})
        done |= {status["task_id"]["value"]} if status["state"] == "TASK_FINISHED" else set()
call("TEARDOWN")

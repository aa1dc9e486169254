"""A plain v1 framework: subscribes, remembers every event, sends any call. JSON or protobuf, the same code."""

import base64
import http.client
import itertools
import json
import threading
import time

from . import recordio, wait, web
from .codec import Json

CALL, EVENT = "mesos.v1.scheduler.Call", "mesos.v1.scheduler.Event"
TERMINAL = {
    "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST",
    "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR",
}  # fmt: skip
_numbers = itertools.count(1)


class Framework:
    """One framework; `subscribe` may be called again to come back with the same id."""

    def __init__(self, master, codec=Json, roles=("*",), capabilities=("MULTI_ROLE",), acknowledge=True, **info):
        self.master = master
        self.codec = codec
        self.acknowledges = acknowledge
        self.info = {"user": "root", "name": "test", "roles": list(roles), **info}
        self.info["capabilities"] = [{"type": name} for name in capabilities]
        if "MULTI_ROLE" not in capabilities:
            self.info["role"] = self.info.pop("roles")[0]
        self.id = self.info.get("id", {}).get("value")
        self.stream_id = None
        self.events = []
        self.acknowledged = []
        self.closed = threading.Event()
        self._changed = threading.Condition()
        self._taken_offers = set()

    # -- the stream

    def subscribe(self, wait_subscribed=True, **subscribe):
        """Opens the stream and reads it on a thread of its own; returns the SUBSCRIBED event."""
        info = dict(self.info)
        call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info, **subscribe}}
        if self.id:
            info["id"] = {"value": self.id}
            call["framework_id"] = {"value": self.id}
        host, port = self.master.split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=120 * wait.PATIENCE)
        headers = {"Content-Type": self.codec.media, "Accept": self.codec.media}
        self.connection.request("POST", "/api/v1/scheduler", self.codec.encode(CALL, call), headers)
        # Kept here: http.client forgets its socket when the answer says that the connection closes after it.
        self._socket = self.connection.sock
        response = self.connection.getresponse()
        assert response.status == 200, f"SUBSCRIBE: {response.status} {response.read()[:500]}"
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.stream_id = self.headers["mesos-stream-id"]
        self.closed = threading.Event()
        mark = len(self.events)
        threading.Thread(target=self._read, args=(response, self.closed), daemon=True).start()
        if not wait_subscribed:
            return None
        event = self.wait_event("SUBSCRIBED", since=mark)
        self.id = event["subscribed"]["framework_id"]["value"]
        return event

    def _read(self, response, closed):
        decoder = recordio.Decoder()
        try:
            while data := response.read1(65536):
                for record in decoder.feed(data):
                    self._take(self.codec.decode(EVENT, record))
        except (OSError, http.client.HTTPException, AttributeError, ValueError):
            pass
        closed.set()
        with self._changed:
            self._changed.notify_all()

    def _take(self, event):
        event["_at"] = time.monotonic()
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()
        if event["type"] == "UPDATE" and self.acknowledges and event["update"]["status"].get("uuid"):
            try:
                self.acknowledge(event["update"]["status"])
            except (OSError, http.client.HTTPException):
                pass  # The coordinator is away; the update comes again.

    def disconnect(self):
        """Drops the stream, as a scheduler that dies does."""
        import socket

        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.connection.close()
        self.closed.wait(10)

    # -- calls

    def send(self, type_, member=None, headers=None, **call):
        """Any call, as a raw answer."""
        message = {"type": type_, "framework_id": {"value": self.id}, **call}
        if member is not None:
            message[type_.lower()] = member
        all_headers = {"Content-Type": self.codec.media, "Accept": self.codec.media, "Mesos-Stream-Id": self.stream_id}
        all_headers.update(headers or {})
        all_headers = {k: v for k, v in all_headers.items() if v is not None}
        return web.request(self.master, "POST", "/api/v1/scheduler", self.codec.encode(CALL, message), all_headers)

    def call(self, type_, member=None, expect=202, **call):
        """A call that must be accepted."""
        answer = self.send(type_, member, **call)
        assert answer.status == expect, f"{type_}: {answer.status} {answer.text[:500]}"
        return answer

    def acknowledge(self, status):
        member = {key: status[key] for key in ("agent_id", "task_id", "uuid")}
        answer = self.send("ACKNOWLEDGE", member)
        if answer.status == 202:
            self.acknowledged.append(status["uuid"])
        return answer

    def launch(self, offer, tasks, filters=None):
        member = {
            "offer_ids": [offer["id"]],
            "operations": [{"type": "LAUNCH", "launch": {"task_infos": tasks}}],
            "filters": filters or {"refuse_seconds": 0},
        }
        return self.call("ACCEPT", member)

    def decline(self, offer, seconds=5.0):
        return self.call("DECLINE", {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": seconds}})

    def kill(self, task_id, **more):
        return self.call("KILL", {"task_id": {"value": task_id}, **more})

    def teardown(self):
        return self.call("TEARDOWN")

    # -- waiting

    def wait_for(self, condition, timeout=20.0, what="an event"):
        """The first true value of `condition()`, looked at after every event."""
        timeout *= wait.PATIENCE
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                value = condition()
                if value:
                    return value
                left = deadline - time.monotonic()
                if left <= 0:
                    tail = [json.dumps({k: v for k, v in e.items() if k != "_at"})[:400] for e in self.events[-6:]]
                    raise wait.Timeout(f"not within {timeout} s: {what}. Last events:\n" + "\n".join(tail))
                self._changed.wait(min(left, 0.5))

    def wait_event(self, type_, since=0, where=lambda event: True, timeout=20.0):
        def found():
            return next((e for e in self.events[since:] if e["type"] == type_ and where(e)), None)

        return self.wait_for(found, timeout, f"{type_} event")

    def offers(self):
        """Offers that are open as far as this framework knows, and that `offer` has not given out."""
        subscribed = max((at for at, e in enumerate(self.events) if e["type"] == "SUBSCRIBED"), default=0)
        events = self.events[subscribed:]  # Offers end with their subscription.
        rescinded = {e["rescind"]["offer_id"]["value"] for e in events if e["type"] == "RESCIND"}
        offers = [o for e in events if e["type"] == "OFFERS" for o in e["offers"].get("offers", [])]
        return [o for o in offers if o["id"]["value"] not in rescinded | self._taken_offers]

    def offer(self, cpus=0.0, mem=0.0, agent=None, timeout=20.0, where=lambda offer: True):
        """An offer with at least so much; the caller must use or decline it."""

        def fitting():
            for offer in self.offers():
                enough = scalar(offer, "cpus") >= cpus and scalar(offer, "mem") >= mem
                if enough and (agent is None or offer["agent_id"]["value"] == agent) and where(offer):
                    return offer
            return None

        offer = self.wait_for(fitting, timeout, f"an offer of {cpus} cpus and {mem} mem")
        self._taken_offers.add(offer["id"]["value"])
        return offer

    def statuses(self, task_id=None):
        """Every status that came, in order, repeated ones too."""
        updates = [e["update"]["status"] for e in list(self.events) if e["type"] == "UPDATE"]
        return [s for s in updates if task_id is None or s["task_id"]["value"] == task_id]

    def states(self, task_id):
        """The states the task went through, without repeats of the same update, and without reconciliation."""
        seen = {}
        for number, status in enumerate(self.statuses(task_id)):
            if status.get("reason") != "REASON_RECONCILIATION":
                seen.setdefault(status.get("uuid") or number, status["state"])
        return list(seen.values())

    def wait_state(self, task_id, *wanted, timeout=30.0):
        """The first status of the task in one of these states; a terminal one that was not wanted is an error."""

        def found():
            for status in self.statuses(task_id):
                if status["state"] in wanted:
                    return status
                if status["state"] in TERMINAL:
                    raise AssertionError(f"{task_id} is {status['state']}, not {wanted}: {json.dumps(status)}")
            return None

        return self.wait_for(found, timeout, f"{task_id} is {' or '.join(wanted)}")

    def wait_terminal(self, task_id, timeout=30.0):
        return self.wait_state(task_id, *TERMINAL, timeout=timeout)

    # -- the short way

    def run_task(self, command, task_id=None, cpus=0.1, mem=32, wait_until=("TASK_RUNNING",), agent=None, **more):
        """Launches one task on the next offer and waits for a state; returns the task's id."""
        made = task(command, task_id, cpus=cpus, mem=mem, **more)
        needed = [r["scalar"]["value"] for r in made["resources"] if r["name"] in ("cpus", "mem")]
        offer = self.offer(*needed, agent=agent)
        made["agent_id"] = offer["agent_id"]
        self.launch(offer, [made])
        task_id = made["task_id"]["value"]
        if wait_until:
            self.wait_state(task_id, *wait_until)
        return task_id


def scalar(offer, name):
    return sum(float(r["scalar"]["value"]) for r in offer.get("resources", []) if r["name"] == name and "scalar" in r)


def scalars(role=None, **amounts):
    """`scalars(cpus=1, mem=32)` as resources."""
    made = [{"name": name, "type": "SCALAR", "scalar": {"value": value}} for name, value in amounts.items()]
    if role:
        for resource in made:
            resource["allocation_info"] = {"role": role}
    return made


def task(command, task_id=None, cpus=0.1, mem=32, disk=None, role=None, resources=None, agent_id=None, **more):
    """A TaskInfo; `command` is a shell line, a list (no shell), or a whole CommandInfo."""
    if isinstance(command, str):
        command = {"shell": True, "value": command}
    elif isinstance(command, (list, tuple)):
        command = {"shell": False, "value": command[0], "arguments": list(command)}
    amounts = {"cpus": cpus, "mem": mem, **({"disk": disk} if disk is not None else {})}
    made = {
        "name": "task",
        "task_id": {"value": task_id or f"t{next(_numbers)}"},
        "resources": resources or scalars(role, **amounts),
        "command": command,
        **more,
    }
    if command is None:
        del made["command"]
    if agent_id:
        made["agent_id"] = agent_id
    return made


def as_base64(data):
    return base64.b64encode(data).decode()

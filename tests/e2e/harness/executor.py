"""An executor that speaks the v1 API from the test's own process, while what runs in its container is whatever the test wants."""

import base64
import http.client
import socket
import threading
import time
import uuid

from . import recordio, wait, web
from .codec import Json

CALL, EVENT = "mesos.v1.executor.Call", "mesos.v1.executor.Event"


class Executor:
    """Subscribes at an agent; remembers every event, and what it has told that is not acknowledged."""

    def __init__(self, agent, framework_id, executor_id, codec=Json):
        self.agent = agent
        self.framework_id = framework_id
        self.executor_id = executor_id
        self.codec = codec
        self.events = []
        self.closed = threading.Event()
        self.tasks = {}
        self.updates = {}
        self._changed = threading.Condition()

    def subscribe(self, expect=200, **subscribe):
        """Opens the stream and reads it on a thread of its own; returns its headers."""
        member = {
            "unacknowledged_tasks": list(self.tasks.values()),
            "unacknowledged_updates": [{"status": status} for status in self.updates.values()],
            **subscribe,
        }
        host, port = self.agent.split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=120 * wait.PATIENCE)
        headers = {"Content-Type": self.codec.media, "Accept": self.codec.media}
        body = self.codec.encode(CALL, self._call("SUBSCRIBE", subscribe=member))
        self.connection.request("POST", "/api/v1/executor", body, headers)
        self._socket = self.connection.sock
        response = self.connection.getresponse()
        if response.status != expect or expect != 200:
            text = response.read().decode()
            assert response.status == expect, f"SUBSCRIBE: {response.status} {text}"
            return text
        self.closed = threading.Event()
        threading.Thread(target=self._read, args=(response, self.closed), daemon=True).start()
        return {k.lower(): v for k, v in response.getheaders()}

    def subscribe_when_up(self, **subscribe):
        """As soon as the agent has started its container."""

        def tried():
            try:
                return self.subscribe(**subscribe)
            except (AssertionError, OSError, http.client.HTTPException):
                return None

        headers = wait.until(tried, 20, "the executor is subscribed")
        self.wait_event("SUBSCRIBED")
        return headers

    def _call(self, type_, **more):
        ids = {"executor_id": {"value": self.executor_id}, "framework_id": {"value": self.framework_id}}
        return {"type": type_, **ids, **more}

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
        with self._changed:
            self.events.append(event)
            if event["type"] == "LAUNCH":
                task = event["launch"]["task"]
                self.tasks[task["task_id"]["value"]] = task
            elif event["type"] == "LAUNCH_GROUP":
                for task in event["launch_group"]["task_group"]["tasks"]:
                    self.tasks[task["task_id"]["value"]] = task
            elif event["type"] == "ACKNOWLEDGED":
                self.updates.pop(event["acknowledged"]["uuid"], None)
                self.tasks.pop(event["acknowledged"]["task_id"]["value"], None)
            self._changed.notify_all()

    def disconnect(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.connection.close()
        self.closed.wait(10)

    def send(self, type_, headers=None, **more):
        """Any call, as a raw answer."""
        all_headers = {"Content-Type": self.codec.media, **(headers or {})}
        body = self.codec.encode(CALL, self._call(type_, **more))
        return web.request(self.agent, "POST", "/api/v1/executor", body, all_headers)

    def status(self, task_id, state, **more):
        made = base64.b64encode(uuid.uuid4().bytes).decode()
        base = {"task_id": {"value": task_id}, "state": state, "source": "SOURCE_EXECUTOR", "uuid": made}
        return {**base, "timestamp": time.time(), **more}

    def tell(self, task_id, state, expect=202, **more):
        """An update; returns its status as it was sent."""
        status = self.status(task_id, state, **more)
        self.updates[status["uuid"]] = status
        answer = self.send("UPDATE", update={"status": status})
        assert answer.status == expect, f"UPDATE: {answer.status} {answer.text}"
        return status

    def wait_event(self, type_, since=0, where=lambda event: True, timeout=20.0):
        timeout *= wait.PATIENCE
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = next((e for e in self.events[since:] if e["type"] == type_ and where(e)), None)
                if found:
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    raise wait.Timeout(f"no {type_} event within {timeout} s, but {self.events[-5:]}")
                self._changed.wait(min(left, 0.5))

    def wait_launch(self, task_id, timeout=20.0):
        is_it = lambda event: event["launch"]["task"]["task_id"]["value"] == task_id  # noqa: E731
        return self.wait_event("LAUNCH", where=is_it, timeout=timeout)["launch"]["task"]

    def types(self):
        return [event["type"] for event in self.events]


def info(executor_id="e", command="sleep 1000", cpus=0.1, mem=32, disk=0, **more):
    """An ExecutorInfo; `command` is a shell line."""
    resources = [
        {"name": name, "type": "SCALAR", "scalar": {"value": value}}
        for name, value in (("cpus", cpus), ("mem", mem), ("disk", disk))
        if value
    ]
    return {
        "type": "CUSTOM",
        "executor_id": {"value": executor_id},
        "command": {"shell": True, "value": command},
        "resources": resources,
        **more,
    }

"""A framework that never stops launching: follows the leader, launches short and long tasks, acknowledges, reconciles.

One thread reads the stream, another does everything that has its time: looks who leads, kills long tasks, reconciles what
has been silent for long. Calls are made by both, over one connection at a time.
"""

import http.client
import json
import logging
import random
import socket
import threading
import time

from harness import recordio
from harness.framework import scalar, scalars

from fleet import ask_master
from ledger import Ledger

HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
# What may go wrong on a connection to a process that is killed, stopped or cut off.
FAILURES = (OSError, http.client.HTTPException, ValueError)
LIVE_TASKS = 25
SILENT = 12.0


class ByRedirect:
    """Finds the leader as a client without ZooKeeper does: asks any coordinator."""

    def __init__(self, addresses):
        self._addresses = list(addresses)

    def leader(self):
        random.shuffle(self._addresses)
        for address in self._addresses:
            try:
                answer = ask_master(address)
            except FAILURES:
                continue
            if answer.status == 200:
                return address
            if answer.status == 307:
                return answer.headers["location"].split("//")[1].split("/")[0]
        return None

    def close(self):
        pass


class ByZooKeeper:
    """Finds the leader as Mesos' detectors do: the lowest of the nodes tells."""

    def __init__(self, zk):
        from kazoo.client import KazooClient, KazooRetry

        # Lost connections are what this is about.
        logging.getLogger("kazoo").setLevel(logging.CRITICAL)
        hosts, _, self._path = zk.removeprefix("zk://").partition("/")
        forever = KazooRetry(max_tries=-1, max_delay=0.5)
        self._client = KazooClient(hosts, timeout=4.0, connection_retry=forever, command_retry=KazooRetry(max_tries=1))
        self._client.start_async().wait(30)

    def leader(self):
        from kazoo.exceptions import KazooException
        from kazoo.handlers.threading import KazooTimeoutError

        try:
            nodes = [n for n in self._client.get_children_async(f"/{self._path}").get(timeout=2) if n.startswith("json.info_")]
            if not nodes:
                return None
            data, _ = self._client.get_async(f"/{self._path}/{min(nodes, key=lambda n: n[-10:])}").get(timeout=2)
        except (KazooException, KazooTimeoutError):
            return None
        address = json.loads(data)["address"]
        return f"{address['ip']}:{address['port']}"

    def close(self):
        self._client.stop()
        self._client.close()


class Scheduler:
    """See the module."""

    def __init__(self, name, detector, seed, agents, disturbed):
        self.name, self._detector = name, detector
        self._random = random.Random(seed)
        self._agents = agents
        """The name of the process at an agent's address."""
        self.ledger = Ledger(name, disturbed)
        self.id = None
        self.launching = True
        self.subscriptions = 0
        self.longest_away = 0.0
        self._away_since = time.monotonic()
        self._leader = self._stream_id = self._socket = None
        self._number = 0
        self._avoided = {}
        """Agents that dropped tasks, and until when nothing is launched there."""
        self._kill_at = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._follow, self._attend)]

    def start(self):
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stop.set()
        self._hang_up()
        for thread in self._threads:
            thread.join(30)
        self._detector.close()

    def subscribed(self):
        return self._stream_id is not None

    # -- the stream

    def _follow(self):
        while not self._stop.is_set():
            leader = self._detector.leader()
            if leader:
                try:
                    self._subscribe(leader)
                except FAILURES:
                    pass
                if self._stream_id:
                    self._stream_id = None
                    self._away_since = time.monotonic()
            self._stop.wait(0.2)

    def _subscribe(self, leader):
        info = {
            "user": "root",
            "name": self.name,
            "roles": [self.name],
            "checkpoint": True,
            "failover_timeout": 1_000_000.0,
            "capabilities": [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}],
        }
        call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        if self.id:
            info["id"] = call["framework_id"] = {"value": self.id}
        connection = http.client.HTTPConnection(leader, timeout=3)
        try:
            connection.request("POST", "/api/v1/scheduler", json.dumps(call), HEADERS)
            sock = connection.sock
            response = connection.getresponse()
            if response.status != 200:
                response.read()
                return
            # Heartbeats come every 15 s.
            sock.settimeout(20)
            self._leader, self._socket = leader, sock
            self._read(response, response.getheader("Mesos-Stream-Id"))
        finally:
            connection.close()

    def _read(self, response, stream_id):
        decoder = recordio.Decoder()
        while not self._stop.is_set():
            data = response.read1(65536)
            if not data:
                return
            for record in decoder.feed(data):
                event = json.loads(record)
                if event["type"] == "SUBSCRIBED":
                    self.id = event["subscribed"]["framework_id"]["value"]
                    self._stream_id = stream_id
                    self.subscriptions += 1
                    self.longest_away = max(self.longest_away, time.monotonic() - self._away_since)
                    self.reconcile()
                elif event["type"] == "OFFERS":
                    self._offered(event["offers"].get("offers", []))
                elif event["type"] == "UPDATE":
                    self._updated(event["update"]["status"])
                elif event["type"] == "ERROR":
                    self.ledger.broken.append(f"{self.name}: ERROR {event['error']['message']}")

    def _hang_up(self):
        try:
            if self._socket:
                self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    # -- calls

    def call(self, type_, member=None):
        """The status of the answer; `None` when none came, so that nobody knows what became of the call."""
        stream, leader = self._stream_id, self._leader
        if not stream:
            return None
        message = {"type": type_, "framework_id": {"value": self.id}}
        if member is not None:
            message[type_.lower()] = member
        connection = http.client.HTTPConnection(leader, timeout=3)
        try:
            connection.request("POST", "/api/v1/scheduler", json.dumps(message), {**HEADERS, "Mesos-Stream-Id": stream})
            response = connection.getresponse()
            response.read()
            return response.status
        except FAILURES:
            return None
        finally:
            connection.close()

    def _offered(self, offers):
        for offer in offers:
            with self._lock:
                room = LIVE_TASKS - len(self.ledger.open_tasks()) if self.launching else 0
            if self._avoided.get(offer["agent_id"]["value"], 0) > time.monotonic():
                room = 0
            fits = int(min(scalar(offer, "cpus") / 0.1 + 1e-6, scalar(offer, "mem") / 32, room, 4))
            if fits < 1:
                self.call("DECLINE", {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 1.0}})
                continue
            tasks = [self._task(offer) for _ in range(fits)]
            operation = {"type": "LAUNCH", "launch": {"task_infos": tasks}}
            member = {"offer_ids": [offer["id"]], "operations": [operation], "filters": {"refuse_seconds": 0.5}}
            if self.call("ACCEPT", member) is None:
                # It may lie in wait at a coordinator that is stopped. With this stream ends all that was sent for it, so
                # that whoever is asked about these tasks later does not say what is true only until then.
                self._hang_up()
            for task in tasks:
                self.ledger.tasks[task["task_id"]["value"]].called = True

    def _task(self, offer):
        self._number += 1
        task_id = f"{self.name}-{self._number}"
        if self._random.random() < 0.7:
            command = f"sleep {self._random.uniform(0, 2):.2f}; exit {self._random.choice([0, 0, 0, 3])}"
        else:
            command = "sleep 100000"
            self._kill_at[task_id] = time.monotonic() + self._random.uniform(3, 60)
        self.ledger.sent(task_id, offer["agent_id"]["value"], self._agents.get(offer["hostname"], offer["hostname"]))
        resources = scalars(cpus=0.1, mem=32)
        return {
            "name": task_id,
            "task_id": {"value": task_id},
            "agent_id": offer["agent_id"],
            "resources": resources,
            "command": {"shell": True, "value": command},
        }

    def _updated(self, status):
        self.ledger.told(status)
        if status["state"] == "TASK_DROPPED" and "agent_id" in status:
            self._avoided[status["agent_id"]["value"]] = time.monotonic() + 2
        if status.get("uuid"):
            member = {key: status[key] for key in ("agent_id", "task_id", "uuid")}
            if self.call("ACKNOWLEDGE", member) == 202:
                self.ledger.acknowledged(status["task_id"]["value"], status["uuid"])

    def reconcile(self):
        """Asks for every task that has not ended, one by one, so that there is an answer for each."""
        tasks = [t for t in self.ledger.open_tasks() if t.called]
        tasks = [{"task_id": {"value": t.id}, "agent_id": {"value": t.agent_id}} for t in tasks]
        return not tasks or self.call("RECONCILE", {"tasks": tasks}) == 202

    def kill(self, task):
        self.call("KILL", {"task_id": {"value": task.id}, "agent_id": {"value": task.agent_id}})

    # -- what has its time

    def _attend(self):
        reconciled = time.monotonic()
        while not self._stop.wait(1.0):
            if self._stream_id and self._detector.leader() not in (None, self._leader):
                self._hang_up()
            now = time.monotonic()
            open_tasks = self.ledger.open_tasks()
            for task in open_tasks:
                if self._kill_at.get(task.id, now + 1) <= now and task.state:
                    self.kill(task)
                    self._kill_at[task.id] = now + 5
            if now - reconciled > SILENT:
                reconciled = now
                self.reconcile()

    # -- the end

    def end_all(self):
        """Kills whatever is not to end by itself."""
        now = time.monotonic()
        for task in self.ledger.open_tasks():
            self._kill_at[task.id] = min(now, self._kill_at.get(task.id, now))

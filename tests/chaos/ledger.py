"""What a framework was told of each of its tasks, and whether it may have been told that.

Rules, and why they are what they are:

* Updates that an agent makes carry a uuid and must be acknowledged. An agent sends the next update of a task only once
  the acknowledgement of the one before is on its disk. So once the next one has come, an earlier one never comes again,
  and the states come in the order of a task's life. Nothing new comes after the terminal one.
* An acknowledgement that was answered with 202 is on its way, not yet on the agent's disk: the leader may be killed before
  it passes it on, or the agent before it writes it. Then the update comes again, and that is right: one too many rather
  than one too few. It is only right if the leader, ZooKeeper or that agent was disturbed about that time, and until the
  next update is there; else the repeat is an error.
* Updates that a coordinator makes have no uuid. Of these, TASK_UNREACHABLE may be taken back (the agent may return with
  the task); TASK_DROPPED, TASK_GONE and their like may not: from then on an agent must not run the task. But a coordinator
  also repeats what it heard from the agent: when the agent returns (REASON_AGENT_REREGISTERED), and when it is asked
  (REASON_RECONCILIATION). It may tell of an end in this way before the agent's own update of it has come, as Mesos does.
  That one must still come, after those before it, and ends the task.
* At the end each task that a framework ever sent in a call, answered or not, is in a terminal state or is said to be running.
"""

import threading
import time

TERMINAL = {
    "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST",
    "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR",
}  # fmt: skip
LOST = {"TASK_LOST", "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR"}
"""What only a coordinator says of a task: there is none."""
HEARSAY = ("REASON_RECONCILIATION", "REASON_AGENT_REREGISTERED")
ORDER = ["TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING"]


def rank(state):
    return len(ORDER) if state in TERMINAL else ORDER.index(state)


class Task:
    """One task, from the call that launches it."""

    def __init__(self, task_id, agent_id, at):
        self.id, self.agent_id, self.sent_at = task_id, agent_id, at
        self.called = False
        """Whether the call that launches it was answered, or cannot have an effect any more."""
        self.agent = None
        """The agent's name among the processes."""
        self.state = None
        self.ended = None
        """The terminal state, once one came."""
        self.updates = {}
        """Of the agent's updates, in order of their first coming: uuid to state."""
        self.acknowledged = {}
        """uuid to when it was answered with 202."""
        self.history = []

    def unacknowledged(self):
        return [uuid for uuid in self.updates if uuid not in self.acknowledged]


class Ledger:
    """All tasks of one framework."""

    def __init__(self, name, disturbed=lambda begin, end, agent: False):
        self.name = name
        self.tasks = {}
        self.broken = []
        self.repeats = 0
        self._disturbed = disturbed
        self._lock = threading.RLock()

    # -- what happens

    def sent(self, task_id, agent_id, agent):
        with self._lock:
            task = self.tasks[task_id] = Task(task_id, agent_id, time.monotonic())
            task.agent = agent

    def told(self, status):
        """A status came."""
        with self._lock:
            task_id, state, uuid = status["task_id"]["value"], status["state"], status.get("uuid")
            task = self.tasks.get(task_id)
            if task is None:
                self.broken.append(f"{self.name}: {state} of {task_id}, which it never launched")
                return
            now = time.monotonic()
            words = (state, status.get("source"), status.get("reason"), (uuid or "no uuid")[:8], status.get("message"))
            what = " ".join(word for word in words if word)
            task.history.append((now, what))
            if uuid:
                self._told_by_agent(task, state, uuid, now)
            elif status.get("reason") in HEARSAY and state not in LOST:
                if not task.ended:
                    task.state = state
            else:
                self._told_by_coordinator(task, state)

    def acknowledged(self, task_id, uuid):
        """The acknowledgement was answered with 202."""
        with self._lock:
            task = self.tasks[task_id]
            task.acknowledged.setdefault(uuid, time.monotonic())
            task.history.append((time.monotonic(), f"acknowledged {uuid[:8]}"))

    # -- what it means

    def _told_by_agent(self, task, state, uuid, now):
        if uuid in task.updates:
            if uuid != list(task.updates)[-1]:
                self._wrong(task, f"{state} came again after the next update had come")
            elif uuid in task.acknowledged:
                self.repeats += 1
                if not self._disturbed(task.acknowledged[uuid], now, task.agent):
                    self._wrong(task, f"{state} came again after its acknowledgement, and nothing was disturbed")
            return
        last = list(task.updates.values())[-1] if task.updates else None
        task.updates[uuid] = state
        if last and rank(state) <= rank(last):
            self._wrong(task, f"{state} came after {last}")
        elif task.ended:
            self._wrong(task, f"{state} came from its agent after {task.ended}")
        task.state = state
        if state in TERMINAL:
            task.ended = task.ended or state

    def _told_by_coordinator(self, task, state):
        if task.ended and state not in TERMINAL:
            self._wrong(task, f"{state} came from the coordinator after {task.ended}")
        if not task.ended:
            task.state = state
            if state in TERMINAL:
                task.ended = state

    def _wrong(self, task, what):
        told = "".join(f"\n      {at - task.sent_at:8.3f} s  {line}" for at, line in task.history)
        self.broken.append(f"{self.name}: {task.id} on {task.agent}: {what}{told}")

    # -- what is asked

    def open_tasks(self):
        with self._lock:
            return [task for task in self.tasks.values() if not task.ended]

    def unacknowledged(self):
        """Tasks with an update whose acknowledgement was not accepted yet."""
        with self._lock:
            return [task for task in self.tasks.values() if task.unacknowledged()]

    def describe(self, task):
        with self._lock:
            told = "".join(f"\n      {at - task.sent_at:8.3f} s  {line}" for at, line in task.history)
            return f"{self.name}: {task.id} on {task.agent}: {task.state}{told}"

    def counts(self):
        with self._lock:
            counts = {}
            for task in self.tasks.values():
                counts[task.ended or task.state] = counts.get(task.ended or task.state, 0) + 1
            return counts

"""A framework as users of Mesos write them, with pymesos: runs what it is given on the agents that it is offered."""

import base64
import logging
import threading
import time

from harness.framework import TERMINAL, scalar, task
from harness.wait import PATIENCE
from pymesos import MesosSchedulerDriver

# It tells of each attempt to reach a coordinator that is cut off.
logging.getLogger("pymesos").setLevel(logging.CRITICAL)


class Framework:
    """Tasks are given to `launch`; what was said of them is in `updates`."""

    def __init__(self, zk, name):
        self.waiting, self.updates, self.errors = [], [], []
        self.placed = {}
        self.registrations = 0
        self.changed = threading.Condition()
        info = {"user": "root", "name": name, "failover_timeout": 3600.0, "checkpoint": True}
        callbacks = type("Scheduler", (object,), {"__getattr__": lambda _, word: getattr(self, f"on_{word}", lambda *a: None)})()
        self.driver = MesosSchedulerDriver(callbacks, info, zk, use_addict=False)
        self.driver.start()

    # --- what tests ask ---

    def launch(self, names, command, host=None, image=None, cpus=0.05, mem=8):
        with self.changed:
            self.waiting += [(name, command, host, image, cpus, mem) for name in names]
            registered = self.registrations
        if registered:
            self.driver.reviveOffers()

    def states(self, name):
        """In the order they came, repetitions left out."""
        with self.changed:
            told = [update["state"] for update in self.updates if update["task_id"]["value"] == name]
        return [state for at, state in enumerate(told) if at == 0 or told[at - 1] != state]

    def last(self, name):
        with self.changed:
            return next((update for update in reversed(self.updates) if update["task_id"]["value"] == name), None)

    def wait(self, condition, seconds, what):
        seconds *= PATIENCE
        deadline = time.monotonic() + seconds
        with self.changed:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f"not within {seconds} s: {what}; {self.told()}, {len(self.waiting)} not launched, errors {self.errors}"
                # Conditions may be about more than updates.
                self.changed.wait(min(left, 0.5))

    def wait_state(self, names, state, seconds):
        def reached():
            return all(self._latest(name) == state for name in names)

        self.wait(reached, seconds, f"{len(names)} tasks are {state}")

    def _latest(self, name):
        return next((update["state"] for update in reversed(self.updates) if update["task_id"]["value"] == name), None)

    def told(self):
        """How many tasks are in which state."""
        latest = {}
        for update in self.updates:
            latest[update["task_id"]["value"]] = update["state"]
        return {state: sum(1 for one in latest.values() if one == state) for state in set(latest.values())}

    def kill(self, name):
        self.driver.killTask({"value": name})

    def ended(self, names):
        return [name for name in names if self._latest(name) in TERMINAL]

    def stop(self):
        self.driver.stop()
        self.driver.join()

    # --- what the driver tells ---

    def on_registered(self, driver, framework_id, master):
        with self.changed:
            self.registrations += 1
            self.changed.notify_all()

    def on_reregistered(self, driver, master):
        self.on_registered(driver, None, master)

    def on_error(self, driver, message):
        with self.changed:
            self.errors.append(message)

    def on_resourceOffers(self, driver, offers):
        for offer in offers:
            cpus, mem = scalar(offer, "cpus"), scalar(offer, "mem")
            taken = []
            with self.changed:
                for given in list(self.waiting):
                    _, _, host, _, needed_cpus, needed_mem = given
                    if (host is None or host == offer["hostname"]) and needed_cpus <= cpus + 1e-9 and needed_mem <= mem:
                        cpus, mem = cpus - needed_cpus, mem - needed_mem
                        taken.append(given)
                        self.waiting.remove(given)
                for name, *_ in taken:
                    self.placed[name] = offer["hostname"]
                left = bool(self.waiting)
            if taken:
                driver.launchTasks(offer["id"], [self._task(offer, *given) for given in taken], {"refuse_seconds": 0.2})
            else:
                driver.declineOffer(offer["id"], {"refuse_seconds": 0.2 if left else 3600})

    @staticmethod
    def _task(offer, name, command, host, image, cpus, mem):
        more = {}
        if image:
            docker = {"type": "DOCKER", "docker": {"name": image}}
            more["container"] = {"type": "MESOS", "mesos": {"image": docker}}
        return task(command, name, cpus=cpus, mem=mem, agent_id=offer["agent_id"], **more)

    def on_statusUpdate(self, driver, update):
        with self.changed:
            self.updates.append({**update, "data": base64.b64decode(update.get("data", "")) if update.get("data") else b""})
            self.changed.notify_all()

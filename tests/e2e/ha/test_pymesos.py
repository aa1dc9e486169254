"""An existing detector and scheduler library, pymesos with zk://, lives through a fail-over."""

import threading

from harness import wait
from harness.framework import scalar, task

TASKS = 60


class Scheduler:
    """Keeps a few short tasks running until TASKS have ended."""

    def __init__(self):
        self.waiting = [f"task-{n}" for n in range(TASKS)]
        self.states = {}
        self.leaders = []
        self.errors = []
        self.lock = threading.Lock()

    def registered(self, driver, framework_id, master_info):
        self.leaders.append(address(master_info))

    def reregistered(self, driver, master_info):
        self.leaders.append(address(master_info))
        with self.lock:
            open_tasks = [name for name, states in self.states.items() if states[-1] not in ENDS]
        driver.reconcileTasks([{"task_id": {"value": name}} for name in open_tasks])

    def resourceOffers(self, driver, offers):
        for offer in offers:
            with self.lock:
                fits = int(min(scalar(offer, "cpus") / 0.5, scalar(offer, "mem") / 32, 4))
                taken, self.waiting = self.waiting[:fits], self.waiting[fits:]
                for name in taken:
                    self.states[name] = ["launched"]
            if not taken:
                driver.declineOffer(offer["id"], {"refuse_seconds": 0.5})
                continue
            agent_id = {"value": offer["agent_id"]["value"]}
            tasks = [task("sleep 1", name, cpus=0.5, agent_id=agent_id) for name in taken]
            driver.launchTasks(offer["id"], tasks, {"refuse_seconds": 0.1})

    def statusUpdate(self, driver, update):
        name, state = update["task_id"]["value"], update["state"]
        with self.lock:
            if state == "TASK_LOST" and self.states[name] == ["launched"]:
                self.waiting.append(name)  # The launch did not reach the leader before it died.
                return
            self.states[name].append(state)

    def error(self, driver, message):
        self.errors.append(message)

    def finished(self):
        with self.lock:
            return [name for name, states in self.states.items() if states[-1] == "TASK_FINISHED"]


def address(master_info):
    return f"{master_info['hostname']}:{master_info['port']}"


ENDS = {"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_ERROR"}


def test_pymesos_follows_the_leader(three):
    from pymesos import MesosSchedulerDriver

    three.start_agent()
    scheduler = Scheduler()
    callbacks = type("Callbacks", (), {"__getattr__": lambda self, name: getattr(scheduler, name, lambda *a: None)})()
    info = {"user": "root", "name": "pymesos", "failover_timeout": 600.0}
    driver = MesosSchedulerDriver(callbacks, info, three.url, use_addict=False)
    driver.start()
    try:
        wait.until(lambda: len(scheduler.finished()) >= 5, 60, "tasks have finished at the first leader")
        name = three.wait_leading()
        first = three.coordinators[name]
        first.kill9()
        # pymesos itself pauses for two, four and more seconds between its attempts.
        wait.until(lambda: len(scheduler.leaders) > 1, 60, "pymesos has found the next leader")
        wait.until(lambda: len(scheduler.finished()) == TASKS, 120, "every task has finished")
    finally:
        driver.stop()
        driver.join()
    assert not scheduler.errors
    assert scheduler.leaders[0] == first.address and scheduler.leaders[-1] != scheduler.leaders[0]
    bad = {name: states for name, states in scheduler.states.items() if set(states) & (ENDS - {"TASK_FINISHED"})}
    assert not bad, "no task was lost"

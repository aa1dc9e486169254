"""An executor as its users write them with pymesos: runs each task on a thread, and remembers what it has told until it is heard.

Started by the tests, in a container of its own: `python pymesos_executor.py`. A task's data says how long it runs, in seconds.
"""

import base64
import logging
import threading
import time
import uuid

from pymesos import Executor, MesosExecutorDriver

logging.basicConfig(level=logging.INFO)


class Runner(Executor):
    def launchTask(self, driver, task):
        threading.Thread(target=self.run, args=(driver, task), daemon=True).start()

    def run(self, driver, task):
        seconds = float(base64.b64decode(task.get("data", "")) or 0)
        self.tell(driver, task, "TASK_RUNNING")
        time.sleep(seconds)
        self.tell(driver, task, "TASK_FINISHED")

    def tell(self, driver, task, state):
        """Until it is acknowledged: by calls, and by what the driver says when it subscribes again."""
        key = uuid.uuid4()
        status = {
            "task_id": task["task_id"],
            "state": state,
            "source": "SOURCE_EXECUTOR",
            "timestamp": time.time(),
            "uuid": base64.b64encode(key.bytes).decode(),
        }
        driver.updates[key] = {"status": status}
        while key in driver.updates:
            try:
                driver.sendStatusUpdate(status)
            except Exception as error:  # The agent is away, or does not know us yet.
                logging.info("%s of %s is not told: %s", state, task["task_id"]["value"], error)
            deadline = time.monotonic() + 2
            while key in driver.updates and time.monotonic() < deadline:
                time.sleep(0.02)


if __name__ == "__main__":
    MesosExecutorDriver(Runner()).run()

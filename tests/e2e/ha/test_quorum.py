"""ZooKeeper loses its majority: for a moment nothing happens, for longer nobody leads, and then one does again."""

import time

from harness import wait, web
from harness.framework import Framework


def test_a_short_loss_is_not_noticed_and_a_long_one_ends_the_term(bare):
    bare.start(coordinators=1, servers=3, session_timeout="10secs")
    agent = bare.start_agent()
    framework = Framework(bare.master, failover_timeout=600.0)
    framework.subscribe()
    running = framework.run_task("sleep 100000", "running")
    leader = bare.coordinators["coordinator-0"]
    before = bare.watcher.leader()["id"]

    majority = bare.zookeeper.majority()
    for server in majority:
        server.freeze()
    begun = time.monotonic()
    wait.holds(lambda: not framework.closed.is_set() and bare.leads(leader), 2.5, "the leader serves without a quorum")
    for server in majority:
        server.thaw()
    print(f"no majority for {time.monotonic() - begun:.1f} s of a session of 10 s")
    bare.zookeeper.wait_serving()
    wait.holds(lambda: not framework.closed.is_set() and bare.leads(leader), 8, "nor does it notice afterwards")
    ended = framework.run_task("exit 0", "ended", wait_until=("TASK_FINISHED",))
    assert bare.watcher.leader()["id"] == before

    for server in majority:
        server.kill9()
    begun = time.monotonic()
    assert framework.closed.wait(9.9), "the leader steps down before the session can end"
    took = time.monotonic() - begun
    print(f"stepped down {took:.1f} s after the majority was lost")
    assert not bare.leads(leader) and leader.running()
    assert web.get(leader.address, "/state").status == 503
    for server in majority:
        server.start()
    bare.zookeeper.wait_serving()
    bare.wait_leading(timeout=60)
    assert bare.watcher.leader()["id"] != before, "a term of its own, with ids of its own"
    framework.subscribe()
    wait.until(lambda: bare.is_registered(agent), 30, "the agent is back")
    framework.call("RECONCILE", {"tasks": [{"task_id": {"value": running}}]})
    mark = len(framework.events)
    wait.until(lambda: framework.statuses(running)[-1].get("reason") == "REASON_RECONCILIATION", 10, "reconciled")
    assert framework.statuses(running)[-1]["state"] == "TASK_RUNNING", (mark, framework.statuses(running))
    assert framework.states(ended)[-1] == "TASK_FINISHED"
    framework.run_task("exit 0", "after", wait_until=("TASK_FINISHED",))
    framework.teardown()
    framework.disconnect()

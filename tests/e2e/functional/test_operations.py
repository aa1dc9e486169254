"""What is done with operations that are not there yet: each is told, and the resources come back."""

from harness import wait
from harness.framework import scalars, task


def test_an_operation_that_is_not_implemented_is_told_and_its_resources_come_back(cluster, framework):
    offer = framework.offer(4, 2048)
    reserve = {"resources": [{**scalars(cpus=1.0)[0], "reservations": [{"type": "DYNAMIC", "role": "a"}]}]}
    operation = {"type": "RESERVE", "id": {"value": "op-1"}, "reserve": reserve}
    member = {"offer_ids": [offer["id"]], "operations": [operation], "filters": {"refuse_seconds": 0}}
    framework.call("ACCEPT", member)
    status = framework.wait_event("UPDATE_OPERATION_STATUS")["update_operation_status"]["status"]
    assert status["operation_id"]["value"] == "op-1"
    assert status["state"] in ("OPERATION_ERROR", "OPERATION_DROPPED") and "not implemented" in status["message"], status
    wait.until(lambda: cluster.charged() == {}, 10, "nothing stays charged")


def test_reconciling_an_operation_that_nobody_knows(framework):
    framework.call("RECONCILE_OPERATIONS", {"operations": [{"operation_id": {"value": "nobody"}}]})
    status = framework.wait_event("UPDATE_OPERATION_STATUS")["update_operation_status"]["status"]
    assert (status["operation_id"]["value"], status["state"]) == ("nobody", "OPERATION_UNKNOWN")


def test_a_group_of_tasks_is_told_to_be_not_implemented(cluster, framework):
    offer = framework.offer(4, 2048)
    executor = {"type": "DEFAULT", "executor_id": {"value": "e"}, "resources": scalars(cpus=0.1, mem=32, disk=10), "framework_id": {"value": framework.id}}
    group = {"tasks": [task("true", name, disk=10, agent_id=offer["agent_id"]) for name in ("g1", "g2")]}
    operation = {"type": "LAUNCH_GROUP", "launch_group": {"executor": executor, "task_group": group}}
    framework.call("ACCEPT", {"offer_ids": [offer["id"]], "operations": [operation], "filters": {"refuse_seconds": 0}})
    for name in ("g1", "g2"):
        status = framework.wait_terminal(name)
        assert "not implemented" in status["message"], status
    wait.until(lambda: cluster.charged() == {}, 10, "nothing stays charged")


def test_a_custom_executor_is_told_to_be_not_implemented(cluster, framework):
    offer = framework.offer(4, 2048)
    made = task(None, agent_id=offer["agent_id"])
    made["executor"] = {
        "type": "CUSTOM", "executor_id": {"value": "e"}, "command": {"value": "true"},
        "framework_id": {"value": framework.id}, "resources": scalars(cpus=0.1, mem=32),
    }  # fmt: skip
    framework.launch(offer, [made])
    status = framework.wait_terminal(made["task_id"]["value"])
    assert "not implemented" in status["message"], status
    wait.until(lambda: cluster.charged() == {}, 10, "nothing stays charged")

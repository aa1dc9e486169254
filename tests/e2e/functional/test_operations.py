"""What is done with operations that are not there yet: each is told, and the resources come back."""

from harness import wait
from harness.framework import scalars


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

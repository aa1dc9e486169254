"""What decides over a run of chaos: each rule notices when it is broken, and nothing else."""

import os
import sys

import pytest

sys.path.append(os.path.join(os.path.dirname(__file__), "../../chaos"))

from leaders import Leaders  # noqa: E402
from ledger import Ledger  # noqa: E402

STARTING, RUNNING, FINISHED = "TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"


@pytest.fixture
def ledger():
    made = Ledger("f")
    made.sent("t", "S0", "agent-0")
    return made


def tell(ledger, state, uuid=None, acknowledge=True, **more):
    ledger.told({"task_id": {"value": "t"}, "state": state, **({"uuid": uuid} if uuid else {}), **more})
    if uuid and acknowledge:
        ledger.acknowledged("t", uuid)


def test_a_good_life_breaks_nothing(ledger):
    tell(ledger, STARTING, "1")
    tell(ledger, "TASK_UNREACHABLE")
    tell(ledger, RUNNING, "2", acknowledge=False)
    tell(ledger, RUNNING, reason="REASON_RECONCILIATION")
    tell(ledger, RUNNING, "2")
    tell(ledger, FINISHED, reason="REASON_AGENT_REREGISTERED")
    tell(ledger, FINISHED, reason="REASON_RECONCILIATION")
    assert ledger.open_tasks(), "its own update is still to come"
    tell(ledger, FINISHED, "3", acknowledge=False)
    assert ledger.unacknowledged()
    tell(ledger, FINISHED, "3")
    assert not ledger.broken and not ledger.open_tasks() and not ledger.unacknowledged()
    assert ledger.counts() == {FINISHED: 1}


@pytest.mark.parametrize(
    "updates",
    [
        [(RUNNING, "2"), (STARTING, "1")],
        [(STARTING, "1"), (RUNNING, "2"), (STARTING, "1")],
        [(FINISHED, "1"), (RUNNING, "2")],
        [(FINISHED, "1"), ("TASK_FAILED", "2")],
        [("TASK_GONE", None), (STARTING, "1")],
        [("TASK_KILLED", None), (STARTING, "1")],
        [("TASK_DROPPED", None), ("TASK_UNREACHABLE", None)],
        [(STARTING, "1"), (STARTING, "1")],
    ],
    ids=str,
)
def test_what_must_not_come_is_noticed(ledger, updates):
    for state, uuid in updates:
        tell(ledger, state, uuid)
    assert len(ledger.broken) == 1, ledger.broken


def test_an_update_may_come_again_when_its_acknowledgement_may_have_been_lost():
    asked = []
    ledger = Ledger("f", lambda begin, end, agent: asked.append(agent) or True)
    ledger.sent("t", "S0", "agent-0")
    tell(ledger, STARTING, "1")
    tell(ledger, STARTING, "1")
    assert (ledger.broken, ledger.repeats, asked) == ([], 1, ["agent-0"])
    tell(ledger, RUNNING, "2")
    tell(ledger, STARTING, "1")
    assert len(ledger.broken) == 1, "its acknowledgement was on disk"


def test_a_task_that_was_never_launched_is_noticed(ledger):
    ledger.told({"task_id": {"value": "other"}, "state": RUNNING})
    assert len(ledger.broken) == 1


def leaders(*answers):
    made = Leaders([])
    for who, asked, answered in answers:
        made.note(who, 1, asked, answered)
    return made


def test_leaders_in_turn_are_right():
    # The last answer of `a` is late, but it was asked before `b` answered at all.
    made = leaders(("a", 0, 1), ("a", 1, 2), ("b", 4, 5), ("a", 2, 6), ("b", 6, 7))
    assert not made.broken


def test_two_leaders_at_once_are_noticed():
    assert leaders(("a", 0, 1), ("b", 2, 3), ("a", 4, 5)).broken

"""Fixtures of the tests of high availability."""

import pytest

from harness.replicated import Replicated


@pytest.fixture
def bare(request):
    """Nothing started yet."""
    made = Replicated(request.node.name)
    yield made
    made.close(getattr(request.node, "failed_before", False))


@pytest.fixture
def three(bare):
    """One ZooKeeper server and three coordinators."""
    return bare.start()

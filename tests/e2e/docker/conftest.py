"""A Docker engine for all tests of a worker, and an agent that uses it."""

import pytest

from harness import cluster as clusters
from harness import docker_engine
from harness.framework import Framework


@pytest.fixture(scope="session")
def engine():
    missing = [tool for tool in docker_engine.TOOLS if not clusters.which(tool)]
    if missing:
        pytest.fail(f"not installed: {', '.join(missing)}; tests/run installs them")
    made = docker_engine.Engine()
    yield made
    made.close()


@pytest.fixture
def own_engine(request):
    """One that the test may stop."""
    made = docker_engine.Engine(**getattr(request, "param", {}))
    yield made
    made.close()


def settings(engine):
    return {"containerizers": "docker,mesos", "docker_socket": engine.socket, "docker_remove_delay": "0secs"}


@pytest.fixture(scope="module")
def docker_cluster(request, engine):
    made = clusters.Cluster(request.node.name)
    made.start_coordinator()
    made.start_agent(**settings(engine), resources="cpus:4;mem:2048;disk:1024;ports:[31000-31100]")
    yield made
    made.close(request.session.testsfailed > 0)


@pytest.fixture
def framework(docker_cluster):
    made = Framework(docker_cluster.master)
    made.subscribe()
    yield made
    made.teardown()

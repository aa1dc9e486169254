"""Fixtures of the end-to-end tests: a cluster a test, or one for all tests of a file that only read."""

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from harness import cluster as clusters  # noqa: E402
from harness import images as image_builder  # noqa: E402
from harness.framework import Framework  # noqa: E402


def pytest_collection_modifyitems(items):
    """Without root no container can be made: each test says so rather than fail oddly."""
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs root: namespaces, mounts and cgroups"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        item.failed_before = True


@pytest.fixture
def bare_cluster(request):
    """Nothing started yet."""
    made = clusters.Cluster(request.node.name)
    yield made
    made.close(getattr(request.node, "failed_before", False))


@pytest.fixture
def cluster(bare_cluster):
    """A coordinator and one agent of four CPUs."""
    bare_cluster.start_coordinator()
    bare_cluster.start_agent()
    return bare_cluster


@pytest.fixture
def framework(cluster):
    """A framework that is subscribed in role `*` and acknowledges every update."""
    made = Framework(cluster.master)
    made.subscribe()
    yield made
    made.disconnect()


@pytest.fixture(scope="module")
def shared_cluster(request):
    """A coordinator and one agent for all tests of a file, which must not disturb each other."""
    made = clusters.Cluster(request.node.name)
    made.start_coordinator()
    made.start_agent()
    yield made
    made.close(request.session.testsfailed > 0)


@pytest.fixture(scope="session")
def images():
    """The test image in all its forms."""
    missing = [tool for tool in image_builder.TOOLS if not clusters.which(tool)]
    if missing:
        pytest.fail(f"not installed: {', '.join(missing)}; tests/run installs them")
    made = image_builder.Images()
    yield made
    made.close()


@pytest.fixture(scope="session")
def modules():
    """The directory of the Python modules of the protocol, made as the page says."""
    made = tempfile.mkdtemp(prefix="tepui-modules-")
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([os.path.join(clusters.REPOSITORY, "examples/isolators/dataset/generate"), made], check=True, env=environment)
    yield made
    shutil.rmtree(made)

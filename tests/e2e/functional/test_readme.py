"""What the README shows is what works."""

import os
import re
import subprocess
import sys

from harness.cluster import REPOSITORY

EXAMPLE = os.path.join(REPOSITORY, "examples/framework.py")


def read(name):
    with open(os.path.join(REPOSITORY, name)) as file:
        return file.read()


def test_the_framework_in_the_readme_is_the_example():
    shown = re.search(r"```python\n(.*?)```", read("README.md"), re.DOTALL).group(1)
    assert shown == read("examples/framework.py")
    assert len(shown.splitlines()) <= 45


def test_the_example_runs(cluster):
    done = subprocess.run([sys.executable, EXAMPLE, cluster.master], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    states = [line.split()[:2] for line in done.stdout.splitlines()]
    for n in range(5):
        assert [state for name, state in states if name == f"hello-{n}"] == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]


def test_files_that_the_readme_points_to_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", read("README.md"))
    assert links and all(os.path.exists(os.path.join(REPOSITORY, link)) for link in links), links


def test_promises_name_checks_that_exist():
    """Each promise of SPECIFICATION.md that is not struck out names a test or benchmark that is there."""
    rows = [line for line in read("SPECIFICATION.md").splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert rows
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if cells[0].startswith("~~"):
            continue
        checks = [name for name in re.findall(r"`([^`]+)`", cells[-1]) if "/" in name]
        assert checks, f"nothing checks: {row}"
        for check in checks:
            path, _, name = check.split(" ")[0].partition("::")
            assert os.path.exists(os.path.join(REPOSITORY, path)), f"{check} is not there"
            assert not name or f"{name}" in read(path), f"{check} is not there"

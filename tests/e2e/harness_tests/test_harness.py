"""The harness itself: what decides over other tests must be right."""

import os
import random
import subprocess
import sys
import tempfile

import pytest

from harness import codec, leaks, recordio, shape, trees, wait


def test_recordio_survives_any_chunking():
    seed = random.Random(7)
    for _ in range(200):
        records = [seed.randbytes(seed.choice([0, 1, 9, 10, 99, 5000])) for _ in range(seed.randrange(6))]
        stream = b"".join(map(recordio.encode, records))
        decoder, found, at = recordio.Decoder(), [], 0
        while at < len(stream):
            step = seed.randrange(1, 64)
            found += decoder.feed(stream[at : at + step])
            at += step
        assert found == records


def test_recordio_refuses_what_is_no_length():
    with pytest.raises(ValueError):
        recordio.Decoder().feed(b"HTTP/1.1 200 OK\r\n")


def test_a_tree_is_removed_and_links_are_not_followed():
    base, outside = tempfile.mkdtemp(prefix="tepui-test-trees-"), tempfile.mkdtemp(prefix="tepui-test-trees-")
    os.makedirs(f"{base}/a/b")
    open(f"{outside}/keep", "w").close()
    os.symlink(outside, f"{base}/a/link")
    trees.remove(base)
    assert not os.path.exists(base) and os.path.exists(f"{outside}/keep")
    trees.remove(outside)


# In a mount namespace of its own, a directory of the test is bind mounted below the tree to be removed.
UNDER_A_MOUNT = """
import os, sys
from harness import trees
base, outside = sys.argv[1:]
assert trees.mounts_below(base) == [base + "/a/mounted"], trees.mounts_below(base)
trees.mounts_below = (lambda directory: []) if os.environ.get("BLIND") else trees.mounts_below
try:
    trees.remove(base)
except OSError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("blind", ["", "1"])
def test_a_mount_is_never_walked_through(blind):
    """Twice: by the mount table, and by the kernel's own refusal when the table is not believed."""
    base, outside = tempfile.mkdtemp(prefix="tepui-test-trees-"), tempfile.mkdtemp(prefix="tepui-test-trees-")
    os.makedirs(f"{base}/a/mounted")
    os.makedirs(f"{outside}/keep/this")
    here = os.path.join(os.path.dirname(__file__), "..")
    script = f'mount --bind "{outside}" "{base}/a/mounted" && exec "$0" -c "$1" "{base}" "{outside}"'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, sys.executable, UNDER_A_MOUNT],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": here, "BLIND": blind},
    )  # fmt: skip
    assert "refused:" in done.stdout, done
    assert os.path.exists(f"{outside}/keep/this"), "the mounted directory is untouched"
    trees.remove(base)
    trees.remove(outside)


def test_a_leak_is_seen_and_swept():
    mark = f"tepui-test-leak-{os.getpid()}"
    sleeper = subprocess.Popen(["sleep", "1000"], env={**os.environ, "MARK": mark})
    wait.until(lambda: sleeper.pid in leaks.processes(mark), 5, "exec has set the environment")
    assert leaks.all_left(mark)
    leaks.sweep(mark)
    sleeper.wait(5)
    assert not leaks.all_left(mark)


def test_shapes():
    observed = {"a": "int", "b": [{"name": "str"}], "c": "{}"}
    assert shape.differences(observed, {"a": 1, "b": [{"name": "x"}], "c": {"any": 1}}) == []
    found = shape.differences(observed, {"a": 1.0, "b": [], "d": None})
    assert sorted(found) == [".a: int expected, not float", ".b: empty list", ".c: missing", ".d: extra (null)"]
    assert shape.unexplained(found, {".c: missing": "why", ".d:*": "why"}) == [line for line in found if line[1] in "ab"]


def test_the_second_implementation_of_protobuf_reads_its_own():
    call = {"type": "REVIVE", "framework_id": {"value": "f"}, "revive": {"roles": ["a"]}}
    data = codec.Protobuf.encode("mesos.v1.scheduler.Call", call)
    assert codec.Protobuf.decode("mesos.v1.scheduler.Call", data) == call
    assert data.startswith(b"\n\x03\n\x01f"), "framework_id is field 1, its value field 1"


def test_pymesos_is_the_real_one():
    import http_parser.parser
    import pymesos

    assert pymesos.MesosSchedulerDriver and http_parser.parser.__file__.endswith(".so")

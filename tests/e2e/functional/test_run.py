"""`tepui run`: the main job. One command starts a container task, shows its output and ends with its exit code."""

import os
import re
import signal

import pytest

from harness import leaks, wait
from harness.images import ENTRYPOINT_MARK

HELLO = ("sh", "-c", "echo hello from $MESOS_TASK_ID; exit 7")


def assert_hello(done):
    assert re.search(r"^hello from \S+$", done.stdout, re.MULTILINE), done
    assert done.returncode == 7, done


def test_one_command_runs_a_task_and_ends_with_its_code(bare_cluster):
    assert_hello(bare_cluster.run(*HELLO))


def test_output_keeps_its_two_streams_apart(bare_cluster):
    done = bare_cluster.run("sh", "-c", "echo to-out; echo to-err >&2", quiet=True)
    assert done.returncode == 0, done
    assert "to-out" in done.stdout and "to-err" not in done.stdout
    assert "to-err" in done.stderr and "to-out" not in done.stderr


@pytest.mark.parametrize("form", ["archive", "layout", "oci_archive"])
def test_image_on_disk(bare_cluster, images, form):
    assert_hello(bare_cluster.run(*HELLO, image=getattr(images, form)))


def test_image_in_a_registry(bare_cluster, images):
    assert_hello(bare_cluster.run(*HELLO, image=images.reference))
    assert re.search(r"/v2/test/busybox/(manifests|blobs)/", images.registry_log()), "nothing was pulled"


def test_the_image_is_the_root_and_gives_defaults(bare_cluster, images):
    script = (
        "cat /etc/from-first-layer /etc/from-second-layer; echo env=$FROM_IMAGE; ls /etc;"
        "test -e /etc/removed-later && echo whiteout-ignored; id -u"
    )
    done = bare_cluster.run("sh", "-c", script, image=images.archive)
    assert done.returncode == 0, done
    assert "first\nsecond\nenv=yes\n" in done.stdout, done.stdout
    assert "removed-later" not in done.stdout and "whiteout-ignored" not in done.stdout


def test_without_a_command_the_image_has_its_own(bare_cluster, images):
    done = bare_cluster.run(image=images.layout)
    assert done.returncode == 0 and ENTRYPOINT_MARK in done.stdout, done


def test_an_image_is_unpacked_once(bare_cluster, images):
    bare_cluster.run("true", image=images.reference)
    before = images.registry_log().count("/blobs/")
    assert bare_cluster.run("true", image=images.reference).returncode == 0
    assert images.registry_log().count("/blobs/") == before, "layers were pulled again"


def test_environment_and_name(bare_cluster):
    words = bare_cluster.run_command("sh", "-c", "echo id=$MESOS_TASK_ID level=$LEVEL shell=$FROM_SHELL", name="greeter")
    at = words.index("--")
    words[at:at] = ["--env=LEVEL=debug", "--env=FROM_SHELL"]
    out, err = bare_cluster.start_run(words, {"FROM_SHELL": "mine"}).communicate(timeout=60)
    assert re.search(r"id=\S*greeter\S* level=debug shell=mine", out), (out, err)


def test_instances_each_run_and_the_first_failure_is_the_exit_code(bare_cluster):
    done = bare_cluster.run("sh", "-c", "echo here $MESOS_TASK_ID", instances=3, cpus=0.1)
    assert done.returncode == 0, done
    assert len(set(re.findall(r"here (\S+)", done.stdout))) == 3, done.stdout
    assert bare_cluster.run("sh", "-c", "exit 5", instances=2, cpus=0.1).returncode == 5


def test_output_is_live(bare_cluster):
    words = bare_cluster.run_command("sh", "-c", "echo first; sleep 30", quiet=True)
    run = bare_cluster.start_run(words)
    try:
        assert run.stdout.readline() == "first\n"
        assert run.poll() is None
    finally:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, "Ctrl-C"])
def test_a_signal_kills_the_task_and_leaves_nothing(bare_cluster, number):
    words = bare_cluster.run_command("sh", "-c", "sleep 4321 & echo ready; wait", quiet=True)
    run = bare_cluster.start_run(words)
    assert run.stdout.readline() == "ready\n"
    if number == "Ctrl-C":
        os.killpg(run.pid, signal.SIGINT)  # A terminal sends it to the whole group, with all children in it.
    else:
        run.send_signal(number)
    out, err = run.communicate(timeout=30)
    assert run.returncode != 0, (out, err)
    wait.until(lambda: not leaks.all_left(bare_cluster.mark) + bare_cluster.run_leftovers(), 10, "nothing is left")


def test_a_killed_run_leaves_no_task(bare_cluster):
    """SIGKILL gives `tepui run` no chance; its embedded agent's containers must end all the same."""
    words = bare_cluster.run_command("sh", "-c", "echo ready; sleep 4322", quiet=True)
    run = bare_cluster.start_run(words)
    assert run.stdout.readline() == "ready\n"
    run.kill()
    run.communicate(timeout=10)
    wait.until(lambda: not leaks.processes(bare_cluster.mark), 15, "no process is left")
    # Nobody is left to remove its directories and cgroups; the sweep does.
    bare_cluster.forgive_runs()


def test_on_a_cluster_that_runs_already(cluster):
    done = cluster.run(*HELLO, coordinator=cluster.master)
    assert_hello(done)
    tasks = cluster.operator("GET_TASKS")["get_tasks"]
    assert [t["state"] for t in tasks["completed_tasks"]] == ["TASK_FAILED"]
    wait.until(lambda: not cluster.task_leftovers(), 10, "nothing is left of the task")


def test_resources_that_no_agent_has_are_said(cluster):
    """It must say why it waits, rather than hang silently."""
    words = cluster.run_command("true", coordinator=cluster.master, cpus=1000)
    run = cluster.start_run(words)
    try:
        assert "cpus" in run.stderr.readline(), "it says what it waits for"
    finally:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=20)


def test_a_command_that_does_not_exist(bare_cluster):
    done = bare_cluster.run("/no/such/program")
    assert done.returncode not in (0, 7), done
    assert "no/such/program" in done.stderr + done.stdout, done


def test_a_missing_image_is_said_with_its_name(bare_cluster):
    done = bare_cluster.run("true", image="/no/such/image.tar")
    assert done.returncode != 0 and "/no/such/image.tar" in done.stderr, done

"""`tepui ps`, `logs`, `attach` and `kill`: as `docker` and `kubectl` users expect them."""

import json
import subprocess

import pytest

from harness import wait
from harness.cluster import binary
from harness.framework import Framework
from harness.screen import Screen


@pytest.fixture
def framework(shared_cluster):
    made = Framework(shared_cluster.master, name="cli-test")
    made.subscribe()
    yield made
    made.teardown()


def words(cluster, *given):
    return [binary(), given[0], f"--coordinator={cluster.master}", *given[1:]]


def run(cluster, *given):
    return subprocess.run(words(cluster, *given), capture_output=True, text=True, timeout=60 * wait.PATIENCE)


def test_ps_lists_tasks(shared_cluster, framework):
    alive = framework.run_task("exec sleep 1000", task_id="ps-alive", cpus=0.2)
    framework.run_task("true", task_id="ps-over", wait_until=("TASK_FINISHED",))
    done = run(shared_cluster, "ps")
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["TASK", "ID", "NAME", "STATE", "FRAMEWORK", "AGENT", "CPUS", "MEM", "AGE"]
    row = next(row for row in rows if row.startswith(alive))
    assert "RUNNING" in row and "cli-test" in row and "localhost" in row and "0.2" in row
    assert "\x1b" not in done.stdout and "ps-over" not in done.stdout
    assert "FINISHED" in next(row for row in run(shared_cluster, "ps", "-a").stdout.splitlines() if row.startswith("ps-over"))
    tasks = json.loads(run(shared_cluster, "ps", "-a", "-o", "json").stdout)
    assert {task["task_id"]["value"]: task["state"] for task in tasks}["ps-over"] == "TASK_FINISHED"
    assert alive in run(shared_cluster, "ps", "-q").stdout.split()


def test_ps_is_coloured_on_a_terminal_only(shared_cluster, framework):
    framework.run_task("exec sleep 1000", task_id="ps-colour")
    screen = Screen(words(shared_cluster, "ps"), columns=200)
    try:
        screen.see("\x1b[32mRUNNING\x1b[0m")
        assert screen.end() == 0
    finally:
        screen.close()


def test_logs_of_a_task_that_is_over(shared_cluster, framework):
    framework.run_task("echo to-out; echo to-err >&2", task_id="logs-over", wait_until=("TASK_FINISHED",))
    done = run(shared_cluster, "logs", "logs-over")
    assert (done.stdout, done.stderr, done.returncode) == ("to-out\n", "to-err\n", 0), done
    done = run(shared_cluster, "logs", "--stderr", "logs-over")
    assert (done.stdout, done.stderr) == ("", "to-err\n"), done
    done = run(shared_cluster, "logs", "--stdout", "logs-over")
    assert (done.stdout, done.stderr) == ("to-out\n", ""), done


def test_logs_are_followed_to_the_end(shared_cluster, framework):
    framework.run_task("echo first; sleep 2; echo last", task_id="logs-follow")
    done = run(shared_cluster, "logs", "-f", "logs-follow")
    assert done.stdout == "first\nlast\n", done


def test_attach_shows_what_is_written_until_the_end(shared_cluster, framework):
    framework.run_task("for i in 1 2 3 4 5 6; do sleep 0.5; echo line $i; done", task_id="attached")
    done = run(shared_cluster, "attach", "attached")
    assert done.returncode == 0 and done.stdout.endswith("line 5\nline 6\n"), done


def test_kill_ends_a_task_by_a_signal(shared_cluster, framework):
    task_id = framework.run_task("exec sleep 1000", task_id="kill-me")
    done = run(shared_cluster, "kill", "kill-m")
    assert (done.stdout, done.returncode) == ("kill-me\n", 0), done
    last = framework.wait_terminal(task_id)
    assert last["state"] == "TASK_FAILED" and "signal Killed" in last["message"], last
    trapped = framework.run_task("trap 'exit 0' TERM; while :; do sleep 0.1; done", task_id="kill-gently")
    assert run(shared_cluster, "kill", "--signal=TERM", trapped).returncode == 0
    assert framework.wait_terminal(trapped)["state"] == "TASK_FINISHED"


def test_a_task_is_meant_by_the_beginning_of_its_id(shared_cluster, framework):
    framework.run_task("exec sleep 1000", task_id="web-1")
    framework.run_task("exec sleep 1000", task_id="web-2")
    several = run(shared_cluster, "exec", "web", "--", "true")
    assert several.returncode == 125 and "web-1" in several.stderr and "web-2" in several.stderr, several
    none = run(shared_cluster, "logs", "no-such-task")
    assert none.returncode == 125 and "tepui ps" in none.stderr, none
    assert run(shared_cluster, "exec", "web-2", "--", "true").returncode == 0
    framework.run_task("true", task_id="gone-1", wait_until=("TASK_FINISHED",))
    over = run(shared_cluster, "exec", "gone", "--", "true")
    assert over.returncode == 125 and "is over" in over.stderr, over


def test_a_coordinator_that_is_not_there_is_named(shared_cluster):
    done = subprocess.run([binary(), "ps", "--coordinator=127.0.0.1:1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 125 and "127.0.0.1:1" in done.stderr, done

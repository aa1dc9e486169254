"""Commands beside Docker tasks: `tepui exec` by the engine's exec."""

import subprocess

from harness import wait
from harness.cluster import binary
from harness.docker_engine import IMAGE
from harness.screen import Screen


def words(cluster, *given):
    return [binary(), "exec", f"--coordinator={cluster.master}", *given]


def run(cluster, *given, **more):
    return subprocess.run(words(cluster, *given), capture_output=True, text=True, timeout=60 * wait.PATIENCE, **more)


def start(framework, command="sleep 1000"):
    return framework.run_task(command, container={"type": "DOCKER", "docker": {"image": IMAGE}})


def test_exec_into_a_docker_task(docker_cluster, framework):
    task_id = start(framework, "echo mine > /mine; sleep 1000")
    done = run(docker_cluster, "-i", task_id, "--", "sh", "-c", "cat; cat /mine; echo err >&2; exit 5", input="given\n")
    assert (done.stdout, done.stderr, done.returncode) == ("given\nmine\n", "err\n", 5), done
    assert framework.states(task_id)[-1] == "TASK_RUNNING"


def test_a_shell_in_a_docker_task(docker_cluster, framework):
    task_id = start(framework)
    screen = Screen(words(docker_cluster, "-it", task_id, "--", "sh"), rows=31, columns=97)
    try:
        screen.type("echo mark$((40 + 2))\r")
        screen.see("mark42")
        screen.type("sleep 76545\r")
        wait.until(lambda: sleepers(76545), what="it runs")
        screen.type("\x03")
        screen.type("exit 7\r")
        assert screen.end() == 7
    finally:
        screen.close()


def sleepers(seconds=76543):
    return subprocess.run(["pgrep", "-x", "-f", f"sleep {seconds}"], capture_output=True, text=True).stdout.split()


def test_what_a_command_in_a_docker_task_has_left_ends_with_its_connection(docker_cluster, framework):
    task_id = start(framework)
    line = "(busybox setsid sleep 76543 &); sleep 76543"
    program = subprocess.Popen(words(docker_cluster, task_id, "--", "sh", "-c", line))
    wait.until(lambda: len(sleepers()) == 2, 20, "it runs")
    program.kill()
    program.wait()
    wait.until(lambda: not sleepers(), 20, "all of it has ended")
    assert framework.states(task_id)[-1] == "TASK_RUNNING"

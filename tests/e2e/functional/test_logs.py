"""What becomes of a task's output: by default files that grow, with the rotating logger files of a limited size and number."""

import json
import os
import re
import subprocess
import time

import pytest

from harness import cluster as clusters
from harness import wait, web
from harness.framework import Framework

MODULE = "org_apache_mesos_LogrotateContainerLogger"


def modules(**parameters):
    """`--modules` as a Mesos operator has it."""
    listed = [{"key": key, "value": value} for key, value in parameters.items()]
    library = {"file": "/usr/lib/liblogrotate_container_logger.so", "modules": [{"name": MODULE, "parameters": listed}]}
    return json.dumps({"libraries": [library]})


@pytest.fixture
def start(bare_cluster):
    """Starts a cluster whose agent has these flags; gives a framework."""

    def started(**flags):
        bare_cluster.start_coordinator()
        bare_cluster.start_agent(**flags)
        made = Framework(bare_cluster.master, checkpoint=True, failover_timeout=600.0)
        made.subscribe()
        return made

    return started


@pytest.fixture
def rotating(start):
    return start(
        container_logger=MODULE,
        modules=modules(
            launcher_dir="/usr/libexec/mesos", max_stdout_size="64KB", logrotate_stdout_options="rotate 3",
            max_stderr_size="8KB", logrotate_stderr_options="rotate 1\nmissingok",
        ),
    )  # fmt: skip


def sandbox(cluster, framework, task_id):
    run = f"frameworks/{framework.id}/executors/{task_id}/runs/latest"
    return os.path.realpath(os.path.join(cluster.directory("agent"), "slaves", cluster.agent_id(), run))


def outputs(cluster, framework, task_id, name="stdout"):
    """`[(name, content)]` of an output's files, the oldest first."""
    at = sandbox(cluster, framework, task_id)
    found = [entry for entry in os.listdir(at) if re.fullmatch(rf"{name}(\.\d+)?", entry)]
    found.sort(key=lambda entry: -int(entry.partition(".")[2] or 0))
    made = []
    for entry in found:
        with open(os.path.join(at, entry)) as file:
            made.append((entry, file.read()))
    return made


def variables(**named):
    return {"variables": [{"name": f"CONTAINER_LOGGER_{name}", "value": value} for name, value in named.items()]}


def test_by_default_output_grows(start, bare_cluster):
    framework = start()
    task_id = framework.run_task("seq 200000", wait_until=("TASK_FINISHED",))
    [(name, text)] = outputs(bare_cluster, framework, task_id)
    assert name == "stdout" and text.splitlines() == [str(n) for n in range(1, 200001)]


def test_files_are_rotated_at_their_size_and_the_oldest_go(rotating, bare_cluster):
    script = "seq 100000; for i in $(seq 3000); do echo error $i >&2; done"
    task_id = rotating.run_task(script, wait_until=("TASK_FINISHED",))
    files = outputs(bare_cluster, rotating, task_id)
    assert [name for name, _ in files] == ["stdout.3", "stdout.2", "stdout.1", "stdout"]
    assert all(len(text) <= 65536 for _, text in files) and files[-1][1].endswith("\n")
    # The oldest may begin within a line.
    kept = "".join(text for _, text in files).splitlines()[1:]
    assert kept == [str(n) for n in range(100001 - len(kept), 100001)], "no line is lost between the files, nor at the end"
    assert 3 * 65000 < sum(len(text) for _, text in files)
    files = outputs(bare_cluster, rotating, task_id, "stderr")
    assert [name for name, _ in files] == ["stderr.1", "stderr"] and all(len(text) <= 8192 for _, text in files)
    assert files[-1][1].endswith("error 3000\n")


def test_a_task_says_how_its_own_output_is_rotated(rotating, bare_cluster):
    own = variables(MAX_STDOUT_SIZE="4096B", LOGROTATE_STDOUT_OPTIONS="rotate 2")
    command = {"shell": True, "value": "seq 5000", "environment": own}
    task_id = rotating.run_task(command, wait_until=("TASK_FINISHED",))
    files = outputs(bare_cluster, rotating, task_id)
    assert [name for name, _ in files] == ["stdout.2", "stdout.1", "stdout"]
    assert all(len(text) <= 4096 for _, text in files) and files[-1][1].endswith("5000\n")
    # As in logrotate, none is kept unless a number is said.
    command["environment"] = variables(LOGROTATE_STDOUT_OPTIONS="")
    task_id = rotating.run_task({**command, "value": "seq 100000"}, wait_until=("TASK_FINISHED",))
    [(name, text)] = outputs(bare_cluster, rotating, task_id)
    assert name == "stdout" and len(text) <= 65536 and text.endswith("100000\n")


@pytest.mark.parametrize(
    "own,words",
    [
        ({"MAX_STDOUT_SIZE": "1B"}, "at least 4096"),
        ({"MAX_STDERR_SIZE": "much"}, "'much' is no amount of bytes"),
        ({"LOGROTATE_STDOUT_OPTIONS": "compress"}, "'compress' is not supported"),
        ({"MAX_FILES": "3"}, "no setting 'max_files'"),
    ],
)
def test_what_makes_no_sense_fails_the_task(rotating, own, words):
    command = {"shell": True, "value": "true", "environment": variables(**own)}
    task_id = rotating.run_task(command, wait_until=("TASK_FAILED",))
    status = rotating.statuses(task_id)[-1]
    assert status["reason"] == "REASON_CONTAINER_LAUNCH_FAILED" and words in status["message"], status


def test_output_of_many_short_tasks_is_whole(rotating, bare_cluster):
    # What is written last, as the program ends.
    tasks = [rotating.run_task(f"seq 2000; echo last {n}", wait_until=(), cpus=0.01, mem=16) for n in range(20)]
    for number, task_id in enumerate(tasks):
        rotating.wait_state(task_id, "TASK_FINISHED")
        [(_, text)] = outputs(bare_cluster, rotating, task_id)
        assert text.splitlines() == [*map(str, range(1, 2001)), f"last {number}"]


@pytest.mark.parametrize("words", [("logs", "-f"), ("attach",)])
def test_who_follows_a_flood_over_many_rotations_misses_nothing(start, bare_cluster, tmp_path, words):
    # More files are kept than there can be.
    framework = start(
        container_logger=MODULE, modules=modules(max_stdout_size="64KB", logrotate_stdout_options="rotate 200")
    )
    task_id = framework.run_task("while ! [ -e go ]; do echo ready; sleep 0.05; done; seq 300000")
    at = sandbox(bare_cluster, framework, task_id)
    command = [clusters.binary(), words[0], f"--coordinator={bare_cluster.master}", *words[1:], task_id]
    with open(tmp_path / "shown", "w") as shown:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=shown, stderr=subprocess.STDOUT)
    try:
        text = (tmp_path / "shown").read_text
        wait.until(lambda: "ready" in text() or program.poll() is not None, what="it shows what the task says")
        open(f"{at}/go", "w").close()
        assert program.wait(60 * wait.PATIENCE) == 0, text()
    finally:
        program.kill()
        program.wait()
    assert len(outputs(bare_cluster, framework, task_id)) > 20
    lines = text().splitlines()
    assert lines[-300000:] == [str(n) for n in range(1, 300001)] and set(lines[:-300000]) == {"ready"}


def test_what_a_killed_task_has_said_is_there(rotating, bare_cluster):
    script = "trap '' TERM; i=0; while :; do i=$((i+1)); echo line $i; echo $i > said; done"
    task_id = rotating.run_task(script, kill_policy={"grace_period": {"nanoseconds": 1}})
    path = os.path.join(sandbox(bare_cluster, rotating, task_id), "said")
    wait.until(lambda: os.path.exists(path), what="it says something")
    rotating.kill(task_id)
    rotating.wait_state(task_id, "TASK_KILLED")
    with open(path) as file:
        said = int(file.read() or 0)
    last = outputs(bare_cluster, rotating, task_id)[-1][1].splitlines()[-1]
    assert int(last.split()[1]) >= said


def test_a_user_s_files_are_its_own(rotating, bare_cluster):
    # One that opens its output anew, as by /dev/stderr, may do so.
    command = {"shell": True, "value": "seq 20000; echo again > /dev/stderr", "user": "nobody"}
    task_id = rotating.run_task(command, wait_until=("TASK_FINISHED",))
    at = sandbox(bare_cluster, rotating, task_id)
    owners = {name: os.stat(os.path.join(at, name)).st_uid for name in os.listdir(at) if name.startswith("std")}
    assert owners == dict.fromkeys(["stdout", "stdout.1", "stderr"], 65534)
    assert outputs(bare_cluster, rotating, task_id, "stderr")[-1][1] == "again\n"


def test_a_link_in_place_of_an_output_harms_nobody(rotating, bare_cluster):
    victim = os.path.join(bare_cluster.base, "victim")
    with open(victim, "w") as file:
        file.write("unharmed")
    os.chmod(victim, 0o644)
    script = f"ln -sf {victim} stdout; ln -s {victim} stdout.1; seq 100000"
    task_id = rotating.run_task({"shell": True, "value": script, "user": "nobody"}, wait_until=("TASK_FINISHED",))
    with open(victim) as file:
        assert file.read() == "unharmed"
    assert not os.path.islink(os.path.join(sandbox(bare_cluster, rotating, task_id), "stdout"))


def stirring(cluster, framework, task_id):
    """What an output's files hold, while they are rotated all the time."""
    at = sandbox(cluster, framework, task_id)
    for name in ("stdout", "stdout.1", "stdout.2", "stdout.3"):
        try:
            with open(os.path.join(at, name)) as file:
                yield file.read()
        except FileNotFoundError:
            pass


def test_a_task_that_floods_slows_itself(rotating, bare_cluster):
    flood = rotating.run_task("exec yes 'some words to fill a disk with'", cpus=1)
    deadline, slowest = time.monotonic() + 3, 0
    while time.monotonic() < deadline:
        began = time.monotonic()
        assert web.get(bare_cluster.agents["agent"].address, "/health").status == 200
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 5, f"the agent answers in the meantime: {slowest} s"
    assert rotating.run_task("true", wait_until=("TASK_FINISHED",))
    assert sum(len(text) for text in stirring(bare_cluster, rotating, flood)) <= 4 * 65536
    rotating.kill(flood)
    rotating.wait_state(flood, "TASK_KILLED", timeout=5)


def test_output_goes_on_when_the_agent_is_killed(rotating, bare_cluster):
    script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo $i; sleep 0.1; done"
    task_id = rotating.run_task(script)
    bare_cluster.agents["agent"].kill9()
    time.sleep(0.5)
    bare_cluster.restart_agent()
    rotating.wait_state(task_id, "TASK_FINISHED", timeout=20)
    [(_, text)] = outputs(bare_cluster, rotating, task_id)
    assert text.splitlines() == [str(n) for n in range(1, 41)]


@pytest.mark.parametrize("logger,target", [("sandbox", "/stdout"), ("logrotate", "pipe:")])
def test_only_the_rotating_logger_stands_between_a_container_and_its_files(start, bare_cluster, logger, target):
    framework = start(container_logger=logger)
    task_id = framework.run_task("readlink /proc/$$/fd/1", wait_until=("TASK_FINISHED",))
    [(_, text)] = outputs(bare_cluster, framework, task_id)
    assert target in text


def test_other_modules_are_refused(bare_cluster):
    import subprocess

    from harness.cluster import binary

    done = subprocess.run(
        [binary(), "agent", "--master=h:1", "--work_dir=/w", '--modules={"libraries":[{"modules":[{"name":"x"}]}]}'],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.returncode != 0 and "'x' cannot be loaded" in done.stderr, done.stderr

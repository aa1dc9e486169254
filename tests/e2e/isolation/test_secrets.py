"""Secrets: in the file or variable they are for, and nowhere else; neither on a disk nor in a log, during the task and after it."""

import base64
import os
import uuid

import pytest

from harness import wait, web
from harness.framework import TERMINAL, Framework

ISOLATION = "cgroups/cpu,cgroups/mem,disk/du,filesystem/linux,docker/runtime,namespaces/pid,volume/secret"


@pytest.fixture
def cluster(bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(isolation=ISOLATION)
    return bare_cluster


@pytest.fixture
def value():
    """A secret that is nowhere else on this machine."""
    return f"s3cret-{uuid.uuid4().hex}"


def secret(value):
    return {"type": "VALUE", "value": {"data": base64.b64encode(value.encode()).decode()}}


def variable(name, value):
    return {"name": name, "type": "SECRET", "secret": secret(value)}


def command(script, *variables, **more):
    return {"shell": True, "value": script, "environment": {"variables": list(variables)}, **more}


def volume(value, container_path, mode="RO"):
    return {"container_path": container_path, "mode": mode, "source": {"type": "SECRET", "secret": secret(value)}}


@pytest.fixture
def framework(cluster):
    """One whose tasks are not given up while their agent is away."""
    made = Framework(cluster.master, checkpoint=True)
    made.subscribe()
    yield made
    made.disconnect()


def container(*volumes, image=None):
    made = {"type": "MESOS", "volumes": list(volumes)}
    return {**made, "mesos": {"image": {"type": "DOCKER", "docker": {"name": image}}}} if image else made


def output(cluster, framework, task_id, name="stdout"):
    path = os.path.join(
        cluster.directory("agent"), "slaves", cluster.agent_id(), "frameworks", framework.id, "executors", task_id, "runs/latest", name
    )
    with open(path, errors="replace") as file:
        return file.read()


def forms(value):
    """The forms in which it could be found."""
    encoded = value.encode()
    return [encoded, base64.b64encode(encoded).rstrip(b"="), encoded.hex().encode(), ",".join(map(str, encoded)).encode()]


def holding(folder, value):
    """Files below the folder, logs and stores among them, that hold the value in any form."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    data = file.read()
                found += [path] * any(form in data for form in forms(value))
    return found


def test_the_search_finds_what_is_there(cluster, value):
    for form in forms(value):
        with open(os.path.join(cluster.base, "found"), "wb") as file:
            file.write(b"before" + form + b"after")
        assert holding(cluster.base, value) == [os.path.join(cluster.base, "found")]


@pytest.mark.parametrize("with_image", [False, True])
def test_a_variable_is_the_programs_alone(cluster, framework, images, value, with_image):
    # The task says that it has it without writing it down.
    want = value[::-1]
    script = f'[ "$TOKEN" = "$(echo {want} | rev)" ] && echo right; [ "$PLAIN" = plain ] && echo plain; [ "$BOTH" = "$TOKEN" ] && echo stronger; sleep 1000'
    if with_image:
        script = script.replace("rev)", "/bin/busybox rev)")
    variables = [variable("TOKEN", value), {"name": "PLAIN", "value": "plain"}, {"name": "BOTH", "value": "weak"}, variable("BOTH", value)]
    task_id = framework.run_task(command(script, *variables), container=container(image=images.archive if with_image else None))
    wait.until(lambda: output(cluster, framework, task_id) == "right\nplain\nstronger\n", 10, "the task has seen its variables")
    assert holding(cluster.base, value) == [], "while it runs"
    for address, paths in [(cluster.master, ["/state", "/tasks", "/frameworks"]), (cluster.agents["agent"].address, ["/state", "/containers"])]:
        for path in paths:
            shown = web.get(address, path)
            assert shown.status == 200 and not any(form in shown.body for form in forms(value)), (address, path)
    # One that starts anew knows the task, and not its secret.
    cluster.agents["agent"].kill9()
    cluster.restart_agent()
    framework.kill(task_id)
    assert framework.wait_terminal(task_id)["state"] == "TASK_KILLED"
    wait.until(lambda: not cluster.task_leftovers(), 10, "nothing is left of it")
    assert holding(cluster.base, value) == [], "after it"


@pytest.mark.parametrize("with_image", [False, True])
def test_a_file_is_the_users_alone_and_on_no_disk(cluster, framework, images, value, with_image):
    script = 'cd $MESOS_SANDBOX; stat -c "%a %U" secret/token; stat -f -c %T secret/token; [ $(cat secret/token) = $(echo WANT | REV) ] && echo right; echo x > secret/token || echo refused; sleep 1000'
    script = script.replace("WANT", value[::-1]).replace("REV", "/bin/busybox rev" if with_image else "rev")
    image = images.archive if with_image else None
    task_id = framework.run_task(command(script, user="nobody"), container=container(volume(value, "secret/token"), image=image))
    wait.until(lambda: "refused" in output(cluster, framework, task_id), 10, "the task has seen its file")
    mode, kind, right, refused = output(cluster, framework, task_id).splitlines()
    # The image knows no name for that user.
    assert mode in ("600 nobody", "600 UNKNOWN") and right == "right" and kind in ("tmpfs", "ramfs"), output(cluster, framework, task_id)
    assert holding(cluster.base, value) == [], "while it runs"
    cluster.agents["agent"].kill9()
    cluster.restart_agent()
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    wait.until(lambda: not cluster.task_leftovers(), 10, "nothing is left of it")
    assert holding(cluster.base, value) == [], "after it"
    # Where it was mounted, there is an empty file.
    assert output(cluster, framework, task_id, "secret/token") == ""


def test_a_file_at_an_absolute_path_and_one_that_can_be_written(cluster, framework, images, value):
    script = "[ -s /run/secrets/one ] && echo there; echo new > /run/secrets/two && cat /run/secrets/two; ls /run/secrets"
    volumes = [volume(value, "/run/secrets/one"), volume(value, "/run/secrets/two", "RW")]
    task_id = framework.run_task(command(script), container=container(*volumes, image=images.archive), wait_until=("TASK_FINISHED",))
    assert output(cluster, framework, task_id) == "there\nnew\none\ntwo\n"
    # Without an image, its place must exist.
    point = os.path.join(cluster.base, "point")
    status = fails(framework, command("true"), container(volume(value, point)))
    assert "must exist" in status["message"] and value not in str(status), status
    open(point, "w").close()
    script = f"[ -s {point} ] && echo there"
    task_id = framework.run_task(command(script), container=container(volume(value, point)), wait_until=("TASK_FINISHED",))
    assert output(cluster, framework, task_id) == "there\n" and os.path.getsize(point) == 0
    assert holding(cluster.base, value) == []


def fails(framework, command, container):
    task_id = framework.run_task(command, container=container, wait_until=())
    status = framework.wait_terminal(task_id)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED"), status
    return status


def test_references_are_refused_with_words(cluster, framework):
    reference = {"type": "REFERENCE", "reference": {"name": "vault/token"}}
    of_variable = command("true", {"name": "TOKEN", "type": "SECRET", "secret": reference})
    status = fails(framework, of_variable, container())
    assert "TOKEN" in status["message"] and "REFERENCE" in status["message"], status
    of_file = container({"container_path": "token", "mode": "RO", "source": {"type": "SECRET", "secret": reference}})
    status = fails(framework, command("true"), of_file)
    assert "token" in status["message"] and "REFERENCE" in status["message"], status


def test_a_launch_that_fails_or_is_killed_leaves_no_secret(cluster, framework, value):
    """The agent is killed at the launch, at whatever stage it is in."""
    for number in range(5):
        offer = framework.offer(0.1, 32)
        made = {
            "name": "task", "task_id": {"value": f"killed-{number}"}, "agent_id": offer["agent_id"],
            "resources": [{"name": n, "type": "SCALAR", "scalar": {"value": v}} for n, v in (("cpus", 0.1), ("mem", 32))],
            "command": command("sleep 1000", variable("TOKEN", value)), "container": container(volume(value, "token")),
        }  # fmt: skip
        framework.launch(offer, [made])
        runtime = os.path.join(cluster.directory("agent-runtime"), "containers")
        if number % 2:
            wait.until(lambda: os.listdir(runtime), 10, "the launch is under way")
        cluster.agents["agent"].kill9()
        assert holding(cluster.base, value) == []
        cluster.restart_agent()
        framework.wait_for(lambda: framework.statuses(made["task_id"]["value"]), 30, "an update of the task")
        if framework.statuses(made["task_id"]["value"])[-1]["state"] not in TERMINAL:
            framework.kill(made["task_id"]["value"])
        framework.wait_terminal(made["task_id"]["value"])
        wait.until(lambda: not cluster.task_leftovers(), 20, "nothing is left of it")
        assert holding(cluster.base, value) == []


def test_without_the_isolator_a_secret_volume_is_refused(bare_cluster, value):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent()
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    status = fails(framework, command("true"), container(volume(value, "token")))
    assert "volume/secret" in status["message"] and value not in str(status), status
    # Variables need none to be named, as in Mesos.
    task_id = framework.run_task(command('[ -n "$TOKEN" ]', variable("TOKEN", value)), wait_until=("TASK_FINISHED",))
    assert framework.states(task_id)[-1] == "TASK_FINISHED"
    framework.disconnect()

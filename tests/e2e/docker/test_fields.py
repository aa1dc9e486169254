"""Each field of a Docker container, against a real engine: as the engine says, and as the container finds it."""

import base64
import json
import os
import subprocess

import pytest

from harness import wait, web
from harness.docker_engine import IMAGE
from harness.framework import Framework, scalars
from harness.registries import Registry, config_json

from .conftest import settings


def container(docker=None, **more):
    return {"type": "DOCKER", "docker": {"image": IMAGE, **(docker or {})}, **more}


def parameter(key, value):
    return {"key": key, "value": value}


def run(framework, command, docker=None, task=None, states=("TASK_FINISHED",), **more):
    """Runs a task to its end; its id."""
    return framework.run_task(command, wait_until=states, container=container(docker, **more), **(task or {}))


def name_of(framework, task_id):
    return "mesos-" + framework.statuses(task_id)[-1]["container_status"]["container_id"]["value"]


def said(cluster, framework, task_id, file="stdout"):
    run = f"frameworks/{framework.id}/executors/{task_id}/runs/latest/{file}"
    path = os.path.join(cluster.directory("agent"), "slaves", cluster.agent_id(), run)
    with open(path) as text:
        return text.read()


@pytest.fixture
def say(docker_cluster, framework):
    """What a task with this command and these fields says."""

    def run_and_read(command, docker=None, **more):
        return said(docker_cluster, framework, run(framework, command, docker, **more))

    return run_and_read


@pytest.fixture
def inspect(engine, framework):
    """What the engine says of a running task with these fields, and the task."""

    def run_and_look(command="sleep 1000", docker=None, **more):
        task_id = run(framework, command, docker, states=("TASK_RUNNING",), **more)
        return engine.inspect(name_of(framework, task_id)), task_id

    return run_and_look


@pytest.mark.parametrize(
    "command,states,message",
    [
        ("exit 0", ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"], "exited with status 0"),
        ("exit 3", ["TASK_STARTING", "TASK_RUNNING", "TASK_FAILED"], "exited with status 3"),
    ],
)
def test_ends(framework, command, states, message):
    task_id = run(framework, command, states=())
    assert message in framework.wait_terminal(task_id)["message"]
    assert framework.states(task_id) == states


def test_the_shell_takes_the_place_of_the_entrypoint(say):
    assert say("echo $0 $FROM_IMAGE") == "/bin/sh yes\n"


@pytest.mark.parametrize(
    "command,words",
    [
        ({"shell": False}, "entered by default\n"),
        ({"shell": False, "value": "a", "arguments": ["b", "c"]}, "entered a b c\n"),
        ({"shell": False, "arguments": ["only"]}, "entered only\n"),
    ],
)
def test_words_follow_the_image_s_entrypoint(say, command, words):
    assert say(command) == words


def test_environment(say, docker_cluster, framework):
    variables = {"variables": [{"name": "GIVEN", "value": "a b"}]}
    lines = say({"shell": True, "value": "env", "environment": variables}).splitlines()
    env = dict(line.split("=", 1) for line in lines if "=" in line)
    task_id = framework.statuses()[-1]["task_id"]["value"]
    assert env["GIVEN"] == "a b" and env["FROM_IMAGE"] == "yes"
    assert env["MESOS_SANDBOX"] == "/mnt/mesos/sandbox"
    assert env["MESOS_CONTAINER_NAME"] == name_of(framework, task_id)
    assert env["MESOS_ALLOCATION_ROLE"] == "*"


def test_the_sandbox_and_both_outputs(docker_cluster, framework):
    task_id = run(framework, "echo to stdout; echo to stderr >&2; echo kept > /mnt/mesos/sandbox/file")
    assert said(docker_cluster, framework, task_id) == "to stdout\n"
    assert said(docker_cluster, framework, task_id, "stderr") == "to stderr\n"
    assert said(docker_cluster, framework, task_id, "file") == "kept\n"


def test_cpu_and_memory(inspect):
    looked, _ = inspect(task={"cpus": 0.5, "mem": 64})
    assert looked["HostConfig"]["CpuShares"] == 512
    assert looked["HostConfig"]["Memory"] == 64 << 20
    limits = {"cpus": {"value": 1.5}, "mem": {"value": 128}}
    looked, _ = inspect(task={"cpus": 0.5, "mem": 64, "limits": limits})
    assert looked["HostConfig"]["CpuQuota"] == 150_000
    assert looked["HostConfig"]["Memory"] == 128 << 20
    assert looked["HostConfig"]["MemoryReservation"] == 64 << 20


def test_too_much_memory_is_the_reason(framework):
    task_id = run(framework, "dd if=/dev/zero of=/dev/null bs=200M count=1", task={"mem": 32}, states=())
    last = framework.wait_terminal(task_id)
    assert last["state"] == "TASK_FAILED" and last["reason"] == "REASON_CONTAINER_LIMITATION_MEMORY", last


def test_network_bridge_has_an_address_and_mapped_ports(engine, inspect, framework):
    mapping = {"host_port": 31005, "container_port": 80, "protocol": "tcp"}
    task = {"resources": scalars(cpus=0.1, mem=32) + [{"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31005, "end": 31005}]}}]}
    looked, task_id = inspect(
        "while true; do echo served | nc -l -p 80; done", {"network": "BRIDGE", "port_mappings": [mapping]}, task=task
    )
    (address,) = [network["IPAddress"] for network in looked["NetworkSettings"]["Networks"].values()]
    running = [status for status in framework.statuses(task_id) if status["state"] == "TASK_RUNNING"][0]
    (info,) = running["container_status"]["network_infos"]
    assert info["ip_addresses"][0]["ip_address"] == address
    assert looked["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "31005"}]}
    def served():
        words = ["nsenter", f"--net=/run/netns/{engine.mark}", "busybox", "nc", "-w", "1", "127.0.0.1", "31005"]
        return b"served" in subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL).stdout

    wait.until(served, 20, "the mapped port serves")


def test_network_none_and_host(inspect, say):
    looked, _ = inspect(docker={"network": "NONE"})
    assert looked["HostConfig"]["NetworkMode"] == "none"
    looked, _ = inspect(docker={"network": "HOST"})
    assert looked["HostConfig"]["NetworkMode"] == "host"
    looked, _ = inspect()
    assert looked["HostConfig"]["NetworkMode"] == "host"
    assert "eth0" not in say("ip link", {"network": "NONE"})


def test_network_of_a_user(engine, inspect):
    engine.docker("network", "create", "mine")
    try:
        looked, _ = inspect(docker={"network": "USER"}, network_infos=[{"name": "mine"}])
        assert list(looked["NetworkSettings"]["Networks"]) == ["mine"]
        engine.docker("rm", "--force", looked["Name"].lstrip("/"))
    finally:
        wait.until(lambda: engine.try_docker("network", "rm", "mine").returncode == 0, 20, "the network goes")


def test_hostname(say):
    assert say("hostname", {"network": "BRIDGE"}, hostname="given") == "given\n"


def test_privileged(engine, framework, inspect):
    plain = engine.try_docker("run", "--rm", "--privileged", IMAGE)
    if plain.returncode != 0:
        # A machine that is itself confined cannot have such containers, and the engine says so for both alike.
        refusal = plain.stderr.decode().strip().rsplit(": ", 3)[1]
        task_id = run(framework, "true", {"privileged": True}, states=())
        assert refusal in framework.wait_terminal(task_id)["message"]
        return
    looked, _ = inspect(docker={"privileged": True})
    assert looked["HostConfig"]["Privileged"] is True


def test_parameters(inspect, say):
    given = [parameter("cap-drop", "NET_RAW"), parameter("label", "a=b"), parameter("ulimit", "nofile=100:200"), parameter("tmpfs", "/t")]
    looked, _ = inspect(docker={"parameters": given})
    assert looked["HostConfig"]["CapDrop"] == ["NET_RAW"]
    assert looked["Config"]["Labels"]["a"] == "b"
    assert looked["HostConfig"]["Ulimits"] == [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    assert looked["HostConfig"]["Tmpfs"] == {"/t": ""}
    assert say("id -u; pwd", {"parameters": [parameter("user", "app"), parameter("workdir", "/tmp")]}) == "1234\n/tmp\n"
    assert say("cat /etc/resolv.conf", {"network": "BRIDGE", "parameters": [parameter("dns", "10.9.8.7")]}).count("10.9.8.7") == 1


@pytest.mark.parametrize(
    "docker,words",
    [
        ({"parameters": [parameter("colour", "red")]}, "'colour' is no option"),
        ({"parameters": [parameter("memory", "much")]}, "'memory' cannot be 'much'"),
        ({"network": "USER"}, "network_infos"),
        ({"port_mappings": [{"host_port": 80, "container_port": 80}], "network": "BRIDGE"}, "ports"),
        ({"image": "127.0.0.1:1/absent:1"}, "pull the image"),
    ],
)
def test_what_cannot_be_is_refused_with_words(framework, docker, words):
    task_id = run(framework, "true", docker, states=())
    last = framework.wait_terminal(task_id)
    assert last["state"] == "TASK_FAILED" and last["reason"] == "REASON_CONTAINER_LAUNCH_FAILED", last
    assert words in last["message"], last


def test_a_program_that_is_not_there_is_named(framework):
    docker = {"parameters": [parameter("entrypoint", "/no/such")]}
    task_id = run(framework, {"shell": False}, docker, states=())
    assert "/no/such" in framework.wait_terminal(task_id)["message"]


def test_volumes(engine, say, tmp_path):
    (tmp_path / "there").write_text("from the host\n")
    volumes = [
        {"mode": "RO", "host_path": str(tmp_path), "container_path": "/v"},
        {"mode": "RW", "host_path": "inside", "container_path": "/own"},
        {"mode": "RW", "container_path": "/named", "source": {"type": "DOCKER_VOLUME", "docker_volume": {"name": "vol1", "driver": "local"}}},
    ]
    script = "cat /v/there; touch /v/new 2>/dev/null || echo read-only; touch /own/x; ls /mnt/mesos/sandbox/inside; touch /named/y"
    assert say(script, volumes=volumes) == "from the host\nread-only\nx\n"
    assert engine.docker("volume", "ls", "--quiet").split() == ["vol1"]
    engine.docker("volume", "rm", "vol1")


def test_a_volume_that_its_driver_makes_with_options(engine, say):
    options = {"parameter": [{"key": key, "value": value} for key, value in {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1234"}.items()]}
    source = {"type": "DOCKER_VOLUME", "docker_volume": {"name": "small", "driver": "local", "driver_options": options}}
    volumes = [{"mode": "RW", "container_path": "/small", "source": source}]
    try:
        assert say("grep -c ' /small tmpfs rw.*size=1024k.*uid=1234' /proc/mounts; ls -ldn /small | awk '{print $3}'", volumes=volumes) == "1\n1234\n"
        made = json.loads(engine.docker("volume", "inspect", "small"))[0]
        assert (made["Driver"], made["Options"]["o"]) == ("local", "size=1m,uid=1234")
    finally:
        engine.docker("volume", "rm", "small")


def test_force_pull_asks_the_registry(framework, engine):
    # The image is there under this name, and no registry is.
    engine.docker("tag", IMAGE, "127.0.0.1:1/busybox:test")
    docker = {"image": "127.0.0.1:1/busybox:test"}
    run(framework, "true", docker)
    task_id = run(framework, "true", {**docker, "force_pull_image": True}, states=())
    assert "pull the image" in framework.wait_terminal(task_id)["message"]


def test_the_engine_pulls_with_the_agent_s_login(engine, images, bare_cluster):
    registry = Registry("basic", images)
    try:
        # The engine has a loopback of its own, and is on the way to the registry's by a proxy that it trusts.
        with engine.reaching(registry.address) as address:
            bare_cluster.start_coordinator()
            bare_cluster.start_agent(**settings(engine), docker_config=config_json(address))
            framework = Framework(bare_cluster.master)
            framework.subscribe()
            name = f"{address}/test/busybox"
            last = framework.wait_terminal(run(framework, "true", {"image": name}, states=()), timeout=60)
            framework.teardown()
            assert last["state"] == "TASK_FINISHED", last
            metrics = web.get(bare_cluster.agents["agent"].address, "/metrics/snapshot").json()
            assert metrics["containerizer/docker/image_pull_ms"] > 0
            engine.docker("image", "rm", "--force", name)
    finally:
        registry.close()


def test_a_kill_has_its_grace_period(framework, engine):
    script = "trap 'echo asked; exit 7' TERM; while true; do sleep 0.1; done"
    task_id = run(framework, script, states=("TASK_RUNNING",))
    framework.kill(task_id)
    last = framework.wait_terminal(task_id)
    assert last["state"] == "TASK_KILLED", last
    deaf = run(framework, "trap '' TERM; while true; do sleep 0.1; done", states=("TASK_RUNNING",))
    framework.kill(deaf, kill_policy={"grace_period": {"nanoseconds": 200_000_000}})
    assert framework.wait_terminal(deaf)["state"] == "TASK_KILLED"
    names = {name_of(framework, task_id), name_of(framework, deaf)}
    wait.until(lambda: not names & set(engine.names()), 20, "both containers are removed")


def test_statistics(docker_cluster, framework, inspect):
    _, task_id = inspect("while true; do true; done", task={"cpus": 0.5, "mem": 64})
    container_id = framework.statuses(task_id)[-1]["container_status"]["container_id"]["value"]

    def used():
        answer = docker_cluster.agent_operator({"type": "GET_CONTAINERS"})["get_containers"]["containers"]
        (found,) = [c for c in answer if c["container_id"]["value"] == container_id]
        assert found["container_status"]["executor_pid"] > 1
        statistics = found["resource_statistics"]
        return statistics if statistics.get("cpus_user_time_secs", 0) > 0 else None

    statistics = wait.until(used, 20, "it has used CPU time")
    assert statistics["mem_limit_bytes"] == 64 << 20
    assert statistics["mem_total_bytes"] > 0


def test_files_are_fetched_into_its_sandbox(docker_cluster, framework):
    source = os.path.join(docker_cluster.base, "fetched")
    with open(source, "w") as file:
        file.write("fetched\n")
    command = {"shell": True, "value": "cat $MESOS_SANDBOX/fetched", "uris": [{"value": source}]}
    task_id = run(framework, command)
    assert said(docker_cluster, framework, task_id) == "fetched\n"
    missing = {**command, "uris": [{"value": "/no/such/file"}]}
    task_id = run(framework, missing, states=("TASK_FAILED",))
    status = framework.statuses(task_id)[-1]
    assert status["reason"] == "REASON_CONTAINER_LAUNCH_FAILED" and "/no/such/file" in status["message"], status


def test_the_copies_of_its_output_are_rotated(engine, bare_cluster):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(**settings(engine), container_logger="logrotate")
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    own = {"MAX_STDOUT_SIZE": "4096B", "LOGROTATE_STDOUT_OPTIONS": "rotate 2"}
    variables = [{"name": f"CONTAINER_LOGGER_{name}", "value": value} for name, value in own.items()]
    command = {"shell": True, "value": "seq 3000", "environment": {"variables": variables}}
    task_id = run(framework, command)
    files = [said(bare_cluster, framework, task_id, name) for name in ("stdout.2", "stdout.1", "stdout")]
    assert all(len(text) <= 4096 for text in files)
    lines = "".join(files).splitlines()
    assert lines == [str(n) for n in range(3001 - len(lines), 3001)] and len(lines) > 1700


def test_what_the_engine_says_is_told_with_the_first_running(docker_cluster, engine, framework):
    task_id = run(framework, "sleep 1000", {"network": "BRIDGE"}, states=("TASK_RUNNING",))
    first = framework.wait_state(task_id, "TASK_RUNNING")
    (told,) = json.loads(base64.b64decode(first["data"]))
    said = engine.inspect(name_of(framework, task_id))
    assert told["Id"] == said["Id"] and told["State"]["Pid"] == said["State"]["Pid"]
    assert told["Config"]["Env"] == said["Config"]["Env"]
    address = said["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert first["labels"]["labels"] == [{"key": "Docker.NetworkSettings.IPAddress", "value": address}]
    assert first["container_status"]["network_infos"][0]["ip_addresses"][0]["ip_address"] == address

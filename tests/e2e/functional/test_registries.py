"""Images from registries that want a login or have a certificate of their own, over wires that break, for many tasks at once."""

import base64
import os
import shutil

import pytest

from harness import cluster as clusters
from harness import registries, wait, web
from harness.framework import Framework, scalars, task
from harness.registries import PASSWORD, Cutting, Registry, config_json


@pytest.fixture(scope="module")
def registry(request, images):
    """Makes registries that live as long as the file's tests, one of each kind."""
    missing = [tool for tool in registries.TOOLS if not clusters.which(tool)]
    if missing:
        pytest.fail(f"not installed: {', '.join(missing)}; tests/run installs them")
    made = {}

    def of_kind(kind, **more):
        if kind not in made:
            made[kind] = Registry(kind, images, **more)
        return made[kind]

    yield of_kind
    for each in made.values():
        each.close()


@pytest.fixture
def start(bare_cluster):
    """Starts an agent with these flags; gives a framework."""
    frameworks = []

    def started(**flags):
        bare_cluster.start_coordinator()
        bare_cluster.start_agent(**flags)
        frameworks.append(Framework(bare_cluster.master))
        frameworks[0].subscribe()
        return frameworks[0]

    yield started
    for framework in frameworks:
        framework.teardown()


def container(name, config=None):
    docker = {"name": name}
    if config is not None:
        docker["config"] = {"type": "VALUE", "value": {"data": base64.b64encode(config.encode()).decode()}}
    return {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": docker}}}


def end(framework, image, command="cat /etc/from-first-layer", **more):
    return framework.wait_terminal(framework.run_task(command, wait_until=(), container=container(image, **more)), timeout=60)


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_a_login_of_the_agent_s(registry, start, tmp_path, kind):
    one = registry(kind)
    path = tmp_path / "config.json"
    path.write_text(config_json(f"https://{one.address}/v1/"))
    framework = start(docker_config=str(path))
    last = end(framework, f"{one.address}/test/busybox")
    assert last["state"] == "TASK_FINISHED", last
    if kind == "token":
        assert ("repository:test/busybox:pull", True) in one.tokens.asked


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_a_login_of_the_task_s_comes_first(registry, start, bare_cluster, kind):
    one = registry(kind)
    image = f"{one.address}/test/busybox"
    framework = start(docker_config=config_json(one.address, password="wrong"))
    last = end(framework, image)
    assert last["state"] == "TASK_FAILED" and last["reason"] == "REASON_CONTAINER_LAUNCH_FAILED", last
    assert "401" in last["message"] or "password" in last["message"], last
    last = end(framework, image, config=config_json(one.address))
    assert last["state"] == "TASK_FINISHED", last
    last = end(framework, image, config="{")
    assert "config.json" in last["message"], last
    said = bare_cluster.agents["agent"].log() + str(web.get(bare_cluster.agents["agent"].address, "/state").text)
    assert PASSWORD not in said and base64.b64encode(f"user:{PASSWORD}".encode()).decode() not in said


def test_without_a_login_the_reason_names_the_flag(registry, start):
    last = end(start(), f"{registry('basic').address}/test/busybox")
    assert last["state"] == "TASK_FAILED" and "--docker_config" in last["message"], last


def test_a_certificate_by_an_authority_of_one_s_own(registry, start, bare_cluster, tmp_path):
    one = registry("tls")
    framework = start(docker_registry=f"https://{one.address}", docker_certs_dir=str(tmp_path))
    last = end(framework, "test/busybox")
    assert last["state"] == "TASK_FAILED" and "certificate" in last["message"].lower(), last
    of_registry = tmp_path / one.address
    of_registry.mkdir()
    (of_registry / "ca.crt").write_bytes(open(one.authority, "rb").read())
    bare_cluster.agents["agent"].stop()
    bare_cluster.restart_agent()
    last = end(framework, "test/busybox")
    assert last["state"] == "TASK_FINISHED", last


def test_a_mirror_comes_before_docker_hub(registry, start):
    one = registry("plain", large=6 << 20)
    framework = start(docker_registry_mirrors=f"http://127.0.0.1:1,http://{one.address}")
    assert end(framework, "test/busybox")["state"] == "TASK_FINISHED"


def test_a_blob_that_breaks_off_three_times_is_whole_in_the_end(registry, start, bare_cluster):
    one = registry("plain", large=6 << 20)
    cutting = Cutting(one.address, cuts=3, after=1 << 20)
    framework = start()
    last = end(framework, f"{cutting.address}/test/large", f"[ $(sha256sum < /random | cut -c1-64) = {one.large_digest} ]")
    cutting.close()
    assert last["state"] == "TASK_FINISHED", last
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0 for asked in cutting.ranges]
    assert len(starts) == 4 and starts[0] == 0 and starts == sorted(set(starts)), cutting.ranges


def launch_many(framework, image, count):
    """All on one offer, at once."""
    offer = framework.offer(cpus=1, mem=count)
    tasks = [
        task("true", f"many-{number}", resources=scalars(cpus=0.01, mem=8), agent_id=offer["agent_id"], container=container(image))
        for number in range(count)
    ]
    framework.launch(offer, tasks)
    return [f"many-{number}" for number in range(count)]


def pulls(cluster):
    """The metrics of how long pulls took."""
    metrics = web.get(cluster.agents["agent"].address, "/metrics/snapshot").json()
    name = "containerizer/mesos/provisioner/docker_store/image_pull_ms"
    return {key.removeprefix(name): value for key, value in metrics.items() if key.startswith(name)}


def test_a_hundred_tasks_of_an_absent_image_are_one_pull(registry, start, bare_cluster):
    one = registry("plain", large=6 << 20)
    before = len(one.blobs_sent())
    framework = start()
    assert not pulls(bare_cluster)
    for task_id in launch_many(framework, f"{one.address}/test/large", 100):
        assert framework.wait_terminal(task_id, timeout=90)["state"] == "TASK_FINISHED"
    sent = one.blobs_sent()[before:]
    assert sent and len(sent) == len(set(sent)), "a blob was sent twice"
    # As in Mesos there are statistics of two and more.
    assert list(pulls(bare_cluster)) == [""]
    assert end(framework, f"{one.address}/test/busybox")["state"] == "TASK_FINISHED"
    told = pulls(bare_cluster)
    assert set(told) == {"", "/count", "/max", "/min", "/p50", "/p90", "/p95", "/p99", "/p999", "/p9999"}
    assert told["/count"] == 2 and 0 < told["/min"] <= told["/p50"] <= told["/p9999"] <= told["/max"]


def test_an_agent_killed_while_it_pulls_leaves_a_whole_store(registry, start, bare_cluster):
    """At ten instants of the pull: what is in the store is whole, and tasks end well or fail with a reason."""
    one = registry("plain", large=6 << 20)
    framework = start()
    store = bare_cluster.directory("agent-images")
    for turn in range(10):
        ids = [f"{turn}-{task_id}" for task_id in ("a", "b", "c")]
        offer = framework.offer(cpus=1, mem=64)
        image = container(f"{one.address}/test/large")
        image["mesos"]["image"]["cached"] = False
        tasks = [task("true", task_id, resources=scalars(cpus=0.01, mem=8), agent_id=offer["agent_id"], container=image) for task_id in ids]
        framework.launch(offer, tasks)
        # Instants between nothing and all of the pull, by what of it is there.
        wait.until(lambda: staged(store) >= turn * (700 << 10) or one_is_there(store), 20, "the pull is that far")
        bare_cluster.agents["agent"].kill9()
        for name in os.listdir(os.path.join(store, "layers")):
            assert os.path.exists(os.path.join(store, "layers", name, "layer.json")), f"{name} is half a layer"
        bare_cluster.restart_agent()
        assert len(os.listdir(os.path.join(store, "staging"))) == 1, "what the dead agent had begun is left"
        for task_id in ids:
            last = framework.wait_terminal(task_id, timeout=60)
            assert last["state"] == "TASK_FINISHED" or (last.get("reason") and last["message"]), last
        # The next turn begins anew.
        if turn < 9 and one_is_there(store):
            bare_cluster.agents["agent"].kill9()
            for folder in ("layers", "images", "references", "l"):
                clear(os.path.join(store, folder))
            bare_cluster.restart_agent()
    last = end(framework, f"{one.address}/test/large", f"[ $(sha256sum < /random | cut -c1-64) = {one.large_digest} ]")
    assert last["state"] == "TASK_FINISHED", last


def staged(store):
    """Bytes of what is being unpacked."""
    total = 0
    for folder, _, names in os.walk(os.path.join(store, "staging")):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total


def one_is_there(store):
    return any(os.listdir(os.path.join(store, "images")))


def clear(folder):
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)

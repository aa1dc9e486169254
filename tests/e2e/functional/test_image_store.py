"""The images that an agent keeps: pruned, collected, looked at and removed by `tepui images`, never from under a container."""

import json
import os
import re
import shutil
import subprocess

import pytest

from harness import cluster as clusters
from harness import wait, web
from harness.framework import Framework


def container(name):
    return {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": name}}}}


@pytest.fixture
def start(bare_cluster):
    frameworks = []

    def started(**flags):
        bare_cluster.start_coordinator()
        bare_cluster.start_agent(**flags)
        frameworks.append(Framework(bare_cluster.master, checkpoint=True, failover_timeout=600.0))
        frameworks[0].subscribe()
        return frameworks[0]

    yield started
    for framework in frameworks:
        framework.teardown()


def tepui_images(cluster, *words):
    store = f"--docker_store_dir={cluster.directory('agent-images')}"
    return subprocess.run([clusters.binary(), "images", *words, store], capture_output=True, text=True, timeout=60)


def listed(cluster):
    done = tepui_images(cluster, "list", "-o", "json")
    assert done.returncode == 0, done.stderr
    return sorted(image["name"] for image in json.loads(done.stdout))


def layers(cluster):
    return len(os.listdir(os.path.join(cluster.directory("agent-images"), "layers")))


def prune(cluster, *excluded):
    images = [{"type": "DOCKER", "docker": {"name": name}} for name in excluded]
    answer = web.post_json(cluster.agents["agent"].address, "/api/v1", {"type": "PRUNE_IMAGES", "prune_images": {"excluded_images": images}})
    assert (answer.status, answer.body) == (200, b""), answer.text


def test_pruning_spares_what_is_in_use_and_what_is_excluded(start, bare_cluster, images, tmp_path):
    framework = start()
    # Another image of the same layers.
    other = str(tmp_path / "other")
    shutil.copytree(images.layout, other)
    subprocess.run(["umoci", "config", "--image", f"{other}:latest", "--config.label", "other=yes"], check=True)
    run = lambda name, command, state: framework.run_task(command, wait_until=(state,), container=container(name))  # noqa: E731
    by_registry = images.reference
    run(other, "true", "TASK_FINISHED")
    task_id = run(by_registry, "sleep 1000", "TASK_RUNNING")
    full = f"http://{by_registry}"
    assert listed(bare_cluster) == sorted([other, full])
    prune(bare_cluster, other)
    assert listed(bare_cluster) == sorted([other, full])
    prune(bare_cluster)
    assert listed(bare_cluster) == [full]
    # What a container uses it uses also when its agent was killed meanwhile.
    bare_cluster.agents["agent"].kill9()
    refused = tepui_images(bare_cluster, "remove", by_registry)
    assert refused.returncode != 0 and "in use" in refused.stderr, refused
    bare_cluster.restart_agent()
    prune(bare_cluster)
    assert listed(bare_cluster) == [full]
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    prune(bare_cluster)
    assert listed(bare_cluster) == [] and layers(bare_cluster) == 0
    run(by_registry, "cat /etc/from-second-layer", "TASK_FINISHED")


def test_images_go_when_the_disk_fills(start, bare_cluster, images):
    # No disk has all of it free.
    config = {"image_disk_headroom": 1.0, "image_disk_watch_interval": {"nanoseconds": 200_000_000}, "excluded_images": []}
    framework = start(image_gc_config=json.dumps(config))
    task_id = framework.run_task("sleep 1000", wait_until=("TASK_RUNNING",), container=container(images.reference))
    wait.until(lambda: "in_use=[\"http" in plain(bare_cluster), 20, "a collection spared the image in use")
    assert listed(bare_cluster) == [f"http://{images.reference}"]
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    wait.until(lambda: not listed(bare_cluster), 20, "the image is collected")


def plain(cluster):
    return re.sub(r"\x1b\[[0-9;]*m", "", cluster.agents["agent"].log())


def test_the_command_line(bare_cluster, images):
    pulled = tepui_images(bare_cluster, "pull", images.reference)
    assert pulled.returncode == 0 and pulled.stdout.startswith("sha256:"), pulled
    assert "downloading" in pulled.stderr and "done" in pulled.stderr, pulled.stderr
    again = tepui_images(bare_cluster, "pull", images.reference)
    assert again.stdout == pulled.stdout and "already here" in again.stderr
    table = tepui_images(bare_cluster, "list").stdout
    assert images.reference in table and pulled.stdout[7:19] in table
    assert tepui_images(bare_cluster, "remove", images.reference).returncode == 0
    assert listed(bare_cluster) == [] and layers(bare_cluster) == 0
    gone = tepui_images(bare_cluster, "remove", images.reference)
    assert gone.returncode != 0 and "there is no image" in gone.stderr
    absent = tepui_images(bare_cluster, "pull", f"{images.registry}/no/such:1")
    assert absent.returncode != 0 and "no/such" in absent.stderr

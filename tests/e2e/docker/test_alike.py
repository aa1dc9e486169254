"""The root file system that a native container sees is the one that Docker makes of the same image, whichever tool made the image."""

import io
import os
import shutil
import subprocess
import tarfile
import time

import pytest

from harness import alike
from harness.cluster import REPOSITORY
from harness.docker_engine import IMAGE

# What Docker lays over the image, and what containers of either have there.
LAID_OVER = {b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"etc/mtab", b".dockerenv", b"dev", b"proc", b"sys", b"etc", b"mnt", b"mnt/mesos", b"mnt/mesos/sandbox", b"dev/console", b"dev/pts", b"dev/shm", b""}  # fmt: skip


def sh(*words, **how):
    done = subprocess.run(words, capture_output=True, **how)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.decode()}"
    return done.stdout


def member(name, kind=tarfile.REGTYPE, content=b"", mode=0o644, owner=(0, 0), mtime=1_500_000_000, link="", attributes=None, device=(0, 0)):
    made = tarfile.TarInfo(name)
    made.type, made.mode, made.mtime, made.linkname, made.size = kind, mode, mtime, link, len(content)
    (made.uid, made.gid), (made.devmajor, made.devminor) = owner, device
    made.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (attributes or {}).items()}
    return made, io.BytesIO(content)


def odd_tar():
    """One of each kind of thing that an image can hold."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for made, content in [
            member("odd", tarfile.DIRTYPE, mode=0o1777, owner=(7, 8)),
            member("odd/a name with spaces", content=b"1", mtime=1_234_567_890.123456789),
            member("odd/\u00fcml\u00e4ut \u2603", content=b"2", mtime=1),
            member("odd/" + "long" * 50, content=b"3"),
            member("odd/" + "/".join(["deep"] * 1), tarfile.DIRTYPE, mode=0o700),
            member("odd/setuid", content=b"4", mode=0o6755, owner=(1234, 5678)),
            member("odd/attributes", content=b"5", attributes={"user.of": "a test", "user.other": "v"}),
            member("odd/hard", tarfile.LNKTYPE, link="odd/setuid"),
            member("odd/absolute", tarfile.SYMTYPE, link="/etc/passwd", mode=0o777),
            member("odd/dangling", tarfile.SYMTYPE, link="../no/such/thing", mode=0o777),
            member("odd/fifo", tarfile.FIFOTYPE, mode=0o622),
            member("odd/null", tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
            member("odd/empty", tarfile.DIRTYPE, mode=0o555, mtime=5),
            member("going", tarfile.DIRTYPE, mode=0o755),
            member("going/file", content=b"6"),
            member("opaque", tarfile.DIRTYPE, mode=0o755),
            member("opaque/below", content=b"7"),
            member("replaced", content=b"a file"),
        ]:
            tar.addfile(made, content)
    return out.getvalue()


DOCKERFILE = f"""FROM {IMAGE}
ADD odd.tar /
RUN ["/bin/sh", "-c", "rm -rf /going /replaced /opaque; mkdir /opaque /replaced; echo new > /opaque/above; chmod 0750 /odd/setuid; touch -d '2001-02-03 04:05:06' /odd/empty; chown -h 3:4 /odd/dangling"]
RUN ["/bin/sh", "-c", "ln /odd/attributes /odd/linked-later; echo more >> /etc/passwd"]
ENTRYPOINT []
CMD ["/bin/sleep", "1000"]
"""


@pytest.fixture(scope="session")
def built(engine, tmp_path_factory):
    """An image by `docker build`, saved."""
    base = tmp_path_factory.mktemp("built")
    (base / "odd.tar").write_bytes(odd_tar())
    (base / "Dockerfile").write_text(DOCKERFILE)
    engine.docker("build", "--network=none", "--tag", "odd:1", str(base))
    archive = base / "saved.tar"
    engine.docker("save", "--output", str(archive), "odd:1")
    return "odd:1", str(archive)


def by_docker_build(engine, built, base):
    return built


def by_skopeo(engine, built, base):
    """The same, turned into an OCI layout."""
    sh("skopeo", "--insecure-policy", "copy", f"docker-archive:{built[1]}", f"oci:{base}/converted:1")
    return built[0], f"{base}/converted"


def by_umoci(engine, built, base):
    """Layers by umoci, with its whiteouts and opaque directories."""
    layout, root = f"{base}/layout", base / "root"
    for folder in ("bin", "etc", "tmp", "d/sub", "opaque"):
        (root / folder).mkdir(parents=True)
    sh("cp", os.path.realpath(shutil.which("busybox")), str(root / "bin/busybox"))
    for applet in ("sh", "sleep"):
        os.symlink("busybox", root / "bin" / applet)
    for name in ("d/one", "d/two", "d/sub/three", "opaque/below"):
        (root / name).write_text(name)
    os.link(root / "d/one", root / "d/same")
    os.setxattr(root / "d/two", "user.test", b"value")
    os.chown(root / "d/sub", 11, 12)
    os.chmod(root / "d/sub/three", 0o4711)
    sh("umoci", "init", "--layout", layout)
    sh("umoci", "new", "--image", f"{layout}:1")
    sh("umoci", "insert", "--image", f"{layout}:1", str(root), "/")
    sh("umoci", "insert", "--image", f"{layout}:1", "--whiteout", "/d/one")
    (base / "above").mkdir()
    (base / "above/file").write_text("above")
    sh("umoci", "insert", "--image", f"{layout}:1", "--opaque", str(base / "above"), "/opaque")
    sh("umoci", "config", "--image", f"{layout}:1", "--config.cmd", "/bin/sleep", "--config.cmd", "1000")
    return load(engine, f"oci:{layout}:1", base, "umoci:1"), layout


def by_debootstrap(engine, built, base):
    layout = sh(os.path.join(REPOSITORY, "tests/setup/debian-image")).decode().strip()
    return load(engine, f"oci:{layout}", base, "debian:1"), layout.rsplit(":", 1)[0]


def load(engine, source, base, name):
    sh("skopeo", "--insecure-policy", "copy", source, f"docker-archive:{base}/for-docker.tar:{name}")
    engine.docker("load", "--input", f"{base}/for-docker.tar")
    os.unlink(f"{base}/for-docker.tar")
    return name


@pytest.mark.parametrize("make", [by_docker_build, by_skopeo, by_umoci, by_debootstrap])
def test_the_root_is_docker_s(engine, docker_cluster, framework, built, tmp_path, make):
    began = time.time_ns()
    name, path = make(engine, built, tmp_path)
    container = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": path}}}}
    task_id = framework.run_task(["sleep", "1000"], wait_until=(), container=container)
    framework.wait_state(task_id, "TASK_RUNNING", timeout=120)
    containers = docker_cluster.agent_operator({"type": "GET_CONTAINERS"})["get_containers"]["containers"]
    (pid,) = [c["container_status"]["executor_pid"] for c in containers if c["executor_id"]["value"] == task_id]
    started = engine.docker("run", "--detach", "--network=none", name, "/bin/sleep", "1000").strip()
    try:
        merged = engine.inspect(started)["GraphDriver"]["Data"]["MergedDir"]
        theirs, _ = alike.walk(merged)
        ours, mounted = alike.walk(f"/proc/{pid}/root")
    finally:
        engine.docker("rm", "--force", started)
    assert mounted <= LAID_OVER | {b"tmp"}, mounted
    # A directory upon which something is mounted is seen on one side only.
    but = LAID_OVER | {key for key in theirs if any(key == at or key.startswith(at + b"/") for at in mounted - {b"etc"})}
    assert len(ours.keys() - but) > 10
    assert alike.differences(theirs, ours, but, since=began) == []

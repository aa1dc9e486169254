"""The fetcher: files into sandboxes, from a web server and from the disk, packed by the tools that people use."""

import io
import os
import shutil
import ssl
import stat
import subprocess
import tarfile
import threading
import time
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness import wait, web
from harness.framework import Framework
from harness.registries import certificates


class Server(ThreadingHTTPServer):
    """Serves `files` by path; counts requests. A path in `slow` sends its head and part of its body, and no more until it is `released`."""

    daemon_threads = True

    def __init__(self, tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            # The handshake is the thread's affair that answers, not that of the one which accepts.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.files, self.slow, self.asked = {}, set(), {}
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def add(self, name, content):
        self.files["/" + name] = content
        return self.url(name)

    def url(self, name):
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked[self.path] = server.asked.get(self.path, 0) + 1
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2 if self.path in server.slow else len(content)
        try:
            self.wfile.write(content[:half])
            self.wfile.flush()
            if half < len(content):
                server.released.wait(60)
                self.wfile.write(content[half:])
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = Server()
    yield made
    made.released.set()
    made.shutdown()
    made.server_close()


@pytest.fixture
def framework(shared_cluster):
    made = Framework(shared_cluster.master)
    made.subscribe()
    yield made
    made.teardown()


def command(script, *uris, **more):
    return {"shell": True, "value": script, "uris": [u if isinstance(u, dict) else {"value": u} for u in uris], **more}


def sandbox(cluster, framework, task_id, name="agent"):
    """The task's sandbox on the disk."""
    path = os.path.join(
        cluster.directory(name), "slaves", cluster.agent_id(name), "frameworks", framework.id, "executors", task_id, "runs/latest"
    )  # fmt: skip
    return os.path.realpath(path)


def run(cluster, framework, script, *uris, **more):
    """Runs a task to its good end; gives its output."""
    task_id = framework.run_task(command(script, *uris, **more), wait_until=("TASK_FINISHED",))
    with open(os.path.join(sandbox(cluster, framework, task_id), "stdout")) as file:
        return file.read()


def fails(framework, *uris, **more):
    """Runs a task whose URIs cannot be had; gives the last status."""
    task_id = framework.run_task(command("touch ran", *uris, **more), wait_until=())
    status = framework.wait_terminal(task_id)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED"), status
    assert status["source"] == "SOURCE_AGENT" and status["message"].startswith("Failed to launch container: "), status
    return task_id, status["message"]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """`{kind: bytes}`: the same tree in every kind of archive, packed by tar, zip and the like."""
    top = tmp_path_factory.mktemp("archives")
    tree = top / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "file").write_text("content\n")
    (tree / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("d/file")
    packed = {}
    for kind, option in [("tar", ""), ("tgz", "z"), ("tar.gz", "z"), ("tbz2", "j"), ("tar.bz2", "j"), ("txz", "J"), ("tar.xz", "J")]:
        if option == "j" and not shutil.which("bzip2"):
            with tarfile.open(top / f"a.{kind}", "w:bz2") as archive:
                archive.add(tree, ".")
        else:
            subprocess.run(["tar", f"-c{option}f", top / f"a.{kind}", "-C", tree, "."], check=True)
        packed[kind] = (top / f"a.{kind}").read_bytes()
    if shutil.which("zstd"):
        subprocess.run(["tar", "--zstd", "-cf", top / "a.tar.zst", "-C", tree, "."], check=True)
        packed["tar.zst"] = (top / "a.tar.zst").read_bytes()
    if shutil.which("zip"):
        subprocess.run(["zip", "-qry", top / "a.zip", "."], cwd=tree, check=True)
        packed["zip"] = (top / "a.zip").read_bytes()
    else:
        packed["zip"] = zipped(tree)
    return packed


def zipped(tree):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("d/file", "run.sh"):
            archive.write(tree / name, name)
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "d/file")
    return file.getvalue()


def test_a_file_by_http(shared_cluster, framework, server):
    out = run(shared_cluster, framework, "cat data; stat -c %a:%U data", server.add("data", b"hello\n"))
    assert out == "hello\n644:root\n"


def test_files_of_the_machine(shared_cluster, framework):
    path = os.path.join(shared_cluster.base, "local file")
    with open(path, "w") as file:
        file.write("local\n")
    os.chmod(path, 0o4755)
    script = "cat 'local file' copy; stat -c %a 'local file'"
    out = run(shared_cluster, framework, script, path, {"value": f"file://{path}", "output_file": "copy"})
    assert out == "local\nlocal\n755\n"


def test_relative_paths_are_below_frameworks_home(bare_cluster):
    home = bare_cluster.directory("home")
    with open(os.path.join(home, "a"), "w") as file:
        file.write("relative\n")
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(frameworks_home=home)
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    assert run(bare_cluster, framework, "cat a", "a") == "relative\n"


def test_a_relative_path_without_a_home_is_refused(framework):
    _, message = fails(framework, "some/file")
    assert "'some/file'" in message and "--frameworks_home" in message, message


@pytest.mark.parametrize("kind", ["tar", "tgz", "tar.gz", "tbz2", "tar.bz2", "txz", "tar.xz", "tar.zst", "zip"])
def test_archives_are_unpacked(shared_cluster, framework, server, archives, kind):
    if kind not in archives:
        pytest.skip(f"no tool here packs {kind}")
    url = server.add(f"a.{kind}", archives[kind])
    out = run(shared_cluster, framework, f"./run.sh; cat link; readlink link; ls a.{kind}", url)
    assert out == f"ran\ncontent\nd/file\na.{kind}\n"


def test_a_gzipped_file_is_unpacked(shared_cluster, framework, server):
    import gzip

    url = server.add("words.txt.gz", gzip.compress(b"one\ntwo\n"))
    assert run(shared_cluster, framework, "cat words.txt; ls", url).splitlines()[:2] == ["one", "two"]


def test_what_shall_not_be_extracted_stays_packed(shared_cluster, framework, server, archives):
    url = server.add("a.tgz", archives["tgz"])
    script = "test ! -e run.sh && ls a.tgz b && stat -c %a b"
    uris = ({"value": url, "extract": False}, {"value": url, "executable": True, "output_file": "b"})
    assert run(shared_cluster, framework, script, *uris) == "a.tgz\nb\n755\n"


def test_a_program_is_executable(shared_cluster, framework, server):
    url = server.add("tool?version=1", b"#!/bin/sh\necho tool\n")
    uri = {"value": url, "executable": True, "output_file": "bin/tool"}
    assert run(shared_cluster, framework, "./bin/tool", uri) == "tool\n"
    # Without, it is not; and its name is all that follows the last slash.
    assert run(shared_cluster, framework, "test -x 'tool?version=1' || echo plain", url) == "plain\n"


def test_what_is_fetched_belongs_to_the_task_s_user(shared_cluster, framework, server, archives):
    script = "id -un; stat -c %U data run.sh d d/file; echo more >> data && cat data"
    urls = (server.add("data", b"hello\n"), server.add("a.zip", archives["zip"]))
    out = run(shared_cluster, framework, script, *urls, user="nobody")
    assert out == "nobody\n" * 5 + "hello\nmore\n"


def test_a_user_does_not_get_what_it_may_not_read(shared_cluster, framework):
    path = os.path.join(shared_cluster.base, "secret")
    with open(path, "w") as file:
        file.write("secret\n")
    os.chmod(path, 0o600)
    for cache in (False, True):
        _, message = fails(framework, {"value": path, "cache": cache}, user="nobody")
        assert path in message and "Permission denied" in message, message


@pytest.mark.parametrize(
    "uri,words",
    [
        ("http://127.0.0.1:9/a", "refused"),
        ("/no/such/file", "No such file"),
        ("ftp://host/file", "use http, https or file"),
        ("hdfs://host/file", "use http, https or file"),
        ("s3://bucket/file", "use http, https or file"),
        ("http://host", "a path must follow the host"),
        ("http://host/it's", "single quote"),
        ({"value": "/etc/hostname", "output_file": "../out"}, "within the sandbox"),
        ({"value": "/etc/hostname", "output_file": "/tmp/out"}, "within the sandbox"),
        ({"value": "/etc/hostname", "output_file": "stdout"}, "output goes"),
        ("/dev/zero", "is no file"),
    ],
)
def test_what_cannot_be_had_fails_the_task_with_the_reason(framework, uri, words):
    _, message = fails(framework, uri)
    value = uri if isinstance(uri, str) else uri["value"]
    assert f"'{value}'" in message and words in message, message


def test_a_page_that_is_not_there(shared_cluster, framework, server):
    good = server.add("good", b"good")
    task_id, message = fails(framework, good, server.url("missing"))
    assert f"Failed to fetch '{server.url('missing')}': the server answered 404 Not Found" in message
    at = sandbox(shared_cluster, framework, task_id)
    with open(os.path.join(at, "stderr")) as file:
        lines = file.read()
    assert f"Fetched '{good}'" in lines and "404 Not Found" in lines, lines
    assert sorted(os.listdir(at)) == ["good", "stderr", "stdout"], "the task did not run"


def test_a_server_that_falls_silent(bare_cluster, server):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(fetcher_stall_timeout="500ms")
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    url = server.add("slow", b"x" * 1000)
    server.slow.add("/slow")
    task_id, message = fails(framework, url)
    assert url in message and "no byte came" in message, message
    assert not os.path.exists(os.path.join(sandbox(bare_cluster, framework, task_id), "slow")), "no half file is left"


def tar_of(*members):
    """A tar with members as no tool would write them: (name, type, link or content)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for name, kind, more in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(more)
                archive.addfile(info, io.BytesIO(more))
            else:
                info.linkname = more
                info.devmajor, info.devminor = 1, 1
                archive.addfile(info)
    return file.getvalue()


HOSTILE = {
    "up": [("../../escaped", tarfile.REGTYPE, b"x")],
    "hard link": [("passwd", tarfile.LNKTYPE, "../../../../../../../../../../etc/passwd")],
    "through a link": [("out", tarfile.SYMTYPE, "../.."), ("out/escaped", tarfile.REGTYPE, b"x")],
    "through an absolute link": [("out", tarfile.SYMTYPE, "/var/tmp"), ("out/escaped", tarfile.REGTYPE, b"x")],
    "device": [("disk", tarfile.BLKTYPE, "")],
    "output": [("stdout", tarfile.SYMTYPE, "/etc/passwd")],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_stays_in_the_sandbox(shared_cluster, framework, server, kind):
    url = server.add("evil.tgz", tar_of(*HOSTILE[kind]))
    task_id, message = fails(framework, url)
    assert url in message and "cannot be unpacked" in message, message
    at = sandbox(shared_cluster, framework, task_id)
    found = subprocess.run(["find", os.path.dirname(os.path.dirname(at)), "/var/tmp", "-maxdepth", "2", "-name", "escaped"], capture_output=True, text=True)  # fmt: skip
    assert found.stdout == ""
    assert os.path.isfile(os.path.join(at, "stdout")) and not os.path.islink(os.path.join(at, "stdout"))
    assert not os.path.exists(os.path.join(at, "passwd")) and not os.path.exists(os.path.join(at, "disk"))


def test_an_absolute_name_is_one_in_the_sandbox(shared_cluster, framework, server):
    url = server.add("absolute.tgz", tar_of(("/etc/escaped", tarfile.REGTYPE, b"inside\n")))
    assert run(shared_cluster, framework, "cat etc/escaped", url) == "inside\n"
    assert not os.path.exists("/etc/escaped")


def test_what_was_no_archive_after_all(framework, server):
    url = server.add("a.tgz", b"<html>Please log in</html>" * 100)
    _, message = fails(framework, url)
    assert url in message and "no valid tar archive" in message, message


def test_https_is_for_those_whom_the_machine_trusts(bare_cluster, tmp_path):
    authority = certificates(str(tmp_path))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server = Server(tls)
    try:
        url = server.add("secret", b"over a safe line\n")
        bare_cluster.start_coordinator()
        bare_cluster.start_agent("stranger")
        framework = Framework(bare_cluster.master)
        framework.subscribe()
        _, message = fails(framework, url)
        assert url in message and "certificate" in message.lower(), message
        bare_cluster.agents["stranger"].stop()
        bare_cluster.start_agent("friend", env={"SSL_CERT_FILE": authority})
        task_id = framework.run_task(command("cat secret", url), wait_until=("TASK_FINISHED",))
        with open(os.path.join(sandbox(bare_cluster, framework, task_id, "friend"), "stdout")) as said:
            assert said.read() == "over a safe line\n"
        framework.teardown()
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


# -- the cache


def metrics(cluster, name="agent"):
    return web.get(cluster.agents[name].address, "/metrics/snapshot").json()


def test_a_cached_file_is_downloaded_once(shared_cluster, framework, server, archives):
    before = metrics(shared_cluster)["containerizer/fetcher/task_fetches_succeeded"]
    url, packed = server.add("once", b"once\n"), server.add("once.tgz", archives["tgz"])
    uris = ({"value": url, "cache": True}, {"value": packed, "cache": True})
    for _ in range(3):
        out = run(shared_cluster, framework, "cat once; ./run.sh; ls *.tgz 2>&1 | wc -l; rm once run.sh", *uris)
        # As in Mesos, only what is in it comes out of the cache.
        assert out == "once\nran\n1\n" and "No such file" not in out
    assert (server.asked["/once"], server.asked["/once.tgz"]) == (1, 1)
    # Another user's is another's.
    run(shared_cluster, framework, "cat once", uris[0], user="nobody")
    assert server.asked["/once"] == 2
    now = metrics(shared_cluster)
    assert now["containerizer/fetcher/task_fetches_succeeded"] == before + 4
    assert now["containerizer/fetcher/cache_size_used_bytes"] == 2 * len(b"once\n") + len(archives["tgz"])
    assert now["containerizer/fetcher/cache_size_total_bytes"] == 2 * 1024**3


def test_many_askers_of_one_file_wait_for_one_download(shared_cluster, framework, server):
    url = server.add("popular", b"p" * 100_000)
    server.slow.add("/popular")
    uri = {"value": url, "cache": True}
    tasks = [framework.run_task(command("wc -c < popular", uri), wait_until=(), cpus=0.1, mem=32) for _ in range(5)]
    wait.until(lambda: server.asked.get("/popular"), 10, "the first asks")
    time.sleep(0.5)
    # One of them leaves; the others get their file all the same.
    framework.kill(tasks[0])
    framework.wait_state(tasks[0], "TASK_KILLED", timeout=5)
    server.released.set()
    for task_id in tasks[1:]:
        framework.wait_state(task_id, "TASK_FINISHED", timeout=20)
        with open(os.path.join(sandbox(shared_cluster, framework, task_id), "stdout")) as file:
            assert file.read() == "100000\n"
    assert server.asked["/popular"] == 1


def cache_files(cluster):
    files = []
    for top, _, names in os.walk(cluster.directory("cache")):
        files += [os.path.join(top, name) for name in names]
    return sorted(files)


def test_the_cache_evicts_the_oldest_and_never_what_is_in_use(bare_cluster, server):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(fetcher_cache_dir=bare_cluster.directory("cache"), fetcher_cache_size="100KB")
    framework = Framework(bare_cluster.master)
    framework.subscribe()

    def fetch(name):
        uri = {"value": server.url(name), "cache": True}
        return run(bare_cluster, framework, f"wc -c < {name}", uri)

    for name in ("a", "b", "c"):
        server.add(name, b"x" * 40_000)
    fetch("a"), fetch("b"), fetch("a"), fetch("c")
    assert len(cache_files(bare_cluster)) == 2
    fetch("a")
    assert server.asked == {"/a": 1, "/b": 1, "/c": 1}, "b was the oldest"
    # What does not fit is fetched all the same, beside the cache, and moves nobody out.
    server.add("large", b"x" * 200_000)
    assert fetch("large") == "200000\n"
    fetch("a"), fetch("c")
    assert server.asked["/a"] == 1 and server.asked["/c"] == 1
    # One on its way holds its room.
    server.add("slow", b"x" * 80_000)
    server.slow.add("/slow")
    slow = framework.run_task(command("wc -c < slow", {"value": server.url("slow"), "cache": True}), wait_until=())
    wait.until(lambda: server.asked.get("/slow"), 10, "it is on its way")
    wait.until(lambda: len(cache_files(bare_cluster)) == 1, 10, "others made way")
    assert fetch("b") == "40000\n"
    server.released.set()
    framework.wait_state(slow, "TASK_FINISHED", timeout=20)
    assert server.asked["/slow"] == 1
    used = metrics(bare_cluster)["containerizer/fetcher/cache_size_used_bytes"]
    assert used == sum(os.path.getsize(path) for path in cache_files(bare_cluster)) <= 102_400


def test_an_agent_that_starts_finds_an_empty_cache(bare_cluster, server):
    bare_cluster.start_coordinator()
    other = os.path.join(bare_cluster.directory("cache"), "another's")
    open(other, "w").close()
    agent = bare_cluster.start_agent(fetcher_cache_dir=bare_cluster.directory("cache"))
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    url = server.add("slow", b"x" * 100_000)
    server.slow.add("/slow")
    framework.run_task(command("true", {"value": url, "cache": True}), wait_until=())
    wait.until(lambda: len(cache_files(bare_cluster)) == 2, 10, "it is on its way")
    agent.kill9()
    bare_cluster.restart_agent()
    assert cache_files(bare_cluster) == [other]


# -- the end


def test_a_kill_during_a_fetch_ends_it_at_once(bare_cluster, server):
    bare_cluster.start_coordinator()
    bare_cluster.start_agent(fetcher_cache_dir=bare_cluster.directory("cache"))
    framework = Framework(bare_cluster.master)
    framework.subscribe()
    url = server.add("slow", b"x" * 100_000)
    server.slow.add("/slow")
    for cache in (False, True):
        server.asked.clear()
        task_id = framework.run_task(command("touch ran", {"value": url, "cache": cache}), wait_until=())
        wait.until(lambda: server.asked.get("/slow"), 10, "it is being fetched")
        framework.kill(task_id)
        framework.wait_state(task_id, "TASK_KILLED", timeout=5)
        assert "TASK_RUNNING" not in framework.states(task_id)
        at = sandbox(bare_cluster, framework, task_id)
        wait.until(lambda: sorted(os.listdir(at)) == ["stderr", "stdout"], 3, "no half file is left")
    wait.until(lambda: not cache_files(bare_cluster), 3, "nor in the cache")
    wait.until(lambda: not bare_cluster.charged(), 5, "its resources are free")
    assert framework.run_task("true", wait_until=("TASK_FINISHED",))


def test_a_container_with_an_image_finds_its_files(shared_cluster, framework, images, server):
    url = server.add("data", b"for the image\n")
    container = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": images.archive}}}}
    asked = command("cat $MESOS_SANDBOX/data", url)
    task_id = framework.run_task(asked, wait_until=("TASK_FINISHED",), container=container)
    with open(os.path.join(sandbox(shared_cluster, framework, task_id), "stdout")) as file:
        assert file.read() == "for the image\n"


def test_a_container_launched_by_call_is_killed_while_it_fetches(shared_cluster, server):
    server.add("slow", b"x" * 100_000)
    server.slow.add("/slow")
    of = {"value": "fetches-" + uuid.uuid4().hex[:8]}
    address = shared_cluster.agents["agent"].address

    def call(kind, **fields):
        return web.post_json(address, "/api/v1", {"type": kind, kind.lower(): {"container_id": of, **fields}}, timeout=30)

    with ThreadPoolExecutor(2) as pool:
        words = {"shell": True, "value": "wc -c < slow", "uris": [{"value": server.url("slow")}]}
        launched = pool.submit(call, "LAUNCH_CONTAINER", command=words)
        wait.until(lambda: server.asked.get("/slow"), 10, "it is on its way")
        waited = pool.submit(call, "WAIT_CONTAINER")
        assert call("REMOVE_CONTAINER").status == 500, "it has not ended yet"
        assert call("KILL_CONTAINER").status == 200
        answer = launched.result(20)
        assert answer.status == 400 and "killed" in answer.text, answer.text
        answer = waited.result(20)
        assert answer.status == 404 or answer.json()["wait_container"].get("exit_status") is None, answer.text
    assert call("KILL_CONTAINER").status == 404
    assert not os.path.exists(os.path.join(shared_cluster.directory("agent"), "standalone", of["value"])), "nothing of it is left"
    # Its name is free again.
    assert call("LAUNCH_CONTAINER", command={"shell": True, "value": "exit 3"}).status == 200
    assert call("WAIT_CONTAINER").json()["wait_container"] == {"exit_status": 3 << 8}
    assert call("REMOVE_CONTAINER").status == 200

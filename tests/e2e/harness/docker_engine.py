"""A Docker engine of the test's own: another directory, another socket, and a network namespace of its own, so that several run side by side.

The image `busybox:test` is in it. What is left when it is closed (its containers, containerd and the shims of both) is ended by pid.
"""

import contextlib
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from . import wait

TOOLS = ("dockerd", "docker", "busybox", "iptables")
IMAGE = "busybox:test"
APPLETS = ("sh", "cat", "cp", "dd", "echo", "env", "hostname", "id", "ip", "kill", "ls", "mount", "nc", "ps", "pwd", "seq", "sleep", "stat", "touch", "true", "wc", "rm", "mkdir", "chmod", "chown", "ln")


class Engine:
    """A running `dockerd`. `live_restore` has containers survive it."""

    def __init__(self, live_restore=False):
        self.base = tempfile.mkdtemp(prefix="tepui-docker-")
        self.mark = os.path.basename(self.base)
        self.socket = os.path.join(self.base, "docker.sock")
        self.exec_root = os.path.join(self.base, "run")
        self.data_root = os.path.join(self.base, "data")
        self.log_path = os.path.join(self.base, "dockerd.log")
        self.live_restore = live_restore
        self.process = None
        self._sh("ip", "netns", "add", self.mark)
        self._sh("ip", "-n", self.mark, "link", "set", "lo", "up")
        self.start()
        self._load_busybox()

    @staticmethod
    def _sh(*words, **how):
        done = subprocess.run(words, capture_output=True, text=True, **how)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self):
        words = [
            "nsenter", f"--net=/run/netns/{self.mark}", "dockerd", f"--data-root={self.data_root}", f"--exec-root={self.exec_root}",
            f"--host=unix://{self.socket}", f"--pidfile={self.base}/docker.pid", "--storage-driver=overlay2",
            "--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{self.mark}", f"--live-restore={str(self.live_restore).lower()}",
            "--shutdown-timeout=1",
        ]  # fmt: skip
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

        def answers():
            assert self.process.poll() is None, self.log()
            return self.try_docker("version").returncode == 0

        wait.until(answers, 60, "the Docker engine answers")

    def log(self):
        with open(self.log_path, "rb") as log:
            return log.read().decode(errors="replace")[-4000:]

    def stop(self):
        """Asks it to end; without live restore its containers end too."""
        self.process.terminate()
        self.process.wait(60 * wait.PATIENCE)

    def kill9(self):
        """Its containerd dies with it, and its shims do not."""
        self.process.kill()
        self.process.wait(10 * wait.PATIENCE)
        # Where nobody reaps it at once, the next engine would take the dead one for alive.
        os.remove(os.path.join(self.exec_root, "containerd/containerd.pid"))

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def try_docker(self, *words, **how):
        environment = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}"}
        return subprocess.run(["docker", *words], capture_output=True, env=environment, **how)

    def docker(self, *words, **how):
        done = self.try_docker(*words, **how)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr.decode()}"
        return done.stdout.decode()

    def inspect(self, name):
        return json.loads(self.docker("inspect", name))[0]

    def names(self, everything=True):
        return self.docker("ps", *(["--all"] if everything else []), "--format={{.Names}}").split()

    @contextlib.contextmanager
    def reaching(self, address):
        """The address at which the engine reaches a server that listens on the test's own loopback: a Unix socket leads from the one network to the other."""
        bridge = os.path.join(self.base, "way")
        words = "import sys; sys.path.insert(0, sys.argv[1]); from harness import relay; relay.serve(sys.argv[2], sys.argv[3])"
        python = [sys.executable, "-c", words, os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
        outside = subprocess.Popen([*python, f"unix:{bridge}", address], stdout=subprocess.PIPE)
        outside.stdout.readline()
        inside = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.mark}", *python, "127.0.0.1:0", f"unix:{bridge}"], stdout=subprocess.PIPE, text=True
        )
        try:
            yield inside.stdout.readline().strip()
        finally:
            for process in (inside, outside):
                process.kill()
                process.wait()
                process.stdout.close()

    def _load_busybox(self):
        root = os.path.join(self.base, "busybox")
        for folder in ("bin", "etc", "tmp", "root"):
            os.makedirs(os.path.join(root, folder))
        shutil.copy2(os.path.realpath(shutil.which("busybox")), os.path.join(root, "bin/busybox"))
        for applet in APPLETS:
            os.symlink("busybox", os.path.join(root, "bin", applet))
        with open(os.path.join(root, "etc/passwd"), "w") as passwd:
            passwd.write("root:x:0:0:root:/root:/bin/sh\napp:x:1234:1234:app:/:/bin/sh\n")
        archive = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout
        changes = ['ENTRYPOINT ["/bin/echo", "entered"]', 'CMD ["by", "default"]', "ENV PATH=/bin FROM_IMAGE=yes"]
        self.docker("import", *[f"--change={change}" for change in changes], "-", IMAGE, input=archive)

    def _own_processes(self):
        """All whose command line names this engine's directory."""
        found = []
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as file:
                    if self.base.encode() in file.read():
                        found.append(int(path.split("/")[2]))
            except OSError:
                continue
        return [pid for pid in found if pid != os.getpid()]

    def close(self):
        self.thaw()
        names = self.try_docker("ps", "--all", "--quiet", timeout=30).stdout.decode().split() if self.process.poll() is None else []
        if names:
            self.try_docker("rm", "--force", "--volumes", *names)
        if self.process.poll() is None:
            self.stop()

        def nobody_left():
            left = self._own_processes()
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return not left

        wait.until(nobody_left, 30, "the engine's processes end")
        self._sh("ip", "netns", "delete", self.mark)
        with open("/proc/self/mounts") as mounts:
            points = [line.split()[1] for line in mounts if self.base in line]
        for point in reversed(points):
            subprocess.run(["umount", "--lazy", point], capture_output=True)
        for group in glob.glob(f"/sys/fs/cgroup/*/{self.mark}") + glob.glob(f"/sys/fs/cgroup/{self.mark}"):
            subprocess.run(["find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"], capture_output=True)
        shutil.rmtree(self.base, ignore_errors=True)

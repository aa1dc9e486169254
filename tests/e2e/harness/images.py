"""A container image made on this machine (busybox, from Debian's busybox-static), in every form a task can name.

`Images` builds once a session: an OCI layout by umoci, an archive as `docker save` writes it by skopeo, and a
registry on a loopback port that holds the same image.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile

from . import trees, wait, web

TOOLS = ("umoci", "skopeo", "docker-registry", "busybox")
ENTRYPOINT_MARK = "said by the image"


def listening(log):
    """Where a registry listens, as its log says when it does."""
    found = re.search(r"listening on (127\.0\.0\.1:\d+)", log)
    return found and found[1]


class Images:
    """`layout`, `archive` and `registry` name the same image; its own command prints ENTRYPOINT_MARK."""

    def __init__(self):
        self.base = tempfile.mkdtemp(prefix="tepui-test-images-")
        self.layout = os.path.join(self.base, "layout")
        self.archive = os.path.join(self.base, "busybox.tar")
        self.oci_archive = os.path.join(self.base, "busybox-oci.tar")
        self._registry = None
        self._build()

    def _sh(self, *words):
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"

    def _build(self):
        tag, root = f"{self.layout}:latest", os.path.join(self.base, "root")
        self._sh("umoci", "init", "--layout", self.layout)
        self._sh("umoci", "new", "--image", tag)
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "home/app"):
            os.makedirs(os.path.join(root, folder))
        shutil.copy2(os.path.realpath(shutil.which("busybox")), os.path.join(root, "bin/busybox"))
        for applet in ("sh", "echo", "cat", "env", "ls", "id", "pwd", "sleep", "true", "stat", "sha256sum", "cut"):
            os.symlink("busybox", os.path.join(root, "bin", applet))
        self._write(root, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1234:app:/home/app:/bin/sh\n")
        self._write(root, "etc/group", "root:x:0:\napp:x:1234:\n")
        self._write(root, "etc/from-first-layer", "first\n")
        self._write(root, "etc/removed-later", "gone\n")
        self._sh("umoci", "insert", "--image", tag, root, "/")
        second = os.path.join(self.base, "second")
        os.makedirs(second)
        self._write(second, "from-second-layer", "second\n")
        self._sh("umoci", "insert", "--image", tag, os.path.join(second, "from-second-layer"), "/etc/from-second-layer")
        self._sh("umoci", "insert", "--image", tag, "--whiteout", "/etc/removed-later")
        self._sh(
            "umoci", "config", "--image", tag,
            "--config.entrypoint", "/bin/sh", "--config.entrypoint", "-c",
            "--config.cmd", f"echo {ENTRYPOINT_MARK}",
            "--config.env", "PATH=/bin", "--config.env", "FROM_IMAGE=yes", "--config.workingdir", "/home/app",
        )  # fmt: skip
        self._sh("skopeo", "--insecure-policy", "copy", f"oci:{tag}", f"docker-archive:{self.archive}:busybox:latest")
        self._sh("skopeo", "--insecure-policy", "copy", f"oci:{tag}", f"oci-archive:{self.oci_archive}:latest")

    @staticmethod
    def _write(folder, name, text):
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)

    @property
    def registry(self):
        """`127.0.0.1:PORT` of a registry that has `test/busybox:latest`; started when first asked for."""
        if not self._registry:
            config = os.path.join(self.base, "registry.yml")
            with open(config, "w") as file:
                json.dump(
                    {
                        "version": 0.1,
                        "storage": {"filesystem": {"rootdirectory": os.path.join(self.base, "registry")}},
                        "http": {"addr": "127.0.0.1:0"},
                    },
                    file,
                )
            self._registry_log = open(os.path.join(self.base, "registry.log"), "wb")
            self._registry = subprocess.Popen(
                ["docker-registry", "serve", config], stdout=self._registry_log, stderr=subprocess.STDOUT
            )
            self._address = wait.until(lambda: listening(self.registry_log()), 20, "the registry listens")
            wait.until(self._registry_answers, 20, "the registry answers")
            self._sh(
                "skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false",
                f"oci:{self.layout}:latest", f"docker://{self._address}/test/busybox:latest",
            )  # fmt: skip
        return self._address

    @property
    def reference(self):
        return f"{self.registry}/test/busybox:latest"

    def registry_log(self):
        with open(os.path.join(self.base, "registry.log"), errors="replace") as log:
            return log.read()

    def _registry_answers(self):
        try:
            return web.get(self._address, "/v2/").status == 200
        except OSError:
            return False

    def close(self):
        if self._registry:
            self._registry.terminate()
            self._registry.wait(10)
            self._registry_log.close()
        trees.remove(self.base)

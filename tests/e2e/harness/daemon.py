"""A process of the binary under test: started with flags, found by the port it prints, ended by its pid."""

import os
import re
import signal
import subprocess
import time

from . import wait

LISTENING = re.compile(r"listening on (\S+):(\d+)")


def flags_of(settings):
    """`{"work_dir": "/x", "strict": True}` as `--work_dir=/x --strict=true`; a list is a flag that is given several times."""
    words = []
    for name, given in settings.items():
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, bool):
                value = str(value).lower()
            words.append(f"--{name}={value}")
    return words


class Daemon:
    """`tepui coordinator` or `tepui agent`, or another `program` that is one."""

    def __init__(self, binary, part, settings, log_path, env=None, program=None, prefix=()):
        self.name = os.path.basename(log_path)
        self.log_path = log_path
        self.args = [*prefix, *(program or [binary, part]), *flags_of(settings)]
        self._log = open(log_path, "ab")
        self._start = self._log.tell()
        environment = {**os.environ, "RUST_BACKTRACE": "1", **(env or {})}
        environment.setdefault("RUST_LOG", "info")
        self.process = subprocess.Popen(
            self.args, stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )
        self.ip = self.port = None

    @property
    def pid(self):
        return self.process.pid

    @property
    def address(self):
        return f"{self.ip}:{self.port}"

    def log(self):
        with open(self.log_path, "rb") as log:
            log.seek(self._start)
            return log.read().decode(errors="replace")

    def running(self):
        return self.process.poll() is None

    def wait_listening(self, timeout=20.0):
        """Waits for the line that tells the address; an early end is an error with the log."""

        def found():
            match = LISTENING.search(self.log())
            if match:
                return match
            assert self.running(), f"{self.name} ended with {self.process.returncode}:\n{self.log()[-4000:]}"
            return None

        match = wait.until(found, timeout, f"{self.name} says where it listens")
        self.ip, self.port = match.group(1), int(match.group(2))
        return self

    def kill9(self):
        self.process.kill()
        self.process.wait(10 * wait.PATIENCE)

    def stop(self, timeout=15.0):
        """SIGTERM, and SIGKILL when that did not do. Returns the exit code."""
        if self.running():
            self.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + timeout * wait.PATIENCE
            while self.running() and time.monotonic() < deadline:
                time.sleep(0.02)
            if self.running():
                self.kill9()
        self.process.wait(10 * wait.PATIENCE)
        self._log.close()
        return self.process.returncode

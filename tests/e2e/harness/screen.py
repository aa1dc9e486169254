"""A program on a terminal of ours: what it shows, what is typed into it, how large it is."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

from . import wait


class Screen:
    """Starts a program on a new terminal."""

    def __init__(self, words, env=None, rows=24, columns=80):
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.program = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True, close_fds=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self._master, text.encode())

    def _read(self, seconds):
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # The program has closed its end.
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def see(self, what, timeout=20.0):
        """Waits until this has been shown since the last time; returns all that was shown until then."""
        deadline = time.monotonic() + timeout * wait.PATIENCE
        while what not in self.text:
            alive = self._read(0.1)
            assert what in self.text or (alive and time.monotonic() < deadline), f"{what!r} is not shown: {self.text[-2000:]!r}"
        shown, self.text = self.text.split(what, 1)
        return shown + what

    def end(self, timeout=20.0):
        """Waits for the program's end; its exit code."""
        deadline = time.monotonic() + timeout * wait.PATIENCE
        while self._read(0.1):
            if self.program.poll() is not None and not select.select([self._master], [], [], 0)[0]:
                break
            assert time.monotonic() < deadline, f"it goes on: {self.text[-2000:]!r}"
        return self.program.wait(timeout)

    def close(self):
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        os.close(self._master)

"""Boots a virtual machine with cgroup v2, runs pytest in it, and ends as pytest did.

What happens, file by file: `kernel.py` has Debian's cloud kernel in the cache; `image.py` has a root file system with the
programs that tests use, and makes a small disk of this run: binary, tests, command; `machine.py` boots them and shows
what the tests print; `guest/init` is what runs inside. Results come back on a third disk, as a tar archive.
"""

import argparse
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import image
import kernel
import machine

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tepui" / "vm"

# The same files as on the host: what a cgroup promises is one thing, on which version it does so another.
TESTS = (
    "isolation/test_cgroups.py", "isolation/test_limits.py", "isolation/test_usage.py", "isolation/test_disk.py",
    "isolation/test_plugins.py::test_tasks_have_cores_of_their_own",
    "isolation/test_plugins.py::test_a_dataset_is_there_read_only_and_its_reads_are_limited",
)  # fmt: skip


def arguments(words):
    parser = argparse.ArgumentParser(prog="tests/vm/run", description="Words that are not known here go to pytest.", allow_abbrev=False)
    parser.add_argument("--sh", metavar="LINE", help="a line of shell to run instead of pytest")
    parser.add_argument("--add", action="append", default=[], metavar="FILE", help="take this file along, to /tepui/added")
    parser.add_argument("--junitxml", metavar="FILE", help="where pytest's results go, here on the host")
    parser.add_argument("--deadline", type=float, default=900, metavar="SECONDS", help="for the whole run (900)")
    parser.add_argument("--results", metavar="DIRECTORY", help="keep what the machine brought back, and its kernel's log")
    parser.add_argument("--emulate", action="store_true", help="emulate the processor even where this machine has KVM")
    return parser.parse_known_args(words)


def command(options, words):
    """The shell line that the machine runs, in tests/e2e."""
    if options.sh:
        return options.sh
    words = [word.removeprefix("tests/e2e/") for word in words]
    if not any(word.split("::")[0].endswith(".py") or (REPOSITORY / "tests/e2e" / word).is_dir() for word in words):
        words = [test for test in TESTS if (REPOSITORY / "tests/e2e" / test.split("::")[0]).exists()] + words
    pytest = [sys.executable, "-m", "pytest", "-q", "-o", f"timeout={180 * machine.PATIENCE}", "--junitxml=/results/junit.xml"]
    # Two processors, and tests that wait half of their time.
    return shlex.join([*pytest, "-n", "3", "--dist", "worksteal", *words])


def environment():
    passed_on = {name: os.environ[name] for name in ("RUST_LOG",) if name in os.environ}
    return {"TEPUI_TEST_PATIENCE": str(machine.PATIENCE), **passed_on}


def binary():
    path = os.environ.get("TEPUI_BIN") or os.path.join(os.environ["CARGO_TARGET_DIR"], "checked", "tepui")
    if not os.access(path, os.X_OK):
        sys.exit(f"tests/vm/run: no binary at {path}: run tests/run, or set TEPUI_BIN")
    return path


def unpack(disk, into):
    """Unpacks the archive on the results disk; whether there was one."""
    into.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["tar", "-xf", disk, "-C", into], stderr=subprocess.DEVNULL)
    return done.returncode == 0 and (into / "status").exists()


def main():
    begin = time.monotonic()
    # As Ctrl-C does: the machine's end and that of the scratch directory are not left out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    options, words = arguments(sys.argv[1:])
    if os.geteuid() != 0:
        sys.exit("tests/vm/run: not root: files in the machine would have the wrong owners")
    for file in options.add:
        if not os.path.isfile(file):
            sys.exit(f"tests/vm/run: no file to take along at {file}")
    CACHE.mkdir(parents=True, exist_ok=True)
    emulate = options.emulate or not machine.virtualizes()
    with tempfile.TemporaryDirectory(prefix="tepui-vm-") as scratch:
        scratch = pathlib.Path(scratch)
        linux = kernel.obtain(CACHE)
        disks = machine.Disks(
            root=image.root(CACHE, linux, sys.executable),
            run=image.run(scratch, REPOSITORY, binary(), command(options, words), environment(), options.add),
            results=machine.empty_disk(scratch / "results.disk"),
        )
        initramfs = image.initramfs(scratch, linux)
        say(f"Linux {linux.version}, cgroup v2, processor {'emulated' if emulate else 'by KVM'}; prepared in {time.monotonic() - begin:.1f} s")
        log = scratch / "kernel.log"
        reason = machine.boot(linux, initramfs, disks, emulate, log, options.deadline)
        results = pathlib.Path(options.results or scratch / "results")
        complete = unpack(disks.results, results)
        shutil.copy(log, results)
        if reason or not complete:
            sys.stdout.write(log.read_text(errors="replace")[-6000:])
            say(reason or "the machine ended without results; above is the end of its kernel's log")
            return 3
        if options.junitxml and (results / "junit.xml").exists():
            shutil.copy(results / "junit.xml", options.junitxml)
        say(f"{time.monotonic() - begin:.1f} s in all, of which up to the first program {(results / 'uptime').read_text().split()[0]} s")
        return int((results / "status").read_text())


def say(text):
    print(f"virtual machine: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Builds packages and a box, boots a cluster of virtual machines from the Vagrantfile, checks it, and ends with counts.

What happens, file by file: `box/build` makes the box; `namespaces` starts a libvirt of its own where nothing gets out, and in it
`inside.py`, which has `cluster.py` run vagrant and `framework.py` run tasks. Here is what comes before and after that.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import host
import report

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
# Begins the names of what a run makes.
MARK = "tepui-vagrant-"
# Of the packages that an agent is upgraded with.
NEWER = "99.0.0-1"


def arguments(words):
    parser = argparse.ArgumentParser(prog="tests/vagrant/run", allow_abbrev=False)
    parser.add_argument("--full", action="store_true", help="also three coordinators and two agents, of which some are cut off by power")
    parser.add_argument("--only", choices=("small", "full"), help="one of the two clusters alone")
    parser.add_argument("--sh", metavar="COMMAND", nargs="?", const="bash", help="boot the small cluster and run this where its host is")
    return parser.parse_args(words)


def main():
    # As Ctrl-C does: the namespaces and the scratch directory do not stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    options = arguments(sys.argv[1:])
    if os.geteuid() != 0:
        sys.exit("tests/vagrant/run: not root: namespaces need it")
    told = report.Report()
    before = host.state(MARK)
    with tempfile.TemporaryDirectory(prefix=MARK) as scratch:
        scratch = pathlib.Path(scratch)
        # Machines are run by whoever libvirt takes.
        scratch.chmod(0o755)
        with told.check("the Vagrantfile is valid for libvirt and VirtualBox"):
            validate(scratch)
        with told.check("packages are built"):
            packages(scratch)
        box = None
        with told.check("the box is built, or out of the cache") as note:
            box = pathlib.Path(words_of(HERE / "box/build"))
            note(f"{box.stat().st_size >> 20} MB")
        if told.failed == 0:
            for cluster in clusters(options):
                run_inside(cluster, options, box, scratch, told)
    with told.check("nothing is left: process, bridge, rule of the packet filter, mount, domain, cgroup"):
        left = host.difference(before, host.state(MARK))
        assert not left, left
    print(told.last_line(), flush=True)
    return 1 if told.failed else 0


def clusters(options):
    if options.sh or options.only == "small":
        return ["small"]
    if options.only == "full":
        return ["full"]
    return ["small", "full"] if options.full else ["small"]


def words_of(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more).stdout.strip()


def packages(scratch):
    """Those that are installed, in the folder of a project that is synced to the machines, and newer ones beside."""
    project = scratch / "project"
    for name in ("Vagrantfile", "packaging", "examples"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=shutil.ignore_patterns("packages", "target", "__pycache__", "generated"))
        else:
            project.mkdir(exist_ok=True)
            shutil.copy2(source, project)
    given = os.environ.get("TEPUI_BIN")
    how = ["--binary", given] if given else ["--profile", "checked"]
    build = REPOSITORY / "packaging/build"
    words_of(build, *how, "--output", project / "packaging/packages")
    words_of(build, *how, "--output", scratch / "newer", "--version", NEWER)
    # What runs tasks from the host is the file that the package has.
    subprocess.run(["dpkg-deb", "-x", *(project / "packaging/packages").glob("tepui_*.deb"), scratch / "installed"], check=True)
    image(scratch, project / "image.tar")


def image(scratch, archive):
    """An image of busybox, which machines find in the synced folder."""
    sys.path.insert(0, str(REPOSITORY / "tests/e2e"))
    from harness import images

    made = images.Images()
    try:
        shutil.copy2(made.archive, archive)
    finally:
        made.close()


def validate(scratch):
    """VirtualBox need not be here: all that vagrant asks of it is its version."""
    programs = scratch / "programs"
    programs.mkdir()
    manage = programs / "VBoxManage"
    manage.write_text("#!/bin/sh\necho 7.0.6r155176\n")
    manage.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "VAGRANT_HOME": str(scratch / "validate"),
        "VAGRANT_DOTFILE_PATH": str(scratch / "validate/dot"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
    }
    for provider in ("libvirt", "virtualbox"):
        environment["VAGRANT_DEFAULT_PROVIDER"] = provider
        done = subprocess.run(["vagrant", "validate"], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{provider}: {done.stdout}{done.stderr}"


def run_inside(cluster, options, box, scratch, told):
    """In namespaces; what came of it is in a file."""
    work = scratch / cluster
    work.mkdir()
    results = work / "results.json"
    order = {
        "cluster": cluster,
        "sh": options.sh,
        "box": str(box),
        "project": str(scratch / "project"),
        "work": str(work),
        "tepui": str(scratch / "installed/usr/bin/tepui"),
        "newer": NEWER,
        "newer_packages": str(scratch / "newer"),
        "results": str(results),
    }
    namespaces = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    command = [*namespaces, HERE / "namespaces", work / "libvirt", sys.executable, "-B", HERE / "inside.py", json.dumps(order)]
    (work / "libvirt").mkdir()
    process = subprocess.Popen(command, stdin=None if options.sh else subprocess.DEVNULL)
    try:
        status = process.wait()
    finally:
        # --kill-child: with unshare goes the first process of the namespace, and with that all others.
        process.kill()
        process.wait()
    with told.check(f"the {cluster} cluster was run to its end"):
        assert results.exists(), f"ended with {status}"
        told.add(json.loads(results.read_text()))


if __name__ == "__main__":
    sys.exit(main())

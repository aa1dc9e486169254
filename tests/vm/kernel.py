"""Debian's kernel for virtual machines, fetched once by apt and unpacked into the cache; nothing of it is installed.

Tepui's own machine is what tests run on otherwise, with whatever kernel and cgroup version that has.
"""

import dataclasses
import lzma
import os
import pathlib
import re
import subprocess
import sys
import tempfile

# Depends on the package that holds the newest kernel.
META_PACKAGE = "linux-image-cloud-amd64"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: `base` holds its image at `boot/` and its modules, with `modules.dep`, at `lib/modules/`."""

    base: pathlib.Path

    @property
    def image(self):
        return next(self.base.glob("boot/vmlinuz-*"))

    @property
    def version(self):
        return self.image.name.removeprefix("vmlinuz-")

    @property
    def modules(self):
        return self.base / "lib/modules" / self.version

    def load_order(self, *names):
        """Files of these modules and all they need, below `modules`, each after what it needs."""
        needs = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            file, _, others = line.partition(":")
            needs[file] = others.split()
        order = []

        def visit(file):
            for other in needs[file]:
                if other not in order:
                    visit(other)
            if file not in order:
                order.append(file)

        for name in names:
            visit(next(file for file in needs if os.path.basename(file) == f"{name}.ko"))
        return order


def obtain(cache):
    """The newest kernel that apt offers; the newest of the cache where apt offers none."""
    for lists_are_new in (False, True):
        if lists_are_new and not _apt_update():
            break
        wanted = _candidate()
        if wanted:
            base = cache / f"kernel-{wanted[0].removeprefix('linux-image-')}-{wanted[1]}"
            if base.exists() or _download(*wanted, base):
                return Kernel(base)
    kept = sorted(cache.glob("kernel-*"), key=lambda path: path.stat().st_mtime)
    if kept:
        return Kernel(kept[-1])
    sys.exit(f"tests/vm/run: apt does not bring {META_PACKAGE}, and there is no kernel in {cache} from an earlier run")


def _candidate():
    """Name and version of the package with the kernel, as far as apt's lists are here."""
    shown = subprocess.run(["apt-cache", "show", "--no-all-versions", META_PACKAGE], capture_output=True, text=True)
    depends = re.search(r"^Depends: (linux-image-\S+)", shown.stdout, re.MULTILINE)
    if not depends:
        return None
    shown = subprocess.run(["apt-cache", "show", "--no-all-versions", depends.group(1)], capture_output=True, text=True)
    version = re.search(r"^Version: (\S+)", shown.stdout, re.MULTILINE)
    return (depends.group(1), version.group(1)) if version else None


def _apt_update():
    return subprocess.run(["apt-get", "-qq", "update"], stdout=sys.stderr).returncode == 0


def _download(package, version, base):
    """Fetches and unpacks the package; appears under `base` whole or not at all."""
    print(f"fetching {package} {version}", flush=True)
    with tempfile.TemporaryDirectory(prefix="kernel.new-", dir=base.parent) as scratch:
        fetch = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", f"{package}={version}"]
        if subprocess.run(fetch, cwd=scratch).returncode != 0:
            return False
        archive = next(pathlib.Path(scratch).glob("*.deb"))
        unpacked = Kernel(pathlib.Path(scratch) / "unpacked")
        subprocess.run(["dpkg", "-x", archive, unpacked.base], check=True)
        _modules_of_newer_debian(unpacked.base)
        # The package leaves that to its installation. busybox: kmod need not be here.
        subprocess.run(["busybox", "depmod", "-b", unpacked.base, unpacked.version], check=True)
        try:
            unpacked.base.rename(base)
        except OSError:
            assert base.exists()  # Another run was faster.
        return True


def _modules_of_newer_debian(base):
    """Debian 13 has its modules below /usr, and compressed, which insmod of busybox does not read."""
    if not (base / "lib").exists():
        (base / "lib").symlink_to("usr/lib")
    for file in base.glob("lib/modules/**/*.ko.xz"):
        file.with_suffix("").write_bytes(lzma.decompress(file.read_bytes()))
        file.unlink()

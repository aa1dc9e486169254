"""What the machine boots with: a root file system, kept in the cache, a disk of this run, and the initramfs before both.

The root file system holds programs of this machine, package by package, and the libraries they are linked with, so that a
test finds what it finds here. It is made anew when one of them changes.
"""

import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

GUEST = pathlib.Path(__file__).parent / "guest"

# Debian packages whose files tests, containers' tasks and guest/init use. tests/run installs those that a machine may lack.
PACKAGES = (
    "bash", "busybox-static", "coreutils", "dash", "e2fsprogs", "findutils", "grep", "gzip", "hostname", "iproute2", "mawk",
    "mount", "procps", "sed", "skopeo", "tar", "umoci", "util-linux", "xfsprogs", "docker-registry",
)  # fmt: skip
# Taken where they are installed: tests of networks use them.
OPTIONAL_PACKAGES = ("containernetworking-plugins", "iperf3", "iptables", "nftables", "libxtables12", "ethtool")

FILES = ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/os-release", "/etc/protocols", "/etc/services")
# Loaded while they run, so that no program names them.
LIBRARIES = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2")

NOT_WANTED = re.compile(r"/usr/share/(doc|man|locale|info|lintian|bash-completion|bug|zsh)(/|$)")
NOT_WANTED_PYTHON = ("dist-packages", "test", "idlelib", "ensurepip", "lib2to3", "tkinter", "pip", "Cython", "wheel")

ROOT_MB = 8192
RUN_MB = 1024


def root(cache, linux, python):
    """The root file system's image, out of the cache or made."""
    packages = [*PACKAGES, *_installed(OPTIONAL_PACKAGES)]
    files = _files_of(packages)
    key = hashlib.sha256(pathlib.Path(__file__).read_bytes() + (GUEST / "init").read_bytes())
    key.update(json.dumps([str(linux.base), python]).encode())
    for path in files:
        status = os.lstat(path)
        key.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    image = cache / f"root-{key.hexdigest()[:16]}.ext4"
    if image.exists():
        os.utime(image)
        return image
    _forget_old(cache)
    with tempfile.TemporaryDirectory(prefix="root.new-", dir=cache) as scratch:
        staging = Staging(pathlib.Path(scratch) / "root")
        for path in files:
            staging.take(path)
        staging.take_alternatives()
        staging.take_python(python)
        staging.take_libraries()
        _skeleton(staging.base, linux)
        made = _ext4(staging.base, pathlib.Path(scratch) / "image", ROOT_MB)
        made.rename(image)
    return image


def run(scratch, repository, binary, command, environment, added):
    """The disk of one run, mounted at /tepui: the binary, the tests, and what is to be run with which environment."""
    base = scratch / "run"
    for name in ("tests", "docs", "examples", "bench"):
        shutil.copytree(repository / name, base / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "target"))
    for folder in repository.glob("*/proto"):
        shutil.copytree(folder, base / folder.relative_to(repository))
    for file in repository.glob("*.*"):
        if file.is_file():
            shutil.copy2(file, base)
    # Line numbers are two thirds of a development build.
    subprocess.run(["strip", "--strip-debug", "-o", base / "tepui", binary], check=True)
    (base / "added").mkdir()
    for file in added:
        shutil.copy2(file, base / "added")
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
    (base / "environment").write_text("export TEPUI_BIN=/tepui/tepui\n" + "".join(lines))
    (base / "command").write_text(command + "\n")
    return _ext4(base, scratch / "run.disk", RUN_MB)


def initramfs(scratch, linux):
    """busybox, the modules of the disks, and the program that loads them."""
    base = scratch / "initramfs"
    for folder in ("bin", "dev", "modules", "root"):
        (base / folder).mkdir(parents=True)
    shutil.copy(os.path.realpath(shutil.which("busybox")), base / "bin/busybox")
    shutil.copy(GUEST / "initramfs-init", base / "init")
    (base / "init").chmod(0o755)
    for number, file in enumerate(linux.load_order("virtio_pci", "virtio_blk")):
        shutil.copy(linux.modules / file, base / f"modules/{number:02}-{os.path.basename(file)}")
    made = scratch / "initramfs.cpio"
    names = "\n".join(["."] + [str(path.relative_to(base)) for path in sorted(base.rglob("*"))])
    with open(made, "wb") as archive:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], cwd=base, input=names.encode(), stdout=archive, check=True)
    return made


class Staging:
    """A directory with what the image shall have. Files are links to this machine's where that is possible."""

    def __init__(self, base):
        self.base = base
        base.mkdir()
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            if os.path.islink(f"/{name}"):
                self.take(f"/{name}")

    def take(self, path):
        """One file, directory (without what is in it) or symbolic link (with what it leads to)."""
        folder, name = os.path.split(path)
        path = os.path.join(os.path.realpath(folder), name)
        there = self.base / path.lstrip("/")
        if os.path.lexists(there) or not os.path.lexists(path):
            return
        if folder != "/":
            self.take(os.path.realpath(folder))
        if os.path.islink(path):
            target = os.readlink(path)
            os.symlink(target, there)
            self.take(os.path.join(folder, target))
        elif os.path.isdir(path):
            there.mkdir(parents=True)
            shutil.copystat(path, there)
        else:
            self._link(path, there)

    def take_tree(self, base, but=()):
        for folder, names, files in os.walk(base):
            names[:] = [name for name in names if name not in but]
            for name in [*names, *files]:
                self.take(os.path.join(folder, name))

    def take_alternatives(self):
        """Names that Debian gives to one of several programs, such as `awk`: no package has them among its files."""
        for folder in ("/usr/bin", "/usr/sbin"):
            for link in os.scandir(folder):
                alternative = link.is_symlink() and os.readlink(link).startswith("/etc/alternatives/")
                if alternative and (self.base / os.path.realpath(link).lstrip("/")).exists():
                    self.take(link.path)

    def take_python(self, python):
        """The virtual environment, the interpreter it was made with, and that one's standard library."""
        ask = "import sys, sysconfig; print(sys.prefix, sysconfig.get_path('stdlib'), sep='\\n')"
        prefix, library = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
        for base in (prefix, library):
            self.take(base)
            self.take_tree(base, NOT_WANTED_PYTHON)

    def take_libraries(self):
        """The shared libraries of every program and library here, as the dynamic linker names them."""
        objects = [path for path in self.base.rglob("*") if path.is_file() and not path.is_symlink() and _is_elf(path)]
        named = subprocess.run(["ldd", *objects], capture_output=True, text=True).stdout
        for path in sorted(set(re.findall(r"(?:=> |^\t)(/\S+)", named, re.MULTILINE))):
            if not path.startswith(str(self.base)):
                self.take(path)
        known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout
        for name in LIBRARIES:
            for path in re.findall(rf"^\t{re.escape(name)} .*x86-64.* => (\S+)", known, re.MULTILINE):
                self.take(path)

    @staticmethod
    def _link(path, there):
        try:
            os.link(path, there)
        except OSError:
            shutil.copy2(path, there)
            status = os.stat(path)
            os.chown(there, status.st_uid, status.st_gid)


def _skeleton(base, linux):
    """What no package brings."""
    for folder in ("dev", "proc", "sys", "run", "mnt", "tepui", "etc", "usr/sbin", "var/lib"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (base / folder).mkdir(parents=True, exist_ok=True)
        (base / folder).chmod(0o1777)
    (base / "root").mkdir(mode=0o700, exist_ok=True)
    shutil.copy(GUEST / "init", base / "tepui-init")
    (base / "tepui-init").chmod(0o755)
    modules = base / "usr/lib/modules" if (base / "lib").is_symlink() else base / "lib/modules"
    shutil.copytree(linux.modules, modules / linux.version, symlinks=True)
    # What the kernel calls for a module that it misses. kmod may not be here.
    modprobe = base / "usr/sbin/modprobe"
    if not os.path.lexists(modprobe):
        modprobe.symlink_to("/bin/busybox")
    if not (base / "sbin").exists():
        (base / "sbin").symlink_to("usr/sbin")


def _installed(packages):
    asked = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Status}\n", *packages], capture_output=True, text=True)
    return [line.split()[0] for line in asked.stdout.splitlines() if line.endswith(" installed")]


def _files_of(packages):
    listed = subprocess.run(["dpkg-query", "-L", *packages], capture_output=True, text=True)
    if listed.returncode:
        sys.exit(f"tests/vm/run: {listed.stderr.strip()}\ntests/run installs what is missing")
    paths = {path for path in listed.stdout.splitlines() if path.startswith("/") and path != "/."}
    return sorted(path for path in paths | set(FILES) if not NOT_WANTED.match(path) and os.path.lexists(path))


def _is_elf(path):
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def _ext4(directory, path, size_mb):
    """An ext4 image of the directory. No journal: it never outlives the machine."""
    options = ["-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,root_owner=0:0"]
    path.touch()
    subprocess.run(["mke2fs", *options, "-d", directory, path, f"{size_mb}M"], check=True)
    return path


def _forget_old(cache):
    """Images that no run has used for an hour (no run takes that long), and what runs that were killed left."""
    for path in [*cache.glob("root-*.ext4"), *cache.glob("*.new-*")]:
        if time.time() - path.stat().st_mtime < 3600:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

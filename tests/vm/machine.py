"""The virtual machine: what runs its processor, its disks, and one run of it under a deadline."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import threading

MEMORY_MB = 3072
RESULTS_MB = 32

# cgroup_no_v1: every controller belongs to the one v2 hierarchy. mitigations: what guards against other guests only costs here.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=4 panic=-1 "
    "systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all psi=1 swapaccount=1 "
    "mitigations=off random.trust_cpu=on nowatchdog"
)


# By how much deadlines of tests are stretched. With KVM that is more than needed, and costs only a test that fails.
PATIENCE = 10


def virtualizes():
    """Whether the processor does it. A /dev/kvm alone says little: there are some that boot only kernels made for them."""
    flags = re.search(r"^flags\s*:(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return bool(flags and {"vmx", "svm"} & set(flags.group(1).split())) and os.access("/dev/kvm", os.W_OK)


@dataclasses.dataclass(frozen=True)
class Disks:
    """`root` and `run` stay as they are: what is written to them is gone with the machine. `results` is written."""

    root: pathlib.Path
    run: pathlib.Path
    results: pathlib.Path

    def arguments(self):
        words = []
        for disk, more in ((self.root, "snapshot=on"), (self.run, "snapshot=on"), (self.results, "snapshot=off")):
            words += ["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe,{more}"]
        return words


def empty_disk(path):
    with open(path, "wb") as file:
        file.truncate(RESULTS_MB << 20)
    return path


def boot(linux, initramfs, disks, emulate, log, deadline):
    """Runs the machine to its end, and shows what its tests print; a reason when the end was not its own."""
    kvm = [] if emulate else ["-accel", "kvm"]
    words = [
        # It ends with this process, however that ends.
        "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *kvm, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MB),
        "-nodefaults", "-display", "none", "-no-reboot", "-no-user-config",
        "-kernel", str(linux.image), "-initrd", str(initramfs), "-append", KERNEL_ARGUMENTS,
        # The first serial port is the kernel's, the second the tests'.
        "-serial", f"file:{log}", "-serial", "stdio", *disks.arguments(),
    ]  # fmt: skip
    machine = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    late = threading.Event()

    def end():
        late.set()
        machine.kill()

    alarm = threading.Timer(deadline, end)
    alarm.start()
    try:
        while chunk := machine.stdout.read1():
            sys.stdout.write(chunk.replace(b"\r\n", b"\n").decode(errors="replace"))
            sys.stdout.flush()
    finally:
        alarm.cancel()
        machine.kill()
        machine.wait()
    return f"not done within {deadline:.0f} s" if late.is_set() else None

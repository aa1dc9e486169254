"""Removing a directory tree without ever walking through a mount.

A task's root may be bind mounted below a test's directory, and the machine's own files below that. A plain recursive
remove would delete them, and comparing device numbers does not notice a bind mount. So every directory is opened
with openat2(2) and RESOLVE_NO_XDEV, which refuses to cross any mount point, and a tree with a mount in it is left alone.
"""

import ctypes
import errno
import os
import stat

_OPENAT2 = 437
_NO_XDEV, _NO_SYMLINKS, _BENEATH = 0x01, 0x04, 0x08
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def mounts_below(directory):
    """Mount points in this mount namespace that are at or below the directory."""
    directory = os.path.realpath(directory)
    found = []
    with open("/proc/self/mountinfo") as table:
        for line in table:
            point = line.split(" ")[4].encode().decode("unicode_escape")
            if point == directory or point.startswith(directory + "/"):
                found.append(point)
    return found


def remove(directory):
    """Removes the tree; raises when a mount is in it, having removed nothing beyond that mount."""
    mounts = mounts_below(directory)
    if mounts:
        raise OSError(errno.EBUSY, f"not removed: mounted below it: {mounts}", directory)
    parent, name = os.path.split(os.path.abspath(directory))
    parent_fd = os.open(parent, os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_directory(parent_fd, name)
    finally:
        os.close(parent_fd)


def _remove_directory(parent_fd, name):
    fd = _open_within(parent_fd, name)
    try:
        for child in os.listdir(fd):
            if stat.S_ISDIR(os.stat(child, dir_fd=fd, follow_symlinks=False).st_mode):
                _remove_directory(fd, child)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent_fd)


def _open_within(parent_fd, name):
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    how = _OpenHow(flags, 0, _NO_XDEV | _NO_SYMLINKS | _BENEATH)
    fd = _libc.syscall(_OPENAT2, parent_fd, os.fsencode(name), ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)} (a mount point, or gone)", name)
    return fd

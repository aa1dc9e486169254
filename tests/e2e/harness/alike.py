"""What a root file system is, so that two can be compared: every name with all that the file system knows of it."""

import hashlib
import os
import stat


def walk(root):
    """By name, without the leading slash, as bytes: kind, mode, owner, times, size and content, numbers of a device, target of a link, attributes, and which names are the
    same file. What is mounted upon it is left out, and named in the second answer."""
    root = os.path.join(os.fsencode(root), b"")
    device = os.stat(root).st_dev
    found, mounted, inodes = {}, set(), {}
    todo = [b""]
    while todo:
        name = todo.pop()
        path = os.path.join(root, name)
        status = os.lstat(path)
        if status.st_dev != device:
            mounted.add(name)
            continue
        one = {
            "kind": stat.S_IFMT(status.st_mode),
            "mode": stat.S_IMODE(status.st_mode),
            "owner": (status.st_uid, status.st_gid),
            "changed": status.st_mtime_ns,
        }
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                one["content"] = (status.st_size, hashlib.file_digest(file, "sha256").hexdigest())
        if stat.S_ISLNK(status.st_mode):
            one["target"] = os.readlink(path)
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            one["device"] = status.st_rdev
        one["attributes"] = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
        if not stat.S_ISDIR(status.st_mode):
            inodes.setdefault(status.st_ino, []).append(name)
        found[name] = one
        if stat.S_ISDIR(status.st_mode):
            todo.extend(os.path.join(name, each) for each in os.listdir(path))
    for names in inodes.values():
        for name in names:
            found[name]["same"] = sorted(names)
    return found, mounted


def differences(one, other, but=(), since=None):
    """What is not the same, name by name, apart from these names. A directory that a layer implies and does not hold gets the time of its unpacking: those that are younger than
    `since` on both sides have no other time in common."""
    lines = []
    for name in sorted(one.keys() | other.keys()):
        if name in but:
            continue
        both = [each[name] for each in (one, other) if name in each]
        if since and len(both) == 2 and all(stat.S_ISDIR(each["kind"]) and each["changed"] >= since for each in both):
            for each in both:
                each["changed"] = since
        if one.get(name) != other.get(name):
            if name in one and name in other:
                parts = [f"{key}: {one[name].get(key)} / {other[name].get(key)}" for key in one[name] if one[name].get(key) != other[name].get(key)]
            else:
                parts = ["only in the first" if name in one else "only in the second"]
            lines.append(f"{name!r}: {'; '.join(parts)}")
    return lines

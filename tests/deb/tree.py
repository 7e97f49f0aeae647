"""What is in a file system, to be compared with what was in it before."""

import hashlib
import os
import stat
from pathlib import Path

# What apt, dpkg and a running system write in any case: none of it is a package's own.
CHANGES_ANYWAY = (
    "dev", "proc", "run", "sys", "tmp", "root",
    "var/cache", "var/lib/apt", "var/lib/dpkg", "var/log", "var/tmp",
    "var/lib/systemd/random-seed", "var/lib/systemd/timers", "var/lib/systemd/timesync",
    # Copies of the files of users and groups as they were one change ago, and the lock of such a change.
    "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/.pwd.lock",
    "etc/resolv.conf",
)


def snapshot(root: Path) -> dict[str, str]:
    """Each path with its kind, owner, mode and content."""
    found = {}
    for directory, names, files in os.walk(root):
        relative = os.path.relpath(directory, root)
        for name in names + files:
            path = os.path.normpath(os.path.join(relative, name))
            if path not in CHANGES_ANYWAY:
                found[path] = describe(root / path)
        names[:] = [name for name in names if os.path.normpath(os.path.join(relative, name)) not in CHANGES_ANYWAY]
    return found


def describe(path: Path) -> str:
    status = path.lstat()
    content = ""
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {content}"


def difference(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Lines that tell what came, went or changed."""
    lines = [f"came: {path}" for path in after.keys() - before.keys()]
    lines += [f"went: {path}" for path in before.keys() - after.keys()]
    lines += [f"changed: {path}" for path in before.keys() & after.keys() if before[path] != after[path]]
    return sorted(lines)

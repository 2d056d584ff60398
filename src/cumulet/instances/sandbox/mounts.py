"""Mounting what a descriptor says, and unmounting what is ours.

`attach(clone(descriptor), target)` is a bind mount whose source is a descriptor and not a path: between the two calls
the mount is detached, seen by nobody, and may be given attributes (mount_setattr(2)).
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

from cumulet.instances.sandbox.network import SandboxError, unmount

#: The numbers of the system calls and of their flags are the same on every architecture.
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_CLONE = 1
_FROM_EMPTY_PATH = 4
_LIBC = ctypes.CDLL(None, use_errno=True)
_OCTAL = re.compile(rb"\\([0-7]{3})")


def clone(descriptor: int) -> int:
    """A detached mount of what a descriptor is of, without the mounts beneath it. Raises `SandboxError`."""
    return _call("cloning a mount", _OPEN_TREE, descriptor, b"", _CLONE | _AT_EMPTY_PATH | os.O_CLOEXEC)


def attach(tree: int, target: Path) -> None:
    """Attach a detached mount at a path of ours, and close its descriptor. Raises `SandboxError`."""
    try:
        _call("attaching a mount", _MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _FROM_EMPTY_PATH)
    finally:
        os.close(tree)


def unmount_beneath(folder: Path) -> list[str]:
    """Unmount all that is mounted beneath a folder, by the kernel's own list, the innermost first; its paths."""
    inside = os.fsencode(folder) + b"/"
    # Space, tab, line feed and backslash are written in octal (proc(5)).
    points = [
        _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), line.split()[4])
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines()
    ]
    found = [os.fsdecode(point) for point in points if point.startswith(inside)]
    for point in reversed(found):
        unmount(Path(point))
    return found


def _call(what: str, number: int, *arguments: int | bytes) -> int:
    whole = [ctypes.c_long(item) if isinstance(item, int) else item for item in (number, *arguments)]
    result: int = _LIBC.syscall(*whole)
    if result < 0:
        raise SandboxError(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result

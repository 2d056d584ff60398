"""Mounts: memory, binds by path and by descriptor, and their removal.

`attach(clone(descriptor), target)` is a bind mount whose source is a descriptor and not a path: between the two calls
the mount is detached, visible to no process, and may be given attributes (mount_setattr(2)).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cumulet.instances.sandbox import syscalls
from cumulet.instances.sandbox.errors import SandboxError

_OPEN_TREE, _MOVE_MOUNT = 428, 429
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_CLONE = 1
_FROM_EMPTY_PATH = 4
_MNT_DETACH, _MS_BIND = 2, 4096
_NOSUID_NODEV, _NOEXEC = 2 | 4, 8
_SPECIAL, _OCTAL = re.compile(rb"[ \t\n\\]"), re.compile(rb"\\([0-7]{3})")


class Bind(NamedTuple):
    """A path of this machine, and the path in the container where it is mounted.

    The owners of a path that `is_kept` do not change on disk.
    """

    source: Path
    path: str
    read_only: bool
    is_kept: bool = False


def in_order(binds: Sequence[Bind]) -> list[Bind]:
    """Return binds so that none hides another: folders before what is beneath them, and the last one of each path."""
    by_path = {posixpath.normpath(bind_.path): bind_ for bind_ in binds}
    return [by_path[path] for path in sorted(by_path, key=lambda path: path.count("/"))]


def mount_tmpfs(
    target: Path, mode: int, size: int | None = None, *, files: int | None = None, programs: bool = True
) -> None:
    """Mount a file system in memory, of at most `size` bytes and `files` files. Raises `SandboxError`.

    By default `programs` can run from there, as from every volume of a pod.
    """
    limit = ("" if size is None else f",size={size}") + ("" if files is None else f",nr_inodes={files}")
    flags = _NOSUID_NODEV if programs else _NOSUID_NODEV | _NOEXEC
    _mount("tmpfs", target, "tmpfs", flags, f"mode={mode:o}{limit}")


def bind(source: Path, target: Path) -> None:
    """Mount a file or folder at a second path. Raises `SandboxError`."""
    _mount(str(source), target, "", _MS_BIND, "")


def clone(descriptor: int) -> int:
    """Return a detached mount of the file or folder of a descriptor, without the mounts beneath it. Raises `SandboxError`."""
    try:
        return syscalls.call(_OPEN_TREE, descriptor, b"", _CLONE | _AT_EMPTY_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise SandboxError(f"cloning a mount: {error.strerror}") from None


def attach(tree: int, target: Path) -> None:
    """Attach a detached mount at a path, and close its descriptor. Raises `SandboxError`."""
    try:
        syscalls.call(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _FROM_EMPTY_PATH)
    except OSError as error:
        raise SandboxError(f"attaching a mount: {error.strerror}") from None
    finally:
        os.close(tree)


def unmount(target: Path) -> None:
    """Unmount a path, also while it is in use; a path that is no mount is left as it is."""
    with contextlib.suppress(OSError):
        syscalls.unmount(os.fsencode(target), _MNT_DETACH)


def unmount_beneath(folder: Path) -> list[str]:
    """Unmount everything beneath a folder, by the kernel's own list, the innermost first; return the paths."""
    # Space, tab, line feed and backslash are written in octal (proc(5)).
    inside = _SPECIAL.sub(lambda match: b"\\%03o" % match[0][0], os.fsencode(folder)) + b"/"
    points = [
        line.split(maxsplit=5)[4] for line in Path("/proc/self/mountinfo").read_bytes().splitlines() if inside in line
    ]
    mounted = [
        os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), point))
        for point in points
        if point.startswith(inside)
    ]
    for point in reversed(mounted):
        unmount(Path(point))
    return mounted


def _mount(source: str, target: Path, kind: str, flags: int, options: str) -> None:
    try:
        syscalls.mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(options))
    except OSError as error:
        raise SandboxError(f"mounting {kind or source} on {target}: {error.strerror}") from None

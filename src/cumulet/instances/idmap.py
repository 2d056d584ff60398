"""Mounts that show files with other owners (mount_setattr(2), `MOUNT_ATTR_IDMAP`): as a user namespace maps them.

A file of user 0 on disk is one of the namespace's root, without a change on disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from pathlib import Path

from cumulet.instances.mounts import attach, clone
from cumulet.instances.sandbox import SandboxError

#: The same on every architecture.
_MOUNT_SETATTR = 442
_AT_EMPTY_PATH = 0x1000
_IDMAP = 0x00100000
_LIBC = ctypes.CDLL(None, use_errno=True)


class NotMappableError(SandboxError):
    """The kernel cannot map the owners of files of this file system."""


def mount_mapped(source: Path, target: Path, namespace: int) -> None:
    """Mount `source` at `target` with its owners mapped as in a user namespace, which is an open file.

    Raises `NotMappableError`, `SandboxError`.
    """
    descriptor = os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        tree = clone(descriptor)
    finally:
        os.close(descriptor)
    attributes = struct.pack("=QQQQ", _IDMAP, 0, 0, namespace)
    try:
        _call("mount_setattr", _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes))
    except OSError as error:
        os.close(tree)
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            raise NotMappableError(f"{source} is on a file system without mapped mounts") from None
        raise SandboxError(f"mounting {source} with mapped owners: {error.strerror}") from None
    attach(tree, target)


def give_away(root: Path, start: int, ids: int) -> None:
    """Give what is beneath `root`, and it, to the ids from `start` on, where it has ids below `ids`; links are not followed.

    For the file systems that cannot map. A container of the group may change what is in a volume meanwhile, so each
    file is opened once, without following a link, and what is read and set is that file's.
    """
    if not root.is_dir():
        _give(root, start, ids)
        return
    for _, folders, files, folder in os.fwalk(root, follow_symlinks=False):
        for name in (".", *folders, *files):
            with contextlib.suppress(FileNotFoundError):
                _give(name, start, ids, folder=folder)


def _give(path: Path | str, start: int, ids: int, *, folder: int | None = None) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        # The kernel leads from this name to what was opened, also where that is a link, and no further.
        opened, found = f"/proc/self/fd/{descriptor}", os.fstat(descriptor)
        uid = found.st_uid + start if found.st_uid < ids else -1
        gid = found.st_gid + start if found.st_gid < ids else -1
        os.chown(opened, uid, gid)
        if stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_ISUID | stat.S_ISGID):
            Path(opened).chmod(stat.S_IMODE(found.st_mode))  # the kernel cleared them
    finally:
        os.close(descriptor)


def _call(what: str, number: int, *arguments: int | bytes) -> int:
    whole = [ctypes.c_long(item) if isinstance(item, int) else item for item in (number, *arguments)]
    result: int = _LIBC.syscall(*whole)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result

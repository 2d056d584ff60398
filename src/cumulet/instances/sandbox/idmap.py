"""Mounts whose files have the owners of a user namespace (mount_setattr(2), `MOUNT_ATTR_IDMAP`).

A file of user 0 on disk belongs to the namespace's root there. Nothing changes on disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from pathlib import Path

from cumulet.instances.sandbox import syscalls
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.mounts import attach, clone

_MOUNT_SETATTR = 442
_AT_EMPTY_PATH = 0x1000
_IDMAP = 0x00100000
_CAPABILITY = "security.capability"
#: The version of file capabilities, in the first number of the attribute.
_REVISION, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
#: The bytes before the entries, and the tags of entries for one user and for one group.
_ACL_HEADER, _ACL_NAMED = 4, (2, 8)


class NotMappableError(SandboxError):
    """The kernel cannot map the owners of files on this file system."""


def mount_mapped(source: Path, target: Path, namespace: int) -> None:
    """Mount `source` at `target` with owners mapped as in a user namespace, given by its open file.

    Raises `NotMappableError`, `SandboxError`.
    """
    descriptor = os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        tree = clone(descriptor)
    finally:
        os.close(descriptor)
    attributes = struct.pack("=QQQQ", _IDMAP, 0, 0, namespace)
    try:
        syscalls.call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes))
    except OSError as error:
        os.close(tree)
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            raise NotMappableError(f"{source} is on a file system without mapped mounts") from None
        raise SandboxError(f"mounting {source} with mapped owners: {error.strerror}") from None
    attach(tree, target)


def shift_owners(root: Path, start: int, ids: int) -> None:
    """Add `start` to the owners of a tree that are below `ids`; links are not followed.

    For file systems without mapped mounts, and for trees that this room made. A container of the group may
    change a volume at the same time, so each file is opened once, without following a link, and the owner and
    mode of that file are read and set.
    """
    if not root.is_dir():
        _shift(root, start, ids)
        return
    for _, folders, files, folder in os.fwalk(root, follow_symlinks=False):
        for name in (".", *folders, *files):
            with contextlib.suppress(FileNotFoundError):
                _shift(name, start, ids, folder=folder)


def give_to_root(root: Path) -> None:
    """Give a tree that this room made to user and group 0; links are not followed."""
    for _, folders, files, folder in os.fwalk(root, follow_symlinks=False):
        for name in (".", *folders, *files):
            os.chown(name, 0, 0, dir_fd=folder, follow_symlinks=False)


def _shift(path: Path | str, start: int, ids: int, *, folder: int | None = None) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        # The kernel resolves this name to the opened file, also if that is a link, and no further.
        opened, found = f"/proc/self/fd/{descriptor}", os.fstat(descriptor)
        uid = found.st_uid + start if found.st_uid < ids else -1
        gid = found.st_gid + start if found.st_gid < ids else -1
        attributes = {} if stat.S_ISLNK(found.st_mode) else _shifted_attributes(opened, start, ids)
        os.chown(opened, uid, gid)
        if stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_ISUID | stat.S_ISGID):
            Path(opened).chmod(stat.S_IMODE(found.st_mode))  # the kernel cleared them
        for name, value in attributes.items():
            os.setxattr(opened, name, value)
    finally:
        os.close(descriptor)


def _shifted_attributes(path: str, start: int, ids: int) -> dict[str, bytes]:
    """Return the attributes of a file that contain ids, with `start` added. chown(2) clears capabilities in any case."""
    attributes = {}
    for name in os.listxattr(path):
        if name == _CAPABILITY:
            attributes[name] = _capability_of(os.getxattr(path, name), start)
        elif name in _ACLS:
            attributes[name] = _shifted_acl(os.getxattr(path, name), start, ids)
    return attributes


def _capability_of(value: bytes, root: int) -> bytes:
    """Return file capabilities that are good in the user namespace whose root has that id (capabilities(7), version 3)."""
    (magic,) = struct.unpack_from("<I", value)
    if magic & _REVISION != _REVISION_2:
        return value
    return struct.pack("<I", magic & ~_REVISION | _REVISION_3) + value[4:] + struct.pack("<I", root)


def _shifted_acl(value: bytes, start: int, ids: int) -> bytes:
    """Return an access control list (`struct posix_acl_xattr_header` and its entries) with other users and groups."""
    entries = value[_ACL_HEADER:]
    shifted = value[:_ACL_HEADER]
    for tag, permissions, number in struct.iter_unpack("<HHI", entries[: len(entries) // 8 * 8]):
        is_shifted = tag in _ACL_NAMED and number < ids
        shifted += struct.pack("<HHI", tag, permissions, number + start if is_shifted else number)
    return shifted

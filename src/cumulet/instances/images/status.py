"""Gives files the owners, modes, attributes and times of their entries."""

from __future__ import annotations

import errno
import os
import stat

from cumulet.instances.images.below import is_kept
from cumulet.instances.images.budget import LayerError
from cumulet.instances.images.errors import Fault
from cumulet.instances.images.open_folders import OpenFolder
from cumulet.instances.images.tar import Entry


def set_folder_status(folder: OpenFolder, entry: Entry) -> None:
    """Set the status of a folder. Raises `LayerError`, `OSError`."""
    set_open_status(folder.descriptor, entry)
    folder.time = entry.time


def set_open_status(descriptor: int, entry: Entry) -> None:
    """Set the status of an open file. Raises `LayerError`, `OSError`."""
    os.fchown(descriptor, entry.uid, entry.gid)
    os.fchmod(descriptor, entry.mode)  # after chown, which clears the setuid bit
    for key, value in entry.attributes.items():
        if is_kept(key):
            _set_attribute(descriptor, key, value)
    os.utime(descriptor, ns=(entry.time, entry.time))


def set_name_status(folder: int, name: str, entry: Entry) -> None:
    """Set the status of a file or pipe by its name; of a link, only the owner. Raises `LayerError`, `OSError`."""
    kind = stat.S_IFMT(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    if kind == stat.S_IFREG:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            set_open_status(descriptor, entry)
        finally:
            os.close(descriptor)
        return
    os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
    if kind == stat.S_IFIFO:
        os.chmod(name, entry.mode, dir_fd=folder)
        os.utime(name, ns=(entry.time, entry.time), dir_fd=folder, follow_symlinks=False)


def _set_attribute(descriptor: int, key: str, value: bytes) -> None:
    try:
        os.setxattr(descriptor, key, value)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.E2BIG, errno.ENOTSUP):
            raise
        # Some file systems have one block for all attributes of a file.
        raise LayerError(
            f"this machine's file system cannot store the attribute {key[:100]!r} of {len(value)} bytes",
            Fault.STORAGE,
        ) from None

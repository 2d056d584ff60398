"""Opening and making files beneath a folder whose content belongs to somebody else, so that nothing leads out of it.

Every path is resolved by the kernel (openat2(2)) from the folder's descriptor. A check of a path before its use would
be worth nothing, since a container may put a link in a folder's place in between: what is used is the descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cumulet.instances.sandbox import syscalls

#: The numbers of the system call and of its flags are the same on every architecture.
_OPENAT2 = 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT = 1, 2, 4, 8, 16
_TRIES = 16


class _How(ctypes.Structure):
    """`struct open_how`."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_folder(path: Path) -> int:
    """A descriptor (`O_PATH`) of a folder of ours; the last name is no link. Raises `OSError`."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_beneath(folder: int, parts: Sequence[str]) -> int:
    """A descriptor (`O_PATH`) of what is there, over no link and no mount. Raises `OSError` (`ELOOP`, `EXDEV`)."""
    return _openat2(folder, "/".join(parts) or ".", os.O_PATH, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | _NO_XDEV)


def make_folders(folder: int, parts: Sequence[str], mode: int) -> int:
    """The same of a folder, which is made where it is not there, step by step. Raises `OSError`."""
    found = os.dup(folder)
    try:
        for part in parts:
            step = _make_folder(found, part, mode)
            os.close(found)
            found = step
    except BaseException:
        os.close(found)
        raise
    return found


def _make_folder(folder: int, name: str, mode: int) -> int:
    for _ in range(_TRIES):
        try:
            return open_beneath(folder, [name])
        except FileNotFoundError:
            pass
        try:
            os.mkdir(name, mode, dir_fd=folder)
        except FileExistsError:
            continue
        # The mode is meant as it is, without the process's umask.
        made = _openat2(
            folder, name, os.O_RDONLY | os.O_DIRECTORY, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | _NO_XDEV
        )
        try:
            os.fchmod(made, mode)
        finally:
            os.close(made)
    raise OSError(errno.EBUSY, "it is made and removed all the time", name)


def write_file(folder: int, parts: Sequence[str], content: bytes, mode: int) -> None:
    """Write a file anew, and the folders that it is in. Raises `OSError`."""
    *above, name = parts
    parent = make_folders(folder, above, 0o755)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
    finally:
        os.close(parent)


def open_in_root(root: int, path: str) -> int | None:
    """A descriptor to read a regular file of a tree with, whose links are followed as if the folder were `/`.

    `None` where there is no such file, or something else has its name: nothing but a file is opened, as a device or a
    pipe might answer to that. Raises `OSError`.
    """
    try:
        found = _openat2(root, path, os.O_PATH, _IN_ROOT | _NO_MAGICLINKS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return None
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)


def _openat2(folder: int, path: str, flags: int, resolve: int) -> int:
    how = _How(flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(_TRIES):
        try:
            return syscalls.call(_OPENAT2, folder, os.fsencode(path), how, ctypes.sizeof(how))
        except OSError as error:
            # The kernel saw a rename during the call and cannot tell whether `..` stays inside.
            if error.errno != errno.EAGAIN:
                raise OSError(error.errno, error.strerror, path) from None
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)

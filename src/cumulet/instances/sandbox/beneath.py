"""Opens and creates files beneath a folder with untrusted content, so that no path leads out of it.

The kernel resolves every path from the folder's descriptor (openat2(2)). A check before the use would not help: in
between, a container can replace a folder by a link. The descriptor stays the same.
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

_OPENAT2 = 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT = 1, 2, 4, 8, 16
_TRIES = 16


class _How(ctypes.Structure):
    """`struct open_how`."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_folder(path: Path) -> int:
    """Return a descriptor (`O_PATH`) of a trusted folder whose last name is not a link. Raises `OSError`."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_beneath(folder: int, parts: Sequence[str]) -> int:
    """Return a descriptor (`O_PATH`) of a path without links and mounts. Raises `OSError` (`ELOOP`, `EXDEV`)."""
    return _openat2(folder, "/".join(parts) or ".", os.O_PATH, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | _NO_XDEV)


def open_or_make_beneath(folder: int, parts: Sequence[str], mode: int) -> int:
    """Return a descriptor (`O_PATH`) of a path, whose missing folders are created with `mode`.

    Links are followed as long as they stay beneath the folder. Raises `OSError` (`EXDEV` for a link that leads out).
    """
    for known in range(len(parts), -1, -1):
        try:
            above = _openat2(folder, "/".join(parts[:known]) or ".", os.O_PATH, _BENEATH | _NO_MAGICLINKS | _NO_XDEV)
        except FileNotFoundError:
            continue
        try:
            return make_folders(above, parts[known:], mode)
        finally:
            os.close(above)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def make_folders(folder: int, parts: Sequence[str], mode: int) -> int:
    """Return a descriptor (`O_PATH`) of a folder, and create missing ones on the way. Raises `OSError`."""
    current = os.dup(folder)
    try:
        for part in parts:
            step = _make_folder(current, part, mode)
            os.close(current)
            current = step
    except BaseException:
        os.close(current)
        raise
    return current


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
        # mkdir applied the umask of this process.
        made = _openat2(
            folder, name, os.O_RDONLY | os.O_DIRECTORY, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | _NO_XDEV
        )
        try:
            os.fchmod(made, mode)
        finally:
            os.close(made)
    raise OSError(errno.EBUSY, "it is created and removed repeatedly", name)


def write_file(folder: int, parts: Sequence[str], content: bytes, mode: int) -> None:
    """Create or replace a file, and create the folders above it. Raises `OSError`."""
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
    """Return a descriptor to read a regular file in a tree, where links are followed as if the folder were `/`.

    Returns `None` if the path is not a regular file: to open a device or a pipe can have effects. Raises `OSError`.
    """
    descriptor = find_in_root(root, path)
    if descriptor is None:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(descriptor)


def find_in_root(root: int, path: str) -> int | None:
    """Return a descriptor (`O_PATH`) of a path in a tree, where links are followed as if the folder were `/`.

    Returns `None` if nothing is there. Raises `OSError`.
    """
    try:
        return _openat2(root, path, os.O_PATH, _IN_ROOT | _NO_MAGICLINKS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


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

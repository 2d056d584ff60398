"""Reads and writes files as root in folders that others may write too. It follows no symbolic link.

Each step uses a descriptor of the parent folder. A link that somebody creates between check and use therefore has no
effect. A file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def folder(root: Path, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """Open the folder `parts` below `root` and yield its descriptor. `make` creates missing folders with mode 0755.

    Raises `FileNotFoundError`, and `OSError` with the path if a part is a link or not a folder.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, part in enumerate(parts, 1):
            inner = _enter(descriptor, part, root.joinpath(*parts[:number]), make)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(descriptor: int, part: str, path: Path, make: bool) -> int:
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=descriptor)
                made = os.open(part, _FOLDER, dir_fd=descriptor)
                os.fchmod(made, 0o755)
                return made
        return os.open(part, _FOLDER, dir_fd=descriptor)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            why = "is a symbolic link or not a folder, and links are not followed: remove it, or omit --hosts"
            raise OSError(error.errno, f"{path} {why}") from None
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None


def write(descriptor: int, name: str, content: bytes) -> None:
    """Write a file with mode 0644 and replace an existing file. A link is replaced, not followed."""
    temporary = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=descriptor), "wb") as file:
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            os.rename(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except BaseException:
            os.unlink(temporary, dir_fd=descriptor)
            raise


def read(descriptor: int, name: str) -> bytes | None:
    """Return the content of a file, or `None` if it is a link or not a regular file. Raises `FileNotFoundError`."""
    try:
        # Opening a pipe must not block.
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None
        raise
    with os.fdopen(opened, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(opened).st_mode) else None


def exists(descriptor: int, name: str) -> bool:
    """Return whether the name exists, also as a dangling link."""
    try:
        os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True

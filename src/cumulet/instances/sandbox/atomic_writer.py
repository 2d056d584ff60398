"""Replaces the files of a volume as a whole, as the kubelet's `AtomicWriter` does.

The files are in a folder named by the time. `..data` is a link to that folder, and each name that a reader sees is a link
through `..data`. A rename of `..data` replaces all files at once; a process that has a file open keeps the old one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from typing import NamedTuple

from cumulet.common import clock
from cumulet.instances.sandbox import beneath

_DATA, _NEW_DATA = "..data", "..data_tmp"
_FOLDER_MODE = 0o755


class File(NamedTuple):
    """The content and the permissions of a file."""

    content: bytes
    mode: int


def replace_files(folder: int, files: Mapping[str, File]) -> bool:
    """Replace the files of a volume, given by a descriptor of its folder; return whether there was a difference.

    Paths are relative, and no first name starts with `..`. Files get the owners of the folder. Only this room writes in the
    folder, one call at a time. Raises `OSError`.
    """
    before = _target(folder, _DATA)
    if before is not None and _read(folder, before) == files:
        return False
    now = clock.now().strftime("..%Y_%m_%d_%H_%M_%S")
    fresh = f"{now}.{secrets.randbelow(2**32)}"
    try:
        _fill(folder, fresh, files)
        _link(folder, _DATA, fresh)
    except OSError:
        _remove(folder, fresh)
        raise
    names = {path.partition("/")[0] for path in files}
    for name in names:
        _link(folder, name, f"{_DATA}/{name}")
    for name in _names(folder) - names - {_DATA, fresh}:
        _remove(folder, name)
    return True


def _fill(folder: int, name: str, files: Mapping[str, File]) -> None:
    owner = os.fstat(folder)
    os.close(beneath.make_folders(folder, [name], _FOLDER_MODE | owner.st_mode & stat.S_ISGID))
    for path, file in files.items():
        beneath.write_file(folder, [name, *path.split("/")], file.content, file.mode)
    if (owner.st_uid, owner.st_gid) == (os.geteuid(), os.getegid()):
        return
    for _, _, found, descriptor in os.fwalk(name, dir_fd=folder):
        os.chown(descriptor, owner.st_uid, owner.st_gid)
        for item in found:
            os.chown(item, owner.st_uid, owner.st_gid, dir_fd=descriptor, follow_symlinks=False)


def _link(folder: int, name: str, target: str) -> None:
    """Make a name a link to a target. Another link of that name is replaced in one step."""
    before = _target(folder, name)
    if before == target:
        return
    if before is None:
        _remove(folder, name)  # a file or folder that an earlier version wrote
    _remove(folder, _NEW_DATA)
    os.symlink(target, _NEW_DATA, dir_fd=folder)
    owner = os.fstat(folder)
    os.chown(_NEW_DATA, owner.st_uid, owner.st_gid, dir_fd=folder, follow_symlinks=False)
    os.rename(_NEW_DATA, name, src_dir_fd=folder, dst_dir_fd=folder)


def _target(folder: int, name: str) -> str | None:
    """Return the target of a link, or `None` if there is no link of that name."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None


def _read(folder: int, name: str) -> dict[str, File]:
    """Return the files of a folder by path."""
    files = {}
    for above, _, found, descriptor in os.fwalk(name, dir_fd=folder):
        for item in found:
            opened = os.open(item, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            with os.fdopen(opened, "rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                files[f"{above}/{item}".removeprefix(f"{name}/")] = File(file.read(), mode)
    return files


def _names(folder: int) -> set[str]:
    """Return the names in a folder."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(readable) as entries:
            return {entry.name for entry in entries}
    finally:
        os.close(readable)


def _remove(folder: int, name: str) -> None:
    """Remove a file, a link or a tree, if it is there."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=folder)

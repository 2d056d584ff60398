"""Looks up paths in the layers below a layer, merged as overlayfs merges them (Linux, "Overlay Filesystem")."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cumulet.instances.images.budget import Budget, LayerError

OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
#: The mode of a folder that no layer mentions.
PLAIN_MODE = 0o755
_CHUNK = 1024 * 1024
#: Folders on disk that are remembered.
_REMEMBERED = 100_000


class Found(NamedTuple):
    """What is at a path: its place on disk, where it is topmost, and its status."""

    path: str
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.status.st_mode)

    @property
    def target(self) -> str:
        """The target of a symbolic link."""
        return os.readlink(self.path)  # noqa: PTH115  (a Path would change the text)

    @property
    def is_plain_folder(self) -> bool:
        """Whether it is a folder with the owner and mode that a missing folder gets, and without attributes."""
        status = self.status
        return (
            self.is_folder
            and (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (PLAIN_MODE, 0, 0)
            and not kept_attributes(self.path)
        )


class Below:
    """The layers below a layer, the lowest first. Nothing changes them during the lookups."""

    def __init__(self, layers: Sequence[Path], budget: Budget) -> None:
        self._budget = budget
        self._roots = [os.fspath(layer) for layer in reversed(layers)]
        self._merged = {"": self._roots}
        self._remembered = 0

    def find(self, path: str) -> Found | None:
        """Return what is at a path below the root, none of whose folders is a link. Raises `LayerError`, `OSError`."""
        above, _, name = path.rpartition("/")
        found = self._search(self._folders(above), name)
        return found[0] if found else None

    def _folders(self, path: str) -> list[str]:
        """Return the folders on disk that are merged at a path, the topmost first; none if there is no folder."""
        if (known := self._merged.get(path)) is not None:
            return known
        above, _, name = path.rpartition("/")
        found = [item for item in self._search(self._folders(above), name) if item.is_folder]
        self._remembered += 1 + len(found)
        if self._remembered > _REMEMBERED:
            self._merged, self._remembered = {"": self._roots}, 1 + len(found)
        folders = self._merged[path] = [item.path for item in found]
        return folders

    def _search(self, folders: list[str], name: str) -> list[Found]:
        """Return what has a name in merged folders: the folders that are merged, or one file."""
        self._budget.add_steps(len(folders))
        found: list[Found] = []
        for folder in folders:
            path = f"{folder}/{name}"
            try:
                item = Found(path, os.lstat(path))
            except FileNotFoundError:
                continue
            if is_whiteout(item.status) or (found and not item.is_folder):
                break
            found.append(item)
            if not item.is_folder or is_opaque(path):
                break
        return found


def is_whiteout(status: os.stat_result) -> bool:
    """Return whether a file hides what is below it (overlayfs)."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: str | int) -> bool:
    """Return whether a folder hides the content of the one below it (overlayfs)."""
    try:
        return os.getxattr(path, OPAQUE_ATTRIBUTE, follow_symlinks=isinstance(path, int)) == b"y"
    except OSError:
        return False


def is_kept(attribute: str) -> bool:
    """Return whether an extended attribute is a container's business. overlayfs interprets those in `trusted`."""
    return attribute.startswith(("user.", "system.posix_acl_")) or attribute == "security.capability"


def kept_attributes(path: str) -> list[str]:
    """Return the names of those attributes of a file; links are not followed. Raises `OSError`."""
    return [name for name in os.listxattr(path, follow_symlinks=False) if is_kept(name)]


def copy_status(found: Found, target: int) -> None:
    """Give an open file the owner, mode, attributes and times of another. Raises `OSError`."""
    status = found.status
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in kept_attributes(found.path):
        os.setxattr(target, name, os.getxattr(found.path, name, follow_symlinks=False))
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))


def copy_file(found: Found, folder: int, name: str) -> None:
    """Copy a file, pipe or link into an open folder. Raises `LayerError` for a folder, `OSError`."""
    kind = stat.S_IFMT(found.status.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(found.target, name, dir_fd=folder)
    elif kind == stat.S_IFIFO:
        os.mkfifo(name, 0o600, dir_fd=folder)
    elif kind == stat.S_IFREG:
        source = os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(source, "rb") as original:
            copied = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
            with os.fdopen(copied, "wb") as copy:
                shutil.copyfileobj(original, copy, _CHUNK)
                copy.flush()
                copy_status(found, copied)
    else:
        raise LayerError(f"the layer links {name[:200]!r} to a folder")

"""Measures how much of a disk folders use, with du(1) at the lowest priority; one process for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cumulet.instances.sandbox.programs import run

#: Containers can make folders and files without end, so the names are read by du itself, not here.
_DU = ("nice", "-n", "19", "du", "--summarize", "--one-file-system", "--block-size=1", "--null", "--files0-from=-")


class FileSystem(NamedTuple):
    """The size of a file system, and what of it is free for everyone, in bytes; `files` and `free_files` count inodes."""

    size: int
    available: int
    files: int
    free_files: int

    @property
    def share(self) -> float:
        """The available part, from 0 to 1."""
        return self.available / self.size if self.size else 1.0

    @property
    def share_of_files(self) -> float:
        """The free part of the inodes, from 0 to 1. Some file systems have no limit."""
        return self.free_files / self.files if self.files else 1.0


def file_system(path: Path) -> FileSystem:
    """Return the state of the file system that contains a path. Raises `OSError`."""
    found = os.statvfs(path)
    return FileSystem(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, found.f_files, found.f_ffree)


async def measure(folders: Iterable[Path]) -> dict[Path, int]:
    """Return the bytes that each folder uses on its own file system. Folders that are gone are left out."""
    paths = [*folders]
    if not paths:
        return {}
    # What it says about files that containers remove meanwhile has no end, and no reader.
    done = await run(*_DU, given=b"".join(os.fsencode(path) + b"\0" for path in paths), keeps_errors=False)
    found = {}
    for entry in done.output.split(b"\0"):
        size, _, name = entry.partition(b"\t")
        if name:
            found[Path(os.fsdecode(name))] = int(size)
    return found

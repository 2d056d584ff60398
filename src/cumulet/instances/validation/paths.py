"""Paths in a request, as far as their text shows where they lead."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from cumulet.instances.validation.text import CONTROL

#: Bytes of a path and of a name. Linux allows 4096 for a path; the folder above needs some of them.
LONGEST_PATH, _LONGEST_NAME = 2048, 255
#: Where the kernel shows its state in a container.
KERNEL = ("/proc", "/sys", "/dev")


def is_relative(path: str) -> bool:
    """Return whether a path stays beneath the folder where it is resolved."""
    return (
        not path.startswith("/")
        and ".." not in path.split("/")
        and not CONTROL.search(path)
        and len(path.encode()) <= LONGEST_PATH
        and all(len(part.encode()) <= _LONGEST_NAME for part in path.split("/"))
    )


def is_absolute(path: str) -> bool:
    """Return whether a path is absolute and has no `..`."""
    return path.startswith("/") and len(path) <= LONGEST_PATH and is_relative(path.lstrip("/"))


def is_within(path: str, folders: Sequence[str]) -> bool:
    """Return whether a path is one of the folders, or beneath one."""
    normal = normalized(path)
    return any(normal == folder or normal.startswith(f"{folder}/") for folder in folders)


def normalized(path: str) -> str:
    """Return an absolute path without repeated slashes and `.`."""
    return posixpath.normpath("/" + path.lstrip("/"))

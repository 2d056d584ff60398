"""Gives a volume to the group of its pod, as the kubelet does (`pkg/volume/volume_linux.go`, `SetVolumeOwnership`)."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

#: What the group can do with a file of a volume that containers cannot write.
READ = 0o440
_WRITE, _ENTER = 0o660, 0o110


def give_tree(path: Path, group: int) -> None:
    """Give a folder and everything in it to a group, which can write it; links keep their mode. Raises `OSError`.

    Containers may change the folder meanwhile: what is opened is changed, by its descriptor, and no name is followed twice.
    """
    for _, folders, files, inner in os.fwalk(path, follow_symlinks=False):
        os.fchown(inner, -1, group)
        os.fchmod(inner, stat.S_IMODE(os.fstat(inner).st_mode) | _WRITE | _ENTER | stat.S_ISGID)
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                _give_file(inner, name, group)


def _give_file(folder: int, name: str, group: int) -> None:
    """Give a file to a group; folders are walked. Raises `OSError`."""
    file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        mode = os.fstat(file).st_mode
        if stat.S_ISDIR(mode):
            return
        # The kernel follows this link to the very file that is open, which may be a link (proc(5)).
        opened = Path(f"/proc/self/fd/{file}")
        os.chown(opened, -1, group)
        if not stat.S_ISLNK(mode):
            opened.chmod(stat.S_IMODE(mode) | _WRITE)
    finally:
        os.close(file)


def is_given(path: Path, group: int) -> bool:
    """Return whether the root of a volume is the group's, so that the rest is taken to be (`OnRootMismatch`)."""
    status = path.stat(follow_symlinks=False)
    wanted = _WRITE | _ENTER | stat.S_ISGID
    return status.st_gid == group and stat.S_IMODE(status.st_mode) & wanted == wanted


def give_folder(path: Path, group: int, *, writable: bool) -> None:
    """Give a folder to a group; what is created in it later is the group's, too (setgid). Raises `OSError`.

    A folder that has a group keeps it: its owners may have been shifted to those of a user namespace.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(folder)
        if found.st_gid == 0:
            os.fchown(folder, -1, group)
        os.fchmod(folder, stat.S_IMODE(found.st_mode) | (_WRITE if writable else READ) | _ENTER | stat.S_ISGID)
    finally:
        os.close(folder)

"""Gives a volume to the group of its pod, as the kubelet does (`pkg/volume/volume_linux.go`, `SetVolumeOwnership`)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: What the group can do with a file of a volume that containers cannot write.
READ = 0o440
_WRITE, _ENTER = 0o660, 0o110


def give_tree(path: Path, group: int) -> None:
    """Give a folder and everything in it to a group, which can write it; links keep their mode. Raises `OSError`.

    No other process may change the folder at the same time.
    """
    for _, folders, files, inner in os.fwalk(path, follow_symlinks=False):
        os.fchown(inner, -1, group)
        os.fchmod(inner, stat.S_IMODE(os.fstat(inner).st_mode) | _WRITE | _ENTER | stat.S_ISGID)
        for name in (*folders, *files):
            mode = os.stat(name, dir_fd=inner, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                continue
            os.chown(name, -1, group, dir_fd=inner, follow_symlinks=False)
            if not stat.S_ISLNK(mode):
                os.chmod(name, stat.S_IMODE(mode) | _WRITE, dir_fd=inner)


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

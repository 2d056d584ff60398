"""Gives a volume to the group of its pod, as the kubelet does (`pkg/volume/volume_linux.go`, `SetVolumeOwnership`)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: What the group can do with a file of a volume that containers cannot write.
READ = 0o440
_WRITE, _ENTER = 0o660, 0o110


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

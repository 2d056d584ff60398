"""Measures files that processes keep open after they were deleted: no folder has them, so that du(1) does not see them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

from cumulet.common.ascii import is_digits
from cumulet.instances.sandbox.id_ranges import IDS

_BLOCK = 512


def deleted_files(starts: Collection[int], devices: Collection[int]) -> dict[int, int]:
    """Return the bytes of deleted files on these devices by the first id of the user namespace whose processes hold them.

    It reads the open files of all processes of these namespaces, which can be many: call it on a thread, and seldom.
    """
    found = dict.fromkeys(starts, 0)
    seen: set[tuple[int, int]] = set()
    for process in Path("/proc").iterdir():
        if not is_digits(process.name):
            continue
        with contextlib.suppress(OSError):  # it has ended in the meantime
            owner = process.stat().st_uid
            start = next((start for start in found if start <= owner < start + IDS), None)
            if start is None:
                continue
            with os.scandir(process / "fd") as descriptors:
                for descriptor in descriptors:
                    with contextlib.suppress(OSError):
                        status = descriptor.stat()
                        key = status.st_dev, status.st_ino
                        if (
                            status.st_nlink == 0
                            and stat.S_ISREG(status.st_mode)
                            and status.st_dev in devices
                            and key not in seen
                        ):
                            seen.add(key)
                            found[start] += status.st_blocks * _BLOCK
    return found

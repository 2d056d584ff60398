"""The folders of managed disks, which are named by ids of their own, never by text from a request.

Only root reaches them: a container writes there as root of its user namespace, which is root on disk.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from cumulet.common.arm import ResourceId
from cumulet.common.private_files import private_folder
from cumulet.instances.sandbox import beneath
from cumulet.instances.sandbox.errors import SandboxError

#: The mode of the root of a new file system.
_ROOT = 0o755


class DiskFolders:
    """The folders beneath one folder, by the keys of the disks' resource ids."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._uids: dict[str, uuid.UUID] = {}

    def adopt(self, disks: Mapping[str, uuid.UUID]) -> None:
        """Take over the disks that exist, with the ids of their folders, by key."""
        self._uids |= disks

    def make(self, key: str, uid: uuid.UUID) -> None:
        """Create the folder of a new disk. Raises `OSError`."""
        private_folder(self._folder)
        path = self._folder / str(uid)
        path.mkdir(mode=0o700)
        path.chmod(_ROOT)
        self._uids[key] = uid

    def has(self, disk: str) -> bool:
        """Return whether there is a disk of a resource id. Raises `ArmError` if it is none."""
        return ResourceId(disk).key in self._uids

    def forget(self, key: str) -> Path:
        """Forget a disk, and return its folder, which is to be removed."""
        return self._folder / str(self._uids.pop(key))

    def path(self, disk: str) -> Path:
        """Return the folder of a disk by its resource id. Raises `SandboxError` if there is none."""
        uid = self._uids.get(ResourceId(disk).key)
        if uid is None:
            raise SandboxError(f"the disk {disk} does not exist")
        return self._folder / str(uid)

    def open(self, disk: str) -> int:
        """Return a descriptor (`O_PATH`) of the folder of a disk. Raises `SandboxError`."""
        try:
            return beneath.open_folder(self.path(disk))
        except OSError as error:
            raise SandboxError(f"the disk {disk} cannot be opened: {os.strerror(error.errno or 0)}") from None

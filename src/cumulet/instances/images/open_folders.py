"""The open folders of a tree that is being written, and the times of their last changes.

Entries of an archive that follow each other are often in one folder.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from cumulet.instances.images.paths import above

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Folders that are open at the same time.
_OPEN = 16


class OpenFolder:
    """An open folder of the layer, and the time of its last change, which a change of its content must not touch."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.time = os.fstat(descriptor).st_mtime_ns

    def close(self) -> None:
        """Restore the time, and close the folder."""
        os.utime(self.descriptor, ns=(self.time, self.time))
        os.close(self.descriptor)


class OpenFolders:
    """The folders of the tree at an open folder. No step of their paths is a link."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: OrderedDict[str, OpenFolder] = OrderedDict()

    def is_open(self, path: str) -> bool:
        """Return whether a folder is open."""
        return path in self._open

    def status(self, path: str) -> os.stat_result | None:
        """Return the status of a file; links are not followed. `None` stands for a missing one. Raises `OSError`."""
        try:
            return os.stat(path, dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def folder(self, path: str) -> OpenFolder:
        """Return an open folder. Its content may be changed until the next call."""
        if (folder := self._open.get(path)) is not None:
            self._open.move_to_end(path)
            return folder
        if len(self._open) >= _OPEN:
            self._open.popitem(last=False)[1].close()
        folder = self._open[path] = OpenFolder(os.open(path or ".", FOLDER, dir_fd=self._root))
        return folder

    def parent(self, path: str) -> int:
        """Return the descriptor of the folder of a path. Its content may be changed until the next call."""
        return self.folder(above(path)).descriptor

    def forget(self, path: str) -> None:
        """Close a folder that is about to be removed, and those in it."""
        for item in [item for item in self._open if item == path or item.startswith(f"{path}/")]:
            os.close(self._open.pop(item).descriptor)

    def close(self) -> None:
        """Close all folders."""
        while self._open:
            self._open.popitem()[1].close()

"""The modes of an installation's folders, which only their owner may enter."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cumulet.common.config import DEFAULT_PORTS

#: Folders whose subfolders are private too, and the depth of the deepest one: `registry/content/blobs/sha256`.
_CLOSED = {*DEFAULT_PORTS, "pki"} - {"instances"}
_DEPTH = 4


def close_folders(data_dir: Path) -> list[Path]:
    """Set the mode of an installation's folders to 0700, and return the changed ones.

    Folders that containers or container engines use keep their mode: below `instances`, and folders of no room.
    """
    changed = []
    pending = [data_dir]
    while pending:
        folder = pending.pop()
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:
            folder.chmod(0o700)
            changed.append(folder)
        below = folder.relative_to(data_dir).parts
        if not below or (below[0] in _CLOSED and len(below) < _DEPTH):
            pending += [Path(item.path) for item in os.scandir(folder) if item.is_dir(follow_symlinks=False)]
    return changed

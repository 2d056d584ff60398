"""The volumes that an image declares (`VOLUME`): an empty folder for each, with the image's files at its path.

As in containerd's CRI, every attempt of a container has new ones, they are writable also if the root is not, and a mount of
the pod at the same path takes their place.
"""

from __future__ import annotations

import os
import posixpath
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

from cumulet.instances.sandbox import beneath
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.mounts import Bind

#: Where a container has mounts that none may replace.
_KERNEL = ("/proc", "/sys", "/dev")
_LONGEST = 2048


def make_image_volumes(
    paths: Iterable[str], mounted: Iterable[str], root: Path, folder: Path, owner: int
) -> list[Bind]:
    """Make the volumes in a folder; return their binds. Raises `SandboxError`, `OSError`.

    `mounted` are the paths of other mounts, `root` is the mounted root of the container, and `owner` its root's id.
    """
    taken = {posixpath.normpath(path) for path in mounted}
    binds: list[Bind] = []
    for path in sorted({posixpath.normpath(f"/{path.lstrip('/')}") for path in paths} - taken):
        if path == "/" or f"{path}/".startswith(tuple(f"{place}/" for place in _KERNEL)) or len(path) > _LONGEST:
            raise SandboxError(f"the image declares a volume at {path[:200]!r}, where a container cannot have one")
        target = folder / str(len(binds))
        target.mkdir(mode=0o755, parents=True)
        source = _open(root, path)
        if source is None:
            os.chown(target, owner, owner)
        else:
            try:
                _copy(source, target, path)
            finally:
                os.close(source)
        binds.append(Bind(target, path, False))
    return binds


def _open(root: Path, path: str) -> int | None:
    anchor = beneath.open_folder(root)
    try:
        return beneath.find_in_root(anchor, path)
    finally:
        os.close(anchor)


def _copy(source: int, target: Path, path: str) -> None:
    """Copy the files of the image, with their owners as they are mounted, which are those of the group."""
    status = os.fstat(source)
    if not stat.S_ISDIR(status.st_mode):
        raise SandboxError(f"the image declares a volume at {path[:200]!r}, where it has a file")
    command = ["cp", "--archive", "--", f"/proc/self/fd/{source}/.", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, pass_fds=[source])
    if done.returncode:
        raise SandboxError(f"copying the image's files to its volume {path[:200]!r}: {done.stderr.strip()[:500]}")
    os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))

"""The shared memory of a group, `/dev/shm`: all its containers see it, as in containerd. It counts to their memory."""

from __future__ import annotations

from pathlib import Path

from cumulet.instances.sandbox.mounts import Bind, mount_tmpfs

#: Where it is in a container, and its size in bytes.
PATH = "/dev/shm"  # noqa: S108  (the group's own)
_SIZE = 64 * 1024 * 1024
_MODE = 0o1777


def make(folder: Path) -> None:
    """Create the shared memory of a group in its folder, unless it exists. Raises `SandboxError`, `OSError`."""
    path = _path(folder)
    path.mkdir(mode=0o711, parents=True, exist_ok=True)
    if not path.is_mount():
        mount_tmpfs(path, _MODE, _SIZE, programs=False)


def bind(folder: Path) -> Bind:
    """Return the bind of a group's shared memory."""
    return Bind(_path(folder), PATH, False)


def _path(folder: Path) -> Path:
    return folder / "shm"

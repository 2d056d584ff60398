"""Trees of files, as the room makes them of layers and as buildah does, to compare."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cumulet.common import digests
from cumulet.instances.images.below import Below
from cumulet.instances.images.budget import Budget
from cumulet.instances.images.layers import Known, Layers
from cumulet.instances.images.stacks import Layered, Stacks
from cumulet.instances.images.unpack import unpack
from cumulet.instances.sandbox.mounts import unmount
from cumulet.instances.sandbox.overlay import mount_overlay
from tests.instances.images import write_layout

_LIMIT = 1024**3


class File(NamedTuple):
    """What a tree has at a path: `ls` in numbers, and the content or the target of a link."""

    mode: str
    uid: int
    gid: int
    content: bytes
    attributes: dict[str, bytes]
    time: int = 0


def tree(root: Path, *, times: bool = False) -> dict[str, File]:
    """The files of a tree by their paths."""
    found: dict[str, File] = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder) / name
            status = path.lstat()
            content = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path).encode(errors="surrogateescape")  # noqa: PTH115  (a Path would change the text)
            elif stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
                if not key.startswith("trusted.")
            }
            time = status.st_mtime_ns if times and not stat.S_ISDIR(status.st_mode) else 0
            found[str(path.relative_to(root))] = File(
                stat.filemode(status.st_mode), status.st_uid, status.st_gid, content, attributes, time
            )
    return found


class Cache:
    """The room's own cache of layers, without a registry."""

    def __init__(self, folder: Path) -> None:
        self.layers = Layers(folder / "cache")
        self._folder = folder
        #: The digests of the layers that were unpacked again.
        self.again: list[str] = []
        self._mounts = 0

    def stack(self, images: Sequence[bytes]) -> list[Path]:
        """The folders of an image of these layers."""
        return asyncio.run(self._stack(images))

    async def _stack(self, images: Sequence[bytes]) -> list[Path]:
        layered = []
        for content in images:
            digest = digests.of(content)
            if self.layers.find(digest) is None:
                await self._add(content, None, "")
            known = self.layers.find(digest)
            assert known is not None
            layered.append(Layered(digest, known))

        async def again(position: int, below: Below, form: str) -> None:
            self.again.append(layered[position].digest)
            await self._add(images[position], below, form)

        return await Stacks(self.layers).build(layered, Budget(_LIMIT), again)

    async def _add(self, content: bytes, below: Below | None, form: str) -> None:
        digest = digests.of(content)
        async with self.layers.work() as work:
            done = unpack(io.BytesIO(content).read, work, digest, Budget(_LIMIT), below)
            self.layers.add(digest, Known(digest, done.size, done.needs), work, form)

    @contextlib.contextmanager
    def mounted(self, images: Sequence[bytes]) -> Iterator[Path]:
        """The root of a container of an image of these layers."""
        self._mounts += 1
        folder = self._folder / f"mount-{self._mounts}"
        for part in ("upper", "work", "root"):
            (folder / part).mkdir(parents=True)
        mount_overlay(self.stack(images), folder / "upper", folder / "work", folder / "root")
        try:
            yield folder / "root"
        finally:
            unmount(folder / "root")


@contextlib.contextmanager
def buildah_mounted(folder: Path, images: Sequence[bytes]) -> Iterator[Path]:
    """The same as buildah makes it, which applies layers one after the other (containers/storage, driver vfs)."""
    write_layout(folder / "layout", list(images), {})
    options = (
        "buildah",
        "--storage-driver",
        "vfs",
        "--root",
        str(folder / "storage"),
        "--runroot",
        str(folder / "run"),
    )

    def run(*command: str) -> str:
        return subprocess.run([*options, *command], check=True, capture_output=True, text=True).stdout.strip()

    name = run("from", "--quiet", f"oci:{folder / 'layout'}:it")
    yield Path(run("mount", name))
    run("umount", name)

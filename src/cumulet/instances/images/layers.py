"""The layers on this machine, and a record of each.

A layer is a folder named by its digest. The images of all tenants share it. The record names the repositories that have
proven to have the layer, by sending its bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from cumulet.common.config import private_folder, write_private
from cumulet.common.digests import Digest, DigestField, algorithm, encoded


class Known(msgspec.Struct, frozen=True):
    """The record of a layer: digest and size in bytes when unpacked, and the repositories that have proven to have it."""

    diff_id: DigestField
    size: int
    repositories: list[str] = []


class Layers:
    """A layer appears when it is complete: a crash leaves nothing that looks like one."""

    def __init__(self, folder: Path) -> None:
        self._whole, self._known, self._partial = folder / "layers", folder / "known", folder / "partial"
        shutil.rmtree(self._partial, ignore_errors=True)  # a crash left it
        for part in (self._whole, self._known, self._partial):
            private_folder(part)

    def path(self, digest: Digest) -> Path:
        """Return the folder of a layer."""
        return self._whole / _name(digest)

    def find(self, digest: Digest) -> Known | None:
        """Return the record of a cached layer, or `None`. A layer without a record does not count."""
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            known = msgspec.json.decode(self._file(digest).read_bytes(), type=Known)
            if self.path(digest).is_dir():
                return known
        return None

    @contextlib.asynccontextmanager
    async def work(self) -> AsyncIterator[Path]:
        """Yield an empty folder to unpack into; remove it at the end unless it became a layer."""
        folder = self._partial / str(uuid.uuid4())
        folder.mkdir(mode=0o755)
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def add(self, digest: Digest, known: Known, work: Path) -> None:
        """Make an unpacked folder a layer. An existing folder, for example of a faster pull, stays."""
        write_private(self._file(digest), msgspec.json.encode(known))
        try:
            work.rename(self.path(digest))
        except OSError:
            if not self.path(digest).is_dir():
                raise

    def add_repository(self, digest: Digest, repository: str) -> None:
        """Record that a repository has proven to have a layer."""
        known = self.find(digest)
        if known is not None and repository not in known.repositories:
            known = msgspec.structs.replace(known, repositories=[*known.repositories, repository])
            write_private(self._file(digest), msgspec.json.encode(known))

    def _file(self, digest: Digest) -> Path:
        return self._known / f"{_name(digest)}.json"


def _name(digest: Digest) -> str:
    return f"{algorithm(digest)}-{encoded(digest)}"

"""The layers that are on this machine, and what is known of each.

A layer is a folder named by its digest. It is shared by the images of all tenants, so beside it is kept which repositories
have proven that they hold it: by sending its bytes, or by a registry's word where that registry is trusted.
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
    """What is known of a layer: the digest and number of the bytes that it unpacks to, and who has proven to hold it."""

    diff_id: DigestField
    size: int
    repositories: list[str] = []


class Layers:
    """A layer is there once it is whole: a crash leaves nothing that looks like one."""

    def __init__(self, folder: Path) -> None:
        self._whole, self._known, self._partial = folder / "layers", folder / "known", folder / "partial"
        shutil.rmtree(self._partial, ignore_errors=True)  # what a crash left half unpacked
        for part in (self._whole, self._known, self._partial):
            private_folder(part)

    def path(self, digest: Digest) -> Path:
        """The folder of a layer."""
        return self._whole / _name(digest)

    def find(self, digest: Digest) -> Known | None:
        """A layer that is here, or `None`. One of which nothing is known counts as not here."""
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            known = msgspec.json.decode(self._file(digest).read_bytes(), type=Known)
            if self.path(digest).is_dir():
                return known
        return None

    @contextlib.asynccontextmanager
    async def work(self) -> AsyncIterator[Path]:
        """An empty folder to unpack into; what is left of it at the end is removed."""
        folder = self._partial / str(uuid.uuid4())
        folder.mkdir(mode=0o755)
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def add(self, digest: Digest, known: Known, work: Path) -> None:
        """Make an unpacked folder a layer; where another was faster, or nothing was known of the layer, that one stays."""
        write_private(self._file(digest), msgspec.json.encode(known))
        try:
            work.rename(self.path(digest))
        except OSError:
            if not self.path(digest).is_dir():
                raise

    def add_repository(self, digest: Digest, repository: str) -> None:
        """Note that a repository holds a layer."""
        known = self.find(digest)
        if known is not None and repository not in known.repositories:
            known = msgspec.structs.replace(known, repositories=[*known.repositories, repository])
            write_private(self._file(digest), msgspec.json.encode(known))

    def _file(self, digest: Digest) -> Path:
        return self._known / f"{_name(digest)}.json"


def _name(digest: Digest) -> str:
    return f"{algorithm(digest)}-{encoded(digest)}"

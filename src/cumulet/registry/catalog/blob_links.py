"""Blobs of repositories: keeps the bytes in the content store consistent with the links in the catalog.

For one digest, these operations never overlap: storing and linking its bytes, linking them to another repository, and
removing bytes that no repository has. So a link never points to missing bytes. A crash leaves at most bytes without a link,
which `orphans` finds. An operation that has started must not be cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from cumulet.common.digests import Digest
from cumulet.registry.catalog.records import Blob
from cumulet.registry.catalog.running_pushes import RunningPushes
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.content.keyed_lock import KeyedLock
from cumulet.registry.content.store import Content
from cumulet.registry.oci.errors import OciError

_YIELD_EVERY = 256


class Links:
    """The only writer of blobs' bytes and links."""

    def __init__(self, catalog: Catalog, content: Content, pushes: RunningPushes) -> None:
        self._catalog = catalog
        self._content = content
        self._pushes = pushes
        self._digests = KeyedLock()

    def find(self, registry: str, repository: str, digest: Digest) -> Blob | None:
        """A blob of a repository. It counts as reported to the client (`RunningPushes.report`)."""
        blob = self._catalog.blob(registry, repository, digest)
        if blob is None or not self._pushes.report((registry, repository), digest):
            return None
        return blob

    async def commit(self, session: str, registry: str, repository: str, digest: Digest) -> None:
        """Turn an upload into a blob of a repository.

        Raises `DigestMismatchError`, `UnknownUploadError`, and the errors of `transactions.link_blob`.
        """
        async with self._digests.lock(digest):
            size = await self._content.commit(session, digest)
            try:
                await self._link(registry, repository, digest, size)
            except OciError:
                await self._remove_unlinked(digest)
                raise

    async def mount(
        self, registry: str, source: str, repository: str, digest: Digest, *, of: str | None = None
    ) -> bool:
        """Link a blob of `source`, in the same registry or in `of`, to `repository`, and return whether it exists."""
        async with self._digests.lock(digest):
            blob = self._catalog.blob(of or registry, source, digest)
            if blob is None or not blob.readable:
                return False
            await self._link(registry, repository, digest, blob.size)
            return True

    async def unlink(self, registry: str, repository: str, digest: Digest) -> bool:
        """Unlink a blob from a repository and remove unlinked bytes. Returns whether the repository had it."""
        if not await self._catalog.unlink_blob(registry, repository, digest):
            return False
        await self.remove_unlinked([digest])
        return True

    async def remove_unlinked(self, digests: Iterable[Digest]) -> tuple[int, int]:
        """Remove the bytes of the blobs that no repository has, and return their number and their total size."""
        blobs = freed = 0
        for digest in digests:
            async with self._digests.lock(digest):
                size = await self._remove_unlinked(digest)
            if size is not None:
                blobs, freed = blobs + 1, freed + size
        return blobs, freed

    async def stored_size(self, digests: Iterable[Digest]) -> int:
        """The total size of some blobs in bytes."""
        return sum([await self._content.size(digest) or 0 for digest in digests])

    async def orphans(self) -> list[Digest]:
        """The stored blobs that no repository has."""
        orphans = []
        number = 0
        async for digest in self._content.digests():
            number += 1
            if not self._catalog.is_linked(digest):
                orphans.append(digest)
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return orphans

    async def _link(self, registry: str, repository: str, digest: Digest, size: int) -> None:
        await self._pushes.claim((registry, repository), digest)
        await self._catalog.link_blob(registry, repository, digest, size)

    async def _remove_unlinked(self, digest: Digest) -> int | None:
        if self._catalog.is_linked(digest):
            return None
        size = await self._content.size(digest)
        await self._content.remove(digest)
        return size

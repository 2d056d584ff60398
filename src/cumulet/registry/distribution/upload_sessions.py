"""Upload sessions: their owners in the catalog, their bytes in the content store, and a lock for each."""

from __future__ import annotations

import asyncio

from cumulet.common import clock
from cumulet.registry.catalog.records import Upload
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.content.keyed_lock import KeyedLock
from cumulet.registry.content.store import Content


class Sessions:
    """Starts, cancels and expires uploads. Nothing else does, except the commit of a blob."""

    def __init__(self, catalog: Catalog, content: Content) -> None:
        self._catalog = catalog
        self._content = content
        self._locks = KeyedLock()

    def lock(self, session: str) -> asyncio.Lock:
        """The lock to hold while an upload changes."""
        return self._locks.lock(session)

    async def begin(self, registry: str, repository: str, principal: str, algorithm: str) -> Upload:
        """Start an upload."""
        session = await self._content.start()
        upload = Upload(session, registry, repository, principal, clock.rfc3339(), algorithm)
        await self._catalog.put_upload(upload)
        return upload

    async def forget(self, session: str) -> None:
        """Cancel an upload and delete its bytes. The caller holds its lock."""
        await self._content.cancel(session)
        await self._catalog.remove_upload(session)

    async def expire(self, idle: float, *, dry_run: bool) -> int:
        """Cancel the uploads that received nothing for `idle` seconds, and return their number."""
        expired = [session async for session, seconds in self._content.uploads() if seconds > idle]
        free = [session for session in expired if not self.lock(session).locked()]
        if not dry_run:
            for session in free:
                async with self.lock(session):
                    await self.forget(session)
        return len(free)

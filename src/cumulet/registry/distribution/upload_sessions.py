"""Upload sessions: whose they are (the catalog), what came (the content store), and one request at a time for each."""

from __future__ import annotations

import asyncio

from cumulet.common import clock
from cumulet.registry.catalog.records import Upload
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.content.keyed_lock import KeyedLock
from cumulet.registry.content.store import Content


class Sessions:
    """The only place where uploads begin and end other than by becoming a blob."""

    def __init__(self, catalog: Catalog, content: Content) -> None:
        self._catalog = catalog
        self._content = content
        self._locks = KeyedLock()

    def lock(self, session: str) -> asyncio.Lock:
        """To be held by whoever changes the upload."""
        return self._locks.lock(session)

    async def begin(self, registry: str, repository: str, principal: str, algorithm: str) -> Upload:
        """A new upload."""
        session = await self._content.start()
        upload = Upload(session, registry, repository, principal, clock.rfc3339(), algorithm)
        await self._catalog.put_upload(upload)
        return upload

    async def forget(self, session: str) -> None:
        """End an upload and drop what came of it; its lock is held."""
        await self._content.cancel(session)
        await self._catalog.remove_upload(session)

    async def expire(self, idle: float, *, dry_run: bool) -> int:
        """Forget the uploads that stood still for `idle` seconds; how many those are."""
        expired = [session async for session, seconds in self._content.uploads() if seconds > idle]
        free = [session for session in expired if not self.lock(session).locked()]
        if not dry_run:
            for session in free:
                async with self.lock(session):
                    await self.forget(session)
        return len(free)

"""One at a time for each name."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class KeyedLock:
    """Locks by name, which are there only as long as somebody holds or awaits them."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, name: str) -> asyncio.Lock:
        """The lock of a name, to be held with `async with`."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

"""A grace period: a limit of time that can be shortened while something waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


class Grace:
    """Ends `seconds` from now, by the event loop's clock."""

    def __init__(self, seconds: float) -> None:
        self._until = asyncio.get_running_loop().time() + seconds
        self._waiting: set[asyncio.Timeout] = set()

    @property
    def left(self) -> float:
        """The seconds that are left, 0 or more."""
        return max(self._until - asyncio.get_running_loop().time(), 0.0)

    def shorten(self, seconds: float) -> None:
        """End at the latest `seconds` from now."""
        self._until = min(self._until, asyncio.get_running_loop().time() + seconds)
        for timeout in self._waiting:
            timeout.reschedule(self._until)

    async def within(self, work: Awaitable[object]) -> bool:
        """Wait for `work` until the period ends, and cancel it then; return whether it was completed."""
        try:
            async with asyncio.timeout_at(self._until) as timeout:
                self._waiting.add(timeout)
                try:
                    await work
                finally:
                    self._waiting.discard(timeout)
        except TimeoutError:
            if not timeout.expired():
                raise
            return False
        return True

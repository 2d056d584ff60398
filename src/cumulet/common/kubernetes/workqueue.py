"""A queue of keys to reconcile, as client-go's `workqueue`: each key is queued once and has one worker at a time.

A key that is added while a worker has it is queued again afterwards. A key that failed returns after a delay that doubles
from 5 ms up to a ceiling, until `forget`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """A work queue with back-off. All methods belong to one event loop."""

    def __init__(self, *, first_delay: float = 0.005, ceiling: float = 60.0) -> None:
        self._first_delay = first_delay
        self._ceiling = ceiling
        self._queue: deque[K] = deque()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, key: K) -> None:
        """Queue `key`, unless it is queued already."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._working:
            self._queue.append(key)
            self._ready.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Queue `key` after a delay in seconds. An earlier pending time is kept."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def retry(self, key: K) -> float:
        """Queue a failed key again after its back-off. Returns the back-off in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._first_delay * 2.0 ** min(failures, 30), self._ceiling)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """Reset the back-off of a key that succeeded."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for the next key. Call `done` after the work on it."""
        while not self._queue:
            self._ready.clear()
            await self._ready.wait()
        key = self._queue.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """End the work on `key`, whether it succeeded or failed."""
        self._working.discard(key)
        if key in self._waiting:
            self._queue.append(key)
            self._ready.set()

    async def work(self, reconcile: Callable[[K], Awaitable[None]]) -> None:
        """Reconcile keys until cancelled. Run several such tasks for several workers.

        An exception of `reconcile` is logged, and the key is retried after its back-off.
        """
        while True:
            key = await self.get()
            try:
                await reconcile(key)
            except Exception as error:
                delay = self.retry(key)
                log.warning("reconciling %s failed, again in %.2f s: %s", key, delay, error, exc_info=True)
            else:
                self.forget(key)
            finally:
                self.done(key)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

"""Background tasks that are referenced until they end and whose failures are logged, and waiting with a back-off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

log = logging.getLogger(__name__)


class TaskSet:
    """Tasks that run until the set is closed. The failure of a task is logged, and the others continue."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Run `work` in the background, and return its task."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def start_essential(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Run `work` that the process cannot do without. If it fails, the process stops, and its supervisor restarts it."""
        self.start(work, name).add_done_callback(_stop_where_failed)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task %s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel the running tasks and wait until they end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _stop_where_failed(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        signal.raise_signal(signal.SIGTERM)


@contextlib.asynccontextmanager
async def task_set() -> AsyncIterator[TaskSet]:
    """Yield a `TaskSet`, which is closed at the end of the block."""
    tasks = TaskSet()
    try:
        yield tasks
    finally:
        await tasks.close()


async def until_one_ends(*works: Coroutine[Any, Any, Any]) -> None:
    """Run all of `works` until one of them ends, and cancel the others. Raises the first failure among them."""
    await _until(asyncio.FIRST_COMPLETED, works)


async def until_all_end(*works: Coroutine[Any, Any, Any]) -> None:
    """Run all of `works` until all have ended, or one has failed; the others are cancelled. Raises its failure."""
    await _until(asyncio.FIRST_EXCEPTION, works)


async def _until(return_when: str, works: Sequence[Coroutine[Any, Any, Any]]) -> None:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=return_when)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


class Backoff:
    """Delays in seconds that grow by `factor` from `first` to `ceiling`, each spread by up to `jitter` of itself."""

    def __init__(self, first: float, ceiling: float, factor: float = 2.0, jitter: float = 0.1) -> None:
        self._first = first
        self._ceiling = ceiling
        self._factor = factor
        self._jitter = jitter
        self._next = first

    def next(self) -> float:
        """Return the next delay. The one after it is longer."""
        delay = self._next
        self._next = min(self._next * self._factor, self._ceiling)
        return delay * (1 + random.random() * self._jitter)

    async def wait(self) -> None:
        """Wait for the next delay."""
        await asyncio.sleep(self.next())

    def reset(self) -> None:
        """Start again from `first`, after a success."""
        self._next = self._first


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait until `event` is set, at most `seconds`. Returns whether it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()

"""Work of a sandbox is completed before its removal starts."""

from __future__ import annotations

import asyncio

import pytest

from cumulet.instances.sandbox.completion import to_completion


class Work:
    """Work that another task lets complete."""

    def __init__(self) -> None:
        self.started, self.allowed, self.completed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self) -> str:
        """Complete when it is allowed."""
        self.started.set()
        await self.allowed.wait()
        self.completed.set()
        return "done"


async def test_a_cancellation_waits_for_the_work() -> None:
    work = Work()
    task = asyncio.create_task(to_completion(work.run()))
    await work.started.wait()
    task.cancel()
    asyncio.get_running_loop().call_soon(work.allowed.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.completed.is_set()


async def test_a_failure_waits_for_the_other_work() -> None:
    async def fail() -> None:
        await work.started.wait()
        asyncio.get_running_loop().call_later(0.05, work.allowed.set)  # after the failure
        raise OSError("refused")

    work = Work()
    with pytest.raises(OSError, match="refused"):
        await to_completion(work.run(), fail())
    assert work.completed.is_set()


async def test_the_results_are_in_the_order_of_the_works() -> None:
    work = Work()
    work.allowed.set()
    assert await to_completion(asyncio.sleep(0, 1), work.run()) == [1, "done"]

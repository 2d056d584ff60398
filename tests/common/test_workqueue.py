"""The work queue's promises, with `asyncio` tasks as the workers."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.common.kubernetes import WorkQueue


async def test_a_key_is_queued_once_and_never_in_two_hands() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.add("a")
    assert len(queue) == 0, "it is being worked on"
    queue.done("a")
    assert await queue.get() == "a", "it changed meanwhile, and is handed out again"


async def test_a_failed_key_comes_back_until_it_is_well() -> None:
    queue: WorkQueue[str] = WorkQueue(first_delay=0.001)
    tries: list[str] = []
    well = asyncio.Event()

    async def reconcile(key: str) -> None:
        tries.append(key)
        if len(tries) < 4:
            raise LookupError("not yet")
        well.set()

    worker = asyncio.create_task(queue.work(reconcile))
    queue.add("a")
    await well.wait()
    worker.cancel()
    assert tries == ["a"] * 4


async def test_an_earlier_time_stands() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.01)
    queue.add_after("a", 3600)
    assert await queue.get() == "a"


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_every_key_added_is_handed_out_after_its_last_addition(keys: list[str]) -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        pending: set[str] = set()
        for number, key in enumerate(keys):
            queue.add(key)
            pending.add(key)
            if number % 3 == 2:
                taken = await queue.get()
                pending.discard(taken)
                queue.done(taken)
        while pending:
            taken = await queue.get()
            pending.discard(taken)
            queue.done(taken)
        assert len(queue) == 0

    asyncio.run(scenario())

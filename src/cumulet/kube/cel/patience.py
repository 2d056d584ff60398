"""Evaluation of expensive expressions outside the server's event loop.

Most evaluations take less than a millisecond and run on the loop. A longer one starts again in a thread, one at a time,
so that the server stays responsive. Its budget limits it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from cumulet.kube.cel.environment import Budget, LengthyError

P = ParamSpec("P")
T = TypeVar("T")
#: The cost limit on the event loop: some ten milliseconds.
_QUICK = 20_000
#: Seconds to wait for the loop before it counts as stopped.
_ANSWER = 30
_THREAD = ThreadPoolExecutor(1, "expressions")


async def within(most: int, work: Callable[[Budget], T]) -> T:
    """Return the result of `work` with a budget. It can run twice, the second time in another thread."""
    try:
        return work(Budget(most, _QUICK))
    except LengthyError:
        return await asyncio.get_running_loop().run_in_executor(_THREAD, work, Budget(most))


def from_loop(call: Callable[P, T]) -> Callable[P, T]:
    """Return a function that any thread can call and that runs in the current event loop."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()

    def called(*args: P.args, **options: P.kwargs) -> T:
        if threading.get_ident() == thread:
            return call(*args, **options)
        answer: Future[T] = Future()

        def answering() -> None:
            try:
                answer.set_result(call(*args, **options))
            except Exception as error:
                answer.set_exception(error)

        loop.call_soon_threadsafe(answering)
        return answer.result(_ANSWER)

    return called

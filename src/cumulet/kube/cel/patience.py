"""Evaluations that take long, beside the server's loop.

Most take less than a millisecond, and are done where they are asked for. One that does not is begun again in a thread,
one at a time, so that requests are answered meanwhile; its budget is its end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from cumulet.kube.cel.environment import Budget, LengthyError

T = TypeVar("T")
#: What is evaluated at once: some ten milliseconds.
_QUICK = 20_000
#: Seconds until the loop is taken to have ended.
_ANSWER = 30
_THREAD = ThreadPoolExecutor(1, "expressions")


async def within(most: int, work: Callable[[Budget], T]) -> T:
    """What `work` makes with a budget; it may be called twice, and in another thread."""
    try:
        return work(Budget(most, _QUICK))
    except LengthyError:
        return await asyncio.get_running_loop().run_in_executor(_THREAD, work, Budget(most))


def from_loop(call: Callable[..., Any]) -> Callable[..., Any]:
    """A function that runs in the loop of now, wherever it is called from."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()

    def called(*args: Any) -> Any:
        if threading.get_ident() == thread:
            return call(*args)
        answer: Future[Any] = Future()

        def answering() -> None:
            try:
                answer.set_result(call(*args))
            except Exception as error:
                answer.set_exception(error)

        loop.call_soon_threadsafe(answering)
        return answer.result(_ANSWER)

    return called

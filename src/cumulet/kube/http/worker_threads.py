"""Work on large bodies and objects in threads, so that the event loop goes on serving other requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
#: The size of a body, in bytes, from which work on it would hold up other requests.
LARGE = 128 * 1024
#: The same for YAML, which is slower to decode.
LARGE_YAML = 16 * 1024
_THREADS = ThreadPoolExecutor(2, "large")


async def offload(size: int, work: Callable[[], T], least: int = LARGE) -> T:
    """Return the result of `work` on a body of `size` bytes: run at once, or in a thread from `least` bytes on."""
    if size < least:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work)

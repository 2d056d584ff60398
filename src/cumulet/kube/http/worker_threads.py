"""Work on large bodies and objects beside the server's loop, so that other requests are answered meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
#: Bytes of a body from which on it takes longer than others should wait.
LARGE = 128 * 1024
#: The same of YAML, which is slower to read.
LARGE_YAML = 16 * 1024
_THREADS = ThreadPoolExecutor(2, "large")


async def aside(size: int, work: Callable[[], T], least: int = LARGE) -> T:
    """What `work` makes of a body of a size, at once or, where that is large, in a thread."""
    if size < least:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work)

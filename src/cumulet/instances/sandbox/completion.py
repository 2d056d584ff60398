"""Work that neither a cancellation nor another failure must interrupt halfway: processes and threads go on after both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def to_completion(*works: Awaitable[object]) -> list[object]:
    """Run works at the same time; return their results.

    It waits for all of them, also when it is cancelled or one fails. Otherwise a removal would run at the same time as they.
    """
    all_works = asyncio.gather(*works, return_exceptions=True)
    try:
        results = await asyncio.shield(all_works)
    except asyncio.CancelledError:
        await all_works
        raise
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results

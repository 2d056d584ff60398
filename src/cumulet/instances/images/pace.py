"""Stops a download that stalls, or trickles to hold its place."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

from cumulet.instances.images.errors import Fault, PullError

#: A download must bring `_RATE` bytes a second on average, over each `_WINDOW` seconds in which this machine waits for it.
_WINDOW = 60.0
_RATE = 1024


async def paced(
    pieces: AsyncIterator[bytes], clock: Callable[[], float] = time.monotonic, window: float = _WINDOW
) -> AsyncIterator[bytes]:
    """Pass pieces on. The time in which the consumer works does not count. Raises `PullError`."""
    waited, brought = 0.0, 0
    before = clock()
    async for piece in pieces:
        waited += clock() - before
        brought += len(piece)
        if waited >= window:
            if brought < _RATE * waited:
                raise PullError(
                    f"pulling was canceled because of no progress: {brought} bytes in {waited:.0f} s",
                    Fault.INTERRUPTED,
                )
            waited, brought = 0.0, 0
        yield piece
        before = clock()

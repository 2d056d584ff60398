"""Passes bytes from the event loop to a thread, through a bounded queue."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_AHEAD = 16


class HandoverEndedError(Exception):
    """The reader ended before the writer."""


class HandoverAbortedError(OSError):
    """The writer stopped early; the reader has a part of the data only."""


class Handover:
    """One writer on the event loop, one reader on a thread. The reader holds `working` except while it waits for data."""

    def __init__(self, working: threading.Semaphore) -> None:
        self._working = working
        self._loop = asyncio.get_running_loop()
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(_AHEAD)
        self._reader_ended = False

    async def write(self, piece: bytes) -> None:
        """Pass a piece, and wait while the queue is full. Raises `HandoverEndedError`."""
        await self._room.acquire()
        if self._reader_ended:
            raise HandoverEndedError
        self._pieces.put(piece)

    def close(self) -> None:
        """End the data."""
        self._pieces.put(b"")

    def abort(self) -> None:
        """End the data early; the reader gets an error."""
        self._pieces.put(None)

    def reader_ended(self) -> None:
        """Record that the reader has ended."""
        self._reader_ended = True
        self._room.release()

    def run(
        self, read: Callable[Concatenate[Callable[[], bytes], _P], _T], *arguments: _P.args, **named: _P.kwargs
    ) -> _T:
        """Call the reader, on the thread. Its first argument returns the next piece, and `b""` at the end.

        That argument raises `HandoverAbortedError`.
        """
        with self._working:
            return read(self._read, *arguments, **named)

    def _read(self) -> bytes:
        self._working.release()
        try:
            piece = self._pieces.get()
        finally:
            self._working.acquire()
        if piece is None:
            raise HandoverAbortedError("the download was broken off")
        if piece:
            self._loop.call_soon_threadsafe(self._room.release)
        else:
            self._pieces.put(b"")  # later reads return the end again
        return piece

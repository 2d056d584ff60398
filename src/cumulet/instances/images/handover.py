"""Handing bytes from the event loop to a thread that reads them as a file, with no more than a few pieces between."""

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
    """The reader has ended before the writer."""


class HandoverAbortedError(OSError):
    """The writer gave up; what was read is not all."""


class Handover:
    """One writer on the event loop, one reader on a thread, which holds `working` except while it waits for a piece."""

    def __init__(self, working: threading.Semaphore) -> None:
        self._working = working
        self._loop = asyncio.get_running_loop()
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(_AHEAD)
        self._reader_ended = False

    async def write(self, piece: bytes) -> None:
        """Hand over a piece, waiting while the reader is behind. Raises `HandoverEndedError`."""
        await self._room.acquire()
        if self._reader_ended:
            raise HandoverEndedError
        self._pieces.put(piece)

    def close(self) -> None:
        """That was all."""
        self._pieces.put(b"")

    def abort(self) -> None:
        """That was not all, and there is no more."""
        self._pieces.put(None)

    def reader_ended(self) -> None:
        """Nobody reads any more."""
        self._reader_ended = True
        self._room.release()

    def run(
        self, read: Callable[Concatenate[Callable[[], bytes], _P], _T], *arguments: _P.args, **named: _P.kwargs
    ) -> _T:
        """For the thread: call the reader, whose first argument gives the next piece, and nothing at the end.

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
            self._pieces.put(b"")  # the end stays the end, however often it is asked for
        return piece

"""Handing bytes from the event loop to a thread that reads them as a file, with no more than a few pieces between."""

from __future__ import annotations

import asyncio
import queue

_AHEAD = 16


class HandoverEndedError(Exception):
    """The reader has ended before the writer."""


class HandoverAbortedError(OSError):
    """The writer gave up; what was read is not all."""


class Handover:
    """One writer on the event loop, one reader on a thread."""

    def __init__(self) -> None:
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

    def read(self) -> bytes:
        """For the thread: the next piece, nothing at the end. Raises `HandoverAbortedError`."""
        piece = self._pieces.get()
        if piece is None:
            raise HandoverAbortedError("the download was broken off")
        if piece:
            self._loop.call_soon_threadsafe(self._room.release)
        else:
            self._pieces.put(b"")  # the end stays the end, however often it is asked for
        return piece

"""Threads that transfer data over the TLS connections of an event loop: send a part of a file, or receive a body."""

from __future__ import annotations

import asyncio
import contextlib
import math
import mmap
import os
import queue
import select
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: The part of a file that is mapped at once. Mapping has a cost, and mapped pages count as the process's memory.
_WINDOW = 8 * 1024 * 1024
#: The size of a received piece: large compared to the cost of a call, small enough for a processor's cache.
_PIECE = 256 * 1024
#: Seconds that a thread waits for a slow peer, and that it works for a fast one, before it serves another connection.
_PATIENCE, _TURN = 0.02, 0.5


class Work(ABC):
    """A long transfer over one connection, in steps.

    `left` is the number of remaining bytes. Between two steps, the event loop waits until the peer has sent `awaited`
    bytes, or if that is 0, until it has read data.
    """

    left: int
    awaited = 0

    @abstractmethod
    def step(self, connection: ssl.SSLSocket) -> bool:
        """Continue in a thread until the transfer is complete or the peer is slow. Returns whether it is complete.

        Raises `ConnectionError` if the connection is lost.
        """


class Outgoing(Work):
    """Sends a part of a file. Only a window of it is mapped, and only while a thread sends."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self.left = length
        self._descriptor = descriptor
        self._end = start + length
        self._begun = False  # whether OpenSSL must get the same window again

    def step(self, connection: ssl.SSLSocket) -> bool:
        ends = time.monotonic() + _TURN
        while self.left:
            if time.monotonic() > ends:
                return False
            length = min(_WINDOW, self.left)
            if not self._send(connection, self._end - self.left, length):
                return False
            self.left -= length
            self._begun = False
        return True

    def _send(self, connection: ssl.SSLSocket, start: int, length: int) -> bool:
        skip = start % mmap.ALLOCATIONGRANULARITY
        flags = mmap.MAP_SHARED if self._begun else mmap.MAP_SHARED | mmap.MAP_POPULATE
        where = {"flags": flags, "prot": mmap.PROT_READ, "offset": start - skip}
        self._begun = True
        with (
            mmap.mmap(self._descriptor, length + skip, **where) as mapped,
            memoryview(mapped) as view,
            view[skip:] as window,
        ):
            while True:
                try:
                    connection.send(window)
                except ssl.SSLWantWriteError:
                    if not _ready(connection, select.POLLOUT, _PATIENCE):
                        return False
                except OSError as error:
                    raise ConnectionResetError("the peer has stopped reading") from error
                else:
                    return True


class Incoming(Work):
    """Receives the next `length` bytes and passes them to `take`, in pieces that are valid only while it runs.

    A slow peer occupies no thread: the event loop waits until half a piece has arrived.
    """

    def __init__(self, length: int, take: Callable[[memoryview], None]) -> None:
        self.left = length
        self._take = take
        self._buffer = memoryview(bytearray(min(length, _PIECE)))
        self._patience = _PATIENCE

    def step(self, connection: ssl.SSLSocket) -> bool:
        """Receive. Also raises the exceptions of `take`. Data before the end of the connection is passed to `take`."""
        before, began = self.left, time.monotonic()
        while self.left:
            if not self._fill(connection, began + self._patience) or time.monotonic() > began + _TURN:
                self._patience = _PATIENCE if before - self.left >= _PIECE else 0.0
                # At least this much is outstanding, even if OpenSSL has buffered a part of a record.
                self.awaited = _PIECE // 2 if self.left > _PIECE else 1
                return not self.left
        return True

    def _fill(self, connection: ssl.SSLSocket, until: float) -> bool:
        """Receive one piece. Returns whether it is complete."""
        filled, size = 0, min(self.left, len(self._buffer))
        try:
            while filled < size:
                try:
                    read = connection.recv_into(self._buffer[filled:size])
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    if not _ready(connection, select.POLLIN, until - time.monotonic()):
                        return False
                except OSError as error:
                    raise ConnectionResetError("the peer has stopped sending") from error
                else:
                    if not read:
                        raise ConnectionResetError("the peer has sent less than it announced")
                    filled += read
        finally:
            self.left -= filled
            if filled:
                self._take(self._buffer[:filled])
        return True


class Threads:
    """The threads of one event loop.

    `concurrent.futures` adds about 0.2 ms to each call, as much as the time to send a megabyte.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._steps: queue.SimpleQueue[tuple[Work, ssl.SSLSocket, asyncio.Future[bool]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def step(self, work: Work, connection: ssl.SSLSocket) -> asyncio.Future[bool]:
        """Run one step of a transfer in a thread. The future must not be cancelled."""
        if not self._threads:
            self._start()
        done: asyncio.Future[bool] = self._loop.create_future()
        self._steps.put((work, connection, done))
        return done

    def close(self) -> None:
        """Stop the threads after the queued steps."""
        for _ in self._threads:
            self._steps.put(None)

    def _start(self) -> None:
        """Start more threads than processors, because some wait for their peers."""
        for number in range(min(4 * (os.cpu_count() or 1), 32)):
            self._threads.append(threading.Thread(target=self._run, name=f"tls-{number}", daemon=True))
            self._threads[-1].start()

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            work, connection, done = step
            try:
                result = work.step(connection)
            except BaseException as error:
                self._report(done.set_exception, error)
            else:
                self._report(done.set_result, result)
            del step, work, connection, done

    def _report(self, callback: Callable[[T], None], value: T) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(callback, value)


def _ready(connection: ssl.SSLSocket, event: int, seconds: float) -> bool:
    if seconds <= 0:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), event)
    return bool(poll.poll(math.ceil(seconds * 1000)))

"""What threads do with a TLS connection that they are lent: send a part of a file, or take in a body."""

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
from typing import Any

#: How much of a file is mapped at once: mapping costs, and what is mapped counts as the process's memory.
_WINDOW = 8 * 1024 * 1024
#: What is taken in at once: much enough that a call for it does not count, and it stays in a processor's cache.
_PIECE = 256 * 1024
#: Seconds that a thread waits for a slow peer before it serves another connection, and works for a fast one.
_PATIENCE, _TURN = 0.02, 0.5


class Work(ABC):
    """Something long to do with one connection, in steps.

    `left` are the bytes to go. Between two steps the other end is waited for: until it has sent `awaited` bytes, or where
    that is 0, until it has read something.
    """

    left: int
    awaited = 0

    @abstractmethod
    def step(self, connection: ssl.SSLSocket) -> bool:
        """In a thread: go on until all is done, or the other end is slow; whether all is done.

        Raises `ConnectionError` where the connection is lost.
        """


class Outgoing(Work):
    """A part of a file that is to be sent. Of it only a window is mapped, and only while a thread sends."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self.left = length
        self._descriptor = descriptor
        self._end = start + length
        self._begun = False  # OpenSSL is to be offered the same again

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
            view[skip:] as wanted,
        ):
            while True:
                try:
                    connection.send(wanted)
                except ssl.SSLWantWriteError:
                    if not _ready(connection, select.POLLOUT, _PATIENCE):
                        return False
                except OSError as error:
                    raise ConnectionResetError("the other end does not read on") from error
                else:
                    return True


class Incoming(Work):
    """The next `length` bytes of a connection. They go to `take`, in pieces that are good only while it runs.

    Who sends slowly is waited for on the event loop, until half a piece is there, and holds no thread.
    """

    def __init__(self, length: int, take: Callable[[memoryview], None]) -> None:
        self.left = length
        self._take = take
        self._buffer = memoryview(bytearray(min(length, _PIECE)))
        self._patience = _PATIENCE

    def step(self, connection: ssl.SSLSocket) -> bool:
        """Besides raises what `take` raises; what came before the end of a connection has been taken."""
        before, began = self.left, time.monotonic()
        while self.left:
            if not self._fill(connection, began + self._patience) or time.monotonic() > began + _TURN:
                self._patience = _PATIENCE if before - self.left >= _PIECE else 0.0
                # That much is still to come, also where OpenSSL has some of a record already.
                self.awaited = _PIECE // 2 if self.left > _PIECE else 1
                return not self.left
        return True

    def _fill(self, connection: ssl.SSLSocket, until: float) -> bool:
        """Take a piece; whether it was a full one."""
        filled, wanted = 0, min(self.left, len(self._buffer))
        try:
            while filled < wanted:
                try:
                    read = connection.recv_into(self._buffer[filled:wanted])
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    if not _ready(connection, select.POLLIN, until - time.monotonic()):
                        return False
                except OSError as error:
                    raise ConnectionResetError("the other end does not send on") from error
                else:
                    if not read:
                        raise ConnectionResetError("the other end has sent less than it said")
                    filled += read
        finally:
            self.left -= filled
            if filled:
                self._take(self._buffer[:filled])
        return True


class Threads:
    """Threads that work for one event loop.

    `concurrent.futures` does the same, at some 0.2 ms for each handing over and back, which is what sending a megabyte takes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._steps: queue.SimpleQueue[tuple[Work, ssl.SSLSocket, asyncio.Future[bool]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def step(self, work: Work, connection: ssl.SSLSocket) -> asyncio.Future[bool]:
        """Do a step; the future must not be cancelled."""
        if not self._threads:
            self._start()
        done: asyncio.Future[bool] = self._loop.create_future()
        self._steps.put((work, connection, done))
        return done

    def close(self) -> None:
        """Let the threads end."""
        for _ in self._threads:
            self._steps.put(None)

    def _start(self) -> None:
        """More threads than processors, since some wait for the other end."""
        for number in range(min(4 * (os.cpu_count() or 1), 32)):
            self._threads.append(threading.Thread(target=self._run, name=f"tls-{number}", daemon=True))
            self._threads[-1].start()

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            work, connection, done = step
            try:
                result = work.step(connection)
            except BaseException as error:
                self._tell(done.set_exception, error)
            else:
                self._tell(done.set_result, result)
            del step, work, connection, done

    def _tell(self, tell: Callable[[Any], None], what: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(tell, what)


def _ready(connection: ssl.SSLSocket, event: int, seconds: float) -> bool:
    if seconds <= 0:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), event)
    return bool(poll.poll(math.ceil(seconds * 1000)))

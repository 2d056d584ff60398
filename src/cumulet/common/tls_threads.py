"""What threads do with a TLS connection that they are lent: send a part of a file, or take in a body."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import queue
import select
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

#: How much of a file is mapped at once: mapping costs, and what is mapped counts as the process's memory.
_WINDOW = 8 * 1024 * 1024
#: What is taken in at once: much enough that a call for it does not count, and it stays in a processor's cache.
_PIECE = 256 * 1024
#: Milliseconds that a thread waits for a slow peer before it serves another connection.
_PATIENCE = 20


class Work(ABC):
    """Something long to do with one connection, in steps."""

    #: What the other end is waited for between two steps: that it sends, or that it reads.
    reads: bool

    @abstractmethod
    def step(self, connection: ssl.SSLSocket) -> bool:
        """In a thread: go on until all is done, or the other end is slow; whether all is done.

        Raises `ConnectionError` where the connection is lost.
        """


class Outgoing(Work):
    """A part of a file that is to be sent. Of it only a window is mapped, and only while a thread sends."""

    reads = False

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._end = start + length
        self._begun = False  # OpenSSL is to be offered the same again

    def step(self, connection: ssl.SSLSocket) -> bool:
        while self._start < self._end:
            length = min(_WINDOW, self._end - self._start)
            if not self._send(connection, length):
                return False
            self._start += length
            self._begun = False
        return True

    def _send(self, connection: ssl.SSLSocket, length: int) -> bool:
        skip = self._start % mmap.ALLOCATIONGRANULARITY
        flags = mmap.MAP_SHARED if self._begun else mmap.MAP_SHARED | mmap.MAP_POPULATE
        where = {"flags": flags, "prot": mmap.PROT_READ, "offset": self._start - skip}
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
                    if not _ready(connection, select.POLLOUT):
                        return False
                except OSError as error:
                    raise ConnectionResetError("the other end does not read on") from error
                else:
                    return True


class Incoming(Work):
    """The next `length` bytes of a connection. They go to `take`, in pieces that are good only while it runs."""

    reads = True

    def __init__(self, length: int, take: Callable[[memoryview], None]) -> None:
        self.left = length
        self._take = take
        self._buffer = memoryview(bytearray(min(length, _PIECE)))

    def step(self, connection: ssl.SSLSocket) -> bool:
        """Besides raises what `take` raises; what came before the end of a connection has been taken."""
        while self.left:
            filled, slow = 0, False
            try:
                wanted = min(self.left, len(self._buffer))
                while filled < wanted and not slow:
                    try:
                        read = connection.recv_into(self._buffer[filled:wanted])
                    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                        slow = not _ready(connection, select.POLLIN)
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
            if slow:
                return False
        return True


class Threads:
    """Threads that work for one event loop.

    `concurrent.futures` does the same, at some 0.2 ms for each handing over and back, which is what sending a megabyte takes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """More threads than processors, since some wait for the other end."""
        self._loop = loop
        self._steps: queue.SimpleQueue[tuple[Work, ssl.SSLSocket, asyncio.Future[bool]] | None] = queue.SimpleQueue()
        self._number = min(4 * (os.cpu_count() or 1), 32)
        for number in range(self._number):
            threading.Thread(target=self._run, name=f"tls-{number}", daemon=True).start()

    def step(self, work: Work, connection: ssl.SSLSocket) -> asyncio.Future[bool]:
        """Do a step; the future must not be cancelled."""
        done: asyncio.Future[bool] = self._loop.create_future()
        self._steps.put((work, connection, done))
        return done

    def close(self) -> None:
        """Let the threads end."""
        for _ in range(self._number):
            self._steps.put(None)

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


def _ready(connection: ssl.SSLSocket, event: int) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), event)
    return bool(poll.poll(_PATIENCE))

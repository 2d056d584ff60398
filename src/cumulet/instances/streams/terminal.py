"""A terminal (pty(7)) for a process in a container.

The room reads and writes its end on the event loop. A thread that waits for a terminal would be missing from the pool
that all groups share, and a user can leave any number of terminals open.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Callable

_CHUNK = 64 * 1024
#: The largest width and height (`struct winsize`).
_LARGEST = 0xFFFF


class Terminal:
    """The room's end of a terminal, until `close`. One task reads and one writes.

    `slave` is the descriptor of the process's end. The caller closes it. Raises `OSError` where there are no more terminals.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor, self.slave = pty.openpty()
        os.set_blocking(self._descriptor, False)
        self._closed = asyncio.Event()

    async def read(self) -> bytes:
        """Return the output that is there, at least one byte; none after the process's end was closed, or this one."""
        while not self._closed.is_set():
            try:
                return os.read(self._descriptor, _CHUNK)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError:
                break  # EIO: no process has the other end
        return b""

    async def write(self, data: bytes) -> None:
        """Write input, and wait while the terminal takes no more."""
        while data and not self._closed.is_set():
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except OSError:
                break

    def resize(self, columns: int, rows: int) -> None:
        """Set the size. A size that no terminal has is ignored."""
        if 0 <= columns <= _LARGEST and 0 <= rows <= _LARGEST and not self._closed.is_set():
            fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Close the room's end. The kernel then hangs up on the process."""
        if not self._closed.is_set():
            # The loop must not watch a descriptor whose number another file may have next.
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._closed.set()
            os.close(self._descriptor)

    async def _ready(self, add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool]) -> None:
        """Wait until the descriptor can be read or written, or is closed."""
        ready = asyncio.Event()
        add(self._descriptor, ready.set)
        waiting = [asyncio.ensure_future(event.wait()) for event in (ready, self._closed)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for item in waiting:
                item.cancel()
            if not self._closed.is_set():
                remove(self._descriptor)

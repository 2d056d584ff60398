"""The standard input and the terminal of a running container, through the socket and the pipe of its conmon.

conmon sends the container's output to every client of its socket, and waits for them. The output is read from the log, so what
comes from the socket is discarded.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from pathlib import Path

from cumulet.instances.runtime.conmon import control_pipe

#: A longer message is cut by conmon, which reads 32 KiB.
_CHUNK = 16 * 1024
_SOCKET = "attach"
_LARGEST = 0xFFFF
#: Looks at whether conmon has read a size, and seconds between two.
_CHECKS, _BETWEEN = 200, 0.005


class AttachedInput:
    """The input of the container whose bundle is that folder, until `close`."""

    def __init__(self, bundle: Path, connected: socket.socket) -> None:
        self._bundle = bundle
        self._socket = connected
        self._discarding = asyncio.create_task(self._discard())

    @classmethod
    async def open(cls, bundle: Path) -> AttachedInput:
        """Connect to the conmon of a container. Raises `OSError` if it has ended."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.setblocking(False)
        folder = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The address of a socket has at most 107 characters.
            await asyncio.get_running_loop().sock_connect(made, f"/proc/self/fd/{folder}/{_SOCKET}")
        except BaseException:
            made.close()
            raise
        finally:
            os.close(folder)
        return cls(bundle, made)

    async def write(self, data: bytes) -> None:
        """Write input. Empty data ends it: conmon closes the container's input, unless other attachments may follow."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # the container has ended in the meantime
            for at in range(0, len(data), _CHUNK):
                await loop.sock_sendall(self._socket, data[at : at + _CHUNK])
            if not data:
                self._socket.shutdown(socket.SHUT_WR)

    async def resize(self, columns: int, rows: int) -> None:
        """Set the size of the container's terminal. A size that no terminal has is ignored."""
        if not (0 <= columns <= _LARGEST and 0 <= rows <= _LARGEST):
            return
        with contextlib.suppress(OSError):
            pipe = os.open(control_pipe(self._bundle), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(pipe, f"1 {rows} {columns}\n".encode())
                # Of two sizes that it reads at once, conmon takes the first. Nothing tells when it has read one.
                for _ in range(_CHECKS):
                    if not _unread(pipe):
                        break
                    await asyncio.sleep(_BETWEEN)
            finally:
                os.close(pipe)

    def close(self) -> None:
        """Disconnect."""
        self._discarding.cancel()
        self._socket.close()

    async def _discard(self) -> None:
        with contextlib.suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(self._socket, _CHUNK):
                pass


def _unread(pipe: int) -> int:
    """Return the number of bytes in a pipe."""
    (count,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(count)

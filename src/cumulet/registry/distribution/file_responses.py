"""Responses whose body is a file or is in memory already.

With TLS of our own a thread sends the file (`common.tls_transport`). With the event loop's, pieces of it are read in a
thread and written on the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import IO

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

#: Bytes of a file that are written at once.
_PIECE = 256 * 1024

#: Told at the end of an answer, with whether all of it went.
Sent = Callable[[bool], None]


class FileResponse(web.StreamResponse):
    """The bytes of a file from `first` up to `after`. `headers` are complete, `Content-Length` among them.

    aiohttp's own opens and looks at the file in two threads and has ideas of its own about ranges.
    """

    def __init__(self, status: int, headers: Mapping[str, str], path: Path, first: int, after: int) -> None:
        super().__init__(status=status, headers=headers)
        self.path = path
        self.first = first
        self.after = after
        self.sent: Sent | None = None
        self._asked: web.BaseRequest | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the head."""
        self._asked = request
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the file, then the end."""
        request = self._asked
        complete = False
        try:
            if request is not None and request.method != "HEAD":
                await _send(request, self.path, self.first, self.after)
            await super().write_eof(data)
            complete = True
        finally:
            if self.sent is not None:
                self.sent(complete)


class ReadyResponse(web.StreamResponse):
    """A GET's answer of which everything but `Date` is at hand: a head, and a small body or a file."""

    def __init__(self, head: bytes, body: bytes, path: Path | None, after: int, sent: Sent) -> None:
        super().__init__()
        self._head = head
        self._small = body
        self._path = path
        self._after = after
        self._sent = sent
        self._asked: web.BaseRequest | None = None

    @property
    def keep_alive(self) -> bool:
        """Only requests that keep their connection are answered so."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send all but a file."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the connection was lost")
        transport.write(b"".join((self._head, _date(), self._small)))
        self._asked = request
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the file where there is one."""
        complete = False
        try:
            if self._path is not None and self._asked is not None:
                await _send(self._asked, self._path, 0, self._after)
            complete = True
        finally:
            self._sent(complete)


async def _send(request: web.BaseRequest, path: Path, first: int, after: int) -> None:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the connection was lost")
    with path.open("rb", buffering=0) as file:
        try:
            await asyncio.get_running_loop().sendfile(transport, file, first, after - first)
        except NotImplementedError:  # the event loop's own TLS
            await _write(request, file, first, after)


async def _write(request: web.BaseRequest, file: IO[bytes], first: int, after: int) -> None:
    """Send a part of a file in pieces. Raises `ConnectionResetError`."""
    file.seek(first)
    left = after - first
    while left:
        piece = await asyncio.to_thread(file.read, min(_PIECE, left))
        transport = request.transport
        if not piece or transport is None or transport.is_closing():
            raise ConnectionResetError("the connection was lost" if piece else "the file is shorter than it was")
        transport.write(piece)
        await request.writer.drain()
        left -= len(piece)


_shown: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The header `Date` (RFC 9110, section 6.6.1) and the end of the head."""
    global _shown
    now = int(time.time())
    if _shown[0] != now:
        _shown = now, f"Date: {formatdate(now, usegmt=True)}\r\n\r\n".encode()
    return _shown[1]

"""Responses whose body is a file or is in memory already.

With TLS on the socket a thread sends the file (`common.tls_transport`). With the event loop's TLS, a thread reads pieces of
the file and the loop writes them.
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

#: The bytes of a file in one write.
_PIECE = 256 * 1024

#: Called at the end of a response, with whether all of it was sent.
Sent = Callable[[bool], None]


class FileResponse(web.StreamResponse):
    """The bytes of a file from `first` up to `after`. `headers` are complete, including `Content-Length`.

    aiohttp's `FileResponse` opens the file and reads its status in two threads, and handles ranges itself.
    """

    def __init__(self, status: int, headers: Mapping[str, str], path: Path, first: int, after: int) -> None:
        super().__init__(status=status, headers=headers)
        self.path = path
        self.first = first
        self.after = after
        self.sent: Sent | None = None
        self._request: web.BaseRequest | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the head."""
        self._request = request
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the file and end the response."""
        request = self._request
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
    """A response to a GET that is complete except for `Date`: a head, and a small body or a file."""

    def __init__(self, head: bytes, body: bytes, path: Path | None, after: int, sent: Sent) -> None:
        super().__init__()
        self._head = head
        self._small = body
        self._path = path
        self._after = after
        self._sent = sent
        self._request: web.BaseRequest | None = None

    @property
    def keep_alive(self) -> bool:
        """True: only requests that keep their connection open get this response."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the head and a body in memory."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the connection was lost")
        transport.write(b"".join((self._head, _date(), self._small)))
        self._request = request
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the file, if there is one."""
        complete = False
        try:
            if self._path is not None and self._request is not None:
                await _send(self._request, self._path, 0, self._after)
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


_date_header: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The header `Date` (RFC 9110, section 6.6.1) and the end of the head, cached for a second."""
    global _date_header
    now = int(time.time())
    if _date_header[0] != now:
        _date_header = now, f"Date: {formatdate(now, usegmt=True)}\r\n\r\n".encode()
    return _date_header[1]

"""Upgrading HTTP connections to other protocols (RFC 9110, section 7.8), for servers and clients.

aiohttp itself handles WebSockets. Its parser leaves the bytes of other protocols to the code that takes the connection over.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from cumulet.common.ascii import fold

#: Buffered bytes at which reading from the connection pauses.
_BUFFER = 128 * 1024
_HEAD_LIMIT = 64 * 1024
_BODY_LIMIT = 64 * 1024
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_CLOSE_SECONDS = 5.0
_CHUNK = 64 * 1024


class Carrier(NamedTuple):
    """The two directions of an upgraded connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end. Raises `ConnectionError`."""
        return await self.reader.read(_CHUNK)

    async def send(self, data: bytes) -> None:
        """Send data, and wait while the peer is slow. Raises `ConnectionError`."""
        if self.writer.is_closing():
            raise ConnectionResetError("the connection is closed")
        self.writer.write(data)
        await self.writer.drain()

    async def close(self) -> None:
        """Send the buffered data and close. A connection that does not end in time is aborted."""
        self.writer.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            self.writer.transport.abort()


class RefusedError(Exception):
    """The server refused the upgrade, with this response."""

    def __init__(self, status: int, content_type: str, body: bytes) -> None:
        super().__init__(
            body[:1000].decode(errors="replace").strip() or f"{status} {http.client.responses.get(status, '')}"
        )
        self.status = status
        self.content_type = content_type
        self.body = body


class Upgraded(web.StreamResponse):
    """The response 101 to a request, after which its connection carries another protocol."""

    def __init__(self, protocol: str, headers: Mapping[str, str]) -> None:
        super().__init__(status=101, headers={"Connection": "Upgrade", "Upgrade": protocol, **headers})
        self.force_close()

    async def take(self, request: web.BaseRequest) -> Carrier:
        """Send the response, and take the connection over. Raises `ConnectionError`."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        await self.prepare(request)
        reader = asyncio.StreamReader(_BUFFER)
        protocol = _Takeover(reader, request)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        return Carrier(reader, _Writer(transport, protocol, reader, asyncio.get_running_loop()))


class _Takeover(asyncio.StreamReaderProtocol):
    """Reports the loss of the connection to aiohttp's protocol, which then cancels the handler.

    If the handler closed the connection itself, the report waits until the handler has ended.
    """

    def __init__(self, reader: asyncio.StreamReader, request: web.BaseRequest) -> None:
        super().__init__(reader)
        self._before = request.protocol
        self._handler = request.task
        self.closed_here = False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.closed_here:
            self._handler.add_done_callback(lambda _: self._before.connection_lost(exc))
        else:
            self._before.connection_lost(exc)


class _Writer(asyncio.StreamWriter):
    """Records that this end has closed the connection."""

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: _Takeover,
        reader: asyncio.StreamReader,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(transport, protocol, reader, loop)
        self._takeover = protocol

    def close(self) -> None:
        self._takeover.closed_here = True
        super().close()


@contextlib.asynccontextmanager
async def upgrade(
    url: URL, protocol: str, headers: CIMultiDict[str], context: ssl.SSLContext
) -> AsyncIterator[tuple[Carrier, Mapping[str, str]]]:
    """Request an upgrade by POST. Yields the connection and the headers of the response.

    Raises `RefusedError` if the server refuses, and `ConnectionError`, `OSError` or `TimeoutError` if there is no response.
    """
    async with asyncio.timeout(_CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(url.host, url.port, ssl=context, limit=_HEAD_LIMIT)
    carrier = Carrier(reader, writer)
    try:
        lines = [f"POST {url.raw_path_qs} HTTP/1.1", f"Host: {url.authority}", "Content-Length: 0"]
        lines += ["Connection: Upgrade", f"Upgrade: {protocol}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(_ANSWER_SECONDS):
            status, received = await _head(reader)
            if status != 101:
                raise RefusedError(status, received.get("Content-Type", "text/plain"), await _body(reader, received))
        yield carrier, received
    finally:
        await carrier.close()


async def _head(reader: asyncio.StreamReader) -> tuple[int, CIMultiDict[str]]:
    """Read the status and the headers of a response. Raises `ConnectionResetError`."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
        first, _, rest = raw.partition(b"\r\n")
        version, status, *_ = first.decode().split(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError("it is not HTTP/1")
        return int(status), CIMultiDict(http.client.parse_headers(io.BytesIO(rest)).items())
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, http.client.HTTPException) as error:
        raise ConnectionResetError(f"the response is not valid: {error}") from None


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """Read a short body of any framing (RFC 9112, section 6). A body that ends early is returned as far as it arrived."""
    body = b""
    try:
        if fold(headers.get("Transfer-Encoding", "")) == "chunked":
            while (size := int((await reader.readline()).partition(b";")[0], 16)) and len(body) < _BODY_LIMIT:
                body += (await reader.readexactly(size + 2))[:-2]
        else:
            length = int(headers.get("Content-Length", _BODY_LIMIT))
            while len(body) < min(length, _BODY_LIMIT) and (piece := await reader.read(length - len(body))):
                body += piece
    except (asyncio.IncompleteReadError, ValueError):
        pass  # the received part may contain the reason of the refusal
    return body

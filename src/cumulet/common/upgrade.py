"""HTTP connections that become something else (RFC 9110, section 7.8), as the bytes that they then carry.

For WebSockets there is aiohttp; its parser leaves other upgrades to whoever takes the connection over.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from cumulet.common.ascii import fold

#: Bytes that wait for a reader before the connection is read no more.
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
        """What comes next; nothing at the end. Raises `ConnectionError`."""
        return await self.reader.read(_CHUNK)

    async def send(self, data: bytes) -> None:
        """Send, and wait while the other end is slow. Raises `ConnectionError`."""
        if self.writer.is_closing():
            raise ConnectionResetError("the connection is closed")
        self.writer.write(data)
        await self.writer.drain()

    async def close(self) -> None:
        """Send what waits, and close; an end that takes too long over that is left."""
        self.writer.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            self.writer.transport.abort()


class RefusedError(Exception):
    """The server does not upgrade; what it answered instead."""

    def __init__(self, status: int, content_type: str, body: bytes) -> None:
        super().__init__(
            body[:1000].decode(errors="replace").strip() or f"{status} {http.client.responses.get(status, '')}"
        )
        self.status = status
        self.content_type = content_type
        self.body = body


class Upgraded(web.StreamResponse):
    """The answer 101 to a request, after which its connection carries other bytes."""

    def __init__(self, protocol: str, headers: Mapping[str, str]) -> None:
        super().__init__(status=101, headers={"Connection": "Upgrade", "Upgrade": protocol, **headers})
        self.force_close()

    async def take(self, request: web.BaseRequest) -> Carrier:
        """Send the answer, and take the connection over. Raises `ConnectionError`."""
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
    """Tells the one before it, whose connection it was, when that is lost: it cancels the handler.

    A handler that has closed the connection itself is let go on to its end, with whatever it has to return or to raise.
    """

    def __init__(self, reader: asyncio.StreamReader, request: web.BaseRequest) -> None:
        super().__init__(reader)
        self._before = request.protocol
        self._handler = request.task
        self.left = False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.left:
            self._handler.add_done_callback(lambda _: self._before.connection_lost(exc))
        else:
            self._before.connection_lost(exc)


class _Writer(asyncio.StreamWriter):
    """Notes that this end has closed the connection."""

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
        self._takeover.left = True
        super().close()


@contextlib.asynccontextmanager
async def upgrade(
    url: URL, protocol: str, headers: CIMultiDict[str], context: ssl.SSLContext
) -> AsyncIterator[tuple[Carrier, Mapping[str, str]]]:
    """Ask a server by POST to upgrade: the connection, and the headers of the answer.

    Raises `RefusedError` where it does not, `ConnectionError`, `OSError` and `TimeoutError` where it cannot be asked.
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
            status, answered = await _head(reader)
            if status != 101:
                raise RefusedError(status, answered.get("Content-Type", "text/plain"), await _body(reader, answered))
        yield carrier, answered
    finally:
        await carrier.close()


async def _head(reader: asyncio.StreamReader) -> tuple[int, Any]:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
        first, _, rest = raw.partition(b"\r\n")
        version, status, *_ = first.decode().split(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError("it is no HTTP")
        return int(status), http.client.parse_headers(io.BytesIO(rest))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, http.client.HTTPException) as error:
        raise ConnectionResetError(f"the answer cannot be read: {error}") from None


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """A short body, in one of the ways in which its length is told (RFC 9112, section 6)."""
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
        pass  # what has come says why, if anything does
    return body

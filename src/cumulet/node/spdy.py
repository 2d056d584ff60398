"""SPDY/3.1 frames, as far as Kubernetes' streams use them: the server's end of a connection that something carries.

Follows draft-mbelshe-httpbis-spdy-00 (framing, section 2; header compression, section 2.6.10). Flow control is not
part of how Kubernetes speaks it.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable

_VERSION = 3
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FIN = 1
_CONTROL = 0x8000_0000
_ID = 0x7FFF_FFFF
_FRAME_LIMIT = 16 * 1024 * 1024
_HEADERS_LIMIT = 64 * 1024
_STREAMS_LIMIT = 1000
_CHUNK = 32 * 1024
#: Bytes of a stream that wait for their reader before the connection does.
_BUFFER = 1024 * 1024

_WORDS = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
]
_MORE_WORDS = ["version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8"
    "charset=iso-8859-1,utf-,*,enq=0."
)
#: What both ends begin to compress headers with.
DICTIONARY = (
    b"".join(struct.pack(">I", len(word)) + word.encode() for word in [*_WORDS, "200 OK", *_MORE_WORDS])
    + _TAIL.encode()
)

Send = Callable[[bytes], Awaitable[None]]


class SpdyError(Exception):
    """The other end does not speak SPDY as it should."""


class Stream:
    """A stream that the client has opened, with its headers."""

    def __init__(self, connection: Connection, number: int, headers: dict[str, str]) -> None:
        self.number = number
        self.headers = headers
        #: Set when the stream, or its connection, is no more.
        self.reset = False
        #: Set when nobody will read it any more.
        self.forgotten = False
        self._connection = connection
        self._waiting = bytearray()
        self._ended = False
        self._changed = asyncio.Event()

    async def read(self) -> bytes:
        """What has come; empty at the end."""
        while not self._waiting and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        found = bytes(self._waiting)
        self._waiting.clear()
        self._connection.drained()
        return found

    async def write(self, data: bytes) -> None:
        """Send data."""
        for start in range(0, len(data), _CHUNK):
            await self._connection.send_data(self.number, data[start : start + _CHUNK], 0)

    async def close(self) -> None:
        """Say that no more data will be sent."""
        await self._connection.send_data(self.number, b"", _FIN)

    @property
    def full(self) -> bool:
        """Whether its reader lags far behind."""
        return len(self._waiting) >= _BUFFER and not self.forgotten

    def feed(self, data: bytes, *, end: bool) -> None:
        """Data has come."""
        self._waiting += data
        self._ended = self._ended or end
        self._changed.set()

    def abort(self) -> None:
        """The stream is no more."""
        self.reset = True
        self.feed(b"", end=True)


class Connection:
    """Takes in the bytes that something carries, answers through `send`, and hands over streams as they are opened."""

    def __init__(self, send: Send, opened: Callable[[Stream], None]) -> None:
        self._send = send
        self._opened = opened
        self._raw = bytearray()
        self._streams: dict[int, Stream] = {}
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._last = 0
        self._room = asyncio.Event()

    async def receive(self, raw: bytes) -> None:
        """Bytes have come. Waits while a stream's reader lags behind. Raises `SpdyError`."""
        self._raw += raw
        while len(self._raw) >= 8:
            first, rest = struct.unpack_from(">II", self._raw)
            length = rest & 0xFF_FFFF
            if length > _FRAME_LIMIT:
                raise SpdyError("a frame is too large")
            if len(self._raw) < 8 + length:
                return
            payload = bytes(self._raw[8 : 8 + length])
            del self._raw[: 8 + length]
            if first & _CONTROL:
                await self._control(first >> 16 & 0x7FFF, first & 0xFFFF, rest >> 24, payload)
            elif (stream := self._streams.get(first & _ID)) is not None:
                stream.feed(payload, end=bool(rest >> 24 & _FIN))
                while stream.full:
                    self._room.clear()
                    await self._room.wait()

    def drained(self) -> None:
        """A reader has taken what there was."""
        self._room.set()

    def close(self) -> None:
        """Whatever carried this is gone."""
        for stream in self._streams.values():
            stream.abort()
        self._streams.clear()
        self._room.set()

    async def send_data(self, number: int, data: bytes, flags: int) -> None:
        """Send a data frame of a stream."""
        await self._send(struct.pack(">II", number & _ID, flags << 24 | len(data)) + data)

    def forget(self, stream: Stream) -> None:
        """A stream is done with."""
        self._streams.pop(stream.number, None)
        stream.forgotten = True
        self._room.set()

    async def _control(self, version: int, kind: int, flags: int, payload: bytes) -> None:
        if version != _VERSION:
            raise SpdyError(f"version {version} is not spoken here")
        try:
            if kind == _SYN_STREAM:
                await self._open(flags, payload)
            elif kind == _RST_STREAM:
                (number,) = struct.unpack_from(">I", payload)
                if (stream := self._streams.pop(number & _ID, None)) is not None:
                    stream.abort()
            elif kind == _PING:
                await self._send(_frame(_PING, payload[:4]))
            elif kind == _GOAWAY:
                self.close()
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise SpdyError(str(error)) from None

    async def _open(self, flags: int, payload: bytes) -> None:
        (number,) = struct.unpack_from(">I", payload)
        number &= _ID
        headers = self._headers(payload[10:])
        if number <= self._last or number % 2 == 0:
            raise SpdyError(f"stream {number} is out of order")
        if len(self._streams) >= _STREAMS_LIMIT:
            raise SpdyError("there are too many streams")
        self._last = number
        stream = self._streams[number] = Stream(self, number, headers)
        if flags & _FIN:
            stream.feed(b"", end=True)
        block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        await self._send(_frame(_SYN_REPLY, struct.pack(">I", number) + block))
        self._opened(stream)

    def _headers(self, block: bytes) -> dict[str, str]:
        raw = self._inflate.decompress(block, _HEADERS_LIMIT)
        if self._inflate.unconsumed_tail:
            raise SpdyError("the headers are too long")
        (count,) = struct.unpack_from(">I", raw)
        position = 4
        found: dict[str, str] = {}
        for _ in range(count):
            texts = []
            for _ in range(2):
                (length,) = struct.unpack_from(">I", raw, position)
                position += 4
                texts.append(raw[position : position + length].decode())
                position += length
            found[texts[0].lower()] = texts[1]
        return found


def _frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">HHI", 0x8000 | _VERSION, kind, len(payload)) + payload

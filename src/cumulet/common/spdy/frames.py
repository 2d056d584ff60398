"""Encoding and decoding the frames of SPDY/3: draft-mbelshe-httpbis-spdy-00, sections 2.2 (framing) and 2.6 (control)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from enum import IntEnum

from cumulet.common.ascii import fold

VERSION = 3
CONTROL = 0x8000_0000
ID = 0x7FFF_FFFF
#: Flags: the sender closes its half of the stream; the receiver's half is closed from the start.
FIN, UNIDIRECTIONAL = 1, 2
#: The default size of a window (section 2.6.8).
WINDOW = 64 * 1024
#: The id of the setting for the initial window of streams (section 2.6.4).
INITIAL_WINDOW_SIZE = 7
_HEADERS_LIMIT = 64 * 1024


class Kind(IntEnum):
    """The types of control frames."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class Reset(IntEnum):
    """The reason for the reset of a stream (section 2.6.3)."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5
    FLOW_CONTROL_ERROR = 7
    STREAM_ALREADY_CLOSED = 9


class Away(IntEnum):
    """The reason for the end of a session (section 2.6.6)."""

    OK = 0
    PROTOCOL_ERROR = 1


class SpdyError(Exception):
    """The peer violates the protocol, and the session must end."""


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
#: The initial dictionary of the compression of headers (section 2.6.10.1).
DICTIONARY = (
    b"".join(struct.pack(">I", len(word)) + word.encode() for word in [*_WORDS, "200 OK", *_MORE_WORDS])
    + _TAIL.encode()
)


def control(kind: Kind, payload: bytes, flags: int = 0) -> bytes:
    """Return a control frame."""
    return struct.pack(">HHI", 0x8000 | VERSION, kind, flags << 24 | len(payload)) + payload


def data(number: int, payload: bytes, flags: int = 0) -> bytes:
    """Return a data frame. The payload must be smaller than 16 MiB."""
    return struct.pack(">II", number, flags << 24 | len(payload)) + payload


def numbers(payload: bytes, count: int) -> tuple[int, ...]:
    """Return the 32-bit numbers of a payload. Raises `SpdyError` if it has another length."""
    if len(payload) != 4 * count:
        raise SpdyError("a control frame has the wrong length")
    return struct.unpack(f">{count}I", payload)


def settings(payload: bytes) -> dict[int, int]:
    """Return the values of a SETTINGS frame by their id. Raises `SpdyError`."""
    if len(payload) < 4 or len(payload) != 4 + 8 * int.from_bytes(payload[:4]):
        raise SpdyError("a SETTINGS frame has the wrong length")
    return {name & 0xFF_FFFF: value for name, value in struct.iter_unpack(">II", payload[4:])}


class HeaderBlocks:
    """Name/value header blocks (section 2.6.10). All blocks of a direction form one compressed stream."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def encode(self, headers: Mapping[str, str]) -> bytes:
        """Return a block. It must be sent before the next one is encoded."""
        parts = [struct.pack(">I", len(headers))]
        for pair in headers.items():
            parts += [struct.pack(">I", len(text)) + text for text in (fold(pair[0]).encode(), pair[1].encode())]
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def decode(self, block: bytes) -> dict[str, str]:
        """Return the headers of the next block, with names in lower case. Raises `SpdyError`."""
        try:
            raw = self._inflate.decompress(block, _HEADERS_LIMIT)
            if self._inflate.unconsumed_tail or self._inflate.eof:
                raise SpdyError("the headers are too long")
            return _headers(raw)
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise SpdyError(f"the headers are not valid: {error}") from None


def _headers(raw: bytes) -> dict[str, str]:
    (count,) = struct.unpack_from(">I", raw)
    position = 4
    headers: dict[str, str] = {}
    for _ in range(count):
        texts = []
        for _ in range(2):
            (length,) = struct.unpack_from(">I", raw, position)
            position += 4
            if length > len(raw) - position:
                raise SpdyError("the headers end early")
            texts.append(raw[position : position + length].decode())
            position += length
        if fold(texts[0]) in headers:
            raise SpdyError(f"the header {texts[0]!r} is repeated")
        headers[fold(texts[0])] = texts[1]
    return headers

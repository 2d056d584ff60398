"""The connections of a room's HTTP server, and how long each may take: for the head of a request, its body, and between two.

A client that sends half a head, half a body or nothing would else hold its connection, and what belongs to it, for ever.
The bounds are those that servers of the field have: of the head as a whole (nginx `client_header_timeout`, Go
`ReadHeaderTimeout`), of the silence between two requests (Go `IdleTimeout`), and of a body the least that must come in a
period, since a large one on a slow line may take its time (Kestrel `MinRequestBodyDataRate`). What a server sends, and
a connection that was upgraded to another protocol, take as long as they take.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict, Unpack, cast

from aiohttp import EMPTY_PAYLOAD, StreamReader, web

from cumulet.common.config import HttpLimits

_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class ConnectionOptions(TypedDict, total=False):
    """aiohttp's own settings of a connection."""

    read_bufsize: int
    auto_decompress: bool


class Connection(web.RequestHandler):
    """aiohttp's connection with bounds. A request that comes in one piece costs no timer."""

    __slots__ = ("_body", "_body_bytes", "_deadline", "_in_head", "_limits")

    def __init__(self, server: web.Server, limits: HttpLimits, **options: Unpack[ConnectionOptions]) -> None:
        loop = asyncio.get_running_loop()
        # The type of `access_log` leaves out that there may be none.
        super().__init__(server, loop=loop, keepalive_timeout=limits.idle, access_log=cast("Any", None), **options)
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        #: Whether a part of a head has come.
        self._in_head = False
        #: The body that is under way, and how much of it came in this period.
        self._body: StreamReader = EMPTY_PAYLOAD
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first head is awaited from now on."""
        super().connection_made(transport)
        self._deadline = self._loop.call_later(self._limits.head, self._head_is_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing is awaited any more."""
        self._await_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take it in, and see what is still to come."""
        requests, in_body = self._request_count, not self._body.is_eof()
        super().data_received(data)
        if self._request_count != requests:
            self._await_nothing()
            self._body = self._messages[-1][1] if self._messages else EMPTY_PAYLOAD
            if not self._body.is_eof():
                self._await_body()
        elif in_body:
            self._body_bytes += len(data)
            if self._body.is_eof():
                self._await_nothing()
        elif data and not self._upgraded:
            self._in_head = True
            if self._deadline is None:
                self._deadline = self._loop.call_later(self._limits.head, self._head_is_late)

    def _await_nothing(self) -> None:
        self._in_head = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _await_body(self) -> None:
        self._body_bytes = 0
        self._deadline = self._loop.call_later(self._limits.body, self._body_is_late)

    def _head_is_late(self) -> None:
        self._deadline = None
        if self.transport is None or self._upgraded:
            return
        if self._current_request is not None:  # what is being answered goes to its end
            self._deadline = self._loop.call_later(self._limits.head, self._head_is_late)
            return
        if self._in_head:
            self.transport.write(_LATE)
        self.force_close()

    def _body_is_late(self) -> None:
        """Let it go on where enough came, or where it is the server that reads no more just now."""
        self._deadline = None
        if self.transport is None or self._body.is_eof():
            return
        enough = self._body_bytes >= self._limits.body_rate * self._limits.body
        if enough or self._reading_paused or self._buffer_paused or not self.transport.is_reading():
            self._await_body()
        else:
            self.transport.abort()

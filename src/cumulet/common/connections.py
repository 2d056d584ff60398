"""The connections of a room's HTTP server, with time limits for the head of a request, its body, and idle connections.

Without them, a client that sends half a head, half a body or nothing would hold its connection forever. Other servers
have the same limits:

- for the whole head (nginx `client_header_timeout`, Go `ReadHeaderTimeout`);
- between two requests (Go `IdleTimeout`);
- for a body, the minimum rate in each period, because a large body on a slow line takes long (Kestrel
  `MinRequestBodyDataRate`).

Responses and connections that were upgraded to another protocol have no limit here.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict, Unpack, cast

from aiohttp import EMPTY_PAYLOAD, StreamReader, web

from cumulet.common.limits import HttpLimits

_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class ConnectionOptions(TypedDict, total=False):
    """aiohttp's settings of a connection."""

    read_bufsize: int
    auto_decompress: bool


class Connection(web.RequestHandler):
    """aiohttp's connection with time limits. A request that arrives in one piece starts no timer."""

    __slots__ = ("_body", "_body_bytes", "_deadline", "_in_head", "_limits")

    def __init__(self, server: web.Server, limits: HttpLimits, **options: Unpack[ConnectionOptions]) -> None:
        loop = asyncio.get_running_loop()
        # `access_log` may be `None`, which its type does not allow.
        super().__init__(server, loop=loop, keepalive_timeout=limits.idle, access_log=cast("Any", None), **options)
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        #: Whether a part of a head has arrived.
        self._in_head = False
        #: The body that is being received, and the bytes that arrived in this period.
        self._body: StreamReader = EMPTY_PAYLOAD
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer of the first head."""
        super().connection_made(transport)
        self._deadline = self._loop.call_later(self._limits.head, self._head_is_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process data, and start or stop the timer, depending on whether a part of a request is still missing."""
        requests, in_body = self._request_count, not self._body.is_eof()
        super().data_received(data)
        if self._request_count != requests:
            self._stop_timer()
            self._body = self._messages[-1][1] if self._messages else EMPTY_PAYLOAD
            if not self._body.is_eof():
                self._await_body()
        elif in_body:
            self._body_bytes += len(data)
            if self._body.is_eof():
                self._stop_timer()
        elif data and not self._upgraded:
            self._in_head = True
            if self._deadline is None:
                self._deadline = self._loop.call_later(self._limits.head, self._head_is_late)

    def _stop_timer(self) -> None:
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
        if self._current_request is not None:  # a request that is being handled may end
            self._deadline = self._loop.call_later(self._limits.head, self._head_is_late)
            return
        if self._in_head:
            self.transport.write(_LATE)
        self.force_close()

    def _body_is_late(self) -> None:
        """Abort the connection, unless enough data arrived or the server itself has paused reading."""
        self._deadline = None
        if self.transport is None or self._body.is_eof():
            return
        enough = self._body_bytes >= self._limits.body_rate * self._limits.body
        if enough or self._reading_paused or self._buffer_paused or not self.transport.is_reading():
            self._await_body()
        else:
            self.transport.abort()

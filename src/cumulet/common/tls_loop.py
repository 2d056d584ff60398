"""uvloop with `tls_transport` for its TLS servers, for rooms that send files.

aiohttp's `FileResponse` calls `sendfile` of the event loop, and threads send the file. aiohttp itself is unchanged.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable
from typing import IO, Any

import uvloop

from cumulet.common.tls_threads import Threads
from cumulet.common.tls_transport import HANDSHAKE_SECONDS, Shared, TlsTransport

log = logging.getLogger(__name__)

#: No descriptor or memory is left for a new connection. The existing ones continue, and the server retries.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS = 1.0


class Loop(uvloop.Loop):
    """uvloop's event loop with its own TLS servers.

    `create_server` with `ssl` and `sock` returns a server of `TlsTransport` connections, which `sendfile` supports.
    """

    def __init__(self) -> None:
        super().__init__()
        self._threads = Threads(self)
        self._leaving: set[socket.socket] = set()

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *args: Any, **options: Any
    ) -> asyncio.AbstractServer:
        """Create a server, with asyncio's parameters. A TLS server ignores all but `ssl`, `sock` and the handshake's limit."""
        context, listener = options.get("ssl"), options.get("sock")
        if isinstance(context, ssl.SSLContext) and isinstance(listener, socket.socket):
            shared = Shared.make(
                self, context, self._threads, self._leaving, options.get("ssl_handshake_timeout") or HANDSHAKE_SECONDS
            )
            return _Server(listener, shared, protocol_factory)
        return await super().create_server(protocol_factory, *args, **options)

    async def sendfile(
        self,
        transport: asyncio.BaseTransport,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        """Send a part of a file, with asyncio's parameters. Returns the number of bytes."""
        if isinstance(transport, TlsTransport):
            size = os.fstat(file.fileno()).st_size - offset
            return await transport.sendfile(file, offset, size if count is None else min(size, count))
        return await super().sendfile(transport, file, offset, count, fallback=fallback)

    def close(self) -> None:
        """Close the loop, its threads and the sockets whose peers have not closed yet."""
        self._threads.close()
        for connection in list(self._leaving):
            self.remove_reader(connection.fileno())
            connection.close()
        self._leaving.clear()
        super().close()


class _Server(asyncio.AbstractServer):
    """Accepts connections from a listening socket until it is closed. Open connections continue after that."""

    def __init__(
        self,
        listener: socket.socket,
        shared: Shared,
        protocol_factory: Callable[[], asyncio.Protocol],
    ) -> None:
        listener.setblocking(False)
        self._loop = shared.loop
        self._listener = listener
        self._shared = shared
        self._protocol_factory = protocol_factory
        self._start()

    def _start(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(64):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("no more connections can be accepted: %s", error.strerror)
                self._loop.remove_reader(self._listener.fileno())
                self._loop.call_later(_PAUSE_SECONDS, self._start)
                return
            try:
                TlsTransport(connection, self._shared, self._protocol_factory())
            except OSError:  # the client has disconnected
                connection.close()

    def close(self) -> None:
        """Stop accepting connections."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()

    async def wait_closed(self) -> None:
        """Return immediately: the server has no state to wait for."""

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop."""
        return self._loop

    async def start_serving(self) -> None:
        """Do nothing: the server accepts connections from its creation on."""

    async def serve_forever(self) -> None:
        """Not supported: a room waits for its own signal to stop."""
        raise NotImplementedError

    def is_serving(self) -> bool:
        """Return whether the server accepts connections."""
        return self._listener.fileno() >= 0

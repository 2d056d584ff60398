"""The data plane: a listener for each address and port of a service, and a pipe for each connection.

Where no end point is ready the listener is closed, so that a client is refused at once and not left waiting. As with
Azure's load balancer, a connection on which nothing moves for some minutes is reset at both ends, unless it is kept
alive by TCP (keep-alive probes count as well).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple, cast

from cumulet.common.egress import Egress

log = logging.getLogger(__name__)

_CONNECT = 5.0
#: Where `tcpi_segs_in`, the number of segments that came, is in the kernel's `struct tcp_info` (tcp(7)).
_SEGMENTS_IN = 140
_RESET = struct.pack("ii", 1, 0)

Endpoint = tuple[str, int]


class Frontend(NamedTuple):
    """Where clients connect."""

    host: str
    port: int


class Backends:
    """The ready end points of a frontend, taken in turns, or by the client's address where that is asked for.

    Users write their addresses: `egress` refuses this machine's and others that only this machine reaches.
    """

    def __init__(self, egress: Egress) -> None:
        self.egress = egress
        self._endpoints: Sequence[Endpoint] = ()
        self._by_client = False
        self._next = 0
        self.idle: float | None = None

    def set(self, endpoints: Sequence[Endpoint], *, by_client: bool, idle: float | None) -> None:
        """From now on connections go to these; those that are open stay where they are."""
        self._endpoints = endpoints
        self._by_client = by_client
        self.idle = idle

    def candidates(self, client: str) -> list[Endpoint]:
        """All end points, the one to try first in front."""
        if not self._endpoints:
            return []
        if self._by_client:
            start = sum(client.encode()) % len(self._endpoints)
        else:
            start = self._next % len(self._endpoints)
            self._next += 1
        return [*self._endpoints[start:], *self._endpoints[:start]]


class Proxy:
    """All frontends. `set` says what is wanted of one, `remove` ends it."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._backends: dict[Frontend, Backends] = {}
        self._servers: dict[Frontend, asyncio.Server] = {}

    def frontends(self) -> set[Frontend]:
        """Those that are known, listening or not."""
        return set(self._backends)

    async def set(
        self,
        frontend: Frontend,
        endpoints: Sequence[Endpoint],
        *,
        by_client: bool = False,
        idle: float | None = None,
    ) -> None:
        """Serve a frontend with these end points, and end connections that are idle for so many seconds.

        Raises `OSError` where the address cannot be listened on.
        """
        backends = self._backends.setdefault(frontend, Backends(self._egress))
        backends.set(endpoints, by_client=by_client, idle=idle)
        if endpoints and frontend not in self._servers:
            loop = asyncio.get_running_loop()
            self._servers[frontend] = await loop.create_server(
                lambda: _Client(backends), frontend.host, frontend.port, backlog=1024, reuse_address=True
            )
        elif not endpoints and frontend in self._servers:
            self._servers.pop(frontend).close()

    def remove(self, frontend: Frontend) -> None:
        """Take no more connections; those that are open go on to their end."""
        self._backends.pop(frontend, None)
        if (server := self._servers.pop(frontend, None)) is not None:
            server.close()

    def close(self) -> None:
        """End every frontend."""
        for frontend in self.frontends():
            self.remove(frontend)


class _Pipe(asyncio.Protocol):
    """One half of a connection: what comes in here goes out at `peer`, no faster than that takes it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _Pipe | None = None
        self.moved = False
        self.ended = False
        self._segments = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.moved = True
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        """The other end may still have something to say, unless it has said that it has not."""
        self.ended = True
        if self.peer is not None and self.peer.ended and self.peer.transport is not None:
            self.peer.transport.close()
            return False
        if self.peer is not None and self.peer.transport is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self.peer.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()

    def has_moved(self) -> bool:
        """Whether anything came since this was last asked, be it a probe that carries nothing."""
        moved, before = self.moved, self._segments
        self.moved = False
        found = self.transport.get_extra_info("socket") if self.transport is not None else None
        if found is not None:
            with contextlib.suppress(OSError):
                information = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SEGMENTS_IN + 4)
                (self._segments,) = struct.unpack_from("I", information, _SEGMENTS_IN)
        return moved or self._segments != before

    def reset(self) -> None:
        """Tell the other end that the connection is no more."""
        if self.transport is not None:
            found = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()


class _Server(_Pipe):
    """An end point's half. It joins the client's as soon as it is connected: an end point may speak first."""

    def __init__(self, client: _Client) -> None:
        super().__init__()
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self._client.attach(self, self.transport)


class _Client(_Pipe):
    """A client's half: it waits until an end point has taken the connection."""

    def __init__(self, backends: Backends) -> None:
        super().__init__()
        self._backends = backends
        self._task: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        self._early_eof = False
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._task = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            # A loop may begin to read only after `connection_made`, so what comes early is kept, and no more of it read.
            self._early.append(data)
            assert self.transport is not None
            self.transport.pause_reading()
        else:
            super().data_received(data)

    def eof_received(self) -> bool:
        if self.peer is None:
            self._early_eof = True
            return True
        return super().eof_received()

    async def _connect(self) -> None:
        assert self.transport is not None
        peer = self.transport.get_extra_info("peername")
        loop = asyncio.get_running_loop()
        for host, port in self._backends.candidates(str(peer[0]) if peer else ""):
            try:
                self._backends.egress.check(host, port)
                async with asyncio.timeout(_CONNECT):
                    await loop.create_connection(lambda: _Server(self), host, port)
            except (OSError, TimeoutError) as error:
                log.info("end point %s:%s does not answer: %s", host, port, error or "timeout")
                if self.peer is None:
                    continue
            return
        self.transport.abort()

    def attach(self, server: _Pipe, transport: asyncio.Transport) -> None:
        """Join the halves, before anything is read from the end point, and send what the client sent early."""
        if (found := transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.peer, self.peer = self, server
        assert self.transport is not None
        if self.transport.is_closing():
            transport.close()
            return
        for data in self._early:
            transport.write(data)
        self._early.clear()
        if self._early_eof:
            self.ended = True
            transport.write_eof()
        else:
            self.transport.resume_reading()
        self._look()

    def _look(self) -> None:
        """See from time to time whether anything moves."""
        assert self.peer is not None
        if (idle := self._backends.idle) is None or self.transport is None or self.transport.is_closing():
            return
        moved = [half.has_moved() for half in (self, self.peer)]
        if self._idle is None or any(moved):
            self._idle = asyncio.get_running_loop().call_later(idle, self._look)
            return
        self.peer.reset()
        self.reset()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._idle is not None:
            self._idle.cancel()
        if self._task is not None and self.peer is None:
            self._task.cancel()

"""The data plane in user space: a listener for each address and port of a service, and two connected streams per connection.

Without a ready endpoint the listener is closed, so that a client is refused at once. As in Azure's load balancer, an idle
connection is reset at both ends after some minutes. TCP keep-alive probes count as traffic. A connection that one end has
closed is reset when nothing has moved for half a minute, as the other end may never close it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple, cast

from cumulet.common.egress import Egress

log = logging.getLogger(__name__)

_CONNECT = 5.0
#: Seconds without traffic after which a connection is reset that one end has closed.
HALF_CLOSED = 30.0
#: The offset of `tcpi_segs_in`, the number of received segments, in the kernel's `struct tcp_info` (tcp(7)).
_SEGMENTS_IN = 140
_RESET = struct.pack("ii", 1, 0)

Endpoint = tuple[str, int]
#: The ranges of the clients that may connect; `None` is everybody.
Sources = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] | None


class Frontend(NamedTuple):
    """The address and port that clients connect to."""

    host: str
    port: int


class Backends:
    """The ready endpoints of a frontend, used in turn, or by the client's address (session affinity).

    Users can write the addresses: `egress` refuses those of this machine, and others that only this machine reaches.
    """

    def __init__(self, egress: Egress) -> None:
        self.egress = egress
        self._endpoints: Sequence[Endpoint] = ()
        self._by_client = False
        self._next = 0
        self._sources: Sources = None
        self.idle: float | None = None

    def set(self, endpoints: Sequence[Endpoint], *, by_client: bool, idle: float | None, sources: Sources) -> None:
        """Replace the endpoints and sources for new connections. `idle` is the idle timeout in seconds."""
        self._endpoints = endpoints
        self._sources = sources
        self._by_client = by_client
        self.idle = idle

    def allows(self, client: str) -> bool:
        """Return whether a client may connect."""
        if self._sources is None:
            return True
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in self._sources)

    def candidates(self, client: str) -> list[Endpoint]:
        """Return all endpoints, in the order to try them."""
        if not self._endpoints:
            return []
        if self._by_client:
            start = sum(client.encode()) % len(self._endpoints)
        else:
            start = self._next % len(self._endpoints)
            self._next += 1
        return [*self._endpoints[start:], *self._endpoints[:start]]


class Proxy:
    """All frontends. `set` configures one, `remove` closes it."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._backends: dict[Frontend, Backends] = {}
        self._servers: dict[Frontend, asyncio.Server] = {}

    def frontends(self) -> set[Frontend]:
        """Return all configured frontends, listening or not."""
        return set(self._backends)

    async def set(
        self,
        frontend: Frontend,
        endpoints: Sequence[Endpoint],
        *,
        by_client: bool = False,
        idle: float | None = None,
        sources: Sources = None,
    ) -> None:
        """Forward a frontend to these endpoints, and reset connections that are idle for `idle` seconds.

        A client that is not in `sources` is reset at once.

        Raises `OSError` when the proxy cannot listen on the address.
        """
        backends = self._backends.setdefault(frontend, Backends(self._egress))
        backends.set(endpoints, by_client=by_client, idle=idle, sources=sources)
        if endpoints and frontend not in self._servers:
            loop = asyncio.get_running_loop()
            self._servers[frontend] = await loop.create_server(
                lambda: _Client(backends), frontend.host, frontend.port, backlog=1024, reuse_address=True
            )
        elif not endpoints and frontend in self._servers:
            self._servers.pop(frontend).close()

    def remove(self, frontend: Frontend) -> None:
        """Accept no more connections; open ones continue."""
        self._backends.pop(frontend, None)
        if (server := self._servers.pop(frontend, None)) is not None:
            server.close()

    def close(self) -> None:
        """Close all frontends."""
        for frontend in self.frontends():
            self.remove(frontend)


class _Pipe(asyncio.Protocol):
    """One half of a connection: forwards received data to `peer`, no faster than the peer accepts it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _Pipe | None = None
        self.received = False
        self.ended = False
        self._segments = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received = True
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        """Forward the end of the stream; the other direction stays open until its own end."""
        self.ended = True
        self.one_ended()
        if self.peer is not None and self.peer.ended and self.peer.transport is not None:
            self.peer.transport.close()
            return False
        if self.peer is not None and self.peer.transport is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self.peer.transport.write_eof()
        return True

    def one_ended(self) -> None:
        """Begin the limit of a connection that one end has closed."""
        if isinstance(self.peer, _Client):
            self.peer.one_ended()

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()

    def had_traffic(self) -> bool:
        """Return whether a segment arrived since the last call, including keep-alive probes."""
        received, before = self.received, self._segments
        self.received = False
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                information = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SEGMENTS_IN + 4)
                (self._segments,) = struct.unpack_from("I", information, _SEGMENTS_IN)
        return received or self._segments != before

    def reset(self) -> None:
        """Reset the connection."""
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()


class _Server(_Pipe):
    """An endpoint's half. It joins the client's as soon as it is connected: an endpoint may speak first."""

    def __init__(self, client: _Client) -> None:
        super().__init__()
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self._client.attach(self, self.transport)


class _Client(_Pipe):
    """The client's half: it waits until an endpoint accepts the connection."""

    def __init__(self, backends: Backends) -> None:
        super().__init__()
        self._backends = backends
        self._task: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        self._early_eof = False
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        client = str(peer[0]) if peer else ""
        if self._backends.allows(client):
            self._task = asyncio.get_running_loop().create_task(self._connect(client))
        else:
            self.reset()

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            # An event loop may start to read before the endpoint accepts: keep that data, and pause reading.
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

    async def _connect(self, client: str) -> None:
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        for host, port in self._backends.candidates(client):
            try:
                self._backends.egress.check(host, port)
                async with asyncio.timeout(_CONNECT):
                    await loop.create_connection(lambda: _Server(self), host, port)
            except (OSError, TimeoutError) as error:
                log.info("endpoint %s:%s does not answer: %s", host, port, error or "timeout")
                if self.peer is None:
                    continue
            return
        self.transport.abort()

    def attach(self, server: _Pipe, transport: asyncio.Transport) -> None:
        """Join the halves, before anything is read from the endpoint, and send what the client sent early."""
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
            self.one_ended()
        else:
            self.transport.resume_reading()
        self._check_idle()

    def one_ended(self) -> None:
        """See `_Pipe`."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._check_idle()

    def _check_idle(self) -> None:
        """Check periodically whether the connection is idle."""
        if self.peer is None or self.transport is None or self.transport.is_closing():
            return
        limits = [self._backends.idle, HALF_CLOSED if self.ended or self.peer.ended else None]
        idle = min((limit for limit in limits if limit is not None), default=None)
        if idle is None:
            return
        active = [half.had_traffic() for half in (self, self.peer)]
        if self._idle is None or any(active):
            self._idle = asyncio.get_running_loop().call_later(idle, self._check_idle)
            return
        self.peer.reset()
        self.reset()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._idle is not None:
            self._idle.cancel()
        if self._task is not None and self.peer is None:
            self._task.cancel()

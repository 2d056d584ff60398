"""The life of a room's process: settings, logs, event loop, listening socket, ready, stop.

A room is a package with a module `room` that has `async def serve(room: Room) -> None`. It builds what it serves,
enters `room.serving(app)`, says `room.ready()`, and returns when `room.stopping` is set. The listening socket is
bound by whoever started the process and may be older than it (socket activation, as in systemd's `sd_listen_fds(3)`):
while a room is starting, or starting again after a crash, its clients wait in the backlog and are not refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import uvloop
from aiohttp import web

from cumulet.common import logs, tls
from cumulet.common.config import Address, Config, HttpLimits, RoomName
from cumulet.common.connections import Connection, ConnectionOptions

#: Bytes of a body that wait for their handler; bodies come in pieces of about that size.
_READ_BUFFER = 512 * 1024

#: How many descriptors a room has at most, if it may.
_DESCRIPTORS = 65536

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: Seconds that open connections get to end after a room was told to stop. Then they are cut off, and as long again is the
#: most that whoever serves them may take to tidy up.
GRACE = 2.0


class Room:
    """What a room is given by its surroundings."""

    def __init__(
        self,
        name: RoomName,
        config: Config,
        listeners: Sequence[socket.socket],
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.config = config
        self.listeners = listeners
        self.stopping = asyncio.Event()
        self._on_ready = on_ready

    @property
    def data_dir(self) -> Path:
        """The room's own folder, made 0700 when it is first asked for."""
        path = self.config.room_dir(self.name)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def ready(self) -> None:
        """Say that requests are served from now on."""
        gc.collect()
        gc.freeze()  # what was made up to now stays, and is not looked through again and again
        self._on_ready()

    def server_tls(self, client_ca: bytes | None = None) -> ssl.SSLContext:
        """Serve with the room's certificate; a client may show one (`peer_certificate`) of our authority, or of another."""
        files = self.config.certificate_files(self.name)
        return tls.server_context(*files, client_ca=client_ca or self.config.ca_file)

    def client_tls(self, *, show_certificate: bool = False) -> ssl.SSLContext:
        """Trust our authority, and where wanted authenticate as this room."""
        if show_certificate:
            return tls.client_context(self.config.ca_file, *self.config.certificate_files(self.name))
        return tls.client_context(self.config.ca_file)

    @contextlib.asynccontextmanager
    async def serving(
        self,
        handler: web.Application | Handler,
        *,
        listeners: Sequence[socket.socket] = (),
        plain: bool = False,
        client_ca: bytes | None = None,
        around: Callable[[Handler], Handler] = lambda handler: handler,
        limits: HttpLimits | None = None,
    ) -> AsyncIterator[None]:
        """Serve HTTP/1.1 on the room's listeners, or on others, over TLS unless `plain`, while the context is open.

        `client_ca` (PEM) signs the certificates of clients where that is not our own authority.

        `limits` bounds what a connection may take where that is not what the settings say.

        `handler` is an aiohttp application, or for hot paths a bare coroutine from request to response; `around` puts
        something in front of it.
        """
        runner: web.AppRunner | web.ServerRunner
        options: ConnectionOptions
        if isinstance(handler, web.Application):
            runner = web.AppRunner(handler, handler_cancellation=True, shutdown_timeout=2 * GRACE)
            # Nobody of ours takes `Content-Encoding`, and what is packed grows.
            options = {"read_bufsize": _READ_BUFFER, "auto_decompress": False}
        else:
            runner = web.ServerRunner(web.Server(handler, handler_cancellation=True), shutdown_timeout=2 * GRACE)
            options = {}
        await runner.setup()
        server = runner.server
        assert server is not None
        server.request_handler = around(server.request_handler)
        bounds = limits or self.config.http_limits
        loop = asyncio.get_running_loop()
        accepting: list[asyncio.AbstractServer] = []
        try:
            context = None if plain else self.server_tls(client_ca)
            for listener in listeners or self.listeners:
                accepting.append(
                    await loop.create_server(
                        lambda: Connection(server, bounds, **options),
                        sock=listener,
                        ssl=context,
                        ssl_handshake_timeout=None if plain else bounds.handshake,
                        backlog=1024,
                    )
                )
            yield
        finally:
            for each in accepting:
                each.close()
            cut_off = loop.call_later(GRACE, _cut_off, server)
            try:
                await runner.cleanup()
            finally:
                cut_off.cancel()


def _cut_off(server: web.Server) -> None:
    """Lose all connections, which cancels their handlers.

    aiohttp alone would first break off the bodies that come by its own parser and wait again.
    """
    for connection in server.connections:
        if connection.transport is not None:
            connection.transport.abort()


class Peer(NamedTuple):
    """The subject of a verified client certificate: Kubernetes' user and groups (CN and O)."""

    user: str
    groups: tuple[str, ...]


def peer_certificate(request: web.BaseRequest) -> Peer | None:
    """Who the other end proved to be in the TLS handshake, or `None` where it showed no certificate."""
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    if not certificate:
        return None
    return _peer(certificate.get("subject", ()))


@functools.lru_cache(256)
def _peer(subject: tuple[tuple[tuple[str, str], ...], ...]) -> Peer:
    fields = [field for names in subject for field in names]
    user = next((value for key, value in fields if key == "commonName"), "")
    return Peer(user, tuple(value for key, value in fields if key == "organizationName"))


def listen(address: Address) -> socket.socket:
    """Bind and listen. Raises `OSError`, which names the address, where the port is taken or not permitted."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((socket.gethostbyname(address.host), address.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{address.host}:{address.port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def _allow_connections() -> None:
    """Have as many descriptors as may be: where there are no more, clients wait until another has been let go."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run(
    name: RoomName,
    config: Config,
    serve: Callable[[Room], Awaitable[None]],
    *,
    listeners: Sequence[socket.socket] = (),
    on_ready: Callable[[], None] = lambda: None,
    log_file: Path | None = None,
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
) -> None:
    """Run a room in this process until SIGTERM or SIGINT."""
    logs.configure(name, log_file)
    _allow_connections()

    async def main() -> None:
        room = Room(name, config, listeners or [listen(address) for address in config.listening(name)], on_ready)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, room.stopping.set)
        await serve(room)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())

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
import logging
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from aiohttp import web

from cumulet.common import logs, tls
from cumulet.common.config import (
    DEFAULT_PORTS,
    Address,
    AuthorityName,
    Config,
    ConfigError,
    HttpLimits,
    RoomName,
    private_folder,
    room_id,
    scraper_id,
)
from cumulet.common.connections import Connection, ConnectionOptions

log = logging.getLogger(__name__)

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
        self._reloads: list[Callable[[], object]] = []

    @property
    def data_dir(self) -> Path:
        """The room's own folder, made 0700 when it is first asked for."""
        return private_folder(self.config.room_dir(self.name))

    def ready(self) -> None:
        """Say that requests are served from now on."""
        gc.collect()
        gc.freeze()  # what was made up to now stays, and is not looked through again and again
        self._on_ready()

    def on_reload(self, callback: Callable[[], object]) -> None:
        """Register a callback for when the certificate files have changed."""
        self._reloads.append(callback)

    def reload(self) -> None:
        """Read the certificate files again for new connections. Keep the old certificates if that fails."""
        for callback in self._reloads:
            try:
                callback()
            except (OSError, ValueError, ConfigError):  # `ssl.SSLError` is an `OSError`
                log.exception("the new certificates cannot be used")
        log.info("certificates were read again")

    def server_tls(self, clients: AuthorityName | bytes = "rooms") -> tls.ServerContext:
        """Serve with the room's certificate, and accept client certificates that `clients` signed.

        `clients` is an authority of the installation, or PEM. `peer_room` reads the certificates of `rooms`,
        `peer_certificate` those of any other authority.
        """
        files = self.config.certificate_files(self.name)
        trusted = clients if isinstance(clients, bytes) else self.config.authority_file(clients)
        trust_domain = self.config.trust_domain if clients == "rooms" else None
        context = tls.server_context(*files, client_ca=trusted, trust_domain=trust_domain)
        self.on_reload(functools.partial(context.load_cert_chain, *files))
        if not isinstance(trusted, bytes):
            self.on_reload(functools.partial(context.load_verify_locations, trusted))
        return context

    def client_tls(
        self, *, trust: AuthorityName = "serving", show: tuple[Path, Path] | None = None
    ) -> ssl.SSLContext:
        """Trust one authority of the installation, and show the certificate in `show` if it is given."""
        trusted = self.config.authority_file(trust)
        context = tls.client_context(trusted, *(show or ()))
        self.on_reload(functools.partial(context.load_verify_locations, trusted))
        if show is not None:
            self.on_reload(functools.partial(context.load_cert_chain, *show))
        return context

    @contextlib.asynccontextmanager
    async def serving(
        self,
        handler: web.Application | Handler,
        *,
        listeners: Sequence[socket.socket] = (),
        plain: bool = False,
        clients: AuthorityName | bytes = "rooms",
        around: Callable[[Handler], Handler] = lambda handler: handler,
        limits: HttpLimits | None = None,
    ) -> AsyncIterator[None]:
        """Serve HTTP/1.1 on the room's listeners, or on others, over TLS unless `plain`, while the context is open.

        `clients` is the authority of client certificates (`server_tls`).

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
            options = {"auto_decompress": False}
        await runner.setup()
        server = runner.server
        assert server is not None
        server.request_handler = around(server.request_handler)
        bounds = limits or self.config.http_limits
        loop = asyncio.get_running_loop()
        accepting: list[asyncio.AbstractServer] = []
        try:
            context = None if plain else self.server_tls(clients)
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
    """Return the user that the client authenticated as in the TLS handshake, or `None`.

    It is always `None` on a listener that accepts certificates of rooms.
    """
    certificate, context = _shown(request)
    if not certificate or context is None or context.trust_domain is not None:
        return None
    return _peer(certificate.get("subject", ()))


def peer_room(request: web.BaseRequest) -> RoomName | None:
    """Return the room that the client authenticated as in the TLS handshake, or `None`.

    The certificate is signed by the authority `rooms`, and its only URI is the room's SPIFFE ID.
    """
    certificate, context = _shown(request)
    if not certificate or context is None or context.trust_domain is None:
        return None
    return _room(certificate.get("subjectAltName", ()), context.trust_domain)


def is_scraper(request: web.BaseRequest) -> bool:
    """Tell whether the client authenticated as what reads metrics, by a certificate that `rooms` signed."""
    certificate, context = _shown(request)
    if not certificate or context is None or context.trust_domain is None:
        return False
    uris = [value for key, value in certificate.get("subjectAltName", ()) if key == "URI"]
    return uris == [scraper_id(context.trust_domain)]


def shows_certificate(request: web.BaseRequest) -> bool:
    """Tell whether the client showed a certificate that was verified."""
    return bool(_shown(request)[0])


def _shown(request: web.BaseRequest) -> tuple[dict[str, Any] | None, tls.ServerContext | None]:
    """Return the client's verified certificate and the context that verified it."""
    transport = request.transport
    if transport is None:
        return None, None
    context = transport.get_extra_info("sslcontext")
    return transport.get_extra_info("peercert"), context if isinstance(context, tls.ServerContext) else None


@functools.lru_cache(256)
def _peer(subject: tuple[tuple[tuple[str, str], ...], ...]) -> Peer | None:
    fields = [field for names in subject for field in names]
    match [value for key, value in fields if key == "commonName"]:
        case [user] if user:
            return Peer(user, tuple(value for key, value in fields if key == "organizationName"))
    return None  # implementations differ on which of several common names counts


@functools.lru_cache(256)
def _room(names: tuple[tuple[str, str], ...], trust_domain: str) -> RoomName | None:
    uris = [value for key, value in names if key == "URI"]
    return next((room for room in DEFAULT_PORTS if uris == [room_id(trust_domain, room)]), None)


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
    """Run a room in this process until SIGTERM or SIGINT. SIGHUP tells it that there are new certificates."""
    logs.configure(name, log_file)
    _allow_connections()

    async def main() -> None:
        room = Room(name, config, listeners or [listen(address) for address in config.listening(name)], on_ready)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, room.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, room.reload)
        await serve(room)

    # The loop that the room asks for brings TLS of our own, unless the settings ask for the event loop's.
    with asyncio.Runner(loop_factory=new_event_loop if config.tls == "own" else uvloop.new_event_loop) as runner:
        runner.run(main())

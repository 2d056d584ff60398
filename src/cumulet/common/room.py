"""The process of a room: settings, logs, event loop, listening sockets, readiness, shutdown.

A room is a package with a module `room` that has `async def serve(room: Room) -> None`. This function builds the
application, enters `room.serving(app)`, calls `room.ready()`, and returns when `room.stopping` is set.

The parent process binds the listening sockets, which may be older than the room's process (socket activation, as in
systemd's `sd_listen_fds(3)`). While a room starts or restarts, its clients wait in the backlog and are not refused.
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
from typing import NamedTuple, TypedDict

import uvloop
from aiohttp import web

from cumulet.common import doors, logs, tls
from cumulet.common.config import (
    DEFAULT_PORTS,
    Address,
    AuthorityName,
    Config,
    ConfigError,
    RoomName,
    room_id,
    scraper_id,
)
from cumulet.common.connections import Connection, ConnectionOptions
from cumulet.common.limits import HttpLimits
from cumulet.common.private_files import private_folder

log = logging.getLogger(__name__)

#: Buffered bytes of a body at which reading pauses. Handlers get bodies in pieces of about this size.
_READ_BUFFER = 512 * 1024

#: The number of file descriptors that a room allows itself, if the hard limit permits.
_DESCRIPTORS = 65536

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: Seconds for open connections to end after the signal to stop. Then they are aborted, and their handlers have the same
#: time again to clean up.
GRACE = 2.0


class Room:
    """The environment of a room: its name, settings, listening sockets, TLS contexts and signals."""

    def __init__(
        self,
        name: RoomName,
        config: Config,
        listeners: Sequence[socket.socket],
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.config = config
        # The API server is the same for everybody; what other rooms serve at their doors is not what they serve to rooms.
        count = len(listeners) if name == "kube" else len(config.listening(name))
        self.listeners, self.doors = listeners[:count], listeners[count:]
        self.stopping = asyncio.Event()
        self._on_ready = on_ready
        self._reloads: list[Callable[[], object]] = []

    @property
    def data_dir(self) -> Path:
        """The folder of the room's state, created with mode 0700 if it is missing."""
        return private_folder(self.config.room_dir(self.name))

    def ready(self) -> None:
        """Report that the room serves requests."""
        gc.collect()
        gc.freeze()  # existing objects stay, so later collections can skip them
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

    def server_tls(
        self, clients: AuthorityName | bytes | None = "rooms", certificate: tuple[Path, Path] | None = None
    ) -> tls.ServerContext:
        """Return a context with the room's certificate, or another, that accepts client certificates signed by `clients`.

        `clients` is an authority of the installation, or PEM, or `None` to ask for no certificate. `peer_room` reads the
        certificates of `rooms`, `peer_certificate` those of any other authority.
        """
        files = certificate or self.config.certificate_files(self.name)
        trusted = self.config.authority_file(clients) if isinstance(clients, str) else clients
        trust_domain = self.config.trust_domain if clients == "rooms" else None
        context = tls.server_context(*files, client_ca=trusted, trust_domain=trust_domain)
        self.on_reload(functools.partial(context.load_cert_chain, *files))
        if isinstance(trusted, Path):
            self.on_reload(functools.partial(context.load_verify_locations, trusted))
        return context

    def client_tls(
        self, *, trust: AuthorityName = "serving", show: tuple[Path, Path] | None = None
    ) -> ssl.SSLContext:
        """Return a context that trusts one authority of the installation, and presents the certificate files in `show`."""
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
        certificate: tuple[Path, Path] | None = None,
        clients: AuthorityName | bytes | None = "rooms",
        around: Callable[[Handler], Handler] = lambda handler: handler,
        limits: HttpLimits | None = None,
    ) -> AsyncIterator[None]:
        """Serve HTTP/1.1 on the room's listeners, or on others, over TLS unless `plain`, while the context is open.

        - `handler` is an aiohttp application, or for hot paths a coroutine from request to response.
        - `certificate` has the files of another certificate than the room's, and its key.
        - `clients` is the authority of client certificates (`server_tls`).
        - `around` wraps the handler.
        - `limits` are the time limits of connections, by default from the settings.
        """
        runner: web.AppRunner | web.ServerRunner
        options: ConnectionOptions
        if isinstance(handler, web.Application):
            runner = web.AppRunner(handler, handler_cancellation=True, shutdown_timeout=2 * GRACE)
            # No room supports `Content-Encoding`, and a compressed body could grow without limit.
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
            context = None if plain else self.server_tls(clients, certificate)
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

    @contextlib.asynccontextmanager
    async def serving_door(self, app: web.Application, *, plain: bool = False) -> AsyncIterator[None]:
        """Serve an application at the room's door while the context is open, if there is a router.

        Clients show no certificates there. Raises `OSError`.
        """
        address = doors.of(self.config, self.name)
        # A room that runs alone makes its door itself, perhaps in a router that it has just made.
        listeners = self.doors or ([] if address is None else doors.listen(self.config, address))
        if not listeners:
            yield
            return
        async with self.serving(app, listeners=listeners, plain=plain, clients=None):
            yield


def _cut_off(server: web.Server) -> None:
    """Abort all connections, which cancels their handlers.

    aiohttp alone would first end only the bodies that its own parser receives, and then wait again.
    """
    for connection in server.connections:
        if connection.transport is not None:
            connection.transport.abort()


class Peer(NamedTuple):
    """The subject of a verified client certificate: Kubernetes' user and groups (CN and O)."""

    user: str
    groups: tuple[str, ...]


class _Certificate(TypedDict, total=False):
    """The fields of `ssl.SSLSocket.getpeercert` that identify a client."""

    subject: tuple[tuple[tuple[str, str], ...], ...]
    subjectAltName: tuple[tuple[str, str], ...]


def peer_certificate(request: web.BaseRequest) -> Peer | None:
    """Return the user that the client authenticated as in the TLS handshake, or `None`.

    The result is always `None` on a listener that accepts certificates of rooms.
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
    """Return whether the client authenticated as the scraper of metrics, by a certificate that `rooms` signed."""
    certificate, context = _shown(request)
    if not certificate or context is None or context.trust_domain is None:
        return False
    uris = [value for key, value in certificate.get("subjectAltName", ()) if key == "URI"]
    return uris == [scraper_id(context.trust_domain)]


def shows_certificate(request: web.BaseRequest) -> bool:
    """Return whether the client presented a certificate that was verified."""
    return bool(_shown(request)[0])


def _shown(request: web.BaseRequest) -> tuple[_Certificate | None, tls.ServerContext | None]:
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
    """Bind and listen. Raises `OSError` with the address if the port is in use or not permitted."""
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


def open_listeners(name: RoomName, config: Config) -> list[socket.socket]:
    """Return the listening sockets of a room, and its doors for pods after them if there is a router. Raises `OSError`."""
    found = [listen(address) for address in config.listening(name)]
    if name == "network":
        return [*found, *doors.name_server(config)]
    door = doors.of(config, name)
    return found if door is None else [*found, *doors.listen(config, door)]


def _allow_connections() -> None:
    """Raise the limit of file descriptors. Without a free one, new clients wait until a connection ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


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
    """Run a room in this process until SIGTERM or SIGINT. SIGHUP makes it read its certificates again."""
    logs.configure(name, log_file)
    _allow_connections()

    async def main() -> None:
        room = Room(name, config, listeners or open_listeners(name, config), on_ready)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, room.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, room.reload)
        await serve(room)

    # The loop that the room asks for brings TLS of our own, unless the settings ask for the event loop's.
    with asyncio.Runner(loop_factory=new_event_loop if config.tls == "own" else uvloop.new_event_loop) as runner:
        runner.run(main())

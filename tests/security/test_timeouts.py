"""Clients that begin something and do not end it: a handshake, a head, a body. No room waits for them for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import uvloop
from aiohttp import web

from cumulet.common import config as settings
from cumulet.common import tls
from cumulet.common.config import DEFAULT_PORTS, Config, RoomName
from cumulet.common.limits import HttpLimits
from cumulet.common.room import Room, listen
from cumulet.common.tls_loop import Loop
from cumulet.common.upgrade import Upgraded
from cumulet.up.install import install
from tests.installation import Installation

#: Seconds in which a test gives up: much longer than any bound that it sets.
_PATIENCE = 30.0
_HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


# Every room, as it is started.


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """An installation whose rooms wait two seconds."""
    made = Installation(tmp_path_factory.mktemp("rooms") / "data")
    config = install(
        made.data_dir,
        ports=dict.fromkeys(DEFAULT_PORTS, 0),
        pod_cidr=made.pod_cidr,
        external_cidr=made.external_cidr,
    )
    limits = HttpLimits(handshake=2.0, head=2.0, idle=4.0, body=2.0)
    settings.save(msgspec.structs.replace(config, http_limits=limits))
    made.up()
    try:
        yield settings.load(made.data_dir)
    finally:
        made.down()


def connected(config: Config, room: RoomName) -> ssl.SSLSocket:
    address = config.addresses[room]
    plain = socket.create_connection((address.host, address.port))
    plain.settimeout(_PATIENCE)
    authority = config.authority_file(config.serving_authority(room))
    return tls.client_context(authority).wrap_socket(plain, server_hostname=address.host)


def rest(connection: socket.socket) -> bytes:
    """All that still comes, to the end of the connection, which must come."""
    found = b""
    with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
        while piece := connection.recv(65536):
            found += piece
    return found


def trickle(connection: ssl.SSLSocket) -> bytes:
    """Send a byte now and then, as somebody does who wants to keep a connection; what is answered."""
    connection.settimeout(0.2)
    for _ in range(int(_PATIENCE / 0.2)):
        try:
            connection.sendall(b"a")
            return rest(connection)
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            return b""
    raise AssertionError("the connection is kept for ever")


def in_each_room(check: Callable[[RoomName], None]) -> None:
    """Check all rooms at once, because each check lasts as long as a bound."""
    with ThreadPoolExecutor(len(DEFAULT_PORTS)) as threads:
        checks = {room: threads.submit(check, room) for room in DEFAULT_PORTS}
    assert {room: error for room, done in checks.items() if (error := done.exception()) is not None} == {}


def test_half_a_handshake_is_not_waited_for(rooms: Config) -> None:
    def check(room: RoomName) -> None:
        address = rooms.addresses[room]
        with socket.create_connection((address.host, address.port), timeout=_PATIENCE) as connection:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")
            rest(connection)

    in_each_room(check)


def test_half_a_head_is_not_waited_for(rooms: Config) -> None:
    def check(room: RoomName) -> None:
        with connected(rooms, room) as silent, connected(rooms, room) as trickling:
            for connection in (silent, trickling):
                connection.sendall(_HEAD + b"X-Long: ")
            answer = trickle(trickling)
            # A byte that crosses the answer resets the connection, and the answer is lost.
            assert not answer or answer.startswith(b"HTTP/1.1 408 ")
            assert rest(silent).startswith(b"HTTP/1.1 408 ")

    in_each_room(check)


def test_who_asks_nothing_is_let_go(rooms: Config) -> None:
    def check(room: RoomName) -> None:
        with connected(rooms, room) as silent, connected(rooms, room) as idle:
            idle.sendall(_HEAD + b"\r\n")
            assert rest(idle).startswith(b"HTTP/1.1 200 ")
            assert rest(silent) == b""

    in_each_room(check)


@pytest.mark.parametrize("room", DEFAULT_PORTS)
def test_a_head_without_end_is_refused(rooms: Config, room: RoomName) -> None:
    for filling in (b"X: " + b"a" * 1_000_000, b"X: a\r\n" * 1_000):
        with connected(rooms, room) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                connection.sendall(_HEAD + filling)
            answer = rest(connection)
            assert not answer or answer[8:].startswith(b" 400 ")


# One room with a server for it, on both event loops that rooms have.

_LIMITS = HttpLimits(handshake=1.0, head=0.3, idle=0.6, body=0.3, body_rate=20.0)


class Served:
    """A room of this process."""

    def __init__(self, config: Config) -> None:
        self._config = msgspec.structs.replace(config, http_limits=_LIMITS)
        self.go_on = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=1024**3)
        app.router.add_post("/body", self._body)
        app.router.add_post("/pause", self._pause)
        app.router.add_get("/wait", self._wait)
        app.router.add_post("/upgrade", self._upgrade)
        listeners = [listen(address) for address in self._config.listening("kube")]
        async with Room("kube", self._config, listeners).serving(app):
            yield

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self._config.addresses["kube"]
        return await asyncio.open_connection(address.host, address.port, ssl=tls.client_context(self._config.ca_file))

    async def while_others_are_cut(self) -> None:
        """Wait as long as any bound: until one who says nothing has been let go, and one after it."""
        for _ in range(3):
            reader, writer = await self.connect()
            assert await reader.read() == b""
            writer.close()

    async def _body(self, request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async def _pause(self, request: web.Request) -> web.Response:
        """Read only when it is told to."""
        await self.go_on.wait()
        return await self._body(request)

    async def _wait(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        await self.go_on.wait()
        await response.write(b"ended")
        return response

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        upgraded = Upgraded("echo", {})
        carrier = await upgraded.take(request)
        while data := await carrier.read():
            await carrier.send(data)
        return upgraded


Check = Callable[[Served], Awaitable[None]]
_CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Of one room."""
    _CHECKS.append(function)
    return function


@check
async def half_a_body_is_not_waited_for(served: Served) -> None:
    for ending in (b"a", b""):
        reader, writer = await served.connect()
        writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + ending)
        assert await reader.read() == b""
        writer.close()


@check
async def a_trickled_body_is_not_waited_for(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        writer.write(b"a")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                return
    raise AssertionError("the connection is kept for ever")


@check
async def a_slow_body_that_comes_on_is_taken(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 31000\r\n\r\n")
    for _ in range(30):
        writer.write(b"a" * 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                raise AssertionError(await reader.read(1))
    writer.write(b"a" * 1000)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


@check
async def a_server_that_reads_no_more_cuts_nobody(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"POST /pause HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n" + b"a" * 30_000_000)
    await served.while_others_are_cut()
    served.go_on.set()
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


@check
async def half_of_a_second_head_is_not_waited_for(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
    await reader.readuntil(b"\r\n\r\n3")
    writer.write(b"POST /body HTTP/1.1\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    writer.close()


@check
async def what_is_answered_slowly_is_answered_to_the_end(served: Served) -> None:
    reader, writer = await served.connect()
    # And half a head behind it, which is let wait.
    writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\nGET /wa")
    await reader.readuntil(b"begun")
    await served.while_others_are_cut()
    served.go_on.set()
    await reader.readuntil(b"ended")
    writer.close()


@check
async def a_connection_that_was_upgraded_is_idle_as_long_as_it_likes(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(
        b"POST /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\nContent-Length: 0\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    for word in (b"one", b"two"):
        writer.write(word)
        assert await reader.readexactly(3) == word
        await served.while_others_are_cut()
    writer.close()


@pytest.mark.parametrize("new_event_loop", [uvloop.new_event_loop, Loop], ids=["uvloop", "tls_loop"])
@pytest.mark.parametrize("checked", _CHECKS, ids=lambda check: check.__name__)
def test(config: Config, checked: Check, new_event_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def run() -> None:
        served = Served(config)
        async with asyncio.timeout(_PATIENCE), served.serving():
            await checked(served)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run())


def test_the_settings_are_kept(tmp_path: Path) -> None:
    config = install(tmp_path / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0))
    settings.save(msgspec.structs.replace(config, http_limits=_LIMITS))
    assert install(tmp_path / "data").http_limits == _LIMITS

"""Connections through the load balancer on which nothing moves."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cumulet.balancer import proxy as proxy_module
from cumulet.balancer.proxy import Frontend, Proxy
from cumulet.common.egress import Egress, Exempt

_IDLE = 0.5


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def frontend(idle: float | None) -> AsyncIterator[Frontend]:
    """Where clients reach a server that sends back what it gets."""
    ended: list[asyncio.Event] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.Event())
        mine = ended[-1]
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(100):
                writer.write(data)
        await close(writer)
        mine.set()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = Frontend("127.0.0.1", free.getsockname()[1])
    proxy = Proxy(Egress(exempt=[Exempt("127.0.0.0/8")]))
    await proxy.set(where, [server.sockets[0].getsockname()], idle=idle)
    try:
        yield where
        for event in ended:
            await event.wait()
        for _ in range(10):  # turns of the loop, in which the proxy closes what both ends have closed
            await asyncio.sleep(0)
    finally:
        proxy.close()
        server.close()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def connection(where: Frontend) -> AsyncIterator[Ends]:
    """A client's, on which something has been said."""
    ends = await asyncio.open_connection(*where)
    try:
        await say(ends, b"hello")
        yield ends
    finally:
        await close(ends[1])


async def say(ends: Ends, word: bytes) -> None:
    reader, writer = ends
    writer.write(word)
    assert await reader.readexactly(len(word)) == word


async def is_reset(ends: Ends) -> None:
    """Wait for it."""
    with pytest.raises(ConnectionResetError):
        await ends[0].read()


async def test_one_that_is_idle_is_reset() -> None:
    async with asyncio.timeout(20), frontend(_IDLE) as where, connection(where) as idle:
        await is_reset(idle)


async def test_one_on_which_nothing_was_ever_said_is_reset() -> None:
    async with asyncio.timeout(20), frontend(_IDLE) as where:
        ends = await asyncio.open_connection(*where)
        await is_reset(ends)
        await close(ends[1])


async def test_one_that_is_kept_alive_by_tcp_stays() -> None:
    async with (
        asyncio.timeout(20),
        frontend(_IDLE * 5) as where,
        connection(where) as kept,
        connection(where) as idle,
    ):
        found = kept[1].get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            found.setsockopt(socket.IPPROTO_TCP, option, 1)
        await is_reset(idle)
        await say(kept, b"still here")


async def test_one_on_which_something_moves_stays() -> None:
    async with (
        asyncio.timeout(20),
        frontend(_IDLE) as where,
        connection(where) as busy,
        connection(where) as idle,
    ):
        resetting = asyncio.create_task(is_reset(idle))
        while not resetting.done():
            await say(busy, b"word")
            await asyncio.wait([resetting], timeout=_IDLE / 4)
        await resetting
        await say(busy, b"word")


async def test_a_port_without_a_bound_keeps_them() -> None:
    async with (
        asyncio.timeout(20),
        frontend(None) as forever,
        frontend(_IDLE) as bounded,
        connection(forever) as kept,
        connection(bounded) as idle,
    ):
        await is_reset(idle)
        await say(kept, b"still here")


async def test_one_that_the_client_has_closed_is_reset_at_an_end_point_that_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proxy_module, "HALF_CLOSED", _IDLE)
    proxy = Proxy(Egress(exempt=[Exempt("127.0.0.0/8")]))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = Frontend("127.0.0.1", free.getsockname()[1])

        def keep() -> int:
            kept, _ = server.accept()
            with kept:
                assert kept.recv(100) == b"hello"
                assert kept.recv(100) == b""
                reset = select.poll()
                reset.register(kept, 0)
                (found,) = reset.poll(20_000)
                return found[1]

        free.close()
        await proxy.set(where, [server.getsockname()])
        kept = asyncio.create_task(asyncio.to_thread(keep))
        _, writer = await asyncio.open_connection(*where)
        writer.write(b"hello")
        await close(writer)
        assert await kept & select.POLLERR
    proxy.close()


async def test_connections_give_their_descriptors_back() -> None:
    async with asyncio.timeout(60), frontend(60.0) as where:
        counts = []
        for _ in range(2):
            for _ in range(500):
                async with connection(where):
                    pass
            counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[1] <= counts[0] + 8

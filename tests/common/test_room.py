"""The shutdown of a room while it serves clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from cumulet.common import room as rooms
from cumulet.common import tls
from cumulet.common.config import Config
from cumulet.common.room import Room, listen
from cumulet.common.upgrade import Upgraded


async def _for_ever(request: web.Request) -> None:
    await asyncio.Event().wait()


async def _for_a_body(request: web.Request) -> None:
    await request.read()


async def _for_what_comes_after_an_upgrade(request: web.Request) -> None:
    carrier = await Upgraded("something", {}).take(request)
    while await carrier.read():
        pass


_UPGRADE = "Connection: Upgrade\r\nUpgrade: something\r\nContent-Length: 0"


@pytest.mark.parametrize(
    ("wait", "head"),
    [
        (_for_ever, "Content-Length: 0"),
        (_for_a_body, "Content-Length: 10"),
        (_for_what_comes_after_an_upgrade, _UPGRADE),
    ],
)
async def test_who_does_not_end_is_cut_off_and_has_tidied_up_before_the_room_goes_on(
    config: Config, monkeypatch: pytest.MonkeyPatch, wait: Callable[[web.Request], Awaitable[None]], head: str
) -> None:
    monkeypatch.setattr(rooms, "GRACE", 0.1)
    began, ended = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        began.set()
        try:
            await wait(request)
        finally:
            await asyncio.to_thread(lambda: None)  # as long as it takes
            ended.set()
        return web.Response()

    app = web.Application()
    app.router.add_post("/", handle)
    room = Room("kube", config, [listen(address) for address in config.listening("kube")])
    address = config.addresses["kube"]
    async with room.serving(app):
        _, writer = await asyncio.open_connection(address.host, address.port, ssl=tls.client_context(config.ca_file))
        writer.write(f"POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        await began.wait()
    assert ended.is_set()
    writer.close()

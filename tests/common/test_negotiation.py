"""A server's side of the streams of a command, to clients that open them by SPDY over TLS, or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from cumulet.common import tls
from cumulet.common.config import Config
from cumulet.common.kubernetes.channels import SPDY_VERSIONS, Channels, Options
from cumulet.common.kubernetes.negotiation import VERSION_HEADER, ClientLeftError, accept
from cumulet.common.room import Room, listen
from cumulet.common.spdy import PROTOCOL, Session
from cumulet.common.upgrade import Carrier, upgrade

Use = Callable[[Channels], Awaitable[None]]


@contextlib.asynccontextmanager
async def _asked(config: Config, use: Use) -> AsyncIterator[tuple[Carrier, asyncio.Future[str]]]:
    """A client that has asked for output and no more, and what its handler failed with in the end."""
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            async with accept(request, Options(stdin=False, stdout=True, stderr=False, tty=False)) as (
                answer,
                client,
            ):
                await use(client)
        except BaseException as error:
            told.set_result(repr(error))
            raise
        told.set_result("")
        return answer

    app = web.Application()
    app.router.add_post("/", handle)
    headers = CIMultiDict({VERSION_HEADER: SPDY_VERSIONS[0]})
    room = Room("kube", config, [listen(address) for address in config.listening("kube")])
    async with room.serving(app):
        url, context = URL(config.url("kube")), tls.client_context(config.ca_file)
        async with upgrade(url, PROTOCOL, headers, context) as (carrier, _):
            yield carrier, told


async def test_what_fails_while_streams_are_used_is_no_fault_of_the_client(config: Config) -> None:
    async def use(client: Channels) -> None:
        raise TimeoutError("the container is slow")

    async with _asked(config, use) as (carrier, told):
        session = Session(carrier.send)
        running = asyncio.create_task(session.run(carrier.read))
        await asyncio.gather(session.open({"streamtype": "error"}), session.open({"streamtype": "stdout"}))
        assert "the container is slow" in await told
        await running


async def test_a_client_that_does_not_speak_spdy_is_not_waited_for(config: Config) -> None:
    async def use(client: Channels) -> None:
        pytest.fail("there are no streams")

    async with _asked(config, use) as (carrier, told):
        await carrier.send(bytes.fromhex("8003000100ffffff"))  # a control frame of 16 MiB
        assert ClientLeftError.__name__ in await told

"""How a client and a server agree on what carries the streams of a command, or of a port: SPDY or WebSockets, and a version."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from aiohttp import WSMsgType, web

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.channels import (
    ERROR,
    SPDY_VERSIONS,
    STDERR,
    STDOUT,
    TYPES,
    V5,
    WEBSOCKET_VERSIONS,
    Channels,
    Options,
    SpdyChannels,
    WebSocketChannels,
)
from cumulet.common.spdy import PROTOCOL, Session, Stream
from cumulet.common.tasks import wait_for
from cumulet.common.upgrade import Upgraded

#: The header in which versions are offered and chosen where SPDY is upgraded to.
VERSION_HEADER = "X-Stream-Protocol-Version"
#: The largest message of a WebSocket that is taken.
MESSAGE_LIMIT = 16 * 1024 * 1024
_CREATION_SECONDS = 30.0


class ClientLeftError(Exception):
    """The client went away, or did nothing for too long, before it had opened the streams that it asked for."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__("the client has not opened its streams")
        self.response = response


@contextlib.asynccontextmanager
async def accept(request: web.BaseRequest, options: Options) -> AsyncIterator[tuple[web.StreamResponse, Channels]]:
    """A client's streams, by WebSocket or by SPDY: the answer, which the handler is to return, and the channels.

    Raises `web.HTTPException` where the client asks for nothing that is spoken here, `ClientLeftError` where it opens no
    streams, `ConnectionError` where it is gone.
    """
    if fold(request.headers.get("Upgrade", "")) == "websocket":
        socket = await accept_websocket(request, (V5, *WEBSOCKET_VERSIONS))
        channels = WebSocketChannels(socket, options)
        # A first frame without data tells the client that the other end is there.
        await channels.send(bytes([STDOUT if options.stdout else STDERR if options.stderr else ERROR]))
        yield socket, channels
        return
    version = negotiate(request, SPDY_VERSIONS)
    response = Upgraded(PROTOCOL, {VERSION_HEADER: version})
    carrier = await response.take(request)
    streams: dict[str, Stream] = {}
    wanted = set(options.streams(resizes=version in SPDY_VERSIONS[:2]))
    settled = asyncio.Event()

    def opened(stream: Stream) -> bool:
        name = stream.headers.get("streamtype", "")
        if name not in TYPES or name in streams:
            return False
        streams[name] = stream
        if wanted <= streams.keys():
            settled.set()
        return True

    session = Session(carrier.send, opened)
    running = asyncio.create_task(session.run(carrier.read))
    running.add_done_callback(lambda _: settled.set())
    try:
        await wait_for(settled, _CREATION_SECONDS)
        if not wanted <= streams.keys():
            raise ClientLeftError(response)
        yield response, SpdyChannels(session, streams, ("stdin", "resize"), version)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await carrier.close()
    if not running.cancelled():
        running.result()  # what was not foreseen must not go unseen


async def accept_websocket(request: web.BaseRequest, known: Sequence[str]) -> web.WebSocketResponse:
    """A client's WebSocket with the first of its protocols that is known, or none where it asks for none.

    Raises `web.HTTPForbidden` where it knows no known one.
    """
    offered = websocket_protocols(request)
    common = [name for name in offered if name in known]
    if offered and not common:
        why = f"requested protocol(s) are not supported: {' '.join(offered)}; supports {' '.join(known)}"
        raise web.HTTPForbidden(text=why)
    socket = web.WebSocketResponse(protocols=common[:1], max_msg_size=MESSAGE_LIMIT)
    await socket.prepare(request)
    return socket


def websocket_protocols(request: web.BaseRequest) -> list[str]:
    """What a client offers: joined with commas, in one header or in several."""
    lines = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [name for line in lines for item in line.split(",") if (name := item.strip())]


async def tunnelled(socket: web.WebSocketResponse) -> bytes:
    """What comes next through a WebSocket that carries bytes; nothing at the end."""
    while True:
        message = await socket.receive()
        if message.type is not WSMsgType.BINARY:
            return b""
        if message.data:
            data: bytes = message.data
            return data


def negotiate(request: web.BaseRequest, known: Sequence[str]) -> str:
    """The first version that a client offers for SPDY and that is known.

    Raises `web.HTTPBadRequest` where it does not ask for SPDY, `web.HTTPForbidden` where no version is known.
    """
    if fold(request.headers.get("Upgrade", "")) != fold(PROTOCOL):
        raise web.HTTPBadRequest(text=f"unable to upgrade: {PROTOCOL} and WebSockets are spoken here")
    lines = request.headers.getall(VERSION_HEADER, [])
    offered = [name for line in lines for item in line.split(",") if (name := item.strip())]
    if not offered:
        raise web.HTTPBadRequest(text=f"unable to upgrade: header {VERSION_HEADER} names no protocol")
    for name in offered:
        if name in known:
            return name
    why = f"client supports [{' '.join(offered)}], server accepts [{' '.join(known)}]"
    headers = {"X-Accepted-Stream-Protocol-Versions": ", ".join(known)}
    raise web.HTTPForbidden(text=f"unable to upgrade: unable to negotiate protocol: {why}", headers=headers)

"""Negotiation of the transport (SPDY or WebSocket) and the version for the streams of a command or a port."""

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

#: The header that offers and selects versions in an upgrade to SPDY.
VERSION_HEADER = "X-Stream-Protocol-Version"
#: The largest message that a WebSocket accepts, in bytes.
MESSAGE_LIMIT = 16 * 1024 * 1024
_CREATION_SECONDS = 30.0


class ClientLeftError(Exception):
    """The client disconnected or timed out before it opened the streams that it requested."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__("the client did not open its streams")
        self.response = response


@contextlib.asynccontextmanager
async def accept(request: web.BaseRequest, options: Options) -> AsyncIterator[tuple[web.StreamResponse, Channels]]:
    """Accept the streams of a client over WebSocket or SPDY.

    Yields the response, which the handler returns, and the channels.

    Raises `web.HTTPException` if no version is common, `ClientLeftError` if the client opens no streams, and
    `ConnectionError` if it is gone.
    """
    if fold(request.headers.get("Upgrade", "")) == "websocket":
        socket = await accept_websocket(request, (V5, *WEBSOCKET_VERSIONS))
        channels = WebSocketChannels(socket, options)
        # A first empty frame shows the client that the stream is open.
        await channels.send(bytes([STDOUT if options.stdout else STDERR if options.stderr else ERROR]))
        yield socket, channels
        return
    version = negotiate(request, SPDY_VERSIONS)
    response = Upgraded(PROTOCOL, {VERSION_HEADER: version})
    carrier = await response.take(request)
    streams: dict[str, Stream] = {}
    requested = set(options.streams(resizes=version in SPDY_VERSIONS[:2]))
    settled = asyncio.Event()

    def opened(stream: Stream) -> bool:
        name = stream.headers.get("streamtype", "")
        if name not in TYPES or name in streams:
            return False
        streams[name] = stream
        if requested <= streams.keys():
            settled.set()
        return True

    session = Session(carrier.send, opened)
    running = asyncio.create_task(session.run(carrier.read))
    running.add_done_callback(lambda _: settled.set())
    try:
        await wait_for(settled, _CREATION_SECONDS)
        if not requested <= streams.keys():
            raise ClientLeftError(response)
        yield response, SpdyChannels(session, streams, ("stdin", "resize"), version)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await carrier.close()
    if not running.cancelled():
        running.result()  # raise an unexpected error


async def accept_websocket(request: web.BaseRequest, known: Sequence[str]) -> web.WebSocketResponse:
    """Accept a WebSocket with the first protocol of the client that is known, or without one if it offers none.

    Raises `web.HTTPForbidden` if none of the offered protocols is known.
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
    """The protocols that a client offers, in one header with commas or in several headers."""
    lines = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [name for line in lines for item in line.split(",") if (name := item.strip())]


async def tunnelled(socket: web.WebSocketResponse) -> bytes:
    """The next bytes from a WebSocket that carries a byte stream. Empty at the end."""
    while True:
        message = await socket.receive()
        if message.type is not WSMsgType.BINARY:
            return b""
        if message.data:
            data: bytes = message.data
            return data


def negotiate(request: web.BaseRequest, known: Sequence[str]) -> str:
    """The first known version that a client offers for SPDY.

    Raises `web.HTTPBadRequest` if it does not request SPDY, and `web.HTTPForbidden` if no version is known.
    """
    if fold(request.headers.get("Upgrade", "")) != fold(PROTOCOL):
        raise web.HTTPBadRequest(text=f"unable to upgrade: {PROTOCOL} and WebSockets are supported")
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

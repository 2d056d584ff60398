"""Port-forward: TCP to a pod's ports, over SPDY, itself or in a WebSocket, or over a WebSocket with channels.

Over SPDY (`portforward.k8s.io`) each connection is a stream of type `error` and one of type `data`, with the port and a number
of the request in their headers. kubectl from 1.31 on tunnels that in a WebSocket (`SPDY/3.1+portforward.k8s.io`). Other
clients speak `v4.channel.k8s.io`: a pair of channels a port, data and error, each beginning with the port as two bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

from aiohttp import WSMsgType, web

from cumulet.common.ascii import fold, is_digits
from cumulet.common.kubernetes.negotiation import (
    VERSION_HEADER,
    accept_websocket,
    negotiate,
    tunnelled,
)
from cumulet.common.spdy import PROTOCOL, Send, Session, Stream
from cumulet.common.tasks import TaskSet, task_set
from cumulet.common.upgrade import Upgraded

VERSION = "portforward.k8s.io"
TUNNEL = f"{PROTOCOL}+{VERSION}"
CHANNELS = ("v4.channel.k8s.io", "channel.k8s.io")
_CHUNK = 64 * 1024
_CONNECT = 10.0
#: Channels are numbered by a byte, and a port has two.
_PORTS = 128
#: So many seconds the second stream of a pair may take after the first.
_SECOND = 30.0


class _Pair(NamedTuple):
    error: Stream
    data: Stream


async def serve(request: web.Request, address: str) -> web.StreamResponse:
    """Answer a request for ports of a pod at that address. Raises `web.HTTPException`, `ConnectionError`."""
    async with task_set() as tasks:
        if fold(request.headers.get("Upgrade", "")) == "websocket":
            ports = [port for item in request.query.getall("port", []) for port in item.split(",")]
            if not all(_is_port(port) for port in ports):
                raise web.HTTPBadRequest(text="ports are numbers between 1 and 65535")
            if len(ports) > _PORTS:
                raise web.HTTPBadRequest(text=f"no more than {_PORTS} ports can be forwarded at once")
            socket = await accept_websocket(request, (TUNNEL, *CHANNELS))
            if socket.ws_protocol == TUNNEL:
                session = _session(socket.send_bytes, address, tasks)
                await session.run(lambda: tunnelled(socket))
            else:
                await _channels(socket, address, [int(port) for port in ports], tasks)
            with contextlib.suppress(ConnectionError):
                await socket.close()
            return socket
        response = Upgraded(PROTOCOL, {VERSION_HEADER: negotiate(request, (VERSION,))})
        carrier = await response.take(request)
        await _session(carrier.send, address, tasks).run(carrier.read)
        await carrier.close()
        return response


def _session(send: Send, address: str, tasks: TaskSet) -> Session:
    """A session in which each pair of streams becomes a TCP connection to the pod."""
    alone: dict[str, tuple[str, Stream, asyncio.Task[None]]] = {}  # the first of each pair, and what gives it up

    async def give_up(request: str, stream: Stream) -> None:
        await asyncio.sleep(_SECOND)
        del alone[request]
        with contextlib.suppress(ConnectionError):
            await stream.reset()

    def opened(stream: Stream) -> bool:
        kind, headers = stream.headers.get("streamtype", ""), stream.headers
        if kind not in ("error", "data") or not _is_port(headers.get("port", "")):
            return False
        # Clients of old number no requests: they open a pair's streams one right after the other, error first.
        request = headers.get("requestid") or f"stream {stream.number - (2 if kind == 'data' else 0)}"
        if request not in alone:
            alone[request] = kind, stream, tasks.start(give_up(request, stream), f"half of port-forward {request}")
            return True
        first, other, patience = alone[request]
        if first == kind:
            return False
        patience.cancel()
        del alone[request]
        tasks.start(_connection(_Pair(**{first: other, kind: stream}), address), f"port-forward {request}")
        return True

    return Session(send, opened)


async def _connection(pair: _Pair, address: str) -> None:
    """One TCP connection to the pod. Where it fails, the error says why, and both streams are broken off."""
    port = pair.data.headers["port"]
    try:
        reader, writer = await _connect(address, int(port))
    except (OSError, TimeoutError) as error:
        await _break(pair, _failure(port, address, error))
        return

    async def inward() -> None:
        while data := await pair.data.read():
            writer.write(data)
            await writer.drain()
        if pair.data.broken:
            writer.transport.abort()
        elif writer.can_write_eof():
            writer.write_eof()

    async def outward() -> None:
        while data := await reader.read(_CHUNK):
            await pair.data.write(data)
        await pair.data.close()

    try:
        results = await asyncio.gather(inward(), outward(), return_exceptions=True)
        failed = next((item for item in results if isinstance(item, Exception)), None)
        await _break(pair, b"" if failed is None or pair.data.broken else _failure(port, address, failed))
    finally:
        writer.transport.abort()


async def _break(pair: _Pair, why: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        if why:
            await pair.error.write(why)
        await pair.error.close()
        await pair.data.reset()
        await pair.error.reset()


async def _channels(socket: web.WebSocketResponse, address: str, ports: list[int], tasks: TaskSet) -> None:
    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
    writers: dict[int, asyncio.StreamWriter] = {}

    async def outward(index: int, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await socket.send_bytes(bytes([2 * index]) + data)
        # There is no word for the end of one channel: the end of all is that of the first.
        await socket.close()

    try:
        for index, port in enumerate(ports):
            try:
                reader, writers[index] = await _connect(address, port)
            except (OSError, TimeoutError) as error:
                await socket.send_bytes(bytes([2 * index + 1]) + _failure(str(port), address, error))
                continue
            tasks.start(outward(index, reader), f"port-forward {port}")
        async for message in socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            index, is_error = divmod(message.data[0], 2)
            if index in writers and not is_error:
                writer = writers[index]
                writer.write(message.data[1:])
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
    finally:
        for writer in writers.values():
            writer.transport.abort()


async def _connect(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(_CONNECT):
        return await asyncio.open_connection(address, port)


def _is_port(text: str) -> bool:
    return is_digits(text) and 0 < int(text[:6]) < 65536


def _failure(port: str, address: str, error: Exception) -> bytes:
    return f"error forwarding port {port} to pod at {address}: {error or type(error).__name__}".encode()

"""Port-forward: TCP to a pod's ports over SPDY, over SPDY in a WebSocket, or over a WebSocket with channels.

In SPDY (`portforward.k8s.io`) a connection has an `error` stream and a `data` stream. Their headers contain the port and
the id of the request. kubectl tunnels that in a WebSocket since 1.31 (`SPDY/3.1+portforward.k8s.io`). Other
clients use `v4.channel.k8s.io`: two channels per port, data and error, each starting with the port as two bytes.
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
#: The number of a channel is a byte, and a port has two channels.
_PORTS = 128
#: Seconds in which the second stream of a pair must follow the first.
_SECOND = 30.0


class _Pair(NamedTuple):
    error: Stream
    data: Stream


async def serve(request: web.Request, address: str) -> web.StreamResponse:
    """Serve a request for ports of a pod at that address. Raises `web.HTTPException`, `ConnectionError`."""
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
    """Return a session in which each pair of streams becomes a TCP connection to the pod."""
    # The first stream of each incomplete pair, and the task that resets it after the timeout.
    incomplete: dict[str, tuple[str, Stream, asyncio.Task[None]]] = {}

    async def expire(request: str, stream: Stream) -> None:
        await asyncio.sleep(_SECOND)
        del incomplete[request]
        with contextlib.suppress(ConnectionError):
            await stream.reset()

    def opened(stream: Stream) -> bool:
        kind, headers = stream.headers.get("streamtype", ""), stream.headers
        if kind not in ("error", "data") or not _is_port(headers.get("port", "")):
            return False
        # Old clients send no request id: they open the streams of a pair in sequence, the error stream first.
        request = headers.get("requestid") or f"stream {stream.number - (2 if kind == 'data' else 0)}"
        if request not in incomplete:
            incomplete[request] = (
                kind,
                stream,
                tasks.start(expire(request, stream), f"half of port-forward {request}"),
            )
            return True
        first, other, timeout = incomplete[request]
        if first == kind:
            return False
        timeout.cancel()
        del incomplete[request]
        tasks.start(_connection(_Pair(**{first: other, kind: stream}), address), f"port-forward {request}")
        return True

    return Session(send, opened)


async def _connection(pair: _Pair, address: str) -> None:
    """Run one TCP connection to the pod. On failure, send the reason on the error stream, and reset both streams."""
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
        # The protocol cannot close one channel: the first end closes the WebSocket.
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

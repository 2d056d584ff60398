"""Port-forward: TCP to a pod's ports, over a WebSocket that carries SPDY, or one that carries channels.

kubectl from 1.31 on tunnels SPDY (`SPDY/3.1+portforward.k8s.io`): for each connection a stream of type `error` and
one of type `data`, with the port and a number of the request in their headers. Other clients speak `v4.channel.k8s.io`:
a pair of channels a port, data and error, each beginning with the port as two bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import NamedTuple

from aiohttp import WSMsgType, web

from cumulet.common.tasks import TaskSet, task_set
from cumulet.node.spdy import Connection, SpdyError, Stream

log = logging.getLogger(__name__)

TUNNEL = "SPDY/3.1+portforward.k8s.io"
CHANNELS = "v4.channel.k8s.io"
_CHUNK = 64 * 1024
_CONNECT = 10.0


class _Pair(NamedTuple):
    error: Stream
    data: Stream


async def forward(socket: web.WebSocketResponse, address: str, ports: list[int]) -> None:
    """Serve until the other end closes; `ports` are those of the channels, in their order."""
    async with task_set() as tasks:
        if socket.ws_protocol == TUNNEL:
            await _tunnel(socket, address, tasks)
        else:
            await _channels(socket, address, ports, tasks)


async def _tunnel(socket: web.WebSocketResponse, address: str, tasks: TaskSet) -> None:
    halves: dict[str, dict[str, Stream]] = {}

    def opened(stream: Stream) -> None:
        number, kind = stream.headers.get("requestid", ""), stream.headers.get("streamtype", "")
        found = halves.setdefault(number, {})
        found[kind] = stream
        if {"error", "data"} <= found.keys():
            del halves[number]
            tasks.start(_serve(connection, _Pair(found["error"], found["data"]), address), f"port-forward {number}")

    connection = Connection(socket.send_bytes, opened)
    try:
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await connection.receive(message.data)
    except SpdyError as error:
        log.info("port-forward ended: %s", error)
    finally:
        connection.close()


async def _serve(connection: Connection, pair: _Pair, address: str) -> None:
    """One TCP connection to the pod."""
    text = pair.data.headers.get("port", "")
    try:
        reader, writer = await _connect(address, int(text) if text.isascii() and text.isdecimal() else 0)
    except (OSError, TimeoutError, ValueError) as error:
        await pair.error.write(_failure(text, address, error))
        await pair.error.close()
        await pair.data.close()
        connection.forget(pair.data)
        connection.forget(pair.error)
        return

    async def inward() -> None:
        while data := await pair.data.read():
            writer.write(data)
            await writer.drain()
        if pair.data.reset:
            writer.transport.abort()
        elif writer.can_write_eof():
            writer.write_eof()

    async def outward() -> None:
        while data := await reader.read(_CHUNK):
            await pair.data.write(data)
        await pair.data.close()

    try:
        results = await asyncio.gather(inward(), outward(), return_exceptions=True)
        broken = next((item for item in results if isinstance(item, Exception)), None)
        with contextlib.suppress(ConnectionError):
            if broken is not None and not pair.data.reset:
                await pair.error.write(_failure(text, address, broken))
            await pair.error.close()
    finally:
        writer.transport.abort()
        connection.forget(pair.data)
        connection.forget(pair.error)


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
            if message.type is WSMsgType.BINARY and message.data and message.data[0] // 2 in writers:
                writer = writers[message.data[0] // 2]
                writer.write(message.data[1:])
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
    finally:
        for writer in writers.values():
            writer.transport.abort()


async def _connect(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not 0 < port < 65536:
        raise ValueError("it is no port")
    async with asyncio.timeout(_CONNECT):
        return await asyncio.open_connection(address, port)


def _failure(port: str, address: str, error: Exception) -> bytes:
    return f"error forwarding port {port} to pod at {address}: {error or type(error).__name__}".encode()

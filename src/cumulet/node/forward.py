"""Port-forward: TCP to ports on a pod's loopback, over SPDY, over SPDY in a WebSocket, or over a WebSocket with channels.

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
from cumulet.common.tasks import TaskSet, task_set, until_all_end
from cumulet.common.upgrade import Upgraded
from cumulet.node.connections import Connect, Connection, ForwardError

VERSION = "portforward.k8s.io"
TUNNEL = f"{PROTOCOL}+{VERSION}"
CHANNELS = ("v4.channel.k8s.io", "channel.k8s.io")
#: The number of a channel is a byte, and a port has two channels.
_PORTS = 128
#: Seconds in which the second stream of a pair must follow the first.
_SECOND = 30.0


class _Pair(NamedTuple):
    error: Stream
    data: Stream


async def serve(request: web.Request, connect: Connect) -> web.StreamResponse:
    """Serve a request for ports of a pod. Raises `web.HTTPException`, `ConnectionError`."""
    async with task_set() as tasks:
        if fold(request.headers.get("Upgrade", "")) == "websocket":
            ports = [port for item in request.query.getall("port", []) for port in item.split(",")]
            if not all(_is_port(port) for port in ports):
                raise web.HTTPBadRequest(text="ports are numbers between 1 and 65535")
            if len(ports) > _PORTS:
                raise web.HTTPBadRequest(text=f"no more than {_PORTS} ports can be forwarded at once")
            socket = await accept_websocket(request, (TUNNEL, *CHANNELS))
            if socket.ws_protocol == TUNNEL:
                session = _session(socket.send_bytes, connect, tasks)
                await session.run(lambda: tunnelled(socket))
            else:
                await _channels(socket, connect, [int(port) for port in ports], tasks)
            with contextlib.suppress(ConnectionError):
                await socket.close()
            return socket
        response = Upgraded(PROTOCOL, {VERSION_HEADER: negotiate(request, (VERSION,))})
        carrier = await response.take(request)
        await _session(carrier.send, connect, tasks).run(carrier.read)
        await carrier.close()
        return response


def _session(send: Send, connect: Connect, tasks: TaskSet) -> Session:
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
        tasks.start(_connection(_Pair(**{first: other, kind: stream}), connect), f"port-forward {request}")
        return True

    return Session(send, opened)


async def _connection(pair: _Pair, connect: Connect) -> None:
    """Run one TCP connection to the pod. On failure, send the reason on the error stream, and reset both streams."""
    try:
        async with connect(int(pair.data.headers["port"])) as connection:

            async def inward() -> None:
                while data := await pair.data.read():
                    await connection.write(data)
                if pair.data.broken:
                    raise ConnectionAbortedError("the client has reset the connection")
                await connection.end()

            async def outward() -> None:
                while data := await connection.read():
                    await pair.data.write(data)
                await pair.data.close()

            await until_all_end(inward(), outward())
    except (OSError, ForwardError) as error:
        await _break(pair, b"" if pair.data.broken else str(error).encode())
    else:
        await _break(pair, b"")


async def _break(pair: _Pair, why: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        if why:
            await pair.error.write(why)
        await pair.error.close()
        await pair.data.reset()
        await pair.error.reset()


async def _channels(socket: web.WebSocketResponse, connect: Connect, ports: list[int], tasks: TaskSet) -> None:
    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
    connections: dict[int, Connection] = {}

    async def outward(index: int, connection: Connection) -> None:
        try:
            while data := await connection.read():
                await socket.send_bytes(bytes([2 * index]) + data)
        except ForwardError as error:
            await socket.send_bytes(bytes([2 * index + 1]) + str(error).encode())
        except ConnectionError:
            pass
        # The protocol cannot close one channel: the first end closes the WebSocket.
        await socket.close()

    async with contextlib.AsyncExitStack() as stack:
        for index, port in enumerate(ports):
            try:
                connections[index] = await stack.enter_async_context(connect(port))
            except (OSError, ForwardError) as error:
                await socket.send_bytes(bytes([2 * index + 1]) + str(error).encode())
                continue
            tasks.start(outward(index, connections[index]), f"port-forward {port}")
        async for message in socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            index, is_error = divmod(message.data[0], 2)
            if index in connections and not is_error:
                with contextlib.suppress(ConnectionError):
                    await connections[index].write(message.data[1:])


def _is_port(text: str) -> bool:
    return is_digits(text) and 0 < int(text[:6]) < 65536

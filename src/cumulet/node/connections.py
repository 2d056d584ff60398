"""A TCP connection to a port of a pod: through the provider to the pod's loopback, or else to the pod's address."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import aiohttp
import msgspec
from aiohttp import WSMsgType

from cumulet.common.arm import ArmError
from cumulet.common.kubernetes.channels import CLOSE, ERROR, STDIN, STDOUT, failure_text
from cumulet.common.kubernetes.negotiation import MESSAGE_LIMIT
from cumulet.common.kubernetes.objects import Status
from cumulet.node.aci import ContainerGroups

_CHUNK = 64 * 1024
_CONNECT = 10.0
#: What a provider without this project's action answers.
_UNKNOWN = (404, 405)


class ForwardError(Exception):
    """The connection failed; the message is the kubelet's."""


class Connection(Protocol):
    """A TCP connection to a port. All methods raise `ConnectionError`, `read` also `ForwardError`."""

    async def read(self) -> bytes:
        """Return what the server sent, empty at the end."""

    async def write(self, data: bytes) -> None:
        """Send data to the server."""

    async def end(self) -> None:
        """End this half of the connection."""


Connect = Callable[[int], AbstractAsyncContextManager[Connection]]


class Ports:
    """The ports of one pod, whose container group has that name; `address` is the pod's."""

    def __init__(
        self, pod: str, group: str, address: str, groups: ContainerGroups, session: aiohttp.ClientSession
    ) -> None:
        self._pod = pod
        self._group = group
        self._address = address
        self._groups = groups
        self._session = session

    @contextlib.asynccontextmanager
    async def connect(self, port: int) -> AsyncIterator[Connection]:
        """Yield a connection to a port. Raises `ForwardError`, `ConnectionError`."""
        where = f"error forwarding port {port} to pod {self._pod}, uid "
        try:
            offer = await self._groups.forward(self._group, port)
        except ArmError as error:
            if error.status not in _UNKNOWN:
                raise ForwardError(f"{where}: {error}") from None
            async with connect_directly(self._address, port, where) as connection:
                yield connection
            return
        async with self._session.ws_connect(offer["webSocketUri"], max_msg_size=MESSAGE_LIMIT) as socket:
            await socket.send_str(offer["password"])
            yield _Relayed(socket, where)


class _Relayed:
    """A connection that the provider makes, over its WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, where: str) -> None:
        self._socket = socket
        self._where = where

    async def read(self) -> bytes:
        """See `Connection`."""
        async for message in self._socket:
            frame: bytes = message.data if message.type is WSMsgType.BINARY else b""
            if frame[:1] == bytes([STDOUT]):
                return frame[1:]
            if frame[:1] == bytes([ERROR]):
                raise ForwardError(f"{self._where}: {_message(frame[1:])}")
            if frame == bytes([CLOSE, STDOUT]):
                return b""
        raise ForwardError(f"{self._where}: the container group ended the connection")

    async def write(self, data: bytes) -> None:
        """See `Connection`."""
        await self._socket.send_bytes(bytes([STDIN]) + data)

    async def end(self) -> None:
        """See `Connection`."""
        await self._socket.send_bytes(bytes([CLOSE, STDIN]))


class _Direct:
    """A connection to the pod's address, for a provider that makes none."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """See `Connection`."""
        return await self._reader.read(_CHUNK)

    async def write(self, data: bytes) -> None:
        """See `Connection`."""
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        """See `Connection`."""
        if self._writer.can_write_eof():
            self._writer.write_eof()


@contextlib.asynccontextmanager
async def connect_directly(address: str, port: int, where: str) -> AsyncIterator[Connection]:
    """Yield a connection to an address. Raises `ForwardError`, whose message begins with `where`."""
    try:
        async with asyncio.timeout(_CONNECT):
            reader, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError) as error:
        raise ForwardError(f"{where}: dial tcp {address}:{port}: {error or type(error).__name__}") from None
    try:
        yield _Direct(reader, writer)
    finally:
        writer.transport.abort()


def _message(status: bytes) -> str:
    """Return the cause in a `Status` of the provider."""
    try:
        decoded = msgspec.json.decode(status, type=Status)
    except msgspec.DecodeError:
        return failure_text(status).decode(errors="replace")
    causes = (decoded.get("details") or {}).get("causes") or ()
    return "".join(cause.get("message", "") for cause in causes) or str(decoded.get("message", ""))

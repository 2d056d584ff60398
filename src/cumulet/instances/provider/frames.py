"""The frames of a client's WebSocket, as input of a process and sizes of its terminal.

In ACI's protocol a frame is input. In `v5.channel.k8s.io` it starts with its channel: 0 for input, 4 for the size of the
terminal, 255 to close a channel.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

import msgspec
from aiohttp import WSMsgType, web

from cumulet.common.kubernetes.channels import CLOSE, RESIZE, STDIN
from cumulet.common.kubernetes.objects import Status


class Input(Protocol):
    """The input of a process."""

    async def write(self, data: bytes) -> None:
        """Write input; empty data closes it."""

    async def resize(self, columns: int, rows: int) -> None:
        """Set the size of the terminal."""


class _Size(msgspec.Struct):
    """The size of a terminal, as clients of Kubernetes send it."""

    width: int = msgspec.field(name="Width")
    height: int = msgspec.field(name="Height")


async def deliver(socket: web.WebSocketResponse, process: Input, *, channels: bool) -> None:
    """Deliver a client's frames until it closes the WebSocket."""
    async for message in socket:
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            continue
        data: bytes = message.data.encode() if isinstance(message.data, str) else message.data
        if not channels:
            if data:
                await process.write(data)
        elif data:
            channel, rest = data[0], data[1:]
            if channel == STDIN and rest:
                await process.write(rest)
            elif channel == CLOSE and rest == bytes([STDIN]):
                await process.write(b"")
            elif channel == RESIZE:
                with contextlib.suppress(msgspec.DecodeError):
                    size = msgspec.json.decode(rest, type=_Size)
                    await process.resize(size.width, size.height)


def internal_failure(message: str) -> Status:
    """Return the status of a process that could not be run or reached."""
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}

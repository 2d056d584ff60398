"""One TCP connection to a port of a group, over a WebSocket.

Frames start with a channel, as in `v5.channel.k8s.io`: 0 to the server, 1 from it, 3 a `Status` when the connection failed, and
255 with the number of a channel that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from aiohttp import WSMsgType, web

from cumulet.common.kubernetes.channels import CLOSE, ERROR, STDIN, STDOUT, failure
from cumulet.common.tasks import until_one_ends
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.sockets import connect

_CHUNK = 64 * 1024


async def forward(websocket: web.WebSocketResponse, namespace: Path, sandbox: str, port: int) -> None:
    """Connect to a port, and copy both ways until both have ended, or the WebSocket is closed."""
    try:
        reader, writer = await connect(namespace, sandbox, port)
    except SandboxError as error:
        with contextlib.suppress(ConnectionError):
            await websocket.send_bytes(bytes([ERROR]) + failure(str(error)))
        return
    inward_ended = asyncio.Event()

    async def inward() -> None:
        async for message in websocket:
            frame: bytes = message.data if message.type is WSMsgType.BINARY else b""
            if frame[:1] == bytes([STDIN]):
                writer.write(frame[1:])
                await writer.drain()
            elif frame == bytes([CLOSE, STDIN]):
                if writer.can_write_eof():
                    writer.write_eof()
                inward_ended.set()

    async def outward() -> None:
        while data := await reader.read(_CHUNK):
            await websocket.send_bytes(bytes([STDOUT]) + data)
        await websocket.send_bytes(bytes([CLOSE, STDOUT]))
        await inward_ended.wait()

    try:
        await until_one_ends(inward(), outward())
    except OSError as error:
        with contextlib.suppress(ConnectionError):
            await websocket.send_bytes(bytes([ERROR]) + failure(str(error)))
    finally:
        writer.transport.abort()

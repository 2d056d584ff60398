"""Attaches a client of a WebSocket to a container: its output from now on and, if it has one, its standard input."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import msgspec
from aiohttp import web

from cumulet.common.kubernetes.channels import ERROR, success
from cumulet.common.tasks import until_one_ends
from cumulet.instances.groups.group import Group
from cumulet.instances.provider.frames import Input, deliver, internal_failure
from cumulet.instances.streams import logs
from cumulet.instances.streams.attached import AttachedInput
from cumulet.instances.streams.changes import Changes


class Attachment(NamedTuple):
    """A container to attach to; `channels` is Kubernetes' protocol, otherwise only output is sent."""

    group: Group
    container: str
    stdin: bool
    channels: bool


async def attach(changes: Changes, attachment: Attachment, socket: web.WebSocketResponse) -> None:
    """Send output until the container has ended, and deliver input until the client disconnects."""
    group, name, _, channels = attachment
    ended = group.ended(name)
    # Before any input: what the container answers is seen.
    reader = await logs.from_now_on(group.attempts.readable_log(name))

    async def send_output() -> None:
        with contextlib.suppress(ConnectionError):
            async with contextlib.aclosing(logs.follow_streams(reader, changes, ended)) as output:
                async for channel, text in output:
                    await socket.send_bytes(bytes([channel]) + text if channels else text)
            if channels:
                await socket.send_bytes(bytes([ERROR]) + success())

    container: Input = _NoInput()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(reader.close)
        if attachment.stdin:
            try:
                container = opened = await AttachedInput.open(group.attempts.bundle(name))
            except OSError as error:
                status = internal_failure(f"the input of container {name} cannot be reached: {error}")
                await socket.send_bytes(bytes([ERROR]) + msgspec.json.encode(status))
                return
            stack.callback(opened.close)
        await until_one_ends(send_output(), deliver(socket, container, channels=channels))


class _NoInput:
    """The input of a container without one."""

    async def write(self, data: bytes) -> None:
        """See `Input`."""

    async def resize(self, columns: int, rows: int) -> None:
        """See `Input`."""

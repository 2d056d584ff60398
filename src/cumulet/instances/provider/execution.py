"""Runs a command in a container for a client of a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

import msgspec
from aiohttp import web

from cumulet.common.kubernetes.channels import ERROR
from cumulet.common.kubernetes.objects import Status
from cumulet.instances.groups.group import Group
from cumulet.instances.provider.frames import deliver, internal_failure
from cumulet.instances.runtime.conmon import Runtime
from cumulet.instances.streams.execution import ExecFailure, Session


class Size(NamedTuple):
    """The size of a terminal."""

    columns: int
    rows: int


class Command(NamedTuple):
    """A command, and its streams; `channels` is Kubernetes' protocol, otherwise it is ACI's."""

    group: Group
    container: str
    words: list[str]
    stdin: bool
    tty: bool
    channels: bool
    size: Size | None


async def execute(runtime: Runtime, command: Command, socket: web.WebSocketResponse) -> None:
    """Run a command until it ends, and send its output and, in Kubernetes' protocol, its status."""
    group, name = command.group, command.container

    async def send(channel: int, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await socket.send_bytes(bytes([channel]) + data if command.channels else data)

    try:
        description = group.process(name, command.words, tty=command.tty)
    except OSError as error:  # the container was removed in the meantime
        if command.channels:
            await send(ERROR, msgspec.json.encode(internal_failure(str(error))))
        return
    session = Session(runtime, group.attempts.cid(name), description, stdin=command.stdin, tty=command.tty)
    if command.size is not None:
        await session.resize(*command.size)
    running = asyncio.create_task(session.run(send))
    reading = asyncio.create_task(deliver(socket, session, channels=command.channels))
    try:
        await asyncio.wait([running, reading], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            return  # the client disconnected: the process is ended below
        try:
            status = _status(running.result())
        except ExecFailure as error:
            # The words of a kubelet with containerd.
            failed = f"failed to exec in container: failed to start exec: OCI runtime exec failed: {error}: unknown"
            status = internal_failure(f"Internal error occurred: error executing command in container: {failed}")
        except OSError as error:
            status = internal_failure(str(error))
        if command.channels:
            await send(ERROR, msgspec.json.encode(status))
    finally:
        for task in (running, reading):
            task.cancel()
        await asyncio.gather(running, reading, return_exceptions=True)


def _status(code: int) -> Status:
    """Return the status of a command by its exit code, as in the API server."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }

"""The WebSockets of exec, attach and port-forward: an action of the provider offers one, with a password for one use.

In ACI's protocol, the first frame is the password, and the others are raw bytes. In `v5.channel.k8s.io`, if exec requests
it, each frame after the password starts with its channel: 0 to 2 for the streams, 3 for the final `Status`, 4 for the size of
the terminal, 255 to close a channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import shlex
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec
from aiohttp import WSMsgType, web

from cumulet.common.arm import ArmError
from cumulet.common.kubernetes.objects import Status
from cumulet.common.tasks import until_one_ends
from cumulet.instances.groups.group import Group
from cumulet.instances.model.arguments import check_arguments
from cumulet.instances.provider.port_forward import forward
from cumulet.instances.runtime.conmon import Runtime, RuntimeFailure
from cumulet.instances.streams import logs
from cumulet.instances.streams.changes import Changes
from cumulet.instances.streams.execution import Session

CHANNELS = "v5.channel.k8s.io"
_ERROR, _RESIZE, _CLOSE = 3, 4, 255
#: Seconds for which an offer is valid, and to wait for its password.
_OFFER_SECONDS, _PASSWORD_SECONDS = 60.0, 10.0
_MESSAGE_LIMIT = 4 * 1024 * 1024


Serve = Callable[[web.WebSocketResponse], Awaitable[None]]


class _Offer(NamedTuple):
    password: str
    serve: Serve


class _Command(NamedTuple):
    group: Group
    container: str
    command: list[str]
    stdin: bool
    tty: bool
    channels: bool


class Streams:
    """Serves `/streams/{id}`."""

    def __init__(self, base_url: str, runtime: Runtime, changes: Changes) -> None:
        self._base_url = base_url.replace("https://", "wss://", 1)
        self._runtime = runtime
        self._changes = changes
        self._offers: dict[str, _Offer] = {}

    def offer_exec(self, group: Group, container: str, body: Mapping[str, object]) -> dict[str, str]:
        """Offer a WebSocket that runs a command: `webSocketUri` and `password`. Raises `ArmError` 400."""
        command = body.get("command")
        try:
            if isinstance(command, str):
                command = shlex.split(command)
            if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
                raise ValueError("it must be a command line or a list of strings")
            check_arguments(command)
        except ValueError as error:
            raise ArmError(
                400, "InvalidRequestContent", f"The command is not valid: {error}.", target="command"
            ) from None
        channels = body.get("protocol") == CHANNELS
        # ACI's exec is always a terminal.
        tty = bool(body.get("tty")) if channels else True
        stdin = bool(body.get("stdin")) if channels else True
        return self._offer(partial(self._execute, _Command(group, container, command, stdin, tty, channels)))

    def offer_attach(self, group: Group, container: str) -> dict[str, str]:
        """Offer a WebSocket with the output of a container from now on."""
        return self._offer(partial(self._attach, group, container))

    def offer_forward(self, group: Group, body: Mapping[str, object]) -> dict[str, str]:
        """Offer a WebSocket for one TCP connection to a port on the group's own loopback. Raises `ArmError` 400."""
        port = body.get("port")
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise ArmError(400, "InvalidRequestContent", "The port must be a number from 1 to 65535.", target="port")
        return self._offer(partial(forward, namespace=group.network, sandbox=group.record.uid, port=port))

    def _offer(self, serve: Serve) -> dict[str, str]:
        name, password = str(uuid.uuid4()), secrets.token_urlsafe(24)
        self._offers[name] = _Offer(password, serve)
        asyncio.get_running_loop().call_later(_OFFER_SECONDS, self._offers.pop, name, None)
        return {"webSocketUri": f"{self._base_url}/streams/{name}", "password": password}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve an offer. A second request for it gets 404."""
        offer = self._offers.pop(request.match_info["id"], None)
        if offer is None:
            raise web.HTTPNotFound
        socket = web.WebSocketResponse(max_msg_size=_MESSAGE_LIMIT)
        await socket.prepare(request)
        try:
            first = await socket.receive(timeout=_PASSWORD_SECONDS)
        except TimeoutError:
            await socket.close(code=1008, message=b"no password was received")
            return socket
        given = first.data if isinstance(first.data, str) else ""
        if not hmac.compare_digest(offer.password.encode(), given.encode()):
            await socket.close(code=1008, message=b"the password is wrong or was used before")
            return socket
        await offer.serve(socket)
        await socket.close()
        return socket

    async def _attach(self, group: Group, container: str, socket: web.WebSocketResponse) -> None:
        log = group.attempts.readable_log(container)
        output = logs.follow(log, logs.Query(tail=0), self._changes, group.ended(container))

        async def send_log() -> None:
            async with contextlib.aclosing(output):
                with contextlib.suppress(ConnectionError):
                    async for chunk in output:
                        await socket.send_bytes(chunk)

        await until_one_ends(send_log(), _until_closed(socket))

    async def _execute(self, offer: _Command, socket: web.WebSocketResponse) -> None:
        group, name = offer.group, offer.container

        async def send(channel: int, data: bytes) -> None:
            with contextlib.suppress(ConnectionError):
                await socket.send_bytes(bytes([channel]) + data if offer.channels else data)

        try:
            description = group.process(name, offer.command, tty=offer.tty)
        except OSError as error:  # the container was removed in the meantime
            if offer.channels:
                await send(_ERROR, msgspec.json.encode(_failure(str(error))))
            return
        session = Session(self._runtime, group.attempts.cid(name), description, stdin=offer.stdin, tty=offer.tty)
        running = asyncio.create_task(session.run(send))
        reading = asyncio.create_task(_read(socket, session, channels=offer.channels))
        try:
            await asyncio.wait([running, reading], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                return  # the client disconnected: the process is ended below
            try:
                status = _status(running.result())
            except (RuntimeFailure, OSError) as error:
                status = _failure(str(error))
            if offer.channels:
                await send(_ERROR, msgspec.json.encode(status))
        finally:
            for task in (running, reading):
                task.cancel()
            await asyncio.gather(running, reading, return_exceptions=True)


async def _read(socket: web.WebSocketResponse, session: Session, *, channels: bool) -> None:
    async for message in socket:
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            continue
        data: bytes = message.data.encode() if isinstance(message.data, str) else message.data
        if not channels:
            await session.write(data)
        elif data:
            channel, rest = data[0], data[1:]
            if channel == 0 and rest:
                await session.write(rest)
            elif channel == _CLOSE and rest == b"\0":
                await session.write(b"")
            elif channel == _RESIZE:
                with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError):
                    size = msgspec.json.decode(rest)
                    await session.resize(int(size["Width"]), int(size["Height"]))


async def _until_closed(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


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


def _failure(message: str) -> Status:
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}

"""The WebSockets of exec, attach and port-forward: an action of the provider offers one, with a password for one use.

In ACI's protocol, the first frame is the password, and the others are raw bytes. In `v5.channel.k8s.io`, if the request names
it, and always for port-forward, each frame after the password starts with its channel: 0 to 2 for the streams, 3 for the
final `Status`, 4 for the size of the terminal, 255 to close a channel.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import shlex
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, NamedTuple

import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError
from cumulet.common.kubernetes.channels import V5
from cumulet.instances.groups.group import Group
from cumulet.instances.model.arguments import check_arguments
from cumulet.instances.provider.attachment import Attachment, attach
from cumulet.instances.provider.execution import Command, Size, execute
from cumulet.instances.provider.port_forward import forward
from cumulet.instances.runtime.conmon import Runtime
from cumulet.instances.streams.changes import Changes

#: Seconds for which an offer is valid, and to wait for its password.
_OFFER_SECONDS, _PASSWORD_SECONDS = 60.0, 10.0
_MESSAGE_LIMIT = 4 * 1024 * 1024


Serve = Callable[[web.WebSocketResponse], Awaitable[None]]


class _Offer(NamedTuple):
    password: str
    serve: Serve


class _TerminalSize(msgspec.Struct):
    cols: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] = 0
    rows: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] = 0


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
        channels = body.get("protocol") == V5
        # ACI's exec is always a terminal.
        tty = bool(body.get("tty")) if channels else True
        stdin = bool(body.get("stdin")) if channels else True
        size = _size(body.get("terminalSize"))
        return self._offer(
            partial(execute, self._runtime, Command(group, container, command, stdin, tty, channels, size)),
            channels=channels,
        )

    def offer_attach(self, group: Group, container: str, body: Mapping[str, object]) -> dict[str, str]:
        """Offer a WebSocket with the output of a container from now on and, if the body demands it, its input.

        Raises `ArmError` 400 for a container without standard input.
        """
        channels = body.get("protocol") == V5
        stdin = channels and bool(body.get("stdin"))
        if stdin and not group.attempts.container(container).properties.stdin:
            raise ArmError(
                400,
                "NoStandardInput",
                f"container {container} has no standard input; set stdin in its specification, attach without -i, or use exec",
            )
        return self._offer(
            partial(attach, self._changes, Attachment(group, container, stdin, channels)), channels=channels
        )

    def offer_forward(self, group: Group, body: Mapping[str, object]) -> dict[str, str]:
        """Offer a WebSocket for one TCP connection to a port on the group's own loopback. Raises `ArmError` 400."""
        port = body.get("port")
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise ArmError(400, "InvalidRequestContent", "The port must be a number from 1 to 65535.", target="port")
        return self._offer(
            partial(forward, namespace=group.network, sandbox=group.record.uid, port=port), channels=True
        )

    def _offer(self, serve: Serve, *, channels: bool) -> dict[str, str]:
        name, password = str(uuid.uuid4()), secrets.token_urlsafe(24)
        self._offers[name] = _Offer(password, serve)
        asyncio.get_running_loop().call_later(_OFFER_SECONDS, self._offers.pop, name, None)
        offer = {"webSocketUri": f"{self._base_url}/streams/{name}", "password": password}
        return {**offer, "protocol": V5} if channels else offer

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


def _size(given: object) -> Size | None:
    """Return ACI's `terminalSize`, or `None` where there is none. Raises `ArmError` 400."""
    if given is None:
        return None
    try:
        size = msgspec.convert(given, _TerminalSize)
    except msgspec.ValidationError as error:
        why = f"The terminalSize is not valid: {error}."
        raise ArmError(400, "InvalidRequestContent", why, target="terminalSize") from None
    return Size(size.cols, size.rows)

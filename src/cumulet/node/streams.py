"""Exec, attach and port-forward of the kubelet's API, over SPDY and WebSockets."""

from __future__ import annotations

import aiohttp
from aiohttp import WSMsgType, web

from cumulet.common.arm import ArmError
from cumulet.common.kubernetes.channels import ERROR, STDIN, STDOUT, V5, Deliver, Options, failure, relay, success
from cumulet.common.kubernetes.negotiation import MESSAGE_LIMIT, ClientLeftError, accept
from cumulet.common.kubernetes.objects import Pod
from cumulet.node import forward
from cumulet.node.aci import ContainerGroups, ExecRequest
from cumulet.node.connections import Ports
from cumulet.node.containers import container_status
from cumulet.node.pods import Pods
from cumulet.node.translate import group_name


class Streams:
    """Connects clients to the WebSockets of the provider and to the ports of pods."""

    def __init__(self, pods: Pods, groups: ContainerGroups, session: aiohttp.ClientSession) -> None:
        self._pods = pods
        self._groups = groups
        self._session = session

    async def execute(self, request: web.Request) -> web.StreamResponse:
        """Run a command in a container."""
        options = _options(request)
        path = self._container(request)
        body: ExecRequest = {
            "command": request.query.getall("command", []),
            "stdin": options.stdin,
            "tty": options.tty,
            "protocol": V5,
        }
        return await self._relay(request, options, f"{path}/exec", body)

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """Stream the output of a container from now on, and its input if it has one."""
        options = _options(request)
        path = self._container(request)
        return await self._relay(request, options, f"{path}/attach", {"stdin": options.stdin, "protocol": V5})

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Connect to ports of a pod."""
        pod = self._pod(request)
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise web.HTTPNotFound(text=f'pod "{request.match_info["pod"]}" has no address')
        ports = Ports(request.match_info["pod"], group_name(pod), address, self._groups, self._session)
        return await forward.serve(request, ports.connect)

    def _pod(self, request: web.Request) -> Pod:
        info = request.match_info
        pod = self._pods.pods.get(info["pod"], info["namespace"])
        if pod is None:
            raise web.HTTPNotFound(text=f'pod "{info["pod"]}" is not on this node')
        return pod

    def _container(self, request: web.Request) -> str:
        """Return `{group}/containers/{container}` of a running container. Raises `web.HTTPException` with upstream's text."""
        pod, name = self._pod(request), request.match_info["container"]
        status = container_status(pod, name)
        if status is None or "running" not in status["state"]:
            raise web.HTTPInternalServerError(text=f'container not found ("{name}")')
        return f"{group_name(pod)}/containers/{name}"

    async def _relay(
        self, request: web.Request, options: Options, path: str, body: ExecRequest
    ) -> web.StreamResponse:
        try:
            offer = await self._groups.post(path, body)
        except ArmError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        try:
            async with (
                self._session.ws_connect(offer["webSocketUri"], max_msg_size=MESSAGE_LIMIT) as socket,
                accept(request, options) as (response, client),
            ):
                await socket.send_str(offer["password"])
                await relay(client, _Group(socket, plain=offer.get("protocol") != V5))
                return response
        except ClientLeftError as error:
            return error.response


class _Group:
    """The WebSocket of a container group. A `plain` one, as Azure's, has only bytes, without a final status."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, plain: bool) -> None:
        self._socket = socket
        self._plain = plain

    async def send(self, frame: bytes) -> None:
        """As `Channels`."""
        if not self._plain:
            await self._socket.send_bytes(frame)
        elif frame[0] == STDIN:
            await self._socket.send_bytes(frame[1:])

    async def run(self, deliver: Deliver) -> None:
        """As `Channels`."""
        reported = False
        async for message in self._socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                continue
            data = message.data.encode() if isinstance(message.data, str) else message.data
            if not data:
                continue
            await deliver(bytes([STDOUT]) + data if self._plain else data)
            reported = reported or (not self._plain and data[:1] == bytes([ERROR]))
        if not reported:
            await deliver(bytes([ERROR]) + (success() if self._plain else failure("the container group went away")))

    async def close(self) -> None:
        """As `Channels`."""
        await self._socket.close()


def _options(request: web.Request) -> Options:
    stdin, stdout, stderr, tty = (request.query.get(name) == "1" for name in ("input", "output", "error", "tty"))
    if not (stdin or stdout or stderr):
        raise web.HTTPBadRequest(text="you must specify at least 1 of stdin, stdout, stderr")
    return Options(stdin, stdout, stderr and not tty, tty)

"""The kubelet's HTTP API (logs, exec, attach, pods), for the API server and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
from aiohttp import WSMsgType, web
from prometheus_client import CollectorRegistry

from cumulet.common.arm import ArmError
from cumulet.common.entra import AuthenticationError
from cumulet.common.health import health_routes
from cumulet.common.room import peer_certificate
from cumulet.node.access import Access
from cumulet.node.aci import ContainerGroups
from cumulet.node.forward import CHANNELS, TUNNEL, forward
from cumulet.node.pods import Pods
from cumulet.node.stats import Stats
from cumulet.node.translate import group_name

Object = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_V5, _V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_MESSAGE_LIMIT = 16 * 1024 * 1024
#: What upstream's kubelet says of a container without a log, instead of the reason.
_PULL_FAILED = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}
_OPEN = ("/healthz", "/readyz", "/metrics")
ACCESS = web.AppKey("access", Access)


class Kubelet:
    """Finds the group of a pod and hands over what it has."""

    def __init__(self, pods: Pods, groups: ContainerGroups, stats: Stats, context: ssl.SSLContext) -> None:
        self._pods = pods
        self._groups = groups
        self._stats = stats
        self._context = context

    def app(self, unready: Callable[[], str | None]) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[_only_the_api_server])
        app.add_routes(health_routes(CollectorRegistry(), unready))
        streams = "{namespace}/{pod}/{container}"
        app.add_routes(
            [
                web.get("/pods", self._list),
                web.get("/runningpods/", self._list),
                web.get("/stats/summary", self._summary),
                web.get(f"/containerLogs/{streams}", self._logs),
                web.get(f"/exec/{streams}", self._exec),
                web.get(f"/attach/{streams}", self._attach),
                web.get("/portForward/{namespace}/{pod}", self._port_forward),
            ]
        )
        return app

    async def _list(self, request: web.Request) -> web.Response:
        body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(self._pods.pods)}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _summary(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(await self._stats.summary()), content_type="application/json")

    def _container(self, request: web.Request) -> str:
        """`{group}/containers/{container}`. Raises `HTTPNotFound`."""
        info = request.match_info
        pod = self._pods.pods.get(info["pod"], info["namespace"])
        if pod is None:
            raise web.HTTPNotFound(text=f'pod "{info["pod"]}" is not on this node')
        statuses = (pod.get("status") or {}).get("containerStatuses") or ()
        for status in statuses:
            waiting = status["state"].get("waiting")
            if status["name"] == info["container"] and waiting and not status.get("containerID"):
                why = _PULL_FAILED.get(waiting["reason"], waiting["reason"])
                which = f'container "{info["container"]}" in pod "{info["pod"]}"'
                raise web.HTTPBadRequest(text=f"{which} is waiting to start: {why}")
        return f"{group_name(pod)}/containers/{info['container']}"

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        path = self._container(request)
        query = {"stream": "true"}
        for name, theirs in (
            ("follow", "follow"),
            ("previous", "previous"),
            ("sinceSeconds", "sinceSeconds"),
            ("sinceTime", "sinceTime"),
            ("timestamps", "timestamps"),
            ("tailLines", "tail"),
            ("limitBytes", "limitBytes"),
        ):
            if name in request.query:
                query[theirs] = request.query[name]
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        try:
            async for chunk in self._groups.stream(f"{path}/logs", query):
                if not response.prepared:
                    await response.prepare(request)
                await response.write(chunk)
        except ArmError as error:
            why = str(error)
            if error.code == "PreviousContainerNotFound":
                info = request.match_info
                why = f'previous terminated container "{info["container"]}" in pod "{info["pod"]}" not found'
            raise web.HTTPBadRequest(text=why) from None
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        path = self._container(request)
        query = request.query
        body = {
            "command": query.getall("command", []),
            "stdin": query.get("input") == "1",
            "tty": query.get("tty") == "1",
            "protocol": _V5,
        }
        try:
            offer = await self._groups.post(f"{path}/exec", body)
        except ArmError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        return await self._relay(request, offer, channels=True)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        path = self._container(request)
        try:
            offer = await self._groups.post(f"{path}/attach", {})
        except ArmError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        return await self._relay(request, offer, channels=False)

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        info = request.match_info
        pod = self._pods.pods.get(info["pod"], info["namespace"])
        address = ((pod or {}).get("status") or {}).get("podIP")
        if not address:
            raise web.HTTPNotFound(text=f'pod "{info["pod"]}" has no address on this node')
        ports = request.query.getall("port", [])
        if not all(port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536 for port in ports):
            raise web.HTTPBadRequest(text="ports are numbers between 1 and 65535")
        socket = web.WebSocketResponse(protocols=[TUNNEL, CHANNELS], max_msg_size=_MESSAGE_LIMIT)
        await socket.prepare(request)
        await forward(socket, address, [int(port) for port in ports])
        with contextlib.suppress(ConnectionError):
            await socket.close()
        return socket

    async def _relay(self, request: web.Request, offer: Object, *, channels: bool) -> web.StreamResponse:
        """Between the API server's WebSocket and the group's; where that knows no channels, all of it is stdout."""
        socket = web.WebSocketResponse(protocols=[_V5, _V4], max_msg_size=_MESSAGE_LIMIT)
        await socket.prepare(request)
        connector = aiohttp.TCPConnector(ssl=self._context)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.ws_connect(offer["webSocketUri"], max_msg_size=_MESSAGE_LIMIT) as other,
        ):
            await other.send_str(offer["password"])

            async def outward() -> None:
                async for message in other:
                    if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                        data = message.data.encode() if isinstance(message.data, str) else message.data
                        await socket.send_bytes(data if channels else b"\x01" + data)

            async def inward() -> None:
                async for message in socket:
                    if message.type is WSMsgType.BINARY and channels:
                        await other.send_bytes(message.data)

            tasks = [asyncio.create_task(outward()), asyncio.create_task(inward())]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await socket.close()
        return socket


@web.middleware
async def _only_the_api_server(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path not in _OPEN:
        peer = peer_certificate(request)
        if peer is None:
            raise web.HTTPUnauthorized(text="Unauthorized")
        if why := await request.app[ACCESS].refusal(peer, request):
            raise web.HTTPForbidden(text=why)
    try:
        return await handler(request)
    except (AuthenticationError, aiohttp.ClientConnectionError) as error:
        raise web.HTTPServiceUnavailable(text=f"the provider does not answer: {error}") from None

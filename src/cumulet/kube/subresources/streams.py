"""Exec, attach and port-forward: joins a client's connection with one to the pod's kubelet.

A kubelet accepts SPDY, and WebSockets of versions before 5. The newer protocols end here, as in upstream's API
server: the channels of version 5 become streams of a SPDY session, and SPDY tunnelled in a WebSocket is unwrapped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web
from multidict import CIMultiDict
from yarl import URL

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.channels import (
    ERROR,
    SPDY_VERSIONS,
    STDERR,
    STDOUT,
    V5,
    Options,
    SpdyChannels,
    WebSocketChannels,
    failure,
    relay,
)
from cumulet.common.kubernetes.negotiation import (
    MESSAGE_LIMIT,
    VERSION_HEADER,
    accept_websocket,
    tunnelled,
    websocket_protocols,
)
from cumulet.common.kubernetes.objects import Object
from cumulet.common.spdy import PROTOCOL, Session
from cumulet.common.tasks import until_one_ends
from cumulet.common.upgrade import RefusedError, Upgraded, upgrade
from cumulet.kube.apimachinery.status import ApiError, bad_request
from cumulet.kube.clients.kubelet import Kubelet
from cumulet.kube.http.options import is_set

_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse

_TUNNEL = f"{PROTOCOL}+"
_QUERY = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}


class Streams:
    """Connects clients with kubelets."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet

    async def handle(self, request: web.BaseRequest, pod: Object, kind: str) -> web.StreamResponse:
        """Answer a request for `exec`, `attach` or `portforward`. Raises `ApiError`."""
        wanted = [is_set(request.query, name) for name in _QUERY]
        url = self._url(request, pod, kind)
        match fold(request.headers.get("Upgrade", "")):
            case "websocket":
                offered = websocket_protocols(request)
                tunnels = [name.removeprefix(_TUNNEL) for name in offered if name.startswith(_TUNNEL)]
                if kind == "portforward" and tunnels:
                    return await self._tunnel(request, url, tunnels)
                if kind != "portforward" and V5 in offered:
                    return await self._translate(request, url, Options(*wanted))
                return await self._relay(request, url, offered)
            case protocol if protocol == fold(PROTOCOL):
                return await self._join(request, url)
        raise bad_request("Upgrade request required")

    def _url(self, request: web.BaseRequest, pod: Object, kind: str) -> URL:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if kind == "portforward":
            base, path = self._kubelet.address(pod), f"/portForward/{namespace}/{name}"
            ports = ",".join(request.query.getall("ports", []))
            return URL(base + path).with_query({"port": ports} if ports else {})
        path = f"/{kind}/{namespace}/{name}/{self._kubelet.container(request, pod)}"
        query = [("command", word) for word in request.query.getall("command", [])]
        query += [(short, "1") for name, short in _QUERY.items() if is_set(request.query, name)]
        return URL(self._kubelet.address(pod) + path).with_query(query)

    async def _join(self, request: web.BaseRequest, url: URL) -> web.StreamResponse:
        """SPDY on both sides: copy bytes."""
        versions = request.headers.getall(VERSION_HEADER, [])
        try:
            async with upgrade(url, PROTOCOL, _offer(*versions), self._kubelet.context) as (there, answered):
                response = Upgraded(PROTOCOL, _chosen(answered))
                here = await response.take(request)
                await _both((here.read, there.send), (there.read, here.send))
                await here.close()
                return response
        except RefusedError as error:
            return _refusal(error)
        except OSError as error:
            raise _away(error) from None

    async def _tunnel(self, request: web.BaseRequest, url: URL, versions: list[str]) -> web.StreamResponse:
        """SPDY in a WebSocket on the client's side: copy bytes."""
        try:
            async with upgrade(url, PROTOCOL, _offer(*versions), self._kubelet.context) as (there, answered):
                socket = await accept_websocket(request, [_TUNNEL + answered.get(VERSION_HEADER, versions[0])])
                await _both((lambda: tunnelled(socket), there.send), (there.read, socket.send_bytes))
                with contextlib.suppress(ConnectionError):
                    await socket.close()
                return socket
        except RefusedError as error:
            return _refusal(error)
        except OSError as error:
            raise _away(error) from None

    async def _translate(self, request: web.BaseRequest, url: URL, options: Options) -> web.StreamResponse:
        """Channels of version 5 on the client's side, SPDY on the kubelet's. A failure is sent as a `Status`."""
        socket = await accept_websocket(request, [V5])
        client = WebSocketChannels(socket, options)
        with contextlib.suppress(ConnectionError):
            # A first frame without data signals the client that the kubelet is connected.
            await client.send(bytes([STDOUT if options.stdout else STDERR if options.stderr else ERROR]))
            try:
                version = SPDY_VERSIONS[0]
                async with upgrade(url, PROTOCOL, _offer(version), self._kubelet.context) as (carrier, _):
                    session = Session(carrier.send)
                    running = asyncio.create_task(session.run(carrier.read))
                    try:
                        names = options.streams(resizes=True)
                        opened = await asyncio.gather(*[session.open({"streamtype": name}) for name in names])
                        streams = dict(zip(names, opened, strict=True))
                        await relay(client, SpdyChannels(session, streams, ("stdout", "stderr", "error")))
                    finally:
                        running.cancel()
                        await asyncio.gather(running, return_exceptions=True)
            except RefusedError as error:
                await client.send(bytes([ERROR]) + failure(f"unable to upgrade connection: {error}"))
            except OSError as error:
                await client.send(bytes([ERROR]) + failure(f"error dialing backend: {error}"))
        await client.close()
        return socket

    async def _relay(self, request: web.BaseRequest, url: URL, offered: list[str]) -> web.StreamResponse:
        """WebSockets on both sides: copy messages."""
        try:
            there = await self._kubelet.session.ws_connect(url, protocols=offered, max_msg_size=MESSAGE_LIMIT)
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError(error.status if error.status >= 400 else 500, "InternalError", error.message, {}) from None
        except aiohttp.ClientConnectionError as error:
            raise _away(error) from None
        async with there:
            here = web.WebSocketResponse(
                protocols=[there.protocol] if there.protocol else [], max_msg_size=MESSAGE_LIMIT
            )
            await here.prepare(request)
            await _messages(here, there)
            return here


async def _both(*ways: tuple[Callable[[], Awaitable[bytes]], Callable[[bytes], Awaitable[None]]]) -> None:
    """Copy bytes both ways until either end has no more."""

    async def copy(read: Callable[[], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]]) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await read():
                await send(data)

    await until_one_ends(*(copy(*way) for way in ways))


async def _messages(one: web.WebSocketResponse, other: aiohttp.ClientWebSocketResponse) -> None:
    """Copy messages both ways until either end closes; then close the other."""

    async def copy(source: _Socket, target: _Socket) -> None:
        code = WSCloseCode.OK
        while True:
            message = await source.receive()
            if message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
            else:
                # Use the code of the close frame: the socket's own may be that of a lost connection.
                if message.type is WSMsgType.CLOSE and message.data:
                    code = message.data
                elif message.type is WSMsgType.ERROR:
                    code = WSCloseCode.INTERNAL_ERROR
                break
        await target.close(code=code)

    tasks = {asyncio.create_task(copy(one, other)), asyncio.create_task(copy(other, one))}
    try:
        # Closing a socket ends the copy from it, so both end.
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _offer(*versions: str) -> CIMultiDict[str]:
    return CIMultiDict((VERSION_HEADER, version) for version in versions)


def _chosen(answered: Mapping[str, str]) -> dict[str, str]:
    version = answered.get(VERSION_HEADER)
    return {VERSION_HEADER: version} if version else {}


def _refusal(error: RefusedError) -> web.Response:
    """Return a kubelet's refusal unchanged."""
    return web.Response(status=error.status, body=error.body, headers={"Content-Type": error.content_type})


def _away(error: Exception) -> ApiError:
    return ApiError(500, "InternalError", f"error dialing backend: {error}", {})

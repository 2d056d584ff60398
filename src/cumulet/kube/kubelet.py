"""The way to a pod's logs and streams: its node's kubelet API, to which bytes are relayed as they come."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web

from cumulet.kube.status import ApiError, bad_request, not_found
from cumulet.kube.store import Store

Object = dict[str, Any]

_LOG_QUERY = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes")
_STREAM_QUERY = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_FORWARD_PROTOCOLS = ("SPDY/3.1+portforward.k8s.io", *_PROTOCOLS)
_MESSAGE_LIMIT = 16 * 1024 * 1024


class Kubelet:
    """Calls kubelets as `kube-apiserver`, with the server's own certificate."""

    def __init__(self, store: Store, context: ssl.SSLContext) -> None:
        self._store = store
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0), timeout=timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self.session.close()

    async def log(self, request: web.BaseRequest, pod: Object) -> web.StreamResponse:
        """Stream a container's log."""
        container = self._container(request, pod)
        metadata = pod["metadata"]
        query = {name: request.query[name] for name in _LOG_QUERY if name in request.query}
        path = f"/containerLogs/{metadata['namespace']}/{metadata['name']}/{container}"
        url = self._address(pod) + path
        try:
            async with self.session.get(url, params=query) as upstream:
                if upstream.status >= 400:
                    raise bad_request((await upstream.text())[:1000].strip())
                response = web.StreamResponse(headers={"Content-Type": "text/plain"})
                await response.prepare(request)
                async for chunk in upstream.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except aiohttp.ClientConnectionError as error:
            raise _away(url, error) from None

    async def stream(self, request: web.BaseRequest, pod: Object, kind: str) -> web.StreamResponse:
        """Relay exec, attach or port-forward between two WebSockets, message by message."""
        container = "" if kind == "portforward" else self._container(request, pod)
        if container and _is_down(pod, container):
            # In the kubelet's own words, as plain text: clients that are refused a WebSocket ask again with SPDY and
            # show what that answers.
            return web.Response(status=500, text=f'container not found ("{container}")')
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise bad_request(
                "Upgrade request required: this server takes WebSockets (kubectl 1.30 or newer), not SPDY"
            )
        metadata = pod["metadata"]
        if kind == "portforward":
            query = [("port", port) for port in request.query.getall("ports", [])]
            path = f"/portForward/{metadata['namespace']}/{metadata['name']}"
            known: tuple[str, ...] = _FORWARD_PROTOCOLS
        else:
            query = [("command", word) for word in request.query.getall("command", [])]
            for name, short in _STREAM_QUERY.items():
                if request.query.get(name, "").lower() in ("true", "1"):
                    query.append((short, "1"))
            path = f"/{kind}/{metadata['namespace']}/{metadata['name']}/{container}"
            known = _PROTOCOLS
        # Clients join what they offer with commas, in one header or several.
        offered = [
            item.strip() for line in request.headers.getall("Sec-WebSocket-Protocol", []) for item in line.split(",")
        ]
        protocols = [name for name in offered if name in known]
        if not protocols:
            raise bad_request(f"none of the subprotocols offered is known: {', '.join(offered)}")
        url = self._address(pod) + path + (f"?{urlencode(query)}" if query else "")
        try:
            upstream = await self.session.ws_connect(url, protocols=protocols, max_msg_size=_MESSAGE_LIMIT)
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError(
                error.status if error.status >= 400 else 500,
                "InternalError",
                f"error dialing backend: {error.message}",
                {},
            ) from None
        except aiohttp.ClientConnectionError as error:
            raise _away(url, error) from None
        async with upstream:
            chosen = upstream.protocol or protocols[0]
            downstream = web.WebSocketResponse(protocols=[chosen], max_msg_size=_MESSAGE_LIMIT)
            await downstream.prepare(request)
            await _relay(downstream, upstream)
            return downstream

    def _container(self, request: web.BaseRequest, pod: Object) -> str:
        spec, name = pod["spec"], pod["metadata"]["name"]
        names = [item["name"] for key in ("containers", "initContainers") for item in spec.get(key) or ()]
        wanted = request.query.get("container")
        if wanted:
            if wanted not in names:
                raise bad_request(f"container {wanted} is not valid for pod {name}")
            return wanted
        first = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
        if len(spec["containers"]) > 1 and first not in names:
            chosen = " ".join(item["name"] for item in spec["containers"])
            raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{chosen}]")
        return str(first if first in names else spec["containers"][0]["name"])

    def _address(self, pod: Object) -> str:
        name = pod["spec"].get("nodeName")
        if not name:
            raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        return self.node_address(name)

    def node_address(self, name: str) -> str:
        """The base URL of a node's kubelet. Raises `ApiError` 404, and 500 where it has none."""
        stored = self._store.get("nodes", "", name)
        if stored is None:
            raise not_found("", "nodes", name)
        status = stored.load().get("status") or {}
        addresses = {item["type"]: item["address"] for item in status.get("addresses") or ()}
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        if "InternalIP" not in addresses or not port:
            raise ApiError(
                500, "InternalError", f"no preferred addresses found; known addresses: {list(addresses)}", {}
            )
        return f"https://{addresses['InternalIP']}:{port}"


def _is_down(pod: Object, container: str) -> bool:
    """Whether the pod's status says that the container does not run."""
    status = pod.get("status") or {}
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return any(
        item["name"] == container and "running" not in (item.get("state") or {})
        for kind in kinds
        for item in status.get(kind) or ()
    )


async def _relay(one: web.WebSocketResponse, other: aiohttp.ClientWebSocketResponse) -> None:
    """Until either end closes; then the other is closed too."""

    async def copy(source: Any, target: Any) -> None:
        code = WSCloseCode.OK
        while True:
            message = await source.receive()
            if message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
            else:
                # The code of the close frame itself: the socket's own may be that of a connection gone since.
                if message.type is WSMsgType.CLOSE and message.data:
                    code = message.data
                elif message.type is WSMsgType.ERROR:
                    code = WSCloseCode.INTERNAL_ERROR
                break
        await target.close(code=code)

    tasks = {asyncio.create_task(copy(one, other)), asyncio.create_task(copy(other, one))}
    try:
        # Closing a socket ends the copy from it, so that both end.
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _away(url: str, error: Exception) -> ApiError:
    return ApiError(500, "InternalError", f"Get {url!r}: the node does not answer: {error}", {})

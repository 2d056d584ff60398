"""The `proxy` sub-resources: HTTP to a pod, to one of a service's endpoints, or to a node's kubelet."""

from __future__ import annotations

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from cumulet.kube.body import read
from cumulet.kube.endpoints import check_address, resolve
from cumulet.kube.kubelet import Kubelet
from cumulet.kube.objects import Objects
from cumulet.kube.status import ApiError, bad_request
from cumulet.kube.store import Store
from cumulet.kube.target import Target

#: Headers that concern one connection (RFC 9110, section 7.6.1), and those that are the caller's secrets.
_HOP = frozenset(
    (
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_IMPERSONATION = "impersonate-"


class Proxy:
    """Relays requests and answers as they are."""

    def __init__(self, store: Store, objects: Objects, kubelet: Kubelet, pod_cidr: str) -> None:
        self._store = store
        self._objects = objects
        self._kubelet = kubelet
        self._pod_cidr = pod_cidr
        # What a pod serves is between it and its user: its certificate is nobody's that we know.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=False, limit=0), timeout=timeout, auto_decompress=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def handle(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        """Answer a request. Raises `ApiError` 400, 404, and 503 where nobody answers."""
        if request.headers.get("Upgrade"):
            raise bad_request("the proxy does not upgrade connections: use port-forward")
        session, base = self._session, ""
        scheme, name, port = _named(target.name)
        match target.row.plural:
            case "nodes":
                session, base = self._kubelet.session, self._kubelet.node_address(name)
                if port and not base.endswith(f":{port}"):
                    raise bad_request(f"a node is reached at its kubelet's port only, not at {port}")
            case "pods":
                pod = self._objects.get(target.row, target.namespace, name).load()
                address = (pod.get("status") or {}).get("podIP")
                if not address:
                    raise ApiError(503, "ServiceUnavailable", f'pod "{name}" has no address yet', {})
                check_address(address, self._pod_cidr)
                ports = [
                    item["containerPort"] for one in pod["spec"]["containers"] for item in one.get("ports") or ()
                ]
                base = f"{scheme}://{address}:{port or (ports[0] if ports else 80)}"
            case _:
                address, number = resolve(self._store, target.namespace, name, port)
                check_address(address, self._pod_cidr)
                base = f"{scheme}://{address}:{number}"
        return await self._relay(session, request, base, target.path or "/")

    async def _relay(
        self, session: aiohttp.ClientSession, request: web.BaseRequest, base: str, path: str
    ) -> web.StreamResponse:
        url = URL(f"{base}{path}" + (f"?{request.query_string}" if request.query_string else ""), encoded=True)
        headers = _forwarded(request)
        body = await read(request) if request.can_read_body else None
        try:
            async with session.request(
                request.method, url, data=body, headers=headers, allow_redirects=False
            ) as upstream:
                answer = CIMultiDict(
                    (key, value) for key, value in upstream.headers.items() if key.lower() not in _HOP
                )
                response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=answer)
                await response.prepare(request)
                async for chunk in upstream.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: {error}", {}) from None


def _named(text: str) -> tuple[str, str, str]:
    """Scheme, name and port of `name`, `name:port` or `scheme:name:port`. Raises `ApiError` 400."""
    match text.split(":"):
        case [name]:
            return "http", name, ""
        case [name, port]:
            return "http", name, port
        case ["http" | "https" as scheme, name, port]:
            return scheme, name, port
    raise bad_request(f"invalid service request {text!r}")


def _forwarded(request: web.BaseRequest) -> CIMultiDict[str]:
    headers = CIMultiDict(
        (key, value)
        for key, value in request.headers.items()
        if key.lower() not in _HOP and not key.lower().startswith(_IMPERSONATION)
    )
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if peer:
        headers["X-Forwarded-For"] = peer[0]
    headers["X-Forwarded-Uri"] = request.path
    headers["X-Forwarded-Proto"] = "https"
    return headers
